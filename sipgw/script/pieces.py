"""Small pieces of Python's ``ast``, so that the compiler reads like the code it writes."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from sipgw.script.nodes import Pos

RUN = "run"


def name(text: str) -> ast.Name:
    """``text``."""
    return ast.Name(text, ast.Load())


def constant(value: object) -> ast.Constant:
    """A literal."""
    return ast.Constant(value)  # type: ignore[arg-type]


def attribute(of: ast.expr | str, *path: str) -> ast.expr:
    """``of.a.b``."""
    found = name(of) if isinstance(of, str) else of
    for step in path:
        found = ast.Attribute(found, step, ast.Load())
    return found


def call(function: ast.expr, *arguments: ast.expr) -> ast.Call:
    """``function(arguments)``."""
    return ast.Call(function, list(arguments), [])


def store(target: str, value: ast.expr) -> ast.stmt:
    """``target = value``."""
    return ast.Assign([ast.Name(target, ast.Store())], value)


def set_attribute(target: str, value: ast.expr) -> ast.stmt:
    """``run.target = value``."""
    return ast.Assign([ast.Attribute(name(RUN), target, ast.Store())], value)


def walrus(target: str, value: ast.expr) -> ast.expr:
    """``(target := value)``."""
    return ast.NamedExpr(ast.Name(target, ast.Store()), value)


def compare(left: ast.expr, op: ast.cmpop, right: ast.expr) -> ast.expr:
    """``left op right``."""
    return ast.Compare(left, [op], [right])


def same(left: ast.expr, right: ast.expr) -> ast.expr:
    """``left is right``."""
    return compare(left, ast.Is(), right)


def differs(left: ast.expr, right: ast.expr) -> ast.expr:
    """``left is not right``."""
    return compare(left, ast.IsNot(), right)


def opposite(value: ast.expr) -> ast.expr:
    """``not value``; two of them are none, and the tests for sameness turn round."""
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not):
        return value.operand
    if isinstance(value, ast.Compare) and len(value.ops) == 1:
        if isinstance(value.ops[0], ast.Is):
            return differs(value.left, value.comparators[0])
        if isinstance(value.ops[0], ast.IsNot):
            return same(value.left, value.comparators[0])
    return ast.UnaryOp(ast.Not(), value)


def every(tests: Sequence[ast.expr]) -> ast.expr:
    """``a and b``."""
    return tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), list(tests))


def some(tests: Sequence[ast.expr]) -> ast.expr:
    """``a or b``."""
    return tests[0] if len(tests) == 1 else ast.BoolOp(ast.Or(), list(tests))


def either(test: ast.expr, then: ast.expr, otherwise: ast.expr) -> ast.expr:
    """``then if test else otherwise``."""
    return ast.IfExp(test, then, otherwise)


def when(test: ast.expr, then: list[ast.stmt], otherwise: list[ast.stmt] | None = None) -> ast.stmt:
    """``if test: then else: otherwise``; an empty ``then`` turns the test round."""
    if not then and otherwise:
        return ast.If(opposite(test), otherwise, [])
    return ast.If(test, then or [ast.Pass()], otherwise or [])


def give(value: ast.expr) -> ast.stmt:
    """``return value``."""
    return ast.Return(value)


def do(value: ast.expr) -> ast.stmt:
    """An expression as statement."""
    return ast.Expr(value)


def tuple_of(values: Sequence[ast.expr]) -> ast.expr:
    """``(a, b)``."""
    return ast.Tuple(list(values), ast.Load())


def joined_text(pieces: Sequence[ast.expr | str]) -> ast.expr:
    """``f"..."``; texts as they are, expressions in braces."""
    parts: list[ast.expr] = []
    for piece in pieces:
        parts.append(constant(piece) if isinstance(piece, str) else ast.FormattedValue(piece, -1, None))
    return ast.JoinedStr(parts)


def place(tree: ast.AST, pos: Pos) -> None:
    """Say that what has no line yet stands at ``pos``, so that tracebacks point there; what has one has them below it too.

    No column: Python would draw carets under a text that it cannot know."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt | ast.expr | ast.arg | ast.keyword):
            if hasattr(node, "lineno"):
                continue
            node.lineno = node.end_lineno = pos.line
            node.col_offset = node.end_col_offset = -1
        waiting.extend(ast.iter_child_nodes(node))


def leaves(block: Sequence[ast.stmt]) -> bool:
    """Whether a block always ends in ``return`` (or ``break``), so that what follows is never reached."""
    if not block:
        return False
    last = block[-1]
    if isinstance(last, ast.Return | ast.Break):
        return True
    return isinstance(last, ast.If) and leaves(last.body) and leaves(last.orelse)
