"""group: who is in which group, by a table of users, and by a table of patterns that their URIs match.

The table of users is asked each time. The patterns are read at the start; one that is none ends it. COMPAT: they are tried from
the last row to the first; ``db_is_user_in`` gives -6 for who is not in the group and -1 where nobody knows."""

from __future__ import annotations

from typing import Any, NamedTuple

from sipgw.db.errors import DatabaseError
from sipgw.exports import BRANCH, FAILURE, LOCAL, REQUEST, Avp, Module, Pattern, function, param
from sipgw.interfaces import Database, Value
from sipgw.modules.auth_db import identity
from sipgw.proxy.authentication import authorized
from sipgw.script.regex import BadPattern, compile_regex
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri

WHERE = REQUEST | FAILURE | BRANCH | LOCAL
GROUP_VERSION, PATTERN_VERSION = 3, 2
NOT_IN, UNKNOWN = -6, -1


class Member(NamedTuple):
    """Whom a function asks about."""

    user: str
    domain: str


class Group(Module):
    """Knows who is in which group."""

    later = {"aaa_url": "groups of an AAA server need its client, which comes in a later version of sipgw: use db_url"}

    db_url: str = param("", "The database; empty: db_default_url")
    table: str = param("grp", "The table of users and groups")
    user_column: str = param("username", "The column of the user")
    domain_column: str = param("domain", "The column of the user's domain")
    group_column: str = param("grp", "The column of the group")
    use_domain: int = param(1, "Whether the user's domain counts: 0 or 1")
    re_table: str = param("", "The table of patterns; empty: there are none")
    re_exp_column: str = param("reg_exp", "The column of the pattern")
    re_gid_column: str = param("group_id", "The column of the number of its group")
    multiple_gid: int = param(1, "1: all patterns count; 0: the first that matches")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.db: Any = None
        self.patterns: list[tuple[Pattern, int]] = []

    async def start(self) -> None:
        """Open the database and read the patterns."""
        databases = self.server.databases
        self.db = await databases.open(self.db_url)
        await databases.check(self.db, self.table, GROUP_VERSION)
        if self.re_table:
            await databases.check(self.db, self.re_table, PATTERN_VERSION)
            rows = await self.db.select(self.re_table, [self.re_exp_column, self.re_gid_column])
            self.patterns = [_pattern(self.re_table, *row) for row in rows][::-1]

    @function(WHERE)
    async def db_is_user_in(self, run: Run, uri: str, group: str) -> int:
        """1 if a user is in ``group``, -6 if not, -1 if nobody knows.

        ``uri`` is "Request-URI", "To", "From", "Credentials" (by which the sender was authorized), or a URI."""
        who = self._who(run, "db_is_user_in", uri)
        if who is None:
            return UNKNOWN
        where: dict[str, Value] = {self.user_column: who.user, self.group_column: group}
        if self.use_domain:
            where[self.domain_column] = who.domain
        db: Database = self.db
        try:
            rows = await db.select(self.table, [self.group_column], where, limit=1)
        except DatabaseError as error:
            run.user.log_rarely("db_is_user_in", -1, f"db_is_user_in: {error}")
            return UNKNOWN
        return 1 if len(rows) else NOT_IN

    @function(WHERE)
    def db_get_user_group(self, run: Run, uri: str, output_avp: Avp) -> int:
        """Add the numbers of the groups whose patterns match a user's URI to ``output_avp``; how many they are, -1 if none is.

        ``uri`` as for ``db_is_user_in``."""
        if not self.re_table:
            run.user.log_rarely("db_get_user_group", -1, "db_get_user_group: there are no patterns: set re_table")
            return UNKNOWN
        who = self._who(run, "db_get_user_group", uri)
        if who is None:
            return UNKNOWN
        text = f"sip:{who.user}@{who.domain}"
        found = 0
        for pattern, group in self.patterns:
            if pattern.search(text):
                output_avp.set(run, group)
                found += 1
                if not self.multiple_gid:
                    break
        return found or UNKNOWN

    def _who(self, run: Run, what: str, text: str) -> Member | None:
        """Whom ``text`` names."""
        name = text.lower()
        try:
            if name == "credentials":
                credentials = authorized(run)
                if credentials is None:
                    run.user.log_rarely(what, -1, f"{what}: the sender was not authorized")
                    return None
                return Member(*identity(credentials))
            if name == "request-uri":
                uri = run.request_uri
            elif name == "to":
                uri = run.message.to.uri
            elif name == "from":
                uri = run.message.from_.uri
            else:
                uri = Uri.parse(text)
        except MalformedMessage as error:
            run.user.log(-1, f"{what}: {text!r}: {error}")
            return None
        if not uri.user:
            run.user.log_rarely(what, 1, f"{what}: the URI has no user")
            return None
        return Member(uri.user, uri.host)


def _pattern(table: str, text: Any, group: Any) -> tuple[Pattern, int]:
    try:
        return compile_regex(str(text)), int(group)
    except BadPattern as error:
        raise ValueError(f"{table}: bad pattern {text!r}: {error}") from None
