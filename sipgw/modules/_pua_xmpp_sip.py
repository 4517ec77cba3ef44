"""pua_xmpp towards the SIP side: subscriptions to SIP users for Jabber users, to watcher information, publications.

A first SUBSCRIBE or PUBLISH goes to ``presence_server``, after local_route; without one the script's routes see it, as they see
messages from Jabber. What follows in a dialog goes its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from sipgw.core.inner import bring_in
from sipgw.presence.publisher import Publisher, Target
from sipgw.presence.watcher import Held, Notice, Watcher, Wish
from sipgw.proxy.credentials import challenges_of
from sipgw.proxy.forward import NoWay
from sipgw.proxy.originate import originate
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request, Response
from sipgw.sip.pidf import PIDF, Pidf, Tuple
from sipgw.sip.winfo import WINFO, Winfo
from sipgw.xmpp.address import parse_uri
from sipgw.xmpp.gateway import Gateway, Origin
from sipgw.xmpp.watchers import Pair

__all__ = ["Inquiry", "Settings", "SipSide"]

SPREAD: Final = 0.02
"""Seconds between what goes on after a restart."""


class Inquiry(NamedTuple):
    """Who watches a Jabber user, at a presence server: ``uri`` is the user's."""

    uri: str


class Settings(NamedTuple):
    """``server_address``: the Contact of our requests; ``presence_server``: where they go; both may be ""."""

    server_address: str
    presence_server: str
    expires: int


class Module(Protocol):
    """What the module does about it."""

    def present(self, pair: Pair, state: str, reason: str, tuples: list[Tuple] | None) -> None:
        """A SIP user's presence."""

    def refused(self, pair: Pair, status: int) -> bool:
        """It cannot be had; whether to try again."""

    def informed(self, inquiry: Inquiry, document: Winfo | None) -> None:
        """Who watches a Jabber user; None: nobody knows."""

    def kept(self, key: Pair | Inquiry, text: str | None) -> None:
        """A subscription of ours as it is to be kept."""


