"""h350: SIP accounts in a directory as ITU-T H.350.4 and H.350.6 describe them, over the module ldap.

What scripts get back: how many there are, -1 when something failed, -2 when there is nothing."""

from __future__ import annotations

import re

from sipgw.exports import BRANCH, FAILURE, LOCAL, ONREPLY, REQUEST, Avp, Module, function, param, requires
from sipgw.ldap.directory import LdapFault
from sipgw.ldap.url import SCOPES, escape_filter
from sipgw.modules.ldap import Found, Ldap
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.script.values import c_int

ROUTES: RouteKind = REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL
FAILED = -1
NOTHING = -2
_RULE = re.compile(r"([^ ]+) +([a-zA-Z]+)(?::([0-9]{1,9}))?")


def scope_name(text: str) -> None:
    """Check ``search_scope``."""
    if text.lower() not in SCOPES:
        raise ValueError(f"search_scope is base, one or sub, not {text!r}")


class H350(Module):
    """Finds SIP accounts and their settings in an H.350 directory."""

    ldap: Ldap = requires("ldap")

    ldap_session: str = param("", "The session of the module ldap")
    base_dn: str = param("", "Where in the directory the accounts are")
    search_scope: str = param("one", "How deep below base_dn they are: base, one, sub", check=scope_name)

    async def start(self) -> None:
        """Check that there is such a session."""
        if self.ldap_session not in self.ldap.sessions:
            raise ValueError(f"ldap_session: there is no session {self.ldap_session!r} in {self.ldap.config_file}")

    @function(ROUTES)
    async def h350_sipuri_lookup(self, run: Run, sip_uri: str) -> int:
        """Find the accounts that have a SIP URI; then ``ldap_result`` and the others know them."""
        return await self._find(run, "SIPIdentitySIPURI", sip_uri)

    @function(ROUTES)
    async def h350_auth_lookup(self, run: Run, auth_username: str, p2: Avp, p3: Avp) -> int:
        """Find the account of a user name; the first AVP receives the name, the second one the password."""
        count = await self._find(run, "SIPIdentityUserName", auth_username)
        if count < 1:
            return count
        found = self.ldap.found(run)
        passwords = None if found is None else found.values("SIPIdentityPassword")
        if not passwords:
            run.user.log_rarely("h350 password", -1, "h350_auth_lookup: the account has no password that we may read")
            return FAILED
        p2.set(run, auth_username)
        p3.set(run, passwords[0])
        return 1

    async def _find(self, run: Run, attribute: str, value: str) -> int:
        filter = f"(&(objectClass=SIPIdentity)({attribute}={escape_filter(value)}))"
        scope = SCOPES[self.search_scope.lower()]
        try:
            return await self.ldap.search(run, self.ldap_session, self.base_dn, scope, filter) or NOTHING
        except LdapFault as error:
            run.user.log_rarely("h350", -1, f"h350: {error}")
            return FAILED

    @function(ROUTES)
    def h350_result_call_preferences(self, run: Run, avp_name_prefix: str) -> int:
        """Put the rules for forwarding into AVPs: ``prefix`` and b, n, u or f the URI, with ``_t`` behind the seconds."""
        values = self._values(run, "callPreferenceURI")
        if isinstance(values, int):
            return values
        count = 0
        for value in values:
            rule = _RULE.fullmatch(value)
            if rule is None:
                continue
            uri, kind, milliseconds = rule.groups()
            run.avps.setdefault(avp_name_prefix + kind, []).append(uri)
            if milliseconds:
                run.avps.setdefault(f"{avp_name_prefix}{kind}_t", []).append(c_int(int(milliseconds) // 1000))
            count += 1
        return count or NOTHING

    @function(ROUTES)
    def h350_result_service_level(self, run: Run, avp_name_prefix: str) -> int:
        """Set an AVP to 1 for each service level, ``prefix`` and its name."""
        values = self._values(run, "SIPIdentityServiceLevel")
        if isinstance(values, int):
            return values
        for value in values:
            run.avps.setdefault(avp_name_prefix + value, []).append(1)
        return len(values) or NOTHING

    def _values(self, run: Run, attribute: str) -> list[str] | int:
        found: Found | None = self.ldap.found(run)
        if found is None:
            run.user.log_rarely("h350 result", -1, "h350: there was no search that went well")
            return FAILED
        values = found.values(attribute)
        return NOTHING if values is None else values
