"""Tests of sipgw.back_to_back: the options of ``twistd sipgw-b2bua``, and the server that they make."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from sipgw.back_to_back import Options
from sipgw.service import check
from tests.children import HOST, TWISTD, free_port, here, twistd, wait_for
from tests.sipp.harness import Phone

GOOD = ["--listen", "udp:127.0.0.1:5060", "--next-hop", "sip:192.0.2.9:5080"]


class OptionTests(SynchronousTestCase):
    """What they make, and refuse."""

    def test_made(self) -> None:
        """A configuration without a fault."""
        for more in (
            [], ["--listen", "tcp:[::1]:5070"], ["--headers", "User-Agent;X-A", "--setup-timeout", "9", "--max-duration", "99"],
        ):
            options = Options()
            options.parseOptions([*GOOD, *more])
            assert options.reading is not None
            self.assertEqual((options.reading.errors, check(options.reading)), ([], 0))
        self.assertIn('modparam("b2b_logic", "max_duration", 99)', options.configuration())

    def test_refused(self) -> None:
        """What would make none is refused, with a word of why."""
        for arguments, why in (
            ([], "must be given"), (GOOD[:2], "must be given"), (["--listen", "5060"], "udp:host:port"),
            ([*GOOD[:2], "--next-hop", "nowhere"], "a SIP URI"), ([*GOOD[:2], "--next-hop", 'sip:a"b'], "a SIP URI"),
            ([*GOOD, "--headers", "a b"], "no name"), ([*GOOD, "--max-duration", "0"], "1 at least"),
            ([*GOOD[:2], "--next-hop", "sip:h;transport=TCP"], "add --listen tcp:"),
            ([*GOOD, "-c", "x.cfg"], "--config is for"), ([*GOOD, "--log-level", "9"], "between"),
        ):
            with self.assertRaisesRegex(UsageError, why):
                Options().parseOptions(arguments)

    def test_show(self) -> None:
        """--show prints it."""
        out = StringIO()
        with redirect_stdout(out), self.assertRaises(SystemExit):
            Options().parseOptions([*GOOD, "--show"])
        self.assertIn('$du = "sip:192.0.2.9:5080";', out.getvalue())


class ChildTests(SynchronousTestCase):
    """A real ``twistd``."""

    def test_plugin(self) -> None:
        """twistd knows it, it answers, and a call that cannot go on is told so."""
        directory = Path(self.mktemp()).absolute()
        port = free_port()
        listening = ["--listen", f"udp:{HOST}:{port}", "--listen", f"tcp:{HOST}:{free_port()}"]
        child = twistd(["sipgw-b2bua", *listening, "--next-hop", f"sip:{HOST}:{free_port()};transport=tcp"], directory)
        self.addCleanup(child.kill)
        phone = Phone(port)
        self.addCleanup(phone.close)
        uri = f"sip:{HOST}:{port}"
        wait_for(lambda: phone.request("OPTIONS", uri, patience=0.1) == 200, "the server answers", child)
        self.assertEqual(phone.request("REGISTER", uri), 405)
        status = phone.request("INVITE", uri, headers=f"Contact: <sip:{HOST}:{phone.port}>\r\n")
        self.assertEqual(status, 503)
        child.process.terminate()
        self.assertEqual(child.wait(), 0)
        helped = here([*TWISTD, "--help"], directory / "help")
        helped.wait()
        self.assertIn("sipgw-b2bua", helped.text())
