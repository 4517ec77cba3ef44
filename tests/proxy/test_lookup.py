"""Tests of sipgw.proxy.lookup, with the results of OpenSIPS 4.1 for the same registrations."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.branches import MAX_BRANCHES
from sipgw.proxy.location import Binding, LocationTable, binding_key
from sipgw.proxy.lookup import is_at, lookup, place_of, registered
from sipgw.proxy.register import methods_mask
from sipgw.proxy.registrar import Registrar, Settings
from sipgw.proxy.registrar_flags import lookup_flags
from sipgw.script.run import Branch, Run
from sipgw.sip.uri import Uri
from tests.doubles import FakeSocket, FakeUser, request, run_of

PATH = "<sip:p1@9.9.9.9:7;lr>, <sip:p2@8.8.8.8;lr>"


def binding(contact: str, aor: str = "alice@example.org", **fields: Any) -> Binding:
    """One binding that lasts an hour."""
    made = Binding(aor, contact, binding_key(Uri.parse(contact)), 4600.0, "call", 1, 1000.0)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class LookupTests(SynchronousTestCase):
    """lookup()."""

    def setUp(self) -> None:
        """Alice has five contacts, Bob one."""
        self.user = FakeUser(FakeSocket(), FakeSocket(port=5070))
        self.registrar = Registrar(Settings(attr_avp="attr"))
        self.table = LocationTable()
        self.socket = self.user.sockets[1]
        for made in (
            binding("sip:a@1.1.1.1", q=900, user_agent="phone/1", methods=methods_mask("INVITE,OPTIONS")),
            binding("sip:b@1.1.1.1;transport=tcp", q=500, user_agent="phone/1"),
            binding("sip:c@1.1.1.1", user_agent="phone/1"),
            binding("sip:d@1.1.1.1", q=900, user_agent="soft/2", methods=methods_mask("INVITE"), path=PATH, attr="of d"),
            binding(
                "sip:e@1.1.1.1", q=1000, user_agent="Soft/3", received="sip:5.5.5.5:999;transport=tcp", flags=4, attr="of e",
                socket=self.socket,
            ),
            binding("sip:f@2.2.2.2", "bob@example.org", methods=methods_mask("INVITE")),
        ):
            self.table.insert(made)

    def look(
        self, user: str = "alice", flags: str = "", *, uri: str = "", aor: str | None = None, branches: str = "",
        method: str = "OPTIONS", now: float = 1000,
    ) -> tuple[int, Run]:
        """Call it in a run of its own."""
        self.user.seconds = now
        run = run_of(request(method, uri or f"sip:{user}@example.org"), self.user)
        run.branches = [Branch(f"sip:{name}@example.org") for name in branches.split()]
        return lookup(self.registrar, run, self.table, lookup_flags(flags), aor), run

    def users(self, run: Run) -> str:
        """The users of all destinations, the Request-URI first."""
        return " ".join(uri[4:].partition("@")[0] for uri in [run.uri, *(branch.uri for branch in run.branches)])

    def test_all(self) -> None:
        """The highest q becomes the Request-URI with all that belongs to it, the rest are branches in order."""
        code, run = self.look()
        self.assertEqual((code, self.users(run)), (1, "e a d b c"))
        self.assertEqual(
            (run.uri, run.dst_uri, run.q, run.path, run.branch_flags, run.attrs),
            ("sip:e@1.1.1.1", "sip:5.5.5.5:999;transport=tcp", 1000, None, 4, {"attr": "of e"}),
        )
        self.assertIs(run.send_socket, self.socket)
        branch = run.branches[1]
        self.assertEqual(
            (branch.uri, branch.dst_uri, branch.q, branch.path, branch.attrs),
            ("sip:d@1.1.1.1", "sip:p1@9.9.9.9:7;lr", 900, PATH, {"attr": "of d"}),
        )
        self.assertEqual((run.branches[0].dst_uri, run.branches[0].attrs, run.branches[3].q), (None, {"attr": ""}, -1))

    def test_flags(self) -> None:
        """Each flag, and what it leaves; an unsuccessful lookup changes nothing."""
        for user, flags, branches, code, users in [
            ("alice", "no-branches", "", 1, "e"),
            ("alice", "b", "", 1, "e"),
            ("alice", "to-branches-only", "", 1, "alice e a d b c"),
            ("alice", "method-filtering", "", 1, "e a b c"),
            ("bob", "method-filtering", "", -2, "bob"),
            ("alice", "ua-filtering=/^soft/", "", 1, "d"),
            ("alice", "ua-filtering=/^soft/,case-insensitive", "", 1, "e d"),
            ("alice", "ua-filtering=/^(soft|phone)/", "", -1, "alice"),
            ("alice", "ua-filtering=/^(soft|phone)/,extended-regexp", "", 1, "a d b c"),
            ("zed", "", "", -1, "zed"),
            ("zed", "", "foo", -1, "zed foo"),
            ("bob", "", "foo", 1, "f foo"),
            ("alice", "no-branches", "foo", 1, "e foo"),
            ("bob", "branch", "zed", 1, "f"),
            ("zed", "branch", "bob", 1, "f"),
            ("bob", "branch", "alice", 1, "f e a d b c"),
            ("zed", "branch", "foo", -1, "zed foo"),
        ]:
            result, run = self.look(user, flags, branches=branches)
            self.assertEqual((result, self.users(run)), (code, users), (user, flags, branches))

    def test_aor(self) -> None:
        """The address-of-record is the Request-URI's or the one given; what is none is -3."""
        for uri, aor, code in [
            ("sip:alice@EXAMPLE.ORG:5070;x=1", None, 1),
            ("sips:alice@example.org", None, 1),
            ("sip:%61lice@example.org", None, 1),
            ("sip:ALICE@example.org", None, -1),
            ("sip:alice;x=1@example.org", None, -1),
            ("sip:example.org", None, -1),
            ("tel:+1", None, -1),
            ("sip:zed@example.org", "sip:alice@example.org", 1),
            ("sip:alice@example.org", "garbage", -3),
            ("sip:alice@example.org", "foo:bar", -3),
        ]:
            self.assertEqual(self.look(uri=uri, aor=aor)[0], code, (uri, aor))

    def test_expired(self) -> None:
        """What has expired is not found."""
        self.assertEqual(self.look(now=4599)[0], 1)
        self.assertEqual(self.look(now=4600)[0], -1)

    def test_what_stays(self) -> None:
        """Flags that are set stay, and a next hop where the contact has none; an old Path does not."""
        run = run_of(request(uri="sip:bob@example.org"), self.user)
        run.branch_flags, run.dst_uri, run.path = 1, "sip:9.9.9.9", PATH
        self.assertEqual(lookup(self.registrar, run, self.table, lookup_flags("")), 1)
        self.assertEqual((run.branch_flags, run.dst_uri, run.path, run.send_socket), (1, "sip:9.9.9.9", None, None))
        run.uri = "sip:alice@example.org"
        lookup(self.registrar, run, self.table, lookup_flags(""))
        self.assertEqual(run.branch_flags, 5)

    def test_path(self) -> None:
        """The first Path URI is the next hop of the Request-URI too."""
        _, run = self.look(flags="ua-filtering=/soft/")
        self.assertEqual((run.uri, run.dst_uri, run.path), ("sip:d@1.1.1.1", "sip:p1@9.9.9.9:7;lr", PATH))

    def test_no_attributes(self) -> None:
        """Without ``attr_avp`` branches get no attributes."""
        self.registrar = Registrar()
        _, run = self.look()
        self.assertEqual((run.attrs, run.branches[0].attrs), (None, None))

    def test_many(self) -> None:
        """No more branches than a request may have, and a line in the log."""
        for index in range(30):
            self.table.insert(binding(f"sip:{index}@h", "many@example.org"))
        code, run = self.look("many")
        self.assertEqual((code, len(run.branches)), (1, MAX_BRANCHES - 1))
        self.assertIn("many", self.user.logged[0][1])


