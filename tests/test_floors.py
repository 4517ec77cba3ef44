"""Who may import whom: the house's floors as data, and the imports of every file read with ``ast``.

Imports go down only. On floors 0 to 3 each room is alone, but for what ``ALSO`` allows. On the pure floors, and in the pure
files upstairs, nothing knows a reactor, a clock, a file or a log."""

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import sipgw

ROOT = Path(sipgw.__file__).parent.parent

FLOORS = [
    (0, ["sipgw.sip", "sipgw.script"]),
    (1, ["sipgw.exports", "sipgw.aaa", "sipgw.interfaces", "sipgw.statistics"]),
    (2, ["sipgw.core", "sipgw.transport", "sipgw.db", "sipgw.mi", "sipgw.web", "sipgw.redis", "sipgw.ldap", "sipgw.radius"]),
    (3, ["sipgw.proxy", "sipgw.b2bua", "sipgw.presence", "sipgw.xmpp", "sipgw.sms"]),
    (4, ["sipgw.modules", "sipgw.manhole"]),
    (
        5,
        [
            "sipgw.back_to_back",
            "sipgw.catalogue",
            "sipgw.command",
            "sipgw.command_cdr", "sipgw.command_db", "sipgw.command_mi", "sipgw.command_top",
            "sipgw.command_user",
            "sipgw.configuration",
            "sipgw.first_start",
            "sipgw.invocation",
            "sipgw.log",
            "sipgw.log_json",
            "sipgw.manual",
            "sipgw.options",
            "sipgw.plays",
            "sipgw.service",
            "sipgw.testing",
            "twisted.plugins.sipgw_plugin",
        ],
    ),
]
"""Each floor with its rooms; a file belongs to the room whose name begins its own."""

ALSO = {
    ("sipgw.script", "sipgw.sip"),
    ("sipgw.exports", "sipgw.interfaces"),
    ("sipgw.exports", "sipgw.statistics"),
    ("sipgw.interfaces", "sipgw.exports"),
    ("sipgw.interfaces", "sipgw.statistics"),
}
"""Who may import whom on the same floor, below floor 4."""

PURE_FILES = [
    *("sipgw.mi.jsonrpc", "sipgw.mi.xmlrpc"),
    *(f"sipgw.transport.{name}" for name in ("hep_received", "packets", "proxy_protocol")),
    *(f"sipgw.sms.{name}" for name in "alphabets numbers pdu reassembly receipts rp session text translate udh".split()),
    *(f"sipgw.xmpp.{name}" for name in "address aliases client_stream dialback disco errors html message presence".split()),
    *(f"sipgw.xmpp.{name}" for name in "reader rooms rooms_commands roster scram stanza stream watchers".split()),
    "sipgw.radius.config",
    *(f"sipgw.ldap.{name}" for name in ("config", "directory", "url")),
    *(f"sipgw.redis.{name}" for name in ("answers", "commands", "url")),
]
"""Files above floor 0 that are as pure as it."""

IMPURE = set("asyncio fcntl io logging os pathlib select signal socket ssl subprocess tempfile threading time twisted".split())
IMPURE_CALLS = {"open", "print", "input", "breakpoint"}


def files() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {}
    for path in [*ROOT.glob("sipgw/**/*.py"), *ROOT.glob("twisted/plugins/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, name: str, package: bool) -> set[str]:
    """The modules that a file names in its imports, wherever they stand."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".")[: None if package and node.level == 1 else -(node.level - package)]
                base = ".".join([*above, base] if base else above)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def room(name: str) -> tuple[int, str] | None:
    """The floor and the room of a dotted name, None if it has none."""
    for floor, rooms in FLOORS:
        for each in rooms:
            if name == each or name.startswith(each + "."):
                return floor, each
    return None


def fault(name: str, imported: str) -> str | None:
    """What is wrong with one import, or None."""
    own, other = room(name), room(imported)
    if not imported.startswith("sipgw.") or own is None or imported == "sipgw.__version__":
        return None
    if other is None:
        return f"{name} imports {imported}, which has no floor"
    if other[0] > own[0] or (other[0] == own[0] < 4 and other[1] != own[1] and (own[1], other[1]) not in ALSO):
        return f"{name} (floor {own[0]}) imports {imported} (floor {other[0]})"
    return None


class FloorTests(SynchronousTestCase):
    """The rules, over every file."""

    def test_every_file_has_a_floor(self):
        """A new room must be put into the table."""
        homeless = [name for name in files() if name != "sipgw" and room(name) is None]
        self.assertEqual(homeless, [])

    def test_imports_go_down(self):
        """No file imports from a floor above it, nor from another room of its floor."""
        faults = []
        for name, path in files().items():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for imported in sorted(imports(tree, name, path.name == "__init__.py")):
                faults.append(fault(name, imported))
        self.assertEqual([f for f in faults if f], [])

    def test_pure(self):
        """The pure files import nothing that knows a reactor, a clock, a file or a log, and open nothing."""
        faults = []
        for name, path in files().items():
            place = room(name)
            if place is None or (place[0] > 0 and name not in PURE_FILES):
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for imported in imports(tree, name, path.name == "__init__.py"):
                if imported.partition(".")[0] in IMPURE:
                    faults.append(f"{name} imports {imported}")
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                    faults.append(f"{name}:{node.lineno} calls {node.func.id}")
        self.assertEqual(sorted(faults), [])


class RuleTests(SynchronousTestCase):
    """The rules themselves, so that they can fail."""

    def test_rules(self):
        """Down is allowed, up and sideways are not, the named exceptions and floors 4 and 5 may."""
        for name, imported, allowed in (
            ("sipgw.sip.uri", "sipgw.core.user.TransactionUser", False),
            ("sipgw.sip.uri", "sipgw.script.run.Run", False),
            ("sipgw.script.run", "sipgw.sip.edits.EditList", True),
            ("sipgw.core.user", "sipgw.transport.udp.UdpSocket", False),
            ("sipgw.core.user", "sipgw.sip.layer.Flow", True),
            ("sipgw.proxy.forward", "sipgw.b2bua.session.Leg", False),
            ("sipgw.modules.tm", "sipgw.proxy.forward.forward", True),
            ("sipgw.modules.registrar", "sipgw.modules.usrloc.Usrloc", True),
            ("sipgw.modules.tm", "sipgw.service.SipServer", False),
            ("sipgw.core.user", "sipgw.nosuch", False),
            ("sipgw.core.user", "sipgw.__version__", True),
            ("sipgw.core.user", "twisted.internet.task", True),
        ):
            self.assertEqual(fault(name, imported) is None, allowed, (name, imported))

    def test_reading(self):
        """Absolute, relative and hidden imports are all read."""
        source = "import sipgw.core.user\ndef f():\n    from ..sip import uri\n    from . import run\nfrom .values import EXIT"
        self.assertEqual(
            imports(ast.parse(source), "sipgw.script.lexer", False),
            {"sipgw.core.user", "sipgw.sip.uri", "sipgw.script.run", "sipgw.script.values.EXIT"},
        )
        self.assertEqual(imports(ast.parse("from .udp import X"), "sipgw.transport", True), {"sipgw.transport.udp.X"})
