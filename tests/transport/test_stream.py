"""TCP over the loopback interface: connections accepted, what comes on them, and how long that may take."""

import errno
import socket
from unittest import mock

from twisted.internet.interfaces import IReadDescriptor, IReadWriteDescriptor
from zope.interface.verify import verifyObject

from sipgw.sip.errors import MalformedMessage
from sipgw.testing import finished
from sipgw.transport import stream
from sipgw.transport.connection import ANSWER_TIME, LINGER, State
from sipgw.transport.stream import LEAST_BACKLOG, StreamSettings, StreamSocket
from tests.ears import Ears
from tests.transport.pump import more_descriptors
from tests.transport.rig import StreamCase, answer, request


class ReadTests(StreamCase):
    """How a peer may cut what it sends."""

    def test_whole(self):
        """A request that comes whole is answered on its connection, whatever its Via says, and has a flow back."""
        peer = self.peer()
        peer.send(request())
        self.assertEqual(peer.statuses(), ["200"])
        [run] = self.runs
        self.assertEqual((run.flow.transport, run.flow.host, run.flow.port), ("tcp", self.host, peer.port))
        self.assertTrue(run.flow.reliable)
        self.assertIs(run.flow.socket, self.tcp)
        self.assertEqual(run.flow.id, ("00", next(iter(self.user.connections)).number))
        self.assertIn(f":{peer.port} #", repr(run.flow))

    def test_disconnected(self):
        """Whoever has subscribed to E_CORE_TCP_DISCONNECT hears of a connection that ends, whoever ends it."""
        ears = Ears()
        self.user.events.join(self.user.events.publish("E_CORE_TCP_DISCONNECT"), "ear:a", finished(ears.open("a")))
        peers = [self.peer(), self.peer()]
        self.count(2)
        peers[0].close()
        self.count(1)
        next(iter(self.user.connections)).lost("")
        told = [
            {"src_ip": self.host, "src_port": peer.port, "dst_ip": self.host, "dst_port": self.tcp.port, "proto": "tcp"}
            for peer in peers
        ]
        self.assertEqual([params for _, _, params in ears.told], told)

    def test_bytes(self):
        """A peer that sends octet by octet is served (P16)."""
        peer = self.peer()
        for octet in request(extra="X: ä\r\n", body="body"):
            peer.send(bytes((octet,)))
        self.assertEqual(peer.statuses(), ["200"])
        self.assertEqual(self.runs[0].message.body, b"body")

    def test_every_offset(self):
        """A message may be cut in two anywhere."""
        data = request(body="12345")
        peer = self.peer()
        for offset in range(1, len(data)):
            peer.send(data[:offset])
            peer.send(data[offset:])
        self.assertEqual(peer.statuses(len(data) - 1), ["200"] * (len(data) - 1))

    def test_pipelined(self):
        """50 messages in one piece are all answered, in order."""
        peer = self.peer()
        peer.send(b"".join(request(branch=str(number), body="x" * number) for number in range(50)))
        answers = peer.receive(50)
        self.assertEqual([f"Call-ID: {number}@test" in text for number, text in enumerate(answers)], [True] * 50)

    def test_ping(self):
        """A ping is answered by a pong, also between messages; half a one only when its other half comes (RFC 5626 4.4.1)."""
        peer = self.peer()
        peer.send(b"\r\n\r\n" + request() + b"\r\n\r\n\r\n")
        self.pump.until(lambda: peer.has(lambda: len(peer.buffer) > 100))
        self.assertTrue(peer.buffer.startswith(b"\r\nSIP/2.0 200"))
        self.assertTrue(peer.buffer.endswith(b"\r\n\r\n\r\n"))
        peer.buffer = b""
        peer.send(b"\r\n")
        self.pump.until(lambda: peer.has(lambda: peer.buffer == b"\r\n"))

    def test_alive_after_malformed(self):
        """What is malformed but has an end is refused alone: the connection goes on."""
        peer = self.peer()
        peer.send(request().replace(b"CSeq: 1 OPTIONS", b"CSeq: 1 INVITE") + request(branch="b"))
        self.assertEqual(peer.statuses(2), ["400", "200"])
        self.assertEqual(peer.ended, "")

    def test_end_unknown(self):
        """Where a message ends is never guessed (P3): 400, the connection ends, and what follows is not looked at."""
        for lengths in (
            "Content-Length: 5\r\nContent-Length: 7\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: 1 1\r\n",
            "",
        ):
            peer = self.peer()
            bad = request().replace(b"Content-Length: 0\r\n", lengths.encode())
            peer.send(bad + b"OPTIONS " + request(branch="smuggled"))
            self.assertEqual(peer.statuses(), ["400"], lengths)
            self.assertEqual(peer.end(), "FIN")
            peer.close()
        self.count(0)
        self.assertEqual(self.runs, [])

    def test_too_large(self):
        """A message that says that it is too large is refused before its body comes; a head without end is cut off."""
        peer = self.peer()
        peer.send(request().replace(b"Content-Length: 0", b"Content-Length: 1000000000") + b"x" * 1000)
        self.assertEqual(peer.statuses(), ["513"])
        self.assertEqual(peer.end(), "FIN")
        peer = self.peer()
        peer.send(b"OPTIONS sip:x SIP/2.0\r\nX: " + b"x" * 70_000)
        self.assertEqual(peer.end(), "FIN")

    def test_last_words(self):
        """Who goes on sending after a fault can still read the answer; then the connection is cut."""
        peer = self.peer()
        peer.send(request().replace(b"Content-Length: 0\r\n", b"") + b"x" * 5000)
        peer.send(b"x" * 5000)
        self.assertEqual((peer.statuses(), peer.end()), (["400"], "FIN"))
        self.pump.advance(LINGER)
        self.assertEqual(len(self.user.connections), 0)

    def test_bug(self):
        """A bug met by one connection ends it with a traceback in the log; others are served."""
        peer, other = self.peers(2)
        peer.send(b"OPTIONS")
        with mock.patch("sipgw.transport.connection.Framer.feed", side_effect=RuntimeError("a bug")):
            peer.send(b" ")
            self.assertEqual(peer.end(), "FIN")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        other.send(request())
        self.assertEqual(other.statuses(), ["200"])

    def test_refuse_never_raises(self):
        """A message whose refusal meets a bug is no more than a line in the log."""
        with mock.patch.object(self.user, "_malformed", side_effect=RuntimeError("a bug")):
            self.user.refuse(MalformedMessage("x"), None)  # type: ignore[arg-type]
        self.assertIn("a bug", self.lines[0])


