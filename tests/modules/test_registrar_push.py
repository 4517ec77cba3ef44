"""Calls to phones that sleep (RFC 8599), with a script, from the REGISTER to the answer."""

from __future__ import annotations

import re

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.message import Request, Response
from sipgw.testing import Phone, Wire, WiredServer, pass_time
from tests.proxy.rig import response

SERVER = ("127.0.0.1", 5060)
SCRIPT = """
socket = udp:127.0.0.1:5060
log_level = -1
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "rr.so"
loadmodule "sipmsgops.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("registrar", "pn_enable", 1)
modparam("registrar", "pn_providers", "apns, fcm")
modparam("registrar", "pn_enable_purr", 1)
{parameters}
route {{
    if (is_method("REGISTER")) {{
        save("location");
        exit;
    }}
    if (is_method("CANCEL|ACK") || ($tU == "nobody")) {{
        t_relay();
        exit;
    }}
    if (has_totag()) {{
        loose_route();
        async(pn_process_purr("location"), resume);
    }}
    t_on_branch("out");
    t_on_failure("failed");
    lookup("location", "{flags}");
    $var(code) = $retcode;
    xlog("L_ALERT", "lookup $var(code)");
    if ($var(code) == 2)
        exit;
    if ($var(code) < 0) {{
        send_reply(404, "Not Found");
        exit;
    }}
    t_relay();
}}
route[resume] {{
    $var(code) = $rc;
    xlog("L_ALERT", "resumed $var(code)");
    t_relay();
}}
branch_route[out] {{
    xlog("L_ALERT", "branch $ru");
}}
failure_route[failed] {{
    xlog("L_ALERT", "failed $T_reply_code");
}}
event_route[E_UL_CONTACT_REFRESH] {{
    xlog("L_ALERT", "wake $param(aor) $param(uri) $param(reason) $param(req_callid)");
}}
"""
PN = "pn-provider=apns;pn-prid={};pn-param=app"
PURR = re.compile(r'pnspurr="([^"]+)"').search


