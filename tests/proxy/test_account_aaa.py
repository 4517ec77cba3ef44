"""Tests of sipgw.proxy.account_aaa: what an AAA server is told of calls, and when it is told again."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.aaa import AaaAnswer, AaaError, Attributes
from sipgw.proxy import account_aaa
from sipgw.proxy.account_aaa import AaaRecords, status_of
from sipgw.proxy.account_backends import Fields
from sipgw.proxy.accounting import ANSWERED, ENDED, MISSED, Account, Record
from sipgw.testing import FakeServer


class FakeAaa:
    """A server whose answers a test gives."""

    def __init__(self) -> None:
        self.asked: list[tuple[Attributes, Deferred[None]]] = []

    def check(self, attributes: Any, values: Any = ()) -> None:
        if "Nothing" in attributes:
            raise AaaError("Nothing")

    def has(self, attribute: str) -> bool:
        return True

    async def authenticate(self, attributes: Attributes) -> AaaAnswer:
        raise AssertionError

    async def account(self, attributes: Attributes) -> None:
        waiting: Deferred[None] = Deferred()
        self.asked.append((attributes, waiting))
        await waiting


def record(event: str = ANSWERED, method: str = "INVITE", code: str = "200", **more: Any) -> Record:
    """Something to tell."""
    return Record(event, method, "f", "t", more.pop("call_id", "c"), code, "OK", 1000.0, 990.0, **more)


class AccountAaaTests(SynchronousTestCase):
    """One backend."""

    def setUp(self) -> None:
        self.server = FakeServer()
        self.aaa = FakeAaa()
        self.lost: list[str] = []
        self.fields = Fields({"a": "Called-Station-Id"}, {"l": "Filter-Id"})
        self.records = AaaRecords(self.fields, self.aaa, self.server.user, 15, self.lost.append)

    def test_status(self) -> None:
        """What begins, goes on, ends and fails."""
        for each, expected in [
            (record(), 1), (record(code="404"), 15), (record(within=True), 3), (record(method="BYE", within=True), 2),
            (record(method="CANCEL"), 2), (record(ENDED), 2), (record(MISSED, code="486"), 15), (record(method="MESSAGE"), 15),
        ]:
            self.assertEqual(status_of(each), expected, each)

    def test_attributes(self) -> None:
        """All that is said of a call: numbers, tags, fields with a value, the times of its end."""
        account = Account({}, 990.0)
        account.extra["a"] = "sip:bob"
        account.legs = [{"l": "one"}, {"l": None}, {"l": "two"}]
        self.assertEqual(self.records.attributes(record(ENDED, ms_duration=1500), account), [
            ("Acct-Status-Type", 2), ("Service-Type", 15), ("Sip-Response-Code", 200), ("Sip-Method", 1),
            ("Event-Timestamp", 1000), ("Sip-Call-Duration", 2), ("Sip-Call-MSDuration", 1500), ("Sip-Call-Setuptime", 10),
            ("Sip-Call-Created", 990), ("Sip-From-Tag", "f"), ("Sip-To-Tag", "t"), ("Acct-Session-Id", "c"),
            ("Called-Station-Id", "sip:bob"), ("Filter-Id", "one"), ("Filter-Id", "two"),
        ])
        odd = self.records.attributes(record(method="REFER", code=""), None)
        self.assertEqual(odd[2:4], [("Sip-Response-Code", 0), ("Sip-Method", 4096)])
        self.assertEqual(self.records.attributes(record(method="FOO"), None)[3], ("Sip-Method", 8192))

    def test_again(self) -> None:
        """A record that no server has is told again, later and later, one at a time; then the others go on."""
        for number in range(3):
            self.records.write(record(call_id=str(number)), None, "")
        self.assertEqual(len(self.aaa.asked), 3)
        for _, waiting in self.aaa.asked:
            waiting.errback(AaaError("down"))
        self.aaa.asked.clear()
        for delay in (1.0, 2.0, 4.0):
            self.server.reactor.advance(delay - 0.1)
            self.assertEqual(self.aaa.asked, [])
            self.server.reactor.advance(0.2)
            self.assertEqual(len(self.aaa.asked), 1)
            self.aaa.asked.pop()[1].errback(AaaError("down"))
        self.server.reactor.advance(8.0)
        self.aaa.asked.pop()[1].callback(None)
        self.assertEqual(len(self.aaa.asked), 2)
        for _, waiting in self.aaa.asked:
            waiting.callback(None)
        self.assertEqual((len(self.records), self.lost), (0, []))

    def test_lost(self) -> None:
        """What cannot be told is logged: too many, and what waits at the end."""
        self.patch(account_aaa, "LIMIT", 2)
        for number in range(3):
            self.records.write(record(call_id=f"call{number}"), None, "")
        self.assertEqual(len(self.lost), 1)
        self.assertIn("Acct-Session-Id=call2", self.lost[0])
        self.records.close()
        self.assertEqual(len(self.lost), 3)
        self.aaa.asked[0][1].callback(None)
        self.aaa.asked[1][1].errback(AaaError("late"))
        self.records.write(record(), None, "")
        self.assertEqual(len(self.lost), 4)
        self.assertEqual(self.server.reactor.getDelayedCalls(), [])

    def test_check(self) -> None:
        """A field whose attribute the dictionary does not have."""
        self.records.check()
        self.fields.extra["b"] = "Nothing"
        self.assertRaises(AaaError, self.records.check)
