"""``sipgw db`` and ``sipgw user``, as they are typed."""

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw import command_user
from sipgw.command import main
from sipgw.db.schema import tables
from sipgw.db.session import open_store
from sipgw.db.subscribers import hashes


class Keyboard(io.StringIO):
    """A stdin at which somebody sits."""

    def isatty(self) -> bool:
        """He does."""
        return True


class CommandCase(SynchronousTestCase):
    """Commands with their output."""

    def setUp(self) -> None:
        """A database that is not there."""
        self.file = os.path.abspath(self.mktemp())
        self.url = f"sqlite://{self.file}"

    def sipgw(self, *arguments: str, status: int = 0, stdin: str | io.StringIO = "") -> str:
        """Run one command; what it says, if it ends with ``status``."""
        said = io.StringIO()
        self.patch(sys, "stdin", io.StringIO(stdin) if isinstance(stdin, str) else stdin)
        with redirect_stdout(said), redirect_stderr(said):
            found = main(arguments)
        self.assertEqual(found, status, said.getvalue())
        return said.getvalue()


class DbTests(CommandCase):
    """``sipgw db``."""

    def test_life(self) -> None:
        """Create, check, dump, load."""
        self.assertIn("no file", self.sipgw("db", "check", self.url, status=1))
        said = self.sipgw("db", "create", self.url, "auth_db", "location")
        self.assertIn("location: made, version 1013\n", said)
        self.assertIn("3 tables made", said)
        self.assertEqual(self.sipgw("db", "create", "-q", self.url), f"{self.url}: {len(tables()) - 4} tables made\n")
        self.assertTrue(self.sipgw("db", "check", self.url).endswith("no fault\n"))
        store = open_store(self.url)
        self.addCleanup(store.close)
        store.insert("subscriber", {"username": "a", "domain": "d"})
        dumped = self.sipgw("db", "dump", self.url, "subscriber")
        other = f"text://{os.path.abspath(self.mktemp())}"
        self.assertEqual(self.sipgw("db", "load", other, stdin=dumped), "subscriber: 1 rows\n")
        self.assertIn("rows in it already", self.sipgw("db", "load", other, stdin=dumped, status=1))
        file = Path(self.mktemp())
        file.write_text(dumped)
        self.assertEqual(self.sipgw("db", "load", f"sqlite://{self.file}2", str(file)), "subscriber: 1 rows\n")
        self.assertIn("No such file", self.sipgw("db", "load", other, "nowhere", status=1))

    def test_faults(self) -> None:
        """A version that is not today's is a fault; migrate says what it has done, and what it cannot do."""
        self.sipgw("db", "create", "-q", self.url)
        store = open_store(self.url)
        self.addCleanup(store.close)
        store.update("version", {"table_version": 7}, {"table_name": "dispatcher"})
        said = self.sipgw("db", "check", self.url, "dispatcher", status=1)
        self.assertIn(f"sipgw db migrate {self.url} dispatcher", said)
        self.assertTrue(said.endswith("1 fault\n"))
        self.assertIn("version 7 is 9 now", self.sipgw("db", "migrate", self.url, "dispatcher"))
        store.update("version", {"table_version": 1}, {"table_name": "dispatcher"})
        self.assertIn("drop the table", self.sipgw("db", "migrate", self.url, "dispatcher", status=1))
        self.assertIn("no table nonsense", self.sipgw("db", "migrate", self.url, "nonsense", status=1))

    def test_list(self) -> None:
        """The tables that there are."""
        self.assertRegex(self.sipgw("db", "list"), r"\nsubscriber +8 +auth_db\n")

    def test_password(self) -> None:
        """The password of a URL is never said."""
        said = self.sipgw("db", "check", "mysql://u:s3cret@127.0.0.1:1/x", status=1)
        self.assertIn("u:***@", said)
        self.assertNotIn("s3cret", said)


class UserTests(CommandCase):
    """``sipgw user``."""

    def setUp(self) -> None:
        """A database with tables."""
        super().setUp()
        self.sipgw("db", "create", "-q", self.url, "subscriber")

    def user(self, action: str, *arguments: str, **more: Any) -> str:
        """One command on it."""
        return self.sipgw("user", action, *arguments, "--url", self.url, **more)

    def ha1(self, user: str) -> str:
        """The hash of a user."""
        store = open_store(self.url)
        try:
            return str(store.select("subscriber", ["ha1"], {"username": user}).rows[0][0])
        finally:
            store.close()

    def test_life(self) -> None:
        """Add, list, change, remove; the password comes from stdin."""
        self.assertEqual(self.user("add", "1000@Example.org", stdin="secret\nmore"), "1000@example.org is added\n")
        self.assertEqual(self.ha1("1000"), hashes("1000", "example.org", "secret")["ha1"])
        self.user("add", "sip:b@example.net", stdin="x")
        self.assertEqual(self.user("list"), "1000@example.org\nb@example.net\n")
        self.assertEqual(self.user("list", "@example.net"), "b@example.net\n")
        self.user("passwd", "1000@example.org", stdin="other\n")
        self.assertEqual(self.ha1("1000"), hashes("1000", "example.org", "other")["ha1"])
        self.user("rm", "1000@example.org")
        self.assertIn("there is no", self.user("rm", "1000@example.org", status=1))
        self.assertIn("is there already", self.user("add", "b@example.net", stdin="x", status=1))
        for bad in ("b", "@d", "b@", "a@b@c"):
            self.user("add", bad, stdin="x", status=1)
        self.assertIn("empty password", self.user("add", "c@d", status=1))

    def test_asked(self) -> None:
        """Whoever sits at a terminal is asked twice, without echo."""
        answers = ["one", "one", "one", "two"]
        self.patch(command_user, "getpass", lambda _prompt: answers.pop(0))
        self.user("add", "a@d", stdin=Keyboard())
        self.assertEqual(self.ha1("a"), hashes("a", "d", "one")["ha1"])
        self.assertIn("two passwords", self.user("passwd", "a@d", stdin=Keyboard(), status=1))

    def test_random(self) -> None:
        """A password may be made, and is printed then."""
        said = self.user("add", "a@d", "--random")
        password = said.split("The password is ")[1].split("\n")[0]
        self.assertEqual(self.ha1("a"), hashes("a", "d", password)["ha1"])

    def test_config(self) -> None:
        """The database, and the names of columns, as a script has them."""
        file = Path(self.mktemp())
        for text, said in (
            (f'db_default_url = "{self.url}"\nroute {{ exit; }}\n', ""),
            (f'db_default_url = "sqlite:///no"\nmodparam("auth_db|x", "db_url", "{self.url}")\nroute {{ exit; }}\n', ""),
            (f'db_default_url = "{self.url}"\nmodparam("auth_db", "password_column", "my")\nroute {{ exit; }}\n', "no column my"),
            ("route { exit; }\n", "names no database"),
            ("route {\n", "before the end of the file"),
        ):
            file.write_text(text)
            found = self.sipgw("user", "add", "a@d", "-c", str(file), stdin="x", status=1 if said else 0)
            self.assertIn(said or "added", found)
            if not said:
                self.user("rm", "a@d")
