"""The module httpd: the HTTP server on which other modules show what they have (``httpd.mount``)."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.web.resource import Resource

from sipgw.exports import Module, mi, param
from sipgw.interfaces import Server
from sipgw.web.site import LIMIT, Credentials, Site

_BODY = f"bodies of up to {LIMIT} octets are taken, and no buffer is set aside for them"


def _port(value: int) -> None:
    """Refuse what is no port."""
    if not 0 <= value <= 65535:
        raise ValueError(f"{value} is no port")


def _address(value: str) -> None:
    """Refuse what is no address."""
    if value != "*":
        try:
            ip_address(value.strip("[]"))
        except ValueError:
            raise ValueError(f"{value!r} is no IP address, and not '*'") from None


def _not_negative(value: int) -> None:
    """Refuse a negative number."""
    if value < 0:
        raise ValueError(f"{value} is negative")


def one_part(value: str) -> None:
    """Refuse what is not one part of a path; for the modules that mount something."""
    if not value.strip("/") or "/" in value.strip("/"):
        raise ValueError(f"{value!r} is not one part of a path")


def ends_of(request: Any) -> tuple[tuple[str, int], tuple[str, int]]:
    """From where a request came, and where it came to: addresses and ports."""
    peer, own = request.getClientAddress(), request.getHost()
    return (peer.host, peer.port), (own.host, own.port)


class Httpd(Module):
    """Serves HTTP, or HTTPS, for the modules that mount a resource."""

    name = "httpd"

    ip: str = param("127.0.0.1", "The address to listen on; * for all", check=_address)
    port: int = param(8888, "The port to listen on; 0 for one that the kernel picks", check=_port)
    auth_username: str = param("", "The user who may come in; empty, and no password: anybody may")
    auth_password: str = param("", "That user's password")
    auth_realm: str = param("OpenSIPS MI", "The realm that a browser shows when it asks for the password")
    tls_cert_file: str = param("", "The certificate, then its chain, in PEM; with it, HTTPS only")
    tls_key_file: str = param("", "The certificate's private key, in PEM")
    tls_ciphers: str = param("", "Cipher suites", unused="it is written for GnuTLS; TLS 1.2 and later with OpenSSL's own choice")
    conn_timeout: int = param(30, "Seconds after which a silent connection is closed; 0 for never", check=_not_negative)
    buf_size: int = param(0, "The longest answer", unused="answers are sent in pieces, however long they are")
    post_buf_size: int = param(1024, "The buffer for POST requests", unused=_BODY)
    receive_buf_size: int = param(1024, "The longest request", unused=_BODY)

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._site: Site | None = None
        self._listening: Any = None

    async def start(self) -> None:
        """Listen. Modules that need this one mount their resources when they start, after it."""
        if bool(self.auth_username) != bool(self.auth_password):
            raise ValueError("httpd: auth_username and auth_password must be set together")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError("httpd: tls_cert_file and tls_key_file must be set together")
        credentials = Credentials(self.auth_username, self.auth_password, self.auth_realm) if self.auth_username else None
        if self.ip == "*" or not ip_address(self.ip.strip("[]")).is_loopback:
            if credentials is None:
                advice = "without a password; set auth_username and auth_password"
                self.server.user.log(1, f"httpd: {self.ip} can be reached from outside {advice}")
            elif not self.tls_cert_file:
                self.server.user.log(1, "httpd: the password travels in the clear; set tls_cert_file and tls_key_file")
        self._site = Site(self.server.reactor, self.server.user.log, credentials, self.conn_timeout or None)
        context = _tls_context(self.tls_cert_file, self.tls_key_file) if self.tls_cert_file else None
        for interface in ("::", "0.0.0.0") if self.ip == "*" else (self.ip.strip("[]"),):
            try:
                self._listening = self._listen(interface, context)
                break
            except CannotListenError:
                if interface != "::" or self.ip != "*":
                    raise

    def _listen(self, interface: str, context: Any) -> Any:
        reactor = self.server.reactor
        if context is None:
            return reactor.listenTCP(self.port, self._site, interface=interface)
        return reactor.listenSSL(self.port, self._site, context, interface=interface)

    async def stop(self) -> None:
        """Listen no more."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()

    @property
    def listening_port(self) -> int:
        """The port in use, 0 when there is none."""
        return self._listening.getHost().port if self._listening is not None else 0

    @property
    def site(self) -> Site:
        """The site; there is one from ``start`` on."""
        if self._site is None:
            raise RuntimeError("httpd has not started")
        return self._site

    def mount(self, path: str, resource: Resource, module: str) -> None:
        """Show ``resource`` of ``module`` at ``/path`` and below; ``ValueError`` if another one is there."""
        self.site.mount(path, resource, module)

    def unmount(self, path: str) -> None:
        """Show nothing at ``/path`` any more."""
        self.site.unmount(path)

    @mi(alias="httpd_list_root_path")
    def list_root_path(self) -> list[dict[str, str]]:
        """Lists the paths on which modules have something to show."""
        return [{"http_root": path, "module": module} for path, module in self.site.owners.items()]


def _tls_context(certificates: str, key: str) -> Any:
    """What Twisted needs to serve TLS 1.2 or later with a certificate, its chain and its key, all in PEM."""
    from OpenSSL import crypto
    from twisted.internet.ssl import CertificateOptions, TLSVersion

    begin = b"-----BEGIN CERTIFICATE-----"
    blocks = [begin + block for block in Path(certificates).read_bytes().split(begin)[1:]]
    if not blocks:
        raise ValueError(f"httpd: {certificates} holds no certificate in PEM")
    own, *chain = [crypto.load_certificate(crypto.FILETYPE_PEM, block) for block in blocks]
    private = crypto.load_privatekey(crypto.FILETYPE_PEM, Path(key).read_bytes())
    return CertificateOptions(private, own, extraCertChain=chain, raiseMinimumTo=TLSVersion.TLSv1_2)
