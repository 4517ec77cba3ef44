"""Calls whose two sides are hidden from each other, in each way, with requests of both sides, through a restart."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from sipgw.db.making import create
from sipgw.db.session import open_store
from tests.children import HOST, wait_for
from tests.servers.sql import sqlite
from tests.sipp.troupe import CALLS, Flow, TroupeTestCase

WAYS = ("dialog", "callid", "named", "sealed", "sealedusers")
"""How a call is hidden, as hidden.cfg calls it."""
ASKS = """
    > 407 | Proxy-Authenticate: Digest realm="gateway", nonce="n", algorithm=MD5, qop="auth"
"""


class HiddenTests(TroupeTestCase):
    """Calls through ``hidden.cfg``."""

    config = "hidden.cfg"

    def script(self, text: str) -> str:
        """Fill in the database, and make its tables."""
        url = sqlite(str(self.directory))
        self.database = url.removeprefix("sqlite://")
        with closing(open_store(url, create=True)) as store:
            create(store, ("version", "dialog"))
        return super().script(text).replace("@url@", url)

    def written(self) -> int:
        """How many dialogs the database says are acknowledged."""
        with closing(sqlite3.connect(self.database)) as database:
            (count,) = database.execute("select count(*) from dialog where state = 4").fetchone()
        return int(count)

    def flow(self, way: str, middle: str = "") -> Flow:
        """A call hidden in that ``way`` in which both sides send requests, after what ``middle`` says."""
        seen = "! Record-Route ~ . | ! Via ~ .*Via: | Contact ~ @server@"
        callee_sees = f"{seen} | Call-ID ~ {'DLGCH_' if way == 'callid' else HOST}"
        caller = f"""
            > INVITE sdp
            < 100?
            < 180 | {seen}
            < 200 | {seen}
            > ACK
            {middle}
            > INFO
            < 200
            < INFO | ! msg ~ callee@{HOST}:@callee@
            > 200
            > INVITE sdp:again
            < 100?
            < 200 | {seen} | body ~ answers
            > ACK
            < INVITE | {seen} | body ~ callee
            > 200 sdp
            < ACK
            > UPDATE
            < 200 | {seen}
        """
        callee = f"""
            < INVITE | {callee_sees} | Max-Forwards ~ 69
            > 180
            > 200 sdp
            < ACK | ! Record-Route ~ .
            < INFO | ! msg ~ Via:.*Via:
            > 200
            > INFO
            < 200
            < INVITE | {callee_sees} | body ~ again
            > 200 sdp:answers
            < ACK
            wait 30
            > INVITE sdp
            < 100?
            < 200 | {seen}
            > ACK
            < UPDATE | {callee_sees}
            > 200
        """
        ends = "> BYE\n < 200", "< BYE\n > 200"
        here, over = ends if way in ("dialog", "sealed") else ends[::-1]
        if here == ends[1]:
            over = "wait 30\n" + over
        return Flow(way, caller + here, {"callee": callee + over})

    def test_ways(self) -> None:
        """Both sides see us alone, whatever they send; what is refused, cancelled and asked a password for is hidden as well."""
        flows = [self.flow(way) for way in WAYS]
        cancel = "> INVITE sdp\n < 100?\n < 180\n > CANCEL\n < 200\n < 487\n > ACK refused"
        cancelled = "< INVITE\n > 180\n < CANCEL\n > 200\n > 487 INVITE\n < ACK"
        refused = "> INVITE sdp\n < 100?\n < 486 | ! Record-Route ~ .\n > ACK refused"
        for way in WAYS:
            flows.append(Flow(way, cancel, {"callee": cancelled}))
            flows.append(Flow(way, refused, {"callee": "< INVITE\n > 486\n < ACK"}))
        asked = f"{ASKS}\n < ACK\n"
        flows += [
            Flow(
                way, "> INVITE sdp\n < 100?\n < 200\n > ACK\n > INVITE sdp\n < 100?\n < 200\n > ACK\n > BYE\n < 200 | CSeq ~ 3",
                {
                    "callee": f"< INVITE\n {asked} < INVITE | Proxy-Authorization ~ user\n > 200 sdp\n < ACK | CSeq ~ 2\n"
                    f"< INVITE\n {asked} < INVITE | Proxy-Authorization ~ user | CSeq ~ 4\n > 200 sdp\n < ACK | CSeq ~ 4\n"
                    f"< BYE | CSeq ~ 5\n {ASKS} < BYE | Proxy-Authorization ~ user | CSeq ~ 6\n > 200"
                },
            )
            for way in ("dialog", "callid")
        ]
        pinged = "< OPTIONS | Call-ID ~ DLGCH_\n > 200\n > BYE\n < 200"
        hears_bye = "> INVITE sdp\n < 100?\n < 200\n > ACK\n < BYE\n > 200"
        flows.append(Flow("pinged", hears_bye, {"callee": "< INVITE\n > 200 sdp\n < ACK\n" + pinged}))
        self.play(*flows)

    def test_restart(self) -> None:
        """The server is killed in the middle of calls hidden in each way: they go on as if nothing had been."""
        flows = [self.flow(way, "wait @talk@") for way in WAYS]
        parties = [party for flow in flows for party in self.begin(flow)]
        wait_for(lambda: self.written() == 3 * CALLS, "all with a dialog are answered", self.server.child)
        wait_for(lambda: all(acknowledged(party) for party in parties), "the others are, too", self.server.child)
        self.restart()
        self.finish(*parties)
        self.assertNothingLeft()


def acknowledged(party):
    """Whether all calls of a sipp have got so far; it counts once a second."""
    return any("_ACK_" in name and count >= CALLS for name, count in party.counts().items())
