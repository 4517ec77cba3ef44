"""callops: calls are transferred and put on hold from the middle. See ``proxy/transfers.py`` and ``proxy/holds.py``."""

from __future__ import annotations

from typing import Annotated, Any

from sipgw.exports import ANY, FAILURE, LOCAL, REQUEST, Module, event, function, mi, param, requires
from sipgw.mi.commands import MIError
from sipgw.modules._dialog_base import whole_lines
from sipgw.modules.dialog import Dialog, leg_name
from sipgw.modules.tm import Tm
from sipgw.proxy.dialogs import Call, State
from sipgw.proxy.following import call_of
from sipgw.proxy.holds import Holds
from sipgw.proxy.transfers import CALLID, MANUAL, PARAM, Transfers
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import is_token

MODES = {"param": PARAM, "manual": MANUAL, "callid": CALLID, "0": PARAM, "1": MANUAL, "2": CALLID}
LEGS = ("caller", "callee")

_TRANSFER = (
    ("callid", "leg", "destination"),
    ("callid", "leg", "transfer_callid", "transfer_leg"),
    ("callid", "leg", "transfer_callid", "transfer_leg", "destination"),
    ("callid", "leg", "transfer_callid", "transfer_fromtag", "transfer_totag", "transfer_destination"),
)
_HOLD = (("callid",), ("callid", "leg"), ("callid", "leg", "headers"))


def transfer_mode(value: int | str) -> int:
    """The number of a mode."""
    if str(value).lower() not in MODES:
        raise ValueError("write param, manual or callid")
    return MODES[str(value).lower()]


def token(text: str) -> None:
    """Refuse what is no name of a parameter."""
    if not is_token(text):
        raise ValueError(f"{text!r} is no name of a parameter")


