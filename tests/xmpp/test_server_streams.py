"""Streams between servers without a network: who may say what, and what ends a stream."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.target import Question, Record, Srv, Target, service_targets
from sipgw.xmpp import server as server_module
from sipgw.xmpp.deliveries import Down
from sipgw.xmpp.dialback import key_for, key_is_right
from sipgw.xmpp.encryption import Encryption, is_for
from sipgw.xmpp.remote import Remote
from sipgw.xmpp.server import Server, ServerLink, ServerSettings
from sipgw.xmpp.server_streams import Inbound, Outbound
from tests.servers.prosody_far import authority

TLS = "urn:ietf:params:xml:ns:xmpp-tls"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
HEAD = (
    "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' "
    "xmlns:db='jabber:server:dialback' from='far.test' to='near.test' id='s1' version='1.0'>"
)
MESSAGE = "<message from='romeo@far.test/r' to='alice@near.test'><body>Hi</body></message>"


class Transport(StringTransport):
    """A transport that only says that it speaks TLS."""

    secure = False

    def startTLS(self, _context: Any) -> None:
        self.secure = True

    def setTcpNoDelay(self, _on: bool) -> None:
        pass

    setTcpKeepAlive = setTcpNoDelay


class Proof:
    """What certificates prove."""

    has_certificate = True

    def __init__(self) -> None:
        self.domains = {"far.test"}

    def proves(self, transport: Any, domain: str) -> bool:
        return bool(transport.secure) and domain in self.domains


class Streams(SynchronousTestCase):
    """A server that asks nobody."""

    TLS = "optional"

    def setUp(self) -> None:
        self.clock = Clock()
        self.came_in: list[str] = []
        self.told: list[str] = []
        self.proof = proof = Proof()
        encryption: Any = proof
        watcher: Any = self
        peers = frozenset({"far.test", "other.test"})
        settings = ServerSettings(tls=self.TLS, routes={"far.test": ("192.0.2.1", 5269)}, peers=peers)
        self.server = Server(settings, self.clock, encryption, b"secret", self.targets, self.launch)
        self.link = ServerLink(self.server, "near.test", watcher)
        self.checked: list[tuple[str, str]] = []

    async def targets(self, _domain: str) -> list[Target]:
        return []

    def launch(self, coroutine: Any) -> None:
        coroutine.close()

    def up(self, link: Any) -> None:
        self.told.append(f"up {link.key}")

    def down(self, link: Any, reason: str) -> None:
        self.told.append(f"down {link.key}: {reason}")

    def waits(self, key: str) -> bool:
        return False

    def came(self, link: Any, element: Any) -> None:
        self.came_in.append(f"{link.settings.domain}: {element.tag} {element.get('from')}")

    def inbound(self, head: str = HEAD) -> tuple[Inbound, Transport]:
        """A stream that has begun."""
        stream, transport = Inbound(self.server, "192.0.2.1"), Transport()
        self.server.inbound.add(stream)
        stream.makeConnection(transport)
        stream.dataReceived(head.encode())
        return stream, transport

    @staticmethod
    def said(transport: Transport) -> str:
        """What was written since last time."""
        text: str = transport.value().decode()
        transport.clear()
        return text

    def claim(self, stream: Inbound, valid: bool | None, domain: str = "far.test") -> None:
        """Dialback, with the answer of the server that the DNS names."""
        async def verify(id: str, key: str) -> bool:
            self.checked.append((id, key))
            if valid is None:
                raise Down("no")
            return valid

        remote: Any = self.server.remote("near.test", domain)
        remote.verify = verify
        stream.dataReceived(f"<db:result from='{domain}' to='near.test'>abc</db:result>".encode())


class InboundTests(Streams):
    """What other servers send."""

    def test_nobody(self):
        """A stanza before any proof ends the stream, and goes nowhere."""
        stream, transport = self.inbound()
        self.assertIn("<dialback xmlns='urn:xmpp:features:dialback'>", self.said(transport))
        stream.dataReceived(MESSAGE.encode())
        self.assertIn("not-authorized", self.said(transport))
        self.assertTrue(stream.closed)
        self.assertEqual(self.came_in, [])

    def test_dialback(self):
        """A key that is right lets stanzas of that domain in, and of no other."""
        stream, transport = self.inbound()
        id = re.findall(" id='([0-9a-f]+)'|id=\"([0-9a-f]+)\"", self.said(transport))[0][1]
        self.claim(stream, True)
        self.assertEqual(self.checked, [(id, "abc")])
        self.assertIn('type="valid"', self.said(transport))
        stream.dataReceived(MESSAGE.encode())
        self.assertEqual(self.came_in, ["near.test: {jabber:component:accept}message romeo@far.test/r"])
        stream.dataReceived(MESSAGE.replace("far.test", "other.test").encode())
        self.assertIn("not-authorized", self.said(transport))
        self.assertEqual(len(self.came_in), 1)

    def test_wrong(self):
        """A key that is wrong, one that nobody can check, domains that are ours, unknown or not spoken with."""
        for valid, domain, wanted, closed in (
            (False, "far.test", 'type="invalid"', True), (None, "far.test", 'type="error"', False),
            (True, "stranger.test", 'type="error"', False), (True, "near.test", 'type="error"', False),
        ):
            stream, transport = self.inbound()
            self.said(transport)
            self.claim(stream, valid, domain)
            self.assertIn(wanted, self.said(transport))
            self.assertEqual((stream.closed, stream.pairs), (closed, {}))
        stream, transport = self.inbound()
        stream.dataReceived(b"<db:result from='far.test' to='elsewhere.test'>abc</db:result>")
        self.assertIn("host-unknown", self.said(transport))

    def test_authority(self):
        """We say whether a key is ours: that which we made for this server and this stream."""
        right = key_for(b"secret", "far.test", "near.test", "s7")
        self.assertTrue(key_is_right(b"secret", f" {right}\n", "far.test", "near.test", "s7"))
        stream, transport = self.inbound()
        for key, id, wanted in (
            (right, "s7", "valid"), (right, "s8", "invalid"), ("", "s7", "invalid"), ("\u00e9", "s7", "invalid"),
        ):
            self.said(transport)
            stream.dataReceived(f"<db:verify from='far.test' to='near.test' id='{id}'>{key}</db:verify>".encode())
            self.assertIn(f'type="{wanted}"', self.said(transport))

    def test_external(self):
        """With TLS and a certificate: EXTERNAL, for the domain that the certificate is for, and the one that was named."""
        stream, transport = self.inbound()
        self.assertIn("<starttls", self.said(transport))
        stream.dataReceived(f"<starttls xmlns='{TLS}'/>{MESSAGE}".encode())  # what follows in plain text is nobody's
        self.assertIn("<proceed", self.said(transport))
        self.assertTrue(transport.secure)
        stream.dataReceived(HEAD.encode())
        self.assertIn("EXTERNAL", self.said(transport))
        auth = f"<auth xmlns='{SASL}' mechanism='EXTERNAL'>%s</auth>"
        for text in ("b3RoZXIudGVzdA==", "???", "bmVhci50ZXN0"):  # other.test, nothing, near.test
            stream.dataReceived((auth % text).encode())
            self.assertIn("not-authorized", self.said(transport))
        stream.dataReceived((auth % "ZmFyLnRlc3Q=").encode())
        self.assertIn("<success", self.said(transport))
        stream.dataReceived(f"{HEAD}{MESSAGE}".encode())
        self.assertNotIn("mechanisms", self.said(transport))
        self.assertEqual(len(self.came_in), 1)

    def test_certificate_of_another(self):
        """A certificate of somebody else offers nothing but dialback."""
        self.proof.domains = {"elsewhere.test"}
        stream, transport = self.inbound()
        stream.dataReceived(f"<starttls xmlns='{TLS}'/>".encode())
        stream.dataReceived(HEAD.encode())
        self.assertNotIn("EXTERNAL", self.said(transport))
        stream.dataReceived(f"<auth xmlns='{SASL}' mechanism='EXTERNAL'>=</auth>".encode())
        self.assertIn("not-authorized", self.said(transport))

    def test_ends(self):
        """What ends a stream: another host, no addresses, what is no XMPP, entities, too much, silence; twice TLS."""
        for data, condition in (
            (MESSAGE.replace(" to='alice@near.test'", ""), "improper-addressing"), ("<hello/>", "unsupported-stanza-type"),
            ("<!DOCTYPE a [<!ENTITY b 'c'>]>", ""), ("<message><body>" + "x" * 20_000, ""), ("</stream:stream>", ""), ("<<", ""),
        ):
            stream, transport = self.inbound()
            self.said(transport)
            stream.dataReceived(data.encode())
            self.assertTrue(stream.closed, data[:50])
            self.assertIn(condition, self.said(transport))
        stream, transport = self.inbound(HEAD.replace("to='near.test'", "to='elsewhere.test'"))
        self.assertIn("host-unknown", self.said(transport))
        stream, transport = self.inbound()
        self.clock.advance(31)
        self.assertTrue(stream.closed)
        stream, transport = self.inbound()
        stream.dataReceived(f"<starttls xmlns='{TLS}'/>".encode())
        stream.dataReceived(f"{HEAD}<starttls xmlns='{TLS}'/>".encode())
        self.assertTrue(stream.closed)

    def test_bounds(self):
        """No more than fifty streams of an address."""
        for _ in range(50):
            self.assertTrue(self.server.admits("192.0.2.1"))
            self.inbound()
        self.assertFalse(self.server.admits("192.0.2.1"))
        self.assertTrue(self.server.admits("192.0.2.2"))


class RequiredTests(Streams):
    """TLS is a must."""

    TLS = "required"

    def test_plain(self):
        """Dialback without TLS is refused; over TLS it counts."""
        stream, transport = self.inbound()
        self.assertIn("<required/>", self.said(transport))
        self.claim(stream, True)
        self.assertIn("policy-violation", self.said(transport))
        stream, transport = self.inbound()
        stream.dataReceived(f"<starttls xmlns='{TLS}'/>".encode())
        stream.dataReceived(HEAD.encode())
        self.claim(stream, True)
        self.assertIn('type="valid"', self.said(transport))


class VerifiedTests(Streams):
    """Only certificates count."""

    TLS = "verified"

    def test_dialback(self):
        """Dialback does not, even over TLS."""
        stream, transport = self.inbound()
        stream.dataReceived(f"<starttls xmlns='{TLS}'/>".encode())
        stream.dataReceived(HEAD.encode())
        self.assertNotIn("dialback xmlns", self.said(transport))
        self.claim(stream, True)
        self.assertTrue(stream.closed)

    def test_outbound(self):
        """A server without TLS, or with somebody else's certificate, is not spoken to."""
        for features, secure, reason in (
            ("<stream:features/>", False, "offers no TLS"), ("<stream:features/>", True, "does not prove"),
        ):
            self.proof.domains = set()
            stream, transport, remote = outbound(self)
            stream.secure = transport.secure = secure
            stream.dataReceived(f"{HEAD}{features}".encode())
            self.assertIn(reason, stream.reason)
            self.assertFalse(remote.stream is not None and stream.accepted)


