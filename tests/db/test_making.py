"""Tables made, compared, upgraded and copied: the same cases on each kind of database."""

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.db import dumping, making
from sipgw.db import migrate as migrating
from sipgw.db.dumping import dump, load
from sipgw.db.errors import DatabaseError, Duplicate, Refused, Unavailable, Unsupported
from sipgw.db.making import check, create, version_of
from sipgw.db.migrate import migrate
from sipgw.db.schema import tables
from sipgw.db.session import open_store
from tests.servers import sql

OLD_SUBSCRIBER = {
    "sqlite": "CREATE TABLE subscriber (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, {})",
    "mysql": "CREATE TABLE subscriber (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY NOT NULL, {}) ENGINE=InnoDB",
    "postgres": "CREATE TABLE subscriber (id SERIAL PRIMARY KEY NOT NULL, {})",
}
OLD_COLUMNS = """username VARCHAR(64) DEFAULT '' NOT NULL, domain VARCHAR(64) DEFAULT '' NOT NULL,
 password VARCHAR(25) DEFAULT '' NOT NULL, email_address VARCHAR(64) DEFAULT '' NOT NULL, ha1 VARCHAR(64) DEFAULT '' NOT NULL,
 ha1b VARCHAR(64) DEFAULT '' NOT NULL, rpid VARCHAR(64) DEFAULT NULL, CONSTRAINT {}account_idx UNIQUE (username, domain)"""
"""What OpenSIPS 3.1 has."""


def faults(store, names=()):
    """What ``check`` finds wrong."""
    return [str(remark) for remark in check(store, names) if remark.fault]


if TYPE_CHECKING:
    Case = SynchronousTestCase
else:
    Case = object


class Making(Case):
    """The cases that text files know, too."""

    store: Any

    def url(self) -> str:
        """The URL of a new database."""
        raise NotImplementedError

    def setUp(self):
        """Open a new database."""
        self.store = open_store(self.url(), create=True)
        self.addCleanup(self.store.close)

    def test_all(self):
        """All tables are made, with their versions; making them again changes nothing."""
        lines: list[str] = []
        self.assertEqual(create(self.store, tell=lines.append), len(tables()) - 1)
        self.assertEqual(len(lines), len(tables()))
        self.assertEqual(faults(self.store), [])
        self.assertEqual(version_of(self.store, "location"), 1013)
        self.assertEqual(create(self.store), 0)

    def test_some(self):
        """Tables may be named, or groups of them; what is absent is no fault unless asked for."""
        self.assertEqual(create(self.store, ["auth_db", "location"]), 3)
        self.assertEqual(self.store.tables(), {"version", "subscriber", "uri", "location"})
        self.assertEqual(faults(self.store), [])
        self.assertIn("acc: is not there", faults(self.store, ["acc"])[0])
        self.assertRaises(Refused, create, self.store, ["nonsense"])

    def test_versions(self):
        """Versions that are not today's are faults, each with what to do."""
        self.assertIn("is not there", faults(self.store)[0])
        create(self.store, ["subscriber", "acc", "location", "dispatcher"])
        for name, version in (("subscriber", 7), ("acc", 3), ("location", 2000)):
            self.store.update("version", {"table_version": version}, {"table_name": name})
        self.store.delete("version", {"table_name": "dispatcher"})
        found = faults(self.store)
        self.assertEqual(len(found), 4)
        self.assertIn("drop the table", found[0])
        self.assertIn("does not know it", found[1])
        self.assertIn("newer OpenSIPS", found[2])
        self.assertIn("sipgw db migrate", found[3])

    def test_dump(self):
        """What is dumped can be loaded into another database: times, numbers, bytes, NULL, other letters; in pages."""
        create(self.store, ["location", "acc", "xcap", "subscriber"])
        rows = {
            "location": {
                "contact_id": 3107413374141466756,
                "username": "jürgen",
                "contact": "sip:a@192.0.2.1:5060;x=\\y",
                "expires": 1795384972,
                "q": -1.0,
                "last_modified": datetime(2026, 11, 22, 21, 52, 56),
                "attr": None,
                "callid": "a:b\tc\nd",
            },
            "acc": {"method": "INVITE", "time": datetime(2026, 1, 2, 3, 4, 5), "callid": "'; DROP TABLE acc; --"},
            "xcap": {"username": "a", "domain": "b", "doc": b"\x00\xff\n:<>", "doc_type": 1, "etag": "e", "source": 2,
                     "doc_uri": "u", "port": 3},
        }
        for name, values in rows.items():
            self.store.insert(name, values)
        for number in range(7):
            self.store.insert("subscriber", {"username": f"u{number}", "domain": "d"})
        self.patch(dumping, "PAGE", 3)
        lines = [*dump(self.store)]
        self.assertEqual(sum(line.startswith("[") for line in lines), 10)
        for other in ("sqlite", "text", "same"):
            url = self.url() if other == "same" else f"{other}://{os.path.abspath(self.mktemp())}"
            with_rows = open_store(url, create=True)
            self.addCleanup(with_rows.close)
            self.assertEqual(load(with_rows, lines), 10)
            self.assertEqual([json.loads(line) for line in dump(with_rows)], [json.loads(line) for line in lines])
            self.assertRaises(Refused, load, with_rows, lines)
            with_rows.insert("subscriber", {"username": "u8", "domain": "d"})
            self.assertEqual(with_rows.select("subscriber", ["id"], {"username": "u8"}).rows[0][0], 8)

    def test_bad_dump(self):
        """What is no dump is refused, with the line."""
        for lines, said in (
            (["{"], "line 1"),
            (["5"], "neither"),
            (['{"table": "acc"}'], "name, version and columns"),
            (['{"table": "nonsense", "version": 1, "columns": []}'], "no table"),
            (['{"table": "acc", "version": 6, "columns": ["id"]}'], "migrate"),
            (['{"table": "acc", "version": 7, "columns": ["id", "mine"]}'], "no column mine"),
            (['{"table": "acc", "version": 7, "columns": ["id"]}', "[1, 2]"], "2 values"),
        ):
            error = self.assertRaises(DatabaseError, load, self.store, lines)
            self.assertIn(said, str(error))

    def test_broken_load(self):
        """A row that cannot be added takes those of its table with it."""
        create(self.store, ["subscriber"])
        lines = ['{"table": "subscriber", "version": 8, "columns": ["username", "domain"]}', '["a", "b"]', '["a", "b"]']
        self.assertRaises(Duplicate, load, self.store, lines)
        self.assertEqual(len(self.store.select("subscriber").rows), 0)


