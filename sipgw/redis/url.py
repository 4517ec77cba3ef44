"""The URL of a Redis: ``redis[:group]://[[user]:password@]host[:port][,host2[:port2]...]/[database][?option=value&...]``.

As OpenSIPS writes it: several hosts are fallen back on in turn, ``socket=PATH`` is a unix socket. What follows is sipgw's own.
``pool``: connections to each server. ``sentinel=NAME``: the hosts are sentinels (port 26379), which know the master ``NAME``;
``sentinel_password`` (``sentinel_user``) is what they want. TLS: ``tls=1`` with the certificates that the system trusts,
``tls_ca=FILE`` (PEM) with those of a file; ``tls_cert=FILE`` and ``tls_key=FILE`` show one of ours; ``tls_name`` is the name to
verify, by default the host's. Characters of a user, password or value that a URL cannot have are written ``%41``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

PORT = 6379
SENTINEL_PORT = 26379
POOL = 4
"""Connections to each server, where the URL does not say."""
MOST = 64
"""Connections to each server that a URL may ask for."""

_URL = re.compile(
    r"redis(?::(?P<group>[A-Za-z0-9_.-]+))?:?//(?:(?P<credentials>[^/?]*)@)?(?P<hosts>[^/?]*)"
    r"(?:/(?P<database>[^?]*))?(?:\?(?P<options>.*))?"
)
_OPTIONS = frozenset(
    "socket pool sentinel sentinel_user sentinel_password tls tls_ca tls_cert tls_key tls_name tls_domain".split()
)

Address = tuple[str, int]
"""Host and port; of a unix socket its path and 0."""


@dataclass(frozen=True)
class RedisUrl:
    """What a URL says."""

    group: str
    user: str
    password: str
    addresses: tuple[Address, ...]
    database: int
    pool: int
    options: dict[str, str]
    shown: str
    """The URL without passwords, for log lines."""

    @property
    def sentinel(self) -> str:
        """The name of the master that the addresses watch; empty if they are the servers themselves."""
        return self.options.get("sentinel", "")

    @property
    def unix(self) -> bool:
        """Whether the address is the path of a unix socket."""
        return "socket" in self.options

    @property
    def tls(self) -> bool:
        """Whether it asks for TLS in any way."""
        return self.options.get("tls", "0") != "0" or any(f"tls_{each}" in self.options for each in ("ca", "cert", "domain"))


def parse(text: str) -> RedisUrl:
    """Read a URL; ``ValueError`` says what is wrong with it, without the password."""
    text = text.strip()
    shown = hide(text)
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError(f"{shown!r} is no URL of a Redis: write redis:group://user:password@host:port/database")
    options: dict[str, str] = {}
    for part in filter(None, (found["options"] or "").split("&")):
        name, _, value = part.partition("=")
        if name not in _OPTIONS:
            raise ValueError(f"{shown!r}: there is no option {name!r}; there are {', '.join(sorted(_OPTIONS))}")
        options[name] = unquote(value)
    user, colon, password = (found["credentials"] or "").partition(":")
    if user and not colon:
        raise ValueError(f"{shown!r}: a password alone is written with a colon before it, redis://:password@host/")
    database = (found["database"] or "").strip("/") or "0"
    pool = options.get("pool", str(POOL))
    if not database.isdigit():
        raise ValueError(f"{shown!r}: the database of a Redis is a number, not {database!r}")
    if not pool.isdigit() or not 1 <= int(pool) <= MOST:
        raise ValueError(f"{shown!r}: pool must be 1 to {MOST}")
    hosts = found["hosts"]
    if "socket" in options:
        if "," in hosts:
            raise ValueError(f"{shown!r}: a unix socket is one server: several hosts cannot be written beside it")
        addresses: tuple[Address, ...] = ((options["socket"], 0),)
    else:
        port = SENTINEL_PORT if "sentinel" in options else PORT
        addresses = tuple(_address(each, port, shown) for each in hosts.split(","))
    return RedisUrl(
        found["group"] or "", unquote(user), unquote(password), addresses, int(database), int(pool), options, shown
    )


def _address(text: str, port: int, shown: str) -> Address:
    found = re.fullmatch(r"\s*(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+))(?::([0-9]{1,5}))?\s*", text)
    if found is None:
        raise ValueError(f"{shown!r}: {text!r} is no host or host:port")
    return found[1] or found[2], int(found[3] or port)


def hide(text: str) -> str:
    """``text`` with its passwords replaced."""
    text = re.sub(r"//([^/@:?]*):[^/?]*@", r"//\1:***@", text)
    return re.sub(r"(_password=)[^&]*", r"\1***", text)
