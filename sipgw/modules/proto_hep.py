"""proto_hep: copies of messages go to capture servers (Homer, or sipgw's and OpenSIPS's own sipcapture) as HEP frames.

What is sent is decided elsewhere: tracer sends SIP and the lines of xlog, the modules ``mi_*`` commands, proto_tcp its
connections. The frames are ``transport/hep.py``, the ways to the servers ``transport/hep_sender.py``. A ``socket = hep_udp:...``
says from which address and port frames go over UDP, ``hep_tcp`` from which address over TCP.

Frames that come there are read for sipcapture (``transport/hep_receiver.py``); the sockets are opened when it asks for them, and
nobody else hears of what comes."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.error import CannotListenError

from sipgw.exports import BRANCH, FAILURE, LOCAL, ONREPLY, REQUEST, Module, function, param
from sipgw.script.run import Run
from sipgw.transport.hep import CONTROL, Frame, Style, encode
from sipgw.transport.hep_received import Received, read
from sipgw.transport.hep_receiver import Limits, TcpReceiver, UdpReceiver, Way
from sipgw.transport.hep_sender import Place, TcpSender, UdpSender

PORT = 9060
"""The port of a capture server that is written without one."""
_NAMED = re.compile(r"\[\s*([^\]\s]+)\s*\](.*)", re.DOTALL)
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(?::([0-9]{1,5}))?")


def _positive(value: int) -> None:
    if value < 1:
        raise ValueError("must be at least 1")


def _not_negative(value: int) -> None:
    if value < 0:
        raise ValueError("must not be negative")


def _port(value: int) -> None:
    if not 1 <= value <= 65535:
        raise ValueError("must be between 1 and 65535")


def _sixteen_bits(value: int) -> None:
    if not 0 <= value <= 65535:
        raise ValueError("must be between 0 and 65535")


def _compression(value: int) -> None:
    if value not in (0, 1, 2):
        raise ValueError("must be 0, 1 or 2")


class Address:
    """What a ``hep_id`` says: where frames go, and how."""

    def __init__(self, text: str) -> None:
        place, *settings = (part.strip() for part in text.strip().rstrip(";").split(";"))
        found = _HOST_PORT.fullmatch(place)
        if found is None or (found[2] and not 0 < int(found[2]) < 65536):
            raise ValueError(f"{place!r} is no host:port")
        self.host = found[1].strip("[]")
        self.port = int(found[2] or PORT)
        self.version = 3
        self.transport = ""
        for setting in settings:
            name, _, value = (part.strip() for part in setting.partition("="))
            if name == "version" and value in ("1", "2", "3"):
                self.version = int(value)
            elif name == "transport" and value.lower() in ("udp", "tcp"):
                self.transport = value.lower()
            elif name == "transport" and value.lower() == "tls":
                raise ValueError("transport=tls needs tls_mgm, which comes in a later version of sipgw")
            else:
                raise ValueError(f"{setting!r} is neither version=1, 2 or 3 nor transport=udp or tcp")
        if self.version < 3:
            self.transport = "udp"
        self.transport = self.transport or "tcp"


class Destination:
    """One capture server."""

    def __init__(self, module: ProtoHep, name: str, address: Address) -> None:
        self._module = module
        self.name = name
        self.address = address
        self._sender: UdpSender | TcpSender | None = None

    @property
    def lost(self) -> int:
        """How many frames did not go out."""
        return 0 if self._sender is None else self._sender.lost

    def send(self, frame: Frame) -> None:
        """Send one frame; if that cannot be, the log says so once in a while."""
        if self._sender is None:
            self._sender = self._module.sender(self.address)
        try:
            data = encode(frame, self.address.version, self._module.style)
        except ValueError as error:
            self._sender.lose(str(error))
            return
        self._sender.send(data)

    def pass_on(self, data: bytes) -> None:
        """Send a frame that is written already."""
        if self._sender is None:
            self._sender = self._module.sender(self.address)
        self._sender.send(data)

    def close(self) -> None:
        """End."""
        if self._sender is not None:
            self._sender.close()


class ProtoHep(Module):
    """Sends copies of messages to capture servers, and receives those of others."""

    hep_id: str = param("", "A capture server: [name] host:port; transport=udp|tcp; version=1|2|3", each="add_destination")
    homer5_on: int = param(1, "Whether payloads are plain text for Homer 5, rather than JSON for Homer 6")
    homer5_delim: str = param(":", "What stands between the parts of a payload for Homer 5")
    hep_capture_id: int = param(1, "The number by which a capture server knows us", check=_sixteen_bits)
    hep_port: int = param(PORT, "The port of hep_udp and hep_tcp sockets that are written without one", check=_port)
    hep_send_timeout: int = param(100, "Milliseconds for a connection to be made", check=_positive)
    hep_async: int = param(1, "Whether connecting and sending wait", unused="nothing here ever waits")
    hep_async_max_postponed_chunks: int = param(
        32, "How many frames may wait for a capture server before they are lost", check=_positive
    )
    hep_async_local_write_timeout: int = param(
        10, "Milliseconds of trying to write", unused="what cannot be written at once waits at once"
    )
    hep_max_msg_chunks: int = param(32, "In how many pieces a frame may come over TCP", check=_positive)
    compressed_payload: int = param(
        0, "Whether compressed payloads that come are unpacked; 2: what we send is compressed too", check=_compression
    )
    hep_max_retries: int = param(5, "How often in a row connecting may fail before it is left alone", check=_positive)
    hep_retry_cooldown: int = param(3600, "For how many seconds it is left alone then", check=_not_negative)

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._destinations: dict[str, Destination] = {}
        self._sources: dict[str, dict[int, tuple[str, int]]] = {"udp": {}, "tcp": {}}
        self._places: list[tuple[str, str, int]] = []
        self._receivers: list[UdpReceiver | TcpReceiver] = []
        self._open: dict[int, Any] = {}
        self._take: Callable[[Received, Way], None] | None = None
        self.style = Style()
        super().__init__(server, **parameters)

    def add_destination(self, value: str) -> None:
        """Take one ``hep_id``."""
        found = _NAMED.fullmatch(value.strip())
        if found is None:
            raise ValueError("write [name] host:port; transport=udp|tcp; version=1|2|3")
        if found[1] in self._destinations:
            raise ValueError(f"there is a hep_id {found[1]} already")
        self.new_destination(found[1], found[2])

    def new_destination(self, name: str, text: str) -> Destination:
        """The capture server at ``text``, known as ``name``; ``ValueError`` says what is wrong with it."""
        made = self._destinations[name] = Destination(self, name, Address(text))
        return made

    def way_to(self, text: str) -> Destination:
        """A capture server that no ``hep_id`` names; whoever asked closes it."""
        return Destination(self, "", Address(text))

    def destination(self, name: str) -> Destination | None:
        """The capture server of that ``hep_id``."""
        return self._destinations.get(name)

    def forget(self, destination: Destination) -> None:
        """Send nothing more to a capture server that was added by a command."""
        if self._destinations.get(destination.name) is destination:
            del self._destinations[destination.name]
        destination.close()

    def listens(self, transport: str, host: str, port: int) -> None:
        """Take note of a socket of the script: the first of each family is where frames come from."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sources[transport].setdefault(family, (host, port))
        self._places.append((transport, host, port))

    @property
    def has_sockets(self) -> bool:
        """Whether the script has a socket at which frames can come."""
        return bool(self._places)

    async def start(self) -> None:
        """Settle how frames are written."""
        self.style = Style(self.hep_capture_id, bool(self.homer5_on), self.homer5_delim, self.compressed_payload == 2)

    def receive(self, take: Callable[[Received, Way], None]) -> None:
        """Open the sockets, and hand each frame that comes to ``take``; ``ValueError`` if that cannot be."""
        self._take = take
        get = self.server.user.globals.get
        limits = Limits(
            self.hep_max_msg_chunks, float(get("tcp_max_msg_time") or 4), float(get("tcp_connection_lifetime") or 120),
            int(get("tcp_max_connections") or 2048),
        )
        reactor = self.server.reactor
        for transport, host, port in self._places:
            try:
                if transport == "udp":
                    udp = UdpReceiver(host, port, self._came)
                    udp.listen(reactor)
                    family = socket.AF_INET6 if ":" in host else socket.AF_INET
                    self._open.setdefault(family, udp)
                    self._receivers.append(udp)
                else:
                    tcp = TcpReceiver(reactor, host, port, self._came, self._refused, limits)
                    tcp.listen()
                    self._receivers.append(tcp)
            except CannotListenError as error:
                raise ValueError(f"cannot listen on hep_{transport}:{host}:{port}: {error.socketError}") from None

    def _came(self, data: bytes, way: Way) -> None:
        """Read one frame, whatever it is."""
        assert self._take is not None
        try:
            frame = read(data, unpack=bool(self.compressed_payload))
        except ValueError as error:
            self._refused(way, str(error))
            return
        try:
            self._take(frame, way)
        except Exception as error:
            self.server.user.broken(error)

    def _refused(self, way: Way, why: str) -> None:
        text = f"proto_hep: what {way.source[0]}:{way.source[1]} sends to {way.transport} is dropped: {why}"
        self.server.user.log_rarely(("hep in", way.source[0]), 1, text)

    async def stop(self) -> None:
        """Close the ways to all capture servers, and the sockets."""
        for receiver in self._receivers:
            receiver.stop()
        self._receivers.clear()
        self._open.clear()
        for each in self._destinations.values():
            each.close()

    def sender(self, address: Address) -> UdpSender | TcpSender:
        """A way to a capture server."""
        user = self.server.user
        place = Place(address.host, address.port, user.resolve_host, user.clock)

        def report(text: str) -> None:
            user.log_rarely(("hep", address.host, address.port), 1, f"proto_hep: {text}")

        if address.transport == "udp":
            return UdpSender(place, self._sources["udp"], report, self._open)
        return TcpSender(
            self.server.reactor,
            place,
            report,
            most=self.hep_async_max_postponed_chunks,
            timeout=self.hep_send_timeout / 1000,
            tries=self.hep_max_retries,
            cooldown=float(self.hep_retry_cooldown),
            source=self._sources["tcp"].get(socket.AF_INET6 if ":" in address.host else socket.AF_INET),
        )

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def correlate(
        self, run: Run, hep_id: str, type1: str, correlation1: str, type2: str, correlation2: str
    ) -> bool:
        """Tell a capture server that two correlation ids belong together, each with its kind; that needs HEP version 3."""
        found = self.destination(hep_id)
        if found is None or found.address.version < 3 or type1 == type2:
            why = f"no hep_id {hep_id}" if found is None else "only version 3 of HEP" if type1 != type2 else "two kinds alike"
            run.user.log(-1, f"correlate: {why}")
            return False
        now = run.user.wall_clock()
        ends = ("127.0.0.1", 0), ("127.0.0.2", 0)
        found.send(Frame(CONTROL, 6, *ends, now, extra={type1: correlation1, type2: correlation2}))
        return True
