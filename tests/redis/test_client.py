"""Tests of sipgw.redis.client against real servers: alone, frozen, restarted, in a cluster, behind a sentinel, with TLS."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from sipgw.redis.client import Redis
from sipgw.redis.commands import slot
from sipgw.redis.errors import Lost, NoAnswer, RedisFault, Refused, Unreachable
from sipgw.redis.url import parse
from tests.children import HOST
from tests.servers import redis as servers
from tests.servers.private import folder

LIMIT = 0.6
"""Seconds that a command may take in these tests."""


class RedisTestCase(TestCase):
    """Clients that are stopped when a test is over."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        if servers.missing():
            raise SkipTest(servers.missing())
        self.reactor: Any = reactor
        self.broken: list[Any] = []

    def launch(self, coroutine: Any) -> None:
        ensureDeferred(coroutine).addErrback(self.broken.append)

    def tearDown(self) -> Any:
        self.assertEqual([each.getTraceback() for each in self.broken], [])
        return deferLater(self.reactor, 0, lambda: None)

    def client(self, url: str, limit: float = LIMIT, **options: Any) -> Redis:
        made = Redis(parse(url), self.reactor, self.launch, limit=limit, **options)

        def stop() -> Any:
            made.stop()
            return deferLater(self.reactor, 0.02, lambda: None)

        self.addCleanup(stop)
        made.start()
        return made

    async def until(self, condition: Callable[[], Any], patience: float = 10.0) -> Any:
        end = self.reactor.seconds() + patience
        while not (found := condition()):
            self.assertLess(self.reactor.seconds(), end, "waited in vain")
            await deferLater(self.reactor, 0.005, lambda: None)
        return found

    async def served(self, redis: Redis, within: float) -> float:
        """The seconds after which a command is served; never more than ``within``, and each attempt is bounded."""
        began = self.reactor.seconds()
        while True:
            try:
                await redis.command("PING")
                return float(self.reactor.seconds() - began)
            except RedisFault:
                self.assertLess(self.reactor.seconds() - began, within)
                await deferLater(self.reactor, 0.01, lambda: None)

    async def failure(self, redis: Redis, *words: Any) -> tuple[type[Exception], float]:
        """How a command fails, and after how many seconds."""
        began = self.reactor.seconds()
        try:
            await redis.command(*words)
        except RedisFault as error:
            return type(error), self.reactor.seconds() - began
        raise AssertionError(f"{words} went well")


