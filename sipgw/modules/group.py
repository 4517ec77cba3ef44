"""group: who is in which group, by a table of users, by a table of patterns that their URIs match, or by an AAA server (RADIUS).

The table of users, and the server, are asked each time. The patterns are read at the start; one that is none ends it. COMPAT:
they are tried from the last row to the first; ``db_is_user_in`` gives -6 for who is not in the group, -5 if the database fails,
-1 where nobody is named, ``aaa_is_user_in`` -12 for who is not and where the server fails, -4 without authorized credentials."""

from __future__ import annotations

from typing import Any, NamedTuple

from sipgw.aaa import Aaa, AaaError
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
NOT_IN, FAILED, UNKNOWN = -6, -5, -1
NOBODY, NOT_SAID = -4, -12


class Member(NamedTuple):
    """Whom a function asks about."""

    user: str
    domain: str


class Group(Module):
    """Knows who is in which group."""

    aaa_url: str = param("", "The AAA server for aaa_is_user_in: radius:/path/of/radiusclient.conf")
    db_url: str = param("", "The database; empty: db_default_url, and none where there is an aaa_url and neither of these")
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
        self.aaa: Aaa | None = None
        self.patterns: list[tuple[Pattern, int]] = []

    async def start(self) -> None:
        """Open the database and read the patterns."""
        if self.aaa_url:
            try:
                self.aaa = await self.server.user.aaa.open(self.aaa_url)
                names = ["User-Name", "Sip-Group", "Service-Type", "Acct-Session-Id"]
                self.aaa.check(names, [("Service-Type", "Group-Check")])
            except AaaError as error:
                raise ValueError(f"aaa_url: {error}") from None
            if not self.db_url and not self.server.user.globals.get("db_default_url"):
                return
        databases = self.server.databases
        self.db = await databases.open(self.db_url)
        await databases.check(self.db, self.table, GROUP_VERSION)
        if self.re_table:
            await databases.check(self.db, self.re_table, PATTERN_VERSION)
            rows = await self.db.select(self.re_table, [self.re_exp_column, self.re_gid_column])
            self.patterns = [_pattern(self.re_table, *row) for row in rows][::-1]

    @function(WHERE)
    async def db_is_user_in(self, run: Run, uri: str, group: str) -> int:
        """1 if a user is in ``group``, -6 if not, -5 if the database cannot be asked, -1 if nobody is named.

        ``uri`` is "Request-URI", "To", "From", "Credentials" (by which the sender was authorized), or a URI."""
        who = self._who(run, "db_is_user_in", uri)
        if who is None:
            return UNKNOWN
        where: dict[str, Value] = {self.user_column: who.user, self.group_column: group}
        if self.use_domain:
            where[self.domain_column] = who.domain
        db: Database | None = self.db
        if db is None:
            run.user.log_rarely("db_is_user_in", -1, "db_is_user_in: there is no database: set db_url")
            return UNKNOWN
        try:
            rows = await db.select(self.table, [self.group_column], where, limit=1)
        except DatabaseError as error:
            run.user.log_rarely("db_is_user_in", -1, f"db_is_user_in: {error}")
            return FAILED
        return 1 if len(rows) else NOT_IN

    @function(WHERE)
    async def aaa_is_user_in(self, run: Run, uri: str, group: str) -> int:
        """1 if the AAA server says that a user is in ``group``, -12 if it does not, -4 without credentials, -1 without a user.

        ``uri`` as for ``db_is_user_in``."""
        if self.aaa is None:
            run.user.log_rarely("aaa_is_user_in", -1, "aaa_is_user_in: there is no AAA server: set aaa_url")
            return UNKNOWN
        who = self._who(run, "aaa_is_user_in", uri)
        if who is None:
            return NOBODY if uri.lower() == "credentials" and authorized(run) is None else UNKNOWN
        name = f"{who.user}@{who.domain}" if self.use_domain else who.user
        attributes = [("User-Name", name), ("Sip-Group", group), ("Service-Type", "Group-Check")]
        try:
            answer = await self.aaa.authenticate([*attributes, ("Acct-Session-Id", run.message.call_id)])
        except AaaError as error:
            run.user.log_rarely("aaa_is_user_in", -1, f"aaa_is_user_in: {error}")
            return NOT_SAID
        if not answer.accepted:
            return NOT_SAID
        for avp, value in answer.avps():
            run.avps.setdefault(avp, []).append(value)
        return 1

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
