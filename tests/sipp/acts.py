"""What one sipp does in a call, in short lines, and the scenario in XML that they become.

::

    > INVITE sdp | X-Header: value      send a request; "sdp" or "sdp:NAME" with an offer or answer, o=NAME, hold: a=sendonly
    < 180?                              a response that may come, or not
    < 200 | Contact ~ did= | ! Via ~ x  one that must come, and what must (not) be in a header, or in "body" or "msg"
    < BYE                               a request that must come; "BYE?" one that may come
    > ACK refused                       that to a refusal
    > 200 sdp                           answer the last request; "> 200 INVITE" the last INVITE, whatever came since
    wait 100                            milliseconds
    any 200 BYE                         both, in either order; the request is answered 200 at once
    until BYE OPTIONS                   any number of OPTIONS and then a BYE, all answered 200
    mute BYE OPTIONS                    the same, and none is answered

A request goes to the Contact and by the routes of the call's first INVITE or of the response to it; CSeq numbers, tags and
branches follow by themselves; a PRACK names the last response with the check "RSeq ~ .".
``@name@`` is replaced by the value of that name, in all lines."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

AGAIN = 2000
"""Milliseconds after which what is not answered is sent again. Loopback loses nothing, and sipp mistakes late answers."""
LINES = r"[^[:cntrl:]]*"
"""The rest of a line, for sipp's regular expressions."""
VIA = f"Via:{LINES}([[:cntrl:]]+Via:{LINES})*"
ROUTE = f"(Record-Route:{LINES}[[:cntrl:]]+)+"
SDP = """v=0
o={name} 1 {version} IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio {port} RTP/AVP 0
a=rtpmap:0 PCMU/8000
a={way}"""
WITH_CONTACT = {"INVITE", "UPDATE", "REFER", "NOTIFY", "SUBSCRIBE", "OPTIONS", "PRACK", "INFO"}


