"""The URL of a database server: ``scheme://[user[:password]@]host[:port]/database[?options]``, as OpenSIPS reads it.

The first @ ends the password, which may have slashes; ``%XX`` stands for any octet in all parts; a host may be ``[2001:db8::1]``
or ``unix(/path/of/socket)``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from sipgw.db.databases import hide_password
from sipgw.db.errors import DatabaseError

__all__ = ["DatabaseUrl", "parse_url"]

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9_+.-]*)://(?:(?P<user>[^:@/\[]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:unix\((?P<socket>[^)]*)\)|\[(?P<host6>[^\]]*)\]|(?P<host>[^:/\[]*))(?::(?P<port>[0-9]{1,5}))?"
    r"/(?P<database>[^?]*)(?:\?(?P<options>.*))?",
    re.DOTALL,
)


@dataclass(frozen=True)
class DatabaseUrl:
    """The parts of a URL, unescaped; ``port`` 0 and empty texts where nothing is said."""

    scheme: str
    user: str
    password: str
    host: str
    socket: str
    port: int
    database: str
    options: str


def parse_url(url: str) -> DatabaseUrl:
    """The parts of ``url``, or a ``DatabaseError`` without its password."""
    found = _URL.fullmatch(url.strip())
    if found is None or not found["database"]:
        raise DatabaseError(f"{hide_password(url)!r} is no URL of a database: write scheme://user:password@host:port/database")
    part = {name: unquote(text or "") for name, text in found.groupdict().items()}
    host = part["host6"] or part["host"]
    return DatabaseUrl(
        part["scheme"].lower(), part["user"], part["password"], host, part["socket"], int(part["port"] or 0), part["database"],
        part["options"],
    )  # fmt: skip
