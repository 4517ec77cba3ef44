"""A private Prosody: one host for people, two components for sipgw; nothing leaves the loopback interface."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.children import HOST, free_port
from tests.servers.private import PrivateServer, folder

USERS = {"romeo": "pw-romeo", "juliet": "pw-juliet", "paris": "pw-paris"}
DOMAIN, COMPONENT, OTHER, ROOMS, SECRET = "jabber.test", "sip.test", "other.test", "rooms.test", "s3cret"
LOCKED = "locked.test"
"""Rooms that are locked until who made one says how it shall be, as Prosody's are where nothing else is said."""

CONFIG = """
run_as_root = true
pidfile = "{folder}/prosody.pid"
data_path = "{folder}/data"
log = {{ info = "{folder}/info.log" }}
interfaces = {{ "127.0.0.1" }}
local_interfaces = {{ "127.0.0.1" }}
component_interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {clients} }}
s2s_ports = {{ }}
component_ports = {{ {components} }}
http_ports = {{ }}
https_ports = {{ }}
modules_enabled = {{ "tls"; "roster"; "saslauth"; "disco"; "presence"; "message"; "iq"; "ping"; "carbons"; "offline" }}
modules_disabled = {{ "s2s"; "http" }}
authentication = "internal_plain"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
limits = {{ }}
VirtualHost "{domain}"
    ssl = {{ key = "{folder}/key.pem"; certificate = "{folder}/cert.pem" }}
Component "{component}"
    component_secret = "{secret}"
    validate_from_addresses = true
Component "{other}"
    component_secret = "{secret}"
Component "{rooms}" "muc"
    restrict_room_creation = false
    muc_room_locking = false
Component "{locked}" "muc"
"""


def missing() -> str:
    """What keeps tests from running Prosody; empty if nothing does."""
    return "" if shutil.which("prosody") else "not installed: prosody"


def certify(directory: Path) -> None:
    """A certificate for ``DOMAIN`` that signs itself, and its key: go-sendxmpp speaks nothing but TLS."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, DOMAIN)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    made = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(DOMAIN)]), critical=False).sign(key, hashes.SHA256())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (directory / "cert.pem").write_bytes(made.public_bytes(pem))
    (directory / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))


class Listening(PrivateServer):
    """A Prosody with the accounts ``USERS`` at ``domain``, in a folder of its own; it serves when it has ``ports``."""

    def __init__(self, name: str, directory: Path, config: str, domain: str, ports: Sequence[int]) -> None:
        file = directory / "prosody.cfg.lua"
        file.write_text(config, encoding="utf-8")
        self.ports = tuple(ports)
        super().__init__(name, ["prosody", "-F", "--config", str(file)], directory, self._serves)
        accounts = directory / "data" / domain.replace(".", "%2e") / "accounts"
        accounts.mkdir(parents=True)
        for user, password in USERS.items():
            (accounts / f"{user}.dat").write_text(f'return {{ ["password"] = "{password}"; }};\n', encoding="utf-8")

    def _serves(self) -> bool:
        try:
            for port in self.ports:
                socket.create_connection((HOST, port), 1).close()
        except OSError:
            return False
        return True

    def says(self) -> str:
        """Its log."""
        file = Path(self.directory / "info.log")
        return file.read_text(errors="replace") if file.exists() else ""


class Prosody(Listening):
    """The one that sipgw is a component of."""

    def __init__(self) -> None:
        directory = folder("prosody")
        self.clients, self.components = free_port(), free_port()
        certify(directory)
        text = CONFIG.format(
            folder=directory, clients=self.clients, components=self.components, domain=DOMAIN, component=COMPONENT, other=OTHER,
            rooms=ROOMS, secret=SECRET, locked=LOCKED,
        )
        super().__init__("prosody", directory, text, DOMAIN, (self.clients, self.components))


@functools.cache
def prosody() -> Prosody:
    """The Prosody of this run; whoever stops or freezes it restores it."""
    server = Prosody()
    server.start()
    return server


def go_sendxmpp(user: str, text: str, to: str) -> None:
    """Send a message with go-sendxmpp, which shares nothing with us or with slixmpp."""
    server = prosody()
    subprocess.run(
        ["go-sendxmpp", "-n", "-j", f"{HOST}:{server.clients}", "-u", f"{user}@{DOMAIN}", "-p", USERS[user], to],
        input=text.encode(), check=True, timeout=20, capture_output=True, env={**os.environ, "HOME": str(server.directory)},
    )
