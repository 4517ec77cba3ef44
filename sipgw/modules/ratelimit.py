"""ratelimit: how often something may happen, by *pipes* that scripts name and count in (``core/pipes.py``).

A pipe whose name ends in ``/r`` counts in the store of ``cachedb_url`` together with other machines: each adds what it counts and
takes its own part off when its interval ends, as OpenSIPS does, so that machines of both kinds may share one. While the store
cannot be asked a pipe counts for this machine alone. What nobody can take off any more (a machine was killed, or the store did
what we had given up waiting for) goes with its counter, which lasts for ``expire_time`` from its first use on."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

from sipgw.core.blacklists import python_glob
from sipgw.core.cachedb import CacheError, parse_url
from sipgw.core.pipes import ALGORITHMS, Feedback, Measure, Pipe, Pipes
from sipgw.exports import (
    BRANCH,
    ERROR,
    EVENT,
    FAILURE,
    LOCAL,
    ONREPLY,
    REQUEST,
    TIMER,
    Avp,
    Module,
    Regex,
    function,
    mi,
    param,
    pvar,
    requires,
)
from sipgw.mi.jsonrpc import INVALID_PARAMS, MIError
from sipgw.script.run import Run

WHERE = REQUEST | FAILURE | ONREPLY | BRANCH | ERROR | LOCAL | TIMER | EVENT

_SUFFIX = re.compile(r"/([rb]+)$")
_CLUSTER = "counters that machines replicate need a cluster protocol, not spoken (docs/decisions/0020): use cachedb_url"


def check_positive(value: int) -> None:
    """Refuse 0 and less."""
    if value < 1:
        raise ValueError("must be at least 1")


def check_algorithm(text: str) -> None:
    """Refuse what is no algorithm."""
    if text.upper() not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {text!r}: write {', '.join(ALGORITHMS)}")


class Ratelimit(Module):
    """Limits how often something happens, by names that the script gives."""

    later = {
        "pipe_replication_cluster": _CLUSTER,
        "repl_buffer_threshold": _CLUSTER,
        "repl_timer_interval": _CLUSTER,
        "repl_timer_expire": _CLUSTER,
        "bridge_replication": _CLUSTER,
        "bridge_repl_timer_interval": _CLUSTER,
        "bridge_repl_timer_expire": _CLUSTER,
    }

    cachedb_local: Any = requires("cachedb_local", optional=True)
    cachedb_redis: Any = requires("cachedb_redis", optional=True)
    cachedb_sql: Any = requires("cachedb_sql", optional=True)

    timer_interval: int = param(10, "Seconds of one interval of counting", check=check_positive)
    limit_per_interval: int = param(0, "1: limits of TAILDROP and RED are meant for an interval; 0: for a second")
    expire_time: int = param(3600, "Seconds after which a pipe that nobody uses is forgotten", check=check_positive)
    hash_size: int = param(1024, "Size of a hash table", unused="pipes are found in a table that grows by itself")
    default_algorithm: str = param("TAILDROP", "The algorithm of pipes for which none is named", check=check_algorithm)
    cachedb_url: str = param("", "The store in which pipes are counted whose name ends in /r")
    db_prefix: str = param("rl_pipe_", "What stands before the name of a pipe in that store")
    window_size: int = param(10, "Seconds of the window of SBT", check=check_positive)
    slot_period: int = param(200, "Milliseconds of one slot of that window", check=check_positive)

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.pipes = Pipes(Measure())
        self.feedback = Feedback()
        self._octets = 0
        self._storage = ""
        self._timer: Any = None
        self._settling = False
        self._times: tuple[int, int] | None = None

    async def start(self) -> None:
        """Begin to count."""
        self.pipes = Pipes(
            Measure(self.timer_interval, self.expire_time, self.window_size, self.slot_period, bool(self.limit_per_interval))
        )
        if self.cachedb_url:
            url = parse_url(self.cachedb_url)
            self._storage = f"{url.scheme}:{url.group}" if url.group else url.scheme
            self.server.user.caches.find(self._storage)
        self._times = processor_times()
        self._set_timer()

    async def stop(self) -> None:
        """Take our part off the common counters."""
        if self._timer is not None:
            self._timer.cancel()
        await self._settle()

    # -- in scripts

    @function(WHERE)
    async def rl_check(self, run: Run, name: str, limit: int, algorithm: str | None = None) -> bool:
        """Count one in the pipe ``name``, whose limit is ``limit`` from now on: false if that is too many.

        ``name/r`` is a pipe that machines share by ``cachedb_url``. ``algorithm`` counts for a pipe that is new. A limit is
        meant for a second (TAILDROP, RED; see ``limit_per_interval``), for a window (SBT), or is a number of octets (NETWORK)
        or a percentage (FEEDBACK)."""
        pipe = self._pipe(name, limit, algorithm, self.server.user.clock())
        return pipe is None or pipe.passes(await self._count(pipe), self._octets, self.feedback)

    @function(WHERE)
    async def rl_dec_count(self, run: Run, name: str) -> bool:
        """Count one less in the pipe ``name``; false if there is none."""
        return await self._less(run, "rl_dec_count", name, False)

    @function(WHERE)
    async def rl_reset_count(self, run: Run, name: str) -> bool:
        """Count anew in the pipe ``name``; false if there is none."""
        return await self._less(run, "rl_reset_count", name, True)

    @function()
    def rl_values(self, run: Run, ret_avp: Avp, regexp: Regex | None = None) -> None:
        """Add the names of all pipes to ``ret_avp``, or of those that ``regexp`` matches."""
        for pipe in self.pipes.all():
            if regexp is None or regexp.search(pipe.name):
                ret_avp.set(run, pipe.name)

    @pvar("rl_count", named=True)
    def rl_count(self, run: Run, name: str | None) -> int | None:
        """``$rl_count(name)``: the count of a pipe, null if there is none; of a shared one what the store last said."""
        pipe = self.pipes.find(name or "")
        if pipe is None:
            return None
        return pipe.total if pipe.shared else pipe.read(self.server.user.clock())

    # -- how it counts

    def _pipe(self, name: str, limit: int, algorithm: str | None, now: float) -> Pipe | None:
        """The pipe of that name, made now if it is new; None if the limit cannot be."""
        user = self.server.user
        suffix = _SUFFIX.search(name)
        flags = ""
        if suffix is not None:
            name, flags = name[: suffix.start()], suffix[1]
        wanted = (algorithm or self.default_algorithm).upper()
        if wanted not in ALGORITHMS:
            user.log_rarely("rl algorithm", -1, f"rl_check: unknown algorithm {algorithm!r}, {self.default_algorithm} counts")
            wanted = self.default_algorithm.upper()
        pipe = self.pipes.use(name, now)
        if pipe is None:
            if "b" in flags:
                user.log_rarely("rl cluster", 1, f"rl_check: pipe {name} counts alone: there is no cluster")
            shared = "r" in flags and wanted in ("TAILDROP", "RED")
            if "r" in flags and not (shared and self._storage):
                user.log_rarely("rl shared", 1, f"rl_check: pipe {name} counts alone: it needs cachedb_url, and TAILDROP or RED")
                shared = False
            if wanted == "FEEDBACK" and not self._may_be(limit):
                return None
            pipe = self.pipes.make(name, wanted, limit, shared, now)
        elif algorithm is not None and wanted != pipe.algorithm:
            user.log_rarely("rl other", 1, f"rl_check: pipe {name} is {pipe.algorithm} and stays so")
        if pipe.algorithm == "FEEDBACK":
            limit = self._common_limit(limit)
        pipe.limit = limit
        return pipe

    def _may_be(self, limit: int) -> bool:
        """Whether a first limit of FEEDBACK is a percentage."""
        if self.feedback.limit is None and not 0 < limit < 100:
            self.server.user.log_rarely("rl percent", -1, f"rl_check: a limit of FEEDBACK is a percentage, not {limit}")
            return False
        return True

    def _common_limit(self, limit: int) -> int:
        """The limit of FEEDBACK, which is that of the first pipe."""
        common = self.feedback.limit
        if common is None:
            common = self.feedback.limit = limit
        if common != limit:
            text = f"rl_check: all pipes of FEEDBACK have the same limit, {common}, not {limit}"
            self.server.user.log_rarely("rl limit", 1, text)
        return common

    async def _count(self, pipe: Pipe) -> int:
        count = pipe.add(self.server.user.clock())
        if pipe.shared:
            total = await self._change(pipe, 1)
            return count if total is None else total
        return count

    async def _change(self, pipe: Pipe, number: int) -> int | None:
        """Change our part of a shared counter; its value, None if the store cannot be asked."""
        user, key = self.server.user, self.db_prefix + pipe.name
        try:
            total: int = await user.caches.increase(self._storage, key, number)
            if total == number:  # it is new
                await user.caches.increase(self._storage, key, 0, self.expire_time)
        except CacheError as error:
            user.log_rarely("rl store", -1, f"ratelimit: {self._storage} does not count, each machine does for itself: {error}")
            return None
        pipe.own += number
        pipe.total = max(0, total)
        return total

    async def _less(self, run: Run, what: str, name: str, anew: bool) -> bool:
        now = self.server.user.clock()
        pipe = self.pipes.use(name, now)
        if pipe is None:
            run.user.log(-1, f"{what}: there is no pipe {name!r}")
            return False
        return await self._lower(pipe, now, anew)

    async def _lower(self, pipe: Pipe, now: float, anew: bool) -> bool:
        if anew:
            pipe.reset(now)
        else:
            pipe.take(now)
        if not pipe.shared:
            return True
        return not pipe.own or await self._change(pipe, -pipe.own if anew else -1) is not None

    # -- time

    def _set_timer(self) -> None:
        user = self.server.user
        self._timer = user.after(self.timer_interval - user.clock() % self.timer_interval, self._tick)

    def _tick(self, _now: float) -> None:
        """End an interval."""
        self._set_timer()
        user = self.server.user
        self.pipes.sweep(user.clock())
        found = (user.statistics.find(f"net:waiting_{transport}") for transport in ("udp", "tcp", "tls"))
        self._octets = sum(each.read() for each in found if each is not None)
        times = processor_times()
        if times is not None and self._times is not None and times[1] > self._times[1]:
            self.feedback.note((times[0] - self._times[0]) / (times[1] - self._times[1]))
        self._times = times
        if not self._settling:
            user.launch(self._settle())

    async def _settle(self) -> None:
        """Take our part of the interval that has ended off the common counters."""
        self._settling = True
        try:
            for pipe in self.pipes.all():
                if pipe.shared and (pipe.own or pipe.last or pipe.total):
                    await self._settle_one(pipe)
        finally:
            self._settling = False

    async def _settle_one(self, pipe: Pipe) -> None:
        caches, key = self.server.user.caches, self.db_prefix + pipe.name
        try:
            pipe.last = await caches.counter(self._storage, key) or 0
        except CacheError:
            return
        if not pipe.own:
            pipe.total = pipe.last
        elif (total := await self._change(pipe, -pipe.own)) is not None and total < 0:
            try:
                await caches.remove(self._storage, key)  # the store has lost what we added
            except CacheError:
                pass

    # -- management

    @mi("list", alias="rl_list", recipes=((), ("pipe",), ("filter",), ("filter_out",)))
    def list_pipes(self, pipe: str | None = None, filter: str | None = None, filter_out: str | None = None) -> dict[str, Any]:
        """Lists all pipes, one, or those that a shell pattern fits, or does not fit."""
        if pipe is not None:
            return {"Pipe": self._listed(self._found(pipe, "Pipe Not Found")), "drop_rate": self.feedback.rate}
        pipes = self.pipes.all()
        if filter is not None:
            glob = python_glob(filter)
            pipes = [each for each in pipes if fnmatchcase(each.name, glob)]
        elif filter_out is not None:
            glob = python_glob(filter_out)
            pipes = [each for each in pipes if not fnmatchcase(each.name, glob)]
        return {"Pipes": [self._listed(each) for each in pipes], "drop_rate": self.feedback.rate}

    def _found(self, name: str, reason: str = "Pipe not found") -> Pipe:
        pipe = self.pipes.find(name)
        if pipe is None:
            raise MIError(404, reason)
        return pipe

    def _listed(self, pipe: Pipe) -> dict[str, Any]:
        """A pipe as the list has it: ``counter`` is that of the last interval, of SBT that of the window."""
        count = pipe.read(self.server.user.clock())
        return {
            "id": pipe.name,
            "algorithm": pipe.algorithm,
            "limit": pipe.limit,
            "counter": pipe.last if pipe.window is None else count,
        }

    @mi(alias="rl_dump_pipe")
    def dump_pipe(self, pipe: str) -> dict[str, Any]:
        """Tells all that is known of a pipe; of SBT the counts of its window too."""
        found = self._found(pipe)
        now = self.server.user.clock()
        count = found.read(now)
        told: dict[str, Any] = {}
        if found.window is not None:
            newest = found.window.place(now)
            counts = [found.window.counts[newest - back] for back in range(len(found.window.counts))][::-1]
            told["Window"] = {
                "Buckets": [{"Index": index, "Count": each} for index, each in enumerate(counts)],
                "Window Size": len(counts),
                "Status": "OK",
                "Bucket Total": count,
            }
        told.update({"Pipe": found.name, "Algorithm": found.algorithm, "Counter": found.count, "Replication Nodes": []})
        told["Total"] = found.total if found.shared else count
        return told

    @mi(alias="rl_reset_pipe")
    async def reset_pipe(self, pipe: str) -> None:
        """Lets a pipe count anew."""
        if not await self._lower(self._found(pipe), self.server.user.clock(), True):
            raise MIError(500, "Internal error")

    @mi(alias="rl_set_pid")
    def set_pid(self, ki: Any, kp: Any, kd: Any) -> None:
        """Sets the three factors of FEEDBACK: of the sum of the errors, the error, its change."""
        try:
            self.feedback.ki, self.feedback.kp, self.feedback.kd = float(ki), float(kp), float(kd)
        except (TypeError, ValueError):
            raise MIError(INVALID_PARAMS, data="ki, kp and kd are numbers") from None

    @mi(alias="rl_get_pid")
    def get_pid(self) -> dict[str, dict[str, str]]:
        """Tells the three factors of FEEDBACK."""
        feedback = self.feedback
        return {"PID": {"ki": f"{feedback.ki:.3f}", "kp": f"{feedback.kp:.3f}", "kd": f"{feedback.kd:.3f}"}}


def processor_times(file: str = "/proc/stat") -> tuple[int, int] | None:
    """How long the machine's processors have been busy, and how long they have been there; None where nobody knows."""
    try:
        with open(file, encoding="ascii") as lines:
            times = [int(word) for word in lines.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    if len(times) < 5:
        return None
    return sum(times) - times[3] - times[4], sum(times)  # the fourth and fifth are idle time
