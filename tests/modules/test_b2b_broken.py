"""Tests of back-to-back calls that meet a fault of ours in a response: it is logged, the call ends, nothing is left."""

from __future__ import annotations

from typing import Any

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Response
from tests.modules.calls import ALICE, BOB
from tests.modules.test_b2b_logic import Back
from tests.proxy.rig import request


class BrokenTests(Back):
    """A server that fails at what it passes on of responses."""

    def spoil(self, error: Exception) -> None:
        """Let it fail from now on."""
        entities: Any = self.wired.server.modules["b2b_entities"]
        content = entities.entities.passing.content

        def broken(message: Any, *rest: Any) -> Any:
            if isinstance(message, Response):
                raise error
            return content(message, *rest)

        entities.entities.passing.content = broken

    def test_first(self) -> None:
        """In an answer to the first INVITE, of each kind."""
        for error, told in ((MalformedMessage("Bad Contact"), "a bad response: Bad Contact"), (KeyError("x"), "bug: KeyError")):
            for status, theirs in ((180, ["CANCEL"]), (200, ["ACK", "BYE"]), (486, ["ACK"])):
                self.serve()
                self.spoil(error)
                self.dial()
                self.sent(ALICE)
                self.answer(self.invited, status, tag="b1", extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n")
                self.assertEqual(self.said(ALICE), ["500"], status)
                self.arrive(request("ACK", to_tag="x"))
                sent = self.sent(BOB)
                self.assertEqual([one.method for one in sent], theirs, status)
                if status == 180:
                    self.reply(sent[0], 200, BOB)
                    self.answer(self.invited, 487)
                elif status == 200:
                    self.reply(sent[1], 200, BOB)
                self.assertTrue([text for _, text in self.wired.lines if told in text])
                self.wired.lines.clear()
                self.gone()

    def test_within(self) -> None:
        """In an answer to a re-INVITE: both sides are hung up on."""
        self.serve()
        self.talk()
        self.spoil(MalformedMessage("Bad Contact"))
        self.within("INVITE", ALICE)
        (again,) = self.sent(BOB)
        self.sent(ALICE)
        self.reply(again, 200, BOB, more=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n")
        theirs, ours = self.sent(BOB), self.sent(ALICE)
        self.assertEqual([one.method for one in theirs], ["BYE"])
        (bye,) = [one for one in ours if not isinstance(one, Response)]
        self.assertEqual((bye.method, [one.status for one in ours if one is not bye]), ("BYE", [487]))
        self.reply(again, 200, BOB, more=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n")
        self.assertEqual(self.said(BOB), ["ACK"])
        self.within("ACK", ALICE, cseq=2, branch="INVITE70012")
        self.reply(theirs[0], 200, BOB)
        self.reply(bye, 200, ALICE)
        self.gone()
