"""Tests of sipgw.modules.speeddial: short numbers, on each engine."""

from __future__ import annotations

from typing import Any

from sipgw.modules.speeddial import Speeddial
from tests.db.cases import PAYLOADS
from tests.doubles import HEAD
from tests.modules.tables import TableCases, engines

ROWS = (
    ("alice", "example.org", "22", "example.org", "sip:bob@b.org"),
    ("alice", "example.org", "23", "other.org", "sip:carol@b.org;transport=tcp"),
    ("alice", "two.org", "24", "two.org", "tel:+4930"),
    ("alice", "example.org", "25", "example.org", "not a uri"),
    ("alice", "example.org", "26", "example.org", "bob@b.org"),
    ("alice", "example.org", "28", "example.org", ""),
)


class SpeeddialCases(TableCases):
    """The table speed_dial"""

    tables = ("speed_dial",)

    async def make(self, **parameters: Any) -> Speeddial:
        """A started module whose table has rows."""
        for user, domain, short, short_domain, uri in ROWS:
            row = {"username": user, "domain": domain, "sd_username": short, "sd_domain": short_domain, "new_uri": uri}
            await self.db.insert("speed_dial", {**row, "fname": "", "lname": "", "description": ""})
        made = Speeddial(self.server, db_url=self.url, **parameters)
        await made.start()
        return made

    async def test_lookup(self) -> None:
        """Owner and short number are looked for, with as many domains as are wanted."""
        made = await self.make(domain_prefix="sip.")
        for use, uri, who, owner, found in (
            (0, "sip:22@other.org", "alice@x.org", None, "sip:bob@b.org"), (0, "sip:24@x", "alice@x", None, "tel:+4930"),
            (0, "tel:22", "alice@x", None, "sip:bob@b.org"), (0, "sip:99@x", "alice@x", None, None),
            (0, "sip:22@x", "bob@x", None, None), (0, "sip:22@x", "bob@x", "sip:alice@x", "sip:bob@b.org"),
            (0, "sip:22@x", "alice@x", "nonsense", None), (0, "sip:x", "alice@x", None, None),
            (0, "sip:26@x", "alice@x", None, "sip:bob@b.org"), (0, "sip:25@x", "alice@x", None, None),
            (0, "sip:28@x", "alice@x", None, None),
            (1, "sip:22@other.org", "alice@example.org", None, "sip:bob@b.org"),
            (1, "sip:24@two.org", "alice@example.org", None, None),
            (1, "sip:22@x", "alice@sip.example.org", None, "sip:bob@b.org"),
            (2, "sip:22@example.org", "alice@example.org", None, "sip:bob@b.org"),
            (2, "sip:22@sip.example.org", "alice@sip.example.org", None, "sip:bob@b.org"),
            (2, "sip:22@other.org", "alice@example.org", None, None),
            (2, "sip:23@other.org", "alice@example.org", None, "sip:carol@b.org;transport=tcp"),
        ):  # fmt: skip
            made.use_domain = use
            run = self.run_(uri=uri, head=HEAD.replace("alice@example.org", who))
            self.assertEqual(await made.sd_lookup(run, "speed_dial", owner), found is not None, (use, uri, who, owner))
            self.assertEqual(run.uri, found or uri)

    async def test_hostile(self) -> None:
        """Payloads find nothing and change nothing; so does a table that is not there."""
        made = await self.make()
        run = self.run_(uri="sip:22@example.org")
        for text in PAYLOADS:
            self.assertFalse(await made.sd_lookup(run, "speed_dial", f"sip:{text}@example.org"), text)
            run.uri = f"sip:{text}@example.org"
            self.assertFalse(await made.sd_lookup(run, "speed_dial", "sip:alice@example.org"), text)
            run.uri = "sip:22@example.org"
        if self.engine != "memory":
            self.assertFalse(await made.sd_lookup(run, "no_such_table"))
        self.assertEqual((len(await self.db.select("speed_dial")), run.uri), (6, "sip:22@example.org"))

    async def test_parameter(self) -> None:
        """Only three ways to use domains."""
        self.assertRaises(ValueError, Speeddial, self.server, use_domain=3)


globals().update(engines(SpeeddialCases))
del SpeeddialCases
