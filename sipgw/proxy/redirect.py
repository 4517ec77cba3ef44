"""Redirection (RFC 3261 8.3, 8.1.3.4): the destination set of a request as the Contact of a 3xx, and the Contact of 3xx responses
as new destinations.

The destination set is what ``$ds`` prints: the Request-URI only where the script has changed it, then every branch."""

from __future__ import annotations

from collections.abc import Callable

from sipgw.proxy import branches
from sipgw.proxy.responses import ResponseContext
from sipgw.script.run import Branch, Run
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Response
from sipgw.sip.uri import Uri

DEFAULT_Q = 10
"""The q, in thousandths, of a contact that has none."""
MAX_REDIRECTIONS = 5
"""How often one transaction follows 3xx responses (hardening P14)."""


def contact_line(run: Run) -> str:
    """``Contact: <...>;q=0.7, <...>`` without its line end, or "" when the run has no destinations."""
    targets = []
    if run.uri != getattr(run.message, "uri", ""):
        targets.append((run.uri, run.q))
    targets.extend((branch.uri, branch.q) for branch in run.branches)
    if not targets:
        return ""
    return "Contact: " + ", ".join(f"<{uri}>" if q < 0 else f"<{uri}>;q={write_q(q)}" for uri, q in targets)


def write_q(q: int) -> str:
    """A q value in thousandths as text: 700 is ``0.7``, 1000 is ``1``."""
    return f"{q / 1000:.3f}".rstrip("0").rstrip(".")


def follow(run: Run, accepts: Callable[[str], bool], most: int, most_each: int) -> bool:
    """Make the contacts of the 3xx responses to the last fork destinations of ``run``, best q first; False if none is new.

    ``most`` in all and ``most_each`` of each response are taken, 0 for any number. The first becomes the Request-URI if that is
    the received one. No URI is tried twice in a transaction (RFC 3261 8.1.3.4), and there is an end to being sent on."""
    context: ResponseContext = run.transaction
    if context.kept.get("redirections", 0) >= MAX_REDIRECTIONS:
        run.user.log_rarely("redirections", -1, f"a request was redirected {MAX_REDIRECTIONS} times, and is not any more")
        return False
    known = {branch.run.uri for branch in context.branches} | {branch.uri for branch in run.branches} | {run.uri}
    added = 0
    for branch in context.branches[context.first_branch :]:
        if not 300 <= branch.status < 400 or branch.response is None:
            continue
        left = most_each or branches.MAX_BRANCHES
        for uri, q in _targets(run, branch.response):
            if not left or (most and added >= most):
                break
            if uri not in known and accepts(uri) and _add(run, Branch(uri, q=q)):
                known.add(uri)
                added += 1
                left -= 1
    if added:
        context.kept["redirections"] = context.kept.get("redirections", 0) + 1
    return added > 0


def _targets(run: Run, response: Response) -> list[tuple[str, int]]:
    """The SIP URIs in the Contact of ``response`` with their q, best first, those of one q in their order."""
    found: list[tuple[str, int]] = []
    try:
        for contact in response.contacts:
            if not contact.star and Uri.parse(contact.uri_text).is_sip:
                found.append((contact.uri_text, DEFAULT_Q if contact.q is None else contact.q))
    except MalformedMessage as error:
        run.user.log_rarely(("redirect", error.reason), 1, f"the Contact of a {response.status} cannot be read: {error.reason}")
    return sorted(found, key=lambda target: target[1], reverse=True)


def _add(run: Run, branch: Branch) -> bool:
    if run.uri != getattr(run.message, "uri", ""):
        return branches.append(run, branch)
    branches.set_main(run, branch)
    return True
