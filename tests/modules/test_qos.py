"""Tests of sipgw.modules.qos: sessions that are offered, and agreed on."""

from __future__ import annotations

from typing import Any

from sipgw.modules.qos import Qos
from sipgw.testing import finished
from tests.modules.calls import ALICE, BOB
from tests.modules.dialing import Dialing, contact
from tests.proxy.rig import request, response

LOAD = 'loadmodule "qos.so"\nmodparam("qos", "qos_flag", "QOS")\n'


def with_session(data: bytes, port: int) -> bytes:
    """A message with a session: one stream at ``port``."""
    body = f"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 8\r\n"
    head = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    return data.replace(b"Content-Length: 0\r\n\r\n", head.encode())


class QosTests(Dialing):
    """Alice calls Bob."""

    offers = 0
    """The port of the session that whatever arrives is given."""

    def arrive(self, data: bytes, port: int = ALICE) -> None:
        """Let the phone at ``port`` send ``data``."""
        super().arrive(with_session(data, self.offers) if self.offers else data, port)

    def begin(self, port: int = 0, flag: str = 'setflag("QOS");') -> None:
        """The INVITE, with a session at ``port``."""
        self.serve(params=LOAD, first=f"{flag} create_dialog();")
        data = request("INVITE", extra=contact(ALICE))
        self.arrive(with_session(data, port) if port else data)
        (self.invited,) = self.sent(BOB)

    def reply(self, status: int, port: int = 0, to: Any = None, phone: int = BOB) -> None:
        """The answer, with a session at ``port``."""
        to = to or self.invited
        record = "".join(f"Record-Route: {value}\r\n" for value in self.routes(to))
        data = response(to, status, extra=record + contact(phone))
        data = data.replace(b";tag=a1;tag=b1", b";tag=a1").replace(b";tag=b1;tag=b1", b";tag=b1")
        self.arrive(with_session(data, port) if port else data, phone)
        self.route_set, self.tag = self.routes(self.invited), "b1"

    def seen(self) -> Any:
        """The ports that the operator is shown."""
        said = self.command("dialog:list_ctx", callid="call@test")["Dialog"]["context"].get("qos")
        return said and {
            state: {side: [stream["port"] for stream in streams] for side, streams in sides.items()}
            for state, sides in said.items()
        }

    def test_invite(self) -> None:
        """Pending until the 2xx; a re-INVITE that is refused changes nothing."""
        self.begin(4000)
        self.assertEqual(self.seen(), {"pending": {"caller": [4000]}})
        self.reply(183, 5000)
        self.assertEqual(self.seen(), {"pending": {"caller": [4000]}})
        self.reply(200, 5000)
        agreed = {"negotiated": {"caller": [4000], "callee": [5000]}}
        self.assertEqual(self.seen(), agreed)
        said = self.command("dialog:list_ctx", callid="call@test")["Dialog"]["context"]["qos"]["negotiated"]["callee"]
        self.assertEqual(said, [{
            "media": "audio", "address": "192.0.2.1", "port": 5000, "protocol": "RTP/AVP", "formats": ["0", "8"],
            "direction": "sendrecv",
        }])
        self.within("ACK", ALICE, cseq=1)
        for status, then in [(488, agreed), (200, {"negotiated": {"caller": [4002], "callee": [5002]}})]:
            self.sent(ALICE)
            self.sent(BOB)
            self.offers = 5002
            self.within("UPDATE", BOB)
            self.offers = 0
            self.assertEqual(self.seen(), agreed | {"pending": {"callee": [5002]}})
            (update,) = self.sent(ALICE)
            self.reply(status, 4002 if status == 200 else 0, update, ALICE)
            self.assertEqual(self.seen(), then)

    def test_offer_in_the_answer(self) -> None:
        """An INVITE without: the 2xx offers, the ACK answers."""
        self.begin()
        self.assertEqual(self.seen(), {})
        self.reply(200, 5000)
        self.assertEqual(self.seen(), {"pending": {"callee": [5000]}})
        routes = "".join(f"Route: {value}\r\n" for value in self.route_set[::-1])
        ack = request("ACK", f"sip:bob@127.0.0.1:{BOB}", branch="ack", to_tag="b1", extra=routes)
        self.arrive(with_session(ack, 4000))
        self.assertEqual(self.seen(), {"negotiated": {"callee": [5000], "caller": [4000]}})

    def test_flag(self) -> None:
        """Only with the flag, without which the module does not start."""
        self.begin(4000, flag="")
        self.assertIsNone(self.seen())
        with self.assertRaisesRegex(ValueError, "qos_flag"):
            finished(Qos().start())
