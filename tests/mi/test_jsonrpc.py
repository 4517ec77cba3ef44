"""Tests of sipgw.mi.jsonrpc: what is a request, what is refused, how answers look."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.mi import jsonrpc
from sipgw.mi.jsonrpc import Call, MIError, Refused

PARSE, INVALID = (-32700, "Parse error"), (-32600, "Invalid Request")

REFUSED = [
    (b"", PARSE, None),
    (b"{", PARSE, None),
    (b"nonsense", PARSE, None),
    (b'{"jsonrpc":"2.0","method":"pwd","id":1} x', PARSE, None),
    (b'{"jsonrpc":"2.0","method":"pwd","id":NaN}', PARSE, None),
    (b'{"jsonrpc":"2.0","method":"pwd","id":1,"params":["\\ud800"]}', PARSE, None),
    (b"[" * 100000, PARSE, None),
    (b"9" * 5000, PARSE, None),
    (b'{"jsonrpc":"2.0","method":"pwd","id":1}' + b" " * jsonrpc.LIMIT, PARSE, None),
    (b"[]", INVALID, None),
    (b'[{"jsonrpc":"2.0","method":"pwd","id":1}]', INVALID, None),
    (b"1", INVALID, None),
    (b'"x"', INVALID, None),
    (b"null", INVALID, None),
    (b"{}", INVALID, None),
    (b'{"method":"pwd","id":1}', INVALID, 1),
    (b'{"jsonrpc":"1.0","method":"pwd","id":1}', INVALID, 1),
    (b'{"jsonrpc":2.0,"method":"pwd","id":1}', INVALID, 1),
    (b'{"jsonrpc":"2.0","id":1}', INVALID, 1),
    (b'{"jsonrpc":"2.0","method":1,"id":"a"}', INVALID, "a"),
    (b'{"jsonrpc":"2.0","method":null}', INVALID, None),
    (b'{"jsonrpc":"2.0","method":"pwd","params":null,"id":1}', INVALID, 1),
    (b'{"jsonrpc":"2.0","method":"pwd","params":"x","id":1}', INVALID, 1),
    (b'{"jsonrpc":"2.0","method":"pwd","params":5}', INVALID, None),
    (b'{"jsonrpc":"2.0","method":"pwd","id":true}', INVALID, None),
    (b'{"jsonrpc":"2.0","method":"pwd","id":[1]}', INVALID, None),
    (b'{"jsonrpc":"2.0","method":"pwd","id":{}}', INVALID, None),
]

READ = [
    (b'{"jsonrpc":"2.0","method":"pwd","id":1}', Call("pwd", {}, 1)),
    (b' \r\n{"jsonrpc":"2.0",\n"method":"pwd","id":1}\n', Call("pwd", {}, 1)),
    (b'{"jsonrpc":"2.0","method":"","id":"","params":[]}', Call("", [], "")),
    (b'{"jsonrpc":"2.0","method":"pwd","id":null}', Call("pwd", {}, None)),
    (b'{"jsonrpc":"2.0","method":"pwd"}', Call("pwd", {}, None, notification=True)),
    (b'{"jsonrpc":"2.0","method":"p\\u0073","params":{"a":[1]},"id":-3,"more":1}', Call("ps", {"a": [1]}, -3)),
    (b'{"jsonrpc":"2.0","method":"ul","params":["\xe9"],"id":1.5}', Call("ul", ["\udce9"], 1.5)),
    (b'{"jsonrpc":"2.0","method":"ul","params":["\\ud83d\\ude00"],"id":1}', Call("ul", ["\U0001f600"], 1)),
]


class DecodeTests(SynchronousTestCase):
    """Bytes become a Call or are refused with a code."""

    def test_refused(self) -> None:
        """What is no request is refused with OpenSIPS's code and text, and its id where it has one."""
        for data, (code, message), id in REFUSED:
            error = self.assertRaises(Refused, jsonrpc.decode, data)
            self.assertEqual((error.code, error.message, error.id), (code, message, id), data[:80])

    def test_read(self) -> None:
        """What is a request is read."""
        for data, call in READ:
            self.assertEqual(jsonrpc.decode(data), call)

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ud80 jsonrpcmethod2.0', max_size=60).map(str.encode))
    def test_anything(self, data: bytes) -> None:
        """Whatever arrives is a Call or refused."""
        try:
            jsonrpc.decode(data)
        except Refused:
            pass


