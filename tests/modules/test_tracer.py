"""Tests of sipgw.modules.tracer and proto_hep: what is shown of calls, where, and by which commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sipgw.interfaces import Change
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.tracer import Tracer
from sipgw.testing import FakeServer, finished
from tests.modules.calls import ALICE, BOB, CAROL, Calls
from tests.modules.capture import Capture, words
from tests.proxy.rig import request, response

MODULES = """
loadmodule "signaling.so"
loadmodule "proto_hep.so"
loadmodule "tracer.so"
"""


class TracerCase(Calls):
    """A server with a capture server."""

    def setUp(self) -> None:
        self.capture = Capture()
        self.addCleanup(self.capture.close)

    def begin(self, script: str, hep: str = "transport=udp", more: str = "", ids: str = "[t]uri=hep:h;") -> None:
        """Start a server whose trace id t is the capture server."""
        self.start(f"""{MODULES}
            modparam("proto_hep", "hep_id", "[h] 127.0.0.1:{self.capture.port}; {hep}")
            modparam("tracer", "trace_id", "{ids}")
            {more}
            {script}""")

    def shown(self) -> list[str]:
        """What the capture server has heard: ``1>0`` is from Alice, ``0>2`` to Bob."""
        return words(self.capture.frames())

    def call(self, method: str, params: Any = None) -> Any:
        """Run a management command."""
        return finished(self.wired.server.commands.call(method, params))

    def statistics(self) -> tuple[int, int]:
        """Requests and replies shown."""
        found = self.call("statistics:get", [["tracer:"]])
        return found["tracer:traced_requests"], found["tracer:traced_replies"]


class TransactionTests(TracerCase):
    """All of a transaction."""

    TRACE = 'route { if (is_method("INVITE")) trace("t", "t"); t_relay(); }'

    def test_call(self) -> None:
        """What comes and goes is shown once each, in order, repetitions too, and what belongs elsewhere is not."""
        self.begin(self.TRACE)
        (bob,) = self.invite(BOB)
        self.assertEqual(self.shown(), ["1>0 INVITE", "0>2 INVITE", "0>1 100"])
        self.wait(0.6)
        self.assertEqual(self.shown(), ["0>2 INVITE"])
        self.answer(bob, 180)
        self.assertEqual(self.shown(), ["2>0 180", "0>1 180"])
        self.arrive(request("INVITE"))
        self.assertEqual(self.shown(), ["1>0 INVITE", "0>1 180"])
        self.arrive(request("CANCEL"))
        self.assertEqual(self.shown(), ["0>2 CANCEL"])
        cancel = next(one for one in self.sent(BOB) if one.method == "CANCEL")
        self.answer(cancel, 200)
        self.assertEqual(self.shown(), ["2>0 200"])
        self.answer(bob, 487)
        self.assertEqual(self.shown(), ["2>0 487", "0>2 ACK", "0>1 487"])
        self.answer(bob, 487)
        self.assertEqual(self.shown()[:2], ["2>0 487", "0>2 ACK"])
        self.arrive(request("ACK"))
        self.assertEqual(self.shown(), ["1>0 ACK"])
        self.arrive(request("OPTIONS", branch="other"))
        self.assertEqual(self.shown(), [])
        self.answer(self.sent(BOB)[-1], 200)
        self.settle()

    def test_as_it_came(self) -> None:
        """A copy is what was on the wire: the request without what is written into its Via on receipt."""
        self.begin('route { trace("t", "m"); send_reply(200, "OK"); }')
        data = request("OPTIONS").replace(b"branch=z9hG4bKone", b"branch=z9hG4bKone;rport")
        self.arrive(data)
        (frame,) = self.capture.frames()
        self.assertEqual(frame.payload, data)
        self.assertEqual((frame.source, frame.target), (("127.0.0.1", ALICE), ("127.0.0.1", 5060)))
        self.assertEqual((frame.kind, frame.protocol, frame.correlation), (1, 17, b"call@test"))
        self.assertEqual((frame.seconds, frame.agent), (1_700_000_000, 1))
        self.assertEqual(self.statistics(), (1, 0))

    def test_stateless(self) -> None:
        """Replies and requests that go out without a transaction are seen too, those of other requests not."""
        self.begin("""
        route {
            if ($rU == "dark") { send_reply(486, "Busy"); exit; }
            trace("t", "t");
            if ($rU == "busy") { sl_send_reply(486, "Busy"); exit; }
            forward();
        }""")
        for user, expected in (
            ("dark", []), ("busy", ["1>0 OPTIONS", "0>1 486"]), ("bob", ["1>0 OPTIONS", "0>2 OPTIONS"]),
        ):
            self.arrive(request("OPTIONS", f"sip:{user}@127.0.0.1:{BOB}", branch=user))
            self.assertEqual(self.shown(), expected, user)

    def test_when(self) -> None:
        """It may begin before, with or after the transaction, in a branch route and in a failure route."""
        self.begin("""
        route {
            if ($rU == "later") { t_newtran(); trace("t", "T"); }
            if ($rU == "branch") t_on_branch("b");
            if ($rU == "failure") t_on_failure("f");
            t_relay();
        }
        branch_route[b] { trace("t", "t"); }
        failure_route[f] { trace("t", "t"); t_reply(404, "Gone"); }
        """)
        for user, first, then in (
            ("later", ["1>0 INVITE", "0>2 INVITE"], ["2>0 486", "0>2 ACK", "0>1 486"]),
            ("branch", ["1>0 INVITE", "0>2 INVITE"], ["2>0 486", "0>2 ACK", "0>1 486"]),
            ("failure", [], ["1>0 INVITE", "0>1 404"]),
        ):
            (bob,) = self.invite(BOB, uri=f"sip:{user}@127.0.0.1:{BOB}", branch=user)
            self.assertEqual([word for word in self.shown() if "100" not in word], first, user)
            self.answer(bob, 486)
            self.assertEqual(self.shown(), then, user)
            self.arrive(request("ACK", f"sip:{user}@127.0.0.1:{BOB}", branch=user))
            self.assertEqual(self.shown(), ["1>0 ACK"])
        self.settle()

    def test_legs(self) -> None:
        """Only the caller's side, only the callee's; a correlation of one's own; a reply alone."""
        self.begin("""
        route { trace("t", "t", , , $rU, "mine"); t_on_reply("r"); t_relay(); }
        onreply_route[r] { if ($rs == 183) trace("t", "t"); }
        """)
        for flags, expected in (
            ("C", ["1>0 INVITE", "0>1 100", "0>1 183"]), ("c", ["0>2 INVITE", "2>0 183"]),
            ("x", ["1>0 INVITE", "0>2 INVITE", "0>1 100", "2>0 183", "0>1 183"]),
        ):
            (bob,) = self.invite(BOB, uri=f"sip:{flags}@127.0.0.1:{BOB}", branch=flags)
            self.answer(bob, 183)
            frames = self.capture.frames()
            alone = [frame for frame in frames if frame.correlation != b"mine"]
            self.assertEqual(words(alone), ["2>0 183"])
            self.assertEqual(words([frame for frame in frames if frame not in alone]), expected, flags)
            self.answer(bob, 486)
            self.shown()

    def test_names(self) -> None:
        """Where names failed over, each target is seen; forks too."""
        self.begin('route { append_msg_branch("sip:carol@127.0.0.1:7003"); trace("t"); t_relay(); }')
        bob, carol = self.invite(BOB, CAROL)
        self.assertEqual(self.shown(), ["1>0 INVITE", "0>2 INVITE", "0>3 INVITE", "0>1 100"])
        self.answer(bob, 200)
        self.answer(carol, 180, CAROL)
        self.assertEqual(self.shown(), ["2>0 200", "0>1 200", "3>0 180", "0>3 CANCEL"])
        self.answer(carol, 487, CAROL)

    def test_own_requests(self) -> None:
        """Requests of our own are traced from local_route: alone, or with what is answered."""
        self.begin("""
        route { exit; }
        local_route { if ($rm == "OPTIONS") trace("t", "t"); else trace("t", "m"); }
        """)
        for method, expected in (("OPTIONS", ["0>2 OPTIONS", "0>2 OPTIONS", "2>0 200"]), ("INFO", ["0>2 INFO"])):
            params = {"method": method, "ruri": f"sip:127.0.0.1:{BOB}", "headers": "From: <sip:a@x>\r\nTo: <sip:b@x>\r\n"}
            self.wired.user.launch(self.wired.server.commands.call("tm:uac_dlg", params))
            self.wait(0.6)
            self.arrive(response(self.sent(BOB)[0], 200), BOB)
            self.assertEqual(self.shown(), expected)

    def test_refused(self) -> None:
        """A trace id that is none, types and scopes that are none: -1, and the log says so."""
        self.begin("""
        route {
            $var(scope) = "x";
            trace("none", "m"); xlog("L_ALERT", "$rc\\n");
            trace("t", "m", "rest"); xlog("L_ALERT", "$rc\\n");
            trace("t", $var(scope)); xlog("L_ALERT", "$rc\\n");
            trace("t", "b"); xlog("L_ALERT", "$rc\\n");
        }""")
        self.arrive(request("OPTIONS"))
        said = self.logged()
        self.assertEqual([line for line in said if line == "-1"], ["-1"] * 4)
        self.assertEqual(len([line for line in said if line.startswith("trace: ")]), 3, said)
        self.assertEqual(self.shown(), [])
        self.assertRaises(AssertionError, self.begin, 'route { trace("t", "x"); }')
        for ids in ("[t]uri=hep:nobody;", "[t]", "t", "[t]uri=file:/nowhere/at/all", "[t]uri=syslog:nowhere", "[t]uri=hep:h;a=b"):
            with self.assertRaises(ValueError):
                finished(Tracer(FakeServer(), trace_id=ids).start())


