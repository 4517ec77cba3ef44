"""Lines of ``xlog`` that come in floods: what one line of the script says again and again in a second is folded into a count.

The first ``most`` of them are written as ever, as OpenSIPS writes them. Those that follow within the second, from the same line
of the script and with the same text, are counted; when the second is over one line says how many there were. Lines that differ
in anything, such as a Call-ID, are never folded: each of them says something."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import inf
from typing import Any

SECOND = 1.0
MOST_KINDS = 1000
"""How many different lines are counted in a second; those beyond are written."""
Key = tuple[str, int, str]


class Folding:
    """Stands before ``write``. ``most``: how often a second a line may say the same (``--log-fold``), 0: however often.

    ``call_later`` sees to it that the count is told."""

    def __init__(
        self, clock: Callable[[], float], write: Callable[[int, str], None],
        call_later: Callable[[float, Callable[[], None]], Any], most: int = 0,
    ) -> None:
        self.most = most
        self.write = write
        self._clock = clock
        self._call_later = call_later
        self._began = -inf
        self._counts: dict[Key, int] = {}
        self._folded: dict[Key, list[int]] = {}
        """The level and the number of those that are to be told of."""

    def xlog(self, level: int, text: str) -> None:
        """Write a line of the script's own, or count it."""
        if not self.most:
            self.write(level, text)
            return
        frame = sys._getframe(1)
        code = frame.f_code
        if code.co_filename.endswith(".py") and frame.f_back is not None:  # the runtime calls on behalf of the script
            frame = frame.f_back
            code = frame.f_code
        now = self._clock()
        if now - self._began >= SECOND:
            self._began = now
            self._counts.clear()
        key = (text, frame.f_lineno, code.co_filename)
        counts = self._counts
        count = counts.get(key, 0)
        if count < self.most:
            if count or len(counts) < MOST_KINDS:
                counts[key] = count + 1
            self.write(level, text)
        elif key in self._folded:
            self._folded[key][1] += 1
        else:
            if not self._folded:
                self._call_later(SECOND, self._tell)
            self._folded[key] = [level, 1]

    def _tell(self) -> None:
        """Tell of what was folded; no message is being handled now, so that the line names none."""
        folded, self._folded = self._folded, {}
        for key, (level, more) in folded.items():
            self.write(level, f"{key[0].rstrip(chr(10))} ({more} more like this)")
