"""Which modules there are: those of sipgw in ``sipgw/modules``, and those of others by the entry-point group ``sipgw.modules``.

``loadmodule "tm.so"`` names a module; its class is found here, by importing one file. Nothing else imports modules, so a
configuration pays for what it loads only; ``catalogue`` imports all, to answer "which module has this function?" and
``sipgw exports``."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import sipgw.modules
from sipgw.core.measures import register_core_statistics
from sipgw.core.user import TransactionUser
from sipgw.db.databases import Engines
from sipgw.exports import Command, Module, ParamDeclaration
from sipgw.script.errors import guess
from sipgw.script.globals import GLOBALS, SPELLINGS
from sipgw.script.symbols import Function, Kind, ModuleSymbols, ParamKind, RouteKind, Variable
from sipgw.script.transformations import TRANSFORMATIONS
from sipgw.script.variables import VARIABLES
from sipgw.statistics import Statistics
from sipgw.transport.resolver import Resolver

GROUP = "sipgw.modules"
"""The entry-point group in which a package outside sipgw names its module classes: ``greylist = mypackage.calls:Greylist``.

The name of the entry point is what ``loadmodule`` says; the class needs no ``name``, and another one is refused."""

UNSPELLABLE = {"rtp_io": "rtp.io"}
"""Files whose module has a name that no Python file can have."""

CORE = ("core", "core_blacklists", "core_cachedb", "core_events", "core_mi", "core_process", "core_status", "core_trace")
"""The files of what every script has without loading anything; no ``loadmodule`` names them."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


class ModuleMissing(Exception):
    """There is no such module, or it cannot be imported; ``hint`` guesses what was meant."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


def find_module(name: str) -> type[Module]:
    """Find the class of the module that OpenSIPS calls ``name``; sipgw's own come before those of others."""
    if _NAME.fullmatch(name):
        file = _own().get(name)
        if file is not None:
            return _import(file, name)
        for entry in _foreign():
            if entry.name == name:
                return _load(entry)
    raise ModuleMissing(f"there is no module {name!r}", guess(name, module_names()))


def core_modules() -> dict[str, type[Module]]:
    """The classes of what is always there, by their files; both are called ``core``."""
    return {file: _import(file, "core") for file in CORE}


def module_names() -> list[str]:
    """The names of all modules that can be loaded."""
    return sorted({*_own(), *(entry.name for entry in _foreign())})


def module_classes() -> dict[str, type[Module]]:
    """All modules that can be imported here, by name; those that lack a library of theirs are left out."""
    found: dict[str, type[Module]] = {}
    for name in module_names():
        try:
            found[name] = find_module(name)
        except ModuleMissing:
            continue
    return found


class Catalogue(Mapping[str, ModuleSymbols]):
    """What modules export, for ``Symbols.catalogue``: each module is imported when it is looked up.

    One that cannot be imported exports nothing."""

    def __init__(self) -> None:
        self._names = module_names()
        self._symbols: dict[str, ModuleSymbols] = {}

    def __getitem__(self, name: str) -> ModuleSymbols:
        found = self._symbols.get(name)
        if found is None:
            if name not in self._names:
                raise KeyError(name)
            try:
                found = find_module(name).declared()
            except ModuleMissing:
                found = ModuleSymbols(name)
            self._symbols[name] = found
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _own() -> dict[str, str]:
    """The files of sipgw's own modules by the names that scripts use."""
    names = (info.name for info in pkgutil.iter_modules(sipgw.modules.__path__))
    files = [name for name in names if name not in CORE and not name.startswith("_")]
    return {UNSPELLABLE.get(file, file): file for file in files}


