"""Tests for `sipgw.script.dialect`."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.dialect import FUNCTIONS, GONE, MODULES, SETTINGS, VARIABLES, modernise
from sipgw.script.formats import parse_format, parse_variable
from sipgw.script.globals import GLOBALS
from sipgw.script.nodes import (
    Assign,
    Call,
    Format,
    Int,
    LoadModule,
    ModParam,
    Node,
    Setting,
    Str,
    Variable,
    walk,
)
from sipgw.script.parser import parse, read
from tests.script.exported import catalogue, symbols

LOADED = ("tm", "sl", "sipmsgops", "usrloc", "mi_fifo", "sqlops")


def modern(text: str) -> tuple[list[Node], list[str]]:
    """The items that a text becomes, and the hints."""
    config, warnings = modernise(parse(text), symbols(*LOADED))
    return list(config.items), [w.hint for w in warnings]


def statement(text: str) -> tuple[Node, list[str]]:
    (route, *_), hints = modern(f"route {{ {text} }}")
    return list(walk(route))[1], hints


class DialectTests(SynchronousTestCase):
    """Old configurations become today's, with one hint for each use."""

    def test_globals(self):
        """Globals that have another name, or none."""
        table = [
            ("debug=3", [Setting("log_level", 3)]),
            ("children=4", [Setting("udp_workers", 4)]),
            ("log_stderror=no", [Setting("stderror_enabled", 0), Setting("syslog_enabled", 1)]),
            ("log_facility=LOG_LOCAL0", [Setting("syslog_facility", "LOG_LOCAL0")]),
            ('log_name="x"', [Setting("syslog_name", "x")]),
            ("fork=no", []), ("disable_tcp=yes", []), ('tls_certificate="x"', []),
        ]
        for text, items in table:
            found, hints = modern(text)
            self.assertEqual(found, items, text)
            self.assertEqual(len(hints), 1, text)
        self.assertEqual(modern("log_level=3"), ([Setting("log_level", 3)], []))

    def test_modules(self):
        """Modules that have another name, or are built in; their parameters go along."""
        table = [
            ('loadmodule "siptrace.so"', [LoadModule("tracer", "tracer.so")]),
            ('loadmodule "/lib/mi_json.so"', [LoadModule("mi_http", "/lib/mi_http.so")]),
            ('loadmodule "xlog.so"', []), ('loadmodule "event_route.so"', []),
            ('modparam("xlog", "force_color", 0)', []),
            ('modparam("avpops", "db_url", "x")', [ModParam("sqlops", "db_url", Str("x"))]),
            ('modparam("avpops|usrloc|xlog", "db_url", "x")', [ModParam("sqlops|usrloc", "db_url", Str("x"))]),
            ('modparam("tm", "fr_timer", 5)', [ModParam("tm", "fr_timeout", Int(5))]),
            ('modparam("usrloc", "db_mode", 1)',
             [ModParam("usrloc", "working_mode_preset", Str("single-instance-sql-write-through"))]),
            ('modparam("mi_fifo", "reply_indent", "x")', []),
        ]
        for text, items in table:
            found, hints = modern(text)
            self.assertEqual(found, items, text)
            self.assertEqual(len(hints), 1, text)
        text = 'loadmodule "sqlops.so" loadmodule "avpops.so"'
        self.assertEqual(modern(text)[0], [LoadModule("sqlops", "sqlops.so")])

    def test_functions(self):
        """Functions that have another name."""
        table = [
            ('rewritehostport("a");', Call("sethostport", (Str("a"),))), ("add_rport();", Call("force_rport")),
            ("append_branch();", Call("append_branch_old")), ('setu("x");', Call("setuser", (Str("x"),))),
            ('if (avp_db_query("x")) exit;', Call("sql_query", (Str("x"),))),
        ]
        for text, expected in table:
            (route,), hints = modern(f"route {{ {text} }}")
            self.assertIn(expected, list(walk(route)), text)
            self.assertEqual(hints, [f"write {expected.name}(...)"])

    def test_parameters(self):
        """Numbers in quotes and flags by number."""
        table: list[tuple[str, tuple[Node, ...]]] = [
            ('strip("2");', (Int(2),)), ('sl_send_reply("404", "200");', (Int(404), Str("200"))),
            ("setflag(5);", (Str("5"),)), ('is_method("5");', (Str("5"),)), ('strip("a");', (Str("a"),)),
        ]
        for text, arguments in table:
            found, hints = statement(text)
            assert isinstance(found, Call)
            self.assertEqual(found.arguments, arguments, text)
            self.assertEqual(len(hints), "is_method" not in text and '"a"' not in text, text)

    def test_rearranged(self):
        """Arguments that were others: the qop of a challenge, the URI of uac_replace_from()."""
        realm, uri = Str(""), Str("sip:a@b")
        for text, arguments, count in (
            ('www_challenge("", "0");', (realm,), 1), ('proxy_challenge("", "1");', (realm, Str("auth")), 1),
            ('www_challenge("", 1);', (realm, Str("auth")), 1), ('www_challenge("", "auth");', (realm, Str("auth")), 0),
            ('www_challenge("");', (realm,), 0), ('uac_replace_from("sip:a@b");', (None, uri), 1),
            ('uac_replace_to("", "sip:a@b");', (realm, uri), 0),
        ):
            found, hints = statement(text)
            assert isinstance(found, Call)
            self.assertEqual((found.arguments, len(hints)), (arguments, count), text)

    def test_back_to_back(self):
        """b2b_init_request() of before 3.2: letters for flags, and parameters of scenarios in XML files."""
        head = 'modparam("b2b_logic_xml", "script_scenario", "/etc/a.xml")\n'
        for text, name, arguments, count in (
            ('b2b_init_request("top hiding/t300ap");', "b2b_init_request",
             ["top hiding", "setup-timeout=300,transparent-auth,preserve-to"], 1),
            ('b2b_init_request("top hiding");', "b2b_init_request", ["top hiding"], 0),
            ('b2b_init_request("top hiding", "preserve-to");', "b2b_init_request", ["top hiding", "preserve-to"], 0),
            ('b2b_init_request("prepaid", "sip:a@b", "sip:c@d");', "b2b_init_scenario", ["prepaid", "sip:a@b", "sip:c@d"], 1),
            ('b2b_init_request("prepaid/t30", "sip:a@b");', "b2b_init_scenario", ["prepaid/t30", "sip:a@b"], 1),
            ('b2b_init_request("mine", "setup-timeout=5", "asked");', "b2b_init_request",
             ["mine", "setup-timeout=5", "asked"], 0),
            ('b2b_init_request("prepaid");', "b2b_init_request", ["prepaid"], 0),
        ):
            config, warnings = modernise(parse(f"{head}route {{ {text} }}"), None)
            (found,) = [node for item in config.items for node in walk(item) if isinstance(node, Call)]
            self.assertEqual(found.name, name)
            self.assertEqual([getattr(argument, "value", argument) for argument in found.arguments], arguments, text)
            self.assertEqual(len(warnings), 1 + count)  # one for the module
        plain, _ = statement('b2b_init_request("a", "$var(x)");')
        assert isinstance(plain, Call)
        self.assertEqual(plain.name, "b2b_init_request")

    def test_unchanged(self):
        """What is written in today's language is shared, not copied."""
        config = parse('route { if (is_method("INVITE")) { $var(x) = 1 + 2; t_relay(); } }')
        new, warnings = modernise(config, symbols(*LOADED))
        self.assertIs(new.items[0], config.items[0])
        self.assertEqual(warnings, [])

    def test_variables(self):
        """Variables that have another name, also inside strings; others are left alone."""
        table = [
            ("$Ri", Variable("socket_in", "ip")), ("$(Rp)", Variable("socket_in", "port")),
            ("$proto", Variable("socket_in", "proto")), ("$fs", Variable("socket_out")),
            ("$br", Variable("branch", "uri", 0)), ("$Ri(x)", Variable("Ri", "x")),
            ("$(af{s.len})", parse_variable("$(socket_in(af){s.len})")), ("$pro", Variable("pro")),
        ]
        for text, expected in table:
            self.assertEqual(parse_variable(text), expected, text)
        self.assertEqual(parse_format("a $Ri:"), Format(("a ", Variable("socket_in", "ip"), ":")))

    def test_variable_hints(self):
        """One hint for each use, at its place."""
        parsed = read('route {\n  xlog("$Ri $$Ri $Ri.x $(proto) $var(Ri)");\n  $br = $Rp;\n}')
        self.assertEqual(
            [(w.line, w.column, w.hint) for w in parsed.warnings],
            [(2, 9, "write $socket_in(ip)"), (2, 24, "write $socket_in(proto)"), (3, 3, "write $branch"),
             (3, 9, "write $socket_in(port)")],
        )
        assignment = parsed.config.routes[0].body[1]
        self.assertEqual(assignment, Assign(Variable("branch"), "=", Variable("socket_in", "port")))

    def test_prefixes(self):
        """s: and i: are part of the name of an AVP now."""
        self.assertEqual(statement("$avp(s:a) = $avp(i:5);")[1],
                         ["write $avp(a) everywhere", "write $avp(5) everywhere"])

    def test_tables(self):
        """What the tables lead to exists, and what has gone is not there."""
        functions = {f.name for m in catalogue().values() for f in m.functions}
        known = {*functions, "db_is_user_in", "jwt_db_authorize"}
        self.assertEqual([new for new in FUNCTIONS.values() if new not in known], [])
        self.assertEqual([name for name in (*GONE, *FUNCTIONS) if name in functions], [])
        self.assertEqual([new for new in SETTINGS.values() if new not in GLOBALS], [])
        self.assertEqual([old for old in SETTINGS if old in GLOBALS], [])
        self.assertEqual([old for old in MODULES if old in catalogue()], [])
        variables = {v.name for v in catalogue()["core"].variables}
        self.assertEqual([new for new, *_ in VARIABLES.values() if new not in variables], [])
        self.assertEqual([old for old in VARIABLES if old in variables], [])
