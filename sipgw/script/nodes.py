"""The tree that `parser` makes of an opensips.cfg, and that `dialect`, `checker` and `compiler` walk.

Names align as in Jinja: `parse_if` makes an `If`, `visit_If` compiles it. Every node has `pos`, which
takes no part in comparisons. What a quoted string means is its consumer's choice (language.md calls it
"neither quote style decides"): the tree holds a `Str`, and whoever expands variables calls
`parser.parse_format(text, pos)`. Where the language itself always expands (xlog, route("x_$y")), the
parser has done so and the tree holds a `Format`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple, TypeAlias

from sipgw.script.symbols import RouteKind


class Pos(NamedTuple):
    """Where something stands: the file as it was named, line and column from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


NOWHERE = Pos("", 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What every node has."""

    pos: Pos = field(default=NOWHERE, compare=False, repr=False)


# ---- values ----


@dataclass(frozen=True, slots=True)
class Int(Node):
    """A number, already wrapped to a C int. yes, true, on, enable are 1; no, false, off, disable are 0."""

    value: int


@dataclass(frozen=True, slots=True)
class Str(Node):
    """A quoted string, its escapes resolved, its variables not. `pos` is that of the opening quote."""

    value: str


@dataclass(frozen=True, slots=True)
class Null(Node):
    """NULL: alone on the right of ``=`` and ``:=``, on the right of ``==`` and ``!=``, and as parameter
    of route()."""


@dataclass(frozen=True, slots=True)
class IpNet(Node):
    """An address or a network, on the right of ``==`` and ``!=``; a single address is a /32 or /128."""

    network: IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Transformation(Node):
    """One ``{kind.op,arguments}``. ``kind`` is lower case, ``op`` as written after the first dot
    ("escape.common").

    ``arguments`` are split at commas and their leading blanks dropped; s.select's separator may be a
    comma or a blank; the substitutions (re.subst, pcre.subst) have one argument, all of ``text``: what
    follows the first comma."""

    kind: str
    op: str
    arguments: tuple[str | Variable, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Variable(Node):
    """``$name``, ``$name(subname)``, ``$(<context>name(subname)[index]{transformations})``.

    ``subname`` is a Variable when it starts with a dollar; else it is raw text, for the variable to
    interpret. ``index``: an int, a Variable, "*" or "append". ``context``: "request" or "reply"."""

    name: str
    subname: str | Variable | None = None
    index: int | str | Variable | None = None
    context: str | None = None
    transformations: tuple[Transformation, ...] = ()


@dataclass(frozen=True, slots=True)
class Format(Node):
    """A text with variables in it: pieces in order. ``$$`` is already one dollar; neighbouring texts are
    joined."""

    pieces: tuple[str | Variable, ...]

    @property
    def constant(self) -> str | None:
        """The text, when there is no variable in it."""
        if not self.pieces:
            return ""
        return self.pieces[0] if len(self.pieces) == 1 and isinstance(self.pieces[0], str) else None


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """``left op right`` with op one of ``+ - * / % & | ^ << >>``."""

    op: str
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class Invert(Node):
    """``~operand``: the bits turned round."""

    operand: Value


# ---- calls: statements, conditions and values alike ----


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function of the core or of a module. An argument left empty is None, also a trailing one."""

    name: str
    arguments: tuple[Argument, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteCall(Node):
    """``route(name, arguments...)``. ``name``: a constant, a variable, or a string with variables in it.

    The arguments are passed as they are: a Str is never expanded."""

    name: str | Variable | Format
    arguments: tuple[Int | Str | Variable | Null, ...] = ()


# ---- conditions ----


@dataclass(frozen=True, slots=True)
class And(Node):
    """``left && right``. Same level as Or, from the left: ``a || b && c`` is ``(a || b) && c``."""

    left: Condition
    right: Condition


@dataclass(frozen=True, slots=True)
class Or(Node):
    """``left || right``."""

    left: Condition
    right: Condition


@dataclass(frozen=True, slots=True)
class Not(Node):
    """``!operand``. An error stays an error."""

    operand: Condition


@dataclass(frozen=True, slots=True)
class Test(Node):
    """``[ value ]``: true when the arithmetic result is not zero."""

    value: Value


@dataclass(frozen=True, slots=True)
class Compare(Node):
    """``left op right`` with op one of ``== != < > <= >= =~ !~``; a condition and, in an assignment, a
    value."""

    op: str
    left: Variable
    right: Variable | Str | Int | Null | IpNet


@dataclass(frozen=True, slots=True)
class Truth(Node):
    """A bare variable (false when null, 0 or empty) or a bare number."""

    value: Variable | Int


@dataclass(frozen=True, slots=True)
class CallTest(Node):
    """A call as condition: true when its code is above 0; 0 ends the script. log and xlog give 1."""

    call: Call | RouteCall | Log | Xlog


@dataclass(frozen=True, slots=True)
class AssignTest(Node):
    """An assignment as condition."""

    assign: Assign


# ---- statements ----


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """``target op value`` with op one of ``= := += -= *= /= %= &= |= ^=``. Null comes alone, with = and
    := only."""

    target: Variable
    op: str
    value: Value | Null


@dataclass(frozen=True, slots=True)
class If(Node):
    """``if (condition) then [else otherwise]``; ``else if`` nests. ``otherwise`` is None without an
    else."""

    condition: Condition
    then: Body
    otherwise: Body | None = None


@dataclass(frozen=True, slots=True)
class While(Node):
    """``while (condition) body``: at most ``max_while_loops`` times."""

    condition: Condition
    body: Body


@dataclass(frozen=True, slots=True)
class For(Node):
    """``for (iterator in sequence) body``: ``sequence`` has index "*", its values are got with index 0,
    1, .. until null.

    The iterator is $var, $avp or $json; $json is assigned with ``:=``."""

    iterator: Variable
    sequence: Variable
    body: Body


@dataclass(frozen=True, slots=True)
class Case(Node):
    """``case value: body``; without a Break at its end the body falls through."""

    value: Int | Str
    body: Body


@dataclass(frozen=True, slots=True)
class Switch(Node):
    """``switch (subject) { case ...: default: ... }``; ``default`` comes last, None when there is none."""

    subject: Variable
    cases: tuple[Case, ...]
    default: Body | None = None


@dataclass(frozen=True, slots=True)
class Break(Node):
    """Leaves the innermost while, for or switch."""


@dataclass(frozen=True, slots=True)
class Return(Node):
    """``return``, ``return(code, values...)``, ``return(, values...)``. A missing code is 1."""

    code: Int | Variable | None = None
    values: tuple[Int | Str | Variable | Null, ...] = ()


@dataclass(frozen=True, slots=True)
class Exit(Node):
    """Ends the top route; the action it implies is kept."""


@dataclass(frozen=True, slots=True)
class Drop(Node):
    """Ends the top route and drops: a branch, a 1xx."""


@dataclass(frozen=True, slots=True)
class Assert(Node):
    """``assert(condition, "message")``: only looked at with enable_asserts."""

    condition: Condition
    message: str = ""


@dataclass(frozen=True, slots=True)
class Async(Node):
    """``async(call, resume, timeout)``: the script goes on in the route ``resume`` when ``call`` is done.

    ``timeout``: seconds."""

    call: Call
    resume: str | Format
    timeout: int | None = None


@dataclass(frozen=True, slots=True)
class Launch(Node):
    """``launch(call, report, "parameter")``: ``call`` runs beside the script, then the route ``report``
    with the text as $param(1)."""

    call: Call
    report: str | Format | None = None
    parameter: Format | None = None


@dataclass(frozen=True, slots=True)
class Log(Node):
    """``log(level, "text")``: nothing is expanded. ``level``: -3 (alert) .. 4 (debug)."""

    text: str
    level: int | None = None


@dataclass(frozen=True, slots=True)
class Xlog(Node):
    """``xlog("L_ERR", "format")``, ``xdbg("format")`` (level 4). ``level`` None: the global
    xlog_print_level."""

    format: Format
    level: int | Variable | None = None


@dataclass(frozen=True, slots=True)
class Error(Node):
    """``error("code", "text")``: OpenSIPS keeps the statement and only logs that it does nothing."""

    code: str
    text: str


# ---- the top of the file ----


@dataclass(frozen=True, slots=True)
class Setting(Node):
    """``name = value``, one of the globals of `globals.GLOBALS`; ``profile``: use_auto_scaling_profile
    of the workers."""

    name: str
    value: int | str
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Socket(Node):
    """``socket = proto:host:ports as advertised ...``. No ports: the protocol's default. 0 and "" mean:
    not given.

    ``host`` may be ``*``, the name of an interface, or an address (IPv6 without brackets). ``ports`` are
    first and last of each range."""

    protocol: str
    host: str
    ports: tuple[tuple[int, int], ...] = ()
    advertised_host: str = ""
    advertised_port: int = 0
    workers: int = 0
    tos: int | None = None
    tag: str = ""
    profile: str = ""
    options: frozenset[str] = frozenset()
    """Of anycast frag reuse_port accept_subdomain allow_proxy_protocol send_proxy_protocol
    proxy_protocol."""


@dataclass(frozen=True, slots=True)
class Bond(Node):
    """``socket = bond:name {"proto:ip:port", ...}``: sockets that act as one."""

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alias(Node):
    """``alias = proto:host:port``: a name under which we are meant. "" and 0: any."""

    protocol: str
    host: str
    port: int = 0
    accept_subdomain: bool = False


@dataclass(frozen=True, slots=True)
class BlacklistRule(Node):
    """``!(proto, network, port, "pattern")``. ``protocol`` "" and ``port`` 0: any."""

    network: IPv4Network | IPv6Network
    protocol: str = ""
    port: int = 0
    pattern: str = ""
    exception: bool = False


@dataclass(frozen=True, slots=True)
class Blacklist(Node):
    """``dst_blacklist = name/flags: {rules}``; flags of expire, default, readonly."""

    name: str
    flags: frozenset[str] = frozenset()
    rules: tuple[BlacklistRule, ...] = ()


@dataclass(frozen=True, slots=True)
class ScalingRule(Node):
    """``to size on load% for cycles within window``: ``window`` equals ``cycles`` when it is not given."""

    size: int
    load: int
    cycles: int
    window: int


@dataclass(frozen=True, slots=True)
class ScalingProfile(Node):
    """``auto_scaling_profile = name scale up to ... scale down to ...``."""

    name: str
    up: ScalingRule
    down: ScalingRule | None = None


@dataclass(frozen=True, slots=True)
class MemGroup(Node):
    """``mem-group = "name": "module" "module"``."""

    name: str
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadModule(Node):
    """``loadmodule "path/x.so"``: ``name`` is "x"."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class ModParam(Node):
    """``modparam("modules", "name", value)``: ``modules`` is a regex over the names of loaded modules."""

    modules: str
    name: str
    value: Int | Str


@dataclass(frozen=True, slots=True)
class Route(Node):
    """A route block. ``name``: "0" for ``route{}`` and for the onreply_route without a name; "" where
    none is allowed.

    ``interval``: seconds, of a timer_route. `end` is the closing brace: the line where the implicit
    return stands."""

    kind: RouteKind
    name: str
    body: Body
    interval: int = 0
    end: Pos = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Config(Node):
    """A whole configuration: ``items`` in the order of the file; the properties pick out one kind, in
    that order."""

    items: tuple[Item, ...] = ()

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The globals that are set, as often as they are set: the last one counts."""
        return tuple(i for i in self.items if isinstance(i, Setting))

    @property
    def sockets(self) -> tuple[Socket, ...]:
        """The sockets."""
        return tuple(i for i in self.items if isinstance(i, Socket))

    @property
    def bonds(self) -> tuple[Bond, ...]:
        """The bonds of sockets."""
        return tuple(i for i in self.items if isinstance(i, Bond))

    @property
    def aliases(self) -> tuple[Alias, ...]:
        """The aliases."""
        return tuple(i for i in self.items if isinstance(i, Alias))

    @property
    def blacklists(self) -> tuple[Blacklist, ...]:
        """The dst_blacklists."""
        return tuple(i for i in self.items if isinstance(i, Blacklist))

    @property
    def scaling_profiles(self) -> tuple[ScalingProfile, ...]:
        """The auto_scaling_profiles."""
        return tuple(i for i in self.items if isinstance(i, ScalingProfile))

    @property
    def mem_groups(self) -> tuple[MemGroup, ...]:
        """The mem-groups."""
        return tuple(i for i in self.items if isinstance(i, MemGroup))

    @property
    def modules(self) -> tuple[LoadModule, ...]:
        """The modules, in the order of loading."""
        return tuple(i for i in self.items if isinstance(i, LoadModule))

    @property
    def modparams(self) -> tuple[ModParam, ...]:
        """The module parameters."""
        return tuple(i for i in self.items if isinstance(i, ModParam))

    @property
    def routes(self) -> tuple[Route, ...]:
        """The route blocks."""
        return tuple(i for i in self.items if isinstance(i, Route))


Value: TypeAlias = "Int | Str | Variable | Binary | Invert | Compare | Call | RouteCall | Log | Xlog"
Condition: TypeAlias = "And | Or | Not | Test | Compare | Truth | CallTest | AssignTest"
Argument: TypeAlias = "Int | Str | Variable | None"
Statement: TypeAlias = (
    "Call | RouteCall | Assign | If | While | For | Switch | Break | Return | Exit | Drop | Assert"
    " | Async | Launch | Log | Xlog | Error"
)
Body: TypeAlias = "tuple[Statement, ...]"
Item: TypeAlias = (
    "Setting | Socket | Bond | Alias | Blacklist | ScalingProfile | MemGroup | LoadModule | ModParam"
    " | Route"
)


_FIELDS: dict[type, tuple[str, ...]] = {}


def field_names(kind: type[Node]) -> tuple[str, ...]:
    """The names of a node's fields, without its place."""
    found = _FIELDS.get(kind)
    if found is None:
        found = _FIELDS[kind] = tuple(f.name for f in fields(kind) if f.name not in ("pos", "end"))
    return found


def children(node: Node) -> Iterator[Node]:
    """Yield the nodes directly below one, in the order of their fields."""
    for name in field_names(type(node)):
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif type(value) is tuple:
            for element in value:
                if isinstance(element, Node):
                    yield element


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it, parents first, in the order of the file.

    Without recursion: a chain of `else if` is as deep as it is long."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(tuple(children(node))))
