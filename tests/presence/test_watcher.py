"""Subscriptions of ours on a clock of the test's own: each answer of a notifier, each word of its NOTIFYs, each time."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.presence.watcher import Notice, State, Watcher, Wish
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import respond_to
from tests.presence.fakes import User

WISH = Wish("sip:alice@sip.test", "sip:romeo@jabber.test", "sip:romeo@192.0.2.1:5060")


class Rig(SynchronousTestCase):
    """A watcher, and a notifier that the test plays."""

    def setUp(self) -> None:
        self.user = User()
        self.sent: list[tuple[Request, str, bool]] = []
        self.answers: list[Any] = []
        self.notices: list[Notice] = []
        self.failures: list[tuple[int, str]] = []
        self.kept: dict[str, str] = {}
        self.again = True
        self.fault: SipError | None = None
        self.number = 0
        self.watcher = Watcher(self.user, self.send, self, self.authenticate)

    # ---- what a watcher asks for

    async def send(self, request: Request, answer: Any, next_hop: str, first: bool) -> None:
        if self.fault is not None:
            raise self.fault
        self.sent.append((request, next_hop, first))
        self.answers.append(answer)

    def authenticate(self, response: Response, method: str, uri: str) -> tuple[str, str, str] | None:
        if "knows" not in (response.header("www-authenticate") or ""):
            return None
        return "knows", "Authorization", f"Digest of {method} {uri}"

    def told(self, key: Any, notice: Notice) -> None:
        if notice.body == b"broken":
            raise SipError("Bad Document", 400)
        self.notices.append(notice)

    def failed(self, key: Any, status: int, reason: str) -> bool:
        self.failures.append((status, reason))
        return self.again

    def noted(self, key: Any, text: str | None) -> None:
        if text is None:
            self.kept.pop(key, None)
        else:
            self.kept[key] = text

    # ---- what a notifier does

    @property
    def last(self) -> Request:
        return self.sent[-1][0]

    def answer(self, status: int, headers: str = "", tag: str = "n1") -> None:
        """Answer the last SUBSCRIBE."""
        lines = list(self.last.lines)
        lines.insert(1, "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1")
        request = parse("\r\n".join([*lines, "", ""]).encode())
        assert isinstance(request, Request)
        headers = f"Contact: <sip:pa@192.0.2.5>\r\n{headers}"
        data = respond_to(request, status, to_tag="" if request.to_tag else tag, headers=headers)
        self.answers[-1](status, parse(data))

    def notify(
        self, state: str, body: str = "", tag: str = "n1", event: str = "presence", number: int = 0, more: str = ""
    ) -> None:
        """Send a NOTIFY in the dialog of the last SUBSCRIBE."""
        self.number = number or self.number + 1
        request, data = self.last, body.encode()
        made = parse((
            f"NOTIFY {WISH.contact} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.5;branch=z9hG4bK{self.number}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:alice@sip.test>;tag={tag}\r\nTo: <sip:romeo@jabber.test>;tag={request.from_tag}\r\n"
            f"Call-ID: {request.call_id}\r\nCSeq: {self.number} NOTIFY\r\nContact: <sip:pa@192.0.2.5>\r\n{more}"
            f"Event: {event}\r\n{f'Subscription-State: {state}' + chr(13) + chr(10) if state else ''}"
            f"Content-Type: application/pidf+xml\r\nContent-Length: {len(data)}\r\n\r\n"
        ).encode() + data)
        assert isinstance(made, Request)
        self.watcher.take(made)

    def status(self, *what: Any, **more: Any) -> int:
        """What a NOTIFY is refused with; 200 if it is taken."""
        try:
            self.notify(*what, **more)
        except SipError as error:
            return error.status
        return 200

    def begin(self, expires: int = 3600) -> None:
        """An active subscription."""
        self.watcher.want("k", WISH)
        self.answer(200, f"Expires: {expires}\r\n")
        self.notify("active;expires=3600", "doc")

    @property
    def state(self) -> State:
        return self.watcher.held["k"].state


class LifeTests(Rig):
    """RFC 6665 4.1.2."""

    def test_life(self) -> None:
        """Made, told of, refreshed in its dialog before its time is over, ended; and nothing is left."""
        self.watcher.want("k", WISH)
        first, next_hop, initial = self.sent[0]
        self.assertEqual((first.uri, next_hop, initial, first.cseq.number), ("sip:alice@sip.test", "", True, 1))
        self.assertEqual((first.header("event"), first.header("accept"), first.header("expires"), first.header("contact")), (
            "presence", "application/pidf+xml", "3600", "<sip:romeo@192.0.2.1:5060>",
        ))
        self.answer(200, "Expires: 600\r\nRecord-Route: <sip:p1.test;lr>\r\n")
        self.notify("pending")
        self.assertEqual(self.state, State.PENDING)
        self.notify("active;expires=590", "doc")
        self.assertEqual((self.state, self.notices[-1]), (State.ACTIVE, Notice("active", "", "application/pidf+xml", b"doc")))
        self.user.time.advance(530)
        self.assertEqual(len(self.sent), 1)
        self.user.time.advance(11)
        refresh, next_hop, initial = self.sent[1]
        self.assertEqual((refresh.uri, refresh.header("route"), next_hop, initial, refresh.cseq.number, refresh.to_tag), (
            "sip:pa@192.0.2.5", "<sip:p1.test;lr>", "sip:p1.test;lr", False, 2, "n1",
        ))
        self.answer(200, "Expires: 600\r\n")
        self.watcher.unwant("k")
        self.assertEqual((self.last.header("expires"), self.last.cseq.number, self.watcher.held), ("0", 3, {}))
        self.answer(200, "Expires: 0\r\n")
        self.notify("terminated;reason=timeout")
        self.assertEqual((self.failures, self.kept, len(self.notices)), ([], {}, 2))
        self.assertEqual((self.user.time.getDelayedCalls(), self.status("active")), ([], 481))

    def test_notify_first(self) -> None:
        """A NOTIFY that is faster than the response makes the dialog; that of another fork is refused."""
        self.watcher.want("k", WISH)
        self.notify("active;expires=100", "doc", tag="n2", more="Record-Route: <sip:p2.test;lr>\r\n")
        self.assertEqual(self.status("active", tag="n1"), 481)
        self.answer(200, "Expires: 100\r\n", tag="n1")
        self.user.time.advance(91)
        self.assertEqual((self.last.to_tag, self.last.header("route"), self.last.cseq.number), ("n2", "<sip:p2.test;lr>", 2))

    def test_shorter(self) -> None:
        """A NOTIFY may shorten the time that was granted, and not lengthen it (4.1.2.4)."""
        self.begin(100)
        self.notify("active;expires=20")
        self.user.time.advance(14)
        self.assertEqual(len(self.sent), 1)
        self.user.time.advance(2)
        self.assertEqual(len(self.sent), 2)

    def test_asked_again(self) -> None:
        """Who wants what there is already makes us ask for it: no second subscription."""
        self.begin()
        self.watcher.want("k", WISH)
        self.assertEqual((len(self.sent), self.last.to_tag, len(self.watcher.held)), (2, "n1", 1))

    def test_ended_too_early(self) -> None:
        """What is unwanted while it is being made is ended when it is there; what was refused meanwhile is forgotten."""
        self.watcher.want("k", WISH)
        self.watcher.unwant("k")
        self.assertEqual(len(self.sent), 1)
        self.answer(200, "Expires: 600\r\n")
        self.assertEqual((len(self.sent), self.last.header("expires"), self.last.to_tag), (2, "0", "n1"))
        self.answer(200)
        self.user.time.advance(33)
        self.assertEqual((self.user.time.getDelayedCalls(), self.status("active")), ([], 481))
        self.watcher.want("k", WISH)
        self.watcher.unwant("k")
        self.answer(404)
        self.assertEqual((self.user.time.getDelayedCalls(), self.watcher.held), ([], {}))


class AnswerTests(Rig):
    """What a notifier may answer."""

    def test_challenge(self) -> None:
        """A challenge is answered once, with the next CSeq; the same again means a wrong password; an unknown one none at all."""
        self.watcher.want("k", WISH)
        self.answer(401, 'WWW-Authenticate: Digest realm="knows", nonce="1"\r\n')
        self.assertEqual((self.last.header("authorization"), self.last.cseq.number, len(self.sent)), (
            "Digest of SUBSCRIBE sip:alice@sip.test", 2, 2,
        ))
        self.answer(401, 'WWW-Authenticate: Digest realm="knows", nonce="2", stale=true\r\n')
        self.assertEqual(len(self.sent), 3)
        self.answer(401, 'WWW-Authenticate: Digest realm="knows", nonce="3"\r\n')
        self.assertEqual((len(self.sent), self.failures), (3, [(401, "Unauthorized")]))
        self.user.time.advance(11)
        self.answer(401, 'WWW-Authenticate: Digest realm="other", nonce="4"\r\n')
        self.assertEqual((len(self.sent), len(self.failures)), (4, 2))

    def test_too_brief(self) -> None:
        """423 says how long it must be; once."""
        self.watcher.want("k", WISH)
        self.answer(423, "Min-Expires: 7200\r\n")
        self.assertEqual((self.last.header("expires"), len(self.sent)), ("7200", 2))
        self.answer(423, "Min-Expires: 9000\r\n")
        self.assertEqual((len(self.sent), self.failures[0][0]), (2, 423))

    def test_refused(self) -> None:
        """What is refused is tried again after times that double, or that Retry-After says; or never, as the owner likes."""
        self.watcher.want("k", WISH)
        for wait in (10, 20, 40):
            self.answer(480)
            self.user.time.advance(wait - 1)
            before = len(self.sent)
            self.user.time.advance(2)
            self.assertEqual(len(self.sent), before + 1)
            self.assertEqual((self.last.cseq.number, self.last.to_tag), (1, None))
        self.answer(503, "Retry-After: 500 (busy)\r\n")
        self.user.time.advance(499)
        self.assertEqual(len(self.sent), 4)
        self.user.time.advance(2)
        self.again = False
        self.answer(603)
        self.assertEqual((self.watcher.held, self.user.time.getDelayedCalls()), ({}, []))
        self.assertEqual([status for status, _ in self.failures], [480, 480, 480, 503, 603])

    def test_cannot_be_sent(self) -> None:
        """No way, no answer, no NOTIFY: tried again; the owner may ask for that now."""
        self.fault = SipError("No Way", 503)
        self.watcher.want("k", WISH)
        self.assertEqual((self.failures, self.user.lines), ([(503, "No Answer")], ["no SUBSCRIBE can be sent: No Way"]))
        self.fault = None
        self.watcher.want("k", WISH)
        self.answers[-1](408, None)
        self.watcher.want("k", WISH)
        self.answer(200)
        self.user.time.advance(33)
        self.assertEqual([status for status, _ in self.failures], [503, 408, 408])

    def test_refresh_refused(self) -> None:
        """481 to a refresh: a new subscription at once. 503 or silence: again, as long as the old one lives."""
        self.begin(600)
        call_id = self.last.call_id
        self.user.time.advance(541)
        self.answer(503)
        self.assertEqual(self.state, State.ACTIVE)
        self.user.time.advance(31)
        self.assertEqual(len(self.sent), 3)
        self.answer(481)
        self.user.time.advance(0)
        self.assertEqual((len(self.sent), self.last.to_tag, self.last.cseq.number), (4, None, 1))
        self.assertNotEqual(self.last.call_id, call_id)
        self.answer(200, "Expires: 100\r\n")
        self.notify("active", "doc", number=1)
        self.user.time.advance(91)
        self.answers[-1](408, None)
        self.user.time.advance(10)
        self.answers[-1](408, None)
        self.assertEqual(self.failures, [(481, "Call/Transaction Does Not Exist"), (481, "No Answer")])
        self.assertEqual(self.state, State.WAITING)


class NotifyTests(Rig):
    """RFC 6665 4.1.3."""

    def test_refused(self) -> None:
        """Other events, no state, an old CSeq, a broken document, a stranger's."""
        self.begin()
        self.notify("active", number=7)
        for status, what in (
            (489, {"event": "dialog"}), (400, {"state": ""}), (500, {"number": 6}), (400, {"body": "broken"}),
            (481, {"tag": "x"}),
        ):
            number = {"number": 8, **what}
            self.assertEqual(self.status(**{"state": "active", **number}), status, what)
            self.number = 7
        self.assertEqual(self.state, State.ACTIVE)

    def test_terminated(self) -> None:
        """Each reason: some ask us never to come again, some to come at once, some later."""
        for reason, wait in (
            ("rejected", -1), ("noresource", -1), ("invariant", -1), ("deactivated", 0), ("timeout", 0),
            ("probation;retry-after=99", 99), ("giveup", 10), ("", 10), ("unheard-of", 10),
        ):
            self.setUp()
            self.begin()
            self.user.time.advance(61)
            self.notify(f"terminated;reason={reason}" if reason else "terminated")
            self.assertEqual(self.notices[-1].state, "terminated")
            self.assertEqual((self.notices[-1].reason, self.kept), (reason.partition(";")[0], {}))
            if wait < 0:
                self.assertEqual((self.watcher.held, self.user.time.getDelayedCalls()), ({}, []), reason)
                continue
            if wait:
                self.user.time.advance(wait - 1)
                self.assertEqual(len(self.sent), 1, reason)
            self.user.time.advance(1)
            self.assertEqual((len(self.sent), self.last.to_tag), (2, None), reason)

    def test_no_circle(self) -> None:
        """A notifier that ends each subscription in its first NOTIFY is asked less and less often."""
        self.watcher.want("k", WISH)
        for wait in (10, 20, 40):
            self.answer(200)
            self.notify("active", "doc", number=1)
            self.notify("terminated;reason=timeout", number=2)
            before = len(self.sent)
            self.user.time.advance(wait - 1)
            self.assertEqual(len(self.sent), before)
            self.user.time.advance(1)
            self.assertEqual(len(self.sent), before + 1)


