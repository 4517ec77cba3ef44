"""What a module is: one class, its attributes are its exports.

::

    class Greylist(Module):
        \"\"\"Makes first-time callers wait.\"\"\"

        period: int = param(300, "How long a new caller waits, in seconds")
        refused = statistic("requests turned away")

        @function(REQUEST | FAILURE)
        def greylist_pass(self, run: Run, caller: str, left: Writable | None = None) -> bool:
            \"\"\"True once ``caller`` has waited; until then ``left`` receives the seconds to go.\"\"\"

Annotations replace OpenSIPS's fixups. Of a function's parameter: ``int`` INT; ``str`` STR with variables expanded; ``Raw`` the
text untouched; ``Constant`` a string without variables; ``Regex`` a compiled pattern; ``Writable`` a variable that can be set;
``Readable`` one that is only read, ``Avp`` an AVP with all its values; ``RouteName``, ``Flag``, ``SocketName`` the usual fixups;
``HeaderText`` STR without line ends in its variables; ``T | None`` optional, and None is what the function receives then (a
default is needed only where Python wants one);
``Annotated[T, check]`` any fixup of one's own: ``check(value)`` turns a constant into what the function wants or raises
``ValueError`` with what to write instead. Of its result: ``bool`` 1 or -1, ``int`` as it is (0 ends the script), ``None`` 1.
``async def`` may wait.

``__init_subclass__`` collects the exports and refuses one without types or docstring, so that a bad module fails in its own
first test. Everything else (compiler, MI, statistics, ``sipgw exports``, the manual) reads ``Module.exports``.
"""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from keyword import iskeyword
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar, Union, get_args, get_origin

from sipgw.script.parts import Parts
from sipgw.script.symbols import (
    Function,
    Kind,
    ModuleParameter,
    ModuleSymbols,
    Parameter,
    ParamKind,
    RouteKind,
    Transformation,
    Variable,
)
from sipgw.statistics import Counter, Gauge

if TYPE_CHECKING:
    from sipgw.interfaces import Server

ANY = RouteKind.ANY
REQUEST = RouteKind.REQUEST
FAILURE = RouteKind.FAILURE
ONREPLY = RouteKind.ONREPLY
BRANCH = RouteKind.BRANCH
ERROR = RouteKind.ERROR
LOCAL = RouteKind.LOCAL
STARTUP = RouteKind.STARTUP
TIMER = RouteKind.TIMER
EVENT = RouteKind.EVENT

F = TypeVar("F", bound=Callable[..., Any])


class Misdeclared(TypeError):
    """A module class declares an export that cannot be: a bug of the module, found when its file is imported."""


class Writable(Protocol):
    """A variable that a function receives to set: ``left.set(run, 5)``."""

    def get(self, run: Any) -> int | str | None:
        """Its value in ``run``."""

    def set(self, run: Any, value: int | str | None) -> Any:
        """Give it ``value`` in ``run``; False if it cannot take that (an error has been logged then)."""


class Listed(Writable, Protocol):
    """A variable that may have many values, such as ``$avp(x)`` or ``$hdr(Via)``."""

    def at(self, run: Any, index: int) -> int | str | None:
        """Its value at ``index``, from 0 on (of an AVP: the newest); null beyond the last."""


def listed(variable: Listed, run: Any) -> list[int | str]:
    """All values of ``variable``, as their indexes count: those of an AVP from the newest to the oldest."""
    values: list[int | str] = []
    while (value := variable.at(run, len(values))) is not None:
        values.append(value)
    return values


class Pattern(Protocol):
    """A compiled regular expression as scripts know it (POSIX, leftmost-longest, ignoring case)."""

    def search(self, text: str) -> Any:
        """The match, or None."""


@dataclass(frozen=True)
class Fixup:
    """How a parameter is written in the script, where a Python type cannot say it."""

    kind: Kind
    route: RouteKind = REQUEST
    guarded: bool = False
    variable: str = ""
    parted: bool = False


