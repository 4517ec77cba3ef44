"""Ways to a peer on which somebody watches what goes out (tracer): a flow like any other, beside which a copy is shown.

So everything that really leaves is seen, in its order, whoever sent it: the transaction layer its repetitions and ACKs, tm its
replies, requests and CANCELs. Only what is watched pays for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipgw.sip.actions import Flow

Shown = Callable[[bytes, Any], None]
"""Called with what went out, and the flow on which it did."""


class WatchedFlow:
    """A flow that shows what it sends; in all else it is the flow beneath."""

    __slots__ = ("_beneath", "_shown")

    def __init__(self, beneath: Flow, shown: Shown) -> None:
        object.__setattr__(self, "_beneath", beneath)
        object.__setattr__(self, "_shown", shown)

    def send(self, data: bytes) -> Any:
        """Send, and show it unless it is known at once that it did not go out."""
        beneath = self._beneath
        sent = beneath.send(data)
        if sent is not False:
            self._shown(data, beneath)
        return sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._beneath, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._beneath, name, value)

    def __repr__(self) -> str:
        return repr(self._beneath)


def watched(flow: Flow, shown: Shown) -> Flow:
    """``flow`` with ``shown`` beside it; one that is watched already is watched by ``shown`` instead."""
    made: Any = WatchedFlow(flow._beneath if isinstance(flow, WatchedFlow) else flow, shown)
    return made  # type: ignore[no-any-return]
