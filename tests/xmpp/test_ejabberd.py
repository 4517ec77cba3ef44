"""The gateway beside ejabberd, another server in another language: texts both ways, presence, its end and its return."""

from __future__ import annotations

import os
from typing import Any
from unittest import SkipTest

from tests.servers.ejabberd import ejabberd, missing
from tests.servers.prosody import COMPONENT, DOMAIN
from tests.xmpp.rig import Gatewayed, Jabber

ERROR = "{jabber:client}error/{urn:ietf:params:xml:ns:xmpp-stanzas}"


class EjabberdTests(Gatewayed):
    """The example of ``examples/xmpp`` with ejabberd, and romeo's slixmpp."""

    if missing():
        skip = missing()

    def jabber_server(self) -> Any:
        """ejabberd."""
        return ejabberd()

    async def setUp(self) -> None:  # type: ignore[override]
        """Start ejabberd first; where it does not come up there is nothing to test."""
        try:
            ejabberd()
        except AssertionError as error:
            raise SkipTest(str(error)) from None
        await super().setUp()

    def client(self, name: str) -> Jabber:
        """A client of it."""
        return Jabber(name, port=ejabberd().clients)

    async def test_all(self):
        """A text each way with its receipt, errors each way, presence each way; at night, too: killed and started again."""
        romeo = self.jabbers["romeo"]
        self.assertEqual((await self.say("Gr\u00fc\u00dfe \U0001f600")).status, 202)
        await self.until(lambda: romeo.bodies() == ["Gr\u00fc\u00dfe \U0001f600"])
        wish = "<request xmlns='urn:xmpp:receipts'/>"
        romeo.send(f"<message to='alice@{COMPONENT}' type='chat' id='m1'><body>Back</body>{wish}</message>")
        await self.until(lambda: [each.body for each in self.phone.messages] == [b"Back"])
        await self.until(lambda: romeo.saying("{urn:xmpp:receipts}received[@id='m1']"))
        self.assertEqual((await self.say("Hello", to="nobody")).status, 480)
        romeo.send(f"<message to='bob@{COMPONENT}' type='chat' id='m2'><body>Hello</body></message>")
        await self.until(lambda: romeo.saying(f"{ERROR}recipient-unavailable"))
        own = self.listening.getHost().port
        contact = f"Contact: <sip:alice@127.0.0.1:{own}>\r\nExpires: 600\r\nEvent: presence\r\n"
        self.assertEqual((await self.ask("SUBSCRIBE", f"sip:romeo@{DOMAIN}", contact)).status, 200)
        await self.until(lambda: [each for each in self.phone.messages if b"basic>open<" in each.body])
        romeo.send("<presence><show>away</show></presence>")
        await self.until(lambda: [each for each in self.phone.messages if b"away" in each.body])
        romeo.send(f"<presence to='alice@{COMPONENT}' type='subscribe'/>")
        await self.until(lambda: romeo.saying(f".[@from='alice@{COMPONENT}/sip']"))
        if not os.environ.get("SIPGW_NIGHTLY"):  # it takes its time to start
            return
        ejabberd().kill()
        await self.until(lambda: "down: " in self.child.text())
        self.assertEqual((await self.say("Away")).status, 480)
        ejabberd().start()
        await self.until(lambda: self.child.text().count("connected to") == 2)
        again = self.jabbers["again"] = self.client("romeo")
        again.start(self.reactor)
        await self.until(lambda: again.online)
        self.assertEqual((await self.say("Here")).status, 202)
        await self.until(lambda: "Here" in again.bodies())
