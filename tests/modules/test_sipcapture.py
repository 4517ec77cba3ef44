"""Tests of sipgw.modules.sipcapture: what becomes of frames, what scripts do with them, and what is written."""

from __future__ import annotations

import json
import struct
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.mi.jsonrpc import MIError
from sipgw.modules import _capture_writer as writer
from sipgw.modules.proto_hep import ProtoHep
from sipgw.modules.sipcapture import HEP, Context, Sipcapture
from sipgw.testing import EPOCH, FakeServer, Wire, WiredServer, finished, pass_time
from sipgw.transport import hep
from sipgw.transport.hep_received import read
from sipgw.transport.hep_receiver import Way
from sipgw.transport.packets import Datagram
from tests.db.memory import MemoryDatabases
from tests.doubles import Reactor
from tests.modules.capture import Capture
from tests.modules.scripted import request
from tests.modules.tables import TableCases, engines

RICH = (
    b"INVITE sip:bob@192.0.2.2:5062 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1, SIP/2.0/UDP 192.0.2.7\r\n"
    b"From: \"A\" <sip:alice@a.example;user=phone>;tag=a1\r\nTo: <sip:bob@b.example>\r\nCall-ID: c1\r\nCSeq: 7 INVITE\r\n"
    b"Contact: <sip:al@192.0.2.1:5070>\r\nP-Asserted-Identity: \"Al\" <sip:+4930@a.example>\r\nUser-Agent: phone\r\n"
    b"Proxy-Authorization: Digest username=\"al@x\", realm=\"r\", nonce=\"n\", uri=\"sip:b\", response=\"secret\"\r\n"
    b"X-CID: leg1\r\nX-OIP: 192.0.2.5:5099\r\nX-RTP-Stat: PS=1\r\nReason: SIP;cause=200\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 3\r\n\r\nhi\0"
)
REPLY = (
    b"SIP/2.0 486 Busy Here\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:alice@a.example>;tag=a1\r\n"
    b"To: <sip:bob@b.example>;tag=b1\r\nCall-ID: c1\r\nCSeq: 7 INVITE\r\nContent-Length: 0\r\n\r\n"
)
HERE = ("198.51.100.7", 40_000)


def framed(
    payload: bytes = RICH, version: int = 3, *, kind: int = hep.SIP, ends: Any = None, correlation: str = "corr", **style: Any
) -> bytes:
    """A frame of somebody's."""
    source, target = ends or (("192.0.2.1", 5060), ("192.0.2.2", 5062))
    parts = {"payload": payload.decode("utf-8", "surrogateescape")}
    made = hep.Frame(kind, 17, source, target, 1_600_000_000.25, parts, correlation, {"sip": correlation} if style else {})
    return hep.encode(made, version, hep.Style(agent=9, **style))


class CaptureCase(SynchronousTestCase):
    """A capture server with a database in memory."""

    def begin(self, script: str = "", *, route: str = "none", capture: int = 1, more: str = "", frames: int = 1) -> None:
        """Start it."""
        databases: Any = MemoryDatabases()

        def before(server: Any) -> None:
            server.databases = databases

        self.wired = WiredServer(
            f"""
            socket = udp:127.0.0.1:5060
            socket = hep_udp:127.0.0.1:9060
            socket = hep_tcp:127.0.0.1:9060
            log_level = 1
            db_default_url = "memory:"
            loadmodule "proto_udp.so"
            loadmodule "sl.so"
            loadmodule "tm.so"
            loadmodule "proto_hep.so"
            loadmodule "sipcapture.so"
            modparam("sipcapture", "hep_capture_on", {frames})
            modparam("sipcapture", "capture_on", {capture})
            modparam("sipcapture", "hep_route", "{route}")
            {more}
            {script or "route { exit; }"}""",
            wire=Wire(Reactor()), before=before,
        )
        self.addCleanup(lambda: finished(self.wired.server.modules["proto_hep"].stop()))
        fatal = [text for level, text in self.wired.lines if level <= -3]
        if fatal:
            raise AssertionError(fatal[0])
        self.db = finished(databases.open("memory:"))
        self.db.longest = 100_000

    def come(self, data: bytes, source: tuple[str, int] = HERE) -> None:
        """Let a datagram come."""
        hep_module: Any = self.wired.server.modules["proto_hep"]
        hep_module._receivers[0].datagramReceived(data, source)

    def rows(self, table: str = "sip_capture") -> list[dict[str, Any]]:
        """What has been written."""
        found: list[dict[str, Any]] = self.db.tables.get(table, [])
        return found

    def logged(self) -> list[str]:
        """The lines of the log since the last time."""
        found = [text for level, text in self.wired.lines if level <= 1]
        self.wired.lines.clear()
        return found

    def statistic(self, name: str) -> int:
        """One of the module's."""
        found = finished(self.wired.server.commands.call("statistics:get", [["sipcapture:"]]))
        value: int = found[f"sipcapture:{name}"]
        return value


