"""What parameters change, through a real Prosody: separators, more domains, receipts by IMDN, a proxy; what operators see."""

from __future__ import annotations

import json
import socket
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sipgw.modules.xmpp import Xmpp, client_tls
from sipgw.sip.cpim import Cpim
from sipgw.sip.imdn import Notification, asked
from sipgw.xmpp.address import Jid
from sipgw.xmpp.link import Down, Link, LinkSettings
from sipgw.xmpp.stanza import COMPONENT as NAMESPACE
from sipgw.xmpp.stanza import Element, SubElement, stanza
from tests.children import free_port
from tests.servers.ejabberd import ejabberd
from tests.servers.ejabberd import missing as no_ejabberd
from tests.servers.prosody import COMPONENT, DOMAIN, OTHER, SECRET, missing, prosody
from tests.xmpp.rig import Gatewayed

RECEIVED = "{urn:xmpp:receipts}received"


class StarTests(Gatewayed):
    """Phones that know their own domain only, two components, receipts by IMDN."""

    door = free_port()
    MORE = f"""
loadmodule "mi_datagram.so"
modparam("mi_datagram", "socket_name", "udp:127.0.0.1:{door}")
modparam("xmpp", "domain_separator", "*")
modparam("xmpp", "domain_map", "sip=second.test;jabber={OTHER}")
modparam("xmpp", "receipts", "imdn")
"""

    def script(self, text: str) -> str:
        """Tell Jabber users by the star."""
        text = text.replace("alias = sip.test", "alias = sip.test\nalias = second.test")
        return text.replace('if (!is_myself("$rd")) {', 'if ($rU =~ "\\*") {')

    async def setUp(self) -> None:  # type: ignore[override]
        """Wait for both components."""
        await super().setUp()
        await self.until(lambda: self.child.text().count("connected to") == 2)

    def manage(self, command: str) -> Any:
        """The result of a management command."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            door.settimeout(5)
            door.sendto(json.dumps({"jsonrpc": "2.0", "id": 1, "method": command}).encode(), ("127.0.0.1", self.door))
            return json.loads(door.recv(65535))["result"]

    async def test_star(self):
        """What comes from romeo bears the star, the answer to that address reaches him; so it does by the other component."""
        romeo = self.jabbers["romeo"]
        await self.register(domain="second.test")
        for domain, jabber, number in (("sip.test", COMPONENT, 1), ("second.test", OTHER, 2)):
            romeo.send(f"<message to='alice@{jabber}' type='chat' id='m{number}'><body>Hi</body></message>")
            await self.until(lambda number=number: len(self.phone.messages) == number)
            message = self.phone.messages[-1]
            self.assertEqual(message.from_.uri_text, f"sip:romeo*{DOMAIN}@{domain}")
            self.assertEqual(message.to.uri_text, f"sip:alice@{domain}")
        response = await self.ask("MESSAGE", f"sip:romeo*{DOMAIN}@{COMPONENT}", "Content-Type: text/plain\r\n", b"Back")
        self.assertEqual(response.status, 202)
        await self.until(lambda: romeo.bodies() == ["Back"])
        status = await deferToThread(self.manage, "xmpp:status")
        self.assertEqual([(each["domain"], each["state"]) for each in status["Links"]], [(COMPONENT, "up"), (OTHER, "up")])
        self.assertEqual((status["Messages"]["sent"], status["Messages"]["received"]), (1, 2))

    async def test_receipts(self):
        """A phone that understands CPIM is asked, and its IMDN is the receipt; for one that does not its 200 is."""
        romeo = self.jabbers["romeo"]
        wish = "<request xmlns='urn:xmpp:receipts'/>"
        romeo.send(f"<message to='alice@{COMPONENT}' type='chat' id='m1'><body>One</body>{wish}</message>")
        await self.until(lambda: self.phone.messages)
        cpim = Cpim.parse(self.phone.messages[0].body)
        self.assertEqual((cpim.body, asked(cpim)), (b"One", ("m1", True, False, False)))
        self.assertEqual(romeo.saying(RECEIVED), [])
        sender, receiver = f"sip:alice@{COMPONENT}", f"sip:romeo*{DOMAIN}@{COMPONENT}"
        note = Notification("m1", "delivery", "delivered", receiver).wrap(sender, receiver, "n1")
        response = await self.ask("MESSAGE", receiver, "Content-Type: message/cpim\r\n", note.write())
        self.assertEqual(response.status, 202)
        await self.until(lambda: romeo.saying(f"{RECEIVED}[@id='m1']"))
        self.phone.status = 0
        romeo.send(f"<message to='alice@{COMPONENT}' type='chat' id='m2'><body>Two</body>{wish}</message>")
        await self.until(lambda: romeo.saying(f"{RECEIVED}[@id='m2']"))
        kinds = [(each.header("content-type") or "").partition(";")[0] for each in self.phone.messages]
        self.assertEqual(kinds, ["message/cpim", "message/cpim", "text/plain"])

    async def test_phone_asks(self):
        """A phone asks by CPIM; slixmpp answers the wish by itself, and the phone hears "delivered"; an error is "failed"."""
        wanted = "NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: mine\r\n"
        wanted += "imdn.Disposition-Notification: positive-delivery, negative-delivery\r\n\r\nContent-Type: text/plain\r\n\r\nHi"
        to = f"sip:romeo*{DOMAIN}@{COMPONENT}"
        response = await self.ask("MESSAGE", to, "Content-Type: message/cpim\r\n", wanted.encode())
        self.assertEqual(response.status, 202)
        await self.until(lambda: self.phone.messages)
        note = Notification.parse(Cpim.parse(self.phone.messages[0].body).body)
        self.assertEqual((note.message_id, note.status), ("mine", "delivered"))
        element = self.jabbers["romeo"].saying("{jabber:client}body")[0]
        self.jabbers["romeo"].send(
            f"<message to='alice@{COMPONENT}' id='{element.get('id')}' type='error'><error type='cancel'>"
            "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
        )
        await self.until(lambda: len(self.phone.messages) == 2)
        note = Notification.parse(Cpim.parse(self.phone.messages[1].body).body)
        self.assertEqual((note.message_id, note.status), ("mine", "failed"))

    async def test_composing(self):
        """Who is writing, both ways; nobody hears if it does not arrive."""
        romeo = self.jabbers["romeo"]
        state = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
        romeo.send(f"<message to='alice@{COMPONENT}' type='chat'>{state}</message>")
        await self.until(lambda: self.phone.messages)
        self.assertEqual(self.phone.messages[0].header("content-type"), "application/im-iscomposing+xml")
        kind = "Content-Type: application/im-iscomposing+xml\r\n"
        response = await self.ask("MESSAGE", f"sip:romeo*{DOMAIN}@{COMPONENT}", kind, self.phone.messages[0].body)
        self.assertEqual(response.status, 202)
        await self.until(lambda: romeo.saying("{http://jabber.org/protocol/chatstates}composing"))


class ProxyTests(Gatewayed):
    """With ``outbound_proxy`` the script does not see what comes from Jabber."""

    def script(self, text: str) -> str:
        """The phone is the proxy."""
        own = self.listening.getHost().port
        line = f'modparam("xmpp", "outbound_proxy", "sip:127.0.0.1:{own}")\nmodparam("xmpp", "resources", 1)\n'
        return text.replace("route {", f"{line}route {{", 1)

    async def test_proxy(self):
        """The proxy gets it, whoever it is for; its answer goes back as an error."""
        romeo = self.jabbers["romeo"]
        self.phone.status = 404
        romeo.send(f"<message to='nobody@{COMPONENT}' type='chat' id='m1'><body>Hi</body></message>")
        path = "{jabber:client}error"
        errors = await self.until(lambda: [each for each in romeo.saying(path) if each.get("id") == "m1"])
        self.assertIsNotNone(errors[0].find(".//{urn:ietf:params:xml:ns:xmpp-stanzas}item-not-found"))
        message = self.phone.messages[0]
        self.assertEqual((message.uri, message.from_.uri_text), (f"sip:nobody@{COMPONENT}", f"sip:romeo@{DOMAIN};gr=r"))
        self.assertNotIn("Jabber:", self.child.text())

    async def test_order(self):
        """Fifty messages at once arrive in order, one after another."""
        romeo = self.jabbers["romeo"]
        texts = [f"number {number}" for number in range(50)]
        for text in texts:
            romeo.send(f"<message to='alice@{COMPONENT}' type='chat'><body>{text}</body></message>")
        await self.until(lambda: len(self.phone.messages) == len(texts))
        self.assertEqual([each.body.decode() for each in self.phone.messages], texts)


class Watching:
    """What a link tells."""

    def __init__(self) -> None:
        self.ups = 0
        self.reasons: list[str] = []
        self.stanzas: list[Element] = []

    def up(self, link: Link) -> None:
        self.ups += 1

    def down(self, link: Link, reason: str) -> None:
        self.reasons.append(reason)

    def came(self, link: Link, element: Element) -> None:
        self.stanzas.append(element)


class LinkTests(TestCase):
    """A link alone with Prosody."""

    if missing():
        skip = missing()

    def link(self, secret: str = SECRET, **more: Any) -> tuple[Link, Watching]:
        """A link that ends with the test."""
        from twisted.internet import reactor

        prosody().restore()
        watching = Watching()
        made = Link(LinkSettings(COMPONENT, port=prosody().components, secret=secret, **more), reactor, watching)
        made.start()
        self.addCleanup(made.stop)
        return made, watching

    async def until(self, condition: Any) -> None:
        """Wait until ``condition`` holds."""
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        for _ in range(2000):
            if condition():
                return
            await deferLater(reactor, 0.01, lambda: None)
        self.fail("waited in vain")

    @staticmethod
    def text(number: int, to: str = f"juliet@{DOMAIN}") -> Element:
        """A message."""
        made = stanza("message", f"alice@{COMPONENT}", to, id=f"n{number}", type="chat")
        SubElement(made, f"{{{NAMESPACE}}}body").text = f"number {number}"
        return made

    async def test_secret(self):
        """A wrong secret is said as such, never shown, and tried again."""
        link, watching = self.link("wrong")
        await self.until(lambda: watching.reasons)
        self.assertIn("not-authorized", watching.reasons[0])
        self.assertNotIn("wrong", repr(link.settings))
        self.assertEqual((link.state, watching.ups), ("down", 0))
        with self.assertRaises(Down) as caught:
            await link.deliver(self.text(1))
        self.assertFalse(caught.exception.sent)

    async def test_tls(self):
        """TLS from the first octet, to who can prove to be the host; to nobody else a handshake."""
        from twisted.internet import reactor
        from twisted.internet.ssl import DefaultOpenSSLContextFactory
        from twisted.protocols.portforward import ProxyFactory

        server = prosody()
        server.restore()
        files = [str(server.directory / name) for name in ("key.pem", "cert.pem")]
        factory = ProxyFactory("127.0.0.1", server.components)
        factory.noisy = False
        real: Any = reactor
        door = real.listenSSL(0, factory, DefaultOpenSSLContextFactory(*files), interface="127.0.0.1")
        self.addCleanup(door.stopListening)
        for name, accepted in ((DOMAIN, True), ("elsewhere.test", False)):
            watching = Watching()
            tls = client_tls(name, files[1])
            link = Link(LinkSettings(COMPONENT, "127.0.0.1", door.getHost().port, SECRET, tls), reactor, watching)
            link.start()
            await self.until(lambda watching=watching: watching.ups or watching.reasons)
            self.assertEqual(bool(watching.ups), accepted, watching.reasons)
            await link.stop()
        self.assertRaises(ValueError, client_tls, DOMAIN, files[0])
        self.assertRaises(ValueError, client_tls, DOMAIN, "/nosuch")

    async def test_deliver(self):
        """Five hundred at once: each is answered for itself, errors among them; a few questions to the server are enough."""
        link, watching = self.link(keepalive=0.05)
        await self.until(lambda: link.ready)
        asked: list[int] = []
        name = link._deliveries._name

        def counted() -> str:
            asked.append(1)
            return name()

        self.patch(link._deliveries, "_name", counted)
        people = [f"{'juliet' if number % 2 else 'nobody'}@{DOMAIN}" for number in range(500)]
        results = await gatherResults([_deferred(link.deliver(self.text(n, to))) for n, to in enumerate(people)])
        self.assertEqual([status for status, _ in results], [480, 200] * 250)
        self.assertLess(len(asked), 20)
        same = [_deferred(link.deliver(self.text(1, people[number // 2 % 2]))) for number in range(8)]
        self.assertEqual([(await each)[0] for each in same], [480, 480, 200, 200] * 2)  # though all have one name
        self.assertEqual((link.pending, watching.stanzas), (0, []))
        await self.until(lambda: len(asked) > 3)  # and it goes on asking while nothing happens
        self.assertEqual(watching.ups, 1)

    async def test_bound(self):
        """No more than a thousand wait for a server that stands still; all hear of it when it is given up."""
        link, _ = self.link(response_time=0.5)
        await self.until(lambda: link.ready)
        prosody().freeze()
        waiting = [_deferred(link.deliver(self.text(number))) for number in range(1001)]
        results = [await _outcome(each) for each in reversed(waiting)]
        self.assertEqual([each.sent for each in results], [False] + [True] * 1000)
        prosody().thaw()


class EjabberdTests(TestCase):
    """The same words with ejabberd."""

    if no_ejabberd():
        skip = no_ejabberd()
    until: Any = LinkTests.until

    def link(self, secret: str = SECRET, **more: Any) -> tuple[Link, Watching]:
        """A link that ends with the test."""
        from twisted.internet import reactor

        watching = Watching()
        made = Link(LinkSettings(COMPONENT, port=ejabberd().components, secret=secret, **more), reactor, watching)
        made.start()
        self.addCleanup(made.stop)
        return made, watching

    @staticmethod
    def text(number: int, to: str = f"romeo@{DOMAIN}") -> Element:
        """A message; people here are romeo and nobody."""
        return LinkTests.text(number, to.replace("juliet", "romeo"))

    async def test_secret(self):
        """A wrong secret is said as such."""
        same: Any = LinkTests.test_secret
        await same(self)

    async def test_deliver(self):
        """Five hundred at once: each is answered for itself."""
        same: Any = LinkTests.test_deliver
        await same(self)


def _deferred(coroutine: Any) -> Any:
    from twisted.internet.defer import ensureDeferred

    return ensureDeferred(coroutine)


async def _outcome(waiting: Any) -> Any:
    try:
        return await waiting
    except Down as error:
        return error


class ParameterTests(SynchronousTestCase):
    """What is refused when the script is read."""

    def test_refused(self):
        """The mode that there is not, domains that are none, separators that would not separate."""
        module = Xmpp()
        for name, value in (
            ("backend", "cluster"), ("server_tls", "some"), ("server_route", "a.test"), ("server_route", "a.test=b:x"),
            ("xmpp_domain", "a b"), ("domain_map", "jabber=x"), ("domain_map", "sip=a;colour=red"),
            ("domain_separator", "ab"), ("domain_separator", "@"), ("domain_separator", "x"), ("receipts", "always"),
        ):
            self.assertRaises(ValueError, module.set_parameter, name, value)
        module.set_parameter("domain_map", "sip=second.test")
        self.assertEqual(Jid.parse("second.test").domain, "second.test")
