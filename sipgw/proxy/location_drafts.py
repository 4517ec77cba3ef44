"""Changes of a location table that are safe before they are true: each request works on a draft.

A ``Draft`` looks to the registrar like any table, but holds copies of the bindings of one address-of-record, and what is done to
it touches nobody else. ``Drafted.commit`` makes the draft safe first, in a database, and only then applies it to the table. So
a write that fails has changed nothing in memory and needs no undoing; between the two, calls go to the old contacts.

One draft of an address-of-record is open at a time, others stand in line, so that each begins with what the one before it has
left. The line moves on when the outcome is known, not when whoever asked has lost patience: a commit that comes late is applied
all the same, since then it is what the database says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from twisted.internet.defer import Deferred

from sipgw.proxy.location import CAPACITY, Binding, LocationTable

__all__ = ["TRIES", "Conflict", "Draft", "Drafted", "Fetched", "NotStored", "Remote"]

T = TypeVar("T")

LINE: Final = 32
"""How many may stand in line for one address-of-record."""
TRIES: Final = 20
"""How often a change is tried while other servers change the same user."""
LEAST: Final = 5.0
"""Seconds that a binding must have left for its refresh to be answered with those, while nothing can be written."""


class NotStored(Exception):
    """A change is not safe, so it must not be acknowledged. ``refused``: the database does not want it, now or later."""

    def __init__(self, text: str, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class Conflict(NotStored):
    """Another server has changed the same user meanwhile: try ``again`` with what is there now, or ``leave``."""


class Fetched(NamedTuple):
    """What is bound to an address-of-record, its values, and what the table wants to know of it when it is written."""

    bindings: Sequence[Binding]
    values: Mapping[str, str]
    mark: Any = None


class Draft(LocationTable):
    """The bindings of ``aor`` as they shall be; ``bindings`` and ``values`` are what there is now, ``mark`` is the table's own.

    ``added``, ``altered`` and ``gone`` are what is to be written, by serial; ``kept``: the values of scripts have changed."""

    def __init__(
        self,
        table: LocationTable,
        aor: str,
        bindings: Sequence[Binding],
        values: Mapping[str, str],
        entered: bool = True,
        mark: Any = None,
    ) -> None:
        super().__init__(table.name, tick=table.tick, by_time=table.by_time, capacity=table.capacity)
        self.table = table
        self.aor = aor
        self.wakes = table.wakes
        self.entered = entered
        self.mark = mark
        self.added: dict[int, Binding] = {}
        self.altered: dict[int, Binding] = {}
        self.gone: dict[int, Binding] = {}
        self.kept = False
        self.to_be_woken: dict[int, float | None] = {}
        self.before = {binding.serial: binding for binding in bindings}
        if bindings:
            copies = self._records[aor] = [binding.copy() for binding in bindings]
            for each in copies:
                each.bucket = 0
            if values:
                self._values[aor] = dict(values)
        self.count = table.count

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.added or self.altered or self.gone or self.kept)

    def insert(self, binding: Binding) -> None:
        """Bind one more contact."""
        super().insert(binding)
        self.added[binding.serial] = binding

    def changed(self, binding: Binding, old_q: int | None = None) -> None:
        """Note that ``binding`` has new values."""
        super().changed(binding, old_q)
        if binding.serial not in self.added:
            self.altered[binding.serial] = binding

    def remove(self, binding: Binding) -> None:
        """Take a binding out."""
        if binding.bucket == -1:
            return
        super().remove(binding)
        self.altered.pop(binding.serial, None)
        if self.added.pop(binding.serial, None) is None:
            self.gone[binding.serial] = binding

    def keep(self, aor: str, name: str, value: str | None) -> bool:
        """Keep a value with the user."""
        self.kept = super().keep(aor, name, value) or self.kept
        return aor in self._records

    def number(self, binding: Binding) -> int:
        """A serial that the table would give."""
        return self.table.number_beside(binding, {*self.before, *self.added})

    def wake_at(self, binding: Binding, at: float | None) -> None:
        """Note when ``binding`` is to be woken."""
        self.to_be_woken[binding.serial] = at

    def _bucket_of(self, expires: float) -> int:
        return 0

    def _schedule(self, binding: Binding) -> None:
        binding.bucket = 0

    def _unschedule(self, binding: Binding) -> None:
        binding.bucket = -1

    def promises_nothing(self, now: float) -> bool:
        """Whether it only makes bindings last longer that will last for a while anyway: then it may be forgotten, and answered
        with the time that is left."""
        if self.added or self.gone or self.kept or not self.table.lasts:
            return False
        for serial, wished in self.altered.items():
            there = self.before[serial]
            if not now + LEAST < there.expires <= wished.expires:
                return False
            if any(getattr(there, name) != getattr(wished, name) for name in _PROMISED):
                return False
        return True


_PROMISED: Final = (
    "contact", "q", "received", "path", "socket", "flags", "marks", "methods", "instance", "attr",
)  # fmt: skip


class Drafted(LocationTable):
    """A table whose changes are drafts, made safe by ``_store``. ``broken(error)`` is told of bugs."""

    waits = True

    def __init__(self, name: str, *, broken: Callable[[BaseException], None], **options: Any) -> None:
        super().__init__(name, **options)
        self._broken = broken
        self._turns: dict[str, list[Deferred[None]]] = {}

    # -- what a subclass says

    async def _fetch(self, aor: str, now: float) -> Fetched:
        """What is bound to ``aor``; ``NotStored`` if that cannot be found out."""
        return Fetched(self.live(aor, now), self.values(aor))

    def _store(self, draft: Draft, stored: Callable[[], None], lost: Callable[[], None]) -> Deferred[None]:
        """Make ``draft`` safe: call ``stored`` or ``lost`` when that is known, once; fire, or ``NotStored``, then or before.

        Of a ``Conflict`` neither is told."""
        raise NotImplementedError

    def failing(self) -> str:
        """Why nothing can be made safe now; empty if it can, as far as is known."""
        return ""

    # -- drafts

    async def draft(self, aor: str, now: float) -> Draft:
        """Open a draft, after those that are open; ``NotStored`` if there are too many. It must be committed or left."""
        entered = not self.failing()
        if entered:
            await self._enter(aor)
        try:
            found = await self._fetch(aor, now)
            return Draft(self, aor, found.bindings, found.values, entered, found.mark)
        except BaseException:
            if entered:
                self._next(aor)
            raise

    async def again(self, draft: Draft, now: float) -> Draft:
        """Begin anew after a ``Conflict``, still the first in line."""
        entered, draft.entered = draft.entered, False
        try:
            found = await self._fetch(draft.aor, now)
        except BaseException:
            if entered:
                self._next(draft.aor)
            raise
        return Draft(self, draft.aor, found.bindings, found.values, entered, found.mark)

    async def commit(self, draft: Draft) -> None:
        """Make ``draft`` safe and then true; ``NotStored`` if that cannot be said (it may yet become true)."""
        if draft.is_empty:
            self.leave(draft)
            return
        if not draft.entered:
            raise NotStored(self.failing() or "the database was away a moment ago")

        def stored() -> None:
            try:
                self._apply(draft)
            except Exception as error:
                self._broken(error)
            self.leave(draft)

        await self._store(draft, stored, lambda: self.leave(draft))

    def leave(self, draft: Draft) -> None:
        """Forget ``draft``; the next one may begin."""
        if draft.entered:
            draft.entered = False
            self._next(draft.aor)

    async def work(self, aor: str, now: float, call: Callable[[LocationTable], T]) -> T:
        """Let ``call`` change the bindings of ``aor``; what it returns, once that is safe. ``NotStored`` if it is not."""
        draft = await self.draft(aor, now)
        tried = 1
        while True:
            try:
                result = call(draft)
            except BaseException:
                self.leave(draft)
                raise
            try:
                await self.commit(draft)
                return result
            except Conflict:
                if tried >= TRIES:
                    self.leave(draft)
                    raise
            tried += 1
            draft = await self.again(draft, now)

    async def _enter(self, aor: str) -> None:
        line = self._turns.get(aor)
        if line is None:
            self._turns[aor] = []
            return
        if len(line) >= LINE:
            raise NotStored(f"{LINE} changes of {aor} wait already")
        mine: Deferred[None] = Deferred()
        line.append(mine)
        await mine

    def _next(self, aor: str) -> None:
        line = self._turns[aor]
        if line:
            line.pop(0).callback(None)
        else:
            del self._turns[aor]

    # -- applying

    def _apply(self, draft: Draft) -> None:
        """Do to this table what was done to ``draft``."""
        there = {binding.serial: binding for binding in self.bindings(draft.aor)}
        for serial in draft.gone:
            if serial in there:
                LocationTable.remove(self, there[serial])
        for serial, wished in draft.altered.items():
            real = there.get(serial)
            if real is None:  # it has expired meanwhile
                self.insert(wished)
                continue
            old_q = real.q
            real.take(wished)
            self.changed(real, old_q)
        for binding in draft.added.values():
            self.insert(binding)
        for serial, at in draft.to_be_woken.items():
            found = draft.added.get(serial) or there.get(serial) or draft.altered.get(serial)
            if found is not None and found.bucket != -1:
                self.wake_at(found, at)
        if draft.kept and draft.aor in self._records:
            self._values[draft.aor] = dict(draft.values(draft.aor))
            if not self._values[draft.aor]:
                del self._values[draft.aor]


class Remote(Drafted):
    """A table of which nothing is in memory: reading needs a draft, or a ``view``."""

    remote = True

    def __init__(self, name: str, *, broken: Callable[[BaseException], None], **options: Any) -> None:
        super().__init__(name, broken=broken, **{"capacity": CAPACITY, **options})

    async def view(self, aors: Sequence[str], now: float) -> LocationTable:
        """A table with the bindings of ``aors``, to be read."""
        made = LocationTable(self.name, tick=self.tick, by_time=self.by_time)
        for aor in dict.fromkeys(aors):
            found = await self._fetch(aor, now)
            for binding in found.bindings:
                made.insert(binding)
            for name, value in found.values.items():
                made.keep(aor, name, value)
        return made

    async def records(self) -> Mapping[str, Sequence[Binding]]:
        """All that is there, for those who want to see it."""
        raise NotImplementedError

    def _apply(self, draft: Draft) -> None:
        """Tell of what was done."""
        watcher = self.watcher
        if watcher is None:
            return
        left = [each for each in draft.before if each not in draft.gone]
        for number, binding in enumerate(draft.gone.values(), 1):
            watcher.removed(self, binding, number == len(draft.gone) and not left and not draft.added)
        for binding in draft.altered.values():
            watcher.changed(self, binding)
        for number, binding in enumerate(draft.added.values()):
            watcher.inserted(self, binding, number == 0 and not draft.before)
