"""The errors of the SIP floor: each says whom to blame, and with which status to answer.

``MalformedMessage`` blames the peer, ``Misuse`` blames us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipgw.sip.message import Message

__all__ = ["MalformedMessage", "Misuse", "SipError"]


class SipError(Exception):
    """Says that a message cannot be served, and with which final status to answer it.

    ``status``: 400..699 (RFC 3261 21); ``reason``: fit to stand in a status line.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


class MalformedMessage(SipError):
    """Says that what a peer sent is not SIP as RFC 3261 25 writes it.

    ``message``: as much of it as could be read, so that a request can be answered, or ``None``.
    """

    def __init__(self, reason: str, status: int = 400, message: Message | None = None) -> None:
        super().__init__(reason, status)
        self.message = message


class Misuse(Exception):
    """Says that our own code called the SIP floor wrongly: a bug of sipgw, never of a peer."""
