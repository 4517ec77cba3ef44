"""Back-to-back calls as rows of OpenSIPS's tables ``b2b_entities`` (version 2) and ``b2b_logic`` (version 5). Pure.

A leg is a row of the first: tag, CSeq number, Contact and route set with a 0 are the caller's (on a leg that we called: ours),
with a 1 the other side's. What the table has no column for, and what does not fit into one, stands in ``storage``, a JSON object;
a row without it, as OpenSIPS writes it, is read all the same. A session is a row of the second, and names its legs by their
keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sipgw.b2bua.description import Told
from sipgw.b2bua.legs import Leg, Role, State
from sipgw.b2bua.port import NOTHING, Content
from sipgw.interfaces import Value as Stored
from sipgw.sip.address import NameAddr, parse_list
from sipgw.sip.dialog import Dialog, DialogId
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, parse

ENTITIES_VERSION: Final = 2
LOGIC_VERSION: Final = 5

ENTITIES: Final = (
    "type", "state", "ruri", "from_uri", "to_uri", "from_dname", "to_dname", "tag0", "tag1", "callid", "cseq0", "cseq1",
    "contact0", "contact1", "route0", "route1", "sockinfo_srv", "param", "mod_name", "storage", "lm", "lrc", "lic", "leg_cseq",
    "leg_route", "leg_tag", "leg_contact", "leg_sockinfo",
)
"""The columns of a leg."""
ENTITY_KEY: Final = ("type", "tag0", "tag1", "callid")
LOGIC: Final = (
    "si_key", "scenario", "sstate", "lifetime", "e1_type", "e1_sid", "e1_from", "e1_to", "e1_key", "e1_sdp", "e2_type", "e2_sid",
    "e2_from", "e2_to", "e2_key", "e2_sdp", "e3_type", "e3_sid", "e3_from", "e3_to", "e3_key",
)
"""The columns of a session."""
LOGIC_KEY: Final = ("si_key",)

LENGTHS: Final = (
    dict.fromkeys(("ruri", "from_uri", "to_uri", "contact0", "contact1", "param", "leg_contact", "leg_sockinfo"), 255)
    | dict.fromkeys(("from_dname", "to_dname", "tag0", "tag1", "sockinfo_srv", "leg_tag"), 64)
    | {"callid": 128, "mod_name": 32}
)
"""How much the columns of a leg hold, in characters."""
SESSION_LENGTHS: Final = dict.fromkeys(("si_key", "scenario"), 64) | {
    f"e{number}_{name}": length for number in (1, 2, 3) for name, length in (("sid", 64), ("from", 255), ("to", 255), ("key", 64))
}

CONFIRMED, ESTABLISHED, MODIFIED, TERMINATED = 4, 5, 6, 7
"""States of legs, as OpenSIPS numbers them: answered, acknowledged, in the middle of a re-INVITE, over."""
_STATES: Final = {State.ANSWERED: CONFIRMED, State.PARTING: CONFIRMED, State.TALKING: ESTABLISHED, State.LEAVING: ESTABLISHED}
LASTING: Final = frozenset(_STATES)
"""The states of legs that have a dialog which another server could go on with."""
_INVITE: Final = 1
"""The method INVITE in the column ``lm``."""
GAP: Final = 100
"""How many CSeq numbers are left out when a call is taken over: those that were used since the row was written."""


def text_of(value: Any) -> str:
    """A column's value as text; binary ones as they came."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "surrogateescape")
    return "" if value is None else str(value)


def number_of(value: Any) -> int:
    """A column's value as a number, 0 if it is none."""
    text = text_of(value).strip()
    return int(text) if text.lstrip("-").isascii() and text.lstrip("-").isdigit() else 0


def lasts(leg: Leg) -> bool:
    """Whether ``leg`` can be stored: its dialog has been answered, and is not over."""
    return leg.state in LASTING and leg.dialog is not None


