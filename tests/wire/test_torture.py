"""The 69 torture messages of RFC 4475 and RFC 5118 over the wire, to a user agent server, a registrar and a proxy.

``roles.cfg`` is the configuration of all three; each test sends all messages to one server. What is expected stands in
``tests/data/torture_wire.tsv``, one row for each message; the columns of TCP only where it is something else there. A cell says:

- ``200``, ``400``...: that is the one final answer; ``405,200``: those are;
- ``501 Allow: INVITE, ACK``: the answer has that header;
- ``relayed HOST PORT``: the message goes on, octet for octet but for what a proxy changes; HOST and PORT are where its
  Request-URI or Route leads. ``relayed twice``: there were two messages in the octets;
- ``nothing``: no answer, nothing goes on;
- ``... closed``: then the server closes the connection, since it cannot know where the next message begins."""

import re
import select
import signal
import socket
from pathlib import Path
from secrets import token_hex

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.children import HOST, free_port, twistd, wait_for
from tests.wire.peer import RELAYED, RELAYED_INVITE, Peer, Seen, answer_to, bracketed, head_lines, header, usual_answer

HERE = Path(__file__).parent
TORTURE = HERE.parent / "torture"
ROLES = ("agent", "registrar", "relay", "stateless")

COPIED = re.compile(rb"(?:via|v|from|f|to|t|call-id|i|cseq)[ \t]*:", re.IGNORECASE)
TO = re.compile(rb"(?:to|t)[ \t]*:", re.IGNORECASE)
VIA = re.compile(rb"(?:via|v)[ \t]*:", re.IGNORECASE)
OURS = re.compile(rb"Via: SIP/2.0/(UDP|TCP) (127.0.0.1|\[::1\]):\d+;branch=z9hG4bK\w+(;i=\d+)?")
LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*:[ \t]*([0-9]+)", re.IGNORECASE | re.MULTILINE)

REWRITTEN = {
    "rfc4475/mpart01.dat": {
        # its Route leads to a strict router (RFC 3261 16.6 step 6)
        b"MESSAGE sip:kumiko@example.org SIP/2.0": b"MESSAGE sip:127.0.0.1:5080 SIP/2.0",
        b"Route: <sip:127.0.0.1:5080>": b"Route: <sip:kumiko@example.org>",
    },
}
"""Lines that a proxy must change beside those that it changes in every request."""

HOSTILE = {
    "255.255.255.255": "is the broadcast address",
    "224.0.1.75": "is a multicast address",
    "0.0.0.0": "is no address of any host",
    "0.1.2.3": "is in 0.0.0.0/8, this network",
}
"""Addresses to which nothing may be sent."""

LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} (?:ERROR|WARNING|NOTICE|INFO): [^\x00-\x1f\x7f-\x9f]*")
"""A line of the log: no control character, and no ALERT, CRITICAL or DBG."""


def table() -> dict[str, dict[str, str]]:
    """The expectations: file -> column -> cell."""
    columns, *rows = ((HERE.parent / "data" / "torture_wire.tsv").read_text()).splitlines()
    names = columns.split("\t")
    found = {}
    for row in rows:
        cells = row.split("\t")
        cells += [""] * (len(names) - len(cells))
        found[cells[0]] = dict(zip(names[1:], cells[1:], strict=True))
    return found


def told(seen: Seen) -> str:
    """What happened, in the words of the table, without headers."""
    if len(seen.relayed) > 1:
        text = "relayed twice"
    elif seen.relayed:
        text = f"relayed {header(seen.relayed[0], 'X-Way')[0]}"
        answer = RELAYED_INVITE if seen.relayed[0].startswith(b"INVITE") else RELAYED
        acks = int(answer == RELAYED_INVITE)
        if seen.finals != [answer] or len(seen.acks) != acks:
            text += f", answered {seen.finals}, acknowledged {len(seen.acks)} times"
    else:
        text = ",".join(map(str, seen.finals)) or "nothing"
    return f"{text} closed" if seen.closed else text