class DialogTests(TracerCase):
    """All of a dialog."""

    SCRIPT = """
    route {
        if (is_method("CANCEL")) { t_relay(); exit; }
        if (has_totag()) { loose_route(); t_relay(); exit; }
        record_route();
        trace("t", "d", , , "FLAGS");
        $du = "sip:127.0.0.1:7002";
        t_relay();
    }
    """
    MORE = 'loadmodule "rr.so"\nloadmodule "dialog.so"'

    def talk(self, flags: str) -> list[list[str]]:
        """A call with an INFO of the caller, a BYE of the callee; what is shown at each step."""
        self.begin(self.SCRIPT.replace("FLAGS", flags), more=self.MORE)
        found = []
        (invite,) = self.invite(BOB, extra="Contact: <sip:alice@127.0.0.1:7001>\r\n")
        contact = "Contact: <sip:bob@127.0.0.1:7002>\r\n"
        routes = "".join(f"Record-Route: {value}\r\n" for value in invite.headers("Record-Route"))
        self.answer(invite, 200, extra=contact + routes)
        route = f"Route: {invite.header('Record-Route')}\r\n"
        found.append(self.shown())
        self.arrive(request("ACK", "sip:bob@127.0.0.1:7002", to_tag="b1", branch="ack", extra=route))
        found.append(self.shown())
        self.arrive(request("INFO", "sip:bob@127.0.0.1:7002", to_tag="b1", branch="info", cseq=2, extra=route))
        info = [one for one in self.sent(BOB) if one.method == "INFO"]
        self.arrive(response(info[0], 200).replace(b";tag=b1;tag=b1", b";tag=b1"), BOB)
        found.append(self.shown())
        bye = request("BYE", "sip:alice@127.0.0.1:7001", port=BOB, branch="bye", cseq=1, to_tag="b1", extra=route)
        bye = bye.replace(b"From: <sip:alice@example.org>;tag=a1", b"From: <sip:bob@example.org>;tag=b1")
        bye = bye.replace(b"To: <sip:bob@example.org>;tag=b1", b"To: <sip:alice@example.org>;tag=a1")
        self.arrive(bye, BOB)
        (came,) = [one for one in self.sent(ALICE) if getattr(one, "method", "") == "BYE" and not hasattr(one, "status")]
        self.arrive(response(came, 200).replace(b";tag=a1;tag=b1", b";tag=a1"), ALICE)
        found.append(self.shown())
        return found

    def test_call(self) -> None:
        """Each request within it is traced, from both sides, and what is answered; other calls are not."""
        self.assertEqual(
            self.talk("Cc"),
            [["1>0 INVITE", "0>2 INVITE", "0>1 100", "2>0 200", "0>1 200"], ["1>0 ACK", "0>2 ACK"],
             ["1>0 INFO", "0>2 INFO", "2>0 200", "0>1 200"], ["2>0 BYE", "0>1 BYE", "1>0 200", "0>2 200"]],
        )
        self.arrive(request("MESSAGE", branch="other", to_tag="x"))
        self.assertEqual(self.shown(), [])

    def test_legs(self) -> None:
        """The legs are those of the call: of a BYE by the callee the caller's side is the one on which it goes out."""
        self.assertEqual(
            self.talk("C"),
            [["1>0 INVITE", "0>1 100", "0>1 200"], ["1>0 ACK"], ["1>0 INFO", "0>1 200"], ["0>1 BYE", "1>0 200"]],
        )

    def test_cancel(self) -> None:
        """A CANCEL belongs to the dialog, and its answer."""
        self.begin(self.SCRIPT.replace("FLAGS", ""), more=self.MORE)
        (bob,) = self.invite(BOB)
        self.answer(bob, 180)
        self.shown()
        self.arrive(request("CANCEL"))
        self.assertEqual(self.shown(), ["1>0 CANCEL", "0>1 200", "0>2 CANCEL"])
        self.answer(bob, 487)

    def test_without(self) -> None:
        """Where there is no module dialog the transaction is traced."""
        self.begin('route { trace("t", "D"); t_relay(); }')
        self.invite(BOB)
        self.assertEqual(self.shown(), ["1>0 INVITE", "0>2 INVITE", "0>1 100"])