class AloneTests(RedisTestCase):
    """One server."""

    def setUp(self) -> None:
        super().setUp()
        self.server = servers.redis()
        self.server.restore()
        self.server.ask("FLUSHALL")
        self.addCleanup(self.server.restore)

    async def test_commands(self):
        """Values of all kinds, in and out; an error of the server is told as one."""
        redis = self.client(self.server.url)
        self.assertEqual(await redis.command("SET", "k", "ü\udcff\0\r\n"), "OK")
        self.assertEqual(await redis.command("GET", "k"), "ü\udcff\0\r\n")
        self.assertEqual(await redis.command("HSET", "h", "a", 1, "b", 2.5), 2)
        self.assertEqual(await redis.command("HGETALL", "h"), ["a", "1", "b", "2.5"])
        self.assertIsNone(await redis.command("GET", "none"))
        big = "x" * 300_000
        await redis.command("SET", "big", big)
        self.assertEqual(await redis.command("MGET", "big", "none", "h2"), [big, None, None])
        with self.assertRaises(Refused) as caught:
            await redis.command("INCR", "h")
        self.assertEqual(caught.exception.code, "WRONGTYPE")
        self.assertEqual(sorted(await redis.keys("*")), ["big", "h", "k"])

    async def test_database(self):
        """The number of the database in the URL."""
        one, two = self.client(self.server.url + "1"), self.client(self.server.url + "2")
        await one.command("SET", "k", 1)
        self.assertIsNone(await two.command("GET", "k"))

    async def test_users(self):
        """A user of the server's list, and one that it does not have."""
        self.server.ask("ACL", "SETUSER", "alice", "on", ">geheim wort", "~*", "+@all")
        self.addCleanup(self.server.ask, "ACL", "DELUSER", "alice")
        host = f"{HOST}:{self.server.port}"
        self.assertEqual(await self.client(f"redis://alice:geheim%20wort@{host}/").command("PING"), "PONG")
        wrong = self.client(f"redis://alice:falsch@{host}/")
        kind, took = await self.failure(wrong, "PING")
        self.assertIs(kind, Unreachable)
        self.assertIn("WRONGPASS", wrong.nodes[0].fault)
        self.assertNotIn("falsch", wrong.nodes[0].fault)
        self.assertLess(took, LIMIT)

    async def test_scripts_after_restart(self):
        """A script that the server has forgotten is sent again, in the same call."""
        redis = self.client(self.server.url)
        for _ in range(2):
            self.assertEqual(await redis.script("return {KEYS[1], ARGV[1]}", ["k"], [7]), ["k", "7"])
        self.server.kill()
        self.server.start()
        await self.served(redis, 2)
        self.assertEqual(await redis.script("return {KEYS[1], ARGV[1]}", ["k"], [8]), ["k", "8"])

    async def test_killed_under_load(self):
        """No command hangs, what is known to be down fails at once, it is served again within 2 s, nothing is counted twice."""
        redis = self.client(self.server.url)
        outcomes: list[tuple[str, float]] = []
        done = 0
        going = True

        async def caller(number: int) -> None:
            nonlocal done
            while going:
                began = self.reactor.seconds()
                try:
                    await redis.command("INCR", f"{epoch}:{number}")
                    outcomes.append(("done", self.reactor.seconds() - began))
                except RedisFault as error:
                    outcomes.append((type(error).__name__, self.reactor.seconds() - began))
                    await deferLater(self.reactor, 0.002, lambda: None)

        epoch = "first"
        callers = [ensureDeferred(caller(number)) for number in range(20)]
        await self.until(lambda: len(outcomes) > 200)
        epoch = "second"
        self.server.kill()
        await self.until(lambda: any(kind == "Unreachable" for kind, _ in outcomes))
        quick = await self.failure(redis, "GET", "k")
        self.server.start(wait=False)
        before = self.reactor.seconds()
        await self.until(lambda: outcomes[-1][0] == "done", 2)
        self.assertLess(self.reactor.seconds() - before, 2)
        mark = len(outcomes)
        await self.until(lambda: len(outcomes) > mark + 200)
        going = False
        await gatherResults(callers)
        counts = await redis.command("MGET", *(f"second:{number}" for number in range(20)))
        assert isinstance(counts, list)
        counted = sum(int(str(each or 0)) for each in counts)
        served = len([kind for kind, _ in outcomes[mark:] if kind == "done"])
        unknown = len([kind for kind, _ in outcomes if kind == "Lost"])
        self.assertEqual(quick[0], Unreachable)
        self.assertLess(quick[1], LIMIT / 2)
        self.assertLess(max(took for _, took in outcomes), LIMIT + 0.3)
        self.assertGreaterEqual(counted, served)
        self.assertLessEqual(counted, len([kind for kind, _ in outcomes if kind == "done"]) + unknown)

    async def test_lost_is_not_sent_again(self):
        """A count whose connection ends is not sent again, since it may have been done; a read is."""
        redis = self.client(self.server.url + "?pool=1")
        await redis.command("PING")
        pausing = (
            "redis.call('INCR', KEYS[1]) local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end"
            " local start = now() while now() - start < 300000 do end"
        )
        connection = redis.nodes[0]._ready[0]
        with self.assertRaises(Lost):
            asked = ensureDeferred(redis.script(pausing, ["count"]))
            await deferLater(self.reactor, 0.05, connection.transport.abortConnection)
            await asked
        reading = ensureDeferred(redis.command("GET", "count", again=True, limit=5))
        self.assertEqual(await reading, "1")

    async def test_frozen(self):
        """A frozen server costs one command its limit, then none; thawed it serves within 2 s; the reactor goes on."""
        redis = self.client(self.server.url)
        await self.until(lambda: len(redis.nodes[0]._ready) == 4)
        await redis.command("PING")
        self.server.freeze()
        failures = [await self.failure(redis, "INCR", "k") for _ in range(3)]
        self.assertEqual([kind for kind, _ in failures], [NoAnswer, Unreachable, Unreachable])
        self.assertLess(max(took for _, took in failures), LIMIT + 0.2)
        self.assertLess(failures[1][1], LIMIT / 2)
        self.server.thaw()
        self.assertLess(await self.served(redis, 2), 2)

    async def test_paused(self):
        """CLIENT PAUSE is the same as silence, and ends."""
        redis = self.client(self.server.url)
        await redis.command("PING")
        self.server.ask("CLIENT", "PAUSE", "1000")
        self.assertEqual((await self.failure(redis, "INCR", "k"))[0], NoAnswer)
        self.assertLess(await self.served(redis, 2), 2)

    async def test_never_there(self):
        """Nobody at the address: told at once, again and again."""
        self.server.stop()
        redis = self.client(self.server.url)
        for _ in range(3):
            kind, took = await self.failure(redis, "PING")
            self.assertIs(kind, Unreachable)
            self.assertLess(took, LIMIT / 2)
        with self.assertRaises(Unreachable):
            await redis.wait()

    async def test_next_host(self):
        """Of several hosts the next one is taken while one is down."""
        other = servers.RedisServer()
        other.start()
        self.addCleanup(other.kill)
        redis = self.client(f"redis://{HOST}:{other.port},{HOST}:{self.server.port}/")
        await redis.command("SET", "where", "other")
        other.kill()
        await self.served(redis, 2)
        self.assertIsNone(await redis.command("GET", "where"))

    async def test_publish(self):
        """What is published is heard, again after the server was restarted, and each beginning is told."""
        redis = self.client(self.server.url)
        heard: list[str] = []
        begun: list[int] = []
        stop = redis.subscribe("calls", heard.append, lambda: begun.append(1))
        redis.subscribe("other", heard.append)
        await self.until(lambda: begun)
        await redis.publish("calls", "one\0\udcff")
        await redis.publish("other", "two")
        await self.until(lambda: len(heard) == 2)
        self.server.kill()
        self.server.start()
        await self.until(lambda: len(begun) == 2)
        await self.served(redis, 2)
        await redis.publish("calls", "three")
        await self.until(lambda: len(heard) == 3)
        stop()
        await redis.publish("calls", "nobody")
        await redis.publish("other", "four")
        await self.until(lambda: len(heard) == 4)
        self.assertEqual(heard, ["one\0\udcff", "two", "three", "four"])

    async def test_listening_to_the_frozen(self):
        """Whoever listens to a server that is given up listens anew as soon as it serves."""
        redis = self.client(self.server.url)
        heard: list[str] = []
        begun: list[int] = []
        redis.subscribe("calls", heard.append, lambda: begun.append(1))
        await self.until(lambda: begun)
        self.server.freeze()
        await self.failure(redis, "GET", "k")
        self.server.thaw()
        await self.until(lambda: len(begun) == 2, 2)
        await redis.publish("calls", "one")
        await self.until(lambda: heard)

    async def test_unix_socket(self):
        """A server at a path."""
        directory = folder("redis")
        path = directory / "redis.sock"
        server = servers.RedisServer("--unixsocket", str(path), directory=directory)
        server.start()
        self.addCleanup(server.kill)
        redis = self.client(f"redis://localhost/2?socket={path}")
        self.assertEqual(await redis.command("SET", "k", "v"), "OK")


