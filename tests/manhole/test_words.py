"""Tests of how commands are written and answers shown."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.exports import Module, mi
from sipgw.manhole.show import show
from sipgw.manhole.words import complete, describe, read_words, usage


class Sample(Module):
    """Commands of all kinds."""

    name = "sample"

    @mi(alias="old_set")
    def set(self, key: str, number: int, more: str = "") -> None:
        """Set something."""

    @mi()
    def many(self, first: str, texts: list[str]) -> None:
        """Take many."""

    @mi(recipes=(("first", "texts"), ("first", "second", "third")))
    def either(self, first: str, second: str = "", third: str = "", texts: list[str] | None = None) -> None:
        """Take many, or three."""

    @mi()
    def any(self, value: Any) -> None:
        """Take anything."""


class WordTests(SynchronousTestCase):
    """Parameters."""

    def setUp(self) -> None:
        self.described = {each.name: describe(each) for each in Sample().commands()}

    def test_read(self) -> None:
        """By position or by name, lists with commas, one by one or as JSON."""
        for name, words, expected in (
            ("set", ["a", "5"], ["a", "5"]),
            ("set", ["number=5", "key=a=b"], {"number": "5", "key": "a=b"}),
            ("set", ["x=1", "5"], ["x=1", "5"]),
            ("set", [], []),
            ("set", list("abcd"), list("abcd")),
            ("many", ["a", "b,c"], ["a", ["b", "c"]]),
            ("many", ["a", "b", "c=1"], ["a", ["b", "c=1"]]),
            ("many", ["first=a", 'texts=["b,c"]'], {"first": "a", "texts": ["b,c"]}),
            ("any", ['{"a": [1]}'], [{"a": [1]}]),
            ("any", ["plain"], ["plain"]),
        ):
            self.assertEqual(read_words(self.described[name], words), expected, words)
        for words, expected in (
            (["a", "b"], ["a", ["b"]]), (["a", "b", "c"], ["a", "b", "c"]), (["a", "b", "c", "d"], ["a", ["b", "c", "d"]]),
        ):
            self.assertEqual(read_words(self.described["either"], words), expected)
        with self.assertRaises(ValueError):
            read_words(self.described["set"], ["key=a", "5"])

    def test_usage(self) -> None:
        """Each way to call a command, and what it does."""
        self.assertEqual(
            usage(self.described["set"], "sipgw mi").splitlines(),
            [
                "usage: sipgw mi sample:set key=STR number=INT",
                "usage: sipgw mi sample:set key=STR number=INT more=STR",
                "Set something.",
            ],
        )

    def test_complete(self) -> None:
        """The names that are left."""
        self.assertEqual(complete(self.described["set"], ["number=1"]), ["key=", "more="])
        self.assertEqual(complete(self.described["set"], ["number=1", "key=", "more="]), [])


TABLE = """\
Name     Age
-------  ---
Älice      7
a\\x1b[m   12"""


class ShowTests(SynchronousTestCase):
    """Answers."""

    def test_show(self) -> None:
        """Single values, pairs, tables, lists, and what stands inside each other."""
        for value, expected in (
            ("OK", "OK"),
            (None, "-"),
            ({}, "(nothing)"),
            ([], "(none)"),
            ({"a": 1, "long": "x"}, "a     1\nlong  x"),
            (["a", "b\r\n\x1b[2J"], "a\nb\\r\\n\\x1b[2J"),
            ([["a", "b"], []], "a, b\n"),
            ([{"Name": "Älice", "Age": 7}, {"Name": "a\x1b[m", "Age": 12}], TABLE),
            ({"All": [{"a": 1}]}, "All:\n  a\n  -\n  1"),
            ({"A": [{"a": 1, "b": {"c": 2}}, {"a": 3, "b": {}}]}, "A:\n  a  1\n  b:\n    c  2\n\n  a  3\n  b:\n    (nothing)"),
        ):
            self.assertEqual(show(value), expected)

    def test_wide(self) -> None:
        """A column has an end."""
        [_, _, row] = show([{"text": "x" * 1000}]).splitlines()
        self.assertEqual(row, "x" * 59 + "…")
