"""db_text and db_flatstore: their parameters, URLs and commands. What the databases do: tests/db."""

import os
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sipgw.db.errors import DatabaseError, Refused, Unavailable, Unsupported
from sipgw.db.flatstore import FlatDatabase, line_of
from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.db.subscribers import Subscribers
from sipgw.interfaces import Change
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.db_flatstore import DbFlatstore
from sipgw.modules.db_text import DbText
from sipgw.sip.auth import Challenge, answer, hash_a1
from sipgw.testing import FakeServer, Phone, WiredServer, finished


class TextCase(SynchronousTestCase):
    """db_text."""

    def setUp(self):
        """A folder with a table, and the module."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.file = self.folder / "phones"
        self.file.write_text("name(str)\na\n")
        self.server: Any = FakeServer()

    def rows(self, db):
        """How many rows."""
        return len(finished(db.select("phones")))

    def write(self, text):
        """Let somebody else write."""
        before = self.file.stat().st_mtime
        self.file.write_text(text)
        os.utime(self.file, (before + 5, before + 5))

    def test_reload(self):
        """db_text:reload reads all, one folder, or one table; what cannot be read stays; dump has nothing to do."""
        module = DbText(self.server)
        db = finished(self.server.databases.open(f"text://{self.folder}"))
        self.assertEqual(self.rows(db), 1)
        call = self.server.commands.call
        self.server.commands.add(module)
        for number, params in enumerate(([], [str(self.folder)], [f"text://{self.folder}/", "phones"]), 2):
            self.write("name(str)\n" + "a\n" * number)
            self.assertEqual(self.rows(db), number - 1)
            finished(call("dbt_reload", params))
            self.assertEqual(self.rows(db), number)
        finished(call("db_text:dump"))
        self.write("nonsense\n")
        for params, code in (([], 500), (["/nowhere"], 400), ([str(self.folder), "nowhere"], 500)):
            self.assertEqual(self.assertRaises(MIError, finished, call("db_text:reload", params)).code, code)
        self.assertEqual(self.rows(db), 4)

    def test_mode(self):
        """With db_mode 1 files that have changed are read again."""
        DbText(self.server, db_mode=1)
        db = finished(self.server.databases.open(f"text://{self.folder}"))
        self.assertEqual(self.rows(db), 1)
        self.write("name(str)\n")
        self.assertEqual(self.rows(db), 0)
        self.assertRaises(ValueError, DbText, None, db_mode=2)

    def test_urls(self):
        """A folder that is not there is told; a relative one is beside the script."""
        DbText(self.server)
        for url in ("text://", "text:///nowhere"):
            self.assertRaises(DatabaseError, finished, self.server.databases.open(url))
        script = self.folder / "opensips.cfg"
        script.write_text('socket = udp:127.0.0.1:5060\nloadmodule "proto_udp.so"\nloadmodule "db_text.so"\nroute { exit; }\n')
        (self.folder / "tables").mkdir()
        databases = WiredServer(file=str(script)).server.databases
        self.assertEqual(finished(databases.open("text://tables")).name, f"text://{self.folder}/tables")


class FlatTests(SynchronousTestCase):
    """db_flatstore, without threads."""

    def setUp(self):
        """A folder and a server."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.server: Any = FakeServer()

    def open(self, **parameters):
        """The module with its parameters, started; its database."""
        self.module = DbFlatstore(self.server, **parameters)
        finished(self.module.start())
        return finished(self.server.databases.open(f"flatstore:{self.folder}"))

    def files(self):
        """What stands in the folder."""
        return {file.name: file.read_text() for file in self.folder.iterdir()}

    def test_lines(self):
        """Each kind of value, as OpenSIPS writes it."""
        now = datetime(2026, 11, 22, 12)
        for value, text in (
            (5, "5"), (-5, "-5"), (0.5, "0.500000"), (None, ""), ("", ""), ("a b", "a b"), ("a|b", "a\\x7Cb"), ("a\\", "a\\x5C"),
            ("a\r\nb", "a\\x0D\\x0Ab"), ("\u00e4", "\\xC3\\xA4"), (b"\0a", "\\x00a"),
            (now, str(int(time.mktime(now.timetuple())))),
        ):  # fmt: skip
            self.assertEqual(line_of([value, 1], "|"), f"{text}|1\n".encode())
        self.assertEqual(line_of(["a|b", "a;b"], ";"), b"a|b;a\\x3Bb\n")

    def test_names(self):
        """The names of files: prefix, table, the process unless all share one, suffix; with variables."""
        for parameters, name in (
            ({}, "acc_1.log"),
            ({"single_file": 1}, "acc.log"),
            ({"suffix": "", "prefix": "x-"}, "x-acc_1"),
            ({"suffix": "$time(%Y)", "prefix": "$(time(%m){s.len})"}, f"2acc_1{time.localtime(1_700_000_000).tm_year}"),
        ):
            db = self.open(**parameters)
            finished(db.insert("acc", {"a": 1}))
            self.assertIn(name, self.files())
            finished(self.server.databases.close())
        for bad in ({"delimiter": ""}, {"delimiter": "ab"}, {"delimiter": "\n"}, {"delimiter": "\\"}):
            self.assertRaises(ValueError, DbFlatstore, self.server, **bad)
        self.assertRaises(DatabaseError, self.open, suffix="$nosuch(")

    def test_rows(self):
        """Rows are appended, in order, in whichever table; nothing else can be done."""
        db = self.open(delimiter=";")
        finished(db.insert("acc", {"a": 1, "b": "x"}))
        finished(db.batch([Change("insert", "acc", {"a": 2}), Change("insert", "missed_calls", {"a": 3})]))
        finished(db.batch([]))
        self.assertEqual(self.files(), {"acc_1.log": "1;x\n2\n", "missed_calls_1.log": "3\n"})
        for refused in (
            db.select("acc"), db.update("acc", {"a": 1}, {}), db.delete("acc", {}), db.replace("acc", {"a": 1}, ["a"]),
            db.query("SELECT 1"), db.batch([Change("insert", "acc", {"a": 1}), Change("delete", "acc")]),
        ):  # fmt: skip
            self.assertRaises(Unsupported, finished, refused)
        self.assertRaises(Refused, finished, db.insert("../acc", {"a": 1}))
        self.assertEqual(len(self.files()["acc_1.log"].splitlines()), 2)
        finished(self.server.databases.check(db, "acc", 7))

    def test_rotate(self):
        """After rotate the file is opened anew, by its name of then, at the next row."""
        db = self.open(suffix="$time(%s)")
        finished(db.insert("acc", {"a": 1}))
        [first] = self.files()
        self.server.reactor.advance(10)
        finished(db.insert("acc", {"a": 2}))
        self.server.commands.add(self.module)
        finished(self.server.commands.call("db_flatstore:rotate"))
        self.assertEqual(len(self.files()), 1)
        finished(db.insert("acc", {"a": 3}))
        self.assertEqual(sorted(self.files().values()), ["1\n2\n", "3\n"])
        self.assertEqual(self.files()[first], "1\n2\n")

    def test_lost(self):
        """A folder that is not there; a file that cannot be written."""
        self.assertRaises(Unavailable, finished, self.failing("/nowhere"))
        self.assertRaises(DatabaseError, finished, self.failing(""))
        db = self.open()
        (self.folder / "acc_1.log").mkdir()
        self.assertRaises(Unavailable, finished, db.insert("acc", {"a": 1}))
        (self.folder / "acc_1.log").rmdir()
        finished(db.insert("acc", {"a": 1}))
        self.assertEqual(self.files(), {"acc_1.log": "1\n"})

    def failing(self, folder):
        """Open another folder."""
        DbFlatstore(self.server)
        return self.server.databases.open(f"flatstore:{folder}")

    def test_full(self):
        """When the disk is full nothing is left half written, in no file."""
        waiting: list[Any] = []

        def later(*call: Any) -> Deferred[None]:
            waiting.append((done := Deferred[None](), *call))
            return done

        db = FlatDatabase(str(self.folder), lambda table: table, in_thread=later)
        begun = [ensureDeferred(db.insert("acc", {"a": number})) for number in range(3)]
        done, call, *arguments = waiting.pop()
        call(*arguments)
        done.callback(None)
        self.successResultOf(begun[0])
        self.assertNoResult(begun[1])
        done, call, writes, flush = waiting.pop()
        self.assertEqual(writes[0][1], b"1\n2\n")
        real, calls = os.write, []

        def short(file: int, text: bytes) -> int:
            calls.append(text)
            return real(file, text[:1])

        self.patch(os, "write", short)
        error = self.assertRaises(OSError, call, writes, flush)
        self.assertEqual((self.folder / "acc").read_text(), "0\n")
        done.errback(error)
        for each in begun[1:]:
            self.failureResultOf(each, Unavailable)


