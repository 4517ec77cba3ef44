"""Requests and responses: values parsed when somebody asks for them.

``parse`` has the head cut (see ``head``) and gives a ``Request`` or a ``Response``; it does no more than is needed to
know where the message ends. All else is lazy: ``message.via`` is cut on first touch and kept; a malformed value raises
``MalformedMessage`` on each touch. ``check`` is called once for what is new, before a script sees it, and touches what
a relay reads anyway.

``lines[0]`` is the start line; ``names[i]`` is the lower-case name of ``lines[i]``, by whatever spelling it came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from sipgw.sip.address import Contact, NameAddr, Via, parse_list, split_first, write_params
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import is_token, parse_uint, unfold
from sipgw.sip.head import body_length, cut_head
from sipgw.sip.headers import SINGLE, canonical
from sipgw.sip.limits import LIMITS, Limits
from sipgw.sip.uri import Uri

__all__ = ["CSeq", "Message", "Request", "Response", "is_keepalive", "parse", "stamp_via"]

T = TypeVar("T")

METHODS: Final = frozenset({
    "ACK", "BYE", "CANCEL", "INFO", "INVITE", "MESSAGE", "NOTIFY", "OPTIONS", "PRACK", "PUBLISH", "REFER", "REGISTER",
    "SUBSCRIBE", "UPDATE",
})
"""The methods with an RFC of their own; others are legal too."""

_REQUIRED: Final = frozenset({"via", "from", "to", "call-id", "cseq"})
_USUAL_NUMBERS: Final = {f" {number}": number for number in range(256)}
_USUAL_SECONDS: Final = {
    f" {seconds}": seconds
    for seconds in (0, 30, 60, 90, 120, 180, 240, 300, 600, 900, 1200, 1800, 3600, 7200, 86400)
}
_MOST: Final = "Max-Forwards: 70"  # with which nearly every request leaves its client
_STATUS: Final = {f"{code}": code for code in range(100, 700)}


MAX_KNOWN: Final = 4096
"""How many values of From, To and CSeq are remembered in parsed form; then the memory starts anew."""
MAX_KNOWN_LENGTH: Final = 256
"""Longer ones are not remembered, so that no sender can make the memory large."""
_known_addresses: dict[str, NameAddr] = {}


class CSeq(NamedTuple):
    """Holds the value of CSeq (RFC 3261 20.16)."""

    number: int
    method: str


_known_cseqs: dict[str, CSeq] = {}


class Message:
    """Holds one received message: its lines, its body, and what was read from them so far."""

    __slots__ = (
        "_bad", "_call_id", "_contacts", "_cseq", "_from", "_record_routes", "_routes", "_to", "_via", "_vias",
        "body", "limits", "lines", "names",
    )

    def __init__(self, lines: list[str], names: list[str], body: bytes, limits: Limits) -> None:
        self.lines = lines
        self.names = names
        self.body = body
        self.limits = limits
        self._bad: dict[str, tuple[str, int]] | None = None
        self._via: Via | None = None
        self._vias: list[Via] | None = None
        self._from: NameAddr | None = None
        self._to: NameAddr | None = None
        self._call_id: str | None = None
        self._cseq: CSeq | None = None
        self._contacts: list[Contact] | None = None
        self._routes: list[NameAddr] | None = None
        self._record_routes: list[NameAddr] | None = None

    @property
    def method(self) -> str:
        """The method of the request line, or of CSeq in a response."""
        return self.cseq.method

    # Raw access

    def value(self, index: int) -> str:
        """Return the value of the header in ``lines[index]``, unfolded and stripped."""
        text = self.lines[index].partition(":")[2].strip(" \t\r\n")
        return unfold(text) if "\n" in text else text

    def header(self, name: str) -> str | None:
        """Return the first value line of that header, unfolded and stripped, or ``None``.

        ``name``: any spelling, compact forms included. A comma-separated list comes whole."""
        name = canonical(name)
        return self.value(self.names.index(name)) if name in self.names else None

    def headers(self, name: str) -> list[str]:
        """Return every value line of that header in order, unfolded and stripped."""
        return [self.value(index) for index in self.positions(name)]

    def positions(self, name: str) -> list[int]:
        """Return the indexes in ``lines`` of that header, in order."""
        name = canonical(name)
        names = self.names
        count = names.count(name)
        if count < 2:
            return [names.index(name)] if count else []
        return [index for index, known in enumerate(names) if known == name]

    def values(self, name: str) -> list[str]:
        """Return every single value of a header that holds lists: lines split at their commas."""
        positions = self.positions(name)
        if len(positions) < 2:
            return parse_list(self.value(positions[0])) if positions else []
        return [value for index in positions for value in parse_list(self.value(index))]

    # Values, read on first touch and kept

    def _read(self, name: str, read: Callable[[Message], T]) -> T:
        """Call ``read`` and remember if the value is malformed; says which header and which message it was."""
        bad = self._bad
        if bad is not None and name in bad:
            raise MalformedMessage(*bad[name], self)
        try:
            return read(self)
        except MalformedMessage as error:
            raise self._remember(name, error) from None

    def _remember(self, name: str, error: MalformedMessage) -> MalformedMessage:
        """Keep what is wrong with a value; returns the error that says so."""
        if error.message is not None:
            return error
        if self._bad is None:
            self._bad = {}
        self._bad[name] = (f"{error.reason} ({name})", error.status)
        return MalformedMessage(*self._bad[name], self)

    @property
    def via(self) -> Via:
        """The top Via."""
        via = self._via
        if via is None:
            via = self._via = self._read("Via", _read_via)
        return via

    @property
    def vias(self) -> list[Via]:
        """Every Via, the top one first."""
        vias = self._vias
        if vias is None:
            vias = self._vias = self._read("Via", _read_vias)
        return vias

    @property
    def from_(self) -> NameAddr:
        """From (RFC 3261 20.20)."""
        address = self._from
        if address is None:
            address = self._from = self._read("From", _read_from)
        return address

    @property
    def to(self) -> NameAddr:
        """To (RFC 3261 20.39)."""
        address = self._to
        if address is None:
            address = self._to = self._read("To", _read_to)
        return address

    @property
    def from_tag(self) -> str | None:
        """The tag of From, ``None`` from an RFC 2543 client."""
        return self.from_.tag

    @property
    def to_tag(self) -> str | None:
        """The tag of To, ``None`` outside a dialog."""
        return self.to.tag

    @property
    def call_id(self) -> str:
        """Call-ID (RFC 3261 20.8), compared octet by octet."""
        call_id = self._call_id
        if call_id is None:
            call_id = self._call_id = self._read("Call-ID", _read_call_id)
        return call_id

    @property
    def cseq(self) -> CSeq:
        """CSeq (RFC 3261 20.16)."""
        cseq = self._cseq
        if cseq is None:
            cseq = self._cseq = self._read("CSeq", _read_cseq)
        return cseq

    @property
    def contacts(self) -> list[Contact]:
        """Every Contact value in order; a lone ``*`` has ``star``."""
        contacts = self._contacts
        if contacts is None:
            contacts = self._contacts = self._read("Contact", _read_contacts)
        return contacts

    @property
    def routes(self) -> list[NameAddr]:
        """Every Route value in order."""
        routes = self._routes
        if routes is None:
            routes = self._routes = self._read("Route", _read_routes)
        return routes

    @property
    def record_routes(self) -> list[NameAddr]:
        """Every Record-Route value in order."""
        routes = self._record_routes
        if routes is None:
            routes = self._record_routes = self._read("Record-Route", _read_record_routes)
        return routes

    @property
    def max_forwards(self) -> int | None:
        """Max-Forwards, 0..255, or ``None`` if absent (RFC 3261 20.22)."""
        names = self.names
        if "max-forwards" not in names:
            return None
        text = self.lines[names.index("max-forwards")].partition(":")[2]
        known = _USUAL_NUMBERS.get(text)
        if known is not None:
            return known
        text = text.strip(" \t\r\n")
        return self._number(text, self.limits.max_forwards, "Max-Forwards")

    @property
    def expires(self) -> int | None:
        """Expires in seconds, or ``None`` if absent (RFC 3261 20.19). Not for Contact's own parameter."""
        names = self.names
        if "expires" not in names:
            return None
        index = names.index("expires")
        text = self.lines[index].partition(":")[2]
        known = _USUAL_SECONDS.get(text)
        if known is not None and known <= self.limits.expires:
            return known
        return self._number(self.value(index), self.limits.expires, "Expires")

    @property
    def content_length(self) -> int | None:
        """What Content-Length says, or ``None`` if absent; ``len(body)`` never exceeds it."""
        text = self.header("content-length")
        return None if text is None else self._number(text, self.limits.body, "Content-Length")

    @property
    def content_type(self) -> str | None:
        """Content-Type as it stands, parameters included, or ``None`` if absent."""
        return self.header("content-type")

    def _number(self, text: str, limit: int, what: str) -> int:
        try:
            return parse_uint(text, limit, what)
        except MalformedMessage as error:
            error.message = self
            raise

    # Checking

    def check(self) -> None:
        """Refuse what no element may process (RFC 3261 8.2.2, 16.3 step 1, 18.3; RFC 4475 3.1.2).

        Raises ``MalformedMessage`` with the status to answer (a bad response is dropped). What is left to the
        transaction user: 416, 420, 483, 415, 406 and all that depends on who it is."""
        lines, names = self.lines, self.names
        kinds = set(names)
        if not kinds.issuperset(_REQUIRED):
            missing = ", ".join(sorted(_REQUIRED - kinds))
            raise MalformedMessage(f"Missing header ({missing})", message=self)
        if len(names) != len(kinds):
            self._check_repeated()
        part = "Via"
        try:
            via = self._via
            if via is None:
                via = self._via = _read_via(self)
            if via.asks_rport is None:
                via.params  # noqa: B018 - reading is the check
            part = "From"
            text = lines[names.index("from")].partition(":")[2]
            self._from = _known_addresses.get(text) or _read_tagged(text)
            part = "To"
            text = lines[names.index("to")].partition(":")[2]
            self._to = _known_addresses.get(text) or _read_tagged(text)
            part = "Call-ID"
            text = lines[names.index("call-id")].partition(":")[2]
            words = text.split()
            if len(words) == 1 and len(words[0]) == len(text) - 1 and text[0] == " ":
                self._call_id = words[0]  # as nearly all write it; split() knows more blanks than RFC 3261: those go the long way
            else:
                self._call_id = _read_call_id(self)
            part = "CSeq"
            text = lines[names.index("cseq")].partition(":")[2]
            self._cseq = _known_cseqs.get(text) or _read_cseq(self)
            part = "Max-Forwards"
            if "max-forwards" in kinds and lines[names.index("max-forwards")] != _MOST:
                self.max_forwards  # noqa: B018
            part = "Expires"
            if "expires" in kinds:
                self.expires  # noqa: B018
        except MalformedMessage as error:
            raise self._remember(part, error) from None

    def _check_repeated(self) -> None:
        if self.names.count("via") > self.limits.vias:
            raise MalformedMessage("Too many Vias", message=self)
        singles = [name for name in self.names if name in SINGLE]
        if len(singles) != len(set(singles)):
            raise MalformedMessage("Repeated header", message=self)


