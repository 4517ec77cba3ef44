"""Tests of sipgw/sip/dialog.py."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.dialog import Dialog, DialogId
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.message import Request
from sipgw.sip.replies import respond_to
from tests.sip.wire import read_request, read_response, request_bytes

ROUTES = "Record-Route: <sip:p2;lr>, <sip:p1;lr>\r\n"
VIA = "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKd"


def invite(headers: str = "Contact: <sip:alice@192.0.2.7>\r\n", **what: object) -> Request:
    """An INVITE with a Contact."""
    return read_request(request_bytes(headers=headers, **what))  # type: ignore[arg-type]


def answer(request: Request, status: int = 200, headers: str = "Contact: <sip:bob@192.0.2.8>\r\n" + ROUTES, tag: str = "t1"):
    """A response that makes a dialog."""
    return read_response(respond_to(request, status, to_tag=tag, headers=headers))


class DialogIdTests(SynchronousTestCase):
    """Both sides name the same dialog, each from its own end."""

    def test_sides(self):
        """What is local to one is remote to the other."""
        request = invite()
        ours = DialogId.of_response(answer(request))
        self.assertEqual(ours, ("c1", "f1", "t1"))
        theirs = DialogId.of_request(read_request(request_bytes("BYE", to_tag="t1")))
        self.assertEqual(theirs, ("c1", "t1", "f1"))

    def test_no_tags(self):
        """A peer of RFC 2543 without tags has empty ones."""
        request = read_request(request_bytes().replace(b";tag=f1", b""))
        self.assertEqual(DialogId.of_request(request), ("c1", "", ""))


class ClientTests(SynchronousTestCase):
    """The dialog of the one who called (RFC 3261 12.1.2)."""

    def test_begin(self):
        """Routes are reversed, the target is the Contact, our CSeq goes on from the INVITE's."""
        request = invite(cseq=7)
        dialog = Dialog.as_uac(request, answer(request))
        self.assertEqual(dialog.id, ("c1", "f1", "t1"))
        self.assertEqual((dialog.local, dialog.remote), ("<sip:alice@example.org>", "<sip:bob@example.org>"))
        self.assertEqual(dialog.remote_target, "sip:bob@192.0.2.8")
        self.assertEqual(dialog.route_set, ["<sip:p1;lr>", "<sip:p2;lr>"])
        self.assertEqual((dialog.local_cseq, dialog.remote_cseq, dialog.early, dialog.secure), (7, None, False, False))
        self.assertEqual(dialog.next_hop, "sip:p1;lr")

    def test_early(self):
        """A 180 makes an early dialog; the 2xx confirms it, with its own routes and target."""
        request = invite()
        dialog = Dialog.as_uac(request, answer(request, 180, ""))
        self.assertEqual((dialog.early, dialog.remote_target, dialog.route_set), (True, "sip:bob@example.org", []))
        dialog.confirm(answer(request))
        self.assertEqual((dialog.early, dialog.remote_target), (False, "sip:bob@192.0.2.8"))
        self.assertEqual(dialog.route_set, ["<sip:p1;lr>", "<sip:p2;lr>"])
        dialog.confirm(answer(request, 200, "Contact: <sip:other>\r\n"))
        self.assertEqual((dialog.remote_target, len(dialog.route_set)), ("sip:other", 2))

    def test_no_dialog(self):
        """Neither a 100 nor a failure makes one."""
        for status in (100, 300, 486):
            self.assertRaises(SipError, Dialog.as_uac, invite(), answer(invite(), status))

    def test_secure(self):
        """A SIPS request over TLS makes a secure dialog, anything less does not."""
        for uri, transport, secure in (("sips:b", "TLS", True), ("sips:b", "TCP", False), ("sip:b", "TLS", False)):
            request = invite(uri=uri, transport=transport)
            self.assertEqual(Dialog.as_uac(request, answer(request)).secure, secure)

    def test_refresh(self):
        """The Contact of a 2xx to a re-INVITE moves the target; that of a failure or of a 2xx to BYE does not."""
        dialog = Dialog.as_uac(invite(), answer(invite()))
        moved = "Contact: <sip:new>\r\n"
        dialog.refresh(answer(invite(), 486, moved))
        dialog.refresh(answer(read_request(request_bytes("BYE")), 200, moved))
        self.assertEqual(dialog.remote_target, "sip:bob@192.0.2.8")
        dialog.refresh(answer(invite(), 200, moved))
        self.assertEqual(dialog.remote_target, "sip:new")


