"""Streams between servers (RFC 6120 4, 5, 6, 13; XEP-0220): one direction each, as servers do.

``Outbound`` is ours to a server elsewhere: TLS where it is offered, then SASL EXTERNAL if we have a certificate and it wants it,
else dialback; then stanzas. ``Inbound`` is a server's to us: nothing that it sends counts before it has proved whose it is, and
afterwards only what comes from that domain to one of ours."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import quoteattr

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from sipgw.xmpp.address import BadJid, Jid
from sipgw.xmpp.client_stream import as_ours
from sipgw.xmpp.dialback import DIALBACK, Word, key_for, key_is_right, word, written
from sipgw.xmpp.reader import CLOSE, CLOSED, STREAMS, Ended, Header, Reader
from sipgw.xmpp.stanza import Element, child, local_name, write

if TYPE_CHECKING:
    from sipgw.xmpp.remote import Remote
    from sipgw.xmpp.server import Server

__all__ = ["Inbound", "Outbound"]

SERVER: Final = "jabber:server"
TLS: Final = "urn:ietf:params:xml:ns:xmpp-tls"
SASL: Final = "urn:ietf:params:xml:ns:xmpp-sasl"
STREAM_ERRORS: Final = "urn:ietf:params:xml:ns:xmpp-streams"
FEATURES: Final = f"{{{STREAMS}}}features"
FIRST_LONGEST: Final = 16_384
"""Octets of what may come before we know who it is."""
PROOF_TIME: Final = 30.0
"""Seconds for that."""
IDLE_TIME: Final = 3600.0
"""Seconds without a word after which an inbound stream is closed."""
PAIRS: Final = 100
"""Pairs of domains on one stream."""
STANZAS: Final = frozenset(f"{{{SERVER}}}{name}" for name in ("message", "presence", "iq"))


class _ServerStream(Protocol):
    """What both directions have in common."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.reader = Reader(FIRST_LONGEST)
        self.secure = False
        self.closed = False
        self.reason = ""
        self.server_name = ""
        """The domain that TLS is asked for."""
        self._aborting: Any = None

    def connectionMade(self) -> None:
        """Wait for what comes."""
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)

    def write(self, data: bytes) -> None:
        """Send octets."""
        transport: Any = self.transport
        if not self.closed and transport is not None:
            transport.write(data)

    def say(self, element: Element) -> None:
        """Send a stanza."""
        self.write(write(element))

    def header(self, sender: str, receiver: str, id: str = "") -> None:
        """Begin the stream."""
        values = {"from": sender, "to": receiver, "id": id}
        shown = "".join(f" {name}={quoteattr(value)}" for name, value in values.items() if value)
        self.write(
            f"<?xml version='1.0'?><stream:stream xmlns='{SERVER}' xmlns:stream='{STREAMS}' xmlns:db='{DIALBACK}'{shown} "
            "version='1.0'>".encode()
        )

    def dataReceived(self, data: bytes) -> None:
        """Take octets. What follows the word that begins TLS, or a new stream, in the same breath is nobody's."""
        reader = self.reader
        for event in reader.receive(data):
            if self.closed or self.reader is not reader:
                return
            if isinstance(event, Ended):
                self.end(event.reason)
            elif isinstance(event, Header):
                self.opened(event)
            else:
                self.took(event)

    def opened(self, header: Header) -> None:
        """The stream has begun."""
        raise NotImplementedError

    def took(self, element: Element) -> None:
        """An element came."""
        raise NotImplementedError

    def encrypt(self) -> None:
        """Speak TLS from here on, and begin anew."""
        transport: Any = self.transport
        self.reader = Reader(FIRST_LONGEST)
        transport.startTLS(self.server.encryption)
        self.secure = True

    def end(self, reason: str, condition: str = "") -> None:
        """Close the stream, and say why if it is the other's fault."""
        if self.closed:
            return
        self.reason = self.reason or reason
        if condition:
            self.write(f"<stream:error><{condition} xmlns='{STREAM_ERRORS}'/></stream:error>".encode())
        self.write(CLOSE)
        self.closed = True
        transport: Any = self.transport
        transport.loseConnection()
        self._aborting = self.server.reactor.callLater(2.0, self.drop)

    def drop(self, reason: str = "") -> None:
        """End the connection at once."""
        self.closed = True
        self.reason = self.reason or reason
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        """It is over."""
        self.closed = True
        if self._aborting is not None and self._aborting.active():
            self._aborting.cancel()


