"""One REGISTER being applied to a location table: the part of the registrar that changes bindings (RFC 3261 10.3 steps 6, 7).

``Saving`` first finds out what each contact asks for, and whether it may (``_change``); only then it writes. It is made for one
request and thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from sys import intern
from typing import Any, Final

from sipgw.proxy.gruu import Gruus
from sipgw.proxy.location import AOR_CONTACTS, MEMORY_ONLY, Binding, LocationTable, binding_key, find_contact
from sipgw.proxy.push import NOTHING, PN_CONTACT, Kind, Push, Wish
from sipgw.proxy.register import Rejected, bad, methods_mask, read_allow, read_path, read_q, sip_uri
from sipgw.proxy.registrar_flags import SaveFlags
from sipgw.script.run import Run
from sipgw.sip.address import Contact
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import parse_uint, unquote
from sipgw.sip.limits import LIMITS
from sipgw.sip.message import Request
from sipgw.sip.uri import Uri, same_uri

__all__ = ["Granted", "Saving", "Settings"]

LONGEST: Final = 2**31 - 1
"""The most seconds that a binding may last, where ``max_expires`` sets no bound: more than that overflows in many phones."""
MALFORMED_EXPIRES: Final = 3600
"""What an expires parameter that is no number counts as (RFC 3261 10.2.1.1)."""


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
    mcontact_avp: str = ""
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
    gruus: Gruus | None = None
    """Makes the GRUUs for the answers (RFC 5627); None: there are none."""
    push: Push | None = None
    """How phones are woken (RFC 8599); None: they are not."""


class Granted:
    """What another registrar has answered to a REGISTER that was relayed to it (``save()`` in a reply route).

    ``sent``: the contact as it was relayed, where that is not as the phone wrote it (``mcontact_avp``)."""

    def __init__(self, contacts: list[Contact], sent: str | None) -> None:
        self.contacts = contacts
        self.sent = sent

    @classmethod
    def of(cls, run: Run, avp: str) -> Granted:
        """Read the response of ``run``; one whose contacts cannot be read grants what was asked for."""
        try:
            contacts = [contact for contact in run.message.contacts if not contact.star]
        except MalformedMessage:
            contacts = []
        return cls(contacts, newest(run, avp))

    def find(self, contact: str) -> Contact | None:
        """The granted contact that answers to ``contact`` of the request."""
        wanted = self.sent or contact
        for granted in self.contacts:
            try:
                if granted.uri_text == wanted or same_uri(granted.uri_text, wanted):
                    return granted
            except MalformedMessage:
                continue
        return None

    def restore(self, run: Run, contact: str) -> None:
        """Write ``contact`` back into the response, where it stands as it was relayed."""
        sent = f"<{self.sent}>"
        if self.sent is None or self.sent == contact:
            return
        message = run.message
        for line in message.positions("contact"):
            text = message.lines[line]
            start = text.find(sent)
            if start >= 0:
                run.edits = run.edits.replace_span(line, start, start + len(sent), f"<{contact}>")


class _Change:
    """What one contact of the request is going to do.

    ``binding`` is the one that is there already, or None; ``seconds`` 0 removes it; ``wish`` is that of RFC 8599; the rest is as
    in ``Binding``."""

    __slots__ = ("binding", "contact", "instance", "key", "methods", "q", "received", "reg_id", "seconds", "wish")

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
        self.wish = NOTHING

    def same(self, other: _Change) -> bool:
        """Whether ``other`` is about the same contact."""
        if self.binding is not None or other.binding is not None:
            return self.binding is other.binding
        if self.wish.key is not None and self.wish.key == other.wish.key:
            return True
        return self.key == other.key and same_uri(self.contact, other.contact)


class Saving:
    """One request on its way into the table; ``written`` are the bindings that it added or refreshed."""

    __slots__ = (
        "aor", "call_id", "cseq", "expires", "flags", "granted", "now", "push", "random", "request", "run", "settings",
        "table", "written",
    )

    def __init__(
        self,
        settings: Settings,
        random: Random,
        run: Run,
        request: Request,
        table: LocationTable,
        aor: str,
        flags: SaveFlags,
        expires: int | None,
        granted: Granted | None,
    ) -> None:
        self.settings = settings
        self.random = random
        self.run = run
        self.request = request
        self.table = table
        self.aor = aor
        self.flags = flags
        self.expires = expires
        """The Expires header of the request."""
        self.granted = granted
        self.now = run.now
        self.push = settings.push if flags.match is None else None  # COMPAT: who says how to match does not mean pn-params
        self.call_id = request.call_id
        self.cseq = request.cseq.number
        self.written: list[Binding] = []

    def remove_all(self, contacts: list[Contact]) -> None:
        """Do ``Contact: *`` (step 6): all bindings go, or none."""
        if len(contacts) > 1:
            raise bad("* used in contact and more than 1 contact")
        if self.expires != 0:
            raise bad("* used in contact and expires is not zero")
        bindings = [*self.table.bindings(self.aor)]
        for binding in bindings:
            if binding.call_id == self.call_id and not self._is_newer(binding):
                return
        for binding in bindings:
            self.table.remove(binding)

    def _is_newer(self, binding: Binding) -> bool:
        """Whether a request of the binding's own Call-ID may change it (step 7); False: it is a repetition."""
        if self.cseq > binding.cseq:
            return True
        if self.cseq == binding.cseq:
            if self.settings.allow_dup_cseq:
                return True
            if self.now - binding.modified < self.settings.cseq_delay:
                return False
        raise bad("Invalid CSeq number")

    def update(self, contacts: list[Contact]) -> str:
        """Add, refresh and remove single contacts (step 7); returns header lines for the answer."""
        flags = self.flags
        path, path_received, headers = None, None, ""
        if flags.path:
            path, path_received, headers = read_path(self.request, flags.path, flags.path_received)
        bindings = self.table.live(self.aor, self.now)
        changes = []
        evicted: Sequence[Binding] = ()
        adds = False
        for contact in contacts:
            change = self._change(bindings, contact)
            if change is not None:
                changes.append(change)
                adds = adds or (change.binding is None and change.seconds > 0)
        if len(changes) > 1:
            changes = _without_repeated(changes)
        if adds:
            evicted = self._make_room(bindings, changes)
        received = path_received or self._received()
        self._write(changes, evicted, received, path, self.settings.nat_flag if path_received else 0)
        if self.push is not None:
            headers += self.push.capabilities((each.wish, each.binding if each.seconds else None) for each in changes)
        return headers

    def _write(
        self, changes: list[_Change], evicted: Sequence[Binding], received: str | None, path: str | None, nat: int
    ) -> None:
        """Do what was found possible; nothing can go wrong any more."""
        run, request, table, now = self.run, self.request, self.table, self.now
        branch_flags = run.branch_flags | nat
        attr = newest(run, self.settings.attr_avp)
        socket = self._socket()
        user_agent = intern(request.value(request.names.index("user-agent"))) if "user-agent" in request.names else ""
        rewrite = self.flags.match not in (None, "0", "1")
        push = self.settings.push
        memory_only = MEMORY_ONLY if self.flags.memory_only else 0
        for binding in evicted:
            table.remove(binding)
        for change in changes:
            found = change.binding
            if change.seconds == 0:
                if found is not None:
                    table.remove(found)
                continue
            if found is None:
                binding = Binding(self.aor, change.contact, change.key, now + change.seconds, self.call_id, self.cseq, now)
                old_q = None
            else:
                binding = found
                old_q = binding.q
                binding.expires = now + change.seconds
                binding.call_id = self.call_id
                binding.cseq = self.cseq
                binding.modified = now
                if (rewrite or change.wish.key is not None) and binding.contact != change.contact:
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
            change.binding = binding
            sleeps = change.wish.kind is Kind.SLEEPS
            binding.marks = binding.marks & ~(PN_CONTACT | MEMORY_ONLY) | (PN_CONTACT if sleeps else 0) | memory_only
            if found is None:
                table.insert(binding)
            else:
                table.changed(binding, old_q)
            if table.wakes and push is not None:
                table.wake_at(binding, binding.expires - push.trigger_interval if sleeps else None)
            self.written.append(binding)

    def _change(self, bindings: Sequence[Binding], contact: Contact) -> _Change | None:
        """What ``contact`` asks for; None for a repetition. ``Rejected`` if it cannot be done."""
        settings = self.settings
        text = contact.uri_text
        key = 0
        try:
            params = contact.params
            wish = NOTHING if self.push is None else self.push.read(self.request, text)
            binding = self._find(bindings, text, wish)
            if binding is None:
                uri = Uri.parse(text)
                if not uri.is_sip and uri.scheme != "tel":
                    raise bad("Contact parse error")
                key = binding_key(uri)
            if self.granted is not None:
                granted = self.granted.find(text)
                params = params if granted is None else {**granted.params, **_without(params, "q", "expires")}
                self.granted.restore(self.run, text)
        except MalformedMessage:
            raise bad("Contact parse error") from None
        if binding is not None and binding.call_id == self.call_id:
            if not self._is_newer(binding):
                return None
        if len(text) > settings.max_contact_len:
            raise bad("Contact/received too long")
        q = settings.default_q
        if not params:
            change = _Change(text, binding, key, self._seconds(None), q, read_allow(self.request))
            change.wish = wish
            return change
        written = params.get("q")
        if written:
            q = read_q(written)
        methods = params.get("methods")
        mask = read_allow(self.request) if methods is None else methods_mask(unquote(methods))
        asked = (params["expires"] or "") if "expires" in params else None
        change = _Change(text, binding, key, self._seconds(asked), q, mask)
        change.wish = wish
        change.instance = unquote(params.get("+sip.instance") or "") or None
        change.reg_id = params.get("reg-id")
        change.received = sip_uri(params.get(settings.received_param))
        return change

    def _find(self, bindings: Sequence[Binding], text: str, wish: Wish) -> Binding | None:
        """The binding that a contact of the request means, by its push notification service or the matching mode."""
        if wish.key is not None and self.push is not None:
            for binding in bindings:
                if self.push.key(Uri.parse(binding.contact)) == wish.key:
                    return binding
            return None
        mode = self.flags.match or ("1" if self.settings.match_call_id else "0")
        if mode == "0":
            return find_contact(bindings, text)
        if mode == "1":
            return find_contact(bindings, text, self.call_id)
        value = Uri.parse(text).param(mode)
        if value is None:
            return find_contact(bindings, text)
        for binding in bindings:
            if Uri.parse(binding.contact).param(mode) == value:
                return binding
        return None

    def _seconds(self, asked: str | None) -> int:
        """How long the binding shall last; 0 to remove it (steps 6 and 7). ``asked``: the contact's own parameter."""
        settings, flags = self.settings, self.flags
        if asked is not None:
            try:
                seconds = parse_uint(unquote(asked), LIMITS.expires)
            except MalformedMessage:
                seconds = MALFORMED_EXPIRES
        elif self.expires is not None:
            seconds = self.expires
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

    def _make_room(self, bindings: Sequence[Binding], changes: list[_Change]) -> list[Binding]:
        """See to it that the new contacts fit: ``Rejected`` if not, or the bindings that must go for them (``force``)."""
        table, flags = self.table, self.flags
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

    def _received(self) -> str | None:
        """Where the contact can be reached, if the script put it into ``received_avp``."""
        value = newest(self.run, self.settings.received_avp)
        if value is None:
            return None
        if len(value) > self.settings.max_received_len:
            raise bad("Contact/received too long")
        if sip_uri(value) is None:
            raise Rejected(500, "Server Internal Error", "usrloc_contact_insert failed")
        return value

    def _socket(self) -> Any:
        """The socket by which the contact is reached: that of the request, or the one that its socket header names."""
        name = self.settings.sock_hdr_name
        if self.flags.socket_header and name:
            text = self.request.header(name)
            named = self.run.user.find_socket(text) if text else None
            if named is not None:
                return named
        flow = self.run.flow
        if self.granted is not None and self.run.transaction is not None:
            flow = self.run.transaction.run.flow
        return None if flow is None else flow.socket


def _without_repeated(changes: list[_Change]) -> list[_Change]:
    """``changes`` with one for each contact: what the last says of it, in the place and with the text of the first."""
    kept: list[_Change] = []
    for change in changes:
        for index, other in enumerate(kept):
            if change.same(other):
                change.contact = other.contact
                kept[index] = change
                break
        else:
            kept.append(change)
    return kept


def newest(run: Run, name: str) -> str | None:
    """The newest value of an AVP as text; None if it has none, or no name is set."""
    values = run.avps.get(name) if name else None
    return str(values[-1]) if values else None


def _without(params: dict[str, str | None], *names: str) -> dict[str, str | None]:
    return {name: value for name, value in params.items() if name not in names}
