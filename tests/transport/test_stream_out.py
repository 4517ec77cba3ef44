"""TCP over the loopback interface: connections that are made and used again, and what becomes of requests when they end."""

import socket
from unittest import mock

from sipgw.proxy.forward import forward, return_response
from sipgw.transport.connection import WAITING, State
from sipgw.transport.stream import StreamSettings, StreamSocket
from tests.transport.rig import StreamCase, answer, request


def to(port, transport="tcp", host="127.0.0.1"):
    """A Request-URI."""
    return f"sip:x@{host}:{port};transport={transport}"


class RelayTests(StreamCase):
    """From one transport to another, and back."""

    def setUp(self):
        super().setUp()
        self.phone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.phone.bind((self.host, 0))
        self.phone.setblocking(False)
        self.addCleanup(self.phone.close)
        self.phone_port = self.phone.getsockname()[1]

    def datagram(self):
        """What has come to the phone."""
        try:
            return self.phone.recv(65536).decode()
        except BlockingIOError:
            return ""

    def test_tcp_to_tcp(self):
        """A request goes out over a connection of ours, and its response comes back where the request came from."""
        peer, listener = self.peer(), self.listener()
        peer.send(request("MESSAGE", to(listener.port)))
        far = listener.accept()
        [text] = far.receive()
        self.assertIn(f"\r\nVia: SIP/2.0/TCP 127.0.0.1:{self.tcp.port};branch=z9hG4bK", text)
        far.send(answer(text))
        self.assertEqual(peer.statuses(), ["200"])

    def test_udp_to_tcp(self):
        """A request that came over UDP leaves over TCP; the response comes back over UDP."""
        listener = self.listener()
        via = f"127.0.0.1:{self.phone_port}"
        self.phone.sendto(request("MESSAGE", to(listener.port), via=via, transport="UDP"), (self.host, self.udp.port))
        far = listener.accept()
        [text] = far.receive()
        self.assertIn(f"\r\nVia: SIP/2.0/TCP 127.0.0.1:{self.tcp.port};", text)
        far.send(answer(text))
        self.assertTrue(self.pump.until(self.datagram).startswith("SIP/2.0 200"))

    def test_tcp_to_udp(self):
        """A request that came over TCP leaves over UDP; the response comes back over TCP."""
        peer = self.peer()
        peer.send(request("MESSAGE", to(self.phone_port, "udp")))
        text = self.pump.until(self.datagram)
        self.assertIn(f"\r\nVia: SIP/2.0/UDP 127.0.0.1:{self.udp.port};", text)
        self.phone.sendto(answer(text), (self.host, self.udp.port))
        self.assertEqual(peer.statuses(), ["200"])

    def test_forced_socket(self):
        """A forced socket decides what the URI leaves open; where it is of another transport, the closest one of that is used."""
        second = self.stream("127.0.0.2")
        forced: list[object] = []

        async def route(run):
            run.send_socket = forced[0]
            await self.tm.t_relay(run)

        self.user.routes.request.function = route  # type: ignore[union-attr]
        listener = self.listener()
        peer = self.peer()
        uri = to(listener.port)
        expected = [(self.udp, uri, self.tcp), (second, uri, second), (second, uri.replace(";transport=tcp", ""), second)]
        for number, (wanted, target, used) in enumerate(expected):
            forced[:] = [wanted]
            peer.send(request("MESSAGE", target, branch=str(number)))
            far = listener.accept()
            self.assertIn(f"Via: SIP/2.0/TCP {used.host}:{used.port};", far.receive()[0], number)
            far.close()
            self.count(1)
            self.assertEqual(peer.statuses(), ["503"])
        self.udp.port = self.stream().port
        forced[:] = [self.udp]
        peer.send(request("MESSAGE", uri, branch="same"))
        self.assertIn(f"Via: SIP/2.0/TCP 127.0.0.1:{self.udp.port};", listener.accept().receive()[0])
        forced[:] = [second]
        peer.send(request("MESSAGE", to(self.phone_port, "udp"), branch="udp"))
        self.assertIn(f"Via: SIP/2.0/UDP 127.0.0.1:{self.udp.port};", self.pump.until(self.datagram))

    def test_no_such_transport(self):
        """Where there is no socket of a transport nothing is sent, and the script is told."""
        peer = self.peer()
        peer.send(request("MESSAGE", to(9, "tls")))
        self.assertEqual(peer.statuses(), ["500"])
        peer.send(request("MESSAGE", to(9, host="224.0.1.75"), branch="b"))
        self.assertEqual(peer.statuses(), ["477"])
        self.assertIn("it is a multicast address", self.lines[-1])

    def test_stateless(self):
        """Responses without a transaction find the connection that the request came on, over UDP and TCP."""

        async def route(run):
            await forward(run)

        self.user.routes.request.function = route  # type: ignore[union-attr]
        self.user.on_unmatched = lambda response, flow, run: return_response(self.user, response, flow, run)
        peer, listener = self.peer(), self.listener()
        peer.send(request("MESSAGE", to(listener.port)))
        far = listener.accept()
        [text] = far.receive()
        self.assertRegex(text, r"Via: SIP/2.0/TCP 127.0.0.1:\d+;branch=z9hG4bK00s[0-9a-f]+;i=\d+\r\n")
        far.send(answer(text))
        self.assertEqual(peer.statuses(), ["200"])
        peer.send(request("MESSAGE", to(self.phone_port, "udp"), branch="b"))
        text = self.pump.until(self.datagram)
        self.phone.sendto(answer(text), (self.host, self.udp.port))
        self.assertEqual(peer.statuses(), ["200"])
        return peer, far, text

    def test_stateless_without_connection(self):
        """Where that connection is gone, or is not the one of the Via, the address of the Via is used (RFC 3261 18.2.2)."""
        home = self.listener()
        peer, _far, text = self.test_stateless()
        text = text.replace("127.0.0.1:9", f"127.0.0.1:{home.port}")
        peer.reset()
        self.pump.until(lambda: self.user.connections.at(self.tcp, self.host, peer.port) is None)
        self.phone.sendto(answer(text), (self.host, self.udp.port))
        first = home.accept()
        self.assertEqual(first.statuses(), ["200"])
        for number in ("12345678901234", "x", "-1"):
            again = answer(text.replace(";i=", f";i={number};j="))
            self.phone.sendto(again, (self.host, self.udp.port))
            self.assertEqual(first.statuses(), ["200"])
        other = self.peer(source=("127.0.0.2", 0))
        self.pump.until(lambda: self.user.connections.of_host("127.0.0.2"))
        number = next(each.number for each in self.user.connections if each.host == "127.0.0.2")
        self.phone.sendto(answer(text.replace(";i=", f";i={number};j=")), (self.host, self.udp.port))
        self.assertEqual(first.statuses(), ["200"])
        other.look()
        self.assertEqual(other.buffer, b"")

    def test_stateless_nowhere(self):
        """A response whose next Via names a host, or a transport that we do not have, is dropped."""
        _peer, _far, text = self.test_stateless()
        dropped = self.user.drop_replies.value
        for bad in (text.replace("TCP 127.0.0.1:9", "TCP example.org"), text.replace("TCP 127.0.0.1:9", "TLS 127.0.0.1:9")):
            data = answer(bad.replace(";i=", ";j="))
            self.phone.sendto(data, (self.host, self.udp.port))
        self.pump.until(lambda: self.user.drop_replies.value == dropped + 2)


