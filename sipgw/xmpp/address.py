"""Jabber IDs and SIP URIs, one as the other (RFC 7247 5, 6; XEP-0106). Pure.

``sip:Alice%20S@example.org`` is known to Jabber as ``alice\\20s@sip.example.org``, where ``sip.example.org`` is the name by which
the domain is known there; ``romeo@jabber.example`` is ``sip:romeo@jabber.example`` in SIP, or, with a separator,
``sip:romeo*jabber.example@example.org``, which phones can dial that know their own domain only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import idna

from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.grammar import unescape as percent_decoded
from sipgw.sip.uri import Uri

__all__ = ["BadJid", "Domains", "Jid", "domain_in_ascii", "escape", "escape_user", "unescape"]

LONGEST: Final = 1023
"""Octets of each part of a JID (RFC 7622 3)."""
_CODES: Final = {" ": "20", '"': "22", "&": "26", "'": "27", "/": "2f", ":": "3a", "<": "3c", ">": "3e", "@": "40", "\\": "5c"}
_CHARS: Final = {f"\\{code}": char for char, code in _CODES.items()}
_ESCAPED: Final = re.compile(r"\\(?:2[0267f]|3[ace]|40|5c)", re.IGNORECASE)
_SPECIAL: Final = re.compile(r"[ \"&'/:<>@]|\\(?=(?:2[0267f]|3[ace]|40|5c))", re.IGNORECASE)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]")
_LABEL_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?)*\.?")
_USER: Final = re.compile(r"[^A-Za-z0-9\-_.!~*'()&=+$,?]")
"""What the user of a SIP URI has to escape (RFC 3261 25.1); ";" and "/" are escaped too, since phones and scripts cut there."""
_GR: Final = re.compile(r"[^A-Za-z0-9\-_.!~*'()\[\]/:&+$]")


class BadJid(SipError):
    """What was given is no Jabber ID, or cannot be made one."""

    def __init__(self, reason: str = "Bad Jabber ID", status: int = 404) -> None:
        super().__init__(reason, status)


def escape(user: str) -> str:
    """The localpart that stands for ``user`` (XEP-0106 4.2): folded to lower case, what a localpart cannot hold escaped."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", user).lower())
    if not text or text != text.strip() or _CONTROL.search(text):
        raise BadJid()
    return _SPECIAL.sub(lambda found: f"\\{_CODES[found[0]]}", text)


def unescape(local: str) -> str:
    """What a localpart means (XEP-0106 4.3)."""
    return _ESCAPED.sub(lambda found: _CHARS[found[0].lower()], local)


class Jid(NamedTuple):
    """A Jabber ID (RFC 7622)."""

    local: str
    domain: str
    resource: str = ""

    @classmethod
    def parse(cls, text: str) -> Jid:
        """Read one; ``BadJid`` if it is none."""
        rest, slash, resource = text.partition("/")
        local, at, domain = rest.rpartition("@")
        if (at and not local) or "@" in local or (slash and not resource) or len(text) > 3 * LONGEST + 2:
            raise BadJid()
        made = cls(local.lower(), _domain(domain), resource)
        if any(len(part.encode("utf-8", "replace")) > LONGEST or _CONTROL.search(part) for part in made):
            raise BadJid()
        if re.search(r"[ \"&'/:<>]", local):
            raise BadJid()
        return made

    def __str__(self) -> str:
        local = f"{self.local}@" if self.local else ""
        return f"{local}{self.domain}/{self.resource}" if self.resource else f"{local}{self.domain}"

    @property
    def bare(self) -> Jid:
        """It without its resource."""
        return Jid(self.local, self.domain) if self.resource else self


def _domain(text: str) -> str:
    """A domain as Jabber writes it: in lower case, Unicode (RFC 7622 3.2)."""
    text = text.strip().rstrip(".").lower()
    if text.startswith("[") and text.endswith("]"):
        return text
    if not text or _CONTROL.search(text) or re.search(r"[\s\"&'/:<>@\\%]", text):
        raise BadJid()
    if text.isascii() and "xn--" not in text:
        return text
    try:
        return idna.decode(text) if text.isascii() else idna.decode(idna.encode(text, uts46=True))
    except idna.IDNAError:
        raise BadJid() from None


def domain_in_ascii(domain: str) -> str:
    """A domain as SIP and the DNS write it: in ASCII."""
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        raise BadJid() from None


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in found[0].encode("utf-8", "replace"))


def escape_user(user: str) -> str:
    """A user as a SIP URI writes it."""
    return _USER.sub(_percent, user)


