"""Tests of sipgw.modules.userblacklist: numbers that are forbidden, on each engine."""

from __future__ import annotations

from typing import Any

from sipgw.mi.jsonrpc import MIError
from sipgw.modules.userblacklist import Prefixes, Userblacklist
from tests.db.cases import PAYLOADS
from tests.modules.tables import TableCases, engines

USERS = (
    ("bob", "", "1234", 0),
    ("bob", "", "123456788", 1),
    ("carol", "test", "499034132", 0),
    ("bad", "", "12x", 0),
    ("all", "", "", 0),
)
ALL = (("", 0), ("1", 1), ("123456", 0), ("1234567", 1), ("abc", 0))


class BlacklistCases(TableCases):
    """The tables userblacklist and globalblacklist"""

    tables = ("userblacklist", "globalblacklist")

    async def make(self, **parameters: Any) -> Userblacklist:
        """A started module whose tables have rows."""
        for user, domain, prefix, allowed in USERS:
            row = {"username": user, "domain": domain, "prefix": prefix, "whitelist": allowed}
            await self.db.insert("userblacklist", row)
        for prefix, allowed in ALL:
            await self.db.insert("globalblacklist", {"prefix": prefix, "whitelist": allowed, "description": ""})
        made = Userblacklist(self.server, db_url=self.url, **parameters)
        await made.start()
        return made

    async def test_user(self) -> None:
        """The longest row of a user counts, and of a number only the digits."""
        made = await self.make()
        run = self.run_(uri="sip:12345@x")
        for user, domain, number, allowed in (
            ("bob", "", "12345", False), ("bob", "", "123456788", True), ("bob", "x", "12345", True), ("bob", "", "999", True),
            ("bob", "", "+1-2-3-4-5", False), ("carol", "test", "4990341321", False), ("carol", "test", "499034133", True),
            ("carol", "", "4990341321", True), ("bad", "", "125", True), ("all", "", "abc", False), ("none", "", "1", True),
            ("bob", "", None, False), ("carol", "test", None, True),
        ):  # fmt: skip
            self.assertEqual(await made.check_user_blacklist(run, user, domain, number), allowed, (user, domain, number))
        self.assertIn("1 rows of userblacklist are left out, '12x' has not only digits", " ".join(self.logged()))
        self.assertFalse(await made.check_user_blacklist(self.run_(uri="sip:x"), "bob", ""))
        made.use_domain = 0
        self.assertFalse(await made.check_user_blacklist(run, "carol", "other", "4990341321", "userblacklist"))

    async def test_all(self) -> None:
        """A list of all is read once, and again when asked for; then only if it can be read."""
        made = await self.make()

        async def ask(number: str) -> bool:
            return await made.check_blacklist(self.run_(uri=f"sip:{number}@x"), "globalblacklist")

        found = [await ask(number) for number in ("5", "1", "12345", "123456", "12345678", "abc", "+1")]
        self.assertEqual(found, [False, True, True, False, True, False, True])
        self.assertFalse(await made.check_blacklist(self.run_(uri="sip:x"), "globalblacklist"))
        await self.db.update("globalblacklist", {"whitelist": 1}, {"prefix": ""})
        self.assertFalse(await ask("5"))
        await made.reload()
        self.assertTrue(await ask("5"))
        made.lists["no_such_table"] = Prefixes([])
        if self.engine == "memory":
            self.db.down = True
        try:
            await made.reload()
            self.fail("it was reloaded")
        except MIError as error:
            self.assertEqual((error.code, error.message), (500, "cannot reload blacklist"))
        self.assertTrue(await ask("5"))

    async def test_failing(self) -> None:
        """What cannot be asked forbids; payloads find no row and change none."""
        made = await self.make()
        run = self.run_(uri="sip:1@x")
        for text in PAYLOADS:
            for user, domain in ((text, ""), ("bob", text)):
                self.assertTrue(await made.check_user_blacklist(run, user, domain, "12345"), text)
            if self.engine != "memory" and text:
                self.assertFalse(await made.check_user_blacklist(run, "bob", "", "999", text), text)
                self.assertFalse(await made.check_blacklist(run, text), text)
        self.assertEqual((len(await self.db.select("userblacklist")), made.lists), (5, {}))
        if self.engine == "memory":
            self.db.down = True
            self.assertFalse(await made.check_user_blacklist(run, "none", "", "1"))
            self.assertFalse(await made.check_blacklist(run, "globalblacklist"))
        made.lists.update({str(number): Prefixes([]) for number in range(100)})
        self.assertFalse(await made.check_blacklist(run, "globalblacklist"))


globals().update(engines(BlacklistCases))
del BlacklistCases