class Ipv6Tests(StreamCase):
    """The same over IPv6."""

    host = "::1"

    def test_whole(self):
        """Requests are answered, and relayed over the one connection however the address is written."""
        peer, other = self.peers(2)
        peer.send(request(via="[::1]:9"))
        self.assertEqual(peer.statuses(), ["200"])
        other.send(request("MESSAGE", f"sip:x@[0:0:0:0:0:0:0:1]:{peer.port};transport=tcp", via="[::1]:8"))
        [text] = peer.receive()
        self.assertIn(f"Via: SIP/2.0/TCP [::1]:{self.tcp.port};branch=", text)
        peer.send(answer(text))
        self.assertEqual(other.statuses(), ["200"])
        self.assertEqual(str(self.tcp), f"tcp:[::1]:{self.tcp.port}")
        self.assertIn("cannot be reached", self.tcp.flow("127.0.0.1", 5060).refused)


class PingSettingsTests(StreamCase):
    """``tcp_crlf_pingpong`` and ``tcp_crlf_drop``."""

    def test_no_pong(self):
        """Pings are not answered where that is switched off."""
        server = self.stream(pong=False)
        peer = self.peer(server.port)
        peer.send(b"\r\n\r\n" + request())
        self.pump.until(lambda: peer.has(lambda: peer.buffer))
        self.assertTrue(peer.buffer.startswith(b"SIP/2.0"))

    def test_drop(self):
        """A CRLF that comes alone is not half a ping where it is to be dropped; both together still are one."""
        server = self.stream(drop_crlf=True)
        peer = self.peer(server.port)
        for _ in range(3):
            peer.send(b"\r\n")
            self.pump.settle()
        peer.look()
        self.assertEqual(peer.buffer, b"")
        peer.send(b"\r\n\r\n")
        self.pump.until(lambda: peer.has(lambda: peer.buffer == b"\r\n"))