class LoadingTests(RedisTestCase):
    """A server that says -LOADING, played: the real one loads too fast."""

    async def test_loading(self):
        """Commands fail at once while it loads, and are served when it has."""
        from twisted.internet.protocol import Factory, Protocol

        answers = {"now": b"-LOADING Redis is loading the dataset in memory\r\n"}

        class Loading(Protocol):
            transport: Any

            def dataReceived(self, data: bytes) -> None:
                alone = b"-ERR This instance has cluster support disabled\r\n"
                self.transport.write(alone if b"CLUSTER" in data else answers["now"] * data.count(b"*"))

        port = self.reactor.listenTCP(0, Factory.forProtocol(Loading), interface=HOST)
        self.addCleanup(port.stopListening)
        redis = self.client(f"redis://{HOST}:{port.getHost().port}/")
        kind, took = await self.failure(redis, "GET", "k")
        self.assertIs(kind, Unreachable)
        self.assertLess(took, LIMIT / 2)
        answers["now"] = b"+PONG\r\n"
        self.assertLess(await self.served(redis, 2), 2)
        answers["now"] = b"-LOADING again\r\n"
        self.assertIs((await self.failure(redis, "GET", "k"))[0], Unreachable)
        answers["now"] = b"+PONG\r\n"
        self.assertLess(await self.served(redis, 2), 2)


