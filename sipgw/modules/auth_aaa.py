"""auth_aaa: whether digest credentials are good, and whether a user exists, by a server of one's own (RADIUS: RFC 5090).

The nonces are those of the module auth, which also makes the challenges; the server knows the passwords and computes. Without
an answer nobody is let in.

COMPAT: what a server refuses (a wrong password too) and what fails is one code, -5. OpenSIPS sends Digest-Opaque with auth-int
only, and no Digest-Algorithm; here an algorithm other than MD5 is told, and for auth-int the hash of the body, where the
dictionary has a name for it."""

from __future__ import annotations

from hashlib import md5, sha256
from typing import Any
from urllib.parse import unquote

from sipgw.aaa import Aaa, AaaAnswer, AaaError
from sipgw.exports import LOCAL, REQUEST, HeaderText, Module, function, param, requires
from sipgw.modules.auth import Auth
from sipgw.proxy.authentication import Attempt, Verdict, accept
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri

REJECTED, FAILED = -1, -2
_NAMES = (
    "User-Name Service-Type Sip-Uri-User Sip-Uri-Host Digest-Response Digest-CNonce Digest-Nonce-Count Digest-Method Digest-URI"
    " Digest-Nonce Digest-Realm Digest-Username Acct-Session-Id SIP-AVP"
).split()