Raw = Annotated[str, Fixup(Kind.RAW)]
Constant = Annotated[str, Fixup(Kind.STATIC)]
HeaderText = Annotated[str, Fixup(Kind.STR, guarded=True)]
"""A text that becomes part of a message's head: what a variable puts into it may not have a CR, LF or NUL (hardening P5)."""
PartedText = Annotated[str | Parts, Fixup(Kind.STR, parted=True)]
"""A text whose variables come apart from it, for functions that put each into SQL or JSON as it has to be there (P6)."""
Regex = Annotated[Pattern, Fixup(Kind.REGEX)]
Flag = Annotated[int, Fixup(Kind.FLAG)]
"""The name of a message flag; the function receives its bit mask."""
Readable = Annotated[Listed, Fixup(Kind.VAR)]
"""A variable that is only read, all its values if it has many (``listed``)."""
Avp = Annotated[Listed, Fixup(Kind.WRITABLE, variable="avp")]
"""An AVP, and nothing else."""
SocketName = Annotated[str, Fixup(Kind.SOCKET)]
RouteName = Annotated[str, Fixup(Kind.ROUTE)]
FailureRouteName = Annotated[str, Fixup(Kind.ROUTE, FAILURE)]
ReplyRouteName = Annotated[str, Fixup(Kind.ROUTE, ONREPLY)]
BranchRouteName = Annotated[str, Fixup(Kind.ROUTE, BRANCH)]


@dataclass
class _Exported:
    """What a decorator writes on a method, until ``__init_subclass__`` gathers it."""

    what: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)


def _mark(method: F, what: str, name: str | None, **options: Any) -> F:
    marks = method.__dict__.setdefault("__exports__", [])
    marks.append(_Exported(what, name or method.__name__, options))
    return method


def function(routes: RouteKind = ANY, *, name: str | None = None) -> Callable[[F], F]:
    """A function that scripts may call in ``routes``."""
    return lambda method: _mark(method, "function", name, routes=routes)


def mi(
    name: str | None = None,
    *,
    alias: str | tuple[str, ...] = (),
    module: str = "",
    recipes: tuple[tuple[str, ...], ...] | None = None,
    named_only: bool = False,
) -> Callable[[F], F]:
    """A management command ``module:name``, bound by its parameters' names; ``alias``: its names in older releases.

    Parameters are ``int``, ``str``, ``list[str]``, or ``Any`` for whatever JSON holds. ``module``: the first part of its name,
    where that is not the module's own. ``recipes``: the lists of parameters it takes, where they are not simply those without
    a default, then one optional after the other. A command that returns None answers "OK". ``named_only``: it takes
    no list of arguments, only named ones."""
    aliases = (alias,) if isinstance(alias, str) else alias
    return lambda method: _mark(
        method, "mi", name, aliases=aliases, module=module, recipes=recipes, named_only=named_only
    )


def pvar(
    name: str,
    *,
    set: str | None = None,
    replace: str | None = None,
    named: bool = False,
    indexed: bool = False,
    check: Callable[[str], object] | None = None,
    waits: str | None = None,
    expands: bool = False,
) -> Callable[[F], F]:
    """A variable ``$name``, read by ``method(run)``; ``(run, subname)`` if ``named``; an index comes last if ``indexed``.

    ``set``: the name of the method that assigns it, with the value as its last argument; ``replace``: that for ``:=``, if it
    is another. ``check(subname)`` raises ``ValueError`` to refuse a constant name in parentheses, in which variables may stand if
    it ``expands``. ``waits``: the name of the coroutine method that reads it where a script can wait."""
    return lambda method: _mark(
        method, "pvar", name, set=set, replace=replace, named=named, indexed=indexed, check=check, waits=waits, expands=expands
    )


def transformation(name: str, *, least: int = 0, most: int = 0) -> Callable[[F], F]:
    """A transformation ``{name,...}``: ``method(value, *arguments)``."""
    return lambda method: _mark(method, "transformation", name, least=least, most=most)


