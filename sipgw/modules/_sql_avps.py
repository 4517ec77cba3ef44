"""The AVPs of users in tables such as usr_preferences: whose they are, what they are called, where they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from sipgw.script.errors import ScriptError
from sipgw.script.formats import parse_variable
from sipgw.script.run import Run
from sipgw.sip.errors import SipError
from sipgw.sip.uri import Uri

INT_VALUE = 1
"""The bit of the column "type" that says that the value is a number."""
_PARTS = ("username", "domain", "uri", "uuid")
_URIS = ("ru", "fu", "tu", "ou")
"""Variables that hold a URI."""


class Source(NamedTuple):
    """Whose AVPs: a variable or a text, and what of it counts."""

    text: str
    is_variable: bool
    part: str


class AvpName(NamedTuple):
    """Which AVPs: ``name`` (a variable if ``is_variable``), None for all; where: a table, or a scheme."""

    name: str | None
    is_variable: bool
    table: str
    scheme: str


class Owner(NamedTuple):
    """What stands in the columns that say whose a row is; None is not looked at."""

    uuid: str | None = None
    username: str | None = None
    domain: str | None = None


@dataclass(frozen=True)
class Scheme:
    """A table of another shape: ``db_scheme``."""

    name: str
    table: str = ""
    uuid_col: str = ""
    username_col: str = ""
    domain_col: str = ""
    value_col: str = ""
    integer: bool = False


def parse_source(text: str) -> Source:
    """``(variable|text)[/(username|domain|uri|uuid)]``; ``ValueError`` for anything else."""
    text, _, part = text.strip().partition("/")
    part = part.lower()
    if part and part not in _PARTS:
        raise ValueError(f"{part!r} is no part of an address: write username, domain, uri or uuid behind the /")
    if not text:
        raise ValueError("the source is empty")
    if not text.startswith("$"):
        return Source(text, False, part or "uuid")
    try:
        node = parse_variable(text)
    except ScriptError as error:
        raise ValueError(str(error)) from None
    return Source(text, True, part or ("uri" if node.name in _URIS and not node.transformations else "uuid"))


def parse_name(text: str) -> AvpName:
    """``($avp(name)|*)[/(table|$scheme)]``; ``ValueError`` for anything else."""
    name, slash, where = text.strip().partition("/")
    if slash and not where.strip("$"):
        raise ValueError("there is no table or scheme behind the /")
    table, scheme = ("", where[1:]) if where.startswith("$") else (where, "")
    if not name.startswith("$"):
        if name[:1].lower() not in ("*", "s", "i", "a") or not (name[1:] or "0").isdigit():
            raise ValueError(f"{name!r} names no AVP: write $avp(name), or * for all")
        if scheme:
            raise ValueError("a scheme needs the name of one AVP")
        return AvpName(None, False, table, scheme)
    try:
        node = parse_variable(name)
    except ScriptError as error:
        raise ValueError(str(error)) from None
    if node.name != "avp" or node.subname is None or node.transformations or node.index is not None:
        raise ValueError(f"{name} is no AVP: write $avp(name), or * for all")
    if isinstance(node.subname, str):
        return AvpName(node.subname.removeprefix("s:"), False, table, scheme)
    return AvpName(name[len("$avp(") : -1], True, table, scheme)


def parse_plain_name(text: str) -> AvpName:
    """The same without schemes, which can only be read."""
    found = parse_name(text)
    if found.scheme:
        raise ValueError("schemes can only be loaded")
    return found


def parse_scheme(text: str) -> Scheme:
    """``name:element=value;...``; ``ValueError`` for anything else."""
    name, colon, rest = text.partition(":")
    name = name.strip()
    found: dict[str, str] = {}
    for element in filter(None, map(str.strip, rest.split(";"))):
        match = re.fullmatch(r"(\w+)\s*=\s*(\S+)", element)
        key = match[1].lower() if match else ""
        if match is None or key not in ("uuid_col", "username_col", "domain_col", "value_col", "value_type", "table"):
            raise ValueError(f"{element!r} is no element of a scheme: write table=, value_col=, value_type= and so on")
        if key in found:
            raise ValueError(f"{key} stands twice")
        found[key] = match[2]
    kind = found.pop("value_type", "string").lower()
    if not name or not colon or not found:
        raise ValueError("write name:table=...;value_col=...")
    if kind not in ("integer", "string"):
        raise ValueError(f"value_type is integer or string, not {kind!r}")
    return Scheme(name, integer=kind == "integer", **found)


def owner_of(text: str, part: str, use_domain: bool) -> Owner:
    """Whose the rows are; ``ValueError`` if ``text`` has not the part that is asked for."""
    if part == "uuid":
        return Owner(uuid=text)
    try:
        uri = Uri.parse(text)
    except SipError as error:
        raise ValueError(f"{text!r} is no URI: {error}") from None
    user, host = uri.user, uri.host
    if part in ("uri", "username") and not user:
        raise ValueError(f"{text!r} has no user")
    if part in ("uri", "domain") and not host:
        raise ValueError(f"{text!r} has no host")
    if part == "username":
        return Owner(username=user)
    if part == "domain":
        return Owner(domain=host)
    return Owner(username=user, domain=host if use_domain else None)


def loaded(run: Run) -> dict[str, list[int | str]]:
    """The values that came from a table, which need not go there again."""
    found: dict[str, list[int | str]] = run.keep().setdefault("sqlops", {})
    return found
