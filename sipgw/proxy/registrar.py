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
from random import Random
from typing import Final, NamedTuple

from sipgw.proxy.gruu import Device, is_temporary, newest, public_device
from sipgw.proxy.location import Binding, LocationTable
from sipgw.proxy.location_drafts import Draft, NotStored
from sipgw.proxy.register import Rejected, bad, options, read_contacts, read_expires, read_to, written_q
from sipgw.proxy.registrar_flags import SaveFlags
from sipgw.proxy.saving import Granted, Saving, Settings
from sipgw.script.run import Run
from sipgw.sip.address import Contact
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import unescape
from sipgw.sip.message import MAX_KNOWN, MAX_KNOWN_LENGTH, Request, Response
from sipgw.sip.uri import Uri

__all__ = ["Answer", "Registrar", "Settings"]

RETRY_AFTER: Final = 10
"""Seconds after which a phone shall try again whose contact could not be saved, unless ``retry_after`` says it."""

_plain_aor = re.compile(r"sips?:([A-Za-z0-9\-_.!~*'()&=+$,/]+)@([a-z0-9.\-]+)").fullmatch


class Answer(NamedTuple):
    """A response to be sent: ``headers`` are whole lines, ``rest`` those that do not list ``bindings``."""

    status: int
    reason: str
    headers: str
    bindings: Sequence[Binding] = ()
    rest: str = ""
    gruu_of: Uri | None = None


