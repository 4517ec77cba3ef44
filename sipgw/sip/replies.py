"""Messages that sipgw makes out of others: responses, the CANCEL and the ACK of a client transaction.

They copy the lines of the other message as they came and parse nothing that they need not.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from typing import Final

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Message, Request, Response

__all__ = ["REASONS", "ack_for", "cancel_for", "lacks_tag", "reason_for", "respond_to"]

REASONS: Final[dict[int, str]] = {
    100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress",
    199: "Early Dialog Terminated",
    200: "OK", 202: "Accepted", 204: "No Notification",
    300: "Multiple Choices", 301: "Moved Permanently", 302: "Moved Temporarily", 305: "Use Proxy",
    380: "Alternative Service",
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
    410: "Gone", 412: "Conditional Request Failed", 413: "Request Entity Too Large", 414: "Request-URI Too Long",
    415: "Unsupported Media Type", 416: "Unsupported URI Scheme", 417: "Unknown Resource-Priority",
    420: "Bad Extension", 421: "Extension Required", 422: "Session Interval Too Small", 423: "Interval Too Brief",
    424: "Bad Location Information", 425: "Bad Alert Message", 428: "Use Identity Header",
    429: "Provide Referrer Identity", 430: "Flow Failed", 433: "Anonymity Disallowed", 436: "Bad Identity-Info",
    437: "Unsupported Credential", 438: "Invalid Identity Header", 439: "First Hop Lacks Outbound Support",
    440: "Max-Breadth Exceeded", 469: "Bad Info Package", 470: "Consent Needed",
    480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected",
    483: "Too Many Hops", 484: "Address Incomplete", 485: "Ambiguous", 486: "Busy Here", 487: "Request Terminated",
    488: "Not Acceptable Here", 489: "Bad Event", 491: "Request Pending", 493: "Undecipherable",
    494: "Security Agreement Required",
    500: "Server Internal Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Server Time-out", 505: "Version Not Supported", 513: "Message Too Large",
    555: "Push Notification Service Not Supported", 580: "Precondition Failure",
    600: "Busy Everywhere", 603: "Decline", 604: "Does Not Exist Anywhere", 606: "Not Acceptable", 607: "Unwanted",
    608: "Rejected",
}
"""The reason phrases of RFC 3261 21 and of IANA's registry."""

_COPIED: Final = frozenset({"via", "from", "to", "call-id", "cseq"})
_is_copied = _COPIED.__contains__
_is_copied_trying = (_COPIED | {"timestamp"}).__contains__
_is_copied_dialog = (_COPIED | {"record-route"}).__contains__


def reason_for(status: int) -> str:
    """Return the usual phrase for ``status``; of an unknown one, that of its class (RFC 3261 8.1.3.2)."""
    return REASONS.get(status) or REASONS.get(183 if status < 200 else status // 100 * 100, "")


def respond_to(
    request: Request, status: int, reason: str = "", *, to_tag: str = "", headers: str = "", body: bytes = b"",
    content_type: str = "", record_route: bool = False,
) -> bytes:
    """Return a response (RFC 3261 8.2.6): Via, From, To, Call-ID and CSeq as they came.

    ``to_tag`` is added where To has none, to anything but a 100; a 100 gets the Timestamp of the request (8.2.6.1).
    ``headers``: more lines, each but the last ended by CRLF. ``record_route``: copy Record-Route too (12.1.1). The
    top Via should have been stamped on receipt (``message.stamp_via``)."""
    is_copied = _is_copied_trying if status == 100 else _is_copied_dialog if record_route else _is_copied
    lines, names = request.lines, request.names
    out = [f"SIP/2.0 {status} {reason or reason_for(status)}", *compress(lines, map(is_copied, names))]
    if to_tag and status > 100 and lacks_tag(request):
        line = lines[names.index("to")]
        out[out.index(line)] = f"{line};tag={to_tag}"
    if headers:
        out.append(headers[:-2] if headers.endswith("\r\n") else headers)
    if body:
        if content_type:
            out.append(f"Content-Type: {content_type}")
        out.append(f"Content-Length: {len(body)}\r\n\r\n")
        return "\r\n".join(out).encode("utf-8", "surrogateescape") + body
    out.append("Content-Length: 0\r\n\r\n")
    return "\r\n".join(out).encode("utf-8", "surrogateescape")


def lacks_tag(request: Request) -> bool:
    """Tell whether To is well-formed and has no tag."""
    try:
        return request.to.tag is None
    except MalformedMessage:
        return False  # a To that cannot be read goes back as it came (RFC 4475 3.1.2)


def _top_via(message: Message) -> str:
    """Return the top Via as a line of its own."""
    return f"Via: {message.via}"


def _copy(message: Message, names: Iterable[str]) -> list[str]:
    return [message.lines[index] for name in names for index in message.positions(name)]


def cancel_for(request: Request, headers: str = "") -> bytes:
    """Return the CANCEL for a request as it was sent (RFC 3261 9.1): same branch, Route, and CSeq number."""
    return _follow_up(request, request, "CANCEL", headers)


def ack_for(request: Request, response: Response, headers: str = "") -> bytes:
    """Return the ACK for a 300..699 (RFC 3261 17.1.1.3): To is that of the response, the rest of the INVITE."""
    return _follow_up(request, response, "ACK", headers)


def _follow_up(request: Request, to_from: Message, method: str, headers: str) -> bytes:
    out = [f"{method} {request.uri} SIP/2.0", _top_via(request)]
    out += _copy(request, ("route", "from"))
    out += _copy(to_from, ("to",))
    out += _copy(request, ("call-id",))
    out.append(f"CSeq: {request.cseq.number} {method}")
    out.append("Max-Forwards: 70")
    if headers:
        out.append(headers[:-2] if headers.endswith("\r\n") else headers)
    out.append("Content-Length: 0\r\n\r\n")
    return "\r\n".join(out).encode("utf-8", "surrogateescape")
