"""uac_registrant: registers this server, or users of it, with other registrars, as a table says.

The machinery is ``proxy/registrant.py``. Each registration has a timer of its own, so nothing is polled: the first REGISTERs go
out one after another as soon as the server runs. As in OpenSIPS nothing is unregistered when the server stops."""

from __future__ import annotations

import time
from typing import Any

from sipgw.core.status import Group
from sipgw.core.surroundings import is_address
from sipgw.db.errors import DatabaseError
from sipgw.exports import Module, event, mi, param, requires
from sipgw.interfaces import Value
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.auth_db import check_column
from sipgw.modules.tm import Tm
from sipgw.modules.uac_auth import UacAuth
from sipgw.proxy.registrant import Account, Registration, Rules, State
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request
from sipgw.sip.uri import Uri

VERSION = 3
PACE = 0.02
"""Seconds between the first REGISTERs of many."""
READY, NOT_READY, LOADING = 1, -1, -2
"""What the status of a registration is in ``status_report:get``."""
_OWN_TIMER = "each registration has a timer of its own"
_ONE = (("aor", "contact", "registrar"),)
_ALL_OR_ONE = ((), *_ONE)

Key = tuple[str, str, str]


def check_percentage(value: int) -> None:
    """Refuse what is no percentage."""
    if not 1 <= value <= 100:
        raise ValueError(f"{value} is no percentage: write 1 to 100")


