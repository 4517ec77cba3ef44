"""Tests of sipgw.modules.proto_tcp and of the core's functions about connections, by scripts on real sockets."""

from __future__ import annotations

import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.configuration import reading_of
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.core import Core
from sipgw.modules.proto_tcp import ProtoTcp
from sipgw.service import SipServer
from sipgw.testing import finished
from sipgw.transport.stream import StreamSettings
from tests.doubles import run_of
from tests.transport.pump import Listener, Peer, Pump
from tests.transport.rig import answer, request

SCRIPT = """
log_level = 3
socket = udp:127.0.0.1:0
socket = tcp:127.0.0.1:0 tag first
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "signaling.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("usrloc", "working_mode_preset", "single-instance-no-db")
modparam("registrar", "tcp_persistent_flag", "KEEP")
route {
	if ($rm == "REGISTER") {
		if ($hdr(Keep) != null)
			setflag("KEEP");
		save("location");
		exit;
	}
	if ($rm == "OPTIONS") {
		$var(code) = 0;
		if ($hdr(Alias) == "here") {
			force_tcp_alias();
			$var(code) = $rc;
		} else if ($hdr(Alias) == "flag") {
			set_via_handling("force-tcp-alias");
			$var(code) = $rc;
		} else if ($hdr(Alias) != null) {
			force_tcp_alias($(hdr(Alias){s.int}));
			$var(code) = $rc;
		} else if ($hdr(Close) != null) {
			tcp_close_conn($hdr(Close));
			$var(code) = $rc;
		}
		sl_send_reply(200, "$socket_in(proto) $var(code)");
		exit;
	}
	record_route();
	if (!t_relay())
		sl_send_reply(500, "no");
}
"""


class SettingsTests(SynchronousTestCase):
    """What globals and parameters come to."""

    def settings(self, text: str = "") -> StreamSettings:
        """Those of a script."""
        head = 'socket = tcp:127.0.0.1:5070\nloadmodule "proto_tcp.so"\nroute { exit; }\n'
        self.lines: list[tuple[int, str]] = []
        server = SipServer(reading_of(head + text), None, log=lambda level, line: self.lines.append((level, line)))
        server.configure()
        self.server = server
        self.assertEqual([fault.render() for fault in server.configuration.faults], [])
        protocol: Any = server.modules["proto_tcp"]
        made = protocol.stream_settings(server.settings)
        assert isinstance(made, StreamSettings)
        return made

    def test_defaults(self) -> None:
        """Without a word in the script they are OpenSIPS's, and those that sipgw promises."""
        self.assertEqual(self.settings(), StreamSettings(backlog=10))
        self.assertEqual([f"{p.transport}:{p.host}:{p.port}" for p in self.server.configuration.sockets], ["tcp:127.0.0.1:5070"])

    def test_globals(self) -> None:
        """Each global has its effect."""
        made = self.settings(
            "tcp_connect_timeout = 250\ntcp_connection_lifetime = 60\ntcp_max_connections = 9\ntcp_max_msg_time = 7\n"
            "tcp_socket_backlog = 600\ntcp_keepalive = no\ntcp_keepcount = 3\ntcp_keepidle = 30\ntcp_keepinterval = 5\n"
            "tcp_accept_aliases = 1\n"
        )
        wanted = StreamSettings(
            connect_timeout=0.25, lifetime=60, most=9, message_time=7, backlog=600, keepalive=False, keepalive_count=3,
            keepalive_idle=30, keepalive_interval=5, accept_aliases=1,
        )
        self.assertEqual(made, wanted)
        self.assertEqual(self.server.configuration.notes, [])

    def test_parameters(self) -> None:
        """Each parameter has its effect."""
        made = self.settings(
            "".join(
                f'modparam("proto_tcp", "{name}", {value})\n'
                for name, value in (
                    ("tcp_send_timeout", 200), ("tcp_async", 0), ("tcp_crlf_pingpong", 0), ("tcp_crlf_drop", 1),
                    ("tcp_async_max_postponed_chunks", 5), ("tcp_max_connections_per_ip", 7), ("tcp_first_byte_timeout", 3),
                )
            )
        )
        wanted = StreamSettings(
            send_timeout=0.2, pong=False, drop_crlf=True, most_waiting=5, most_of_host=7, first_byte=3, backlog=10
        )
        self.assertEqual(made, wanted)

    def test_quick(self) -> None:
        """A lifetime of nothing is a second."""
        self.assertEqual(self.settings("tcp_connection_lifetime = 0").lifetime, 1.0)

    def test_without_effect(self) -> None:
        """What has no meaning here is accepted and said; so is a backlog that is too short."""
        self.settings(
            'log_level = 3\nmodparam("proto_tcp", "tcp_max_msg_chunks", 8)\n'
            'modparam("proto_tcp", "tcp_async_local_write_timeout", 8)\n'
            'tcp_socket_backlog = 20\ntcp_threshold = 5\n'
        )
        self.assertEqual(sum("has no effect" in line for _, line in self.lines), 2)
        backlog, threshold = self.server.configuration.notes
        self.assertIn("tcp_socket_backlog = 20: 512 is used", backlog)
        self.assertIn("to send never takes time", threshold)

    def test_port(self) -> None:
        """``tcp_port`` is the port of sockets without one."""
        text = 'socket = tcp:127.0.0.1\nloadmodule "proto_tcp.so"\nmodparam("proto_tcp", "tcp_port", 5999)\nroute { exit; }'
        server = SipServer(reading_of(text), None)
        server.configure()
        self.assertEqual([plan.port for plan in server.configuration.sockets], [5999])

    def test_refused(self) -> None:
        """Values that cannot be are refused."""
        for name, value in (
            ("tcp_port", 0), ("tcp_port", 65536), ("tcp_send_timeout", 0), ("tcp_async_max_postponed_chunks", 0),
            ("tcp_max_connections_per_ip", -1), ("tcp_first_byte_timeout", 0),
        ):
            self.assertRaises(ValueError, ProtoTcp().set_parameter, name, value)


