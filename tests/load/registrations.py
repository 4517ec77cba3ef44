"""Phones that register over UDP, many at a time, and remember what they were told: what an acknowledgement promises."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.children import HOST

AGAIN = 0.5
"""Seconds until an unanswered REGISTER is sent again."""


class Wish(NamedTuple):
    """One REGISTER: ``seconds`` 0 removes the contact."""

    user: str
    seconds: int
    more: str = ""


class Promise(NamedTuple):
    """What was acknowledged last: until when the contact is there, in seconds since 1970; 0: it is not there."""

    until: float


class Registrations:
    """Registers with the server at ``port``; ``domain`` is that of all users.

    ``promised`` is what was acknowledged, by user, ``open`` what was sent and not answered, ``statuses`` how often each came."""

    def __init__(self, port: int, domain: str = "example.org", in_flight: int = 32) -> None:
        self.domain = domain
        self.in_flight = in_flight
        self.promised: dict[str, Promise] = {}
        self.open: dict[int, tuple[Wish, float, bytes]] = {}
        self.statuses: dict[int, int] = {}
        self.longest = 0.0
        """The longest that an answer took, in seconds."""
        self._cseq = 0
        self._begun: dict[int, float] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.connect((HOST, port))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def contact(self, user: str) -> str:
        """The contact of a user."""
        return f"sip:{user}@{HOST}:{self.port}"

    def run(
        self, wishes: Sequence[Wish], until: Callable[[], bool] = lambda: False, patience: float = 20.0, rate: float = 0
    ) -> list[tuple[Wish, int]]:
        """Send ``wishes`` in order, as many at a time as may be, ``rate`` a second if that is not 0; what was answered to each.

        Ends when all are answered, or ``until`` says so; what is not answered then stays ``open``."""
        answered: list[tuple[Wish, int]] = []
        begin = time.monotonic()
        end = begin + patience
        sent = 0
        while (sent < len(wishes) or self.open) and not until():
            now = time.monotonic()
            if now > end:
                raise AssertionError(f"{len(self.open)} REGISTERs are not answered: {self.statuses}")
            while sent < len(wishes) and len(self.open) < self.in_flight and (not rate or sent < (now - begin) * rate):
                self._send(wishes[sent])
                sent += 1
            select.select([self._socket], [], [], 0.005)
            self._receive(answered)
            for cseq, (wish, at, data) in list(self.open.items()):
                if now - at > AGAIN:
                    self.open[cseq] = (wish, now, data)
                    self._transmit(data)
        return answered

    def _send(self, wish: Wish) -> None:
        self._cseq += 1
        cseq, user = self._cseq, wish.user
        uri = f"sip:{user}@{self.domain}"
        data = (
            f"REGISTER sip:{self.domain} SIP/2.0\r\nVia: SIP/2.0/UDP {HOST}:{self.port};branch=z9hG4bKr{cseq}p{self.port}\r\n"
            f"Max-Forwards: 70\r\nFrom: <{uri}>;tag={cseq}\r\nTo: <{uri}>\r\nCall-ID: {cseq}@{self.port}\r\n"
            f"CSeq: {cseq} REGISTER\r\nContact: <{self.contact(user)}>;expires={wish.seconds}\r\n{wish.more}"
            "Content-Length: 0\r\n\r\n"
        ).encode()
        now = time.monotonic()
        self.open[cseq] = (wish, now, data)
        self._begun[cseq] = now
        self._transmit(data)

    def _transmit(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except (BlockingIOError, ConnectionRefusedError):
            pass  # it is sent again

    def _receive(self, answered: list[tuple[Wish, int]]) -> None:
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue
            status = int(data[8:11])
            if status < 200:
                continue
            cseq = int(data.partition(b"\r\nCSeq: ")[2].split()[0])
            found = self.open.pop(cseq, None)
            if found is None:
                continue
            wish = found[0]
            self.longest = max(self.longest, time.monotonic() - self._begun.pop(cseq))
            self.statuses[status] = self.statuses.get(status, 0) + 1
            answered.append((wish, status))
            if status == 200:
                self.promised[wish.user] = Promise(time.time() + self._granted(data, wish) if wish.seconds else 0)

    def _granted(self, data: bytes, wish: Wish) -> int:
        """The seconds that an answer gives the contact; it must be there."""
        contact = f"<{self.contact(wish.user)}>;expires=".encode()
        _, there, rest = data.partition(contact)
        if not there:
            raise AssertionError(f"the contact is not in the answer: {data!r}")
        return int(rest.replace(b"\r", b",").replace(b";", b",").split(b",")[0])

    def broken(self, there: dict[str, tuple[str, float]]) -> list[str]:
        """The promises that ``there`` (the contact and its end of each user) does not keep; users of whom something is ``open``
        may be either way."""
        unknown = {wish.user for wish, _, _ in self.open.values()}
        wrong = []
        for user, promise in self.promised.items():
            if user in unknown:
                continue
            contact, until = there.get(user, ("", 0))
            if promise.until:
                # the answer was on its way while the seconds ran
                if contact != self.contact(user) or until < promise.until - 2:
                    wrong.append(f"{user}: promised until {promise.until:.0f}, is {contact or 'not there'} until {until:.0f}")
            elif contact:
                wrong.append(f"{user}: is there although its removal was acknowledged")
        return wrong
