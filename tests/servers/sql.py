"""SQL databases for the tests: a private PostgreSQL and a private MariaDB for the whole run, and SQLite, which needs no server.

``fresh(engine)`` gives the URL of a new and empty database; a test that freezes or stops a server restores it. As a test runs
for each engine: write it once with ``engine`` as an attribute, and subclass (``tests/db/cases.py``)."""

from __future__ import annotations

import functools
import itertools
import os
import pwd
import random
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.children import HOST, wait_for
from tests.servers.private import PrivateServer, folder

__all__ = ["ENGINES", "MariaDb", "Postgres", "SqlServer", "fresh", "mariadb", "missing", "postgres", "server", "sqlite"]

ENGINES = ("sqlite", "postgres", "mysql")
USER = "sip"
PASSWORD = "si'p@%/1"
"""A password that has to be escaped, so that URLs are tested by the way."""
ESCAPED = "si'p%40%25%2F1"
S = TypeVar("S", bound=PrivateServer)
_numbers = itertools.count(1)


def missing(engine: str) -> str | None:
    """Why a test cannot have that engine; None if it can, or if it must (on a machine that says ``CI``)."""
    if engine == "sqlite" or os.environ.get("CI"):
        return None
    command, package = ("initdb", "postgresql") if engine == "postgres" else ("mariadbd", "mariadb-server")
    return None if _program(command) else f"{package} is not installed: make test, or tests/install.sh {package}="


def lasting_port() -> int:
    """A TCP port that nobody has, and that no outgoing connection is given while its server is down for a moment."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


def _program(name: str) -> str | None:
    """Where a program is, on the path or where Debian keeps it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda file: int(file.parts[-3]))
        found = str(versions[-1]) if versions else None
    return found


def _need(name: str) -> str:
    found = _program(name)
    if found is None:
        raise AssertionError(f"{name} is not installed")
    return found


def _owner(name: str) -> str | None:
    """The user a server runs as: root may not run PostgreSQL."""
    if os.geteuid() != 0:
        return None
    pwd.getpwnam(name)
    return name


class SqlServer(PrivateServer):
    """A server with many databases; ``stop``, ``freeze`` and the others are those of every private server."""

    scheme = ""
    port: int

    def url(self, database: str) -> str:
        """The URL of one database, with its user and password."""
        return f"{self.scheme}://{USER}:{ESCAPED}@{HOST}:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make an empty database; its URL."""
        self.restore()
        self.administer(f"CREATE DATABASE {database}")
        return self.url(database)

    def administer(self, *statements: str) -> list[Any]:
        """Run statements as the server's master; the rows of the last."""
        raise NotImplementedError


