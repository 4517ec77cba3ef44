"""Jabber users see what SIP users say of themselves: SUBSCRIBE and NOTIFY over UDP, through a real Prosody."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from itertools import count
from typing import Any

from twisted.internet.threads import deferToThread

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.sip.pidf import Tuple
from tests.servers.prosody import COMPONENT, prosody
from tests.xmpp.presentity import Presentity
from tests.xmpp.rig import Gatewayed

NUMBERS = count(1)
DESK = Tuple("desk", True, "dnd", "On the phone", 500, "sip:alice@192.0.2.7")
MOBILE = Tuple("mobile", True)


class Seeing(Gatewayed):
    """Without phones: only what they say themselves."""

    PHONE = Presentity
    PHONES = 0
    phone: Presentity

    async def setUp(self) -> None:  # type: ignore[override]
        """Have a SIP user of whom Prosody has not heard in an earlier test."""
        self.user = f"alice{next(NUMBERS)}"
        self.alice = f"{self.user}@{COMPONENT}"
        await super().setUp()
        await self.register(self.user)

    def script(self, text: str) -> str:
        """Have the mode."""
        return text.replace('"phones", 2', f'"phones", {self.PHONES}')

    def seen(self, name: str = "romeo") -> list[str]:
        """What a client was told of alice: the word and the resource."""
        found = []
        for each in self.jabbers[name].stanzas:
            sender = each.get("from") or ""
            if each.tag == "{jabber:client}presence" and sender.startswith(self.alice):
                show = each.findtext("{jabber:client}show") or ""
                kind = each.get("type") or show or "available"
                found.append(f"{kind}{sender.removeprefix(self.alice)}")
        return found

    async def sees(self, *last: str, name: str = "romeo") -> None:
        """Wait until a client was told these, last of all."""
        try:
            await self.until(lambda: sorted(self.seen(name)[-len(last):]) == sorted(last))
        except self.failureException as error:
            raise self.failureException(f"{self.seen(name)}\n{error}") from None

    def subscribe(self, name: str = "romeo", kind: str = "subscribe") -> None:
        """A Jabber user wants to see alice, or no more."""
        self.jabbers[name].send(f"<presence to='{self.alice}' type='{kind}'/>")


class SubscribeTests(Seeing):
    """RFC 8048 4.2, 5.2."""

    async def test_life(self):
        """Asked, pending, approved, changed, gone and back with the XMPP server, ended."""
        self.phone.state = "pending"
        self.subscribe()
        await self.until(lambda: self.phone.dialogs)
        request = self.phone.subscribes()[0]
        self.assertEqual((request.header("event"), request.from_.uri_text), ("presence", "sip:romeo@jabber.test"))
        self.assertEqual(self.seen(), [])
        self.phone.state = "active"
        self.phone.change(DESK, MOBILE)
        await self.sees("subscribed", "dnd/tdesk", "available/tmobile")
        self.phone.change(MOBILE)
        await self.sees("unavailable/tdesk")
        self.phone.change(DESK)
        await self.sees("dnd/tdesk", "unavailable/tmobile")
        shown = [each for each in self.jabbers["romeo"].stanzas if each.get("from") == f"{self.alice}/tdesk"][-1]
        self.assertEqual(shown.findtext("{jabber:client}status"), "On the phone")
        self.assertEqual(shown.findtext("{jabber:client}priority"), "63")
        self.subscribe(kind="unsubscribe")
        await self.sees("dnd/tdesk", "unavailable/tmobile", "unavailable/tdesk")
        await self.until(lambda: self.phone.subscribes()[-1].header("expires") == "0")
        await self.until(lambda: not self.phone.dialogs)

    async def test_rejected(self):
        """The SIP side says no, at once or later; knows nothing of presence; wants it longer. A stranger's NOTIFY."""
        self.phone.refusing = 603, ""
        self.subscribe()
        await self.sees("unsubscribed")
        self.phone.refusing = 489, "Allow-Events: dialog\r\n"
        self.subscribe()
        await self.sees("error", "unsubscribed")
        self.subscribe()
        await self.sees("subscribed", "unavailable/sip")
        self.phone.change(MOBILE)
        await self.sees("available/tmobile")
        self.phone.change(state="terminated;reason=rejected")
        await self.sees("unavailable/tmobile", "unsubscribed")
        self.assertEqual(len(self.phone.subscribes()), 3)
        self.phone.refusing = 423, "Min-Expires: 4000\r\n"
        self.phone.tuples = [MOBILE]
        self.subscribe()
        await self.sees("subscribed", "available/tmobile")
        self.assertEqual([each.header("expires") for each in self.phone.subscribes()[3:]], ["3600", "4000"])
        response = await self.ask(
            "NOTIFY", self.phone.subscribes()[-1].contacts[0].uri_text, "Event: presence\r\nSubscription-State: active\r\n",
            call_id="unheard-of", to="<sip:romeo@jabber.test>;tag=x",
        )
        self.assertEqual(response.status, 481)

    async def test_outage(self):
        """The XMPP server is killed while the phone changes: the watcher is told when it is back."""
        self.phone.tuples = [MOBILE]
        self.subscribe()
        await self.sees("subscribed", "available/tmobile")
        prosody().kill()
        await self.until(lambda: "down:" in self.child.text())
        self.phone.change(DESK)
        prosody().start()
        again = await self.again("romeo")
        await self.until(lambda: self.child.text().count("connected to") == 2 and again.online)
        await self.until(lambda: "dnd/tdesk" in self.seen())


