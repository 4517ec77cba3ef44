"""The compiler: an opensips.cfg becomes Python functions, one for each route block.

``compile_config`` walks the tree that the parser made and the checker passed, writes Python's ``ast`` and compiles it. Each file
of the configuration becomes a module of its own whose line numbers are those of the file, so that a traceback names the line of
the cfg, and a debugger could step through it. What the routes use is bound to readable global names (``naming``), so that
``ast.unparse`` shows a program that one can read: ``show`` gives it, and the golden files of the tests hold it.

How a route becomes a function: plain ``def`` unless something that it can reach waits (``colours``); the result is an int, or
``EXIT``, ``DROP``. Whatever a constant can tell is worked out now: patterns, flags, numbers, names. ``async()`` becomes an
``await`` and the call of the resume route; ``launch()`` hands a coroutine to ``run.user.launch``. A log line is formatted only if
its level is on. Measured: 8 conditions and 12 assignments take 1 us (``bench/memory.py``).

The work is cut in three: ``compile_values`` (expressions), ``compile_conditions`` (tests, calls), ``compile_statements``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sipgw.script import nodes, pieces
from sipgw.script.colours import Colours, Key
from sipgw.script.compile_statements import Statements
from sipgw.script.compile_values import refuse
from sipgw.script.errors import ScriptError, ScriptErrors
from sipgw.script.formats import parse_format, parse_variable
from sipgw.script.naming import Names
from sipgw.script.pieces import constant, name
from sipgw.script.routes import Route, RouteSet
from sipgw.script.run import FlagNames, Run, Surroundings, Value
from sipgw.script.runtime import Reference
from sipgw.script.symbols import ROUTE_KEYWORDS, RouteKind, Symbols
from sipgw.script.values import to_text

MAX_WHILE_LOOPS = 10000
TOO_DEEP = "conditions, values or blocks stand too deep inside each other"
EVALUATED = 256
"""How many different texts ``{s.eval}`` keeps compiled."""


def _spelled(node: nodes.Variable) -> str:
    """A variable as scripts write it, if that is simple: ``$avp(x)``; else its name alone."""
    if isinstance(node.subname, str) and node.index is None and node.context is None and not node.transformations:
        return f"${node.name}({node.subname})"
    return f"${node.name}"


class Unit:
    """What all routes of one configuration share while they are compiled, and the modules that come out."""

    def __init__(self, config: nodes.Config, symbols: Symbols, surroundings: Surroundings | None = None) -> None:
        self.config = config
        self.symbols = symbols
        self.flags = surroundings.message_flags if surroundings is not None else FlagNames("message")
        self.colours = Colours(config, symbols)
        self.names = Names()
        self.constants: dict[Any, Any] = {}
        self.functions: dict[Key, str] = {}
        self.modules: dict[str, ast.Module] = {}
        self.references: list[ast.stmt] = []
        self.no_route = nodes.Route(RouteKind.REQUEST, "", ())
        settings = {setting.name: setting.value for setting in config.settings}
        self.max_while_loops = int(settings.get("max_while_loops", MAX_WHILE_LOOPS))
        self.xlog_print_level = int(settings.get("xlog_print_level", 2))
        self.asserts = bool(settings.get("enable_asserts", 0))
        self.evaluator = self.evaluate
        self.compiled_text = lru_cache(maxsize=EVALUATED)(self._compile_text)
        self.named = ""
        self._routes: dict[str, Route] = {}

    # ---- what the writers ask for ----

    def takes_params(self, key: Key) -> bool:
        """Whether the function of a ``route[]`` has parameters."""
        return key in self.colours.named and (self.colours.any_params or self.colours.routes[key].takes_params)

    def flag_mask(self, flag: str, node: nodes.Node) -> int:
        """The bit of a message flag; its first use declares it."""
        try:
            return self.flags.mask(flag)
        except ValueError as error:
            refuse(node, str(error))

    def reference(
        self, wanted: str, node: nodes.Variable, reader: ast.expr, setter: ast.expr | None, picker: ast.expr | None
    ) -> str:
        """A global object with ``get``, ``set`` and ``at`` for a variable; its name."""
        title = self.names.reserve(wanted)
        arguments = [constant(_spelled(node)), _shortest(["run"], reader)]
        if setter is not None or picker is not None:
            arguments.append(constant(None) if setter is None else _shortest(["run", "value"], setter))
        if picker is not None:
            arguments.append(_shortest(["run", "index"], picker))
        statement = pieces.store(title, pieces.call(self.names.bind("Reference", Reference), *arguments))
        pieces.place(statement, node.pos)
        self.references.append(statement)
        return title

    def evaluate(self, run: Run, value: Value) -> Value:
        """``{s.eval}``: the text, its variables filled in; null if it cannot be read."""
        if value is None:
            return None
        compiled = self.compiled_text(to_text(value))
        return None if compiled is None else compiled(run)

    def _compile_text(self, text: str) -> Callable[[Run], str] | None:
        try:
            return compile_format(text, self.symbols)
        except ScriptError:
            return None

    # ---- the work ----

    def write(self) -> None:
        """Write the modules."""
        for key in self.colours.routes:
            self.functions[key] = self.names.reserve(_title(key))
        self.named = self.names.reserve("routes")
        self.names.values[self.named] = self._routes
        errors: list[ScriptError] = []
        by_file: dict[str, list[ast.stmt]] = {}
        for key, colour in self.colours.routes.items():
            self.references = by_file.setdefault(colour.route.pos.file, [])
            try:
                function = self._route(key)
            except ScriptError as error:
                errors.append(error)
            except RecursionError:
                errors.append(ScriptError(*colour.route.pos, TOO_DEEP))
            else:
                self.references.append(function)
        if errors:
            raise ScriptErrors(errors)
        self.modules = {file: ast.Module(body, []) for file, body in by_file.items()}

    def _route(self, key: Key) -> ast.stmt:
        """The function of one route block."""
        colour = self.colours.routes[key]
        route = colour.route
        writer = Statements(self)
        writer.local_vars = True
        writer.pos = route.pos
        writer.file = route.pos.file
        writer.judged = colour.judges
        writer.can_wait = colour.waits
        writer.has_params = self.takes_params(key)
        body = writer.body(route.body, tail=True)
        if not pieces.leaves(body):
            last = pieces.give(constant(1))
            pieces.place(last, route.end if route.end.file == route.pos.file else writer.pos)
            body.append(last)
        body[:0] = self._beginning(key, writer)
        arguments = ast.arguments([], [ast.arg("run")], None, [], [], None, [])
        if writer.has_params:
            arguments.vararg = ast.arg("params")
        kind = ast.AsyncFunctionDef if colour.waits else ast.FunctionDef
        function = kind(self.functions[key], arguments, body, [], None, None)
        pieces.place(function, route.pos)
        return function

    def _beginning(self, key: Key, writer: Statements) -> list[ast.stmt]:
        """What a route keeps before its first statement."""
        begin: list[ast.stmt] = []
        if key not in self.colours.named and self.colours.keeps_stack:
            begin.append(pieces.set_attribute("route_stack", ast.List([constant(_label(key))], ast.Load())))
        if key in self.colours.named and self.colours.keeps_returns:
            begin.append(pieces.set_attribute("returns", constant(())))
        if writer.has_params and writer.keeps_params:
            begin.append(pieces.set_attribute("params", name("params")))
        if writer.uses_vars:
            begin.append(pieces.store("var", pieces.attribute("run", "vars")))
        for statement in begin:
            pieces.place(statement, self.colours.routes[key].route.pos)
        return begin

    def load(self) -> RouteSet:
        """Run the modules: the functions come to be, and the routes with them."""
        for file, module in self.modules.items():
            try:
                code = compile(module, file, "exec", dont_inherit=True)
            except RecursionError:
                raise ScriptErrors([ScriptError(file, 1, 1, TOO_DEEP)]) from None
            except SyntaxError as error:  # Python's own limits: twenty loops inside each other
                raise ScriptErrors([ScriptError(file, error.lineno or 1, 1, f"{TOO_DEEP} ({error.msg})")]) from error
            exec(code, self.names.values)
        found = RouteSet()
        for key, title in self.functions.items():
            colour = self.colours.routes[key]
            node = colour.route
            route = Route(
                node.name, node.kind, self.names.values[title], colour.waits, node.pos.file, node.pos.line, node.interval
            )
            _sort_in(found, route)
        self._routes.update(found.named)
        return found


def _sort_in(found: RouteSet, route: Route) -> None:
    """Put a route where the transaction user looks for it."""
    kind, title = route.kind, route.name
    if kind is RouteKind.REQUEST and title == "0":
        found.request = route
    elif kind is RouteKind.REQUEST:
        found.named[title] = route
    elif kind is RouteKind.BRANCH:
        found.branch[title] = route
    elif kind is RouteKind.FAILURE:
        found.failure[title] = route
    elif kind is RouteKind.ONREPLY and title == "0":
        found.default_onreply = route
    elif kind is RouteKind.ONREPLY:
        found.onreply[title] = route
    elif kind is RouteKind.LOCAL:
        found.local = route
    elif kind is RouteKind.ERROR:
        found.error = route
    elif kind is RouteKind.STARTUP:
        found.startup = route
    elif kind is RouteKind.TIMER:
        found.timers.append(route)
    else:
        found.events[title] = route


def _title(key: Key) -> str:
    """The name of a route's function."""
    kind, title = key
    if kind is RouteKind.REQUEST:
        return "request_route" if title == "0" else title
    return f"{ROUTE_KEYWORDS[kind]}_{title}" if title not in ("", "0") else ROUTE_KEYWORDS[kind]


