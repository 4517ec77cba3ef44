"""Tests of sipgw.modules.registrar, on a transaction user with a fake clock: bytes in, bytes out."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules._registrar_base import avp_name
from sipgw.modules.core import Core
from sipgw.modules.registrar import Registrar
from sipgw.modules.signaling import Signaling
from sipgw.modules.sl import Sl
from sipgw.modules.usrloc import Usrloc
from sipgw.script.compiler import compile_config, compile_variable
from sipgw.script.parser import parse as parse_script
from sipgw.script.run import Run
from sipgw.script.symbols import ModuleSymbols, RouteKind, Symbols
from sipgw.script.variables import VARIABLES
from sipgw.sip.grammar import unquote
from sipgw.sip.message import Response
from tests.doubles import FakeFlow, FakeVariable, changes, request, response, run_of
from tests.proxy.rig import FakeServer, Rig
from tests.proxy.rig import request as relayed_request
from tests.proxy.rig import response as reply_to

CORE = Symbols.of([ModuleSymbols("core", variables=VARIABLES)])

CONTACTS = (
    'Contact: <sip:a@1.1.1.1:5061>;+sip.instance="<urn:uuid:1>", <sip:b@1.1.1.2>;q=0.5\r\n'
    "Path: <sip:p@9.9.9.9:7;lr>\r\nUser-Agent: phone\r\n"
)


def register(more: str, *, user: str = "bob", cseq: int = 1, call_id: str = "call@test", port: int = 7001) -> bytes:
    """A REGISTER with more header lines."""
    return (
        f"REGISTER sip:example.org SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{call_id}{cseq}{user}\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:{user}@example.org>;tag=a1\r\nTo: <sip:{user}@example.org>\r\nCall-ID: {call_id}\r\n"
        f"CSeq: {cseq} REGISTER\r\n{more}Content-Length: 0\r\n\r\n"
    ).encode()


def message_to_bob(method: str) -> bytes:
    """A request to Bob's address-of-record."""
    return relayed_request(method, "sip:bob@example.org", branch=method)


