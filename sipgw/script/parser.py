"""The parser of opensips.cfg: recursive descent, one method for each construct, all faults in one reading.

`read` gives what could be understood together with all faults; `parse` gives the tree, or raises them. The
constructs are spread over `expressions`, `statements` and `definitions`; here is what holds them
together, the route blocks. Names align with the tree: `parse_if` makes a `nodes.If`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from sipgw.script.cursor import TOP_WORDS, Lost
from sipgw.script.definitions import Definitions
from sipgw.script.dialect import OLD_VARIABLE, VARIABLES
from sipgw.script.errors import ScriptError, ScriptErrors, ScriptWarning, guess
from sipgw.script.formats import parse_format, parse_variable
from sipgw.script.globals import GLOBALS, SPELLINGS
from sipgw.script.nodes import Config, Item, Route
from sipgw.script.preprocess import Source
from sipgw.script.statements import STATEMENTS, Statements
from sipgw.script.symbols import ROUTE_KEYWORDS, RouteKind

__all__ = ["Parsed", "parse", "parse_format", "parse_variable", "read"]

KINDS = {keyword: kind for kind, keyword in ROUTE_KEYWORDS.items()}

NAMELESS = RouteKind.ERROR | RouteKind.LOCAL | RouteKind.STARTUP
"""Blocks of which there is one, without a name."""

FOREIGN = {
    "request_route": "write `route`",
    "reply_route": "write `onreply_route`",
    "onsend_route": "there is no such route",
    "import_file": "it stands alone on its line, with the name in quotes",
    "include_file": "it stands alone on its line, with the name in quotes",
}
"""Words of Kamailio, or out of place."""

MAX_ERRORS = 100


@dataclass
class Parsed:
    """What a reading has given: the tree of all that could be understood, and all that is wrong with the
    rest."""

    config: Config
    errors: list[ScriptError]
    warnings: list[ScriptWarning]


class Parser(Statements, Definitions):
    """Reads one source, once."""

    def parse_config(self) -> Config:
        """Read everything up to the end of the file."""
        items: list[Item] = []
        while self.kind != "EOF" and len(self.errors) < MAX_ERRORS:
            start = self.at
            try:
                items.extend(self.parse_item())
            except Lost:
                self.skip_item(start)
        return Config(tuple(items), pos=self.source.pos(0))

    def parse_item(self) -> list[Item]:
        """Read one definition, global or route."""
        if self.kind != "ID":
            self.top_fault()
        word = self.value
        if word in KINDS:
            return [self.parse_route()]
        if word == "loadmodule":
            return self.parse_loadmodule()
        if word == "modparam":
            return self.parse_modparam()
        if self.following() == "=" or (word == "mem" and self.following() == "-"):
            return self.parse_global()
        self.top_fault()

    def top_fault(self) -> NoReturn:
        """Note what is wrong where a definition or a route was expected."""
        word = self.value
        if self.kind == "}":
            self.advance()
            self.fail("a `}` too many", "", self.tokens.starts[self.at - 1])
        if self.kind == ";":
            before = self.tokens.kinds[self.at - 1] if self.at else ""
            hint = "the `}` of a route takes none" if before == "}" else "outside of routes nothing takes one"
            self.fail("no `;` here", hint)
        if self.kind == "VAR" or (self.kind == "ID" and (word in STATEMENTS or self.following() == "(")):
            if word not in FOREIGN:
                hint = "statements stand inside a route; does a `}` above close it too early?"
                self.fail(f"the statement {self.shown()} outside of a route", hint)
        if self.kind == "ID":
            known = [*GLOBALS, *SPELLINGS, *KINDS, *TOP_WORDS]
            hint = FOREIGN.get(word) or guess(word, known)
            self.fail(f"`{word}` begins nothing that can stand here", hint)
        self.expected("a global, a module or a route", "")

    def skip_item(self, start: int) -> None:
        """Go past something that made no sense, to where the next definition may begin."""
        if self.at == start:
            self.advance()
        depth = 0
        while self.kind != "EOF":
            if self.kind == "{":
                depth += 1
            elif self.kind == "}":
                depth = max(depth - 1, 0)
            elif self.kind == "ID" and (depth == 0 or self.pos().column == 1):
                if self.opens_route() or (depth == 0 and self.begins_global()):
                    return
            self.advance()

    def begins_global(self) -> bool:
        """Tell whether a global, or something like it, begins on this line."""
        if not self.on_new_line():
            return False
        return self.value in GLOBALS or self.value in SPELLINGS or self.following() in ("=", "{")

    def note_old_variables(self) -> None:
        """Give a hint for each variable, also inside a string, that has another name now."""
        tokens = self.tokens
        for at, kind in enumerate(tokens.kinds):
            if kind == "VAR" or (kind == "STR" and "$" in tokens.values[at]):
                for match in OLD_VARIABLE.finditer(tokens.text(at)):
                    name, subname, index = VARIABLES[match[1]]
                    new = name + (f"({subname})" if subname else "") + (f"[{index}]" if index is not None else "")
                    hint = f"write $({new})" if index is not None else f"write ${new}"
                    if kind == "VAR" and index is not None and tokens.kinds[at + 1] == "=":
                        hint = f"write ${name}"
                    tokens.warn(tokens.starts[at] + match.start(), f"`${match[1]}` has another name now", hint)

    # ---- routes ----

    def parse_route(self) -> Route:
        """Read a route block of any kind."""
        pos, start = self.pos(), self.offset
        kind = KINDS[self.value]
        self.advance()
        name, interval = self.parse_route_head(kind)
        if self.kind != "{":
            hint = "" if self.kind in ("EOF", "ID") else "a route is followed by a block: { ... }"
            self.expected("`{`", hint)
        brace = self.at
        self.loops = 0
        body = self.parse_block()
        end = self.source.pos(self.tokens.starts[self.at - 1])
        if self.at - brace == 2 and not body:
            self.error("an empty route", "write at least `exit;` or `;`", start)
        return Route(kind, name, body, interval, end, pos=pos)

    def parse_route_head(self, kind: RouteKind) -> tuple[str, int]:
        """Read the name in brackets, and the seconds of a timer_route."""
        keyword = ROUTE_KEYWORDS[kind]
        if self.kind != "[":
            if kind in NAMELESS:
                return "", 0
            if kind is RouteKind.REQUEST or kind is RouteKind.ONREPLY:
                return "0", 0
            hint = f"write {keyword}[name, 60]" if kind is RouteKind.TIMER else f"write {keyword}[name]"
            self.expected(f"the name of the {keyword} in brackets", hint)
        if kind in NAMELESS:
            self.fail(f"there is one {keyword}, without a name", f"write {keyword} {{ ... }}")
        self.advance()
        name = self.constant_route_name()
        interval = 0
        if kind is RouteKind.TIMER:
            if not self.accept(","):
                self.expected("`,` and an interval in seconds", f"write timer_route[{name}, 60]")
            interval = self.expect("NUM", "an interval in seconds")
        self.expect("]")
        return name, interval


def read(source: Source | str, file: str = "opensips.cfg") -> Parsed:
    """Read a flattened source (or one text without includes) as far as it can be understood."""
    if isinstance(source, str):
        source = Source.of(source, file)
    parser = Parser(source)
    config = parser.parse_config()
    parser.note_old_variables()
    errors = sorted(parser.errors, key=source.order)
    warnings = sorted(parser.warnings, key=source.order)
    for remark in [*errors, *warnings]:
        source.illustrate(remark)
    return Parsed(config, errors, warnings)


def parse(source: Source | str, file: str = "opensips.cfg") -> Config:
    """Read a source; raises ScriptErrors with all of its faults."""
    parsed = read(source, file)
    if parsed.errors:
        raise ScriptErrors(parsed.errors, parsed.warnings)
    return parsed.config
