"""Texts in bodies: charsets, HTML as plain text. What gateways to other worlds need of the bodies of a MESSAGE."""

from __future__ import annotations

import re
from html import unescape
from typing import Final

from sipgw.sip.errors import SipError

__all__ = ["decode", "plain"]


def decode(body: bytes, charset: str) -> str:
    """The text of a body; what its charset cannot read is U+FFFD, a charset that nobody knows is 415."""
    try:
        text = body.decode(charset, "replace")
    except (LookupError, ValueError):
        raise SipError("Unsupported Media Type", 415) from None
    if not isinstance(text, str):
        raise SipError("Unsupported Media Type", 415)
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\0", "")


_BREAK: Final = re.compile(r"<\s*(?:br|/p|/div|/li|/tr)\b[^>]*>", re.IGNORECASE)
_HIDDEN: Final = re.compile(r"<\s*(script|style|head)\b.*?<\s*/\s*\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_TAG: Final = re.compile(r"<[^<>]*>")


def plain(html: str) -> str:
    """The text of a piece of HTML, lines where it breaks them."""
    text = _HIDDEN.sub("", html)
    text = re.sub(r"[ \t\r\n]+", " ", text)
    text = _TAG.sub("", _BREAK.sub("\n", text))
    return re.sub(r" *\n *", "\n", unescape(text)).strip()