class RowTests(CaptureCase):
    """What is written of a message."""

    def test_request(self) -> None:
        """Everything that a request says, where the frame says that it went, and when."""
        self.begin()
        self.come(framed())
        (row,) = self.rows()
        self.assertEqual(row.pop("date").timestamp(), 1_600_000_000)
        self.assertEqual(row.pop("msg"), RICH.decode().replace("\0", "\ufffd"))
        self.assertEqual(row, {
            "method": "INVITE", "reply_reason": "", "ruri": "sip:bob@192.0.2.2:5062", "ruri_user": "bob",
            "ruri_domain": "192.0.2.2", "from_user": "alice", "from_domain": "a.example", "from_tag": "a1", "to_user": "bob",
            "to_domain": "b.example", "to_tag": "", "pid_user": "+4930", "contact_user": "al", "contact_ip": "192.0.2.1",
            "contact_port": 5070, "originator_ip": "192.0.2.5", "originator_port": 5099, "auth": "", "auth_user": "al",
            "callid": "c1", "callid_aleg": "leg1", "via_1": "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1, SIP/2.0/UDP 192.0.2.7",
            "via_1_branch": "z9hG4bK1", "cseq": "7 INVITE", "reason": "SIP;cause=200", "content_type": "text/plain",
            "user_agent": "phone", "rtp_stat": "PS=1", "type": 1, "micro_ts": 1_600_000_000_250_000, "node": "homer01:9",
            "correlation_id": "corr", "proto": 17, "family": 2, "source_ip": "192.0.2.1", "source_port": 5060,
            "destination_ip": "192.0.2.2", "destination_port": 5062, "custom_field1": "", "custom_field2": "",
            "custom_field3": "",
        })
        self.assertEqual((self.statistic("captured_requests"), self.statistic("captured_replies")), (1, 0))

    def test_versions(self) -> None:
        """A response; versions 1 and 2, of which 1 has no time; IPv6; Homer 6, which names the call elsewhere."""
        self.begin(more='modparam("sipcapture", "capture_node", "n")')
        six = ("2001:db8::1", 5060), ("2001:db8::2", 5061)
        for version, ends in ((1, None), (2, None), (2, six), (3, six)):
            self.come(framed(REPLY, version, ends=ends))
        found = [(row["method"], row["type"], row["node"], row["family"], row["source_ip"], row["proto"]) for row in self.rows()]
        self.assertEqual(found, [
            ("486", 2, "n", 2, "192.0.2.1", 17), ("486", 2, "n:9", 2, "192.0.2.1", 17),
            ("486", 2, "n:9", 10, "2001:db8::1", 17), ("486", 2, "n:9", 10, "2001:db8::1", 17),
        ])
        self.assertEqual([row["micro_ts"] for row in self.rows()], [int(EPOCH * 1e6)] + [1_600_000_000_250_000] * 3)
        self.assertEqual([row["reply_reason"] for row in self.rows()], ["Busy Here"] * 4)
        self.assertEqual([row["correlation_id"] for row in self.rows()], ["", "", "", "corr"])
        self.assertEqual(self.statistic("captured_replies"), 4)

    def test_homer6(self) -> None:
        """A message that is in JSON for Homer 6 is taken out of it; its correlation is what the frame carries beside."""
        self.begin(more='modparam("proto_hep", "homer5_on", 0)')
        self.come(framed(homer5=False))
        (row,) = self.rows()
        self.assertEqual((row["correlation_id"], row["callid"], row["msg"][:6]), ('{"sip": "corr"}', "c1", "INVITE"))
        for payload in (b'{"payload": 1}', b'{"x": "y"}', b'{"payload": "no"}', b"{" * 20_000, b'{"payload": "\\ud800"}'):
            self.come(framed(payload))
        self.assertEqual(len(self.rows()), 1)

    def test_bad_messages(self) -> None:
        """Headers that cannot be read leave their columns empty; what is no SIP at all is not written."""
        self.begin()
        bad = b"INVITE nothing SIP/2.0\r\nVia: ?\r\nFrom: <<\r\nTo: \xff\r\nContact: ,,<\r\nX-OIP: :x\r\nCSeq: q\r\n\r\n"
        self.come(framed(bad))
        self.come(framed(b"\x80\x02RTP and so on, long enough"))
        (row,) = self.rows()
        self.assertEqual((row["method"], row["from_user"], row["to_user"], row["contact_ip"]), ("INVITE", "", "", ""))
        self.assertEqual((row["via_1"], row["cseq"], row["callid"], row["originator_port"]), ("?", "q", "", 0))

    def test_long(self) -> None:
        """Values are cut to their columns."""
        self.begin()
        self.come(framed(RICH.replace(b"User-Agent: phone", b"User-Agent: " + b"x" * 5000)))
        self.assertEqual((len(self.rows()[0]["user_agent"]), len(self.rows()[0]["msg"])), (255, len(RICH) + 4995))

    def test_names(self) -> None:
        """Tables by the day, columns by parameter; a table that can never be is refused."""
        given = ("table_name", "homer_%Y_%m_%d"), ("authorization_column", "credentials"), ("msg_column", "m")
        self.begin(more="\n".join(f'modparam("sipcapture", "{name}", "{value}")' for name, value in given))
        self.come(framed())
        (row,) = self.rows("homer_2023_11_14")
        self.assertTrue({"credentials", "m"} <= set(row) and not {"auth", "msg"} & set(row))
        for name in ("", "x-%d", "a b", "1x"):
            self.assertRaises(ValueError, Sipcapture(FakeServer()).set_parameter, "table_name", name)

    def test_bytes_that_are_none(self) -> None:
        """Frames that cannot be read are dropped, with one line a second."""
        self.begin()
        for data in (b"x" * 30, framed()[:-1], b"HEP3" + bytes(40), b"short"):
            self.come(data)
        self.assertEqual((self.rows(), len(self.logged())), ([], 1))

    def test_compressed(self) -> None:
        """A payload that comes compressed is unpacked where compressed_payload says so."""
        self.begin(more='modparam("proto_hep", "compressed_payload", 1)')
        self.come(framed(compress=True))
        self.assertEqual(self.rows()[0]["callid"], "c1")