class Postgres(SqlServer):
    """PostgreSQL; ``durable``: with fsync."""

    scheme = "postgres"

    def __init__(self, durable: bool = False) -> None:
        directory = folder("postgres")
        owner = _owner("postgres")
        self.port = lasting_port()
        data = directory / "data"
        data.mkdir(mode=0o700)
        if owner:
            for each in (directory, data):
                shutil.chown(each, owner, owner)
        (directory / "password").write_text(PASSWORD)
        (directory / "password").chmod(0o644)
        setup = [_need("initdb"), "-D", str(data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={directory / 'password'}"]
        options = ["--no-sync", "--no-locale", "-E", "UTF8"]
        who: Any = {"user": owner, "group": owner, "extra_groups": []} if owner else {}
        made = subprocess.run([*setup, *options], cwd=directory, capture_output=True, text=True, **who)
        if made.returncode:
            raise AssertionError(f"initdb: {made.stdout[-2000:]}{made.stderr[-2000:]}")
        settings = {
            "port": self.port,
            "listen_addresses": HOST,
            "unix_socket_directories": directory,
            "fsync": "on" if durable else "off",
            "shared_buffers": "32MB",
            "dynamic_shared_memory_type": "mmap",
            "max_connections": 60,
            "autovacuum": "off",
        }
        command = [_need("postgres"), "-D", str(data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        super().__init__("postgres", command, directory, self._serves, owner)

    def administer(self, *statements: str) -> list[Any]:
        """Run statements in the database "postgres"."""
        import psycopg

        with psycopg.connect(self._master(), autocommit=True) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _master(self) -> str:
        from psycopg.conninfo import make_conninfo

        return make_conninfo(host=HOST, port=self.port, user=USER, password=PASSWORD, dbname="postgres", connect_timeout=5)

    def _serves(self) -> bool:
        import psycopg

        try:
            self.administer("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def signal(self, number: int) -> None:
        """Send a signal; what stops or goes on is all its processes, what ends is the first, which ends the others."""
        import signal

        if number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in self._children():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
        super().signal(signal.SIGINT if number == signal.SIGTERM else number)

    def _children(self) -> list[int]:
        if not self.running or self._process is None:
            return []
        pid = self._process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def sleeps(self, database: str) -> bool:
        """Whether a statement sleeps there."""
        asked = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'PgSleep'"
        return bool(self.administer(asked))

    def disconnect(self, database: str) -> None:
        """Break off whoever is connected to ``database``, as an administrator would; when this returns they are gone."""
        asked = f"SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
        gone = {row[0] for row in self.administer(asked)}
        wait_for(lambda: not gone & {row[0] for row in self.administer("SELECT pid FROM pg_stat_activity")}, "backends end")


class MariaDb(SqlServer):
    """MariaDB; ``durable``: with fsync."""

    scheme = "mysql"

    def __init__(self, durable: bool = False) -> None:
        directory = folder("mariadb")
        owner = _owner("mysql")
        self.port = lasting_port()
        data = directory / "data"
        data.mkdir(mode=0o700)
        if owner:
            for each in (directory, data):
                shutil.chown(each, owner, owner)
        who = [f"--user={owner}"] if owner else []
        setup = [_need("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--skip-test-db", *who]
        made = subprocess.run(
            [*setup, "--auth-root-authentication-method=normal"], cwd=directory, capture_output=True, text=True
        )
        if made.returncode:
            raise AssertionError(f"mariadb-install-db: {made.stdout[-2000:]}{made.stderr[-2000:]}")
        command = [
            _need("mariadbd"),
            "--no-defaults",
            f"--datadir={data}",
            f"--port={self.port}",
            f"--bind-address={HOST}",
            f"--socket={directory / 'socket'}",
            f"--pid-file={directory / 'pid'}",
            f"--innodb-flush-log-at-trx-commit={1 if durable else 2}",
            "--innodb-buffer-pool-size=32M",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
        ]
        super().__init__("mariadbd", command, directory, self._serves, owner)

    def start(self, wait: bool = True) -> None:
        """Start it; the first time with our user."""
        first = self._process is None
        super().start(wait)
        if first and wait:
            secret = PASSWORD.replace("'", "''")
            self.administer(f"CREATE USER '{USER}'@'{HOST}' IDENTIFIED BY '{secret}'", f"GRANT ALL ON *.* TO '{USER}'@'{HOST}'")

    def administer(self, *statements: str) -> list[Any]:
        """Run statements as root."""
        import pymysql

        connection = pymysql.connect(unix_socket=str(self.directory / "socket"), user="root", autocommit=True, connect_timeout=5)
        try:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())
        finally:
            connection.close()

    def _serves(self) -> bool:
        import pymysql

        try:
            self.administer("SELECT 1")
        except pymysql.err.OperationalError:
            return False
        return True

    def sleeps(self, database: str) -> bool:
        """Whether a statement sleeps there."""
        asked = f"SELECT 1 FROM information_schema.processlist WHERE db = '{database}' AND state = 'User sleep'"
        return bool(self.administer(asked))

    def disconnect(self, database: str) -> None:
        """Break off whoever is connected to ``database``, as an administrator would; when this returns they are gone."""
        listed = "SELECT id FROM information_schema.processlist"
        gone = {number for (number,) in self.administer(f"{listed} WHERE db = '{database}'")}
        for number in gone:
            try:
                self.administer(f"KILL {number}")
            except Exception as error:
                if error.args[0] != 1094:  # it has gone by itself
                    raise
        wait_for(lambda: not gone & {number for (number,) in self.administer(listed)}, "connections end")


def _started(make: Callable[[], S]) -> S:
    """A server that runs; another one if somebody takes the port between our look and its start."""
    for left in (2, 1, 0):
        made = make()
        try:
            made.start()
        except AssertionError:
            if not left:
                raise
        else:
            break
    return made


@functools.cache
def postgres(durable: bool = False) -> Postgres:
    """The PostgreSQL of this run."""
    return _started(lambda: Postgres(durable))


@functools.cache
def mariadb(durable: bool = False) -> MariaDb:
    """The MariaDB of this run."""
    return _started(lambda: MariaDb(durable))


def server(engine: str) -> Postgres | MariaDb:
    """The server of "postgres" or "mysql"."""
    return postgres() if engine == "postgres" else mariadb()


def sqlite(directory: str) -> str:
    """The URL of a new SQLite database in ``directory``, which must be there."""
    file = Path(directory).absolute() / "opensips.sqlite"
    file.touch()
    return f"sqlite://{file}"


def fresh(engine: str, directory: str | None = None) -> str:
    """The URL of a new and empty database of "sqlite", "postgres" or "mysql"."""
    if engine == "sqlite":
        return sqlite(directory or str(folder("sqlite")))
    return server(engine).create(f"test_{next(_numbers)}")


