"""The session descriptions of a dialog's two sides: what each has sent, and what was sent to it where that is not the same.

A script or a module may change a body on its way, so both are taken when the message is written. They count when a 2xx has gone
back: a refused re-INVITE changes nothing. Pings, holds and commands offer them again later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipgw.proxy.dialogs import Leg
from sipgw.script.run import Run
from sipgw.sip.edits import EditList
from sipgw.sip.message import Request, Response

__all__ = ["OFFERING", "follow", "follow_ack"]

OFFERING = frozenset({"INVITE", "UPDATE", "PRACK"})
"""Requests that may have an offer, or an answer (RFC 3264, 3262, 3311)."""


class Exchange:
    """The bodies of one request and its success. ``source`` sends it, ``target(response)`` is who answers."""

    __slots__ = ("_source", "_target", "changed")

    def __init__(self, source: Leg, target: Callable[[Response], Leg]) -> None:
        self._source = source
        self._target = target
        self.changed: bytes | None = None
        """What the request has been sent with instead of its body."""

    def going(self, edits: EditList, _way: Any) -> str:
        """See a request that is written."""
        self.changed = edits.new_body
        return ""

    def answered(self, request: Request, response: Response, edits: EditList) -> EditList:
        """See a response that goes back."""
        if 200 <= response.status < 300:
            source, target = self._source, self._target(response)
            if request.body:
                source.sdp = request.body
                target.sent_sdp = _other(self.changed, request.body)
            if response.body:
                target.sdp = response.body
                source.sent_sdp = _other(edits.new_body, response.body)
        return edits


def _other(changed: bytes | None, body: bytes) -> bytes:
    """What was sent, if it is not ``body``."""
    return b"" if changed is None or changed == body else changed


def follow(run: Run, tm: Any, source: Leg, target: Callable[[Response], Leg]) -> None:
    """Take the bodies of the request of ``run`` and of its 2xx."""
    exchange = Exchange(source, target)
    run.edits = run.edits.later(1, exchange.going)
    tm.rewrite_replies(run, exchange.answered)


def follow_ack(run: Run, source: Leg, target: Leg) -> None:
    """Take the answer in an ACK, where the 2xx had the offer."""
    body = run.message.body
    if not body:
        return
    source.sdp, target.sent_sdp = body, b""

    def going(edits: EditList, _way: Any) -> str:
        target.sent_sdp = _other(edits.new_body, body)
        return ""

    run.edits = run.edits.later(1, going)
