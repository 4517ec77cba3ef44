"""The module manhole: a way into the running server by SSH, for who has a key (twisted.conch).

``ssh -p 5022 localhost`` gives an admin a Python shell in the process, an operator a prompt of management commands. It is off
unless loaded, listens on the loopback address unless told, and knows no passwords."""

from __future__ import annotations

import os
from typing import Any

from sipgw.exports import Module, param
from sipgw.interfaces import Server
from sipgw.modules.mi_amp import parse_address


class Manhole(Module):
    """Lets operators and admins in by SSH."""

    name = "manhole"

    address: str = param("127.0.0.1:5022", "Where to listen, host:port", check=parse_address)
    authorized_keys: str = param("", "The file of the keys that may come in, as OpenSSH writes it; role=admin before a key: for"
                                 " the Python shell, role=operate (or nothing): for management commands")
    host_key: str = param("", "The file of the server's own key, made at the first start; empty: manhole_host_key beside"
                          " authorized_keys")

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.port = 0
        """The TCP port that is listened on, 0 if none is."""
        self._port: Any = None
        self._factory: Any = None

    async def start(self) -> None:
        """Listen."""
        from sipgw.manhole.keys import host_key, read_keys
        from sipgw.manhole.shell import Shell, Tools
        from sipgw.manhole.ssh import ManholeFactory

        if not self.authorized_keys:
            raise ValueError("authorized_keys names no file: nobody could come in")
        if not read_keys(self.authorized_keys):
            self.server.user.log(1, f"manhole: {self.authorized_keys} has no key: nobody can come in")
        key = host_key(self.host_key or os.path.join(os.path.dirname(self.authorized_keys), "manhole_host_key"))
        tools = Tools.of(self.server)
        self._factory = ManholeFactory(self.server, key, self.authorized_keys, lambda who: Shell(tools, who))
        host, port = parse_address(self.address)
        self._port = self.server.reactor.listenTCP(port, self._factory, interface=host)
        self.port = self._port.getHost().port
        name = key.fingerprint()  # type: ignore[no-untyped-call]
        self.server.user.log(2, f"manhole listens on {host}:{self.port}, its key is {name}")

    async def stop(self) -> None:
        """Listen no more, and part with all users."""
        port, self._port = self._port, None
        if port is not None:
            await port.stopListening()
        for client in list(self._factory.clients) if self._factory is not None else ():
            client.transport.abortConnection()
