"""What registrar is made of, beneath its functions: parameters and statistics, and what they mean."""

from __future__ import annotations

import re
from functools import partial
from os import urandom
from typing import Any

from sipgw.exports import Module, param, requires, statistic
from sipgw.modules._usrloc_base import not_negative, positive
from sipgw.modules.signaling import Signaling
from sipgw.modules.tm import Tm
from sipgw.modules.usrloc import Usrloc
from sipgw.proxy.awaken import Alarm
from sipgw.proxy.gruu import Gruus
from sipgw.proxy.lookup import branch_of
from sipgw.proxy.push import STANDARD, Push, sleeps
from sipgw.proxy.registrar import Registrar as Registration
from sipgw.proxy.registrar import Settings
from sipgw.proxy.sealed import Seal
from sipgw.sip.grammar import is_token
from sipgw.sip.limits import LIMITS

avp = re.compile(r"\$avp\(\s*(?:s:)?([^()\s]+)\s*\)").fullmatch

def avp_name(text: str) -> str:
    """The name in ``$avp(name)``; ``ValueError`` if it is nothing of the kind."""
    match = avp(text)
    if match is None:
        raise ValueError(f"write $avp(name), not {text!r}")
    return match[1]


def split_names(text: str) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def names(text: str) -> None:
    """Refuse what is no list of names."""
    found = split_names(text)
    if not found or not all(map(is_token, found)):
        raise ValueError(f"write names with commas between them, not {text!r}")


def q_or_none(value: int) -> None:
    """Refuse what is no q value in thousandths."""
    if not -1 <= value <= 1000:
        raise ValueError("write 0 to 1000, or -1 for none")


def header_name(value: str) -> None:
    """Refuse what is no name of a header."""
    if not is_token(value):
        raise ValueError(f"{value!r} is no name of a header")