def every(seconds: float) -> Callable[[F], F]:
    """A method that runs each ``seconds``, from ``start`` to ``stop``."""
    return lambda method: _mark(method, "every", None, seconds=seconds)


@dataclass
class ParamDeclaration:
    """A modparam: its default, what it is, how it is checked."""

    default: Any
    doc: str
    check: Callable[[Any], object] | None
    each: str | None
    flag: bool
    unused: str
    name: str = ""
    kind: ParamKind = ParamKind.STR
    attribute: str = ""


def param(
    default: Any,
    doc: str,
    *,
    check: Callable[[Any], object] | None = None,
    each: str | None = None,
    flag: bool = False,
    unused: str = "",
    name: str = "",
) -> Any:
    """A modparam of this module, an attribute of its instances; the annotation gives its type (``int``, ``str``).

    ``check(value)`` raises ``ValueError`` to refuse a value. ``each`` names a method that is called with each value instead
    (OpenSIPS's function parameters, which may be repeated). ``flag``: the value is the name of a branch flag, the attribute its
    mask. ``unused``: why the value has no meaning here: it is accepted, and one INFO line says so. ``name``: what scripts call
    it, where an attribute cannot have that name."""
    return ParamDeclaration(default, doc, check, each, flag, unused, name)


@dataclass
class StatisticDeclaration:
    """A statistic of a module."""

    doc: str
    read: str | None
    name: str | None


def statistic(doc: str, *, read: str | None = None, name: str | None = None) -> Any:
    """A counter of this module; with ``read``, the name of a method that computes it (``name``: where Python cannot spell it)."""
    return StatisticDeclaration(doc, read, name)


@dataclass
class EventDeclaration:
    """An event that a module raises."""

    name: str
    parameters: tuple[str, ...]


def event(name: str, *parameters: str) -> Any:
    """An event ``E_NAME`` of this module with its parameters, in the order in which ``$param(1)`` counts them.

    Its attribute tells whoever has subscribed: ``self.admitted.emit(caller=caller)``. Where the values cost something to find,
    ask ``self.admitted.heard`` first."""
    return EventDeclaration(name, parameters)


class Unheard:
    """What an event is where there is no server: nobody listens."""

    heard = False

    def emit(self, **values: Any) -> None:
        """Do nothing."""


@dataclass
class Requirement:
    """Another module that this one calls."""

    module: str
    optional: bool


def requires(module: str, *, optional: bool = False) -> Any:
    """The loaded instance of another module; the loader puts it here before ``start`` (None if ``optional`` and not loaded)."""
    return Requirement(module, optional)


_KINDS: Mapping[Any, Kind] = {int: Kind.INT, str: Kind.STR, Writable: Kind.WRITABLE}


def _parameter(owner: str, parameter: inspect.Parameter, annotation: Any) -> Parameter:
    """What the compiler must know of one parameter of a function."""
    name = parameter.name.rstrip("_")  # "from" is no name in Python
    optional = parameter.default is not inspect.Parameter.empty
    check: Callable[[Any], object] | None = None
    fixup: Fixup | None = None
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            base, *extras = get_args(annotation)
            for extra in extras:
                if isinstance(extra, Fixup):
                    fixup = extra
                elif callable(extra):
                    check = extra
            annotation = base
        elif origin in (Union, UnionType) and not (fixup is not None and fixup.parted):
            rest = [arm for arm in get_args(annotation) if arm is not NoneType]
            optional = optional or len(rest) < len(get_args(annotation))
            if len(rest) != 1:
                raise Misdeclared(f"{owner}: parameter {parameter.name} has more than one type")
            annotation = rest[0]
        else:
            break
    if fixup is not None:
        return Parameter(name, fixup.kind, optional, fixup.route, check, fixup.guarded, fixup.parted, fixup.variable)
    kind = _KINDS.get(annotation)
    if kind is None:
        raise Misdeclared(f"{owner}: parameter {parameter.name} has no type that a script can give: {annotation!r}")
    return Parameter(name, kind, optional, check=check)


