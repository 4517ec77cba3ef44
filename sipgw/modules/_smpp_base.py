"""The part of proto_smpp that reads the configuration: SMSCs, groups, accounts, and the gateway made of them."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.inner import bring_in
from sipgw.exports import Module, event, param, requires
from sipgw.proxy.forward import NoWay
from sipgw.proxy.originate import new_request, originate
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response
from sipgw.sms.alphabets import LANGUAGES
from sipgw.sms.esme import KINDS, Esme, Smsc
from sipgw.sms.gateway import Gateway, GatewaySettings
from sipgw.sms.numbers import Numbers
from sipgw.sms.session import Settings
from sipgw.sms.smsc import Account, Port
from sipgw.sms.spool import TABLES, Message, Spool

VERSION = 1
"""Of the table ``smpp``."""


def fields(text: str, known: set[str]) -> dict[str, str]:
    """``name=value;name=value`` as a dictionary; ``ValueError`` for a name that is not ``known``."""
    found: dict[str, str] = {}
    for each in text.split(";"):
        name, equals, value = each.partition("=")
        if not each.strip():
            continue
        if not equals or name.strip() not in known:
            raise ValueError(f"{each.strip()!r}: write name=value with a name of {', '.join(sorted(known))}")
        found[name.strip()] = value.strip()
    return found


def number(values: Mapping[str, str], name: str, default: int) -> int:
    """One number among ``values``."""
    value = values.get(name, "")
    if value and not value.isdecimal():
        raise ValueError(f"{name}={value!r} is no number")
    return int(value) if value else default


def one_of(*words: str) -> Any:
    """A check that allows only ``words``."""

    def check(value: str) -> None:
        if value not in words:
            raise ValueError(f"write {' or '.join(map(repr, words))}")

    return check


def languages(value: str) -> None:
    """Refuse names that are no language with tables of its own."""
    for each in value.replace(",", " ").split():
        if each not in LANGUAGES:
            raise ValueError(f"{each!r} is none of {', '.join(sorted(LANGUAGES))}")


def country(value: str) -> None:
    """Refuse what is no country."""
    Numbers(country=value)


def _smsc(
    name: str, host: str, port: int, texts: list[str], types: list[int], kind: int, session: Settings, tls: Any
) -> Smsc:
    """An SMSC: ``texts`` are system id, password and system type, ``types`` TON and NPI of source and destination."""
    system_id, password, system_type = texts
    src_ton, src_npi, dst_ton, dst_npi = types
    return Smsc(
        name, host, port or 2775, system_id, password, system_type, src_ton, src_npi, dst_ton, dst_npi, kind or 1, tls, session
    )


_SMSC = set("name ip port system_id password system_type src_ton src_npi dst_ton dst_npi session_type".split())
_SMSC |= {"window", "country", "tls", "tls_ca"}
_ACCOUNT = set("system_id password sources senders sessions kinds".split())


class _Registrations:
    """Hears of phones that register (``core.events.Sink``)."""

    def __init__(self, module: SmppBase) -> None:
        self._module = module

    def send(self, _event: str, params: Any) -> bool:
        """A contact was bound."""
        aor = params.get("aor") if isinstance(params, Mapping) else None
        if aor:
            self._module.registered(str(aor))
        return True


class SmppBase(Module):
    """The links, the spool and the parameters of one gateway."""

    tm: Any = requires("tm")

    smpp_port: int = param(2775, "The port of a socket smpp: that is written without one")
    smpp_max_msg_chunks: int = param(8, "In how many pieces a PDU may come", unused="only its size is limited")
    smpp_send_timeout: int = param(100, "Milliseconds until a peer that takes nothing is dropped", unused="see response_timeout")
    outbound_uri: str = param("", "The proxy that texts from mobiles are sent to; empty: the script's own routes see them")
    db_url: str = param("", "The database with the table of SMSCs; empty: db_default_url, unless an smsc is written")
    smpp_table: str = param("smpp", "The table of SMSCs")
    name_col: str = param("name", "Its column with the name that scripts use")
    ip_col: str = param("ip", "Its column with the host")
    port_col: str = param("port", "Its column with the port")
    system_id_col: str = param("system_id", "Its column with our name there")
    password_col: str = param("password", "Its column with our password")
    system_type_col: str = param("system_type", "Its column with the type of system")
    src_ton_col: str = param("src_ton", "Its column with the type of sources that do not say theirs")
    src_npi_col: str = param("src_npi", "Its column with the numbering plan of such sources")
    dst_ton_col: str = param("dst_ton", "Its column with the type of destinations that do not say theirs")
    dst_npi_col: str = param("dst_npi", "Its column with the numbering plan of such destinations")
    session_type_col: str = param("session_type", "Its column with the kind of session: 1 both ways, 2 out, 3 in, 4 outbind")

    smsc: str = param(
        "", "An SMSC in no table: name=...;ip=...;port=...;system_id=...;password=... as columns; window, country, tls, tls_ca",
        each="add_smsc",
    )
    smsc_group: str = param("", "Several SMSCs under one name: name=...;members=a,b;mode=failover or share", each="add_group")
    account: str = param(
        "", "An ESME that may bind to us: system_id=...;password=...;sources=10.0.0.0/8,::1;senders=49,+43;sessions=2",
        each="add_account",
    )
    spool_url: str = param("", "The database with the tables sms_messages and sms_parts; empty: db_url, or db_default_url")
    domain: str = param("", "The domain of the SIP addresses that numbers become; empty: the host of the first socket")
    reports: str = param(
        "imdn", "How senders hear of receipts: 'imdn' if they asked by CPIM, 'text' as a message, 'none'",
        check=one_of("imdn", "text", "none"),
    )
    rp_data: int = param(0, "Whether phones get texts as RP-DATA (application/vnd.3gpp.sms, IMS) instead of text/plain")
    smsc_number: str = param("", "The number of the SMSC that RP-DATA says it comes from")
    national_languages: str = param("", "Languages whose tables may shorten texts: 'turkish spanish'", check=languages)
    country: str = param("", "The country whose rules numbers without + follow: DE, AT ... (needs sipgw[sms])", check=country)
    validity: int = param(259200, "Seconds for which a text is tried")
    window: int = param(10, "Requests that may wait for an answer on one link")
    response_timeout: int = param(10, "Seconds to wait for an answer")
    enquire_link: int = param(30, "Seconds of silence after which a peer is asked whether it is there")

    link_event = event("E_SMPP_LINK", "name", "state", "reason")
    receipt_event = event("E_SMPP_RECEIPT", "id", "link", "source", "destination", "state", "error")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._smscs: list[dict[str, str]] = []
        self._groups: list[dict[str, str]] = []
        self._accounts: dict[str, Account] = {}
        self._sockets: list[tuple[str, int]] = []
        self.gateway: Gateway | None = None
        super().__init__(server, **parameters)

    # ---- what the script says ----

    def add_smsc(self, text: str) -> None:
        """Note one more SMSC."""
        values = fields(text, _SMSC)
        if not values.get("name") or not values.get("ip"):
            raise ValueError("an SMSC needs name=... and ip=...")
        kind = number(values, "session_type", 1)
        if kind not in (0, *KINDS):
            raise ValueError(f"session_type={kind}: write 1 (both ways), 2 (out), 3 (in), 4 (outbind) or 5 (one session of each)")
        for name in ("port", "src_ton", "src_npi", "dst_ton", "dst_npi", "window"):
            number(values, name, 0)
        Numbers(country=values.get("country", ""))
        self._smscs.append(values)

    def add_group(self, text: str) -> None:
        """Note one more group."""
        values = fields(text, {"name", "members", "mode"})
        if not values.get("name") or not values.get("members"):
            raise ValueError("a group needs name=... and members=a,b")
        one_of("failover", "share")(values.setdefault("mode", "failover"))
        self._groups.append(values)

    def add_account(self, text: str) -> None:
        """Note one more ESME that may bind to us."""
        values = fields(text, _ACCOUNT)
        name, password = values.get("system_id", ""), values.get("password", "")
        if not name or not password:
            raise ValueError("an account needs system_id=... and password=...")
        sources = [ip_network(each.strip()) for each in values.get("sources", "").split(",") if each.strip()]
        senders = [each.strip().removeprefix("+") for each in values.get("senders", "").split(",") if each.strip()]
        kinds = frozenset(values["kinds"].replace(",", " ").split()) if values.get("kinds") else None
        account = Account(name, password, sources, senders, sessions=number(values, "sessions", 10))
        if kinds is not None:
            if kinds - account.kinds:
                raise ValueError(f"kinds={values['kinds']!r}: write transmitter, receiver, transceiver")
            account.kinds = kinds
        self._accounts[name] = account

    def listens(self, _transport: str, host: str, port: int) -> None:
        """Take note of a socket ``smpp:`` of the script."""
        self._sockets.append((host, port))

    # ---- the beginning and the end ----

    async def start(self) -> None:
        """Open the spool, the links, the port."""
        server = self.server
        user, reactor = server.user, server.reactor
        database = await server.databases.open(self.spool_url or self.db_url)
        for table, version in TABLES.items():
            await server.databases.check(database, table, version)
        settings = GatewaySettings(
            domain=self.domain or (user.sockets[0].host if user.sockets else "localhost"), validity=self.validity,
            reports=self.reports, as_rp=bool(self.rp_data), number=self.smsc_number, numbers=Numbers(country=self.country),
            languages=[LANGUAGES[each] for each in self.national_languages.replace(",", " ").split()],
        )
        gateway = self.gateway = Gateway(user, reactor, Spool(database), self, settings, self._tell)
        for smsc in [*map(self._of_text, self._smscs), *await self._of_table()]:
            if smsc.name in gateway.esmes or smsc.name in self._accounts:
                raise ValueError(f"there are two links called {smsc.name}")
            numbers = Numbers(smsc.dst_ton, smsc.dst_npi, self._countries.get(smsc.name, self.country))
            gateway.add_esme(Esme(smsc, reactor, gateway), numbers)
        for group in self._groups:
            members = [each.strip() for each in group["members"].split(",")]
            missing = [each for each in members if each not in gateway.esmes]
            if missing or group["name"] in gateway.outbound.targets:
                why = f"there is no SMSC {missing[0]}" if missing else "a link is called so"
                raise ValueError(f"the group {group['name']}: {why}")
            gateway.add_group(group["name"], members, shared=group["mode"] == "share")
        if self._sockets:
            port = Port(self._accounts, self._session(self.window), reactor, gateway)
            gateway.open_port(port)
            for host, number_ in self._sockets:
                port.listen(host, number_)
        self._hear_registrations()
        for name in gateway.outbound.targets:
            self._count_link(name)
        await gateway.start()

    async def stop(self) -> None:
        """Unbind; what is under way stays in the spool."""
        if self.gateway is not None:
            await self.gateway.stop()

    _countries: dict[str, str] = {}

    def _session(self, window: int) -> Settings:
        return Settings(window=window, response_time=float(self.response_timeout), enquire_time=float(self.enquire_link))

    def _of_text(self, values: dict[str, str]) -> Smsc:
        """The SMSC that a parameter names."""
        name, host = values["name"], values["ip"]
        tls: Any = None
        if number(values, "tls", 0):
            from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

            trusted = None
            if values.get("tls_ca"):
                pem = Path(values["tls_ca"]).read_bytes()
                begin = b"-----BEGIN CERTIFICATE-----"
                certificates = [Certificate.loadPEM(begin + each) for each in pem.split(begin)[1:]]
                trusted = trustRootFromCertificates(certificates)  # type: ignore[no-untyped-call]
            tls = optionsForClientTLS(host, trusted)
        if values.get("country"):
            self._countries = {**self._countries, name: values["country"]}
        texts = [values.get(each, "") for each in ("system_id", "password", "system_type")]
        types = [number(values, each, 0) for each in ("src_ton", "src_npi", "dst_ton", "dst_npi")]
        session = self._session(number(values, "window", self.window))
        return _smsc(name, host, number(values, "port", 0), texts, types, number(values, "session_type", 1), session, tls)

    async def _of_table(self) -> list[Smsc]:
        """The SMSCs of the table; none where no database is named."""
        if not self.db_url and (self._smscs or self._sockets):
            return []
        server = self.server
        database = await server.databases.open(self.db_url)
        await server.databases.check(database, self.smpp_table, VERSION)
        columns = [
            self.name_col, self.ip_col, self.port_col, self.system_id_col, self.password_col, self.system_type_col,
            self.src_ton_col, self.src_npi_col, self.dst_ton_col, self.dst_npi_col, self.session_type_col,
        ]
        found: list[Smsc] = []
        for row in await database.select(self.smpp_table, columns):
            name, host, port, *rest = row
            kind = int(rest[7] or 1)
            texts, types = [str(each or "") for each in rest[:3]], [int(each or 0) for each in rest[3:7]]
            found.append(_smsc(str(name), str(host), int(port or 0), texts, types, kind, self._session(self.window), None))
        return found

    def _hear_registrations(self) -> None:
        events = self.server.user.events
        events.join(events.publish("E_UL_CONTACT_INSERT"), "proto_smpp", _Registrations(self))

    def registered(self, aor: str) -> None:
        """Somebody has registered: what waits for that address goes out."""
        gateway = self.gateway
        if gateway is not None:
            user, _, host = aor.partition("@")
            domain = gateway.settings.domain
            if not host or host.lower() == domain.rpartition(":")[0].lower():  # a domain may be written with a port
                self.server.user.launch(gateway.registered(f"sip:{user}@{domain}"))
            if host:
                self.server.user.launch(gateway.registered(f"sip:{aor}"))

    def _count_link(self, name: str) -> None:
        """Statistics of one link: what it has taken, what it refused, what waits for it."""
        assert self.gateway is not None
        target = self.gateway.outbound.targets[name]
        statistics = self.server.statistics
        statistics.gauge("smpp", f"{name}_sent", lambda: target.sent)
        statistics.gauge("smpp", f"{name}_failed", lambda: target.failed)
        statistics.gauge("smpp", f"{name}_waiting", lambda: len(target.waiting) + len(target.ready))

    def _tell(self, event: str, /, **values: Any) -> None:
        (self.link_event if event == "E_SMPP_LINK" else self.receipt_event).emit(**values)

    # ---- SIP (sms.gateway.Sip) ----

    async def message(self, receiver: str, sender: str, headers: str, kind: str, body: bytes, origin: Message) -> int:
        """Send a MESSAGE into the script's routes, or to ``outbound_uri``; its final status."""
        user = self.server.user
        try:
            request = new_request(
                user, "MESSAGE", receiver, f"<{sender}>", f"<{receiver}>", headers=f"{headers}Content-Type: {kind}\r\n", body=body
            )
            if self.outbound_uri:
                return await self._to_proxy(request)
            esme = None if self.gateway is None else self.gateway.esmes.get(origin.link)
            host, port = (esme.smsc.host, esme.smsc.port) if esme is not None else ("127.0.0.1", 0)
            outcome = await bring_in(user, request, transport="smpp", host=host, port=port, origin=origin)
            return outcome.status
        except MalformedMessage as error:
            user.log(1, f"proto_smpp: no MESSAGE can be made for {receiver!r}: {error.reason}")
            return 400

    async def _to_proxy(self, request: Request) -> int:
        done: Deferred[int] = Deferred()

        def answer(status: int, _response: Response | None) -> None:
            if status >= 200 and not done.called:
                done.callback(status)

        try:
            sent = await originate(self.server.user, request, answer, next_hop=self.outbound_uri)
        except NoWay as error:
            return error.status
        return 403 if sent is None else await done
