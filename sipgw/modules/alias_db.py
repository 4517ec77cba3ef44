"""alias_db: other names of users, in a table that is asked each time.

A row without user or domain is none. While the database cannot be asked nobody has another name, and the log says so."""

from __future__ import annotations

from typing import Annotated, Any

from sipgw.db.errors import DatabaseError
from sipgw.exports import (
    BRANCH,
    FAILURE,
    LOCAL,
    ONREPLY,
    REQUEST,
    STARTUP,
    Module,
    Writable,
    function,
    param,
)
from sipgw.interfaces import Database, Value
from sipgw.script.run import Branch, Run
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri


def check_flags(text: str) -> str:
    """Refuse all but d and r."""
    for flag in text:
        if flag not in "dr":
            raise ValueError(f"unknown flag {flag!r}: write d (whatever the domain) or r (from the URI to its alias)")
    return text


class AliasDb(Module):
    """Finds who is behind another name."""

    name = "alias_db"

    db_url: str = param("", "The database; empty: db_default_url")
    user_column: str = param("username", "The column of the user")
    domain_column: str = param("domain", "The column of his domain")
    alias_user_column: str = param("alias_username", "The column of the other name's user")
    alias_domain_column: str = param("alias_domain", "The column of the other name's domain")
    domain_prefix: str = param("", "What is taken off the domain, if it begins so, before it is looked for")
    append_branches: int = param(0, "1: if several users are found the others become branches")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.db: Any = None

    async def start(self) -> None:
        """Open the database; each table is named in the script, and of any version."""
        self.db = await self.server.databases.open(self.db_url)

    @function(REQUEST | FAILURE)
    async def alias_db_lookup(self, run: Run, table_name: str, flags: Annotated[str, check_flags] | None = None) -> bool:
        """Put who is behind the Request-URI in its place; false if it is no other name of anybody.

        ``flags``: ``d`` whatever its domain, ``r`` look for the other name of the Request-URI instead."""
        found = await self._find(run, "alias_db_lookup", table_name, run.uri, flags)
        if not found:
            return False
        run.uri = found[0]
        run.branches += [Branch(uri) for uri in found[1:]]
        return True

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL | STARTUP)
    async def alias_db_find(
        self,
        run: Run,
        table_name: str,
        input_uri: str,
        output_var: Writable,
        flags: Annotated[str, check_flags] | None = None,
    ) -> bool:
        """Give ``output_var`` who is behind ``input_uri``; false if nobody is. With ``append_branches`` all of them."""
        found = await self._find(run, "alias_db_find", table_name, input_uri, flags)
        for uri in found:
            output_var.set(run, uri)
        return bool(found)

    async def _find(self, run: Run, what: str, table: str, text: str, flags: str | None) -> list[str]:
        """The URIs that a table has for a URI."""
        try:
            uri = Uri.parse(text)
            flags = check_flags(flags or "")
        except (MalformedMessage, ValueError) as error:
            run.user.log(-1, f"{what}: {text!r}: {error}")
            return []
        names, aliases = [self.user_column, self.domain_column], [self.alias_user_column, self.alias_domain_column]
        given, wanted = (names, aliases) if "r" in flags else (aliases, names)
        where: dict[str, Value] = {given[0]: uri.user or ""}
        if "d" not in flags:
            prefix = self.domain_prefix
            where[given[1]] = uri.host[len(prefix) :] if prefix and uri.host.startswith(prefix) else uri.host
        db: Database = self.db
        try:
            rows = await db.select(table, wanted, where, limit=0 if self.append_branches else 1)
        except DatabaseError as error:
            run.user.log_rarely(what, -1, f"{what}: {error}")
            return []
        return [f"sip:{user}@{domain}" for user, domain in rows if user and domain]