class PushTests(SynchronousTestCase):
    """Alice calls Bob, whose phones sleep or not."""

    def start(self, *parameters: tuple[str, str, int], flags: str = "") -> None:
        """Start the server and the phones."""
        self.clock = Clock()
        self.wire = Wire(self.clock)
        more = "\n".join(f'modparam("{module}", "{name}", {value})' for module, name, value in parameters)
        self.server = WiredServer(SCRIPT.format(parameters=more, flags=flags), wire=self.wire)
        self.alice = Phone(self.wire, "192.0.2.1")
        self.bobs = [Phone(self.wire, f"192.0.2.{10 + number}") for number in range(3)]
        self.cseq = 0
        self.last: dict[str, Request] = {}
        """The last request to each of Bob's contacts."""

    def register(self, number: int, params: str | None = None, more: str = "") -> Response:
        """Let one of Bob's phones register."""
        self.cseq += 1
        params = PN.format(number) if params is None else params
        self.bobs[number].send(
            (
                f"REGISTER sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.{10 + number};branch=z9hG4bKr{self.cseq}\r\n"
                f"Max-Forwards: 70\r\nFrom: <sip:bob@127.0.0.1>;tag=r\r\nTo: <sip:bob@127.0.0.1>\r\nCall-ID: reg{number}\r\n"
                f"CSeq: {self.cseq} REGISTER\r\nContact: <sip:bob@192.0.2.{10 + number};{params}>{more}\r\n"
                "Content-Length: 0\r\n\r\n"
            ).replace(";>", ">").encode(),
            SERVER,
        )
        answer = self.bobs[number].take()
        assert isinstance(answer, Response)
        return answer

    def send(self, method: str, uri: str = "sip:bob@127.0.0.1", *, tag: str = "", more: str = "", number: int = 1) -> None:
        """Let Alice send a request."""
        self.alice.send(
            (
                f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKcall{number}\r\nMax-Forwards: 70\r\n"
                f"From: <sip:alice@127.0.0.1>;tag=a\r\nTo: <sip:bob@127.0.0.1>{tag}\r\nCall-ID: call\r\n"
                f"CSeq: {number} {method}\r\n{more}Content-Length: 0\r\n\r\n"
            ).encode(),
            SERVER,
        )

    def said(self) -> list[str]:
        """What the script has logged."""
        pass_time(self.clock, 0.01)
        lines = [text for level, text in self.server.lines if level <= -1]
        self.server.lines.clear()
        return lines

    def heard(self, phone: Phone | None = None) -> list[str]:
        """What a phone (Alice's) was sent, in a word each."""
        pass_time(self.clock, 0.01)
        words = []
        while (message := (phone or self.alice).take()) is not None:
            if isinstance(message, Request):
                self.last[message.uri] = message
            words.append(message.method if isinstance(message, Request) else str(message.status))
        return words

    def answer(self, number: int, status: int) -> None:
        """Let one of Bob's phones answer what it was sent last."""
        request = self.last[next(uri for uri in self.last if f"192.0.2.{10 + number}" in uri)]
        self.bobs[number].send(response(request, status).replace(b";tag=b;tag=b1", b";tag=b"), SERVER)

    def test_call(self) -> None:
        """The phone is asked for, registers, and gets the call: at its new address, without its service's parameters."""
        self.start()
        self.register(0)
        self.send("INVITE")
        self.assertEqual(self.said(), ["lookup 2", f"wake bob@127.0.0.1 sip:bob@192.0.2.10;{PN.format(0)} ini-INVITE call"])
        pass_time(self.clock, 3)
        self.assertEqual((self.heard(), self.heard(self.bobs[0]), self.said()), (["100"], [], []))
        self.register(0)
        self.assertEqual((self.heard(self.bobs[0]), self.said()), (["INVITE"], ["branch sip:bob@192.0.2.10"]))
        self.assertEqual(list(self.last), ["sip:bob@192.0.2.10"])
        self.answer(0, 180)
        self.register(0)
        pass_time(self.clock, 10)
        self.assertEqual((self.heard(), self.heard(self.bobs[0])), (["180"], []))
        self.heard(self.bobs[0])
        self.send("CANCEL")
        self.assertEqual(self.heard(), ["200"])
        self.assertEqual(self.heard(self.bobs[0]), ["CANCEL"])

    def test_answered(self) -> None:
        """The call is answered, its ACK finds the phone, and nothing is left."""
        self.start()
        self.register(0)
        self.send("INVITE")
        self.register(0)
        self.assertEqual(self.heard(self.bobs[0]), ["INVITE"])
        self.answer(0, 200)
        self.assertEqual(self.heard(), ["100", "200"])
        pass_time(self.clock, 40)
        self.assertEqual(self.server.left(), [])

    def test_nobody(self) -> None:
        """Nobody wakes up: 408 when the time is over, and a REGISTER later changes nothing."""
        for method, provisional in (("INVITE", ["100"]), ("MESSAGE", [])):
            self.start(("registrar", "pn_refresh_timeout", 4))
            self.register(0)
            self.send(method)
            pass_time(self.clock, 3.9)
            self.assertEqual(self.heard(), provisional)
            pass_time(self.clock, 0.2)
            self.assertEqual(self.heard()[:1], ["408"])
            self.register(0)
            self.assertEqual(self.heard(self.bobs[0]), [])
            pass_time(self.clock, 40)
            self.assertEqual(self.server.left(), [], method)

    def test_message(self) -> None:
        """Other requests wait likewise; what is retransmitted meanwhile is one request."""
        self.start()
        self.register(0)
        self.send("MESSAGE")
        self.send("MESSAGE")
        self.assertEqual(len(self.said()), 2)
        self.register(0)
        self.assertEqual(self.heard(self.bobs[0]), ["MESSAGE"])
        self.answer(0, 202)
        self.assertEqual(self.heard(), ["202"])
        pass_time(self.clock, 40)
        self.assertEqual(self.server.left(), [])

    def test_cancelled(self) -> None:
        """Who hangs up before the phone is awake is told so at once, and the phone does not ring."""
        self.start()
        self.register(0)
        self.send("INVITE")
        self.send("CANCEL")
        self.assertEqual(self.heard()[-2:], ["200", "487"])
        self.register(0)
        self.assertEqual(self.heard(self.bobs[0]), [])
        pass_time(self.clock, 40)
        self.assertEqual(self.server.left(), [])

    def test_mixed(self) -> None:
        """A phone that is awake rings at once, one that wakes up joins it; who answers ends the other."""
        self.start()
        self.register(0, more=";q=1")
        self.register(1, "")
        self.send("INVITE")
        self.assertEqual([line.partition(" sip:")[0] for line in self.said()], ["lookup 1", "branch", "wake bob@127.0.0.1"])
        self.assertEqual(self.heard(self.bobs[1]), ["INVITE"])
        self.answer(1, 180)
        self.register(0)
        self.assertEqual(self.heard(self.bobs[0]), ["INVITE"])
        self.answer(0, 200)
        self.assertEqual(self.heard(self.bobs[1]), ["CANCEL"])
        self.assertEqual(self.heard(), ["100", "180", "200"])

    def test_busy_before(self) -> None:
        """The one that is awake is busy: the call waits for the other, as long as it may."""
        for wakes in (True, False):
            self.start()
            self.register(0)
            self.register(1, "")
            self.send("INVITE")
            self.said()
            self.assertEqual(self.heard(self.bobs[1]), ["INVITE"])
            self.answer(1, 486)
            self.assertEqual((self.heard(), self.said()), (["100"], []))
            if wakes:
                self.register(0)
                self.assertEqual((self.heard(self.bobs[0]), self.said()), (["INVITE"], ["branch sip:bob@192.0.2.10"]))
                self.answer(0, 603)
                self.assertEqual((self.heard()[:1], self.said()), (["603"], ["failed 603"]))
            else:
                pass_time(self.clock, 6)
                self.assertEqual((self.heard()[:1], self.said()), (["486"], ["failed 486"]))

    def test_two(self) -> None:
        """Of two that sleep one wakes up; when it says no, the call still waits for the other until the time is over."""
        self.start()
        self.register(0)
        self.register(1)
        self.register(2)
        self.send("INVITE")
        self.assertEqual([line.partition(" ")[0] for line in self.said()], ["lookup", "wake", "wake", "wake"])
        self.register(1)
        self.assertEqual(self.heard(self.bobs[1]), ["INVITE"])
        self.answer(1, 486)
        pass_time(self.clock, 3)
        self.assertEqual(self.heard(), ["100"])
        self.register(0)
        self.assertEqual(self.heard(self.bobs[0]), ["INVITE"])
        self.answer(0, 180)
        pass_time(self.clock, 6)
        self.assertEqual(self.heard(), ["180"])
        self.register(2)
        self.assertEqual(self.heard(self.bobs[2]), [])
        self.answer(0, 480)
        self.assertEqual((self.heard()[:1], self.said()[-1:]), (["480"], ["failed 480"]))

    def test_skip(self) -> None:
        """Who has just registered is called at once."""
        self.start(("registrar", "pn_skip_pn_interval", 10))
        self.register(0)
        pass_time(self.clock, 9)
        self.send("MESSAGE")
        self.assertEqual((self.said(), self.heard(self.bobs[0])), (["lookup 1", "branch sip:bob@192.0.2.10"], ["MESSAGE"]))
        self.assertEqual(list(self.last), ["sip:bob@192.0.2.10"])
        pass_time(self.clock, 1)
        self.send("MESSAGE", number=2)
        self.assertEqual(self.said()[0], "lookup 2")

    def test_flags(self) -> None:
        """With ``no-branches`` one is enough: one that is awake, else the first; with ``to-branches-only`` it is as ever."""
        for flags, awake, lookup, asked in [
            ("no-branches", True, "lookup 1", 0),
            ("no-branches", False, "lookup 2", 1),
            ("to-branches-only", False, "lookup 2", 2),
        ]:
            self.start(flags=flags)
            self.register(0)
            self.register(1)
            if awake:
                self.register(2, "")
            self.send("MESSAGE")
            said = self.said()
            self.assertEqual(said[0], lookup)
            self.assertEqual(sum(line.startswith("wake") for line in said), asked, flags)

    def test_new_contact(self) -> None:
        """A phone that has forgotten its registration, and makes a new one, is the one that was waited for."""
        self.start()
        self.register(0)
        self.send("MESSAGE")
        self.register(0, more=";expires=0")
        self.register(0)
        self.assertEqual(self.heard(self.bobs[0]), ["MESSAGE"])

    def test_purr(self) -> None:
        """A request within a dialog wakes the phone that its PURR names, and goes on when it is awake, or might be."""
        self.start()
        match = PURR(self.register(0).header("Feature-Caps") or "")
        assert match is not None
        purr = match[1]
        uri = f"sip:bob@192.0.2.10;pn-purr={purr}"
        for number, wakes in ((1, True), (2, False)):
            self.send("BYE", uri, tag=";tag=b", number=number)
            self.assertEqual(self.said(), [f"wake bob@127.0.0.1 sip:bob@192.0.2.10;{PN.format(0)} mid-BYE call"])
            pass_time(self.clock, 5.9)
            self.assertEqual((self.heard(self.bobs[0]), self.said()), ([], []))
            if wakes:
                self.register(0)
            else:
                pass_time(self.clock, 0.2)
            self.assertEqual((self.said(), self.heard(self.bobs[0])), (["resumed 1"], ["BYE"]))
            self.answer(0, 200)
            self.assertEqual(self.heard(), ["200"])
        own = "Route: <sip:127.0.0.1;lr;pn-purr={}>\r\n"
        number = 2
        for there, more, resumed in [
            (uri.replace(purr, "foo"), "", "resumed 2"),
            ("sip:bob@192.0.2.10", "", "resumed 2"),
            ("sip:bob@192.0.2.10", own.format("foo"), "resumed 2"),
            ("sip:bob@192.0.2.10", own.format(purr), None),
            ("sip:bob@192.0.2.10;pn-purr=foo", own.format(purr), None),
        ]:
            number += 1
            self.send("BYE", there, tag=";tag=b", more=more, number=number)
            said = self.said()
            self.assertEqual(said[0].partition(" sip:")[0], resumed or "wake bob@127.0.0.1", (there, more))
            self.assertEqual(self.heard(self.bobs[0]), ["BYE"] if resumed else [])
        self.register(0, more=";expires=0")
        self.send("BYE", uri, tag=";tag=b", number=50)
        self.assertIn("resumed 2", self.said())

    def test_refresh(self) -> None:
        """A phone is woken in time before its contact expires."""
        self.start(("usrloc", "contact_refresh_timer", 1), ("registrar", "pn_trigger_interval", 100))
        self.register(0, more=";expires=600")
        pass_time(self.clock, 499)
        self.assertEqual(self.said(), [])
        pass_time(self.clock, 2)
        self.assertEqual(self.said(), [f"wake bob@127.0.0.1 sip:bob@192.0.2.10;{PN.format(0)} reg-refresh "])
        pass_time(self.clock, 200)
        self.assertEqual(self.said(), [])

    def test_gone(self) -> None:
        """Who waits in vain for a phone that goes is not kept longer than the rest."""
        self.start()
        self.register(0)
        self.send("INVITE")
        self.register(0, more=";expires=0")
        pass_time(self.clock, 6)
        self.assertEqual(self.heard()[:2], ["100", "408"])
