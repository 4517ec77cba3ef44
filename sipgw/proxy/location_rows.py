"""Bindings as rows of OpenSIPS's table ``location`` (version 1013), and back.

A row counts its end in seconds from 1970, 0 for ever; flags of the script stand there by name, sockets as
``udp:192.0.2.1:5060``, the values of ``ul_add_key`` as JSON, with each contact of the user.

``contact_id`` is OpenSIPS's: 16 bits of its hash of the address-of-record, 32 that all contacts of one address-of-record share,
14 of the contact. OpenSIPS takes no row whose first 16 are wrong, so its hash is ours. It draws the others by lot and counts on;
here they follow from the address-of-record and the contact, so that a contact gets the row again that it may have had: what was
written without our knowing (the connection was lost in the middle of a commit) is overwritten, not doubled."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from math import ceil, inf
from typing import Any, Final, NamedTuple, Protocol
from zlib import crc32

from sipgw.interfaces import Change, Value
from sipgw.proxy.location import ALL_METHODS, MEMORY_ONLY, Binding, binding_key
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri

__all__ = [
    "VERSION", "Columns", "Loaded", "Rows", "contact_id", "core_hash", "is_ours", "kept_values", "packed_values",
    "written_socket",
]

VERSION: Final = 1013
LATEST: Final = 2**31 - 1
"""The last second that the column ``expires`` can have in each database."""
DRIFT: Final = 0.01
"""Seconds by which the two clocks may have moved apart since a row was read, so that its end stays what it was."""
USER_AGENT: Final = 255
"""Characters of the column ``user_agent``; the rest is cut off."""
_VALUES: Final = "_urec_kvs"
"""Under which OpenSIPS keeps the values of a user with a contact."""
_NO_AGENT: Final = "n/a"
_CONTACT_BITS: Final = 14
_LABEL_BITS: Final = 32
_CONTACT_MASK: Final = (1 << _CONTACT_BITS) - 1


def core_hash(text: str) -> int:
    """OpenSIPS's hash of a string, 32 bits."""
    data = text.encode("utf-8", "surrogateescape")
    whole = len(data) & ~3
    total = 0
    for start in range(0, whole, 4):
        total += _mixed(data[start : start + 4])
    total = (total + _mixed(data[whole:])) & 0xFFFFFFFF
    return (total + (total >> 11) + (total >> 13) + (total >> 23)) & 0xFFFFFFFF


def _mixed(octets: bytes) -> int:
    """Up to four octets as a number; COMPAT: an octet beyond 127 is a negative one."""
    number = 0
    for octet in octets:
        number = (number << 8) + (octet if octet < 128 else octet - 256)
    number &= 0xFFFFFFFF
    return number ^ (number >> 3)


def _first_bits(aor: str) -> int:
    return core_hash(aor) & 0xFFFF


def is_ours(number: int, aor: str) -> bool:
    """Whether OpenSIPS would take ``number`` as the id of a contact of ``aor``."""
    return number >> (_LABEL_BITS + _CONTACT_BITS) == _first_bits(aor)


def contact_id(aor: str, contact: str, taken: Collection[int] = ()) -> int:
    """The id of a contact; ``taken``: those of the other contacts of ``aor``."""
    first = _first_bits(aor)
    for other in taken:
        if other >> (_LABEL_BITS + _CONTACT_BITS) == first:
            base = other & ~_CONTACT_MASK
            break
    else:
        label = int.from_bytes(blake2b(aor.encode("utf-8", "surrogateescape"), digest_size=4).digest(), "big")
        base = (first << (_LABEL_BITS + _CONTACT_BITS)) + (label << _CONTACT_BITS)
    last = crc32(contact.encode("utf-8", "surrogateescape")) & _CONTACT_MASK
    while base + last in taken or not base + last:
        last = (last + 1) & _CONTACT_MASK
    return base + last


def packed_values(values: Mapping[str, str]) -> str | None:
    """The values of a user as the column ``kv_store`` has them."""
    if not values:
        return None
    return _json({_VALUES: _json(dict(values))})


def kept_values(text: str | None) -> dict[str, str]:
    """What ``packed_values`` has written, or OpenSIPS; nothing if it cannot be read."""
    try:
        found = json.loads(json.loads(text or "{}").get(_VALUES) or "{}")
        return {str(name): str(value) for name, value in found.items()}
    except (ValueError, AttributeError, TypeError):
        return {}


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(value, separators=(",", ":"))


def written_socket(socket: Any) -> str:
    """A socket as ``udp:127.0.0.1:5060``."""
    host = f"[{socket.host}]" if ":" in socket.host else socket.host
    return f"{socket.transport}:{host}:{socket.port}"


class Around(Protocol):
    """What rows need of the transaction user."""

    branch_flags: Any

    def clock(self) -> float:
        """Monotonic seconds."""

    def wall_clock(self) -> float:
        """Seconds since 1970."""

    def find_socket(self, text: str) -> Any:
        """The socket of that name, None if it is not ours."""


@dataclass(frozen=True)
class Columns:
    """The names of the columns, as usrloc's parameters give them."""

    contact_id: str = "contact_id"
    user: str = "username"
    domain: str = "domain"
    contact: str = "contact"
    expires: str = "expires"
    q: str = "q"
    callid: str = "callid"
    cseq: str = "cseq"
    flags: str = "flags"
    cflags: str = "cflags"
    user_agent: str = "user_agent"
    received: str = "received"
    path: str = "path"
    socket: str = "socket"
    methods: str = "methods"
    last_modified: str = "last_modified"
    sip_instance: str = "sip_instance"
    kv_store: str = "kv_store"
    attr: str = "attr"


