"""The SMSC of npm's package smpp: an independent codec on the other side."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from sipgw.sip.cpim import Cpim
from sipgw.sip.imdn import Notification
from sipgw.sms.esme import Esme, Smsc
from sipgw.sms.gateway import Gateway, GatewaySettings
from sipgw.sms.session import Settings
from tests.children import HOST, ROOT, bound, free_port
from tests.servers.private import PrivateServer, folder
from tests.sms.test_gateway import Phones, Spooled, User

PACKAGE = Path(os.environ.get("SIPGW_NODE", ROOT / ".venv" / "node")) / "node_modules" / "smpp"
NODE = shutil.which("node")


class NodeTests(Spooled):
    """A gateway that is bound to it."""

    def setUp(self) -> None:
        """Start it."""
        if NODE is None or not PACKAGE.exists():
            self.skipTest("npm's smpp is not here: make test installs it where there is npm")
        super().setUp()
        self.user = User(self.reactor)
        self.phones = Phones()
        options = GatewaySettings(domain="sip.test")
        self.gateway = Gateway(self.user, self.reactor, self.spool, self.phones, options, lambda *_a, **_k: None)
        number = free_port()
        self.directory = folder("node")
        script = ROOT / "tests" / "servers" / "smsc.js"
        command = [NODE, str(script), str(PACKAGE), str(number)]
        server = PrivateServer("node", command, self.directory, lambda: bound(number, "tcp"))
        server.start()
        self.addCleanup(server.kill)
        smsc = Smsc("node", HOST, number, "sipgw", "pw", settings=Settings(enquire_time=0))
        self.gateway.add_esme(Esme(smsc, self.reactor, self.gateway))

    async def tearDown(self) -> None:  # type: ignore[override]
        """Stop the gateway."""
        await self.gateway.stop()
        await self.until(lambda: not self.gateway.esmes["node"].links)
        self.assertEqual(self.user.broken, [])

    def took(self) -> list[dict[str, str]]:
        """What it says that it took."""
        lines = (self.directory / "node.log").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def send(self, text: str) -> None:
        """A text whose sender asks for a receipt."""
        await self.gateway.send(
            "node", "+4930", "+49170", text, sender="sip:alice@sip.test", receiver="sip:+49170@sip.test",
            details={"receipt": 1, "imdn": ("m1", True, True, False)},
        )

    async def test_out(self) -> None:
        """Long texts of both alphabets, as it reads them; a receipt for each."""
        await self.gateway.start()
        for number, text in enumerate(("Grüße, € und [Klammern] " * 12, "Привет \U0001f600 " * 20), 1):
            before = len(self.took())
            await self.send(text)
            await self.until(lambda number=number: len(self.phones.came) == number)
            note = Notification.parse(Cpim.parse(self.phones.came[-1][3]).body)
            self.assertEqual(note.status, "delivered")
            self.assertEqual("".join(each["text"] for each in self.took()[before:]), text)
        await self.emptied()

    async def test_in(self) -> None:
        """Texts of each coding, and one in a message_payload."""
        await self.gateway.start()
        for text, answer in (("gsm", "Grüße €[]"), ("ucs", "Привет \U0001f642"), ("payload", "long " * 80)):
            self.phones.came.clear()
            await self.send(text)
            await self.until(lambda: len(self.phones.came) == 2)
            (said,) = [body.decode() for _, _, kind, body in self.phones.came if kind.startswith("text/plain")]
            self.assertEqual(said, answer)
        await self.emptied()
