"""SIP watches Jabber, without any server: each word of Jabber's, and what is said and told."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, fromstring

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.pidf import Tuple
from sipgw.xmpp.address import Jid
from sipgw.xmpp.presence import to_presence, to_tuple
from sipgw.xmpp.roster import Pair, Roster, Rules
from sipgw.xmpp.stanza import COMPONENT, write

ALICE, ROMEO = Jid.parse("alice@sip.test"), Jid.parse("romeo@jabber.test")
PAIR = Pair(ALICE, ROMEO)


def presence(inner: str = "", kind: str = "", sender: str = "romeo@jabber.test/r") -> Element:
    """A presence stanza."""
    type = f' type="{kind}"' if kind else ""
    return fromstring(f'<presence xmlns="{COMPONENT}" from="{sender}" to="alice@sip.test"{type}>{inner}</presence>')


class Doors:
    """What is said and told."""

    def __init__(self) -> None:
        self.said: list[Element] = []
        self.told: list[Pair] = []
        self.kept: dict[Pair, tuple[str, list[str]]] = {}
        self.calls: list[str] = []
        self.trusted = False

    def say(self, element: Element) -> None:
        self.said.append(element)

    def changed(self, pair: Pair) -> None:
        self.told.append(pair)

    def settle(self, domain: str) -> None:
        self.calls.append("settle")

    def watching(self, pair: Pair, state: str, shown: Sequence[str]) -> None:
        if state:
            self.kept[pair] = state, list(shown)
        else:
            self.kept.pop(pair, None)

    def seek(self, pair: Pair) -> None:
        self.calls.append("seek")

    def release(self, pair: Pair) -> None:
        self.calls.append("release")

    def ask(self, pair: Pair) -> None:
        self.calls.append("ask")

    def trusts(self, pair: Pair) -> bool:
        return self.trusted


class Rig(SynchronousTestCase):
    """A roster behind doors."""

    def setUp(self) -> None:
        self.doors = Doors()
        self.here = False

    def roster(self, subscribe: bool = False, phones: bool = False, ask: bool = False, up: bool = True) -> Roster:
        """A roster whose server is there."""
        roster = Roster(self.doors, Rules(subscribe, (lambda jid: self.here) if phones else None, ask))
        if up:
            roster.up("sip.test")
        return roster

    def words(self) -> list[str]:
        """The kinds of what was said since the last time, with the resource if it is not that of phones."""
        found = []
        for each in self.doors.said:
            resource = (each.get("from") or "").partition("/")[2]
            found.append(each.get("type", "available") + (f"/{resource}" if resource not in ("", "sip") else ""))
        self.doors.said.clear()
        return found

    def calls(self) -> list[str]:
        """What was asked of the SIP side since the last time."""
        found = list(self.doors.calls)
        self.doors.calls.clear()
        return found

    def come(self, roster: Roster, element: Element) -> None:
        """A stanza comes."""
        roster.came(element, Jid.parse(element.get("from", "")), Jid.parse(element.get("to", "")))


class RosterTests(Rig):
    """SIP watches Jabber."""

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
        self.assertEqual(set(self.doors.told), {PAIR})
        roster.unwatch(PAIR)
        self.doors.told.clear()
        self.come(roster, presence())
        self.assertEqual((self.doors.told, self.words()), ([], []))

    def test_back(self):
        """A server that is back is asked; its answer is told at once, its silence after a moment, the approval alone never."""
        roster = self.roster()
        roster.watch(PAIR)
        roster.up("sip.test")
        self.assertEqual((self.words(), self.calls()), (["subscribe", "subscribe"], ["settle"]))
        self.come(roster, presence(kind="subscribed"))
        self.assertEqual((self.words(), self.doors.told), (["probe"], []))
        self.come(roster, presence("<show>away</show>"))
        self.assertEqual(self.doors.told, [PAIR])
        roster.settled("sip.test")
        self.assertEqual(self.doors.told, [PAIR])
        roster.up("sip.test")
        roster.settled("other.test")
        self.assertEqual(self.doors.told, [PAIR])
        roster.settled("sip.test")
        self.assertEqual((self.doors.told, roster.seen(PAIR)), ([PAIR, PAIR], ("active", [])))

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
