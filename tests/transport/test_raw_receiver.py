"""Tests of sipgw.transport.raw_receiver on the loopback interface, where we have the right to hear it."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from sipgw.transport.packets import Datagram
from sipgw.transport.raw_receiver import RawReceiver, Wanted, parse_listen
from tests.children import HOST
from tests.transport.test_packets import DATA, ip, udp


class ListenTests(SynchronousTestCase):
    """What ``raw_socket_listen`` says."""

    def test_parse(self) -> None:
        """An address, ports, or both."""
        for text, expected in (
            ("", ("", None)), ("10.0.0.1", ("10.0.0.1", None)), ("10.0.0.1:5060", ("10.0.0.1", (5060, 5060))),
            (" 10.0.0.1:5060-5090 ", ("10.0.0.1", (5060, 5090))), (":5060", ("", (5060, 5060))),
        ):
            self.assertEqual(parse_listen(text), expected)
        for text in ("x", "10.0.0.1:", "10.0.0.1:9-8", "10.0.0.1:70000", "10.0.0.256:1", "10.0.0.1:1-"):
            self.assertRaises(ValueError, parse_listen, text)


class LoopbackTests(TestCase):
    """What passes the loopback interface."""

    async def hear(self, wanted: Wanted, send: Any) -> list[Datagram]:
        """What is heard when ``send`` sends, the last to port 9 of 127.0.0.1."""
        from twisted.internet import reactor

        clock: Any = reactor
        heard: list[Datagram] = []
        receiver = RawReceiver(reactor, wanted, heard.append, lambda error: self.fail(repr(error)))
        try:
            receiver.open()
        except (PermissionError, AttributeError) as error:
            raise SkipTest(f"raw sockets cannot be had: {error}") from None
        self.addCleanup(receiver.stop)
        send()
        end = clock.seconds() + 10
        while not any(each.target[1] == 9 for each in heard) and clock.seconds() < end:
            tick: Deferred[None] = Deferred()
            clock.callLater(0.01, tick.callback, None)
            await tick
        return heard

    async def test_passing(self) -> None:
        """Each datagram once, with the ports that are wanted, whoever it is for; filtered by the kernel or by us."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.bind((HOST, 0))
            port = one.getsockname()[1]

            def send() -> None:
                for target, data in ((8, DATA), (9, b"short"), (9, DATA + b"last")):
                    one.sendto(data, (HOST, target))

            for filtered in (False, True):
                for ports, count in (((port, port), 2), ((9, 9), 1)):
                    heard = await self.hear(Wanted(False, "", ports, "lo", filtered, True), send)
                    mine = [each for each in heard if each.source == (HOST, port)]
                    self.assertEqual(len(mine), count, (filtered, ports, heard))
                    self.assertEqual(mine[-1], Datagram((HOST, port), (HOST, 9), DATA + b"last"))

    async def test_inside(self) -> None:
        """A datagram in an IP packet that is sent to us in another."""

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP) as sender:
                sender.sendto(ip(udp(target=9)), (HOST, 0))

        try:
            heard = await self.hear(Wanted(True, HOST), send)
        except PermissionError as error:
            raise SkipTest(str(error)) from None
        self.assertEqual(heard, [Datagram(("192.0.2.1", 5060), ("192.0.2.2", 9), DATA)])
