"""Server Dialback (XEP-0220): keys that only we can make and check, and the words that carry them. Pure.

Who says to be a domain shows a key for our stream; we ask the server that the DNS names for that domain whether the key is its
own. So nobody speaks for a domain who does not answer for its name."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from sipgw.sip.trees import clean
from sipgw.xmpp.stanza import Element

__all__ = ["DIALBACK", "Word", "key_for", "key_is_right", "word", "written"]

DIALBACK: Final = "jabber:server:dialback"
LONGEST: Final = 1024


def key_for(secret: bytes, receiving: str, originating: str, stream_id: str) -> str:
    """The key by which ``originating`` shows itself to ``receiving`` on a stream (XEP-0185)."""
    text = f"{receiving} {originating} {stream_id}".encode("utf-8", "replace")
    return hmac.new(hashlib.sha256(secret).hexdigest().encode(), text, hashlib.sha256).hexdigest()


def key_is_right(secret: bytes, key: str, receiving: str, originating: str, stream_id: str) -> bool:
    """Whether ``key`` is that which we have made."""
    right = key_for(secret, receiving, originating, stream_id).encode()
    return hmac.compare_digest(right, key.strip().encode("utf-8", "replace"))


class Word(NamedTuple):
    """``name``: "result" or "verify"; ``type``: empty for a question, else "valid", "invalid" or "error"."""

    name: str
    sender: str
    receiver: str
    type: str = ""
    id: str = ""
    key: str = ""


def word(element: Element) -> Word | None:
    """What an element of dialback says; None if it is none."""
    name = element.tag.removeprefix(f"{{{DIALBACK}}}")
    if name not in ("result", "verify"):
        return None
    key = (element.text or "").strip()[:LONGEST]
    return Word(name, element.get("from", ""), element.get("to", ""), element.get("type", ""), element.get("id", ""), key)


def written(said: Word) -> bytes:
    """A word as octets. The prefix stands there as in the XEP's text: OpenSIPS looks for it."""
    values = {"from": said.sender, "to": said.receiver, "id": said.id, "type": said.type}
    shown = "".join(f" {name}={quoteattr(clean(value))}" for name, value in values.items() if value)
    if said.type == "error":
        inner = "<error type='cancel'><remote-server-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    else:
        inner = escape(clean(said.key))
    return f"<db:{said.name}{shown}>{inner}</db:{said.name}>".encode()
