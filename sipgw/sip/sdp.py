"""Session descriptions, edited line by line (RFC 8866): what is not edited leaves as it came.

Nothing is validated beyond what a question needs; a description that lacks lines is still a description. Lines are
kept with their ends, CRLF or LF; new ones end as the first line did.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

__all__ = ["STATIC_CODECS", "Codec", "Section", "SessionDescription", "Stream"]

STATIC_CODECS: Final[dict[str, tuple[str, int]]] = {
    "0": ("PCMU", 8000), "3": ("GSM", 8000), "4": ("G723", 8000), "5": ("DVI4", 8000), "6": ("DVI4", 16000),
    "7": ("LPC", 8000), "8": ("PCMA", 8000), "9": ("G722", 8000), "10": ("L16", 44100), "11": ("L16", 44100),
    "12": ("QCELP", 8000), "13": ("CN", 8000), "14": ("MPA", 90000), "15": ("G728", 8000), "16": ("DVI4", 11025),
    "17": ("DVI4", 22050), "18": ("G729", 8000), "25": ("CelB", 90000), "26": ("JPEG", 90000), "28": ("nv", 90000),
    "31": ("H261", 90000), "32": ("MPV", 90000), "33": ("MP2T", 90000), "34": ("H263", 90000),
}
"""Payload type -> name and clock rate, where no rtpmap says otherwise (RFC 3551 6)."""

_DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")
# Attributes whose value begins with the payload type they belong to.
_OF_PAYLOAD: Final = ("rtpmap", "fmtp", "rtcp-fb")
_lines = re.compile(r"[^\n]*\n|[^\n]+").findall


class Codec(NamedTuple):
    """Holds one payload type of a stream: ``payload`` as text, ``name`` as written, ``clock`` in Hz (0: unknown)."""

    payload: str
    name: str
    clock: int

    def is_named(self, name: str, clock: int | None = None) -> bool:
        """Tell whether this is the codec ``name`` (case ignored), at ``clock`` Hz if that is given."""
        return self.name.lower() == name.lower() and (clock is None or clock == self.clock)


class Section:
    """Holds consecutive lines: the session level, or one stream."""

    __slots__ = ("lines",)

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def values(self, letter: str) -> list[str]:
        """Return the values of all lines of that type: ``values("c")``."""
        return [line[2:].rstrip("\r\n") for line in self.lines if line[:2] == f"{letter}="]

    def value(self, letter: str) -> str | None:
        """Return the value of the first line of that type, or ``None``."""
        return next(iter(self.values(letter)), None)

    def attributes(self, name: str) -> list[str]:
        """Return the values of all ``a=name:value``; "" for one without value."""
        found = (value.partition(":") for value in self.values("a"))
        return [value for key, _, value in found if key == name]

    def attribute(self, name: str) -> str | None:
        """Return the value of the first ``a=name``: "" if it has none, ``None`` if it is absent."""
        return next(iter(self.attributes(name)), None)

    @property
    def own_direction(self) -> str | None:
        """The direction attribute at this level, or ``None``."""
        return next((value for value in self.values("a") if value in _DIRECTIONS), None)

    @property
    def own_address(self) -> str | None:
        """The address of the c= line at this level, or ``None``."""
        words = (self.value("c") or "").split()
        return words[2] if len(words) >= 3 else None

    def set_value(self, letter: str, value: str) -> None:
        """Put another value into the first line of that type; nothing happens if there is none."""
        for index, line in enumerate(self.lines):
            if line[:2] == f"{letter}=":
                self.lines[index] = f"{letter}={value}{_line_end(line)}"
                return


class Stream(Section):
    """Holds one m= line and what belongs to it."""

    __slots__ = ("_session",)

    def __init__(self, lines: list[str], session: Section) -> None:
        super().__init__(lines)
        self._session = session

    @property
    def _words(self) -> list[str]:
        return self.lines[0][2:].split()

    @property
    def media(self) -> str:
        """The kind of media: "audio"."""
        return (self._words or [""])[0]

    @property
    def port(self) -> int:
        """The port; 0 for a refused stream, and where it cannot be read."""
        digits = (self._words[1:2] or [""])[0].partition("/")[0]
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else 0

    @property
    def protocol(self) -> str:
        """The transport protocol: "RTP/AVP"."""
        return (self._words[2:3] or [""])[0]

    @property
    def formats(self) -> list[str]:
        """The formats of the m= line in order of preference: payload types, for RTP."""
        return self._words[3:]

    def set_formats(self, formats: list[str]) -> None:
        """Write another list of formats into the m= line."""
        self.lines[0] = f"m={' '.join([*self._words[:3], *formats])}{_line_end(self.lines[0])}"

    def set_port(self, port: int) -> None:
        """Write another port into the m= line; 0 refuses the stream (RFC 3264 6)."""
        words = self._words
        words[1:2] = [str(port)]
        self.lines[0] = f"m={' '.join(words)}{_line_end(self.lines[0])}"

    @property
    def codecs(self) -> list[Codec]:
        """The codecs in order of preference; a format that nothing names has the name ""."""
        names: dict[str, tuple[str, int]] = {}
        for value in self.attributes("rtpmap"):
            payload, _, encoding = value.partition(" ")
            name, _, rest = encoding.strip().partition("/")
            digits = rest.partition("/")[0]
            names[payload] = (name, int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0)
        return [Codec(payload, *names.get(payload) or STATIC_CODECS.get(payload, ("", 0))) for payload in self.formats]

    def remove_codecs(self, payloads: Collection[str]) -> None:
        """Take formats out of the m= line, and the rtpmap, fmtp and rtcp-fb lines that belong to them."""
        self.set_formats([payload for payload in self.formats if payload not in payloads])
        self.lines[1:] = [line for line in self.lines[1:] if _payload_of(line) not in payloads]

    def move_codecs(self, payloads: Collection[str], *, first: bool) -> None:
        """Put formats before all others, or behind them; they keep their order among themselves."""
        moved = [payload for payload in self.formats if payload in payloads]
        others = [payload for payload in self.formats if payload not in payloads]
        self.set_formats(moved + others if first else others + moved)

    @property
    def address(self) -> str | None:
        """The connection address, of the session where the stream has none (RFC 8866 5.7)."""
        return self.own_address or self._session.own_address

    @property
    def direction(self) -> str:
        """The direction, of the session where the stream has none, else sendrecv (RFC 8866 6.7)."""
        return self.own_direction or self._session.own_direction or "sendrecv"

    @property
    def is_on_hold(self) -> bool:
        """True if the peer wants no media sent: sendonly, inactive, or RFC 2543's address 0.0.0.0."""
        return self.direction in ("sendonly", "inactive") or self.address == "0.0.0.0"