class RestartTests(Rig):
    """What is noted is enough to go on with."""

    def test_resume(self) -> None:
        """The same dialog goes on with a higher CSeq; what is over, or broken, does not."""
        self.begin(600)
        text, call_id = self.kept["k"], self.last.call_id
        self.watcher.rest()
        self.assertEqual(self.user.time.getDelayedCalls(), [])
        self.user.time.advance(100)
        self.watcher = Watcher(self.user, self.send, self, self.authenticate)
        self.assertTrue(self.watcher.resume("k", text, 1.0))
        self.notify("active", "early")
        self.user.time.advance(1)
        self.assertEqual((self.last.call_id, self.last.to_tag, self.last.uri), (call_id, "n1", "sip:pa@192.0.2.5"))
        self.assertGreater(self.last.cseq.number, 2)
        self.answer(200, "Expires: 600\r\n")
        self.notify("active;expires=600", "doc")
        self.assertEqual([each.body for each in self.notices], [b"doc", b"early", b"doc"])
        self.user.time.advance(700)
        self.assertFalse(Watcher(self.user, self.send, self).resume("k", text))
        for broken in ("", "[]", "{}", text.replace("n1", "")[:-9]):
            self.assertFalse(Watcher(self.user, self.send, self).resume("k", broken), broken)

    def test_forgotten(self) -> None:
        """A notifier that knows nothing of it any more gets a new SUBSCRIBE."""
        self.begin(600)
        text = self.kept["k"]
        self.watcher = Watcher(self.user, self.send, self, self.authenticate)
        self.watcher.resume("k", text)
        self.user.time.advance(0)
        self.answer(481)
        self.user.time.advance(0)
        self.assertEqual((self.last.to_tag, self.kept), (None, {}))

    def test_leaving(self) -> None:
        """Who does not come back unsubscribes."""
        self.begin()
        self.watcher.end_all()
        self.assertEqual((self.last.header("expires"), self.kept), ("0", {}))
