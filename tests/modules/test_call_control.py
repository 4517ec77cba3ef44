"""Tests of sipgw.modules.call_control: what callcontrol is asked and told of calls, and what comes of its answers."""

from __future__ import annotations

import socketserver
import tempfile
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sipgw.modules import call_control
from sipgw.modules.call_control import read_pairs
from sipgw.proxy.call_control import Unavailable
from tests.children import HOST, free_port, wait_for
from tests.modules.calls import ALICE, BOB
from tests.modules.dialing import Dialing
from tests.proxy.rig import request
from tests.sipp.harness import SIPP, Sipp
from tests.test_dialog_sharing import Peer

FIRST = """
    call_control();
    $var(rc) = $retcode;
    xlog("L_ALERT", "$var(rc)");
    if ($var(rc) < 0) { sl_send_reply(402, "No"); exit; }
"""
LOAD = 'loadmodule "call_control.so"\n'


class FakeClient:
    """Answers at once what ``answers`` says, a request without its lines each; those that are None later."""

    made: FakeClient

    def __init__(self, user: Any, reactor: Any, path: str, limit: float) -> None:
        FakeClient.made = self
        self.options = path, limit
        self.asked: list[str] = []
        self.answers: dict[str, str | None] = {"init": "Limited", "start": "Ok", "stop": "Ok"}
        self.waiting: list[Deferred[str]] = []

    async def ask(self, request: str) -> str:
        """Answer."""
        self.asked.append(request)
        answer = self.answers.get(request.partition("\r\n")[0], "Ok")
        if answer is None:
            self.waiting.append(Deferred())
            return await self.waiting[-1]
        if not answer:
            raise Unavailable("nobody is there")
        return answer

    def stop(self) -> None:
        """Do nothing."""

    def taken(self) -> list[str]:
        """What was asked since the last time: first lines only."""
        asked, self.asked = self.asked, []
        return [each.partition("\r\n")[0] for each in asked]


