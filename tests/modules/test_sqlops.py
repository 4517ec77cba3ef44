"""sqlops: the same scripts on all engines."""

import os
from datetime import datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.interfaces import Change
from sipgw.testing import finished
from tests.db.cases import PAYLOADS
from tests.modules.scripted import Scripted, request
from tests.servers import sql

BIG = 5_000_000_000


class SqlopsCases:
    """The cases; a subclass names its ``engine``."""

    engine: str

    def start(self: Any, body: str, rest: str = "", params: str = "") -> Scripted:
        """Run a script beside a database of our own with two tables."""
        if self.engine == "sqlite":
            os.makedirs(directory := self.mktemp())
            url = sql.sqlite(directory)
        else:
            url = sql.fresh(self.engine)
        given = "".join(f'modparam("sqlops", "{line.split("=", 1)[0]}", "{line.split("=", 1)[1]}")\n' for line in params.split())
        config = f'modparam("sqlops", "db_url", "{url}")\n{given}{rest}'
        module = {"sqlite": "db_sqlite", "postgres": "db_postgres", "mysql": "db_mysql"}[self.engine]
        scripted = Scripted(body, module, "sqlops", rest=config)
        opened: Any = finished(scripted.server.databases.open(url))
        self.db = opened
        self.addCleanup(lambda: finished(opened.close()))
        time = "TIMESTAMP" if self.engine == "postgres" else "DATETIME"
        finished(self.db.query(
            "CREATE TABLE subscriber (username VARCHAR(64) NOT NULL, domain VARCHAR(64) DEFAULT '' NOT NULL, ha1 VARCHAR(64),"
            f" calls BIGINT, seen {time}, PRIMARY KEY (username, domain))"
        ))  # fmt: skip
        finished(self.db.query(
            "CREATE TABLE usr_preferences (uuid VARCHAR(64) DEFAULT '' NOT NULL, username VARCHAR(64) DEFAULT '0' NOT NULL,"
            " domain VARCHAR(64) DEFAULT '' NOT NULL, attribute VARCHAR(32) DEFAULT '' NOT NULL, type INTEGER DEFAULT 0 NOT NULL,"
            " value VARCHAR(128) DEFAULT '' NOT NULL)"
        ))  # fmt: skip
        rows = [("alice", "example.org", "a1", 3), ("bob", "example.org", None, BIG), ("alice", "example.net", "a2", None)]
        seen = datetime(2026, 11, 22, 21, 30)
        for user, domain, ha1, calls in rows:
            values = {"username": user, "domain": domain, "ha1": ha1, "calls": calls, "seen": seen}
            finished(self.db.batch([Change("insert", "subscriber", values)]))
        return scripted

    def rows(self: Any, table: str = "subscriber", *columns: str) -> list[tuple[Any, ...]]:
        """What is in a table."""
        return sorted(finished(self.db.select(table, columns or ("username", "domain", "ha1"))))

    def test_query(self: Any) -> None:
        """Rows go to AVPs, the first on top; to ``$avp(1)`` and so on where none are named; -2 where there is none."""
        scripted = self.start("""
            sql_query("SELECT ha1, calls FROM subscriber WHERE username='$fU' ORDER BY domain", "$avp(ha1);$avp(calls)");
            xlog("L_ALERT", "$rc $(avp(ha1)[*]) $(avp(calls)[0]) $(avp(calls)[1])");
            sql_query("SELECT ha1, calls FROM subscriber WHERE username='bob'");
            xlog("L_ALERT", "$rc $avp(1)");
            sql_query("SELECT ha1 FROM subscriber WHERE username='nobody'", "$avp(x)");
            xlog("L_ALERT", "$rc $avp(x)");
            sql_query("UPDATE subscriber SET ha1='new' WHERE domain='example.net'");
            xlog("L_ALERT", "$rc");
            $var(name) = "dynamic";
            sql_query("SELECT ha1 FROM subscriber WHERE domain='example.net'", "$avp($var(name))");
            xlog("L_ALERT", "$avp(dynamic)");
        """)
        self.assertEqual(scripted.send(), ["1 a2, a1 <null> 3", "1 <null>", "-2 <null>", "-2", "new"])

    def test_query_fails(self: Any) -> None:
        """A statement that is refused is -1, and logged without its values."""
        scripted = self.start('sql_query("SELEKT \'$fU\'"); xlog("L_ALERT", "$rc");')
        lines = scripted.send()
        self.assertEqual(lines[-1], "-1")
        self.assertIn("sql_query: ", lines[0])

    def test_query_one(self: Any) -> None:
        """The first row goes to variables of any kind, null as null; too few are refused."""
        scripted = self.start("""
            sql_query_one("SELECT ha1, calls, seen FROM subscriber WHERE username='bob'", "$var(a);$avp(b);$var(c)");
            xlog("L_ALERT", "$rc $var(a) $avp(b) $var(c)");
            sql_query_one("SELECT username, ha1 FROM subscriber ORDER BY domain, username", "$var(u);$var(a)");
            xlog("L_ALERT", "$rc $var(u) $var(a)");
            sql_query_one("SELECT username, ha1 FROM subscriber", "$var(a)");
            xlog("L_ALERT", "$rc");
            sql_query_one("SELECT username, ha1 FROM subscriber WHERE username='x'", "$var(a);$var(b)");
            xlog("L_ALERT", "$rc");
        """)
        lines = scripted.send()
        seconds = int(datetime(2026, 11, 22, 21, 30).timestamp())
        self.assertEqual(lines[0], f"1 <null> {BIG - (1 << 32)} {seconds}")
        self.assertEqual([lines[1], lines[3], lines[4]], ["1 alice a2", "-1", "-2"])
        self.assertIn("2 columns and 1 variables", lines[2])

    def test_bigint(self: Any) -> None:
        """bigint_to_str keeps numbers that are too long."""
        scripted = self.start(
            """sql_query_one("SELECT calls FROM subscriber WHERE username='bob'", "$var(a)"); xlog("L_ALERT", "$var(a)");""",
            rest='modparam("sqlops", "bigint_to_str", 1)\n',
        )
        self.assertEqual(scripted.send(), [str(BIG)])

    def test_select(self: Any) -> None:
        """Columns and conditions as JSON, an order; all columns where none are named."""
        scripted = self.start("""
            sql_select('["ha1","calls"]', "subscriber", '[{"username": "$fU"}, {"domain": {"!=": "example.net"}}]', ,
                "$avp(ha1);$avp(calls)");
            xlog("L_ALERT", "$rc $avp(ha1) $avp(calls)");
            sql_select('["domain"]', "subscriber", '[{"username": "$fU"}]', "domain", "$avp(d)");
            xlog("L_ALERT", "$rc $(avp(d)[*])");
            sql_select(, "subscriber", '[{"calls": {"=": null}}]');
            xlog("L_ALERT", "$rc $avp(1) $avp(2)");
            sql_select('["domain"]', "subscriber", '[{"username": {"like": "b%"}}, {"calls": {">": 5}}]', , "$avp(like)");
            xlog("L_ALERT", "$rc $avp(like)");
            sql_select('["domain"]', "subscriber", '[{"username": "nobody"}]', , "$avp(no)");
            xlog("L_ALERT", "$rc");
            sql_select_one('["ha1"]', "subscriber", '[{"username": "bob"}]', , "$var(ha1)");
            xlog("L_ALERT", "$rc $var(ha1)");
            sql_select_one('["domain"]', "subscriber", '[{"username": "alice"}]', "domain", "$var(d)");
            xlog("L_ALERT", "$rc $var(d)");
        """)
        self.assertEqual(scripted.send(), [
            "1 a1 3", "1 example.net, example.org", "1 alice example.net", "1 example.org", "-2", "1 <null>", "1 example.net",
        ])  # fmt: skip

    def test_bad_json(self: Any) -> None:
        """What is no JSON of that form is -1 and says what to write."""
        for filter_ in ["{", "{}", '["a"]', '[{"a": [1]}]', '[{"a b": 1}]', '[{"a": {"~": 1}}]']:
            scripted = self.start(f"sql_select(, 'subscriber', '{filter_}', , '$avp(x)'); xlog(\"L_ALERT\", \"$rc\");")
            lines = scripted.send()
            self.assertEqual((len(lines), lines[-1]), (2, "-1"), filter_)

    def test_changes(self: Any) -> None:
        """Rows are added, changed, replaced and deleted by JSON."""
        scripted = self.start("""
            sql_insert("subscriber", '[{"username": "carol"},{"ha1": "$rU"},{"calls": 7}]');
            xlog("L_ALERT", "$rc");
            sql_update('[{"ha1": "changed"},{"calls": null}]', "subscriber", '[{"username": "alice"},{"domain": "$fd"}]');
            xlog("L_ALERT", "$rc");
            sql_replace("subscriber", '[{"username": "bob"},{"domain": "example.org"},{"ha1": "replaced"}]');
            xlog("L_ALERT", "$rc");
            sql_delete("subscriber", '[{"domain": "example.net"}]');
            xlog("L_ALERT", "$rc");
            sql_insert("subscriber", '[{"username": "carol"}]');
            xlog("L_ALERT", "$rc");
            sql_delete("subscriber; DROP TABLE subscriber");
            xlog("L_ALERT", "$rc");
        """)
        lines = [line for line in scripted.send() if len(line) < 3]
        self.assertEqual(lines, ["1", "1", "1", "1", "-1", "-1"])
        self.assertEqual(
            self.rows(),
            [("alice", "example.org", "changed"), ("bob", "example.org", "replaced"), ("carol", "", "bob")],
        )
        self.assertEqual(list(finished(self.db.select("subscriber", ["calls"], {"username": "bob"}))), [(None,)])

    def test_payloads(self: Any) -> None:
        """Whatever a user calls himself, in the From, the Call-ID or the User-Agent: no other row is seen or touched."""
        scripted = self.start("""
            sql_query("SELECT ha1 FROM subscriber WHERE username='$hdr(X-Name)'", "$avp(one)");
            $var(a) = $rc;
            sql_query("SELECT ha1 FROM subscriber WHERE username='$(hdr(X-Name){s.escape.common})' OR ha1='$ua'", "$avp(two)");
            $var(b) = $rc;
            sql_query("DELETE FROM subscriber WHERE username='$hdr(X-Name)' AND domain='$hdr(X-Name)'");
            sql_query("UPDATE subscriber SET ha1='x' WHERE username = $hdr(X-Name)");
            sql_update('[{"ha1": "$hdr(X-Name)"}]', "subscriber", '[{"username": "$hdr(X-Name)"}]');
            sql_delete("subscriber", '[{"username": "$hdr(X-Name)"}, {"domain": "$(hdr(X-Name){s.escape.common})"}]');
            sql_select('["ha1"]', "subscriber", '[{"$hdr(X-Name)": 1}]', "$hdr(X-Name)", "$avp(three)");
            xlog("L_ALERT", "done $var(a) $var(b)");
        """)
        before = self.rows()
        names = [payload for payload in [*PAYLOADS, "username"] if payload.strip() and payload.isprintable() and payload != "0"]
        for number, payload in enumerate(names):
            more = f"X-Name: {payload}\r\nUser-Agent: {payload}\r\n"
            lines = scripted.send(request(more=more, call_id=f"{number}", branch=f"b{number}"))
            self.assertEqual(lines[-1:], ["done -2 -2"], payload)
            self.assertEqual(self.rows(), before, payload)
        self.assertGreater(len(names), 35)

    def test_names(self: Any) -> None:
        """A user whose name has a quote is found, with and without being escaped by hand."""
        scripted = self.start("""
            sql_query("SELECT ha1 FROM subscriber WHERE username='$hdr(X-Name)'", "$avp(one)");
            sql_query("SELECT ha1 FROM subscriber WHERE username='$(hdr(X-Name){s.escape.common})'", "$avp(two)");
            sql_select('["ha1"]', "subscriber", '[{"username": "$(hdr(X-Name){s.escape.common})"}]', , "$avp(three)");
            xlog("L_ALERT", "$avp(one) $avp(two) $avp(three)");
        """)
        for name in ["o'hara", 'a"b', "back\\slash", "\u00fcmlaut"]:
            finished(self.db.insert("subscriber", {"username": name, "ha1": "found"}))
            lines = scripted.send(request(more=f"X-Name: {name}\r\n", call_id=name.encode().hex()))
            self.assertEqual(lines, ["found found found"])

    def test_avps(self: Any) -> None:
        """AVPs of users: loaded by URI, user, domain or identifier, stored unless they came from there, deleted."""
        scripted = self.start("""
            $avp(colour) = "red";
            $avp(colour) = "blue";
            $avp(size) = 5;
            sql_avp_store("$fu", "$avp(colour)");
            xlog("L_ALERT", "$rc");
            sql_avp_store("$fu", "$avp(size)");
            sql_avp_store("$fu", "$avp(size)");
            xlog("L_ALERT", "$rc");
            sql_avp_store("id1/uuid", "$avp(size)");
            $avp(colour) := NULL;
            $avp(size) := NULL;
            sql_avp_load("$fu", "*", , "p_");
            xlog("L_ALERT", "$rc $(avp(p_colour)[*]) $avp(p_size)");
            sql_avp_load("$fu/domain", "$avp(size)");
            xlog("L_ALERT", "$rc $avp(size)");
            $avp(size) = 6;
            sql_avp_store("$fu", "$avp(size)");
            sql_avp_delete("$fu", "$avp(colour)");
            xlog("L_ALERT", "$rc");
            sql_avp_load("$fu", "$avp(colour)");
            xlog("L_ALERT", "$rc $avp(colour)");
            sql_avp_load("$ci", "*");
            xlog("L_ALERT", "$rc");
            $var(no) = "no uri";
            sql_avp_load("$var(no)/uri", "*");
            xlog("L_ALERT", "$rc");
        """)
        lines = scripted.send()
        self.assertEqual([line for line in lines if not line.startswith("sql_avp")], [
            "1", "-1", "1 red, blue 5", "1 5", "1", "-1 <null>", "-1", "-1",
        ])  # fmt: skip
        self.assertEqual(self.rows("usr_preferences", "uuid", "username", "domain", "attribute", "type", "value"), [
            ("", "alice", "example.org", "size", 1, "5"), ("", "alice", "example.org", "size", 1, "6"),
        ])  # fmt: skip

    def test_scheme(self: Any) -> None:
        """A scheme reads AVPs from a column of any table."""
        scripted = self.start(
            """
            sql_avp_load("$fu", "$avp(hash)/$keys");
            xlog("L_ALERT", "$rc $avp(hash)");
            sql_avp_load("$fu", "$avp(calls)/$calls");
            xlog("L_ALERT", "$rc $(avp(calls){s.len})");
            """,
            rest='modparam("sqlops", "db_scheme", "keys:table=subscriber;value_col=ha1")\n'
            'modparam("sqlops", "db_scheme", "calls:table=subscriber;value_col=calls;value_type=integer")\n',
        )
        self.assertEqual(scripted.send(), ["1 a1", "1 1"])