class UacRegistrant(Module):
    """Registers with other registrars and stays registered."""

    name = "uac_registrant"
    later = {"enable_clustering": "sharing tags need a cluster protocol, which sipgw does not speak (docs/decisions/0020)"}

    tm: Tm = requires("tm")
    uac_auth: UacAuth = requires("uac_auth")

    hash_size: int = param(1, "Shares of the timer", unused=_OWN_TIMER)
    timer_interval: int = param(100, "How often registrations are looked at, in seconds", unused=_OWN_TIMER)
    default_expires: int = param(3600, "For how long to register where the table says nothing, in seconds")
    failure_retry_interval: int = param(0, "When to try again after a failure, in seconds; 0: after the expiry")
    reregister_expiry_percentage: int = param(
        100, "After how much of the time that was granted to register again, in percent", check=check_percentage
    )
    db_url: str = param("", "The database; db_default_url if empty")
    table_name: str = param("registrant", "The table", check=check_column)
    registrar_column: str = param("registrar", "The URI of the registrar", check=check_column)
    proxy_column: str = param("proxy", "The URI of a proxy before it, or nothing", check=check_column)
    aor_column: str = param("aor", "The URI that is registered", check=check_column)
    third_party_registrant_column: str = param(
        "third_party_registrant", "Who registers it, if somebody else, a URI", check=check_column
    )
    username_column: str = param("username", "The user of the credentials", check=check_column)
    password_column: str = param("password", "Their password, or 0x and HA1", check=check_column)
    binding_URI_column: str = param("binding_URI", "The URI of the Contact", check=check_column)
    binding_params_column: str = param("binding_params", "Parameters of the Contact, with a semicolon before", check=check_column)
    expiry_column: str = param("expiry", "For how long to register, in seconds", check=check_column)
    forced_socket_column: str = param("forced_socket", "The socket to send from", check=check_column)
    cluster_shtag_column: str = param("cluster_shtag", "A sharing tag", check=check_column)
    state_column: str = param("state", "0: enabled, 1: disabled", check=check_column)

    registering = event("E_REGISTRANT_REGISTERING", "aor", "contact", "registrar")
    authenticating = event("E_REGISTRANT_AUTHENTICATING", "aor", "contact", "registrar")
    registered = event("E_REGISTRANT_REGISTERED", "aor", "contact", "registrar")
    register_timeout = event("E_REGISTRANT_REGISTER_TIMEOUT", "aor", "contact", "registrar")
    internal_error = event("E_REGISTRANT_INTERNAL_ERROR", "aor", "contact", "registrar")
    wrong_credentials = event("E_REGISTRANT_WRONG_CREDENTIALS", "aor", "contact", "registrar")
    registrar_error = event("E_REGISTRANT_REGISTRAR_ERROR", "aor", "contact", "registrar")
    unregistering = event("E_REGISTRANT_UNREGISTERING", "aor", "contact", "registrar")
    authenticating_unregister = event("E_REGISTRANT_AUTHENTICATING_UNREGISTER", "aor", "contact", "registrar")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._known: dict[Key, Registration] = {}

    async def start(self) -> None:
        """Load the table, and begin to register as soon as the sockets are open."""
        user = self.server.user
        self._group: Group = user.status.group("uac_registrant")
        self._rules = Rules(self.reregister_expiry_percentage, self.failure_retry_interval)
        self._database = await self.server.databases.open(self.db_url)
        await self.server.databases.check(self._database, self.table_name, VERSION)
        for account, enabled in await self._load():
            self._add(account, enabled, 1 + len(self._known))

    async def stop(self) -> None:
        """Send nothing more."""
        for registration in self._known.values():
            registration.stop()

    # -- the table

    async def _load(self, key: Key | None = None) -> list[tuple[Account, bool]]:
        columns = [
            self.aor_column, self.binding_URI_column, self.registrar_column, self.proxy_column,
            self.third_party_registrant_column, self.username_column, self.password_column, self.binding_params_column,
            self.expiry_column, self.forced_socket_column, self.cluster_shtag_column, self.state_column,
        ]
        where: dict[str, Value] = {}
        if key is not None:
            where = dict(zip(columns[:3], key, strict=True))
        found = []
        for row in await self._database.select(self.table_name, columns, where):
            texts = ["" if value is None else str(value) for value in row]
            aor, contact, registrar, proxy, third_party, username, password, params = texts[:8]
            expires = int(row[8] or 0) or self.default_expires
            account = Account(
                aor, contact, registrar, proxy, third_party, username, password, params, expires, texts[9], texts[10]
            )
            problem = self._problem(account)
            if problem:
                self.server.user.log(-1, f"uac_registrant: {account.aor} of the table {self.table_name} is left out: {problem}")
            else:
                found.append((account, texts[11] in ("", "0")))
        return found

    def _problem(self, account: Account) -> str:
        try:
            account.check()
        except MalformedMessage as error:
            return str(error)
        if account.socket and self.server.user.find_socket(account.socket) is None and self.server.user.sockets:
            return f"{account.socket} is no socket of ours"
        return ""

    def _add(self, account: Account, enabled: bool, place: int) -> Registration:
        made = Registration(account, self._rules, self.server.user, self._send, self._told)
        made.enabled = enabled
        self._known[account.key] = made
        self._group.identifier(_identifier(account), NOT_READY).report(f"created with state {_name(made.state)}")
        if enabled:
            made.begin_after(place * PACE)
        return made

    async def _send(self, request: Request, answer: Any, next_hop: str | None, socket: Any) -> bool:
        return await self.tm.originate(request, answer, next_hop=next_hop, socket=socket)

    def _told(self, registration: Registration) -> None:
        """Tell of a new state."""
        account, state = registration.account, registration.state
        told = getattr(self, state.name.lower(), None)
        if told is not None:
            told.emit(aor=account.aor, contact=account.contact, registrar=account.registrar)
        found = self._group.find(_identifier(account))
        if found is not None:
            waits = (State.REGISTERING, State.AUTHENTICATING, State.UNREGISTERING, State.AUTHENTICATING_UNREGISTER)
            status = READY if state is State.REGISTERED else LOADING if state in waits else NOT_READY
            found.set(status, _name(state))
            found.report(f"state changed to {_name(state)}")

    # -- management

    def _find(self, aor: str, contact: str, registrar: str) -> Registration:
        found = self._known.get((aor, contact, registrar))
        if found is None:
            raise MIError(404, "No such registrant")
        return found

    @mi(name="list", alias="reg_list", recipes=_ALL_OR_ONE)
    def mi_list(self, aor: str = "", contact: str = "", registrar: str = "") -> dict[str, Any]:
        """Show the registrations and how they stand, or one of them."""
        if aor:
            return {"Registrant": self._shown(self._find(aor, contact, registrar))}
        return {"Records": [self._shown(registration) for registration in self._known.values()]}

    def _shown(self, registration: Registration) -> dict[str, Any]:
        account = registration.account
        shown: dict[str, Any] = {
            "AOR": account.aor,
            "expires": registration.expires,
            "state": _name(registration.state),
            "enabled": "yes" if registration.enabled else "no",
            "last_register_sent": time.ctime(registration.sent_at),
            "registration_t_out": time.ctime(registration.due_at),
            "registrar": account.registrar,
            "binding": account.contact,
        }
        optional = {
            "binding_params": account.params, "third_party_registrant": account.third_party, "proxy": account.proxy,
            "cluster_shtag": account.shtag,
        }
        shown.update({name: value for name, value in optional.items() if value})
        target = Uri.parse(account.proxy or account.registrar)
        transport = (target.param("transport") or "udp").lower()
        six = is_address(target.address) and ":" in target.address
        user = self.server.user
        socket = user.find_socket(account.socket) if account.socket else user.default_socket(transport, six)
        if socket is not None:
            shown["socket"] = f"{socket.transport}:{socket.host}:{socket.port}"
        if is_address(target.address):
            shown["dst_IP"] = "IPv6" if six else "IPv4"
            shown["ip"] = target.address
        return shown

    @mi(name="reload", alias="reg_reload", recipes=_ALL_OR_ONE)
    async def mi_reload(self, aor: str = "", contact: str = "", registrar: str = "") -> None:
        """Read the table again, or one row of it; what is gone there is unregistered, what has changed registers anew."""
        key = (aor, contact, registrar) if aor else None
        try:
            rows = await self._load(key)
        except DatabaseError as error:
            raise MIError(500, f"Failed to load the table: {error}") from None
        if key is not None and not rows:
            raise MIError(404, "No such registrant")
        for place, (account, enabled) in enumerate(rows, 1):
            self._set(account, enabled, place)
        if key is None:
            kept = {account.key for account, _ in rows}
            for registration in [each for key, each in self._known.items() if key not in kept]:
                self._drop(registration)

    def _set(self, account: Account, enabled: bool, place: int) -> None:
        """Have a registration as ``account`` says, whether there is one of that key or not."""
        known = self._known.get(account.key)
        if known is None:
            self._add(account, enabled, place)
            return
        changed = known.account != account
        known.change(account)
        if enabled and (changed or not known.enabled):
            known.enabled = True
            known.begin_after(place * PACE)
        elif not enabled and known.enabled:
            self._disable(known)

    def _disable(self, registration: Registration) -> None:
        registration.enabled = False
        registration.unregister()

    def _drop(self, registration: Registration) -> None:
        """Unregister, and forget."""
        del self._known[registration.account.key]
        name = _identifier(registration.account)
        registration.enabled = False
        if registration.state is State.NOT_REGISTERED:
            registration.stop()
            self._group.remove(name)
        else:
            registration.unregister(lambda: self._group.remove(name))

    async def _store(self, registration: Registration) -> None:
        account = registration.account
        where: dict[str, Value] = {
            self.aor_column: account.aor, self.binding_URI_column: account.contact, self.registrar_column: account.registrar,
        }
        try:
            await self._database.update(self.table_name, {self.state_column: 0 if registration.enabled else 1}, where)
        except DatabaseError as error:
            raise MIError(500, f"Failed to update the table: {error}") from None

    @mi(name="enable", alias="reg_enable", recipes=_ONE)
    async def mi_enable(self, aor: str, contact: str, registrar: str) -> None:
        """Register one that was disabled; the table says so from now on."""
        found = self._find(aor, contact, registrar)
        if not found.enabled:
            found.enabled = True
            found.register()
            await self._store(found)

    @mi(name="disable", alias="reg_disable", recipes=_ONE)
    async def mi_disable(self, aor: str, contact: str, registrar: str) -> None:
        """Unregister one, and register it no more; the table says so from now on."""
        found = self._find(aor, contact, registrar)
        if found.enabled:
            self._disable(found)
            await self._store(found)

    @mi(name="force_register", alias="reg_force_register", recipes=_ONE)
    def mi_force_register(self, aor: str, contact: str, registrar: str) -> None:
        """Register one now, whether it is due or not."""
        found = self._find(aor, contact, registrar)
        if not found.enabled:
            raise MIError(400, "Registrant is disabled")
        found.register()

    @mi(name="upsert", alias="reg_upsert")
    def mi_upsert(
        self, aor: str, contact: str, registrar: str, proxy: str, third_party_registrant: str, username: str, password: str,
        binding_params: str, expiry: int, forced_socket: str, cluster_shtag: str, state: int,
    ) -> None:  # fmt: skip
        """Add a registration, or change one, in memory only. ``state``: 0 for enabled, 1 for disabled."""
        account = Account(
            aor, contact, registrar, proxy, third_party_registrant, username, password, binding_params,
            expiry or self.default_expires, forced_socket, cluster_shtag,
        )
        problem = self._problem(account)
        if problem:
            raise MIError(400, f"Invalid registrant: {problem}")
        self._set(account, not state, 1)

    @mi(name="delete", alias="reg_delete", recipes=_ONE)
    def mi_delete(self, aor: str, contact: str, registrar: str) -> None:
        """Unregister one, and forget it, in memory only."""
        self._drop(self._find(aor, contact, registrar))


def _name(state: State) -> str:
    return f"{state.name}_STATE"


def _identifier(account: Account) -> str:
    return f"aor={account.aor};contact={account.contact};registrar={account.registrar}"
