"""Variables that all messages see: ``$shv(name)``."""

from __future__ import annotations

from collections.abc import Iterator

MAX_NAMES = 100_000
"""How many there may be: their names can come from messages (hardening P27)."""


class SharedVariables:
    """Numbers and texts by name; one that was never set is the number 0."""

    def __init__(self) -> None:
        self._values: dict[str, int | str] = {}

    def get(self, name: str) -> int | str:
        """The value of one."""
        return self._values.get(name, 0)

    def set(self, name: str, value: int | str) -> bool:
        """Give one a value; False if there are too many."""
        if name not in self._values and len(self._values) >= MAX_NAMES:
            return False
        self._values[name] = value
        return True

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def items(self) -> Iterator[tuple[str, int | str]]:
        """All of them, in the order in which they were set first."""
        return iter(list(self._values.items()))
