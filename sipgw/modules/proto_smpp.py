"""proto_smpp: texts between SIP and mobiles, by SMPP 3.4; the machinery is in ``sipgw/sms``.

``send_smpp_message`` takes the text of a MESSAGE for an SMSC (or for an ESME that is bound to us) and returns when it is on disk:
then the script may answer 202. Texts that come from there are shown to the script as MESSAGE requests, like any that come from a
phone; with ``outbound_uri`` they are sent to that proxy instead, as OpenSIPS does. What OpenSIPS's module has is here under its
names; long texts, receipts, a port for ESMEs, groups of SMSCs are ours."""

from __future__ import annotations

from typing import Any

from sipgw.db.errors import DatabaseError
from sipgw.exports import BRANCH, FAILURE, REQUEST, function, mi, pvar, statistic
from sipgw.mi.jsonrpc import MIError
from sipgw.modules._smpp_base import SmppBase
from sipgw.script.run import Run
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request
from sipgw.sip.uri import Uri
from sipgw.sms import rp
from sipgw.sms.esme import Esme
from sipgw.sms.gateway import Gateway
from sipgw.sms.spool import Kind, Message, State
from sipgw.sms.text import join
from sipgw.sms.translate import RP_DATA, read_text
from sipgw.sms.udh import build

SENT, ERROR, NO_SMSC = 1, -1, -2
"""What ``send_smpp_message`` returns."""


