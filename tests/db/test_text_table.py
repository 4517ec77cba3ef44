"""The files of db_text: what they say, and what is asked of their rows."""

from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.errors import Duplicate, Refused
from sipgw.db.schema import tables
from sipgw.db.text_table import definition, read_table

FILE = """id(int,auto) name(str) flag(double) note(string,null) big(long,null) body(blob,null)
1:nick:0.34:a\\tgood\\: friend::
2:cole:-3.75:colleague:-7:\\0\\\\

3:bob:2.50:::
"""


class FileTests(SynchronousTestCase):
    """Files."""

    def test_read(self):
        """Fields, escapes, NULL; empty lines do not count; what is written is what was read."""
        table = read_table("friends", FILE)
        names, rows = table.select((), (), "", 0)
        self.assertEqual(names, ["id", "name", "flag", "note", "big", "body"])
        self.assertEqual(rows[0], (1, "nick", 0.34, "a\tgood: friend", None, None))
        self.assertEqual(rows[1], (2, "cole", -3.75, "colleague", -7, b"\0\\"))
        self.assertEqual(rows[2], (3, "bob", 2.5, None, None, None))
        self.assertEqual("".join(table.lines()), FILE.replace("\n\n", "\n"))

    def test_heads(self):
        """The first line, as OpenSIPS takes it: kinds by their first letter, spaces between columns."""
        for head, written in (
            ("a(int) b(str)", "a(int) b(str)"),
            ("  a( Integer , auto) b(STRING,NULL) ", "a(int,auto) b(string,null)"),
            ("a(d)b(t)c(l)", "a(double) b(time) c(long)"),
            ("a(int)\r", "a(int)"),
        ):
            self.assertEqual(next(read_table("a", head + "\n").lines()), written + "\n")
        for head in ("", "a", "a(", "a()", "a(x)", "a(str,auto)", "a(int,what)", "(int)"):
            self.assertRaises(ValueError, read_table, "a", head + "\n")

    def test_bad_rows(self):
        """What is no row is told with its line."""
        for line, said in (
            ("1", "1 fields for 2"),
            ("1:a:b", "3 fields for 2"),
            ("x:a", "takes no 'x'"),
            ("1.5:a", "takes no"),
            (":a", "must have a value"),
            ("1:\\q", "means nothing"),
            ("1:a\\", "backslash"),
        ):
            error = self.assertRaises(ValueError, read_table, "a", f"n(int) t(str)\n1:a\n{line}\n")
            self.assertIn("line 3", str(error))
            self.assertIn(said, str(error))

    def test_empty(self):
        """An empty text where NULL is not allowed is an empty text; the end of a file needs no line end."""
        self.assertEqual(read_table("a", "n(int) t(str)\n1:\n2:b").rows, [(1, ""), (2, "b")])

    def test_known(self):
        """The files of OpenSIPS's tables: defaults, keys and times are theirs."""
        location = tables()["location"]
        table = read_table("location", definition(location).replace("long,auto", "long"), location)
        table.insert({"username": "a", "contact": "sip:a", "expires": 5, "last_modified": datetime(2026, 11, 22, 12)})
        columns = ["contact_id", "domain", "q", "cseq", "user_agent", "last_modified"]
        self.assertEqual(table.select(columns, (), "", 0)[1], [(1, None, 1.0, 13, "", datetime(2026, 11, 22, 12))])
        self.assertEqual(table.select(["username"], [("last_modified", ">", datetime(2026, 1, 1))], "", 0)[1], [("a",)])
        again = read_table("location", "".join(table.lines()), location)
        self.assertEqual(again.rows, table.rows)
        subscriber = tables()["subscriber"]
        users = read_table("subscriber", definition(subscriber), subscriber)
        users.insert({"username": "a", "domain": "d"})
        self.assertRaises(Duplicate, users.insert, {"username": "a", "domain": "d"})
        users.insert({"username": "b", "domain": "d"})
        self.assertRaises(Duplicate, users.update, {"username": "a"}, {"username": "b"})
        self.assertEqual(users.update({"ha1": "x"}, {"username": "b"}), 1)
        users.delete({"username": "a"})
        users.insert({"username": "a", "domain": "d"})
        self.assertEqual(users.select(["id", "username"], (), "username desc", 0)[1], [(2, "b"), (3, "a")])

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(st.lists(st.tuples(st.text(), st.none() | st.text(min_size=1), st.none() | st.integers(-(2**62), 2**62)), max_size=5))
    def test_there_and_back(self, rows):
        """Whatever is written can be read."""
        table = read_table("a", "a(str) b(string,null) c(long,null)\n")
        for a, b, c in rows:
            table.insert({"a": a, "b": b, "c": c})
        self.assertEqual(read_table("a", "".join(table.lines())).rows, table.rows)


