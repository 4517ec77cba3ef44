"""A transport of events for tests: sockets ``ear:address``, and all that they were told."""

from __future__ import annotations

from typing import Any


class Ears:
    """The transport ``ear:address``; ``told`` is what all its sinks heard."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    async def open(self, address: str) -> Any:
        """The sink of an address."""
        if not address:
            raise ValueError("write ear:address")
        return Ear(self, address)


class Ear:
    """One address."""

    def __init__(self, ears: Ears, address: str) -> None:
        self.ears, self.address = ears, address

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ear) and other.address == self.address

    def send(self, event: str, params: Any) -> bool:
        """Keep it."""
        self.ears.told.append((self.address, event, params))
        return True