class ClusterTests(RedisTestCase):
    """Three nodes that share the slots."""

    async def test_cluster(self):
        """Commands, scripts and counts go where their keys are, after slots have moved and while they move; a node that is gone
        takes only its own slots with it."""
        cluster = servers.RedisCluster()
        self.addCleanup(cluster.stop)
        redis = self.client(cluster.url + "?pool=2", limit=2.0)
        await gatherResults([ensureDeferred(redis.command("SET", f"k{n}", n)) for n in range(60)])
        self.assertEqual((redis.slots_known, len(redis.nodes)), (16384, 3))
        self.assertEqual([await redis.command("GET", f"k{n}") for n in range(60)], [str(n) for n in range(60)])
        for key in ("foo{}{bar}", "{}", "a{b", "{x}y", "ü"):
            self.assertEqual(await redis.command("CLUSTER", "KEYSLOT", key), slot(key.encode()), key)
        self.assertEqual(sum(int(str(n)) for n in await redis.everywhere("DBSIZE")), 60)
        self.assertEqual(len(await redis.keys("k*")), 60)
        self.assertEqual(await redis.script("return redis.call('INCRBY', KEYS[1], ARGV[1])", ["{u}:n"], [5]), 5)
        await self.move(cluster, redis)
        cluster.nodes[2].kill()
        outcomes = []
        for n in range(60):
            try:
                outcomes.append(await redis.command("GET", f"k{n}"))
            except RedisFault:
                outcomes.append(None)
        self.assertTrue(30 < len([each for each in outcomes if each]) < 60, outcomes)

    @skipUnless(os.environ.get("SIPGW_NIGHTLY"), "a cluster takes seconds to notice")
    async def test_replica(self):
        """A master is gone or frozen, the one of the URL too: its keys are served within 2 s of the new one."""
        for number, key, frozen in [(0, "user1000", False), (2, "foo", False), (2, "foo", True)]:
            cluster = servers.RedisCluster()
            self.addCleanup(cluster.stop)
            replica = cluster.replica(number)
            redis = self.client(cluster.url)
            await redis.command("SET", key, "bar")
            await deferLater(self.reactor, 1.0, lambda: None)  # the replica hears of it, and the other nodes of the replica
            (cluster.nodes[number].freeze if frozen else cluster.nodes[number].kill)()
            slowest = 0.0
            while b"role:master" not in replica.ask("INFO", "replication"):
                slowest = max(slowest, (await self.failure(redis, "GET", key))[1])
                await deferLater(self.reactor, 0.02, lambda: None)
            self.assertLess(slowest, LIMIT + 0.2)
            began = self.reactor.seconds()
            while True:
                try:
                    self.assertEqual(await redis.command("GET", key), "bar")
                    break
                except RedisFault:
                    await deferLater(self.reactor, 0.02, lambda: None)
            self.assertLess(self.reactor.seconds() - began, 2)

    async def move(self, cluster: servers.RedisCluster, redis: Redis) -> None:
        """The slot of ``foo`` (12182) goes from the third node to the first: ASK while it does, MOVED when it has."""
        await redis.command("SET", "foo", "bar")
        first, second, third = cluster.nodes
        ids = [node.ask("CLUSTER", "MYID").split(b"\r\n")[1].decode() for node in cluster.nodes]
        first.ask("CLUSTER", "SETSLOT", "12182", "IMPORTING", ids[2])
        third.ask("CLUSTER", "SETSLOT", "12182", "MIGRATING", ids[0])
        self.assertEqual(await redis.command("GET", "foo"), "bar")
        third.ask("MIGRATE", HOST, str(first.port), "foo", "0", "1000")
        self.assertEqual(await redis.command("GET", "foo"), "bar")
        self.assertEqual(redis.counts.moved.value, 0)
        for node in (first, third, second):
            node.ask("CLUSTER", "SETSLOT", "12182", "NODE", ids[0])
        self.assertEqual(await redis.command("GET", "foo"), "bar")
        self.assertEqual(redis.counts.moved.value, 1)
        self.assertEqual(await redis.command("INCR", "{foo}:n"), 1)
        self.assertEqual(redis.counts.moved.value, 1)


