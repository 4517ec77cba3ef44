"""Tests of sipgw.modules.uac_registrant: a registrar that challenges, grants, refuses, is silent; the table, the commands."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.interfaces import Value
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.uac_registrant import UacRegistrant
from sipgw.proxy.registrant import Account, Rules
from sipgw.sip.auth import Credentials, hash_a1, is_response
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request
from sipgw.testing import Phone, WiredServer, finished, pass_time
from tests.db.memory import MemoryDatabases

SCRIPT = """
socket = udp:127.0.0.1:5060
socket = udp:127.0.0.1:5070
log_level = -1
db_default_url = "memory:"
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "uac_auth.so"
loadmodule "uac_registrant.so"
modparam("tm", "fr_timeout", 5)
{rest}
route {{ sl_send_reply(200, "OK"); }}
{events}
"""
EVENTS = "".join(
    f'event_route[E_REGISTRANT_{name}] {{ xlog("L_ALERT", "{name} $param(aor) $param(contact) $param(registrar)"); }}\n'
    for name in (
        "REGISTERING", "AUTHENTICATING", "REGISTERED", "REGISTER_TIMEOUT", "INTERNAL_ERROR", "WRONG_CREDENTIALS",
        "REGISTRAR_ERROR", "UNREGISTERING", "AUTHENTICATING_UNREGISTER",
    )
)  # fmt: skip
KEY = {"aor": "sip:alice@reg.org", "contact": "sip:alice@127.0.0.1:5060", "registrar": "sip:192.0.2.7"}
ROW: dict[str, Value] = {
    "registrar": "sip:192.0.2.7", "proxy": None, "aor": "sip:alice@reg.org", "third_party_registrant": None, "username": "alice",
    "password": "secret", "binding_URI": "sip:alice@127.0.0.1:5060", "binding_params": None, "expiry": 100, "forced_socket": None,
    "cluster_shtag": None, "state": 0,
}  # fmt: skip
CHALLENGE = 'WWW-Authenticate: Digest realm="reg.org", nonce="{}", qop="auth"{}\r\n'


class RegistrantTestCase(SynchronousTestCase):
    """A server with registrations, and a registrar at 192.0.2.7 that says what a test lets it say."""

    def start(self, *rows: dict[str, Value], rest: str = "") -> None:
        """Start the server; ``rows`` are what differs from ``ROW``."""
        self.databases = MemoryDatabases()
        self.table = self.databases.database.tables["registrant"] = [{**ROW, **row} for row in rows or ({},)]

        def before(server: Any) -> None:
            server.databases = self.databases

        self.wired = WiredServer(SCRIPT.format(rest=rest, events=EVENTS), before=before)
        self.registrar = Phone(self.wired.wire, "192.0.2.7")
        self.seen: set[tuple[str, int]] = set()

    def heard(self) -> list[Request]:
        """What the registrar has received since the last time, but for repetitions."""
        found = []
        while (message := self.registrar.take()) is not None:
            known = message.call_id, message.cseq.number
            if isinstance(message, Request) and known not in self.seen:
                self.seen.add(known)
                found.append(message)
        return found

    def next(self, seconds: float = 0.1) -> Request:
        """The one REGISTER that comes within some time."""
        pass_time(self.wired.clock, seconds)
        (found,) = self.heard()
        return found

    def answer(self, request: Request, status: int, extra: str = "") -> None:
        """Let the registrar answer."""
        copied = [f"{name}: {request.header(name)}" for name in ("Via", "From", "Call-ID", "CSeq")]
        to = f"To: {request.header('To')};tag=r"
        text = "\r\n".join([f"SIP/2.0 {status} X", *copied, to, f"{extra}Content-Length: 0\r\n\r\n"])
        self.registrar.send(text.encode(), ("127.0.0.1", 5060))
        self.wired.clock.advance(0)

    def grant(self, request: Request, expires: int = 100) -> None:
        """Let the registrar accept the binding."""
        contact = str(request.header("Contact")).partition(";expires=")[0]
        self.answer(request, 200, f"Contact: <sip:other@x>;expires=7, {contact};expires={expires}\r\n")

    def challenge(self, request: Request, nonce: str = "n", more: str = "") -> Request:
        """Let the registrar ask for the password; the next REGISTER."""
        self.answer(request, 401, CHALLENGE.format(nonce, more))
        return self.next()

    def told(self) -> list[str]:
        """The names of the events since the last time."""
        lines = [text.strip() for level, text in self.wired.lines if level <= -1]
        self.wired.lines.clear()
        return lines

    def mi(self, command: str, **arguments: Any) -> Any:
        """What a management command answers."""
        return finished(self.wired.server.commands.call(f"uac_registrant:{command}", arguments or None))

    def state(self, **key: str) -> str:
        """The state of the one registration."""
        return str(self.mi("list", **{**KEY, **key})["Registrant"]["state"])


class RegisterTests(RegistrantTestCase):
    """Registering and staying registered."""

    def test_registers(self) -> None:
        """A REGISTER, a challenge, its answer, a 200; and again in time, with the same Call-ID and a CSeq that grows."""
        self.start()
        first = self.next()
        self.assertEqual((first.uri, first.to.uri_text, first.from_.uri_text), ("sip:192.0.2.7", *["sip:alice@reg.org"] * 2))
        self.assertEqual(first.header("Contact"), "<sip:alice@127.0.0.1:5060>;expires=100")
        self.assertNotIn("authorization", first.names)
        second = self.challenge(first)
        found = Credentials.parse(str(second.header("Authorization")))
        self.assertTrue(is_response(found, hash_a1("alice", "reg.org", "secret"), "REGISTER"))
        self.assertEqual((second.call_id, second.cseq.number), (first.call_id, 2))
        self.grant(second, 60)
        where = "sip:alice@reg.org sip:alice@127.0.0.1:5060 sip:192.0.2.7"
        self.assertEqual(self.told(), [f"REGISTERING {where}", f"AUTHENTICATING {where}", f"REGISTERED {where}"])
        self.assertEqual(self.state(), "REGISTERED_STATE")
        pass_time(self.wired.clock, 53)
        self.assertEqual(self.heard(), [])
        third = self.next(3)
        self.assertEqual((third.call_id, third.cseq.number, third.from_tag), (first.call_id, 3, first.from_tag))
        self.assertNotIn("authorization", third.names)

    def test_percentage(self) -> None:
        """It is renewed after that part of what the registrar granted, and never so late that it could lapse."""
        self.start(rest='modparam("uac_registrant", "reregister_expiry_percentage", 50)')
        self.grant(self.next(), 60)
        pass_time(self.wired.clock, 29)
        self.assertEqual(self.heard(), [])
        self.next(2)
        for percentage, granted, expected in ((100, 3600, 3595), (100, 20, 18), (90, 3600, 3240), (100, 1, 1), (50, 60, 30)):
            self.assertEqual(Rules(percentage).renewal(granted), expected)

    def test_written(self) -> None:
        """A proxy, a third party, parameters and a socket, each where it belongs; the default expiry where none is given."""
        self.start(
            {
                "proxy": "sip:192.0.2.7:5062;lr", "third_party_registrant": "sip:third@reg.org", "registrar": "sip:elsewhere.org",
                "binding_params": ";reg-id=1", "expiry": 0, "forced_socket": "udp:127.0.0.1:5070",
            },
        )  # fmt: skip
        proxy = Phone(self.wired.wire, "192.0.2.7", 5062)
        pass_time(self.wired.clock, 0.1)
        (found,) = proxy.inbox
        assert isinstance(found, Request)
        self.assertEqual((found.uri, found.from_.uri_text, found.via.port), ("sip:elsewhere.org", "sip:third@reg.org", 5070))
        self.assertEqual(found.header("Contact"), "<sip:alice@127.0.0.1:5060>;reg-id=1;expires=3600")

    def test_many(self) -> None:
        """Many begin one after another, not all at once; what is no registration is left out and logged, disabled ones wait."""
        rows: list[dict[str, Value]] = [{"aor": f"sip:{number}@reg.org"} for number in range(5)]
        bad: list[dict[str, Value]] = [{"aor": "nonsense"}, {"registrar": "sip:a>b"}, {"binding_params": "x"}]
        self.start(*rows, *bad, {"aor": "sip:off@reg.org", "state": 1})
        self.assertEqual(len([line for line in self.told() if "left out" in line]), 3)
        pass_time(self.wired.clock, 0.05)
        self.assertEqual(len(self.heard()), 2)
        pass_time(self.wired.clock, 1)
        self.assertEqual(len(self.heard()), 3)
        self.assertEqual(len(self.mi("list")["Records"]), 6)


class FailureTests(RegistrantTestCase):
    """What goes wrong."""

    def check(self, state: str, retry: float) -> None:
        """It is in ``state``, and tried again after ``retry`` seconds."""
        self.assertEqual(self.state(), f"{state}_STATE")
        self.assertIn(state, self.told()[-1])
        pass_time(self.wired.clock, retry - 1)
        self.assertEqual(self.heard(), [])
        self.next(2)

    def test_refused(self) -> None:
        """A refusal is tried again after the expiry; Retry-After may say later."""
        self.start()
        self.answer(self.next(), 403)
        self.check("REGISTRAR_ERROR", 100)
        self.start()
        self.answer(self.next(), 503, "Retry-After: 500 (busy)\r\n")
        self.check("REGISTRAR_ERROR", 500)

    def test_retry(self) -> None:
        """failure_retry_interval says when to try again."""
        self.start(rest='modparam("uac_registrant", "failure_retry_interval", 30)')
        self.answer(self.next(), 500)
        self.check("REGISTRAR_ERROR", 30)

    def test_silence(self) -> None:
        """A registrar that does not answer has timed out."""
        self.start()
        self.next()
        pass_time(self.wired.clock, 6)
        self.heard()
        self.check("REGISTER_TIMEOUT", 99)

    def test_wrong_password(self) -> None:
        """A second challenge for the same realm means a wrong password; a stale nonce does not, three times at most."""
        self.start()
        self.answer(self.challenge(self.next()), 401, CHALLENGE.format("m", ""))
        self.check("WRONG_CREDENTIALS", 100)
        self.start()
        request = self.next()
        for nonce in "abc":
            request = self.challenge(request, nonce, ", stale=true")
            self.assertEqual(len(request.headers("Authorization")), 1)
        self.answer(request, 401, CHALLENGE.format("d", ", stale=true"))
        self.check("WRONG_CREDENTIALS", 100)

    def test_no_password(self) -> None:
        """Who has no user cannot answer, nor can anybody answer what he does not know."""
        self.start({"username": None})
        self.answer(self.next(), 401, CHALLENGE.format("n", ""))
        self.check("WRONG_CREDENTIALS", 100)
        self.start()
        self.answer(self.next(), 401, CHALLENGE.format("n", ", algorithm=MD9"))
        self.check("WRONG_CREDENTIALS", 100)

    def test_too_brief(self) -> None:
        """An interval that is too brief is made longer once; a registrar that is never content is not asked for ever."""
        self.start()
        self.answer(self.next(), 423, "Min-Expires: 500\r\n")
        again = self.next()
        self.assertIn(";expires=500", str(again.header("Contact")))
        self.answer(again, 423, "Min-Expires: 900\r\n")
        self.check("REGISTRAR_ERROR", 500)
        self.start()
        self.answer(self.next(), 423)
        self.check("REGISTRAR_ERROR", 100)

    def test_late(self) -> None:
        """The answer to a REGISTER that another has overtaken changes nothing."""
        self.start()
        first = self.next()
        self.mi("force_register", **KEY)
        second = self.next()
        self.answer(first, 403)
        self.assertEqual(self.state(), "REGISTERING_STATE")
        self.grant(second)
        self.assertEqual(self.state(), "REGISTERED_STATE")

    def test_two_bindings(self) -> None:
        """A device that finds two bindings of itself has all removed, once, and registers again."""
        self.start({"binding_params": ';reg-id=1;+sip.instance="<urn:uuid:1>"'})
        for last in (False, True):
            self.grant(self.next())
            if last:
                break
            star = self.next()
            self.assertEqual((star.header("Contact"), star.header("Expires")), ("*", "0"))
            self.answer(star, 200)
        self.assertEqual(self.state(), "REGISTERED_STATE")


class CommandTests(RegistrantTestCase):
    """The management commands."""

    def up(self, *rows: dict[str, Value]) -> None:
        """One that is registered."""
        self.start(*rows)
        self.grant(self.next())
        self.told()

    def fails(self, command: str, code: int, **arguments: Any) -> None:
        """The command is refused."""
        with self.assertRaises(MIError) as caught:
            self.mi(command, **arguments)
        self.assertEqual(caught.exception.code, code)

    def test_list(self) -> None:
        """All of them, or one; as OpenSIPS shows them."""
        self.up()
        shown = self.mi("list")
        self.assertEqual(shown, {"Records": [self.mi("list", **KEY)["Registrant"]]})
        record = shown["Records"][0]
        for name in ("last_register_sent", "registration_t_out"):
            self.assertRegex(record.pop(name), r"^\w{3} \w{3} +\d+ \d\d:\d\d:\d\d 2023$")
        self.assertEqual(
            record,
            {
                "AOR": "sip:alice@reg.org", "expires": 100, "state": "REGISTERED_STATE", "enabled": "yes",
                "registrar": "sip:192.0.2.7", "binding": "sip:alice@127.0.0.1:5060", "socket": "udp:127.0.0.1:5060",
                "dst_IP": "IPv4", "ip": "192.0.2.7",
            },
        )  # fmt: skip
        self.fails("list", 404, **{**KEY, "aor": "sip:nobody@x"})
        self.fails("list", -32602, aor="sip:x@y")

    def test_status(self) -> None:
        """Each is an identifier of the status group uac_registrant."""
        self.start()
        status = self.wired.user.status.find("uac_registrant")
        assert status is not None
        name = "aor=sip:alice@reg.org;contact=sip:alice@127.0.0.1:5060;registrar=sip:192.0.2.7"
        self.assertEqual(status.status(name), -1)
        request = self.next()
        self.assertEqual(status.status(name), -2)
        self.grant(request)
        found = status.find(name)
        assert found is not None
        self.assertEqual((found.status, found.details), (1, "REGISTERED_STATE"))
        texts = [report.text for report in found.reports]
        states = [f"state changed to {state}_STATE" for state in ("REGISTERING", "REGISTERED")]
        self.assertEqual(texts, ["created with state NOT_REGISTERED_STATE", *states])

    def test_disable(self) -> None:
        """One that is disabled is unregistered, with its password, and the table says so; enabled again it registers."""
        self.up()
        self.mi("disable", **KEY)
        request = self.next()
        self.assertIn(";expires=0", str(request.header("Contact")))
        self.answer(self.challenge(request), 200)
        told = [line.split()[0] for line in self.told()]
        self.assertEqual((told, self.state()), (["UNREGISTERING", "AUTHENTICATING_UNREGISTER"], "NOT_REGISTERED_STATE"))
        self.assertEqual(self.databases.database.tables["registrant"][0]["state"], 1)
        self.fails("force_register", 400, **KEY)
        pass_time(self.wired.clock, 1000)
        self.assertEqual(self.heard(), [])
        self.mi("enable", **KEY)
        self.mi("enable", **KEY)
        self.grant(self.next())
        self.assertEqual(self.databases.database.tables["registrant"][0]["state"], 0)
        self.databases.database.down = True
        self.fails("disable", 500, **KEY)

    def test_upsert(self) -> None:
        """A registration that is in no table comes, is changed, and goes."""
        self.up()
        more = dict.fromkeys(("proxy", "third_party_registrant", "binding_params", "forced_socket", "cluster_shtag"), "")
        new = {**KEY, **more, "aor": "sip:up@reg.org", "username": "u", "password": "p", "expiry": 60, "state": 0}
        self.mi("upsert", **new)
        self.grant(self.next())
        self.mi("upsert", **new)
        pass_time(self.wired.clock, 1)
        self.assertEqual(self.heard(), [])
        self.mi("upsert", **{**new, "expiry": 70})
        self.assertIn("expires=70", str(self.next().header("Contact")))
        evil = {"binding_params": ";a\r\nEvil: 1"}
        for changed in ({"aor": "bad"}, {"forced_socket": "udp:9.9.9.9:9"}, evil, {"registrar": ""}):
            self.fails("upsert", 400, **{**new, **changed})
        key = {**KEY, "aor": "sip:up@reg.org"}
        self.mi("delete", **key)
        self.fails("delete", 404, **key)
        self.assertIn(";expires=0", str(self.next().header("Contact")))

    def test_reload(self) -> None:
        """New rows register, changed ones register anew, those that are gone are unregistered, others go on."""
        rows: list[dict[str, Value]] = [{"aor": f"sip:{name}@reg.org"} for name in ("same", "changed", "gone")]
        self.start(*rows)
        pass_time(self.wired.clock, 1)
        for request in self.heard():
            self.grant(request)
        self.table[1]["password"] = "new"
        self.table[2]["aor"] = "sip:new@reg.org"
        self.mi("reload")
        pass_time(self.wired.clock, 1)
        found = {request.to.uri.user: ";expires=0" in str(request.header("Contact")) for request in self.heard()}
        self.assertEqual(found, {"changed": False, "new": False, "gone": True})
        self.table[0]["expiry"] = 777
        self.mi("reload", **{**KEY, "aor": "sip:same@reg.org"})
        self.assertIn("expires=777", str(self.next().header("Contact")))
        self.fails("reload", 404, **{**KEY, "aor": "sip:nobody@reg.org"})
        self.databases.database.down = True
        self.fails("reload", 500)

    def test_stop(self) -> None:
        """As in OpenSIPS nothing is sent when the server stops, and no timer is left."""
        self.up()
        finished(self.wired.server.modules["uac_registrant"].stop())
        pass_time(self.wired.clock, 1000)
        self.assertEqual(self.heard(), [])
        self.assertEqual(self.wired.left(), [])


class AccountTests(SynchronousTestCase):
    """What can be registered."""

    def test_checked(self) -> None:
        """URIs must be some, and nothing may end a line or a bracket."""
        Account(**KEY, params=";a=b").check()  # type: ignore[arg-type]
        for changed in ({"expires": 0}, {"proxy": "x"}, {"third_party": "sip:a@b>"}, {"params": "a"}, {"params": ";\r\n"}):
            self.assertRaises(MalformedMessage, Account(**KEY, **changed).check)  # type: ignore[arg-type]
        self.assertNotIn("secret", repr(Account("sip:a@b", "sip:a@c", "sip:d", password="secret")))
        self.assertRaises(ValueError, UacRegistrant().set_parameter, "reregister_expiry_percentage", 101)
