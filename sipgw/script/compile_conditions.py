"""The part of the compiler that writes conditions, comparisons and calls.

A condition is an expression whose Python truth is its truth in the script; ``ERROR`` is falsy, and where one can come up in
front of ``||`` or behind ``!`` it is kept (``values``). A call that can end the script stands in statements before the
condition: ``r = f(run)``, ``if r == 0: return EXIT``, and ``r > 0`` in it."""

from __future__ import annotations

import ast
from abc import abstractmethod
from typing import Any

from sipgw.script import nodes, pieces, runtime, values
from sipgw.script.colours import Colour
from sipgw.script.compile_values import Values, compare_fails, refuse
from sipgw.script.pieces import call, constant, name
from sipgw.script.symbols import Function, RouteKind

TEXT_TESTS: dict[str, Any] = {
    "==": values.equal_text,
    "<": values.less_text,
    "<=": values.at_most_text,
    ">": values.more_text,
    ">=": values.at_least_text,
}
NUMBER_TESTS: dict[str, Any] = {
    "==": values.equal_number,
    "!=": values.differ_number,
    "<": values.less_number,
    "<=": values.at_most_number,
    ">": values.more_number,
    ">=": values.at_least_number,
}
VALUE_TESTS: dict[str, Any] = {"==": values.equal, "<": values.less, "<=": values.at_most}
SWAPPED = {">": "<", ">=": "<="}

Tested = tuple[ast.expr, bool]
"""A condition, and whether it may be ERROR."""


