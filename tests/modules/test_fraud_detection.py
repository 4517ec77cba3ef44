"""Tests of sipgw.modules.fraud_detection: calls that are counted and told of; the figures are OpenSIPS's where it was asked."""

from __future__ import annotations

from typing import Any

from sipgw.testing import Phone, WiredServer
from tests.db.memory import MemoryDatabases
from tests.modules.calls import ALICE, BOB, HEAD
from tests.modules.dialing import Dialing
from tests.proxy.rig import request

FIRST = """
    check_fraud("$hdr(X-User)", "$hdr(X-Number)", $(hdr(X-Profile){s.int}));
    xlog("L_ALERT", "$rc");
    if ($hdr(X-Stop) != NULL) { sl_send_reply(403, "No"); exit; }
"""
HEARD = """
event_route[E_FRD_WARNING] { xlog("L_ALERT", "W %s"); }
event_route[E_FRD_CRITICAL] { xlog("L_ALERT", "C %s"); }
"""
HEARD = HEARD.replace(
    "%s", "$param(param) $param(value)/$param(threshold) $param(user) $param(called_number) $param(rule_id) $param(profile_id)"
)


def row(number: int, prefix: str, profile: int = 1, **more: Any) -> dict[str, Any]:
    """A row of the table."""
    names = ("cpm", "call_duration", "total_calls", "concurrent_calls", "sequential_calls")
    zero = {f"{name}_{kind}": 0 for name in names for kind in ("warning", "critical")}
    return {
        "ruleid": number, "profileid": profile, "prefix": prefix, "start_hour": "00:00", "end_hour": "23:59",
        "daysoftheweek": "Mon-Sun", **zero, **more,
    }


