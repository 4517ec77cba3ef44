"""A Jabber client of slixmpp in a process of its own: ``python -m tests.xmpp.slix JID PASSWORD PORT``.

Each line of its input is a stanza to send, or ``available``, ``quit``; each line of its output a JSON string: ``online``, or a
stanza that came. It answers wishes for receipts by itself, and subscriptions with "yes", as people's clients do."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from xml.etree.ElementTree import tostring

from slixmpp import ClientXMPP
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath


def say(text: str) -> None:
    """Write a line."""
    print(json.dumps(text), flush=True)


def show(stanza: Any) -> None:
    """Write a stanza."""
    say(tostring(stanza.xml, encoding="unicode"))


class Client(ClientXMPP):
    """One client."""

    def __init__(self, jid: str, password: str) -> None:
        super().__init__(jid, password)
        self.enable_direct_tls = False
        self.enable_starttls = False
        self.enable_plaintext = True
        plugins: Any = self.plugin
        plugins["feature_mechanisms"].unencrypted_scram = True
        for plugin in ("xep_0030", "xep_0085", "xep_0184", "xep_0199", "xep_0203", "xep_0280", "xep_0045"):
            self.register_plugin(plugin)
        self.auto_authorize = True
        self.auto_subscribe = False
        self.add_event_handler("session_start", self.begin)
        for kind in ("message", "presence"):
            self.register_handler(Callback(f"all {kind}", StanzaPath(kind), show))

    async def begin(self, _event: Any) -> None:
        """Be online, with copies of what other clients of the same person hear."""
        await self.get_roster()
        plugins: Any = self.plugin
        await plugins["xep_0280"].enable()
        self.send_presence()
        say("online")


async def main(jid: str, password: str, port: str) -> None:
    """Run one client until its input ends."""
    client = Client(jid, password)
    client.connect("127.0.0.1", int(port))
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while (line := (await reader.readline()).decode().strip()) and line != "quit":
        client.send_raw(line)
    await client.disconnect()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
