"""The configuration file of LDAP sessions, an INI file as OpenSIPS has it.

::

    [sipaccounts]
    ldap_server_url    = "ldap://ldap1.example.com, ldap://ldap2.example.com:3890"
    ldap_bind_dn       = "cn=sip_proxy,ou=accounts,dc=example,dc=com"   ; a comment
    ldap_bind_password = "secret"

``ldap_ca_cert_file`` switches StartTLS on (OpenSIPS wants ``ldap_cert_file`` and ``ldap_key_file`` too, and else goes on without
TLS, its password in the clear); a URL may also be ``ldaps://``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from urllib.parse import urlsplit

PORTS = {"ldap": 389, "ldaps": 636}
SHORTEST_SEARCH = 2000
"""Milliseconds: a lower ``ldap_client_search_timeout`` is raised to it."""
CERTIFICATES = ("NEVER", "ALLOW", "TRY", "DEMAND", "HARD")


@dataclass(frozen=True)
class Server:
    """One directory server."""

    host: str
    port: int
    tls: bool
    """Whether it speaks TLS from the first octet."""


@dataclass(frozen=True)
class Session:
    """One section; times in milliseconds."""

    name: str
    servers: tuple[Server, ...]
    ldap_version: int = 3
    ldap_bind_dn: str = ""
    ldap_bind_password: str = field(default="", repr=False)
    ldap_network_timeout: int = 1000
    ldap_client_bind_timeout: int = 1000
    ldap_client_search_timeout: int = 5000
    ldap_server_search_timeout: int = 0
    ldap_ca_cert_file: str = ""
    ldap_cert_file: str = ""
    ldap_key_file: str = ""
    ldap_require_certificate: str = "NEVER"
    calculate_ha1: int = 1
    """Read and not used, as in OpenSIPS."""

    @property
    def start_tls(self) -> bool:
        """Whether a connection turns to TLS before anything is said."""
        return bool(self.ldap_ca_cert_file)

    @property
    def verifies(self) -> bool:
        """Whether a server whose certificate is not good is refused."""
        return self.ldap_require_certificate in ("TRY", "DEMAND", "HARD")


_KEYS = {each.name: each.type for each in fields(Session) if each.name not in ("name", "servers")}
_SECTION = re.compile(r"\[([^\]]+)\]")
_ASSIGNMENT = re.compile(r"([A-Za-z0-9_]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^;#]*))\s*(?:[;#].*)?")


def read_sessions(text: str) -> dict[str, Session]:
    """The sessions of a file; ``ValueError`` names the line that is wrong."""
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] | None = None
    for number, line in _lines(text):
        header = _SECTION.fullmatch(line)
        if header is not None:
            if header[1] in found:
                raise ValueError(f"line {number}: there is a session {header[1]!r} already")
            section = found[header[1]] = {}
            continue
        given = _ASSIGNMENT.fullmatch(line)
        if given is None:
            raise ValueError(f"line {number}: neither [session] nor key = value")
        if section is None:
            raise ValueError(f"line {number}: {given[1]} stands before any [session]")
        if given[1] != "ldap_server_url" and given[1] not in _KEYS:
            raise ValueError(f"line {number}: there is no setting {given[1]!r}")
        section[given[1]] = next(each for each in given.groups()[1:] if each is not None).strip()
    if not found:
        raise ValueError("it has no session: write [name] and below it ldap_server_url = ldap://host")
    return {name: _session(name, values) for name, values in found.items()}


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines that say something, each with its number; a value in quotes may go on over several."""
    found: list[tuple[int, str]] = []
    open_at = 0
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if open_at:
            start, begun = found.pop()
            found.append((start, f"{begun} {line}"))
        elif line and line[0] not in "#;":
            found.append((number, line))
        if found:
            open_at = found[-1][0] if re.fullmatch(r"[A-Za-z0-9_]+\s*=\s*\"[^\"]*", found[-1][1]) else 0
    return found


def _session(name: str, values: dict[str, str]) -> Session:
    urls = [each.strip() for each in values.pop("ldap_server_url", "").split(",")]
    if urls == [""]:
        raise ValueError(f"[{name}] has no ldap_server_url")
    made: dict[str, int | str] = {}
    for key, value in values.items():
        if _KEYS[key] == "int":
            number = {"yes": "1", "true": "1", "no": "0", "false": "0"}.get(value.lower(), value)
            if not number.isdigit():
                raise ValueError(f"[{name}] {key} must be a number, not {value!r}")
            made[key] = int(number)
        else:
            made[key] = value
    if made.get("ldap_version", 3) not in (2, 3):
        raise ValueError(f"[{name}] ldap_version is 2 or 3")
    wanted = str(made.get("ldap_require_certificate", "NEVER")).upper()
    if wanted not in CERTIFICATES:
        raise ValueError(f"[{name}] ldap_require_certificate is one of {', '.join(CERTIFICATES)}")
    made["ldap_require_certificate"] = wanted
    made["ldap_client_search_timeout"] = max(SHORTEST_SEARCH, int(made.get("ldap_client_search_timeout", 5000)))
    return Session(name, tuple(_server(name, url) for url in urls), **made)  # type: ignore[arg-type]


def _server(name: str, url: str) -> Server:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"[{name}] {url!r}: {error}") from None
    if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"[{name}] {url!r} is no URL of a server: write ldap://host or ldap://host:port")
    return Server(parts.hostname, port or PORTS[parts.scheme], parts.scheme == "ldaps")
