"""Our two sides of SMPP against each other, over sockets: binds, reconnects, who may bind."""

from ipaddress import ip_network
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from sipgw.sms.esme import Esme, Smsc
from sipgw.sms.link import Link
from sipgw.sms.pdu import Frames, Pdu, encode, parse
from sipgw.sms.session import Settings
from sipgw.sms.smsc import ATTEMPTS, Account, Port

HOST = "127.0.0.1"


def the_reactor() -> Any:
    """The one that trial runs."""
    from twisted.internet import reactor

    return reactor


class Heard:
    """What either side tells, in order; ``wait`` fires when that many of a kind are there."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self._waiting: list[tuple[str, int, Deferred[Any]]] = []

    def count(self, kind: str) -> int:
        """How many of a kind there are."""
        return sum(each == kind for each, _ in self.told)

    async def wait(self, kind: str, count: int = 1) -> Any:
        """What the last of them said."""
        if self.count(kind) < count:
            fired: Deferred[Any] = Deferred()
            self._waiting.append((kind, count, fired))
            fired.addTimeout(15, the_reactor())
            await fired
        return [said for each, said in self.told if each == kind][count - 1]

    def _tell(self, kind: str, said: Any) -> None:
        self.told.append((kind, said))
        for waiting in list(self._waiting):
            if self.count(waiting[0]) >= waiting[1]:
                self._waiting.remove(waiting)
                waiting[2].callback(None)

    # an ESME's
    def up(self, esme: Esme) -> None:
        self._tell("up", esme)

    def down(self, esme: Esme, reason: str) -> None:
        self._tell("down", reason)

    def room(self, esme: Esme) -> None:
        self._tell("room", esme.room())

    # an SMSC's
    def entered(self, account: Account, link: Link) -> None:
        self._tell("entered", link)

    def left(self, account: Account, link: Link, reason: str) -> None:
        self._tell("left", reason)

    def rejected(self, host: str, system_id: str, why: str) -> None:
        self._tell("rejected", (host, system_id, why))

    def submitted(self, account: Account, link: Link, pdu: Pdu) -> None:
        self._tell("submitted", (link, pdu))

    # both
    def delivered(self, esme: Esme, link: Link, pdu: Pdu) -> None:
        self._tell("delivered", (link, pdu))

    def answered(self, _esme: Esme, answer: Any) -> None:
        self._tell("answered", answer)

    def acknowledged(self, _account: Account, _link: Link, answer: Any) -> None:
        self._tell("answered", answer)


class Raw(Protocol):
    """A peer that speaks octets."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.gone: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.gone.callback(self.data)