class RouteTests(CaptureCase):
    """Frames in the script."""

    ROUTES = """
        route { xlog("L_ERR", "$rm $si:$sp $socket_in(ip):$socket_in(port) $HEPVERSION $hep_net(src_ip) $hep_net(proto_id)\\n");
                sip_capture("other", "a", , "c"); sl_send_reply(200, "OK"); t_relay(); }
        onreply_route { xlog("L_ERR", "$rs $si\\n"); async(sip_capture(), after); }
        route[after] { xlog("L_ERR", "after $rs\\n"); }"""

    def test_sip(self) -> None:
        """The message inside runs the request or reply route as if it had come from where the frame says; nothing is sent."""
        self.begin(self.ROUTES, route="sip")
        sent = self.wired.wire.lost
        self.come(framed())
        self.come(framed(REPLY, 2))
        lines = self.logged()
        self.assertEqual(lines[0], "INVITE 192.0.2.1:5060 127.0.0.1:9060 3 198.51.100.7 hep_udp\n")
        self.assertEqual([line for line in lines if line.startswith(("486", "after"))], ["486 192.0.2.1\n", "after 486\n"])
        self.assertTrue(any("nothing is sent" in line for line in lines), lines)
        pass_time(self.wired.clock, 40)
        self.assertEqual((self.wired.wire.lost, self.wired.left()), (sent, []))
        (row,) = self.rows("other")
        self.assertEqual((row["custom_field1"], row["custom_field2"], row["custom_field3"]), ("a", "", "c"))
        self.assertEqual(len(self.rows()), 1)

    def test_not_in_a_frame(self) -> None:
        """With frames, SIP that comes to us as SIP is not captured; without, it is, and only if capturing is on."""
        self.begin('route { if (sip_capture()) xlog("L_ERR", "yes\\n"); else xlog("L_ERR", "no $HEPVERSION\\n"); }', route="sip")
        flow = self.wired.user.sockets[0].flow("192.0.2.1", 5060)
        self.wired.user.receive(request(), flow)
        self.assertEqual([line for line in self.logged() if "hep" not in line.lower()], ["no <null>\n"])
        self.begin('route { if (sip_capture()) xlog("L_ERR", "yes\\n"); }', frames=0, route="")
        self.wired.user.receive(request(), flow)
        (row,) = self.rows()
        self.assertEqual((row["method"], row["source_ip"], row["destination_port"]), ("OPTIONS", "192.0.2.1", 5060))
        self.assertEqual((row["proto"], row["node"], row["msg"]), (17, "homer01", request().decode()))
        self.assertEqual(finished(self.wired.server.commands.call("sip_capture", [])), {"SIP capturing": "on"})
        finished(self.wired.server.commands.call("sipcapture:capture", ["off"]))
        self.wired.user.receive(request(branch="two"), flow)
        self.assertEqual((len(self.rows()), self.logged()), (1, ["yes\n"]))
        call = self.wired.server.commands.call("sipcapture:capture", {"capture_mode": "maybe"})
        self.assertRaises(MIError, finished, call)

    def chunks(self, script: str, data: bytes | None = None) -> list[str]:
        """What a route for frames logs."""
        self.begin("route { exit; }\nroute[hep] { " + script + " }", route="hep")
        self.come(data or framed())
        return [line.rstrip("\n") for line in self.logged()]

    def test_get(self) -> None:
        """Chunks by name, by number, by type; what is not there is null."""
        said = self.chunks("""
            hep_get("proto_family", , $var(a), $var(v)); hep_get("proto_id", , $var(b)); hep_get("0x0003", , $var(c));
            hep_get("dst_ip", , $var(d)); hep_get("src_port", , $var(e)); hep_get("timestamp", , $var(f));
            xlog("L_ERR", "$var(a) $var(v) $var(b) $var(c) $var(d) $var(e) $var(f)\\n");
            hep_get("timestamp_us", , $var(a)); hep_get("proto_type", , $var(b)); hep_get("captagent_id", , $var(c));
            hep_get("0x11", "utf8-string", $var(d), $var(e)); hep_get("payload", , $var(f));
            xlog("L_ERR", "$var(a) $var(b) $var(c) $var(d) $var(e) $(var(f){s.substr,0,6})\\n");
            if (!hep_get("99", "uint8", $var(a), $var(v))) xlog("L_ERR", "none $var(a) $var(v)\\n");
            if (!hep_get("17", "uint32", $var(a))) xlog("L_ERR", "not $var(a)\\n"); else xlog("L_ERR", "$var(a)\\n");
            if (!hep_get("17", "inet6-addr", $var(a))) xlog("L_ERR", "not $var(a)\\n");
        """)
        self.assertEqual(said, [
            "AF_INET 0 udp 192.0.2.1 192.0.2.2 5060 1600000000", "250000 SIP 9 corr 0 INVITE", "none <null> <null>",
            str(int.from_bytes(b"corr", "big")), "not <null>",
        ])

    def test_set(self) -> None:
        """Chunks are set and taken out, and what goes on is the frame as it then is."""
        capture = Capture()
        self.addCleanup(capture.close)
        self.chunks(f"""
            hep_set("31", "132", "uint32", "3"); hep_set("32", "192.168.5.14", "inet4-addr", "0x5"); hep_set("33", "text");
            hep_set("src_ip", "2001:db8::7"); hep_set("dst_ip", "2001:db8::8"); hep_set("dst_port", "77");
            hep_set("proto_type", "H321"); hep_set("proto_id", "TLS"); hep_set("captagent_id", "4000000000");
            hep_set("payload", "hello"); hep_del("17"); hep_del("timestamp_us");
            $du = "sip:127.0.0.1:{capture.port}"; hep_relay();""")
        frame = read(capture.socket.recv(65_535))
        self.assertEqual([(each.vendor, each.number, each.data) for each in frame.others], [
            (3, 31, struct.pack("!I", 132)), (5, 32, bytes([192, 168, 5, 14])), (3, 33, b"text"),
        ])
        self.assertEqual((frame.source, frame.target), (("2001:db8::7", 5060), ("2001:db8::8", 77)))
        self.assertEqual([frame.known.get(number) for number in (11, 2, 12, 15, 10)], [
            b"\x0c", b"\x16", struct.pack("!I", 4_000_000_000), b"hello", None,
        ])

    def test_refused(self) -> None:
        """What cannot be set is not, and says so; versions 1 and 2 have no chunks; nor have messages that are none."""
        for words in (
            '"timestamp", "1"', '"proto_family", "2"', '"src_port", "65536"', '"src_ip", "nowhere"', '"proto_type", "x"',
            '"proto_id", "bin"', '"40", "256", "uint8"', '"40", "::1", "inet4-addr"',
        ):
            said = self.chunks(f'if (hep_set({words})) xlog("L_ERR", "set\\n"); else xlog("L_ERR", "not\\n");')
            self.assertEqual((said[-1], len(said)), ("not", 2), words)
        for words in ('hep_set("src_port", "1")', 'hep_get("src_port", , $var(x))', 'hep_del("17")'):
            said = self.chunks(f'if ({words}) xlog("L_ERR", "yes\\n"); else xlog("L_ERR", "no\\n");', framed(version=2))
            self.assertEqual(said[-1], "no")
        for words in ('hep_set("nosuch", "1")', 'hep_get("17", "float", $var(x))', 'xlog("$hep_net(payload)")'):
            self.assertRaises(AssertionError, self.chunks, words + ";")
        self.assertEqual(self.chunks('if (!hep_del("99")) xlog("L_ERR", "no\\n");'), ["no"])

    def test_relay(self) -> None:
        """A frame of an old version goes on as it came; over TCP it does not."""
        capture = Capture()
        self.addCleanup(capture.close)
        for version in (1, 2, 3):
            self.chunks(f'$ru = "sip:127.0.0.1:{capture.port}"; hep_relay();', framed(version=version))
            self.assertEqual(read(capture.socket.recv(65_535)), read(framed(version=version)))
        for du, version in (("sip:127.0.0.1;transport=tcp", 2), ("sip:127.0.0.1;transport=tls", 3), ("x", 3)):
            data = framed(version=version)
            self.assertIn("not", self.chunks(f'$du = "{du}"; if (!hep_relay()) xlog("L_ERR", "not\\n");', data))

    def test_resume(self) -> None:
        """From the route of frames into the request route, with the payload that was set; nothing behind it is run."""
        self.begin("""
            route { xlog("L_ERR", "sip $rm $si\\n"); if (!hep_resume_sip()) xlog("L_ERR", "not here\\n"); sip_capture(); }
            route[hep] { hep_set("src_ip", "192.0.2.77"); hep_resume_sip(); xlog("L_ERR", "behind\\n"); }""", route="hep")
        self.come(framed())
        self.assertEqual(self.logged(), ["sip INVITE 192.0.2.77\n", "not here\n"])
        self.assertEqual(self.rows()[0]["source_ip"], "192.0.2.77")

    def test_report(self) -> None:
        """Any payload is written for a correlation: columns of Homer 5, or of Homer 6 with what its JSON names."""
        report = framed(b'{"Event": "RTCP", "x": 1}', kind=5)
        script = 'report_capture("call7"); report_capture("call8", "rtcp_%d", 3); report_capture("");'
        self.chunks(script, report)
        (row,), (other,) = self.rows("rtcp_capture"), self.rows("rtcp_14")
        self.assertEqual((row["correlation_id"], row["type"], other["correlation_id"], other["type"]), ("call7", 5, "call8", 3))
        columns = "correlation_id date destination_ip destination_port family micro_ts msg node proto source_ip source_port type"
        self.assertEqual(sorted(row), columns.split())
        self.begin("route { exit; }\nroute[hep] { " + script + " }", route="hep", more='modparam("proto_hep", "homer5_on", 0)')
        self.come(report)
        (row,) = self.rows("rtcp_capture")
        self.assertEqual((row["transaction_id"], row["event"], row["payload_len"], row["capt_id"]), ("call7", "RTCP", 25, 9))
        self.assertEqual((row["tsu"], row["capture_ip"], json.loads(row["data"])["x"]), (250_000, "127.0.0.1", 1))


