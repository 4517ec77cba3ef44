"""Tests of sipgw.modules.httpd and mi_http: a real server on a port of the kernel's choice, and Twisted's Agent."""

from __future__ import annotations

import base64
import datetime
import json
import os
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, PartialDownloadError, ResponseFailed, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IPolicyForHTTPS
from twisted.web.resource import Resource
from zope.interface import implementer

from sipgw.exports import Module, mi
from sipgw.modules.httpd import Httpd
from sipgw.modules.mi_http import MiHttp
from tests.mi.doubles import FakeServer


class Echo(Module):
    """Commands to ask for."""

    name = "echo"

    def __init__(self) -> None:
        super().__init__()
        self.waiting: Deferred[str] = Deferred()
        self.made = 0
        self.asked = 0
        self.fail_at = -1

    @mi()
    def say(self, text: str) -> str:
        """Say it again."""
        return text

    @mi()
    async def wait(self) -> str:
        """Wait."""
        self.asked += 1
        return await self.waiting

    @mi()
    def count(self, up_to: int) -> Iterator[str]:
        """Give a long answer, made as it is sent."""
        for self.made in range(up_to):
            if self.made == self.fail_at:
                raise KeyError("gone")
            yield f"{self.made:0100}"


def ask(method: str, *params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


class ServerTests(TestCase):
    """One server with httpd and mi_http."""

    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor

    async def start(self, http: dict[str, Any] | None = None, **parameters: Any) -> None:
        self.server = FakeServer(self.reactor)
        self.echo = self.server.add(Echo())
        httpd = self.httpd = self.server.add(Httpd(self.server, port=0, **parameters))
        await httpd.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(httpd.stop()))
        self.mi_http = self.server.add(MiHttp(self.server, httpd=self.httpd, **(http or {})))
        await self.mi_http.start()
        self.agent = Agent(self.reactor)

    async def post(
        self, body: Any, path: str = "mi", method: str = "POST", media: str = "application/json", **headers: str
    ) -> tuple[int, str, str]:
        """The status, the media type and the text of an answer."""
        response = await self.send(body, path, method, media, **headers)
        text = (await readBody(response)).decode()
        return response.code, response.headers.getRawHeaders("Content-Type", [""])[0], text

    async def send(self, body: Any, path: str, method: str, media: str, **headers: str) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = Headers({"Content-Type": [media]} | {name: [value] for name, value in headers.items()})
        uri = f"http://127.0.0.1:{self.httpd.listening_port}/{path}"
        producer: Any = BodyOf(data)
        return await self.agent.request(method.encode(), uri.encode(), fields, producer)

    async def call(self, method: str, *params: Any) -> Any:
        return json.loads((await self.post(ask(method, *params)))[2])


