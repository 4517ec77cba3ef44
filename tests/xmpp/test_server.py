"""sipgw as an XMPP server of its own, with a real Prosody elsewhere: each kind of proof, both ways, outages, the queue."""

from __future__ import annotations

import json
import socket
from typing import Any

from twisted.internet.threads import deferToThread

from sipgw.db.making import create
from sipgw.db.session import open_store
from tests.children import free_port
from tests.servers.prosody_far import FAR, NEAR, authority, far
from tests.xmpp.rig import Gatewayed, Jabber

BODY = "{jabber:client}body"
CONDITION = "{jabber:client}error/{urn:ietf:params:xml:ns:xmpp-stanzas}"


class Serving(Gatewayed):
    """A gateway with ``backend`` "server" beside a Prosody that wants TLS and believes by dialback."""

    KIND, TLS, PROOF, SECURE = "tls", "optional", "dialback", True
    UP = "xmpp: listening at"
    HOME = NEAR

    def jabber_server(self) -> Any:
        """The Prosody elsewhere."""
        return far(self.KIND)

    def components(self) -> int:
        """It has none for us."""
        return 0

    def client(self, name: str) -> Jabber:
        """A client of the Prosody elsewhere."""
        return Jabber(name, domain=FAR, port=far(self.KIND).clients)

    async def setUp(self) -> None:  # type: ignore[override]
        """Find a port for other servers, and tell Prosody of it."""
        self.door, self.server_port = free_port(), free_port()
        far(self.KIND).restore()
        far(self.KIND).route({NEAR: self.server_port})
        await super().setUp()

    def script(self, text: str) -> str:
        """Be a server."""
        text = text.replace('modparam("xmpp", "xmpp_password", "s3cret")\n', "").replace("sip.test", NEAR)
        lines = text.splitlines()
        lines = [each for each in lines if '"xmpp_port"' not in each]
        text = "\n".join(lines) + "\n"
        certificate = ""
        if self.TLS == "verified":
            authority().issue(self.folder, NEAR)
            certificate = f"""
modparam("xmpp", "xmpp_certificate", "{self.folder}/cert.pem")
modparam("xmpp", "xmpp_key", "{self.folder}/key.pem")
modparam("xmpp", "xmpp_tls_ca", "{authority().file}")"""
        more = f"""
loadmodule "mi_datagram.so"
modparam("mi_datagram", "socket_name", "udp:127.0.0.1:{self.door}")
modparam("xmpp", "backend", "server")
modparam("xmpp", "xmpp_port", {self.server_port})
modparam("xmpp", "response_timeout", 2)
modparam("xmpp", "server_tls", "{self.TLS}")
modparam("xmpp", "server_route", "{FAR}=127.0.0.1:{far(self.KIND).servers}")
modparam("xmpp", "server_route", "rooms.{FAR}=127.0.0.1:{far(self.KIND).servers}"){certificate}
"""
        return text.replace("route {", f"{more}\nroute {{", 1)

    async def write(self, text: str, to: str = "romeo", domain: str = FAR) -> int:
        """The phone writes; the status."""
        return (await self.ask("MESSAGE", f"sip:{to}@{domain}", "Content-Type: text/plain\r\n", text.encode())).status

    async def status(self) -> list[dict[str, Any]]:
        """What the servers elsewhere are like."""
        return [each for each in (await deferToThread(self._manage))["Links"] if "proof" in each]

    def _manage(self) -> Any:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            door.settimeout(5)
            door.sendto(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "xmpp:status"}).encode(), ("127.0.0.1", self.door))
            return json.loads(door.recv(65535))["result"]

    async def both_ways(self) -> None:
        """A text each way, a user that there is not on either side, and what the status says of the stream."""
        romeo = self.jabbers["romeo"]
        self.assertEqual(await self.write("Hello"), 202)
        await self.until(lambda: romeo.bodies() == ["Hello"])
        self.assertEqual(romeo.saying(BODY)[0].get("from"), f"alice@{NEAR}")
        wish = "<request xmlns='urn:xmpp:receipts'/>"
        romeo.send(f"<message to='alice@{NEAR}' type='chat' id='m1'><body>Back</body>{wish}</message>")
        await self.until(lambda: self.phone.messages)
        self.assertEqual((self.phone.messages[0].body, self.phone.messages[0].from_.uri_text), (b"Back", f"sip:romeo@{FAR}"))
        await self.until(lambda: romeo.saying("{urn:xmpp:receipts}received[@id='m1']"))
        self.assertEqual(await self.write("Hello", "nobody"), 480)
        romeo.send(f"<message to='bob@{NEAR}' type='chat' id='m2'><body>Hello</body></message>")
        await self.until(lambda: romeo.saying(f"{CONDITION}recipient-unavailable"))
        (shown,) = await self.status()
        self.assertEqual((shown["server"], shown["state"], shown["proof"], shown["tls"]), (FAR, "up", self.PROOF, self.SECURE))


