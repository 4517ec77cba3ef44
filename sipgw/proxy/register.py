"""What a REGISTER says (RFC 3261 10.2): its contacts, its Expires and Path, read as a registrar wants them.

Every fault is a ``Rejected`` with the text that OpenSIPS has for it. The core has refused by then what no element may process
(``Message.check``); these functions do not rely on it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from sipgw.proxy.location import ALL_METHODS
from sipgw.sip.address import Contact, NameAddr, parse_list
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import unquote
from sipgw.sip.message import Message
from sipgw.sip.uri import Uri

__all__ = [
    "METHOD_BITS", "OTHER_METHOD", "Rejected", "bad", "methods_mask", "options", "read_allow", "read_contacts", "read_expires",
    "read_path", "read_q", "read_to", "sip_uri", "written_q",
]

METHOD_BITS: Final = {
    name: 1 << bit
    for bit, name in enumerate(
        "INVITE CANCEL ACK BYE INFO OPTIONS UPDATE REGISTER MESSAGE SUBSCRIBE NOTIFY PRACK REFER PUBLISH".split()
    )
}
"""The bit of each method in ``Binding.methods``, as OpenSIPS's MI shows and takes them."""
OTHER_METHOD: Final = 1 << len(METHOD_BITS)
"""The bit of all methods that have none of their own."""

_q_value = re.compile(r"(?:0?(?:\.[0-9]*)?|1(?:\.0*)?)").fullmatch
_method = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+").fullmatch


class Rejected(Exception):
    """A REGISTER that cannot be done: what to answer, ``error`` for P-Registrar-Error, and further header lines."""

    def __init__(self, status: int, reason: str, error: str, headers: str = "") -> None:
        super().__init__(error)
        self.status = status
        self.reason = reason
        self.error = error
        self.headers = headers


def bad(error: str) -> Rejected:
    """A request that is not well-formed."""
    return Rejected(400, "Bad Request", error)


def read_to(request: Message) -> str:
    """The URI of To, as text."""
    try:
        return request.to.uri_text
    except MalformedMessage:
        raise bad("Error while parsing AOR") from None


@lru_cache(maxsize=512)
def methods_mask(text: str) -> int:
    """The methods in the comma-separated ``text`` as a mask; all of them if one is no token."""
    mask = 0
    for name in text.split(","):
        name = name.strip(" \t")
        if name:
            if _method(name) is None:
                return ALL_METHODS
            mask |= METHOD_BITS.get(name.upper(), OTHER_METHOD)
    return mask


def read_contacts(request: Message) -> list[Contact]:
    """The contacts of ``request``; a header field without any value is malformed."""
    if "contact" not in request.names:
        return []
    try:
        contacts = request.contacts
    except MalformedMessage:
        values = [value.strip() for line in request.headers("contact") for value in line.split(",")]
        if "*" in values and len(values) > 1:
            raise bad("* used in contact and more than 1 contact") from None
        raise bad("Contact parse error") from None
    if not contacts:
        raise bad("Contact parse error")
    return contacts


def read_expires(request: Message) -> int | None:
    """The Expires header field of ``request``."""
    if "expires" not in request.names:
        return None
    try:
        return request.expires
    except MalformedMessage:
        raise bad("Expires parse error") from None


def read_allow(request: Message) -> int:
    """The methods that Allow names as a mask; all of them if there is none."""
    names = request.names
    if "allow" not in names:
        return ALL_METHODS
    if names.count("allow") == 1:
        return methods_mask(request.value(names.index("allow")))
    return methods_mask(",".join(request.headers("allow")))


def options(request: Message) -> list[str]:
    """The option tags that the sender of ``request`` knows, by Supported or Require (RFC 3261 19.2)."""
    return [tag for name in ("supported", "require") if name in request.names for tag in request.values(name)]


def read_path(request: Message, mode: str, want_received: bool) -> tuple[str | None, str | None, str]:
    """The Path to keep, the ``received`` of its first URI (``path-received``), and the Path line of the answer (RFC 3327 5.3)."""
    if "path" not in request.names:
        return None, None, ""
    text = ",".join(request.headers("path"))
    try:
        first = NameAddr.parse(parse_list(text)[0])
        received = first.uri.param("received")
        if not first.uri.is_sip or first.uri.param("lr") is None:
            raise bad("Path parse error")
    except (MalformedMessage, IndexError):
        raise bad("Path parse error") from None
    line = f"Path: {text}\r\n"
    if mode == "off":
        line = ""
    elif not any(option.lower() == "path" for option in request.values("supported")):
        if mode == "strict":
            raise Rejected(420, "Bad Extension", "No support for found Path indicated", f"Unsupported: path\r\n{line}")
        line = ""
    return text, sip_uri(received) if want_received else None, line


def sip_uri(value: str | None) -> str | None:
    """``value`` if it is a SIP URI that a request can be sent to."""
    if not value:
        return None
    text = unquote(value)
    try:
        return text if Uri.parse(text).is_sip else None
    except MalformedMessage:
        return None


def read_q(value: str) -> int:
    """A q value in thousandths. Lenient as OpenSIPS: ``.5``, more than three digits, quotes."""
    value = unquote(value)
    if _q_value(value) is None:
        raise bad("Invalid q param in contact")
    whole, _, fraction = value.partition(".")
    return 1000 if whole == "1" else int(fraction[:3].ljust(3, "0"))


def written_q(q: int) -> str:
    """``q`` as header fields have it: 500 is ``0.5``."""
    return "1" if q >= 1000 else f"{q / 1000:.3f}".rstrip("0").rstrip(".")
