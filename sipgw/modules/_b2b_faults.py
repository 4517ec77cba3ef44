"""What becomes of a back-to-back call when a response, or something of our own, is broken: it is logged, and the call ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipgw.b2bua.legs import Event, Leg, State
from sipgw.b2bua.own import OwnSession
from sipgw.sip.errors import SipError
from sipgw.sip.message import Response

Heard = Callable[[int, "Response | None"], None]
LAST_ANSWERS = {
    State.CALLING: Event.FAILURE, State.RINGING: Event.FAILURE, State.CANCELLING: Event.FAILURE, State.LEAVING: Event.LEFT,
}
"""What a final response that cannot be used means to a leg that waits for one."""


class Faults:
    """Stands between the transactions and the sessions of ``entities``."""

    def __init__(self, entities: Any) -> None:
        self._entities = entities

    def heard(self, leg: Leg, heard: Heard) -> Heard:
        """``heard``, but what it cannot bear ends the call."""

        def safe(status: int, response: Response | None) -> None:
            try:
                heard(status, response)
            except Exception as error:
                self._end(leg, status, error)

        return safe

    def success(self, leg: Leg, heard: Callable[[Response], None]) -> Callable[[Response], None]:
        """The same for what takes the 2xx to an INVITE."""
        return lambda response: self.heard(leg, lambda _status, _found: heard(response))(response.status, response)

    def _end(self, leg: Leg, status: int, error: Exception) -> None:
        user = self._entities.user
        if isinstance(error, SipError):
            user.log_rarely(
                ("b2b response", error.reason), -1, f"b2b_entities: a call ends by a bad response: {error.reason}"
            )
        else:
            user.broken(error)
        session, _ = self._entities.legs.get(leg.key, (None, leg))
        if session is None:
            return
        last = None if 0 < status < 200 else LAST_ANSWERS.get(leg.state)  # no other answer will come
        if isinstance(session, OwnSession):
            if last is not None:
                session.step(last)
            session.expired()
            return
        session.status = 500, "Server Internal Error"
        if last is not None:
            session.step(leg, last)
        session.end(*session.status)
