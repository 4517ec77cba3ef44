"""What messages say of session timers (RFC 4028): how long a session may last, and who refreshes it. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from sipgw.sip.address import parse_list
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import parse_uint
from sipgw.sip.message import Message

LEAST: Final = 90
"""Seconds: no interval is shorter (section 4)."""
REFRESHES: Final = ("INVITE", "UPDATE")
"""What agrees on a session timer anew."""


class SessionExpires(NamedTuple):
    """``interval``: seconds. ``refresher``: ``uac`` or ``uas`` of the transaction, "" where that is left open."""

    interval: int
    refresher: str = ""

    @classmethod
    def parse(cls, text: str) -> SessionExpires | None:
        """The value of Session-Expires; None if it cannot be read."""
        seconds, *params = text.split(";")
        try:
            interval = parse_uint(seconds.strip(), (1 << 32) - 1)
        except MalformedMessage:
            return None
        for param in params:
            name, _, value = param.partition("=")
            if name.strip().lower() == "refresher" and value.strip().lower() in ("uac", "uas"):
                return cls(interval, value.strip().lower())
        return cls(interval)

    def __str__(self) -> str:
        return f"{self.interval};refresher={self.refresher}" if self.refresher else str(self.interval)


def session_expires(message: Message) -> SessionExpires | None:
    """What ``message`` says; None if it says nothing, or nothing that can be read."""
    text = message.header("Session-Expires")
    return None if text is None else SessionExpires.parse(text)


def knows_timers(message: Message) -> bool:
    """Whether the sender of ``message`` knows session timers."""
    return any(
        tag.strip().lower() == "timer" for name in ("Supported", "Require") for value in message.headers(name)
        for tag in parse_list(value)
    )
