"""The tables of OpenSIPS as data, and the statements that make them."""

import json
import re
import sqlite3
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.schema import DIALECTS, Column, Index, create_statements, define, read_tables, tables

OPENSIPS = Path(__file__).parent.parent / "data" / "opensips_tables.json"

TEXT = """
# a comment
table thing 3 things
    id       userial
    name     char(64) = ''
    number   ubigint key
    size     float(10,2) null = 1.0
    unique name_idx (name, size)
    index size_idx (size)
    from 1: size = width
    from 2
"""


class SchemaTests(SynchronousTestCase):
    """What is read, what is written of it."""

    def test_read(self):
        """A table has columns, indexes and steps from older versions; a line that is none is refused."""
        table = read_tables(TEXT)["thing"]
        self.assertEqual((table.version, table.group), (3, "things"))
        self.assertEqual(table.columns[0], Column("id", "serial", unsigned=True, key=True))
        self.assertEqual(table.columns[3], Column("size", "float", "10,2", null=True, default="1.0"))
        self.assertEqual(table.indexes, (Index("name_idx", ("name", "size"), True), Index("size_idx", ("size",))))
        steps = [(step.version, step.column, step.expression) for step in table.steps]
        self.assertEqual(steps, [(1, "size", "width"), (2, "", "")])
        self.assertIs(table.step(4), None)
        self.assertEqual(table.column("NAME"), table.columns[1])
        self.assertRaises(ValueError, read_tables, "table a 1 b\n  what is this?\n")

    def test_opensips(self):
        """Tables, versions and columns are those of OpenSIPS; what we have besides are known to be ours."""
        facts = json.loads(OPENSIPS.read_text(encoding="utf-8"))
        ours = {name: [table.version, [column.name for column in table.columns]] for name, table in tables().items()}
        self.assertEqual({name: ours[name] for name in facts}, facts)
        own = ["jusers", "sms_messages", "sms_parts", "xmpp_messages", "xmpp_rooms", "xmpp_subscriptions", "xmpp_watchers"]
        own += ["ops_report_capture", "report_capture", "rtcp_capture", "sip_capture"]  # OpenSIPS has them for MySQL alone
        self.assertEqual(sorted(ours.keys() - facts.keys()), sorted(own))

    def test_columns(self):
        """Each kind of column in each dialect."""
        for column, expected in (
            (
                Column("a", "serial", unsigned=True, key=True),
                (
                    "a INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL",
                    "a INT UNSIGNED AUTO_INCREMENT PRIMARY KEY NOT NULL",
                    "a SERIAL PRIMARY KEY NOT NULL",
                ),
            ),
            (
                Column("a", "char", "64", default="''"),
                ("a CHAR(64) DEFAULT '' NOT NULL",) * 2 + ("a VARCHAR(64) DEFAULT '' NOT NULL",),
            ),
            (Column("a", "mediumblob", null=True), ("a BLOB", "a MEDIUMBLOB", "a BYTEA")),
            (Column("a", "datetime"), ("a DATETIME NOT NULL",) * 2 + ("a TIMESTAMP WITHOUT TIME ZONE NOT NULL",)),
            (Column("a", "tinyint", null=True), ("a TINYINT", "a TINYINT", "a SMALLINT")),
            (Column("a", "bigint", unsigned=True), ("a BIGINT NOT NULL", "a BIGINT UNSIGNED NOT NULL", "a BIGINT NOT NULL")),
            (Column("a", "float", "10,2"), ("a FLOAT(10,2) NOT NULL",) * 2 + ("a REAL NOT NULL",)),
        ):
            self.assertEqual(tuple(define(column, dialect) for dialect in DIALECTS), expected)

    def test_names(self):
        """Names of indexes are those of OpenSIPS: with the table before them, but in MySQL."""
        table = read_tables(TEXT)["thing"]
        for dialect, prefix in zip(DIALECTS, ("thing_", "", "thing_"), strict=True):
            text = "\n".join(create_statements(table, dialect))
            self.assertEqual(set(re.findall(r"\w+_idx", text)), {f"{prefix}name_idx", f"{prefix}size_idx"})
        self.assertIn("ALTER SEQUENCE thing_id_seq MAXVALUE 2147483647 CYCLE", text)
        self.assertIn("CREATE TABLE other (", create_statements(table, "mysql", "other")[0])

    def test_statements(self):
        """SQLite takes all of them, and has the columns and keys then."""
        connection = sqlite3.connect(":memory:")
        self.addCleanup(connection.close)
        for name, table in tables().items():
            for statement in create_statements(table, "sqlite"):
                connection.execute(statement)
            found = connection.execute("SELECT name FROM pragma_table_info(?)", (name,)).fetchall()
            self.assertEqual([each for (each,) in found], [column.name for column in table.columns])
            unique = connection.execute('SELECT COUNT(*) FROM pragma_index_list(?) WHERE "unique" AND origin = \'u\'', (name,))
            self.assertEqual(unique.fetchone()[0], sum(index.unique for index in table.indexes))
