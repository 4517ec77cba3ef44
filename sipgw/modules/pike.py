"""pike: which addresses send too much, IPv4 and IPv6 (``core/floods.py`` counts).

A script asks by ``pike_check_req()``. Or ``check_route`` names a route that runs for each message as it arrives, requests and
responses, retransmissions and what cannot be read: if it ends with ``drop``, nobody counts the message, else its source is
counted, and what a flooding source sends is dropped before anything else is done with it. That route cannot wait: where it would
have to, it ends, and the source is counted."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from sipgw.core.addresses import packed
from sipgw.core.events import DUMMY
from sipgw.core.floods import BEGINS, CALM, FLOODS, FloodTree
from sipgw.core.guard import guard
from sipgw.exports import ONREPLY, REQUEST, Module, event, every, function, mi, param
from sipgw.mi.jsonrpc import MIError
from sipgw.script.routes import Route
from sipgw.script.run import Run
from sipgw.script.values import DROP
from sipgw.sip.actions import Flow
from sipgw.sip.message import Request, Response, parse


def check_positive(value: int) -> None:
    """Refuse 0 and less."""
    if value < 1:
        raise ValueError("must be at least 1")


class Pike(Module):
    """Finds the addresses from which floods come."""

    sampling_time_unit: int = param(2, "Seconds of one period of counting", check=check_positive)
    reqs_density_per_unit: int = param(30, "How many requests of one address in one period are a flood", check=check_positive)
    remove_latency: int = param(120, "Seconds after which an address that was silent is forgotten", check=check_positive)
    pike_log_level: int = param(1, "The log level (-3 alert .. 4 debug) at which floods are told, when they begin and end")
    check_route: str = param(
        "",
        "The route that runs for each message as it arrives: what it drops is not counted, what floods is dropped",
        each="watch",
    )

    blocked = event("E_PIKE_BLOCKED", "ip")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._route = ""
        self.tree = FloodTree(30, 2, 120)
        super().__init__(server, **parameters)
        self._report = None if server is None else server.user.status.group("pike").identifier()

    def watch(self, route: str) -> None:
        """Ask the route ``route`` about each message; the last one named counts."""
        if not self._route:
            guard(self.server.user, self._allows)
        self._route = route

    async def start(self) -> None:
        """Begin with nothing known."""
        if self._route:
            if self._route not in self.server.user.routes.named:
                raise ValueError(f"check_route: there is no route[{self._route}]")
        unit = self.sampling_time_unit
        latency = self.remove_latency
        if latency < unit:
            latency = unit + 1
            self.server.user.log(1, f"pike: remove_latency is less than sampling_time_unit, it is {latency} now")
        self.tree = FloodTree(self.reqs_density_per_unit, unit, latency)

    @function(REQUEST)
    def pike_check_req(self, run: Run) -> int:
        """Count the request's source: 1 if it is calm, -2 if a flood begins with it, -1 if it has been flooding."""
        return CALM if run.flow is None else self._hit(run.flow)

    def _hit(self, flow: Flow) -> int:
        user = self.server.user
        host = flow.host
        try:
            result = self.tree.hit(packed(host), user.clock())
        except ValueError:
            return CALM
        if result == BEGINS:
            user.log(self.pike_log_level, f"pike: {host} floods and is blocked")
            if self._report is not None:
                self._report.report(f"IP {host} detected as flooding")
            self.blocked.emit(ip=host)
        return result

    def _allows(self, message: Request | Response | None, flow: Flow) -> bool:
        user = self.server.user
        route = user.routes.named.get(self._route)
        if route is None:
            user.log_rarely("pike", -1, f"pike: route[{self._route}] is gone since the reload, every source is counted")
        else:
            kind = ONREPLY if isinstance(message, Response) else REQUEST
            run = Run(message or parse(DUMMY), kind, flow, user.clock(), user)
            try:
                if self._result(route, run) is DROP:
                    return True
            except Exception as error:
                user.broken(error)
        return self._hit(flow) not in (FLOODS, BEGINS)

    def _result(self, route: Route, run: Run) -> Any:
        """What the route comes to, None if it would have to wait."""
        result = route.function(run)
        if not route.waits:
            return result
        try:
            result.send(None)
        except StopIteration as stop:
            return stop.value
        result.close()
        self.server.user.log_rarely("pike", -1, f"pike: route[{self._route}] would have to wait, the source is counted")
        return None

    @every(1)
    def sweep(self) -> None:
        """Forget what is over."""
        for address in self.tree.sweep(self.server.user.clock()):
            self.server.user.log(self.pike_log_level, f"pike: {ip_address(address)} floods no longer")

    @mi("list")
    def list_blocked(self) -> dict[str, list[str]]:
        """Lists the addresses that are blocked, the last one first."""
        return {"IPs": [str(ip_address(address)) for address in self.tree.blocked()]}

    @mi()
    def rm(self, ip: str) -> None:
        """Blocks an address no longer; if its flood goes on, it will be blocked again."""
        try:
            address = packed(ip)
        except ValueError:
            raise MIError(500, "Bad IP") from None
        if not self.tree.release(address):
            raise MIError(404, "Match not found")
