"""Jabber watches SIP, without any server: each word of Jabber's and of NOTIFYs, each refusal, and what is said of it."""

from __future__ import annotations

from sipgw.sip.pidf import Tuple
from sipgw.xmpp.address import Jid
from sipgw.xmpp.roster import Pair, Roster
from sipgw.xmpp.stanza import write
from tests.xmpp.test_roster import ALICE, PAIR, Rig, presence

DESK, MOBILE = Tuple("desk", True, "away", "Out", 500), Tuple("mobile", True)


class PhoneTests(Rig):
    """A registered phone is enough."""

    def test_watchers(self):
        """Who asks is let in and told; who stops hears no more; all hear that we leave."""
        roster = self.roster(phones=True)
        self.come(roster, presence(kind="subscribe"))
        self.assertEqual(self.words(), ["subscribed", "unavailable"])
        self.here = True
        roster.watchers.phone(ALICE, self.here)
        self.assertEqual(write(self.doors.said[0]), b'<presence from="alice@sip.test/sip" to="romeo@jabber.test"/>')
        self.assertEqual((self.words(), self.doors.kept[PAIR]), (["available"], ("active", ["sip"])))
        roster.watchers.phone(ALICE, self.here)
        self.assertEqual(self.words(), [])
        self.come(roster, presence(kind="probe", sender="juliet@jabber.test"))
        self.assertEqual(self.words(), ["available"])
        roster.leave()
        self.assertEqual(self.words(), ["unavailable", "unavailable"])
        roster.up("sip.test")
        self.assertEqual(self.words(), ["available", "available"])
        self.come(roster, presence(kind="unsubscribe"))
        self.assertEqual(self.words(), ["unavailable", "unsubscribed"])
        self.assertEqual(list(self.doors.kept), [(ALICE, Jid.parse("juliet@jabber.test"))])
        roster.watchers.phone(ALICE, self.here)
        self.assertEqual(self.words(), [])

    def test_nothing_to_see(self):
        """Where the operator has switched nothing on, who asks hears that."""
        roster = self.roster()
        self.come(roster, presence(kind="subscribe"))
        self.come(roster, presence(kind="probe"))
        self.assertEqual((self.words(), roster.watchers.pairs), (["error"], {}))

    def test_asked(self):
        """The SIP user is asked, when she has a phone; her word counts, until she says something else."""
        roster = self.roster(phones=True, ask=True)
        self.here = True
        self.come(roster, presence(kind="probe"))
        self.assertEqual((self.words(), self.calls()), (["unsubscribed"], []))
        self.come(roster, presence(kind="subscribe"))
        self.assertEqual((self.words(), self.calls(), self.doors.kept[PAIR]), ([], ["ask"], ("pending", [])))
        roster.watchers.phone(ALICE, self.here)
        self.assertEqual((self.words(), self.calls()), ([], ["ask"]))
        roster.watchers.decide(PAIR, True)
        self.assertEqual(self.words(), ["subscribed", "available"])
        roster.watchers.decide(PAIR, False)
        self.assertEqual((self.words(), self.doors.kept[PAIR]), (["unavailable", "unsubscribed"], ("denied", [])))
        self.come(roster, presence(kind="subscribe"))
        roster.watchers.phone(ALICE, self.here)
        self.assertEqual((self.words(), self.calls()), (["unsubscribed"], []))
        roster.watchers.decide(PAIR, True)
        self.assertEqual((self.words(), self.doors.kept), ([], {}))
        self.doors.trusted = True
        self.come(roster, presence(kind="subscribe"))
        self.assertEqual((self.words(), self.calls()), (["subscribed", "available"], []))

    def test_denied_beforehand(self):
        """Whom the SIP user denies it before he asks hears so when he does."""
        roster = self.roster(phones=True)
        roster.watchers.decide(PAIR, False)
        self.assertEqual((self.words(), self.doors.kept[PAIR]), ([], ("denied", [])))
        self.come(roster, presence(kind="subscribe"))
        self.assertEqual(self.words(), ["unsubscribed"])


