"""Peers of a whole server that may send anything at any time: what they know of calls, and each kind of thing that they can do.

Nothing happens by itself: a test chooses what comes next, ``Disorder`` says what could."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sipgw.sip.errors import SipError
from sipgw.sip.message import Request, Response, parse
from sipgw.testing import WiredServer, finished, pass_time

CONFIG = Path(__file__).parent.parent / "configs" / "mixed.cfg"
KINDS = ("plain", "timed", "pinged", "hidden", "sealed", "top", "script", "media", "announced", "refer")
"""What can be done with a call, as the script calls it."""
SDP = b"v=0\r\no=x 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
COPIED = ("via", "from", "to", "call-id", "cseq", "record-route")
ADDRESS = ("10.0.0.1", 5060)


def mixed(callee: str, third: str) -> str:
    """The text of the script."""
    return CONFIG.read_text().replace("@callee@", callee).replace("@third@", third)


def left(wired: WiredServer, timers: int) -> dict[str, int]:
    """What a server still has of calls; ``timers``: how many run when there are none."""
    modules: dict[str, Any] = wired.server.modules
    logic, entities = modules["b2b_logic"], modules["b2b_entities"].entities
    follower = modules["dialog"].follower
    counters = follower.counters
    found = {
        "dialogs": len(list(follower.calls)), "active": counters.active.value, "early": counters.early.value,
        "in profiles": follower.profiles.size("kind", None), "deadlines": len(follower.ends), "sessions": len(logic.sessions),
        "entities": len(entities.legs), "timers": wired.user.running_timers - timers,
        "local INVITEs": len(modules["tm"].local_invites), "ahead": len(modules["uac"]._ahead),
    }
    return {name: count for name, count in found.items() if count} | dict.fromkeys(wired.left(), 1)


@dataclass(eq=False)
class Known:
    """A dialog, as one peer knows it."""

    call_id: str
    own: str
    theirs: str
    target: str
    routes: list[str]
    number: int
    invites: list[int] = field(default_factory=list)
    """CSeq numbers of INVITEs of its own."""
    answered: bool = False
    """Whether the last of them has got a 2xx that is not acknowledged."""


class Peer:
    """One address."""

    def __init__(self, disorder: Disorder, name: str, host: str) -> None:
        self.disorder, self.name, self.host = disorder, name, host
        self.socket = disorder.wired.wire.socket(host, 5060, self.receive)
        self.asked: list[Request] = []
        """Requests that have come and have no final answer yet."""
        self.known: list[Known] = []
        self.begun: list[tuple[Request, bool]] = []
        """INVITEs of our own that begin calls, and whether they have a final answer."""
        self.rung: list[Request] = []
        """Those of them that were told that it rings."""
        self.last = b""

    def send(self, data: bytes) -> None:
        """Send one datagram."""
        self.last = data
        self.socket.send(data, *ADDRESS)

    def receive(self, data: bytes, _flow: Any) -> None:
        """Take one datagram; it must be SIP that is whole."""
        message = parse(data)
        message.check()
        self.disorder.heard += 1
        if isinstance(message, Request):
            known = any(each.call_id == message.call_id and each.cseq == message.cseq for each in self.asked)
            if message.method not in ("ACK", "CANCEL") and not known:
                self.asked.append(message)
            elif message.method == "CANCEL":
                self.answer(message, 200)
        elif isinstance(message, Response):
            self.learn(message)

    def learn(self, response: Response) -> None:
        """Take a response; one to an INVITE may make a dialog."""
        status, method = response.status, response.cseq.method
        for place, (invite, _) in enumerate(self.begun):
            if status >= 200 and method == "INVITE" and invite.call_id == response.call_id:
                self.begun[place] = invite, True
        if method != "INVITE" or not 101 <= status < 300 or not response.to_tag or not response.contacts:
            return
        for each in self.known:
            if (each.call_id, each.theirs.rpartition("tag=")[2]) == (response.call_id, response.to_tag):
                break
        else:
            routes = [str(route) for route in response.record_routes][::-1]
            own, theirs = response.header("From") or "", response.header("To") or ""
            target = response.contacts[0].uri_text
            each = Known(response.call_id, own, theirs, target, routes, response.cseq.number, [response.cseq.number])
            self.known.append(each)
        if status >= 200:
            each.answered = True
            if response.cseq.number not in each.invites:
                each.invites.append(response.cseq.number)

    def line(self, branch: str) -> str:
        """A Via."""
        return f"Via: SIP/2.0/UDP {self.host}:5060;branch=z9hG4bK{branch}\r\n"

    def invite(self, kind: str, user: str, body: bool) -> None:
        """Begin a call."""
        number = self.disorder.next()
        uri = f"sip:{kind}-{user}@10.0.0.1"
        sessions = list(self.disorder.wired.server.modules["b2b_logic"].sessions) or ["none"]  # type: ignore[attr-defined]
        branch = f"i{number}"
        own, key = f"<sip:{self.name}@x>;tag={branch}", f"X-Key: {sessions[0]}\r\n"
        data = self.written("INVITE", uri, own, f"<{uri}>", f"c{number}", 1, [], body, branch, key)
        request = parse(data)
        assert isinstance(request, Request)
        self.begun.append((request, False))
        self.send(data)

    def cancel(self, place: int) -> None:
        """Cancel a call that we have begun."""
        invite, _ = self.begun[place]
        lines = [line for line in invite.lines[1:] if line.partition(":")[0].lower() in COPIED]
        text = "\r\n".join(lines).replace("1 INVITE", "1 CANCEL")
        self.send(f"CANCEL {invite.uri} SIP/2.0\r\n{text}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n".encode())

    def written(
        self, method: str, uri: str, own: str, theirs: str, call_id: str, number: int, routes: list[str], body: bool, branch: str,
        more: str = "",
    ) -> bytes:
        """The octets of a request."""
        lines = "".join(f"Route: {route}\r\n" for route in routes)
        kind = "Content-Type: application/sdp\r\n" if body else ""
        text = (
            f"{method} {uri} SIP/2.0\r\n{self.line(branch)}{lines}Max-Forwards: 70\r\nFrom: {own}\r\nTo: {theirs}\r\n"
            f"Call-ID: {call_id}\r\nCSeq: {number} {method}\r\nContact: <sip:{self.name}@{self.host}>\r\n{more}{kind}"
            f"Content-Length: {len(SDP) if body else 0}\r\n\r\n"
        )
        return text.encode() + (SDP if body else b"")

    def answer(self, request: Request, status: int, tag: str = "t", more: str = "") -> None:
        """Answer a request; a call that is answered so is known then."""
        if status >= 200 and request in self.asked:
            self.asked.remove(request)
        lines = [line for line in request.lines[1:] if line.partition(":")[0].lower() in COPIED]
        own = request.header("To") or ""
        if request.to_tag is None and status > 100:
            own += f";tag={self.name}{tag}"
            lines = [f"To: {own}" if line.lower().startswith("to:") else line for line in lines]
        body = SDP if request.method in ("INVITE", "UPDATE") and 180 < status < 300 else b""
        if status in (401, 407):
            name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
            more += f'{name}: Digest realm="gateway", nonce="n", algorithm=MD5, qop="auth"\r\n'
        kind = "Content-Type: application/sdp\r\n" if body else ""
        head = "\r\n".join(lines)
        text = f"SIP/2.0 {status} X\r\n{head}\r\nContact: <sip:{self.name}@{self.host}>\r\n{more}{kind}"
        if request.method == "INVITE" and 100 < status < 300:
            theirs = request.header("From") or ""
            if not any((each.call_id, each.own) == (request.call_id, own) for each in self.known) and request.contacts:
                routes = [str(route) for route in request.record_routes]
                self.known.append(Known(request.call_id, own, theirs, request.contacts[0].uri_text, routes, 100))
        self.send(f"{text}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def request(self, known: Known, method: str, body: bool, old: bool) -> None:
        """Send a request within a dialog; ``old``: with a number that was used before."""
        known.number += not old
        more = ""
        if method == "REFER":
            more = "Refer-To: <sip:talk@192.0.2.3>\r\n"
        elif method == "NOTIFY":
            more = "Event: refer\r\nSubscription-State: active\r\n"
        elif method == "PRACK":
            more = "RAck: 1 1 INVITE\r\n"
        elif method == "INVITE":
            known.invites.append(known.number)
        branch = f"w{self.disorder.next()}"
        self.send(
            self.written(
                method, known.target, known.own, known.theirs, known.call_id, known.number, known.routes, body, branch, more
            )
        )

    def acknowledge(self, known: Known, body: bool) -> None:
        """Send the ACK to our last INVITE in a dialog, whatever was answered."""
        number = known.invites[-1]
        branch = f"a{self.disorder.next()}"
        self.send(
            self.written("ACK", known.target, known.own, known.theirs, known.call_id, number, known.routes, body, branch)
        )

    def forget(self) -> None:
        """Know of nothing any more, as after a restart."""
        self.asked, self.known, self.begun, self.rung = [], [], [], []


class Disorder:
    """A server on a wire, and three peers."""

    def __init__(self) -> None:
        self.wired = WiredServer(mixed("192.0.2.2", "192.0.2.3"))
        self.serial = 0
        self.heard = 0
        self.losing = 0
        self.wired.wire.loses = self.loses
        hosts = {"alice": "192.0.2.1", "talk": "192.0.2.2", "carol": "192.0.2.3"}
        self.peers = [Peer(self, name, host) for name, host in hosts.items()]
        self.timers = self.wired.user.running_timers

    def next(self) -> int:
        """A number that was never used."""
        self.serial += 1
        return self.serial

    def loses(self, _data: bytes, _source: object, _target: object) -> bool:
        """Whether a datagram is lost."""
        self.losing = max(0, self.losing - 1)
        return self.losing > 0

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        pass_time(self.wired.clock, seconds)

    def command(self, method: str, **params: Any) -> Any:
        """Give a management command; what is wrong with it is its answer."""
        try:
            return finished(self.wired.server.commands.call(method, params))
        except (SipError, AssertionError):
            raise
        except Exception as error:
            return error

    def left(self) -> dict[str, int]:
        """What the server still has of the calls."""
        return left(self.wired, self.timers)

    def faults(self) -> list[str]:
        """Lines of the log that tell of a bug."""
        return [text for level, text in self.wired.lines if "bug" in text or "Traceback" in text or level <= -2]
