"""The transformations of SIP's own texts: ``{uri.*}``, ``{via.*}``, ``{nameaddr.*}``, ``{param.*}``, ``{sdp.*}``.

What cannot be parsed gives null, and so does a part that is not there."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from sipgw.sip.address import NameAddr, Via, parse_list
from sipgw.sip.errors import SipError
from sipgw.sip.grammar import unquote
from sipgw.sip.uri import Uri

if TYPE_CHECKING:
    from sipgw.script.run import Value


# ---- {param.*} ----

_PARAM = re.compile(r'[ \t\r\n]*([^;="\s]*)[ \t\r\n]*(?:(=)[ \t\r\n]*("(?:[^"\\]|\\.)*"|[^;"\s]+)[ \t\r\n]*)?(?:;|\Z)', re.DOTALL)


def read_params(text: str) -> list[tuple[str, str]] | None:
    """The parameters of ``a=1;b``: names and values, "" without one; None if the list is empty or malformed."""
    if not text:
        return None
    found: list[tuple[str, str]] = []
    place = 0
    while place < len(text):
        match = _PARAM.match(text, place)
        if match is None:
            return None
        found.append((match[1], unquote(match[3]) if match[2] else ""))
        place = match.end()
    return None if text[-1] == ";" else found


def _value_of(params: list[tuple[str, str]] | None, name: Value) -> Value:
    wanted = str(name).lower()
    return next((value for key, value in params or () if key.lower() == wanted), None)


def _params(value: Value) -> list[tuple[str, str]] | None:
    return None if value is None else read_params(str(value))


def param_value(value: Value, name: Value) -> Value:
    """``{param.value,name}``: quotes around the value taken off."""
    return _value_of(_params(value), name)


def param_exist(value: Value, name: Value) -> Value:
    """``{param.exist,name}``: 1 or 0."""
    params = _params(value)
    return None if params is None else int(_value_of(params, name) is not None)


def _param_at(value: Value, index: Value, part: int) -> Value:
    params = _params(value)
    if params is None or not isinstance(index, int) or not -len(params) <= index < len(params):
        return None
    return params[index][part]


def param_valueat(value: Value, index: Value) -> Value:
    """``{param.valueat,index}``: below 0 from the end."""
    return _param_at(value, index, 1)


def param_name(value: Value, index: Value) -> Value:
    """``{param.name,index}``."""
    return _param_at(value, index, 0)


def param_count(value: Value) -> Value:
    """``{param.count}``."""
    params = _params(value)
    return None if params is None else len(params)


# ---- {uri.*} ----


def parse_uri(value: Value) -> Uri | None:
    """The URI that a value is; None if it is none."""
    if not isinstance(value, str):
        return None
    try:
        return Uri.parse(value)
    except SipError:
        return None


def _uri(part: Callable[[Uri], Value], doc: str) -> Callable[[Value], Value]:
    def transform(value: Value) -> Value:
        uri = parse_uri(value)
        return None if uri is None else part(uri)

    transform.__doc__ = doc
    return transform


def _uri_param(name: str) -> Callable[[Uri], Value]:
    return lambda uri: uri.param(name) or None


uri_user = _uri(lambda uri: uri.user or None, "``{uri.user}``: as it stands, escapes kept.")
uri_host = _uri(lambda uri: uri.host or None, "``{uri.host}``, ``{uri.domain}``: brackets of IPv6 kept.")
uri_passwd = _uri(lambda uri: uri.password or None, "``{uri.passwd}``.")
uri_port = _uri(lambda uri: uri.port, "``{uri.port}``: null when none is written.")
uri_params = _uri(lambda uri: uri.params or None, "``{uri.params}``: the text behind the first semicolon.")
uri_headers = _uri(lambda uri: uri.headers or None, "``{uri.headers}``: the text behind the question mark.")
uri_transport = _uri(_uri_param("transport"), "``{uri.transport}``: as it is written.")
uri_ttl = _uri(_uri_param("ttl"), "``{uri.ttl}``.")
uri_uparam = _uri(_uri_param("user"), "``{uri.uparam}``: the parameter ``user``.")
uri_maddr = _uri(_uri_param("maddr"), "``{uri.maddr}``.")
uri_method = _uri(_uri_param("method"), "``{uri.method}``.")
uri_lr = _uri(_uri_param("lr"), "``{uri.lr}``: its value; a bare ``lr`` has none, ask ``{uri.param,lr}``.")
uri_r2 = _uri(_uri_param("r2"), "``{uri.r2}``.")
uri_schema = _uri(lambda uri: uri.text.partition(":")[0], "``{uri.schema}``: as it is written.")


def uri_param(value: Value, name: Value) -> Value:
    """``{uri.param,name}``: "" for a parameter without a value."""
    uri = parse_uri(value)
    return None if uri is None or name is None else _value_of(read_params(uri.params), name)


# ---- {via.*}: the first of a list ----


@lru_cache(maxsize=32)
def _parse_via(text: str) -> Via | None:
    try:
        values = parse_list(text)
        via = Via.parse(values[0]) if values else None
        if via is not None:
            via.params  # noqa: B018 - reading is the check
        return via
    except SipError:
        return None


def _via(part: Callable[[Via], Value], doc: str) -> Callable[[Value], Value]:
    def transform(value: Value) -> Value:
        via = _parse_via(value) if isinstance(value, str) else None
        return None if via is None else part(via)

    transform.__doc__ = doc
    return transform


def _via_param(name: str) -> Callable[[Via], Value]:
    return lambda via: unquote(via.params.get(name) or "") or None


via_name = _via(lambda via: via.protocol.partition("/")[0], "``{via.name}``: SIP.")
via_version = _via(lambda via: via.protocol.partition("/")[2], "``{via.version}``: 2.0.")
via_transport = _via(lambda via: via.transport, "``{via.transport}``.")
via_host = _via(lambda via: via.host, "``{via.host}``, ``{via.domain}``.")
via_port = _via(lambda via: via.port, "``{via.port}``: null when none is written.")
via_comment = _via(lambda via: via.comment or None, "``{via.comment}``: without its parentheses.")
via_params = _via(lambda via: via.params_text.lstrip(" \t").removeprefix(";") or None, "``{via.params}``.")
via_branch = _via(_via_param("branch"), "``{via.branch}``.")
via_received = _via(_via_param("received"), "``{via.received}``.")
via_rport = _via(_via_param("rport"), "``{via.rport}``: a text.")


def via_param(value: Value, name: Value) -> Value:
    """``{via.param,name}``: "" for a parameter without a value."""
    via = _parse_via(value) if isinstance(value, str) else None
    key = str(name).lower()
    return None if via is None or key not in via.params else unquote(via.params[key] or "")


# ---- {nameaddr.*}: one of a list, by default the first ----


@lru_cache(maxsize=32)
def _parse_addresses(text: str) -> list[tuple[NameAddr, int]] | None:
    """The addresses of a list, each with the length of its text before the parameters."""
    try:
        values = parse_list(text)
        found = [(NameAddr("", value) if value == "*" else NameAddr.parse(value), value) for value in values]
        return [(address, len(value) - len(address.params_text)) for address, value in found]
    except SipError:
        return None


def _address(value: Value, index: int) -> tuple[NameAddr, int] | None:
    found = _parse_addresses(value) if isinstance(value, str) else None
    return found[index] if found is not None and -len(found) <= index < len(found) else None


def nameaddr_name(value: Value, index: int = 0) -> Value:
    """``{nameaddr.name}``: the display name, its quotes kept."""
    found = _address(value, index)
    return None if found is None else found[0].display or None


def nameaddr_uri(value: Value, index: int = 0) -> Value:
    """``{nameaddr.uri}``."""
    found = _address(value, index)
    return None if found is None else found[0].uri_text


def nameaddr_len(value: Value, index: int = 0) -> Value:
    """``{nameaddr.len}``: the length of name and address."""
    found = _address(value, index)
    return None if found is None else found[1]


def nameaddr_param(value: Value, name: Value, index: int = 0) -> Value:
    """``{nameaddr.param,name}``: null for a parameter without a value."""
    found = _address(value, index)
    if found is None:
        return None
    try:
        return unquote(found[0].params.get(str(name).lower()) or "") or None
    except SipError:
        return None


def nameaddr_params(value: Value, index: int = 0) -> Value:
    """``{nameaddr.params}``: the text behind the first semicolon."""
    found = _address(value, index)
    return None if found is None else found[0].params_text.strip(" \t").removeprefix(";") or None


# ---- {sdp.*} ----


def sdp_line(value: Value, prefix: Value, index: Value = 0) -> Value:
    """``{sdp.line,prefix,index}``: a line by its letter; the lines must end with CRLF."""
    if value is None or prefix is None or not isinstance(index, int) or index < 0:
        return None
    lines = [line for line in str(value).split("\r\n")[:-1] if line[:1] == str(prefix)[:1]]
    return lines[index] if index < len(lines) else None


def _streams(value: Value) -> tuple[str, list[str]] | None:
    """The session part and the media streams of a session description (RFC 8866 5)."""
    if value is None or not re.search(r"^o=", str(value), re.MULTILINE):
        return None
    session, *streams = re.split(r"^(?=m=)", str(value), flags=re.MULTILINE)
    return session, streams


def _which(streams: list[str], wanted: Value) -> int | None:
    if isinstance(wanted, int):
        place = wanted + len(streams) if wanted < 0 else wanted
        return place if 0 <= place < len(streams) else None
    prefix = f"m={wanted} ".lower()
    return next((place for place, stream in enumerate(streams) if stream[: len(prefix)].lower() == prefix), None)


def sdp_stream(value: Value, wanted: Value) -> Value:
    """``{sdp.stream,wanted}``: the lines of one medium, by its type or its number."""
    found = _streams(value)
    place = None if found is None else _which(found[1], wanted)
    return None if found is None or place is None else found[1][place]


def sdp_stream_delete(value: Value, wanted: Value) -> Value:
    """``{sdp.stream-delete,wanted}``: the description without that medium."""
    found = _streams(value)
    place = None if found is None else _which(found[1], wanted)
    if found is None or place is None:
        return None
    return found[0] + "".join(stream for number, stream in enumerate(found[1]) if number != place)
