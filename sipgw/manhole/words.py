"""How a person writes a management command: words behind its name, by position or ``name=value``.

What a command takes is told by ``describe`` (the box ``Describe``): its parameters with their kinds, and its recipes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sipgw.exports import ArgumentKind, Command

_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


def describe(command: Command) -> dict[str, Any]:
    """What a command is and takes, as JSON can hold it."""
    parameters = [
        {"name": each.name, "kind": command.kinds[each.name].value, "optional": each.default is not each.empty}
        for each in command.parameters
    ]
    return {
        "name": command.full,
        "aliases": list(command.aliases),
        "help": command.help,
        "parameters": parameters,
        "recipes": command.recipes,
    }


def read_words(described: Mapping[str, Any], words: Sequence[str]) -> list[Any] | dict[str, Any]:
    """The parameters that ``words`` give; ``ValueError`` if they are neither all named nor all unnamed.

    A list is written ``a,b,c`` or as JSON; unnamed ones beyond the last parameter belong to its list, where no
    recipe has as many."""
    kinds = {each["name"]: each["kind"] for each in described["parameters"]}
    named = {found[1]: found[2] for found in map(_NAMED.fullmatch, words) if found is not None and found[1] in kinds}
    if words and len(named) == len(words):
        return {name: _value(kinds[name], text) for name, text in named.items()}
    if named:
        raise ValueError("name all parameters, or none")
    fitting = next((recipe for recipe in described["recipes"] if len(recipe) == len(words)), None)
    if fitting is not None:
        return _positional(kinds, fitting, words)
    for recipe in described["recipes"]:
        if recipe and kinds[recipe[-1]] == ArgumentKind.LIST.value and len(words) > len(recipe):
            count = len(recipe) - 1
            return [*_positional(kinds, recipe, words[:count]), list(words[count:])]
    return list(words)


def _positional(kinds: Mapping[str, str], recipe: Sequence[str], words: Sequence[str]) -> list[Any]:
    return [_value(kinds[name], text) for name, text in zip(recipe, words, strict=False)]


def _value(kind: str, text: str) -> Any:
    if kind in (ArgumentKind.LIST.value, ArgumentKind.JSON.value):
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if kind == ArgumentKind.JSON.value or isinstance(value, list):
            return value
        return text.split(",")
    return text


def usage(described: Mapping[str, Any], program: str = "") -> str:
    """How the command is called, a line for each recipe, and what it does."""
    kinds = {each["name"]: each["kind"] for each in described["parameters"]}
    lines = []
    for recipe in described["recipes"]:
        shown = [f"{name}=A,B" if kinds[name] == ArgumentKind.LIST.value else f"{name}={kinds[name].upper()}" for name in recipe]
        lines.append(" ".join([*program.split(), described["name"], *shown]))
    return "\n".join([*(f"usage: {line}" for line in lines), described["help"]])


def complete(described: Mapping[str, Any], words: Sequence[str]) -> list[str]:
    """What may come behind ``words``: the names of the parameters that are not there yet, each with its ``=``."""
    there = {found[1] for found in map(_NAMED.fullmatch, words) if found is not None}
    fitting = [recipe for recipe in described["recipes"] if there <= set(recipe)]
    return [f"{name}=" for name in dict.fromkeys(name for recipe in fitting for name in recipe) if name not in there]
