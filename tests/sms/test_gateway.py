"""The gateway between a SIP side of the test's own and a fake SMSC, over sockets and a database on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import TestCase

from sipgw.db.errors import DatabaseError
from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.modules.db_sqlite import DbSqlite
from sipgw.sip.cpim import Cpim
from sipgw.sip.imdn import Notification
from sipgw.sms.esme import Esme, Smsc
from sipgw.sms.gateway import Gateway, GatewaySettings
from sipgw.sms.pdu import Pdu
from sipgw.sms.session import Settings
from sipgw.sms.smsc import Account, Port
from sipgw.sms.spool import Kind, Message, Spool, State
from sipgw.testing import FakeServer, FakeSmsc

PATIENCE = 15.0


class User:
    """As much of a transaction user as the gateway asks for, on the real clock."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.late = 0.0
        """Seconds that the time of day is ahead."""
        self.lines: list[tuple[int, str]] = []
        self.broken: list[BaseException] = []

    def clock(self) -> float:
        return float(self.reactor.seconds())

    def wall_clock(self) -> float:
        return 1_800_000_000.0 + self.clock() % 1_000_000 + self.late

    def log(self, level: int, text: str) -> None:
        self.lines.append((level, text))

    def launch(self, coroutine: Any) -> None:
        running: Any = ensureDeferred(coroutine)
        running.addErrback(lambda failure: self.broken.append(failure.value))


class Phones:
    """The SIP side: what it was sent, and with which status it answers."""

    def __init__(self) -> None:
        self.came: list[tuple[str, str, str, bytes]] = []
        self.status = 200

    async def message(self, receiver: str, sender: str, headers: str, kind: str, body: bytes, origin: Message) -> int:
        self.came.append((receiver, sender, kind, body))
        return self.status


class Spooled(TestCase):
    """A database for the spool."""

    def setUp(self) -> None:
        """Make it."""
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.url = f"sqlite://{Path(self.mktemp()).absolute()}"
        store = open_store(self.url, create=True)
        create(store, ["sms_messages", "sms_parts"])
        store.close()
        server: Any = FakeServer()
        server.reactor = reactor
        self.database = DbSqlite(server).make(self.url)
        self.addCleanup(lambda: ensureDeferred(self.database.close()))
        self.spool = Spool(self.database)

    async def until(self, condition: Any, what: str = "") -> Any:
        """Wait until ``condition`` holds; its value."""
        end = self.reactor.seconds() + PATIENCE
        while not (value := condition()):
            if self.reactor.seconds() > end:
                self.fail(f"waited in vain {what}")
            tick: Deferred[None] = Deferred()
            self.reactor.callLater(0.005, tick.callback, None)
            await tick
        return value

    async def emptied(self) -> None:
        """Wait until nothing is in the spool."""
        end = self.reactor.seconds() + PATIENCE
        while (left := await self.left()) and self.reactor.seconds() < end:
            tick: Deferred[None] = Deferred()
            self.reactor.callLater(0.02, tick.callback, None)
            await tick
        self.assertEqual(left, {})

    async def left(self) -> dict[str, int]:
        """What is in the spool."""
        return await self.spool.count()


