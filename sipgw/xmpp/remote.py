"""A server elsewhere, to which we have something to say (RFC 6120; ``backend`` "server").

A ``Remote`` connects when it is asked to, closes what is idle, and after a failure waits before it tries again. What the server
has dealt with ``deliveries.py`` finds out: the question goes to that server, and its answer comes on its own stream to us, after
the errors that it had to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory

from sipgw.xmpp.deliveries import Deliveries, Down
from sipgw.xmpp.dialback import Word
from sipgw.xmpp.reader import CLOSED
from sipgw.xmpp.server_streams import Outbound
from sipgw.xmpp.stanza import Element, write

if TYPE_CHECKING:
    from sipgw.xmpp.server import Server

__all__ = ["Remote", "RemoteSettings", "Watcher"]

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
CONNECT_TIME: Final = 10.0
MOST_WAITING: Final = 200
"""Stanzas, and keys to be checked, that wait for one stream to be there."""
IDLE: Final = "nothing was said for long"


class RemoteSettings:
    """What the gateway reads of a link: our ``domain``, and the other's."""

    def __init__(self, domain: str, host: str, port: int = 5269) -> None:
        self.domain = domain
        self.host = host
        self.port = port


class Watcher(Protocol):
    """What is told of the servers elsewhere; and whether something waits for one."""

    def up(self, link: Any) -> None:
        """A server has accepted us."""

    def down(self, link: Any, reason: str) -> None:
        """It is not there any more, or cannot be reached."""

    def came(self, link: Any, element: Element) -> None:
        """A stanza came."""

    def waits(self, key: str) -> bool:
        """Whether something waits for the server with this key."""


