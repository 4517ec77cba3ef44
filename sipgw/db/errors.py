"""What can go wrong with a database."""

from __future__ import annotations

__all__ = ["DatabaseError", "Duplicate", "Refused", "Unavailable", "Unsupported"]


class DatabaseError(Exception):
    """A database did not do what it was asked to; the text says which one and why, without its password."""


class Unavailable(DatabaseError):
    """It cannot be asked now: down, silent for too long, or too much waits for it already. Later it may work."""


class Refused(DatabaseError):
    """It does not take the statement: no such table or column, a value that does not fit, a mistake in the text."""


class Duplicate(Refused):
    """A row with that unique key is there already."""


class Unsupported(DatabaseError):
    """This kind of database cannot do such a thing."""
