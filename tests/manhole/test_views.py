"""Tests of the lists of live objects in the shell."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.manhole.views import views
from tests.modules.scripted import Scripted, request

BODY = """
    if (is_method("REGISTER")) {
        save("location");
        exit;
    }
    create_dialog();
    $du = "sip:192.0.2.9";
    t_relay();
"""


class ViewTests(SynchronousTestCase):
    """A server with a call, a registration and their transactions."""

    def test_views(self) -> None:
        """Each list has its elements, prints as a table, and gives the live objects."""
        scripted = Scripted(BODY, "signaling", "sipmsgops", "usrloc", "registrar", "rr", "dialog")
        shown = views(scripted.server)
        self.assertEqual([repr(shown[name]) for name in ("calls", "registrations")], ["(no calls)", "(no registrations)"])
        contact = "Contact: <sip:bob@192.0.2.1:5070>\r\nExpires: 60\r\n"
        scripted.send(request("REGISTER", "sip:127.0.0.1", more=contact, call_id="reg", branch="r"))
        scripted.send(request("INVITE", more="Contact: <sip:alice@192.0.2.1>\r\n"))
        self.assertEqual([len(shown[name]) for name in ("calls", "registrations", "transactions")], [1, 1, 1])
        self.assertRegex(repr(shown["calls"]), r"(?m)^0  call1 +\S*alice\S+ +\S*bob\S+ +unconfirmed +0$")
        self.assertRegex(repr(shown["registrations"]), r"(?m)^0  bob@example.org +sip:bob@192.0.2.1:5070 +60$")
        self.assertRegex(repr(shown["transactions"]), r"(?m)^0  INVITE +sip:bob@127.0.0.1 +192.0.2.1:5060 +100 +0.0 +call1$")
        self.assertRegex(repr(shown["routes"]), r"(?m)^0  route  opensips.cfg:\d+ +yes$")
        self.assertEqual(shown["calls"][0].caller.tag, "a1")
        self.assertEqual(repr(shown["calls"].where(lambda call: call.caller.tag == "x")), "(no calls)")
