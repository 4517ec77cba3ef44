"""Tests of sipgw.modules.cfgutils."""

from __future__ import annotations

import os
import random
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core import shared
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.cfgutils import Cfgutils
from sipgw.testing import EPOCH, FakeServer, finished, pass_time
from tests.doubles import FakeSocket, FakeVariable, request, run_of
from tests.modules.scripted import Scripted
from tests.modules.scripted import request as message


class CfgutilsTests(SynchronousTestCase):
    """One module on a fake server."""

    def made(self, **parameters: Any) -> Cfgutils:
        """The module, started."""
        self.server: Any = FakeServer()
        user: Any = self.server.user
        user.add_socket(FakeSocket())
        self.run_ = run_of(request(), user)
        module = Cfgutils(self.server, **parameters)
        finished(module.start())
        return module

    def run_script(self, body: str, rest: str = "") -> list[str]:
        """What a script logs."""
        return Scripted(body, "cfgutils", rest=rest).send()


class ChanceTests(CfgutilsTests):
    """Random things."""

    def test_probability(self) -> None:
        """The probability is that of the script, of the command, or the first one again; a call may bring its own."""
        module = self.made(initial_probability=30)
        steps = [module.rand_get_prob(self.run_)]
        module.rand_set_prob(self.run_, 40)
        steps.append(module.rand_get_prob(self.run_))
        module.rand_reset_prob(self.run_)
        steps.append(module.rand_get_prob(self.run_))
        module.set_probability(100)
        steps.append(module.get_probability()["actual probability percent"])
        self.assertEqual(steps, [30, 40, 30, 100])
        self.assertTrue(all(module.rand_event(self.run_) for _ in range(50)))
        self.assertFalse(any(module.rand_event(self.run_, 0) for _ in range(50)))
        for value in (-1, 101):
            self.assertEqual(self.assertRaises(MIError, module.set_probability, value).code, 400)
        module.reset_probability()
        self.assertEqual(module.probability, 30)

    def test_event(self) -> None:
        """An event happens about as often as it should."""
        module = self.made()
        random.seed(5)
        self.assertTrue(250 < sum(module.rand_event(self.run_, 30) for _ in range(1000)) < 350)

    def test_random(self) -> None:
        """``$RANDOM`` is a number of 31 bits, another one each time."""
        module = self.made()
        values = {module.random_number(self.run_) for _ in range(20)}
        self.assertGreater(len(values), 15)
        self.assertTrue(all(0 <= value < 1 << 31 for value in values))

    def test_weight(self) -> None:
        """Values are chosen as often as they are big; AVPs count from the newest."""
        lines = self.run_script(
            """
            $avp(w) = 10; $avp(w) = 0; $avp(w) = 0;
            $var(x) = set_select_weight($avp(w));
            xlog("L_ALERT", "$var(x)");
            $avp(t) = "text";
            $var(x) = set_select_weight($avp(t));
            xlog("L_ALERT", "$var(x)");
            """
        )
        self.assertEqual((lines[0], lines[-1], len(lines)), ("2", "-1", 3))
        random.seed(7)
        module = self.made()
        variable: Any = ListOf(30, 0, 70, -5)
        found = [module.set_select_weight(self.run_, variable) for _ in range(1000)]
        self.assertTrue(250 < found.count(0) < 350 and found.count(2) == 1000 - found.count(0))
        nothing: Any = ListOf(0, 0)
        self.assertEqual(module.set_select_weight(self.run_, nothing), -1)

    def test_shuffle(self) -> None:
        """The values of an AVP are all there afterwards, not always in the same order."""
        orders = set()
        script = Scripted(
            '$avp(a) = "1"; $avp(a) = "2"; $avp(a) = 3; shuffle_avps($avp(a)); shuffle_avps($avp(none)); '
            'xlog("L_ALERT", "$(avp(a)[*])");',
            "cfgutils",
        )
        for number in range(30):
            (line,) = script.send(message(branch=f"b{number}"))
            orders.add(line)
        self.assertEqual({"".join(sorted(order)) for order in orders}, {"  ,,123"})
        self.assertGreater(len(orders), 2)


class ListOf:
    """A variable with some values."""

    def __init__(self, *values: int) -> None:
        self.values = values

    def at(self, run: Any, index: int) -> int | None:
        """One of them."""
        return self.values[index] if index < len(self.values) else None


