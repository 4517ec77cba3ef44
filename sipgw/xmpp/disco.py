"""What a component answers to questions (``iq``): what it is (XEP-0030), whether it is there (XEP-0199). Pure."""

from __future__ import annotations

from typing import Final

from sipgw.xmpp.address import Jid
from sipgw.xmpp.message import OOB, RECEIPTS, STATES
from sipgw.xmpp.stanza import PING, Element, SubElement, error_to, local_name, stanza

__all__ = ["answer"]

INFO: Final = "http://jabber.org/protocol/disco#info"
ITEMS: Final = "http://jabber.org/protocol/disco#items"


def answer(iq: Element, receiver: Jid) -> Element | None:
    """The answer to ``iq``; None for what is an answer itself."""
    if iq.get("type") not in ("get", "set"):
        return None
    query = next(iter(iq), None)
    if query is None or iq.get("type") == "set":
        return error_to(iq, 501)
    result = stanza("iq", iq.get("to", ""), iq.get("from", ""), id=iq.get("id", ""), type="result")
    if query.tag == f"{{{PING}}}ping":
        return result
    if query.tag == f"{{{ITEMS}}}query":
        SubElement(result, query.tag)
        return result
    if query.tag == f"{{{INFO}}}query" and not query.get("node"):
        info = SubElement(result, query.tag)
        if receiver.local:
            SubElement(info, f"{{{INFO}}}identity", {"category": "client", "type": "phone", "name": "SIP"})
            features = [INFO, PING, RECEIPTS, STATES, OOB]
        else:
            SubElement(info, f"{{{INFO}}}identity", {"category": "gateway", "type": "sip", "name": "sipgw"})
            features = [INFO, ITEMS, PING]
        for each in features:
            SubElement(info, f"{{{INFO}}}feature", {"var": each})
        return result
    return error_to(iq, 501, f"{local_name(query)} is not known here")
