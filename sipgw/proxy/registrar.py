"""The registrar (RFC 3261 10.3): a REGISTER applied to a location table, and what to answer.

``Registrar.save`` goes through the steps of the RFC: the address-of-record (step 5), the contacts (6, 7), the bindings that they
change, and the answer that lists all there are now (8). It works in two halves: all that can go wrong is found out first, then
everything is written, so that a refused request has changed nothing ("MUST NOT be partially applied").

Codes and texts are OpenSIPS's: the reason of a refusal goes out in ``P-Registrar-Error``, with the contacts as they are. Where
OpenSIPS departs from the RFC, its way is taken if scripts or phones can depend on it:

- An interval below ``min_expires`` is raised to it. The RFC's 423 (step 7) is had with the flag ``reject-too-brief``.
- A CSeq that was seen before is accepted again (``allow_dup_cseq``); without that, for ``cseq_delay`` seconds as a repetition
  that changes nothing. A lower one is always refused.
- A refresh whose Contact is equal but not the same text keeps the old text.

It departs from OpenSIPS where that breaks a promise: there a request refused for its second contact has saved its first one,
``max-contacts`` counts contacts that the same request removes, and ``*`` passes whatever its CSeq.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from sys import intern
from typing import Any, Final, NamedTuple

from sipgw.proxy.location import AOR_CONTACTS, Binding, LocationTable, binding_key, find_contact
from sipgw.proxy.register import (
    Rejected,
    bad,
    methods_mask,
    read_allow,
    read_contacts,
    read_expires,
    read_path,
    read_q,
    read_to,
    sip_uri,
    written_q,
)
from sipgw.proxy.registrar_flags import SaveFlags
from sipgw.script.run import Run
from sipgw.sip.address import Contact
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import parse_uint, unescape, unquote
from sipgw.sip.limits import LIMITS
from sipgw.sip.message import Message
from sipgw.sip.uri import Uri, same_uri

__all__ = ["Answer", "Registrar", "Settings"]

LONGEST: Final = 2**31 - 1
"""The most seconds that a binding may last, where ``max_expires`` sets no bound: more than that overflows in many phones."""
MALFORMED_EXPIRES: Final = 3600
"""What an expires parameter that is no number counts as (RFC 3261 10.2.1.1)."""

_plain_aor = re.compile(r"sips?:([A-Za-z0-9\-_.!~*'()&=+$,/]+)@([a-z0-9.\-]+)").fullmatch
@dataclass(slots=True)
class Settings:
    """The parameters of usrloc and registrar that decide what a REGISTER does; seconds, thousandths, characters."""

    default_expires: int = 3600
    min_expires: int = 60
    max_expires: int = 0
    default_q: int = -1
    case_sensitive: bool = True
    use_domain: bool = True
    realm_prefix: str = ""
    received_param: str = "received"
    received_avp: str = ""
    attr_avp: str = ""
    retry_after: int = 0
    sock_hdr_name: str = ""
    max_contacts: int = 0
    max_username_len: int = 64
    max_domain_len: int = 64
    max_aor_len: int = 256
    max_contact_len: int = LIMITS.uri
    max_received_len: int = 255
    allow_dup_cseq: bool = True
    expires_max_deviation: int = 0
    match_call_id: bool = False
    cseq_delay: int = 20
    nat_flag: int = 0


class Answer(NamedTuple):
    """A response to be sent: ``headers`` are whole lines."""

    status: int
    reason: str
    headers: str


class _Change:
    """What one contact of the request is going to do.

    ``binding`` is the one that is there already, or None; ``seconds`` 0 removes it; the rest is as in ``Binding``."""

    __slots__ = ("binding", "contact", "instance", "key", "methods", "q", "received", "reg_id", "seconds")

    def __init__(self, contact: str, binding: Binding | None, key: int, seconds: int, q: int, methods: int) -> None:
        self.contact = contact
        self.binding = binding
        self.key = key
        self.seconds = seconds
        self.q = q
        self.methods = methods
        self.received: str | None = None
        self.instance: str | None = None
        self.reg_id: str | None = None


class Registrar:
    """Applies REGISTER requests, as ``settings`` say."""

    def __init__(self, settings: Settings | None = None, random: Random | None = None) -> None:
        self.settings = settings or Settings()
        self.random = random or Random()

    # -- the address-of-record

    def aor(self, text: str) -> str:
        """The address-of-record that the URI ``text`` names, as tables have it: ``user@domain`` (RFC 3261 10.3 step 5).

        Escapes of the user are resolved, the domain is in lower case; ``Rejected`` if it is none, or too long."""
        settings = self.settings
        plain = _plain_aor(text)
        if plain is not None:
            user, host = plain.groups()
        else:
            try:
                uri = Uri.parse(text)
            except MalformedMessage:
                raise bad("Error while parsing AOR") from None
            if not uri.is_sip and uri.scheme != "tel":
                raise bad("Error while parsing AOR")
            user = unescape(uri.user or "")
            host = uri.host.lower()
        if settings.realm_prefix and host.startswith(settings.realm_prefix) and host != settings.realm_prefix:
            host = host[len(settings.realm_prefix):]
        if len(user) > settings.max_username_len or len(host) > settings.max_domain_len:
            raise Rejected(500, "Server Internal Error", "Address Of Record too long")
        if not settings.use_domain:
            if not user:
                raise bad("Error while parsing AOR")
            aor = user
        elif user:
            aor = f"{user}@{host}"
        else:
            aor = host
        if len(aor) > settings.max_aor_len:
            raise Rejected(500, "Server Internal Error", "Address Of Record too long")
        return aor if settings.case_sensitive else aor.lower()

    # -- save()

    def save(self, run: Run, table: LocationTable, flags: SaveFlags, uri: str | None = None) -> Answer:
        """Apply the REGISTER of ``run`` to ``table``; ``uri``: the address-of-record, if it is not that of To."""
        request = run.message
        now = run.now
        aor = ""
        headers = ""
        listed = False
        try:
            aor = self.aor(read_to(request) if uri is None else uri)
            contacts = read_contacts(request)
            expires = read_expires(request)
            only: list[Binding] | None = [] if flags.only_request_contacts else None
            if contacts:
                if contacts[0].star:
                    self._remove_all(request, table, aor, contacts, expires, now)
                else:
                    listed = True
                    headers = self._update(run, table, aor, contacts, expires, flags, only)
        except Rejected as refusal:
            return self._refuse(refusal, table.live(aor, now) if listed else (), now)
        except MalformedMessage as error:
            return self._refuse(bad(error.reason), (), now)
        bindings = table.live(aor, now) if only is None else [binding for binding in only if binding.bucket != -1]
        if bindings:
            headers = self.contact_line(bindings, now) + headers
        return Answer(200, "OK", headers)

    def contact_line(self, bindings: Sequence[Binding], now: float) -> str:
        """The Contact header field that lists ``bindings`` (RFC 3261 10.3 step 8), with its end of line."""
        values = []
        for binding in bindings:
            q = f";q={written_q(binding.q)}" if binding.q >= 0 else ""
            value = f"<{binding.contact}>{q};expires={binding.seconds_left(now)}"
            if binding.received:
                value += f';{self.settings.received_param}="{binding.received}"'
            values.append(value)
        return f"Contact: {', '.join(values)}\r\n"

    def _refuse(self, refusal: Rejected, bindings: Sequence[Binding], now: float) -> Answer:
        headers = self.contact_line(bindings, now) if bindings else ""
        headers += f"{refusal.headers}P-Registrar-Error: {refusal.error}\r\n"
        if self.settings.retry_after > 0 and refusal.status >= 500:
            headers += f"Retry-After: {self.settings.retry_after}\r\n"
        return Answer(refusal.status, refusal.reason, headers)

    def _remove_all(
        self, request: Message, table: LocationTable, aor: str, contacts: list[Contact], expires: int | None, now: float
    ) -> None:
        """``Contact: *`` (step 6): all bindings go, or none."""
        if len(contacts) > 1:
            raise bad("* used in contact and more than 1 contact")
        if expires != 0:
            raise bad("* used in contact and expires is not zero")
        call_id, cseq = request.call_id, request.cseq.number
        bindings = [*table.bindings(aor)]
        for binding in bindings:
            if binding.call_id == call_id and not self._is_newer(binding, cseq, now):
                return
        for binding in bindings:
            table.remove(binding)

    def _is_newer(self, binding: Binding, cseq: int, now: float) -> bool:
        """Whether a request of the binding's own Call-ID may change it (step 7); False: it is a repetition."""
        if cseq > binding.cseq:
            return True
        if cseq == binding.cseq:
            if self.settings.allow_dup_cseq:
                return True
            if now - binding.modified < self.settings.cseq_delay:
                return False
        raise bad("Invalid CSeq number")

    def _update(
        self,
        run: Run,
        table: LocationTable,
        aor: str,
        contacts: list[Contact],
        expires: int | None,
        flags: SaveFlags,
        only: list[Binding] | None,
    ) -> str:
        """Add, refresh and remove single contacts (step 7); returns header lines for the answer."""
        request, now = run.message, run.now
        path, path_received, headers = (None, None, "") if not flags.path else read_path(request, flags.path, flags.path_received)
        bindings = table.live(aor, now)
        changes = []
        evicted: Sequence[Binding] = ()
        adds = False
        for contact in contacts:
            change = self._change(request, now, bindings, contact, expires, flags)
            if change is not None:
                changes.append(change)
                adds = adds or (change.binding is None and change.seconds > 0)
        if len(changes) > 1:
            changes = _without_repeated(changes)
        if adds:
            evicted = self._make_room(table, bindings, changes, flags)
        received = path_received or self._received(run)
        branch_flags = run.branch_flags | (self.settings.nat_flag if path_received else 0)
        attr = _avp(run, self.settings.attr_avp)
        socket = self._socket(run, flags)
        user_agent = intern(request.value(request.names.index("user-agent"))) if "user-agent" in request.names else ""
        call_id, cseq = request.call_id, request.cseq.number
        rewrite = flags.match not in (None, "0", "1")
        for binding in evicted:
            table.remove(binding)
        for change in changes:
            found = change.binding
            if change.seconds == 0:
                if found is not None:
                    table.remove(found)
                continue
            if found is None:
                binding = Binding(aor, change.contact, change.key, now + change.seconds, call_id, cseq, now)
                old_q = None
            else:
                binding = found
                old_q = binding.q
                binding.expires = now + change.seconds
                binding.call_id = call_id
                binding.cseq = cseq
                binding.modified = now
                if rewrite and binding.contact != change.contact:
                    binding.contact = change.contact
                    binding.key = binding_key(Uri.parse(change.contact))
            binding.q = change.q
            binding.methods = change.methods
            binding.instance = change.instance
            binding.reg_id = change.reg_id
            binding.received = received or change.received
            binding.path = path
            binding.flags = branch_flags
            binding.socket = socket
            binding.attr = attr
            binding.user_agent = user_agent
            if found is None:
                table.insert(binding)
            else:
                table.changed(binding, old_q)
            if only is not None:
                only.append(binding)
        return headers

    def _change(
        self,
        request: Message,
        now: float,
        bindings: Sequence[Binding],
        contact: Contact,
        expires: int | None,
        flags: SaveFlags,
    ) -> _Change | None:
        """What ``contact`` asks for; None for a repetition. ``Rejected`` if it cannot be done."""
        settings = self.settings
        text = contact.uri_text
        key = 0
        try:
            params = contact.params
            binding = self._find(bindings, text, request.call_id, flags)
            if binding is None:
                uri = Uri.parse(text)
                if not uri.is_sip and uri.scheme != "tel":
                    raise bad("Contact parse error")
                key = binding_key(uri)
        except MalformedMessage:
            raise bad("Contact parse error") from None
        if binding is not None and binding.call_id == request.call_id:
            if not self._is_newer(binding, request.cseq.number, now):
                return None
        if len(text) > settings.max_contact_len:
            raise bad("Contact/received too long")
        q = settings.default_q
        if not params:
            return _Change(text, binding, key, self._seconds(None, expires, flags), q, read_allow(request))
        written = params.get("q")
        if written:
            q = read_q(written)
        methods = params.get("methods")
        mask = read_allow(request) if methods is None else methods_mask(unquote(methods))
        asked = (params["expires"] or "") if "expires" in params else None
        change = _Change(text, binding, key, self._seconds(asked, expires, flags), q, mask)
        change.instance = unquote(params.get("+sip.instance") or "") or None
        change.reg_id = params.get("reg-id")
        change.received = sip_uri(params.get(settings.received_param))
        return change

    def _find(self, bindings: Sequence[Binding], text: str, call_id: str, flags: SaveFlags) -> Binding | None:
        """The binding that a contact of the request means, by the matching mode."""
        mode = flags.match or ("1" if self.settings.match_call_id else "0")
        if mode == "0":
            return find_contact(bindings, text)
        if mode == "1":
            return find_contact(bindings, text, call_id)
        value = Uri.parse(text).param(mode)
        if value is None:
            return find_contact(bindings, text)
        for binding in bindings:
            if Uri.parse(binding.contact).param(mode) == value:
                return binding
        return None

    def _seconds(self, asked: str | None, expires: int | None, flags: SaveFlags) -> int:
        """How long the binding shall last; 0 to remove it (steps 6 and 7). ``asked``: the contact's own parameter."""
        settings = self.settings
        if asked is not None:
            try:
                seconds = parse_uint(unquote(asked), LIMITS.expires)
            except MalformedMessage:
                seconds = MALFORMED_EXPIRES
        elif expires is not None:
            seconds = expires
        else:
            seconds = settings.default_expires
        if seconds == 0:
            return 0
        least = settings.min_expires if flags.min_expires is None else flags.min_expires
        most = settings.max_expires if flags.max_expires is None else flags.max_expires
        if seconds < least and seconds < 3600 and flags.reject_too_brief:
            raise Rejected(423, "Interval Too Brief", "Expires too brief", f"Min-Expires: {least}\r\n")
        deviation = settings.expires_max_deviation
        if deviation:
            seconds = max(1, seconds + self.random.randint(-deviation, deviation))
        if seconds < least:
            seconds = least
        if most and seconds > most:
            seconds = most
        return min(seconds, LONGEST)

    def _make_room(
        self, table: LocationTable, bindings: Sequence[Binding], changes: list[_Change], flags: SaveFlags
    ) -> list[Binding]:
        """See to it that the new contacts fit: ``Rejected`` if not, or the bindings that must go for them (``force``)."""
        limit = self.settings.max_contacts if flags.max_contacts is None else flags.max_contacts
        limit = min(limit or AOR_CONTACTS, AOR_CONTACTS)
        gone = {id(change.binding) for change in changes if change.seconds == 0}
        added = [change for change in changes if change.binding is None and change.seconds > 0]
        if table.count + len(added) > table.capacity:
            raise Rejected(503, "Service Unavailable", "Too many registered contacts")
        kept: list[Binding | _Change] = [binding for binding in bindings if id(binding) not in gone]
        if len(kept) + len(added) <= limit:
            return []
        if not flags.force:
            raise Rejected(503, "Service Unavailable", "Too many registered contacts")
        # COMPAT: each new contact takes the place of the last one in order, be that a new one itself
        evicted: list[Binding] = []
        for change in added:
            while len(kept) >= limit:
                last = kept.pop()
                if isinstance(last, Binding):
                    evicted.append(last)
                else:
                    changes.remove(last)
            place = 0
            if not table.by_time:
                while place < len(kept) and kept[place].q >= change.q:
                    place += 1
            kept.insert(place, change)
        out = {id(binding) for binding in evicted}
        changes[:] = [change for change in changes if change.binding is None or id(change.binding) not in out]
        return evicted

    def _received(self, run: Run) -> str | None:
        """Where the contact can be reached, if the script put it into ``received_avp``."""
        value = _avp(run, self.settings.received_avp)
        if value is None:
            return None
        if len(value) > self.settings.max_received_len:
            raise bad("Contact/received too long")
        if sip_uri(value) is None:
            raise Rejected(500, "Server Internal Error", "usrloc_contact_insert failed")
        return value

    def _socket(self, run: Run, flags: SaveFlags) -> Any:
        """The socket by which the contact is reached: that of the request, or the one that its socket header names."""
        flow = run.flow
        if flags.socket_header and self.settings.sock_hdr_name:
            text = run.message.header(self.settings.sock_hdr_name)
            named = run.user.find_socket(text) if text else None
            if named is not None:
                return named
        return None if flow is None else flow.socket


def _without_repeated(changes: list[_Change]) -> list[_Change]:
    """``changes`` with only the last of those that mean the same contact."""
    kept: list[_Change] = []
    for change in changes:
        for index, other in enumerate(kept):
            if change.binding is not None:
                same = other.binding is change.binding
            else:
                same = other.binding is None and other.key == change.key and same_uri(other.contact, change.contact)
            if same:
                del kept[index]
                break
        kept.append(change)
    return kept


def _avp(run: Run, name: str) -> str | None:
    """The newest value of an AVP as text; None if it has none, or no name is set."""
    values = run.avps.get(name) if name else None
    return str(values[-1]) if values else None
