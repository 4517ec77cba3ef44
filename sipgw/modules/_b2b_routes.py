"""The routes of the script that see what comes within calls before anybody decides about it, and may change it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.edits import write
from sipgw.sip.message import Message, Request, Response, parse

M = TypeVar("M", Request, Response)


class Shown:
    """Shows messages to routes of the script, by their names; ``kept``: under which name a run finds its session and leg."""

    def __init__(self, user: Any, kept: str) -> None:
        self._user = user
        self._kept = kept
        self.requests = ""
        self.replies = ""

    def request(self, request: Request, flow: Any, found: Any, then: Callable[[Request], None]) -> None:
        """Run the route for requests, and go on with the request as it is then."""
        self._show(self.requests, RouteKind.REQUEST, request, flow, found, then)

    def reply(self, response: Response, found: Any, then: Callable[[Response], None]) -> None:
        """Run the route for replies, and go on with the response as it is then."""
        self._show(self.replies, RouteKind.ONREPLY, response, None, found, then)

    def _show(self, name: str, kind: RouteKind, message: M, flow: Any, found: Any, then: Callable[[M], None]) -> None:
        route = self._user.routes.named.get(name) if name else None
        if route is None:
            then(message)
            return
        run = Run(message, kind, flow, self._user.clock(), self._user)
        if found is not None:
            run.keep()[self._kept] = found
        self._user.execute(route, run, lambda _result: then(edited(run, message)))


def edited(run: Run, message: M) -> M:
    """``message``, that of ``run``, with the changes that the script has made."""
    if not run.edits:
        return message
    made: Message = parse(write(message, run.edits))
    assert type(made) is type(message)
    return made
