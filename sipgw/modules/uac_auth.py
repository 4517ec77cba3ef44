"""uac_auth: the users and passwords with which this server answers the challenges of others.

A challenge is answered only for a realm that is configured, by ``credential`` or by the AVPs of the call, so no phone that is
called can ask for the password of a trunk by a challenge of its own making unless it knows the realm: give each trunk a realm
that is its own, and call ``uac_auth()`` only for calls that go there."""

from __future__ import annotations

from sipgw.exports import Module, param
from sipgw.modules._specs import avp_name, newest
from sipgw.proxy.credentials import Answer, Credential, challenges_of, parse_credential, respond
from sipgw.script.run import Run
from sipgw.sip.message import Response


class UacAuth(Module):
    """Knows users and passwords for other servers."""

    name = "uac_auth"

    credential: str = param(
        "", "A user and his password for a realm: user:realm:password", each="add_credential", check=parse_credential
    )
    auth_realm_avp: str = param("", "The AVP with a realm for this call alone", check=avp_name)
    auth_username_avp: str = param("", "The AVP with the user for it", check=avp_name)
    auth_password_avp: str = param("", "The AVP with his password, or 0x and its HA1", check=avp_name)

    def __init__(self, server: object = None, **parameters: object) -> None:
        self._known: dict[str, Credential] = {}
        super().__init__(server, **parameters)  # type: ignore[arg-type]

    def add_credential(self, text: str) -> None:
        """Note one more user."""
        found = parse_credential(text)
        self._known.setdefault(found.realm, found)

    async def start(self) -> None:
        """See that the three AVPs are there, or none."""
        given = [bool(text) for text in (self.auth_realm_avp, self.auth_username_avp, self.auth_password_avp)]
        if any(given) and not all(given):
            raise ValueError("uac_auth: auth_realm_avp, auth_username_avp and auth_password_avp go together")

    def find(self, run: Run | None, realm: str) -> Credential | None:
        """The credential for ``realm``: of the AVPs of the call, else of the script."""
        if run is not None and self.auth_realm_avp:
            specs = (self.auth_username_avp, self.auth_realm_avp, self.auth_password_avp)
            user, its_realm, password = (newest(run, avp_name(spec)) for spec in specs)
            if user is not None and its_realm is not None and str(its_realm) == realm:
                return Credential(str(user), realm, "" if password is None else str(password))
        return self._known.get(realm)

    def answer(self, run: Run, response: Response, method: str, uri: str, body: bytes, algorithms: str = "") -> Answer | None:
        """Answer the challenges of ``response`` for the request of ``run``; None if there is no credential for any."""
        challenges = challenges_of(response)
        for realm in dict.fromkeys(challenge.realm for _, challenge in challenges):
            credential = self.find(run, realm)
            made = None if credential is None else respond(credential, challenges, method, uri, body, algorithms)
            if made is not None:
                return made
        return None
