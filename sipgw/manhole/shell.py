"""The Python shell of the module manhole: one interpreter for each session, in the process of the server.

What is typed runs in the reactor's thread: nothing else happens meanwhile, and nothing is in between two states. Each line is
logged with its user before it runs."""

from __future__ import annotations

import pprint
import rlcompleter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.conch.manhole import Manhole, ManholeInterpreter
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from sipgw.interfaces import Server
from sipgw.manhole.growth import leak_finder, profiler
from sipgw.manhole.keys import Identity
from sipgw.manhole.prompt import MAX_UNREAD, CompletingLine
from sipgw.manhole.show import show
from sipgw.manhole.stepping import Stepper, Watch
from sipgw.manhole.tap import Tap
from sipgw.manhole.trace import Conditions, Test, Trace
from sipgw.manhole.views import all_routes, views
from sipgw.mi.jsonrpc import MIError
from sipgw.script.run import Run

BANNER = "The running sipgw: {names}. The tabulator completes, help(...) explains, Ctrl-D ends."


class Answer:
    """The answer of a management command: ``value``, which prints as a table."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getitem__(self, key: Any) -> Any:
        return self.value[key]

    def __repr__(self) -> str:
        return show(self.value)


def mi_caller(server: Server) -> Any:
    """``mi``: runs management commands; what waits comes as a ``Deferred``, which the shell shows when it fires."""

    def mi(command: str, *params: Any, **named: Any) -> Any:
        """Run a management command: mi("ps"), mi("log_level", level=4)."""
        results: list[Any] = []
        called = Deferred.fromCoroutine(server.commands.call(command, named or list(params)))
        called.addCallback(Answer).addBoth(results.append)
        if not results:
            return called.addCallback(lambda _: results[0])
        if isinstance(results[0], Failure):
            results[0].cleanFailure()
            error: Any = results[0].value
            raise error
        return results[0]

    return mi


@dataclass
class Tools:
    """What the shells of a server share."""

    server: Server
    tap: Tap
    stepper: Stepper
    profile: Any
    leaks: Any

    @classmethod
    def of(cls, server: Server) -> Tools:
        """The tools of a server."""

        def files() -> set[str]:
            return {route.file for route in all_routes(server.user.routes)}

        stepper = Stepper(server.user, server.reactor, lambda: server.symbols, files)
        return cls(server, Tap(server), stepper, profiler(server.reactor, files), leak_finder())


def watchers(stepper: Stepper, tell: Callable[[str], None], made: list[Watch]) -> dict[str, Any]:
    """``step`` and ``breakpoint``; what they make is in ``made``."""

    def fits(conditions: Conditions) -> Callable[[Run], bool]:
        return lambda run: conditions.fit(run.message, "" if run.flow is None else run.flow.host)

    def step(where: Test | None = None, **conditions: str) -> Watch:
        """Show each line of the script that the chosen messages run, and what it changes; conditions as for trace."""
        chosen = Conditions(where, **conditions)
        made.append(stepper.watch(fits(chosen), tell, None, str(chosen)))
        return made[-1]

    def breakpoint(place: str, where: Test | None = None, **conditions: str) -> Watch:
        """Stop the chosen messages, and no others, at a line: breakpoint("opensips.cfg:120", caller="1000").

        stopped lists them; stopped[0]["$ru"] reads a variable or sets it, stopped[0].next() goes to the next line, .go() on."""
        file, _, line = place.rpartition(":")
        if not file or not line.isdigit():
            raise ValueError("write file:line, such as opensips.cfg:120")
        chosen = Conditions(where, **conditions)
        made.append(stepper.watch(fits(chosen), tell, (file, int(line)), str(chosen)))
        return made[-1]

    return {"step": step, "breakpoint": breakpoint, "stopped": stepper.stopped}


def namespace(tools: Tools, who: Identity, tell: Callable[[str], None], made: list[Watch]) -> dict[str, Any]:
    """What the shell knows by name; ``tell`` shows a text that comes by itself."""
    server = tools.server
    return {
        "server": server,
        "user": server.user,
        "modules": server.modules,
        "mi": mi_caller(server),
        "who": who,
        **views(server),
        "trace": Trace(tools.tap, tell),
        **watchers(tools.stepper, tell, made),
        "profile": tools.profile,
        "leaks": tools.leaks,
    }


class Interpreter(ManholeInterpreter):
    """Shows values so that they can be read."""

    handler: Any
    locals: dict[str, Any]

    def displayhook(self, obj: Any) -> None:
        """Show the value of an expression; ``_`` is the last one."""
        if obj is None or isinstance(obj, Deferred):
            super().displayhook(obj)
            return
        self.locals["_"] = obj
        width = getattr(self.handler, "width", None) or 80
        self.write(pprint.pformat(obj, width=width) if isinstance(obj, dict | list | tuple | set) else repr(obj))

    def excepthook(self, excType: Any, excValue: BaseException, excTraceback: Any) -> None:
        """Show an error; of a management command its text is enough."""
        if isinstance(excValue, MIError):
            self.write(f"MIError: {excValue}\n")
        else:
            super().excepthook(excType, excValue, excTraceback)


class Shell(CompletingLine, Manhole):
    """The shell of one session."""

    spaced = False
    interpreter: Any

    def __init__(self, tools: Tools, who: Identity) -> None:
        super().__init__()
        self._server = tools.server
        self._who = who
        self._made: list[Watch] = []
        self.waiting: Callable[[], int] = lambda: 0
        """How many octets the terminal has not read."""
        self._left_out = 0
        self.names = namespace(tools, who, self.tell, self._made)
        self._trace: Trace = self.names["trace"]

    def connectionMade(self) -> None:
        """Begin."""
        self.namespace = self.names
        super().connectionMade()
        self.interpreter = Interpreter(self, self.names)

    def initializeScreen(self) -> None:
        """Say what there is."""
        self.terminal.reset()
        self.setInsertMode()
        names = ", ".join(name for name in self.names if not name.startswith("_"))
        self.terminal.write(BANNER.format(names=names))
        self.terminal.nextLine()
        self.terminal.write(self.ps[self.pn])

    def lineReceived(self, line: bytes) -> None:
        """Log a line, and run it."""
        text = line.decode("utf-8", "replace")
        if text.strip():
            self._server.user.log(2, f"manhole: {self._who.name}: >>> {text}")
        super().lineReceived(line)

    def connectionLost(self, reason: Any) -> None:
        """End what the session has begun."""
        for each in self._made:
            each.stop()
        self._trace.stop()
        super().connectionLost(reason)

    def addOutput(self, data: Any, isAsync: Any = None) -> None:
        """Show what is printed, or what comes while a line is being written."""
        super().addOutput(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data, isAsync)

    def tell(self, text: str) -> None:
        """Show a text that comes by itself; not to a terminal that does not read."""
        if self.waiting() > MAX_UNREAD:
            self._left_out += 1
            return
        left_out, self._left_out = self._left_out, 0
        if left_out:
            self.addOutput(f"({left_out} texts are left out: the terminal was too slow)", True)
        self.addOutput(text, True)

    def found(self, text: str) -> tuple[str, list[str]]:
        """Names and attributes."""
        last = ""
        for char in reversed(text):
            if not (char.isalnum() or char in "._"):
                break
            last = char + last
        if not last:
            return "", []
        completer = rlcompleter.Completer(self.names)
        found: list[str] = []
        while len(found) < 1000 and (word := completer.complete(last, len(found))) is not None:
            found.append(word)
        return last, sorted(set(found))
