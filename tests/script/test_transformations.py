"""The 95 transformations of the core; ``tests/data/transformations.jsonl`` holds what the real binary answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.transform_ip import resolve, resolve4, resolve6
from sipgw.script.transform_text import Substitution
from sipgw.script.transformations import EVAL, ROWS, SUBST, TRANSFORMATIONS, WAITING, split_index

FACTS = Path(__file__).parent.parent / "data" / "transformations.jsonl"
CALLS = {name: call for name, call, _, _ in ROWS}

#: what the binary cannot be asked for, or where we read more than it does
OURS: list[tuple[str, Any, tuple[Any, ...], Any]] = [
    ("ip.isip", "::ffff:1.2.3.4", (), 1),
    ("nameaddr.param", "<sip:b@h>;Tag=x", ("tag",), "x"),
    ("via.host", "SIP/2.0/UDP [::1];rport", (), "[::1]"),
    ("via.rport", "SIP/2.0/UDP [::1];rport", (), None),
    ("via.param", "SIP/2.0/UDP [::1];rport", ("RPORT",), ""),
    ("uri.host", "sip:bob@h x", (), None),
    ("uri.user", 5, (), None),
    ("s.substr", "abc", ("0", 1), None),
    ("s.select", "a,b", (0, ""), "a"),
    ("s.fill.left", "a", ("", 5), None),
    ("s.fill.left", "a", ("0", 10**9), None),
    ("s.width", "a", (10**9,), None),
    ("s.xor", "abc", ("",), None),
    ("s.unescape.user", "a%00", (), None),
    ("s.unescape.user", "a%4", (), None),
    ("s.unescape.common", "a\\0b", (), "a\0b"),
    ("s.escape.common", "a\0b", (), "a\\0b"),
    ("csv.count", "a\nb", (), None),
    ("ip.matches", "10.0.0.1", ("/8",), None),
    ("ip.ntop", "\0\0\0\x01", (), "0.0.0.1"),
    ("re.subst", "abc", ("/(/X/",), None),
    ("re.subst", "a,b", ("/,/;/",), "a;b"),
    ("re.subst", "a/b", ("/a\\/b/X/",), "X"),
]


SOME = st.text(max_size=12) | st.integers(-9, 9) | st.none()


class Server:
    """Resolves one name."""

    async def resolve_host(self, name: str, wanted: str) -> str | None:
        """The address of ``known``."""
        return {"known": "10.0.0.1" if wanted != "6" else "2001:db8::1"}.get(name)


class Asking:
    """A run that may ask the DNS."""

    user = Server()


def finish(coroutine: Any) -> Any:
    """The result of a coroutine that does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


def apply(name: str, value: Any, arguments: Any) -> Any:
    """One transformation, its index in its name."""
    base, place = split_index(name)
    return CALLS[base](value, *arguments, **({} if place is None else {"index": place}))


class TransformationTests(SynchronousTestCase):
    """Each row of the table."""

    def test_facts(self) -> None:
        """Every fact learnt from the real binary holds, in value and in type."""
        seen = set()
        for line in FACTS.read_text("ascii").splitlines():
            name, value, arguments, expected = json.loads(line)
            result = apply(name, value, arguments)
            self.assertEqual((result, type(result)), (expected, type(expected)), line)
            seen.add(split_index(name)[0])
        self.assertEqual({row[0] for row in ROWS} - seen - WAITING - {EVAL}, set())

    def test_ours(self) -> None:
        """And what we decided beside them."""
        for name, value, arguments, expected in OURS:
            self.assertEqual(apply(name, value, arguments), expected, (name, value, arguments))

    def test_null(self) -> None:
        """Null in, null out."""
        for name, call, least, most in ROWS:
            if name != EVAL and name not in WAITING:
                for count in range(least, most + 1):
                    self.assertIsNone(call(None, *[1] * count), name)

    def test_total(self) -> None:
        """There are 95, ``uri.host`` and ``via.host`` by two names each."""
        self.assertEqual(len({t.name for t in TRANSFORMATIONS} - {"uri.domain", "via.domain"}), 95)

    @given(SOME, st.lists(SOME, max_size=2))
    @settings(max_examples=150, derandomize=True, deadline=None)
    def test_never_raises(self, value: Any, arguments: list[Any]) -> None:
        """Whatever the value and the arguments, the result is a value of a script."""
        for name, call, least, most in ROWS:
            if name != EVAL and name not in WAITING and least <= len(arguments) <= most:
                result = call(value, *arguments)
                self.assertTrue(result is None or type(result) in (int, str), (name, result))

    def test_resolve(self) -> None:
        """A name is resolved by the server; an address is its own, when it is of the family asked for."""
        run: Any = Asking()
        for call, value, expected in [
            (resolve, "known", "10.0.0.1"),
            (resolve6, "known", "2001:DB8:0:0:0:0:0:1"),
            (resolve4, "10.0.0.1", "10.0.0.1"),
            (resolve6, "10.0.0.1", None),
            (resolve, "unknown", None),
            (resolve, "", None),
            (resolve, None, None),
        ]:
            self.assertEqual(finish(call(run, value)), expected, (call.__name__, value))


class SubstitutionTests(SynchronousTestCase):
    """``{re.subst}`` whose expression is constant."""

    def test_variables(self) -> None:
        """Variables in the replacement are filled in at each use, null as ``<null>``; references stay references."""
        marker = object()
        substitution = Substitution(r"/(b+)/[\1 $v]/g", lambda text: ("[\\1 ", marker, "]"))
        self.assertEqual(substitution.variables, [marker])
        self.assertEqual(substitution.apply("abcbb", "x"), "a[b x]c[bb x]")
        self.assertEqual(substitution.apply("abc", None), "a[b <null>]c")

    def test_refused(self) -> None:
        """An expression that is none is refused when it is compiled."""
        for expression in ["", "/a", "/a/b", "aabbac", "/a/b/x", "/(/b/", "\\a\\b\\"]:
            self.assertRaises(ValueError, Substitution, expression, lambda text: (text,))

    def test_name(self) -> None:
        """The compiler finds it by its name."""
        self.assertIn(SUBST, CALLS)
