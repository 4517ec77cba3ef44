"""Tests of sipgw.web.site: who is let in, over a string transport."""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from sipgw.web.site import LIMIT, PATIENCE, PAUSE, Credentials, Site


class Echo(Resource):
    """Answers the body that came."""

    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        body: bytes = request.content.read()
        return b"got %d" % len(body)

    def render_GET(self, request: Any) -> bytes:
        raise ZeroDivisionError("secret")


class SiteTests(SynchronousTestCase):
    """One site with one resource."""

    def site(self, credentials: Credentials | None = None, idle: float | None = 30) -> Site:
        self.lines: list[str] = []
        self.clock = Clock()
        site = Site(self.clock, lambda level, text: self.lines.append(text), credentials, idle)
        site.startFactory()
        self.addCleanup(site.stopFactory)
        site.mount("/mi/", Echo(), "mi_http")
        return site

    def connect(self, site: Site) -> tuple[Any, StringTransport]:
        channel = site.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        return channel, transport

    def ask(
        self, site: Site, path: str = "/mi", body: bytes = b"12345", method: str = "POST", **headers: str
    ) -> tuple[int, str, str]:
        """The status, the head and the body of an answer."""
        headers = {"Host": "127.0.0.1:8888", "Content_Length": str(len(body)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items() if value)
        channel, transport = self.connect(site)
        channel.dataReceived(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())
        for start in range(0, len(body), 65536):
            channel.dataReceived(body[start : start + 65536])
        answer, _, content = transport.value().decode().partition("\r\n\r\n")
        return int(answer.split()[1]), answer, content

    def test_paths(self) -> None:
        """A resource has its path and all below; elsewhere there is nothing."""
        site = self.site()
        for path, status in (("/mi", 200), ("/mi/", 200), ("/mi/x?y", 200), ("/", 404), ("/nope", 404), ("/m", 404), ("*", 404)):
            self.assertEqual(self.ask(site, path)[0], status, path)
        self.assertEqual(self.ask(site)[2], "got 5")

    def test_mount(self) -> None:
        """A path is one part and has one owner."""
        site = self.site()
        for path in ("mi", "/mi", "", "/", "a/b"):
            self.assertRaises(ValueError, site.mount, path, Echo(), "other")
        self.assertEqual(site.owners, {"mi": "mi_http"})
        site.unmount("mi")
        self.assertEqual((site.owners, self.ask(site)[0]), ({}, 404))

    def test_version(self) -> None:
        """Nobody learns what runs here."""
        site = self.site()
        for path in ("/mi", "/nope", "*"):
            self.assertIn("\r\nServer: sipgw\r\n", self.ask(site, path)[1] + "\r\n")
            self.assertNotIn("Twisted", self.ask(site, path)[1])

    def test_bug(self) -> None:
        """A resource that breaks answers 500 without a traceback, and logs."""
        status, _head, content = self.ask(self.site(), method="GET", body=b"")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((status, "secret" in content), (500, False))

    def test_host(self) -> None:
        """Without a password, only this machine's own names are answered to (DNS rebinding)."""
        site = self.site()
        ours = "127.0.0.1 127.0.0.1:8888 localhost:8888 LocalHost localhost. [::1]:8888 [::1] 192.0.2.1"
        for host in (*ours.split(), ""):
            self.assertEqual(self.ask(site, Host=host)[0], 200, host)
        self.assertEqual(self.lines, [])
        evil = "evil.example evil.example:8888 127.0.0.1.evil.example localhost.evil.example [evil.example] x_y"
        for host in evil.split():
            self.assertEqual(self.ask(site, Host=host)[0], 403, host)
        self.assertEqual(len(self.lines), 6)
        self.assertIn("httpd: 403 to ", self.lines[0])
        self.assertIn("'evil.example'", self.lines[0])

    def test_password(self) -> None:
        """With a password, who has it comes in by any name, and nobody else does, to any path."""
        site = self.site(Credentials("admin", "pä:w", 'MI "x"'))

        def basic(text: str) -> str:
            return "Basic " + base64.b64encode(text.encode()).decode()

        self.assertEqual(self.ask(site, Authorization=basic("admin:pä:w"), Host="mi.example.com")[0], 200)
        self.assertEqual(self.ask(site, Authorization=basic("admin:pä:w").replace("Basic", "BASIC"))[0], 200)
        wrong = ("", "Basic", "Basic =", "Basic \u0100", "Bearer x", basic("admin:pw"), basic("admin:"), basic("Admin:pä:w"))
        for given in (*wrong, basic("admin:pä:w") + "x", basic("admin:pä:w").replace("Basic", "Bearer")):
            status, head, _ = self.ask(site, Authorization=given)
            self.assertEqual(status, 401, given)
            self.assertIn('WWW-Authenticate: Basic realm="MI \\"x\\"", charset="UTF-8"', head)
        self.assertEqual(self.ask(site, "/nope")[0], 401)
        self.assertEqual(len(self.lines), 11)
        self.assertNotIn("pä", "".join(self.lines))

    def test_long_body(self) -> None:
        """A body over the limit is refused, whether its length was told or not; the next connection is served."""
        site = self.site()
        self.assertEqual(self.ask(site, body=b"x" * LIMIT)[2], f"got {LIMIT}")
        self.assertEqual(self.ask(site, body=b"x" * (LIMIT + 1))[0], 413)
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        body = chunk * 17 + b"0\r\n\r\n"
        self.assertEqual(self.ask(site, body=body, Content_Length="", Transfer_Encoding="chunked")[0], 413)
        self.assertEqual(self.ask(site, body=chunk * 16 + b"0\r\n\r\n", Content_Length="", Transfer_Encoding="chunked")[0], 200)

    def test_endless_body(self) -> None:
        """A body without end is cut off, and none of it is kept."""
        site = self.site()
        channel, transport = self.connect(site)
        channel.dataReceived(b"POST /mi HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        for _ in range(PATIENCE // 65536 + 1):
            channel.dataReceived(b"x" * 65536)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(transport.value(), b"")

    def test_stranger_body(self) -> None:
        """Of a peer without the password no body is kept."""
        site = self.site(Credentials("a", "b", "c"))
        channel, _transport = self.connect(site)
        channel.dataReceived(b"POST /mi HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" + b"x" * 900)
        self.assertEqual(channel._channel.requests[0].content.tell(), 0)

    def test_many_at_once(self) -> None:
        """Of requests that come at once each has its turn of the reactor, and none while the peer does not read."""
        site = self.site()
        asked = b"POST /mi HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nx"
        channel, transport = self.connect(site)
        channel.dataReceived(asked * 50)
        self.assertEqual(transport.value().count(b"got 1"), 1)
        self.assertEqual(self.ask(site)[0], 200)
        producer: Any = transport.producer
        producer.pauseProducing()
        self.clock.pump([PAUSE] * 10)
        self.assertLess(transport.value().count(b"got 1"), 5)
        producer.resumeProducing()
        self.clock.pump([PAUSE] * 200)
        self.assertEqual(transport.value().count(b"got 1"), 50)
        channel.dataReceived(asked * 5)
        producer.pauseProducing()
        self.clock.pump([PAUSE] * 700)
        self.assertTrue(transport.disconnected or transport.disconnecting)
        self.assertEqual(site.served, set())

    def test_idle(self) -> None:
        """A silent connection is closed after a while, or never."""
        for idle, closed in ((30, True), (None, False)):
            _channel, transport = self.connect(self.site(idle=idle))
            self.clock.advance(29)
            self.assertFalse(transport.disconnecting)
            self.clock.advance(2)
            self.assertEqual(transport.disconnecting, closed)
