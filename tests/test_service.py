"""The server as a whole: in this process on a fake clock, and as a child that ``twistd`` runs."""

import io
import json
import os
import signal
import socket
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw import service
from sipgw.configuration import reading_of
from sipgw.exports import Module, every
from sipgw.options import Options
from sipgw.script.errors import ScriptErrors
from sipgw.service import STOP_TIME, SipServer, keep_steady, makeService
from sipgw.testing import Phone as Asker
from sipgw.testing import WiredServer, pass_time
from tests.children import HOST, SIPGW, TWISTD, free_port, here, twistd, wait_for
from tests.sipp.harness import Phone

SCRIPT = """
log_level = 3
socket = udp:127.0.0.1:5070
loadmodule "proto_udp.so"
loadmodule "sl.so"
route {
	sl_send_reply(200, "first");
}
"""
FAULTY = """
socket = udp:127.0.0.1:5070
loadmodule "proto_udp.so"
loadmodule "nosuch.so"
modparam("proto_udp", "udp_prot", 5)
route {
	no_such_function();
}
"""


OPTIONS = (
    b"OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKone\r\nMax-Forwards: 70\r\n"
    b"From: <sip:a@192.0.2.7>;tag=a\r\nTo: <sip:127.0.0.1>\r\nCall-ID: a\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
)


def script(case, text=SCRIPT):
    """The name of a file with a script."""
    file = Path(case.mktemp()).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


class Slow(Module):
    """Notes what happens to it; waits where it is told."""

    name = "slow"

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.story: list[str] = []
        self.waits: Deferred[None] | None = None
        self.breaks = False

    async def start(self) -> None:
        """Start, or not."""
        self.story.append("start")
        if self.breaks:
            raise RuntimeError("out of order")
        if self.waits is not None:
            await self.waits

    async def stop(self) -> None:
        """Stop, when told."""
        self.story.append("stop")
        if self.waits is not None:
            await self.waits

    @every(10)
    def tick(self) -> None:
        """Note the time."""
        self.story.append("tick")
        if self.breaks:
            raise RuntimeError("tick")


class Reactor(Clock):
    """A clock that can be stopped."""

    stops = 0

    def stop(self) -> None:
        """Count it."""
        self.stops += 1

    def removeReader(self, _reader: Any) -> None:
        """Nothing is read here."""

    def removeWriter(self, _writer: Any) -> None:
        """Nor written."""


