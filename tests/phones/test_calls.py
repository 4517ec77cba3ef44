"""Telephones register with passwords, call each other through sipgw with the script that it ships, hear each other, leave."""

from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.db.subscribers import Subscribers
from sipgw.first_start import configuration
from tests.children import HOST, wait_for
from tests.phones.softphones import BARESIP, LINPHONEC, PASSWORD, Baresip, Linphone, share, write_tone
from tests.sipp.harness import Phone, Server

LOW, HIGH = 440, 660
"""What the one and the other says, in Hz."""


class PhoneTestCase(SynchronousTestCase):
    """A server, and telephones."""

    def setUp(self):
        self.directory = Path(self.mktemp()).absolute()
        if BARESIP is None:
            raise SkipTest("baresip is not installed (Debian: baresip-core)")
        self.directory.mkdir(parents=True)
        self.server = self.serve()
        self.addCleanup(self.server.child.kill)
        self.addCleanup(self.end)

    def serve(self):
        """The server."""
        config = self.directory / "opensips.cfg"
        udp = 'loadmodule "proto_udp.so"\n'
        url = f"sqlite://{self.directory}/users.sqlite"
        with closing(open_store(url, create=True)) as store:
            create(store)
            for user in ("1001", "1002", "1003"):
                Subscribers(store).add(user, HOST, PASSWORD)
        config.write_text(configuration(url).replace(udp, f'{udp}loadmodule "proto_tcp.so"\n'))
        return Server(self.directory / "server", str(config), ("udp", "tcp"))

    def end(self):
        """End the server, which has logged no fault."""
        self.assertEqual(self.server.stop(), 0)
        text = self.server.child.text()
        self.assertEqual([line for line in text.splitlines() if " CRITICAL: " in line or " ERROR: " in line], [])

    def phone(self, kind, user, tone, transport="udp"):
        """A telephone that is registered."""
        made = kind(self.directory / user, user, self.server.port, tone, transport)
        self.addCleanup(made.child.kill)
        return made

    def talk(self, caller, callee):
        """One calls, both talk, the callee hangs up."""
        before = [len(each.recordings()) for each in (caller, callee)]
        caller.call(callee)
        for each, count in zip((caller, callee), before, strict=True):
            each.listen(count + 1)
        callee.hang_up()
        wait_for(lambda: caller.alone() and callee.alone(), "both have hung up")
        for each, other in ((caller, callee), (callee, caller)):
            shares = {tone: round(each.heard(tone), 2) for tone in (LOW, HIGH)}
            self.assertGreater(shares[other.tone], 0.7, (each.user, shares))
            self.assertLess(shares[each.tone], 0.1, (each.user, shares))

    def leave(self, phone):
        """A telephone leaves, and is not reachable any more."""
        self.assertEqual(phone.quit(), 0)
        asker = Phone(self.server.port)
        self.addCleanup(asker.close)
        uri = f"sip:{phone.user}@{HOST}"
        self.assertEqual(asker.request("MESSAGE", uri), 407)
        self.assertEqual(asker.request("MESSAGE", uri, "1002", password=PASSWORD), 404)


class BaresipTests(PhoneTestCase):
    """baresip and baresip."""

    def test_udp(self):
        """Both over UDP: a call each way, then they unregister."""
        one, other = self.phone(Baresip, "1001", LOW), self.phone(Baresip, "1002", HIGH)
        self.talk(one, other)
        self.talk(other, one)
        self.leave(one)
        self.leave(other)

    def test_tcp(self):
        """One over UDP, the other over TCP: a call each way."""
        one, other = self.phone(Baresip, "1001", LOW), self.phone(Baresip, "1002", HIGH, "tcp")
        self.talk(one, other)
        self.talk(other, one)
        self.leave(other)


class LinphoneTests(PhoneTestCase):
    """linphonec and baresip."""

    def setUp(self):
        if LINPHONEC is None:
            raise SkipTest("linphonec is not installed (Debian: linphone-cli)")
        super().setUp()

    def test_udp(self):
        """Over UDP, a call each way; then linphonec unregisters."""
        one, other = self.phone(Linphone, "1003", LOW), self.phone(Baresip, "1002", HIGH)
        self.talk(one, other)
        self.talk(other, one)
        self.leave(one)

    def test_tcp(self):
        """Over TCP."""
        one, other = self.phone(Linphone, "1003", LOW, "tcp"), self.phone(Baresip, "1002", HIGH)
        self.talk(one, other)
        self.leave(one)


class ToneTests(SynchronousTestCase):
    """How a tone is recognised."""

    def test_share(self):
        """A tone is itself and nothing else; silence is no tone."""
        file = Path(self.mktemp())
        write_tone(file, LOW)
        self.assertGreater(share(file, LOW), 0.99)
        self.assertLess(share(file, HIGH), 0.01)
        data = file.read_bytes()
        file.write_bytes(data[:44] + bytes(len(data) - 44))
        self.assertEqual(share(file, LOW), 0.0)