class ThreadTests(TestCase):
    """With the reactor's threads."""

    def test_order(self):
        """Rows that come together are in the file, in order, when they are answered; so in text files."""
        from twisted.internet import reactor

        async def run():
            folder = Path(self.mktemp()).absolute()
            folder.mkdir()
            (folder / "phones").write_text("name(str)\n")
            server: Any = FakeServer()
            server.reactor = reactor
            DbFlatstore(server)
            DbText(server)
            for url, table, file in ((f"flatstore:{folder}", "acc", "acc_1.log"), (f"text://{folder}", "phones", "phones")):
                db = await server.databases.open(url)
                begun = [ensureDeferred(db.insert(table, {"name": f"n{number}"})) for number in range(50)]
                await begun[0]
                self.assertIn("n0\n", (folder / file).read_text())
                for each in begun:
                    await each
                found = [line for line in (folder / file).read_text().splitlines() if line.startswith("n") and "(" not in line]
                self.assertEqual(found, [f"n{number}" for number in range(50)])
            begun = [ensureDeferred(db.insert(table, {"name": "last"}))]
            await server.databases.close()
            self.assertIn("last", (folder / file).read_text())
            await begun[0]

        return ensureDeferred(run())


SCRIPT = """
log_level = 3
xlog_level = 3
socket = udp:127.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "signaling.so"
loadmodule "tm.so"
loadmodule "db_text.so"
loadmodule "db_flatstore.so"
loadmodule "auth.so"
loadmodule "auth_db.so"
loadmodule "acc.so"
db_default_url = "text://{folder}/tables"
modparam("acc", "db_url", "flatstore:{folder}")
route {{
    if (!www_authorize("", "subscriber")) {{
        www_challenge("", "auth");
        exit;
    }}
    acc_db_request("200 Noted", "acc");
    sl_send_reply(200, "Noted");
}}
"""


