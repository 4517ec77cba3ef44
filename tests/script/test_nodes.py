"""Tests for `sipgw.script.nodes`."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.script import nodes
from sipgw.script.nodes import NOWHERE, Call, Config, Exit, Format, If, Int, LoadModule, Pos, Route, Str
from sipgw.script.symbols import RouteKind


class NodesTests(SynchronousTestCase):
    """The tree."""

    def test_walk(self):
        """walk yields parents before children, in the order of the file."""
        variable = nodes.Variable("rU", None)
        tree = If(nodes.Truth(variable), (Call("f", (Int(1), None, Str("a"))),), (Exit(),))
        names = [type(node).__name__ for node in nodes.walk(tree)]
        self.assertEqual(names, ["If", "Truth", "Variable", "Call", "Int", "Str", "Exit"])

    def test_position_is_no_content(self):
        """Trees that stand at different places are equal."""
        self.assertEqual(Int(1, pos=Pos("a", 3, 4)), Int(1))
        self.assertEqual(str(Pos("a.cfg", 3, 4)), "a.cfg:3:4")

    def test_items(self):
        """A Config sorts its items by kind and keeps their order."""
        route = Route(RouteKind.REQUEST, "0", ())
        first, second = LoadModule("tm", "tm.so"), LoadModule("sl", "sl.so")
        config = Config((first, route, second))
        self.assertEqual(config.modules, (first, second))
        self.assertEqual(config.routes, (route,))
        self.assertEqual(config.sockets + config.settings + config.modparams, ())

    def test_constant(self):
        """Only a Format without variables is constant."""
        table = [((), ""), (("a",), "a"), (("a", nodes.Variable("ru")), None)]
        for pieces, expected in table:
            self.assertEqual(Format(pieces, pos=NOWHERE).constant, expected)
