"""Calls that module dialog follows, as sipp plays them: each of its features, and nothing is left of any call."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.interfaces import Value
from tests.children import wait_for
from tests.servers.sql import sqlite
from tests.sipp.troupe import CALLS, TALK, Flow, TroupeTestCase

RINGS = """
    < INVITE | Record-Route ~ did=
    > 180
"""
ANSWERS = RINGS + """
    > 200 sdp
    < ACK
"""
"""A callee who rings and answers."""
CALLS_UP = """
    > INVITE sdp
    < 100?
    < 180
    < 200
    > ACK
"""
"""A caller who is answered."""
HANGS_UP = """
    > BYE
    < 200
"""
HEARS_BYE = """
    < BYE
    > 200
"""
OFFERED = """
    < INVITE
    > 200 sdp
    < ACK
"""
"""A re-INVITE comes."""
PING = """
    < OPTIONS
    > 200
"""
CANCELLED = """
    < CANCEL
    > 200
    > 487 INVITE
    < ACK
"""
REFUSED = """
    > INVITE sdp
    < 100?
    < @status@
    > ACK refused
"""
"""A caller who is refused before it rings."""


ASKS_BYE = """
    > 401 | WWW-Authenticate: Digest realm="gateway", nonce="n", algorithm=MD5, qop="auth"
"""
ASKS = ASKS_BYE + """
    < ACK
