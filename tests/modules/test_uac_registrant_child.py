"""uac_registrant against a real registrar: two sipgw processes, SQLite in both, a password that is asked for with SHA-256."""

import sqlite3
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.auth import hash_a1
from tests.children import HOST, free_port, twistd, wait_for
from tests.servers.sql import sqlite

REGISTRAR = """
socket = udp:127.0.0.1:{port}
db_default_url = "{url}"
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "signaling.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "db_sqlite.so"
loadmodule "auth.so"
loadmodule "auth_db.so"
modparam("usrloc", "working_mode_preset", "single-instance-no-db")
modparam("registrar", "min_expires", 1)
route {{
    if (!www_authorize("reg.org", "subscriber")) www_challenge("reg.org", "auth", "SHA-256");
    save("location");
    xlog("saved $ct by $au with $auth.alg\\n");
}}
"""
REGISTRANT = """
socket = udp:127.0.0.1:{port}
db_default_url = "{url}"
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "db_sqlite.so"
loadmodule "uac_auth.so"
loadmodule "uac_registrant.so"
route {{ sl_send_reply(200, "OK"); }}
event_route[E_REGISTRANT_REGISTERED] {{ xlog("registered $param(aor)\\n"); }}
event_route[E_REGISTRANT_WRONG_CREDENTIALS] {{ xlog("refused $param(aor)\\n"); }}
"""


class ChildTests(SynchronousTestCase):
    """A registrar, and a server that registers there."""

    def serve(self, name, script, *statements):
        """A child with a script and a database of its own."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        url = sqlite(str(directory))
        database = sqlite3.connect(directory / "opensips.sqlite")
        database.execute("CREATE TABLE version (table_name CHAR(32), table_version INT)")
        for statement in statements:
            database.execute(*statement)
        database.commit()
        database.close()
        port = free_port()
        config = directory / f"{name}.cfg"
        config.write_text(script.format(port=port, url=url))
        child = twistd(["sipgw", "-c", str(config)], directory / "child")
        self.addCleanup(child.kill)
        wait_for(lambda: f"listens on udp:{HOST}:{port}" in child.text(), f"{name} is there", child)
        return child, port

    def test_registers(self):
        """One with the right password is registered, and again after a second; one with a wrong one is refused."""
        registrar, port = self.serve(
            "registrar", REGISTRAR,
            ("INSERT INTO version VALUES ('subscriber', 8)",),
            ("CREATE TABLE subscriber (username CHAR(64), domain CHAR(64), ha1_sha256 CHAR(64))",),
            ("INSERT INTO subscriber VALUES ('alice', 'reg.org', ?)", (hash_a1("alice", "reg.org", "secret", "SHA-256"),)),
        )  # fmt: skip
        columns = "registrar, proxy, aor, username, password, binding_URI, expiry, state"
        values = f"'sip:reg.org', 'sip:{HOST}:{port}', ?, 'alice', ?, 'sip:x@{HOST}', 2, 0"
        insert = f"INSERT INTO registrant ({columns}) VALUES ({values})"
        registrant, _ = self.serve(
            "registrant", REGISTRANT,
            ("INSERT INTO version VALUES ('registrant', 3)",),
            (f"CREATE TABLE registrant ({columns}, third_party_registrant, binding_params, forced_socket, cluster_shtag)",),
            (insert, ("sip:alice@reg.org", "secret")),
            (insert, ("sip:other@reg.org", "wrong")),
        )  # fmt: skip
        wait_for(lambda: registrant.text().count("registered sip:alice@reg.org") > 1, "it registers twice", registrant)
        self.assertIn("refused sip:other@reg.org", registrant.text())
        self.assertGreater(registrar.text().count(f"saved <sip:x@{HOST}>;expires=2 by alice with SHA-256"), 1)
        for child in (registrar, registrant):
            self.assertEqual([line for line in child.text().splitlines() if " CRITICAL: " in line or " ERROR: " in line], [])
