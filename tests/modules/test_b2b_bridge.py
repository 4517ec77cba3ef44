"""Tests of the bridges of sipgw.modules.b2b_logic: Alice and Bob talk, Carol is called, Dave is a media server; or they call."""

from __future__ import annotations

from typing import Any

from sipgw.sip.message import Request, Response
from sipgw.sip.sdp import SessionDescription
from tests.modules.calls import ALICE, BOB, CAROL, DAVE
from tests.modules.test_b2b_logic import Back, body

SDP = "v=0\r\no=%s 1 %d IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio %d RTP/AVP 0\r\n"


def sdp(who: str, port: int, version: int = 1) -> str:
    """A description with one stream, which is known by its port."""
    return SDP % (who, version, port)


class Dialog:
    """One side of a call with us, as a phone at ``port`` sees it."""

    def __init__(self, test: Bridged, port: int, name: str) -> None:
        self.test = test
        self.port = port
        self.name = name
        self.tag = f"{name}tag"
        self.peer_tag = self.call_id = self.target = self.local = self.remote = ""
        self.cseq = 1
        self.invite: Any = None

    def heads(self, method: str, number: int, branch: str) -> str:
        """The head of a request of its own."""
        to = f"{self.remote}{';tag=' + self.peer_tag if self.peer_tag else ''}"
        return (
            f"{method} {self.target} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{self.name}{branch}\r\n"
            f"Max-Forwards: 70\r\nFrom: {self.local};tag={self.tag}\r\nTo: {to}\r\nCall-ID: {self.call_id}\r\n"
            f"CSeq: {number} {method}\r\nContact: <sip:{self.name}@127.0.0.1:{self.port}>\r\n"
        )

    def send(self, method: str, *, more: str = "", text: str = "", number: int = 0) -> int:
        """Send a request; its number."""
        if not number:
            self.cseq += 1
            number = self.cseq
        branch = f"{method}{number}" if method != "CANCEL" else f"INVITE{number}"
        tail = body(text) if text else "Content-Length: 0\r\n\r\n"
        self.test.arrive(f"{self.heads(method, number, branch)}{more}{tail}".encode(), self.port)
        return number

    def refused(self, number: int = 1) -> None:
        """Acknowledge the refusal of its INVITE, as its transaction does."""
        head = self.heads("ACK", number, f"INVITE{number}")
        self.test.arrive(f"{head}Content-Length: 0\r\n\r\n".encode(), self.port)

    def call(self, uri: str = "sip:park@example.org", text: str = "") -> None:
        """Call us."""
        self.call_id, self.target = f"{self.name}@call", uri
        self.local, self.remote = f"<sip:{self.name}@example.org>", f"<{uri}>"
        self.cseq = 1
        self.send("INVITE", number=1, text=text)

    def called(self, invite: Any) -> None:
        """Take an INVITE."""
        assert invite.method == "INVITE", invite.method
        self.invite, self.call_id, self.peer_tag = invite, invite.call_id, invite.from_tag
        self.target = invite.contacts[0].uri_text
        self.local, self.remote = f"<{invite.to.uri_text}>", f"<{invite.from_.uri_text}>"

    def answer(self, to: Any, status: int, *, text: str = "", more: str = "") -> None:
        """Answer a request."""
        lines = [line for line in to.lines[1:] if line.split(":")[0].lower() in ("via", "from", "to", "call-id", "cseq")]
        lines = [f"{line};tag={self.tag}" if line[:3] == "To:" and ";tag=" not in line else line for line in lines]
        head = "\r\n".join([f"SIP/2.0 {status} Word", *lines, f"Contact: <sip:{self.name}@127.0.0.1:{self.port}>"])
        tail = body(text) if text else "Content-Length: 0\r\n\r\n"
        self.test.arrive(f"{head}\r\n{more}{tail}".encode(), self.port)

    def got(self) -> list[Any]:
        """What has come since the last time; a 2xx to its INVITE tells it the other side's tag."""
        found = self.test.sent(self.port)
        for message in found:
            if isinstance(message, Response) and message.status < 300 and message.method == "INVITE" and message.to_tag:
                if message.from_tag == self.tag:
                    self.peer_tag = message.to_tag
                    self.target = message.contacts[0].uri_text if message.contacts else self.target
        return found

    def words(self) -> list[str]:
        """The same in short words."""
        return [f"{one.status} {one.method}" if isinstance(one, Response) else one.method for one in self.got()]

    def one(self, method: str) -> Any:
        """The one request of that method that has come; nothing else has but responses."""
        (found,) = [one for one in self.got() if isinstance(one, Request)]
        assert found.method == method, found.lines[0]
        return found


def port_of(message: Any) -> int:
    """Whose description a message has: the port of its only stream; 0 if it has none."""
    streams = SessionDescription.parse(message.body).streams
    return streams[0].port if streams else 0


