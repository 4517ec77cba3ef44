"""Calls on hold by the proxy: a re-INVITE of ours asks a phone to neither send nor play, another one lets it go on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sipgw.proxy.dialogs import Call, Leg
from sipgw.proxy.following import Follower
from sipgw.sip.message import Response
from sipgw.sip.sdp import SessionDescription

VALUE: Final = "call_hold_%s"
"""The ``$dlg_val`` of a leg that is on hold; OpenSIPS has one of that name."""
_DIRECTIONS: Final = ("a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive")

Told = Callable[[Call, str, str, str], None]


def changed(body: bytes, direction: str, by: int) -> bytes:
    """A session description with all streams in that direction, "" as they are, and another version (RFC 3264 8)."""
    lines = body.decode("utf-8", "surrogateescape").splitlines()
    if direction:
        lines = [line for line in lines if line not in _DIRECTIONS]
    made: list[str] = []
    streams = 0
    for line in lines:
        if line.startswith("o="):
            words = line.split(" ")
            if len(words) > 2 and words[2].isdigit():
                words[2] = str(int(words[2]) + by)
            line = " ".join(words)
        elif line.startswith("m="):
            if streams and direction:
                made.append(f"a={direction}")
            streams += 1
        made.append(line)
    if streams and direction:
        made.append(f"a={direction}")
    return ("\r\n".join(made) + "\r\n").encode("utf-8", "surrogateescape")


class Holds:
    """Holds calls of ``follower``; ``told(call, leg, action, state)`` hears of it: hold or unhold, start, ok or fail."""

    def __init__(self, follower: Follower, requests: Any, told: Told) -> None:
        self._follower = follower
        self._requests = requests
        self._told = told

    def held(self, call: Call, name: str) -> bool:
        """Whether that leg ("caller", "callee") is on hold."""
        return VALUE % name in call.values

    def hold(self, call: Call, name: str, headers: str) -> bool:
        """Put a leg on hold; False if nobody knows its session."""
        leg = leg_of(call, name)
        before = leg.sent_sdp or call.other(leg).sdp
        if not before or not SessionDescription.parse(before).streams:
            return False
        call.kept[VALUE % name] = leg.sent_sdp
        leg.sent_sdp = changed(before, "inactive", self._next(call))  # so a ping does not end it
        call.values[VALUE % name] = 1
        self._ask(call, name, "hold", leg.sent_sdp, headers)
        return True

    def unhold(self, call: Call, name: str, headers: str) -> bool:
        """Let a leg go on; False if nobody knows its session."""
        leg = leg_of(call, name)
        leg.sent_sdp = call.kept.pop(VALUE % name, b"")
        body = leg.sent_sdp or call.other(leg).sdp
        del call.values[VALUE % name]
        if not body:
            return False
        self._ask(call, name, "unhold", changed(body, "", self._next(call)), headers)
        return True

    def _next(self, call: Call) -> int:
        """How far the versions of the call's session descriptions are ahead of what the phones have sent."""
        call.kept["holds"] = ahead = call.kept.get("holds", 0) + 1
        return int(ahead)

    def _ask(self, call: Call, name: str, action: str, body: bytes, headers: str) -> None:
        self._told(call, name, action, "start")
        self._requests.send(
            call, leg_of(call, name), "INVITE", headers=headers, body=body, content_type="application/sdp",
            answer=partial(self._answered, call, name, action),
        )
        self._follower.save(call)

    def _answered(self, call: Call, name: str, action: str, status: int, response: Response | None) -> None:
        if 0 < status < 200:
            return
        fine = 200 <= status < 300
        if not fine and action == "hold" and self.held(call, name):
            del call.values[VALUE % name]
            leg_of(call, name).sent_sdp = call.kept.pop(VALUE % name, b"")
            self._follower.save(call)
        self._told(call, name, action, "ok" if fine else "fail")


def leg_of(call: Call, name: str) -> Leg:
    """The leg of that name."""
    return call.caller if name == "caller" else call.winner
