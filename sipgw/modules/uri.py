"""uri: the retired module of OpenSIPS 2, for scripts that still load it; today's functions are those of auth_db and sipmsgops.

Without ``use_uri_table`` the names in To and From must be that of the credentials, and no database is asked: this is the
simplest way to keep one user from registering, or calling, as another."""

from __future__ import annotations

from typing import Any

from sipgw.db.errors import DatabaseError
from sipgw.exports import FAILURE, LOCAL, REQUEST, Module, Writable, function, param, requires
from sipgw.modules.auth import Auth
from sipgw.modules.auth_db import FAILED, NO_ROW, NOBODY, NOTHING, SUBSCRIBER_VERSION, URI_VERSION, Tables, check_column, identity
from sipgw.proxy.authentication import authorized
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri


class UriModule(Module):
    """Compares the names in a request with the credentials by which its sender was authorized."""

    name = "uri"
    later = dict.fromkeys(("aaa_url", "service_type", "use_sip_uri_host"), "aaa_does_uri_exist() is a function of auth_aaa now")

    auth: Auth | None = requires("auth", optional=True)

    db_url: str = param("", "The database; db_default_url if empty")
    db_table: str = param("", "The table; uri with use_uri_table, else subscriber, if empty")
    user_column: str = param("username", "The user", check=check_column)
    domain_column: str = param("domain", "His domain", check=check_column)
    uriuser_column: str = param("uri_user", "The user of URIs that he may use", check=check_column)
    use_uri_table: int = param(0, "1: who may use which name stands in a table; 0: everybody his own")
    use_domain: int = param(0, "Whether the domain counts: 0 or 1")

    async def start(self) -> None:
        """Open the database, if there is one."""
        self.tables: Tables | None = None
        if self.db_url or self.server.user.globals.get("db_default_url"):
            self.tables = Tables(self, await self.server.databases.open(self.db_url), False)
        elif self.use_uri_table:
            raise ValueError("uri: use_uri_table needs db_url or db_default_url")

    def _table(self) -> tuple[str, int]:
        return self.db_table or ("uri" if self.use_uri_table else "subscriber"), (
            URI_VERSION if self.use_uri_table else SUBSCRIBER_VERSION
        )

    async def _rows(self, columns: list[str], where: dict[str, Any]) -> Any:
        if self.tables is None:
            raise DatabaseError("uri: no database")
        return await self.tables.select(*self._table(), columns, where, 1)

    async def _may_use(self, run: Run, header: str) -> int:
        credentials = authorized(run)
        if credentials is None:
            run.user.log_rarely("uri", -1, f"db_check_{header}: the request was not authorized")
            return NOBODY
        try:
            uri = (run.message.to if header == "to" else run.message.from_).uri
        except MalformedMessage:
            return NOTHING
        if not uri.user:
            return NOTHING
        user, domain = identity(credentials)
        if not self.use_uri_table:
            counts = self.use_domain or "@" in credentials.username  # the domain, where the user name says one
            return 1 if uri.user == user and (not counts or uri.host.lower() == domain.lower()) else NO_ROW
        where = {self.user_column: user, self.uriuser_column: uri.user}
        if self.use_domain:
            where[self.domain_column] = domain
        try:
            return 1 if len(await self._rows([self.uriuser_column], where)) else NO_ROW
        except DatabaseError:
            return FAILED

    @function(REQUEST)
    async def db_check_to(self, run: Run) -> int:
        """1 if the sender, who has been authorized, may use the user of To: his own, or one that the table gives him."""
        return await self._may_use(run, "to")

    @function(REQUEST)
    async def db_check_from(self, run: Run) -> int:
        """1 if the sender, who has been authorized, may use the user of From: his own, or one that the table gives him."""
        return await self._may_use(run, "from")

    @function(REQUEST, name="check_to")
    async def check_to(self, run: Run) -> int:
        """As db_check_to()."""
        return await self._may_use(run, "to")

    @function(REQUEST, name="check_from")
    async def check_from(self, run: Run) -> int:
        """As db_check_from()."""
        return await self._may_use(run, "from")

    async def _exists(self, run: Run) -> int:
        try:
            uri = run.request_uri
        except MalformedMessage:
            return -1
        if not uri.user:
            return -5
        where = {self.uriuser_column if self.use_uri_table else self.user_column: uri.user}
        if self.use_domain:
            where[self.domain_column] = uri.host
        try:
            return 1 if len(await self._rows(list(where)[:1], where)) else -5
        except DatabaseError:
            return NOTHING

    @function(REQUEST | LOCAL)
    async def db_does_uri_exist(self, run: Run) -> int:
        """1 if the user of the Request-URI is in the table."""
        return await self._exists(run)

    @function(REQUEST | LOCAL)
    async def does_uri_exist(self, run: Run) -> int:
        """As db_does_uri_exist()."""
        return await self._exists(run)

    @function(REQUEST | LOCAL)
    async def does_uri_user_exist(self, run: Run) -> int:
        """As db_does_uri_exist()."""
        return await self._exists(run)

    async def _auth_id(self, run: Run, text: str, auth: Writable, realm: Writable) -> int:
        try:
            uri = Uri.parse(text)
        except MalformedMessage:
            return -1
        if not uri.user:
            return NOTHING
        where = {self.uriuser_column if self.use_uri_table else self.user_column: uri.user}
        if self.use_domain:
            where[self.domain_column] = uri.host
        try:
            rows = await self._rows([self.user_column, self.domain_column], where)
        except DatabaseError:
            return FAILED
        if not len(rows):
            return NOTHING
        auth.set(run, rows[0][0])
        realm.set(run, rows[0][1])
        return 1

    @function(REQUEST | FAILURE | LOCAL)
    async def db_get_auth_id(self, run: Run, uri: str, auth: Writable, realm: Writable) -> int:
        """1 if the table knows the user of ``uri``; ``auth`` and ``realm`` receive whose credentials he uses."""
        return await self._auth_id(run, uri, auth, realm)

    @function(REQUEST | FAILURE | LOCAL)
    async def get_auth_id(self, run: Run, uri: str, auth: Writable, realm: Writable) -> int:
        """As db_get_auth_id()."""
        return await self._auth_id(run, uri, auth, realm)

    @function(REQUEST)
    def is_user(self, run: Run, username: str) -> bool:
        """True if the sender was authorized as ``username``."""
        credentials = authorized(run)
        return credentials is not None and identity(credentials)[0] == username
