"""From the text of a configuration to a checked tree: reading, modernising and checking in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sipgw.script.checker import check
from sipgw.script.dialect import modernise
from sipgw.script.errors import ScriptErrors, ScriptWarning
from sipgw.script.nodes import Config
from sipgw.script.parser import read
from sipgw.script.preprocess import Source
from sipgw.script.symbols import Symbols

SymbolsOf = Callable[[Sequence[str]], Symbols]
"""Gives the symbols of the core and of the modules of these names; names it does not know it leaves out."""


def module_names(config: Config) -> list[str]:
    """Tell which modules a configuration loads, by today's names."""
    return [module.name for module in modernise(config)[0].modules]


def load(source: Source, symbols_of: SymbolsOf) -> tuple[Config, list[ScriptWarning]]:
    """Read and check a configuration; raises ScriptErrors with everything that is wrong with it.

    Returns the tree, in today's language, and all warnings in the order of the file."""
    parsed = read(source)
    symbols = symbols_of(module_names(parsed.config))
    config, hints = modernise(parsed.config, symbols)
    findings = check(config, symbols)
    errors = sorted([*parsed.errors, *findings.errors], key=source.order)
    warnings = sorted([*parsed.warnings, *hints, *findings.warnings], key=source.order)
    for remark in [*errors, *warnings]:
        source.illustrate(remark)
    if errors:
        raise ScriptErrors(errors, warnings)
    return config, warnings