class Act:
    """One scenario that is being written; ``name``: that of the user and in its SDP."""

    def __init__(self, name: str, text: str, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            text = text.replace(f"@{key.replace('_', '-')}@", value)
        self.name = name
        self.lines = [line.strip() for line in text.splitlines() if line.strip()]
        self.user = values.get("user", name)
        self.target = values.get("target", "bob")
        self.calls = self.lines[0].startswith(">")
        """Whether it begins the call."""
        self.tag = f"[pid]{name}[local_port]x[call_number]"
        self.variables: set[str] = set()
        self.parts: list[str] = []
        self.number = 0 if self.calls else 100
        self.invite = 0
        """The CSeq number of our last INVITE."""
        self.last = ""
        """The method of the last request that came."""
        self.known = False
        """Whether the other side's tag may be known."""
        self.labels = 0
        self.version = 0

    def xml(self) -> str:
        """The scenario."""
        for line in self.lines:
            self.line(line)
        used = ",".join(sorted(self.variables))
        reference = f'  <Reference variables="{used}"/>' if used else ""
        body = "\n".join(self.parts)
        return f'<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scenario name="{self.name}">\n{body}\n{reference}\n</scenario>\n'

    def line(self, line: str) -> None:
        """Take one line."""
        head, *more = [part.strip() for part in line.split(" | ")]
        word, _, rest = head.partition(" ")
        if word == "wait":
            self.parts.append(f'  <pause milliseconds="{int(rest)}"/>')
        elif word == "any":
            response, method = rest.split()
            self.either(response, method, more)
        elif word in ("until", "mute"):
            method, *others = rest.split()
            self.until(method, others, word == "until")
        elif word == "<":
            self.receive(rest, more)
        elif word == ">":
            what, *options = rest.split()
            if what.isdigit():
                self.respond(what, options, more)
            else:
                self.request(what, options, more)
        else:
            raise ValueError(f"what is {line!r}?")

    # -- sending

    def body(self, options: list[str]) -> str:
        """The lines of a body, and those of its headers, from Content-Length on."""
        for option in options:
            kind, _, name = option.partition(":")
            if kind in ("sdp", "hold"):
                self.version += 1
                way = "sendrecv" if kind == "sdp" else "sendonly"
                sdp = SDP.format(name=name or self.name, version=self.version, way=way, port="[media_port]")
                return f"Content-Type: application/sdp\nContent-Length: [len]\n\n{sdp}\n"
            if "/" in kind:
                return f"Content-Type: {kind}\nContent-Length: [len]\n\n{name.replace('_', ' ')}\n"
        return "Content-Length: 0\n\n"

    def send(self, text: str, attributes: str = "") -> None:
        """Add a message."""
        self.parts.append(f"  <send{attributes}>\n    <![CDATA[\n{text}]]>\n  </send>")

    def request(self, method: str, options: list[str], headers: list[str]) -> None:
        """Add a request."""
        first = self.calls and self.number == 0
        if method in ("ACK", "CANCEL"):
            number = self.invite
        else:
            self.number += 1
            number = self.number
        if method == "INVITE":
            self.invite = number
        begins = first or (self.calls and self.invite == 1 and (method == "CANCEL" or "refused" in options))
        uri = f"sip:{self.target}@[remote_ip]:[remote_port]" if begins else "[next_url]"
        branch = "invite" if method == "CANCEL" or "refused" in options else f"{method}{number}"
        branch = f"invite{number}" if method in ("INVITE", "CANCEL") or "refused" in options else branch
        if "refused" in options:
            to = "[last_To:]"
        elif self.calls:
            to = f"To: <sip:{self.target}@[remote_ip]>" if begins else "To: [$theirs]"
        else:
            to = "To: [$theirs]"
        if self.calls:
            from_ = f"From: <sip:{self.user}@[remote_ip]>;tag={self.tag}"
        else:
            from_ = f"From: [$mine];tag={self.tag}"
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=z9hG4bK-[pid]-[call_number]-{self.name}-{branch}",
            *([] if begins else ["[routes]"]), from_, to, "Call-ID: [call_id]", f"CSeq: {number} {method}", "Max-Forwards: 70",
            *headers,
        ]
        if method == "PRACK" and not any(header.startswith("RAck:") for header in headers):
            lines.append(f"RAck: [$rseq] {self.invite} INVITE")
        if method in WITH_CONTACT:
            lines.append(f"Contact: <sip:{self.user}@[local_ip]:[local_port]>")
        self.send("\n".join(lines) + "\n" + self.body(options), "" if method == "ACK" else f' retrans="{AGAIN}"')

    def respond(self, status: str, options: list[str], headers: list[str], more: str = "") -> None:
        """Add a response; ``more``: attributes."""
        method = next((option for option in options if option.isupper()), self.last)
        own = f"<sip:{self.user}@[remote_ip]>" if self.calls else "[$mine]"
        lines = [
            f"SIP/2.0 {status} Fine", f"[$via{method}]", "From: [$theirs]", f"To: {own};tag={self.tag}",
            "Call-ID: [call_id]", f"CSeq:[$cseq{method}]", *headers,
        ]
        if method in WITH_CONTACT:
            lines.append(f"Contact: <sip:{self.user}@[local_ip]:[local_port]>")
        if method == "INVITE":
            lines[-1] = f"[$route{method}]{lines[-1]}"
        again = f' retrans="{AGAIN}"' if method == "INVITE" and int(status) >= 200 else ""
        self.send("\n".join(lines) + "\n" + self.body(options), again + more)

    # -- receiving

    def receive(self, what: str, checks: list[str], more: str = "") -> None:
        """Add what is to come."""
        optional = what.endswith("?")
        what = what.rstrip("?")
        actions = [self.check(number, check) for number, check in enumerate(checks)]
        routes = ""
        if what.isdigit():
            if self.calls and not self.known and 100 < int(what) < 300:
                actions.append(self.take("To", "theirs"))
                routes = ' rrs="true"'
                self.known = int(what) >= 200
                if "RSeq ~ ." in checks:
                    actions.append(self.take("RSeq", "rseq"))
            kind = f'response="{what}"'
        else:
            self.last = what
            kind = f'request="{what}"'
            if not self.calls and not self.known:
                actions += [self.take("From", "theirs"), self.take("To", "mine")]
                routes, self.known = ' rrs="true"', True
            if what not in ("ACK",):
                actions.append(self.ereg(VIA, "msg", "", f"via{what}"))
                actions.append(self.take("CSeq", f"cseq{what}"))
                if what == "INVITE":
                    actions.append(self.ereg(ROUTE, "msg", "", f"route{what}"))
        maybe = ' optional="true"' if optional else ""
        inner = "".join(f"\n      {action}" for action in actions)
        inner = f"\n    <action>{inner}\n    </action>\n  " if inner else ""
        self.parts.append(f"  <recv {kind}{maybe}{routes}{more}>{inner}</recv>")

    def take(self, header: str, variable: str) -> str:
        """An action that keeps the value of a header, without the blank before it."""
        return self.ereg(f" *({LINES})", "hdr", f"{header}:", "all", variable)

    def ereg(self, pattern: str, where: str, header: str, *variables: str, more: str = "") -> str:
        """An action that searches."""
        self.variables.update(variables)
        header = f" header={quoteattr(header)}" if header else ""
        assign = ",".join(variables)
        return f'<ereg regexp={quoteattr(pattern)} search_in="{where}"{header}{more} assign_to="{assign}"/>'

    def check(self, number: int, check: str) -> str:
        """An action that fails the call unless a header (or the body, or all) matches; with "! " if it does."""
        inverse = check.startswith("!")
        name, _, pattern = check.lstrip("! ").partition(" ~ ")
        more = ' check_it_inverse="true"' if inverse else ' check_it="true"'
        variable = f"c{len(self.parts)}x{number}"
        if name in ("body", "msg"):
            return self.ereg(pattern, name, "", variable, more=more)
        if not pattern:
            return self.ereg(f"{name}:", "msg", "", variable, more=more)
        if inverse:
            return self.ereg(f"{name}:{LINES}{pattern}", "msg", "", variable, more=more)
        return self.ereg(pattern, "hdr", f"{name}:", variable, more=more)

    def label(self) -> str:
        """A label that was never used."""
        self.labels += 1
        return f"l{self.labels}"

    def either(self, response: str, method: str, checks: list[str]) -> None:
        """A response and a request, in either order; the request must be as ``checks`` say."""
        first, end = self.label(), self.label()
        self.receive(f"{response}?", [], f' next="{first}"')
        self.receive(method, checks)
        self.respond("200", [], [])
        self.parts.append(f'  <recv response="{response}" next="{end}"/>\n  <label id="{first}"/>')
        self.receive(method, checks)
        self.respond("200", [], [])
        self.parts.append(f'  <label id="{end}"/>')

    def until(self, method: str, others: list[str], answers: bool) -> None:
        """Any number of ``others``, then ``method``; all are answered 200, or none."""
        top, end = self.label(), self.label()
        labels = {other: self.label() for other in others}
        self.parts.append(f'  <label id="{top}"/>')
        for other, label in labels.items():
            self.receive(f"{other}?", [], f' next="{label}"')
        self.receive(method, [], f' next="{end}"')
        for other, label in labels.items():
            self.parts.append(f'  <label id="{label}"/>')
            if answers:
                self.respond("200", [other], [], f' next="{top}"')  # not by a nop: sipp would miss what comes meanwhile
            else:
                self.parts.append(f'  <nop next="{top}"/>')
        self.parts.append(f'  <label id="{end}"/>')
        self.last = method
        if answers:
            self.respond("200", [], [])


def scenario(name: str, text: str, values: Mapping[str, str]) -> str:
    """The XML of the acts in ``text``."""
    return Act(name, text, values).xml()