class XlogTests(TracerCase):
    """Lines of the script."""

    SCRIPT = """
    route { trace("t", "t", $(ru{uri.user})); t_on_failure("f"); xlog("L_WARN", "called $rm\\n"); t_relay(); }
    failure_route[f] { xlog("L_ERR", "failed"); }
    """

    def test_lines(self) -> None:
        """They are shown with their level and the call they belong to, of all routes, where they are wanted."""
        for style, event, texts in (
            ("", b"WARNING:called INVITE\n", [b"ERROR:failed"]),
            ('modparam("proto_hep", "homer5_on", 0)', {"Event": "WARNING", "text": "called INVITE\n"}, None),
        ):
            self.begin(self.SCRIPT, more=style)
            (bob,) = self.invite(BOB, uri=f"sip:xlog@127.0.0.1:{BOB}")
            (line,) = self.capture.frames()
            self.assertEqual((line.kind, line.protocol, line.correlation), (0x64, 6, b"call@test"))
            if texts is None:
                assert line.payload is not None and line.extra is not None
                self.assertEqual(json.loads(line.payload), event)
                self.assertEqual(json.loads(line.extra), {"sip": "call@test"})
            else:
                self.assertEqual(line.payload, event)
            self.answer(bob, 486)
            if texts is not None:
                self.assertEqual([frame.payload for frame in self.capture.frames()], texts)
            self.capture.frames()
        self.begin(self.SCRIPT)
        self.invite(BOB, uri=f"sip:sip@127.0.0.1:{BOB}")
        self.assertEqual({frame.kind for frame in self.capture.frames()}, {1})

    def test_correlate(self) -> None:
        """correlate() tells that two calls belong together; that needs Homer 6 to be of use, and version 3."""
        script = 'route { if (!correlate("h", "a", "1", "b", "2")) xlog("L_ALERT", "no\\n"); }'
        self.begin(script, more='modparam("proto_hep", "homer5_on", 0)')
        self.arrive(request("OPTIONS"))
        (frame,) = self.capture.frames()
        assert frame.extra is not None
        self.assertEqual((frame.kind, frame.payload, json.loads(frame.extra)), (0x60, None, {"a": "1", "b": "2"}))
        self.begin(script, hep="version=2")
        self.arrive(request("OPTIONS"))
        self.assertEqual((self.capture.frames(), self.logged()[-1]), ([], "no"))


