"""dialog: the proxy knows its calls. They are counted, limited, timed, pinged, ended, and survive a restart.

What a dialog is stands in ``proxy/dialogs.py``, what messages do to it in ``proxy/following.py``. This file has the functions;
``_dialog_base.py`` parameters, statistics and the database, ``_dialog_variables.py`` and ``_dialog_commands.py`` the rest."""

from __future__ import annotations

import json
import re
from typing import Annotated

from sipgw.core.cachedb import CacheError
from sipgw.exports import (
    BRANCH,
    FAILURE,
    LOCAL,
    ONREPLY,
    REQUEST,
    Avp,
    Constant,
    HeaderText,
    Listed,
    Readable,
    RouteName,
    Writable,
    function,
)
from sipgw.modules._dialog_commands import DialogCommands
from sipgw.proxy.dialogs import Call, CallFlag, State, as_text
from sipgw.proxy.following import DID_FALLBACK, DID_NONE, DID_ONLY, KEPT, Within, call_of, within_of
from sipgw.proxy.record_route import is_own
from sipgw.script.run import Run
from sipgw.sip.address import NameAddr
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request
from sipgw.sip.uri import Uri, same_uri

CREATE_FLAGS = {
    "bye-on-timeout": CallFlag.BYE_ON_TIMEOUT,
    "options-ping-caller": CallFlag.OPTIONS_CALLER,
    "options-ping-callee": CallFlag.OPTIONS_CALLEE,
    "reinvite-ping-caller": CallFlag.REINVITE_CALLER,
    "reinvite-ping-callee": CallFlag.REINVITE_CALLEE,
    "end-on-race-condition": CallFlag.END_ON_RACE,
    "auto-prack": CallFlag.AUTO_PRACK,
}
MODES = {"DID_ONLY": DID_ONLY, "DID_FALLBACK": DID_FALLBACK, "DID_NONE": DID_NONE}

_STASH = "dialog stash"
_INVALID_CSEQ, _INVALID_TARGET, _INVALID_ROUTE, _OTHER = -1, -2, -3, -4


def create_flags(text: str) -> CallFlag:
    """The flags of ``create_dialog``."""
    flags = CallFlag(0)
    for word in text.split(","):
        name = word.strip()
        if name and name not in CREATE_FLAGS:
            raise ValueError(f"create_dialog knows no flag {name!r}; it takes {', '.join(CREATE_FLAGS)}")
        if name:
            flags |= CREATE_FLAGS[name]
    return flags


def match_mode(text: str) -> int:
    """The mode of ``match_dialog``."""
    if text.strip().upper() not in MODES:
        raise ValueError(f"match_dialog takes {', '.join(MODES)}, not {text!r}")
    return MODES[text.strip().upper()]


def leg_name(text: str) -> None:
    """Refuse what is no leg."""
    if text.lower() not in ("caller", "callee"):
        raise ValueError(f"a leg is caller or callee, not {text!r}")


def id_type(text: str) -> None:
    """Refuse what ``load_dialog_ctx`` does not find dialogs by."""
    if text.lower() not in ("callid", "did"):
        raise ValueError(f"load_dialog_ctx takes callid or did, not {text!r}")


