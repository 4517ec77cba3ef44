"""The module mi_http: management commands by POST of JSON-RPC 2.0 (RFC 9110; OpenSIPS answers 202 to a notification)."""

from __future__ import annotations

from typing import Any

from sipgw.exports import param, requires
from sipgw.modules._mi_trace import MiTrace
from sipgw.modules.httpd import Httpd, ends_of, one_part
from sipgw.web.answers import Answer, AnsweringResource
from sipgw.web.site import Refusal


class MiHttp(MiTrace):
    """Takes management commands over HTTP, at ``/mi`` of the module httpd."""

    name = "mi_http"
    backend = "json"

    root: str = param("mi", "The path at which commands are taken, without its slash", check=one_part)
    pretty_printing: int = param(0, "1: answers are indented, over several lines")
    httpd: Httpd = requires("httpd")

    async def start(self) -> None:
        """Take commands from now on."""
        await super().start()
        self.httpd.mount(self.root, CommandResource(self), self.name)

    async def stop(self) -> None:
        """Take no more commands."""
        self.httpd.unmount(self.root)


class CommandResource(AnsweringResource):
    """Answers JSON-RPC requests in the bodies of POST, at its path and anything below it, as OpenSIPS does."""

    def __init__(self, module: MiHttp) -> None:
        super().__init__("mi_http", module.server.user.log)
        self._module = module

    def refusal(self, request: Any) -> Refusal | None:
        """Other methods than POST and other types than JSON are refused."""
        if request.method != b"POST":
            return Refusal(405, "POST a JSON-RPC request.", {"Allow": "POST"})
        media = (request.getHeader("Content-Type") or "").partition(";")[0].strip().lower()
        if media != "application/json":
            return Refusal(415, "Content-Type must be application/json.")
        if not request.content.getvalue().strip():
            return Refusal(400, "The body is empty.")
        return None

    async def answer(self, request: Any) -> Answer:
        """Run one command; a notification is accepted (202) and gets no answer."""
        module = self._module
        pieces = await module.answer_shown(request.content.read(), bool(module.pretty_printing), ends_of(request))
        headers = {"Content-Type": "application/json"}
        return Answer(iter(()), headers, 202) if pieces is None else Answer(pieces, headers)