class GatewayTests(Spooled):
    """``Gateway`` as an ESME."""

    def setUp(self) -> None:
        """A gateway that is bound to a fake SMSC."""
        super().setUp()
        self.user = User(self.reactor)
        self.phones = Phones()
        self.smsc = FakeSmsc(self.reactor, window=50)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.gateway = self.make()

    def make(self, **settings: Any) -> Gateway:
        """A gateway on the spool."""
        options = GatewaySettings(domain="sip.test", **settings)
        gateway = Gateway(
            self.user, self.reactor, Spool(self.database), self.phones, options,
            lambda event, **values: self.told.append((event, values)),
        )
        row: dict[str, Any] = {"port": self.smsc.port, "system_id": "sipgw", "password": "secret"}
        link = Settings(response_time=2, enquire_time=0, back_off=0.05, window=10)
        gateway.add_esme(Esme(Smsc("one", "127.0.0.1", settings=link, **row), self.reactor, gateway))
        self.gateway = gateway
        return gateway

    async def tearDown(self) -> None:  # type: ignore[override]
        """Stop all, and see that nothing broke."""
        await self.gateway.stop()
        await self.smsc.stop()
        await self.until(lambda: not self.smsc.factory.links and not any(each.links for each in self.gateway.esmes.values()))
        self.assertEqual(self.user.broken, [])

    async def send(self, text: str, *, receipt: int = 0, imdn: Any = None, link: str = "one") -> str:
        """A text from a phone."""
        return await self.gateway.send(
            link, "+4930123", "+49170555", text, sender="sip:alice@sip.test", receiver="sip:+49170555@sip.test",
            details={"receipt": receipt, "imdn": imdn},
        )

    async def test_out(self) -> None:
        """Texts in every alphabet, long ones and emoji, arrive character by character; then nothing is left."""
        await self.gateway.start()
        for text in ("Hello", "é€" * 200, "жук \U0001f600" * 30):
            self.smsc.taken.clear()
            await self.send(text)
            await self.until(lambda text=text: self.smsc.text() == text, text)
        await self.until(lambda: self.gateway.counts["to_mobile"] == 3)
        pdu = self.smsc.taken["1"]
        self.assertEqual((pdu["source_addr"], pdu["source_addr_ton"], pdu["destination_addr"]), ("4930123", 1, "49170555"))
        self.assertEqual(await self.left(), {})

    async def test_receipts(self) -> None:
        """A sender that asked hears when all parts have arrived, or one has not; in the dialects of SMSCs."""
        await self.gateway.start()
        asked = ("m1", True, True, False)
        for form, states, status in [
            ("id:{id} stat:{state} err:000", ["DELIVRD"], "delivered"), ("id:{id} stat:{state}", ["UNDELIV"], "failed"),
            ("ID:000{id} SUB:1 STAT:{state}", ["DELIVRD", "DELIVRD"], "delivered"),
            ("id:{id} stat:{state}", ["DELIVRD", "EXPIRED"], "failed"),
        ]:
            self.smsc.taken.clear()
            self.phones.came.clear()
            await self.send("x" * 150 * len(states), receipt=1, imdn=asked)
            await self.until(lambda states=states: len(self.smsc.taken) == len(states))
            for id, state in zip(list(self.smsc.taken), states, strict=True):
                self.smsc.receipt(id, "ACCEPTD", form=form)
                self.smsc.receipt(id, state, form=form)
            receiver, sender, kind, body = (await self.until(lambda: self.phones.came))[0]
            self.assertEqual((receiver, sender, kind), ("sip:alice@sip.test", "sip:+49170555@sip.test", "message/cpim"))
            note = Notification.parse(Cpim.parse(body).body)
            self.assertEqual((note.message_id, note.status), ("m1", status))
            await self.until(lambda: self.gateway.spool and not self.gateway._delivering)
            self.assertEqual(await self.left(), {})
        self.assertEqual(self.gateway.unmatched, 0)
        self.assertEqual(self.told[-1][0], "E_SMPP_RECEIPT")

    async def test_receipt_before_the_answer(self) -> None:
        """A receipt that comes before the answer which names its message is matched all the same; one for nothing is answered."""
        await self.gateway.start()

        def early(pdu: Pdu) -> str:
            self.smsc.deliver(Pdu("deliver_sm", values={"esm_class": 4, "short_message": b"id:1 stat:DELIVRD"}))
            return "ESME_ROK"

        self.smsc.answer = early
        await self.send("Hello", receipt=1, imdn=("m1", True, True, False))
        await self.until(lambda: self.phones.came)
        self.assertEqual((self.gateway.unmatched, self.gateway.counts["receipts"]), (0, 1))

    async def test_throttled(self) -> None:
        """An SMSC that says "slower" gets all, each once."""
        await self.gateway.start()
        calls: list[int] = []

        def slow(_pdu: Pdu) -> str:
            calls.append(1)
            return "ESME_RTHROTTLED" if len(calls) % 3 == 0 else "ESME_ROK"

        self.smsc.answer = slow
        for number in range(40):
            await self.send(f"text {number}")
        await self.until(lambda: self.gateway.counts["to_mobile"] == 40)
        texts = sorted(pdu.message for pdu in self.smsc.taken.values())
        self.assertEqual(texts, sorted(f"text {number}".encode() for number in range(40)))
        self.assertGreater(self.gateway.esmes["one"].throttled, 10)
        self.assertEqual(await self.left(), {})

    async def test_refused(self) -> None:
        """What an SMSC refuses for good fails at once, and its sender hears; what may pass waits."""
        await self.gateway.start()
        self.smsc.answer = lambda _pdu: "ESME_RINVDSTADR"
        await self.send("Hello", receipt=1, imdn=("m1", False, True, False))
        _, _, _, body = (await self.until(lambda: self.phones.came))[0]
        self.assertEqual(Notification.parse(Cpim.parse(body).body).status, "failed")
        self.smsc.answer = lambda _pdu: "ESME_RSYSERR"
        id = await self.send("Hello")
        await self.until(lambda: self.smsc.came == 2)
        await self.until(lambda: any("tried again in 10 s" in text for _, text in self.user.lines))
        await self.until(lambda: not self.gateway.outbound.writing)
        message = await self.spool.find(id)
        assert message is not None
        self.assertEqual((message.state, message.tries), (State.WAITING, 1))
        self.assertGreaterEqual(message.due - message.created, 10)

    async def test_silence_and_loss(self) -> None:
        """A connection that breaks with texts under way: they go again, none is lost, and the log says it."""
        await self.gateway.start()
        answers = iter(["drop", "", *["ESME_ROK"] * 100])
        self.smsc.answer = lambda _pdu: next(answers)
        for number in range(10):
            await self.send(f"text {number}")
        await self.until(lambda: self.gateway.counts["to_mobile"] == 10)
        texts = {pdu.message for pdu in self.smsc.taken.values()}
        self.assertEqual(texts, {f"text {number}".encode() for number in range(10)})
        self.assertTrue(any("may arrive twice" in text for _, text in self.user.lines))
        self.assertEqual(await self.left(), {})

    async def test_smsc_away(self) -> None:
        """While the SMSC is away texts are taken and kept; they go out in order when it is back."""
        texts = [f"text {number}" for number in range(5)]
        for text in texts:
            await self.send(text)
        self.assertEqual(await self.left(), {"to_mobile waiting": 5})
        await self.gateway.start()
        await self.until(lambda: self.gateway.counts["to_mobile"] == 5)
        self.assertEqual([pdu.message.decode() for pdu in self.smsc.taken.values()], texts)

    async def test_read_while_it_ends(self) -> None:
        """A text that is sent while the spool is being read, and so still waits in what is read, does not go out again."""
        await self.gateway.start()
        await self.until(lambda: self.gateway.esmes["one"].is_bound and not self.gateway.outbound.targets["one"].preparing)
        target = self.gateway.outbound.targets["one"]
        old = self.gateway.spool.due
        reads: list[int] = []

        async def due(*args: Any) -> list[Message]:
            found = await old(*args)
            reads.append(len(found))
            if found:
                target.forget(found[0].id)  # its end comes while this waits
            return found

        self.patch(self.gateway.spool, "due", due)
        target.more = True
        await self.send("Hello")
        await self.until(lambda: reads)
        await self.until(lambda: not target.preparing)
        self.assertEqual((reads, len(target.waiting), self.smsc.came), ([1], 0, 0))

    async def test_restart(self) -> None:
        """A gateway that dies with texts waiting, under way and waiting for receipts: the next one takes all of them up."""
        await self.gateway.start()
        asked = ("m1", True, True, False)
        await self.send("answered", receipt=1, imdn=asked)
        await self.until(lambda: self.smsc.taken)
        self.smsc.answer = lambda _pdu: ""
        await self.send("silent")
        await self.until(lambda: self.smsc.came == 2)
        await self.gateway.stop()
        self.assertEqual(await self.left(), {"to_mobile sent": 1, "to_mobile sending": 1})
        self.smsc.answer = lambda _pdu: "ESME_ROK"
        self.make()
        await self.gateway.start()
        await self.until(lambda: len(self.smsc.taken) == 2)
        self.assertTrue(any("it may arrive twice" in text for _, text in self.user.lines))
        self.smsc.receipt("1")
        await self.until(lambda: self.phones.came)
        await self.emptied()

    async def test_in(self) -> None:
        """Texts from a mobile are shown to the script, long ones in one piece."""
        await self.gateway.start()
        await self.until(lambda: self.gateway.esmes["one"].is_bound)
        for text in ("Hello", "ж" * 200 + "\U0001f600"):
            self.phones.came.clear()
            self.smsc.say("49170555", "4930123", text)
            ((receiver, sender, kind, body),) = await self.until(lambda: self.phones.came)
            self.assertEqual((receiver, sender), ("sip:+4930123@sip.test", "sip:+49170555@sip.test"))
            self.assertEqual(kind, "text/plain;charset=utf-8")
            self.assertEqual(body.decode(), text)
        await self.until(lambda: not self.gateway._delivering and len(self.smsc.answers) == 5)
        self.assertEqual({answer.pdu.error for answer in self.smsc.answers if answer.pdu}, {"ESME_ROK"})
        self.assertEqual(await self.left(), {})

    async def test_in_as_rp(self) -> None:
        """An IMS phone gets each part as RP-DATA with an SMS-DELIVER."""
        self.make(as_rp=True, number="+4911")
        await self.gateway.start()
        await self.until(lambda: self.gateway.esmes["one"].is_bound)
        self.smsc.say("49170555", "4930123", "x" * 200)
        await self.until(lambda: len(self.phones.came) == 2)
        for _, _, kind, body in self.phones.came:
            self.assertEqual((kind, body[0], body[2:6].hex()), ("application/vnd.3gpp.sms", 1, "03919411"))
            self.assertIn(bytes.fromhex("0891947150" + "55"), body)
        await self.emptied()

    async def test_phone_away(self) -> None:
        """A text for a phone that is away waits on disk, and goes out when the phone registers; a refusal for good ends it."""
        await self.gateway.start()
        await self.until(lambda: self.gateway.esmes["one"].is_bound)
        self.phones.status = 480
        self.smsc.say("49170555", "4930123", "Hello")
        await self.until(lambda: self.phones.came and not self.gateway._delivering)
        self.assertEqual(await self.left(), {"to_sip waiting": 1})
        self.phones.status = 200
        await self.gateway.registered("sip:+4930999@sip.test")
        await self.gateway.registered("sip:+4930123@sip.test")
        await self.until(lambda: len(self.phones.came) == 2 and not self.gateway._delivering)
        self.assertEqual(await self.left(), {})
        self.phones.status = 415
        self.smsc.say("49170555", "4930123", "Hello")
        await self.until(lambda: len(self.phones.came) == 3 and not self.gateway._delivering)
        self.assertEqual(await self.left(), {})

    async def test_parts_survive(self) -> None:
        """Parts that came before the end are there after it, and the text is whole when the last one comes."""
        await self.gateway.start()
        await self.until(lambda: self.gateway.esmes["one"].is_bound)
        whole = "a" * 400
        from sipgw.sms.text import cut

        parts = cut(whole, reference=9)

        def say(part: Any) -> None:
            self.smsc.deliver(Pdu("deliver_sm", values={
                "source_addr": "49170555", "source_addr_ton": 1, "destination_addr": "4930123", "esm_class": 0x40,
                "short_message": part.data,
            }))

        say(parts[2])
        say(parts[0])
        await self.until(lambda: len(self.smsc.answers) == 2)
        await self.gateway.stop()
        self.assertEqual(await self.left(), {"fragment waiting": 2})
        self.make()
        await self.gateway.start()
        await self.until(lambda: self.gateway.esmes["one"].is_bound)
        say(parts[0])  # the SMSC has not heard our answer, and sends it again
        say(parts[1])
        ((_, _, _, body),) = await self.until(lambda: self.phones.came)
        self.assertEqual(body.decode(), whole)
        await self.until(lambda: not self.gateway._delivering)
        self.assertEqual((await self.left(), self.gateway.inbound.repeated), ({}, 1))

    async def test_spool_down(self) -> None:
        """What cannot be written is not acknowledged, to neither side."""
        await self.gateway.start()
        await self.until(lambda: self.gateway.esmes["one"].is_bound)

        async def batch(_changes: Any) -> None:
            raise DatabaseError("disk full")

        self.patch(self.gateway.spool.database, "batch", batch)
        await self.assertFailure(ensureDeferred(self.send("Hello")), DatabaseError)
        self.smsc.say("49170555", "4930123", "Hello")
        await self.until(lambda: self.smsc.answers)
        answer = self.smsc.answers[0].pdu
        assert answer is not None
        self.assertEqual((answer.error, self.phones.came), ("ESME_RMSGQFUL", []))

    async def test_groups(self) -> None:
        """A group sends by its first SMSC that works, or by all; when that goes, by the other."""
        other = FakeSmsc(self.reactor, window=50)
        link = Settings(response_time=2, enquire_time=0, window=10)
        row: dict[str, Any] = {"port": other.port, "system_id": "sipgw", "password": "secret", "settings": link}
        self.gateway.add_esme(Esme(Smsc("two", "127.0.0.1", **row), self.reactor, self.gateway))
        self.gateway.add_group("first", ["one", "two"], shared=False)
        self.gateway.add_group("all", ["one", "two"], shared=True)
        self.assertRaises(KeyError, self.gateway.add_group, "bad", ["none"], shared=False)
        await self.gateway.start()
        esmes = self.gateway.esmes
        await self.until(lambda: esmes["one"].is_bound and esmes["two"].is_bound)
        for number in range(5):
            await self.send(f"first {number}", link="first")
        await self.until(lambda: len(self.smsc.taken) == 5)
        self.assertEqual(len(other.taken), 0)
        self.smsc.answer = other.answer = lambda _pdu: ""  # windows fill, so both are needed
        for number in range(15):
            await self.send(f"all {number}", link="all")
        await self.until(lambda: self.smsc.came - 5 + other.came == 15)
        self.assertGreaterEqual(min(self.smsc.came - 5, other.came), 5)
        self.smsc.answer = other.answer = lambda _pdu: "ESME_ROK"
        esmes["one"].stop()
        await self.until(lambda: not esmes["one"].is_bound)
        taken = len(other.taken)
        await self.send("last", link="first")
        await self.until(lambda: b"last" in [pdu.message for pdu in other.taken.values()])
        self.assertGreater(len(other.taken), taken)
        await self.until(lambda: self.gateway.counts["to_mobile"] == 21)
        await other.stop()

    async def test_late_receipt(self) -> None:
        """A receipt that comes 72 hours later still finds its text; after four days nobody waits for it."""
        await self.gateway.start()
        await self.send("Hello", receipt=1, imdn=("m1", True, True, False))
        await self.until(lambda: self.gateway.counts["to_mobile"] == 1)
        self.user.late = 72 * 3600
        await self.gateway._look()
        self.smsc.receipt("1")
        await self.until(lambda: self.phones.came)
        await self.emptied()
        await self.send("Hello", receipt=1)
        await self.until(lambda: self.gateway.counts["to_mobile"] == 2)
        self.user.late = 8 * 86400
        await self.gateway._look()
        self.assertEqual(await self.left(), {})

    async def test_wrong(self) -> None:
        """A link that there is not, and a number that cannot be."""
        await self.assertFailure(ensureDeferred(self.send("x", link="none")), KeyError)
        bad = self.gateway.send("one", "+1", "not a number at all", "x", sender="", receiver="", details={})
        await self.assertFailure(ensureDeferred(bad), ValueError)
        self.assertEqual(await self.left(), {})