class LinkTests(TestCase):
    """``Esme`` and ``Port``."""

    def setUp(self) -> None:
        """A port with one account."""
        self.ours, self.theirs = Heard(), Heard()
        self.accounts = {"sipgw": Account("sipgw", "secret", sessions=2)}
        self.settings = Settings(bind_time=5, response_time=5, enquire_time=0)
        self.reactor = the_reactor()
        self.port = Port(self.accounts, self.settings, self.reactor, self.theirs)
        self.number = self.port.listen(HOST, 0)
        self.esmes: list[Esme] = []

    async def tearDown(self) -> None:  # type: ignore[override]
        """End all, and wait until the connections are gone."""
        for esme in self.esmes:
            esme.stop()
        await self.port.stop()
        while self.port.links or any(esme.links for esme in self.esmes):
            tick: Deferred[None] = Deferred()
            self.reactor.callLater(0.005, tick.callback, None)
            await tick

    def esme(self, **options: Any) -> Esme:
        """An ESME that binds to the port."""
        row: dict[str, Any] = {"port": self.number, "system_id": "sipgw", "password": "secret", "settings": self.settings}
        row |= options
        esme = Esme(Smsc("test", HOST, **row), self.reactor, self.ours, Random(1))
        self.esmes.append(esme)
        esme.start()
        return esme

    async def test_messages_each_way(self) -> None:
        """A message in each direction, with its answer."""
        esme = self.esme()
        await self.ours.wait("up")
        self.assertEqual((esme.state, esme.room()), ("bound", 10))
        esme.submit(Pdu("submit_sm", values={"destination_addr": "49", "short_message": b"hi"}), "token")
        link, pdu = await self.theirs.wait("submitted")
        self.assertEqual((pdu["destination_addr"], pdu.message, esme.pending), ("49", b"hi", 1))
        link.respond(pdu, message_id="m1")
        answer = await self.ours.wait("answered")
        self.assertEqual((answer.token, answer.pdu["message_id"], esme.pending), ("token", "m1", 0))
        link.request(Pdu("deliver_sm", values={"short_message": b"ho"}), "back")
        own, pdu = await self.ours.wait("delivered")
        own.respond(pdu)
        self.assertEqual((await self.theirs.wait("answered")).token, "back")

    async def test_two_sessions(self) -> None:
        """With ``session_type`` 5 there is one session each way, and messages go by the right one."""
        esme = self.esme(session_type=5)
        await self.ours.wait("up", 2)
        self.assertEqual(sorted(link.session.state for link in esme.links), ["receiver", "transmitter"])
        esme.submit(Pdu("submit_sm"), 1)
        link, _ = await self.theirs.wait("submitted")
        self.assertEqual(link.session.state, "transmitter")

    async def test_outbind(self) -> None:
        """With ``session_type`` 4 we call, and the other binds to us on that connection, if it knows the password."""
        came: list[Raw] = []
        factory: Any = Factory()
        factory.noisy = False

        def build(_address: Any) -> Raw:
            came.append(Raw())
            return came[-1]

        factory.buildProtocol = build
        listening = self.reactor.listenTCP(0, factory, interface=HOST)
        esme = self.esme(port=listening.getHost().port, session_type=4)
        self.assertEqual(esme.command, "deliver_sm")
        for number, password in enumerate(("wrong", "secret")):
            await self.until(lambda number=number: len(came) > number and came[number].data)
            (frame,) = Frames().feed(came[number].data)
            self.assertEqual((parse(frame).command, parse(frame)["system_id"]), ("outbind", "sipgw"))
            came[number].data = b""
            bind = Pdu("bind_receiver", 1, 0, {"system_id": "sipgw", "password": password})
            came[number].transport.write(encode(bind))
        await self.ours.wait("up")
        esme.submit(Pdu("deliver_sm", values={"short_message": b"hi"}), "token")
        await self.until(lambda: b"hi" in came[1].data)
        esme.links[0].abort("enough")
        esme.stop()
        await listening.stopListening()

    async def until(self, condition: Any) -> None:
        """Wait until ``condition`` holds."""
        end = self.reactor.seconds() + 15
        while not condition():
            self.assertLess(self.reactor.seconds(), end)
            tick: Deferred[None] = Deferred()
            self.reactor.callLater(0.005, tick.callback, None)
            await tick

    async def test_binds_again(self) -> None:
        """A session that the SMSC ends is begun again; a request that waited hears of it."""
        esme = self.esme()
        link = await self.theirs.wait("entered")
        await self.ours.wait("up")
        esme.submit(Pdu("submit_sm"), "lost")
        await self.theirs.wait("submitted")
        link.abort("pulled")
        answer = await self.ours.wait("answered")
        self.assertEqual((answer.token, answer.pdu), ("lost", None))
        await self.ours.wait("up", 2)
        self.assertEqual((esme.attempts, esme.state), (2, "bound"))

    async def test_wrong_password(self) -> None:
        """The ESME says why it is down and goes on trying; nobody is told whether the name or the password is wrong."""
        esme = self.esme(password="wrong")
        reason = await self.ours.wait("down")
        self.assertEqual(reason, "the peer does not let us bind: ESME_RBINDFAIL")
        self.assertEqual(esme.state, f"down: {reason}")
        self.assertEqual(await self.theirs.wait("rejected"), (HOST, "sipgw", "wrong name or password"))
        self.assertNotIn("wrong", repr(esme.smsc))

    async def test_who_may_bind(self) -> None:
        """Accounts have networks, kinds and a number of sessions."""
        for change, kind, why in [
            ({"sources": [ip_network("10.0.0.0/8")]}, 1, "not from there"),
            ({"kinds": frozenset(["receiver"])}, 1, "not as a transceiver"),
            ({"sessions": 0}, 1, "has 0 sessions already"),
        ]:
            self.accounts["sipgw"] = Account("sipgw", "secret", **change)  # type: ignore[arg-type]
            count = self.theirs.count("rejected")
            self.esme(session_type=kind)
            self.assertEqual((await self.theirs.wait("rejected", count + 1))[2], why)
            self.esmes[-1].stop()

    async def test_tries_are_limited(self) -> None:
        """After some failed binds from an address its connections are closed at once."""
        bind = encode(Pdu("bind_transceiver", 1, 0, {"system_id": "sipgw", "password": "guess"}))
        answers = []
        for _ in range(ATTEMPTS + 2):
            raw = Raw()
            factory: Any = Factory()
            factory.noisy = False
            factory.buildProtocol = lambda _address, raw=raw: raw
            await TCP4ClientEndpoint(self.reactor, HOST, self.number).connect(factory)
            raw.transport.write(bind)
            answers.append(await raw.gone)
        self.assertEqual([bool(answer) for answer in answers], [True] * ATTEMPTS + [False] * 2)
        self.assertEqual(parse(answers[0]).error, "ESME_RBINDFAIL")
        self.assertEqual((self.port.shut_out, self.theirs.count("rejected")), (2, ATTEMPTS))

    async def test_nobody_there(self) -> None:
        """An SMSC that cannot be reached: the reason is known, and it is tried again until it is stopped."""
        await self.port.stop()
        esme = self.esme()
        self.assertIn("refused", await self.ours.wait("down"))
        await self.ours.wait("down", 2)
        self.assertGreaterEqual(esme.attempts, 2)
        esme.stop()
        self.assertEqual((esme.state, esme.room()), ("stopped", 0))
