"""db_mysql: MySQL and MariaDB databases, ``mysql://user:password@host:port/database``."""

from __future__ import annotations

from typing import Any

from sipgw.db.database import SqlDatabase
from sipgw.db.mysql import MySqlEngine
from sipgw.exports import Module, event, param
from sipgw.modules._db_servers import need, open_server

TRIES = 3
"""Each timeout counts so often, as in OpenSIPS, whose driver tries again by itself."""


def _not_negative(value: int) -> None:
    if value < 0:
        raise ValueError("write 0 or more")


def _positive(value: int) -> None:
    if value < 1:
        raise ValueError("write 1 or more")


def _no_tls(value: int) -> None:
    if value:
        raise ValueError("databases over TLS need tls_mgm, which comes in a later version of sipgw")


class DbMysql(Module):
    """Opens MySQL and MariaDB databases. A query that takes longer than three times ``timeout_interval`` is given up."""

    name = "db_mysql"
    timeout_interval: int = param(2, "A third of the time a query may take, the time to connect, in seconds", check=_positive)
    exec_query_threshold: int = param(0, "How long a query may take unnoticed, in microseconds; 0: any time", check=_not_negative)
    max_db_retries: int = param(3, "How often a connection is tried", check=_not_negative)
    max_db_queries: int = param(2, "How often a query that changes nothing is tried if connections break", check=_not_negative)
    ps_max_col_size: int = param(1024, "How long a column may be", unused="columns may be of any length")
    use_tls: int = param(0, "Whether a connection is encrypted if its URL names a tls_domain", check=_no_tls)
    connection = event("E_MYSQL_CONNECTION", "url", "status")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        if server is not None:
            server.databases.add("mysql", self.make)

    def make(self, url: str) -> SqlDatabase:
        """The database of ``url``."""
        need("pymysql", "mysql", url)
        limit = float(self.timeout_interval * TRIES)
        engine = MySqlEngine(url, float(self.timeout_interval), limit)

        def told(up: bool) -> None:
            self.connection.emit(url=engine.name, status="connected" if up else "disconnected")

        return open_server(
            self.server,
            engine,
            limit=limit,
            tries=self.max_db_queries,
            connects=self.max_db_retries,
            threshold=self.exec_query_threshold,
            told=told,
        )