class SubscriptionTests(Rig):
    """What NOTIFYs say (RFC 8048 4.2, 5.2)."""

    def asked(self, **rules: bool) -> Roster:
        """romeo has asked."""
        roster = self.roster(subscribe=True, **rules)
        self.come(roster, presence(kind="subscribe"))
        self.calls()
        return roster

    def test_active(self):
        """Pending says nothing; active lets in; each tuple is a resource, which changes and goes; the end asks nobody."""
        roster = self.roster(subscribe=True)
        self.come(roster, presence(kind="subscribe"))
        self.assertEqual((self.words(), self.calls()), ([], ["seek"]))
        roster.watchers.told(PAIR, "pending", "", None)
        self.assertEqual(self.words(), [])
        roster.watchers.told(PAIR, "active", "", [DESK, MOBILE, Tuple("old", False)])
        self.assertEqual(write(self.doors.said[1]), (
            b'<presence from="alice@sip.test/desk" to="romeo@jabber.test"><show>away</show><status>Out</status>'
            b"<priority>63</priority></presence>"
        ))
        self.assertEqual((self.words(), self.doors.kept[PAIR]), (
            ["subscribed", "available/desk", "available/mobile"], ("active", ["desk", "mobile"]),
        ))
        roster.watchers.told(PAIR, "active", "", [DESK._replace(show=""), MOBILE])
        self.assertEqual(self.words(), ["available/desk"])
        roster.watchers.told(PAIR, "active", "", [MOBILE])
        self.assertEqual(self.words(), ["unavailable/desk"])
        self.come(roster, presence(kind="probe"))
        self.assertEqual((self.words(), self.calls()), (["available/mobile"], []))
        roster.watchers.told(PAIR, "active", "", None)
        self.assertEqual(self.words(), ["unavailable/mobile"])
        self.come(roster, presence(kind="unsubscribe"))
        self.assertEqual((self.words(), self.calls(), self.doors.kept), (["unsubscribed"], ["release"], {}))

    def test_odd_names(self):
        """Tuples whose names no Jabber ID can have, or that have the same, or are too many."""
        roster = self.asked()
        tuples = [Tuple("a\x00b\u202e", True), Tuple("", True), Tuple("x", True), Tuple("x", True), Tuple("y" * 5000, True)]
        roster.watchers.told(PAIR, "active", "", tuples)
        self.assertEqual(self.words(), ["subscribed", "available/a_b_", "available", "available/x", f"available/{'y' * 200}"])
        roster.watchers.told(PAIR, "active", "", [Tuple(f"t{number}", True) for number in range(1000)])
        self.assertEqual(self.words().count("unavailable"), 1)
        self.assertEqual(len(roster.watchers.shown(PAIR)), 20)

    def test_terminated(self):
        """A denial is one; an end that is none leaves all as it is, until nothing can be had."""
        for reason in ("rejected", "noresource"):
            roster = self.asked()
            roster.watchers.told(PAIR, "active", "", [DESK])
            roster.watchers.told(PAIR, "terminated", reason, None)
            self.assertEqual(self.words(), ["subscribed", "available/desk", "unavailable/desk", "unsubscribed"])
            self.assertEqual((roster.watchers.pairs, self.doors.kept), ({}, {}))
        roster = self.asked()
        roster.watchers.told(PAIR, "active", "", [DESK])
        self.words()
        roster.watchers.told(PAIR, "terminated", "timeout", None)
        self.assertEqual(self.words(), [])
        self.assertTrue(roster.watchers.failed(PAIR, 480))
        self.assertEqual((self.words(), roster.watchers.state(PAIR)), (["unavailable/desk"], "active"))

    def test_refused(self):
        """What a SUBSCRIBE is answered, for one who was not let in yet, and for one who was."""
        for status, said, again in (
            (403, ["unsubscribed"], False), (603, ["unsubscribed"], False), (489, ["error", "unsubscribed"], False),
            (604, ["error", "unsubscribed"], False), (404, [], True), (480, [], True), (408, [], True), (503, [], True),
        ):
            roster = self.asked()
            self.assertEqual((roster.watchers.failed(PAIR, status), self.words()), (again, said), status)
            roster = self.asked()
            roster.watchers.told(PAIR, "active", "", ())
            self.words()
            self.assertEqual((roster.watchers.failed(PAIR, status), self.words()), (True, []), status)
        roster = self.asked()
        self.assertEqual([roster.watchers.failed(PAIR, 404) for _ in range(31)], [True] * 30 + [False])
        self.assertEqual(self.words(), ["unsubscribed"])
        self.assertFalse(roster.watchers.failed(PAIR, 404))

    def test_both(self):
        """A phone that is registered counts where no document does; one that comes is reason to subscribe again."""
        roster = self.asked(phones=True)
        self.assertEqual(self.words(), ["subscribed", "unavailable"])
        self.assertFalse(roster.watchers.failed(PAIR, 489))
        self.here = True
        roster.watchers.phone(ALICE, self.here)
        self.assertEqual((self.words(), self.calls()), (["available"], ["seek"]))
        roster.watchers.told(PAIR, "active", "", [DESK])
        self.assertEqual(self.words(), ["available/desk", "unavailable"])
        roster.watchers.told(PAIR, "active", "", [Tuple("desk", False)])
        self.assertEqual(self.words(), ["unavailable/desk"])
        roster.watchers.told(PAIR, "active", "", [])
        self.assertEqual(self.words(), ["available"])

    def test_outage(self):
        """What happens while the server is away is said when it is back, and nothing that is over."""
        roster = self.asked()
        roster.down("sip.test")
        roster.watchers.told(PAIR, "active", "", [DESK])
        self.assertEqual(self.words(), [])
        roster.up("sip.test")
        self.assertEqual(self.words(), ["subscribed", "available/desk"])
        roster.down("sip.test")
        roster.watchers.told(PAIR, "active", "", [MOBILE])
        roster.up("sip.test")
        self.assertEqual(self.words(), ["available/mobile", "unavailable/desk"])
        roster.down("sip.test")
        roster.watchers.told(PAIR, "terminated", "rejected", None)
        roster.up("sip.test")
        self.assertEqual(self.words(), ["unsubscribed"])

    def test_other_server(self):
        """Where each domain has a server of its own, one that is gone hears all again when it is back."""
        roster = self.asked()
        roster.watchers.told(PAIR, "active", "", [DESK])
        self.words()
        roster.down("sip.test", "jabber.test")
        roster.watchers.told(PAIR, "active", "", [MOBILE])
        self.assertEqual(self.words(), ["available/mobile", "unavailable/desk"])
        roster.up("sip.test", "elsewhere.test")
        self.assertEqual(self.words(), [])
        roster.up("sip.test", "jabber.test")
        self.assertEqual(self.words(), ["available/mobile", "unavailable/desk"])
        roster.down("sip.test", "jabber.test")
        roster.watchers.told(PAIR, "terminated", "rejected", None)
        self.words()
        roster.up("sip.test", "jabber.test")
        self.assertEqual((self.words(), roster.watchers.pairs), (["unsubscribed"], {}))

    def test_restart(self):
        """Those of before are told when something is known: also of resources that are there no more."""
        roster = self.roster(subscribe=True, up=False)
        roster.watchers.admit(PAIR, "active", ["desk", "mobile"])
        roster.up("sip.test")
        self.assertEqual(self.words(), [])
        roster.watchers.told(PAIR, "active", "", [MOBILE])
        self.assertEqual(self.words(), ["available/mobile", "unavailable/desk"])
        self.assertEqual(self.doors.kept[PAIR], ("active", ["mobile"]))
        other = Pair(ALICE, Jid.parse("juliet@jabber.test"))
        roster.watchers.admit(other, "active", ["desk"])
        self.assertTrue(roster.watchers.failed(other, 503))
        self.assertEqual(self.words(), ["unavailable/desk"])
        self.come(roster, presence(kind="subscribe", sender="juliet@jabber.test"))
        self.assertEqual((self.words(), self.calls()), (["subscribed"], ["seek"]))

    def test_forgotten(self):
        """A probe of one whom we have forgotten makes us subscribe; he is not told anew that he was let in."""
        roster = self.roster(subscribe=True)
        self.come(roster, presence(kind="probe"))
        self.assertEqual((self.words(), self.calls()), ([], ["seek"]))
        roster.watchers.told(PAIR, "active", "", [DESK])
        self.assertEqual(self.words(), ["available/desk"])