class LifeTests(SynchronousTestCase):
    """Start and stop, on a fake clock."""

    def make(self, text=SCRIPT):
        """A server with a module that is told what to do."""
        self.lines: list[tuple[int, str]] = []
        self.reactor = Reactor()
        server = SipServer(reading_of(text), self.reactor, log=lambda level, text: self.lines.append((level, text)))
        server.configure()
        self.assertEqual([f.render() for f in server.configuration.faults], [])
        self.slow = server.modules["slow"] = Slow(server)
        return server

    def test_auto_aliases(self):
        """With auto_aliases the names that the DNS has for our addresses are ours, at the ports of the sockets."""
        for setting, ours in (("auto_aliases = yes", True), ("", False)):
            server = self.make(SCRIPT.replace("socket = udp:127.0.0.1:5070", f"{setting}\nsocket = udp:127.0.0.1:0"))
            self.patch(service, "names_of", lambda host: [f"name-of-{host}"])
            server.bind()
            [bound] = server.sockets
            self.addCleanup(bound.stop)
            found = [server.user.is_myself("name-of-127.0.0.1", port) for port in (bound.port, 0, bound.port ^ 1)]
            self.assertEqual(found, [ours, ours, False])

    def run_coroutine(self, coroutine):
        """Begin a coroutine; its Deferred."""
        return Deferred.fromCoroutine(coroutine)

    def test_life(self):
        """A module starts, ticks and stops; what a tick raises does not end the ticking."""
        server = self.make()
        self.successResultOf(self.run_coroutine(server.start()))
        self.assertIn("listens on", self.lines[-1][1])
        self.slow.breaks = True
        pass_time(self.reactor, 25)
        self.assertEqual(self.slow.story, ["start", "tick", "tick"])
        self.successResultOf(server.stopService())
        self.assertEqual(self.slow.story[3:], ["stop"])
        pass_time(self.reactor, 25)
        self.assertEqual(len(self.slow.story), 4)

    def test_waiting_start(self):
        """Nothing is served before the modules have started."""
        server = self.make()
        waits = self.slow.waits = Deferred()
        started = self.run_coroutine(server.start())
        self.assertNoResult(started)
        self.assertFalse([text for _, text in self.lines if "listens" in text])
        waits.callback(None)
        self.successResultOf(started)

    def test_broken_start(self):
        """A module that cannot start ends the server with status 1; those that have started are stopped."""
        server = self.make()
        self.slow.breaks = True
        self.successResultOf(self.run_coroutine(server.start()))
        self.assertEqual((server.status, self.reactor.stops), (1, 1))
        self.assertIn((-3, "module slow cannot start: out of order"), self.lines)

    def test_stuck_stop(self):
        """A module that does not stop is left behind after a while."""
        server = self.make()
        self.successResultOf(self.run_coroutine(server.start()))
        self.slow.waits = Deferred()
        stopped = server.stopService()
        self.assertNoResult(stopped)
        self.reactor.advance(STOP_TIME)
        self.successResultOf(stopped)
        self.assertIn("did not stop", self.lines[-1][1])
        self.assertEqual([text for level, text in self.lines if level < -1], [])

    def test_stop_once(self):
        """Being told twice to stop is being told once."""
        server = self.make()
        server.stop()
        server.stop()
        self.assertEqual(self.reactor.stops, 1)

    def test_later(self):
        """What ``later`` calls may raise."""
        server = self.make()
        calls = []
        server.later(5, lambda: calls.append(1))
        server.later(5, lambda: calls[7])
        server.later(5, lambda: calls.append(2)).cancel()
        self.reactor.advance(5)
        self.assertEqual(calls, [1])
        self.assertIn("IndexError", self.lines[-1][1])

    def test_levels(self):
        """The command line's level replaces those of the script; debug_mode is level 4; ``$argv`` has the defines."""
        for text, level, levels in (("", None, (2, 2)), ("debug_mode = yes", None, (4, 2)), ("log_level = 3", -1, (-1, -1))):
            server = SipServer(reading_of(text), None, level=level, defines={"a": "b"})
            self.assertEqual((server.user.log_level, server.user.xlog_level), levels)
            self.assertEqual(server.user.arguments, {"a": "b"})

    def test_observer(self):
        """In the foreground the log goes to stderr; else to syslog if the script wants it, else where twistd puts it."""
        self.patch(sys.modules["sipgw.log"].syslog, "openlog", lambda *_: None)
        for text, foreground, made in (
            ("syslog_enabled = yes", True, True),
            ("syslog_enabled = yes", False, True),
            ("syslog_enabled = no", False, False),
        ):
            observer = SipServer(reading_of(text), None).make_observer(foreground)
            self.assertEqual(observer is not None, made, text)

    def test_steady(self):
        """The reactor's clock is one that nobody sets."""

        class Real:
            seconds = staticmethod(time.time)

            def getDelayedCalls(self):
                return []

        reactor = Real()
        keep_steady(reactor)
        self.assertIs(reactor.seconds, time.monotonic)
        clock = Clock()
        keep_steady(clock)
        self.assertEqual(clock.seconds(), 0)


class RouteTests(SynchronousTestCase):
    """Routes that no message begins."""

    def test_startup(self):
        """startup_route runs once, before anything is served; timer routes run at their intervals."""
        server = WiredServer(
            SCRIPT
            + """
startup_route { xlog("L_NOTICE", "startup $rm\\n"); }
timer_route[often, 5] { xlog("L_NOTICE", "often\\n"); }
timer_route[seldom, 12] { xlog("L_NOTICE", "seldom\\n"); }
"""
        )
        texts = [text.strip() for _, text in server.lines]
        self.assertLess(texts.index("startup DUMMY"), next(i for i, t in enumerate(texts) if "listens" in t))
        del server.lines[:]
        pass_time(server.clock, 15)
        self.assertEqual([text.strip() for _, text in server.lines], ["often", "often", "seldom", "often"])

    def test_startup_vars(self):
        """Each request begins with what startup_route left in ``$var``, whatever the one before made of it."""
        server = WiredServer(
            SCRIPT.replace('sl_send_reply(200, "first");', '$var(n) = $var(n) + 1; xlog("L_NOTICE", "n is $var(n)\n");')
            + "startup_route { $var(n) = 41; }"
        )
        asking = Asker(server.wire, "192.0.2.7")
        for _ in range(2):
            asking.send(OPTIONS, server.address)
        self.assertEqual([text.strip() for _, text in server.lines[-2:]], ["n is 42", "n is 42"])

    def test_waiting_run_and_reload(self):
        """A run that began on the old routes ends on them, whatever is swapped meanwhile."""
        server = WiredServer(SCRIPT)
        old = server.user.routes
        asking = Asker(server.wire, "192.0.2.7")
        waits: Deferred[None] = Deferred()

        async def slow(run):
            await waits
            return server.user.reply(run, 480, "Old")

        assert old.request is not None
        old.request.function, old.request.waits = slow, True
        asking.send(OPTIONS, server.address)
        server.server._swap(server.server.configuration.recompile(reading_of(SCRIPT)))
        asking.send(OPTIONS.replace(b"one", b"two"), server.address)
        waits.callback(None)
        self.assertEqual([message.lines[0] for message in asking.inbox], ["SIP/2.0 200 first", "SIP/2.0 480 Old"])

    def test_reload_faults(self):
        """A reload with faults raises all of them and changes nothing."""
        server = WiredServer(SCRIPT)
        routes = server.user.routes
        error = self.assertRaises(ScriptErrors, server.server.configuration.recompile, reading_of(FAULTY))
        self.assertEqual(len(error.errors), 3)
        self.assertIs(server.user.routes, routes)

    def test_reload_timers(self):
        """The timer routes of the old routes end with them."""
        server = WiredServer(SCRIPT + 'timer_route[old, 5] { xlog("L_NOTICE", "old\n"); }')
        new = SCRIPT + 'timer_route[new, 3] { xlog("L_NOTICE", "new\n"); }'
        server.server._swap(server.server.configuration.recompile(reading_of(new)))
        del server.lines[:]
        pass_time(server.clock, 6)
        self.assertEqual([text.strip() for _, text in server.lines], ["new", "new"])


