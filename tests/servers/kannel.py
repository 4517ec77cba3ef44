"""Kannel, an SMS gateway that has nothing of ours: its bearerbox binds to an SMSC, its smsbox speaks HTTP with applications."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.children import HOST, bound, free_port
from tests.servers.private import PrivateServer, folder

BEARERBOX = shutil.which("bearerbox", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SMSBOX = shutil.which("smsbox", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
EMULATOR = "/usr/lib/kannel/test/drive_smpp"

_CONFIG = """
group = core
admin-port = {admin}
admin-interface = {host}
admin-password = bar
smsbox-port = {box}
smsbox-interface = {host}
box-allow-ip = "{host}"
log-level = 1
dlr-storage = internal
sms-combine-concatenated-mo = true
sms-combine-concatenated-mo-timeout = 60

group = smsc
smsc = smpp
smsc-id = sipgw
host = {host}
port = {smsc}
transceiver-mode = true
smsc-username = kannel
smsc-password = pw
system-type = ""
interface-version = 34
enquire-link-interval = 5
reconnect-delay = 1

group = smsbox
bearerbox-host = {host}
bearerbox-port = {box}
sendsms-port = {sendsms}
sendsms-interface = {host}
global-sender = 1000
log-level = 1
mo-recode = true

group = sendsms-user
username = u
password = p
max-messages = 10
concatenation = true

group = sms-service
keyword = default
get-url = "http://{host}:{application}/mo?from=%p&to=%P&text=%b&charset=%C&coding=%c"
max-messages = 0
"""


class Kannel:
    """Both boxes. ``smsc``: the port of the SMSC that it binds to; ``application``: the port of the HTTP server that it tells."""

    def __init__(self, smsc: int, application: int) -> None:
        assert BEARERBOX is not None and SMSBOX is not None
        directory = folder("kannel")
        admin, box, self.sendsms = free_port(), free_port(), free_port()
        config = directory / "kannel.conf"
        config.write_text(
            _CONFIG.format(host=HOST, admin=admin, box=box, sendsms=self.sendsms, smsc=smsc, application=application),
            encoding="utf-8",
        )
        self.directory: Path = directory
        self._boxes = [
            PrivateServer("bearerbox", [BEARERBOX, "-v", "1", str(config)], directory, lambda: bound(box, "tcp")),
            PrivateServer("smsbox", [SMSBOX, "-v", "1", str(config)], directory, lambda: bound(self.sendsms, "tcp")),
        ]

    def start(self) -> None:
        """Start both, without waiting for them."""
        self._boxes[0].start()
        self._boxes[1].start(wait=False)

    def stop(self) -> None:
        """End both."""
        for each in reversed(self._boxes):
            each.kill()

    def log(self) -> str:
        """What they say."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.directory.glob("*.log")))[-4000:]
