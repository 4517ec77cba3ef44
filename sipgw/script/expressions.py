"""Values and conditions: two grammars that share comparisons, calls and assignments.

Conditions (after `if`, `while`, `assert`): ``&&`` and ``||`` are one level, from the left; ``!`` takes what a
comparison has already made. Values (right of an assignment, inside ``[ ]``): ``& | ^ << >>`` are one level,
``+ - * / %`` a tighter one, both from the left; ``~`` is tighter still, and a comparison the tightest,
with one variable on its left and no arithmetic on its right: ``$x == 1 + 2`` is ``($x == 1) + 2``.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NoReturn

from sipgw.script import nodes
from sipgw.script.cursor import Cursor
from sipgw.script.errors import ScriptError, guess
from sipgw.script.lexer import wrap
from sipgw.script.nodes import Argument, Assign, Call, Condition, Int, IpNet, Null, RouteCall, Value, Variable

MAX_ARGUMENTS = 8
"""How many parameters a function may be given (OpenSIPS: MAX_ACTION_ELEMS less one)."""

COMPARISONS = frozenset(("==", "!=", "<", ">", "<=", ">=", "=~", "!~"))
ASSIGNMENTS = frozenset(("=", ":=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^="))
SUMS = frozenset("+-*/%")
BITS = frozenset(("&", "|", "^", "<<", ">>"))

LEVELS = {"A": -3, "C": -2, "E": -1, "W": 1, "N": 2, "I": 3, "D": 4}
"""The letter after ``L_`` that tells the level of a log line: alert, critical .. debug."""

OLD_CONDITIONS = {
    "method": 'write is_method("INVITE") or $rm == "INVITE"',
    "uri": 'write $ru =~ "..." or, for `uri==myself`, is_myself("$rd")',
    "from_uri": 'write $fu =~ "..." or, for myself, is_myself("$fd")',
    "to_uri": 'write $tu =~ "..." or, for myself, is_myself("$td")',
    "src_ip": "write $si == 10.0.0.1 or, for myself, is_myself($si)",
    "dst_ip": 'write $socket_in(ip) == "10.0.0.1"',
    "src_port": "write $sp == 5060",
    "dst_port": "write $socket_in(port) == 5060",
    "proto": 'write $socket_in(proto) == "udp"',
    "af": 'write $socket_in(af) == "INET"',
    "msg": "write $ml > 2000",
    "status": 'write $rs == "404" or t_check_status("404")',
    "retcode": "write $rc == 1",
    "myself": 'write is_myself("$rd")',
    "max_len": "write $ml > 2000",
}
"""The bare words that conditions knew before 3.0."""


class Expressions(Cursor):
    """The part of the parser that reads conditions, values and calls."""

    # ---- conditions ----

    def parse_condition(self) -> Condition:
        """Read a condition up to where no `&&` or `||` goes on."""
        pos = self.pos()
        left = self.parse_operand()
        while self.kind == "&&" or self.kind == "||":
            kind = nodes.And if self.kind == "&&" else nodes.Or
            self.advance()
            left = kind(left, self.parse_operand(), pos=pos)
        return left

    def parse_operand(self) -> Condition:
        """Read what stands between `&&` and `||`."""
        kind = self.kind
        if kind == "VAR":
            return self.parse_test()
        pos = self.pos()
        if kind == "!":
            self.advance()
            with self.nested():
                return nodes.Not(self.parse_operand(), pos=pos)
        if kind == "(":
            self.advance()
            with self.nested():
                condition = self.parse_condition()
            if self.kind != ")":
                self.expected("`)`, `&&` or `||`", self.guess_operator())
            self.advance()
            return condition
        if kind == "[":
            self.advance()
            value = self.parse_value()
            self.expect("]", "`]` after the arithmetic")
            return nodes.Test(value, pos=pos)
        if self.at_integer():
            return nodes.Truth(self.integer(), pos=pos)
        if kind == "ID":
            return self.parse_call_test()
        if kind == "STR":
            self.fail("a string is no condition", "the variable stands on the left: $rU == \"alice\"")
        if kind == "NULL":
            self.fail("NULL is no condition", "compare with it: $var(x) == NULL")
        if kind == "~":
            self.fail("`~` computes a value; it is no condition", "put it in brackets: [ ~$var(x) ]")
        self.expected("a condition")

    def parse_test(self) -> Condition:
        """Read a variable, a comparison with it on the left, or an assignment to it."""
        pos = self.pos()
        variable = self.variable()
        if self.kind in COMPARISONS:
            return self.parse_compare(variable, False)
        if self.kind in ASSIGNMENTS:
            return nodes.AssignTest(self.parse_assign(variable), pos=pos)
        if self.kind in SUMS or self.kind in BITS:
            hint = "arithmetic stands in brackets: [ $var(x) + 1 ], or is assigned to a $var first"
            self.fail(f"{self.shown()} is no part of a condition", hint)
        return nodes.Truth(variable, pos=pos)

    def parse_call_test(self) -> Condition:
        """Read a call as condition; refuse the bare words of old releases with what to write instead."""
        pos, word = self.pos(), self.value
        if self.following() != "(":
            if word in OLD_CONDITIONS:
                self.fail(f"`{word}` is no condition any more", OLD_CONDITIONS[word])
            self.fail(f"the bare word `{word}` is no condition", self.bare_word(word))
        if word in ("exit", "drop", "return"):
            self.fail(f"`{word}` is no condition")
        call = self.parse_call()
        if self.kind in COMPARISONS:
            hint = "test the call itself, or assign it: $var(rc) = " + f"{word}(...)"
            self.fail("the left side of a comparison is a variable, not a call", hint)
        return nodes.CallTest(call, pos=pos)

    def bare_word(self, word: str) -> str:
        """Guess what a word without parentheses was meant to be."""
        if self.following() in COMPARISONS or self.following() in ASSIGNMENTS:
            return f"a variable begins with a dollar: $var({word})"
        return f"a call needs parentheses: {word}()"

    # ---- comparisons and assignments, in conditions and in values ----

    def parse_compare(self, left: Variable, arithmetic: bool) -> nodes.Compare:
        """Read the operator and the right side; ``arithmetic``: the comparison stands in a value."""
        op = self.value
        self.advance()
        right: Variable | nodes.Str | Int | Null | IpNet
        kind = self.kind
        if kind == "VAR":
            right = self.variable()
        elif kind == "STR":
            right = self.string()
        elif op in ("=~", "!~"):
            self.expected(f"a string or a variable after `{op}`")
        elif self.at_integer():
            right = self.integer()
        elif kind in ("NULL", "IP", "NET"):
            if op not in ("==", "!="):
                self.fail(f"`{op}` cannot compare with {self.shown()}", "only == and != can")
            right = Null(pos=self.pos()) if kind == "NULL" else IpNet(self.network(), pos=self.pos())
            self.advance()
        else:
            self.compare_fault()
        if not arithmetic and (self.kind in SUMS or self.kind in BITS):
            hint = "compute the right side into a $var first"
            self.fail("the right side of a comparison is no arithmetic", hint)
        if self.kind in ("STR", "."):
            self.fail(f"{self.shown()} after the right side of a comparison", self.guess_operator())
        return nodes.Compare(op, left, right, pos=left.pos)

    def compare_fault(self) -> NoReturn:
        """Note what is wrong on the right of a comparison."""
        if self.kind == "ID":
            if self.following() == "(":
                hint = "assign its result to a $var first"
                self.fail("the right side of a comparison cannot be a call", hint)
            hint = f'a text stands in quotes: "{self.value}"'
            if self.value == "myself":
                hint = 'write is_myself("$rd")'
            self.fail(f"the bare word `{self.value}` on the right of a comparison", hint)
        if self.kind == "BAD" and "." in self.value:
            self.fail(f"{self.shown()} is no number and no address", "an address has four parts")
        self.expected("a variable, a string or a number")

    def network(self) -> IPv4Network | IPv6Network:
        """Read the address or the network of this token. A netmask may have holes in OpenSIPS, not here."""
        address, slash, mask = self.value.partition("/")
        try:
            host = ip_address(address)
            if not slash:
                return ip_network(host)
            bits = int(mask) if mask.isdigit() else _bits(ip_address(mask), host)
            return ip_network(f"{host}/{bits}", strict=False)
        except ValueError as problem:
            self.fail(f"{self.shown()} is no address or network: {problem}")

    def parse_assign(self, target: Variable) -> Assign:
        """Read the operator and the value of an assignment."""
        op = self.value
        self.advance()
        if target.transformations:
            self.error("what is assigned to has no transformations", offset=self.tokens.starts[self.at - 2])
        value: Value | Null
        if self.kind == "NULL":
            if op not in ("=", ":="):
                self.error(f"NULL can not stand after `{op}`", "only `=` and `:=` take it")
            value = Null(pos=self.pos())
            self.advance()
        else:
            value = self.parse_value()
        return Assign(target, op, value, pos=target.pos)

    # ---- values ----

    def parse_value(self) -> Value:
        """Read a value: the loosest operators are those on bits."""
        pos = self.pos()
        left = self.parse_sum()
        while self.kind in BITS:
            op = self.value
            self.advance()
            left = nodes.Binary(op, left, self.parse_sum(), pos=pos)
        return left

    def parse_sum(self) -> Value:
        """Read terms that `+ - * / %` join, from the left and all on one level."""
        pos = self.pos()
        left = self.parse_term()
        while self.kind in SUMS:
            op = self.value
            if isinstance(left, nodes.Compare) and self.tokens.kinds[self.at - 1] != ")":
                hint = "parentheses make it clear: ($a == $b) + 1"
                self.tokens.warn(self.offset, f"the comparison comes before the `{op}`", hint)
            self.advance()
            left = nodes.Binary(op, left, self.parse_term(), pos=pos)
        return left

    def parse_term(self) -> Value:
        """Read one operand of arithmetic."""
        kind = self.kind
        if kind == "VAR":
            variable = self.variable()
            return self.parse_compare(variable, True) if self.kind in COMPARISONS else variable
        if self.at_integer():
            number = self.integer()
            return number if number.value >= 0 else Int(wrap(number.value), pos=number.pos)
        if kind == "STR":
            return self.string()
        pos = self.pos()
        if kind == "(":
            self.advance()
            with self.nested():
                value = self.parse_value()
            if self.kind != ")":
                self.expected("`)`", self.guess_operator())
            self.advance()
            return value
        if kind == "~":
            self.advance()
            with self.nested():
                return nodes.Invert(self.parse_term(), pos=pos)
        if kind == "ID":
            if self.following() == "(" and self.value not in ("exit", "drop", "return"):
                return self.parse_call()
            word = self.value
            hint = f'write "{word}" for a text, {word}() for a call'
            self.fail(f"the bare word `{word}` is no value", hint)
        self.value_fault()

    def value_fault(self) -> NoReturn:
        """Note what is wrong where a value was expected."""
        kind = self.kind
        if kind in ("-", "+") and self.following() == "VAR":
            self.fail(f"`{kind}` stands only before a number", "write 0 - $var(x)")
        if kind == "!":
            self.fail("`!` stands only in conditions", "compare: $x = ($y == 0)")
        if kind == "NULL":
            self.fail("NULL stands alone on the right of an assignment")
        if kind == "BAD":
            self.fail(f"{self.shown()} is no number", "numbers have no fraction; a text stands in quotes")
        if kind in ("IP", "NET"):
            self.fail("an address is no value", f'a text stands in quotes: "{self.tokens.text(self.at)}"')
        self.expected("a value")

    # ---- calls ----

    def parse_call(self) -> Call | RouteCall | nodes.Log | nodes.Xlog:
        """Read a call; the name is known to be followed by `(`."""
        word = self.value
        if word == "route":
            return self.parse_route_call()
        if word == "xlog" or word == "xdbg":
            return self.parse_xlog()
        if word == "log":
            return self.parse_log()
        pos = self.pos()
        self.advance()
        return Call(word, self.parse_arguments(word), pos=pos)

    def parse_arguments(self, name: str) -> tuple[Argument, ...]:
        """Read the arguments in their parentheses. One left empty is None."""
        self.expect("(")
        if self.accept(")"):
            return ()
        arguments: list[Argument] = []
        while True:
            if self.kind == "," or self.kind == ")":
                arguments.append(None)
            else:
                arguments.append(self.parse_argument(name))
            if self.kind == ",":
                self.advance()
                continue
            if self.kind == ")":
                self.advance()
                break
            self.argument_end_fault(name)
        if len(arguments) > MAX_ARGUMENTS:
            self.error(f"{name}() has {len(arguments)} parameters; {MAX_ARGUMENTS} are the most")
        return tuple(arguments)

    def parse_argument(self, name: str) -> Argument:
        """Read one argument: a string, a number or a variable."""
        kind = self.kind
        if kind == "STR":
            return self.string()
        if kind == "VAR":
            return self.variable()
        if self.at_integer():
            return self.integer()
        if kind == "ID":
            if self.following() == "(":
                hint = f"calls do not nest: assign {self.value}(...) to a $var first"
                self.fail(f"the call {self.value}() stands inside {name}()", hint)
            self.fail(f"the bare word `{self.value}` inside {name}()", self.quoted())
        if kind == "NULL":
            self.fail(f"NULL cannot be given to {name}()", "leave an optional parameter empty instead")
        if kind in ("IP", "NET", "BAD"):
            self.fail(f"{self.shown()} inside {name}()", self.quoted())
        self.expected(f"a parameter of {name}()")

    def quoted(self) -> str:
        """Guess that everything up to the next comma or parenthesis should be in quotes."""
        text, start = self.source.text, self.offset
        end = start
        while end < len(text) and text[end] not in ',)"\'\n;':
            end += 1
        return f'a text stands in quotes: "{text[start:end].strip()}"'

    def argument_end_fault(self, name: str) -> NoReturn:
        """Note what is wrong after an argument."""
        if self.kind in SUMS or self.kind in BITS or self.kind in COMPARISONS:
            hint = "a parameter is one string, number or variable; compute into a $var first"
            self.fail(f"{self.shown()} inside the parameters of {name}()", hint)
        if self.kind == "STR":
            hint = "a comma is missing; only xlog and modparam join strings that stand side by side"
            self.fail(f"two strings side by side inside {name}()", self.suspect_string() or hint)
        if self.kind in (";", "{", "}", "EOF"):
            end = self.tokens.ends[self.at - 1]
            self.fail(f"`)` is missing at the end of {name}(...)", self.suspect_string(), offset=end)
        self.expected(f"`,` or `)` inside {name}()", self.guess_operator())

    def parse_route_call(self) -> RouteCall:
        """Read ``route(name, arguments...)``; its arguments are never expanded."""
        pos = self.pos()
        self.advance()
        self.expect("(")
        name = self.parse_route_name()
        arguments: list[Int | nodes.Str | Variable | Null] = []
        while self.accept(","):
            if self.kind == "NULL":
                arguments.append(Null(pos=self.pos()))
                self.advance()
                continue
            if self.kind in (",", ")"):
                self.fail("an argument of route() can not be left empty", "write NULL")
            argument = self.parse_argument("route")
            assert argument is not None
            arguments.append(argument)
        if self.kind != ")":
            self.argument_end_fault("route")
        self.advance()
        return RouteCall(name, tuple(arguments), pos=pos)

    def parse_route_name(self) -> str | Variable | nodes.Format:
        """Read the name of a route to go to: a word, a number, a string, or what a variable holds."""
        if self.kind == "VAR":
            return self.variable()
        if self.kind == "STR" and "$" in self.value:
            return self.format(self.string())
        return self.constant_route_name()

    def constant_route_name(self) -> str:
        """Read a name that is fixed. A number is its decimal digits: on, 1 and 0x1 are the same route."""
        if self.kind not in ("ID", "NUM", "STR"):
            self.expected("the name of a route")
        name = str(self.value)
        if not name:
            self.fail("the name of a route is empty")
        self.advance()
        if self.kind in ("-", ".") and self.tokens.ends[self.at - 1] == self.offset:
            self.fail(f"{self.shown()} inside the name of a route", "put the name in quotes")
        return name

    # ---- the log statements ----

    def parse_xlog(self) -> nodes.Xlog:
        """Read ``xlog([level,] format)`` or ``xdbg(format)``; strings side by side are joined."""
        pos, name = self.pos(), self.value
        self.advance()
        self.expect("(")
        if self.kind == "VAR":
            hint = f'put it in quotes: {name}("{self.value}\\n")'
            self.fail(f"{name}() takes a string, not a variable", hint)
        if self.kind == "ID" and self.value.startswith("L_"):
            self.fail("the level of a log line is a string", f'write "{self.value}"')
        first = self.strings()
        if name == "xlog" and self.accept(","):
            level = self.log_level(first)
            text = self.strings()
        else:
            level, text = (4 if name == "xdbg" else None), first
        if self.kind != ")":
            self.argument_end_fault(name)
        self.advance()
        return nodes.Xlog(self.format(text), level, pos=pos)

    def log_level(self, string: nodes.Str) -> int | Variable | None:
        """Read the level of xlog: "L_ERR" and the like, or one variable."""
        text = string.value
        if text.startswith("L_") and text[2:3] in LEVELS:
            return LEVELS[text[2]]
        if text.startswith("$"):
            pieces = self.format(string).pieces
            if len(pieces) == 1 and isinstance(pieces[0], Variable):
                return pieces[0]
        names = ("L_ALERT", "L_CRIT", "L_ERR", "L_WARN", "L_NOTICE", "L_INFO", "L_DBG")
        hint = guess(text, names) or "the levels are " + ", ".join(names)
        self.errors.append(ScriptError(*string.pos, f"{text!r} is no level of a log line", hint))
        return None

    def parse_log(self) -> nodes.Log:
        """Read ``log([level,] "text")``: one string, nothing is expanded."""
        pos = self.pos()
        self.advance()
        self.expect("(")
        level: int | None = None
        if self.at_integer():
            level = self.integer().value
            self.expect(",")
        text = self.string()
        if self.kind == "STR":
            self.fail("log() takes one string", "xlog joins strings that stand side by side")
        if self.kind != ")":
            hint = "log takes a number as level; xlog takes \"L_ERR\"" if self.kind == "," else ""
            self.expected("`)`", hint)
        self.advance()
        return nodes.Log(text.value, level, pos=pos)


def _bits(mask: IPv4Address | IPv6Address, host: IPv4Address | IPv6Address) -> int:
    """Count the bits of a netmask."""
    bits = bin(int(mask))[2:].zfill(mask.max_prefixlen)
    if mask.version != host.version or "01" in bits:
        raise ValueError(f"{mask} is no netmask for {host}")
    return bits.count("1")

