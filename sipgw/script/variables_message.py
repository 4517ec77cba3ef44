"""Variables of what the message says: ``$rm $rs $ci $cs $ct $hdr() $rb`` and the like.

An index is None where the script writes none; below 0 it counts from the end; "*" joins all values. What is not there is null."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipgw.script.run import Run, Value
from sipgw.script.symbols import Variable
from sipgw.script.values import SET, UNSET, decode
from sipgw.script.variables_uri import address_part, display, domain, uri_text, user
from sipgw.sip.address import Contact, NameAddr
from sipgw.sip.auth import Challenge, Credentials
from sipgw.sip.body import Part, parts_of
from sipgw.sip.edits import NO_EDITS, write
from sipgw.sip.errors import SipError
from sipgw.sip.grammar import unquote
from sipgw.sip.message import Request, Response

Index = int | str | None


def pick(found: list[Any], index: Index) -> Any:
    """One of ``found`` by its index, the first without one; None if there is none."""
    place = 0 if index is None else index
    return found[place] if isinstance(place, int) and -len(found) <= place < len(found) else None


def pick_text(found: list[str], index: Index, separator: str = ", ") -> Value:
    """The same of texts, "*" for all of them."""
    if index == "*":
        return separator.join(found) if found else None
    chosen: Value = pick(found, index)
    return chosen


# ---- the first line ----


def get_rm(run: Run) -> Value:
    """``$rm``: the method; of a reply, that of its CSeq."""
    return run.message.method


def get_rs(run: Run) -> Value:
    """``$rs``: the status of a reply; null in a request."""
    message = run.message
    return message.status if isinstance(message, Response) else None


def get_rr(run: Run) -> Value:
    """``$rr``: the reason phrase of a reply."""
    message = run.message
    return message.reason if isinstance(message, Response) else None


def get_is_request(run: Run) -> Value:
    """``$msg.is_request``: 1 or 0, printed true or false."""
    return SET if isinstance(run.message, Request) else UNSET


def get_type(run: Run) -> Value:
    """``$msg.type``: request or reply."""
    return "request" if isinstance(run.message, Request) else "reply"


def get_mb(run: Run) -> Value:
    """``$mb``: the message as it was received."""
    return decode(write(run.message, NO_EDITS))


def get_ml(run: Run) -> Value:
    """``$ml``: how many octets it has."""
    return len(write(run.message, NO_EDITS))


def get_mi(run: Run) -> Value:
    """``$mi``: a number of this message, unlike those of the others that are being worked on."""
    return id(run.message) & 0x7FFFFFFF


# ---- headers ----


def get_hdr(run: Run, name: str, index: Index) -> Value:
    """``$hdr(name)``: the value of a header, by any of its spellings."""
    if index is None:
        return run.message.header(name)
    return pick_text(run.message.headers(name), index)


def get_hdr_name(run: Run, index: Index) -> Value:
    """``$hdr_name``: the name of a header as it was sent."""
    return pick_text([line.partition(":")[0].rstrip(" \t") for line in run.message.lines[1:]], index)


def get_hdrcnt(run: Run, name: str) -> Value:
    """``$hdrcnt(name)``: in how many lines a header stands."""
    return len(run.message.positions(name))


def _header(name: str) -> Callable[[Run], Value]:
    return lambda run: run.message.header(name)


def get_ci(run: Run) -> Value:
    """``$ci``: Call-ID."""
    return run.message.header("call-id")


def get_cs(run: Run) -> Value:
    """``$cs``: the number of CSeq, as text."""
    try:
        return str(run.message.cseq.number)
    except SipError:
        return None


def get_cl(run: Run) -> Value:
    """``$cl``: Content-Length."""
    try:
        return run.message.content_length
    except SipError:
        return None


# ---- Contact ----


def get_ct(run: Run, index: Index) -> Value:
    """``$ct``: one contact as it stands."""
    try:
        return pick_text(run.message.values("contact"), index)
    except SipError:
        return None


CONTACT_FIELDS: dict[str, Callable[[Contact], Value]] = {
    "name": lambda contact: contact.display or None,
    "uri": lambda contact: contact.uri_text,
    "params": lambda contact: contact.params_text.strip(" \t").removeprefix(";") or None,
}
CONTACT_PARAMS = ("q", "expires", "methods", "received")


def check_contact_field(name: str) -> None:
    """Refuse what a contact does not have."""
    if name not in CONTACT_FIELDS and name not in CONTACT_PARAMS:
        raise ValueError(f"a contact has no {name!r}; it has {', '.join([*CONTACT_FIELDS, *CONTACT_PARAMS])}")


def get_ct_fields(run: Run, name: str, index: Index) -> Value:
    """``$ct.fields(uri)``: a part of one contact."""
    read = CONTACT_FIELDS.get(name) or (lambda contact: unquote(contact.params.get(name) or "") or None)
    try:
        found = [read(contact) for contact in run.message.contacts]
    except SipError:
        return None
    if index == "*":
        return pick_text([str(value or "") for value in found], index)
    chosen: Value = pick(found, index)
    return chosen


# ---- the body ----


def _parts(run: Run) -> list[Part]:
    try:
        return parts_of(run.message)
    except SipError:
        return []


def _type_of(part: Part) -> str:
    try:
        return part.media_type.name
    except SipError:
        return ""


def get_content_type(run: Run, index: Index) -> Value:
    """``$cT``: Content-Type; with an index, that of one part; "*": that of the message and then of its parts."""
    if index is None:
        return run.message.content_type
    types = [_type_of(part) for part in _parts(run)]
    if index == "*":
        return ",".join([run.message.content_type or "", *types])
    return pick_text(types, index)


def get_rb(run: Run, index: Index) -> Value:
    """``$rb``: the body; with an index, one of its parts."""
    if not run.message.body:
        return None
    if index is None or index == "*":
        return decode(run.message.body)
    part = pick(_parts(run), index)
    return None if part is None else decode(part.body)


def get_rb_of_type(run: Run, name: str, index: Index) -> Value:
    """``$rb(application/sdp)``: the first part of a type, or with an index another one."""
    wanted = name.lower()
    return pick_text([decode(part.body) for part in _parts(run) if _type_of(part) == wanted], index, "")


# ---- headers that hold an address ----


def _address_of(name: str) -> Callable[[Run], NameAddr | None]:
    def read(run: Run) -> NameAddr | None:
        values = run.message.values(name)
        return NameAddr.parse(values[0]) if values else None

    return read


def _param_of(name: str) -> Callable[[NameAddr], Value]:
    return lambda address: unquote(address.params.get(name) or "") or None


_DIVERSION = _address_of("diversion")
_PREFERRED = _address_of("p-preferred-identity")

# ---- authentication ----


def _authorized(run: Run) -> Credentials | None:
    """The credentials by which the sender was authorized, if he was (``proxy/authentication.py``)."""
    return None if run.context is None else run.context.get("authorized")


def _credentials(run: Run) -> Credentials | None:
    """Who the sender is, if that has been proved; else what he says he is: to a proxy, else to a server, in digest.

    What is only said must never hide what was proved: a second header is easily added."""
    proved = _authorized(run)
    if proved is not None:
        return proved
    text = run.message.header("proxy-authorization") or run.message.header("authorization")
    if text is None:
        return None
    found = Credentials.parse(text)
    return found if found.is_digest else None


def _credential(part: Callable[[Credentials], Value]) -> Callable[[Run], Value]:
    def get(run: Run) -> Value:
        try:
            found = _credentials(run)
        except SipError:
            return None
        return None if found is None else part(found) or None

    return get


def _auth_user(found: Credentials) -> Value:
    return found.username.partition("@")[0]


def _auth_domain(found: Credentials) -> Value:
    return found.username.partition("@")[2] or None


def get_acc_user(run: Run) -> Value:
    """``$Au``: who pays: the user, and domain or realm, of who was authorized, else user and host of From."""
    found = _authorized(run)
    if found is not None:
        return f"{_auth_user(found)}@{_auth_domain(found) or found.realm}"
    try:
        uri = run.message.from_.uri
    except SipError:
        return None
    return f"{uri.user}@{uri.host}" if uri.user else uri.host or None


def _challenge(name: str) -> Callable[[Run], Value]:
    def get(run: Run) -> Value:
        text = run.message.header("www-authenticate") or run.message.header("proxy-authenticate")
        try:
            return None if text is None else Challenge.parse(text).params.get(name)
        except SipError:
            return None

    return get


ROWS: list[tuple[str, Any]] = [
    ("rm", get_rm),
    ("rs", get_rs),
    ("rr", get_rr),
    ("msg.is_request", get_is_request),
    ("msg.type", get_type),
    ("mb", get_mb),
    ("ml", get_ml),
    ("mi", get_mi),
    ("ci", get_ci),
    ("cs", get_cs),
    ("cl", get_cl),
    ("ua", _header("user-agent")),
    ("rt", address_part(_address_of("refer-to"), uri_text)),
    ("di", address_part(_DIVERSION, uri_text)),
    ("dir", address_part(_DIVERSION, _param_of("reason"))),
    ("dip", address_part(_DIVERSION, _param_of("privacy"))),
    ("re", address_part(_address_of("remote-party-id"), uri_text)),
    ("ai", address_part(_address_of("p-asserted-identity"), uri_text)),
    ("pu", address_part(_PREFERRED, uri_text)),
    ("pU", address_part(_PREFERRED, user)),
    ("pd", address_part(_PREFERRED, domain)),
    ("pn", address_part(_PREFERRED, display)),
    ("au", _credential(_auth_user)),
    ("ad", _credential(_auth_domain)),
    ("aU", _credential(lambda found: found.username)),
    ("ar", _credential(lambda found: found.realm)),
    ("adu", _credential(lambda found: found.uri)),
    ("an", _credential(lambda found: found.nonce)),
    ("auth.nonce", _credential(lambda found: found.nonce)),
    ("auth.resp", _credential(lambda found: found.response)),
    ("auth.cnonce", _credential(lambda found: found.cnonce)),
    ("auth.opaque", _credential(lambda found: found.opaque)),
    ("auth.alg", _credential(lambda found: found.params.get("algorithm"))),
    ("auth.qop", _credential(lambda found: found.params.get("qop"))),
    ("auth.nc", _credential(lambda found: found.params.get("nc"))),
    ("Au", get_acc_user),
    *[(f"challenge.{name}", _challenge(name)) for name in ("algorithm", "realm", "nonce", "opaque", "qop", "ik", "ck")],
]

VARIABLES = (
    *[Variable(name, getter) for name, getter in ROWS],
    Variable("hdr", get_hdr, takes_name=True, takes_index=True),
    Variable("hdr_name", get_hdr_name, takes_index=True),
    Variable("hdrcnt", get_hdrcnt, takes_name=True),
    Variable("ct", get_ct, takes_index=True),
    Variable("ct.fields", get_ct_fields, takes_name=True, takes_index=True, check=check_contact_field),
    Variable("cT", get_content_type, takes_index=True),
    Variable("rb", get_rb, takes_index=True),
    Variable("rb", get_rb_of_type, takes_name=True, takes_index=True),
)
