"""Header values that hold addresses: name-addr (From, To, Route), Contact and Via (RFC 3261 20.10, 20.42, 25.1).

Each class has two readers: one regular expression for what nearly everybody sends, and a careful path for quotes with
escapes, white space in odd places and folds (unfolded before). The careful path accepts what RFC 4475 3.1.1 calls
valid and refuses what 3.1.2 calls invalid; the quick one accepts a subset of it.
"""

from __future__ import annotations

import re

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import TOKEN_CHARS, ipv6_groups, parse_q, parse_uint, unquote
from sipgw.sip.uri import Uri

__all__ = ["Contact", "NameAddr", "Via", "parse_list", "parse_params", "split_first", "write_params"]

_T = TOKEN_CHARS
_VALUE = r'[^\x00-\x20\x7f;,"<>]*'
# A display name without quotes: tokens (RFC 3261 25.1), and UTF-8, which many send bare.
_NAME = rf"[{_T} \t\x80-\U0010ffff]*+"
_PARAMS = rf"(?:;[{_T}]+(?:={_VALUE})?)*+"

_quick_name_addr = re.compile(
    rf'[ \t]*+("[^"\\\x00-\x1f]*"|{_NAME})[ \t]*+<([^<>"\x00-\x20\x7f]+)>({_PARAMS})[ \t]*'
).fullmatch
_quick_addr_spec = re.compile(
    rf'[ \t]*([A-Za-z][A-Za-z0-9+.\-]*:[^<>"\x00-\x20\x7f;,?]+)({_PARAMS})[ \t]*'
).fullmatch
_usual_via = re.compile(
    rf" SIP/2\.0/([{_T}]++) ([A-Za-z0-9_.\-]++)(?::([0-9]{{1,5}}))?(;branch=({_VALUE}+)(;rport)?)"
).fullmatch
_quick_via = re.compile(
    rf"[ \t]*(SIP/2\.0)/([{_T}]+) ([A-Za-z0-9_.\-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]+))?"
    rf"({_PARAMS})[ \t]*"
).fullmatch

_quick_params = re.compile(_PARAMS).fullmatch

_careful_display = re.compile(
    rf'[ \t]*+(?:("(?:[^"\\\r\n]|\\[^\r\n])*+")|([{_T}\x80-\U0010ffff](?:[{_T} \t\x80-\U0010ffff])*+)?)[ \t]*+<'
).match
_careful_uri = re.compile(r'([A-Za-z][A-Za-z0-9+.\-]*:[^<>"\x00-\x20\x7f]+)>[ \t]*').match
_careful_param = re.compile(
    rf'[ \t]*+;[ \t]*+([{_T}]++)[ \t]*+(?:(=)[ \t]*+("(?:[^"\\\r\n]|\\[^\r\n])*+"|[^\x00-\x20\x7f;,"<>]*+)[ \t]*+)?'
).match
_careful_via = re.compile(
    rf"[ \t]*+([{_T}]++)[ \t]*+/[ \t]*+([{_T}]++)[ \t]*+/[ \t]*+([{_T}]++)[ \t]++"
    r"([A-Za-z0-9_.\-]++|\[[0-9A-Fa-f:.]++\])[ \t]*+(?::[ \t]*+([0-9]++)[ \t]*+)?"
).match
_comment = re.compile(r"[ \t]*\(([^()]*)\)[ \t]*").fullmatch
_list_item = re.compile(r'(?:[^",<]++|"(?:[^"\\]|\\.)*+"|<[^<>]*+>)*+', re.DOTALL).match


def parse_list(text: str) -> list[str]:
    """Split at the commas outside quotes and angle brackets (RFC 3261 7.3.1); values are stripped, empty ones left out.

    Raises ``MalformedMessage`` for a quote or bracket that never closes."""
    if "," not in text:
        text = text.strip(" \t\r\n")
        return [text] if text else []
    if '"' not in text and "<" not in text:
        return [value for part in text.split(",") if (value := part.strip(" \t\r\n"))]
    values = []
    position = 0
    while position <= len(text):
        end = _end_of_value(text, position)
        value = text[position:end].strip(" \t\r\n")
        if value:
            values.append(value)
        position = end + 1
    return values


def split_first(text: str, start: int = 0) -> int:
    """Return where the value that begins at ``start`` ends: at its comma, or at the end of ``text``."""
    comma = text.find(",", start)
    if comma < 0:
        return len(text)
    if text.find('"', start, comma) < 0 and text.find("<", start, comma) < 0:
        return comma
    return _end_of_value(text, start)


def _end_of_value(text: str, start: int) -> int:
    match = _list_item(text, start)
    end = start if match is None else match.end()
    if end < len(text) and text[end] != ",":
        raise MalformedMessage("Unbalanced quotes or brackets")
    return end


def parse_params(text: str) -> dict[str, str | None]:
    """Read ``;name=value;name`` (RFC 3261 25.1, generic-param): names in lower case, values as they stand.

    ``None`` is the value of a parameter without "="; quotes are kept (see ``unquote``). A name that comes twice is
    malformed (7.3.1), since two servers would believe different ones."""
    return _read_params(text, _quick_params(text) is None)


