"""rr: Record-Route and Route for scripts; the machinery is ``proxy/record_route.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from sipgw.exports import BRANCH, FAILURE, REQUEST, HeaderText, Module, Regex, function, param, pvar
from sipgw.proxy import record_route as routing
from sipgw.proxy.record_route import PresetRecordRoute, RecordRoute, RouteParam
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage


def _check_direction(value: str) -> None:
    if value.lower() not in ("upstream", "downstream"):
        raise ValueError(f"unknown direction {value!r}: write upstream or downstream")


class Rr(Module):
    """Stays in the path of dialogs and routes their requests."""

    append_fromtag: int = param(1, "Whether the Record-Route has the caller's tag, which is_direction() needs: 0 or 1")
    enable_double_rr: int = param(1, "Whether a request that leaves by another socket gets two Record-Routes: 0 or 1")
    add_username: int = param(0, "Whether the Record-Route has the user of the Request-URI: 0 or 1")
    enable_socket_mismatch_warning: int = param(1, "Whether a Route of ours that names no socket of ours is logged: 0 or 1")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.on_route: list[Callable[[Run, str], None]] = []
        """Called with the run and the parameters of our Route value when ``loose_route`` has found one; for other modules."""

    # -- recording

    @function(REQUEST | FAILURE | BRANCH)
    def record_route(self, run: Run, params: HeaderText | None = None) -> bool:
        """Make the dialog's further requests come here; ``params`` (``;name=value``) come back in their Route."""
        return self._record(run, "record_route", params or "", ())

    @function(REQUEST | FAILURE | BRANCH)
    def record_route_preset(self, run: Run, string: HeaderText, string2: HeaderText | None = None) -> bool:
        """Record-route by the address ``string``; ``string2`` is the one for the caller's side."""
        if string2 and not self.enable_double_rr:
            run.user.log(-1, "record_route_preset: two addresses need enable_double_rr")
            return False
        return self._record(run, "record_route_preset", "", (string, string2 or ""))

    def _record(self, run: Run, what: str, params: str, addresses: tuple[str, ...]) -> bool:
        try:
            user = run.request_uri.user if self.add_username else None
            for address in addresses:
                routing.checked_params(address)
            more = routing.checked_params(params)
            text = routing.record_params(run, fromtag=bool(self.append_fromtag), preset=bool(addresses), more=more)
        except (ValueError, MalformedMessage) as error:
            run.user.log(-1, f"{what}: {error}")
            return False
        prefix = f"{user}@" if user else ""
        double = bool(self.enable_double_rr)
        if addresses:
            return routing.record(run, PresetRecordRoute(prefix, text, double, *addresses))
        return routing.record(run, RecordRoute(prefix, text, double))

    @function(REQUEST | FAILURE | BRANCH)
    def add_rr_param(self, run: Run, param: HeaderText) -> bool:
        """Add ``;name=value`` to the Record-Route of the request, before or after ``record_route``."""
        try:
            text = routing.checked_params(param)
        except ValueError as error:
            run.user.log(-1, f"add_rr_param: {error}")
            return False
        run.edits = run.edits.note(RouteParam(text))
        return True

    # -- routing

    @function(REQUEST)
    def loose_route(self, run: Run) -> int:
        """Route the request by its Route header: 1 if that leads on, -1 if there is none, only our own without a To tag,
        or one that cannot be read."""
        first = run.context is None or "routed" not in run.context
        found = routing.loose_route(run, double=bool(self.enable_double_rr), warn=bool(self.enable_socket_mismatch_warning))
        if first and found.params is not None:
            for call in self.on_route:
                call(run, found.params)
        return found.code

    @function(REQUEST)
    def check_route_param(self, run: Run, re: Regex) -> bool:
        """Whether the parameters of our own Route value, with their leading ";", match; after ``loose_route``."""
        params = routing.routed(run).params
        return bool(params) and bool(re.search(f";{params}"))

    @function(REQUEST)
    def is_direction(self, run: Run, dir: Annotated[str, _check_direction]) -> bool:
        """Whether the request goes "downstream", from the dialog's caller to its callee, or "upstream"; after ``loose_route``."""
        return (dir.lower() == "upstream") is self.is_upstream(run)

    def is_upstream(self, run: Run) -> bool:
        """Whether the request comes from the callee: our Route value has a ``ftag`` that is not the From tag."""
        ftag = routing.routed(run).param("ftag")
        return bool(ftag) and ftag != run.message.from_tag

    def route_param(self, run: Run, name: str) -> str | None:
        """A parameter of our own Route value: "" if it has no value, None if it is not there; for other modules."""
        return routing.routed(run).param(name)

    @pvar("rr_params")
    def rr_params(self, run: Run) -> str | None:
        """``$rr_params``: the parameters of our own Route value; null before ``loose_route``."""
        return routing.routed(run).params or None
