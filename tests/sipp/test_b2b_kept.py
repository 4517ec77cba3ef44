"""Back-to-back calls whose server is killed in their middle, as they are kept on each SQL engine and in a Redis; sipp plays all
sides."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any
from urllib.request import Request, urlopen

from twisted.trial.unittest import SkipTest

from sipgw.db.making import create
from sipgw.db.session import open_store
from tests.children import HOST, free_port, wait_for
from tests.servers import redis, sql
from tests.sipp.troupe import CALLS, TALK, Flow, TroupeTestCase

CALLS_UP = """
    > INVITE sdp
    < 100?
    < 180
    < 200
    > ACK
"""
ANSWERS = """
    < INVITE
    > 180
    > 200 sdp
    < ACK
"""
HANGS_UP = """
    > BYE
    < 200
"""
HEARS_BYE = """
    < BYE
    > 200
"""
ASKS_AGAIN = """
    wait @talk@
    > INVITE hold
    < 100?
    < 200 | body ~ o=callee
    > ACK
"""
IS_ASKED_AGAIN = """
    < INVITE | body ~ a=sendonly
    > 200 sdp
    < ACK
"""
LIMIT = """<scenario id="limit" param="1"><init><bridge>
    <server><id>in</id></server><client><id>out</id><destination><value type="param">1</value></destination></client>
    <lifetime>@lasting@</lifetime>
</bridge></init></scenario>
"""


class KeptTests(TroupeTestCase):
    """Calls through ``kept-b2b.cfg``."""

    config = "kept-b2b.cfg"
    engine = "sqlite"
    entities, sessions = "b2b_entities", "b2b_logic"

    def setUp(self) -> None:
        """Make the tables, and start the server."""
        why = redis.missing() if self.engine == "redis" else sql.missing(self.engine)
        if why:
            raise SkipTest(why)
        super().setUp()

    def script(self, text: str) -> str:
        """Say where calls are kept."""
        if self.engine == "redis":
            redis.redis().restore()
            redis.redis().ask("FLUSHALL")
            self.url, module, where = redis.redis().url, "cachedb_redis", "cachedb_url"
        else:
            self.url, module, where = sql.fresh(self.engine, str(self.directory)), f"db_{self.engine}", "db_url"
            with closing(open_store(self.url, create=True)) as store:
                create(store, ["version", "b2b_entities", "b2b_logic"])
        self.http = free_port()
        values = {"http": str(self.http), "module": module, "where": where, "url": self.url}
        values["scenario"] = str(self.directory / "limit.xml")
        (self.directory / "limit.xml").write_text(LIMIT.replace("@lasting@", str(TALK // 1000 + 4)))
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        return super().script(text)

    def stored(self) -> tuple[int, int]:
        """How many legs that talk and how many sessions are kept."""
        if self.engine == "redis":
            legs = [*self.keys("b2be$0$*"), *self.keys("b2be$1$*")]
            talking = [leg for leg in legs if redis.redis().ask("HGET", leg, "state") == b"$2\r\n25\r\n"]
            return len(talking), len(self.keys("b2bl$*"))
        with closing(open_store(self.url)) as store:
            states = [row[0] for row in store.select("b2b_entities", ["state"]).rows]
            return states.count(5), len(store.select("b2b_logic", ["si_key"]).rows)

    def keys(self, pattern: str) -> list[str]:
        """The keys in the Redis."""
        lines = redis.redis().ask("KEYS", pattern).decode().split("\r\n")
        return [line for line in lines if line.startswith("b2b")]

    def empty(self) -> bool:
        """Whether nothing is kept of anything."""
        if self.engine == "redis":
            return redis.redis().ask("DBSIZE") == b":0\r\n"
        with closing(open_store(self.url)) as store:
            return not any(store.select(table, ["id"]).rows for table in ("b2b_entities", "b2b_logic"))

    def listed(self) -> dict[str, list[tuple[str, ...]]]:
        """What is listed of the sessions but their states and numbers."""
        asked = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "b2b_list"}).encode()
        with urlopen(Request(f"http://{HOST}:{self.http}/mi", asked, {"Content-Type": "application/json"}), timeout=20) as answer:
            found: Any = json.loads(answer.read())["result"]
        names = ("type", "key", "id", "callid", "fromtag", "totag", "from_uri", "to_uri", "contact", "remote_contact")
        return {each["key"]: [tuple(entity[name] for name in names) for entity in each["entities"]] for each in found}

    def test_kill(self) -> None:
        """The BYE of either side, a re-INVITE, the script's own logic, the end of a call's time and the operator's commands
        work after a kill as before; nothing is left anywhere."""
        talk = "wait @talk@"
        flows = [
            Flow("plain", CALLS_UP + talk + HANGS_UP, {"callee": ANSWERS + HEARS_BYE}),
            Flow("back", CALLS_UP + HEARS_BYE, {"callee": ANSWERS + talk + HANGS_UP}),
            Flow("again", CALLS_UP + ASKS_AGAIN + HANGS_UP, {"callee": ANSWERS + IS_ASKED_AGAIN + HEARS_BYE}),
            Flow(
                "own", CALLS_UP + talk + "\n > INFO\n < 200 | X-Known ~ before the end" + HANGS_UP,
                {"callee": ANSWERS + HEARS_BYE},
            ),
            Flow("ended", CALLS_UP + HEARS_BYE, {"callee": ANSWERS + HEARS_BYE}),
        ]
        if self.engine == "sqlite":
            flows.append(Flow("limit", CALLS_UP + HEARS_BYE, {"callee": ANSWERS + HEARS_BYE}))
        parties = [party for flow in flows for party in self.begin(flow)]
        count = CALLS * len(flows)
        wait_for(lambda: self.stored() == (2 * count, count), "all calls are answered, and kept", self.server.child)
        before = self.listed()
        self.restart()
        after = self.listed()
        self.assertEqual(after, {key: before[key] for key in after})  # on a slow machine some have hung up meanwhile
        ended = [key for key, entities in before.items() if entities[0][7].startswith("sip:ended-")]
        self.assertEqual(len(after.keys() & ended), CALLS)
        for key in ended:
            self.ask("b2b_terminate_call", key=key)
        self.finish(*parties)
        self.assertNothingLeft()
        wait_for(self.empty, "nothing is kept", self.server.child)


class PostgresKeptTests(KeptTests):
    """The same on PostgreSQL."""

    engine = "postgres"


class MysqlKeptTests(KeptTests):
    """The same on MariaDB."""

    engine = "mysql"


class RedisKeptTests(KeptTests):
    """The same in a Redis."""

    engine = "redis"