class Registrar:
    """Applies REGISTER requests, as ``settings`` say."""

    def __init__(self, settings: Settings | None = None, random: Random | None = None) -> None:
        self.settings = settings or Settings()
        self.random = random or Random()
        self._aors: dict[str, str] = {}
        """The addresses-of-record of URIs seen lately."""

    # -- the address-of-record

    def aor(self, text: str) -> str:
        """The address-of-record that the URI ``text`` names, as tables have it: ``user@domain`` (RFC 3261 10.3 step 5).

        Escapes of the user are resolved, the domain is in lower case; ``Rejected`` if it is none, or too long."""
        known = self._aors.get(text)
        if known is None:
            known = self._aor(text)
            if len(text) < MAX_KNOWN_LENGTH:
                if len(self._aors) >= MAX_KNOWN:
                    self._aors.clear()
                self._aors[text] = known
        return known

    def _aor(self, text: str) -> str:
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

    def target(self, text: str) -> tuple[str, Device | None]:
        """The address-of-record behind the URI ``text``, and the device if it is a GRUU (RFC 5627 6.1). ``Rejected`` as ``aor``.

        COMPAT: a public GRUU means its device even where no GRUUs are given out (``disable_gruu``)."""
        if _plain_aor(text) is None and ";gr" in text.lower():
            try:
                uri = Uri.parse(text)
            except MalformedMessage:
                raise bad("Error while parsing AOR") from None
            gruus = self.settings.gruus
            if gruus is not None and is_temporary(uri):
                return gruus.read(uri.user) or ("", None)
            return self.aor(text), public_device(uri)
        return self.aor(text), None

    def live(self, table: LocationTable, text: str, now: float) -> Sequence[Binding]:
        """The bindings of the user that the URI ``text`` names; the one that a GRUU leads to, if it is one."""
        aor, device = self.target(text)
        bindings = table.live(aor, now)
        if device is not None:
            return newest(filter(device.has, bindings))
        return bindings

    # -- save()

    def save(self, run: Run, table: LocationTable, flags: SaveFlags, uri: str | None = None) -> Answer:
        """Apply the REGISTER of ``run`` to ``table``; ``uri``: the address-of-record, if it is not that of To.

        In a reply route the REGISTER is ``run.request``, and what another registrar has granted counts (``Granted``)."""
        request = run.message
        granted = None
        if isinstance(request, Response):
            granted = Granted.of(run, self.settings.mcontact_avp)
            assert run.request is not None
            request = run.request
        assert isinstance(request, Request)
        now = run.now
        aor = ""
        headers = ""
        listed = False
        gruu_of: Uri | None = None
        saving: Saving | None = None
        try:
            uri = read_to(request) if uri is None else uri
            aor = self.aor(uri)
            contacts = read_contacts(request)
            if self.settings.gruus is not None:
                self._refuse_loops(contacts, aor)
                if "gruu" in map(str.lower, options(request)):
                    gruu_of = Uri.parse(uri)
            expires = read_expires(request)
            if contacts:
                saving = Saving(self.settings, self.random, run, request, table, aor, flags, expires, granted)
                if contacts[0].star:
                    saving.remove_all(contacts)
                else:
                    listed = True
                    headers = saving.update(contacts)
        except Rejected as refusal:
            return self._refuse(refusal, table.live(aor, now) if listed else (), now)
        except MalformedMessage as error:
            return self._refuse(bad(error.reason), (), now)
        if flags.only_request_contacts:
            bindings: Sequence[Binding] = () if saving is None else saving.written
        else:
            bindings = table.live(aor, now)
        if not bindings:
            return Answer(200, "OK", headers)
        return Answer(200, "OK", self.contact_line(bindings, now, gruu_of) + headers, bindings, headers, gruu_of)

    def aor_of(self, run: Run, uri: str | None = None) -> str | None:
        """The address-of-record that ``save`` will change; None if it will find none."""
        request = run.message if isinstance(run.message, Request) else run.request
        try:
            return None if request is None else self.aor(read_to(request) if uri is None else uri)
        except (Rejected, MalformedMessage):
            return None

    def not_saved(self, answer: Answer | None, draft: Draft | None, now: float, error: NotStored) -> Answer:
        """What takes the place of ``answer`` when ``draft`` could not be made safe, or not even begun (None).

        A refresh is answered with the time that its contacts have anyway. All else is refused, with a time to try again."""
        if error.refused:
            return self._refuse(Rejected(500, "Server Internal Error", "The database does not take the contact"), (), now)
        if answer is not None and draft is not None and draft.promises_nothing(now):
            there = [draft.before[binding.serial] for binding in answer.bindings]
            return Answer(200, "OK", self.contact_line(there, now, answer.gruu_of) + answer.rest, there, answer.rest)
        after = f"Retry-After: {RETRY_AFTER}\r\n" if self.settings.retry_after <= 0 else ""
        return self._refuse(Rejected(503, "Service Unavailable", "Contacts cannot be saved now", after), (), now)

    def _refuse_loops(self, contacts: Sequence[Contact], aor: str) -> None:
        """Refuse a contact that is a GRUU of the user itself: requests would come back for ever (RFC 5627 5.1)."""
        for contact in contacts:
            if ";gr" in contact.uri_text.lower():
                try:
                    found, device = self.target(contact.uri_text)
                except Rejected:
                    continue
                if device is not None and found == aor:
                    raise Rejected(403, "Forbidden", "Contact is a GRUU of the same user")

    def contact_line(self, bindings: Sequence[Binding], now: float, gruu_of: Uri | None = None) -> str:
        """The Contact header field that lists ``bindings`` (RFC 3261 10.3 step 8), with its end of line.

        ``gruu_of``: the address-of-record, if the phone wants GRUUs."""
        gruus = self.settings.gruus
        values = []
        for binding in bindings:
            q = f";q={written_q(binding.q)}" if binding.q >= 0 else ""
            value = f"<{binding.contact}>{q};expires={binding.seconds_left(now)}"
            if binding.received:
                value += f';{self.settings.received_param}="{binding.received}"'
            if gruu_of is not None and gruus is not None:
                value += gruus.params(binding, gruu_of)
            values.append(value)
        return f"Contact: {', '.join(values)}\r\n"

    def _refuse(self, refusal: Rejected, bindings: Sequence[Binding], now: float) -> Answer:
        headers = self.contact_line(bindings, now) if bindings else ""
        headers += f"{refusal.headers}P-Registrar-Error: {refusal.error}\r\n"
        if self.settings.retry_after > 0 and refusal.status >= 500:
            headers += f"Retry-After: {self.settings.retry_after}\r\n"
        return Answer(refusal.status, refusal.reason, headers)
