"""What a Redis server sends (RESP 2), cut into answers as it comes.

txredisapi has a reader too, but it takes one value in each turn of the reactor: a list of a thousand would take as many turns."""

from __future__ import annotations

from sipgw.redis.commands import Reply
from sipgw.redis.errors import Refused

DEEPEST = 16
"""How deep lists may stand in lists."""
LONGEST_LINE = 65536
"""Octets of a status, an error or a number."""


class BadAnswer(Exception):
    """What came is no answer of a Redis."""


class Reader:
    """Takes octets, gives answers; an error of the server is a ``Refused`` among them."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._open: list[tuple[int, list[Reply]]] = []
        """The lists that are not complete, outermost first, each with its length."""

    def feed(self, data: bytes) -> list[Reply]:
        """Take what has come; the answers that are complete now. ``BadAnswer``: nothing more can be understood."""
        rest = self._rest
        rest += data
        place = 0
        found: list[Reply] = []
        while (end := rest.find(b"\r\n", place)) >= 0:
            kind, text = rest[place : place + 1], rest[place + 1 : end]
            place = end + 2
            value: Reply
            if kind == b"$":
                length = _number(text)
                if length < 0:
                    value = None
                elif len(rest) < place + length + 2:
                    place = end - len(text) - 1
                    break
                else:
                    value = bytes(rest[place : place + length])
                    place += length + 2
            elif kind == b"*":
                length = _number(text)
                if length > 0:
                    self._open.append((length, []))
                    if len(self._open) > DEEPEST:
                        raise BadAnswer("lists in lists in lists")
                    continue
                value = [] if length == 0 else None
            elif kind == b":":
                value = _number(text)
            elif kind == b"+":
                value = text.decode("utf-8", "surrogateescape")
            elif kind == b"-":
                value = Refused(text.decode("utf-8", "surrogateescape"))
            else:
                raise BadAnswer(f"no answer of a Redis: {bytes(kind + text)[:40]!r}")
            self._complete(value, found)
        else:
            if len(rest) - place > LONGEST_LINE:
                raise BadAnswer("a line without end")
        del rest[:place]
        return found

    def _complete(self, value: Reply, found: list[Reply]) -> None:
        """A value is whole, and with it perhaps the lists that it ends."""
        while self._open:
            length, values = self._open[-1]
            values.append(value)
            if len(values) < length:
                return
            self._open.pop()
            value = values
        found.append(value)


def _number(text: bytes | bytearray) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadAnswer(f"{bytes(text)[:40]!r} is no number") from None