class AuthAaa(Module):
    """Has an AAA server judge credentials and say which users there are."""

    auth: Auth = requires("auth", optional=True)

    aaa_url: str = param("", "The server: radius:/path/of/radiusclient.conf")
    auth_service_type: int = param(-1, "Service-Type for credentials; -1: what the dictionary calls Sip-Session")
    check_service_type: int = param(-1, "Service-Type for questions after users; -1: what the dictionary calls Call-Check")
    use_ruri_flag: str = param("", "The message flag with which the Request-URI counts, not the URI of the credentials")
    digest_qop_name: str = param("Digest-QoP", "What the dictionary calls the quality of protection")

    async def start(self) -> None:
        """Open the server, and check that its dictionary has all names."""
        try:
            self.server_: Aaa = await self.server.user.aaa.open(self.aaa_url)
            values = [("Service-Type", "Sip-Session")] if self.auth_service_type < 0 else []
            values += [("Service-Type", "Call-Check")] if self.check_service_type < 0 else []
            self.server_.check([*_NAMES, self.digest_qop_name], values)
        except AaaError as error:
            raise ValueError(f"aaa_url: {error}") from None
        self._auth_service: int | str = "Sip-Session" if self.auth_service_type < 0 else self.auth_service_type
        self._check_service: int | str = "Call-Check" if self.check_service_type < 0 else self.check_service_type
        self._ruri_flag = self.server.user.message_flags.mask(self.use_ruri_flag) if self.use_ruri_flag else 0

    async def _ask(self, run: Run, what: str, attributes: list[tuple[str, int | str]]) -> AaaAnswer | None:
        """The answer; None, logged, if there is none. What is accepted may bring AVPs."""
        attributes.append(("Acct-Session-Id", run.message.call_id))
        try:
            answer = await self.server_.authenticate(attributes)
        except AaaError as error:
            run.user.log_rarely(what, -1, f"{what}: {error}")
            return None
        if answer.accepted:
            for name, value in answer.avps():
                run.avps.setdefault(name, []).append(value)
        return answer

    # -- credentials

    @function(REQUEST)
    async def aaa_www_authorize(self, run: Run, realm: HeaderText, uri_user: str | None = None) -> int:
        """1 if the server accepts the Authorization for ``realm``.

        -3: a nonce that is stale or was used; -4: no credentials; -5: refused, or no answer. ``uri_user`` is sent as
        Sip-Uri-User, by default the user of To in a REGISTER, of From else."""
        return await self._authorize(run, "aaa_www_authorize", realm, uri_user, False)

    @function(REQUEST)
    async def aaa_proxy_authorize(self, run: Run, realm: HeaderText, uri_user: str | None = None) -> int:
        """1 if the server accepts the Proxy-Authorization for ``realm``; else as ``aaa_www_authorize``."""
        return await self._authorize(run, "aaa_proxy_authorize", realm, uri_user, True)

    async def _authorize(self, run: Run, what: str, realm: str, uri_user: str | None, proxy: bool) -> int:
        if self.auth is None:
            run.user.log_rarely(what, -1, f'{what}: the module auth is not loaded: loadmodule "auth.so"')
            return Verdict.ERROR
        attempt = self.auth.examine(run, realm, proxy)
        if isinstance(attempt, Verdict):
            return attempt
        try:
            user = _own_user(run) if uri_user is None else uri_user
        except MalformedMessage:
            return Verdict.ERROR
        answer = await self._ask(run, what, [*self._digest(run, attempt), ("Sip-Uri-User", user)])
        if answer is None:
            return Verdict.ERROR
        if not answer.accepted:
            self.auth.nonces.spoil(attempt.credentials.nonce)
            return Verdict.ERROR
        accept(run, attempt)
        return Verdict.AUTHORIZED

    def _digest(self, run: Run, attempt: Attempt) -> list[tuple[str, int | str]]:
        """Credentials as attributes (RFC 5090 3)."""
        found = attempt.credentials
        name = found.username if "@" in found.username else f"{found.username}@{found.realm}"
        message: Any = run.message
        made: list[tuple[str, int | str]] = [
            ("User-Name", name),
            ("Digest-Username", found.username),
            ("Digest-Realm", found.realm),
            ("Digest-Nonce", found.nonce),
            ("Digest-URI", run.uri if run.flags & self._ruri_flag else found.uri),
            ("Digest-Method", message.method),
        ]
        if found.qop:
            made += [
                (self.digest_qop_name, found.qop),
                ("Digest-Nonce-Count", found.params.get("nc", "")),
                ("Digest-CNonce", found.cnonce),
            ]
        algorithm = found.params.get("algorithm", "")
        if algorithm and algorithm.upper() != "MD5" and self.server_.has("Digest-Algorithm"):
            made.append(("Digest-Algorithm", algorithm))
        if found.qop == "auth-int":
            if found.params.get("opaque") and self.server_.has("Digest-Opaque"):
                made.append(("Digest-Opaque", found.params["opaque"]))
            if self.server_.has("Digest-Entity-Body-Hash"):
                digest = sha256 if algorithm.upper().startswith("SHA-256") else md5
                made.append(("Digest-Entity-Body-Hash", digest(message.body).hexdigest()))
        return [*made, ("Digest-Response", found.response), ("Service-Type", self._auth_service)]

    # -- users

    @function(REQUEST | LOCAL)
    async def aaa_does_uri_exist(self, run: Run, sip_uri: str | None = None) -> int:
        """1 if the server accepts the user and host of a URI, by default of the Request-URI; -1 if not, -2 without an answer."""
        try:
            uri = run.request_uri if sip_uri is None else Uri.parse(sip_uri)
        except MalformedMessage as error:
            run.user.log_rarely("aaa_does_uri_exist", -1, f"aaa_does_uri_exist: {error}")
            return FAILED
        return await self._exists(run, "aaa_does_uri_exist", [("User-Name", uri.user or ""), ("Sip-Uri-Host", uri.host)])

    @function(REQUEST | LOCAL)
    async def aaa_does_uri_user_exist(self, run: Run, sip_uri: str | None = None) -> int:
        """1 if the server accepts a user, by default that of the Request-URI; -1 if not, -2 without an answer."""
        try:
            user = (run.request_uri.user or "") if sip_uri is None else sip_uri
        except MalformedMessage as error:
            run.user.log_rarely("aaa_does_uri_user_exist", -1, f"aaa_does_uri_user_exist: {error}")
            return FAILED
        return await self._exists(run, "aaa_does_uri_user_exist", [("User-Name", user)])

    async def _exists(self, run: Run, what: str, attributes: list[tuple[str, int | str]]) -> int:
        if not attributes[0][1]:
            return REJECTED
        answer = await self._ask(run, what, [*attributes, ("Service-Type", self._check_service)])
        if answer is None:
            return FAILED
        return 1 if answer.accepted else REJECTED


def _own_user(run: Run) -> str:
    """The user of To in a REGISTER, of From else, unescaped."""
    message: Any = run.message
    who = message.to if message.method == "REGISTER" else message.from_
    return unquote(who.uri.user or "")
