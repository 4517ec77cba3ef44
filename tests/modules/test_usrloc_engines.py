"""usrloc's working modes on real SQL databases, the same cases on each engine: what goes in comes back in the next process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.testing import Phone, Wire
from tests.db.cases import PAYLOADS
from tests.modules.located import WRITE_BACK, WRITE_THROUGH, Located, message
from tests.servers.sql import fresh, missing

ODD = "sip:b%22'%5C@192.0.2.7;transport=tcp;line='--%25s"
BOB = "sip:bob@192.0.2.1"


def is_call_id(text: str) -> bool:
    """Whether a message may have it as its Call-ID (RFC 3261 25.1)."""
    return re.fullmatch(r"""[A-Za-z0-9\-.!%*_+`'~()<>:\\"/\[\]?{}]+""", text) is not None


class Modes:
    """The cases; a subclass says which ``engine``."""

    engine = ""

    def setUp(self: Any) -> None:
        """Have a database with its table."""
        why = missing(self.engine)
        if why:
            raise SkipTest(why)
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.url = fresh(self.engine, str(directory))
        store = open_store(self.url, create=True)
        create(store, ["location"])
        store.close()
        self.wire = Wire(Clock())
        self.phone = Phone(self.wire, "192.0.2.1")
        self.hosts = iter(range(1, 99))
        self.cseq = 0

    def start(self: Any, mode: str, rest: str = "") -> Located:
        """A server on the database."""
        more = f'loadmodule "db_{self.engine}.so"\nmodparam("usrloc", "db_url", "{self.url}")\n'
        more += 'modparam("registrar", "attr_avp", "$avp(attr)")\n'
        more += 'modparam("registrar", "received_avp", "$avp(received)")\n' + rest
        first = """if ($rm == "REGISTER") {
            setbflag("NAT"); setbflag("OTHER");
            $avp(attr) = "it's \\"an\\" attribute \u00e4";
            if ($hdr(X) != NULL) $avp(received) = "sip:198.51.100.1:7777";
        }
        if ($rm == "OPTIONS") { ul_add_key("location", "$tU@$td", "k", "v's"); sl_send_reply(200, "$rc"); exit; }
        """
        there: Located = Located(
            mode, more, first=first, wire=self.wire, host=f"127.0.0.{next(self.hosts)}", phone=self.phone, memory=False
        )

        def close() -> None:
            stopping = there.wired.server.databases.open(self.url)
            try:
                stopping.send(None)
            except StopIteration as opened:
                try:
                    opened.value.close().send(None)
                except StopIteration:
                    pass

        self.addCleanup(close)
        there.cseq = self.cseq = self.cseq + 100
        return there

    def fill(self: Any, there: Located) -> None:
        """Register whatever a contact can have."""
        more = 'Path: <sip:p@192.0.2.9;lr>\r\nAllow: INVITE, MESSAGE\r\nUser-Agent: it\'s a "phone" \u00e4\\ %s ? $1\r\nX: y\r\n'
        self.assertEqual(there.register("bob", BOB, more=more), f'200 {BOB} 600;received="sip:198.51.100.1:7777"')
        self.assertTrue(there.register("bob", ODD, expires=90).startswith("200 "))
        self.assertTrue(there.register("o'neil", BOB).startswith("200 "))
        self.assertEqual(there.register("eve", BOB, expires=60), f"200 {BOB} 60")
        self.assertEqual([each.reason for each in there.send(message("OPTIONS", "bob"))], ["1"])

    def contacts(self: Any, there: Located) -> Any:
        """All that a server knows of Bob, but for the seconds that his contacts have left."""
        shown = there.command("usrloc:show_contact", "location", "bob@example.org")
        found = []
        for each in sorted(shown["Contacts"], key=lambda each: str(each["Contact"])):
            found.append({name: value for name, value in each.items() if name not in ("Expires", "State", "Socket")})
        return found, shown.get("KV-Store"), there.calls("o'neil")

    def test_restart(self: Any) -> None:
        """In each mode the next process knows all that this one did; what expires goes from the database too."""
        kv = 'modparam("usrloc", "mi_dump_kv_store", 1)'
        known: Any = None
        for mode in (WRITE_THROUGH, WRITE_BACK, "sql-only"):
            there = self.start(mode, kv)
            if known is None:
                self.fill(there)
                known = self.contacts(there)
                self.assertEqual([each["Cflags"] for each in known[0]], ["NAT OTHER"] * 2)
                self.assertEqual([each.get("Received") for each in known[0]], [None, "sip:198.51.100.1:7777"])
                self.assertEqual(known[1], '{"k":"v\'s"}')
            self.assertEqual(self.contacts(there), known, mode)
            self.assertEqual(there.register("bob", BOB, more="User-Agent: other\r\n").partition(" ")[0], "200")
            there.register("bob", ODD, expires=90)
            there.answers(1)
            known = self.contacts(there)
            there.command("usrloc:flush")
            self.assertEqual(self.contacts(there), known, mode)
        there.answers(120)
        store = open_store(self.url)
        rows = [row[0] for row in store.select("location", ["username"], order="username").rows]
        store.close()
        self.assertEqual(rows, ["bob", "o'neil"])

    def test_sync(self: Any) -> None:
        """The table is made like the memory."""
        there = self.start(WRITE_THROUGH)
        self.fill(there)
        known = self.contacts(there)
        store = open_store(self.url)
        store.delete("location", {"username": "bob"})
        store.insert("location", {"username": "ghost", "domain": "example.org", "contact": BOB, "expires": 2_000_000_000})
        store.close()
        self.assertEqual(there.command("usrloc:sync", "location"), "OK")
        again = self.start(WRITE_THROUGH)
        self.assertEqual((self.contacts(again), again.calls("ghost")), (known, "-1"))

    def test_injections(self: Any) -> None:
        """What people write as user, domain, Call-ID and User-Agent is kept as it is, and is no statement."""
        there = self.start(WRITE_THROUGH)
        texts = [text for text in PAYLOADS if not set(text) & set("\r\n\t")]
        calls = {}
        for number, text in enumerate(texts):
            user = "".join(f"%{octet:02X}" for octet in text.encode())
            call_id = text if is_call_id(text) else f"call{number}"
            more = f"User-Agent: {text}\r\n"
            self.assertEqual(there.register(user, BOB, call_id=call_id, more=more), f"200 {BOB} 600", text)
            calls[text] = call_id
        store = open_store(self.url)
        rows = list(store.select("location", ["username", "domain", "callid", "user_agent"]).rows)
        store.close()
        wanted = [(text, "example.org", calls[text], text.strip(" ") or "n/a") for text in texts]
        self.assertEqual(sorted(rows), sorted(wanted))
        self.assertGreater(sum(not call.startswith("call") for call in calls.values()), 20)
        again = self.start("sql-only")
        for text in texts:
            user = "".join(f"%{octet:02X}" for octet in text.encode())
            self.assertEqual(again.calls(user), BOB, text)
        for domain in ("x';--", "x' OR 1=1 --.org", "\"x\""):
            answers = again.send(message("REGISTER", "bob", f"Contact: <{BOB}>\r\n").replace(b"example.org", domain.encode()))
            self.assertTrue(all(each.status == 400 for each in answers), domain)

    def test_refused(self: Any) -> None:
        """A value that the table does not take is refused for good; without a table there is no start."""
        there = self.start(WRITE_THROUGH)
        self.assertEqual(there.register("bob", BOB, more="User-Agent: " + "x" * 400 + "\r\n"), f"200 {BOB} 600")
        self.assertEqual(there.register("bob", BOB, call_id="\udcff"), "500")
        self.assertEqual(there.register("bob", BOB), f"200 {BOB} 600")
        store = open_store(self.url)
        store.delete("version", {"table_name": "location"})
        store.close()
        self.wire.clock.stop = lambda: None
        again = self.start(WRITE_THROUGH)
        self.assertRegex(again.logged(), "module usrloc cannot start: .*has no table location")


class SqliteTests(Modes, SynchronousTestCase):
    """A file."""

    engine = "sqlite"


class PostgresTests(Modes, SynchronousTestCase):
    """PostgreSQL."""

    engine = "postgres"


class MariaDbTests(Modes, SynchronousTestCase):
    """MariaDB."""

    engine = "mysql"
