"""JSON-RPC 2.0 as the management interface of OpenSIPS speaks it: bytes to a ``Call``, results to bytes. Pure.

What differs from the specification is OpenSIPS's: a batch is an invalid request, ``params`` may not be null, and a request
without an ``id`` gets no answer, unless it is no valid request at all. Text that came from SIP may hold bytes that are not UTF-8;
they go out as U+FFFD, so that every answer is valid JSON.

An answer is written in pieces (``pieces``): a command may give iterators where JSON has arrays, and a hundred thousand contacts
never stand in memory as one text, nor keep the reactor busy in one go (hardening F19)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LIMIT = 1 << 20
"""Octets of one request; a longer one is refused unread (hardening F19)."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
NOT_FOUND = -32601
INVALID_PARAMS = -32602
SERVER_ERROR = -32000
AMBIGUOUS = -32001

_TEXTS = {
    PARSE_ERROR: "Parse error",
    INVALID_REQUEST: "Invalid Request",
    NOT_FOUND: "Method not found",
    INVALID_PARAMS: "Invalid params",
    SERVER_ERROR: "Server error",
    AMBIGUOUS: "Method ambiguous",
}

PIECE = 32768
"""Characters that are gathered before a piece is given out."""
_WHOLE = 6
"""The depth from which values are written in one go: a record of ``{"Domains": [{"AORs": [record]}]}``."""

Id = str | int | float | None


class MIError(Exception):
    """What a management command answers when it fails: a code as in HTTP (400, 404, 500) or of JSON-RPC, and a text.

    ``data`` says more, where there is more to say."""

    def __init__(self, code: int, message: str = "", data: Any = None) -> None:
        self.code = code
        self.message = message or _TEXTS.get(code, "Error")
        self.data = data
        super().__init__(f"{self.code} {self.message}" + ("" if data is None else f": {data}"))


class Refused(MIError):
    """Bytes that are no request; ``id`` is that of the request where it could be read, else None."""

    def __init__(self, code: int, data: Any = None, id: Id = None) -> None:
        super().__init__(code, data=data)
        self.id = id


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``notification``: it has no id, so nobody waits for an answer."""

    method: str
    params: list[Any] | dict[str, Any] | None = None
    id: Id = None
    notification: bool = False


_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def decode(data: bytes) -> Call:
    """Read one request; ``Refused`` says why not. Octets that are not UTF-8 become the surrogates that SIP text has for them."""
    if len(data) > LIMIT:
        raise Refused(PARSE_ERROR, f"more than {LIMIT} octets")
    text = data.decode("utf-8", "surrogateescape")
    try:
        request = json.loads(text, parse_constant=_no_constant)
        if _SURROGATE_ESCAPE.search(text):
            json.dumps(request, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except (ValueError, RecursionError):
        raise Refused(PARSE_ERROR) from None
    if not isinstance(request, dict):
        raise Refused(INVALID_REQUEST)
    id = request.get("id")
    if isinstance(id, bool) or not (id is None or isinstance(id, str | int | float)):
        raise Refused(INVALID_REQUEST)
    method = request.get("method")
    params = request.get("params", {})
    if request.get("jsonrpc") != "2.0" or not isinstance(method, str) or not isinstance(params, list | dict):
        raise Refused(INVALID_REQUEST, id=id)
    return Call(method, params, id, "id" not in request)


def result(id: Id, value: Any) -> dict[str, Any]:
    """The answer to a request that went well."""
    return {"jsonrpc": "2.0", "result": value, "id": id}


def failure(id: Id, error: MIError) -> dict[str, Any]:
    """The answer to a request that did not."""
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return {"jsonrpc": "2.0", "error": body, "id": id}


def notification(method: str, params: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """A request that wants no answer, such as one that tells of an event; without ``params`` where there are none."""
    call: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params:
        call["params"] = params
    return encode(call)


def encode(answer: Any, pretty: bool = False) -> bytes:
    """Write an answer in one piece."""
    return b"".join(pieces(answer, pretty))


def pieces(answer: Any, pretty: bool = False) -> Iterator[bytes]:
    """Write an answer in pieces of about ``PIECE`` octets; ``pretty``: with a tab for each level.

    Raises ``TypeError`` or ``ValueError`` for what JSON cannot hold."""
    gathered: list[str] = []
    size = 0
    for text in _indented(answer, "\n") if pretty else _compact(answer, 0):
        gathered.append(text)
        size += len(text)
        if size >= PIECE:
            yield _octets("".join(gathered))
            gathered.clear()
            size = 0
    if gathered:
        yield _octets("".join(gathered))


def _compact(value: Any, depth: int) -> Iterator[str]:
    """The text of ``value`` without white space; the upper levels bit by bit, the lower ones whole."""
    if depth >= _WHOLE or value is None or isinstance(value, str | int | float):
        yield _write(value)
    elif isinstance(value, dict):
        start = "{"
        for key, member in value.items():
            yield f"{start}{_write(str(key))}:"
            yield from _compact(member, depth + 1)
            start = ","
        yield "{}" if start == "{" else "}"
    else:
        start = "["
        for member in _members(value):
            yield start
            yield from _compact(member, depth + 1)
            start = ","
        yield "[]" if start == "[" else "]"


def _indented(value: Any, line: str) -> Iterator[str]:
    """The text of ``value``, a member in each line, indented by tabs; ``line``: the end of line before it, with its indent."""
    if value is None or isinstance(value, str | int | float):
        yield _write(value)
    elif isinstance(value, dict):
        start = "{"
        for key, member in value.items():
            yield f"{start}{line}\t{_write(str(key))}:\t"
            yield from _indented(member, line + "\t")
            start = ","
        yield "{}" if start == "{" else line + "}"
    else:
        start = "["
        for member in _members(value):
            yield f"{start}{line}\t"
            yield from _indented(member, line + "\t")
            start = ","
        yield "[]" if start == "[" else line + "]"


def _members(value: Any) -> Iterable[Any]:
    """What a JSON array is made of: a list, a tuple, or anything else that can be gone through."""
    if isinstance(value, bytes | bytearray) or not isinstance(value, Iterable):
        raise TypeError(f"no JSON value: {type(value).__name__}")
    return value


def _listed(value: Any) -> list[Any]:
    return list(_members(value))


_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_listed).encode


def _octets(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub("\ufffd", text).encode()


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