class SipSide:
    """All that we ask of SIP users and presence servers."""

    def __init__(self, user: Any, gateway: Gateway, module: Module, uac_auth: Any, settings: Settings) -> None:
        self.user = user
        self.gateway = gateway
        self.module = module
        self.uac_auth = uac_auth
        self.settings = settings
        self.watcher = Watcher(user, self._send, self, self._authenticate)
        self.publisher = Publisher(user, self._send, self._authenticate)

    # ---- what is wanted ----

    def seek(self, pair: Pair) -> None:
        """Subscribe to a SIP user."""
        domains = self.gateway.domains
        try:
            target = domains.user_to_uri(pair.sip)
            watcher = domains.jid_to_uri(pair.jabber, pair.sip.domain)
        except SipError as error:
            self.user.log_rarely(("seek", pair), 1, f"pua_xmpp: {pair.jabber} cannot watch {pair.sip}: {error.reason}")
            return
        wish = Wish(
            target, watcher, self._contact(watcher), accept=PIDF, expires=self.settings.expires,
            next_hop=self.settings.presence_server,
        )
        self.watcher.want(pair, wish)

    def release(self, pair: Pair) -> None:
        """Unsubscribe."""
        self.watcher.unwant(pair)

    def inquire(self, uri: str) -> None:
        """Subscribe to who watches a Jabber user (RFC 3857)."""
        self.watcher.want(Inquiry(uri), Wish(
            uri, uri, self._contact(uri), event="presence.winfo", accept=WINFO, expires=self.settings.expires,
            next_hop=self.settings.presence_server,
        ))

    def publish(self, uri: str, document: bytes) -> None:
        """Publish the presence of a Jabber user."""
        self.publisher.publish(uri, Target(uri, self.settings.presence_server, expires=self.settings.expires), document)

    def resume(self, key: Pair | Inquiry, text: str) -> bool:
        """Go on with a subscription from before a restart."""
        return self.watcher.resume(key, text, 0.5 + SPREAD * len(self.watcher.held))

    def _contact(self, uri: str) -> str:
        if self.settings.server_address:
            return self.settings.server_address
        socket = self.user.default_socket() or self.user.sockets[0]
        host, port = socket.advertised_host or socket.host, socket.advertised_port or socket.port
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        transport = "" if socket.transport == "udp" else f";transport={socket.transport}"
        name = parse_uri(uri).user
        return f"sip:{name}@{host}:{port}{transport}" if name else f"sip:{host}:{port}{transport}"

    # ---- what goes out ----

    async def _send(self, request: Request, answer: Callable[[int, Response | None], None], next_hop: str, first: bool) -> None:
        if first and not self.settings.presence_server:
            origin = self._origin(request)
            outcome = await bring_in(self.user, request, transport="xmpp", host=origin.host, origin=origin)
            answer(outcome.status, outcome.response)
            return
        try:
            sent = await originate(self.user, request, answer, next_hop=next_hop or None)
        except NoWay as error:
            raise SipError(str(error), error.status) from None
        if sent is None:
            raise SipError("Dropped By local_route", 403)

    def _origin(self, request: Request) -> Origin:
        """Who is behind a request, for ``$xmpp.from`` and ``$xmpp.to``."""
        domains = self.gateway.domains
        sender = receiver = ""
        domain = next(iter(self.gateway.links))
        try:
            sender = str(domains.target_to_jid(request.from_.uri))
            jid = domains.user_to_jid(request.to.uri)
            receiver, domain = str(jid), jid.domain
        except SipError:
            pass  # a Jabber user about himself
        return Origin(sender, receiver, "", domain, self.gateway.links[domain].settings.host)

    def _authenticate(self, response: Response, method: str, uri: str) -> tuple[str, str, str] | None:
        if self.uac_auth is None:
            return None
        made = self.uac_auth.answer(None, response, method, uri, b"")
        if made is None:
            return None
        realm = next((each.realm for name, each in challenges_of(response) if name == made.name), "")
        return realm, made.name, str(made.credentials)

    # ---- what comes (presence.watcher.Owner) ----

    def take(self, request: Request) -> None:
        """Take a NOTIFY; ``SipError`` says what to answer instead of 200."""
        self.watcher.take(request)

    def told(self, key: Any, notice: Notice) -> None:
        """A NOTIFY has come."""
        if isinstance(key, Inquiry):
            if notice.state != "terminated" and notice.body:
                self._typed(notice, WINFO)
                self.module.informed(key, Winfo.parse(notice.body))
            return
        tuples = None
        if notice.body:
            self._typed(notice, PIDF)
            tuples = list(Pidf.parse(notice.body).tuples)
        self.module.present(key, notice.state, notice.reason, tuples)

    @staticmethod
    def _typed(notice: Notice, kind: str) -> None:
        if notice.kind != kind:
            raise SipError("Unsupported Media Type", 415)

    def failed(self, key: Any, status: int, reason: str) -> bool:
        """A subscription was refused, or is lost."""
        self.user.log_rarely(("pua_xmpp", status), 2, f"pua_xmpp: no subscription to {self._name(key)}: {status} {reason}")
        if isinstance(key, Inquiry):
            self.module.informed(key, None)
            return True
        return self.module.refused(key, status)

    def noted(self, key: Any, text: str | None) -> None:
        """What to keep."""
        self.module.kept(key, text)

    @staticmethod
    def _name(key: Pair | Inquiry) -> str:
        return str(key.sip if isinstance(key, Pair) else key.uri)

    # ---- to look at ----

    def summary(self) -> list[dict[str, Any]]:
        """Each subscription of ours."""
        return [self._shown(key, held) for key, held in self.watcher.held.items()]

    def _shown(self, key: Pair | Inquiry, held: Held) -> dict[str, Any]:
        return {
            "to": self._name(key), "for": str(key.jabber) if isinstance(key, Pair) else key.uri, "event": held.wish.event,
            "state": held.state.value, "seconds": max(0, round(held.ends - self.user.clock())) if held.is_made else 0,
        }

    # ---- the end ----

    def leave(self, kept: bool) -> None:
        """We leave; what is ``kept`` goes on when we are back."""
        if kept:
            self.watcher.rest()
        else:
            self.watcher.end_all()
        self.publisher.remove_all()

