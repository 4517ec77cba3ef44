"""Chat rooms: each word of a room's without any server, and a room of a real Prosody with a phone and a Jabber client in it."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, fromstring

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.xmpp.address import Jid
from sipgw.xmpp.rooms import Member, Rooms
from sipgw.xmpp.stanza import COMPONENT, SubElement, stanza, write
from tests.servers.prosody import COMPONENT as GATEWAY
from tests.servers.prosody import DOMAIN, LOCKED, ROOMS, prosody
from tests.xmpp.rig import Gatewayed, Jabber

MUC_USER = "http://jabber.org/protocol/muc#user"
USER = f"{{{MUC_USER}}}x"

ALICE, ROOM = Jid.parse("alice@sip.test"), Jid.parse("balcony@rooms.test")


class RoomTests(SynchronousTestCase):
    """``Rooms`` alone."""

    def setUp(self) -> None:
        """Rooms whose words are kept."""
        self.sent: list[str] = []
        self.shown: list[str] = []
        self.now = 1_800_000_000.0
        self.noted: list[tuple[str, str] | None] = []
        self.status = (202, "Accepted")
        doors: Any = self
        self.rooms = Rooms({"rooms.test"}, doors, lambda: self.now)

    async def deliver(self, element: Element, domain: str) -> tuple[int, str]:
        self.sent.append(write(element).decode())
        return self.status

    def show(self, receiver: Jid, room: Jid, text: str) -> None:
        self.shown.append(text)

    def later(self, waiting: Any) -> None:
        self.result(waiting)

    def note(self, sip: Jid, room: Jid, member: Member | None) -> None:
        self.noted.append(None if member is None else (str(sip), member.nick))

    def named(self, text: str) -> Jid:
        return Jid.parse(text.partition(":")[2] or text)

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
        self.assertEqual((self.rooms.members, self.shown.pop()), ({}, "* You were put out of the room"))
        self.status = (403, "Forbidden")
        self.assertEqual((self.say("#join"), self.rooms.members), (403, {}))
        self.status = (202, "Accepted")
        self.say("#join")
        for status in (480, 480, 480, 200, 480, 480):
            self.result(self.rooms.answered(ALICE, ROOM, status))
        self.now += 61.0
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
        self.assertIsNotNone(self.noted[-1])

    def test_why(self):
        """Why a phone is out is said; that the service ends is no reason to be out."""
        user = "http://jabber.org/protocol/muc#user"
        for inner, text in (
            ('<status code="307"/><item><actor nick="romeo"/><reason>Too\nloud</reason></item>',
             "* You were put out of the room by romeo: Too loud"),
            ('<status code="301"/><item/>', "* You are banned from the room"),
            ('<destroy jid="orchard@rooms.test"><reason>Late</reason></destroy><item/>',
             "* The room is no more; go to orchard@rooms.test: Late"),
            ("<item/>", "* You are no longer in the room"),
        ):
            self.say("#join")
            self.come(f'<x xmlns="{user}"><status code="110"/></x>')
            self.come(f'<x xmlns="{user}"><status code="110"/>{inner}</x>', "unavailable")
            self.assertEqual((self.shown.pop(), self.rooms.members, self.noted[-1]), (text, {}, None))
        self.say("#join")
        self.come(f'<x xmlns="{user}"><status code="110"/></x>')
        self.come(f'<x xmlns="{user}"><status code="110"/><status code="332"/></x>', "unavailable")
        self.assertEqual([each.inside for each in self.rooms.members.values()], [False])
        self.assertEqual(self.say("Hello"), 202)
        self.assertIn('<history since="2027-01-15T08:00:00Z"/>', self.sent[-2])

    def test_invitations(self):
        """Shown, taken with their passwords, declined; no more than twenty for a phone, and none to what is no room."""
        user = "http://jabber.org/protocol/muc#user"
        invite = '<invite from="romeo@jabber.test/r"><reason>Come</reason></invite>'
        mediated = f'<x xmlns="{user}">{invite}<password>x</password></x>'
        self.assertEqual(self.say("#accept"), 404)
        self.assertIsNone(self.heard(mediated, ""))
        said = f"* romeo@jabber.test invites you to {ROOM} (Come). #accept: come in. #deny: do not."
        self.assertEqual(self.shown, [said])
        self.assertEqual(self.say("#deny Not now"), 202)
        self.assertIn('<decline to="romeo@jabber.test/r"><reason>Not now</reason></decline>', self.sent[-1])
        self.assertEqual(self.say("#deny"), 404)
        self.heard(mediated, "")
        self.assertEqual(self.say("#accept Al"), 202)
        self.assertIn("<password>x</password>", self.sent[-1])
        self.assertEqual((self.noted[-1], self.rooms.invitations), (("alice@sip.test", "Al"), {}))
        for number in range(25):
            self.invite(f"room{number}@rooms.test")
        self.assertEqual(len(self.rooms.invitations), 20)
        self.assertEqual(self.say("#deny", Jid("room24", "rooms.test")), 202)
        self.assertFalse(self.invite("romeo@jabber.test"))
        self.assertFalse(self.invite("rooms.test"))
        self.heard(f'<x xmlns="{user}"><decline from="romeo@jabber.test"><reason>Busy</reason></decline></x>', "")
        self.assertEqual(self.shown[-1], "* romeo@jabber.test does not come: Busy")

    def invite(self, room: str) -> bool:
        """Somebody invites alice himself."""
        inner = f"<x xmlns='jabber:x:conference' jid='{room}' password='p' reason='r'/>"
        element = fromstring(f'<message xmlns="{COMPONENT}">{inner}</message>')
        return self.rooms.direct(element, Jid.parse("romeo@jabber.test/r"), ALICE)

    def test_more_commands(self):
        """Passwords, rooms named in the command, invitations of our own, putting out, making and ending."""
        user = "http://jabber.org/protocol/muc#user"
        self.assertEqual(self.say("#join Al password=a b"), 202)
        self.assertIn("<password>a b</password>", self.sent[-1])
        self.assertEqual(self.say("#invite romeo@jabber.test"), 404)
        self.come(f'<x xmlns="{user}"><status code="110"/><status code="201"/></x>', nick="Al")
        self.assertIn("muc#owner", self.sent[-1])
        self.assertNotIn("membersonly", self.sent[-1])
        self.come(nick="romeo")
        self.assertEqual(self.say("#invite juliet@jabber.test Do come"), 202)
        self.assertIn('<invite to="juliet@jabber.test"><reason>Do come</reason></invite>', self.sent[-1])
        self.assertEqual(self.say("#remove nobody"), 404)
        self.assertEqual(self.say("#remove romeo"), 202)
        self.assertIn('<item nick="romeo" role="none"/>', self.sent[-1])
        self.assertEqual(self.say("#destroy"), 202)
        self.assertIn("<destroy", self.sent[-1])
        domain = Jid("", "rooms.test")
        self.assertEqual(self.say("#create Al private sip:orchard@rooms.test", domain), 202)
        self.assertIn('to="orchard@rooms.test/Al"', self.sent[-1])
        self.assertEqual(self.say("#exit sip:balcony@rooms.test", domain), 202)
        self.assertEqual(self.say("#list", domain), 404)
        self.assertEqual(self.say("#tag", ROOM), 202)  # said, since it is no command
        self.assertIn("<body>#tag</body>", self.sent[-1])

    def test_forgotten(self):
        """A room that has forgotten us lets us in again, and what was said is said once."""
        self.say("#join")
        self.come('<x xmlns="http://jabber.org/protocol/muc#user"><status code="110"/></x>')
        self.sent.clear()
        answers = [(406, "No"), (202, "In"), (202, "Said")]

        async def deliver(element: Element, domain: str) -> tuple[int, str]:
            self.sent.append(write(element).decode())
            return answers.pop(0)

        self.patch(self.rooms, "doors", self)
        self.deliver = deliver  # type: ignore[method-assign]
        self.assertEqual(self.say("Hello"), 202)
        self.assertEqual([each.partition(" ")[0] for each in self.sent], ["<message", "<presence", "<message"])

    def test_restored(self):
        """Who was in a room when we ended comes in when the server is there, under the same name, from where he left off."""
        self.rooms.restore(ALICE, ROOM, "Al", "x", 1_800_000_000.0)
        self.rooms.restore(ALICE, Jid.parse("romeo@jabber.test"), "Al", "", 0.0)
        for entering in self.rooms.up("sip.test"):
            self.result(entering)
        self.assertEqual(len(self.sent), 1)
        for part in ('to="balcony@rooms.test/Al"', "<password>x</password>", 'since="2027-01-15T08:00:00Z"'):
            self.assertIn(part, self.sent[0])


class ProsodyTests(Gatewayed):
    """Rooms of a real Prosody."""

    CLIENTS = ("romeo", "juliet")
    MORE = f"""
