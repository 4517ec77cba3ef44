"""Tests of sipgw.modules.core_blacklists: the functions in scripts, and the commands with the answers that OpenSIPS gives."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.configuration import reading_of
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.core_blacklists import CoreBlacklists
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.service import SipServer
from sipgw.testing import FakeServer, Phone, Wire, WiredServer, finished
from tests.doubles import request

LISTS = """
disable_dns_blacklist = no
dst_blacklist = gw: {
    ( tcp , 192.168.0.0/255.255.0.0 , 5060 , "" ), ( any , 10.0.0.0/255.0.0.0 , 0 , "" ),
    (udp, 127.0.0.1, 5690, "*evil*"), !( any, 10.1.0.0/255.255.0.0, 0, "")
}
dst_blacklist = dyn/expire: { 127.0.0.9 }
dst_blacklist = def/default: { (udp, 127.0.0.1/255.255.255.255, 5691, "") }
dst_blacklist = ro/readonly: { (udp, 127.0.0.1/255.255.255.255, 5692, "") }
dst_blacklist = empty
"""

TEN = {"flags": 0, "IP": "10.0.0.0", "Mask": "255.0.0.0", "Proto": "any", "Port": 0}
BUT = {"flags": 1, "IP": "10.1.0.0", "Mask": "255.255.0.0", "Proto": "any", "Port": 0}
LAN = {"flags": 0, "IP": "192.168.0.0", "Mask": "255.255.0.0", "Proto": "tcp", "Port": 5060}
EVIL = {"flags": 0, "IP": "127.0.0.1", "Mask": "255.255.255.255", "Proto": "udp", "Port": 5690, "Match": "*evil*"}
NINE = {"flags": 0, "IP": "127.0.0.9", "Mask": "255.255.255.255", "Proto": "any", "Port": 0}

ANSWERS: list[tuple[str, dict[str, Any], Any]] = [
    ("list", {"name": "dyn"}, {"name": "dyn", "owner": "script", "flags": ["expire"], "Rules": [NINE]}),
    ("list", {"name": "nope"}, (404, "Unknown name")),
    ("check", {"name": "gw", "ip": "10.2.2.2"}, TEN),
    ("check", {"name": "gw", "ip": "1.1.2.2"}, BUT),
    ("check", {"name": "nope", "ip": "1.1.2.2"}, (400, "Missing or bad blacklist name")),
    ("check", {"name": "gw", "ip": "bogus"}, (400, "Missing or bad IP")),
    ("check", {"name": "gw", "proto": "tcp", "ip": "192.168.1.1"}, BUT),
    ("check", {"name": "gw", "proto": "TCP", "ip": "192.168.1.1", "port": 5060}, LAN),
    ("check", {"name": "gw", "proto": "udp", "ip": "192.168.1.1", "port": "5060"}, BUT),
    ("check", {"name": "gw", "proto": "any", "ip": "192.168.1.1"}, (404, "Bad params")),
    ("check", {"name": "gw", "proto": "udp", "ip": "127.0.0.1", "port": 5690, "pattern": "x evil y"}, EVIL),
    ("check", {"name": "gw", "proto": "udp", "ip": "127.0.0.1", "port": 5690, "pattern": "good"}, BUT),
    ("check", {"name": "def", "ip": "1.2.3.4"}, (404, "Not Matched")),
    ("check_all", {"ip": "10.2.2.2"}, ["gw"]),
    ("check_all", {"ip": "10.1.1.1"}, ["gw"]),
    ("check_all", {"ip": "bogus"}, (400, "Missing or bad IP")),
    ("check_all", {"proto": "foo", "ip": "1.1.1.1"}, (404, "Bad params")),
    ("check_all", {"proto": "udp", "ip": "127.0.0.1", "port": 5691}, ["gw", "def"]),
    ("add_rule", {"name": "dyn", "rule": "1.2.3.4"}, "OK"),
    ("add_rule", {"name": "dyn", "rule": "1.2.3.4", "expire": 5}, "OK"),
    ("add_rule", {"name": "dyn", "rule": "udp,1.2.9.0/24,5060,pat"}, "OK"),
    ("add_rule", {"name": "dyn", "rule": "2001:db8::1"}, "OK"),
    ("add_rule", {"name": "dyn", "rule": "bogus"}, (404, "Bad rule")),
    ("add_rule", {"name": "dyn", "rule": "1.2.3.0/24", "expire": "60"}, "OK"),
    ("add_rule", {"name": "dyn", "rule": "1.2.3.5", "expire": 0}, (404, "Bad expire value")),
    ("add_rule", {"name": "def", "rule": "1.2.3.5", "expire": -1}, (404, "Bad expire value")),
    ("add_rule", {"name": "def", "rule": "1.2.3.5", "expire": 20}, (404, "Blacklist without expire support")),
    ("add_rule", {"name": "def", "rule": "bad", "expire": 20}, (404, "Bad rule")),
    ("add_rule", {"name": "ro", "rule": "bad", "expire": 20}, (403, "Cannot modify read-only blacklist")),
    ("add_rule", {"name": "empty", "rule": "1.2.3.4"}, (403, "Cannot modify read-only blacklist")),
    ("add_rule", {"name": "nope", "rule": "1.2.3.4"}, (400, "Missing or bad blacklist name")),
    (
        "list",
        {"name": "dyn"},
        {
            "name": "dyn",
            "owner": "script",
            "flags": ["expire"],
            "Rules": [
                {
                    "flags": 0,
                    "IP": "2001:DB8:0:0:0:0:0:1",
                    "Mask": "FFFF:FFFF:FFFF:FFFF:FFFF:FFFF:FFFF:FFFF",
                    "Proto": "any",
                    "Port": 0,
                },
                {"flags": 0, "IP": "1.2.9.0", "Mask": "255.255.255.0", "Proto": "udp", "Port": 5060, "Match": "pat"},
                {"flags": 0, "IP": "1.2.3.4", "Mask": "255.255.255.255", "Proto": "any", "Port": 0},
                NINE,
                {"flags": 0, "IP": "1.2.3.0", "Mask": "255.255.255.0", "Proto": "any", "Port": 0, "Expire": 60},
            ],
        },
    ),
    ("del_rule", {"name": "dyn", "rule": "1.2.3.4"}, "OK"),
    ("del_rule", {"name": "dyn", "rule": "1.2.3.4"}, (404, "Rule not found")),
    ("del_rule", {"name": "dyn", "rule": "udp,1.2.9.0/24"}, (404, "Rule not found")),
    ("del_rule", {"name": "dyn", "rule": "zz"}, (404, "Bad rule")),
    ("del_rule", {"name": "ro", "rule": "127.0.0.1"}, (403, "Cannot modify read-only blacklist")),
    ("del_rule", {"name": "nope", "rule": "127.0.0.9"}, (400, "Missing or bad blacklist name")),
]
"""Command, parameters, and the result or the error's code and message; each changes what the next ones see."""


