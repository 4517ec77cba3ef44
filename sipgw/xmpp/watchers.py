"""Jabber users who watch SIP users (RFC 8048 4.2, 5.2): let in or not, and told. Pure.

What there is to tell comes from two sources. A subscription of our own with the SIP side (``Doors.seek``) brings documents, and
its state is the approval: "active" lets the watcher in, "rejected" does not. With ``Rules.phones`` a registered phone counts as
being there, without any document; then whoever asks is let in, or the SIP user is asked (``Rules.ask``).

Each tuple of a document is a resource of the SIP user. Which ones a watcher was told of is kept: those that are gone after a
restart can be taken back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from sipgw.sip.pidf import Tuple
from sipgw.xmpp.address import Jid
from sipgw.xmpp.presence import to_presence
from sipgw.xmpp.stanza import Element, error_to, stanza

__all__ = ["Doors", "Pair", "Rules", "Watchers"]

RESOURCE: Final = "sip"
"""Of the Jabber ID under which registered phones are shown."""
MOST: Final = 50_000
"""Pairs."""
RESOURCES: Final = 20
"""Of one SIP user, at most."""
PATIENCE: Final = 30
"""How often a SIP user is asked for who was never let in: about a day."""
REFUSED: Final = frozenset((403, 603))
NEVER: Final = frozenset((405, 410, 414, 416, 420, 484, 485, 489, 501, 604, 606))
"""Answers to a SUBSCRIBE that will be the same tomorrow."""
_ODD: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]")


class Pair(NamedTuple):
    """A SIP user and a Jabber user, both without resources."""

    sip: Jid
    jabber: Jid


class Rules(NamedTuple):
    """Where presence comes from. ``subscribe``: from subscriptions; ``phones``: tells whether a SIP user has a phone, None: that
    does not count; ``ask``: the SIP user is asked before phones are shown."""

    subscribe: bool = False
    phones: Callable[[Jid], bool] | None = None
    ask: bool = False


class Doors(Protocol):
    """What watchers have done for them."""

    def say(self, element: Element) -> None:
        """Send a stanza."""

    def watching(self, pair: Pair, state: str, shown: Sequence[str]) -> None:
        """Keep that a Jabber user watches: "pending", "active" or "denied", and the resources shown; "": no more."""

    def seek(self, pair: Pair) -> None:
        """Subscribe to the SIP user, or ask for the news."""

    def release(self, pair: Pair) -> None:
        """Unsubscribe."""

    def ask(self, pair: Pair) -> None:
        """Ask the SIP user whether the Jabber user may watch."""

    def trusts(self, pair: Pair) -> bool:
        """Whether the SIP user watches the Jabber user."""


class _Watcher:
    __slots__ = ("attempts", "document", "quiet", "shown", "state")

    def __init__(self, state: str, quiet: bool = False) -> None:
        self.state = state
        self.quiet = quiet
        """Jabber believes that it has been let in already."""
        self.document: Sequence[Tuple] | None = None
        """What a subscription has brought; None: nothing is known."""
        self.shown: dict[str, Tuple | None] = {}
        """Resources that are available; None: as what is not known any more."""
        self.attempts = 0


class Watchers:
    """All of them."""

    def __init__(self, doors: Doors, rules: Rules) -> None:
        self.doors = doors
        self.rules = rules
        self.pairs: dict[Pair, _Watcher] = {}
        self._of: dict[Jid, set[Jid]] = {}
        self._live: set[str] = set()
        """Domains whose server is there."""
        self._owed: dict[Pair, str] = {}
        """Words to say when it is there again."""
        self._lost: set[tuple[str, str]] = set()
        """Ours and theirs, where the server of theirs is gone: what is said may be lost, and is said again."""

    @property
    def serves(self) -> bool:
        """Whether there is anything to be seen."""
        return self.rules.subscribe or self.rules.phones is not None

    def of(self, sip: Jid) -> list[Pair]:
        """Those who watch a SIP user."""
        return [Pair(sip, jabber) for jabber in self._of.get(sip, ())]

    def state(self, pair: Pair) -> str:
        """"pending", "active", "denied", or "" for nobody."""
        found = self.pairs.get(pair)
        return "" if found is None else found.state

    def shown(self, pair: Pair) -> list[str]:
        """The resources that a watcher sees."""
        found = self.pairs.get(pair)
        return [] if found is None else sorted(found.shown)

    def admit(self, pair: Pair, state: str = "active", shown: Sequence[str] = ()) -> None:
        """Take one from before a restart."""
        found = self._add(pair, state)
        found.shown = dict.fromkeys(shown)

    def _add(self, pair: Pair, state: str, quiet: bool = False) -> _Watcher:
        found = self.pairs[pair] = _Watcher(state, quiet)
        self._of.setdefault(pair.sip, set()).add(pair.jabber)
        return found

    def _remove(self, pair: Pair, word: str = "unsubscribed") -> None:
        """Forget a watcher, after it has been told that nobody is there."""
        found = self.pairs[pair]
        found.document = None
        self._show(pair, found, gone=True)
        del self.pairs[pair]
        others = self._of[pair.sip]
        others.discard(pair.jabber)
        if not others:
            del self._of[pair.sip]
        self.doors.watching(pair, "", ())
        if word:
            self._say(pair, word)

    def _say(self, pair: Pair, word: str) -> None:
        if pair.sip.domain in self._live:
            self.doors.say(stanza("presence", pair.sip, pair.jabber, type=word))
        if pair.sip.domain not in self._live or self._is_lost(pair):
            self._owed[pair] = word

    def _is_lost(self, pair: Pair) -> bool:
        return (pair.sip.domain, pair.jabber.domain) in self._lost

    # ---- what Jabber asks ----

    def came(self, kind: str, element: Element, pair: Pair) -> None:
        """Take a "subscribe", "unsubscribe" or "probe"."""
        found = self.pairs.get(pair)
        if not self.serves:
            if kind == "subscribe":
                self._answer(element, 501)
        elif kind == "unsubscribe":
            self._unsubscribe(pair)
        elif found is None:
            self._begin(kind, element, pair)
        elif found.state == "denied":
            self._say(pair, "unsubscribed")
        elif found.state == "active":
            if kind == "subscribe":
                self._say(pair, "subscribed")
            if self.rules.subscribe and found.document is None:
                self.doors.seek(pair)
            if found.document is not None or self.rules.phones is not None:
                self._show(pair, found, anew=True)
        elif kind == "subscribe":
            found.quiet = False
            self._seek(pair, found)

    def _answer(self, element: Element, status: int) -> None:
        error = error_to(element, status)
        if error is not None:
            self.doors.say(error)

    def _unsubscribe(self, pair: Pair) -> None:
        if pair in self.pairs:
            self._remove(pair)
            if self.rules.subscribe:
                self.doors.release(pair)
        else:
            self._say(pair, "unsubscribed")

    def _begin(self, kind: str, element: Element, pair: Pair) -> None:
        known = kind == "probe"  # its server holds that it has been let in: we have forgotten
        if known and self.rules.ask and not self.rules.subscribe:
            self._say(pair, "unsubscribed")
        elif len(self.pairs) >= MOST:
            if not known:
                self._answer(element, 423)
        else:
            found = self._add(pair, "pending", known)
            self.doors.watching(pair, "pending", ())
            self._seek(pair, found)

    def _seek(self, pair: Pair, found: _Watcher) -> None:
        """Find out whether somebody may watch."""
        rules = self.rules
        if rules.phones is not None:
            if not rules.ask or self.doors.trusts(pair):
                self._approve(pair, found)
            else:
                self.doors.ask(pair)
        if rules.subscribe:
            self.doors.seek(pair)

    def _approve(self, pair: Pair, found: _Watcher) -> None:
        if found.state != "active":
            found.state = "active"
            if not found.quiet:
                self._say(pair, "subscribed")
            self.doors.watching(pair, "active", sorted(found.shown))
            self._show(pair, found, anew=True)

    # ---- what the SIP side says ----

    def told(self, pair: Pair, state: str, reason: str, tuples: Sequence[Tuple] | None) -> None:
        """A NOTIFY came for a subscription that was sought; ``tuples``: of its document, None if it had none."""
        found = self.pairs.get(pair)
        if found is None or found.state == "denied":
            return
        found.attempts = 0
        if state == "terminated" and reason in ("rejected", "noresource"):
            self._remove(pair)
            return
        if state == "pending":
            found.document = None
        elif state == "active" or tuples:
            found.document = tuples or ()
        if state == "active":
            self._approve(pair, found)
        self._show(pair, found)

    def failed(self, pair: Pair, status: int) -> bool:
        """There is no subscription with the SIP side: it was refused, or is lost. Whether to try again."""
        found = self.pairs.get(pair)
        if found is None or found.state == "denied":
            return False
        found.document = None
        found.attempts += 1
        phones = self.rules.phones is not None
        if found.state == "pending" and not phones and (status in REFUSED or found.attempts > PATIENCE):
            self._remove(pair)
            return False
        if found.state == "pending" and not phones and status in NEVER:
            self._answer(stanza("presence", pair.jabber, pair.sip, type="subscribe"), status)
            self._remove(pair)
            return False
        self._show(pair, found)
        return not (phones and (status in NEVER or status in REFUSED))

    def phone(self, sip: Jid, here: bool) -> None:
        """A SIP user has got a phone, or lost the last one."""
        for pair in self.of(sip):
            found = self.pairs[pair]
            self._show(pair, found)
            if here and found.state == "pending" and self.rules.ask:
                self.doors.ask(pair)
            if here and self.rules.subscribe and found.document is None and found.state != "denied":
                self.doors.seek(pair)

    def decide(self, pair: Pair, allowed: bool) -> None:
        """The SIP user has said whether somebody may watch. A denial stays; when it is taken back he may ask again."""
        found = self.pairs.get(pair)
        if allowed and found is not None and found.state == "denied":
            self._remove(pair, "")
        elif allowed and found is not None:
            self._approve(pair, found)
        elif not allowed and (found is None or found.state != "denied"):
            if found is not None:
                self._show(pair, found, gone=True)
                self._say(pair, "unsubscribed")
            found = found or self._add(pair, "denied")
            found.state, found.document = "denied", None
            self.doors.watching(pair, "denied", ())
            if self.rules.subscribe:
                self.doors.release(pair)

    # ---- what is shown ----

    def _wanted(self, pair: Pair, found: _Watcher) -> dict[str, Tuple]:
        wanted: dict[str, Tuple] = {}
        for each in found.document or ():
            name = _ODD.sub("_", each.id)[:200] or RESOURCE
            if each.open and name not in wanted and len(wanted) < RESOURCES:
                wanted[name] = each
        if not found.document and self.rules.phones is not None and self.rules.phones(pair.sip):
            wanted[RESOURCE] = Tuple(RESOURCE, True)
        return wanted

    def _show(self, pair: Pair, found: _Watcher, anew: bool = False, gone: bool = False) -> None:
        """Tell a watcher what has changed; ``anew``: all; ``gone``: that nobody is there."""
        if found.state != "active" or pair.sip.domain not in self._live:
            return
        wanted = {} if gone else self._wanted(pair, found)
        before = set(found.shown)
        for name, each in wanted.items():
            if anew or found.shown.get(name) != each:
                self._tell(pair, each._replace(id=name))
        for name in sorted(before - wanted.keys()):  # last, so that nobody seems to be gone in between
            self._tell(pair, Tuple(name, False))
        if anew and not wanted and not before:
            self._tell(pair, Tuple(RESOURCE, False))
        found.shown = dict(wanted)
        if self._is_lost(pair):
            found.shown.update(dict.fromkeys(before - wanted.keys()))
        if before != wanted.keys() and not gone:
            self.doors.watching(pair, "active", sorted(wanted))

    def _tell(self, pair: Pair, each: Tuple) -> None:
        self.doors.say(to_presence(each, Jid(pair.sip.local, pair.sip.domain, each.id), pair.jabber))

    # ---- the server, and ourselves ----

    def up(self, domain: str, peer: str = "") -> None:
        """The server is there, or that of ``peer``: tell all anew, as far as something is known."""
        self._live.add(domain)
        self._lost.discard((domain, peer))
        for pair, word in list(self._owed.items()):
            if pair.sip.domain == domain and peer in ("", pair.jabber.domain):
                del self._owed[pair]
                self._say(pair, word)
        for pair, found in self.pairs.items():
            known = found.document is not None or self.rules.phones is not None or found.attempts
            if pair.sip.domain == domain and peer in ("", pair.jabber.domain) and known:
                self._show(pair, found, anew=True)

    def down(self, domain: str, peer: str = "") -> None:
        """The server is gone: nobody can be told, or nobody of ``peer``."""
        if peer:
            self._lost.add((domain, peer))
        else:
            self._live.discard(domain)

    def leave(self) -> None:
        """We leave: nobody is here any more."""
        for pair, found in self.pairs.items():
            self._show(pair, found, gone=True)

    def summary(self) -> Mapping[Pair, tuple[str, list[str]]]:
        """Each watcher with its state and what it sees."""
        return {pair: (found.state, sorted(found.shown)) for pair, found in self.pairs.items()}
