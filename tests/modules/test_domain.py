"""Tests of sipgw.modules.domain: both modes on each engine, the names that are ours, commands."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.errors import DatabaseError
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.domain import Domain
from sipgw.testing import FakeServer, finished
from tests.db.cases import PAYLOADS
from tests.doubles import HEAD, FakeVariable
from tests.modules.scripted import Scripted
from tests.modules.tables import TableCases, engines


class DomainCases(TableCases):
    """The table domain"""

    tables = ("domain",)

    async def make(self, mode: int) -> Domain:
        """A started module whose table has three names."""
        for name, attrs, below in (("example.com", "a=1", 0), ("Mixed.Org", None, 0), ("sub.net", "subs", 1)):
            await self.db.insert("domain", {"domain": name, "attrs": attrs, "accept_subdomain": below})
        made = Domain(self.server, db_url=self.url, db_mode=mode)
        await made.start()
        return made

    async def test_functions(self) -> None:
        """Names are found in both modes, in any case, and those below where the row says so."""
        made = await self.make(0)
        for mode in (0, 1):
            made.db_mode = mode
            run = self.run_(uri="sip:bob@sub.net:99", head=HEAD.replace("alice@example.org", "alice@x.sub.net"))
            attrs = FakeVariable()
            self.assertEqual(await made.is_from_local(run, attrs), 1)
            self.assertTrue(await made.is_uri_host_local(run))
            for name, local in (
                ("example.com", True), ("EXAMPLE.com", True), ("mixed.org", True), ("Mixed.Org", True), ("x.example.com", False),
                ("a.b.sub.net", True), ("", False), ("net", False),
            ):  # fmt: skip
                self.assertEqual(await made.is_domain_local(run, name, attrs), local, (mode, name))
            self.assertEqual(attrs.values, ["subs", "a=1", "a=1", "subs"])
            run.uri = "tel:123"
            self.assertFalse(await made.is_uri_host_local(run))
            run.uri = "nonsense"
            self.assertFalse(await made.is_uri_host_local(run))
            for head, code in (("<tel:123>", -1), ("<sip:@>", -2)):
                self.assertEqual(await made.is_from_local(self.run_(head=HEAD.replace("<sip:alice@example.org>", head))), code)

    async def test_payloads(self) -> None:
        """What people write as domains finds nothing and changes nothing."""
        made = await self.make(0)
        run = self.run_()
        for text in PAYLOADS:
            self.assertFalse(await made.is_domain_local(run, text), text)
        self.assertEqual(len(await self.db.select("domain")), 3)

    async def test_reload(self) -> None:
        """What is kept is read again when asked for; where nothing is kept the names that are ours follow by themselves."""
        made = await self.make(1)
        run, user = self.run_(), self.server.user
        await self.db.insert("domain", {"domain": "new.org", "attrs": "n"})
        self.assertFalse(await made.is_domain_local(run, "new.org"))
        self.assertEqual([user.is_myself(name, 9999) for name in ("Example.com", "a.sub.net", "new.org")], [True, True, False])
        await made.refresh()
        self.assertFalse(user.is_myself("new.org"))
        await made.reload()
        self.assertTrue(await made.is_domain_local(run, "new.org"))
        self.assertTrue(user.is_myself("new.org"))
        others = [{"name": name, "attributes": attributes} for name, attributes in (("sub.net", "subs"), ("new.org", "n"))]
        self.assertEqual(made.dump()["Domains"][1:], [{"name": "Mixed.Org"}, *others])
        made.db_mode = 0
        await self.db.delete("domain", {"domain": "new.org"})
        self.assertFalse(await made.is_domain_local(run, "new.org"))
        self.assertTrue(user.is_myself("new.org"))
        await made.refresh()
        self.assertFalse(user.is_myself("new.org"))

    async def test_down(self) -> None:
        """A database that fails makes no name local, and takes none that is known."""
        made = await self.make(1)
        made.domain_table = "no_such_table"
        if self.engine == "memory":
            self.db.down = True
        try:
            await made.reload()
            self.fail("it was reloaded")
        except MIError as error:
            self.assertEqual((error.code, error.message), (500, "Domain table reload failed"))
        run = self.run_()
        self.assertTrue(await made.is_domain_local(run, "example.com"))
        made.db_mode = 0
        await made.refresh()
        self.assertFalse(await made.is_domain_local(run, "example.com"))
        self.assertTrue(self.server.user.is_myself("example.com"))
        self.assertEqual(len(self.logged()), 2)  # that of refresh() and of the question are of one kind, so one is only counted


globals().update(engines(DomainCases))
del DomainCases


class CommandTests(SynchronousTestCase):
    """What needs no table."""

    def test_mode(self) -> None:
        """Without a table in memory there is nothing to list or read again; other modes are refused."""
        server: Any = FakeServer()
        made = Domain(server)
        self.assertRaises(MIError, made.dump)
        self.assertRaises(MIError, finished, made.reload())
        with self.assertRaisesRegex(ValueError, "0 .* or 1"):
            Domain(server, db_mode=2)
        with self.assertRaisesRegex(DatabaseError, "no database is named"):
            finished(made.start())

    def test_routes(self) -> None:
        """The names are those of the script's own is_myself()."""
        made = Scripted('if (is_myself("$rd")) { xlog("L_ALERT", "ours"); }')
        made.server.user.add_names(lambda name: name == "127.0.0.1" or name == "example.net")
        self.assertEqual(made.send(), ["ours"])
