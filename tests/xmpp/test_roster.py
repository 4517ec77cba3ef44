"""Who watches whom, without any server: each word of Jabber's, and what is said and told."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, fromstring

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.pidf import Tuple
from sipgw.xmpp.address import Jid
from sipgw.xmpp.presence import to_presence, to_tuple
from sipgw.xmpp.roster import Pair, Roster
from sipgw.xmpp.stanza import COMPONENT, write

ALICE, ROMEO = Jid.parse("alice@sip.test"), Jid.parse("romeo@jabber.test")
PAIR = Pair(ALICE, ROMEO)


def presence(inner: str = "", kind: str = "", sender: str = "romeo@jabber.test/r") -> Element:
    """A presence stanza."""
    type = f' type="{kind}"' if kind else ""
    return fromstring(f'<presence xmlns="{COMPONENT}" from="{sender}" to="alice@sip.test"{type}>{inner}</presence>')


class RosterTests(SynchronousTestCase):
    """Both directions."""

    def setUp(self) -> None:
        """A roster whose words are kept."""
        self.said: list[Element] = []
        self.told: list[Pair] = []
        self.noted: list[bool] = []
        self.here = False

    def roster(self, phones: bool = False) -> Roster:
        """A roster."""
        registered: Any = (lambda jid: self.here) if phones else None
        return Roster(self, registered)

    def say(self, element: Element) -> None:
        self.said.append(element)

    def changed(self, pair: Pair) -> None:
        self.told.append(pair)

    def watching(self, pair: Pair, on: bool) -> None:
        self.noted.append(on)

    def words(self) -> list[str]:
        """The kinds of what was said since the last time."""
        found = [each.get("type", "available") for each in self.said]
        self.said.clear()
        return found

    def come(self, roster: Roster, element: Element) -> None:
        """A stanza comes."""
        roster.came(element, Jid.parse(element.get("from", "")), Jid.parse(element.get("to", "")))

    def test_watch(self):
        """Pending until approved; devices by priority; rejected when taken back; nothing more once nobody watches."""
        roster = self.roster()
        roster.watch(PAIR)
        self.assertEqual((self.words(), roster.seen(PAIR)), (["subscribe"], ("pending", [])))
        self.come(roster, presence(kind="subscribed"))
        self.assertEqual((self.words(), roster.seen(PAIR)[0]), (["probe"], "active"))
        self.come(roster, presence("<priority>5</priority>"))
        self.come(roster, presence("<show>away</show><priority>10</priority>", sender="romeo@jabber.test/phone"))
        self.assertEqual([each.id for each in roster.seen(PAIR)[1]], ["phone", "r"])
        self.come(roster, presence(kind="unavailable", sender="romeo@jabber.test/phone"))
        self.assertEqual([each.id for each in roster.seen(PAIR)[1]], ["r"])
        roster.down("other.test")
        self.assertEqual(len(roster.seen(PAIR)[1]), 1)
        roster.down("sip.test")
        self.assertEqual(roster.seen(PAIR), ("active", []))
        roster.up("sip.test")
        self.assertEqual(self.words(), ["probe"])
        self.come(roster, presence(kind="unsubscribed"))
        self.assertEqual(roster.seen(PAIR), ("rejected", []))
        self.assertEqual(set(self.told), {PAIR})
        roster.unwatch(PAIR)
        self.told.clear()
        self.come(roster, presence())
        self.assertEqual((self.told, self.words()), ([], []))

    def test_no_such_user(self):
        """An error ends what is pending, and is no reason to end what works."""
        roster = self.roster()
        roster.watch(PAIR)
        self.come(roster, presence(kind="error"))
        self.assertEqual(roster.seen(PAIR)[0], "rejected")
        roster.watch(PAIR)
        self.come(roster, presence())
        self.come(roster, presence(kind="error"))
        self.assertEqual(roster.seen(PAIR)[0], "active")

    def test_devices_are_bounded(self):
        """A Jabber user with a thousand clients is twenty."""
        roster = self.roster()
        roster.watch(PAIR)
        for number in range(1000):
            self.come(roster, presence(sender=f"romeo@jabber.test/{number}"))
        self.assertEqual(len(roster.seen(PAIR)[1]), 20)

    def test_watchers(self):
        """Who asks is let in and told; who stops hears no more; all hear that we leave."""
        roster = self.roster(phones=True)
        self.come(roster, presence(kind="subscribe"))
        self.assertEqual(self.words(), ["subscribed", "unavailable"])
        self.here = True
        roster.tell(ALICE)
        self.assertEqual(write(self.said[0]), b'<presence from="alice@sip.test/sip" to="romeo@jabber.test"/>')
        self.assertEqual(self.words(), ["available"])
        self.come(roster, presence(kind="probe", sender="juliet@jabber.test"))
        self.assertEqual(self.words(), ["available"])
        roster.leave()
        self.assertEqual(self.words(), ["unavailable", "unavailable"])
        roster.up("sip.test")
        self.assertEqual(self.words(), ["available", "available"])
        self.come(roster, presence(kind="unsubscribe"))
        self.assertEqual((self.words(), self.noted), (["unsubscribed"], [True, True, False]))
        roster.tell(ALICE)
        self.assertEqual(self.words(), ["available"])

    def test_phones_are_not_shown(self):
        """Where the operator has not switched it on, who asks hears that there is nothing to see."""
        roster = self.roster()
        self.come(roster, presence(kind="subscribe"))
        self.come(roster, presence(kind="probe"))
        self.assertEqual(self.words(), ["error"])
        self.assertEqual(roster.watchers, {})


class TranslationTests(SynchronousTestCase):
    """RFC 8048 5."""

    def test_pairs(self):
        """Show, status and priority, both ways."""
        for inner, kind, device in (
            ("", "", Tuple("r", True, priority=0)),
            ("<show>xa</show><status>Gone</status><priority>127</priority>", "", Tuple("r", True, "xa", "Gone", 1000)),
            ("<show>nonsense</show><priority>-5</priority>", "", Tuple("r", True, priority=0)),
            ("<priority>many</priority>", "", Tuple("r", True, priority=0)),
            ("<status>Bye</status>", "unavailable", Tuple("r", False, note="Bye", priority=0)),
        ):
            self.assertEqual(to_tuple(presence(inner, kind), Jid.parse("romeo@jabber.test/r")), device)
        self.assertIsNone(to_tuple(presence(kind="subscribe"), ROMEO))
        made = to_presence(Tuple("r", True, "dnd", "Busy", 1000), ALICE, ROMEO)
        self.assertEqual(
            write(made),
            b'<presence from="alice@sip.test" to="romeo@jabber.test"><show>dnd</show><status>Busy</status>'
            b"<priority>127</priority></presence>",
        )
