"""The gateway: SIP on one side, SMSCs and ESMEs on the other, the spool between them.

A text from SIP is put into the spool (``send``), goes out by a line (``outbound.py``), and its receipts come back as
notifications to whoever sent it. A text from a mobile, or from an ESME that is bound to us, is put into the spool
(``inbound.py``), and shown to the script as a MESSAGE; if the script cannot reach the phone it stays, is tried again from time to
time, and at once when the phone registers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from twisted.internet.defer import DeferredLock

from sipgw.db.errors import DatabaseError
from sipgw.sip.imdn import Asked
from sipgw.sms import rp
from sipgw.sms.esme import Esme
from sipgw.sms.inbound import Inbound, is_receipt
from sipgw.sms.link import Link
from sipgw.sms.numbers import ALPHANUMERIC, Address, Numbers
from sipgw.sms.outbound import Outbound, Target, Way
from sipgw.sms.pdu import Pdu
from sipgw.sms.receipts import FINAL, STATES, Receipt, read, same_ids, write
from sipgw.sms.session import Answered
from sipgw.sms.smsc import Account, Port
from sipgw.sms.spool import Kind, Message, Part, Spool, State, new_id
from sipgw.sms.text import Chunk, cut, join
from sipgw.sms.translate import RP_DATA, content, notification
from sipgw.sms.ways import ClientWay, EsmeWay

__all__ = ["Gateway", "GatewaySettings", "Sip"]

RECEIPT_TIME: Final = 4 * 86400
"""Seconds for which receipts of a message are taken: 72 hours late, and some more."""
RECEIPT_PATIENCE: Final = 5.0
"""Seconds for which a receipt waits for the answer that names its message: some SMSCs are that quick."""
RETRIES: Final = (60, 300, 900, 3600)
"""Seconds after which a text for a phone that was away is tried again; the last of them from then on."""
FINAL_REFUSALS: Final = frozenset((400, 403, 405, 413, 414, 415, 416, 420, 488, 501, 505, 513, 603, 604, 606))
"""Statuses after which a text for a phone is not tried again."""
TICK: Final = 5.0


@dataclass
class GatewaySettings:
    """What the gateway is like. ``domain``: of the SIP addresses that it makes of numbers; ``validity``: seconds for which a text
    is kept; ``reports``: "imdn" to who asks so, "text" to all who want a receipt, "none"."""

    domain: str = "localhost"
    validity: int = 3 * 86400
    reports: str = "imdn"
    as_rp: bool = False
    """Whether phones get texts as RP-DATA (IMS) instead of text/plain; ``number`` is the SMSC that it then says it comes from."""
    number: str = ""
    languages: Sequence[int] = ()
    numbers: Numbers = field(default_factory=Numbers)


class Sip(Protocol):
    """The SIP side of the gateway."""

    async def message(self, receiver: str, sender: str, headers: str, kind: str, body: bytes, origin: Message) -> int:
        """Send a MESSAGE; its final status."""


class User(Protocol):
    """What is asked of the transaction user."""

    def clock(self) -> float:
        """Monotonic seconds."""

    def wall_clock(self) -> float:
        """Seconds from 1970."""

    def log(self, level: int, text: str) -> None:
        """Write a line."""

    def launch(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine beside everything else."""


