"""auth: digest challenges and what answers them (RFC 3261 22, RFC 7616, RFC 8760).

The passwords come from variables here (``pv_*_authorize``); other modules, such as auth_db, bring them from elsewhere and use
``examine`` and ``decide``. COMPAT: return codes, and that a challenge ends the script, are those of OpenSIPS; where sipgw is
stricter or more lenient, ``docs/decisions/0012-authentication.md`` says so."""

from __future__ import annotations

import re
from os import urandom
from typing import Annotated

from sipgw.exports import BRANCH, FAILURE, REQUEST, HeaderText, Module, function, param, requires
from sipgw.modules._specs import avp_name, check_variable, newest, variable
from sipgw.modules.signaling import Signaling
from sipgw.modules.sl import refuses_line
from sipgw.proxy.authentication import (
    Attempt,
    Verdict,
    accept,
    challenges,
    consume,
    examine,
    parse_algorithms,
    parse_qops,
    realm_of,
)
from sipgw.script.run import Run
from sipgw.sip.address import NameAddr
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request
from sipgw.sip.nonce import NonceTable
from sipgw.sip.uri import Uri

MAX_USED = 200_000
"""Used nonces that are remembered: about 45 MB."""

_e164 = re.compile(r"\+[0-9]{1,15}").fullmatch


def check_secret(text: str) -> None:
    """Refuse a secret that is not one."""
    if len(text) != 32:
        raise ValueError(f"the secret must have 32 characters, this one has {len(text)}")


def check_lifetime(seconds: int) -> None:
    """Refuse a time that no nonce can have."""
    if not 1 <= seconds <= 86400:
        raise ValueError(f"{seconds} is no lifetime of a nonce: write 1 to 86400 seconds")


