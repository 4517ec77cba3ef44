"""Topology hiding: neither side of a dialog learns of the other, or of what lies behind it.

Every request leaves with our Via alone, without Record-Route, and with a Contact of ours in the place of the sender's; every
response goes back with the Vias and the Record-Route that its request had when it came. So each side takes us for the one it
talks with: what it sends later has a URI of ours as its Request-URI and only the routers of its own side in Route. Where such a
request is to go must then be found by that URI. There are two ways:

- ``HiddenCalls``: the module dialog follows the call. Our Contact has the name of the dialog (``;did=``, or in the user), and the
  dialog keeps the rest, through a restart too. The Call-ID can be another one on the callee's side.
- ``HiddenContacts`` (``hidden_contacts.py``): nothing is kept. All that must be known of a side - its Contact, its route set, our
  socket that faces it - is sealed into a parameter of the Contact that the other side is given. It is keyed and checksummed
  (``sealed.py``): a stranger can neither read it nor make one, so nobody can aim us at a place that no Contact has named.

A 3xx keeps its Contact: it says where else to try, which hiding must not lose (so does OpenSIPS)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from functools import partial
from typing import Any, Final

from sipgw.proxy.dialogs import Call, Leg, number_of
from sipgw.proxy.following import DID_NONE, DID_ONLY, Follower
from sipgw.proxy.record_route import UNRECORDED, RecordRoute, is_own, own_address
from sipgw.proxy.sealed import Seal
from sipgw.script.run import Run
from sipgw.sip.dialog import Dialog, DialogId
from sipgw.sip.edits import EditList
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Message, Request, Response

Contact = Callable[[Any, Message], str]
"""Called with a socket of ours and the message with the Contact to be hidden: the value that stands in its place."""


class HideFlag(IntFlag):
    """What is kept with the dialog (column ``module_flags``), with OpenSIPS's values."""

    ON = 1 << 1
    KEEP_USER = 1 << 2
    CALL_ID = 1 << 3
    DID_IN_USER = 1 << 4
    KEEP_FOR_CALLER = 1 << 5
    KEEP_FOR_CALLEE = 1 << 6


LETTERS: Final = {
    "U": HideFlag.KEEP_USER, "C": HideFlag.CALL_ID, "D": HideFlag.DID_IN_USER, "a": HideFlag.KEEP_FOR_CALLER,
    "A": HideFlag.KEEP_FOR_CALLEE,
}
"""The flags of ``topology_hiding``."""

HIDDEN: Final = "hidden"
"""Where a run keeps that its request is hidden already."""
_USER_PREFIX: Final = "X.did."
"""What the user of our Contact begins with where it names the dialog, as OpenSIPS's do."""
_unfit = re.compile(r'[\x00-\x20\x7f<>",?]').search


# -- what is done to messages


def hide_request(run: Run, contact: Contact, call_id: str = "") -> None:
    """Hide where the request of ``run`` comes from; ``call_id``: another Call-ID for it."""
    request = run.message
    edits = run.edits.without(RecordRoute).note(UNRECORDED)
    for name in ("via", "record-route"):
        for line in request.positions(name):
            edits = edits.delete(line)
    lines = request.positions("contact")
    if lines and request.contacts and not request.contacts[0].star:
        for line in lines:
            edits = edits.delete(line)
        edits = edits.later(lines[0], partial(_contact_line, contact, request))
    if call_id:
        edits = edits.replace(request.positions("call-id")[0], f"Call-ID: {call_id}")
    run.edits = edits


def _contact_line(contact: Contact, request: Message, _edits: EditList, way: Any) -> str:
    """The Contact of a request that leaves on ``way``."""
    return "" if way is None else f"Contact: {contact(way[1].socket, request)}"


def hide_response(
    contact: Contact | None, socket: Any, request: Request, response: Response, edits: EditList, *, vias: bool = True,
    routes: tuple[str, ...] = ("record-route",),
) -> EditList:
    """Give ``response`` the Vias, Record-Route and Call-ID of its ``request`` as it came by ``socket``, and a Contact of ours.

    ``contact``: None, and it keeps its own; ``vias``: not, if it has come back with those of the request; ``routes``: (), if
    it gets Record-Routes from elsewhere."""
    above = response.positions("via")
    restored = [request.lines[line] for line in request.positions("via")] if vias else []
    if 100 < response.status < 300:
        restored += [request.lines[line] for name in routes for line in request.positions(name)]
    for line in (*(above if vias else ()), *response.positions("record-route")):
        edits = edits.delete(line)
    if restored:
        edits = edits.insert_before(above[0], "\r\n".join(restored))
    edits = edits.replace(response.positions("call-id")[0], request.lines[request.positions("call-id")[0]])
    lines = response.positions("contact") if contact is not None else []
    if contact is None or not lines or 300 <= response.status < 400:
        return edits
    try:
        shown = f"Contact: {contact(socket, response)}" if response.contacts and not response.contacts[0].star else ""
    except MalformedMessage:
        shown = ""  # nothing of it is shown, as nothing of it can be read
    for line in lines:
        edits = edits.delete(line)
    if shown:
        edits = edits.insert_before(lines[0], shown)
    return edits


