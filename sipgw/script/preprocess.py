"""One text out of a configuration and all it includes, with the origin of each line kept.

``include_file "f"`` and ``import_file "f"`` are the same: alone at the head of a line, replaced by the
lines of the file, before anything else is looked at (so also inside a route, even inside a comment). The
rest of that line is lost. A name is looked up as it is, then beside the including file. A file that
cannot be read is fatal.

An external preprocessor (``-p "m4 ..."``) sees the whole text with a marker line before each line:
`Source.marked` writes them, `unmark` reads them back from whatever the preprocessor has made of it.
"""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from sipgw.script.errors import Located, ScriptError
from sipgw.script.nodes import Pos

MAX_DEPTH = 50
"""How deep includes may nest, the first file counted."""

INCLUDE = re.compile(r"""[ \t]*(?:include_file|import_file)[ \t]*(["'])(.*?)\1""")
MARKER = re.compile(
    r'__OSSPP_(?:LINE__ (?P<line>\d+)|FILEBEGIN__ "(?P<begin>[^"\n]*)"|(?P<end>FILEEND__))\n?'
)

Reader = Callable[[str], str]
"""Gives the text of a file, or raises OSError."""


@dataclass
class Source:
    """A flattened configuration. ``origins``: for each line of ``text`` its file and its number there."""

    text: str
    origins: list[tuple[str, int]]
    included: dict[str, tuple[str, int]] = field(default_factory=dict)
    """For each included file where that was."""
    _starts: list[int] = field(default_factory=list, repr=False)
    _places: dict[tuple[str, int], int] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, text: str, file: str = "opensips.cfg") -> Source:
        """Make a source of one text without includes."""
        return cls(text, [(file, number) for number in range(1, text.count("\n") + 2)])

    @property
    def starts(self) -> list[int]:
        """The offset of each line."""
        if not self._starts:
            starts = [0]
            find, at = self.text.find, 0
            while (at := find("\n", at) + 1) > 0:
                starts.append(at)
            self._starts = starts
        return self._starts

    def pos(self, offset: int) -> Pos:
        """Tell where the character at ``offset`` came from."""
        starts = self._starts or self.starts
        index = bisect_right(starts, offset) - 1
        file, line = self.origins[index]
        return Pos(file, line, offset - starts[index] + 1)

    def line(self, file: str, number: int) -> str:
        """Give a line of a file as it stands in the text; "" when it is not there."""
        if not self._places:
            for index, origin in enumerate(self.origins):
                self._places.setdefault(origin, index)
        found = self._places.get((file, number))
        if found is None:
            return ""
        end = self.text.find("\n", self.starts[found])
        return self.text[self.starts[found] : end if end >= 0 else len(self.text)]

    def order(self, remark: Located) -> tuple[int, int]:
        """Sort key of a remark: where it stands in the text."""
        self.line(remark.file, remark.line)
        return self._places.get((remark.file, remark.line), -1), remark.column

    def chain(self, file: str) -> list[tuple[str, int]]:
        """Tell where ``file`` was included, and where that file was, up to the first."""
        chain: list[tuple[str, int]] = []
        while file in self.included and self.included[file] not in chain:
            chain.append(self.included[file])
            file = chain[-1][0]
        return chain

    def illustrate(self, remark: Located) -> None:
        """Give an error or a warning the line and the includes that it shows."""
        if not remark.excerpt:
            remark.excerpt = self.line(remark.file, remark.line)
        remark.included = self.chain(remark.file)

    def marked(self) -> str:
        """Write the text with a marker before each line, for an external preprocessor."""
        pieces: list[str] = []
        open_files: list[str] = []
        for (file, number), line in zip(self.origins, self.text.split("\n"), strict=True):
            if file in open_files:
                while open_files[-1] != file:
                    open_files.pop()
                    pieces.append("__OSSPP_FILEEND__\n")
            else:
                open_files.append(file)
                pieces.append(f'__OSSPP_FILEBEGIN__ "{file}"\n')
            pieces.append(f"__OSSPP_LINE__ {number}\n{line}\n")
        pieces += ["__OSSPP_FILEEND__\n"] * len(open_files)
        return "".join(pieces)


def unmark(text: str, included: dict[str, tuple[str, int]] | None = None) -> Source:
    """Take the markers out of what a preprocessor has made of `Source.marked`.

    A preprocessor may drop, repeat and join lines: each line gets the number of the last marker before
    it, counted on where it wrote more lines than it read. ``included``: that of the source that was
    marked."""
    pieces: list[str] = []
    origins: list[tuple[str, int]] = []
    files = ["(preprocessed)"]
    number, at, fresh = 1, 0, True
    for marker in [*MARKER.finditer(text), None]:
        piece = text[at : marker.start() if marker else len(text)]
        pieces.append(piece)
        for line in piece.splitlines(keepends=True):
            if fresh:
                origins.append((files[-1], number))
            fresh = line.endswith("\n")
            number += fresh
        if marker is None:
            break
        at = marker.end()
        if marker["line"]:
            number = int(marker["line"])
        elif marker["begin"] is not None:
            files.append(marker["begin"])
            number = 1
        elif len(files) > 1:
            files.pop()
    if fresh:
        origins.append((files[-1], number))
    return Source("".join(pieces), origins, included or {})


def flatten(file: str, read: Reader) -> Source:
    """Read ``file`` and all it includes, through ``read``; raises ScriptError when a file is missing."""
    try:
        text = read(file)
    except OSError as problem:
        raise ScriptError(file, 0, 0, f"cannot read the configuration: {_reason(problem)}") from problem
    lines: list[str] = []
    source = Source("", [])
    _flatten(file, text, read, source, lines, [])
    source.text = "\n".join(lines)
    return source


def _reason(problem: OSError) -> str:
    return problem.strerror or str(problem) or type(problem).__name__


def _flatten(
    file: str, text: str, read: Reader, source: Source, lines: list[str], chain: list[tuple[str, int]]
) -> None:
    content = text.split("\n")
    if chain and content[-1] == "":
        content.pop()
    for number, line in enumerate(content, 1):
        match = INCLUDE.match(line) if "_file" in line else None
        if match is None:
            lines.append(line)
            source.origins.append((file, number))
            continue
        here = [(file, number), *chain]

        def fail(text: str, match: re.Match[str] = match, here: list[tuple[str, int]] = here) -> ScriptError:
            column = match.start(1) + 1
            error = ScriptError(here[0][0], here[0][1], column, text, excerpt=match.string)
            error.included = here[1:]
            return error

        if len(here) >= MAX_DEPTH:
            raise fail(f"includes nest deeper than {MAX_DEPTH} files")
        name, included = _open(match[2], file, read, fail)
        source.included.setdefault(name, (file, number))
        _flatten(name, included, read, source, lines, here)


def _open(name: str, file: str, read: Reader, fail: Callable[[str], ScriptError]) -> tuple[str, str]:
    beside = posixpath.join(posixpath.dirname(file), name)
    problem: OSError | None = None
    for candidate in dict.fromkeys((name, beside)):
        try:
            return candidate, read(candidate)
        except OSError as failure:
            problem = problem or failure
    assert problem is not None
    raise fail(f"cannot read the included file {name!r}: {_reason(problem)}") from problem
