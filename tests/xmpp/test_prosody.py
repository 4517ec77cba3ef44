"""Messages both ways through a real Prosody, with slixmpp and go-sendxmpp as clients."""

from __future__ import annotations

from twisted.internet.threads import deferToThread

from tests.servers.prosody import COMPONENT, go_sendxmpp
from tests.xmpp.rig import Gatewayed

BODY = "{jabber:client}body"


class MessageTests(Gatewayed):
    """The example of ``examples/xmpp`` as it is, but for its ports."""

    async def test_both_ways(self):
        """A text each way, with its subject, its thread and its language."""
        romeo = self.jabbers["romeo"]
        response = await self.say("Grüße \U0001f600 <b>&", headers="Subject: News\r\nContent-Language: de\r\n")
        self.assertEqual((response.status, response.reason), (202, "Accepted"))
        await self.until(romeo.bodies)
        came = romeo.saying(BODY)[0]
        self.assertEqual(came.get("from"), f"alice@{COMPONENT}")
        self.assertEqual(came.findtext(BODY), "Grüße \U0001f600 <b>&")
        self.assertEqual(came.findtext("{jabber:client}subject"), "News")
        thread = came.findtext("{jabber:client}thread")
        self.assertEqual(thread, f"c{self.number}")
        romeo.send(
            f"<message to='alice@{COMPONENT}' type='chat' id='m1' xml:lang='en'><body>Hello &lt;you&gt;</body><subject>Re: News"
            f"</subject><thread>{thread}</thread><request xmlns='urn:xmpp:receipts'/></message>"
        )
        await self.until(lambda: self.phone.messages)
        message = self.phone.messages[0]
        self.assertEqual(message.body, b"Hello <you>")
        self.assertEqual(message.from_.uri_text, "sip:romeo@jabber.test")
        self.assertEqual(message.call_id, thread)
        self.assertEqual((message.header("subject"), message.header("content-language")), ("Re: News", "en"))
        await self.until(lambda: romeo.saying("{urn:xmpp:receipts}received[@id='m1']"))
        self.assertIn("Jabber: romeo@jabber.test/r writes to alice@sip.test", self.child.text())

    async def test_errors(self):
        """A Jabber user whom there is not is 480, a phone whom there is not is a stanza error."""
        response = await self.say("Hello", to="nobody")
        self.assertEqual(response.status, 480)
        romeo = self.jabbers["romeo"]
        romeo.send(f"<message to='bob@{COMPONENT}' type='chat' id='m2'><body>Hello</body></message>")
        condition = "{urn:ietf:params:xml:ns:xmpp-stanzas}recipient-unavailable"
        errors = await self.until(lambda: romeo.saying(f"{{jabber:client}}error[@type='wait']/{condition}"))
        self.assertEqual(errors[0].get("id"), "m2")

    async def test_go_sendxmpp(self):
        """A client that is not ours and not slixmpp's writes to a phone."""
        await deferToThread(go_sendxmpp, "juliet", "From Go", f"alice@{COMPONENT}")
        await self.until(lambda: self.phone.messages)
        self.assertEqual(self.phone.messages[0].body.strip(), b"From Go")
        self.assertEqual(self.phone.messages[0].from_.uri_text, "sip:juliet@jabber.test")
