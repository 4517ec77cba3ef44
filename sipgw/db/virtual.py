"""Several databases that look like one, ``virtual://set``.

FAILOVER asks one of them until it is down, then the next, and stays there. ROUND asks the next one each time. PARALLEL changes
all of them, and is content if one of them did it; it reads from one. A database is down when it cannot be asked
(``Unavailable``): a statement that it refuses says nothing about it, and would be refused by the others too. COMPAT: OpenSIPS
takes any failure for a database that is down, so that one bad statement of a script takes them all away.

One that is down is tried by a probe. One that comes and goes ``retries`` times without doing anything useful in between is left
alone until somebody says otherwise (``db_virtual:set``)."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import ensureDeferred

from sipgw.db.databases import hide_password
from sipgw.db.errors import DatabaseError, Refused, Unavailable, Unsupported
from sipgw.interfaces import Change, Database, Rows, Value, Where

__all__ = ["Member", "Mode", "VirtualDatabase"]

T = TypeVar("T")


class Mode(enum.Enum):
    """How the databases of a set are used."""

    FAILOVER = "FAILOVER"
    PARALLEL = "PARALLEL"
    ROUND = "ROUND"


class Member:
    """One database of a set. ``can``: it was there when it was last asked; ``may``: whether it may be asked at all; ``stubborn``:
    whether it is tried however often it fails."""

    def __init__(self, url: str, retries: int) -> None:
        self.url = url
        self.name = hide_password(url)
        self.database: Database | None = None
        self.can = True
        self.may = True
        self.stubborn = False
        self.retries = retries
        self.left = retries
        """How often it may fail yet before it is left alone."""


class VirtualDatabase:
    """The databases of one set (``interfaces.Database``). ``open(url)`` opens one, ``log(level, text)`` tells of it."""

    def __init__(
        self,
        name: str,
        mode: Mode,
        members: Sequence[Member],
        open_database: Callable[[str], Awaitable[Database]],
        log: Callable[[int, str], None],
    ) -> None:
        self.name = f"virtual://{name}"
        self.set_name = name
        self.mode = mode
        self.members = members
        self._open = open_database
        self._log = log
        self._current = 0
        self._probing = False

    @property
    def dialect(self) -> str:
        """That of its databases, since what is quoted and asked is meant for them; "virtual" if they differ."""
        found = {member.database.dialect for member in self.members if member.database is not None}
        return found.pop() if len(found) == 1 else "virtual"

    async def start(self) -> None:
        """Open all that can be opened; those that are down may come later."""
        for member in self.members:
            if member.database is None:
                try:
                    member.database = await self._open(member.url)
                except Unavailable as error:
                    self._fell(member, error)

    async def probe(self) -> None:
        """Try those that are down."""
        if self._probing:
            return
        self._probing = True
        try:
            for member in self.members:
                if not member.can and member.may and (member.stubborn or member.left > 0):
                    await self._try(member)
        finally:
            self._probing = False

    async def _try(self, member: Member) -> None:
        try:
            if member.database is None:
                member.database = await self._open(member.url)
            else:
                await member.database.query("SELECT 1")
        except (Refused, Unsupported):
            pass  # it answers
        except DatabaseError:
            return
        member.can = True
        self._log(2, f"{self.name}: {member.name} is back")

    def allow(self, member: Member, may: bool, stubborn: bool) -> None:
        """Say whether a database may be asked, and whether its failures are forgotten."""
        member.may, member.stubborn = may, stubborn
        if stubborn:
            member.left = member.retries

    def _fell(self, member: Member, error: DatabaseError) -> None:
        if member.can:
            member.can = False
            member.left -= 1
            self._log(-1, f"{self.name}: {member.name} is down: {error}")
            if member.left <= 0 and not member.stubborn:
                self._log(-1, f"{self.name}: {member.name} is not tried any more: db_virtual:set allows it again")

    # ---- which one ----

    async def _one(self, ask: Callable[[Database], Awaitable[T]]) -> T:
        """Ask one database, and the next ones while they are down."""
        count = len(self.members)
        if self.mode is Mode.ROUND:
            self._current = (self._current + 1) % count
        first = self._current
        why: DatabaseError = Unavailable(f"{self.name}: all its databases are down")
        for step in range(count):
            index = (first + step) % count
            member = self.members[index]
            if not (member.can and member.may) or member.database is None:
                continue
            try:
                found = await ask(member.database)
            except Unavailable as error:
                why = error
                self._fell(member, error)
                continue
            except DatabaseError:
                member.left = member.retries
                raise
            member.left = member.retries
            if self.mode is not Mode.ROUND:
                self._current = index
            return found
        raise why

    async def _all(self, ask: Callable[[Database], Awaitable[T]]) -> T:
        """Ask all databases at once; what the first of them said that did it."""
        if self.mode is not Mode.PARALLEL:
            return await self._one(ask)

        async def attempt(member: Member, database: Database) -> tuple[T | None, DatabaseError | None]:
            try:
                done = await ask(database)
            except Unavailable as error:
                self._fell(member, error)
                return None, error
            except DatabaseError as error:
                return None, error
            member.left = member.retries
            return done, None

        usable = [(each, each.database) for each in self.members if each.can and each.may]
        begun = [ensureDeferred(attempt(member, database)) for member, database in usable if database is not None]
        found = [await each for each in begun]
        done: list[Any] = [value for value, error in found if error is None]
        errors = [error for _, error in found if error is not None]
        if done:
            for error in errors:
                self._log(-1, f"{self.name}: a change was made in {len(done)} of {len(self.members)} databases: {error}")
            return done[0]  # type: ignore[no-any-return]
        refused = [error for error in errors if not isinstance(error, Unavailable)]
        raise [*refused, *errors, Unavailable(f"{self.name}: all its databases are down")][0]

    # ---- interfaces.Database ----

    async def select(
        self, table: str, columns: Sequence[str] = (), where: Where = (), *, order: str = "", limit: int = 0
    ) -> Rows:
        """The rows of ``table`` in one of them."""
        return await self._one(lambda database: database.select(table, columns, where, order=order, limit=limit))

    async def insert(self, table: str, values: Mapping[str, Value]) -> None:
        """Add one row."""
        await self._all(lambda database: database.insert(table, values))

    async def update(self, table: str, values: Mapping[str, Value], where: Where) -> int:
        """Change rows; how many, in the first of them."""
        return await self._all(lambda database: database.update(table, values, where))

    async def delete(self, table: str, where: Where) -> int:
        """Delete rows; how many, in the first of them."""
        return await self._all(lambda database: database.delete(table, where))

    async def replace(self, table: str, values: Mapping[str, Value], keys: Sequence[str]) -> None:
        """Add one row, or change the one that has the same ``keys``."""
        await self._all(lambda database: database.replace(table, values, keys))

    async def batch(self, changes: Sequence[Change]) -> None:
        """Do all of ``changes``, or none, in each of them."""
        await self._all(lambda database: database.batch(changes))

    async def query(self, text: str, values: Sequence[Value] = ()) -> Rows:
        """Run a statement in one of them; COMPAT: in PARALLEL, too, whether it changes something or not."""
        return await self._one(lambda database: database.query(text, values))

    def quote(self, text: str) -> str:
        """``text`` as it may stand between quotes in a statement for any of them."""
        for member in self.members:
            if member.database is not None:
                text_of = member.database.quote(text)
                return text_of
        return text.replace("'", "''")
