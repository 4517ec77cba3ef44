"""Records of calls as accounting requests to an AAA server (RADIUS).

No call waits for them. A request that no server has answered is sent again, after 1 s, 2 s, 4 s, at most every 30 s; ``LIMIT`` of
them are kept at most, and what is given up is logged with all that it says. Event-Timestamp says when it happened. A server may
get one twice, if its answer was lost: it knows the call by Acct-Session-Id."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from sipgw.aaa import Aaa, AaaError
from sipgw.proxy.account_backends import Fields
from sipgw.proxy.accounting import ENDED, Account, Record

LIMIT = 10_000
AT_ONCE = 64
"""Requests that may be under way."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
START, STOP, ALIVE, FAILED = 1, 2, 3, 15
"""Acct-Status-Type."""
SIP_SESSION = 15
METHODS = {
    name: 1 << number
    for number, name in enumerate(
        "INVITE CANCEL ACK BYE INFO OPTIONS UPDATE REGISTER MESSAGE SUBSCRIBE NOTIFY PRACK REFER".split()
    )
}
OTHER = 8192
"""Sip-Method."""
NAMES = (
    "Acct-Status-Type Service-Type Sip-Response-Code Sip-Method Event-Timestamp Sip-From-Tag Sip-To-Tag Acct-Session-Id"
    " Sip-Call-Duration Sip-Call-MSDuration Sip-Call-Setuptime Sip-Call-Created"
).split()

Pairs = Sequence[tuple[str, int | str]]


class Around(Protocol):
    """What is asked of the transaction user."""

    def log_rarely(self, key: object, level: int, text: str) -> None:
        """Log a line, not too often."""

    def after(self, seconds: float, call: Callable[[float], None]) -> Any:
        """Call later."""

    def launch(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine beside everything else."""


class AaaRecords:
    """Sends an accounting request for each record (``accounting.Backend``); ``lost`` takes the text of what is given up."""

    def __init__(self, fields: Fields, aaa: Aaa, user: Around, service: int, lost: Callable[[str], None]) -> None:
        self.fields = fields
        self._aaa = aaa
        self._user = user
        self._service = service
        self._lost = lost
        self._waiting: deque[Pairs] = deque()
        self._under_way: list[Pairs] = []
        self._delay = 0.0
        self._timer: Any = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way)

    def check(self) -> None:
        """``AaaError`` if the dictionary does not have all names."""
        self._aaa.check([*NAMES, *self.fields.extra.values(), *self.fields.leg.values()])

    def write(self, record: Record, account: Account | None, table: str) -> None:
        """Send the request soon."""
        pairs = self.attributes(record, account)
        if self._closed or len(self) >= LIMIT:
            self._give_up(pairs, "the server stops" if self._closed else f"{LIMIT} others wait")
            return
        self._waiting.append(pairs)
        self._go_on()

    def close(self) -> None:
        """Take no more; what was not answered is given up."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for pairs in (*self._under_way, *self._waiting):
            self._give_up(pairs, "the server stops")
        self._waiting.clear()
        self._under_way.clear()

    def attributes(self, record: Record, account: Account | None) -> list[tuple[str, int | str]]:
        """What is said of ``record``."""
        made: list[tuple[str, int | str]] = [
            ("Acct-Status-Type", status_of(record)),
            ("Service-Type", self._service),
            ("Sip-Response-Code", int(record.code or 0)),
            ("Sip-Method", METHODS.get(record.method, OTHER)),
            ("Event-Timestamp", int(record.time)),
        ]
        texts = [("Sip-From-Tag", record.from_tag), ("Sip-To-Tag", record.to_tag), ("Acct-Session-Id", record.call_id)]
        if record.event == ENDED:
            made += [("Sip-Call-Duration", record.duration), ("Sip-Call-MSDuration", record.ms_duration)]
        if account is not None:
            made += [("Sip-Call-Setuptime", record.setup_time), ("Sip-Call-Created", int(record.created))]
        texts += [(name, str(value)) for name, value in self.fields.line(account) if value is not None]
        return made + [(name, text) for name, text in texts if text]

    # -- on the way

    def _go_on(self) -> None:
        while self._waiting and len(self._under_way) < (1 if self._delay else AT_ONCE) and self._timer is None:
            pairs = self._waiting.popleft()
            self._under_way.append(pairs)
            self._user.launch(self._send(pairs))

    async def _send(self, pairs: Pairs) -> None:
        try:
            await self._aaa.account(pairs)
        except AaaError as error:
            if self._closed:
                return
            self._under_way.remove(pairs)
            self._waiting.append(pairs)
            self._user.log_rarely("acc aaa", -1, f"acc: {error}; {len(self)} records wait for it")
            if self._timer is None:
                self._delay = min(2 * self._delay or FIRST_DELAY, LONGEST_DELAY)
                self._timer = self._user.after(self._delay, self._again)
            return
        if self._closed:
            return
        self._under_way.remove(pairs)
        self._delay = 0.0
        self._go_on()

    def _again(self, _now: float) -> None:
        self._timer = None
        self._go_on()

    def _give_up(self, pairs: Pairs, reason: str) -> None:
        self._lost(f"ACC: not accounted: {';'.join(f'{name}={value}' for name, value in pairs)} ({reason})")


def status_of(record: Record) -> int:
    """Acct-Status-Type: a call begins, ends, goes on, or nothing came of it."""
    if record.event == ENDED or record.method in ("BYE", "CANCEL"):
        return STOP
    if record.within:
        return ALIVE
    return START if record.method == "INVITE" and record.code[:1] == "2" else FAILED