class ScriptTests(SynchronousTestCase):
    """Other modules, with these databases and no server for them."""

    def test_auth_and_acc(self):
        """auth_db finds its users in text files; acc writes its rows at the end of a file."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        with closing(open_store(f"text://{folder}/tables", create=True)) as store:
            create(store, ["auth_db"])
            Subscribers(store).add("alice", "127.0.0.1", "secret")
        server = WiredServer(SCRIPT.format(folder=folder))
        phone = Phone(server.wire, "192.0.2.1")
        for password, status in (("wrong", 401), ("secret", 200)):
            phone.send(self.message(""), server.address)
            challenged: Any = phone.take()
            self.assertEqual(challenged.status, 401)
            challenge = Challenge.parse(challenged.header("WWW-Authenticate"))
            ha1 = hash_a1("alice", challenge.realm, password, challenge.algorithm)
            credentials = answer(challenge, "alice", ha1, "MESSAGE", "sip:127.0.0.1", cnonce="c")
            phone.send(self.message(f"Authorization: {credentials}\r\n"), server.address)
            said: Any = phone.take()
            self.assertEqual(said.status, status)
        [line] = (folder / "acc_1.log").read_text().splitlines()
        self.assertEqual(line.split("|")[:6], ["MESSAGE", "a", "", "one", "200", "Noted"])

    def message(self, header):
        """A request."""
        self.count = getattr(self, "count", 0) + 1
        return (
            f"MESSAGE sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{self.count}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:alice@127.0.0.1>;tag=a\r\nTo: <sip:127.0.0.1>\r\nCall-ID: one\r\nCSeq: {self.count} MESSAGE\r\n{header}"
            "Content-Length: 0\r\n\r\n"
        ).encode()
