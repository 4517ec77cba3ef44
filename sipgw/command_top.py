"""``sipgw top``: what a running server does now, in the whole terminal, once a second: calls, transactions, registrations, rates,
load, the routes that take the most time. It asks the server's module mi_amp; ``q`` ends it.

Routes are measured from its start to its end; a route that waits (for a database) counts its waiting. ``--once`` prints one
screen and ends."""

from __future__ import annotations

import argparse
import curses
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from sipgw.command_mi import connect, define_way
from sipgw.manhole.client import Client, Lost
from sipgw.manhole.show import plain
from sipgw.mi.jsonrpc import MIError

GROUPS = ["core:", "tm:", "dialog:", "usrloc:", "load:load", "load:load1m", "shmem:used_size"]
BARS = " ▁▂▃▄▅▆▇█"
HISTORY = 60
"""Seconds that the row of bars looks back."""
ROUTES = 100


def define(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    define_way(parser)
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="how often it looks (default: 1)")
    parser.add_argument("--once", action="store_true", help="print one screen and end")


class State:
    """What is known of the server."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.rates: dict[str, float] = {}
        self.history: deque[float] = deque(maxlen=HISTORY)
        self.routes: list[dict[str, Any]] = []
        self.version = ""
        self._before: tuple[float, dict[str, int]] | None = None

    def look(self, now: float) -> None:
        """Take the values as those of ``now``, and make rates of what has changed."""
        if self._before is not None and now > self._before[0]:
            since, values = self._before
            self.rates = {
                name: max(0.0, (self.values.get(name, 0) - before) / (now - since)) for name, before in values.items()
            }
            self.history.append(self.rates.get("core:rcv_requests", 0.0))
        self._before = now, dict(self.values)


def screen(state: State, width: int, height: int, clock: str = "") -> list[str]:
    """The lines of a screen of that size."""
    value, rate = state.values, state.rates
    up = value.get("core:timestamp", 0)
    memory = value.get("shmem:used_size", 0) >> 20
    load, load1m = value.get("load:load", 0), value.get("load:load1m", 0)
    days, hours, minutes, seconds = up // 86400, up // 3600 % 24, up // 60 % 60, up % 60
    head = f"{state.version}   up {f'{days} d ' if days else ''}{hours}:{minutes:02}:{seconds:02}"
    lines = [
        f"{head:{max(0, width - len(clock) - 1)}} {clock}",
        f"Load           now {load} %   1 min {load1m} %   memory {memory} MiB",
        _row("Calls", value, "dialog:", "module dialog is not loaded",
             active="active_dialogs", ringing="early_dialogs", made="processed_dialogs", failed="failed_dialogs",
             expired="expired_dialogs"),
        _row("Transactions", value, "tm:", "module tm is not loaded", **{
             "in use": "inuse_transactions", "2xx": "2xx_transactions", "3xx": "3xx_transactions", "4xx": "4xx_transactions",
             "5xx": "5xx_transactions", "6xx": "6xx_transactions"}),
        _row("Registrations", value, "usrloc:", "module usrloc is not loaded", users="registered_users"),
        f"Requests/s     in {rate.get('core:rcv_requests', 0):.1f}   out {rate.get('core:fwd_requests', 0):.1f}"
        f"   dropped {rate.get('core:drop_requests', 0):.1f}   bad {rate.get('core:err_requests', 0):.1f}",
        f"Replies/s      in {rate.get('core:rcv_replies', 0):.1f}   out {rate.get('core:fwd_replies', 0):.1f}"
        f"   dropped {rate.get('core:drop_replies', 0):.1f}   bad {rate.get('core:err_replies', 0):.1f}",
        f"Last minute    {bars(state.history)}",
        "",
        "Routes that took the most time (ms; waiting and called routes counted)",
        "   calls      mean     worst       total  route",
    ]
    for each in state.routes:
        mean = each["total"] / max(1, each["calls"]) / 1000
        where = f"{each['file'].rpartition('/')[2]}:{each['line']}"
        lines.append(
            f"{each['calls']:8} {mean:9.3f} {each['worst'] / 1000:9.3f} {each['total'] / 1000:11.1f}"
            f"  {plain(each['name'])} ({plain(where)})"
        )
    if not state.routes:
        lines.append("   (none yet)")
    return [line[:width].rstrip() for line in lines[:height]]


def _row(title: str, values: Mapping[str, int], group: str, absent: str, **names: str) -> str:
    if not any(name.startswith(group) for name in values):
        return f"{title:<14} ({absent})"
    return f"{title:<14} " + "   ".join(f"{label} {values.get(group + name, 0)}" for label, name in names.items())


def bars(rates: deque[float]) -> str:
    """A row of bars, the newest on the right, and what the highest stands for."""
    most = max(rates, default=0.0)
    if not most:
        return "no request"
    return "".join(BARS[min(8, -int(-rate * 8 // most))] for rate in rates) + f" {most:.0f}/s"


class Watch:
    """The server behind a ``State``."""

    def __init__(self, client: Client, every: float) -> None:
        self.state = State()
        self._client = client
        self._every = max(0.1, every)
        self._next = 0.0
        self.state.version = plain(client.call("version")["Server"]).partition(", by ")[2]
        client.subscribe(statistics=[name for name in GROUPS if self._there(name)], every=self._every)

    def _there(self, name: str) -> bool:
        return name.endswith(":") or bool(self._client.call("statistics:get", {"statistics": [name.partition(":")[2]]}))

    def wait(self, seconds: float) -> bool:
        """Take what comes in so many seconds; whether there is something new to show."""
        for _, told, _lost in self._client.told(seconds):
            self.state.values.update(told["statistics"])
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._every
        self.state.routes = self._client.routes(ROUTES)
        self.state.look(now)
        return True


def run(options: argparse.Namespace) -> int:
    """Show it until the user has seen enough; the exit status."""
    try:
        with connect(options) as client:
            watch = Watch(client, options.every)
            if options.once:
                watch.wait(0.2)
                watch.wait(1.3)
                print("\n".join(screen(watch.state, 200, 100, time.strftime("%H:%M:%S"))))
            elif not sys.stdout.isatty():
                raise Lost("this is no terminal: --once prints one screen")
            else:
                curses.wrapper(show, watch)
        return 0
    except (Lost, MIError) as error:
        print(f"sipgw top: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


def show(window: Any, watch: Watch) -> None:
    """Draw until ``q`` is pressed."""
    curses.use_default_colors()
    try:
        curses.curs_set(0)
    except curses.error:
        pass  # a terminal that always shows its cursor
    window.nodelay(True)
    while True:
        key = window.getch()
        if key in (ord("q"), ord("Q"), 27):
            return
        if watch.wait(0.1) or key == curses.KEY_RESIZE:
            draw(window, watch.state)


def draw(window: Any, state: State) -> None:
    """Draw one screen."""
    height, width = window.getmaxyx()
    window.erase()
    for row, line in enumerate(screen(state, width - 1, height, time.strftime("%H:%M:%S"))):
        strong = row == 0 or line.startswith(("Routes that", "   calls"))
        window.addstr(row, 0, line, curses.A_BOLD if strong else curses.A_NORMAL)
    window.refresh()
