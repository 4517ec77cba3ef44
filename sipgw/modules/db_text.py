"""db_text: databases in folders of text files, ``text:///folder``, a file for each table (``sipgw db create text:///folder``).

COMPAT: ``text://folder`` without the third slash is beside the script that runs (in OpenSIPS: in the folder it was built with).
Changes are written when they are made; OpenSIPS writes when it stops."""

from __future__ import annotations

import os
from typing import Any

from sipgw.db.errors import DatabaseError
from sipgw.db.text import TextDatabase, folder_of
from sipgw.db.threads import in_thread
from sipgw.exports import Module, mi, param
from sipgw.mi.jsonrpc import MIError


def _mode(value: int) -> None:
    if value not in (0, 1):
        raise ValueError("write 0 (files are read once) or 1 (whenever they have changed)")


class DbText(Module):
    """Opens databases that are folders of text files. What is changed is on disk when the change is answered."""

    name = "db_text"

    db_mode: int = param(0, "0: files are read once; 1: again whenever somebody else has changed them", check=_mode)
    buffer_size: int = param(4096, "How long a field may be, in octets", unused="fields may be of any length")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._open: dict[str, TextDatabase] = {}
        super().__init__(server, **parameters)
        if server is not None:
            server.databases.add("text", self.make)

    def make(self, url: str) -> TextDatabase:
        """The database of ``url``."""
        server: Any = self.server
        reading = getattr(server, "reading", None)
        base = os.path.dirname(os.path.abspath(reading.file)) if reading is not None else ""
        folder = folder_of(url, base)
        made = TextDatabase(folder, fresh=bool(self.db_mode), in_thread=in_thread(server.reactor))
        self._open[folder.rstrip("/")] = made
        return made

    @mi(alias="dbt_dump")
    async def dump(self) -> None:
        """Writes back what has changed; it is written already, so this waits for what is under way."""
        for database in self._open.values():
            await database.close()

    @mi(alias="dbt_reload", recipes=((), ("db_name",), ("db_name", "table_name")))
    async def reload(self, db_name: str = "", table_name: str = "") -> None:
        """Reads tables again: all, those of one folder, or one. What cannot be read stays as it is."""
        name = db_name.removeprefix("text://").rstrip("/")
        if name and name not in self._open:
            raise MIError(400, "Bad parameter value", f"no database is open in {db_name}")
        for folder, database in self._open.items():
            if name in ("", folder):
                await database.close()
                try:
                    database.reload(table_name)
                except DatabaseError as error:
                    raise MIError(500, "Internal error", str(error)) from None
