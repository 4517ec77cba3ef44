"""Dialogs as rows of OpenSIPS's table ``dialog`` (version 12), and how they get there and back.

Values of dialogs, profiles and sharing tags are one text each: ``name#1#text|``, ``name#2#number|``, with a backslash before what
would end a name or a value. Times are seconds since 1970; CSeq numbers stand as texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sipgw.db.writes import Entry, WriteQueue
from sipgw.interfaces import Change
from sipgw.interfaces import Value as Stored
from sipgw.proxy.dialogs import REINVITE_PINGS, Call, CallFlag, Leg, Profiles, State

VERSION = 12

COLUMNS = (
    "dlg_id", "callid", "from_uri", "from_tag", "to_uri", "to_tag", "caller_sock", "callee_sock", "start_time",
    "mangled_from_uri", "mangled_to_uri", "state", "timeout", "caller_cseq", "callee_cseq", "caller_ping_cseq",
    "callee_ping_cseq", "flags", "vars", "profiles", "script_flags", "module_flags", "caller_contact", "callee_contact",
    "caller_route_set", "callee_route_set", "rt_on_answer", "rt_on_timeout", "rt_on_hangup",
)
"""The columns by their usual names."""

LENGTHS = dict.fromkeys(
    ("callid", "from_uri", "to_uri", "mangled_from_uri", "mangled_to_uri", "caller_contact", "callee_contact", "script_flags"),
    255,
) | dict.fromkeys(("from_tag", "to_tag", "caller_sock", "callee_sock"), 64)
"""How much the columns of OpenSIPS's table hold, in characters, where a peer or a script can have more."""

_special = re.compile(r"[|#\\]").sub
_pair = re.compile(r"((?:[^|#\\]|\\.)+)#([12])#((?:[^|#\\]|\\.)*)\|", re.DOTALL).finditer
_escaped = re.compile(r"\\(.)", re.DOTALL).sub

SHARING_TAG = "dlgX_shtag"
"""Under which value OpenSIPS keeps the sharing tag."""
SESSIONS = (
    ("uCSDP", "caller", "sdp"), ("ucSDP", "callee", "sdp"), ("aCSDP", "caller", "sent_sdp"), ("acSDP", "callee", "sent_sdp"),
)
"""Under which values OpenSIPS keeps the session descriptions of dialogs that are pinged by re-INVITEs."""
STORED_FLAGS = ~(CallFlag.HAS_BYE)


def write_pairs(pairs: Iterator[tuple[str, int | str]] | Sequence[tuple[str, int | str]]) -> str:
    """Names and values in one text."""
    return "".join(f"{_escape(name)}#{2 if isinstance(value, int) else 1}#{_escape(str(value))}|" for name, value in pairs)


def read_pairs(text: str) -> Iterator[tuple[str, int | str]]:
    """The names and values in such a text; what cannot be read is passed over."""
    for match in _pair(text):
        name, kind, value = _escaped(r"\1", match[1]), match[2], _escaped(r"\1", match[3])
        if kind == "1":
            yield name, value
        elif re.fullmatch(r"-?[0-9]{1,18}", value):
            yield name, int(value)


def _escape(text: str) -> str:
    return _special(lambda match: "\\" + match[0], text)