def server_with(lists: str = LISTS) -> tuple[Any, Any]:
    """A server with the blacklists of a script, and the module on it."""
    reading = reading_of(lists)
    assert not reading.errors, reading.errors
    server: Any = FakeServer(disable_dns_blacklist="disable_dns_blacklist = no" not in lists)
    server.user.blacklists.configure(reading.config.blacklists, not server.user.globals["disable_dns_blacklist"])
    module = CoreBlacklists(server)
    server.commands.add(module)
    return server, module


class CommandTests(SynchronousTestCase):
    """The management commands."""

    def ask(self, server: Any, command: str, params: dict[str, Any] | None = None) -> Any:
        """The result of a command, or its error's code and message."""
        try:
            return finished(server.commands.call(command, params))
        except MIError as error:
            return error.code, error.message

    def test_answers(self) -> None:
        """Each answers as OpenSIPS does."""
        server, _ = server_with()
        for command, params, expected in ANSWERS:
            self.assertEqual(self.ask(server, f"blacklists:{command}", params), expected, (command, params))

    def test_all(self) -> None:
        """Without a name all lists are shown, the automatic one last; flags in words."""
        server, _ = server_with()
        server.user.blacklists.failed("192.0.2.1", "udp", 5060)
        server.reactor.advance(5)
        shown = self.ask(server, "list_blacklists")["Lists"]
        self.assertEqual(
            [(one["name"], one["owner"], one["flags"], len(one["Rules"])) for one in shown],
            [
                ("gw", "script", ["read-only"], 4),
                ("dyn", "script", ["expire"], 1),
                ("def", "script", ["default"], 1),
                ("ro", "script", ["read-only"], 1),
                ("empty", "script", ["read-only"], 0),
                ("dns", "dns", ["expire", "default"], 1),
            ],
        )
        self.assertEqual(
            shown[-1]["Rules"],
            [{"flags": 0, "IP": "192.0.2.1", "Mask": "255.255.255.255", "Proto": "udp", "Port": 5060, "Expire": 235}],
        )

    def test_names(self) -> None:
        """The names of older releases are known, and what each command takes."""
        server, _ = server_with()
        recipes = {
            "list_blacklists": [[], ["name"]],
            "check_blacklists": [["ip"], ["proto", "ip"], ["proto", "ip", "port"], ["proto", "ip", "port", "pattern"]],
            "check_blacklist": [
                ["name", "ip"],
                ["name", "proto", "ip"],
                ["name", "proto", "ip", "port"],
                ["name", "proto", "ip", "port", "pattern"],
            ],
            "add_blacklist_rule": [["name", "rule"], ["name", "rule", "expire"]],
            "del_blacklist_rule": [["name", "rule"]],
        }
        for name, takes in recipes.items():
            self.assertEqual(server.commands.find(name).recipes, takes)