class Conditions(Values):
    """Writes conditions and calls."""

    # ---- comparisons ----

    def compare(self, node: nodes.Compare) -> Tested:
        """``$v op something``."""
        left = self.variable(node.left)
        right = node.right
        fails = compare_fails(node)
        if isinstance(right, nodes.Null):
            null = constant(None)
            return (pieces.same if node.op == "==" else pieces.differs)(left, null), False
        if isinstance(right, nodes.IpNet):
            key = ("network", str(right.network))
            network = self.unit.constants.setdefault(key, right.network)
            test = call(self.use(values.in_network), name("run"), left, self.bind("network", network))
            return (test if node.op == "==" else call(self.use(values.negate), test)), True
        if node.op in ("=~", "!~"):
            return self._match(node, left), fails
        if isinstance(right, nodes.Int):
            return call(self.use(NUMBER_TESTS[node.op]), name("run"), left, constant(right.value)), True
        if isinstance(right, nodes.Str):
            test = call(self.use(TEXT_TESTS[node.op.replace("!", "=")]), left, constant(right.value))
            return (pieces.opposite(test) if node.op == "!=" else test), False
        other = self.variable(right)
        if node.op in SWAPPED:
            return call(self.use(VALUE_TESTS[SWAPPED[node.op]]), other, left), False
        test = call(self.use(VALUE_TESTS[node.op.replace("!", "=")]), left, other)
        return (pieces.opposite(test) if node.op == "!=" else test), False

    def _match(self, node: nodes.Compare, left: ast.expr) -> ast.expr:
        if isinstance(node.right, nodes.Variable):
            test = call(self.use(values.matches_value), name("run"), left, self.variable(node.right))
            return test if node.op == "=~" else call(self.use(values.negate), test)
        assert isinstance(node.right, nodes.Str | nodes.Int)
        test = call(pieces.attribute(self.regex(str(node.right.value), node.right), "matches"), left)
        return test if node.op == "=~" else pieces.opposite(test)

    # ---- conditions ----

    def condition(self, node: nodes.Condition, exact: bool = False) -> Tested:
        """A condition of any kind. ``exact``: ERROR must stay ERROR; else it may become any false value."""
        if isinstance(node, nodes.Compare):
            tested = self.compare(node)
        elif isinstance(node, nodes.Truth):
            value = node.value
            tested = (constant(value.value != 0) if isinstance(value, nodes.Int) else self.variable(value)), False
        elif isinstance(node, nodes.Not):
            test, fails = self.condition(node.operand, exact=True)
            tested = (call(self.use(values.negate), test) if fails else pieces.opposite(test)), fails
        elif isinstance(node, nodes.And | nodes.Or):
            tested = self._both(node, exact)
        elif isinstance(node, nodes.Test):
            tested = self.value(node.value), self.may_fail(node.value)
        elif isinstance(node, nodes.CallTest):
            tested = self._call_test(node.call), False
        else:
            tested = self.assign_test(node.assign), False
        pieces.place(tested[0], self.at(node.pos))
        return tested

    @abstractmethod
    def write_log(self, node: nodes.Log | nodes.Xlog) -> None:
        """Write ``log`` or ``xlog`` behind a test of its level."""

    @abstractmethod
    def assign_test(self, node: nodes.Assign) -> ast.expr:
        """An assignment as condition: whether it was done."""

    def _both(self, node: nodes.And | nodes.Or, exact: bool) -> Tested:
        """``a && b``, ``a || b``; what ``b`` needs before it is only done when ``b`` is asked."""
        left, left_fails = self.condition(node.left, exact or isinstance(node, nodes.Or))
        outer, self.block = self.block, []
        right, right_fails = self.condition(node.right, exact)
        inner, self.block = self.block, outer
        fails = left_fails or right_fails
        if not inner:
            if isinstance(node, nodes.And):
                return pieces.every([left, right]), fails
            if not left_fails:
                return pieces.some([left, right]), fails
            kept = self.temp("test")
            tried = pieces.walrus(kept, left)
            if not exact:
                return pieces.some([tried, pieces.every([pieces.differs(name(kept), self.error()), right])]), fails
            return pieces.either(pieces.some([tried, pieces.same(name(kept), self.error())]), name(kept), right), fails
        kept = self.temp("test")
        self.emit(pieces.store(kept, left))
        goes_on: ast.expr = name(kept)
        if isinstance(node, nodes.Or):
            goes_on = pieces.opposite(goes_on)
            if left_fails:
                goes_on = pieces.every([goes_on, pieces.differs(name(kept), self.error())])
        self.emit(pieces.when(goes_on, [*inner, pieces.store(kept, right)]))
        return name(kept), fails

    # ---- script_trace ----

    def trace(self, what: str, pos: nodes.Pos) -> None:
        """Log that ``what`` comes next, if the script may be traced."""
        if self.unit.colours.traces:
            where = (constant(pos.file), constant(pos.line))
            self.emit(pieces.do(call(self.use(runtime.traced), name("run"), *where, constant(what))))

    def trace_call(self, node: nodes.Call | nodes.RouteCall | nodes.Log | nodes.Xlog) -> None:
        """Log that a call comes next."""
        if isinstance(node, nodes.Call):
            self.trace(f"module {node.name}", node.pos)
        elif isinstance(node, nodes.RouteCall):
            self.trace(f"route {node.name if isinstance(node.name, str) else '$'}", node.pos)
        else:
            self.trace("core log" if isinstance(node, nodes.Log) else "core xlog", node.pos)

    # ---- calls of functions ----

    def function(self, node: nodes.Call) -> Function:
        """What the symbols know of a function."""
        function = self.unit.symbols.function(node.name, len(node.arguments))
        if function is None or function.call is None:
            refuse(node, f"unknown function {node.name}")
        if not function.required <= len(node.arguments) <= len(function.parameters):
            refuse(node, f"{node.name} takes {function.required} to {len(function.parameters)} parameters")
        return function

    def made_call(self, node: nodes.Call) -> tuple[ast.expr, Function]:
        """The call itself, awaited if it waits; a code of -1 (False) in its place when an argument does not fit."""
        function = self.function(node)
        arguments, tests = self.arguments(node, function)
        callee = self.unit.names.exported(function.module, function.name, function.call)
        made: ast.expr = call(callee, name("run"), *arguments)
        if function.waits:
            made = ast.Await(made)
        if tests:
            missing = constant(-1 if function.returns == "int" else False)
            made = pieces.either(pieces.every(tests), made, missing)
        pieces.place(made, self.at(node.pos))
        return made, function

    def kept_code(self, node: nodes.Call | nodes.RouteCall) -> str:
        """Call, end the script if the code is 0 (or the route ended it), and keep the code in a local: its name."""
        kept = self.temp("r")
        if isinstance(node, nodes.RouteCall):
            made, ends = self.route_call(node.name, node.arguments, node)
            self.emit(pieces.store(kept, made))
            self.pass_on(kept, ends)
        else:
            made, _ = self.made_call(node)
            self.emit(pieces.store(kept, made))
            self.emit(pieces.when(self._is_zero(kept), [pieces.give(self.bind("EXIT", values.EXIT))]))
        if self.unit.colours.keeps_rc:
            self.emit(pieces.set_attribute("rc", name(kept)))
        return kept

    def _is_zero(self, kept: str) -> ast.expr:
        return pieces.compare(name(kept), ast.Eq(), constant(0))

    def pass_on(self, kept: str, ends: list[ast.expr]) -> None:
        """``if r is EXIT: return r``, for the endings that the route called may give."""
        if ends:
            tests = [pieces.same(name(kept), ending) for ending in ends]
            self.emit(pieces.when(pieces.some(tests), [pieces.give(name(kept))]))

    def _call_test(self, node: nodes.Call | nodes.RouteCall | nodes.Log | nodes.Xlog) -> ast.expr:
        """A call as condition."""
        self.trace_call(node)
        return self._tested_call(node)

    def _tested_call(self, node: nodes.Call | nodes.RouteCall | nodes.Log | nodes.Xlog) -> ast.expr:
        if isinstance(node, nodes.Log | nodes.Xlog):
            self.write_log(node)
            return constant(True)
        if isinstance(node, nodes.Call) and self.function(node).returns != "int":
            made, function = self.made_call(node)
            if function.returns == "none":
                if isinstance(made, ast.IfExp):
                    made = pieces.either(made.test, pieces.same(made.body, constant(None)), made.orelse)
                else:
                    made = pieces.same(made, constant(None))
            if self.unit.colours.keeps_rc:
                made = call(self.use(runtime.noted), name("run"), made)
            return made
        return pieces.compare(name(self.kept_code(node)), ast.Gt(), constant(0))

    def code(self, node: nodes.Call | nodes.RouteCall | nodes.Log | nodes.Xlog) -> ast.expr:
        """The return code of a call, as a number."""
        self.trace_call(node)
        if isinstance(node, nodes.Log | nodes.Xlog):
            self.write_log(node)
            return constant(1)
        if isinstance(node, nodes.Call) and self.function(node).returns != "int":
            return pieces.either(self._tested_call(node), constant(1), constant(-1))
        return name(self.kept_code(node))

    # ---- calls of routes ----

    def endings(self, colour: Colour) -> list[ast.expr]:
        """The endings that a route may give."""
        found: list[ast.expr] = []
        if colour.exits:
            found.append(self.bind("EXIT", values.EXIT))
        if colour.drops:
            found.append(self.bind("DROP", values.DROP))
        return found

    def route_call(
        self,
        wanted: str | nodes.Variable | nodes.Format,
        arguments: tuple[nodes.Int | nodes.Str | nodes.Variable | nodes.Null, ...],
        node: nodes.Node,
    ) -> tuple[ast.expr, list[ast.expr]]:
        """The call of a route, awaited if it waits, and the endings it may give."""
        unit = self.unit
        given = [constant(None) if isinstance(a, nodes.Null) else self.value(a) for a in arguments]
        known = wanted if isinstance(wanted, str) else wanted.constant if isinstance(wanted, nodes.Format) else None
        if known is None:
            title = self.variable(wanted) if isinstance(wanted, nodes.Variable) else self.format(wanted)  # type: ignore[arg-type]
            colours = [unit.colours.routes[key] for key in unit.colours.named]
            waits = any(colour.waits for colour in colours)
            caller = runtime.call_route_waiting if waits else runtime.call_route
            made: ast.expr = call(self.use(caller), name("run"), name(unit.named), title, *given)
            every = Colour(unit.no_route, exits=any(c.exits for c in colours), drops=any(c.drops for c in colours))
            return (ast.Await(made) if waits else made), self.endings(every)
        key = (RouteKind.REQUEST, known)
        colour = unit.colours.routes.get(key)
        if colour is None:
            refuse(node, f"there is no route[{known}]")
        callee = name(unit.functions[key])
        if not unit.takes_params(key):
            given = []
        if colour.recursive or unit.colours.keeps_stack:
            wrapper = runtime.nested_waiting if colour.waits else runtime.nested
            made = call(self.use(wrapper), name("run"), callee, constant(f"route[{known}]"), *given)
        else:
            made = call(callee, name("run"), *given)
        return (ast.Await(made) if colour.waits else made), self.endings(colour)