class HeardTests(CaptureCase):
    """Messages that were heard on their way from one to another."""

    def test_heard(self) -> None:
        """They run the routes as if they had come from their sender, and are rows; nothing is sent."""
        said = 'xlog("L_ERR", "$si:$sp $socket_in(port)\\n");'
        self.begin(f'route {{ {said} sip_capture(); sl_send_reply(200, "OK"); }}', route="sip")
        module: Any = self.wired.server.modules["sipcapture"]
        module._heard(Datagram(("192.0.2.1", 5060), ("192.0.2.2", 5062), RICH))
        module._heard(Datagram(("192.0.2.1", 5060), ("192.0.2.2", 5062), b"\x80 no SIP at all, but long"))
        (row,) = self.rows()
        self.assertEqual((row["source_ip"], row["source_port"], row["destination_ip"]), ("192.0.2.1", 5060, "192.0.2.2"))
        self.assertEqual((row["destination_port"], row["proto"], row["node"], row["callid"]), (5062, 17, "homer01", "c1"))
        self.assertEqual(self.logged()[0], "192.0.2.1:5060 5062\n")
        self.assertEqual(self.wired.wire.lost, 0)

    def test_starts(self) -> None:
        """What cannot be heard is said at the start."""
        for more, why in (
            ({}, "needs ports"), ({"raw_ipip_capture_on": 1}, "one of them"),
            ({"raw_socket_listen": ":5060", "raw_interface": "no-such-if0"}, "raw sockets need|can be heard"),
        ):
            given: dict[str, Any] = {"raw_moni_capture_on": 1, **more}
            module = Sipcapture(FakeServer(), **given)
            self.assertRegex(str(self.assertRaises(ValueError, finished, module.start())), why)


