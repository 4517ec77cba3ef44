"""The module mi_http: management commands by POST of JSON-RPC 2.0 (RFC 9110; OpenSIPS answers 202 to a notification)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from sipgw.exports import Module, param, requires
from sipgw.interfaces import Server
from sipgw.modules.httpd import Httpd
from sipgw.web.site import Refusal


def _path(value: str) -> None:
    """Refuse what is not one part of a path."""
    if not value.strip("/") or "/" in value.strip("/"):
        raise ValueError(f"{value!r} is not one part of a path")


class MiHttp(Module):
    """Takes management commands over HTTP, at ``/mi`` of the module httpd."""

    name = "mi_http"

    root: str = param("mi", "The path at which commands are taken, without its slash", check=_path)
    pretty_printing: int = param(0, "1: answers are indented, over several lines")
    httpd: Httpd = requires("httpd")

    async def start(self) -> None:
        """Take commands from now on."""
        self.httpd.mount(self.root, CommandResource(self.server, bool(self.pretty_printing)), self.name)

    async def stop(self) -> None:
        """Take no more commands."""
        self.httpd.unmount(self.root)


class CommandResource(Resource):
    """Answers JSON-RPC requests in the bodies of POST, at its path and anything below it, as OpenSIPS does."""

    isLeaf = True

    def __init__(self, server: Server, pretty: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._server = server
        self._pretty = pretty

    def render(self, request: Any) -> Any:
        """Answer one request; other methods than POST and other types than JSON are refused."""
        if request.method != b"POST":
            return Refusal(405, "POST a JSON-RPC request.", {"Allow": "POST"}).render(request)
        media = (request.getHeader("Content-Type") or "").partition(";")[0].strip().lower()
        if media != "application/json":
            return Refusal(415, "Content-Type must be application/json.").render(request)
        body = request.content.read()
        if not body.strip():
            return Refusal(400, "The body is empty.").render(request)
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        Deferred.fromCoroutine(self._answer(request, body, gone)).addErrback(self._broken, request, gone)
        return NOT_DONE_YET

    async def _answer(self, request: Any, body: bytes, gone: list[Failure]) -> None:
        answer = await self._server.commands.answer(body, self._pretty)
        if gone:
            return
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        if answer is None:
            request.setResponseCode(202)
            request.setHeader("Content-Length", "0")
            request.finish()
            return
        first = next(answer)
        second = next(answer, None)
        if second is None:
            request.setHeader("Content-Length", str(len(first)))
            request.write(first)
            request.finish()
            return
        request.write(first)
        request.write(second)
        request.registerProducer(Pieces(request, answer, self._server.user.log), False)

    def _broken(self, failure: Failure, request: Any, gone: list[Failure]) -> None:
        self._server.user.log(-1, f"mi_http: {type(failure.value).__name__}: {failure.getErrorMessage()}")
        if not gone:
            cut(request)


def cut(request: Any) -> None:
    """Close the connection in the middle of an answer, so that nobody takes it for whole."""
    request.channel.forceAbortClient()


@implementer(IPullProducer)
class Pieces:
    """A long answer, given to the peer as fast as it reads."""

    def __init__(self, request: Any, answer: Iterator[bytes], log: Any) -> None:
        self._request = request
        self._answer = answer
        self._log = log

    def resumeProducing(self) -> None:
        """Send the next piece."""
        try:
            piece = next(self._answer, None)
        except Exception as error:
            self._log(-1, f"mi_http: an answer broke off: {type(error).__name__}: {error}")
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
        self._answer = iter(())