def _foreign() -> list[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def _load(entry: EntryPoint) -> type[Module]:
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise ModuleMissing(f"module {entry.name!r} ({entry.value}) cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Module)):
        raise ModuleMissing(f"module {entry.name!r}: {entry.value} is not a class made from sipgw.exports.Module")
    if found.name != entry.name:
        if found.name != found.__module__.rpartition(".")[2]:
            raise ModuleMissing(f"module {entry.name!r}: {entry.value} calls itself {found.name!r}")
        found.name = entry.name  # no name of its own: that of its file, which the entry point overrides
    return found


def _import(file: str, name: str) -> type[Module]:
    """The class of sipgw's own module ``name``."""
    try:
        module = importlib.import_module(f"sipgw.modules.{file}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "sipgw":
            raise
        raise ModuleMissing(f"module {name!r} needs the Python package {error.name!r}") from error
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Module) and value.__module__ == module.__name__ and value.name == name:
            return value
    raise ModuleMissing(f"{module.__name__} has no class for module {name!r}")


# ---- what there is, as data: the layout of OpenSIPS's own export tables ----

_PARAMETER: Mapping[Kind, dict[str, Any]] = {
    Kind.INT: {"type": "int"},
    Kind.STR: {"type": "str"},
    Kind.RAW: {"type": "str", "no_expand": True},
    Kind.STATIC: {"type": "str", "static": True},
    Kind.REGEX: {"type": "regex"},
    Kind.VAR: {"type": "var"},
    Kind.WRITABLE: {"type": "var"},
    Kind.ROUTE: {"type": "str"},
    Kind.FLAG: {"type": "str", "static": True},
    Kind.SOCKET: {"type": "str"},
}

STATEMENT_FUNCTIONS = ("assert", "async", "break", "drop", "error", "exit", "launch", "log", "return", "route", "xdbg", "xlog")
"""Statements that look like calls of functions."""

_SCRIPT_TYPE = {ParamKind.INT: "int", ParamKind.STR: "string", ParamKind.BOTH: "string/int"}


def exports() -> dict[str, Any]:
    """All that works, by module: functions with parameters and routes, parameters, commands, statistics, variables.

    ``core`` is what every script has. What is not listed is refused when a script uses it."""
    found: dict[str, Any] = {}
    for cls in [*core_modules().values(), *module_classes().values()]:
        entry = _entry(cls)
        if cls.name not in found:
            found[cls.name] = entry
        else:
            for key, value in entry.items():
                if isinstance(value, list):
                    found[cls.name][key] += value
    core = found["core"]
    core["pvars"] += [_variable_row(variable) for variable in VARIABLES]
    core["transformations"] += sorted({t.name.partition(".")[0] for t in TRANSFORMATIONS})
    core["stats"] = core_statistics()
    core["params"] = [{"aliases": [s for s, n in SPELLINGS.items() if n == name], "name": name} for name in GLOBALS]
    core["statement_functions"] = list(STATEMENT_FUNCTIONS)
    return found


def core_statistics() -> list[str]:
    """The statistics that every server has, ``group:name``; ``*`` stands for the number of the process, as OpenSIPS has it."""
    statistics = Statistics()
    never: Any = None
    user = TransactionUser(float, float, _no_log, {}, statistics, never)
    Resolver(user, None)
    Engines({}, statistics)
    register_core_statistics(statistics, user)
    names = (f"{each.group}:{each.name}" for each in statistics)
    return [re.sub(r"(?<=^pkmem:)0|(?<=-proc-)0$", "*", name) for name in names]


def _no_log(_level: int, _text: str) -> None:
    """Write nothing."""


def _entry(cls: type[Module]) -> dict[str, Any]:
    """One module in that layout."""
    declared = cls.declared()
    return {
        "name": cls.name,
        "deps": {"modules": list(declared.depends), "modparam": []},
        "functions": [row for function in declared.functions for row in _function_rows(function)],
        "params": [_parameter_row(p) for p in cls.exports.parameters.values()],
        "mi": [_command_row(command) for command in cls().commands()],
        "mi_namespace": cls.name.removeprefix("proto_"),
        "stats": [declaration.name or key for key, declaration in cls.exports.statistics.items()],
        "pvars": [_variable_row(variable) for variable in declared.variables],
        "transformations": sorted({t.name.partition(".")[0] for t in declared.transformations}),
        "events": [declaration.name for declaration in cls.exports.events.values()],
        "tables": [],
    }


def _function_rows(function: Function) -> list[dict[str, Any]]:
    """A function; one that may wait stands twice, as in OpenSIPS: for a plain call, and for ``async``."""
    params = [
        {"name": p.name, **_PARAMETER[p.kind], **({"optional": True} if p.optional else {})} for p in function.parameters
    ]
    routes = ["ALL"] if function.routes == RouteKind.ANY else [str(kind.name).lower() for kind in function.routes]
    rows: list[dict[str, Any]] = [{"name": function.name, "params": params, "routes": routes}]
    if function.waits:
        rows.append({"name": function.name, "params": params, "async": True})
    return rows


def _parameter_row(declaration: ParamDeclaration) -> dict[str, Any]:
    kind = _SCRIPT_TYPE[declaration.kind] + ("(func)" if declaration.each is not None else "")
    row: dict[str, Any] = {"name": declaration.name, "type": kind}
    return row if declaration.default is None else {**row, "default": declaration.default}


def _command_row(command: Command) -> dict[str, Any]:
    row: dict[str, Any] = {"name": command.name, "full": command.full, "help": command.help, "recipes": command.recipes}
    return {**row, "aliases": list(command.aliases)} if command.aliases else row


def _variable_row(variable: Variable) -> dict[str, Any]:
    row: dict[str, Any] = {"name": variable.name, "rw": variable.writable}
    if variable.takes_name:
        row["subname"] = True
    if variable.takes_index:
        row["index"] = True
    return row
