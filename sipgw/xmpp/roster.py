"""Who watches whom across the gateway (RFC 8048).

*Watched*: Jabber users whose presence phones have asked for. Each pair of a SIP user and a Jabber user is a subscription in
Jabber, which its user approves or not; it stays when a phone goes, so that nobody is asked twice.

*Watchers*: Jabber users who want to see a SIP user. Whoever asks is let in, where the operator has switched that on, and is told
whether a phone is registered: there is nothing else to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from sipgw.sip.pidf import Tuple
from sipgw.xmpp.address import Jid
from sipgw.xmpp.presence import to_presence, to_tuple
from sipgw.xmpp.stanza import Element, error_to, stanza

__all__ = ["Pair", "Roster"]

RESOURCE: Final = "sip"
"""Of the Jabber ID under which phones are shown."""
DEVICES: Final = 20
"""Of one Jabber user, at most."""
MOST: Final = 50_000
"""Pairs of either kind."""


class Pair(NamedTuple):
    """A SIP user and a Jabber user, both without resources."""

    sip: Jid
    jabber: Jid


class Doors(Protocol):
    """What the roster tells."""

    def say(self, element: Element) -> None:
        """Send a stanza."""

    def changed(self, pair: Pair) -> None:
        """What is known of a watched Jabber user has changed."""

    def watching(self, pair: Pair, on: bool) -> None:
        """A Jabber user watches a SIP user from now on, or no more."""


class _Watched:
    __slots__ = ("devices", "state")

    def __init__(self) -> None:
        self.state = "pending"
        self.devices: dict[str, Tuple] = {}


class Roster:
    """The pairs. ``registered(jid)`` tells whether a SIP user has a phone; None: phones are not shown."""

    def __init__(self, doors: Doors, registered: Callable[[Jid], bool] | None = None) -> None:
        self.doors = doors
        self.registered = registered
        self.watchers: dict[Jid, set[Jid]] = {}
        self.watched: dict[Pair, _Watched] = {}
        self._count = 0

    # ---- SIP watches Jabber ----

    def watch(self, pair: Pair) -> None:
        """Ask to see a Jabber user, or for what there is to see now."""
        found = self.watched.get(pair)
        if found is None:
            if len(self.watched) >= MOST:
                return
            found = self.watched[pair] = _Watched()
        # a probe without approval would be answered "unsubscribed" (RFC 6121 4.3.2)
        kind = "probe" if found.state == "active" else "subscribe"
        self.doors.say(stanza("presence", pair.sip, pair.jabber, type=kind))

    def unwatch(self, pair: Pair) -> None:
        """Nobody wants to see it at the moment."""
        self.watched.pop(pair, None)

    def seen(self, pair: Pair) -> tuple[str, list[Tuple]]:
        """The state of a pair, "pending", "active" or "rejected", and the devices, that with the highest priority first."""
        found = self.watched.get(pair)
        if found is None:
            return "pending", []
        devices = sorted(found.devices.values(), key=lambda each: -(each.priority or 0))
        return found.state, devices if found.state == "active" else []

    # ---- Jabber watches SIP ----

    def admit(self, pair: Pair) -> None:
        """Let a Jabber user watch a SIP user."""
        watchers = self.watchers.setdefault(pair.sip, set())
        self._count += pair.jabber not in watchers
        watchers.add(pair.jabber)

    def tell(self, sip: Jid) -> None:
        """A SIP user has got a phone, or lost the last one."""
        for jabber in self.watchers.get(sip, ()):
            self._show(sip, jabber)

    def _show(self, sip: Jid, jabber: Jid, gone: bool = False) -> None:
        here = not gone and self.registered is not None and self.registered(sip)
        self.doors.say(to_presence(Tuple(RESOURCE, here), Jid(sip.local, sip.domain, RESOURCE), jabber))

    def up(self, domain: str, peer: str = "") -> None:
        """The server is there again: ask and tell all anew; those of ``peer`` only, if it is not empty."""
        for pair, found in self.watched.items():
            if pair.sip.domain == domain and peer in ("", pair.jabber.domain):
                found.devices.clear()
                self.watch(pair)
                self.doors.changed(pair)
        for sip, watchers in self.watchers.items():
            for jabber in watchers:
                if sip.domain == domain and peer in ("", jabber.domain):
                    self._show(sip, jabber)

    def down(self, domain: str, peer: str = "") -> None:
        """The server is gone: nobody knows of anybody, or of anybody of ``peer``."""
        for pair, found in self.watched.items():
            if pair.sip.domain == domain and peer in ("", pair.jabber.domain) and found.devices:
                found.devices.clear()
                self.doors.changed(pair)

    def leave(self) -> None:
        """We leave: nobody is here any more."""
        for sip, watchers in self.watchers.items():
            for jabber in watchers:
                self._show(sip, jabber, gone=True)

    # ---- what Jabber says ----

    def came(self, element: Element, sender: Jid, receiver: Jid) -> None:
        """Take a presence stanza."""
        kind = element.get("type", "")
        pair = Pair(receiver.bare, sender.bare)
        if kind in ("subscribe", "unsubscribe", "probe"):
            self._asked(kind, element, pair)
            return
        found = self.watched.get(pair)
        if found is None:
            return
        if kind == "subscribed":
            found.state = "active"
            self.doors.say(stanza("presence", pair.sip, pair.jabber, type="probe"))
        elif kind == "unsubscribed" or (kind == "error" and found.state == "pending"):
            found.state = "rejected"
            found.devices.clear()
        else:
            device = to_tuple(element, sender)
            if device is None:
                return
            found.state = "active"
            if device.open and (len(found.devices) < DEVICES or sender.resource in found.devices):
                found.devices[sender.resource] = device
            elif not device.open and sender.resource:
                found.devices.pop(sender.resource, None)
            elif not device.open:
                found.devices.clear()
        self.doors.changed(pair)

    def _asked(self, kind: str, element: Element, pair: Pair) -> None:
        sip, jabber = pair
        watchers = self.watchers.get(sip, set())
        if self.registered is None:
            if kind == "subscribe":
                error = error_to(element, 501)
                if error is not None:
                    self.doors.say(error)
        elif kind == "unsubscribe":
            if jabber in watchers:
                watchers.discard(jabber)
                self._count -= 1
                self.doors.watching(pair, False)
                if not watchers:
                    self.watchers.pop(sip, None)
            self.doors.say(stanza("presence", sip, jabber, type="unsubscribed"))
        else:
            if jabber not in watchers:
                if self._count >= MOST:
                    return
                self.admit(pair)
                self.doors.watching(pair, True)
            if kind == "subscribe":
                self.doors.say(stanza("presence", sip, jabber, type="subscribed"))
            self._show(sip, jabber)
