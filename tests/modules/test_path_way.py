"""The way of RFC 3327 from end to end: a phone behind a NAT, an edge proxy with path, a registrar behind it, a caller."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.message import Request, Response
from sipgw.testing import Phone, Wire, WiredServer
from tests.proxy.rig import response

MODULES = "".join(f'loadmodule "{name}.so"\n' for name in "proto_udp sl tm signaling rr maxfwd sipmsgops textops".split())
EDGE = """
socket = udp:{host}:5060
log_level = -1
{modules}
loadmodule "path.so"
modparam("path", "use_received", 1)
route {{
    if (is_method("REGISTER")) {{
        add_path_received("{host}");
        $du = "sip:10.0.0.9:5060";
        t_relay();
        exit;
    }}
    loose_route();  # fails for a first request with our Route alone, and still has found the way
    t_relay();
}}
"""
HOME = """
socket = udp:10.0.0.9:5060
log_level = -1
{modules}
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("usrloc", "nat_bflag", "NAT")
route {{
    if (is_method("REGISTER")) {{
        save("location", "{flags}");
        exit;
    }}
    if (!lookup("location")) {{
        sl_send_reply(404, "Not Found");
        exit;
    }}
    t_on_branch("out");
    t_relay();
}}
branch_route[out] {{
    if (isbflagset("NAT"))
        append_hf("X-Nat: $du\\r\\n");
    else
        append_hf("X-To: $du\\r\\n");
}}
"""


def request(method: str, host: str, more: str = "", *, user: str = "bob", number: int = 1) -> bytes:
    """A request of ``user`` from ``host`` to Bob."""
    return (
        f"{method} sip:{'example.org' if method == 'REGISTER' else 'bob@example.org'} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {host}:1024;rport;branch=z9hG4bK{user}{method}{number}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:{user}@example.org>;tag=a1\r\nTo: <sip:bob@example.org>\r\nCall-ID: {user}{host}\r\n"
        f"CSeq: {number} {method}\r\n{more}Content-Length: 0\r\n\r\n"
    ).encode()


class PathWayTests(SynchronousTestCase):
    """Two edges, one registrar, phones that say an address which leads nowhere."""

    def start(self, flags: str) -> None:
        """Start all of it."""
        self.wire = Wire(Clock())
        for host in ("10.0.0.1", "10.0.0.2"):
            WiredServer(EDGE.format(host=host, modules=MODULES), wire=self.wire)
        self.home = WiredServer(HOME.format(flags=flags, modules=MODULES), wire=self.wire)
        self.alice = Phone(self.wire, "192.0.2.9", 1024)
        self.phones = [Phone(self.wire, f"192.0.2.{number}", 1024) for number in (1, 2)]

    def register(self, index: int, more: str = "Supported: path\r\n") -> Response:
        """Let a phone register through its edge."""
        contact = f"Contact: <sip:bob@192.168.0.{index + 1}:5062>;q=0.5\r\n"
        self.phones[index].send(request("REGISTER", f"192.168.0.{index + 1}", contact + more), (f"10.0.0.{index + 1}", 5060))
        answer = self.phones[index].take()
        assert isinstance(answer, Response)
        return answer

    def path(self, index: int) -> str:
        """The Path of a phone."""
        return f"<sip:10.0.0.{index}@10.0.0.{index};lr;received=sip:192.0.2.{index}:1024>"

    def test_forked(self) -> None:
        """A request is forked to both phones, each by its own edge, which knows where the phone really is."""
        self.start("path-lazy")
        for index in (0, 1):
            answer = self.register(index)
            self.assertEqual((answer.status, answer.header("Path")), (200, self.path(index + 1)))
        self.alice.send(request("MESSAGE", "192.0.2.9", "Route: <sip:10.0.0.9;lr>\r\n", user="alice"), ("10.0.0.9", 5060))
        for index, phone in enumerate(self.phones, 1):
            arrived = phone.take()
            assert isinstance(arrived, Request)
            self.assertEqual((arrived.uri, len(arrived.vias)), (f"sip:bob@192.168.0.{index}:5062", 3))
            self.assertEqual(arrived.header("X-To"), self.path(index)[1:-1])
            self.assertEqual(arrived.headers("Route"), ["<sip:10.0.0.9;lr>"])
            phone.send(response(arrived, 200 if index == 2 else 486), (f"10.0.0.{index}", 5060))
        final = self.alice.take()
        assert isinstance(final, Response)
        self.assertEqual((final.status, len(final.vias)), (200, 1))

    def test_received(self) -> None:
        """With ``path-received`` the registrar knows it too, and of the NAT; the request goes by the edge all the same."""
        self.start("path-strict,path-received")
        answer = self.register(1)
        self.assertEqual(
            answer.header("Contact"), '<sip:bob@192.168.0.2:5062>;q=0.5;expires=3600;received="sip:192.0.2.2:1024"'
        )
        self.alice.send(request("MESSAGE", "192.0.2.9", user="alice"), ("10.0.0.9", 5060))
        arrived = self.phones[1].take()
        assert isinstance(arrived, Request)
        self.assertEqual((arrived.header("X-Nat"), arrived.headers("Route")), (self.path(2)[1:-1], []))

    def test_modes(self) -> None:
        """Who does not know Path is refused (strict), or not told of it (lazy, off); it is used in either case."""
        for flags, supported, status, shown in [
            ("path-strict", "", 420, True),
            ("path-strict", "Supported: path\r\n", 200, True),
            ("path-lazy", "", 200, False),
            ("path-lazy", "Supported: 100rel, Path\r\n", 200, True),
            ("path-off", "Supported: path\r\n", 200, False),
        ]:
            self.start(flags)
            answer = self.register(0, supported)
            self.assertEqual((answer.status, answer.header("Path")), (status, self.path(1) if shown else None), flags)
            self.assertEqual(answer.header("Unsupported"), "path" if status == 420 else None)
            self.alice.send(request("MESSAGE", "192.0.2.9", user="alice"), ("10.0.0.9", 5060))
            arrived = self.phones[0].take()
            self.assertEqual(arrived is None, status == 420, flags)

    def test_without(self) -> None:
        """Without a flag the Path is not looked at: the request goes where nobody is."""
        self.start("")
        self.assertEqual(self.register(0).status, 200)
        self.alice.send(request("MESSAGE", "192.0.2.9", user="alice"), ("10.0.0.9", 5060))
        self.assertIsNone(self.phones[0].take())
        self.assertEqual(self.wire.lost, 1)
