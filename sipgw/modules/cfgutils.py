"""The module cfgutils: chance, waiting, locks, shared variables, time and other useful things for scripts.

``sleep`` and ``usleep`` and a lock that is taken let this run wait, and nothing else. Where OpenSIPS lets keys share the locks of
a pool, so that two keys may block one another, each key has a lock of its own here."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Annotated, Any

from twisted.internet.defer import Deferred

from sipgw.core.locks import Locks
from sipgw.core.measures import memory_limit, most_resident, resident
from sipgw.core.recurrence import Times, parse
from sipgw.core.shared import SharedVariables
from sipgw.exports import (
    BRANCH,
    EVENT,
    FAILURE,
    LOCAL,
    ONREPLY,
    REQUEST,
    STARTUP,
    TIMER,
    ArgumentKind,
    Avp,
    Constant,
    Module,
    Readable,
    Writable,
    function,
    listed,
    mi,
    param,
    pvar,
)
from sipgw.interfaces import Server
from sipgw.mi.commands import coerce
from sipgw.mi.jsonrpc import MIError
from sipgw.script.run import Run

EVERYWHERE = REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL | STARTUP | TIMER | EVENT
MAX_INT = 0x7FFFFFFF
MAX_PARSED = 500
"""How many time recurrences are remembered in parsed form."""

TIMES: dict[str, Callable[[time.struct_time], int]] = {
    "sec": lambda at: at.tm_sec,
    "min": lambda at: at.tm_min,
    "hour": lambda at: at.tm_hour,
    "mday": lambda at: at.tm_mday,
    "mon": lambda at: at.tm_mon,
    "year": lambda at: at.tm_year,
    "wday": lambda at: (at.tm_wday + 1) % 7 + 1,
    "yday": lambda at: at.tm_yday,
    "isdst": lambda at: at.tm_isdst,
}
"""What ``$ctime`` knows; days of the week count from Sunday, 1."""


def check_probability(value: int) -> None:
    """Refuse what is no percentage."""
    if not 0 <= value <= 100:
        raise ValueError(f"{value} is no probability: write 0 to 100")


def check_wait(value: int) -> None:
    """Refuse a negative time."""
    if value < 0:
        raise ValueError("a time to wait is not negative")


def check_time_name(name: str) -> None:
    """Refuse what ``$ctime`` does not know."""
    if name not in TIMES:
        raise ValueError(f"$ctime knows no {name!r}: write one of {', '.join(TIMES)}")


def read_setting(text: str) -> tuple[str, int | str]:
    """Cut ``name=i:5`` or ``name=s:text``; ``ValueError`` if it is neither."""
    name, equals, rest = text.partition("=")
    kind, value = rest[:2], rest[2:]
    if not name or not equals or kind not in ("i:", "s:"):
        raise ValueError(f"bad value {text!r}: write name=i:5 or name=s:text")
    if kind == "s:":
        return name, value
    try:
        return name, int(value)
    except ValueError:
        raise ValueError(f"bad value {text!r}: {value!r} is no number") from None


class Cfgutils(Module):
    """Chance, waiting, locks, shared variables, time."""

    initial_probability: int = param(10, "The probability of rand_event() at first, in percent", check=check_probability)
    hash_file: str = param("", "A file whose changes the commands *_config_hash tell")
    shvset: str = param("", "The first value of a $shv: name=i:5 or name=s:text", check=read_setting, each="_set_shared")
    varset: str = param("", "The first value of a $var: name=i:5 or name=s:text", check=read_setting, each="_set_variable")
    shv_hash_size: int = param(64, "The size of the table of $shv", unused="it grows as it needs")
    lock_pool_size: int = param(32, "How many dynamic locks there are", unused="each key has a lock of its own")

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        self.shared = SharedVariables()
        self._variables: dict[str, int | str] = {}
        self._parsed: dict[str, Times] = {}
        self._hash = ""
        super().__init__(server, **parameters)

    def _set_shared(self, text: str) -> None:
        self.shared.set(*read_setting(text))

    def _set_variable(self, text: str) -> None:
        name, value = read_setting(text)
        self._variables[name] = value

    async def start(self) -> None:
        """Set what begins with a value; take the hash of the file."""
        self.probability = self.initial_probability
        self._static, self._dynamic = Locks(self.server.later), Locks(self.server.later)
        self.server.user.startup_vars.update(self._variables)
        if self.hash_file:
            self._hash = _hash_of(self.hash_file)

    # -- chance

    @function(EVERYWHERE)
    def rand_set_prob(self, run: Run, probability: Annotated[int, check_probability]) -> None:
        """Set the probability of ``rand_event``, in percent."""
        self.probability = probability

    @function(EVERYWHERE)
    def rand_reset_prob(self, run: Run) -> None:
        """Set the probability back to ``initial_probability``."""
        self.probability = self.initial_probability

    @function(EVERYWHERE)
    def rand_get_prob(self, run: Run) -> int:
        """The probability, in percent. COMPAT: 0, as any function's, ends the script."""
        return self.probability

    @function(EVERYWHERE)
    def rand_event(self, run: Run, probability: Annotated[int, check_probability] | None = None) -> bool:
        """True in so many of a hundred calls."""
        return random.random() * 100 < (self.probability if probability is None else probability)

    @pvar("RANDOM")
    def random_number(self, run: Run) -> int:
        """``$RANDOM``: a random number from 0 to 2^31 - 1."""
        return random.getrandbits(31)

    @function(EVERYWHERE)
    def set_select_weight(self, run: Run, int_list_var: Readable) -> int:
        """The index of one of the variable's values, each as likely as it is big; -1 if they are not numbers, or none is above 0.

        COMPAT: index 0, as any function's 0, ends the script."""
        values = listed(int_list_var, run)
        weights = [max(value, 0) for value in values if isinstance(value, int)]
        if len(weights) < len(values) or not any(weights):
            run.user.log(-1, "set_select_weight: the values are not numbers, or none is above 0")
            return -1
        return random.choices(range(len(weights)), weights)[0]

    @function()
    def shuffle_avps(self, run: Run, name: Avp) -> None:
        """Put the values of an AVP into random order."""
        values = listed(name, run)
        for _ in values:
            name.set(run, None)
        random.shuffle(values)
        for value in values:
            name.set(run, value)

    # -- waiting

    @function(EVERYWHERE)
    async def sleep(self, run: Run, time: Annotated[int, check_wait]) -> bool:
        """Let this run wait so many seconds."""
        return await self._wait(run, "sleep", time)

    @function(EVERYWHERE)
    async def usleep(self, run: Run, time: Annotated[int, check_wait]) -> bool:
        """Let this run wait so many microseconds."""
        return await self._wait(run, "usleep", time / 1_000_000)

    async def _wait(self, run: Run, what: str, seconds: float) -> bool:
        if seconds < 0:
            run.user.log(-1, f"{what}: a time to wait is not negative")
            return False
        fired: Deferred[None] = Deferred()
        self.server.later(seconds, lambda: fired.callback(None))
        await fired
        return True

    @function(EVERYWHERE)
    async def get_static_lock(self, run: Run, key: Constant) -> bool:
        """Hold the lock of ``key``, waiting until it is free; false if this run holds it, or it did not become free in time."""
        return await self._lock(run, self._static, "get_static_lock", key)

    @function(EVERYWHERE)
    async def get_dynamic_lock(self, run: Run, key: str) -> bool:
        """The same where the key is made by the script; these locks have nothing to do with the static ones."""
        return await self._lock(run, self._dynamic, "get_dynamic_lock", key)

    async def _lock(self, run: Run, locks: Locks, what: str, key: str) -> bool:
        got = await locks.acquire(key, run)
        if not got:
            run.user.log_rarely((what, key), -1, f"{what}: {key!r} was not given back in time, or is held by this very run")
        return got

    @function(EVERYWHERE)
    def release_static_lock(self, run: Run, key: Constant) -> None:
        """Give the lock of ``key`` back, whoever took it."""
        self._static.release(key)

    @function(EVERYWHERE)
    def release_dynamic_lock(self, run: Run, key: str) -> None:
        """Give the lock of ``key`` back, whoever took it."""
        self._dynamic.release(key)

    @function(EVERYWHERE)
    def strings_share_lock(self, run: Run, key1: str, key2: str | None = None) -> bool:
        """Whether two keys have the same dynamic lock: only if they are the same.

        COMPAT: OpenSIPS's manual has two keys, its table of functions in 4.x one; with one there is nothing to compare."""
        return key1 == key2

    # -- shared variables

    @pvar("shv", named=True, set="set_shv")
    def shv(self, run: Run, name: str) -> int | str:
        """``$shv(name)``: a variable that all messages see; 0 if nobody has set it."""
        return self.shared.get(name)

    def set_shv(self, run: Run, name: str, value: int | str | None) -> bool:
        """``$shv(name) = ...``; null sets it to 0."""
        if self.shared.set(name, 0 if value is None else value):
            return True
        run.user.log_rarely("shv", -1, f"$shv({name}) is not set: there are too many")
        return False

    @mi()
    def shv_get(self, name: str | None = None) -> Any:
        """Gives a shared variable, or all of them."""
        if name is None:
            return [[{"name": key, **_described(value)} for key, value in self.shared.items()]]
        if name not in self.shared:
            raise MIError(404, "Not found")
        return {"VAR": _described(self.shared.get(name))}

    @mi()
    def shv_set(self, name: str, type: str, value: Any) -> None:
        """Sets a shared variable; type: int or str."""
        kind = ArgumentKind.INT if type == "int" else ArgumentKind.STR
        if not self.shared.set(name, coerce("value", value, kind)):
            raise MIError(500, "Too many variables")

    @mi("rand_set_prob")
    def set_probability(self, prob_proc: int) -> None:
        """Sets the probability of rand_event(), in percent."""
        if not 0 <= prob_proc <= 100:
            raise MIError(400, "Bad parameter value")
        self.probability = prob_proc

    @mi("rand_reset_prob")
    def reset_probability(self) -> None:
        """Sets the probability of rand_event() back to its first value."""
        self.probability = self.initial_probability

    @mi("rand_get_prob")
    def get_probability(self) -> dict[str, int]:
        """Gives the probability of rand_event(), in percent."""
        return {"actual probability percent": self.probability}

    # -- time

    @function(EVERYWHERE)
    def get_accurate_time(self, run: Run, sec: Writable, usec: Writable, str_sec_usec: Writable | None = None) -> None:
        """Give the variables the time: seconds since 1970, microseconds, and both as a text."""
        now = int(run.user.wall_clock() * 1_000_000)
        seconds, microseconds = divmod(now, 1_000_000)
        sec.set(run, seconds)
        usec.set(run, microseconds)
        if str_sec_usec is not None:
            str_sec_usec.set(run, f"{seconds}.{microseconds:06}")

    @function(EVERYWHERE)
    def ts_usec_delta(
        self,
        run: Run,
        t1_sec: int,
        t1_usec: int,
        t2_sec: int,
        t2_usec: int,
        delta_str: Writable | None = None,
        delta_int: Writable | None = None,
    ) -> bool:
        """Give the variables the microseconds between two times, as text and number; false if that is no number of 31 bits."""
        delta = abs((t1_sec - t2_sec) * 1_000_000 + t1_usec - t2_usec)
        if delta_str is not None:
            delta_str.set(run, str(delta))
        if delta_int is not None:
            if delta > MAX_INT:
                run.user.log(-1, f"ts_usec_delta: {delta} is too big for a number, use delta_str")
                return False
            delta_int.set(run, delta)
        return True

    @function()
    def check_time_rec(self, run: Run, time_string: Annotated[str, parse], timestamp: int | None = None) -> int:
        """1 if the time, now or ``timestamp``, is within the time recurrence, -1 if it is not, -2 if that cannot be read."""
        times = self._parsed.get(time_string)
        if times is None:
            try:
                times = parse(time_string)
            except ValueError as error:
                run.user.log_rarely(("check_time_rec", time_string), -1, f"check_time_rec: {error}")
                return -2
            if len(self._parsed) >= MAX_PARSED:
                self._parsed.clear()
            self._parsed[time_string] = times
        try:
            return 1 if times.matches(run.user.wall_clock() if timestamp is None else timestamp) else -1
        except (OverflowError, ValueError, OSError):
            run.user.log_rarely("check_time_rec", -1, f"check_time_rec: there is no time {timestamp}")
            return -1

    @pvar("ctime", named=True, check=check_time_name)
    def ctime(self, run: Run, name: str) -> int | None:
        """``$ctime(year)``: a part of the local time."""
        part = TIMES.get(name)
        return None if part is None else part(time.localtime(run.user.wall_clock()))

    # -- the rest

    @pvar("env", named=True)
    def env(self, run: Run, name: str) -> str | None:
        """``$env(name)``: a variable of the environment; null if there is none."""
        try:
            return os.environ.get(name)
        except ValueError:
            return None

    @function(EVERYWHERE)
    def set_count(self, run: Run, var_to_count: Readable, ret_var: Writable) -> None:
        """Give ``ret_var`` the number of values that a variable has."""
        ret_var.set(run, len(listed(var_to_count, run)))

    @function(EVERYWHERE)
    def pkg_status(self, run: Run) -> None:
        """Log how much memory the process has."""
        _log_memory(run, "pkg_status")

    @function(EVERYWHERE)
    def shm_status(self, run: Run) -> None:
        """Log how much memory the process has: there is no other."""
        _log_memory(run, "shm_status")

    @function(EVERYWHERE)
    def abort(self, run: Run) -> None:
        """End the process at once, with a core dump if the system allows one."""
        run.user.log(-3, "abort: the script ends the process")
        os.abort()

    @mi()
    def get_config_hash(self) -> str:
        """Gives the MD5 hash that the file named by hash_file had at the start."""
        if not self._hash:
            raise MIError(404, "Functionality disabled")
        return self._hash

    @mi()
    def check_config_hash(self) -> str:
        """Tells whether that file is still the same."""
        if not self._hash:
            raise MIError(404, "Functionality disabled")
        try:
            now = _hash_of(self.hash_file)
        except OSError:
            raise MIError(500, "Internal error") from None
        if now != self._hash:
            raise MIError(400, "The actual config file hash is not identical to the stored one.")
        return "The actual config file hash is identical to the stored one."


def _hash_of(path: str) -> str:
    return md5(Path(path).read_bytes(), usedforsecurity=False).hexdigest()


def _described(value: int | str) -> dict[str, Any]:
    return {"type": "integer" if isinstance(value, int) else "string", "value": value}


def _log_memory(run: Run, what: str) -> None:
    kept = resident() // 1024, most_resident() // 1024, memory_limit() // 1024
    run.user.log(2, f"{what}: {kept[0]} kB in memory, {kept[1]} kB at most so far, {kept[2]} kB possible, gc {gc.get_count()}")