class ServerTests(SynchronousTestCase):
    """The dialog of the one who was called (RFC 3261 12.1.1)."""

    def test_begin(self):
        """Routes stay in order, the target is the Contact, their CSeq is remembered."""
        request = invite("Contact: <sip:alice@192.0.2.7>\r\n" + ROUTES, cseq=7)
        dialog = Dialog.as_uas(request, "mine", early=True)
        self.assertEqual(dialog.id, ("c1", "mine", "f1"))
        self.assertEqual((dialog.local, dialog.remote), ("<sip:bob@example.org>", "<sip:alice@example.org>"))
        self.assertEqual(dialog.route_set, ["<sip:p2;lr>", "<sip:p1;lr>"])
        self.assertEqual((dialog.remote_target, dialog.local_cseq, dialog.remote_cseq), ("sip:alice@192.0.2.7", None, 7))
        self.assertTrue(dialog.early)

    def test_no_contact(self):
        """An INVITE without Contact is answered 400."""
        error = self.assertRaises(MalformedMessage, Dialog.as_uas, invite(""), "mine")
        self.assertEqual(error.status, 400)

    def test_accept(self):
        """CSeq must not fall; gaps are legal; ACK is not counted; a re-INVITE moves the target, an INFO does not."""
        dialog = Dialog.as_uas(invite(cseq=7), "mine")
        dialog.accept(invite("Contact: <sip:a2>\r\n", cseq=9))
        self.assertEqual((dialog.remote_cseq, dialog.remote_target), (9, "sip:a2"))
        dialog.accept(read_request(request_bytes("INFO", cseq=20, headers="Contact: <sip:a3>\r\n")))
        self.assertEqual((dialog.remote_cseq, dialog.remote_target), (20, "sip:a2"))
        dialog.accept(read_request(request_bytes("INFO", cseq=20)))  # only a lower number is out of order
        dialog.accept(read_request(request_bytes("ACK", cseq=9)))
        error = self.assertRaises(SipError, dialog.accept, invite("Contact: <sip:a4>\r\n", cseq=19))
        self.assertEqual((error.status, dialog.remote_cseq, dialog.remote_target), (500, 20, "sip:a2"))


