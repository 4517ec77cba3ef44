"""Several real servers that share contacts by a real Redis: what one has acknowledged the others know, whatever happens to it."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.children import HOST, Child, bound, free_port, twistd, wait_for
from tests.load.registrations import Registrations, Wish
from tests.servers import redis as servers

CONFIG = """
log_level = 2
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "cachedb_redis.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "mi_datagram.so"
modparam("usrloc", "cachedb_url", "{url}")
modparam("usrloc", "working_mode_preset", "{mode}")
modparam("usrloc", "location_cluster", 1)
modparam("registrar", "min_expires", 0)
modparam("mi_datagram", "socket_name", "udp:{host}:{door}")
socket = udp:{host}:{port}
route {{
	if ($rm == "REGISTER") {{
		save("location");
		exit;
	}}
	if ($rm == "INFO") {{
		remove("location", "sip:$rU@$rd");
		sl_send_reply(200, "$rc");
		exit;
	}}
	lookup("location", "global");
	sl_send_reply(200, "$rc $ru $du $(branch(uri))");
}}
"""


class Peer:
    """One of the servers."""

    def __init__(self, directory: Path, mode: str, url: str) -> None:
        directory.mkdir(parents=True)
        self.port, self.door = free_port(), free_port()
        script = directory / "opensips.cfg"
        script.write_text(CONFIG.format(url=url, mode=mode, host=HOST, port=self.port, door=self.door))
        self.child: Child = twistd(["sipgw", "-c", str(script)], directory)

    def ready(self) -> Peer:
        """Itself, once it serves."""
        wait_for(lambda: "listens on" in self.child.text() and bound(self.port), "the server serves", self.child)
        return self

    def ask(self, user: str, method: str = "MESSAGE") -> str:
        """What it answers to a request to a user, after ``200``."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(10)
            asking.connect((HOST, self.port))
            uri, here = f"sip:{user}@example.org", asking.getsockname()[1]
            asking.send(
                (
                    f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {HOST}:{here};branch=z9hG4bK{time.monotonic_ns()}\r\n"
                    f"Max-Forwards: 70\r\nFrom: <sip:a@example.org>;tag=a\r\nTo: <{uri}>\r\nCall-ID: {time.monotonic_ns()}\r\n"
                    f"CSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
                ).encode()
            )
            return asking.recv(65536).split(b"\r\n")[0].decode().removeprefix("SIP/2.0 200 ")


