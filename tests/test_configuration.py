"""From a file to modules, parameters and sockets: everything that can be wrong with it, and what is made when nothing is."""

import os
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw import configuration
from sipgw.catalogue import find_module
from sipgw.configuration import read_configuration, reading_of, settings_of
from sipgw.exports import Module, param, requires
from sipgw.script.globals import GLOBALS
from sipgw.service import SipServer

GOOD = """
socket = udp:127.0.0.1:5070
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm"
loadmodule "signaling.so"
loadmodule "/usr/lib/opensips/modules/maxfwd.so"
modparam("auth_db|TM", "fr_timeout", 7)
route { exit; }
"""

FAULTS = [
    ('loadmodule "tmm.so"', "there is no module tmm", "did you mean `tm`?"),
    ('loadmodule "../service.so"\nloadmodule "core.so"', "there is no module service", ""),
    ('loadmodule "sl.so"\nloadmodule "sl.so"', "the module sl is loaded a second time", ""),
    ('loadmodule "tm"\nmodparam("tm", "fr_timeot", 5)', "the module tm has no parameter fr_timeot", "did you mean `fr_timeout`?"),
    (
        'loadmodule "usrloc"\nmodparam("usrloc", "ha_shtag", "x")',
        "sipgw has no parameter ha_shtag of usrloc yet",
        "machines that stand in",
    ),
    (
        'loadmodule "usrloc"\nmodparam("usrloc", "working_mode_preset", "full-sharing-cluster")',
        "the parameter working_mode_preset of usrloc: machines that tell",
        "",
    ),
    ('loadmodule "tm.so"\nmodparam("tm", "fr_timeout", "5")', "the parameter fr_timeout of tm is a number", ""),
    ('loadmodule "maxfwd.so"\nmodparam("maxfwd", "max_limit", 999)', "the parameter max_limit of maxfwd: ", ""),
    ('loadmodule "tm.so"\nmodparam("tmx", "fr_timeout", 5)', "no loaded module is called tmx", "did you mean `tm`?"),
    ('modparam("tm", "fr_timeout", 5)\nloadmodule "tm"', "a parameter of tm before the module is loaded", "move loadmodule"),
    ('modparam("(tm", "fr_timeout", 5)', "'(tm' is no regular expression: ", ""),
    ('loadmodule "signaling"\nloadmodule "registrar"', "the module registrar needs the module usrloc", "add loadmodule"),
    ("socket = tcp:127.0.0.1:5070", "nothing serves the protocol tcp", ""),
    ("socket = udp:127.0.0.1:5071", "nothing serves the protocol udp", 'add loadmodule "proto_udp.so"'),
    ('loadmodule "proto_udp.so"', "there is no socket for proto_udp", "add socket = udp:127.0.0.1:5060"),
    ('loadmodule "proto_udp.so"\nsocket = udp:224.0.0.1', "sipgw cannot listen on 224.0.0.1: it is a multicast address", ""),
    ('loadmodule "proto_udp.so"\nsocket = udp:nosuch.invalid', "nosuch.invalid is neither an address nor an interface", ""),
    (
        'socket = bond:both {"udp:127.0.0.1:5060", "udp:127.0.0.1:5061"}',
        "'udp:127.0.0.1:5061' of bond:both is not a socket that is listed",
        "write it as proto:address:port",
    ),
    ("log_leval = 3", "there is no global log_leval", "did you mean `log_level`?"),
    ("route { exit", "", ""),
    ("route { t_anycast_replicate(); }", "there is no function t_anycast_replicate()", "it needs OpenSIPS's clusterer"),
    ("route { no_such_function(); }", "there is no function no_such_function()", ""),
]
"""A script, what is said of it, and the hint."""


class Picky(Module):
    """Refuses to be made."""

    name = "picky"

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        if server is not None:
            raise ValueError("not today")
        super().__init__(server, **parameters)


class Deaf(Module):
    """Refuses what it is told."""

    name = "deaf"
    word: str = param("", "What it hears", each="hear")

    def hear(self, word: str) -> None:
        """Hear one word."""
        raise ValueError("what?")


class Hen(Module):
    """Needs an egg."""

    name = "hen"
    depends = ("egg",)


class Egg(Module):
    """Needs a hen."""

    name = "egg"
    hen: Any = requires("hen")


class ConfigurationTestCase(SynchronousTestCase):
    """Builds what a text describes."""

    def build(self, reading, **modules):
        """The configuration of a text or a reading; ``modules`` are there beside those that are installed."""
        if isinstance(reading, str):
            reading = reading_of(reading)
        if modules:
            self.patch(configuration, "find_module", lambda name: modules.get(name) or find_module(name))
        self.lines: list[tuple[int, str]] = []
        server = SipServer(reading, None, log=lambda level, text: self.lines.append((level, text)))
        server.configure()
        return server.configuration


