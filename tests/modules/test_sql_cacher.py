"""sql_cacher: tables in a store, whole or row by row."""

import json
import os
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.errors import Unavailable
from sipgw.interfaces import Change
from sipgw.mi.jsonrpc import MIError
from sipgw.testing import finished, pass_time
from tests.modules.scripted import Scripted, request
from tests.servers.sql import sqlite

FULL = "id=gw\ndb_url={url}\ncachedb_url=local://\ntable=gateways\nkey=name\ncolumns=host port"
DEMAND = "id=one\ndb_url={url}\ncachedb_url=local://\ntable=gateways\nkey=id\nkey_type=int\non_demand=1\nexpire=100"


class CacherTests(SynchronousTestCase):
    """On SQLite and cachedb_local."""

    def start(self, body: str, *tables: str, rest: str = "") -> Scripted:
        """Run a script beside a table of gateways."""
        os.makedirs(directory := self.mktemp())
        url = sqlite(directory)
        maker = Scripted("exit;", "db_sqlite", "sqlops", rest=f'modparam("sqlops", "db_url", "{url}")\n')
        self.db: Any = finished(maker.server.databases.open(url))
        self.addCleanup(lambda: finished(self.db.close()))
        finished(self.db.query("CREATE TABLE gateways (id INTEGER PRIMARY KEY, name CHAR(64), host CHAR(64), port INTEGER)"))
        rows: list[dict[str, Any]] = [
            {"id": 1, "name": "paris", "host": "192.0.2.1", "port": 5060},
            {"id": 2, "name": "rome", "host": None, "port": 5062},
        ]
        finished(self.db.batch([Change("insert", "gateways", row) for row in rows]))
        given = "".join(f'modparam("sql_cacher", "cache_table", "{table.format(url=url)}")\n' for table in tables)
        scripted = Scripted(body, "db_sqlite", "cachedb_local", "sql_cacher", rest=rest + given)
        self.addCleanup(lambda: finished(scripted.server.databases.close()))  # type: ignore[attr-defined]
        return scripted

    def call(self, scripted: Scripted, method: str, **params: Any) -> Any:
        """The answer of a management command."""
        return finished(scripted.server.commands.call(method, params))

    def test_full(self) -> None:
        """A table that is loaded whole: columns by key, null for nothing; changes are seen after a reload."""
        scripted = self.start(
            """
            $var(k) = "paris";
            xlog("L_ALERT", "$sql_cached_value(gw:host:$var(k)) $sql_cached_value(gw:port:paris)");
            if ($sql_cached_value(gw:host:rome) == NULL)
                xlog("L_ALERT", "none $sql_cached_value(gw:port:rome) $sql_cached_value(gw:port:oslo)");
            """,
            FULL,
        )
        self.assertEqual(scripted.send(), ["192.0.2.1 5060", "none 5062 <null>"])
        finished(self.db.batch([
            Change("update", "gateways", {"host": "192.0.2.9"}, {"name": "paris"}),
            Change("delete", "gateways", where={"name": "rome"}),
        ]))  # fmt: skip
        self.assertEqual(scripted.send(request(call_id="2", branch="2"))[0], "192.0.2.1 5060")
        self.call(scripted, "sql_cacher:reload", id="gw", key="paris")
        self.assertEqual(scripted.send(request(call_id="3", branch="3")), ["192.0.2.9 5060", "none 5062 <null>"])
        self.call(scripted, "sql_cacher_reload", id="gw")
        self.assertEqual(scripted.send(request(call_id="4", branch="4")), ["192.0.2.9 5060", "none <null> <null>"])
        self.assertRaises(MIError, self.call, scripted, "sql_cacher:reload", id="nothing")

    def test_status(self) -> None:
        """A whole table has a status and reports; it is loaded again a while before its rows expire, also after a fault."""
        scripted = self.start(
            'xlog("L_ALERT", "$sql_cached_value(gw:port:paris)");',
            FULL,
            rest='modparam("sql_cacher", "full_caching_expire", 100)\nmodparam("sql_cacher", "reload_interval", 10)\n',
        )
        group: Any = scripted.server.user.status.find("sql_cacher")
        status = group.find("gw")
        self.assertEqual((status.status, status.reports[-1].text), (1, "2 records loaded"))
        finished(self.db.update("gateways", {"port": 1}, {"name": "paris"}))
        pass_time(scripted.clock, 91)
        self.assertEqual(scripted.send(), ["1"])
        finished(self.db.query("ALTER TABLE gateways RENAME TO hidden"))
        pass_time(scripted.clock, 90)
        self.assertEqual(scripted.send(request(call_id="2", branch="2"))[-1:], ["1"])
        self.assertEqual((status.status, status.reports[-1].text), (1, "DB data loading failed, discarding"))
        finished(self.db.query("ALTER TABLE hidden RENAME TO gateways"))
        finished(self.db.update("gateways", {"port": 2}, {"name": "paris"}))
        pass_time(scripted.clock, 90)
        self.assertEqual(scripted.send(request(call_id="3", branch="3"))[-1:], ["2"])

    def test_many(self) -> None:
        """A large table is stored piece by piece, so that the reactor goes on meanwhile."""
        scripted = self.start('xlog("L_ALERT", "$sql_cached_value(gw:port:n249)");', FULL)
        finished(self.db.batch([Change("insert", "gateways", {"name": f"n{number}", "port": number}) for number in range(250)]))
        done = ensureDeferred(scripted.server.commands.call("sql_cacher:reload", {"id": "gw"}))
        self.assertNoResult(done)
        pass_time(scripted.clock, 1)
        self.successResultOf(done)
        self.assertEqual(scripted.send(), ["249"])

    def test_on_demand(self) -> None:
        """Rows come when somebody asks, all columns of them; they and the absence of others are kept until they expire."""
        scripted = self.start('xlog("L_ALERT", "$sql_cached_value(one:name:2) $sql_cached_value(one:name:$rU)");', DEMAND)
        self.assertEqual(scripted.send(request(uri="sip:7@127.0.0.1")), ["rome <null>"])
        finished(self.db.update("gateways", {"name": "roma"}, {"id": 2}))
        finished(self.db.insert("gateways", {"id": 7, "name": "lima"}))
        self.assertEqual(scripted.send(request(uri="sip:7@127.0.0.1", call_id="2", branch="2")), ["rome <null>"])
        pass_time(scripted.clock, 101)
        self.assertEqual(scripted.send(request(uri="sip:7@127.0.0.1", call_id="3", branch="3")), ["roma lima"])
        finished(self.db.update("gateways", {"name": "rome"}, {"id": 2}))
        self.call(scripted, "sql_cacher:reload", id="one")
        self.assertEqual(scripted.send(request(uri="sip:7@127.0.0.1", call_id="4", branch="4")), ["rome lima"])
        for payload in ["x", "2 OR 1=1", "2'"]:
            uri = f"sip:{payload.replace(' ', '%20')}@127.0.0.1"
            self.assertEqual(scripted.send(request(uri=uri, call_id=payload.encode().hex()))[-1], "rome <null>")

    def test_waits(self) -> None:
        """A row that takes its time holds up nobody, and is asked for once however many want it."""
        scripted = self.start('xlog("L_ALERT", "$sql_cached_value(one:name:2)");', DEMAND)
        module: Any = scripted.server.modules["sql_cacher"]
        table = module._tables["one"]
        select = table.db.select
        asked: list[Deferred[None]] = []

        async def slow(*args: Any, **options: Any) -> Any:
            asked.append(Deferred())
            await asked[-1]
            return await select(*args, **options)

        table.db.select = slow
        self.assertEqual(scripted.send(), [])
        self.assertEqual(scripted.send(request(call_id="2", branch="2")), [])
        self.assertEqual(len(asked), 1)
        asked[0].callback(None)
        self.assertEqual(scripted.logged(), ["rome", "rome"])

        async def down(*args: Any, **options: Any) -> Any:
            raise Unavailable("it is down")

        table.db.select = down
        pass_time(scripted.clock, 101)
        lines = scripted.send(request(call_id="3", branch="3"))
        self.assertEqual(lines, ["$sql_cached_value: one: it is down", "<null>"])

    def test_dump(self) -> None:
        """All rows of a whole table at once."""
        scripted = self.start(
            """
            $var(n) = sql_cache_dump("gw", "port,host", "$avp(port),$avp(host)");
            xlog("L_ALERT", "$var(n) $(avp(port)[*]) $(avp(host)[*])");
            sql_cache_dump("gw", "nothing", "$avp(port)");
            xlog("L_ALERT", "$rc");
            """,
            FULL,
        )
        lines = scripted.send()
        self.assertEqual([lines[0], lines[-1]], ["2 5062, 5060 <null>, 192.0.2.1", "-1"])
        finished(self.db.delete("gateways", {}))
        self.call(scripted, "sql_cacher:reload", id="gw")
        self.assertEqual(scripted.send(request(call_id="2", branch="2"))[0], "-2 <null> <null>")

    def test_where_nothing_waits(self) -> None:
        """A function that reads the variable itself has what the store says at once."""
        scripted = self.start(
            """
            route(show, $sql_cached_value(gw:port:paris));
            $avp(x) = $sql_cached_value(gw:port:paris);
            xlog("L_ALERT", "$avp(x)");
            """,
            FULL,
            rest='route[show] { xlog("L_ALERT", "$param(1)"); }\n',
        )
        self.assertEqual(scripted.send(), ["5060", "5060"])
        from sipgw.script.compiler import compile_format

        text = compile_format("$sql_cached_value(gw:port:paris) $sql_cached_value(gw:port:$var(x))", scripted.server.symbols)
        run: Any = type("Run", (), {"user": scripted.server.user, "vars": {"x": "rome"}})()
        self.assertEqual(text(run), "5060 5062")

    def test_wrong(self) -> None:
        """What is wrong with a table is said when the script is read."""
        for table, said in [
            ("id=a", "cache_table has no db_url"),
            (FULL + "\nmore=1", "'more=1' is no part"),
            (FULL + "\nkey_type=float", "key_type is string or int"),
            (FULL + "\non_demand=yes", "on_demand is a number"),
        ]:
            error = self.assertRaises(AssertionError, self.start, "exit;", table)
            self.assertIn(said, str(error))

    def test_kept(self) -> None:
        """What is in the store is JSON; what else may be there counts for nothing."""
        scripted = self.start('xlog("L_ALERT", "$sql_cached_value(gw:port:paris)");', FULL)
        caches = scripted.server.user.caches
        self.assertEqual(json.loads(finished(caches.fetch("local", "gwparis")) or ""), [0, ["192.0.2.1", 5060]])
        finished(caches.store("local", "gwparis", "rubbish"))
        self.assertEqual(scripted.send(), ["<null>"])
