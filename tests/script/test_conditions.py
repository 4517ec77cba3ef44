"""Conditions of any shape, compared with a reading of them by hand: three states, short-circuits, calls in order."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from .rig import Script

LEAVES = {
    "1": True,
    "0": False,
    "$var(error) == 5": None,
    "$rm == \"INVITE\"": True,
    "$var(none)": False,
    'good("g")': True,
    "bad()": False,
    "code(3)": True,
    "code(-3)": False,
    "route(up)": True,
    "route(down)": False,
    '$var(x) = "s"': True,
    '$var(y) = "a" - 1': False,
    "slow(2)": True,
}
"""What a condition is made of, and what it comes to: None is an error."""

NOISY = {'good("g")': "g", "route(up)": "t", "route(down)": "f"}
"""What is logged when one is asked."""

TREES = st.recursive(
    st.sampled_from(sorted(LEAVES)),
    lambda inner: st.tuples(st.just("!"), inner) | st.tuples(st.sampled_from(["&&", "||"]), inner, inner),
    max_leaves=6,
)


def written(tree: Any) -> str:
    """The condition as text."""
    if isinstance(tree, str):
        return f"({tree})"
    if tree[0] == "!":
        return f"!({written(tree[1])})"
    return f"({written(tree[1])} {tree[0]} {written(tree[2])})"


def read(tree: Any, asked: list[str]) -> bool | None:
    """What the condition comes to, and what was asked for it."""
    if isinstance(tree, str):
        if tree in NOISY:
            asked.append(NOISY[tree])
        return LEAVES[tree]
    left = read(tree[1], asked)
    if tree[0] == "!":
        return None if left is None else not left
    if left is None or left is (tree[0] == "||"):
        return left
    return read(tree[2], asked)


class ConditionTests(SynchronousTestCase):
    """``&& || !`` over everything that can be a condition."""

    @given(TREES, st.booleans())
    @settings(max_examples=120, derandomize=True, deadline=None)
    def test_any_shape(self, tree: Any, keeps_rc: bool) -> None:
        """The branch taken and the calls made are those that the language says, also in a script that keeps codes."""
        asked: list[str] = []
        expected = read(tree, asked)
        body = f'$var(error) = "e"; if ({written(tree)}) xlog("T"); else xlog("F");'
        more = 'route[up] { good("t"); } route[down] { good("f"); return(-1); }'
        script = Script(f"route {{ {body} {'$var(r) = $rc;' if keeps_rc else ''} }} {more}")
        script.request()
        self.assertEqual(script.server.out, [*asked, "T" if expected else "F"], written(tree))
