"""The names that generated code uses, and what they stand for: the globals of the compiled routes.

Every object that a route needs (a getter, a module's functions, a compiled pattern, another route) gets a readable Python name
here, once: the same object always has the same name, different objects never share one."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from typing import Any

from sipgw.script.values import CFG_MARK

_NOT_NAME = re.compile(r"[^0-9A-Za-z_]+")
_LOCAL = re.compile(r"(?:run|var|params|new|case|index|item|test|r|a)[0-9]*").fullmatch
"""Names that routes use for their own variables."""


class Exported:
    """The functions of one module, as attributes, so that generated code reads ``tm.t_relay(run)``."""

    def __init__(self, module: str) -> None:
        self.__dict__["__module_name__"] = module


def identifier(text: str) -> str:
    """A Python name as close to ``text`` as can be."""
    name = _NOT_NAME.sub("_", text).strip("_") or "x"
    if name[0].isdigit():
        name = f"_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


class Names:
    """The globals under construction. ``values``: name -> object, what the compiled code is run in."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {CFG_MARK: True}
        self._by_object: dict[int, str] = {}
        self._modules: dict[str, str] = {}

    def reserve(self, wanted: str) -> str:
        """A free name like ``wanted``, with no value yet."""
        base = identifier(wanted)
        if _LOCAL(base) or hasattr(builtins, base):
            base += "_"
        name, number = base, 2
        while name in self.values:
            name, number = f"{base}{number}", number + 1
        self.values[name] = None
        return name

    def bind(self, wanted: str, value: Any) -> ast.Name:
        """The name of ``value``: the one it has, else a new one like ``wanted``."""
        name = self._by_object.get(id(value))
        if name is None:
            name = self._by_object[id(value)] = self.reserve(wanted)
            self.values[name] = value
        return ast.Name(name, ast.Load())

    def exported(self, module: str, function: str, call: Any) -> ast.expr:
        """``module.function`` for a module's function; a second one of that name has a number behind."""
        if module not in self._modules:
            self._modules[module] = self.reserve(module)
            self.values[self._modules[module]] = Exported(module)
        name = self._modules[module]
        members = self.values[name].__dict__
        attribute = base = identifier(function)
        number = 2
        while members.get(attribute, call) is not call and members[attribute] != call:
            attribute = f"{base}_{number}"
            number += 1
        members[attribute] = call
        return ast.Attribute(ast.Name(name, ast.Load()), attribute, ast.Load())
