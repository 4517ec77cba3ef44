"""Location tables with an SQL database behind them: ``WriteThrough``, ``WriteBack`` and ``SqlOnly`` (usrloc's working modes).

The first two have all contacts in memory and read the database once, when they ``load``. A row that has expired is deleted some
time after its contact; each delete says so in its condition, so that it never hits a contact that has come back."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred, DeferredLock, succeed

from sipgw.db.errors import DatabaseError
from sipgw.interfaces import Change
from sipgw.proxy.location import MEMORY_ONLY, Binding, LocationTable
from sipgw.proxy.location_drafts import Draft, Drafted, Fetched, NotStored, Remote
from sipgw.proxy.location_rows import Rows, contact_id, is_ours, kept_values
from sipgw.proxy.location_writer import Writer

__all__ = ["Backing", "SqlOnly", "WriteBack", "WriteThrough"]

SLICE: Final = 5000
"""Rows that are read at once."""
FLUSH: Final = 1000
"""Contacts that are on their way to the database at once."""
SHOWN: Final = 20
"""Rows that cannot be read and are named in the log."""


class Backing(NamedTuple):
    """The database behind tables: how rows look, who writes them; ``deletes``: how many expired ones at once.

    ``match_call_id``: contacts with another Call-ID are others; ``renumber``: give ids that OpenSIPS would not take anew."""

    rows: Rows
    writer: Writer
    deletes: int = 10
    match_call_id: bool = False
    renumber: bool = False


def _same(one: Binding, other: Binding, match_call_id: bool) -> bool:
    return one.contact == other.contact and (not match_call_id or one.call_id == other.call_id)


def _changes(rows: Rows, draft: Draft) -> list[Change]:
    """What must be written for ``draft``."""
    table, values = draft.name, draft.values(draft.aor)
    changes = [rows.delete(table, serial) for serial, binding in draft.gone.items() if not binding.marks & MEMORY_ONLY]
    written = {**draft.altered, **draft.added}
    if draft.kept:
        written.update((binding.serial, binding) for binding in draft.bindings(draft.aor))
    for serial, binding in written.items():
        if not binding.marks & MEMORY_ONLY:
            changes.append(rows.store(table, binding, values))
        elif serial in draft.before and not draft.before[serial].marks & MEMORY_ONLY:
            changes.append(rows.delete(table, serial))
    return changes


class _Numbered(LocationTable):
    """A table whose serials are OpenSIPS's contact ids."""

    def number(self, binding: Binding) -> int:
        """Its contact id."""
        return contact_id(binding.aor, binding.contact, {each.serial for each in self.bindings(binding.aor)})

    def number_beside(self, binding: Binding, others: Set[int]) -> int:
        """Its contact id beside others."""
        return contact_id(binding.aor, binding.contact, others)

    def _order(self, binding: Binding) -> tuple[float, float]:
        """What sorts bindings as they were before they went to the database, as far as that can be known."""
        return (-binding.modified, 0) if self.by_time else (-binding.q, binding.modified)


