"""What the language accepts and rejects: every line of tests/data/grammar/ was put to a real OpenSIPS.

Each line of ``statements-*.txt`` is the start of a route's body, each of ``definitions-*.txt`` stands at
the top of a file. Where the parser is known to differ, and why, is listed here.
"""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.parser import read

DATA = Path(__file__).parent.parent / "data" / "grammar"

LENIENT = [
    "socket = udp:eth0.100:5070",  # OpenSIPS wants quotes around a name with a digit after a dot or hyphen
    "alias=3cx.example.com",
    "advertised_address=3cx.com",
    "alias=example.com:5060",  # 2.x took a port without a protocol
    "listen=127.0.0.1:5060",  # before 3.0
    "route[any] {exit;}",  # keywords are names of routes, too
    "check_via = +1",
]
STRICT = [
    "if (exit) exit;",  # the real one takes every statement as a condition
    "for ($var(x) in $avp(y)) { break; }",  # the real one starts, and the loop does nothing
    'xlog("L_FOO","x");',  # the real one checks it when it starts
    "if ($si == 10.0.0.0/255.0.255.0) exit;",  # a netmask with holes
]


def lines(name: str) -> list[str]:
    return (DATA / f"{name}.txt").read_text("utf-8").splitlines()


def errors_in(snippet: str) -> list[str]:
    """What is wrong with a statement inside of a route."""
    return [str(e) for e in read(f"route {{ {snippet}\n xlog(\"end\"); }}\nroute[A] {{ exit; }}\n").errors]


def errors_at_top(snippet: str) -> list[str]:
    """What is wrong with a definition."""
    return [str(e) for e in read(f"{snippet}\nroute {{ exit; }}\n").errors]


class GrammarTests(SynchronousTestCase):
    """The verdict of the parser is that of OpenSIPS."""

    def test_statements_accepted(self):
        """Statements that OpenSIPS takes are read without a fault."""
        for snippet in lines("statements-accepted"):
            self.assertEqual(errors_in(snippet), [], snippet)

    def test_statements_rejected(self):
        """Statements that OpenSIPS refuses are refused."""
        for snippet in lines("statements-rejected"):
            self.assertNotEqual(errors_in(snippet), [], snippet)

    def test_definitions_accepted(self):
        """Definitions that OpenSIPS takes are read without a fault."""
        for snippet in lines("definitions-accepted"):
            self.assertEqual(errors_at_top(snippet), [], snippet)

    def test_definitions_rejected(self):
        """Definitions that OpenSIPS refuses are refused."""
        for snippet in lines("definitions-rejected"):
            self.assertNotEqual(errors_at_top(snippet), [], snippet)

    def test_differences(self):
        """Where we knowingly take more, or less."""
        for snippet in LENIENT:
            self.assertEqual(errors_at_top(snippet), [], snippet)
        for snippet in STRICT:
            self.assertNotEqual(errors_in(snippet), [], snippet)

    def test_one_fault_one_error(self):
        """A refused statement does not make what follows it wrong: most give one error."""
        many = [s for s in lines("statements-rejected") if len(errors_in(s)) > 1]
        self.assertLess(len(many), 25, many)
