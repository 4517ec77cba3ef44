"""The ACK to a 2xx of an INVITE that we sent for ourselves (RFC 3261 13.2.2.4): a request of its own, in the dialog."""

from __future__ import annotations

from sipgw.core.user import TransactionUser
from sipgw.proxy.forward import NoWay, find_flow, via_line
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.actions import Flow
from sipgw.sip.dialog import Dialog
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request, Response


class Acknowledgements:
    """The ACKs of one INVITE: one for each dialog that a 2xx makes (a proxy may have forked), sent again when the 2xx is."""

    __slots__ = ("_dialog", "_invite", "_sent", "_user")

    def __init__(self, user: TransactionUser, invite: Request, dialog: Dialog | None = None) -> None:
        self._user = user
        self._dialog = dialog
        """The dialog that the INVITE was sent in, if it did not make one."""
        self._invite = invite
        self._sent: dict[str | None, tuple[Flow, bytes] | None] = {}

    def take(self, response: Response) -> None:
        """Answer a 2xx."""
        tag = response.to_tag
        if tag not in self._sent:
            self._sent[tag] = None  # a 2xx that is repeated while the name of the next hop is looked up gets no second ACK
            self._user.launch(self._acknowledge(response))
        else:
            sent = self._sent[tag]
            if sent is not None:
                flow, data = sent
                flow.send(data)

    async def _acknowledge(self, response: Response) -> None:
        user, invite = self._user, self._invite
        try:
            dialog = self._dialog
            if dialog is None:
                dialog = Dialog.as_uac(invite, response)
            else:
                dialog.refresh(response)
            run = Run(invite, RouteKind.LOCAL, None, user.clock(), user)
            run.dst_uri = dialog.next_hop
            flow = await find_flow(run)
        except (NoWay, SipError) as error:
            user.log_rarely(("acknowledge", str(error)), -1, f"no ACK to a 2xx of ours: {error}")
            return
        via = via_line(run, flow, user.layer.new_branch()).removeprefix("Via: ")
        data = dialog.request("ACK", via, cseq=invite.cseq.number, headers=user.agent_line.removesuffix("\r\n"))
        self._sent[response.to_tag] = flow, data
        flow.send(data)
