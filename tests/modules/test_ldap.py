"""Tests of sipgw.modules.ldap and h350: with a real slapd, and whole scripts over a directory that notes what it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from sipgw.ldap.config import Session
from sipgw.ldap.directory import Entry, Unreachable
from sipgw.modules.h350 import H350
from sipgw.modules.ldap import Ldap
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.message import parse
from sipgw.testing import FakeServer
from tests.modules.scripted import Scripted, request
from tests.modules.test_cachedb_redis import RealServer
from tests.servers.slapd import ADMIN, BASE, PASSWORD, missing, slapd


class Variable:
    """An AVP that is set."""

    def __init__(self) -> None:
        self.values: list[int | str] = []

    def get(self, run: Any) -> int | str | None:
        return self.values[-1] if self.values else None

    def at(self, run: Any, index: int) -> int | str | None:
        return self.values[::-1][index] if index < len(self.values) else None

    def set(self, run: Any, value: Any) -> None:
        self.values.append(value)


class DirectoryTests(TestCase):
    """Functions over a real directory."""

    timeout = 30

    def setUp(self) -> None:
        if missing():
            raise SkipTest(missing())
        self.slapd = slapd()
        self.slapd.restore()
        self.server = RealServer()
        file = Path(self.mktemp())
        file.write_text(
            f'[people]\nldap_server_url = "{self.slapd.url}"\nldap_bind_dn = "{ADMIN}"\nldap_bind_password = "{PASSWORD}"\n'
            f'[nobody]\nldap_server_url = "{self.slapd.url}"\n'
        )
        self.module = Ldap(self.server, config_file=str(file))
        self.run_ = Run(parse(request()), RouteKind.REQUEST, None, 0.0, self.server.user)

    async def begin(self) -> None:
        await self.module.start()
        self.addCleanup(lambda: ensureDeferred(self.module.stop()))

    async def test_results(self) -> None:
        """What was found goes into AVPs, entry after entry, as texts, numbers, or after a substitution."""
        await self.begin()
        search, run = self.module.ldap_search, self.run_
        self.assertEqual(self.module.ldap_result(run, "cn", Variable()), -2)
        self.assertEqual(self.module.ldap_result_next(run), -2)
        self.assertEqual(await search(run, f"ldap://people/ou=people,{BASE}??one?(sn=*)"), 3)
        seen = []
        while True:
            into = Variable()
            self.assertEqual(self.module.ldap_result(run, "UID", into), 1)
            seen += into.values
            if self.module.ldap_result_next(run) != 1:
                break
        self.assertEqual(sorted(map(str, seen)), ["alice", "bob", "odd"])
        self.assertEqual(await search(run, f"ldap://people/{BASE}??sub?(uid=alice)"), 1)
        phones, number, domain = Variable(), Variable(), Variable()
        self.assertEqual(self.module.ldap_result(run, "telephoneNumber", phones), 2)
        self.assertEqual(phones.values, ["100", "101"])
        self.assertEqual(self.module.ldap_result(run, "employeeNumber", number, "int"), 1)
        self.assertEqual(number.values, [17])
        self.assertEqual(self.module.ldap_result(run, "cn", number, "int"), -1)
        self.assertEqual(self.module.ldap_result(run, "SIPIdentitySIPURI", domain, None, r"/^[^@]+@(.+)$/\1/"), 1)
        self.assertEqual(domain.values, ["example.com"])
        self.assertEqual(self.module.ldap_result(run, "cn", domain, None, "/x(.)/y/"), -1)
        self.assertEqual(self.module.ldap_result(run, "nothing", domain), -1)
        self.assertEqual(self.module.ldap_result_check(run, "telephoneNumber", "101"), 1)
        self.assertEqual(self.module.ldap_result_check(run, "telephoneNumber", "1"), -1)
        self.assertEqual(self.module.ldap_result_check(run, "telephoneNumber", "1", r"/^(1)01/\1/"), 1)
        self.assertEqual(self.module.ldap_result_check(run, "nothing", "1"), -1)

    async def test_nothing(self) -> None:
        """Nobody found is -1, what cannot be done is -2, and what was found before is gone."""
        await self.begin()
        for url, expected in [
            (f"ldap://people/{BASE}??sub?(uid=alice)", 1), (f"ldap://people/{BASE}??sub?(uid=nobody)", -1),
            (f"ldap://people/{BASE}??sub?(uid=alice)", 1), (f"ldap://people/{BASE}??sub?(uid=alice", -2),
            (f"ldap://none/{BASE}", -2), ("ldap:people", -2), ("ldap://people/dc=elsewhere", -2),
        ]:
            self.assertEqual(await self.module.ldap_search(self.run_, url), expected, url)
            found = self.module.ldap_result(self.run_, "cn", Variable())
            self.assertEqual(found, expected, url)

    async def test_h350(self) -> None:
        """Accounts by URI and by user name; forwarding rules and service levels as AVPs."""
        await self.begin()
        h350 = H350(self.server, ldap=self.module, ldap_session="people", base_dn=BASE, search_scope="sub")
        await h350.start()
        run = self.run_
        name, password = Variable(), Variable()
        self.assertEqual(h350.h350_result_service_level(run, "sl_"), -1)
        self.assertEqual(await h350.h350_auth_lookup(run, "alice", name, password), 1)
        self.assertEqual((name.values, password.values), (["alice"], ["secret"]))
        self.assertEqual(await h350.h350_auth_lookup(run, "bob", name, password), -1)
        self.assertEqual(await h350.h350_auth_lookup(run, "*", name, password), -2)
        self.assertEqual(h350.h350_result_call_preferences(run, "p_"), -2)
        self.assertEqual(await h350.h350_sipuri_lookup(run, "sip:*"), -2)
        self.assertEqual(await h350.h350_sipuri_lookup(run, "sip:alice@example.com"), 1)
        self.assertEqual(h350.h350_result_call_preferences(run, "p_"), 3)
        self.assertEqual(h350.h350_result_service_level(run, "sl_"), 2)
        self.assertEqual(run.avps, {
            "p_n": ["sip:voicemail@example.com"], "p_n_t": [15], "p_f": ["sip:bob@example.com", "sip:carol@example.com"],
            "sl_longdistance": [1], "sl_900": [1],
        })
        with self.assertRaises(ValueError):
            h350.set_parameter("search_scope", "deep")
        other = H350(FakeServer(), ldap=self.module, ldap_session="none")
        await self.assertFailure(ensureDeferred(other.start()), ValueError)

    async def test_start(self) -> None:
        """A file that is not there, or no file of sessions, is told when the server starts."""
        for name in ("/nowhere", __file__):
            module = Ldap(FakeServer(), config_file=name)
            with self.assertRaises(ValueError) as caught:
                await module.start()
            self.assertIn(name, str(caught.exception))


class Noting:
    """A pool that writes down filters."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, tuple[str, ...]]] = []

    async def search(self, session: Session, base: str, scope: str, filter: str, attributes: Any) -> list[Entry]:
        self.asked.append((base, scope, filter, tuple(attributes)))
        if "down" in filter:
            raise Unreachable("down")
        return [Entry("cn=x", {"cn": [b"Alice"]})]

    def stop(self) -> None:
        pass


