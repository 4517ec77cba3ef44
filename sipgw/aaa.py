"""Authentication, authorization and accounting by servers of their own (OpenSIPS's AAA): what modules ask of RADIUS, or of
whatever else a module brings.

A module such as ``aaa_radius`` says which URLs it serves (``radius:/etc/radcli/radiusclient.conf``); others open theirs (their
``aaa_url``) with ``await server.user.aaa.open(url)``. Attributes and named values are those of the server's dictionary, in any
case of letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from sipgw.script.values import c_int

Attributes = Sequence[tuple[str, int | str]]
"""Names and values, in order; a value may be the name that the dictionary gives a number."""


class AaaError(Exception):
    """A server that does not exist, does not answer, or cannot be asked such a thing."""


class AaaAnswer(NamedTuple):
    """Whether a server has accepted a request, and what it said: each attribute with its dictionary's name, in order."""

    accepted: bool
    attributes: Attributes

    def values(self, name: str) -> list[int | str]:
        """All values of one attribute."""
        wanted = name.lower()
        return [value for key, value in self.attributes if key.lower() == wanted]

    def avps(self) -> list[tuple[str, int | str]]:
        """The AVPs for the script: ``SIP-AVP`` is ``name:text`` or ``name#number``, with or without a ``#`` before the name."""
        found: list[tuple[str, int | str]] = []
        for value in self.values("SIP-AVP"):
            text = str(value).removeprefix("#")
            name = text[: min([place for mark in ":#" if (place := text.find(mark)) >= 0], default=0)]
            rest = text[len(name) + 1 :]
            if name and rest and text[len(name)] == ":":
                found.append((name, rest))
            elif name and rest.isascii() and rest.isdigit():
                found.append((name, c_int(int(rest))))
        return found


class Aaa(Protocol):
    """What one URL names. Each method may wait, within the limits of its configuration, and raises ``AaaError``."""

    def check(self, attributes: Sequence[str], values: Sequence[tuple[str, str]] = ()) -> None:
        """Refuse attributes, or (attribute, name) values, that the dictionary does not have; to be asked at the start."""

    def has(self, attribute: str) -> bool:
        """Whether the dictionary has an attribute."""

    async def authenticate(self, attributes: Attributes) -> AaaAnswer:
        """Ask whether somebody is who he says (or anything else that is answered by yes or no)."""

    async def account(self, attributes: Attributes) -> None:
        """Tell what has happened; returns when a server has it."""


class AaaServers:
    """The kinds of servers that modules bring."""

    def __init__(self) -> None:
        self._openers: dict[str, Callable[[str], Awaitable[Aaa]]] = {}

    def serve(self, scheme: str, opener: Callable[[str], Awaitable[Aaa]]) -> None:
        """Let ``opener(rest)`` make what ``scheme:rest`` names."""
        self._openers[scheme] = opener

    async def open(self, url: str) -> Aaa:
        """What ``url`` names; ``AaaError`` says what is wrong with it."""
        scheme, colon, rest = url.partition(":")
        if not colon or not rest:
            raise AaaError(f"aaa_url {url!r} is none: write radius:/path/of/its/configuration")
        opener = self._openers.get(scheme)
        if opener is None:
            raise AaaError(f'no module is loaded for aaa_url {url!r}: loadmodule "aaa_{scheme}.so"')
        return await opener(rest)
