"""Tests of sipgw.exports: what a module class declares, and what is refused."""

from __future__ import annotations

from typing import Annotated, Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw import exports
from sipgw.exports import (
    FAILURE,
    REQUEST,
    ArgumentKind,
    Avp,
    Constant,
    HeaderText,
    Misdeclared,
    Module,
    Readable,
    Writable,
    function,
    listed,
    mi,
    param,
    pvar,
    statistic,
)
from sipgw.script.symbols import Kind, ParamKind, RouteKind


class Greylist(Module):
    """Makes first-time callers wait ``period`` seconds before they are let through."""

    name = "greylist"
    depends = ("tm",)

    period: int = param(300, "How long a new caller waits, in seconds")
    refused = statistic("requests turned away")
    known = statistic("callers known", read="count")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.since: dict[str, float] = {}

    @function(REQUEST | FAILURE)
    def greylist_pass(self, run: Any, caller: str, left: Writable | None = None) -> bool:
        """True once ``caller`` has waited."""
        self.since.setdefault(caller, 0.0)
        self.refused.inc()
        return False

    @function(REQUEST)
    async def greylist_load(self, run: Any, table: Constant, group: Annotated[int, abs] = 0) -> int:
        """Load a table."""
        return 1

    @pvar("grey_callers")
    def grey_callers(self, run: Any) -> int:
        """``$grey_callers``: how many callers are known."""
        return len(self.since)

    @mi(alias="grey_forget")
    def forget(self, caller: str, all: int = 0) -> int:
        """Drop one caller."""
        return 1 if self.since.pop(caller, None) is not None else 0

    def count(self) -> int:
        """How many callers are known."""
        return len(self.since)


class DeclaredTests(SynchronousTestCase):
    """What the compiler sees of a module."""

    def test_functions(self) -> None:
        """Annotations become parameter kinds, results and routes."""
        wait, load = Greylist.declared().functions
        self.assertEqual(
            [(p.name, p.kind, p.optional) for p in wait.parameters],
            [("caller", Kind.STR, False), ("left", Kind.WRITABLE, True)],
        )
        self.assertEqual(
            (wait.routes, wait.returns, wait.waits), (RouteKind.REQUEST | RouteKind.FAILURE, "bool", False)
        )
        self.assertEqual([p.kind for p in load.parameters], [Kind.STATIC, Kind.INT])
        self.assertEqual((load.returns, load.waits, load.parameters[1].check), ("int", True, abs))

    def test_optional_in_the_middle(self) -> None:
        """``T | None`` is optional even where the parameters after it are not; guarded text is marked."""

        class Middle(Module):
            """Has an optional parameter before a needed one."""

            @function()
            def build(self, run: Any, one: str | None, two: HeaderText, three: HeaderText | None) -> bool:
                """Build."""
                return one is None

        (build,) = Middle.declared().functions
        self.assertEqual([(p.kind, p.optional, p.guarded) for p in build.parameters],
                         [(Kind.STR, True, False), (Kind.STR, False, True), (Kind.STR, True, True)])
        self.assertEqual(build.required, 2)

    def test_variables(self) -> None:
        """A parameter may be any variable that is read, or an AVP; a variable's name in parentheses may be checked."""

        class Lists(Module):
            """Takes lists."""

            name = "lists"

            @function()
            def count(self, run: Any, some: Readable, names: Avp | None = None) -> int:
                """Count."""
                return len(listed(some, run))

            @pvar("digit", named=True, check=int)
            def digit(self, run: Any, name: str) -> int:
                """``$digit(name)``."""
                return int(name)

        declared = Lists.declared()
        self.assertEqual(
            [(p.kind, p.variable, p.optional) for p in declared.functions[0].parameters],
            [(Kind.VAR, "", False), (Kind.WRITABLE, "avp", True)],
        )
        self.assertIs(declared.variables[0].check, int)
        self.assertEqual(declared.variables[0].module, "lists")

    def test_bound(self) -> None:
        """An instance gives functions that run on it, and statistics that count."""
        module = Greylist()
        call = module.declared(module).functions[0].call
        assert call is not None
        self.assertIs(call(None, "sip:a@b"), False)
        self.assertEqual((module.refused.read(), module.known.read()), (1, 1))

    def test_parameters(self) -> None:
        """Modparams have their defaults and take values; an unknown one is refused."""
        module = Greylist(period=5)
        self.assertEqual((module.period, Greylist().period), (5, 300))
        self.assertEqual(Greylist.declared().parameters[0].kind, ParamKind.INT)
        self.assertRaises(KeyError, module.set_parameter, "nosuch", 1)

    def test_commands(self) -> None:
        """A command knows its names, its help and its recipes."""
        (command,) = Greylist().commands()
        self.assertEqual(
            (command.full, command.aliases, command.help), ("greylist:forget", ("grey_forget",), "Drop one caller.")
        )
        self.assertEqual(command.recipes, [["caller"], ["caller", "all"]])
        self.assertEqual(command.kinds, {"caller": ArgumentKind.STR, "all": ArgumentKind.INT})

    def test_command_names(self) -> None:
        """A command may bear another module's name and recipes of its own; ``proto_`` is not part of a name."""

        class Proto(Module):
            """A transport."""

            name = "proto_x"

            @mi(recipes=(("id",), ("pid", "id")))
            def trace(self, id: int, pid: int = 0) -> None:
                """Trace."""

            @mi("get", module="statistics")
            def get_them(self, names: list[str], rest: Any = None) -> None:
                """Get."""

        trace, get = Proto().commands()
        self.assertEqual((trace.full, get.full), ("x:trace", "statistics:get"))
        self.assertEqual(trace.recipes, [["id"], ["pid", "id"]])
        self.assertEqual(get.kinds, {"names": ArgumentKind.LIST, "rest": ArgumentKind.JSON})

    def test_depends(self) -> None:
        """What a module depends on is part of its symbols."""
        self.assertEqual(Greylist.declared().depends, ("tm",))