class ReuseTests(StreamCase):
    """One connection for many requests (RFC 3261 18)."""

    def test_ours(self):
        """Requests to one address go over one connection, those that come while it is being made too, in order."""
        peer, listener = self.peer(), self.listener()
        peer.send(b"".join(request("MESSAGE", to(listener.port), branch=str(number)) for number in range(40)))
        far = listener.accept()
        texts = far.receive(40)
        self.assertEqual([f"Call-ID: {number}@test" in text for number, text in enumerate(texts)], [True] * 40)
        far.send(b"".join(map(answer, texts)))
        self.assertEqual(peer.statuses(40), ["200"] * 40)
        self.assertIsNone(listener.waiting())
        self.assertEqual(len(self.user.connections), 2)

    def test_theirs(self):
        """A request to the address that a peer connected from goes over its connection."""
        peer, far = self.peers(2)
        far.send(b"\r\n\r\n")
        peer.send(request("MESSAGE", to(far.port)))
        [text] = far.receive()
        far.send(answer(text))
        self.assertEqual(peer.statuses(), ["200"])
        self.assertEqual(len(self.user.connections), 2)

    def test_of_its_own_socket(self):
        """A connection belongs to its socket: from another one a new connection is made, with that one's address."""
        listener = self.listener()
        second = self.stream("127.0.0.2")
        self.tcp.send(b"one", self.host, listener.port)
        second.send(b"two", self.host, listener.port)
        first, other = listener.accept(), listener.accept()
        self.assertEqual({first.socket.getpeername()[0], other.socket.getpeername()[0]}, {"127.0.0.1", "127.0.0.2"})

    def test_own_port(self):
        """With ``reuse_port`` a connection leaves from the port where we listen."""
        listener = self.listener()
        made = self.listen(StreamSocket(self.user, self.pump, "127.0.0.1", 0, reuse_port=True, settings=StreamSettings()))
        made.send(b"x", self.host, listener.port)
        self.assertEqual(listener.accept().port, made.port)
        self.tcp.send(b"x", self.host, listener.port)
        self.assertNotIn(listener.accept().port, (made.port, self.tcp.port))

    def test_closed_in_between(self):
        """A peer that ends an idle connection gets a new one with the next request."""
        peer, listener = self.peer(), self.listener()
        for branch in "abc":
            peer.send(request("MESSAGE", to(listener.port), branch=branch))
            far = listener.accept()
            far.send(answer(far.receive()[0]))
            self.assertEqual(peer.statuses(), ["200"])
            far.close()
            self.count(1)

    def test_unused(self):
        """A flow on which nothing is ever sent makes no connection, and its place in the table is free after a lifetime."""
        listener = self.listener()
        flow = self.tcp.flow(self.host, listener.port)
        self.assertFalse(flow.connected)
        self.assertIs(self.tcp.flow(self.host, listener.port).connection, flow.connection)
        self.assertEqual(flow.connection.fileno(), -1)
        self.pump.advance(120)
        self.assertEqual(len(self.user.connections), 0)
        self.pump.settle()
        self.assertIsNone(listener.waiting())

    def test_refused_addresses(self):
        """Nothing is sent where nothing may be; the log says so once a second."""
        for host, port in (
            ("255.255.255.255", 5060),
            ("224.0.1.75", 5060),
            ("0.0.0.0", 5060),
            ("localhost", 5060),
            ("::1", 5060),
            ("no:address", 5060),
            ("127.0.0.1", 0),
            ("127.0.0.1", 65536),
        ):
            flow = self.tcp.flow(host, port)
            self.assertTrue(flow.refused)
            self.tcp.send(b"x", host, port)
        self.assertEqual((len(self.lines), len(self.user.connections)), (1, 0))