class WaitingTests(CfgutilsTests):
    """sleep, usleep, locks."""

    def test_sleep(self) -> None:
        """The script goes on when the time has passed, and other messages do not wait."""
        script = Scripted(
            """
            if ($ci == "quick") { xlog("L_ALERT", "quick"); exit; }
            sleep(2); xlog("L_ALERT", "slept");
            usleep(500000); xlog("L_ALERT", "and again");
            $var(x) = -1;
            if (!sleep($var(x))) xlog("L_ALERT", "not negative");
            """,
            "cfgutils",
        )
        self.assertEqual(script.send(), [])
        self.assertEqual(script.send(message(call_id="quick", branch="two")), ["quick"])
        pass_time(script.clock, 1.99)
        self.assertEqual(script.logged(), [])
        pass_time(script.clock, 0.02)
        self.assertEqual(script.logged(), ["slept"])
        pass_time(script.clock, 0.5)
        self.assertEqual(script.logged(), ["and again", "sleep: a time to wait is not negative", "not negative"])

    def test_async(self) -> None:
        """``async(sleep(1), route)`` goes on in the route."""
        script = Scripted('async(sleep(1), after);', "cfgutils", rest='route[after] { xlog("L_ALERT", "after $rc"); }')
        script.send()
        pass_time(script.clock, 1)
        self.assertEqual(script.logged(), ["after 1"])

    def test_locks(self) -> None:
        """A run that wants the lock of one that sleeps waits for it; another key is another lock, and so is a static one."""
        script = Scripted(
            """
            get_static_lock("zone"); release_static_lock("zone");
            get_dynamic_lock($rU);
            xlog("L_ALERT", "$ci has $rU");
            sleep(1);
            release_dynamic_lock($rU);
            """,
            "cfgutils",
        )
        script.send(message(call_id="a", branch="a"))
        script.send(message(call_id="b", branch="b"))
        script.send(message(call_id="c", branch="c", uri="sip:carol@127.0.0.1"))
        pass_time(script.clock, 1)
        self.assertEqual(script.logged(), ["b has bob"])
        script = Scripted('get_static_lock("zone"); if (!get_static_lock("zone")) xlog("L_ALERT", "$rc");', "cfgutils")
        self.assertEqual(len(script.send()), 2)

    def test_first_come(self) -> None:
        """What is logged before anybody sleeps."""
        script = Scripted('get_dynamic_lock("x"); xlog("L_ALERT", "$ci"); sleep(1);', "cfgutils")
        self.assertEqual(script.send(message(call_id="a", branch="a")), ["a"])
        self.assertEqual(script.send(message(call_id="b", branch="b")), [])
        pass_time(script.clock, 29)
        self.assertEqual(script.logged(), [])
        pass_time(script.clock, 1)
        self.assertEqual(
            script.logged(), ["get_dynamic_lock: 'x' was not given back in time, or is held by this very run", "b"]
        )

    def test_share(self) -> None:
        """Keys have locks of their own."""
        module = self.made()
        self.assertTrue(module.strings_share_lock(self.run_, "a", "a"))
        self.assertFalse(module.strings_share_lock(self.run_, "a", "b"))
        self.assertFalse(module.strings_share_lock(self.run_, "a"))


