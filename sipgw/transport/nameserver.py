"""One question to one name server (RFC 1035 4.2): by UDP, and by TCP where the answer does not fit into a datagram.

``twisted.names`` reads and writes the messages; the socket is our own, because that of ``twisted.names`` logs two lines for each
question. Ours is connected, so that the kernel lets only the server's datagrams in and tells at once when nobody listens there;
its port and the id of the question are random, and an answer that is to another question is not taken (RFC 5452 9)."""

from __future__ import annotations

import os
import socket
from secrets import randbelow
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from sipgw.sip.target import Naptr, Record, Srv

MAX_RECORDS: Final = 100
"""How many records of one answer are looked at."""

TYPES: Final = {"A": dns.A, "AAAA": dns.AAAA, "SRV": dns.SRV, "NAPTR": dns.NAPTR}

Server = tuple[str, int]


class NoAnswer(Exception):
    """A server cannot be reached, does not answer in time, or breaks off."""


class Answer:
    """What a server says. ``records``: of the answer section; ``ttl``: seconds for which they, or their absence, hold.

    ``code``: of the response, 0 fine, 3 no such name, others a fault of the server; ``cut``: it did not fit into a datagram."""

    __slots__ = ("code", "cut", "records", "ttl")

    def __init__(self, message: dns.Message) -> None:
        self.code: int = message.rCode
        self.cut = bool(message.trunc)
        self.records: list[Record] = []
        self.ttl: int | None = None
        for header in message.answers[:MAX_RECORDS]:
            record = _record(header)
            if record is not None:
                self.records.append(record)
                self.ttl = header.ttl if self.ttl is None else min(self.ttl, header.ttl)
        if not self.records:
            for header in message.authority[:MAX_RECORDS]:
                if isinstance(header.payload, dns.Record_SOA):  # RFC 2308 5
                    self.ttl = min(header.ttl, header.payload.minimum)


def _record(header: Any) -> Record | None:
    """One resource record as ``sip.target`` wants it; None if it is of a kind that is not asked for."""
    payload = header.payload
    name = _text(header.name.name)
    kind = header.type
    if kind == dns.A:
        return Record(name, "A", socket.inet_ntop(socket.AF_INET, payload.address))
    if kind == dns.AAAA:
        return Record(name, "AAAA", socket.inet_ntop(socket.AF_INET6, payload.address))
    if kind == dns.CNAME:
        return Record(name, "CNAME", _text(payload.name.name))
    if kind == dns.SRV:
        return Record(name, "SRV", Srv(payload.priority, payload.weight, payload.port, _text(payload.target.name)))
    if kind == dns.NAPTR:
        flags, service = _text(payload.flags.string), _text(payload.service.string)
        return Record(
            name, "NAPTR", Naptr(payload.order, payload.preference, flags, service, _text(payload.replacement.name))
        )
    return None


def _text(data: bytes) -> str:
    return data.decode("ascii", "backslashreplace")


def read_answer(data: bytes, number: int, query: dns.Query) -> Answer | None:
    """Read what a server sent in answer to ``query``, the question with the id ``number``; None if it is none."""
    message = dns.Message()
    if len(data) >= 12 and data[2] & 2:  # cut, perhaps in the midst of a record: only the question is looked at
        data = data[:6] + bytes(6) + data[12:]
    try:
        message.fromStr(data)
        if message.id != number or not message.answer or len(message.queries) != 1:
            return None
        asked = message.queries[0]
        if asked.type != query.type or asked.cls != query.cls or asked.name != query.name:
            return None
        return Answer(message)
    except Exception:  # EOFError, ValueError and what else octets from a stranger may bring about in twisted.names
        return None