class ServedTestCase(SynchronousTestCase):
    """A server that runs a script on real sockets."""

    def setUp(self) -> None:
        """Start it."""
        self.pump = Pump()
        self.addCleanup(self.pump.close)
        self.lines: list[str] = []
        self.server = SipServer(
            reading_of(SCRIPT), self.pump, log=lambda level, text: self.lines.append(text), wall_clock=lambda: 1_700_000_000.0
        )
        self.server.configure()
        self.assertEqual([fault.render() for fault in self.server.configuration.faults], [])
        self.server.bind()
        finished(self.server.start())
        self.addCleanup(self.stop)
        self.udp, self.tcp = self.server.sockets

    def stop(self) -> None:
        """Close what it has open."""
        for each in self.server.sockets:
            each.stop()

    def peer(self) -> Any:
        """A client."""
        made = Peer(self.pump, self.tcp.port)
        self.addCleanup(made.close)
        return made

    def ask(self, peer: Any, extra: str = "", branch: str = "a") -> str:
        """One request with its answer: the reason phrase."""
        peer.send(request(extra=extra, branch=branch, via="h:7000"))
        phrase: str = peer.receive()[0].split("\r\n")[0]
        return phrase

    def call(self, method: str, *params: Any) -> Any:
        """Run a management command."""
        return finished(self.server.commands.call(method, list(params)))


class ScriptTests(ServedTestCase):
    """What a script sees and does."""

    def test_variables(self) -> None:
        """The script sees the transport."""
        self.assertEqual(self.ask(self.peer())[:16], "SIP/2.0 200 tcp ")

    def test_alias(self) -> None:
        """``force_tcp_alias`` takes the port of the Via or a given one; ``set_via_handling`` has a flag for it."""
        for header, port in (("here", 7000), ("7001", 7001), ("flag", 7000)):
            peer = self.peer()
            self.assertEqual(self.ask(peer, f"Alias: {header}\r\n"), "SIP/2.0 200 tcp 1", header)
            connection = self.server.user.connections.at(self.tcp, "127.0.0.1", port)
            self.assertEqual((connection.port, connection.aliases), (peer.port, (port,)))
            connection.close()
        first, second = self.peer(), self.peer()
        self.assertEqual(self.ask(first, "Alias: here\r\n"), "SIP/2.0 200 tcp 1")
        self.assertEqual(self.ask(second, "Alias: here\r\n"), "SIP/2.0 200 tcp -1")
        self.assertEqual(self.ask(second, "Alias: flag\r\n", "b"), "SIP/2.0 200 tcp -1")

    def test_persistent(self) -> None:
        """With ``tcp_persistent_flag`` a connection stays as long as the contacts that were registered on it."""
        kept, other = self.peer(), self.peer()
        for branch, peer, header in (("k", kept, "Keep: yes\r\n"), ("o", other, "")):
            contact = f"Contact: <sip:b@127.0.0.1:{peer.port};transport=tcp>;expires=600\r\n"
            peer.send(request("REGISTER", extra=contact + header, branch=branch))
            self.assertEqual(peer.statuses(), ["200"])
        for _ in range(9):
            self.pump.advance(60)
        self.assertEqual(other.end(), "FIN")
        kept.look()
        self.assertEqual(kept.ended, "")
        for _ in range(3):
            self.pump.advance(60)
        self.assertEqual(kept.end(), "FIN")

    def test_close(self) -> None:
        """``tcp_close_conn`` closes a connection by its peer; it is false where there is none or the text makes no sense."""
        peer, other = self.peer(), self.peer()
        self.assertEqual(self.ask(other, "Close: 192.0.2.1:5060\r\n"), "SIP/2.0 200 tcp -1")
        self.assertEqual(self.ask(other, "Close: nonsense\r\n", "b"), "SIP/2.0 200 tcp -1")
        self.assertTrue(any("tcp_close_conn: 'nonsense' is neither" in line for line in self.lines))
        self.assertEqual(self.ask(other, f"Close: tcp:127.0.0.1:{peer.port}\r\n", "c"), "SIP/2.0 200 tcp 1")
        self.assertEqual(peer.end(), "FIN")

    def test_without_connections(self) -> None:
        """Over UDP there is no connection to be about."""
        run, core = run_of(request()), Core()
        run.user.connections = None
        self.assertTrue(core.force_tcp_alias(run))
        self.assertFalse(core.tcp_close_conn(run, "127.0.0.1:5060"))

    def test_record_route(self) -> None:
        """A call is record-routed with its transport, and twice where that changes on the way (RFC 5658)."""
        listener, phone = Listener(self.pump), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for each in (listener, phone):
            self.addCleanup(each.close)
        phone.bind(("127.0.0.1", 0))
        phone.settimeout(5)
        self.peer().send(request("INVITE", f"sip:x@127.0.0.1:{listener.port};transport=tcp", branch="r"))
        far = listener.accept()
        [text] = far.receive()
        self.assertIn(f"\r\nRecord-Route: <sip:127.0.0.1:{self.tcp.port};transport=tcp;lr", text)
        self.assertEqual(text.count("Record-Route"), 1)
        peer = self.peer()
        peer.send(request("INVITE", f"sip:x@127.0.0.1:{phone.getsockname()[1]}", branch="s"))
        self.pump.settle()
        text = phone.recv(65536).decode()
        upper, lower = (line for line in text.split("\r\n") if line.startswith("Record-Route"))
        self.assertIn(f"<sip:127.0.0.1:{self.udp.port};r2=on;lr", upper)
        self.assertIn(f"<sip:127.0.0.1:{self.tcp.port};transport=tcp;r2=on;lr", lower)
        phone.sendto(answer(text), ("127.0.0.1", self.udp.port))
        self.assertEqual(peer.statuses(2), ["100", "200"])


