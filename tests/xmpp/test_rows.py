"""Each row of "Messages (RFC 7572)" in docs/xmpp.md through a real Prosody: a SIMPLE phone here, slixmpp there."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from sipgw.sip.body import MediaType, Multipart
from sipgw.sip.composing import COMPOSING, Composing
from sipgw.sip.cpim import Cpim
from sipgw.sip.imdn import Notification
from tests.servers.prosody import COMPONENT, DOMAIN, missing, prosody
from tests.xmpp.rig import Gatewayed

CLIENT = "{jabber:client}"
BODY = f"{CLIENT}body"
STATES = "{http://jabber.org/protocol/chatstates}"
CPIM = "From: <sip:alice@sip.test>\r\nTo: <sip:romeo@jabber.test>\r\n"
XHTML = "<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>%s</body></html>"
FILE = (
    '<?xml version="1.0"?><file xmlns="urn:gsma:params:xml:ns:rcs:rcs:fthttp"><file-info type="file"><file-size>1</file-size>'
    '<data url="https://files.test/a.jpg" until="2030-01-01T00:00:00Z"/></file-info></file>'
)
TO_JABBER: list[tuple[str, str, bytes, str, dict[str, str | None]]] = [
    ("text/plain", "text/plain", b"Plain", "", {BODY: "Plain", f"{STATES}active": ""}),
    ("another charset", "text/plain;charset=iso-8859-1", "Grüße".encode("latin-1"), "", {BODY: "Grüße"}),
    ("subject and thread", "text/plain", b"With", "Subject: News\r\nCall-ID: t1\r\n", {f"{CLIENT}subject": "News"}),
    ("language", "text/plain", "Tschüß".encode(), "Content-Language: de\r\n", {BODY: "Tschüß"}),
    (
        "HTML", "text/html", b"<p>Hi <b>you</b></p>", "",
        {BODY: "Hi you", ".//{http://www.w3.org/1999/xhtml}strong": "you"},
    ),
    (
        "alternatives", "multipart/alternative;boundary=x",
        b"--x\r\nContent-Type: text/plain\r\n\r\nA\r\n--x\r\nContent-Type: text/html\r\n\r\n<i>B</i>\r\n--x--\r\n", "",
        {BODY: "A", ".//{http://www.w3.org/1999/xhtml}em": "B"},
    ),
    ("CPIM", "message/cpim", f"{CPIM}Subject: Hm\r\n\r\nContent-Type: text/plain\r\n\r\nC".encode(), "", {BODY: "C"}),
    (
        "late", "text/plain", b"Late", "Date: Sat, 13 Nov 2010 23:29:00 GMT\r\n",
        {BODY: "Late", "{urn:xmpp:delay}delay[@stamp='2010-11-13T23:29:00Z']": None},
    ),
    ("RCS's file", "application/vnd.gsma.rcs-ft-http+xml", FILE.encode(), "", {"{jabber:x:oob}x/{jabber:x:oob}url": "https://files.test/a.jpg"}),
    (
        "a link", 'message/external-body;access-type=URL;URL="https://files.test/b.jpg"', b"", "",
        {"{jabber:x:oob}x/{jabber:x:oob}url": "https://files.test/b.jpg"},
    ),
    ("writing", COMPOSING, Composing(True, content_type="text/plain").write(), "", {f"{STATES}composing": ""}),
    ("not writing", COMPOSING, Composing(False).write(), "", {f"{STATES}paused": ""}),
    ("long", "text/plain", b"x" * 30_000, "", {BODY: "x" * 30_000}),
]
"""Name, type, body, headers of a MESSAGE; what the stanza has (None: whatever)."""
TO_SIP: list[tuple[str, str, str, dict[str, str], bytes]] = [
    ("text", "id='a1'", "<body>Grüße &lt;b&gt; \U0001f600</body>", {}, "Grüße <b> \U0001f600".encode()),
    (
        "subject and thread", "id='a2'", "<body>B</body><subject>News</subject><thread>t2@jabber</thread>",
        {"subject": "News", "call-id": "t2@jabber"}, b"B",
    ),
    ("language", "id='a3' xml:lang='de'", "<body>C</body>", {"content-language": "de"}, b"C"),
    (
        "late", "id='a4'", "<body>D</body><delay xmlns='urn:xmpp:delay' stamp='2010-11-13T23:29:00Z'/>",
        {"date": "Sat, 13 Nov 2010 23:29:00 GMT"}, b"D",
    ),
    (
        "a link", "id='a5'", "<body>See</body><x xmlns='jabber:x:oob'><url>https://files.test/c.jpg</url><desc>Us</desc></x>", {},
        b"See\r\nUs: https://files.test/c.jpg",
    ),
    ("several lines", "id='a6'", "<body>one\ntwo</body>", {}, b"one\r\ntwo"),
    ("long", "id='a7'", f"<body>{'y' * 30_000}</body>", {}, b"y" * 30_000),
    ("no id, no type", "", "<body>E</body>", {}, b"E"),
]
"""Name, attributes and content of a stanza; headers of the MESSAGE and its body."""
STATUSES = {
    400: "bad-request", 403: "forbidden", 404: "item-not-found", 405: "not-allowed", 408: "remote-server-timeout", 410: "gone",
    413: "policy-violation", 415: "not-acceptable", 480: "recipient-unavailable", 486: "recipient-unavailable",
    488: "not-acceptable", 500: "internal-server-error", 501: "feature-not-implemented",
    503: "internal-server-error",  # tm says 500 instead (RFC 3261 16.7, step 6)
    600: "recipient-unavailable", 603: "recipient-unavailable", 604: "item-not-found",
}


class RowTests(Gatewayed):
    """SIP to Jabber, and back."""

    if missing():
        skip = missing()

    async def test_rows(self):
        """All of it, one after another: a server and its clients cost more than what they carry."""
        await self.to_jabber()
        await self.to_sip()
        await self.carbons()

    async def to_jabber(self) -> None:
        """What a phone sends, as a Jabber client has it."""
        romeo = self.jabbers["romeo"]
        for name, kind, body, headers, wanted in TO_JABBER:
            known = len(romeo.stanzas)
            call = "t1" if "Call-ID" in headers else ""
            headers = headers.replace("Call-ID: t1\r\n", "")
            response = await self.ask(
                "MESSAGE", f"sip:romeo@{DOMAIN}", f"Content-Type: {kind}\r\n{headers}", body, call_id=call
            )
            self.assertEqual(response.status, 202, name)
            stanza = await self.came(known)
            for path, text in wanted.items():
                found = stanza.find(path)
                assert found is not None, (name, path)
                if text is not None:
                    self.assertEqual("".join(found.itertext()), text, name)
            if name == "language":
                self.assertEqual(stanza.get("{http://www.w3.org/XML/1998/namespace}lang"), "de")
            if call:
                self.assertEqual(stanza.findtext(f"{CLIENT}thread"), "t1")
        for kind, body, status in (("image/png", b"x", 415), ("text/plain", b"z" * 32_001, 413), ("message/cpim", b"x", 400)):
            response = await self.ask("MESSAGE", f"sip:romeo@{DOMAIN}", f"Content-Type: {kind}\r\n", body)
            self.assertEqual(response.status, status)

    async def came(self, known: int) -> Element:
        """The next message that romeo's client has."""
        romeo = self.jabbers["romeo"]
        found: list[Element] = await self.until(
            lambda: [each for each in romeo.stanzas[known:] if each.tag == f"{CLIENT}message"]
        )
        return found[0]

    async def to_sip(self) -> None:
        """What a Jabber client sends, as a phone has it; then each status as the error that says it."""
        romeo = self.jabbers["romeo"]
        for name, attributes, inner, headers, body in TO_SIP:
            self.phone.messages.clear()
            kind = " type='chat'" if "id" in attributes else ""
            romeo.send(f"<message to='alice@{COMPONENT}' {attributes}{kind}>{inner.replace(chr(10), '&#10;')}</message>")
            await self.until(lambda: self.phone.messages)
            message = self.phone.messages[0]
            self.assertEqual(message.body, body, name)
            for header, value in headers.items():
                self.assertEqual(message.header(header), value, name)
            self.assertEqual(message.header("content-type"), "text/plain;charset=utf-8")
        for state, active in (("composing", b"active"), ("paused", b"idle"), ("active", b"idle")):
            self.phone.messages.clear()
            romeo.send(f"<message to='alice@{COMPONENT}' type='chat'><{state} xmlns='http://jabber.org/protocol/chatstates'/></message>")
            await self.until(lambda: self.phone.messages)
            self.assertIn(active, self.phone.messages[0].body)
        for status, condition in STATUSES.items():
            self.phone.status = status
            romeo.send(f"<message to='alice@{COMPONENT}' type='chat' id='s{status}'><body>Hi</body></message>")
            path = f"{CLIENT}error/{{urn:ietf:params:xml:ns:xmpp-stanzas}}{condition}"
            await self.until(
                lambda status=status, path=path: [each for each in romeo.saying(path) if each.get("id") == f"s{status}"]
            )
        self.phone.status = 200
        self.phone.messages.clear()
        romeo.send(f"<message to='alice@{COMPONENT}' type='chat'><body>{'z' * 32_001}</body></message>")
        await self.until(lambda: [each for each in romeo.saying(f"{CLIENT}error/*/..") if "413" in "".join(each.itertext())])
        self.assertEqual(self.phone.messages, [])

    async def carbons(self) -> None:
        """A second client of romeo's has a copy of what he writes and hears; the phone has each once, and no copies."""
        from tests.xmpp.rig import Jabber

        other = self.jabbers["other"] = Jabber("romeo", "other")
        other.start(self.reactor)
        await self.until(lambda: other.online)
        romeo = self.jabbers["romeo"]
        self.phone.messages.clear()
        romeo.send(f"<message to='alice@{COMPONENT}' type='chat' id='c1'><body>Once</body></message>")
        await self.until(lambda: other.saying("{urn:xmpp:carbons:2}sent"))
        self.assertEqual((await self.say("Back")).status, 202)
        romeo.send(f"<message to='alice@{COMPONENT}' type='chat' id='c2'><body>Last</body></message>")
        await self.until(lambda: b"Last" in [each.body for each in self.phone.messages])
        texts = [each.body for each in self.phone.messages if each.header("content-type") == "text/plain;charset=utf-8"]
        self.assertEqual(texts, [b"Once", b"Last"])
        self.assertEqual([each.bodies().count("Back") for each in (romeo, other)].count(0), 0)