class Bridged(Back):
    """Alice calls Bob."""

    BEGIN = """
        b2b_server_new("in");
        b2b_client_new("out", "sip:bob@127.0.0.1:7002");
        b2b_init_request("mine", , "asked"%s);
    """

    def begin(
        self, act: str = "", *, flags: str = "", media: str = "", told: str = "", params: str = "", talk: bool = True
    ) -> None:
        """They talk; a REFER by either does ``act``: the usual, with ``flags`` and ``media``."""
        usual = f"""
            b2b_send_reply(202, "Accepted");
            b2b_client_new("third", "$(hdr(Refer-To){{nameaddr.uri}})");
            if (!b2b_bridge("peer", "third", {f'"{media}"' if media else ''}, "{flags}")) xlog("L_ALERT", "not so");
        """
        rest = f"""
        route[asked] {{
            if (is_method("REFER")) {{ {act or usual} exit; }}
            b2b_pass_request();
        }}
        """ + (f"route[told] {{ {told} }}" if told else "")
        self.serve(self.BEGIN % (', "told"' if told else ""), params, rest)
        self.alice, self.bob = Dialog(self, ALICE, "alice"), Dialog(self, BOB, "bob")
        self.carol, self.dave = Dialog(self, CAROL, "carol"), Dialog(self, DAVE, "dave")
        self.alice.call("sip:bob@example.org", sdp("alice", 1000))
        self.bob.called(self.bob.one("INVITE"))
        if talk:
            self.bob.answer(self.bob.invite, 200, text=sdp("bob", 2000))
            self.assertIn("200 INVITE", self.alice.words())
            self.alice.send("ACK", number=1)
            self.assertEqual(self.bob.words(), ["ACK"])
        self.logged()

    def refer(self, by: Dialog | None = None, to: str = f"sip:carol@127.0.0.1:{CAROL}", more: str = "") -> None:
        """Bob sends Alice to Carol."""
        (by or self.bob).send("REFER", more=f"Refer-To: <{to}>\r\n{more}")
        self.wait(0.01)

    def notified(self, who: Dialog, *fragments: str) -> None:
        """NOTIFYs have come, one after another, and are agreed to."""
        found = [one for one in who.got() if isinstance(one, Request)]
        self.assertEqual([one.method for one in found], ["NOTIFY"] * len(fragments))
        for one, fragment in zip(found, fragments, strict=True):
            self.assertEqual(one.body.decode(), f"SIP/2.0 {fragment}\r\n")
            self.assertIn("refer", one.header("Event"))
            state = "active" if fragment[0] == "1" else "terminated"
            self.assertEqual((one.header("Subscription-State") or "").partition(";")[0], state)
            who.answer(one, 200)

    def carol_answers(self) -> None:
        """Carol is called without an offer; hers goes to Alice, and Alice's answer to her."""
        self.carol.called(self.carol.one("INVITE"))
        self.assertEqual(port_of(self.carol.invite), 0)
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.joined()

    def joined(self) -> None:
        """Alice has Carol's offer, and Carol gets the answer."""
        again = self.alice.one("INVITE")
        self.assertEqual(port_of(again), 3000)
        self.alice.answer(again, 200, text=sdp("alice", 1002, 2))
        ack = self.carol.one("ACK")
        self.assertEqual((port_of(ack), self.alice.words()), (1002, ["ACK"]))

    def both_end(self, one: Dialog, other: Dialog) -> None:
        """One hangs up on the other; nothing is left."""
        one.send("BYE")
        bye = other.one("BYE")
        other.answer(bye, 200)
        self.assertIn("200 BYE", one.words())
        self.ended()

    def ended(self) -> None:
        """Nothing is left, now or later."""
        self.wait(40)
        for phone in (CAROL, DAVE):
            self.sent(phone)
        self.gone()

    def talks(self, one: Dialog, other: Dialog) -> None:
        """What one says the other hears."""
        one.send("INFO")
        other.answer(other.one("INFO"), 200)
        self.assertEqual(one.words(), ["200 INFO"])


