"""The transformations of texts: ``{s.*}``, ``{csv.*}`` and ``{re.subst}``.

Each is a function of the value and its arguments, all of them script values: null gives null, and so does what fails. Lengths
and positions count octets, as in C. An argument that is a literal number comes as ``int``; a variable that holds the text "2"
is not a number, so that ``{s.substr,$var(t),3}`` gives null, as OpenSIPS gives.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import hmac
import re
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sipgw.script.regex import Regex, compile_regex
from sipgw.script.values import c_int, decode, encode, to_number, to_text

if TYPE_CHECKING:
    from sipgw.script.run import Value

BLANKS: Final = " \t\r\n"


# ---- length, parts, search ----


def length(value: Value) -> Value:
    """``{s.len}``."""
    if value is None:
        return None
    text = str(value)
    return len(text) if text.isascii() else len(encode(text))


def number(value: Value) -> Value:
    """``{s.int}``: the number the text begins with, 0 if none, wrapped to 32 bits."""
    return to_number(value) if isinstance(value, str) else value


def substring(value: Value, offset: Value, size: Value) -> Value:
    """``{s.substr,offset,length}``: an offset below 0 counts from the end; length 0 is the rest, below 0 leaves so many away."""
    if value is None or not isinstance(offset, int) or not isinstance(size, int):
        return None
    data = encode(str(value))
    begin = offset + len(data) if offset < 0 else offset
    if begin < 0 or begin >= len(data):
        return None
    end = len(data) if size == 0 else min(begin + size, len(data)) if size > 0 else len(data) + size
    return None if end < begin else decode(data[begin:end])


def select(value: Value, index: Value, separator: Value) -> Value:
    """``{s.select,index,separator}``: one of the parts that a separator of one character makes; below 0 from the end."""
    if value is None or not isinstance(index, int) or separator is None:
        return None
    parts = str(value).split(str(separator)[:1] or ",")
    return parts[index] if -len(parts) <= index < len(parts) else None


def _find(value: Value, wanted: Value, start: Value, last: bool) -> Value:
    if value is None or wanted is None or not (start is None or isinstance(start, int)):
        return None
    data = encode(str(value))
    part = encode(str(wanted))
    if start is not None and start < 0:
        start += len(data)
    if last:
        limit = len(data) if start is None or start < 0 else start + len(part)
        found = data.rfind(part, 0, limit)
    else:
        found = -1 if start is not None and start < 0 else data.find(part, start or 0)
    return found if found >= 0 else None


def index(value: Value, wanted: Value, start: Value = None) -> Value:
    """``{s.index,text,start}``: where ``text`` is first found; null if it is not."""
    return _find(value, wanted, start, False)


def rindex(value: Value, wanted: Value, start: Value = None) -> Value:
    """``{s.rindex,text,start}``: where ``text`` is last found, at ``start`` or before it."""
    return _find(value, wanted, start, True)


# ---- shape ----


def lower(value: Value) -> Value:
    """``{s.tolower}``: the 26 letters."""
    return None if value is None else decode(encode(str(value)).lower())


def upper(value: Value) -> Value:
    """``{s.toupper}``: the 26 letters."""
    return None if value is None else decode(encode(str(value)).upper())


def reverse(value: Value) -> Value:
    """``{s.reverse}``: the octets from back to front."""
    return None if value is None else decode(encode(str(value))[::-1])


def trim(value: Value) -> Value:
    """``{s.trim}``: without blanks and line ends around it."""
    return None if value is None else str(value).strip(BLANKS)


def trim_left(value: Value) -> Value:
    """``{s.triml}``."""
    return None if value is None else str(value).lstrip(BLANKS)


def trim_right(value: Value) -> Value:
    """``{s.trimr}``."""
    return None if value is None else str(value).rstrip(BLANKS)


LONGEST: Final = 65536
"""Octets that fill and width make at most."""


def _filling(value: Value, token: Value, size: Value) -> tuple[bytes, bytes, int] | None:
    if value is None or token is None or not isinstance(size, int) or size > LONGEST:
        return None
    data, piece = encode(str(value)), encode(str(token))
    missing = max(size - len(data), 0)
    return (data, piece * (missing // len(piece) + 1), missing) if piece else None


def fill_left(value: Value, token: Value, size: Value) -> Value:
    """``{s.fill.left,token,length}``: tokens before the text, the first one cut, until it has that length."""
    filling = _filling(value, token, size)
    if filling is None:
        return None
    data, tokens, missing = filling
    return decode((tokens[-missing:] if missing else b"") + data)


def fill_right(value: Value, token: Value, size: Value) -> Value:
    """``{s.fill.right,token,length}``: tokens behind the text, the last one cut."""
    filling = _filling(value, token, size)
    return None if filling is None else decode(filling[0] + filling[1][: filling[2]])


def width(value: Value, size: Value) -> Value:
    """``{s.width,length}``: cut, or blanks behind it, to that length."""
    if value is None or not isinstance(size, int) or not 1 <= size <= LONGEST:
        return None
    return decode(encode(str(value))[:size].ljust(size))


# ---- codes ----


def encode_hexa(value: Value) -> Value:
    """``{s.encode.hexa}``: two lower-case digits for each octet."""
    return None if value is None else encode(str(value)).hex()


def decode_hexa(value: Value) -> Value:
    """``{s.decode.hexa}``; an odd last digit is left away."""
    if value is None:
        return None
    text = str(value)
    try:
        return decode(binascii.unhexlify(text[: len(text) & ~1]))
    except ValueError:
        return None


def b64encode(value: Value) -> Value:
    """``{s.b64encode}``."""
    return None if value is None else base64.b64encode(encode(str(value))).decode("ascii")


_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]+")


def b64decode(value: Value) -> Value:
    """``{s.b64decode}``; what is no base64 is skipped, padding may be missing."""
    if value is None:
        return None
    data = _NOT_BASE64.sub(b"", encode(str(value)))
    data = data[:-1] if len(data) % 4 == 1 else data
    return decode(base64.b64decode(data + b"=" * (-len(data) % 4)))


def hex2dec(value: Value) -> Value:
    """``{s.hex2dec}``; a number is taken as it is."""
    if not isinstance(value, str):
        return value
    if len(value) > 1000 or not all(char in "0123456789abcdefABCDEF" for char in value):
        return None
    return c_int(int(value, 16)) if value else 0


def dec2hex(value: Value) -> Value:
    """``{s.dec2hex}``: lower-case digits of the 32 bits."""
    if isinstance(value, str):
        if not re.fullmatch(r"[+-]?[0-9]{1,1000}", value, re.ASCII):
            return None
        value = int(value)
    return None if value is None else f"{value & 0xFFFFFFFF:x}"


def date2unix(value: Value) -> Value:
    """``{s.date2unix}``: the seconds since 1970 of an RFC 1123 date, as a text."""
    try:
        return str(int(datetime.strptime(str(value), "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC).timestamp()))
    except ValueError:
        return None


def xor(value: Value, key: Value) -> Value:
    """``{s.xor,key}``: each octet with the one of the key that is its turn."""
    if value is None or key is None or key == "":
        return None
    data, secret = encode(str(value)), encode(str(key))
    return decode(bytes(octet ^ secret[place % len(secret)] for place, octet in enumerate(data)))


# ---- escapes ----


def escape_common(value: Value) -> Value:
    r"""``{s.escape.common}``: a backslash before ``' " \`` and ``\0`` for NUL."""
    return None if value is None else re.sub(r"['\"\\]", r"\\\g<0>", str(value)).replace("\0", "\\0")