class Migrating(Making):
    """What only SQL databases know: tables change."""

    def old(self):
        """A database with a table of an older release and two rows in it."""
        create(self.store, ["subscriber"])
        self.store.run("DROP TABLE subscriber")
        prefix = "" if self.store.dialect == "mysql" else "subscriber_"
        self.store.run(OLD_SUBSCRIBER[self.store.dialect].format(OLD_COLUMNS.format(prefix)))
        self.store.update("version", {"table_version": 7}, {"table_name": "subscriber"})
        self.store.insert("subscriber", {"id": 0, "username": "a", "domain": "d", "ha1": "x", "ha1b": "", "rpid": "+49"})
        self.store.insert("subscriber", {"id": 9, "username": "b", "domain": "d", "ha1": "y", "ha1b": ""})

    def test_subscriber(self):
        """No row is lost, nor a column in which something stands; the old table stays; keys and counting go on."""
        self.old()
        lines: list[str] = []
        self.assertEqual(migrate(self.store, tell=lines.append), 0)
        self.assertIn("version 7 is 8 now, 2 rows; rpid kept", lines[0])
        self.assertEqual(faults(self.store), [])
        columns = ["id", "username", "ha1", "ha1_sha256", "rpid"]
        self.assertEqual(
            [*self.store.select("subscriber", columns, (), "id").rows], [(0, "a", "x", "", "+49"), (9, "b", "y", "", None)]
        )
        self.assertEqual([column.name for column in self.store.columns("subscriber")][-2:], ["ha1_sha512t256", "rpid"])
        self.assertRaises(Duplicate, self.store.insert, "subscriber", {"username": "a", "domain": "d"})
        self.store.insert("subscriber", {"username": "c", "domain": "d"})
        self.assertGreater(self.store.select("subscriber", ["id"], {"username": "c"}).rows[0][0], 9)
        self.assertEqual(len(self.store.select("subscriber_v7").rows), 2)
        migrate(self.store, ["subscriber"], lines.append)
        self.assertIn("as it should be", lines[1])

    def test_kept(self):
        """Where the old table of an earlier migration stands in the way, nothing is done."""
        self.old()
        self.store.run("CREATE TABLE subscriber_v7 (a INT)")
        self.assertRaises(Refused, migrate, self.store)
        self.assertEqual(version_of(self.store, "subscriber"), 7)

    def test_failure(self):
        """What goes wrong on the way leaves all as it was."""
        self.old()
        self.store.run("ALTER TABLE subscriber ADD COLUMN size INT")
        self.patch(migrating._Migration, "_compare", lambda *_: self.store.run("SELECT nonsense"))
        before = [*self.store.select("subscriber").rows]
        self.assertRaises(Refused, migrate, self.store)
        self.assertEqual([*self.store.select("subscriber").rows], before)
        self.assertEqual(self.store.tables(), {"version", "subscriber"})
        self.assertEqual(version_of(self.store, "subscriber"), 7)

    def test_columns_missing(self):
        """A column that a release has added without another version is added."""
        create(self.store, ["cachedb"])
        self.store.run("DROP TABLE cachedb")
        self.store.run("CREATE TABLE cachedb (keyname VARCHAR(255) NOT NULL, value TEXT NOT NULL, counter INT, expires INT)")
        self.store.insert("cachedb", {"keyname": "a", "value": "b"})
        self.assertIn("id missing", faults(self.store)[0])
        self.assertEqual(migrate(self.store), 0)
        self.assertEqual(faults(self.store), [])
        self.assertEqual([*self.store.select("cachedb").rows], [(1, "a", "b", 0, 0)])

    def test_own_column(self):
        """A column of somebody's own must not stand in the way of new rows."""
        create(self.store, ["acc"])
        self.store.run("ALTER TABLE acc ADD COLUMN mine VARCHAR(8) DEFAULT 'x' NOT NULL")
        self.assertEqual(faults(self.store), [])
        if self.store.dialect != "sqlite":
            self.store.run("ALTER TABLE acc ADD COLUMN yours INT NOT NULL")
            self.assertIn("yours is no column", faults(self.store)[0])

    def test_unknown(self):
        """A version that nobody knows stays, and the others go on."""
        self.old()
        create(self.store, ["acc"])
        self.store.update("version", {"table_version": 2}, {"table_name": "acc"})
        lines: list[str] = []
        self.assertEqual(migrate(self.store, tell=lines.append), 1)
        self.assertIn("acc: version 2 stays", lines[0])
        self.assertEqual((version_of(self.store, "acc"), version_of(self.store, "subscriber")), (2, 8))

    def test_steps(self):
        """Each step is one that the database takes: times become seconds, flags letters, an address gets another name."""
        create(self.store, ["location", "dr_carriers", "tls_mgm", "dialog"])
        kinds = {"mysql": "DATETIME", "sqlite": "DATETIME", "postgres": "TIMESTAMP"}[self.store.dialect]
        steps: list[tuple[str, int, str, dict[str, Any]]] = [
            ("location", 1011,
             f"contact_id BIGINT PRIMARY KEY, username VARCHAR(64), contact VARCHAR(255), expires {kinds}, q REAL",
             {"contact_id": 1, "username": "a", "contact": "sip:a", "expires": datetime(2026, 11, 22, 12, 0)}),
            ("dr_carriers", 2, "id INT PRIMARY KEY, carrierid VARCHAR(64), gwlist VARCHAR(255), flags INT, state INT",
             {"id": 1, "carrierid": "c", "gwlist": "g", "flags": 3, "state": 0}),
            ("tls_mgm", 2, "id INT PRIMARY KEY, domain VARCHAR(64), address VARCHAR(64), type INT",
             {"id": 1, "domain": "d", "address": "192.0.2.1:5061", "type": 1}),
            ("dialog", 11, "dlg_id BIGINT PRIMARY KEY, callid VARCHAR(255), state INT, script_flags INT",
             {"dlg_id": 7, "callid": "c", "state": 4, "script_flags": 12}),
        ]  # fmt: skip
        for name, version, columns, values in steps:
            self.store.run(f"DROP TABLE {name}")
            self.store.run(f"CREATE TABLE {name} ({columns})")
            self.store.insert(name, values)
            self.store.update("version", {"table_version": version}, {"table_name": name})
        self.assertEqual(migrate(self.store), 0)
        self.assertEqual(faults(self.store), [])
        expires = int(time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1)))
        wanted = ["contact", "expires", "callid"]
        self.assertEqual([*self.store.select("location", wanted).rows], [("sip:a", expires, "Default-Call-ID")])
        self.assertEqual(self.store.select("dr_carriers", ["sort_alg", "flags"]).rows[0], ("W", 3))
        self.assertEqual(self.store.select("tls_mgm", ["match_ip_address"]).rows[0], ("192.0.2.1:5061",))
        self.assertEqual(self.store.select("dialog", ["dlg_id", "state", "script_flags"]).rows[0], (7, 4, None))


