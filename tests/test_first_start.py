"""sipgw without a script: a database with one user, and a configuration that asks for his password."""

import io
import os
import re
import sys
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from sipgw.command import main
from sipgw.configuration import reading_of
from sipgw.db.errors import DatabaseError
from sipgw.db.making import check
from sipgw.db.session import open_store
from sipgw.db.subscribers import Subscribers, hashes
from sipgw.first_start import DEFAULT, configuration, database_url, prepare
from sipgw.options import Options
from sipgw.service import check as check_reading
from sipgw.sip.auth import Challenge, answer, hash_a1
from tests.children import HOST, SIPGW, Child, free_port, here, wait_for
from tests.sipp.harness import Phone


class FirstStartCase(SynchronousTestCase):
    """A folder of its own."""

    def setUp(self):
        """Nothing is there."""
        self.folder = Path(self.mktemp()).absolute()
        before = os.environ.get("SIPGW_STATE")
        os.environ["SIPGW_STATE"] = str(self.folder)
        self.addCleanup(self.restore, before)

    def restore(self, before):
        """Have the environment as it was."""
        os.environ.pop("SIPGW_STATE")
        if before is not None:
            os.environ["SIPGW_STATE"] = before

    def password(self, text):
        """The password that was told."""
        found = re.search(r"user: +1000, domain 127\.0\.0\.1, password (\S+)", text)
        assert found is not None
        return found[1]


