"""Tests of sipgw.modules.group: users and patterns, on each engine."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sipgw.modules.group import Group
from sipgw.proxy.authentication import Attempt, accept
from sipgw.sip.auth import Credentials
from tests.db.cases import PAYLOADS
from tests.doubles import HEAD, FakeVariable
from tests.modules.tables import TableCases, engines

USERS = (("alice", "example.org", "ld"), ("alice", "two.org", "int"), ("dave", "example.org", "ld"))
PATTERNS = (("^sip:al.*@example.org$", 1), ("^sip:alice@example.org$", 2), ("alice", 3), ("ALICE", 4), ("^sip:bob", 6))
NAMED = HEAD.replace("alice@example.org", "alice@two.org")


class GroupCases(TableCases):
    """The tables grp and re_grp"""

    tables = ("grp", "re_grp")

    async def make(self, *patterns: tuple[str, int], **parameters: Any) -> Group:
        """A started module whose tables have rows."""
        for user, domain, group in USERS:
            now = datetime(2026, 11, 22, 22, 0, 0)
            await self.db.insert("grp", {"username": user, "domain": domain, "grp": group, "last_modified": now})
        for text, number in patterns or PATTERNS:
            await self.db.insert("re_grp", {"reg_exp": text, "group_id": number})
        made = Group(self.server, db_url=self.url, **{"re_table": "re_grp", **parameters})
        await made.start()
        return made

    async def test_users(self) -> None:
        """Whoever is named is in the group, is not, or cannot be found."""
        made = await self.make()
        run = self.run_(uri="sip:alice@example.org", head=NAMED)
        for use, codes in ((1, (1, 1, -6, -6, 1, -6, -6, -1, -1, -1)), (0, (1, 1, -6, 1, 1, 1, 1, -1, -1, -1))):
            made.use_domain = use
            names = (
                *("Request-URI", "request-uri", "To", "From", "sip:alice@example.org", "sip:alice@two.org", "tel:alice"),
                *("sip:example.org", "nonsense", "Credentials"),
            )
            self.assertEqual(tuple([await made.db_is_user_in(run, name, "ld") for name in names]), codes)
        self.assertEqual(await made.db_is_user_in(run, "From", "nogroup"), -6)

    async def test_credentials(self) -> None:
        """The credentials count by which the sender was authorized, not those that he only sent."""
        made = await self.make()
        realm = "example.org"
        for name, code in (("alice", 1), ("alice@two.org", -6), ("carol", -6)):
            run = self.run_()
            value = f'Digest username="{name}", realm="{realm}", nonce="n", uri="sip:x", response="{"0" * 32}"'
            accept(run, Attempt(Credentials.parse(value), 1))
            self.assertEqual(await made.db_is_user_in(run, "Credentials", "ld"), code, name)

    async def test_patterns(self) -> None:
        """All groups whose patterns match are given, the last row first; or that one alone."""
        made = await self.make()
        run = self.run_(uri="sip:alice@example.org", head=NAMED)
        for name, groups in (
            ("Request-URI", [4, 3, 2, 1]), ("From", [4, 3]), ("To", [6]), ("sip:BOB@x", [6]), ("tel:alice", [4, 3]),
            ("sip:carol@x", []), ("nonsense", []), ("sip:x", []), ("Credentials", []),
        ):  # fmt: skip
            output: Any = FakeVariable()
            self.assertEqual((made.db_get_user_group(run, name, output), output.values), (len(groups) or -1, groups), name)
        made.multiple_gid = 0
        output = FakeVariable()
        self.assertEqual((made.db_get_user_group(run, "Request-URI", output), output.values), (1, [4]))
        made.re_table = ""
        self.assertEqual(made.db_get_user_group(run, "Request-URI", output), -1)

    async def test_bad_pattern(self) -> None:
        """A pattern that is none ends the start."""
        try:
            await self.make(("((", 5))
            self.fail("it has started")
        except ValueError as error:
            self.assertIn("re_grp: bad pattern '(('", str(error))

    async def test_hostile(self) -> None:
        """Payloads as users, domains and groups are in no group; a database that fails has none."""
        made = await self.make()
        run = self.run_()
        for text in PAYLOADS:
            for uri, group in ((f"sip:{text}@example.org", "ld"), (f"sip:alice@{text}", "ld"), ("sip:alice@example.org", text)):
                self.assertIn(await made.db_is_user_in(run, uri, group), (-6, -1), (uri, group))
        self.assertEqual(len(await self.db.select("grp")), 3)
        made.table = "no_such_table"
        if self.engine == "memory":
            self.db.down = True
        self.assertEqual(await made.db_is_user_in(run, "sip:alice@example.org", "ld"), -5)


globals().update(engines(GroupCases))
del GroupCases
