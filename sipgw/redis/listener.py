"""Listening to channels (PUBLISH, SUBSCRIBE): one connection of its own, opened again whenever it has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.redis.connection import Connection
from sipgw.redis.errors import RedisFault

PAUSE = 0.25
"""Seconds between two attempts to listen."""
BEAT = 3.0
"""Seconds after which a silent server is asked whether it is there."""
PATIENCE = 2.0
"""Seconds that it may take to say so."""


class Listening(Connection):
    """A connection that receives what is published."""

    heard: Callable[[bytes, bytes], None] = staticmethod(lambda channel, message: None)

    def replyReceived(self, reply: Any) -> None:
        """Take one answer, or one message."""
        if isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
            self.answered = self.reactor.seconds()
            self.heard(reply[1], reply[2])
        elif not (isinstance(reply, list) and reply and reply[0] == b"unsubscribe"):
            super().replyReceived(reply)


Subscription = tuple[Callable[[str], None], Callable[[], None] | None]


class Listener:
    """All channels that one ``Redis`` is listened to on; ``open(kind)`` makes the connection."""

    def __init__(
        self, reactor: Any, open: Callable[[type[Connection]], Awaitable[Any]], launch: Callable[[Any], None]
    ) -> None:
        self._reactor = reactor
        self._open = open
        self._launch = launch
        self._channels: dict[bytes, list[Subscription]] = {}
        self._connection: Listening | None = None
        self._running = False
        self._stopped = False
        self._timer: Any = None

    def add(self, channel: str, heard: Callable[[str], None], resumed: Callable[[], None] | None) -> Callable[[], None]:
        """Listen; what is returned ends that."""
        name = channel.encode("utf-8", "surrogateescape")
        subscription: Subscription = (heard, resumed)
        known = self._channels.setdefault(name, [])
        known.append(subscription)
        if not self._running:
            self._running = True
            self._launch(self._run())
        elif self._connection is not None:
            self._launch(self._also(name, resumed))

        def end() -> None:
            if subscription in known:
                known.remove(subscription)
            if not known and self._channels.get(name) is known:
                del self._channels[name]
                if self._connection is not None and self._connection.alive:
                    self._connection.transport.write(b"*2\r\n$11\r\nUNSUBSCRIBE\r\n$%d\r\n%s\r\n" % (len(name), name))

        return end

    def stop(self) -> None:
        """End."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.reset(0)
        if self._connection is not None:
            self._connection.close()

    def again(self) -> None:
        """Begin anew: the server that we listen to is given up."""
        if self._connection is not None:
            self._connection.give_up()

    async def _also(self, name: bytes, resumed: Callable[[], None] | None) -> None:
        connection = self._connection
        try:
            if connection is not None:
                await connection.ask([b"SUBSCRIBE", name], PATIENCE)
                if resumed is not None:
                    resumed()
        except RedisFault:
            if connection is not None:
                connection.close()

    async def _run(self) -> None:
        while not self._stopped:
            try:
                connection = await self._open(Listening)
            except RedisFault:
                await self._wait(PAUSE)
                continue
            try:
                await self._listen(connection)
            except RedisFault:
                pass
            finally:
                self._connection = None
                connection.close()
            await self._wait(PAUSE)

    async def _listen(self, connection: Listening) -> None:
        """Subscribe to all channels and hear what comes, until the connection ends."""
        connection.heard = self._hear
        done: set[bytes] = set()
        while missing := [name for name in self._channels if name not in done]:
            for name in missing:
                await connection.ask([b"SUBSCRIBE", name], PATIENCE)
                done.add(name)
        self._connection = connection
        for subscriptions in [*self._channels.values()]:
            for _, resumed in [*subscriptions]:
                if resumed is not None:
                    resumed()
        while connection.alive and not self._stopped:
            await self._wait(BEAT, connection)
            if connection.alive and not self._stopped and self._reactor.seconds() - connection.answered >= BEAT:
                await connection.ask([b"PING"], PATIENCE)

    def _hear(self, channel: bytes, message: bytes) -> None:
        text = message.decode("utf-8", "surrogateescape")
        for heard, _ in [*self._channels.get(channel, ())]:
            heard(text)

    async def _wait(self, seconds: float, connection: Listening | None = None) -> None:
        """Wait, but no longer than the connection lives."""
        if self._stopped:
            return
        waiting: Deferred[None] = Deferred()
        self._timer = self._reactor.callLater(seconds, waiting.callback, None)
        if connection is not None:
            timer = self._timer
            connection.ended = lambda _ended: timer.active() and timer.reset(0)
        await waiting
