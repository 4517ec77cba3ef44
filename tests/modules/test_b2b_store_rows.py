"""Tests of the rows of back-to-back calls: odd ones, those of OpenSIPS, and those of calls of the server's own."""

from __future__ import annotations

import json

from tests.modules.calls import ALICE, BOB
from tests.modules.test_b2b_store import OWN, ROUTES, StoredBack
from tests.proxy.rig import request


class RowTests(StoredBack):
    """Rows that are odd."""

    def test_long_names(self) -> None:
        """What does not fit into a column is kept all the same."""
        self.store()
        name = "x" * 400
        self.sent(BOB)
        data = request("INVITE", extra=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n")
        self.arrive(data.replace(b"From: ", f'From: "{name}" '.encode()))
        (self.invited,) = self.sent(BOB)
        self.pick_up()
        self.wait(0.01)
        (server,) = [row for row in self.rows() if row["type"] == 0]
        self.assertEqual(len(server["from_dname"]), 64)
        self.restart()
        self.within("INFO", BOB)
        (info,) = self.sent(ALICE)
        self.assertIn(name, info.header("To"))
        self.reply(info, 200, ALICE)
        self.sent(BOB)
        self.hang_up(BOB)

    def test_of_opensips(self) -> None:
        """A row without our own additions is enough."""
        self.store()
        self.talk()
        self.wait(0.01)
        for row in self.rows():
            row["storage"] = None
            if row["type"]:
                row["tag1"] = ""
        self.restart()
        self.within("INFO", ALICE)
        (info,) = self.sent(BOB)
        self.assertEqual((info.to_tag, info.uri), ("b1", f"sip:bob@127.0.0.1:{BOB}"))
        self.reply(info, 200, BOB)
        self.sent(ALICE)
        self.hang_up(BOB)

    def test_unreadable(self) -> None:
        """A row of nonsense is logged; the others go on."""
        self.store()
        self.talk()
        self.wait(0.01)
        self.database.tables["b2b_entities"].append(dict(self.rows()[0], tag1="odd", callid="no\r\nid", contact0="<"))
        self.restart()
        self.assertTrue(any("odd" in line for line in self.logged()))
        self.assertEqual(len(self.command("b2b_logic:list")), 1)

    def test_orphans(self) -> None:
        """A leg without its session, and a session without legs, are cleared away."""
        self.store()
        self.talk()
        self.wait(0.01)
        table = self.database.tables
        kept = [dict(row) for row in table["b2b_logic"]]
        table["b2b_logic"].clear()
        self.restart()
        self.assertEqual(self.counted(), (0, 0))
        table["b2b_logic"] = kept
        self.restart()
        self.assertEqual((self.counted(), self.command("b2b_logic:list")), ((0, 0), []))

    def test_storage(self) -> None:
        """What has no column is JSON."""
        self.store(begin=OWN, rest=ROUTES)
        self.talk()
        self.wait(0.01)
        kept = [json.loads(row["storage"]) for row in self.rows()]
        (session,) = [each["session"] for each in kept if "session" in each]
        self.assertEqual(session, {"values": {"who": "al"}, "routes": ["asked", "answered"]})


class OwnTests(StoredBack):
    """Calls of the server's own."""

    EVENT = """
    event_route[E_UA_SESSION] { xlog("L_ALERT", "$param(event_type) $param(method)"); }
    """

    def call(self, flags: str = "r", params: str = "") -> str:
        """The server calls Bob, who answers; the key."""
        self.store(params=params, rest=self.EVENT)
        start = {"ruri": f"sip:bob@127.0.0.1:{BOB}", "to": "sip:bob@h", "from": "me,sip:me@h", "flags": flags}
        key = self.command("b2b_entities:ua_session_client_start", **start)
        (self.invited,) = self.sent(BOB)
        self.answer(self.invited, 200, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n")
        self.assertEqual(self.said(BOB), ["ACK"])
        return str(key)

    def test_restart(self) -> None:
        """It goes on: requests either way, its letters, the BYE."""
        key = self.call()
        self.restart()
        self.logged()
        self.assertEqual(self.counted(), (1, 0))
        self.assertEqual([each["key"] for each in self.command("b2b_entities:ua_session_list")], [key])
        self.command("b2b_entities:ua_session_update", key=key, method="INFO")
        (info,) = self.sent(BOB)
        self.assertGreater(info.cseq.number, self.invited.cseq.number)
        self.reply(info, 200, BOB)
        self.within("BYE", BOB)
        self.assertEqual(self.said(BOB), ["200 BYE"])
        self.wait(0.01)
        self.assertEqual(self.logged(), ["ANSWERED INFO", "TERMINATED BYE"])
        self.gone()

    def test_limit(self) -> None:
        """Its time goes on."""
        self.call("t100")
        self.wait(90)
        self.restart()
        self.wait(8)
        self.assertEqual(self.said(BOB), [])
        self.wait(3)
        bye = self.sent(BOB)[0]
        self.reply(bye, 200, BOB)
        self.gone()

    def test_leaving(self) -> None:
        """A BYE that nobody has answered is sent again; an answer that the script has not acknowledged is so now."""
        key = self.call()
        self.command("b2b_entities:ua_session_terminate", key=key)
        self.sent(BOB)
        self.restart()
        (bye,) = self.sent(BOB)
        self.reply(bye, 200, BOB)
        self.gone()