class WireTestCase(SynchronousTestCase):
    """A server, and a peer."""

    host = HOST

    def setUp(self):
        self.peer = Peer(self.host)
        self.addCleanup(self.peer.close)
        self.ports = {role: free_port() for role in ROLES}
        arguments = ["sipgw", "-c", str(HERE / "roles.cfg"), "-o", f"next={self.peer.next_hop}"]
        for role, port in self.ports.items():
            for transport in ("udp",) if role == "stateless" else ("udp", "tcp"):
                arguments += ["--socket", f"{transport}:{bracketed(self.host)}:{port} tag {role}"]
        self.child = twistd(arguments, Path(self.mktemp()).absolute())
        self.addCleanup(self.child.kill)
        self.addCleanup(self.end)
        wait_for(lambda: " listens on " in self.child.text(), "the server starts", self.child)

    def end(self):
        """The server ends with status 0; every line of its log is one event, escaped, and none of them a bug."""
        self.child.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.child.wait(), 0)
        lines = self.child.text().split("\n")[:-1]
        self.assertGreater(len(lines), 1)
        self.assertEqual([line for line in lines if LOG_LINE.fullmatch(line) is None], [])

    def try_udp(self, role, message):
        """Send a datagram to a role."""
        return self.peer.over_udp(message, self.ports[role])


class TableTests(SynchronousTestCase):
    """The table itself."""

    def test_every_file_has_a_row(self):
        """The table has a row for each file of the index and for no other."""
        rows = (TORTURE / "index.tsv").read_text().splitlines()[1:]
        self.assertEqual([row.split("\t")[0] for row in rows], list(table()))
        self.assertEqual(len(rows), 69)


class RoleTests(WireTestCase):
    """Every message, in every role, over both transports."""

    def attempt(self, transport):
        """Send all messages to all roles."""
        wrong = {}
        for role in ("agent", "registrar", "relay"):
            for name, row in table().items():
                message = (TORTURE / name).read_bytes()
                expected = (transport == "tcp" and row[f"{role}_tcp"]) or row[role]
                seen = getattr(self.peer, f"over_{transport}")(message, self.ports[role])
                faults = outcome_faults(expected, seen)
                if transport == "udp":
                    faults += [fault for reply in seen.replies for fault in reply_faults(message, reply, self.peer.host)]
                if len(seen.relayed) == 1 and expected.startswith("relayed"):
                    faults += relay_faults(name, message, seen.relayed[0], transport)
                if faults:
                    wrong[role, name] = faults
        self.assertEqual(wrong, {})

    def test_udp(self):
        """Over UDP."""
        self.attempt("udp")

    def test_tcp(self):
        """Over TCP."""
        self.attempt("tcp")


def outcome_faults(expected: str, seen: Seen) -> list[str]:
    """What of a cell of the table is not so."""
    outcome, colon, value = expected.partition(": ")
    name = ""
    if colon:
        outcome, _, name = outcome.rpartition(" ")
    if told(seen) != outcome:
        return [f"{told(seen)} instead of {expected}"]
    if colon and header(seen.replies[-1], name) != [value]:
        return [f"no {name}: {value} in {seen.replies[-1]!r}"]
    return []


def reply_faults(message: bytes, reply: bytes, host: str) -> list[str]:
    """What is wrong with a response: it copies Via, From, To, Call-ID and CSeq, and says in the top Via where the request
    came from (RFC 3261 8.2.6, 18.2.1)."""
    wanted = [line for line in head_lines(message) if COPIED.match(line)]
    came = [line for line in head_lines(reply) if COPIED.match(line)]
    if len(wanted) != len(came):
        return [f"{reply!r} has not the headers of the request"]
    return [
        f"{was!r} has become {now!r}"
        for was, now in zip(wanted, came, strict=True)
        if was != now and not is_stamped(was, now, host) and not (TO.match(was) and now.startswith(was + b";tag="))
    ]


def is_stamped(was: bytes, now: bytes, host: str = "127.") -> bool:
    """Whether a Via has only been given ``received`` and ``rport``."""
    plain = re.sub(rb";received=[^;,]*|(?<=;rport)=\d+", b"", now)
    return f";received={host}".encode() in now and plain == re.sub(rb";received=[^;,]*", b"", was)


def relay_faults(name: str, message: bytes, relayed: bytes, transport: str) -> list[str]:
    """What is wrong with a request that was sent on: all is as it was, but for one more Via, the stamp in the one before, one
    hop less, what ``roles.cfg`` appends, and ``REWRITTEN``."""
    was_lines = [REWRITTEN.get(name, {}).get(line, line) for line in head_lines(message)]
    now_lines = [line for line in head_lines(relayed) if not line.startswith(b"X-Way: ")]
    top, second, *_ = [index for index, line in enumerate(now_lines) if VIA.match(line)]
    stamped = now_lines[second]
    faults = [] if OURS.fullmatch(now_lines[top]) else [f"on top is {now_lines[top]!r}"]
    del now_lines[top]
    if not any(line.lower().startswith(b"max-forwards") for line in was_lines):
        was_lines.insert(1, b"Max-Forwards: 71")  # RFC 3261 16.6 step 3: the proxy puts 70 there
    if len(was_lines) != len(now_lines):
        return [*faults, f"{len(was_lines)} lines have become {len(now_lines)}"]
    for was, now in zip(was_lines, now_lines, strict=True):
        field, _, value = was.partition(b":")
        if field.lower() == b"max-forwards":
            same = now.startswith(field) and int(now.partition(b":")[2]) == int(value) - 1
        else:
            same = was == now or (now is stamped and is_stamped(was, now, ""))
        if not same:
            faults.append(f"{was!r} has become {now!r}")
    body, arrived = message.partition(b"\r\n\r\n")[2], relayed.partition(b"\r\n\r\n")[2]
    length = LENGTH.search(message)
    if length is not None and transport == "tcp" and int(length[1]) > len(body):
        arrived = arrived[: len(body)]  # what followed was taken for the rest
    elif length is not None:
        body = body[: int(length[1])]
    return faults if arrived == body else [*faults, f"{body!r} has become {arrived!r}"]