class PlaceTests(SynchronousTestCase):
    """Where contacts are."""

    def test_place(self) -> None:
        """The Path counts first, then the source of the REGISTER, then the contact."""
        for made, with_path, place in [
            (binding("sip:a@1.1.1.1:5061"), True, ("1.1.1.1", 5061)),
            (binding("sip:a@[2001:db8::1]"), True, ("2001:db8::1", 0)),
            (binding("sip:a@1.1.1.1", received="sip:5.5.5.5:9;transport=tcp"), True, ("5.5.5.5", 9)),
            (binding("sip:a@1.1.1.1", received="sip:5.5.5.5:9", path=PATH), True, ("9.9.9.9", 7)),
            (binding("sip:a@1.1.1.1", received="sip:5.5.5.5:9", path=PATH), False, ("5.5.5.5", 9)),
        ]:
            self.assertEqual(place_of(made, with_path), place)

    def test_is_at(self) -> None:
        """Hosts are compared as addresses, ports where one is given."""
        made = binding("sip:a@[2001:db8::1]:5070")
        for host, port, expected in [
            ("2001:DB8:0::1", None, True), ("[2001:db8::1]", 5070, True), ("2001:db8::1", 5060, False),
            ("2001:db8::2", None, False),
        ]:
            self.assertEqual(is_at(made, host, port), expected, (host, port))

    def test_registered(self) -> None:
        """Contacts are compared as texts, and with the Call-ID where one is given."""
        one, other = binding("sip:a@h"), binding("sip:b@h", call_id="other")
        for contacts, call_id, expected in [
            ((), None, [one, other]),
            (("sip:a@h",), None, [one]),
            (("SIP:a@h",), None, []),
            (("sip:a@h", "sip:b@h"), "other", [other]),
            ((), "call", [one]),
            (("sip:a@h",), "other", []),
        ]:
            self.assertEqual(list(registered([one, other], contacts, call_id)), expected, (contacts, call_id))
