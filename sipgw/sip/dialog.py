"""Dialogs (RFC 3261 12): what two user agents remember of each other between requests.

``DialogId`` finds one; ``Dialog`` keeps its state and writes the requests inside it. It begins as ``Dialog.as_uac`` from the
request sent and the response that made it, as ``Dialog.as_uas`` from the request received and the tag that our response puts
into To, or as ``Dialog.as_subscriber`` from our SUBSCRIBE and a NOTIFY that is faster than the response. Names are ours: *local*
is our side, whichever sent the first request. ``encode`` and ``decode`` carry one through a restart.

Nothing here sends or waits. CSeq numbers are counted here; that an INVITE may not cross another one (14.1) is for
the user of the dialog to see to.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from sipgw.sip.address import NameAddr
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.message import Message, Request, Response
from sipgw.sip.uri import Uri

__all__ = ["TARGET_REFRESH", "Dialog", "DialogId", "routes_of", "target_of"]

TARGET_REFRESH: Final = frozenset({"INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER"})
"""Requests whose Contact, and that of their 2xx, moves the remote target (RFC 3261 12.2, 3311 5.1, 6665 4.4.1)."""


class DialogId(NamedTuple):
    """Names a dialog as our side sees it (RFC 3261 12): tags are "" where an RFC 2543 peer gave none."""

    call_id: str
    local_tag: str
    remote_tag: str

    @classmethod
    def of_request(cls, request: Request) -> DialogId:
        """Return the dialog that a received request is in: our tag is that of To."""
        return cls(request.call_id, request.to_tag or "", request.from_tag or "")

    @classmethod
    def of_response(cls, response: Response) -> DialogId:
        """Return the dialog that a received response is in or makes: our tag is that of From."""
        return cls(response.call_id, response.from_tag or "", response.to_tag or "")


class Dialog:
    """The state of one dialog (RFC 3261 12.1).

    ``local``, ``remote``: name-addr of either side without its tag. ``remote_target``: URI of the peer's Contact.
    ``route_set``: name-addrs, in the order in which our requests visit them. ``local_cseq``, ``remote_cseq``: last
    numbers used, ``None`` before the first. ``early``: no 2xx yet. ``secure``: made by a SIPS request over TLS."""

    __slots__ = (
        "early", "id", "local", "local_cseq", "remote", "remote_cseq", "remote_target", "route_set", "secure",
    )

    def __init__(
        self, identity: DialogId, local: str, remote: str, remote_target: str, route_set: list[str],
        local_cseq: int | None, remote_cseq: int | None, *, early: bool, secure: bool,
    ) -> None:
        self.id = identity
        self.local = local
        self.remote = remote
        self.remote_target = remote_target
        self.route_set = route_set
        self.local_cseq = local_cseq
        self.remote_cseq = remote_cseq
        self.early = early
        self.secure = secure

    @classmethod
    def as_uac(cls, request: Request, response: Response) -> Dialog:
        """Begin the dialog that ``response`` (101..299) to our ``request`` makes (RFC 3261 12.1.2)."""
        if not 100 < response.status < 300:
            raise SipError("No dialog without a 101..299 response", 500)
        return cls(
            DialogId.of_response(response), _plain(request.from_), _plain(response.to),
            # COMPAT: some send a 180 or even a 200 without Contact; what we called is the best that is known then
            target_of(response) or request.uri,
            _texts(routes_of(response))[::-1], request.cseq.number, None,
            early=response.status < 200, secure=_is_secure(request),
        )

    @classmethod
    def as_uas(cls, request: Request, local_tag: str, *, early: bool = False) -> Dialog:
        """Begin the dialog that our response with ``local_tag`` to ``request`` makes (RFC 3261 12.1.1).

        ``MalformedMessage`` if the request lacks the Contact that it must have."""
        target = _contact(request)
        if not target:
            raise MalformedMessage("Missing Contact", message=request)
        for route in request.record_routes:
            route.uri  # noqa: B018 - what cannot be read is refused, while it can be
        return cls(
            DialogId(request.call_id, local_tag, request.from_tag or ""), _plain(request.to), _plain(request.from_),
            target, _texts(request.record_routes), None, request.cseq.number, early=early, secure=_is_secure(request),
        )

    @classmethod
    def half(cls, call_id: str, tag: str, local: str, remote: str, target: str) -> Dialog:
        """What becomes a dialog when somebody answers: enough to write the request that begins it (RFC 3261 8.1.1)."""
        return cls(DialogId(call_id, tag, ""), local, remote, target, [], None, None, early=True, secure=False)

    @classmethod
    def as_subscriber(cls, subscribe: Request, notify: Request) -> Dialog:
        """Begin the dialog that the first NOTIFY to our SUBSCRIBE makes (RFC 6665 4.4.1)."""
        return cls(
            DialogId.of_request(notify), _plain(subscribe.from_), _plain(subscribe.to), _contact(notify) or subscribe.uri,
            _texts(notify.record_routes), subscribe.cseq.number, notify.cseq.number, early=False, secure=_is_secure(subscribe),
        )

    def encode(self) -> str:
        """Write all of it as a text that can be kept."""
        return json.dumps([
            *self.id, self.local, self.remote, self.remote_target, self.route_set, self.local_cseq, self.remote_cseq, self.early,
            self.secure,
        ])

    @classmethod
    def decode(cls, text: str) -> Dialog:
        """Read what ``encode`` wrote; ``ValueError`` if it is something else."""
        values: Any = json.loads(text)
        if not isinstance(values, list) or len(values) != 11 or not isinstance(values[6], list):
            raise ValueError("this is no dialog")
        return cls(DialogId(*values[:3]), *values[3:9], early=bool(values[9]), secure=bool(values[10]))

    def confirm(self, response: Response) -> None:
        """Take the 2xx that ends the early state: its route set and target replace the early ones (13.2.2.4)."""
        if self.early:
            self.route_set = _texts(routes_of(response))[::-1]
            self.early = False
        self.remote_target = target_of(response) or self.remote_target

    def refresh(self, response: Response) -> None:
        """Take the 2xx to a request of ours inside the dialog: its Contact may move the target (12.2.1.2)."""
        if 200 <= response.status < 300 and response.method in TARGET_REFRESH:
            self.remote_target = target_of(response) or self.remote_target

    def accept(self, request: Request) -> None:
        """Take a request that came inside the dialog (12.2.2): 500 if its CSeq is too low; it may move the target.

        An ACK or CANCEL has the number of its INVITE and is not counted."""
        if request.method in ("ACK", "CANCEL"):
            return
        number = request.cseq.number
        if self.remote_cseq is not None and number < self.remote_cseq:
            raise SipError("CSeq Out Of Order", 500)
        self.remote_cseq = number
        if request.method in TARGET_REFRESH:
            self.remote_target = _contact(request) or self.remote_target

    @property
    def next_hop(self) -> str:
        """The URI that the next request is sent to: that of the first route, or the remote target (12.2.1.1)."""
        return NameAddr.parse(self.route_set[0]).uri_text if self.route_set else self.remote_target

    def request(
        self, method: str, via: str, *, cseq: int | None = None, headers: str = "", body: bytes = b"",
        content_type: str = "", max_forwards: int = 70,
    ) -> bytes:
        """Write a request inside the dialog (RFC 3261 12.2.1.1) and count it.

        ``via``: value of the Via with its branch, "" where somebody else puts it on top. ``cseq``: for ACK and CANCEL,
        which are not counted, that of their INVITE. ``headers``: more lines (Contact among them), each but the last
        ended by CRLF."""
        if cseq is None:
            # an empty sequence begins anywhere below 2**31 (8.1.1.5)
            cseq = self.local_cseq = 1 if self.local_cseq is None else self.local_cseq + 1
        uri, routes = self.path()
        out = [f"{method} {uri} SIP/2.0"]
        if via:
            out.append(f"Via: {via}")
        out += [f"Route: {route}" for route in routes]
        out += [
            f"From: {_tagged(self.local, self.id.local_tag)}", f"To: {_tagged(self.remote, self.id.remote_tag)}",
            f"Call-ID: {self.id.call_id}", f"CSeq: {cseq} {method}", f"Max-Forwards: {max_forwards}",
        ]
        if headers:
            out.append(headers[:-2] if headers.endswith("\r\n") else headers)
        if body and content_type:
            out.append(f"Content-Type: {content_type}")
        out.append(f"Content-Length: {len(body)}\r\n\r\n")
        return "\r\n".join(out).encode("utf-8", "surrogateescape") + body

    def path(self) -> tuple[str, list[str]]:
        """Return the Request-URI and the Route values: loose routing, or strict if the first route has no ``lr``."""
        routes = self.route_set
        if not routes:
            return self.remote_target, routes
        first = NameAddr.parse(routes[0]).uri
        if first.param("lr") is not None:
            return self.remote_target, routes
        strict = first.without_headers().without_param("method")
        return str(strict), [*routes[1:], f"<{self.remote_target}>"]


def _plain(address: NameAddr) -> str:
    space = " " if address.display else ""
    return f"{address.display}{space}<{address.uri_text}>"


def _tagged(address: str, tag: str) -> str:
    return f"{address};tag={tag}" if tag else address


def target_of(response: Response) -> str:
    """Return the URI of the first Contact of a response, or "" if there is none, or none that can be read.

    A request with such a Contact is refused; a response cannot be, and what it answers has happened."""
    try:
        target = _contact(response)
        if target:
            Uri.parse(target)
    except MalformedMessage:
        return ""
    return target


def routes_of(response: Response) -> list[NameAddr]:
    """Return the Record-Routes of a response; none if one of them cannot be read."""
    try:
        routes = response.record_routes
        for route in routes:
            route.uri  # noqa: B018 - reading is the check
    except MalformedMessage:
        return []
    return routes


def _contact(message: Message) -> str:
    """Return the URI of the first Contact, or "" if there is none."""
    contacts = message.contacts
    return contacts[0].uri_text if contacts and not contacts[0].star else ""


def _texts(routes: list[NameAddr]) -> list[str]:
    return [str(route) for route in routes]


def _is_secure(request: Request) -> bool:
    """Tell whether the dialog is secure: a SIPS request that came or went over TLS (12.1.1), or has no Via yet."""
    uri: Uri = request.request_uri
    return uri.scheme == "sips" and ("via" not in request.names or request.via.transport.upper() in ("TLS", "WSS"))