def _read_params(text: str, carefully: bool) -> dict[str, str | None]:
    """Cut parameters; the quick way is for a text that a regular expression above has seen."""
    params: dict[str, str | None] = {}
    if not text:
        return params
    if not carefully:
        parts = text.split(";")
        for part in parts:
            name, equals, value = part.partition("=")
            params[name.lower()] = value if equals else None
        if parts[0] or len(params) != len(parts):
            raise MalformedMessage("Repeated parameter")
        del params[""]
        return params
    text = text.strip(" \t")
    position = 0
    while position < len(text):
        match = _careful_param(text, position)
        if match is None:
            raise MalformedMessage("Bad parameter")
        lowered = match[1].lower()
        if lowered in params:
            raise MalformedMessage("Repeated parameter")
        params[lowered] = match[3] if match[2] else None
        position = match.end()
    return params


def write_params(params: dict[str, str | None]) -> str:
    """Return ``params`` as they stand in a header: ``;name=value;name``."""
    return "".join(f";{name}" if value is None else f";{name}={value}" for name, value in params.items())


class NameAddr:
    """Holds an address with its header parameters: From, To, Route, Record-Route, P-Asserted-Identity...

    ``display`` is as it came, quotes included ("" if none); ``name`` is what it means. ``uri_text`` is the text
    between the angle brackets (or the addr-spec); ``params_text`` what follows."""

    __slots__ = ("_params", "_uri", "display", "params_text", "uri_text")

    def __init__(self, display: str, uri_text: str, params_text: str = "") -> None:
        self.display = display
        self.uri_text = uri_text
        self.params_text = params_text
        self._params: dict[str, str | None] | None = None
        self._uri: Uri | None = None

    @classmethod
    def parse(cls, text: str) -> NameAddr:
        """Read one value; raises ``MalformedMessage``. The URI itself is read when ``uri`` is asked for."""
        match = _quick_name_addr(text)
        if match is not None:
            display, uri_text, params_text = match.groups()
            return cls(display.rstrip(" \t") if display else "", uri_text, params_text)
        return cls(*_cut_name_addr(text))

    def __str__(self) -> str:
        space = " " if self.display else ""
        return f"{self.display}{space}<{self.uri_text}>{self.params_text}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    @property
    def name(self) -> str:
        """The display name without quotes and escapes."""
        return unquote(self.display)

    @property
    def uri(self) -> Uri:
        """The URI, read on first touch; raises ``MalformedMessage``."""
        uri = self._uri
        if uri is None:
            uri = self._uri = Uri.parse(self.uri_text)
        return uri

    @property
    def params(self) -> dict[str, str | None]:
        """The header parameters, read on first touch; raises ``MalformedMessage``."""
        params = self._params
        if params is None:
            text = self.params_text
            params = self._params = _read_params(text, '"' in text or " " in text or "\t" in text)
        return params

    @property
    def tag(self) -> str | None:
        """The tag of From and To (RFC 3261 19.3); ``None`` if there is none."""
        text = self.params_text
        if not text:
            return None
        if text[:5] == ";tag=" and text.find(";", 5) < 0:
            return text[5:]
        return self.params.get("tag")