def _label(key: Key) -> str:
    """A top route as ``$route`` shows it."""
    kind, title = key
    return ROUTE_KEYWORDS[kind] + (f"[{title}]" if title not in ("", "0") else "")


def _function(parameters: list[str], body: ast.expr) -> ast.expr:
    return ast.Lambda(ast.arguments([], [ast.arg(p) for p in parameters], None, [], [], None, []), body)


def _shortest(parameters: list[str], body: ast.expr) -> ast.expr:
    """A function of ``parameters``; the one that ``body`` calls, if it calls it with just these."""
    if isinstance(body, ast.Call) and [a.id if isinstance(a, ast.Name) else None for a in body.args] == parameters:
        return body.func
    return _function(parameters, body)


def compile_config(config: nodes.Config, symbols: Symbols, surroundings: Surroundings | None = None) -> RouteSet:
    """Compile a configuration that the checker has passed; raises ``ScriptErrors`` with every fault it still finds.

    ``surroundings``: the server, for the names of flags."""
    unit = Unit(config, symbols, surroundings)
    unit.write()
    return unit.load()


def show(config: nodes.Config, symbols: Symbols) -> dict[str, str]:
    """The Python text that each file of a configuration becomes."""
    unit = Unit(config, symbols)
    unit.write()
    return {file: ast.unparse(module) + "\n" for file, module in unit.modules.items()}