class RefusedTests(SynchronousTestCase):
    """Bad declarations fail when the class is made."""

    def refuse(self, body: dict[str, Any], text: str) -> None:
        error = self.assertRaises(Misdeclared, type, "Bad", (Module,), {"__module__": "x.bad", **body})
        self.assertIn(text, str(error))

    def test_no_docstring(self) -> None:
        """A class, or an export, without a docstring is refused."""
        self.refuse({}, "no docstring")

        @function()
        def bare(self: Any, run: Any) -> bool:
            return True

        self.refuse({"__doc__": "Bad.", "bare": bare}, "bad.bare has no docstring")

    def test_types(self) -> None:
        """A parameter or a result that no script can give is refused."""

        @function()
        def listed(self: Any, run: Any, values: list[str]) -> bool:
            """Take a list."""
            return True

        @function()
        def text(self: Any, run: Any) -> str:
            """Answer text."""
            return ""

        self.refuse({"__doc__": "Bad.", "listed": listed}, "no type that a script can give")
        self.refuse({"__doc__": "Bad.", "text": text}, "its result must be bool, int or None")

    def test_command(self) -> None:
        """A command whose parameter JSON cannot give, or whose recipes do not fit, is refused."""

        @mi()
        def halve(self: Any, part: float) -> None:
            """Halve."""

        @mi(recipes=((),))
        def take(self: Any, part: int) -> None:
            """Take."""

        self.refuse({"__doc__": "Bad.", "halve": halve}, "no type that a command can take")
        self.refuse({"__doc__": "Bad.", "take": take}, "recipe () does not fit")

    def test_param_type(self) -> None:
        """A modparam must be an int or a str."""
        self.refuse(
            {"__doc__": "Bad.", "p": exports.param(1.5, "x"), "__annotations__": {"p": float}}, "must be annotated"
        )
