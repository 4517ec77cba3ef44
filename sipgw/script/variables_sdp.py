r"""The session description of the message: ``$sdp``, ``$sdp.line() .stream() .session() .stream.idx()``.

A line is named by its beginning, case ignored, and by its number among those that begin so: ``a=rtpmap[1]``; a stream by what
follows its ``m=``: ``audio[1]``. Behind a slash comes a word of the line: ``a=fmtp/bitrate=`` (by its beginning) or ``m=/[1]``
(by its number); a slash that belongs to a name is written ``\/``. A word that is named by its beginning keeps it:
``$sdp.line(a=fmtp/bitrate=) = 48000``. What is written is read back at once, unlike other edits."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from sipgw.script.run import Run, Value
from sipgw.script.symbols import Variable
from sipgw.script.values import decode, encode
from sipgw.script.variables_uri import refuse
from sipgw.sip.body import MediaType, Multipart, Part, parts_of
from sipgw.sip.errors import SipError

SDP = "application/sdp"

# ---- the whole description ----


def _is_sdp(part: Part) -> bool:
    try:
        return part.media_type.matches(SDP)
    except SipError:
        return False


def _boundary(run: Run) -> str | None:
    """The boundary of a body of several parts. Raises ``MalformedMessage``."""
    text = run.message.content_type
    return None if text is None else MediaType.parse(text).boundary


def get_sdp(run: Run) -> Value:
    """``$sdp``: the description, with what was changed in it; null without one."""
    message = run.message
    data = run.edits.new_body
    try:
        if data is None:
            parts = parts_of(message)
        else:
            boundary = _boundary(run)
            parts = [Part(data, SDP)] if boundary is None else Multipart.parse(data, boundary, message.limits).parts
    except SipError:
        return None
    part = next((part for part in parts if part.body and _is_sdp(part)), None)
    return None if part is None else decode(part.body)


def set_sdp(run: Run, value: Value) -> bool:
    """``$sdp = ...``: another description; null takes it away."""
    if isinstance(value, int):
        return refuse(run, "$sdp can only be a string")
    message = run.message
    data = encode(value) if value else b""
    edits = run.edits
    try:
        boundary = _boundary(run)
        if boundary is not None:
            old = message.body if edits.new_body is None else edits.new_body
            run.edits = edits.body(_in_parts(Multipart.parse(old, boundary, message.limits), data))
            return True
    except SipError as error:
        return refuse(run, f"$sdp: {error}")
    edits = edits.body(data)
    if data and message.content_type is None:
        edits = edits.append(f"Content-Type: {SDP}")
    elif not data:
        for line in message.positions("content-type"):
            edits = edits.delete(line)
    run.edits = edits
    return True


def _in_parts(body: Multipart, data: bytes) -> bytes:
    """A body of several parts with another description in it, or without one."""
    place = next((number for number, part in enumerate(body.parts) if _is_sdp(part)), None)
    if place is None:
        body.parts.append(Part(data, SDP))
    elif data:
        body.parts[place].body = data
    else:
        del body.parts[place]
    return body.write()


# ---- lines and words ----


class Step(NamedTuple):
    """One step of a name: how it begins, and the number among those that begin so."""

    prefix: str
    number: int


_STEP = re.compile(r"(.*?)(?:\[([0-9]{1,6})\])?", re.DOTALL).fullmatch


@lru_cache(maxsize=256)
def steps_of(name: str) -> tuple[Step, ...]:
    """The steps between the slashes of a name; ``ValueError`` for an index that is none."""
    found = []
    for text in re.split(r"(?<!\\)/", name):
        match = _STEP(text)
        assert match is not None
        if match[2] is None and text.endswith("]"):
            raise ValueError(f"{text!r} has an index that is no number")
        found.append(Step(match[1].replace("\\/", "/").lower(), int(match[2] or 0)))
    return tuple(found)


def _nth(texts: list[str], step: Step, begin: int, end: int) -> int | None:
    """Where, from ``begin`` to ``end``, the text is that a step names."""
    left = step.number
    for place in range(begin, end):
        if texts[place].lower().startswith(step.prefix):
            if left == 0:
                return place
            left -= 1
    return None


Found = tuple[list[str], int, Step | None]
"""The lines of the description, which of them is meant, and the word of it, if one is."""

Finder = Callable[[list[str], tuple[Step, ...]], tuple[int | None, tuple[Step, ...]]]


def _find_line(lines: list[str], steps: tuple[Step, ...]) -> tuple[int | None, tuple[Step, ...]]:
    return _nth(lines, steps[0], 0, len(lines)), steps[1:]


def _find_in_session(lines: list[str], steps: tuple[Step, ...]) -> tuple[int | None, tuple[Step, ...]]:
    return _nth(lines, steps[0], 0, _next_stream(lines, 0)), steps[1:]


def _find_in_stream(lines: list[str], steps: tuple[Step, ...]) -> tuple[int | None, tuple[Step, ...]]:
    begin = _nth(lines, Step("m=" + steps[0].prefix, steps[0].number), 0, len(lines))
    if begin is None or len(steps) == 1:
        return begin, ()
    return _nth(lines, steps[1], begin, _next_stream(lines, begin + 1)), steps[2:]


def _next_stream(lines: list[str], begin: int) -> int:
    return next((place for place in range(begin, len(lines)) if lines[place][:2].lower() == "m="), len(lines))


def _locate(run: Run, name: str, find: Finder) -> Found | None:
    """The line that ``name`` means; None if there is none."""
    text = get_sdp(run)
    if not isinstance(text, str):
        return None
    lines = text.split("\r\n")
    if lines[-1] == "":
        lines.pop()
    try:
        place, words = find(lines, steps_of(name))
    except ValueError:
        return None
    return None if place is None else (lines, place, words[0] if words else None)


def _read(run: Run, name: str, find: Finder) -> Value:
    found = _locate(run, name, find)
    if found is None:
        return None
    lines, place, word = found
    if word is None:
        return lines[place]
    words = lines[place].split(" ")
    number = _nth(words, word, 0, len(words))
    return None if number is None else words[number]


def _write(run: Run, name: str, value: Value, find: Finder) -> bool:
    found = _locate(run, name, find)
    if found is None:
        return refuse(run, f"the session description has no {name}")
    lines, place, word = found
    text = None if value is None else str(value)
    if text is not None and ("\n" in text or "\r" in text):
        return refuse(run, "a line of a session description cannot hold another one")
    if word is not None:
        words = lines[place].split(" ")
        number = _nth(words, word, 0, len(words))
        if number is None:
            return refuse(run, f"the session description has no {name}")
        words[number : number + 1] = [] if text is None else [words[number][: len(word.prefix)] + text]
        text = " ".join(words)
    lines[place : place + 1] = [] if text is None else [text]
    return set_sdp(run, "".join(f"{line}\r\n" for line in lines))


def _variable(title: str, find: Finder) -> Variable:
    def get(run: Run, name: str) -> Value:
        return _read(run, name, find)

    def put(run: Run, name: str, value: Value) -> bool:
        return _write(run, name, value, find)

    return Variable(title, get, put, takes_name=True, check=check_name)


def get_stream_index(run: Run, name: str) -> Value:
    """``$sdp.stream.idx(video/a=ptime)``: the number of that line in the description, for ``$sdp.line([5])``."""
    found = _locate(run, name, _find_in_stream)
    return None if found is None else found[1]


def get_sdp_named(run: Run, name: str) -> Value:
    """``$sdp(x)``: as ``$sdp``; OpenSIPS takes the name and does not look at it."""
    return get_sdp(run)


def set_sdp_named(run: Run, name: str, value: Value) -> bool:
    """``$sdp(x) = ...``."""
    return set_sdp(run, value)


def check_name(name: str) -> None:
    """Refuse a name with an index that is no number (a variable may stand for one)."""
    if "$" not in name:
        steps_of(name)


VARIABLES = (
    Variable("sdp", get_sdp, set_sdp),
    Variable("sdp", get_sdp_named, set_sdp_named, takes_name=True),
    _variable("sdp.line", _find_line),
    _variable("sdp.stream", _find_in_stream),
    _variable("sdp.session", _find_in_session),
    Variable("sdp.stream.idx", get_stream_index, takes_name=True, check=check_name),
)
