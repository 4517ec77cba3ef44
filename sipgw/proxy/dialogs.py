"""Dialogs that pass through a proxy: what is remembered of a call between its INVITE and its BYE. Pure: no clock, no wire.

Unlike a user agent's (``sip/dialog.py``) such a dialog has two sides that are both remote: the *caller* leg, and a *callee* leg
for each phone that has answered (a call may be forked; ``winner`` is the one whose 2xx came first). What each leg keeps is what
somebody who wants to send it a request must know: its tag, its Contact, the route set that leads there, our socket that faces it,
and the CSeq number that it saw last.

The states and their numbers are OpenSIPS's (``$DLG_status``); ``TABLE`` is the whole state machine. Two things need more than
the table: a BYE counts only if it belongs to the leg whose 2xx made the call (``Call.step``), and a 2xx that crosses a failure
brings a deleted call back, unless it was ended by a BYE.

A dialog has a number (``dlg_id`` in the database) and a name made of it (``$DLG_did``, the parameter ``did`` of our
Record-Route): two characters for the worker that keeps it, three and up to eight hexadecimal digits. The names of dialogs that an
OpenSIPS began and left in the database are understood too.

``python -m sipgw.proxy.dialogs`` writes the diagram of the states (docs/states/dialog.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum, IntFlag
from random import SystemRandom
from typing import Any, Final, NamedTuple, Protocol

from sipgw.script.run import Run, Value
from sipgw.sip.dialog import Dialog, DialogId

__all__ = [
    "TABLE", "Call", "CallFlag", "CallTable", "Happening", "Leg", "Listener", "Profiles", "State", "Veil", "did_of", "number_of",
]


class State(IntEnum):
    """The state of a dialog, as ``$DLG_status`` tells it."""

    UNCONFIRMED = 1
    """Nothing but the INVITE."""
    EARLY = 2
    """A provisional response has gone back."""
    ANSWERED = 3
    """A 2xx has gone back, the ACK has not come."""
    CONFIRMED = 4
    """The ACK has come."""
    DELETED = 5
    """It is over."""


class Happening(IntEnum):
    """What happens to a dialog, as the state machine sees it."""

    GONE = 1
    """The transaction of the INVITE has ended without a final response."""
    PROVISIONAL = 2
    SUCCESS = 3
    FAILURE = 4
    PRACK = 5
    ACK = 6
    BYE = 7
    REQUEST = 8
    """Any other request within the dialog."""


_S, _H = State, Happening

TABLE: Final[Mapping[tuple[State, Happening], State]] = {
    (_S.UNCONFIRMED, _H.GONE): _S.DELETED,
    (_S.EARLY, _H.GONE): _S.DELETED,
    (_S.UNCONFIRMED, _H.PROVISIONAL): _S.EARLY,
    (_S.EARLY, _H.PROVISIONAL): _S.EARLY,
    (_S.UNCONFIRMED, _H.FAILURE): _S.DELETED,
    (_S.EARLY, _H.FAILURE): _S.DELETED,
    (_S.UNCONFIRMED, _H.SUCCESS): _S.ANSWERED,
    (_S.EARLY, _H.SUCCESS): _S.ANSWERED,
    (_S.DELETED, _H.SUCCESS): _S.ANSWERED,
    (_S.ANSWERED, _H.ACK): _S.CONFIRMED,
    (_S.ANSWERED, _H.BYE): _S.DELETED,
    (_S.CONFIRMED, _H.BYE): _S.DELETED,
}
"""Which state follows; where nothing is said the state stays."""


LABELS: Final[Mapping[Happening, str]] = {
    _H.GONE: "no answer", _H.PROVISIONAL: "1xx", _H.SUCCESS: "2xx", _H.FAILURE: "3xx-6xx", _H.PRACK: "PRACK", _H.ACK: "ACK",
    _H.BYE: "BYE", _H.REQUEST: "any other request",
}
"""What happens, as the diagram calls it."""


def page() -> str:
    """What stands in docs/states/dialog.md."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.UNCONFIRMED.name.lower()}: create_dialog"]
    for (before, happening), after in TABLE.items():
        lines.append(f"    {before.name.lower()} --> {after.name.lower()}: {LABELS[happening]}")
    lines.append(f"    {State.DELETED.name.lower()} --> [*]")
    numbers = "\n".join(f"- {state.value}: {state.name.lower()}" for state in State)
    return (
        "# A dialog that a proxy follows\n\n"
        "Drawn from `TABLE` in `sipgw/proxy/dialogs.py`, by `python -m sipgw.proxy.dialogs`. "
        "What is not drawn changes nothing.\n\n"
        "```mermaid\n" + "\n".join(lines) + "\n```\n\n"
        "A BYE counts only if it belongs to the leg whose 2xx made the call; one from us, or the end of the call's time, counts "
        "always. A 2xx brings a deleted call back only if no BYE ended it. `$DLG_status` says:\n\n" + numbers + "\n"
    )