class SixTests(RoleTests):
    """The same over IPv6."""

    host = "::1"

    def setUp(self):
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError as error:
            raise SkipTest(f"there is no ::1 here: {error}") from None
        super().setUp()


class ResponseTests(WireTestCase):
    """The torture responses, as answers of the next hop and out of the blue."""

    def answered(self, *responses):
        """The start lines that come back for an OPTIONS which the next hop answers so: start line and another CSeq, if any."""

        def answers(request):
            found = []
            for start, cseq in responses:
                response = answer_to(request, start)
                found.append(re.sub(rb"\r\nCSeq: .*", b"\r\nCSeq: " + cseq, response) if cseq else response)
            return found

        self.peer.answers = answers
        seen = self.try_udp("relay", options(f"sip:user@{HOST}", self.peer.host))
        return [head_lines(reply)[0] for reply in seen.replies]

    def start_line(self, name):
        """The start line of a torture message."""
        return head_lines((TORTURE / name).read_bytes())[0]

    def test_reason(self):
        """A reason phrase goes on octet for octet, an empty one too (RFC 4475 3.1.1.12, 3.1.1.13)."""
        final = b"SIP/2.0 299 Seen", b""
        phrase = self.start_line("rfc4475/unreason.dat")
        self.assertEqual(self.answered((phrase, b"")), [phrase])
        for name in ("rfc4475/noreason.dat", "variants/noreason-nosp.dat"):
            ringing = self.start_line(name).replace(b"100", b"180")
            self.assertEqual(self.answered((ringing, b""), final), [ringing, final[0]])

    def test_unreadable(self):
        """A response whose numbers are out of range is dropped, and the next one counts (3.1.2.5, 3.1.2.19)."""
        final = b"SIP/2.0 299 Seen", b""
        number = header((TORTURE / "rfc4475/scalarlg.dat").read_bytes(), "CSeq")[0].encode()
        self.assertEqual(self.answered((self.start_line("rfc4475/bigcode.dat"), b""), final), [final[0]])
        self.assertEqual(self.answered((self.start_line("rfc4475/scalarlg.dat"), number), final), [final[0]])

    def test_stateless(self):
        """A response without a transaction goes to the second Via if the first is ours; else nowhere."""
        message = (TORTURE / "rfc4475/bcast.dat").read_bytes()
        self.assertEqual(self.try_udp("stateless", options(f"sip:{HOST}", self.peer.host)).finals, [RELAYED])
        here = message.replace(b"255.255.255.255", self.peer.host.encode())
        ours = b"Via: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1324923\r\n"
        self.assertEqual(self.try_udp("stateless", here).replies, [here.replace(ours, b"")])
        for other in (b"192.0.2.199", b"example.com.invalid"):
            self.assertEqual(self.try_udp("stateless", here.replace(b"192.0.2.198", other)).replies, [])

    def test_broadcast(self):
        """Nothing is sent to a broadcast, multicast or nameless address, whoever names it (3.3.10)."""
        message = (TORTURE / "rfc4475/bcast.dat").read_bytes()
        self.try_udp("stateless", options(f"sip:{HOST}", self.peer.host))
        ear = self.ear()
        for address, why in HOSTILE.items():
            place = f"{address}:{ear.getsockname()[1]}"
            response = message.replace(b"255.255.255.255", place.encode())
            self.assertEqual(self.try_udp("stateless", response).replies, [])
            for uri in (f"sip:go-there@{place}", f"sip:go-there@{self.peer.host};maddr={address}"):
                self.assertEqual(self.try_udp("relay", options(uri, self.peer.host)).finals, [477])
            self.assertIn(f"nothing is sent to {place}: it {why}", self.child.text())
        self.assertRaises(BlockingIOError, ear.recv, 65535)

    def ear(self):
        """A socket that hears what is sent to any address of this machine, at its port."""
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(ear.close)
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        ear.bind(("", 0))
        ear.setblocking(False)
        ear.sendto(b"heard", ("127.255.255.255", ear.getsockname()[1]))
        wait_for(lambda: select.select([ear], [], [], 0)[0], "the ear hears")
        self.assertEqual(ear.recv(65535), b"heard")
        return ear


