"""What a module looks like to the checker and the compiler: its functions, variables, transformations,
parameters.

Declarations only: `sipgw/exports.py` builds these objects from the module classes, `Symbols` gathers
those of the modules that one configuration loads. A name may have several functions (overloads by
parameters) and two variables (with and without a name in parentheses: ``$branch`` and ``$branch(uri)``).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class RouteKind(enum.Flag):
    """The route blocks, as a mask: where a function may be called. ``route[name]`` is REQUEST by its
    keyword."""

    REQUEST = enum.auto()
    FAILURE = enum.auto()
    ONREPLY = enum.auto()
    BRANCH = enum.auto()
    ERROR = enum.auto()
    LOCAL = enum.auto()
    STARTUP = enum.auto()
    TIMER = enum.auto()
    EVENT = enum.auto()
    ANY = REQUEST | FAILURE | ONREPLY | BRANCH | ERROR | LOCAL | STARTUP | TIMER | EVENT


#: The keyword that opens a block of each kind.
ROUTE_KEYWORDS: Mapping[RouteKind, str] = {
    RouteKind.REQUEST: "route",
    RouteKind.FAILURE: "failure_route",
    RouteKind.ONREPLY: "onreply_route",
    RouteKind.BRANCH: "branch_route",
    RouteKind.ERROR: "error_route",
    RouteKind.LOCAL: "local_route",
    RouteKind.STARTUP: "startup_route",
    RouteKind.TIMER: "timer_route",
    RouteKind.EVENT: "event_route",
}


class Kind(enum.Enum):
    """What a script may write in the place of a parameter."""

    INT = "int"  #: an int literal or a variable
    STR = "str"  #: a string, whose variables are expanded, or a variable
    RAW = "raw"  #: a constant string that the function parses itself (NO_EXPAND)
    STATIC = "static"  #: a constant string, nothing is expanded in it
    REGEX = "regex"  #: a string (compiled once) or a variable
    VAR = "var"  #: an unquoted variable that is only read, or read and written
    WRITABLE = "writable"  #: an unquoted variable that can be assigned
    ROUTE = "route"  #: the name of a route[], as a string; `Parameter.route` narrows the kind
    FLAG = "flag"  #: the name of a flag, as a constant string
    SOCKET = "socket"  #: a socket definition in a string, or a variable


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function. ``optional``: may be left out, or left empty between commas."""

    name: str
    kind: Kind
    optional: bool = False
    route: RouteKind = RouteKind.REQUEST
    """For `Kind.ROUTE`: which blocks the name is looked for in (t_on_failure: FAILURE)."""
    check: Callable[[Any], object] | None = None
    """Called with a constant argument when the configuration is read; raises ValueError to refuse it."""
    guarded: bool = False
    """Whether a CR, LF or NUL in what a variable puts into the argument makes the call fail (hardening
    P5): the literal text of the script may have them, and a variable that is the whole argument may end
    with CRLF."""
    parted: bool = False
    """Whether a text with variables comes as ``Parts``, its values apart."""
    variable: str = ""
    """For `Kind.VAR` and `Kind.WRITABLE`: the one variable that it may be, such as "avp"; empty for any."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a script may call.

    ``call(run, *arguments)`` does it; ``waits`` says that it is a coroutine function. ``returns``:
    "bool" (True is 1, False is -1, can not stop the script), "int" (0 stops the script) or "none"
    (always 1)."""

    name: str
    module: str
    parameters: tuple[Parameter, ...] = ()
    routes: RouteKind = RouteKind.ANY
    call: Callable[..., Any] | None = None
    waits: bool = False
    returns: str = "int"

    @property
    def required(self) -> int:
        """How many parameters a call must write at least: up to the last one that is not optional."""
        return max((i for i, p in enumerate(self.parameters, 1) if not p.optional), default=0)