class ProtoSmpp(SmppBase):
    """Carries texts between SIP phones and mobiles."""

    name = "proto_smpp"

    smpp_sent = statistic("texts that SMSCs and ESMEs have taken", read="_sent")
    smpp_received = statistic("texts, and parts of texts, that came from them", read="_received")
    smpp_delivered = statistic("texts that have arrived: at a phone, or as receipts say", read="_delivered")
    smpp_failed = statistic("texts that will not arrive", read="_failed")
    smpp_receipts = statistic("receipts that were matched", read="_receipts")
    smpp_unmatched = statistic("receipts of which nobody knows the text", read="_unmatched")
    smpp_doubtful = statistic("parts that were sent again without knowing whether they had arrived", read="_doubtful")
    smpp_links_up = statistic("links that are bound", read="_links_up")

    # ---- functions and variables ----

    @function(REQUEST | FAILURE | BRANCH)
    async def send_smpp_message(
        self, run: Run, smsc_name: str, from_: str | None = None, to: str | None = None, body: str | None = None,
        utf_16: int | None = None, delivery_receipt: int | None = None,
    ) -> int:
        """Take a text for ``smsc_name``: an SMSC, a group of them, or an ESME that is bound to us. When it returns 1 the text is
        on disk, and 202 may be answered; -2: there is no such link; -1: it could not be taken, the log says why.

        Without ``from``, ``to`` and ``body`` they are the users of From and of the Request-URI, and the text of the request:
        text/plain in any charset, text/html, message/cpim; what a mobile could not show, such as that somebody is writing, is
        taken and dropped. ``utf-16``: the body is in UTF-16. ``delivery_receipt``: ask for a receipt; a sender that asks by
        CPIM (RFC 5438) need not."""
        gateway = self.gateway
        if gateway is None or smsc_name not in gateway.outbound.targets:
            return NO_SMSC
        request = run.message
        assert isinstance(request, Request)
        try:
            if body is not None:
                text, asked = body, None
            elif utf_16:
                text, asked = request.body.decode("utf-16", "replace"), None
            else:
                said = read_text(request)
                if said.rp:
                    return await self._relay(gateway, run, request, smsc_name, said.rp)
                if said.text is None:
                    return SENT
                text, asked = said.text, said.asked
            source = request.from_.uri.user if from_ is None else from_
            destination = Uri.parse(run.uri or request.uri).user if to is None else to
            details: dict[str, Any] = {
                "receipt": int(bool(delivery_receipt) or (asked is not None and (asked.positive or asked.negative))),
                "imdn": asked, "call_id": request.call_id,
            }
            await gateway.send(
                smsc_name, source or "", destination or "", text, sender=request.from_.uri_text,
                receiver=run.uri or request.uri, details=details,
            )
        except (SipError, ValueError) as error:
            run.user.log(1, f"send_smpp_message: the text is not taken: {error}")
            return ERROR
        except DatabaseError as error:
            run.user.log_rarely("smpp spool", -1, f"send_smpp_message: the text is not taken: {error}")
            return ERROR
        return SENT

    async def _relay(self, gateway: Gateway, run: Run, request: Request, link: str, data: bytes) -> int:
        """Take what an IMS phone sent in RP-DATA, and tell it so in a MESSAGE of its own (TS 24.341 5.3.2.4)."""
        said = rp.read(data)
        if not isinstance(said, rp.Submit):
            return SENT  # it acknowledges what we sent
        uri = request.from_.uri
        header = build(said.elements)
        details = {
            "receipt": int(said.wants_report), "rp": said.number, "raw": (header + said.chunk.data).hex(), "coding": said.coding,
            "esm_class": 0x40 if header else 0, "call_id": request.call_id,
        }
        answer = rp.acknowledge(said.reference)
        try:
            await gateway.send(
                link, uri.user or "", gateway.settings.numbers.to_sip(said.destination), join([said.chunk]),
                sender=request.from_.uri_text, receiver=run.uri or request.uri, details=details,
            )
        except (ValueError, DatabaseError):
            answer = rp.fail(said.reference)
            raise
        finally:
            origin = Message("", Kind.TO_SIP, link, gateway.settings.numbers.to_sip(said.destination), uri.user or "")
            self.server.user.launch(self._acknowledge(request.from_.uri_text, run.uri or request.uri, answer, origin))
        return SENT

    async def _acknowledge(self, receiver: str, sender: str, data: bytes, origin: Message) -> None:
        status = await self.message(receiver, sender, "", RP_DATA, data, origin)
        if not 200 <= status < 300:
            self.server.user.log(2, f"proto_smpp: {receiver} could not be told that its text was taken: {status}")

    def _origin(self, run: Run) -> Message | None:
        """The text that a MESSAGE carries, if it came by SMPP."""
        origin = getattr(run.flow, "origin", None)
        return origin if isinstance(origin, Message) else None

    @pvar("smpp.link")
    def link(self, run: Run) -> str | None:
        """``$smpp.link``: the SMSC or ESME that the MESSAGE came by; null if it did not come by SMPP."""
        origin = self._origin(run)
        return None if origin is None else origin.link

    @pvar("smpp.id")
    def id(self, run: Run) -> str | None:
        """``$smpp.id``: our name for the text, as in log lines and events."""
        origin = self._origin(run)
        return None if origin is None else origin.id

    @pvar("smpp.from")
    def source(self, run: Run) -> str | None:
        """``$smpp.from``: the number that it came from."""
        origin = self._origin(run)
        return None if origin is None else origin.source

    @pvar("smpp.to")
    def destination(self, run: Run) -> str | None:
        """``$smpp.to``: the number that it was sent to."""
        origin = self._origin(run)
        return None if origin is None else origin.destination

    @pvar("smpp.tries")
    def tries(self, run: Run) -> int | None:
        """``$smpp.tries``: how often it was tried before."""
        origin = self._origin(run)
        return None if origin is None else origin.tries

    # ---- management ----

    def _running(self) -> Gateway:
        if self.gateway is None:
            raise MIError(500, "The gateway does not run")
        return self.gateway

    @mi("list", module="smpp")
    async def list_links(self) -> dict[str, Any]:
        """Each link with its state, and how many texts are in the spool."""
        gateway = self._running()
        try:
            spool = await gateway.spool.count()
        except DatabaseError as error:
            raise MIError(500, str(error)) from None
        return {"Links": gateway.links(), "Spool": spool}

    @mi(module="smpp")
    def bind(self, name: str) -> str:
        """Bind to an SMSC that was unbound."""
        self._esme(name).start()
        return "OK"

    @mi(module="smpp")
    def unbind(self, name: str) -> str:
        """Unbind from an SMSC, and stay away until ``smpp:bind``; texts for it wait."""
        self._esme(name).stop()
        return "OK"

    def _esme(self, name: str) -> Esme:
        found = self._running().esmes.get(name)
        if found is None:
            raise MIError(404, f"There is no SMSC {name}")
        return found

    @mi(module="smpp")
    async def queue(self, link: str = "") -> dict[str, Any]:
        """The texts in the spool, or those of one link; what they say is not shown."""
        gateway = self._running()
        found: list[dict[str, Any]] = []
        try:
            for kind in Kind:
                for message in await gateway.spool.all(kind):
                    if not link or message.link == link:
                        found.append({
                            "id": message.id, "kind": kind.name.lower(), "state": message.state.name.lower(),
                            "link": message.link, "from": message.source, "to": message.destination, "tries": message.tries,
                            "created": message.created, "due": message.due, "expires": message.expires,
                        })
        except DatabaseError as error:
            raise MIError(500, str(error)) from None
        return {"Messages": found}

    @mi(module="smpp")
    async def flush(self, id: str) -> str:
        """Try a text now, whatever it waits for."""
        gateway = self._running()
        message = await gateway.spool.find(id)
        if message is None:
            raise MIError(404, "There is no such message")
        message.due = gateway.now()
        await gateway.spool.update([message])
        if message.kind is Kind.TO_SIP:
            gateway.arrived(message)
        elif message.state is State.WAITING:
            gateway.outbound.put(message)
        return "OK"

    @mi(module="smpp")
    async def remove(self, id: str) -> str:
        """Forget a text; nobody is told."""
        gateway = self._running()
        message = await gateway.spool.find(id)
        if message is None:
            raise MIError(404, "There is no such message")
        if message.state is State.SENDING:
            raise MIError(409, "It is being sent")
        gateway.outbound.drop(id)
        await gateway.spool.finish(message, [])
        return "OK"

    # ---- statistics ----

    def _count(self, name: str) -> int:
        return 0 if self.gateway is None else self.gateway.counts[name]

    def _sent(self) -> int:
        return self._count("to_mobile")

    def _received(self) -> int:
        return self._count("from_mobile")

    def _delivered(self) -> int:
        return self._count("delivered")

    def _failed(self) -> int:
        return self._count("failed")

    def _receipts(self) -> int:
        return self._count("receipts")

    def _unmatched(self) -> int:
        return 0 if self.gateway is None else self.gateway.unmatched

    def _doubtful(self) -> int:
        return 0 if self.gateway is None else self.gateway.outbound.doubtful

    def _links_up(self) -> int:
        if self.gateway is None:
            return 0
        esmes = sum(esme.state == "bound" for esme in self.gateway.esmes.values())
        port = self.gateway.port
        return esmes + (0 if port is None else sum(account is not None for account in port.links.values()))
