"""Asking somebody about each message as it arrives, before anything else is done with it: retransmissions, responses and what
cannot be read too."""

from __future__ import annotations

from collections.abc import Callable

from sipgw.core.user import TransactionUser
from sipgw.sip.actions import Flow
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response

Allows = Callable[[Request | Response | None, Flow], bool]
"""Whether a message may go on; it is None where it could not be read at all."""


def guard(user: TransactionUser, allows: Allows) -> None:
    """Drop each message that ``allows`` refuses. Costs nothing where nobody asks for it."""
    take, refuse = user.take, user.refuse
    inside = False

    def guarded_take(message: Request | Response, flow: Flow) -> None:
        nonlocal inside
        if not allows(message, flow):
            return
        outside, inside = inside, True  # what it refuses itself has been asked about
        try:
            take(message, flow)
        finally:
            inside = outside

    def guarded_refuse(error: MalformedMessage, flow: Flow) -> None:
        message = error.message
        if inside or allows(message if isinstance(message, Request | Response) else None, flow):
            refuse(error, flow)

    user.take, user.refuse = guarded_take, guarded_refuse  # type: ignore[method-assign]
