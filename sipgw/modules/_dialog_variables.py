"""The variables of module dialog: ``$DLG_...`` and ``$dlg_val(name)``; null where a message has no dialog."""

from __future__ import annotations

import json
import time
from typing import Any

from sipgw.exports import pvar
from sipgw.modules._dialog_base import DialogBase
from sipgw.proxy.dialogs import OPTIONS_PINGS, REINVITE_PINGS, Call, CallFlag, Leg, State
from sipgw.proxy.following import TIMEOUT, call_of, within_of
from sipgw.script.run import Run, Value
from sipgw.sip.message import Response


class DialogVariables(DialogBase):
    """Variables, and the description of a dialog that they share with the commands."""

    @pvar("DLG_count")
    def count(self, run: Run) -> int:
        """``$DLG_count``: how many calls have been answered and go on."""
        return int(self.active_dialogs.value)

    @pvar("DLG_status")
    def status(self, run: Run) -> int | None:
        """``$DLG_status``: 1 unconfirmed, 2 early, 3 answered, 4 confirmed by the ACK, 5 over."""
        call = call_of(run)
        return None if call is None else int(call.state)

    @pvar("DLG_lifetime")
    def lifetime(self, run: Run) -> int | None:
        """``$DLG_lifetime``: seconds since the call was answered."""
        call = call_of(run)
        if call is None:
            return None
        return int(run.user.wall_clock()) - int(call.started) if call.started else 0

    @pvar("DLG_dir")
    def direction(self, run: Run) -> str | None:
        """``$DLG_dir``: "downstream" from the caller to the callee, or "upstream"."""
        found = within_of(run)
        if found is None:
            return None
        if isinstance(run.message, Response):
            return "upstream" if run.message.from_tag == found.call.caller.tag else "downstream"
        if found.target is None:
            return "downstream" if found.first else None
        return "upstream" if found.target is found.call.caller else "downstream"

    @pvar("DLG_did")
    def did(self, run: Run) -> str | None:
        """``$DLG_did``: the name of the dialog."""
        call = call_of(run)
        return None if call is None else call.did

    @pvar("DLG_end_reason")
    def end_reason(self, run: Run) -> str | None:
        """``$DLG_end_reason``: why it ended."""
        call = call_of(run)
        return None if call is None else call.reason

    @pvar("DLG_flags", set="set_flags")
    def flags(self, run: Run) -> str | None:
        """``$DLG_flags``: the names of its flags, with blanks between them."""
        call = call_of(run)
        return None if call is None else " ".join(sorted(call.marks))

    def set_flags(self, run: Run, value: Value) -> None:
        """Give it other flags."""
        call = call_of(run)
        if call is None:
            self._no_dialog(run, "$DLG_flags")
            return
        call.marks = set(str(value).split()) if value is not None else set()
        self.flush_call(call)

    @pvar("DLG_timeout", set="set_timeout")
    def timeout(self, run: Run) -> int | None:
        """``$DLG_timeout``: seconds until the call ends; before it is answered: how long it may last."""
        call = call_of(run)
        if call is None:
            return None
        if call.state < State.ANSWERED:
            return call.lifetime
        if call.state is State.DELETED:
            return 0
        left: float = call.ends - run.user.clock()
        return max(0, round(left))

    def set_timeout(self, run: Run, value: Value) -> None:
        """Let it last so long from now on; before the dialog is made, the one to come."""
        seconds = self._seconds(run, "$DLG_timeout", value, 0)
        if seconds is None:
            return
        call = call_of(run)
        if call is None:
            run.keep()[TIMEOUT] = seconds
        elif CallFlag.RACED not in call.flags:
            self.follower.set_lifetime(call, seconds)

    @pvar("DLG_del_delay", set="set_delete_delay")
    def delete_delay_of(self, run: Run) -> int | None:
        """``$DLG_del_delay``: seconds for which the dialog is kept when it is over."""
        call = call_of(run)
        return None if call is None else call.delete_delay

    def set_delete_delay(self, run: Run, value: Value) -> None:
        """Keep it that long."""
        seconds = self._seconds(run, "$DLG_del_delay", value, 0)
        call = call_of(run)
        if call is None:
            self._no_dialog(run, "$DLG_del_delay")
        elif seconds is not None:
            call.delete_delay = seconds

    @pvar("DLG_options_ping_interval", set="set_options_interval")
    def options_interval(self, run: Run) -> int | None:
        """``$DLG_options_ping_interval``: seconds between OPTIONS pings; once it is confirmed, until the next one."""
        call = call_of(run)
        if call is None:
            return self._kept(run, "dialog options")
        if not call.flags & OPTIONS_PINGS:
            return None
        left = self.requests.next_ping(call, "OPTIONS")
        return call.options_interval if left is None else left

    def set_options_interval(self, run: Run, value: Value) -> None:
        """Ping that often."""
        seconds = self._seconds(run, "$DLG_options_ping_interval", value, 1)
        call = call_of(run)
        if seconds is None:
            return
        if call is None:
            run.keep()["dialog options"] = seconds
        else:
            call.options_interval = seconds
            self.requests.reschedule(call, "OPTIONS")

    @pvar("DLG_reinvite_ping_interval", set="set_reinvite_interval")
    def reinvite_interval(self, run: Run) -> int | None:
        """``$DLG_reinvite_ping_interval``: seconds between re-INVITE pings; once it is confirmed, until the next one."""
        call = call_of(run)
        if call is None:
            return self._kept(run, "dialog reinvite")
        if not call.flags & REINVITE_PINGS:
            return None
        left = self.requests.next_ping(call, "INVITE")
        return call.reinvite_interval if left is None else left

    def set_reinvite_interval(self, run: Run, value: Value) -> None:
        """Ping that often."""
        seconds = self._seconds(run, "$DLG_reinvite_ping_interval", value, 1)
        call = call_of(run)
        if seconds is None:
            return
        if call is None:
            run.keep()["dialog reinvite"] = seconds
        else:
            call.reinvite_interval = seconds
            self.requests.reschedule(call, "INVITE")

    @pvar("dlg_val", set="set_value", named=True)
    def value(self, run: Run, name: str) -> Value:
        """``$dlg_val(name)``: a value that the dialog keeps."""
        call = call_of(run)
        return None if call is None else call.values.get(name)

    def set_value(self, run: Run, name: str, value: Value) -> None:
        """Keep a value with the dialog; null takes it away."""
        call = call_of(run)
        if call is None:
            self._no_dialog(run, f"$dlg_val({name})")
        else:
            self.put_value(call, name, value)

    def put_value(self, call: Call, name: str, value: Value) -> None:
        """Keep a value with ``call``."""
        if value is None:
            call.values.pop(name, None)
        else:
            call.values[name] = value
        self.flush_call(call)

    @pvar("DLG_json")
    def json(self, run: Run) -> str | None:
        """``$DLG_json``: what ``dialog:list`` says of the dialog, as JSON."""
        call = call_of(run)
        return None if call is None else json.dumps(self.describe(call, False))

    @pvar("DLG_ctx_json")
    def context_json(self, run: Run) -> str | None:
        """``$DLG_ctx_json``: what ``dialog:list_ctx`` says of the dialog, as JSON."""
        call = call_of(run)
        return None if call is None else json.dumps(self.describe(call, True))

    # -- what they share

    def _no_dialog(self, run: Run, what: str) -> None:
        run.user.log_rarely(("no dialog", what), -1, f"{what}: there is no dialog")

    def _kept(self, run: Run, key: str) -> int | None:
        found: int | None = None if run.context is None else run.context.get(key)
        return found

    def _seconds(self, run: Run, what: str, value: Value, least: int) -> int | None:
        try:
            seconds = int(value) if value is not None else -1
        except ValueError:
            seconds = -1
        if seconds < least:
            run.user.log(-1, f"{what} cannot be {value!r}: it takes seconds, {least} at least")
            return None
        return seconds

    def describe(self, call: Call, with_context: bool) -> dict[str, Any]:
        """All that is known of ``call``, as the management commands tell it; ``with_context``: its values and profiles too."""
        user = self.server.user
        caller = call.caller
        said: dict[str, Any] = {
            "ID": call.did, "db_id": str(call.number), "state": int(call.state), "user_flags": " ".join(sorted(call.marks)),
            "timestart": int(call.started),
        }
        if call.started:
            said["datestart"] = _date(call.started)
        ends = int(user.wall_clock() + call.ends - user.clock()) if call.ends and call.state is not State.DELETED else 0
        said["timeout"] = ends
        if ends:
            said["dateout"] = _date(ends)
        said |= {
            "callid": call.call_id, "from_uri": _uri(caller), "to_uri": _uri(call.winner), "caller_tag": caller.tag,
            "caller_contact": caller.contact, "callee_cseq": str(caller.cseq), "caller_route_set": ",".join(caller.routes),
            "caller_bind_addr": _socket(caller),
        }
        if caller.sdp:
            said["caller_sdp"] = caller.sdp.decode("utf-8", "replace")
        if caller.sent_sdp:
            said["caller_sent_sdp"] = caller.sent_sdp.decode("utf-8", "replace")
        said["CALLEES"] = [_callee(leg) for leg in call.callees]
        if with_context:
            call.tell("context")
            context: dict[str, Any] = {}
            if call.values:
                context["values"] = [{name: _printable(value)} for name, value in call.values.items()]
            if call.profiles:
                context["profiles"] = [{name: value} for name, value in call.profiles]
            said["context"] = context | call.kept.get("context", {})
        return said


def _callee(leg: Leg) -> dict[str, Any]:
    said: dict[str, Any] = {
        "callee_tag": leg.tag, "callee_contact": leg.contact, "caller_cseq": str(leg.cseq),
        "callee_route_set": ",".join(leg.routes), "callee_bind_addr": _socket(leg) or None,
    }
    if leg.sdp:
        said["callee_sdp"] = leg.sdp.decode("utf-8", "replace")
    if leg.sent_sdp:
        said["callee_sent_sdp"] = leg.sent_sdp.decode("utf-8", "replace")
    return said


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _uri(leg: Leg) -> str:
    return leg.address.rpartition("<")[2].partition(">")[0]


def _socket(leg: Leg) -> str:
    socket = leg.socket
    return "" if socket is None else f"{socket.transport}:{socket.host}:{socket.port}"


_ESCAPES = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}


def _printable(value: int | str) -> int | str:
    """A value as it is listed: what cannot be printed as ``\\xNN``."""
    if isinstance(value, int):
        return value
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F else _ESCAPES.get(byte, f"\\x{byte:02x}")
        for byte in value.encode("utf-8", "surrogateescape")
    )