class SqliteTests(SqlopsCases, SynchronousTestCase):
    """On SQLite, and what needs no other."""

    engine = "sqlite"

    def test_urls(self) -> None:
        """Databases are called by numbers; without one it is the one without a number, or the first."""
        os.makedirs(directory := self.mktemp())
        other = sql.sqlite(directory)
        scripted = self.start(
            """
            $var(id) = 3;
            sql_query("CREATE TABLE only_here (a INTEGER)", , 3);
            sql_query("INSERT INTO only_here (a) VALUES (5)", , $var(id));
            sql_query_one("SELECT a FROM only_here", "$var(a)", 3);
            xlog("L_ALERT", "$rc $var(a)");
            sql_query("SELECT a FROM only_here", , 4);
            xlog("L_ALERT", "$rc");
            sql_query("SELECT a FROM only_here");
            xlog("L_ALERT", "$rc");
            """,
            rest=f'modparam("sqlops", "db_url", "3 {other}")\n',
        )
        self.assertEqual([line for line in scripted.send() if not line.startswith("sql_query")], ["1 5", "-1", "-1"])

    def test_old_names(self) -> None:
        """Scripts that know the module as avpops find the same functions."""
        os.makedirs(directory := self.mktemp())
        url = sql.sqlite(directory)
        scripted = Scripted(
            """
            avp_db_query("CREATE TABLE a (b INTEGER)");
            avp_db_query("INSERT INTO a (b) VALUES (5)");
            avp_db_query("SELECT b FROM a", "$avp(b)");
            xlog("L_ALERT", "$rc $avp(b)");
            """,
            "db_sqlite",
            "avpops",
            rest=f'modparam("avpops", "db_url", "{url}")\n',
        )
        self.assertEqual(scripted.send()[-1:], ["1 5"])

    def test_faults(self) -> None:
        """What can be seen when the script is read is said then."""
        for call, said in [
            ('sql_query("x", "$var(a)")', "$var(a) is no AVP"),
            ('sql_query_one("x", "a")', "a"),
            ('sql_avp_load("$fu/nobody", "*")', "no part of an address"),
            ('sql_avp_load("$fu", "x")', "names no AVP"),
            ('sql_avp_store("$fu", "$avp(a)/$scheme")', "schemes can only be loaded"),
        ]:
            error = self.assertRaises(AssertionError, Scripted, f"{call};", "sqlops")
            self.assertIn(said, str(error))

    def test_no_database(self) -> None:
        """Without db_url a function fails and says so."""
        scripted = Scripted('sql_query("SELECT 1"); xlog("L_ALERT", "$rc");', "sqlops")
        self.assertEqual(scripted.send(), ["sql_query: there is no db_url", "-1"])


class PostgresTests(SqlopsCases, SynchronousTestCase):
    """On PostgreSQL."""

    engine = "postgres"
    skip = sql.missing("postgres")


class MySqlTests(SqlopsCases, SynchronousTestCase):
    """On MariaDB."""

    engine = "mysql"
    skip = sql.missing("mysql")
