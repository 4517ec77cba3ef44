"""Tests of what the modules ``mi_*`` and proto_tcp show to a capture server."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.events import run_alone
from sipgw.mi.jsonrpc import MIError
from sipgw.modules._mi_trace import MiTrace
from sipgw.modules.core_mi import CoreCommands
from sipgw.modules.mi_datagram import MiDatagram
from sipgw.modules.mi_fifo import MiFifo
from sipgw.modules.mi_script import MiScript
from sipgw.modules.proto_hep import ProtoHep
from sipgw.modules.proto_tcp import ProtoTcp
from sipgw.script.routes import Route
from sipgw.script.symbols import RouteKind
from sipgw.script.values import DROP
from sipgw.testing import FakeServer, finished
from sipgw.transport.connections import ConnectionTable
from tests.modules.capture import Capture


class Shown(SynchronousTestCase):
    """A server double and a capture server with the hep_id h."""

    def setUp(self) -> None:
        self.capture = Capture()
        self.addCleanup(self.capture.close)
        self.server = FakeServer()
        self.hep = ProtoHep(self.server, hep_id=f"[h] 127.0.0.1:{self.capture.port}; transport=udp")
        finished(self.hep.start())
        self.addCleanup(lambda: finished(self.hep.stop()))
        self.server.commands.add(CoreCommands(self.server))

    def payloads(self) -> list[str]:
        """What the capture server got."""
        return [(frame.payload or b"").decode() for frame in self.capture.frames()]


class CommandTests(Shown):
    """Commands and answers."""

    def door(self, kind: type = MiFifo, **parameters: Any) -> Any:
        """A module that takes commands, as far as it shows them."""
        made = kind(self.server, proto_hep=self.hep, trace_destination="h", **parameters)
        finished(MiTrace.start(made))
        return made

    def ask(self, door: Any, text: bytes) -> None:
        """Give it a request."""
        pieces = finished(door.answer_shown(text, False))
        assert pieces is not None
        self.answer = b"".join(pieces).decode()

    def test_both(self) -> None:
        """A command is shown with its door and parameters, its answer with the same correlation."""
        for kind, name in ((MiFifo, "fifo"), (MiDatagram, "datagram")):
            self.ask(self.door(kind), b'{"jsonrpc":"2.0","id":1,"method":"log_level","params":[3]}')
            asked, told = self.capture.frames()
            self.assertEqual((asked.kind, asked.protocol, asked.payload), (0x57, 6, f"log_level:{name}:3".encode()))
            self.assertEqual((told.payload or b"").decode(), self.answer[:128])
            self.assertEqual(asked.correlation, told.correlation)
            self.assertRegex((asked.correlation or b"").decode(), "^MICORR[0-9a-f]{16}$")
        self.assertEqual((asked.source, asked.target), (told.target, told.source))

    def test_lists(self) -> None:
        """A list names those that are not shown, or those that alone are, by any of their names."""
        ask = b'{"jsonrpc":"2.0","id":1,"method":"%s"}'
        for listed, shown in (("b:pwd , which", ["uptime"]), ("w: core:pwd", ["pwd"]), ("B:uptime", ["pwd"])):
            door = self.door(trace_bwlist=listed)
            for name in (b"pwd", b"uptime"):
                self.ask(door, ask % name)
            self.assertEqual([text.split(":")[0] for text in self.payloads()[::2]], shown, listed)
        for listed in ("pwd", "x:pwd", "w:"):
            self.assertRaises(ValueError, self.door, trace_bwlist=listed)
        self.assertRaises(ValueError, self.door, trace_bwlist="w:nothing")

    def test_script(self) -> None:
        """Commands of the script are shown too, and what is no command."""
        door = self.door(MiScript)
        run = run_alone(Route("r", RouteKind.TIMER, print, False, "x", 1), self.server.user)
        self.assertEqual(finished(door.mi(run, "log_level 2")), 1)
        self.assertEqual(finished(door.mi(run, "no_such_thing")), -1)
        first, *rest = self.payloads()
        self.assertEqual(first, "log_level:script:2")
        self.assertEqual(rest[1:], ["no_such_thing:script", "Method not found"])

    def test_nobody(self) -> None:
        """Without a destination nothing is shown; one that proto_hep does not know ends the start."""
        door = MiFifo(self.server, proto_hep=self.hep)
        self.ask(door, b'{"jsonrpc":"2.0","id":1,"method":"pwd"}')
        self.assertEqual(self.payloads(), [])
        wrong = MiFifo(self.server, proto_hep=self.hep, trace_destination="x")
        self.failureResultOf(ensureDeferred(wrong.start()), ValueError)


class Link:
    """As much of a connection as is told of."""

    def __init__(self, number: int, accepted: bool = True) -> None:
        self.number, self.accepted, self.host, self.port = number, accepted, "127.0.0.9", 7009
        self.local: Any = type("Local", (), {"transport": "tcp", "host": "127.0.0.1", "port": 5060})

    def fileno(self) -> int:
        """None."""
        return -1

    def flow(self) -> Any:
        """Itself will do."""
        return self


class ConnectionTests(Shown):
    """Connections of proto_tcp."""

    def test_life(self) -> None:
        """Each step is shown while tracing is on; the route drops some connections from beginning to end."""
        user = self.server.user
        user.connections = table = ConnectionTable()
        user.routes.named["pick"] = Route(
            "pick", RouteKind.REQUEST, lambda run: DROP if run.flow.number == 2 else 1, False, "test.cfg", 1
        )
        module = ProtoTcp(
            self.server, proto_hep=self.hep, trace_destination="h", trace_on=1, trace_filter_route="pick"
        )
        finished(module.start())
        for number in (1, 2):
            table.watch("ACCEPTED", Link(number), True, "Connection accepted...")  # type: ignore[arg-type]
            table.watch("CLOSED", Link(number), True, "")  # type: ignore[arg-type]
        frames = self.capture.frames()
        self.assertEqual(
            [frame.payload for frame in frames],
            [b"TCP:ACCEPTED:SUCCESS:Connection accepted...", b"TCP:CLOSED:SUCCESS"],
        )
        first = frames[0]
        self.assertEqual((first.kind, first.correlation, first.source, first.target),
                         (0x59, b"1", ("127.0.0.9", 7009), ("127.0.0.1", 5060)))
        table.watch("CONNECT_START", Link(3, False), True, "")  # type: ignore[arg-type]
        table.watch("CONNECTED", Link(3, False), False, "refused")  # type: ignore[arg-type]
        frames = self.capture.frames()
        self.assertEqual(frames[1].payload, b"TCP:CONNECTED:FAILURE:refused")
        self.assertEqual(frames[0].source, ("127.0.0.1", 5060))
        self.assertEqual(module.trace_connections(), {"TCP tracing": "on"})
        module.trace_connections("off")
        table.watch("CLOSED", Link(4), True, "")  # type: ignore[arg-type]
        self.assertEqual(self.payloads(), [])
        self.assertRaises(MIError, module.trace_connections, "x")