class RequestTests(SynchronousTestCase):
    """Requests inside a dialog (RFC 3261 12.2.1.1)."""

    def dialog(self, routes: str = "") -> Dialog:
        """One that we were called in."""
        return Dialog.as_uas(invite("Contact: <sip:alice@192.0.2.7;x=1>\r\n" + routes), "mine")

    def test_no_routes(self):
        """Without routes it goes to the target; numbers count up from 1."""
        dialog = self.dialog()
        made = read_request(dialog.request("BYE", VIA))
        made.check()
        self.assertEqual((made.uri, made.headers("Route"), dialog.next_hop), ("sip:alice@192.0.2.7;x=1", [], made.uri))
        self.assertEqual((made.from_tag, made.to_tag, made.call_id, made.cseq), ("mine", "f1", "c1", (1, "BYE")))
        self.assertEqual((made.from_.uri_text, made.to.uri_text), ("sip:bob@example.org", "sip:alice@example.org"))
        self.assertEqual((made.via.branch, made.max_forwards, made.content_length), ("z9hG4bKd", 70, 0))
        self.assertEqual(read_request(dialog.request("BYE", VIA)).cseq, (2, "BYE"))

    def test_loose(self):
        """A loose route set is copied; the target stays in the Request-URI."""
        made = read_request(self.dialog(ROUTES).request("BYE", VIA))
        self.assertEqual((made.uri, made.headers("Route")), ("sip:alice@192.0.2.7;x=1", ["<sip:p2;lr>", "<sip:p1;lr>"]))

    def test_strict(self):
        """A strict router takes the place of the target, which goes to the end of the routes."""
        dialog = self.dialog("Record-Route: <sip:strict;method=INVITE;a=b?h=x>, <sip:p1;lr>\r\n")
        made = read_request(dialog.request("BYE", VIA))
        self.assertEqual(made.uri, "sip:strict;a=b")
        self.assertEqual(made.headers("Route"), ["<sip:p1;lr>", "<sip:alice@192.0.2.7;x=1>"])

    def test_ack(self):
        """An ACK has the number of its INVITE and does not count."""
        dialog = Dialog.as_uac(invite(cseq=7), answer(invite(cseq=7)))
        self.assertEqual(read_request(dialog.request("ACK", VIA, cseq=7)).cseq, (7, "ACK"))
        self.assertEqual(read_request(dialog.request("BYE", VIA)).cseq, (8, "BYE"))

    def test_more(self):
        """Headers, body and Max-Forwards are the caller's."""
        data = self.dialog().request(
            "INFO", VIA, headers="Contact: <sip:me>\r\n", body=b"a=1", content_type="text/plain", max_forwards=5)
        made = read_request(data)
        made.check()
        self.assertEqual((made.contacts[0].uri_text, made.body, made.content_type), ("sip:me", b"a=1", "text/plain"))
        self.assertEqual((made.max_forwards, made.content_length), (5, 3))

    def test_legacy(self):
        """Towards a peer without tags none is written."""
        request = read_request(request_bytes(headers="Contact: <sip:a>\r\n").replace(b";tag=f1", b""))
        made = read_request(Dialog.as_uas(request, "mine").request("BYE", VIA))
        self.assertIsNone(made.to_tag)


KEPT = "early id local local_cseq remote remote_cseq remote_target route_set secure".split()
"""All that a dialog is."""


class SubscriberTests(SynchronousTestCase):
    """The dialog that a NOTIFY makes (RFC 6665 4.4.1), and what carries one through a restart."""

    def test_notify(self):
        """Its Contact is the target, its Record-Routes are the route set as they stand; our CSeq goes on."""
        half = Dialog.half("c1", "f1", "<sip:alice@example.org>", "<sip:bob@example.org>", "sip:bob@example.org")
        subscribe = read_request(half.request("SUBSCRIBE", "", headers="Event: presence"))
        self.assertEqual((subscribe.to_tag, subscribe.from_tag, subscribe.cseq.number), (None, "f1", 1))
        notify = read_request(request_bytes(
            "NOTIFY", from_tag="n1", to_tag="f1", cseq=5, headers="Contact: <sip:pa@192.0.2.8>\r\n" + ROUTES,
        ))
        dialog = Dialog.as_subscriber(subscribe, notify)
        self.assertEqual(dialog.id, ("c1", "f1", "n1"))
        self.assertEqual((dialog.remote_target, dialog.route_set), ("sip:pa@192.0.2.8", ["<sip:p2;lr>", "<sip:p1;lr>"]))
        self.assertEqual((dialog.local, dialog.remote), ("<sip:alice@example.org>", "<sip:bob@example.org>"))
        self.assertEqual((dialog.local_cseq, dialog.remote_cseq, dialog.secure), (1, 5, False))

    def test_kept(self):
        """What is written is read as it was; what is something else is refused."""
        request = invite(cseq=7)
        for dialog in (
            Dialog.as_uac(request, answer(request, 180)), Dialog.half("c\u00e4", "f", "<sip:a@b>", "<sip:c@d>", "sip:c@d"),
        ):
            again = Dialog.decode(dialog.encode())
            for name in KEPT:
                self.assertEqual(getattr(again, name), getattr(dialog, name), name)
            self.assertEqual(again.request("BYE", ""), dialog.request("BYE", ""))
        for text in ("", "{}", "[1]", "null", "x"):
            self.assertRaises(ValueError, Dialog.decode, text)
