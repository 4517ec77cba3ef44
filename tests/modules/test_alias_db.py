"""Tests of sipgw.modules.alias_db: names behind names, on each engine."""

from __future__ import annotations

from typing import Any

from sipgw.modules.alias_db import AliasDb, check_flags
from tests.db.cases import PAYLOADS
from tests.doubles import FakeVariable
from tests.modules.tables import TableCases, engines

ROWS = (
    ("anna", "example.org", "alice", "example.org"), ("dup", "one.org", "d1", "one.org"), ("dup", "two.org", "d2", "two.org"),
    ("bad", "example.org", "", "x.org"), ("bad2", "example.org", "u", ""), ("", "example.org", "nouser", "example.org"),
)  # fmt: skip


class AliasCases(TableCases):
    """The table dbaliases"""

    tables = ("dbaliases",)

    async def make(self, **parameters: Any) -> AliasDb:
        """A started module whose table has rows."""
        for alias, alias_domain, user, domain in ROWS:
            row = {"alias_username": alias, "alias_domain": alias_domain, "username": user, "domain": domain}
            await self.db.insert("dbaliases", row)
        made = AliasDb(self.server, db_url=self.url, **parameters)
        await made.start()
        return made

    async def test_lookup(self) -> None:
        """Who is behind the Request-URI takes its place, with nothing of its parameters; or who has the name, with the flag."""
        made = await self.make(domain_prefix="sip.")
        for uri, flags, found in (
            ("sip:anna@example.org", None, "sip:alice@example.org"),
            ("sips:anna:pw@example.org:5070;transport=tcp?a=b", None, "sip:alice@example.org"),
            ("sip:anna@sip.example.org", None, "sip:alice@example.org"),
            ("sip:example.org", None, "sip:nouser@example.org"),
            ("sip:alice@example.org", "r", "sip:anna@example.org"),
            ("sip:anna@other.org", "d", "sip:alice@example.org"),
            ("sip:alice@other.org", "rd", "sip:anna@example.org"),
            ("sip:none@example.org", None, None),
            ("sip:bad@example.org", None, None),
            ("sip:bad2@example.org", "", None),
            ("tel:anna", None, None),
            ("nonsense", None, None),
            ("sip:anna@example.org", "z", None),
        ):
            run = self.run_()
            run.uri = uri
            self.assertEqual(await made.alias_db_lookup(run, "dbaliases", flags), found is not None, (uri, flags))
            self.assertEqual((run.uri, run.branches), (found or uri, []))

    async def test_branches(self) -> None:
        """Several become branches if that is wanted, and values."""
        made = await self.make(append_branches=1)
        run, output = self.run_(uri="sip:dup@other.org"), FakeVariable()
        self.assertTrue(await made.alias_db_lookup(run, "dbaliases", "d"))
        self.assertEqual({run.uri, *(branch.uri for branch in run.branches)}, {"sip:d1@one.org", "sip:d2@two.org"})
        self.assertTrue(await made.alias_db_find(run, "dbaliases", "sip:dup@other.org", output, "d"))
        self.assertEqual(len(output.values), 2)
        made.append_branches = 0
        run.branches.clear()
        run.uri = "sip:dup@other.org"
        self.assertTrue(await made.alias_db_lookup(run, "dbaliases", "d"))
        self.assertEqual(run.branches, [])

    async def test_find(self) -> None:
        """Any URI can be looked for, and the request stays as it is; what is no URI finds nothing."""
        made = await self.make()
        run, output = self.run_(), FakeVariable()
        before = run.uri
        for uri, found in (("sip:anna@example.org", True), ("<sip:anna@example.org>", False), ("", False), ("sip:x@y", False)):
            self.assertEqual(await made.alias_db_find(run, "dbaliases", uri, output), found, uri)
        self.assertEqual((output.values, run.uri), (["sip:alice@example.org"], before))

    async def test_hostile(self) -> None:
        """Payloads as user, domain and table find nothing and change nothing; a database that fails finds nothing."""
        made = await self.make()
        run, output = self.run_(), FakeVariable()
        for text in PAYLOADS:
            for uri in (f"sip:{text}@example.org", f"sip:anna@{text}"):
                self.assertFalse(await made.alias_db_find(run, "dbaliases", uri, output), uri)
            run.uri = "sip:anna@example.org"
            if self.engine != "memory":
                self.assertFalse(await made.alias_db_lookup(run, text), text)
        self.assertEqual((len(await self.db.select("dbaliases")), output.values), (6, []))
        if self.engine != "memory":
            self.server.lines.clear()
            self.assertFalse(await made.alias_db_lookup(run, "no_such_table"))

    async def test_flags(self) -> None:
        """Unknown flags are refused when the script is read."""
        self.assertEqual(check_flags("rd"), "rd")
        self.assertRaises(ValueError, check_flags, "x")


globals().update(engines(AliasCases))
del AliasCases