class FlagTests(Bridged):
    """b2b_bridge and its flags."""

    def test_notify(self) -> None:
        """Who has sent the REFER hears how it goes, and is hung up on when it has heard that it went well."""
        self.begin(flags="notify")
        self.refer()
        self.notified(self.bob, "100 Trying")
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 180)
        self.notified(self.bob, "180 Word")
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.joined()
        self.notified(self.bob, "200 OK")
        bye = self.bob.one("BYE")
        self.bob.answer(bye, 200)
        self.talks(self.alice, self.carol)
        self.both_end(self.carol, self.alice)

    def test_fails(self) -> None:
        """Without rollback a failure ends all, and Bob hears of it."""
        self.begin(flags="notify")
        self.refer()
        self.notified(self.bob, "100 Trying")
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 486)
        self.notified(self.bob, "486 Word")
        for one in (self.bob, self.alice):
            one.answer(one.one("BYE"), 200)
        self.ended()

    def test_rollback(self) -> None:
        """With rollback they go on; it can be tried again."""
        self.begin(flags="notify, rollback-failed")
        for _ in range(2):
            self.refer()
            self.notified(self.bob, "100 Trying")
            self.carol.called(self.carol.one("INVITE"))
            self.carol.answer(self.carol.invite, 603)
            self.notified(self.bob, "603 Word")
            self.assertEqual(self.carol.words(), ["ACK"])
            self.talks(self.alice, self.bob)
        self.both_end(self.bob, self.alice)

    def test_rollback_of_who_is_kept(self) -> None:
        """Alice refuses what Carol offers: Carol is hung up on, Alice and Bob go on."""
        self.begin(flags="notify,rollback-failed")
        self.refer()
        self.notified(self.bob, "100 Trying")
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.alice.answer(self.alice.one("INVITE"), 488)
        self.notified(self.bob, "488 Word")
        ack, bye = self.carol.got()
        self.assertEqual((ack.method, bye.method), ("ACK", "BYE"))
        self.carol.answer(bye, 200)
        self.alice.got()
        self.talks(self.bob, self.alice)
        self.both_end(self.alice, self.bob)

    def test_hold(self) -> None:
        """Alice is put on hold before Carol is called; if she will not, Carol is called all the same."""
        for status in (200, 488):
            self.begin(flags="hold")
            self.refer()
            self.assertEqual(self.sent(CAROL), [])
            hold = self.alice.one("INVITE")
            (stream,) = SessionDescription.parse(hold.body).streams
            self.assertEqual((stream.direction, stream.port), ("inactive", 2000))
            self.alice.answer(hold, status, text=sdp("alice", 1000, 2) if status == 200 else "")
            self.alice.got()
            self.carol_answers()
            self.bob.answer(self.bob.one("BYE"), 200)
            self.both_end(self.alice, self.carol)

    def test_hold_and_rollback(self) -> None:
        """What Alice was told is taken back: she and Bob are joined anew."""
        self.begin(flags="hold,rollback-failed")
        self.refer()
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1000, 2))
        self.alice.got()
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 404)
        asked = self.alice.one("INVITE")
        self.assertEqual(asked.body, b"")
        self.alice.answer(asked, 200, text=sdp("alice", 1004, 3))
        again = self.bob.one("INVITE")
        self.assertEqual(port_of(again), 1004)
        self.bob.answer(again, 200, text=sdp("bob", 2002, 2))
        ack = self.alice.one("ACK")
        self.assertEqual((port_of(ack), self.bob.words()), (2002, ["ACK"]))
        origins = [SessionDescription.parse(one.body).session.value("o") for one in (again, ack)]
        self.assertEqual(origins, ["alice 1 2 IN IP4 192.0.2.1", "bob 1 3 IN IP4 192.0.2.1"])
        self.talks(self.alice, self.bob)
        self.both_end(self.alice, self.bob)

    def test_no_late_sdp(self) -> None:
        """Carol is called with what Alice has said; then Alice is asked for an offer, that Carol answers, in the end."""
        self.begin(flags="no-late-sdp")
        self.refer()
        self.carol.called(self.carol.one("INVITE"))
        self.assertEqual(port_of(self.carol.invite), 1000)
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.assertEqual(self.carol.words(), ["ACK"])
        asked = self.alice.one("INVITE")
        self.assertEqual(asked.body, b"")
        self.alice.answer(asked, 200, text=sdp("alice", 1002, 2))
        again = self.carol.one("INVITE")
        self.assertEqual(port_of(again), 1002)
        self.carol.send("INVITE", text=sdp("carol", 3002, 2))
        self.carol.answer(again, 491)
        self.assertIn("491 INVITE", self.carol.words())
        self.carol.refused(self.carol.cseq)
        self.wait(2.05)
        self.assertEqual(self.carol.words(), [])
        self.wait(2)
        again = self.carol.got()[-1]
        self.carol.answer(again, 200, text=sdp("carol", 3000))
        ack = [one for one in self.alice.got() if one.method == "ACK"][-1]
        self.assertEqual((port_of(ack), self.carol.words()), (3000, ["ACK"]))
        self.bob.answer(self.bob.one("BYE"), 200)
        self.talks(self.carol, self.alice)
        self.both_end(self.alice, self.carol)

    def test_media(self) -> None:
        """Alice hears Dave while Carol's phone rings."""
        self.begin(flags="provmedia-extra-headers,notify", media=f"sip:music@127.0.0.1:{DAVE}", act="""
            b2b_send_reply(202, "Accepted");
            $avp(names) = "X-Queue"; $avp(bodies) = "sales";
            b2b_client_new("third", "sip:carol@127.0.0.1:7003", , , , $avp(names), $avp(bodies));
            b2b_bridge("peer", "third", "sip:music@127.0.0.1:7004", "provmedia-extra-headers,notify");
        """)
        self.refer()
        self.notified(self.bob, "100 Trying")
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        self.dave.called(self.dave.one("INVITE"))
        self.assertEqual((port_of(self.dave.invite), self.dave.invite.header("X-Queue")), (1002, "sales"))
        self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
        ack = self.alice.one("ACK")
        self.assertEqual((port_of(ack), self.dave.words()), (4000, ["ACK"]))
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.dave.answer(self.dave.one("BYE"), 200)
        self.joined()
        self.notified(self.bob, "200 OK")
        self.bob.answer(self.bob.one("BYE"), 200)
        self.both_end(self.alice, self.carol)

    def test_media_refuses(self) -> None:
        """Carol is called all the same if Dave is busy, or silent; Alice has an answer in which nothing flows."""
        for silent in (False, True):
            self.begin(media=f"sip:music@127.0.0.1:{DAVE}")
            self.refer()
            self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
            self.dave.called(self.dave.one("INVITE"))
            if silent:
                self.dave.answer(self.dave.invite, 180)
                self.wait(8.1)
                self.dave.answer(self.dave.one("CANCEL"), 200)
                self.dave.answer(self.dave.invite, 487)
            else:
                self.dave.answer(self.dave.invite, 486)
            ack = [one for one in self.alice.got() if one.method == "ACK"][-1]
            (stream,) = SessionDescription.parse(ack.body).streams
            self.assertEqual((stream.direction, stream.media), ("inactive", "audio"))
            self.carol_answers()
            self.bob.answer(self.bob.one("BYE"), 200)
            self.both_end(self.alice, self.carol)

    def test_media_ends(self) -> None:
        """Dave hangs up, or Alice does, while Carol's phone rings."""
        for who in ("dave", "alice"):
            self.begin(media=f"sip:music@127.0.0.1:{DAVE}")
            self.refer()
            self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
            self.dave.called(self.dave.one("INVITE"))
            self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
            self.carol.called(self.carol.one("INVITE"))
            self.carol.answer(self.carol.invite, 180)
            self.alice.got(), self.dave.got(), self.bob.got()
            if who == "dave":
                self.dave.send("BYE")
                self.assertEqual(self.dave.words(), ["200 BYE"])
                self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
                self.joined()
                self.bob.answer(self.bob.one("BYE"), 200)
                self.both_end(self.alice, self.carol)
            else:
                self.alice.send("BYE")
                self.carol.answer(self.carol.one("CANCEL"), 200)
                self.carol.answer(self.carol.invite, 487)
                for other in (self.dave, self.bob):
                    other.answer(other.one("BYE"), 200)
                self.ended()

    def test_duration(self) -> None:
        """A bridge may say how long it lasts."""
        self.begin(flags="max_duration=50")
        self.refer()
        self.carol_answers()
        self.bob.answer(self.bob.one("BYE"), 200)
        self.wait(50.2)
        for one in (self.alice, self.carol):
            one.answer(one.one("BYE"), 200)
        self.ended()

    def test_meanwhile(self) -> None:
        """While Carol's phone rings no offer passes; Bob may go, and what is asked of nobody is refused."""
        self.begin(flags="rollback-failed")
        self.refer()
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 180)
        self.alice.got(), self.bob.got()
        (session,) = self.command("b2b_logic:list")
        self.assertEqual((session["bridge"], [leg["id"] for leg in session["entities"]]), ("calling", ["in", "third", "out"]))
        for who in (self.alice, self.bob):
            who.send("INVITE", text=sdp(who.name, 1, 5))
            self.assertEqual(who.words()[-1], "491 INVITE")
            who.refused(who.cseq)
        self.bob.send("INFO")
        self.assertEqual(self.bob.words(), ["480 INFO"])
        self.refer(more="")
        self.assertEqual(self.bob.words()[-1], "480 REFER")
        self.bob.send("BYE")
        self.assertEqual(self.bob.words(), ["200 BYE"])
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.joined()
        self.both_end(self.alice, self.carol)

    def test_refusals(self) -> None:
        """Entities that are not there, URIs that are none."""
        for act, text in (
            ('b2b_bridge("peer", "none");', "are not an entity"), ('b2b_bridge("who", "third");', "are not an entity"),
            ('b2b_client_new("third", "sip:carol@127.0.0.1:7003"); b2b_bridge("peer", "third", "music");', "is no URI"),
        ):
            self.begin(f'{act} b2b_send_reply(403, "No");')
            self.refer()
            self.assertEqual(self.bob.words(), ["403 REFER"])
            self.assertIn(text, "".join(self.logged()))
            self.both_end(self.alice, self.bob)

    def test_end_leg(self) -> None:
        """b2b_end_dlg_leg hangs up on one, and the other may be joined in the same route; else it ends too."""
        for joined in (True, False):
            self.begin('b2b_send_reply(202, "Accepted"); b2b_end_dlg_leg();' + ("""
                b2b_client_new("third", "sip:carol@127.0.0.1:7003"); b2b_bridge("peer", "third");
            """ if joined else ""))
            self.refer()
            self.bob.answer(self.bob.one("BYE"), 200)
            if joined:
                self.carol_answers()
                self.both_end(self.carol, self.alice)
            else:
                self.alice.answer(self.alice.one("BYE"), 200)
                self.ended()


