"""What is counted and told of the queries of all databases: ``sql:sql_total_queries``, ``sql:sql_slow_queries``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sipgw.statistics import Counter, Statistics

__all__ = ["Around", "queries", "watch"]


class Around(Protocol):
    """What is asked of the transaction user."""

    def log_rarely(self, key: object, level: int, text: str) -> None:
        """Write a line, not too often."""

    def slow(self, source: str, microseconds: int, extra: str) -> None:
        """Tell that something took too long."""


def queries(statistics: Statistics) -> tuple[Counter, Counter]:
    """The counters of all queries and of the slow ones, made if they are not there yet."""
    made = []
    for name in ("sql_total_queries", "sql_slow_queries"):
        found = statistics.find(f"sql:{name}")
        made.append(found if isinstance(found, Counter) else statistics.counter("sql", name))
    return made[0], made[1]


def watch(user: Around, statistics: Statistics, name: str, threshold: int) -> Callable[[float], None]:
    """What is to be called with the seconds that each query of the database ``name`` took.

    ``threshold``: microseconds after which one is slow, 0 for none."""
    total, slow = queries(statistics)
    module = name.partition(":")[0]

    def done(seconds: float) -> None:
        total.value += 1
        took = int(seconds * 1e6)
        if threshold and took > threshold:
            slow.value += 1
            user.log_rarely(("slow query", name), 1, f"{name}: a query took {took} us, more than {threshold}")
            user.slow(f"{module} query", took, name)

    return done