class Gateway:
    """One gateway. ``tell(event, **values)`` raises an event."""

    def __init__(
        self, user: User, reactor: Any, spool: Spool, sip: Sip, settings: GatewaySettings, tell: Callable[..., None]
    ) -> None:
        self.user = user
        self.reactor = reactor
        self.spool = spool
        self.sip = sip
        self.settings = settings
        self.tell = tell
        self.outbound = Outbound(self)
        self.inbound = Inbound(self)
        self.esmes: dict[str, Esme] = {}
        self.port: Port | None = None
        self.unmatched = 0
        """Receipts of which nobody knows the message."""
        self.counts = dict.fromkeys(("to_mobile", "from_mobile", "receipts", "failed", "delivered"), 0)
        self._numbers: dict[str, Numbers] = {}
        self._early: list[tuple[float, Callable[[], None]]] = []
        self._delivering: set[str] = set()
        self._locks: dict[str, DeferredLock] = {}
        self._rp_reference = 0
        self._timers: list[Any] = []
        self._stopped = False

    # ---- the beginning and the end ----

    def add_esme(self, esme: Esme, numbers: Numbers | None = None) -> None:
        """Use an SMSC."""
        name = esme.smsc.name
        self.esmes[name] = esme
        self._numbers[name] = numbers or Numbers(esme.smsc.dst_ton, esme.smsc.dst_npi, self.settings.numbers.country)
        kind = Kind.TO_MOBILE if esme.command == "submit_sm" else Kind.TO_CLIENT
        self.outbound.targets[name] = Target(name, kind, [EsmeWay(esme)])

    def add_group(self, name: str, members: Sequence[str], *, shared: bool) -> None:
        """Use several SMSCs by one name: in order, or whichever has most room. ``KeyError`` for one that there is not."""
        ways: list[Way] = [EsmeWay(self.esmes[member]) for member in members]
        self.outbound.targets[name] = Target(name, Kind.TO_MOBILE, ways, shared=shared)

    def open_port(self, port: Port) -> None:
        """Let ESMEs bind to ``port``."""
        self.port = port
        for account in port.accounts.values():
            name = account.system_id
            self.outbound.targets[name] = Target(name, Kind.TO_CLIENT, [ClientWay(port, account)])

    async def start(self) -> None:
        """Take up what is in the spool, and bind."""
        await self.outbound.recover()
        await self.inbound.recover()
        for message in await self.spool.all(Kind.TO_SIP, State.WAITING):
            if message.due <= self.now():
                self.arrived(message)
        for esme in self.esmes.values():
            esme.start()
        self._tick()

    async def stop(self) -> None:
        """Unbind. What is under way stays in the spool."""
        self._stopped = True
        self.outbound.stop()
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        for esme in self.esmes.values():
            esme.stop()
        if self.port is not None:
            await self.port.stop()

    def _tick(self) -> None:
        if self._stopped:
            return
        self.user.launch(self._look())
        self.after(TICK, self._tick)

    async def _look(self) -> None:
        """Do what has become due."""
        await self.inbound.expire()
        now = self.now()
        try:
            for message in await self.spool.expired(now):
                if message.kind is Kind.TO_MOBILE and message.state is State.WAITING:
                    await self.failed(message, "EXPIRED", "")
                else:
                    self.log(2, f"sms: {message.id} ({message.kind.name}, {message.state.name}) is given up: its time is over")
                    await self.spool.update([], gone=[message])
            for message in await self.spool.all(Kind.TO_SIP, State.WAITING):
                if message.due <= now:
                    self.arrived(message)
        except DatabaseError as error:
            self.log(-1, f"sms: the spool cannot be looked through: {error}")

    # ---- what the lines ask ----

    def now(self) -> int:
        """Seconds from 1970."""
        return int(self.user.wall_clock())

    def clock(self) -> float:
        """Monotonic seconds."""
        return self.user.clock()

    def log(self, level: int, text: str) -> None:
        """Write a line."""
        self.user.log(level, text)

    def launch(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine beside everything else."""
        self.user.launch(coroutine)

    def after(self, seconds: float, call: Callable[[], Any]) -> Any:
        """Call later, unless the end comes first."""
        timer = self.reactor.callLater(seconds, call)
        self._timers = [each for each in self._timers if each.active()]
        self._timers.append(timer)
        return timer

    def addresses(self, message: Message) -> tuple[Address, Address]:
        """Source and destination as the link wants them."""
        esme = self.esmes.get(message.link)
        numbers = self._numbers.get(message.link, self.settings.numbers)
        source, destination = numbers.to_smpp(message.source), numbers.to_smpp(message.destination)
        if esme is not None and source.ton not in (1, ALPHANUMERIC):
            source = Address(esme.smsc.src_ton, esme.smsc.src_npi, source.digits)
        return source, destination

    async def sent(self, message: Message, parts: Sequence[Part]) -> None:
        """All parts were taken: wait for receipts, or be done."""
        if not message.details.get("receipt") or message.kind is Kind.TO_CLIENT:
            await self.spool.update([], gone=[message])
        else:
            message.state = State.SENT
            message.expires = self.now() + RECEIPT_TIME
            message.details["parts"] = len(parts)
            await self.spool.commit_sent(message, parts)
        self.counts["to_mobile"] += 1
        early, self._early = self._early, []
        for _, again in early:
            again()

    async def failed(self, message: Message, state: str, error: str) -> None:
        """It will not arrive: tell whoever sent it."""
        self.counts["failed"] += 1
        self.log(1, f"sms: {message.id} to {message.destination} by {message.link} has failed: {state} {error}")
        await self._ended(message, Receipt(message.id, state, error))

    # ---- from SIP ----

    async def send(
        self, link: str, source: str, destination: str, text: str, *, sender: str, receiver: str, details: Mapping[str, Any]
    ) -> str:
        """Take a text for a mobile, or for an ESME that is bound to us; its id, when it is on disk. ``KeyError`` for a link that
        there is not, ``ValueError`` for numbers that cannot be, ``DatabaseError`` where it cannot be kept."""
        target = self.outbound.targets[link]
        now = self.now()
        message = Message(
            new_id(), target.kind, link, source, destination, sender, receiver, text.encode("utf-8", "replace"),
            {"languages": list(self.settings.languages), **details}, created=now, due=now, expires=now + self.settings.validity,
        )
        self.addresses(message)
        await self.spool.add(message)
        self.outbound.put(message)
        return message.id

    # ---- what SMSCs tell (esme.Watcher) ----

    def up(self, esme: Esme) -> None:
        """A session is there."""
        self.log(2, f"sms: bound to {esme.smsc.name} ({esme.smsc.host}:{esme.smsc.port})")
        self.tell("E_SMPP_LINK", name=esme.smsc.name, state="bound", reason="")

    def down(self, esme: Esme, reason: str) -> None:
        """A session has ended, or could not begin."""
        self.log(1, f"sms: not bound to {esme.smsc.name}: {reason}")
        self.tell("E_SMPP_LINK", name=esme.smsc.name, state="down", reason=reason)
        self.inbound.lost(esme.smsc.name)

    def room(self, esme: Esme) -> None:
        """There may be room again."""
        self.outbound.pushed_by(esme.smsc.name)

    def delivered(self, esme: Esme, link: Link, pdu: Pdu) -> None:
        """An SMSC sent something."""
        if pdu.command not in ("deliver_sm", "data_sm", "submit_sm"):
            link.respond(pdu)
            return
        if pdu.command == "deliver_sm" and is_receipt(pdu):
            self.user.launch(self._receipt(esme.smsc.name, link, pdu, self.clock() + RECEIPT_PATIENCE))
        else:
            name = esme.smsc.name
            details = {"client": name, "wants": pdu["registered_delivery"] & 3} if pdu.command == "submit_sm" else {}
            self.user.launch(self._text(name, link, pdu, self._numbers[name].to_sip, details))

    def answered(self, esme: Esme, answer: Answered) -> None:
        """An SMSC answered."""
        self.outbound.answered(answer)

    # ---- what ESMEs tell (smsc.Watcher) ----

    def entered(self, account: Account, link: Link) -> None:
        """An ESME has bound."""
        self.log(2, f"sms: {account.system_id} has bound as {link.session.state} from {link.peer}")
        self.tell("E_SMPP_LINK", name=account.system_id, state="bound", reason="")
        self.outbound.pushed_by(account.system_id)

    def left(self, account: Account, link: Link, reason: str) -> None:
        """Its session is over."""
        self.log(2, f"sms: {account.system_id} from {link.peer} is gone: {reason}")
        self.tell("E_SMPP_LINK", name=account.system_id, state="down", reason=reason)
        self.inbound.lost(account.system_id)

    def rejected(self, host: str, system_id: str, why: str) -> None:
        """A bind was refused."""
        self.log(1, f"sms: {system_id!r} may not bind from {host}: {why}")

    def submitted(self, account: Account, link: Link, pdu: Pdu) -> None:
        """An ESME sent something."""
        if pdu.command not in ("submit_sm", "data_sm"):
            link.respond(pdu, "ESME_RINVCMDID" if pdu.command != "alert_notification" else 0)
        elif not account.may_send_from(pdu["source_addr"]):
            link.respond(pdu, "ESME_RINVSRCADR")
        else:
            details = {"client": account.system_id, "wants": pdu["registered_delivery"] & 3}
            self.user.launch(self._text(account.system_id, link, pdu, self.settings.numbers.to_sip, details))

    def acknowledged(self, account: Account, link: Link, answer: Answered) -> None:
        """An ESME answered."""
        self.outbound.answered(answer)
        if answer.slow_down:
            self.after(link.opens_in(), lambda: self.outbound.pushed_by(account.system_id))
        else:
            self.outbound.pushed_by(account.system_id)

    # ---- texts ----

    async def _text(
        self, name: str, link: Link, pdu: Pdu, read_address: Callable[[Address], str], details: dict[str, Any]
    ) -> None:
        """Take a text; it is answered when it is on disk."""
        try:
            id = await self.inbound.take(pdu, name, read_address, details)
        except ValueError as error:
            self.log(1, f"sms: a message of {name} cannot be read: {error}")
            link.respond(pdu, "ESME_RINVESMCLASS")
        except DatabaseError as error:
            self.log(-1, f"sms: a message of {name} is not taken: {error}")
            link.respond(pdu, "ESME_RMSGQFUL")
        else:
            self.counts["from_mobile"] += 1
            link.respond(pdu, message_id=id if details else "")

    # ---- receipts ----

    async def _receipt(self, name: str, link: Link, pdu: Pdu, patience: float) -> None:
        """Match a receipt; one that comes before its message has a name waits a little."""
        receipt = read(join([Chunk(pdu.message, pdu["data_coding"])]), pdu.tlvs)
        if receipt is None:
            self.unmatched += 1
            self.log(1, f"sms: {name} sent a receipt that says nothing")
            link.respond(pdu)
            return
        try:
            taken = -1
            message = None
            while message is None and taken != self.counts["to_mobile"]:  # once more if a message got its name meanwhile
                taken = self.counts["to_mobile"]
                message = await self._match(receipt, name)
            if message is None and self.clock() < patience and not self._stopped:
                self._early.append((patience, lambda: self.user.launch(self._receipt(name, link, pdu, patience))))
                self.after(RECEIPT_PATIENCE + 0.1, self._late)
                return
            if message is None:
                self.unmatched += 1
                self.log(1, f"sms: {name} sent a receipt for {receipt.id}, which nobody knows")
        except DatabaseError as error:
            self.log(-1, f"sms: a receipt of {name} is not taken: {error}")
            link.respond(pdu, "ESME_RSYSERR")
            return
        link.respond(pdu)

    def _late(self) -> None:
        """Let receipts go that have waited long enough."""
        now = self.clock()
        over = [each for each in self._early if each[0] <= now]
        self._early = [each for each in self._early if each[0] > now]
        for _, again in over:
            again()

    async def _match(self, receipt: Receipt, name: str) -> Message | None:
        """Find the message that ``receipt`` means, and note what it says; None if nobody knows it. The receipts of one message
        take turns, since what each says decides with the others."""
        parts = await self.spool.parts_named(same_ids(receipt.id), name)
        if not parts:
            return None
        lock = self._locks.setdefault(parts[0].message, DeferredLock())
        await lock.acquire()
        try:
            message = await self.spool.find(parts[0].message)
            if message is not None:
                await self._matched(message, parts[0].number, receipt)
            return message
        finally:
            lock.release()
            if not lock.waiting and not lock.locked:
                self._locks.pop(parts[0].message, None)

    async def _matched(self, message: Message, number: int, receipt: Receipt) -> None:
        """A receipt for one part: the message has arrived when all have, and failed when one has."""
        self.counts["receipts"] += 1
        parts = await self.spool.parts_of(message.id)
        part = next(each for each in parts if each.number == number)
        if part.state in FINAL and not receipt.is_final:
            return  # it was overtaken
        part.state = receipt.state
        whole = len(parts) >= message.details.get("parts", 1) and all(each.state == "DELIVRD" for each in parts)
        self.tell(
            "E_SMPP_RECEIPT", id=message.id, link=part.link, source=message.source, destination=message.destination,
            state=receipt.state, error=receipt.error,
        )
        if whole or (receipt.is_final and receipt.state != "DELIVRD"):
            self.counts["delivered"] += whole
            await self._ended(message, receipt)
        else:
            await self.spool.update([], parts=[part])

    async def _ended(self, message: Message, receipt: Receipt) -> None:
        """A message has arrived, or never will: it leaves the spool, and in the same moment the word for its sender enters it."""
        words = self._words(message, receipt)
        await self.spool.finish(message, words)
        for word in words:
            if word.kind is Kind.TO_SIP:
                self.arrived(word)
            else:
                self.outbound.put(word)

    def _words(self, message: Message, receipt: Receipt) -> list[Message]:
        """What its sender is told; nothing where nobody wants to hear."""
        now = self.now()
        details = message.details
        client = details.get("client")
        if client is not None:
            wanted = details.get("wants", 0)
            if not (wanted == 1 or (wanted == 2 and receipt.state != "DELIVRD")):
                return []
            return [self._client_word(message, receipt, client, id) for id in details.get("parts_of", [message.id])]
        if not message.sender or details.get("word"):
            return []
        kind, body = "", b""
        asked = details.get("imdn")
        if "rp" in details:
            if receipt.is_final and details.get("receipt"):
                kind, body = RP_DATA, self._report(message, receipt)
        elif asked and self.settings.reports != "none":
            sent = datetime.fromtimestamp(message.created, UTC)
            note = notification(receipt, Asked(*asked), message.receiver, sent)
            if note is not None:
                kind, body = "message/cpim", note.wrap(message.receiver, message.sender, new_id()).write()
        elif self.settings.reports == "text" and details.get("receipt"):
            said = "was delivered" if receipt.state == "DELIVRD" else f"was not delivered ({receipt.state})"
            kind, body = content(f"Your message to {message.destination} {said}.")
        if not kind:
            return []
        return [Message(
            new_id(), Kind.TO_SIP, message.link, message.destination, message.source, message.receiver, message.sender, body,
            {"kind": kind, "word": True, "call_id": details.get("call_id", "")}, created=now, due=now,
            expires=now + self.settings.validity,
        )]

    def _report(self, message: Message, receipt: Receipt) -> bytes:
        """The status report for an IMS phone."""
        times = datetime.fromtimestamp(message.created, UTC), datetime.fromtimestamp(self.now(), UTC)
        self._rp_reference = (self._rp_reference + 1) & 0xFF
        recipient = self.settings.numbers.to_smpp(message.destination)
        return rp.report(self._rp_reference, self.settings.number, message.details["rp"], recipient, receipt.state, *times)

    def _client_word(self, message: Message, receipt: Receipt, client: str, id: str) -> Message:
        """The receipt for an ESME that is bound to us, which knows the message as ``id``."""
        now = self.now()
        times = datetime.fromtimestamp(message.created), datetime.fromtimestamp(now)
        text = write(receipt._replace(id=id, text=message.text), *times)
        details = {"receipt_text": text, "receipted": id, "message_state": STATES[receipt.state], "esm_class": 0x04}
        return Message(
            new_id(), Kind.TO_CLIENT, client, message.destination, message.source, details=details, created=now, due=now,
            expires=now + self.settings.validity,
        )

    # ---- to SIP ----

    def arrived(self, message: Message) -> None:
        """Show a text that is on disk to the script."""
        if message.id not in self._delivering and not self._stopped:
            self._delivering.add(message.id)
            self.user.launch(self._deliver(message))

    async def registered(self, user: str) -> None:
        """Somebody has registered: what waits for that SIP address goes out now."""
        for message in await self.spool.waiting_for(user, self.now()):
            self.arrived(message)

    def uri(self, user: str) -> str:
        """The SIP address of a number."""
        return f"sip:{user}@{self.settings.domain}"

    async def _deliver(self, message: Message) -> None:
        try:
            sender = message.sender or self.uri(message.source)
            receiver = message.receiver or self.uri(message.destination)
            for kind, body in self._bodies(message):
                status = await self.sip.message(receiver, sender, "", kind, body, message)
                if not 200 <= status < 300:
                    break
            if 200 <= status < 300:
                await self._reached(message)
            elif status in FINAL_REFUSALS:
                self.log(1, f"sms: {message.id} from {message.source} to {receiver}: {status}, it is not tried again")
                await self._ended(message, Receipt(message.id, "UNDELIV", str(status)))
            else:
                await self._later(message, receiver, status)
        except DatabaseError as error:
            self.log(-1, f"sms: what became of {message.id} could not be written, it may arrive twice: {error}")
        finally:
            self._delivering.discard(message.id)

    def _bodies(self, message: Message) -> list[tuple[str, bytes]]:
        """What the phone is sent: one MESSAGE, or one for each part where it wants RP-DATA."""
        kind = message.details.get("kind")
        if kind is not None:
            return [(kind, message.body)]
        if not self.settings.as_rp:
            return [content(message.text)]
        when = datetime.fromtimestamp(message.created, UTC)
        source = self.settings.numbers.to_smpp(message.source)
        bodies: list[tuple[str, bytes]] = []
        for part in cut(message.text, reference=hash(message.id), languages=self.settings.languages):
            self._rp_reference = (self._rp_reference + 1) & 0xFF
            more = part.number < part.total
            bodies.append((RP_DATA, rp.deliver(self._rp_reference, self.settings.number, source, part, when, more=more)))
        return bodies

    async def _reached(self, message: Message) -> None:
        self.counts["delivered"] += 1
        if message.details.get("client"):
            await self._ended(message, Receipt(message.id, "DELIVRD", "000"))
        else:
            await self.spool.update([], gone=[message])

    async def _later(self, message: Message, receiver: str, status: int) -> None:
        """Keep a text for a phone that is away."""
        delay = RETRIES[min(message.tries, len(RETRIES) - 1)]
        message.tries += 1
        message.due = self.now() + delay
        if not message.receiver:
            message.receiver = receiver
        self.log(3, f"sms: {message.id} from {message.source} to {receiver}: {status}, it waits")
        await self.spool.update([message])

    # ---- for people ----

    def links(self) -> list[dict[str, Any]]:
        """Each link and what goes on there."""
        found: list[dict[str, Any]] = []
        for name, esme in self.esmes.items():
            target = self.outbound.targets[name]
            found.append({
                "name": name, "role": "esme", "peer": f"{esme.smsc.host}:{esme.smsc.port}", "state": esme.state,
                "attempts": esme.attempts, "pending": esme.pending, "waiting": len(target.waiting) + len(target.ready),
                "sent": sum(link.sent for link in esme.links), "received": sum(link.received for link in esme.links),
                "throttled": esme.throttled,
            })
        if self.port is not None:
            for link, account in self.port.links.items():
                if account is not None:
                    found.append({
                        "name": account.system_id, "role": "smsc", "peer": link.peer, "state": link.session.state,
                        "pending": link.session.pending, "sent": link.sent, "received": link.received,
                    })
        return found


