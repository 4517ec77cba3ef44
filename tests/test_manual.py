"""The manual says what the modules export, all of it."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.catalogue import core_modules, module_classes
from sipgw.manual import pages


class PageTests(SynchronousTestCase):
    """Pages made from the classes."""

    def test_complete(self):
        """Each module has a page with every function, parameter, variable and statistic, each with some words."""
        made = pages()
        self.assertEqual(set(made), {"core", *module_classes()})
        for name, module in [*module_classes().items(), *(("core", each) for each in core_modules().values())]:
            symbols = module.declared()
            names = [*module.exports.parameters, *(f"{f.name}(" for f in symbols.functions), *(v.name for v in symbols.variables)]
            for each in names:
                self.assertIn(each, made[name])
        empty = [line for text in made.values() for line in text.splitlines() if line.startswith("- ") and line.endswith(": ")]
        self.assertEqual(empty, [])

    def test_tm(self):
        """One page, looked at."""
        page = pages()["tm"]
        self.assertIn("- `t_relay([flags: str], [outbound_proxy: str])` (route, failure_route; may wait): Relay", page)
        self.assertIn("- **fr_timeout** (int, default `30`): Seconds to wait", page)
        self.assertIn("- `$T_reply_code` (read): ", page)

    def test_commands(self):
        """What a command does is said to the end of the sentence, over as many lines of its docstring as that takes."""
        self.assertIn("the other one is hung up on. ``dialog_id``: the key of the session", pages()["b2b_logic"])
