"""The answer of a management command as a person reads it: tables, and lines that are indented.

What came from SIP may hold anything; characters that steer a terminal are shown, not sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WIDEST = 60
"""Characters of a column at most."""


def plain(value: Any) -> str:
    """A single value in one line, without characters that steer a terminal."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show(value: Any) -> str:
    """The text of a value."""
    return "\n".join(_lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if not value:
            yield "(nothing)"
        flat = [(plain(key), plain(member)) for key, member in value.items() if not _nested(member)]
        width = max((len(key) for key, _ in flat), default=0)
        for key, text in flat:
            yield f"{key:{width}}  {text}"
        for key, member in value.items():
            if _nested(member):
                yield f"{plain(key)}:"
                for line in _lines(member):
                    yield f"  {line}".rstrip()
    elif isinstance(value, list | tuple):
        yield from _list(value)
    else:
        yield plain(value)


def _list(members: Sequence[Any]) -> Iterator[str]:
    rows = [each for each in members if isinstance(each, Mapping) and each]
    if not members:
        yield "(none)"
    elif len(rows) < len(members):
        for each in members:
            yield ", ".join(map(plain, each)) if isinstance(each, list) and not any(map(_nested, each)) else show(each)
    elif any(_nested(member) for row in rows for member in row.values()):
        for number, row in enumerate(rows):
            if number:
                yield ""
            yield from _lines(row)
    else:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        yield from table([plain(key) for key in columns], [[plain(row.get(key, "")) for key in columns] for row in rows])


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows under their heads; numbers stand right."""
    widths = [min(WIDEST, max(len(text) for text in column)) for column in zip(head, *rows, strict=True)]
    numbers = [all(row[at].lstrip("-").isdigit() for row in rows) for at in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        cells = []
        for text, width, number in zip(row, widths, numbers, strict=True):
            short = text if len(text) <= width else f"{text[: width - 1]}…"
            cells.append(f"{short:>{width}}" if number else f"{short:{width}}")
        yield "  ".join(cells).rstrip()
