"""Tests of tap, ladder, pcap and trace: a call through a proxy on a wire; tshark reads what is saved."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sipgw.manhole.ladder import ladder
from sipgw.manhole.pcap import pcap
from sipgw.manhole.tap import Seen, Tap
from sipgw.manhole.trace import Trace
from sipgw.sip.message import parse
from sipgw.testing import WireFlow
from tests.modules.scripted import Scripted, request

LADDER = """\
                   192.0.2.1:5060                sipgw
   0.000      +0ms |------- OPTIONS bob -------->|
   0.000      +0ms |<---------- 200 OK ----------|"""


class TraceTests(SynchronousTestCase):
    """A server on a wire."""

    def setUp(self) -> None:
        self.scripted = Scripted('sl_send_reply(200, "OK");')
        self.shown: list[str] = []
        self.tap = Tap(self.scripted.server, (WireFlow,))
        self.trace = Trace(self.tap, self.shown.append)
        self.addCleanup(self.trace.stop)

    def test_ladder(self) -> None:
        """A request and its answer, each when it is seen; later the same."""
        self.trace()
        self.scripted.send()
        self.assertEqual("\n".join(self.shown), LADDER)
        self.assertEqual(ladder(self.trace.messages), LADDER)
        self.trace.ladder()
        self.assertEqual(self.shown[-1], LADDER)

    def test_conditions(self) -> None:
        """What fits brings in its call, and nothing else."""
        for conditions, fits in (
            ({"caller": "alice"}, True), ({"caller": "alice@example.org"}, True), ({"caller": "sip:alice@example.org"}, True),
            ({"caller": "bob"}, False), ({"callee": "bob"}, True), ({"callee": "bob@127.0.0.1"}, True), ({"callee": "x"}, False),
            ({"call_id": "call1"}, True), ({"call_id": "x"}, False), ({"ip": "192.0.2.1"}, True), ({"ip": "192.0.2.2"}, False),
            ({"method": "options"}, True), ({"method": "INVITE"}, False), ({"caller": "alice", "callee": "x"}, False),
            ({"where": lambda message: message.header("Max-Forwards") == "70"}, True), ({"where": lambda message: 0}, False),
        ):
            given: dict[str, Any] = dict(conditions)
            self.trace(given.pop("where", None), **given)
            self.scripted.send(request(branch=os.urandom(4).hex()))
            self.assertEqual(len(self.trace.messages), 2 * fits, conditions)

    def test_bad_condition(self) -> None:
        """A condition that breaks ends the trace, not the server."""
        self.trace(lambda message: message.nosuch)
        self.scripted.send()
        self.assertIn("AttributeError", self.shown[0])
        self.assertIn("not tracing any more", repr(self.trace))
        self.assertEqual(self.scripted.server.user.rcv_requests.value, 1)
        self.assertEqual(self.scripted.logged(), [])

    def test_nothing_stays(self) -> None:
        """Afterwards the server is as it was, whoever else looked."""
        send, user = WireFlow.send, self.scripted.server.user
        before = user.on_received
        other = Trace(self.tap, self.shown.append)
        self.trace()
        other(caller="nobody")
        self.assertIsNot(WireFlow.send, send)
        self.trace.stop()
        other.stop()
        self.assertIs(WireFlow.send, send)
        self.assertIs(user.on_received, before)
        self.scripted.send()
        self.assertEqual(self.shown, [])

    def test_save(self) -> None:
        """tshark reads the file: SIP in each packet, nothing malformed, checksums right."""
        self.trace()
        self.scripted.send()
        file = Path(self.mktemp()).absolute()
        self.assertEqual(self.trace.save(str(file)), f"2 messages in {file}")
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertEqual(self.shark(file), ["192.0.2.1|127.0.0.1|OPTIONS|", "127.0.0.1|192.0.2.1||200"])

    def test_save_others(self) -> None:
        """IPv6, and a message on a connection that is longer than a packet."""
        data = request().replace(b"Content-Length: 0", b"Content-Length: 61000") + b"x" * 61_000
        file = Path(self.mktemp())
        seen = [
            Seen(1.5, True, "udp", ("2001:db8::1", 5060), ("2001:db8::2", 5070), parse(request()), request()),
            Seen(2.5, True, "tls", ("192.0.2.1", 5061), ("192.0.2.2", 40000), parse(request()), data),
        ]
        file.write_bytes(b"".join(pcap(seen)))
        self.assertEqual(self.shark(file), ["2001:db8::2|2001:db8::1|OPTIONS|", "192.0.2.2|192.0.2.1|OPTIONS|"])

    def shark(self, file: Path) -> list[str]:
        """Source, target, method, status of each message that tshark finds; no packet may be wrong."""
        if shutil.which("tshark") is None:
            raise SkipTest("there is no tshark")
        checks = ["-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
        fields = ["ip.src", "ipv6.src", "ip.dst", "ipv6.dst", "sip.Method", "sip.Status-Code", "_ws.malformed"]
        fields.append("_ws.expert.message")
        options = ["-T", "fields", "-E", "separator=|", *(word for field in fields for word in ("-e", field))]
        command = ["tshark", "-r", str(file), "-d", "tcp.port==5061,sip", *checks, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        found = []
        for line in done.stdout.splitlines():
            a4, a6, b4, b6, method, status, malformed, _expert = line.split("|")
            self.assertEqual(malformed, "", line)
            self.assertNotIn("checksum", line.lower())
            if method or status:
                found.append(f"{a4}{a6}|{b4}{b6}|{method}|{status}")
        self.assertTrue(found, done.stderr)
        return found
