"""pua_xmpp with a presence server: who watches Jabber users there (RFC 3857), and what they are told there (RFC 3903).

``pua_xmpp_req_winfo`` begins it for a Jabber user. Each watcher that the presence server tells of is a wish to see that user, and
what becomes known of him is published there, for as long as anybody watches."""

from __future__ import annotations

from typing import Any, Protocol

from sipgw.modules._pua_xmpp_sip import Inquiry, SipSide
from sipgw.sip.errors import SipError
from sipgw.sip.pidf import Pidf, Tuple
from sipgw.sip.winfo import Winfo
from sipgw.xmpp.address import Domains, parse_uri
from sipgw.xmpp.roster import Roster
from sipgw.xmpp.watchers import Pair

__all__ = ["Inquiries", "document"]


class Interest(Protocol):
    """Who wants to see Jabber users, and why."""

    def want(self, pair: Pair, why: str) -> None:
        """Somebody does."""

    def unwant(self, pair: Pair, why: str) -> None:
        """He does no more."""


def document(uri: str, devices: list[Tuple]) -> bytes:
    """What is told of a Jabber user."""
    tuples = [each._replace(contact=uri) for each in devices] or [Tuple("none", False)]
    return Pidf(f"pres:{uri.partition(':')[2]}", tuples).write()


class Inquiries:
    """All Jabber users that somebody watches at the presence server."""

    def __init__(self, user: Any, sip: SipSide, roster: Roster, domains: Domains, interest: Interest) -> None:
        self.user = user
        self.sip = sip
        self.roster = roster
        self.domains = domains
        self.interest = interest
        self.known: dict[Inquiry, dict[str, Pair]] = {}
        """Those who watch, by the names of their subscriptions there."""

    def ask(self, uri: str, expires: int) -> None:
        """Begin, or refresh; ``expires`` 0: end it if nobody watches. ``SipError`` if nobody has such a URI."""
        self.domains.target_to_jid(parse_uri(uri))
        inquiry = Inquiry(uri)
        if expires:
            self.known.setdefault(inquiry, {})
            self.sip.inquire(uri)
        elif not self.known.get(inquiry):
            self._end(inquiry)

    def _end(self, inquiry: Inquiry) -> None:
        self.known.pop(inquiry, None)
        self.sip.watcher.unwant(inquiry)
        self.sip.publisher.remove(inquiry.uri)

    def informed(self, inquiry: Inquiry, told: Winfo) -> None:
        """The presence server has told who watches."""
        known = self.known.setdefault(inquiry, {})
        before = dict(known)
        jabber = self.domains.target_to_jid(parse_uri(inquiry.uri)).bare
        if told.full:
            known.clear()
        for each in told.watchers:
            if each.status == "terminated":
                known.pop(each.id, None)
                continue
            try:
                known[each.id] = Pair(self.domains.user_to_jid(parse_uri(each.uri)).bare, jabber)
            except SipError as error:
                self.user.log_rarely(("winfo", each.uri), 2, f"pua_xmpp: {each.uri} cannot watch {jabber}: {error.reason}")
        old, new = set(before.values()), set(known.values())
        for pair in new - old:
            self.interest.want(pair, inquiry.uri)
        for pair in old - new:
            self.interest.unwant(pair, inquiry.uri)
        if old and not new:
            self._end(inquiry)
        else:
            self._publish(inquiry)

    def changed(self, pair: Pair) -> None:
        """What is known of a Jabber user has changed."""
        for inquiry, known in self.known.items():
            if pair in known.values():
                self._publish(inquiry)

    def _publish(self, inquiry: Inquiry) -> None:
        states = [self.roster.seen(pair) for pair in dict.fromkeys(self.known[inquiry].values())]
        devices = {each.id: each for state, found in states if state == "active" for each in found}
        if any(state == "active" for state, _ in states):
            ordered = sorted(devices.values(), key=_priority)
            self.sip.publish(inquiry.uri, document(inquiry.uri, ordered))
        else:
            self.sip.publisher.remove(inquiry.uri)


def _priority(device: Tuple) -> int:
    return -(device.priority or 0)
