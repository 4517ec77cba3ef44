"""Tests of sipgw.modules.auth_db and uri: passwords and names in tables, a database that is down, and what people write as names.

``Cases`` are run on a database in memory here and on each real engine in ``tests/modules/test_auth_db_engines.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.trial.unittest import TestCase

from sipgw.interfaces import Value
from sipgw.modules.auth_db import AuthDb, Loaded, parse_load
from sipgw.sip.auth import Challenge, hash_a1
from sipgw.testing import Phone, WiredServer
from tests.db.cases import PAYLOADS
from tests.db.memory import MemoryDatabases
from tests.digest import answered, challenges

SCRIPT = """
socket = udp:127.0.0.1:5060
log_level = -1
db_default_url = "memory:"
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
loadmodule "auth.so"
loadmodule "auth_db.so"
loadmodule "uri.so"
modparam("auth_db", "load_credentials", "$avp(pay)=rpid; password")
{rest}
route {{
    if ($hdr(X-Ask) == "proxy") {{ proxy_challenge("example.org", "auth"); exit; }}
    if ($hdr(X-Ask) != NULL) {{ www_challenge("example.org", "auth", $hdr(X-Ask)); exit; }}
    if ($hdr(X-Uri) != NULL) {{
        db_does_uri_exist($hdr(X-Uri), "subscriber");
        $var(a) = $rc;
        db_get_auth_id("uri", $hdr(X-Uri), $avp(id), $avp(realm));
        append_to_reply("X-Code: $var(a) $rc $avp(id) $avp(realm)\\r\\n");
        send_reply(200, "OK");
        exit;
    }}
    if ($hdr(X-Proxy) != NULL) proxy_authorize("example.org", "subscriber");
    else www_authorize("example.org", "subscriber");
    $var(code) = $rc;
    db_is_to_authorized("uri");
    $var(to) = $rc;
    db_is_from_authorized("uri");
    append_to_reply("X-Code: $var(code)\\r\\nX-Loaded: $avp(pay) $avp(password)\\r\\nX-May: $var(to) $rc\\r\\n");
    db_check_to();
    $var(to) = $rc;
    db_check_from();
    append_to_reply("X-Check: $var(to) $rc\\r\\n");
    if (is_user("alice")) append_to_reply("X-Alice: yes\\r\\n");
    send_reply(200, "OK");
}}
"""
ALICE: dict[str, Value] = {
    "username": "alice", "domain": "example.org", "password": "secret", "rpid": "+49",
    "ha1": hash_a1("alice", "example.org", "secret"),
    "ha1_sha256": hash_a1("alice", "example.org", "secret", "SHA-256"),
    "ha1_sha512t256": hash_a1("alice", "example.org", "secret", "SHA-512-256"),
}
NAMES: list[dict[str, Value]] = [{"username": "alice", "domain": "example.org", "uri_user": name} for name in ("anna", "alias")]


def message(more: str = "", *, to: str = "anna", method: str = "REGISTER") -> bytes:
    """A request of somebody at example.org; ``more`` are whole header lines."""
    mark = abs(hash(more))
    return (
        f"{method} sip:example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{mark}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:alice@example.org>;tag=a1\r\nTo: <sip:{to}@example.org>\r\nCall-ID: {mark}\r\nCSeq: 1 {method}\r\n"
        f"{more}Content-Length: 0\r\n\r\n"
    ).encode("utf-8", "surrogateescape")


if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object


class Harness(Base):
    """A server with a database that knows alice, who may also be anna or alias."""

    databases: Any

    async def make(self) -> None:
        """Make ``self.databases``."""
        self.databases = MemoryDatabases()

    async def settled(self) -> None:
        """Wait until the server has done what it was asked."""

    def setUp(self) -> Any:
        """Have a database with rows."""
        return ensureDeferred(self._set_up())

    async def _set_up(self) -> None:
        await self.make()
        database = await self.databases.open("")
        await database.insert("subscriber", ALICE)
        for row in NAMES:
            await database.insert("uri", row)
        self.database = database
        self.start()

    def start(self, rest: str = "") -> None:
        """Start the server, with ``rest`` before its route."""

        def before(server: Any) -> None:
            server.databases = self.databases

        self.wired = WiredServer(SCRIPT.format(rest=rest), before=before)
        self.phone = Phone(self.wired.wire, "192.0.2.1")

    async def send(self, data: bytes) -> Any:
        """The answer to ``data``."""
        self.phone.inbox.clear()
        self.phone.send(data, self.wired.address)
        while not self.phone.inbox:
            await self.settled()
        return self.phone.take()

    async def ask(self, algorithm: str = "MD5") -> Challenge:
        """A challenge."""
        return challenges(await self.send(message(f"X-Ask: {algorithm}\r\n")))[0]

    async def login(self, *, algorithm: str = "MD5", to: str = "anna", more: str = "", **answer: Any) -> Any:
        """What comes of an answer to a challenge."""
        line = answered(await self.ask(algorithm), **answer)
        return await self.send(message(line + more, to=to))


class Cases(Harness):
    """What holds with each database."""

    async def test_right(self) -> None:
        """The right password is taken with each algorithm, and the columns wanted are loaded."""
        for algorithm in ("MD5", "MD5-sess", "SHA-256", "SHA-512-256", "SHA-512-256-sess"):
            found = await self.login(algorithm=algorithm)
            self.assertEqual((found.header("X-Code"), found.header("X-Loaded")), ("1", "+49 secret"), algorithm)

    async def test_wrong(self) -> None:
        """A wrong password, an unknown user, and a user of another domain have their codes; nothing is loaded."""
        for answer, code in (
            ({"password": "x"}, "-2"), ({"user": "bob"}, "-1"), ({"user": "alice@other.org"}, "-1"),
            ({"user": "alice@example.org"}, "-2"), ({"realm": "other"}, "-4"), ({"nonce": "x"}, "-3"),
        ):  # fmt: skip
            found = await self.login(**answer)
            self.assertEqual((found.header("X-Code"), found.header("X-Loaded")), (code, "<null> <null>"), answer)
            self.assertEqual((found.header("X-May"), found.header("X-Check")), ("-2 -2", "-2 -2"))

    async def test_names(self) -> None:
        """Who was authorized may use the names that the table gives him; by the retired module, his own."""
        for to, may, check in (("anna", "1", "-9"), ("alias", "1", "-9"), ("alice", "-9", "1"), ("bob", "-9", "-9")):
            found = await self.login(to=to)
            self.assertEqual((found.header("X-May"), found.header("X-Check")), (f"{may} -9", f"{check} 1"), to)
            self.assertEqual(found.header("X-Alice"), "yes")
        self.assertEqual((await self.send(message(method="CANCEL"))).header("X-May"), "-2 -2")

    async def test_uris(self) -> None:
        """Whether a subscriber exists, and whose credentials belong to a name."""
        for uri, expected in (
            ("sip:alice@example.org", "1 -4 <null> <null>"), ("sip:alice@other.org", "-5 -4 <null> <null>"),
            ("sip:anna@example.org", "-5 1 alice example.org"), ("sip:example.org", "-5 -4 <null> <null>"),
            ("nonsense", "-1 -1 <null> <null>"), ("tel:123", "-5 -4 <null> <null>"),
        ):  # fmt: skip
            self.assertEqual((await self.send(message(f"X-Uri: {uri}\r\n"))).header("X-Code"), expected, uri)

    async def test_payloads(self) -> None:
        """Whatever stands in place of a name, nobody gets in, and the rows are as they were."""
        before = [sorted(map(repr, await self.database.select(table))) for table in ("subscriber", "uri")]
        for payload in PAYLOADS:
            if any(char in payload for char in "\r\n"):
                continue
            found = await self.login(user=payload)
            self.assertIn(found.header("X-Code") or found.status, ("-1", 400), payload)
            found = await self.login(user=f"alice@{payload}")
            self.assertIn(found.header("X-Code"), ("-1", "-2"), payload)
            escaped = "".join(f"%{octet:02x}" if not chr(octet).isalnum() else chr(octet) for octet in payload.encode())
            found = await self.send(message(f"X-Uri: sip:{escaped}@example.org\r\n"))
            self.assertEqual(found.header("X-Code"), "-5 -4 <null> <null>", payload)
        for table, rows in zip(("subscriber", "uri"), before, strict=True):
            self.assertEqual(sorted(map(repr, await self.database.select(table))), rows)


class MemoryTests(Cases, TestCase):
    """On a database in memory, which can be down."""

    def settled(self) -> Deferred[None]:  # type: ignore[override]
        """Nothing to wait for."""
        self.assertTrue(self.phone.inbox, "no answer")
        return succeed(None)

    async def test_plain_password(self) -> None:
        """With calculate_ha1 the column holds the password, and each hash is made of it."""
        self.start('modparam("auth_db", "calculate_ha1", 1)\nmodparam("auth_db", "password_column", "password")\n')
        for algorithm in ("MD5", "SHA-256", "SHA-512-256-sess"):
            self.assertEqual((await self.login(algorithm=algorithm)).header("X-Code"), "1", algorithm)

    async def test_other_domain(self) -> None:
        """Who has proved to be alice of elsewhere is not alice of here."""
        self.start('modparam("auth_db", "calculate_ha1", 1)\nmodparam("auth_db", "password_column", "password")\n')
        await self.database.insert("subscriber", {**ALICE, "domain": "other.org", "password": "mine"})
        found = await self.login(user="alice@other.org", password="mine", to="alice")
        self.assertEqual((found.header("X-Code"), found.header("X-Check")), ("1", "-9 -9"))
        found = await self.login(user="alice@example.org", to="alice")
        self.assertEqual((found.header("X-Code"), found.header("X-Check")), ("1", "1 1"))

    async def test_no_domain(self) -> None:
        """Without use_domain the user is looked up alone."""
        self.start('modparam("auth_db", "use_domain", 0)\n')
        found = await self.send(message("X-Uri: sip:alice@other.org\r\n"))
        self.assertEqual(found.header("X-Code"), "1 -4 <null> <null>")

    async def test_no_hash(self) -> None:
        """A row without the hash of the algorithm lets nobody in: 500, and the log says which column it is."""
        for value in ("", "abc", None):
            await self.database.update("subscriber", {"ha1": value or ""}, {"username": "alice"})
            self.wired.lines.clear()
            self.assertEqual((await self.login()).status, 500)
            self.wired.clock.advance(2)
            self.assertIn("ha1 of 'alice' is no HA1 of md5", self.wired.lines[-1][1])

    async def test_changed_password(self) -> None:
        """A new password counts at once, the old one no longer."""
        await self.database.update("subscriber", {"ha1": hash_a1("alice", "example.org", "new")}, {"username": "alice"})
        self.assertEqual((await self.login()).header("X-Code"), "-2")
        self.assertEqual((await self.login(password="new")).header("X-Code"), "1")

    async def test_down(self) -> None:
        """While the database cannot be asked nobody gets in, nobody is refused, and the log says so once."""
        challenge = await self.ask()
        self.database.down = True
        self.wired.lines.clear()
        for count in (1, 2):
            found = await self.send(message(answered(challenge, count=count)))
            self.assertEqual((found.status, found.header("Retry-After"), found.header("X-Code")), (503, "5", None))
        self.assertEqual(len(self.wired.lines), 1)
        found = await self.send(message("X-Uri: sip:alice@example.org\r\n"))
        self.assertEqual(found.header("X-Code"), "-4 -8 <null> <null>")
        self.database.down = False
        self.assertEqual((await self.send(message(answered(challenge, count=3)))).header("X-Code"), "1")

    async def test_slow(self) -> None:
        """A request that waits for the database is answered when that is, its repetitions are not looked up again."""
        line = answered(await self.ask())
        self.database.slow = True
        for _ in range(3):
            self.phone.send(message(line), self.wired.address)
        self.assertEqual((len(self.phone.inbox), len(self.database._waiting)), (0, 1))
        self.database.slow = False
        self.database.answer()
        self.assertEqual([found.header("X-Code") for found in self.phone.inbox], ["1"])

    async def test_versions(self) -> None:
        """The version of each table is compared before it is first used, unless the script says it need not be."""
        await self.login()
        self.assertEqual(sorted(set(self.databases.checked)), [("subscriber", 8), ("uri", 2)])
        self.assertEqual(len(self.databases.checked), 2)
        self.databases.checked.clear()
        self.start('modparam("auth_db", "skip_version_check", 1)\n')
        await self.login()
        self.assertEqual(self.databases.checked, [])

    async def test_uri_table(self) -> None:
        """The retired module asks its table where the script wants that."""
        self.start('modparam("uri", "use_uri_table", 1)\n')
        self.assertEqual((await self.login(to="anna")).header("X-Check"), "1 -9")
        self.assertEqual((await self.login(to="bob")).header("X-Check"), "-9 -9")


class ParameterTests(TestCase):
    """What modparams may say."""

    def test_load(self) -> None:
        """Columns, with or without the name of an AVP."""
        found = parse_load("$avp(13)=rpid;email_address ; ")
        self.assertEqual(found, (Loaded("13", "rpid"), Loaded("email_address", "email_address")))
        for text in ("a b", "$avp(x)=", "=x", "$var(x)=y", "x;y'"):
            self.assertRaises(ValueError, parse_load, text)
        self.assertRaises(ValueError, AuthDb().set_parameter, "user_column", "a;b")
