"""What every part of module dialog shares: its parameters, statistics and events, the database, and other modules' way in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from sipgw.db.writes import WriteQueue
from sipgw.exports import Module, event, every, param, requires, statistic
from sipgw.interfaces import Change, Database
from sipgw.modules.clusterer import Clusterer
from sipgw.modules.rr import Rr
from sipgw.modules.tm import Tm
from sipgw.proxy.dialog_records import Records
from sipgw.proxy.dialog_requests import InDialog
from sipgw.proxy.dialog_rows import COLUMNS, VERSION, DelayedStore, DialogRows, RealtimeStore, usual_row
from sipgw.proxy.dialog_sharing import DialogSharing
from sipgw.proxy.dialogs import Call, Listener, Profile, State
from sipgw.proxy.following import DID_NONE, Follower, Settings
from sipgw.proxy.profile_counts import ProfileCounts
from sipgw.proxy.shared_profiles import SharedProfiles
from sipgw.script.run import Run

NO_DB, REALTIME, DELAYED, SHUTDOWN = range(4)
STOP_PATIENCE = 60.0
"""Seconds that a server that stops waits for the database to take its dialogs."""

_profile = re.compile(r"[A-Za-z0-9_-]+").fullmatch


def parse_profiles(text: str) -> list[Profile]:
    """The profiles in ``one; two; three``."""
    found = []
    for part in text.split(";"):
        name, slash, shared = part.strip().partition("/")
        if not name and not slash:
            continue
        if not _profile(name.strip()):
            raise ValueError(f"{part.strip()!r} is no name of a profile: letters, digits, - and _ make one")
        if slash and shared.strip() not in ("s", "b"):
            why = "there is no such flag; /s shares a profile through cachedb_url, /b with the servers of a cluster"
            raise ValueError(f"{part.strip()!r}: {why}")
        found.append(Profile(name.strip(), False, shared.strip()))
    return found


def one_of(*values: int) -> Any:
    """A check that refuses every other value."""

    def check(value: int) -> None:
        if value not in values:
            raise ValueError(f"write one of {', '.join(map(str, values))}")

    return check


def positive(value: int) -> None:
    """Refuse a number below 1."""
    if value < 1:
        raise ValueError("it must be at least 1")


def not_negative(value: int) -> None:
    """Refuse a number below 0."""
    if value < 0:
        raise ValueError("it must be 0 or the number of a cluster")


def whole_lines(text: str) -> None:
    """Refuse header lines that are none."""
    if text and not re.fullmatch(r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*:[^\r\n\0]*\r\n)+", text):
        raise ValueError(r"write whole header lines, each with \r\n at its end")


def _column(name: str) -> Any:
    return param(name, f"The column {name}")


class DialogBase(Module):
    """The dialogs of one server."""

    tm: Tm = requires("tm")
    rr: Rr | None = requires("rr", optional=True)
    clusterer: Clusterer | None = requires("clusterer", optional=True)

    enable_stats: int = param(1, "Count", unused="statistics are plain integers and always counted")
    hash_size: int = param(4096, "Size of the hash table", unused="dialogs are in a dict, which grows by itself")
    log_profile_hash_size: int = param(4, "Size of the hash table of a profile", unused="profiles are dicts")
    timer_bulk_del_no: int = param(1, "Rows deleted at a time", unused="all that have piled up are deleted together")
    rr_param: str = param("did", "The parameter of our Record-Route that names the dialog")
    default_timeout: int = param(43200, "Seconds that a call may last unless $DLG_timeout says otherwise", check=positive)
    options_ping_interval: int = param(30, "Seconds between OPTIONS pings", check=positive)
    reinvite_ping_interval: int = param(300, "Seconds between re-INVITE pings", check=positive)
    delete_delay: int = param(0, "Seconds for which a dialog that is over is kept, to match late requests")
    dlg_extra_hdrs: str = param("", "Header lines for the BYEs that the module sends", check=whole_lines)
    dlg_match_mode: int = param(
        1, "How requests find their dialog: 0 by the parameter of Route, 1 by that or else Call-ID and tags, 2 by these alone",
        check=one_of(0, 1, 2),
    )
    race_condition_timeout: int = param(5, "Seconds until a call ends that was answered while cancelled (end-on-race-condition)")
    auto_prack_hangup_on_failure: int = param(0, "Whether an INVITE is answered 502 if a PRACK of auto-prack fails: 0 or 1")
    auto_prack_fr_timeout: int = param(3, "Seconds to wait for the answer to a PRACK of auto-prack", check=positive)
    profiles_with_value: str = param(
        "", "Names of profiles with values: 'caller; gateway'", check=parse_profiles, each="_with_value"
    )
    profiles_no_value: str = param("", "Names of profiles without values", check=parse_profiles, each="_no_value")

    cachedb_url: str = param("", "The key-value store in which profiles with /s are counted: 'redis://127.0.0.1/'")
    profile_value_prefix: str = param("dlg_val_", "The prefix of keys of values")
    profile_no_value_prefix: str = param("dlg_noval_", "The prefix of keys of profiles without values")
    profile_size_prefix: str = param("dlg_size_", "The prefix of keys of the sizes of profiles with values")
    profile_timeout: int = param(86400, "Seconds for which such a counter lives after the last change", check=positive)

    dialog_replication_cluster: int = param(
        0, "The cluster (of module clusterer) whose servers share all dialogs; 0: none", check=not_negative
    )
    profile_replication_cluster: int = param(
        0, "The cluster whose servers count profiles with /b together, each its own calls; 0: none", check=not_negative
    )
    replicate_profiles_timer: int = param(200, "Milliseconds after which the others are told of changed counts", check=positive)
    replicate_profiles_expire: int = param(10, "Seconds for which what another server counts holds", check=positive)
    replicate_profiles_check: int = param(
        10, "Seconds between looks for counts that are too old", unused="counts that are too old are never added"
    )
    replicate_profiles_buffer: int = param(
        1400, "Octets of a packet with counts", unused="what a server counts is told by way of Redis, in one message"
    )
    cluster_auto_sync: int = param(
        1, "Whether the dialogs of the cluster are read anew by themselves when Redis or a server comes back; "
        "0: by dialog:cluster_sync only"
    )

    db_url: str = param("", "The database of the dialogs; if empty db_default_url")
    db_mode: int = param(
        0, "When dialogs are written there: 0 never, 1 at once, 2 every db_update_period, 3 when the server stops",
        check=one_of(NO_DB, REALTIME, DELAYED, SHUTDOWN),
    )
    db_update_period: int = param(60, "Seconds between the writes of db_mode 2", check=positive)
    db_flush_vals_profiles: int = param(
        0, "With 1 a change of $dlg_val, a profile or a flag is itself written; else it is with the next change of the dialog"
    )
    table_name: str = param("dialog", "The table of the dialogs")
    dlg_id_column: str = _column("dlg_id")
    call_id_column: str = _column("callid")
    from_uri_column: str = _column("from_uri")
    from_tag_column: str = _column("from_tag")
    to_uri_column: str = _column("to_uri")
    to_tag_column: str = _column("to_tag")
    state_column: str = _column("state")
    start_time_column: str = _column("start_time")
    timeout_column: str = _column("timeout")
    to_cseq_column: str = _column("callee_cseq")
    from_cseq_column: str = _column("caller_cseq")
    to_route_column: str = _column("callee_route_set")
    from_route_column: str = _column("caller_route_set")
    to_contact_column: str = _column("callee_contact")
    from_contact_column: str = _column("caller_contact")
    to_sock_column: str = _column("callee_sock")
    from_sock_column: str = _column("caller_sock")
    profiles_column: str = _column("profiles")
    vars_column: str = _column("vars")
    sflags_column: str = _column("script_flags")
    mflags_column: str = _column("module_flags")
    flags_column: str = _column("flags")

    active_dialogs = statistic("calls that have been answered and go on")
    early_dialogs = statistic("calls that ring")
    processed_dialogs = statistic("dialogs made since the start")
    expired_dialogs = statistic("calls whose time was over")
    failed_dialogs = statistic("calls that were never answered")
    create_sent = statistic("dialogs that the cluster was told of")
    update_sent = statistic("changes of dialogs that the cluster was told of")
    delete_sent = statistic("ends of dialogs that the cluster was told of")
    create_recv = statistic("dialogs that another server has told of")
    update_recv = statistic("changes of dialogs that another server has told of")
    delete_recv = statistic("ends of dialogs that another server has told of")

    state_changed = event(
        "E_DLG_STATE_CHANGED", "id", "db_id", "callid", "from_tag", "to_tag", "old_state", "new_state"
    )

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._profiles: list[Profile] = []
        super().__init__(server, **parameters)
        self.follower: Follower = None  # type: ignore[assignment]  # made by start
        self.requests: InDialog = None  # type: ignore[assignment]
        self.database: Database | None = None
        self.writes: WriteQueue | None = None
        self.rows: DialogRows | None = None
        self.shared: SharedProfiles | None = None
        self.sharing: DialogSharing | None = None
        self.counts: ProfileCounts | None = None

    def _with_value(self, text: str) -> None:
        self._profiles += [profile._replace(has_value=True) for profile in parse_profiles(text)]

    def _no_value(self, text: str) -> None:
        self._profiles += parse_profiles(text)

    async def profile_size(self, name: str, value: str | None) -> int:
        """How many calls are in a profile; ``CacheError`` if others count it and cannot be asked."""
        profile = self.follower.profiles.known[name]
        if profile.shared == "s" and self.shared is not None:
            return await self.shared.size(name, value, profile.has_value)
        if profile.shared == "b" and self.counts is not None:
            value = value if profile.has_value else None
            own = self._own_counts().get(name, {})
            return (sum(own.values()) if value is None else own.get(value, 0)) + self.counts.others(name, value)
        return self.follower.profiles.size(name, value)

    def profile_values(self, name: str) -> dict[str, int]:
        """The values of a profile that is not in a cache, each with how many calls have it."""
        if self.follower.profiles.known[name].shared != "b" or self.counts is None:
            return dict(self.follower.profiles.values(name))
        found = self.counts.values(name)
        for value, count in self._own_counts().get(name, {}).items():
            found[value] = found.get(value, 0) + count
        return found

    def _own_counts(self) -> Mapping[str, Mapping[str, int]]:
        """What this server counts in the profiles that are counted together: the calls that it owns."""
        profiles = self.follower.profiles
        if self.sharing is None:
            return {name: profiles.values(name) for name, profile in profiles.known.items() if profile.shared == "b"}
        counts: dict[str, dict[str, int]] = {}
        for call in self.follower.calls:
            if call.profiles and self.sharing.owns(call):
                for name, value in call.profiles:
                    if profiles.known[name].shared == "b":
                        values = counts.setdefault(name, {})
                        values[value] = values.get(value, 0) + 1
        return counts

    def _own_shared(self) -> Iterable[tuple[str, str | None]]:
        """What the calls that this server owns are in of the profiles that are counted in a cache."""
        known = self.follower.profiles.known
        for call in self.follower.calls:
            if call.profiles and self.sharing is not None and self.sharing.owns(call):
                for name, value in call.profiles:
                    if known[name].shared == "s":
                        yield name, value if known[name].has_value else None

    # -- for other modules

    def on_created(self, listener: Listener) -> None:
        """Let ``listener("created", call, run, None)`` hear of each new dialog; from a module's ``start``."""
        self.follower.on_created.append(listener)

    def on_loaded(self, listener: Listener) -> None:
        """Let ``listener("loaded", call, None, None)`` hear of the dialogs that come from the database; they come when all
        modules have started, and those that are there already are told at once."""
        self.follower.on_loaded.append(listener)
        for call in tuple(self.follower.calls):
            if call.restored:
                listener("loaded", call, None, None)

    # -- start and stop

    async def start(self) -> None:
        """Be ready to follow calls; go on with those in the database."""
        user = self.server.user
        settings = Settings(
            self.rr_param, self.dlg_match_mode, self.default_timeout, self.options_ping_interval, self.reinvite_ping_interval,
            self.delete_delay, self.race_condition_timeout, self.dlg_extra_hdrs, self.rr is not None,
        )
        counters = SimpleNamespace(
            active=self.active_dialogs, early=self.early_dialogs, processed=self.processed_dialogs,
            expired=self.expired_dialogs, failed=self.failed_dialogs,
        )
        self.follower = Follower(user, self.tm, settings, counters, self._changed)
        self.requests = self.follower.requests = InDialog(self.follower, self.tm)
        self.requests.prack_timeout = self.auto_prack_fr_timeout
        self.requests.prack_decides = bool(self.auto_prack_hangup_on_failure)
        for profile in self._profiles:
            self.follower.profiles.declare(profile)
        if self.rr is not None:
            self.rr.on_route.append(self._routed)
        shared = [profile.name for profile in self._profiles if profile.shared == "s"]
        if shared and not self.cachedb_url:
            raise ValueError(f"dialog: the profile {shared[0]}/s needs a cachedb_url")
        if self.cachedb_url:
            self.shared = SharedProfiles(
                user, await user.caches.open(self.cachedb_url), self.profile_value_prefix, self.profile_no_value_prefix,
                self.profile_size_prefix, self.profile_timeout,
            )
            self.follower.profiles.shared = self.shared.count
        if self.db_mode != NO_DB:
            await self._open_database()
        await self._join()

    async def _join(self) -> None:
        """Share dialogs and counts with the servers of the clusters."""
        user = self.server.user
        if not self.dialog_replication_cluster and not self.profile_replication_cluster:
            return
        if self.clusterer is None:
            raise ValueError('dialog: sharing with a cluster needs loadmodule "clusterer.so"')
        if self.dialog_replication_cluster:
            records = Records(self.follower.profiles, user.wall_clock, user.clock, user.find_socket)
            counted = SimpleNamespace(
                processed=self.processed_dialogs, create_sent=self.create_sent, update_sent=self.update_sent,
                delete_sent=self.delete_sent, create_recv=self.create_recv, update_recv=self.update_recv,
                delete_recv=self.delete_recv,
            )
            meeting = await self.clusterer.join(self.dialog_replication_cluster)
            sharing = DialogSharing(self.follower, meeting, records, counted, bool(self.cluster_auto_sync))
            self.sharing = self.follower.sharing = sharing
            self.requests.ours = sharing.pings
            if self.shared is not None and self.shared.store is meeting.redis:
                shared = self.shared
                meeting.on_forgotten.append(
                    lambda: shared.forgotten(self._own_shared, meeting.born + meeting.life + 1)
                )
            await sharing.start()
        if self.profile_replication_cluster and self.profile_replication_cluster != self.dialog_replication_cluster:
            meeting = await self.clusterer.join(self.profile_replication_cluster)
            every = self.replicate_profiles_timer / 1000
            self.counts = ProfileCounts(user, meeting, self._own_counts, every, self.replicate_profiles_expire)
            await self.counts.start()

    async def stop(self) -> None:
        """Write what is left to be written; calls that nobody will know of any more are counted no longer."""
        if self.counts is not None:
            self.counts.stop()
        if self.sharing is not None:
            await self.sharing.stop()
        elif self.db_mode == NO_DB and self.follower is not None:
            for call in tuple(self.follower.calls):
                self.follower.profiles.leave_all(call)
        if self.writes is not None:
            for call in tuple(self.follower.unsaved):
                self.follower.save(call)
            store = self.follower.store
            if isinstance(store, DelayedStore):
                store.flush()
            await self.writes.close(STOP_PATIENCE)

    async def _open_database(self) -> None:
        user = self.server.user
        self.database = await self.server.databases.open(self.db_url)
        await self.server.databases.check(self.database, self.table_name, VERSION)
        columns = dict.fromkeys(COLUMNS, "")
        columns = {usual: usual for usual in columns} | {
            getattr(type(self), name).default: getattr(self, name)
            for name in self.exports.parameters
            if name.endswith("_column")
        }
        self.rows = DialogRows(
            self.table_name, columns, self.follower.profiles, user.wall_clock, user.clock, user.find_socket
        )
        self.writes = WriteQueue(self.database, user, self._lost)
        self.follower.store = (RealtimeStore if self.db_mode == REALTIME else DelayedStore)(self.rows, self.writes)
        await self.load()
        if self.db_mode == DELAYED:
            self._flush()

    def _flush(self) -> None:
        store = self.follower.store
        if isinstance(store, DelayedStore):
            store.flush()
        self.server.user.after(self.db_update_period, lambda _now: self._flush())

    def _lost(self, changes: Sequence[Change], reason: str) -> None:
        for change in changes:
            self.server.user.log_rarely("dialog rows", -1, f"dialog: a row is not written ({change.kind}): {reason}")

    async def load(self) -> int:
        """Take over the dialogs of the database that are not here, and what it knows better of the others; how many are new."""
        assert self.database is not None and self.rows is not None
        rows = await self.database.select(self.table_name, tuple(self.rows.columns.values()))
        count = 0
        for row in rows:
            try:
                usual = usual_row(self.rows.columns, rows.columns, row)
                known = self.follower.calls.by_number(int(usual["dlg_id"]))
                if known is not None:
                    state = self.rows.refresh(known, usual)
                    if state is not None:
                        self.follower.updated(known, state)
                    continue
                call = self.rows.read(usual)
            except (ValueError, TypeError, KeyError) as error:
                self.server.user.log_rarely("dialog rows", -1, f"dialog: a row of {self.table_name} cannot be read: {error}")
                continue
            if call is not None:
                self.follower.loaded(call)
                count += 1
        return count

    # -- what happens

    def _routed(self, run: Run, params: str) -> None:
        """Match a request that ``loose_route`` has routed."""
        self.follower.match(run, self.dlg_match_mode)

    def _changed(self, call: Call, before: State, after: State) -> None:
        if self.state_changed.heard:
            self.state_changed.emit(
                id=call.did, db_id=str(call.number), callid=call.call_id, from_tag=call.caller.tag, to_tag=call.winner.tag,
                old_state=int(before), new_state=int(after),
            )

    @every(10)
    def sweep(self) -> None:
        """End dialogs whose INVITE came to nothing."""
        self.follower.sweep()

    def flush_call(self, call: Call) -> None:
        """A value, a profile or a flag has changed."""
        self.follower.tell_others(call)
        if self.db_flush_vals_profiles:
            self.follower.save(call)
        elif self.follower.store is not None and State.ANSWERED <= call.state < State.DELETED:
            self.follower.unsaved[call] = None


__all__ = ["DID_NONE", "DialogBase"]
