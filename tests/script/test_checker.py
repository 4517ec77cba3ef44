"""Tests for `sipgw.script.checker` and its halves, `check_routes` and `check_variables`."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.check_variables import Findings
from sipgw.script.checker import check, setting_problem
from sipgw.script.globals import GLOBALS, INERT
from sipgw.script.nodes import Config, Pos
from sipgw.script.parser import parse, read
from sipgw.script.preprocess import Source
from sipgw.script.symbols import (
    Function,
    Kind,
    ModuleParameter,
    ModuleSymbols,
    Parameter,
    ParamKind,
    RouteKind,
    Symbols,
    Variable,
)
from tests.script.exported import catalogue, symbols

LOADED = ("proto_udp", "sl", "tm", "signaling", "sipmsgops", "textops", "rr", "cfgutils", "dialog")
PROLOGUE = " ".join(f'loadmodule "{name}.so"' for name in LOADED) + "\n"


def findings(text: str, prologue: str = PROLOGUE) -> Findings:
    """What the checker says of a whole file."""
    source = Source.of(prologue + text)
    config = parse(source)
    return check(config, symbols(*(m.name for m in config.modules)), source)


def errors(text: str, prologue: str = PROLOGUE) -> list[str]:
    return [f"{e.text}|{e.hint}" for e in findings(text, prologue).errors]


def in_route(statement: str) -> list[str]:
    """The errors of a statement in the request route."""
    return errors(f"route {{\n{statement}\n}}\nroute[A] {{ exit; }}\nfailure_route[F] {{ exit; }}\n")


class CallTests(SynchronousTestCase):
    """Functions and their parameters."""

    def table(self, table: list[tuple[str, str]]) -> None:
        for statement, part in table:
            found = in_route(statement)
            self.assertEqual(len(found), 1, f"{statement} {found}")
            self.assertIn(part, found[0], statement)

    def test_right(self):
        """Calls that fit are not complained about."""
        for statement in (
            'is_myself("a"); is_myself("a",); is_myself($rU, $rp); is_myself($(rd), 5060);',
            "append_branch_old(); append_branch_old(,); t_relay(); t_relay(,);",
            'append_branch_old(,"1.0"); strip(2); strip(-2); strip($var(x)); strip(yes);',
            'cache_store("local","a","b", ); t_on_failure("F"); t_on_failure($var(x)); t_on_failure("F$ru");',
            'async(sleep(1), A); launch(sleep(1), A, "x $ru"); route("A_$rU"); route($var(x));',
            'search("a$ru"); search($var(x)); xlog("$C(xr)$(ru{uri.user})\\n"); pv_printf($var(x), "$ru");',
            "while ($rU) { switch ($rU) { case 1: break; } }",
        ):
            self.assertEqual(in_route(statement), [], statement)

    def test_arity(self):
        """Too many, too few, and empty ones that are needed."""
        self.table([
            ("is_myself();", "is_myself() takes 1 to 2 parameters, not 0|is_myself(host, [port])"),
            ('is_myself("a",1,2);', "takes 1 to 2 parameters, not 3"),
            ("is_myself(,1);", "parameter 1 (host) of is_myself() can not be left empty"),
            ('cache_store("local","a","b",,);', "takes 3 to 4 parameters, not 5"),
            ("send_reply(404);", "takes 2 parameters, not 1"),
            ('send_reply(,"a");', "parameter 1 (code)"),
            ("force_rport(1);", "takes no parameters, not 1"),
        ])

    def test_kinds(self):
        """A number is no string, a string no variable."""
        self.table([
            ('strip("2");', "parameter 1 (n) of strip() is a number|write 2 without quotes"),
            ('send_reply("404","x");', "is a number"),
            ("is_myself(1);", 'is a string|write "1"'),
            ('is_myself("a", "1");', "parameter 2 (port)"),
            ("t_relay(0x01);", "is a string"),
            ("t_on_failure(1);", 'is a string|write "1"'),
            ('pv_printf("$var(x)", "a");', "is a variable|write $var(x) without quotes"),
            ("setflag($var(x));", "constant string, not a variable"),
            ('setflag("A$var(x)");', "constant string, without variables"),
            ('setflag("");', "can not be empty"),
            ('if (is_method("A") && strip("x")) exit;', "is a number"),
            ("if (!strip(\"1\")) exit;", "is a number"),
            ('$var(x) = strip("1") + 2;', "is a number"),
            ('async(sleep("x"), A);', "is a number"),
        ])

    def test_one_variable(self):
        """A function may want one variable and no other, such as an AVP."""
        of = (Parameter("names", Kind.WRITABLE, variable="avp"),)
        known = symbols("cfgutils")
        known.add(ModuleSymbols("lists", functions=(Function("shuffle", "lists", of),)))
        source = Source.of("route { shuffle($avp(x)); shuffle($avp($var(y))); shuffle($var(x)); }")
        found = check(parse(source), known, source).errors
        self.assertEqual([e.text for e in found], ["parameter 1 (names) of shuffle() is a $avp, not a $var"])

    def test_unknown(self):
        """The guess is the module to load, the successor, or a name that looks alike."""
        self.table([
            ("no_such_thing(1,4);", "there is no function no_such_thing()|"),
            ("mf_process_maxfwd_header(10);", 'not there yet|load module "maxfwd.so" first'),
            ("t_realy();", "there is no function t_realy()|did you mean `t_relay`?"),
            ("is_avp_set(\"x\");", "$avp(x) != NULL"),
            ("XLOG(\"a\");", "did you mean `xlog`?"),
            ("async(nothing(), A);", "there is no function nothing()"),
        ])

    def test_own_checks(self):
        """Whatever a module says of a constant is an error at its place."""

        def even(value: int) -> None:
            if value % 2:
                raise ValueError("an even number")

        def known(name: str) -> None:
            if name != "a":
                raise ValueError("a is the only one")

        own = ModuleSymbols(
            "own",
            (
                Function("f", "own", (Parameter("n", Kind.INT, check=even),)),
                Function("g", "own", (Parameter("n", Kind.WRITABLE),)),
                Function("h", "own", (Parameter("a", Kind.STR),)),
                Function("h", "own", (Parameter("a", Kind.INT), Parameter("b", Kind.INT, optional=True))),
            ),
            (Variable("v", takes_name=True, check=known), Variable("w", setter=print)),
            parameters=(
                ModuleParameter("p", ParamKind.INT, check=even),
                ModuleParameter("q", ParamKind.BOTH),
            ),
        )
        everything = {**catalogue(), "own": own}
        table = [
            ("f(2); f($w); h(1); h(\"a\"); h(1,2); g($w);", []),
            ("f(3);", ["n of f(): an even number"]),
            ("g($(w{s.len}));", ["parameter 1 (n) of g() is written to, so it can have no transformations"]),
            ("g($ci);", ["parameter 1 (n) of g() is written to, and $ci can only be read"]),
            ("h($w, \"a\");", ["parameter 2 (b) of h() is a number"]),
            ("$w = $v(a);", []),
            ("$w = $v(b);", ["$v(b): a is the only one"]),
            ("$w = $v($ci);", []),
        ]
        for statement, expected in table:
            config = parse(f"loadmodule \"own.so\" route {{ {statement} }}")
            found = check(config, Symbols.of([catalogue()["core"], own], everything))
            self.assertEqual([e.text for e in found.errors], expected, statement)
        for value, texts in (("2", []), ("3", ["the parameter p of own: an even number"])):
            config = parse(f'loadmodule "own.so" modparam("own", "p", {value}) modparam("own", "q", "a")')
            found = check(config, Symbols.of([own], everything))
            self.assertEqual([e.text for e in found.errors], texts)

    def test_order(self):
        """A module is loaded before its functions are used."""
        found = errors('route { t_relay(); }\nloadmodule "tm.so"\nloadmodule "proto_udp.so"', "")
        self.assertEqual(
            found,
            ['t_relay() is used before its module is loaded|move loadmodule "tm.so" above this route'],
        )


class VariableTests(SynchronousTestCase):
    """Variables, wherever they stand."""

    def test_right(self):
        """Variables that exist are not complained about."""
        for text in (
            "$ru $rU $(ru{uri.host}) $hdr(X) $(hdr(X)[0]) $(ct[*]) $avp($var(n)) $(avp(x)[$var(i)])",
            "$(<request>ru) $(<reply>hdr(X)) $msg.branch.uri $(msg.branch.attr(x)[0]) $$ $branch $branch(uri)",
            "$(var(x){s.substr,$var(a),$(var(b){s.len})}) $(fn{s.select,0,,}{re.subst,/a(b|c){2}/x/g})",
            "$(tu{nameaddr.0.name}) $time(%H:%M) $T_reply_code $dlg_val(x) $(avp(x)[append]) $challenge.algorithm",
        ):
            self.assertEqual(in_route(f'xlog("{text}");'), [], text)

    def test_wrong(self):
        """In expressions and inside strings alike."""
        table = [
            ("$nosuch", "there is no variable $nosuch"),
            ("$rUU", "there is no variable $rUU|did you mean `$rU`?"),
            ("$ru.x", "there is no variable $ru.x|write $(ru).x"),
            ("$ru(x)", "$ru has no name in parentheses|write $ru"),
            ("$hdr", "$hdr needs a name in parentheses|write $hdr(...)"),
            ("$(ru[0])", "$ru has no index"),
            ("$(var(x)[*])", "$var has no index"),
            ("$(hdr(X)[append])", "[append] is for $avp only"),
            ("$(<nope>ru)", "there is no context <nope>"),
            ("$(<requst>ru)", "did you mean `request`?"),
            ("$stat(x)", 'not there yet|load module "statistics.so" first'),
            ("$(ru{s.nope})", "there is no transformation {s.nope}"),
            ("$(ru{s.leng})", "did you mean `s.len`?"),
            ("$(ru{nope.x})", "there is no transformation {nope.x}"),
            ("$(ru{pcre.subst,x})", 'load module "regex.so" first'),
            ("$(ru{s.substr,1})", "{s.substr} needs 2 arguments"),
            ("$(ru{uri.param})", "{uri.param} needs an argument"),
            ("$avp($nosuch)", "there is no variable $nosuch"),
            ("$avp(a$nosuch)", "there is no variable $nosuch"),
            ("$(avp(x)[$nosuch])", "there is no variable $nosuch"),
            ("$(ru{s.substr,$nosuch,1})", "there is no variable $nosuch"),
        ]
        for text, part in table:
            for statement in (
                f"$var(y) = {text};", f'xlog("a {text} b");', f'is_myself("{text}");', f"if ({text}) exit;",
                f"is_myself({text});", f"route(A, {text});", f"return({text});", f"if ($rU == {text}) exit;",
                f"switch ({text}) {{ case 1: exit; }}", f"$var(x) = 1 + ~{text};", f"while ([{text}]) exit;",
                f'launch(sleep(1), A, "{text}");', f'route("A{text}");', f'xlog("{text}", "x");',
            ):
                found = in_route(statement)
                self.assertEqual(len(found), 1, f"{statement} {found}")
                self.assertIn(part, found[0], statement)

    def test_broken(self):
        """A string whose variables cannot be read is an error at the place in the string."""
        (error,) = findings('route {\n  is_myself("a $(ru");\n}').errors
        self.assertEqual((error.line, error.column), (3, 20))

    def test_targets(self):
        """Some variables can only be read."""
        table = [
            ('$fU = "a";', "$fU can only be read"), ("$rs += 1;", "$rs can only be read"),
            ("if ($ci = 1) exit;", "$ci can only be read"),
            ("for ($json(x) in $(avp(y)[*])) exit;", "the variable $json is not there yet"),
            ("$nosuch = 1;", "there is no variable $nosuch"),
        ]
        for statement, part in table:
            found = in_route(statement)
            self.assertIn(part, found[0], statement)
            self.assertEqual(len(found), 1, statement)
        for statement in ("$ru = NULL;", "$(avp(x)[0]) = 1;", "$dlg_val(x) = 1;", "$T_fr_timeout = 5;"):
            self.assertEqual(in_route(statement), [], statement)

    def test_patterns(self):
        """A constant pattern must be a regular expression."""
        for statement in ('if ($ru =~ "(") exit;', 'search("(");', 'if ($ru !~ "a{2,1}") exit;'):
            (error,) = in_route(statement)
            self.assertIn("is no regular expression", error)

    def test_warnings(self):
        """What works, but not as it looks."""
        table = [
            ('xlog("$ru{uri.user}");', "{uri.user} after $ru stays in the text", "write $(ru{uri.user})"),
            ("$var(x) = $ru{uri.user};", "{uri.user} is ignored after $ru", "write $(ru{uri.user})"),
            ('$var(x) = "a $ru";', "$ru is not expanded in an assignment", "+"),
            ('$var(x) = 1 + ("a" + "$ru");', "$ru is not expanded in an assignment", "+"),
            ('if ($ru == "$fu") exit;', "$fu is not expanded in a comparison", "+"),
            ('route(A, "$ru");', "$ru is not expanded in arguments of route()", "$var"),
            ('return(1, "$ru");', "$ru is not expanded in return()", "$var"),
            ('log("$ru");', "$ru is not expanded in log()", "xlog"),
            ('xlog("$(ru{s.len,4})");', "{s.len} has no arguments; `4` is ignored", ""),
        ]
        for statement, part, hint in table:
            text = f"{PROLOGUE}route {{ {statement} }} route[A] {{ exit; }}"
            parsed = read(text)
            found = [*parsed.warnings, *check(parsed.config, symbols(*LOADED)).warnings]
            self.assertEqual(len(found), 1, statement)
            self.assertIn(part, found[0].text)
            self.assertIn(hint, found[0].hint)
        for statement in ('xlog("$(ru{uri.user}) {a} $$ru $ru {s}");', '$var(x) = "costs 5$ $ab";'):
            self.assertEqual(findings(f"route {{ {statement} }}").warnings, [], statement)


class RouteTests(SynchronousTestCase):
    """Blocks, and what may be called in them."""

    def test_names(self):
        """Routes exist, once."""
        table = [
            ("route { route(nope); }", "there is no route[nope]|"),
            ("route { route(Aa); } route[A] { exit; }", "did you mean `A`?"),
            ("route { if (route(nope)) exit; }", "there is no route[nope]"),
            ("route { $var(x) = route(nope); }", "there is no route[nope]"),
            ('route { t_on_failure("nope"); }', "there is no failure_route[nope]"),
            ('route { t_on_reply("F"); } failure_route[F] { exit; }', "there is a failure_route[F]"),
            ('route { t_on_branch("b"); }', "there is no branch_route[b]"),
            ("route { async(sleep(1), nope); }", "there is no route[nope]"),
            ("route { launch(sleep(1), nope); }", "there is no route[nope]"),
            ("route { exit; } route { exit; }", "route is defined a second time|first at opensips.cfg:2:1"),
            ("route { exit; } route[0] { exit; }", "route is defined a second time"),
            ("route { exit; } route[on] { exit; } route[0x1] { exit; }", "route[1] is defined a second time"),
            ("route { exit; } failure_route[F] { exit; } failure_route[F] { exit; }", "failure_route[F]"),
            ("route { exit; } local_route { exit; } local_route { exit; }", "local_route is defined a second"),
            ("route { exit; } event_route[E] { exit; } event_route[E] { exit; }", "event_route[E]"),
        ]
        for text, part in table:
            found = errors(text)
            self.assertEqual(len(found), 1, f"{text} {found}")
            self.assertIn(part, found[0], text)
        for text in (
            "route { exit; } timer_route[t, 1] { exit; } timer_route[t, 2] { exit; }",
            "route { exit; } route[a] { exit; } failure_route[a] { exit; }",
            "route { route(0); }",
        ):
            self.assertEqual(errors(text), [], text)

    def test_limit(self):
        """100 blocks of a kind, no more."""
        for count, expected in ((99, 0), (100, 1)):
            text = "route { exit; }" + "".join(f" route[r{n}] {{ exit; }}" for n in range(count))
            self.assertEqual(len(errors(text)), expected)

    def test_no_main_route(self):
        """Without route{} a server does little: a warning."""
        self.assertIn("there is no route{}", findings("route[a] { exit; }").warnings[0].text)
        unread = check(Config(pos=Pos("", 0, 0)), symbols())
        self.assertEqual((unread.errors, unread.warnings), ([], []))

    def test_directly(self):
        """A function stands in a block it does not belong to."""
        table = [
            ("failure_route[F] { t_newtran(); }", "t_newtran() can not be called in failure_route|it is for route"),
            ("onreply_route { t_reply(404, \"x\"); }", "in onreply_route"),
            ("branch_route[b] { sl_send_reply(404, \"x\"); }", "in branch_route"),
            ("event_route[E] { t_relay(); }", "in event_route"),
            ("error_route { t_relay(); }", "in error_route"),
            ("startup_route { send_reply(200, \"OK\"); }", "in startup_route"),
            ("failure_route[F] { if ($rU) { while (1) { if (t_newtran()) break; } } }", "in failure_route"),
        ]
        for text, part in table:
            found = errors(f"route {{ exit; }} {text}")
            self.assertEqual(len(found), 1, f"{text} {found}")
            self.assertIn(part, found[0], text)

    def test_reached(self):
        """A function in a sub-route does not belong to a block that reaches it: the way is told."""
        way = "t_newtran() can not be called in failure_route, which leads here: "
        table = [
            ("failure_route[F] { route(S); } route[S] { t_newtran(); }", "failure_route[F] > route[S]"),
            ("failure_route[F] { route(S); } route[S] { route(T); } route[T] { t_newtran(); }",
             "failure_route[F] > route[S] > route[T]"),
            ("failure_route[F] { if (!route(S)) exit; } route[S] { t_newtran(); }", "failure_route[F] > route[S]"),
            ("failure_route[F] { route(S); } route[S] { route(S); t_newtran(); }", "failure_route[F] > route[S]"),
        ]
        for text, expected in table:
            found = errors(f"route {{ route(S); }} {text}")
            self.assertEqual([f.partition("|")[0] for f in found], [way + expected], text)

    def test_not_reached(self):
        """A sub-route that no such block reaches by a constant name is nobody's fault."""
        for text in (
            "route[S] { t_newtran(); }",
            'failure_route[F] { $var(n) = "S"; route($var(n)); } route[S] { t_newtran(); }',
            "failure_route[F] { async(sleep(1), S); } route[S] { t_newtran(); }",
            "timer_route[t, 5] { launch(sleep(1), S); } route[S] { t_newtran(); }",
        ):
            self.assertEqual(errors(f"route {{ exit; }} {text}"), [], text)

    def test_resumed(self):
        """A route in which async resumes is a request route."""
        text = "route { async(sleep(1), S); } route[S] { only_local(); }"
        core = catalogue()["core"]
        own = ModuleSymbols("own", (Function("only_local", "own", routes=RouteKind.LOCAL),))
        config = parse(PROLOGUE + text)
        found = check(config, Symbols.of([core, own, *(catalogue()[n] for n in LOADED)], catalogue()))
        self.assertEqual([e.text for e in found.errors], ["only_local() can not be called in route"])

    def test_async_needs_tm(self):
        """Without tm there is no transaction to wait in."""
        text = 'loadmodule "cfgutils.so" route { async(sleep(1), A); } route[A] { exit; }'
        self.assertEqual(errors(text, ""), ['async() needs transactions|load module "tm.so" first'])