class SqliteTests(Migrating, SynchronousTestCase):
    """In a SQLite file."""

    def url(self):
        """A file that is not there."""
        return f"sqlite://{os.path.abspath(self.mktemp())}"

    def test_file(self):
        """A file that is made is its owner's only; one that is not there is told."""
        url = self.url()
        self.assertIn("no file", str(self.assertRaises(Unavailable, open_store, url)))
        open_store(url, create=True).close()
        self.assertEqual(Path(url.partition("://")[2]).stat().st_mode & 0o777, 0o600)
        self.assertRaises(DatabaseError, open_store, "sqlite:///no/such/folder/file", create=True)


class PostgresTests(Migrating, SynchronousTestCase):
    """In a private PostgreSQL."""

    skip = sql.missing("postgres")

    def url(self):
        """A new database."""
        return sql.fresh("postgres")

    def test_grants(self):
        """Who might read and write the old table may read and write the new one."""
        self.old()
        self.store.run("DROP ROLE IF EXISTS sip_reader")
        self.store.run("CREATE ROLE sip_reader")
        self.store.run("GRANT SELECT, INSERT ON subscriber TO sip_reader")
        migrate(self.store)
        asked = "SELECT has_table_privilege('sip_reader', 'subscriber', 'INSERT'),"
        asked += " has_table_privilege('sip_reader', 'uri', 'INSERT'),"
        asked += " has_sequence_privilege('sip_reader', 'subscriber_id_seq', 'USAGE')"
        create(self.store, ["uri"])
        self.assertEqual([bool(each) for each in self.store.run(asked).rows[0]], [True, False, True])


