"""Chat rooms: each word of a room's without any server, and a room of a real Prosody with a phone and a Jabber client in it."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, fromstring

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.xmpp.address import Jid
from sipgw.xmpp.rooms import Rooms
from sipgw.xmpp.stanza import COMPONENT, SubElement, stanza, write
from tests.servers.prosody import ROOMS, prosody
from tests.xmpp.rig import Gatewayed

ALICE, ROOM = Jid.parse("alice@sip.test"), Jid.parse("balcony@rooms.test")


class RoomTests(SynchronousTestCase):
    """``Rooms`` alone."""

    def setUp(self) -> None:
        """Rooms whose words are kept."""
        self.sent: list[str] = []
        self.shown: list[str] = []
        self.status = (202, "Accepted")
        self.rooms = Rooms({"rooms.test"}, self, lambda: 1_800_000_000.0)

    async def deliver(self, element: Element, domain: str) -> tuple[int, str]:
        self.sent.append(write(element).decode())
        return self.status

    def show(self, receiver: Jid, room: Jid, text: str) -> None:
        self.shown.append(text)

    def say(self, text: str, room: Jid = ROOM) -> int:
        """A phone writes; what is answered."""
        element = stanza("message", ALICE, room, id="i1")
        SubElement(element, f"{{{COMPONENT}}}body").text = text
        return int(self.result(self.rooms.take(element, ALICE, room))[0])

    def result(self, coroutine: Any) -> Any:
        """What a coroutine that need not wait gives."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def come(self, inner: str = "", kind: str = "", nick: str = "alice") -> None:
        """A presence stanza of the room."""
        text = f'<presence xmlns="{COMPONENT}" from="{ROOM}/{nick}" to="{ALICE}/sip" type="{kind}">{inner}</presence>'
        self.rooms.came(fromstring(text.replace(' type=""', "")), Jid.parse(f"{ROOM}/{nick}"), Jid.parse(f"{ALICE}/sip"))

    def heard(self, inner: str, nick: str = "romeo", kind: str = "groupchat") -> str | None:
        """What a phone hears of a message."""
        sender = Jid.parse(f"{ROOM}/{nick}" if nick else str(ROOM))
        element = fromstring(f'<message xmlns="{COMPONENT}" from="{sender}" to="{ALICE}/sip" type="{kind}">{inner}</message>')
        said = self.rooms.heard(element, sender, Jid.parse(f"{ALICE}/sip"))
        return None if said is None else said.findtext(f"{{{COMPONENT}}}body")

    def test_commands(self):
        """In, another name, who is here, out; who speaks without having come in is brought in."""
        self.assertEqual(self.say("#exit"), 404)
        self.assertEqual(self.say("Hello"), 202)
        self.assertIn('to="balcony@rooms.test/alice"', self.sent[0])
        self.assertIn('<history maxstanzas="10"/>', self.sent[0])
        self.assertIn("<body>Hello</body>", self.sent[1])
        self.come('<x xmlns="http://jabber.org/protocol/muc#user"><status code="110"/></x>')
        self.come(nick="romeo")
        self.say("#list")
        self.assertEqual(self.shown, ["Here: alice, romeo"])
        self.assertEqual(self.say("#join Alice the First"), 202)
        self.assertNotIn("history", self.sent[-1])
        self.say("#help")
        self.assertEqual(self.say("#exit"), 202)
        self.assertIn('type="unavailable"', self.sent[-1])
        self.assertEqual(self.rooms.members, {})

    def test_hearing(self):
        """Others' words with their names, not our own; private ones, subjects; silence of strangers."""
        self.assertIsNone(self.heard("<body>Hi</body>"))
        self.say("#join")
        for inner, nick, kind, text in (
            ("<body>Hi</body>", "romeo", "groupchat", "romeo: Hi"), ("<body>Hi</body>", "alice", "groupchat", None),
            ("<body>Hi</body>", "romeo", "chat", "romeo (to you alone): Hi"), ("<body>Hm</body>", "", "groupchat", "* Hm"),
            ("<subject>Love</subject>", "romeo", "groupchat", "* romeo: the subject is now: Love"),
            ("", "romeo", "groupchat", None),
            ("<body>Hi</body><delay xmlns='urn:xmpp:delay'/>", "alice", "groupchat", "alice: Hi"),
            ("<body>Hi</body>", "romeo", "error", None),
        ):
            self.assertEqual(self.heard(inner, nick, kind), text)

    def test_out(self):
        """Kicked, refused, a phone that is gone; a change of name is none of these."""
        self.say("#join")
        self.come('<x xmlns="http://jabber.org/protocol/muc#user"><status code="110"/><status code="303"/></x>', "unavailable")
        self.assertEqual(len(self.rooms.members), 1)
        self.come('<x xmlns="http://jabber.org/protocol/muc#user"><status code="110"/><status code="307"/></x>', "unavailable")
        self.assertEqual((self.rooms.members, self.shown.pop()), ({}, "* You are no longer in the room"))
        self.status = (403, "Forbidden")
        self.assertEqual((self.say("#join"), self.rooms.members), (403, {}))
        self.status = (202, "Accepted")
        self.say("#join")
        for status in (480, 480, 200, 480, 480):
            self.result(self.rooms.answered(ALICE, ROOM, status))
        self.assertEqual(len(self.rooms.members), 1)
        self.result(self.rooms.answered(ALICE, ROOM, 404))
        self.assertEqual(self.rooms.members, {})

    def test_bounds(self):
        """Twenty rooms of a phone; addresses that are no rooms."""
        statuses = [self.say("#join", Jid(f"room{number}", "rooms.test")) for number in range(21)]
        self.assertEqual(statuses, [202] * 20 + [503])
        self.assertEqual(self.say("Hi", Jid.parse("rooms.test")), 404)
        self.assertEqual(self.say("#join \0", ROOM), 400)

    def test_outage(self):
        """After an outage each room is entered again, with what was said meanwhile."""
        self.say("#join")
        self.come('<x xmlns="http://jabber.org/protocol/muc#user"><status code="110"/></x>')
        self.rooms.down("sip.test")
        for entering in self.rooms.up("sip.test"):
            self.result(entering)
        self.assertIn('<history since="2027-01-15T08:00:00Z"/>', self.sent[-1])
        self.assertEqual(len(self.rooms.farewell()), 1)


