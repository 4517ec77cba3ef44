"""The part of the compiler that writes statements.

A statement in ``tail`` position is the last one of its route on that way: where somebody looks at the route's code
(``Colour.judges``) it returns the code that it leaves behind. A script that reads ``$rc`` has the code of every statement kept in
``run.rc``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from sipgw.script import nodes, pieces, runtime, values
from sipgw.script.compile_conditions import Conditions
from sipgw.script.compile_values import refuse
from sipgw.script.pieces import call, constant, name
from sipgw.script.symbols import RouteKind

STEPS: dict[type[nodes.Node], str] = {
    nodes.If: "core if",
    nodes.While: "core while",
    nodes.For: "core for-each",
    nodes.Switch: "core switch",
    nodes.Break: "core break",
    nodes.Return: "core return",
    nodes.Exit: "core exit",
    nodes.Drop: "core drop",
    nodes.Log: "core log",
    nodes.Xlog: "core xlog",
    nodes.Error: "core error",
    nodes.Assert: "core assert",
}
"""What ``script_trace`` calls statements, as OpenSIPS does; those that are not here say more."""
ASSIGNMENTS = {
    "=": "equal",
    ":=": "colon-eq",
    "+=": "plus-eq",
    "-=": "minus-eq",
    "*=": "mult-eq",
    "/=": "div-eq",
    "%=": "modulo-eq",
    "&=": "b-and-eq",
    "|=": "b-or-eq",
    "^=": "b-xor-eq",
}
"""And assignments."""
OPERATORS = {"+=": "+", "-=": "-", "*=": "*", "/=": "/", "%=": "%", "&=": "&", "|=": "|", "^=": "^"}


class Statements(Conditions):
    """Writes the statements of one route. ``judged``: its code is looked at."""

    judged = False
    break_returns = False

    # ---- bodies ----

    def body(self, statements: nodes.Body, tail: bool) -> list[ast.stmt]:
        """The statements of a block; what can never be reached is left out."""
        outer, self.block = self.block, []
        for number, statement in enumerate(statements):
            self.statement(statement, tail and number == len(statements) - 1)
            if pieces.leaves(self.block):
                break
        inner, self.block = self.block, outer
        return inner

    def statement(self, node: nodes.Statement, tail: bool) -> None:
        """One statement."""
        self.pos = self.at(node.pos)
        self._temps = {key: count for key, count in self._temps.items() if key in ("case", "index", "item")}
        if self.unit.colours.traces:
            self._trace_step(node)
        write: Callable[[Any, bool], None] = getattr(self, f"visit_{type(node).__name__}")
        write(node, tail)

    def _trace_step(self, node: nodes.Statement) -> None:
        """Log that a statement comes next; an assignment does it itself, when its value is there."""
        if isinstance(node, nodes.Call | nodes.RouteCall):
            self.trace_call(node)
        elif isinstance(node, nodes.Async):
            self.trace(f"async {node.call.name}", node.pos)
        elif isinstance(node, nodes.Launch):
            self.trace(f"launch {node.call.name}", node.pos)
        elif type(node) in STEPS:
            self.trace(STEPS[type(node)], node.pos)

    def done(self, tail: bool, code: int = 1) -> None:
        """Note the code that a statement leaves behind."""
        if self.unit.colours.keeps_rc:
            self.emit(pieces.set_attribute("rc", constant(code)))
        if tail and self.judged:
            self.emit(pieces.give(constant(code)))

    def _judge(self, test: ast.expr, tail: bool) -> None:
        """The statement is an expression that says whether it went well."""
        if tail and self.judged:
            self.emit(pieces.give(pieces.either(test, constant(1), constant(-1))))
        elif self.unit.colours.keeps_rc:
            self.emit(pieces.do(call(self.use(runtime.noted), name("run"), test)))
        elif isinstance(test, ast.IfExp):
            self.emit(pieces.when(test.test, [pieces.do(test.body)]))
        else:
            self.emit(pieces.do(test))

    # ---- assignments ----

    def visit_Assign(self, node: nodes.Assign, tail: bool) -> None:
        """An assignment."""
        done = self._assigned(node, certain=not (self.unit.colours.keeps_rc or (tail and self.judged)))
        if isinstance(done, str):
            self._judge(name(done), tail)
        else:
            self.done(tail)

    def assign_test(self, node: nodes.Assign) -> ast.expr:
        """An assignment as condition: whether it was done."""
        done = self._assigned(node, certain=False)
        return name(done) if isinstance(done, str) else constant(True)

    def _assigned(self, node: nodes.Assign, certain: bool) -> str | None:
        """Write an assignment; the local that says whether it was done, None if it cannot fail or nobody asks (``certain``)."""
        target = node.target
        if target.transformations or target.context is not None:
            refuse(target, f"${target.name} with a transformation or a context cannot be assigned")
        fails = node.op in OPERATORS
        if isinstance(node.value, nodes.Null):
            value: ast.expr = constant(None)
        else:
            fails |= self.may_fail(node.value)
            value = self.value(node.value)
        self.trace(f"assign {ASSIGNMENTS[node.op]}", node.pos)
        if node.op in OPERATORS:
            value = call(self.use(values.change), name("run"), constant(OPERATORS[node.op]), self.variable(target), value)
        if fails:
            return self._store_if_sound(node, value, certain)
        statement, may_refuse = self._store(node, value)
        if certain or not may_refuse or not isinstance(statement, ast.Expr):
            self.emit(statement)
            return None
        kept = self.temp("test")
        self.emit(pieces.store(kept, pieces.differs(statement.value, constant(False))))
        return kept

    def _store_if_sound(self, node: nodes.Assign, value: ast.expr, certain: bool) -> str | None:
        """``if (new := value) is not ERROR: target = new``."""
        statement, may_refuse = self._store(node, name("new"))
        sound = pieces.differs(pieces.walrus("new", value), self.error())
        if certain:
            self.emit(pieces.when(sound, [statement]))
            return None
        kept = self.temp("test")
        self.emit(pieces.store(kept, sound))
        if may_refuse and isinstance(statement, ast.Expr):
            statement = pieces.store(kept, pieces.differs(statement.value, constant(False)))
        self.emit(pieces.when(name(kept), [statement]))
        return kept

    def _store(self, node: nodes.Assign, value: ast.expr) -> tuple[ast.stmt, bool]:
        """The statement that gives the target a value, and whether it may refuse it (then it is an expression)."""
        target = node.target
        if target.name == "var":
            self.uses_vars = True
            return ast.Assign([ast.Subscript(self.vars, self.subname(target), ast.Store())], value), False
        made = self.assignment(target, value, node.op == ":=")
        if made is None:
            refuse(target, f"${target.name} cannot be assigned")
        return pieces.do(made), True

    # ---- branches and loops ----

    def visit_If(self, node: nodes.If, tail: bool) -> None:
        """``if`` and ``else``."""
        test, _ = self.condition(node.condition)
        then = self.body(node.then, tail)
        otherwise = self.body(node.otherwise or (), tail)
        if self.unit.colours.keeps_rc:
            then = then or [pieces.set_attribute("rc", constant(1))]
            otherwise = otherwise or [pieces.set_attribute("rc", constant(0))]
        if isinstance(test, ast.Constant):
            self.block += then if test.value else otherwise
        elif then or otherwise:
            self.emit(pieces.when(test, then, otherwise))
        elif not isinstance(test, ast.Name):
            self.emit(pieces.do(test))

    def visit_While(self, node: nodes.While, tail: bool) -> None:
        """``for _ in range(10000): if not test: break``, and a log line if that was not enough."""
        limit = self.unit.max_while_loops
        outer, self.block = self.block, []
        test, _ = self.condition(node.condition)
        leave: list[ast.stmt] = [ast.Break()]
        if self.unit.colours.keeps_rc:
            leave.insert(0, pieces.set_attribute("rc", constant(1)))
        self.emit(pieces.when(pieces.opposite(test), leave))
        head, self.block = self.block, outer
        body = [*head, *self._inside(node.body, tail)]
        stopped = pieces.do(call(self.use(runtime.too_many_loops), name("run"), constant(limit)))
        numbers = call(name("range"), constant(limit))
        self.emit(ast.For(ast.Name("_", ast.Store()), numbers, body, [stopped]))
        if tail and self.judged:
            self.emit(pieces.give(constant(1)))

    def _inside(self, body: nodes.Body, tail: bool) -> list[ast.stmt]:
        """The body of a loop or switch: where that is the last statement, ``break`` returns the code it leaves behind."""
        outer, self.break_returns = self.break_returns, tail and self.judged
        made = self.body(body, False)
        self.break_returns = outer
        return made

    def visit_For(self, node: nodes.For, tail: bool) -> None:
        """``for``: the values of the sequence one after another, until null; bounded, for the body may make it longer."""
        index, item = self.temp("index"), self.temp("item")
        sequence = node.sequence
        symbol = self.symbol(sequence)
        if not symbol.takes_index or symbol.getter is None:
            refuse(sequence, f"${sequence.name} has no index, so nothing can be taken from it in turn")
        address = [self.subname(sequence)] if symbol.takes_name else []
        got: ast.expr = call(self.bind(f"get_{sequence.name}", symbol.getter), name("run"), *address, name(index))
        for transformation in sequence.transformations:
            got = self._transform(got, transformation)
        outer, self.block = self.block, []
        self.emit(pieces.when(pieces.same(pieces.walrus(item, got), constant(None)), [ast.Break()]))
        op = ":=" if node.iterator.name == "json" else "="
        statement, _ = self._store(nodes.Assign(node.iterator, op, nodes.Null(), pos=node.iterator.pos), name(item))
        self.emit(statement)
        head, self.block = self.block, outer
        limit = self.unit.max_while_loops
        stopped = pieces.do(call(self.use(runtime.too_many_loops), name("run"), constant(limit)))
        numbers = call(name("range"), constant(limit))
        body = [*head, *self._inside(node.body, tail)]
        self.emit(ast.For(ast.Name(index, ast.Store()), numbers, body, [stopped]))
        if tail and self.judged:
            self.emit(pieces.give(constant(1)))

    def visit_Break(self, node: nodes.Break, tail: bool) -> None:
        """``break`` out of a loop or a switch."""
        if self.break_returns:
            self.emit(pieces.give(constant(runtime.BROKEN)))
            return
        if self.unit.colours.keeps_rc:
            self.emit(pieces.set_attribute("rc", constant(runtime.BROKEN)))
        self.emit(ast.Break())

    def visit_Switch(self, node: nodes.Switch, tail: bool) -> None:
        """A chain of tests where that says the same."""
        subject = self.temp("case")
        self.emit(pieces.store(subject, self.variable(node.subject)))
        if _falls_through(node):
            self._switch_in_turn(node, subject, tail)
            return
        groups = _grouped(node)
        chain = self._case_body(node.default or (), tail)
        if not node.default and self.unit.colours.keeps_rc:
            chain = [pieces.set_attribute("rc", constant(1))]
        for tests, body in reversed(groups):
            test = pieces.some([self._case_test(subject, value) for value in tests])
            chain = [pieces.when(test, self._case_body(body, tail) or [ast.Pass()], chain)]
            pieces.place(chain[0], self.at(tests[0].pos))
        for statement in chain:
            self.emit(statement)

    def _case_test(self, subject: str, value: nodes.Int | nodes.Str) -> ast.expr:
        if isinstance(value, nodes.Int):
            return pieces.compare(name(subject), ast.Eq(), constant(value.value))
        return call(self.use(values.equal_text), name(subject), constant(value.value))

    def _case_body(self, body: nodes.Body, tail: bool) -> list[ast.stmt]:
        """A case that ends in ``break`` or is the last: the break is not written, but its code counts."""
        pos = self.pos
        if body and isinstance(body[-1], nodes.Break):
            made = self.body(body[:-1], False)
            if not pieces.leaves(made):
                outer, self.block = self.block, made
                self.trace("core break", body[-1].pos)
                self.done(tail, runtime.BROKEN)
                self.block = outer
        else:
            made = self.body(body, tail)
        self.pos = pos
        return made

    def _switch_in_turn(self, node: nodes.Switch, subject: str, tail: bool) -> None:
        """A switch with cases that fall through: which case is found first, then they are gone through from there."""
        last = len(node.cases)
        number: ast.expr = constant(last if node.default is not None else last + 1)
        for place in range(last - 1, -1, -1):
            number = pieces.either(self._case_test(subject, node.cases[place].value), constant(place), number)
        self.emit(pieces.store(subject, number))
        outer, self.block = self.block, []
        bodies = [*(case.body for case in node.cases), node.default or ()]
        for place, body in enumerate(bodies):
            made = self._inside(body, tail)
            if made:
                reached = pieces.compare(name(subject), ast.LtE(), constant(place))
                self.emit(pieces.when(reached, made))
        self.emit(ast.Break())
        loop, self.block = self.block, outer
        self.emit(ast.While(constant(True), loop, []))
        if tail and self.judged:
            self.emit(pieces.give(constant(1)))

    # ---- calls ----

    def visit_Call(self, node: nodes.Call, tail: bool) -> None:
        """A function."""
        if self.function(node).returns == "int":
            kept = self.kept_code(node)
            if tail and self.judged:
                self.emit(pieces.give(name(kept)))
            return
        made, function = self.made_call(node)
        if function.returns == "bool":
            self._judge(made, tail)
        elif isinstance(made, ast.IfExp) and (self.unit.colours.keeps_rc or (tail and self.judged)):
            self._judge(pieces.either(made.test, pieces.same(made.body, constant(None)), made.orelse), tail)
        else:
            if isinstance(made, ast.IfExp):
                self.emit(pieces.when(made.test, [pieces.do(made.body)]))
            else:
                self.emit(pieces.do(made))
            self.done(tail)

    def visit_RouteCall(self, node: nodes.RouteCall, tail: bool) -> None:
        """``route(...)``; as the last statement its result is handed on."""
        made, ends = self.route_call(node.name, node.arguments, node)
        if tail:
            self.emit(pieces.give(made))
        elif self.unit.colours.keeps_rc:
            kept = self.temp("r")
            self.emit(pieces.store(kept, made))
            self.pass_on(kept, ends)
            self.emit(pieces.set_attribute("rc", name(kept)))
        elif not ends:
            self.emit(pieces.do(made))
        elif len(ends) == 1:
            self.emit(pieces.when(pieces.same(made, ends[0]), [pieces.give(ends[0])]))
        else:
            kept = self.temp("r")
            self.emit(pieces.store(kept, made))
            self.pass_on(kept, ends)

    def visit_Async(self, node: nodes.Async, tail: bool) -> None:
        """Wait for the call, then go on in another route: the script ends after it."""
        function = self.function(node.call)
        if function.waits and node.timeout is not None:
            arguments, tests = self.arguments(node.call, function)
            callee = self.unit.names.exported(function.module, function.name, function.call)
            seconds = constant(node.timeout)
            made: ast.expr = ast.Await(
                call(self.use(runtime.within), name("run"), seconds, call(callee, name("run"), *arguments))
            )
            if tests:
                made = pieces.either(pieces.every(tests), made, constant(-1))
        else:
            made, _ = self.made_call(node.call)
        if self.unit.colours.keeps_rc:
            self.emit(pieces.set_attribute("rc", call(self.use(runtime.code_from), made)))
        else:
            self.emit(pieces.do(made))
        resumed, _ = self.route_call(node.resume, (), node)
        self.emit(pieces.give(call(self.use(runtime.ended), resumed)))

    def visit_Launch(self, node: nodes.Launch, tail: bool) -> None:
        """``launch(...)``."""
        function = self.function(node.call)
        arguments, tests = self.arguments(node.call, function)
        callee = self.unit.names.exported(function.module, function.name, function.call)
        given = [name("run"), callee, pieces.tuple_of(arguments)]
        if node.report is not None:
            given.append(self._report(node.report, node))
            if node.parameter is not None:
                given.append(self.format(node.parameter))
        statement = pieces.do(call(self.use(runtime.launch), *given))
        self.emit(pieces.when(pieces.every(tests), [statement]) if tests else statement)
        self.done(tail)

    def _report(self, report: str | nodes.Format, node: nodes.Node) -> ast.expr:
        """The route that hears of a launched call's end, as object; None if there is none of that name."""
        title = constant(report) if isinstance(report, str) else self.format(report)
        if isinstance(title, ast.Constant) and (RouteKind.REQUEST, str(title.value)) not in self.unit.colours.routes:
            refuse(node, f"there is no route[{title.value!s}]")
        return call(pieces.attribute(self.unit.named, "get"), title)

    # ---- the end of a route ----

    def visit_Return(self, node: nodes.Return, tail: bool) -> None:
        """``return``."""
        if self.unit.colours.keeps_returns and node.values:
            given = [
                constant(None) if value is None or isinstance(value, nodes.Null) else self.value(value)
                for value in node.values
            ]
            self.emit(pieces.set_attribute("returns", pieces.tuple_of(given)))
        if isinstance(node.code, nodes.Variable):
            self.emit(pieces.give(call(self.use(runtime.code_or_exit), self.variable(node.code))))
        elif isinstance(node.code, nodes.Int):
            code = node.code.value
            self.emit(pieces.give(constant(code) if code else self.bind("EXIT", values.EXIT)))
        else:
            self.emit(pieces.give(constant(1)))

    def visit_Exit(self, node: nodes.Exit, tail: bool) -> None:
        """``exit``."""
        self.emit(pieces.give(self.bind("EXIT", values.EXIT)))

    def visit_Drop(self, node: nodes.Drop, tail: bool) -> None:
        """``drop``."""
        self.emit(pieces.give(self.bind("DROP", values.DROP)))

    # ---- logs and asserts ----

    def visit_Log(self, node: nodes.Log, tail: bool) -> None:
        """``log(...)``."""
        self.write_log(node)
        self.done(tail)

    def visit_Xlog(self, node: nodes.Xlog, tail: bool) -> None:
        """``xlog(...)``, ``xdbg(...)``."""
        self.write_log(node)
        self.done(tail)

    def write_log(self, node: nodes.Log | nodes.Xlog) -> None:
        """``log`` or ``xlog`` behind a test of its level."""
        if isinstance(node, nodes.Log):
            self._guarded_log("log_level", constant(4 if node.level is None else node.level), constant(node.text))
        elif isinstance(node.level, nodes.Variable):
            kept = self.temp("a")
            self.emit(pieces.store(kept, call(self.use(runtime.level_of), name("run"), self.variable(node.level))))
            self._guarded_log("xlog_level", name(kept), self.format(node.format), pieces.differs(name(kept), constant(None)))
        else:
            number = self.unit.xlog_print_level if node.level is None else node.level
            self._guarded_log("xlog_level", constant(number), self.format(node.format))

    def _guarded_log(self, which: str, level: ast.expr, text: ast.expr, *first: ast.expr) -> None:
        """``if run.user.xlog_level >= 1: run.user.xlog(1, f"...")``: nothing is formatted to be thrown away."""
        colours = self.unit.colours
        if which == "xlog_level" and colours.own_xlog_level:
            limit: ast.expr = call(self.use(runtime.xlog_level), name("run"))
        elif which == "log_level" and colours.own_log_level:
            limit = call(self.use(runtime.log_level), name("run"))
        else:
            limit = pieces.attribute("run", "user", which)
        if which == "xlog_level" and colours.watches_xlog:
            write = pieces.do(call(self.use(runtime.watched_xlog), name("run"), level, text))
        else:
            write = pieces.do(call(pieces.attribute("run", "user", "xlog" if which == "xlog_level" else "log"), level, text))
        self.emit(pieces.when(pieces.every([*first, pieces.compare(limit, ast.GtE(), level)]), [write]))

    def visit_Error(self, node: nodes.Error, tail: bool) -> None:
        """``error(...)``, which only says that it does nothing."""
        text = f'error("{node.code}", "{node.text}") does nothing'
        self.emit(pieces.do(call(pieces.attribute("run", "user", "log"), constant(-1), constant(text))))
        self.done(tail)

    def visit_Assert(self, node: nodes.Assert, tail: bool) -> None:
        """``assert(...)``, if the configuration enables them."""
        if not self.unit.asserts:
            self.done(tail)
            return
        test, _ = self.condition(node.condition)
        outer, self.block = self.block, []
        self.emit(pieces.do(call(self.use(runtime.assert_failed), name("run"), constant(node.message))))
        key = (RouteKind.ERROR, "")
        if key in self.unit.functions:
            made: ast.expr = call(name(self.unit.functions[key]), name("run"))
            self.emit(pieces.do(ast.Await(made) if self.unit.colours.routes[key].waits else made))
        self.emit(pieces.give(self.bind("EXIT", values.EXIT)))
        failed, self.block = self.block, outer
        self.emit(pieces.when(pieces.opposite(test), failed))
        self.done(tail)