class EarlyTests(Bridged):
    """Calls that are not answered yet, and those that are refused."""

    TOLD = """
        if ($rs >= 400 && $rm == "INVITE" && $b2b_logic.ctx(tried) == NULL) {
            $b2b_logic.ctx(tried) = "yes";
            b2b_client_new("second", "sip:carol@127.0.0.1:7003");
            if (!b2b_bridge_retry("second")) xlog("L_ALERT", "not so");
            exit;
        }
        b2b_handle_reply();
    """

    def test_retry(self) -> None:
        """Bob is busy: Carol is called with the same offer; her refusal is Alice's."""
        for status in (200, 486):
            self.begin(told=self.TOLD, talk=False)
            self.bob.answer(self.bob.invite, 180)
            self.bob.answer(self.bob.invite, 486)
            self.carol.called(self.carol.one("INVITE"))
            self.assertEqual(port_of(self.carol.invite), 1000)
            self.carol.answer(self.carol.invite, 183, text=sdp("carol", 3000))
            self.assertEqual(self.alice.words(), ["100 INVITE", "180 INVITE", "183 INVITE"])
            self.carol.answer(self.carol.invite, status, text=sdp("carol", 3000) if status == 200 else "")
            (found,) = self.alice.got()
            self.assertEqual(found.status, status)
            self.alice.send("ACK", number=1)
            if status == 200:
                self.assertEqual((port_of(found), self.carol.words()), (3000, ["ACK"]))
                self.both_end(self.carol, self.alice)
            else:
                self.ended()

    def test_retry_of_a_bridge(self) -> None:
        """Carol is busy: Dave is called in her place."""
        self.begin(told=self.TOLD.replace("7003", "7004"), flags="notify")
        self.refer()
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 486)
        self.dave.called(self.dave.one("INVITE"))
        self.assertEqual(self.dave.invite.body, b"")
        self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        self.assertEqual(port_of(self.dave.one("ACK")), 1002)
        self.notified(self.bob, "100 Trying", "200 OK")
        self.bob.answer(self.bob.one("BYE"), 200)
        self.both_end(self.alice, self.dave)

    def test_forgotten(self) -> None:
        """A reply route that does nothing about a refusal does not hold up the bridge."""
        self.begin(told="exit;", talk=False)
        self.bob.answer(self.bob.invite, 200, text=sdp("bob", 2000))
        self.wait(61)
        self.assertIn("408 INVITE", self.alice.words())
        self.alice.send("ACK", number=1)
        self.bob.got()
        self.ended()
        self.begin(told='if ($rs >= 300) exit; b2b_handle_reply();')
        self.refer()
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 486)
        for one in (self.bob, self.alice):
            one.answer(one.one("BYE"), 200)
        self.ended()

    def test_caller(self) -> None:
        """While Bob's phone rings Alice is sent to Carol, and hears music until that answers."""
        for media in ("", f"sip:music@127.0.0.1:{DAVE}"):
            self.begin(f"""
                b2b_send_reply(202, "Accepted");
                b2b_client_new("third", "sip:carol@127.0.0.1:7003");
                b2b_bridge("peer", "third", "{media}");
            """, talk=False)
            self.bob.answer(self.bob.invite, 180)
            self.refer()
            words = self.bob.words()
            self.assertEqual(words, ["202 REFER", "CANCEL"])
            self.bob.answer(self.bob.invite, 487)
            self.alice.got()
            if media:
                self.dave.called(self.dave.one("INVITE"))
                self.assertEqual(port_of(self.dave.invite), 1000)
                self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
                (early,) = self.alice.got()
                self.assertEqual((early.status, port_of(early)), (183, 4000))
            self.carol.called(self.carol.one("INVITE"))
            self.assertEqual(port_of(self.carol.invite), 1000)
            self.carol.answer(self.carol.invite, 180)
            self.assertEqual(self.alice.words(), [] if media else ["180 INVITE"])
            self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
            (answered,) = self.alice.got()
            self.assertEqual((answered.status, port_of(answered)), (200, 3000))
            if media:
                _ack, bye = self.dave.got()
                self.dave.answer(bye, 200)
            self.alice.send("ACK", number=1)
            self.assertEqual(self.carol.words(), ["ACK"])
            self.both_end(self.carol, self.alice)