class WriterTests(CaptureCase):
    """A database that is away."""

    def test_bounds(self) -> None:
        """What waits is bounded in number and octets; what is more is lost and counted, and afterwards all goes on."""
        self.begin('route { if (!sip_capture()) xlog("L_ERR", "full\\n"); }', route="sip")
        self.patch(writer, "MOST_ROWS", 20)
        self.db.down = True
        for _ in range(30):
            self.come(framed())
        self.assertEqual(self.logged().count("full\n"), 10)
        self.assertEqual((self.statistic("capture_waiting"), self.statistic("capture_lost")), (20, 10))
        self.db.down = False
        self.wired.clock.advance(10)
        self.assertEqual((len(self.rows()), self.statistic("capture_waiting")), (20, 0))
        self.assertLessEqual(max(self.db.batches), 5)
        self.patch(writer, "MOST_OCTETS", 25_000)
        self.db.down = True
        for _ in range(30):
            self.come(framed())
        self.assertLess(self.statistic("capture_waiting"), 5)

    def test_refused(self) -> None:
        """A row that the database refuses is lost alone."""
        self.begin()
        self.db.slow = True
        self.db.longest = len(RICH) + 10
        for text in (b"phone", b"x" * 200, b"phone"):
            self.come(framed(RICH.replace(b"phone", text)))
        for _ in range(10):
            self.db.answer()
        self.assertEqual((len(self.rows()), self.statistic("capture_lost")), (2, 1))

    def test_starts(self) -> None:
        """What is missing is said at the start."""
        for parameters in ({"hep_capture_on": 1},):
            module = Sipcapture(FakeServer(), **parameters)
            self.assertRaises(ValueError, finished, module.start())
        self.assertRaises(AssertionError, self.begin, route="nosuch")
        module = Sipcapture(FakeServer(), proto_hep=ProtoHep(FakeServer()), hep_capture_on=1)
        finished(module.start())
        server: Any = module.server
        self.assertIn("no socket", server.lines[-1][1])


