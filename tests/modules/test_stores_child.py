"""A server as a process of its own, whose script asks a Redis, a directory and a RADIUS server, while they are there and not."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.children import HOST, free_port, twistd, wait_for
from tests.modules.scripted import request
from tests.servers import radius, redis, slapd

CONFIG = """
socket = udp:{host}:{port}
log_level = 3
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "cachedb_redis.so"
loadmodule "ldap.so"
loadmodule "aaa_radius.so"
modparam("cachedb_redis", "cachedb_url", "{redis}")
modparam("cachedb_redis", "query_timeout", 500)
modparam("ldap", "config_file", "{ldap}")
modparam("aaa_radius", "radius_config", "{radius}")
modparam("aaa_radius", "sets", "in = (User-Name = $var(user), User-Password = $var(password))")

route {{
    $var(redis) = "no";
    $var(ldap) = "no";
    $var(radius) = "no";
    $var(user) = "plain";
    $var(password) = "hello";
    if ($rU == "fast") {{
        sl_send_reply(200, "Fast");
        exit;
    }}
    if (cache_add("redis", "child", 1, 60, $var(n)))
        $var(redis) = "yes";
    if (ldap_search("ldap://people/{base}??sub?(uid=$fU)"))
        $var(ldap) = "yes";
    if (radius_send_auth("in", "in"))
        $var(radius) = "yes";
    sl_send_reply(200, "redis $var(redis) ldap $var(ldap) radius $var(radius)");
}}
"""


class ChildTests(SynchronousTestCase):
    """One process."""

    def setUp(self) -> None:
        gone = redis.missing() or slapd.missing() or radius.missing()
        if gone:
            raise SkipTest(gone)
        self.servers = [redis.redis(), slapd.slapd(), radius.radius()]
        for server in self.servers:
            server.restore()
            self.addCleanup(server.restore)
        self.port = free_port()
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        ldap = directory / "ldap.ini"
        times = "ldap_network_timeout = 300\nldap_client_bind_timeout = 300\nldap_client_search_timeout = 2000\n"
        ldap.write_text(f"[people]\nldap_server_url = {slapd.slapd().url}\n{times}")
        script = directory / "opensips.cfg"
        script.write_text(
            CONFIG.format(
                host=HOST, port=self.port, redis=redis.redis().url, ldap=ldap.absolute(), base=slapd.BASE,
                radius=radius.radius().client(directory / "radius"),
            )
        )
        self.child = twistd(["sipgw", "-c", str(script)], directory)
        self.addCleanup(self.child.kill)
        wait_for(lambda: "listens on" in self.child.text(), "the server serves", self.child)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.settimeout(15)
        self.socket.connect((HOST, self.port))
        self.asked = 0

    def send(self, user: str) -> str:
        """Send a request; its branch."""
        self.asked += 1
        own = f"{HOST}:{self.socket.getsockname()[1]}"
        data = request(uri=f"sip:{user}@{HOST}:{self.port}", branch=f"b{self.asked}", call_id=f"c{self.asked}")
        self.socket.send(data.replace(b"192.0.2.1", own.encode()))
        return f"branch=z9hG4bKb{self.asked}"

    def hear(self, branch: str) -> str:
        """The reason phrase of the answer to that request."""
        while True:
            answer = self.socket.recv(65536).decode()
            if branch in answer:
                return answer.partition("\r\n")[0].split(" ", 2)[2]

    def test_all(self) -> None:
        """All three are asked; frozen they cost those requests their limits, and others nothing; the end comes soon."""
        self.assertEqual(self.hear(self.send("bob")), "redis yes ldap yes radius yes")
        for server in self.servers:
            (server.kill if server is slapd.slapd() else server.freeze)()
        slow = self.send("bob")
        worst = 0.0
        for _ in range(20):
            began = time.monotonic()
            self.assertEqual(self.hear(self.send("fast")), "Fast")
            worst = max(worst, time.monotonic() - began)
        self.assertLess(worst, 0.45)
        self.assertEqual(self.hear(slow), "redis no ldap no radius no")
        began = time.monotonic()
        self.child.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.child.wait(), 0)
        self.assertLess(time.monotonic() - began, 2)
        self.assertNotIn("Traceback", self.child.text())
        self.assertNotIn("geheim", self.child.text())