class CallerTests(Bridged):
    """b2b_bridge_request: somebody calls in."""

    ENTER = """
        if ($rU == "pickup") {
            cache_fetch("local", "key", $var(key));
            if (!b2b_bridge_request($var(key), %d, , "%s")) sl_send_reply(481, "No such call");
            exit;
        }
        %s
        cache_store("local", "key", "$b2b_logic.key");
    """
    entity = 0
    flags = ""

    def serve(self, begin: str = "", params: str = "", rest: str = "") -> None:
        """The script lets callers in."""
        super().serve(self.ENTER % (self.entity, self.flags, begin), f'loadmodule "cachedb_local.so"\n{params}', rest)

    def enter(
        self, *, entity: int = 0, flags: str = "", params: str = "", talk: bool = True, text: str = sdp("carol", 3000)
    ) -> None:
        """Alice calls Bob, and Carol calls in."""
        self.entity, self.flags = entity, flags
        self.begin(params=params, talk=talk)
        self.carol.call("sip:pickup@example.org", text)

    def test_pickup(self) -> None:
        """Carol takes Bob's place; her offer goes to Alice, and Alice's answer to her."""
        self.enter()
        self.bob.answer(self.bob.one("BYE"), 200)
        again = self.alice.one("INVITE")
        self.assertEqual(port_of(again), 3000)
        self.alice.answer(again, 200, text=sdp("alice", 1002, 2))
        found = [one for one in self.carol.got() if one.status == 200]
        self.assertEqual(port_of(found[0]), 1002)
        self.assertEqual(self.alice.words(), [])
        self.carol.send("ACK", number=1)
        self.assertEqual(self.alice.words(), ["ACK"])
        self.talks(self.carol, self.alice)
        self.both_end(self.alice, self.carol)

    def test_without_offer(self) -> None:
        """A caller without an offer gets that of who is kept, and answers in its ACK."""
        self.enter(entity=1, text="")
        self.alice.answer(self.alice.one("BYE"), 200)
        again = self.bob.one("INVITE")
        self.assertEqual(again.body, b"")
        self.bob.answer(again, 200, text=sdp("bob", 2002, 2))
        self.assertEqual(port_of(next(one for one in self.carol.got() if one.status == 200)), 2002)
        self.carol.send("ACK", number=1, text=sdp("carol", 3000))
        self.assertEqual(port_of(self.bob.one("ACK")), 3000)
        self.both_end(self.carol, self.bob)

    def test_refused(self) -> None:
        """If who is kept refuses, the caller does not get in, and all ends; with late_bye they go on."""
        for flags in ("", "late_bye"):
            self.enter(flags=flags)
            if not flags:
                self.bob.answer(self.bob.one("BYE"), 200)
            self.alice.answer(self.alice.one("INVITE"), 488)
            self.assertIn("488 INVITE", self.carol.words())
            self.carol.send("ACK", number=1)
            self.assertEqual(self.alice.words()[0], "ACK")
            if flags:
                self.talks(self.alice, self.bob)
                self.both_end(self.alice, self.bob)
            else:
                self.ended()

    def test_late_bye(self) -> None:
        """Bob is hung up on two seconds after Alice and Carol talk."""
        self.enter(flags="late_bye", params='modparam("b2b_logic", "old_entity_term_delay", 2)')
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        self.carol.got()
        self.carol.send("ACK", number=1)
        self.assertEqual((self.alice.words(), self.bob.words()), (["ACK"], []))
        self.wait(2.1)
        self.bob.answer(self.bob.one("BYE"), 200)
        self.both_end(self.alice, self.carol)

    def test_gives_up(self) -> None:
        """Carol cancels, or never acknowledges: what she began ends."""
        for late in ("", "late_bye"):
            self.enter(flags=late)
            again = self.alice.one("INVITE")
            self.carol.send("CANCEL", number=1)
            self.assertIn("487 INVITE", self.carol.words())
            self.carol.send("ACK", number=1)
            self.alice.answer(again, 200, text=sdp("alice", 1002, 2))
            if late:
                ack, asked = self.alice.got()
                self.assertEqual((ack.method, port_of(ack), asked.body), ("ACK", 9, b""))
            if late:  # they are joined anew: Alice was told that nothing flows
                self.alice.answer(asked, 200, text=sdp("alice", 1004, 3))
                self.bob.answer(self.bob.one("INVITE"), 200, text=sdp("bob", 2002, 2))
                self.assertEqual(port_of(self.alice.one("ACK")), 2002)
                self.bob.got()
                self.both_end(self.alice, self.bob)
            else:
                self.ended()

    def test_early(self) -> None:
        """Bob's phone rings: with b2bl_early_update Carol waits until he answers, or an UPDATE has told him already."""
        self.enter(entity=1, talk=False)
        self.assertEqual(self.carol.words(), ["481 INVITE"])
        for status in (200, 405):
            self.enter(entity=1, talk=False, params='modparam("b2b_logic", "b2bl_early_update", 1)')
            self.assertIn("480 INVITE", self.alice.words())
            self.alice.send("ACK", number=1)
            self.bob.answer(self.bob.invite, 180)
            self.assertIn("180 INVITE", self.carol.words())
            self.bob.answer(self.bob.invite, 200, text=sdp("bob", 2000))
            ack, again = self.bob.got()
            self.assertEqual((ack.method, again.method, port_of(again)), ("ACK", "INVITE", 3000))
            self.bob.answer(again, status, text=sdp("bob", 2002, 2) if status == 200 else "")
            self.assertIn(f"{status} INVITE", self.carol.words())
            self.carol.send("ACK", number=1)
            if status == 200:
                self.assertEqual(self.bob.words(), ["ACK"])
                self.both_end(self.carol, self.bob)
            else:
                self.assertEqual(self.bob.words(), ["ACK", "BYE"])
                self.ended()

    def test_update(self) -> None:
        """Bob's phone has rung when Carol calls in: it gets an UPDATE, and if it agrees Carol has his answer at once."""
        for status in (200, 405):
            self.entity, self.flags = 1, ""
            self.begin(params='modparam("b2b_logic", "b2bl_early_update", 1)', talk=False)
            self.bob.answer(self.bob.invite, 180)
            self.alice.got()
            self.carol.call("sip:pickup@example.org", sdp("carol", 3000))
            self.alice.send("ACK", number=1)
            update = self.bob.one("UPDATE")
            self.assertEqual(port_of(update), 3000)
            self.bob.answer(update, status, text=sdp("bob", 2002, 2) if status == 200 else "")
            self.bob.answer(self.bob.invite, 200, text=sdp("bob", 2000))
            if status == 405:
                again = self.bob.got()[-1]
                self.bob.answer(again, 200, text=sdp("bob", 2002, 2))
            found = [one for one in self.carol.got() if one.status == 200]
            self.assertEqual(port_of(found[0]), 2002)
            self.carol.send("ACK", number=1)
            self.assertEqual(self.bob.words(), ["ACK"])
            self.both_end(self.carol, self.bob)

    def test_no_such_call(self) -> None:
        """A key of nobody, a number that is none, a call in the middle of something."""
        self.enter(entity=2)
        self.assertEqual(self.carol.words(), ["481 INVITE"])
        self.carol.send("ACK", number=1)
        self.both_end(self.alice, self.bob)