class ArgumentKind(enum.Enum):
    """What a management command wants of an argument; numbers and their text turn into one another."""

    INT = "int"
    STR = "str"
    LIST = "list of str"
    JSON = "any JSON value"


_ARGUMENTS: Mapping[Any, ArgumentKind] = {
    int: ArgumentKind.INT,
    str: ArgumentKind.STR,
    list[str]: ArgumentKind.LIST,
    Any: ArgumentKind.JSON,
}


@dataclass(frozen=True)
class Command:
    """One management command: ``call(**arguments)`` on the module's instance; it may be a coroutine function.

    ``module`` is the first part of its name; ``kinds`` says what each parameter wants. ``named_only``: its arguments are named,
    never in a list."""

    module: str
    name: str
    aliases: tuple[str, ...]
    help: str
    call: Callable[..., Any]
    parameters: tuple[inspect.Parameter, ...]
    kinds: Mapping[str, ArgumentKind]
    given_recipes: tuple[tuple[str, ...], ...] | None = None
    named_only: bool = False

    @property
    def full(self) -> str:
        """Its canonical name, ``module:name``."""
        return f"{self.module}:{self.name}"

    @property
    def recipes(self) -> list[list[str]]:
        """The lists of parameters it can be called with, shortest first."""
        if self.given_recipes is not None:
            return [list(recipe) for recipe in self.given_recipes]
        required = [p.name for p in self.parameters if p.default is inspect.Parameter.empty]
        optional = [p.name for p in self.parameters if p.default is not inspect.Parameter.empty]
        return [required + optional[:count] for count in range(len(optional) + 1)]


@dataclass
class Exports:
    """All that one module class exports, gathered once when the class is made."""

    name: str
    functions: list[tuple[str, str, _Exported]] = field(default_factory=list)
    parameters: dict[str, ParamDeclaration] = field(default_factory=dict)
    statistics: dict[str, StatisticDeclaration] = field(default_factory=dict)
    events: dict[str, EventDeclaration] = field(default_factory=dict)
    requirements: dict[str, Requirement] = field(default_factory=dict)