class FunctionTests(SynchronousTestCase):
    """The functions in scripts."""

    def setUp(self) -> None:
        self.server, self.module = server_with()
        self.run_ = Run(request(), RouteKind.REQUEST, None, 0.0, self.server.user)

    def used(self) -> list[str] | None:
        """The names of the lists in force."""
        lists = self.run_.blacklists
        return None if lists is None else [one.name for one in lists]

    def test_use(self) -> None:
        """Lists come into force beside those that are by default, each once; any can be left out again."""
        use, unuse = self.module.use_blacklist, self.module.unuse_blacklist
        self.assertFalse(use(self.run_, "nope") or unuse(self.run_, "nope"))
        self.assertIsNone(self.used())
        for _ in range(2):
            self.assertTrue(use(self.run_, "gw"))
        self.assertEqual(self.used(), ["def", "dns", "gw"])
        self.assertTrue(unuse(self.run_, "def") and unuse(self.run_, "gw") and unuse(self.run_, "gw"))
        self.assertEqual(self.used(), ["dns"])

    def test_check(self) -> None:
        """What is left out fits no rule that asks for it."""
        for arguments, expected in (
            (("gw", "10.2.2.2"), True),
            (("ro", "127.0.0.1"), False),
            (("ro", "127.0.0.1", 5692), False),
            (("ro", "127.0.0.1", 5692, "udp"), True),
            (("ro", "127.0.0.1", 5692, "any"), False),
            (("ro", "127.0.0.1", 5692, "foo"), False),
            (("ro", "127.0.0.1", None, "udp"), False),
            (("def", "bogus"), False),
            (("nope", "127.0.0.1"), False),
            (("dyn", "127.0.0.9", 1, "tls", "any text"), True),
        ):
            self.assertEqual(self.module.check_blacklist_rule(self.run_, *arguments), expected, arguments)

    def test_add_and_delete(self) -> None:
        """A rule is added, forbids, is deleted with the same arguments; read-only lists and bad rules are refused."""
        add, delete, check = (
            self.module.add_blacklist_rule,
            self.module.del_blacklist_rule,
            self.module.check_blacklist_rule,
        )
        for rule in (("1.1.1.1",), ("1.1.2.0/24", 5060), ("1.1.3.1", None, "udp"), ("1.1.4.1", 5060, "udp", "pat")):
            asked = (rule[0].replace("0/24", "7"), *rule[1:])
            self.assertFalse(check(self.run_, "dyn", *asked), rule)
            self.assertTrue(add(self.run_, "dyn", *rule), rule)
            self.assertTrue(check(self.run_, "dyn", *asked), rule)
            self.assertTrue(delete(self.run_, "dyn", *rule), rule)
            self.assertFalse(delete(self.run_, "dyn", *rule), rule)
        self.assertTrue(add(self.run_, "dyn", "!1.1.2.0/24") and check(self.run_, "dyn", "9.9.9.9"))
        self.assertTrue(delete(self.run_, "dyn", "!1.1.2.0/24"))
        bad_port, bad_transport = ("dyn", "1.1.1.1", 70000), ("dyn", "1.1.1.1", 1, "foo")
        for bad in (("ro", "1.1.1.1"), ("nope", "1.1.1.1"), ("dyn", "bogus"), bad_port, bad_transport):
            self.assertFalse(add(self.run_, *bad), bad)
            self.assertFalse(delete(self.run_, *bad), bad)
        self.assertFalse(add(self.run_, "def", "1.1.1.1", None, None, None, 5))
        self.assertEqual(len(self.server.lines), 11)

    def test_expire(self) -> None:
        """``expire`` ends a rule; 0 does not."""
        for seconds, after in ((5, False), (0, True)):
            self.assertTrue(self.module.add_blacklist_rule(self.run_, "dyn", "1.1.1.1", None, None, None, seconds))
            self.server.reactor.advance(6)
            self.assertEqual(self.module.check_blacklist_rule(self.run_, "dyn", "1.1.1.1"), after)


