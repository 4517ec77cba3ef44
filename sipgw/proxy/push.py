"""Push notifications (RFC 8599), as far as a registrar has to do with them: which contacts sleep, and what they are told.

A phone that can be woken says in its Contact URI how: ``pn-provider``, ``pn-prid`` and ``pn-param``. ``Push.read`` finds out
what a contact asks for; ``capabilities`` is the answer (Feature-Caps, RFC 6809). Whatever wakes the phone is up to the script,
which is told by the event E_UL_CONTACT_REFRESH; the phone answers with a REGISTER, and ``Waiting`` knows who waited for that.

A *PURR* (5.6.1.2) is a name for one registration, which the phone may put into the Contact of its dialogs, so that whoever sends
a request within a dialog wakes it first."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from sipgw.proxy.location import Binding
from sipgw.proxy.register import Rejected
from sipgw.proxy.sealed import Seal
from sipgw.sip.address import parse_list, parse_params
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import unquote
from sipgw.sip.message import Message
from sipgw.sip.uri import Uri

__all__ = ["PN_CONTACT", "Push", "Waiting", "Wish", "sleeps"]

PN_CONTACT: Final = 4
"""The bit in ``Binding.marks`` of a contact that has to be woken (OpenSIPS shows it in "Flags")."""
STANDARD: Final = ("pn-provider", "pn-prid", "pn-param")
"""The parameters of RFC 8599 4.1, which nobody else needs to see."""
MOST_WAITING: Final = 1000
"""How many requests may wait for one phone."""


class Kind(enum.Enum):
    """What a contact wants of push notifications."""

    NOTHING = 0
    ASKS = 1
    """To know which services there are (4.1.2, a query)."""
    ELSEWHERE = 2
    """To be woken by another proxy, nearer to it."""
    SLEEPS = 3
    """To be woken by us."""


class Wish(NamedTuple):
    """What one contact wants: of ``provider`` ("": of all there are). ``key``: what it is recognised by, None as any other."""

    kind: Kind
    provider: str
    key: tuple[str, ...] | None


NOTHING: Final = Wish(Kind.NOTHING, "", None)


@dataclass(frozen=True)
class Push:
    """The push notification services that the script wakes phones by, and how; seconds."""

    providers: tuple[str, ...]
    match: tuple[str, ...] = STANDARD
    """The parameters by which a contact is recognised, whatever its address has become."""
    pnsreg_interval: int = 130
    trigger_interval: int = 120
    skip_interval: int = 0
    purrs: Seal | None = None

    def read(self, request: Message, text: str) -> Wish:
        """What the contact URI ``text`` of ``request`` asks for; 555 for a service that we do not have (RFC 8599 5.6.1.1)."""
        if "pn-provider" not in text.lower():
            return NOTHING
        uri = Uri.parse(text)
        provider = uri.param("pn-provider")
        if provider is None:
            return NOTHING
        key = self.key(uri)
        if provider in served(request):
            return Wish(Kind.ELSEWHERE, provider, key)
        if not provider:
            return Wish(Kind.ASKS, "", None)
        if provider in self.providers:
            if key is not None:
                return Wish(Kind.SLEEPS, provider, key)
            if all(uri.param(name) is None for name in self.match if name != "pn-provider"):
                return Wish(Kind.ASKS, provider, None)
        error = "Push Notification Service Not Supported"
        raise Rejected(555, error, error)

    def key(self, uri: Uri) -> tuple[str, ...] | None:
        """The values of the parameters that a contact is recognised by; None if one is missing."""
        values = tuple(value for name in self.match if (value := uri.param(name)) is not None)
        return values if len(values) == len(self.match) else None

    def bare(self, contact: str) -> str:
        """A contact URI as others may see it, without the parameters of its push notification service."""
        hidden = {*STANDARD, *self.match}
        uri = Uri.parse(contact)
        kept = [part for part in uri.params.split(";") if part.partition("=")[0].lower() not in hidden]
        return uri.with_params(";".join(kept)).text

    def awake(self, binding: Binding, now: float) -> bool:
        """Whether a request can be sent to ``binding`` as it is, because it is no sleeper or has just registered."""
        return not sleeps(binding) or now - binding.modified < self.skip_interval

    def capabilities(self, wishes: Iterable[tuple[Wish, Binding | None]]) -> str:
        """The Feature-Caps lines that answer ``wishes``; each with its binding, if that is there now."""
        lines: dict[str, None] = {}
        for wish, binding in wishes:
            if wish.kind is Kind.ASKS:
                for provider in (wish.provider,) if wish.provider else self.providers:
                    lines[f'Feature-Caps: *;+sip.pns="{provider}"\r\n'] = None
            elif wish.kind is Kind.SLEEPS:
                line = f'Feature-Caps: *;+sip.pns="{wish.provider}";+sip.pnsreg="{self.pnsreg_interval}"'
                if self.purrs is not None and binding is not None:
                    line += f';+sip.pnspurr="{self.purrs.close(_named(binding))}"'
                lines[line + "\r\n"] = None
        return "".join(lines)

    def user_of(self, purr: str) -> tuple[str, int] | None:
        """The address-of-record and the binding's serial that a PURR of ours names; None if it is none."""
        octets = None if self.purrs is None else self.purrs.open(purr)
        if octets is None:
            return None
        return octets[8:].decode("utf-8", "surrogateescape"), int.from_bytes(octets[:8], "big")


def _named(binding: Binding) -> bytes:
    return binding.serial.to_bytes(8, "big") + binding.aor.encode("utf-8", "surrogateescape")


def sleeps(binding: Binding) -> bool:
    """Whether ``binding`` has to be woken before a request is sent to it."""
    return bool(binding.marks & PN_CONTACT)


def served(request: Message) -> list[str]:
    """The services that proxies nearer to the phone take care of (RFC 8599 5.6.1.1): +sip.pns in Feature-Caps."""
    if "feature-caps" not in request.names:
        return []
    found = []
    for line in request.headers("feature-caps"):
        for value in parse_list(line):
            # COMPAT: OpenSIPS leaves out the "*;" that RFC 6809 wants
            params = value.strip(" \t").removeprefix("*").lstrip(" \t;")
            try:
                name = parse_params(f";{params}").get("+sip.pns")
            except MalformedMessage:
                continue
            if name:
                found.append(unquote(name))
    return found


def purr_in(uri: Uri) -> str | None:
    """The PURR in a URI."""
    return uri.param("pn-purr") or None


class Waiting:
    """Who waits for which phones to register; each is called once, and knows itself when it has waited long enough."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str, tuple[str, ...]], list[Callable[[Binding], None]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._calls.values()))

    def add(self, place: tuple[str, str, tuple[str, ...]], call: Callable[[Binding], None]) -> bool:
        """Call ``call`` when the phone at ``place`` (table, address-of-record, key) registers; False if too many wait."""
        calls = self._calls.setdefault(place, [])
        if len(calls) >= MOST_WAITING:
            return False
        calls.append(call)
        return True

    def forget(self, place: tuple[str, str, tuple[str, ...]], call: Callable[[Binding], None]) -> None:
        """Do not call ``call`` any more; harmless when it has been called."""
        calls = self._calls.get(place)
        if calls is not None and call in calls:
            calls.remove(call)
            if not calls:
                del self._calls[place]

    def registered(self, place: tuple[str, str, tuple[str, ...]]) -> list[Callable[[Binding], None]]:
        """Take out those who wait for the phone at ``place``."""
        return self._calls.pop(place, [])