class CallFlag(IntFlag):
    """What is kept in the column ``flags`` of the table ``dialog``, with OpenSIPS's values."""

    HAS_BYE = 1 << 2
    BYE_ON_TIMEOUT = 1 << 3
    OPTIONS_CALLER = 1 << 5
    OPTIONS_CALLEE = 1 << 6
    REINVITE_CALLER = 1 << 11
    REINVITE_CALLEE = 1 << 12
    END_ON_RACE = 1 << 15
    CANCELLED = 1 << 16
    RACED = 1 << 17
    AUTO_PRACK = 1 << 20


OPTIONS_PINGS: Final = CallFlag.OPTIONS_CALLER | CallFlag.OPTIONS_CALLEE
REINVITE_PINGS: Final = CallFlag.REINVITE_CALLER | CallFlag.REINVITE_CALLEE


class Leg:
    """One side of a call; see the essay above.

    ``address``: its name-addr without a tag. ``contact``: the URI of its Contact. ``routes``: what requests of ours to it visit.
    ``cseq``: the number of the last request that the other side has sent to it, as that side counts; ``previous`` the one before.
    ``invite``: the number of the last INVITE that it has sent. ``generated``: the last number that was used toward it once we had
    sent requests of our own (0: never); ``numbers``: of INVITEs of the other side, what they became. ``sdp``, ``sent_sdp``: the
    last session description that it has sent, that was sent to it. ``mangled_from``, ``mangled_to``: the name-addrs that a callee
    has been shown instead of the caller's and its own."""

    __slots__ = (
        "address", "contact", "cseq", "generated", "invite", "mangled_from", "mangled_to", "numbers", "previous", "routes", "sdp",
        "sent_sdp", "socket", "tag",
    )

    def __init__(self, tag: str, address: str, contact: str = "", routes: list[str] | None = None, socket: Any = None) -> None:
        self.tag = tag
        self.address = address
        self.contact = contact
        self.routes: list[str] = routes or []
        self.socket = socket
        self.cseq = 0
        self.previous: int | None = None
        self.invite = 0
        self.generated = 0
        self.numbers: dict[int, int] | None = None
        self.sdp = b""
        self.sent_sdp = b""
        self.mangled_from = ""
        self.mangled_to = ""

    def next_number(self) -> int:
        """Take the CSeq number of a request of ours to this leg."""
        self.generated = max(self.generated, self.cseq) + 1
        return self.generated

    def renumber(self, number: int, invite: bool) -> int:
        """The CSeq number with which a request of the other side goes on to this leg: its own until we have sent some."""
        if self.generated:
            self.moved(number, self.generated + 1, invite)
            return self.generated
        return number

    def moved(self, number: int, new: int, invite: bool) -> None:
        """A request of the other side with ``number`` goes on to this leg as ``new``."""
        self.generated = max(self.generated, new)
        if invite:
            if self.numbers is None:
                self.numbers = {}
            elif len(self.numbers) >= 32:
                del self.numbers[next(iter(self.numbers))]
            self.numbers[number] = new