SCRIPT = (
    """
socket = udp:127.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
"""
    + LISTS
    + """
route {
    if ($rU == "free") unuse_blacklist("def");
    if ($rU == "strict") use_blacklist("ro");
    if ($rU == "add") add_blacklist_rule("dyn", "127.0.0.1", , "udp", , 60);
    t_relay();
}
"""
)


class ScriptTests(SynchronousTestCase):
    """A whole server."""

    def test_relay(self) -> None:
        """Lists of a script filter what it relays: the default ones always, the others when they are used."""
        wire = Wire(Clock())
        server = WiredServer(SCRIPT, wire=wire)
        alice, bob = Phone(wire, "127.0.0.1", 7001), [Phone(wire, "127.0.0.1", port) for port in (5691, 5692)]
        for number, (uri, status) in enumerate(
            (
                ("sip:x@127.0.0.1:5691", 473),
                ("sip:free@127.0.0.1:5691", 0),
                ("sip:x@127.0.0.1:5692", 0),
                ("sip:strict@127.0.0.1:5692", 473),
                ("sip:add@127.0.0.1:5691", 473),
                ("sip:free@127.0.0.1:5691", 0),
            )
        ):
            alice.send(
                f"MESSAGE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:7001;branch=z9hG4bK{number}\r\nFrom: <sip:a@x>;tag=1\r\n"
                f"To: <sip:b@x>\r\nCall-ID: {number}\r\nCSeq: 1 MESSAGE\r\nMax-Forwards: 9\r\nContent-Length: 0\r\n\r\n".encode(),
                server.address,
            )
            answer: Any = alice.take()
            self.assertEqual(0 if answer is None else answer.status, status, uri)
            self.assertEqual(sum(phone.take() is not None for phone in bob), 0 if status else 1, uri)

    def test_faults(self) -> None:
        """A name that is taken, and what no list can mean, are faults of the script with their lines."""
        rest = 'socket = udp:127.0.0.1:5060\nloadmodule "proto_udp.so"\n'
        for text, said in (
            ("dst_blacklist = a: { 127.0.0.1 }\ndst_blacklist = a", "there is a blacklist 'a' already"),
            ("disable_dns_blacklist = no\ndst_blacklist = dns/expire", "the name dns is that of the automatic list"),
            ('route { check_blacklist_rule("a", "bogus"); }', "check_blacklist_rule"),
            ('route { add_blacklist_rule("a", "1.2.3.4", 5060, "foo"); }', "'foo' is no transport"),
        ):
            server = SipServer(reading_of(f"{rest}{text}\n"), None)
            server.configure()
            self.assertIn(said, " ".join(str(fault) for fault in server.configuration.faults), text)