class SentinelTests(RedisTestCase):
    """A master that is watched."""

    async def test_failover(self):
        """The master dies: the replica serves when the sentinel has made it master; every command is bounded."""
        watched = servers.WatchedRedis()
        self.addCleanup(watched.stop)
        redis = self.client(watched.url)
        await redis.command("SET", "k", "v")
        await redis.command("WAIT", 1, 1000, limit=2)
        self.assertEqual(redis.nodes[0].address, (HOST, watched.master.port))
        watched.master.kill()
        await self.until(lambda: b"role:master" in watched.replica.ask("INFO", "replication"), 15)
        self.assertLess(await self.served(redis, 2), 2)
        self.assertEqual(redis.nodes[0].address, (HOST, watched.replica.port))
        self.assertEqual(await redis.command("GET", "k"), "v")
        self.assertEqual(await redis.command("INCR", "n"), 1)


class TlsTests(RedisTestCase):
    """A server with a certificate of a private CA."""

    async def test_verified(self):
        """The CA's file lets us in; without it, or with another name, the server is refused."""
        directory = folder("redis-tls")
        make_certificates(directory)
        files = ["--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem"]
        server = servers.RedisServer(*files, directory=directory, tls=True)
        server.start()
        self.addCleanup(server.kill)
        host = f"redis://{HOST}:{server.port}/"
        own = f"&tls_cert={directory}/client.pem&tls_key={directory}/client.key"
        good = self.client(f"{host}?tls_ca={directory}/ca.pem{own}")
        self.assertEqual(await good.command("SET", "k", "v"), "OK")
        for query in (f"?tls=1{own}", f"?tls_ca={directory}/ca.pem{own}&tls_name=other.example", f"?tls_ca={directory}/ca.pem"):
            kind, _ = await self.failure(self.client(host + query), "PING")
            self.assertIs(kind, Unreachable, query)
        self.assertRaises(ValueError, Redis, parse(f"{host}?tls_ca=/nowhere"), self.reactor, self.launch)
        self.assertRaises(ValueError, Redis, parse(f"{host}?tls_ca={directory}/server.key"), self.reactor, self.launch)


def make_certificates(directory: Path) -> None:
    """A CA, and certificates of it for 127.0.0.1 and for a client."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA", "-days", "2")
    (directory / "names").write_text(f"subjectAltName=IP:{HOST}\n")
    for name in ("server", "client"):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(*f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -out {name}.pem -days 2 -extfile names".split())


