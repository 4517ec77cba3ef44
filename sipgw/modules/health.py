"""The module health: two pages for whoever watches over the process, such as a load balancer or Kubernetes.

``/health/live`` is 200 as long as the process answers at all. ``/health/ready`` is 200 while it wants traffic, else 503: from the
moment when all modules have started and the startup route has run until the shutdown begins, and only as long as all that
``require`` names is ready (the groups of ``status_report:list_status``)."""

from __future__ import annotations

import json
from typing import Any

from twisted.web.resource import Resource

from sipgw import __version__
from sipgw.core.status import ALL, MAIN
from sipgw.exports import Module, mi, param, requires
from sipgw.interfaces import Server
from sipgw.modules.httpd import Httpd, one_part
from sipgw.web.site import Refusal


class Health(Module):
    """Says whether the server lives and whether it is ready, at ``/health/live`` and ``/health/ready`` of the module httpd."""

    name = "health"

    root: str = param("health", "The path of the pages, without its slash", check=one_part)
    require: str = param(
        "", "What must be ready besides the core: group, group/identifier, or all, with blanks between", each="_require"
    )
    httpd: Httpd = requires("httpd")

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        self._required: list[str] = []
        super().__init__(server, **parameters)

    def _require(self, text: str) -> None:
        self._required += text.split()

    async def start(self) -> None:
        """Answer from now on: not ready yet."""
        self.httpd.mount(self.root, _Pages(self), self.name)

    async def stop(self) -> None:
        """Answer no more."""
        self.httpd.unmount(self.root)

    def missing(self) -> list[str]:
        """What is not ready, each with the reason it gives; empty if the server is ready."""
        reports = self.server.user.status
        found = [] if reports.core.ready else [_say("core", reports.core.details)]
        for wanted in self._required:
            name, slash, which = wanted.partition("/")
            groups = reports.all() if wanted == ALL else list(filter(None, [reports.find(name)]))
            if not groups:
                found.append(_say(wanted, "there is none"))
            for group in groups:
                identifiers = [group.find(which or MAIN)] if slash else group.all()
                for each in identifiers:
                    if each is None:
                        found.append(_say(wanted, "there is none"))
                    elif not each.ready and each is not reports.core:
                        found.append(_say(f"{group.name}/{each.name}", each.details))
        return found

    @mi()
    def ready(self) -> dict[str, Any]:
        """Says whether the server is ready, and if not why, as the page does."""
        missing = self.missing()
        return {"ready": not missing, "missing": missing}


def _say(name: str, details: str) -> str:
    return f"{name}: {details or 'not ready'}"


class _Pages(Resource):
    """The pages; both answer at once and are never kept."""

    isLeaf = True

    def __init__(self, module: Health) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._module = module

    def render(self, request: Any) -> bytes:
        """Answer GET and HEAD; whatever is asked below the path is one of the two pages."""
        if request.method not in (b"GET", b"HEAD"):
            return Refusal(405, "GET the page.", {"Allow": "GET, HEAD"}).render(request)
        page = b"/".join(request.postpath)
        if page == b"live":
            user = self._module.server.user
            answer: dict[str, Any] = {"live": True, "version": __version__, "uptime": int(user.wall_clock() - user.started)}
        elif page == b"ready":
            answer = self._module.ready()
            if not answer["ready"]:
                request.setResponseCode(503)
        else:
            return Refusal(404, "Ask for live or ready.").render(request)
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        return json.dumps(answer).encode() + b"\n"
