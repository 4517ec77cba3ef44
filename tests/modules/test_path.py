"""Tests of sipgw.modules.path: what stands in the Path, and where it leads later."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from sipgw.modules.path import Path
from sipgw.modules.rr import Rr
from sipgw.script.run import Run
from sipgw.sip.edits import write
from tests.doubles import HEAD, FakeFlow, FakeSocket, FakeUser, fake_server, request, run_of

CLIENT = FakeSocket("udp", "10.0.0.1", 5080)


class AddPathTests(TestCase):
    """add_path and add_path_received."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Start path on a server with one socket."""
        self.user = FakeUser(CLIENT)
        self.path = Path(fake_server(self.user))
        await self.path.start()

    def run_of(self, more: str = "", flow: FakeFlow | None = None) -> Run:
        """A REGISTER from 192.0.2.1:5062."""
        run = run_of(request("REGISTER", "sip:example.org", more=more), self.user)
        if flow is not None:
            run.flow = flow
        return run

    def paths(self, run: Run, socket: FakeSocket = CLIENT) -> list[str]:
        """The Path headers of the request as it leaves from ``socket``."""
        flow = FakeFlow(socket=socket)
        lines = write(run.message, run.edits, way=(run, flow)).decode().split("\r\n")
        return [line for line in lines if line.startswith("Path:")]

    def test_add_path(self) -> None:
        """Our address, a user if one is given, in the order of the calls, before any that is there."""
        run = self.run_of()
        self.assertTrue(self.path.add_path(run))
        self.assertTrue(self.path.add_path(run, "lb"))
        self.assertEqual(self.paths(run), ["Path: <sip:10.0.0.1:5080;lr>", "Path: <sip:lb@10.0.0.1:5080;lr>"])
        run = self.run_of("Path: <sip:other;lr>\r\nSupported: path\r\nPath: <sip:third;lr>\r\n")
        self.assertTrue(self.path.add_path(run, "lb"))
        self.assertEqual(
            self.paths(run), ["Path: <sip:lb@10.0.0.1:5080;lr>", "Path: <sip:other;lr>", "Path: <sip:third;lr>"]
        )

    def test_not_written(self) -> None:
        """A request that does not leave has no Path."""
        run = self.run_of()
        self.path.add_path(run)
        self.assertNotIn(b"Path", write(run.message, run.edits))

    def test_addresses(self) -> None:
        """A usual port is left out, a transport that is not UDP is named, IPv6 has brackets, the advertised address wins."""
        for socket, expected in (
            (FakeSocket("udp", "10.0.0.1", 5060), "10.0.0.1"),
            (FakeSocket("tcp", "10.0.0.1", 5060), "10.0.0.1;transport=tcp"),
            (FakeSocket("tls", "10.0.0.1", 5061), "10.0.0.1;transport=tls"),
            (FakeSocket("tls", "10.0.0.1", 5060), "10.0.0.1:5060;transport=tls"),
            (FakeSocket("udp", "2001:db8::1", 5080), "[2001:db8::1]:5080"),
            (FakeSocket("udp", "10.0.0.1", 5080, "sip.example.org", 99), "sip.example.org:99"),
        ):
            run = self.run_of(flow=FakeFlow(socket=socket))
            self.path.add_path(run)
            self.assertEqual(self.paths(run, socket), [f"Path: <sip:{expected};lr>"])
        run.advertised_host, run.advertised_port = "edge.example.org", 5060
        self.assertEqual(self.paths(run, socket), ["Path: <sip:edge.example.org;lr>"])

    def test_received(self) -> None:
        """``received`` is where the request came from, with its transport escaped."""
        for flow, expected in (
            (FakeFlow("192.0.2.1", 5062, socket=CLIENT), "192.0.2.1:5062"),
            (FakeFlow("192.0.2.1", 5062, "tcp", socket=CLIENT), "192.0.2.1:5062%3btransport%3dtcp"),
            (FakeFlow("2001:db8::9", 5062, socket=CLIENT), "[2001:db8::9]:5062"),
        ):
            run = self.run_of(flow=flow)
            self.assertTrue(self.path.add_path_received(run, "u"))
            self.assertEqual(self.paths(run), [f"Path: <sip:u@10.0.0.1:5080;lr;received=sip:{expected}>"])
        run.flow = None
        self.assertFalse(self.path.add_path_received(run))

    def test_double(self) -> None:
        """A request that leaves by another socket gets two, ``received`` in the lower one; unless that is switched off."""
        out = FakeSocket("tcp", "198.51.100.1", 5060)
        run = self.run_of()
        self.path.add_path_received(run)
        self.assertEqual(
            self.paths(run, out),
            [
                "Path: <sip:198.51.100.1;transport=tcp;r2=on;lr>",
                "Path: <sip:10.0.0.1:5080;r2=on;lr;received=sip:192.0.2.1:5062>",
            ],
        )
        self.path.set_parameter("enable_double_path", 0)
        run = self.run_of()
        self.path.add_path_received(run)
        self.assertEqual(
            self.paths(run, out), ["Path: <sip:198.51.100.1;transport=tcp;lr;received=sip:192.0.2.1:5062>"]
        )

    def test_bad_user(self) -> None:
        """What cannot be the user of a URI is refused."""
        for user in ("a@b", "a b", "a>b", "a:b", "a;b>"):
            run = self.run_of()
            self.assertFalse(self.path.add_path(run, user), user)
            self.assertFalse(run.edits)