class Request(Message):
    """Holds a received request. ``uri`` is the Request-URI as text."""

    __slots__ = ("_request_uri", "method", "uri")

    method: str

    def __init__(
        self, method: str, uri: str, lines: list[str], names: list[str], body: bytes, limits: Limits,
    ) -> None:
        # as Message.__init__, which would cost a call
        self.lines = lines
        self.names = names
        self.body = body
        self.limits = limits
        self._bad = None
        self._via = None
        self._vias = None
        self._from = None
        self._to = None
        self._call_id = None
        self._cseq = None
        self._contacts = None
        self._routes = None
        self._record_routes = None
        self.method = method
        self.uri = uri
        self._request_uri: Uri | None = None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"

    @property
    def request_uri(self) -> Uri:
        """The Request-URI, read on first touch."""
        uri = self._request_uri
        if uri is None:
            uri = self._request_uri = self._read("Request-URI", _read_request_uri)
        return uri

    def check(self) -> None:
        """Refuse what no element may process; see ``Message.check``."""
        try:
            uri = self._request_uri = Uri.parse(self.uri)
        except MalformedMessage as error:
            raise self._remember("Request-URI", error) from None
        if uri.headers:
            # RFC 3261 19.1.1: no headers here; forwarding them could make them real (RFC 4475 3.1.2.11)
            raise MalformedMessage("Headers in Request-URI", message=self)
        Message.check(self)
        cseq = self._cseq
        if cseq is None or cseq.method != self.method:
            raise MalformedMessage("CSeq method does not match", message=self)
        if self.method == "REGISTER":
            self.contacts  # noqa: B018


