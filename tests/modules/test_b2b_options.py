"""Tests of sipgw.modules._b2b_options and of what its flags do: challenges that pass, early dialogs by phone, names, Contacts."""

from __future__ import annotations

from typing import Any

from sipgw.sip.message import Request
from tests.modules.calls import ALICE, BOB, CAROL
from tests.modules.test_b2b_logic import SDP, Back
from tests.proxy.rig import request

WANTS = 'WWW-Authenticate: Digest realm="bob", nonce="n"\r\n'
ALSO = 'Proxy-Authenticate: Digest realm="bob", nonce="n"\r\n'
GIVES = 'Authorization: Digest username="alice", realm="bob", nonce="n", uri="sip:b", response="0"\r\n'


class Chosen(Back):
    """A server with options."""

    def sent(self, port: int) -> list[Any]:
        """What the phone at ``port`` received, but for 100."""
        return [one for one in super().sent(port) if isinstance(one, Request) or one.status > 100]


class TransparentTests(Chosen):
    """``transparent-auth``: Alice answers what Bob's server asks."""

    BEGIN = 'b2b_init_request("top hiding", "transparent-auth");'

    def test_invite(self) -> None:
        """The challenge to the INVITE is hers, and her next INVITE answers it; without the flag neither passes."""
        for begin, passes in ((self.BEGIN, True), ('b2b_init_request("top hiding");', False)):
            self.serve(begin)
            self.dial()
            self.answer(self.invited, 401, extra=WANTS)
            (refusal,) = self.sent(ALICE)
            self.assertEqual((refusal.status, refusal.header("WWW-Authenticate") is not None), (401, passes))
            self.arrive(request("ACK", to_tag=refusal.to_tag))
            self.gone()
            again = self.dial(more=GIVES, branch="two", cseq=2)
            self.assertEqual(again.header("Authorization") is not None, passes)
            self.assertEqual((again.cseq.number, again.call_id == self.invited.call_id), (3, True))
            self.answer(again, 486)
            self.arrive(request("ACK", branch="two", cseq=2, to_tag="x"))
            self.gone()

    def test_within(self) -> None:
        """Every request within the call, by either side: challenged, answered with the next CSeq; each side counts for itself."""
        self.serve(self.BEGIN)
        self.talk()
        numbers = {ALICE: 2, BOB: 0}
        for port, other in ((ALICE, BOB), (BOB, ALICE)):
            for method in ("INVITE", "INFO", "UPDATE"):
                self.within(method, port)
                (first,) = self.sent(other)
                self.reply(first, 407, other, more=ALSO)
                (refusal,) = self.sent(port)
                self.assertEqual((refusal.status, refusal.cseq.number), (407, self.cseq[port]))
                self.assertIn("bob", refusal.header("Proxy-Authenticate"))
                if method == "INVITE":
                    self.assertEqual(self.said(other), ["ACK"])
                    self.within("ACK", port, cseq=self.cseq[port], branch=f"INVITE{port}{self.cseq[port]}")
                self.within(method, port, more=GIVES)
                (again,) = self.sent(other)
                self.assertIn("alice", again.header("Authorization"))
                numbers[port] += 2
                self.assertEqual((again.method, again.cseq.number), (method, numbers[port]))
                self.reply(again, 200, other, more=f"Contact: <sip:x@127.0.0.1:{other}>\r\n")
                (ok,) = self.sent(port)
                self.assertEqual((ok.status, ok.cseq.number), (200, self.cseq[port]))
                if method == "INVITE":
                    self.within("ACK", port, cseq=self.cseq[port])
                    (ack,) = self.sent(other)
                    self.assertEqual(ack.cseq.number, again.cseq.number)
        self.hang_up(ALICE)

    def hang_up(self, port: int) -> None:
        """A BYE is challenged too: the call goes on until one comes that answers."""
        other = BOB if port == ALICE else ALICE
        self.within("BYE", port)
        (first,) = self.sent(other)
        self.assertEqual(self.said(port), [])  # it is not agreed to before the other side has
        self.reply(first, 401, other, more=WANTS)
        (refusal,) = self.sent(port)
        self.assertEqual((refusal.status, refusal.method), (401, "BYE"))
        self.assertIn("bob", refusal.header("WWW-Authenticate"))
        self.assertEqual(len(self.entities), 2)
        self.within("BYE", port, more=GIVES)
        (again,) = self.sent(other)
        self.assertEqual((again.cseq.number, again.header("Authorization") is not None), (first.cseq.number + 1, True))
        self.reply(again, 200, other)
        self.assertEqual(self.said(port), ["200 BYE"])
        self.gone()

    def test_bye(self) -> None:
        """By either side; where nobody answers, or both hang up at once, all ends."""
        for port in (ALICE, BOB):
            self.serve(self.BEGIN)
            self.talk()
            self.hang_up(port)
        self.serve(self.BEGIN)
        self.talk()
        self.within("BYE", ALICE)
        self.wait(33)
        self.assertEqual(self.said(ALICE), ["200 BYE"])
        self.sent(BOB)
        self.gone()
        self.serve(self.BEGIN)
        self.talk()
        self.within("BYE", ALICE)
        (first,) = self.sent(BOB)
        self.within("BYE", BOB)
        self.assertEqual(self.said(BOB), ["200 BYE"])
        (bye,) = self.sent(ALICE)
        self.reply(bye, 200, ALICE)
        self.reply(first, 481, BOB)
        self.assertEqual(self.said(ALICE), ["200 BYE"])
        self.gone()