def leg_row(leg: Leg, session: str, module: str = "b2b_logic", more: Mapping[str, Any] | None = None) -> dict[str, Stored]:
    """The row of a leg that lasts. ``session``: the key of its session; ``more``: what else to keep, as JSON has it."""
    dialog = leg.dialog
    assert dialog is not None
    from_, to = leg.invite.from_, leg.invite.to
    server = leg.role is Role.SERVER
    routes = ",".join(dialog.route_set) or None
    own, theirs = dialog.local_cseq or 0, dialog.remote_cseq or 0
    contact = bare(leg.contact)
    keep: dict[str, Any] = {"state": leg.state.value, "id": leg.id, **(more or {})}
    if contact is None or f"<{contact}>" != leg.contact:
        keep["contact"] = leg.contact
    if dialog.secure:
        keep["secure"] = True
    if leg.said != NOTHING:
        keep["said"] = [leg.said.headers, leg.said.body.decode("utf-8", "surrogateescape"), leg.said.content_type]
    told = leg.told
    if told.last:
        keep["told"] = [told.origin, told.version, told.last.decode("utf-8", "surrogateescape"), told.own]
    if leg.avps:
        keep["avps"] = leg.avps
    if leg.flags:
        keep["flags"] = sorted(leg.flags)
    if leg.interval:
        keep["timer"] = [leg.interval, leg.refreshes, leg.knows_update]
    if leg.contact_params:
        keep["contact_params"] = leg.contact_params
    if server and leg.key != dialog.id.local_tag:
        keep["key"] = leg.key
    if leg.acknowledged:
        keep["acknowledged"] = True
    row: dict[str, Stored] = {
        "type": 0 if server else 1,
        "state": MODIFIED if leg.exchange is not None and leg.state is State.TALKING else _STATES[leg.state],
        "ruri": leg.invite.uri, "from_uri": from_.uri_text, "to_uri": to.uri_text,
        "from_dname": from_.display or None, "to_dname": to.display or None,
        "tag0": dialog.id.remote_tag if server else dialog.id.local_tag,
        "tag1": dialog.id.local_tag if server else dialog.id.remote_tag,
        "callid": dialog.id.call_id,
        "cseq0": theirs if server else own, "cseq1": own if server else theirs,
        "contact0": dialog.remote_target if server else contact or "",
        "contact1": contact or "" if server else dialog.remote_target,
        "route0": routes if server else None, "route1": None if server else routes,
        "sockinfo_srv": socket_name(leg.socket) or None, "param": session, "mod_name": module,
        "lm": _INVITE, "lrc": 200, "lic": leg.invite.cseq.number,
        "leg_cseq": None if server else own, "leg_route": None if server else routes,
        "leg_tag": None if server else dialog.id.remote_tag, "leg_contact": None if server else dialog.remote_target,
        "leg_sockinfo": None,
    }
    local, remote = (to, from_) if server else (from_, to)
    for name, address, its in (("local", dialog.local, local), ("remote", dialog.remote, remote)):
        if address != _plain(its):
            keep[name] = address
    long = _fitted(row, LENGTHS)
    if long:
        keep["long"] = long
    row["storage"] = json.dumps(keep, separators=(",", ":")).encode()
    return row


def _fitted(row: dict[str, Stored], lengths: Mapping[str, int]) -> dict[str, str]:
    """Cut what does not fit into its column or cannot stand in one; the whole texts of those."""
    long = {}
    for name, value in row.items():
        if isinstance(value, str):
            fits = value.encode("utf-8", "replace").decode().replace("\0", "?")[: lengths.get(name)]
            if fits != value:
                long[name] = value
                row[name] = fits
    return long