class OptionsTests(SynchronousTestCase):
    """The command line."""

    def test_default(self):
        """Without a file, the configuration that sipgw ships is read, and it has no fault."""
        options = Options()
        options.parseOptions(["--check"])
        self.assertTrue(options["config"].endswith("default.cfg"))
        assert options.reading is not None
        server = SipServer(options.reading, None)
        server.configure()
        self.assertEqual([f.render() for f in server.configuration.faults], [])

    def test_all(self):
        """All options reach the server."""
        options = Options()
        arguments = ["-c", str(script(self)), "--socket", "udp:127.0.0.1:0", "-o", "a=b=c", "--log-level", "-1"]
        options.parseOptions(arguments)
        self.assertEqual(options["defines"], {"a": "b=c"})
        self.assertEqual(options["log-level"], -1)
        assert options.reading is not None
        self.assertEqual([s.ports for s in options.reading.config.sockets], [((0, 0),)])

    def test_wrong(self):
        """What cannot be meant is refused."""
        from twisted.python.usage import UsageError

        for arguments in (["-o", "a"], ["-o", "=b"], ["--log-level", "9"], ["--log-level", "x"], ["--nosuch"]):
            self.assertRaises(UsageError, Options().parseOptions, arguments)

    def test_make_service(self):
        """A configuration with faults, and ``--check``, end the process with their status; nothing is opened."""
        for text, arguments, status in ((FAULTY, [], 1), (FAULTY, ["--check"], 1), (SCRIPT, ["--check"], 0)):
            options = Options()
            options.parseOptions(["-c", str(script(self, text)), *arguments])
            with redirect_stderr(io.StringIO()) as said:
                error = self.assertRaises(SystemExit, makeService, options)
            self.assertEqual(error.code, status)
            self.assertIn("3 faults" if status else "no fault", said.getvalue())


class ChildTestCase(SynchronousTestCase):
    """Starts children and ends them."""

    def start(self, command, *arguments):
        """Start a command in a directory of its own."""
        directory = Path(self.mktemp()).absolute()
        child = twistd(arguments, directory) if command == "twistd" else here([*command, *arguments], directory)
        self.addCleanup(child.kill)
        return child

    def serving(self, text=SCRIPT, *arguments):
        """A server that answers, and a phone to ask it."""
        self.file = script(self, text)
        port = free_port()
        child = self.start("twistd", "sipgw", "-c", str(self.file), "--socket", f"udp:{HOST}:{port}", *arguments)
        self.phone = Phone(port)
        self.addCleanup(self.phone.close)
        self.uri = f"sip:{HOST}:{port}"
        wait_for(lambda: self.phone.request("OPTIONS", self.uri, patience=0.1), "the server answers", child)
        return child


