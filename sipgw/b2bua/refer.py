"""What a REFER within a call asks for (RFC 3515), and which call a Replaces names (RFC 3891). Pure.

A phone writes the dialog that it sees into Replaces; behind us the other side of that call sees another one. So the name is that
of a leg of ours, or it is nobody's that we know."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

from sipgw.sip.address import NameAddr, parse_params
from sipgw.sip.dialog import DialogId
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.grammar import unescape
from sipgw.sip.message import Request
from sipgw.sip.uri import Uri


class Referral(NamedTuple):
    """Call ``uri``, in the place of the dialog ``replaced`` if there is one; ``replaces``: the header that says so. ``silent``:
    who asks wants no NOTIFYs (RFC 4488)."""

    uri: str
    replaces: str
    replaced: DialogId | None
    silent: bool


def named(replaces: str) -> DialogId | None:
    """The dialog that a Replaces header names, as we see it if it is ours: its ``to-tag`` is our tag."""
    call_id, _, rest = replaces.partition(";")
    try:
        params = parse_params(f";{rest}") if rest else {}
    except MalformedMessage:
        return None
    to_tag, from_tag = params.get("to-tag"), params.get("from-tag")
    return DialogId(call_id.strip(), to_tag, from_tag) if call_id.strip() and to_tag and from_tag else None


def read(request: Request) -> Referral:
    """What a REFER asks for; ``SipError`` with the status that it is refused with."""
    values = request.headers("Refer-To")
    if len(values) != 1:
        raise SipError("Bad Refer-To", 400)
    try:
        uri = NameAddr.parse(values[0]).uri
    except MalformedMessage as error:
        raise SipError("Bad Refer-To", 400) from error
    if not uri.is_sip:
        raise SipError("Unsupported URI Scheme", 416)
    if (uri.param("method") or "INVITE").upper() != "INVITE":
        raise SipError("Not Implemented", 501)
    replaces = [unescape(value) for name, value in uri.header_list if name.lower() == "replaces"]
    replaced = named(replaces[0]) if replaces else None
    if len(replaces) > 1 or (replaces and replaced is None) or any("\r" in one or "\n" in one or "\0" in one for one in replaces):
        raise SipError("Bad Replaces", 400)
    silent = (request.header("Refer-Sub") or "").partition(";")[0].strip().lower() == "false"
    target = str(uri.without_headers().without_param("method"))
    return Referral(target, replaces[0] if replaces else "", replaced, silent)


def renamed(refer_to: str, find: Callable[[DialogId], DialogId | None]) -> str:
    """A Refer-To whose Replaces names the dialog that ``find`` gives for the one that it has named; as it was if that is None."""
    try:
        address = NameAddr.parse(refer_to)
        uri = address.uri
    except MalformedMessage:
        return refer_to
    pairs = list(uri.header_list)
    for place, (name, value) in enumerate(pairs):
        if name.lower() == "replaces":
            before = named(unescape(value))
            after = None if before is None else find(before)
            if after is None:
                return refer_to
            # who gets it has our tag as the remote one
            text = f"{after.call_id};to-tag={after.remote_tag};from-tag={after.local_tag}"
            pairs[place] = name, quote(text, safe="")
            headers = "&".join(f"{its}={escaped}" for its, escaped in pairs)
            changed = Uri.parse(f"{uri.without_headers()}?{headers}")
            return refer_to.replace(address.uri_text, str(changed), 1)
    return refer_to
