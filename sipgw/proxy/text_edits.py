"""Text found and replaced in a message as it was received, header lines and body alike (what OpenSIPS's textops does).

Patterns see the octets of the message with its CRLFs, ``^`` and ``$`` at every line as POSIX's REG_NEWLINE has it (so ``$``
stands between the CR and the LF). What is found is turned into edits of lines and of the body. A replacement that would leave
something else than header lines in the head is refused as a whole: a stray CR or an empty line there would let a text make
headers or a body (hardening P5).

Several replacements all look at the received text, as lumps do; one in a body that another module has changed meanwhile looks at
the changed one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from sipgw.proxy.headers import is_header_text
from sipgw.script.regex import Match, Regex
from sipgw.script.run import Run
from sipgw.sip.message import Message

Span = tuple[int, int, bytes]
"""From, to, and what stands there instead."""

MAX_FOUND = 10000
"""How often one call replaces at most."""


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class _BodyText:
    """A note: the body that replacements look at, what they found, and the body that came of it."""

    base: bytes
    spans: tuple[Span, ...]
    result: bytes


class MessageText:
    """The octets of a received message, and where its lines and its body begin in them."""

    __slots__ = ("body", "data", "head", "lines", "starts")

    def __init__(self, message: Message) -> None:
        self.lines = [_encode(line) for line in message.lines]
        self.starts: list[int] = []
        at = 0
        for line in self.lines:
            self.starts.append(at)
            at += len(line) + 2
        self.head = at
        """Behind the CRLF of the last header line."""
        self.body = at + 2
        self.data = b"\r\n".join(self.lines) + b"\r\n\r\n" + message.body


def find(pattern: Regex, data: bytes, begin: int, every: bool) -> list[Match] | None:
    """The first match, or all that do not overlap; None when one of them is empty, which would never end."""
    found: list[Match] = []
    while len(found) < MAX_FOUND:
        match = pattern.search_bytes(data, begin)
        if match is None:
            break
        if match.end() == match.start():
            return None
        found.append(match)
        begin = match.end()
        if not every:
            break
    return found


def replace_in_message(run: Run, what: str, pattern: Regex, make: Callable[[Match], Span], every: bool) -> bool:
    """Replace in all but the start line; False, the error logged, if nothing was found or the head would break."""
    text = MessageText(run.message)
    found = _found(run, what, find(pattern, text.data, text.starts[1], every))
    spans = [make(match) for match in found]
    in_head = [span for span in spans if span[0] < text.head]
    in_body = [(start - text.body, end - text.body, new) for start, end, new in spans if start >= text.body]
    if not spans or len(in_head) + len(in_body) != len(spans):
        return False
    if in_head and not _edit_head(run, what, text, in_head):
        return False
    if in_body:
        _edit_body(run, run.message.body, in_body)
    return True


def replace_in_body(run: Run, what: str, pattern: Regex, make: Callable[[Match], Span], every: bool) -> bool:
    """Replace in the body; False if nothing was found."""
    base = _base(run)[0]
    spans = [make(match) for match in _found(run, what, find(pattern, base, 0, every))]
    if not spans:
        return False
    _edit_body(run, base, spans)
    return True


def _found(run: Run, what: str, found: list[Match] | None) -> list[Match]:
    if found is None:
        run.user.log_rarely(("empty", what), -1, f"{what}: the pattern matches the empty text")
    return found or []


def _base(run: Run) -> tuple[bytes, tuple[Span, ...]]:
    """The body to look at, and what was found in it before."""
    now = run.edits.new_body
    if now is None:
        return run.message.body, ()
    notes = run.edits.notes(_BodyText)
    if notes and notes[-1].result is now:
        return notes[-1].base, notes[-1].spans
    return now, ()


def _edit_body(run: Run, looked_at: bytes, spans: list[Span]) -> None:
    base, before = _base(run)
    if base != looked_at:
        before = ()
    every = (*before, *spans)
    result = _splice(looked_at, every)
    run.edits = run.edits.body(result).note(_BodyText(looked_at, every, result))


def _splice(data: bytes, spans: tuple[Span, ...]) -> bytes:
    """Put every span's text into its place; overlapping ones are taken away together."""
    pieces = []
    at = 0
    for start, end, new in sorted(spans, key=lambda span: span[0]):
        pieces.append(data[at : max(start, at)])
        pieces.append(new)
        at = max(at, end)
    return b"".join(pieces) + data[at:]


def _whole_ends(data: bytes, span: Span) -> Span:
    """``span`` without halves of CRLFs that its text gives back; it begins at -1 if it does not give them back."""
    start, end, new = span
    if data[start - 1 : start + 1] == b"\r\n":
        if not new.startswith(b"\n"):
            return -1, end, new
        start, new = start - 1, b"\r" + new
    if data[end - 1 : end + 1] == b"\r\n":
        if not new.endswith(b"\r"):
            return -1, end, new
        end, new = end - 1, new[:-1]
    return start, end, new


def _edit_head(run: Run, what: str, text: MessageText, spans: list[Span]) -> bool:
    """Turn spans of the head into edits of its lines, if it stays a head."""
    whole: dict[int, list[Span]] = {}
    edits = run.edits
    good = True
    for span in spans:
        start, end, new = _whole_ends(text.data, span)
        if start < 0:
            good = False
            break
        line = bisect_right(text.starts, start) - 1
        begin = text.starts[line]
        if end <= begin + len(text.lines[line]):
            whole.setdefault(line, []).append((start - begin, end - begin, new))
            continue
        last = bisect_right(text.starts, end) - 1
        rest = b"" if end > text.starts[last] + len(text.lines[last]) else text.lines[last][end - text.starts[last] :]
        joined = _decode(text.lines[line][: start - begin] + new + rest)
        good = good and end <= text.head and (not joined or is_header_text(joined))
        if not good:
            break
        stays = rest == text.lines[last] and start == begin and not new
        edits = edits.delete(line) if stays or not joined else edits.replace(line, joined)
        for gone in range(line + 1, last if stays else last + 1):
            edits = edits.delete(gone)
    for line, parts in whole.items():
        good = good and is_header_text(_decode(_splice(text.lines[line], tuple(parts))))
        for start, end, new in parts:
            data = text.lines[line]
            edits = edits.replace_span(line, len(_decode(data[:start])), len(_decode(data[:end])), _decode(new))
    if not good:
        run.user.log_rarely(("head", what), -1, f"{what}: refused, the headers would not be header lines any more")
        return False
    run.edits = edits
    return True