def unescape_common(value: Value) -> Value:
    """``{s.unescape.common}``: its opposite."""
    if value is None:
        return None
    return re.sub(r"\\(['\"\\0])", lambda found: "\0" if found[1] == "0" else found[1], str(value))


_USER: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!~*'()&=+$,;?/")
_PARAM: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!~*'()[]/:&+$")


def _escape(value: Value, plain: frozenset[int]) -> Value:
    if value is None:
        return None
    data = encode(str(value))
    if any(octet < 32 or octet > 126 for octet in data):
        return None
    return "".join(chr(octet) if octet in plain else f"%{octet:02x}" for octet in data)


def escape_user(value: Value) -> Value:
    """``{s.escape.user}``: for the user of a URI (RFC 3261 25.1, user-unreserved); octets that do not print make it null."""
    return _escape(value, _USER)


def escape_param(value: Value) -> Value:
    """``{s.escape.param}``: for a parameter of a URI (RFC 3261 25.1, param-unreserved)."""
    return _escape(value, _PARAM)


def unescape(value: Value) -> Value:
    """``{s.unescape.user}``, ``{s.unescape.param}``: ``%20`` is a blank; a bad escape, or one for a control, makes it null."""
    if value is None or "%" not in str(value):
        return None if value is None else str(value)
    first, *rest = encode(str(value)).split(b"%")
    made = [first]
    for piece in rest:
        try:
            octet = binascii.unhexlify(piece[:2])
        except ValueError:
            return None
        if len(octet) != 1 or not 32 <= octet[0] <= 126:
            return None
        made.append(octet + piece[2:])
    return decode(b"".join(made))


# ---- digests ----


def _digest(name: str) -> Callable[[Value], Value]:
    def transform(value: Value) -> Value:
        return None if value is None else hashlib.new(name, encode(str(value)), usedforsecurity=False).hexdigest()

    transform.__doc__ = f"``{{s.{name}}}``: the digest in lower-case digits."
    return transform


def _hmac(name: str) -> Callable[[Value, Value], Value]:
    def transform(value: Value, key: Value) -> Value:
        if value is None or key is None:
            return None
        return hmac.digest(encode(str(key)), encode(str(value)), name).hex()

    transform.__doc__ = f"``{{s.{name}_hmac,key}}``."
    return transform