class Response(Message):
    """Holds a received response. ``status``: 100..699; ``reason``: the phrase, "" if there is none."""

    __slots__ = ("reason", "status")

    def __init__(
        self, status: int, reason: str, lines: list[str], names: list[str], body: bytes, limits: Limits,
    ) -> None:
        # as Message.__init__, which would cost a call
        self.lines = lines
        self.names = names
        self.body = body
        self.limits = limits
        self._bad = None
        self._via = None
        self._vias = None
        self._from = None
        self._to = None
        self._call_id = None
        self._cseq = None
        self._contacts = None
        self._routes = None
        self._record_routes = None
        self.status = status
        self.reason = reason

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason}>"


def is_keepalive(data: bytes) -> bool:
    """Tell whether a datagram is no message but a keep-alive: nothing, or only CR, LF, blanks and NULs.

    RFC 5626 3.5.1 and 4.4.1 (CRLF); phones behind NAT also send four NULs or a blank."""
    return not data.strip(b"\r\n\t \x00")


def parse(data: bytes, limits: Limits = LIMITS) -> Request | Response:
    """Read one datagram, or one frame of WebSocket (RFC 3261 7, 18.3; RFC 7118 4.2). Streams: see ``stream.Framer``.

    Raises ``MalformedMessage`` and nothing else. Octets after Content-Length are left out; without that header the
    body is the rest. The error's ``message`` is what could be read, so that a request can be answered."""
    if len(data) > limits.message:
        raise MalformedMessage("Message Too Large", 513)
    lines, names, begin, error = cut_head(data, limits)
    body = data[begin:]
    message = build(lines, names, body, limits)
    try:
        size = body_length(lines, names, limits)
    except MalformedMessage as wrong:
        raise MalformedMessage(error or wrong.reason, wrong.status, message) from None
    if size >= 0 and size != len(body):
        if size > len(body):
            error = error or "Content-Length exceeds the message"
        message.body = body[:size]
    if error:
        raise MalformedMessage(error, message=message)
    if len(lines) > limits.headers or len(data) > limits.header:
        check_sizes(message)
    return message


