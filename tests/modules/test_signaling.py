"""Tests of sipgw.modules.signaling."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from sipgw.modules.signaling import Signaling
from sipgw.modules.sl import Sl
from sipgw.script.run import Branch
from tests.doubles import fake_server, request, response, run_of


class FakeTransaction:
    """A transaction that keeps its replies."""

    def tag(self) -> str:
        """Of its replies."""
        return "tm.1"

    def __init__(self) -> None:
        self.replies: list[tuple[int, str, str]] = []

    def reply(self, run: Any, status: int, reason: str, *, headers: str = "", **options: Any) -> None:
        """Keep it."""
        self.replies.append((status, reason, headers))


class SignalingTests(TestCase):
    """send_reply and $sig_local_totag."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Start sl and signaling on a fake server."""
        self.server = fake_server()
        self.user = self.server.user
        self.sl = Sl(self.server)
        await self.sl.start()
        self.signaling = Signaling(self.server, sl=self.sl)
        await self.signaling.start()

    def test_stateless(self) -> None:
        """Without a transaction sl answers."""
        run = run_of(request(), self.user)
        self.assertTrue(self.signaling.send_reply(run, 404, "NF"))
        self.assertEqual((len(self.user.replies), self.sl.sent_replies.read()), (1, 1))
        self.assertIn(f";tag={self.signaling.sig_local_totag(run)}\r\n".encode(), self.user.replies[0])

    def test_stateful(self) -> None:
        """With one the transaction answers, and knows the tag; a 3xx names the branches there too."""
        run = run_of(request(), self.user)
        run.transaction = FakeTransaction()
        run.branches = [Branch("sip:x@y")]
        self.assertTrue(self.signaling.send_reply(run, 404, "NF"))
        self.assertTrue(self.signaling.send_reply(run, 302, "Moved"))
        self.assertFalse(self.signaling.send_reply(run, 200, "O\r\nK"))
        self.assertEqual(run.transaction.replies, [(404, "NF", ""), (302, "Moved", "Contact: <sip:x@y>\r\n")])
        self.assertEqual((self.user.replies, self.signaling.sig_local_totag(run)), ([], "tm.1"))

    def test_tag_before_reply(self) -> None:
        """Without a transaction it is the tag of a stateless reply; in a reply there is none."""
        run = run_of(request(), self.user)
        self.assertEqual(self.signaling.sig_local_totag(run), "ours.call1@example.org")
        self.assertIsNone(self.signaling.sig_local_totag(run_of(response(), self.user)))

    async def test_needs_one(self) -> None:
        """Neither tm nor sl: it does not start. Only tm: what has no transaction is not answered."""
        alone = Signaling(self.server)
        with self.assertRaises(ValueError):
            await alone.start()
        with_tm = Signaling(self.server, tm=object())
        await with_tm.start()
        self.assertFalse(with_tm.send_reply(run_of(request(), self.user), 404, "NF"))
        self.assertIn("sl is not loaded", self.user.logged[-1][1])
