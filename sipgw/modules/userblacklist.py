"""userblacklist: numbers that nobody may call (``globalblacklist``), or that one user may not (``userblacklist``).

A row forbids, or allows (``whitelist``), all numbers that begin with its digits; the longest row counts. Of a number only the
digits count, whatever stands between them; a row that has anything else is left out, and the log says so.

The tables of all users are kept in memory, each from its first use on, and read again at ``userblacklist:reload``. That of single
users is asked each time. While the database cannot be asked, a list that is not known forbids everything (COMPAT)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sipgw.db.errors import DatabaseError
from sipgw.exports import FAILURE, REQUEST, Module, function, mi, param
from sipgw.interfaces import Database, Value
from sipgw.mi.jsonrpc import MIError
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage

VERSION = 2
MAX_TABLES = 100
"""How many tables of all users are kept: their names may come from messages."""


class Prefixes:
    """Numbers by their beginnings: true for those that are allowed."""

    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._allowed: dict[str, bool] = {}
        self._longest = 0
        self.faults: list[str] = []
        for prefix, allowed in rows:
            digits = str(prefix or "").strip()
            if digits and not (digits.isascii() and digits.isdigit()):
                self.faults.append(digits)
                continue
            self._allowed[digits] = bool(allowed)
            self._longest = max(self._longest, len(digits))

    def __len__(self) -> int:
        return len(self._allowed)

    def allows(self, number: str) -> bool:
        """Whether ``number`` may be called."""
        digits = "".join(each for each in number if "0" <= each <= "9")
        for length in range(min(len(digits), self._longest), -1, -1):
            found = self._allowed.get(digits[:length])
            if found is not None:
                return found
        return True


class Userblacklist(Module):
    """Knows which numbers may not be called."""

    db_url: str = param("", "The database; empty: db_default_url")
    db_table: str = param("userblacklist", "The table of single users")
    use_domain: int = param(1, "Whether the user's domain counts: 0 or 1")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.db: Any = None
        self.lists: dict[str, Prefixes] = {}

    async def start(self) -> None:
        """Open the database."""
        databases = self.server.databases
        self.db = await databases.open(self.db_url)
        await databases.check(self.db, self.db_table, VERSION)

    @function(REQUEST | FAILURE)
    async def check_user_blacklist(
        self, run: Run, user: str, domain: str, number: str | None = None, table: str | None = None
    ) -> bool:
        """Whether a user may call the user of the Request-URI, or ``number``, by his own rows in ``db_table`` or ``table``."""
        if number is None:
            number = self._called(run, "check_user_blacklist")
        if number is None:
            return False
        where: dict[str, Value] = {"username": user}
        if self.use_domain:
            where["domain"] = domain
        db: Database = self.db
        try:
            rows = Prefixes(await db.select(table or self.db_table, ["prefix", "whitelist"], where))
        except DatabaseError as error:
            run.user.log_rarely("check_user_blacklist", -1, f"check_user_blacklist: {error}")
            return False
        self._tell(rows, table or self.db_table)
        return rows.allows(number)

    @function(REQUEST | FAILURE)
    async def check_blacklist(self, run: Run, table: str) -> bool:
        """Whether anybody may call the user of the Request-URI, by the rows of ``table``."""
        number = self._called(run, "check_blacklist")
        if number is None:
            return False
        rows = self.lists.get(table)
        if rows is None:
            if len(self.lists) >= MAX_TABLES:
                run.user.log_rarely("check_blacklist", -1, f"check_blacklist: {MAX_TABLES} tables are known, {table!r} is not")
                return False
            try:
                rows = await self._load(table, True)
            except DatabaseError as error:
                run.user.log_rarely("check_blacklist", -1, f"check_blacklist: {error}")
                return False
        return rows.allows(number)

    def _called(self, run: Run, what: str) -> str | None:
        """The user of the Request-URI."""
        try:
            user = run.request_uri.user
        except MalformedMessage as error:
            run.user.log(-1, f"{what}: {error}")
            return None
        if user is None:
            run.user.log_rarely(what, 1, f"{what}: the Request-URI has no user")
        return user

    async def _load(self, table: str, first: bool) -> Prefixes:
        db: Database = self.db
        if first:
            await self.server.databases.check(db, table, VERSION)
        rows = Prefixes(await db.select(table, ["prefix", "whitelist"]))
        self._tell(rows, table)
        self.lists[table] = rows
        return rows

    def _tell(self, rows: Prefixes, table: str) -> None:
        if rows.faults:
            text = f"userblacklist: {len(rows.faults)} rows of {table} are left out, {rows.faults[0]!r} has not only digits"
            self.server.user.log_rarely(("userblacklist", table), -1, text)

    @mi(alias="reload_blacklist")
    async def reload(self) -> None:
        """Reads the tables of all users again; what cannot be read stays as it was."""
        try:
            for table in list(self.lists):
                await self._load(table, False)
        except DatabaseError as error:
            self.server.user.log(-1, f"userblacklist: the tables stay as they were: {error}")
            raise MIError(500, "cannot reload blacklist") from None
