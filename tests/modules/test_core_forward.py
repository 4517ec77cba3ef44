"""Tests of sipgw.modules.core: forward, send, set_via_handling; and what replies have of their requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.core import Core
from sipgw.modules.sipmsgops import Sipmsgops
from sipgw.script.run import Run
from tests.doubles import response as reply_double
from tests.doubles import run_of
from tests.proxy.rig import Rig, request, response

core = Core()


class ForwardTests(SynchronousTestCase):
    """Sending on without a transaction."""

    def setUp(self) -> None:
        """A server, a caller at 7001, a callee at 7002."""
        self.rig = Rig()
        self.results: list[Any] = []

    def script(self, body: Callable[[Run], Any]) -> None:
        """Run ``body`` for each request and keep its result."""

        async def route(run: Run) -> None:
            result = body(run)
            self.results.append(await result if hasattr(result, "send") else result)

        self.rig.routes(route)

    def test_forward(self) -> None:
        """The request gets our Via, and its reply loses it again."""
        self.script(core.forward)
        self.rig.arrive(request("OPTIONS"), 7001)
        (sent,) = self.rig.sent(7002)
        self.assertEqual((len(sent.vias), sent.via.port, sent.uri), (2, 5060, "sip:127.0.0.1:7002"))
        self.rig.arrive(response(sent, 200), port=7002)
        (back,) = self.rig.sent(7001)
        self.assertEqual((back.status, len(back.vias), self.results), (200, 1, [True]))

    def test_retransmission(self) -> None:
        """A retransmitted request leaves with the same branch (RFC 3261 16.11)."""
        self.script(core.forward)
        self.rig.arrive(request("OPTIONS"), 7001)
        self.rig.arrive(request("OPTIONS"), 7001)
        one, other = self.rig.sent(7002)
        self.assertEqual(one.via.branch, other.via.branch)

    def test_destination(self) -> None:
        """A destination counts before the Request-URI, which stays."""
        for text in ("127.0.0.1:7003", "udp:127.0.0.1:7003"):
            self.script(partial(core.forward, destination=text))
            self.rig.arrive(request("OPTIONS", branch=text.replace(":", "")), 7001)
            (sent,) = self.rig.sent(7003)
            self.assertEqual((sent.uri, self.rig.sent(7002)), ("sip:127.0.0.1:7002", []))

    def test_nowhere(self) -> None:
        """A destination that has no socket of ours fails."""
        self.script(lambda run: core.forward(run, "tcp:127.0.0.1:7003"))
        self.rig.arrive(request("OPTIONS"), 7001)
        self.assertEqual((self.results, len(self.rig.socket.sent)), ([False], 0))

    def test_bad_destination(self) -> None:
        """What is no destination is refused when the configuration is read."""
        checks = [f.parameters[0].check for f in Core.declared().functions if f.name in ("forward", "send")]
        for check in checks:
            assert check is not None
            check("udp:[::1]:5060")
            for text in ("a b", "", "host:99999", "x\r\ny"):
                self.assertRaises(ValueError, check, text)

    def test_send(self) -> None:
        """The message goes as it came, whatever was changed; only new headers come first."""
        received = request("OPTIONS")

        def body(run: Run) -> Any:
            core.seturi(run, "sip:other@x")
            core.setdsturi(run, "sip:kept")
            Sipmsgops().append_hf(run, "X-A: b\r\n")
            return core.send(run, "127.0.0.1:7003", "X-H: 1\r\n")

        self.script(body)
        self.rig.arrive(received, 7001)
        ((_, port, data),) = self.rig.socket.sent
        line, rest = received.split(b"\r\n", 1)
        self.assertEqual((port, data), (7003, line + b"\r\nX-H: 1\r\n" + rest))
        self.assertEqual(self.results, [True])

    def test_send_refused(self) -> None:
        """No send without a way, or with headers that are none."""
        self.script(lambda run: core.send(run, "tcp:127.0.0.1:7003"))
        self.rig.arrive(request("OPTIONS"), 7001)
        self.script(lambda run: core.send(run, "127.0.0.1:7003", "junk"))
        self.rig.arrive(request("OPTIONS", branch="two"), 7001)
        self.assertEqual((self.results, self.rig.socket.sent), ([False, False], []))

    def test_via_handling(self) -> None:
        """Both flags, or an error."""

        async def body(run: Run) -> bool:
            core.set_via_handling(run, "force-rport, add-local-rport")
            return await core.forward(run)

        self.script(body)
        self.rig.arrive(request("OPTIONS"), 7001)
        (sent,) = self.rig.sent(7002)
        self.assertIn("rport", sent.via.params)
        self.assertEqual(sent.vias[1].params["rport"], "7001")
        run = run_of(reply_double())
        self.assertFalse(core.set_via_handling(run, "reply-to-via"))
        check = next(f for f in Core.declared().functions if f.name == "set_via_handling").parameters[0].check
        assert check is not None
        self.assertRaises(ValueError, check, "reply-to-via")

    def test_not_a_request(self) -> None:
        """A reply is not forwarded by a script."""
        with self.assertRaises(StopIteration) as stopped:
            core.forward(run_of(reply_double())).send(None)
        self.assertIs(stopped.exception.value, False)


class ReplyTests(SynchronousTestCase):
    """What a reply of ours takes from its request and its run (core/user.py, make_reply)."""

    def reply(self, status: int, **options: Any) -> Any:
        """The reply to a request with a Record-Route, after ``append_body_to_reply``."""
        rig = Rig()

        async def route(run: Run) -> None:
            Sipmsgops().append_to_reply(run, "Content-Type: text/plain")
            Sipmsgops().append_body_to_reply(run, "hello")
            rig.user.reply(run, status, "X", **options)

        rig.routes(route)
        rig.arrive(request("OPTIONS", extra="Record-Route: <sip:192.0.2.1;lr>\r\n"), 7001)
        (made,) = rig.sent(7001)
        return made

    def test_body(self) -> None:
        """append_body_to_reply gives every reply a body, unless it has one of its own."""
        made = self.reply(404)
        self.assertEqual((made.body, made.content_type), (b"hello", "text/plain"))
        self.assertEqual(self.reply(404, body=b"own").body, b"own")

    def test_record_route(self) -> None:
        """A reply that may make a dialog has the Record-Route of its request (RFC 3261 12.1.1)."""
        found = [status for status in (100, 180, 200, 302, 404) if self.reply(status).record_routes]
        self.assertEqual(found, [180, 200])
