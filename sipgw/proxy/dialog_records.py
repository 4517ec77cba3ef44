"""Dialogs as records that servers share: all that another server must know to go on with a call, as values that JSON knows.

``merge`` puts together what two servers have made of the same record: whoever changed something has it so, numbers that only
grow are the greater ones, and values, flags and profiles come and go one by one. Pure, but for the sockets that are looked up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from sipgw.proxy.dialogs import Call, CallFlag, Leg, Profiles, State

__all__ = ["Record", "Records", "merge"]

Record = dict[str, Any]

GROWING: Final = frozenset({"state", "cseq", "previous", "invite", "generated"})
"""What only grows."""
LISTED: Final = frozenset({"marks", "profiles"})
"""Lists whose members come and go one by one."""
JITTER: Final = 1.0
"""Seconds by which the end of a call may differ and still be the same."""
_NOTHING: Final = object()


def merge(base: Mapping[str, Any], mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Record:
    """What ``mine`` and ``theirs`` are together, which both were ``base`` before."""
    merged: Record = {}
    for name in {**theirs, **mine}:
        before, left, right = base.get(name, _NOTHING), mine.get(name, _NOTHING), theirs.get(name, _NOTHING)
        value: Any
        if left in (right, before):
            value = right
        elif right == before:
            value = left
        elif isinstance(left, dict) and isinstance(right, dict):
            value = merge(before if isinstance(before, dict) else {}, left, right)
        elif name in GROWING and isinstance(left, int) and isinstance(right, int):
            value = max(left, right)
        elif name in LISTED and isinstance(left, list) and isinstance(right, list):
            value = _merge_lists(before if isinstance(before, list) else [], left, right)
        else:
            value = left
        if value is not _NOTHING:
            merged[name] = value
    return merged


def _merge_lists(base: list[Any], mine: list[Any], theirs: list[Any]) -> list[Any]:
    before, left, right = (Counter(_hashable(each) for each in values) for values in (base, mine, theirs))
    whole = right + (left - before) - (before - left)
    return [list(each) if isinstance(each, tuple) else each for each in whole.elements()]


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class Records:
    """Writes and reads the records of calls.

    ``now``, ``clock``: wall-clock and monotonic seconds. ``find_socket(text)``: our socket of that address or tag: where a side
    faces another address at each server, the tag is the same."""

    def __init__(
        self,
        profiles: Profiles,
        now: Callable[[], float],
        clock: Callable[[], float],
        find_socket: Callable[[str], Any],
    ) -> None:
        self._profiles = profiles
        self._now = now
        self._clock = clock
        self._find_socket = find_socket

    def write(self, call: Call, before: Mapping[str, Any] | None = None) -> Record:
        """The record of ``call``, once all who keep something with it have told.

        ``before``: what it said before: clocks that do not go quite alike are no change."""
        call.tell("saving")
        ends = round(self._now() + call.ends - self._clock(), 1)
        if before and abs(before["ends"] - ends) < JITTER:
            ends = before["ends"]
        caller, callee = self._write_leg(call.caller), self._write_leg(call.winner)
        if before:
            for side, leg in (("caller", caller), ("callee", callee)):  # each server has its own: the first one's are told
                leg["socket"], leg["socket_tag"] = before[side]["socket"], before[side]["socket_tag"]
        return {
            "number": call.number, "call_id": call.call_id, "state": int(call.state), "created": call.created,
            "started": call.started, "lifetime": call.lifetime, "ends": ends,
            "flags": int(call.flags & ~CallFlag.HAS_BYE), "module_flags": call.module_flags,
            "delete_delay": call.delete_delay, "options_interval": call.options_interval,
            "reinvite_interval": call.reinvite_interval, "values": dict(call.values), "marks": sorted(call.marks),
            "profiles": [list(each) for each in call.profiles], "routes": dict(call.routes), "tag": call.tag_of_sharing,
            "caller": caller, "callee": callee,
        }

    def _write_leg(self, leg: Leg) -> Record:
        socket = leg.socket
        return {
            "tag": leg.tag, "address": leg.address, "contact": leg.contact, "routes": list(leg.routes),
            "socket": "" if socket is None else f"{socket.transport}:{socket.host}:{socket.port}",
            "socket_tag": "" if socket is None else socket.tag or "", "cseq": leg.cseq, "previous": leg.previous,
            "invite": leg.invite, "generated": leg.generated, "numbers": sorted(map(list, (leg.numbers or {}).items())),
            "sdp": _text(leg.sdp), "sent_sdp": _text(leg.sent_sdp), "mangled_from": leg.mangled_from,
            "mangled_to": leg.mangled_to,
        }

    def read(self, record: Mapping[str, Any]) -> Call:
        """The call of a record, in no table yet; ``ValueError``, ``KeyError`` or ``TypeError`` if it is none."""
        caller, callee = self._read_leg(record["caller"]), self._read_leg(record["callee"])
        call = Call(int(record["number"]), str(record["call_id"]), caller, callee.address, float(record["created"]))
        call.callees.append(callee)
        call.winner = callee
        call.restored = True
        state = State(record["state"])
        if state not in (State.ANSWERED, State.CONFIRMED):
            raise ValueError("it has not been answered, or is over")
        call.state = state
        self.update(call, record)
        return call

    def _read_leg(self, record: Mapping[str, Any]) -> Leg:
        leg = Leg(str(record["tag"]), str(record["address"]))
        for name in (str(record["socket"]), str(record["socket_tag"])):
            leg.socket = leg.socket or (self._find_socket(name) if name else None)
        return leg

    def update(self, call: Call, record: Mapping[str, Any]) -> None:
        """Let ``call`` be as ``record`` says, but for its state and the sockets, which are each server's own."""
        call.started, call.lifetime = float(record["started"]), int(record["lifetime"])
        call.ends = self._clock() + float(record["ends"]) - self._now()
        call.flags = CallFlag(record["flags"]) | call.flags & CallFlag.HAS_BYE
        call.module_flags = int(record["module_flags"])
        call.delete_delay = int(record["delete_delay"])
        call.options_interval, call.reinvite_interval = int(record["options_interval"]), int(record["reinvite_interval"])
        call.values = dict(record["values"])
        call.marks = set(record["marks"])
        call.routes = dict(record["routes"])
        call.tag_of_sharing = str(record["tag"])
        self._update_profiles(call, Counter((str(name), str(value)) for name, value in record["profiles"]))
        self._update_leg(call.caller, record["caller"])
        self._update_leg(call.winner, record["callee"])

    def _update_profiles(self, call: Call, wanted: Counter[tuple[str, str]]) -> None:
        there = Counter(call.profiles)
        for name, value in (there - wanted).elements():
            self._profiles.leave(call, name, value, quiet=True)
        for name, value in (wanted - there).elements():
            if name in self._profiles.known:
                self._profiles.enter(call, name, value, again=True)

    def _update_leg(self, leg: Leg, record: Mapping[str, Any]) -> None:
        leg.address, leg.contact = str(record["address"]), str(record["contact"])
        leg.routes = [str(each) for each in record["routes"]]
        leg.cseq, leg.invite, leg.generated = int(record["cseq"]), int(record["invite"]), int(record["generated"])
        leg.previous = None if record["previous"] is None else int(record["previous"])
        leg.numbers = {int(number): int(sent) for number, sent in record["numbers"]} or None
        leg.sdp, leg.sent_sdp = _octets(record["sdp"]), _octets(record["sent_sdp"])
        leg.mangled_from, leg.mangled_to = str(record["mangled_from"]), str(record["mangled_to"])