class FaultTests(ConfigurationTestCase):
    """What is wrong, is said."""

    def test_faults(self):
        """Each fault is found, told with its place and with a guess."""
        for text, said, hint in FAULTS:
            faults = self.build(text).in_order()
            self.assertTrue(any(f.text.startswith(said) and f.hint.startswith(hint) for f in faults), (text, faults))
            self.assertTrue(all(f.line > 0 for f in faults), text)

    def test_all_at_once(self):
        """All faults of a file are found in one reading, and come in the order of the file."""
        text = "\n".join(text for text, _, _ in FAULTS)
        faults = self.build(text).in_order()
        self.assertGreaterEqual(len(faults), len(FAULTS))
        self.assertEqual([f.line for f in faults], sorted(f.line for f in faults))

    def test_refused(self):
        """What a module refuses when it is made or when a value reaches it is a fault of that line."""
        text = 'loadmodule "picky"\nloadmodule "deaf"\nmodparam("deaf", "word", "no")'
        faults = [(fault.line, fault.text) for fault in self.build(text, picky=Picky, deaf=Deaf).in_order()]
        self.assertIn((1, "module picky: not today"), faults)
        self.assertIn((3, "the parameter word of deaf: what?"), faults)

    def test_circle(self):
        """Modules that need each other are told with the circle."""
        [fault] = self.build('loadmodule "hen"\nloadmodule "egg"', hen=Hen, egg=Egg).faults
        self.assertEqual(fault.text, "modules need each other in a circle: hen -> egg -> hen")

    def test_missing_file(self):
        """A file that is not there is a fault like others."""
        [fault] = self.build(read_configuration("/nosuch/opensips.cfg")).faults
        self.assertIn("cannot read", fault.text)

    def test_bad_socket_option(self):
        """A socket of the command line that cannot be read is a fault there."""
        file = self.mktemp()
        Path(file).write_text(GOOD)
        [fault] = self.build(read_configuration(file, None, ["udp:127.0.0.1:x"])).faults
        self.assertEqual(fault.file, "--socket")


class BuildTests(ConfigurationTestCase):
    """What is made of a script without faults."""

    def test_modules(self):
        """Modules come after those that they need, with their parameters; ``.so`` and paths do not matter."""
        configuration = self.build(GOOD)
        self.assertEqual([f.render() for f in configuration.faults], [])
        modules = configuration.modules
        self.assertLess(list(modules).index("tm"), list(modules).index("signaling"))
        self.assertEqual(modules["tm"].fr_timeout, 7)
        self.assertIs(modules["signaling"].tm, modules["tm"])

    def sockets(self, *lines):
        """The sockets of a script as short texts."""
        text = GOOD.replace("socket = udp:127.0.0.1:5070", "\n".join(lines))
        configuration = self.build(text)
        self.assertEqual([f.render() for f in configuration.faults], [])
        return [f"{p.transport}:{p.host}:{p.port}" for p in configuration.sockets], configuration

    def test_ports(self):
        """A socket without port takes the module's, ranges and lists are many sockets, one that is there already is one."""
        hosts = ("127.0.0.1", "127.0.0.1:5070-5072,5080", "[::1]:5071", "127.0.0.1:5071")
        found, configuration = self.sockets(*(f"socket = udp:{host}" for host in hosts))
        ports = [5060, 5070, 5071, 5072, 5080]
        self.assertEqual(found, [*(f"udp:127.0.0.1:{p}" for p in ports), "udp:::1:5071"])
        self.assertIn("udp:127.0.0.1:5071 is listed already", configuration.notes[0])

    def test_default_port(self):
        """proto_udp's udp_port is the port of sockets without one."""
        configuration = self.build(
            'socket = udp:127.0.0.1\nloadmodule "proto_udp.so"\nmodparam("proto_udp", "udp_port", 5999)\nroute { exit; }'
        )
        self.assertEqual([p.port for p in configuration.sockets], [5999])

    def test_names(self):
        """An interface, all interfaces and a host name stand for addresses; the name is ours too."""
        found, _ = self.sockets("socket = udp:lo:5070")
        self.assertIn("udp:127.0.0.1:5070", found)
        found, _ = self.sockets("socket = udp:*:5070")
        self.assertIn("udp:127.0.0.1:5070", found)
        found, _ = self.sockets("socket = udp:0.0.0.0:5070")
        self.assertIn("udp:127.0.0.1:5070", found)
        self.assertFalse([text for text in found if "::" in text])
        found, configuration = self.sockets("socket = udp:localhost:5070")
        self.assertIn(found, (["udp:127.0.0.1:5070"], ["udp:::1:5070"]))
        user = configuration.server.user
        self.assertTrue(user.is_myself("LOCALHOST"))
        self.assertEqual([user.is_myself("localhost", port) for port in (5070, 5060)], [True, False])
        found, _ = self.sockets("socket = udp:[0:0:0:0:0:0:0:1]:5070")
        self.assertEqual(found, ["udp:::1:5070"])

    def test_subdomains(self):
        """With accept_subdomain an alias, or the name of a socket, stands for all names below it too."""
        _, configuration = self.sockets(
            'alias = "example.org" accept_subdomain',
            "socket = udp:localhost:5070 accept_subdomain",
            "socket = udp:127.0.0.1:5071 as sip.example.net accept_subdomain",
        )
        user = configuration.server.user
        for host, port, ours in (
            ("a.example.org", 5999, True),
            ("aexample.org", 0, False),
            ("a.localhost", 5070, True),
            ("a.localhost", 5071, False),
            ("a.sip.example.net", 5071, True),
            ("a.sip.example.net", 5070, False),
        ):
            self.assertEqual(user.is_myself(host, port), ours, (host, port))

    def test_advertised(self):
        """``as`` names what a socket advertises; the globals do for those without."""
        _, configuration = self.sockets(
            "advertised_address = 192.0.2.1",
            "advertised_port = 5099",
            "tos = IPTOS_LOWDELAY",
            "socket = udp:127.0.0.1:5070 as sip.example.org:5098 tos 16",
            "socket = udp:127.0.0.1:5071 tag inside",
        )
        first, second = configuration.sockets
        self.assertEqual((first.advertised_host, first.advertised_port, first.tos), ("sip.example.org", 5098, 16))
        self.assertEqual((second.advertised_host, second.advertised_port, second.tos), ("192.0.2.1", 5099, 0x10))
        self.assertEqual(second.node.tag, "inside")

    def test_aliases(self):
        """Aliases are ours."""
        _, configuration = self.sockets("alias = example.org:5060 example.net", "socket = udp:127.0.0.1:5070")
        user = configuration.server.user
        for host, port, ours in (
            ("example.org", 5060, True),
            ("example.org", 5061, False),
            ("Example.NET", 5999, True),
            ("example.com", 0, False),
        ):
            self.assertEqual(user.is_myself(host, port), ours, (host, port))

    def test_no_effect(self):
        """A global without effect is noted once with the reason; one that works is not."""
        _, configuration = self.sockets(
            "udp_workers = 4",
            "udp_workers = 8",
            "shm_hash_split_percentage = 2",
            "log_level = 3",
            "socket = udp:127.0.0.1:5070 frag",
        )
        notes = [note.split(": ", 1)[1] for note in configuration.notes]
        self.assertEqual(
            sorted(notes),
            [
                "frag of a socket has no effect in sipgw",
                "shm_hash_split_percentage is accepted and has no effect: there is no such thing in sipgw",
                "udp_workers is accepted and has no effect: one process serves all; it is not split into workers yet",
            ],
        )

    def test_honoured(self):
        """A global that is said to work is one that some file of sipgw asks for."""
        root = Path(configuration.__file__).parent
        tables = {root / "script" / "globals.py"}
        texts = [file.read_text(encoding="utf-8") for file in root.glob("**/*.py") if file not in tables]
        for name in configuration.HONOURED:
            self.assertIn(name, GLOBALS)
            asked = sum(text.count(f'"{name}"') for text in texts)
            self.assertGreater(asked, 0, name)

    def test_settings(self):
        """The globals have OpenSIPS's defaults; the last of several counts."""
        settings = settings_of(reading_of("log_level = 1\nlog_level = 3\nxlog_level = -1").config)
        self.assertEqual((settings["log_level"], settings["xlog_level"], settings["max_while_loops"]), (3, -1, 10000))


