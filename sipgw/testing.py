"""Doubles for tests of modules, configurations and clients of sipgw: no socket, no sleep, no reactor.

``Wire`` carries datagrams on a ``Clock``, with delay and loss. ``FakeServer`` is as much of a server as a module asks for.
``WiredServer`` is a whole sipgw from the text of a script, on a wire; ``Phone`` is a peer of it. ``sipgw/plays.py`` reads
whole conversations."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.task import Clock

from sipgw import interfaces
from sipgw.configuration import Reading, read_configuration, reading_of
from sipgw.core.user import TransactionUser
from sipgw.db.databases import Engines
from sipgw.log import Consumer
from sipgw.mi.commands import Commands
from sipgw.script.symbols import ModuleSymbols, Symbols
from sipgw.script.transformations import TRANSFORMATIONS
from sipgw.script.variables import VARIABLES
from sipgw.service import SipServer
from sipgw.sip.message import Request, Response, parse
from sipgw.sms.inbound import content_of
from sipgw.sms.link import Link
from sipgw.sms.pdu import Pdu
from sipgw.sms.session import Answered, Settings
from sipgw.sms.smsc import Account, Port
from sipgw.sms.text import cut, join
from sipgw.statistics import Statistics

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""The time of day at which a fake clock begins."""
Address = tuple[str, int]


class WireFlow:
    """A flow from a wire's socket to one peer."""

    transport = "udp"
    reliable = False
    refused = ""
    id = None

    def __init__(self, socket: WireSocket, host: str, port: int) -> None:
        self.socket, self.host, self.port = socket, host, port

    def send(self, data: bytes) -> None:
        """Put one datagram on the wire."""
        self.socket.wire.carry(data, (self.socket.host, self.socket.port), (self.host, self.port))


class WireSocket:
    """An address on a wire; what arrives goes to ``receive(data, flow)``."""

    transport = "udp"
    advertised_host = ""
    advertised_port = 0
    tag = ""

    def __init__(self, wire: Wire, host: str, port: int, receive: Callable[[bytes, WireFlow], None]) -> None:
        self.wire, self.host, self.port, self.receive = wire, host, port, receive

    def flow(self, host: str, port: int) -> WireFlow:
        """A flow to a peer."""
        return WireFlow(self, host, port)

    def send(self, data: bytes, host: str, port: int) -> None:
        """Send one datagram."""
        self.flow(host, port).send(data)

    def __str__(self) -> str:
        return f"udp:{self.host}:{self.port}"


class Wire:
    """A network of UDP sockets on a clock.

    ``loses(data, source, target)`` says which datagrams are lost; ``delay`` is the time of each on its way, in seconds. Without
    delay a datagram arrives when what sent it has returned, in order."""

    def __init__(
        self, clock: Clock, *, delay: float = 0.0, loses: Callable[[bytes, Address, Address], bool] | None = None
    ) -> None:
        self.clock = clock
        self.delay = delay
        self.loses = loses
        self.lost = 0
        """Datagrams that were lost, or sent to nobody."""
        self._sockets: dict[Address, WireSocket] = {}
        self._waiting: deque[tuple[bytes, Address, Address]] = deque()
        self._arriving = False

    def socket(self, host: str, port: int, receive: Callable[[bytes, WireFlow], None]) -> WireSocket:
        """Open a socket; an address that somebody has is refused."""
        if (host, port) in self._sockets:
            raise ValueError(f"somebody is at {host}:{port} already")
        made = self._sockets[host, port] = WireSocket(self, host, port, receive)
        return made

    def carry(self, data: bytes, source: Address, target: Address) -> None:
        """Take one datagram along, or lose it."""
        if self.loses is not None and self.loses(data, source, target):
            self.lost += 1
        elif self.delay:
            self.clock.callLater(self.delay, self._arrive, data, source, target)
        else:
            self._arrive(data, source, target)

    def _arrive(self, data: bytes, source: Address, target: Address) -> None:
        self._waiting.append((data, source, target))
        if self._arriving:
            return
        self._arriving = True
        try:
            while self._waiting:
                data, source, target = self._waiting.popleft()
                socket = self._sockets.get(target)
                if socket is None:
                    self.lost += 1
                else:
                    socket.receive(data, socket.flow(*source))
        finally:
            self._arriving = False