class TimeTests(StreamCase):
    """How long a peer may take (P15)."""

    def test_first_byte(self):
        """Who says nothing is cut off after 10 s; who has said something, if only a CRLF, is not."""
        silent, other = self.peers(2)
        self.count(2)
        other.send(b"\r\n")
        self.pump.settle()
        self.pump.advance(9.5)
        self.assertEqual(len(self.user.connections), 2)
        self.pump.advance(0.5)
        self.assertEqual(silent.end(), "FIN")
        self.assertEqual(len(self.user.connections), 1)
        self.assertIn("said nothing for 10 s", self.lines[0])

    def test_message(self):
        """A message must end 4 s after it began, however often a piece of it comes."""
        peer = self.peer()
        peer.send(request())
        self.assertEqual(peer.statuses(), ["200"])
        self.pump.advance(60)
        for octet in request()[:4]:
            peer.send(bytes((octet,)))
            self.pump.advance(0.875)
        self.assertEqual(len(self.user.connections), 1)
        self.pump.advance(0.5)
        self.assertEqual(peer.end(), "FIN")
        self.assertIn("a message did not end within 4 s", self.lines[0])

    def test_each_message_has_its_time(self):
        """The time of a message begins with its own first octet, even if that came with the end of another."""
        peer = self.peer()
        data = request()
        peer.send(data[:10])
        for _ in range(5):
            self.pump.advance(3)
            peer.send(data[10:] + data[:10])
        self.assertEqual(peer.statuses(5), ["200"] * 5)

    def test_idle(self):
        """A connection without traffic ends after its lifetime, within an eighth of it; a ping is traffic."""
        peer, pinging = self.peers(2)
        for each in (peer, pinging):
            each.send(request())
            self.assertEqual(each.statuses(), ["200"])
        for _ in range(8):
            self.pump.advance(14.9)
            pinging.send(b"\r\n\r\n")
        self.assertEqual(len(self.user.connections), 2)
        self.pump.advance(0.8)
        self.assertEqual(peer.end(), "FIN")
        self.assertEqual(len(self.user.connections), 1)
        for _ in range(8):
            self.assertEqual(len(self.user.connections), 1)
            self.pump.advance(15)
        self.pump.advance(15)
        self.assertEqual(pinging.end(), "FIN")
        self.assertEqual(self.lines, [])

    def test_kept(self):
        """A flow may be kept for longer than the lifetime, as for a registration."""
        peer = self.peer()
        peer.send(request())
        self.assertEqual(peer.statuses(), ["200"])
        self.runs[0].flow.keep(3600)
        self.runs[0].flow.keep(5)
        for _ in range(59):
            self.pump.advance(60)
        self.assertEqual(len(self.user.connections), 1)
        for _ in range(4):
            self.pump.advance(60)
        self.assertEqual(len(self.user.connections), 0)

    def test_idle_with_a_request_under_way(self):
        """A connection on which an answer is awaited is not closed for being idle."""
        peer, far = self.peers(2)
        peer.send(b"\r\n\r\n")
        far.send(b"\r\n\r\n")
        self.count(2)
        self.tm.fr_timeout = 3000
        peer.send(request("MESSAGE", f"sip:x@127.0.0.1:{far.port};transport=tcp"))
        far.receive()
        for _ in range(20):
            self.pump.advance(15)
        self.assertEqual([each.port for each in self.user.connections], [far.port])
        self.assertEqual(far.ended, "")

    def test_no_lifetime(self):
        """A lifetime of one second ends soon after the answer."""
        server = self.stream(lifetime=1.0)
        peer = self.peer(server.port)
        peer.send(request())
        self.assertEqual(peer.statuses(), ["200"])
        self.pump.advance(1)
        self.assertEqual(peer.end(), "FIN")


