"""``trace``: the messages of chosen calls, live in the shell as a ladder, and as a file for Wireshark.

A call is all that has a key in common with it (``tap.py``): its legs through the server, back to back and hidden ones too, and
the stanzas and PDUs by which a text goes on, or came. What passed just before its call was known is drawn when it is."""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from sipgw.manhole.ladder import Ladder, ladder
from sipgw.manhole.pcap import pcap
from sipgw.manhole.tap import Seen, Tap
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response
from sipgw.sip.uri import Uri

MAX_CALLS = 1000
"""Calls that are followed at a time."""
MOST_KEYS = 4 * MAX_CALLS
"""What these are known by."""
MOST_RECENT = 300
RECENT = 30.0
"""How much of what is not SIP is remembered, for a call that it may turn out to belong to; seconds."""
MAX_MESSAGES = 10_000
MAX_OCTETS = 32 << 20
"""What is kept of them."""
Test = Callable[[Any], Any]


@dataclass(frozen=True)
class Conditions:
    """Which messages are meant; all that are given must hold."""

    where: Test | None = None
    caller: str = ""
    callee: str = ""
    call_id: str = ""
    ip: str = ""
    method: str = ""

    def fit(self, message: Request | Response, host: str) -> bool:
        """Whether a message of, or to, the peer ``host`` is meant; ``MalformedMessage`` if it cannot be read."""
        return bool(
            (not self.call_id or message.call_id == self.call_id)
            and (not self.ip or host.strip("[]") == self.ip.strip("[]"))
            and (not self.method or message.method == self.method.upper())
            and (not self.caller or _is(message.from_.uri_text, self.caller))
            and (not self.callee or _is(message.to.uri_text, self.callee) or _is(_target(message), self.callee))
            and (self.where is None or self.where(message))
        )

    def __str__(self) -> str:
        given = [f"{each.name}={getattr(self, each.name)!r}" for each in fields(self)[1:] if getattr(self, each.name)]
        return ", ".join(["a function"] * (self.where is not None) + given) or "everything"


class Trace:
    """Shows the messages of each call of which one message fits, on all its legs: also XMPP and SMPP.

    trace(caller="1000")           the From user: 1000, 1000@example.org
    trace(callee="1001")           the user of To or of the Request-URI
    trace(ip="192.0.2.1")          where it comes from or goes to
    trace(call_id="x"), trace(method="REGISTER")
    trace(lambda message: "Foo" in message.header("User-Agent"))
    trace()                        everything
    trace.save("x.pcap")           what SIP has been seen so far, for Wireshark
    trace.ladder(), trace.messages, trace.stop()

    Several conditions must all hold. A new call of trace begins anew."""

    def __init__(self, tap: Tap, tell: Callable[[str], None]) -> None:
        self._tap = tap
        self._tell = tell
        self._conditions = Conditions()
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._calls: set[str] = set()
        self._recent: deque[Seen] = deque(maxlen=MOST_RECENT)
        self._ladder = Ladder()
        self._on = False
        self._what = ""
        self._octets = 0
        self.messages: deque[Seen] = deque()

    def __call__(
        self,
        where: Test | None = None,
        *,
        caller: str = "",
        callee: str = "",
        call_id: str = "",
        ip: str = "",
        method: str = "",
    ) -> Trace:
        """Begin."""
        self.stop()
        self.messages.clear()
        self._keys.clear()
        self._calls.clear()
        self._recent.clear()
        self._octets = 0
        self._ladder = Ladder()
        self._conditions = Conditions(where, caller, callee, call_id, ip, method)
        self._what = str(self._conditions)
        self._on = True
        self._tap.listen(self._seen)
        return self

    def stop(self) -> None:
        """Look no more; what has been seen is kept."""
        if self._on:
            self._on = False
            self._tap.leave(self._seen)

    def save(self, file: str) -> str:
        """Write what has been seen to a pcap file, which only its owner can read."""
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as made:
            made.writelines(pcap(seen for seen in self.messages if seen.message is not None))
        others = sum(seen.message is None for seen in self.messages)
        left_out = f"; {others} of XMPP or SMPP are not in it, a ladder shows them" if others else ""
        return f"{len(self.messages) - others} messages in {os.path.abspath(file)}{left_out}"

    def ladder(self) -> None:
        """Show again what has been seen."""
        self._tell(ladder(self.messages) or "(no messages)")

    def __repr__(self) -> str:
        state = "tracing" if self._on else "not tracing any more"
        if not self._what:
            return "trace(caller=\"1000\") begins; help(trace) tells more"
        return f"{state} {self._what}: {len(self._calls)} calls, {len(self.messages)} messages; trace.stop() ends it"

    def _seen(self, seen: Seen) -> None:
        if not self._belongs(seen):
            if seen.message is None:
                self._recent.append(seen)
            return
        self._know(seen)
        for earlier in self._found(seen.time):
            self._keep(earlier)
        if not seen.inner:
            self._keep(seen)

    def _belongs(self, seen: Seen) -> bool:
        """Whether something is of a call that is shown, or begins one that is to be."""
        if not self._keys.keys().isdisjoint(seen.keys):
            return True
        if seen.message is None:
            return False
        try:
            return self._conditions.fit(seen.message, seen.peer[0])
        except MalformedMessage:
            return False
        except Exception as error:
            self.stop()
            self._tell(f"trace: the condition fails, and is not asked any more: {type(error).__name__}: {error}")
            return False

    def _know(self, seen: Seen) -> None:
        """Know all by what it belongs to from now on."""
        for key in seen.keys:
            self._keys[key] = None
            self._keys.move_to_end(key)
        while len(self._keys) > MOST_KEYS:
            self._keys.popitem(last=False)
        if seen.message is not None and not seen.inner and len(self._calls) < MAX_CALLS:
            self._calls.add(seen.message.header("call-id") or "")

    def _found(self, now: float) -> list[Seen]:
        """What is not SIP, came before, and turns out to belong to it, in order."""
        found: list[Seen] = []
        again = True
        while again:
            again = False
            for each in tuple(self._recent):
                if now - each.time > RECENT:
                    self._recent.remove(each)
                elif not self._keys.keys().isdisjoint(each.keys):
                    self._recent.remove(each)
                    self._know(each)
                    found.append(each)
                    again = True
        return sorted(found, key=lambda each: each.time)

    def _keep(self, seen: Seen) -> None:
        """Keep a message, and show it."""
        self.messages.append(seen)
        self._octets += len(seen.data)
        while len(self.messages) > MAX_MESSAGES or self._octets > MAX_OCTETS:
            self._octets -= len(self.messages.popleft().data)
        self._tell("\n".join(self._ladder.draw(seen)))


def _is(uri: str, wanted: str) -> bool:
    """Whether ``wanted`` is the user of a URI, with its host or without, or the whole URI."""
    found = Uri.parse(uri)
    return wanted in (found.user or "", f"{found.user or ''}@{found.host}", uri)


def _target(message: Request | Response) -> str:
    return message.uri if isinstance(message, Request) else message.to.uri_text
