"""Calls that the proxy transfers: a REFER of ours to one side, the call that comes of it, and the NOTIFYs in between (RFC 3515).

A blind transfer names a destination. In the mode ``param`` the URI that the phone is sent to has a parameter with the name of the
old call, in the mode ``callid`` with its Call-ID: the new INVITE brings it back, and it is taken away. An attended one has the
phone replace a side of another call (RFC 3891), and is known again by its Replaces."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import quote, unquote

from sipgw.proxy.dialogs import Call, Leg, State, as_text
from sipgw.proxy.following import Follower, call_of
from sipgw.proxy.holds import leg_of
from sipgw.script.run import Run
from sipgw.sip.address import NameAddr
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response
from sipgw.sip.replies import reason_for
from sipgw.sip.uri import Uri

PARAM, MANUAL, CALLID = range(3)
LEG: Final = "call_transfer_leg"
"""The ``$dlg_val`` of a call that is being transferred: which leg is; OpenSIPS has it too, and the next one."""
NEW: Final = "call_transfer_callid"
"""That with the Call-ID of the new call."""

Told = Callable[[Call, str, str, str, str, str], None]


class Transfers:
    """Transfers calls of ``follower``; ``told(call, leg, new Call-ID, destination, state, status)`` hears of it."""

    def __init__(self, follower: Follower, tm: Any, requests: Any, mode: int, param: str, told: Told) -> None:
        self._follower = follower
        self._tm = tm
        self._requests = requests
        self._mode = mode
        self._param = param
        self._told = told
        self._replaced: dict[str, list[tuple[Call, str]]] = {}
        """Attended transfers under way, by the Call-ID that is to be replaced: who hears of them."""

    # -- the REFER

    def blind(self, call: Call, name: str, destination: str) -> None:
        """Send a leg to ``destination``; ``MalformedMessage`` if that is no URI."""
        uri = target(destination)
        if self._mode != MANUAL:
            known = call.did if self._mode == PARAM else quote(call.call_id, safe="")
            uri = uri.with_param(self._param, known)
        self._refer(call, name, str(uri), destination)

    def attended(self, call: Call, name: str, other: Call, side: str, destination: str) -> None:
        """Let a leg take the place of a side's peer in another call."""
        leg = leg_of(other, side)
        address = destination or NameAddr.parse(leg.address).uri_text
        target(address)
        self._replaced[other.call_id] = [(call, name), (other, side)]
        other.values[LEG] = side
        self.attended_elsewhere(call, name, other.call_id, other.other(leg).tag, leg.tag, address)

    def attended_elsewhere(self, call: Call, name: str, call_id: str, from_tag: str, to_tag: str, destination: str) -> None:
        """Let a leg replace a call that may not be ours."""
        uri = target(destination).without_headers()
        self._replaced.setdefault(call_id, [(call, name)])
        replaces = quote(f"{call_id};to-tag={to_tag};from-tag={from_tag}", safe="")
        self._refer(call, name, f"{uri}?Replaces={replaces}", destination, call_id)

    def _refer(self, call: Call, name: str, uri: str, destination: str, replaced: str = "") -> None:
        call.values[LEG] = name
        call.values.pop(NEW, None)
        self.adopt("transfer", call, None, None)
        self._follower.save(call)
        self._requests.send(
            call, leg_of(call, name), "REFER", headers=f"Refer-To: <{uri}>\r\n",
            answer=partial(self._referred, call, name, destination, replaced),
        )

    def _referred(
        self, call: Call, name: str, destination: str, replaced: str, status: int, response: Response | None
    ) -> None:
        """The REFER is refused: nothing will come of it."""
        if not 0 < status < 300:
            for each, side in self._replaced.pop(replaced, [(call, name)]):
                self._told(each, side, "", destination, "fail", "" if response is None else _status(status, response))
                self._forget(each)

    # -- the new call

    def created(self, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        """See whether a new dialog comes of a transfer (a listener of new dialogs)."""
        if run is None or not isinstance(run.message, Request) or run.message.method != "INVITE":
            return
        replaces = run.message.header("Replaces")
        if replaces is not None:
            waiting = self._replaced.pop(replaces.partition(";")[0].strip(), None)
            if waiting:
                self._link(call, run, waiting)
                return
        if self._mode == MANUAL:
            return
        try:
            uri = run.request_uri
            known = uri.param(self._param)
        except MalformedMessage:
            return
        if not known:
            return
        run.uri = str(uri.without_param(self._param))
        old = self._follower.calls.find(unquote(known))
        if old is not None and old is not call and LEG in old.values:
            self._link(call, run, [(old, as_text(old.values[LEG]))])

    def replace(self, run: Run, call_id: str, name: str) -> bool:
        """Take it that the new dialog of ``run`` transfers a leg of the call ``call_id``."""
        call = call_of(run)
        old = self._follower.calls.find(call_id)
        if call is None or old is None or old is call:
            return False
        name = as_text(old.values.get(LEG, "")) or name or "unknown"
        old.values.setdefault(LEG, name)
        self.adopt("transfer", old, None, None)
        self._link(call, run, [(old, name)])
        return True

    def _link(self, call: Call, run: Run, waiting: list[tuple[Call, str]]) -> None:
        destination = run.uri
        for old, name in waiting:
            old.values[NEW] = call.call_id
            self._follower.save(old)
            self._told(old, name, call.call_id, destination, "start", "")
        self._tm.listen(run, partial(self._heard, call, waiting, destination))

    def _heard(
        self, call: Call, waiting: list[tuple[Call, str]], destination: str, context: Any, event: str, status: int,
        response: Response | None,
    ) -> None:
        """Hear how the new call is answered."""
        if event in ("response_out", "local_reply") and status >= 200:
            for old, name in waiting:
                state = "ok" if status < 300 else "fail"
                self._told(old, name, call.call_id, destination, state, _status(status, response))
            waiting.clear()

    # -- the NOTIFYs

    def adopt(self, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        """Hear the NOTIFYs of a call that is being transferred, from the database too (a dialog's listener)."""
        if LEG in call.values and not call.kept.get(LEG):
            call.kept[LEG] = True
            call.listeners.append(self._within)

    def _within(self, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        if event == "within" and run is not None and self._mode != MANUAL:
            self.notified(call, run)
        elif event in ("terminated", "expired"):
            self._forget(call)

    def notified(self, call: Call, run: Run) -> bool:
        """Answer a NOTIFY of how a transfer goes, so that ``t_relay`` sends nothing; False if it is none."""
        request = run.message
        if not isinstance(request, Request) or request.method != "NOTIFY" or LEG not in call.values:
            return False
        package, _, _ = (request.header("Event") or "").partition(";")
        if package.strip().lower() != "refer":
            return False
        context = self._tm.context(run)
        if context is None:
            return True
        context.blocked = True
        context.reply(run, 200, "OK")
        line = request.body.decode("utf-8", "replace").partition("\n")[0].strip()
        status = line.partition(" ")[2] if line.startswith("SIP/2.0 ") else ""
        self._told(call, as_text(call.values[LEG]), as_text(call.values.get(NEW)), "", "notify", status)
        if status[:1] in ("2", "3", "4", "5", "6") or "terminated" in (request.header("Subscription-State") or "").lower():
            self._forget(call)
        return True

    def _forget(self, call: Call) -> None:
        call.values.pop(LEG, None)
        call.values.pop(NEW, None)
        for key in [key for key, waiting in self._replaced.items() if any(each is call for each, _ in waiting)]:
            del self._replaced[key]
        if State.ANSWERED <= call.state < State.DELETED:
            self._follower.save(call)


def target(text: str) -> Uri:
    """The SIP URI that a REFER may name; ``MalformedMessage`` if it is none."""
    uri = Uri.parse(text)
    if not uri.is_sip or any(each in "<>\"" or each.isspace() or ord(each) < 32 for each in text):
        raise MalformedMessage("Bad destination")
    return uri


def _status(status: int, response: Response | None) -> str:
    return f"{status} {reason_for(status) if response is None else response.reason}"
