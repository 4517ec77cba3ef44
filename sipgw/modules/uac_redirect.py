"""uac_redirect: a failure route follows 3xx responses (RFC 3261 8.1.3.4).

Which contacts are followed is decided by patterns: one that an accept filter matches is, else one that a deny filter matches is
not, else ``default_filter`` counts."""

from __future__ import annotations

from typing import Annotated, Any

from sipgw.exports import FAILURE, Module, Pattern, Regex, function, param, requires
from sipgw.interfaces import Server
from sipgw.modules.tm import Tm
from sipgw.proxy import redirect
from sipgw.script.regex import BadPattern, compile_regex
from sipgw.script.run import Run

MAX_FILTERS = 6
"""How many patterns of a kind one message may have, the modparam's included."""
RESETS = ("", "reset_all", "reset_default", "reset_added")


def check_pattern(text: str) -> None:
    """Refuse what is no pattern."""
    try:
        compile_regex(text)
    except BadPattern as error:
        raise ValueError(f"bad pattern {text!r}: {error}") from None


def check_default(text: str) -> None:
    """Refuse all but accept and deny."""
    if text not in ("accept", "deny"):
        raise ValueError(f"{text!r}: write accept or deny")


def check_reset(text: str) -> None:
    """Refuse what resets nothing."""
    if text not in RESETS:
        raise ValueError(f"unknown flag {text!r}: write one of {', '.join(map(repr, RESETS))}")


class UacRedirect(Module):
    """Follows redirections."""

    tm: Tm = requires("tm")

    deny_filter: str = param("", "A pattern of contacts that are not followed", check=check_pattern)
    accept_filter: str = param("", "A pattern of contacts that are followed", check=check_pattern)
    default_filter: str = param("accept", "What to do with contacts that no pattern matches: accept or deny", check=check_default)

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._defaults: dict[str, list[Pattern]] = {"accept": [], "deny": []}

    async def start(self) -> None:
        """Compile the patterns."""
        for kind, text in (("accept", self.accept_filter), ("deny", self.deny_filter)):
            self._defaults[kind] = [compile_regex(text)] if text else []

    @function(FAILURE)
    def set_deny_filter(self, run: Run, filter: Regex, flags: Annotated[str, check_reset]) -> bool:
        """Follow no contact that matches ``filter``; ``flags`` may forget the modparam's, those added before, or both."""
        return self._set(run, "deny", filter, flags)

    @function(FAILURE)
    def set_accept_filter(self, run: Run, filter: Regex, flags: Annotated[str, check_reset]) -> bool:
        """Follow any contact that matches ``filter``; ``flags`` as in ``set_deny_filter``."""
        return self._set(run, "accept", filter, flags)

    def _set(self, run: Run, kind: str, filter: Pattern, flags: str) -> bool:
        if flags not in RESETS:
            run.user.log(-1, f"set_{kind}_filter: unknown flag {flags!r}")
            return False
        keeps_default, added = self._filters(run, kind)
        if flags in ("reset_all", "reset_default"):
            keeps_default = False
        if flags in ("reset_all", "reset_added"):
            added = []
        if len(added) >= MAX_FILTERS - 1:
            run.user.log(-1, f"set_{kind}_filter: there are {MAX_FILTERS} already")
            return False
        run.keep()[f"uac_redirect.{kind}"] = (keeps_default, [*added, filter])
        return True

    def _filters(self, run: Run, kind: str) -> tuple[bool, list[Pattern]]:
        """Whether the modparam's pattern counts for this message, and those that the script has added."""
        found: tuple[bool, list[Pattern]] = run.keep().get(f"uac_redirect.{kind}", (True, []))
        return found

    def _patterns(self, run: Run, kind: str) -> list[Pattern]:
        keeps_default, added = self._filters(run, kind)
        return [*(self._defaults[kind] if keeps_default else ()), *added]

    @function(FAILURE)
    def get_redirects(self, run: Run, max_total: int | None = None, max_branch: int | None = None) -> bool:
        """Make the contacts of the 3xx responses destinations, for ``t_relay``; false if none is new and may be followed.

        ``max_total`` in all and ``max_branch`` of each response, the best of them by their q; 0 for any number."""
        accept, deny = self._patterns(run, "accept"), self._patterns(run, "deny")

        def accepts(uri: str) -> bool:
            if any(pattern.search(uri) for pattern in accept):
                return True
            return self.default_filter == "accept" and not any(pattern.search(uri) for pattern in deny)

        return redirect.follow(run, accepts, max(max_total or 0, 0), max(max_branch or 0, 0))