class Remote:
    """A server elsewhere, as one of our domains sees it. ``state``: "idle", "connecting", "up", "down" or "stopped"."""

    def __init__(self, server: Server, domain: str, host: str) -> None:
        self.server = server
        self.settings = RemoteSettings(domain, host)
        self.state = "idle"
        self.reason = ""
        self.since = 0.0
        self.attempts = 0
        self.stream: Outbound | None = None
        self.reactor = server.reactor
        self._wait = 0.0
        self._missed = False
        """It was told that the server is not there."""
        self._timer: Any = None
        self._deadline: Any = None
        self._begun: list[Deferred[None]] = []
        """What waits for the stream to begin."""
        self._up: list[Deferred[None]] = []
        """What waits for it to be ours."""
        self._kept: list[Element] = []
        self._keys: dict[str, Deferred[bool]] = {}
        self._deliveries = Deliveries(
            self.reactor, domain, host, server.settings.response_time, self._write,
            lambda: self._drop("the server does not answer"),
        )

    @property
    def key(self) -> str:
        """Its name in the queue."""
        return f"{self.settings.domain} {self.settings.host}"

    @property
    def peer(self) -> str:
        """The domain whose server it is."""
        return self.settings.host

    @property
    def ready(self) -> bool:
        """Whether it is worth trying."""
        return self.state in ("idle", "connecting", "up")

    @property
    def stopped(self) -> bool:
        """Whether it is we who are away."""
        return self.state == "stopped"

    @property
    def pending(self) -> int:
        """Stanzas of which it has not said yet that it took them, and those that wait for it to be there."""
        return self._deliveries.count + len(self._up) + len(self._kept)

    @property
    def useless(self) -> bool:
        """Whether it can be forgotten: it is not connected, and nothing waits for it. Strangers can make us look for any name."""
        return self.state in ("idle", "down") and not self.pending and not self._watcher.waits(self.key)

    @property
    def proof(self) -> str:
        """How we have shown who we are."""
        return "" if self.stream is None else self.stream.proof

    @property
    def secure(self) -> bool:
        """Whether it is spoken to by TLS."""
        return self.stream is not None and self.stream.secure

    def refuse(self, reason: str) -> None:
        """There is no place for it."""
        self.state, self.reason = "down", reason

    # ---- what the gateway asks ----

    async def deliver(self, element: Element) -> tuple[int, str]:
        """Send a stanza, when the stream is there; see ``Deliveries``."""
        if self.state != "up":
            await self._wait_for(self._up)
        return await self._deliveries.deliver(element)

    def send(self, element: Element) -> None:
        """Send a stanza of which nobody needs to hear, when the stream is there; ``Down``."""
        if self.state == "up":
            self._write(element)
        elif not self.ready or len(self._kept) >= MOST_WAITING or not self.server.may_speak(self.settings.host):
            raise Down(self.reason or "too many stanzas wait")
        else:
            self._kept.append(element)
            self.connect()

    def received(self, element: Element) -> bool:
        """Whether a stanza of this server's is an answer to what was delivered."""
        return self._deliveries.received(element)

    async def verify(self, id: str, key: str) -> bool:
        """Ask whether a key that somebody has shown for this domain is its own (XEP-0220 2.3); ``Down``."""
        if self.stream is None or not self.stream.begun or self.stream.closed:
            await self._wait_for(self._begun)
        stream = self.stream
        if stream is None or id in self._keys or len(self._keys) >= MOST_WAITING:
            raise Down("not connected")
        answer: Deferred[bool] = Deferred()
        self._keys[id] = answer
        answer.addTimeout(self.server.settings.response_time, self.reactor)
        stream.ask(id, key)
        try:
            return await answer
        except CancelledError:
            raise Down("the server does not answer") from None
        except Exception as error:
            raise Down(str(error)) from None
        finally:
            self._keys.pop(id, None)

    async def _wait_for(self, queue: list[Deferred[None]]) -> None:
        """Connect if need be, and wait with the others of ``queue``."""
        if not self.server.may_speak(self.settings.host):
            raise Down("this server is none of those that we speak with")
        if not self.ready:
            raise Down(self.reason or "down")
        if len(queue) >= MOST_WAITING:
            raise Down("too much waits for this server")
        done: Deferred[None] = Deferred()
        queue.append(done)
        self.connect()
        await done

    def _write(self, element: Element) -> None:
        if self.stream is None or self.state != "up":
            raise Down(self.reason or "not connected")
        self.stream.write(write(element))
        self._rest()

    # ---- the connection ----

    def connect(self) -> None:
        """Connect, unless that is so or under way."""
        if self.state in ("idle", "down"):
            self.state = "connecting"
            self.attempts += 1
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._timer = None
            self.server.launch(self._connect())

    async def _connect(self) -> None:
        reason = "its name leads nowhere"
        for host, port in await self.server.targets(self.settings.host):
            if self.state != "connecting":
                return
            self.settings.port = port
            factory: Any = Factory.forProtocol(lambda: Outbound(self))
            factory.noisy = False
            endpoint: Any = HostnameEndpoint(self.reactor, host, port, timeout=CONNECT_TIME)
            try:
                stream = await endpoint.connect(factory)
            except Exception as error:  # each kind of network has its own
                reason = f"{host}:{port}: {error}"
                continue
            if self.state != "connecting":
                stream.drop("stopped")
                return
            if stream.closed:
                reason = stream.reason or CLOSED
                continue
            self.stream = stream
            limit = self.server.settings.response_time * 2
            self._deadline = self.reactor.callLater(limit, self._drop, "it does not accept us in time")
            return
        if self.state == "connecting":
            self._failed(reason)

    def opened(self, stream: Outbound) -> None:
        """The stream has begun, and we have not shown yet who we are."""
        self.stream = stream
        stream.begun = True
        begun, self._begun = self._begun, []
        for each in begun:
            each.callback(None)

    def accepted(self, stream: Outbound) -> None:
        """The server takes us for what we are."""
        self.stream = stream
        self._stop_timers()
        self.state, self.reason, self._wait = "up", "", 0.0
        self.since = self.reactor.seconds()
        self._rest()
        kept, self._kept = self._kept, []
        for element in kept:
            self._write(element)
        up, self._up = self._up, []
        for each in up:
            each.callback(None)
        if self._missed:
            self._missed = False
            self._watcher.up(self)

    def verified(self, said: Word) -> None:
        """The server says whether a key is its own."""
        answer = self._keys.get(said.id)
        if answer is not None and not answer.called and said.sender.lower().rstrip(".") == self.settings.host:
            if said.type in ("valid", "invalid"):
                answer.callback(said.type == "valid")
            else:
                answer.errback(Down("the server cannot say"))

    def lost(self, stream: Outbound, reason: str) -> None:
        """A connection is over."""
        if self.stream is not stream:
            return
        was_up, self.stream = self.state == "up", None
        self._stop_timers()
        self._deliveries.lost(reason)
        if self.stopped:
            return
        for each in self._keys.values():
            if not each.called:
                each.errback(Down(reason))
        if not was_up:
            self._failed(reason)
            return
        self.state, self.reason = "idle", reason
        if reason not in (CLOSED, IDLE):
            self._missed = True
            self._watcher.down(self, reason)
        if self._watcher.waits(self.key) and reason != IDLE:
            self._again()

    def _failed(self, reason: str) -> None:
        """It cannot be reached, or does not accept us."""
        self.state, self.reason = "down", reason
        waiting = [*self._begun, *self._up]
        self._begun, self._up, self._kept = [], [], []
        for each in waiting:
            if not each.called:
                each.errback(Down(reason))
        self._missed = True
        self._watcher.down(self, reason)
        self._again()

    def _again(self) -> None:
        """Try again after a while, if somebody still wants to say something."""
        self._wait = min(LONGEST_WAIT, self._wait * 2 or FIRST_WAIT)
        if self._timer is None or not self._timer.active():
            self._timer = self.reactor.callLater(self._wait * self.server.random.uniform(0.75, 1.25), self._retry)

    def _retry(self) -> None:
        if self.state in ("idle", "down"):
            self.state = "idle"
            if self._watcher.waits(self.key):
                self.connect()

    @property
    def _watcher(self) -> Watcher:
        return self.server.links[self.settings.domain].watcher

    def _rest(self) -> None:
        """Something was said: close the stream only after a silence."""
        if self._timer is not None and self._timer.active():
            self._timer.reset(self.server.settings.idle_time)
        else:
            self._timer = self.reactor.callLater(self.server.settings.idle_time, self._is_idle)

    def _is_idle(self) -> None:
        if self.stream is not None and self.state == "up":
            if self.pending:
                self._rest()
            else:
                self.stream.end(IDLE)

    def _drop(self, reason: str) -> None:
        if self.stream is not None:
            self.stream.drop(reason)

    def _stop_timers(self) -> None:
        for each in (self._timer, self._deadline):
            if each is not None and each.active():
                each.cancel()
        self._timer = self._deadline = None

    def stop(self) -> None:
        """Close it, and stay away."""
        stream = self.stream
        self.state = "stopped"
        self._stop_timers()
        if stream is not None:
            stream.end("stopped")
        self._deliveries.lost("stopped")
        for each in (*self._begun, *self._up):
            if not each.called:
                each.errback(Down("stopped"))
        self._begun, self._up = [], []


