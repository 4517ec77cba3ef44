"""Statements: what stands inside the braces of a route."""

from __future__ import annotations

from collections.abc import Callable

from sipgw.script import nodes
from sipgw.script.cursor import Lost
from sipgw.script.errors import guess
from sipgw.script.expressions import ASSIGNMENTS, Expressions
from sipgw.script.nodes import Body, Int, Null, Pos, Statement, Str, Variable

ITERATORS = ("var", "avp", "json")
"""The variables that a `for` may assign."""

STATEMENTS = (
    "if else while for switch case default break return exit drop assert async launch route xlog log xdbg error"
).split()


class Statements(Expressions):
    """The part of the parser that reads statements."""

    loops = 0
    """How many while, for and switch enclose the statement: `break` needs one."""

    def parse_block(self) -> Body:
        """Read ``{ statements }``. A block without its `}` ends where the next route begins."""
        start = self.offset
        self.expect("{")
        with self.nested():
            body = self.parse_statements()
        if self.kind == "}":
            self.advance()
        else:
            self.error(f"this `{{` has no `}}` before {self.shown()}", self.suspect_string(), start)
        return body

    def parse_statements(self, switch: bool = False) -> Body:
        """Read statements up to a `}` (in a switch: up to the next case)."""
        statements: list[Statement] = []
        while self.kind not in ("}", "EOF"):
            if self.kind == "ID":
                if switch and self.value in ("case", "default"):
                    break
                if self.opens_route():
                    break
            try:
                statement = self.parse_statement()
                if statement is not None:
                    statements.append(statement)
            except Lost:
                self.skip_statement()
        return tuple(statements)

    def parse_body(self) -> Body:
        """Read the body of an if, else or loop: a block, or one statement."""
        if self.kind == "{":
            return self.parse_block()
        if self.kind in ("}", "EOF"):
            self.expected("a statement or a block")
        try:
            with self.nested():
                statement = self.parse_statement()
        except Lost:
            self.skip_statement()
            return ()
        return () if statement is None else (statement,)

    def parse_statement(self) -> Statement | None:
        """Read one statement; None is the empty one."""
        kind = self.kind
        if kind == "ID":
            parse = self.keywords.get(self.value)
            if parse is not None:
                return parse(self)
            return self.parse_call_statement()
        if kind == "VAR":
            return self.parse_assignment()
        if kind == ";":
            self.advance()
            return None
        if kind == "{":
            hint = "a block stands only after if, else, while, for and in a switch"
            self.error("a `{` without what it belongs to", hint)
            self.parse_block()
            return None
        self.fail(f"a statement was expected, not {self.shown()}", self.suspect_string())

    def parse_assignment(self) -> Statement:
        """Read ``$x = value;``."""
        old = self.value in ("$br", "$(br)")
        target = self.variable()
        if old:  # COMPAT: before 3.2 an assignment to $br added a branch, as one to $branch does
            target = Variable("branch", pos=target.pos)
        if self.kind not in ASSIGNMENTS:
            if self.kind in ("[", "{"):
                self.fail(f"{self.shown()} after a variable", self.guess_operator())
            hint = "a comparison is a condition: if (...)" if self.kind in ("==", "!=", "=~") else ""
            self.expected("`=` or another assignment", hint)
        statement = self.parse_assign(target)
        self.end_statement()
        return statement

    def parse_call_statement(self) -> Statement:
        """Read a call; note a bare word."""
        word = self.value
        if self.following() == "(":
            call = self.parse_call()
            if self.kind != ";" and self.kind in ("{",):
                self.fail(f"{word}(...) opens no block", guess(word, STATEMENTS))
            self.end_statement()
            return call
        if self.following() in ASSIGNMENTS:
            self.fail(f"`{word}` can not be assigned here", f"a variable begins with a dollar: $var({word})")
        self.fail(f"the bare word `{word}` is no statement", guess(word, STATEMENTS) or self.bare_word(word))

    # ---- choices and loops ----

    def parse_if(self) -> Statement:
        """Read ``if (condition) body [else body]``; a chain of `else if` in one go, however long it is."""
        links: list[tuple[Pos, nodes.Condition, Body]] = []
        otherwise: Body | None = None
        while True:
            pos = self.pos()
            condition = self.parse_parenthesised()
            links.append((pos, condition or nodes.Truth(Int(1)), self.parse_body()))
            if self.kind == "ID" and self.value in ("elseif", "elsif", "elif", "elseIf"):
                self.error(f"there is no `{self.value}`", "write `else if`")
                continue
            if not self.word("else"):
                break
            if self.kind == "ID" and self.value == "if":
                continue
            otherwise = self.parse_body()
            break
        while True:
            pos, condition, then = links.pop()
            statement = nodes.If(condition, then, otherwise, pos=pos)
            if not links:
                return statement
            otherwise = (statement,)

    def parse_parenthesised(self) -> nodes.Condition | None:
        """Read the word and the condition in its parentheses; None when the condition has faults."""
        word = self.value
        self.advance()
        if self.kind != "(":
            self.expected(f"`(` after `{word}`", f"the condition stands in parentheses: {word} (...)")
        start = self.at
        self.advance()
        try:
            condition = self.parse_condition()
            if self.kind != ")":
                self.condition_end_fault()
            self.advance()
            return condition
        except Lost:
            self.skip_parentheses(start)
            return None

    def condition_end_fault(self) -> None:
        """Note what is wrong after a condition."""
        if self.kind in ("{", ";", "}", "EOF") or self.on_new_line():
            self.fail("`)` is missing at the end of the condition", offset=self.tokens.ends[self.at - 1])
        if self.kind in ("=", "==") or self.kind in ASSIGNMENTS:
            self.fail(f"{self.shown()} has no variable on its left", self.guess_operator())
        if self.kind in ("&", "|"):
            self.fail(f"{self.shown()} is no part of a condition", f"did you mean `{self.kind * 2}`?")
        self.expected("`)`, `&&` or `||`", self.guess_operator())

    def parse_while(self) -> Statement:
        """Read ``while (condition) body``."""
        pos = self.pos()
        condition = self.parse_parenthesised()
        body = self.parse_loop()
        return nodes.While(condition or nodes.Truth(Int(1)), body, pos=pos)

    def parse_loop(self) -> Body:
        """Read a body in which `break` is allowed."""
        self.loops += 1
        try:
            return self.parse_body()
        finally:
            self.loops -= 1

    def parse_for(self) -> Statement:
        """Read ``for (iterator in list) body``."""
        pos = self.pos()
        self.advance()
        self.expect("(", "`(` after `for`")
        start = self.at - 1
        try:
            iterator = self.variable()
            if iterator.name not in ITERATORS:
                hint = "a `for` assigns $var(...), $avp(...) or $json(...)"
                self.error(f"${iterator.name} can not be the variable of a `for`", hint, self.before())
            if iterator.transformations:
                self.error("the variable of a `for` has no transformations", offset=self.before())
            if not self.word("in"):
                self.expected("`in`", "write for ($var(x) in $(avp(y)[*]))")
            sequence = self.variable()
            if sequence.index != "*":
                hint = "the list has the index [*]: $(avp(x)[*])"
                self.error("a `for` runs over all values of a variable", hint, self.before())
            self.expect(")")
        except Lost:
            self.skip_parentheses(start)
            iterator = sequence = Variable("var", "")
        return nodes.For(iterator, sequence, self.parse_loop(), pos=pos)

    def before(self) -> int:
        """The offset of the token just passed."""
        return self.tokens.starts[self.at - 1]

    def parse_switch(self) -> Statement:
        """Read ``switch ($x) { case 1: ... default: ... }``."""
        pos = self.pos()
        self.advance()
        self.expect("(", "`(` after `switch`")
        start = self.at - 1
        try:
            if self.kind != "VAR":
                hint = "only a variable can stand here: assign what you test to a $var first"
                self.expected("a variable", hint)
            subject = self.variable()
            self.expect(")")
        except Lost:
            self.skip_parentheses(start)
            subject = Variable("var", "")
        brace = self.offset
        self.expect("{")
        self.loops += 1
        try:
            cases, default = self.parse_cases()
        finally:
            self.loops -= 1
        if self.kind == "}":
            self.advance()
        else:
            self.error(f"this `{{` has no `}}` before {self.shown()}", offset=brace)
        if not cases:
            self.error("a switch needs at least one case", offset=brace)
        return nodes.Switch(subject, cases, default, pos=pos)

    def parse_cases(self) -> tuple[tuple[nodes.Case, ...], Body | None]:
        """Read the cases of a switch, and its default."""
        cases: list[nodes.Case] = []
        default: Body | None = None
        while self.kind not in ("}", "EOF"):
            pos, start = self.pos(), self.offset
            try:
                if self.word("case"):
                    value = self.parse_case_value()
                    self.expect(":")
                    body = self.parse_statements(switch=True)
                    if default is not None:
                        self.error("a case after `default`", "`default` must be the last", start)
                    cases.append(nodes.Case(value, body, pos=pos))
                elif self.word("default"):
                    self.expect(":")
                    body = self.parse_statements(switch=True)
                    if default is not None:
                        self.error("a switch has one `default`", offset=start)
                    default = body
                elif self.opens_route():
                    break
                else:
                    self.expected("`case`, `default` or `}`")
            except Lost:
                self.skip_statement()
        return tuple(cases), default

    def parse_case_value(self) -> Int | Str:
        """Read the constant of a case."""
        if self.kind == "STR":
            value: Int | Str = self.string()
        elif self.at_integer():
            value = self.integer()
        else:
            hint = f'a text stands in quotes: case "{self.value}"' if self.kind == "ID" else ""
            self.expected("a number or a string after `case`", hint)
        return value

    # ---- leaving ----

    def parse_break(self) -> Statement:
        """Read ``break;``."""
        pos, start = self.pos(), self.offset
        self.advance()
        if not self.loops:
            self.error("`break` outside of while, for and switch", offset=start)
        self.end_statement()
        return nodes.Break(pos=pos)

    def parse_exit(self) -> Statement:
        """Read ``exit;`` or ``exit();``, and the same with drop."""
        pos, word = self.pos(), self.value
        self.advance()
        if self.accept("(") and not self.accept(")"):
            self.fail(f"`{word}` takes no value", "return(...) does")
        self.end_statement()
        return nodes.Exit(pos=pos) if word == "exit" else nodes.Drop(pos=pos)

    def parse_return(self) -> Statement:
        """Read ``return;``, ``return code;`` or ``return(code, values...);``."""
        pos = self.pos()
        self.advance()
        code: Int | Variable | None = None
        values: list[Int | Str | Variable | Null] = []
        if self.kind != "(":
            if self.kind not in (";", "}", "EOF"):
                code = self.parse_code()
            self.end_statement()
            return nodes.Return(code, pos=pos)
        self.advance()
        if self.kind not in (",", ")"):
            code = self.parse_code()
        while self.accept(","):
            if self.kind == "NULL":
                values.append(Null(pos=self.pos()))
                self.advance()
            elif self.kind in (",", ")"):
                self.fail("a value of return() can not be left empty", "write NULL")
            else:
                value = self.parse_argument("return")
                assert value is not None
                values.append(value)
        if self.kind != ")":
            self.argument_end_fault("return")
        self.advance()
        self.end_statement()
        return nodes.Return(code, tuple(values), pos=pos)

    def parse_code(self) -> Int | Variable:
        """Read a return code."""
        if self.kind == "VAR":
            return self.variable()
        if self.at_integer():
            return self.integer()
        hint = ""
        if self.kind == "STR":
            hint = f'values follow after a comma: return(1, {self.tokens.text(self.at)})'
        elif self.kind == "ID":
            hint = "assign the result to a $var first"
        self.expected("a number or a variable after `return`", hint)

    # ---- the rest ----

    def parse_assert(self) -> Statement:
        """Read ``assert(condition, "message");``."""
        pos = self.pos()
        self.advance()
        self.expect("(", "`(` after `assert`")
        condition = self.parse_condition()
        message = ""
        if self.accept(","):
            message = self.string().value
        self.expect(")")
        self.end_statement()
        return nodes.Assert(condition, message, pos=pos)

    def parse_async(self) -> Statement:
        """Read ``async(call(...), resume, timeout);``."""
        pos = self.pos()
        call = self.parse_started("async")
        if not self.accept(","):
            hint = "write async(call(...), resume_route)"
            self.expected("`,` and the name of the route to resume in", hint)
        resume = self.parse_fixed_route()
        timeout: int | None = None
        if self.accept(","):
            timeout = self.expect("NUM", "the timeout in seconds")
        self.expect(")")
        self.end_statement()
        return nodes.Async(call, resume, timeout, pos=pos)

    def parse_launch(self) -> Statement:
        """Read ``launch(call(...), report, "parameter");``."""
        pos = self.pos()
        call = self.parse_started("launch")
        report: str | nodes.Format | None = None
        parameter: nodes.Format | None = None
        if self.accept(","):
            report = self.parse_fixed_route()
            if self.accept(","):
                parameter = self.format(self.string())
        self.expect(")")
        self.end_statement()
        return nodes.Launch(call, report, parameter, pos=pos)

    def parse_fixed_route(self) -> str | nodes.Format:
        """Read the name of a route that no variable can stand for, only a string with variables."""
        if self.kind == "VAR":
            self.fail("the name of the route can not be a variable", f'put it in quotes: "{self.value}"')
        name = self.parse_route_name()
        assert not isinstance(name, Variable)
        return name

    def parse_started(self, word: str) -> nodes.Call:
        """Read the word, the parenthesis and the call that async or launch starts."""
        self.advance()
        self.expect("(", f"`(` after `{word}`")
        if self.kind != "ID" or self.following() != "(":
            self.expected(f"a call inside {word}()", f"write {word}(exec(...), route_name)")
        if self.value in STATEMENTS:
            self.fail(f"`{self.value}` is a statement; {word}() starts a function of a module")
        pos, name = self.pos(), self.value
        self.advance()
        return nodes.Call(name, self.parse_arguments(name), pos=pos)

    def parse_error(self) -> Statement:
        """Read ``error("code", "text");``."""
        pos = self.pos()
        self.advance()
        self.expect("(")
        code = self.string().value
        self.expect(",")
        text = self.string().value
        self.expect(")")
        self.end_statement()
        return nodes.Error(code, text, pos=pos)

    def parse_stray_else(self) -> Statement:
        """Note an else that belongs to no if."""
        ended = self.tokens.kinds[self.at - 1] == ";"
        hint = "the `;` before it has ended the if; a block before `else` takes no `;`" if ended else ""
        self.fail("`else` without an `if`", hint)

    def parse_stray_case(self) -> Statement:
        """Note a case outside of a switch."""
        self.fail(f"`{self.value}` outside of a switch")

    keywords: dict[str, Callable[[Statements], Statement]] = {
        "if": parse_if,
        "while": parse_while,
        "for": parse_for,
        "switch": parse_switch,
        "break": parse_break,
        "exit": parse_exit,
        "drop": parse_exit,
        "return": parse_return,
        "assert": parse_assert,
        "async": parse_async,
        "launch": parse_launch,
        "error": parse_error,
        "else": parse_stray_else,
        "case": parse_stray_case,
        "default": parse_stray_case,
    }