class RegistrarTests(SynchronousTestCase):
    """The module with those that it needs."""

    def make(self, **parameters: Any) -> Registrar:
        """A started registrar whose route saves each REGISTER with the flags of ``self.flags``."""
        self.rig = Rig()
        server: Any = FakeServer(self.rig.user)
        self.server = server
        of_usrloc = {name: parameters.pop(name) for name in list(parameters) if name in Usrloc.exports.parameters}
        self.usrloc = Usrloc(server, **of_usrloc)
        sl = Sl(server)
        signaling = Signaling(server, sl=sl, tm=self.rig.tm)
        made = Registrar(server, usrloc=self.usrloc, signaling=signaling, tm=self.rig.tm, **parameters)
        for module in (sl, signaling, self.usrloc, made):
            self.successResultOf(ensureDeferred(module.start()))
        self.flags: str | None = None
        self.codes: list[int] = []
        self.prepare: Any = lambda run: None

        async def route(run: Run) -> None:
            self.prepare(run)
            self.codes.append(made.save(run, "location", self.flags))

        self.rig.routes(route)
        return made

    def send(self, more: str = "", **options: Any) -> Response | None:
        """Send a REGISTER; the answer, None if there is none."""
        self.rig.arrive(register(more, **options), options.get("port", 7001))
        answers = self.rig.sent(7001)
        return answers[0] if answers else None

    def contacts(self, user: str = "bob") -> list[str]:
        """The contacts that a user has."""
        return [binding.contact for binding in self.usrloc.table("location").bindings(f"{user}@example.org")]

    def run_of(self, method: str = "OPTIONS", more: str = "", kind: RouteKind | None = None) -> Run:
        """A run of a request from Alice to Bob, with this server."""
        head = (
            "Via: SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bKabc\r\nMax-Forwards: 70\r\n"
            "From: <sip:bob@example.org>;tag=a1\r\nTo: <sip:alice@example.org>\r\nCall-ID: call1@example.org\r\n"
        )
        run = run_of(request(method, head=head, more=more), kind=kind)
        run.user = self.rig.user
        run.now = self.rig.user.clock()
        return run

    # -- save

    def test_register(self) -> None:
        """A REGISTER is answered with its contacts, and again when it comes again; unregistered, it has none."""
        made = self.make()
        answer = self.send(CONTACTS)
        assert answer is not None
        self.assertEqual((answer.status, answer.reason), (200, "OK"))
        listed = ["<sip:b@1.1.1.2>;q=0.5;expires=3600, <sip:a@1.1.1.1:5061>;expires=3600"]
        self.assertEqual(answer.headers("Contact"), listed)
        self.assertTrue(answer.to_tag)
        self.rig.clock.advance(10)
        answer = self.send("Contact: <sip:a@1.1.1.1:5061>;expires=100\r\n", cseq=2)
        assert answer is not None
        self.assertEqual(answer.headers("Contact"), ["<sip:b@1.1.1.2>;q=0.5;expires=3590, <sip:a@1.1.1.1:5061>;expires=100"])
        answer = self.send("Contact: *\r\nExpires: 0\r\n", cseq=3)
        assert answer is not None
        self.assertEqual((answer.status, answer.headers("Contact"), self.contacts()), (200, [], []))
        self.assertEqual((self.codes, made.accepted_regs.read(), made.rejected_regs.read()), ([1, 1, 1], 3, 0))

    def test_refused(self) -> None:
        """A refused one says why, and counts."""
        made = self.make(max_contacts=1, retry_after=30)
        answer = self.send(CONTACTS)
        assert answer is not None
        self.assertEqual((answer.status, answer.header("Retry-After")), (503, "30"))
        self.assertEqual(answer.header("P-Registrar-Error"), "Too many registered contacts")
        self.assertEqual((self.codes, made.accepted_regs.read(), made.rejected_regs.read()), ([-2], 0, 1))

    def test_bad_flags(self) -> None:
        """Flags from a variable that are none are logged, and the function fails; the script goes on."""
        made = self.make()
        self.flags = "bogus"
        self.assertIsNone(self.send(CONTACTS))
        self.assertEqual((self.codes, self.contacts()), ([-1], []))
        self.assertIn("bogus", self.rig.log[0][1])
        self.assertEqual(made.lookup(self.run_of(), "location", "bogus"), -3)

    def test_no_reply(self) -> None:
        """With the flag, saved but not answered."""
        self.make()
        self.flags = "no-reply"
        self.assertIsNone(self.send(CONTACTS))
        self.assertEqual((len(self.contacts()), self.codes), (2, [1]))

    def test_too_brief(self) -> None:
        """423 with Min-Expires over the wire."""
        self.make(min_expires=120)
        self.flags = "reject-too-brief"
        answer = self.send("Contact: <sip:a@h>\r\nExpires: 119\r\n")
        assert answer is not None
        self.assertEqual((answer.status, answer.header("Min-Expires"), self.contacts()), (423, "120", []))

    def test_stateful(self) -> None:
        """After t_newtran the answer goes through the transaction, and a retransmission gets it again."""
        self.make()
        self.prepare = lambda run: self.rig.tm.t_newtran(run)
        first = self.send(CONTACTS)
        again = self.send(CONTACTS)
        assert first is not None and again is not None
        self.assertEqual((first.status, again.lines), (200, first.lines))
        self.assertEqual(self.codes, [1])

    def test_parameters(self) -> None:
        """Each parameter reaches what it is for."""
        table: list[tuple[dict[str, Any], str, str | None]] = [
            ({"default_expires": 1800}, "Contact: <sip:a@h>\r\n", "<sip:a@h>;expires=1800"),
            ({"min_expires": 90}, "Contact: <sip:a@h>;expires=5\r\n", "<sip:a@h>;expires=90"),
            ({"max_expires": 1000}, "Contact: <sip:a@h>\r\n", "<sip:a@h>;expires=1000"),
            ({"default_q": 380}, "Contact: <sip:a@h>\r\n", "<sip:a@h>;q=0.38;expires=3600"),
            (
                {"desc_time_order": 1}, "Contact: <sip:a@h>;q=1,<sip:b@h>;q=0.1\r\n",
                "<sip:b@h>;q=0.1;expires=3600, <sip:a@h>;q=1;expires=3600",
            ),
            (
                {"received_avp": "$avp(rcv)", "received_param": "src"}, "Contact: <sip:a@h>\r\n",
                '<sip:a@h>;expires=3600;src="sip:5.5.5.5:5"',
            ),
            ({"max_contact_len": 8}, "Contact: <sip:a@host>\r\n", None),
            ({"max_username_len": 2}, "Contact: <sip:a@h>\r\n", None),
            ({"max_domain_len": 10}, "Contact: <sip:a@h>\r\n", None),
            ({"max_aor_len": 14}, "Contact: <sip:a@h>\r\n", None),
        ]
        for parameters, more, expected in table:
            self.make(**parameters)
            self.prepare = lambda run: run.avps.update(rcv=["sip:5.5.5.5:5"])
            answer = self.send(more)
            assert answer is not None
            self.assertEqual(answer.header("Contact"), expected, parameters)

    def test_parameters_of_the_user(self) -> None:
        """Those that decide who is meant, and what counts as the same."""
        names: list[tuple[dict[str, Any], str]] = [
            ({"case_sensitive": 0}, "bob@example.org"),
            ({"case_sensitive": 1}, "Bob@example.org"),
            ({"use_domain": 0}, "Bob"),
            ({"realm_prefix": "Example."}, "Bob@org"),
        ]
        for parameters, name in names:
            self.make(**parameters)
            self.send(CONTACTS, user="Bob")
            self.assertEqual([aor for aor, _ in self.usrloc.table("location")], [name], parameters)
        for parameters, count in [({"matching_mode": 0}, 1), ({"matching_mode": 1}, 2)]:
            self.make(**parameters)
            self.send("Contact: <sip:a@h>\r\n")
            self.send("Contact: <sip:a@h>\r\n", call_id="other")
            self.assertEqual(len(self.contacts()), count)
        repeated: list[tuple[dict[str, Any], list[int]]] = [
            ({}, [200, 200]),
            ({"allow_dup_cseq": 0}, [200, 400]),
            ({"allow_dup_cseq": 0, "cseq_delay": 100}, [200, 200]),
        ]
        for parameters, statuses in repeated:
            self.make(**parameters)
            self.send("Contact: <sip:a@h>\r\n")
            found = []
            for seconds in (1, 30):
                self.rig.clock.advance(seconds)
                answer = self.send("Contact: <sip:a@h>\r\n")
                found.append(answer and answer.status)
            self.assertEqual(found, statuses, parameters)
        self.make(expires_max_deviation=30)
        ends = set()
        for cseq in range(1, 20):
            answer = self.send("Contact: <sip:a@h>;expires=90\r\n", cseq=cseq)
            ends.add(answer and answer.header("Contact"))
        self.assertGreater(len(ends), 5)

    def test_bad_parameters(self) -> None:
        """What cannot be is refused when it is set."""
        for name, value in [
            ("received_avp", "rcv"), ("attr_avp", "$var(x)"), ("default_q", 1001), ("received_param", "a b"), ("max_aor_len", 0),
            ("min_expires", -1), ("sock_hdr_name", "A:"), ("default_expires", 0), ("pn_providers", ""), ("pn_providers", "a b"),
            ("pn_ct_match_params", " , "), ("pn_refresh_timeout", 0), ("pn_skip_pn_interval", -1),
        ]:
            self.assertRaises(ValueError, Registrar, None, **{name: value})
        self.assertEqual([avp_name(text) for text in ("$avp(a)", "$avp( s:b )")], ["a", "b"])
        self.assertEqual(Registrar.later, {})
        for parameters, why in [({}, "tm.so"), ({"tm": object()}, "pn_providers")]:
            server: Any = FakeServer(Rig().user)
            made = Registrar(server, usrloc=Usrloc(server), pn_enable=1, **parameters)
            self.assertIn(why, str(self.failureResultOf(ensureDeferred(made.start()), ValueError).value))

    def test_statistics(self) -> None:
        """The parameters that monitoring reads."""
        self.make(max_expires=7200, max_contacts=5, default_expires=600)
        numbers = {each.name: each.read() for each in self.server.statistics.group("registrar")}
        self.assertEqual(
            numbers, {"max_expires": 7200, "max_contacts": 5, "default_expire": 600, "accepted_regs": 0, "rejected_regs": 0},
        )

    def test_tables_of_a_script(self) -> None:
        """The table that a script names is there before the first contact."""
        made = self.make()
        check = {each.name: each for each in Registrar.declared(made).functions}["save"].parameters[0].check
        assert check is not None
        check("aliases")
        self.assertIn("aliases", self.usrloc.tables)

    def relayed(self, sent: str, granted: str, **parameters: Any) -> tuple[list[str], Response]:
        """Relay a REGISTER to another registrar at port 7002, save its answer; what is kept, and what the phone gets."""
        made = self.make(**parameters)
        self.rig.tm.onreply_avp_mode = 1

        async def relay(run: Run) -> None:
            run.avps["sent"] = ["sip:a@9.9.9.9"]
            run.dst_uri = "sip:127.0.0.1:7002"
            self.rig.tm.t_on_reply(run, "save")
            await self.rig.tm.t_relay(run)

        async def save(run: Run) -> None:
            self.codes.append(made.save(run, "location"))

        self.rig.routes(relay, onreply={"save": save})
        self.rig.arrive(register(sent), 7001)
        self.rig.arrive(reply_to(self.rig.sent(7002)[0], 200, extra=granted), 7002)
        kept = self.usrloc.table("location").bindings("bob@example.org")
        now = self.rig.user.clock()
        return [f"{each.contact} {each.q} {each.seconds_left(now)}" for each in kept], self.rig.sent(7001)[0]

    def test_in_a_reply_route(self) -> None:
        """What another registrar has granted is kept for the contacts of the request; the phone gets its answer."""
        for sent, granted, kept in [
            ("Contact: <sip:a@h>;q=0.5\r\n", "Contact: <sip:a@h>;expires=120\r\n", ["sip:a@h -1 120"]),
            ("Contact: <sip:a@h>\r\n", "Contact: <sip:b@h>;expires=77, <SIP:a@h>;q=0.7;expires=90\r\n", ["sip:a@h 700 90"]),
            ("Contact: <sip:a@h>\r\nExpires: 500\r\n", "Contact: <sip:a@h>\r\n", ["sip:a@h -1 500"]),
            ("Contact: <sip:a@h>\r\nExpires: 500\r\n", "Expires: 300\r\n", ["sip:a@h -1 500"]),
            ("Contact: <sip:a@h>;q=0.5\r\n", "Contact: <sip:b@h>;expires=77\r\n", ["sip:a@h 500 3600"]),
            ("Contact: <sip:a@h>\r\n", "Contact: <sip:a@h>;expires=20\r\n", ["sip:a@h -1 60"]),
            ("Contact: <sip:a@h>\r\n", "Contact: <sip:a@h>;expires=0\r\n", []),
            ("Contact: <sip:a@h>;expires=0\r\n", "", []),
            ("Contact: *\r\nExpires: 0\r\n", "", []),
            ("", "Contact: <sip:a@h>;expires=120\r\n", []),
        ]:
            found, answer = self.relayed(sent, granted)
            self.assertEqual((found, self.codes, answer.status), (kept, [1], 200), (sent, granted))
            self.assertEqual(answer.header("Contact"), granted[9:-2] if granted.startswith("C") else None)

    def test_mcontact_avp(self) -> None:
        """A contact that was relayed under another URI is found by that, and given back its own in the answer."""
        sent = "Contact: <sip:a@1.1.1.1>\r\n"
        found, answer = self.relayed(sent, "Contact: <sip:a@9.9.9.9>;expires=120\r\n", mcontact_avp="$avp(sent)")
        self.assertEqual((found, answer.header("Contact")), (["sip:a@1.1.1.1 -1 120"], "<sip:a@1.1.1.1>;expires=120"))
        self.assertIs(self.usrloc.table("location").bindings("bob@example.org")[0].socket, self.rig.socket)
        found, answer = self.relayed(sent, "Contact: <sip:a@1.1.1.1>;expires=120\r\n", mcontact_avp="$avp(sent)")
        self.assertEqual((found, answer.header("Contact")), (["sip:a@1.1.1.1 -1 3600"], "<sip:a@1.1.1.1>;expires=120"))

    def test_reply_of_nobody(self) -> None:
        """A reply that belongs to no transaction saves nothing."""
        made = self.make()
        run = run_of(response())
        self.assertEqual(made.save(run, "location"), -1)

    def test_script(self) -> None:
        """A compiled script saves a phone, sends it a request, and asks whether it knows an address."""
        made = self.make()
        config = parse_script(
            """
            route {
                if ($rm == "REGISTER") {
                    save("location", "max-contacts=1");
                    exit;
                }
                if (is_ip_registered("location", $ru, $si))
                    xlog("known\\n");
                if (!lookup("location", "method-filtering")) {
                    send_reply(404, "Not Found");
                    exit;
                }
                t_relay();
            }
            """
        )
        modules = [Core(made.server), self.rig.tm, self.usrloc, made.signaling, made]
        symbols = Symbols.of([ModuleSymbols("core", variables=VARIABLES), *(module.declared(module) for module in modules)])
        user: Any = self.rig.user
        user.routes = compile_config(config, symbols, user)
        user.xlog_level = 4
        self.rig.arrive(register("Contact: <sip:bob@127.0.0.1:7002>\r\nAllow: MESSAGE\r\n"), 7001)
        self.assertEqual(self.rig.said(7001), ["200 REGISTER"])
        for method, said, relayed in [("MESSAGE", [], ["MESSAGE"]), ("INFO", ["404 INFO"], [])]:
            self.rig.arrive(message_to_bob(method), 7001)
            self.assertEqual((self.rig.said(7001), self.rig.said(7002)), (said, relayed), method)
        self.assertEqual([text for _, text in self.rig.log], ["known\n", "known\n"])

    # -- lookup

    def test_lookup(self) -> None:
        """A request goes to the contacts of its Request-URI."""
        made = self.make(attr_avp="$avp(attr)")
        self.prepare = lambda run: run.avps.update(attr=["text"])
        self.flags = "path-off"
        self.send(CONTACTS)
        run = self.run_of()
        self.assertEqual(made.lookup(run, "location"), 1)
        self.assertEqual((run.uri, run.dst_uri, run.q, run.attrs), ("sip:b@1.1.1.2", "sip:p@9.9.9.9:7;lr", 500, {"attr": "text"}))
        self.assertEqual([branch.uri for branch in run.branches], ["sip:a@1.1.1.1:5061"])
        self.assertIs(run.send_socket, self.rig.socket)
        run = self.run_of()
        self.assertEqual(made.lookup(run, "location", "no-branches", "sip:bob@example.org"), 1)
        self.assertEqual((run.uri, run.branches), ("sip:b@1.1.1.2", []))
        for aor, code in [("sip:zed@example.org", -1), ("garbage", -3)]:
            self.assertEqual(made.lookup(self.run_of(), "location", None, aor), code)
        self.assertEqual(made.lookup(self.run_of(), "elsewhere"), -1)
        self.rig.clock.advance(3600)
        self.assertEqual(made.lookup(self.run_of(), "location"), -1)

    # -- questions

    def test_is_registered(self) -> None:
        """By default From is asked about, To in a REGISTER; attributes are handed over."""
        made = self.make(attr_avp="$avp(attr)")
        self.prepare = lambda run: run.avps.update(attr=["text"])
        self.send(CONTACTS)
        run = self.run_of()
        self.assertTrue(made.is_registered(run, "location"))
        self.assertEqual(run.avps, {"attr": ["text", "text"]})
        self.assertFalse(made.is_registered(self.run_of("REGISTER"), "location"))
        for aor, expected in [("sip:bob@EXAMPLE.org", True), ("sip:zed@example.org", False), ("garbage", False)]:
            self.assertEqual(made.is_registered(self.run_of(), "location", aor), expected, aor)
        reply = run_of(response())
        reply.user, reply.now = self.rig.user, self.rig.user.clock()
        self.assertFalse(made.is_registered(reply, "location"))
        self.assertTrue(made.is_registered(reply, "location", "sip:bob@example.org"))

    def test_is_contact_registered(self) -> None:
        """The contact is compared as text, with the Call-ID; without both, the message's first contact."""
        made = self.make()
        self.send(CONTACTS)
        for more, arguments, expected in [
            ("", (), False),
            ("Contact: <sip:b@1.1.1.2>\r\n", (), True),
            ("Contact: <sip:z@1.1.1.2>, <sip:b@1.1.1.2>\r\n", (), False),
            ("Contact: <sip:b@1.1.1.2>\r\n", ("sip:zed@example.org",), False),
            ("", ("sip:bob@example.org", "sip:b@1.1.1.2"), True),
            ("", (None, "sip:b@1.1.1.2"), True),
            ("", (None, "<sip:b@1.1.1.2>"), False),
            ("", (None, "sip:b@1.1.1.2:5060"), False),
            ("", (None, "sip:b@1.1.1.2", "call@test"), True),
            ("", (None, "sip:b@1.1.1.2", "other"), False),
            ("", (None, None, "call@test"), True),
            ("", (None, None, "other"), False),
        ]:
            found = made.is_contact_registered(self.run_of(more=more), "location", *arguments)
            self.assertEqual(found, expected, (more, arguments))

    def test_is_ip_registered(self) -> None:
        """The source counts, else the host of the contact; a port must be as written, 0 for none."""
        made = self.make(received_avp="$avp(rcv)")
        self.flags = "path-off"
        self.send(CONTACTS)
        self.prepare = lambda run: run.avps.update(rcv=["sip:5.5.5.5:999;transport=tcp"])
        self.send("Contact: <sip:c@1.1.1.3>\r\n", call_id="nat")
        table: list[tuple[list[int | str], list[int | str] | None, bool]] = [
            (["1.1.1.1"], None, True),
            (["5.5.5.5"], None, True),
            (["1.1.1.3"], None, False),
            (["9.9.9.9"], None, False),
            (["8.8.8.8", "1.1.1.2"], None, True),
            (["bad"], None, False),
            ([7], None, False),
            (["1.1.1.1"], [5061], True),
            (["1.1.1.1"], [5060], False),
            (["1.1.1.2"], [0], True),
            (["5.5.5.5"], [999], True),
            (["1.1.1.2", "1.1.1.1"], [5061, 0], False),
            (["1.1.1.1"], ["5061"], False),
        ]
        for hosts, ports, expected in table:
            run = self.run_of()
            run.avps = {"ip": hosts, "port": ports or []}
            ip, port = (compile_variable(f"$avp({name})", CORE) for name in ("ip", "port"))
            found = made.is_ip_registered(run, "location", "sip:bob@example.org", ip, None if ports is None else port)
            self.assertEqual(found, expected, (hosts, ports))
        single = FakeVariable()
        self.assertFalse(made.is_ip_registered(self.run_of(), "location", None, single))
        single.values.append("1.1.1.2")
        self.assertTrue(made.is_ip_registered(self.run_of(), "location", None, single))

    # -- removal

    def test_remove(self) -> None:
        """Each filter narrows what is removed."""
        a, b, c = "sip:a@1.1.1.1:5061", "sip:b@1.1.1.2", "sip:c@1.1.1.1"
        table: list[tuple[tuple[str | None, ...], list[str]]] = [
            ((), []),
            ((b,), [a, c]),
            (("sip:b@1.1.1.2:5060",), [b, a, c]),
            ((None, "1.1.1.1"), [b, c]),
            ((None, "5.5.5.5"), [b, a]),
            ((a, "1.1.1.2"), [b, a, c]),
            ((None, None, "<urn:uuid:1>"), [b, c]),
            ((None, None, "urn:uuid:1"), [b, a, c]),
            ((None, None, None, "NAT"), [b, a]),
            ((None, None, None, "UNKNOWN"), [b, a, c]),
        ]
        for arguments, left in table:
            made = self.make(received_avp="$avp(rcv)", nat_bflag="NAT")
            self.send(CONTACTS)

            def behind_nat(run: Run) -> None:
                run.avps["rcv"] = ["sip:5.5.5.5:999"]
                run.branch_flags = self.usrloc.nat_flag

            self.prepare = behind_nat
            self.send("Contact: <sip:c@1.1.1.1>\r\n", call_id="nat")
            self.assertTrue(made.remove(self.run_of(), "location", "sip:bob@example.org", *arguments))
            self.assertEqual(self.contacts(), left, arguments)
        self.assertTrue(made.remove(self.run_of(), "location", "sip:nobody@example.org"))
        self.assertFalse(made.remove(self.run_of(), "location", "bad"))

    def test_remove_ip_port(self) -> None:
        """Of one user or of all; where no port is written it is 5060."""
        for arguments, left in [
            (("1.1.1.2", 5060), ["sip:a@1.1.1.1:5061"]),
            (("1.1.1.1", 5061), ["sip:b@1.1.1.2"]),
            (("1.1.1.1", 5060), ["sip:b@1.1.1.2", "sip:a@1.1.1.1:5061"]),
            (("7.7.7.7", 5060), ["sip:b@1.1.1.2", "sip:a@1.1.1.1:5061"]),
        ]:
            made = self.make()
            self.send(CONTACTS)
            self.send(CONTACTS, user="alice")
            host, port = arguments
            run = self.run_of()
            one = ensureDeferred(made.remove_ip_port(run, host, port, "location", "sip:alice@example.org"))
            self.assertTrue(self.successResultOf(one))
            self.assertEqual((len(self.contacts()), self.contacts("alice")), (2, left), arguments)
            self.assertTrue(self.successResultOf(ensureDeferred(made.remove_ip_port(run, host, port, "location"))))
            self.assertEqual(self.contacts(), left, arguments)
        self.assertFalse(self.successResultOf(ensureDeferred(made.remove_ip_port(run, "1.1.1.1", 1, "location", "bad"))))

    def test_remove_ip_port_of_many(self) -> None:
        """A large table is looked through in several turns of the reactor."""
        made = self.make()
        self.patch(__import__("sipgw.modules.registrar", fromlist=["TURN"]), "TURN", 2)
        for index in range(5):
            self.send("Contact: <sip:a@1.1.1.1>\r\n", user=f"u{index}")
        deferred = ensureDeferred(made.remove_ip_port(self.run_of(), "1.1.1.1", 5060, "location"))
        self.assertNoResult(deferred)
        self.assertEqual(self.usrloc.table("location").count, 3)
        self.rig.clock.pump([0, 0])
        self.assertTrue(self.successResultOf(deferred))
        self.assertEqual(self.usrloc.table("location").count, 0)

    # -- GRUU (RFC 5627)

    def grouped(self, answer: Response | None) -> list[dict[str, str | None]]:
        """The parameters of each contact in an answer."""
        assert answer is not None
        return [{name: value and unquote(value) for name, value in each.params.items()} for each in answer.contacts]

    def test_gruu(self) -> None:
        """A phone that knows GRUU gets both; a request to either goes to its device alone, the newest contact of it."""
        made = self.make(disable_gruu=0)
        one, two = (f'+sip.instance="<urn:uuid:{number}>"' for number in (1, 2))
        self.assertNotIn("pub-gruu", self.grouped(self.send(f"Contact: <sip:a@1.1.1.1>;{one}\r\n"))[0])
        self.send(f"Contact: <sip:b@1.1.1.1>;{two};q=0.5,<sip:c@1.1.1.1>;q=1\r\n", call_id="two", cseq=7)
        self.rig.clock.advance(1)
        self.send(f"Contact: <sip:d@1.1.1.1>;{two}\r\n", call_id="two", cseq=8)
        answers = [self.send("Supported: path, GRUU\r\n"), self.send("Require: gruu\r\n")]
        for answer in answers:
            found = self.grouped(answer)
            instances = [each.get("+sip.instance") for each in found]
            self.assertEqual(instances, [None, "<urn:uuid:2>", "<urn:uuid:1>", "<urn:uuid:2>"])
            self.assertEqual(found[2]["pub-gruu"], "sip:bob@example.org;gr=urn:uuid:1")
        for uri, code, contact in [
            (found[2]["pub-gruu"], 1, "sip:a@1.1.1.1"),
            (found[2]["temp-gruu"], 1, "sip:a@1.1.1.1"),
            (found[1]["pub-gruu"], 1, "sip:d@1.1.1.1"),
            (found[1]["temp-gruu"], 1, "sip:d@1.1.1.1"),
            ("sip:bob@EXAMPLE.org;gr=URN:UUID:2", 1, "sip:d@1.1.1.1"),
            ("sip:bob@example.org;gr=urn:uuid:3", -1, None),
            ("sip:tgruu.abcd@example.org;gr", -1, None),
            ("sip:bob@example.org;gr", 1, "sip:c@1.1.1.1"),
            ("sip:@;gr=1", -3, None),
        ]:
            run = self.run_of()
            run.uri = uri or ""
            self.assertEqual(made.lookup(run, "location"), code, uri)
            self.assertEqual(run.uri, contact or uri)
            self.assertEqual(len(run.branches), 3 if uri == "sip:bob@example.org;gr" else 0, uri)
            self.assertEqual(made.is_registered(self.run_of(), "location", uri), code == 1, uri)
        self.send(f"Contact: <sip:d@1.1.1.1>;{two}\r\n", call_id="three")
        self.send(f"Contact: <sip:b@1.1.1.1>;{two};expires=0\r\n", call_id="three")
        run = self.run_of()
        run.uri = found[1]["temp-gruu"] or ""
        self.assertEqual(made.lookup(run, "location"), -1)

    def test_gruu_as_contact(self) -> None:
        """A GRUU of one's own is no contact; one of somebody else is."""
        self.make(disable_gruu=0)
        found = self.grouped(self.send('Supported: gruu\r\nContact: <sip:a@h>;+sip.instance="<urn:uuid:1>"\r\n'))
        for kind in ("pub-gruu", "temp-gruu"):
            answer = self.send(f"Contact: <{found[0][kind]}>\r\n", cseq=2)
            assert answer is not None
            self.assertEqual((answer.status, answer.header("P-Registrar-Error")), (403, "Contact is a GRUU of the same user"))
            answer = self.send(f"Contact: <{found[0][kind]}>\r\n", user="alice")
            self.assertEqual(answer and answer.status, 200)
        answer = self.send("Contact: <sip:@;gr=1>\r\n", cseq=3)
        self.assertEqual((answer and answer.status, self.contacts()), (400, ["sip:a@h"]))

    def test_gruu_off(self) -> None:
        """Without it none are given, but who has a public one reaches the device."""
        made = self.make()
        answer = self.send('Supported: gruu\r\nContact: <sip:a@h>;+sip.instance="<urn:uuid:1>",<sip:b@h>;q=1\r\n')
        self.assertNotIn("pub-gruu", self.grouped(answer)[1])
        run = self.run_of()
        run.uri = "sip:bob@example.org;gr=urn:uuid:1"
        self.assertEqual((made.lookup(run, "location"), run.uri), (1, "sip:a@h"))
        run.uri = "sip:tgruu.abc@example.org;gr"
        self.assertEqual(made.lookup(run, "location"), -1)

    def test_gruu_secret(self) -> None:
        """Who has the secret reads the temporary ones of another server, or of this one before it was started again."""
        tokens = []
        for secret in ("one", "one", "two", "", ""):
            made = self.make(disable_gruu=0, gruu_secret=secret)
            found = self.grouped(self.send('Supported: gruu\r\nContact: <sip:a@h>;+sip.instance="<urn:uuid:1>"\r\n'))
            tokens.append(found[0]["temp-gruu"])
            self.assertEqual(made.is_registered(self.run_of(), "location", tokens[0]), tokens[-1] == tokens[0])
        self.assertEqual(tokens[0], tokens[1])
        self.assertEqual(len(set(tokens)), 4)

    # -- push notifications (RFC 8599); see test_registrar_push.py

    def test_cannot_wait(self) -> None:
        """What cannot wait for a phone that sleeps does not find it; one transaction too many ends the script."""
        made = self.make(pn_enable=1, pn_providers="apns")
        self.send("Contact: <sip:a@h;pn-provider=apns;pn-prid=1;pn-param=2>\r\n")
        for method, code in [("ACK", -3), ("CANCEL", -3)]:
            run = self.run_of(method)
            run.uri = "sip:bob@example.org"
            self.assertEqual(made.lookup(run, "location"), code)
        self.patch(self.rig.tm, "context", lambda run: None)
        run = self.run_of("INVITE")
        run.uri = "sip:bob@example.org"
        self.assertEqual(made.lookup(run, "location"), 0)
        self.send("Contact: <sip:b@h>\r\n", cseq=2)
        self.assertEqual((made.lookup(run, "location"), run.uri), (0, "sip:bob@example.org"))
        run = self.run_of("ACK")
        run.uri = "sip:bob@example.org"
        self.assertEqual((made.lookup(run, "location"), run.uri, run.branches), (1, "sip:b@h", []))

    def test_no_purr(self) -> None:
        """Without PURRs, or push notifications, nobody is woken; a reply has none."""
        purr = ";pn-purr=AAAAAAAAAAAAAAAAAAAAAAAA"
        for parameters in ({}, {"pn_enable": 1, "pn_providers": "apns"}):
            made = self.make(**parameters)
            run = self.run_of("BYE", more=f"Route: <sip:h{purr}>\r\n")
            run.uri = f"sip:bob@example.org{purr}"
            self.assertEqual(self.successResultOf(ensureDeferred(made.pn_process_purr(run, "location"))), 2)
        run = run_of(response(), kind=RouteKind.ONREPLY)
        run.user = self.rig.user
        self.assertEqual(self.successResultOf(ensureDeferred(made.pn_process_purr(run, "location"))), -1)

    # -- headers

    def test_add_sock_hdr(self) -> None:
        """The socket by which the request came, as save() reads it with socket-header."""
        made = self.make()
        run = self.run_of("REGISTER")
        run.flow = FakeFlow(socket=self.rig.socket)
        self.assertTrue(made.add_sock_hdr(run, "Sock-Info"))
        self.assertEqual(changes(run), ([], ["Sock-Info: udp:127.0.0.1:5060"]))
        self.assertFalse(made.add_sock_hdr(run, "Bad name"))
        run.flow = None
        self.assertFalse(made.add_sock_hdr(run, "Sock-Info"))
