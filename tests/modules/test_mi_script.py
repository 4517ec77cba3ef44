"""Tests of sipgw.modules.mi_script: a script runs commands on a server that listens on a fake wire."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.exports import Module, mi
from tests.modules.scripted import Scripted


class Teller(Module):
    """Commands to run."""

    name = "teller"

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []
        self.waiting: Deferred[str] = Deferred()

    @mi(recipes=((), ("first",), ("first", "second")))
    def tell(self, first: Any = None, second: Any = None) -> Any:
        """Note what it is told and say how much it was."""
        self.told.append((first, second))
        return {"told": len(self.told)}

    @mi()
    def nothing(self) -> None:
        """Do nothing."""

    @mi()
    def number(self, number: int) -> int:
        """Give it back."""
        return number

    @mi()
    async def wait(self) -> str:
        """Wait."""
        return await self.waiting

    @mi()
    def broken(self) -> Any:
        """Give what is no JSON."""
        return object()

    @mi()
    def missing(self) -> None:
        """Fail."""
        from sipgw.mi.jsonrpc import MIError

        raise MIError(404, "Not there")


class MiScriptTests(SynchronousTestCase):
    """mi() in a script."""

    def run_script(self, body: str, rest: str = "") -> list[str]:
        """What the script logs."""
        self.teller = Teller()
        log = 'xlog("L_ALERT", "$rc $var(ret)");'
        rest += 'route[after] { xlog("L_ALERT", "after $rc $var(ret)"); }'
        self.script = Scripted(f"{body}\n{log}", "mi_script", rest=rest, own=self.teller)
        return self.script.send()

    def test_answers(self) -> None:
        """The result is JSON; a command without one answers "OK"."""
        self.assertEqual(self.run_script('mi("teller:tell a b", $var(ret));'), ['1 {"told":1}'])
        self.assertEqual(self.teller.told, [("a", "b")])
        self.assertEqual(self.run_script('mi(" nothing ", $var(ret));'), ['1 "OK"'])
        self.assertEqual(self.run_script('mi("number 12", $var(ret));'), ["1 12"])
        self.assertEqual(self.run_script('mi("tell $rm");'), ["1 <null>"])
        self.assertEqual(self.teller.told, [("OPTIONS", None)])

    def test_pretty(self) -> None:
        """With pretty_printing it is indented."""
        rest = 'modparam("mi_script", "pretty_printing", 1)\n'
        self.assertEqual(self.run_script('mi("tell", $var(ret));', rest), ['1 {\n\t"told":\t1\n}'])

    def test_errors(self) -> None:
        """A command that fails gives its text, and its code below zero; what is no command, or breaks, gives -1."""
        for command, expected in (
            ("missing", "-404 Not there"),
            ("number x", "-32602 Invalid params"),
            ("number", "-32602 Invalid params"),
            ("nosuch", "-1 Method not found"),
            ("", "-1 Method not found"),
        ):
            self.assertEqual(self.run_script(f'mi("{command}", $var(ret));'), [expected])
        self.assertEqual(self.run_script('mi("missing");'), ["-404 <null>"])
        fault, said = self.run_script('mi("broken", $var(ret));')
        self.assertEqual((fault[:25], said), ("management command broken", "-1 Server error"))

    def test_list(self) -> None:
        """An AVP gives the parameters, in the order in which they were added; those in the command do not count then."""
        self.run_script('$avp(p) = "one"; $avp(p) = 2; mi("tell x", , $avp(p));')
        self.assertEqual(self.teller.told, [("one", 2)])
        self.assertEqual(self.run_script('mi("tell x", $var(ret), $avp(none));'), ['1 {"told":1}'])
        self.assertEqual(self.teller.told, [(None, None)])

    def test_named(self) -> None:
        """A second AVP gives their values, of which one may be a list."""
        body = '$avp(p) = "first"; $avp(v) = "__array(a b)"; $avp(p) = "second"; $avp(v) = 5;'
        self.run_script(body + 'mi("tell", , $avp(p), $avp(v));')
        self.assertEqual(self.teller.told, [(["a", "b"], 5)])
        self.assertEqual(
            self.run_script('$avp(p) = "first"; mi("tell", $var(ret), $avp(p), $avp(v));'),
            ["-2 mi: tell: a parameter has no value"],
        )
        self.assertEqual(
            self.run_script('$avp(p) = "bad"; $avp(v) = 1; mi("tell", $var(ret), $avp(p), $avp(v));'),
            ["-32602 Invalid params"],
        )
        self.run_script('$avp(p) = "first"; $avp(v) = "old"; $avp(v) = "new"; mi("tell", , $avp(p), $avp(v));')
        self.assertEqual(self.teller.told, [("new", None)])

    def test_waits(self) -> None:
        """The script goes on when the command has ended, plainly written or with async()."""
        for body, expected in (
            ('mi("wait", $var(ret));', '1 "done"'),
            ('async(mi("wait", $var(ret)), after);', 'after 1 "done"'),
        ):
            self.assertEqual(self.run_script(body), [])
            self.teller.waiting.callback("done")
            self.assertEqual(self.script.logged(), [expected])

    def test_only_avps(self) -> None:
        """Other variables than AVPs are refused when the configuration is read."""
        for arguments in ("$var(x)", "$avp(x), $hdr(Via)"):
            body = f'mi("tell", , {arguments});'
            with self.assertRaises(AssertionError) as caught:
                Scripted(body, "mi_script")
            self.assertIn("is a $avp, not a $", str(caught.exception))


