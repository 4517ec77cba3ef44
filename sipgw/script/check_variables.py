"""What a checker asks of variables, of the texts they stand in, and of transformations.

``Findings`` collects errors and warnings; the other halves of the checker build on these classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sipgw.script.cursor import inside
from sipgw.script.errors import ScriptError, ScriptWarning, guess
from sipgw.script.formats import parse_format
from sipgw.script.nodes import Format, Node, Pos, Str, Transformation, Variable, walk
from sipgw.script.symbols import ModuleSymbols, Symbols
from sipgw.script.transformations import split_index

CONTEXTS = ("request", "reply")

USELESS = re.compile(r"\{[a-z]+\.[\w.]+[^{}]*\}", re.IGNORECASE)
"""A transformation that stands behind a variable instead of inside its parentheses."""


class Findings:
    """Errors and warnings, each with its place."""

    def __init__(self) -> None:
        self.errors: list[ScriptError] = []
        self.warnings: list[ScriptWarning] = []

    def error(self, where: Node | Pos, text: str, hint: str = "") -> None:
        """Note an error."""
        pos = where.pos if isinstance(where, Node) else where
        self.errors.append(ScriptError(*pos, text, hint))

    def warn(self, where: Node | Pos, text: str, hint: str = "") -> None:
        """Note a warning."""
        pos = where.pos if isinstance(where, Node) else where
        self.warnings.append(ScriptWarning(*pos, text, hint))


class VariableChecks(Findings):
    """Looks every variable up, with its name, index, context and transformations."""

    def __init__(self, symbols: Symbols) -> None:
        super().__init__()
        self.symbols = symbols
        self.variable_names = sorted({name for name, _ in symbols.variables})
        self.transformation_names = sorted(symbols.transformations)

    def check_variable(self, variable: Variable) -> None:
        """Check a variable and those inside it."""
        if variable.name == "$":
            return
        named = variable.subname is not None
        found = self.symbols.variable(variable.name, named)
        if found is None:
            self.unknown_variable(variable)
        else:
            if isinstance(variable.subname, str) and found.check is not None and "$" not in variable.subname:
                try:
                    found.check(variable.subname)
                except ValueError as problem:
                    self.error(variable, f"${variable.name}({variable.subname}): {problem}")
            if variable.index is not None and not found.takes_index:
                self.error(variable, f"${variable.name} has no index")
            elif variable.index == "append" and variable.name != "avp":
                self.error(variable, f"[append] is for $avp only, not for ${variable.name}")
        if variable.context is not None and variable.context not in CONTEXTS:
            hint = guess(variable.context, CONTEXTS) or "there are <request> and <reply>"
            self.error(variable, f"there is no context <{variable.context}>", hint)
        for part in (variable.subname, variable.index):
            if isinstance(part, Variable):
                self.check_variable(part)
        if isinstance(variable.subname, str) and "$" in variable.subname:
            self.check_text(variable.subname, variable.pos)
        for transformation in variable.transformations:
            self.check_transformation(transformation)

    def unknown_variable(self, variable: Variable) -> None:
        """Note that there is no such variable, with the best guess why."""
        name, named = variable.name, variable.subname is not None
        if self.symbols.variable(name, not named) is not None:
            if named:
                self.error(variable, f"${name} has no name in parentheses", f"write ${name}")
            else:
                self.error(variable, f"${name} needs a name in parentheses", f"write ${name}(...)")
            return
        owners = self.owners(m for m in self.symbols.catalogue.values() if _has_variable(m, name))
        if owners:
            self.error(variable, f"the variable ${name} is not there yet", load_first(owners))
            return
        hint = guess(name, self.variable_names)
        hint = hint.replace("`", "`$", 1) if hint else ""
        first, dot, rest = name.partition(".")
        if dot and self.symbols.variable(first, False) is not None:
            hint = f"write $({first}).{rest} when the text goes on with `.{rest}`"
        self.error(variable, f"there is no variable ${name}", hint)

    def owners(self, modules: Iterable[ModuleSymbols]) -> list[str]:
        """The names of modules that are not loaded, of those given."""
        return [m.name for m in modules if m.name not in self.symbols.modules]

    def check_transformation(self, transformation: Transformation) -> None:
        """Check that a transformation exists and has the arguments it needs."""
        name, _ = split_index(f"{transformation.kind}.{transformation.op}")
        found = self.symbols.transformations.get(name)
        count = len(transformation.arguments)
        if found is None:
            self.unknown_transformation(transformation, name)
        elif count < found.least:
            wanted = "an argument" if found.least == 1 else f"{found.least} arguments"
            self.error(transformation, f"{{{name}}} needs {wanted}", f"write {{{name},...}}")
        elif count and not found.most:
            self.warn(transformation, f"{{{name}}} has no arguments; `{transformation.text}` is ignored")
        for argument in transformation.arguments:
            if isinstance(argument, Variable):
                self.check_variable(argument)

    def unknown_transformation(self, transformation: Transformation, name: str) -> None:
        """Note that there is no such transformation."""
        kind = transformation.kind
        owners = self.owners(
            m for m in self.symbols.catalogue.values() if any(t.name == name for t in m.transformations)
        )
        if owners:
            self.error(transformation, f"the transformation {{{name}}} is not there yet", load_first(owners))
            return
        of_kind = [n for n in self.transformation_names if n.startswith(kind + ".")]
        hint = guess(name, of_kind or self.transformation_names)
        self.error(transformation, f"there is no transformation {{{name}}}", hint)

    def check_text(self, text: str, pos: Pos) -> Format | None:
        """Check the variables in a text whose first letter is at ``pos``; None when it cannot be read."""
        try:
            found = parse_format(text, pos)
        except ScriptError as error:
            self.errors.append(error)
            return None
        self.check_format(found)
        return found

    def check_string(self, string: Str) -> Format | None:
        """Check the variables in a quoted string."""
        return self.check_text(string.value, inside(string.pos)) if "$" in string.value else None

    def check_format(self, found: Format) -> None:
        """Check the variables in a text, and whether a transformation stands outside of one."""
        previous: Variable | None = None
        for piece in found.pieces:
            if isinstance(piece, Variable):
                self.check_variable(piece)
                previous = piece
                continue
            match = USELESS.match(piece) if previous is not None and not previous.transformations else None
            if match and previous is not None and previous.subname is None and previous.index is None:
                hint = f"write $({previous.name}{match[0]})"
                self.warn(previous, f"{match[0]} after ${previous.name} stays in the text as it is", hint)

    def check_target(self, variable: Variable) -> None:
        """Check a variable that is assigned to."""
        self.check_variable(variable)
        found = self.symbols.variable(variable.name, variable.subname is not None)
        if found is not None and not found.writable:
            self.error(variable, f"${variable.name} can only be read")

    def warn_unexpanded(self, string: Str, where: str) -> None:
        """Warn of a string with a known variable in it, in a place where nothing is expanded."""
        if "$" not in string.value:
            return
        try:
            found = parse_format(string.value)
        except ScriptError:
            return
        for node in walk(found):
            if isinstance(node, Variable) and self.symbols.variable(node.name, node.subname is not None):
                hint = f'join with `+`: "..." + ${node.name}'
                if where.endswith("()"):
                    hint = "xlog expands variables" if where == "log()" else "assign it to a $var first"
                self.warn(string, f"${node.name} is not expanded in {where}", hint)
                return


def load_first(modules: list[str]) -> str:
    """Phrase which module to load."""
    names = " or ".join(f'"{name}.so"' for name in sorted(modules)[:3])
    return f"load module {names} first"


def _has_variable(module: ModuleSymbols, name: str) -> bool:
    return any(v.name == name for v in module.variables)
