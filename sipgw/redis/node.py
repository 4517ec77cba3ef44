"""The connections to one place where commands are taken: a server, or whichever of several serves now.

Each of ``size`` connections is opened again when it has ended. While one is ready, commands go to them in turn. While none is,
a command waits for the attempt that goes on; when that has failed the place is *down*, and commands fail at once until a
server greets us again. A server that lets one command wait too long is as good as gone: its connections are given up (those
that have heard nothing since), and it is down until it answers a greeting. A greeting to a frozen server stays open for
``patience`` seconds, so that it is answered when the server goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.redis.connection import Connection, Greeting, connect, shown
from sipgw.redis.errors import NoAnswer, RedisFault, Unreachable
from sipgw.redis.url import Address

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.25
"""Seconds between two attempts to connect."""
MOST_WAITING = 10_000
"""Commands that may wait for a first connection."""


class Node:
    """One such place. ``find()`` gives the address to try next; ``launch`` runs a coroutine beside everything else."""

    def __init__(
        self,
        reactor: Any,
        find: Callable[[], Awaitable[Address]],
        greeting: Greeting,
        size: int,
        patience: float,
        launch: Callable[[Any], None],
    ) -> None:
        self._reactor = reactor
        self._find = find
        self.missed: Callable[[Address], None] = lambda address: None
        """Is told of an address that does not serve."""
        self._greeting = greeting
        self._size = size
        self._patience = patience
        self._launch = launch
        self._ready: list[Connection] = []
        self._turn = 0
        self._waiting: list[Deferred[None]] = []
        self._pauses: set[Any] = set()
        self._stopped = True
        self._kept = 0
        """How many of its connections are kept open, or tried."""
        self.fault = ""
        """Why it is down; empty while it is not, or while nobody knows yet."""
        self.address: Address | None = None
        """Where its connections go."""
        self.queries = self.errors = self.moved = 0
        self.last_activity = -1.0
        """When it last answered a command, -1 if it never did."""
        self.noticed: Callable[[str], None] = lambda fault: None
        """Is told when it goes down, with why, and when it is up, with nothing."""
        self.prepare: Callable[[Connection, float], Awaitable[None]] | None = None
        """Is asked to look at its first connection before commands go over it."""
        self._opening: set[Connection] = set()

    @property
    def up(self) -> bool:
        """Whether a connection is ready."""
        return bool(self._ready)

    def start(self) -> None:
        """Begin to connect, if it has not begun."""
        if self._stopped:
            self._stopped = False
            self._kept += 1
            self._launch(self._keep(True))

    def stop(self) -> None:
        """Close all connections and open none again."""
        self._stopped = True
        self._fail("the server stops")
        for connection in [*self._ready]:
            connection.close()
            self._gone(connection)
        for connection in [*self._opening]:
            connection.close()
        for pause in [*self._pauses]:
            pause()

    def drop(self) -> None:
        """End all connections, and look for the server anew."""
        self.address = None
        for connection in [*self._ready]:
            connection.close()
            self._gone(connection)
        self.fault = ""
        for pause in [*self._pauses]:
            pause()

    async def connection(self, limit: float) -> Connection:
        """A connection that is ready; ``Unreachable`` if the place is down, or none is ready within ``limit`` seconds."""
        self.start()
        end = self._reactor.seconds() + limit
        while not self._ready:
            if self.fault:
                raise Unreachable(self.fault)
            await self._change(end)
        self._turn += 1
        return self._ready[self._turn % len(self._ready)]

    def forget(self, connection: Connection) -> None:
        """Use a connection no more: it has ended."""
        self._gone(connection)

    async def _change(self, end: float) -> None:
        """Wait until a connection is ready, or known not to be."""
        if len(self._waiting) >= MOST_WAITING:
            raise Unreachable(f"{MOST_WAITING} commands are waiting for a connection already")
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)

        def late() -> None:
            self._waiting.remove(waiting)
            waiting.errback(Unreachable("no connection in time"))

        timer = self._reactor.callLater(max(0.0, end - self._reactor.seconds()), late)
        try:
            await waiting
        finally:
            if timer.active():
                timer.cancel()

    def silent(self, since: float) -> None:
        """Give up the connections that have heard nothing after ``since``: a command has waited too long for its answer."""
        for connection in [*self._ready]:
            if connection.answered <= since:
                connection.give_up()
                self._gone(connection)
        if not self._ready:
            self._fail(f"{shown(self.address) if self.address else 'the server'} does not answer")

    def _gone(self, connection: Connection) -> None:
        """A connection has ended, however."""
        if connection in self._ready:
            self._ready.remove(connection)
        connection.ended = None
        if connection.over is not None:
            over, connection.over = connection.over, None
            over.callback(None)

    def _fail(self, why: str) -> None:
        if not self.fault and not self._stopped:
            self.noticed(why)
        self.fault = why
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def _keep(self, first: bool) -> None:
        """Keep one connection open, until the end; only the first one goes on looking for a server while there is none."""
        failures = 0
        while not self._stopped and (first or self._ready):
            try:
                connection = await self._open()
            except RedisFault as error:
                if not self._ready and not self._stopped:
                    self._fail(str(error))
                failures += 1
                await self._pause(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10)))
                continue
            if self._stopped or not connection.alive:
                connection.close()
                continue
            failures = 0
            born = self._reactor.seconds()
            await self._serve(connection)
            if self._reactor.seconds() - born < 1:  # one that is thrown out at once must not be tried a thousand times
                await self._pause(FIRST_PAUSE)
        self._kept -= 1

    async def _serve(self, connection: Connection) -> None:
        """Let commands go over ``connection`` until it ends."""
        over = connection.over = Deferred()
        connection.ended = self._gone
        first = not self._ready
        self._ready.append(connection)
        self.fault = ""
        self._wake()
        if first:
            self.noticed("")
        while self._kept < self._size:
            self._kept += 1
            self._launch(self._keep(False))
        await over

    async def _open(self) -> Connection:
        address = self.address or await self._find()
        self.address = address
        made = Connection(self._reactor, address)
        self._opening.add(made)
        try:
            await connect(made, self._greeting, self._patience)
            if self.prepare is not None and not self._ready:
                await self.prepare(made, self._patience)
            return made
        except RedisFault as error:
            made.close()
            if not self._ready:
                self.address = None
                self.missed(address)
            if isinstance(error, NoAnswer):
                raise Unreachable(str(error)) from None
            raise
        finally:
            self._opening.discard(made)

    async def _pause(self, seconds: float) -> None:
        if self._stopped:
            return
        paused: Deferred[None] = Deferred()

        def over() -> None:
            self._pauses.discard(over)
            if timer.active():
                timer.cancel()
            paused.callback(None)

        timer = self._reactor.callLater(seconds, over)
        self._pauses.add(over)
        await paused
