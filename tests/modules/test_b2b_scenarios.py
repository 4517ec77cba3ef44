"""Tests of sipgw.modules._b2b_scenarios: calls by the scenario files in ``examples/scenarios``, and by some of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sipgw.sip.message import Request
from tests.modules.b2b_phones import Dialog, port_of, sdp
from tests.modules.calls import ALICE, BOB, CAROL, DAVE
from tests.modules.test_b2b_logic import SDP, Back
from tests.modules.test_b2b_store import StoredBack
from tests.proxy.rig import request, response

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "scenarios"


def param(file: str, kind: str = "script") -> str:
    """The parameter that reads a file."""
    path = file if "/" in file else str(EXAMPLES / file)
    return f'modparam("b2b_logic", "{kind}_scenario", "{path}")\n'


class Scenario(Back):
    """Alice calls; Bob is whom she calls, Carol's phone is a media server or a third one."""

    def at(self, port: int, invite: Any, tag: str, sdp: str) -> Any:
        """The phone at ``port`` answers an INVITE, with a description; what else it hears."""
        data = response(invite, 200, tag=tag, extra=f"Contact: <sip:{tag}@127.0.0.1:{port}>\r\n")
        self.arrive(self.message(data, sdp), port)

    def own(self, port: int, invite: Any, tag: str, method: str, cseq: int = 900, more: str = "") -> None:
        """The phone at ``port`` sends a request in the dialog of an INVITE that it answered with ``tag``."""
        self.arrive((
            f"{method} {invite.contacts[0].uri_text} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{tag}{method}\r\n"
            f"Max-Forwards: 70\r\nFrom: {invite.header('To')};tag={tag}\r\nTo: {invite.header('From')}\r\n"
            f"Call-ID: {invite.call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:x@127.0.0.1:{port}>\r\n{more}"
            f"Content-Length: 0\r\n\r\n"
        ).encode(), port)
        self.wait(0.01)

    def within(self, method: str, port: int, **options: Any) -> None:
        """Alice or Bob sends a request, and what follows happens."""
        super().within(method, port, **options)
        self.wait(0.01)

    def joined(self, invite: Any, port: int, tag: str) -> None:
        """Who was called answers with an offer, Alice with an answer, all is acknowledged."""
        self.assertEqual((invite.method, invite.body), ("INVITE", b""))
        self.sent(ALICE)
        self.at(port, invite, tag, SDP % tag)
        (again,) = [each for each in self.sent(ALICE) if isinstance(each, Request)]
        self.assertEqual(again.method, "INVITE")
        self.reply(again, 200, ALICE, sdp=SDP % "alice", more=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n")
        self.assertEqual((self.said(port), self.said(ALICE)), (["ACK"], ["ACK"]))

    def state(self) -> Any:
        """The state that the one session is in."""
        logic: Any = self.wired.server.modules["b2b_logic"]
        (session,) = logic.sessions.values()
        return logic.state_of(session)


PREPAID = f'b2b_init_scenario("prepaid", "sip:hello@127.0.0.1:{CAROL}", "sip:bye@127.0.0.1:{CAROL}");'


class Prepaid(Scenario):
    """Calls by ``prepaid.xml``."""

    def greeted(self) -> Any:
        """Alice hears the greeting; its INVITE."""
        self.sent(BOB)
        data = request("INVITE", extra=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n")
        self.arrive(self.message(data, SDP % "alice"))
        (invite,) = self.sent(CAROL)
        self.assertEqual((invite.uri, invite.body.decode()), (f"sip:hello@127.0.0.1:{CAROL}", SDP % "alice"))
        self.at(CAROL, invite, "m1", SDP % "m1")
        self.answered = self.sent(ALICE)[-1]
        self.within("ACK", ALICE, cseq=1)
        self.assertEqual((self.said(CAROL), self.state()), (["ACK"], 1))
        return invite

    def connected(self) -> Any:
        """The greeting is over, Alice and Bob talk; Bob's INVITE."""
        greeting = self.greeted()
        self.own(CAROL, greeting, "m1", "BYE")
        self.assertEqual(self.said(CAROL), ["200 BYE"])
        (invite,) = self.sent(BOB)
        self.assertEqual((invite.uri, invite.from_.uri_text), ("sip:127.0.0.1:7002", "sip:alice@example.org"))
        self.assertEqual(self.state(), 1)
        self.joined(invite, BOB, "b1")
        self.assertEqual(self.state(), 2)
        self.invited = invite
        return invite


class PrepaidTests(Prepaid):
    """A media server, the callee, a media server."""

    def test_all(self) -> None:
        """From the greeting to the farewell."""
        self.serve(PREPAID, param("prepaid.xml"))
        invite = self.connected()
        listed = self.command("b2b_logic:list")[0]
        self.assertEqual((listed["scenario"], [each["id"] for each in listed["entities"]]), ("prepaid", ["caller", "callee"]))
        self.own(BOB, invite, "b1", "BYE")
        self.assertEqual(self.said(BOB), ["200 BYE"])
        (last,) = self.sent(CAROL)
        self.assertEqual(last.uri, f"sip:bye@127.0.0.1:{CAROL}")
        self.joined(last, CAROL, "m2")
        self.assertEqual(self.state(), 3)
        self.own(CAROL, last, "m2", "BYE")
        self.assertEqual(self.said(CAROL), ["200 BYE"])
        (bye,) = self.sent(ALICE)
        self.reply(bye, 200, ALICE)
        self.gone()

    def test_caller_hangs_up(self) -> None:
        """Alice may hang up in each state: no rule is for her BYE, so all ends."""
        for connected in (False, True):
            self.serve(PREPAID, param("prepaid.xml"))
            (self.connected if connected else self.greeted)()
            self.within("BYE", ALICE)
            port = BOB if connected else CAROL
            self.assertEqual((self.said(ALICE), self.said(port)), (["200 BYE"], ["BYE"]))
            self.wait(40)
            self.sent(port)
            self.gone()

    def test_lifetime(self) -> None:
        """The time that a bridge allows ends the call."""
        self.serve(PREPAID, param("prepaid.xml"))
        self.connected()
        self.wait(3590)
        self.assertEqual((self.said(ALICE), self.said(BOB)), ([], []))
        self.wait(12)
        self.assertEqual((self.said(ALICE)[0], self.said(BOB)[0]), ("BYE", "BYE"))
        self.wait(40)
        self.sent(ALICE)
        self.sent(BOB)
        self.gone()

    def test_busy(self) -> None:
        """If Bob is busy Alice hears BYE."""
        self.serve(PREPAID, param("prepaid.xml"))
        self.own(CAROL, self.greeted(), "m1", "BYE")
        (invite,) = self.sent(BOB)
        self.answer(invite, 486)
        (bye,) = [each for each in self.sent(ALICE) if isinstance(each, Request)]
        self.reply(bye, 200, ALICE)
        self.sent(CAROL)
        self.gone()

    def test_old_spelling(self) -> None:
        """As scripts of OpenSIPS 3.1 wrote it, with flags."""
        begin = PREPAID.replace("b2b_init_scenario", "b2b_init_request").replace('"prepaid"', '"prepaid/t20"')
        self.serve(begin, param("prepaid.xml").replace('"b2b_logic"', '"b2b_logic_xml"'))
        self.connected()
        self.assertEqual(self.command("b2b_logic:list")[0]["scenario"], "prepaid")
        self.serve(begin, param("prepaid.xml"))
        self.arrive(request("INVITE", extra=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n"))
        self.sent(CAROL)
        self.wait(21)
        self.assertEqual(self.said(ALICE)[-1], "408")


class TransferTests(Scenario):
    """REFER from either side."""

    BEGIN = 'b2b_init_request("transfer");'

    def test_by_callee(self) -> None:
        """Bob sends Alice on to Carol; then she may be sent on again."""
        self.serve(self.BEGIN, param("transfer.xml"))
        self.talk()
        self.within("REFER", BOB, more=f"Refer-To: <sip:carol@127.0.0.1:{CAROL}?Replaces=x>\r\n")
        answered, bye = self.sent(BOB)
        self.assertEqual((answered.status, bye.method), (202, "BYE"))
        self.reply(bye, 200, BOB)
        (invite,) = self.sent(CAROL)
        self.assertEqual(invite.uri, f"sip:carol@127.0.0.1:{CAROL}")
        self.joined(invite, CAROL, "c1")
        self.own(CAROL, invite, "c1", "REFER", more=f"Refer-To: <sip:bob@127.0.0.1:{BOB}>\r\n")
        self.assertEqual(self.said(CAROL), ["202 REFER", "BYE"])
        (third,) = self.sent(BOB)
        self.joined(third, BOB, "b2")
        self.within("BYE", ALICE)
        self.assertEqual(self.said(BOB), ["BYE"])
        self.wait(40)
        self.sent(CAROL)
        self.gone()

    def test_by_caller(self) -> None:
        """Alice sends Bob on to Carol."""
        self.serve(self.BEGIN, param("transfer.xml"))
        self.talk()
        self.within("REFER", ALICE, more=f"Refer-To: <sip:carol@127.0.0.1:{CAROL}>\r\n")
        self.assertEqual(self.said(ALICE), ["202 REFER", "BYE"])
        (invite,) = self.sent(CAROL)
        self.assertEqual(invite.from_.uri_text, "sip:127.0.0.1:7002")
        self.at(CAROL, invite, "c1", SDP % "c1")
        (again,) = self.sent(BOB)
        self.reply(again, 200, BOB, sdp=SDP % "bob")
        self.assertEqual((self.said(CAROL), self.said(BOB)), (["ACK"], ["ACK"]))
        self.own(CAROL, invite, "c1", "BYE")
        self.assertEqual(self.said(BOB), ["BYE"])
        self.wait(40)
        self.sent(CAROL)
        self.gone()

    def test_nowhere(self) -> None:
        """A REFER without a URI that could be called is passed on as if there were no rule."""
        self.serve(self.BEGIN, param("transfer.xml"))
        self.talk()
        self.within("REFER", BOB, more="Refer-By: nobody\r\n")
        (refer,) = self.sent(ALICE)
        self.assertEqual(refer.method, "REFER")
        self.assertTrue(any("transfer.xml:" in line and "rule 1" in line for line in self.logged()))
        self.reply(refer, 603, ALICE)
        self.assertEqual(self.said(BOB), ["603 REFER"])
        self.hang_up(ALICE)


class FileTests(Scenario):
    """Files of a test's own."""

    TEXT = """<scenario id="own" param="1"><init><bridge>
        <server><id>in</id></server>
        <client><id>out</id><destination><value type="param">1</value></destination>
            <header><name>X-Say</name><value type="param">1</value></header></client>
    </bridge></init>
    <rules><request>
        <INFO><rule id="1"><condition><sender><id>in</id></sender></condition>
            <action><send_reply><code>415</code><reason>Not So</reason></send_reply></action></rule></INFO>
        <MESSAGE><rule id="2"><action><end_dialog_leg/></action></rule></MESSAGE>
        <OPTIONS><rule id="3"><action><state>3</state>
            <bridge><client><this/></client>
                <client><id>third</id><destination><value type="uri">sip:c@127.0.0.1:7003</value></destination></client>
                <provisional_media>sip:m@127.0.0.1:7003</provisional_media></bridge></action></rule></OPTIONS>
    </request></rules></scenario>"""

    def write(self, text: str, name: str = "own.xml") -> str:
        """A file."""
        path = Path(self.mktemp())
        path.mkdir(parents=True)
        (path / name).write_text(text)
        return str((path / name).absolute())

    def test_replies(self) -> None:
        """Rules that answer, for one sender; that end a leg, and with it the call; headers that a new leg gets."""
        self.serve(f'b2b_init_scenario("own", "sip:b@127.0.0.1:{BOB}");', param(self.write(self.TEXT)))
        self.talk()
        self.assertEqual(self.invited.header("X-Say"), f"sip:b@127.0.0.1:{BOB}")
        self.within("INFO", ALICE)
        self.assertEqual((self.said(ALICE), self.said(BOB)), (["415 INFO"], []))
        self.within("INFO", BOB)
        (info,) = self.sent(ALICE)
        self.reply(info, 200, ALICE)
        self.assertEqual(self.said(BOB), ["200 INFO"])
        self.within("MESSAGE", BOB)
        self.assertEqual((self.said(BOB), self.said(ALICE)), (["200 MESSAGE", "BYE"], ["BYE"]))
        self.wait(40)
        self.sent(ALICE)
        self.sent(BOB)
        self.gone()

    def test_media(self) -> None:
        """Who asks is kept and hears the media server, until the third one has answered; the next state counts from then on."""
        text = self.TEXT.replace("sip:m@127.0.0.1:7003", f"sip:m@127.0.0.1:{DAVE}")
        self.serve(f'b2b_init_scenario("own", "sip:b@127.0.0.1:{BOB}");', param(self.write(text)))
        alice, bob, carol, dave = (
            Dialog(self, port, name)  # type: ignore[arg-type]
            for port, name in ((ALICE, "alice"), (BOB, "bob"), (CAROL, "carol"), (DAVE, "dave"))
        )
        alice.call("sip:bob@example.org", sdp("alice", 1000))
        bob.called(bob.one("INVITE"))
        bob.answer(bob.invite, 200, text=sdp("bob", 2000))
        alice.got()
        alice.send("ACK", number=1)
        bob.got()
        alice.send("OPTIONS")
        self.wait(0.01)
        answered, asked = alice.got()
        self.assertEqual((answered.status, asked.method, asked.body), (200, "INVITE", b""))
        alice.answer(asked, 200, text=sdp("alice", 1002, 2))
        dave.called(dave.one("INVITE"))
        self.assertEqual(port_of(dave.invite), 1002)
        dave.answer(dave.invite, 200, text=sdp("dave", 4000))
        self.assertEqual((port_of(alice.one("ACK")), dave.words(), self.state()), (4000, ["ACK"], None))
        carol.called(carol.one("INVITE"))
        carol.answer(carol.invite, 180)
        carol.answer(carol.invite, 200, text=sdp("carol", 3000))
        again = alice.one("INVITE")
        self.assertEqual(port_of(again), 3000)
        alice.answer(again, 200, text=sdp("alice", 1004, 3))
        self.assertEqual((port_of(carol.one("ACK")), alice.words(), self.state()), (1004, ["ACK"], 3))
        for left in (bob, dave):
            left.answer(left.one("BYE"), 200)
        carol.send("BYE")
        alice.answer(alice.one("BYE"), 200)
        self.assertEqual(carol.words(), ["200 BYE"])
        self.gone()

    def test_misuse(self) -> None:
        """Scenarios and parameters that are not there, and files that are none: with their lines."""
        file = self.write(self.TEXT)
        for begin, text in (
            ('b2b_init_scenario("other");', "no script_scenario has the id 'other'"),
            ('b2b_init_scenario("own");', "own takes 1 parameters, not 0"),
            ('b2b_init_scenario("own", "bob");', "'bob' is no URI"),
            ('b2b_init_scenario("own/x", "sip:b@h");', "'x' are no flags"),
        ):
            self.serve(begin, param(file))
            self.arrive(request("INVITE", extra=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n"))
            self.assertTrue(any(text in line for line in self.logged()), text)
        for params, text in (
            (param("/no/such/file.xml"), "/no/such/file.xml: No such file"), (param(file) * 2, "a scenario 'own' already"),
            (param("prepaid.xml", "extern"), "set it as script_scenario"), (param("marketing.xml"), "set it as extern_scenario"),
            (param(self.write(self.TEXT.replace("<INFO>", "<INFOS>").replace("</INFO>", "</INFOS>"), "bad.xml")),
             "bad.xml:7: there are no rules for INFOS"),
        ):
            with self.assertRaisesRegex(AssertionError, text):
                self.serve("", params)


class ExternTests(Scenario):
    """``marketing.xml``: the operator calls Alice, who hears Carol's media server, and then Bob."""

    PARAMS = [f"sip:alice@127.0.0.1:{ALICE}", f"sip:offer@127.0.0.1:{CAROL}", f"sip:agent@127.0.0.1:{BOB}"]

    def test_all(self) -> None:
        """The customer, the announcement, the agent."""
        self.serve("", param("marketing.xml", "extern"))
        self.command("b2b_trigger_scenario", scenario_id="marketing", scenario_params=self.PARAMS)
        (customer,) = self.sent(ALICE)
        self.assertEqual((customer.uri, customer.from_.display), (self.PARAMS[0], '"Our Shop"'))
        self.at(ALICE, customer, "a1", SDP % "alice")
        (offer,) = self.sent(CAROL)
        self.assertEqual((offer.uri, offer.body.decode()), (self.PARAMS[1], SDP % "alice"))
        self.at(CAROL, offer, "m1", SDP % "media")
        (ack,) = self.sent(ALICE)
        self.assertEqual((ack.method, ack.body.decode(), self.said(CAROL), self.state()), ("ACK", SDP % "media", ["ACK"], 1))
        self.own(CAROL, offer, "m1", "BYE")
        self.assertEqual(self.said(CAROL), ["200 BYE"])
        (agent,) = self.sent(BOB)
        self.assertEqual((agent.uri, agent.header("X-Campaign")), (self.PARAMS[2], "autumn"))
        self.at(BOB, agent, "b1", SDP % "bob")
        (again,) = self.sent(ALICE)
        self.assertEqual(again.method, "INVITE")
        self.arrive(self.message(response(again, 200, tag="").replace(b";tag=\r\n", b"\r\n"), SDP % "alice"), ALICE)
        self.assertEqual((self.said(BOB), self.said(ALICE), self.state()), (["ACK"], ["ACK"], 2))
        self.own(ALICE, customer, "a1", "BYE")
        self.assertEqual((self.said(ALICE), self.said(BOB)), (["200 BYE"], ["BYE"]))
        self.wait(40)
        self.sent(BOB)
        self.gone()

    def test_misuse(self) -> None:
        """Scenarios that are not extern, parameters that are too few or no URIs; a customer who does not answer."""
        self.serve("", param("marketing.xml", "extern") + param("transfer.xml"))
        wrong = (("transfer", ["x"]), ("other", ["x"]), ("marketing", self.PARAMS[1:]), ("marketing", ["a", "b", "c"]))
        for name, params in wrong:
            self.assertEqual(self.command("b2b_trigger_scenario", scenario_id=name, scenario_params=params), 400)
        self.command("b2b_trigger_scenario", scenario_id="marketing", scenario_params=self.PARAMS)
        (customer,) = self.sent(ALICE)
        self.answer(customer, 486, ALICE)
        self.sent(ALICE)
        self.gone()


class RestartTests(StoredBack, Prepaid):
    """A scenario goes on after a restart."""

    def test_farewell(self) -> None:
        """The callee hangs up after the restart: the caller hears the farewell, and its parameter is known."""
        self.store(begin=PREPAID, params=param("prepaid.xml"))
        invite = self.connected()
        self.restart()
        self.assertEqual(self.state(), 2)
        self.own(BOB, invite, "b1", "BYE")
        (last,) = self.sent(CAROL)
        self.assertEqual(last.uri, f"sip:bye@127.0.0.1:{CAROL}")
        self.joined(last, CAROL, "m2")
        self.within("BYE", ALICE)
        self.wait(40)
        self.sent(CAROL)
        self.gone()

    def test_gone_file(self) -> None:
        """Without its file the call goes on, and nothing special happens in it."""
        self.store(begin=PREPAID, params=param("prepaid.xml"))
        invite = self.connected()
        self.script = self.script.replace(param("prepaid.xml"), "").replace(PREPAID, "exit;")
        self.restart()
        self.assertTrue(any("'prepaid'" in line and "not there any more" in line for line in self.logged()))
        self.own(BOB, invite, "b1", "BYE")
        self.assertEqual(self.said(ALICE)[-1:], ["BYE"])

