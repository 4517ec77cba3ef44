"""auth_db: passwords in a table of subscribers, and who may use whose name in a table of URIs.

Whatever the database does, nobody is let in without a row that proves him right: where it cannot be asked the request is answered
503 with Retry-After and the script ends (OpenSIPS answers 500). Passwords are not kept here from one request to the next, so a
changed one counts at once.

COMPAT: the codes of ``db_*`` functions are OpenSIPS's: -2 nobody was authorized, -4 nothing to look for, -8 the database failed,
-9 no such row; of ``db_does_uri_exist`` -5 no such row, -4 the database failed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sipgw.db.errors import DatabaseError, Unavailable
from sipgw.exports import FAILURE, LOCAL, REQUEST, HeaderText, Module, Writable, function, param, requires
from sipgw.interfaces import Database, Rows, Value
from sipgw.modules._specs import avp_name
from sipgw.modules.auth import Auth
from sipgw.proxy.authentication import Attempt, Verdict, authorized
from sipgw.script.run import Run
from sipgw.sip.auth import Credentials
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri

SUBSCRIBER_VERSION = 8
URI_VERSION = 2

NOBODY, NOTHING, FAILED, NO_ROW = -2, -4, -8, -9
"""What the functions on URIs give back."""
RETRY_AFTER = 5
"""Seconds until a client may ask again, where the database cannot be asked."""

_plain = re.compile(r"\w+", re.ASCII).fullmatch
_DIGITS = {"md5": 32, "sha-256": 64, "sha-512-256": 64}


class Loaded(NamedTuple):
    """A column whose value goes into an AVP."""

    avp: str
    column: str


def parse_load(text: str) -> tuple[Loaded, ...]:
    """The columns of ``$avp(name)=column;column``; ``ValueError`` for anything else."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        avp, equals, column = part.rpartition("=")
        column = column.strip()
        if not _plain(column):
            raise ValueError(f"write $avp(name)=column or column, not {part!r}")
        found.append(Loaded(avp_name(avp.strip()) if equals else column, column))
    return tuple(found)


def check_column(name: str) -> None:
    """Refuse what is no name of a column."""
    if not _plain(name):
        raise ValueError(f"{name!r} is no name of a column")


def store(run: Run, loaded: Sequence[Loaded], values: Sequence[Value]) -> None:
    """Put the values of a row into AVPs; those that are null are left out."""
    for (avp, _column), value in zip(loaded, values, strict=True):
        if value is not None:
            run.avps.setdefault(avp, []).append(_script_value(value))


def _script_value(value: Value) -> int | str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, datetime):
        return int(value.timestamp())
    return value if isinstance(value, int) else str(value)


def identity(credentials: Credentials) -> tuple[str, str]:
    """The user and the domain of credentials: what stands in the user name, else the realm."""
    user, _, domain = credentials.username.partition("@")
    return user, domain or credentials.realm


class Tables:
    """Selects in tables whose version is compared the first time; errors are logged, not too often."""

    def __init__(self, module: Module, database: Database, unchecked: bool) -> None:
        self._module = module
        self._database = database
        self._checked: set[str] | None = None if unchecked else set()

    async def select(
        self, table: str, version: int, columns: Sequence[str], where: Mapping[str, Value], limit: int = 0
    ) -> Rows:
        """The rows; ``DatabaseError``, logged, if there can be none."""
        try:
            if self._checked is not None and table not in self._checked:
                await self._module.server.databases.check(self._database, table, version)
                self._checked.add(table)
            return await self._database.select(table, columns, where, limit=limit)
        except DatabaseError as error:
            self._module.server.user.log_rarely((self._module.name, type(error)), -1, f"{self._module.name}: {error}")
            raise