class AnsweredTests(Chosen):
    """With ``uac_auth`` we answer: any request within the call, by either side."""

    PARAMS = 'loadmodule "uac_auth.so"\nmodparam("uac_auth", "credential", "me:bob:secret")\n'

    def test_within(self) -> None:
        """Neither side sees the other's challenge; CSeq numbers go on on the challenged side alone."""
        self.serve(params=self.PARAMS)
        self.talk()
        number = {ALICE: 2, BOB: 0}
        for port, other in ((ALICE, BOB), (BOB, ALICE)):
            for method in ("INVITE", "INFO", "UPDATE", "OPTIONS"):
                self.within(method, port, sdp=SDP % "more" if method == "INVITE" else "")
                (first,) = self.sent(other)
                self.reply(first, 407, other, more=ALSO)
                *_, again = self.sent(other)
                number[port] += 2
                self.assertEqual((again.method, again.cseq.number, again.body), (method, number[port], first.body))
                self.assertIn('username="me"', again.header("Proxy-Authorization"))
                self.reply(again, 200, other, more=f"Contact: <sip:x@127.0.0.1:{other}>\r\n")
                (ok,) = self.sent(port)
                self.assertEqual((ok.status, ok.cseq.number), (200, self.cseq[port]))
                if method == "INVITE":
                    self.within("ACK", port, cseq=self.cseq[port])
                    (ack,) = self.sent(other)
                    self.assertEqual(ack.cseq.number, again.cseq.number)
        self.cseq[ALICE] += 1
        self.within("BYE", ALICE)
        self.assertEqual(self.said(ALICE), ["200 BYE"])
        (bye,) = self.sent(BOB)
        self.reply(bye, 401, BOB, more=WANTS)
        (bye,) = self.sent(BOB)
        self.assertEqual(bye.cseq.number, number[ALICE] + 2)
        self.reply(bye, 200, BOB)
        self.gone()

    def test_avps(self) -> None:
        """The AVPs that the script had when the call began are credentials for either side."""
        names = "".join(
            f'modparam("uac_auth", "auth_{what}_avp", "$avp({what})")\n' for what in ("username", "realm", "password")
        )
        self.serve(
            '$avp(username) = "her"; $avp(realm) = "bob"; $avp(password) = "x"; b2b_init_request("top hiding");',
            f'loadmodule "uac_auth.so"\n{names}',
        )
        self.talk()
        for port, other in ((ALICE, BOB), (BOB, ALICE)):
            self.within("INFO", port)
            (first,) = self.sent(other)
            self.reply(first, 401, other, more=WANTS)
            (again,) = self.sent(other)
            self.assertIn('username="her"', again.header("Authorization"))
            self.reply(again, 200, other)
            self.assertEqual(self.said(port), ["200 INFO"])
        self.hang_up(BOB)

    def test_bye_of_callee(self) -> None:
        """Alice's side may ask, too."""
        self.serve(params=self.PARAMS)
        self.talk()
        self.within("BYE", BOB)
        self.assertEqual(self.said(BOB), ["200 BYE"])
        (bye,) = self.sent(ALICE)
        self.reply(bye, 407, ALICE, more=ALSO)
        (again,) = self.sent(ALICE)
        self.assertEqual((again.cseq.number, again.header("Proxy-Authorization") is not None), (bye.cseq.number + 1, True))
        self.reply(again, 200, ALICE)
        self.gone()