class ChildTests(ChildTestCase):
    """A real ``twistd``."""

    def test_plugin(self):
        """twistd knows sipgw, and finding it imports no reactor."""
        child = self.start(TWISTD, "--help")
        self.assertEqual(child.wait(), 0)
        self.assertIn("sipgw ", child.text())
        code = "import sys; import sipgw.service, sipgw.options; print('twisted.internet.reactor' in sys.modules)"
        child = self.start([sys.executable, "-c", code])
        child.wait()
        self.assertEqual(child.text(), "False\n")

    def test_faults(self):
        """A bad configuration starts nothing: all faults are listed, the status is 1, there is no traceback."""
        child = self.start("twistd", "sipgw", "-c", str(script(self, FAULTY)))
        self.assertEqual(child.wait(), 1)
        text = child.text()
        for said in ("nosuch", "udp_prot", "no_such_function", "3 faults"):
            self.assertIn(said, text)
        self.assertNotIn("Traceback", text)

    def test_port_in_use(self):
        """A port that somebody has is a fault of the line that wants it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind((HOST, 0))
            text = SCRIPT.replace("5070", str(taken.getsockname()[1]))
            child = self.start("twistd", "sipgw", "-c", str(script(self, text)))
            self.assertEqual(child.wait(), 1)
        self.assertIn(":3:1: cannot listen on udp:127.0.0.1:", child.text())
        self.assertNotIn("Traceback", child.text())

    def test_terminate(self):
        """SIGTERM and SIGINT end the server with status 0."""
        for number in (signal.SIGTERM, signal.SIGINT):
            child = self.serving()
            child.process.send_signal(number)
            self.assertEqual(child.wait(), 0)
            self.assertNotIn("Traceback", child.text())

    def test_reload(self):
        """SIGHUP reads the routes again; a file with faults changes nothing and is told with its lines."""
        child = self.serving()
        self.file.write_text(SCRIPT.replace('200, "first"', '486, "second"'))
        child.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.phone.request("OPTIONS", self.uri) == 486, "the new routes answer", child)
        self.file.write_text(SCRIPT.replace("sl_send_reply", "sl_sent_reply"))
        child.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "are not reloaded: 1 fault" in child.text(), "the faults are told", child)
        self.assertIn("sl_sent_reply", child.text())
        self.assertEqual(self.phone.request("OPTIONS", self.uri), 486)

    def test_module_cannot_start(self):
        """A module that cannot start ends the process with status 1 and one line."""
        text = SCRIPT + 'loadmodule "mi_fifo.so"\nmodparam("mi_fifo", "fifo_name", "/nosuch/fifo")\n'
        child = self.start("twistd", "sipgw", "-c", str(script(self, text)), "--socket", f"udp:{HOST}:0")
        self.assertEqual(child.wait(), 1)
        self.assertIn("module mi_fifo cannot start: [Errno 2] No such file or directory: '/nosuch/fifo'", child.text())
        self.assertNotIn("runs as root", child.text())
        self.assertNotIn("Traceback", child.text())

    def test_daemon(self):
        """As a daemon it goes to the background, writes twistd.log and its pid file, and goes in order."""
        file = script(self)
        directory = Path(self.mktemp()).absolute()
        child = here([*TWISTD, "--pidfile=pid", "sipgw", "-c", str(file), "--socket", f"udp:{HOST}:0"], directory)
        self.assertEqual(child.wait(), 0)
        pid = int((directory / "pid").read_text())
        self.addCleanup(_kill, pid)
        log = directory / "twistd.log"
        wait_for(lambda: log.exists() and "listens on udp:127.0.0.1:" in log.read_text(), "the daemon serves")
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not (directory / "pid").exists(), "the daemon ends")

    def test_daemon_faults(self):
        """Faults are told before the process goes to the background."""
        child = here([*TWISTD, "--pidfile=pid", "sipgw", "-c", str(script(self, FAULTY))], Path(self.mktemp()).absolute())
        self.assertEqual(child.wait(), 1)
        self.assertIn("3 faults", child.text())


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class CommandTests(ChildTestCase):
    """The console script."""

    def test_check(self):
        """``sipgw check`` says what is wrong and ends with 0 or 1."""
        good, bad = script(self), script(self, FAULTY)
        child = self.start(SIPGW, "check", str(good))
        self.assertEqual((child.wait(), child.text()), (0, f"{good}: no fault\n"))
        child = self.start(SIPGW, "check", str(good), str(bad))
        self.assertEqual(child.wait(), 1)
        self.assertIn(f"{bad}: 3 faults", child.text())

    def test_exports(self):
        """``sipgw exports`` prints JSON."""
        child = self.start(SIPGW, "exports")
        self.assertEqual(child.wait(), 0)
        self.assertIn("t_relay", [f["name"] for f in json.loads(child.text())["tm"]["functions"]])

    def test_run(self):
        """``sipgw run`` is ``twistd -n sipgw``."""
        child = self.start(SIPGW, "run", "-c", str(script(self)), "--socket", f"udp:{HOST}:0")
        wait_for(lambda: "listens on" in child.text(), "the server serves", child)
        child.process.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(), 0)

    def test_usage(self):
        """Whoever asks wrongly is told how to ask."""
        child = self.start(SIPGW)
        self.assertEqual(child.wait(), 2)
        self.assertIn("usage: sipgw", child.text())
