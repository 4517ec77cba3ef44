"""pua_xmpp: SIP users say who may see whether they have a phone, in a MESSAGE to the Jabber user that goes no further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sipgw.sip.errors import SipError
from sipgw.xmpp.address import Jid
from sipgw.xmpp.gateway import Gateway, Origin
from sipgw.xmpp.message import Page
from sipgw.xmpp.watchers import Pair, Watchers

__all__ = ["ALLOW", "DENY", "Consent"]

ALLOW: Final = "#allow"
DENY: Final = "#deny"
PAUSE: Final = 60.0
"""Seconds in which nobody is asked twice."""
MOST: Final = 10_000


class Consent:
    """Asks phones, and hears what they answer. ``text`` has a ``%s`` for the Jabber ID."""

    def __init__(self, user: Any, gateway: Gateway, watchers: Watchers, registered: Callable[[Jid], bool], text: str) -> None:
        self.user = user
        self.gateway = gateway
        self.watchers = watchers
        self.registered = registered
        self.text = text
        self._asked: dict[Pair, float] = {}

    def ask(self, pair: Pair) -> None:
        """Ask the phones of a SIP user, if there are any: else when one registers."""
        now = self.user.clock()
        if not self.registered(pair.sip) or self._asked.get(pair, -PAUSE) + PAUSE > now:
            return
        if len(self._asked) >= MOST:
            self._asked.clear()
        self._asked[pair] = now
        self.user.launch(self._ask(pair))

    async def _ask(self, pair: Pair) -> None:
        domains, domain = self.gateway.domains, pair.sip.domain
        try:
            receiver, sender = domains.user_to_uri(pair.sip), domains.jid_to_uri(pair.jabber, domain)
        except SipError:
            return  # whoever cannot be written to cannot be asked
        page = Page("", "text/plain;charset=utf-8", self.text.replace("%s", str(pair.jabber)).encode(), quiet=True)
        origin = Origin(str(pair.jabber), str(pair.sip), "", domain, self.gateway.links[domain].settings.host)
        status, reason = await self.gateway.sip.message(receiver, sender, page, origin)
        if status >= 300:
            self._asked.pop(pair, None)
            self.user.log_rarely(("consent", status), 2, f"pua_xmpp: {pair.sip} cannot be asked: {status} {reason}")

    def heard(self, text: str, sip: Jid, jabber: Jid) -> bool:
        """Take what a SIP user writes to a Jabber user, if it is an answer."""
        word = text.strip().lower()
        if word not in (ALLOW, DENY):
            return False
        self.watchers.decide(Pair(sip.bare, jabber.bare), word == ALLOW)
        return True
