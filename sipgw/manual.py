"""The manual of the modules, written from what they export: ``python -m sipgw.manual [NAME...] [--into DIRECTORY]``.

One page a module, in the order of OpenSIPS's own manuals: overview, dependencies, parameters, functions, management commands,
statistics, variables, events. Nothing in it is written by hand, so it cannot say what is not there."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from pathlib import Path

from sipgw.catalogue import core_modules, module_classes
from sipgw.exports import Module, spoken
from sipgw.script.symbols import ROUTE_KEYWORDS, Function, Parameter, RouteKind


def page(name: str, classes: list[type[Module]]) -> str:
    """The page of one module, in Markdown; ``classes`` are those that bear its name (the core has several)."""
    lines = [f"# {name}", ""]
    for each in classes:
        lines += [inspect.getdoc(each) or "", ""]
    symbols = [each.declared() for each in classes]
    depends = sorted({module for found in symbols for module in found.depends})
    lines += ["## Dependencies", "", ", ".join(f"`{module}`" for module in depends) or "None.", ""]
    for title, entries in (
        ("Parameters", [line for each in classes for line in _parameters(each)]),
        ("Functions", [line for each in classes for line in _functions(each)]),
        ("Management commands", [line for each in classes for line in _commands(each)]),
        ("Statistics", [line for each in classes for line in _statistics(each)]),
        ("Variables", [line for each in classes for line in _variables(each)]),
        ("Events", [line for each in classes for line in _events(each)]),
        ("Of OpenSIPS, and refused by this version", [line for each in classes for line in _later(each)]),
    ):
        if entries:
            lines += [f"## {title}", "", *entries, ""]
    return "\n".join(lines).rstrip() + "\n"


def _parameters(module: type[Module]) -> Iterator[str]:
    for name, declared in sorted(module.exports.parameters.items()):
        default = "" if declared.default is None else f", default `{declared.default!r}`"
        effect = f" No effect: {declared.unused}." if declared.unused else ""
        many = "; may be repeated" if declared.each else ""
        yield f"- **{name}** ({declared.kind.value}{default}{many}): {declared.doc}.{effect}"


def _signature(function: Function) -> str:
    def spelled(parameter: Parameter) -> str:
        text = f"{parameter.name.rstrip('_')}: {parameter.kind.value}"
        return f"[{text}]" if parameter.optional else text

    return f"{function.name}({', '.join(spelled(parameter) for parameter in function.parameters)})"


def _routes(routes: RouteKind) -> str:
    if routes == RouteKind.ANY:
        return "any route"
    return ", ".join(word for kind, word in ROUTE_KEYWORDS.items() if routes & kind)


def _functions(module: type[Module]) -> Iterator[str]:
    for function in sorted(module.declared().functions, key=lambda found: found.name):
        waits = "; may wait" if function.waits else ""
        text = " ".join((inspect.getdoc(function.call) or "").split("\n\n")[0].split())
        yield f"- `{_signature(function)}` ({_routes(function.routes)}{waits}): {text}"


def _commands(module: type[Module]) -> Iterator[str]:
    for attribute, _, mark in module.exports.functions:
        if mark.what == "mi":
            doc = " ".join((inspect.getdoc(getattr(module, attribute)) or "").split("\n\n")[0].split())
            names = [
                spoken(name) if parameter.default is inspect.Parameter.empty else f"[{spoken(name)}]"
                for name, parameter in inspect.signature(getattr(module, attribute)).parameters.items()
                if name != "self"
            ]
            older = "".join(f", older `{alias}`" for alias in mark.options["aliases"])
            full = f"{mark.options.get('module') or module.name}:{mark.name}"
            yield f"- `{' '.join([full, *names])}`{older}: {doc}"


def _statistics(module: type[Module]) -> Iterator[str]:
    for name, declared in sorted(module.exports.statistics.items()):
        yield f"- `{declared.name or name}`: {declared.doc}"


def _variables(module: type[Module]) -> Iterator[str]:
    for variable in sorted(module.declared().variables, key=lambda found: found.name):
        name = f"{variable.name}(name)" if variable.takes_name else variable.name
        index = "[i]" if variable.takes_index else ""
        text = " ".join((inspect.getdoc(variable.getter) or "").split("\n\n")[0].split())
        yield f"- `${name}{index}` ({'read and write' if variable.writable else 'read'}): {text}"


def _events(module: type[Module]) -> Iterator[str]:
    for declared in sorted(module.exports.events.values(), key=lambda found: found.name):
        yield f"- `{declared.name}`({', '.join(declared.parameters)})"


def _later(module: type[Module]) -> Iterator[str]:
    for name, needs in sorted(module.later.items()):
        yield f"- **{name}**: {needs}"


def pages() -> dict[str, str]:
    """All pages by module."""
    found = {"core": list(core_modules().values())}
    for name, each in module_classes().items():
        found.setdefault(name, []).append(each)
    return {name: page(name, classes) for name, classes in sorted(found.items())}


def main() -> None:
    """Print the pages asked for, or write all into a directory."""
    parser = argparse.ArgumentParser(description="Write the manual of sipgw's modules.")
    parser.add_argument("name", nargs="*", help="modules; all if none is named")
    parser.add_argument("--into", type=Path, help="write NAME.md into this directory instead of printing")
    given = parser.parse_args()
    made = pages()
    for name in given.name or made:
        if name not in made:
            parser.error(f"there is no module {name}")
        if given.into is None:
            print(made[name])
        else:
            given.into.mkdir(parents=True, exist_ok=True)
            (given.into / f"{name}.md").write_text(made[name], encoding="utf-8")


if __name__ == "__main__":
    main()