class EndTests(StreamCase):
    """How a peer goes."""

    def test_half_close(self):
        """Who ends only its own direction gets all its answers, then the end."""
        peer = self.peer()
        peer.socket.send(b"".join(request(branch=str(number)) for number in range(3)))
        peer.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(peer.statuses(3), ["200"] * 3)
        self.assertEqual(peer.end(), "FIN")
        self.count(0)

    def test_half_close_late(self):
        """An answer that takes its time still reaches who has ended its own direction."""
        peer, far = self.peers(2)
        far.send(b"\r\n\r\n")
        peer.send(request("MESSAGE", f"sip:x@127.0.0.1:{far.port};transport=tcp"))
        peer.socket.shutdown(socket.SHUT_WR)
        [text] = far.receive()
        self.half_closed()
        self.pump.advance(20)
        self.assertEqual(len(self.user.connections), 2)
        self.assertIsNone(self.user.connections.at(self.tcp, self.host, peer.port))
        far.send(answer(text, 180))
        self.pump.settle()
        self.assertEqual(len(self.user.connections), 2)
        far.send(answer(text))
        self.assertEqual((peer.statuses(2), peer.end()), (["180", "200"], "FIN"))
        self.count(1)

    def half_closed(self):
        """Wait until a connection is half-closed, and return it."""
        return self.pump.until(lambda: next((each for each in self.user.connections if each.half_closed), None))

    def test_half_close_slow(self):
        """An answer that waits for a peer which has ended its direction goes out before the end."""
        peer = self.peer()
        self.count(1)
        [connection] = self.user.connections
        real = connection._send

        def full(data):
            raise BlockingIOError

        connection._send = full
        peer.send(request())
        peer.socket.shutdown(socket.SHUT_WR)
        self.assertIs(self.half_closed(), connection)
        self.assertEqual(connection.unanswered, 0)
        connection._send = real
        self.assertEqual((peer.statuses(), peer.end()), (["200"], "FIN"))
        self.count(0)

    def test_half_close_and_closed(self):
        """A half-closed connection that we close has ended."""
        peer, far = self.peers(2)
        far.send(b"\r\n\r\n")
        peer.send(request("MESSAGE", f"sip:x@127.0.0.1:{far.port};transport=tcp"))
        peer.socket.shutdown(socket.SHUT_WR)
        self.half_closed().close()
        self.assertEqual(peer.end(), "FIN")
        self.count(1)

    def test_half_close_unanswered(self):
        """Nobody waits for answers for ever."""

        async def silent(run):
            self.runs.append(run)

        self.user.routes.request.function = silent  # type: ignore[union-attr]
        peer = self.peer()
        peer.send(request())
        peer.socket.shutdown(socket.SHUT_WR)
        self.half_closed()
        self.pump.advance(ANSWER_TIME - 0.1)
        self.assertEqual(len(self.user.connections), 1)
        self.pump.advance(0.1)
        self.assertEqual(peer.end(), "FIN")
        self.assertEqual(self.lines, [])

    def test_half_close_mid_message(self):
        """A message cut short by the end of the stream is forgotten with it."""
        peer = self.peer()
        peer.send(request()[:50])
        self.count(1)
        peer.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(peer.end(), "FIN")
        self.count(0)

    def test_reset(self):
        """A reset is one line in the log, or none, and the connection is forgotten."""
        peer, other = self.peers(2)
        peer.send(request()[:50])
        self.count(2)
        peer.reset()
        self.count(1)
        self.assertIn("reset", self.lines[0])
        other.send(request())
        self.assertEqual(other.statuses(), ["200"])

    def test_answer_to_a_reset_connection(self):
        """A response whose connection is gone goes to the source of the request, at the port of its Via (RFC 3261 18.2.2)."""
        home = self.listener()
        peer, far = self.peers(2)
        far.send(b"\r\n\r\n")
        peer.send(request("MESSAGE", f"sip:x@127.0.0.1:{far.port};transport=tcp", via=f"192.0.2.77:{home.port}"))
        [text] = far.receive()
        peer.reset()
        self.count(1)
        far.send(answer(text))
        self.assertEqual(home.accept().statuses(), ["200"])

    def test_answer_to_nobody(self):
        """A response that cannot be brought by either way is lost, with a line in the log."""
        home = self.listener()
        home.close()
        peer, far = self.peers(2)
        far.send(b"\r\n\r\n")
        peer.send(request("MESSAGE", f"sip:x@127.0.0.1:{far.port};transport=tcp", via=f"192.0.2.77:{home.port}"))
        [text] = far.receive()
        peer.reset()
        self.count(1)
        far.send(answer(text))
        self.pump.until(lambda: any("cannot connect" in line for line in self.lines))
        self.count(1)

    def test_closed_by_us(self):
        """``close`` ends in order: what is to be sent comes first, what comes later is not looked at."""
        peer = self.peer()
        peer.send(request())
        peer.receive()
        [connection] = self.user.connections
        connection.send(b"SIP/2.0 100 Trying\r\n\r\n")
        connection.close()
        connection.close()
        peer.send(request(branch="late"))
        self.assertEqual((peer.statuses(), peer.end()), (["100"], "FIN"))
        self.assertEqual(len(self.runs), 1)
        self.assertIsNone(self.user.connections.at(self.tcp, self.host, peer.port))
        peer.close()
        self.count(0)

    def test_closed_after_reset(self):
        """A connection that the peer has reset already ends when we close it."""
        peer = self.peer()
        peer.send(request())
        peer.receive()
        [connection] = self.user.connections
        peer.reset()
        connection.close()
        self.assertEqual(connection.state, State.CLOSED)
        connection.lost("again")
        self.assertEqual(self.lines, [])

    def test_woken_for_nothing(self):
        """A wake-up without anything to read does no harm."""
        peer = self.peer()
        self.count(1)
        [connection] = self.user.connections
        connection.doRead()
        self.tcp.doRead()
        peer.send(request())
        self.assertEqual(peer.statuses(), ["200"])

    def test_never_gone(self):
        """A peer that does not end its direction after we ended ours is cut off."""
        peer = self.peer()
        peer.send(request())
        peer.receive()
        next(iter(self.user.connections)).close()
        self.pump.advance(LINGER)
        self.assertEqual(len(self.user.connections), 0)

    def test_stop(self):
        """``stop`` ends the connections of its own socket and no others."""
        second = self.stream()
        peer, other = self.peer(), self.peer(second.port)
        self.count(2)
        second.stop()
        second.stop()
        self.assertEqual(other.end(), "FIN")
        peer.send(request())
        self.assertEqual(peer.statuses(), ["200"])
        self.assertEqual(second.fileno(), -1)
        self.assertIn("is closed", second.flow("127.0.0.1", 5060).refused)


