"""Phones and Jabber clients see each other, through a real Prosody."""

from __future__ import annotations

from typing import Any

from twisted.internet.threads import deferToThread

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.sip.message import Request, Response
from sipgw.sip.pidf import PIDF, Pidf
from tests.servers.prosody import COMPONENT, DOMAIN, prosody
from tests.xmpp.rig import Gatewayed, Jabber


class PresenceTests(Gatewayed):
    """The example of ``examples/xmpp`` as it is, but for its ports."""

    def told(self) -> list[Request]:
        """The NOTIFY requests that the phone has got."""
        return [each for each in self.phone.messages if each.method == "NOTIFY"]

    async def subscribe(self, expires: int = 600, uri: str = f"sip:romeo@{DOMAIN}", **more: Any) -> Response:
        """Ask for the presence of a Jabber user."""
        own = self.listening.getHost().port
        headers = f"Event: presence\r\nAccept: {PIDF}\r\nExpires: {expires}\r\nContact: <sip:alice@127.0.0.1:{own}>\r\n"
        return await self.ask("SUBSCRIBE", uri, headers, **more)

    def last(self) -> tuple[str, list[tuple[bool, str, str]]]:
        """What the phone was told last: the state, and its devices."""
        notify = self.told()[-1]
        state = (notify.header("subscription-state") or "").partition(";")[0]
        tuples = Pidf.parse(notify.body).tuples if notify.body else ()
        return state, [(each.open, each.show, each.note) for each in tuples]

    async def test_phone_watches(self):
        """Asked, approved, seen, away, gone with the server and back, and no more told after the end."""
        romeo = self.jabbers["romeo"]
        response = await self.subscribe(tag="w1", call_id="watch")
        self.assertEqual((response.status, response.header("expires")), (200, "600"))
        await self.until(lambda: self.told() and self.last() == ("active", [(True, "", "")]))
        first = self.told()[0]
        self.assertEqual((first.header("event"), first.from_tag), ("presence", response.to_tag))
        romeo.send("<presence><show>dnd</show><status>On stage &lt;3</status><priority>5</priority></presence>")
        await self.until(lambda: self.last() == ("active", [(True, "dnd", "On stage <3")]))
        self.assertIn(b"busy", self.told()[-1].body)
        prosody().kill()
        await self.until(lambda: self.last() == ("active", [(False, "", "")]))
        prosody().start()
        await self.until(lambda: self.child.text().count("connected to") == 2)
        again = Jabber("romeo")
        await romeo.stop()
        again.start(self.reactor)
        self.jabbers["romeo"] = again
        await self.until(lambda: self.last() == ("active", [(True, "", "")]))

    async def test_end(self):
        """A phone refreshes, and ends its subscription: the last NOTIFY says so. An unknown one is 481."""
        response = await self.subscribe(tag="w1", call_id="watch")
        target = response.contacts[0].uri_text
        to = f"<sip:romeo@{DOMAIN}>;tag={response.to_tag}"
        refreshed = await self.subscribe(300, tag="w1", call_id="watch", to=to, uri=target)
        self.assertEqual((refreshed.status, refreshed.header("expires")), (200, "300"))
        await self.until(lambda: self.told() and self.last() == ("active", [(True, "", "")]))
        ended = await self.subscribe(0, tag="w1", call_id="watch", to=to, uri=target)
        self.assertEqual(ended.status, 200)
        await self.until(lambda: self.last()[0] == "terminated")
        again = await self.subscribe(300, tag="w1", call_id="watch", to=to, uri=target)
        self.assertEqual(again.status, 481)

    async def test_refused(self):
        """Other events, short intervals, our own users, phones that speak for others."""
        own = f"Contact: <sip:alice@127.0.0.1:{self.listening.getHost().port}>\r\n"
        for uri, headers, sender, status, header in (
            (f"sip:romeo@{DOMAIN}", "Event: dialog\r\n", "alice", 489, "allow-events"),
            (f"sip:romeo@{DOMAIN}", "Event: presence\r\nExpires: 5\r\n", "alice", 423, "min-expires"),
            (f"sip:romeo@{DOMAIN}", "Event: presence\r\nAccept: text/plain\r\n", "alice", 406, "accept"),
            (f"sip:bob@{COMPONENT}", "Event: presence\r\n", "alice", 404, ""),
        ):
            response = await self.ask("SUBSCRIBE", uri, headers + own, sender=sender)
            self.assertEqual(response.status, status, headers)
            if header:
                self.assertIsNotNone(response.header(header))

    async def test_client_watches(self):
        """A Jabber user asks, is let in, sees the phone come and go, and sipgw leave."""
        romeo = self.jabbers["romeo"]

        def seen() -> list[str]:
            return [
                each.get("type", "available") for each in romeo.stanzas
                if each.tag == "{jabber:client}presence" and (each.get("from") or "").startswith(f"tybalt@{COMPONENT}")
            ]

        await self.register("tybalt")  # alice's phone is not to be asked in later tests
        romeo.send(f"<presence to='tybalt@{COMPONENT}' type='subscribe'/>")
        await self.until(lambda: seen()[-2:] == ["subscribed", "available"])
        await self.register("tybalt", expires=0)
        await self.until(lambda: seen()[-1] == "unavailable")
        await self.register("tybalt")
        await self.until(lambda: seen()[-1] == "available")
        self.leave()
        await self.until(lambda: seen()[-1] == "unavailable")


class KeptTests(Gatewayed):
    """Who watches is kept on disk."""

    CLIENTS = ("paris",)
    MORE = 'loadmodule "db_sqlite.so"\nmodparam("pua_xmpp", "keep_watchers", 1)'

    def script(self, text: str) -> str:
        """Have a database."""
        url = f"sqlite://{self.folder}/watchers.db"
        store = open_store(url, create=True)
        create(store, ["xmpp_watchers", "xmpp_subscriptions"])
        store.close()
        return f'db_default_url = "{url}"\n{text}'

    async def test_restart(self):
        """sipgw goes and comes, the client stays: it sees tybalt again as soon as his phone registers."""
        paris = self.jabbers["paris"]

        def seen() -> str:
            mine = [each for each in paris.stanzas if (each.get("from") or "") == f"tybalt@{COMPONENT}/sip"]
            return mine[-1].get("type", "available") if mine else ""

        await self.register("tybalt")
        paris.send(f"<presence to='tybalt@{COMPONENT}' type='subscribe'/>")
        await self.until(lambda: seen() == "available")
        self.leave()
        await self.until(lambda: seen() == "unavailable")
        await deferToThread(self.child.wait)
        self.start()
        await self.register("tybalt")
        await self.until(lambda: seen() == "available")
