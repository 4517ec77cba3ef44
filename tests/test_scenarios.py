"""The plays of ``tests/scenarios``, each a test; and the play runner itself."""

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.plays import Play, PlayError, perform
from sipgw.testing import EPOCH, FakeServer, Wire, WiredServer, finished, pass_time

HERE = Path(__file__).parent
SCRIPT = """
socket = udp:127.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
route { sl_send_reply(200, "Fine"); }
"""


class ScenarioTests(SynchronousTestCase):
    """One test for each play; its name is that of the file."""


def _test_of(file):
    def test(self):
        perform(Play.read(file), HERE / "configs")

    test.__doc__ = file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    return test


for _file in sorted((HERE / "scenarios").glob("*.play")):
    setattr(ScenarioTests, f"test_{_file.stem.replace('-', '_')}", _test_of(_file))

WRONG = [
    ("alice sings", "this is no line of a play"),
    ("alice sends WHAT?", "'WHAT?' cannot be sent"),
    ("alice sends INVITE", "to whom does alice send INVITE?"),
    ("alice sends 200", "alice has received no request to answer"),
    ("alice sends BYE", "alice has no dialog"),
    ("alice sends CANCEL", "alice has sent no INVITE"),
    ("alice sends OPTIONS again", "alice has not sent OPTIONS"),
    ("alice receives 200", "alice has received nothing"),
    ("alice sends OPTIONS sip:x\nalice hears nothing", "alice has received 200 to OPTIONS"),
    ("alice sends OPTIONS sip:x\nalice receives 486", "alice has received 200 to OPTIONS"),
    ("alice sends OPTIONS sip:x\nalice receives 200 to BYE", "alice has received 200 to OPTIONS"),
    ("alice sends OPTIONS sip:x\nalice receives 200  Via: 2 values", "Via has 1 values"),
    ("alice sends OPTIONS sip:x\nalice receives 200  Server: x", "Server is 'sipgw'"),
    ("alice sends OPTIONS sip:x\nalice receives 200  no Server", "there is a Server: sipgw"),
    ("alice sends OPTIONS sip:x\nalice receives 200  Subject: *", "there is no Subject"),
    ("alice sends OPTIONS sip:x\nalice receives 200  Subject", "'Subject' is no header"),
    ("alice sends OPTIONS sip:x", "at the end alice has also received 200 to OPTIONS"),
]


class PlayTests(SynchronousTestCase):
    """A play that does not go as written fails with its line."""

    def perform(self, text):
        """Perform a play against a server that finds everything fine."""
        directory = Path(self.mktemp())
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "fine.cfg").write_text(SCRIPT)
        (directory / "x.play").write_text(f"config: fine.cfg\n{text}\n")
        perform(Play.read(directory / "x.play"), directory)

    def test_wrong(self):
        """Each way to be wrong is told."""
        for text, said in WRONG:
            error = self.assertRaises(PlayError, self.perform, text)
            self.assertIn(said, str(error))
            self.assertIn("x.play", str(error))

    def test_right(self):
        """A play whose lines are all true passes; comments and blank lines are nothing."""
        self.perform("\n# nothing\nalice sends OPTIONS sip:x  # ask\nalice receives 200  Server: sip*  Via: 1 value")
        self.perform("nothing is left\n1 h passes")

    def test_left(self):
        """A transaction that is left is told."""
        directory = HERE / "configs"
        file = Path(self.mktemp())
        file.write_text("config: household.cfg\ncarol registers\nalice sends MESSAGE sip:carol@127.0.0.1\nnothing is left\n")
        error = self.assertRaises(PlayError, perform, Play.read(file), directory)
        self.assertIn("1 server transactions", str(error))


class WireTests(SynchronousTestCase):
    """The doubles of ``sipgw/testing.py``."""

    def test_delay_and_loss(self):
        """Datagrams take their time; what is lost and what is sent to nobody is counted; an address is somebody's once."""
        clock = Clock()
        wire = Wire(clock, delay=0.1, loses=lambda data, source, target: data == b"lost")
        heard = []
        wire.socket("192.0.2.1", 5060, lambda data, flow: heard.append((data, flow.host, flow.port)))
        peer = wire.socket("192.0.2.2", 5061, lambda data, flow: None)
        for data, port in ((b"one", 5060), (b"lost", 5060), (b"two", 5060), (b"nobody", 1)):
            peer.send(data, "192.0.2.1", port)
        self.assertEqual(heard, [])
        clock.advance(0.1)
        self.assertEqual(heard, [(b"one", "192.0.2.2", 5061), (b"two", "192.0.2.2", 5061)])
        self.assertEqual(wire.lost, 2)
        self.assertRaises(ValueError, wire.socket, "192.0.2.2", 5061, print)

    def test_order(self):
        """Without delay a datagram arrives when what sent it has returned."""
        wire = Wire(Clock())
        story = []

        def echo(data, flow):
            story.append(data)
            if len(story) < 5:
                flow.send(data + b"x")
                story.append(b"sent")

        wire.socket("a", 1, echo)
        wire.socket("b", 1, echo).send(b"", "a", 1)
        self.assertEqual(story, [b"", b"sent", b"x", b"sent", b"xx"])

    def test_pass_time(self):
        """Each delayed call sees its own time, also those that are made meanwhile."""
        clock = Clock()
        seen = []

        def again():
            seen.append(clock.seconds())
            clock.callLater(2, again)

        clock.callLater(2, again)
        pass_time(clock, 7)
        self.assertEqual((seen, clock.seconds()), ([2, 4, 6], 7))

    def test_finished(self):
        """A coroutine that waits is told apart from one that does not."""

        async def at_once():
            return 5

        async def waits():
            from twisted.internet.defer import Deferred

            await Deferred()

        self.assertEqual(finished(at_once()), 5)
        self.assertRaises(AssertionError, finished, waits())

    def test_fake_server(self):
        """A fake server has a user, a clock, commands, and notes what it is told."""
        server = FakeServer(log_level=3)
        calls = []
        server.later(5, lambda: calls.append(1))
        server.later(6, lambda: calls.append(2)).cancel()
        server.reactor.advance(9)
        server.stop()
        finished(server.reload_routes())
        server.user.log(1, "hello")
        self.assertEqual((calls, server.stopped, server.reloads, server.lines), ([1], True, 1, [(1, "hello")]))
        self.assertEqual(server.user.wall_clock(), EPOCH + 9)
        self.assertEqual(server.commands.names(), [])

    def test_wired_server(self):
        """A script with faults is told with all of them."""
        error = self.assertRaises(AssertionError, WiredServer, SCRIPT + 'loadmodule "nosuch.so"')
        self.assertIn("nosuch", str(error))

    def test_datagrams_only(self):
        """Of a script that listens on TCP too, the UDP sockets are opened on the wire."""
        server = WiredServer(SCRIPT + 'loadmodule "proto_tcp.so"\nsocket = tcp:127.0.0.1:5060\n')
        self.assertEqual([str(socket) for socket in server.user.sockets], ["udp:127.0.0.1:5060"])