DIGESTS: Final = {name: _digest(name) for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")}
HMACS: Final = {name: _hmac(name) for name in ("sha1", "sha224", "sha256", "sha384", "sha512")}


def crc32(value: Value) -> Value:
    """``{s.crc32}``: the register of CRC-32 as OpenSIPS leaves it, without the last complement; a text."""
    return None if value is None else str(zlib.crc32(encode(str(value))) ^ 0xFFFFFFFF)


# ---- {csv.*} ----


def _fields(value: Value) -> list[str] | None:
    """The fields of a line (RFC 4180); None if a quote is not closed, or there is nothing."""
    if value is None or value == "":
        return None
    try:
        return next(csv.reader([str(value)], strict=True))
    except (csv.Error, StopIteration):
        return None


def csv_count(value: Value) -> Value:
    """``{csv.count}``."""
    fields = _fields(value)
    return None if fields is None else len(fields)


def csv_value(value: Value, place: Value) -> Value:
    """``{csv.value,index}``: below 0 from the end."""
    fields = _fields(value)
    if fields is None or not isinstance(place, int) or not -len(fields) <= place < len(fields):
        return None
    return fields[place]


# ---- {re.subst} ----

REPEATED: Final = 10000
"""How often ``g`` replaces at most."""


class Substitution:
    r"""``/pattern/replacement/flags``: ``g`` all, ``i`` any case, ``s`` the text is one line.

    In the replacement ``\0`` .. ``\9`` are groups and ``\n \r \t`` controls; what its variables (``$var(x)``) are is known at
    each use. ``parts``: texts, groups as ``int``, and None for each variable of ``variables``, in order."""

    __slots__ = ("every", "parts", "regex", "variables")

    def __init__(self, expression: str, parse_format: Callable[[str], tuple[Any, ...]]) -> None:
        separator = expression[:1]
        if not separator or separator in "\\ \t\r\n" or separator.isalnum() or len(expression) < 4:
            raise ValueError(f"a substitution is /pattern/replacement/flags, not {expression!r}")
        pattern, replacement, flags = _cut(expression, separator)
        if set(flags) - set("gis"):
            raise ValueError(f"a substitution knows the flags g, i and s, not {flags!r}")
        self.regex: Regex = compile_regex(pattern, "i" in flags, "s" not in flags)
        self.every = "g" in flags
        self.parts: list[str | int | None] = []
        self.variables: list[Any] = []
        for piece in parse_format(replacement):
            if isinstance(piece, str):
                self.parts += _references(piece, separator)
            else:
                self.parts.append(None)
                self.variables.append(piece)

    def apply(self, value: Value, *variables: Value) -> Value:
        """Replace in ``value``; what does not match comes back as it is, what matches nothing but emptiness gives null."""
        if value is None:
            return None
        data = encode(str(value))
        made: list[bytes] = []
        place = 0
        for _ in range(REPEATED if self.every else 1):
            match = self.regex.search_bytes(data, place)
            if match is None:
                break
            if match.end() == match.start():
                return None
            made.append(data[place : match.start()])
            values = iter(variables)
            for part in self.parts:
                if part is None:
                    made.append(encode(to_text(next(values))))
                else:
                    made.append(encode(part if isinstance(part, str) else match.group(part) or ""))
            place = match.end()
        return decode(b"".join(made) + data[place:])


def _cut(expression: str, separator: str) -> tuple[str, str, str]:
    """Pattern, replacement and flags; a separator behind a backslash does not separate."""
    parts = [""]
    place = 1
    while place < len(expression):
        char = expression[place]
        if char == "\\" and place + 1 < len(expression):
            parts[-1] += expression[place : place + 2]
            place += 2
            continue
        if char == separator and len(parts) < 3:
            parts.append("")
        else:
            parts[-1] += char
        place += 1
    if len(parts) != 3:
        raise ValueError(f"a {separator!r} is missing in the substitution {expression!r}")
    return parts[0], parts[1], parts[2].strip()


def replacement_of(expression: str) -> str:
    """The middle part of ``/pattern/replacement/flags``, "" if it has none."""
    try:
        return _cut(expression, expression[:1])[1]
    except ValueError:
        return ""


def _references(text: str, separator: str) -> list[str | int | None]:
    """The texts and the group numbers of one piece of a replacement."""
    parts: list[str | int | None] = []
    for piece in re.split(r"(\\.)", text, flags=re.DOTALL):
        if piece[:1] == "\\" and len(piece) == 2:
            char = piece[1]
            parts.append(int(char) if char in "0123456789" else {"n": "\n", "r": "\r", "t": "\t"}.get(char, char))
        elif piece:
            parts.append(piece)
    return parts


@lru_cache(maxsize=256)
def _substitution(expression: str) -> Substitution | None:
    try:
        return Substitution(expression, lambda text: (text,))
    except ValueError:
        return None


def substitute(value: Value, expression: Value) -> Value:
    """``{re.subst,$var(x)}``: an expression that is known only now; no variables in its replacement."""
    substitution = None if expression is None else _substitution(str(expression))
    return None if substitution is None else substitution.apply(value)
