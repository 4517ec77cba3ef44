"""Numbers and names as SMPP and SIP write them (SMPP 3.4 5.2.5, 5.2.6; RFC 3966). Pure, but for the library of numbering plans.

SMPP sends an address with its type of number (TON) and numbering plan (NPI): ``+49 170 1234567`` is "491701234567", international
(1), ISDN (1). SIP users carry ``+491701234567``, or dial ``0170...`` as their country does. Where a link has a ``country`` (two
letters), numbers are understood and written by the rules of that country, with the ``phonenumbers`` library; without one,
only what says itself what it is changes, and everything else goes through as it came, with the link's own TON and NPI."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

__all__ = ["ALPHANUMERIC", "INTERNATIONAL", "NATIONAL", "Address", "Numbers"]

UNKNOWN, INTERNATIONAL, NATIONAL, ALPHANUMERIC = 0, 1, 2, 5
ISDN: Final = 1
LONGEST: Final = 20
"""Characters of an address (5.2.8)."""
LONGEST_NAME: Final = 11
"""Characters of an alphanumeric sender (3GPP TS 23.040 9.1.2.5)."""

_SEPARATORS: Final = re.compile(r"[\s().\-/]")
_DIGITS: Final = re.compile(r"[0-9*#]+")


class Address(NamedTuple):
    """An address with what it is."""

    ton: int
    npi: int
    digits: str


class Numbers:
    """The rules of one link. ``ton`` and ``npi`` are for numbers that do not say what they are. ``country``: "DE"; ``ValueError``
    if there is no such country."""

    def __init__(self, ton: int = UNKNOWN, npi: int = UNKNOWN, country: str = "") -> None:
        self.ton = ton
        self.npi = npi
        self.country = country.upper()
        self._plans: Any = None
        if country:
            try:
                import phonenumbers
            except ImportError:
                raise ValueError("numbers of a country need phonenumbers: pip install 'sipgw[sms]'") from None
            if self.country not in phonenumbers.SUPPORTED_REGIONS:
                raise ValueError(f"{country!r} is no country: write two letters, such as DE")
            self._plans = phonenumbers

    def to_smpp(self, user: str) -> Address:
        """The address of the SIP user, or of a ``tel:`` number. ``ValueError`` where none can be made of it."""
        user = user.partition(";")[0]
        number = _SEPARATORS.sub("", user)
        if number.startswith("+") and number[1:].isdecimal():
            return Address(INTERNATIONAL, ISDN, _short(number[1:]))
        if _DIGITS.fullmatch(number):
            written = self._international(number)
            if written:
                return Address(INTERNATIONAL, ISDN, _short(written[1:]))
            return Address(self.ton, self.npi, _short(number))
        if not user or len(user) > LONGEST_NAME or not user.isascii() or not user.isprintable():
            raise ValueError(f"{user!r} is neither a number nor a name of up to {LONGEST_NAME} letters")
        return Address(ALPHANUMERIC, UNKNOWN, user)

    def to_sip(self, address: Address) -> str:
        """The SIP user that an address means."""
        ton, _, digits = address
        if ton == INTERNATIONAL and digits.isdecimal():
            return f"+{digits}"
        if ton in (UNKNOWN, NATIONAL) and _DIGITS.fullmatch(digits):
            return self._international(digits, national=ton == NATIONAL) or digits
        return digits

    def _international(self, number: str, *, national: bool = False) -> str:
        """``number`` as ``+4917...``, by the rules of the country; empty where it has none, or the number none there."""
        plans = self._plans
        if plans is None:
            return ""
        try:
            parsed = plans.parse(number, self.country)
        except plans.NumberParseException:
            return ""
        if not plans.is_valid_number(parsed):
            return ""
        return str(plans.format_number(parsed, plans.PhoneNumberFormat.E164))


def _short(digits: str) -> str:
    if len(digits) > LONGEST:
        raise ValueError(f"a number of {len(digits)} digits, {LONGEST} fit")
    return digits
