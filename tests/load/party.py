"""Phones that know their calls: each side of a call does what its plan says, and what the other one asks it to.

A plan is a list of what is done when, in seconds after the ACK: see ``Side.act``. What a phone is asked within a call that it
does not know of (any more) it answers 481."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from tests.load.phone import Exchange, Leg, Message, Phone, Timing

SERIAL = count(1)
SDP = "v=0\r\no={name} 1 {version} IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
Plan = Sequence[tuple[float, str]]


class Ringing(Leg):
    """An INVITE that has come, the first of a call or a later one."""

    def __init__(self, phone: Any, message: Message, side: Side) -> None:
        self.side = side
        super().__init__(phone, message)

    def answer(self) -> None:
        """Answer it, if it still waits."""
        if self.state == "trying" and not self.side.over:
            super().answer()
            self.side.answered()

    def cancel(self) -> None:
        """Be cancelled."""
        waits = self.state == "trying"
        super().cancel()
        if waits and self.side.leg is self:
            self.side.end("cancelled")

    def acknowledged(self) -> None:
        """Hear the ACK."""
        was = self.state
        super().acknowledged()
        if was == "final":
            self.side.begins()

    def end(self, status: int) -> None:
        """Send a final response."""
        super().end(status)
        if status >= 300 and self.side.leg is self:
            self.side.end(str(status))


class Side:
    """One side of a call. ``done(how)`` once, when it is over: "bye", "was hung up on", a status, "cancelled", "forgotten"."""

    def __init__(self, party: Party, call_id: str, own: str, theirs: str, plan: Plan, done: Callable[[str], None]) -> None:
        self.party, self.call_id, self.own, self.theirs = party, call_id, own, theirs
        self.plan, self.done = plan, done
        self.target = ""
        self.routes: list[str] = []
        self.cseq = 0
        self.over = False
        self.talking = False
        self.inviting = False
        self.leg: Leg | None = None
        """The INVITE that began it, where that came to us."""
        self.acks: dict[int, bytes] = {}
        self.version = 0

    # -- its beginning

    def call(self, uri: str, cancel_at: float) -> None:
        """Call somebody; ``cancel_at``: give up after so many seconds, 0: do not."""
        self.target = uri
        exchange = self.ask("INVITE", self.called, body=True)
        if cancel_at:
            self.party.later(cancel_at, lambda: self.cancel(exchange, uri))

    def cancel(self, exchange: Exchange, uri: str) -> None:
        """Give up, unless it is too late."""
        if not self.over and not self.talking and exchange.final is None:
            data = self.written("CANCEL", 1, exchange.key[0], uri=uri, body=False)
            Exchange(self.party, "CANCEL", exchange.key[0], data, lambda _message: None)

    def called(self, message: Message | None) -> None:
        """Hear of our call."""
        if message is None:
            self.end("silence")
        elif message.status >= 300:
            self.acknowledge_refusal(message, 1)
            self.end(str(message.status))
        elif message.status >= 200:
            if 1 in self.acks:
                self.party.send(self.acks[1])
                return
            self.learn(message)
            self.acknowledge(1, False)
            if self.over:
                self.ask("BYE", lambda _message: None)
            else:
                self.begins()

    def learn(self, message: Message) -> None:
        """Take the other side's tag, address and routes from a response."""
        self.theirs = message.to
        self.target = message.values["contact"][0].strip("<>")
        values = [route for value in message.values["record-route"] for route in value.split(",")]
        self.routes = [value.strip() for value in values][::-1]

    def answered(self) -> None:
        """We have agreed to the INVITE that began it; the ACK is to come."""

    def begins(self) -> None:
        """Both have agreed: go by the plan."""
        if not self.talking and not self.over:
            self.talking = True
            for seconds, what in self.plan:
                self.party.later(seconds, lambda what=what: self.act(what))

    # -- what it does

    def act(self, what: str) -> None:
        """Do one thing, if the call goes on."""
        if self.over:
            return
        if what == "bye":
            self.ask("BYE", self.hung_up)
            self.talking = False
            self.end("bye")
        elif what == "reinvite":
            self.offer()
        elif what == "refer":
            self.ask("REFER", self.heard, more=f"Refer-To: <sip:talk{next(SERIAL)}@192.0.2.3>\r\n")
        elif what == "forget":
            self.end("forgotten")
        else:
            self.ask(what.upper(), self.heard, body=what == "update")

    def heard(self, message: Message | None) -> None:
        """Hear an answer to a request; one that says that there is no such call ends it."""
        if message is None or message.status in (408, 481):
            self.end("lost")

    def hung_up(self, message: Message | None) -> None:
        """Hear the answer to a BYE."""
        if message is not None and message.status >= 300:
            self.party.odd[f"BYE {message.status}"] = self.party.odd.get(f"BYE {message.status}", 0) + 1

    def offer(self) -> None:
        """Send a re-INVITE, unless one is under way."""
        if self.inviting:
            return
        self.inviting = True
        number = self.cseq + 1

        def offered(message: Message | None) -> None:
            if message is None or message.status >= 200:
                self.inviting = False
            if message is None or message.status in (408, 481):
                self.end("lost")
            elif message.status >= 300:
                self.acknowledge_refusal(message, number)
                if message.status == 491 and not self.over:
                    self.party.later(2.1 + self.party.random.random(), lambda: self.act("reinvite"))
            elif message.status >= 200:
                self.acknowledge(number, False)

        self.ask("INVITE", offered, body=True)

    # -- messages

    def written(self, method: str, number: int, branch: str, *, uri: str = "", body: bool = False, more: str = "") -> bytes:
        """The octets of a request."""
        party = self.party
        self.version += body
        sdp = SDP.format(name=party.name, version=self.version, host=party.end.host) if body else ""
        lines = "" if uri else "".join(f"Route: {route}\r\n" for route in self.routes)
        kind = "Content-Type: application/sdp\r\n" if body else ""
        sender = f"{party.end.host}:{party.end.port}"
        return (
            f"{method} {uri or self.target} SIP/2.0\r\nVia: SIP/2.0/UDP {sender};rport;branch={branch}\r\n{lines}"
            f"Max-Forwards: 70\r\nFrom: {self.own}\r\nTo: {self.theirs}\r\nCall-ID: {self.call_id}\r\n"
            f"CSeq: {number} {method}\r\nContact: <{party.contact(party.name)}>\r\n{more}{kind}"
            f"Content-Length: {len(sdp)}\r\n\r\n{sdp}"
        ).encode()

    def ask(self, method: str, hear: Callable[[Message | None], None], *, body: bool = False, more: str = "") -> Exchange:
        """Send a request; ``hear`` learns each answer."""
        self.cseq += 1
        branch = self.party.new_branch()
        return Exchange(self.party, method, branch, self.written(method, self.cseq, branch, body=body, more=more), hear)

    def acknowledge(self, number: int, body: bool) -> None:
        """Acknowledge a 2xx, each time that it comes."""
        if number not in self.acks:
            self.acks[number] = self.written("ACK", number, self.party.new_branch(), body=body)
        self.party.send(self.acks[number])

    def acknowledge_refusal(self, message: Message, number: int) -> None:
        """Acknowledge a refusal (RFC 3261 17.1.1.3)."""
        own, self.theirs = self.theirs, message.to
        self.party.send(self.written("ACK", number, message.branch, uri="" if self.talking else self.target))
        self.theirs = own

    # -- its end

    def end(self, how: str) -> None:
        """It is over."""
        if not self.over:
            self.over = True
            self.party.later(2 * self.party.timing.life, lambda: self.party.sides.pop((self.call_id, self.own), None))
            self.done(how)