def _breaks(body: nodes.Body) -> bool:
    """Whether a ``break`` in ``body`` leaves the loop or switch around it."""
    for statement in body:
        if isinstance(statement, nodes.Break):
            return True
        if isinstance(statement, nodes.If) and (_breaks(statement.then) or _breaks(statement.otherwise or ())):
            return True
    return False


def _ends(body: nodes.Body) -> bool:
    """Whether what follows ``body`` is never reached."""
    if not body:
        return False
    last = body[-1]
    if isinstance(last, nodes.Break | nodes.Return | nodes.Exit | nodes.Drop | nodes.Async):
        return True
    return isinstance(last, nodes.If) and _ends(last.then) and _ends(last.otherwise or ())


def _falls_through(node: nodes.Switch) -> bool:
    """Whether a case runs on into the next, or is left by a ``break`` that is not its last statement."""
    for place, case in enumerate(node.cases):
        is_last = place == len(node.cases) - 1 and node.default is None
        if case.body and not is_last and not _ends(case.body):
            return True
    bodies = [*(case.body for case in node.cases), node.default or ()]
    return any(_breaks(body[:-1] if body and isinstance(body[-1], nodes.Break) else body) for body in bodies)


def _grouped(node: nodes.Switch) -> list[tuple[list[nodes.Int | nodes.Str], nodes.Body]]:
    """The cases, those without a body put to the next one that has one (or to the default)."""
    groups: list[tuple[list[nodes.Int | nodes.Str], nodes.Body]] = []
    waiting: list[nodes.Int | nodes.Str] = []
    for case in node.cases:
        waiting.append(case.value)
        if case.body:
            groups.append((waiting, case.body))
            waiting = []
    if waiting:
        groups.append((waiting, node.default or ()))
    return groups
