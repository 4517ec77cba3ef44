"""Tests of usrloc's working modes with a database in memory that can be slow, away, or choosy: REGISTERs in, answers out."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.errors import Unavailable
from sipgw.interfaces import Change
from sipgw.proxy import location_drafts, location_writer
from sipgw.proxy.location_rows import contact_id
from sipgw.proxy.location_writer import PATIENCE
from tests.db.memory import MemoryDatabase
from tests.modules.located import WRITE_BACK, WRITE_THROUGH, Located, message

BOB = "sip:bob@192.0.2.1"


EVENTS = "".join(
    f'event_route[E_UL_{name}] {{ xlog("L_ALERT", "{name} $param({said})\\n"); }}\n'
    for name, said in [
        ("AOR_INSERT", "aor"), ("CONTACT_INSERT", "uri"), ("CONTACT_UPDATE", "uri"), ("CONTACT_DELETE", "uri"),
        ("AOR_DELETE", "aor"),
    ]
)  # fmt: skip


class EventTests(SynchronousTestCase):
    """What is told of contacts, in each mode."""

    def told(self, there: Located) -> list[str]:
        """What was told since the last time."""
        lines = [text.strip() for level, text in there.wired.lines if level == -3]
        there.wired.lines.clear()
        return lines

    def test_told(self) -> None:
        """All modes tell the same, when it is true."""
        for mode in (WRITE_THROUGH, WRITE_BACK, "sql-only"):
            there = Located(mode, EVENTS)
            there.database.slow = mode != WRITE_BACK
            there.register("bob", BOB)
            for _ in range(4):
                self.assertEqual(self.told(there) if there.database._waiting else [], [], mode)
                there.database.answer()
                there.answers()
            self.assertEqual(self.told(there), ["AOR_INSERT bob@example.org", f"CONTACT_INSERT {BOB}"], mode)
            there.database.slow = False
            there.register("bob", "sip:b2@h")
            self.assertEqual(self.told(there), ["CONTACT_INSERT sip:b2@h"], mode)
            there.register("bob", BOB)
            self.assertEqual(self.told(there), [f"CONTACT_UPDATE {BOB}"], mode)
            there.database.down = True
            there.register("bob", "sip:b3@h", expires=700)
            there.register("bob", BOB, expires=0)
            there.database.down = False
            told = self.told(there)
            if mode != WRITE_BACK:
                self.assertEqual([line for line in told if line.startswith(("CONTACT", "AOR"))], [], mode)
                there.answers(1)
                there.register("bob", BOB, expires=0)
                told = self.told(there)
            self.assertIn(f"CONTACT_DELETE {BOB}", told, mode)
            there.register("bob", "*", expires=0)
            self.assertEqual(self.told(there)[-1], "AOR_DELETE bob@example.org", mode)

    def test_statistics(self) -> None:
        """Contacts and users are counted where they are in memory."""
        for mode, contacts in [(WRITE_THROUGH, 2), (WRITE_BACK, 2), ("sql-only", 0)]:
            there = Located(mode)
            there.register("bob", BOB, "sip:b2@h")
            found = there.command("get_statistics", ["usrloc:"])
            self.assertEqual(found["usrloc:location-contacts"], contacts, mode)
            self.assertEqual((found["usrloc:location-users"], found["usrloc:registered_users"]), (contacts // 2, contacts // 2))


class WriteThroughTests(SynchronousTestCase):
    """Contacts in memory that are in the database first."""

    def test_after_the_commit(self) -> None:
        """The answer comes when the contact is safe; what is repeated meanwhile neither is answered nor saved twice."""
        there = Located(WRITE_THROUGH)
        there.database.slow = True
        data = message("REGISTER", "bob", f"Contact: <{BOB}>\r\n")
        self.assertEqual((there.send(data), there.send(data, 1), there.rows(), there.table.count), ([], [], [], 0))
        there.database.answer()
        self.assertEqual([each.status for each in there.answers()], [200])
        self.assertEqual((there.rows(), there.table.count, there.database.batches), ([("bob", BOB)], 1, [1]))
        self.assertEqual([each.status for each in there.send(data)], [200])
        self.assertEqual(there.database.batches, [1])

    def test_together(self) -> None:
        """What comes in one turn is one transaction, and so is what comes while one is on its way."""
        there = Located(WRITE_THROUGH)
        there.database.slow = True
        for user in range(40):
            there.phone.send(message("REGISTER", f"u{user}", f"Contact: <{BOB}>\r\n"), there.wired.address)
            if user == 9:
                there.answers()
        there.answers()
        there.database.answer()
        self.assertEqual(len(there.answers()), 10)
        there.database.answer()
        self.assertEqual(len(there.answers()), 30)
        self.assertEqual((there.database.batches, there.table.count), ([10, 30], 40))

    def test_in_line(self) -> None:
        """Two REGISTERs of one user are applied one after the other, each to what the other has left."""
        there = Located(WRITE_THROUGH)
        there.register("bob", BOB)
        there.database.slow = True
        self.assertEqual(there.register("bob", "sip:b2@h"), "")
        self.assertEqual(there.register("bob", "*", expires=0), "")
        self.assertEqual(there.register("bob", "sip:b3@h"), "")
        self.assertEqual(there.calls("bob"), BOB)
        found = []
        for _ in range(3):
            there.database.answer()
            found.append([len(each.headers("Contact")) for each in there.answers()])
        self.assertEqual((found, there.rows()), ([[1], [0], [1]], [("bob", "sip:b3@h")]))
        self.assertEqual(there.table.bindings("bob@example.org")[0].contact, "sip:b3@h")

    def test_away(self) -> None:
        """Without the database calls go on; a refresh gets the time that the contact has anyway, nothing else is promised."""
        there = Located(WRITE_THROUGH)
        self.assertEqual(there.register("bob", BOB), f"200 {BOB} 600")
        there.clock.advance(100)
        there.database.down = True
        self.assertEqual(there.register("bob", BOB), f"200 {BOB} 500")
        self.assertEqual(there.register("bob", BOB, expires=3600), f"200 {BOB} 500")
        self.assertEqual(there.calls("bob"), BOB)
        for user, contact, expires, more in [
            ("bob", "sip:b2@h", 600, ""),  # another contact
            ("bob", BOB, 0, ""),
            ("bob", BOB, 60, ""),  # less than it has
            ("bob", BOB, 600, "Path: <sip:p@h;lr>\r\n"),  # another way to it
            ("bob", "*", 0, ""),
            ("ann", "sip:a@h", 600, ""),
        ]:
            self.assertEqual(there.register(user, contact, expires=expires, more=more), "503 after 10", (contact, expires))
        self.assertEqual((there.table.count, there.calls("ann")), (1, "-1"))
        self.assertEqual(there.logged().count("no contact is saved until"), 1)
        there.clock.advance(60)
        there.database.down = False
        there.answers(2)
        self.assertEqual(there.register("bob", BOB), f"200 {BOB} 600")
        self.assertEqual(there.register("ann", "sip:a@h"), "200 sip:a@h 600")
        self.assertEqual(there.rows(), [("ann", "sip:a@h"), ("bob", BOB)])

    def test_about_to_expire(self) -> None:
        """A contact that has no time left is not promised any while nothing can be saved."""
        there = Located(WRITE_THROUGH)
        there.register("bob", BOB, expires=60)
        there.database.down = True
        there.clock.advance(57)
        self.assertEqual(there.register("bob", BOB), "503 after 10")

    def test_unknown_outcome(self) -> None:
        """What was written although the database has not said so is undone: it is then as what was acknowledged."""
        there = Located(WRITE_THROUGH)
        there.register("bob", BOB)
        before = there.rows("contact_id", "contact", "expires")
        for contacts, expires in [(["sip:b2@h"], 600), ([BOB], 0), (["*"], 0)]:
            there.database.breaks = True
            self.assertEqual(there.register("bob", *contacts, expires=expires), "503 after 10")
            self.assertNotEqual(there.rows("contact_id", "contact", "expires"), before)
            there.database.down = False
            there.answers(1)
            self.assertEqual(there.rows("contact_id", "contact", "expires"), before)
        there.database.breaks = True
        self.assertEqual(there.register("ann", "sip:a@h"), "503 after 10")
        there.database.down = False
        there.answers(1)
        self.assertEqual(there.register("ann", "sip:a@h"), "200 sip:a@h 600")
        self.assertEqual(there.rows(), [("ann", "sip:a@h"), ("bob", BOB)])

    def test_slow(self) -> None:
        """Nobody waits longer than a few seconds; what is written in the end is true in the end."""
        there = Located(WRITE_THROUGH)
        there.register("bob", BOB)
        there.database.slow = True
        self.assertEqual(there.register("ann", "sip:a@h"), "")
        self.assertEqual(there.register("bob", BOB, expires=700), "")  # waits for the next transaction
        self.assertEqual(sorted(f"{each.status}" for each in there.answers(PATIENCE)), ["200", "503"])
        self.assertEqual(there.register("eve", "sip:e@h"), "503 after 10")
        self.assertEqual(there.register("bob", BOB), f"200 {BOB} 597")
        there.database.slow = False
        there.database.answer()
        self.assertEqual(there.answers(), [])
        self.assertEqual((there.rows(), there.calls("ann")), ([("ann", "sip:a@h"), ("bob", BOB)], "sip:a@h"))
        self.assertEqual(there.register("eve", "sip:e@h"), "200 sip:e@h 600")

    def test_again(self) -> None:
        """A transaction that fails at once is tried again: a deadlock, a connection that was dead."""
        there = Located(WRITE_THROUGH)
        batch, failures = there.database.batch, [Unavailable("deadlock")]

        async def sometimes(changes: Sequence[Change]) -> None:
            await batch(changes)
            if failures:
                raise failures.pop()

        there.database.batch = sometimes  # type: ignore[method-assign]
        self.assertEqual(there.register("bob", BOB), f"200 {BOB} 600")
        self.assertEqual((there.rows(), there.logged()), ([("bob", BOB)], ""))

    def test_old(self) -> None:
        """What has waited for too long behind others is not written any more."""
        self.patch(location_writer, "MOST", 1)
        there = Located(WRITE_THROUGH)
        there.database.slow = True
        for user in ("u1", "u2", "u3"):
            there.phone.send(message("REGISTER", user, f"Contact: <{BOB}>\r\n"), there.wired.address)
        there.answers(2)
        there.database.answer()
        self.assertEqual([each.status for each in there.answers(2)], [200])
        there.database.answer()
        self.assertEqual(sorted(each.status for each in there.answers()), [200, 503])
        self.assertEqual([row[0] for row in there.rows()], ["u1", "u2"])

    def test_woken(self) -> None:
        """A phone that sleeps is woken before its contact expires, also by the process that comes after."""
        rest = 'modparam("usrloc", "contact_refresh_timer", 1)\nmodparam("registrar", "pn_enable", 1)\n'
        rest += 'modparam("registrar", "pn_providers", "apns")\n'
        rest += 'event_route[E_UL_CONTACT_REFRESH] { xlog("L_ALERT", "wake $param(aor) for $param(reason)\\n"); }\n'
        there = Located(WRITE_THROUGH, rest)
        contact = f"{BOB};pn-provider=apns;pn-param=x;pn-prid=y"
        self.assertIn("200", there.register("bob", contact, expires=300, more="Supported: path\r\n"))
        again = Located(WRITE_THROUGH, rest, database=there.database, wire=there.wire, host="127.0.0.2", phone=there.phone)
        for each in (there, again):
            self.assertEqual(each.table.bindings("bob@example.org")[0].marks, 4)
        for _ in range(200):
            there.clock.advance(1)
        for each in (there, again):
            self.assertIn("wake bob@example.org for reg-refresh", [text.strip() for _, text in each.wired.lines])

    def test_bounds(self) -> None:
        """Only so many stand in line for one user, and only so many wait in all; the others are told at once."""
        self.patch(location_drafts, "LINE", 3)
        self.patch(location_writer, "WAITING", 5)
        there = Located(WRITE_THROUGH)
        there.database.slow = True
        answers = [there.register("bob", BOB) for _ in range(6)]
        self.assertEqual(answers, ["", "", "", "", "503 after 10", "503 after 10"])
        answers = [there.register(f"u{number}", BOB) for number in range(7)]
        self.assertEqual(answers, ["", "", "", "", "", "503 after 10", "503 after 10"])
        there.database.slow = False
        there.database.answer()
        self.assertEqual([each.status for each in there.answers()], [200] * 9)

    def test_one_bad(self) -> None:
        """A contact that the database does not take is refused for good, and harms no other of its transaction."""
        there = Located(WRITE_THROUGH)
        there.database.longest = 40
        bad = message("REGISTER", "u3", f"Contact: <sip:{'x' * 60}@h>\r\n")
        for user in range(8):
            data = message("REGISTER", f"u{user}", f"Contact: <{BOB}>\r\n")
            there.phone.send(bad if user == 3 else data, there.wired.address)
        found = {each.to.uri.user: each for each in there.answers()}
        self.assertEqual({user for user, each in found.items() if each.status == 200}, {f"u{n}" for n in range(8) if n != 3})
        self.assertEqual((found["u3"].status, found["u3"].header("Retry-After"), there.table.count), (500, None, 7))

    def test_restart(self) -> None:
        """A new process has the contacts with the seconds they have left, in their order, and the values of scripts."""
        there = Located(WRITE_THROUGH, first='ul_add_key("location", "bob@example.org", "colour", "$ci");')
        there.register("bob", BOB, expires=600)
        there.answers(1)
        there.register("bob", "sip:b2@h", expires=60)
        there.register("ann", "sip:a@h", more='Path: <sip:p@h;lr>\r\nUser-Agent: phone\r\nAllow: INVITE\r\n')
        there.clock.advance(50)
        again = Located(WRITE_THROUGH, database=there.database, wire=there.wire, host="127.0.0.2", phone=there.phone)
        now = again.clock.seconds()
        found = {aor: [(each.contact, each.seconds_left(now)) for each in bindings] for aor, bindings in again.table}
        self.assertEqual(
            found, {"ann@example.org": [("sip:a@h", 550)], "bob@example.org": [(BOB, 549), ("sip:b2@h", 10)]}
        )
        ann = again.table.bindings("ann@example.org")[0]
        self.assertEqual((ann.path, ann.user_agent, ann.methods, ann.marks), ("<sip:p@h;lr>", "phone", 1, 0))
        self.assertEqual(again.table.values("bob@example.org"), {"colour": "ann"})
        self.assertIn("3 contacts of location loaded", "".join(text for _, text in again.wired.lines))
        self.assertEqual(again.register("bob", BOB), "200 " + f"{BOB} 600, sip:b2@h 10")
        again.clock.advance(60)
        third = Located(WRITE_THROUGH, database=there.database, wire=there.wire, host="127.0.0.3", phone=there.phone)
        third.answers()
        self.assertEqual((third.table.count, third.rows()), (2, [("ann", "sip:a@h"), ("bob", BOB)]))

    def test_expiry(self) -> None:
        """What has expired is deleted from the database too, unless it has come back."""
        there = Located(WRITE_THROUGH, 'modparam("usrloc", "max_contact_delete", 2)')
        for user in range(5):
            there.register(f"u{user}", BOB, expires=60)
        there.clock.advance(61)
        self.assertEqual(there.register("u0", BOB), f"200 {BOB} 600")
        there.answers(59.5)
        self.assertEqual((there.rows(), there.table.count, there.table.expired), ([("u0", BOB)], 1, 5))

    def test_doors(self) -> None:
        """Every other way to change contacts goes through the database, and says so when that cannot be."""
        first = 'if ($rm == "INFO") { remove("location", "sip:$tU@$td"); sl_send_reply(200, "$rc"); exit; }\n'
        first += 'if ($rm == "PUBLISH") { remove_ip_port("192.0.2.9", 5060, "location"); sl_send_reply(200, "$rc"); exit; }\n'
        first += 'if ($rm == "OPTIONS") { ul_add_key("location", "$tU@$td", "k", "v"); sl_send_reply(200, "$rc"); exit; }'
        there = Located(WRITE_THROUGH, first=first)

        def asks(method: str, user: str) -> str:
            there.cseq += 1
            return " ".join(each.reason for each in there.send(message(method, user, cseq=there.cseq)))

        there.register("bob", BOB, "sip:b2@h")
        there.register("ann", "sip:a@192.0.2.9")
        there.register("eve", "sip:e@192.0.2.9")
        self.assertEqual(asks("OPTIONS", "ann"), "1")
        self.assertEqual(there.rows("username", "kv_store")[0], ("ann", '{"_urec_kvs":"{\\"k\\":\\"v\\"}"}'))
        self.assertEqual(there.command("usrloc:add", "location", "zoe@example.org", "sip:z@h", 60, "1", 0, 0, 1), "OK")
        self.assertEqual(there.command("usrloc:rm_contact", "location", "bob@example.org", "sip:b2@h"), "OK")
        there.database.down = True
        self.assertEqual((asks("INFO", "bob"), asks("PUBLISH", "bob"), asks("OPTIONS", "bob")), ("-1", "-1", "-1"))
        self.assertEqual(there.command("usrloc:rm", "location", "bob@example.org")[0], 500)
        self.assertEqual((there.table.count, len(there.rows())), (4, 4))
        there.database.down = False
        there.answers(1)
        self.assertEqual((asks("INFO", "bob"), asks("PUBLISH", "bob")), ("1", "1"))
        self.assertEqual(there.rows(), [("zoe", "sip:z@h")])
        self.assertEqual(there.command("usrloc:rm", "location", "nobody@example.org"), (404, "AOR not found"))
        self.assertEqual(there.command("usrloc:rm", "location", "zoe@example.org"), "OK")
        self.assertEqual((there.rows(), there.table.count), ([], 0))

    def test_sync(self) -> None:
        """The database can be made like the memory, for one user or for all."""
        there = Located(WRITE_THROUGH)
        there.register("bob", BOB)
        there.register("ann", "sip:a@h")
        whole = there.rows("username", "contact", "callid")
        rows = there.database.tables["location"]
        rows.append({**rows[0], "contact_id": 7, "contact": "sip:ghost@h"})
        rows.append({**rows[1], "contact_id": 8, "contact": "sip:ghost@h"})
        rows[1]["callid"] = "wrong"
        self.assertEqual(there.command("usrloc:sync", "location", "bob@example.org"), "OK")
        self.assertEqual(len(there.rows()), 3)
        self.assertEqual(there.command("usrloc:sync", "location"), "OK")
        self.assertEqual(there.rows("username", "contact", "callid"), whole)
        self.assertEqual(there.command("usrloc:sync", "location", "eve@example.org"), (404, "AOR not found"))
        self.assertEqual(there.command("usrloc:show_contact", "location", "bob@example.org")["Contacts"][0]["State"], "CS_SYNC")

    def test_memory_only(self) -> None:
        """A contact that shall be in memory alone does not wait for a database; it leaves it when it becomes one."""
        there = Located(
            WRITE_THROUGH, first='if ($rm == "REGISTER" && $hdr(X) != NULL) { save("location", "memory-only"); exit; }'
        )
        there.register("bob", BOB)
        there.register("bob", "sip:b2@h", more="X: y\r\n")
        self.assertEqual((there.rows(), there.table.count), ([("bob", BOB)], 2))
        there.register("bob", BOB, more="X: y\r\n")
        self.assertEqual(there.rows(), [])
        there.database.down = True
        self.assertEqual(there.register("bob", BOB, expires=0, more="X: y\r\n"), "200 sip:b2@h 600")

    def test_numbers(self) -> None:
        """Rows with ids that OpenSIPS would not take are kept, or get others if that is wished; doubled ones are merged."""
        there = Located(WRITE_THROUGH)
        there.register("bob", BOB)
        rows = there.database.tables["location"]
        good = rows[0]["contact_id"]
        rows[0]["contact_id"] = 5
        rows.append({**rows[0], "contact_id": 6, "cseq": 99})
        again = Located(WRITE_THROUGH, database=there.database)
        self.assertEqual([each.serial for each in again.table.bindings("bob@example.org")], [6])
        self.assertEqual(again.rows("contact_id", "cseq"), [(6, 99)])
        third = Located(WRITE_THROUGH, 'modparam("usrloc", "regen_broken_contactid", 1)', database=there.database)
        self.assertEqual(third.rows("contact_id"), [(good,)])
        self.assertEqual(third.table.bindings("bob@example.org")[0].serial, good)
        self.assertEqual(good, contact_id("bob@example.org", BOB))


class WriteBackTests(SynchronousTestCase):
    """Contacts in memory that get into the database now and then."""

    def state(self, there: Located, user: str = "bob") -> str:
        """How the first contact stands to its row."""
        return str(there.command("usrloc:show_contact", "location", f"{user}@example.org")["Contacts"][0]["State"])

    def test_flush(self) -> None:
        """The timer writes what has changed, once; a contact that came and went is never written."""
        there = Located(WRITE_BACK, 'modparam("usrloc", "timer_interval", 10)')
        self.assertEqual(there.register("bob", BOB), f"200 {BOB} 600")
        there.register("ann", "sip:a@h")
        there.register("eve", "sip:e@h")
        there.register("eve", "*", expires=0)
        self.assertEqual((there.rows(), self.state(there)), ([], "CS_NEW"))
        there.answers(10)
        self.assertEqual((there.rows(), self.state(there)), ([("ann", "sip:a@h"), ("bob", BOB)], "CS_SYNC"))
        there.register("bob", BOB)
        there.register("ann", "*", expires=0)
        self.assertEqual(self.state(there), "CS_DIRTY")
        there.answers(10)
        self.assertEqual((there.rows("username", "cseq"), there.database.batches), ([("bob", there.cseq - 1)], [2, 2]))
        there.answers(10)
        self.assertEqual(there.database.batches, [2, 2])

    def test_end(self) -> None:
        """What has not been written is written at the end, and by the command."""
        there = Located(WRITE_BACK)
        there.register("bob", BOB)
        self.assertEqual(there.command("usrloc:flush"), "OK")
        self.assertEqual(there.rows(), [("bob", BOB)])
        there.register("ann", "sip:a@h")
        stopping = there.wired.server.modules["usrloc"].stop()
        stopping.send(None)
        there.answers()
        self.assertEqual(there.rows(), [("ann", "sip:a@h"), ("bob", BOB)])

    def test_away(self) -> None:
        """What cannot be written stays to be written, in its newest form."""
        there = Located(WRITE_BACK, 'modparam("usrloc", "timer_interval", 10)')
        there.register("bob", BOB)
        there.database.down = True
        there.answers(10)
        self.assertEqual(there.command("usrloc:flush")[0], 500)
        there.register("bob", BOB)
        there.register("ann", "sip:a@h")
        there.database.down = False
        there.answers(10)
        self.assertEqual(there.rows("username", "cseq"), [("ann", 3), ("bob", 2)])

    def test_meanwhile(self) -> None:
        """What changes while it is being written is written again: nothing stays that has gone, nothing goes that has come."""
        there = Located(WRITE_BACK, 'modparam("usrloc", "timer_interval", 10)')
        there.register("bob", BOB)
        there.register("ann", "sip:a@h")
        there.database.slow = True
        there.answers(10)
        there.register("bob", "*", expires=0)
        there.register("ann", "*", expires=0)
        there.answers(10)
        there.register("ann", "sip:a@h")
        there.answers(10)
        for _ in range(6):
            there.database.answer()
            there.answers()
        there.database.slow = False
        there.answers(10)
        self.assertEqual((there.rows(), there.table.count), ([("ann", "sip:a@h")], 1))

    def test_restart(self) -> None:
        """A new process has what was written, expired contacts excepted."""
        there = Located(WRITE_BACK, first='ul_add_key("location", "bob@example.org", "colour", "blue");')
        there.register("bob", BOB)
        there.register("ann", "sip:a@h", expires=90)
        there.register("bob", BOB)
        there.answers(60)
        there.clock.advance(40)
        again = Located(WRITE_BACK, database=there.database, wire=there.wire, host="127.0.0.2", phone=there.phone)
        again.answers()
        self.assertEqual([(aor, len(each)) for aor, each in again.table], [("bob@example.org", 1)])
        self.assertEqual(again.table.values("bob@example.org"), {"colour": "blue"})
        self.assertEqual((again.rows(), self.state(again)), ([("bob", BOB)], "CS_SYNC"))


class SqlOnlyTests(SynchronousTestCase):
    """Contacts in the database alone."""

    def test_shared(self) -> None:
        """Two servers share their contacts; each sees at once what the other has saved."""
        one = Located("sql-only")
        other = Located("sql-only", database=one.database, wire=one.wire, host="127.0.0.2", phone=one.phone)
        self.assertEqual(one.register("bob", BOB), f"200 {BOB} 600")
        self.assertEqual(other.calls("bob"), BOB)
        self.assertEqual(other.register("bob", "sip:b2@h", call_id="other"), f"200 {BOB} 600, sip:b2@h 600")
        self.assertEqual(one.register("bob", BOB, expires=0), "200 sip:b2@h 600")
        self.assertEqual((other.calls("bob"), one.table.count), ("sip:b2@h", 0))
        shown = other.command("usrloc:show_contact", "location", "bob@example.org")
        self.assertEqual([each["Contact"] for each in shown["Contacts"]], ["sip:b2@h"])
        self.assertEqual(other.command("usrloc:dump")["Domains"][0]["AORs"], [shown])
        self.assertEqual(one.command("usrloc:rm", "location", "bob@example.org"), "OK")
        self.assertEqual((other.calls("bob"), other.rows()), ("-1", []))

    def test_doors(self) -> None:
        """Every other way to change contacts works on the database too."""
        first = 'if ($rm == "INFO") { remove("location", "sip:$tU@$td", "sip:b2@h"); sl_send_reply(200, "$rc"); exit; }\n'
        first += 'if ($rm == "PUBLISH") { remove_ip_port("192.0.2.9", 5060, "location"); sl_send_reply(200, "$rc"); exit; }\n'
        there = Located("sql-only", first=first)

        def asks(method: str, user: str) -> str:
            there.cseq += 1
            return " ".join(each.reason for each in there.send(message(method, user, cseq=there.cseq)))

        there.register("bob", BOB, "sip:b2@h")
        for user in ("ann", "eve"):
            there.register(user, f"sip:{user}@192.0.2.9")
        self.assertEqual(there.command("usrloc:add", "location", "zoe@example.org", "sip:z@h", 60, "1", 1, 0, 1), "OK")
        self.assertEqual(asks("INFO", "bob"), "1")
        self.assertEqual(asks("PUBLISH", "bob"), "1")
        self.assertEqual(there.rows(), [("bob", BOB), ("zoe", "sip:z@h")])
        self.assertEqual(there.command("usrloc:rm_contact", "location", "zoe@example.org", "sip:z@h"), "OK")
        self.assertEqual(there.command("usrloc:show_contact", "location", "zoe@example.org"), (404, "AOR not found"))
        there.database.down = True
        self.assertEqual((asks("INFO", "bob"), asks("PUBLISH", "bob")), ("-1", "-1"))
        self.assertEqual(there.command("usrloc:dump")[0], 500)
        self.assertEqual(there.command("usrloc:rm", "location", "bob@example.org")[0], 500)

    def test_flags(self) -> None:
        """A contact that shall be in memory alone is in the database, since there is no memory."""
        there = Located("sql-only", first='if ($rm == "REGISTER") { save("location", "memory-only"); exit; }')
        self.assertEqual(there.register("bob", BOB), f"200 {BOB} 600")
        self.assertEqual(there.rows("contact", "flags"), [(BOB, 0)])

    def test_away(self) -> None:
        """While the database is away nobody is found, which is said apart from nobody being there, and nothing is saved."""
        there = Located("sql-only")
        there.register("bob", BOB)
        there.database.down = True
        self.assertEqual((there.calls("bob"), there.register("bob", BOB)), ("-3", "503 after 10"))
        there.database.down = False
        there.answers(1)
        self.assertEqual((there.calls("bob"), there.register("bob", BOB)), (BOB, f"200 {BOB} 600"))

    def test_questions(self) -> None:
        """What a script asks of users is read from the database."""
        asks = "".join(
            f'if ({question}) append_to_reply("X: {number}\\r\\n");\n'
            for number, question in enumerate(
                [
                    'is_registered("location")',
                    'is_registered("location", "sip:ann@example.org")',
                    'is_contact_registered("location", , "sip:bob@192.0.2.1")',
                    'is_contact_registered("location", , "sip:x@h")',
                    'is_ip_registered("location", , $si)',
                    'ul_get_key("location", "bob@example.org", "k", $var(x)) && $var(x) == "v"',
                ]
            )
        )
        first = 'if ($rm == "OPTIONS") { ul_add_key("location", "$tU@$td", "k", "v");\n' + asks
        first += 'sl_send_reply(200, "$rc"); exit; }'
        there = Located("sql-only", 'loadmodule "sipmsgops.so"', first=first)
        there.register("bob", BOB)
        answer = there.send(message("OPTIONS", "bob"))[0]
        self.assertEqual(answer.headers("X"), ["0", "2", "4", "5"])

    def test_expiry(self) -> None:
        """What has expired is not found, and its row deleted by whoever comes first."""
        there = Located("sql-only")
        there.register("bob", BOB, expires=60)
        there.clock.advance(61)
        self.assertEqual(there.calls("bob"), "-1")
        there.answers(60)
        self.assertEqual(there.rows(), [])

    def test_cases(self) -> None:
        """A database that compares without regard to case does not mix users."""
        database = MemoryDatabase()
        matches = database._matches
        database._matches = lambda row, where: matches(  # type: ignore[method-assign]
            {name: value.lower() if isinstance(value, str) else value for name, value in row.items()},
            {name: value.lower() if isinstance(value, str) else value for name, value in where.items()}
            if isinstance(where, dict)
            else where,
        )
        there = Located("sql-only", database=database)
        there.register("bob", BOB)
        there.register("Bob", "sip:other@h")
        self.assertEqual((there.calls("bob"), there.calls("Bob")), (BOB, "sip:other@h"))