class ReadTests(ConfigurationTestCase):
    """Reading files."""

    def setUp(self):
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.file = self.directory / "opensips.cfg"

    def test_bytes(self):
        """A file with DOS line ends and bytes that are no UTF-8 is read as it is."""
        self.file.write_bytes(GOOD.replace("\n", "\r\n").encode() + b"# \xff\r\n")
        self.assertEqual(read_configuration(str(self.file)).errors, [])

    def test_sockets(self):
        """Sockets of the command line replace those of the script."""
        self.file.write_text(GOOD)
        reading = read_configuration(str(self.file), None, ["udp:127.0.0.1:0", "udp:[::1]:5099"])
        found = [(s.host, s.ports) for s in reading.config.sockets]
        self.assertEqual(found, [("127.0.0.1", ((0, 0),)), ("::1", ((5099, 5099),))])

    def test_preprocessor(self):
        """The text with its includes goes through the command; faults keep the file and line they came from."""
        (self.directory / "part.cfg").write_text("\nmodparam('PORT', 'x', 1)\n")
        self.file.write_text(GOOD.replace("5070", "PORT") + 'include_file "part.cfg"\n')
        script = self.directory / "fill"
        script.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.stdin.read().replace('PORT', sys.argv[1]), end='')\n")
        os.chmod(script, 0o755)
        reading = read_configuration(str(self.file), f"{script} 5099")
        configuration = self.build(reading)
        self.assertEqual([p.port for p in configuration.sockets], [5099])
        [fault] = configuration.faults
        self.assertEqual((Path(fault.file).name, fault.line), ("part.cfg", 2))
        self.assertIn("included at", fault.render())

    def test_bad_preprocessor(self):
        """A preprocessor that cannot be run or fails is a fault with what it has said."""
        self.file.write_text(GOOD)
        for command, said in (
            ("/nosuch/m4", "cannot be run"),
            ("'", "cannot be run"),
            ("ls /nosuch-at-all", "No such file"),
        ):
            [fault] = read_configuration(str(self.file), command).errors
            self.assertIn(said, fault.text)
