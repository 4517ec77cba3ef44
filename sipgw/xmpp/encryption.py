"""TLS between servers (RFC 6120 5, 13.7): everybody is spoken to, and who can prove to be a domain is known.

A certificate that proves nothing ends no connection here: then dialback is what proves. So the handshake notes what OpenSSL says
of the chain, and ``proves`` looks at that, and at the names in the certificate."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary

import idna
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from zope.interface import implementer

__all__ = ["Encryption", "is_for"]

_PURPOSE: Final = 26
"""X509_V_ERR_INVALID_PURPOSE: authorities write "server" into the certificates of servers that connect, too."""


class _Seen:
    """What OpenSSL has said of a peer's certificates. A session that is resumed says nothing, and proves nothing."""

    __slots__ = ("checked", "faults")

    def __init__(self) -> None:
        self.checked = False
        self.faults: list[int] = []


_SEEN: WeakKeyDictionary[SSL.Connection, _Seen] = WeakKeyDictionary()


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class Encryption:
    """The certificate and key in the PEM files ``certificate`` and ``key`` (empty: in the same file), the authorities in ``ca``
    (empty: those that the system trusts). Without a certificate one for ``names`` is made that signs itself."""

    def __init__(self, names: list[str], certificate: str = "", key: str = "", ca: str = "") -> None:
        self.has_certificate = bool(certificate)
        """Whether others may believe it."""
        context = self._context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        try:
            if certificate:
                context.use_certificate_chain_file(certificate)
                context.use_privatekey_file(key or certificate)
                context.check_privatekey()
            else:
                _sign_yourself(context, names)
            context.set_default_verify_paths()
            if ca:
                context.load_verify_locations(ca)
        except (SSL.Error, OSError) as error:
            raise ValueError(f"xmpp_certificate {certificate!r}, xmpp_key {key!r}, xmpp_tls_ca {ca!r}: {error}") from None
        context.set_verify(SSL.VERIFY_PEER, _note)

    def _connection(self) -> SSL.Connection:
        made = SSL.Connection(self._context, None)
        _SEEN[made] = _Seen()
        return made

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """A connection to a server (IOpenSSLClientConnectionCreator)."""
        made = self._connection()
        name = _ascii(getattr(tlsProtocol.wrappedProtocol, "server_name", ""))
        if name and not _is_address(name):
            made.set_tlsext_host_name(name.encode())
        made.set_connect_state()
        return made

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """A connection from a server (IOpenSSLServerConnectionCreator)."""
        made = self._connection()
        made.set_accept_state()
        return made

    @staticmethod
    def proves(transport: Any, domain: str) -> bool:
        """Whether the peer's certificate, signed by somebody whom we trust, is that of ``domain``."""
        connection = transport.getHandle()
        if not isinstance(connection, SSL.Connection):
            return False
        seen, found = _SEEN.get(connection), connection.get_peer_certificate()
        if found is None or seen is None or not seen.checked or seen.faults:
            return False
        return is_for(found.to_cryptography(), domain)


def _note(connection: SSL.Connection, _certificate: crypto.X509, fault: int, depth: int, _ok: int) -> bool:
    seen = _SEEN.get(connection)
    if seen is None:
        return False
    seen.checked = seen.checked or depth == 0
    if fault and fault != _PURPOSE:
        seen.faults.append(fault)
    return True


def is_for(certificate: x509.Certificate, domain: str) -> bool:
    """Whether a certificate names a domain (RFC 6125 6.4): exactly, or as one label below a star."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    wanted = _ascii(domain)
    shown = {name.lower().rstrip(".") for name in names.get_values_for_type(x509.DNSName)}
    parent = wanted.partition(".")[2]
    return bool(wanted) and (wanted in shown or ("." in parent and f"*.{parent}" in shown))


def _ascii(domain: str) -> str:
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _sign_yourself(context: SSL.Context, names: list[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    shown = [_ascii(name) for name in names if _ascii(name)]
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, shown[0][:64] if shown else "sipgw")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=3650)
    )
    if shown:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in shown]), critical=False)
    context.use_certificate(crypto.X509.from_cryptography(builder.sign(key, hashes.SHA256())))
    context.use_privatekey(crypto.PKey.from_cryptography_key(key))
