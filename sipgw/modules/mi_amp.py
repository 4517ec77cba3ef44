"""The module mi_amp: management by AMP, over a unix socket and, with certificates on both sides, over TCP.

OpenSIPS has no such module: it is what ``sipgw mi`` and ``sipgw top`` speak, and any program with an AMP library may
(``manhole/boxes.py`` has the boxes). Whoever may open the unix socket may do everything: it is its owner's, unless said."""

from __future__ import annotations

import os
import stat
from typing import Any

from twisted.internet import ssl
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port as StreamPort
from twisted.internet.unix import Port

from sipgw.exports import param
from sipgw.interfaces import Server
from sipgw.manhole.amp import ManagementProtocol
from sipgw.manhole.place import LONGEST, is_heard, make_path
from sipgw.mi.owner import Owner, check_mode, group_id, is_there, user_id
from sipgw.modules._mi_trace import MiTrace
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import parse_uint

BACKLOG = 16


def check_path(text: str) -> None:
    """Refuse what is no path of a unix socket."""
    if "\0" in text or len(os.fsencode(text)) > LONGEST:
        raise ValueError(f"{text!r} is no path of a unix socket: write one of at most {LONGEST} octets")


def parse_address(text: str) -> tuple[str, int]:
    """``host:port``, an IPv6 address in brackets; ``ValueError`` if it is neither."""
    host, colon, port = text.rpartition(":")
    try:
        if not colon or not host:
            raise MalformedMessage("no port")
        return host.removeprefix("[").removesuffix("]"), parse_uint(port, 65535, "port")
    except MalformedMessage:
        raise ValueError(f"{text!r} is no address: write 127.0.0.1:8888") from None


class MiAmp(MiTrace):
    """Takes management commands by AMP, and tells of events, statistics and the log."""

    name = "mi_amp"
    backend = "amp"

    socket_name: str = param("", "The path of the unix socket; empty: mi.sock in the run folder; none: there is none",
                             check=check_path)
    unix_socket_mode: int = param(0o600, "The access mode of the unix socket, in octal", check=check_mode)
    unix_socket_user: int | str = param("", "Its owner, a name or a number; empty: whom sipgw runs as", check=user_id)
    unix_socket_group: int | str = param("", "Its group, a name or a number; empty: that of sipgw", check=group_id)
    tls_address: str = param("", "Where to listen for TLS, host:port; empty: nowhere", check=parse_address)
    tls_certificate: str = param("", "The file of our certificate, PEM; with its chain, if it has one")
    tls_private_key: str = param("", "The file of its key, PEM; empty: that of the certificate")
    tls_ca_list: str = param("", "The file of the certificates, PEM, one of which a client's must be signed by")

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.path = ""
        """Where the unix socket stands; empty if there is none."""
        self.tls_port = 0
        """The TCP port that is listened on, 0 if none is."""
        self._made: os.stat_result | None = None
        self._ports: list[Any] = []
        self._clients: set[ManagementProtocol] = set()

    async def start(self) -> None:
        """Listen."""
        await super().start()
        if self.socket_name != "none":
            self._listen_unix(self.socket_name or make_path())
        if self.tls_address:
            self._listen_tls(*parse_address(self.tls_address))

    def _listen_unix(self, path: str) -> None:
        path = os.path.abspath(path)
        if is_heard(path):
            raise OSError(f"another server listens at {path}: set socket_name")
        owner = Owner(self.unix_socket_mode, user_id(self.unix_socket_user), group_id(self.unix_socket_group))

        def listen(name: str) -> None:
            factory: Any = AmpFactory(self)
            port: Any = UnixPort(os.fsencode(name), factory, BACKLOG, 0o600, reactor=self.server.reactor)
            port.startListening()
            self._ports.append(port)

        self._made = owner.place(path, stat.S_IFSOCK, listen)
        self.path = path

    def _listen_tls(self, host: str, port: int) -> None:
        for name in ("tls_certificate", "tls_ca_list"):
            if not getattr(self, name):
                raise ValueError(f"tls_address needs {name}")
        options = tls_options(self.tls_certificate, self.tls_private_key or self.tls_certificate, self.tls_ca_list)
        listening = self.server.reactor.listenSSL(port, AmpFactory(self), options, interface=host)
        self._ports.append(listening)
        self.tls_port = listening.getHost().port

    async def stop(self) -> None:
        """Listen no more, and part with the clients."""
        if self._made is not None and is_there(self.path, self._made):
            os.unlink(self.path)
        while self._ports:
            await self._ports.pop().stopListening()
        for client in list(self._clients):
            client.transport.abortConnection()

    def joined(self, peer: str) -> ManagementProtocol:
        """A client has come."""
        client = ManagementProtocol(self, peer, self._clients.discard)
        self._clients.add(client)
        return client


class UnixPort(Port):
    """A listening socket that has another name by now: whoever renamed it takes it away."""

    def connectionLost(self, reason: Any) -> None:
        """Close it."""
        StreamPort.connectionLost(self, reason)  # type: ignore[no-untyped-call]


class AmpFactory(Factory):
    """Makes the server's end of each connection."""

    noisy = False

    def __init__(self, module: MiAmp) -> None:
        self._module = module
        self._count = 0

    def buildProtocol(self, addr: Any) -> ManagementProtocol:
        """One client."""
        self._count += 1
        host = getattr(addr, "host", "")
        return self._module.joined(f"{host}:{addr.port}" if host else f"unix-{self._count}")


def tls_options(certificate: str, key: str, ca_list: str) -> ssl.CertificateOptions:
    """What a server says that wants a certificate of its clients; ``ValueError`` names the file that is wrong."""
    names = {}
    for name in (certificate, key, ca_list):
        try:
            with open(name, "rb") as file:
                names[name] = file.read()
        except OSError as error:
            raise ValueError(f"{name}: {error.strerror}") from None
    begin = b"-----BEGIN CERTIFICATE-----"
    try:
        own = ssl.PrivateCertificate.fromCertificateAndKeyPair(  # type: ignore[no-untyped-call]
            ssl.Certificate.loadPEM(names[certificate]),
            ssl.KeyPair.load(names[key], 1),
        )
        chain = [ssl.Certificate.loadPEM(begin + text) for text in names[certificate].split(begin)[2:]]
        trusted = [ssl.Certificate.loadPEM(begin + text) for text in names[ca_list].split(begin)[1:]]
    except Exception as error:
        raise ValueError(f"{certificate}, {key}, {ca_list}: not the PEM that is needed: {error}") from None
    if not trusted:
        raise ValueError(f"{ca_list} has no certificate")
    return ssl.CertificateOptions(
        privateKey=own.privateKey.original,
        certificate=own.original,
        extraCertChain=[each.original for each in chain],
        trustRoot=ssl.trustRootFromCertificates(trusted),  # type: ignore[no-untyped-call]
        raiseMinimumTo=ssl.TLSVersion.TLSv1_2,
    )
