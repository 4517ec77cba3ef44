"""baresip and a Jabber client see each other: its module presence subscribes to romeo, and tells romeo what its user does."""

from __future__ import annotations

from twisted.internet.threads import deferToThread

from tests.phones.softphones import BARESIP, Baresip
from tests.servers.prosody import COMPONENT
from tests.xmpp.test_subscribe import Seeing


class Present(Baresip):
    """It knows romeo."""

    modules = "presence"
    contacts = '"romeo" <sip:romeo@jabber.test>;presence=p2p\n'
    through_server = True

    def start(self) -> None:
        """Be of that domain."""
        self.address = f"sip:{self.user}@{COMPONENT}"
        super().start()


class BaresipTests(Seeing):
    """Both ways."""

    PHONES = 0
    if not BARESIP:
        skip = "not installed: baresip"

    async def test_both_ways(self):
        """It is told what romeo does, and tells him what its user does."""
        phone = await deferToThread(Present, self.folder / "baresip", "carol", self.port, 500)
        self.alice = f"carol@{COMPONENT}"
        try:
            await self.shows(phone, "Online")
            self.subscribe()
            await self.sees("subscribed", "unavailable/sip")
            await deferToThread(phone.ask, "presence_online")
            await self.until(lambda: self.seen()[-1].startswith("available/"))
            await deferToThread(phone.ask, "presence_offline")
            await self.until(lambda: self.seen()[-1].startswith("unavailable/"))
            self.jabbers["romeo"].send("<presence><show>dnd</show></presence>")
            await self.shows(phone, "Busy")
            await self.jabbers["romeo"].stop()
            await self.shows(phone, "Offline")
        finally:
            await deferToThread(phone.quit)

    async def shows(self, phone: Present, word: str) -> None:
        """Wait until its list shows romeo as that."""
        end = self.reactor.seconds() + 10.0
        while word not in (text := await deferToThread(phone.ask, "contacts")):
            if self.reactor.seconds() > end:
                self.fail(f"{text}\n{phone.child.text()[-2000:]}\n{self.child.text()[-2000:]}")
            await self.turn()
