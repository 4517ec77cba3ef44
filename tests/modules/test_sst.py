"""Tests of sipgw.modules.sst: session timers that a proxy asks for, writes in and keeps (RFC 4028)."""

from __future__ import annotations

from typing import Any

from sipgw.modules.sst import Sst
from sipgw.testing import finished
from tests.modules.calls import ALICE, BOB
from tests.modules.dialing import Dialing, contact
from tests.modules.test_dialog_db import StoredDialing
from tests.proxy.rig import request

MODULES = 'loadmodule "signaling.so"\n'
TIMER = "Supported: 100rel, timer\r\n"


def params(**given: Any) -> str:
    """The module, with these parameters."""
    lines = "".join(f'modparam("sst", "{name}", {value})\n' for name, value in given.items())
    return f'loadmodule "sst.so"\nmodparam("sst", "sst_flag", "SST")\n{lines}'


def said(message: Any) -> dict[str, str]:
    """What ``message`` says of session timers."""
    names = ("Session-Expires", "Min-SE", "Require")
    return {name: ", ".join(message.headers(name)) for name in names if message.headers(name)}


def expired(test: Dialing) -> int:
    """What ``sst:expired_sst`` says."""
    module: Any = test.wired.server.modules["sst"]
    return int(module.expired_sst.value)


class Timed(Dialing):
    """Alice calls Bob, and the proxy wants session timers."""

    def begin(self, first: str = 'setflag("SST"); create_dialog();', within: str = "", **given: Any) -> None:
        """Start the server."""
        self.serve(modules=MODULES, params=params(**given), first=first, within=within)

    def refused(self, more: str) -> dict[str, str]:
        """Alice calls and is refused at once; why."""
        self.sent(ALICE)
        self.arrive(self.call(more))
        *_, answer = self.sent(ALICE)
        self.assertEqual((answer.status, answer.reason), (422, "Session Timer Too Small"))
        self.assertEqual(self.sent(BOB), [])
        return said(answer)

    def call(self, more: str) -> bytes:
        """The INVITE with ``more`` lines."""
        return request("INVITE", extra=contact(ALICE) + more)

    def answered(self, more: str = "", to: Any = None, port: int = BOB) -> dict[str, str]:
        """The 2xx to the INVITE, or to a request within; what the other side hears of timers."""
        other = ALICE if port == BOB else BOB
        self.sent(other)
        if to is None:
            record = "".join(f"Record-Route: {value}\r\n" for value in self.routes(self.invited))
            self.answer(self.invited, 200, extra=record + contact(BOB) + more)
        else:
            self.reply_within(to, 200, port, extra=contact(port) + more)
        *_, answer = self.sent(other)
        if to is None:
            self.route_set, self.tag = self.routes(answer), "b1"
            self.within("ACK", ALICE, cseq=1)
            self.sent(BOB)
        return said(answer)

    def refresh(self, method: str, port: int, more: str, answer: str) -> tuple[dict[str, str], dict[str, str]]:
        """A request within the dialog and its 200: what either said of timers when it went on."""
        other = ALICE if port == BOB else BOB
        self.sent(other)
        self.within(method, port, extra=contact(port) + more)
        (again,) = self.sent(other)
        return said(again), self.answered(answer, again, other)

    @property
    def lifetime(self) -> int:
        """Seconds from now until the dialog ends."""
        (call,) = self.calls
        seconds: int = round(call.ends - self.wired.clock.seconds())
        return seconds


