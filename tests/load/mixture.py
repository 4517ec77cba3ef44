"""Calls of all kinds through ``tests/configs/mixed.cfg``: followed, hidden, back to back, with pings and session timers; phones
hold and refer, lose each other, restart, give up, say nothing.

``Mixture`` begins ``rate`` calls a second; ``outcomes`` counts how each side of each kind ended."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from tests.load.disorder import KINDS
from tests.load.party import Party, Plan
from tests.load.phone import Timing

HOURS = Timing(ring=1.5, talk=0)


class Mixture:
    """A caller, a callee and a third phone on ``network``, and what they do."""

    def __init__(self, network: Any, seed: int = 1, rate: float = 3.0) -> None:
        self.network = network
        self.random = Random(seed)
        self.rate = rate
        domain = "10.0.0.1:5060"
        self.plans: dict[str, tuple[str, Plan]] = {}
        self.outcomes: Counter[str] = Counter()
        self.begun = self.ended = 0
        self.parties = [Party(network, domain, name, self.random, self.planned, HOURS) for name in ("caller", "callee", "third")]
        self.going = False
        self.number = 0

    def planned(self, user: str) -> tuple[Plan, Any]:
        """What a callee of that name does."""
        kind, plan = self.plans.pop(user, ("third", ((self.random.uniform(2, 20), "bye"),)))
        return plan, self.told(f"{kind} callee")

    def told(self, who: str) -> Any:
        """Who hears how one side ends."""
        self.begun += 1

        def done(how: str) -> None:
            self.ended += 1
            self.outcomes[f"{who}: {how}"] += 1

        return done

    def start(self) -> None:
        """Begin."""
        self.going = True
        self.tick()

    def stop(self) -> None:
        """Begin nothing more."""
        self.going = False

    def tick(self) -> None:
        """Begin one call, and see to the next."""
        if self.going:
            self.call()
            self.network.later(self.random.expovariate(self.rate), self.tick)

    def call(self) -> None:
        """Begin one call."""
        choose = self.random
        self.number += 1
        kind = choose.choice(KINDS)
        user = choose.choices(["talk", "busy", "ring", "mute"], (20, 1, 1, 1))[0] + str(self.number)
        mine: list[tuple[float, str]] = []
        theirs: list[tuple[float, str]] = []
        length = choose.choice((0.5, 5.0, 30.0, 90.0))
        for _ in range(choose.choice((0, 1, 2, 4))):
            what = choose.choices(["info", "update", "reinvite", "refer", "message", "forget"], (3, 3, 6, 2, 2, 1))[0]
            choose.choice((mine, theirs)).append((choose.uniform(0, length), what))
        if choose.random() < 0.9:
            choose.choice((mine, theirs)).append((length, "bye"))
        else:  # both at the same time
            mine.append((length, "bye"))
            theirs.append((length, "bye"))
        if not user.startswith("mute"):
            self.plans[user] = kind, tuple(theirs)
        cancel_at = choose.uniform(0.0, 3.0) if choose.random() < 0.1 or user.startswith("ring") else 0.0
        self.parties[0].call(f"sip:{kind}-{user}@10.0.0.1:5060", tuple(mine), self.told(f"{kind} caller"), cancel_at)
