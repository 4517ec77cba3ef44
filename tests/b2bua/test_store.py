"""Tests of sipgw.b2bua.store: a table in a Redis. What is written when is in tests/modules/test_b2b_store.py."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua.store import KeyTable, Row
from sipgw.db.errors import DatabaseError, Unavailable
from sipgw.redis.errors import Lost, Refused
from sipgw.testing import finished


class FakeRedis:
    """Hashes and sets in a dict."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.fault: Exception | None = None

    async def command(self, *arguments: Any, again: bool = False, limit: float = 0) -> Any:
        if self.fault is not None:
            raise self.fault
        name, key, *rest = [str(each, "utf-8", "surrogateescape") if isinstance(each, bytes) else str(each) for each in arguments]
        found = self.kept.get(key)
        if name == "HSET":
            self.kept.setdefault(key, {}).update(zip(rest[::2], rest[1::2], strict=True))
        elif name == "SADD":
            self.kept.setdefault(key, set()).update(rest)
        elif name == "SREM" and found is not None:
            found.difference_update(rest)
            if not found:
                del self.kept[key]
        elif name == "HGET":
            return None if found is None else found.get(rest[0])
        elif name == "HGETALL":
            if not isinstance(found, dict):
                raise Refused("WRONGTYPE")
            return [part for pair in found.items() for part in pair]
        elif name == "DEL":
            return int(self.kept.pop(key, None) is not None)
        return 1

    async def keys(self, pattern: str, count: int = 1000) -> list[str]:
        if self.fault is not None:
            raise self.fault
        return [key for key in self.kept if fnmatchcase(key, pattern.replace("\\[", "[[]"))]


class KeyTableTests(SynchronousTestCase):
    """Rows as OpenSIPS keeps them."""

    def setUp(self) -> None:
        """Make a table."""
        self.redis = FakeRedis()
        self.table = KeyTable(self.redis, "redis:", "p$", ("type", "name"), ("type", "name", "param", "text"), "param")

    def test_rows(self) -> None:
        """Rows are written with the kind of each value, read, and taken out with what names them."""
        row: Row = {"type": 1, "name": "a", "param": "9.1", "text": None}
        finished(self.table.replace("t", row, ()))
        finished(self.table.insert("t", {**row, "name": "b", "text": b"\xff{}"}))
        self.assertEqual(self.redis.kept, {
            "p$1$a": {"type": "21", "name": "1a", "param": "19.1", "text": "0"},
            "p$1$b": {"type": "21", "name": "1b", "param": "19.1", "text": "1\udcff{}"}, "p$9.1": {"p$1$a", "p$1$b"},
        })
        found = finished(self.table.rows())
        self.assertEqual(found, [row, {**row, "name": "b", "text": "\udcff{}"}])
        for name in "ab":
            self.assertEqual(finished(self.table.delete("t", {"type": 1, "name": name})), 1)
        self.assertEqual(finished(self.table.delete("t", {"type": 1, "name": "c"})), 0)
        self.assertEqual(self.redis.kept, {})

    def test_others(self) -> None:
        """Keys of somebody else are left alone."""
        self.redis.kept = {"p$x": {"name": "1x"}, "p$y": {"z"}, "q$1$a": {"type": "21", "name": "1a"}}
        self.assertEqual(finished(self.table.rows()), [])

    def test_faults(self) -> None:
        """What may be done later, and what Redis refuses."""
        for fault, kind in ((Lost("gone"), Unavailable), (Refused("OOM no memory"), DatabaseError)):
            self.redis.fault = fault
            with self.assertRaises(kind):
                finished(self.table.replace("t", {"type": 1, "name": "a", "param": "9.1"}, ()))
        with self.assertRaises(Unavailable):
            finished(self.table.rows())
