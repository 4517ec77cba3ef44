"""Kannel against the gateway: as an ESME that binds to us (bearerbox and smsbox), as an SMSC that we bind to (drive_smpp)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.web.client import Agent, readBody
from twisted.web.resource import Resource
from twisted.web.server import Site

from sipgw.sms.esme import Esme, Smsc
from sipgw.sms.gateway import Gateway, GatewaySettings
from sipgw.sms.session import Settings
from sipgw.sms.smsc import Account, Port
from tests.children import HOST, bound, free_port
from tests.servers import kannel
from tests.servers.private import PrivateServer, folder
from tests.sms.test_gateway import Phones, Spooled, User

LONG = "Grüße aus Köln, € und [Klammern] " * 12
SMILE = "Привет \U0001f600 " * 20


class Application(Resource):
    """What Kannel tells by HTTP: texts (``mo``) and what became of those that it was given (``dlr``)."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, dict[str, bytes]]] = []

    def render_GET(self, request: Any) -> bytes:
        """Note it."""
        name = request.path.decode().strip("/")
        self.told.append((name, {key.decode(): value[0] for key, value in request.args.items()}))
        return b""

    def of(self, name: str) -> list[dict[str, bytes]]:
        """All of one kind."""
        return [values for each, values in self.told if each == name]


class KannelCase(Spooled):
    """A gateway, and what stands around it."""

    def setUp(self) -> None:
        """Make them."""
        if not os.environ.get("CI") and (kannel.BEARERBOX is None or not Path(kannel.EMULATOR).exists()):
            self.skipTest("Kannel is not here: apt-get install kannel kannel-extras")
        super().setUp()
        self.user = User(self.reactor)
        self.phones = Phones()
        options = GatewaySettings(domain="sip.test")
        self.gateway = Gateway(self.user, self.reactor, self.spool, self.phones, options, lambda *_a, **_k: None)

    async def tearDown(self) -> None:  # type: ignore[override]
        """Stop the gateway."""
        await self.gateway.stop()
        port = self.gateway.port
        await self.until(lambda: (port is None or not port.links) and not any(e.links for e in self.gateway.esmes.values()))
        self.assertEqual(self.user.broken, [])


class EsmeTests(KannelCase):
    """Kannel binds to us."""

    def setUp(self) -> None:
        """Start Kannel."""
        super().setUp()
        accounts = {"kannel": Account("kannel", "pw")}
        port = Port(accounts, Settings(), self.reactor, self.gateway)
        self.gateway.open_port(port)
        self.application = Application()
        listening = self.reactor.listenTCP(0, Site(self.application), interface=HOST)
        self.addCleanup(listening.stopListening)
        self.kannel = kannel.Kannel(port.listen(HOST, 0), listening.getHost().port)
        self.kannel.start()
        self.addCleanup(self.kannel.stop)
        self.dlr = f"http://{HOST}:{listening.getHost().port}/dlr?state=%d"

    async def submit(self, text: str) -> None:
        """Give Kannel a text, as an application does."""
        url = (
            f"http://{HOST}:{self.kannel.sendsms}/cgi-bin/sendsms?username=u&password=p&from=1000&to=%2B49170123&charset=UTF-8"
            f"&text={quote(text)}&dlr-mask=31&dlr-url={quote(self.dlr, safe='')}"
        )
        if any(ord(character) > 0x20AC for character in text) or "П" in text:
            url += "&coding=2"
        agent: Any = Agent(self.reactor)
        response = await agent.request(b"GET", url.encode())
        body = await readBody(response)
        self.assertEqual(response.code, 202, body)

    async def test_both_ways(self) -> None:
        """Long texts of both alphabets, byte for byte, each way; Kannel hears that they were delivered."""
        await self.gateway.start()
        port = self.gateway.port
        assert port is not None
        await self.until(lambda: port.sessions("kannel"))
        await self.until(self._http)
        for number, text in enumerate((LONG, SMILE), 1):
            await self.submit(text)
            await self.until(lambda number=number: len(self.phones.came) == number, self.kannel.log())
            receiver, _, _, body = self.phones.came[-1]
            self.assertEqual((receiver, body.decode()), ("sip:+49170123@sip.test", text.replace("\n", "\r\n")))
        await self.until(lambda: sum(each["state"] == b"1" for each in self.application.of("dlr")) == 2, self.kannel.log())
        for number, text in enumerate((LONG, SMILE), 1):
            await self.gateway.send("kannel", "+49170123", "1000", text, sender="", receiver="", details={})
            await self.until(lambda number=number: len(self.application.of("mo")) == number, self.kannel.log())
            said = self.application.of("mo")[-1]
            self.assertEqual(said["text"].decode(said["charset"].decode()), text, said)
        await self.emptied()

    def _http(self) -> bool:
        return bound(self.kannel.sendsms, "tcp")


class SmscTests(KannelCase):
    """Kannel's SMSC emulator, which sends texts to a receiver and takes those of a transmitter."""

    def setUp(self) -> None:
        """Get it ready."""
        super().setUp()
        self.directory = folder("drive")
        self.number = free_port()
        command = [kannel.EMULATOR, "-v", "1", "-p", str(self.number), "-m", "20"]
        self.emulator = PrivateServer("drive_smpp", command, self.directory, lambda: bound(self.number, "tcp"))

    async def test_receiver(self) -> None:
        """All twenty of its texts arrive, each once, before it gives up waiting for the smsbox that it wants to see, too."""
        self.emulator.start()
        self.addCleanup(self.emulator.kill)
        smsc = Smsc("drive", HOST, self.number, "x", "y", "VMA", session_type=3, settings=Settings(enquire_time=0))
        self.gateway.add_esme(Esme(smsc, self.reactor, self.gateway))
        await self.gateway.start()
        await self.until(lambda: len(self.phones.came) == 20)
        self.assertEqual(sorted(int(body) for _, _, _, body in self.phones.came), list(range(1, 21)))
        self.assertEqual({came[:2] for came in self.phones.came}, {("sip:123@sip.test", "sip:456@sip.test")})
        await self.emptied()