class PlaceTests(TracerCase):
    """Other places than capture servers, and many under one name."""

    def test_file(self) -> None:
        """A file has a line before each message, and only its owner reads it."""
        path = Path(self.mktemp()).absolute()
        self.begin('route { trace("t", "t"); send_reply(200, "OK"); }', ids=f"[t]uri=file:{path}")
        self.arrive(request("OPTIONS"))
        text = path.read_bytes().decode()
        self.assertRegex(text, r"\Ain udp \d{4}-\d\d-\d\d \d\d:\d\d:\d\d 127\.0\.0\.1:7001 -> 127\.0\.0\.1:5060\nOPTIONS ")
        self.assertRegex(text, r"\r\n\r\n\n\nout udp \S+ \S+ 127\.0\.0\.1:5060 -> 127\.0\.0\.1:7001\nSIP/2\.0 200 OK\r\n")
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)

    def test_sip(self) -> None:
        """Another SIP server gets the messages themselves."""
        self.begin('route { trace("t", "m"); send_reply(200, "OK"); }', ids=f"[t]uri=sip:127.0.0.1:{CAROL};")
        self.arrive(request("OPTIONS"))
        self.assertEqual(self.said(CAROL), ["OPTIONS"])

    def test_database(self) -> None:
        """Rows have all columns, under the names that are set; many are written at once, beside the call."""
        database = Rows()
        self.wired_with = database
        more = """
            modparam("tracer", "trace_id", "[t]uri=double://u:p@h/x; table=other")
            modparam("tracer", "msg_column", "message")
            modparam("tracer", "trace_local_ip", "tcp:192.0.2.9:5070")
        """
        self.begin('route { trace("t", "t", , "attrs"); t_relay(); }', more=more)
        (bob,) = self.invite(BOB)
        self.answer(bob, 486)
        rows = [change.values for change in database.changes]
        self.assertEqual({change.table for change in database.changes}, {"other"})
        self.assertEqual(len(rows), len(self.shown()))
        first = dict(rows[0])
        self.assertEqual(str(first.pop("time_stamp"))[:4], "2023")
        self.assertTrue(str(first.pop("message")).startswith("INVITE "))
        self.assertEqual(
            first,
            {"callid": "call@test", "trace_attrs": "attrs", "method": "INVITE", "status": "", "from_proto": "udp",
             "from_ip": "127.0.0.1", "from_port": ALICE, "to_proto": "udp", "to_ip": "127.0.0.1", "to_port": 5060,
             "fromtag": "a1", "direction": "in"},
        )
        self.assertEqual([row["from_port"] for row in rows if row["direction"] == "out"], [5070] * 4)
        shown = self.call("tracer:trace")["trace destinations"]
        self.assertEqual([(each["type"], each["uri"]) for each in shown][1], ("Database", "double"))

    def start(self, script: str) -> None:
        """Start the server with a database double."""
        database = getattr(self, "wired_with", None)
        if database is None:
            super().start(script)
            return
        from sipgw.testing import Phone, WiredServer
        from tests.modules.calls import DAVE, HEAD

        self.wired = WiredServer(HEAD + script, before=lambda server: server.databases.add("double", lambda url: database))
        self.phones = {port: Phone(self.wired.wire, "127.0.0.1", port) for port in (ALICE, BOB, CAROL, DAVE)}


