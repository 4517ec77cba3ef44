"""What db_mysql and db_postgres have in common: databases that are servers, which go down and come back."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from sipgw.db.connections import Connections, Wire
from sipgw.db.database import Engine, SqlDatabase
from sipgw.db.databases import hide_password
from sipgw.db.errors import DatabaseError
from sipgw.db.measures import watch
from sipgw.db.url import parse_url

__all__ = ["WiredEngine", "need", "open_server"]


class WiredEngine(Engine, Wire, Protocol):
    """An engine that connects by itself."""


def need(driver: str, extra: str, url: str) -> None:
    """Import an optional package, or say how to get it; refuse options of the URL that mean something elsewhere."""
    options = parse_url(url).options
    if options:
        name = options.partition("=")[0]
        later = ": databases over TLS need tls_mgm, which comes in a later version of sipgw" if name.startswith("tls_") else ""
        raise DatabaseError(f"{hide_password(url)}: there is no option {name!r}{later}")
    try:
        import_module(driver)
    except ImportError as error:
        scheme = url.partition(":")[0]
        raise DatabaseError(f"{scheme}:// needs the package {driver}: pip install 'sipgw[{extra}]' ({error})") from None


def open_server(
    server: Any,
    engine: WiredEngine,
    *,
    limit: float,
    tries: int,
    threshold: int,
    connects: int = 1,
    told: Callable[[bool], None] | None = None,
) -> SqlDatabase:
    """The database behind ``engine``; its connections are as many as ``db_max_async_connections`` says."""
    user = server.user

    def turned(up: bool, why: str) -> None:
        if up:
            user.log(2, f"{engine.name} is back")
        else:
            user.log(-1, f"{engine.name} is down: {why}")
        if told is not None:
            told(up)

    most = max(1, int(user.globals.get("db_max_async_connections") or 10))
    done = watch(user, server.statistics, engine.name, threshold)
    connections = Connections(
        engine, server.reactor, most, limit=limit, tries=tries, connects=connects, done=done, told=turned
    )
    return SqlDatabase(engine, connections, connections)