class OwnTests(Bridged):
    """Calls of our own: b2b_trigger_scenario, by a script and by a command; and commands that bridge."""

    def trigger(self, *, params: str = "", **arguments: Any) -> Any:
        """An operator joins Carol and Dave."""
        self.begin(params=params)
        return self.command("b2b_logic:trigger_scenario", **{
            "scenario_id": "meeting", "entity1": f"first,sip:carol@127.0.0.1:{CAROL}",
            "entity2": f"second,sip:dave@127.0.0.1:{DAVE},Meeting", **arguments,
        })

    def meet(self) -> None:
        """Carol answers with an offer, Dave answers that."""
        self.carol.called(self.carol.one("INVITE"))
        self.assertEqual((self.carol.invite.body, self.carol.invite.from_.uri_text), (b"", f"sip:dave@127.0.0.1:{DAVE}"))
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.dave.called(self.dave.one("INVITE"))
        self.assertEqual((port_of(self.dave.invite), self.dave.invite.from_.display), (3000, "Meeting"))

    def test_command(self) -> None:
        """Both are called, and talk."""
        self.trigger(context=["room=12"])
        self.meet()
        self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
        self.assertEqual((port_of(self.carol.one("ACK")), self.dave.words()), (4000, ["ACK"]))
        session = self.command("b2b_logic:list")[-1]
        self.assertEqual((session["scenario"], [leg["id"] for leg in session["entities"]]), ("meeting", ["first", "second"]))
        logic: Any = self.wired.server.modules["b2b_logic"]
        self.assertEqual(logic.sessions[session["key"]].values, {"room": "12"})
        self.talks(self.dave, self.carol)
        self.dave.send("BYE")
        self.carol.answer(self.carol.one("BYE"), 200)
        self.both_end(self.alice, self.bob)

    def test_slow(self) -> None:
        """Dave takes long: Carol has an answer in which nothing flows, and they are joined when he comes."""
        self.trigger()
        self.meet()
        self.wait(8.1)
        self.dave.answer(self.dave.invite, 180)
        self.assertEqual(port_of(self.carol.one("ACK")), 9)
        self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
        self.dave.got()
        asked = self.carol.one("INVITE")
        self.carol.answer(asked, 200, text=sdp("carol", 3002, 2))
        again = self.dave.one("INVITE")
        self.assertEqual(port_of(again), 3002)
        self.dave.answer(again, 200, text=sdp("dave", 4002, 2))
        self.assertEqual(port_of(self.carol.one("ACK")), 4002)
        self.carol.send("BYE")
        self.dave.answer([one for one in self.dave.got() if one.method == "BYE"][-1], 200)
        self.alice.send("BYE")
        self.bob.answer(self.bob.one("BYE"), 200)
        self.ended()

    def test_refused(self) -> None:
        """The first does not answer, or the second will not."""
        for first in (True, False):
            self.trigger()
            if first:
                self.carol.called(self.carol.one("INVITE"))
                self.carol.answer(self.carol.invite, 486)
            else:
                self.meet()
                self.dave.answer(self.dave.invite, 486)
                ack, bye = self.carol.got()
                self.assertEqual((ack.method, port_of(ack), bye.method), ("ACK", 9, "BYE"))
                self.carol.answer(bye, 200)
            self.assertEqual(self.sent(DAVE)[1:], [])
            self.both_end(self.alice, self.bob)

    def test_nobody_answers(self) -> None:
        """After a minute the call is given up."""
        self.trigger()
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 180)
        self.wait(60.2)
        self.carol.answer(self.carol.one("CANCEL"), 200)
        self.carol.answer(self.carol.invite, 487)
        self.both_end(self.alice, self.bob)

    def test_arguments(self) -> None:
        """What is no entity, or no value."""
        for arguments in ({"entity1": "first"}, {"entity2": "x,nonsense"}, {"context": ["room"]}):
            self.assertEqual(self.trigger(**arguments), 400)

    def test_script(self) -> None:
        """A script calls two, and who has asked for it hears how it goes."""
        self.begin(f"""
            b2b_send_reply(202, "Accepted");
            $avp(names) = "X-Room"; $avp(bodies) = "12";
            b2b_trigger_scenario("meeting", "n", "first,sip:carol@127.0.0.1:{CAROL}", $avp(names), $avp(bodies),
                "second,sip:dave@127.0.0.1:{DAVE},,Meeting");
        """)
        self.refer()
        self.notified(self.bob, "100 Trying")
        self.meet()
        self.assertEqual((self.carol.invite.header("X-Room"), self.dave.invite.header("X-Room")), ("12", None))
        self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
        self.notified(self.bob, "200 OK")
        self.dave.got(), self.carol.got()
        self.dave.send("BYE")
        self.carol.answer(self.carol.one("BYE"), 200)
        self.talks(self.alice, self.bob)
        self.both_end(self.alice, self.bob)

    def test_other_session(self) -> None:
        """The one who hears of it may be an entity of another session."""
        for peer, text in (("first", "a peer is"), (f"first,sip:carol@127.0.0.1:{CAROL}", "")):
            self.begin(f"""
                b2b_send_reply(202, "Accepted");
                b2b_trigger_scenario("meeting", "n,$b2b_logic.key,0", "{peer}", , , "second,sip:dave@127.0.0.1:{DAVE}");
            """)
            self.refer()
            if text:
                self.assertIn(text, "".join(self.logged()))
                self.alice.got()
            else:
                self.notified(self.alice, "100 Trying")
                self.carol.called(self.carol.one("INVITE"))
                self.carol.answer(self.carol.invite, 486)
                self.notified(self.alice, "486 Word")
            self.both_end(self.alice, self.bob)

    def test_bridge(self) -> None:
        """The operator joins a side with Carol, and music plays meanwhile; a leg's name means its other side."""
        self.begin()
        (session,) = self.command("b2b_logic:list")
        leg = session["entities"][1]
        name = f"{leg['callid']};{leg['fromtag']};{leg['totag']}"
        arguments = {"dialog_id": name, "new_uri": f"sip:carol@127.0.0.1:{CAROL}", "prov_media_uri": "nonsense"}
        self.assertEqual(self.command("b2b_bridge", **arguments), 400)
        self.command("b2b_bridge", **{**arguments, "prov_media_uri": f"sip:music@127.0.0.1:{DAVE}"})
        self.bob.answer(self.bob.one("BYE"), 200)
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        self.dave.called(self.dave.one("INVITE"))
        self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
        self.alice.got()
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.joined()
        _ack, bye = self.dave.got()
        self.dave.answer(bye, 200)
        self.both_end(self.carol, self.alice)

    def test_peer(self) -> None:
        """$b2b_logic.peer names who talks with a leg."""
        self.begin("""
            $var(name) = $ci + ";" + $ft + ";" + $tt;
            xlog("L_ALERT", "$b2b_logic.peer($var(name)) $b2b_logic.peer(nobody)");
            b2b_send_reply(403, "No");
        """)
        (session,) = self.command("b2b_logic:list")
        leg = session["entities"][1]
        self.refer(self.alice)
        self.assertEqual(self.logged(), [f"{leg['callid']};{leg['fromtag']};{leg['totag']} <null>"])
        self.alice.got()
        self.both_end(self.alice, self.bob)
