"""The links that messages go out by, as ``outbound.Way`` wants them: SMSCs that we are bound to, ESMEs that are bound to us."""

from __future__ import annotations

from typing import Any

from sipgw.sms.esme import Esme
from sipgw.sms.link import Link
from sipgw.sms.pdu import Pdu
from sipgw.sms.smsc import Account, Port

__all__ = ["ClientWay", "EsmeWay"]


class EsmeWay:
    """An SMSC that we are bound to, as a way for messages."""

    payload = False

    def __init__(self, esme: Esme) -> None:
        self.esme = esme
        self.name = esme.smsc.name
        self.command = esme.command

    @property
    def is_up(self) -> bool:
        """Whether it is bound."""
        return self.esme.is_bound

    def room(self) -> int:
        """How many messages may be sent now."""
        return self.esme.room()

    def send(self, pdu: Pdu, token: Any) -> None:
        """Send one."""
        self.esme.submit(pdu, token)


class ClientWay:
    """An ESME that binds to us, as a way for messages."""

    payload = False
    command = "deliver_sm"

    def __init__(self, port: Port, account: Account) -> None:
        self.port = port
        self.name = account.system_id

    def _links(self) -> list[Link]:
        return [link for link in self.port.sessions(self.name) if link.session.may_send(self.command)]

    @property
    def is_up(self) -> bool:
        """Whether it is bound."""
        return bool(self._links())

    def room(self) -> int:
        """How many messages may be sent now."""
        return sum(link.room() for link in self._links())

    def send(self, pdu: Pdu, token: Any) -> None:
        """Send one, by the session with most room."""
        max(self._links(), key=Link.room).request(pdu, token)