class AskingTests(Gatewayed):
    """Notifications and receipts, and HTML, where they are switched on."""

    MORE = 'modparam("xmpp", "receipts", "imdn")\nmodparam("xmpp", "html", 1)'

    async def test_rows(self):
        """All of it, one after another."""
        await self.html()
        await self.notifications()
        await self.offline()

    async def html(self) -> None:
        """What is marked up goes as two parts, without what acts; a phone that cannot read them has it plain."""
        romeo = self.jabbers["romeo"]
        marked = XHTML % "<p>Hi <strong>you</strong><a href='javascript:x'>a</a><script>b</script></p>"
        romeo.send(f"<message to='alice@{COMPONENT}' type='chat' id='h1'><body>Hi *you*a</body>{marked}</message>")
        await self.until(lambda: self.phone.messages)
        kind = MediaType.parse(self.phone.messages[0].header("content-type") or "")
        parts = Multipart.parse(self.phone.messages[0].body, kind.boundary or "").parts
        self.assertEqual([each.media_type.name for each in parts], ["text/plain", "text/html"])
        self.assertEqual(parts[1].body.strip(), b"<html><body><p>Hi <strong>you</strong><a>a</a></p></body></html>")
        self.phone.messages.clear()
        self.phone.status = 415
        romeo.send(f"<message to='alice@{COMPONENT}' type='chat' id='h2'><body>Hi *you*a</body>{marked}</message>")
        await self.until(lambda: len(self.phone.messages) == 2)
        self.assertEqual(self.phone.messages[1].body, b"Hi *you*a")
        self.phone.status = 200

    async def notifications(self) -> None:
        """A phone's "delivered" and "displayed" are a receipt and a marker; a client's are notifications."""
        romeo = self.jabbers["romeo"]
        self.phone.messages.clear()
        romeo.stanzas.clear()
        markable = "<markable xmlns='urn:xmpp:chat-markers:0'/><request xmlns='urn:xmpp:receipts'/>"
        romeo.send(f"<message to='alice@{COMPONENT}' type='chat' id='n1'><body>Hi</body>{markable}</message>")
        await self.until(lambda: self.phone.messages)
        for status, path in (("delivered", "{urn:xmpp:receipts}received"), ("displayed", "{urn:xmpp:chat-markers:0}displayed")):
            kind = "delivery" if status == "delivered" else "display"
            note = Notification("n1", kind, status).wrap(f"sip:alice@{COMPONENT}", f"sip:romeo@{DOMAIN}", f"x{status}")
            response = await self.ask("MESSAGE", f"sip:romeo@{DOMAIN}", "Content-Type: message/cpim\r\n", note.write())
            self.assertEqual(response.status, 202)
            await self.until(lambda path=path: romeo.saying(f"{path}[@id='n1']"))
        self.phone.messages.clear()
        wanted = f"{CPIM}NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: mine\r\nimdn.Disposition-Notification: "
        wanted += "positive-delivery, display\r\n\r\nContent-Type: text/plain\r\n\r\nRead me"
        response = await self.ask("MESSAGE", f"sip:romeo@{DOMAIN}", "Content-Type: message/cpim\r\n", wanted.encode())
        self.assertEqual(response.status, 202)
        await self.until(lambda: self.phone.messages)  # slixmpp answers the wish for a receipt by itself
        id = romeo.saying(BODY)[0].get("id")
        marker = f"<displayed xmlns='urn:xmpp:chat-markers:0' id='{id}'/>"
        romeo.send(f"<message to='alice@{COMPONENT}' type='chat'>{marker}</message>")
        await self.until(lambda: len(self.phone.messages) == 2)
        notes = [Notification.parse(Cpim.parse(each.body).body) for each in self.phone.messages]
        self.assertEqual([(each.message_id, each.status) for each in notes], [("mine", "delivered"), ("mine", "displayed")])

    async def offline(self) -> None:
        """Who is offline has it when he comes back, with the time at which it was sent; so much is Prosody's part."""
        self.assertEqual((await self.say("Later", to="juliet")).status, 202)
        from tests.xmpp.rig import Jabber

        juliet = self.jabbers["juliet"] = Jabber("juliet")
        juliet.start(self.reactor)
        await self.until(lambda: "Later" in juliet.bodies())
        self.assertTrue(juliet.saying("{urn:xmpp:delay}delay"))
        self.assertIn("juliet", prosody().says())
