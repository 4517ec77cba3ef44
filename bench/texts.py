"""Texts through the SMPP gateway, each on disk before it is acknowledged: a second's worth, each way.

The gateway and an SMSC are in this process, on sockets of the loopback interface; the spool is an SQLite file beside the
temporary files. What is measured is the time from the first text to the last acknowledgement."""

from __future__ import annotations

import tempfile
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.modules.db_sqlite import DbSqlite
from sipgw.sms.esme import Esme, Smsc
from sipgw.sms.gateway import Gateway, GatewaySettings
from sipgw.sms.session import Settings
from sipgw.sms.spool import Message, Spool
from sipgw.testing import FakeServer, FakeSmsc

UNDER_WAY = 64
"""Texts that wait for their acknowledgement at once."""


class _Phones:
    """The SIP side: takes all."""

    def __init__(self) -> None:
        self.came = 0

    async def message(self, receiver: str, sender: str, headers: str, kind: str, body: bytes, origin: Message) -> int:
        """Count one."""
        self.came += 1
        return 200


class _User:
    """As much of a transaction user as the gateway asks for."""

    def __init__(self, reactor: Any) -> None:
        self.clock = reactor.seconds
        self.wall_clock = lambda: 1_800_000_000.0

    def log(self, level: int, text: str) -> None:
        """Show what is wrong."""
        if level < 2:
            print(text)

    def launch(self, coroutine: Any) -> None:
        """Run it."""
        ensureDeferred(coroutine)


async def _until(reactor: Any, condition: Any) -> None:
    while not condition():
        tick: Deferred[None] = Deferred()
        reactor.callLater(0.002, tick.callback, None)
        await tick


async def _measure(reactor: Any, count: int, folder: str) -> str:
    url = f"sqlite://{folder}/sms.db"
    store = open_store(url, create=True)
    create(store, ["sms_messages", "sms_parts"])
    store.close()
    server: Any = FakeServer()
    server.reactor = reactor
    database = DbSqlite(server).make(url)
    smsc, phones = FakeSmsc(reactor, window=UNDER_WAY), _Phones()
    options = GatewaySettings(domain="sip.test")
    gateway = Gateway(_User(reactor), reactor, Spool(database), phones, options, lambda *_a, **_k: None)
    link = Smsc("one", "127.0.0.1", smsc.port, "sipgw", "secret", settings=Settings(window=UNDER_WAY, enquire_time=0))
    gateway.add_esme(Esme(link, reactor, gateway))
    await gateway.start()
    await _until(reactor, lambda: gateway.esmes["one"].is_bound)
    began = reactor.seconds()
    waiting: set[int] = set()

    async def send(number: int) -> None:
        await gateway.send("one", "+1", f"+49{number}", f"text {number}", sender="", receiver="", details={})
        waiting.discard(number)

    for number in range(count):
        if len(waiting) >= UNDER_WAY:
            await _until(reactor, lambda: len(waiting) < UNDER_WAY)
        waiting.add(number)
        ensureDeferred(send(number))
    await _until(reactor, lambda: gateway.counts["to_mobile"] == count)
    out = count / (reactor.seconds() - began)
    began, sent = reactor.seconds(), 0
    while sent < count:
        session = next(each for each in smsc.factory.links if each.session.may_send("deliver_sm"))
        for _ in range(min(session.room(), count - sent)):
            smsc.say(f"49{sent}", "1", f"text {sent}")
            sent += 1
        tick: Deferred[None] = Deferred()
        reactor.callLater(0, tick.callback, None)
        await tick
    await _until(reactor, lambda: phones.came == count)
    back = count / (reactor.seconds() - began)
    while await gateway.spool.count():
        await _until(reactor, lambda: True)
    await gateway.stop()
    await smsc.stop()
    await database.close()
    return f"texts to mobiles {out:.0f}/s, from mobiles {back:.0f}/s"


def main(count: int = 5000) -> str:
    """Measure; the figures in a line."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sipgw-bench-") as folder:
        running: Any = ensureDeferred(_measure(reactor, count, folder))
        running.addCallback(said.append)
        running.addErrback(lambda failure: failure.printTraceback())
        running.addBoth(lambda _result: reactor.stop())
        reactor.run()
    return said[0]


if __name__ == "__main__":
    print(main())