class Outbound(_ServerStream):
    """Our stream to the server of ``remote``."""

    def __init__(self, remote: Remote) -> None:
        super().__init__(remote.server)
        self.remote = remote
        self.server_name = remote.settings.host
        self.id = ""
        self.proof = ""
        """How we have shown who we are: "external" or "dialback"."""
        self.begun = False
        """It can be asked for keys."""
        self.accepted = False
        self._refused_external = False

    def connectionMade(self) -> None:
        """Begin."""
        super().connectionMade()
        self.header(self.remote.settings.domain, self.remote.settings.host)

    def opened(self, header: Header) -> None:
        """The server has answered; one of before XMPP 1.0 has no features to tell."""
        self.id = header.attributes.get("id", "")
        if not header.attributes.get("version"):
            self._features(None)

    def took(self, element: Element) -> None:
        """Go on as it says."""
        said = word(element)
        if said is not None:
            self._dialback(said)
        elif element.tag == FEATURES:
            self._features(element)
        elif element.tag == f"{{{TLS}}}proceed" and not self.secure:
            self.encrypt()
            self.header(self.remote.settings.domain, self.remote.settings.host)
        elif element.tag == f"{{{TLS}}}failure":
            self.end("the server cannot begin TLS")
        elif element.tag == f"{{{SASL}}}success" and not self.proof:
            self.proof = "external"
            self.reader = Reader(FIRST_LONGEST)
            self.header(self.remote.settings.domain, self.remote.settings.host)
        elif element.tag == f"{{{SASL}}}failure":
            self._refused_external = True
            self._show_key()

    def _features(self, features: Element | None) -> None:
        settings = self.server.settings
        if not self.secure:
            if settings.tls != "no" and features is not None and child(features, "starttls", TLS) is not None:
                self.write(f"<starttls xmlns='{TLS}'/>".encode())
                return
            if settings.tls in ("required", "verified"):
                self.end("the server offers no TLS")
                return
        elif settings.tls == "verified" and not self.server.encryption.proves(self.transport, self.remote.settings.host):
            self.end("the server's certificate does not prove who it is")
            return
        self.remote.opened(self)
        if self.proof:
            self._accept()
        elif self._may_be_external(features):
            name = b64encode(self.remote.settings.domain.encode()).decode()
            self.write(f"<auth xmlns='{SASL}' mechanism='EXTERNAL'>{name}</auth>".encode())
        else:
            self._show_key()

    def _may_be_external(self, features: Element | None) -> bool:
        offered = None if features is None else child(features, "mechanisms", SASL)
        names = [] if offered is None else [each.text for each in offered]
        return self.secure and self.server.encryption.has_certificate and not self._refused_external and "EXTERNAL" in names

    def _show_key(self) -> None:
        us, them = self.remote.settings.domain, self.remote.settings.host
        self.write(written(Word("result", us, them, key=key_for(self.server.secret, them, us, self.id))))

    def ask(self, id: str, key: str) -> None:
        """Ask the server whether a key is its own."""
        self.write(written(Word("verify", self.remote.settings.domain, self.remote.settings.host, id=id, key=key)))

    def _dialback(self, said: Word) -> None:
        if said.name == "verify":
            self.remote.verified(said)
        elif said.type == "valid" and not self.proof:
            self.proof = "dialback"
            self._accept()
        elif said.type:
            self.end(f"the server does not believe that we are {self.remote.settings.domain} (dialback: {said.type})")

    def _accept(self) -> None:
        if not self.accepted:
            self.accepted = True
            self.reader.longest = 262_144
            self.remote.accepted(self)

    def connectionLost(self, reason: Any = None) -> None:
        """It is over."""
        super().connectionLost(reason)
        self.remote.lost(self, self.reason or (reason.getErrorMessage() if reason is not None else CLOSED))