class ModuleTests(Dialing):
    """Alice's calls."""

    def begin(self, params: str = "", first: str = FIRST) -> FakeClient:
        """Start the server."""
        self.patch(call_control, "Client", FakeClient)
        self.serve(params=LOAD + params, first=first)
        return FakeClient.made

    def test_limited(self) -> None:
        """A call with a limit is followed: callcontrol hears of its answer and of its end, once each."""
        client = self.begin()
        self.dial()
        self.assertEqual(client.asked, [
            "init\r\nruri: sip:127.0.0.1:7002\r\ndiverter: None\r\nsourceip: 127.0.0.1\r\ncallid: call@test\r\n"
            "from: <sip:alice@example.org>\r\nfromtag: a1\r\nprepaid: unknown\r\ncall_limit: 0\r\ncall_token: None\r\n\r\n"
        ])
        client.taken()
        self.pick_up()
        (call,) = self.calls
        self.assertEqual(client.asked, [f"start\r\ncallid: call@test\r\ndialogid: {call.number}\r\n\r\n"])
        client.taken()
        self.hang_up(ALICE)
        self.assertEqual(client.asked, ["stop\r\ncallid: call@test\r\n\r\n"])
        self.settle()
        self.assertEqual(client.taken(), ["stop"])
        self.assertEqual(client.options, ("/run/callcontrol/socket", 0.5))

    def test_answers(self) -> None:
        """The result of the function is what the answer says; only a call with a limit is followed."""
        for answer, result in (
            ("No limit", "2"), ("NO LIMIT", "2"), ("No credit", "-1"), ("Locked", "-2"), ("Duplicated callid", "-3"),
            ("Call limit reached", "-4"), ("Error", "-5"), ("", "-5"), ("no  limit", "-5"),
        ):
            with self.subTest(answer=answer):
                client = self.begin()
                client.answers["init"] = answer
                if result == "2":
                    self.dial()
                    self.pick_up()
                    self.assertEqual(self.calls, [])
                else:
                    self.assertEqual(self.invite_refused(), ["402"])
                self.assertEqual([line for line in self.logged() if not line.startswith("call_control:")], [result])
                self.assertEqual(client.taken(), ["init"])

    def invite_refused(self) -> list[str]:
        """What Alice hears of an INVITE that does not go out."""
        self.arrive(request("INVITE", extra=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n"))
        self.assertEqual(self.said(BOB), [])
        return self.said(ALICE)

    def test_waits_for_nobody(self) -> None:
        """While it is asked others are served; the call goes on when the answer comes. What is told is told in order."""
        client = self.begin()
        client.answers.update(init=None, start=None)
        self.phones[ALICE].inbox.clear()
        self.arrive(request("INVITE", extra=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n"))
        self.assertEqual(self.said(BOB), [])
        client.waiting.pop().callback("Limited")
        (self.invited,) = self.sent(BOB)
        self.pick_up()
        self.hang_up(ALICE)
        self.assertEqual(client.taken(), ["init", "start"])
        client.waiting.pop().callback("Ok")
        self.assertEqual(client.taken(), ["stop"])
        self.settle()

    def test_never_answered(self) -> None:
        """A call that is refused or cancelled is over, too."""
        client = self.begin()
        self.dial()
        self.answer(self.invited, 486, tag="b1")
        self.assertEqual(client.taken(), ["init", "stop"])
        self.settle()

    def test_time_is_over(self) -> None:
        """The end of a call's time, and a command, are ends as well."""
        for how in ("time", "command"):
            with self.subTest(how=how):
                client = self.begin('modparam("dialog", "default_timeout", 5)\n')
                self.dial()
                self.pick_up()
                if how == "time":
                    self.wait(7)
                else:
                    self.command("dialog:end_dlg", dialog_id=str(self.calls[0].number))
                self.assertEqual(client.taken(), ["init", "start", "stop"])

    def test_values(self) -> None:
        """What the script says in AVPs and a flag goes along; credentials that are only a name pay for the call."""
        client = self.begin('modparam("call_control", "prepaid_account_flag", "PAID")\n', """
            $avp(cc_diverter) = "bob@example.org"; $avp(cc_can_uri) = "sip:+49@example.org"; $avp(cc_signaling_ip) = "192.0.2.7";
            $avp(cc_call_limit) = "3 at most"; $avp(cc_call_token) = 77; setflag("PAID");
        """ + FIRST)
        self.dial()
        wanted = (
            "ruri: sip:+49@example.org", "diverter: bob@example.org", "sourceip: 192.0.2.7", "prepaid: true", "call_limit: 3",
            "call_token: 77",
        )
        for line in wanted:
            self.assertIn(f"\r\n{line}\r\n", client.asked[0])
        client = self.begin('modparam("call_control", "prepaid_account_flag", "PAID")\n')
        self.dial(more='Proxy-Authorization: Digest username="carol@example.org"\r\n')
        self.assertIn("\r\ndiverter: carol@example.org\r\n", client.asked[0])
        self.assertIn("\r\nprepaid: false\r\n", client.asked[0])
        client = self.begin()
        self.dial(more='Proxy-Authorization: Digest username="carol@example.org", realm="x", nonce="y"\r\n')
        self.assertIn("\r\ndiverter: None\r\n", client.asked[0])

    def test_own_messages(self) -> None:
        """Requests of the script's own, as OpenSIPS sends them: the last pair first, no name, no end; null is left out."""
        client = self.begin(
            'modparam("call_control", "init", "call-id=$ci to = $tu  x=$avp(none) n=$var(n)")\n'
            'modparam("call_control", "start", "code=$rs id=$ci")\nmodparam("call_control", "stop", "m=$rm who=$dlg_val(who)")\n',
            "$var(n) = 5;\n" + FIRST + '$dlg_val(who) = "a";\n',
        )
        client.answers = {"n = 5 to = sip:bob@example.org call-id = call@test ": "Limited"}
        self.dial()
        self.pick_up()
        self.hang_up(ALICE)
        self.assertEqual(client.asked, [
            "n = 5 to = sip:bob@example.org call-id = call@test ", "id = call@test code = 200 ", "who = a m = BYE ",
        ])

    def test_pairs(self) -> None:
        """How they are written."""
        self.assertEqual(read_pairs("a=$ci b = $(hdr(X)[0])"), [("a", "$ci"), ("b", "$(hdr(X)[0])")])
        for wrong in ("a", "a=b", "=$ci", "a=$ci b"):
            self.assertRaises(ValueError, read_pairs, wrong)

    def test_disabled_and_misplaced(self) -> None:
        """``disable`` asks nobody; a request that begins no call is an error."""
        client = self.begin('modparam("call_control", "disable", 1)\n')
        self.dial()
        self.assertEqual((self.logged(), client.asked), (["2"], []))
        client = self.begin()
        self.arrive(request("MESSAGE"))
        self.assertEqual((self.logged(), client.asked), (["-5"], []))


CONFIG = """
log_level = 2
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "sipmsgops.so"
loadmodule "dialog.so"
loadmodule "mi_datagram.so"
loadmodule "call_control.so"
modparam("call_control", "socket_name", "{path}")
modparam("mi_datagram", "socket_name", "udp:{host}:{door}")
socket = udp:{host}:{port}
route {{
	mf_process_maxfwd_header(70);
	if (has_totag()) {{
		loose_route();
		t_relay();
		exit;
	}}
	call_control();
	if ($retcode < 0) {{
		sl_send_reply(402, "No Credit");
		exit;
	}}
	record_route();
	$du = "sip:{host}:" + $(rU{{s.select,1,-}});
	t_relay();
}}
"""


class Lender(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A callcontrol that lends "bob" half a second, and "poor" nothing; it ends calls by the command that it is for."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        self.said: list[str] = []
        self.end: Any = None
        super().__init__(path, LenderHandler)


class LenderHandler(socketserver.StreamRequestHandler):
    """One connection."""

    server: Lender

    def handle(self) -> None:
        lines: list[str] = []
        for octets in self.rfile:
            line = octets.decode().strip()
            if line:
                lines.append(line)
                continue
            values = dict(each.split(": ", 1) for each in lines[1:])
            self.server.said.append(lines[0])
            answer = "Ok"
            if lines[0] == "init":
                answer = "No credit" if "poor" in values["ruri"] else "Limited"
            elif lines[0] == "start":
                threading.Timer(0.5, self.server.end, (values["dialogid"],)).start()
            self.wfile.write(f"{answer}\r\n".encode())
            lines = []


class LentTests(SynchronousTestCase):
    """A real server and a callcontrol of the tests' own; sipp calls."""

    def test_calls(self) -> None:
        """Calls with credit are ended by callcontrol, those without do not begin; nothing is left."""
        if SIPP is None:
            raise SkipTest("sipp is not installed (Debian: sip-tester)")
        directory = Path(self.mktemp()).absolute()
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            path = f"{folder}/socket"
            lender = Lender(path)
            self.addCleanup(lender.server_close)
            thread = threading.Thread(target=lender.serve_forever, args=(0.05,))
            thread.start()
            self.addCleanup(thread.join)
            self.addCleanup(lender.shutdown)
            port, door = free_port(), free_port()
            peer = Peer(directory / "server", port, door, CONFIG.format(host=HOST, port=port, door=door, path=path))
            self.addCleanup(peer.child.kill)
            peer.ready()
            lender.end = lambda name: peer.mi("dialog:end_dlg", dialog_id=name)
            values: dict[str, Any] = {"reply_route": "false", "left": "", "branch_header": "CSeq:", "ringing_optional": "true"}
            callee = Sipp(directory / "callee", "callee-talks", calls=5, **values)
            self.addCleanup(callee.kill)
            callers = [
                Sipp(directory / "caller", "caller-hears-bye", remote=port, calls=5, callee=f"bob-{callee.port}", **values),
                Sipp(directory / "poor", "caller-is-refused", remote=port, callee=f"poor-{callee.port}", status="402", **values),
            ]
            for child in (*callers, callee):
                self.addCleanup(child.kill)
                child.finish()
            wait_for(lambda: lender.said.count("stop") == 5, "each end is told", peer.child)
            self.assertEqual((lender.said.count("init"), lender.said.count("start")), (6, 5))
            wait_for(lambda: peer.count("active_dialogs") == 0, "no call is left", peer.child)
