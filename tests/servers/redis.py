"""Private Redis servers: one alone for the whole run, and for the tests that need more a cluster, a master with a sentinel, one
that speaks TLS. Nothing is written to a disk; a restarted server is empty."""

from __future__ import annotations

import functools
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.children import HOST, free_port, wait_for
from tests.servers.private import PrivateServer, folder

CLUSTERED = "--cluster-enabled yes --cluster-config-file nodes.conf --cluster-node-timeout 2000".split()
SHARES = [0, 5461, 10923, 16384]
"""Where the slots of each node of the cluster begin."""


def missing() -> str:
    """What keeps tests from running Redis; empty if nothing does."""
    gone = [name for name in ("redis-server", "redis-sentinel") if shutil.which(name) is None]
    return f"not installed: {', '.join(gone)}" if gone else ""


class RedisServer(PrivateServer):
    """One ``redis-server``; ``options`` are more lines of its configuration, as arguments."""

    def __init__(self, *options: str, directory: Path | None = None, port: int = 0, tls: bool = False) -> None:
        self.port = port or free_port()
        self.tls = tls
        """Whether its port speaks TLS, with the files of ``options``."""
        ports = ["--port", "0", "--tls-port", str(self.port)] if tls else ["--port", str(self.port)]
        command = ["redis-server", *ports, "--bind", HOST, "--save", "", "--appendonly", "no", "--daemonize", "no", *options]
        super().__init__("redis", command, directory or folder("redis"), self._serves)

    @property
    def url(self) -> str:
        """Its URL, as ``cachedb_url`` has it."""
        return f"redis://{HOST}:{self.port}/"

    def _serves(self) -> bool:
        if self.tls:
            try:
                socket.create_connection((HOST, self.port), 1).close()
            except OSError:
                return False
            return True
        try:
            return self.ask("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def ask(self, *words: str, patience: float = 5.0) -> bytes:
        """The raw answer to one short command."""
        with socket.create_connection((HOST, self.port), patience) as connection:
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in map(str.encode, words)))
            return connection.recv(65536)


@functools.cache
def redis() -> RedisServer:
    """The Redis server of this run; whoever stops or freezes it restores it."""
    server = RedisServer()
    server.start()
    return server


class RedisCluster:
    """Three masters that share the slots."""

    def __init__(self) -> None:
        self.nodes = [
            RedisServer(*CLUSTERED, port=port)
            for port in cluster_ports(3)
        ]
        for node in self.nodes:
            node.start()
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(SHARES[number]), str(SHARES[number + 1] - 1))
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", HOST, str(node.port))
        wait_for(lambda: all(self._complete(node) for node in self.nodes), "the nodes of the Redis cluster know each other")

    @staticmethod
    def _complete(node: RedisServer) -> bool:
        known = node.ask("CLUSTER", "INFO")
        return b"cluster_state:ok" in known and b"cluster_known_nodes:3" in known

    def replica(self, number: int) -> RedisServer:
        """Another node, which has what one of the masters has, and takes its place when that is gone."""
        made = RedisServer(*CLUSTERED, "--repl-diskless-sync-delay", "0", port=cluster_ports(1)[0])
        made.start()
        self.nodes[1].ask("CLUSTER", "MEET", HOST, str(made.port))
        master = self.nodes[number].ask("CLUSTER", "MYID").split(b"\r\n")[1].decode()
        wait_for(lambda: made.ask("CLUSTER", "REPLICATE", master).startswith(b"+OK"), "the replica knows its master")
        wait_for(lambda: b"master_link_status:up" in made.ask("INFO", "replication"), "the replica has its master's data")
        self.nodes.append(made)
        return made

    @property
    def url(self) -> str:
        """The URL of its first node, which is enough."""
        return self.nodes[0].url

    def stop(self) -> None:
        """End all its nodes."""
        for node in self.nodes:
            node.kill()


def cluster_ports(count: int) -> list[int]:
    """Free ports whose cluster bus (10000 higher) is free too."""
    ports: list[int] = []
    while len(ports) < count:
        port = 20000 + free_port() % 12000
        if all(_free(each) for each in (port, port + 10000)) and port not in ports:
            ports.append(port)
    return ports


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


class WatchedRedis:
    """A master, its replica, and a sentinel that makes the replica master when the master is silent for half a second."""

    def __init__(self) -> None:
        self.master = RedisServer("--repl-diskless-sync-delay", "0")
        self.replica = RedisServer("--replicaof", HOST, str(self.master.port))
        self.master.start()
        self.replica.start()
        wait_for(lambda: b"master_link_status:up" in self.replica.ask("INFO", "replication"), "the replica has its master's data")
        directory = folder("sentinel")
        self.port = free_port()
        config = directory / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind {HOST}\nsentinel monitor calls {HOST} {self.master.port} 1\n"
            "sentinel down-after-milliseconds calls 500\nsentinel failover-timeout calls 2000\n"
        )
        self.sentinel = PrivateServer("sentinel", ["redis-sentinel", str(config)], directory, self._watching)
        self.sentinel.start()

    def _watching(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), 1) as connection:
                connection.sendall(b"SENTINEL REPLICAS calls\r\n")
                connection.settimeout(1)
                known = connection.recv(65536)
        except OSError:
            return False
        return str(self.replica.port).encode() in known and b"master-link-status\r\n$2\r\nok" in known

    @property
    def url(self) -> str:
        """Its URL: the sentinel's address and the name of what it watches."""
        return f"redis://{HOST}:{self.port}/?sentinel=calls"

    def stop(self) -> None:
        """End all three."""
        for server in (self.sentinel, self.master, self.replica):
            server.kill()


def stop_all(servers: Sequence[PrivateServer]) -> None:
    """End some servers."""
    for server in servers:
        server.kill()
