"""Which headers of a message a back-to-back user agent passes from one side to the other; all others stay behind. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from sipgw.b2bua.port import Content, Origin
from sipgw.sip.address import parse_list
from sipgw.sip.message import Message, Request, Response
from sipgw.sip.reliable import RELIABLE, number_of, tags

PASSED: Final = ("Supported", "Allow", "Proxy-Require", "Session-Expires", "Min-SE", "Require")
"""Those that are passed without being asked for."""
OF_REQUESTS: Final = ("Refer-To", "Referred-By", "Event", "Subscription-State", "Info-Package", "Reason")
"""Those without which a request within a call means nothing."""
AUTHENTICATION: Final = frozenset({"authorization", "proxy-authorization", "www-authenticate", "proxy-authenticate"})
OWN: Final = frozenset(
    "via from to call-id cseq contact route record-route max-forwards content-length content-type rseq rack".split()
)
"""Those that each side has of its own, whoever asks for them."""


class Passing:
    """Chooses headers: the usual ones, ``names``, and those that ``matches`` finds.

    ``ends_pracks``: reliable provisional responses end at us (``reliable.py``), so an INVITE with an offer says that we know
    them, and no more."""

    def __init__(self, names: Iterable[str] = (), matches: Callable[[str], object] | None = None) -> None:
        self.ends_pracks = True
        self._names = frozenset(name.lower() for name in (*PASSED, *names)) - OWN
        self._of_requests = self._names | frozenset(name.lower() for name in OF_REQUESTS)
        self._matches = matches

    def content(self, message: Message, transparent: bool = False) -> Content:
        """What of ``message`` goes to the other side; ``transparent``: challenges and what answers them, too."""
        names = self._of_requests if isinstance(message, Request) else self._names
        lines = []
        ours = self.ends_pracks and isinstance(message, Request) and message.method == "INVITE" and bool(message.body)
        origin = None
        if isinstance(message, Response):
            number = number_of(message)
            origin = None if number is None else Origin(message.to_tag or "", number, message.cseq.number)
        for line, name in zip(message.lines[1:], message.names[1:], strict=True):
            if name == "require" and (ours or isinstance(message, Response)):
                line = _without_reliable(line)
            elif not (name in names or (transparent and name in AUTHENTICATION) or self._wants(name, line)):
                continue
            if line:
                lines.append(f"{line}\r\n")
        if ours and RELIABLE not in tags(message, "Supported"):
            lines.append(f"Supported: {RELIABLE}\r\n")
        kind = message.header("Content-Type") or "" if message.body else ""
        return Content("".join(lines), message.body, kind, origin)

    def _wants(self, name: str, line: str) -> bool:
        return name not in OWN and self._matches is not None and bool(self._matches(_written(line)))


def _written(line: str) -> str:
    return line.partition(":")[0].strip()


def _without_reliable(line: str) -> str:
    """A line of option tags without 100rel; "" if that was all."""
    name, _, value = line.partition(":")
    tags = [tag for tag in parse_list(value) if tag.strip().lower() != RELIABLE]
    return f"{name}: {', '.join(tag.strip() for tag in tags)}" if tags else ""

