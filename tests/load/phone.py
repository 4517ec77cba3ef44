"""A SIP user agent over UDP with the timers of RFC 3261 17, independent of sipgw's own code.

As a callee it does what the user part of the Request-URI begins with: ``talk`` rings and answers, ``busy`` refuses, ``ring``
rings until it is cancelled, ``mute`` says nothing. As a caller see ``call.py``."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import count

TAKEN = ("via", "from", "to", "call-id", "cseq", "record-route")
"""What a response copies."""
SERIAL = count(1)


@dataclass
class Timing:
    """How long things take, in seconds: RFC 3261's T1, ringing, talking."""

    t1: float = 0.5
    ring: float = 0.1
    talk: float = 0.2

    @property
    def life(self):
        """64*T1."""
        return 64 * self.t1


class Message:
    """A message as a peer reads it: the start line, the values of each header, the rest unread."""

    def __init__(self, data):
        head, _, _ = data.decode("utf-8", "replace").partition("\r\n\r\n")
        self.start, *self.lines = head.split("\r\n")
        self.values = defaultdict(list)
        for line in self.lines:
            name, _, value = line.partition(":")
            self.values[name.strip().lower()].append(value.strip())
        words = self.start.split(" ")
        self.status = int(words[1]) if words[0] == "SIP/2.0" else 0
        self.method = "" if self.status else words[0]
        self.uri = "" if self.status else words[1]
        self.branch = self.values["via"][0].partition("branch=")[2].partition(";")[0]
        self.call_id = self.values["call-id"][0]
        number, _, self.answers = self.values["cseq"][0].partition(" ")
        self.cseq = int(number)
        self.to = self.values["to"][0]

    @property
    def user(self):
        """The user part of the Request-URI."""
        return self.uri.partition(":")[2].partition("@")[0]


class Exchange:
    """A request of ours and its answers (RFC 3261 17.1); ``hear(message)`` learns each, ``hear(None)`` that none came.

    ``lost`` to us are the answers of one that was dropped."""

    def __init__(self, phone, method, branch, data, hear):
        self.phone, self.method, self.data, self.hear = phone, method, data, hear
        self.key = (branch, method)
        self.interval = phone.timing.t1
        self.final = None
        phone.exchanges[self.key] = self
        phone.send(data)
        self.again = phone.later(self.interval, self.repeat)
        self.end = phone.later(phone.timing.life, self.give_up)

    def repeat(self):
        """Timers A and E."""
        self.phone.send(self.data)
        self.phone.repeated += 1
        self.interval *= 2
        if self.method != "INVITE":
            self.interval = min(self.interval, 8 * self.phone.timing.t1)
        self.again = self.phone.later(self.interval, self.repeat)

    def give_up(self):
        """Timers B and F."""
        self.forget()
        if self.final is None:
            self.hear(None)

    def take(self, message):
        """Take an answer."""
        if message.status < 200:
            if self.method == "INVITE":
                self.again.cancel()
                self.end.cancel()
        else:
            if self.final is None:
                self.again.cancel()
                self.end.cancel()
                self.end = self.phone.later(self.phone.timing.life, self.forget)
            self.final = message.status
        self.hear(message)

    def forget(self):
        """Take no more answers."""
        self.again.cancel()
        self.end.cancel()
        self.phone.exchanges.pop(self.key, None)


class Leg:
    """An INVITE that has come to us (RFC 3261 13.3, 17.2.1)."""

    def __init__(self, phone, message):
        self.phone, self.message = phone, message
        self.state = "trying"
        self.last = None
        self.again = None
        self.interval = phone.timing.t1
        self.ends = phone.now() + phone.timing.life
        kind = message.user[:4]
        if kind == "mute":
            return
        if kind == "busy":
            self.end(486)
            return
        self.say(180)
        if kind != "ring":
            phone.later(phone.timing.ring, self.answer)

    def say(self, status):
        """Send a response."""
        self.last = self.phone.response(self.message, status, contact=True)
        self.phone.send(self.last)

    def end(self, status):
        """Send a final response, until it is acknowledged."""
        self.state = "final"
        self.ends = self.phone.now() + self.phone.timing.life
        self.say(status)
        self.again = self.phone.later(self.interval, self.repeat)

    def answer(self):
        """Answer, if it has not been cancelled."""
        if self.state == "trying":
            self.phone.answered += 1
            self.end(200)

    def cancel(self):
        """Be cancelled: nothing, if it is too late."""
        if self.state == "trying":
            self.phone.cancelled += 1
            self.end(487)

    def repeat(self):
        """Timer G, or that of a 2xx (13.3.1.4)."""
        if self.phone.now() < self.ends:
            self.phone.send(self.last)
            self.interval = min(2 * self.interval, 8 * self.phone.timing.t1)
            self.again = self.phone.later(self.interval, self.repeat)
        else:
            self.phone.unacknowledged += 1
            self.state = "over"

    def acknowledged(self):
        """Stop repeating."""
        if self.again is not None:
            self.again.cancel()
        self.state = "over"


