"""XML-RPC as OpenSIPS's mi_xmlrpc speaks it: bytes to a ``Call``, results to bytes. Pure.

One ``struct`` as the only parameter holds named parameters, anything else is a list of positional ones. Errors are faults, their
codes those of the management interface, or of "Specification for Fault Code Interoperability". A document with a DOCTYPE, a
processing instruction, a comment, too much depth or too many elements is refused as soon as that is seen (hardening P18); it
cannot have entities of its own then."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape

from sipgw.mi.jsonrpc import INVALID_PARAMS, INVALID_REQUEST, NOT_FOUND, PARSE_ERROR, PIECE, MIError

MAX_DEPTH = 64
"""Elements inside one another."""
MAX_ELEMENTS = 10000
"""Elements in one document."""

_TEXTS = {
    PARSE_ERROR: "parse error. not well formed",
    INVALID_REQUEST: "server error. invalid xml-rpc. not conforming to spec.",
    NOT_FOUND: "server error. requested method not found",
    INVALID_PARAMS: "server error. invalid method parameters",
}

_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_DOUBLE = re.compile(r"[+-]?(?:[0-9]{1,50}(?:\.[0-9]{0,50})?|\.[0-9]{1,50})")

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\r\n<methodResponse>\r\n'
_FOOT = "\r\n</methodResponse>\r\n"

Params = list[Any] | dict[str, Any]


class Element:
    """One element of a document: its name, its text, the elements in it."""

    __slots__ = ("children", "name", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.children: list[Element] = []

    def only(self, name: str) -> Element:
        """The one element in it, which must have that name."""
        if len(self.children) != 1 or self.children[0].name != name:
            raise _wrong()
        return self.children[0]


def _wrong() -> MIError:
    return MIError(INVALID_REQUEST, _TEXTS[INVALID_REQUEST])


def _parse_error() -> MIError:
    return MIError(PARSE_ERROR, _TEXTS[PARSE_ERROR])


def parse(data: bytes) -> Element:
    """The tree of a document; ``MIError`` if it is none, or has in it what XML-RPC does not need."""
    root = Element("")
    stack = [root]
    count = 0

    def start(name: str, _attributes: Any) -> None:
        nonlocal count
        count += 1
        if len(stack) > MAX_DEPTH or count > MAX_ELEMENTS:
            raise _wrong()
        element = Element(name)
        stack[-1].children.append(element)
        stack.append(element)

    def end(_name: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        stack[-1].text += data

    def refuse(*_arguments: Any) -> None:
        raise _wrong()

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.ProcessingInstructionHandler = refuse
    parser.CommentHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError):
        raise _parse_error() from None
    return root.children[0]


def decode(data: bytes) -> tuple[str, Params]:
    """The method and the parameters of a call; ``MIError`` says what is wrong."""
    call = parse(data)
    names = [child.name for child in call.children]
    if call.name != "methodCall" or names not in (["methodName"], ["methodName", "params"]):
        raise _wrong()
    method = call.children[0].text.strip()
    given = call.children[1].children if len(names) == 2 else []
    if not method or any(param.name != "param" for param in given):
        raise _wrong()
    values = [_value(param.only("value")) for param in given]
    if len(values) == 1 and isinstance(values[0], dict):
        return method, values[0]
    return method, values


def _value(value: Element) -> Any:
    """A ``value``; one without a type is a text."""
    if not value.children:
        return value.text
    if len(value.children) > 1:
        raise _wrong()
    typed = value.children[0]
    name, text = typed.name, typed.text
    if name in ("array", "struct"):
        return _array(typed) if name == "array" else _struct(typed)
    if not typed.children:
        if name == "string":
            return text
        if name in ("int", "i4", "i8") and _INTEGER.fullmatch(text.strip()):
            return int(text)
        if name == "double" and _DOUBLE.fullmatch(text.strip()):
            return float(text)
    raise _wrong()


def _array(array: Element) -> list[Any]:
    values = array.only("data").children
    if any(value.name != "value" for value in values):
        raise _wrong()
    return [_value(value) for value in values]


def _struct(struct: Element) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for member in struct.children:
        if [child.name for child in member.children] != ["name", "value"] or member.name != "member":
            raise _wrong()
        made[member.children[0].text] = _value(member.children[1])
    return made


def result(value: Any) -> Iterator[bytes]:
    """The answer to a call that went well, in pieces; ``TypeError`` for what XML-RPC cannot hold."""
    return _gathered(_HEAD, "<params><param>\r\n", _written(value), "</param></params>", _FOOT)


def failure(error: MIError) -> Iterator[bytes]:
    """The answer to a call that did not."""
    text = _TEXTS.get(error.code, error.message)
    if error.data is not None:
        text += f" ({error.data})"
    members = {"faultCode": error.code, "faultString": text}
    return _gathered(_HEAD, "<fault>", _written(members), "</fault>", _FOOT)


def _gathered(*parts: str | Iterator[str]) -> Iterator[bytes]:
    gathered: list[str] = []
    size = 0
    for part in parts:
        for text in (part,) if isinstance(part, str) else part:
            gathered.append(text)
            size += len(text)
            if size >= PIECE:
                yield "".join(gathered).encode()
                gathered.clear()
                size = 0
    yield "".join(gathered).encode()


def _written(value: Any) -> Iterator[str]:
    """``value`` as an element of that name, bit by bit."""
    if isinstance(value, dict):
        yield "<value><struct>"
        for key, member in value.items():
            yield f"<member><name>{_text(str(key))}</name>"
            yield from _written(member)
            yield "</member>"
        yield "</struct></value>"
    elif value is None:
        yield "<value><nil/></value>"
    elif isinstance(value, str):
        yield f"<value><string>{_text(value)}</string></value>"
    elif isinstance(value, bool):
        yield f"<value><boolean>{int(value)}</boolean></value>"
    elif isinstance(value, int):
        kind = "int" if -0x80000000 <= value <= 0x7FFFFFFF else "i8"
        yield f"<value><{kind}>{value}</{kind}></value>"
    elif isinstance(value, float) and isfinite(value):
        yield f"<value><double>{value:f}</double></value>"
    elif isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
        yield "<value><array><data>"
        for member in value:
            yield from _written(member)
        yield "</data></array></value>"
    else:
        raise TypeError(f"no XML-RPC value: {type(value).__name__}")


def _text(text: str) -> str:
    """Text as XML 1.0 can have it: what it cannot have becomes U+FFFD."""
    return escape(_ILLEGAL.sub("\ufffd", text), {"\r": "&#13;"})