class Loaded(NamedTuple):
    """A row that was read: ``binding`` None if it cannot be one (``why``)."""

    binding: Binding | None
    values: str | None
    why: str = ""


class Rows:
    """Writes and reads the rows of one kind of table."""

    def __init__(self, user: Around, columns: Columns | None = None, use_domain: bool = True) -> None:
        self.user = user
        self.columns = columns or Columns()
        self.use_domain = use_domain
        self.key = self.columns.contact_id
        names = self.columns
        self.read: Sequence[str] = [
            names.contact_id, names.user, names.contact, names.expires, names.q, names.callid, names.cseq, names.flags,
            names.cflags, names.user_agent, names.received, names.path, names.socket, names.methods, names.last_modified,
            names.sip_instance, names.kv_store, names.attr,
        ]  # fmt: skip
        """The columns of ``load``."""
        if use_domain:
            self.read = [*self.read, names.domain]
        self._sockets: dict[str, Any] = {}
        self._flags: dict[str, int] = {}

    # -- writing

    def place(self, aor: str) -> dict[str, Value]:
        """The columns that say whose a row is."""
        if not self.use_domain:
            return {self.columns.user: aor}
        user, at, domain = aor.partition("@")
        return {self.columns.user: user if at else "", self.columns.domain: domain if at else aor}

    def store(self, table: str, binding: Binding, values: Mapping[str, str]) -> Change:
        """The change that writes ``binding``, and the values of its user; whether the row is there already or not."""
        names, user = self.columns, self.user
        now, wall = user.clock(), user.wall_clock()
        ends = 0 if binding.expires == inf else min(ceil(wall + binding.expires - now - DRIFT), LATEST)
        row: dict[str, Value] = {
            names.contact_id: binding.serial,
            names.contact: binding.contact,
            names.expires: ends,
            names.q: -1.0 if binding.q < 0 else binding.q / 1000,
            names.callid: binding.call_id,
            names.cseq: min(binding.cseq, LATEST),
            names.flags: binding.marks & ~MEMORY_ONLY,
            names.cflags: " ".join(user.branch_flags.names(binding.flags)) if binding.flags else "",
            names.user_agent: binding.user_agent[:USER_AGENT] or _NO_AGENT,
            names.received: binding.received,
            names.path: binding.path,
            names.socket: None if binding.socket is None else written_socket(binding.socket),
            names.methods: None if binding.methods == ALL_METHODS else binding.methods,
            names.last_modified: datetime.fromtimestamp(int(wall + binding.modified - now)),
            names.sip_instance: binding.instance,
            names.kv_store: packed_values(values) if values else None,
            names.attr: binding.attr,
        }
        row.update(self.place(binding.aor))
        return Change("replace", table, row, keys=(self.key,))

    def delete(self, table: str, serial: int) -> Change:
        """The change that deletes the row of a contact."""
        return Change("delete", table, where={self.key: serial})

    def delete_expired(self, table: str, serial: int) -> Change:
        """The change that deletes the row of a contact, unless that has been refreshed meanwhile."""
        return Change("delete", table, where=[(self.key, "=", serial), *self.expired()])

    def expired(self) -> list[tuple[str, str, Value]]:
        """The condition for rows that are over."""
        name = self.columns.expires
        return [(name, ">", 0), (name, "<=", int(self.user.wall_clock()))]

    # -- reading

    def load(self, row: Sequence[Any]) -> Loaded:
        """The binding of a row with the columns ``read``."""
        number, name, contact, ends, q, call_id, cseq, flags, cflags, agent, received, path, socket = row[:13]
        methods, modified, instance, values, attr = row[13:18]
        aor = name or ""
        if self.use_domain:
            domain = row[18] or ""
            aor = f"{aor}@{domain}" if aor else domain
        if number is None or not aor or not contact or ends is None:
            return Loaded(None, None, f"it has no {'user' if not aor else 'contact' if not contact else 'end'}")
        try:
            key = binding_key(Uri.parse(contact))
        except MalformedMessage:
            return Loaded(None, None, f"{contact!r} is no URI")
        now, wall = self.user.clock(), self.user.wall_clock()
        binding = Binding(aor, contact, key, now + ends - wall if ends else inf, call_id or "", cseq or 0, now)
        binding.serial = int(number)
        binding.q = -1 if q is None or q < 0 else round(q * 1000)
        binding.marks = flags or 0
        binding.methods = ALL_METHODS if methods is None else methods
        binding.user_agent = "" if agent in (None, _NO_AGENT) else agent
        binding.received = received or None
        binding.path = path or None
        binding.instance = instance or None
        binding.attr = attr or None
        if cflags:
            binding.flags = _kept(self._flags, cflags, self._mask)
        if socket:
            binding.socket = _kept(self._sockets, socket, self.user.find_socket)
        if isinstance(modified, datetime):
            binding.modified = now + min(0.0, modified.timestamp() - wall)
        return Loaded(binding, values)

    def _mask(self, names: str) -> int:
        """The flags of those names; a script declares them only when it first uses them, so they may be new."""
        mask = 0
        for name in names.split():
            try:
                mask |= self.user.branch_flags.mask(name)
            except ValueError:  # more than there can be: not of this script
                continue
        return mask


def _kept(known: dict[str, Any], text: str, find: Callable[[str], Any]) -> Any:
    """What ``find`` says of ``text``, asked once."""
    if text not in known:
        if len(known) > 1000:
            known.clear()
        known[text] = find(text)
    return known[text]
