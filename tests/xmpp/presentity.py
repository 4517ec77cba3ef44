"""A SIP phone that others can subscribe to: it answers SUBSCRIBE and tells by NOTIFY what its user does (RFC 6665 4.2)."""

from __future__ import annotations

from itertools import count
from typing import Any

from sipgw.sip.dialog import Dialog
from sipgw.sip.message import Request
from sipgw.sip.pidf import PIDF, Pidf, Tuple
from sipgw.sip.replies import respond_to
from tests.xmpp.rig import Phone

__all__ = ["Presentity"]


class Presentity(Phone):
    """One phone of one person. ``refusing``: the status for the next SUBSCRIBE, with more headers; None: it is accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.expires = 600
        self.state = "active"
        self.tuples: list[Tuple] = []
        self.refusing: tuple[int, str] | None = None
        self.silent = False
        """Tell nothing by itself."""
        self.dialogs: dict[str, Dialog] = {}
        """By Call-ID."""
        self.towards: tuple[str, int] = ("", 0)
        self._numbers = count(1)

    def subscribes(self) -> list[Request]:
        """The SUBSCRIBE requests that came."""
        return [each for each in self.messages if each.method == "SUBSCRIBE"]

    def contact(self) -> str:
        """Its Contact."""
        transport: Any = self.transport
        return f"Contact: <sip:alice@127.0.0.1:{transport.getHost().port}>\r\n"

    def answer(self, request: Request, status: int) -> bytes:
        """Answer a SUBSCRIBE, and tell."""
        if request.method != "SUBSCRIBE":
            return super().answer(request, status)
        if self.refusing is not None:
            refused, headers = self.refusing
            self.refusing = None
            return respond_to(request, refused, to_tag="" if request.to_tag else "phone", headers=headers)
        if request.to_tag and request.call_id not in self.dialogs:
            return respond_to(request, 481)
        expires = min(self.expires, 3600 if request.expires is None else request.expires)
        dialog = self.dialogs.get(request.call_id)
        if dialog is None:
            dialog = self.dialogs[request.call_id] = Dialog.as_uas(request, f"p{next(self._numbers)}")
        else:
            dialog.accept(request)
        transport: Any = self.transport
        if not self.silent:
            transport.reactor.callLater(0, self.tell, request.call_id, "terminated;reason=timeout" if not expires else "")
        return respond_to(
            request, 200, to_tag="" if request.to_tag else dialog.id.local_tag, headers=f"{self.contact()}Expires: {expires}\r\n",
            record_route=True,
        )

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Remember where the server is."""
        self.towards = addr
        super().datagramReceived(datagram, addr)

    def tell(self, call_id: str, state: str = "") -> None:
        """Send a NOTIFY."""
        dialog = self.dialogs[call_id]
        transport: Any = self.transport
        state = state or f"{self.state};expires={self.expires}"
        body = Pidf("pres:alice@sip.test", self.tuples).write() if state.startswith("active") and self.tuples else b""
        via = f"SIP/2.0/UDP 127.0.0.1:{transport.getHost().port};branch=z9hG4bKn{next(self._numbers)}"
        headers = f"{self.contact()}Event: presence\r\nSubscription-State: {state}\r\n"
        data = dialog.request("NOTIFY", via, headers=headers, body=body, content_type=PIDF)
        transport.write(data, self.towards)
        if state.startswith("terminated"):
            del self.dialogs[call_id]

    def change(self, *tuples: Tuple, state: str = "") -> None:
        """Tell all who have subscribed."""
        self.tuples = list(tuples)
        for call_id in list(self.dialogs):
            self.tell(call_id, state)
