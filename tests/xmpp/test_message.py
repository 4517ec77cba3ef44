"""MESSAGE requests as stanzas and back: pairs, and whatever hypothesis thinks of."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, fromstring

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.composing import COMPOSING, Composing
from sipgw.sip.cpim import Cpim
from sipgw.sip.errors import SipError
from sipgw.sip.imdn import Notification, asked
from sipgw.sip.message import Request, parse
from sipgw.xmpp import message
from sipgw.xmpp import stanza as stanzas
from sipgw.xmpp.address import Jid
from sipgw.xmpp.errors import CONDITIONS, STATUSES, of_condition, of_status
from sipgw.xmpp.message import is_carbon, receipt, wants_receipt
from sipgw.xmpp.stanza import COMPONENT, error_of, write
from sipgw.xmpp.stream import ComponentStream, Ended, Ready

to_stanza: Any = message.to_stanza
to_sip: Any = message.to_sip
failure_note: Any = message.failure_note
error_to: Any = stanzas.error_to

ALICE, ROMEO = Jid.parse("alice@sip.test"), Jid.parse("romeo@jabber.test")
NS = f'xmlns="{COMPONENT}"'
IMDN = "NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: m1\r\nimdn.Disposition-Notification: "


def request(body: bytes | str, kind: str = "text/plain", more: str = "") -> Request:
    """A MESSAGE."""
    octets = body if isinstance(body, bytes) else body.encode()
    head = (
        "MESSAGE sip:romeo@jabber.test SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:alice@sip.test>;tag=1\r\n"
        f"To: <sip:romeo@jabber.test>\r\nCall-ID: call\r\nCSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\n{more}Content-Type: {kind}\r\n"
        f"Content-Length: {len(octets)}\r\n\r\n"
    )
    made = parse(head.encode() + octets)
    assert isinstance(made, Request)
    return made


def said(body: bytes | str, kind: str = "text/plain", more: str = "", now: float = 0.0) -> str:
    """The stanza for a MESSAGE, without its ids."""
    made = to_stanza(request(body, kind, more), ALICE, ROMEO, now)
    assert made is not None
    for each in made.findall("{urn:xmpp:sid:0}origin-id"):
        made.remove(each)
    made.attrib.pop("id")
    return write(made).decode()


def stanza(inner: str, attributes: str = 'id="i1" type="chat"') -> Element:
    """A message stanza from romeo."""
    return fromstring(f'<message {NS} from="romeo@jabber.test/r" to="alice@sip.test" {attributes}>{inner}</message>')


HEAD = (
    f"<?xml version='1.0'?><stream:stream xmlns='{COMPONENT}' xmlns:stream='http://etherx.jabber.org/streams' from='s' "
    "id='3BF96D32'>"
)
START = '<message from="alice@sip.test" to="romeo@jabber.test" type="chat"'
STATE = '<active xmlns="http://jabber.org/protocol/chatstates"/>'
XHTML = '<html xmlns="http://jabber.org/protocol/xhtml-im"><body xmlns="http://www.w3.org/1999/xhtml">'


class ToStanzaTests(SynchronousTestCase):
    """RFC 7572 4."""

    def test_bodies(self):
        """Each kind of body, as it is said."""
        thread = "<thread>call</thread>"
        alternative = (
            "--x\r\nContent-Type: text/plain\r\n\r\nHi *you*\r\n--x\r\nContent-Type: text/html\r\n\r\n<p>Hi <b>you</b>"
            "<script>x</script><a href='javascript:x'>a</a><a href='https://a.test/'>b</a></p>\r\n--x--\r\n"
        )
        file = (
            '<?xml version="1.0"?><file xmlns="urn:gsma:params:xml:ns:rcs:rcs:fthttp"><file-info type="file">'
            '<file-size>1</file-size><data url="https://files.test/a.jpg" until="2030-01-01T00:00:00Z"/></file-info></file>'
        )
        link = '<x xmlns="jabber:x:oob"><url>https://files.test/a.jpg</url></x>'
        for body, kind, more, wanted in (
            ("Hi <b>&", "text/plain", "", f"{START}><body>Hi &lt;b&gt;&amp;</body>{thread}{STATE}</message>"),
            ("Grüße".encode("latin-1"), "text/plain;charset=latin1", "", f"{START}><body>Grüße</body>{thread}{STATE}</message>"),
            (
                "a\0b\x08c\x1b\ufffe".encode(), "text/plain", "",
                f"{START}><body>ab\ufffdc\ufffd\ufffd</body>{thread}{STATE}</message>",
            ),
            (
                "x", "text/plain", "Subject: News\r\nContent-Language: de, en\r\n",
                f'{START} xml:lang="de"><subject>News</subject><body>x</body>{thread}{STATE}</message>',
            ),
            (
                alternative, "multipart/alternative;boundary=x", "",
                f"{START}><body>Hi *you*</body>{thread}{XHTML}<p>Hi <strong>you</strong><a>a</a>"
                f'<a href="https://a.test/">b</a></p></body></html>{STATE}</message>',
            ),
            (
                "Subject: ;lang=en Hm\r\n\r\nContent-Type: text/plain\r\n\r\nx", "message/cpim", "",
                f"{START}><subject>Hm</subject><body>x</body>{thread}{STATE}</message>",
            ),
            (
                file, "application/vnd.gsma.rcs-ft-http+xml", "",
                f"{START}><body>https://files.test/a.jpg</body>{thread}{link}{STATE}</message>",
            ),
            (
                "", 'message/external-body;access-type=URL;URL="https://files.test/a.jpg"', "",
                f"{START}><body>https://files.test/a.jpg</body>{thread}{link}{STATE}</message>",
            ),
            (
                Composing(True).write(), COMPOSING, "",
                f'{START}><composing xmlns="http://jabber.org/protocol/chatstates"/><no-store xmlns="urn:xmpp:hints"/></message>',
            ),
            (
                Composing(False).write(), COMPOSING, "",
                f'{START}><paused xmlns="http://jabber.org/protocol/chatstates"/><no-store xmlns="urn:xmpp:hints"/></message>',
            ),
        ):
            self.assertEqual(said(body, kind, more), wanted)

    def test_late(self):
        """A message of yesterday says so, one of now does not."""
        header = "Date: Sat, 13 Nov 2010 23:29:00 GMT\r\n"
        stamp = '<delay xmlns="urn:xmpp:delay" from="sip.test" stamp="2010-11-13T23:29:00Z"/>'
        self.assertIn(stamp, said("x", more=header, now=1289691900.0))
        self.assertNotIn("delay", said("x", more=header, now=1289690940.0 + 30))
        self.assertNotIn("delay", said("x", more="Date: never\r\n", now=1289691900.0))

    def test_refused(self):
        """What is no text is 415, what is too long 413, what is broken 400."""
        for body, kind, status in (
            (b"\x89PNG", "image/png", 415), ("x", "text/plain;charset=klingon", 415), ("x" * 32_001, "text/plain", 413),
            ("<a", COMPOSING, 400), ("<!DOCTYPE a []><isComposing/>", COMPOSING, 400), ("x", "nonsense", 400),
            ("", 'message/external-body;URL="file:///etc/passwd"', 415), ("--x--", "multipart/mixed;boundary=x", 400),
        ):
            self.assertEqual(self.assertRaises(SipError, to_stanza, request(body, kind), ALICE, ROMEO).status, status, kind)

    @settings(max_examples=300, derandomize=True, deadline=None)
    @given(
        st.binary(max_size=60), st.sampled_from(["text/plain", "text/html", "message/cpim", COMPOSING, "message/imdn+xml"]),
        st.text(max_size=20),
    )
    def test_always_well_formed(self, body, kind, subject):
        """Whatever a phone says, the server reads a stanza, and one only."""
        subject = "".join(subject.split()) or "x"
        try:
            made = to_stanza(request(body, kind, f"Subject: {subject}\r\n".replace("\0", "")), ALICE, ROMEO)
        except SipError:
            return
        stream = ComponentStream("sip.test", "x")
        stream.receive(f"{HEAD}<handshake/>".encode())
        if made is not None:
            _, events = stream.receive(write(made) + b"<iq/>")
            tags = [each.tag for each in events if isinstance(each, Element)]
            self.assertEqual(tags, [f"{{{COMPONENT}}}message", f"{{{COMPONENT}}}iq"])


class ToSipTests(SynchronousTestCase):
    """RFC 7572 5."""

    def page(self, inner, attributes='id="i1" type="chat"', **more):
        """What a stanza becomes."""
        return to_sip(stanza(inner, attributes), "sip:romeo@jabber.test", "sip:alice@sip.test", **more)

    def test_texts(self):
        """Text, subject, language, thread, time, links."""
        page = self.page(
            "<body>Grüße\n&lt;x&gt;</body><subject>a\nb</subject><thread>t1</thread>"
            "<delay xmlns='urn:xmpp:delay' stamp='2010-11-13T23:29:00Z'/>", 'id="i1" xml:lang="de"',
        )
        self.assertEqual(page.headers, "Content-Language: de\r\nDate: Sat, 13 Nov 2010 23:29:00 GMT\r\nSubject: a b\r\n")
        self.assertEqual((page.kind, page.body), ("text/plain;charset=utf-8", "Grüße\r\n<x>".encode()))
        self.assertEqual(page.call_id, "t1")
        self.assertEqual(self.page("<body>x</body><thread>a b\t</thread>").call_id[:7], "thread-")
        link = "<x xmlns='jabber:x:oob'><url>https://a.test/b</url></x>"
        self.assertEqual(self.page(f"<body>https://a.test/b</body>{link}").body, b"https://a.test/b")
        self.assertEqual(self.page(f"<body>Look</body>{link}").body, b"Look\r\nhttps://a.test/b")
        self.assertEqual(self.page(link).body, b"https://a.test/b")

    def test_silence(self):
        """What says nothing to a phone."""
        self.assertIsNone(self.page(""))
        self.assertIsNone(self.page("<body/>"))
        self.assertIsNone(self.page("<composing xmlns='http://jabber.org/protocol/chatstates'/>", composing=False))
        self.assertIsNone(self.page("<received xmlns='urn:xmpp:receipts' id='of-somebody'/>"))

    def test_states(self):
        """Who is writing."""
        for state, active in (("composing", True), ("paused", False), ("active", False), ("gone", False)):
            page = self.page(f"<{state} xmlns='http://jabber.org/protocol/chatstates'/>")
            self.assertEqual((page.kind, Composing.parse(page.body).active, page.quiet), (COMPOSING, active, True))

    def test_long(self):
        """A text is not cut, it is refused."""
        self.assertEqual(self.assertRaises(SipError, self.page, f"<body>{'x' * 32_001}</body>").status, 413)

    def test_carbons(self):
        """Copies of other conversations are known."""
        self.assertTrue(is_carbon(stanza("<sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'/></sent>")))
        self.assertFalse(is_carbon(stanza("<body>x</body><private xmlns='urn:xmpp:carbons:2'/>")))


class ReceiptTests(SynchronousTestCase):
    """XEP-0184 and RFC 5438, one as the other, without any memory."""

    def test_phone_asks(self):
        """A phone asks; the Jabber client's receipt becomes a notification under the phone's name for the message."""
        for wanted, element, status, heard in (
            ("positive-delivery", "received xmlns='urn:xmpp:receipts'", "delivered", True),
            ("display", "displayed xmlns='urn:xmpp:chat-markers:0'", "displayed", True),
            ("display", "received xmlns='urn:xmpp:receipts'", "delivered", False),
            ("negative-delivery", "received xmlns='urn:xmpp:receipts'", "delivered", False),
        ):
            cpim = f"{IMDN}{wanted}\r\n\r\nContent-Type: text/plain\r\n\r\nx"
            made = to_stanza(request(cpim, "message/cpim"), ALICE, ROMEO)
            self.assertEqual(made.find("{urn:xmpp:receipts}request") is not None, wanted == "positive-delivery")
            page = to_sip(stanza(f"<{element} id='{made.get('id')}'/>"), "sip:romeo@jabber.test", "sip:alice@sip.test")
            self.assertEqual(page is not None, heard)
            if heard:
                note = Notification.parse(Cpim.parse(page.body).body)
                self.assertEqual((note.message_id, note.status, page.quiet), ("m1", status, True))

    def test_failures(self):
        """An error becomes a notification for who asked to hear of failures, and for nobody else."""
        for wanted, heard in (("negative-delivery", True), ("positive-delivery", False)):
            made = to_stanza(request(f"{IMDN}{wanted}\r\n\r\n\r\nx", "message/cpim"), ALICE, ROMEO)
            note = failure_note(stanza("", f'id="{made.get("id")}" type="error"'), "sip:romeo@jabber.test", "sip:alice@sip.test")
            self.assertEqual(note is not None, heard)
        self.assertIsNone(failure_note(stanza("", 'id="imdn-%%%" type="error"'), "sip:a@b", "sip:c@d"))

    def test_client_asks(self):
        """A client asks; with ``imdn`` the phone is asked, and its notification becomes the receipt."""
        element = stanza("<body>Hi</body><request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>")
        page = to_sip(element, "sip:romeo@jabber.test", "sip:alice@sip.test", imdn=True)
        cpim = Cpim.parse(page.body)
        self.assertEqual((cpim.body, cpim.content_type.name), (b"Hi", "text/plain"))
        wanted = asked(cpim)
        self.assertEqual(wanted, ("i1", True, False, True))
        for status, kind, path in (
            ("delivered", "delivery", "{urn:xmpp:receipts}received"),
            ("displayed", "display", "{urn:xmpp:chat-markers:0}displayed"),
        ):
            note = Notification("i1", kind, status).wrap("sip:alice@sip.test", "sip:romeo@jabber.test", "n1")
            made = to_stanza(request(note.write(), "message/cpim"), ALICE, ROMEO)
            self.assertEqual(made.find(path).get("id"), "i1")
        self.assertEqual(to_sip(element, "sip:a@b", "sip:c@d").kind, "text/plain;charset=utf-8")
        note = Notification("i1", "processing", "stored").wrap("sip:alice@sip.test", "sip:romeo@jabber.test", "n1")
        self.assertIsNone(to_stanza(request(note.write(), "message/cpim"), ALICE, ROMEO))

    def test_own_receipt(self):
        """The receipt that a phone's 200 becomes; errors and rooms ask in vain."""
        element = stanza("<body>x</body><request xmlns='urn:xmpp:receipts'/>")
        self.assertTrue(wants_receipt(element))
        self.assertIsNotNone(receipt(element).find("{urn:xmpp:receipts}received[@id='i1']"))
        self.assertEqual(receipt(element).get("to"), "romeo@jabber.test/r")
        self.assertFalse(wants_receipt(stanza("<request xmlns='urn:xmpp:receipts'/>", 'type="groupchat" id="1"')))
        self.assertFalse(wants_receipt(stanza("<request xmlns='urn:xmpp:receipts'/>", 'type="chat"')))


