"""What scripts say of entities of b2b_logic before there are any: drafts, and the flags of the functions that bridge."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sipgw.b2bua.legs import Leg
from sipgw.b2bua.passing import OWN
from sipgw.b2bua.session import Session
from sipgw.exports import Listed, listed
from sipgw.proxy.disguise import is_uri
from sipgw.script.run import Run
from sipgw.sip.errors import SipError
from sipgw.sip.grammar import is_token
from sipgw.sip.uri import Uri

DRAFTS = "b2b drafts"
VALUES = "b2b values"
CURRENT = "b2b current"
"""Under which names a run keeps entities that are made, the context, and what its route is run for."""


@dataclass
class Draft:
    """An entity that is to be called, or has called: the script has made it, or a scenario."""

    id: str
    uri: str = ""
    proxy: str = ""
    display: str = ""
    contact: str = ""
    headers: str = ""
    numbered: bool = False

    def __post_init__(self) -> None:
        """A URI with headers, as that of Refer-To may be, is called without them (RFC 3261 19.1.1)."""
        if "?" in self.uri:
            with suppress(SipError):
                self.uri = str(Uri.parse(self.uri).without_headers())


@dataclass
class Drafts:
    """The entities that a script has made: the caller's, and those to be called by their ids, the last one last."""

    server: Draft | None = None
    clients: dict[str, Draft] = field(default_factory=dict)

    @property
    def client(self) -> Draft | None:
        """The one that was made last."""
        return next(reversed(self.clients.values()), None)


@dataclass(slots=True)
class Current:
    """What a route of a session is run for: a request by its ``token``, or a response and what is ``usual`` with it."""

    session: Session
    leg: Leg
    token: Any = None
    usual: Callable[[], None] | None = None


@dataclass
class BridgeFlags:
    """The flags of ``b2b_bridge``."""

    max_duration: int | None = None
    notify: bool = False
    rollback: bool = False
    hold: bool = False
    early_offer: bool = False
    propagate_avps: bool = False
    media_headers: bool = False


_WORDS = {
    "notify": "notify", "rollback-failed": "rollback", "hold": "hold", "no-late-sdp": "early_offer",
    "propagate-avps": "propagate_avps", "provmedia-extra-headers": "media_headers",
}


def bridge_flags(text: str) -> BridgeFlags:
    """The flags of ``b2b_bridge``."""
    found = BridgeFlags()
    for word in _parts(text):
        name, _, value = word.partition("=")
        if name == "max_duration" and value.isascii() and value.isdigit() and len(value) < 8:
            found.max_duration = int(value)
        elif word in _WORDS:
            setattr(found, _WORDS[word], True)
        else:
            raise ValueError(f"b2b_bridge knows no flag {word!r}; it takes max_duration=N, {', '.join(_WORDS)}")
    return found


def late_bye(text: str) -> bool:
    """The flags of ``b2b_bridge_request``: whether the one that there is has been set."""
    for word in _parts(text):
        if word != "late_bye":
            raise ValueError(f"b2b_bridge_request knows no flag {word!r}; it takes late_bye")
    return bool(_parts(text))


def _parts(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def extra_headers(run: Run, names: Listed | None, bodies: Listed | None) -> str | None:
    """The header lines that two AVPs give; None if they give something else."""
    lines = ""
    if names is not None and bodies is not None:
        for name, value in zip(map(str, listed(names, run)), map(str, listed(bodies, run)), strict=False):
            if not is_token(name) or name.lower() in OWN or re.search(r"[\r\n\0]", value):
                run.user.log(-1, f"b2b_logic: {name!r} cannot be an extra header")
                return None
            lines += f"{name}: {value}\r\n"
    return lines


def side(text: str, headers: str | None) -> Draft | None:
    """An entity of ``b2b_trigger_scenario``: ``id,uri[,proxy[,display name]]``."""
    name, uri, proxy, display = ([part.strip() for part in text.split(",", 3)] + [""] * 3)[:4]
    if not name or not is_uri(uri) or (proxy and not is_uri(proxy)) or headers is None or re.search(r"[\r\n\0]", display):
        return None
    return Draft(name, uri, proxy, display, headers=headers)


def party(text: str) -> Draft | None:
    """An entity of ``b2b_logic:trigger_scenario``: ``id,uri[,display name]``."""
    name, uri, display = ([part.strip() for part in text.split(",", 2)] + [""] * 2)[:3]
    if not name or not is_uri(uri) or re.search(r"[\r\n\0]", display):
        return None
    return Draft(name, uri, display=display)


def contact_of(text: str) -> str:
    """A Contact that the script gives, as a name-addr."""
    return text if not text or "<" in text else f"<{text}>"
