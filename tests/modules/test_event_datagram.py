"""Tests of sipgw.modules.event_datagram, with real sockets of this machine."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.event_datagram import LONGEST, EventDatagram
from sipgw.testing import FakeServer


class DatagramTests(SynchronousTestCase):
    """Events that go out, and sockets that are none."""

    def setUp(self) -> None:
        self.server = FakeServer()
        self.module = EventDatagram(self.server)
        self.bus = self.server.user.events
        self.event = self.bus.publish("E_PIKE_BLOCKED")
        self.addCleanup(lambda: self.successResultOf(ensureDeferred(self.module.stop())))

    def listen(self, family: int, address: Any) -> socket.socket:
        """A socket that reads."""
        made = socket.socket(family, socket.SOCK_DGRAM)
        self.addCleanup(made.close)
        made.bind(address)
        made.settimeout(5)
        return made

    def subscribe(self, socket: str) -> str:
        """Subscribe; why it cannot be, or nothing."""
        caught: list[str] = []
        done = ensureDeferred(self.bus.subscribe(self.event, socket))
        done.addErrback(lambda failure: caught.append(str(failure.value)))
        self.successResultOf(done)
        return caught[0] if caught else ""

    def test_udp(self) -> None:
        """A datagram is a JSON-RPC notification: parameters by name, without names, or none."""
        reader = self.listen(socket.AF_INET, ("127.0.0.1", 0))
        self.assertEqual(self.subscribe(f"udp:127.0.0.1:{reader.getsockname()[1]}"), "")
        self.event.emit(ip="192.168.2.11", count=3, path=None)
        self.bus.tell(self.event, ("é\ud800", 1))
        self.event.emit()
        start = b'{"jsonrpc":"2.0","method":"E_PIKE_BLOCKED"'
        self.assertEqual(reader.recv(9999), start + b',"params":{"ip":"192.168.2.11","count":3,"path":null}}')
        self.assertEqual(reader.recv(9999), start + ',"params":["é\ufffd",1]}'.encode())
        self.assertEqual(reader.recv(9999), start + b"}")

    def test_ipv6(self) -> None:
        """An IPv6 address stands in brackets."""
        reader = self.listen(socket.AF_INET6, ("::1", 0))
        self.assertEqual(self.subscribe(f"udp:[::1]:{reader.getsockname()[1]}"), "")
        self.event.emit()
        self.assertIn(b"E_PIKE_BLOCKED", reader.recv(9999))

    def test_unix(self) -> None:
        """A path may be subscribed before anybody reads there; what is lost meanwhile is logged, not too often."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "ev:1.sock")
            self.assertEqual(self.subscribe(f"unix:{path}"), "")
            self.event.emit()
            self.event.emit()
            self.assertEqual(self.server.lines, [(1, f"E_PIKE_BLOCKED is not told to unix:{path}: No such file or directory")])
            reader = self.listen(socket.AF_UNIX, path)
            self.event.emit(a=1)
            self.assertEqual(json.loads(reader.recv(9999))["params"], {"a": 1})

    def test_too_long(self) -> None:
        """What no datagram holds is not sent."""
        reader = self.listen(socket.AF_INET, ("127.0.0.1", 0))
        self.subscribe(f"udp:127.0.0.1:{reader.getsockname()[1]}")
        head = len('{"jsonrpc":"2.0","method":"E_PIKE_BLOCKED","params":{"a":""}}')
        self.event.emit(a="x" * (LONGEST - head + 1))
        self.assertIn(f"{LONGEST + 1} octets are too many", self.server.lines[0][1])
        self.event.emit(a="y" * (LONGEST - head))
        self.assertEqual(len(reader.recv(99999)), LONGEST)

    def test_name(self) -> None:
        """A name is looked up once, when it is subscribed; the same place by another name is the same subscriber."""
        asked = []

        async def resolve_host(name: str, wanted: str) -> str | None:
            asked.append((name, wanted))
            return "127.0.0.1" if name == "here" else None

        self.server.user.resolve_host = resolve_host
        self.assertEqual(self.subscribe("udp:here:5000"), "")
        self.assertEqual(self.subscribe("udp:127.0.0.1:5000"), "")
        self.assertEqual([each.socket for each in self.bus.subscriptions(self.event)], ["udp:here:5000"])
        self.assertEqual(self.subscribe("udp:nowhere:5000"), "there is no address of 'nowhere'")
        self.assertEqual(asked, [("here", ""), ("nowhere", "")])

    def test_refused(self) -> None:
        """What is no address and port, and no path, is refused with what to write."""
        for socket_, why in [
            ("udp:127.0.0.1", "write udp:address:port"),
            ("udp::5000", "write udp:address:port"),
            ("udp:127.0.0.1:", "'' is no port"),
            ("udp:127.0.0.1:0", "'0' is no port"),
            ("udp:127.0.0.1:99999", "'99999' is no port"),
            ("udp:::1:5000", "an IPv6 address needs brackets"),
            ("udp:[nowhere]:5000", "there is no address of '[nowhere]'"),
            ("unix:", "write unix:path"),
            ("unix:a\0b", "write unix:path"),
            ("unix:/" + "x" * 107, "the path is longer than 107 octets"),
            ("/tmp/x", "no module tells of events to '/tmp/x'"),
        ]:
            self.assertEqual(self.subscribe(socket_), why)