class ProsodyTests(Gatewayed):
    """A room of a real Prosody."""

    MORE = f'modparam("xmpp", "rooms_domain", "{ROOMS}")'

    async def test_room(self):
        """A phone comes in by writing, both hear each other, an outage passes, and it leaves."""
        romeo = self.jabbers["romeo"]
        enter = f"<presence to='balcony@{ROOMS}/romeo'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        speak = f"<message to='balcony@{ROOMS}' type='groupchat'><body>%s</body></message>"
        romeo.send(enter)
        await self.until(lambda: romeo.saying("{http://jabber.org/protocol/muc#user}x"))

        def heard() -> list[str]:
            return [each.body.decode() for each in self.phone.messages]

        async def say(text: str) -> int:
            kind = "Content-Type: text/plain\r\n"
            return (await self.ask("MESSAGE", f"sip:balcony@{ROOMS}", kind, text.encode())).status

        self.assertEqual(await say("Hello from a phone"), 202)
        await self.until(lambda: "Hello from a phone" in romeo.bodies())
        romeo.send(speak % "Hi alice")
        await self.until(lambda: "romeo: Hi alice" in heard())
        self.assertEqual(self.phone.messages[-1].from_.uri_text, f"sip:balcony@{ROOMS}")
        self.assertEqual(await say("#list"), 202)
        await self.until(lambda: "Here: alice, romeo" in heard())
        self.assertEqual(await say("#join romeo"), 400)
        prosody().kill()
        prosody().start()
        await self.until(lambda: self.child.text().count("connected to") == 2)
        self.assertEqual(await say("#list"), 202)
        await self.until(lambda: "Here: alice" in heard())
        self.assertEqual(await say("#exit"), 202)
        self.assertEqual(await say("#exit"), 404)
