"""A private ejabberd: another server, in another language, that a component talks to."""

from __future__ import annotations

import functools
import shutil
import socket
from pathlib import Path

from tests.children import HOST, free_port
from tests.servers.private import PrivateServer, folder
from tests.servers.prosody import COMPONENT, DOMAIN, SECRET, USERS

CONFIG = """
hosts: ["{domain}"]
loglevel: info
listen:
  -
    port: {clients}
    ip: "127.0.0.1"
    module: ejabberd_c2s
  -
    port: {components}
    ip: "127.0.0.1"
    module: ejabberd_service
    access: all
    hosts:
      "{component}":
        password: "{secret}"
auth_method: internal
modules:
  mod_roster: {{}}
  mod_carboncopy: {{}}
  mod_offline: {{}}
  mod_disco: {{}}
  mod_ping: {{}}
"""


def code() -> str:
    """The folder with its compiled code; empty if it is not there."""
    found = sorted(Path("/usr/lib").glob("*/ejabberd-*/ebin/ejabberd.app"))
    return str(found[-1].parent) if found else ""


def missing() -> str:
    """What keeps tests from running ejabberd; empty if nothing does."""
    return "" if shutil.which("erl") and code() else "not installed: ejabberd"


class Ejabberd(PrivateServer):
    """One ejabberd with romeo's account."""

    patience = 60.0
    """Erlang takes its time where many things run."""

    def __init__(self) -> None:
        directory = folder("ejabberd")
        self.clients, self.components = free_port(), free_port()
        (directory / "spool").mkdir()
        config = directory / "ejabberd.yml"
        values = {"domain": DOMAIN, "component": COMPONENT, "secret": SECRET}
        config.write_text(CONFIG.format(clients=self.clients, components=self.components, **values), encoding="utf-8")
        account = f'<<"romeo">>, <<"{DOMAIN}">>, <<"{USERS["romeo"]}">>'
        done = directory / "ready"
        script = (
            f"F = fun F() -> case catch ejabberd_auth:try_register({account}) of "
            f'ok -> file:write_file("{done}", "x"); _ -> timer:sleep(50), F() end end, F().'
        )
        surroundings = [
            f"EJABBERD_CONFIG_PATH={config}", f"EJABBERD_LOG_PATH={directory}/log", f"ERL_CRASH_DUMP={directory}/crash",
            f"HOME={directory}",
        ]
        command = ["erl", "-noinput", "-pa", code(), "-mnesia", "dir", f'"{directory}/spool"', "-s", "ejabberd", "-eval", script]
        self._done = done
        super().__init__("ejabberd", ["env", *surroundings, *command], directory, self._serves)

    def _serves(self) -> bool:
        try:
            socket.create_connection((HOST, self.components), 1).close()
        except OSError:
            return False
        return self._done.exists()


    def says(self) -> str:
        """Its log."""
        return "".join(each.read_text(errors="replace") for each in self.directory.glob("log*/*.log"))


@functools.cache
def ejabberd() -> Ejabberd:
    """The ejabberd of this run."""
    server = Ejabberd()
    server.start()
    return server
