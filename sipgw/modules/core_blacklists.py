"""The blacklists of destinations in scripts and by management commands (``core/blacklists.py``), always there.

One thing differs from OpenSIPS on purpose: ``del_blacklist_rule`` finds the rule that ``add_blacklist_rule`` with the same
arguments has added, whichever of them were left out."""

from __future__ import annotations

from typing import Annotated, Any

from sipgw.core.blacklists import (
    TRANSPORTS,
    Blacklist,
    NoExpiry,
    ReadOnly,
    Rule,
    key_of,
    parse_network,
    parse_rule,
)
from sipgw.exports import Module, function, mi
from sipgw.mi.jsonrpc import MIError
from sipgw.script.run import Run


def check_address(text: str) -> None:
    """Refuse what is no IP address."""
    key_of(text.strip("[]"))


def check_network(text: str) -> None:
    """Refuse what is no IP address or network, with ``!`` before it or not."""
    parse_network(text.removeprefix("!"))


def check_transport(text: str) -> None:
    """Refuse what is no transport."""
    if text.lower() not in TRANSPORTS and text.lower() != "any":
        raise ValueError(f"{text!r} is no transport")


Address = Annotated[str, check_address]
NetworkText = Annotated[str, check_network]
Transport = Annotated[str, check_transport]


def _transport(text: str | None) -> str:
    """A transport as rules have it; ``ValueError`` if it is none."""
    if not text or text.lower() == "any":
        return ""
    check_transport(text)
    return text.lower()