class Auth(Module):
    """Asks who sends a request, and checks the answer against a password that the script knows."""

    signaling: Signaling = requires("signaling")

    secret: str = param("", "What nonces are signed with, 32 characters; random at each start if empty", check=check_secret)
    nonce_expire: int = param(30, "Seconds for which a nonce may be used", check=check_lifetime)
    rpid_prefix: str = param("", "What append_rpid_hf() puts before the URI")
    rpid_suffix: str = param(";party=calling;id-type=subscriber;screen=yes", "What append_rpid_hf() puts behind the URI")
    realm_prefix: str = param("", "What is taken off the domain of From or To where that becomes the realm")
    rpid_avp: str = param("$avp(rpid)", "The AVP with the URI for Remote-Party-ID", check=lambda text: text and avp_name(text))
    username_spec: str = param("", "The variable with the user that pv_*_authorize() want", check=check_variable)
    password_spec: str = param("", "The variable with his password, or its HA1", check=check_variable)
    calculate_ha1: int = param(0, "Whether that variable holds the plain password: 0 or 1")
    disable_nonce_check: int = param(
        0, "1: a nonce is good until it expires however often it is used, and for all servers with the same secret"
    )

    async def start(self) -> None:
        """Make the nonces of this start."""
        secret = self.secret.encode("utf-8", "surrogateescape") or urandom(32)
        if self.disable_nonce_check:
            # servers that share a secret share no table of what was used, and no clock but that of the wall
            self.nonces, self.clock = NonceTable(secret, self.nonce_expire, 0), self.server.user.wall_clock
        else:
            # a nonce of an earlier start is stale, whatever the secret: nobody knows whether it was used
            self.nonces = NonceTable(secret + urandom(16), self.nonce_expire, MAX_USED)
            self.clock = self.server.user.clock
        self.rpid = avp_name(self.rpid_avp) if self.rpid_avp else ""
        symbols = self.server.symbols
        self._username = variable(self.username_spec, symbols) if self.username_spec else None
        self._password = variable(self.password_spec, symbols) if self.password_spec else None

    # -- challenges

    def challenge(self, run: Run, what: str, realm: str, qop: str | None, algorithms: str | None, proxy: bool) -> int:
        """Answer a request with challenges, one for each algorithm; 0 ends the script."""
        try:
            realm = realm_of(run, realm, proxy, self.realm_prefix)
            qops = parse_qops(qop) if qop is not None else ()
            found = challenges(run, realm, qops, parse_algorithms(algorithms or ""), self.nonces, self.clock())
        except (ValueError, MalformedMessage) as error:
            run.user.log_rarely(("challenge", what), -1, f"{what}: {error}")
            return -1
        name = "Proxy-Authenticate" if proxy else "WWW-Authenticate"
        headers = "".join(f"{name}: {each}\r\n" for each in found)
        if proxy:
            sent = self.signaling.reply(run, 407, "Proxy Authentication Required", headers=headers)
        else:
            sent = self.signaling.reply(run, 401, "Unauthorized", headers=headers)
        return 0 if sent else -1

    @function(REQUEST)
    def www_challenge(
        self,
        run: Run,
        realm: HeaderText,
        qop: Annotated[str, parse_qops] | None = None,
        algorithms: Annotated[str, parse_algorithms] | None = None,
    ) -> int:
        """Answer 401 with a WWW-Authenticate for each of ``algorithms``, the strongest first; the script ends.

        An empty ``realm`` is the domain of To in a REGISTER, of From else. ``qop``: auth, auth-int, or both with a comma."""
        return self.challenge(run, "www_challenge", realm, qop, algorithms, False)

    @function(REQUEST)
    def proxy_challenge(
        self,
        run: Run,
        realm: HeaderText,
        qop: Annotated[str, parse_qops] | None = None,
        algorithms: Annotated[str, parse_algorithms] | None = None,
    ) -> int:
        """Answer 407 with a Proxy-Authenticate for each of ``algorithms``, the strongest first; the script ends.

        An empty ``realm`` is the domain of From. ``qop``: auth, auth-int, or both with a comma."""
        return self.challenge(run, "proxy_challenge", realm, qop, algorithms, True)

    # -- what answers them

    def examine(self, run: Run, realm: str, proxy: bool) -> Attempt | Verdict:
        """The credentials of a request for ``realm``, judged but for the password; 400 has been sent if they are not whole."""
        try:
            return examine(run, realm_of(run, realm, proxy, self.realm_prefix), proxy, self.nonces, self.clock())
        except MalformedMessage:
            self.signaling.reply(run, 400, "Bad Request")
            return Verdict.ANSWERED

    def decide(self, run: Run, attempt: Attempt, ha1: str) -> Verdict:
        """Compare ``attempt`` with the hash of the password; the nonce of a wrong one is used up."""
        request = run.message
        assert isinstance(request, Request)
        if attempt.proves(request, ha1):
            accept(run, attempt)
            return Verdict.AUTHORIZED
        self.nonces.spoil(attempt.credentials.nonce)
        return Verdict.WRONG_PASSWORD

    def _authorize(self, run: Run, realm: str, proxy: bool) -> int:
        attempt = self.examine(run, realm, proxy)
        if isinstance(attempt, Verdict):
            return attempt
        username = None if self._username is None else self._username.get(run)
        password = None if self._password is None else self._password.get(run)
        if username is None or password is None:
            text = "pv_*_authorize: the variables of username_spec and password_spec must be set"
            run.user.log_rarely("pv_authorize", -1, text)
            self.signaling.reply(run, 500, "Server Internal Error")
            return Verdict.ANSWERED
        if attempt.credentials.username != str(username):
            self.nonces.spoil(attempt.credentials.nonce)
            return Verdict.NO_USER
        return self.decide(run, attempt, attempt.hash_of(str(password)) if self.calculate_ha1 else str(password))

    @function(REQUEST)
    def pv_www_authorize(self, run: Run, realm: HeaderText) -> int:
        """1 if the Authorization for ``realm`` was made with the user and password in the variables of the modparams.

        -1: another user; -2: a wrong password; -3: a nonce that is stale or was used; -4: no credentials for the realm."""
        return self._authorize(run, realm, False)

    @function(REQUEST)
    def pv_proxy_authorize(self, run: Run, realm: HeaderText) -> int:
        """1 if the Proxy-Authorization for ``realm`` was made with the user and password in the variables of the modparams.

        -1: another user; -2: a wrong password; -3: a nonce that is stale or was used; -4: no credentials for the realm."""
        return self._authorize(run, realm, True)

    @function(REQUEST)
    def consume_credentials(self, run: Run) -> bool:
        """Take the credentials by which the sender was authorized out of the request: nobody else needs them."""
        if consume(run):
            return True
        run.user.log_rarely("consume", 1, "consume_credentials: the request was not authorized")
        return False

    # -- Remote-Party-ID

    def _rpid(self, run: Run) -> str | None:
        value = newest(run, self.rpid) if self.rpid else None
        return None if value is None else str(value)

    @function(REQUEST)
    def is_rpid_user_e164(self, run: Run) -> bool:
        """Whether the URI in ``rpid_avp`` has a user of + and up to 15 digits."""
        text = self._rpid(run)
        if text is None:
            return False
        try:
            uri = NameAddr.parse(text).uri if "<" in text else Uri.parse(text)
        except MalformedMessage as error:
            run.user.log_rarely("rpid", -1, f"is_rpid_user_e164: {text!r}: {error}")
            return False
        return bool(_e164(uri.user or ""))

    @function(REQUEST | FAILURE | BRANCH)
    def append_rpid_hf(self, run: Run, prefix: HeaderText | None = None, suffix: HeaderText | None = None) -> bool:
        """Add a Remote-Party-ID of the URI in ``rpid_avp``, between ``prefix`` and ``suffix`` or those of the modparams."""
        text = self._rpid(run)
        if text is None:
            return False
        value = (self.rpid_prefix if prefix is None else prefix) + text + (self.rpid_suffix if suffix is None else suffix)
        if refuses_line(run, "append_rpid_hf", value):
            return False
        run.edits = run.edits.append(f"Remote-Party-ID: {value}")
        return True
