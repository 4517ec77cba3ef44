"""A whole server, and phones that write what nobody can read: a call ends as it should, and nothing is left of it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.errors import MalformedMessage
from tests.load.disorder import KINDS, Disorder, Peer

JUNK = [("Contact", "sip:"), ("Contact", "<sip:@>"), ("Record-Route", "junk"), ("Record-Route", "<sip:@;lr>")]
LIFE = 700.0
"""Seconds after which every call has ended by itself."""


class OddMessageTests(SynchronousTestCase):
    """Each kind of call of ``tests/configs/mixed.cfg``."""

    def setUp(self) -> None:
        self.heard: list[bytes] = []

    def begin(self, kind: str) -> tuple[Disorder, Peer, Peer]:
        """Somebody calls, and is told that it rings."""
        disorder = Disorder()
        caller, callee, _ = disorder.peers

        def receive(data: bytes, flow: Any) -> None:
            self.heard.append(data)
            try:
                Peer.receive(caller, data, flow)
            except MalformedMessage:
                pass  # a phone that cannot read Contact either

        caller.socket.receive = receive
        caller.invite(kind, "talk", True)
        callee.answer(callee.asked[0], 180)
        return disorder, caller, callee

    def fine(self, disorder: Disorder, *case: object) -> None:
        """Time passes; nothing was wrong, and nothing is left."""
        disorder.wait(LIFE)
        self.assertEqual((disorder.faults(), disorder.left()), ([], {}), case)

    def test_answers(self) -> None:
        """A 2xx whose Contact or Record-Route cannot be read is a 2xx; what is hidden stays so."""
        for kind in KINDS:
            for name, junk in JUNK:
                disorder, caller, callee = self.begin(kind)
                self.heard.clear()
                send = callee.send

                def broken(data: bytes, name: str = name, junk: str = junk, send: Any = send) -> None:
                    lines = [line for line in data.split(b"\r\n") if not line.startswith(name.encode())]
                    send(b"\r\n".join([lines[0], f"{name}: {junk}".encode(), *lines[1:]]))

                callee.send = broken  # type: ignore[method-assign]
                callee.answer(callee.asked[0], 200)
                callee.send = send  # type: ignore[method-assign]
                answers = [data for data in self.heard if data.startswith(b"SIP/2.0 200")]
                self.assertTrue(answers, (kind, name))
                if kind in ("hidden", "sealed"):
                    self.assertNotIn(junk.encode() + b"\r\n", answers[0])
                for known in caller.known:
                    caller.acknowledge(known, False)
                    caller.request(known, "BYE", False, False)
                self.fine(disorder, kind, name)

    def test_calls(self) -> None:
        """An INVITE with a Contact, or a From, whose URI cannot be read is answered, or passed on; nothing is left of it."""
        for kind in KINDS:
            for good, junk in (
                (b"Contact: <sip:alice@192.0.2.1>", b"Contact: <sip:@>"),
                (b"From: <sip:alice@x>", b"From: <sip:@>"),
                (b"Max-Forwards", b"Record-Route: <sip:@;lr>\r\nMax-Forwards"),
            ):
                disorder = Disorder()
                caller, callee, _ = disorder.peers
                send = caller.send

                def broken(data: bytes, send: Any = send, good: bytes = good, junk: bytes = junk) -> None:
                    self.assertIn(good, data)
                    send(data.replace(good, junk))

                caller.send = broken  # type: ignore[method-assign]
                caller.invite(kind, "talk", True)
                caller.send = send  # type: ignore[method-assign]
                for request in list(callee.asked):
                    callee.answer(request, 180)
                    callee.answer(request, 200)
                self.fine(disorder, kind, junk)

    def test_large_numbers(self) -> None:
        """A caller whose CSeq is as large as can be is called for with one that can be counted on."""
        for number in (2**31 - 1, 2**32 - 1):
            disorder = Disorder()
            caller, callee, _ = disorder.peers
            send = caller.send

            def large(data: bytes, number: int = number, send: Any = send) -> None:
                send(data.replace(b"CSeq: 1 INVITE", b"CSeq: %d INVITE" % number))

            caller.send = large  # type: ignore[method-assign]
            caller.invite("top", "talk", True)
            self.assertEqual(callee.asked[0].cseq.number, 1)
            callee.answer(callee.asked[0], 200)
            callee.request(callee.known[0], "BYE", False, False)
            self.fine(disorder, number)

    def test_requests(self) -> None:
        """A request within a call whose Contact cannot be read is answered 400; the call goes on."""
        for kind in KINDS:
            disorder, caller, callee = self.begin(kind)
            callee.answer(callee.asked[0], 200)
            caller.acknowledge(caller.known[0], False)
            self.heard.clear()
            send = caller.send

            def broken(data: bytes, send: Any = send) -> None:
                send(data.replace(b"Contact: <sip:alice@192.0.2.1>", b"Contact: sip:"))

            caller.send = broken  # type: ignore[method-assign]
            caller.request(caller.known[0], "INVITE", True, False)
            caller.send = send  # type: ignore[method-assign]
            if kind in ("plain", "timed", "pinged"):
                callee.answer(callee.asked[-1], 200)  # who only relays has no need to read it
                caller.acknowledge(caller.known[0], False)
            else:
                self.assertEqual([data[:11] for data in self.heard if b" 100 " not in data[:12]], [b"SIP/2.0 400"], kind)
            caller.request(caller.known[0], "BYE", False, False)
            self.fine(disorder, kind)