class NumberedTests(Chosen):
    """``pass-legs-upstream``: each phone that rings is an early dialog of its own for Alice."""

    def ringing(self, tag: str, number: int = 0) -> Any:
        """A phone rings, reliably if there is a number; what Alice receives."""
        self.sent(ALICE)
        more = f"Require: 100rel\r\nRSeq: {number}\r\n" if number else ""
        self.answer(self.invited, 183, tag=tag, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n{more}")
        (found,) = self.sent(ALICE)
        return found

    def test_tags(self) -> None:
        """Our tags are numbered in the order of Bob's; the answer has that of the phone that gave it, and so has the dialog."""
        for begin in (
            'b2b_init_request("top hiding", "pass-legs-upstream");',
            'b2b_server_new("a"); b2b_client_new("b", "$ru", , , , , , "pass-legs-upstream"); b2b_init_request("x");',
        ):
            self.serve(begin)
            self.dial()
            key = next(iter(self.entities))
            self.assertEqual([self.ringing(tag).to_tag for tag in ("t1", "t2", "t1")], [f"{key}.1", f"{key}.2", f"{key}.1"])
            answer = self.pick_up(tag="b1")
            self.assertEqual(answer.to_tag, f"{key}.3")
            self.within("INFO", ALICE)
            (info,) = self.sent(BOB)
            self.assertEqual(info.to_tag, "b1")
            self.reply(info, 200, BOB)
            self.sent(ALICE)
            self.within("INFO", BOB)
            (info,) = self.sent(ALICE)
            self.assertEqual((info.from_tag, info.to_tag), (f"{key}.3", "a1"))
            self.reply(info, 200, ALICE)
            self.sent(BOB)
            self.hang_up(ALICE)

    def test_early_requests(self) -> None:
        """UPDATE and PRACK in an early dialog reach the phone of that dialog, and back."""
        self.serve('b2b_init_request("top hiding", "pass-legs-upstream");', 'modparam("b2b_entities", "passthru_prack", 1)')
        self.dial(more="Supported: 100rel\r\n")
        one, two = self.ringing("t1", 7), self.ringing("t2", 3)
        for number, (to, tag, rseq) in enumerate(((one, "t1", 7), (two, "t2", 3)), 2):
            self.assertEqual(self.said(BOB), [])
            self.answered = to
            self.within("PRACK", ALICE, cseq=number, more=f"RAck: {to.header('RSeq')} 1 INVITE\r\n")
            (prack,) = self.sent(BOB)
            self.assertEqual((prack.to_tag, prack.header("RAck"), prack.cseq.number), (tag, f"{rseq} 2 INVITE", 3))
            self.reply(prack, 200, BOB)
            self.assertEqual(self.said(ALICE), ["200 PRACK"])
        for number, (to, tag) in enumerate(((one, "t1"), (two, "t2")), 4):
            self.answered = to
            self.within("UPDATE", ALICE, cseq=number)
            (update,) = self.sent(BOB)
            self.assertEqual((update.to_tag, update.cseq.number), (tag, 4))
            self.reply(update, 200, BOB)
            self.assertEqual(self.said(ALICE), ["200 UPDATE"])
        data = (
            f"UPDATE {self.invited.contacts[0].uri_text} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{BOB};branch=z9hG4bKup\r\n"
            f"From: {self.invited.to};tag=t1\r\nTo: {self.invited.header('From')}\r\nCall-ID: {self.invited.call_id}\r\n"
            "CSeq: 9 UPDATE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )
        self.arrive(data.encode(), BOB)
        (update,) = self.sent(ALICE)
        self.assertEqual((update.from_tag, update.to_tag), (one.to_tag, "a1"))
        self.reply(update, 200, ALICE)
        self.assertEqual(self.said(BOB), ["200 UPDATE"])
        self.pick_up(tag="b1")
        self.cseq[ALICE] = 9
        self.hang_up(ALICE)


class NamesTests(Chosen):
    """Who and where we say that we are."""

    def test_from(self) -> None:
        """``b2bl_from_spec_param``: From of the call that we make; unset, the caller's; nothing that is none."""
        params = 'modparam("b2b_logic", "b2bl_from_spec_param", "$var(from)")'
        for value, found in (
            ('"Call ID" <sip:user@opensips.org>', ('"Call ID"', "sip:user@opensips.org")),
            ("sip:user@opensips.org", ("", "sip:user@opensips.org")), ("", ("", "sip:alice@example.org")),
        ):
            escaped = value.replace('"', '\\"')
            self.serve(f'$var(from) = "{escaped}"; b2b_init_request("top hiding");', params)
            invite = self.dial()
            self.assertEqual((invite.from_.display, invite.from_.uri_text), found)
        self.pick_up()
        self.within("INFO", BOB)
        (info,) = self.sent(ALICE)
        self.assertEqual(info.from_.uri_text, "sip:bob@example.org")  # her own dialog is untouched
        self.serve('$var(from) = "no <uri"; if (!b2b_init_request("top hiding")) sl_send_reply(500, "No");', params)
        self.arrive(request("INVITE", extra=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n"))
        self.assertEqual((self.said(ALICE), self.said(BOB)), (["500"], []))

    def test_server_address(self) -> None:
        """Our Contact on both sides, with variables in it; what the script gives an entity goes before."""
        self.serve(params='modparam("b2b_logic", "server_address", "sip:sa-$fU@10.10.10.10:5060")')
        self.assertEqual(self.dial().header("Contact"), "<sip:sa-alice@10.10.10.10:5060>")
        self.assertEqual(self.ring(183).header("Contact"), "<sip:sa-alice@10.10.10.10:5060>")
        self.serve(
            'b2b_server_new("a"); b2b_client_new("b", "$ru", , , "sip:me@h"); b2b_init_request("x");',
            'modparam("b2b_logic", "server_address", "sip:sa@10.10.10.10:5060")',
        )
        self.assertEqual(self.dial().header("Contact"), "<sip:me@h>")
        self.assertEqual(self.ring(183).header("Contact"), "<sip:sa@10.10.10.10:5060>")
        self.serve(params='modparam("b2b_logic", "server_address", "$fU")')
        self.assertEqual(self.dial().header("Contact"), "<sip:127.0.0.1:5060>")
        self.assertIn("no URI", self.logged()[0])

    def test_contact_params(self) -> None:
        """``custom_contact_header_params``: they pass both ways, in answers and requests, and what comes later replaces them."""
        self.serve(params='modparam("b2b_logic", "custom_contact_header_params", "audio;video")')
        self.sent(BOB)
        extra = f'Contact: <sip:alice@127.0.0.1:{ALICE}>;audio;q=1;video="x y"\r\n'
        self.arrive(request("INVITE", extra=extra))
        (self.invited,) = self.sent(BOB)
        self.assertEqual(self.invited.header("Contact"), '<sip:127.0.0.1:5060>;audio;video="x y"')
        self.answer(self.invited, 180, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>;video=0\r\n")
        (ringing,) = self.sent(ALICE)
        self.assertEqual(ringing.header("Contact"), "<sip:127.0.0.1:5060>;video=0")
        self.pick_up()
        self.assertEqual(self.answered.header("Contact"), "<sip:127.0.0.1:5060>")
        self.within("UPDATE", ALICE, more=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n")
        (update,) = self.sent(BOB)
        self.assertEqual(update.header("Contact"), "<sip:127.0.0.1:5060>")

    def test_redirects(self) -> None:
        """``pass-3xx-contact`` of b2b_handle_reply: the Contacts of a 3xx pass as they are, and only there."""
        for flags, contacts in (('"pass-3xx-contact"', ["<sip:c@x>;q=1, <sip:d@x>"]), ("", [])):
            self.serve(
                'b2b_server_new("a"); b2b_client_new("b", "$ru"); b2b_init_request("x", , , "answered");',
                rest=f"route[answered] {{ b2b_handle_reply({flags}); }}",
            )
            self.dial()
            self.ring()
            self.answer(self.invited, 302, extra="Contact: <sip:c@x>;q=1, <sip:d@x>\r\n")
            (refusal,) = self.sent(ALICE)
            self.assertEqual((refusal.status, refusal.headers("Contact")), (302, contacts))

    def test_preserve_to(self) -> None:
        """``preserve-to``: To is what Alice wrote, not where we call."""
        for flags, uri in (('"preserve-to"', "sip:bob@example.org"), ("", "sip:127.0.0.1:7002")):
            self.serve(f'b2b_init_request("top hiding"{f", {flags}" if flags else ""});')
            self.assertEqual(self.dial().to.uri_text, uri)

    def test_errors(self) -> None:
        """Flags and names that are none are refused when the script is read."""
        for begin, params, text in (
            ('b2b_init_request("top hiding", "transparent");', "", "transparent-auth"),
            ('b2b_client_new("b", "sip:b@h", , , , , , "transparent-auth");', "", "pass-legs-upstream"),
            ('b2b_handle_reply("x");', "", "pass-3xx-contact"),
            ("", 'modparam("b2b_logic", "custom_contact_header_params", "a b")', "no name of a parameter"),
        ):
            with self.assertRaisesRegex(AssertionError, text):
                self.serve(begin, params)


class JoinedTests(Chosen):
    """What was chosen holds for the leg that comes into the place of another."""

    def test_contact_params(self) -> None:
        """Whoever is joined with Alice is shown what her Contact had."""
        self.serve(params='modparam("b2b_logic", "custom_contact_header_params", "audio")')
        self.arrive(request("INVITE", extra=f"Contact: <sip:alice@127.0.0.1:{ALICE}>;audio\r\n"))
        (self.invited,) = self.sent(BOB)
        self.pick_up()
        (session,) = self.command("b2b_logic:list")
        self.command("b2b_logic:bridge", dialog_id=session["key"], new_uri=f"sip:carol@127.0.0.1:{CAROL}")
        (invite,) = self.sent(CAROL)
        self.assertEqual(invite.header("Contact"), "<sip:127.0.0.1:5060>;audio")