def kept_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in ``storage``; nothing if somebody else has written that."""
    try:
        found = json.loads(text_of(row.get("storage")))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def read_leg(row: Mapping[str, Any], find_socket: Callable[[str], Any]) -> Leg:
    """The leg in a row, as it was when that was written; ``ValueError`` or ``MalformedMessage`` if there is none in it."""
    kept = kept_of(row)
    row = {**row, **kept.get("long", {})}
    server = number_of(row["type"]) == 0
    if number_of(row["state"]) not in (CONFIRMED, ESTABLISHED, MODIFIED):
        raise ValueError("its call is not answered, or over")
    call_id, first = text_of(row["callid"]), text_of(row["tag0"])
    second = text_of(row["tag1"]) if server else text_of(row.get("leg_tag")) or text_of(row["tag1"])
    invite = _invite(row, call_id, first)
    leg = Leg(
        (str(kept.get("key", "")) or second) if server else call_id, Role.SERVER if server else Role.CLIENT, invite,
        id=str(kept.get("id", "")),
        socket=find_socket(text_of(row.get("sockinfo_srv"))),
        contact=str(kept.get("contact", "")) or f"<{text_of(row['contact1' if server else 'contact0'])}>",
    )
    cseqs = number_of(row["cseq0"]), number_of(row["cseq1"])
    local, remote = (invite.to, invite.from_) if server else (invite.from_, invite.to)
    routes = text_of(row["route0"]) if server else text_of(row.get("leg_route")) or text_of(row["route1"])
    target = text_of(row["contact0"]) if server else text_of(row.get("leg_contact")) or text_of(row["contact1"])
    own, theirs = reversed(cseqs) if server else cseqs
    leg.dialog = Dialog(
        DialogId(call_id, second, first) if server else DialogId(call_id, first, second),
        str(kept.get("local", "")) or _plain(local), str(kept.get("remote", "")) or _plain(remote), bare(target) or target,
        parse_list(routes), own + GAP, theirs if kept and theirs else None, early=False, secure=bool(kept.get("secure")),
    )
    leg.state = next((state for state in LASTING if state.value == kept.get("state")), State.TALKING)
    leg.avps = {str(name): list(values) for name, values in kept.get("avps", {}).items()}
    leg.flags = set(map(str, kept.get("flags", ())))
    interval, leg.refreshes, leg.knows_update = kept.get("timer", (0, False, False))
    leg.interval = int(interval)
    leg.contact_params = str(kept.get("contact_params", ""))
    if "said" in kept:
        headers, body, kind = map(str, kept["said"])
        leg.said = Content(headers, body.encode("utf-8", "surrogateescape"), kind)
    if "told" in kept:
        origin, version, last, is_own = kept["told"]
        leg.told = Told(str(origin), int(version), str(last).encode("utf-8", "surrogateescape"), bool(is_own))
    leg.acknowledged = not server and bool(kept.get("acknowledged", not kept))
    return leg


def _invite(row: Mapping[str, Any], call_id: str, tag: str) -> Request:
    """As much of the INVITE that began a leg as is known of it."""
    from_, to = (
        f"{name} <{uri}>" if name else f"<{uri}>"
        for name, uri in ((text_of(row.get(f"{side}_dname")), text_of(row[f"{side}_uri"])) for side in ("from", "to"))
    )
    uri = text_of(row.get("ruri")) or text_of(row["to_uri"])
    number = number_of(row.get("lic")) or number_of(row["cseq0"]) or 1
    text = (
        f"INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP restored.invalid;branch=z9hG4bK0\r\nFrom: {from_};tag={tag}\r\nTo: {to}\r\n"
        f"Call-ID: {call_id}\r\nCSeq: {number} INVITE\r\nContact: <{text_of(row['contact0'])}>\r\nContent-Length: 0\r\n\r\n"
    )
    found = parse(text.encode("utf-8", "surrogateescape"))
    if not isinstance(found, Request) or found.call_id != call_id or found.from_tag != tag:
        raise MalformedMessage("its names are none")
    return found


def unanswered(row: Mapping[str, Any], number: int) -> Leg:
    """The leg with that number in the row of a session, of which nothing is stored since nobody has answered; it is over."""
    from_, to, key = (text_of(row.get(f"e{number}_{name}")) or "sip:unknown@restored.invalid" for name in ("from", "to", "key"))
    named = {"ruri": to, "from_uri": from_, "to_uri": to, "cseq0": 1, "contact0": from_}
    leg = Leg(key, Role.CLIENT if number_of(row.get(f"e{number}_type")) else Role.SERVER, _invite(named, key, "unknown"))
    leg.id = text_of(row.get(f"e{number}_sid"))
    leg.state = State.OVER
    return leg


def bare(address: str) -> str | None:
    """The URI of a name-addr or addr-spec."""
    try:
        return NameAddr.parse(address).uri_text
    except MalformedMessage:
        return None


def _plain(address: NameAddr) -> str:
    return f"{address.display} <{address.uri_text}>" if address.display else f"<{address.uri_text}>"


def socket_name(socket: Any) -> str:
    """A socket as OpenSIPS writes it: ``udp:192.0.2.1:5060``."""
    if socket is None:
        return ""
    host = f"[{socket.host}]" if ":" in socket.host and socket.host[0] != "[" else socket.host
    return f"{socket.transport}:{host}:{socket.port}"


@dataclass
class SessionRow:
    """What the row of a session says. ``scenario``: "" where a script decides without a name; ``ends``: when its time is over, in
    seconds since 1970, 0: never; ``legs``: the keys of its legs, those that talk with each other first."""

    key: str
    scenario: str
    state: int
    ends: int
    legs: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def row(self, legs: list[Leg]) -> dict[str, Stored]:
        """The row; ``legs``: two or three."""
        row: dict[str, Stored] = {"si_key": self.key, "scenario": self.scenario, "sstate": self.state, "lifetime": self.ends}
        for number in (1, 2, 3):
            leg = legs[number - 1] if number <= len(legs) else None
            values: tuple[Stored, ...]
            if leg is not None:
                invite = leg.invite
                values = 0 if leg.role is Role.SERVER else 1, leg.id, invite.from_.uri_text, invite.to.uri_text, leg.key
            else:
                values = (0, "", "", "", "") if number < 3 else (None,) * 5
            for name, value in zip(("type", "sid", "from", "to", "key"), values, strict=True):
                row[f"e{number}_{name}"] = value
            if number < 3:
                last = b"" if leg is None else leg.told.last
                row[f"e{number}_sdp"] = last.decode("utf-8", "replace") or None
        _fitted(row, SESSION_LENGTHS)
        return row

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> SessionRow:
        """What a row says."""
        found = cls(text_of(row["si_key"]), text_of(row["scenario"]), number_of(row["sstate"]), number_of(row["lifetime"]))
        for number in (1, 2, 3):
            key = text_of(row.get(f"e{number}_key"))
            if key:
                found.legs.append(key)
                found.ids.append(text_of(row.get(f"e{number}_sid")))
        return found
