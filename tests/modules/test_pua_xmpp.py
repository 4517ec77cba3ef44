"""pua_xmpp's parameters, its rows on disk, and what operators decide."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.errors import Unavailable
from sipgw.interfaces import Change
from sipgw.mi.jsonrpc import MIError
from sipgw.modules._pua_xmpp_rows import Rows
from sipgw.modules.pua_xmpp import PuaXmpp
from sipgw.proxy.working_mode import Mode
from sipgw.xmpp.roster import Roster, Rules
from tests.presence.fakes import User
from tests.xmpp.test_roster import PAIR, Doors


class ParameterTests(SynchronousTestCase):
    """Without a server."""

    def test_refused(self) -> None:
        """Numbers and words that mean nothing, addresses that are none."""
        for name, value in (
            ("phones", 3), ("phones", -1), ("approval", "sometimes"), ("subscribe_expires", 5), ("server_address", "gateway"),
            ("presence_server", "sip:a@b>"), ("presence_server", "tel:+1"),
        ):
            self.assertRaises(ValueError, PuaXmpp().set_parameter, name, value)
        PuaXmpp().set_parameter("server_address", "sip:gateway@192.0.2.1:5060")

    def test_no_contacts(self) -> None:
        """Phones are not shown by a usrloc that cannot tell of them, nor without one; nobody is asked without a table."""
        for mode, more, words in (
            (Mode("sql-only"), {"phones": 1}, "keeps no contacts in memory"),
            (Mode("full-sharing-cachedb"), {"phones": 2}, "keeps no contacts in memory"),
            (None, {"phones": 1}, "needs the module usrloc"),
            (Mode(), {"phones": 1, "approval": "ask"}, "keep_watchers 1"),
            (Mode(), {"phones": 0, "approval": "ask", "keep_watchers": 1}, "needs phones"),
        ):
            module: Any = PuaXmpp(**more)
            module.server = SimpleNamespace(user=None)
            module.usrloc = None if mode is None else SimpleNamespace(mode=mode, table=lambda name: None)
            module.xmpp = SimpleNamespace(gateway=None)
            module._gateway = lambda: None
            error = self.failureResultOf(Deferred.fromCoroutine(module.start()), ValueError)
            self.assertIn(words, str(error.value), more)


class DecisionTests(SynchronousTestCase):
    """What operators decide for SIP users."""

    def test_decided(self) -> None:
        """A denial stays until it is taken back; nobody is let in who has not asked; what is no Jabber ID is refused."""
        module: Any = PuaXmpp()
        doors = Doors()
        module.roster = Roster(doors, Rules(phones=lambda jid: True))
        sip, jabber = str(PAIR.sip), str(PAIR.jabber)
        module.deny(sip, f"{jabber}/home")
        self.assertEqual(doors.kept[PAIR], ("denied", []))
        self.assertEqual(module.list_roster()["Watchers"], [{"sip": sip, "jabber": jabber, "state": "denied", "shown": []}])
        module.allow(sip, jabber)
        self.assertEqual(doors.kept, {})
        for wrong, code in ((jabber, 404), ("a b@c", 400)):
            self.assertEqual(self.assertRaises(MIError, module.allow, sip, wrong).code, code)


class Store:
    """A database that waits for the test."""

    def __init__(self) -> None:
        self.batches: list[list[Change]] = []
        self.answers: list[Deferred[None]] = []

    async def batch(self, changes: Sequence[Change]) -> None:
        self.batches.append(list(changes))
        answer: Deferred[None] = Deferred()
        self.answers.append(answer)
        await answer


class Waiting(User):
    """A user whose coroutines may wait."""

    def launch(self, coroutine: Any) -> None:
        Deferred.fromCoroutine(coroutine)


class RowTests(SynchronousTestCase):
    """Rows are written in order, the newest word of each."""

    def test_order(self) -> None:
        """One batch is under way; of what happens to a row meanwhile the last thing counts; what fails is tried again."""
        user, store = Waiting(), Store()
        rows: Any = Rows(user, store)  # type: ignore[arg-type]
        rows.watcher(PAIR, "pending", "[]")
        rows.watcher(PAIR, "active", "[]")
        rows.subscription("held", "x", "a", "b", "one")
        rows.watcher(PAIR, "", "[]")
        flushed = Deferred.fromCoroutine(rows.flush())
        self.assertEqual([(each.kind, each.table) for each in store.batches[0]], [("replace", "xmpp_watchers")])
        store.answers[0].errback(Unavailable("gone"))
        self.successResultOf(flushed)
        rows.subscription("held", "x", "a", "b", "two")
        self.successResultOf(Deferred.fromCoroutine(rows.flush()))  # nobody waits for a database that is away
        self.assertEqual((len(store.batches), len(user.lines)), (1, 1))
        user.time.advance(5)
        kinds = {(each.kind, each.table, each.values.get("state")) for each in store.batches[1]}
        self.assertEqual(kinds, {("delete", "xmpp_watchers", None), ("replace", "xmpp_subscriptions", "two")})
        flushed = Deferred.fromCoroutine(rows.flush())
        self.assertNoResult(flushed)
        store.answers[1].callback(None)
        self.successResultOf(flushed)
        rows.forget("y")
        self.assertEqual(store.batches[2], [Change("delete", "xmpp_subscriptions", where={"id": "y"})])