class AliasTests(StreamCase):
    """RFC 5923."""

    def ask(self, server, params="", via="192.0.2.99:7000"):
        """A peer whose Via is ``via`` sends one request; the ports that its connection is known by."""
        peer = self.peer(server.port)
        peer.send(request(via=via, params=params))
        peer.receive()
        connection = self.user.connections.at(server, self.host, peer.port)
        return peer, connection.aliases

    def test_never(self):
        """By default nobody gets an alias by asking for it: it would let him take the calls of others (P10)."""
        self.assertEqual(self.ask(self.tcp, ";alias")[1], ())

    def test_asked(self):
        """With 1, who asks gets it, at the port of its Via or the usual one."""
        server = self.stream(accept_aliases=1)
        self.assertEqual(self.ask(server)[1], ())
        self.assertEqual(self.ask(server, ";alias")[1], (7000,))
        self.assertEqual(self.ask(server, ";alias", "192.0.2.99")[1], (5060,))

    def test_always(self):
        """With 2, everybody gets one."""
        server = self.stream(accept_aliases=2)
        self.assertEqual(self.ask(server)[1], (7000,))

    def test_unreadable(self):
        """A Via that cannot be read asks for nothing and is refused as ever."""
        server = self.stream(accept_aliases=2)
        peer = self.peer(server.port)
        peer.send(request().replace(b"SIP/2.0/TCP 127", b"SIP/2.0/TCP [127"))
        self.assertEqual(peer.statuses(), ["400"])

    def test_used(self):
        """Requests to the alias go over the connection, for as long as it is there."""
        server = self.stream(accept_aliases=1)
        far, _ = self.ask(server, ";alias")
        peer = self.peer(server.port)
        peer.send(request("MESSAGE", to(7000)))
        [text] = far.receive()
        self.assertIn(f"MESSAGE sip:x@127.0.0.1:7000;transport=tcp SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:{server.port};", text)
        far.send(answer(text))
        self.assertEqual(peer.statuses(), ["200"])
        far.close()
        self.count(1)
        self.assertIsNone(self.user.connections.at(server, self.host, 7000))

    def test_forced(self):
        """A flow can be given an alias whatever its peer says, if nobody else has it."""
        first, second = self.peers(2)
        for peer in (first, second):
            peer.send(request())
            peer.receive()
        self.assertTrue(self.runs[0].flow.alias(7000))
        self.assertFalse(self.runs[1].flow.alias(7000))
        self.assertIs(self.tcp.flow(self.host, 7000).connection, self.runs[0].flow.connection)


