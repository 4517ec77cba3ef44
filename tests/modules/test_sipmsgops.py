"""Tests of sipgw.modules.sipmsgops, with the results that OpenSIPS gives for the same calls where it does not say otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.sipmsgops import Sipmsgops
from sipgw.script.regex import compile_regex
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.edits import write
from sipgw.sip.message import parse
from tests.doubles import HEAD, FakeVariable, changes, request, response, run_of, written

ops = Sipmsgops()
MORE = (
    "User-Agent: ua1\r\nX-Foo: one\r\nx-foo : two\r\nX-Bar: b\r\nRequire: 100rel, path\r\n"
    "Supported: a,  b ,c\r\nSupported: d\r\n"
)


def run_with(more: str = MORE, **options: Any) -> Run:
    """A run of a request with more headers."""
    return run_of(request(more=more, **options))


class MethodTests(SynchronousTestCase):
    """is_method and has_totag."""

    def test_request(self) -> None:
        """One method or a list of known ones, without case."""
        for method, name, expected in [
            ("OPTIONS", "OPTIONS", True),
            ("OPTIONS", "options", True),
            ("options", "OPTIONS", True),
            ("OPTIONS", "INVITE|OPTIONS", True),
            ("OPTIONS", "INVITE | options | ACK", True),
            ("OPTIONS", " OPTIONS ", True),
            ("OPTIONS", "INVITE", False),
            ("OPTIONS", "INVITE|ACK", False),
            ("FOO", "foo", True),
            ("foo", "FOO", True),
            ("BAR", "FOO", False),
        ]:
            self.assertIs(ops.is_method(run_of(request(method)), name), expected, (method, name))

    def test_reply(self) -> None:
        """Of a reply, the method of CSeq counts."""
        self.assertTrue(ops.is_method(run_of(response(method="INVITE")), "INVITE"))
        self.assertFalse(ops.is_method(run_of(response(method="INVITE")), "BYE"))

    def test_bad_argument(self) -> None:
        """A bad name is refused when the configuration is read, and matches nothing when it comes from a variable."""
        check = next(f for f in Sipmsgops.declared().functions if f.name == "is_method").parameters[0].check
        assert check is not None
        for name in ("", "INVITE|foo", "INVITE|"):
            self.assertRaises(ValueError, check, name)
            run = run_of(request("INVITE"))
            self.assertFalse(ops.is_method(run, name))
            self.assertEqual(len(run.user.logged), 1)

    def test_memory_is_bounded(self) -> None:
        """Names from variables are not remembered without end."""
        run = run_of(request())
        for number in range(1200):
            ops.is_method(run, f"M{number}")
        self.assertLessEqual(len(ops._methods), 500)

    def test_totag(self) -> None:
        """A To tag means a dialog."""
        self.assertFalse(ops.has_totag(run_of(request())))
        self.assertTrue(ops.has_totag(run_of(response())))


class HeaderTests(SynchronousTestCase):
    """Putting headers in and taking them away."""

    def test_append_and_insert(self) -> None:
        """After the last, before the first, or next to the first header of a name."""
        anchors = [None, "Call-ID", "i", "Nope", "X-Foo"]
        for anchor, line in zip(anchors, ["Content-Length: 0", "Call-ID: call1@example.org", "Call-ID: call1@example.org",
                                          "Content-Length: 0", "X-Foo: one"], strict=True):
            run = run_with()
            self.assertTrue(ops.append_hf(run, "P-H: x\r\n", anchor))
            self.assertIn(f"\r\n{line}\r\nP-H: x\r\n", written(run), anchor)
        for anchor, line in zip(anchors, ["Via", "Call-ID", "Call-ID", "Via", "X-Foo"], strict=True):
            run = run_with()
            self.assertTrue(ops.insert_hf(run, "P-H: x", anchor))
            self.assertIn(f"\r\nP-H: x\r\n{line}: ", written(run), anchor)

    def test_order(self) -> None:
        """Calls keep their order."""
        run = run_with()
        for call, text in [(ops.append_hf, "P-1: x"), (ops.append_hf, "P-2: x\r\n"), (ops.insert_hf, "P-3: x\r\n"),
                           (ops.insert_hf, "P-4: x")]:
            call(run, text)
        head = written(run).partition("\r\n\r\n")[0]
        self.assertIn("SIP/2.0\r\nP-3: x\r\nP-4: x\r\nVia", head)
        self.assertTrue(head.endswith("Content-Length: 0\r\nP-1: x\r\nP-2: x"))

    def test_several_lines(self) -> None:
        """One text may be several headers, and folded."""
        run = run_with()
        self.assertTrue(ops.append_hf(run, "P-H: x\r\n y\r\nP-G: y\r\n"))
        self.assertEqual(changes(run)[1], ["P-H: x", " y", "P-G: y"])

    def test_not_a_header(self) -> None:
        """What would break the head is refused and logged; nothing at all is nothing to do."""
        for text in ("junk", "P-H: x\r\n\r\nbody", "P-H: x\nP-G: y", "P-H: x\0", "P-H: x\rP-G: y", "P H: x", ": x",
            "P-H: x\r\njunk\r\n", "\r\n"):
            run = run_with()
            self.assertFalse(ops.append_hf(run, text), text)
            self.assertFalse(ops.insert_hf(run, text), text)
            self.assertFalse(ops.append_to_reply(run, text), text)
            self.assertEqual((changes(run), run.reply_edits, len(run.user.logged)), (([], []), None, 3), text)
        run = run_with()
        self.assertTrue(ops.append_hf(run, ""))
        self.assertTrue(ops.insert_hf(run, ""))
        self.assertTrue(ops.append_to_reply(run, ""))
        self.assertEqual((changes(run), run.reply_edits), (([], []), None))

    @settings(max_examples=300, derandomize=True, deadline=None)
    @given(st.text(st.sampled_from("aX-: \t\r\n\0;\"\x80"), max_size=14))
    def test_head_stays_whole(self, text: str) -> None:
        """Whatever text is given, the message that leaves has its old headers,
            and new ones only if the text had their names."""
        run = run_with("")
        ops.append_hf(run, text)
        ops.insert_hf(run, text)
        again = parse(write(run.message, run.edits))
        old = run.message.names[1:]
        self.assertEqual([name for name in again.names[1:] if name in old], old)
        self.assertEqual(again.body, b"")

    def test_urihf(self) -> None:
        """The received Request-URI, whatever it is now."""
        run = run_with()
        run.uri = "sip:new@x"
        self.assertTrue(ops.append_urihf(run, "CC-Div: <", ">\r\n"))
        self.assertEqual(changes(run), ([], ["CC-Div: <sip:bob@example.org>"]))
        self.assertFalse(ops.append_urihf(run_of(response()), "A: ", ""))

    def test_remove(self) -> None:
        """Every spelling of the name goes; Via stays."""
        for name, gone in [
            ("User-Agent", ["User-Agent: ua1"]),
            ("X-Foo", ["X-Foo: one", "x-foo : two"]),
            ("x-FOO", ["X-Foo: one", "x-foo : two"]),
            ("k", ["Supported: a,  b ,c", "Supported: d"]),
            ("Supported", ["Supported: a,  b ,c", "Supported: d"]),
            ("Nope", []),
            ("X-Foo:", []),
            ("X-*", []),
            ("", []),
            ("Via", []),
        ]:
            run = run_with()
            self.assertIs(ops.remove_hf(run, name), bool(gone), name)
            self.assertEqual(changes(run), (gone, []), name)

    def test_remove_smuggled(self) -> None:
        """A header written oddly is the same header (hardening P4)."""
        run = run_with("P-Asserted-Identity\t: a\r\np-asserted-identity: b\r\nP-ASSERTED-IDENTITY \r\n : c\r\n")
        self.assertTrue(ops.remove_hf(run, "P-Asserted-Identity"))
        self.assertNotIn("sserted", written(run).lower())

    def test_remove_matching(self) -> None:
        """By pattern, as written or as RFCs spell the name, without case."""
        for call, pattern, gone in [
            (ops.remove_hf_re, "^X-", ["X-Foo: one", "x-foo : two", "X-Bar: b"]),
            (ops.remove_hf_re, "foo", ["X-Foo: one", "x-foo : two"]),
            (ops.remove_hf_re, "^x-f.*$", ["X-Foo: one", "x-foo : two"]),
            (ops.remove_hf_re, "nope", []),
            (ops.remove_hf_re, "^Via$", []),
            (ops.remove_hf_glob, "X-*", ["X-Foo: one", "x-foo : two", "X-Bar: b"]),
            (ops.remove_hf_glob, "x-f??", ["X-Foo: one", "x-foo : two"]),
            (ops.remove_hf_glob, "X-[B]*", ["X-Bar: b"]),
            (ops.remove_hf_glob, "Call*", ["Call-ID: call1@example.org"]),
            (ops.remove_hf_glob, "nope", []),
        ]:
            run = run_with()
            remove: Any = call
            argument = compile_regex(pattern) if call == ops.remove_hf_re else pattern
            self.assertIs(remove(run, argument), bool(gone), pattern)
            self.assertEqual(changes(run), (gone, []), pattern)
        run = run_with("k: a\r\n")
        self.assertTrue(ops.remove_hf_glob(run, "Supp*"))
        self.assertEqual(changes(run)[0], ["k: a"])

    def test_present(self) -> None:
        """In any spelling; edits are not seen."""
        run = run_with()
        ops.remove_hf(run, "X-Foo")
        found = [ops.is_present_hf(run, name) for name in ("X-Foo", "x-foo", "k", "Supported", "i", "nope", "")]
        self.assertEqual(found, [True, True, True, True, True, False, False])

    def test_glob_values(self) -> None:
        """Names as written, values unfolded, in order."""
        names, values = FakeVariable(), FakeVariable()
        self.assertTrue(ops.get_glob_headers_values(run_with("X-A: 1\r\n 2\r\nx-a : 3\r\nY: 4\r\n"), "X-*", names, values))
        self.assertEqual((names.values, values.values), (["X-A", "x-a"], ["1 2", "3"]))
        self.assertFalse(ops.get_glob_headers_values(run_with(), "nope", names, values))

    def test_json(self) -> None:
        """The message as it was received."""
        variable = FakeVariable()
        run = run_of(request(head=HEAD, more='X-A: b\r\nX-A: c\r\nX-Q: "q\\"\r\n', body="h\u00e9llo\r\n"))
        self.assertTrue(ops.sip_to_json(run, variable))
        made = json.loads(str(variable.get(None)))
        self.assertEqual((made["first_line"], made["body"]), ("OPTIONS sip:bob@example.org SIP/2.0\r\n", "h\u00e9llo\r\n"))
        self.assertEqual((made["headers"]["X-A"], made["headers"]["X-Q"]), (["b", "c"], ['"q\\"']))
        self.assertTrue(str(variable.get(None)).startswith('{"first_line":"OPTIONS'))
        ops.sip_to_json(run_with(), variable)
        self.assertNotIn("body", json.loads(str(variable.get(None))))


class OptionTests(SynchronousTestCase):
    """Headers that list options."""

    def after(self, *calls: tuple[Callable[..., bool], str, str]) -> tuple[list[bool], list[str], list[str]]:
        """The results of the calls and what became of the headers."""
        run = run_with()
        results = [call(run, name, option) for call, name, option in calls]
        return results, *changes(run)

    def test_has(self) -> None:
        """Any of the headers, without case, whole words."""
        for name, option, expected in [
            ("Supported", "b", True), ("Supported", "B", True), ("Supported", "d", True), ("k", "d", True),
            ("Supported", "x", False), ("Nope", "x", False), ("Require", "pat", False),
        ]:
            self.assertIs(ops.list_hdr_has_option(run_with(), name, option), expected, (name, option))

    def test_add(self) -> None:
        """At the end of the first one, however often."""
        add = ops.list_hdr_add_option
        first = "Supported: a,  b ,c"
        self.assertEqual(self.after((add, "Supported", "zz")), ([True], [first], ["Supported: a,  b ,c,zz"]))
        self.assertEqual(self.after((add, "k", "zz"), (add, "k", "y")), ([True, True], [first], ["Supported: a,  b ,c,zz,y"]))
        self.assertEqual(self.after((add, "Nope", "zz")), ([False], [], []))
        self.assertEqual(self.after((add, "Supported", "z\r\nX: y")), ([False], [], []))

    def test_remove(self) -> None:
        """What is around it stays; a header left empty goes."""
        remove, add = ops.list_hdr_remove_option, ops.list_hdr_add_option
        first = "Supported: a,  b ,c"
        for option, line in [("a", "Supported: b ,c"), ("B", "Supported: a,  c"), ("c", "Supported: a,  b")]:
            self.assertEqual(self.after((remove, "Supported", option)), ([True], [first], [line]), option)
        self.assertEqual(self.after((remove, "Supported", "d")), ([True], ["Supported: d"], []))
        self.assertEqual(self.after((remove, "Supported", "x"), (remove, "Nope", "x")), ([False, False], [], []))
        self.assertEqual(
            self.after((remove, "Supported", "a"), (remove, "Supported", "b"), (remove, "Supported", "c")),
            ([True] * 3, [first], []),
        )
        self.assertEqual(
            self.after((remove, "Supported", "a"), (add, "Supported", "q"), (remove, "Supported", "c")),
            ([True] * 3, [first], ["Supported: b ,q"]),
        )
        self.assertEqual(
            self.after((remove, "Require", "100rel"), (remove, "Require", "path"), (add, "Require", "x")),
            ([True, True, False], ["Require: 100rel, path"], []),
        )

    def test_twice_in_one(self) -> None:
        """Of an option that stands twice in a header the last one goes."""
        run = run_with("Supported: a, b, a, c\r\n")
        self.assertTrue(ops.list_hdr_remove_option(run, "Supported", "a"))
        self.assertEqual(changes(run)[1], ["Supported: a, b, c"])


class ReplyTests(SynchronousTestCase):
    """What goes into replies."""

    def test_append(self) -> None:
        """Whole lines, in order; a Date; a body."""
        run = run_with()
        run.user.seconds = 1795372826.0
        ops.append_to_reply(run, "X-A: 1\r\n")
        ops.append_to_reply(run, "X-B: 2")
        ops.append_time(run)
        ops.append_body_to_reply(run, "one")
        ops.append_body_to_reply(run, "two")
        self.assertEqual(run.reply_edits, ["X-A: 1\r\n", "X-B: 2\r\n", "Date: Sun, 22 Nov 2026 18:40:26 GMT\r\n"])
        self.assertEqual(run.keep()["reply_body"], b"two")

    def test_runs_do_not_share(self) -> None:
        """A run that took over the lines of another adds to its own list."""
        one, other = run_with(), run_with()
        ops.append_to_reply(one, "X-A: 1")
        other.reply_edits = one.reply_edits
        ops.append_to_reply(other, "X-B: 2")
        self.assertEqual(one.reply_edits, ["X-A: 1\r\n"])

    def test_status(self) -> None:
        """A failure becomes another one; what succeeds or is provisional keeps its class."""
        for status, code, ok in [(486, 404, True), (486, 600, True), (180, 183, True), (486, 200, False), (200, 404, False),
                                 (180, 200, False), (486, 99, False)]:
            run = run_of(response(status, "X"))
            self.assertIs(ops.change_reply_status(run, code, "New"), ok, (status, code))
            self.assertTrue(written(run).startswith(f"SIP/2.0 {code} New\r\n" if ok else f"SIP/2.0 {status} X\r\n"))
            self.assertEqual(getattr(run.message, "status", 0), code if ok else status)
        self.assertFalse(ops.change_reply_status(run_of(response(486)), 404, "a\r\nX: y"))
        self.assertFalse(ops.change_reply_status(run_of(request()), 404, "x"))


class UriTests(SynchronousTestCase):
    """The Request-URI and other URIs."""

    def changed(self, call: Callable[..., bool], uri: str, *arguments: str) -> tuple[bool, str]:
        """The result of ``call`` and the Request-URI after it."""
        run = run_of(request(uri=uri))
        return call(run, *arguments), run.uri

    def test_has_param(self) -> None:
        """A parameter without value, or with that one."""
        run = run_of(request(uri="sip:bob@x;a=1;b"))
        for param, value, expected in [("a", None, False), ("a", "1", True), ("A", "1", True), ("b", None, True),
                                       ("b", "", True),
                                       ("c", None, False), ("a", "2", False)]:
            self.assertIs(ops.ruri_has_param(run, param, value), expected, (param, value))

    def test_add_and_delete_param(self) -> None:
        """Parameters come and go before the headers."""
        for call, uri, argument, result in [
            (ops.ruri_add_param, "sip:bob@x", "nat=yes", (True, "sip:bob@x;nat=yes")),
            (ops.ruri_add_param, "sip:bob@x;a=1", ";nat", (True, "sip:bob@x;a=1;nat")),
            (ops.ruri_add_param, "sip:bob@x", "", (True, "sip:bob@x")),
            (ops.ruri_add_param, "sip:bob@x", "a=1 SIP/2.0\r\nX: y", (False, "sip:bob@x")),
            (ops.ruri_del_param, "sip:bob@x;a=1;b", "a", (True, "sip:bob@x;b")),
            (ops.ruri_del_param, "sip:bob@x;a=1;b", "B", (True, "sip:bob@x;a=1")),
            (ops.ruri_del_param, "sip:bob@x;a=1;b", "c", (False, "sip:bob@x;a=1;b")),
        ]:
            self.assertEqual(self.changed(call, uri, argument), result, (uri, argument))

    def test_headers_stay(self) -> None:
        """A parameter is put before ?headers."""
        run = run_of(request())
        run.uri = "sip:bob@x;a=1?h=v"
        ops.ruri_add_param(run, "b")
        self.assertEqual(run.uri, "sip:bob@x;a=1;b?h=v")

    def test_tel(self) -> None:
        """A tel URI becomes a SIP URI at the caller's domain; another stays."""
        for uri, after in [
            ("tel:+1234;phone-context=x", "sip:+1234;phone-context=x@example.org;user=phone"),
            ("tel:1234", "sip:1234@example.org;user=phone"),
            ("sip:bob@x", "sip:bob@x"),
        ]:
            self.assertEqual(self.changed(ops.ruri_tel2sip, uri), (True, after))

    def test_e164(self) -> None:
        """A plus and 2 to 15 digits."""
        for uri, expected in [
            ("sip:+1234@x", True), ("sip:1234@x", False), ("sip:+12a4@x", False), ("junk", False), ("sip:+1@x", False),
            ("sip:+12@x", True),
            ("sip:+123456789012345@x", True), ("sip:+1234567890123456@x", False), ("tel:+1234", True), ("sip:x", False),
            ("sip:+0234@x", True), ("sip:+٣٣٣@x", False),
        ]:
            self.assertIs(ops.is_uri_user_e164(run_of(request()), uri), expected, uri)

    def test_no_uri(self) -> None:
        """A run without a Request-URI has nothing to change."""
        run = run_of(response(), kind=RouteKind.REQUEST)
        self.assertEqual([ops.ruri_has_param(run, "a"), ops.ruri_add_param(run, "a"), ops.ruri_tel2sip(run)], [False] * 3)


class PrivacyTests(SynchronousTestCase):
    """is_privacy."""

    def test_values(self) -> None:
        """Any value of any Privacy header."""
        for more, wanted, expected in [
            ("Privacy: id\r\n", "id", True), ("Privacy: header;id\r\n", "id", True),
            ("Privacy: header; ID ;critical\r\n", "id", True),
            ("Privacy: id\r\n", "header", False), ("", "id", False), ("Privacy: none\r\n", "none", True),
            ("Privacy: id\r\n", "ID", True),
            ("Privacy: header\r\nPrivacy: id\r\n", "id", True), ("Privacy: identity\r\n", "id", False),
        ]:
            self.assertIs(ops.is_privacy(run_with(more), wanted), expected, (more, wanted))
        check = next(f for f in Sipmsgops.declared().functions if f.name == "is_privacy").parameters[0].check
        assert check is not None
        self.assertRaises(ValueError, check, "secret")
