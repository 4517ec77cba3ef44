"""What the rooms and modules may expect of the server around them: protocols only, no code.

``Server`` is what a module sees (``self.server``); the transaction user, the statistics and the commands hang on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

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
