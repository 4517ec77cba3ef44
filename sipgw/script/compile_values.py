"""The part of the compiler that writes values: variables, transformations, texts with variables, arithmetic, arguments.

Everything here gives an ``ast`` expression. What cannot be one (a call that may end the script) is written as statements before
it, into ``self.block``; whoever calls takes care of the order (``sequence``)."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from sipgw.script import nodes, parts, pieces, runtime, transform_text, values
from sipgw.script.errors import ScriptError
from sipgw.script.formats import parse_format, parse_variable
from sipgw.script.pieces import call, constant, name
from sipgw.script.regex import BadPattern, Regex, compile_regex
from sipgw.script.symbols import Function, Kind, Parameter, Variable
from sipgw.script.transformations import EVAL, SUBST, WAITING, split_index

if TYPE_CHECKING:
    from sipgw.script.compiler import Unit


def refuse(node: nodes.Node, text: str, hint: str = "") -> NoReturn:
    """Raise a ScriptError at ``node``."""
    raise ScriptError(*node.pos, text, hint)


class Values(ABC):
    """Writes values for one block of code. ``unit``: what the whole configuration shares."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.block: list[ast.stmt] = []
        self.run = "run"
        """The run whose variables are read: this one, or that of another message."""
        self.local_vars = False
        """Whether a local of the route keeps the ``$var``s."""
        self.uses_vars = False
        self.can_wait = False
        """Whether this is a route that waits."""
        self.has_params = False
        """Whether ``$param`` is what the caller gave, in ``params``; else it is what the event has."""
        self.keeps_params = False
        self.pos = nodes.NOWHERE
        self.file = ""
        """The file of the route; "" outside of one."""
        self._temps: dict[str, int] = {}

    @property
    def vars(self) -> ast.expr:
        """How the ``$var``s are had; a new node each time, since each stands at a line of its own."""
        return pieces.name("var") if self.local_vars else pieces.attribute("run", "vars")

    # ---- names ----

    def temp(self, hint: str) -> str:
        """A local name that this statement does not use yet."""
        count = self._temps.get(hint, 0) + 1
        self._temps[hint] = count
        return hint if count == 1 else f"{hint}{count}"

    def bind(self, wanted: str, value: Any) -> ast.Name:
        """The global name of an object."""
        return self.unit.names.bind(wanted, value)

    def use(self, function: Any) -> ast.Name:
        """The global name of one of our functions."""
        return self.bind(function.__name__, function)

    def error(self) -> ast.Name:
        """``ERROR``."""
        return self.bind("ERROR", values.ERROR)

    def at(self, pos: nodes.Pos) -> nodes.Pos:
        """Where something stands, as far as Python can say it: what was included inside a route has the line before it."""
        return pos if not self.file or pos.file == self.file else self.pos

    def emit(self, statement: ast.stmt) -> None:
        """Write a statement of the line that is being compiled."""
        pieces.place(statement, self.pos)
        self.block.append(statement)

    # ---- variables ----

    def variable(self, node: nodes.Variable) -> ast.expr:
        """The value of a variable, its transformations done."""
        value = self._plain(node)
        for transformation in node.transformations:
            value = self._transform(value, transformation)
        pieces.place(value, self.at(node.pos))
        return value

    def _plain(self, node: nodes.Variable) -> ast.expr:
        if node.context is not None:
            return self._in_context(node)
        special = getattr(self, f"_get_{node.name.replace('.', '_')}", None)
        if special is not None:
            found: ast.expr | None = special(node)
            if found is not None:
                return found
        symbol = self.symbol(node)
        if symbol.getter is None:
            refuse(node, f"${node.name} cannot be read")
        if symbol.waiter is not None and self.can_wait:
            waiter = self.bind(f"fetch_{node.name}", symbol.waiter)
            return ast.Await(call(waiter, name(self.run), *self.address(node, symbol)))
        getter = self.bind(f"get_{node.name}", symbol.getter)
        return call(getter, name(self.run), *self.address(node, symbol))

    def _in_context(self, node: nodes.Variable) -> ast.expr:
        """``$(<request>..)``: on another run; null when there is none."""
        which = {"request": runtime.in_request, "reply": runtime.in_reply}.get(node.context or "")
        if which is None:
            refuse(node, f"there is no context <{node.context}>", "write <request> or <reply>")
        other = self.temp("a")
        found = pieces.walrus(other, call(self.use(which), name("run")))
        self.run = other
        value = self.variable(nodes.Variable(node.name, node.subname, node.index, pos=node.pos))
        self.run = "run"
        return pieces.either(pieces.same(found, constant(None)), constant(None), value)

    def symbol(self, node: nodes.Variable) -> Variable:
        """What the symbols know of a variable."""
        symbol = self.unit.symbols.variable(node.name, node.subname is not None)
        if symbol is None:
            refuse(node, f"unknown variable ${node.name}{'(...)' if node.subname is not None else ''}")
        return symbol

    def address(self, node: nodes.Variable, symbol: Variable) -> list[ast.expr]:
        """What a getter or setter takes behind the run: the name in parentheses, the index."""
        found: list[ast.expr] = []
        if symbol.takes_name:
            found.append(self.subname(node))
        if symbol.takes_index:
            found.append(self.index(node))
        elif node.index is not None:
            refuse(node, f"${node.name} takes no index")
        return found

    def subname(self, node: nodes.Variable) -> ast.expr:
        """The name in parentheses, as a text."""
        if isinstance(node.subname, nodes.Variable):
            return self.text(node.subname)
        if (node.name.startswith("sdp.") or self.symbol(node).expands) and "$" in (node.subname or ""):
            return self.format(parse_format(node.subname or "", node.pos))
        return constant(node.subname)

    def index(self, node: nodes.Variable) -> ast.expr:
        """The index: a number, "*", "append", or None when there is none."""
        if isinstance(node.index, nodes.Variable):
            return call(self.use(runtime.position), self.variable(node.index))
        return constant(node.index)

    def text(self, node: nodes.Variable) -> ast.expr:
        """A variable as text; null is ``<null>``."""
        return call(self.use(values.to_text), self.variable(node))

    def _get_var(self, node: nodes.Variable) -> ast.expr | None:
        self.uses_vars = True
        return call(pieces.attribute(self.vars, "get"), self.subname(node))

    def _get_rc(self, node: nodes.Variable) -> ast.expr | None:
        return pieces.attribute("run", "rc")

    _get_retcode = _get_rc

    def _get_cfg_line(self, node: nodes.Variable) -> ast.expr | None:
        return constant(node.pos.line)

    def _get_cfg_file(self, node: nodes.Variable) -> ast.expr | None:
        return constant(node.pos.file)

    def _get_param(self, node: nodes.Variable) -> ast.expr | None:
        key = self._number(node)
        if self.has_params:
            return call(self.use(runtime.param), name("params"), key)
        return call(self.use(runtime.event_param), name("run"), key)

    def _get_return(self, node: nodes.Variable) -> ast.expr | None:
        return call(self.use(runtime.returned), name("run"), self._number(node))

    def _number(self, node: nodes.Variable) -> ast.expr:
        """A name in parentheses that is a number."""
        if isinstance(node.subname, nodes.Variable):
            return self.variable(node.subname)
        text = node.subname or ""
        return constant(int(text) if text.isdigit() else text)

    def _get_rm(self, node: nodes.Variable) -> ast.expr | None:
        return pieces.attribute(self.run, "message", "method")

    # ---- transformations ----

    def _transform(self, value: ast.expr, node: nodes.Transformation) -> ast.expr:
        """``{s.substr,1,2}`` around ``value``."""
        full, place = split_index(f"{node.kind}.{node.op}")
        if full == EVAL:
            self.keeps_params = True
            return call(self.use(self.unit.evaluator), name("run"), value)
        if full == SUBST:
            return self._substitute(value, node)
        symbol = self.unit.symbols.transformations.get(full)
        if symbol is None or symbol.call is None:
            refuse(node, f"unknown transformation {{{node.kind}.{node.op}}}")
        if not symbol.least <= len(node.arguments) <= symbol.most:
            refuse(node, f"{{{full}}} takes {symbol.least} to {symbol.most} arguments, not {len(node.arguments)}")
        function = self.unit.names.exported(node.kind, full.partition(".")[2], symbol.call)
        arguments = [self._argument(argument) for argument in node.arguments]
        if full in WAITING:
            return ast.Await(call(function, name("run"), value))
        found = call(function, value, *arguments)
        if place is not None:
            found.keywords.append(ast.keyword("index", constant(place)))
        return found

    def _argument(self, argument: str | nodes.Variable) -> ast.expr:
        """A literal that is a number counts as one."""
        if isinstance(argument, nodes.Variable):
            return self.variable(argument)
        digits = argument.removeprefix("-")
        is_number = digits.isascii() and digits.isdigit() and str(int(digits)) == digits and len(digits) < 11
        return constant(values.c_int(int(argument)) if is_number else argument)

    def _substitute(self, value: ast.expr, node: nodes.Transformation) -> ast.expr:
        """``{re.subst,/a/b/}``, compiled now; ``{re.subst,$var(x)}`` when it runs."""
        text = node.text
        if text.startswith("$"):
            function = self.unit.names.exported("re", "subst", transform_text.substitute)
            return call(function, value, self.variable(parse_variable(text, node.pos)))
        key = ("subst", text)
        found = self.unit.constants.get(key)
        if found is None:
            try:
                found = transform_text.Substitution(text, lambda piece: parse_format(piece, node.pos).pieces)
            except ValueError as error:
                refuse(node, str(error))
            self.unit.constants[key] = found
        variables = [self.variable(variable) for variable in found.variables]
        return call(pieces.attribute(self.bind("subst", found), "apply"), value, *variables)

    # ---- values ----

    def value(self, node: nodes.Value) -> ast.expr:
        """The value of the right side of an assignment; ERROR where ``may_fail`` says so."""
        if isinstance(node, nodes.Int | nodes.Str):
            return constant(node.value)
        if isinstance(node, nodes.Variable):
            return self.variable(node)
        if isinstance(node, nodes.Binary):
            return self._binary(node)
        if isinstance(node, nodes.Invert):
            return call(self.use(values.invert), name("run"), self.value(node.operand))
        if isinstance(node, nodes.Compare):
            test, fails = self.compare(node)
            return call(self.use(values.as_value), test) if fails else call(name("int"), test)
        return self.code(node)

    def may_fail(self, node: nodes.Value) -> bool:
        """Whether a value may be ERROR."""
        if isinstance(node, nodes.Binary | nodes.Invert):
            return True
        return isinstance(node, nodes.Compare) and compare_fails(node)

    def _binary(self, node: nodes.Binary) -> ast.expr:
        left, right = self.sequence(node.left, node.right)
        if node.op == "+":
            has_text = isinstance(node.right, nodes.Variable | nodes.Str)
            return call(self.use(values.add if has_text else values.add_number), name("run"), left, right)
        return call(self.use(values.calculate), name("run"), constant(node.op), left, right)

    def sequence(self, *operands: nodes.Value) -> list[ast.expr]:
        """The values of several operands, worked out from left to right even if one needs statements before it."""
        found: list[ast.expr] = []
        for operand in operands:
            before = len(self.block)
            value = self.value(operand)
            if len(self.block) > before:
                for number, earlier in enumerate(found):
                    if not isinstance(earlier, ast.Constant | ast.Name):
                        kept = self.temp("a")
                        statement = pieces.store(kept, earlier)
                        pieces.place(statement, self.pos)
                        self.block.insert(before, statement)
                        before += 1
                        found[number] = name(kept)
            found.append(value)
        return found

    @abstractmethod
    def compare(self, node: nodes.Compare) -> tuple[ast.expr, bool]:
        """A comparison, and whether it may be ERROR."""

    @abstractmethod
    def code(self, node: nodes.Call | nodes.RouteCall | nodes.Log | nodes.Xlog) -> ast.expr:
        """The return code of a call, as a number."""

    # ---- texts ----

    def format(self, node: nodes.Format) -> ast.expr:
        """A text with variables in it."""
        if node.constant is not None:
            return constant(node.constant)
        if len(node.pieces) == 1 and isinstance(node.pieces[0], nodes.Variable):
            return self.text(node.pieces[0])
        return pieces.joined_text([p if isinstance(p, str) else self.text(p) for p in node.pieces])

    # ---- references ----

    def reference(self, node: nodes.Variable) -> ast.expr:
        """A variable as an object that a function can read and set."""
        key = ("reference", node)
        found = self.unit.constants.get(key)
        if found is None:
            self.keeps_params |= self.has_params and node.name == "param"
            writer = type(self)(self.unit)
            reader = writer.variable(node)
            setter = None
            if not node.transformations and node.context is None:
                setter = writer.assignment(node, name("value"))
            spelled = f"ref_{node.name}_{node.subname if isinstance(node.subname, str) else ''}"
            found = self.unit.reference(spelled, node, reader, setter, writer.picker(node))
            self.unit.constants[key] = found
        return name(found)

    def picker(self, node: nodes.Variable) -> ast.expr | None:
        """The call that reads a variable at ``index``, None if it was written with one or takes none."""
        if node.index is not None or node.context is not None or node.name == "var":
            return None
        symbol = self.symbol(node)
        if not symbol.takes_index or symbol.getter is None:
            return None
        address = [self.subname(node)] if symbol.takes_name else []
        value: ast.expr = call(self.bind(f"get_{node.name}", symbol.getter), name("run"), *address, name("index"))
        for transformation in node.transformations:
            value = self._transform(value, transformation)
        return value

    def assignment(self, node: nodes.Variable, value: ast.expr, replaces: bool = False) -> ast.expr | None:
        """The call that gives a variable a value, None if it cannot be set. ``replaces``: by ``:=``."""
        if node.name == "var":
            return call(pieces.attribute(self.vars, "__setitem__"), self.subname(node), value)
        symbol = self.symbol(node)
        setter = symbol.replacer if replaces and symbol.replacer is not None else symbol.setter
        if setter is None or symbol.read_only:
            return None
        prefix = "replace" if setter is symbol.replacer else "set"
        return call(self.bind(f"{prefix}_{node.name}", setter), name("run"), *self.address(node, symbol), value)

    # ---- arguments of functions ----

    def arguments(self, node: nodes.Call, function: Function) -> tuple[list[ast.expr], list[ast.expr]]:
        """The arguments of a call, and the tests that must all hold for it to be made at all."""
        found: list[ast.expr] = []
        tests: list[ast.expr] = []
        for number, (argument, parameter) in enumerate(zip(node.arguments, function.parameters, strict=False), 1):
            if argument is None:
                found.append(constant(None))
                continue
            value, checked = self._one_argument(argument, parameter, number, node)
            if checked:
                kept = self.temp("a")
                tests.append(pieces.differs(pieces.walrus(kept, value), constant(None)))
                value = name(kept)
            found.append(value)
        while found and isinstance(found[-1], ast.Constant) and found[-1].value is None:
            found.pop()
        return found, tests

    def _one_argument(
        self, argument: nodes.Int | nodes.Str | nodes.Variable, parameter: Parameter, number: int, node: nodes.Call
    ) -> tuple[ast.expr, bool]:
        """One argument; True if it is None when it does not fit."""
        kind = parameter.kind
        where = (constant(number), constant(node.name))
        if kind is Kind.VAR or kind is Kind.WRITABLE:
            if not isinstance(argument, nodes.Variable):
                refuse(argument, f"{node.name}: parameter {number} must be a variable")
            return self.reference(argument), False
        if isinstance(argument, nodes.Variable):
            value = self.variable(argument)
            if parameter.guarded:
                template = constant((None,))
                return call(self.use(runtime.joined), name("run"), *where, template, value), True
            takes = {Kind.INT: runtime.integer, Kind.REGEX: runtime.pattern}.get(kind, runtime.string)
            return call(self.use(takes), name("run"), value, *where), True
        if kind is Kind.FLAG:
            return constant(self.unit.flag_mask(str(argument.value), argument)), False
        if kind is Kind.REGEX:
            return self.regex(str(argument.value), argument), False
        if kind is Kind.INT:
            return constant(argument.value), False
        text = str(argument.value)
        if kind not in (Kind.STR, Kind.SOCKET) or "$" not in text:
            return constant(text), False
        format = parse_format(text, argument.pos)
        if parameter.guarded and format.constant is None:
            template = constant(tuple(p if isinstance(p, str) else None for p in format.pieces))
            given = [self.variable(p) for p in format.pieces if not isinstance(p, str)]
            return call(self.use(runtime.joined), name("run"), *where, template, *given), True
        if parameter.parted and format.constant is None:
            return self._parted(format), False
        return self.format(format), False

    def _parted(self, format: nodes.Format) -> ast.expr:
        """A text with its values apart, and without what would escape them."""
        template = tuple(p if isinstance(p, str) else parts.Hole(p.name) for p in format.pieces)
        given = [self.variable(unescaped(p)) for p in format.pieces if not isinstance(p, str)]
        return call(self.use(parts.Parts), self.bind("template", template), ast.Tuple(given, ast.Load()))

    def regex(self, text: str, node: nodes.Node) -> ast.expr:
        """A constant pattern, compiled now."""
        try:
            found: Regex = compile_regex(text)
        except BadPattern as error:
            refuse(node, f"bad pattern: {error}")
        key = ("regex", text)
        self.unit.constants.setdefault(key, found)
        return self.bind("regex", self.unit.constants[key])


def unescaped(node: nodes.Variable) -> nodes.Variable:
    """A variable without ``{s.escape.common}`` as its last transformation."""
    last = node.transformations[-1] if node.transformations else None
    if last is None or (last.kind, last.op) != ("s", "escape.common"):
        return node
    return replace(node, transformations=node.transformations[:-1])


def compare_fails(node: nodes.Compare) -> bool:
    """Whether a comparison may be ERROR."""
    if isinstance(node.right, nodes.Int | nodes.IpNet):
        return True
    return node.op in ("=~", "!~") and isinstance(node.right, nodes.Variable)