def _payload_of(line: str) -> str | None:
    """Return the payload type that an attribute line belongs to, or ``None``."""
    name, colon, value = line.partition(":")
    if line[:2] != "a=" or not colon or name[2:] not in _OF_PAYLOAD:
        return None
    return (value.split(None, 1) or [""])[0]


def _line_end(line: str) -> str:
    return line[len(line.rstrip("\r\n")):]


class SessionDescription:
    """Holds a description: ``session``, the lines before the first m=, and ``streams``, a list to edit freely."""

    __slots__ = ("_is_open", "_line_end", "session", "streams")

    def __init__(self, session: Section, streams: list[Stream], line_end: str = "\r\n", is_open: bool = False) -> None:
        self.session = session
        self.streams = streams
        self._line_end = line_end
        self._is_open = is_open  # the last line came without its end

    @classmethod
    def parse(cls, data: bytes) -> SessionDescription:
        """Cut a body into lines; never fails. CRLF and LF are both taken, and kept."""
        lines = _lines(data.decode("utf-8", "surrogateescape"))
        line_end = "\n" if lines and lines[0].endswith("\n") and not lines[0].endswith("\r\n") else "\r\n"
        is_open = bool(lines) and not lines[-1].endswith("\n")
        if is_open:
            lines[-1] += line_end
        session = Section([])
        streams: list[Stream] = []
        section: Section = session
        for line in lines:
            if line[:2] == "m=":
                section = Stream([line], session)
                streams.append(section)
            else:
                section.lines.append(line)
        return cls(session, streams, line_end, is_open)

    def lines(self) -> Iterator[str]:
        """Give every line without its end, in order."""
        for section in (self.session, *self.streams):
            for line in section.lines:
                yield line.rstrip("\r\n")

    def add_line(self, section: Section, line: str) -> None:
        """Put a new line, given without its end, at the end of a section."""
        section.lines.append(line + self._line_end)

    def write(self) -> bytes:
        """Return the body."""
        text = "".join(["".join(section.lines) for section in (self.session, *self.streams)])
        if self._is_open:
            text = text.removesuffix(self._line_end)
        return text.encode("utf-8", "surrogateescape")
