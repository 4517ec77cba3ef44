"""The module mi_xmlrpc: management commands by XML-RPC over HTTP."""

from __future__ import annotations

from itertools import chain
from typing import Any

from sipgw.exports import param, requires
from sipgw.mi import xmlrpc
from sipgw.mi.jsonrpc import SERVER_ERROR, MIError
from sipgw.modules._mi_trace import MiTrace
from sipgw.modules.httpd import Httpd, ends_of, one_part
from sipgw.web.answers import Answer, AnsweringResource
from sipgw.web.site import Refusal


class MiXmlrpc(MiTrace):
    """Takes management commands by XML-RPC, at ``/RPC2`` of the module httpd."""

    name = "mi_xmlrpc"
    backend = "xmlrpc"

    http_root: str = param("RPC2", "The path at which commands are taken, without its slash", check=one_part)
    httpd: Httpd = requires("httpd")

    async def start(self) -> None:
        """Take commands from now on."""
        await super().start()
        self.httpd.mount(self.http_root, CallResource(self), self.name)

    async def stop(self) -> None:
        """Take no more commands."""
        self.httpd.unmount(self.http_root)


class CallResource(AnsweringResource):
    """Answers method calls in the bodies of POST."""

    def __init__(self, module: MiXmlrpc) -> None:
        super().__init__("mi_xmlrpc", module.server.user.log)
        self._module = module

    def refusal(self, request: Any) -> Refusal | None:
        """Other methods than POST and other types than XML are refused: no form on a page can make such a request."""
        if request.method != b"POST":
            return Refusal(405, "POST an XML-RPC call.", {"Allow": "POST"})
        media = (request.getHeader("Content-Type") or "").partition(";")[0].strip().lower()
        if media not in ("text/xml", "application/xml"):
            return Refusal(415, "Content-Type must be text/xml.")
        return None

    async def answer(self, request: Any) -> Answer:
        """Run one command."""
        headers = {"Content-Type": "text/xml; charset=utf-8"}
        module, ends, shown = self._module, ends_of(request), ""
        try:
            method, params = xmlrpc.decode(request.content.read())
            shown = module.show_command(method, params, ends)
            value = await module.server.commands.call(method, params)
        except MIError as error:
            module.show_answer(shown, error.message, ends)
            return Answer(xmlrpc.failure(error), headers)
        pieces = xmlrpc.result(value)
        try:
            first = next(pieces)
        except Exception as error:
            module.server.user.log(-1, f"mi_xmlrpc: {method}: {type(error).__name__}: {error}")
            return Answer(xmlrpc.failure(MIError(SERVER_ERROR)), headers)
        module.show_answer(shown, first.decode("utf-8", "replace"), ends)
        return Answer(chain((first,), pieces), headers)
