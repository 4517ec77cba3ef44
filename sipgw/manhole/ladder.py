"""The way of messages as a ladder: a lane for each peer and one for sipgw, a line for each message with its time. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from sipgw.manhole.show import plain
from sipgw.manhole.tap import Seen
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request

LANE = 30
"""Characters from one lane to the next."""
SELF = "sipgw"
MARGIN = 19


class Ladder:
    """Draws one message after the other; lanes come as their peers do."""

    def __init__(self) -> None:
        self.lanes: list[str] = []
        self._first = 0.0
        self._last = 0.0

    def draw(self, seen: Seen) -> list[str]:
        """The lines for one more message: the heads too, where there is a new lane."""
        peer = (seen.lane or f"{seen.peer[0]}:{seen.peer[1]}")[: LANE - 2]
        lines = []
        if not self.lanes:
            self._first = self._last = seen.time
            self.lanes = [peer, SELF] if seen.came else [SELF, peer]
            lines.append(self._head())
        elif peer not in self.lanes:
            self.lanes.append(peer)
            lines.append(self._head())
        own, other = self.lanes.index(SELF), self.lanes.index(peer)
        left, right = min(own, other), max(own, other)
        rightward = (own == right) is seen.came
        row = [" "] * (LANE * (len(self.lanes) - 1) + 1)
        for lane in range(len(self.lanes)):
            row[lane * LANE] = "|"
        width = (right - left) * LANE - 1
        label = label_of(seen)[: width - 4]
        arrow = f" {label} ".center(width - 1, "-")
        row[left * LANE + 1 : right * LANE] = list(f"{arrow}>" if rightward else f"<{arrow}")
        since = f"{(seen.time - self._last) * 1000:+7.0f}ms" if seen.time >= self._last else " " * 9  # it is shown late
        times = f"{seen.time - self._first:8.3f} {since}"
        self._last = max(self._last, seen.time)
        return [*lines, f"{times} {''.join(row)}".rstrip()]

    def _head(self) -> str:
        return " " * MARGIN + "".join(f"{lane:<{LANE}}" for lane in self.lanes).rstrip()


def label_of(seen: Seen) -> str:
    """A message in a few words: ``INVITE bob``, ``180 Ringing``."""
    message = seen.message
    if message is None:
        return seen.label
    again = ""
    if b"application/sdp" in seen.data.partition(b"\r\n\r\n")[0].lower():
        again = " (SDP)"
    try:
        if isinstance(message, Request):
            return plain(f"{message.method} {message.request_uri.user or message.request_uri.host or ''}".rstrip()) + again
        return plain(f"{message.status} {message.reason}") + again
    except MalformedMessage:
        return plain(message.lines[0])


def ladder(messages: Iterable[Seen]) -> str:
    """All of it, in the order of time."""
    drawn = Ladder()
    return "\n".join(line for seen in sorted(messages, key=lambda each: each.time) for line in drawn.draw(seen))