def build(lines: list[str], names: list[str], body: bytes, limits: Limits) -> Request | Response:
    """Make a message of a head cut by ``cut_head``: reads the start line (RFC 3261 7.1, 7.2)."""
    start = lines[0]
    parts = start.split(" ")
    if len(parts) == 3 and parts[2] == "SIP/2.0" and parts[0] in METHODS and 0 < len(parts[1]) <= limits.uri:
        if "\n" not in start and "\t" not in start:
            return Request(parts[0], parts[1], lines, names, body, limits)
    if start[:8] == "SIP/2.0 " or start[:4].upper() == "SIP/":
        version, _, rest = start.partition(" ")
        code, _, reason = rest.partition(" ")
        status = _STATUS.get(code)
        if status is None or "\n" in reason or version.upper() != "SIP/2.0":
            raise MalformedMessage("Bad status line")
        return Response(status, reason, lines, names, body, limits)
    if len(parts) != 3 or not parts[1] or "\n" in start or "\t" in start:
        raise MalformedMessage("Bad request line", message=_partial(lines, names, limits))
    method, uri, version = parts
    message = Request(method, uri, lines, names, body, limits)
    if method not in METHODS and (len(method) > limits.method or not is_token(method)):
        raise MalformedMessage("Bad method", message=message)
    if version != "SIP/2.0" and version.upper() != "SIP/2.0":
        status = 505 if version[:4].upper() == "SIP/" else 400
        raise MalformedMessage("Version Not Supported" if status == 505 else "Bad request line", status, message)
    if len(uri) > limits.uri:
        raise MalformedMessage("Request-URI Too Long", 414, message)
    return message


def _partial(lines: list[str], names: list[str], limits: Limits) -> Request | None:
    """Make a request of a head whose request line is broken, if it is one: enough to answer 400."""
    words = lines[0].split()
    if len(words) < 2 or not is_token(words[0]):
        return None
    return Request(words[0], words[1], lines, names, b"", limits)


def check_sizes(message: Message) -> None:
    """Refuse what exceeds the limits of the message."""
    limits = message.limits
    if len(message.lines) > limits.headers + 1:
        raise MalformedMessage("Too many headers", message=message)
    if any(len(line) > limits.header for line in message.lines):
        raise MalformedMessage("Header too long", message=message)
    if len(message.body) > limits.body:
        raise MalformedMessage("Message Too Large", 513, message)


# Readers of the lazy values


def _first(message: Message, name: str) -> str:
    names = message.names
    if name not in names:
        raise MalformedMessage("Missing header")
    text = message.lines[names.index(name)].partition(":")[2]
    return unfold(text) if "\n" in text else text


def _read_via(message: Message) -> Via:
    names = message.names
    if "via" not in names:
        raise MalformedMessage("Missing header")
    text = message.lines[names.index("via")].partition(":")[2]
    if "\n" in text:
        text = unfold(text)
    if "," in text:
        text = text[:split_first(text)]
    return Via.parse(text)


def _read_vias(message: Message) -> list[Via]:
    values = message.values("via")
    if len(values) > message.limits.vias:
        raise MalformedMessage("Too many values")
    return [Via.parse(value) for value in values]