def outbound(case: Streams) -> tuple[Outbound, Transport, Remote]:
    """Our stream, connected."""
    remote = case.server.remote("near.test", "far.test")
    remote.connect()
    stream, transport = Outbound(remote), Transport()
    remote.stream = stream
    stream.makeConnection(transport)
    return stream, transport, remote


class OutboundTests(Streams):
    """Our streams to others."""

    def test_dialback(self):
        """A key is shown, stanzas wait for its being taken; the answer to our question is the word for all before it."""
        remote = self.server.remote("near.test", "far.test")
        element = self.element()
        done = Deferred.fromCoroutine(remote.deliver(element))
        stream, transport, _ = outbound(self)
        stream.dataReceived(f"{HEAD}<stream:features/>".encode())
        said = self.said(transport)
        self.assertIn(key_for(b"secret", "far.test", "near.test", "s1"), said)
        self.assertNotIn("<message", said)
        stream.dataReceived(b"<db:result from='far.test' to='near.test' type='valid'/>")
        said = self.said(transport)
        self.assertIn("<body>Hi</body>", said)
        id = re.findall('<iq from="near.test" to="far.test" id="([^"]+)"', said)[0]
        inbound, _ = self.inbound()
        self.claim(inbound, True)
        forged = f"<iq from='romeo@far.test' to='near.test' id='{id}' type='result'/>"
        inbound.dataReceived(forged.encode())
        self.assertNoResult(done)
        inbound.dataReceived(forged.replace("romeo@", "").encode())
        self.assertEqual(self.successResultOf(done), (200, "OK"))
        self.assertEqual((remote.state, remote.proof), ("up", "dialback"))
        self.clock.advance(601)
        self.assertTrue(stream.closed)
        stream.connectionLost()
        self.assertEqual((remote.state, self.told), ("idle", []))

    def test_refused(self):
        """A key that is not believed: what waits fails, and is not tried again before a while."""
        remote = self.server.remote("near.test", "far.test")
        done = Deferred.fromCoroutine(remote.deliver(self.element()))
        stream, _, _ = outbound(self)
        stream.dataReceived(f"{HEAD}<stream:features/><db:result from='far.test' to='near.test' type='invalid'/>".encode())
        stream.connectionLost()
        self.assertFalse(self.failureResultOf(done, Down).value.sent)
        self.assertEqual((remote.state, len(self.told)), ("down", 1))
        self.failureResultOf(Deferred.fromCoroutine(remote.deliver(self.element())), Down)
        self.clock.advance(2)
        self.assertEqual(remote.state, "idle")

    def test_lost(self):
        """A stream that breaks: what was sent may have arrived, and says so."""
        remote = self.server.remote("near.test", "far.test")
        done = Deferred.fromCoroutine(remote.deliver(self.element()))
        stream, _, _ = outbound(self)
        stream.dataReceived(f"{HEAD}<stream:features/><db:result from='far.test' to='near.test' type='valid'/>".encode())
        self.clock.advance(11)  # no answer
        stream.connectionLost()
        self.assertTrue(self.failureResultOf(done, Down).value.sent)

    def test_old(self):
        """A server of before XMPP 1.0 has no features, and is shown the key at once."""
        stream, transport, _ = outbound(self)
        stream.dataReceived(HEAD.replace(" version='1.0'>", ">").encode())
        self.assertIn("<db:result", self.said(transport))

    def test_most(self):
        """A thousand servers are remembered; who cannot be reached makes room for the next."""
        self.patch(server_module, "MOST_REMOTES", 3)
        self.server.settings.peers = frozenset()
        for number in range(5):
            remote = self.server.remote("near.test", f"{number}.test")
            remote.connect()
            remote._failed("its name leads nowhere")
        self.assertEqual([theirs for _, theirs in self.server.remotes], ["2.test", "3.test", "4.test"])
        for remote in self.server.remotes.values():
            remote.state = "up"
        self.assertFalse(self.server.remote("near.test", "5.test").ready)
        self.assertEqual(len(self.clock.getDelayedCalls()), 3)

    def test_strangers(self):
        """Nothing is sent to servers that we do not speak with, or to ourselves."""
        for domain in ("stranger.test", "near.test"):
            remote = self.server.remote("near.test", domain)
            self.failureResultOf(Deferred.fromCoroutine(remote.deliver(self.element())), Down)
            self.assertRaises(Down, remote.send, self.element())
            self.assertEqual(remote.state, "idle")

    @staticmethod
    def element() -> Any:
        """A message."""
        from sipgw.xmpp.stanza import COMPONENT, SubElement, stanza

        made = stanza("message", "alice@near.test", "romeo@far.test")
        SubElement(made, f"{{{COMPONENT}}}body").text = "Hi"
        return made


