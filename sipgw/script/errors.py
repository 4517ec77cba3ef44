"""What can be wrong with a configuration: errors, which keep the server from starting, and warnings.

Both know where they stand and show it: the line, a caret below it, and a guess at what was meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

WIDEST = 150
"""Characters of a line of the configuration that are shown with a remark, so that the caret stands right on a screen."""


class Located(Exception):
    """A remark about one place of a configuration. ``hint``: a guess at what was meant, without "hint:".

    ``excerpt``: the line of the file; empty when it is not known (`preprocess.Source.illustrate` adds it)."""

    def __init__(
        self, file: str, line: int, column: int, text: str, hint: str = "", excerpt: str = ""
    ) -> None:
        super().__init__(file, line, column, text)
        self.file = file
        self.line = line
        self.column = column
        self.text = text
        self.hint = hint
        self.excerpt = excerpt
        self.included: Sequence[tuple[str, int]] = ()
        """Where the file was included, the innermost first."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text}"

    def render(self) -> str:
        """Show the remark with the line of the file, a caret, the hint and the chain of includes."""
        lines = [str(self)]
        if self.excerpt.strip():
            shown, at = _window(self.excerpt.replace("\t", " "), max(self.column - 1, 0))
            lines += ["    " + shown, "    " + " " * at + "^"]
        if self.hint:
            lines.append(f"    hint: {self.hint}")
        lines += [f"    included at {file}:{line}" for file, line in self.included]
        return "\n".join(lines)


def _window(line: str, at: int) -> tuple[str, int]:
    """What is shown of a long line, ``WIDEST`` characters around the place, and where the place is in that."""
    if len(line) <= WIDEST:
        return line, at
    start = max(0, min(at - WIDEST // 2, len(line) - WIDEST))
    end = start + WIDEST
    before, after = "... " if start else "", " ..." if end < len(line) else ""
    return before + line[start:end] + after, at - start + len(before)


class ScriptError(Located):
    """A fault in the configuration (or in a value that a module refuses)."""


class ScriptWarning(Located):
    """Something that works, but not as it looks, or is written as an older release had it."""


class ScriptErrors(Exception):
    """All faults of a configuration at once, in the order of the file; ``warnings`` come along."""

    def __init__(self, errors: Iterable[ScriptError], warnings: Iterable[ScriptWarning] = ()) -> None:
        self.errors = list(errors)
        self.warnings = list(warnings)
        super().__init__(self.errors)

    def __str__(self) -> str:
        return "\n".join(error.render() for error in self.errors)


def guess(word: str, known: Iterable[str]) -> str:
    """Phrase a hint with the known name that looks most like ``word``; "" when nothing does."""
    names = list(known)
    letters = sorted(word)
    close = [name for name in names if len(name) == len(word) and sorted(name) == letters]
    close = close or difflib.get_close_matches(word, names, 1, 0.65)
    if not close:
        lowered = {name.lower(): name for name in names}
        close = [lowered[word.lower()]] if word.lower() in lowered else []
    return f"did you mean `{close[0]}`?" if close else ""