class CrowdTests(StreamCase):
    """Too many peers."""

    def test_thousand_stalled(self):
        """1000 peers that stop in the middle of a message delay nobody: a new one is answered as soon as it asks."""
        more_descriptors(self, 3000)
        server = self.stream(most_of_host=0)
        crowd = self.peers(1000, port=server.port)
        for peer in crowd:
            peer.socket.send(request()[:100])
        self.count(1000)
        self.pump.until(lambda: not any(each.framer.empty for each in self.user.connections))
        peer = self.peer(server.port)
        peer.send(request())
        self.assertEqual(peer.statuses(), ["200"])
        self.pump.advance(4)
        self.count(1)
        self.assertLess(len(self.lines), 5)

    def test_of_one_host(self):
        """One address gets so many connections and no more; when one ends there is room again."""
        server = self.stream(most_of_host=2)
        first, second, third = self.peers(3, port=server.port)
        self.assertEqual(third.end(), "FIN")
        other = self.peer(server.port, source=("127.0.0.2", 0))
        for peer in (first, second, other):
            peer.send(request())
            self.assertEqual(peer.statuses(), ["200"])
        self.assertIn("127.0.0.1 has 2 connections already", self.lines[0])
        self.assertEqual(server.turned_away, 1)
        first.close()
        self.count(2)
        again = self.peer(server.port)
        again.send(request())
        self.assertEqual(again.statuses(), ["200"])

    def test_defaults(self):
        """The bounds are those that sipgw promises."""
        settings = StreamSettings()
        self.assertEqual((settings.most, settings.most_of_host, settings.first_byte, settings.message_time), (2048, 64, 10, 4))

    def test_in_all(self):
        """All sockets together accept so many connections; those that we open ourselves do not count."""
        server = self.stream(most=1)
        listener = self.listener()
        server.send(request(), self.host, listener.port)
        listener.accept()
        first = self.peer(server.port)
        first.send(request())
        self.assertEqual(first.statuses(), ["200"])
        self.assertEqual(self.peer(server.port).end(), "FIN")
        self.assertIn("there are 1 connections already", self.lines[0])

    def test_descriptors(self):
        """Without descriptors nobody is accepted and nobody turned away; once there are some, all are served (F11)."""
        full = OSError(errno.EMFILE, "Too many open files")
        server = self.stream()
        real = server._socket
        with mock.patch.object(stream, "_most_descriptors", lambda: 1), mock.patch.object(server, "_socket") as ours:
            ours.fileno = real.fileno
            ours.accept.side_effect = full
            peer = self.peer(server.port)
            self.pump.until(lambda: ours.accept.called)
            for _ in range(6):
                self.pump.advance(1)
            with mock.patch("os.open", side_effect=full):
                for _ in range(5):
                    self.pump.advance(1)
            self.assertEqual(ours.accept.call_count, 1)
            self.assertNotIn(server, self.pump.getReaders())
        self.assertEqual([line for line in self.lines if "descriptors" in line], self.lines)
        self.assertEqual(len(self.lines), 2)
        self.pump.advance(1)
        peer.send(request())
        self.assertEqual(peer.statuses(), ["200"])
        server._pause()
        server.stop()
        self.pump.advance(1)

    def test_reserve(self):
        """The last descriptors are left to others: accepting pauses, and connections of our own are refused."""
        server = self.stream()
        with mock.patch.object(stream, "_most_descriptors", lambda: 20):
            first = self.peer(server.port)
            self.count(1)
            second = self.peer(server.port)
            self.pump.settle()
            self.assertEqual(len(self.user.connections), 1)
            first.send(request())
            self.assertEqual(first.statuses(), ["200"])
            first.send(request("MESSAGE", "sip:x@127.0.0.1:9;transport=tcp", branch="b"))
            self.assertEqual(first.statuses(), ["503"])
            self.assertTrue(any("Too many open files" in line for line in self.lines))
        self.pump.advance(1)
        second.send(request())
        self.assertEqual(second.statuses(), ["200"])

    def test_accept_fails(self):
        """A connection that ended while it waited to be accepted is passed over; others are accepted."""
        real = self.tcp._socket
        with mock.patch.object(self.tcp, "_socket") as ours:
            ours.fileno = real.fileno
            ours.accept.side_effect = [OSError(errno.ECONNABORTED, "gone"), BlockingIOError()]
            self.tcp.doRead()
            self.assertEqual(ours.accept.call_count, 2)
        peer = self.peer()
        peer.send(request())
        self.assertEqual(peer.statuses(), ["200"])

    def test_error_on_the_listening_socket(self):
        """An error that the reactor saw on the listening socket does not end it."""
        self.pump.removeReader(self.tcp)
        self.tcp.connectionLost(None)
        self.pump.advance(1)
        peer = self.peer()
        peer.send(request())
        self.assertEqual(peer.statuses(), ["200"])


