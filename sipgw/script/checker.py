"""The checker: everything that can be wrong with a configuration that reads well.

It needs the symbols of the modules that the configuration loads. Like the parser it does not stop at a fault.
``check`` looks at a tree that `dialect.modernise` has been over, or at one in today's language.
"""

from __future__ import annotations

from sipgw.script.check_routes import RouteChecks
from sipgw.script.check_variables import Findings, load_first
from sipgw.script.dialect import GONE
from sipgw.script.errors import guess
from sipgw.script.globals import GLOBALS, Global, Type
from sipgw.script.nodes import (
    Blacklist,
    Config,
    Int,
    LoadModule,
    ModParam,
    Pos,
    Route,
    ScalingProfile,
    Setting,
    Socket,
)
from sipgw.script.preprocess import Source
from sipgw.script.regex import compile_regex
from sipgw.script.symbols import ROUTE_KEYWORDS, ModuleSymbols, ParamKind, RouteKind, Symbols

MAX_ROUTES = 100
"""How many routes of one kind there may be."""

TRANSPORT_MODULES = {
    "hep_udp": "proto_hep",
    "hep_tcp": "proto_hep",
    "hep_tls": "proto_hep",
    "msrps": "proto_msrp",
}
"""The module that serves a protocol, where its name is not ``proto_`` and the protocol."""