class Phone:
    """One user agent at one address of ``network``; ``server``: what stands in URIs for the domain."""

    def __init__(self, network, domain, timing=None):
        self.timing = timing or Timing()
        self.now, self.later = network.now, network.later
        self.domain = domain
        self.end = network.open(self.receive)
        self.exchanges = {}
        self.legs = {}
        self.answers = {}
        self.relayed = {}
        self.repeated = self.answered = self.cancelled = self.unacknowledged = 0
        self.doubled = 0
        """Requests that came twice with different branches: relayed twice."""
        self.strays = 0
        """Responses that nobody waits for."""
        self.unreadable = []
        self.served = defaultdict(int)

    def send(self, data):
        """Send one datagram."""
        self.end.send(data)

    def new_branch(self):
        """A branch that was never used."""
        return f"z9hG4bKp{self.end.port}x{next(SERIAL)}"

    def contact(self, user):
        """Our address as a URI."""
        return f"sip:{user}@{self.end.host}:{self.end.port}"

    # -- client

    def request(self, method, uri, *, to, call_id, cseq=1, tag="", branch="", sender="caller", routes=(), more=""):
        """The octets of a request, and its branch."""
        branch = branch or self.new_branch()
        lines = "".join(f"Route: {route}\r\n" for route in routes)
        text = (
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {self.end.host}:{self.end.port};rport;branch={branch}\r\n{lines}"
            f"Max-Forwards: 70\r\nFrom: <sip:{sender}@{self.domain}>;tag=f{call_id}\r\nTo: <{to}>{tag}\r\n"
            f"Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{more}Content-Length: 0\r\n\r\n"
        )
        return text.encode(), branch

    def ask(self, method, uri, hear, **options):
        """Send a request outside of a dialog; ``hear(status)`` once, 0 if nothing came."""
        options.setdefault("to", uri)
        options.setdefault("call_id", f"{self.end.port}x{next(SERIAL)}")
        data, branch = self.request(method, uri, **options)

        def heard(message):
            nonlocal hear
            if hear is not None and (message is None or message.status >= 200):
                say, hear = hear, None
                say(0 if message is None else message.status)

        return Exchange(self, method, branch, data, heard)

    def register(self, user, hear, *, expires=3600, contact="", cseq=1):
        """Register a contact of ours for ``user``; ``contact``: the user part of its URI, or ``*``."""
        address = "*" if contact == "*" else f"<{self.contact(contact or user)}>"
        more = f"Contact: {address}\r\nExpires: {expires}\r\n"
        uri = f"sip:{user}@{self.domain}"
        call_id = f"reg-{user}-{self.end.port}"
        return self.ask("REGISTER", f"sip:{self.domain}", hear, to=uri, sender=user, call_id=call_id, cseq=cseq, more=more)

    # -- server

    def response(self, message, status, contact=False):
        """A response to a request."""
        lines = [line for line in message.lines if line.partition(":")[0].strip().lower() in TAKEN]
        tag = f";tag=t{self.end.port}"
        lines = [line + tag if line[:3].lower() == "to:" and ";tag=" not in line else line for line in lines]
        if contact:
            lines.append(f"Contact: <{self.contact(message.user)}>")
        return "\r\n".join([f"SIP/2.0 {status} Reason", *lines, "Content-Length: 0\r\n\r\n"]).encode()

    def receive(self, data):
        """Take one datagram."""
        try:
            message = Message(data)
        except (ValueError, IndexError):
            self.unreadable.append(data)
            return
        if message.status:
            exchange = self.exchanges.get((message.branch, message.answers))
            if exchange is None:
                self.strays += 1
            else:
                exchange.take(message)
        else:
            self.serve(message)

    def serve(self, message):
        """Take a request."""
        key = (message.branch, message.method)
        if message.method == "ACK":
            # that of a refusal has the branch of its INVITE
            leg = self.legs.get(message.branch) or self.legs.get((message.call_id, message.cseq))
            if leg is not None:
                leg.acknowledged()
        elif message.method == "INVITE":
            leg = self.legs.get(message.branch)
            if leg is None:
                self.note(message)
                leg = self.legs[message.branch] = self.legs[message.call_id, message.cseq] = Leg(self, message)
            elif leg.last is not None:
                self.send(leg.last)
        elif key in self.answers:
            self.send(self.answers[key])
        elif message.user[:4] != "mute":
            self.note(message)
            leg = self.legs.get(message.branch) if message.method == "CANCEL" else None
            self.answers[key] = self.response(message, 481 if message.method == "CANCEL" and leg is None else 200)
            self.send(self.answers[key])
            if leg is not None:
                leg.cancel()

    def note(self, message):
        """Remember what came, to see what comes twice; forget it when a repetition can come no more."""
        self.served[message.method] += 1
        key = (message.call_id, message.cseq, message.method, message.uri)
        if self.relayed.setdefault(key, message.branch) != message.branch:
            self.doubled += 1
        self.later(2 * self.timing.life, lambda: self.forget(key, message))

    def forget(self, key, message):
        """Forget a request."""
        self.relayed.pop(key, None)
        self.answers.pop((message.branch, message.method), None)
        if message.method == "INVITE":
            self.legs.pop(message.branch, None)
            self.legs.pop((message.call_id, message.cseq), None)