class UseReceivedTests(TestCase):
    """use_received."""

    async def start(self, **parameters: Any) -> None:
        """Start path beside rr."""
        self.user = FakeUser(CLIENT, myself=("10.0.0.1", "10.0.0.2"))
        server = fake_server(self.user)
        self.rr = Rr(server)
        self.path = Path(server, rr=self.rr, **parameters)
        await self.path.start()

    def follow(self, *routes: str, tag: str = ";tag=b1") -> str | None:
        """``$du`` after loose_route()."""
        head = HEAD.replace("<sip:bob@example.org>", f"<sip:bob@example.org>{tag}")
        more = "".join(f"Route: <sip:{route}>\r\n" for route in routes)
        run = run_of(request("INVITE", "sip:bob@192.168.0.7", head=head, more=more), self.user)
        self.rr.loose_route(run)
        return run.dst_uri

    async def test_followed(self) -> None:
        """The next hop is ``received`` of our Route; of two that of the lower one; also in a request without a To tag."""
        await self.start(use_received=1)
        for routes, expected in (
            (["10.0.0.1:5080;lr;received=sip:192.0.2.1:5062"], "sip:192.0.2.1:5062"),
            (["10.0.0.1:5080;lr;received=sip:192.0.2.1:5062%3btransport%3dtcp"], "sip:192.0.2.1:5062;transport=tcp"),
            (["10.0.0.1:5080;lr;received=sip:192.0.2.1:5062", "192.0.2.200;lr"], "sip:192.0.2.1:5062"),
            (["10.0.0.2:5080;r2=on;lr", "10.0.0.1:5080;r2=on;lr;received=sip:192.0.2.1:5062"], "sip:192.0.2.1:5062"),
            (["10.0.0.2:5080;r2=on;lr;received=sip:192.0.2.9", "10.0.0.1:5080;r2=on;lr"], None),
            (["10.0.0.1:5080;lr"], None),
            (["10.0.0.1:5080;lr;received="], None),
            (["10.0.0.1:5080;lr;received=nonsense"], None),
            (["10.0.0.1:5080;lr;received=tel:+123"], None),
            (["192.0.2.200;lr;received=sip:192.0.2.1:5062"], "sip:192.0.2.200;lr;received=sip:192.0.2.1:5062"),
        ):
            self.assertEqual(self.follow(*routes), expected, routes)
        self.assertEqual(self.follow("10.0.0.1:5080;lr;received=sip:192.0.2.1:5062", tag=""), "sip:192.0.2.1:5062")

    async def test_off(self) -> None:
        """Without use_received, its default, the parameter means nothing."""
        await self.start()
        self.assertIsNone(self.follow("10.0.0.1:5080;lr;received=sip:192.0.2.1:5062"))

    async def test_needs_rr(self) -> None:
        """use_received without rr refuses to start."""
        path = Path(fake_server(), use_received=1)
        with self.assertRaises(ValueError):
            await path.start()