class CertificateTests(SynchronousTestCase):
    """For whom a certificate is."""

    def test_names(self):
        """Its names, one label below a star, international ones; nothing without a name; a file that is none is said."""
        folder = Path(self.mktemp())
        folder.mkdir()
        for names, domain, right in (
            (("a.test",), "a.test", True), (("a.test",), "b.a.test", False), (("*.a.test",), "b.a.test", True),
            (("*.a.test",), "c.b.a.test", False), (("*.test",), "a.test", False),
            (("xn--bcher-kva.test",), "b\u00fccher.test", True),
            (("a.test", "b.test"), "b.test", True), (("a.test",), "", False),
        ):
            authority().issue(folder, *names)
            certificate = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
            self.assertEqual(is_for(certificate, domain), right, (names, domain))
        self.assertTrue(Encryption(["a.test"], str(folder / "cert.pem"), str(folder / "key.pem")).has_certificate)
        self.assertFalse(Encryption(["b\u00fccher.test"]).has_certificate)
        self.assertRaises(ValueError, Encryption, ["a.test"], str(folder / "key.pem"))
        self.assertRaises(ValueError, Encryption, ["a.test"], "/nosuch")


class TargetTests(SynchronousTestCase):
    """Where a server is, by the DNS."""

    def find(self, host: str, records: dict[tuple[str, str], list[Record]]) -> list[tuple[str, int]]:
        """Answer what is asked from ``records``."""
        steps = service_targets("_xmpp-server._tcp", host, 5269, families=("A", "AAAA"), random=lambda: 0.0)
        try:
            question: Question = next(steps)
            while True:
                question = steps.send(records.get((question.kind, question.name), []))
        except StopIteration as done:
            return [(each.host, each.port) for each in done.value]

    def test_found(self):
        """SRV records in their order; without any the address and 5269; with "." nothing; an address as it is."""
        service = "_xmpp-server._tcp.a.test"
        address = {("A", "a.test"): [Record("a.test", "A", "192.0.2.1")], ("A", "x.test"): [Record("x.test", "A", "192.0.2.2")]}
        self.assertEqual(self.find("a.test", address), [("192.0.2.1", 5269)])
        srv = [Record(service, "SRV", Srv(20, 0, 5270, "a.test")), Record(service, "SRV", Srv(10, 0, 5271, "x.test"))]
        self.assertEqual(self.find("a.test", {**address, ("SRV", service): srv}), [("192.0.2.2", 5271), ("192.0.2.1", 5270)])
        none = [Record(service, "SRV", Srv(0, 0, 0, "."))]
        self.assertEqual(self.find("a.test", {**address, ("SRV", service): none}), [])
        self.assertEqual(self.find("192.0.2.9", {}), [("192.0.2.9", 5269)])