class VariableTests(CfgutilsTests):
    """$shv, $var, $env, $ctime, set_count."""

    def test_shared(self) -> None:
        """``$shv`` keeps its value from message to message; it is 0 at first and after null."""
        script = Scripted(
            """
            xlog("L_ALERT", "$shv(n) $shv(text) $shv(none) $shv($var(name))");
            $shv(n) = $shv(n) + 1; $shv(text) = NULL; $shv(new) = "x";
            """,
            "cfgutils",
            rest="""
            modparam("cfgutils", "shvset", "n=i:5")
            modparam("cfgutils", "shvset", "text=s:sip:10.0.0.1;a=b")
            """,
        )
        self.assertEqual(script.send(message(branch="a")), ["5 sip:10.0.0.1;a=b 0 0"])
        self.assertEqual(script.send(message(branch="b")), ["6 0 0 0"])

    def test_commands(self) -> None:
        """The commands show and set shared variables as OpenSIPS's do."""
        module = self.made(shvset="n=i:5")
        module.shv_set("text", "str", 7)
        module.shv_set("m", "int", "8")
        self.assertEqual(
            module.shv_get(),
            [[
                {"name": "n", "type": "integer", "value": 5},
                {"name": "text", "type": "string", "value": "7"},
                {"name": "m", "type": "integer", "value": 8},
            ]],
        )
        self.assertEqual(module.shv_get("text"), {"VAR": {"type": "string", "value": "7"}})
        self.assertEqual(self.assertRaises(MIError, module.shv_get, "none").code, 404)
        self.assertEqual(self.assertRaises(MIError, module.shv_set, "n", "int", "x").code, -32602)
        self.assertEqual([command.full for command in module.commands()], [
            "cfgutils:shv_get", "cfgutils:shv_set", "cfgutils:rand_set_prob", "cfgutils:rand_reset_prob",
            "cfgutils:rand_get_prob", "cfgutils:get_config_hash", "cfgutils:check_config_hash",
        ])

    def test_bound(self) -> None:
        """There are not more shared variables than can be borne."""
        self.patch(shared, "MAX_NAMES", 2)
        module = self.made()
        done = [module.set_shv(self.run_, name, 1) for name in ("a", "b", "c", "a")]
        self.assertEqual(done, [True, True, False, True])
        self.assertEqual(self.assertRaises(MIError, module.shv_set, "d", "str", "x").code, 500)

    def test_varset(self) -> None:
        """``$var`` begins with what varset says, in the startup route and in each request."""
        script = Scripted(
            'xlog("L_ALERT", "$var(n) $var(gw)"); $var(n) = 99;',
            "cfgutils",
            rest="""
            modparam("cfgutils", "varset", "n=i:1")
            modparam("cfgutils", "varset", "gw=s:sip:11.11.11.11")
            startup_route { $var(n) = $var(n) + 1; xlog("L_ALERT", "start $var(n)"); }
            """,
        )
        self.assertEqual(script.logged(), ["start 2"])
        for branch in "ab":
            self.assertEqual(script.send(message(branch=branch)), ["2 sip:11.11.11.11"])
        self.assertEqual(
            self.run_script('xlog("L_ALERT", "$var(n)");', 'modparam("cfgutils", "varset", "n=i:7")'), ["7"]
        )

    def test_environment(self) -> None:
        """``$env`` reads the environment."""
        self.patch(os, "environ", {"GATEWAY": "10.0.0.1"})
        module = self.made()
        self.assertEqual((module.env(self.run_, "GATEWAY"), module.env(self.run_, "NONE")), ("10.0.0.1", None))

    def test_count(self) -> None:
        """``set_count`` counts the values of AVPs and headers; other variables have one or none."""
        self.assertEqual(
            self.run_script(
                """
                $avp(a) = 1; $avp(a) = 2; $var(y) = "y";
                set_count($avp(a), $var(n)); xlog("L_ALERT", "$var(n)");
                set_count($avp(b), $var(n)); xlog("L_ALERT", "$var(n)");
                set_count($var(y), $var(n)); xlog("L_ALERT", "$var(n)");
                set_count($hdr(Via), $avp(n)); xlog("L_ALERT", "$avp(n)");
                """
            ),
            ["2", "0", "1", "1"],
        )