class EncodeTests(SynchronousTestCase):
    """Answers become bytes."""

    def test_result(self) -> None:
        """A result, without white space and in this order."""
        self.assertEqual(jsonrpc.encode(jsonrpc.result(1, {"WD": "/"})), b'{"jsonrpc":"2.0","result":{"WD":"/"},"id":1}')

    def test_failure(self) -> None:
        """An error has data only when there are some."""
        self.assertEqual(
            jsonrpc.encode(jsonrpc.failure("7", MIError(-32601))),
            b'{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":"7"}',
        )
        self.assertEqual(
            jsonrpc.encode(jsonrpc.failure(None, MIError(404, "AOR not found", "sip:a@b"))),
            b'{"jsonrpc":"2.0","error":{"code":404,"message":"AOR not found","data":"sip:a@b"},"id":null}',
        )

    def test_text(self) -> None:
        """Text goes out as UTF-8, unescaped; what is no UTF-8 as U+FFFD."""
        self.assertEqual(jsonrpc.encode(["é\n", "a\udce9b", "\ud800"]), '["é\\n","a\ufffdb","\ufffd"]'.encode())

    def test_pretty(self) -> None:
        """A tab for each level."""
        answer = {"a": {"b": [1, {"c": []}]}, "d": {}, "e": iter(["x"])}
        text = jsonrpc.encode(answer, pretty=True).decode()
        self.assertEqual(
            text,
            '{\n\t"a":\t{\n\t\t"b":\t[\n\t\t\t1,\n\t\t\t{\n\t\t\t\t"c":\t[]\n\t\t\t}\n\t\t]\n\t},'
            '\n\t"d":\t{},\n\t"e":\t[\n\t\t"x"\n\t]\n}',
        )
        self.assertEqual(json.loads(text), {"a": {"b": [1, {"c": []}]}, "d": {}, "e": ["x"]})

    def test_iterators(self) -> None:
        """Iterators, views and tuples are arrays at any depth."""
        deep: Any = iter([1, 2])
        for _ in range(10):
            deep = [deep]
        text = jsonrpc.encode({1: {"x": 5}.values(), "t": (1, None, True), "deep": deep})
        self.assertEqual(json.loads(text), {"1": [5], "t": [1, None, True], "deep": [[[[[[[[[[[1, 2]]]]]]]]]]]})

    def test_pieces(self) -> None:
        """A long answer comes in pieces, each made when it is wanted."""
        made = 0

        def contacts() -> Any:
            nonlocal made
            for made in range(20000):
                yield {"Contact": f"sip:user{made}@192.0.2.1:5060", "Expires": made}

        pieces = jsonrpc.pieces({"Domains": [{"name": "location", "AORs": contacts()}]})
        first = next(pieces)
        self.assertLess(made, 1000)
        rest = list(pieces)
        self.assertTrue(all(len(piece) < 2 * jsonrpc.PIECE for piece in rest))
        whole = json.loads(first + b"".join(rest))
        self.assertEqual((len(whole["Domains"][0]["AORs"]), made), (20000, 19999))

    def test_no_json(self) -> None:
        """What JSON cannot hold is a mistake of the command."""
        for value in (b"bytes", object(), float("nan"), {"a": {"b": {1, 2}, "c": object()}}):
            self.assertRaises((TypeError, ValueError), jsonrpc.encode, value)

    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=20,
        ),
        st.booleans(),
    )
    def test_same(self, value: Any, pretty: bool) -> None:
        """What is written reads back the same, indented or not."""
        self.assertEqual(json.loads(jsonrpc.encode(value, pretty)), value)
