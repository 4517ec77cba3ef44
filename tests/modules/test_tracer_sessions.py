"""Tests of ``trace("id", "b")``: all legs of a back-to-back call."""

from __future__ import annotations

from typing import Any

from tests.modules.calls import ALICE, BOB
from tests.modules.capture import Capture, words
from tests.modules.test_b2b_logic import SCRIPT, Back
from tests.proxy.rig import request


class SessionTests(Back):
    """Alice calls Bob through us; a capture server sees what belongs to the call."""

    seen: dict[int, Any]

    def trace(self, scope: str = "b", wanted: str = "$fU == \"alice\"") -> None:
        """Start a server that traces calls back to back."""
        self.capture = Capture()
        self.addCleanup(self.capture.close)
        params = f"""
            loadmodule "proto_hep.so"
            loadmodule "tracer.so"
            modparam("proto_hep", "hep_id", "[h] 127.0.0.1:{self.capture.port}; transport=udp")
            modparam("tracer", "trace_id", "[t]uri=hep:h;")
        """
        begin = f'if ({wanted}) trace("t", "{scope}"); b2b_init_request("top hiding");'
        self.start(SCRIPT % (params, begin, ""))
        self.seen = {}
        self.cseq = {ALICE: 1, BOB: 500}

    def shown(self) -> list[str]:
        """What the capture server has heard: ``1>0`` is from Alice, ``0>2`` to Bob."""
        return words(self.capture.frames())

    def test_call(self) -> None:
        """Both legs are shown, each message once and in order, to the end of the call."""
        self.trace()
        self.dial()
        self.assertEqual(self.shown(), ["1>0 INVITE", "0>2 INVITE", "0>1 100"])
        self.ring()
        self.assertEqual(self.shown(), ["2>0 180", "0>1 180"])
        self.pick_up()
        self.assertEqual(self.shown(), ["2>0 200", "0>1 200", "1>0 ACK", "0>2 ACK"])
        for port, there, back in ((ALICE, "1", "2"), (BOB, "2", "1")):
            self.sent(ALICE)
            self.within("INFO", port)
            (info,) = self.sent(BOB if port == ALICE else ALICE)
            self.reply(info, 200, BOB if port == ALICE else ALICE)
            expected = [f"{there}>0 INFO", f"0>{back} INFO", f"{back}>0 200", f"0>{there} 200"]
            self.assertEqual(sorted(self.shown()), sorted(expected))
        self.sent(ALICE)
        self.sent(BOB)
        self.hang_up(ALICE)
        self.assertEqual(sorted(self.shown()), sorted(["1>0 BYE", "0>1 200", "0>2 BYE", "2>0 200"]))
        self.gone()

    def test_cancel(self) -> None:
        """What ends a call that nobody has answered is shown."""
        self.trace()
        self.dial()
        self.ring()
        self.shown()
        self.arrive(request("CANCEL"))
        self.assertEqual(sorted(self.shown()), sorted(["1>0 CANCEL", "0>1 200", "0>1 487", "0>2 CANCEL"]))

    def test_others(self) -> None:
        """Calls that nobody asked for are not shown; a narrower scope shows the caller's transaction alone."""
        self.trace(wanted='$fU == "carol"')
        self.dial()
        self.ring()
        self.pick_up()
        self.assertEqual(self.shown(), [])
        self.trace("t")
        self.dial()
        self.assertEqual(self.shown(), ["1>0 INVITE", "0>1 100"])

    def test_started(self) -> None:
        """``tracer:start`` with scope b follows new calls, too."""
        self.trace(wanted="0")
        server = f"hep:127.0.0.1:{self.capture.port};transport=udp"
        self.command("tracer:start", id="live", uri=server, filter=["caller=alice"], scope="b", type="sip")
        self.dial()
        self.ring()
        self.assertEqual(self.shown(), ["1>0 INVITE", "0>2 INVITE", "0>1 100", "2>0 180", "0>1 180"])
