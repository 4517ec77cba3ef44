"""The session descriptions that one side is given, kept straight when who describes changes (RFC 3264 8). Pure.

Each side of a back-to-back call sees one session for as long as its dialog lasts, whoever it is joined with meanwhile. So the
o= line that it was given last before a bridge stays, and we count the versions from then on (``own``); before that, what the
other side says of itself passes as it came. After a bridge no offer has fewer streams than what was said before: those that are
missing are refused ones, and what answers them is cut off again. ``held`` and ``on_hold`` are what we say ourselves, when nobody
else can."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sipgw.b2bua.port import Content
from sipgw.sip.body import MediaType, Multipart, Part
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.sdp import Section, SessionDescription, Stream

SDP: Final = "application/sdp"


def is_sdp(content: Content) -> bool:
    """Whether its body is a session description."""
    return bool(content.body) and content.content_type.partition(";")[0].strip().lower() == SDP


def description_of(content: Content) -> bytes:
    """The session description in it, alone or as a part among others; nothing if there is none."""
    if not content.body or is_sdp(content):
        return content.body
    found = _parts(content)
    return b"" if found is None else found[1].body


def with_description(content: Content, body: bytes) -> Content:
    """``content`` with another session description in the place of its own."""
    found = None if is_sdp(content) else _parts(content)
    if found is None:
        return replace(content, body=body)
    found[1].body = body
    return replace(content, body=found[0].write())


def _parts(content: Content) -> tuple[Multipart, Part] | None:
    """A multipart body, and the part of it that is a session description."""
    if content.content_type[:10].lower() != "multipart/":
        return None
    try:
        whole = Multipart.parse(content.body, MediaType.parse(content.content_type).boundary or "")
        return next(((whole, part) for part in whole.parts if part.media_type.matches(SDP)), None)
    except MalformedMessage:
        return None


@dataclass(slots=True)
class Told:
    """What one side has been told: who describes (o= but for its version), the ``version``, the last description; ``own``: we
    count the versions now; ``streams``: how many of the last offer were the other side's, if some were added to it."""

    origin: str = ""
    version: int = 0
    last: bytes = b""
    own: bool = False
    streams: int = 0

    def fit(self, body: bytes, offer: bool) -> bytes:
        """``body`` as this side is to see it."""
        self.streams = 0
        if not self.own:
            self.last = body
            return body
        described = SessionDescription.parse(body)
        if not self.origin:
            self.origin, self.version = _origin(SessionDescription.parse(self.last)) or _origin(described) or ("", 0)
        if not self.origin or _origin(described) is None:
            return body  # nobody could keep that straight
        if not self.last:
            self.last = body
            return body
        if offer:
            self._fill(described)
        self._sign(described)
        if described.write() != self.last:
            self.version += 1
            self._sign(described)
            self.last = described.write()
        return self.last

    def _sign(self, described: SessionDescription) -> None:
        user, session, *rest = self.origin.split()
        described.session.set_value("o", " ".join([user, session, str(self.version), *rest]))

    def _fill(self, described: SessionDescription) -> None:
        missing = SessionDescription.parse(self.last).streams[len(described.streams):]
        if missing and described.streams:
            self.streams = len(described.streams)
            described.streams += [_refused(stream, described.session) for stream in missing]

    def cut(self, answer: bytes) -> bytes:
        """An answer of this side, without what answers the streams that were added to the offer."""
        count, self.streams = self.streams, 0
        if not count:
            return answer
        described = SessionDescription.parse(answer)
        del described.streams[count:]
        return described.write()


def _origin(described: SessionDescription) -> tuple[str, int] | None:
    """Who describes, and which version that is."""
    words = (described.session.value("o") or "").split()
    if len(words) != 6 or not (words[2].isascii() and words[2].isdigit() and len(words[2]) <= 20):
        return None
    return " ".join([*words[:2], *words[3:]]), int(words[2])


def _refused(stream: Stream, session: Section) -> Stream:
    words = stream.lines[0].split()
    return Stream([f"{' '.join([words[0], '0', *words[2:]])}\r\n"], session)


def on_hold(body: bytes) -> bytes:
    """A description with all streams inactive; "" if they are so already, or there are none."""
    described = SessionDescription.parse(body)
    changed = False
    for stream in described.streams:
        if stream.direction != "inactive":
            changed = True
            stream.lines[:] = [line for line in stream.lines if line.strip() not in _DIRECTIONS]
            described.add_line(stream, "a=inactive")
    return described.write() if changed else b""


_DIRECTIONS: Final = frozenset({"a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"})


def held(offer: bytes) -> Content:
    """The answer to ``offer`` that accepts it and lets nothing flow yet; without a body if that is no offer."""
    streams = SessionDescription.parse(offer).streams
    if not streams:
        return Content()
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "c=IN IP4 0.0.0.0", "t=0 0"]
    for stream in streams:
        words = stream.lines[0].split()
        port = "0" if stream.port == 0 else "9"
        lines += [" ".join([words[0], port, *words[2:]]), "a=inactive"]
        lines += [f"a=rtpmap:{value}" for value in stream.attributes("rtpmap")]
        lines += [f"a=mid:{value}" for value in stream.attributes("mid")]
    return Content("", "".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape"), SDP)
