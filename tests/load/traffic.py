"""A household's traffic, some hours of it in little time: registrations, calls that end in every way, messages, and rubbish.

``Traffic`` begins ``rate`` things a second, chosen by their weights in ``MIX``; ``outcomes`` counts how each ended, and
``wrong()`` what did not end as ``EXPECTED`` says."""

from collections import Counter
from random import Random
from typing import Any

from tests.load.call import Call
from tests.load.phone import Phone, Timing
from tests.load.visitor import Visitor
from tests.sip.test_fuzz import mutate

MIX = {
    "register": 15, "guest": 8, "leave": 4, "options": 4, "message": 15, "repeated message": 4, "silent message": 1,
    "call": 25, "forked": 4, "serial": 3, "busy": 3, "nobody": 3, "cancelled": 4, "cancelled early": 2, "crossing": 2,
    "unanswered": 1, "silent": 1, "abandoned": 1, "unacknowledged": 1, "not acknowledged": 1, "rubbish": 12, "stray": 4,
}
OVER_TCP = {**MIX, "visitor asks": 3, "visitor writes": 3, "visitor resets": 2, "visitor stalls": 2}
EXPECTED = {
    "visitor resets": {0, 200}, "visitor stalls": {0}, "silent message": {408}, "busy": {486}, "nobody": {404},
    "cancelled": {487}, "cancelled early": {487}, "crossing": {200, 487}, "unanswered": {408}, "silent": {408},
    "abandoned": {408}, "not acknowledged": {486},
}
"""The final responses of each kind that is not answered 200; 0: none."""
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "call": ("talk{}", {}),
    "forked": ("fork", {}),
    "serial": ("desk", {}),
    "busy": ("busy", {}),
    "nobody": ("nobody", {}),
    "cancelled": ("ring", {"cancel_at": 180}),
    "cancelled early": ("ring", {"cancel_at": 100}),
    "unanswered": ("ring", {}),
    "silent": ("mute", {}),
    "abandoned": ("ring", {"acknowledges": False}),
    "unacknowledged": ("talk0", {"acknowledges": False}),
    "not acknowledged": ("busy", {"acknowledges": False}),
}
"""Whom each kind of call rings, and what the caller does."""
LINES = 10
"""Users who talk."""


class Traffic:
    """Two callees and a caller on ``network``; ``domain``: the server's host and port."""

    def __init__(self, network, domain, *, seed=1, rate=50.0, timing=None, mix=MIX):
        self.network = network
        self.random = Random(seed)
        self.timing = timing or Timing()
        self.caller, self.left, self.right = (Phone(network, domain, self.timing) for _ in range(3))
        self.phones = (self.caller, self.left, self.right)
        self.domain = domain
        self.rate = rate
        self.kinds, self.weights = list(mix), list(mix.values())
        self.begun: Counter[str] = Counter()
        self.outcomes: Counter[tuple[str, int]] = Counter()
        self.guests = 0
        self.cseq = 1
        self.going = False
        self.residents: list[tuple[Phone, str, str]] = [(self.right, f"talk{n}", "") for n in range(LINES)]
        self.residents += [(self.left, name, "") for name in ("busy", "ring", "mute")]
        self.residents += [(self.left, "fork", "ring"), (self.right, "fork", "talk")]
        self.residents += [(self.left, "desk", "busy"), (self.right, "desk-mobile", "talk")]

    # -- begin and end

    def settle_in(self, patience=10.0):
        """Register who is called."""
        waiting = set()
        for phone, user, contact in self.residents:
            waiting.add((user, contact))
            phone.register(user, self.told("register", lambda key=(user, contact): waiting.discard(key)), contact=contact)
        if not self.network.until(lambda: not waiting, patience):
            raise AssertionError(f"not registered: {waiting}")

    def start(self):
        """Begin, at ``rate`` things a second."""
        self.going = True
        self.due = self.network.now()
        self.tick()

    def stop(self):
        """Begin nothing more."""
        self.going = False

    def tick(self):
        """Begin one thing, and see to the next."""
        if self.going:
            self.begin(self.random.choices(self.kinds, self.weights)[0])
            self.due += 1 / self.rate
            self.network.later(max(0.0, self.due - self.network.now()), self.tick)

    def told(self, kind, then=None):
        """What to call with the status in which a thing of this kind ended."""
        self.begun[kind] += 1

        def hear(status):
            self.outcomes[kind, status] += 1
            if then is not None:
                then()

        return hear

    @property
    def open(self):
        """How many things have not ended."""
        return self.begun.total() - self.outcomes.total()

    def wrong(self):
        """How often what ended as it should not: by kind and status."""
        return {key: number for key, number in self.outcomes.items() if key[1] not in EXPECTED.get(key[0], {200})}

    def total(self, name):
        """A count of all phones."""
        return sum(getattr(phone, name) for phone in self.phones)

    # -- the things

    def begin(self, kind):
        """Begin one thing of this kind."""
        if kind in CALLS:
            user, options = CALLS[kind]
            Call(self.caller, user.format(self.random.randrange(LINES)), self.told(kind), **options)
        elif kind.startswith("visitor"):
            way = kind.partition(" ")[2]
            Visitor(self.caller, self.network, way, self.told(kind))
        else:
            getattr(self, kind.replace(" ", "_"))()

    def register(self):
        """A resident registers again."""
        self.cseq += 1
        phone, user, contact = self.random.choice(self.residents)
        phone.register(user, self.told("register"), contact=contact, cseq=self.cseq)

    def guest(self):
        """Somebody registers for a second."""
        self.guests += 1
        self.right.register(f"guest{self.guests}", self.told("guest"), expires=1)

    def leave(self):
        """Somebody registers and leaves."""
        self.guests += 1
        user, hear = f"guest{self.guests}", self.told("leave")
        self.right.register(user, lambda _status: self.right.register(user, hear, expires=0, contact="*", cseq=2))

    def options(self):
        """The server is asked whether it lives."""
        self.caller.ask("OPTIONS", f"sip:{self.domain}", self.told("options"))

    def message(self, kind="message", user=""):
        """One writes to another."""
        user = user or f"talk{self.random.randrange(LINES)}"
        return self.caller.ask("MESSAGE", f"sip:{user}@{self.domain}", self.told(kind))

    def silent_message(self):
        """One writes to somebody who does not answer."""
        self.message("silent message", "mute")

    def repeated_message(self):
        """A MESSAGE comes three times at once, and once more when it has long been answered."""
        exchange = self.message("repeated message")
        for seconds in (0.0, 0.0, self.timing.ring):
            self.network.later(seconds, lambda: self.caller.send(exchange.data))

    def crossing(self):
        """A caller gives up about when the callee answers."""
        call = Call(self.caller, "talk0", self.told("crossing"))
        self.network.later(self.timing.ring * self.random.uniform(0.8, 1.1), call.cancel)

    def rubbish(self):
        """Something comes that is hardly SIP."""
        self.caller.send(mutate(self.random))

    def stray(self):
        """Something comes that belongs to nothing: an ACK, a BYE, a CANCEL or a response."""
        uri = f"sip:talk1@{self.domain}"
        method = self.random.choice(("ACK", "BYE", "CANCEL", "INVITE"))
        tag = ";tag=nobody" if method != "CANCEL" else ""
        data, _ = self.caller.request(method, uri, to=uri, call_id=f"stray{self.random.random()}", tag=tag)
        if method == "INVITE":
            data = b"SIP/2.0 200 OK\r\n" + data.partition(b"\r\n")[2]
        self.caller.send(data)
