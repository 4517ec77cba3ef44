"""The stream of an external component (XEP-0114; RFC 6120 4), without a socket. Pure.

``ComponentStream.open()`` are the octets that begin it; ``receive(data)`` gives what came: ``Ready``, stanzas, ``Ended``."""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from sipgw.xmpp.reader import CLOSE, STREAMS, Ended, Header, Reader
from sipgw.xmpp.stanza import COMPONENT, Element, local_name

__all__ = ["ComponentStream", "Ended", "Ready"]


class Ready(NamedTuple):
    """The server has accepted us."""


class ComponentStream:
    """One stream as ``domain``, with the secret that the server has for it."""

    def __init__(self, domain: str, secret: str) -> None:
        self.domain = domain
        self._secret = secret
        self.ready = False
        self._reader = Reader()

    def open(self) -> bytes:
        """What begins the stream."""
        return (
            f"<?xml version='1.0'?><stream:stream xmlns='{COMPONENT}' xmlns:stream='{STREAMS}' to={quoteattr(self.domain)}>"
        ).encode()

    @staticmethod
    def close() -> bytes:
        """What ends it."""
        return CLOSE

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._reader.ended

    def receive(self, data: bytes) -> tuple[bytes, list[Ready | Ended | Element]]:
        """Take octets; what to send at once, and what has come. Nothing comes after ``Ended``."""
        out = b""
        found: list[Ready | Ended | Element] = []
        for event in self._reader.receive(data):
            if isinstance(event, Header):
                text = event.attributes.get("id", "") + self._secret
                out += f"<handshake>{hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()}</handshake>".encode()
            elif isinstance(event, Ended) or self.ready:
                found.append(event)
            elif local_name(event) == "handshake":
                self.ready = True
                found.append(Ready())
        return out, found