class PingTests(Timed):
    """re-INVITEs of our own say what has been agreed on, so that they do not end the session timer."""

    PINGED = 'create_dialog("reinvite-ping-caller,reinvite-ping-callee");'

    def pings(self) -> list[str | None]:
        """What both are asked; they agree."""
        found = []
        self.sent(ALICE), self.sent(BOB)
        self.wait(60)
        for port in (ALICE, BOB):
            (ping, *_) = self.sent(port)
            self.assertEqual(ping.method, "INVITE")
            found.append(ping.header("Session-Expires"))
            self.assertEqual(ping.header("Supported"), "timer" if found[-1] else None)
            self.reply_within(ping, 200, port, extra=contact(port))
        return found

    def test_pings(self) -> None:
        """Who refreshes goes on to: it is the UAS of the ping, the other one is told that the UAC does."""
        for answer, sides in (
            ("Session-Expires: 300;refresher=uac\r\n", ["300;refresher=uas", "300;refresher=uac"]),
            ("Session-Expires: 300;refresher=uas\r\n", ["300;refresher=uac", "300;refresher=uas"]), ("", [None, None]),
        ):
            self.serve(first=self.PINGED, params='modparam("dialog", "reinvite_ping_interval", 60)')
            self.dial(more=TIMER)
            self.answered(answer)
            self.assertEqual(self.pings(), sides)
            self.refresh("UPDATE", BOB, "Session-Expires: 200;refresher=uac\r\n", "Session-Expires: 200;refresher=uac\r\n")

    def test_refreshed(self) -> None:
        """A refresh agrees anew; one without ends it."""
        self.serve(first=self.PINGED, params='modparam("dialog", "reinvite_ping_interval", 60)')
        self.dial(more=TIMER)
        self.answered("Session-Expires: 300;refresher=uac\r\n")
        said = "Session-Expires: 200;refresher=uac\r\n"
        self.refresh("UPDATE", BOB, said, said)
        self.assertEqual(self.pings(), ["200;refresher=uac", "200;refresher=uas"])
        self.refresh("UPDATE", ALICE, "", "")
        self.assertEqual(self.pings(), [None, None])

    def test_written_by_us(self) -> None:
        """Where module sst has told the caller that he refreshes, the pings do too."""
        self.begin(f'setflag("SST"); {self.PINGED}', sst_interval=200)
        module: Any = self.wired.server.modules["dialog"]
        module.follower.settings.reinvite_interval = 60
        self.dial(more=TIMER)
        self.answered()
        self.assertEqual(self.pings(), ["200;refresher=uas", "200;refresher=uac"])


