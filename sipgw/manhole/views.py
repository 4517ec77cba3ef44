"""The running server by name, for the Python shell: lists that are looked up anew each time, and print as tables.

An element of a list is the live object itself: ``calls[0].caller``, ``transactions[0].request``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sipgw.interfaces import Server
from sipgw.manhole.show import plain, table
from sipgw.script.routes import Route, RouteSet
from sipgw.script.symbols import ROUTE_KEYWORDS, RouteKind

SHOWN = 50
"""Rows that a list prints."""


class View:
    """A list of live objects, in a table."""

    def __init__(
        self, name: str, head: Sequence[str], find: Callable[[], Iterable[Any]], row: Callable[[Any], Sequence[Any]]
    ) -> None:
        self._name = name
        self._head = head
        self._find = find
        self._row = row

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._find()))

    def __len__(self) -> int:
        return sum(1 for _ in self._find())

    def __getitem__(self, index: Any) -> Any:
        return list(self._find())[index]

    def where(self, test: Callable[[Any], Any]) -> View:
        """Those for which ``test`` is true: ``calls.where(lambda call: call.caller.tag == "x")``."""
        return View(self._name, self._head, lambda: filter(test, self._find()), self._row)

    def __repr__(self) -> str:
        rows = [[plain(cell) for cell in self._row(each)] for each in islice(self._find(), SHOWN)]
        if not rows:
            return f"(no {self._name})"
        more = len(self) - len(rows)
        numbered = [[str(number), *row] for number, row in enumerate(rows)]
        return "\n".join([*table(["", *self._head], numbered), *([f"and {more} more"] if more > 0 else [])])


def views(server: Server) -> dict[str, View]:
    """All lists, by their names."""
    user = server.user

    def calls() -> Iterable[Any]:
        dialog = server.modules.get("dialog")
        return () if dialog is None else list(dialog.follower.calls)

    def call_row(call: Any) -> Sequence[Any]:
        age = int(user.wall_clock() - (call.started or call.created))
        return call.call_id, call.caller.address, call.winner.address, call.state.name.lower(), age

    def bindings() -> Iterable[Any]:
        usrloc = server.modules.get("usrloc")
        tables = () if usrloc is None else usrloc.tables.values()
        return (binding for each in tables for _, found in each for binding in found)

    def binding_row(binding: Any) -> Sequence[Any]:
        return binding.aor, binding.contact, binding.seconds_left(user.clock()), binding.user_agent

    def transactions() -> Iterable[Any]:
        return list(user.layer._servers.values())

    def transaction_row(each: Any) -> Sequence[Any]:
        request = each.request
        age = round(user.clock() - each.received_at, 1)
        return each.method, request.uri, f"{each.flow.host}:{each.flow.port}", each.status or "-", age, request.header("call-id")

    return {
        "calls": View("calls", ("call_id", "from", "to", "state", "seconds"), calls, call_row),
        "registrations": View("registrations", ("aor", "contact", "seconds", "agent"), bindings, binding_row),
        "transactions": View(
            "transactions", ("method", "uri", "from", "status", "seconds", "call_id"), transactions, transaction_row
        ),
        "routes": View("routes", ("route", "where", "waits"), lambda: all_routes(user.routes), route_row),
    }


def all_routes(routes: RouteSet) -> list[Route]:
    """All routes of a set, in the order of the script."""
    alone = (routes.request, routes.default_onreply, routes.local, routes.error, routes.startup)
    tables = (routes.named, routes.branch, routes.failure, routes.onreply, routes.events)
    found = [route for route in alone if route is not None] + [each for table in tables for each in table.values()]
    return sorted([*found, *routes.timers], key=lambda route: (route.file, route.line))


def route_name(route: Route) -> str:
    """A route as scripts write it."""
    word = ROUTE_KEYWORDS[route.kind] if route.kind is not RouteKind.REQUEST else "route"
    return word if route.name in ("", "0") else f"{word}[{route.name}]"


def route_row(route: Route) -> Sequence[Any]:
    """A route in a table."""
    return route_name(route), f"{route.file}:{route.line}", "yes" if route.waits else ""