def send_along(run: Run, target: str, routes: list[str], socket: Any) -> None:
    """Send the request of ``run`` to ``target`` by ``routes``, whatever its own Route says; ``MalformedMessage``."""
    request = run.message
    dialog = Dialog(DialogId("", "", ""), "", "", target, routes, None, None, early=False, secure=False)
    uri, left = dialog.path()
    next_hop = dialog.next_hop
    edits = run.edits
    for line in request.positions("route"):
        edits = edits.delete(line)
    if left:
        edits = edits.insert_before(1, f"Route: {', '.join(left)}")
    run.edits = edits
    run.uri = uri
    run.dst_uri = next_hop if routes else None
    if socket is not None:
        run.send_socket = socket


@dataclass(frozen=True)
class Passed:
    """The names, in lower case, of the parameters of a Contact, and of its URI, that the other side is to see."""

    of_uri: frozenset[str] = frozenset()
    of_header: frozenset[str] = frozenset()

    def write(self, socket: Any, user: str, params: str, message: Message) -> str:
        """A Contact at ``socket`` with ``user`` and ``params``, and what is passed of that of ``message``."""
        theirs = message.contacts[0]
        uri = f"sip:{user}@" if user else "sip:"
        try:
            passed = _chosen(theirs.uri.params, self.of_uri) if self.of_uri else ""
        except MalformedMessage:
            passed = ""
        text = f"<{uri}{own_address(socket)}{params}{passed}>"
        return text + _chosen(theirs.params_text, self.of_header)


def _chosen(params: str | None, names: frozenset[str]) -> str:
    if not names or not params:
        return ""
    return "".join(f";{part}" for part in params.split(";") if part.partition("=")[0].strip().lower() in names)


def own_contact(socket: Any, user: str = "") -> str:
    """A Contact at ``socket``."""
    return f"<sip:{user}@{own_address(socket)}>" if user else f"<sip:{own_address(socket)}>"


def own_user(message: Message) -> str:
    """The user of the first Contact, as it is written."""
    try:
        return message.contacts[0].uri.user or ""
    except MalformedMessage:
        return ""


# -- with dialogs