@implementer(IBodyProducer)
class BodyOf:
    """A request's body."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.length = len(data)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self.data)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


class MiHttpTests(ServerTests):
    """Commands over HTTP."""

    async def test_call(self) -> None:
        """A command is run and its result comes back as JSON."""
        await self.start()
        self.assertEqual(
            await self.post(ask("echo:say", "hé")), (200, "application/json", '{"jsonrpc":"2.0","result":"hé","id":1}')
        )
        self.assertEqual((await self.post(ask("say", "x"), media="Application/JSON; charset=utf-8"))[0], 200)
        self.assertEqual(self.server.user.lines, [])

    async def test_errors(self) -> None:
        """What is wrong with a request is said in JSON-RPC, with HTTP's 200, as OpenSIPS does."""
        await self.start()
        for body, code in ((b"{", -32700), (b"[1]", -32600), (ask("nosuch"), -32601), (ask("say"), -32602)):
            status, media, text = await self.post(body)
            self.assertEqual((status, media, json.loads(text)["error"]["code"]), (200, "application/json", code))

    async def test_notification(self) -> None:
        """A notification is accepted, and there is nothing more to say."""
        await self.start()
        request = ask("say", "x")
        del request["id"]
        self.assertEqual((await self.post(request))[::2], (202, ""))

    async def test_refused(self) -> None:
        """Only JSON, only by POST, only where commands are taken."""
        await self.start()
        body = ask("say", "x")
        refused: tuple[tuple[int, dict[str, Any]], ...] = (
            (405, {"method": "GET", "body": b""}),
            (405, {"method": "PUT"}),
            (405, {"method": "OPTIONS"}),
            (415, {"media": "text/plain"}),
            (415, {"media": "application/x-www-form-urlencoded"}),
            (415, {"media": ""}),
            (400, {"body": b""}),
            (400, {"body": b" \r\n"}),
            (404, {"path": ""}),
            (404, {"path": "other"}),
            (403, {"Host": "evil.example"}),
            (413, {"body": b"x" * (1 << 20) + b"x"}),
        )
        for status, change in refused:
            asked = {"body": body, **change}
            self.assertEqual((await self.post(**asked))[0], status, str(asked)[:100])
        response = await self.send(b"", "mi", "GET", "")
        self.assertEqual(response.headers.getRawHeaders("Allow"), ["POST"])
        self.assertIsNone(response.headers.getRawHeaders("Access-Control-Allow-Origin"))
        await readBody(response)

    async def test_waiting(self) -> None:
        """A command may wait; others are served meanwhile."""
        await self.start()
        waiting = Deferred.fromCoroutine(self.call("wait"))
        self.assertEqual((await self.call("say", "x"))["result"], "x")
        self.assertNoResult(waiting)
        self.echo.waiting.callback("done")
        self.assertEqual((await waiting)["result"], "done")

    async def test_gone(self) -> None:
        """A client that goes before its answer is no fault."""
        await self.start()
        asked = Deferred.fromCoroutine(self.call("wait"))
        while not self.echo.asked:
            await deferLater(self.reactor, 0.01)
        asked.cancel()
        await self.failed(asked)
        self.assertEqual((await self.call("say", "x"))["result"], "x")
        self.echo.waiting.callback("done")
        self.assertEqual((await self.call("say", "x"))["result"], "x")
        self.assertEqual(self.server.user.lines, [])

    async def failed(self, asked: Deferred[Any]) -> None:
        try:
            await asked
        except Exception:
            return
        self.fail("the request was answered")

    async def test_long(self) -> None:
        """A long answer is made only as fast as the client reads it."""
        await self.start()
        response = await self.send(ask("count", 500000), "mi", "POST", "application/json")
        reader = Slow()
        response.deliverBody(reader)
        reader.pause()
        made = -1
        while made != self.echo.made:  # until the buffers on the way are full
            made = self.echo.made
            await deferLater(self.reactor, 0.05)
        self.assertLess(made, 400000)
        self.assertLess(sum(map(len, reader.parts)), 1 << 20)
        assert reader.transport is not None
        reader.transport.resumeProducing()
        whole = json.loads(await reader.whole)
        self.assertEqual((len(whole["result"]), int(whole["result"][-1])), (500000, 499999))

    async def test_broken_off(self) -> None:
        """An answer that breaks off is never taken for whole."""
        await self.start()
        self.echo.fail_at = 5000
        response = await self.send(ask("count", 10000), "mi", "POST", "application/json")
        try:
            await readBody(response)
        except (PartialDownloadError, ResponseFailed):
            pass
        else:
            self.fail("the answer seemed whole")
        self.assertIn("an answer broke off: KeyError: 'gone'", self.server.user.lines[0][1])

    async def test_root(self) -> None:
        """Another path, indented answers; ``httpd:list_root_path`` tells what is where; nothing is there after ``stop``."""
        await self.start(http={"root": "/opensips_mi/", "pretty_printing": 1})
        status, _, text = await self.post(ask("httpd:list_root_path"), "opensips_mi")
        self.assertEqual(json.loads(text)["result"], [{"http_root": "opensips_mi", "module": "mi_http"}])
        self.assertTrue(text.startswith('{\n\t"jsonrpc":\t"2.0"'))
        self.assertEqual((status, (await self.post(ask("say", "x")))[0]), (200, 404))
        await self.mi_http.stop()
        self.assertEqual((await self.post(ask("say", "x"), "opensips_mi"))[0], 404)
        self.assertRaises(ValueError, self.mi_http.set_parameter, "root", "a/b")
        self.assertRaises(ValueError, self.mi_http.set_parameter, "root", "")


