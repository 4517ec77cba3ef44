"""The sessions of calls: which media two phones have agreed on, and what one of them has offered (RFC 3264)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sipgw.proxy.dialogs import Call, Leg
from sipgw.script.run import Run
from sipgw.sip.message import Message, Request, Response
from sipgw.sip.sdp import SessionDescription

KEPT: Final = "sessions"
"""Where a call keeps its ``Sessions``."""


@dataclass(slots=True)
class Sessions:
    """``offer``: who has offered something that is not answered yet ("caller", "callee"), and what; ``agreed``: of either side
    what was last agreed on."""

    offer: tuple[str, bytes] | None = None
    agreed: dict[str, bytes] | None = None

    def say(self, side: str, body: bytes, final: bool) -> None:
        """``side`` has sent ``body``: an offer, or the answer if the other one has offered; a ``final`` one counts."""
        if self.offer is not None and self.offer[0] != side:
            if final:
                other, offered = self.offer
                self.agreed = {other: offered, side: body}
                self.offer = None
        else:
            self.offer = side, body

    def describe(self) -> dict[str, Any]:
        """How the operator is shown it."""
        said: dict[str, Any] = {}
        if self.agreed is not None:
            said["negotiated"] = {side: _streams(self.agreed[side]) for side in ("caller", "callee")}
        if self.offer is not None:
            said["pending"] = {self.offer[0]: _streams(self.offer[1])}
        return said


def _streams(body: bytes) -> list[dict[str, Any]]:
    found = []
    for stream in SessionDescription.parse(body).streams:
        found.append({
            "media": stream.media, "address": stream.address, "port": stream.port, "protocol": stream.protocol,
            "formats": stream.formats, "direction": stream.direction,
        })
    return found


class SessionWatch:
    """Keeps the sessions of calls; ``tm`` tells how their requests are answered."""

    def __init__(self, tm: Any) -> None:
        self._tm = tm

    def begin(self, call: Call, run: Run) -> None:
        """Keep the sessions of ``call``, whose INVITE is that of ``run``."""
        request = run.message
        if isinstance(request, Request) and request.method == "INVITE":
            sessions = call.kept[KEPT] = Sessions()
            self._request(sessions, "caller", run, request)
            call.listeners.append(partial(self._heard, sessions))

    def _heard(self, sessions: Sessions, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        if event == "context":
            call.kept["context"] = call.kept.get("context", {}) | {"qos": sessions.describe()}
        elif event == "within" and run is not None and isinstance(run.message, Request):
            side = "callee" if leg is call.caller else "caller"
            if run.message.method == "ACK":
                if _session(run.message):
                    sessions.say(side, run.message.body, True)
            elif run.message.method in ("INVITE", "UPDATE"):
                self._request(sessions, side, run, run.message)

    def _request(self, sessions: Sessions, side: str, run: Run, request: Request) -> None:
        sessions.offer = None
        if _session(request):
            sessions.say(side, request.body, False)
        self._tm.listen(run, partial(self._answered, sessions, "caller" if side == "callee" else "callee"))

    def _answered(
        self, sessions: Sessions, side: str, context: Any, event: str, status: int, response: Response | None
    ) -> None:
        if event not in ("response_out", "local_reply"):
            return
        if status >= 300:
            sessions.offer = None
        elif status > 100 and response is not None and _session(response):
            sessions.say(side, response.body, status >= 200)


def _session(message: Message) -> bool:
    return bool(message.body) and "application/sdp" in (message.header("Content-Type") or "").lower()