class Callops(Module):
    """Transfers and holds calls."""

    tm: Tm = requires("tm")
    dialog: Dialog = requires("dialog")

    mode: int | str = param(
        "param", "How the call that comes of a transfer is known: param (the dialog's name in its URI), callid (the Call-ID "
        "there), manual (call_blind_replace)", check=transfer_mode,
    )
    match_param: str = param("osid", "The parameter of that URI", check=token)

    transferred = event("E_CALL_TRANSFER", "callid", "leg", "transfer_callid", "destination", "state", "status")
    held = event("E_CALL_HOLD", "callid", "leg", "action", "state")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.transfers: Transfers = None  # type: ignore[assignment]  # made by start
        self.holds: Holds = None  # type: ignore[assignment]

    async def start(self) -> None:
        """Hear of new calls, and of those from the database."""
        dialog = self.dialog
        self.transfers = Transfers(
            dialog.follower, self.tm, dialog.requests, transfer_mode(self.mode), self.match_param.lower(), self._transfer_told
        )
        self.holds = Holds(dialog.follower, dialog.requests, self._hold_told)
        dialog.on_created(self.transfers.created)
        dialog.on_loaded(self.transfers.adopt)

    def _transfer_told(self, call: Call, leg: str, new: str, destination: str, state: str, status: str) -> None:
        self.transferred.emit(
            callid=call.call_id, leg=leg, transfer_callid=new, destination=destination, state=state, status=status
        )

    def _hold_told(self, call: Call, leg: str, action: str, state: str) -> None:
        self.held.emit(callid=call.call_id, leg=leg, action=action, state=state)

    # -- the script

    @function(ANY)
    def call_transfer(
        self, run: Run, p1: Annotated[str, leg_name], p2: str, p3: Annotated[str, leg_name] | None = None, p4: str | None = None
    ) -> bool:
        """Send a leg of the dialog to a destination, (leg, destination), or let it take part in another call, (leg, Call-ID of
        that call, its leg[, destination])."""
        call = call_of(run)
        if call is None:
            run.user.log_rarely("call_transfer", -1, "call_transfer: there is no dialog")
            return False
        try:
            if p3 is None:
                self._transfer(call, p1, destination=p2)
            else:
                self._transfer(call, p1, transfer_callid=p2, transfer_leg=p3, destination=p4 or "")
        except MIError as error:
            run.user.log(-1, f"call_transfer: {error.message}")
            return False
        return True

    @function(REQUEST)
    def call_blind_replace(self, run: Run, callid: str, leg: str | None = None) -> bool:
        """Say that the dialog of this INVITE comes of the transfer of the call with that Call-ID, and which leg that was."""
        return self.transfers.replace(run, callid, leg or "")

    @function(REQUEST | FAILURE | LOCAL)
    def call_transfer_notify(self, run: Run) -> int:
        """Answer a NOTIFY of how a transfer goes, tell of it, and end the script; false if it is none."""
        call = call_of(run)
        return 0 if call is not None and self.transfers.notified(call, run) else -1

    # -- the operator

    def _call(self, callid: str) -> Call:
        call = self.dialog.follower.calls.find(callid)
        if call is None or not State.ANSWERED <= call.state < State.DELETED:
            raise MIError(404, "Dialog not found")
        return call

    @mi(alias="call_transfer", recipes=_TRANSFER)
    def transfer(
        self, callid: str, leg: str, destination: str = "", transfer_callid: str = "", transfer_leg: str = "",
        transfer_fromtag: str = "", transfer_totag: str = "", transfer_destination: str = "",
    ) -> str:
        """Transfer a leg of a call to a destination, or into another call."""
        self._transfer(
            self._call(callid), leg, destination or transfer_destination, transfer_callid, transfer_leg, transfer_fromtag,
            transfer_totag,
        )
        return "Accepted"

    def _transfer(
        self, call: Call, leg: str, destination: str = "", transfer_callid: str = "", transfer_leg: str = "",
        from_tag: str = "", to_tag: str = "",
    ) -> None:
        leg, transfer_leg = leg.lower(), transfer_leg.lower()
        if leg not in LEGS or transfer_leg not in ("", *LEGS):
            raise MIError(-32602, "Invalid params", "Bad type for parameter 'leg'")
        try:
            if not transfer_callid:
                self.transfers.blind(call, leg, destination)
            elif transfer_leg:
                other = self._call(transfer_callid)
                if other is call:
                    raise MIError(400, "The call cannot be transferred into itself")
                self.transfers.attended(call, leg, other, transfer_leg, destination)
            else:
                self.transfers.attended_elsewhere(call, leg, transfer_callid, from_tag, to_tag, destination)
        except MalformedMessage as error:
            raise MIError(400, "Bad destination") from error

    @mi(alias="call_hold", recipes=_HOLD)
    def hold(self, callid: str, leg: str = "both", headers: Any = "") -> None:
        """Put a call on hold, or one leg of it; ``headers``: lines for the re-INVITEs, one text or one for each leg."""
        call, legs, lines = self._named(callid, leg, headers)
        free = [name for name in legs if not self.holds.held(call, name)]
        if not free:
            raise MIError(480, "Both dialog legs are on hold" if len(legs) > 1 else "The dialog leg is on hold")
        if not [name for name in free if self.holds.hold(call, name, lines[name])]:
            raise MIError(500, "Nobody knows the session")

    @mi(alias="call_unhold", recipes=_HOLD)
    def unhold(self, callid: str, leg: str = "both", headers: Any = "") -> None:
        """Let a call go on that was put on hold, or one leg of it."""
        call, legs, lines = self._named(callid, leg, headers)
        waiting = [name for name in legs if self.holds.held(call, name)]
        if not waiting:
            raise MIError(480, "No dialog leg is on hold")
        for name in waiting:
            self.holds.unhold(call, name, lines[name])

    def _named(self, callid: str, leg: str, headers: Any) -> tuple[Call, list[str], dict[str, str]]:
        call = self._call(callid)
        if leg.lower() not in ("both", *LEGS):
            raise MIError(420, "Bad leg")
        texts = headers if isinstance(headers, list) else [headers, headers]
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise MIError(-32602, "Invalid params", "Bad type for parameter 'headers'")
        lines = {}
        for name, text in zip(LEGS, texts, strict=True):
            lines[name] = text.rstrip("\r\n") + "\r\n" if text.strip() else ""
            try:
                whole_lines(lines[name])
            except ValueError as error:
                raise MIError(400, "Bad parameter value") from error
        return call, list(LEGS) if leg.lower() == "both" else [leg.lower()], lines