class Checker(RouteChecks):
    """Checks one configuration, once."""

    def __init__(self, config: Config, symbols: Symbols) -> None:
        super().__init__(config, symbols)
        self.first: dict[tuple[str, str], Pos] = {}
        self.loaded: dict[str, ModuleSymbols] = {}
        self.profiles = {p.name.lower() for p in config.scaling_profiles}

    def check(self) -> None:
        """Check all there is, in the order of the file."""
        self.loaded_after = {m.name for m in self.config.modules}
        for item in self.config.items:
            if isinstance(item, LoadModule):
                self.check_module(item)
            elif isinstance(item, ModParam):
                self.check_modparam(item)
            elif isinstance(item, Setting):
                self.check_setting(item)
            elif isinstance(item, Socket):
                self.check_socket(item)
            elif isinstance(item, Route):
                self.check_route(item)
            elif isinstance(item, Blacklist):
                self.unique("blacklist", item.name, item.pos)
            elif isinstance(item, ScalingProfile):
                self.unique("auto_scaling_profile", item.name.lower(), item.pos)
        self.check_dependencies()
        self.check_reach()
        for kind, names in self.names.items():
            if len(names) > MAX_ROUTES:
                last = list(names.values())[MAX_ROUTES]
                self.error(last, f"more than {MAX_ROUTES} blocks of the kind {ROUTE_KEYWORDS[kind]}")
        if "0" not in self.names[RouteKind.REQUEST] and self.config.pos.file:  # no file: it could not be read, which is said
            self.warn(self.config, "there is no route{}: requests are discarded")

    def unique(self, what: str, name: str, pos: Pos) -> None:
        """Note a second definition of the same name."""
        first = self.first.setdefault((what, name), pos)
        if first is not pos:
            shown = f"{what}[{name}]" if name and name != "0" and "route" in what else what
            shown = f"the {what} {name}" if "route" not in what else shown
            self.error(pos, f"{shown} is defined a second time", f"first at {first}")

    # ---- modules ----

    def check_module(self, item: LoadModule) -> None:
        """Check that a module exists and is loaded once."""
        self.loaded_after.discard(item.name)
        if item.name in self.loaded:
            self.error(item, f"the module {item.name} is loaded a second time")
            return
        found = self.symbols.modules.get(item.name)
        if found is None:
            catalogue = self.symbols.catalogue
            hint = GONE.get(item.name) or guess(item.name, catalogue)
            self.error(item, f"there is no module {item.name}", hint)
            found = ModuleSymbols(item.name)
        self.loaded[item.name] = found

    def check_dependencies(self) -> None:
        """Check that each module finds those it depends on."""
        for item in self.config.modules:
            for needed in self.loaded[item.name].depends:
                if needed not in self.symbols.modules:
                    hint = f'add loadmodule "{needed}.so"'
                    self.error(item, f"the module {item.name} needs the module {needed}", hint)

    def check_modparam(self, item: ModParam) -> None:
        """Check the parameter in each of the loaded modules that the regex matches."""
        try:
            matches = compile_regex(f"^({item.modules})$").search
        except ValueError as problem:
            self.error(item, f"{item.modules!r} is no regular expression: {problem}")
            return
        modules = [module for name, module in self.loaded.items() if matches(name)]
        if not modules:
            later = [m.name for m in self.config.modules if matches(m.name)]
            if later:
                text = f"a parameter of {item.modules} before the module is loaded"
                self.error(item, text, f'move loadmodule "{later[0]}.so" above it')
                return
            known = [name for name in self.symbols.catalogue if matches(name)]
            hint = load_first(known) if known else guess(item.modules, self.loaded)
            self.error(item, f"no loaded module is called {item.modules}", hint)
        for module in modules:
            if module.name in self.symbols.modules:
                self.check_parameter(item, module)

    def check_parameter(self, item: ModParam, module: ModuleSymbols) -> None:
        """Check that a module has a parameter, and the type of its value."""
        found = next((p for p in module.parameters if p.name == item.name), None)
        if found is None and item.name in module.later:
            self.error(item, f"sipgw has no parameter {item.name} of {module.name} yet", module.later[item.name])
            return
        if found is None:
            hint = guess(item.name, [p.name for p in module.parameters])
            self.error(item, f"the module {module.name} has no parameter {item.name}", hint)
            return
        value = item.value
        if found.kind is ParamKind.INT and not isinstance(value, Int):
            hint = f"write {value.value} without quotes" if value.value.lstrip("-").isdigit() else ""
            self.error(value, f"the parameter {item.name} of {module.name} is a number", hint)
        elif found.kind is ParamKind.STR and isinstance(value, Int):
            self.error(
                value, f"the parameter {item.name} of {module.name} is a string", f'write "{value.value}"'
            )
        elif found.check is not None:
            try:
                found.check(value.value)
            except ValueError as problem:
                self.error(value, f"the parameter {item.name} of {module.name}: {problem}")

    # ---- globals and sockets ----

    def check_setting(self, item: Setting) -> None:
        """Check that a global exists, and its value."""
        found = GLOBALS.get(item.name)
        if found is None:
            self.error(item, f"there is no global {item.name}", guess(item.name, GLOBALS))
            return
        problem = setting_problem(found, item.value)
        if problem:
            self.error(item, f"{item.name}: {problem}")
        self.check_profile(item, item.profile)

    def check_profile(self, item: Setting | Socket, name: str) -> None:
        """Warn when an auto-scaling profile does not exist; OpenSIPS goes on without it."""
        if name and name.lower() not in self.profiles:
            hint = guess(name, [p.name for p in self.config.scaling_profiles])
            self.warn(item, f"there is no auto_scaling_profile {name}", hint)

    def check_socket(self, item: Socket) -> None:
        """Check that the module which serves the protocol is loaded."""
        module = TRANSPORT_MODULES.get(item.protocol, f"proto_{item.protocol}")
        if self.symbols.catalogue and module not in self.symbols.modules:
            known = module in self.symbols.catalogue
            hint = f'add loadmodule "{module}.so"' if known else ""
            self.error(item, f"nothing serves the protocol {item.protocol}", hint)
        self.check_profile(item, item.profile)

    # ---- routes ----

    def check_route(self, route: Route) -> None:
        """Check one block."""
        if route.kind is not RouteKind.TIMER:
            self.unique(ROUTE_KEYWORDS[route.kind], route.name, route.pos)
        self.check_body(route)


def setting_problem(declared: Global, value: int | str) -> str:
    """Tell why a value does not fit a global; "" when it does."""
    kind = declared.type
    if kind is Type.OWN:
        return ""
    wants_int = kind in (Type.BOOL, Type.INT, Type.SIGNED)
    if wants_int and not isinstance(value, int):
        return f"the value is {kind.value}"
    if isinstance(value, int):
        if not wants_int and kind is not Type.INT_OR_WORD:
            return f"the value is {kind.value}"
        return "the value can not be negative" if value < 0 and kind is not Type.SIGNED else ""
    if declared.choices:
        # words are compared in any case (LOG_DAEMON, log_daemon), strings as they are
        compared = value if kind is Type.STR else value.lower()
        if compared not in declared.choices:
            return guess(compared, declared.choices) or f"one of {', '.join(declared.choices)}"
    return ""


def check(config: Config, symbols: Symbols, source: Source | None = None) -> Findings:
    """Check a configuration; ``source`` gives the errors their lines and their order."""
    checker = Checker(config, symbols)
    checker.check()
    if source is not None:
        checker.errors.sort(key=source.order)
        checker.warnings.sort(key=source.order)
        for remark in [*checker.errors, *checker.warnings]:
            source.illustrate(remark)
    return checker
