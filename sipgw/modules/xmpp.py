"""xmpp: SIP users and Jabber users write to each other; the machinery is in ``sipgw/xmpp``.

sipgw is a component (XEP-0114) of an XMPP server, or with ``backend`` "server" one of its own, which speaks with the servers of
Jabber users (RFC 6120, XEP-0220). ``xmpp_send_message`` gives it the text of a MESSAGE and returns when the
server has dealt with it, with ``$xmpp.status`` and ``$xmpp.reason`` to answer. What Jabber users write is shown to the script as
MESSAGE requests, like any that come from a phone; with ``outbound_proxy`` they are sent there instead, as OpenSIPS does."""

from __future__ import annotations

from pathlib import Path
from secrets import token_bytes
from typing import Any

from sipgw.db.errors import DatabaseError
from sipgw.exports import REQUEST, Module, event, function, mi, param, pvar, requires, statistic
from sipgw.mi.jsonrpc import MIError
from sipgw.modules._message_port import send_page
from sipgw.script.run import Run
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request
from sipgw.sip.target import Target
from sipgw.xmpp import room_table
from sipgw.xmpp.address import Domains, Jid, domain_in_ascii
from sipgw.xmpp.encryption import Encryption
from sipgw.xmpp.gateway import Gateway, GatewaySettings, Origin, Way
from sipgw.xmpp.link import Link, LinkSettings
from sipgw.xmpp.message import Page
from sipgw.xmpp.queue import TABLE, VERSION, Queue
from sipgw.xmpp.remote import Remote
from sipgw.xmpp.rooms import Rooms
from sipgw.xmpp.server import Server, ServerLink, ServerSettings

COMPONENT_PORT, SERVER_PORT = 5347, 5269
_RESULT = "xmpp result"


def one_of(*words: str) -> Any:
    """A check that allows only ``words``."""

    def check(value: str) -> None:
        if value not in words:
            raise ValueError(f"write {' or '.join(map(repr, words))}")

    return check


def jabber_domain(value: str) -> None:
    """Refuse what is no domain; empty is none."""
    if value:
        try:
            Jid.parse(value)
        except SipError:
            raise ValueError(f"{value!r} is no domain") from None


def separator(value: str) -> None:
    """Refuse what cannot stand between a user and a domain."""
    if value and (len(value) > 1 or value.isalnum() or value in "@.-%:;/ "):
        raise ValueError("write one character that no domain has, such as '*' or '+'")


def client_tls(host: str, ca: str) -> Any:
    """How TLS is spoken with ``host``; ``ValueError`` if the file ``ca`` holds no certificate."""
    from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

    if not ca:
        return optionsForClientTLS(host)
    try:
        made = Certificate.loadPEM(Path(ca).read_bytes())
    except Exception as error:  # OpenSSL's own, and those of files
        raise ValueError(f"xmpp_tls_ca {ca!r} is no certificate: {error}") from None
    return optionsForClientTLS(host, trustRoot=trustRootFromCertificates([made]))  # type: ignore[no-untyped-call]


def _shown(link: Way) -> dict[str, Any]:
    """What ``xmpp:status`` says of a link, or of a server elsewhere."""
    up = link.state in ("up", "listens")
    shown = {
        "domain": link.settings.domain, "server": link.peer or f"{link.settings.host}:{link.settings.port}", "state": link.state,
        "reason": link.reason, "attempts": link.attempts, "pending": link.pending,
        "seconds": int(link.reactor.seconds() - link.since) if up else 0,
    }
    if isinstance(link, Remote):
        shown |= {"tls": link.secure, "proof": link.proof}
    elif isinstance(link, ServerLink):
        shown["streams"] = len(link.server.inbound)
    return shown