class PresenceServerTests(Seeing):
    """With a presence server, which is the phone, and wants a password: local_route sees what goes there."""

    MORE = 'loadmodule "uac_auth.so"\nmodparam("uac_auth", "credential", "gateway:sip.test:secret")'

    def script(self, text: str) -> str:
        """Send all there."""
        own = self.listening.getHost().port
        more = f'modparam("pua_xmpp", "presence_server", "sip:127.0.0.1:{own}")\n'
        more += f'modparam("pua_xmpp", "server_address", "sip:gateway@127.0.0.1:{self.port}")\n'
        text = super().script(text).replace("\nroute {", f"\n{more}\nroute {{", 1)
        return text + '\nlocal_route {\n\tif (is_method("SUBSCRIBE"))\n\t\tappend_hf("X-Local: yes\\r\\n");\n}\n'

    async def test_there(self):
        """It goes to the server as it is, with our Contact; uac_auth answers the challenge."""
        self.phone.refusing = 401, 'WWW-Authenticate: Digest realm="sip.test", nonce="abc", algorithm=MD5, qop="auth"\r\n'
        self.phone.tuples = [MOBILE]
        self.subscribe()
        await self.sees("subscribed", "available/tmobile")
        request = self.phone.subscribes()[0]
        self.assertEqual((request.uri, request.header("x-local")), (f"sip:{self.alice}", "yes"))
        self.assertEqual(request.header("contact"), f"<sip:gateway@127.0.0.1:{self.port}>")
        again = self.phone.subscribes()[1]
        self.assertEqual((again.call_id, again.cseq.number), (request.call_id, request.cseq.number + 1))
        self.assertIn('username="gateway"', again.header("authorization") or "")


class BothTests(Seeing):
    """With both: what a phone says, or else that it is registered."""

    PHONES = 2

    async def test_both(self):
        """A phone that knows nothing of presence is seen; one that comes and does is seen as it says."""
        self.phone.refusing = 405, ""
        self.subscribe()
        await self.sees("subscribed", "available/sip")
        await self.register(self.user, expires=0)
        await self.sees("unavailable/sip")
        self.phone.tuples = [DESK]
        await self.register(self.user)
        await self.sees("unavailable/sip", "dnd/tdesk")
        self.leave()
        await self.sees("unavailable/tdesk")