@implementer(IReadDescriptor)
class Inquiry:
    """Asks ``server`` for the records of ``kind`` of ``name``; ``answer`` fires with an ``Answer`` or fails with ``NoAnswer``.

    ``seconds``: for all of it."""

    def __init__(self, reactor: Any, server: Server, kind: str, name: str, seconds: float) -> None:
        self._reactor = reactor
        self._server = server
        self._query = dns.Query(name.encode("ascii"), TYPES[kind], dns.IN)
        self._until = reactor.seconds() + seconds
        self._id = randbelow(65536)
        message = dns.Message(self._id, recDes=1)
        message.queries = [self._query]
        self.question: bytes = message.toStr()
        self._connector: Any = None
        self.answer: Deferred[Answer] = Deferred()
        self._timer = reactor.callLater(seconds, self._fail, "does not answer")
        self._socket: socket.socket | None = None
        try:
            self._open()
        except OSError as error:
            self._fail(f"cannot be asked: {error.strerror or error}")

    def _open(self) -> None:
        family, _, _, _, address = socket.getaddrinfo(*self._server, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
        made = self._socket = socket.socket(family, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.connect(address)
        made.send(self.question)
        self._reactor.addReader(self)

    def fileno(self) -> int:
        """The descriptor, -1 when closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """The name in Twisted's own log lines."""
        return f"name server {self._server[0]}"

    def doRead(self) -> None:
        """Take what has arrived; what is no answer to the question is as if it had not come."""
        if self._socket is None:
            return
        try:
            data = self._socket.recv(65535)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(f"cannot be asked: {error.strerror or error}")
            return
        answer = read_answer(data, self._id, self._query)
        if answer is not None and answer.cut:
            self._ask_again()
        elif answer is not None:
            self._succeed(answer)

    def connectionLost(self, reason: Any) -> None:
        """Take it that no answer will come: what the kernel says of the socket, or the end of the connection."""
        error = 0 if self._socket is None else self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._fail(f"cannot be asked: {os.strerror(error)}" if error else "broke off")

    def _ask_again(self) -> None:
        """Ask by TCP: the answer was too long for a datagram."""
        self._close_socket()
        left = max(0.1, self._until - self._reactor.seconds())
        self._connector = self._reactor.connectTCP(*self._server, _Caller(self), timeout=left)

    def answered_by_tcp(self, data: bytes) -> None:
        """Take what the server says over TCP."""
        answer = read_answer(data, self._id, self._query)
        if answer is None:
            self._fail("answers another question")
        else:
            self._succeed(answer)

    def cancel(self) -> None:
        """Give up."""
        self._fail("is not waited for")

    def _succeed(self, answer: Answer) -> None:
        self._end()
        if not self.answer.called:
            self.answer.callback(answer)

    def _fail(self, why: str) -> None:
        self._end()
        if not self.answer.called:
            self.answer.errback(NoAnswer(f"name server {self._server[0]} {why}"))

    def _end(self) -> None:
        self._close_socket()
        if self._timer.active():
            self._timer.cancel()
        if self._connector is not None:
            connector, self._connector = self._connector, None
            connector.disconnect()

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None


class _Conversation(Int16StringReceiver):
    """The question over TCP: both it and the answer after their lengths (RFC 1035 4.2.2)."""

    noisy = False

    def __init__(self, inquiry: Inquiry) -> None:
        self._inquiry = inquiry

    def connectionMade(self) -> None:
        """Ask."""
        self.sendString(self._inquiry.question)  # type: ignore[no-untyped-call]

    def stringReceived(self, data: bytes) -> None:
        """Take the answer."""
        self._inquiry.answered_by_tcp(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take it that there will be none."""
        self._inquiry.connectionLost(reason)


class _Caller(ClientFactory):
    """Connects to the server."""

    noisy = False

    def __init__(self, inquiry: Inquiry) -> None:
        self._inquiry = inquiry

    def buildProtocol(self, address: Any) -> _Conversation:
        """Speak with the server that has been reached."""
        return _Conversation(self._inquiry)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """Take it that it cannot be reached."""
        self._inquiry.connectionLost(reason)