class Xmpp(Module):
    """Carries messages between SIP phones and Jabber clients."""

    name = "xmpp"

    tm: Any = requires("tm")

    backend: str = param(
        "component", "How we take part in XMPP: as a 'component' of a server, or as a 'server' that others speak with",
        check=one_of("component", "server"),
    )
    xmpp_domain: str = param("127.0.0.1", "The domain of our SIP users, and of the component", check=jabber_domain)
    xmpp_host: str = param("127.0.0.1", "The host of the XMPP server; of backend 'server': the address to listen at")
    xmpp_port: int = param(0, "The port that it has for components, 0: 5347; of backend 'server': to listen at, 0: 5269")
    xmpp_password: str = param("secret", "The secret that it has for the component")
    sip_domain: str = param(
        "", "The name of xmpp_domain in Jabber, and then of the component, where a server of that domain has Jabber users too",
        check=jabber_domain,
    )
    outbound_proxy: str = param("", "The proxy that messages from Jabber are sent to; empty: the script's own routes see them")

    domain_map: str = param("", "One more domain: sip=example.org;jabber=sip.example.org;password=...", each="add_domain")
    domain_separator: str = param(
        "", "Write Jabber users as sip:user*their.domain@our.domain, with this character; empty: sip:user@their.domain",
        check=separator,
    )
    rooms_domain: str = param("", "A domain whose users are chat rooms (XEP-0045): rooms.jabber.example", each="add_rooms")
    rooms_history: int = param(10, "How much of what was said before somebody hears who comes into a room, in messages")
    keep_rooms: int = param(0, "Keep in the table xmpp_rooms who is in which room, so that a restart lets all in again")
    rooms_url: str = param("", "The database with that table; empty: db_default_url")
    resources: int = param(0, "Keep the resource of a Jabber user, as the parameter gr of the URI")
    xmpp_tls: int = param(0, "Speak TLS with the server from the beginning, and check its certificate for xmpp_host")
    xmpp_tls_ca: str = param("", "A PEM file with the certificate that signed the server's; empty: those that the system trusts")
    xmpp_certificate: str = param(
        "", "backend 'server': a PEM file with our certificate; empty: one that signs itself, and others dial back"
    )
    xmpp_key: str = param("", "backend 'server': a PEM file with its key; empty: it is in the same file")
    server_tls: str = param(
        "optional", "backend 'server': TLS is 'no', 'optional', 'required', or must be 'verified' by certificates that we trust",
        check=one_of("no", "optional", "required", "verified"),
    )
    server_route: str = param(
        "", "backend 'server': where a server is that the DNS does not know: jabber.example=192.0.2.1:5269", each="add_route"
    )
    server_peer: str = param(
        "", "backend 'server': a domain that we speak with; where none is written, all servers may come", each="add_peer"
    )
    server_idle: int = param(600, "backend 'server': seconds of silence after which our stream to a server is closed")
    receipts: str = param(
        "response", "What is a receipt for Jabber clients: 'response', a phone's 200; 'imdn', its notification; 'none'",
        check=one_of("response", "imdn", "none"),
    )
    composing: int = param(1, "Tell phones who is writing")
    html: int = param(0, "Tell phones by multipart/alternative with text/html what is marked up; plain, once more, after 415")
    response_timeout: int = param(10, "Seconds that the server may take to deal with what it was sent")
    queue: int = param(0, "Keep messages for Jabber users on disk while the server is away; 0: they are answered 480")
    queue_url: str = param("", "The database with the table xmpp_messages; empty: db_default_url")
    queue_size: int = param(1000, "Messages that are kept at most")
    queue_window: int = param(
        1, "How many of them may be under way at a time when it is back: so many may arrive twice if either side dies then"
    )
    queue_age: int = param(86400, "Seconds that a message is kept")
    keepalive: int = param(60, "Seconds of silence after which the server is asked whether it is there; 0: never")

    link_event = event("E_XMPP_LINK", "domain", "state", "reason")
    failed_event = event("E_XMPP_FAILED", "sender", "receiver", "status", "reason")

    xmpp_sent = statistic("messages that the server has taken", read="_sent")
    xmpp_received = statistic("messages that came from it", read="_received")
    xmpp_failed = statistic("messages, either way, that did not arrive", read="_failed")
    xmpp_refused = statistic("messages, either way, that cannot be said on the other side", read="_refused")
    xmpp_dropped = statistic("stanzas that nobody should have sent, or that could not be answered", read="_dropped")
    xmpp_queued = statistic("messages that wait on disk", read="_queued")
    xmpp_links_up = statistic("components that the server has accepted", read="_links_up")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._more: list[dict[str, str]] = []
        self._rooms: set[str] = set()
        self._routes: dict[str, tuple[str, int]] = {}
        self._peers: set[str] = set()
        self.gateway: Gateway | None = None
        super().__init__(server, **parameters)

    # ---- the beginning and the end ----

    def add_domain(self, text: str) -> None:
        """Note one more domain."""
        values: dict[str, str] = {}
        for each in filter(None, map(str.strip, text.split(";"))):
            key, equals, value = each.partition("=")
            if not equals or key.strip() not in ("sip", "jabber", "password"):
                raise ValueError(f"{each!r}: write sip=...;jabber=...;password=...")
            values[key.strip()] = value.strip()
        if not values.get("sip"):
            raise ValueError("a domain needs sip=...")
        values.setdefault("jabber", values["sip"])
        for key in ("sip", "jabber"):
            jabber_domain(values[key])
        self._more.append(values)

    def add_rooms(self, text: str) -> None:
        """Note a domain of chat rooms."""
        jabber_domain(text)
        self._rooms.add(Jid.parse(text).domain)

    def add_route(self, text: str) -> None:
        """Note where a server is."""
        domain, equals, place = text.partition("=")
        host, colon, port = place.strip().rpartition(":")
        if not equals or not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r}: write domain=host:port")
        jabber_domain(domain.strip())
        self._routes[Jid.parse(domain.strip()).domain] = (host.strip("[]"), int(port))

    def add_peer(self, text: str) -> None:
        """Note a domain that we speak with."""
        jabber_domain(text)
        self._peers.add(Jid.parse(text).domain)

    def _make_server(self, gateway: Gateway, domains: list[str]) -> None:
        """Be a server ourselves."""
        if self.xmpp_tls:
            raise ValueError("xmpp_tls is for backend 'component'; with 'server' write server_tls")
        if self.xmpp_password != "secret":
            self.server.user.log(-1, "xmpp: xmpp_password is of no use with backend 'server'")
        settings = ServerSettings(
            self.xmpp_host, self.xmpp_port or SERVER_PORT, self.server_tls, self._routes, frozenset(self._peers),
            float(self.response_timeout), float(self.server_idle),
        )
        encryption = Encryption(domains, self.xmpp_certificate, self.xmpp_key, self.xmpp_tls_ca)
        server = Server(
            settings, self.server.reactor, encryption, token_bytes(32), self._find_server, self.server.user.launch
        )
        for domain in domains:
            gateway.links[domain] = ServerLink(server, domain, gateway)

    async def _find_server(self, domain: str) -> list[Target]:
        """Where the server of a domain is, by the DNS (RFC 6120 3.2)."""
        resolver: Any = getattr(self.server, "resolver", None)
        if resolver is None:
            return []
        found: list[Target] = await resolver.service("_xmpp-server._tcp", domain_in_ascii(domain), SERVER_PORT)
        return found

    def _make_components(self, gateway: Gateway, domains: list[str], secrets: dict[str, str]) -> None:
        """Be a component, or several."""
        for name, value in (
            ("xmpp_certificate", self.xmpp_certificate), ("xmpp_key", self.xmpp_key), ("server_route", self._routes),
            ("server_peer", self._peers),
        ):
            if value:
                raise ValueError(f"{name} is for backend 'server'")
        tls = client_tls(self.xmpp_host, self.xmpp_tls_ca) if self.xmpp_tls else None
        for domain in domains:
            secret = next(value for name, value in secrets.items() if Jid.parse(name).domain == domain)
            gateway.links[domain] = Link(
                LinkSettings(
                    domain, self.xmpp_host, self.xmpp_port or COMPONENT_PORT, secret, tls, float(self.response_timeout),
                    float(self.keepalive),
                ),
                self.server.reactor, gateway,
            )

    async def start(self) -> None:
        """Connect each component, or listen; that a server is away ends nothing."""
        user = self.server.user
        names = {self.xmpp_domain: self.sip_domain or self.xmpp_domain}
        secrets = {names[self.xmpp_domain]: self.xmpp_password}
        for values in self._more:
            names[values["sip"]] = values["jabber"]
            secrets[values["jabber"]] = values.get("password") or secrets.get(values["jabber"]) or self.xmpp_password
        domains = Domains(names, user.is_myself, self.domain_separator, bool(self.resources))
        settings = GatewaySettings(self.receipts, bool(self.composing), bool(self.html), self.queue_window)
        gateway = self.gateway = Gateway(user, self, domains, settings, self._tell)
        if self._rooms:
            gateway.rooms = Rooms(self._rooms, gateway, user.wall_clock, self.rooms_history)
            if self.keep_rooms:
                await self._open_rooms(gateway, gateway.rooms)
        if self.backend == "server":
            self._make_server(gateway, domains.jabber)
        else:
            self._make_components(gateway, domains.jabber, secrets)
        if self.queue:
            database = await self.server.databases.open(self.queue_url)
            await self.server.databases.check(database, TABLE, VERSION)
            gateway.queue = Queue(database, self.queue_size, self.queue_age)
            await gateway.queue.open()
        gateway.start()

    async def _open_rooms(self, gateway: Gateway, rooms: Rooms) -> None:
        """Read who was in which room."""
        database = await self.server.databases.open(self.rooms_url)
        await self.server.databases.check(database, room_table.TABLE, room_table.VERSION)
        gateway.room_table = room_table.RoomTable(database)
        await gateway.room_table.read(rooms)

    async def stop(self) -> None:
        """Leave the server."""
        if self.gateway is not None:
            await self.gateway.stop()

    def _tell(self, event: str, /, **values: Any) -> None:
        (self.link_event if event == "E_XMPP_LINK" else self.failed_event).emit(**values)

    # ---- SIP (xmpp.gateway.Sip) ----

    async def message(self, receiver: str, sender: str, page: Page, origin: Origin) -> tuple[int, str]:
        """Send a MESSAGE into the script's routes, or to ``outbound_proxy``; its final status and reason."""
        return await send_page(
            self.server.user, receiver, sender, page, proxy=self.outbound_proxy, transport="xmpp", host=origin.host, origin=origin
        )

    # ---- functions and variables ----

    @function(REQUEST)
    async def xmpp_send_message(self, run: Run) -> bool:
        """Send the text of a MESSAGE to the Jabber user that the Request-URI stands for; true when the XMPP server has taken it,
        false if not. ``$xmpp.status`` and ``$xmpp.reason`` are what to answer either way: 202 when it was taken.

        text/plain in any charset, text/html, message/cpim, multipart/alternative, links to files are understood; that somebody
        is writing (RFC 3994) and notifications (RFC 5438) become what Jabber has for them."""
        request = run.message
        assert isinstance(request, Request)
        if self.gateway is None or request.method != "MESSAGE":
            result = (405, "Method Not Allowed")
        else:
            result = await self.gateway.send(request, run.uri or request.uri)
        run.keep()[_RESULT] = result
        return result[0] < 300

    def _result(self, run: Run) -> tuple[int, str] | None:
        found: tuple[int, str] | None = None if run.context is None else run.context.get(_RESULT)
        return found

    @pvar("xmpp.status")
    def status(self, run: Run) -> int | None:
        """``$xmpp.status``: what to answer to a MESSAGE after ``xmpp_send_message``; null before it."""
        found = self._result(run)
        return None if found is None else found[0]

    @pvar("xmpp.reason")
    def reason(self, run: Run) -> str | None:
        """``$xmpp.reason``: the words that go with ``$xmpp.status``."""
        found = self._result(run)
        return None if found is None else found[1]

    def _origin(self, run: Run) -> Origin | None:
        origin = getattr(run.flow, "origin", None)
        return origin if isinstance(origin, Origin) else None

    @pvar("xmpp.from")
    def sender(self, run: Run) -> str | None:
        """``$xmpp.from``: the Jabber ID that a MESSAGE came from; null if it did not come from Jabber."""
        origin = self._origin(run)
        return None if origin is None else origin.sender

    @pvar("xmpp.to")
    def receiver(self, run: Run) -> str | None:
        """``$xmpp.to``: the Jabber ID that it was sent to."""
        origin = self._origin(run)
        return None if origin is None else origin.receiver

    @pvar("xmpp.id")
    def id(self, run: Run) -> str | None:
        """``$xmpp.id``: the ``id`` of its stanza."""
        origin = self._origin(run)
        return None if origin is None else origin.id or None

    # ---- management ----

    @mi("status", module="xmpp")
    def link_status(self) -> dict[str, Any]:
        """Each component with its state, and the counters."""
        gateway = self.gateway
        if gateway is None:
            raise MIError(500, "The gateway does not run")
        links = [_shown(each) for link in gateway.links.values() for each in (link, *link.others)]
        return {"Links": links, "Messages": dict(gateway.counts), "Queue": self._queued(), "Rooms": self._in_rooms()}

    @mi("queue", module="xmpp")
    async def list_queue(self) -> dict[str, Any]:
        """The messages that wait on disk, without what they say."""
        gateway = self.gateway
        if gateway is None or gateway.queue is None:
            raise MIError(404, "There is no queue")
        try:
            items = await gateway.queue.all()
        except DatabaseError as error:
            raise MIError(500, str(error)) from None
        return {"Messages": [
            {"number": each.number, "from": each.sender, "to": each.receiver, "created": each.created, "expires": each.expires}
            for each in items
        ]}

    # ---- statistics ----

    def _count(self, name: str) -> int:
        return 0 if self.gateway is None else self.gateway.counts[name]

    def _sent(self) -> int:
        return self._count("sent")

    def _received(self) -> int:
        return self._count("received")

    def _failed(self) -> int:
        return self._count("failed")

    def _refused(self) -> int:
        return self._count("refused")

    def _dropped(self) -> int:
        return self._count("dropped")

    def _queued(self) -> int:
        queue = None if self.gateway is None else self.gateway.queue
        return 0 if queue is None else sum(queue.counts.values())

    def _in_rooms(self) -> int:
        rooms = None if self.gateway is None else self.gateway.rooms
        return 0 if rooms is None else len(rooms.members)

    def _links_up(self) -> int:
        return 0 if self.gateway is None else sum(link.state in ("up", "listens") for link in self.gateway.links.values())