class PlainTests(Serving):
    """Without TLS."""

    KIND, TLS, SECURE = "plain", "no", False

    async def test_both_ways(self):
        """Dialback alone."""
        await self.both_ways()


class VerifiedTests(Serving):
    """Certificates on both sides, and no dialback."""

    KIND, TLS, PROOF = "proven", "verified", "external"

    async def test_both_ways(self):
        """SASL EXTERNAL in both directions."""
        await self.both_ways()


class UnprovenTests(Serving):
    """Only certificates count, and that of the other server is nobody's whom we trust."""

    KIND, TLS = "tls", "verified"

    def script(self, text: str) -> str:
        """Trust nobody but the system's authorities."""
        lines = super().script(text).splitlines()
        return "\n".join(each for each in lines if "xmpp_tls_ca" not in each) + "\n"

    async def test_refused(self):
        """Nothing goes out, and nothing comes in."""
        self.assertEqual(await self.write("Hello"), 480)
        self.assertIn("does not prove who it is", self.child.text())
        romeo = self.jabbers["romeo"]
        romeo.send(f"<message to='alice@{NEAR}' type='chat' id='m1'><body>Hello</body></message>")
        await self.until(lambda: romeo.saying("{jabber:client}error"))
        self.assertEqual(self.phone.messages, [])


class DialbackTests(Serving):
    """TLS, and dialback over it."""

    MORE = 'loadmodule "db_sqlite.so"\nmodparam("xmpp", "queue", 1)\nmodparam("xmpp", "rooms_domain", "rooms.far.test")'

    def script(self, text: str) -> str:
        """Have a database."""
        url = f"sqlite://{self.folder}/queue.db"
        if not (self.folder / "queue.db").exists():
            store = open_store(url, create=True)
            create(store, ["xmpp_messages"])
            store.close()
        return f'db_default_url = "{url}"\n{super().script(text)}'

    async def test_both_ways(self):
        """What a text needs, then presence of a Jabber user and of a phone, then a chat room elsewhere."""
        await self.both_ways()
        romeo = self.jabbers["romeo"]
        own = self.listening.getHost().port
        contact = f"Contact: <sip:alice@127.0.0.1:{own}>\r\nExpires: 600\r\nEvent: presence\r\n"
        self.assertEqual((await self.ask("SUBSCRIBE", f"sip:romeo@{FAR}", contact)).status, 200)
        await self.until(lambda: [each for each in self.phone.messages if b"basic>open<" in each.body])
        romeo.send(f"<presence to='alice@{NEAR}' type='subscribe'/>")
        await self.until(lambda: romeo.saying(f".[@from='alice@{NEAR}/sip']"))
        room = f"balcony@rooms.{FAR}"
        romeo.send(f"<presence to='{room}/romeo'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
        await self.until(lambda: romeo.saying("{http://jabber.org/protocol/muc#user}x"))
        owner = "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>"
        romeo.send(f"<iq to='{room}' type='set' id='o1'>{owner}</iq>")
        self.assertEqual(await self.write("Hello", "balcony", f"rooms.{FAR}"), 202)
        await self.until(lambda: "Hello" in romeo.bodies())
        romeo.send(f"<message to='{room}' type='groupchat'><body>Hi alice</body></message>")
        await self.until(lambda: b"romeo: Hi alice" in [each.body for each in self.phone.messages])

    async def test_outage(self):
        """The other server is killed: what is written meanwhile arrives once, in order; though we end and start again."""
        romeo = self.jabbers["romeo"]
        self.assertEqual(await self.write("one"), 202)
        await self.until(lambda: romeo.bodies() == ["one"])
        far(self.KIND).kill()
        for text in ("two", "three"):
            self.assertEqual(await self.write(text), 202)
        self.leave()
        self.assertEqual(await deferToThread(self.child.wait), 0)
        self.start()
        await self.register()
        self.assertEqual(await self.write("four"), 202)
        far(self.KIND).start()
        romeo = self.jabbers["again"] = self.client("romeo")
        romeo.start(self.reactor)
        await self.until(lambda: len(romeo.bodies()) == 3)
        self.assertEqual(romeo.bodies(), ["two", "three", "four"])
        self.assertTrue(romeo.saying(f"{{urn:xmpp:delay}}delay[@from='{NEAR}']"))
        far(self.KIND).freeze()
        self.assertEqual(await self.write("five"), 480)  # nobody knows whether it took it
        far(self.KIND).thaw()
