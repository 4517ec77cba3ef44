"""Who watches whom across the gateway (RFC 8048). Pure.

*Watched*: Jabber users whose presence phones have asked for. Each pair of a SIP user and a Jabber user is a subscription in
Jabber, which its user approves or not; it stays when a phone goes, so that nobody is asked twice.

*Watchers*: Jabber users who want to see a SIP user: see ``watchers.py``."""

from __future__ import annotations

from typing import Final, Protocol

from sipgw.sip.pidf import Tuple
from sipgw.xmpp import watchers
from sipgw.xmpp.address import Jid
from sipgw.xmpp.presence import to_tuple
from sipgw.xmpp.stanza import Element, stanza
from sipgw.xmpp.watchers import Pair, Rules, Watchers

__all__ = ["Doors", "Pair", "Roster", "Rules"]

DEVICES: Final = 20
"""Of one Jabber user, at most."""
MOST: Final = 50_000
"""Pairs."""


class Doors(watchers.Doors, Protocol):
    """What the roster tells."""

    def changed(self, pair: Pair) -> None:
        """What is known of a watched Jabber user has changed."""

    def settle(self, domain: str) -> None:
        """Call ``settled`` in a moment: a server that has come back is telling who is there."""


class _Watched:
    __slots__ = ("devices", "settled", "state")

    def __init__(self) -> None:
        self.state = "pending"
        self.devices: dict[str, Tuple] = {}
        self.settled = True
        """What there is to be told has been told."""


class Roster:
    """The pairs, and the ``watchers``."""

    def __init__(self, doors: Doors, rules: Rules | None = None) -> None:
        self.doors = doors
        self.watchers = Watchers(doors, rules or Rules())
        self.watched: dict[Pair, _Watched] = {}

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

    def up(self, domain: str, peer: str = "") -> None:
        """The server is there again: ask and tell all anew; those of ``peer`` only, if it is not empty."""
        asked = False
        for pair, found in self.watched.items():
            if pair.sip.domain == domain and peer in ("", pair.jabber.domain):
                found.devices.clear()
                found.settled = False
                self.watch(pair)
                asked = True
        if asked:
            self.doors.settle(domain)
        self.watchers.up(domain, peer)

    def settled(self, domain: str) -> None:
        """A moment has passed since the server came back: who has not been heard of is not there."""
        for pair, found in self.watched.items():
            if pair.sip.domain == domain and not found.settled:
                found.settled = True
                self.doors.changed(pair)

    def down(self, domain: str, peer: str = "") -> None:
        """The server is gone: nobody knows of anybody, or of anybody of ``peer``."""
        self.watchers.down(domain, peer)
        for pair, found in self.watched.items():
            if pair.sip.domain == domain and peer in ("", pair.jabber.domain) and found.devices:
                found.devices.clear()
                self.doors.changed(pair)

    def leave(self) -> None:
        """We leave: nobody is here any more."""
        self.watchers.leave()

    # ---- what Jabber says ----

    def came(self, element: Element, sender: Jid, receiver: Jid) -> None:
        """Take a presence stanza."""
        kind = element.get("type", "")
        pair = Pair(receiver.bare, sender.bare)
        if kind in ("subscribe", "unsubscribe", "probe"):
            self.watchers.came(kind, element, pair)
            return
        found = self.watched.get(pair)
        if found is None:
            return
        if kind == "subscribed":
            found.state = "active"
            self.doors.say(stanza("presence", pair.sip, pair.jabber, type="probe"))
            if not found.settled:
                return  # whose answer follows
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
        found.settled = True
        self.doors.changed(pair)
