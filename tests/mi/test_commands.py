"""Tests of sipgw.mi.commands: how names and arguments find their command."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.exports import Command, Module, mi
from sipgw.mi.commands import Commands, MIError


class Greylist(Module):
    """A module with commands of all kinds."""

    name = "greylist"

    def __init__(self) -> None:
        super().__init__()
        self.waiting: Deferred[str] = Deferred()

    @mi(alias=("grey_forget", "gl_forget"))
    def forget(self, caller: str, all: int = 0, why: str | None = None) -> dict[str, Any]:
        """Drop one caller."""
        return {"caller": caller, "all": all, "why": why}

    @mi()
    def list(self, names: list[str] | None = None) -> Any:
        """List callers."""
        return names

    @mi()
    def any(self, value: Any) -> Any:
        """Take anything."""
        return [value]

    @mi(recipes=(("id",), ("pid",), ("id", "pid")))
    def profile(self, id: int = -1, pid: int = -1) -> Any:
        """Take one or the other."""
        return [id, pid]

    @mi()
    async def wait(self) -> str:
        """Wait."""
        return await self.waiting

    @mi()
    def fail(self) -> None:
        """Fail."""
        raise MIError(404, "Caller not found", "sip:x")

    @mi()
    def bug(self) -> None:
        """Divide by zero."""
        raise ZeroDivisionError("secret")

    @mi()
    async def late_bug(self) -> str:
        """Break after a while."""
        await self.waiting
        raise KeyError("secret")

    @mi()
    def object(self) -> Any:
        """Answer what is no JSON."""
        return object()


class Proto(Module):
    """A transport with a command that others have too."""

    name = "proto_tls"

    @mi()
    def list(self) -> None:
        """List connections."""


INVALID = -32602
BAD_TYPE = "Bad type for parameter '%s'"
ITEM = "Bad type for array item in parameter 'names'"
COUNT = "Too few or too many parameters"
NAMES = "Named parameters do not match"

FORGET = {"caller": "a", "all": 0, "why": None}

CALLS: list[tuple[str, Any, Any]] = [
    # method, params, result or (code, message, data)
    ("greylist:forget", ["a"], FORGET),
    ("grey_forget", ["a"], FORGET),
    ("gl_forget", ["a"], FORGET),
    ("forget", ["a"], FORGET),
    ("forget", ["a", 1], {**FORGET, "all": 1}),
    ("forget", ["a", "1"], {**FORGET, "all": 1}),
    ("forget", ["a", "-12"], {**FORGET, "all": -12}),
    ("forget", ["a", "+3"], {**FORGET, "all": 3}),
    ("forget", ["a", 1.9], {**FORGET, "all": 1}),
    ("forget", [5, 1, 7], {"caller": "5", "all": 1, "why": "7"}),
    ("forget", [1.5], {**FORGET, "caller": "1.5"}),
    ("forget", [2.0], {**FORGET, "caller": "2"}),
    ("forget", {"caller": "a"}, FORGET),
    ("forget", {"why": "w", "all": "2", "caller": "a"}, {"caller": "a", "all": 2, "why": "w"}),
    ("forget", None, (INVALID, "Invalid params", COUNT)),
    ("forget", [], (INVALID, "Invalid params", COUNT)),
    ("forget", {}, (INVALID, "Invalid params", COUNT)),
    ("forget", ["a", 1, "b", "c"], (INVALID, "Invalid params", COUNT)),
    ("forget", {"callee": "a"}, (INVALID, "Invalid params", NAMES)),
    ("forget", {"caller": "a", "why": "w"}, (INVALID, "Invalid params", NAMES)),
    ("forget", {"caller": "a", "b": 1, "c": 2, "d": 3}, (INVALID, "Invalid params", COUNT)),
    ("forget", [None], (INVALID, "Invalid params", BAD_TYPE % "caller")),
    ("forget", [True], (INVALID, "Invalid params", BAD_TYPE % "caller")),
    ("forget", [["a"]], (INVALID, "Invalid params", BAD_TYPE % "caller")),
    ("forget", [float("inf")], (INVALID, "Invalid params", BAD_TYPE % "caller")),
    *(
        ("forget", ["a", bad], (INVALID, "Invalid params", BAD_TYPE % "all"))
        for bad in ("x", "", " 3", "3 ", "3x", "0x3", "\u0663", None, True, [3], {"a": 1}, float("inf"), "9" * 30)
    ),
    ("greylist:list", None, "OK"),
    ("greylist:list", [["a", 5]], ["a", "5"]),
    ("greylist:list", {"names": ["a"]}, ["a"]),
    ("greylist:list", ["a"], (INVALID, "Invalid params", BAD_TYPE % "names")),
    ("greylist:list", [{"a": 1}], (INVALID, "Invalid params", BAD_TYPE % "names")),
    ("greylist:list", [[]], (INVALID, "Invalid params", "Empty array in parameter 'names'")),
    ("greylist:list", [["a", None]], (INVALID, "Invalid params", ITEM)),
    ("greylist:list", [[["a"]]], (INVALID, "Invalid params", ITEM)),
    ("any", [{"x": [1]}], [{"x": [1]}]),
    ("profile", [1], (INVALID, "Invalid params", "Ambiguous call, use named parameters instead")),
    ("profile", {"id": 1}, [1, -1]),
    ("profile", {"pid": "1"}, [-1, 1]),
    ("profile", [1, 2], [1, 2]),
    ("profile", None, (INVALID, "Invalid params", COUNT)),
    ("list", None, (-32001, "Method ambiguous", "supported names: greylist:list, tls:list")),
    ("tls:list", None, "OK"),
    ("proto_tls:list", None, (-32601, "Method not found", None)),
    ("nosuch", None, (-32601, "Method not found", None)),
    ("greylist:nosuch", None, (-32601, "Method not found", None)),
    ("nosuch:forget", ["a"], (-32601, "Method not found", None)),
    ("greylist:", None, (-32601, "Method not found", None)),
    (":forget", ["a"], (-32601, "Method not found", None)),
    ("FORGET", ["a"], (-32601, "Method not found", None)),
    ("", None, (-32601, "Method not found", None)),
    ("fail", None, (404, "Caller not found", "sip:x")),
]


class CommandsTests(SynchronousTestCase):
    """One registry with two modules."""

    def setUp(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.commands = Commands(lambda level, text: self.lines.append((level, text)))
        self.module = Greylist()
        self.commands.add(self.module)
        self.commands.add(Proto())

    def call(self, method: str, params: Any = None) -> Any:
        """The result of a command, or the parts of its error."""

        async def tried() -> Any:
            try:
                return await self.commands.call(method, params)
            except MIError as error:
                return (error.code, error.message, error.data)

        return self.successResultOf(Deferred.fromCoroutine(tried()))

    def answer(self, method: str, **more: Any) -> Any:
        """The answer to a JSON-RPC request."""
        data = json.dumps({"jsonrpc": "2.0", "method": method, "id": 1, **more}).encode()
        pieces = self.successResultOf(Deferred.fromCoroutine(self.commands.answer(data)))
        return None if pieces is None else json.loads(b"".join(pieces))

    def test_calls(self) -> None:
        """Names and arguments are bound, or refused, as OpenSIPS does."""
        for method, params, expected in CALLS:
            self.assertEqual(self.call(method, params), expected, f"{method} {params}")
        self.assertEqual(self.lines, [])

    def test_names(self) -> None:
        """Canonical names come in the order of loading."""
        self.assertEqual(self.commands.names()[:3], ["greylist:forget", "greylist:list", "greylist:any"])
        self.assertEqual(self.commands.names()[-1], "tls:list")

    def test_twice(self) -> None:
        """A name that is taken, also as an alias, is refused."""
        self.assertRaises(ValueError, self.commands.add, Greylist())
        other = Command("x", "y", ("grey_forget",), "", str, (), {})
        self.assertRaises(ValueError, self.commands.register, other)

    def test_waiting(self) -> None:
        """A command may wait."""
        running = Deferred.fromCoroutine(self.commands.call("wait"))
        self.assertNoResult(running)
        self.module.waiting.callback("done")
        self.assertEqual(self.successResultOf(running), "done")

    def test_bug(self) -> None:
        """A bug is logged with its place in one line, and the peer learns nothing of it."""
        self.module.waiting.callback("")
        for method, kind in (("bug", "ZeroDivisionError"), ("late_bug", "KeyError")):
            self.assertEqual(self.answer(method)["error"], {"code": -32000, "message": "Server error"})
            level, line = self.lines.pop()
            self.assertEqual((level, line.count("\n")), (-1, 0))
            self.assertIn(f"greylist:{method} failed: {kind}", line)
            self.assertIn("test_commands.py:", line)

    def test_no_json(self) -> None:
        """A result that JSON cannot hold is a bug too."""
        self.assertEqual(self.answer("object")["error"], {"code": -32000, "message": "Server error"})
        self.assertIn("object failed: TypeError", self.lines[0][1])

    def test_answer(self) -> None:
        """Results and errors come back with the request's id."""
        self.assertEqual(self.answer("any", params=[1]), {"jsonrpc": "2.0", "result": [1], "id": 1})
        self.assertEqual(self.answer("any", params=[1], id="x")["id"], "x")
        self.assertEqual(self.answer("nosuch")["error"], {"code": -32601, "message": "Method not found"})
        self.assertEqual(self.answer("any", params=5)["error"], {"code": -32600, "message": "Invalid Request"})

    def test_notification(self) -> None:
        """A notification is run and not answered, not even when it fails; what is no request is answered."""
        run: list[int] = []
        self.commands.register(Command("x", "note", (), "", lambda: run.append(1), (), {}))
        for method in ("x:note", "nosuch", "bug", "forget"):
            data = json.dumps({"jsonrpc": "2.0", "method": method}).encode()
            self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(self.commands.answer(data))), method)
        self.assertEqual(run, [1])
        pieces = self.successResultOf(Deferred.fromCoroutine(self.commands.answer(b'{"jsonrpc":"2.0"}', pretty=True)))
        assert pieces is not None
        self.assertTrue(b"".join(pieces).startswith(b'{\n\t"jsonrpc":\t"2.0",\n\t"error":\t{'))
