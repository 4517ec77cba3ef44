"""db_flatstore: rows as lines at the end of files, ``flatstore:/folder``; for acc, say.

The file of a table is ``prefix + table + "_1" + suffix``, or without ``_1`` if ``single_file`` is set: 1 is the number that
sipgw's only process has among those of OpenSIPS. Prefix and suffix may have variables, which are read when a file is opened: at
its first row, and again after ``db_flatstore:rotate``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipgw.core.events import DUMMY
from sipgw.db.errors import DatabaseError
from sipgw.db.flatstore import FlatDatabase
from sipgw.db.threads import in_thread
from sipgw.exports import Module, mi, param
from sipgw.script.compiler import compile_format
from sipgw.script.errors import ScriptError
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.message import parse

Format = Callable[[Run], str]

PROCESS = 1
"""The number in the names of files."""


def _delimiter(text: str) -> None:
    if len(text) != 1 or not " " <= text <= "~" or text == "\\":
        raise ValueError(f"{text!r} cannot stand between values: write one printable character, not a backslash")


class DbFlatstore(Module):
    """Opens databases whose rows are appended to files, and never read."""

    name = "db_flatstore"

    flush: int = param(1, "Whether a row is on disk when it is answered; else the kernel has it")
    delimiter: str = param("|", "What stands between two values", check=_delimiter)
    suffix: str = param(".log", "What follows the table in the name of a file; it may have variables")
    prefix: str = param("", "What stands before the table in the name of a file; it may have variables")
    single_file: int = param(0, "Whether the number of the process is left out of the name")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._open: list[FlatDatabase] = []
        self._formats: dict[str, Format] = {}
        super().__init__(server, **parameters)
        if server is not None:
            server.databases.add("flatstore", self.make)

    def _format(self, text: str) -> Format:
        """A text with variables, compiled once."""
        if text not in self._formats:
            try:
                self._formats[text] = compile_format(text, self.server.symbols) if "$" in text else lambda _run: text
            except ScriptError as error:
                raise DatabaseError(f"db_flatstore: {text!r}: {error.text}") from None
        return self._formats[text]

    async def start(self) -> None:
        """See whether prefix and suffix can be understood."""
        self._format(self.prefix)
        self._format(self.suffix)

    def name_of(self, table: str) -> str:
        """The name of the file of ``table``, as it is now."""
        user = self.server.user
        run = Run(parse(DUMMY), RouteKind.EVENT, None, user.clock(), user)
        number = "" if self.single_file else f"_{PROCESS}"
        return f"{self._format(self.prefix)(run)}{table}{number}{self._format(self.suffix)(run)}"

    def make(self, url: str) -> FlatDatabase:
        """The database of ``url``."""
        folder = url.partition(":")[2]
        if folder.startswith("//"):
            folder = folder[2:]
        if not folder:
            raise DatabaseError(f"{url!r} names no folder: write flatstore:/path/to/folder")
        made = FlatDatabase(
            folder,
            self.name_of,
            delimiter=self.delimiter,
            flush=bool(self.flush),
            in_thread=in_thread(self.server.reactor),
        )
        self._open.append(made)
        return made

    @mi()
    def rotate(self) -> None:
        """Opens each file anew at its next row, after it was moved away."""
        for database in self._open:
            database.rotate()
