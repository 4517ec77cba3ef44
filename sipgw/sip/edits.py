"""Changes that wait until a message is written, as OpenSIPS's lumps do.

A script does not see its own header edits; they meet the received lines only in ``write``. An ``EditList`` is a
persistent chain: each method returns a longer list and leaves the old one as it was, so that a branch can go on from
the list of its parent, be dropped, or be written twice, and nothing is ever copied. Line numbers are those of
``message.lines`` and columns those of the received line, whatever was edited before.

What wins where edits meet: on one line the last ``delete`` or ``replace`` decides, and spans in that line then have no
effect; overlapping spans of one line are taken away together and their texts stand in the order they were given.
Insertions stay, whatever happens to the line they were put next to, in the order they were given.

Texts are whole header lines without the last CRLF; one at the end is taken off, CRLFs inside make several headers.

What depends on the way that a message takes (its Record-Route names the socket it leaves from) is inserted ``later``: as a
function that gives the text when the message is written. ``note`` keeps any object in the chain for such a function to find.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from sipgw.sip.address import split_first
from sipgw.sip.errors import Misuse
from sipgw.sip.message import Message

__all__ = ["NO_EDITS", "EditList", "remove_first_value", "write", "write_popped"]

T = TypeVar("T")

_DELETE, _REPLACE, _SPAN, _BEFORE, _AFTER, _APPEND, _BODY, _FIRST_LINE, _LATER, _NOTE = range(10)
_AROUND: Final = (_BEFORE, _AFTER)
_BLANK: Final = ("", "")  # joined behind the last header: the end of its line, and the blank line


class EditList:
    """Holds one edit and the list it was added to. ``NO_EDITS`` is the empty list every other begins with."""

    __slots__ = ("_data", "_end", "_kind", "_line", "_parent", "_start", "_text")

    def __init__(
        self, parent: EditList | None, kind: int, line: int = 0, text: str = "", start: int = 0, end: int = 0,
        data: Any = b"",
    ) -> None:
        self._parent = parent
        self._kind = kind
        self._line = line
        self._text = text
        self._start = start
        self._end = end
        self._data = data

    def __bool__(self) -> bool:
        return self._parent is not None

    def delete(self, line: int) -> EditList:
        """Take away a header, folds included."""
        return EditList(self, _DELETE, _header_line(line))

    def delete_span(self, line: int, start: int, end: int) -> EditList:
        """Take away the characters ``start`` to ``end`` of a line."""
        return EditList(self, _SPAN, line, "", start, end)

    def replace(self, line: int, text: str) -> EditList:
        """Put another header in the place of one."""
        return EditList(self, _REPLACE, _header_line(line), _trim(text))

    def replace_span(self, line: int, start: int, end: int, text: str) -> EditList:
        """Put ``text`` in the place of the characters ``start`` to ``end`` of a line; equal ones only insert."""
        return EditList(self, _SPAN, line, text, start, end)

    def insert_before(self, line: int, text: str) -> EditList:
        """Put a header before the one in ``lines[line]``."""
        return EditList(self, _BEFORE, _header_line(line), _trim(text))

    def insert_after(self, line: int, text: str) -> EditList:
        """Put a header after ``lines[line]``; line 0, the start line, makes it the first header."""
        return EditList(self, _AFTER, line, _trim(text))

    def append(self, text: str) -> EditList:
        """Put a header after the last one."""
        return EditList(self, _APPEND, 0, _trim(text))

    def body(self, data: bytes) -> EditList:
        """Put another body in the place of the received one; Content-Length follows."""
        return EditList(self, _BODY, 0, "", 0, 0, data)

    def first_line(self, text: str) -> EditList:
        """Put another start line in the place of the received one."""
        return EditList(self, _FIRST_LINE, 0, _trim(text))

    def later(self, line: int, make: Callable[[EditList, Any], str]) -> EditList:
        """Put before ``lines[line]`` the header that ``make(edits, way)`` gives when the message is written; "" is none.

        ``edits`` is the whole list then, ``way`` what was given to ``write``."""
        return EditList(self, _LATER, _header_line(line), "", 0, 0, make)

    def note(self, data: object) -> EditList:
        """Keep ``data``; it changes nothing by itself."""
        return EditList(self, _NOTE, 0, "", 0, 0, data)

    def notes(self, kind: type[T]) -> list[T]:
        """What was kept with ``note`` or given to ``later`` and is a ``kind``, in order."""
        found: list[T] = []
        edit: EditList | None = self
        while edit is not None:
            if edit._kind >= _LATER and isinstance(edit._data, kind):
                found.append(edit._data)
            edit = edit._parent
        found.reverse()
        return found

    def without(self, kind: type) -> EditList:
        """The list without what was given to ``later`` or kept with ``note`` and is a ``kind``."""
        kept: list[EditList] = []
        edit: EditList | None = self
        while edit is not None and edit._parent is not None:
            kept.append(edit)
            edit = edit._parent
        made = NO_EDITS
        for edit in reversed(kept):
            if not (edit._kind >= _LATER and isinstance(edit._data, kind)):
                made = EditList(made, edit._kind, edit._line, edit._text, edit._start, edit._end, edit._data)
        return made

    @property
    def new_body(self) -> bytes | None:
        """The body given last, ``None`` if the received one stays."""
        edit: EditList | None = self
        while edit is not None:
            if edit._kind == _BODY:
                body: bytes = edit._data
                return body
            edit = edit._parent
        return None


NO_EDITS: Final = EditList(None, _APPEND)
"""The empty list."""


def _header_line(line: int) -> int:
    if line < 1:
        raise Misuse("the start line is edited by first_line() and spans only")
    return line


def _trim(text: str) -> str:
    return text[:-2] if text.endswith("\r\n") else text


def write(
    message: Message, edits: EditList, *, ensure_length: bool = False, way: Any = None, via: str = "", start: str = "",
) -> bytes:
    """Return the octets to send: untouched lines as they came, edits applied.

    Content-Length is put right (or added) when the body was replaced; with ``ensure_length`` it is added even to an
    untouched message that has none, as a stream demands (RFC 3261 18.3). ``way`` is for the edits made ``later``.
    What every relayed request needs is no edit: ``via``, header lines to put before the first Via as the last insertion
    there, and ``start``, another start line (RFC 3261 16.6 steps 2 and 8)."""
    out: list[str | None] = message.lines[:]  # type: ignore[assignment]
    body = None
    if edits._parent is not None or (ensure_length and "content-length" not in message.names):
        body = _apply(message, edits, out, ensure_length, way, via, start)
    else:
        if start:
            out[0] = start
        if via:
            _push_via(message, out, via)
    lines = [line for line in out if line is not None] if None in out else out
    lines += _BLANK  # type: ignore[operator]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + (message.body if body is None else body)


def write_popped(message: Message, edits: EditList, *, ensure_length: bool = False) -> bytes:
    """Return the octets of a response to send on: without its first Via, ``edits`` applied (RFC 3261 16.7 step 3).

    ``ensure_length``: as in ``write``."""
    names = message.names
    if edits._parent is None and "via" in names and not (ensure_length and "content-length" not in names):
        index = names.index("via")
        if "," not in message.lines[index]:
            lines = message.lines[:]
            del lines[index]
            lines += _BLANK
            return "\r\n".join(lines).encode("utf-8", "surrogateescape") + message.body
    return write(message, remove_first_value(edits, message, "via"), ensure_length=ensure_length)


def _push_via(message: Message, out: list[str | None], via: str) -> None:
    names = message.names
    if "via" not in names:
        out[0] = f"{out[0]}\r\n{via}"
        return
    index = names.index("via")
    text = out[index]
    out[index] = via if text is None else f"{via}\r\n{text}"


def _apply(
    message: Message, edits: EditList, out: list[str | None], ensure_length: bool, way: Any, via: str, start: str
) -> bytes | None:
    """Change ``out`` in place; returns the new body, if there is one."""
    chain = []
    edit = edits
    while edit._parent is not None:
        chain.append(edit)
        edit = edit._parent
    body = None
    spans: dict[int, list[EditList]] | None = None
    around: list[EditList] | None = None
    for edit in reversed(chain):
        kind = edit._kind
        if kind == _REPLACE:
            out[edit._line] = edit._text
        elif kind == _DELETE:
            out[edit._line] = None
        elif kind in _AROUND:
            if around is None:
                around = []
            around.append(edit)
        elif kind == _FIRST_LINE:
            out[0] = edit._text
        elif kind == _APPEND:
            out.append(edit._text)
        elif kind == _BODY:
            body = edit._data
        elif kind == _LATER:
            text = edit._data(edits, way)
            if text:
                if around is None:
                    around = []
                around.append(EditList(None, _BEFORE, edit._line, text))
        elif kind == _SPAN:
            if spans is None:
                spans = {}
            spans.setdefault(edit._line, []).append(edit)
    if spans is not None:
        for line, parts in spans.items():
            if out[line] is message.lines[line]:
                out[line] = _splice(message.lines[line], parts)
    if body is not None:
        _set_length(message, out, len(body), True)
    elif ensure_length:
        _set_length(message, out, len(message.body), False)
    if start:
        out[0] = start
    if via:
        _push_via(message, out, via)
    if around is not None:
        _insert(around, out)
    return body


def _insert(around: list[EditList], out: list[str | None]) -> None:
    """Join inserted headers to the line they stand next to, so that no line number moves."""
    if len(around) == 1:
        edit = around[0]
        text = out[edit._line]
        if text is None:
            out[edit._line] = edit._text
        else:
            out[edit._line] = f"{edit._text}\r\n{text}" if edit._kind == _BEFORE else f"{text}\r\n{edit._text}"
        return
    before: dict[int, list[str]] = {}
    after: dict[int, list[str]] = {}
    for edit in around:
        (before if edit._kind == _BEFORE else after).setdefault(edit._line, []).append(edit._text)
    for line in before.keys() | after.keys():
        text = out[line]
        parts = before.get(line, [])
        if text is not None:
            parts.append(text)
        parts.extend(after.get(line, ()))
        out[line] = "\r\n".join(parts)


def _splice(text: str, spans: list[EditList]) -> str:
    """Apply the spans of one line; they may touch or overlap."""
    pieces = []
    position = 0
    for span in sorted(spans, key=lambda edit: edit._start):
        if span._start > position:
            pieces.append(text[position:span._start])
        pieces.append(span._text)
        position = max(position, span._end)
    pieces.append(text[position:])
    return "".join(pieces)


def _set_length(message: Message, out: list[str | None], length: int, changed: bool) -> None:
    """Put Content-Length right where the body has ``changed``, and add it where it is missing."""
    text = f"Content-Length: {length}"
    index = message.names.index("content-length") if "content-length" in message.names else 0
    if not index or out[index] is None:
        out.append(text)
    elif changed:
        out[index] = text


def remove_first_value(edits: EditList, message: Message, name: str) -> EditList:
    """Take away the first value of a header that may hold a list, as when a Via or Route is popped.

    A line with one value goes whole; of ``Via: a, b`` only ``a`` goes. Nothing happens if there is none."""
    positions = message.positions(name)
    if not positions:
        return edits
    line = positions[0]
    text = message.lines[line]
    start = text.index(":") + 1
    end = split_first(text, start)
    if end >= len(text):
        return edits.delete(line)
    return edits.delete_span(line, start, end + 1)