class CommandTests(ServedTestCase):
    """``tcp:list`` and ``tcp:close``."""

    def test_list(self) -> None:
        """Connections are listed as OpenSIPS lists them, of one protocol or all; those not yet made are not."""
        peer = self.peer()
        self.ask(peer, "Alias: 7001\r\n")
        listener = Listener(self.pump)
        self.addCleanup(listener.close)
        self.tcp.send(b"x", "127.0.0.1", listener.port)
        far = listener.accept()
        self.assertEqual([each["State"] for each in self.call("tcp:list")["Connections"]], [0, 3])
        self.pump.until(lambda: [each["State"] for each in self.call("tcp:list")["Connections"]] == [0, 0])
        self.tcp.flow("127.0.0.1", 9)
        for params in ((), ("tcp",), ("TCP",)):
            found = list(self.call("tcp:list", *params)["Connections"])
            for each in found:
                self.assertIsInstance(each.pop("ID"), int)
                self.assertRegex(each.pop("Lifetime"), r"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d$")
            theirs = {
                "Type": "tcp", "State": 0, "Remote": f"127.0.0.1:{peer.port}", "Local": f"127.0.0.1:{self.tcp.port}",
                "Alias port": peer.port, "Aliases": [7001],
            }
            ours = {
                "Type": "tcp", "State": 0, "Remote": f"127.0.0.1:{listener.port}", "Local": f"127.0.0.1:{far.port}",
                "Alias port": listener.port,
            }
            self.assertEqual(found, [theirs, ours])
        self.assertEqual(list(self.call("list_tcp_conns", "udp")["Connections"]), [])
        error = self.failureResultOf(self.server.commands.call("tcp:list", ["nosuch"]), MIError)
        self.assertEqual(error.value.code, 400)

    def test_close(self) -> None:
        """A connection is closed by its number or its peer."""
        first, second = self.peer(), self.peer()
        self.ask(first)
        self.ask(second)
        number = next(iter(self.call("tcp:list")["Connections"]))["ID"]
        self.assertEqual(self.call("tcp:close", str(number)), "OK")
        self.assertEqual(first.end(), "FIN")
        self.assertEqual(self.call("tcp:close", f"127.0.0.1:{second.port}"), "OK")
        self.assertEqual(second.end(), "FIN")
        for text, code in (("192.0.2.1:5060", 404), ("1", 404), ("nonsense", 400), ("udp:127.0.0.1:5060", 400)):
            error = self.failureResultOf(self.server.commands.call("tcp:close", [text]), MIError)
            self.assertEqual(error.value.code, code, text)

    def test_without_sockets(self) -> None:
        """Where there is no socket for connections there are none to list or close."""
        self.server.user.connections = None
        self.assertEqual(list(self.call("tcp:list")["Connections"]), [])
        self.assertRaises(MIError, self.call, "tcp:close", "127.0.0.1:5060")
