"""How the module jabber writes Jabber IDs in SIP: ``sip:romeo*jabber.example@jabber.sip.example``. Pure.

``jdomain`` is the host that stands for Jabber, with the character between user and server; a room is nick*room*server, where the
nick may be empty. ``aliases`` are hosts that stand for themselves (transports to other networks), in whose users that character
may be written as another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sipgw.sip.grammar import unescape as percent_decoded
from sipgw.sip.uri import Uri
from sipgw.xmpp.address import BadJid, Jid, escape, escape_user, unescape

__all__ = ["Aliases", "Place"]


class Place(NamedTuple):
    """What an address means: a user, or a room (``nick`` is not None; empty: of the user's own name)."""

    jid: Jid
    nick: str | None = None


class Aliases:
    """One table of hosts; ``aliases`` gives each its character, empty for none."""

    def __init__(self, jdomain: str, delimiter: str = "*", aliases: Mapping[str, str] | None = None) -> None:
        self.jdomain = jdomain.lower()
        self.delimiter = delimiter
        self.aliases = {name.lower(): char for name, char in (aliases or {}).items()}

    @classmethod
    def read(cls, jdomain: str, aliases: str = "") -> Aliases:
        """From the parameters ``jdomain`` "host=*" and ``aliases`` "2;icq.example=%;msn.example;"; ``ValueError``."""
        host, _, char = jdomain.partition("=")
        if not host or len(char) > 1:
            raise ValueError(f"jdomain {jdomain!r}: write host=*, with one character")
        found: dict[str, str] = {}
        words = [each.strip() for each in aliases.split(";") if each.strip()]
        if words:
            number, names = words[0], words[1:]
            if not number.isdigit() or int(number) != len(names):
                raise ValueError(f"aliases {aliases!r}: write their number, then each: 2;icq.example=%;msn.example;")
            for each in names:
                name, _, other = each.partition("=")
                if not name or len(other) > 1:
                    raise ValueError(f"aliases {aliases!r}: {each!r} is not host or host=%")
                found[name] = other
        return cls(host, char or "*", found)

    def serves(self, uri: Uri) -> bool:
        """Whether a URI stands for something in Jabber."""
        return (uri.host or "").lower() in {self.jdomain, *self.aliases}

    def place(self, uri: Uri) -> Place:
        """What a URI means; ``BadJid``."""
        host, user = (uri.host or "").lower(), percent_decoded(uri.user or "")
        if host in self.aliases:
            char = self.aliases[host]
            return Place(Jid(escape(user.replace(self.delimiter, char) if char else user), Jid.parse(host).domain))
        parts = user.split(self.delimiter)
        if host != self.jdomain or len(parts) not in (2, 3) or not all(parts[-2:]):
            raise BadJid("Not A Jabber Address")
        jid = Jid.parse(f"{escape(parts[-2])}@{parts[-1]}")
        return Place(jid, parts[0] if len(parts) == 3 else None)

    def uri(self, jid: Jid, nick: str | None = None) -> str:
        """The URI of a Jabber user, or of a room that was entered as ``nick``."""
        local = unescape(jid.local)
        char = self.aliases.get(jid.domain)
        if char is not None and nick is None:
            return f"sip:{escape_user(local.replace(char, self.delimiter) if char else local)}@{jid.domain}"
        words = [local, jid.domain] if nick is None else [nick, local, jid.domain]
        return f"sip:{escape_user(self.delimiter.join(words) if local else jid.domain)}@{self.jdomain}"