class InviteTests(Timed):
    """What becomes of the INVITE and its 200."""

    def test_table(self) -> None:
        """Who knows timers and who does not (RFC 4028 8.1, 8.2; where OpenSIPS was asked too it says so)."""
        se = "Session-Expires"
        for ask, sent, answer, heard, lifetime in [
            # nobody knows timers, the callee alone, the caller alone, both: the same from OpenSIPS
            ("", {se: "90"}, "", {}, 43200),
            ("", {se: "90"}, "Session-Expires: 90;refresher=uas\r\n", {se: "90;refresher=uas"}, 90),
            (TIMER, {se: "90"}, "", {se: "90;refresher=uac", "Require": "timer"}, 90),
            (TIMER, {se: "90"}, f"{se}: 90;refresher=uas\r\nRequire: timer\r\n",
             {se: "90;refresher=uas", "Require": "timer"}, 90),
            # the caller has asked
            (f"{TIMER}{se}: 1800;refresher=uac\r\nMin-SE: 100\r\n", {se: "1800;refresher=uac", "Min-SE": "100"},
             f"{se}: 600;refresher=uas\r\nRequire: timer\r\n", {se: "600;refresher=uas", "Require": "timer"}, 600),
            (f"{TIMER}{se}: 1800\r\n", {se: "1800"}, "Require: timer\r\n", {se: "1800;refresher=uac", "Require": "timer"}, 1800),
            ("k: timer\r\nx: 1200\r\n", {se: "1200"}, "x: 1100;refresher=uac\r\n", {se: "1100;refresher=uac"}, 1100),
            # it would not take less than this
            (f"{TIMER}Min-SE: 3000\r\n", {"Min-SE": "3000", se: "3000"}, "",
             {se: "3000;refresher=uac", "Require": "timer"}, 3000),
            # another proxy has asked for too little, and nobody there would understand a 422
            (f"{se}: 50\r\n", {se: "90", "Min-SE": "90"}, "", {}, 43200),
            (f"{se}: 50\r\nMin-SE: 40\r\n", {se: "90", "Min-SE": "90"}, f"{se}: 90;refresher=uas\r\n",
             {se: "90;refresher=uas"}, 90),
            # nobody knows what that means
            (f"{TIMER}{se}: soon\r\n", {se: "soon"}, "", {}, 43200),
        ]:
            self.begin()
            self.dial(more=ask)
            self.assertEqual(said(self.invited), sent, ask)
            self.assertEqual(self.answered(answer), heard, ask)
            self.assertEqual(self.lifetime, lifetime, ask)

    def test_interval(self) -> None:
        """What is asked for is the most of min_se, sst_interval and the caller's Min-SE."""
        for least, wanted, caller, asked in [(120, 0, 0, 120), (120, 900, 0, 900), (120, 100, 0, 120), (120, 900, 1000, 1000)]:
            self.begin(min_se=least, sst_interval=wanted)
            self.dial(more=f"Min-SE: {caller}\r\n" if caller else "")
            self.assertEqual(said(self.invited)["Session-Expires"], str(asked))

    def test_too_small(self) -> None:
        """create_dialog answers 422, and t_relay sends nothing; with reject_to_small 0 all goes through."""
        self.begin(min_se=300)
        self.assertEqual(self.refused(f"{TIMER}Session-Expires: 200\r\n"), {"Min-SE": "300"})
        self.assertEqual((self.states(), self.numbers()), ([], {"processed": 1, "failed": 1}))
        self.settle()
        self.begin(min_se=300, reject_to_small=0)
        self.dial(more=f"{TIMER}Session-Expires: 200\r\n")
        self.assertEqual(said(self.invited), {"Session-Expires": "200"})
        self.assertEqual(self.answered()["Session-Expires"], "200;refresher=uac")
        self.assertEqual(self.lifetime, 200)

    def test_only_with_the_flag(self) -> None:
        """Calls without the flag, and other requests with it, are let alone."""
        self.begin(first="create_dialog();")
        self.dial(more=f"{TIMER}Session-Expires: 50\r\n")
        self.assertEqual(said(self.invited), {"Session-Expires": "50"})
        self.assertEqual((self.answered(), self.lifetime), ({}, 43200))
        self.begin()
        self.arrive(self.call(TIMER).replace(b"INVITE", b"SUBSCRIBE"))
        (subscribe,) = self.sent(BOB)
        self.assertEqual(said(subscribe), {})

    def test_forked(self) -> None:
        """The first 2xx counts; a later one is written in too, and changes nothing."""
        self.begin(first='setflag("SST"); create_dialog(); append_branch("sip:127.0.0.1:7003");')
        self.arrive(self.call(f"{TIMER}Session-Expires: 400\r\n"))
        (bob,), (carol,) = self.sent(BOB), self.sent(7003)
        self.sent(ALICE)
        self.answer(bob, 200, extra=contact(BOB) + "Session-Expires: 300;refresher=uas\r\n")
        self.answer(carol, 200, 7003, tag="c1", extra=contact(7003))
        first, second = self.sent(ALICE)
        self.assertEqual([said(each)["Session-Expires"] for each in (first, second)], ["300;refresher=uas", "400;refresher=uac"])
        self.assertEqual(self.lifetime, 300)


class RefreshTests(Timed):
    """What comes after."""

    def talk_timed(self, **given: Any) -> None:
        """A call with a session timer of 200 seconds."""
        self.begin(**given)
        self.dial(more=f"{TIMER}Session-Expires: 200\r\n")
        self.answered("Session-Expires: 200;refresher=uac\r\nRequire: timer\r\n")

    def test_refreshes(self) -> None:
        """Each re-INVITE or UPDATE that is accepted sets the time anew, by what was agreed; other requests do not."""
        se = "Session-Expires"
        self.talk_timed()
        self.wait(150)
        self.assertEqual(self.lifetime, 50)
        self.assertEqual(
            self.refresh("INVITE", ALICE, f"{TIMER}{se}: 300;refresher=uac\r\n", f"{se}: 300;refresher=uac\r\n"),
            ({se: "300;refresher=uac"}, {se: "300;refresher=uac"}),
        )
        self.assertEqual(self.lifetime, 300)
        self.wait(250)
        self.assertEqual(self.refresh("UPDATE", BOB, f"{TIMER}{se}: 400\r\n", ""), (
            {se: "400"}, {se: "400;refresher=uac", "Require": "timer"}))
        self.assertEqual(self.lifetime, 400)
        self.wait(10)
        self.refresh("INFO", ALICE, f"{se}: 1000\r\n", "")
        self.assertEqual(self.lifetime, 390)
        self.within("UPDATE", ALICE, extra=f"{TIMER}{se}: 1000\r\n")
        self.reply_within(self.sent(BOB)[-1], 488, BOB)
        self.assertEqual(self.lifetime, 390)
        # one that does not know timers any more
        self.assertEqual(self.refresh("UPDATE", ALICE, "", ""), ({se: "90"}, {}))
        self.assertEqual(self.lifetime, 43200)

    def test_nobody_refreshes(self) -> None:
        """The call ends when the time is over, counted; one that is hung up before is not."""
        for flags, said_then in [("", []), ("bye-on-timeout", ["BYE"])]:
            self.talk_timed(first=f'setflag("SST"); create_dialog("{flags}");')
            self.sent(ALICE)
            self.wait(199)
            self.assertEqual(self.states(), [4])
            self.wait(2)
            self.assertEqual((self.states(), self.said(ALICE)[:1]), ([], said_then))
            self.assertEqual(expired(self), 1)
        self.talk_timed()
        self.sent(ALICE)
        self.sent(BOB)
        self.hang_up(ALICE)
        self.wait(300)
        self.assertEqual(expired(self), 0)
        self.settle()

    def test_without_a_timer(self) -> None:
        """A call whose phones know no timers ends as every other, and does not count."""
        self.begin()
        self.dialog.follower.settings.default_timeout = 100
        self.dial()
        self.answered()
        self.wait(101)
        self.assertEqual((self.states(), expired(self)), ([], 0))