class StallTests(StreamCase):
    """A peer that does not read."""

    def setUp(self):
        super().setUp()
        self.server = self.stream(most_waiting=5, send_timeout=3.0)
        self.near = self.peer(self.server.port)
        self.near.send(request())
        self.near.receive()
        [self.connection] = self.user.connections
        self.real = self.connection._send

    def refuse(self, data):
        """What a full buffer of the kernel does."""
        raise BlockingIOError

    def test_waits(self):
        """What the kernel does not take at once, or takes in part, goes out in order when there is room."""
        self.connection._send = lambda data: self.real(data[:7])
        for number in range(5):
            self.near.send(request(branch=str(number)))
        texts = self.near.receive(5)
        self.assertEqual([f"Call-ID: {number}@test" in text for number, text in enumerate(texts)], [True] * 5)
        self.pump.until(lambda: self.server not in self.pump._epoll.getWriters())
        self.pump.advance(60)
        self.assertEqual(len(self.user.connections), 1)

    def test_too_many(self):
        """More than so many waiting messages end the connection."""
        self.connection._send = self.refuse
        for number in range(6):
            self.assertEqual(self.connection.state, State.OPEN)
            self.near.send(request(branch=str(number)))
            self.pump.until(lambda number=number: len(self.runs) == number + 2)
        self.assertEqual(self.connection.state, State.CLOSED)
        self.assertIn("6 messages wait", self.lines[0])

    def test_too_long(self):
        """A peer that takes nothing for the time to send ends; one that takes a little does not."""
        self.connection._send = self.refuse
        self.near.send(request())
        self.pump.until(lambda: len(self.runs) == 2)
        self.pump.advance(2.5)
        self.connection._send = lambda data: self.real(data[:1])
        self.connection.doWrite()
        self.connection._send = self.refuse
        self.pump.advance(2.5)
        self.assertEqual(self.connection.state, State.OPEN)
        self.pump.advance(0.5)
        self.assertEqual(self.connection.state, State.CLOSED)
        self.assertIn("took nothing for 3 s", self.lines[0])

    def test_close_waits(self):
        """What waits goes out before a connection that we close ends."""
        self.connection._send = self.refuse
        self.near.send(request())
        self.pump.until(lambda: len(self.runs) == 2)
        self.connection.close()
        self.connection._send = self.real
        self.assertEqual((self.near.statuses(), self.near.end()), (["200"], "FIN"))

    def test_error(self):
        """An error of sending ends the connection; the response is brought another way."""
        home = self.listener()

        def broken(data):
            raise OSError(errno.EPIPE, "Broken pipe")

        self.connection._send = broken
        self.near.send(request(via=f"127.0.0.1:{home.port}"))
        self.assertEqual(home.accept().statuses(), ["200"])
        self.assertIn("Broken pipe", self.lines[0])

    def test_error_later(self):
        """An error of sending what has waited ends the connection too."""
        self.connection._send = self.refuse
        self.near.send(request())
        self.pump.until(lambda: len(self.runs) == 2)

        def broken(data):
            raise OSError(errno.ECONNRESET, "reset by peer")

        self.connection._send = broken
        self.connection.doWrite()
        self.assertEqual(self.connection.state, State.CLOSED)
        self.assertIn("reset by peer", self.lines[0])


