"""Which addresses send too much: a tree of the octets of addresses, IPv4 and IPv6 side by side. Pure: ``now`` is passed in.

The tree grows with what is heard (OpenSIPS's pike). A node counts in periods of ``unit`` seconds, this one and the one before;
a node gets a child once it has been hit a quarter of ``density`` times in one of the two, so that many single addresses cost
little. Where a whole address stands in the tree its own hits count: ``density`` of them in one period, and it floods until its
first period with the one before it that has fewer. What nobody hits for ``latency`` seconds is forgotten.

COMPAT: how many packets that takes is OpenSIPS's to the packet (its tree, asked with densities from 1 to 30). Unlike there no
timer walks over the tree: a node knows of which period its counts are. And there are at most ``MAX_NODES``; beyond them those
that were hit longest ago make room, so that forged addresses cost no more memory than that."""

from __future__ import annotations

from collections import OrderedDict

MAX_NODES = 100_000
"""How many nodes a tree has (hardening P27): 200 to 400 octets each."""

CALM, FLOODS, BEGINS = 1, -1, -2
"""What a hit finds: nothing, a flood, a flood that begins with it."""


class _Node:
    """One octet, below those of ``parent``."""

    __slots__ = ("address", "before", "blocked", "children", "expires", "hits", "parent", "period")

    def __init__(self, address: bytes, parent: _Node | None, period: int, hits: int) -> None:
        self.address = address
        self.parent = parent
        self.children: dict[int, _Node] = {}
        self.period = period
        self.hits = hits
        self.before = 0
        """The hits of the period before ``period``."""
        self.blocked = False
        self.expires = 0.0

    def move(self, period: int) -> None:
        """Let time pass up to ``period``."""
        if period != self.period:
            self.before = self.hits if period == self.period + 1 else 0
            self.hits = 0
            self.period = period


class FloodTree:
    """All addresses that were heard lately. ``density``: hits that flood; ``unit``, ``latency``: seconds."""

    def __init__(self, density: int, unit: float, latency: float, size: int = MAX_NODES) -> None:
        self._density = density
        self._unit = unit
        self._latency = latency
        self._size = size
        self._roots: dict[int, _Node] = {}
        self._count = 0
        self._idle: OrderedDict[bytes, _Node] = OrderedDict()
        """The nodes without children, those first that were hit longest ago."""
        self._blocked: dict[bytes, _Node] = {}

    def __len__(self) -> int:
        return self._count

    def hit(self, address: bytes, now: float) -> int:
        """Count a packet from ``address`` (4 or 16 octets)."""
        period = int(now / self._unit)
        found, level = None, self._roots
        depth = 0
        for octet in address:
            node = level.get(octet)
            if node is None:
                break
            found, level = node, node.children
            depth += 1
        if found is None:
            self._add(address[:1], None, period, 1, now)
            return CALM
        found.move(period)
        found.hits += 1
        if not found.children:
            found.expires = now + self._latency
            self._idle.move_to_end(found.address)
        highest = max(found.hits, found.before)
        if depth < len(address):
            if highest >= self._density >> 2:
                self._add(address[: depth + 1], found, period, found.hits - 1 if depth + 1 < len(address) else 0, now)
            return CALM
        if highest < self._density:
            return CALM
        if found.blocked:
            return FLOODS
        found.blocked = True
        self._blocked[address] = found
        return BEGINS

    def _add(self, address: bytes, parent: _Node | None, period: int, hits: int, now: float) -> None:
        if self._count >= self._size:
            self._remove(next(node for node in self._idle.values() if node is not parent))
        made = _Node(address, parent, period, hits)
        made.expires = now + self._latency
        (self._roots if parent is None else parent.children)[address[-1]] = made
        self._idle[address] = made
        if parent is not None:
            self._idle.pop(parent.address, None)
        self._count += 1

    def _remove(self, node: _Node) -> None:
        """Take out a node that has no children; its parent may be idle then, for as long as it would have been."""
        parent = node.parent
        siblings = self._roots if parent is None else parent.children
        del siblings[node.address[-1]]
        del self._idle[node.address]
        self._blocked.pop(node.address, None)
        self._count -= 1
        if parent is not None and not siblings:
            parent.expires = node.expires
            self._idle[parent.address] = parent
            self._idle.move_to_end(parent.address, last=False)

    def sweep(self, now: float) -> list[bytes]:
        """Forget what is over; the addresses that flood no longer."""
        period = int(now / self._unit)
        calm: list[bytes] = []
        for address, node in list(self._blocked.items()):
            node.move(period)
            if max(node.hits, node.before) < self._density:
                node.blocked = False
                del self._blocked[address]
                calm.append(address)
        while self._idle:
            oldest = next(iter(self._idle.values()))
            if oldest.expires > now:
                break
            self._remove(oldest)
        return calm

    def blocked(self) -> list[bytes]:
        """The addresses that flood, the last one first."""
        return [*self._blocked][::-1]

    def release(self, address: bytes) -> bool:
        """Let ``address`` begin anew; false if it does not flood."""
        node = self._blocked.pop(address, None)
        if node is None:
            return False
        node.blocked = False
        node.hits = node.before = 0
        return True