class TimeTests(CfgutilsTests):
    """What time it is."""

    def test_accurate(self) -> None:
        """The time as two numbers, and as one text."""
        module = self.made()
        self.server.reactor.advance(0.000250)
        seconds, micro, text = FakeVariable(), FakeVariable(), FakeVariable()
        module.get_accurate_time(self.run_, seconds, micro, text)
        module.get_accurate_time(self.run_, seconds, micro)
        self.assertEqual((seconds.values[0], text.values), (int(EPOCH), [f"{int(EPOCH)}.{micro.values[0]:06}"]))
        self.assertAlmostEqual(micro.values[0], 250, delta=1)

    def test_delta(self) -> None:
        """The difference of two times, whichever is the later one; as a number only if it is none too big."""
        module = self.made()
        for times, done, texts, numbers in (
            ((10, 300, 11, 200), True, ["999900"], [999900]),
            ((11, 200, 10, 300), True, ["999900"], [999900]),
            ((-10, 300, 20, 2000000), True, ["31999700"], [31999700]),
            ((10, 300, 20000, 200), False, ["19989999900"], []),
        ):
            text, number = FakeVariable(), FakeVariable()
            self.assertEqual(module.ts_usec_delta(self.run_, *times, text, number), done)
            self.assertEqual((text.values, number.values), (texts, numbers))
        self.assertTrue(module.ts_usec_delta(self.run_, 10, 300, 20000, 200))

    def test_recurrence(self) -> None:
        """``check_time_rec`` looks at the time, or at one that is given; EPOCH is 2023-11-14 22:13:20 UTC."""
        module = self.made()
        for text, at, expected in (
            ("UTC|20231114T220000|20231114T230000", None, 1),
            ("UTC|20231114T220000|20231114T221300", None, -1),
            ("UTC|20231114T220000|20231114T221300", 1_700_000_000 - 60, 1),
            ("UTC|20200101T220000|20200101T230000||DAILY", None, 1),
            ("UTC|20200101T220000|20200101T230000||DAILY", -(1 << 62), -1),
            ("nonsense", None, -2),
        ):
            self.assertEqual(module.check_time_rec(self.run_, text, at), expected, text)

    def test_recurrence_checked(self) -> None:
        """A constant one is read with the configuration; no more than so many are remembered."""
        with self.assertRaises(AssertionError) as caught:
            Scripted('check_time_rec("nonsense");', "cfgutils")
        self.assertIn("bad time 'nonsense'", str(caught.exception))
        module = self.made()
        for number in range(600):
            module.check_time_rec(self.run_, f"20200101T000000||P{number + 1}D")
        self.assertLessEqual(len(module._parsed), 500)

    def test_ctime(self) -> None:
        """``$ctime`` knows the parts of the local time; others are refused with the configuration."""
        module = self.made()
        at = time.localtime(EPOCH)
        names = ("sec", "min", "hour", "mday", "mon", "year", "yday", "isdst")
        expected = [at.tm_sec, at.tm_min, at.tm_hour, at.tm_mday, at.tm_mon, at.tm_year, at.tm_yday, at.tm_isdst]
        self.assertEqual([module.ctime(self.run_, name) for name in names], expected)
        self.assertEqual(module.ctime(self.run_, "wday"), at.tm_wday + 2)
        self.assertIsNone(module.ctime(self.run_, "week"))
        with self.assertRaises(AssertionError):
            Scripted('xlog("$ctime(week)");', "cfgutils")


class FileTests(CfgutilsTests):
    """The hash of a file, the process."""

    def test_hash(self) -> None:
        """The commands tell whether a file has changed."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("one")
        module = self.made(hash_file=path)
        self.assertEqual(module.get_config_hash(), "f97c5d29941bfb1b2fdab0874906ab82")
        self.assertIn("is identical", module.check_config_hash())
        with open(path, "w") as file:
            file.write("two")
        self.assertEqual(self.assertRaises(MIError, module.check_config_hash).code, 400)
        os.unlink(path)
        self.assertEqual(self.assertRaises(MIError, module.check_config_hash).code, 500)
        module = Cfgutils(self.server, hash_file=path)
        self.assertRaises(FileNotFoundError, finished, module.start())

    def test_no_hash(self) -> None:
        """Without a file there is nothing to tell."""
        module = self.made()
        for command in (module.get_config_hash, module.check_config_hash):
            self.assertEqual(self.assertRaises(MIError, command).code, 404)

    def test_memory(self) -> None:
        """The memory of the process goes to the log."""
        module = self.made()
        module.pkg_status(self.run_)
        module.shm_status(self.run_)
        said = [line.partition(":")[0] for level, line in self.server.lines if level == 2]
        self.assertEqual(said, ["pkg_status", "shm_status"])

    def test_abort(self) -> None:
        """``abort`` ends the process, and says so first."""
        module = self.made()
        ended: list[int] = []
        self.patch(os, "abort", lambda: ended.append(1))
        module.abort(self.run_)
        self.assertEqual((ended, self.server.lines[-1][0]), ([1], -3))


class ParameterTests(SynchronousTestCase):
    """What the parameters take."""

    def test_refused(self) -> None:
        """What cannot be is refused when the configuration is read."""
        for name, value in (
            ("initial_probability", 150), ("initial_probability", -1), ("shvset", "x"), ("shvset", "x=z:1"),
            ("shvset", "x=i:abc"), ("shvset", "=i:1"), ("varset", "y"),
        ):
            self.assertRaises(ValueError, Cfgutils, None, **{name: value})

    def test_unused(self) -> None:
        """Sizes of tables mean nothing here, and that is said."""
        server: Any = FakeServer(log_level=4)
        Cfgutils(server, shv_hash_size=128, lock_pool_size=64)
        self.assertEqual(len(server.lines), 2)
