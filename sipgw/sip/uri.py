"""SIP, SIPS, tel and other absolute URIs (RFC 3261 19.1, RFC 3966), and when two of them are the same.

A ``Uri`` keeps the text that it was read from, so an untouched one leaves as it came; it is never changed, its
``with_...`` methods give another one. Nothing is unescaped in the attributes: ``unescape`` is the caller's word.
"""

from __future__ import annotations

import re
from typing import Final

from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.grammar import ipv6_groups, parse_uint, unescape

__all__ = ["Uri", "same_host", "same_uri"]

# Every class excludes the delimiter that follows it, so a match takes linear time.
_PLAIN = r'\x00-\x20\x7f<>"'
_sip = re.compile(
    r"([sS][iI][pP][sS]?):"
    rf"(?:([^@:{_PLAIN}]+)(?::([^@:{_PLAIN}]*))?@)?"
    r"([A-Za-z0-9_.\-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]+))?"
    rf"(?:;([^?@{_PLAIN}]*))?(?:\?([^{_PLAIN}]*))?"
).fullmatch
_tel = re.compile(rf"[tT][eE][lL]:([^;?@{_PLAIN}]+)(?:;([^?{_PLAIN}]*))?").fullmatch
_absolute = re.compile(rf"([A-Za-z][A-Za-z0-9+.\-]*):[^{_PLAIN}]+").fullmatch
_bad_escape = re.compile(r"%(?![0-9A-Fa-f]{2})").search
_escapes = re.compile(r"%([0-9A-Fa-f]{2})").sub
_visual = re.compile(r"[\-.()]").sub

MAX_KNOWN: Final = 8192
"""How many URIs are remembered in parsed form; then the memory starts anew, so no sender can make it grow."""
_known: dict[str, Uri] = {}

# RFC 3261 19.1.4: present in one URI only, these make two URIs differ.
_DECISIVE = frozenset({"user", "ttl", "method", "maddr", "transport"})
_RESERVED = frozenset(";/?:@&=+$,")


