"""The compiled routes of one configuration: what ``compiler.py`` makes and the transaction user runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sipgw.script.symbols import RouteKind


@dataclass(slots=True)
class Route:
    """One route block, compiled. ``function(run)`` gives its result, or a coroutine of it if it ``waits``.

    ``file`` and ``line``: where the block begins; the code object's file name is the same, its lines are the cfg's.
    ``interval``: seconds, of a timer route."""

    name: str
    kind: RouteKind
    function: Callable[[Any], Any]
    waits: bool = False
    file: str = ""
    line: int = 0
    interval: int = 0


@dataclass(slots=True)
class RouteSet:
    """All routes of a configuration, by kind and name, swapped whole at a reload; runs that began on the old one end on it."""

    request: Route | None = None
    default_onreply: Route | None = None
    local: Route | None = None
    error: Route | None = None
    startup: Route | None = None
    named: dict[str, Route] = field(default_factory=dict)
    branch: dict[str, Route] = field(default_factory=dict)
    failure: dict[str, Route] = field(default_factory=dict)
    onreply: dict[str, Route] = field(default_factory=dict)
    timers: list[Route] = field(default_factory=list)
    events: dict[str, Route] = field(default_factory=dict)
