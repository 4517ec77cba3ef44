"""SQL databases for the tests: a fresh and empty one on each engine."""

from __future__ import annotations

from pathlib import Path

__all__ = ["sqlite"]


def sqlite(directory: str) -> str:
    """The URL of a new SQLite database in ``directory``, which must be there."""
    file = Path(directory).absolute() / "opensips.sqlite"
    file.touch()
    return f"sqlite://{file}"