class Uri:
    """Holds a URI cut into its parts.

    ``scheme`` is in lower case. ``user``, ``password`` and ``port`` are ``None`` where the URI has none, ``host``
    is "" where the scheme knows none (a tel URI has its number in ``user``); an IPv6 reference keeps its brackets.
    ``params`` and ``headers`` are texts without the leading ";" and "?"."""

    __slots__ = ("headers", "host", "params", "password", "port", "scheme", "text", "user")

    def __init__(
        self, text: str, scheme: str, user: str | None, password: str | None, host: str, port: int | None,
        params: str, headers: str,
    ) -> None:
        self.text = text
        self.scheme = scheme
        self.user = user
        self.password = password
        self.host = host
        self.port = port
        self.params = params
        self.headers = headers

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Read ``text``; raises ``MalformedMessage``. Any scheme is taken: 416 is for the one who routes.

        The same text gives the same object, as long as it is remembered: a server reads few URIs, but each many times."""
        known = _known.get(text)
        if known is not None:
            return known
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        made = _known[text] = cls._parse(text)
        return made

    @classmethod
    def _parse(cls, text: str) -> Uri:
        match = _sip(text)
        if match is None:
            return cls._parse_other(text)
        scheme, user, password, host, digits, params, headers = match.groups()
        if "%" in text and _bad_escape(text):
            raise MalformedMessage("Bad escape in URI")
        port = None if digits is None else parse_uint(digits, 65535, "port in URI")
        if host[0] == "[" and ipv6_groups(host[1:-1]) is None:
            raise MalformedMessage("Bad IPv6 reference in URI")
        return cls(text, scheme.lower(), user, password, host, port, params or "", headers or "")

    @classmethod
    def _parse_other(cls, text: str) -> Uri:
        match = _tel(text)
        if match is not None:
            return cls(text, "tel", match[1], None, "", None, match[2] or "", "")
        match = _absolute(text)
        if match is None:
            raise MalformedMessage("Bad URI")
        scheme = match[1].lower()
        if scheme in ("sip", "sips", "tel"):
            raise MalformedMessage("Bad URI")
        return cls(text, scheme, None, None, "", None, "", "")

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Uri({self.text!r})"

    @property
    def is_sip(self) -> bool:
        """True for sip and sips: the schemes that sipgw can route by itself."""
        return self.scheme == "sip" or self.scheme == "sips"

    @property
    def aor(self) -> str:
        """The address-of-record: scheme, user and host in lower case, nothing else (RFC 3261 10.3 step 5)."""
        if not self.host:
            return f"{self.scheme}:{self.user}" if self.user is not None else self.text
        host = self.host.lower()
        return f"{self.scheme}:{host}" if self.user is None else f"{self.scheme}:{self.user}@{host}"

    @property
    def address(self) -> str:
        """The host without the brackets of an IPv6 reference, as a socket wants it."""
        host = self.host
        return host[1:-1] if host[:1] == "[" else host

    def param(self, name: str) -> str | None:
        """Return the value of the first parameter of that name: "" if it has no value, ``None`` if absent."""
        if not self.params:
            return None
        name = name.lower()
        for part in self.params.split(";"):
            key, _, value = part.partition("=")
            if key.lower() == name:
                return value
        return None

    @property
    def param_list(self) -> list[tuple[str, str | None]]:
        """The parameters in order, names as written; ``None`` for one without "="."""
        pairs = (part.partition("=") for part in self.params.split(";") if part)
        return [(key, value if equals else None) for key, equals, value in pairs]

    @property
    def header_list(self) -> list[tuple[str, str]]:
        """The headers after "?" in order, still escaped."""
        pairs = (part.partition("=") for part in self.headers.split("&") if part)
        return [(key, value) for key, _, value in pairs]

    def with_user(self, user: str | None) -> Uri:
        """Return this URI with another user (escaped already), or with none; the password goes with the user."""
        if self.scheme == "tel":
            if not user:
                raise SipError("A tel URI needs a number", 484)
            return Uri.parse(_write("tel", None, None, user, None, self.params, ""))
        return self._with(user=user or None, password=self.password if user else None)

    def with_password(self, password: str | None) -> Uri:
        """Return this URI with another password, or without."""
        return self._with(user=self.user, password=password)

    def with_host(self, host: str) -> Uri:
        """Return this URI with another host; an IPv6 address may come without brackets."""
        if ":" in host and host[:1] != "[":
            host = f"[{host}]"
        return self._with(user=self.user, password=self.password, host=host)

    def with_port(self, port: int | None) -> Uri:
        """Return this URI with another port, or without."""
        self._must_be_sip()
        return Uri.parse(
            _write(self.scheme, self.user, self.password, self.host, port, self.params, self.headers)
        )

    def with_scheme(self, scheme: str) -> Uri:
        """Return this SIP URI as ``sip`` or ``sips``."""
        self._must_be_sip()
        if scheme not in ("sip", "sips"):
            raise SipError("Only sip and sips have the same parts", 416)
        return Uri.parse(scheme + self.text[len(self.scheme):])

    def with_params(self, params: str) -> Uri:
        """Return this URI with another parameter text (without leading ";"); "" removes it."""
        if self.scheme == "tel":
            return Uri.parse(_write("tel", None, None, self.user or "", None, params, ""))
        self._must_be_sip()
        return Uri.parse(
            _write(self.scheme, self.user, self.password, self.host, self.port, params, self.headers)
        )

    def with_param(self, name: str, value: str | None = None) -> Uri:
        """Return this URI with the parameter set to ``value`` (``None``: a bare name), in its place if present."""
        new = name if value is None else f"{name}={value}"
        parts = [part for part in self.params.split(";") if part]
        for index, part in enumerate(parts):
            if part.partition("=")[0].lower() == name.lower():
                parts[index] = new
                break
        else:
            parts.append(new)
        return self.with_params(";".join(parts))

    def without_param(self, name: str) -> Uri:
        """Return this URI without any parameter of that name."""
        name = name.lower()
        parts = [part for part in self.params.split(";") if part and part.partition("=")[0].lower() != name]
        return self.with_params(";".join(parts))

    def without_headers(self) -> Uri:
        """Return this URI without its ?headers, as a Request-URI must be (RFC 3261 19.1.5)."""
        if not self.headers:
            return self
        user, at, rest = self.text.rpartition("@")  # a user may have a "?", headers have no "@"
        return Uri.parse(f"{user}{at}{rest.partition('?')[0]}")

    def _must_be_sip(self) -> None:
        if not self.host:
            raise SipError(f"A {self.scheme} URI has no such part", 416)

    def _with(self, user: str | None, password: str | None, host: str | None = None) -> Uri:
        self._must_be_sip()
        host = self.host if host is None else host
        return Uri.parse(_write(self.scheme, user, password, host, self.port, self.params, self.headers))


def _write(
    scheme: str, user: str | None, password: str | None, host: str, port: int | None, params: str, headers: str,
) -> str:
    if user is not None:
        secret = "" if password is None else f":{password}"
        host = f"{user}{secret}@{host}"
    digits = "" if port is None else f":{port}"
    return f"{scheme}:{host}{digits}{';' if params else ''}{params}{'?' if headers else ''}{headers}"


def same_host(one: str, other: str) -> bool:
    """Tell whether two hosts are the same text: names without case, IPv6 addresses as numbers. No DNS."""
    if one == other:
        return True
    if ":" in one and ":" in other:
        groups = ipv6_groups(one.strip("[]"))
        return groups is not None and groups == ipv6_groups(other.strip("[]"))
    return one.lower() == other.lower()


def same_uri(one: Uri | str, other: Uri | str) -> bool:
    """Tell whether two URIs are equivalent (RFC 3261 19.1.4; RFC 3966 5 for tel; else as text).

    Not transitive, as the RFC says. Raises ``MalformedMessage`` for a text that is no URI."""
    if isinstance(one, str):
        one = Uri.parse(one)
    if isinstance(other, str):
        other = Uri.parse(other)
    if one.scheme != other.scheme:
        return False
    if one.text == other.text:
        return True
    if one.scheme == "tel":
        return _same_tel(one, other)
    if not one.is_sip:
        return one.text.partition(":")[2] == other.text.partition(":")[2]
    return (
        _normal(one.user) == _normal(other.user)
        and _normal(one.password) == _normal(other.password)
        and one.port == other.port
        and same_host(one.host, other.host)
        and _same_params(one, other)
        and _header_map(one) == _header_map(other)
    )


def _same_params(one: Uri, other: Uri) -> bool:
    if not one.params and not other.params:
        return True
    left = _param_map(one)
    right = _param_map(other)
    if any((name in left) != (name in right) for name in _DECISIVE):
        return False
    return all(right[name] == value for name, value in left.items() if name in right)


def _same_tel(one: Uri, other: Uri) -> bool:
    left = _visual("", one.user or "").lower()
    right = _visual("", other.user or "").lower()
    return left == right and _param_map(one) == _param_map(other)


def _param_map(uri: Uri) -> dict[str, str]:
    return {unescape(key).lower(): unescape(value or "").lower() for key, value in reversed(uri.param_list)}


def _header_map(uri: Uri) -> list[tuple[str, str]]:
    return sorted((unescape(key).lower(), _normal(value) or "") for key, value in uri.header_list)


def _normal(text: str | None) -> str | None:
    """Decode what is the same escaped or not: all but the reserved characters (RFC 3261 19.1.4)."""
    if text is None or "%" not in text:
        return text
    return _escapes(_decode_unreserved, text)


def _decode_unreserved(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    return f"%{match[1].upper()}" if code > 127 or chr(code) in _RESERVED else chr(code)
