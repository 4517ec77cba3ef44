"""Tests of sipgw.modules.textops and sipgw.proxy.text_edits, with the results that OpenSIPS gives for the same calls."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.textops import Textops, read_substitution
from sipgw.script.regex import compile_regex
from sipgw.script.run import Run
from sipgw.script.symbols import ModuleSymbols, Symbols, Variable
from sipgw.sip.edits import write
from sipgw.sip.message import Message, parse
from tests.doubles import HEAD, changes, fake_server, request, response, run_of

BODY = "line one foo\r\nline two foo Foo\r\nlast\r\n"
MORE = "User-Agent: foo bar foo\r\nX-B: foo\r\nContent-Type: text/plain\r\n"


def make() -> Textops:
    """A module on a server whose scripts know $rm, $ru and $null, and $bad, which has line ends."""
    server = fake_server()
    variables = [
        Variable("rm", lambda run: run.message.method),
        Variable("ru", lambda run: run.uri),
        Variable("null", lambda run: None),
        Variable("bad", lambda run: "x\r\nEvil: 1"),
    ]
    server.symbols = Symbols.of([ModuleSymbols("core", variables=tuple(variables))])
    return Textops(server)


ops = make()
PATTERNS = st.sampled_from(["foo", "X-B: foo\r\n", "bar foo\r\nX"])


def run_with(more: str = MORE, body: str = BODY) -> Run:
    """A run of a request with words to find."""
    return run_of(request(more=more, body=body))


def left(run: Run) -> Message:
    """The message as it leaves."""
    made = parse(write(run.message, run.edits))
    assert made.content_length == len(made.body)
    return made


def regex(pattern: str) -> Any:
    """A pattern as the compiler gives it to a function."""
    return compile_regex(pattern)


class SearchTests(SynchronousTestCase):
    """search and search_body."""

    def test_message(self) -> None:
        """Everything as received, lines and body; ^ is any line, . no line end, $ stands before LF."""
        for pattern, expected in [
            ("foo", True), ("FOO BAR", True), ("^OPTIONS", True), ("^options", True), ("^User-Agent", True),
            ("one.*two", False),
            ("one foo$", False), ("one foo\r$", True), ("nope", False), ("line one foo\r\nline", True), ("^^line", True),
        ]:
            self.assertIs(ops.search(run_with(), regex(pattern)), expected, pattern)

    def test_body(self) -> None:
        """Only the body."""
        for pattern, expected in [("foo", True), ("User", False), ("^line two", True), ("foo$", False), ("one.*two", False)]:
            self.assertIs(ops.search_body(run_with(), regex(pattern)), expected, pattern)

    def test_reply(self) -> None:
        """Replies too."""
        self.assertTrue(ops.search(run_of(response(486, "Busy Here")), regex("^SIP/2.0 486 busy")))


class ReplaceTests(SynchronousTestCase):
    """replace, replace_all, search_append, and those for bodies."""

    def check(self, call: Any, pattern: str, text: str, gone: list[str], came: list[str], body: str = BODY) -> None:
        """What the call does to lines and body; nothing if it says so."""
        run = run_with()
        done = call(run, regex(pattern), text)
        self.assertIs(done, bool(gone or came) or body != BODY, (pattern, text))
        message = left(run)
        self.assertEqual(message.body.decode(), body)
        before = [line for line in run.message.lines if "Content-Length" not in line]
        after = [line for line in message.lines if "Content-Length" not in line]
        self.assertEqual([line for line in before if line not in after], gone, (pattern, text))
        self.assertEqual([line for line in after if line not in before], came, (pattern, text))

    def test_in_head(self) -> None:
        """The first match, or all."""
        agent, other = "User-Agent: foo bar foo", "X-B: foo"
        body = BODY.replace("foo", "REP").replace("Foo", "REP")
        self.check(ops.replace, "foo", "REP", [agent], ["User-Agent: REP bar foo"])
        self.check(ops.replace_all, "foo", "REP", [agent, other], ["User-Agent: REP bar REP", "X-B: REP"], body)
        self.check(ops.search_append, "foo", "-APP", [agent], ["User-Agent: foo-APP bar foo"])
        self.check(ops.replace, "example.org", "e.o", ['From: "Alice" <sip:alice@example.org>;tag=a1'],
                   ['From: "Alice" <sip:alice@e.o>;tag=a1'])
        self.check(ops.replace, "^OPTIONS", "INVITE", [], [])
        self.check(ops.search_append, "nope", "x", [], [])
        self.check(ops.replace, "two foo", "2", [], [], BODY.replace("two foo", "2"))

    def test_whole_lines(self) -> None:
        """A line with its end can go; a text of the script may bring another."""
        self.check(ops.replace, "X-B: foo\r\n", "", ["X-B: foo"], [])
        self.check(ops.replace, "X-B: foo\r\nContent-Type: text/plain\r\n", "", ["X-B: foo", "Content-Type: text/plain"], [])
        self.check(ops.replace, "^X-B: .*\n", "X-C: 1\r\nX-D: 2\r\n", ["X-B: foo"], ["X-C: 1", "X-D: 2"])
        self.check(ops.replace, "Content-Length: [0-9]+\r\n", "Content-Length: 38\r\nX-Z: last\r\n", [], ["X-Z: last"])
        self.check(ops.search_append, "X-B: foo", "\r\nX-N: 1", [], ["X-N: 1"])
        self.check(ops.replace, "foo\r\nContent-Type: ", "", ["X-B: foo", "Content-Type: text/plain"], ["X-B: text/plain"])

    def test_head_stays(self) -> None:
        """What would not be a head any more is refused as a whole."""
        for call, pattern, text in [
            (ops.replace, "X-B: foo", "junk"), (ops.replace, "X-B:", "X-B"), (ops.replace, "X-B: foo", ""),
            (ops.replace_all, "foo", "\r\n\r\nbody"), (ops.replace, "foo\r", "x"), (ops.replace, "\nX-B", "X-B"),
            (ops.replace, "\r\n\r\nline", "x"),
            (ops.search_append, "X-B: foo\r", "x"),
        ]:
            run = run_with()
            self.assertFalse(call(run, regex(pattern), text), (pattern, text))
            self.assertEqual(changes(run), ([], []), (pattern, text))

    def test_in_body(self) -> None:
        """Only there, the first match or all."""
        every = BODY.replace("foo", "REP").replace("Foo", "REP")
        for call, pattern, text, body in [
            (ops.replace_body, "foo", "REP", BODY.replace("foo", "REP", 1)),
            (ops.replace_body_all, "foo", "REP", every),
            (ops.replace_body_atonce, "foo", "REP", every),
            (ops.replace_body_all, "^line", "L", BODY.replace("line", "L")),
            (ops.replace_body_atonce, "^.+$", "", "\n\n\n"),
            (ops.search_append_body, "foo", "-APP", BODY.replace("foo", "foo-APP", 1)),
            (ops.replace_body_all, "one.*two", "X", BODY),
            (ops.replace_body, "User", "X", BODY),
            (ops.replace_body, "foo", "\u00e9", BODY.replace("foo", "\u00e9", 1)),
        ]:
            self.check(call, pattern, text, [], [], body)

    def test_empty_match(self) -> None:
        """A pattern that matches the empty text is an error."""
        for pattern in ("^", "o*", "$"):
            run = run_with()
            self.assertFalse(ops.replace_body_all(run, regex(pattern), "x"))
            self.assertEqual((changes(run), len(run.user.logged)), (([], []), 1))

    def test_one_after_the_other(self) -> None:
        """All look at the received text."""
        run = run_with()
        ops.replace_body(run, regex("one"), "two")
        ops.replace_body(run, regex("two"), "3")
        self.assertEqual(left(run).body.decode(), BODY.replace("two", "3").replace("one", "two"))
        run = run_with()
        ops.replace(run, regex("User-Agent: foo"), "User-Agent: A")
        ops.replace(run, regex("bar"), "B")
        self.assertIn("User-Agent: A B foo", left(run).lines)

    def test_body_changed_elsewhere(self) -> None:
        """A body that something else has changed is looked at as it is then."""
        run = run_with()
        ops.replace_body(run, regex("one"), "1")
        run.edits = run.edits.body(b"new foo one")
        self.assertTrue(ops.replace_body(run, regex("one"), "2"))
        self.assertTrue(ops.replace_body(run, regex("foo"), "3"))
        self.assertEqual(left(run).body, b"new 3 2")

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.text(st.sampled_from("aX-: \t\r\n\0;\u00e9"), max_size=12), PATTERNS)
    def test_framing(self, text: str, pattern: str) -> None:
        """Whatever is put in, what leaves is a message with the same body length rules."""
        run = run_with()
        ops.replace(run, regex(pattern), text)
        again = left(run)
        self.assertEqual(again.body, BODY.encode())
        self.assertEqual(again.via.branch, run.message.via.branch)

    def test_utf8(self) -> None:
        """Places are counted in characters where text is not ASCII."""
        run = run_of(request(head=HEAD.replace('"Alice"', '"\u00c4l\u00efce \udcff"')))
        self.assertTrue(ops.replace(run, regex("sip:alice"), "sip:carol"))
        self.assertEqual(changes(run)[1], ['From: "\u00c4l\u00efce \udcff" <sip:carol@example.org>;tag=a1'])


class SubstTests(SynchronousTestCase):
    """subst and its kin."""

    def test_message(self) -> None:
        """Flags, groups, variables, the Request-URI, other separators."""
        agent = "User-Agent: foo bar foo"
        for expression, came in [
            ("/foo/bar/", ["User-Agent: bar bar foo"]),
            ("/foo/bar/g", ["User-Agent: bar bar bar", "X-B: bar"]),
            ("/FOO/bar/g", []),
            ("/FOO BAR/x/i", ["User-Agent: x foo"]),
            (r"/^(User-Agent): (.*) foo/\1: [\2]/", ["User-Agent: [foo bar]"]),
            (r"/X-B: (.*)\r/X-B: $rm $null $$ \1|\0|\r/", []),
            (r"/X-B: (.*)o/X-B: $rm $null$$\1|\0/", ["X-B: OPTIONS $fo|X-B: foo"]),
            ("#foo#a/b#", ["User-Agent: a/b bar foo"]),
            (r"/X-B: foo/X-B: \u|\/|/", ["X-B: sip:bob@example.org|/|"]),
            (r"/bar\/x|bar/\\u/", [r"User-Agent: foo \u foo"]),
            ("/^OPTIONS/INVITE/", []),
            ("/X-B: foo\r\n//", []),
            ("/nope/x/", []),
        ]:
            run = run_with()
            done = ops.subst(run, expression)
            gone = changes(run)[0]
            self.assertIs(done, bool(came or gone), expression)
            self.assertEqual([line for line in changes(run)[1] if "Length" not in line], came, expression)
            self.assertTrue(set(gone) <= {agent, "X-B: foo", "Content-Length: 38"}, expression)

    def test_documented(self) -> None:
        """The example of OpenSIPS's manual: a pattern that takes the CR too and gives it back."""
        run = run_with()
        self.assertTrue(ops.subst(run, r"/^To:(.*)sip:[^@]*@[a-zA-Z0-9.]+(.*)$/t:\1\u\2/ig"))
        self.assertEqual(changes(run), (["To: <sip:bob@example.org>"], ["t: <sip:bob@example.org>"]))

    def test_head_stays(self) -> None:
        """A CR that lands inside a header, and a line that a variable would begin, are refused."""
        for expression in (r"/^(User-Agent): (.*)$/\1: [\2]/", "/X-B: foo/X-B: $bad/", r"/X-B: foo/X-B: x\n/"):
            run = run_with()
            self.assertFalse(ops.subst(run, expression), expression)
            self.assertEqual((changes(run), len(run.user.logged)), (([], []), 1), expression)
        run = run_with()
        self.assertTrue(ops.subst(run, r"/X-B: foo/X-B: x\r\nX-C: y/"))
        self.assertEqual(changes(run)[1], ["X-B: x", "X-C: y"])

    def test_body(self) -> None:
        """Lines, or with s one line."""
        for expression, body in [
            ("/foo/bar/", BODY.replace("foo", "bar", 1)),
            ("/foo/bar/g", BODY.replace("foo", "bar")),
            (r"/^line (.*)$/L \1/g", BODY.replace("line", "L")),
            ("/one.*two/X/s", BODY.replace("one foo\r\nline two", "X")),
            ("/one.*two/X/", BODY),
            ("/foo\r\n/X/g", BODY.replace("foo\r\n", "X").replace("Foo\r\n", "Foo\r\n")),
            ("/o*/x/g", BODY),
            ("/one/$bad/", BODY.replace("one", "x\r\nEvil: 1")),
        ]:
            run = run_with()
            self.assertIs(ops.subst_body(run, expression), body != BODY, expression)
            self.assertEqual(left(run).body.decode(), body, expression)

    def test_uri(self) -> None:
        """The Request-URI as it is now, if it stays one."""
        for expression, uri in [
            ("/bob/alice/", "sip:alice@example.org"), (r"/sip:(.*)@(.*)/sip:\2@\1/", "sip:example.org@bob"),
            ("/b/B/g", "sip:BoB@example.org"), ("/nope/0/g", None), ("/.*/junk/", None), ("/^//", None), ("/bob/$bad/", None),
        ]:
            run = run_with()
            self.assertIs(ops.subst_uri(run, expression), uri is not None, expression)
            self.assertEqual(run.uri, uri or "sip:bob@example.org")

    def test_user(self) -> None:
        """Its user."""
        for expression, uri in [
            ("/bob/alice/", "sip:alice@example.org"), (r"/(.*)b$/$rm\1/", "sip:OPTIONSbo@example.org"), ("/nope/x/", None),
            ("/.*//", "sip:example.org"), ("/b/X/g", "sip:XoX@example.org"), ("/^/00/", None), ("/bob/a@b/", None),
        ]:
            run = run_with()
            self.assertIs(ops.subst_user(run, expression), uri is not None, expression)
            self.assertEqual(run.uri, uri or "sip:bob@example.org")
        self.assertFalse(ops.subst_user(run_of(response()), "/a/b/"))

    def test_checked(self) -> None:
        """A bad expression is refused when the configuration is read, and fails when it comes later."""
        for expression in ("/a/b", "a/b/", "/a/b/x", "/(/b/", "/a/$(/"):
            self.assertRaises(ValueError, read_substitution, expression)
            run = run_with()
            self.assertFalse(ops.subst(run, expression), expression)
            self.assertFalse(ops.subst_uri(run, expression), expression)
            self.assertEqual(len(run.user.logged), 2)
        self.assertFalse(ops.subst_body(run_with(), "/a/$nosuch/"))
