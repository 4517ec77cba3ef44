"""Tests of sipgw.modules.sl."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from sipgw.modules.sl import Sl
from sipgw.script.run import Branch
from sipgw.sip.errors import MalformedMessage
from tests.doubles import HEAD, fake_server, request, response, run_of


class SlTests(TestCase):
    """Stateless replies and their ACKs."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Start a module on a fake server."""
        self.server = fake_server()
        self.user = self.server.user
        self.sl = Sl(self.server)
        await self.sl.start()

    def sent(self) -> list[str]:
        """The status lines of the replies so far."""
        return [data.decode().partition("\r\n")[0] for data in self.user.replies]

    def test_reply(self) -> None:
        """A reply has our tag and is counted in its class."""
        run = run_of(request(), self.user)
        self.assertTrue(self.sl.sl_send_reply(run, 404, "Not Here"))
        self.assertEqual(self.sent(), ["SIP/2.0 404 Not Here"])
        self.assertIn(b"To: <sip:bob@example.org>;tag=ours.call1@example.org\r\n", self.user.replies[0])
        counts = {stat.name: stat.read() for stat in self.user.statistics.group("sl") if stat.read()}
        self.assertEqual(counts, {"4xx_replies": 1, "sent_replies": 1})

    def test_classes(self) -> None:
        """Every class has its counter."""
        for status in (100, 200, 302, 404, 500, 603):
            self.sl.sl_send_reply(run_of(request(), self.user), status, "X")
        counts = {stat.name: stat.read() for stat in self.user.statistics.group("sl")}
        self.assertEqual(counts.pop("sent_replies"), 6)
        self.assertEqual({name for name, count in counts.items() if count == 1}, {f"{c}xx_replies" for c in range(1, 7)})

    def test_no_stats(self) -> None:
        """``enable_stats`` 0 counts nothing."""
        self.sl.set_parameter("enable_stats", 0)
        self.sl.sl_send_reply(run_of(request(), self.user), 404, "X")
        self.assertEqual(sum(stat.read() for stat in self.user.statistics.group("sl")), 0)

    def test_refused(self) -> None:
        """No reply with a bad status, a line end in its reason, or to a reply; all but the last are logged."""
        self.assertFalse(self.sl.sl_send_reply(run_of(request(), self.user), 700, "X"))
        for reason in ("a\r\nX: y", "a\ny", "a\0"):
            self.assertFalse(self.sl.sl_send_reply(run_of(request(), self.user), 200, reason))
        self.assertFalse(self.sl.sl_send_reply(run_of(response(), self.user), 200, "OK"))
        self.assertEqual((self.user.replies, len(self.user.logged)), ([], 3))

    def test_ack_not_answered(self) -> None:
        """An ACK is not answered, and that is success."""
        self.assertTrue(self.sl.sl_send_reply(run_of(request("ACK"), self.user), 404, "X"))
        self.assertTrue(self.sl.sl_reply_error(run_of(request("ACK"), self.user)))
        self.assertEqual(self.user.replies, [])

    def test_ack_absorbed(self) -> None:
        """The ACK to a stateless reply ends before the script; other ACKs and other requests do not."""
        (before_script,) = self.user.on_request
        ours = HEAD.replace("<sip:bob@example.org>", "<sip:bob@example.org>;tag=ours.call1@example.org")
        theirs = HEAD.replace("<sip:bob@example.org>", "<sip:bob@example.org>;tag=b1")
        taken = [
            before_script(run_of(request(method, head=head), self.user))
            for method, head in [("ACK", ours), ("ACK", theirs), ("ACK", HEAD), ("BYE", ours)]
        ]
        self.assertEqual(taken, [True, False, False, False])
        self.assertEqual(self.sl.received_acks.read(), 1)

    def test_redirect(self) -> None:
        """A 3xx names the branches; the Request-URI only where it was changed, with its q if it has one."""
        run = run_of(request("INVITE"), self.user)
        run.q = 700
        run.branches = [Branch("sip:x@y", q=500), Branch("sip:z@y")]
        self.sl.sl_send_reply(run, 302, "Moved")
        self.assertIn(b"\r\nContact: <sip:x@y>;q=0.5, <sip:z@y>\r\n", self.user.replies[-1])
        run.uri = "sip:carol@example.org"
        self.sl.sl_send_reply(run, 302, "Moved")
        self.assertIn(b"\r\nContact: <sip:carol@example.org>;q=0.7, <sip:x@y>;q=0.5, <sip:z@y>\r\n", self.user.replies[-1])
        run.q = -1
        self.sl.sl_send_reply(run, 302, "Moved")
        self.assertIn(b"\r\nContact: <sip:carol@example.org>, <sip:x@y>;q=0.5, <sip:z@y>\r\n", self.user.replies[-1])
        self.sl.sl_send_reply(run, 404, "Not Found")
        self.assertNotIn(b"Contact", self.user.replies[-1])

    def test_error(self) -> None:
        """sl_reply_error tells the error of the run, or 500, and is counted apart."""
        run = run_of(request(), self.user)
        self.assertTrue(self.sl.sl_reply_error(run))
        run.error = MalformedMessage("Bad Via")
        self.assertTrue(self.sl.sl_reply_error(run))
        self.assertEqual(self.sent(), ["SIP/2.0 500 Server error occurred (1/SL)", "SIP/2.0 400 Bad Via"])
        self.assertEqual(self.sl.sent_err_replies.read(), 2)

    def test_status_checked(self) -> None:
        """A constant status is checked when the configuration is read."""
        parameter = self.sl.declared().functions[0].parameters[0]
        assert parameter.check is not None
        parameter.check(404)
        self.assertRaises(ValueError, parameter.check, 99)