class FailureTests(StreamCase):
    """Connections that cannot be made, or end with requests on them."""

    def test_refused(self):
        """A peer that refuses to be connected to fails the request at once (RFC 3261 17.1.4, 16.9)."""
        peer, listener = self.peer(), self.listener()
        listener.close()
        peer.send(request("MESSAGE", to(listener.port)))
        self.assertEqual(peer.statuses(), ["503"])
        self.assertIn("cannot connect: Connection refused", self.lines[0])
        self.count(1)

    def test_connect_timeout(self):
        """A peer that does not answer is given up after ``tcp_connect_timeout``."""
        peer, listener = self.peer(), self.listener(backlog=0)
        waiting = [self.peer(listener.port) for _ in range(3)]
        peer.send(request("MESSAGE", to(listener.port)))
        self.pump.until(lambda: any(each.state == State.CONNECTING for each in self.user.connections))
        self.pump.advance(0.0625)
        self.assertEqual(len(self.user.connections), 2)
        self.pump.advance(0.0375)
        self.assertEqual(peer.statuses(), ["503"])
        self.assertIn("cannot connect within 0.1 s", self.lines[0])
        self.assertEqual(len(waiting), 3)

    def test_unreachable(self):
        """What the kernel refuses at once fails at once; a request that was already counted as failed is not sent again."""
        peer = self.peer()
        with mock.patch.object(self.tcp, "dial", side_effect=OSError(101, "Network is unreachable")) as dial:
            peer.send(request("MESSAGE", to(5060, host="192.0.2.1")))
            self.assertEqual(peer.statuses(), ["503"])
            self.assertEqual(dial.call_count, 1)
        self.assertIn("Network is unreachable", self.lines[0])

    def test_no_route(self):
        """So does what the kernel really refuses: from the loopback interface there is no way out."""
        peer = self.peer()
        peer.send(request("MESSAGE", to(5060, host="192.0.2.1")))
        self.assertEqual(peer.statuses(), ["503"])
        self.assertIn("cannot connect", self.lines[0])

    def test_refused_as_seen_by_writing(self):
        """A reactor that tells of a refusal as of a connection is understood too."""
        listener = self.listener()
        listener.close()
        flow = self.tcp.flow(self.host, listener.port)
        flow.send(b"x")
        flow.connection.doWrite()
        self.assertEqual(flow.connection.state, State.CLOSED)
        self.assertIn("cannot connect: Connection refused", self.lines[0])

    def test_response_nowhere(self):
        """A response that can go neither by its connection nor by its Via is lost, with a line in the log."""
        peer = self.peer()
        peer.send(request(via="127.0.0.1:0"))
        self.pump.until(lambda: self.runs or self.lines)
        peer.reset()
        self.count(0)
        with mock.patch.object(self.tcp, "dial", side_effect=OSError(101, "Network is unreachable")):
            self.runs[0].flow.send(answer(request().decode()))
        self.assertIn("cannot be reached", self.lines[-1])

    def test_queue(self):
        """What waits for a connection is bounded; beyond that everything on it fails."""
        listener = self.listener(backlog=0)
        waiting = [self.peer(listener.port) for _ in range(3)]
        flow = self.tcp.flow(self.host, listener.port)
        flow.send(b"x" * WAITING)
        self.assertEqual(flow.connection.state, State.CONNECTING)
        flow.send(b"x")
        self.assertEqual(flow.connection.state, State.CLOSED)
        self.assertEqual(len(waiting), 3)

    def test_ended_with_requests(self):
        """A connection that ends fails the requests on it that have no answer, and only those."""
        peer, first, second = self.peer(), self.listener(), self.listener()
        peer.send(request("MESSAGE", to(first.port), branch="a") + request("MESSAGE", to(first.port), branch="b"))
        peer.send(request("MESSAGE", to(second.port), branch="c"))
        one, two = first.accept(), second.accept()
        texts = one.receive(2)
        one.send(answer(texts[0]))
        one.close()
        self.assertEqual(peer.statuses(2), ["200", "503"])
        two.send(answer(two.receive()[0]))
        self.assertEqual(peer.statuses(), ["200"])

    def test_reset_with_requests(self):
        """So does one that is reset."""
        peer, listener = self.peer(), self.listener()
        peer.send(request("MESSAGE", to(listener.port)))
        far = listener.accept()
        far.receive()
        far.reset()
        self.assertEqual(peer.statuses(), ["503"])

    def test_ringing(self):
        """A call that rings goes on without its connection: the answer may come over another one, where its ACK goes too."""
        peer, listener = self.peer(), self.listener()
        peer.send(request("INVITE", to(listener.port)))
        far = listener.accept()
        [text] = far.receive()
        far.send(answer(text, 180))
        self.assertEqual(peer.statuses(2), ["100", "180"])
        far.close()
        self.count(1)
        again = self.peer()
        again.send(answer(text, 486))
        self.assertEqual(peer.statuses(), ["486"])
        self.assertEqual(listener.accept().statuses(), ["ACK"])

    def test_cancel(self):
        """The CANCEL of a call whose connection is gone goes over a new one to the same place."""
        peer, listener = self.peer(), self.listener()
        peer.send(request("INVITE", to(listener.port)))
        far = listener.accept()
        far.send(answer(far.receive()[0], 180))
        self.assertEqual(peer.statuses(2), ["100", "180"])
        far.close()
        self.count(1)
        peer.send(request("CANCEL", to(listener.port)))
        self.assertEqual(peer.statuses(), ["200"])
        self.assertEqual(listener.accept().statuses(), ["CANCEL"])

    def test_request_on_a_dead_flow(self):
        """A request on a flow whose connection has ended fails; it is not sent elsewhere, since nobody would hear the answer."""
        listener = self.listener()
        flow = self.tcp.flow(self.host, listener.port)
        flow.send(b"x")
        far = listener.accept()
        far.close()
        self.count(0)
        failed: list[object] = []
        with mock.patch.object(self.user, "flow_lost", failed.append), mock.patch.object(self.user.layer, "waits_on") as waits:
            waits.return_value = True
            flow.send(request("MESSAGE"))
            self.pump.advance(0)
        self.assertEqual(failed, [flow.id])
        self.pump.settle()
        self.assertIsNone(listener.waiting())

    def test_flow_lost_meets_a_bug(self):
        """A bug met by what hears of the loss is logged."""
        with mock.patch.object(self.user.layer, "flow_lost", side_effect=RuntimeError("a bug")):
            self.user.flow_lost(1)
        self.assertIn("a bug", self.lines[0])

    def test_unreadable_response(self):
        """A response that says nothing of where it goes is lost with its connection."""
        peer = self.peer()
        peer.send(request())
        peer.receive()
        peer.reset()
        self.count(0)
        self.runs[0].flow.send(b"SIP/2.0 200 OK\r\n\r\n")
        self.count(0)