class Module:
    """The base of all modules; see the essay at the top of this file.

    ``name`` is OpenSIPS's name of the module; by default that of the file, outside sipgw that of the entry point. ``depends`` are
    modules that must be loaded too. An instance belongs to one server (``self.server``)."""

    name: ClassVar[str] = ""
    depends: ClassVar[tuple[str, ...]] = ()
    later: ClassVar[Mapping[str, str]] = {}
    """Modparams of OpenSIPS that this version refuses, each with what to tell whoever sets it."""
    exports: ClassVar[Exports]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            cls.name = cls.__module__.rpartition(".")[2]
        if not cls.__doc__:
            raise Misdeclared(f"module {cls.name}: the class has no docstring")
        cls.exports = _gather(cls)

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        self.server: Server = server  # type: ignore[assignment]
        for declaration in self.exports.parameters.values():
            setattr(self, declaration.attribute, declaration.default)
        for key, requirement in self.exports.requirements.items():
            setattr(self, key, parameters.pop(requirement.module, None))
        for key, stat in self.exports.statistics.items():
            setattr(self, key, self._statistic(key, stat))
        for key, each in self.exports.events.items():
            setattr(self, key, Unheard() if server is None else server.user.events.publish(each.name, each.parameters))
        for key, value in parameters.items():
            self.set_parameter(key, value)

    def _statistic(self, key: str, declaration: StatisticDeclaration) -> Counter | Gauge:
        name = declaration.name or key
        made: Counter | Gauge
        if declaration.read is None:
            made = Counter(self.name, name)
        else:
            made = Gauge(self.name, name, getattr(self, declaration.read))
        if self.server is not None:
            self.server.statistics.add(made)
        return made

    def set_parameter(self, name: str, value: int | str) -> None:
        """Take ``modparam("this", name, value)``; ``ValueError`` says what is wrong with it, ``KeyError`` that there is none."""
        declaration = self.exports.parameters[name]
        if declaration.check is not None:
            declaration.check(value)
        if declaration.each is not None:
            getattr(self, declaration.each)(value)
        elif declaration.flag:
            setattr(self, declaration.attribute, self.server.user.branch_flags.mask(str(value)))
        else:
            setattr(self, declaration.attribute, value)
        if declaration.unused and self.server is not None:
            self.server.user.log(3, f"modparam {self.name}.{name} has no effect in sipgw: {declaration.unused}")

    async def start(self) -> None:
        """Begin; runs after all parameters of all modules are set, dependencies first. Raise to refuse to start."""

    async def stop(self) -> None:
        """End; runs in reverse order when the server stops."""

    @classmethod
    def declared(cls, instance: Module | None = None) -> ModuleSymbols:
        """What the compiler sees of this module; with ``instance``, bound to it and ready to run."""
        functions: list[Function] = []
        variables: list[Variable] = []
        transformations: list[Transformation] = []
        for attribute, _doc, mark in cls.exports.functions:
            if mark.what in ("every", "mi"):
                continue
            method = getattr(cls, attribute)
            call = method if instance is None else getattr(instance, attribute)
            if mark.what == "function":
                functions.append(_function(cls, mark, method, call))
            elif mark.what == "pvar":
                variables.append(_variable(cls if instance is None else instance, mark, call, cls.name))
            else:
                least, most = mark.options["least"], mark.options["most"]
                transformations.append(Transformation(mark.name, call, least, most, cls.name))
        parameters = tuple(
            ModuleParameter(key, p.kind, p.each is not None, p.check) for key, p in cls.exports.parameters.items()
        )
        depends = tuple(cls.depends) + tuple(
            r.module for r in cls.exports.requirements.values() if not r.optional
        )
        return ModuleSymbols(
            cls.name, tuple(functions), tuple(variables), tuple(transformations), parameters, depends, cls.later
        )

    def commands(self) -> list[Command]:
        """The management commands of this instance."""
        found: list[Command] = []
        for attribute, doc, mark in self.exports.functions:
            if mark.what == "mi":
                call = _spoken(getattr(self, attribute), inspect.signature(getattr(self, attribute)).parameters)
                options = mark.options
                module = options["module"] or self.name.removeprefix("proto_")
                parameters, kinds = _arguments(type(self), mark, getattr(type(self), attribute))
                aliases = tuple(options["aliases"])
                recipes, named_only = options["recipes"], options["named_only"]
                found.append(Command(module, mark.name, aliases, doc, call, parameters, kinds, recipes, named_only))
        return found

    def periodic(self) -> list[tuple[float, Callable[[], Any]]]:
        """The methods to run each so many seconds."""
        return [
            (mark.options["seconds"], getattr(self, attribute))
            for attribute, _doc, mark in self.exports.functions
            if mark.what == "every"
        ]


def _variable(owner: Any, mark: _Exported, getter: Callable[..., Any], module: str) -> Variable:
    """The compiler's view of one exported variable; ``owner`` has its other methods."""
    options = mark.options
    found: dict[str, Any] = {key: options[key] and getattr(owner, options[key]) for key in ("set", "replace", "waits")}
    return Variable(
        mark.name,
        getter,
        found["set"],
        options["named"],
        options["indexed"],
        options["check"],
        module,
        replacer=found["replace"],
        waiter=found["waits"],
        expands=options["expands"],
    )


def _function(cls: type[Module], mark: _Exported, method: Callable[..., Any], call: Callable[..., Any]) -> Function:
    """The compiler's view of one exported function."""
    owner = f"{cls.name}.{mark.name}"
    hints = typing.get_type_hints(method, include_extras=True, localns={"Run": object})
    parameters = list(inspect.signature(method).parameters.values())[2:]
    for parameter in parameters:
        if parameter.name not in hints:
            raise Misdeclared(f"{owner}: parameter {parameter.name} has no type")
    result = hints.get("return")
    if result not in (bool, int, NoneType):
        raise Misdeclared(f"{owner}: its result must be bool, int or None, not {result!r}")
    return Function(
        name=mark.name,
        module=cls.name,
        parameters=tuple(_parameter(owner, p, hints[p.name]) for p in parameters),
        routes=mark.options["routes"],
        call=call,
        waits=inspect.iscoroutinefunction(method),
        returns={bool: "bool", int: "int", NoneType: "none"}[result],
    )