class ClientTests(Spooled):
    """``Gateway`` as an SMSC: another one of ours is bound to it."""

    def setUp(self) -> None:
        """A gateway with a port, and a gateway that binds to it, with a spool of its own."""
        super().setUp()
        self.user = User(self.reactor)
        self.phones, self.client_phones = Phones(), Phones()
        options = GatewaySettings(domain="sip.test")
        self.gateway = Gateway(self.user, self.reactor, self.spool, self.phones, options, lambda *_a, **_k: None)
        accounts = {"shop": Account("shop", "secret", senders=["49"])}
        port = Port(accounts, Settings(enquire_time=0), self.reactor, self.gateway)
        self.gateway.open_port(port)
        number = port.listen("127.0.0.1", 0)
        url = f"sqlite://{Path(self.mktemp()).absolute()}"
        store = open_store(url, create=True)
        create(store, ["sms_messages", "sms_parts"])
        store.close()
        server: Any = FakeServer()
        server.reactor = self.reactor
        self.other = DbSqlite(server).make(url)
        self.client = Gateway(self.user, self.reactor, Spool(self.other), self.client_phones, options, lambda *_a, **_k: None)
        smsc = Smsc("us", "127.0.0.1", port=number, system_id="shop", password="secret", settings=Settings(enquire_time=0))
        self.client.add_esme(Esme(smsc, self.reactor, self.client))

    async def tearDown(self) -> None:  # type: ignore[override]
        """Stop both."""
        await self.client.stop()
        await self.gateway.stop()
        port = self.gateway.port
        assert port is not None
        await self.until(lambda: not port.links and not self.client.esmes["us"].links)
        await self.other.close()
        self.assertEqual(self.user.broken, [])

    async def test_both_ways(self) -> None:
        """A long text from the ESME reaches SIP, its receipts come back; a text for it goes out to it."""
        await self.gateway.start()
        await self.client.start()
        text = "ж" * 150
        await self.client.send(
            "us", "+4930", "+49170", text, sender="sip:a@b", receiver="sip:c@d",
            details={"receipt": 1, "imdn": ("m1", True, True, False)},
        )
        ((receiver, sender, _, body),) = await self.until(lambda: self.phones.came)
        self.assertEqual((receiver, sender, body.decode()), ("sip:+49170@sip.test", "sip:+4930@sip.test", text))
        ((_, _, kind, body),) = await self.until(lambda: self.client_phones.came, "for the receipt")
        self.assertEqual((kind, Notification.parse(Cpim.parse(body).body).status), ("message/cpim", "delivered"))
        await self.gateway.send("shop", "+49170", "+4930", "back", sender="", receiver="", details={})
        await self.until(lambda: len(self.client_phones.came) == 2)
        self.assertEqual(self.client_phones.came[1][3], b"back")
        await self.until(lambda: not self.client._delivering)
        self.assertEqual((await self.left(), await self.client.spool.count()), ({}, {}))

    async def test_senders(self) -> None:
        """An ESME may send only in the names that it has."""
        await self.gateway.start()
        await self.client.start()
        await self.client.send("us", "+1555", "+49170", "x", sender="", receiver="", details={})
        await self.until(lambda: self.client.counts["failed"])
        self.assertTrue(any("ESME_RINVSRCADR" in text for _, text in self.user.lines))
        self.assertEqual((self.phones.came, await self.left()), ([], {}))


class SpoolTests(Spooled):
    """``Spool``."""

    async def test_together(self) -> None:
        """Changes that come while others are written go together; one that is refused harms no other."""
        batches: list[int] = []
        batch = self.database.batch

        async def counted(changes: Any) -> None:
            batches.append(len(changes))
            await batch(changes)

        self.patch(self.database, "batch", counted)
        waiting = [ensureDeferred(self.spool.add(Message(f"m{n % 9}", Kind.TO_SIP, "one"))) for n in range(10)]
        results = []
        for each in waiting:
            try:
                await each
                results.append(True)
            except DatabaseError:
                results.append(False)
        self.assertEqual((results, await self.left()), ([True] * 9 + [False], {"to_sip waiting": 9}))
        self.assertEqual(batches[:2], [1, 9])
