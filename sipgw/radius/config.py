"""The configuration file of radiusclient-ng, freeradius-client and radcli, and the file of secrets that it names.

::

    authserver      radius.example.org:1812
    acctserver      radius.example.org
    servers         /etc/radcli/servers        # lines of a server and its secret
    dictionary      /etc/radcli/dictionary     # sipgw's own if there is no such line
    radius_timeout  2                          # seconds to wait for an answer
    radius_retries  3                          # how often a server is asked
    radius_deadtime 30                         # seconds for which a server that has not answered is asked last
    bindaddr        *                          # the address to send from

What else these libraries know (log files, logins, sequence files) has no meaning here and is passed over."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

AUTH_PORT, ACCT_PORT = 1812, 1813
_PASSED_OVER = frozenset(
    "auth_order login_tries login_timeout nologin issue seqfile mapfile default_realm login_radius login_local radius_ipv6"
    " clientdebug use-public-addr namespace tls-verify-hostname tls-ca-file tls-cert-file tls-key-file"
    " radius-server-timeout".split()
)
_NUMBERS = ("radius_timeout", "radius_retries", "radius_deadtime")


@dataclass(frozen=True)
class RadiusServer:
    """One server."""

    host: str
    port: int
    secret: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class RadiusConfig:
    """What the files say; times in seconds."""

    auth: tuple[RadiusServer, ...]
    acct: tuple[RadiusServer, ...]
    dictionary: str
    timeout: int
    retries: int
    deadtime: int
    bindaddr: str
    nas_identifier: str
    signed: bool
    """Whether an answer without Message-Authenticator is no answer (against CVE-2024-3596)."""


def read_config(text: str, read_file: Callable[[str], str]) -> RadiusConfig:
    """The configuration in ``text``; ``read_file(name)`` gives the text of the file of secrets. ``ValueError`` names the line."""
    lists: dict[str, list[str]] = {"authserver": [], "acctserver": []}
    single: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split(None, 1)
        if not words:
            continue
        name, value = words[0].lower(), words[1].strip() if len(words) > 1 else ""
        if name in lists:
            lists[name] += [each for each in re.split(r"[,\s]+", value) if each]
        elif name in ("servers", "dictionary", "bindaddr", "nas-identifier", "require-message-authenticator", *_NUMBERS):
            single[name] = value
        elif name not in _PASSED_OVER:
            raise ValueError(f"line {number}: there is no setting {words[0]!r}")
        if name in _NUMBERS and not value.isdigit():
            raise ValueError(f"line {number}: {name} must be a number, not {value!r}")
    secrets = read_secrets(read_file(single["servers"])) if "servers" in single else {}
    timeout, retries = int(single.get("radius_timeout", 10)), int(single.get("radius_retries", 3))
    if not 1 <= timeout <= 60 or not 1 <= retries <= 20:
        raise ValueError("radius_timeout must be 1 to 60 seconds, radius_retries 1 to 20")
    bindaddr = single.get("bindaddr", "*")
    return RadiusConfig(
        auth=tuple(_server(each, AUTH_PORT, secrets) for each in lists["authserver"]),
        acct=tuple(_server(each, ACCT_PORT, secrets) for each in lists["acctserver"]),
        dictionary=single.get("dictionary", ""),
        timeout=timeout,
        retries=retries,
        deadtime=int(single.get("radius_deadtime", 0)),
        bindaddr="" if bindaddr == "*" else bindaddr,
        nas_identifier=single.get("nas-identifier", ""),
        signed=single.get("require-message-authenticator", "no").lower() in ("yes", "true", "1"),
    )


def read_secrets(text: str) -> dict[str, bytes]:
    """The secret of each server: lines of a name, or two with a slash between them (ours and the server's), and the secret."""
    found: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2:
            raise ValueError(f"servers, line {number}: write a server and its secret")
        for name in words[0].split("/"):
            found[name.lower()] = words[1].encode("utf-8", "surrogateescape")
    return found


def _server(text: str, port: int, secrets: dict[str, bytes]) -> RadiusServer:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\s]+))(?::([0-9]{1,5}))?(?::(\S+))?", text)
    if found is None:
        raise ValueError(f"{text.partition(':')[0]!r} is no server: write host or host:port")
    host, given = found[1] or found[2], found[3]
    secret = secrets.get(f"{host}:{given}".lower()) or secrets.get(host.lower())
    if found[4]:
        secret = found[4].encode("utf-8", "surrogateescape")
    if secret is None:
        raise ValueError(f"the server {host!r} has no secret in the file that servers names")
    return RadiusServer(host, int(given or port), secret)
