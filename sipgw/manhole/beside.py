"""What passes a server beside SIP, for who looks at it from the shell: stanzas of XMPP and PDUs of SMPP, and what they belong to.

Each says by *keys* what it belongs to: a Call-ID, its own id in its protocol. Two things with a key in common are of one
conversation; ``trace`` joins them. Nothing of a text is kept but who writes to whom, and of PDUs that bind, nothing at all: there
are passwords in them.

The links are wrapped while somebody listens, and only those rooms are looked at that are in use; else nothing costs anything."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from sipgw.manhole.show import plain

Show = Callable[[bool, str, str, frozenset[str]], None]
"""Shown each: whether it came, the lane of its peer, its label, its keys."""
TEXTS = frozenset(("submit_sm", "deliver_sm", "data_sm"))
Undo = Callable[[], None]


def call_key(call_id: str) -> str:
    """The key of a SIP call."""
    return f"call {call_id}"


def wrap(kind: Any, name: str, before: Callable[..., None]) -> Undo:
    """Have ``before(self, ...)`` called before a method of a class; what is returned undoes it."""
    inner = getattr(kind, name)

    def wrapped(self: Any, *arguments: Any, **named: Any) -> Any:
        before(self, *arguments, **named)
        return inner(self, *arguments, **named)

    setattr(kind, name, wrapped)
    return lambda: setattr(kind, name, inner)


def tap_all(server: Any, show: Show) -> list[Undo]:
    """Look at all that passes beside SIP; what undoes it."""
    undo: list[Undo] = []
    if "sipgw.xmpp.link" in sys.modules:
        undo += _Xmpp(server.user, show).tap()
    if "sipgw.sms.link" in sys.modules:
        undo += _Smpp(server, show).tap()
    return undo


def inner_keys(origin: Any) -> Iterator[str]:
    """The keys of a text that came into the script from elsewhere (``core.inner.InnerFlow.origin``)."""
    if hasattr(origin, "sender") and hasattr(origin, "id") and hasattr(origin, "domain"):  # a stanza (xmpp.gateway.Origin)
        if origin.id:
            yield _stanza_key(origin.id, origin.sender, origin.receiver)
    elif hasattr(origin, "details"):  # a text of the spool (sms.spool.Message)
        if origin.details.get("word"):  # of what became of a text
            yield call_key(origin.details.get("call_id", ""))
            return
        digest = origin.details.get("digest")
        yield f"sms {digest}" if digest else _pair_key(origin.link, origin.source, origin.destination)


# -- XMPP


def _stanza_key(id: str, one: str, other: str) -> str:
    return " ".join(("stanza", id, *sorted((one.partition("/")[0], other.partition("/")[0]))))


class _Xmpp:
    """Stanzas with a message in them, on the links of one server."""

    def __init__(self, user: Any, show: Show) -> None:
        self._user = user
        self._show = show
        self._latest: Any = None
        """What was shown last: ``deliver`` sends by ``send``."""

    def tap(self) -> list[Undo]:
        """Wrap the links."""
        undo: list[Undo] = []
        for module, name, out, into in (
            ("link", "Link", ("send", "deliver"), ("received",)), ("account", "Account", ("send", "deliver"), ("received",)),
            ("remote", "Remote", ("send", "deliver"), ()), ("server", "Server", (), ("received",)),
        ):
            found = sys.modules.get(f"sipgw.xmpp.{module}")
            if found is None:
                continue
            kind = getattr(found, name)
            undo += [wrap(kind, each, self._sent) for each in out]
            undo += [wrap(kind, each, self._came) for each in into]
        return undo

    def _sent(self, link: Any, element: Any) -> None:
        self._seen(False, link, element)

    def _came(self, link: Any, element: Any, *_ends: Any) -> None:
        self._seen(True, link, element)

    def _seen(self, came: bool, link: Any, element: Any) -> None:
        from sipgw.xmpp.stanza import child, local_name, text_of

        if element is self._latest or local_name(element) != "message" or not self._is_ours(link):
            return
        self._latest = element
        ends = element.get("from", ""), element.get("to", "")
        keys = {_stanza_key(element.get("id"), *ends)} if element.get("id") else set()
        thread = text_of(element, "thread")
        if thread:
            keys.add(call_key(thread))
        marks = [local_name(each) for each in element]
        word = "body" if child(element, "body") is not None else next((each for each in marks if each != "thread"), "")
        for each in element:
            if local_name(each) in ("received", "displayed") and each.get("id"):
                keys.add(_stanza_key(each.get("id", ""), *ends))
        kind = element.get("type", "")
        label = " ".join(filter(None, ("message", ends[1].partition("@")[0], kind if kind in ("error", "groupchat") else "",
                                       f"({word})" if word not in ("", "body", "error") else "")))
        settings = getattr(link, "settings", None)
        where = getattr(settings, "host", "") or getattr(settings, "domain", "") or ends[0 if came else 1].partition("@")[2]
        self._show(came, f"xmpp {where.partition('/')[0]}", plain(label), frozenset(keys))

    def _is_ours(self, link: Any) -> bool:
        watcher = getattr(link, "watcher", None)
        user = getattr(watcher, "user", None) or getattr(getattr(watcher, "server", None), "user", None)
        return user is None or user is self._user


# -- SMPP


def _pair_key(link: str, source: str, destination: str) -> str:
    return f"sms {link} {source} {destination}"


class _Smpp:
    """PDUs with texts, on the links of one server."""

    def __init__(self, server: Any, show: Show) -> None:
        self._server = server
        self._show = show

    def tap(self) -> list[Undo]:
        """Wrap the links."""
        from sipgw.sms.link import Link

        return [wrap(Link, "request", self._asks), wrap(Link, "respond", self._responds), _wrap_actions(Link, self._came)]

    def _name(self, link: Any) -> str | None:
        """What the link is called; None if it is not of this server."""
        gateway = getattr(self._server.modules.get("proto_smpp"), "gateway", None)
        owner = link._owner
        if gateway is None:
            return None
        if owner is gateway.port:
            account = owner.links.get(link)
            return None if account is None else str(account.system_id)
        esme = getattr(owner, "esme", None)
        name = None if esme is None else str(esme.smsc.name)
        return name if name is not None and gateway.esmes.get(name) is esme else None

    def _asks(self, link: Any, pdu: Any, token: Any) -> None:
        self._seen(False, link, pdu, _token_keys(token))

    def _responds(self, link: Any, pdu: Any, status: str | int = 0, **_values: Any) -> None:
        if pdu.command in TEXTS:
            self._seen(False, link, pdu, frozenset(), pdu.respond(status))

    def _came(self, link: Any, action: Any) -> None:
        from sipgw.sms.session import Answered, Deliver

        if isinstance(action, Deliver):
            self._seen(True, link, action.pdu)
        elif isinstance(action, Answered) and action.pdu is not None:
            self._seen(True, link, action.pdu, _token_keys(action.token))

    def _seen(self, came: bool, link: Any, pdu: Any, keys: frozenset[str] = frozenset(), answer: Any = None) -> None:
        command = pdu.command.removesuffix("_resp")
        name = self._name(link) if command in TEXTS else None
        if name is None:
            return
        shown = answer or pdu
        if shown.is_response:
            label = f"{shown.command} {shown.error}"
        else:
            label = f"{shown.command} {shown['destination_addr']}"
        if pdu.is_response and pdu["message_id"]:
            keys |= {f"smsc {name} {pdu['message_id']}"}
        if not pdu.is_response:
            keys |= frozenset(self._text_keys(name, pdu, came or answer is not None))
        self._show(came, f"smpp {name}", plain(label), keys)

    def _text_keys(self, name: str, pdu: Any, theirs: bool) -> Iterator[str]:
        """The keys of a text, or of a receipt, that the other side sent."""
        from sipgw.sms import inbound, receipts
        from sipgw.sms.numbers import Address

        if not theirs:
            return
        if inbound.is_receipt(pdu):
            found = receipts.read(pdu.message.decode("latin-1"), pdu.tlvs)
            yield from () if found is None else (f"smsc {name} {id}" for id in receipts.same_ids(found.id))
            return
        yield f"sms {inbound.digest_of(name, pdu).hex()}"
        try:
            part = inbound.content_of(pdu)[1]
        except ValueError:
            return
        if part is not None:  # a whole is known by its ends alone
            numbers = self._server.modules["proto_smpp"].gateway.settings.numbers
            source = Address(pdu["source_addr_ton"], pdu["source_addr_npi"], pdu["source_addr"])
            target = Address(pdu["dest_addr_ton"], pdu["dest_addr_npi"], pdu["destination_addr"])
            yield _pair_key(name, numbers.to_sip(source), numbers.to_sip(target))


def _token_keys(token: Any) -> frozenset[str]:
    """The call whose text a PDU of ours carries (``sms.outbound``)."""
    message = getattr(token[1], "message", None) if isinstance(token, tuple) and len(token) > 1 else None
    call_id = None if message is None else message.details.get("call_id")
    return frozenset((call_key(call_id),)) if call_id else frozenset()


def _wrap_actions(kind: Any, see: Callable[[Any, Any], None]) -> Undo:
    """See each action that a link performs, before it does."""
    inner = kind._perform

    def perform(self: Any, actions: Any) -> None:
        def seen() -> Iterator[Any]:
            for action in actions:
                see(self, action)
                yield action

        inner(self, seen())

    kind._perform = perform
    return lambda: setattr(kind, "_perform", inner)
