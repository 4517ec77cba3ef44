"""A census of the memory: which objects there are, by type, for whoever looks for a leak (``mem:pkg_dump``).

It goes through the objects some at a time, so that the server serves meanwhile. Counted are those that Python's garbage collector
knows (not numbers, nor texts) and that came after the start; sizes are the objects' own, without what they refer to."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.measures import most_resident, resident

SLICE = 20_000
"""Objects that are looked at in one turn of the reactor."""
PAUSE = 0.005
"""Seconds between two such turns."""
TYPES = 20
"""Types in the list, those first that take most."""
PLACES = 10
"""Places of allocation in the list, when Python traces them (``python -X tracemalloc``)."""


async def census(after: Callable[[float, Callable[[float], None]], Any], objects: list[Any] | None = None) -> list[str]:
    """Count, and tell in lines of text; ``after(seconds, call)`` sets a timer."""
    found = gc.get_objects() if objects is None else objects
    total = len(found)
    counts: dict[type, list[int]] = {}
    while found:
        for each in found[-SLICE:]:
            entry = counts.get(type(each))
            if entry is None:
                entry = counts[type(each)] = [0, 0]
            entry[0] += 1
            entry[1] += sys.getsizeof(each, 0)
        del found[-SLICE:]
        if found:
            turn: Deferred[float] = Deferred()
            after(PAUSE, turn.callback)
            await turn
    lines = [
        f"memory: {resident()} octets resident, {most_resident()} at most",
        f"memory: {total} objects that came after the start, {gc.get_freeze_count()} from before it",
    ]
    ranked = sorted(counts.items(), key=lambda item: item[1][1], reverse=True)
    lines += [
        f"memory: {count} of {cls.__module__}.{cls.__qualname__}: {octets} octets" for cls, (count, octets) in ranked[:TYPES]
    ]
    return [*lines, *_places()]


def _places() -> Iterator[str]:
    if not tracemalloc.is_tracing():
        return
    for place in tracemalloc.take_snapshot().statistics("lineno")[:PLACES]:
        frame = place.traceback[0]
        yield f"memory: {place.size} octets in {place.count} pieces from {frame.filename}:{frame.lineno}"