class Listener(Protocol):
    """Hears what becomes of a call: "early", "confirmed", "failed", "within" (a request in the dialog), "terminated" (by a BYE,
    whoever sent it), "expired" (its time was over, nobody is told), "gone" (another server has ended it), "updated" (another one
    has changed it), "saving" (it is about to be stored), "context" (its values are about to be listed).

    ``run``: of the request that did it, None where none did; ``leg``: where that request goes."""

    def __call__(self, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        """Hear of it."""


class Veil(Protocol):
    """What hides the two sides of a call from each other."""

    def call_id(self, call: Call, leg: Leg) -> str:
        """The Call-ID that ``leg`` knows the call by."""

    def contact(self, call: Call, leg: Leg) -> str:
        """The URI that ``leg`` is to take for the Contact of the other side."""


class Call:
    """One dialog of a proxy.

    ``created``, ``started``: wall-clock seconds of the INVITE and of its 2xx (0: not yet); ``lifetime``: seconds that it may last
    from ``started``; ``ends``: the monotonic time when it ends, 0 before it is answered. ``values``: ``$dlg_val``; ``marks``: the
    flags of scripts; ``kept``: what modules keep with it in memory. ``holds``: how many still want to write something before
    it is taken out of the database."""

    __slots__ = (
        "__weakref__", "call_id", "callees", "caller", "created", "delete_delay", "ends", "farewell", "flags", "holds", "kept",
        "lifetime", "listeners", "marks", "module_flags", "number", "options_interval", "pings", "profiles", "reason",
        "reinvite_interval", "restored", "routes", "started", "state", "stored", "tag_of_sharing", "transaction", "values",
        "veil", "winner",
    )

    def __init__(self, number: int, call_id: str, caller: Leg, to: str, created: float) -> None:
        self.number = number
        self.call_id = call_id
        self.caller = caller
        self.callees: list[Leg] = []
        self.winner = Leg("", to)
        """The callee; before anybody has answered, one that has no tag."""
        self.state = State.UNCONFIRMED
        self.flags = CallFlag(0)
        self.module_flags = 0
        self.created = created
        self.started = 0.0
        self.lifetime = 0
        self.ends = 0.0
        self.delete_delay = 0
        self.options_interval = 0
        self.reinvite_interval = 0
        self.values: dict[str, int | str] = {}
        self.marks: set[str] = set()
        self.profiles: list[tuple[str, str]] = []
        self.routes: dict[str, str] = {}
        """Names of script routes: "answer", "timeout", "hangup"."""
        self.reason: str | None = None
        """``$DLG_end_reason``."""
        self.listeners: list[Listener] = []
        self.kept: dict[str, Any] = {}
        self.transaction: Callable[[], Any] = _no_transaction
        """A weak reference to the transaction of the INVITE."""
        self.pings: Any = None
        self.stored = False
        """Whether it has a row in the database."""
        self.restored = False
        """Whether it comes from there."""
        self.veil: Veil | None = None
        """What hides the sides from each other (``hiding.py``)."""
        self.holds = 0
        self.farewell: Any = None
        """What is written in the transaction that deletes its row (``db.writes.Entry``)."""
        self.tag_of_sharing = ""

    @property
    def did(self) -> str:
        """Its name."""
        return did_of(self.number)

    def leg(self, tag: str) -> Leg | None:
        """The callee leg with that tag."""
        for leg in self.callees:
            if leg.tag == tag:
                return leg
        return None

    def answering(self, tag: str) -> Leg:
        """The callee leg with that tag, made now if it is new."""
        found = self.leg(tag)
        if found is None:
            found = Leg(tag, self.winner.address)
            self.callees.append(found)
            if not self.winner.tag:
                self.winner = found
        return found

    def sides(self, from_tag: str, to_tag: str) -> tuple[Leg, Leg] | None:
        """Who sends and who receives a request with these tags; None if that is nobody of this call."""
        if from_tag == self.caller.tag:
            callee = self.leg(to_tag)
            if callee is not None:
                return self.caller, callee
        if to_tag == self.caller.tag:
            callee = self.leg(from_tag)
            if callee is not None:
                return callee, self.caller
        return None

    def other(self, leg: Leg) -> Leg:
        """The side that ``leg`` talks with."""
        return self.winner if leg is self.caller else self.caller

    def step(self, happening: Happening, leg: Leg | None = None) -> tuple[State, State]:
        """Go on; the states before and after. ``leg``: to which a request goes (None: to both, from us)."""
        before = self.state
        after = TABLE.get((before, happening), before)
        if happening is Happening.BYE:
            if leg is not None and leg is not self.caller and leg is not self.winner:
                after = before  # another phone of a forked call hangs up
            elif after is State.DELETED or before < State.ANSWERED:
                self.flags |= CallFlag.HAS_BYE
        elif before is State.DELETED and CallFlag.HAS_BYE in self.flags:
            after = before
        self.state = after
        return before, after

    def toward(self, leg: Leg) -> Dialog:
        """The dialog as we, in the place of the other side, have it with ``leg``: it writes requests."""
        other = self.other(leg)
        call_id = self.call_id if self.veil is None else self.veil.call_id(self, leg)
        return Dialog(
            DialogId(call_id, other.tag, leg.tag), leg.mangled_from or other.address, leg.mangled_to or leg.address,
            leg.contact, leg.routes, None, None, early=self.state < State.ANSWERED, secure=False,
        )

    def contact_toward(self, leg: Leg) -> str:
        """The URI that a request of ours to ``leg`` has as its Contact: that of the other side, unless that is hidden."""
        return self.other(leg).contact if self.veil is None else self.veil.contact(self, leg)

    def tell(self, event: str, run: Run | None = None, leg: Leg | None = None) -> None:
        """Let the listeners hear."""
        for listener in tuple(self.listeners):
            listener(event, self, run, leg)


def _no_transaction() -> None:
    """There is none."""


# -- names

_ENTRY_BITS: Final = 12
_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def did_of(number: int) -> str:
    """The name of the dialog with that number."""
    entry, low = divmod(number, 1 << 32)
    worker, high = divmod(entry, 1 << _ENTRY_BITS)
    first, second = divmod(worker, 36)
    return f"{_BASE36[first % 36]}{_BASE36[second]}{high:03x}.{low:x}"


def number_of(did: str) -> int | None:
    """The number of the dialog with that name; None if it is none. OpenSIPS's names, whose digits stand backwards, too."""
    entry, dot, low = did.partition(".")
    if not dot or not 0 < len(low) <= 8:
        return None
    try:
        if len(entry) == 5:
            return (int(entry[:2], 36) << _ENTRY_BITS | int(entry[2:], 16)) << 32 | int(low, 16)
        return int(entry[::-1], 16) << 32 | int(low[::-1], 16) if 0 < len(entry) < 5 else None
    except ValueError:
        return None


# -- profiles


class Profile(NamedTuple):
    """One profile: whether calls are in it with a value, and where else it counts ("s": in a cache, "b": in a cluster, "")."""

    name: str
    has_value: bool
    shared: str


class Profiles:
    """Who is in which profile: counts by profile and value.

    ``shared(name, value, by)`` is told of changes of those that count elsewhere too; ``value`` is None where there are none."""

    def __init__(self) -> None:
        self.shared: Callable[[str, str | None, int], None] | None = None
        self.known: dict[str, Profile] = {}
        self._counts: dict[str, dict[str, int]] = {}

    def declare(self, profile: Profile) -> None:
        """Let there be ``profile``; ``ValueError`` if there is one of that name."""
        if profile.name in self.known:
            raise ValueError(f"profile {profile.name!r} is declared twice")
        self.known[profile.name] = profile
        self._counts[profile.name] = {}

    def enter(self, call: Call, name: str, value: str, again: bool = False) -> None:
        """Count ``call`` in a profile, once more each time that it enters.

        ``again``: it comes from the database or from another server, and those that it shares have counted it already."""
        counts = self._counts[name]
        if not self.known[name].has_value:
            value = ""
        call.profiles.append((name, value))
        counts[value] = counts.get(value, 0) + 1
        if not again:
            self._share(name, value, 1)

    def _share(self, name: str, value: str, by: int) -> None:
        profile = self.known[name]
        if profile.shared == "s" and self.shared is not None:
            self.shared(name, value if profile.has_value else None, by)

    def leave(self, call: Call, name: str, value: str | None = None, quiet: bool = False) -> bool:
        """Count it no longer, with ``value`` only not as that; False if it was not there.

        ``quiet``: another server has told those that share it."""
        gone = [entry for entry in call.profiles if entry[0] == name and value in (None, entry[1])]
        if value is not None or not self.known[name].has_value:
            gone = gone[:1]
        for entry in gone:
            call.profiles.remove(entry)
            if not quiet:
                self._share(*entry, -1)
            counts = self._counts[entry[0]]
            counts[entry[1]] -= 1
            if not counts[entry[1]]:
                del counts[entry[1]]
        return bool(gone)

    def leave_all(self, call: Call, quiet: bool = False) -> None:
        """Count it in none any more."""
        for name in dict.fromkeys(name for name, _ in call.profiles):
            while self.leave(call, name, quiet=quiet):
                pass

    def size(self, name: str, value: str | None = None) -> int:
        """How many are in a profile, or in it with ``value``."""
        counts = self._counts[name]
        if value is None or not self.known[name].has_value:
            return sum(counts.values())
        return counts.get(value, 0)

    def values(self, name: str) -> Mapping[str, int]:
        """The values of a profile, each with how many have it."""
        return self._counts[name]


# -- all of them


class CallTable:
    """The dialogs of one server, by number and by Call-ID. ``worker``: two characters that begin the names of new ones."""

    def __init__(self, worker: str = "00") -> None:
        self._worker = int(worker, 36)
        self._numbers: dict[int, Call] = {}
        self._call_ids: dict[str, list[Call]] = {}
        self._random = SystemRandom()

    def new_number(self) -> int:
        """A number that no dialog has."""
        while True:
            number = self._worker << 32 + _ENTRY_BITS | self._random.getrandbits(32 + _ENTRY_BITS)
            if number not in self._numbers:
                return number

    def add(self, call: Call) -> None:
        """Keep ``call``; again if it was taken out."""
        if call.number not in self._numbers:
            self._numbers[call.number] = call
            self._call_ids.setdefault(call.call_id, []).append(call)

    def remove(self, call: Call) -> None:
        """Forget ``call``."""
        if self._numbers.pop(call.number, None) is None:
            return
        same = self._call_ids[call.call_id]
        same.remove(call)
        if not same:
            del self._call_ids[call.call_id]

    def by_number(self, number: int | None) -> Call | None:
        """The dialog with that number."""
        return None if number is None else self._numbers.get(number)

    def by_call_id(self, call_id: str) -> list[Call]:
        """The dialogs with that Call-ID: several if a call comes by more than once."""
        return self._call_ids.get(call_id, [])

    def find(self, name: str) -> Call | None:
        """The dialog whose name, number or Call-ID that is."""
        found = self.by_number(int(name) if re.fullmatch("[0-9]{1,19}", name) else number_of(name))
        if found is None or found.state is State.DELETED:
            found = next((call for call in self.by_call_id(name) if call.state is not State.DELETED), found)
        return found

    def match(self, call_id: str, from_tag: str, to_tag: str) -> tuple[Call, Leg, Leg] | None:
        """The dialog that a request with these is in, with who sends it and who receives it (RFC 3261 12.2.2)."""
        found = None
        for call in self._call_ids.get(call_id, ()):
            sides = call.sides(from_tag, to_tag)
            if sides is not None:
                found = (call, *sides)
                if call.state is not State.DELETED:
                    break
        return found

    def __iter__(self) -> Iterator[Call]:
        return iter(self._numbers.values())

    def __len__(self) -> int:
        return len(self._numbers)


def as_text(value: Value) -> str:
    """A value as its text; "" for null."""
    return "" if value is None else str(value)


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