class RegistrarBase(Module):
    """The parameters of one registrar."""

    usrloc: Usrloc = requires("usrloc")
    signaling: Signaling = requires("signaling")
    tm: Tm | None = requires("tm", optional=True)

    default_expires: int = param(3600, "Seconds of a contact that asks for nothing", check=positive)
    min_expires: int = param(60, "The least seconds of a contact; 0: no bound", check=not_negative)
    max_expires: int = param(0, "The most seconds of a contact; 0: no bound", check=not_negative)
    default_q: int = param(-1, "The q of a contact without one, in thousandths; -1: none", check=q_or_none)
    case_sensitive: int = param(1, "Whether the case of addresses-of-record matters")
    tcp_persistent_flag: str = param("", "The message flag with which a connection is kept for as long as its contacts")
    realm_prefix: str = param("", "What is taken off the front of the domain")
    received_param: str = param("received", "The parameter that shows where a contact registered from", check=header_name)
    received_avp: str = param("", "The AVP with the URI where the REGISTER came from", check=avp_name)
    attr_avp: str = param("", "The AVP with a text to keep with the contact", check=avp_name)
    mcontact_avp: str = param("", "The AVP with the contact as it was relayed, for save() in a reply route", check=avp_name)
    retry_after: int = param(0, "Seconds for Retry-After in 5xx answers; 0: none", check=not_negative)
    sock_hdr_name: str = param("", "The header that names the socket of a contact (flag socket-header)", check=header_name)
    max_contacts: int = param(0, "The most contacts of one user; 0: no bound of the script's own", check=not_negative)
    max_username_len: int = param(64, "The most characters of a user", check=positive)
    max_domain_len: int = param(64, "The most characters of a domain", check=positive)
    max_aor_len: int = param(256, "The most characters of an address-of-record", check=positive)
    max_contact_len: int = param(255, "The most characters of a contact and of its source", check=positive)
    allow_dup_cseq: int = param(1, "Whether a CSeq that was seen before may change a contact again")
    expires_max_deviation: int = param(0, "Seconds by which the end of a contact is moved at random", check=not_negative)

    disable_gruu: int = param(1, "Whether no GRUUs are given out: 0 or 1")
    gruu_secret: str = param("", "What temporary GRUUs are sealed with; unset, a random secret of this process")

    pn_enable: int = param(0, "Whether phones that sleep are woken (RFC 8599): 0 or 1")
    pn_providers: str = param("", "The push notification services that the script can use, with commas", check=names)
    pn_ct_match_params: str = param(
        ", ".join(STANDARD), "The parameters of its URI by which a contact is known, whatever its address", check=names
    )
    pn_pnsreg_interval: int = param(130, "Seconds before its contact expires at which a phone may refresh it", check=positive)
    pn_trigger_interval: int = param(
        120, "Seconds before its contact expires at which a phone is woken (usrloc's contact_refresh_timer)", check=positive
    )
    pn_skip_pn_interval: int = param(0, "Seconds after a REGISTER for which a phone is taken to be awake", check=not_negative)
    pn_refresh_timeout: int = param(6, "Seconds for which a request waits until a phone has woken up", check=positive)
    pn_enable_purr: int = param(0, "Whether phones may be woken for requests within dialogs (pn_process_purr): 0 or 1")

    accepted_regs = statistic("REGISTERs that were accepted")
    rejected_regs = statistic("REGISTERs that were refused")
    stat_max_expires = statistic("max_expires as it is set", read="_max_expires", name="max_expires")
    stat_max_contacts = statistic("max_contacts as it is set", read="_max_contacts", name="max_contacts")
    stat_default_expire = statistic("default_expires as it is set", read="_default_expires", name="default_expire")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.registration = Registration()
        self.alarm: Alarm | None = None
        self._persistent = 0

    async def start(self) -> None:
        """Take over the parameters, usrloc's included."""
        usrloc = self.usrloc
        push = self._push()
        if self.tcp_persistent_flag:
            self._persistent = self.server.user.message_flags.mask(self.tcp_persistent_flag)
        self.registration = Registration(
            Settings(
                default_expires=self.default_expires,
                min_expires=self.min_expires,
                max_expires=self.max_expires,
                default_q=self.default_q,
                case_sensitive=bool(self.case_sensitive),
                use_domain=bool(usrloc.use_domain),
                realm_prefix=self.realm_prefix.lower(),
                received_param=self.received_param,
                received_avp=avp_name(self.received_avp) if self.received_avp else "",
                attr_avp=avp_name(self.attr_avp) if self.attr_avp else "",
                mcontact_avp=avp_name(self.mcontact_avp) if self.mcontact_avp else "",
                retry_after=self.retry_after,
                sock_hdr_name=self.sock_hdr_name,
                max_contacts=self.max_contacts,
                max_username_len=self.max_username_len,
                max_domain_len=self.max_domain_len,
                max_aor_len=self.max_aor_len,
                # COMPAT: OpenSIPS 4.1 has the parameter, but bounds only what is received; phones with push tokens need more
                max_contact_len=LIMITS.uri if self.max_contact_len == 255 else self.max_contact_len,
                max_received_len=self.max_contact_len,
                allow_dup_cseq=bool(self.allow_dup_cseq),
                expires_max_deviation=self.expires_max_deviation,
                match_call_id=usrloc.matching_mode == 1,
                cseq_delay=usrloc.cseq_delay,
                nat_flag=usrloc.nat_flag,
                gruus=None if self.disable_gruu else Gruus(self._gruu_secret()),
                push=push,
            )
        )
        if push is not None:
            self.alarm = Alarm(
                push, self.pn_refresh_timeout, self.server.user, usrloc.ask_to_wake, partial(branch_of, self.registration)
            )
            usrloc.on_registered.append(self.alarm.registered)
            self._wake_loaded(push)
        if self.tm is None and usrloc.mode.waits:
            self.server.user.log(1, "registrar: without tm a REGISTER that is repeated while it is being saved is saved again")

    def _wake_loaded(self, push: Push) -> None:
        """Have those phones woken in time whose contacts usrloc has loaded."""
        for table in self.usrloc.tables.values():
            for _, bindings in table if table.wakes else ():
                for binding in filter(sleeps, bindings):
                    table.wake_at(binding, binding.expires - push.trigger_interval)

    def _push(self) -> Push | None:
        """What the pn_ parameters say; ``ValueError`` if that cannot be."""
        if not self.pn_enable:
            return None
        if self.usrloc.mode.remote:
            raise ValueError("pn_enable wants contacts in memory, which usrloc does not have in this working mode")
        if self.tm is None:
            raise ValueError('pn_enable needs loadmodule "tm.so": calls wait in their transactions')
        providers, match = split_names(self.pn_providers), split_names(self.pn_ct_match_params)
        if not providers:
            raise ValueError('pn_enable needs pn_providers, such as "apns, fcm"')
        return Push(
            providers,
            tuple(map(str.lower, match)),
            self.pn_pnsreg_interval,
            self.pn_trigger_interval,
            self.pn_skip_pn_interval,
            Seal(urandom(32), b"purr") if self.pn_enable_purr else None,
        )

    def _gruu_secret(self) -> bytes:
        return self.gruu_secret.encode("utf-8", "surrogateescape") or urandom(32)

    def _max_expires(self) -> int:
        return self.max_expires

    def _max_contacts(self) -> int:
        return self.max_contacts

    def _default_expires(self) -> int:
        return self.default_expires