class ModuleTests(SynchronousTestCase):
    """loadmodule and modparam."""

    def test_modules(self):
        """Modules exist, are loaded once, and find those they need."""
        table = [
            ('loadmodule "tmm.so"', "there is no module tmm|did you mean `tm`?"),
            ('loadmodule "sms.so"', "there is no module sms|smpp"),
            ('loadmodule "tm.so" loadmodule "tm.so"', "the module tm is loaded a second time"),
            ('loadmodule "registrar.so"', 'the module registrar needs the module usrloc|add loadmodule "usrloc.so"'),
        ]
        for text, part in table:
            found = errors(text + " route { exit; }", "")
            self.assertEqual(len(found), 1, text)
            self.assertIn(part, found[0])
        self.assertEqual(errors('loadmodule "registrar.so" loadmodule "usrloc.so"', ""), [])

    def test_modparams(self):
        """Parameters exist in all the modules that the regex matches, and have a type."""
        table = [
            ('modparam("tm", "fr_timer", 5)', "the module tm has no parameter fr_timer|did you mean `fr_timeout`?"),
            ('modparam("tm", "fr_timeout", "5")', "is a number|write 5 without quotes"),
            ('modparam("rr", "enable_double_rr", "x")', "the parameter enable_double_rr of rr is a number|"),
            ('modparam("dialog", "db_url", 5)', 'is a string|write "5"'),
            ('modparam("tmx", "fr_timeout", 5)', "no loaded module is called tmx|did you mean `tm`?"),
            ('modparam("t", "fr_timeout", 5)', "no loaded module is called t"),
            ('modparam("usrloc", "nat_bflag", "x")', 'load module "usrloc.so" first'),
            ('modparam("tm|sl", "fr_timeout", 5)', "the module sl has no parameter fr_timeout"),
            ('modparam("tm(", "fr_timeout", 5)', "is no regular expression"),
        ]
        for text, part in table:
            found = errors(text + " route { exit; }")
            self.assertEqual(len(found), 1, f"{text} {found}")
            self.assertIn(part, found[0], text)
        for text in ('modparam("TM", "fr_timeout", 5)', 'modparam("tm|nothere", "fr_timeout", yes)',
                     'modparam("t.", "fr_timeout", -1)'):
            self.assertEqual(errors(text + " route { exit; }"), [], text)

    def test_modparam_order(self):
        """A module is loaded before its parameters are set."""
        (found,) = errors('modparam("tm", "fr_timeout", 5) loadmodule "tm.so"', "")
        self.assertIn('move loadmodule "tm.so" above it', found)