def _read_tagged(text: str) -> NameAddr:
    """Read From or To with its tag. Every message of a dialog has the same two: those seen lately are remembered."""
    address = NameAddr.parse(unfold(text) if "\n" in text else text)
    address.tag  # noqa: B018 - reading is the check
    if len(text) < MAX_KNOWN_LENGTH:
        if len(_known_addresses) >= MAX_KNOWN:
            _known_addresses.clear()
        _known_addresses[text] = address
    return address


def _read_from(message: Message) -> NameAddr:
    return NameAddr.parse(_first(message, "from"))


def _read_to(message: Message) -> NameAddr:
    return NameAddr.parse(_first(message, "to"))


def _read_call_id(message: Message) -> str:
    text = _first(message, "call-id").strip(" \t\r\n")
    if not text or " " in text or "\t" in text or "\r" in text:
        raise MalformedMessage("Bad value")
    return text


def _read_cseq(message: Message) -> CSeq:
    text = _first(message, "cseq")
    read = _cut_cseq(message, text)
    if len(text) < MAX_KNOWN_LENGTH:
        if len(_known_cseqs) >= MAX_KNOWN:
            _known_cseqs.clear()
        _known_cseqs[text] = read
    return read


def _cut_cseq(message: Message, text: str) -> CSeq:
    digits, _, method = text.strip(" \t\r\n").partition(" ")
    if method not in METHODS:
        if "\t" in digits or not method:
            digits, _, method = digits.partition("\t")
        method = method.lstrip(" \t")
        if not is_token(method):
            raise MalformedMessage("Bad value")
    if len(digits) < 10 and digits.isdigit() and digits.isascii():
        return CSeq(int(digits), method)
    return CSeq(parse_uint(digits, message.limits.cseq), method)


def _read_contacts(message: Message) -> list[Contact]:
    names = message.names
    if names.count("contact") == 1:
        text = message.lines[names.index("contact")].partition(":")[2].strip(" \t\r\n")
        if text and "," not in text and "\n" not in text:
            return [Contact.parse(text)]
    values = message.values("contact")
    if len(values) > message.limits.contacts:
        raise MalformedMessage("Too many values")
    contacts = [Contact.parse(value) for value in values]
    if len(contacts) > 1 and any(contact.star for contact in contacts):
        raise MalformedMessage("* among other values")
    return contacts


def _read_routes(message: Message) -> list[NameAddr]:
    return [NameAddr.parse(value) for value in message.values("route")]


def _read_record_routes(message: Message) -> list[NameAddr]:
    return [NameAddr.parse(value) for value in message.values("record-route")]


def _read_request_uri(message: Message) -> Uri:
    assert isinstance(message, Request)
    return Uri.parse(message.uri)


def stamp_via(request: Message, host: str, port: int, *, force_rport: bool = False) -> None:
    """Write into the top Via where the request really came from (RFC 3261 18.2.1, RFC 3581 4).

    ``host``: numeric source address without brackets. ``received`` is set when it differs from sent-by, when rport
    was asked for, or where the sender put one itself; ``rport`` when asked for, or with ``force_rport``.
    May be called again. Raises ``MalformedMessage`` for a Via that cannot be read."""
    via = request._via or request.via
    asks = via.asks_rport
    if asks is False and not force_rport and via.host == host:
        return
    if asks:
        # as nearly all ask for it: a bare rport behind the branch, and nothing else
        index = request.names.index("via")
        line = request.lines[index]
        if line.endswith(";rport") and "," not in line:
            stamp = f"={port};received={host}"
            request.lines[index] = line + stamp
            via.change_params(via.params_text + stamp)
            request._vias = None
            return
    try:
        params = via.params
    except MalformedMessage as error:
        raise request._remember("Via", error) from None
    rport = force_rport or "rport" in params
    if not rport and "received" not in params and (via.host == host or via.address == host):
        return
    old = via.params_text
    before, found, after = old.partition(";rport")
    if "received" not in params and (found == ";rport" if rport else True) and after[:1] in ("", ";"):
        # as most ask for it: the value goes behind the name, received to the end
        new = f"{before};rport={port}{after};received={host}" if rport else f"{old};received={host}"
    else:
        new = ""
    if not new:
        if rport:
            params["rport"] = str(port)
        params["received"] = host
        new = write_params(params)
    via.change_params(new)
    request._vias = None
    index = request.names.index("via")
    line = request.lines[index]
    colon = line.index(":") + 1
    start = line.find(";", colon)
    if old and not via.comment and line.startswith(old, start):
        request.lines[index] = f"{line[:start]}{new}{line[start + len(old):]}"
    else:
        request.lines[index] = f"{line[:colon]} {via}{line[split_first(line, colon):]}"