class NoConnectionTests(StreamCase):
    """``tcp_no_new_conn_bflag`` and ``tcp_no_new_conn_rplflag``."""

    globals = {"tcp_no_new_conn_bflag": "NO_NEW", "tcp_no_new_conn_rplflag": "NO_NEW_REPLY"}

    async def route(self, run):
        """Every request has both flags."""
        run.branch_flags |= self.user.branch_flags.mask("NO_NEW")
        run.flags |= self.user.message_flags.mask("NO_NEW_REPLY")
        await super().route(run)

    def test_request(self):
        """A request with the branch flag goes over a connection that is there, and fails where there is none."""
        peer, listener = self.peer(), self.listener()
        peer.send(request("MESSAGE", to(listener.port)))
        self.assertEqual(peer.statuses(), ["477"])
        self.assertIsNone(listener.waiting())
        far = self.peer()
        far.send(b"\r\n\r\n")
        peer.send(request("MESSAGE", to(far.port), branch="b"))
        far.send(answer(far.receive()[0]))
        self.assertEqual(peer.statuses(), ["200"])

    def test_response(self):
        """The responses to a request with the message flag stay away where its connection is gone, relayed or our own."""
        home = self.listener()
        peer, far = self.peers(2)
        far.send(b"\r\n\r\n")
        peer.send(request("MESSAGE", to(far.port), via=f"127.0.0.1:{home.port}"))
        [text] = far.receive()
        peer.reset()
        self.count(1)
        far.send(answer(text))
        self.pump.until(lambda: any("nothing may be opened for a response" in line for line in self.lines))
        self.assertFalse(self.runs[0].flow.reconnects)
        run = self.runs[0]
        run.flow.reconnects = True
        self.user.reply(run, 200, "OK")
        self.pump.settle()
        self.assertFalse(run.flow.reconnects)
        self.assertIsNone(home.waiting())

    def test_transaction(self):
        """So do those that tm makes itself."""
        home = self.listener()
        peer = self.peer()

        async def route(run):
            self.runs.append(run)
            run.flags |= self.user.message_flags.mask("NO_NEW_REPLY")
            self.tm.t_newtran(run)
            self.transaction = run.transaction

        self.user.routes.request.function = route  # type: ignore[union-attr]
        peer.send(request("MESSAGE", to(9), via=f"127.0.0.1:{home.port}"))
        self.pump.until(lambda: self.runs)
        peer.reset()
        self.count(0)
        self.transaction.reply(self.runs[0], 404, "Not Found")
        self.pump.settle()
        self.assertIsNone(home.waiting())
        self.assertIn("nothing may be opened", self.lines[-1])