class ErrorTests(SynchronousTestCase):
    """RFC 7247 7."""

    def test_tables(self):
        """Each status has a condition that there is, each condition a status that a phone may hear."""
        for status in [*STATUSES, 399, 499, 599, 699]:
            self.assertIn(of_status(status).name, CONDITIONS)
        for name in CONDITIONS:
            self.assertTrue(300 <= of_condition(name) <= 699 and of_condition(name) not in (401, 407), name)
        self.assertEqual(of_status(404), ("item-not-found", "cancel"))
        self.assertEqual(of_status(480), ("recipient-unavailable", "wait"))
        self.assertEqual(of_condition("of-the-future"), 500)

    def test_stanzas(self):
        """An error goes back under the same id, and is never answered by another."""
        made = error_to(stanza("<body>x</body>"), 404, "Not Found")
        self.assertEqual((made.get("to"), made.get("from"), made.get("id")), ("romeo@jabber.test/r", "alice@sip.test", "i1"))
        self.assertEqual(error_of(made), (404, "404 Not Found"))
        self.assertIsNone(error_to(made, 404))
        self.assertEqual(error_of(stanza("")), (500, "Error"))


class StreamTests(SynchronousTestCase):
    """XEP-0114 3, and what is no business of a server's."""

    def test_handshake(self):
        """The digest is that of sha1sum; every way to cut what comes."""
        for size in (1, 7, 1000):
            stream = ComponentStream("plays.shakespeare.lit", "secret")
            self.assertIn(b"to='plays.shakespeare.lit'".replace(b"'", b'"'), stream.open().replace(b"'", b'"'))
            data = (HEAD + "<handshake/><message><body>a<b/>c</body></message>").encode()
            out, events = b"", list[Any]()
            for start in range(0, len(data), size):
                more, came = stream.receive(data[start : start + size])
                out, events = out + more, events + came
            self.assertEqual(out, b"<handshake>b09ea9b3b7f586be8a08d0a3dd7466f110aeb136</handshake>")
            self.assertIsInstance(events[0], Ready)
            self.assertEqual("".join(events[1].itertext()), "ac")

    def test_ends(self):
        """Errors, the end, and what must not be read."""
        long = "<message><body>" + "x" * 300_000
        wide = f"<a {' '.join(f'a{number}=_1_' for number in range(70))}/>".replace("_", "'")
        for data, reason in (
            ("<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>", "not-authorized"),
            ("</stream:stream>", "closed"), ("<handshake/><!-- x -->", "no part"), ("<handshake/><?x y?>", "no part"),
            (long, "too long"), (wide, "too deep"), ("<handshake/>" + "<a>" * 100, "too deep"), ("<a></b>", "XML"),
            ("<a>\x08</a>", "XML"),
        ):
            stream = ComponentStream("s", "x")
            _, events = stream.receive((HEAD + data).encode())
            last = events[-1]
            assert isinstance(last, Ended)
            self.assertIn(reason, last.reason)
            self.assertEqual(stream.receive(b"<message/>"), (b"", []))
        stream = ComponentStream("s", "x")
        _, events = stream.receive(b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>")
        self.assertEqual(len(events), 1)
        self.assertIsInstance(events[0], Ended)
