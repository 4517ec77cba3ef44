"""A private RabbitMQ, one for the whole run, with a port mapper (epmd) of its own."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

from tests.children import HOST, bound, free_port
from tests.servers.private import PrivateServer, folder

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"


def missing() -> str:
    """What keeps tests from running RabbitMQ; empty if nothing does."""
    return "" if os.access(SERVER, os.X_OK) and shutil.which("epmd") else "not installed: rabbitmq-server"


class RabbitServer(PrivateServer):
    """One ``rabbitmq-server``; its data is gone with its folder."""

    def __init__(self) -> None:
        self.port = free_port()
        made = folder("rabbitmq")
        self._log = made / "rabbitmq.log"
        mapper = str(free_port())
        (made / "plugins").write_text("[].")
        (made / "rabbit.conf").write_text("loopback_users = none\n")
        settings = {
            "HOME": made, "RABBITMQ_NODENAME": f"sipgw{os.getpid()}@localhost", "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": self.port, "RABBITMQ_DIST_PORT": free_port(), "RABBITMQ_MNESIA_BASE": made / "data",
            "RABBITMQ_LOG_BASE": made, "RABBITMQ_LOGS": "-", "RABBITMQ_PID_FILE": made / "pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": made / "plugins", "RABBITMQ_CONFIG_FILE": made / "rabbit.conf",
            "RABBITMQ_ALLOW_INPUT": 1, "RABBITMQ_SERVER_START_ARGS": "-noinput",
            "ERL_EPMD_PORT": mapper, "ERL_EPMD_ADDRESS": HOST,
        }
        mapping = ["epmd", "-port", mapper, "-address", HOST]
        self._mapper = PrivateServer("epmd", mapping, made, lambda: bound(int(mapper), "tcp"))
        command = ["env", *(f"{name}={value}" for name, value in settings.items()), SERVER]
        super().__init__("rabbitmq", command, made, self._serves)

    def start(self, wait: bool = True) -> None:
        """Start the port mapper, then the server."""
        self._mapper.start()
        super().start(wait)

    def _serves(self) -> bool:
        return Path(self._log).exists() and "Server startup complete" in self._log.read_text(errors="replace")

    @property
    def uri(self) -> str:
        """Its URI, as a ``server_id`` has it."""
        return f"amqp://{HOST}:{self.port}"


@functools.cache
def rabbitmq() -> RabbitServer:
    """The RabbitMQ of this run; whoever stops or freezes it restores it."""
    server = RabbitServer()
    server.start()
    return server
