"""What the compiler must know of a route before it writes it: the colours of the call graph.

A route waits if something it calls waits, itself or through other routes; a waiting route becomes a coroutine function. In the
same way spread: whether it can end the script (``EXIT``, ``DROP``), and whether its return code is looked at. A route that can
come back to itself is counted when it is called, so that the recursion ends at OpenSIPS's limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sipgw.script import nodes
from sipgw.script.formats import parse_format
from sipgw.script.nodes import Node, walk
from sipgw.script.symbols import Function, Kind, RouteKind, Symbols
from sipgw.script.transform_text import replacement_of
from sipgw.script.transformations import WAITING

Key = tuple[RouteKind, str]
"""A route block: its kind and its name; ``route[x]`` is (REQUEST, "x"), ``route{}`` is (REQUEST, "0")."""

EXPANDED = (Kind.STR, Kind.SOCKET)
"""Parameters whose strings may have variables in them."""


@dataclass(slots=True)
class Colour:
    """What is known of one route block."""

    route: nodes.Route
    calls: set[Key] = field(default_factory=set)
    judged: set[Key] = field(default_factory=set)
    """Of these, the routes whose code this one looks at."""
    tail: set[Key] = field(default_factory=set)
    """Of these, the routes whose code becomes this one's own."""
    dynamic: bool = False
    """It calls a route by a name known only at run time."""
    waits: bool = False
    exits: bool = False
    drops: bool = False
    recursive: bool = False
    judges: bool = False
    """Its code is looked at by a caller."""
    takes_params: bool = False
    """It reads ``$param``."""


def find_function(symbols: Symbols, call: nodes.Call) -> Function | None:
    """The function that a call means."""
    return symbols.function(call.name, len(call.arguments))


def variables_of(node: Node, symbols: Symbols) -> Iterator[nodes.Variable]:
    """Every variable that running ``node`` may read, those in its strings too."""
    for found in walk(node):
        if isinstance(found, nodes.Variable):
            yield found
            if isinstance(found.subname, str) and "$" in found.subname and _expands(found, symbols):
                yield from variables_of(parse_format(found.subname, found.pos), symbols)
        elif isinstance(found, nodes.Call):
            function = find_function(symbols, found)
            parameters = function.parameters if function is not None else ()
            for argument, parameter in zip(found.arguments, parameters, strict=False):
                if isinstance(argument, nodes.Str) and parameter.kind in EXPANDED and "$" in argument.value:
                    yield from variables_of(parse_format(argument.value, argument.pos), symbols)
        elif isinstance(found, nodes.Transformation) and found.kind == "re" and "$" in found.text:
            text = found.text if found.text.startswith("$") else replacement_of(found.text)
            yield from variables_of(parse_format(text, found.pos), symbols)


def _expands(node: nodes.Variable, symbols: Symbols) -> bool:
    """Whether a name in parentheses is a text with variables."""
    symbol = symbols.variable(node.name, True)
    return node.name.startswith("sdp.") or (symbol is not None and symbol.expands)


