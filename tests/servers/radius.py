"""A private FreeRADIUS with some users: digest (RFC 5090), a plain password, groups; what it accounts lands in a file."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

from tests.children import HOST, bound, free_port
from tests.servers.private import PrivateServer, folder

RADIUSD = shutil.which("freeradius", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])) or ""
SECRET = "geheim"

_CONFIG = """
raddbdir = {directory}
confdir = {directory}
logdir = {directory}
run_dir = {directory}
libdir = /usr/lib/freeradius
pidfile = {directory}/radiusd.pid
max_request_time = 5
max_requests = 4096
cleanup_delay = 0
security {{
    max_attributes = 200
    reject_delay = 0
    status_server = no
}}
client tests {{
    ipaddr = {host}
    secret = {secret}
    require_message_authenticator = yes
}}
modules {{
    digest {{
    }}
    pap {{
    }}
    files {{
        usersfile = {directory}/users
    }}
    detail {{
        filename = {directory}/accounts
    }}
}}
server default {{
    listen {{
        type = auth
        ipaddr = {host}
        port = {auth}
    }}
    listen {{
        type = acct
        ipaddr = {host}
        port = {acct}
    }}
    authorize {{
        digest
        files
        pap
    }}
    authenticate {{
        digest
        Auth-Type PAP {{
            pap
        }}
    }}
    accounting {{
        detail
    }}
}}
"""

_DICTIONARY = """
ATTRIBUTE	Sip-Uri-User	208	string
ATTRIBUTE	Sip-Uri-Host	209	string
ATTRIBUTE	Sip-Group	211	string
ATTRIBUTE	SIP-AVP		225	string
VALUE	Service-Type	Group-Check	12
"""

_USERS = """
alice@example.org Cleartext-Password := "secret"
	SIP-AVP = "rpid:100",
	SIP-AVP += "#limit#5",
	Reply-Message = "welcome",
	Reply-Message += "again",
	Session-Timeout = 60

plain Cleartext-Password := "hello"

bob Sip-Uri-Host == "example.org", Service-Type == Call-Check, Auth-Type := Accept
	SIP-AVP = "found:yes"

carol Sip-Uri-Host !* ANY, Service-Type == Call-Check, Auth-Type := Accept

dave@example.org Sip-Group == "admins", Service-Type == 12, Auth-Type := Accept
"""


def missing() -> str:
    """What keeps tests from running FreeRADIUS; empty if nothing does."""
    return "" if RADIUSD else "not installed: freeradius"


class RadiusServer(PrivateServer):
    """One FreeRADIUS."""

    def __init__(self) -> None:
        directory = folder("radius")
        self.auth, self.acct = free_port(), free_port()
        values = {"directory": directory, "host": HOST, "secret": SECRET, "auth": self.auth, "acct": self.acct}
        (directory / "radiusd.conf").write_text(_CONFIG.format(**values))
        (directory / "dictionary").write_text(_DICTIONARY)
        (directory / "users").write_text(_USERS)
        command = [RADIUSD, "-f", "-l", "stdout", "-d", str(directory), "-n", "radiusd"]
        super().__init__("freeradius", command, directory, lambda: bound(self.auth) and bound(self.acct))

    def client(self, directory: Path, **more: str | int) -> str:
        """The name of a configuration file for clients of it, in ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        settings = {
            "authserver": f"{HOST}:{self.auth}", "acctserver": f"{HOST}:{self.acct}", "servers": "servers",
            "radius_timeout": 1, "radius_retries": 1, **more,
        }
        (directory / "servers").write_text(f"# secrets\n{HOST} {SECRET}\n")
        file = directory / "radiusclient.conf"
        file.write_text("".join(f"{name}\t{value}\n" for name, value in settings.items()))
        return str(file.absolute())

    def accounted(self) -> str:
        """What it was told."""
        file = self.directory / "accounts"
        return file.read_text() if file.exists() else ""


@functools.cache
def radius() -> RadiusServer:
    """The FreeRADIUS of this run; whoever stops or freezes it restores it."""
    server = RadiusServer()
    server.start()
    return server