class MySqlTests(Migrating, SynchronousTestCase):
    """In a private MariaDB."""

    skip = sql.missing("mysql")

    def url(self):
        """A new database."""
        return sql.fresh("mysql")

    def test_broken_off(self):
        """A migration that was broken off before its last step is not done twice; what is left of another one does not matter."""
        self.old()
        self.store.run("CREATE TABLE subscriber_v8_new (a INT)")
        self.patch(migrating, "note_version", lambda *_: self.store.run("SELECT nonsense"))
        self.assertRaises(Refused, migrate, self.store)
        self.assertEqual(version_of(self.store, "subscriber"), 7)
        self.patch(migrating, "note_version", making.note_version)
        lines: list[str] = []
        migrate(self.store, tell=lines.append)
        self.assertIn("broken off", lines[0])
        self.assertEqual(faults(self.store), [])
        self.assertEqual(len(self.store.select("subscriber").rows), 2)
        self.assertEqual(self.store.tables(), {"version", "subscriber", "subscriber_v7"})


class TextTests(Making, SynchronousTestCase):
    """In a folder of text files."""

    def url(self):
        """A folder that is not there."""
        return f"text://{os.path.abspath(self.mktemp())}"

    def test_migrate(self):
        """Text files are not migrated."""
        self.assertRaises(Unsupported, migrate, self.store)


class UrlTests(SynchronousTestCase):
    """What is no URL of a database."""

    def test_unknown(self):
        """It is refused."""
        for url in ("", "nonsense", "oracle://a@b/c"):
            self.assertRaises(DatabaseError, open_store, url)