class RequestTests(WireTestCase):
    """What the table cannot say of some requests."""

    def contacts(self, name, user):
        """What the registrar lists for ``user`` after it has seen one torture REGISTER and nothing before."""
        self.try_udp("registrar", register(user, self.peer.host, "Contact: *\r\nExpires: 0\r\n"))
        answered = self.try_udp("registrar", (TORTURE / "rfc4475" / name).read_bytes()).replies[0]
        fetched = self.try_udp("registrar", register(user, self.peer.host)).replies[0]
        self.assertEqual(header(answered, "Contact"), header(fetched, "Contact"))
        return re.sub(";expires=[0-9]+", "", ", ".join(header(fetched, "Contact")))

    def test_contact_parameters(self):
        """A parameter outside the brackets is the header's, inside the URI's (3.3.12, 3.3.13)."""
        self.assertEqual(self.contacts("cparam01.dat", "watson"), "<sip:+19725552222@gw1.example.net>")
        self.assertEqual(self.contacts("cparam02.dat", "watson"), "<sip:+19725552222@gw1.example.net;unknownparam>")

    def test_escaped_contacts(self):
        """Two contacts whose users begin with an escaped NUL are two, and the address-of-record is not cut there (3.1.1.4)."""
        both = "<sip:%00@host5.example.com>, <sip:%00%00@host5.example.com>"
        found = self.contacts("escnull.dat", "null-%00-null").split(", ")
        self.assertEqual(sorted(found), sorted(both.split(", ")))
        cut = self.try_udp("registrar", register("null-", self.peer.host)).replies[0]
        self.assertEqual(header(cut, "Contact"), [])

    def test_escaped_route(self):
        """A Route in the URI of a contact is kept, and is no Route of requests to it (3.3.14)."""
        uri = "sip:user@example.com?Route=%3Csip:sip.example.com%3E"
        self.assertEqual(self.contacts("regescrt.dat", "user"), f"<{uri}>")
        message = options("sip:user@example.com", self.peer.host).replace(b"OPTIONS", b"MESSAGE")
        [relayed] = self.try_udp("registrar", message).relayed
        self.assertEqual(head_lines(relayed)[0], b"MESSAGE sip:user@example.com SIP/2.0")
        self.assertNotIn(b"Route", relayed)

    def test_length(self):
        """What goes on over TCP has a Content-Length, also if it came without (RFC 3261 18.3)."""
        self.peer.marker_uri = f"sip:by-tcp@{HOST}"
        for name in ("rfc4475/inv2543.dat", "rfc4475/wsinv.dat"):
            message = (TORTURE / name).read_bytes()
            message = re.sub(rb"sip:[^@]*@", b"sip:by-tcp@", message, count=1)
            [relayed] = self.try_udp("relay", message).relayed
            self.assertEqual(LENGTH.findall(relayed), [b"%d" % len(message.partition(b"\r\n\r\n")[2])])

    def test_answer_without_length(self):
        """A response that came over UDP without Content-Length has one over TCP."""
        self.peer.answers = lambda request: [usual_answer(request).replace(b"Content-Length: 0\r\n", b"") + b"four"]
        self.peer.marker_uri = f"sip:by-udp@{HOST}"
        request = options(self.peer.marker_uri, self.peer.host).replace(b"/UDP", b"/TCP")
        [reply] = self.peer.over_tcp(request, self.ports["relay"]).replies
        self.assertTrue(reply.endswith(b"\r\nContent-Length: 4\r\n\r\nfour"), reply)


def options(uri: str, host: str) -> bytes:
    """An OPTIONS of the peer at ``host``."""
    call = token_hex(8)
    return (
        f"OPTIONS {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {host};branch=z9hG4bK{call}\r\nFrom: <sip:peer@{host}>;tag=p\r\n"
        f"To: <sip:user@example.com>\r\nCall-ID: {call}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def register(user: str, host: str, headers: str = "") -> bytes:
    """A REGISTER; without ``headers`` it only asks."""
    text = options("sip:example.com", host).decode().replace("OPTIONS", "REGISTER")
    text = text.replace("<sip:user@", f"<sip:{user}@").replace("Max-Forwards", f"{headers}Max-Forwards")
    return text.encode()
