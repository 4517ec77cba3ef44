"""One running sipgw: the one place that knows every class (house 2.2).

``makeService`` builds a ``SipServer`` from the command line. What is wrong with the configuration is found before anything
starts: all faults are printed, and the process ends with status 1. Then, in this order: sockets are bound; the reactor runs;
modules start, each after those that it needs; the startup route runs; sockets are read. The end goes backwards.

SIGTERM and SIGINT end the process with status 0 within a second; SIGHUP reloads the routes."""

from __future__ import annotations

import atexit
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from inspect import isawaitable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from sipgw import __version__, interfaces
from sipgw.configuration import Configuration, Reading, SocketPlan, read_configuration, settings_of
from sipgw.core.events import run_alone
from sipgw.core.notify import Notifier
from sipgw.core.user import TransactionUser
from sipgw.db.databases import Engines
from sipgw.exports import Module
from sipgw.log import LEVELS, LONGEST, Consumer, LineObserver, LogFile, level_of, log, named, to_stream, to_syslog
from sipgw.log_json import JsonObserver
from sipgw.mi.commands import Commands
from sipgw.options import Options
from sipgw.script.errors import ScriptError, ScriptErrors
from sipgw.script.routes import Route, RouteSet
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind, Symbols
from sipgw.statistics import Statistics
from sipgw.transport.addresses import Sources, names_of
from sipgw.transport.resolver import Resolver
from sipgw.transport.stream import StreamSocket
from sipgw.transport.udp import UdpSocket

__all__ = ["Options", "SipServer", "makeService"]

STOP_TIME = 0.7
"""Seconds that the modules have together to stop."""


def makeService(options: Options) -> SipServer:
    """Make the server that the command line asks for; ends the process if the configuration has faults, or for ``--check``."""
    from twisted.internet import reactor

    assert options.reading is not None
    keep_steady(reactor)
    server = SipServer(options.reading, reactor, level=options["log-level"], defines=options["defines"])
    server.notifier = Notifier.of(os.environ)
    server.preprocessor = options["preprocessor"]
    server.json = bool(options["log-json"])
    server.ids = not options["no-call-ids"]
    server.user.folding.most = options["log-fold"]
    if options["database"]:
        server.settings["db_default_url"] = options["database"]
    if options["advertised"]:
        server.settings["advertised_address"] = options["advertised"]
    server.configure()
    if not server.configuration.faults and not options["check"]:
        server.bind()
    if server.configuration.faults or options["check"]:
        raise SystemExit(report(server.configuration))
    if options["log-file"]:
        server.log_to(options["log-file"])
    elif not options.logs_elsewhere():
        server.observer = server.make_observer(options.in_foreground())
    if server.json and server.observer is None:
        print("--log-json needs --log-file, or twistd -n, or syslog_enabled; and none of twistd's own logs", file=sys.stderr)
        raise SystemExit(1)
    return server


def keep_steady(reactor: Any) -> None:
    """Give the reactor a clock that nobody can set: Twisted's own is the time of day, and a step back of an hour would hold up
    every timer for that hour (F10)."""
    if reactor.seconds is time.time and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def report(configuration: Configuration) -> int:
    """Print faults and warnings with their lines, and what follows from them; the exit status."""
    faults = configuration.in_order()
    for remark in [*configuration.warnings, *faults]:
        print(remark.render(), file=sys.stderr)
    file = configuration.reading.file
    print(f"{file}: {_count(faults)}" if faults else f"{file}: no fault", file=sys.stderr)
    return 1 if faults else 0


def check(reading: Reading) -> int:
    """Build all that a server would be made of, and report; nothing is started and no socket opened."""
    server = SipServer(reading, None)
    server.configure()
    return report(server.configuration)


def _count(faults: Sequence[ScriptError]) -> str:
    return "1 fault" if len(faults) == 1 else f"{len(faults)} faults"


