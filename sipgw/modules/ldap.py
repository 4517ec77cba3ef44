"""ldap: searches in directories, for sessions that a configuration file names (``sipgw/ldap/config.py``).

A search waits without holding up anything else, with or without ``async``. Its result belongs to the message: ``ldap_result`` and
the others see that of the last search for it. What variables put into a URL stays where it stands (``sipgw/ldap/url.py``).
Other modules search with ``await ldap.search(run, session, base, scope, filter)``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from sipgw.exports import (
    BRANCH,
    EVENT,
    FAILURE,
    LOCAL,
    ONREPLY,
    REQUEST,
    STARTUP,
    TIMER,
    Avp,
    Module,
    PartedText,
    function,
    param,
)
from sipgw.ldap.config import Session, read_sessions
from sipgw.ldap.directory import Entry, LdapFault
from sipgw.ldap.pool import Pool
from sipgw.ldap.url import filter_url_encode, joined, parse
from sipgw.modules.textops import Expression, read_substitution
from sipgw.script.compiler import compile_variable
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.script.values import c_int

ROUTES: RouteKind = REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL | STARTUP | TIMER | EVENT
NOTHING = -1
FAILED = -2
LARGEST = 2**31 - 1
MAX_KNOWN = 500
"""How many substitutions are kept compiled; scripts have them as constants."""


def result_type(text: str) -> None:
    """Check what ``ldap_result`` makes of values."""
    if text not in ("str", "int"):
        raise ValueError("the type of the values is str or int")


class Found:
    """The entries of the last search for a message, and which of them is looked at."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.place = 0

    def values(self, attribute: str) -> list[str] | None:
        """The values of an attribute of the entry, None if it has none."""
        if self.place >= len(self.entries):
            return None
        given = self.entries[self.place].attributes.get(attribute.lower())
        return None if given is None else [value.decode("utf-8", "surrogateescape") for value in given]


