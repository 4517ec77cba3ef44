"""Lines of the log as JSON objects: what they say, and what they know of the message that was being handled."""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from sipgw.log import LineObserver
from sipgw.log_json import JsonObserver
from sipgw.testing import EPOCH, Phone, WiredServer
from tests.children import wait_for
from tests.modules.scripted import request
from tests.test_service import ChildTestCase

SCRIPT = """
log_level = 3
xlog_level = 3
socket = udp:127.0.0.1:5070
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "cfgutils.so"
route {
    xlog("L_INFO", "evil $hdr(X-Evil)");
    route(inner);
    sl_send_reply(200, "OK");
}
route[inner] {
    xlog("L_WARN", "inside");
    async(sleep(1), later);
}
route[later] {
    xlog("L_ERR", "awake");
    sl_send_reply(200, "OK");
}
"""
CALM = SCRIPT.replace("async(sleep(1), later);", "return(1);")


class ObserverTests(SynchronousTestCase):
    """Events into objects."""

    def setUp(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.observer: Any = JsonObserver(lambda priority, line: self.lines.append((priority, line)), "edge", clock=lambda: EPOCH)

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for _, line in self.lines]

    def test_object(self) -> None:
        """An event is one object in one line, whatever it says."""
        self.observer({"opensips": -1, "log_format": "{text}", "text": 'a\r\n"b" \x1b \udcff'})
        expected = {"time": "2023-11-14T22:13:20.000Z", "level": "ERROR", "text": 'a\\r\\n"b" \\x1b \\xff', "pid": os.getpid(),
                    "prefix": "edge"}
        self.assertEqual(self.objects(), [expected])
        self.assertNotIn("\n", self.lines[0][1])

    def test_traceback(self) -> None:
        """A bug has its traceback in the same object."""
        try:
            raise RuntimeError("two\nlines")
        except RuntimeError:
            failure = Failure()
        self.observer({"log_level": LogLevel.critical, "log_format": "a bug", "log_failure": failure})
        (made,) = self.objects()
        self.assertEqual((made["level"], made["text"]), ("CRITICAL", "a bug"))
        self.assertIn("RuntimeError: two", " ".join(made["traceback"]))

    def test_context(self) -> None:
        """A line that is written while a message is handled knows the line of the script and the Call-ID, after waiting too."""
        wired = WiredServer(SCRIPT.replace("5070", "5060"), before=self.observe)
        self.lines.clear()
        phone = Phone(wired.wire, "192.0.2.1")
        phone.send(request(more="X-Evil: \x1b[31m\r\n", call_id="abc@x"), wired.address)
        wired.clock.advance(1.1)
        wired.user.log(1, "nothing is going on")
        phone.send(request(more="X-Evil: \x1b[31m\r\n", call_id="abc@x").replace(b"CSeq: 1", b"CSeq: x"), wired.address)
        known = [(made["text"], made.get("cfg", "").rpartition(":")[2], made.get("trace")) for made in self.objects()]
        self.assertEqual(known[:-1], [
            ("evil \\x1b[31m", "10", "abc@x"), ("inside", "15", "abc@x"), ("awake", "19", "abc@x"),
            ("nothing is going on", "", None),
        ])
        self.assertIn("bad message from 192.0.2.1", known[-1][0])
        self.assertEqual(known[-1][1:], ("", "abc@x"))
        self.assertEqual([made.get("call") for made in self.objects()], ["abc", "abc", "abc", None, "abc"])

    def test_plain(self) -> None:
        """A plain line begins with the same in short, whatever a Call-ID has in it; and without, if that is wanted."""
        lines: list[str] = []
        plain = LineObserver(lambda _priority, line: lines.append(line))
        self.observer = plain
        wired = WiredServer(SCRIPT.replace("5070", "5060"), before=self.observe)
        phone = Phone(wired.wire, "192.0.2.1")
        del lines[:]
        phone.send(request(call_id="a]:[" + "x" * 99 + "@x"), wired.address)
        plain.ids = False
        wired.clock.advance(1.1)
        plain.ids = True
        wired.user.log(1, "nothing is going on")
        named = "[a_:_" + "x" * 20 + "]"
        self.assertEqual(lines, [
            f"INFO: {named} evil <null>", f"WARNING: {named} inside", "ERROR: awake", "WARNING: nothing is going on",
        ])

    def observe(self, server: Any) -> None:
        """Let lines of the server come here."""
        server._output = lambda level, text: self.observer({"opensips": level, "log_format": "{text}", "text": text})


class ChildTests(ChildTestCase):
    """``--log-json`` of a real server."""

    def test_lines(self) -> None:
        """All that it writes are objects, on stderr as in a file; where they would go elsewhere it does not start."""
        child = self.serving(CALM, "--log-json")
        wait_for(lambda: "inside" in child.text(), "a line", child)
        made = [json.loads(line) for line in child.text().splitlines() if line.startswith("{")]
        self.assertEqual([line for line in child.text().splitlines() if not line.startswith("{")], [])
        (inside, *_) = [each for each in made if each["text"] == "inside"]
        self.assertEqual((inside["level"], inside["cfg"]), ("WARNING", f"{self.file}:15"))
        child = self.serving(CALM, "--log-json", "--log-file", "log")
        log = child.directory / "log"
        wait_for(lambda: "inside" in log.read_text(), "a line in the file", child)
        self.assertTrue(all(json.loads(line) for line in log.read_text().splitlines()))
        child = self.start("twistd", "--logfile=x", "sipgw", "-c", str(self.file), "--log-json")
        self.assertEqual(child.wait(), 1)
        self.assertIn("--log-json needs", child.text())

    def test_plain(self) -> None:
        """Without it lines name their calls, and what a line of the script says too often is counted; both can be turned off."""
        again = '$var(n) = 30; while ($var(n) > 0) { xlog("L_WARN", "inside"); $var(n) = $var(n) - 1; }'
        flood = CALM.replace('xlog("L_WARN", "inside");', again)
        child = self.serving(flood)
        wait_for(lambda: "more like this" in child.text(), "a count", child)
        inside = [line.partition(" WARNING: ")[2] for line in child.text().splitlines() if "inside" in line]
        self.assertRegex(inside[0], r"^\[[^ ]+\] inside$")
        self.assertRegex(next(line for line in inside if "more" in line), r"^inside \([0-9]+ more like this\)$")
        child = self.serving(flood, "--no-call-ids", "--log-fold", "0")
        wait_for(lambda: child.text().count("WARNING: inside\n") >= 30, "all lines", child)
        self.assertNotIn("more like this", child.text())
