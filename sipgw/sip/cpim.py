"""message/cpim (RFC 3862): a message with headers of its own, which gateways pass on whole.

::

    From: Alice <sip:alice@example.com>
    To: <sip:bob@example.com>
    NS: imdn <urn:ietf:params:imdn>
    imdn.Message-ID: 34jk324j

    Content-Type: text/plain; charset=utf-8

    Hello

First the headers of the message, then those of its content, then the content. Names of headers keep their case; those with a
prefix belong to the namespace that an ``NS`` header before them gives it (3.4)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sipgw.sip.address import NameAddr
from sipgw.sip.body import MediaType
from sipgw.sip.errors import MalformedMessage

__all__ = ["CPIM", "Cpim"]

CPIM: Final = "message/cpim"
HEADERS: Final = 64
"""Headers of one message at most."""
_NS: Final = re.compile(r"\s*(?:([A-Za-z0-9!#$%&'*+_`^~-]+)\s+)?<([^<>]*)>\s*")
_ESCAPE: Final = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPES: Final = {"b": "\b", "t": "\t", "n": "\n", "r": "\r"}


class Cpim:
    """One message. ``headers`` in order, ``mime`` the headers of the content (names in any case), ``body`` its octets."""

    __slots__ = ("body", "headers", "mime")

    def __init__(
        self, headers: Sequence[tuple[str, str]] = (), mime: Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        self.headers = list(headers)
        self.mime = list(mime)
        self.body = body

    @classmethod
    def parse(cls, data: bytes) -> Cpim:
        """Read a body; ``MalformedMessage`` if it is none. Lines may end with LF alone, as some clients write them."""
        head, body = _block(data)
        headers = _lines(head)
        if not body and not headers:
            raise MalformedMessage("Bad CPIM message")
        if headers and headers[0][0].lower() == "content-type" and headers[0][1].lower().startswith(CPIM):
            head, body = _block(body)  # its own type, written once more
            headers = _lines(head)
        head, content = _block(body)
        return cls(headers, _lines(head), content)

    def header(self, name: str, namespace: str = "") -> str | None:
        """The value of the first header of that name, escapes resolved; None if there is none."""
        prefixes: dict[str, str] = {}
        for each, value in self.headers:
            if each == "NS":
                found = _NS.fullmatch(value)
                if found is not None:
                    prefixes[found[1] or ""] = found[2]
                continue
            prefix, dot, local = each.rpartition(".")
            if (local == name and prefixes.get(prefix) == namespace) if dot else (each == name and not namespace):
                return _ESCAPE.sub(_resolve, value)
        return None

    def address(self, name: str) -> NameAddr | None:
        """The address in From, To or cc; None if there is none that can be read."""
        value = self.header(name)
        try:
            return None if value is None else NameAddr.parse(value)
        except MalformedMessage:
            return None

    @property
    def subject(self) -> str | None:
        """The subject, without its language."""
        value = self.header("Subject")
        return None if value is None else re.sub(r"^;\s*lang=[A-Za-z0-9-]+\s*", "", value)

    @property
    def content_type(self) -> MediaType:
        """What the content is; text/plain where it does not say (RFC 2045 5.2)."""
        for name, value in self.mime:
            if name.lower() == "content-type":
                return MediaType.parse(value)
        return MediaType("text/plain", {})

    def write(self) -> bytes:
        """The octets of the message."""
        lines = [f"{name}: {_escape(value)}" for name, value in self.headers]
        lines.append("")
        lines += [f"{name}: {value}" for name, value in self.mime]
        lines += ["", ""]
        return "\r\n".join(lines).encode("utf-8", "surrogateescape") + self.body


def _block(data: bytes) -> tuple[str, bytes]:
    """The lines before the first empty one, and what follows it."""
    if data.startswith((b"\r\n", b"\n")):
        return "", data.partition(b"\n")[2]
    found = re.search(rb"\r?\n\r?\n", data)
    if found is None:
        return data.decode("utf-8", "surrogateescape"), b""
    return data[: found.start()].decode("utf-8", "surrogateescape"), data[found.end() :]


def _lines(head: str) -> list[tuple[str, str]]:
    lines = re.sub(r"\r?\n[ \t]+", " ", head).splitlines()
    if len(lines) > HEADERS:
        raise MalformedMessage("CPIM message with too many headers")
    headers: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise MalformedMessage("Bad CPIM message")
        headers.append((name.strip(), value.strip()))
    return headers


def _resolve(found: re.Match[str]) -> str:
    text = found[1]
    if len(text) == 5:
        return chr(int(text[1:], 16))
    return _ESCAPES.get(text, text)


def _escape(value: str) -> str:
    """``value`` as a header may say it: no line end gets through."""
    return value.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n").replace("\0", "\\u0000")
