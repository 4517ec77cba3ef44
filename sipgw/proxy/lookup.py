"""Looking a user up (RFC 3261 16.5: the location service gives the target set), and the other questions to a location table.

``lookup`` turns the Request-URI into the contacts of its address-of-record: the first becomes the Request-URI, the others
branches. The next hop is the first URI of the contact's Path (RFC 3327 5.4), else where its REGISTER came from (``received``),
else what it was before (COMPAT: a ``$du`` that the script has set stays).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from sipgw.proxy.branches import MAX_BRANCHES
from sipgw.proxy.location import Binding, LocationTable
from sipgw.proxy.push import sleeps
from sipgw.proxy.register import METHOD_BITS, OTHER_METHOD, Rejected
from sipgw.proxy.registrar import Registrar
from sipgw.proxy.registrar_flags import LookupFlags
from sipgw.script.run import Branch, Run
from sipgw.sip.address import NameAddr, parse_list
from sipgw.sip.uri import Uri, same_host

__all__ = [
    "FOUND", "NOT_ALLOWED", "NOT_FOUND", "NO_AOR", "PUSHED", "Place", "branch_of", "is_at", "lookup", "path_target", "place_of",
    "registered",
]

FOUND = 1
PUSHED = 2
"""All that was found sleep, and have been asked for; each that wakes up becomes a branch (RFC 8599)."""
NOT_FOUND = -1
NOT_ALLOWED = -2
"""There are contacts, but none supports the method (``method-filtering``)."""
NO_AOR = -3
"""What was to be looked up is no address-of-record."""


Wake = Callable[[Run, LocationTable, "list[Binding]"], int]
"""Asks for phones to be woken on behalf of a request: ``PUSHED``, or what ``lookup`` has to give if that cannot wait for them."""


def lookup(
    registrar: Registrar, run: Run, table: LocationTable, flags: LookupFlags, uri: str | None = None, wake: Wake | None = None
) -> int:
    """Make the contacts of ``uri`` (default: the Request-URI) the destinations of ``run``; returns what the script sees.

    Contacts that sleep are no destinations yet: ``wake`` asks for them."""
    targets = [uri or run.uri]
    if flags.expand_branches:
        targets.extend(branch.uri for branch in run.branches)
    chosen: list[Binding] = []
    refused = False
    for index, target in enumerate(targets):
        try:
            found = registrar.live(table, target, run.now)
        except Rejected:
            if index == 0 and len(targets) == 1:
                return NO_AOR
            continue
        if found and flags.method_filtering:
            bit = METHOD_BITS.get(run.message.method, OTHER_METHOD)
            allowed = [binding for binding in found if binding.methods & bit]
            refused = refused or not allowed
            found = allowed
        if flags.user_agent is not None:
            pattern = flags.user_agent
            found = [binding for binding in found if pattern.search(binding.user_agent or "n/a") is not None]
        chosen.extend(found)
    if not chosen:
        return NOT_ALLOWED if refused else NOT_FOUND
    push = registrar.settings.push
    asleep = [] if push is None else [binding for binding in chosen if not push.awake(binding, run.now)]
    if asleep:
        chosen = [binding for binding in chosen if binding not in asleep]
        if flags.no_branches:
            asleep = [] if chosen else asleep[:1]
        code = wake(run, table, asleep) if asleep and wake is not None else NO_AOR
        if not chosen or not code:
            return code
    if flags.expand_branches:
        run.branches = []
    if not flags.branches_only:
        _aim(registrar, run, chosen[0])
        chosen = [] if flags.no_branches else chosen[1:]
    room = max(0, MAX_BRANCHES - 1 - len(run.branches))
    if len(chosen) > room:
        run.user.log_rarely(("lookup", targets[0]), 1, f"lookup: {targets[0]} has too many contacts, {MAX_BRANCHES} are used")
    run.branches.extend(branch_of(registrar, binding) for binding in chosen[:room])
    return FOUND


def branch_of(registrar: Registrar, binding: Binding) -> Branch:
    """The destination that ``binding`` is."""
    path, target_uri = binding.path, binding.received
    if path is not None:
        target_uri = path_target(path)
    branch = Branch(_uri(registrar, binding), target_uri, path, binding.q, binding.flags, binding.socket)
    attribute = registrar.settings.attr_avp
    if attribute:
        branch.attrs = {attribute: binding.attr or ""}
    return branch


def _uri(registrar: Registrar, binding: Binding) -> str:
    """The URI of a contact as others may see it."""
    push = registrar.settings.push
    return binding.contact if push is None or not sleeps(binding) else push.bare(binding.contact)


def _aim(registrar: Registrar, run: Run, binding: Binding) -> None:
    """Make ``binding`` the destination of the request itself."""
    run.uri = _uri(registrar, binding)
    run.path = binding.path
    if binding.path is not None:
        run.dst_uri = path_target(binding.path)
    elif binding.received:
        run.dst_uri = binding.received
    run.q = binding.q
    run.branch_flags |= binding.flags
    if binding.socket is not None:
        run.send_socket = binding.socket
    attribute = registrar.settings.attr_avp
    if attribute:
        run.attrs = {attribute: binding.attr or ""}


def path_target(path: str) -> str:
    """The first URI of a Path value that was checked when it was stored."""
    return NameAddr.parse(parse_list(path)[0]).uri_text


class Place(NamedTuple):
    """Where a contact is, as far as its URIs say: ``host`` without brackets, ``port`` 0 where none is written."""

    host: str
    port: int


def place_of(binding: Binding, with_path: bool = True) -> Place:
    """The next hop towards ``binding``: its Path, else where its REGISTER came from, else its contact. No name is resolved."""
    if with_path and binding.path is not None:
        text = path_target(binding.path)
    else:
        text = binding.received or binding.contact
    uri = Uri.parse(text)
    return Place(uri.address, uri.port or 0)


def is_at(binding: Binding, host: str, port: int | None = None, with_path: bool = True) -> bool:
    """Whether ``binding`` is at ``host`` (and ``port``, where one is given)."""
    place = place_of(binding, with_path)
    return (port is None or place.port == port) and same_host(place.host, host.strip("[]"))


def registered(
    bindings: Sequence[Binding], contacts: Iterable[str] = (), call_id: str | None = None
) -> Iterator[Binding]:
    """Those of ``bindings`` that have one of ``contacts`` as the text of their URI (any, if there are none) and ``call_id``."""
    wanted = set(contacts)
    for binding in bindings:
        if (not wanted or binding.contact in wanted) and (call_id is None or binding.call_id == call_id):
            yield binding