class Domains:
    """Which domains are ours, under which names.

    ``names``: our SIP domains with the names by which Jabber knows them; the first is the one that stands for any other of ours.
    ``ours``: whether a host is ours without standing there. ``separator``: between the user and the domain of a Jabber ID in
    the user of a SIP URI, such as "*"; empty: Jabber IDs are URIs of their own domain only. ``resources``: keep the
    resource of a Jabber user as ``gr`` (RFC 7247 5.4)."""

    def __init__(
        self, names: Mapping[str, str], ours: Callable[[str], bool] = lambda _host: False, separator: str = "",
        resources: bool = False,
    ) -> None:
        self.names = {_domain(sip): _domain(jabber) for sip, jabber in names.items()}
        self.ours = ours
        self.separator = separator
        self.resources = resources
        self._sip = {jabber: sip for sip, jabber in reversed(self.names.items())}

    @property
    def first(self) -> str:
        """The SIP domain that stands for others."""
        return next(iter(self.names))

    @property
    def jabber(self) -> list[str]:
        """The names by which Jabber knows us."""
        return list(dict.fromkeys(self.names.values()))

    def is_ours(self, jid: Jid) -> bool:
        """Whether a Jabber ID belongs to a SIP user."""
        return jid.domain in self._sip

    def user_to_jid(self, uri: Uri) -> Jid:
        """The Jabber ID of a SIP user of ours; ``SipError`` (403) for one of elsewhere: nobody speaks for other domains."""
        if not uri.is_sip:
            if uri.scheme.lower() == "tel":
                return Jid(escape(re.sub(r"[-.()]", "", str(uri).partition(":")[2].partition(";")[0])), self.names[self.first])
            raise BadJid("Unsupported URI Scheme", 416)
        name = self.names.get(_domain(uri.host or ""))
        if name is None:
            if not self.ours(uri.host or ""):
                raise SipError("Not One Of Our Domains", 403)
            name = self.names[self.first]
        if not uri.user:
            return Jid("", name)
        return Jid(escape(percent_decoded(uri.user)), name, self._resource(uri))

    def target_to_jid(self, uri: Uri) -> Jid:
        """The Jabber ID that a SIP URI stands for; ``BadJid`` if it is one of our own users."""
        if not uri.is_sip:
            raise BadJid("Unsupported URI Scheme", 416)
        user, host = percent_decoded(uri.user or ""), _domain(uri.host or "")
        if host in self.names or host in self._sip or self.ours(host):
            local, separator, domain = user.rpartition(self.separator) if self.separator else ("", "", "")
            if not separator or not local:
                raise BadJid("Not A Jabber User")
            return self._foreign(Jid(escape(local), _domain(domain), self._resource(uri)))
        return self._foreign(Jid(escape(user) if user else "", host, self._resource(uri)))

    def _foreign(self, jid: Jid) -> Jid:
        if self.is_ours(jid):
            raise BadJid("Loop Detected", 482)
        return jid

    @staticmethod
    def _resource(uri: Uri) -> str:
        resource = percent_decoded(uri.param("gr") or "")
        if _CONTROL.search(resource) or len(resource) > LONGEST:
            raise BadJid()
        return resource

    def user_to_uri(self, jid: Jid) -> str:
        """The SIP URI of a Jabber ID of ours; ``BadJid`` if it is not ours."""
        host = self._sip.get(jid.domain)
        if host is None:
            raise BadJid("Not One Of Our Domains", 403)
        return f"sip:{escape_user(unescape(jid.local))}@{domain_in_ascii(host)}" if jid.local else f"sip:{domain_in_ascii(host)}"

    def jid_to_uri(self, jid: Jid, beside: str = "") -> str:
        """The SIP URI of a Jabber user of elsewhere. ``beside``: the domain of ours that a separator puts it into."""
        if self.is_ours(jid):
            raise BadJid("Not A Jabber User", 403)  # nobody out there speaks for our users
        local = unescape(jid.local)
        if self.separator:
            host = self._sip.get(beside, self.first)
            return f"sip:{escape_user(f'{local}{self.separator}{jid.domain}' if local else jid.domain)}@{domain_in_ascii(host)}"
        host = domain_in_ascii(jid.domain)
        if not _LABEL_HOST.fullmatch(host) and not host.startswith("["):
            raise BadJid()
        uri = f"sip:{escape_user(local)}@{host}" if local else f"sip:{host}"
        if self.resources and jid.resource:
            return f"{uri};gr={_GR.sub(_percent, jid.resource)}"
        return uri


def parse_uri(text: str) -> Uri:
    """Read a URI; ``SipError`` if it is none."""
    try:
        return Uri.parse(text)
    except MalformedMessage as error:
        raise SipError(error.reason, 400) from None