class Dialog(DialogCommands):
    """Follows calls from their INVITE to their BYE."""

    # -- making and finding

    @function(REQUEST)
    def create_dialog(self, run: Run, flags: Annotated[str, create_flags] | None = None) -> bool:
        """Make the dialog that this first request begins; true if there is one already, which gets ``flags`` too.

        They are bye-on-timeout, options-ping-caller, options-ping-callee, reinvite-ping-caller, reinvite-ping-callee,
        end-on-race-condition and auto-prack, with commas between them."""
        try:
            chosen = create_flags(flags) if flags else CallFlag(0)
        except ValueError as error:
            run.user.log(-1, f"create_dialog: {error}")
            return False
        return self.follower.create(run, chosen) is not None

    @function(REQUEST)
    def match_dialog(self, run: Run, dlg_match_mode: Annotated[str, match_mode] | None = None) -> bool:
        """Find the dialog of a request within one, where ``loose_route`` has not; by "DID_ONLY", "DID_FALLBACK" or "DID_NONE"."""
        try:
            mode = self.dlg_match_mode if dlg_match_mode is None else match_mode(dlg_match_mode)
        except ValueError as error:
            run.user.log(-1, str(error))
            return False
        return self.follower.match(run, mode)

    @function(REQUEST)
    def validate_dialog(self, run: Run) -> int:
        """Whether the request fits its dialog: -1 wrong CSeq, -2 wrong remote target, -3 wrong route set, -4 anything else."""
        found = within_of(run)
        request = run.message
        if found is None or found.target is None or found.source is None or not isinstance(request, Request):
            return _OTHER
        target = found.target
        number = request.cseq.number
        if request.method == "ACK":
            if number != found.source.invite:
                return _INVALID_CSEQ
        elif number <= (target.cseq if target.previous is None else target.previous):
            return _INVALID_CSEQ
        if found.call.state < State.ANSWERED or self.rr is None:
            return 1
        try:
            if target.contact and not same_uri(Uri.parse(run.uri), Uri.parse(target.contact)):
                return _INVALID_TARGET
            routes = [route.uri for route in request.routes]
            while routes and is_own(run, routes[0]):
                del routes[0]
            wanted = [NameAddr.parse(route).uri for route in target.routes]
        except MalformedMessage:
            return _OTHER
        if len(routes) != len(wanted) or not all(map(same_uri, routes, wanted)):
            return _INVALID_ROUTE
        return 1

    @function(REQUEST)
    def fix_route_dialog(self, run: Run) -> bool:
        """Route the request as its dialog says, whatever its own Request-URI and Route say."""
        found = within_of(run)
        request = run.message
        if found is None or found.target is None or not isinstance(request, Request):
            return False
        dialog = found.call.toward(found.target)
        try:
            uri, routes = dialog.path()
            next_hop = dialog.next_hop
        except MalformedMessage as error:
            run.user.log(-1, f"fix_route_dialog: {error}")
            return False
        edits = run.edits
        for line in request.positions("route"):
            edits = edits.delete(line)
        if routes:
            edits = edits.insert_before(1, f"Route: {', '.join(routes)}")
        run.edits = edits
        run.uri = uri
        run.dst_uri = next_hop if routes else None
        return True

    # -- another dialog

    @function()
    def load_dialog_ctx(
        self, run: Run, dialog: str, id_type: Annotated[str, id_type] | None = None, active_only: int | None = None
    ) -> bool:
        """Let variables and functions mean another dialog, by its Call-ID or ("did") its name, until ``unload_dialog_ctx``."""
        kept = run.keep()
        if _STASH in kept:
            run.user.log(-1, "load_dialog_ctx: another dialog is loaded already")
            return False
        calls = self.follower.calls
        if (id_type or "callid").lower() == "did":
            call = calls.find(dialog)
        else:
            same = calls.by_call_id(dialog)
            call = same[0] if same else None
        if call is None or (active_only and call.state is State.DELETED):
            return False
        before: Within | None = kept.get(KEPT)
        kept[_STASH] = before
        if before is None or before.call is not call:
            kept[KEPT] = Within(call)
        return True

    @function()
    def unload_dialog_ctx(self, run: Run) -> bool:
        """Go back to the dialog that was there before ``load_dialog_ctx``."""
        kept = run.keep()
        if _STASH not in kept:
            run.user.log(-1, "unload_dialog_ctx: no dialog is loaded")
            return False
        before = kept.pop(_STASH)
        if before is None:
            del kept[KEPT]
        else:
            kept[KEPT] = before
        return True

    def _living(self) -> list[Call]:
        return [call for call in self.follower.calls if call.state is not State.DELETED]

    @function()
    def get_dialog_info(
        self, run: Run, attr: str, avp: Avp, key: str, key_val: Readable, no_dlgs: Writable
    ) -> bool:
        """Put ``$dlg_val(attr)`` of the dialogs whose ``$dlg_val(key)`` is ``key_val`` into ``avp``, and how many."""
        wanted = as_text(key_val.get(run))
        calls = [call for call in self._living() if key in call.values and str(call.values[key]) == wanted]
        for call in reversed(calls):
            avp.set(run, call.values.get(attr, ""))
        no_dlgs.set(run, len(calls))
        return bool(calls)

    @function()
    def get_dialog_vals(self, run: Run, names: Avp, vals: Avp, callid: str) -> bool:
        """Put the names and values of all ``$dlg_val`` of the dialog with that Call-ID into two AVPs."""
        same = self.follower.calls.by_call_id(callid)
        if not same:
            return False
        for name, value in reversed(tuple(same[0].values.items())):
            names.set(run, name)
            vals.set(run, value)
        return True

    @function()
    def get_dialogs_by_val(self, run: Run, name: str, value: Readable, out_avp: Avp, out_dlg_no: Writable) -> bool:
        """Put ``$DLG_ctx_json`` of the dialogs whose ``$dlg_val(name)`` is ``value`` into an AVP, how many into a variable."""
        wanted = as_text(value.get(run))
        calls = [call for call in self._living() if name in call.values and str(call.values[name]) == wanted]
        return self._give(run, calls, out_avp, out_dlg_no)

    @function()
    def get_dialogs_by_profile(self, run: Run, name: str, value: str | None, out_avp: Avp, out_dlg_no: Writable) -> bool:
        """Put ``$DLG_ctx_json`` of each dialog of a profile into an AVP, and their number into a variable."""
        if not self._known(run, "get_dialogs_by_profile", name):
            return False
        return self._give(run, self._in_profile(name, value), out_avp, out_dlg_no)

    def _give(self, run: Run, calls: list[Call], avp: Listed, number: Writable) -> bool:
        for call in reversed(calls):
            avp.set(run, json.dumps(self.describe(call, True)))
        number.set(run, len(calls))
        return bool(calls)

    # -- profiles

    def _known(self, run: Run, what: str, profile: str) -> bool:
        if profile in self.follower.profiles.known:
            return True
        why = f"{what}: no profile {profile!r}: declare it in profiles_with_value or profiles_no_value"
        run.user.log_rarely((what, profile), -1, why)
        return False

    def _call(self, run: Run, what: str) -> Call | None:
        call = call_of(run)
        if call is None:
            run.user.log_rarely(("no dialog", what), -1, f"{what}: there is no dialog")
        return call

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def set_dlg_profile(self, run: Run, profile: str, value: str | None = None, clear_values: int | None = None) -> bool:
        """Count the dialog in ``profile``, with ``value`` if that has values; ``clear_values``: no longer with any other."""
        call = self._call(run, "set_dlg_profile")
        if call is None or not self._known(run, "set_dlg_profile", profile):
            return False
        profiles = self.follower.profiles
        if profiles.known[profile].has_value and value is None:
            run.user.log(-1, f"set_dlg_profile: profile {profile!r} wants a value")
            return False
        if call.state is State.DELETED:
            return False
        if clear_values:
            profiles.leave(call, profile)
        profiles.enter(call, profile, value or "")
        self.flush_call(call)
        return True

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def unset_dlg_profile(self, run: Run, profile: str, value: str | None = None) -> bool:
        """Count the dialog no longer in ``profile``, or not with ``value``; false if it was not in it."""
        call = self._call(run, "unset_dlg_profile")
        if call is None or not self._known(run, "unset_dlg_profile", profile):
            return False
        left = self.follower.profiles.leave(call, profile, value if self.follower.profiles.known[profile].has_value else None)
        self.flush_call(call)
        return left

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def is_in_profile(self, run: Run, profile: str, value: str | None = None) -> bool:
        """Whether the dialog is in ``profile``, with ``value`` if that is given."""
        call = self._call(run, "is_in_profile")
        if call is None or not self._known(run, "is_in_profile", profile):
            return False
        if not self.follower.profiles.known[profile].has_value:
            value = None
        return any(name == profile and value in (None, each) for name, each in call.profiles)

    @function()
    async def get_profile_size(self, run: Run, profile: str, value: str | None, size: Writable) -> bool:
        """Put into ``size`` how many dialogs are in ``profile``, with ``value`` if that is given."""
        if not self._known(run, "get_profile_size", profile):
            return False
        try:
            size.set(run, await self.profile_size(profile, value))
        except CacheError as error:
            run.user.log_rarely("get_profile_size", -1, f"get_profile_size: {error}")
            return False
        return True

    # -- flags and values

    def _flag(self, run: Run, what: str, flag: str, value: bool) -> bool:
        call = self._call(run, what)
        if call is None:
            return False
        (call.marks.add if value else call.marks.discard)(flag)
        self.flush_call(call)
        return True

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def set_dlg_flag(self, run: Run, flag: Constant) -> bool:
        """Set a flag of the dialog."""
        return self._flag(run, "set_dlg_flag", flag, True)

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def reset_dlg_flag(self, run: Run, flag: Constant) -> bool:
        """Take a flag of the dialog away."""
        return self._flag(run, "reset_dlg_flag", flag, False)

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def is_dlg_flag_set(self, run: Run, flag: Constant) -> bool:
        """Whether the dialog has a flag."""
        call = self._call(run, "is_dlg_flag_set")
        return call is not None and flag in call.marks

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def test_and_set_dlg_flag(self, run: Run, flag: Constant, value: int) -> bool:
        """If the flag is set (``value`` 1) or is not (0), turn it; true if it was so."""
        call = self._call(run, "test_and_set_dlg_flag")
        if call is None or (flag in call.marks) is not bool(value):
            return False
        return self._flag(run, "test_and_set_dlg_flag", flag, not value)

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def store_dlg_value(self, run: Run, name: str, val: Readable) -> bool:
        """Keep the value of a variable with the dialog, as ``$dlg_val(name)``."""
        call = self._call(run, "store_dlg_value")
        value = val.get(run)
        if call is None or value is None:
            return False
        self.put_value(call, name, value)
        return True

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def fetch_dlg_value(self, run: Run, name: str, val: Writable) -> bool:
        """Put ``$dlg_val(name)`` into a variable; false if there is none."""
        call = self._call(run, "fetch_dlg_value")
        if call is None or name not in call.values:
            return False
        val.set(run, call.values[name])
        return True

    @function(REQUEST)
    def set_dlg_sharing_tag(self, run: Run, tag_name: str) -> bool:
        """Give the dialog a sharing tag: the server for which that is active ends it in time and pings it."""
        if self.sharing is None:
            return True  # COMPAT: nothing is shared
        call = self._call(run, "set_dlg_sharing_tag")
        if call is None:
            return False
        self.sharing.tag(call, tag_name)
        return True

    # -- routes

    def _arm(self, run: Run, which: str, name: str | None) -> bool:
        call = self._call(run, f"dlg_on_{which}")
        if call is None:
            return False
        if name:
            call.routes[which] = name
        else:
            call.routes.pop(which, None)
        return True

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def dlg_on_answer(self, run: Run, route_name: RouteName | None = None) -> bool:
        """Run a route when the call is answered; without a name, none."""
        return self._arm(run, "answer", route_name)

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def dlg_on_timeout(self, run: Run, route_name: RouteName | None = None) -> bool:
        """Run a route when the call's time is over; it may set ``$DLG_timeout`` to let it go on."""
        return self._arm(run, "timeout", route_name)

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def dlg_on_hangup(self, run: Run, route_name: RouteName | None = None) -> bool:
        """Run a route when the call has ended."""
        return self._arm(run, "hangup", route_name)

    # -- requests of our own

    @function()
    def dlg_send_sequential(
        self,
        run: Run,
        method: str,
        leg: Annotated[str, leg_name],
        body: str | None = None,
        content_type: str | None = None,
        headers: HeaderText | None = None,
    ) -> bool:
        """Send a request in the dialog, to the "caller" or the "callee"."""
        call = self._call(run, "dlg_send_sequential")
        lines = (headers or "").rstrip("\r\n")
        if call is None or not State.ANSWERED <= call.state < State.DELETED or leg.lower() not in ("caller", "callee"):
            return False
        if not re.fullmatch(r"[A-Za-z0-9.!%*_+`'~-]+", method) or re.search(r"[\r\n\0]", content_type or ""):
            run.user.log(-1, f"dlg_send_sequential: {method!r} or its Content-Type cannot be sent")
            return False
        self.requests.send(
            call, call.caller if leg.lower() == "caller" else call.winner, method, headers=f"{lines}\r\n" if lines else "",
            body=(body or "").encode("utf-8", "surrogateescape"), content_type=content_type or "",
        )
        return True

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def dlg_inc_cseq(self, run: Run, tag: str | None = None, inc: int | None = None) -> bool:
        """Raise the CSeq number of requests to a leg by ``inc`` or 1; the leg has ``tag``, or else the To tag of the message."""
        call = self._call(run, "dlg_inc_cseq")
        if call is None:
            return False
        wanted = run.message.to_tag if tag is None else tag
        leg = call.caller if wanted == call.caller.tag else call.leg(wanted or "")
        if leg is None:
            run.user.log(-1, f"dlg_inc_cseq: no leg of the dialog has the tag {wanted!r}")
            return False
        leg.generated = max(0, max(leg.generated, leg.cseq) + (1 if inc is None else inc))
        return True


__all__ = ["CREATE_FLAGS", "Dialog", "create_flags", "leg_name", "match_mode"]