@dataclass(frozen=True, slots=True)
class Variable:
    """A pseudo-variable, ``name`` without the dollar. ``setter`` is None for one that can only be read.

    ``getter(run[, name][, index])`` and ``setter(run[, name][, index], value)``: the name and the index are there if
    ``takes_name`` and ``takes_index`` say so, the index None where none is written, "*" for all. A setter answers False if it
    refuses the value. ``replacer``: what ``:=`` calls, where that is not the same as ``=``.

    ``takes_name``: ``$name(subname)``; a variable that can do both is declared twice. ``takes_index``:
    ``$(name[i])``. ``check``: called with a constant subname when the configuration is read; raises
    ValueError to refuse it."""

    name: str
    getter: Callable[..., Any] | None = None
    setter: Callable[..., Any] | None = None
    takes_name: bool = False
    takes_index: bool = False
    check: Callable[[str], object] | None = None
    module: str = "core"
    read_only: bool = False
    replacer: Callable[..., Any] | None = None
    waiter: Callable[..., Any] | None = None
    """The getter as a coroutine function, for routes: what it reads may have to be fetched. Where nothing can wait, in texts of
    modparams and in variables that functions receive, it is ``getter``."""
    expands: bool = False
    """Whether variables may stand within the name in parentheses."""

    @property
    def writable(self) -> bool:
        """Whether a script may assign it."""
        return self.setter is not None and not self.read_only


@dataclass(frozen=True, slots=True)
class Transformation:
    """One ``{name,arguments}``, such as "s.substr". ``least`` and ``most`` count the arguments."""

    name: str
    call: Callable[..., Any] | None = None
    least: int = 0
    most: int = 0
    module: str = "core"


class ParamKind(enum.Enum):
    """The type of a modparam's value."""

    INT = "int"
    STR = "str"
    BOTH = "int or str"  #: a callback that takes either


@dataclass(frozen=True, slots=True)
class ModuleParameter:
    """What ``modparam("module", "name", value)`` may set. ``repeatable``: a second one adds instead of
    replacing.

    ``check``: called with the value when the configuration is read; raises ValueError to refuse it."""

    name: str
    kind: ParamKind
    repeatable: bool = False
    check: Callable[[Any], object] | None = None


@dataclass(frozen=True, slots=True)
class ModuleSymbols:
    """All that one module gives to a script. ``depends``: the modules that must be loaded with it."""

    name: str
    functions: tuple[Function, ...] = ()
    variables: tuple[Variable, ...] = ()
    transformations: tuple[Transformation, ...] = ()
    parameters: tuple[ModuleParameter, ...] = ()
    depends: tuple[str, ...] = ()
    later: Mapping[str, str] = field(default_factory=dict)
    """Parameters of OpenSIPS's module that this version does not have, each with what it needs."""


@dataclass(slots=True)
class Symbols:
    """The lookup tables of one configuration: those of the core and of the modules it loads.

    ``catalogue`` are all modules that exist, by name, loaded or not: it turns "unknown function t_relay"
    into "load module tm.so first"."""

    modules: dict[str, ModuleSymbols] = field(default_factory=dict)
    catalogue: Mapping[str, ModuleSymbols] = field(default_factory=dict)
    functions: dict[str, list[Function]] = field(default_factory=dict)
    variables: dict[tuple[str, bool], Variable] = field(default_factory=dict)
    transformations: dict[str, Transformation] = field(default_factory=dict)

    @classmethod
    def of(
        cls, modules: Iterable[ModuleSymbols], catalogue: Mapping[str, ModuleSymbols] | None = None
    ) -> Symbols:
        """Gather ``modules`` (the core first, then as they are loaded)."""
        symbols = cls(catalogue=catalogue or {})
        for module in modules:
            symbols.add(module)
        return symbols

    def add(self, module: ModuleSymbols) -> None:
        """Make the names of one more module known. A name that is already taken keeps its first owner."""
        self.modules[module.name] = module
        for function in module.functions:
            self.functions.setdefault(function.name, []).append(function)
        for variable in module.variables:
            self.variables.setdefault((variable.name, variable.takes_name), variable)
        for transformation in module.transformations:
            self.transformations.setdefault(transformation.name, transformation)

    def function(self, name: str, arguments: int) -> Function | None:
        """Find the function to call with so many arguments; an unfitting count gives the first of that
        name."""
        found: Sequence[Function] = self.functions.get(name, ())
        for function in found:
            if function.required <= arguments <= len(function.parameters):
                return function
        return found[0] if found else None

    def variable(self, name: str, named: bool) -> Variable | None:
        """Find the variable ``$name``, or ``$name(...)`` when ``named``."""
        return self.variables.get((name, named))
