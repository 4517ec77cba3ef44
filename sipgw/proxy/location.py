"""The location service (RFC 3261 10.1): which contacts an address-of-record is bound to, and until when.

A ``LocationTable`` (OpenSIPS's usrloc "domain", as in ``save("location")``) maps an address-of-record to its list of
``Binding``, in the order in which ``lookup`` tries them. Three things keep its cost apart from its size:

- **Expiry.** Each binding lies in the bucket of the *tick* in which it expires (``tick`` seconds, usrloc's
  ``timer_interval``). To refresh it is to move it to a later bucket, which most refreshes do not even need; to sweep is
  to take the buckets that are over. No sweep ever looks at a binding that stays, and it may stop after ``limit``
  bindings and go on later, so that a million that expire together do not hold up the reactor. Between its end and its
  sweep a binding is in the table; whoever asks for ``live`` bindings finds it gone.
- **Matching.** A binding keeps ``key``, a number made of the parts of its Contact URI that RFC 3261 19.1.4 always
  compares. A refresh is found by the text of the URI; a new contact is compared as a URI only where the key is the same.
- **Bounds.** ``capacity`` bindings in all, ``AOR_CONTACTS`` for one address-of-record.

Measured (``bench/memory.py``): about 1 kB a binding, strings included.

Other kinds of storage stand behind the same door. Nothing outside this file touches ``_records``: the registrar reads
with ``live``, decides without the table (``registrar.py``), and then writes with ``insert``, ``changed`` and ``remove``,
which are the only ways in which a binding changes. So:

- *SQL now and then* (write-back, ``location_back.py``): a subclass notes in those three what a timer shall write.
- *Before it is true it must be safe* (write-through, Redis; ``location_drafts.py``): the table ``waits``. A request then
  works on a ``Draft``, a small table of its own with copies of one address-of-record, which is committed and only then
  applied. Where nothing is in memory at all (``remote``) the draft is filled from the database.

Times are seconds of the monotonic clock; ``inf`` never expires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from math import inf, isinf
from typing import Any, Final, Protocol, TypeVar

from sipgw.sip.grammar import unescape
from sipgw.sip.uri import Uri, same_uri

__all__ = ["ALL_METHODS", "AOR_CONTACTS", "MEMORY_ONLY", "Binding", "LocationTable", "Watcher", "binding_key", "find_contact"]

T = TypeVar("T")

AOR_CONTACTS: Final = 256
"""The most bindings of one address-of-record, whatever ``max_contacts`` says: no request is forked further."""
CAPACITY: Final = 1_000_000
"""The most bindings of one table (hardening P27)."""
ALL_METHODS: Final = 0xFFFFFFFF
"""``Binding.methods`` of a contact that did not say which methods it knows."""
MEMORY_ONLY: Final = 1
"""The mark of a contact that no database shall have (``save``'s flag memory-only)."""

_NOTHING: Final[Mapping[str, str]] = {}


def binding_key(uri: Uri) -> int:
    """A number that is the same for URIs that are equal by RFC 3261 19.1.4 (but not only for those)."""
    user = uri.user
    if uri.scheme == "tel":
        return hash("tel")  # visual separators and the like: left to ``same_uri``
    if user is not None and "%" in user:
        user = unescape(user)
    return hash((uri.scheme, user, uri.host.lower() if uri.host[:1] != "[" else "[", uri.port))


class Binding:
    """One contact of one address-of-record.

    ``q`` is in thousandths, -1 when the contact gave none. ``received`` is where the REGISTER came from, as a URI, where that
    matters (NAT); ``path`` the value of its Path header fields (RFC 3327), ``socket`` the local socket that it came to.
    ``flags`` are branch flags as a mask, ``methods`` OpenSIPS's mask of methods, ``marks`` usrloc's own flags. ``modified`` is
    when it was last written, ``serial`` its number in the table (0: it gets one). ``bucket`` and ``wake`` belong to the table."""

    __slots__ = (
        "aor",
        "attr",
        "bucket",
        "call_id",
        "contact",
        "cseq",
        "expires",
        "flags",
        "instance",
        "key",
        "marks",
        "methods",
        "modified",
        "path",
        "q",
        "received",
        "reg_id",
        "serial",
        "socket",
        "user_agent",
        "wake",
    )

    def __init__(self, aor: str, contact: str, key: int, expires: float, call_id: str, cseq: int, now: float) -> None:
        self.aor = aor
        self.contact = contact
        self.key = key
        self.expires = expires
        self.call_id = call_id
        self.cseq = cseq
        self.modified = now
        self.q = -1
        self.flags = 0
        self.marks = 0
        self.methods = ALL_METHODS
        self.user_agent = ""
        self.received: str | None = None
        self.path: str | None = None
        self.socket: Any = None
        self.instance: str | None = None
        self.reg_id: str | None = None
        self.attr: str | None = None
        self.serial = 0
        self.bucket = -1
        self.wake = -1

    def __repr__(self) -> str:
        return f"<Binding {self.aor} -> {self.contact}>"

    def copy(self) -> Binding:
        """Another one with the same values, in no table."""
        made: Binding = Binding.__new__(Binding)
        for name in _VALUES:
            setattr(made, name, getattr(self, name))
        made.bucket = made.wake = -1
        return made

    def take(self, other: Binding) -> None:
        """Get the values of ``other``; the place in the table stays."""
        for name in _VALUES:
            setattr(self, name, getattr(other, name))

    def seconds_left(self, now: float) -> int:
        """Whole seconds until it expires, 1 at least while it is there (for ``;expires=``)."""
        left = int(self.expires - now + 0.5) if self.expires != inf else 2**32 - 1
        return left if left > 0 else 1


_VALUES: Final = tuple(name for name in Binding.__slots__ if name not in ("bucket", "wake"))


class Watcher(Protocol):
    """Whoever wants to know how a table changes; told after each change, of bindings that it must not change itself."""

    def inserted(self, table: LocationTable, binding: Binding, first: bool) -> None:
        """A contact was bound; ``first``: its address-of-record had none."""

    def changed(self, table: LocationTable, binding: Binding) -> None:
        """A binding was refreshed."""

    def removed(self, table: LocationTable, binding: Binding, last: bool) -> None:
        """A binding is gone; ``last``: its address-of-record has none any more."""


class LocationTable:
    """All bindings of one name (``location``).

    ``by_time``: the newest registration comes first instead of the highest q (usrloc's ``desc_time_order``)."""

    watcher: Watcher | None = None
    wakes: bool = False
    """Whether anybody asks ``to_wake``."""
    waits: bool = False
    """Whether changes are made on drafts (``location_drafts.Drafted``)."""
    remote: bool = False
    """Whether nothing is in memory, so that reading needs a draft too."""

    lasts: bool = True
    """Whether what is stored outlives the fall of whatever stores it."""

    def __init__(
        self, name: str = "location", *, tick: float = 60, by_time: bool = False, capacity: int = CAPACITY
    ) -> None:
        self.name = name
        self.tick = tick
        self.by_time = by_time
        self.capacity = capacity
        self.count = 0
        """Bindings that are there, those included that have expired and wait for their sweep."""
        self.expired = 0
        """Bindings that were removed because their time was over, ever."""
        self._records: dict[str, list[Binding]] = {}
        self._values: dict[str, dict[str, str]] = {}
        self._buckets: dict[int, set[Binding]] = {}
        self._wakes: dict[int, set[Binding]] = {}
        self._serial = 0

    # -- reading

    def __len__(self) -> int:
        """How many addresses-of-record are there."""
        return len(self._records)

    def __iter__(self) -> Iterator[tuple[str, tuple[Binding, ...]]]:
        """Each address-of-record that is there when the walk begins, with its bindings when it comes to it.

        The walk may be interrupted and the table be changed meanwhile."""
        for aor in list(self._records):
            record = self._records.get(aor)
            if record:
                yield aor, tuple(record)

    def bindings(self, aor: str) -> Sequence[Binding]:
        """All bindings of ``aor`` in order, expired ones included. Not to be changed."""
        return self._records.get(aor, ())

    def live(self, aor: str, now: float) -> Sequence[Binding]:
        """The bindings of ``aor`` that have not expired, in order; those that have are removed. Not to be changed."""
        record = self._records.get(aor)
        if record is None:
            return ()
        for binding in record:
            if binding.expires <= now:
                break
        else:
            return record
        for binding in [binding for binding in record if binding.expires <= now]:
            self.remove(binding)
            self.expired += 1
        return self._records.get(aor, ())

    # -- the three ways to write

    def insert(self, binding: Binding) -> None:
        """Bind one more contact; ``binding.aor`` says to whom. The caller has seen to ``capacity``."""
        record = self._records.get(binding.aor)
        if record is None:
            record = self._records[binding.aor] = []
        if not binding.serial:
            binding.serial = self.number(binding)
        self.count += 1
        self._place(record, binding)
        self._schedule(binding)
        if self.watcher is not None:
            self.watcher.inserted(self, binding, len(record) == 1)

    def number(self, binding: Binding) -> int:
        """The serial of a binding that is new."""
        self._serial += 1
        return self._serial

    def number_beside(self, binding: Binding, others: Set[int]) -> int:
        """The serial of a binding that is new, where its address-of-record has those of ``others``."""
        return self.number(binding)

    async def work(self, aor: str, now: float, call: Callable[[LocationTable], T]) -> T:
        """Let ``call`` change the bindings of ``aor``: of a table that ``waits``, a draft of them; what it returns."""
        return call(self)

    def state(self, binding: Binding) -> str:
        """OpenSIPS's word for how ``binding`` stands to its row in a database."""
        return "CS_NEW"

    def changed(self, binding: Binding, old_q: int | None = None) -> None:
        """Take note that ``binding``, which is in the table, has new values; ``old_q``: its q before, if that has changed."""
        if self.by_time or (old_q is not None and old_q != binding.q):
            record = self._records[binding.aor]
            if len(record) > 1:
                record.remove(binding)
                self._place(record, binding)
        if binding.bucket != self._bucket_of(binding.expires):
            self._unschedule(binding)
            self._schedule(binding)
        if self.watcher is not None:
            self.watcher.changed(self, binding)

    def remove(self, binding: Binding) -> None:
        """Take ``binding`` out; harmless when it is out already."""
        if binding.bucket == -1:
            return
        self._unschedule(binding)
        self.wake_at(binding, None)
        record = self._records[binding.aor]
        last = len(record) == 1
        if last:
            del self._records[binding.aor]
            self._values.pop(binding.aor, None)
        else:
            record.remove(binding)
        self.count -= 1
        if self.watcher is not None:
            self.watcher.removed(self, binding, last)

    def _place(self, record: list[Binding], binding: Binding) -> None:
        """Put ``binding`` where ``lookup`` shall meet it: behind those whose q is as high, or first of all by time."""
        if self.by_time:
            record.insert(0, binding)
            return
        q = binding.q
        for index, other in enumerate(record):
            if other.q < q:
                record.insert(index, binding)
                return
        record.append(binding)

    # -- expiry

    def _bucket_of(self, expires: float) -> int:
        """The tick by whose end a binding has expired; 0 for one that never does."""
        return 0 if isinf(expires) else int(expires // self.tick) + 1

    def _schedule(self, binding: Binding) -> None:
        number = binding.bucket = self._bucket_of(binding.expires)
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = {binding}
        else:
            bucket.add(binding)

    def _unschedule(self, binding: Binding) -> None:
        bucket = self._buckets[binding.bucket]
        bucket.discard(binding)
        if not bucket:
            del self._buckets[binding.bucket]
        binding.bucket = -1

    def sweep(self, now: float, limit: int = 1000) -> int:
        """Remove what expired before the tick of ``now`` began, ``limit`` bindings at most; returns how many.

        As many as ``limit`` means that there may be more: call again soon."""
        current = int(now // self.tick)
        removed = 0
        for number in [number for number in self._buckets if 0 < number <= current]:
            bucket = self._buckets[number]
            while bucket and removed < limit:
                self.remove(bucket.pop())
                removed += 1
            if removed >= limit:
                break
        self.expired += removed
        return removed

    # -- phones that are to be woken before their binding expires

    def wake_at(self, binding: Binding, at: float | None) -> None:
        """Let ``to_wake`` give ``binding``, which is in the table, once when ``at`` has come; None: not any more."""
        if binding.wake != -1:
            bucket = self._wakes[binding.wake]
            bucket.discard(binding)
            if not bucket:
                del self._wakes[binding.wake]
        binding.wake = -1 if at is None else max(0, int(at))
        if at is not None:
            self._wakes.setdefault(binding.wake, set()).add(binding)

    def to_wake(self, now: float) -> list[Binding]:
        """Take out the bindings whose time to be woken has come, to the second."""
        due: list[Binding] = []
        for second in [second for second in self._wakes if second <= now]:
            for binding in self._wakes.pop(second):
                binding.wake = -1
                due.append(binding)
        return sorted(due, key=lambda binding: binding.serial)

    # -- values that scripts keep with an address-of-record (ul_add_key)

    def values(self, aor: str) -> Mapping[str, str]:
        """The values kept with ``aor`` by name. They go with its last binding."""
        return self._values.get(aor, _NOTHING)

    def keep(self, aor: str, name: str, value: str | None) -> bool:
        """Keep ``value`` with ``aor`` under ``name``, or forget what is there if it is empty; False if it has no binding."""
        if aor not in self._records:
            return False
        if value:
            self._values.setdefault(aor, {})[name] = value
        else:
            values = self._values.get(aor, {})
            values.pop(name, None)
            if not values:
                self._values.pop(aor, None)
        return True


def find_contact(bindings: Sequence[Binding], contact: str, call_id: str | None = None) -> Binding | None:
    """Which of ``bindings`` has ``contact`` as its URI (RFC 3261 19.1.4), and ``call_id`` where one is given.

    Raises ``MalformedMessage`` for a ``contact`` that is no URI, unless one has the very same text."""
    for binding in bindings:
        if binding.contact == contact and (call_id is None or binding.call_id == call_id):
            return binding
    if not bindings:
        return None
    uri = Uri.parse(contact)
    key = binding_key(uri)
    for binding in bindings:
        if binding.key == key and (call_id is None or binding.call_id == call_id) and same_uri(binding.contact, uri):
            return binding
    return None
