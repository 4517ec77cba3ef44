"""sipp as a phone that is subscribed to, and as many that subscribe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from tests.sipp.harness import SIPP, Sipp
from tests.xmpp.test_subscribe import Seeing

SCENARIOS = Path(__file__).parent / "scenarios"
WATCHERS = 500 if os.environ.get("SIPGW_NIGHTLY") else 40


class SippTests(Seeing):
    """Both ways."""

    if not SIPP:
        skip = "not installed: sipp"

    def play(self, scenario: str, **more: Any) -> Sipp:
        """Start one."""
        text = (SCENARIOS / f"{scenario}.xml").read_text(encoding="utf-8")
        return Sipp(self.folder / scenario, scenario, xml=text, **more)

    async def test_source(self):
        """Its user is busy, then gone; when the watcher goes it hears that."""
        source = await deferToThread(self.play, "presence-source")
        contact = f"Contact: <sip:{self.user}@127.0.0.1:{source.port}>\r\nExpires: 600\r\n"
        await self.register(self.user, expires=0)
        self.assertEqual((await self.ask("REGISTER", f"sip:{self.alice}", contact, sender=self.user)).status, 200)
        self.subscribe()
        await self.sees("subscribed", "dnd/desk", "unavailable/desk")
        shown = next(each for each in self.jabbers["romeo"].stanzas if each.get("from") == f"{self.alice}/desk")
        self.assertEqual(shown.findtext("{jabber:client}status"), "In a call")
        self.assertEqual(shown.findtext("{jabber:client}priority"), "101")
        self.subscribe(kind="unsubscribe")
        counts = await deferToThread(source.finish)
        self.assertEqual(sum(value for name, value in counts.items() if "NOTIFY_Retrans" in name), 0)

    async def test_watchers(self):
        """Many phones see him: each is told that he is there, and of the end of its subscription."""
        watchers = await deferToThread(
            self.play, "presence-watcher", remote=self.port, calls=WATCHERS, options=["-r", "100", "-l", str(WATCHERS)]
        )
        await deferToThread(watchers.finish)
        self.assertEqual(watchers.statistics(), (WATCHERS, 0))
