"""A server as a process of its own, whose script asks three SQL databases, while they are there and not."""

from __future__ import annotations

import re
import signal
import socket
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.children import HOST, free_port, twistd, wait_for
from tests.modules.scripted import request
from tests.servers import sql

CONFIG = """
socket = udp:{host}:{port}
log_level = 3
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "db_sqlite.so"
loadmodule "db_mysql.so"
loadmodule "db_postgres.so"
loadmodule "sqlops.so"
modparam("db_mysql", "timeout_interval", 1)
modparam("db_postgres", "timeout", 1)
modparam("sqlops", "db_url", "1 {sqlite}")
modparam("sqlops", "db_url", "2 {postgres}")
modparam("sqlops", "db_url", "3 {mysql}")

startup_route {{
    $var(i) = 1;
    while ($var(i) < 4) {{
        sql_query("CREATE TABLE calls (name VARCHAR(64))", , $var(i));
        $var(i) = $var(i) + 1;
    }}
}}

route {{
    if ($rU == "fast") {{
        sl_send_reply(200, "Fast");
        exit;
    }}
    $var(i) = $(rU{{s.int}});
    sql_query("INSERT INTO calls (name) VALUES ('$ci')", , $var(i));
    sql_query_one("SELECT name FROM calls WHERE name = '$ci'", "$var(found)", $var(i));
    sl_send_reply(200, "$rc");
}}
"""


class SqlChildTests(SynchronousTestCase):
    """One process."""

    def setUp(self) -> None:
        """Start it."""
        gone = sql.missing("postgres") or sql.missing("mysql")
        if gone:
            raise SkipTest(gone)
        self.servers = [sql.postgres(), sql.mariadb()]
        for server in self.servers:
            self.addCleanup(server.restore)
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        urls = {engine: sql.fresh(engine, str(directory)) for engine in sql.ENGINES}
        self.port = free_port()
        script = directory / "opensips.cfg"
        script.write_text(CONFIG.format(host=HOST, port=self.port, **urls))
        self.child = twistd(["sipgw", "-c", str(script)], directory)
        self.addCleanup(self.child.kill)
        wait_for(lambda: "listens on" in self.child.text(), "the server serves", self.child)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.settimeout(20)
        self.socket.connect((HOST, self.port))
        self.asked = 0

    def send(self, user: str) -> str:
        """Send a request; its branch."""
        self.asked += 1
        own = f"{HOST}:{self.socket.getsockname()[1]}"
        data = request(uri=f"sip:{user}@{HOST}:{self.port}", branch=f"b{self.asked}n", call_id=f"o'c{self.asked}")
        self.socket.send(data.replace(b"192.0.2.1", own.encode()))
        return f"branch=z9hG4bKb{self.asked}n"

    def hear(self, branch: str) -> str:
        """The reason phrase of the answer to that request."""
        while True:
            answer = self.socket.recv(65536).decode()
            if branch in answer:
                return answer.partition("\r\n")[0].split(" ", 2)[2].strip()

    def ask(self) -> list[str]:
        """What the three databases say, asked at once."""
        heard: dict[str, str] = {}
        branches = [self.send(str(number)) for number in (1, 2, 3)]
        while len(heard) < len(branches):
            answer = self.socket.recv(65536).decode()
            for branch in branches:
                if branch in answer:
                    heard[branch] = answer.partition("\r\n")[0].split(" ", 2)[2]
        return [heard[branch] for branch in branches]

    def test_all(self) -> None:
        """Frozen servers cost those who ask them a limit once, others nothing; they are found again; the end comes soon."""
        self.assertEqual(self.ask(), ["1", "1", "1"])
        for server in self.servers:
            server.freeze()
        slow = [self.send("2"), self.send("3")]
        worst = 0.0
        for _ in range(20):
            began = time.monotonic()
            self.assertEqual(self.hear(self.send("fast")), "Fast")
            worst = max(worst, time.monotonic() - began)
        self.assertLess(worst, 1)
        self.assertEqual([self.hear(each) for each in slow], ["-1", "-1"])
        down = re.compile(r"ERROR: (?:postgres|mysql)://\S+ is down: no answer within 1 s\n")
        wait_for(lambda: len(down.findall(self.child.text())) == 2, "both are known to be down", self.child)
        began = time.monotonic()
        self.assertEqual(self.ask(), ["1", "-1", "-1"])
        self.assertLess(time.monotonic() - began, 1)
        for server in self.servers:
            server.thaw()
        wait_for(lambda: self.child.text().count("is back") == 2, "both are back", self.child)
        self.assertEqual(self.ask(), ["1", "1", "1"])
        for server in self.servers:
            server.freeze()
        self.send("2")
        self.send("3")
        self.assertEqual(self.hear(self.send("fast")), "Fast")
        began = time.monotonic()
        self.child.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.child.wait(), 0)
        self.assertLess(time.monotonic() - began, 8)
        self.assertNotIn("Traceback", self.child.text())
        self.assertNotIn(sql.PASSWORD, self.child.text())
        self.assertNotIn(sql.ESCAPED, self.child.text())
