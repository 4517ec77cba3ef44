"""db_postgres: PostgreSQL databases, ``postgres://user:password@host:port/database``."""

from __future__ import annotations

from typing import Any

from sipgw.db.database import SqlDatabase
from sipgw.db.postgres import PostgresEngine
from sipgw.exports import Module, param
from sipgw.modules._db_servers import need, open_server


def _not_negative(value: int) -> None:
    if value < 0:
        raise ValueError("write 0 or more")


def _positive(value: int) -> None:
    if value < 1:
        raise ValueError("write 1 or more: sipgw never waits for a database without an end")


class DbPostgres(Module):
    """Opens PostgreSQL databases. A query that takes longer than ``timeout`` is given up."""

    name = "db_postgres"
    exec_query_threshold: int = param(0, "How long a query may take unnoticed, in microseconds; 0: any time", check=_not_negative)
    max_db_queries: int = param(2, "How often a query that changes nothing is tried if connections break", check=_not_negative)
    use_tls: int = param(0, "1: connections are encrypted if the server can do that, without looking who it is")
    timeout: int = param(5, "How long to connect and a query may take, in seconds", check=_positive)

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        if server is not None:
            for scheme in ("postgres", "postgresql"):
                server.databases.add(scheme, self.make)

    def make(self, url: str) -> SqlDatabase:
        """The database of ``url``."""
        need("psycopg", "pgsql", url)
        more = {"sslmode": "prefer" if self.use_tls else "disable"}
        engine = PostgresEngine(url, float(self.timeout), float(self.timeout), more)
        return open_server(
            self.server, engine, limit=float(self.timeout), tries=self.max_db_queries, threshold=self.exec_query_threshold
        )
