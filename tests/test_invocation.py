"""OpenSIPS's command line, understood and run."""

import os
import signal

from twisted.trial.unittest import SynchronousTestCase

from sipgw.invocation import WITHOUT_EFFECT, BadInvocation, understand
from tests.children import HOST, SIPGW, free_port, wait_for
from tests.sipp.harness import Phone
from tests.test_service import ChildTestCase, script

ANSWERING = """
log_level = 2
xlog_level = 2
socket = udp:127.0.0.1:5070
loadmodule "proto_udp.so"
loadmodule "sl.so"
route {
	xlog("asked by $fU of $argv(who)\\n");
	sl_send_reply(200, "OK");
}
"""


class UnderstandTests(SynchronousTestCase):
    """Letters into twistd's words."""

    def test_table(self):
        """Each option means what it means to opensips."""
        for given, twistd in (
            ("-f a.cfg", "--pidfile= sipgw --config a.cfg"),
            ("-F -f a.cfg", "--nodaemon --pidfile= sipgw --config a.cfg"),
            ("-D -f a.cfg", "--nodaemon --pidfile= sipgw --config a.cfg --log-level 4"),
            ("-F --log-json --log-file x", "--nodaemon --pidfile= sipgw --log-json --log-file x"),
            ("-Fdd", "--nodaemon --pidfile= sipgw --log-level 4"),
            ("-P /run/p -u nobody -g nogroup -w /tmp -t /srv", (
                "--pidfile=/run/p --uid=nobody --gid=nogroup --rundir=/tmp --chroot=/srv sipgw"
            )),
            ("-l udp:127.0.0.1:5070 -l tcp:127.0.0.1 -A 192.0.2.1 -o a=b", (
                "--pidfile= sipgw --socket udp:127.0.0.1:5070 --socket tcp:127.0.0.1 --advertised 192.0.2.1 -o a=b"
            )),
        ):
            self.assertEqual(" ".join(understand(given.split()).arguments()), twistd)

    def test_preprocessor(self):
        """The preprocessor's command is one word of ours."""
        self.assertEqual(understand(["-p", "m4 -P"]).arguments()[-2:], ["--preprocessor", "m4 -P"])

    def test_without_effect(self):
        """What has no meaning here is accepted, and named with why."""
        takes = {letter: [] if letter in ("-i", "-r", "-R", "-v") else ["8"] for letter in WITHOUT_EFFECT}
        for letter, value in takes.items():
            (note,) = understand([letter, *value]).notes
            self.assertIn(f"no effect, {WITHOUT_EFFECT[letter]}", note)

    def test_refused(self):
        """What opensips does not take is refused."""
        for given in (["-Z"], ["-f"], ["-F", "extra"]):
            self.assertRaises(BadInvocation, understand, given)


class RunTests(ChildTestCase):
    """The console script as opensips is called."""

    def run_main(self, *arguments):
        """Run it to its end; status and output."""
        child = self.start(SIPGW, *arguments)
        return child.wait(), child.text()

    def test_check(self):
        """-c and -C look at the file only."""
        good, bad = script(self, ANSWERING), script(self, "route { nothing(); }")
        self.assertEqual(self.run_main("-c", "-f", str(good))[0], 0)
        status, text = self.run_main("-C", "-f", str(bad))
        self.assertEqual((status, "there is no function nothing()" in text), (255, True))

    def test_version(self):
        """-V and -h."""
        self.assertIn("version: sipgw", self.run_main("-V")[1])
        self.assertIn("-f FILE", self.run_main("-h")[1])
        self.assertEqual(self.run_main("-Z")[0], 255)

    def test_daemon(self):
        """A daemon: pid file, log file that is opened anew after it was moved, privileges left behind, SIGTERM."""
        port = free_port()
        config = script(self, ANSWERING)
        folder = config.parent
        pid_file, log_file = folder / "pid", folder / "log"
        user = ["-u", "nobody", "-g", "nogroup"] if os.geteuid() == 0 else []
        arguments = ["-f", str(config), "-m", "64", "-P", str(pid_file), "-o", "who=me", "-l", f"udp:{HOST}:{port}"]
        arguments += ["-w", str(folder), "--log-file", str(log_file)]
        status, text = self.run_main(*arguments, *user)
        self.assertEqual((status, "-m 64: no effect" in text), (0, True), text)
        wait_for(lambda: pid_file.exists() and pid_file.read_text().strip().isdigit(), "there is a pid file")
        pid = int(pid_file.read_text())
        self.addCleanup(self.kill, pid)
        phone = Phone(port)
        self.addCleanup(phone.close)
        wait_for(lambda: phone.request("OPTIONS", f"sip:{HOST}:{port}", patience=0.2) == 200, "it answers")
        wait_for(lambda: "asked by probe of me" in log_file.read_text(), "the log has the line")
        if user:
            self.assertNotEqual(os.stat(f"/proc/{pid}").st_uid, 0)
        os.chown(folder, os.stat(f"/proc/{pid}").st_uid, -1)
        log_file.rename(folder / "log.1")
        os.kill(pid, signal.SIGUSR1)
        wait_for(log_file.exists, "there is a new log")
        phone.request("OPTIONS", f"sip:{HOST}:{port}")
        wait_for(lambda: "asked by probe of me" in log_file.read_text(), "the new log has the line")
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}") or not pid_file.exists(), "it ends")

    def kill(self, pid):
        """End what is left."""
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
