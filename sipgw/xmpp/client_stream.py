"""The stream of a Jabber user's client (RFC 6120), without a socket. Pure.

``open()`` are the octets that begin it; ``receive(data)`` gives what to send and what has come: ``Encrypt`` (then speak TLS and
send ``secured()``), ``Ready``, stanzas, ``Ended``. A password is said by SCRAM, or plainly to a server that has proved by its
certificate who it is: whoever stands between could offer nothing else."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Final, NamedTuple
from xml.sax.saxutils import quoteattr

from sipgw.xmpp.reader import CLOSE, STREAMS, Ended, Header, Reader
from sipgw.xmpp.scram import MECHANISMS, BadServer, Scram
from sipgw.xmpp.stanza import COMPONENT, Element, child, local_name, text_of

__all__ = ["CLIENT", "ClientStream", "Encrypt", "Ended", "Ready", "as_ours"]

CLIENT: Final = "jabber:client"
TLS: Final = "urn:ietf:params:xml:ns:xmpp-tls"
SASL: Final = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND: Final = "urn:ietf:params:xml:ns:xmpp-bind"


class Encrypt(NamedTuple):
    """Speak TLS now."""


class Ready(NamedTuple):
    """The server has let us in as ``jid``."""

    jid: str


class ClientStream:
    """One login of ``user`` at ``domain``. ``tls``: "no", "optional" or "required"; ``nonce``: a new one for each stream;
    ``plain``: the password may be said once TLS is spoken."""

    def __init__(
        self, domain: str, user: str, password: str, resource: str, tls: str, nonce: str, plain: bool = False
    ) -> None:
        self.domain = domain
        self.secure = False
        self._user = user
        self._password = password
        self._resource = resource
        self._tls = tls
        self._nonce = nonce
        self._plain = plain
        self._scram: Scram | None = None
        self._checked = False
        self._logged_in = False
        self._ready = False
        self._reader = Reader()
        self._out: list[bytes] = []
        self._events: list[Encrypt | Ready | Ended | Element] = []

    def open(self) -> bytes:
        """What begins the stream."""
        return (
            f"<?xml version='1.0'?><stream:stream xmlns='{CLIENT}' xmlns:stream='{STREAMS}' to={quoteattr(self.domain)} "
            "version='1.0'>"
        ).encode()

    @staticmethod
    def close() -> bytes:
        """What ends it."""
        return CLOSE

    def secured(self) -> bytes:
        """TLS is spoken: begin anew."""
        self.secure = True
        return self.open()

    def receive(self, data: bytes) -> tuple[bytes, list[Encrypt | Ready | Ended | Element]]:
        """Take octets; what to send at once, and what has come."""
        reader = self._reader
        for event in reader.receive(data):
            if self._reader is not reader:
                break  # what follows the word that begins TLS in the same breath is nobody's
            if isinstance(event, Ended):
                self._events.append(event)
            elif not isinstance(event, Header):
                self._take(event)
        out, self._out = b"".join(self._out), []
        events, self._events = self._events, []
        return out, events

    def _end(self, reason: str) -> None:
        self._events.append(Ended(reason))

    def _take(self, element: Element) -> None:
        if self._ready:
            if element.tag.startswith(f"{{{CLIENT}}}"):
                self._events.append(as_ours(element, CLIENT))
        elif element.tag == f"{{{STREAMS}}}features":
            self._features(element)
        elif element.tag == f"{{{TLS}}}proceed" and not self.secure:
            self._reader = Reader()
            self._events.append(Encrypt())
        elif element.tag.startswith(f"{{{SASL}}}"):
            self._login(element)
        elif local_name(element) == "iq" and self._logged_in:
            self._bound(element)
        else:
            self._end(f"the server says {local_name(element)[:50]!r}")

    def _features(self, features: Element) -> None:
        if self._logged_in:
            inner = f"<resource>{self._resource}</resource>" if self._resource else ""
            self._out.append(f"<iq type='set' id='bind'><bind xmlns='{BIND}'>{inner}</bind></iq>".encode())
        elif not self.secure and self._tls != "no" and child(features, "starttls", TLS) is not None:
            self._out.append(f"<starttls xmlns='{TLS}'/>".encode())
        elif not self.secure and self._tls == "required":
            self._end("the server offers no TLS")
        else:
            offered = child(features, "mechanisms", SASL)
            self._begin([] if offered is None else [each.text or "" for each in offered])

    def _begin(self, offered: list[str]) -> None:
        name = next((each for each in MECHANISMS if each in offered), "")
        if name:
            self._scram = Scram(name, self._user, self._password, self._nonce)
            said = self._scram.first()
        elif "PLAIN" in offered and self.secure and self._plain:
            name, said = "PLAIN", f"\0{self._user}\0{self._password}".encode()
        else:
            self._end("the server offers no login that keeps a password secret")
            return
        self._out.append(f"<auth xmlns='{SASL}' mechanism='{name}'>{b64encode(said).decode()}</auth>".encode())

    def _login(self, element: Element) -> None:
        name = local_name(element)
        try:
            data = b64decode((element.text or "").strip(), validate=True)
            if name == "challenge" and self._scram is not None and not self._checked:
                if data.startswith(b"v="):
                    self._scram.check(data)
                    self._checked = True
                    answer = b""
                else:
                    answer = self._scram.final(data)
                self._out.append(f"<response xmlns='{SASL}'>{b64encode(answer).decode()}</response>".encode())
                return
            if name == "success":
                if self._scram is not None and not self._checked:
                    self._scram.check(data)
                self._logged_in = True
                self._reader = Reader()
                self._out.append(self.open())
                return
        except (BadServer, binascii.Error) as error:
            self._end(f"the server cannot be trusted: {error}")
            return
        words = [local_name(each) for each in element if local_name(each) != "text"]
        self._end(f"the server lets us not in: {' '.join(words) or name}"[:200])

    def _bound(self, element: Element) -> None:
        bound = child(element, "bind", BIND)
        jid = None if bound is None else text_of(bound, "jid", BIND)
        if element.get("id") != "bind" or element.get("type") != "result" or not jid:
            self._end("the server gives us no resource")
            return
        self._ready = True
        self._events.append(Ready(jid))


def as_ours(element: Element, namespace: str) -> Element:
    """A stanza of another kind of stream as the gateway knows it, which is that of a component."""
    for each in element.iter():
        if each.tag.startswith(f"{{{namespace}}}"):
            each.tag = f"{{{COMPONENT}}}{each.tag[len(namespace) + 2 :]}"
    return element