class SharingTests(SynchronousTestCase):
    """Two servers and a Redis."""

    def setUp(self) -> None:
        if servers.missing():
            raise SkipTest(servers.missing())
        self.redis = servers.redis()
        self.redis.restore()
        self.redis.ask("FLUSHALL")
        self.addCleanup(self.redis.restore)

    def peers(self, mode: str) -> list[Peer]:
        """The servers."""
        directory = Path(self.mktemp()).absolute()
        made = [Peer(directory / name, mode, self.redis.url) for name in "ab"]
        for each in made:
            self.addCleanup(each.child.kill)
        return [each.ready() for each in made]

    def phones(self, peer: Peer, **options: Any) -> Registrations:
        """Phones that register with one of them."""
        made = Registrations(peer.port, **options)
        self.addCleanup(made.close)
        return made

    def test_full_sharing(self) -> None:
        """Contacts are known everywhere at once, also when several change the same user, or one is killed."""
        one, other = self.peers("full-sharing-cachedb-cluster")
        self.known(one, other)
        self.at_once(one, other)
        self.killed(one, other)

    def known(self, one: Peer, other: Peer) -> None:
        """What one has acknowledged the other knows at once."""
        first, second = self.phones(one), self.phones(other)
        first.run([Wish("bob", 600)])
        self.assertEqual(other.ask("bob"), f"1 {first.contact('bob')} <null> <null>")
        second.run([Wish("bob", 600)])
        self.assertEqual(one.ask("bob"), f"1 {first.contact('bob')} <null> {second.contact('bob')}")
        first.run([Wish("bob", 0)])
        self.assertEqual(other.ask("bob"), f"1 {second.contact('bob')} <null> <null>")
        self.assertEqual(one.ask("bob", "INFO"), "1")
        self.assertEqual((other.ask("bob")[:2], self.redis.ask("KEYS", "*")), ("-1", b"*0\r\n"))

    def at_once(self, one: Peer, other: Peer) -> None:
        """Servers that change the same users at the same time lose nothing of each other's."""
        first, second = self.phones(one), self.phones(other)
        come = [Wish(f"u{number % 20}", 600 + number) for number in range(100)]
        second.run(come)
        go = [Wish(f"u{number}", 0) for number in range(20)]
        threads = [Thread(target=first.run, args=(come,)), Thread(target=second.run, args=([*go, *come, *go],))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((set(first.statuses), set(second.statuses)), ({200}, {200}))
        for number in range(20):
            self.assertEqual(one.ask(f"u{number}"), f"1 {first.contact(f'u{number}')} <null> <null>")
        lasts = int(self.redis.ask("TTL", "usrloc:location:u0@example.org")[1:])
        self.assertTrue(650 < lasts <= 681, lasts)

    def killed(self, one: Peer, other: Peer) -> None:
        """What a server has acknowledged before it is killed the other one knows."""
        phones = self.phones(one)
        phones.run([Wish(f"k{number}", 600) for number in range(300)], until=lambda: sum(phones.statuses.values()) > 150)
        one.child.kill()
        unknown = {wish.user for wish, _, _ in phones.open.values()}
        there = {user: (other.ask(user).split()[1], time.time() + 600) for user in phones.promised if user not in unknown}
        self.assertEqual(phones.broken(there), [])
        self.assertGreater(len(there), 100)

    def test_without_redis(self) -> None:
        """Without Redis, or with one that stands still, REGISTERs are answered 503; when it is back they are saved again."""
        one, other = self.peers("full-sharing-cachedb-cluster")
        phones = self.phones(one)
        phones.run([Wish("bob", 600)])
        self.redis.freeze()
        phones.run([Wish("bob", 600), Wish("bob", 0), Wish("ann", 600)])
        self.assertEqual(phones.statuses, {200: 1, 503: 3})
        self.assertLess(phones.longest, 5)
        self.redis.thaw()
        self.saved_soon(phones)
        self.redis.stop()
        phones.run([Wish("eve", 600)])
        self.assertEqual((phones.statuses[503], other.ask("ann").split()[0]), (4, "-3"))
        self.redis.start()
        self.saved_soon(phones)
        self.assertEqual(other.ask("ann"), f"1 {phones.contact('ann')} <null> <null>")

    def saved_soon(self, phones: Registrations) -> None:
        """Contacts are saved within two seconds."""
        begin = time.monotonic()
        while phones.run([Wish("ann", 600)])[0][1] != 200:
            phones.statuses[503] -= 1
            self.assertLess(time.monotonic(), begin + 2)

    def test_federation(self) -> None:
        """Calls go by way of the server that a user has registered with; it has its contacts itself."""
        one, other = self.peers("federation-cachedb-cluster")
        phones, far = self.phones(one), self.phones(other)
        phones.run([Wish("bob", 600)])
        self.assertEqual(one.ask("bob"), f"1 {phones.contact('bob')} <null> <null>")
        self.assertEqual(other.ask("bob"), f"1 sip:bob@example.org sip:{HOST}:{one.port} <null>")
        far.run([Wish("bob", 300)])
        self.assertEqual(other.ask("bob"), f"1 {far.contact('bob')} <null> sip:bob@example.org")
        phones.run([Wish("bob", 0)])
        self.assertEqual(other.ask("bob"), f"1 {far.contact('bob')} <null> <null>")
        lasts = int(self.redis.ask("TTL", "usrloc-homes:location:bob@example.org")[1:])
        self.assertTrue(290 < lasts <= 301, lasts)
        self.redis.stop()
        phones.run([Wish("ann", 600)])
        self.assertEqual(phones.statuses, {200: 2, 503: 1})
        self.assertEqual(other.ask("bob"), f"1 {far.contact('bob')} <null> <null>")
        self.redis.start()
