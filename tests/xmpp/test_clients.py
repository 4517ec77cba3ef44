"""Programs that are not ours on both sides: sipp and baresip with slixmpp, go-sendxmpp that listens; through a real Prosody."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from tests.children import HOST, free_port, wait_for
from tests.phones.softphones import BARESIP, Baresip
from tests.servers.prosody import COMPONENT, DOMAIN, USERS, prosody
from tests.sipp.harness import SIPP
from tests.xmpp.rig import Gatewayed

COUNT = 2000 if os.environ.get("SIPGW_NIGHTLY") else 50
RATE = 100
"""Messages in a second."""

SENDER = f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<scenario name="texts to Jabber">
  <send retrans="500"><![CDATA[

MESSAGE sip:romeo@{DOMAIN} SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:alice@{COMPONENT}>;tag=[pid]s[call_number]
To: <sip:romeo@{DOMAIN}>
Call-ID: [call_id]
CSeq: 1 MESSAGE
Max-Forwards: 70
Content-Type: text/plain
Content-Length: [len]

sipp [call_number] end]]></send>
  <recv response="100" optional="true"/>
  <recv response="202"/>
</scenario>
"""
RECEIVER = """<?xml version="1.0" encoding="ISO-8859-1"?>
<scenario name="texts from Jabber">
  <recv request="MESSAGE"/>
  <send><![CDATA[

SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=[pid]r[call_number]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
</scenario>
"""


class SippTests(Gatewayed):
    """sipp sends to slixmpp, and slixmpp to sipp."""

    if not SIPP:
        skip = "not installed: sipp"

    def sipp(self, scenario: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run sipp until it ends."""
        file = Path(self.folder / f"{threading.get_ident()}.xml")
        file.write_text(scenario, encoding="utf-8")
        command = [str(SIPP), f"{HOST}:{self.port}", "-sf", str(file), "-i", HOST, "-nostdin", "-timeout", "60", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, check=False, timeout=90)

    async def test_both_ways(self):
        """One way, then the other."""
        await self.to_jabber()
        await self.to_sip()

    async def to_jabber(self) -> None:
        """Each text is answered 202, and arrives once."""
        romeo = self.jabbers["romeo"]
        done = await deferToThread(self.sipp, SENDER, "-p", str(free_port()), "-m", str(COUNT), "-r", str(RATE))
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        await self.until(lambda: len(romeo.bodies()) >= COUNT)
        self.assertEqual(sorted(romeo.bodies()), sorted(f"sipp {number} end" for number in range(1, COUNT + 1)))

    async def to_sip(self) -> None:
        """Each text of a Jabber client reaches sipp, which is registered as alice, and a receipt says so."""
        port = free_port()
        running: list[Any] = []
        thread = threading.Thread(target=lambda: running.append(self.sipp(RECEIVER, "-p", str(port), "-m", str(COUNT))))
        thread.start()
        contact = f"Contact: <sip:bob@{HOST}:{port}>\r\nExpires: 600\r\n"
        self.assertEqual((await self.ask("REGISTER", f"sip:bob@{COMPONENT}", contact, sender="bob")).status, 200)
        romeo = self.jabbers["romeo"]
        for number in range(COUNT):
            wish = "<request xmlns='urn:xmpp:receipts'/>"
            text = f"<body>number {number}</body>{wish}"
            romeo.send(f"<message to='bob@{COMPONENT}' type='chat' id='b{number}'>{text}</message>")
            if number % 40 == 39:  # no more than 50 of a pair may wait
                await self.until(lambda number=number: self.receipts() > number - 10)
        await self.until(lambda: self.receipts() == COUNT)
        await deferToThread(thread.join, 60)
        self.assertEqual(running[0].returncode, 0, running[0].stderr[-2000:])

    def receipts(self) -> int:
        """How many receipts romeo has."""
        return len(self.jabbers["romeo"].saying("{urn:xmpp:receipts}received"))


class BaresipTests(Gatewayed):
    """baresip, a person's telephone, and slixmpp."""

    if not BARESIP:
        skip = "not installed: baresip"

    async def test_both_ways(self):
        """A text each way; that it has the second one its 200 says, which is romeo's receipt."""
        phone = await deferToThread(self.telephone)
        try:
            await deferToThread(phone.ask, "message", "Hello from baresip")
            romeo = self.jabbers["romeo"]
            await self.until(lambda: romeo.bodies() == ["Hello from baresip"])
            self.assertEqual(romeo.saying("{jabber:client}body")[0].get("from"), f"1001@{COMPONENT}")
            wish = "<request xmlns='urn:xmpp:receipts'/>"
            text = f"<body>Hello, telephone</body>{wish}"
            romeo.send(f"<message to='1001@{COMPONENT}' type='chat' id='m1'>{text}</message>")
            await self.until(lambda: romeo.saying("{urn:xmpp:receipts}received[@id='m1']"))
        finally:
            self.assertEqual(await deferToThread(phone.quit), 0)

    def telephone(self) -> Baresip:
        """baresip, registered, with romeo as its only contact."""
        phone = Chatting(self.folder / "baresip", "1001", self.port, 440)
        phone.ask("contact_next")
        return phone


class Chatting(Baresip):
    """baresip that knows a Jabber user, and sends all to the server."""

    contacts = f'"Romeo" <sip:romeo@{DOMAIN}>\n'
    through_server = True

    def start(self) -> None:
        """Be a user of the domain that Jabber knows."""
        self.address = f"sip:{self.user}@{COMPONENT}"
        super().start()


class GoTests(Gatewayed):
    """go-sendxmpp listens."""

    CLIENTS = ()

    async def test_listening(self):
        """A text of a phone's, with all its characters."""
        login = ["-u", f"juliet@{DOMAIN}", "-p", USERS["juliet"]]
        command = ["go-sendxmpp", "-n", "-l", "-j", f"{HOST}:{prosody().clients}", *login]
        output = self.folder / "go.txt"
        with output.open("wb") as file:
            child = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "HOME": str(self.folder)})
        try:
            await self.until(lambda: "Authenticated as juliet" in prosody().says())
            self.assertEqual((await self.say("Grüße <&> \U0001f600", to="juliet")).status, 202)
            await self.until(lambda: "Grüße <&> \U0001f600" in output.read_text(encoding="utf-8", errors="replace"))
        finally:
            child.kill()
            await deferToThread(wait_for, lambda: child.poll() is not None, "go-sendxmpp ends")
