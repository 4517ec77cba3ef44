"""speeddial: short numbers of users, in a table that is asked each time.

COMPAT: an address without a scheme is one of ``sip:``. One that is no URI then changes nothing (OpenSIPS puts it into the
Request-URI whatever it is). While the database cannot be asked nobody has short numbers, and the log says so."""

from __future__ import annotations

import re
from typing import Any

from sipgw.db.errors import DatabaseError
from sipgw.exports import REQUEST, Module, function, param
from sipgw.interfaces import Database, Value
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri

NEITHER, OWNER, BOTH = 0, 1, 2
_SCHEME = re.compile(r"(sips?|tel|urn):", re.IGNORECASE)


def check_use(value: int) -> None:
    """Refuse all but 0, 1 and 2."""
    if value not in (NEITHER, OWNER, BOTH):
        raise ValueError("must be 0 (no domain counts), 1 (the owner's) or 2 (the owner's and the short number's)")


class Speeddial(Module):
    """Finds the address behind a short number."""

    db_url: str = param("", "The database; empty: db_default_url")
    user_column: str = param("username", "The column of the owner's user")
    domain_column: str = param("domain", "The column of the owner's domain")
    sd_user_column: str = param("sd_username", "The column of the short number")
    sd_domain_column: str = param("sd_domain", "The column of the short number's domain")
    new_uri_column: str = param("new_uri", "The column of the address")
    use_domain: int = param(0, "0: no domain counts; 1: the owner's; 2: the owner's and the Request-URI's", check=check_use)
    domain_prefix: str = param("", "What is taken off a domain, if it begins so, before it is looked for")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.db: Any = None

    async def start(self) -> None:
        """Open the database; each table is named in the script, and of any version."""
        self.db = await self.server.databases.open(self.db_url)

    @function(REQUEST)
    async def sd_lookup(self, run: Run, table: str, owner: str | None = None) -> bool:
        """Put the address of the short number in the Request-URI in its place; false if its owner has none such.

        The owner is the From, or the URI ``owner``."""
        try:
            who = run.message.from_.uri if owner is None else Uri.parse(owner)
            short = run.request_uri
        except MalformedMessage as error:
            run.user.log(-1, f"sd_lookup: {error}")
            return False
        if not who.user or not short.user:
            return False
        where: dict[str, Value] = {self.user_column: who.user, self.sd_user_column: short.user}
        if self.use_domain:
            where[self.domain_column] = self._domain(who)
        if self.use_domain == BOTH:
            where[self.sd_domain_column] = self._domain(short)
        db: Database = self.db
        try:
            rows = await db.select(table, [self.new_uri_column], where, limit=1)
        except DatabaseError as error:
            run.user.log_rarely("sd_lookup", -1, f"sd_lookup: {error}")
            return False
        return len(rows) > 0 and self._take(run, str(rows[0][0] or ""))

    def _domain(self, uri: Uri) -> str:
        prefix = self.domain_prefix
        return uri.host[len(prefix) :] if prefix and uri.host.startswith(prefix) else uri.host

    def _take(self, run: Run, address: str) -> bool:
        text = address if _SCHEME.match(address) else f"sip:{address}"
        try:
            Uri.parse(text)
        except MalformedMessage as error:
            run.user.log(-1, f"sd_lookup: the address {address!r} is no URI: {error}")
            return False
        run.uri = text
        return True
