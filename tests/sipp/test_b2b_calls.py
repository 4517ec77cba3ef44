"""Calls back to back: what phones may do in each state, and parties that come and go; sipp plays all of them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from sipgw.db.making import create
from sipgw.db.session import open_store
from tests.children import HOST, wait_for
from tests.servers.sql import sqlite
from tests.sipp.troupe import Flow, TroupeTestCase

CALLS_UP = """
    > INVITE sdp
    < 100?
    < 180
    < 200
    > ACK
"""
ANSWERS = """
    < INVITE
    > 180
    > 200 sdp
    < ACK
"""
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
OFFERS = """
    > INVITE sdp
    < 100?
    < 200
    > ACK
"""
GIVES_UP = """
    > CANCEL
    < 200
    < 487
    > ACK refused
"""
CANCELLED = """
    < CANCEL
    > 200
    > 487 INVITE
    < ACK
"""
OFFERS_LATE = """
    < INVITE | ! body ~ m=
    > 180
    > 200 sdp
    < ACK | body ~ m=audio
"""
"""Somebody who is called without an offer."""
ASKS = """
    > 407 | Proxy-Authenticate: Digest realm="gateway", nonce="n", algorithm=MD5, qop="auth"
"""


def hidden() -> list[Flow]:
    """Calls that are only passed on: both sides do all that phones do."""
    seen = f"! Record-Route ~ . | ! Via ~ .*Via: | Contact ~ {HOST}:@server@"
    caller = f"""
        > INVITE sdp
        < 100?
        < 180 | {seen}
        < 200 | {seen} | body ~ o=callee
        > ACK
        > INFO application/x:tones
        < 200
        < INFO | body ~ tones
        > 200
        > INVITE sdp:again
        < 100?
        < 200 | body ~ answers
        > ACK
        < INVITE | body ~ o=anew | {seen}
        > 200 sdp
        < ACK
        > UPDATE sdp:update
        < 200 | body ~ agreed
        < UPDATE | body ~ update
        > 488
    """
    callee = f"""
        < INVITE | {seen} | Call-ID ~ B2B | Max-Forwards ~ 69 | body ~ o=caller
        > 180
        > 200 sdp
        < ACK
        < INFO | body ~ tones
        > 200
        > INFO application/x:tones
        < 200
        < INVITE | body ~ again
        > 200 sdp:answers
        < ACK
        wait 30
        > INVITE sdp:anew
        < 100?
        < 200 | body ~ o=caller
        > ACK
        < UPDATE | body ~ o=update
        > 200 sdp:agreed
        wait 30
        > UPDATE sdp:update
        < 488
    """
    late = "wait 1500\n > BYE\n < 200"
    glare = """
        < INVITE
        > INVITE sdp
        < 100?
        < 491
        > ACK refused
        > 200 INVITE sdp
        < ACK
        wait 30
    """
    asked = f"{ASKS}\n < ACK\n"
    password = f"""
        < INVITE
        {asked}
        < INVITE | Proxy-Authorization ~ user
        > 200 sdp
        < ACK | CSeq ~ @number@
    """
    return [
        Flow("top", caller + HANGS_UP, {"callee": callee + HEARS_BYE}),
        Flow("script", caller + HEARS_BYE, {"callee": callee + "wait 30" + HANGS_UP}),
        Flow("top", CALLS_UP + HANGS_UP + late, {"callee": ANSWERS + HEARS_BYE}),
        Flow("top", CALLS_UP + HANGS_UP, {"callee": ANSWERS + "< BYE\n > BYE\n < 200\n > 200"}),
        Flow("top", CALLS_UP + OFFERS + OFFERED + HANGS_UP, {"callee": ANSWERS + glare + OFFERS + HEARS_BYE}),
        Flow(
            "top", "> INVITE sdp\n < 100?\n < 200\n > ACK\n" + OFFERS + HANGS_UP,
            {
                "callee": password.replace("@number@", "[23]") + password.replace("@number@", "[45]")
                + f"< BYE\n {ASKS} < BYE | Proxy-Authorization ~ user\n > 200"
            },
        ),
    ]


def reliable() -> list[Flow]:
    """Reliable provisional responses, and UPDATEs before the answer."""
    begin = "> INVITE sdp | Supported: 100rel\n < 100?\n"
    callee = """
        < INVITE | Supported ~ 100rel
        > 183 sdp | Require: 100rel | RSeq: 7
        < PRACK | RAck ~ ^ *7 [0-9]+ INVITE
        > 200
    """
    caller = begin + "< 183 | Require ~ 100rel | RSeq ~ .\n > PRACK\n < 200\n"
    update = "> UPDATE sdp:early\n < 200 | body ~ agreed\n"
    updated = "< UPDATE | body ~ early\n > 200 sdp:agreed\n wait 50\n"
    return [
        Flow("top", caller + "< 200\n > ACK" + HANGS_UP, {"callee": callee + "wait 100\n > 200 INVITE\n < ACK" + HEARS_BYE}),
        Flow(
            "top", caller + update + "< 200\n > ACK" + HANGS_UP,
            {"callee": callee + updated + "> 200 INVITE\n < ACK" + HEARS_BYE},
        ),
    ]


def given_up() -> list[Flow]:
    """Calls that come to nothing, and re-INVITEs: cancelled in each state, refused, never answered."""
    begin = "> INVITE sdp\n < 100?\n"
    return [
        Flow("top", "> INVITE sdp\n < 100\n wait 100" + GIVES_UP, {"callee": "< INVITE\n wait 400\n > 180" + CANCELLED}),
        Flow("top", begin + "< 180" + GIVES_UP, {"callee": "< INVITE\n > 180" + CANCELLED}),
        Flow(
            "script", begin + "< 180" + GIVES_UP,
            {"callee": "< INVITE\n > 180\n < CANCEL\n > 200\n > 200 INVITE sdp\n < ACK" + HEARS_BYE},
        ),
        Flow("top", CALLS_UP + "> INVITE sdp\n < 100?\n < 180" + GIVES_UP + HANGS_UP,
             {"callee": ANSWERS + "< INVITE\n > 180" + CANCELLED + HEARS_BYE}),
        Flow("top", begin + "< 486\n > ACK refused", {"callee": "< INVITE\n > 486\n < ACK"}),
        Flow("top", begin + "< 180\n < 408\n > ACK refused", {"callee": "< INVITE\n > 180" + CANCELLED}),
        Flow("top", CALLS_UP + "> INVITE sdp\n < 100?\n < 488\n > ACK refused" + HANGS_UP,
             {"callee": ANSWERS + "< INVITE\n > 488\n < ACK" + HEARS_BYE}),
        Flow("top", CALLS_UP + "> INFO\n any 481 BYE", {"callee": ANSWERS + "< INFO\n > 481" + HEARS_BYE}),
    ]


def joined() -> list[Flow]:
    """Parties come and go: transfers of either side by REFER, a media server that the caller hears first, failures of each."""
    refers = "> REFER | Refer-To: <sip:third@x>\n any 202 BYE\n"
    third = {"third": OFFERS_LATE + HEARS_BYE}
    return [
        Flow("transfer", CALLS_UP + OFFERED + HANGS_UP, {"callee": ANSWERS + "wait 30\n" + refers, **third}),
        Flow("transfer", CALLS_UP + refers, {"callee": ANSWERS + OFFERED + HANGS_UP, **third}),
        Flow("media", CALLS_UP + OFFERED + HANGS_UP, {"callee": ANSWERS + "wait 30" + HANGS_UP, **third}),
        Flow("transfer", CALLS_UP + HEARS_BYE, {"callee": ANSWERS + "wait 30\n" + refers, "third": "< INVITE\n > 486\n < ACK"}),
    ]


TOLD = "any 202 NOTIFY\n until BYE NOTIFY\n"
"""Who has sent a REFER is told how it goes, and hung up on."""


def referred() -> list[Flow]:
    """Transfers that the scenario "refer" carries out, and the script with a media server meanwhile: what is told, what fails."""
    refers = "wait 30\n > REFER | Refer-To: <sip:at-@third@@x>\n"
    third = {"third": ANSWERS + HEARS_BYE}
    refused = {"third": "< INVITE\n wait 150\n > 486\n < ACK"}
    fails = "any 202 NOTIFY\n < NOTIFY | body ~ 486\n > 200\n wait 50\n > INFO\n < 200\n"
    return [
        Flow("refer", CALLS_UP + OFFERED + HANGS_UP, {"callee": ANSWERS + refers + TOLD, **third}),
        Flow("refer", CALLS_UP + refers + TOLD, {"callee": ANSWERS + OFFERED + HANGS_UP, **third}),
        Flow("refer", CALLS_UP + "< INFO\n > 200" + HANGS_UP, {"callee": ANSWERS + refers + fails + HEARS_BYE, **refused}),
        Flow(
            "announced", CALLS_UP + OFFERED + OFFERED + HANGS_UP,
            {
                "callee": ANSWERS + refers + TOLD, "third": "< INVITE\n > 180\n wait 300\n > 200 sdp\n < ACK" + HEARS_BYE,
                "media": ANSWERS + HEARS_BYE,
            },
        ),
    ]


class BackToBackTests(TroupeTestCase):
    """Calls through ``backtoback.cfg``."""

    config = "backtoback.cfg"

    def script(self, text: str) -> str:
        """Fill in the database, and make its tables."""
        url = sqlite(str(self.directory))
        self.database = url.removeprefix("sqlite://")
        with closing(open_store(url, create=True)) as store:
            create(store, ("version", "b2b_entities", "b2b_logic"))
        return super().script(text).replace("@url@", url)

    def rows(self) -> int:
        """How many legs the database has."""
        with closing(sqlite3.connect(self.database)) as database:
            (count,) = database.execute("select count(*) from b2b_entities").fetchone()
        return int(count)

    def test_calls(self) -> None:
        """All that can be done in a call, and all parties that may come and go."""
        self.play(*hidden(), *reliable(), *given_up(), *joined(), *referred())
        self.assertEqual(self.rows(), 0)

    def test_operator(self) -> None:
        """The operator parks a caller with a media server, and lets somebody else take the call from there; a parked caller is
        taken by who calls for him; the operator lets two be called and joined. A callee who has called a third as well sends his
        caller there."""
        flow = Flow(
            "script", CALLS_UP + OFFERED + OFFERED + HANGS_UP,
            {"callee": ANSWERS + HEARS_BYE, "park": OFFERS_LATE + HEARS_BYE, "third": OFFERS_LATE + HEARS_BYE},
        )
        parties = self.begin(flow, 1)
        _callee, park, third, _caller = parties
        (session,) = wait_for(self.talking, "both sides talk", self.server.child)
        self.ask("b2b_bridge", dialog_id=session["key"], new_uri=f"sip:park@{HOST}:{park.port}")
        wait_for(lambda: f":{park.port}" in str(self.talking()), "the caller hears the media server", self.server.child)
        self.ask("b2b_bridge", dialog_id=session["key"], new_uri=f"sip:third@{HOST}:{third.port}")
        self.finish(*parties)
        ended = self.begin(Flow("script", CALLS_UP + HEARS_BYE, {"callee": ANSWERS + HEARS_BYE}), 1)
        (session,) = wait_for(self.talking, "both sides talk", self.server.child)
        self.ask("b2b_terminate_call", key=session["key"])
        self.finish(*ended)

        consulted = self.begin(Flow("refer", CALLS_UP + HEARS_BYE, {"third": ANSWERS + OFFERED + HEARS_BYE}), 1)
        (session,) = wait_for(self.talking, "the third one is asked", self.server.child)
        known = session["entities"][0]
        replaces = f"{known['callid']}%3Bto-tag%3D{known['totag']}%3Bfrom-tag%3D{known['fromtag']}"
        refers = "wait 30\n > REFER | Refer-To: <sip:at-9@x?Replaces=@replaces@>\n"
        caller = CALLS_UP + OFFERED + HANGS_UP
        flow = Flow("refer", caller, {"callee": ANSWERS + refers + TOLD}, values={"replaces": replaces})
        self.finish(*self.begin(flow, 1), *consulted)

        parked = self.begin(Flow("script", CALLS_UP + OFFERED + HEARS_BYE, {"park": ANSWERS + HEARS_BYE}), 1)
        (session,) = wait_for(self.talking, "he is parked", self.server.child)
        taker = Flow("pickup", "> INVITE sdp | X-Key: @key@\n < 100?\n < 200\n > ACK" + HANGS_UP, values={"key": session["key"]})
        self.finish(*self.begin(taker, 1), *parked)

        two = [self.act(f"two {name}", ANSWERS + end, {}) for name, end in (("one", HANGS_UP), ("other", HEARS_BYE))]
        uris = [f"{name},sip:{name}@{HOST}:{party.port}" for name, party in zip(("one", "other"), two, strict=True)]
        self.ask("b2b_trigger_scenario", scenario_id="two", entity1=uris[0], entity2=uris[1])
        self.finish(*two)
        self.assertNothingLeft()

    def talking(self) -> list[dict[str, Any]]:
        """The sessions both of whose sides talk."""
        found: Any = self.ask("b2b_list")
        return [each for each in found if all(entity["state"] == "talking" for entity in each["entities"])]