class Kept(Seeing):
    """With a database."""

    MORE = 'loadmodule "db_sqlite.so"\nmodparam("pua_xmpp", "keep_watchers", 1)'

    def script(self, text: str) -> str:
        """Have a database."""
        url = f"sqlite://{self.folder}/watchers.db"
        if not (self.folder / "watchers.db").exists():
            store = open_store(url, create=True)
            create(store, ["xmpp_watchers", "xmpp_subscriptions"])
            store.close()
        return f'db_default_url = "{url}"\n{super().script(text)}'


class KeptSubscriptionTests(Kept):
    """What is held outlives a ``kill -9``."""

    async def crash(self) -> None:
        """Kill the server, and start it anew."""
        self.child.process.send_signal(signal.SIGKILL)
        await deferToThread(self.child.process.wait)
        self.start()
        await self.until(lambda: "connected to" in self.child.text())

    def kept(self) -> tuple[list[Any], list[Any]]:
        """What is on disk: what watchers see, and the subscriptions."""
        with closing(sqlite3.connect(self.folder / "watchers.db")) as store:
            shown = store.execute("select shown from xmpp_watchers where state = 'active'").fetchall()
            return [each for each, in shown], store.execute("select kind from xmpp_subscriptions").fetchall()

    async def test_jabber_watches(self):
        """The same dialog goes on; what has changed meanwhile is told, also of a device that is gone."""
        self.phone.tuples = [DESK, MOBILE]
        self.subscribe()
        await self.sees("subscribed", "dnd/tdesk", "available/tmobile")
        await self.until(lambda: self.kept() == (['["tdesk", "tmobile"]'], [("held",)]))
        before = self.phone.subscribes()[-1]
        self.phone.tuples = [MOBILE]
        await self.crash()
        await self.sees("unavailable/tdesk", "available/tmobile")
        after = self.phone.subscribes()[-1]
        self.assertEqual((after.call_id, bool(after.to_tag)), (before.call_id, True))
        self.assertGreater(after.cseq.number, before.cseq.number)
        self.phone.dialogs.clear()  # a phone that has forgotten us, and that usrloc, which is in memory, has forgotten
        self.phone.tuples = [DESK]
        await self.crash()
        await self.until(lambda: "481" in self.child.text())
        await self.register(self.user)
        await self.sees("unavailable/tmobile", "dnd/tdesk")

    async def test_phone_watches(self):
        """A phone that has subscribed is told anew, without asking: also what has changed meanwhile."""
        own = self.listening.getHost().port
        headers = f"Event: presence\r\nExpires: 600\r\nContact: <sip:alice@127.0.0.1:{own}>\r\n"
        response = await self.ask("SUBSCRIBE", "sip:romeo@jabber.test", headers, tag="w1", call_id="watch")
        self.assertEqual(response.status, 200)

        def told() -> list[Any]:
            return [each for each in self.phone.messages if each.method == "NOTIFY"]

        await self.until(lambda: told() and b"open" in told()[-1].body)
        await self.until(lambda: ("phone",) in self.kept()[1])
        number, tag = told()[-1].cseq.number, told()[-1].from_tag
        self.child.process.send_signal(signal.SIGKILL)
        await deferToThread(self.child.process.wait)
        self.jabbers["romeo"].send("<presence><show>dnd</show></presence>")
        self.start()
        await self.until(lambda: b"dnd" in told()[-1].body)
        again = [each for each in told() if each.cseq.number > number]
        self.assertEqual({each.from_tag for each in again}, {tag})
        self.assertTrue(all(b"closed" not in each.body for each in again))
        to = f"<sip:romeo@jabber.test>;tag={tag}"
        refreshed = await self.ask("SUBSCRIBE", response.contacts[0].uri_text, headers, tag="w1", call_id="watch", to=to)
        self.assertEqual(refreshed.status, 200)
        self.leave()
        await self.until(lambda: b"closed" in told()[-1].body)
        self.assertTrue((told()[-1].header("subscription-state") or "").startswith("active"))
