"""Bodies that scripts change: parts to add and to take away, session descriptions to edit (RFC 2046 5.1, RFC 8866).

A body is seen as it is now, with the changes that were made before. Its Content-Type changes with it: a message with one part
left is no multipart any more, one with a second part becomes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sipgw.script.run import Run
from sipgw.sip.body import MediaType, Multipart, Part
from sipgw.sip.edits import EditList
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.sdp import SessionDescription

SDP = "application/sdp"


@dataclass(frozen=True, slots=True)
class _Head:
    """A note: the header lines that the body needs now, Content-Type first; "" for an empty body."""

    text: str


def _write_head(edits: EditList, way: Any) -> str:
    return edits.notes(_Head)[-1].text


class Body:
    """The body of a run's message as it is now. ``parts`` is a list to change; ``save`` puts it into the run's edits."""

    __slots__ = ("_multipart", "_run", "head", "parts")

    def __init__(self, run: Run) -> None:
        """Read it; ``MalformedMessage`` if its type or its parts cannot be read."""
        self._run = run
        heads = run.edits.notes(_Head)
        data = run.edits.new_body
        if data is None:
            data = run.message.body
        if heads:
            self.head = heads[-1].text
        else:
            self.head = _received_head(run)
        whole = Part(data, head=self.head)
        self._multipart: Multipart | None = None
        boundary = whole.media_type.boundary if self.head and data else None
        if boundary is not None:
            self._multipart = Multipart.parse(data, boundary, run.message.limits)
            self.parts = self._multipart.parts
        else:
            self.parts = [whole] if data else []

    @property
    def is_typed(self) -> bool:
        """Whether a Content-Type says what it is."""
        return bool(self.head)

    @property
    def media_type(self) -> MediaType | None:
        """The type of the whole; None where none is said."""
        return Part(b"", head=self.head).media_type if self.head else None

    def has(self, pattern: str) -> bool:
        """Whether there is a part of that type, or the whole is."""
        if not self.head or not self.parts:
            return False
        whole = self.media_type
        return (whole is not None and whole.matches(pattern)) or any(part.media_type.matches(pattern) for part in self.parts)

    def write(self) -> bytes:
        """The bytes that the parts make, with no head."""
        if self._multipart is not None and len(self.parts) > 1:
            return self._multipart.write()
        return self.parts[0].body if self.parts else b""

    def add(self, part: Part) -> None:
        """Add a part; with a second one the body becomes multipart/mixed."""
        self.parts.append(part)
        if len(self.parts) == 2 and self._multipart is None:
            boundary = _boundary(self.parts)
            self._multipart = Multipart(boundary, self.parts)

    def save(self) -> None:
        """Put the body, and its head if that is another now, into the run's edits."""
        if len(self.parts) > 1:
            assert self._multipart is not None
            boundary = self._multipart.boundary
            whole = self.media_type
            if whole is None or whole.boundary != boundary:
                self.head = f"Content-Type: multipart/mixed;boundary={boundary}"
        elif self._multipart is not None or not self.parts or not self.head:
            self.head = self.parts[0].head if self.parts else ""
        run = self._run
        edits = run.edits.body(self.write())
        heads = edits.notes(_Head)
        if heads or self.head != _received_head(run):
            edits = edits.note(_Head(self.head))
            if not heads:
                edits = _make_room(run, edits)
        run.edits = edits


def _received_head(run: Run) -> str:
    value = run.message.content_type
    return "" if value is None else f"Content-Type: {value}"


def _make_room(run: Run, edits: EditList) -> EditList:
    """Take the received Content-Type away; what the last note says stands in its place, or before Content-Length."""
    names = run.message.names
    if "content-type" in names:
        line = names.index("content-type")
        edits = edits.delete(line)
    elif "content-length" in names:
        line = names.index("content-length")
    else:
        line = len(names) - 1
    return edits.later(line, _write_head)


def _boundary(parts: list[Part]) -> str:
    """A boundary that occurs in none of ``parts`` (RFC 2046 5.1.1)."""
    number = 1
    while any(f"--sipgw-part-{number}".encode() in part.body for part in parts):
        number += 1
    return f"sipgw-part-{number}"


def read(run: Run, what: str) -> Body | None:
    """The body of ``run``; None, with an error logged, if it cannot be read."""
    try:
        return Body(run)
    except MalformedMessage as error:
        run.user.log_rarely(("body", what), -1, f"{what}: {error.reason}")
        return None


def descriptions(run: Run, what: str) -> Iterator[SessionDescription]:
    """Every session description in the body, to read."""
    body = read(run, what)
    if body is None or not body.is_typed:
        return
    for part in body.parts:
        if part.media_type.matches(SDP):
            yield SessionDescription.parse(part.body)


def change_descriptions(run: Run, what: str, change: Callable[[SessionDescription], bool]) -> bool:
    """Let ``change`` edit every session description in the body; False if none of them was changed."""
    body = read(run, what)
    if body is None or not body.is_typed:
        return False
    changed = False
    for part in body.parts:
        if part.media_type.matches(SDP):
            description = SessionDescription.parse(part.body)
            if change(description):
                part.body = description.write()
                changed = True
    if changed:
        body.save()
    return changed