def _expression(symbols: Symbols) -> Statements:
    return Statements(Unit(nodes.Config(), symbols))


def _load(writer: Statements, function: ast.expr, pos: nodes.Pos) -> Any:
    pieces.place(function, pos)
    unit = writer.unit
    if unit.references:
        exec(compile(ast.Module(unit.references, []), pos.file or "<format>", "exec"), unit.names.values)
    return eval(compile(ast.Expression(function), pos.file or "<format>", "eval"), unit.names.values)


def compile_format(text: str, symbols: Symbols, pos: nodes.Pos = nodes.NOWHERE) -> Callable[[Run], str]:
    """A text with variables in it, for modules that read one themselves: ``compiled(run)`` gives the text. Raises ScriptError.

    ``$param`` in it is what ``run.params`` holds."""
    writer = _expression(symbols)
    found: Callable[[Run], str] = _load(writer, _function(["run"], writer.format(parse_format(text, pos))), pos)
    return found


def compile_variable(
    variable: str | nodes.Variable, symbols: Symbols, pos: nodes.Pos = nodes.NOWHERE
) -> Reference:
    """A variable named in a modparam, or found by ``parse_format``, as the object that functions receive. Raises ScriptError."""
    writer = _expression(symbols)
    node = parse_variable(variable, pos) if isinstance(variable, str) else variable
    found: Reference = _load(writer, writer.reference(node), pos)
    return found
