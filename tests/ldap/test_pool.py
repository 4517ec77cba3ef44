"""Tests of sipgw.ldap.pool with a real slapd: binds, searches, and a server that is killed or frozen under load."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from sipgw.ldap.config import Session, read_sessions
from sipgw.ldap.directory import Entry, LdapFault, Rejected, Unreachable
from sipgw.ldap.ldap3_directory import open_directory
from sipgw.ldap.pool import QUEUE, Pool, limit_of
from sipgw.ldap.url import escape_filter
from tests.children import HOST, free_port
from tests.redis.test_client import make_certificates
from tests.servers.private import folder
from tests.servers.slapd import ADMIN, BASE, PASSWORD, SlapdServer, missing, slapd


def session(*servers: str, **more: Any) -> Session:
    """A session of these servers that binds as the proxy."""
    settings = {
        "ldap_bind_dn": f'"{ADMIN}"', "ldap_bind_password": f'"{PASSWORD}"', "ldap_network_timeout": 300,
        "ldap_client_bind_timeout": 300, **more,
    }
    lines = [f"{key} = {value}" for key, value in settings.items()]
    return read_sessions("\n".join(["[s]", f"ldap_server_url = \"{', '.join(servers)}\"", *lines]))["s"]


class PoolTestCase(TestCase):
    """Pools that are stopped at the end."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        if missing():
            raise SkipTest(missing())
        self.reactor: Any = reactor
        self.told: list[str] = []
        self.slapd = slapd()
        self.slapd.restore()
        self.addCleanup(self.slapd.restore)

    def pool(self, size: int = 4, opener: Any = open_directory) -> Pool:
        made = Pool(self.reactor, size, opener, lambda name, fault: self.told.append(fault))
        made.start()
        self.addCleanup(made.stop)
        return made

    def ask(self, pool: Pool, of: Session, filter: str = "(uid=alice)", *attributes: str) -> Deferred[list[Entry]]:
        return ensureDeferred(pool.search(of, BASE, "sub", filter, attributes))


class SearchTests(PoolTestCase):
    """Searches that go well, and errors of the server."""

    async def test_found(self) -> None:
        """Entries with all values of their attributes; only the attributes that are wanted; nothing is an empty list."""
        pool, of = self.pool(), session(self.slapd.url)
        (alice,) = await self.ask(pool, of)
        self.assertEqual(alice.name, f"uid=alice,ou=people,{BASE}")
        self.assertEqual(alice.attributes["telephonenumber"], [b"100", b"101"])
        (alice,) = await self.ask(pool, of, "(uid=alice)", "CN", "nothing")
        self.assertEqual(alice.attributes, {"cn": [b"Alice"]})
        self.assertEqual(await self.ask(pool, of, "(uid=nobody)"), [])
        self.assertEqual(len(await self.ask(pool, of, "(objectClass=inetOrgPerson)")), 3)

    async def test_escaped(self) -> None:
        """A name full of special characters is found when it is escaped; payloads find nobody."""
        pool, of = self.pool(), session(self.slapd.url)
        (odd,) = await self.ask(pool, of, f"(cn={escape_filter('o*d(d)' + chr(92) + '?,+x')})")
        self.assertEqual(odd.attributes["uid"], [b"odd"])
        for payload in ["*", "alice)(|(uid=*", "a\0", "*)(uid=*))(|(uid=*", "\\61lice", "x\udcff"]:
            self.assertEqual(await self.ask(pool, of, f"(uid={escape_filter(payload)})"), [], payload)

    async def test_rights(self) -> None:
        """Who binds as nobody does not see passwords; a refused bind is told."""
        pool = self.pool()
        (alice,) = await self.ask(pool, session(self.slapd.url, ldap_bind_dn='""', ldap_bind_password='""'))
        self.assertNotIn("sipidentitypassword", alice.attributes)
        wrong = session(self.slapd.url, ldap_bind_password='"no"')
        await self.assertFailure(self.ask(self.pool(), wrong), Rejected)
        empty = session(self.slapd.url, ldap_bind_password='""')
        await self.assertFailure(self.ask(self.pool(), empty), Unreachable)

    async def test_rejected(self) -> None:
        """A filter that is none, and a base that is not there, are errors; the connection goes on."""
        pool, of = self.pool(1), session(self.slapd.url)
        await self.assertFailure(self.ask(pool, of, "(uid=alice"), Rejected)
        elsewhere = ensureDeferred(pool.search(of, "dc=elsewhere", "sub", "(uid=alice)"))
        await self.assertFailure(elsewhere, Rejected)
        self.assertEqual(len(await self.ask(pool, of)), 1)
        self.assertEqual(self.told, [])

    async def test_tls(self) -> None:
        """StartTLS and ldaps with a private CA; a server of another CA is refused where certificates are demanded."""
        directory = folder("slapd-tls")
        make_certificates(directory)
        files = {"TLSCertificateFile": "server.pem", "TLSCertificateKeyFile": "server.key", "TLSCACertificateFile": "ca.pem"}
        server = SlapdServer("\n".join(f"{key} {directory}/{file}" for key, file in files.items()), directory)
        server.start()
        self.addCleanup(server.kill)
        good = session(server.url, ldap_ca_cert_file=f"{directory}/ca.pem", ldap_require_certificate="DEMAND")
        self.assertEqual(len(await self.ask(self.pool(), good)), 1)
        other = folder("other-ca")
        make_certificates(other)
        bad = session(server.url, ldap_ca_cert_file=f"{other}/ca.pem", ldap_require_certificate="DEMAND")
        await self.assertFailure(self.ask(self.pool(), bad), Unreachable)
        plain = session(self.slapd.url, ldap_ca_cert_file=f"{directory}/ca.pem")
        await self.assertFailure(self.ask(self.pool(), plain), LdapFault)


