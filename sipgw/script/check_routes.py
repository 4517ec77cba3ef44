"""What a checker asks of statements: calls and their parameters, assignments, comparisons, routes.

Every function has a mask of the routes it may be called in. A ``route[name]`` belongs to whatever block
reaches it, so the calls between routes are followed from each block that the server enters, and a
function that does not belong there is reported with the way that leads to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sipgw.script import nodes
from sipgw.script.check_variables import VariableChecks, load_first
from sipgw.script.dialect import GONE, WITHOUT_CLUSTER
from sipgw.script.errors import guess
from sipgw.script.nodes import Call, Config, Int, Node, Pos, Route, RouteCall, Str, Variable, walk
from sipgw.script.regex import compile_regex
from sipgw.script.statements import STATEMENTS
from sipgw.script.symbols import ROUTE_KEYWORDS, Function, Kind, Parameter, RouteKind, Symbols

Problem = tuple[Node | Pos, str, str]
"""Where, what, and a hint."""


class RouteChecks(VariableChecks):
    """Walks the statements of all routes."""

    def __init__(self, config: Config, symbols: Symbols) -> None:
        super().__init__(symbols)
        self.config = config
        self.names: dict[RouteKind, dict[str, Route]] = {kind: {} for kind in ROUTE_KEYWORDS}
        for route in config.routes:
            self.names[route.kind].setdefault(route.name, route)
        self.loaded_after: set[str] = set()
        """Modules that are loaded only after the route that is being checked."""
        self.calls: dict[int, list[Call]] = {}
        """For each route (by id) the functions it calls itself."""
        self.visits: dict[type[Node], Callable[[Any], Iterable[Node] | None]] = {
            Call: self.visit_call,
            RouteCall: self.visit_route_call,
            nodes.Assign: self.visit_assign,
            nodes.Compare: self.visit_compare,
            nodes.For: self.visit_for,
            nodes.Return: self.visit_return,
            nodes.Async: self.visit_async,
            nodes.Launch: self.visit_launch,
            nodes.Log: self.visit_log,
            nodes.Format: self.check_format,
            Variable: self.check_variable,
        }

    def check_body(self, route: Route) -> None:
        """Check the statements of one route."""
        self.calls[id(route)] = [n for n in walk(route) if isinstance(n, Call)]
        self.visit_all(nodes.children(route))

    def visit_all(self, below: Iterable[Node]) -> None:
        """Check nodes and all below them, in the order of the file.

        A visitor returns what is still to be visited below its node; a node without one has all of it visited."""
        waiting = [*below][::-1]
        while waiting:
            node = waiting.pop()
            visit = self.visits.get(type(node))
            more = nodes.children(node) if visit is None else visit(node)
            if more:
                waiting.extend([*more][::-1])

    # ---- statements ----

    def visit_assign(self, node: nodes.Assign) -> Iterable[Node]:
        """Check both sides of an assignment."""
        self.check_target(node.target)
        for text in _texts(node.value):
            self.warn_unexpanded(text, "an assignment")
        return (node.value,)

    def visit_compare(self, node: nodes.Compare) -> None:
        """Check both sides of a comparison; a constant pattern must be one."""
        self.check_variable(node.left)
        right = node.right
        if isinstance(right, Variable):
            self.check_variable(right)
        elif isinstance(right, Str) and node.op in ("=~", "!~"):
            self.check_pattern(right)
        elif isinstance(right, Str):
            self.warn_unexpanded(right, "a comparison")

    def check_pattern(self, string: Str) -> None:
        """Check that a string is a regular expression."""
        try:
            compile_regex(string.value)
        except ValueError as problem:
            self.error(string, f"{string.value!r} is no regular expression: {problem}")

    def visit_for(self, node: nodes.For) -> Iterable[Node]:
        """Check the two variables and the body of a loop."""
        if node.iterator.subname != "":
            self.check_target(node.iterator)
            self.check_variable(node.sequence)
        return node.body

    def visit_return(self, node: nodes.Return) -> None:
        """Check the values that a route returns."""
        for value in (node.code, *node.values):
            if isinstance(value, Variable):
                self.check_variable(value)
            elif isinstance(value, Str):
                self.warn_unexpanded(value, "return()")

    def visit_log(self, node: nodes.Log) -> None:
        """Warn when log() is given variables."""
        self.warn_unexpanded(Str(node.text, pos=node.pos), "log()")

    def visit_async(self, node: nodes.Async) -> None:
        """Check what async starts, and where it resumes."""
        if "tm" in self.symbols.catalogue and "tm" not in self.symbols.modules:
            self.error(node, "async() needs transactions", load_first(["tm"]))
        self.visit_call(node.call)
        self.check_route_name(node, node.resume)

    def visit_launch(self, node: nodes.Launch) -> None:
        """Check what launch starts, and the route that hears of it."""
        self.visit_call(node.call)
        if node.report is not None:
            self.check_route_name(node, node.report)
        if node.parameter is not None:
            self.check_format(node.parameter)

    # ---- routes ----

    def visit_route_call(self, node: RouteCall) -> None:
        """Check that a route exists, and what is passed to it."""
        self.check_route_name(node, node.name)
        for argument in node.arguments:
            if isinstance(argument, Variable):
                self.check_variable(argument)
            elif isinstance(argument, Str):
                self.warn_unexpanded(argument, "arguments of route()")

    def check_route_name(
        self, where: Node, name: str | Node, kind: RouteKind = RouteKind.REQUEST
    ) -> None:
        """Check that a route of that kind exists, when its name is constant."""
        if isinstance(name, nodes.Format):
            self.check_format(name)
        elif isinstance(name, Variable):
            self.check_variable(name)
        elif isinstance(name, str) and not any(name in self.names[k] for k in kind):
            keyword = ROUTE_KEYWORDS[next(iter(kind))]
            others = [ROUTE_KEYWORDS[k] for k, found in self.names.items() if name in found and k not in kind]
            hint = guess(name, [n for k in kind for n in self.names[k]])
            if others:
                hint = f"there is a {others[0]}[{name}], which can not be used here"
            self.error(where, f"there is no {keyword}[{name}]", hint)

    # ---- calls ----

    def visit_call(self, call: Call) -> None:
        """Check a call: the function, how many parameters, each of them."""
        for argument in call.arguments:
            if isinstance(argument, Variable):
                self.check_variable(argument)
        candidates = self.symbols.functions.get(call.name)
        if not candidates:
            self.unknown_function(call)
            return
        if candidates[0].module in self.loaded_after:
            hint = f'move loadmodule "{candidates[0].module}.so" above this route'
            self.error(call, f"{call.name}() is used before its module is loaded", hint)
        count = len(call.arguments)
        fitting = [f for f in candidates if f.required <= count <= len(f.parameters)]
        best: list[Problem] | None = None
        for function in fitting or candidates:
            problems = list(self.call_problems(call, function))
            if not problems:
                break
            if best is None or len(problems) < len(best):
                best = problems
        else:
            for where, text, hint in best or ():
                self.error(where, text, hint)
            return
        for argument, parameter in zip(call.arguments, function.parameters, strict=False):
            if argument is not None:
                self.check_argument(call, argument, parameter)

    def unknown_function(self, call: Call) -> None:
        """Note that there is no such function, with the best guess why."""
        name = call.name
        owners = self.owners(
            m for m in self.symbols.catalogue.values() if any(f.name == name for f in m.functions)
        )
        if owners:
            self.error(call, f"the function {name}() is not there yet", load_first(owners))
            return
        known = {f.name for m in self.symbols.catalogue.values() for f in m.functions}
        hint = GONE.get(name) or WITHOUT_CLUSTER.get(name) or guess(name, [*known, *self.symbols.functions, *STATEMENTS])
        self.error(call, f"there is no function {name}()", hint)

    def call_problems(self, call: Call, function: Function) -> Iterator[Problem]:
        """Tell why a call does not fit a function: the count, empty parameters, kinds."""
        name, parameters = call.name, function.parameters
        count = len(call.arguments)
        if count > len(parameters) or count < function.required:
            yield call, f"{name}() takes {_count(function)}, not {count}", _signature(function)
            return
        for number, (argument, parameter) in enumerate(zip(call.arguments, parameters, strict=False), 1):
            if argument is None:
                if not parameter.optional:
                    text = f"parameter {number} ({parameter.name}) of {name}() can not be left empty"
                    yield call, text, _signature(function)
                continue
            problem = self.kind_problem(argument, parameter)
            if problem:
                text = f"parameter {number} ({parameter.name}) of {name}() {problem[0]}"
                yield argument, text, problem[1]

    def kind_problem(
        self, argument: Int | Str | Variable, parameter: Parameter
    ) -> tuple[str, str] | None:
        """Tell why an argument is of the wrong kind for a parameter, with a hint."""
        kind = parameter.kind
        if kind is Kind.INT:
            if isinstance(argument, Str):
                value = argument.value
                return "is a number", f"write {value} without quotes" if value.lstrip("-").isdigit() else ""
            return None
        if kind in (Kind.VAR, Kind.WRITABLE):
            if not isinstance(argument, Variable):
                in_quotes = isinstance(argument, Str) and argument.value.startswith("$")
                hint = f"write {argument.value} without quotes" if in_quotes else ""
                return "is a variable", hint
            if parameter.variable and argument.name != parameter.variable:
                return f"is a ${parameter.variable}, not a ${argument.name}", ""
            if kind is Kind.WRITABLE:
                found = self.symbols.variable(argument.name, argument.subname is not None)
                if found is not None and not found.writable:
                    return f"is written to, and ${argument.name} can only be read", ""
                if argument.transformations:
                    return "is written to, so it can have no transformations", ""
            return None
        if isinstance(argument, Int):
            return "is a string", f'write "{argument.value}"'
        if kind in (Kind.STATIC, Kind.FLAG):
            if isinstance(argument, Variable):
                return "is a constant string, not a variable", ""
            if "$" in argument.value.replace("$$", ""):
                return "is a constant string, without variables", ""
            if kind is Kind.FLAG and not argument.value:
                return "is the name of a flag, which can not be empty", ""
        return None

    def check_argument(self, call: Call, argument: Int | Str | Variable, parameter: Parameter) -> None:
        """Check what is inside an argument of the right kind."""
        constant: Any = None
        if isinstance(argument, Int):
            constant = argument.value
        elif isinstance(argument, Str):
            expands = parameter.kind not in (Kind.RAW, Kind.STATIC, Kind.FLAG)
            found = self.check_string(argument) if expands else None
            if expands and "$" in argument.value:
                constant = found.constant if found is not None else None
            else:
                constant = argument.value
            if parameter.kind is Kind.REGEX and constant is not None:
                self.check_pattern(argument)
            if parameter.kind is Kind.ROUTE and constant is not None:
                self.check_route_name(argument, constant, parameter.route)
        if constant is not None and parameter.check is not None:
            try:
                parameter.check(constant)
            except ValueError as problem:
                self.error(argument, f"{parameter.name} of {call.name}(): {problem}")

    # ---- where functions may be called ----

    def check_reach(self) -> None:
        """Follow the calls between routes and report functions that are reached from where they can not
        be."""
        reported: set[tuple[int, RouteKind]] = set()
        for top in self.config.routes:
            if id(top) not in self.calls or (top.kind is RouteKind.REQUEST and top.name != "0"):
                continue
            self.follow(top, top.kind, [top], reported)
        reached = {route for route, _ in reported}
        for resumed in self.resumed():
            if id(resumed) not in reached:
                self.follow(resumed, RouteKind.REQUEST, [resumed], reported)

    def resumed(self) -> Iterator[Route]:
        """Give the routes in which async resumes and that launch reports to: the server enters them."""
        for route in self.config.routes:
            for node in walk(route):
                name = None
                if isinstance(node, nodes.Async):
                    name = node.resume
                elif isinstance(node, nodes.Launch):
                    name = node.report
                if isinstance(name, str) and name in self.names[RouteKind.REQUEST]:
                    yield self.names[RouteKind.REQUEST][name]

    def follow(
        self, route: Route, kind: RouteKind, way: list[Route], reported: set[tuple[int, RouteKind]]
    ) -> None:
        """Check a route and those it calls, as reached from a block of ``kind``; each of them once."""
        if (id(route), kind) in reported:
            return
        reported.add((id(route), kind))
        for call in self.calls.get(id(route), ()):
            functions = self.symbols.functions.get(call.name)
            if functions and not any(kind in f.routes for f in functions):
                shown = " > ".join(_title(r) for r in way)
                allowed = ", ".join(ROUTE_KEYWORDS[k] for k in functions[0].routes)
                text = f"{call.name}() can not be called in {ROUTE_KEYWORDS[kind]}"
                if len(way) > 1:
                    text += f", which leads here: {shown}"
                self.error(call, text, f"it is for {allowed}")
        for node in walk(route):
            if isinstance(node, RouteCall) and isinstance(node.name, str):
                called = self.names[RouteKind.REQUEST].get(node.name)
                if called is not None:
                    self.follow(called, kind, [*way, called], reported)


def _texts(value: Node) -> Iterator[Str]:
    """Give the strings that are operands of arithmetic."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Str):
            yield value
        elif isinstance(value, (nodes.Binary, nodes.Invert)):
            waiting.extend(nodes.children(value))


def _title(route: Route) -> str:
    keyword = ROUTE_KEYWORDS[route.kind]
    return keyword if route.name in ("", "0") else f"{keyword}[{route.name}]"


def _count(function: Function) -> str:
    least, most = function.required, len(function.parameters)
    if most == 0:
        return "no parameters"
    if least == most:
        return f"{most} parameter{'s' if most > 1 else ''}"
    return f"{least} to {most} parameters"


def _signature(function: Function) -> str:
    """Show how a function is called: ``f(a, [b])``."""
    shown = ", ".join(f"[{p.name}]" if p.optional else p.name for p in function.parameters)
    return f"{function.name}({shown})"
