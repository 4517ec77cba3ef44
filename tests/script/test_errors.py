"""Tests for `sipgw.script.errors`."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.errors import ScriptError, ScriptErrors, ScriptWarning, guess


class ErrorTests(SynchronousTestCase):
    """What is shown of an error."""

    def test_render(self):
        """The line, a caret below the column (tabs count as one), the hint and the includes."""
        error = ScriptError("b.cfg", 3, 4, "wrong", "write right", "\t\t wrong")
        error.included = [("a.cfg", 7)]
        self.assertEqual(str(error), "b.cfg:3:4: wrong")
        self.assertEqual(
            error.render(),
            "b.cfg:3:4: wrong\n       wrong\n       ^\n    hint: write right\n    included at a.cfg:7",
        )
        self.assertEqual(ScriptWarning("a", 1, 2, "odd").render(), "a:1:2: odd")

    def test_long_line(self):
        """Of a long line the part around the place is shown, with the caret below it."""
        line = "".join(f"{n:04d}," for n in range(200))
        for column, cut in [(1, "0000,"), (501, "0100,"), (996, "0199,")]:
            _, shown, caret = ScriptError("a", 1, column, "odd", excerpt=line).render().split("\n")
            self.assertLess(len(shown), 170)
            self.assertEqual(shown[caret.index("^"):].partition(" ")[0][:5], cut)
        self.assertEqual((shown[:8], shown[-5:]), ("    ... ", "0199,"))

    def test_several(self):
        """ScriptErrors shows all of them."""
        errors = ScriptErrors([ScriptError("a", 1, 1, "x"), ScriptError("a", 2, 1, "y")])
        self.assertEqual(str(errors), "a:1:1: x\na:2:1: y")
        self.assertEqual(errors.warnings, [])

    def test_guess(self):
        """Swapped letters first, then likeness, then capitals; nothing for what is far away."""
        table = [
            ("t_realy", ["t_reply", "t_relay"], "did you mean `t_relay`?"), ("udp", [], ""),
            ("upd", ["tcp", "udp"], "did you mean `udp`?"), ("recrod_route", ["record_route"], "`record_route`"),
            ("XLOG", ["xlog"], "did you mean `xlog`?"), ("banana", ["xlog"], ""),
        ]
        for word, known, expected in table:
            self.assertIn(expected, guess(word, known), word)
            self.assertEqual(bool(guess(word, known)), bool(expected), word)
