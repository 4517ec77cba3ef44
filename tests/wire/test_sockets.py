"""Several sockets: calls between address families and transports, forced and advertised sockets, several networks."""

import signal
import socket
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sipgw.transport.addresses import interface_addresses
from tests.children import HOST, free_port, twistd, wait_for
from tests.wire.peer import header, status_of
from tests.wire.phone import Phone, bracketed, place_of

CONFIG = Path(__file__).parent / "sockets.cfg"
SIX = "::1"


def has_ipv6() -> bool:
    """Whether this machine has the loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((SIX, 0))
    except OSError:
        return False
    return True


class SocketTestCase(SynchronousTestCase):
    """A proxy with the sockets of a test, all at one port unless they say otherwise."""

    def serve(self, *sockets, settings="", **defines):
        """Start it; a socket is written ``udp:HOST:PORT ...``, with ``{port}`` and ``{other}``."""
        if any("[" in text for text in sockets) and not has_ipv6():
            raise SkipTest("this machine has no IPv6")
        self.port, self.other = free_port(), free_port()
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        config = directory / "sockets.cfg"
        config.write_text(CONFIG.read_text() + settings)
        arguments = ["sipgw", "-c", str(config)]
        for name, value in defines.items():
            arguments += ["-o", f"{name}={value.format(port=self.port, other=self.other)}"]
        for text in sockets:
            arguments += ["--socket", text.format(port=self.port, other=self.other)]
        if not any(text.startswith("tcp:") for text in sockets):
            config.write_text(config.read_text().replace('loadmodule "proto_tcp.so"\n', ""))
        self.child = twistd(arguments, directory / "server")
        self.addCleanup(self.child.kill)
        self.addCleanup(self.end)
        wait_for(lambda: " listens on " in self.child.text(), "the server starts", self.child)

    def end(self):
        """End it; it has logged no fault."""
        self.child.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.child.wait(), 0)
        lines = self.child.text().splitlines()
        self.assertEqual([line for line in lines if " CRITICAL: " in line or " ERROR: " in line], [])

    def phone(self, host, transport="udp"):
        """A telephone."""
        made = Phone(host, transport)
        self.addCleanup(made.close)
        return made

    def call(self, caller, callee, *, user="callee", host=None, socket_of=None):
        """A whole call; the INVITE as the callee gets it. Each request of the dialog goes by the sockets of the INVITE."""
        socket_of = socket_of or {}
        host = host or caller.host
        invite = caller.invite(callee, user, host, self.port)
        [near] = header(invite, "X-In")
        left_from = callee.source
        callee.answer(invite)
        answer = caller.final()
        self.assertEqual((status_of(answer), header(answer, "Record-Route")), (200, header(invite, "Record-Route")))
        arrived_from = caller.source
        caller.follow("ACK", answer, 1, caller=True, socket_of=socket_of)
        ack = callee.receive()
        callee.follow("BYE", invite, 1, caller=False, socket_of=socket_of)
        bye = caller.receive()
        caller.answer(bye)
        self.assertEqual(status_of(callee.final()), 200)
        for request, method in ((ack, b"ACK "), (bye, b"BYE ")):
            self.assertTrue(request.startswith(method), request)
            self.assertEqual(header(request, "Route"), [])
        self.assertEqual(header(ack, "X-In"), [near])
        if callee.transport == "udp":
            self.assertEqual(callee.source, left_from)
            self.assertEqual(header(bye, "X-In")[0].split()[0], f"udp:{bracketed(left_from[0])}:{left_from[1]}")
        if caller.transport == "udp":
            self.assertEqual(caller.source, arrived_from)
        return invite

    def vias(self, request):
        """What stands in the topmost Via: transport and sent-by."""
        transport, place = header(request, "Via")[0].split(";")[0].split(" ")
        return transport.rpartition("/")[2].lower(), place

    def routes(self, request):
        """The Record-Routes: sent-by with transport, and whether there is a twin."""
        found = []
        for value in header(request, "Record-Route"):
            host, port, transport = place_of(value)
            found.append((f"{transport}:{bracketed(host)}:{port}", ";r2=on" in value))
        return found


class FamilyTests(SocketTestCase):
    """IPv4 and IPv6, UDP and TCP, in all combinations."""

    def test_udp(self):
        """Calls between all families over UDP; two Record-Routes where the socket changes, the upper one for the callee."""
        self.serve("udp:127.0.0.1:{port}", "udp:[::1]:{port}")
        ours = {HOST: f"udp:{HOST}:{self.port}", SIX: f"udp:[{SIX}]:{self.port}"}
        for near in ours:
            for far in ours:
                invite = self.call(self.phone(near), self.phone(far))
                expected = [(ours[near], False)] if near == far else [(ours[far], True), (ours[near], True)]
                self.assertEqual(self.routes(invite), expected)
                self.assertEqual(f"udp:{self.vias(invite)[1]}", ours[far])
                family = "INET6" if near == SIX else "INET"
                self.assertEqual(header(invite, "X-In"), [f"{ours[near]} {bracketed(near)} <null> {family}"])

    def test_tcp(self):
        """From UDP over IPv4 to TCP over IPv6 and back, and from TCP to TCP between the families."""
        kinds = [(HOST, "udp"), (HOST, "tcp"), (SIX, "udp"), (SIX, "tcp")]
        self.serve(*(f"{transport}:{bracketed(host)}:{{port}}" for host, transport in kinds))
        ours = {kind: f"{kind[1]}:{bracketed(kind[0])}:{self.port}" for kind in kinds}
        four, four_tcp, _, six_tcp = kinds
        for near, far in ((four, six_tcp), (six_tcp, four), (four_tcp, six_tcp), (six_tcp, six_tcp), (four_tcp, four)):
            invite = self.call(self.phone(*near), self.phone(*far))
            expected = [(ours[near], False)] if near == far else [(ours[far], True), (ours[near], True)]
            self.assertEqual(self.routes(invite), expected)
            self.assertEqual(self.vias(invite), (far[1], f"{bracketed(far[0])}:{self.port}"))


class ForcedTests(SocketTestCase):
    """Sockets that the script chooses."""

    def test_forced(self):
        """A forced socket, by its address or by its tag, carries the call, and the rest of the dialog too."""
        self.serve("udp:127.0.0.1:{port} tag first", "udp:127.0.0.1:{other} tag other", other="udp:127.0.0.1:{other}")
        other = f"udp:{HOST}:{self.other}"
        for user in ("tag", "forced"):
            caller, callee = self.phone(HOST), self.phone(HOST)
            invite = self.call(caller, callee, user=user)
            self.assertEqual(callee.source, (HOST, self.other))
            self.assertEqual(self.routes(invite), [(other, True), (f"udp:{HOST}:{self.port}", True)])
            self.assertEqual(header(invite, "X-Out"), [other])
            self.assertEqual(header(invite, "X-In"), [f"udp:{HOST}:{self.port} {HOST} first INET"])

    def test_forced_in_vain(self):
        """A forced socket of the other family cannot carry the request: it leaves by the one where it came in."""
        self.serve("udp:127.0.0.1:{port}", "udp:[::1]:{port}", other="udp:[::1]:{port}")
        callee = self.phone(HOST)
        invite = self.call(self.phone(HOST), callee, user="forced")
        self.assertEqual(self.routes(invite), [(f"udp:{HOST}:{self.port}", False)])
        self.assertEqual(callee.source, (HOST, self.port))


class AdvertisedTests(SocketTestCase):
    """Sockets that are known by another address than their own, as behind a NAT."""

    def test_advertised(self):
        """Via and Record-Route name what is advertised, and a Route that names it is ours."""
        self.serve("udp:127.0.0.1:{port} as 192.0.2.1:5099", "udp:127.0.0.1:{other} as sip.example.org tag other")
        first, other = "192.0.2.1:5099", f"sip.example.org:{self.other}"
        socket_of = {first: (HOST, self.port), other: (HOST, self.other)}
        invite = self.call(self.phone(HOST), self.phone(HOST), socket_of=socket_of)
        self.assertEqual((self.vias(invite), self.routes(invite)), (("udp", first), [(f"udp:{first}", False)]))
        invite = self.call(self.phone(HOST), self.phone(HOST), user="tag", socket_of=socket_of)
        self.assertEqual(self.vias(invite), ("udp", other))
        self.assertEqual(self.routes(invite), [(f"udp:{other}", True), (f"udp:{first}", True)])

    def test_global(self):
        """advertised_address and advertised_port stand for all sockets that have nothing of their own."""
        settings = "advertised_address = 192.0.2.1\nadvertised_port = 5099\n"
        self.serve("udp:127.0.0.1:{port}", settings=settings)
        invite = self.call(self.phone(HOST), self.phone(HOST), socket_of={"192.0.2.1:5099": (HOST, self.port)})
        self.assertEqual((self.vias(invite), self.routes(invite)), (("udp", "192.0.2.1:5099"), [("udp:192.0.2.1:5099", False)]))


class NetworkTests(SocketTestCase):
    """Several networks: the loopback one, and that of an interface."""

    def setUp(self):
        found = [host for host in interface_addresses() if ":" not in host and not host.startswith("127.")]
        if not found:
            raise SkipTest("this machine has no address but 127.0.0.1")
        self.outside = found[0]

    def leaves(self, settings):
        """From where a call leaves that comes in on the loopback network and goes to a telephone outside, and the reverse."""
        self.serve("udp:127.0.0.1:{port}", f"udp:{self.outside}:{{port}}", settings=settings)
        outward = self.call(self.phone(HOST), self.phone(self.outside))
        inward = self.call(self.phone(self.outside), self.phone(HOST))
        return [self.routes(invite) for invite in (outward, inward)]

    def test_mhomed(self):
        """With mhomed a request leaves by the socket whose address the kernel would use."""
        found = self.leaves("mhomed = yes\n")
        inside, outside = f"udp:{HOST}:{self.port}", f"udp:{self.outside}:{self.port}"
        self.assertEqual(found, [[(outside, True), (inside, True)], [(inside, True), (outside, True)]])

    def test_no_socket_there(self):
        """With mhomed, and no socket at the address that the kernel would use, the one where the request came in serves."""
        self.serve("udp:127.0.0.1:{port}", settings="mhomed = yes\n")
        invite = self.call(self.phone(HOST), self.phone(self.outside))
        self.assertEqual(self.routes(invite), [(f"udp:{HOST}:{self.port}", False)])

    def test_not_mhomed(self):
        """Without it, by the one where it came in."""
        found = self.leaves("")
        self.assertEqual(found, [[(f"udp:{HOST}:{self.port}", False)], [(f"udp:{self.outside}:{self.port}", False)]])