def _text(value: Any) -> str:
    """A column's value as text; binary ones as they came."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return "" if value is None else str(value)


class DialogRows:
    """The dialogs of one table; ``columns`` names its columns by their usual names.

    ``now``: wall-clock seconds; ``clock``: monotonic ones. ``with_values``: values, profiles and flags are stored too."""

    def __init__(
        self,
        table: str,
        columns: Mapping[str, str],
        profiles: Profiles,
        now: Callable[[], float],
        clock: Callable[[], float],
        find_socket: Callable[[str], Any],
    ) -> None:
        self.table = table
        self.columns = columns
        self._profiles = profiles
        self._now = now
        self._clock = clock
        self._find_socket = find_socket

    def row(self, call: Call) -> dict[str, Stored]:
        """The row of ``call``, once all who keep something with it have told."""
        call.tell("saving")
        caller, callee = call.caller, call.winner
        shared = self._profiles.known
        profiles = [(f"{name}/{shared[name].shared}" if shared[name].shared else name, value) for name, value in call.profiles]
        values: dict[str, int | str] = dict(call.values)
        if call.flags & REINVITE_PINGS:
            for name, side, which in SESSIONS:
                if session := getattr(caller if side == "caller" else callee, which):
                    values[name] = session.decode("utf-8", "surrogateescape")
        if call.tag_of_sharing:
            values[SHARING_TAG] = call.tag_of_sharing
        usual: dict[str, Stored] = {
            "dlg_id": call.number, "callid": call.call_id, "from_uri": _uri(caller), "from_tag": caller.tag,
            "to_uri": _uri(callee), "to_tag": callee.tag, "caller_sock": _socket(caller), "callee_sock": _socket(callee),
            "start_time": int(call.started), "mangled_from_uri": _bare(callee.mangled_from) or None,
            "mangled_to_uri": _bare(callee.mangled_to) or None, "state": int(call.state),
            "timeout": int(self._now() + call.ends - self._clock()), "caller_cseq": str(caller.cseq),
            "callee_cseq": str(callee.cseq), "caller_ping_cseq": caller.generated, "callee_ping_cseq": callee.generated,
            "flags": int(call.flags & STORED_FLAGS),
            "vars": write_pairs(tuple(values.items())).encode("utf-8", "surrogateescape"),
            "profiles": write_pairs(profiles), "script_flags": " ".join(sorted(call.marks)), "module_flags": call.module_flags,
            "caller_contact": caller.contact, "callee_contact": callee.contact,
            "caller_route_set": ",".join(caller.routes), "callee_route_set": ",".join(callee.routes),
            "rt_on_answer": call.routes.get("answer"), "rt_on_timeout": call.routes.get("timeout"),
            "rt_on_hangup": call.routes.get("hangup"),
        }
        return {self.columns[name]: value for name, value in usual.items()}

    def replace(self, call: Call) -> Change:
        """The change that stores ``call``."""
        return Change("replace", self.table, self.row(call), (), (self.columns["dlg_id"],))

    def entry(self, call: Call) -> Entry:
        """The write that stores ``call``; what its columns do not hold is cut if the database does not take it otherwise."""
        change = self.replace(call)
        values = change.values
        cut = {
            self.columns[name]: text[:length]
            for name, length in LENGTHS.items()
            if isinstance(text := values[self.columns[name]], str) and len(text) > length
        }
        return Entry((change,), (change._replace(values={**values, **cut}),) if cut else ())

    def delete(self, call: Call) -> Change:
        """The change that takes it out."""
        return Change("delete", self.table, {}, {self.columns["dlg_id"]: call.number})

    def delete_all(self) -> Change:
        """The change that empties the table."""
        return Change("delete", self.table)

    def refresh(self, call: Call, row: Mapping[str, Any]) -> State | None:
        """Take into ``call`` what ``row`` knows better, by OpenSIPS's rules; the state in ``row``, None if it is an older one.

        A row with a later state is right in all that changes; one with the same state in greater numbers, in a later end, and
        in values and profiles that it has."""
        other = self.read(row, count=False)
        if other is None or call.state > other.state or call.state < State.ANSWERED:
            return None
        newer = other.state > call.state
        for leg, theirs in ((call.caller, other.caller), (call.winner, other.winner)):
            leg.cseq = theirs.cseq if newer else max(leg.cseq, theirs.cseq)
            leg.generated = theirs.generated if newer else max(leg.generated, theirs.generated)
        call.ends = other.ends if newer else max(call.ends, other.ends)
        if newer:
            call.flags, call.routes = other.flags, other.routes
        call.values.update(other.values)
        for name, value in other.profiles:
            if (name, value) not in call.profiles:
                self._profiles.enter(call, name, value, again=True)
        return other.state

    def read(self, row: Mapping[str, Any], count: bool = True) -> Call | None:
        """The dialog in ``row`` (usual names), answered and not over; None for any other. ``count``: in its profiles."""
        state = int(row["state"] or 0)
        if state not in (State.ANSWERED, State.CONFIRMED):
            return None
        caller = self._leg(row, "caller", "from")
        callee = self._leg(row, "callee", "to")
        mangled_from, mangled_to = _text(row["mangled_from_uri"]), _text(row["mangled_to_uri"])
        callee.mangled_from = f"<{mangled_from}>" if mangled_from else ""
        callee.mangled_to = f"<{mangled_to}>" if mangled_to else ""
        started = float(row["start_time"] or 0)
        call = Call(int(row["dlg_id"]), _text(row["callid"]), caller, callee.address, started)
        caller.invite = callee.cseq
        call.callees.append(callee)
        call.winner = callee
        call.state = State(state)
        call.flags = CallFlag(int(row["flags"] or 0) & STORED_FLAGS & _KNOWN)
        call.module_flags = int(row["module_flags"] or 0)
        call.started = started
        left = max(0, int(row["timeout"] or 0) - int(self._now()))
        call.lifetime = int(row["timeout"] or 0) - int(started)
        call.ends = self._clock() + left
        call.values = dict(read_pairs(_text(row["vars"])))
        call.tag_of_sharing = str(call.values.pop(SHARING_TAG, ""))
        for name, side, which in SESSIONS:
            session = str(call.values.pop(name, "")).encode("utf-8", "surrogateescape")
            setattr(caller if side == "caller" else callee, which, session)
        call.marks = set(_text(row["script_flags"]).split())
        for which in ("answer", "timeout", "hangup"):
            name = _text(row[f"rt_on_{which}"])
            if name:
                call.routes[which] = name.partition(":")[0]
        for name, value in read_pairs(_text(row["profiles"])):
            bare = name.partition("/")[0]
            if bare in self._profiles.known and count:
                self._profiles.enter(call, bare, str(value), again=True)
            elif bare in self._profiles.known:
                call.profiles.append((bare, str(value)))
        call.restored = call.stored = True
        return call

    def _leg(self, row: Mapping[str, Any], side: str, header: str) -> Leg:
        leg = Leg(
            _text(row[f"{header}_tag"]), f"<{_text(row[f'{header}_uri'])}>", _text(row[f"{side}_contact"]).strip("<>"),
            split_routes(_text(row[f"{side}_route_set"])), self._find_socket(_text(row[f"{side}_sock"])),
        )
        leg.cseq = _number(row[f"{side}_cseq"])
        leg.generated = _number(row[f"{side}_ping_cseq"])
        return leg


_KNOWN = CallFlag(0)
for _flag in CallFlag:
    _KNOWN |= _flag


def split_routes(text: str) -> list[str]:
    """The values of a route set."""
    return [value.strip() for value in re.findall(r"[^,<]*<[^>]*>[^,]*", text)]


def _uri(leg: Leg) -> str:
    return _bare(leg.address)


def _bare(address: str) -> str:
    """The URI of a name-addr."""
    return address.rpartition("<")[2].partition(">")[0]


def _socket(leg: Leg) -> str:
    socket = leg.socket
    if socket is None:
        return ""
    host = f"[{socket.host}]" if ":" in socket.host and socket.host[0] != "[" else socket.host
    return f"{socket.transport}:{host}:{socket.port}"


def _number(value: Any) -> int:
    text = _text(value).strip()
    return int(text) if text.isascii() and text.isdigit() else 0


def usual_row(columns: Mapping[str, str], names: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    """A row of a select by the usual names of its columns."""
    by_name = dict(zip(names, row, strict=True))
    return {usual: by_name.get(name) for usual, name in columns.items()}


class Store:
    """What the two ways of storing share: how a call that is over is taken out."""

    def __init__(self, rows: DialogRows, queue: WriteQueue) -> None:
        self.rows = rows
        self.queue = queue

    def ended(self, call: Call) -> None:
        """Take ``call`` out, if it is there, and write in the same transaction what is left to be written of it."""
        entry, call.farewell = call.farewell or Entry(()), None
        if call.stored:
            delete = self.rows.delete(call)
            entry.changes = (*entry.changes, delete)
            entry.shorter = (*entry.shorter, delete) if entry.shorter else ()
        if entry.changes:
            self.queue.add(entry)


class RealtimeStore(Store):
    """Writes every change at once (``db_mode`` 1): a call that changes again while it waits is written once."""

    def __init__(self, rows: DialogRows, queue: WriteQueue) -> None:
        super().__init__(rows, queue)
        self._pending: dict[Call, Entry] = {}

    def saved(self, call: Call) -> None:
        """Store ``call``."""
        entry = self.rows.entry(call)
        pending = self._pending.get(call)
        if pending is not None and not pending.taken:
            pending.changes, pending.shorter = entry.changes, entry.shorter
            return
        call.stored = True
        entry.done = lambda: self._done(call, entry)
        self._pending[call] = entry
        self.queue.add(entry)

    def _done(self, call: Call, entry: Entry) -> None:
        if self._pending.get(call) is entry:
            del self._pending[call]


class DelayedStore(Store):
    """Notes what has changed and writes it when ``flush`` is called (``db_mode`` 2), or when the server stops (3)."""

    def __init__(self, rows: DialogRows, queue: WriteQueue) -> None:
        super().__init__(rows, queue)
        self._changed: dict[Call, None] = {}

    def saved(self, call: Call) -> None:
        """Note that it has changed."""
        self._changed[call] = None

    def ended(self, call: Call) -> None:
        """Take it out."""
        self._changed.pop(call, None)
        super().ended(call)

    def flush(self) -> None:
        """Write what has changed."""
        changed, self._changed = self._changed, {}
        for call in changed:
            call.stored = True
            self.queue.add(self.rows.entry(call))