class Inbound(_ServerStream):
    """A server's stream to us."""

    def __init__(self, server: Server, address: str) -> None:
        super().__init__(server)
        self.address = address
        self.id = token_hex(16)
        self.pairs: dict[tuple[str, str], str] = {}
        """Whose it is: their domain and ours, with how that was proved."""
        self._peer = ""
        self._local = ""
        self._asked = 0
        self._timer: Any = None

    def connectionMade(self) -> None:
        """Wait for the stream, not for long."""
        super().connectionMade()
        self._timer = self.server.reactor.callLater(PROOF_TIME, self._wait_is_over)

    def _wait_is_over(self) -> None:
        self.end("nothing came", "connection-timeout")

    def opened(self, header: Header) -> None:
        """Answer, and say what we offer."""
        values = header.attributes
        self._peer, self._local = _domain(values.get("from", "")), _domain(values.get("to", ""))
        self.id = token_hex(16)
        known = self._local in self.server.links
        self.header(self._local if known else next(iter(self.server.links)), self._peer, self.id)
        if not known and values.get("to"):
            self.end(f"it wants {self._local[:100]!r}", "host-unknown")
        elif values.get("version"):
            self.write(self._features())

    def _features(self) -> bytes:
        offers = ""
        if not self.secure and self.server.settings.tls != "no":
            needed = "<required/>" if self.server.settings.tls in ("required", "verified") else ""
            offers += f"<starttls xmlns='{TLS}'>{needed}</starttls>"
        if self._may_be_external():
            offers += f"<mechanisms xmlns='{SASL}'><mechanism>EXTERNAL</mechanism></mechanisms>"
        if self._may_dial_back():
            offers += "<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>"
        return f"<stream:features>{offers}</stream:features>".encode()

    def _may_dial_back(self) -> bool:
        tls = self.server.settings.tls
        return tls in ("no", "optional") or (tls == "required" and self.secure)

    def _may_be_external(self) -> bool:
        return (
            self.secure and bool(self._peer) and self._local in self.server.links and not self.pairs
            and self.server.may_speak(self._peer) and self.server.encryption.proves(self.transport, self._peer)
        )

    def took(self, element: Element) -> None:
        """Do what it asks."""
        said = word(element)
        if said is not None:
            self._dialback(said)
        elif element.tag == f"{{{TLS}}}starttls" and not self.secure and self.server.settings.tls != "no":
            self.write(f"<proceed xmlns='{TLS}'/>".encode())
            self.encrypt()
        elif element.tag == f"{{{SASL}}}auth":
            self._external(element)
        elif element.tag in STANZAS:
            self._stanza(element)
        else:
            self.end(f"it sent {local_name(element)[:50]!r}", "unsupported-stanza-type")

    def _external(self, element: Element) -> None:
        given = (element.text or "").strip()
        try:
            name = self._peer if given in ("", "=") else _domain(b64decode(given, validate=True).decode())
        except (binascii.Error, ValueError):
            name = ""
        if element.get("mechanism") != "EXTERNAL" or not name or name != self._peer or not self._may_be_external():
            self.write(f"<failure xmlns='{SASL}'><not-authorized/></failure>".encode())
            return
        self.write(f"<success xmlns='{SASL}'/>".encode())
        self._prove(self._peer, self._local, "external")
        self.reader = Reader()

    def _prove(self, theirs: str, ours: str, how: str) -> None:
        self.pairs[theirs, ours] = how
        self.reader.longest = 262_144
        self._rest()

    def _rest(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.reset(IDLE_TIME)

    # ---- dialback ----

    def _dialback(self, said: Word) -> None:
        theirs, ours = _domain(said.sender), _domain(said.receiver)
        if said.type or not theirs or ours not in self.server.links:
            if not said.type:
                self.end(f"dialback for {said.receiver[:100]!r}", "host-unknown")
        elif said.name == "verify":
            right = key_is_right(self.server.secret, said.key, theirs, ours, said.id)
            self.write(written(Word("verify", ours, theirs, "valid" if right else "invalid", said.id)))
        elif not self._may_dial_back():
            self.end("dialback without TLS, or where only certificates count", "policy-violation")
        elif self._asked >= PAIRS or not self.server.may_speak(theirs):
            self.write(written(Word("result", ours, theirs, "error")))
        else:
            self._asked += 1
            asked = Deferred.fromCoroutine(self.server.remote(ours, theirs).verify(self.id, said.key))
            asked.addErrback(lambda _failure: None)
            asked.addCallback(self._checked, theirs, ours)

    def _checked(self, right: bool | None, theirs: str, ours: str) -> None:
        """What the server that the DNS names says of a key; None: it could not be asked."""
        if self.closed:
            return
        self.write(written(Word("result", ours, theirs, "error" if right is None else "valid" if right else "invalid")))
        if right:
            self._prove(theirs, ours, "dialback")
        elif right is False:
            self.end(f"it is not {theirs}")

    def _stanza(self, element: Element) -> None:
        """Only from the domain that it is, to the one that it is for."""
        try:
            sender, receiver = Jid.parse(element.get("from", "")), Jid.parse(element.get("to", ""))
        except BadJid:
            self.end("a stanza without addresses", "improper-addressing")
            return
        if (sender.domain, receiver.domain) not in self.pairs:
            self.end(f"a stanza from {sender.domain}, which it has not proved to be", "not-authorized")
            return
        self._rest()
        self.server.received(as_ours(element, SERVER), sender, receiver)

    def connectionLost(self, reason: Any = None) -> None:
        """It is over."""
        super().connectionLost(reason)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self.server.left(self)


def _domain(text: str) -> str:
    """A domain as we write it; empty if it is none."""
    try:
        jid = Jid.parse(text)
    except BadJid:
        return ""
    return jid.domain if not jid.local and not jid.resource else ""
