"""Tests for `sipgw.script.symbols`."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.symbols import (
    Function,
    Kind,
    ModuleSymbols,
    Parameter,
    RouteKind,
    Symbols,
    Variable,
)

ONE = Function("lookup", "old", (Parameter("domain", Kind.STR),))
THREE = Function(
    "lookup",
    "old",
    (Parameter("a", Kind.STR), Parameter("b", Kind.STR, optional=True), Parameter("c", Kind.INT)),
)


class SymbolsTests(SynchronousTestCase):
    """The lookup tables of one configuration."""

    def test_overloads(self):
        """A call picks the function of that name which takes so many arguments, else the first."""
        symbols = Symbols.of([ModuleSymbols("old", functions=(ONE, THREE))])
        table = [(0, ONE), (1, ONE), (2, ONE), (3, THREE), (4, ONE)]
        for arguments, expected in table:
            self.assertIs(symbols.function("lookup", arguments), expected, str(arguments))
        self.assertIsNone(symbols.function("locate", 1))

    def test_required(self):
        """An optional parameter before one that is not still has to be written."""
        self.assertEqual([ONE.required, THREE.required, Function("f", "m").required], [1, 3, 0])

    def test_two_variables(self):
        """$branch and $branch(name) are two variables."""
        plain = Variable("branch", setter=print)
        named = Variable("branch", takes_name=True, takes_index=True)
        symbols = Symbols.of([ModuleSymbols("core", variables=(plain, named))])
        self.assertIs(symbols.variable("branch", False), plain)
        self.assertIs(symbols.variable("branch", True), named)
        self.assertTrue(plain.writable)
        self.assertFalse(named.writable)

    def test_any(self):
        """ANY is every kind of route there is."""
        for kind in RouteKind:
            self.assertIn(kind, RouteKind.ANY)
