r"""LDAP URLs as scripts write them: ``ldap://session/base?attributes?scope?filter`` (RFC 4516), where the host is the name of a
session; and what variables may put into them.

A variable is part of what stands there and nothing more: where a value is expected (``(cn=$rU)``, ``uid=$rU,ou=people``) its
special characters are escaped (RFC 4515 and 4514), and a ``?`` in it never begins the next part. What ``ldap_filter_url_encode``
has made is ``Escaped`` and not escaped again. A variable that is the whole URL, the whole filter or a whole base is the script's
own text and is taken as it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from sipgw.script.parts import Hole, Parts
from sipgw.script.values import to_text

SCOPES = {"base": "base", "one": "one", "onelevel": "one", "sub": "sub", "subtree": "sub"}
LONGEST_FILTER = 1024 * 4
"""Octets of a filter."""

_FILTER = re.compile("[*()\\\\\0\udc80-\udcff]")
_NAME = re.compile("[,+\"\\\\<>;=\0*()\udc80-\udcff]|^[ #]| $")


class Escaped(str):
    """A text whose special characters are escaped already."""

    __slots__ = ()


@dataclass(frozen=True)
class LdapUrl:
    """What a URL asks for; without attributes, all of them."""

    session: str
    base: str
    attributes: tuple[str, ...]
    scope: str
    filter: str


def escape_filter(text: str) -> str:
    r"""``text`` as a value in a filter: ``* ( ) \`` and NUL as ``\hh`` (RFC 4515 3), octets that are no UTF-8 too."""
    return _FILTER.sub(_hexadecimal, text)


def escape_name(text: str) -> str:
    r"""``text`` as a value in a distinguished name, its special characters as ``\hh`` (RFC 4514 2.4)."""
    return _NAME.sub(_hexadecimal, text)


def _hexadecimal(found: re.Match[str]) -> str:
    return f"\\{ord(found[0]) & 0xFF:02x}"


def url_encode(text: str) -> str:
    """``text`` as a part of a URL: what would end the part, or look like an escape, as ``%hh``."""
    return text.replace("%", "%25").replace("?", "%3F")


def filter_url_encode(text: str) -> Escaped:
    r"""What ``ldap_filter_url_encode`` makes: ``* ( ) \`` and NUL as ``\hh``, ``?`` as ``%3F``."""
    return Escaped(escape_filter(text).replace("?", "%3F"))


def joined(parts: Parts) -> str:
    """A URL from the script's own text and what its variables hold."""
    if len(parts.template) == 1:
        return str(parts)
    made = ""
    for place, (piece, value) in enumerate(parts):
        if isinstance(piece, str):
            made += piece
            continue
        after = parts.template[place + 1] if place + 1 < len(parts.template) else ""
        text = value if isinstance(value, str) else to_text(value)
        made += _fitted(text, made, _alone(made, after))
    return made


def _alone(before: str, after: str | Hole) -> bool:
    """Whether a variable is the whole of its part of the URL."""
    start = before.endswith("?") or (before.count("?") == 0 and before.count("/") == 3 and before.endswith("/"))
    return start and isinstance(after, str) and after[:1] in ("", "?")


def _fitted(value: str, before: str, alone: bool) -> str:
    """A variable's value as it may stand behind ``before``."""
    if isinstance(value, Escaped):
        return str(value)
    part = before.count("?")
    if alone or part in (1, 2):
        return url_encode(value)
    if part == 0:
        _, slash, base = before.partition("://")[2].partition("/")
        if not slash:
            return url_encode(value).replace("/", "%2F")
        last = re.split(r"(?<!\\),", base)[-1]
        return url_encode(escape_name(value) if "=" in last else value)
    return url_encode(escape_filter(value))


def parse(text: str) -> LdapUrl:
    """Read a URL; ``ValueError`` says what is wrong with it."""
    text = "".join(text.split("\n")).strip()
    if not text.lower().startswith("ldap://"):
        raise ValueError("an LDAP URL begins with ldap://")
    session, _, rest = text[7:].partition("/")
    parts = [_decoded(part) for part in rest.split("?")]
    if len(parts) > 4:
        raise ValueError("an LDAP URL is ldap://session/base?attributes?scope?filter: extensions have no meaning here")
    base, attributes, scope, filter = [*parts, "", "", ""][:4]
    if not session:
        raise ValueError("an LDAP URL needs the name of a session: ldap://session/")
    found = SCOPES.get(scope.strip().lower() or "base")
    if found is None:
        raise ValueError(f"the scope is base, one or sub, not {scope!r}")
    filter = filter.strip() or "(objectClass=*)"
    if not filter.startswith("("):
        filter = f"({filter})"
    if len(filter) > LONGEST_FILTER:
        raise ValueError("the filter is too long")
    names = tuple(name.strip() for name in attributes.split(",") if name.strip())
    return LdapUrl(unquote_to_bytes(session).decode(), base.strip(), names, found, filter)


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