class GlobalTests(SynchronousTestCase):
    """Globals, sockets and other definitions."""

    def test_table(self):
        """There are 99 globals; what sipgw has no use for is marked."""
        self.assertEqual(len(GLOBALS), 99)
        self.assertIn("memlog", INERT)
        self.assertNotIn("log_level", INERT)
        for declared in GLOBALS.values():
            if declared.default is not None and declared.name != "open_files_limit":
                self.assertEqual(setting_problem(declared, declared.default), "", declared.name)

    def test_settings(self):
        """Globals exist and have a type."""
        table = [
            ("log_levl=3", "there is no global log_levl|did you mean `log_level`?"),
            ('log_level="3"', "log_level: the value is a number with or without sign"),
            ("log_level=abc", "log_level: the value"), ('check_via="yes"', "check_via: the value is yes or no"),
            ("udp_workers=-1", "the value can not be negative"),
            ("tcp_no_new_conn_bflag=5", "a bare word"), ("advertised_port=\"1\"", "a number"),
            ("poll_method=epol", "did you mean `epoll`?"), ("syslog_facility=NOPE", "one of log_auth"),
            ('stderror_log_format="JSON"', "did you mean `json`?"), ("db_default_url=5", "a string in quotes"),
        ]
        for text, part in table:
            found = errors(text + "\nroute { exit; }")
            self.assertEqual(len(found), 1, f"{text} {found}")
            self.assertIn(part, found[0], text)
        for text in ("log_level=-3", "check_via=2", "check_via=off", "tos=16", "tos=IPTOS_LOWDELAY", "poll_method=poll",
                     'stderror_log_format="json"', "syslog_facility=LOG_LOCAL0", 'mpath="a":"b"', "mem_log=3"):
            self.assertEqual(errors(text + "\nroute { exit; }"), [], text)

    def test_sockets(self):
        """A protocol is served by a module."""
        table = [
            ("tcp", 'nothing serves the protocol tcp|add loadmodule "proto_tcp.so"'),
            ("hep_udp", 'add loadmodule "proto_hep.so"'), ("sctp", "nothing serves the protocol sctp|"),
        ]
        for protocol, part in table:
            (found,) = errors(f"socket={protocol}:127.0.0.1:5060 route {{ exit; }}")
            self.assertIn(part, found)
        self.assertEqual(errors("socket=udp:127.0.0.1 route { exit; }"), [])

    def test_twice(self):
        """Names are given once."""
        profile = "auto_scaling_profile = {} scale up to 10 on 80% for 4 cycles "
        table = [
            ("dst_blacklist = a dst_blacklist = a", "the blacklist a is defined a second time"),
            (profile.format("P") + profile.format("p"), "the auto_scaling_profile p is defined a second time"),
        ]
        for text, part in table:
            (found,) = errors(text + " route { exit; }")
            self.assertIn(part, found)

    def test_profiles(self):
        """A profile that does not exist is not used: a warning."""
        for text in ("udp_workers=4 use_auto_scaling_profile P", "socket=udp:a use_auto_scaling_profile P"):
            (warning,) = findings(text + " route { exit; }").warnings
            self.assertEqual(warning.text, "there is no auto_scaling_profile P")
