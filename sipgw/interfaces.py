"""What the rooms and modules may expect of the server around them: protocols only, no code.

``Server`` is what a module sees (``self.server``); the transaction user, the statistics and the commands hang on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from sipgw.exports import Command
    from sipgw.script.symbols import Symbols
    from sipgw.statistics import Statistics


class Commands(Protocol):
    """The management commands by name (``sipgw/mi/commands.py``)."""

    async def call(self, method: str, params: list[Any] | dict[str, Any] | None = None) -> Any:
        """Run one command; its result, or an ``MIError``."""

    async def answer(self, data: bytes, pretty: bool = False) -> Iterator[bytes] | None:
        """Answer one JSON-RPC request in pieces to be sent as the peer takes them; None where nothing is to be said."""

    def names(self) -> list[str]:
        """The canonical names, in order."""

    def find(self, name: str) -> Command:
        """The command of that canonical, older or unambiguous local name, or an ``MIError``."""


Value = int | float | str | bytes | datetime | None
"""What a column holds; times are naive and local, as OpenSIPS's tables keep them."""
Where = Mapping[str, Value] | Sequence[tuple[str, str, Value]]
"""Which rows: columns and what they equal, or (column, operator, value) with one of ``= != < > <= >=``; all must hold."""


class Change(NamedTuple):
    """One write of a ``Database.batch``: ``insert`` (values), ``update`` (values, where), ``delete`` (where), or ``replace``
    (values, with ``keys`` naming those of its columns that say which row it is)."""

    kind: str
    table: str
    values: Mapping[str, Value] = {}
    where: Where = ()
    keys: Sequence[str] = ()


class Rows(Protocol):
    """What a select gave: the names of the columns, and the rows as tuples."""

    columns: Sequence[str]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Row by row."""

    def __len__(self) -> int:
        """How many rows."""

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """One row."""


class Database(Protocol):
    """One database behind a URL (``sipgw/db``). Every method waits without holding up the reactor, has a time limit, and
    raises ``sipgw.db.errors.DatabaseError``: ``Unavailable`` where the database cannot be asked (down, too slow, too much
    waiting already), ``Refused`` where it does not take the statement, ``Duplicate`` where a unique key is there already,
    ``Unsupported`` where this kind of database cannot do such a thing. Values are always bound, never written into the text;
    names of tables and columns must be plain identifiers. ``name`` is its URL without the password, for log lines."""

    name: str
    dialect: str
    """The scheme of its URL: sqlite, mysql, postgres, text, virtual, flatstore, cachedb."""

    async def select(
        self, table: str, columns: Sequence[str] = (), where: Where = (), *, order: str = "", limit: int = 0
    ) -> Rows:
        """The rows of ``table`` (no columns: all), in the order of the column ``order``, ``limit`` at most if not 0."""

    async def insert(self, table: str, values: Mapping[str, Value]) -> None:
        """Add one row."""

    async def update(self, table: str, values: Mapping[str, Value], where: Where) -> int:
        """Change rows; how many."""

    async def delete(self, table: str, where: Where) -> int:
        """Delete rows; how many."""

    async def replace(self, table: str, values: Mapping[str, Value], keys: Sequence[str]) -> None:
        """Add one row, or change the one that has the same ``keys``."""

    async def batch(self, changes: Sequence[Change]) -> None:
        """Do all of ``changes`` in order, in one transaction: when this returns they are on disk, when it raises none is."""

    async def query(self, text: str, values: Sequence[Value] = ()) -> Rows:
        """Run a statement of the database's own language; ``?`` stands for each of ``values``. Raw statements of scripts too."""

    def quote(self, text: str) -> str:
        """``text`` as it may stand between quotes in a statement of a script."""


class Databases(Protocol):
    """The databases of one server, opened once for each URL. Modules ``db_*`` say which schemes there are."""

    def add(self, scheme: str, engine: Callable[[str], Database]) -> None:
        """Let ``engine(url)`` make the databases whose URLs begin with ``scheme:``."""

    async def open(self, url: str) -> Database:
        """The database of ``url``, of ``db_default_url`` if that is empty; ``DatabaseError`` says what is wrong with it."""

    async def check(self, database: Database, table: str, version: int) -> None:
        """Compare the version of ``table`` (``db_version_table``); ``DatabaseError`` if it is not there or another one."""


class LogConsumer(Protocol):
    """A place where log lines go, and which of them (``sipgw/log.py``)."""

    filter: int
    muted: int
    absent: str


class Server(Protocol):
    """One running sipgw, as its modules see it."""

    statistics: Statistics
    commands: Commands
    modules: dict[str, Any]
    user: Any
    reactor: Any
    arguments: list[str]
    databases: Databases
    log_taps: list[Callable[[int, str], None]]
    """Called with level and text of each line of the log, whatever the consumers take; they must not log."""

    @property
    def consumers(self) -> Mapping[str, LogConsumer]:
        """Where log lines go: stderror, syslog, event."""

    @property
    def symbols(self) -> Symbols:
        """What the script may call and read: for modules that compile texts of their own."""

    def reload_routes(self) -> Any:
        """Compile the configuration again and swap the routes; an awaitable that raises with every fault of the file."""

    def stop(self) -> None:
        """Begin an orderly shutdown."""

    def later(self, seconds: float, call: Callable[[], Any]) -> Any:
        """Call ``call`` after ``seconds``; what it returns can be cancelled."""
