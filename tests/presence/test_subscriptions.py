"""A notifier on a clock of the test's own: what phones ask, what they are told, and when it ends."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.presence.subscriptions import AHEAD, Subscriptions
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request, parse
from tests.presence.fakes import Run, User


class NotifierTests(SynchronousTestCase):
    """RFC 6665 4.2."""

    def setUp(self) -> None:
        """A notifier of one thing."""
        self.user = User()
        self.sent: list[Request] = []
        self.answers: list[Any] = []
        self.state = "active"
        self.interest: list[tuple[str, str]] = []
        self.fault: SipError | None = None
        self.kept: dict[str, str] = {}
        self.number = 0
        self.news = True
        self.subscriptions = Subscriptions(self.user, self.send, self, "application/pidf+xml")

    async def send(self, request: Request, answer: Any, next_hop: str, socket: Any) -> None:
        if self.fault is not None:
            raise self.fault
        self.sent.append(request)
        self.answers.append(answer)

    def told(self, key: Any) -> tuple[str, bytes, str]:
        self.number += 1
        return self.state, b"<presence>%d</presence>" % self.number if self.news else b"", "application/pidf+xml"

    def wanted(self, key: Any) -> None:
        self.interest.append(("wanted", key))

    def unwanted(self, key: Any) -> None:
        self.interest.append(("unwanted", key))

    def noted(self, id: str, key: Any, text: str | None) -> None:
        if text is None:
            self.kept.pop(id, None)
        else:
            self.kept[id] = text

    def ask(self, expires: int = 600, cseq: int = 1, tag: str = "", call_id: str = "c1") -> tuple[int, str, str]:
        """A SUBSCRIBE of the phone; what is answered."""
        to = f";tag={tag}" if tag else ""
        made = parse((
            "SUBSCRIBE sip:romeo@jabber.test SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n"
            f"From: <sip:alice@sip.test>;tag=a\r\nTo: <sip:romeo@jabber.test>{to}\r\nCall-ID: {call_id}\r\n"
            f"CSeq: {cseq} SUBSCRIBE\r\nRecord-Route: <sip:p1.test;lr>\r\nContact: <sip:alice@192.0.2.9>\r\n"
            f"Event: presence;id=7\r\nExpires: {expires}\r\nContent-Length: 0\r\n\r\n"
        ).encode())
        assert isinstance(made, Request)
        run: Any = Run(made)
        self.subscriptions.take(run, lambda request: "key")
        return self.user.replies[-1]

    def states(self) -> list[str]:
        """The states that were told."""
        return [each.header("subscription-state") or "" for each in self.sent]

    def test_life(self) -> None:
        """Made, told, refreshed, ended by time."""
        status, tag, headers = self.ask()
        self.assertEqual((status, headers), (
            200, "Contact: <sip:romeo@192.0.2.1:5060>\r\nExpires: 600\r\n",
        ))
        notify = self.sent[0]
        self.assertEqual((notify.uri, notify.header("route"), notify.header("event")), (
            "sip:alice@192.0.2.9", "<sip:p1.test;lr>", "presence;id=7",
        ))
        self.assertEqual((notify.from_tag, notify.to_tag, self.states()), (tag, "a", ["active;expires=600"]))
        self.answers[0](200, None)
        self.user.time.advance(500)
        self.assertEqual(self.ask(300, 2, tag)[0], 200)
        self.answers[1](200, None)
        self.user.time.advance(299)
        self.assertEqual(self.states()[1:], ["active;expires=300"])
        self.user.time.advance(2)
        self.assertEqual(self.states()[2:], ["terminated;reason=timeout"])
        self.assertEqual(self.interest, [("wanted", "key"), ("wanted", "key"), ("unwanted", "key")])
        self.assertEqual(self.ask(300, 3, tag)[0], 481)
        self.assertEqual((self.subscriptions.count, self.user.time.getDelayedCalls()), (0, []))

    def test_one_at_a_time(self) -> None:
        """Changes while a NOTIFY is under way go with the next; they are numbered in order."""
        self.ask()
        for _ in range(5):
            self.subscriptions.changed("key")
        self.assertEqual(len(self.sent), 1)
        self.answers[0](200, None)
        self.answers[1](200, None)
        self.assertEqual([each.cseq.number for each in self.sent], [1, 2])

    def test_no_news(self) -> None:
        """What was told already is told again only to who asks."""
        self.news = False
        _, tag, _ = self.ask()
        self.answers[0](200, None)
        self.subscriptions.changed("key")
        self.assertEqual(len(self.sent), 1)
        self.ask(cseq=2, tag=tag)
        self.subscriptions.changed("key")
        self.answers[1](200, None)
        self.assertEqual(len(self.sent), 2)
        self.state = "pending"
        self.subscriptions.changed("key")
        self.assertEqual(self.states()[-1], "pending;expires=600")

    def test_repeated(self) -> None:
        """The same request again is answered the same, and makes no second subscription."""
        first = self.ask()
        self.assertEqual(self.ask(), first)
        self.assertEqual(self.subscriptions.count, 1)
        self.assertEqual(self.ask(cseq=2)[0], 500)
        self.assertEqual(self.ask(cseq=1, call_id="c2")[0], 200)
        self.assertEqual(self.subscriptions.of("key"), 2)

    def test_phone_is_gone(self) -> None:
        """A NOTIFY that is answered 481, or not at all, ends it; one that could not be sent just now does not."""
        for status in (481, 408):
            self.ask()
            self.answers[-1](status, None)
            self.assertEqual((self.subscriptions.count, self.interest[-1]), (0, ("unwanted", "key")))
        self.ask()
        self.answers[-1](503, None)
        self.assertEqual(self.subscriptions.count, 1)
        self.fault = SipError("No Way", 503)
        self.subscriptions.changed("key")
        self.assertEqual((self.subscriptions.count, self.user.lines), (1, ["no NOTIFY can be sent: No Way"]))

    def test_rejected(self) -> None:
        """The source ends it, and so do we when we leave; a fetch (Expires: 0) is told once."""
        self.ask()
        self.answers[0](200, None)
        self.state = "terminated;reason=rejected"
        self.subscriptions.changed("key")
        self.assertEqual((self.states()[1:], self.subscriptions.count), (["terminated;reason=rejected"], 0))
        self.state = "active"
        self.ask(0, call_id="c3")
        self.assertEqual((self.states()[2:], self.subscriptions.count), (["terminated;reason=timeout"], 0))
        self.ask(call_id="c4")
        self.subscriptions.end_all("deactivated")
        self.answers[-1](200, None)
        self.assertEqual((self.states()[4:], self.subscriptions.count), (["terminated;reason=deactivated"], 0))

    def test_restart(self) -> None:
        """What was noted goes on: the same dialog, CSeq numbers that were never used; what is over or broken does not."""
        _, tag, _ = self.ask()
        for _ in range(AHEAD * 2):
            self.answers[-1](200, None)
            self.subscriptions.changed("key")
        last = self.sent[-1].cseq.number
        [text] = self.kept.values()
        self.user.time.advance(100)
        self.subscriptions = Subscriptions(self.user, self.send, self, "application/pidf+xml")
        self.assertTrue(self.subscriptions.resume("key", text))
        self.assertFalse(self.subscriptions.resume("key", text))
        self.assertEqual(len(self.sent), AHEAD * 2 + 1)
        self.subscriptions.all_changed()
        notify = self.sent[-1]
        self.assertEqual((notify.from_tag, notify.uri, notify.header("route")), (tag, "sip:alice@192.0.2.9", "<sip:p1.test;lr>"))
        self.assertGreater(notify.cseq.number, last)
        self.assertEqual(self.states()[-1], "active;expires=500")
        self.assertEqual(self.ask(300, 2, tag)[0], 200)
        for _ in range(2):  # that of the refresh had to wait for the one before it
            self.answers[-1](200, None)
        self.user.time.advance(301)
        self.assertEqual((self.states()[-1], self.kept), ("terminated;reason=timeout", {}))
        self.user.time.advance(500)
        for broken in (text, "", "{}", "[]", text.replace("reserved", "x")):
            self.assertFalse(self.subscriptions.resume("key", broken), broken)
