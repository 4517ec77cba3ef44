"""Variables of the Request-URI, the next hop, From and To: ``$ru $rU $du $ou $fu $tu`` and their parts.

What would make a URI that cannot be read is refused: the assignment fails, is logged, and the old URI stays (OpenSIPS writes it
and finds out later)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipgw.script.run import Run, Value
from sipgw.script.symbols import Variable
from sipgw.script.values import L_ERR, wrong
from sipgw.sip.address import NameAddr
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.grammar import parse_uint
from sipgw.sip.message import Request
from sipgw.sip.uri import Uri

PORTS = {"udp": 5060, "tcp": 5060, "sctp": 5060, "tls": 5061, "ws": 80, "wss": 443}
"""The port that a URI without one means, by its transport; 0 for any other."""

Getter = Callable[[Run], Value]


def refuse(run: Run, text: str) -> bool:
    """Log that an assignment fails; answers False."""
    wrong(run, text, L_ERR)
    return False


def transport_of(uri: Uri) -> str:
    """The transport that a URI asks for, as written; udp, or tls for sips, when it does not say."""
    return uri.param("transport") or ("tls" if uri.scheme == "sips" else "udp")


def port_of(uri: Uri) -> int:
    """The port of a URI, or that of its transport."""
    return PORTS.get(transport_of(uri).lower(), 0) if uri.port is None else uri.port


# ---- the Request-URI ----


def get_ru(run: Run) -> Value:
    """``$ru``."""
    return run.uri or None


def set_ru(run: Run, value: Value) -> bool:
    """``$ru = ...``: a URI; its q is forgotten."""
    if not isinstance(value, str):
        return refuse(run, "$ru can only be a string")
    try:
        Uri.parse(value)
    except SipError as error:
        return refuse(run, f"$ru cannot be {value!r}: {error}")
    run.uri = value
    run.q = -1
    return True


def _uri(run: Run) -> Uri | None:
    try:
        return run.request_uri if run.uri else None
    except SipError:
        return None


def get_ru_user(run: Run) -> Value:
    """``$rU``: null when there is none."""
    uri = _uri(run)
    return None if uri is None else uri.user or None


def get_ru_domain(run: Run) -> Value:
    """``$rd``."""
    uri = _uri(run)
    return None if uri is None else uri.host or None


def get_ru_port(run: Run) -> Value:
    """``$rp``: the port of the transport when none is written."""
    uri = _uri(run)
    return None if uri is None else port_of(uri)


def get_ru_protocol(run: Run) -> Value:
    """``$rP``."""
    uri = _uri(run)
    return None if uri is None else transport_of(uri)


def _rewrite(run: Run, what: str, change: Callable[[Uri], Uri]) -> bool:
    try:
        run.uri = change(run.request_uri).text
    except SipError as error:
        return refuse(run, f"{what}: {run.uri!r} stays: {error}")
    return True


def set_ru_user(run: Run, value: Value) -> bool:
    """``$rU = ...``: null or "" takes the user away."""
    if isinstance(value, int):
        return refuse(run, "$rU can only be a string")
    return _rewrite(run, "$rU", lambda uri: uri.with_user(value or None))


def set_ru_domain(run: Run, value: Value) -> bool:
    """``$rd = ...``."""
    if not isinstance(value, str) or not value:
        return refuse(run, "$rd can only be a string")
    return _rewrite(run, "$rd", lambda uri: uri.with_host(value))


def read_port(value: Value) -> int | None:
    """The port that a value means: null or "" is none."""
    return None if value is None or value == "" else parse_uint(str(value), 65535, "port")


def set_ru_port(run: Run, value: Value) -> bool:
    """``$rp = ...``: null takes the port away."""
    return _rewrite(run, "$rp", lambda uri: uri.with_port(read_port(value)))


def get_ru_q(run: Run) -> Value:
    """``$ru_q``: q times 1000, -1 when there is none."""
    return run.q


def set_ru_q(run: Run, value: Value) -> bool:
    """``$ru_q = ...``: at most 1000, below 0 for none."""
    if not isinstance(value, int):
        return refuse(run, "$ru_q can only be a number")
    run.q = max(-1, min(value, 1000))
    return True


# ---- the next hop ----


def get_du(run: Run) -> Value:
    """``$du``: the outbound proxy, null when the Request-URI decides."""
    return run.dst_uri


def set_du(run: Run, value: Value) -> bool:
    """``$du = ...``: null or "" resets it. What is no URI is kept, as in OpenSIPS: then nothing can be relayed."""
    if value is None or value == "":
        run.dst_uri = None
        return True
    if not isinstance(value, str):
        return refuse(run, "$du can only be a string")
    if "\r" in value or "\n" in value or "\0" in value:
        return refuse(run, f"$du cannot be {value!r}")
    run.dst_uri = value
    return True


def _parsed(text: str | None) -> Uri | None:
    try:
        return None if text is None else Uri.parse(text)
    except SipError:
        return None


def get_du_domain(run: Run) -> Value:
    """``$dd``."""
    uri = _parsed(run.dst_uri)
    return None if uri is None else uri.host or None


def get_du_port(run: Run) -> Value:
    """``$dp``."""
    uri = _parsed(run.dst_uri)
    return None if uri is None else port_of(uri)


def get_du_protocol(run: Run) -> Value:
    """``$dP``."""
    uri = _parsed(run.dst_uri)
    return None if uri is None else transport_of(uri)


def _rewrite_du(run: Run, what: str, change: Callable[[Uri], Uri]) -> bool:
    if run.dst_uri is None:
        return refuse(run, f"{what}: there is no $du")
    try:
        run.dst_uri = change(Uri.parse(run.dst_uri)).text
    except SipError as error:
        return refuse(run, f"{what}: {run.dst_uri!r} stays: {error}")
    return True


def set_du_domain(run: Run, value: Value) -> bool:
    """``$dd = ...``: only where there is a ``$du``."""
    if not isinstance(value, str) or not value:
        return refuse(run, "$dd can only be a string")
    return _rewrite_du(run, "$dd", lambda uri: uri.with_host(value))


def set_du_port(run: Run, value: Value) -> bool:
    """``$dp = ...``: null takes the port away."""
    return _rewrite_du(run, "$dp", lambda uri: uri.with_port(read_port(value)))


def get_path(run: Run) -> Value:
    """``$path``: the Path vector."""
    return run.path or None


# ---- the Request-URI as it came ----


def get_ou(run: Run) -> Value:
    """``$ou``."""
    return getattr(run.message, "uri", None)


def _original(part: Callable[[Uri], Value]) -> Getter:
    def get(run: Run) -> Value:
        message = run.message
        if not isinstance(message, Request):
            return None
        try:
            return part(message.request_uri)
        except MalformedMessage:
            return None

    return get


# ---- From, To and other addresses ----


def address_part(read: Callable[[Run], NameAddr | None], part: Callable[[NameAddr], Value]) -> Getter:
    """A getter of a part of an address; null when there is none or it cannot be read."""

    def get(run: Run) -> Value:
        try:
            address = read(run)
            return None if address is None else part(address)
        except SipError:
            return None

    return get


def _from(run: Run) -> NameAddr:
    return run.message.from_


def _to(run: Run) -> NameAddr:
    return run.message.to


def uri_text(address: NameAddr) -> Value:
    """The URI of an address."""
    return address.uri_text


def user(address: NameAddr) -> Value:
    """Its user."""
    return address.uri.user or None


def domain(address: NameAddr) -> Value:
    """Its host."""
    return address.uri.host or None


def display(address: NameAddr) -> Value:
    """Its display name, quotes kept."""
    return address.display or None


def tag(address: NameAddr) -> Value:
    """Its tag."""
    return address.tag or None


_FU = address_part(_from, uri_text)
_FROM_USER = address_part(_from, user)
_FROM_DOMAIN = address_part(_from, domain)
_TU = address_part(_to, uri_text)
_TO_USER = address_part(_to, user)
_TO_DOMAIN = address_part(_to, domain)

ROWS: list[tuple[str, Any, Any]] = [
    ("ru", get_ru, set_ru),
    ("ruri", get_ru, set_ru),
    ("rU", get_ru_user, set_ru_user),
    ("ruri.user", get_ru_user, set_ru_user),
    ("rd", get_ru_domain, set_ru_domain),
    ("ruri.domain", get_ru_domain, set_ru_domain),
    ("rp", get_ru_port, set_ru_port),
    ("rP", get_ru_protocol, None),
    ("ru_q", get_ru_q, set_ru_q),
    ("du", get_du, set_du),
    ("duri", get_du, set_du),
    ("dd", get_du_domain, set_du_domain),
    ("dp", get_du_port, set_du_port),
    ("dP", get_du_protocol, None),
    ("path", get_path, None),
    ("ou", get_ou, None),
    ("ouri", get_ou, None),
    ("oU", _original(lambda uri: uri.user or None), None),
    ("od", _original(lambda uri: uri.host or None), None),
    ("op", _original(port_of), None),
    ("oP", _original(transport_of), None),
    ("fu", _FU, None),
    ("from", _FU, None),
    ("fU", _FROM_USER, None),
    ("from.user", _FROM_USER, None),
    ("fd", _FROM_DOMAIN, None),
    ("from.domain", _FROM_DOMAIN, None),
    ("fn", address_part(_from, display), None),
    ("ft", address_part(_from, tag), None),
    ("tu", _TU, None),
    ("to", _TU, None),
    ("tU", _TO_USER, None),
    ("to.user", _TO_USER, None),
    ("td", _TO_DOMAIN, None),
    ("to.domain", _TO_DOMAIN, None),
    ("tn", address_part(_to, display), None),
    ("tt", address_part(_to, tag), None),
]

VARIABLES = tuple(Variable(name, getter, setter) for name, getter, setter in ROWS)