class Party(Phone):
    """A phone that knows its calls; ``plans(user)`` says what a callee of that name does, and who hears how it ends."""

    def __init__(
        self, network: Any, domain: str, name: str, random: Any, plans: Callable[[str], tuple[Plan, Callable[[str], None]]],
        timing: Timing | None = None,
    ) -> None:
        super().__init__(network, domain, timing)
        self.name, self.random, self.plans = name, random, plans
        self.sides: dict[tuple[str, str], Side] = {}
        self.odd: dict[str, int] = {}

    def call(self, uri: str, plan: Plan, done: Callable[[str], None], cancel_at: float = 0.0) -> Side:
        """Call ``uri``."""
        call_id = f"{self.name}{next(SERIAL)}"
        own = f"<sip:{self.name}@{self.domain}>;tag=f{call_id}"
        side = self.sides[call_id, own] = Side(self, call_id, own, f"<{uri}>", plan, done)
        side.call(uri, cancel_at)
        return side

    def response(self, message: Message, status: int, contact: bool = False) -> bytes:
        """A response to a request; an agreement has a session description."""
        data: bytes = super().response(message, status, contact or message.method in ("INVITE", "UPDATE"))
        if message.method not in ("INVITE", "UPDATE") or not 180 < status < 300:
            return data
        sdp = SDP.format(name=self.name, version=next(SERIAL), host=self.end.host).encode()
        head = data.removesuffix(b"Content-Length: 0\r\n\r\n")
        return head + b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(sdp) + sdp

    def side(self, message: Message) -> Side | None:
        """The side that a request within a call is for."""
        found = self.sides.get((message.call_id, message.to))
        return None if found is None or (found.over and message.method != "BYE") else found

    def serve(self, message: Message) -> None:
        """Take a request."""
        within = ";tag=" in message.to
        if message.method in ("ACK", "CANCEL") or (message.branch, message.method) in self.answers or message.branch in self.legs:
            super().serve(message)
        elif not within and message.method == "INVITE":
            self.ring(message)
        elif not within:
            super().serve(message)
        else:
            self.serve_within(message)

    def ring(self, message: Message) -> None:
        """Take a call."""
        user = message.user
        if user[:4] == "mute":
            return
        self.note(message)
        plan, done = self.plans(user)
        own = f"{message.to};tag=t{self.end.port}"
        side = self.sides[message.call_id, own] = Side(self, message.call_id, own, message.values["from"][0], plan, done)
        side.target = message.values["contact"][0].strip("<>")
        side.routes = [route.strip() for value in message.values["record-route"] for route in value.split(",")]
        side.cseq = 1000
        self.invited(message, side)

    def invited(self, message: Message, side: Side) -> Leg:
        """Keep an INVITE until it is acknowledged."""
        leg = Ringing.__new__(Ringing)
        if side.leg is None:
            side.leg = leg
        self.legs[message.branch] = self.legs[message.call_id, message.cseq] = leg
        leg.__init__(self, message, side)  # type: ignore[misc]  # it may answer at once, and is looked for then
        return leg

    def serve_within(self, message: Message) -> None:
        """Take a request within a call."""
        side = self.side(message)
        status = 200
        if side is None:
            status = 481
        elif message.method == "INVITE":
            if side.inviting:
                status = 491
            else:
                self.note(message)
                leg = self.invited(message, side)
                leg.answer()
                return
        if message.method == "INVITE":
            self.note(message)
            refusal = self.legs[message.branch] = self.legs[message.call_id, message.cseq] = Refusal(self, message, status)
            refusal.end(status)
            return
        self.note(message)
        self.answers[message.branch, message.method] = self.response(message, status)
        self.send(self.answers[message.branch, message.method])
        if message.method == "BYE" and side is not None:
            side.end("was hung up on")


class Refusal(Leg):
    """A re-INVITE that is refused."""

    def __init__(self, phone: Any, message: Message, status: int) -> None:
        self.phone, self.message = phone, message
        self.state, self.last, self.again = "trying", None, None
        self.interval = phone.timing.t1
        self.ends = phone.now() + phone.timing.life