class FraudTests(Dialing):
    """Alice calls, and is counted."""

    def open(self, *rows: dict[str, Any], first: str = FIRST, params: str = "") -> None:
        """Start the server with these rules."""
        self.databases = MemoryDatabases()
        self.databases.database.tables["fraud_detection"] = list(rows)
        self.calls_made = 0
        self.load = f'loadmodule "fraud_detection.so"\nmodparam("fraud_detection", "db_url", "memory:")\n{params}'
        self.serve(params=self.load, first=first, rest=HEARD)
        self.wired.lines.clear()

    def start(self, script: str) -> None:
        """Start a server with the database."""

        def before(server: Any) -> None:
            server.databases = self.databases

        self.wired = WiredServer(HEAD + script, before=before)
        self.phones = {port: Phone(self.wired.wire, "127.0.0.1", port) for port in (ALICE, BOB)}

    def call(self, number: str, *, profile: int = 1, user: str = "u", stop: bool = True) -> list[str]:
        """A call that is refused at once, or goes on; what was logged."""
        self.calls_made += 1
        extra = f"X-User: {user}\r\nX-Number: {number}\r\nX-Profile: {profile}\r\n" + ("X-Stop: 1\r\n" if stop else "")
        extra += f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n"
        data = request("INVITE", extra=extra, branch=f"c{self.calls_made}")
        self.call_id = f"call{self.calls_made}@test"
        self.arrive(data.replace(b"call@test", self.call_id.encode()))
        self.wired.clock.advance(0)
        return sorted(self.logged(), key=lambda line: line[0] in "WC")

    def stats(self, prefix: str, user: str = "u") -> Any:
        """What the operator is told."""
        return self.command("fraud_detection:show_stats", user=user, prefix=prefix)

    def test_per_minute(self) -> None:
        """A window of 60 seconds that moves; one event each time."""
        self.open(row(1, "99", cpm_warning=3, cpm_critical=5))
        said = [self.call("9955") for _ in range(6)]
        self.assertEqual(said, [
            ["1"], ["1"], ["-1", "W calls-per-minute 3/3 u 9955 1 1"], ["-1", "W calls-per-minute 4/3 u 9955 1 1"],
            ["-2", "C calls-per-minute 5/5 u 9955 1 1"], ["-2", "C calls-per-minute 6/5 u 9955 1 1"],
        ])
        self.assertEqual(self.stats("99"), {"cpm": 6, "total_calls": 6, "concurrent_calls": 0, "seq_calls": 6})
        self.wait(50)
        self.assertEqual(self.call("9955")[0], "-2")
        self.wait(11)
        self.assertEqual((self.call("9955"), self.call("9955", user="other")), (["1"], ["1"]))
        self.assertEqual(self.stats("zz"), (404, "No data for this user+number yet!"))

    def test_sequential(self) -> None:
        """Calls to the same number in a row."""
        self.open(row(4, "50", sequential_calls_warning=2, sequential_calls_critical=4))
        said = [self.call(number)[0] for number in ("501", "501", "502", "501", "501", "501", "501")]
        self.assertEqual(said, ["1", "-1", "1", "1", "-1", "-1", "-2"])

    def test_no_rule(self) -> None:
        """Other numbers and other profiles are not counted, and no dialog is made."""
        self.open(row(1, "99", total_calls_critical=1))
        self.assertEqual((self.call("1"), self.call("99", profile=2), self.calls), (["2"], ["2"], []))
        self.assertEqual(len(self.wired.server.modules["fraud_detection"].ledger), 0)  # type: ignore[attr-defined]

    def test_concurrent(self) -> None:
        """Calls that go on: those that ring or have been answered, not those refused, given up or ended."""
        self.open(row(3, "40", concurrent_calls_warning=2, concurrent_calls_critical=3))
        self.assertEqual((self.call("401"), self.call("401")), (["1"], ["1"]))
        self.assertEqual(self.stats("40")["concurrent_calls"], 0)
        self.assertEqual(self.call("401", stop=False), ["1"])
        (self.invited,) = self.sent(BOB)
        self.assertEqual(self.stats("40")["concurrent_calls"], 1)
        self.answer(self.invited, 180)
        self.assertEqual(self.call("402", stop=False), ["-1", "W concurrent-calls 2/2 u 402 3 1"])
        (second,) = self.sent(BOB)
        self.answer(self.invited, 486)
        self.assertEqual(self.stats("40")["concurrent_calls"], 1)
        self.answer(second, 200, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n")
        self.wait(100)
        self.assertEqual(self.stats("40")["concurrent_calls"], 1)
        self.assertEqual(self.command("dialog:end_dlg", dialog_id=self.call_id), "OK")
        self.assertEqual(self.stats("40")["concurrent_calls"], 0)

    def test_duration(self) -> None:
        """When a call ends its duration is looked at: whoever ends it."""
        self.open(row(5, "60", call_duration_warning=10, call_duration_critical=100))
        for seconds, said in [(5, []), (20, ["W call-duration 20/10 u 601 5 1"]), (100, ["C call-duration 100/100 u 601 5 1"])]:
            self.assertEqual(self.call("601", stop=False), ["1"])
            (invited,) = self.sent(BOB)
            self.answer(invited, 200, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n")
            self.wait(seconds)
            self.assertEqual(self.command("dialog:end_dlg", dialog_id=self.call_id), "OK")
            self.wired.clock.advance(0)
            self.assertEqual(self.logged(), said)
            self.sent(BOB)

    def test_bad_rules(self) -> None:
        """A rule that means nothing is left out, and the log says which."""
        self.databases = MemoryDatabases()
        rows = [row(1, "1", daysoftheweek="Xyz"), row(2, "2", start_hour="25:00"), row(3, "3", end_hour=""), row(4, "4")]
        self.databases.database.tables["fraud_detection"] = rows
        load = 'loadmodule "fraud_detection.so"\nmodparam("fraud_detection", "db_url", "memory:")\n'
        self.serve(params=load, first=FIRST, rest=HEARD)
        self.assertEqual([line.partition(" is left out")[0] for line in self.logged()], [
            f"fraud_detection: rule {number}" for number in (1, 2, 3)])
        self.assertEqual(self.databases.checked, [("fraud_detection", 1)])

    def test_reload(self) -> None:
        """New rules count at once, and what was counted stays; if they cannot be read they stay too."""
        self.open(row(1, "9", total_calls_warning=5))
        self.assertEqual(self.call("91"), ["1"])
        self.databases.database.tables["fraud_detection"] = [row(7, "9", total_calls_critical=2)]
        self.assertEqual(self.command("fraud_detection:reload"), "OK")
        self.assertEqual(self.call("91"), ["-2", "C total-calls 2/2 u 91 7 1"])
        self.databases.database.down = True
        self.assertEqual(self.command("fraud_reload"), (500, "Failed to reload rules"))
        self.assertEqual([line.partition(":")[2] for line in self.logged()], [" the rules stay as they were: memory: is down"])
        self.assertEqual(self.call("91")[0], "-2")

    def test_days(self) -> None:
        """Counts begin anew with the day of the clock that is wanted; old ones are forgotten."""
        self.open(row(1, "9", total_calls_critical=2), params='modparam("fraud_detection", "use_utc_time", 1)\n')
        self.call("91")
        self.wired.clock.advance(86400)
        self.assertEqual(self.call("91"), ["1"])
        self.assertEqual(self.call("91")[0], "-2")
        module: Any = self.wired.server.modules["fraud_detection"]
        self.assertEqual(len(module.ledger), 1)
        self.wired.clock.advance(3 * 86400)
        module.sweep()
        self.assertEqual(len(module.ledger), 0)

    def test_no_dialog(self) -> None:
        """What begins no dialog cannot be counted."""
        self.open(row(1, "9"), first="")
        self.serve(params=self.load, within='check_fraud("u", "9", 1); xlog("L_ALERT", "$rc");', first="")
        self.talk()
        self.logged()
        self.within("INFO", ALICE)
        self.assertEqual(self.logged()[-1], "-3")
