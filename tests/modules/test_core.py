"""Tests of sipgw.modules.core, with the results that OpenSIPS gives for the same calls."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.core import Core
from sipgw.script.run import Branch, Run
from tests.doubles import FakeVariable, request, response, run_of

URI = "sip:bob:pw@example.org:5070;transport=udp;x=1"
core = Core()


def run_for(uri: str = URI) -> Run:
    """A run of a request for ``uri``."""
    return run_of(request(uri=uri))


class FlagTests(SynchronousTestCase):
    """Flags of messages and of branches."""

    def test_message(self) -> None:
        """A flag is set, seen and cleared."""
        run = run_for()
        mask = run.user.message_flags.mask("NAT")
        core.setflag(run, mask)
        self.assertTrue(core.isflagset(run, mask))
        self.assertFalse(core.isflagset(run, mask << 1))
        core.resetflag(run, mask)
        self.assertEqual(run.flags, 0)

    def test_branch(self) -> None:
        """Index 0 is the Request-URI, 1 the first branch; others do not exist."""
        run = run_for()
        run.branches = [Branch("sip:b@x")]
        self.assertTrue(core.setbflag(run, "NAT"))
        self.assertTrue(core.setbflag(run, "SDP", 1))
        self.assertEqual(
            [core.isbflagset(run, name, index) for name in ("NAT", "SDP", "NEW") for index in (None, 0, 1, 2, -1)],
            [True, True, False, False, False, False, False, True, False, False] + [False] * 5,
        )
        self.assertTrue(core.resetbflag(run, "SDP", 1))
        self.assertEqual((run.branches[0].flags, run.branch_flags), (0, 1))
        for index in (2, -1):
            self.assertFalse(core.setbflag(run, "NAT", index))
            self.assertFalse(core.resetbflag(run, "NAT", index))


class UriTests(SynchronousTestCase):
    """Rewriting the Request-URI."""

    def test_rewrites(self) -> None:
        """Each function changes its part only; what would give no URI fails and changes nothing."""
        no_user = "sip:example.org:99;x=y"
        tel = "tel:+123;phone-context=a"
        for function, value, before, after in [
            ("sethost", "h.x", URI, "sip:bob:pw@h.x:5070;transport=udp;x=1"),
            ("sethost", "[::1]", URI, "sip:bob:pw@[::1]:5070;transport=udp;x=1"),
            ("sethost", "h.x", "sips:bob@example.org:5061;maddr=192.0.2.4", "sips:bob@h.x:5061"),
            ("sethost", "h.x:99", URI, None),
            ("sethost", "", URI, None),
            ("sethost", "a b", URI, None),
            ("sethost", "h.x", tel, None),
            ("sethostport", "h.x:99", URI, "sip:bob:pw@h.x:99;transport=udp;x=1"),
            ("sethostport", "h.x", URI, "sip:bob:pw@h.x;transport=udp;x=1"),
            ("sethostport", "[::1]:99", URI, "sip:bob:pw@[::1]:99;transport=udp;x=1"),
            ("sethostport", "h.x:1", "sip:bob@example.org;maddr=192.0.2.4", "sip:bob@h.x:1"),
            ("sethostport", "h.x:1x", URI, None),
            ("setport", "99", URI, "sip:bob:pw@example.org:99;transport=udp;x=1"),
            ("setport", "", URI, "sip:bob:pw@example.org;transport=udp;x=1"),
            ("setport", "abc", URI, None),
            ("setport", "65536", URI, None),
            ("setuser", "u2", URI, "sip:u2:pw@example.org:5070;transport=udp;x=1"),
            ("setuser", "u2", no_user, "sip:u2@example.org:99;x=y"),
            ("setuser", "", "sip:bob@example.org", "sip:example.org"),
            ("setuser", "u2:p2", URI, None),
            ("setuser", "4", tel, "tel:4;phone-context=a"),
            ("setuser", "a\r\nX: y", URI, None),
            ("setuserpass", "pp", URI, "sip:pp@example.org:5070;transport=udp;x=1"),
            ("setuserpass", "u:p", no_user, "sip:u:p@example.org:99;x=y"),
            ("seturi", "sip:z@q", URI, "sip:z@q"),
            ("seturi", "tel:123", URI, "tel:123"),
            ("seturi", "zzz", URI, None),
            ("seturi", "sip:z@q\r\nX: y", URI, None),
            ("prefix", "00", URI, "sip:00bob:pw@example.org:5070;transport=udp;x=1"),
            ("prefix", "00", "sip:example.org", "sip:00@example.org"),
            ("prefix", "4", tel, "tel:4+123;phone-context=a"),
            ("strip", 1, URI, "sip:ob:pw@example.org:5070;transport=udp;x=1"),
            ("strip", 0, URI, URI),
            ("strip", -1, URI, URI),
            ("strip", 9, "sip:bob@example.org", "sip:example.org"),
            ("strip", 1, "sip:example.org", "sip:example.org"),
            ("strip_tail", 1, URI, "sip:bo:pw@example.org:5070;transport=udp;x=1"),
            ("strip_tail", 0, URI, URI),
            ("strip_tail", 3, "sip:bob@example.org", "sip:example.org"),
        ]:
            run = run_for(before)
            call: Any = getattr(core, function)
            self.assertIs(call(run, value), after is not None, (function, value))
            self.assertEqual(run.uri, after or before, (function, value))
            self.assertEqual(len(run.user.logged), after is None, (function, value))

    def test_revert(self) -> None:
        """revert_uri undoes everything."""
        run = run_for()
        core.prefix(run, "1")
        core.sethost(run, "x")
        core.revert_uri(run)
        self.assertEqual(run.uri, URI)

    def test_reply_has_none(self) -> None:
        """A reply has no Request-URI to rewrite."""
        run = run_of(response())
        self.assertFalse(core.setuser(run, "u"))
        self.assertTrue(core.revert_uri(run))
        self.assertEqual(run.uri, "")


class NextHopTests(SynchronousTestCase):
    """Where the request goes, and from where."""

    def test_dst_uri(self) -> None:
        """$du is set, seen and reset; what is no URI is refused."""
        run = run_for()
        self.assertFalse(core.isdsturiset(run))
        self.assertFalse(core.setdsturi(run, "junk"))
        self.assertTrue(core.setdsturi(run, "sip:192.0.2.4:99"))
        self.assertEqual((run.dst_uri, core.isdsturiset(run)), ("sip:192.0.2.4:99", True))
        core.resetdsturi(run)
        self.assertIsNone(run.dst_uri)

    def test_socket(self) -> None:
        """Only a socket of ours can be forced."""
        run = run_for()
        self.assertFalse(core.force_send_socket(run, "udp:127.0.0.1:1"))
        self.assertTrue(core.force_send_socket(run, "udp:127.0.0.1:5060"))
        self.assertIs(run.send_socket, run.user.sockets[0])

    def test_advertised(self) -> None:
        """What can stand in a Via is taken."""
        run = run_for()
        for address in ("192.0.2.9", "gw.example.org", "[2001:db8::1]"):
            self.assertTrue(core.set_advertised_address(run, address))
            self.assertEqual(run.advertised_host, address)
        self.assertTrue(core.set_advertised_port(run, "99"))
        for address in ("", "a b", "a\r\nX: y", "a;b"):
            self.assertFalse(core.set_advertised_address(run, address), address)
        for port in ("", "abc", "99999"):
            self.assertFalse(core.set_advertised_port(run, port))
        self.assertEqual((run.advertised_host, run.advertised_port), ("[2001:db8::1]", 99))

    def test_rport(self) -> None:
        """force_rport writes where the request came from into its Via."""
        run = run_for()
        core.force_rport(run)
        self.assertTrue(run.force_rport)
        self.assertIn(";rport=5062;received=192.0.2.1", run.message.lines[1])
        core.add_local_rport(run)
        self.assertTrue(run.keep()["local_rport"])
        self.assertTrue(core.force_rport(run_of(response())))

    def test_is_myself(self) -> None:
        """Host and port of our sockets are ours."""
        run = run_for()
        self.assertEqual(
            [core.is_myself(run, host, port) for host, port in
             [("127.0.0.1", None), ("127.0.0.1", 0), ("127.0.0.1", 5060), ("127.0.0.1", 5), ("example.org", None)]],
            [True, True, True, False, False],
        )


class BranchTests(SynchronousTestCase):
    """Branches; the machinery is tested in tests/proxy/test_branches.py."""

    def prepared(self) -> Run:
        """A run with something in every attribute of its Request-URI."""
        run = run_for("sip:a@x")
        run.dst_uri, run.q, run.branch_flags, run.send_socket = "sip:d", 300, 1, run.user.sockets[0]
        return run

    def seen(self, branch: Branch) -> tuple[Any, ...]:
        """What a branch has."""
        return (branch.uri, branch.dst_uri, branch.q, branch.flags, branch.socket is not None)

    def test_append_old(self) -> None:
        """Without URI the Request-URI's own goes into the branch; with one, all but q is inherited."""
        run = self.prepared()
        self.assertTrue(core.append_branch_old(run))
        self.assertEqual(self.seen(run.branches[0]), ("sip:a@x", "sip:d", 300, 1, True))
        self.assertEqual((run.uri, run.dst_uri, run.q, run.branch_flags, run.send_socket), ("sip:a@x", None, -1, 0, None))
        run = self.prepared()
        self.assertTrue(core.append_branch_old(run, "sip:b@x", "0.4"))
        self.assertTrue(core.append_branch_old(run, "sip:c@x"))
        self.assertFalse(core.append_branch_old(run, "", None))
        self.assertEqual([self.seen(branch) for branch in run.branches],
                         [("sip:b@x", "sip:d", 400, 1, True), ("sip:c@x", "sip:d", -1, 1, True)])
        self.assertEqual((run.dst_uri, run.q), ("sip:d", 300))

    def test_append_msg(self) -> None:
        """A bare branch, or one that inherits."""
        run = self.prepared()
        self.assertTrue(core.append_msg_branch(run, "sip:b@x"))
        self.assertTrue(core.append_msg_branch(run, "sip:c@x", None, "inherite"))
        self.assertTrue(core.append_msg_branch(run, "sip:d@x", "0.9", "inherite"))
        self.assertFalse(core.append_msg_branch(run, "sip:e@x", "1.5"))
        self.assertEqual([self.seen(branch) for branch in run.branches], [
            ("sip:b@x", None, -1, 0, False), ("sip:c@x", "sip:d", 300, 1, True), ("sip:d@x", "sip:d", 900, 1, True)])

    def test_remove(self) -> None:
        """Branches are counted from 0 beside the Request-URI."""
        run = run_for()
        run.branches = [Branch("sip:b@x"), Branch("sip:c@x")]
        self.assertFalse(core.remove_msg_branch(run, 2))
        self.assertFalse(core.remove_msg_branch(run, -1))
        self.assertTrue(core.remove_msg_branch(run, 0))
        self.assertEqual([branch.uri for branch in run.branches], ["sip:c@x"])

    def test_move_and_swap(self) -> None:
        """No index means the Request-URI."""
        run = run_for("sip:a@x")
        run.branches = [Branch("sip:b@x"), Branch("sip:c@x")]
        core.swap_msg_branches(run, 1)
        self.assertEqual((run.uri, run.branches[1].uri), ("sip:c@x", "sip:a@x"))
        core.move_msg_branch(run, 0, None, "keep")
        self.assertEqual((run.uri, len(run.branches)), ("sip:b@x", 2))
        core.move_msg_branch(run, 0)
        self.assertEqual((run.uri, len(run.branches)), ("sip:b@x", 1))

    def test_serial(self) -> None:
        """serialize_branches puts aside what next_branches takes back."""
        run = run_for("sip:a@x")
        run.branches = [Branch("sip:b@x", q=500)]
        self.assertTrue(core.serialize_branches(run, 1))
        self.assertEqual([core.next_branches(run), run.uri], [1, "sip:b@x"])
        self.assertEqual([core.next_branches(run), run.uri, core.next_branches(run)], [2, "sip:a@x", -1])

    def test_constants_checked(self) -> None:
        """Flags and q values that are written in the script are checked when it is read."""
        checks = {
            (function.name, parameter.name): parameter.check
            for function in Core.declared().functions for parameter in function.parameters if parameter.check is not None
        }
        for key, good, bad in [
            (("append_msg_branch", "qvalue"), "0.5", "1.5"),
            (("append_branch_old", "qvalue"), "1", "x"),
            (("append_msg_branch", "flags"), "inherite", "inherit"),
            (("move_msg_branch", "keep"), "keep", "kept"),
        ]:
            checks[key](good)
            self.assertRaises(ValueError, checks[key], bad)