"""
"""A password is asked for."""


def passwords() -> list[Flow]:
    """Calls in which each side asks for a password again and again, with a dialog and without; the server knows them, and the
    numbers of each side go on without a gap."""
    caller = f"""
        > INVITE sdp
        < 100?
        < 200 | CSeq ~ 1 INVITE
        > ACK
        > INVITE sdp:again
        < 100?
        < 200 | CSeq ~ 2 INVITE
        > ACK
        < INVITE | CSeq ~ 101 INVITE
        {ASKS}
        < INVITE | Authorization ~ user | CSeq ~ 102 INVITE
        > 200 sdp
        < ACK | CSeq ~ 102
    """
    callee = f"""
        < INVITE | CSeq ~ 1 INVITE
        {ASKS}
        < INVITE | Authorization ~ user | CSeq ~ 2 INVITE
        > 200 sdp
        < ACK | CSeq ~ 2
        < INVITE | CSeq ~ 3 INVITE
        {ASKS}
        < INVITE | Authorization ~ user | CSeq ~ 4 INVITE
        > 200 sdp:two
        < ACK | CSeq ~ 4
        wait 50
        > INVITE sdp
        < 100?
        < 200 | CSeq ~ 101 INVITE
        > ACK
    """
    by_caller = "> BYE\n < 200 | CSeq ~ 3 BYE", f"< BYE | CSeq ~ 5\n {ASKS_BYE} < BYE | Authorization ~ user | CSeq ~ 6\n > 200"
    heard = f"< BYE | CSeq ~ 103\n {ASKS_BYE} < BYE | Authorization ~ user | CSeq ~ 104\n > 200"
    by_callee = heard, "wait 50\n > BYE\n < 200 | CSeq ~ 102 BYE"
    ends = by_caller, by_callee
    return [Flow(name, caller + here, {"callee": callee + there}) for name in ("plain", "loose") for here, there in ends]


class DialogTests(TroupeTestCase):
    """Calls through ``followed.cfg``."""

    config = "followed.cfg"

    def script(self, text: str) -> str:
        """Fill in the database, and make its tables."""
        url = sqlite(str(self.directory))
        self.database = url.removeprefix("sqlite://")
        with closing(open_store(url, create=True)) as store:
            create(store, ("version", "dialog", "fraud_detection"))
            rule: dict[str, Value] = {
                "ruleid": 1, "profileid": 1, "prefix": "44", "start_hour": "00:00", "end_hour": "23:59",
                "daysoftheweek": "Mon-Sun", "total_calls_warning": CALLS + 1, "total_calls_critical": CALLS + 1,
            }
            store.insert("fraud_detection", rule)
        return super().script(text).replace("@url@", url).replace("@lasting@", str(TALK // 1000 + 1))

    def dialogs(self, count: int) -> list[dict[str, Any]]:
        """What ``dlg_list_ctx`` says of the dialogs, once so many are confirmed."""

        def confirmed() -> list[dict[str, Any]]:
            found: Any = self.ask("dlg_list_ctx")
            return [each for each in found["Dialogs"] if each["state"] == 4]

        wait_for(lambda: len(confirmed()) == count, f"{count} calls are answered", self.server.child)
        return confirmed()

    def written(self) -> int:
        """How many dialogs the database says are acknowledged."""
        with closing(sqlite3.connect(self.database)) as database:
            (count,) = database.execute("select count(*) from dialog where state = 4").fetchone()
        return int(count)

    def test_calls(self) -> None:
        """Calls of all kinds, at the same time; what is counted is what was."""
        gives_up = "> INVITE sdp\n < 100?\n < 180\n > CANCEL\n < 200\n < 487\n > ACK refused"
        ends = [
            Flow("plain", CALLS_UP + HANGS_UP, {"callee": ANSWERS + HEARS_BYE}),
            Flow("back", CALLS_UP + HEARS_BYE, {"callee": ANSWERS + HANGS_UP}),
            Flow("cancelled", gives_up, {"callee": RINGS + CANCELLED}),
            Flow("refused", REFUSED, {"callee": "< INVITE\n > 486\n < ACK"}, values={"status": "486"}),
            Flow("silent", "> INVITE sdp\n < 100?\n < 180\n < 408\n > ACK refused", {"callee": RINGS + CANCELLED}),
            Flow("timeout", CALLS_UP + HEARS_BYE, {"callee": ANSWERS + HEARS_BYE}),
        ]
        pings = [  # a phone that is silent, one that knows of no call, and another
            Flow("options", CALLS_UP + PING + PING + "until BYE OPTIONS", {"callee": ANSWERS + PING + "mute BYE OPTIONS"}),
            Flow(
                "options", CALLS_UP + PING + "until BYE OPTIONS",
                {"callee": ANSWERS + PING + "< OPTIONS\n wait 150\n > 481" + HEARS_BYE},
            ),
            Flow(
                "reinvite", CALLS_UP + OFFERED + "< INVITE\n wait 150\n > 481\n < ACK" + HEARS_BYE,
                {"callee": ANSWERS + OFFERED + OFFERED + HEARS_BYE},
            ),
        ]
        early = "> INVITE sdp | Supported: 100rel\n < 100?\n < 183\n"
        within = [  # requests of the script, of phones before the answer, of the server in the caller's place
            Flow(
                "asked", CALLS_UP + "< MESSAGE | body ~ to the caller\n > 200\n < BYE | CSeq ~ 10[34]\n > 200",
                {"callee": ANSWERS + "> INFO | X-Ask: caller\n < 200\n > INFO | X-Ask: callee\n any 200 MESSAGE" + HANGS_UP},
            ),
            Flow(
                "reliable",
                early + "> PRACK | RAck: 1 1 INVITE\n < 200\n > UPDATE sdp:again\n < 200\n < 200\n > ACK" + HANGS_UP,
                {
                    "callee": "< INVITE\n > 183 sdp | Require: 100rel | RSeq: 1\n < PRACK\n > 200\n "
                    "< UPDATE | body ~ again\n > 200 sdp\n wait 50\n > 200 INVITE\n < ACK" + HEARS_BYE
                },
            ),
            Flow(
                "prack", early + "< 200\n > ACK" + HANGS_UP,
                {
                    "callee": "< INVITE\n > 183 sdp | Require: 100rel | RSeq: 7\n < PRACK | RAck ~ 7 1 INVITE | CSeq ~ 2 \n"
                    "> 200\n > 200 INVITE\n < ACK\n < BYE | CSeq ~ 3 \n > 200"
                },
            ),
        ]
        timed = "Supported: timer | Session-Expires: 90"
        agreed = "> 200 sdp | Require: timer | Session-Expires: 2;refresher=uac"
        answers = f"< INVITE | Session-Expires ~ 90\n > 180\n {agreed}\n < ACK\n"
        calls_up = f"> INVITE sdp | {timed}\n < 100?\n < 180\n < 200 | Session-Expires ~ 2\n > ACK\n"
        timers = [  # both phones refresh, then nobody; nobody refreshes; a timer too small
            Flow(
                "timed", f"{calls_up} wait 700\n > UPDATE | {timed}\n < 200\n < INVITE\n {agreed}\n < ACK" + HEARS_BYE,
                {
                    "callee": f"{answers} < UPDATE\n {agreed}\n wait 700\n > INVITE sdp | {timed}\n < 100?\n < 200\n > ACK"
                    + HEARS_BYE
                },
            ),
            Flow("timed", calls_up + HEARS_BYE, {"callee": answers + HEARS_BYE}),
            Flow("timed", "> INVITE sdp | Supported: timer | Session-Expires: 30\n < 100?\n < 422 | Min-SE ~ 90\n > ACK refused"),
        ]
        counted = [Flow("fraud", CALLS_UP + HANGS_UP, {"callee": ANSWERS + HEARS_BYE})]
        flows = [*ends, *pings, *within, *timers, *passwords(), *counted]
        self.finish(*(party for flow in flows for party in self.begin(flow)))
        self.assertEqual(self.count("dialog:expired_dialogs"), 3 * CALLS)
        self.assertEqual(self.count("sst:expired_sst"), 2 * CALLS)
        self.assertEqual(self.count("dialog:failed_dialogs"), 4 * CALLS)
        self.assertEqual(self.count("dialog:processed_dialogs"), (len(flows) - 2) * CALLS)
        self.play(Flow("fraud", REFUSED, values={"status": "403"}))

    def test_operator(self) -> None:
        """The operator sends within a call, holds it, transfers it, ends it; lists its media; a user has five channels."""
        held = Flow("media", CALLS_UP + OFFERED + OFFERED + PING + HEARS_BYE, {"callee": ANSWERS + OFFERED + OFFERED + HEARS_BYE})
        parties = self.begin(held, 1)
        (call,) = self.dialogs(1)
        self.assertIn("qos", str(call), call)
        self.ask("call_hold", callid=call["callid"])
        wait_for(lambda: "call_hold_callee" in str(self.dialogs(1)), "both are on hold")
        self.ask("call_unhold", callid=call["callid"])
        wait_for(lambda: not self.count("tm:inuse_transactions"), "they are not any more")
        self.ask("dlg_send_sequential", callid=call["callid"], mode="caller", method="OPTIONS", body="none")
        self.ask("dlg_end_dlg", dialog_id=call["ID"])
        self.finish(*parties)

        notify = "> NOTIFY message/sipfrag:SIP/2.0_{} | Event: refer | Subscription-State: {}\n < 200\n"
        going = notify.format("100_Trying", "active;expires=60") + notify.format("200_OK", "terminated;reason=noresource")
        sent_on = CALLS_UP + "< REFER | Refer-To ~ osid=\n > 202\n" + going + HANGS_UP
        parties = self.begin(Flow("plain", sent_on, {"callee": ANSWERS + HEARS_BYE}), 1)
        (call,) = self.dialogs(1)
        self.ask("call_transfer", callid=call["callid"], leg="caller", destination=f"sip:carol@127.0.0.1:{self.server.port}")
        self.finish(*parties)

        five = self.begin(Flow("channels", CALLS_UP + HEARS_BYE, {"callee": ANSWERS + HEARS_BYE}), 5)
        self.dialogs(5)
        self.finish(*self.begin(Flow("channels", REFUSED, values={"status": "403"})))
        found: Any = self.ask("dialog:profile_get_size", profile="channels", value="caller")
        self.assertEqual(found["Profile"]["count"], 5)
        self.ask("dialog:profile_end_dlgs", profile="channels")
        self.finish(*five)
        self.play(Flow("channels", CALLS_UP + HANGS_UP, {"callee": ANSWERS + HEARS_BYE}))

    def test_restart(self) -> None:
        """The server is killed in the middle of calls: BYEs of either side find their way, time and pings go on."""
        talk = "wait @talk@\n"
        flows = [
            Flow("plain", CALLS_UP + talk + HANGS_UP, {"callee": ANSWERS + HEARS_BYE}),
            Flow("back", CALLS_UP + HEARS_BYE, {"callee": ANSWERS + talk + HANGS_UP}),
            Flow("lasting", CALLS_UP + HEARS_BYE, {"callee": ANSWERS + HEARS_BYE}),
            Flow("options", CALLS_UP + "until BYE OPTIONS", {"callee": ANSWERS + PING * (TALK // 1000 + 1) + HANGS_UP}),
        ]
        parties = [party for flow in flows for party in self.begin(flow)]
        wait_for(lambda: self.written() == len(flows) * CALLS, "all are answered", self.server.child)
        self.restart()
        self.assertEqual(self.count("dialog:active_dialogs"), len(flows) * CALLS)
        self.finish(*parties)
        self.assertNothingLeft()