class FirstStartTests(FirstStartCase):
    """What is made, and told."""

    def test_prepare(self):
        """The first time there is a database for its owner only, and the password is told; then nothing is told."""
        lines: list[str] = []
        url = prepare(lines.append)
        self.assertEqual(url, f"sqlite://{self.folder}/sipgw.sqlite")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["sipgw.sqlite"])
        modes = [path.stat().st_mode & 0o777 for path in (self.folder, self.folder / "sipgw.sqlite")]
        self.assertEqual(modes, [0o700, 0o600])
        with closing(open_store(url)) as store:
            self.assertEqual([remark for remark in check(store) if remark.fault], [])
            [ha1] = store.select("subscriber", ["ha1"], {"username": "1000"}).rows[0]
        password = self.password("\n".join(lines))
        self.assertEqual(ha1, hashes("1000", "127.0.0.1", password)["ha1"])
        self.assertNotIn(password.encode(), (self.folder / "sipgw.sqlite").read_bytes())
        self.assertEqual(prepare(lines.append), url)
        self.assertEqual(len(lines), 3)

    def test_folders(self):
        """The folder is SIPGW_STATE, else in XDG_STATE_HOME, else in the home."""
        before = {name: os.environ.get(name) for name in ("XDG_STATE_HOME", "HOME")}
        for name, value, expected in (
            ("SIPGW_STATE", "/a", "sqlite:///a/sipgw.sqlite"),
            ("XDG_STATE_HOME", "/b", "sqlite:///b/sipgw/sipgw.sqlite"),
            ("HOME", "/c", "sqlite:///c/.local/state/sipgw/sipgw.sqlite"),
        ):
            for each in ("SIPGW_STATE", "XDG_STATE_HOME"):
                os.environ.pop(each, None)
            os.environ[name] = value
            self.assertEqual(database_url(), expected)
        for name, old in before.items():
            os.environ.pop(name, None)
            if old is not None:
                os.environ[name] = old
        os.environ["SIPGW_STATE"] = str(self.folder)

    def test_impossible(self):
        """Where nothing can be made, that is said, and nothing half done is left."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.write_text("a file")
        self.assertRaises(DatabaseError, prepare)
        self.assertIn("SIPGW_STATE", str(self.assertRaises(UsageError, Options().parseOptions, [])))

    def test_options(self):
        """Without a script the database is made, and named to the modules; with one, or only to check, it is not."""
        with redirect_stdout(io.StringIO()) as said:
            script = Path(self.mktemp())
            script.write_text(Path(DEFAULT).read_text())
            for arguments in (["-c", str(script)], ["--check"], ["--database", "sqlite:///x"]):
                options = Options()
                options.parseOptions(arguments)
                self.assertFalse(self.folder.exists())
            self.assertEqual(options["database"], "sqlite:///x")
            options = Options()
            options.parseOptions([])
        self.assertEqual(options["database"], database_url())
        self.assertEqual(options["config"], DEFAULT)
        self.password(said.getvalue())

    def test_configuration(self):
        """`sipgw config` prints a script that names its database and has no fault; what is told is no part of it."""
        with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as told:
            self.assertEqual(main(["config"]), 0)
            self.password(told.getvalue())
            self.assertEqual(check_reading(reading_of(printed.getvalue())), 0)
        self.assertIn(f'\ndb_default_url = "{database_url()}"\n', printed.getvalue())
        self.assertEqual(printed.getvalue(), configuration(database_url()))

    def test_user(self):
        """`sipgw user` without a database means this one."""
        self.patch(sys, "stdin", io.StringIO("secret\n"))
        with redirect_stdout(io.StringIO()) as printed:
            prepare()
            self.assertEqual(main(["user", "add", "1001@127.0.0.1"]), 0)
            self.assertEqual(main(["user", "list"]), 0)
        self.assertIn("1000@127.0.0.1\n1001@127.0.0.1\n", printed.getvalue())


class RunTests(FirstStartCase):
    """A server that is started for the first time."""

    def start(self) -> Child:
        """`sipgw run` on another port."""
        self.port = free_port()
        child = here([*SIPGW, "run", "--socket", f"udp:{HOST}:{self.port}"], Path(self.mktemp()).absolute())
        self.addCleanup(child.kill)
        wait_for(lambda: " listens on " in child.text(), "the server listens", child)
        return child

    def asker(self) -> Phone:
        """A phone."""
        phone = Phone(self.port)
        self.addCleanup(phone.close)
        return phone

    def test_life(self):
        """The password that is told lets its user register and call; nobody else, not without it, not under another name."""
        child = self.start()
        password = self.password(child.text())
        with closing(open_store(database_url())) as store:
            Subscribers(store).add("1001", HOST, "other")
        phone = self.asker()
        registrar, contact = f"sip:{HOST}", f"Contact: <sip:1000@{HOST}:{phone.port}>\r\n"
        me, him = f"sip:1000@{HOST}", f"sip:1001@{HOST}"
        for method, uri, user, given, status in (
            ("REGISTER", registrar, "1000", "", 401),
            ("REGISTER", registrar, "1000", "wrong", 401),
            ("REGISTER", registrar, "nobody", password, 401),
            ("REGISTER", registrar, "1000", password, 200),
            ("MESSAGE", him, "1000", "", 407),
            ("MESSAGE", him, "1000", "wrong", 407),
            ("MESSAGE", him, "1000", password, 404),
            ("INVITE", him, "1000", password, 404),
            ("OPTIONS", registrar, "1000", "", 200),
            ("MESSAGE", f"sip:x@{HOST}.example", "1000", password, 403),
        ):
            self.assertEqual(phone.request(method, uri, user, contact, password=given), status, (method, user, given))
        self.assertEqual(self.impostor(phone, me, "1001", "other"), 403)
        child.process.terminate()
        self.assertEqual(child.wait(), 0)
        child = self.start()
        self.assertNotIn("password", child.text())
        self.assertIn("1 contacts", child.text())

    def impostor(self, phone: Phone, name: str, user: str, password: str) -> int | None:
        """Call as ``name`` with the password of another user: the answer."""
        asked = phone.request
        self.assertEqual(asked("MESSAGE", name, "1000"), 407)
        challenge = Challenge.parse(re.findall(r"Proxy-Authenticate: (.*?)\r", phone.answer)[0])
        ha1 = hash_a1(user, challenge.realm, password, challenge.algorithm)
        credentials = answer(challenge, user, ha1, "MESSAGE", name, cnonce="c")
        return asked("MESSAGE", name, "1000", f"Proxy-Authorization: {credentials}\r\n")
