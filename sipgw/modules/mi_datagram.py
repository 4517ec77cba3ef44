"""The module mi_datagram: management commands by datagrams, over UDP or a unix socket (JSON-RPC 2.0).

COMPAT: where OpenSIPS answers what it cannot read with the text ``400 Parse_error``, here a JSON-RPC error says so."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from sipgw.exports import param
from sipgw.interfaces import Server
from sipgw.mi import jsonrpc
from sipgw.mi.datagram import DatagramServer, open_udp, open_unix, parse_address
from sipgw.mi.owner import Owner, check_mode, group_id, user_id
from sipgw.modules._mi_trace import NOWHERE, Ends, MiTrace


def _size(value: int) -> None:
    """Refuse what is no length of a datagram."""
    if not 512 <= value <= 1 << 20:
        raise ValueError(f"{value} is no length of a datagram: write 512 to {1 << 20}")


def _not_negative(value: int) -> None:
    """Refuse a negative number."""
    if value < 0:
        raise ValueError(f"{value} is negative")


class MiDatagram(MiTrace):
    """Takes management commands in datagrams and answers each to its sender."""

    name = "mi_datagram"
    backend = "datagram"

    socket_name: str = param("", "Where to listen: udp:address:port, or the path of a unix socket", check=parse_address)
    children_count: int = param(1, "Processes that listen", unused="one process does all")
    socket_timeout: int = param(2000, "Milliseconds for which sending an answer is tried", check=_not_negative)
    socket_buf_size: int = param(65457, "The longest request and the longest answer, in octets", check=_size)
    unix_socket_mode: int = param(0o660, "The access mode of a unix socket, in octal", check=check_mode)
    unix_socket_user: int | str = param("", "Its owner, a name or a number; empty: whom sipgw runs as", check=user_id)
    unix_socket_group: int | str = param("", "Its group, a name or a number; empty: that of sipgw", check=group_id)
    pretty_printing: int = param(0, "1: answers are indented, over several lines")

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._listening: DatagramServer | None = None

    async def start(self) -> None:
        """Listen."""
        await super().start()
        address = parse_address(self.socket_name)
        made = None
        if address is None:
            owner = Owner(self.unix_socket_mode, user_id(self.unix_socket_user), group_id(self.unix_socket_group))
            sock, made = open_unix(self.socket_name, owner)
        else:
            if not ip_address(address[0]).is_loopback:
                text = f"mi_datagram: {self.socket_name} can be reached from outside, and there is no password"
                self.server.user.log(1, text)
            sock = open_udp(*address)
        patience = self.socket_timeout / 1000
        self._listening = DatagramServer(self.server.reactor, sock, self.socket_buf_size, patience, self._take, made)

    async def stop(self) -> None:
        """Listen no more."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()

    @property
    def address(self) -> Any:
        """Where it listens: a path, or a tuple whose first members are address and port; None when it does not."""
        return None if self._listening is None else self._listening.address

    def _take(self, data: bytes | None, peer: Any) -> None:
        listening = self._listening
        assert listening is not None

        def sent(fault: str) -> None:
            if fault:
                self.server.user.log(1, f"mi_datagram: an answer was lost: {fault}")
            listening.end()

        def made(answer: bytes | None) -> None:
            if answer is None:
                listening.end()
            else:
                listening.send(answer, peer, sent)

        def broken(failure: Failure) -> None:
            self.server.user.log(-1, f"mi_datagram: {type(failure.value).__name__}: {failure.getErrorMessage()}")
            listening.end()

        Deferred.fromCoroutine(self._answer(data, self._ends(peer))).addCallbacks(made, broken)

    def _ends(self, peer: Any) -> Ends:
        """Who asks, and where."""
        if not isinstance(peer, tuple) or not isinstance(self.address, tuple):
            return NOWHERE
        return (peer[0], peer[1]), (self.address[0], self.address[1])

    async def _answer(self, data: bytes | None, ends: Ends) -> bytes | None:
        """The answer to one request, None where nothing is to be said."""
        if data is None:
            fault = jsonrpc.Refused(jsonrpc.PARSE_ERROR, f"more than {self.socket_buf_size} octets")
            return jsonrpc.encode(jsonrpc.failure(None, fault))
        data = data.rstrip(b"\0\r\n\t ")
        if not data:
            return None
        pieces = await self.answer_shown(data, bool(self.pretty_printing), ends)
        return None if pieces is None else self._joined(data, pieces)

    def _joined(self, data: bytes, pieces: Iterator[bytes]) -> bytes:
        """The answer in one piece; one that is too long for a datagram becomes an error that says so."""
        gathered = bytearray()
        for piece in pieces:
            gathered += piece
            if len(gathered) > self.socket_buf_size:
                text = f"the answer is longer than the {self.socket_buf_size} octets of a datagram (socket_buf_size)"
                fault = jsonrpc.MIError(500, "Answer too long", text)
                return jsonrpc.encode(jsonrpc.failure(jsonrpc.decode(data).id, fault))
        return bytes(gathered)