class AuthDb(Module):
    """Checks passwords against a table of subscribers, and names against a table of who may use them."""

    name = "auth_db"

    auth: Auth = requires("auth")

    db_url: str = param("", "The database; db_default_url if empty")
    user_column: str = param("username", "The user, in a table of subscribers", check=check_column)
    domain_column: str = param("domain", "His domain", check=check_column)
    password_column: str = param("ha1", "HA1 of MD5, or the plain password with calculate_ha1", check=check_column)
    hash_column_sha256: str = param("ha1_sha256", "HA1 of SHA-256", check=check_column)
    hash_column_sha512t256: str = param("ha1_sha512t256", "HA1 of SHA-512-256", check=check_column)
    uri_user_column: str = param("username", "The user of the credentials, in a table of URIs", check=check_column)
    uri_domain_column: str = param("domain", "Their domain", check=check_column)
    uri_uriuser_column: str = param("uri_user", "The user of URIs that he may use", check=check_column)
    calculate_ha1: int = param(0, "1: password_column holds plain passwords, and all hashes are made of them")
    use_domain: int = param(1, "Whether the domain counts: 0 or 1")
    load_credentials: str = param("", "Columns that go into AVPs: $avp(name)=column;column", check=parse_load)
    skip_version_check: int = param(0, "1: tables may have any version")

    async def start(self) -> None:
        """Open the database."""
        database = await self.server.databases.open(self.db_url)
        self.tables = Tables(self, database, bool(self.skip_version_check))
        self._loaded = parse_load(self.load_credentials)
        self._hashes = {
            "md5": self.password_column, "sha-256": self.hash_column_sha256, "sha-512-256": self.hash_column_sha512t256,
        }

    def _where(self, user_column: str, domain_column: str, user: str, domain: str) -> dict[str, Value]:
        where: dict[str, Value] = {user_column: user}
        if self.use_domain:
            where[domain_column] = domain
        return where

    # -- credentials

    async def _authorize(self, run: Run, realm: str, table: str, proxy: bool) -> int:
        auth = self.auth
        attempt = auth.examine(run, realm, proxy)
        if isinstance(attempt, Verdict):
            return attempt
        algorithm = attempt.credentials.algorithm.lower().removesuffix("-sess")
        password = self.password_column if self.calculate_ha1 else self._hashes[algorithm]
        columns = [password, *(column for _, column in self._loaded)]
        where = self._where(self.user_column, self.domain_column, *identity(attempt.credentials))
        try:
            rows = await self.tables.select(table, SUBSCRIBER_VERSION, columns, where, 1)
        except Unavailable:
            auth.signaling.reply(run, 503, "Service Unavailable", headers=f"Retry-After: {RETRY_AFTER}\r\n")
            return Verdict.ANSWERED
        except DatabaseError:
            return self._broken(run)
        if not len(rows):
            auth.nonces.spoil(attempt.credentials.nonce)
            return Verdict.NO_USER
        ha1 = self._ha1(run, attempt, rows[0][0], algorithm)
        if ha1 is None:
            return self._broken(run)
        verdict = auth.decide(run, attempt, ha1)
        if verdict is Verdict.AUTHORIZED:
            store(run, self._loaded, rows[0][1:])
        return verdict

    def _ha1(self, run: Run, attempt: Attempt, value: Any, algorithm: str) -> str | None:
        """The hash that a row gives; None, logged, if it has none for this algorithm."""
        if self.calculate_ha1 and value is not None:
            return attempt.hash_of(str(value))
        text = str(value or "").lower()
        if len(text) == _DIGITS[algorithm]:
            return text
        column = self._hashes[algorithm]
        text = f"auth_db: {column} of {attempt.credentials.username!r} is no HA1 of {algorithm}"
        run.user.log_rarely(("auth_db", column), -1, text)
        return None

    def _broken(self, run: Run) -> Verdict:
        self.auth.signaling.reply(run, 500, "Server Internal Error")
        return Verdict.ANSWERED

    @function(REQUEST)
    async def www_authorize(self, run: Run, realm: HeaderText, table: str) -> int:
        """1 if the Authorization for ``realm`` was made with a password in ``table``.

        -1: no such user; -2: a wrong password; -3: a nonce that is stale or was used; -4: no credentials for the realm. An empty
        ``realm`` is the domain of To in a REGISTER, of From else."""
        return await self._authorize(run, realm, table, False)

    @function(REQUEST)
    async def proxy_authorize(self, run: Run, realm: HeaderText, table: str) -> int:
        """1 if the Proxy-Authorization for ``realm`` was made with a password in ``table``.

        -1: no such user; -2: a wrong password; -3: a nonce that is stale or was used; -4: no credentials for the realm. An empty
        ``realm`` is the domain of From."""
        return await self._authorize(run, realm, table, True)

    # -- URIs

    async def _may_use(self, run: Run, table: str, header: str) -> int:
        credentials = authorized(run)
        if credentials is None:
            run.user.log_rarely("may_use", -1, f"db_is_{header}_authorized: the request was not authorized")
            return NOBODY
        try:
            user = (run.message.to if header == "to" else run.message.from_).uri.user
        except MalformedMessage:
            user = None
        if not user:
            return NOTHING
        where = self._where(self.uri_user_column, self.uri_domain_column, *identity(credentials))
        try:
            rows = await self.tables.select(
                table, URI_VERSION, [self.uri_uriuser_column], {**where, self.uri_uriuser_column: user}, 1
            )
        except DatabaseError:
            return FAILED
        return 1 if len(rows) else NO_ROW

    @function(REQUEST)
    async def db_is_to_authorized(self, run: Run, table: str) -> int:
        """1 if ``table`` says that the user of To may be used with the credentials by which the sender was authorized."""
        return await self._may_use(run, table, "to")

    @function(REQUEST)
    async def db_is_from_authorized(self, run: Run, table: str) -> int:
        """1 if ``table`` says that the user of From may be used with the credentials by which the sender was authorized."""
        return await self._may_use(run, table, "from")

    @function(REQUEST | FAILURE | LOCAL)
    async def db_does_uri_exist(self, run: Run, uri: str, table: str) -> int:
        """1 if the user and domain of ``uri`` are those of a subscriber in ``table``."""
        found = _parsed(run, "db_does_uri_exist", uri)
        if found is None:
            return -1
        if not found.user:
            return -5
        where = self._where(self.user_column, self.domain_column, found.user, found.host)
        try:
            rows = await self.tables.select(table, SUBSCRIBER_VERSION, [self.user_column], where, 1)
        except DatabaseError:
            return -4
        return 1 if len(rows) else -5

    @function(REQUEST | FAILURE | LOCAL)
    async def db_get_auth_id(self, run: Run, table: str, uri: str, auth: Writable, realm: Writable) -> int:
        """1 if ``table`` knows the user of ``uri``; ``auth`` and ``realm`` receive whose credentials he uses."""
        found = _parsed(run, "db_get_auth_id", uri)
        if found is None:
            return -1
        if not found.user:
            return NOTHING
        where = self._where(self.uri_uriuser_column, self.uri_domain_column, found.user, found.host)
        try:
            rows = await self.tables.select(table, URI_VERSION, [self.uri_user_column, self.uri_domain_column], where, 1)
        except DatabaseError:
            return FAILED
        if not len(rows):
            return NOTHING
        auth.set(run, rows[0][0])
        realm.set(run, rows[0][1])
        return 1


def _parsed(run: Run, what: str, text: str) -> Uri | None:
    try:
        return Uri.parse(text)
    except MalformedMessage as error:
        run.user.log_rarely(what, -1, f"{what}: {text!r}: {error}")
        return None