class TableTestsCases(TableCases):
    """The tables that we make take what we write"""

    tables = ("sip_capture", "rtcp_capture", "ops_report_capture")

    async def test_rows(self) -> None:
        """A message with characters of all kinds, and reports of both Homers."""
        self.server.user.globals["db_default_url"] = self.url
        module = Sipcapture(self.server, db_url=self.url, capture_on=1)
        await module.start()
        strange = RICH.replace(b"phone", "\u20ac \U0001f600 \udcff".encode("utf-8", "surrogateescape"))
        run = self.run_()
        for homer5, table in ((1, "rtcp_capture"), (0, "ops_report_capture")):
            module.proto_hep = ProtoHep(self.server, homer5_on=homer5)
            run.keep()[HEP] = Context(read(framed(strange)), Way("hep_udp", HERE, ("192.0.2.9", 9060)))
            self.assertTrue(await module.report_capture(run, "c", table))
        module._write_frame(run.keep()[HEP])
        await module.stop()
        self.assertEqual((self.logged(), module._lost()), ([], 0))
        (row,) = await self.db.select("sip_capture", ["user_agent", "micro_ts", "callid"])
        self.assertEqual(tuple(row), ("\u20ac \U0001f600 \ufffd", 1_600_000_000_250_000, "c1"))
        (row,) = await self.db.select("ops_report_capture", ["transaction_id", "capture_ip", "payload_len"])
        self.assertEqual(tuple(row), ("c", "192.0.2.9", len(strange)))
        self.assertEqual(len(await self.db.select("rtcp_capture", ["msg"])), 1)


globals().update(engines(TableTestsCases))
del TableTestsCases
