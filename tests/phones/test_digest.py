"""Telephones with a password register and call through the script of ``examples/passwords.cfg`` and a SQLite database.

The names here are short: baresip cuts off longer paths."""

import sqlite3
from pathlib import Path

from twisted.trial.unittest import SkipTest

from sipgw.sip.auth import hash_a1
from tests.children import HOST
from tests.phones.softphones import LINPHONEC, Baresip, Linphone
from tests.phones.test_calls import HIGH, LOW, PhoneTestCase
from tests.servers.sql import sqlite
from tests.sipp.harness import Server

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "passwords.cfg"
PASSWORD = "x"
"""What the telephones say it is."""


class WithPasswords(PhoneTestCase):
    """Registrations and calls that are challenged."""

    algorithms = ""

    def serve(self):
        """A server whose database knows 1001, 1002 and 1003."""
        url = sqlite(str(self.directory))
        database = sqlite3.connect(self.directory / "opensips.sqlite")
        database.execute("CREATE TABLE version (table_name CHAR(32), table_version INT)")
        database.execute("INSERT INTO version VALUES ('subscriber', 8)")
        database.execute("CREATE TABLE subscriber (username CHAR(64), domain CHAR(64), ha1 CHAR(64), ha1_sha256 CHAR(64))")
        for user in ("1001", "1002", "1003"):
            hashes = [hash_a1(user, HOST, PASSWORD, algorithm) for algorithm in ("MD5", "SHA-256")]
            database.execute("INSERT INTO subscriber VALUES (?, ?, ?, ?)", (user, HOST, *hashes))
        database.commit()
        database.close()
        text = EXAMPLE.read_text().replace("sqlite:///var/lib/sipgw/opensips.sqlite", url)
        if self.algorithms:
            text = text.replace('_challenge("", "auth")', f'_challenge("", "auth", "{self.algorithms}")')
        config = self.directory / "passwords.cfg"
        config.write_text(text)
        return Server(self.directory / "server", str(config))

    def leave(self, phone):
        """A telephone leaves; it has needed its password for that, too."""
        self.assertEqual(phone.quit(), 0)


class DigestTests(WithPasswords):
    """MD5, which all know."""

    def test_md5(self):
        """baresip calls baresip, and back; then it leaves."""
        one, other = self.phone(Baresip, "1001", LOW), self.phone(Baresip, "1002", HIGH)
        self.talk(one, other)
        self.talk(other, one)
        self.leave(one)


class BothTests(WithPasswords):
    """SHA-256 is offered before MD5, at which baresip 1.0 gives up."""

    algorithms = "MD5,SHA-256"

    def test_both(self):
        """linphonec registers, with whichever it knows, and leaves."""
        if LINPHONEC is None:
            raise SkipTest("linphonec is not installed (Debian: linphone-cli)")
        self.leave(self.phone(Linphone, "1003", LOW))