class FaultTests(PoolTestCase):
    """Servers that are gone."""

    async def test_killed_under_load(self) -> None:
        """Searches fail at once while it is known to be down, each within its limit, and go well within 2 s of its return."""
        pool, of = self.pool(), session(self.slapd.url)
        outcomes: list[tuple[str, float]] = []
        going = True

        async def caller() -> None:
            while going:
                began = self.reactor.seconds()
                try:
                    await self.ask(pool, of)
                    outcomes.append(("done", self.reactor.seconds() - began))
                except LdapFault as error:
                    outcomes.append((type(error).__name__, self.reactor.seconds() - began))
                    await deferLater(self.reactor, 0.01, lambda: None)

        callers = [ensureDeferred(caller()) for _ in range(8)]
        await self.until(lambda: len(outcomes) > 50)
        self.slapd.kill()
        await self.until(lambda: outcomes[-1][0] == "Unreachable")
        mark = len(outcomes)
        await self.until(lambda: len(outcomes) > mark + 50)
        self.slapd.start(wait=False)
        began = self.reactor.seconds()
        await self.until(lambda: outcomes[-1][0] == "done")
        took = self.reactor.seconds() - began
        going = False
        await gatherResults(callers)
        self.assertLess(took, 2)
        self.assertLess(max(took for _, took in outcomes), limit_of(of))
        self.assertLess(sorted(took for kind, took in outcomes[mark:] if kind == "Unreachable")[20], 0.05)
        self.assertEqual([bool(fault) for fault in self.told], [True, False])

    async def test_frozen(self) -> None:
        """A frozen server: searches end within their limit, the reactor turns all the time, and they go well when it goes on."""
        pool, of = self.pool(), session(self.slapd.url, ldap_client_search_timeout=2000)
        await gatherResults([self.ask(pool, of) for _ in range(4)])
        turns = [self.reactor.seconds()]
        ticking = True

        def tick() -> None:
            turns.append(self.reactor.seconds())
            if ticking:
                self.reactor.callLater(0.01, tick)

        self.reactor.callLater(0.01, tick)
        self.slapd.freeze()
        began = self.reactor.seconds()
        asked = [self.assertFailure(self.ask(pool, of), Unreachable) for _ in range(4)]
        await gatherResults(asked)
        self.assertLess(self.reactor.seconds() - began, limit_of(of) + 0.3)
        self.assertLess(max(b - a for a, b in pairwise(turns)), 0.25)
        ticking = False
        await deferLater(self.reactor, 0.02, lambda: None)
        self.slapd.thaw()
        began = self.reactor.seconds()
        while True:
            try:
                await self.ask(pool, of)
                break
            except Unreachable:
                await deferLater(self.reactor, 0.02, lambda: None)
        self.assertLess(self.reactor.seconds() - began, 2)

    async def test_next_server(self) -> None:
        """The servers of a session are tried in their order."""
        of = session(f"ldap://{HOST}:{free_port()}", self.slapd.url)
        self.assertEqual(len(await self.ask(self.pool(), of)), 1)
        nowhere = session(f"ldap://{HOST}:{free_port()}")
        await self.assertFailure(self.ask(self.pool(), nowhere), Unreachable)

    async def test_too_many(self) -> None:
        """Only so many searches run or wait; more fail at once."""
        gate = threading.Event()
        self.addCleanup(gate.set)

        class Slow:
            def search(self, base: str, scope: str, filter: str, attributes: Sequence[str]) -> list[Entry]:
                gate.wait(10)
                return []

            def close(self) -> None:
                pass

        pool, of = self.pool(2, lambda _session: Slow()), session(self.slapd.url)
        asked = [self.ask(pool, of) for _ in range(2 * (1 + QUEUE))]
        await self.assertFailure(self.ask(pool, of), Unreachable)
        gate.set()
        self.assertEqual(await gatherResults(asked), [[]] * len(asked))

    async def until(self, condition: Any) -> None:
        end = self.reactor.seconds() + 20
        while not condition():
            self.assertLess(self.reactor.seconds(), end, "waited in vain")
            await deferLater(self.reactor, 0.005, lambda: None)
