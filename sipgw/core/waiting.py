"""Driving coroutines without an event loop of their own: what does not wait costs one ``send(None)`` and no Deferred.

A route that can wait is a coroutine (house 2.4, 2.6). Nearly always it ends in one go: a cached answer, an IP address. Only
when it awaits a Deferred that has not fired does it stay behind, resumed by that Deferred. Nothing else is awaited."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class Drive:
    """One coroutine on its way: ``done(result)`` at its end, ``failed(exception)`` if it raises."""

    __slots__ = ("_coroutine", "_done", "_failed")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        done: Callable[[Any], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._coroutine = coroutine
        self._done = done
        self._failed = failed

    def step(self, fired: Any = None) -> None:
        """Run on until the end or the next Deferred; ``fired`` is what the last one brought."""
        try:
            if isinstance(fired, Failure):
                awaited = fired.throwExceptionIntoGenerator(self._coroutine)  # type: ignore[no-untyped-call]
            else:
                awaited = self._coroutine.send(None)
        except StopIteration as stop:
            self._done(stop.value)
        except Exception as error:
            self._failed(error)
        else:
            awaited.addBoth(self.step)


class Broken(Protocol):
    """Who is told of bugs: the transaction user."""

    def broken(self, error: BaseException) -> None:
        """Log a bug of our own."""


class Turn:
    """Lets coroutines run strictly one after another (house 2.6, 5): each waits until the one before it has ended.

    A transaction has one: its replies, timers, CANCEL and failure route never overlap, however long one of them waits."""

    __slots__ = ("_queue", "_user", "busy")

    def __init__(self, user: Broken) -> None:
        self.busy = False
        """Whether one of them is running or waiting."""
        self._queue: list[Coroutine[Any, Any, Any]] | None = None
        self._user = user

    def take(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run ``coroutine`` now, or after those that came before it."""
        if self.busy:
            if self._queue is None:
                self._queue = []
            self._queue.append(coroutine)
            return
        self.busy = True
        self._run(coroutine)

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call what cannot wait now, where none of them is ``busy``; the others stand in line meanwhile."""
        self.busy = True
        try:
            function(*arguments)
        except Exception as error:
            self._user.broken(error)
        if self._queue:
            self._run(self._queue.pop(0))
        else:
            self.busy = False

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run ``coroutine`` and those behind it, as far as they go without waiting."""
        while True:
            try:
                awaited = coroutine.send(None)
            except StopIteration:
                pass
            except Exception as error:
                self._user.broken(error)
            else:
                awaited.addBoth(Drive(coroutine, self._ended, self._broke).step)
                return
            if not self._queue:
                self.busy = False
                return
            coroutine = self._queue.pop(0)

    def _ended(self, _result: Any) -> None:
        if self._queue:
            self._run(self._queue.pop(0))
        else:
            self.busy = False

    def _broke(self, error: BaseException) -> None:
        self._user.broken(error)
        self._ended(None)


async def within(
    seconds: float, coroutine: Coroutine[Any, Any, Any], after: Callable[[float, Callable[[float], None]], Any]
) -> Any:
    """The result of ``coroutine``, or ``TimeoutError`` if it has none in ``seconds``; then it goes on alone, unheard.

    ``after(seconds, call)`` sets a timer that has ``cancel()``."""
    first: Deferred[Any] = Deferred()

    def done(result: Any) -> None:
        if not first.called:
            first.callback(result)

    def failed(error: BaseException) -> None:
        if not first.called:
            first.errback(error)

    timer = after(seconds, lambda _now: failed(TimeoutError(f"nothing in {seconds} s")))
    Drive(coroutine, done, failed).step()
    try:
        return await first
    finally:
        timer.cancel()