class ValueTests(SynchronousTestCase):
    """Functions that fill variables."""

    def test_construct_uri(self) -> None:
        """Empty parts are left out; without protocol or domain, or with a part that breaks the URI, it fails."""
        for parts, uri in [
            (("sip", "vlad", "dom", "5060", "a=b"), "sip:vlad@dom:5060;a=b"),
            (("sip", None, "dom", None, None), "sip:dom"),
            (("sips", "v", "dom", "", ""), "sips:v@dom"),
            (("", "u", "dom", "5060", "a"), None),
            (("sip", "u", "", "5060", "a"), None),
            (("sip", "u>", "dom", "", ""), None),
        ]:
            result = FakeVariable()
            self.assertIs(core.construct_uri(run_for(), *parts, result), uri is not None, parts)
            self.assertEqual(result.get(None), uri)

    def test_others(self) -> None:
        """pv_printf, get_timestamp and avp_print."""
        run = run_for()
        one, other = FakeVariable(), FakeVariable()
        self.assertTrue(core.pv_printf(run, one, "x"))
        self.assertFalse(core.pv_printf(run, one, "refused"))
        self.assertEqual(one.values, ["x"])
        run.user.seconds = 1234.000567
        core.get_timestamp(run, one, other)
        self.assertEqual((one.get(run), other.get(run)), (1234, 567))
        run.avps = {"a": ["x", 5]}
        core.avp_print(run)
        self.assertEqual(run.user.logged, [(3, "avp a = 5"), (3, "avp a = 'x'")])
