"""What stands outside of routes: globals, sockets, aliases, blacklists, modules and their parameters.

None of these ends with a terminator; newlines mean nothing. A host is read as it is written, letters, digits,
dots and hyphens without a blank: OpenSIPS's lexer wants quotes around some of them
(``3cx.example.com``), we do not.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network

from sipgw.script import nodes
from sipgw.script.errors import ScriptWarning, guess
from sipgw.script.expressions import Expressions
from sipgw.script.globals import GLOBALS, SPELLINGS, Type
from sipgw.script.nodes import Alias, Blacklist, BlacklistRule, Item, Pos, ScalingRule, Setting, Socket

PROTOCOLS = "udp tcp tls sctp ws wss bin bins ipsec hep_udp hep_tcp hep_tls smpp msrp msrps".split()
SOCKET_OPTIONS = (
    "anycast frag reuse_port accept_subdomain allow_proxy_protocol send_proxy_protocol proxy_protocol"
).split()
HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
BLACKLIST_FLAGS = ("expire", "default", "readonly")


class Definitions(Expressions):
    """The part of the parser that reads globals and definitions; each gives the items it defines."""

    # ---- modules ----

    def parse_loadmodule(self) -> list[Item]:
        """Read ``loadmodule "x.so"``."""
        pos = self.pos()
        self.advance()
        if self.kind == "ID":
            self.fail("the name of a module stands in quotes", f'write loadmodule "{self.value}.so"')
        path = self.string().value
        name = path.rsplit("/", 1)[-1].removesuffix(".so")
        return [nodes.LoadModule(name, path, pos=pos)]

    def parse_modparam(self) -> list[Item]:
        """Read ``modparam("modules", "name", value)``; strings side by side are one value."""
        pos = self.pos()
        self.advance()
        self.expect("(")
        modules = self.string().value
        self.expect(",")
        name = self.string().value
        self.expect(",")
        value: nodes.Int | nodes.Str
        if self.kind == "STR":
            value = self.strings()
        elif self.at_integer():
            value = self.integer()
        else:
            hint = f'a text stands in quotes: "{self.tokens.text(self.at)}"' if self.kind != "VAR" else (
                f'a variable stands in quotes: "{self.value}"'
            )
            self.expected("a string or a number as the value of a parameter", hint)
        if self.kind != ")":
            self.argument_end_fault("modparam")
        self.advance()
        self.stray_semicolon()
        return [nodes.ModParam(modules, name, value, pos=pos)]

    def stray_semicolon(self) -> None:
        """Note a `;` after something that takes none."""
        if self.kind == ";":
            self.error("no `;` here", "outside of routes nothing ends with a `;`")
            self.advance()

    # ---- globals ----

    def parse_global(self) -> list[Item]:
        """Read ``name = value``. Whether there is such a global is the checker's question."""
        pos, name = self.pos(), self.value
        self.advance()
        if name == "mem" and self.kind == "-":
            self.advance()
            if not self.word("group"):
                self.expected("mem-group")
            name = "mem-group"
        if self.kind != "=":
            self.expected(f"`=` after `{name}`")
        self.advance()
        name = SPELLINGS.get(name, name)
        match name:
            case "socket" | "listen":
                items = self.parse_socket(pos, name)
            case "alias":
                items = self.parse_aliases(pos)
            case "dst_blacklist":
                items = self.parse_blacklist(pos)
            case "auto_scaling_profile":
                items = self.parse_scaling_profile(pos)
            case "mem-group":
                items = self.parse_mem_group(pos)
            case "mpath":
                items = self.parse_mpath(pos)
            case _:
                items = [self.parse_setting(pos, name)]
        self.stray_semicolon()
        return items

    def parse_setting(self, pos: Pos, name: str) -> Setting:
        """Read the value of a plain global."""
        value: int | str
        declared = GLOBALS.get(name)
        wanted = declared.type if declared else None
        if self.kind == "STR" and wanted in (Type.WORD, Type.INT_OR_WORD):
            self.error(f"the value of {name} is a bare word", "take the quotes away")
        if self.kind == "ID" and wanted is Type.STR:
            self.error(f"the value of {name} is a string", f'write {name} = "{self.value}"')
        if self.kind == "STR":
            value = self.string().value
        elif self.at_integer():
            value = self.integer().value
        elif wanted is Type.HOST:
            value = self.host()
        elif self.kind == "ID" and self.following() not in ("=", "(", "[", "{"):
            value = self.value
            self.advance()
        else:
            self.expected(declared.type.value if declared else "a value")
        profile = self.parse_profile() if declared and declared.profile else ""
        return Setting(name, value, profile, pos=pos)

    def parse_profile(self) -> str:
        """Read ``use_auto_scaling_profile name``, when it is there."""
        if self.word("use_auto_scaling_profile"):
            return str(self.expect("ID", "the name of an auto-scaling profile"))
        return ""

    def parse_mpath(self, pos: Pos) -> list[Item]:
        """Read directories with colons between them: a setting for each."""
        items: list[Item] = [Setting("mpath", self.string().value, pos=pos)]
        while self.accept(":"):
            items.append(Setting("mpath", self.string().value, pos=pos))
        return items

    def parse_mem_group(self, pos: Pos) -> list[Item]:
        """Read ``"name": "module" "module"``."""
        name = self.string().value
        self.expect(":")
        modules = [self.string().value]
        while self.kind == "STR":
            modules.append(self.string().value)
        return [nodes.MemGroup(name, tuple(modules), pos=pos)]

    # ---- sockets ----

    def host(self) -> str:
        """Read a host: an address, a string, or a name, with all of its letters, dots and hyphens."""
        if self.kind == "STR":
            return self.string().value
        if self.kind == "IP":
            value = str(self.value)
            self.advance()
            return value
        match = HOST.match(self.source.text, self.offset)
        if self.kind not in ("ID", "NUM", "BAD") or match is None:
            self.expected("a host")
        while self.offset < match.end() and self.kind != "EOF":
            self.advance()
        return match[0]

    def protocol(self) -> str:
        """Read a protocol and its colon."""
        written = self.value
        name = str(written).lower()
        if name not in PROTOCOLS:
            self.fail(f"there is no protocol `{written}`", guess(name, PROTOCOLS))
        self.advance()
        self.expect(":")
        return name

    def parse_socket(self, pos: Pos, keyword: str) -> list[Item]:
        """Read a socket, or a bond of them; ``listen`` (before 3.0) may leave the protocol out."""
        if self.kind == "STR":
            hint = f"write socket = {self.value}" if ":" in self.value else "write socket = udp:host:port"
            self.fail("a socket is not written in quotes", hint)
        if self.kind == "ID" and self.value == "bond" and self.following() == ":":
            return self.parse_bond(pos)
        if self.kind == "ID" and self.following() == ":":
            protocol = self.protocol()
        elif keyword == "listen":
            protocol = "udp"
        else:
            hint = f"write socket = udp:{self.tokens.text(self.at)}"
            self.fail(f"the protocol of the socket is missing before {self.shown()}", hint)
        host = "*" if self.accept("*") else self.host()
        ports = self.ports() if self.accept(":") else ()
        socket = self.parse_socket_options(Socket(protocol, host, ports, pos=pos))
        if keyword == "listen":
            self.warnings.append(ScriptWarning(*pos, "`listen` is now called `socket`", _as_socket(socket)))
        return [socket]

    def ports(self) -> tuple[tuple[int, int], ...]:
        """Read ``5060,5070-5072``."""
        ranges: list[tuple[int, int]] = []
        while True:
            start = self.offset
            first = last = self.expect("NUM", "a port")
            if self.accept("-"):
                last = self.expect("NUM", "the last port of the range")
            if not 0 <= first <= last <= 65535:
                shown = f"{first}-{last}" if first != last else str(first)
                self.error(f"{shown} is no port or range of ports", offset=start)
            ranges.append((first, last))
            if not self.accept(","):
                return tuple(ranges)

    def parse_socket_options(self, socket: Socket) -> Socket:
        """Read what may follow the address of a socket, in any order; a repeated option overwrites."""
        advertised_host, advertised_port = "", 0
        workers, tos, tag, profile = 0, None, "", ""
        options: set[str] = set()
        while self.kind == "ID" and self.following() not in ("=", "(", "{"):
            word = self.value
            if word in SOCKET_OPTIONS:
                options.add(word)
                self.advance()
            elif self.word("as"):
                advertised_host, advertised_port = self.host(), 0
                if self.accept(":"):
                    advertised_port = self.ports()[0][0]
            elif self.word("use_workers"):
                workers = self.expect("NUM", "the number of workers")
            elif self.word("tos"):
                tos = self.expect("NUM", "the number of the type of service")
            elif self.word("tag"):
                tag = self.tag()
            elif word == "use_auto_scaling_profile":
                profile = self.parse_profile()
            else:
                break
        return Socket(
            socket.protocol,
            socket.host,
            socket.ports,
            advertised_host,
            advertised_port,
            workers,
            tos,
            tag,
            profile,
            frozenset(options),
            pos=socket.pos,
        )

    def tag(self) -> str:
        """Read the tag of a socket: one bare word."""
        if self.kind == "STR":
            self.fail("the tag of a socket is a bare word", "take the quotes away")
        name = str(self.expect("ID", "the tag of the socket"))
        if self.kind == "-" and self.tokens.ends[self.at - 1] == self.offset:
            self.fail("`-` inside the tag of a socket", "a tag has only letters, digits and `_`")
        return name

    def parse_bond(self, pos: Pos) -> list[Item]:
        """Read ``bond:name {"proto:ip:port", ...}``."""
        self.advance()
        self.expect(":")
        name = self.expect("ID", "the name of the bond")
        self.expect("{")
        members: list[str] = []
        while True:
            if self.kind == "ID":
                self.fail("the sockets of a bond stand in quotes", 'write "udp:127.0.0.1:5060"')
            members.append(self.string().value)
            if not self.accept(","):
                break
        self.expect("}")
        return [nodes.Bond(name, tuple(members), pos=pos)]

    def parse_aliases(self, pos: Pos) -> list[Item]:
        """Read one alias after the other: ``[protocol:]host[:port] [accept_subdomain]``."""
        items: list[Item] = [self.parse_alias()]
        while self.kind in ("STR", "IP", "BAD") or (
            self.kind == "ID"
            and self.value not in GLOBALS
            and not self.opens_route()
            and self.following() not in ("=", "[", "{", "(", "STR")
        ):
            items.append(self.parse_alias())
        return items

    def parse_alias(self) -> Alias:
        """Read one alias. A port without a protocol is accepted, as before 3.0."""
        pos, protocol, port = self.pos(), "", 0
        if self.kind == "STR":
            return self.quoted_alias()
        if self.kind == "ID" and self.following() == ":":
            if self.value == "any" or str(self.value).lower() in PROTOCOLS:
                protocol = str(self.value).lower().replace("any", "")
                self.advance()
                self.advance()
        host = self.host()
        if self.accept(":"):
            port = self.ports()[0][0]
        return Alias(protocol, host, port, self.word("accept_subdomain"), pos=pos)

    def quoted_alias(self) -> Alias:
        """Read an alias inside a string; only its host may be in quotes, too."""
        pos, text = self.pos(), self.string().value
        first, colon, rest = text.partition(":")
        protocol = ""
        if colon and (first == "any" or first.lower() in PROTOCOLS):
            protocol, text = first.lower().replace("any", ""), rest
        host, colon, number = text.rpartition(":")
        if not colon or not number.isdigit() or (":" in host and not host.endswith("]")):
            host, number = text, "0"
        if self.accept(":"):
            number = str(self.ports()[0][0])
        subdomain = self.word("accept_subdomain")
        return Alias(protocol, host.strip("[]"), int(number), subdomain, pos=pos)

    # ---- blacklists ----

    def parse_blacklist(self, pos: Pos) -> list[Item]:
        """Read ``name/flags: { rules }``."""
        start = self.offset
        name = self.expect("ID", "the name of the blacklist")
        flags: set[str] = set()
        if self.accept("/"):
            while True:
                if not (self.kind == "ID" and self.value in BLACKLIST_FLAGS):
                    hint = "the flags are expire, default and readonly"
                    self.expected("a flag", guess(str(self.value), BLACKLIST_FLAGS) or hint)
                flags.add(self.value)
                self.advance()
                if not self.accept(","):
                    break
            if {"expire", "readonly"} <= flags:
                self.error("a blacklist that is readonly has no rules that expire", offset=start)
        rules: list[BlacklistRule] = []
        if self.accept(":"):
            self.expect("{")
            while self.kind != "}":
                rules.append(self.parse_blacklist_rule())
                if not self.accept(","):
                    break
            self.expect("}", "`,` or `}`")
        return [Blacklist(name, frozenset(flags), tuple(rules), pos=pos)]

    def parse_blacklist_rule(self) -> BlacklistRule:
        """Read ``[!](protocol, network, port, "pattern")`` or ``[!]network``."""
        pos = self.pos()
        exception = self.accept("!")
        if not self.accept("("):
            return BlacklistRule(self.parse_network(), exception=exception, pos=pos)
        protocol, port, pattern = "", 0, ""
        if self.kind == "ID":
            protocol = str(self.value).lower()
            if protocol != "any" and protocol not in PROTOCOLS:
                self.fail(f"there is no protocol `{self.value}`", guess(protocol, [*PROTOCOLS, "any"]))
            self.advance()
            self.expect(",")
        network = self.parse_network()
        if self.accept(","):
            port = 0 if self.word("any") else self.expect("NUM", "a port or `any`")
            if self.accept(","):
                pattern = self.string().value
        self.expect(")", "`,` or `)`")
        return BlacklistRule(network, protocol.replace("any", ""), port, pattern, exception, pos=pos)

    def parse_network(self) -> IPv4Network | IPv6Network:
        """Read an address or a network."""
        if self.kind not in ("IP", "NET"):
            self.expected("an address or a network")
        network = self.network()
        self.advance()
        return network

    # ---- auto-scaling ----

    def parse_scaling_profile(self, pos: Pos) -> list[Item]:
        """Read ``name scale up to N on P% for C cycles [within W] [scale down to N on P% for C cycles]``."""
        name = self.expect("ID", "the name of the profile")
        self.phrase("scale", "up", "to")
        up = self.parse_scaling_rule()
        down = None
        if self.kind == "ID" and self.value == "scale":
            self.phrase("scale", "down", "to")
            start = self.offset
            down = self.parse_scaling_rule()
            if down.load >= up.load:
                self.error(f"down at {down.load}% but up at {up.load}%", "down must be the lower", start)
        return [nodes.ScalingProfile(name, up, down, pos=pos)]

    def parse_scaling_rule(self) -> ScalingRule:
        """Read ``N on P% for C cycles [within W]``."""
        pos, start = self.pos(), self.offset
        size = self.expect("NUM", "a number of workers")
        self.phrase("on")
        load = self.expect("NUM", "a percentage")
        self.expect("%")
        self.phrase("for")
        cycles = self.expect("NUM", "a number of cycles")
        self.phrase("cycles")
        window = self.expect("NUM", "a number of cycles") if self.word("within") else cycles
        if not 0 <= load <= 100:
            self.error(f"{load}% is no load", offset=start)
        if window < cycles:
            self.error(f"{cycles} cycles do not fit within {window}", offset=start)
        return ScalingRule(size, load, cycles, window, pos=pos)

    def phrase(self, *words: str) -> None:
        """Pass words that must come in this order (``on`` is a number to the lexer)."""
        for word in words:
            if self.kind == "EOF" or self.tokens.text(self.at) != word:
                self.expected(f"`{' '.join(words)}`")
            self.advance()


def _as_socket(socket: Socket) -> str:
    ports = ",".join(f"{a}-{b}" if a != b else str(a) for a, b in socket.ports)
    host = f"[{socket.host}]" if ":" in socket.host else socket.host
    return f"write socket = {socket.protocol}:{host}{':' + ports if ports else ''}"
