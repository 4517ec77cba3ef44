"""Tests for `sipgw.script.preprocess`."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.errors import ScriptError
from sipgw.script.nodes import Pos
from sipgw.script.parser import parse, read
from sipgw.script.preprocess import MAX_DEPTH, flatten, unmark


class Files(dict[str, str]):
    """Files in memory."""

    def read(self, name: str) -> str:
        if name not in self:
            raise FileNotFoundError(2, "No such file or directory", name)
        return self[name]


class FlattenTests(SynchronousTestCase):
    """Includes become one text that remembers where its lines came from."""

    def test_origins(self):
        """Each line keeps its file and number, whoever included it."""
        files = Files({
            "/etc/a.cfg": 'one\ninclude_file "b.cfg" what follows is lost\nfour\n',
            "/etc/b.cfg": "two\n  import_file 'sub/c.cfg'\n",
            "/etc/sub/c.cfg": "three",
        })
        source = flatten("/etc/a.cfg", files.read)
        self.assertEqual(source.text, "one\ntwo\nthree\nfour\n")
        b, c = "/etc/b.cfg", "/etc/sub/c.cfg"
        self.assertEqual(
            source.origins, [("/etc/a.cfg", 1), (b, 1), (c, 1), ("/etc/a.cfg", 3), ("/etc/a.cfg", 4)]
        )
        self.assertEqual(source.pos(source.text.index("hree")), Pos(c, 1, 2))
        self.assertEqual(source.chain(c), [(b, 2), ("/etc/a.cfg", 2)])
        self.assertEqual(source.line("/etc/a.cfg", 3), "four")

    def test_lookup(self):
        """A name is tried as it is, then beside the including file."""
        files = Files({"etc/a.cfg": 'include_file "b.cfg"\n', "b.cfg": "here", "etc/b.cfg": "there"})
        self.assertEqual(flatten("etc/a.cfg", files.read).text, "here\n")
        del files["b.cfg"]
        self.assertEqual(flatten("etc/a.cfg", files.read).text, "there\n")

    def test_inside_a_route(self):
        """An include is text, also in the middle of a route; what stands before it on the line disables
        it."""
        files = Files({"a": 'route {\ninclude_file "b"\n}\n# include_file "c"\n', "b": "exit;\n"})
        (route,) = parse(flatten("a", files.read)).routes
        self.assertEqual(route.body[0].pos, Pos("b", 1, 1))
        self.assertEqual(route.end, Pos("a", 3, 1))

    def test_missing(self):
        """A missing file is fatal and shows who wanted it."""
        files = Files({"a": '\n  include_file "b"\n', "b": 'import_file "c"\n'})
        error = self.assertRaises(ScriptError, flatten, "a", files.read)
        self.assertEqual(
            error.render(),
            "b:1:13: cannot read the included file 'c': No such file or directory\n"
            '    import_file "c"\n                ^\n    included at a:2',
        )
        error = self.assertRaises(ScriptError, flatten, "nowhere", files.read)
        self.assertIn("cannot read the configuration", error.text)

    def test_depth(self):
        """50 files deep is allowed, a circle is not."""
        files = Files({str(n): f'include_file "{n + 1}"\n' for n in range(1, MAX_DEPTH)})
        files[str(MAX_DEPTH)] = "end"
        self.assertEqual(flatten("1", files.read).text.strip(), "end")
        files["loop"] = 'include_file "loop"\n'
        error = self.assertRaises(ScriptError, flatten, "loop", files.read)
        self.assertIn("deeper than 50", error.text)
        self.assertEqual(len(error.included), MAX_DEPTH - 1)

    def test_faults_in_includes(self):
        """An error tells the included file and its line, and where it was included; errors keep the order."""
        files = Files({"a": 'include_file "b"\nlog_level=\n', "b": "\ncheck_via ?\n"})
        errors = read(flatten("a", files.read)).errors
        self.assertEqual([(e.file, e.line) for e in errors], [("b", 2), ("a", 3)])
        self.assertIn("included at a:1", errors[0].render())


class MarkerTests(SynchronousTestCase):
    """The text can go through an external preprocessor and come back."""

    def setUp(self):
        self.files = Files({"a": 'one\ninclude_file "b"\nfour\n', "b": "two\nthree\n"})
        self.source = flatten("a", self.files.read)

    def test_round(self):
        """Unchanged text comes back as it was."""
        back = unmark(self.source.marked(), self.source.included)
        self.assertEqual(back.text.rstrip("\n"), self.source.text.rstrip("\n"))
        self.assertEqual(back.origins[:4], self.source.origins[:4])
        self.assertEqual(back.chain("b"), [("a", 2)])

    def test_form(self):
        """The markers are those of OpenSIPS."""
        self.assertTrue(self.source.marked().startswith(
            '__OSSPP_FILEBEGIN__ "a"\n__OSSPP_LINE__ 1\none\n__OSSPP_FILEBEGIN__ "b"\n__OSSPP_LINE__ 1\ntwo\n'
        ))
        self.assertTrue(self.source.marked().endswith("__OSSPP_FILEEND__\n"))

    def test_lines_dropped_and_added(self):
        """Lines that the preprocessor drops, repeats or joins do not shift the numbers of the others."""
        marked = self.source.marked()
        table = [
            (marked.replace("two\n", ""), ["one", "three", "four"], [("a", 1), ("b", 2), ("a", 3)]),
            (marked.replace("two\n", "x\ny\n"), ["one", "x", "y", "three", "four"],
             [("a", 1), ("b", 1), ("b", 2), ("b", 2), ("a", 3)]),
            (marked.replace("two\n", "two "), ["one", "two three", "four"], [("a", 1), ("b", 1), ("a", 3)]),
        ]
        for text, lines, origins in table:
            back = unmark(text)
            self.assertEqual(back.text.split("\n")[: len(lines)], lines)
            self.assertEqual(back.origins[: len(lines)], origins)