loadmodule "db_sqlite.so"
modparam("usrloc", "working_mode_preset", "single-instance-sql-write-through")
modparam("xmpp", "rooms_domain", "{ROOMS}")
modparam("xmpp", "rooms_domain", "{LOCKED}")
modparam("xmpp", "keep_rooms", 1)
"""

    def script(self, text: str) -> str:
        """Have a database."""
        url = f"sqlite://{self.folder}/rooms.db"
        if not (self.folder / "rooms.db").exists():
            store = open_store(url, create=True)
            create(store, ["xmpp_rooms", "location"])
            store.close()
        return f'db_default_url = "{url}"\n{text}'

    def heard(self) -> list[str]:
        """What the phone heard."""
        return [each.body.decode() for each in self.phone.messages]

    async def hears(self, text: str) -> None:
        """Wait until the phone has heard a text, and forget it."""
        found = await self.until(lambda: [each for each in self.phone.messages if each.body.decode() == text])
        self.phone.messages.remove(found[0])

    async def room(self, text: str, room: str = f"balcony@{ROOMS}") -> int:
        """Say something to a room; the status."""
        return (await self.ask("MESSAGE", f"sip:{room}", "Content-Type: text/plain\r\n", text.encode())).status

    async def enter(self, name: str, room: str = f"balcony@{ROOMS}", more: str = "") -> Jabber:
        """A Jabber client comes into a room."""
        client = self.jabbers[name]
        before = len(client.saying(USER))
        client.send(f"<presence to='{room}/{name}'><x xmlns='http://jabber.org/protocol/muc'>{more}</x></presence>")
        await self.until(lambda: len(client.saying(USER)) > before)
        return client

    async def test_room(self):
        """A phone comes in by writing, both hear each other; it is there again after an outage and after our own restart."""
        romeo = await self.enter("romeo")
        speak = f"<message to='balcony@{ROOMS}' type='groupchat'><body>%s</body></message>"
        self.assertEqual(await self.room("Hello from a phone"), 202)
        await self.until(lambda: "Hello from a phone" in romeo.bodies())
        romeo.send(speak % "Hi alice")
        await self.until(lambda: self.phone.messages)
        self.assertEqual(self.phone.messages[-1].from_.uri_text, f"sip:balcony@{ROOMS}")
        await self.hears("romeo: Hi alice")
        self.assertEqual(await self.room("#list"), 202)
        await self.hears("Here: alice, romeo")
        self.assertEqual(await self.room("#join romeo"), 409)
        await self.hears("* Somebody in the room is called romeo already: #join with another name")
        self.assertEqual(await self.room("#join Al"), 202)
        self.leave()
        self.assertEqual(await deferToThread(self.child.wait), 0)
        await self.until(lambda: romeo.saying(f".[@from='balcony@{ROOMS}/Al'][@type='unavailable']"))
        romeo.send(speak % "Where is alice?")
        self.start()
        await self.hears("romeo: Where is alice?")
        self.assertEqual(await self.room("#list"), 202)
        await self.hears("Here: Al, romeo")
        prosody().kill()
        prosody().start()
        await self.until(lambda: self.child.text().count("connected to") == 2)
        await self.until(lambda: "up" if "down: " in self.child.text() else "")
        self.assertEqual(await self.room("#list"), 202)
        await self.hears("Here: Al")
        self.assertEqual(await self.room("#exit"), 202)
        self.assertEqual(await self.room("#exit"), 404)

    async def test_invitations(self):
        """Invited by the room and by a person, into a room with a password; inviting; put out and banned; the end of a room."""
        romeo = await self.enter("romeo", f"orchard@{LOCKED}")
        owner = "http://jabber.org/protocol/muc#owner"
        form = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>"
        form += "<value>http://jabber.org/protocol/muc#roomconfig</value></field>"
        form += "<field var='muc#roomconfig_passwordprotectedroom'><value>1</value></field>"
        form += "<field var='muc#roomconfig_roomsecret'><value>secret</value></field></x>"
        romeo.send(f"<iq to='orchard@{LOCKED}' type='set' id='o1'><query xmlns='{owner}'>{form}</query></iq>")
        orchard = f"orchard@{LOCKED}"
        invite = f"<x xmlns='{MUC_USER}'><invite to='alice@{GATEWAY}'><reason>Now</reason></invite></x>"
        romeo.send(f"<message to='{orchard}'>{invite}</message>")
        text = f"* romeo invites you to {orchard} (Now). #accept: come in. #deny: do not."
        await self.hears(text)
        self.assertEqual(await self.room("#deny Later", orchard), 202)
        await self.until(lambda: romeo.saying(f"{USER}/{{{MUC_USER}}}decline"))
        self.assertIn(await self.room("#join", orchard), (401, 403))
        self.assertIn(await self.room("#join password=wrong", orchard), (401, 403))
        direct = f"<x xmlns='jabber:x:conference' jid='{orchard}' password='secret' reason='Now'/>"
        romeo.send(f"<message to='alice@{GATEWAY}'>{direct}</message>")
        await self.hears(text.replace("romeo", f"romeo@{DOMAIN}"))
        self.assertEqual(await self.room("#accept", orchard), 202)
        await self.until(lambda: romeo.saying(f".[@from='{orchard}/alice']"))
        self.assertEqual(await self.room(f"#invite juliet@{DOMAIN}", orchard), 202)
        juliet = self.jabbers["juliet"]
        await self.until(lambda: juliet.saying(f"{USER}/{{{MUC_USER}}}invite"))
        admin = f"<iq to='{orchard}' type='set' id='%s'><query xmlns='http://jabber.org/protocol/muc#admin'>%s</query></iq>"
        romeo.send(admin % ("a1", "<item nick='alice' role='none'><reason>Loud</reason></item>"))
        await self.hears("* You were put out of the room by romeo: Loud")
        self.assertEqual(await self.room("#join password=secret", orchard), 202)
        await self.until(lambda: romeo.stanzas[-1].get("from") == f"{orchard}/alice" and romeo.stanzas[-1].get("type") is None)
        romeo.send(admin % ("a2", f"<item jid='alice@{GATEWAY}' affiliation='outcast'/>"))
        found = await self.until(lambda: [each for each in self.heard() if each.startswith("* You are banned")])
        self.assertEqual(len(found), 1)
        self.assertEqual(await self.room("#join password=secret", orchard), 403)

    async def test_own_room(self):
        """A phone makes a room that others can enter at once, puts somebody out, and ends it; history is heard on coming in."""
        garden = f"garden@{LOCKED}"
        self.assertEqual(await self.room("#create", garden), 202)
        self.assertEqual(await self.room("Before you came", garden), 202)
        romeo = await self.enter("romeo", garden)
        await self.until(lambda: romeo.saying(f".[@from='{garden}/alice']"))
        await self.until(lambda: "Before you came" in romeo.bodies())
        self.assertEqual(await self.room("#exit", garden), 202)
        romeo.send(f"<message to='{garden}' type='groupchat'><body>Gone?</body></message>")
        await self.until(lambda: "Gone?" in romeo.bodies())
        self.assertEqual(await self.room("#join", garden), 202)
        late = await self.until(lambda: [each for each in self.phone.messages if each.body == b"romeo: Gone?"])
        self.assertIsNotNone(late[0].header("date"))
        await self.until(lambda: self.heard().count("alice: Before you came") == 1)
        self.assertEqual(await self.room(f"#remove romeo sip:{garden}", LOCKED), 202)
        await self.until(lambda: romeo.saying(f"{USER}/{{{MUC_USER}}}status[@code='307']"))
        self.assertEqual(await self.room("#destroy", garden), 202)
        found = await self.until(lambda: [each for each in self.heard() if each.startswith("* The room is no more")])
        self.assertEqual(len(found), 1)