class CheckTests(Timed):
    """sstCheckMin."""

    def test_check(self) -> None:
        """True for less than min_se; only with 1 is it answered. (OpenSIPS takes a Min-SE that is not there for 90.)"""
        for more, small in [
            ("", False), (f"{TIMER}Session-Expires: 100\r\n", True), ("Session-Expires: 120\r\n", False),
            ("Session-Expires: 1800\r\nMin-SE: 100\r\n", True), ("Session-Expires: 1800\r\nMin-SE: 120\r\n", False),
            ("Session-Expires: x\r\n", False), ("Min-SE: 10\r\n", False),
        ]:
            self.begin(first='if (sstCheckMin()) xlog("L_ALERT", "small"); if (sstCheckMin(1)) exit;', min_se=120)
            if small:
                self.assertEqual(self.refused(more), {"Min-SE": "120"})
            else:
                self.dial(more=more)
                self.assertEqual(self.said(ALICE), ["100"])
            self.assertEqual(self.logged(), ["small"] * small, more)

    def test_in_a_reply(self) -> None:
        """In an onreply_route it looks at the response."""
        self.serve(
            modules=MODULES, params=params(min_se=120), first='t_on_reply("r");',
            rest='onreply_route[r] { if (sstCheckMin(1)) xlog("L_ALERT", "$rs small"); }',
        )
        self.dial()
        self.answer(self.invited, 200, extra="Session-Expires: 100;refresher=uac\r\n")
        self.assertEqual(self.logged(), ["200 small"])

    def test_parameters(self) -> None:
        """Without its flag, or with an interval that the RFC does not allow, the server does not start."""
        refused: list[tuple[dict[str, Any], str]] = [({"min_se": 89}, "90 seconds"), ({"sst_interval": -1}, "0 or a number")]
        for given, why in refused:
            with self.assertRaisesRegex((AssertionError, ValueError), why):
                self.begin(**given)
        with self.assertRaisesRegex(ValueError, "sst_flag"):
            finished(Sst().start())


class RestartTests(StoredDialing):
    """A session timer outlives a restart."""

    def test_restart(self) -> None:
        """It goes on where it was, and can be refreshed."""
        self.store(modules=MODULES, params=params(), first='setflag("SST"); create_dialog();')
        self.dial(more=f"{TIMER}Session-Expires: 200\r\n")
        self.pick_up()
        self.wait(150)
        self.restart()
        (call,) = self.calls
        self.assertEqual(round(call.ends - self.wired.clock.seconds()), 50)
        self.sent(BOB)
        self.within("UPDATE", ALICE, extra=contact(ALICE) + TIMER + "Session-Expires: 300\r\n")
        (update,) = self.sent(BOB)
        self.reply_within(update, 200, BOB)
        self.assertEqual(round(call.ends - self.wired.clock.seconds()), 300)
        self.wait(301)
        self.assertEqual(self.states(), [])
        self.assertEqual(expired(self), 1)