def _arguments(
    cls: type[Module], mark: _Exported, method: Callable[..., Any]
) -> tuple[tuple[inspect.Parameter, ...], dict[str, ArgumentKind]]:
    """The parameters of one management command, each with what it wants."""
    owner = f"{cls.name}.{mark.name}"
    hints = typing.get_type_hints(method)
    written = tuple(inspect.signature(method).parameters.values())[1:]
    parameters = tuple(each if each.name == spoken(each.name) else _renamed(each) for each in written)
    kinds: dict[str, ArgumentKind] = {}
    for parameter, its in zip(parameters, written, strict=True):
        annotation = hints.get(its.name)
        arms = [arm for arm in get_args(annotation) if arm is not NoneType]
        if get_origin(annotation) in (Union, UnionType) and len(arms) == 1:
            annotation = arms[0]
        kind = _ARGUMENTS.get(annotation)
        if kind is None:
            raise Misdeclared(f"{owner}: parameter {parameter.name} has no type that a command can take: {annotation!r}")
        kinds[parameter.name] = kind
    required = {p.name for p in parameters if p.default is inspect.Parameter.empty}
    for recipe in mark.options["recipes"] or ():
        if not required <= set(recipe) <= set(kinds):
            raise Misdeclared(f"{owner}: the recipe {recipe} does not fit its parameters")
    return parameters, kinds


def spoken(name: str) -> str:
    """What an operator calls a parameter: where Python has taken the word, the method's has an underscore behind it."""
    return name[:-1] if name.endswith("_") and iskeyword(name[:-1]) else name


def _renamed(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(name=spoken(parameter.name), kind=inspect.Parameter.POSITIONAL_ONLY)


def _spoken(call: Callable[..., Any], names: Iterable[str]) -> Callable[..., Any]:
    """``call``, with arguments as operators name them."""
    taken = {spoken(name): name for name in names if name != spoken(name)}
    if not taken:
        return call
    return lambda **arguments: call(**{taken.get(name, name): value for name, value in arguments.items()})


def _gather(cls: type[Module]) -> Exports:
    """Read the declarations of ``cls`` and of the module classes it extends, checking each."""
    exports = Exports(cls.name)
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        hints.update(base.__dict__.get("__annotations__", {}))
        for attribute, value in base.__dict__.items():
            if isinstance(value, ParamDeclaration):
                value.name, value.attribute = value.name or attribute, attribute
                value.kind = _param_kind(cls, attribute, hints.get(attribute))
                exports.parameters[value.name] = value
            elif isinstance(value, StatisticDeclaration):
                exports.statistics[attribute] = value
            elif isinstance(value, EventDeclaration):
                exports.events[attribute] = value
            elif isinstance(value, Requirement):
                exports.requirements[attribute] = value
            for mark in getattr(value, "__exports__", ()) if inspect.isfunction(value) else ():
                doc = inspect.getdoc(value)
                if not doc:
                    raise Misdeclared(f"{cls.name}.{mark.name} has no docstring")
                exports.functions.append((attribute, doc.partition("\n")[0], mark))
                if mark.what == "function":
                    _function(cls, mark, value, value)
                elif mark.what == "mi":
                    _arguments(cls, mark, value)
    return exports


def _param_kind(cls: type[Module], name: str, annotation: Any) -> ParamKind:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    kinds = {"int": ParamKind.INT, "str": ParamKind.STR, "str | None": ParamKind.STR, "int | str": ParamKind.BOTH}
    if text not in kinds:
        raise Misdeclared(f"modparam {cls.name}.{name} must be annotated int, str or 'int | str', not {text!r}")
    return kinds[text]
