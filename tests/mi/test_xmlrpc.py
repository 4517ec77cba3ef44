"""Tests of sipgw.mi.xmlrpc; Python's own client is the judge."""

from __future__ import annotations

import xmlrpc.client
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.mi.jsonrpc import MIError
from sipgw.mi.xmlrpc import MAX_DEPTH, MAX_ELEMENTS, decode, failure, parse, result


def call(params: str, method: str = "echo:say") -> bytes:
    """A call with the given ``param`` elements."""
    return f"<?xml version='1.0'?><methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>".encode()


def value(inside: str) -> bytes:
    """A call with one value."""
    return call(f"<param><value>{inside}</value></param>")


def read(pieces: Any) -> Any:
    """What Python's client makes of an answer."""
    (values, _method) = xmlrpc.client.loads(b"".join(pieces).decode(), use_builtin_types=True)
    return values[0]


class DecodeTests(SynchronousTestCase):
    """Calls."""

    def test_python(self) -> None:
        """What Python's client writes is read."""
        for params, expected in (
            ((), []),
            (("a", 5, -1.5), ["a", 5, -1.5]),
            ((["x", "y"],), [["x", "y"]]),
            (({"name": "a", "list": ["b"]},), {"name": "a", "list": ["b"]}),
            (({"a": 1}, "b"), [{"a": 1}, "b"]),
            (("<&> é \n",), ["<&> é \n"]),
        ):
            data = xmlrpc.client.dumps(params, "module:command", encoding="utf-8").encode()
            self.assertEqual(decode(data), ("module:command", expected))

    def test_types(self) -> None:
        """Values have their types; one without is a text."""
        for inside, expected in (
            ("plain", "plain"),
            ("", ""),
            (" <string>x</string> ", "x"),
            ("<i4>-7</i4>", -7),
            ("<i8>5000000000</i8>", 5000000000),
            ("<int> 7 </int>", 7),
            ("<double>.5</double>", 0.5),
            ("<array><data/></array>", []),
            ("<array><data><value>a</value><value><int>1</int></value></data></array>", ["a", 1]),
        ):
            self.assertEqual(decode(value(inside)), ("echo:say", [expected]), inside)
        self.assertEqual(decode(b"<methodCall><methodName> x </methodName></methodCall>"), ("x", []))

    def test_wrong(self) -> None:
        """What is no XML is a parse error, what is no call an invalid request."""
        unknown = b"<?xml version='1.0' encoding='ebcdic-9'?><a/>"
        for data in (b"", b"nonsense", b"<methodCall>", b"<a/><b/>", b"\xff\xfe", unknown):
            self.assertEqual(self.assertRaises(MIError, decode, data).code, -32700, data)
        for data in (
            b"<a/>",
            b"<methodCall/>",
            b"<methodCall><params/></methodCall>",
            b"<methodCall><methodName/></methodCall>",
            call("<x/>"),
            call("<param/>"),
            value("<int>1_0</int>"),
            value("<int>\u0663</int>"),
            value("<boolean>1</boolean>"),
            value("<double>nan</double>"),
            value("<double>1e999</double>"),
            value("<nil/>"),
            value("<base64>eA==</base64>"),
            value("<string>a<b/></string>"),
            value("<int>1</int><int>2</int>"),
            value("<array/>"),
            value("<array><data><x/></data></array>"),
            value("<struct><member><name>a</name></member></struct>"),
        ):
            self.assertEqual(self.assertRaises(MIError, decode, data).code, -32600, data)

    def test_bombs(self) -> None:
        """Definitions, instructions, comments, depth and numbers are refused at once."""
        for data in (
            b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><methodCall><methodName>&b;</methodName></methodCall>',
            b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><methodCall><methodName>x</methodName></methodCall>',
            b"<methodCall><?php x?><methodName>x</methodName></methodCall>",
            b"<methodCall><!-- x --><methodName>x</methodName></methodCall>",
            b"<a>" * (MAX_DEPTH + 1),
            b"<a>" + b"<b/>" * MAX_ELEMENTS,
        ):
            self.assertEqual(self.assertRaises(MIError, decode, data).code, -32600)
        self.assertEqual(parse(b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH).name, "a")

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(st.lists(st.sampled_from(
        ["<methodCall>", "</methodCall>", "<methodName>x</methodName>", "<params>", "</params>", "<param>", "</param>", "<value>",
         "</value>", "<struct>", "</struct>", "<member>", "</member>", "<name>n</name>", "<int>", "</int>", "5", "&amp;", "\x01"]
    ), max_size=20))
    def test_anything(self, parts: list[str]) -> None:
        """Whatever comes, it is a call or an MIError."""
        try:
            decode("".join(parts).encode())
        except MIError:
            pass


class EncodeTests(SynchronousTestCase):
    """Answers."""

    def test_values(self) -> None:
        """Python's client reads what is written, iterators as lists."""
        for given_, expected in (
            ("OK", "OK"),
            ({"a": {"b": [1, "x", 1.5, True]}}, {"a": {"b": [1, "x", 1.5, True]}}),
            (["<&>", "é", "a\r\nb"], ["<&>", "é", "a\r\nb"]),
            (5_000_000_000, 5_000_000_000),
            (iter([1, 2]), [1, 2]),
            ([], []),
            (None, None),
            ("\x00\x07\udcff\uffff", "\ufffd" * 4),
        ):
            self.assertEqual(read(result(given_)), expected)

    def test_bytes(self) -> None:
        """The text is as OpenSIPS writes it."""
        self.assertEqual(
            b"".join(result({"WD": "/"})),
            b'<?xml version="1.0" encoding="UTF-8"?>\r\n<methodResponse>\r\n<params><param>\r\n<value><struct><member>'
            b"<name>WD</name><value><string>/</string></value></member></struct></value></param></params>\r\n"
            b"</methodResponse>\r\n",
        )

    def test_no_value(self) -> None:
        """What XML-RPC cannot hold raises."""
        for wrong in (object(), b"x", float("nan"), [object()]):
            self.assertRaises(TypeError, list, result(wrong))

    def test_long(self) -> None:
        """A long answer comes in pieces."""
        pieces = list(result(["x" * 1000] * 100))
        self.assertGreater(len(pieces), 2)
        self.assertEqual(read(pieces), ["x" * 1000] * 100)

    def test_faults(self) -> None:
        """An error is a fault; its data stand behind its text."""
        for error, code, text in (
            (MIError(404, "Not found"), 404, "Not found"),
            (MIError(-32601), -32601, "server error. requested method not found"),
            (MIError(-32602, data="why"), -32602, "server error. invalid method parameters (why)"),
        ):
            with self.assertRaises(xmlrpc.client.Fault) as caught:
                read(failure(error))
            self.assertEqual((caught.exception.faultCode, caught.exception.faultString), (code, text))