class _Loading(_Numbered):
    """A table that is filled from the database, and that deletes there what has expired."""

    def __init__(self, name: str, backing: Backing, **options: Any) -> None:
        super().__init__(name, **options)
        self.backing = backing
        self._over: dict[int, None] = {}

    async def load(self) -> int:
        """Take over the rows that have not expired; how many. Rows that cannot be read stay where they are."""
        rows, writer = self.backing.rows, self.backing.writer
        watcher, self.watcher = self.watcher, None
        first = self.count
        last = 0
        bad = 0
        changes: list[Change] = []
        try:
            while True:
                where = [(rows.key, ">", last)]
                found = await writer.database.select(self.name, rows.read, where, order=rows.key, limit=SLICE)
                now = rows.user.clock()
                for row in found:
                    loaded = rows.load(row)
                    if loaded.binding is None:
                        bad += 1
                        if bad <= SHOWN:
                            rows.user.log(1, f"the row {row[0]} of {self.name} is left out: {loaded.why}")  # type: ignore[attr-defined]
                    elif loaded.binding.expires > now:
                        self._take(loaded.binding, loaded.values, changes)
                if len(found) < SLICE:
                    break
                last = found[-1][0]
        finally:
            self.watcher = watcher
        for start in range(0, len(changes), FLUSH):
            await writer.database.batch(changes[start : start + FLUSH])
        return self.count - first

    def _take(self, binding: Binding, values: str | None, changes: list[Change]) -> None:
        """Put one contact that was loaded into the table; ``changes`` gets what is to be written."""
        backing, rows = self.backing, self.backing.rows
        for other in self.bindings(binding.aor):
            if _same(binding, other, backing.match_call_id):
                if other.modified > binding.modified:
                    binding, other = other, binding
                changes.append(rows.delete(self.name, other.serial))
                if binding.bucket != -1:
                    return
                LocationTable.remove(self, other)
                break
        if backing.renumber and not is_ours(binding.serial, binding.aor):
            changes.append(rows.delete(self.name, binding.serial))
            binding.serial = self.number(binding)
            changes.append(rows.store(self.name, binding, kept_values(values)))
        LocationTable.insert(self, binding)
        record = self._records[binding.aor]
        if len(record) > 1:
            record.sort(key=self._order)
        if values and binding.aor not in self._values:
            kept = kept_values(values)
            if kept:
                self._values[binding.aor] = kept

    async def clean(self) -> None:
        """Delete the rows of contacts that have expired, and of those that did while nobody was there."""
        rows, writer = self.backing.rows, self.backing.writer
        while self._over and not writer.failing:
            some = list(self._over)[: self.backing.deletes]
            await writer.write([rows.delete_expired(self.name, serial) for serial in some], _nothing, _nothing)
            for serial in some:
                self._over.pop(serial, None)

    async def delete_leftovers(self) -> None:
        """Delete all rows that have expired."""
        await _delete_expired(self.name, self.backing)

    async def rewrite(self, aor: str | None = None) -> None:
        """Make the database like the memory: for one user, or for all.

        Each share waits until nothing else is on its way, so that it is newer than all that was written before it."""
        rows, writer = self.backing.rows, self.backing.writer
        found = await writer.database.select(self.name, rows.read, {} if aor is None else rows.place(aor))
        extra = {}
        for row in found:
            binding = rows.load(row).binding
            if aor is None or (binding is not None and binding.aor == aor):
                extra[int(row[0])] = "" if binding is None else binding.aor
        aors = list(self._records) if aor is None else [aor]
        for start in range(0, len(aors), FLUSH):
            await writer.drain()
            changes = []
            for name in aors[start : start + FLUSH]:
                for binding in self.bindings(name):
                    if not binding.marks & MEMORY_ONLY:
                        changes.append(rows.store(self.name, binding, self.values(name)))
            await self._write_all(changes)
        await writer.drain()
        await self._write_all(
            [
                rows.delete(self.name, serial)
                for serial, name in extra.items()
                if not any(each.serial == serial and not each.marks & MEMORY_ONLY for each in self.bindings(name))
            ]
        )

    async def _write_all(self, changes: Sequence[Change]) -> None:
        """Write changes that do not belong together."""
        await _all([self.backing.writer.write([each], _nothing, _nothing) for each in changes])


class WriteThrough(_Loading, Drafted):
    """What is in memory is in the database too, and was there first."""

    def failing(self) -> str:
        """Why nothing can be written now."""
        return self.backing.writer.failing

    def state(self, binding: Binding) -> str:
        """What is not in the database is new for ever."""
        return "CS_NEW" if binding.marks & MEMORY_ONLY else "CS_SYNC"

    def remove(self, binding: Binding) -> None:
        """Take out a binding that has expired; all others go with a draft."""
        if binding.bucket != -1 and not binding.marks & MEMORY_ONLY:
            self._over[binding.serial] = None
        super().remove(binding)

    def _store(self, draft: Draft, stored: Callable[[], None], lost: Callable[[], None]) -> Deferred[None]:
        changes = _changes(self.backing.rows, draft)
        if not changes:
            stored()
            return succeed(None)
        return self.backing.writer.write(changes, stored, lost, partial(self._repair, draft))

    def _repair(self, draft: Draft) -> list[Change]:
        """What makes the rows of a draft that was lost like the memory again."""
        rows = self.backing.rows
        there = {each.serial: each for each in self.bindings(draft.aor) if not each.marks & MEMORY_ONLY}
        return [
            rows.store(self.name, there[serial], self.values(draft.aor)) if serial in there else rows.delete(self.name, serial)
            for serial in {**draft.gone, **draft.altered, **draft.added}
        ]