class Slow(Protocol):
    """Reads nothing while it is paused; the Agent resumes it when it is connected, so that it is paused after that."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.whole: Deferred[bytes] = Deferred()

    def pause(self) -> None:
        self.transport.pauseProducing()  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.parts.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.whole.callback(b"".join(self.parts))


class HttpdTests(ServerTests):
    """The server beneath."""

    async def test_password(self) -> None:
        """Who has no password is turned away and logged."""
        await self.start(auth_username="admin", auth_password="pw", auth_realm="here")
        self.assertEqual((await self.post(ask("say", "x")))[0], 401)
        basic = "Basic " + base64.b64encode(b"admin:pw").decode()
        self.assertEqual((await self.post(ask("say", "x"), Authorization=basic))[0], 200)
        self.assertEqual(len(self.server.user.lines), 1)
        self.assertIn("401 to 127.0.0.1: 'POST' '/mi' without the right credentials", self.server.user.lines[0][1])

    async def test_open(self) -> None:
        """Beyond loopback a missing password is warned of, and a password in the clear too."""
        cases: tuple[tuple[str, dict[str, Any], str], ...] = (
            ("*", {}, "httpd: * can be reached from outside without a password"),
            ("0.0.0.0", {}, "httpd: 0.0.0.0 can be reached from outside without a password"),
            ("*", {"auth_username": "a", "auth_password": "b"}, "the password travels in the clear"),
        )
        for ip, more, text in cases:
            await self.start(ip=ip, **more)
            (line,) = self.server.user.lines
            self.assertEqual(line[0], 1)
            self.assertIn(text, line[1])
            if not more:
                self.assertEqual((await self.call("say", "x"))["result"], "x")

    async def test_stop(self) -> None:
        """After ``stop`` nobody listens, and there is no site before ``start``."""
        httpd = Httpd(FakeServer(self.reactor), port=0)
        self.assertRaises(RuntimeError, httpd.mount, "x", Resource(), "x")
        self.assertEqual(httpd.listening_port, 0)
        await httpd.start()
        self.assertNotEqual(httpd.listening_port, 0)
        httpd.mount("x", Resource(), "x")
        httpd.unmount("x")
        self.assertEqual(httpd.list_root_path(), [])
        await httpd.stop()
        self.assertEqual(httpd.listening_port, 0)

    async def test_tls(self) -> None:
        """With a certificate it is HTTPS, TLS 1.2 or later, with the whole chain."""
        from twisted.internet import ssl

        certificate, key = make_certificate(self.mktemp())
        await self.start(tls_cert_file=certificate, tls_key_file=key)
        with open(certificate, "rb") as file:
            authority = ssl.Certificate.loadPEM(file.read())
        options = ssl.optionsForClientTLS("localhost", trustRoot=ssl.trustRootFromCertificates([authority]))

        @implementer(IPolicyForHTTPS)
        class Policy:
            def creatorForNetloc(self, host: bytes, port: int) -> Any:
                return options

        agent = Agent(self.reactor, Policy())
        uri = f"https://127.0.0.1:{self.httpd.listening_port}/mi".encode()
        body: Any = BodyOf(json.dumps(ask("say", "x")).encode())
        response = await agent.request(b"POST", uri, Headers({"Content-Type": ["application/json"]}), body)
        self.assertEqual(json.loads(await readBody(response))["result"], "x")
        try:
            await self.post(ask("say", "x"))
        except ResponseFailed:
            pass
        else:
            self.fail("plain HTTP was answered")

    async def test_refused(self) -> None:
        """Half of a pair, or a certificate that is none, starts nothing."""
        empty = self.mktemp()
        with open(empty, "w"):
            pass
        for parameters in (
            {"auth_username": "a"},
            {"auth_password": "a"},
            {"tls_cert_file": empty},
            {"tls_key_file": empty},
            {"tls_cert_file": empty, "tls_key_file": empty},
        ):
            httpd = Httpd(FakeServer(self.reactor), port=0, **parameters)
            try:
                await httpd.start()
            except ValueError as error:
                self.assertTrue(str(error).startswith("httpd: "))
            else:
                self.fail(f"{parameters} started")
            self.assertEqual(httpd.listening_port, 0)


class ParameterTests(SynchronousTestCase):
    """The modparams of httpd."""

    def test_refused(self) -> None:
        """Ports, addresses and times that cannot be are refused."""
        for name, value in (("port", 65536), ("port", -1), ("ip", "localhost"), ("ip", ""), ("conn_timeout", -1)):
            self.assertRaises(ValueError, Httpd().set_parameter, name, value)

    def test_unused(self) -> None:
        """What has no meaning here is taken, and said."""
        server = FakeServer()
        httpd = Httpd(server)
        for name, value in (("buf_size", 1), ("post_buf_size", 1), ("receive_buf_size", 1), ("tls_ciphers", "NORMAL")):
            httpd.set_parameter(name, value)
        self.assertEqual(len(server.user.lines), 4)
        self.assertTrue(all(level == 3 and "has no effect in sipgw: " in text for level, text in server.user.lines))


def make_certificate(directory: str) -> tuple[str, str]:
    """A certificate for localhost that signs itself, and its key, in two files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    os.mkdir(directory)
    paths = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
    with open(paths[0], "wb") as file:
        file.write(made.public_bytes(serialization.Encoding.PEM))
    with open(paths[1], "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return paths