class HiddenCalls:
    """Hides the calls that ``follower`` follows.

    ``names``: under which ``$dlg_val`` the users stand that the caller and the callee are shown. ``prefix``, ``password``: what
    the Call-IDs of callees begin with, and are made with."""

    def __init__(
        self, follower: Follower, tm: Any, passed: Passed, names: tuple[str, str], prefix: str, password: str
    ) -> None:
        self._follower = follower
        self._tm = tm
        self._passed = passed
        self._names = names
        self._prefix = prefix
        self._seal = Seal(password.encode("utf-8", "surrogateescape"), b"call id")

    def adopt(self, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        """Go on hiding a call that comes from the database."""
        if call.module_flags & HideFlag.ON:
            call.veil = self

    def begin(self, run: Run, call: Call, flags: HideFlag, users: tuple[str, str]) -> None:
        """Hide ``call`` from its first request on; ``users``: that of our Contact for the caller, and for the callee."""
        call.module_flags |= int(flags | HideFlag.ON)
        call.veil = self
        for name, user in zip(self._names, users, strict=True):
            if user:
                call.values[name] = user
        other = self.call_id(call, call.winner)
        hide_request(run, partial(self._contact, call, call.winner), other if other != call.call_id else "")
        self._tm.rewrite_replies(run, partial(hide_response, partial(self._contact, call, call.caller), run.flow.socket))  # type: ignore[union-attr]

    # what it says of itself (``dialogs.Veil``)

    def call_id(self, call: Call, leg: Leg) -> str:
        """The Call-ID that ``leg`` knows the call by."""
        if leg is call.caller or not call.module_flags & HideFlag.CALL_ID:
            return call.call_id
        return self._prefix + self._seal.close(call.call_id.encode("utf-8", "surrogateescape"))

    def contact(self, call: Call, leg: Leg) -> str:
        """The URI that ``leg`` is to take for the Contact of the other side."""
        if leg.socket is None:
            return ""
        user, params = self._name(call, leg, "")
        return f"sip:{user}@{own_address(leg.socket)}{params}" if user else f"sip:{own_address(leg.socket)}{params}"

    def _contact(self, call: Call, leg: Leg, socket: Any, message: Message) -> str:
        """The Contact that ``leg`` is to see."""
        keep = HideFlag.KEEP_FOR_CALLER if leg is call.caller else HideFlag.KEEP_FOR_CALLEE
        name = f"_th_contact_{'caller' if leg is call.caller else 'callee'}"
        if call.module_flags & keep and name in call.values:
            return str(call.values[name])
        user, params = self._name(call, leg, own_user(message) if call.module_flags & HideFlag.KEEP_USER else "")
        text = self._passed.write(socket, user, params, message)
        if call.module_flags & keep:
            call.values[name] = text
        return text

    def _name(self, call: Call, leg: Leg, user: str) -> tuple[str, str]:
        """The user and the parameters of our Contact: either names the dialog."""
        if call.module_flags & HideFlag.DID_IN_USER:
            return _USER_PREFIX + call.did, ""
        shown = call.values.get(self._names[0 if leg is call.caller else 1])
        return user if shown is None else str(shown), f";{self._follower.settings.rr_param}={call.did}"

    # what comes later

    def match(self, run: Run, mode: int) -> bool:
        """Find the hidden call that a request is in, and send it on there; false if there is none."""
        request = run.message
        if not isinstance(request, Request) or not request.to_tag:
            return False
        found = self._find(run, request, mode)
        if found is None:
            return False
        call, source, target = found
        self._follower.within(run, call, source, target)
        try:
            send_along(run, target.contact, target.routes, target.socket)
        except MalformedMessage as error:
            run.user.log_rarely("hidden call", -1, f"topology_hiding_match: no way to go on with {call.did}: {error}")
            return False
        call_id = self.call_id(call, target)
        hide_request(run, partial(self._contact, call, target), call_id if call_id != request.call_id else "")
        if request.method != "ACK":
            contact = partial(self._contact, call, source)
            self._tm.rewrite_replies(run, partial(hide_response, contact, run.flow.socket))  # type: ignore[union-attr]
        return True

    def _find(self, run: Run, request: Request, mode: int) -> tuple[Call, Leg, Leg] | None:
        tags = request.from_tag or "", request.to_tag or ""
        if mode != DID_NONE:
            call = self._follower.calls.by_number(self._named(run))
            sides = None if call is None or call.veil is None else call.sides(*tags)
            if call is not None and sides is not None and request.call_id == self.call_id(call, sides[0]):
                return (call, *sides)
            if mode == DID_ONLY:
                return None
        found = self._follower.calls.match(self.plain_call_id(request.call_id), *tags)
        if found is None or found[0].veil is None or request.call_id != self.call_id(found[0], found[1]):
            return None
        return found

    def _named(self, run: Run) -> int | None:
        """The number of the dialog that the Request-URI, one of ours, names."""
        try:
            uri = run.request_uri
            if not is_own(run, uri):
                return None
            if (uri.user or "").startswith(_USER_PREFIX):
                return number_of((uri.user or "").removeprefix(_USER_PREFIX))
            return number_of(uri.param(self._follower.settings.rr_param) or "")
        except MalformedMessage:
            return None

    def kin(self, message: Message) -> list[str]:
        """The caller's Call-ID for a message with one of ours (``TransactionUser.kin``)."""
        call_id = message.header("call-id") or ""
        return [self.plain_call_id(call_id)] if call_id.startswith(self._prefix) else []

    def plain_call_id(self, call_id: str) -> str:
        """The caller's Call-ID for one of ours; any other as it is."""
        if not call_id.startswith(self._prefix):
            return call_id
        octets = self._seal.open(call_id.removeprefix(self._prefix))
        return call_id if octets is None else octets.decode("utf-8", "surrogateescape")


def fit_user(text: str) -> str:
    """A user for our Contact; ``ValueError`` if it cannot stand in a URI."""
    if _unfit(text) or "@" in text or "/" in text:
        raise ValueError(f"{text!r} cannot be the user of a Contact")
    return text


def names_of(text: str) -> frozenset[str]:
    """Names of parameters, with semicolons between them."""
    return frozenset(name.strip().lower() for name in text.split(";") if name.strip())


__all__ = [
    "HIDDEN", "LETTERS", "HiddenCalls", "HideFlag", "Passed", "fit_user", "hide_request", "hide_response", "names_of",
    "own_contact", "own_user", "send_along",
]