class CoreBlacklists(Module):
    """Which blacklists are in force for a message, and what is in them."""

    name = "core"

    # -- in scripts

    @function()
    def use_blacklist(self, run: Run, bl_name: str) -> bool:
        """Do not send this message where the list forbids it; false if there is no such list."""
        found = self._find(run, bl_name)
        if found is None:
            return False
        used = self._used(run)
        run.blacklists = used if found in used else (*used, found)
        return True

    @function()
    def unuse_blacklist(self, run: Run, bl_name: str) -> bool:
        """Leave the list out for this message, also if it is one in force by default; false if there is no such list."""
        found = self._find(run, bl_name)
        if found is None:
            return False
        run.blacklists = tuple(one for one in self._used(run) if one is not found)
        return True

    @function()
    def check_blacklist_rule(
        self,
        run: Run,
        bl_name: str,
        ip: Address,
        port: int | None = None,
        proto: Transport | None = None,
        pattern: str | None = None,
    ) -> bool:
        """Whether the list forbids to send a message of the text ``pattern`` there."""
        found = self._find(run, bl_name)
        if found is None:
            return False
        try:
            key, transport = key_of(ip.strip("[]")), _transport(proto)
        except ValueError as error:
            return self._refused(run, "check_blacklist_rule", bl_name, error)
        return found.forbids(key, transport, port or 0, lambda: pattern or "", run.user.clock())

    @function()
    def add_blacklist_rule(
        self,
        run: Run,
        bl_name: str,
        ip: NetworkText,
        port: int | None = None,
        proto: Transport | None = None,
        pattern: str | None = None,
        expire: int | None = None,
    ) -> bool:
        """Forbid an address or network (with ``!``: all but it), for good or for ``expire`` seconds; false if the list takes
        no such rule."""
        found = self._find(run, bl_name)
        if found is None:
            return False
        try:
            found.add(_rule(ip, port, proto, pattern), run.user.clock(), max(0, expire or 0))
        except (ReadOnly, NoExpiry, ValueError) as error:
            return self._refused(run, "add_blacklist_rule", bl_name, error)
        return True

    @function()
    def del_blacklist_rule(
        self,
        run: Run,
        bl_name: str,
        ip: NetworkText,
        port: int | None = None,
        proto: Transport | None = None,
        pattern: str | None = None,
    ) -> bool:
        """Remove the rule that was added with the same arguments; false if there is none."""
        found = self._find(run, bl_name)
        if found is None:
            return False
        try:
            return found.remove(_rule(ip, port, proto, pattern), run.user.clock())
        except (ReadOnly, ValueError) as error:
            return self._refused(run, "del_blacklist_rule", bl_name, error)

    def _find(self, run: Run, name: str) -> Blacklist | None:
        found: Blacklist | None = run.user.blacklists.get(name)
        if found is None:
            run.user.log(-1, f"there is no blacklist {name!r}")
        return found

    def _used(self, run: Run) -> tuple[Blacklist, ...]:
        """The lists in force for this message."""
        used: tuple[Blacklist, ...] = run.user.blacklists.default if run.blacklists is None else run.blacklists
        return used

    def _refused(self, run: Run, function: str, name: str, error: Exception) -> bool:
        why = {ReadOnly: "it is read-only", NoExpiry: "it has not the flag expire"}.get(type(error), str(error))
        run.user.log(-1, f"{function} of {name}: {why}")
        return False

    # -- management commands

    @mi("list", module="blacklists", alias="list_blacklists")
    def list_lists(self, name: str | None = None) -> dict[str, Any]:
        """Lists the rules of all blacklists, or of one."""
        lists = self.server.user.blacklists
        if name is None:
            return {"Lists": [self._show(one) for one in lists.all()]}
        found = lists.get(name)
        if found is None:
            raise MIError(404, "Unknown name")
        return self._show(found)

    @mi(
        "check_all",
        module="blacklists",
        alias="check_blacklists",
        recipes=(("ip",), ("proto", "ip"), ("proto", "ip", "port"), ("proto", "ip", "port", "pattern")),
    )
    def check_all(self, ip: str, proto: str = "", port: int = 0, pattern: str = "") -> list[str]:
        """Lists the blacklists that forbid to send to an address, a message of the text ``pattern``."""
        asked = self._asked(ip, proto, port, pattern)
        return [one.name for one in self.server.user.blacklists.all() if one.find(*asked) is not None]

    @mi(
        "check",
        module="blacklists",
        alias="check_blacklist",
        recipes=(
            ("name", "ip"),
            ("name", "proto", "ip"),
            ("name", "proto", "ip", "port"),
            ("name", "proto", "ip", "port", "pattern"),
        ),
    )
    def check(self, name: str, ip: str, proto: str = "", port: int = 0, pattern: str = "") -> dict[str, Any]:
        """Shows the first rule of a blacklist that forbids to send to an address."""
        found = self._named(name).find(*self._asked(ip, proto, port, pattern))
        if found is None:
            raise MIError(404, "Not Matched")
        return _show_rule(*found, self.server.user.clock())

    @mi("add_rule", module="blacklists", alias="add_blacklist_rule")
    def add_rule(self, name: str, rule: str, expire: int | None = None) -> None:
        """Adds a rule, ``[!][proto,]network[,port[,pattern]]``, to a blacklist, for good or for so many seconds."""
        found, parsed = self._changed(name, rule)
        if expire is not None and expire <= 0:
            raise MIError(404, "Bad expire value")
        try:
            found.add(parsed, self.server.user.clock(), expire or 0)
        except NoExpiry:
            raise MIError(404, "Blacklist without expire support") from None
        except ValueError:
            raise MIError(500, "Too many rules") from None

    @mi("del_rule", module="blacklists", alias="del_blacklist_rule")
    def del_rule(self, name: str, rule: str) -> None:
        """Removes a rule from a blacklist."""
        found, parsed = self._changed(name, rule)
        if not found.remove(parsed, self.server.user.clock()):
            raise MIError(404, "Rule not found")

    def _named(self, name: str) -> Blacklist:
        found: Blacklist | None = self.server.user.blacklists.get(name)
        if found is None:
            raise MIError(400, "Missing or bad blacklist name")
        return found

    def _changed(self, name: str, rule: str) -> tuple[Blacklist, Rule]:
        """The list and the rule of a command that changes it."""
        found = self._named(name)
        if "readonly" in found.flags:
            raise MIError(403, "Cannot modify read-only blacklist")
        try:
            return found, parse_rule(rule)
        except ValueError:
            raise MIError(404, "Bad rule") from None

    def _asked(self, ip: str, proto: str, port: int, pattern: str) -> tuple[tuple[int, int], str, int, str, float]:
        """What ``Blacklist.find`` takes."""
        try:
            key = key_of(ip.strip("[]"))
        except ValueError:
            raise MIError(400, "Missing or bad IP") from None
        transport = proto.lower()
        if transport and transport not in TRANSPORTS:
            raise MIError(404, "Bad params")
        return key, transport, port, pattern, self.server.user.clock()

    def _show(self, one: Blacklist) -> dict[str, Any]:
        """One list as OpenSIPS shows it."""
        now = self.server.user.clock()
        words = (("readonly", "read-only"), ("expire", "expire"), ("default", "default"))
        return {
            "name": one.name,
            "owner": one.owner,
            "flags": [shown for flag, shown in words if flag in one.flags],
            "Rules": [_show_rule(rule, until, now) for rule, until in one.rules(now)],
        }


def _rule(ip: str, port: int | None, proto: str | None, pattern: str | None) -> Rule:
    """The rule that a script's arguments mean; ``ValueError`` if they mean none."""
    if port is not None and not 0 <= port < 65536:
        raise ValueError(f"{port} is no port")
    network = parse_network(ip.removeprefix("!"))
    return Rule(network, _transport(proto), port or 0, pattern or "", ip.startswith("!"))


def _show_rule(rule: Rule, until: float | None, now: float) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "flags": int(rule.exception),
        "IP": _show_address(str(rule.network.network_address.exploded)),
        "Mask": _show_address(str(rule.network.netmask.exploded)),
        "Proto": rule.transport or "any",
        "Port": rule.port,
    }
    if rule.pattern:
        shown["Match"] = rule.pattern
    if until is not None:
        shown["Expire"] = int(until - now)
    return shown


def _show_address(text: str) -> str:
    """COMPAT: IPv6 in capital letters, with every group and without leading zeros."""
    if ":" not in text:
        return text
    return ":".join(f"{int(group, 16):X}" for group in text.split(":"))
