"""Hearing the SIP of others: UDP datagrams that pass an interface (a mirrored port), or come in IP packets (RFC 2003).

Only Linux, only IPv4, and only for who has the right (root, or CAP_NET_RAW). Nothing is sent here."""

from __future__ import annotations

import ctypes
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from sipgw.transport.packets import Datagram, datagram_of, port_filter

DRAIN = 64
"""Packets read at most for one wake-up."""
SHORTEST = 20
RECEIVE_BUFFER = 4 << 20
_ETH_P_IP = 0x0800
_OUTGOING = 4  # PACKET_OUTGOING of <linux/if_packet.h>: what we send, on loopback a second time
_SOL_PACKET, _ADD_MEMBERSHIP, _MR_PROMISC, _SO_ATTACH_FILTER = 263, 1, 1, 26
_LISTEN = re.compile(r"(?:(\d{1,3}(?:\.\d{1,3}){3})?)(?::(\d{1,5})(?:-(\d{1,5}))?)?")


@dataclass(frozen=True)
class Wanted:
    """What is to be heard: ``inside`` other packets, sent to ``host``, or what passes ``interface`` (all, if that is empty).

    ``ports``: the first and the last, one of which the source or the target has; None: any. ``filtered``: the kernel looks at the
    ports; ``promiscuous``: the interface takes what is not for us too."""

    inside: bool
    host: str = ""
    ports: tuple[int, int] | None = None
    interface: str = ""
    filtered: bool = False
    promiscuous: bool = False


def parse_listen(text: str) -> tuple[str, tuple[int, int] | None]:
    """``10.0.0.1:5060-5090`` as an address and ports; ``ValueError`` if it is none."""
    found = _LISTEN.fullmatch(text.strip())
    if found is None:
        raise ValueError("write address:port or address:port-port")
    host, first, last = found[1] or "", int(found[2] or 0), int(found[3] or found[2] or 0)
    if not 0 <= first <= last <= 65535 or any(int(part) > 255 for part in host.split(".") if part):
        raise ValueError(f"{text!r} has no such ports, or address")
    return host, (first, last) if first else None


@implementer(IReadDescriptor)
class RawReceiver:
    """Hears datagrams and gives each to ``take``; ``open`` raises ``OSError`` if that cannot be."""

    def __init__(
        self, reactor: Any, wanted: Wanted, take: Callable[[Datagram], None], broken: Callable[[BaseException], None]
    ) -> None:
        self.wanted = wanted
        self._reactor = reactor
        self._take = take
        self._broken = broken
        self._socket: socket.socket | None = None
        self._loopback = False

    def open(self) -> None:
        """Open the socket, and begin."""
        wanted = self.wanted
        if wanted.inside:
            made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
        else:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        try:
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            if wanted.inside and wanted.host:
                made.bind((wanted.host, 0))
            if wanted.interface:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, wanted.interface.encode() + b"\0")
                if not wanted.inside:
                    made.bind((wanted.interface, _ETH_P_IP))
            if wanted.promiscuous and wanted.interface and not wanted.inside:
                request = struct.pack("=iHH8s", socket.if_nametoindex(wanted.interface), _MR_PROMISC, 0, b"")
                made.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, request)
            if wanted.filtered and wanted.ports and not wanted.inside:
                program = ctypes.create_string_buffer(port_filter(*wanted.ports))
                made.setsockopt(
                    socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", (len(program) - 1) // 8, ctypes.addressof(program))
                )
        except OSError:
            made.close()
            raise
        self._socket = made
        self._reactor.addReader(self)

    def stop(self) -> None:
        """End."""
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None

    def doRead(self) -> None:
        """Hand over what has come."""
        for _ in range(DRAIN):
            if self._socket is None:
                return
            try:
                packet, address = self._socket.recvfrom(65_535)
            except OSError:  # nothing more, or the interface went down
                return
            if not self.wanted.inside and address[0] == "lo" and address[2] == _OUTGOING:
                continue
            found = datagram_of(packet, inside=self.wanted.inside)
            if found is not None and len(found.data) >= SHORTEST and self._is_wanted(found):
                try:
                    self._take(found)
                except Exception as error:
                    self._broken(error)

    def _is_wanted(self, found: Datagram) -> bool:
        if self.wanted.ports is None:
            return True
        first, last = self.wanted.ports
        return first <= found.source[1] <= last or first <= found.target[1] <= last

    def fileno(self) -> int:
        """The descriptor, -1 when closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """The name in Twisted's own log lines."""
        return "raw"

    def connectionLost(self, reason: Any) -> None:
        """Go on: what the reactor saw on the descriptor is told by ``recvfrom`` too."""
        if self._socket is not None:
            self._reactor.callLater(1.0, self._again)

    def _again(self) -> None:
        if self._socket is not None:
            self._reactor.addReader(self)
