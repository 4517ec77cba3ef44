"""A SIP user says who may see whether she has a phone: asked by a MESSAGE, answered by one, kept over a restart."""

from __future__ import annotations

from twisted.internet.threads import deferToThread

from tests.xmpp.test_subscribe import Kept


class ConsentTests(Kept):
    """With approval "ask"."""

    PHONES = 1
    MORE = f'{Kept.MORE}\nmodparam("pua_xmpp", "approval", "ask")\nmodparam("pua_xmpp", "approval_text", "%s fragt.")'

    def questions(self) -> list[str]:
        """What the phone was asked."""
        return [each.body.decode() for each in self.phone.messages if each.method == "MESSAGE"]

    async def decide(self, word: str) -> None:
        """The SIP user answers."""
        headers = "Content-Type: text/plain\r\n"
        response = await self.ask("MESSAGE", "sip:romeo@jabber.test", headers, word.encode(), sender=self.user)
        self.assertEqual(response.status, 202)

    async def test_asked(self):
        """Nobody sees her before she allows it; not after a restart either, when she has denied it."""
        self.subscribe()
        await self.until(lambda: self.questions() == ["romeo@jabber.test fragt."])
        self.assertEqual(self.seen(), [])
        await self.decide("#allow")
        await self.sees("subscribed", "available/sip")
        await self.decide(" #DENY")
        await self.sees("unavailable/sip", "unsubscribed")
        self.assertEqual(self.jabbers["romeo"].bodies(), [])
        self.leave()
        await deferToThread(self.child.wait)
        self.start()
        await self.until(lambda: "connected to" in self.child.text())
        await self.register(self.user)
        before = len(self.seen())
        self.subscribe()
        await self.until(lambda: self.seen()[before:] == ["unsubscribed"])
        self.assertEqual(self.questions(), ["romeo@jabber.test fragt."])
