"""Phones at bridges of b2b_logic: Alice and Bob talk, Carol is called, Dave is a media server; or they call."""

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
