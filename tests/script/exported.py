"""What OpenSIPS's modules export, as symbols for the tests: names, kinds of parameters and routes, no code.

``tests/data/opensips_exports.json`` has for each module ``functions`` (name, routes, parameters: name,
kind, 1 if optional), ``variables`` (name and letters: n takes a name, i takes an index, w can be
written) and ``parameters``. """

import json
from functools import cache
from pathlib import Path
from typing import Any

from sipgw.script.symbols import (
    Function,
    Kind,
    ModuleParameter,
    ModuleSymbols,
    Parameter,
    ParamKind,
    RouteKind,
    Symbols,
    Transformation,
    Variable,
)
from sipgw.script.transformations import TRANSFORMATIONS

DATA = Path(__file__).parent.parent / "data" / "opensips_exports.json"

DEPENDS = {"registrar": ("usrloc",), "dialog": ("tm",), "mi_http": ("httpd",)}


def routes(names: str) -> RouteKind:
    """A mask from the names of kinds."""
    mask = RouteKind(0)
    for name in names.split():
        mask |= RouteKind[name]
    return mask


def parameter(name: str, kind: str, optional: int = 0) -> Parameter:
    kind, _, route = kind.partition(":")
    return Parameter(name, Kind[kind], bool(optional), RouteKind[route or "REQUEST"])


def module(name: str, entry: dict[str, Any]) -> ModuleSymbols:
    """The symbols of one module."""
    core = name == "core"
    return ModuleSymbols(
        name,
        tuple(
            Function(f, name, tuple(parameter(*p) for p in parameters), routes(mask))
            for f, mask, parameters in entry["functions"]
        ),
        tuple(
            Variable(v, None, print if "w" in flags else None, "n" in flags, "i" in flags, module=name)
            for v, flags in entry["variables"]
        ),
        TRANSFORMATIONS if core else tuple(Transformation(t) for t in entry.get("transformations", ())),
        tuple(ModuleParameter(p, ParamKind[kind]) for p, kind in entry["parameters"]),
        DEPENDS.get(name, ()),
    )


@cache
def catalogue() -> dict[str, ModuleSymbols]:
    """All modules of the data file, and one that has retired in OpenSIPS but not here."""
    retired = ModuleSymbols("uri", parameters=(ModuleParameter("use_uri_table", ParamKind.INT),))
    return {"uri": retired, **{name: module(name, entry) for name, entry in json.loads(DATA.read_text("utf-8")).items()}}


def symbols(*names: str) -> Symbols:
    """The symbols of a configuration that loads these modules."""
    everything = catalogue()
    return Symbols.of([everything["core"], *(everything[n] for n in names if n in everything)], everything)
