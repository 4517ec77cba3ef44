"""Real telephones that call each other back to back: they hear each other, hold, and one is sent on to a third.

baresip 1.0 dumps what it hears only until the first re-INVITE: who is on hold, and then hears another, is linphonec. What
that records is written when its stream changes."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.children import wait_for
from tests.phones.softphones import LINPHONEC, RATE, Baresip, Linphone, Softphone, share, write_tone
from tests.phones.test_calls import HIGH, LOW, PhoneTestCase
from tests.sipp.harness import Server

CONFIG = Path(__file__).parent.parent / "configs" / "b2b-phones.cfg"
THIRD = 880
"""What the third one says, in Hz."""
SECOND = 2 * RATE
"""Octets of a second of what is recorded."""


class B2bTests(PhoneTestCase):
    """Telephones that are called back to back."""

    def serve(self) -> Server:
        """The server."""
        return Server(self.directory / "server", str(CONFIG))

    def hears(self, phone: Softphone, tone: int) -> None:
        """Wait until it has heard that tone for a second from now on."""

        def size() -> int:
            files = phone.recordings()
            return files[-1].stat().st_size if files else 0

        before = size()
        wait_for(lambda: size() > before + 1.2 * SECOND and phone.heard(tone) > 0.7, f"{phone.user} hears {tone} Hz", phone.child)

    def test_two(self) -> None:
        """Two baresip: a call each way, the callee hangs up."""
        one, other = self.phone(Baresip, "1001", LOW), self.phone(Baresip, "1002", HIGH)
        for caller, callee in ((one, other), (other, one)):
            caller.call(callee)
            self.hears(caller, callee.tone)
            self.hears(callee, caller.tone)
            callee.hang_up()
            wait_for(lambda: one.alone() and other.alone(), "both have hung up")

    def test_three(self) -> None:
        """A call, held and let go on by the callee, who then sends the caller on to a third."""
        if LINPHONEC is None:
            raise SkipTest("linphonec is not installed (Debian: linphone-cli)")
        one, other = self.phone(Linphone, "1001", LOW), self.phone(Baresip, "1002", HIGH)
        third = self.phone(Baresip, "1003", THIRD)
        for phone in (other, third):
            write_tone(phone.directory / "tone.wav", phone.tone, 60)
        one.call(other)
        self.hears(other, LOW)
        other.ask("hold")
        wait_for(lambda: one.count("has been paused by"), "the caller is on hold", one.child)
        heard = one.recordings()[0]
        wait_for(lambda: share(heard, HIGH) > 0.7, "the caller has heard the callee", one.child)
        before = one.count("Media streams established")
        other.ask("resume")
        wait_for(lambda: one.count("Media streams established") > before, "the call goes on", one.child)
        other.ask("transfer", third.address)
        self.hears(third, LOW)
        wait_for(other.alone, "who sent him on is alone", other.child)
        one.hang_up()
        wait_for(lambda: third.alone() and one.alone(), "all have hung up")
        wait_for(lambda: share(heard, THIRD) > 0.7, "the caller has heard the third one", one.child)
