"""Resources that need time to answer, and answers that are given in pieces, as fast as the peer reads.

An answer that breaks off in the middle cuts the connection, so that nobody takes it for whole."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from sipgw.web.site import Refusal

Log = Callable[[int, str], None]


@dataclass(frozen=True)
class Answer:
    """What is answered: status, headers, and the body in pieces that are made when they are sent."""

    pieces: Iterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    code: int = 200


class AnsweringResource(Resource):
    """Answers at its path and anything below it, with what a coroutine gives; ``name`` is what the log calls it."""

    isLeaf = True

    def __init__(self, name: str, log: Log) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = name
        self._log = log

    def refusal(self, request: Any) -> Refusal | None:
        """Why ``request`` is turned away at once, if so."""
        return None

    @abstractmethod
    async def answer(self, request: Any) -> Answer:
        """The answer to one request, whose body is there."""

    def render(self, request: Any) -> Any:
        """Refuse, or begin to answer."""
        refused = self.refusal(request)
        if refused is not None:
            return refused.render(request)
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        Deferred.fromCoroutine(self._run(request, gone)).addErrback(self._broken, request, gone)
        return NOT_DONE_YET

    async def _run(self, request: Any, gone: list[Failure]) -> None:
        answer = await self.answer(request)
        if gone:
            return
        request.setResponseCode(answer.code)
        for name, value in answer.headers.items():
            request.setHeader(name, value)
        request.setHeader("Cache-Control", "no-store")
        first = next(answer.pieces, b"")
        second = next(answer.pieces, None)
        if second is None:
            request.setHeader("Content-Length", str(len(first)))
            request.write(first)
            request.finish()
            return
        request.write(first)
        request.write(second)
        request.registerProducer(Pieces(self._name, request, answer.pieces, self._log), False)

    def _broken(self, failure: Failure, request: Any, gone: list[Failure]) -> None:
        self._log(-1, f"{self._name}: {type(failure.value).__name__}: {failure.getErrorMessage()}")
        if not gone:
            cut(request)


def cut(request: Any) -> None:
    """Close the connection in the middle of an answer."""
    request.channel.forceAbortClient()


@implementer(IPullProducer)
class Pieces:
    """The rest of a long answer, given to the peer as fast as it reads."""

    def __init__(self, name: str, request: Any, pieces: Iterator[bytes], log: Log) -> None:
        self._name = name
        self._request = request
        self._pieces = pieces
        self._log = log

    def resumeProducing(self) -> None:
        """Send the next piece."""
        try:
            piece = next(self._pieces, None)
        except Exception as error:
            self._log(-1, f"{self._name}: an answer broke off: {type(error).__name__}: {error}")
            self._request.unregisterProducer()
            cut(self._request)
            return
        if piece is None:
            self._request.unregisterProducer()
            self._request.finish()
        else:
            self._request.write(piece)

    def stopProducing(self) -> None:
        """The peer has gone: forget the rest."""
        self._pieces = iter(())
