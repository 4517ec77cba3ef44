"""domain: which domains the server is responsible for, by the table ``domain``.

With ``db_mode`` 1 the table is read at the start and at ``domain:reload``; a reload that fails changes nothing. With 0 each
question is a query: first for the name as it is written, then in lower case and as the table was last seen to write it.

Names of the table are the server's own (``is_myself``, ``loose_route``), at any port, as in OpenSIPS. Since nobody can wait for a
database there, with ``db_mode`` 0 it is the names of the last ``REFRESH`` seconds that count so."""

from __future__ import annotations

from typing import Any

from sipgw.core.local_domains import LocalDomain, LocalDomains, above, read_domain
from sipgw.db.errors import DatabaseError
from sipgw.exports import BRANCH, FAILURE, LOCAL, REQUEST, Module, Writable, every, function, mi, param
from sipgw.interfaces import Database
from sipgw.mi.jsonrpc import MIError
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage

WHERE = REQUEST | FAILURE | BRANCH | LOCAL
VERSION = 4
REFRESH = 10
"""Seconds after which the names are read again where they are not kept otherwise."""


def check_mode(value: int) -> None:
    """Refuse all but 0 and 1."""
    if value not in (0, 1):
        raise ValueError("must be 0 (ask the database each time) or 1 (keep the table)")


class Domain(Module):
    """Knows which domains are local."""

    db_url: str = param("", "The database; empty: db_default_url")
    db_mode: int = param(0, "0: ask the database each time; 1: keep the table in memory", check=check_mode)
    domain_table: str = param("domain", "The table")
    domain_col: str = param("domain", "The column of the name")
    attrs_col: str = param("attrs", "The column of the attributes")
    accept_subdomain_col: str = param("accept_subdomain", "The column that says whether names below the name are local too")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.domains = LocalDomains()
        self.db: Any = None

    async def start(self) -> None:
        """Read the table."""
        databases = self.server.databases
        self.db = await databases.open(self.db_url)
        await databases.check(self.db, self.domain_table, VERSION)
        await self._load()
        self.server.user.add_names(lambda name: self.domains.find(name) is not None)

    async def _load(self) -> None:
        db: Database = self.db
        rows = await db.select(self.domain_table, self._columns)
        self.domains = LocalDomains(read_domain(row) for row in rows)
        self.server.user.forget_names()

    @property
    def _columns(self) -> list[str]:
        return [self.domain_col, self.attrs_col, self.accept_subdomain_col]

    @every(REFRESH)
    async def refresh(self) -> None:
        """Read the names again, where they are not kept otherwise."""
        if self.db_mode == 0 and self.db is not None:
            try:
                await self._load()
            except DatabaseError as error:
                self.server.user.log_rarely("domain", -1, f"domain: the names stay as they were: {error}")

    # -- in scripts

    @function(WHERE)
    async def is_from_local(self, run: Run, attrs_var: Writable | None = None) -> int:
        """1 if the domain of the From is local, -1 if not, -2 if it cannot be read; ``attrs_var`` receives its attributes."""
        try:
            host = run.message.from_.uri.host
        except MalformedMessage as error:
            run.user.log(-1, f"is_from_local: {error}")
            return -2
        return 1 if await self._is_local(run, host, attrs_var) else -1

    @function(WHERE)
    async def is_uri_host_local(self, run: Run, attrs_var: Writable | None = None) -> bool:
        """Whether the domain of the Request-URI, in a branch route of the branch, is local."""
        try:
            host = run.request_uri.host
        except MalformedMessage as error:
            run.user.log(-1, f"is_uri_host_local: {error}")
            return False
        return await self._is_local(run, host, attrs_var)

    @function(WHERE)
    async def is_domain_local(self, run: Run, domain: str, attrs_var: Writable | None = None) -> bool:
        """Whether ``domain`` is local."""
        return await self._is_local(run, domain, attrs_var)

    async def _is_local(self, run: Run, name: str, attrs_var: Writable | None) -> bool:
        try:
            found = self.domains.find(name) if self.db_mode else await self.ask(name)
        except DatabaseError as error:
            run.user.log_rarely("domain", -1, f"domain: nobody knows whether {name!r} is local, it counts as foreign: {error}")
            return False
        if found is None:
            return False
        if attrs_var is not None and found.attributes is not None:
            attrs_var.set(run, found.attributes)
        return True

    async def ask(self, name: str) -> LocalDomain | None:
        """What the database says of ``name``; ``DatabaseError`` if it cannot be asked."""
        if not name:
            return None
        found = await self._row(name)
        if found is not None:
            return found
        for higher in above(name):
            found = await self._row(higher)
            if found is not None and found.subdomains:
                return found
        return None

    async def _row(self, name: str) -> LocalDomain | None:
        db: Database = self.db
        seen = self.domains.named(name)
        for spelling in dict.fromkeys((name, name.lower(), *(() if seen is None else (seen.name,)))):
            rows = await db.select(self.domain_table, self._columns, {self.domain_col: spelling}, limit=1)
            if len(rows):
                return read_domain(rows[0])
        return None

    # -- management

    @mi()
    async def reload(self) -> None:
        """Reads the table again; what cannot be read stays as it was."""
        self._must_keep()
        try:
            await self._load()
        except DatabaseError as error:
            self.server.user.log(-1, f"domain: the names stay as they were: {error}")
            raise MIError(500, "Domain table reload failed") from None

    @mi()
    def dump(self) -> dict[str, list[dict[str, str]]]:
        """Lists the domains with their attributes."""
        self._must_keep()
        return {"Domains": [_listed(domain) for domain in self.domains.domains]}

    def _must_keep(self) -> None:
        if not self.db_mode:
            raise MIError(500, "DB is disabled (db_mode=0)")


def _listed(domain: LocalDomain) -> dict[str, str]:
    told = {"name": domain.name}
    if domain.attributes is not None:
        told["attributes"] = domain.attributes
    return told
