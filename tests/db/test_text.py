"""Folders of text files as databases: changes are on disk when they are answered."""

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.errors import DatabaseError, Duplicate, Refused, Unavailable, Unsupported
from sipgw.db.text import TextDatabase, folder_of
from sipgw.interfaces import Change

HEAD = "name(str) port(int,null)\n"


class Slow:
    """Threads that work when they are told to."""

    def __init__(self):
        self.waiting = []

    def __call__(self, call, *arguments):
        """Note what is to be done."""
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, call, arguments))
        return done

    def work(self):
        """Do one thing."""
        done, call, arguments = self.waiting.pop(0)
        try:
            done.callback(call(*arguments))
        except Exception as error:
            done.errback(error)


class TextTests(SynchronousTestCase):
    """One folder."""

    def setUp(self):
        """A folder with two tables."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        for name in ("phones", "others"):
            (self.folder / name).write_text(HEAD)

    def begin(self, coroutine):
        """Begin something; its Deferred."""
        return ensureDeferred(coroutine)

    def get(self, coroutine):
        """Do something that needs not wait."""
        return self.successResultOf(ensureDeferred(coroutine))

    def fails(self, coroutine, kind):
        """Its error."""
        return self.failureResultOf(ensureDeferred(coroutine), kind).value

    def text(self, name="phones"):
        """What stands in a file below its head."""
        return (self.folder / name).read_text().removeprefix(HEAD)

    def test_changes(self):
        """Each change is in the file; a select has names and rows."""
        db = TextDatabase(str(self.folder))
        self.get(db.start())
        self.get(db.insert("phones", {"name": "a:b", "port": 5}))
        self.assertEqual(self.text(), "a\\:b:5\n")
        self.assertEqual(self.get(db.update("phones", {"port": None}, {"name": "a:b"})), 1)
        self.assertEqual(self.text(), "a\\:b:\n")
        self.get(db.replace("phones", {"name": "c", "port": 1}, ["name"]))
        self.get(db.replace("phones", {"name": "c", "port": 2}, ["name"]))
        self.assertEqual(self.text(), "a\\:b:\nc:2\n")
        self.assertEqual(self.get(db.delete("phones", {"name": "a:b"})), 1)
        rows = self.get(db.select("phones", order="name"))
        self.assertEqual((list(rows.columns), [*rows], rows[0]), (["name", "port"], [("c", 2)], ("c", 2)))
        self.assertEqual(sorted(os.listdir(self.folder)), ["others", "phones"])

    def test_mode(self):
        """A file keeps its mode."""
        (self.folder / "phones").chmod(0o640)
        self.get(TextDatabase(str(self.folder)).insert("phones", {"name": "a"}))
        self.assertEqual((self.folder / "phones").stat().st_mode & 0o777, 0o640)

    def test_batch(self):
        """A batch is done, or nothing of it."""
        db = TextDatabase(str(self.folder))
        changes = [Change("insert", "phones", {"name": "a"}), Change("insert", "others", {"name": "b"})]
        self.get(db.batch(changes))
        self.assertEqual((self.text(), self.text("others")), ("a:\n", "b:\n"))
        more = [Change("update", "phones", {"name": "x"}), Change("delete", "others", where={"name": "b"})]
        for bad in (Change("insert", "phones", {"port": 5}), Change("what", "phones"), Change("delete", "nowhere")):
            self.fails(db.batch([*more, bad]), Refused)
        self.assertEqual((self.text(), self.text("others")), ("a:\n", "b:\n"))
        self.assertEqual([*self.get(db.select("phones"))], [("a", None)])
        self.get(db.batch([]))

    def test_together(self):
        """What comes while a file is written is written together, and answered when it is there; who fails, fails alone."""
        slow = Slow()
        db = TextDatabase(str(self.folder), in_thread=slow)
        first = self.begin(db.insert("phones", {"name": "a"}))
        later = [self.begin(db.insert("phones", {"name": name})) for name in "bc"]
        bad = self.begin(db.insert("phones", {"port": 1}))
        self.assertNoResult(first)
        slow.work()
        self.successResultOf(first)
        self.assertNoResult(later[0])
        self.failureResultOf(bad, Refused)
        self.assertEqual(self.text(), "a:\n")
        slow.work()
        self.assertEqual(slow.waiting, [])
        for each in later:
            self.successResultOf(each)
        self.assertEqual(self.text(), "a:\nb:\nc:\n")

    def test_disk_full(self):
        """What cannot be written is not answered with yes, and the file counts."""
        slow = Slow()
        db = TextDatabase(str(self.folder), in_thread=slow)
        failed = self.begin(db.insert("phones", {"name": "a"}))
        slow.waiting[0] = (slow.waiting[0][0], self._full, ())
        slow.work()
        self.failureResultOf(failed, Unavailable)
        self.assertEqual([*self.get(db.select("phones"))], [])
        again = self.begin(db.insert("phones", {"name": "a"}))
        slow.work()
        self.successResultOf(again)
        self.assertEqual(self.text(), "a:\n")

    def _full(self):
        raise OSError(28, "No space left on device")

    def test_reading_again(self):
        """What somebody else writes is seen at once if asked for (db_mode), else at a reload."""
        kept, fresh = TextDatabase(str(self.folder)), TextDatabase(str(self.folder), fresh=True)
        for db in (kept, fresh):
            self.get(db.select("phones"))
        self.change("a:1\n")
        self.assertEqual(len(self.get(kept.select("phones"))), 0)
        self.assertEqual(len(self.get(fresh.select("phones"))), 1)
        kept.reload()
        self.assertEqual(len(self.get(kept.select("phones"))), 1)
        self.change("a:1\nb:2\n")
        self.get(fresh.insert("phones", {"name": "c"}))
        self.assertEqual(self.text(), "a:1\nb:2\nc:\n")
        self.change("nonsense\n")
        error = self.assertRaises(DatabaseError, kept.reload, "phones")
        self.assertIn("line 2", str(error))
        self.assertEqual(len(self.get(kept.select("phones"))), 1)

    def change(self, text):
        """Let somebody else write, at another time."""
        file = self.folder / "phones"
        before = file.stat().st_mtime_ns
        file.write_text(HEAD + text)
        os.utime(file, ns=(before + 10**9, before + 10**9))

    def test_refused(self):
        """What is no table, no name, no folder; SQL."""
        db = TextDatabase(str(self.folder))
        for name in ("nowhere", "../phones", "", "a/b", ".phones.new"):
            self.fails(db.select(name), Refused)
        self.fails(db.query("SELECT 1"), Unsupported)
        self.fails(TextDatabase("/nowhere").start(), Unavailable)
        self.assertEqual(db.quote("a'b"), "a'b")
        self.assertEqual(folder_of("text:///etc/x"), "/etc/x")
        self.assertEqual(folder_of("text://x", "/etc"), "/etc/x")
        self.assertRaises(DatabaseError, folder_of, "text://")

    def test_unique(self):
        """The keys of OpenSIPS's tables are kept."""
        (self.folder / "subscriber").write_text("id(int,auto) username(str) domain(str) ha1(str)\n")
        db = TextDatabase(str(self.folder))
        self.get(db.insert("subscriber", {"username": "a", "domain": "d"}))
        self.fails(db.insert("subscriber", {"username": "a", "domain": "d"}), Duplicate)
        self.get(db.insert("subscriber", {"username": "b", "domain": "d"}))
        self.assertEqual([*self.get(db.select("subscriber", ["id"]))], [(1,), (2,)])