class Contact(NameAddr):
    """Holds one Contact value (RFC 3261 20.10); ``star`` is true for the lone ``*`` of a REGISTER."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Contact:
        """Read one value, ``*`` included; raises ``MalformedMessage``."""
        if text == "*":
            return cls("", "*")
        return cls(*_cut_name_addr(text))

    def __str__(self) -> str:
        return "*" if self.star else super().__str__()

    @property
    def star(self) -> bool:
        """True for ``Contact: *`` (RFC 3261 10.2.2)."""
        return self.uri_text == "*"

    @property
    def q(self) -> int | None:
        """The q value in thousandths, 0..1000, or ``None``."""
        value = self.params.get("q")
        return None if value is None else parse_q(value)

    @property
    def expires(self) -> int | None:
        """The expires parameter in seconds, or ``None``; more than 2**32-1 is malformed (RFC 3261 20.10)."""
        value = self.params.get("expires")
        return None if value is None else parse_uint(value, 2**32 - 1, "expires parameter")


def _cut_name_addr(text: str) -> tuple[str, str, str]:
    """Cut into display name, URI and parameter text."""
    match = _quick_name_addr(text)
    if match is not None:
        display, uri_text, params_text = match.groups()
        return display.rstrip(" \t"), uri_text, params_text
    if "<" not in text:
        match = _quick_addr_spec(text)
        if match is not None:
            uri_text, params_text = match.groups()
            return "", uri_text, params_text
    return _cut_carefully(text)


def _cut_carefully(text: str) -> tuple[str, str, str]:
    match = _careful_display(text)
    if match is not None:
        display = (match[1] or match[2] or "").rstrip(" \t")
        inside = _careful_uri(text, match.end())
        if inside is None:
            raise MalformedMessage("Bad URI in angle brackets")
        uri_text = inside[1]
        rest = text[inside.end():]
    else:
        # addr-spec: what follows the first ";" belongs to the header, and "?" or "," are not allowed (20.10, 20.20)
        display = ""
        uri_text, semicolon, rest = text.strip(" \t").partition(";")
        uri_text = uri_text.rstrip(" \t")
        if _quick_addr_spec(uri_text) is None:
            raise MalformedMessage("Bad address")
        rest = semicolon + rest
    parse_params(rest)
    return display, uri_text, rest


class Via:
    """Holds one Via value (RFC 3261 20.42).

    ``protocol``: "SIP/2.0". ``transport``: as written ("UDP"). ``host`` keeps the brackets of an IPv6 reference,
    ``port`` is ``None`` where none is written. ``comment``: RFC 2543's, without its parentheses, or ""."""

    __slots__ = ("_branch", "_params", "asks_rport", "comment", "host", "params_text", "port", "protocol", "transport")

    def __init__(
        self, protocol: str, transport: str, host: str, port: int | None, params_text: str, comment: str = "",
        branch: str | None = None, asks_rport: bool | None = None,
    ) -> None:
        self.protocol = protocol
        self.transport = transport
        self.host = host
        self.port = port
        self.params_text = params_text
        self.comment = comment
        self._params: dict[str, str | None] | None = None
        self._branch = branch
        self.asks_rport = asks_rport
        """Where there is nothing but a branch: whether a bare rport follows it; ``None`` for any other parameters."""

    @classmethod
    def parse(cls, text: str) -> Via:
        """Read one value; raises ``MalformedMessage``. Parameters are cut when they are asked for."""
        match = _usual_via(text)
        if match is not None:
            transport, host, digits, params_text, branch, rport = match.groups()
            port = None if digits is None else int(digits)
            if port is None or port < 65536:
                return cls("SIP/2.0", transport, host, port, params_text, "", branch, rport is not None)
        match = _quick_via(text)
        if match is None:
            return cls._parse_carefully(text)
        protocol, transport, host, digits, params_text = match.groups()
        port = None if digits is None else parse_uint(digits, 65535, "port in Via")
        if host[0] == "[" and ipv6_groups(host[1:-1]) is None:
            raise MalformedMessage("Bad IPv6 reference in Via")
        return cls(protocol, transport, host, port, params_text)

    @classmethod
    def _parse_carefully(cls, text: str) -> Via:
        match = _careful_via(text)
        if match is None:
            raise MalformedMessage("Bad Via")
        name, version, transport, host, digits = match.groups()
        port = None if digits is None else parse_uint(digits, 65535, "port in Via")
        if host[0] == "[" and ipv6_groups(host[1:-1]) is None:
            raise MalformedMessage("Bad IPv6 reference in Via")
        rest = text[match.end():]
        comment = ""
        if rest.endswith(")"):
            # COMPAT: RFC 2543 6.40 allowed a comment at the end; {via.comment} reads it
            opening = rest.find("(")
            found = _comment(rest, opening) if opening >= 0 else None
            if found is None:
                raise MalformedMessage("Bad comment in Via")
            comment = found[1]
            rest = rest[:opening].rstrip(" \t")
        via = cls(f"{name}/{version}", transport, host, port, rest, comment)
        via._params = parse_params(rest)
        return via

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        comment = f" ({self.comment})" if self.comment else ""
        return f"{self.protocol}/{self.transport} {self.host}{port}{self.params_text}{comment}"

    def __repr__(self) -> str:
        return f"Via({str(self)!r})"

    @property
    def params(self) -> dict[str, str | None]:
        """The parameters, read on first touch; raises ``MalformedMessage``."""
        params = self._params
        if params is None:
            text = self.params_text
            params = self._params = _read_params(text, '"' in text or " " in text or "\t" in text)
        return params

    @property
    def branch(self) -> str | None:
        """The branch parameter, or ``None`` (an RFC 2543 client)."""
        branch = self._branch
        return self.params.get("branch") if branch is None else branch

    def change_params(self, text: str) -> None:
        """Put other parameters in the place of those that there are, the branch among them."""
        self.params_text = text
        self.asks_rport = None
        self._params = None

    @property
    def received(self) -> str | None:
        """The received parameter without brackets: RFC 5118 4.5 says to accept both forms."""
        value = self.params.get("received")
        return value[1:-1] if value and value[0] == "[" and value[-1] == "]" else value

    @property
    def rport(self) -> int | None:
        """The value of the rport parameter (RFC 3581 3); ``None`` if absent or still empty."""
        value = self.params.get("rport")
        return parse_uint(value, 65535, "rport") if value else None

    @property
    def maddr(self) -> str | None:
        """The maddr parameter without brackets, or ``None``."""
        value = self.params.get("maddr")
        return value[1:-1] if value and value[0] == "[" and value[-1] == "]" else value

    @property
    def address(self) -> str:
        """The sent-by host without the brackets of an IPv6 reference."""
        host = self.host
        return host[1:-1] if host[:1] == "[" else host