class ScriptTests(SynchronousTestCase):
    """Whole scripts."""

    def asked(self, body: str, rest: str = "") -> tuple[list[Any], list[str]]:
        file = Path(self.mktemp())
        file.write_text("[s]\nldap_server_url = ldap://127.0.0.1:1\n")
        scripted = Scripted(body, "ldap", rest=f'modparam("ldap", "config_file", "{file}")\n{rest}')
        module: Any = scripted.server.modules["ldap"]
        module.pool.stop()
        module.pool = Noting()
        data = request(uri="sip:b*b)(%3Fx@127.0.0.1")
        said = scripted.send(data)
        return module.pool.asked, said

    def test_variables(self) -> None:
        """Each variable is one value; what ldap_filter_url_encode made is not escaped twice; a whole URL is the script's own."""
        asked, said = self.asked(
            """
            $avp(raw) = "a*)(b\\\\";
            ldap_search("ldap://s/uid=$avp(raw),dc=x?cn?sub?(&(cn=$rU)(sn=$avp(raw)))");
            ldap_filter_url_encode("cn=$avp(raw)", $avp(esc));
            ldap_search("ldap://s/dc=x??sub?($avp(esc))");
            $var(copy) = $avp(esc);
            ldap_search("ldap://s/dc=x??one?(&($var(copy))(sn=y))");
            $avp(filter) = "(|(cn=a)(cn=b))";
            ldap_search("ldap://s/dc=x??sub?$avp(filter)");
            $avp(url) = "ldap://s/dc=y??base?(cn=z*)";
            if (ldap_search($avp(url)) && ldap_result("cn", $avp(name))) xlog("L_ALERT", "found $avp(name)");
            """
        )
        value = "a\\2a\\29\\28b\\5c"
        self.assertEqual(asked, [
            ("uid=a\\2a\\29\\28b\\5c,dc=x", "sub", f"(&(cn=b\\2ab\\29\\28%3Fx)(sn={value}))", ("cn",)),
            ("dc=x", "sub", f"(cn={value})", ()),
            ("dc=x", "one", f"(&(cn={value})(sn=y))", ()),
            ("dc=x", "sub", "(|(cn=a)(cn=b))", ()),
            ("dc=y", "base", "(cn=z*)", ()),
        ])
        self.assertEqual(said, ["found Alice"])

    def test_async(self) -> None:
        """async() resumes with the same result; a directory that is down is -2, and told once."""
        _, said = self.asked(
            'async(ldap_search("ldap://s/dc=x??sub?(cn=a)"), resume);',
            'route[resume] {\n xlog("L_ALERT", "$rc"); ldap_result("cn", $avp(n)); xlog("L_ALERT", "$avp(n)");\n'
            ' ldap_search("ldap://s/dc=x??sub?(cn=down)"); xlog("L_ALERT", "$rc");\n'
            ' ldap_search("ldap://s/dc=x??sub?(cn=down)");\n}\n',
        )
        self.assertEqual(said, ["1", "Alice", "ldap_search: down", "-2"])

    def test_refused(self) -> None:
        """A type that is none, and a substitution that is none, are faults of the script."""
        for call in ('ldap_result("cn", $avp(x), "text")', 'ldap_result("cn", $avp(x), , "/a")', 'ldap_result("cn", $var(x))'):
            self.assertRaises(AssertionError, self.asked, f"{call};")