def pass_time(clock: Clock, seconds: float) -> None:
    """Let time pass, stopping at each delayed call, so that each sees its own time."""
    end = clock.seconds() + seconds
    while True:
        calls: list[Any] = clock.getDelayedCalls()  # type: ignore[assignment]
        due = [call.getTime() for call in calls if call.getTime() <= end]
        if not due:
            break
        clock.advance(max(0.0, min(due) - clock.seconds()))
    clock.advance(max(0.0, end - clock.seconds()))


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that needs not wait; ``AssertionError`` if it waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise AssertionError("the coroutine waits")


class FakeServer:
    """What a module sees as ``self.server``: a transaction user without sockets, on a clock, and nothing else running."""

    def __init__(self, **settings: Any) -> None:
        self.reactor = Clock()
        self.lines: list[tuple[int, str]] = []
        self.statistics = Statistics()
        self.user = TransactionUser(
            self.reactor.seconds,
            lambda: EPOCH + self.reactor.seconds(),
            lambda level, text: self.lines.append((level, text)),
            settings,
            self.statistics,
            self.reactor.callLater,
        )
        self.commands: Any = Commands(self.user.log)
        self.symbols = Symbols.of([ModuleSymbols("core", variables=VARIABLES, transformations=TRANSFORMATIONS)])
        self.modules: dict[str, Any] = {}
        self.arguments: list[str] = []
        self.databases: interfaces.Databases = Engines({}, self.statistics)
        self.consumers = {name: Consumer() for name in ("stderror", "syslog", "event")}
        self.log_taps: list[Callable[[int, str], None]] = []
        self.stopped = False
        self.reloads = 0

    async def reload_routes(self) -> None:
        """Count it."""
        self.reloads += 1

    def stop(self) -> None:
        """Note it."""
        self.stopped = True

    def later(self, seconds: float, call: Callable[[], Any]) -> Any:
        """Call on the clock."""
        return self.reactor.callLater(seconds, call)


class WiredServer:
    """A whole sipgw on a wire: ``config`` is the text of a script, or with ``file`` the name of one.

    Its sockets are those of the script that are UDP, opened on the wire; its log is in ``lines``."""

    def __init__(
        self,
        config: str = "",
        *,
        file: str = "",
        wire: Wire | None = None,
        before: Callable[[SipServer], None] | None = None,
    ) -> None:
        self.wire = wire or Wire(Clock())
        self.clock = self.wire.clock
        self.lines: list[tuple[int, str]] = []
        reading: Reading = read_configuration(file) if file else reading_of(config)
        self.server = SipServer(
            reading,
            self.clock,
            log=lambda level, text: self.lines.append((level, text)),
            wall_clock=lambda: EPOCH + self.clock.seconds(),
        )
        if before is not None:
            before(self.server)
        self.server.configure()
        faults = self.server.configuration.in_order()
        if faults:
            raise AssertionError("\n".join(fault.render() for fault in faults))
        self.user: TransactionUser = self.server.user
        for plan in self.server.configuration.sockets:
            if plan.transport != "udp":
                continue
            socket: Any = self.wire.socket(plan.host, plan.port, self.user.receive)
            socket.advertised_host, socket.advertised_port = plan.advertised_host, plan.advertised_port
            socket.tag = plan.node.tag
            self.user.add_socket(socket)
        finished(self.server.start())

    @property
    def address(self) -> Address:
        """The host and port of the first socket."""
        return self.user.sockets[0].host, self.user.sockets[0].port

    def left(self) -> list[str]:
        """What is still there of the traffic: transactions, unanswered requests, timers of either."""
        layer = self.user.layer
        found = {"server transactions": layer.in_use, "client transactions": layer.clients, "timers": layer.timers}
        return [f"{count} {what}" for what, count in found.items() if count]


