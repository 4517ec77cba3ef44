"""Tests of bonds: several sockets of ours that a script can choose as one."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.testing import Phone, WiredServer
from tests.proxy.rig import request

HEAD = """
socket = udp:127.0.0.1:5060
socket = udp:127.0.0.2:5060 tag second
socket = udp:[::1]:5060
log_level = -1
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
socket = bond:both {"udp:127.0.0.2:5060", "udp:[::1]:5060"}
"""


class BondTests(SynchronousTestCase):
    """A server with three sockets and a bond of two."""

    def start(self, script: str) -> None:
        """Start it."""
        self.wired = WiredServer(HEAD + script)
        self.alice = Phone(self.wired.wire, "127.0.0.1", 7001)

    def relayed(self, uri: str, bob: Phone) -> Any:
        """What Bob gets of a request, and from which socket."""
        self.alice.send(request("OPTIONS", uri, branch=uri[4:].replace(":", "x").strip("[]")), ("127.0.0.1", 5060))
        message: Any = bob.take()
        assert message is not None, self.wired.lines
        return message.via.address, message.via.port

    def test_member(self) -> None:
        """The request leaves by the member that can reach the next hop, whatever socket it came in on."""
        for choice in ('force_send_socket("bond:both");', '$socket_out = "bond:both";'):
            self.start(f'route {{ {choice} xlog("L_ALERT", "$socket_out $socket_out(forced)\\n"); t_relay(); }}')
            four, six = Phone(self.wired.wire, "127.0.0.1", 7002), Phone(self.wired.wire, "::1", 7002)
            self.assertEqual(self.relayed("sip:127.0.0.1:7002", four), ("127.0.0.2", 5060))
            self.assertEqual(self.relayed("sip:[::1]:7002", six), ("::1", 5060))
            self.assertIn((-3, "bond:both bond:both\n"), self.wired.lines)

    def test_no_member(self) -> None:
        """Where no member can, the choice is ours, as in OpenSIPS."""
        self.start('route { force_send_socket("bond:six"); t_relay(); }\nsocket = bond:six {"udp:[::1]:5060"}')
        four = Phone(self.wired.wire, "127.0.0.1", 7002)
        self.assertEqual(self.relayed("sip:127.0.0.1:7002", four), ("127.0.0.1", 5060))

    def test_belongs(self) -> None:
        """socket_belongs_to_bond knows the members, by address or tag; other sockets and bonds are none."""
        self.start("""
        route {
            if (socket_belongs_to_bond("udp:127.0.0.2:5060", "both")) xlog("L_ALERT", "address\\n");
            if (socket_belongs_to_bond("second", "both")) xlog("L_ALERT", "tag\\n");
            if (socket_belongs_to_bond($socket_in, "both")) xlog("L_ALERT", "came\\n");
            if (socket_belongs_to_bond("udp:127.0.0.9:5060", "both")) xlog("L_ALERT", "no socket\\n");
            if (socket_belongs_to_bond("second", "none")) xlog("L_ALERT", "no bond\\n");
        }""")
        self.alice.send(request("OPTIONS"), ("127.0.0.1", 5060))
        said = [text.rstrip() for _, text in self.wired.lines]
        self.assertEqual(said[:2], ["address", "tag"])
        self.assertEqual([text.partition(":")[0] for text in said[2:]], ["socket_belongs_to_bond"] * 2)