class SipServer(Service):
    """A SIP server with its modules, routes and sockets (``interfaces.Server``).

    ``level`` replaces the script's log levels, ``defines`` are what it reads as ``$argv``."""

    name = "sipgw"

    def __init__(
        self,
        reading: Reading,
        reactor: Any,
        *,
        level: int | None = None,
        defines: dict[str, str] | None = None,
        log: Callable[[int, str], None] = log,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.reading = reading
        self.reactor = reactor
        self.preprocessor: str | None = None
        self.arguments: list[str] = list(sys.argv)
        self.settings: dict[str, Any] = settings_of(reading.config)
        if self.settings["debug_mode"]:
            self.settings["log_level"] = 4
        if level is not None:
            self.settings["log_level"] = self.settings["xlog_level"] = level
        self._output = log
        get: Callable[[str], Any] = self.settings.get
        self.consumers = {
            "stderror": Consumer(get("stderror_level_filter") or 0),
            "syslog": Consumer(get("syslog_level_filter") or 0, int(not get("syslog_enabled"))),
            "event": Consumer(get("log_event_level_filter") or 0, int(not get("log_event_enabled"))),
        }
        self.log_taps: list[Callable[[int, str], None]] = []
        self._main = "stderror"
        """The consumer whose lines twisted.logger takes."""
        self._syslog: LineObserver | None = None
        self.statistics = Statistics()
        self._databases = Engines(self.settings, self.statistics)
        self.databases: interfaces.Databases = self._databases
        self._commands = Commands(self.write_log)
        self.commands: interfaces.Commands = self._commands
        self.modules: dict[str, Module] = {}
        clock: Any = time.monotonic if reactor is None else reactor.seconds
        later: Any = None if reactor is None else reactor.callLater
        self.user = TransactionUser(clock, wall_clock, self.write_log, self.settings, self.statistics, later)
        self.user.arguments = dict(defines or {})
        self.user.directory = os.path.dirname(os.path.abspath(reading.file))
        self.configuration = Configuration(reading, self)
        self.sockets: list[UdpSocket | StreamSocket] = []
        self.name_servers: list[tuple[str, int]] | None = None
        """Name servers to ask instead of those of ``/etc/resolv.conf``; for tests."""
        self.resolver: Resolver | None = None
        self.observer: Any = None
        self.log_file: LogFile | None = None
        self.json = False
        """Whether each line of the log is a JSON object."""
        self.ids = True
        """Whether lines name the call that is being handled."""
        self.notifier = Notifier()
        """Whoever started the process and wants to know how it is: systemd."""
        self.status = 0
        """The exit status of the process."""
        self._started: list[Module] = []
        self._periodic: list[LoopingCall] = []
        self._timer_routes: list[LoopingCall] = []
        self._reloading = DeferredLock()
        self._stopping = False

    @property
    def symbols(self) -> Symbols:
        """What the script may call and read, for modules that compile texts of their own (``script.compiler.compile_format``)."""
        return self.configuration.symbols

    # ---- before the start ----

    def configure(self) -> None:
        """Build modules and routes; ``configuration.faults`` says what is wrong."""
        self.configuration.build()
        for module in self.modules.values():
            self._commands.add(module)
        for host, port, subdomains in self.configuration.aliases:
            self.user.add_alias(host, port, subdomains=subdomains)
        if self.settings["mhomed"]:
            self.user.source_of = Sources(self.user.clock).toward
        self.user.routes = self.configuration.routes
        self.user.events.follow(self.user.routes)

    def bind(self) -> None:
        """Open the sockets, all or none; one that cannot be opened is a fault of the configuration."""
        for plan in self.configuration.sockets:
            made = self._socket(plan)
            try:
                made.open()
            except OSError as error:
                self.configuration.fault(plan.node, f"cannot listen on {made}: {error.strerror or error}")
            else:
                self.sockets.append(made)
        if self.configuration.faults:
            for each in self.sockets:
                each.stop()
            self.sockets.clear()
        for each in self.sockets:
            self.user.add_socket(each)
            for name in names_of(each.host) if self.settings["auto_aliases"] else ():
                self.user.add_alias(name, each.port)
        self.resolver = Resolver(self.user, self.reactor, servers=self.name_servers)
        self.user.resolve = self.resolver.resolve
        self.user.resolve_host = self.resolver.resolve_host

    def _socket(self, plan: SocketPlan) -> UdpSocket | StreamSocket:
        options: dict[str, Any] = {
            "advertised_host": plan.advertised_host,
            "advertised_port": plan.advertised_port,
            "tag": plan.node.tag,
            "tos": plan.tos,
            "reuse_port": "reuse_port" in plan.node.options,
            "allow_proxy": bool(plan.node.options & {"allow_proxy_protocol", "proxy_protocol"}),
            "send_proxy": bool(plan.node.options & {"send_proxy_protocol", "proxy_protocol"}),
        }
        if plan.transport == "udp":
            return UdpSocket(self.user, self.reactor, plan.host, plan.port, **options)
        protocol: Any = self.modules[f"proto_{plan.transport}"]
        options["settings"] = protocol.stream_settings(self.settings)
        return StreamSocket(self.user, self.reactor, plan.host, plan.port, **options)

    def make_observer(self, foreground: bool) -> LineObserver | None:
        """Where the log goes: stderr in the foreground; else syslog if the script says so, else where twistd puts it (None)."""
        if foreground:
            return self._observer(to_stream(stamped=not self.json), "stderror")
        if self.settings["syslog_enabled"]:
            self._main = "syslog"
            self.consumers["stderror"].muted = 1
            self.consumers["stderror"].absent = "a daemon has no stderr"
            return self._to_syslog()
        return None

    def _to_syslog(self) -> LineObserver:
        get = self.settings.get
        write = to_syslog(get("syslog_name") or "sipgw", str(get("syslog_facility")).upper())
        return self._observer(write, "syslog")

    def _observer(self, write: Callable[[int, str], None], consumer: str) -> LineObserver:
        kind = JsonObserver if self.json else LineObserver
        made = kind(write, self.settings["log_prefix"] or "", self.consumers[consumer])
        made.ids = self.ids
        return made

    def write_log(self, level: int, text: str) -> None:
        """Write a line wherever lines of ``level`` go; whoever calls has compared it with the level in force."""
        number = level_of(level)
        if self.log_taps:
            shown = named(text, sys._getframe(1)) if self.ids else text
            for tap in tuple(self.log_taps):
                tap(number, shown)
        consumers = self.consumers
        if consumers[self._main].takes(number):
            self._output(level, text)
        if self._main != "syslog" and consumers["syslog"].takes(number):
            if self._syslog is None:
                self._syslog = self._to_syslog()
            self._syslog({"opensips": number, "log_format": "{text}", "text": text.rstrip("\n")})
        if consumers["event"].takes(number):
            prefix = self.settings["log_prefix"]
            self.user.events.log_line(LEVELS[number][0], text.rstrip("\n")[:LONGEST], f"{prefix}:" if prefix else "")

    def log_to(self, name: str) -> None:
        """Write the log to the file ``name``; SIGUSR1 opens it anew."""
        self.log_file = LogFile(name, stamped=not self.json)
        self.observer = self._observer(self.log_file.write, "stderror")

    def setServiceParent(self, parent: Any) -> None:
        """Join twistd's application, and tell it where the log goes."""
        if self.observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.observer)  # type: ignore[no-untyped-call]
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    # ---- start ----

    def privilegedStartService(self) -> None:
        """Set what the script asks of the process."""
        if self.settings["workdir"]:
            os.chdir(str(self.settings["workdir"]))
        if self.settings["disable_core_dump"]:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        wanted = int(self.settings["open_files_limit"] or 0)
        if wanted > 0:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))

    def startService(self) -> None:
        """Begin once the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        self.reactor.callWhenRunning(self._run)

    def _run(self) -> None:
        self._take_signals()
        started = ensureDeferred(self.start())
        started.addCallbacks(self._runs, lambda failure: self._fail(f"sipgw cannot start: {failure.value!r}"))

    def _runs(self, _result: Any) -> None:
        """What the process does once it serves: what is there now stays, and is not looked at by the garbage collector again."""
        if self._stopping:
            return
        if os.geteuid() == 0:
            self.log(1, "sipgw runs as root: twistd -u USER -g GROUP leaves the privileges behind once the sockets are open")
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 1000)

    def _take_signals(self) -> None:
        """Handle signals ourselves: the reactor has just installed its own handlers, with which twistd ends by the signal."""

        def end(_number: int, _frame: Any) -> None:
            self.reactor.callFromThread(self.stop)

        def reload(_number: int, _frame: Any) -> None:
            self.reactor.callFromThread(self._reload)

        def reopen(_number: int, _frame: Any) -> None:
            if self.log_file is not None:
                self.reactor.callFromThread(self.log_file.reopen)

        if self.log_file is not None:
            signal.signal(signal.SIGUSR1, reopen)
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGHUP, reload)

    async def start(self) -> None:
        """Start the modules, run the startup route, read the sockets."""
        self.user.status.initializing()
        for note in self.configuration.notes:
            self.log(3, note)
        for warning in self.configuration.warnings:
            self.log(1, str(warning))
        for module in self.modules.values():
            try:
                await module.start()
            except Exception as error:
                self._fail(f"module {module.name} cannot start: {error}")
                return
            self._started.append(module)
            if self._stopping:
                return
        if self.user.routes.startup is not None:
            self.user.startup_vars = (await self._run_route(self.user.routes.startup)).vars
        self.user.status.running()
        for each in self.sockets:
            each.start()
        self._start_periodic()
        self.log(2, f"sipgw {__version__} listens on {', '.join(map(str, self.user.sockets))}")
        self._tell_ready()

    def _tell_ready(self) -> None:
        if self.user.status.core.ready:
            self.notifier.ready(f"listens on {', '.join(map(str, self.user.sockets))}")

    def log(self, level: int, text: str) -> None:
        """Write one line, if the level in force lets it through."""
        self.user.log(level, text)

    def _start_periodic(self) -> None:
        for module in self.modules.values():
            for seconds, call in module.periodic():
                self._periodic.append(self._each(seconds, call))
        if self.notifier.watchdog:
            self.notifier.alive()
            self._periodic.append(self._each(self.notifier.watchdog / 3, self.notifier.alive))
        self._start_timer_routes()

    def _start_timer_routes(self) -> None:
        for route in self.user.routes.timers:
            self._timer_routes.append(self._each(route.interval, partial(self._run_route, route)))

    def _each(self, seconds: float, call: Callable[[], Any]) -> LoopingCall:
        """Call each so many seconds; never twice at once, and what it raises ends only that one."""

        async def once() -> None:
            try:
                result = call()
                if isawaitable(result):
                    await result
            except Exception as error:
                self.user.broken(error)

        loop = LoopingCall(lambda: ensureDeferred(once()))
        loop.clock = self.reactor
        loop.start(seconds, now=False)
        return loop

    def _run_route(self, route: Route) -> Deferred[Run]:
        """Run a route that no message has begun; fires at its end, with the run."""
        ended: Deferred[Run] = Deferred()
        run = run_alone(route, self.user)
        if route.kind is RouteKind.STARTUP:
            run.vars = dict(self.user.startup_vars)
        self.user.execute(route, run, lambda _result: ended.callback(run))
        return ended

    def _fail(self, text: str) -> None:
        """Give up a start: log why, and end with status 1."""
        self.user.log(-3, text)
        self.notifier.failed(text)
        self.status = 1
        self.stop()

    # ---- in between ----

    def later(self, seconds: float, call: Callable[[], Any]) -> Any:
        """Call ``call`` after ``seconds``; what is returned has ``cancel()``."""

        def guarded() -> None:
            try:
                call()
            except Exception as error:
                self.user.broken(error)

        return self.reactor.callLater(seconds, guarded)

    async def reload_routes(self) -> None:
        """Read the script again and swap its routes, all or none; ``ScriptErrors`` with every fault of the file.

        Only the route blocks count (as in OpenSIPS). What runs on the old routes ends on them."""
        await self._reloading.acquire()
        if self.user.status.core.ready:
            self.notifier.reloading()
        try:
            pool = self.reactor.getThreadPool()
            reading = await deferToThreadPool(self.reactor, pool, read_configuration, self.reading.file, self.preprocessor)
            self._swap(self.configuration.recompile(reading))
        finally:
            self._tell_ready()
            self._reloading.release()

    def _swap(self, routes: RouteSet) -> None:
        for loop in self._timer_routes:
            loop.stop()
        self._timer_routes.clear()
        self.user.routes = routes
        self.user.events.follow(routes)
        self._start_timer_routes()
        self.log(2, "the routes are reloaded")

    def _reload(self) -> None:
        """What SIGHUP does: reload, and log what is wrong."""

        def refused(failure: Any) -> None:
            if failure.check(ScriptErrors) is None:
                self.user.broken(failure.value)
                return
            faults: list[ScriptError] = failure.value.errors
            for fault in faults:
                self.log(-1, str(fault))
            self.log(-1, f"the routes are not reloaded: {_count(faults)}")

        ensureDeferred(self.reload_routes()).addErrback(refused)

    # ---- end ----

    def stop(self) -> None:
        """Begin an orderly shutdown; a second time is once."""
        if not self._stopping:
            self._stopping = True
            self.reactor.stop()

    def stopService(self) -> Deferred[None]:
        """Stop the timers, then the modules in reverse order, then close the sockets."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping = True
        self.notifier.stopping()
        self.user.status.terminating()
        if self.status:
            _exit_with(self.status)
        for loop in [*self._periodic, *self._timer_routes]:
            loop.stop()
        ended = ensureDeferred(self._stop_modules())
        ended.addTimeout(STOP_TIME, self.reactor, lambda *_: self.log(1, f"modules did not stop within {STOP_TIME} s"))
        ended.addBoth(self._close)
        return ended

    async def _stop_modules(self) -> None:
        while self._started:
            module = self._started.pop()
            try:
                await module.stop()
            except CancelledError:  # its time is over, which is told
                pass
            except Exception as error:
                self.user.broken(error)
        await self._databases.close()

    def _close(self, _result: Any) -> None:
        if self.resolver is not None:
            self.resolver.close()
        for each in self.sockets:
            each.stop()


def _exit_with(status: int) -> None:
    """Let the process end with ``status``: twistd itself ends with 0 whenever its reactor was stopped.

    This runs at the very end, when reactor, log and pid file have been put away."""

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)