class Rows:
    """A database that remembers what is written."""

    name, dialect = "double", "double"

    def __init__(self) -> None:
        self.changes: list[Change] = []

    async def select(self, table: str, columns: Any = (), where: Any = (), **more: Any) -> list[tuple[int]]:
        """The version."""
        return [(5,)]

    async def batch(self, changes: list[Change]) -> None:
        """Write."""
        self.changes.extend(changes)


class CommandTests(TracerCase):
    """Management commands."""

    def test_switch(self) -> None:
        """Tracing is switched off and on, at all or for one trace id, also of calls that are under way."""
        self.begin('route { trace("t", "t"); t_relay(); }')
        (bob,) = self.invite(BOB)
        self.assertEqual(len(self.shown()), 3)
        place = {"name": "t", "type": "HEP", "uri": f"127.0.0.1:{self.capture.port}", "state": "on"}
        self.assertEqual(self.call("tracer:trace"), {"global": "on", "trace destinations": [place]})
        for off, on in (({"mode": "off"}, {"mode": "ON"}), ({"id": "t", "mode": "off"}, {"id": "t", "mode": "on"})):
            self.assertEqual(self.call("tracer:trace", off), "OK")
            self.answer(bob, 180)
            self.assertEqual(self.shown(), [])
            self.call("tracer:trace", on)
            self.answer(bob, 180)
            self.assertEqual(self.shown(), ["2>0 180", "0>1 180"])
        self.assertEqual(self.call("tracer:trace", {"id": "t"}), {"trace destinations": [place]})
        for params, code in (({"id": "x"}, 400), ({"mode": "x"}, 500), ({"id": "x", "mode": "on"}, 400)):
            self.assertEqual(self.assertRaises(MIError, self.call, "tracer:trace", params).code, code)
        self.answer(bob, 486)

    def test_start(self) -> None:
        """Requests that fit all filters are traced without a word in the script, until that is stopped."""
        self.begin("route { t_relay(); }", ids="[t]uri=sip:127.0.0.1:7004")
        hep = f"hep:127.0.0.1:{self.capture.port}; transport=udp"
        base = {"uri": hep, "scope": "t", "type": "sip"}
        for number, (filters, user, expected) in enumerate((
            (["caller=alice"], "bob", 4), (["caller=alice@example.org", "callee=bob"], "bob", 4),
            (["caller=alice", "callee=carol"], "bob", 0), (["ip=127.0.0.1"], "bob", 4), (["ip=127.0.0.2"], "bob", 0),
        )):
            self.call("tracer:start", {"id": "d", "filter": filters, **base})
            (bob,) = self.invite(BOB, uri=f"sip:{user}@127.0.0.1:{BOB}", branch=f"n{number}", method="OPTIONS")
            self.answer(bob, 200)
            self.assertEqual(len(self.shown()), expected, filters)
            shown = self.call("tracer:trace", {"id": "d"})["trace destinations"]
            wanted = [dict([each.split("=")]) for each in filters]
            self.assertEqual([(each["state"], each["filters"]) for each in shown], [("dynamic", wanted)])
            self.call("tracer:stop", {"id": "d"})
        self.invite(BOB, method="OPTIONS", branch="after")
        self.assertEqual(self.shown(), [])
        for params, code in (
            ({"id": "t", "uri": "sip:127.0.0.1:7003"}, 500), ({"id": "d", "uri": "mysql://x"}, 406),
            ({"id": "d", "uri": "hep:x:0"}, 500), ({"id": "d", "uri": "sip:x", "filter": ["a=b"]}, 500),
        ):
            self.assertEqual(self.assertRaises(MIError, self.call, "tracer:start", params).code, code, params)
        self.assertEqual(self.assertRaises(MIError, self.call, "tracer:stop", {"id": "d"}).code, 400)


class SocketTests(TracerCase):
    """The sockets of the script."""

    def test_from(self) -> None:
        """A hep_udp socket is where frames come from; that nothing is read there is said, and HEP over TLS is refused."""
        spare = Capture()
        port = spare.port
        spare.close()
        self.begin(
            'route { trace("t", "m"); }',
            more=f"socket = hep_udp:127.0.0.1:{port}\nsocket = hep_tcp:127.0.0.1:{port}\nlog_level = 3",
        )
        self.addCleanup(lambda: finished(self.wired.server.modules["proto_hep"].stop()))
        self.arrive(request("OPTIONS"))
        data, source = self.capture.socket.recvfrom(65535)
        self.assertEqual((data[:4], source), (b"HEP3", ("127.0.0.1", port)))
        self.assertEqual(sum("HEP frames are sent from this socket" in text for _, text in self.wired.lines), 2)
        self.assertRaises(AssertionError, self.begin, "route { exit; }", more="socket = hep_tls:127.0.0.1:9061")