class RowTests(SynchronousTestCase):
    """What is asked of rows."""

    def setUp(self):
        """A table."""
        self.table = read_table("friends", FILE)

    def names(self, where=(), order="", limit=0):
        """Who is found."""
        return [name for (name,) in self.table.select(["name"], where, order, limit)[1]]

    def test_where(self):
        """Each operator; NULL is equal to nothing but to NULL, as in SQL."""
        for where, found in (
            ((), ["nick", "cole", "bob"]),
            ({"name": "bob"}, ["bob"]),
            ({"NAME": "bob", "id": 3}, ["bob"]),
            ({"id": "3"}, ["bob"]),
            ({"name": "bob", "id": 1}, []),
            ([("id", "<", 2)], ["nick"]),
            ([("id", "<=", 2), ("id", "!=", 1)], ["cole"]),
            ([("id", ">", 2)], ["bob"]),
            ([("flag", ">=", 0.34)], ["nick", "bob"]),
            ({"note": None}, ["bob"]),
            ([("note", "!=", None)], ["nick", "cole"]),
            ([("big", "!=", 5)], ["cole"]),
            ([("big", "<", 5)], ["cole"]),
            ({"body": b"\0\\"}, ["cole"]),
        ):
            self.assertEqual(self.names(where), found, where)

    def test_order(self):
        """Order by columns, up or down, NULL as the least; as many as wanted."""
        self.assertEqual(self.names(order="name"), ["bob", "cole", "nick"])
        self.assertEqual(self.names(order="big, name desc"), ["nick", "bob", "cole"])
        self.assertEqual(self.names(order="flag DESC", limit=2), ["bob", "nick"])

    def test_refused(self):
        """What a table does not take is refused, and changes nothing."""
        before = "".join(self.table.lines())
        for call, arguments in (
            (self.names, [{"nonsense": 1}]),
            (self.names, [[("id", "like", 1)]]),
            (self.names, [[("id", "<", None)]]),
            (self.names, [{"id": "x"}]),
            (self.table.insert, [{"name": "a"}]),
            (self.table.insert, [{"name": None, "flag": 1}]),
            (self.table.insert, [{"name": "a", "flag": "x"}]),
            (self.table.update, [{"name": None}, {}]),
            (self.table.update, [{"what": None}, {}]),
        ):
            self.assertRaises(Refused, call, *arguments)
        self.assertEqual("".join(self.table.lines()), before)

    def test_changes(self):
        """Rows are added with the next number, changed, deleted."""
        self.table.insert({"name": "x", "flag": 1})
        self.assertEqual(self.names({"id": 4}), ["x"])
        self.assertEqual(self.table.update({"flag": 9}, [("id", ">", 2)]), 2)
        self.assertEqual(self.table.delete({"flag": 9}), 2)
        self.assertEqual(self.table.delete({"flag": 9}), 0)
        self.table.insert({"name": "y", "flag": 1})
        self.assertEqual(self.names({"id": 5}), ["y"])