class WriteBack(_Loading):
    """What is in memory gets into the database when ``flush`` is called."""

    def __init__(self, name: str, backing: Backing, **options: Any) -> None:
        super().__init__(name, backing, **options)
        self._dirty: dict[int, Binding | None] = {}
        self._new: set[int] = set()
        self._flushing = DeferredLock()

    def state(self, binding: Binding) -> str:
        """Whether it has a row, and whether that is as it should be."""
        if binding.marks & MEMORY_ONLY or binding.serial in self._new:
            return "CS_NEW"
        return "CS_DIRTY" if binding.serial in self._dirty else "CS_SYNC"

    def insert(self, binding: Binding) -> None:
        """Bind one more contact."""
        super().insert(binding)
        if not binding.marks & MEMORY_ONLY:
            if binding.serial not in self._dirty:
                self._new.add(binding.serial)
            self._dirty[binding.serial] = binding

    def changed(self, binding: Binding, old_q: int | None = None) -> None:
        """Note that ``binding`` has new values."""
        super().changed(binding, old_q)
        self._dirty[binding.serial] = None if binding.marks & MEMORY_ONLY else binding

    def remove(self, binding: Binding) -> None:
        """Take ``binding`` out."""
        if binding.bucket == -1:
            return
        super().remove(binding)
        if binding.serial in self._new:
            self._new.discard(binding.serial)
            self._dirty.pop(binding.serial, None)
        elif not binding.marks & MEMORY_ONLY:
            self._dirty[binding.serial] = None

    def keep(self, aor: str, name: str, value: str | None) -> bool:
        """Keep a value with ``aor``: it is in all its rows."""
        there = super().keep(aor, name, value)
        for binding in self.bindings(aor):
            if not binding.marks & MEMORY_ONLY:
                self._dirty[binding.serial] = binding
        return there

    async def flush(self) -> None:
        """Write what has changed; ``NotStored`` if that cannot be done now: then it is still to be written."""
        await self._flushing.acquire()
        try:
            await self._flush()
        finally:
            self._flushing.release()

    async def _flush(self) -> None:
        rows, writer = self.backing.rows, self.backing.writer
        dirty, self._dirty = self._dirty, {}
        self._new.clear()  # from now on each may have a row
        serials = list(dirty)
        for start in range(0, len(serials), FLUSH):
            written = []
            for serial in serials[start : start + FLUSH]:
                binding = dirty[serial]
                if binding is None:
                    change = rows.delete(self.name, serial)
                else:
                    change = rows.store(self.name, binding, self.values(binding.aor))
                written.append((serial, writer.write([change], _nothing, _nothing)))
            failed: NotStored | None = None
            for serial, answer in written:
                try:
                    await answer
                except NotStored as error:
                    if error.refused:
                        rows.user.log(-1, f"a contact cannot be written: {error}")  # type: ignore[attr-defined]
                    else:
                        failed = error
                        self._dirty.setdefault(serial, dirty[serial])
            if failed is not None:
                for serial in serials[start + FLUSH :]:
                    self._dirty.setdefault(serial, dirty[serial])
                raise failed


class SqlOnly(_Numbered, Remote):
    """Nothing is in memory: several servers may share the table."""

    def __init__(self, name: str, backing: Backing, **options: Any) -> None:
        super().__init__(name, **options)
        self.backing = backing

    def failing(self) -> str:
        """Why nothing can be written now."""
        return self.backing.writer.failing

    def state(self, binding: Binding) -> str:
        """Whatever was read is as it is there."""
        return "CS_SYNC"

    async def _fetch(self, aor: str, now: float) -> Fetched:
        rows, database = self.backing.rows, self.backing.writer.database
        try:
            found = await database.select(self.name, rows.read, rows.place(aor))
        except DatabaseError as error:
            raise NotStored(str(error)) from error
        bindings: list[Binding] = []
        values: dict[str, str] = {}
        for row in found:
            binding, text, _ = rows.load(row)
            if binding is None or binding.aor != aor or binding.expires <= now:  # a database may compare without regard to case
                continue
            for index, other in enumerate(bindings):
                if _same(binding, other, self.backing.match_call_id):
                    bindings[index] = max(binding, other, key=lambda each: each.modified)
                    break
            else:
                bindings.append(binding)
            values = values or kept_values(text)
        bindings.sort(key=self._order)
        return Fetched(bindings, values)

    def _store(self, draft: Draft, stored: Callable[[], None], lost: Callable[[], None]) -> Deferred[None]:
        changes = _changes(self.backing.rows, draft)
        if not changes:
            stored()
            return succeed(None)
        return self.backing.writer.write(changes, stored, lost)

    async def clean(self) -> None:
        """Delete the rows that have expired."""
        await _delete_expired(self.name, self.backing)

    async def records(self) -> dict[str, list[Binding]]:
        """All that is there, for those who want to see it."""
        rows, database = self.backing.rows, self.backing.writer.database
        found: dict[str, list[Binding]] = {}
        last = 0
        while True:
            some = await database.select(self.name, rows.read, [(rows.key, ">", last)], order=rows.key, limit=SLICE)
            now = rows.user.clock()
            for row in some:
                binding = rows.load(row).binding
                if binding is not None and binding.expires > now:
                    found.setdefault(binding.aor, []).append(binding)
            if len(some) < SLICE:
                return found
            last = some[-1][0]


async def _delete_expired(table: str, backing: Backing) -> None:
    """Delete all rows that have expired: by their ids, since to go through a whole table would lock what others write."""
    rows, writer = backing.rows, backing.writer
    serials: list[int] = []
    while True:
        before = serials
        found = await writer.database.select(table, [rows.key], rows.expired(), limit=FLUSH)
        serials = [int(row[0]) for row in found]
        if serials == before:
            return
        parts = [serials[start : start + backing.deletes] for start in range(0, len(serials), backing.deletes)]
        changes = [[rows.delete_expired(table, serial) for serial in part] for part in parts]
        await _all([writer.write(each, _nothing, _nothing) for each in changes])
        if len(serials) < FLUSH:
            return


async def _all(answers: Sequence[Deferred[None]]) -> None:
    """Wait for all of ``answers``; the last failure, if there was one."""
    failed: NotStored | None = None
    for answer in answers:
        try:
            await answer
        except NotStored as error:
            failed = error
    if failed is not None:
        raise failed


def _nothing() -> None:
    pass
