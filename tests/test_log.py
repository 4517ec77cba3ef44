"""The log's lines."""

import io
import syslog
from typing import Any

from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from sipgw.log import LEVELS, LONGEST, MAX_FOLDS, Consumer, Folds, LineObserver, log, one_line, to_stream, to_syslog

ESCAPED = [
    ("plain text", "plain text"),
    ("tab\tstays", "tab\tstays"),
    ("a\r\nFake: line", "a\\r\\nFake: line"),
    ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
    ("\x7f\x9b", "\\x7f\\x9b"),
    ("umlaut ü stays", "umlaut ü stays"),
    (b"\xff\xfe".decode("utf-8", "surrogateescape"), "\\xff\\xfe"),
    ("\u2028", "\\u2028"),
    ("\ud800", "\\ud800"),
]


class LineTests(SynchronousTestCase):
    """``one_line`` and the observers."""

    def setUp(self):
        self.lines: list[tuple[int, str]] = []
        self.observer: Any = LineObserver(lambda priority, line: self.lines.append((priority, line)))
        globalLogPublisher.addObserver(self.observer)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)  # type: ignore[arg-type]

    def test_escaped(self):
        """Control characters, line separators and bad bytes are escaped; the rest stays."""
        for text, line in ESCAPED:
            self.assertEqual(one_line(text), line)

    def test_longest(self):
        """A text of any length gives a line of bounded length."""
        self.assertLess(len(one_line("x" * 10**6)), LONGEST + 50)

    def test_levels(self):
        """Each level has OpenSIPS's name and its syslog priority; 0 and numbers beyond the ends are taken as it takes them."""
        for level in range(-4, 6):
            log(level, f"level {level}")
        names = ["ALERT", "ALERT", "CRITICAL", "ERROR", "WARNING", "WARNING", "NOTICE", "INFO", "DBG", "DBG"]
        self.assertEqual([line for _, line in self.lines], [f"{n}: level {i}" for i, n in enumerate(names, -4)])
        self.assertEqual(self.lines[0][0], syslog.LOG_ALERT)
        self.assertEqual(len(LEVELS), 7)

    def test_one_line_an_event(self):
        """What a peer sent cannot begin a line; a newline at the end of the text is no part of it; braces are text."""
        log(3, "From: evil\r\nERROR: all is lost {0} {x}\n")
        self.assertEqual(self.lines, [(syslog.LOG_INFO, "INFO: From: evil\\r\\nERROR: all is lost {0} {x}")])

    def test_prefix(self):
        """The script's log_prefix stands before each line."""
        lines = []
        LineObserver(lambda priority, line: lines.append(line), "edge")({"opensips": 2, "log_format": "up"})
        self.assertEqual(lines, ["edge: NOTICE: up"])

    def test_filter(self):
        """A level filter lets nothing above it through, of ours and of others."""
        lines = []
        observer = LineObserver(lambda priority, line: lines.append(line), consumer=Consumer(-1))
        observer({"opensips": 1, "log_format": "warning"})
        observer({"log_level": LogLevel.warn, "log_format": "warning"})
        observer({"opensips": -1, "log_format": "lost"})
        self.assertEqual(lines, ["ERROR: lost"])

    def test_foreign(self):
        """Events of Twisted and libraries are shown from warnings up."""
        for level in (LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical):
            self.observer({"log_level": level, "log_format": "{level.name}", "level": level})
        self.assertEqual([line for _, line in self.lines], ["WARNING: warn", "ERROR: error", "CRITICAL: critical"])

    def test_flood(self):
        """A line that a library writes again and again is written once a second, with how often; ours are folded elsewhere."""
        now = [0.0]
        folds = Folds(lambda: now[0])
        said = []
        for now[0], text in ((0, "a"), (0.1, "a"), (0.2, "b"), (0.9, "a"), (1.0, "a"), (1.5, "a"), (3.0, "a"), (9.0, "a")):
            said.append(folds.fold(text))
        self.assertEqual(said, ["a", "", "b", "", "a (2 more like this)", "", "a (1 more like this)", "a"])
        for _ in range(3):
            self.observer({"log_level": LogLevel.warn, "log_format": "theirs"})
            self.observer({"opensips": 1, "log_format": "ours"})
        self.assertEqual([line for _, line in self.lines], ["WARNING: theirs"] + 3 * ["WARNING: ours"])
        for number in range(3000):
            folds.fold(f"{number}")
        self.assertLessEqual(len(folds._seen), MAX_FOLDS)

    def test_traceback(self):
        """A bug's traceback is whole, and none of its lines can be taken for an event."""
        try:
            raise RuntimeError("two\nlines")
        except RuntimeError:
            failure = Failure()
        self.observer({"log_level": LogLevel.critical, "log_format": "a bug", "log_failure": failure})
        self.assertEqual(self.lines[0][1], "CRITICAL: a bug")
        self.assertTrue(all(line.startswith("CRITICAL: | ") for _, line in self.lines[1:]), self.lines)
        self.assertIn("RuntimeError", self.lines[-2][1] + self.lines[-1][1])

    def test_stream(self):
        """Lines on a stream have the date with milliseconds; a closed stream is no error."""
        stream = io.StringIO()
        write = to_stream(stream, lambda: 1700000000.25)
        write(syslog.LOG_INFO, "INFO: up")
        self.assertRegex(stream.getvalue(), r"^2023-11-1\dT\d\d:\d\d:20\.250 INFO: up\n$")
        stream.close()
        write(syslog.LOG_INFO, "INFO: up")

    def test_syslog(self):
        """Lines go to syslog with their priority, under the script's name and facility; an unknown facility is refused."""
        sent, opened = [], []
        self.patch(syslog, "openlog", lambda *arguments: opened.append(arguments))
        self.patch(syslog, "syslog", lambda *arguments: sent.append(arguments))
        LineObserver(to_syslog("edge", "LOG_LOCAL0"))({"opensips": -1, "log_format": "lost"})
        self.assertEqual(opened, [("edge", syslog.LOG_PID, syslog.LOG_LOCAL0)])
        self.assertEqual(sent, [(syslog.LOG_ERR, "ERROR: lost")])
        for facility in ("LOG_NOSUCH", "openlog", "LOG_UPTO", "LOG_PID", ""):
            self.assertRaises(ValueError, to_syslog, "edge", facility)