class Ldap(Module):
    """Searches in LDAP directories."""

    config_file: str = param("/usr/local/etc/opensips/ldap.cfg", "The file with the sessions")
    max_async_connections: int = param(30, "How many connections to a session's server there may be, and searches at a time")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.sessions: dict[str, Session] = {}
        self.pool: Pool | None = None
        self._substitutions: dict[str, Any] = {}

    async def start(self) -> None:
        """Read the sessions; connections are made when a search needs them."""
        if self.max_async_connections < 1:
            raise ValueError("max_async_connections must be at least 1")
        try:
            text = Path(self.config_file).read_text(encoding="utf-8")
            self.sessions = read_sessions(text)
        except OSError as error:
            raise ValueError(f"config_file {self.config_file}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"config_file {self.config_file}: {error}") from None
        try:
            from sipgw.ldap.ldap3_directory import open_directory
        except ImportError as error:
            raise ValueError(f"ldap needs {error.name}: pip install sipgw[ldap]") from None
        for session in self.sessions.values():
            if (session.start_tls or any(each.tls for each in session.servers)) and not session.verifies:
                self.server.user.log(
                    1, f"ldap: session {session.name}: certificates are not verified: ldap_require_certificate is not DEMAND"
                )
        self.pool = Pool(self.server.reactor, self.max_async_connections, open_directory, self._noticed)
        self.pool.start()

    async def stop(self) -> None:
        """Close all connections."""
        if self.pool is not None:
            self.pool.stop()

    def _noticed(self, session: str, fault: str) -> None:
        text = f"is down: {fault}" if fault else "answers again"
        self.server.user.log_rarely(("ldap", session, bool(fault)), -1 if fault else 3, f"ldap: session {session} {text}")

    async def search(
        self, run: Run, session: str, base: str, scope: str, filter: str, attributes: Sequence[str] = ()
    ) -> int:
        """Search, and keep what is found with the message; how many entries. ``LdapFault``."""
        found = run.keep()
        found.pop("ldap", None)
        known = self.sessions.get(session)
        if known is None or self.pool is None:
            raise LdapFault(f"there is no session {session!r} in {self.config_file}")
        entries = await self.pool.search(known, base, scope, filter, attributes)
        found["ldap"] = Found(entries)
        return len(entries)

    def found(self, run: Run) -> Found | None:
        """What the last search for the message has found."""
        found: Found | None = run.keep().get("ldap")
        return found

    # -- in scripts

    @function(ROUTES)
    async def ldap_search(self, run: Run, ldap_url: PartedText) -> int:
        """Search; how many entries there are, -1 if none, -2 if it could not be done."""
        text = ldap_url if isinstance(ldap_url, str) else joined(ldap_url)
        try:
            url = parse(text)
            count = await self.search(run, url.session, url.base, url.scope, url.filter, url.attributes)
        except ValueError as error:
            run.user.log_rarely("ldap url", -1, f"ldap_search: {text[:200]!r}: {error}")
            return FAILED
        except LdapFault as error:
            run.user.log_rarely("ldap search", -1, f"ldap_search: {error}")
            return FAILED
        return count or NOTHING

    @function(ROUTES)
    def ldap_result(
        self,
        run: Run,
        ldap_attr_name: str,
        avp_spec: Avp,
        avp_type: Annotated[str, result_type] | None = None,
        regex_subst: Expression | None = None,
    ) -> int:
        """Give an AVP the values of an attribute, each after a substitution; how many, -1 if none, -2 without a search."""
        values = self._values(run, "ldap_result", ldap_attr_name, regex_subst)
        if isinstance(values, int):
            return values
        count = 0
        for value in values:
            number = _number(value) if avp_type == "int" else None
            if avp_type != "int" or number is not None:
                avp_spec.set(run, value if number is None else number)
                count += 1
        return count or NOTHING

    @function(ROUTES)
    def ldap_result_check(
        self, run: Run, ldap_attr_name: str, string_to_match: str, regex_subst: Expression | None = None
    ) -> int:
        """Whether a value of an attribute, after a substitution, is this text; -2 without a search."""
        values = self._values(run, "ldap_result_check", ldap_attr_name, regex_subst)
        if isinstance(values, int):
            return values
        return 1 if string_to_match in values else NOTHING

    @function(ROUTES)
    def ldap_result_next(self, run: Run) -> int:
        """Go on to the next entry; -1 if there is none, -2 without a search."""
        found = self.found(run)
        if found is None:
            run.user.log_rarely("ldap_result_next", -1, "ldap_result_next: there was no search that went well")
            return FAILED
        if found.place + 1 >= len(found.entries):
            return NOTHING
        found.place += 1
        return 1

    @function(ROUTES)
    def ldap_filter_url_encode(self, run: Run, string: str, avp_spec: Avp) -> bool:
        r"""Give an AVP a text as a filter of a URL may have it: ``* ( ) \`` and NUL escaped, and ``?``."""
        if not string:
            return False
        avp_spec.set(run, filter_url_encode(string))
        return True

    def _values(self, run: Run, what: str, attribute: str, expression: str | None) -> list[str] | int:
        found = self.found(run)
        if found is None:
            run.user.log_rarely(what, -1, f"{what}: there was no search that went well")
            return FAILED
        values = found.values(attribute)
        if values is None:
            return NOTHING
        return values if expression is None else self._substituted(run, values, expression)

    def _substituted(self, run: Run, values: list[str], expression: str) -> list[str]:
        """The values that fit the pattern, after the substitution."""
        compiled = self._substitutions.get(expression)
        if compiled is None:
            if len(self._substitutions) >= MAX_KNOWN:
                self._substitutions.clear()
            made = read_substitution(expression)
            compiled = made, [compile_variable(each, self.server.symbols).get for each in made.variables]
            self._substitutions[expression] = compiled
        substitution, getters = compiled
        variables = [get(run) for get in getters]
        fitting = [value for value in values if substitution.regex.search_bytes(value.encode("utf-8", "surrogateescape"))]
        applied = [substitution.apply(value, *variables) for value in fitting]
        return [str(each) for each in applied if each is not None]


def _number(text: str) -> int | None:
    """The number that a text is, None if it is none."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not digits.isascii() or not digits.isdigit() or int(digits) > LARGEST:
        return None
    return c_int(int(text))
