"""Where files are written: in a thread of the reactor, if it has some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool

__all__ = ["at_once", "in_thread"]


def at_once(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call it here and now."""
    return call(*arguments)


def in_thread(reactor: Any) -> Callable[..., Any]:
    """What calls a function in a thread of ``reactor`` and gives a Deferred; at once where there are none (a ``Clock``)."""
    if not IReactorThreads.providedBy(reactor):
        return at_once

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

    return call
