"""Tests for `sipgw.script.load`, and of the configurations in tests/configs/ against it."""

import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.errors import ScriptErrors
from sipgw.script.load import load, module_names
from sipgw.script.nodes import Config
from sipgw.script.parser import parse
from sipgw.script.preprocess import Source, flatten
from tests.script.exported import symbols

CONFIGS = Path(__file__).parent.parent / "configs"


def read(name: str) -> str:
    return (CONFIGS / name).read_text("utf-8")


def loaded(name: str) -> tuple[Config, list[str]]:
    config, warnings = load(flatten(name, read), lambda names: symbols(*names))
    return config, [str(w) for w in warnings]


class ConfigTests(SynchronousTestCase):
    """Whole configurations."""

    def test_residential(self):
        """A residential server, without a warning."""
        config, warnings = loaded("residential.cfg")
        self.assertEqual(warnings, [])
        self.assertEqual(len(config.routes), 16)
        self.assertEqual(len(config.modules), 19)

    def test_trunking(self):
        """Trunks and failover, without a warning."""
        config, warnings = loaded("trunking.cfg")
        self.assertEqual(warnings, [])
        self.assertEqual([s.ports[0][0] for s in config.sockets], [5060, 5062])

    def test_soup(self):
        """All of the grammar: only the string that is passed to a route is worth a word."""
        config, warnings = loaded("soup.cfg")
        self.assertEqual(warnings, ["soup.cfg:19:102: $ru is not expanded in arguments of route()"])
        self.assertEqual(len(config.routes), 13)

    def test_old(self):
        """A configuration for 2.4 works, with a hint for each of its old names."""
        config, warnings = loaded("old.cfg")
        self.assertEqual(len(warnings), 32)
        self.assertIn("sqlops", [m.name for m in config.modules])
        self.assertEqual(warnings[0], "old.cfg:3:1: `debug` is now called `log_level`")

    def test_speed(self):
        """250 lines are read and checked, in some 5 ms (printed, for the eye)."""
        text = read("residential.cfg")
        start = time.process_time()
        config, _ = load(Source.of(text), lambda names: symbols(*names))
        print(f"\n{text.count(chr(10))} lines loaded in {(time.process_time() - start) * 1000:.1f} ms")
        self.assertIn("relay", [route.name for route in config.routes])


class LoadTests(SynchronousTestCase):
    """Reading, modernising and checking together."""

    def test_all_errors(self):
        """Faults of the grammar and of meaning come out together, in the order of the file."""
        text = 'log_levl=1\nloadmodule "avpops.so"\nroute {\n  t_relay();\n  exit\n  $fU = 1;\n}\n'
        error = self.assertRaises(ScriptErrors, load, Source.of(text, "a.cfg"), lambda names: symbols(*names))
        self.assertEqual([(e.line, e.column) for e in error.errors], [(1, 1), (4, 3), (5, 7), (6, 3)])
        self.assertIn("    $fU = 1;", str(error))

    def test_long(self):
        """Chains may be as long as a provisioning tool makes them."""
        table = [
            "if ($rU == \"0\") exit; " + "else if ($rU == \"1\") { strip(1); }\n" * 1100,
            "if (" + " || ".join(['$rU == "1"'] * 1100) + ") exit;",
            "$var(x) = " + " + ".join(['"a"'] * 1100) + ";",
        ]
        for text in table:
            config, _ = load(Source.of(f"route {{ {text} }}"), lambda names: symbols(*names))
            self.assertEqual(len(config.routes), 1)

    def test_deep(self):
        """What stands inside itself without end is refused, not followed."""
        many = 3000
        table = [
            "if (" + "(" * many + "$rU" + ")" * many + ") exit;",
            "if (" + "!" * many + "$rU) exit;",
            "$var(x) = " + "~" * many + "1;",
            "if ($rU) { " * many + "}" * many,
            "$var(x) = " + "$(avp(" * many + "x" + "))" * many + ";",
            'xlog("' + "$(avp(" * many + "x" + "))" * many + '");',
        ]
        for text in table:
            source = Source.of(f"route {{ {text} }}")
            error = self.assertRaises(ScriptErrors, load, source, lambda names: symbols(*names))
            self.assertIn("inside each other", str(error.errors[0]))

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(st.data())
    def test_mutants(self, data):
        """A configuration with a piece taken out, doubled or moved is read, or is ScriptErrors, nothing else."""
        text = read(data.draw(st.sampled_from(["trunking.cfg", "soup.cfg", "old.cfg"])))
        start = data.draw(st.integers(0, len(text)))
        piece = text[start : start + data.draw(st.integers(1, 40))]
        to = data.draw(st.integers(0, len(text)))
        mutant = data.draw(st.sampled_from([
            text[:start] + text[start + len(piece) :], text[:start] + piece + text[start:], text[:to] + piece + text[to:],
            text[:start],
        ]))
        try:
            load(Source.of(mutant), lambda names: symbols(*names))
        except ScriptErrors as problem:
            self.assertNotEqual(problem.errors, [])
            str(problem)

    def test_module_names(self):
        """Modules are named as they are today."""
        config = parse('loadmodule "xlog.so" loadmodule "avpops.so" loadmodule "tm.so"')
        self.assertEqual(module_names(config), ["sqlops", "tm"])
