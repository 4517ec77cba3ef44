"""Tests of redirecting: what a redirect server answers through tm, and how a failure route follows it (uac_redirect)."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.uac_redirect import UacRedirect
from sipgw.proxy import redirect
from sipgw.script.run import Branch, Run
from sipgw.script.values import EXIT
from sipgw.testing import Phone
from tests.modules.scripted import Scripted
from tests.modules.scripted import request as message
from tests.proxy.rig import Rig, request, response

ALICE = 7001
BOB = "sip:bob@192.0.2.2"
THREE = "<sip:c3@192.0.2.3>;q=0.5, <sip:c4@192.0.2.4>;q=0.9, <sip:c5@192.0.2.5>;expires=3"


class RedirectServerTests(SynchronousTestCase):
    """A 3xx through a transaction."""

    def test_t_reply(self) -> None:
        """``t_reply`` names the destinations in the Contact of a 3xx, and of no other reply."""
        rig = Rig()

        async def route(run: Run) -> Any:
            run.uri = "sip:carol@127.0.0.1"
            run.branches = [Branch("sip:dave@127.0.0.1", q=500)]
            rig.tm.t_reply(run, 180, "Ringing")
            rig.tm.t_reply(run, 302, "Moved")
            return EXIT

        rig.routes(route)
        rig.arrive(request("INVITE"), ALICE)
        self.assertEqual(
            [(answer.status, answer.header("Contact")) for answer in rig.sent(ALICE)],
            [(100, None), (180, None), (302, "<sip:carol@127.0.0.1>, <sip:dave@127.0.0.1>;q=0.5")],
        )


class FollowTests(SynchronousTestCase):
    """get_redirects and its filters, in a script; the phone at 192.0.2.2 answers 302 with some contacts."""

    def follow(self, failure: str, contacts: str = THREE, parameters: str = "") -> list[str]:
        """What the failure route logs."""
        self.script = Scripted(
            't_on_failure("moved"); t_relay();',
            "uac_redirect",
            rest=f"{parameters}\nfailure_route[moved] {{ {failure} }}",
        )
        self.bob = Phone(self.script.wired.wire, "192.0.2.2")
        self.script.send(message("INVITE", BOB))
        return self.answer(self.bob, contacts)

    def answer(self, phone: Phone, contacts: str) -> list[str]:
        """Let a phone answer 302, and give what is logged."""
        invite: Any = phone.take()
        phone.send(response(invite, 302, extra=f"Contact: {contacts}\r\n" if contacts else ""), self.script.wired.address)
        return self.script.logged()

    def targets(self, before: str = "", contacts: str = THREE, call: str = "get_redirects()", **parameters: str) -> str:
        """The destinations after ``call``, by the users of their URIs."""
        set_ = "".join(f'modparam("uac_redirect", "{name}", "{value}")\n' for name, value in parameters.items())
        (line,) = self.follow(f'{before} if ({call}) xlog("L_ALERT", "$ds"); else xlog("L_ALERT", "none");', contacts, set_)
        return line.replace("Contact: ", "").replace("@192.0.2.", " ").replace("<sip:", "").replace(">", "")

    def test_relayed(self) -> None:
        """The new destinations are tried, the old one is not."""
        self.script = Scripted(
            't_on_failure("moved"); t_relay();', "uac_redirect", rest="failure_route[moved] { get_redirects(); t_relay(); }"
        )
        phones = [Phone(self.script.wired.wire, f"192.0.2.{number}") for number in (2, 3, 4, 5)]
        self.script.send(message("INVITE", BOB))
        self.answer(phones[0], THREE)
        got = [[m.lines[0] for m in phone.inbox] for phone in phones]
        self.assertEqual(
            got, [[f"ACK {BOB} SIP/2.0"], *([f"INVITE sip:c{n}@192.0.2.{n} SIP/2.0"] for n in (3, 4, 5))]
        )
        self.assertEqual([m.lines[0] for m in self.script.phone.inbox], ["SIP/2.0 100 Giving it a try"])

    def test_order(self) -> None:
        """The best come first, those without q last; limits take the best, in all or of each response."""
        self.assertEqual(self.targets(), "c4 4;q=0.9, c3 3;q=0.5, c5 5;q=0.01")
        self.assertEqual(self.targets(call="get_redirects(2)"), "c4 4;q=0.9, c3 3;q=0.5")
        self.assertEqual(self.targets(call="get_redirects(, 1)"), "c4 4;q=0.9")
        self.assertEqual(self.targets(call="get_redirects(0, -1)"), "c4 4;q=0.9, c3 3;q=0.5, c5 5;q=0.01")

    def test_several_responses(self) -> None:
        """The limit for each response counts for each."""
        self.script = Scripted(
            't_on_failure("moved"); append_msg_branch("sip:bob@192.0.2.3"); t_relay();',
            "uac_redirect",
            rest='failure_route[moved] { get_redirects(, 1); xlog("L_ALERT", "$ds"); }',
        )
        one, other = Phone(self.script.wired.wire, "192.0.2.2"), Phone(self.script.wired.wire, "192.0.2.3")
        self.script.send(message("INVITE", BOB))
        self.answer(one, "<sip:a@192.0.2.4>, <sip:b@192.0.2.4>")
        (line,) = self.answer(other, "<sip:c@192.0.2.4>, <sip:d@192.0.2.4>")
        self.assertEqual(line, "Contact: <sip:a@192.0.2.4>;q=0.01, <sip:c@192.0.2.4>;q=0.01")

    def test_unusable(self) -> None:
        """What is no SIP URI, what was tried already and what stands there twice is not followed."""
        for contacts, expected in (
            ("", "none"),
            ("*", "none"),
            (f"<{BOB}>", "none"),
            ("<tel:+123>, <sip:a@192.0.2.3>, <mailto:x@y>", "a 3;q=0.01"),
            ("<sip:a@192.0.2.3>, <sip:a@192.0.2.3>;q=1, <sip:b@192.0.2.3>", "a 3;q=1, b 3;q=0.01"),
        ):
            self.assertEqual(self.targets(contacts=contacts), expected, contacts)
        found = self.follow('if (!get_redirects()) xlog("L_ALERT", "none");', "<sip:a@[::1>")
        self.assertEqual(found, ["none"])

    def test_twice(self) -> None:
        """A second call finds nothing new."""
        found = self.follow('get_redirects(2); get_redirects(); if (!get_redirects()) xlog("L_ALERT", "$ds");')
        self.assertEqual(found, ["Contact: <sip:c4@192.0.2.4>;q=0.9, <sip:c3@192.0.2.3>;q=0.5, <sip:c5@192.0.2.5>;q=0.01"])

    def test_filters(self) -> None:
        """An accept filter that matches wins, then a deny filter, then the default."""
        deny, accept = 'set_deny_filter("{}", "{}");', 'set_accept_filter("{}", "{}");'
        for before, parameters, expected in (
            (deny.format("C4", ""), {}, "c3 3;q=0.5, c5 5;q=0.01"),
            (deny.format("^sip:c[34]", ""), {}, "c5 5;q=0.01"),
            (accept.format("c4", ""), {}, "c4 4;q=0.9, c3 3;q=0.5, c5 5;q=0.01"),
            (deny.format("c", "reset_all") + accept.format("c4", ""), {}, "c4 4;q=0.9"),
            (deny.format("c4", "") + accept.format("c", ""), {"default_filter": "deny"}, "c4 4;q=0.9, c3 3;q=0.5, c5 5;q=0.01"),
            ("", {"default_filter": "deny"}, "none"),
            ("", {"default_filter": "deny", "accept_filter": "c3", "deny_filter": "c5"}, "c3 3;q=0.5"),
            ("", {"deny_filter": "c5"}, "c4 4;q=0.9, c3 3;q=0.5"),
            (deny.format("c4", ""), {"deny_filter": "c5"}, "c3 3;q=0.5"),
            (deny.format("c4", "reset_default"), {"deny_filter": "c5"}, "c3 3;q=0.5, c5 5;q=0.01"),
            (deny.format("c4", "") + deny.format("c3", "reset_added"), {"deny_filter": "c5"}, "c4 4;q=0.9"),
            (deny.format("c4", "") + deny.format("c3", "reset_all"), {"deny_filter": "c5"}, "c4 4;q=0.9, c5 5;q=0.01"),
        ):
            self.assertEqual(self.targets(before, **parameters), expected, (before, parameters))

    def test_too_many_filters(self) -> None:
        """There are no more than six of a kind."""
        deny = "".join(f'set_deny_filter("x{number}", "");' for number in range(5))
        self.assertEqual(
            self.follow(f'{deny} if (!set_deny_filter("c", "")) xlog("L_ALERT", "$rc"); set_accept_filter("c", "");'),
            ["set_deny_filter: there are 6 already", "-1"],
        )
        self.assertEqual(
            self.follow('$var(f) = "reset"; if (!set_deny_filter("c", $var(f))) xlog("L_ALERT", "$rc");'),
            ["set_deny_filter: unknown flag 'reset'", "-1"],
        )

    def test_endless(self) -> None:
        """A chain of redirections ends."""
        self.patch(redirect, "MAX_REDIRECTIONS", 2)
        self.script = Scripted(
            't_on_failure("moved"); t_relay();',
            "uac_redirect",
            rest="""failure_route[moved] {
                t_on_failure("moved");
                if (get_redirects()) t_relay(); else xlog("L_ALERT", "enough");
            }""",
        )
        bob = Phone(self.script.wired.wire, "192.0.2.2")
        self.script.send(message("INVITE", BOB))
        said = []
        for number in range(3):
            said += self.answer(bob, f"<sip:bob{number}@192.0.2.2>")
            bob.take()
        self.assertEqual(said, ["a request was redirected 2 times, and is not any more", "enough"])
        last: Any = self.script.phone.inbox[-1]
        self.assertEqual((last.status, last.header("Contact")), (302, "<sip:bob2@192.0.2.2>"))

    def test_parameters(self) -> None:
        """Wrong parameters are refused when the configuration is read."""
        for name, value in (("deny_filter", "["), ("accept_filter", "("), ("default_filter", "maybe")):
            self.assertRaises(ValueError, UacRedirect, None, **{name: value})
        with self.assertRaises(AssertionError):
            self.follow('set_deny_filter("x", "reset");')
