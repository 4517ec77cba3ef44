"""The management commands of module dialog."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.cachedb import CacheError
from sipgw.db.errors import DatabaseError
from sipgw.exports import mi
from sipgw.mi.commands import MIError
from sipgw.modules._dialog_base import whole_lines
from sipgw.modules._dialog_variables import DialogVariables
from sipgw.proxy.dialogs import Call, State
from sipgw.redis.errors import RedisFault
from sipgw.sip.message import Response
from sipgw.sip.replies import reason_for

NOT_FOUND = "Requested Dialog not found"
FAILED = "Operation failed"

WHICH: tuple[tuple[str, ...], ...] = ((), ("callid",), ("callid", "from_tag"), ("index", "counter"))
"""The parameters of ``dialog:list``."""


class DialogCommands(DialogVariables):
    """What the operator can ask."""

    @mi("list", alias="dlg_list", recipes=WHICH, named_only=True)
    def list_dialogs(self, callid: str = "", from_tag: str = "", index: int = 0, counter: int = 0) -> Any:
        """List dialogs: all, that of a call, or ``counter`` of them from ``index`` on."""
        return self._list(callid, from_tag, index, counter, False)

    @mi("list_ctx", alias="dlg_list_ctx", recipes=WHICH, named_only=True)
    def list_contexts(self, callid: str = "", from_tag: str = "", index: int = 0, counter: int = 0) -> Any:
        """List dialogs with their values and profiles."""
        return self._list(callid, from_tag, index, counter, True)

    def _list(self, callid: str, from_tag: str, index: int, counter: int, with_context: bool) -> Any:
        calls = self.follower.calls
        if callid:
            for call in calls.by_call_id(callid):
                if not from_tag or call.caller.tag == from_tag:
                    return {"Dialog": self.describe(call, with_context)}
            raise MIError(404, "No such dialog")
        chosen: Iterable[Call] = calls
        said: dict[str, Any] = {}
        if counter:
            said["count"] = len(calls)
            chosen = list(calls)[index : index + counter]
        said["Dialogs"] = [self.describe(call, with_context) for call in chosen]
        return said

    def _find(self, name: str, message: str = "Dialog Not Found") -> Call:
        call = self.follower.calls.find(name)
        if call is None:
            raise MIError(404, message)
        return call

    @mi(alias="dlg_end_dlg", recipes=(("dialog_id",), ("dialog_id", "extra_hdrs")))
    def end_dlg(self, dialog_id: str, extra_hdrs: str = "") -> None:
        """End a dialog, named by its name or its Call-ID: BYE to both sides, or CANCEL before it is answered."""
        self._end(self._find(dialog_id, NOT_FOUND), extra_hdrs)

    def _end(self, call: Call, headers: str) -> None:
        try:
            whole_lines(headers)
        except ValueError as error:
            raise MIError(400, "Bad parameter value") from error
        if not self.follower.end(call, "MI Termination", headers):
            raise MIError(500, FAILED)

    @mi(alias="dlg_db_sync")
    async def db_sync(self) -> None:
        """Take over the dialogs of the database that are not here, and what it knows better of those that are."""
        if self.database is None:
            raise MIError(400, "Cannot sync in no-db mode")
        try:
            await self.load()
        except DatabaseError as error:
            raise MIError(400, "Sync mem with DB failed") from error

    @mi(alias="dlg_restore_db")
    async def restore_db(self) -> None:
        """Write the table anew from the dialogs that are here."""
        if self.database is None or self.rows is None:
            raise MIError(400, "Cannot restore db in no-db mode!")
        calls = [call for call in self.follower.calls if State.ANSWERED <= call.state < State.DELETED]
        try:
            await self.database.batch([self.rows.delete_all(), *(self.rows.replace(call) for call in calls)])
        except DatabaseError as error:
            raise MIError(400, "Restore dlg DB failed!") from error
        for call in calls:
            call.stored = True

    @mi(alias="dlg_cluster_sync", recipes=((), ("sharing_tag",)))
    async def cluster_sync(self, sharing_tag: str | None = None) -> None:
        """Read all dialogs of the cluster anew, or those with a sharing tag."""
        if self.sharing is None:
            raise MIError(400, "Dialog replication disabled")
        try:
            await self.sharing.sync(sharing_tag)
        except RedisFault as error:
            raise MIError(400, "Failed to send sync request") from error

    # -- profiles

    def _profile(self, name: str) -> None:
        if name not in self.follower.profiles.known:
            raise MIError(404, "Profile not found")

    @mi(recipes=(("profile",), ("profile", "value")))
    async def profile_get_size(self, profile: str, value: str | None = None) -> Any:
        """How many dialogs are in a profile."""
        self._profile(profile)
        try:
            count = await self.profile_size(profile, value)
        except CacheError as error:
            raise MIError(500, FAILED) from error
        flag = self.follower.profiles.known[profile].shared
        shared, replicated = ("yes" if flag == each else "no" for each in "sb")
        return {"Profile": {"name": profile, "value": value, "count": count, "shared": shared, "replicated": replicated}}

    @mi(recipes=(("profile",), ("profile", "value")))
    def profile_list_dlgs(self, profile: str, value: str | None = None) -> Any:
        """The dialogs that are in a profile."""
        return {"Dialogs": [self.describe(call, False) for call in self._in_profile(profile, value)]}

    def _in_profile(self, profile: str, value: str | None) -> list[Call]:
        self._profile(profile)
        if not self.follower.profiles.known[profile].has_value:
            value = None
        return [
            call for call in self.follower.calls
            if any(name == profile and value in (None, each) for name, each in call.profiles)
        ]

    @mi(recipes=(("profile",),))
    def profile_get_values(self, profile: str) -> Any:
        """The values of a profile, each with how many dialogs have it."""
        self._profile(profile)
        profiles = self.follower.profiles
        if profiles.known[profile].shared == "s":
            raise MIError(405, "Unsupported command for shared profiles")
        values = self.profile_values(profile)
        if not profiles.known[profile].has_value:
            return [{"value": None, "count": sum(values.values())}]
        return [{"value": value, "count": count} for value, count in values.items()]

    @mi()
    def list_all_profiles(self) -> Any:
        """All profiles, and whether they have values."""
        return {"Profiles": [
            {"name": profile.name, "has value": profile.has_value} for profile in self.follower.profiles.known.values()
        ]}

    @mi(recipes=(("profile",), ("profile", "value")))
    def profile_end_dlgs(self, profile: str, value: str | None = None) -> None:
        """End all dialogs of a profile."""
        for call in self._in_profile(profile, value):
            self._end(call, "")

    @mi(alias="dlg_set_profile", recipes=(("dlg_id", "profile"), ("dlg_id", "profile", "value"),
        ("dlg_id", "profile", "value", "clear_values")))
    def set_profile(self, dlg_id: str, profile: str, value: str = "", clear_values: int = 0) -> None:
        """Put a dialog into a profile."""
        call = self._find(dlg_id)
        self._profile(profile)
        if clear_values:
            self.follower.profiles.leave(call, profile)
        self.follower.profiles.enter(call, profile, value)
        self.flush_call(call)

    @mi(alias="dlg_unset_profile", recipes=(("dlg_id", "profile"), ("dlg_id", "profile", "value")))
    def unset_profile(self, dlg_id: str, profile: str, value: str | None = None) -> None:
        """Take a dialog out of a profile."""
        call = self._find(dlg_id)
        self._profile(profile)
        self.follower.profiles.leave(call, profile, value)
        self.flush_call(call)

    # -- one dialog

    @mi(alias="dlg_push_var", recipes=(("dlg_val_name", "dlg_val_value", "DID"),))
    def push_var(self, dlg_val_name: str, dlg_val_value: str, DID: list[str]) -> None:
        """Give ``$dlg_val(dlg_val_name)`` a value in each of the dialogs ``DID`` (names or Call-IDs) that are there."""
        for name in DID:
            call = self.follower.calls.find(name)
            if call is not None:
                self.put_value(call, dlg_val_name, dlg_val_value)

    @mi(alias="dlg_send_sequential", named_only=True, recipes=(
        ("callid",), ("callid", "mode"), ("callid", "method"), ("callid", "body"), ("callid", "mode", "method"),
        ("callid", "mode", "body"), ("callid", "method", "body"), ("callid", "method", "body", "mode"),
        ("callid", "method", "body", "mode", "headers"),
    ))
    async def send_sequential(
        self, callid: str, mode: str = "caller", method: str = "INVITE", body: str = "none", headers: str = ""
    ) -> Any:
        """Send a request in a dialog: to the ``caller`` or the ``callee``; the code and the reason of the final reply.

        ``challenge-caller``, ``challenge-callee``: ask that side for its session description and send that to the other.
        ``body``: none, inbound (what the other side sent last), outbound (what was sent to it), custom:CONTENT_TYPE:BODY."""
        mode, body_kind = mode.lower(), body.partition(":")[0].lower()
        challenge = mode.startswith("challenge")
        side = mode if not challenge else mode[10:] if len(mode) > 9 else "caller"
        if side not in ("caller", "callee"):
            raise MIError(400, "Invalid mode")
        if body_kind not in ("none", "inbound", "outbound", "custom"):
            raise MIError(400, "Invalid body mode")
        if challenge and method.upper() not in ("INVITE", "UPDATE"):
            raise MIError(406, "Not Acceptable")
        headers = headers if not headers or headers.endswith("\r\n") else headers + "\r\n"
        try:
            whole_lines(headers)
        except ValueError as error:
            raise MIError(400, "Bad parameter value") from error
        call = self._find(callid)
        if not State.ANSWERED <= call.state < State.DELETED:
            raise MIError(404, "Dialog Not Found")
        leg = call.caller if side == "caller" else call.winner
        other = call.other(leg)
        content, content_type = b"", "application/sdp"
        if body_kind == "inbound":
            content = other.sdp
        elif body_kind == "outbound":
            content = leg.sent_sdp or other.sdp
        elif body_kind == "custom":
            content_type, colon, text = body.partition(":")[2].partition(":")
            content = text.encode() if colon else b""
        status, response = await self._ask(call, leg, method, content, content_type, headers)
        if challenge and response is not None and 200 <= status < 300:
            if response.body:
                status, response = await self._ask(call, other, method, response.body, content_type, "")
            else:
                status = 400
        if response is None:
            raise MIError(status or 500, reason_for(status or 500))
        return {"Code": status, "Reason": response.reason}

    async def _ask(
        self, call: Call, leg: Any, method: str, body: bytes, content_type: str, headers: str
    ) -> tuple[int, Response | None]:
        """Send a request, and wait for the final answer."""
        waited: Deferred[tuple[int, Response | None]] = Deferred()

        def answered(status: int, response: Response | None) -> None:
            if (status >= 200 or not status) and not waited.called:
                waited.callback((status, response))

        self.requests.send(
            call, leg, method, headers=headers, body=body, content_type=content_type if body else "", answer=answered
        )
        return await waited