class FakeSmsc:
    """An SMSC on a real port that takes what it is sent, or does what the test wants instead.

    ``answer(pdu)`` decides for each ``submit_sm``: a status by name, "" for silence, "drop" to break the connection.
    ``taken`` are the PDUs that were accepted, by the ids that they were given."""

    def __init__(self, reactor: Any, tls: Any = None, **settings: Any) -> None:
        self.answer: Callable[[Pdu], str] = lambda _pdu: "ESME_ROK"
        self.taken: dict[str, Pdu] = {}
        self.came = 0
        """All ``submit_sm``, the refused ones too."""
        self.answers: list[Answered] = []
        """What was said to what it sent itself."""
        account = Account("sipgw", "secret")
        self.factory = Port({"sipgw": account}, Settings(**settings), reactor, self, system_id="fake")
        self.port = self.factory.listen("127.0.0.1", 0, tls)

    async def stop(self) -> None:
        """Close the port, and what is connected to it."""
        await self.factory.stop()
        for link in list(self.factory.links):
            link.abort("stopped")

    def drop(self) -> None:
        """Break all connections."""
        for link in list(self.factory.links):
            link.abort("dropped")

    def text(self) -> str:
        """All accepted texts in the order in which they came, parts joined as a mobile joins them."""
        chunks = [content_of(pdu)[0] for pdu in self.taken.values()]
        return join(chunks)

    def say(self, source: str, destination: str, text: str, **values: Any) -> None:
        """Send a text, in parts if it is long."""
        for part in cut(text, reference=len(self.answers)):
            each = {
                "source_addr_ton": 1, "source_addr_npi": 1, "source_addr": source, "dest_addr_ton": 1, "dest_addr_npi": 1,
                "destination_addr": destination, "short_message": part.data, "data_coding": part.coding,
                "esm_class": 0x40 * part.has_header, **values,
            }
            self.deliver(Pdu("deliver_sm", values=each))

    def receipt(self, id: str, state: str = "DELIVRD", *, form: str = "id:{id} stat:{state} err:000") -> None:
        """Tell what became of the message that it called ``id``."""
        pdu = self.taken[id]
        self.deliver(Pdu("deliver_sm", values={
            "source_addr": pdu["destination_addr"], "destination_addr": pdu["source_addr"], "esm_class": 0x04,
            "short_message": form.format(id=id, state=state).encode(),
        }))

    def deliver(self, pdu: Pdu) -> None:
        """Send one PDU on a session that may have it."""
        link = next(link for link in self.factory.links if link.session.may_send("deliver_sm"))
        link.request(pdu, None)

    # what its port tells
    def entered(self, account: Account, link: Link) -> None:
        """Nothing to do."""

    def left(self, account: Account, link: Link, reason: str) -> None:
        """Nothing to do."""

    def rejected(self, host: str, system_id: str, why: str) -> None:
        """Nothing to do."""

    def submitted(self, account: Account, link: Link, pdu: Pdu) -> None:
        """Do what the test wants."""
        self.came += 1
        answer = self.answer(pdu)
        if answer == "drop":
            link.abort("dropped")
        elif answer == "ESME_ROK":
            id = f"{len(self.taken) + 1}"
            self.taken[id] = pdu
            link.respond(pdu, message_id=id)
        elif answer:
            link.respond(pdu, answer)

    def acknowledged(self, account: Account, link: Link, answer: Answered) -> None:
        """Note it."""
        self.answers.append(answer)


class Phone:
    """A peer on a wire that remembers what it was sent, oldest first, until somebody takes it."""

    def __init__(self, wire: Wire, host: str, port: int = 5060) -> None:
        self.socket = wire.socket(host, port, self._receive)
        self.inbox: deque[Request | Response] = deque()

    def _receive(self, data: bytes, _flow: WireFlow) -> None:
        self.inbox.append(parse(data))

    def send(self, data: bytes, address: Address) -> None:
        """Send one datagram."""
        self.socket.send(data, *address)

    def take(self) -> Request | Response | None:
        """The oldest message that nobody has taken."""
        return self.inbox.popleft() if self.inbox else None
