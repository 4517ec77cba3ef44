"""Tests of sipgw.modules.aaa_radius and auth_aaa with a real FreeRADIUS, and of sipgw.radius.client when servers are silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from sipgw.aaa import AaaError
from sipgw.modules.aaa_radius import AaaRadius, parse_set
from sipgw.modules.acc import Acc
from sipgw.modules.auth import Auth
from sipgw.modules.auth_aaa import AuthAaa
from sipgw.modules.group import Group
from sipgw.proxy.authentication import Verdict, authorized
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.auth import Challenge
from sipgw.sip.message import parse
from sipgw.testing import FakeServer
from tests.children import HOST
from tests.digest import answered
from tests.modules.scripted import request
from tests.modules.test_cachedb_redis import RealServer
from tests.servers.radius import missing, radius


class RadiusTestCase(TestCase):
    """A server with the module, over a private FreeRADIUS."""

    timeout = 60

    def setUp(self) -> None:
        if missing():
            raise SkipTest(missing())
        self.radius = radius()
        self.radius.restore()
        self.addCleanup(self.radius.restore)
        self.server = RealServer()
        self.file = self.radius.client(Path(self.mktemp()))
        self.module = AaaRadius(self.server, radius_config=self.file)
        self.addCleanup(lambda: ensureDeferred(self.module.stop()).addCallback(lambda _: deferLater(self.reactor, 0.01, int)))

    @property
    def reactor(self) -> Any:
        return self.server.reactor

    def run_of(self, data: bytes | None = None) -> Run:
        return Run(parse(data or request()), RouteKind.REQUEST, None, 0.0, self.server.user)


class ScriptTests(RadiusTestCase):
    """radius_send_auth and radius_send_acct."""

    async def test_auth(self) -> None:
        """Accepted, rejected, no answer; variables receive what is answered, the AVPs too."""
        self.module.add_set("in = (User-Name = $var(user), User-Password=$var(password), Session-Timeout = $var(none))")
        self.module.add_set("none = ( Reply-Message = $avp(m) )")
        await self.module.start()
        run = self.run_of()
        run.vars.update(user="plain", password="hello")
        send = self.module.radius_send_auth
        self.assertEqual(await send(run, "in", "none"), 1)
        run.vars["password"] = "wrong"
        self.assertEqual(await send(run, "in", "none"), -2)
        self.assertEqual(await send(run, "in", "nothing"), -1)
        self.assertEqual(await send(run, "nothing", "none"), -1)
        run.vars["user"] = "x" * 300
        self.assertEqual(await send(run, "in", "none"), -1)

    async def test_acct(self) -> None:
        """A server has what it was told, once."""
        self.module.add_set("start = (Acct-Status-Type = $var(type), Acct-Session-Id = $ci, User-Name = $fU)")
        await self.module.start()
        run = self.run_of(request(call_id="accounted-1"))
        run.vars["type"] = "Start"
        self.assertTrue(await self.module.radius_send_acct(run, "start"))
        told = self.radius.accounted()
        self.assertEqual(told.count('Acct-Session-Id = "accounted-1"'), 1)
        self.assertIn("Acct-Status-Type = Start", told)
        self.assertIn("NAS-IP-Address = 127.0.0.1", told)

    async def test_silent(self) -> None:
        """A frozen server: -1 within timeout times retries, and the reactor goes on; thawed it serves."""
        self.module.add_set("in = (User-Name = $var(user), User-Password=$var(password))")
        await self.module.start()
        run = self.run_of()
        run.vars.update(user="plain", password="hello")
        self.radius.freeze()
        began = self.reactor.seconds()
        ticks: list[float] = []
        asked = ensureDeferred(self.module.radius_send_auth(run, "in", "in"))
        while not asked.called:
            ticks.append(self.reactor.seconds())
            await deferLater(self.reactor, 0.02, lambda: None)
        self.assertEqual(await asked, -1)
        self.assertLess(self.reactor.seconds() - began, 3)
        self.assertGreater(len(ticks), 20)
        self.radius.thaw()
        self.assertEqual(await self.module.radius_send_auth(run, "in", "in"), 1)


class DigestTests(RadiusTestCase):
    """auth_aaa."""

    async def begin(self) -> AuthAaa:
        await self.module.start()
        self.replies: list[int] = []
        auth = Auth(self.server, signaling=self)
        await auth.start()
        made = AuthAaa(self.server, auth=auth, aaa_url=f"radius:{self.file}")
        await made.start()
        return made

    def reply(self, _run: Any, status: int, _reason: str, **_more: Any) -> bool:
        """What the module signaling does."""
        self.replies.append(status)
        return True

    def credentials(self, module: AuthAaa, password: str = "secret", user: str = "alice") -> bytes:
        nonce = module.auth.nonces.make(module.auth.clock(), "MD5", ("auth",))
        challenge = Challenge.parse(f'Digest realm="example.org", nonce="{nonce}", qop="auth"')
        line = answered(challenge, user, password, method="OPTIONS", uri="sip:bob@127.0.0.1", proxy=True)
        return request(more=line)

    async def test_digest(self) -> None:
        """The right password once, with what the server says in AVPs; a wrong one, an unknown user, no credentials, no server."""
        module = await self.begin()
        run = self.run_of(self.credentials(module))
        self.assertEqual(await module.aaa_proxy_authorize(run, "example.org"), Verdict.AUTHORIZED)
        self.assertEqual(run.avps, {"rpid": ["100"], "limit": [5]})
        known = authorized(run)
        assert known is not None
        self.assertEqual(known.username, "alice")
        again = self.run_of(parse_bytes(run))
        self.assertEqual(await module.aaa_proxy_authorize(again, "example.org"), Verdict.STALE)
        for given in (self.credentials(module, "wrong"), self.credentials(module, user="nobody")):
            run = self.run_of(given)
            self.assertEqual(await module.aaa_proxy_authorize(run, "example.org"), Verdict.ERROR)
            self.assertIsNone(authorized(run))
            self.assertEqual(run.avps, {})
        self.assertEqual(await module.aaa_www_authorize(self.run_of(), "example.org"), Verdict.NO_CREDENTIALS)
        self.radius.kill()
        run = self.run_of(self.credentials(module))
        self.assertEqual(await module.aaa_proxy_authorize(run, "example.org"), Verdict.ERROR)
        self.assertIsNone(authorized(run))
        self.assertEqual(self.replies, [])

    async def test_users(self) -> None:
        """Who exists, by user and host or by user alone."""
        module = await self.begin()
        run = self.run_of(request(uri="sip:bob@example.org"))
        self.assertEqual(await module.aaa_does_uri_exist(run), 1)
        self.assertEqual(run.avps, {"found": ["yes"]})
        for uri, expected in [("sip:bob@other.example", -1), ("sip:nobody@example.org", -1), ("sip:example.org", -1), ("x", -2)]:
            self.assertEqual(await module.aaa_does_uri_exist(run, uri), expected, uri)
        self.assertEqual(await module.aaa_does_uri_user_exist(run, "carol"), 1)
        self.assertEqual(await module.aaa_does_uri_user_exist(run), -1)

    async def test_start(self) -> None:
        """A URL that is none, a file that is not there, a name that the dictionary does not have."""
        for parameters in ({"aaa_url": ""}, {"aaa_url": "radius:/nowhere"}, {"aaa_url": "diameter:x"}, {"digest_qop_name": "No"}):
            made = AuthAaa(self.server, **{"aaa_url": f"radius:{self.file}", **parameters})
            await self.assertFailure(ensureDeferred(made.start()), ValueError)


def parse_bytes(run: Run) -> bytes:
    """The request of a run as it came."""
    message: Any = run.message
    return "\r\n".join([*message.lines, "", ""]).encode("utf-8", "surrogateescape")


class UserTests(RadiusTestCase):
    """Other modules that have an aaa_url."""

    async def test_groups(self) -> None:
        """Who is in a group, and who is not, without any database."""
        await self.module.start()
        group = Group(self.server, aaa_url=f"radius:{self.file}")
        await group.start()
        run = self.run_of()
        for uri, name, expected in [
            ("sip:dave@example.org", "admins", 1), ("sip:dave@example.org", "others", -12),
            ("sip:eve@example.org", "admins", -12), ("sip:example.org", "admins", -1), ("Credentials", "admins", -4),
        ]:
            self.assertEqual(await group.aaa_is_user_in(run, uri, name), expected, (uri, name))
        self.assertEqual(await group.db_is_user_in(run, "From", "admins"), -1)
        self.assertEqual(await Group(RealServer()).aaa_is_user_in(run, "From", "admins"), -1)

    async def test_accounting(self) -> None:
        """A request that is accounted reaches the server."""
        await self.module.start()
        acc = Acc(self.server, aaa_url=f"radius:{self.file}", extra_fields="aaa: to->Called-Station-Id")
        await acc.start()
        self.addCleanup(lambda: ensureDeferred(acc.stop()))
        run = self.run_of(request("INVITE", call_id="accounted-2"))
        acc.set_extra(run, "to", "sip:bob")
        self.assertTrue(acc.acc_aaa_request(run, "404 Not Found"))
        end = self.reactor.seconds() + 5
        while "accounted-2" not in self.radius.accounted():
            self.assertLess(self.reactor.seconds(), end)
            await deferLater(self.reactor, 0.01, lambda: None)
        told = self.radius.accounted().partition("accounted-2")
        self.assertIn('Called-Station-Id = "sip:bob"', told[2])
        wrong = Acc(RealServer(), aaa_url=f"radius:{self.file}")
        await self.assertFailure(ensureDeferred(wrong.start()), ValueError)
        odd = Acc(self.fresh(), aaa_url=f"radius:{self.file}", extra_fields="aaa: to->No-Such")
        await self.assertFailure(ensureDeferred(odd.start()), ValueError)

    def fresh(self) -> RealServer:
        """Another server that has the module."""
        server = RealServer()
        AaaRadius(server)
        return server


class ClientTests(RadiusTestCase):
    """Many requests, and servers that are not there."""

    async def test_many(self) -> None:
        """More requests at once than there are identifiers are all answered, each with its own answer."""
        await self.module.start()
        client = await self.module.open(self.file)
        asked = [
            ensureDeferred(client.authenticate([("User-Name", "plain"), ("User-Password", "hello" if number % 2 else "no")]))
            for number in range(400)
        ]
        answers = await gatherResults(asked)
        self.assertEqual([each.accepted for each in answers], [bool(number % 2) for number in range(400)])

    async def test_next_server(self) -> None:
        """A server that is silent is passed by, and asked last while it is dead; a forger's answers do not count."""

        class Forger(DatagramProtocol):
            heard = 0
            transport: Any

            def datagramReceived(self, data: bytes, address: Any) -> None:
                self.heard += 1
                self.transport.write(b"\x02" + data[1:2] + b"\x00\x14" + b"\0" * 16, address)

        forger = Forger()
        udp = self.reactor.listenUDP(0, forger, interface=HOST)
        self.addCleanup(udp.stopListening)
        servers = f"{HOST}:{udp.getHost().port}, {HOST}:{self.radius.auth}"
        file = self.radius.client(Path(self.mktemp()), authserver=servers, radius_retries=1, radius_deadtime=60)
        client = await self.module.open(file)
        attributes = [("User-Name", "plain"), ("User-Password", "no")]
        for _ in range(3):
            self.assertFalse((await client.authenticate(attributes)).accepted)
        self.assertEqual(forger.heard, 1)
        await self.assertFailure(ensureDeferred(client.account([("Acct-Status-Type", "Nothing")])), AaaError)


class SetTests(SynchronousTestCase):
    """Sets as they are written."""

    def test_sets(self) -> None:
        """Names, attributes and variables, with any white space."""
        self.assertEqual(
            parse_set(" set4  =  (  Sip-User-ID  =   $avp(10)\n ,   Sip-From-Tag=$si,X=$(hdr(a){s.select,0,,})      )      "),
            ("set4", [("Sip-User-ID", "$avp(10)"), ("Sip-From-Tag", "$si"), ("X", "$(hdr(a){s.select,0,,})")]),
        )
        for text in ["", "a", "a = ", "a = (b)", "a = (b = c)", "a = (b = $c, )"]:
            self.assertRaises(ValueError, parse_set, text)
        module = AaaRadius(FakeServer(), sets="a = (User-Name = $nosuch)")
        self.assertRaises(ValueError, module.start().send, None)
