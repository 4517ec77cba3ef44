"""Calls through a server that follows dialogs, phone by phone, on a fake wire."""

from __future__ import annotations

from typing import Any

from sipgw.mi.commands import MIError
from sipgw.sip.message import Request
from sipgw.testing import finished
from tests.modules.calls import ALICE, BOB, Calls
from tests.proxy.rig import request, response

SCRIPT = """
loadmodule "rr.so"
loadmodule "dialog.so"
%s
route {
    if (has_totag()) {
        if (!loose_route()) {
            if (is_method("ACK")) { t_relay(); exit; }
            sl_send_reply(481, "Nothing"); exit;
        }
        %s
        t_relay();
        exit;
    }
    if (is_method("CANCEL")) { t_relay(); exit; }
    record_route();
    %s
    t_relay();
}
%s
"""

CONTACT = "Contact: <sip:%s@127.0.0.1:%d>\r\n"
NAMES = {ALICE: "alice", BOB: "bob"}


def contact(port: int) -> str:
    """The Contact of a phone."""
    return CONTACT % (NAMES.get(port, "x"), port)


class Dialing(Calls):
    """A server that record-routes and follows calls: Alice calls Bob."""

    def serve(
        self, *, params: str = "", within: str = "", first: str = "create_dialog();", rest: str = "", modules: str = ""
    ) -> None:
        """Start it: ``within`` is run for requests in dialogs, ``first`` for the first ones."""
        self.start(modules + SCRIPT % (params, within, first, rest))
        self.cseq = {ALICE: 1, BOB: 7000}

    @property
    def dialog(self) -> Any:
        """The module."""
        return self.wired.server.modules["dialog"]

    @property
    def calls(self) -> list[Any]:
        """The dialogs that are there."""
        return list(self.dialog.follower.calls)

    def command(self, name: str, **arguments: Any) -> Any:
        """Run a management command; of one that fails its error."""
        try:
            return finished(self.wired.server.commands.call(name, arguments))
        except MIError as error:
            return (error.code, error.message)

    def dial(self, *, body: str = "", more: str = "", port: int = BOB, **options: Any) -> Request:
        """Alice sends the INVITE; what the phone at ``port`` receives."""
        (self.invited,) = self.invite(port, extra=contact(ALICE) + more, **options)
        return self.invited

    def routes(self, message: Any) -> list[str]:
        """The Record-Route values of ``message``."""
        return [value for line in message.headers("Record-Route") for value in line.split(",")]

    def pick_up(self, *, tag: str = "b1", port: int = BOB, ack: bool = True) -> Any:
        """Bob answers 200, Alice acknowledges; what Alice received."""
        self.sent(ALICE)
        record = "".join(f"Record-Route: {value}\r\n" for value in self.routes(self.invited))
        self.answer(self.invited, 200, port, tag=tag, extra=record + contact(port))
        *_, answer = self.sent(ALICE)
        self.route_set = self.routes(answer)
        self.tag = tag
        if ack:
            self.within("ACK", ALICE, cseq=self.invited.cseq.number)
            self.acks = self.said(port)
        return answer

    def within(self, method: str, port: int, *, cseq: int = 0, extra: str = "", branch: str = "", route: bool = True) -> None:
        """One of the two sends a request in the dialog."""
        if not cseq:
            self.cseq[port] += 1
            cseq = self.cseq[port]
        routes = self.route_set[::-1] if port == ALICE else self.route_set
        route_lines = "".join(f"Route: {value}\r\n" for value in routes) if route else ""
        other = BOB if port == ALICE else ALICE
        data = request(
            method, f"sip:{NAMES[other]}@127.0.0.1:{other}", port=port, branch=branch or f"{method}{port}{cseq}", cseq=cseq,
            to_tag=self.tag, extra=route_lines + extra,
        )
        if port != ALICE:
            data = data.replace(b"From: <sip:alice@example.org>;tag=a1", b"From: X").replace(
                f"To: <sip:bob@example.org>;tag={self.tag}".encode(), b"To: <sip:alice@example.org>;tag=a1"
            ).replace(b"From: X", f"From: <sip:bob@example.org>;tag={self.tag}".encode())
        self.arrive(data, port)

    def reply_within(self, to: Request, status: int, port: int, *, extra: str = "") -> None:
        """The phone at ``port`` answers a request within the dialog."""
        tag = to.to_tag or "x"
        self.arrive(response(to, status, extra=extra).replace(f";tag={tag};tag=b1".encode(), f";tag={tag}".encode()), port)

    def talk(self, **options: Any) -> None:
        """A whole call up to its ACK; what was said is forgotten."""
        self.dial(**options)
        self.pick_up()
        self.sent(ALICE)
        self.sent(BOB)

    def hang_up(self, port: int) -> None:
        """One of the two says goodbye, the other agrees."""
        other = BOB if port == ALICE else ALICE
        self.within("BYE", port)
        (bye,) = self.sent(other)
        self.reply_within(bye, 200, other)
        assert self.said(port) == ["200 BYE"]

    def states(self) -> list[int]:
        """The states of the dialogs that are there and not over."""
        return [int(call.state) for call in self.calls if call.state < 5]

    def numbers(self) -> dict[str, int]:
        """The statistics that are not 0."""
        module = self.dialog
        names = ("active_dialogs", "early_dialogs", "processed_dialogs", "expired_dialogs", "failed_dialogs")
        found = {name.partition("_")[0]: getattr(module, name).value for name in names}
        return {name: value for name, value in found.items() if value}