class OpenTests(StreamCase):
    """Binding, and the options of the descriptors."""

    def made(self, host="127.0.0.1", port=0, **options):
        """A socket of ours, opened."""
        made = StreamSocket(self.user, self.pump, host, port, **options)
        self.addCleanup(made.stop)
        made.open()
        return made

    def test_interfaces(self):
        """The socket and its connections are what a reactor wants."""
        verifyObject(IReadDescriptor, self.tcp)
        self.peer()
        self.count(1)
        [connection] = self.user.connections
        verifyObject(IReadWriteDescriptor, connection)
        self.assertEqual(connection.logPrefix(), str(connection))
        self.assertEqual(self.tcp.logPrefix(), f"tcp:127.0.0.1:{self.tcp.port}")

    def test_in_use(self):
        """A port that somebody has is refused by ``open``; with ``reuse_port`` on both it is shared."""
        first = self.made(reuse_port=True)
        error = self.assertRaises(OSError, self.made, port=first.port)
        self.assertEqual(error.errno, errno.EADDRINUSE)
        self.made(port=first.port, reuse_port=True)

    def test_backlog(self):
        """A queue shorter than 512 is not used; a longer one is."""
        for wanted, used in ((10, LEAST_BACKLOG), (600, 600)):
            server = self.made(settings=StreamSettings(backlog=wanted))
            # Linux tells the length of the queue in tcpi_sacked of a listening socket
            info = server._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            self.assertEqual(int.from_bytes(info[28:32], "little"), used)

    def test_options(self):
        """Connections in both directions have keep-alive, type of service and no delay."""
        settings = StreamSettings(keepalive=False, keepalive_count=3, keepalive_idle=30, keepalive_interval=7)
        for host, level, option in (
            ("127.0.0.1", socket.IPPROTO_IP, socket.IP_TOS),
            ("::1", socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
        ):
            server = self.made(host, settings=settings, tos=16, tag="t", advertised_host="a", advertised_port=7)
            self.assertEqual((server.tag, server.advertised_host, server.advertised_port), ("t", "a", 7))
            server.start()
            listener = socket.create_server((host, 0), family=server.family)
            self.addCleanup(listener.close)
            server.send(b"x", host, listener.getsockname()[1])
            client = socket.create_connection((host, server.port))
            self.addCleanup(client.close)
            self.pump.until(lambda: sum(each.state == State.OPEN for each in self.user.connections) == 2)
            for connection in self.user.connections:
                get = connection._socket.getsockopt
                self.assertEqual(get(level, option), 16, (host, connection.accepted))
                self.assertEqual(get(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
                self.assertEqual(get(socket.IPPROTO_TCP, socket.TCP_KEEPCNT), 3)
                self.assertEqual(get(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 30)
                self.assertEqual(get(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL), 7)
                self.assertEqual(get(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
                connection.lost("")

    def test_impossible_option(self):
        """An option that the kernel refuses is refused by ``open``."""
        self.assertRaises(OSError, self.made, settings=StreamSettings(keepalive_idle=10**6))

    def test_no_keepalive(self):
        """Keep-alive of the kernel can be off."""
        server = self.made(settings=StreamSettings(keepalive=False))
        self.assertEqual(server._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 0)
        server = self.made()
        self.assertEqual(server._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
