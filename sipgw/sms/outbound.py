"""Messages on their way out: to SMSCs that we are bound to, and to ESMEs that are bound to us.

For each *target*, a link or a group of links, there is a line: messages that wait in memory (the spool has the others), then
those that are *ready*, noted on disk as being sent, then those whose parts are under way in the windows of the links. What an
SMSC answers decides what follows:

- taken: the part's name is kept for its receipt; when all parts are taken the message is done, or waits for receipts;
- "slower", "queue full": the part goes out again when the window opens;
- an error that may pass (``TEMPORARY``): the message waits, longer each time;
- any other error: it has failed, and whoever sent it is told;
- nothing, because the connection broke or the answer is late: it goes out again, and the log says that it may arrive twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from sipgw.db.errors import DatabaseError
from sipgw.sms.numbers import Address
from sipgw.sms.pdu import STATUS, STATUS_NAMES, TLV, Pdu, PduError
from sipgw.sms.session import Answered
from sipgw.sms.spool import Kind, Message, Part, Spool, State
from sipgw.sms.text import NotInAlphabet, cut

__all__ = ["Outbound", "Target", "Way"]

AHEAD: Final = 500
"""Messages of one line in memory."""
TEMPORARY: Final = frozenset(
    STATUS[name] for name in ("ESME_RSYSERR", "ESME_RX_T_APPN", "ESME_RSUBMITFAIL", "ESME_RINVBNDSTS", "ESME_RDELIVERYFAILURE")
)
TRIES: Final = 12
FIRST_DELAY, LONGEST_DELAY = 10, 3600
"""Seconds after which a message is tried again."""


class Way(Protocol):
    """A link by which messages can be sent."""

    @property
    def name(self) -> str:
        """Its name, as the script gives it."""

    @property
    def command(self) -> str:
        """``submit_sm`` to an SMSC, ``deliver_sm`` to an ESME."""

    @property
    def is_up(self) -> bool:
        """Whether it is bound."""

    @property
    def payload(self) -> bool:
        """Whether long texts go whole, in a ``message_payload``."""

    def room(self) -> int:
        """How many messages may be sent now."""

    def send(self, pdu: Pdu, token: Any) -> None:
        """Send one; the answer comes to ``Outbound.answered``."""


class Around(Protocol):
    """What is asked of the gateway."""

    spool: Spool

    def now(self) -> int:
        """Seconds from 1970."""

    def log(self, level: int, text: str) -> None:
        """Write a line."""

    def launch(self, coroutine: Any) -> None:
        """Run a coroutine beside everything else."""

    def after(self, seconds: float, call: Callable[[], Any]) -> Any:
        """Call later."""

    def addresses(self, message: Message) -> tuple[Address, Address]:
        """Source and destination as the link wants them."""

    async def sent(self, message: Message, parts: Sequence[Part]) -> None:
        """An SMSC has taken all parts."""

    async def failed(self, message: Message, state: str, error: str) -> None:
        """It will not arrive."""


class _Job:
    """A message of which parts are to be sent."""

    __slots__ = ("message", "open", "pdus", "taken", "total", "waits")

    def __init__(self, message: Message, pdus: list[Pdu]) -> None:
        self.message = message
        self.pdus: deque[tuple[int, Pdu]] = deque(enumerate(pdus, 1))
        self.total = len(pdus)
        self.open = 0
        """Parts under way."""
        self.taken: list[Part] = []
        self.waits: tuple[str, str] | None = None
        """Why it is to be tried later, or has failed: status and text."""


class Target:
    """One line. ``ways`` in the order of preference; ``shared``: whichever has most room goes first."""

    def __init__(self, name: str, kind: Kind, ways: Sequence[Way], *, shared: bool = False) -> None:
        self.name = name
        self.kind = kind
        self.ways = list(ways)
        self.shared = shared
        self.waiting: deque[Message] = deque()
        self.ready: deque[_Job] = deque()
        self.known: set[str] = set()
        """The ids of all its messages in memory, those under way included."""
        self.more = True
        """The spool may have messages that are not in memory."""
        self.over: set[str] | None = None
        """While the spool is being read: the ids of messages whose end has come meanwhile, which what is read may not know."""
        self.preparing = False
        self.unwritten = 0
        """Messages whose end is known here and not yet on disk: after a crash they would go out again. They count like messages
        under way, so that no more than the windows hold can ever be doubled."""
        self.sent = 0
        self.failed = 0

    def forget(self, id: str) -> None:
        """The message of that id is not in memory any more."""
        self.known.discard(id)
        if self.over is not None:
            self.over.add(id)

    def free(self) -> Iterator[Way]:
        """Ways with room, the next one each time."""
        while self.room() > 0:
            ways = [way for way in self.ways if way.is_up]
            if self.shared:
                ways.sort(key=lambda way: -way.room())
            way = next((way for way in ways if way.room() > 0), None)
            if way is None:
                return
            yield way

    def room(self) -> int:
        """How many parts may be sent now."""
        return sum(way.room() for way in self.ways if way.is_up) - self.unwritten


class Outbound:
    """All lines."""

    def __init__(self, around: Around) -> None:
        self.around = around
        self.targets: dict[str, Target] = {}
        self.doubtful = 0
        """Parts that were sent again without knowing whether they had arrived."""
        self.writing = 0
        """Messages whose end is being written."""
        self._reference = 0
        self._stopped = False

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True

    async def recover(self) -> None:
        """Take up what was under way when the process ended, which may arrive twice."""
        around = self.around
        for kind in (Kind.TO_MOBILE, Kind.TO_CLIENT):
            interrupted = await around.spool.all(kind, State.SENDING)
            for message in interrupted:
                message.state = State.WAITING
                around.log(1, f"sms: {message.id} to {message.destination} was being sent when sipgw ended: it may arrive twice")
            await around.spool.update(interrupted)

    def put(self, message: Message) -> None:
        """Send ``message``, which is on disk, when its turn comes."""
        target = self.targets.get(message.link)
        if target is None:
            return
        if target.more or len(target.waiting) >= AHEAD:
            target.more = True
        elif message.id not in target.known:
            target.waiting.append(message)
            target.known.add(message.id)
        self.push(target)

    def drop(self, id: str) -> None:
        """Do not send the message of that id, if it only waits."""
        for target in self.targets.values():
            for message in [message for message in target.waiting if message.id == id]:
                target.waiting.remove(message)
                target.forget(id)

    def push(self, target: Target) -> None:
        """Send what can be sent now."""
        if self._stopped:
            return
        while target.ready:
            job = target.ready[0]
            if not job.pdus:
                target.ready.popleft()
                continue
            way = next(target.free(), None)
            if way is None:
                break
            number, pdu = job.pdus.popleft()
            job.open += 1
            pdu.command = way.command
            try:
                way.send(pdu, (target, job, number, pdu, way.name))
            except PduError as error:
                job.open -= 1
                job.waits = "REJECTD", str(error)
                job.pdus.clear()
                self._close(target, job)
        if not target.preparing and target.room() > len(target.ready) and (target.waiting or target.more):
            target.preparing = True
            self.around.launch(self._prepare(target))

    def pushed_by(self, way: str) -> None:
        """There is room again on the link of that name."""
        for target in self.targets.values():
            if any(each.name == way for each in target.ways):
                self.push(target)

    async def _prepare(self, target: Target) -> None:
        """Make the next messages ready: cut, and noted as being sent."""
        around = self.around
        try:
            if target.more and len(target.waiting) < AHEAD // 2:
                await self._load(target)
            batch = [target.waiting.popleft() for _ in range(min(len(target.waiting), max(10, target.room())))]
            jobs: list[_Job] = []
            for message in batch:
                if message.expires <= around.now():
                    target.forget(message.id)
                    await around.failed(message, "EXPIRED", "")
                    continue
                try:
                    jobs.append(_Job(message, self._cut(message, target)))
                except (ValueError, NotInAlphabet) as error:
                    target.forget(message.id)
                    await around.failed(message, "REJECTD", str(error))
            for job in jobs:
                job.message.state = State.SENDING
            try:
                await around.spool.update([job.message for job in jobs])
            except DatabaseError as error:
                around.log(-1, f"sms: nothing is sent to {target.name} while the spool cannot be written: {error}")
                target.known.difference_update(job.message.id for job in jobs)
                target.more = True
                around.after(2, lambda: self.push(target))
                return
            target.ready.extend(jobs)
        finally:
            target.preparing = False
        if batch:
            self.push(target)

    async def _load(self, target: Target) -> None:
        around = self.around
        limit = AHEAD + len(target.known)
        over = target.over = set()
        try:
            found = await around.spool.due(target.kind, target.name, around.now(), limit)
        except DatabaseError as error:
            around.log(-1, f"sms: the spool cannot be read: {error}")
            around.after(2, lambda: self.push(target))
            return
        finally:
            target.over = None
        target.more = len(found) >= limit
        for message in found:
            if message.id not in target.known and message.id not in over:
                target.known.add(message.id)
                target.waiting.append(message)

    def _cut(self, message: Message, target: Target) -> list[Pdu]:
        """The PDUs of a message, their command still open."""
        source, destination = self.around.addresses(message)
        details = message.details
        values: dict[str, Any] = {
            "source_addr_ton": source.ton, "source_addr_npi": source.npi, "source_addr": source.digits,
            "dest_addr_ton": destination.ton, "dest_addr_npi": destination.npi, "destination_addr": destination.digits,
            "registered_delivery": int(bool(details.get("receipt"))), "esm_class": int(details.get("esm_class", 0)),
        }
        if "receipt_text" in details:
            values["short_message"] = str(details["receipt_text"]).encode("latin-1", "replace")
            tlvs = {TLV["receipted_message_id"]: str(details["receipted"]).encode("latin-1") + b"\0",
                    TLV["message_state"]: bytes((int(details["message_state"]),))}
            return [Pdu("deliver_sm", 0, 0, values, tlvs)]
        if "raw" in details:
            raw = {"data_coding": details["coding"], "short_message": bytes.fromhex(details["raw"])}
            return [Pdu("submit_sm", 0, 0, {**values, **raw})]
        self._reference = self._reference % 0xFFFF + 1
        parts = cut(message.text, reference=self._reference, languages=details.get("languages", ()), coding=details.get("coding"))
        if len(parts) > 1 and any(way.payload for way in target.ways):
            whole = b"".join(part.data[part.data[0] + 1 :] for part in parts)
            return [Pdu("submit_sm", 0, 0, {**values, "data_coding": parts[0].coding}, {TLV["message_payload"]: whole})]
        pdus = []
        for part in parts:
            each = {**values, "data_coding": part.coding, "short_message": part.data}
            if part.has_header:
                each["esm_class"] |= 0x40
            pdus.append(Pdu("submit_sm", 0, 0, each))
        return pdus

    # ---- what comes back ----

    def answered(self, answer: Answered) -> None:
        """Take the answer to a part."""
        target, job, number, pdu, way = answer.token
        job.open -= 1
        status = -1 if answer.pdu is None else answer.pdu.status
        if answer.pdu is None:
            self.doubtful += 1
            what = f"part {number} of {job.message.id} by {way}"
            self.around.log(1, f"sms: {what}: {answer.reason}; it goes again, and may arrive twice")
            self._again(target, job, number, pdu)
        elif answer.slow_down:
            self._again(target, job, number, pdu)
        elif status == 0:
            job.taken.append(Part(job.message.id, number, way, answer.pdu["message_id"]))
        else:
            error = STATUS_NAMES.get(status, f"0x{status:08X}")
            job.waits = ("" if status in TEMPORARY else "REJECTD"), error
            job.pdus.clear()
        self._close(target, job)

    def _again(self, target: Target, job: _Job, number: int, pdu: Pdu) -> None:
        if job.waits is not None:
            return
        job.pdus.appendleft((number, pdu))
        if job not in target.ready:
            target.ready.appendleft(job)

    def _close(self, target: Target, job: _Job) -> None:
        """End a job of which nothing is under way any more, and nothing is left to send."""
        if job.open or job.pdus:
            return
        self.around.launch(self._end(target, job))

    async def _end(self, target: Target, job: _Job) -> None:
        self.writing += 1
        target.unwritten += 1
        try:
            await self._ended(target, job)
        finally:
            self.writing -= 1
            target.unwritten -= 1
            self.push(target)

    async def _ended(self, target: Target, job: _Job) -> None:
        around, message = self.around, job.message
        target.forget(message.id)
        try:
            if job.waits is None:
                target.sent += 1
                await around.sent(message, job.taken)
                return
            state, error = job.waits
            if state or message.tries + 1 >= TRIES or job.taken:
                target.failed += 1
                await around.failed(message, state or "UNDELIV", error)
                return
            message.state = State.WAITING
            message.tries += 1
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (message.tries - 1))
            message.due = around.now() + delay
            around.log(2, f"sms: {message.id} to {message.destination}: {error}; tried again in {delay} s")
            await around.spool.update([message])
            around.after(delay + 1, lambda: self._wake(target))
        except DatabaseError as fault:
            around.log(-1, f"sms: what became of {message.id} could not be written, it may arrive twice: {fault}")

    def _wake(self, target: Target) -> None:
        target.more = True
        self.push(target)
