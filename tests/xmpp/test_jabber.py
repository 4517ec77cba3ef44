"""The module jabber: SIP users with accounts of their own at a real Prosody; addresses, logins and refusals without any."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import socket
from base64 import b64decode, b64encode
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.modules.jabber import Jabber as JabberModule
from sipgw.sip.uri import Uri
from sipgw.xmpp.address import BadJid, Jid
from sipgw.xmpp.aliases import Aliases, Place
from sipgw.xmpp.client_stream import ClientStream, Encrypt, Ready
from sipgw.xmpp.scram import BadServer, Scram
from tests.children import ROOT, free_port
from tests.servers.prosody import DOMAIN, ROOMS, USERS, prosody
from tests.xmpp.rig import Gatewayed

SCRIPT = ROOT / "examples" / "jabber.cfg"
STREAM = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1' version='1.0'>"
FEATURES = "<stream:features>%s</stream:features>"
MECHANISMS = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>%s</mechanisms>"


class AliasTests(SynchronousTestCase):
    """Addresses."""

    def test_places(self):
        """Users, rooms with and without a nick, transports; and back."""
        names = Aliases.read("jabber.sip.test=*", "2;msn.test=%;icq.test;")
        for text, place in (
            ("romeo*jabber.test@jabber.sip.test", Place(Jid("romeo", "jabber.test"))),
            ("Al*balcony*rooms.test@JABBER.sip.test", Place(Jid("balcony", "rooms.test"), "Al")),
            ("*balcony*rooms.test@jabber.sip.test", Place(Jid("balcony", "rooms.test"), "")),
            ("a*hotmail.com@msn.test", Place(Jid("a%hotmail.com", "msn.test"))), ("123@icq.test", Place(Jid("123", "icq.test"))),
        ):
            uri = Uri.parse(f"sip:{text}")
            self.assertTrue(names.serves(uri))
            self.assertEqual(names.place(uri), place)
            if place.nick is None:
                self.assertEqual(names.uri(place.jid), f"sip:{text.replace('%', '%25')}")
        self.assertEqual(names.uri(Jid("balcony", "rooms.test"), "Al"), "sip:Al*balcony*rooms.test@jabber.sip.test")
        for text in ("romeo@jabber.sip.test", "a*b*c*d@jabber.sip.test", "romeo*@jabber.sip.test", "*x@jabber.sip.test"):
            self.assertRaises(BadJid, names.place, Uri.parse(f"sip:{text}"))
        self.assertFalse(names.serves(Uri.parse("sip:a@elsewhere.test")))

    def test_refused(self):
        """What is no table of aliases, and what the module refuses when it is read."""
        for jdomain, aliases in (
            ("", ""), ("a.test=**", ""), ("a.test", "x;b"), ("a.test", "2;b.test"), ("a.test", "1;b.test=%%"),
        ):
            self.assertRaises(ValueError, Aliases.read, jdomain, aliases)
        module = JabberModule()
        for name, value in (("priority", "high"), ("priority", "200"), ("workers", 0), ("tls", "some")):
            self.assertRaises(ValueError, module.set_parameter, name, value)


class LoginTests(SynchronousTestCase):
    """Logging in, against a server of these few lines."""

    def stream(self, tls: str = "optional") -> ClientStream:
        """A stream that has begun."""
        made = ClientStream("a.test", "al,ice", "secret", "sip", tls, "nonce")
        self.assertEqual(made.receive(STREAM.encode()), (b"", []))
        return made

    def test_scram(self):
        """RFC 7677's own example; the server's proof is looked at; nonsense, endless hashing and another's words are refused."""
        scram = Scram("SCRAM-SHA-256", "user", "pencil", "rOprNGfwEbeRWgbNEkqO")
        self.assertEqual(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        final = scram.final(b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
        self.assertTrue(final.endswith(b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
        scram.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
        self.assertRaises(BadServer, scram.check, b"v=AAAA")
        for challenge in (b"r=other,s=AA==,i=1", b"r=rOprNGfwEbeRWgbNEkqOx,s=AA==,i=9999999", b"x", b"\xff", b"r=a,s=?,i=1"):
            self.assertRaises(BadServer, Scram("SCRAM-SHA-256", "user", "pencil", "rOprNGfwEbeRWgbNEkqO").final, challenge)
        self.assertRaises(BadServer, Scram("SCRAM-SHA-1", "user", "pencil", "n").check, b"v=")

    def test_login(self):
        """TLS, SCRAM, a resource; a server that only says "success" has proved nothing."""
        stream = self.stream()
        starttls = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
        out, _ = stream.receive((FEATURES % starttls).encode())
        self.assertIn(b"<starttls", out)
        _, events = stream.receive(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><message/>")
        self.assertEqual(events, [Encrypt()])
        stream.secured()
        offered = "<mechanism>PLAIN</mechanism><mechanism>SCRAM-SHA-1</mechanism>"
        out, _ = stream.receive((STREAM + FEATURES % (MECHANISMS % offered)).encode())
        self.assertIn(b"mechanism='SCRAM-SHA-1'", out)
        self.assertEqual(b64decode(re.findall(b">([^<]+)<", out)[0]), b"n,,n=al=2Cice,r=nonce")
        challenge = b64encode(b"r=nonceX,s=AA==,i=1").decode()
        out, _ = stream.receive(f"<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{challenge}</challenge>".encode())
        said = b64decode(re.findall(b">([^<]+)<", out)[0]).decode()
        bare = f"n=al=2Cice,r=nonce,r=nonceX,s=AA==,i=1,{said.rpartition(',p=')[0]}".encode()
        key = hmac.new(hashlib.pbkdf2_hmac("sha1", b"secret", b"\0", 1), b"Server Key", "sha1").digest()
        proof = b64encode(b"v=" + b64encode(hmac.new(key, bare, "sha1").digest())).decode()
        success = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>%s</success>"
        out, events = stream.receive((success % proof).encode())
        self.assertEqual(events, [])
        bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>%s</bind>"
        out, _ = stream.receive((STREAM + FEATURES % (bind % "")).encode())
        self.assertIn(b"<resource>sip</resource>", out)
        _, events = stream.receive(f"<iq type='result' id='bind'>{bind % '<jid>alice@a.test/sip</jid>'}</iq><presence/>".encode())
        self.assertEqual(events[0], Ready("alice@a.test/sip"))
        self.assertEqual(events[1].tag, "{jabber:component:accept}presence")  # type: ignore[union-attr]

    def test_liars(self):
        """A server that has not shown that it knows the password, or wants it in the open, gets nothing."""
        stream = self.stream()
        stream.receive((FEATURES % (MECHANISMS % "<mechanism>SCRAM-SHA-1</mechanism>")).encode())
        _, events = stream.receive(b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
        self.assertIn("cannot be trusted", str(events))
        _, events = self.stream().receive((FEATURES % (MECHANISMS % "<mechanism>PLAIN</mechanism>")).encode())
        self.assertIn("keeps a password secret", str(events))
        for plain in (False, True):
            stream = ClientStream("a.test", "alice", "secret", "sip", "optional", "n", plain)
            stream.receive(STREAM.encode())
            stream.secured()
            out, events = stream.receive((FEATURES % (MECHANISMS % "<mechanism>PLAIN</mechanism>")).encode())
            self.assertEqual((b"PLAIN" in out, bool(events)), (plain, not plain))
        _, events = self.stream("required").receive((FEATURES % "").encode())
        self.assertIn("offers no TLS", str(events))
        _, events = self.stream().receive(b"<message/>")
        self.assertIn("the server says", str(events))


class AccountTests(Gatewayed):
    """alice's phone and paris's account, a real Prosody, romeo with slixmpp."""

    CLIENTS: tuple[str, ...] = ("romeo",)
    UP = "listens on"

    def start(self) -> None:
        """Keep a port for commands."""
        self.door = free_port()
        super().start()

    def script(self, text: str) -> str:
        """The example of the module jabber."""
        url = f"sqlite://{self.folder}/jabber.db"
        if not (self.folder / "jabber.db").exists():
            store = open_store(url, create=True)
            create(store, ["jusers"])
            for number, (name, password, owner) in enumerate((("paris", USERS["paris"], "alice"), ("juliet", "wrong", "bob"))):
                row: dict[str, Any] = {"juid": number, "jab_id": f"{name}@{DOMAIN}", "jab_passwd": password, "type": 0}
                store.insert("jusers", {**row, "sip_id": f"sip:{owner}@sip.test"})
            store.close()
        text = SCRIPT.read_text(encoding="utf-8").replace("127.0.0.1:5060", f"127.0.0.1:{self.port}")
        text = text.replace("sqlite:///var/lib/sipgw/jabber.db", url).replace('"jport", 5222', f'"jport", {prosody().clients}')
        text = text.replace('"jaddress", "jabber.test"', '"jaddress", "127.0.0.1"')
        tls = f'modparam("jabber", "tls", "verified")\nmodparam("jabber", "tls_ca", "{prosody().directory}/cert.pem")\n'
        text = text.replace("route {", f"{tls}route {{", 1)
        more = f'loadmodule "mi_datagram.so"\nmodparam("mi_datagram", "socket_name", "udp:127.0.0.1:{self.door}")\n'
        return text.replace("route {", f"{more}route {{", 1)

    async def write(self, text: str, to: str = f"romeo*{DOMAIN}", sender: str = "alice") -> int:
        """A phone writes; the status."""
        kind = "Content-Type: text/plain\r\n"
        return (await self.ask("MESSAGE", f"sip:{to}@jabber.sip.test", kind, text.encode(), sender=sender)).status

    def accounts(self) -> Any:
        """Who is online."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            door.settimeout(5)
            door.sendto(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "jabber:list"}).encode(), ("127.0.0.1", self.door))
            return json.loads(door.recv(65535))["result"]["Accounts"]

    def heard(self) -> list[str]:
        """What the phone heard."""
        return [each.body.decode() for each in self.phone.messages]

    async def test_account(self):
        """A text each way as paris; online, offline; who has no account, a wrong password, a user that there is not; rooms."""
        romeo = self.jabbers["romeo"]
        self.assertEqual(await self.write("Hello"), 202)
        await self.until(lambda: romeo.bodies() == ["Hello"])
        self.assertEqual(romeo.saying("{jabber:client}body")[0].get("from"), f"paris@{DOMAIN}/sip")
        wish = "<request xmlns='urn:xmpp:receipts'/>"
        romeo.send(f"<message to='paris@{DOMAIN}/sip' type='chat' id='m1'><body>Back</body>{wish}</message>")
        await self.until(lambda: self.heard() == ["Back"])
        message = self.phone.messages[0]
        self.assertEqual(message.from_.uri_text, f"sip:romeo*{DOMAIN}@jabber.sip.test")
        self.assertEqual(message.to.uri_text, "sip:alice@sip.test")
        await self.until(lambda: romeo.saying("{urn:xmpp:receipts}received[@id='m1']"))
        self.assertEqual(await self.write("Hello", f"nobody*{DOMAIN}"), 480)
        self.assertEqual(await self.write("Hello", sender="carol"), 403)
        self.assertEqual(await self.write("Hello", sender="bob"), 480)
        self.assertIn("the server lets us not in: not-authorized", self.child.text())
        self.assertNotIn(USERS["paris"], self.child.text())
        (shown,) = await deferToThread(self.accounts)
        self.assertEqual((shown["sip"], shown["jabber"], shown["online"]), ("sip:alice@sip.test", f"paris@{DOMAIN}/sip", True))
        self.assertEqual(await self.write("#offline"), 202)
        self.assertEqual(await deferToThread(self.accounts), [])
        self.assertEqual(await self.write("#offline"), 404)
        self.assertEqual(await self.write("#online"), 202)
        await self.room()

    async def room(self) -> None:
        """A room is entered, spoken in, and left; a nick that is taken is 409; the server's end is told."""
        romeo = self.jabbers["romeo"]
        room = f"garden@{ROOMS}"
        romeo.send(f"<presence to='{room}/romeo'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
        await self.until(lambda: romeo.saying("{http://jabber.org/protocol/muc#user}x"))
        garden = f"Al*garden*{ROOMS}"
        self.assertEqual(await self.write("Hello", garden), 403)
        self.assertEqual(await self.write("#join", f"romeo*garden*{ROOMS}"), 409)
        self.assertEqual(await self.write("#join", garden), 202)
        self.assertEqual(await self.write("Hello", garden), 202)
        await self.until(lambda: "Hello" in romeo.bodies())
        romeo.send(f"<message to='{room}' type='groupchat'><body>Hi Al</body></message>")
        await self.until(lambda: "[romeo] Hi Al" in self.heard())
        self.assertEqual(self.phone.messages[-1].from_.uri_text, f"sip:{garden}@jabber.sip.test")
        self.assertEqual(await self.write("#exit", garden), 202)
        self.assertEqual(await self.write("#exit", garden), 404)
        self.assertEqual(await self.write("#join", garden), 202)
        prosody().kill()
        await self.until(lambda: any("You are offline in Jabber now" in each for each in self.heard()))
        self.assertEqual(await self.write("Hello"), 480)
        prosody().start()
        self.assertEqual(await self.write("Hello", f"juliet*{DOMAIN}"), 202)


class UnprovenTests(AccountTests):
    """A server whose certificate is nobody's whom we trust."""

    CLIENTS = ()

    def script(self, text: str) -> str:
        """Trust nobody but the system's authorities."""
        return re.sub(r".*tls_ca.*\n", "", super().script(text))

    async def test_account(self):
        """No password is said, for a text or for a room."""
        self.assertEqual(await self.write("Hello"), 480)
        self.assertIn("does not prove who it is", self.child.text())
        self.assertEqual(await self.write("#join", f"Al*garden*{ROOMS}"), 480)