class Colours:
    """The colours of all routes of ``config``."""

    def __init__(self, config: nodes.Config, symbols: Symbols) -> None:
        self.symbols = symbols
        self.routes: dict[Key, Colour] = {}
        for route in config.routes:
            self.routes[self.key_of(route)] = Colour(route)
        self.named = [key for key in self.routes if key[0] is RouteKind.REQUEST and key[1] != "0"]
        names = {variable.name for route in config.routes for variable in variables_of(route, symbols)}
        evaluates = any(
            f"{found.kind}.{found.op}" == "s.eval" for route in config.routes for variable in variables_of(route, symbols)
            for found in variable.transformations
        )
        self.keeps_rc = evaluates or bool(names & {"rc", "retcode"})
        called = {node.name for route in config.routes for node in walk(route) if isinstance(node, nodes.RouteCall)}
        self.keeps_returns = evaluates or "return" in names or any(
            isinstance(node, nodes.Return) and node.values
            for route in config.routes if route.name not in called for node in walk(route)
        )
        """Whether somebody may read what a route returns: the script, or the module that calls a route which no other calls."""
        self.keeps_stack = evaluates or bool(names & {"route", "route.name", "route.type"})
        written = {node.target.name for route in config.routes for node in walk(route) if isinstance(node, nodes.Assign)}
        self.own_xlog_level = "xlog_level" in written
        self.own_log_level = "log_level" in written
        self.traces = any(
            isinstance(node, nodes.Call) and node.name == "script_trace" for route in config.routes for node in walk(route)
        )
        """Whether each step may be logged: only a script that calls ``script_trace`` pays for it."""
        self.watches_xlog = any(function.module == "tracer" for function in symbols.functions.get("trace", ()))
        """Whether the lines of ``xlog`` may have to be shown to a ``Watcher``."""
        self.any_params = any(isinstance(node, nodes.Launch) for route in config.routes for node in walk(route))
        """Whether a route may be called with parameters although it reads none: by a name known only at run time, or launched."""
        for colour in self.routes.values():
            self._look_at(colour)
        self.any_params |= any(colour.dynamic for colour in self.routes.values())
        self._spread()

    @staticmethod
    def key_of(route: nodes.Route) -> Key:
        """The key of a route block."""
        return route.kind, route.name

    def _look_at(self, colour: Colour) -> None:
        """Note what one route does by itself."""
        for variable in variables_of(colour.route, self.symbols):
            colour.takes_params |= variable.name == "param"
            symbol = self.symbols.variable(variable.name, variable.subname is not None)
            colour.waits |= symbol is not None and symbol.waiter is not None
            colour.waits |= any(f"{found.kind}.{found.op}" in WAITING for found in variable.transformations)
        self._bodies(colour, colour.route.body, tail=True)

    def _bodies(self, colour: Colour, body: nodes.Body, tail: bool) -> None:
        for place, statement in enumerate(body):
            self._statement(colour, statement, tail and place == len(body) - 1)

    def _statement(self, colour: Colour, node: nodes.Statement, tail: bool) -> None:
        if isinstance(node, nodes.If):
            self._values(colour, node.condition)
            self._bodies(colour, node.then, tail)
            self._bodies(colour, node.otherwise or (), tail)
        elif isinstance(node, nodes.While):
            self._values(colour, node.condition)
            self._bodies(colour, node.body, False)
        elif isinstance(node, nodes.For):
            self._bodies(colour, node.body, tail)
        elif isinstance(node, nodes.Switch):
            for case in node.cases:
                self._bodies(colour, case.body, tail)
            self._bodies(colour, node.default or (), tail)
        elif isinstance(node, nodes.RouteCall):
            self._route_call(colour, node.name, judged=False, tail=tail)
        elif isinstance(node, nodes.Async):
            self._call(colour, node.call)
            self._route_call(colour, node.resume, judged=False, tail=False)
            colour.exits = True
        elif isinstance(node, nodes.Launch):
            pass
        elif isinstance(node, nodes.Exit):
            colour.exits = True
        elif isinstance(node, nodes.Drop):
            colour.drops = True
        elif isinstance(node, nodes.Return):
            colour.exits |= isinstance(node.code, nodes.Variable) or node.code == nodes.Int(0)
        elif isinstance(node, nodes.Assert):
            colour.exits = True
            self._values(colour, node.condition)
            if (RouteKind.ERROR, "") in self.routes:
                colour.calls.add((RouteKind.ERROR, ""))
        elif isinstance(node, nodes.Call):
            self._call(colour, node)
        else:
            self._values(colour, node)

    def _values(self, colour: Colour, node: Node) -> None:
        """Calls inside conditions and assignments: their codes are looked at."""
        for found in walk(node):
            if isinstance(found, nodes.Call):
                self._call(colour, found)
            elif isinstance(found, nodes.RouteCall):
                self._route_call(colour, found.name, judged=True, tail=False)

    def _call(self, colour: Colour, call: nodes.Call) -> None:
        function = find_function(self.symbols, call)
        if function is not None:
            colour.waits |= function.waits
            colour.exits |= function.returns == "int"

    def _route_call(self, colour: Colour, name: str | nodes.Variable | nodes.Format, judged: bool, tail: bool) -> None:
        constant = name if isinstance(name, str) else name.constant if isinstance(name, nodes.Format) else None
        keys: list[Key] = self.named if constant is None else [(RouteKind.REQUEST, constant)]
        colour.dynamic |= constant is None
        colour.calls.update(keys)
        if judged:
            colour.judged.update(keys)
        if tail:
            colour.tail.update(keys)

    def _spread(self) -> None:
        """Let the colours run through the call graph until nothing changes."""
        for colour in self.routes.values():
            for key in colour.judged:
                if key in self.routes:
                    self.routes[key].judges = True
        changed = True
        while changed:
            changed = False
            for colour in self.routes.values():
                called = [self.routes[key] for key in colour.calls if key in self.routes]
                before = (colour.waits, colour.exits, colour.drops)
                colour.waits |= any(other.waits for other in called)
                colour.exits |= any(other.exits for other in called)
                colour.drops |= any(other.drops for other in called)
                changed |= before != (colour.waits, colour.exits, colour.drops)
                if colour.judges or self.keeps_rc:
                    for key in colour.tail | (colour.calls if self.keeps_rc else set()):
                        if key in self.routes and not self.routes[key].judges:
                            self.routes[key].judges = changed = True
        for key, colour in self.routes.items():
            colour.recursive = self._reaches(key)

    def _reaches(self, start: Key) -> bool:
        """Whether a route can come back to itself."""
        seen: set[Key] = set()
        waiting = list(self.routes[start].calls)
        while waiting:
            key = waiting.pop()
            if key == start:
                return True
            if key not in seen and key in self.routes:
                seen.add(key)
                waiting.extend(self.routes[key].calls)
        return False
