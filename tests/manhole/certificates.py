"""Certificates for a test: one that signs, and others that it has signed."""

from __future__ import annotations

import datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Who signs; its certificate is in ``ca.pem`` of ``folder``."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        self.file = self._write(name, made.sign(self._key, hashes.SHA256()), None)

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        made = x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)

    def sign(self, name: str) -> str:
        """A certificate with its key in one file; the file's name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        made = self._builder(subject, key).add_extension(own, False).sign(self._key, hashes.SHA256())
        return self._write(name, made, key)

    def _write(self, name: str, made: x509.Certificate, key: ec.EllipticCurvePrivateKey | None) -> str:
        data = made.public_bytes(serialization.Encoding.PEM)
        if key is not None:
            plain = serialization.NoEncryption()
            data += key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        file = self._folder / f"{name}.pem"
        file.write_bytes(data)
        return str(file)
