"""Globally routable user agent URIs (RFC 5627): a URI for one device of a user, which works from anywhere.

The *public* one is the address-of-record with the device's ``+sip.instance`` in the parameter ``gr``. The *temporary* one hides
both: its user is a token that only this server can make and read. In it are the address-of-record, which device, which Call-ID it
registered with, and the CSeq, so that each REGISTER gets another one, all of them good until the device registers with another
Call-ID (3.1.2). Nothing is kept for it.

The token is sealed (``proxy/sealed.py``), so it cannot be guessed, nor changed; OpenSIPS XORs with a secret that whoever
knows the inside of one token can compute."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, NamedTuple
from urllib.parse import quote

from sipgw.proxy.location import Binding
from sipgw.proxy.sealed import Seal
from sipgw.sip.grammar import unescape
from sipgw.sip.uri import Uri

__all__ = ["Device", "Gruus", "is_temporary", "newest", "public_device"]

PREFIX: Final = "tgruu."
"""What the user of a temporary GRUU begins with."""
_MARK: Final = 8
"""Octets that stand for a device, and as many for a Call-ID."""
_CSEQ: Final = 4
_USER: Final = "-_.!~*'()&=+$,/"
"""What may stand in the user of a URI as it is, beside letters and digits (RFC 3261 25.1)."""
_PARAM: Final = "-_.!~*'()[]/:&+$"
"""Likewise in the value of a parameter."""


def _mark(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=_MARK).digest()


def instance_of(binding: Binding) -> str | None:
    """The URN in the +sip.instance of ``binding``, in lower case; None if it has none (RFC 5626 4.1: ``"<urn:uuid:...>"``)."""
    value = binding.instance
    if value is None or len(value) < 3 or value[0] != "<" or value[-1] != ">":
        return None
    return value[1:-1].lower()


class Device(NamedTuple):
    """What a GRUU says of the device: its URN in lower case, or the marks of its URN and Call-ID, when it is a temporary one."""

    instance: str
    marks: bytes = b""

    def has(self, binding: Binding) -> bool:
        """Whether ``binding`` is a contact of this device."""
        instance = instance_of(binding)
        if instance is None:
            return False
        if self.marks:
            return compare_digest(self.marks, _mark(instance) + _mark(binding.call_id))
        return instance == self.instance


def newest(bindings: Iterable[Binding]) -> list[Binding]:
    """The one contact of a device that a request to its GRUU goes to: the one it registered last (RFC 5627 6.1)."""
    last = max(bindings, key=lambda binding: (binding.modified, binding.serial), default=None)
    return [] if last is None else [last]


class Gruus:
    """Makes and reads GRUUs; whoever has the same ``secret`` can read the temporary ones."""

    def __init__(self, secret: bytes) -> None:
        self._seal = Seal(secret, b"gruu")

    def params(self, binding: Binding, uri: Uri) -> str:
        """The parameters of a Contact in the answer to a REGISTER (RFC 5627 5.2); empty if it has no device.

        ``uri``: the address-of-record; its domain is used where the table knows none (``use_domain``)."""
        instance = instance_of(binding)
        if instance is None or not uri.is_sip:
            return ""
        user, at, host = binding.aor.rpartition("@")
        if not at:
            user, host = (binding.aor, uri.host.lower()) if uri.user else ("", binding.aor)
        who = f"{quote(user, _USER, errors='surrogateescape')}@{host}" if user else host
        assert binding.instance is not None
        urn = quote(binding.instance[1:-1], _PARAM, errors="surrogateescape")
        shown = binding.instance.replace("\\", "\\\\").replace('"', '\\"')
        return (
            f';pub-gruu="{uri.scheme}:{who};gr={urn}";temp-gruu="{uri.scheme}:{self.token(binding, instance)}@{host};gr"'
            f';+sip.instance="{shown}"'
        )

    def token(self, binding: Binding, instance: str) -> str:
        """The user of the temporary GRUU that ``binding`` has after its last REGISTER."""
        cseq = (binding.cseq & 0xFFFFFFFF).to_bytes(_CSEQ, "big")
        clear = _mark(instance) + _mark(binding.call_id) + cseq + binding.aor.encode("utf-8", "surrogateescape")
        return PREFIX + self._seal.close(clear)

    def read(self, user: str | None) -> tuple[str, Device] | None:
        """The address-of-record and the device behind the user of a temporary GRUU; None if this server has not made it."""
        clear = self._seal.open((user or "")[len(PREFIX):])
        if clear is None:
            return None
        marks = clear[:2 * _MARK]
        return clear[len(marks) + _CSEQ:].decode("utf-8", "surrogateescape"), Device("", marks)


def is_temporary(uri: Uri) -> bool:
    """Whether ``uri`` looks like a temporary GRUU: ``gr`` without a value, and a token as its user."""
    return uri.is_sip and uri.param("gr") == "" and (uri.user or "").startswith(PREFIX)


def public_device(uri: Uri) -> Device | None:
    """The device that the public GRUU ``uri`` names; None if it is none."""
    value = uri.param("gr") if uri.is_sip else None
    return Device(unescape(value).lower()) if value else None
