"""Finding modules, ours and those of others; ``sipgw exports``."""

import json
import re
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipgw.catalogue import Catalogue, ModuleMissing, exports, find_module, module_classes, module_names
from sipgw.testing import WiredServer

OUTSIDE = '''
"""A module outside sipgw."""
from sipgw.exports import REQUEST, Module, function, param, statistic


class Outside(Module):
    """Says hello."""

    name = "outside"
    words: str = param("hello", "What is said")
    said = statistic("how often")

    @function(REQUEST)
    def outside_hello(self, run: object, to: str, times: int = 1) -> bool:
        """Say hello."""
        return True


class Nameless(Module):
    """Has no name of its own."""

    nameless_said = statistic("how often")


class Other:
    """No module."""
'''
ENTRIES = """[sipgw.modules]
outside = outsider:Outside
broken = outsider_is_not_there:Broken
foreign = outsider:Other
maxfwd = outsider:Outside
acme = outsider:Nameless
alias = outsider:Outside
"""


class CatalogueTests(SynchronousTestCase):
    """``find_module`` and ``Catalogue``."""

    def setUp(self):
        directory = Path(self.mktemp())
        (directory / "outsider-1.0.dist-info").mkdir(parents=True)
        (directory / "outsider-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1.0\n")
        (directory / "outsider-1.0.dist-info" / "entry_points.txt").write_text(ENTRIES)
        (directory / "outsider.py").write_text(OUTSIDE)
        sys.path.insert(0, str(directory.absolute()))
        self.addCleanup(sys.path.remove, str(directory.absolute()))
        self.addCleanup(sys.modules.pop, "outsider", None)

    def test_own(self):
        """A module of sipgw is found by the name that OpenSIPS gives it, before one of the same name elsewhere."""
        for name in ("tm", "maxfwd", "proto_udp"):
            self.assertEqual(find_module(name).name, name)
        self.assertEqual(find_module("maxfwd").__module__, "sipgw.modules.maxfwd")

    def test_outside(self):
        """A module of another package is found by the entry-point group."""
        self.assertEqual(find_module("outside").__module__, "outsider")
        self.assertIn("outside", module_names())
        self.assertIn("outside", Catalogue())

    def test_entry_point_name(self):
        """The entry point names a class that has no name of its own, whatever its file is called."""
        cls = find_module("acme")
        self.assertEqual((cls.name, cls.declared().name, list(exports()["acme"]["stats"])), ("acme", "acme", ["nameless_said"]))
        self.assertIs(find_module("acme"), cls)

    def test_missing(self):
        """A name that is none, the core, and what cannot be imported are refused with a reason."""
        for name, said, hint in (
            ("maxfwdd", "there is no module 'maxfwdd'", "did you mean `maxfwd`?"),
            ("core", "there is no module 'core'", ""),
            ("core_mi", "there is no module 'core_mi'", ""),
            ("../service", "there is no module", ""),
            ("os.path", "there is no module", ""),
            ("", "there is no module", ""),
            ("broken", "module 'broken' (outsider_is_not_there:Broken) cannot be loaded: ", ""),
            ("foreign", "module 'foreign': outsider:Other is not a class made from", ""),
            ("alias", "module 'alias': outsider:Outside calls itself 'outside'", ""),
        ):
            error = self.assertRaises(ModuleMissing, find_module, name)
            self.assertTrue(str(error).startswith(said), error)
            self.assertIn(hint, error.hint)

    def test_all(self):
        """What cannot be imported is no module, and exports nothing."""
        found = module_classes()
        catalogue = Catalogue()
        self.assertEqual(catalogue.keys() - found.keys(), {"alias", "broken", "foreign"})
        self.assertEqual(catalogue["broken"].functions, ())
        self.assertEqual([f.name for f in catalogue["outside"].functions], ["outside_hello"])
        self.assertNotIn("nosuch", catalogue)
        self.assertIsNone(catalogue.get("nosuch"))
        self.assertEqual(len(catalogue), len(list(catalogue)))

    def test_import_one(self):
        """Looking for one module imports no other."""
        self.assertIn("outside", Catalogue())
        self.assertNotIn("outsider", sys.modules)

    def test_exports(self):
        """The exports of a module stand in the layout of OpenSIPS's tables."""
        entry = exports()["outside"]
        self.assertEqual(
            entry["functions"],
            [
                {
                    "name": "outside_hello",
                    "params": [{"name": "to", "type": "str"}, {"name": "times", "type": "int", "optional": True}],
                    "routes": ["request"],
                }
            ],
        )
        self.assertEqual(entry["params"], [{"name": "words", "type": "string", "default": "hello"}])
        self.assertEqual(entry["stats"], ["said"])

    def test_whole(self):
        """All of it is JSON; the core has functions, globals, commands, variables, transformations and statements."""
        found = json.loads(json.dumps(exports()))
        core = found["core"]
        self.assertEqual(len(core["params"]), 99)
        self.assertIn("setflag", [f["name"] for f in core["functions"]])
        self.assertIn("core:uptime", [c["full"] for c in core["mi"]])
        self.assertIn("xlog", core["statement_functions"])
        self.assertIn("ru", [v["name"] for v in core["pvars"]])
        self.assertIn("s", core["transformations"])
        relay = next(f for f in found["tm"]["functions"] if f["name"] == "t_relay")
        self.assertEqual(relay["routes"], ["request", "failure"])

    def test_core_statistics(self):
        """The core's statistics are those that a server registers, by group; numbers of processes are stars."""
        listed = exports()["core"]["stats"]
        server = WiredServer('socket = udp:127.0.0.1:5060\nloadmodule "proto_udp.so"\nroute { exit; }')
        names = {f"{each.group}:{each.name}" for each in server.server.statistics}
        there = {re.sub(r"(?<=^pkmem:)0(?=-)|(?<=-proc-)\d$", "*", name) for name in names}
        self.assertEqual({name for name in listed if not name.startswith("dns:")}, there)
        self.assertEqual(len(listed), len(set(listed)))
        self.assertLess({"core:rcv_requests", "core:slow_messages", "net:waiting_udp", "dns:dns_total_queries"}, set(listed))
        self.assertLess({"load:load-proc-*", "pkmem:*-used_size", "cdb:cdb_slow_queries"}, set(listed))
