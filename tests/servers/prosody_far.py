"""A second private Prosody, which speaks with other servers: a Jabber server elsewhere, for sipgw as a server of its own.

Where other domains are it is told by ``routes`` (a plugin of ours), since there is no DNS here."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.children import free_port
from tests.servers.private import folder
from tests.servers.prosody import Listening

FAR, FAR_ROOMS = "far.test", "rooms.far.test"
NEAR = "near.test"
"""What sipgw is called."""

CONFIG = """
run_as_root = true
pidfile = "{folder}/prosody.pid"
data_path = "{folder}/data"
plugin_paths = {{ "{folder}" }}
log = {{ debug = "{folder}/info.log" }}
interfaces = {{ "127.0.0.1" }}
local_interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {clients} }}
s2s_ports = {{ {servers} }}
http_ports = {{ }}
https_ports = {{ }}
modules_enabled = {{
    "routes"; "tls"; "dialback"; "roster"; "saslauth"; "disco"; "presence"; "message"; "iq"; "ping"; "carbons"; "offline"
}}
modules_disabled = {{ "http" }}
authentication = "internal_plain"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
s2s_require_encryption = {encrypted}
s2s_secure_auth = {proven}
limits = {{ }}
ssl = {{ key = "{folder}/key.pem"; certificate = "{folder}/cert.pem"; cafile = "{authority}" }}
VirtualHost "{far}"
Component "{rooms}" "muc"
"""

ROUTES = """
module:set_global();
local service, basic = require "net.resolvers.service", require "net.resolvers.basic";
local json = require "util.json";
local there = service.new;
service.new = function (name, ...)
    local file = io.open("{folder}/routes.json");
    local routes = json.decode(file:read("*a"));
    file:close();
    if routes[name] then return basic.new("127.0.0.1", routes[name], "tcp", {{ use_ipv6 = false }}); end
    return there(name, ...);
end
"""


class Authority:
    """Signs certificates; ``file`` is its own."""

    def __init__(self) -> None:
        self.folder = folder("authority")
        self.file = self.folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Tests")])
        made = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        until = now + timedelta(days=1)
        return x509.CertificateBuilder(
            self._name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), until
        )

    def issue(self, directory: Path, *names: str) -> None:
        """Write a certificate for ``names`` and its key into a folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
        shown = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        made = self._builder(name, key).add_extension(shown, critical=False).sign(self._key, hashes.SHA256())
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (directory / "cert.pem").write_bytes(made.public_bytes(pem))
        (directory / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))


@functools.cache
def authority() -> Authority:
    """The authority of this run."""
    return Authority()


class FarProsody(Listening):
    """One that takes unencrypted streams ("plain"), wants TLS ("tls"), or a certificate that it can believe ("proven")."""

    def __init__(self, kind: str) -> None:
        directory = folder(f"prosody-{kind}")
        self.clients, self.servers = free_port(), free_port()
        authority().issue(directory, FAR, FAR_ROOMS)
        encrypted, proven = ("false" if kind == "plain" else "true"), ("true" if kind == "proven" else "false")
        text = CONFIG.format(
            folder=directory, clients=self.clients, servers=self.servers, far=FAR, rooms=FAR_ROOMS, encrypted=encrypted,
            proven=proven, authority=authority().file,
        )
        (directory / "mod_routes.lua").write_text(ROUTES.format(folder=directory), encoding="utf-8")
        super().__init__(f"prosody-{kind}", directory, text, FAR, (self.clients, self.servers))
        self.route({})

    def route(self, routes: Mapping[str, int]) -> None:
        """Say at which ports other domains are."""
        (self.directory / "routes.json").write_text(json.dumps(dict(routes)), encoding="utf-8")


@functools.cache
def far(kind: str) -> FarProsody:
    """The Prosody of that kind of this run."""
    server = FarProsody(kind)
    server.start()
    return server
