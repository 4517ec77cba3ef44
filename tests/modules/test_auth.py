"""Tests of sipgw.modules.auth: a client that is asked for a password, and what it may answer."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.auth import Auth
from sipgw.sip.auth import Challenge, hash_a1
from sipgw.sip.message import Request, Response
from tests.digest import answered, challenges
from tests.modules.scripted import Scripted

PARAMETERS = """
modparam("auth", "username_spec", "$var(user)")
modparam("auth", "password_spec", "$var(password)")
modparam("auth", "calculate_ha1", 1)
"""
BODY = """
    $var(user) = "alice";
    $var(password) = "secret";
    $var(realm) = "";
    if ($hdr(X-Realm) != NULL) $var(realm) = $hdr(X-Realm);
    if ($hdr(X-Ask) == "proxy") { proxy_challenge($var(realm), "auth"); xlog("L_ALERT", "not sent"); exit; }
    if ($hdr(X-Ask) != NULL) {
        if ($hdr(X-Qop) == NULL) www_challenge($var(realm));
        else if ($hdr(X-Alg) == NULL) www_challenge($var(realm), $hdr(X-Qop));
        else www_challenge($var(realm), $hdr(X-Qop), $hdr(X-Alg));
        xlog("L_ALERT", "not sent");
        exit;
    }
    if ($hdr(X-Nobody) != NULL) $var(password) = NULL;
    if ($hdr(X-Proxy) != NULL) pv_proxy_authorize($var(realm));
    else pv_www_authorize($var(realm));
    $var(code) = $rc;
    append_to_reply("X-Code: $var(code)\\r\\nX-Who: $au $ad $ar $adu $Au\\r\\n");
    if ($var(code) < 0) www_challenge($var(realm), "auth");
    send_reply(200, "OK");
"""


def register(method: str = "REGISTER", uri: str = "sip:example.org", more: str = "", body: str = "") -> bytes:
    """A request of alice@example.org; ``more`` are whole header lines."""
    return (
        f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKone\r\nMax-Forwards: 70\r\n"
        f"From: <sip:alice@sip.caller.org>;tag=a1\r\nTo: <sip:alice@example.org>\r\nCall-ID: 1\r\nCSeq: 1 {method}\r\n"
        f"{more}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Asked(SynchronousTestCase):
    """A server that asks for the password of alice."""

    def start(self, rest: str = "", body: str = BODY) -> None:
        """Start it, with ``rest`` before its route."""
        self.scripted = Scripted(body, "signaling", "sipmsgops", "auth", rest=PARAMETERS + rest)

    def send(self, data: bytes) -> Any:
        """Its answer to ``data``."""
        self.scripted.send(data)
        return self.scripted.phone.take()

    def ask(self, more: str = "X-Ask: 1\r\nX-Qop: auth\r\n") -> Challenge:
        """A challenge."""
        return challenges(self.send(register(more=more)))[0]

    def code(self, line: str, **request: Any) -> str:
        """What pv_www_authorize() gives for a request with these header lines."""
        found = self.send(register(more=line, **request))
        return str(found.header("X-Code") if found.header("X-Code") else found.status)


class ChallengeTests(Asked):
    """What goes out in a 401 or 407."""

    def lines(self, more: str) -> list[str]:
        """The challenges without their nonces."""
        found = self.send(register(more=f"X-Ask: 1\r\n{more}"))
        made = []
        for challenge in challenges(found):
            self.assertEqual(len(challenge.params.pop("nonce")), 36)
            made.append(str(challenge))
        return made

    def test_written(self) -> None:
        """As OpenSIPS writes them: one for each algorithm, the strongest first; MD5 is named only if the script names it."""
        self.start('modparam("auth", "realm_prefix", "sip.")\n')
        self.assertEqual(self.lines(""), ['Digest realm="example.org"'])
        self.assertEqual(self.lines("X-Realm: sip.r.org\r\n"), ['Digest realm="sip.r.org"'])
        self.assertEqual(self.lines("X-Qop: auth\r\n"), ['Digest realm="example.org", qop="auth"'])
        self.assertEqual(self.lines("X-Qop: auth, Auth-Int\r\n"), ['Digest realm="example.org", qop="auth,auth-int"'])
        self.assertEqual(
            self.lines("X-Qop: auth\r\nX-Alg: md5, SHA-256,SHA-512-256-SESS\r\n"),
            [f'Digest realm="example.org", qop="auth", algorithm={name}' for name in ("SHA-512-256-sess", "SHA-256", "MD5")],
        )
        self.assertEqual(self.scripted.logged(), [])

    def test_proxy(self) -> None:
        """A proxy's realm is the domain of From, as is a server's but for REGISTER, without the prefix."""
        self.start('modparam("auth", "realm_prefix", "sip.")\n')
        found = self.send(register("INVITE", more="X-Ask: proxy\r\n"))
        self.assertEqual((found.status, found.reason), (407, "Proxy Authentication Required"))
        self.assertEqual(Challenge.parse(found.header("Proxy-Authenticate")).realm, "caller.org")
        self.assertEqual(challenges(self.send(register("INVITE", more="X-Ask: 1\r\n")))[0].realm, "caller.org")
        self.assertEqual(challenges(self.send(register("REGISTER", more="X-Ask: proxy\r\n")))[0].realm, "caller.org")

    def test_refused(self) -> None:
        """A qop or an algorithm that nobody knows is no challenge, and neither is a realm that would begin a new line."""
        self.start()
        for more in ("X-Qop: bad\r\n", "X-Qop: auth\r\nX-Alg: MD6\r\n", "X-Qop: \r\n"):
            self.assertTrue(self.scripted.send(register(more=f"X-Ask: 1\r\n{more}"))[0].strip(), more)
            self.assertIsNone(self.scripted.phone.take(), more)
        self.assertRaises(AssertionError, Scripted, 'www_challenge("r", "bad");', "signaling", "auth")
        self.assertRaises(AssertionError, Scripted, 'www_challenge("r", "auth", "MD4");', "signaling", "auth")

    def test_ack(self) -> None:
        """An ACK is never answered."""
        self.start()
        self.assertEqual(self.scripted.send(register("ACK", more="X-Ask: 1\r\n")), [])
        self.assertIsNone(self.scripted.phone.take())

    def test_parameters(self) -> None:
        """Secrets, lifetimes and names that cannot be are refused."""
        for name, value in (
            ("secret", "short"), ("nonce_expire", 0), ("rpid_avp", "$var(x)"), ("username_spec", "x"), ("password_spec", "$"),
        ):
            self.assertRaises(ValueError, Auth().set_parameter, name, value)


class AuthorizeTests(Asked):
    """What pv_www_authorize() and pv_proxy_authorize() say."""

    def test_right(self) -> None:
        """The right password is taken, of each algorithm and qop, and once only."""
        self.start()
        for algorithm in ("MD5", "MD5-sess", "SHA-256", "SHA-256-sess", "SHA-512-256", "SHA-512-256-sess"):
            for qop in ("auth", "auth-int"):
                challenge = self.ask(f"X-Ask: 1\r\nX-Qop: {qop}\r\nX-Alg: {algorithm}\r\n")
                line = answered(challenge, body=b"body")
                self.assertEqual(self.code(line, body="body"), "1", (algorithm, qop))
                self.assertEqual(self.code(line, body="body"), "-3", (algorithm, qop))
        challenge = self.ask("X-Ask: 1\r\n")
        self.assertEqual([self.code(answered(challenge)) for _ in range(2)], ["1", "-3"])

    def test_body(self) -> None:
        """With auth-int another body is not what was authorized."""
        self.start()
        self.assertEqual(self.code(answered(self.ask("X-Ask: 1\r\nX-Qop: auth-int\r\n"), body=b"this"), body="that"), "-2")

    def test_codes(self) -> None:
        """Each thing that can be wrong has the code that it has in OpenSIPS."""
        self.start()
        wrong: tuple[tuple[dict[str, Any], str], ...] = (
            ({"password": "wrong"}, "-2"), ({"user": "bob"}, "-1"), ({"user": "alice@example.org"}, "-1"),
            ({"realm": "other.org"}, "-4"), ({"realm": "EXAMPLE.org"}, "1"), ({"algorithm": "MD9"}, "-4"),
            ({"algorithm": "SHA-256"}, "-3"), ({"qop": "auth-int"}, "-3"), ({"nonce": "x"}, "-3"), ({"nonce": "A" * 36}, "-3"),
            ({"cnonce": ""}, "400"), ({"response": ""}, "400"), ({"uri": ""}, "400"), ({"username": ""}, "400"),
            ({"opaque": "x"}, "1"), ({"nc": "1"}, "-2"), ({"nc": "00000000"}, "-3"), ({"nc": "x"}, "-3"), ({}, "1"),
        )
        for changed, expected in wrong:
            self.assertEqual(self.code(answered(self.ask(), **changed)), expected, changed)
        self.assertEqual(self.code(""), "-4")
        self.assertEqual(self.code("Authorization: Basic abc=\r\n"), "-4")
        self.assertEqual(self.code("Authorization: Digest realm\r\n"), "400")
        self.assertEqual(self.code("Authorization: Digest realm\r\n" + answered(self.ask(), realm="other")), "400")
        self.assertEqual(self.code("Authorization: Digest x\r\n" + answered(self.ask(), realm="o") + answered(self.ask())), "1")
        self.assertEqual(self.code(answered(self.ask()) + "X-Nobody: 1\r\n"), "500")

    def test_growing_count(self) -> None:
        """A nonce with a growing count is good until it expires; a wrong password uses it up."""
        self.start()
        challenge = self.ask()
        for count, expected in ((1, "1"), (2, "1"), (7, "1"), (7, "-3"), (6, "-3")):
            self.assertEqual(self.code(answered(challenge, count=count)), expected, count)
        self.assertEqual(self.code(answered(challenge, password="guess", count=8)), "-2")
        self.assertEqual(self.code(answered(challenge, count=9)), "-3")

    def test_stale(self) -> None:
        """Only a nonce that was too old is called stale in the next challenge, and it is after 30 seconds."""
        self.start()
        challenge = self.ask()
        self.scripted.clock.advance(32)
        found = self.send(register(more=answered(challenge)))
        self.assertEqual((found.status, found.header("X-Code"), challenges(found)[0].stale), (401, "-3", True))
        self.assertFalse(challenges(self.send(register(more=answered(self.ask(), password="x"))))[0].stale)
        self.assertEqual(self.code(answered(challenges(found)[0])), "1")

    def test_restart(self) -> None:
        """After a restart the nonces of before are stale, even with the same secret, and the answer is a new challenge."""
        for rest in ("", f'modparam("auth", "secret", "{"s" * 32}")\n'):
            self.start(rest)
            challenge = self.ask()
            self.start(rest)
            found = self.send(register(more=answered(challenge)))
            self.assertEqual((found.status, found.header("X-Code"), challenges(found)[0].stale), (401, "-3", True))
            self.assertEqual(self.code(answered(challenges(found)[0])), "1")

    def test_shared(self) -> None:
        """With disable_nonce_check servers with one secret take each other's nonces, until they expire."""
        rest = f'modparam("auth", "secret", "{"s" * 32}")\nmodparam("auth", "disable_nonce_check", 1)\n'
        self.start(rest)
        challenge = self.ask()
        self.assertEqual([self.code(answered(challenge)) for _ in range(2)], ["1", "1"])
        self.start(rest)
        self.assertEqual(self.code(answered(challenge)), "1")
        self.scripted.clock.advance(32)
        self.assertEqual(self.code(answered(challenge)), "-3")

    def test_clock(self) -> None:
        """A clock on the wall that is set costs nobody a challenge; where servers share a secret it costs one."""
        shared = f'modparam("auth", "secret", "{"s" * 32}")\nmodparam("auth", "disable_nonce_check", 1)\n'
        for rest, expected in (("", "1"), (shared, "-3")):
            for jump in (86400, -3600):
                self.start(rest)
                challenge = self.ask()
                user: Any = self.scripted.server.user
                before = user.wall_clock
                user.wall_clock = lambda before=before, jump=jump: before() + jump
                auth: Any = self.scripted.server.modules["auth"]
                auth.clock = user.wall_clock if rest else user.clock
                found = self.send(register(more=answered(challenge)))
                self.assertEqual(found.header("X-Code"), expected)
                if found.status == 401:
                    self.assertEqual(self.code(answered(challenges(found)[0])), "1")

    def test_uri(self) -> None:
        """Credentials are for one request: its user, and its host unless that is ours."""
        self.start()
        for uri, sent_to, expected in (
            ("sip:bob@example.org", "sip:bob@example.org", "1"),
            ("sip:bob@EXAMPLE.org:5060;transport=udp", "sip:bob@example.org", "1"),
            ("sip:bob@example.org", "sip:bob@127.0.0.1", "1"),
            ("sip:bob@example.org", "sip:carol@127.0.0.1", "-2"),
            ("sip:bob@example.org", "sip:bob@evil.org", "-2"),
            ("sip:bob@example.org", "sip:+1900@example.org", "-2"),
            ("sip:example.org", "sip:bob@example.org", "-2"),
            ("nonsense", "sip:bob@example.org", "-2"),
        ):
            line = answered(self.ask("X-Ask: 1\r\nX-Realm: r\r\n"), method="INVITE", uri=uri)
            self.assertEqual(self.code(line + "X-Realm: r\r\n", method="INVITE", uri=sent_to), expected, (uri, sent_to))

    def test_who(self) -> None:
        """$au and the others name whoever was authorized, whatever other headers say; $Au nobody who was not."""
        self.start()
        victim = 'Digest username="victim@x", realm="{}", nonce="n", uri="sip:x", response="y"\r\n'
        proxy, other = f"Proxy-Authorization: {victim.format('example.org')}", f"Authorization: {victim.format('other.org')}"
        alice = "alice <null> example.org sip:example.org alice@example.org"
        for before, after in (("", ""), (proxy, ""), ("", proxy), (other, ""), ("", other)):
            found = self.send(register(more=before + answered(self.ask()) + after))
            self.assertEqual((found.header("X-Code"), found.header("X-Who")), ("1", alice), (before, after))
        found = self.send(register(more=proxy + answered(self.ask(), password="x")))
        self.assertEqual(found.header("X-Who"), "victim x example.org sip:x alice@sip.caller.org")

    def test_never_asked(self) -> None:
        """ACK and CANCEL are taken without credentials."""
        self.start('onreply_route { exit; }\n')
        self.assertEqual(self.send(register("CANCEL")).header("X-Code"), "1")
        self.assertEqual(self.send(register("PRACK")).header("X-Code"), "-4")

    def test_proxy(self) -> None:
        """pv_proxy_authorize() looks at Proxy-Authorization only."""
        self.start()
        challenge = challenges(self.send(register("INVITE", more="X-Ask: proxy\r\n")))[0]
        line = answered(challenge, method="INVITE")
        self.assertEqual(self.code(f"X-Proxy: 1\r\n{line}", method="INVITE"), "-4")
        self.assertEqual(self.code(f"X-Proxy: 1\r\nProxy-{line}", method="INVITE"), "1")

    def test_precomputed(self) -> None:
        """Without calculate_ha1 the variable holds the hash."""
        for ha1, expected in (("7cfa6b9e9d2a4b1d87ad8e4b0fae7b2e", "-2"), (hash_a1("alice", "example.org", "secret"), "1")):
            self.start('modparam("auth", "calculate_ha1", 0)\n', BODY.replace('"secret"', f'"{ha1}"'))
            self.assertEqual(self.code(answered(self.ask())), expected)


CONSUME = """
    $var(user) = "alice";
    $var(password) = "secret";
    if ($hdr(X-Ask) == "proxy") { proxy_challenge("r", "auth"); exit; }
    if ($hdr(X-Ask) != NULL) { www_challenge("r"); exit; }
    if ($hdr(X-Rpid) != NULL) $avp(rpid) = $hdr(X-Rpid);
    if (!pv_proxy_authorize("r") && !pv_www_authorize("r")) xlog("L_ALERT", "unknown");
    if (!consume_credentials()) xlog("L_ALERT", "not consumed");
    if (is_rpid_user_e164()) xlog("L_ALERT", "e164");
    if ($hdr(X-Pre) == NULL) append_rpid_hf(); else append_rpid_hf($hdr(X-Pre), ">;x=y");
    $du = "sip:192.0.2.1";
    forward();
"""


class FuzzTests(Asked):
    """Credentials that nobody would send."""

    @settings(max_examples=120, derandomize=True, deadline=None)
    @given(st.data())
    def test_anything(self, data: st.DataObject) -> None:
        """Whatever stands in the header, the request is answered, nobody gets in, and nothing is a bug of ours."""
        if not hasattr(self, "scripted"):
            self.start()
        challenge = self.ask()
        names = ["username", "realm", "nonce", "uri", "response", "qop", "nc", "cnonce", "algorithm", "opaque"]
        odd = st.text('Digest="\\\\,;: \t@%<>\u00e9\udcff0123', max_size=30)
        changed: dict[str, Any] = data.draw(st.dictionaries(st.sampled_from(names), odd, min_size=1, max_size=3))
        line = answered(challenge, password="wrong", **changed)
        for text in (line, f"Authorization: {data.draw(odd)}\r\n", f"Authorization: Digest {data.draw(odd)}\r\n"):
            data_sent = register(more="HERE").replace(b"HERE", text.encode("utf-8", "surrogateescape"))
            self.scripted.phone.inbox.clear()
            logged = self.scripted.send(data_sent)
            found: Any = self.scripted.phone.take()
            self.assertNotEqual(found.header("X-Code"), "1", text)
            self.assertEqual([entry for entry in logged if "bug" in entry or ".cfg:" in entry], [], text)


class ForwardedTests(Asked):
    """What the next server sees."""

    def forwarded(self, more: str = "", **request: Any) -> tuple[list[str], list[str]]:
        """What was logged, and the headers of interest that the next hop got."""
        logged = self.scripted.send(register(more=more, **request))
        found = self.scripted.phone.take()
        assert isinstance(found, Request), found
        names = ("Authorization", "Proxy-Authorization", "Remote-Party-ID")
        return logged, [f"{name}: {value}" for name in names for value in found.headers(name)]

    def test_consumed(self) -> None:
        """Of all credentials only those that were good here are taken out."""
        self.start(body=CONSUME)
        other = 'Authorization: Digest username="a", realm="elsewhere", nonce="n", uri="sip:x", response="y"'
        challenge = self.ask("X-Ask: 1\r\n")
        logged, seen = self.forwarded(f"{other}\r\n{answered(challenge)}{answered(challenge, realm='s')}")
        self.assertEqual((logged, seen[0], len(seen)), ([], other, 2))
        self.assertIn('realm="s"', seen[1])
        logged, seen = self.forwarded(f"{other}\r\n")
        self.assertEqual((logged, seen), (["unknown", "not consumed"], [other]))

    def test_rpid(self) -> None:
        """The URI in the AVP becomes a Remote-Party-ID; E.164 is a + and up to 15 digits."""
        self.start(body=CONSUME)
        suffix = ";party=calling;id-type=subscriber;screen=yes"
        for rpid, e164 in (
            ("sip:+12345@x.org", True), ('"n" <sip:+123@x>;party=called', True), ("sips:+1234@h", True), ("tel:+1234", True),
            ("<sip:+1234567890123456@x>", False), ("sip:12345@x.org", False), ("sip:+12a@x", False), ("+123", False),
        ):
            logged, seen = self.forwarded(f"X-Rpid: {rpid}\r\n")
            self.assertEqual("e164" in logged, e164, rpid)
            self.assertEqual(seen, [f"Remote-Party-ID: {rpid}{suffix}"])
            self.assertEqual(self.forwarded(f"X-Rpid: {rpid}\r\nX-Pre: <\r\n")[1], [f"Remote-Party-ID: <{rpid}>;x=y"])
        self.assertEqual(self.forwarded()[1], [])


class StatefulTests(Asked):
    """A challenge where the request has a transaction."""

    def test_stateful(self) -> None:
        """The challenge goes through the transaction, and its ACK ends there."""
        self.start(body='t_newtran(); www_challenge("r", "auth");')
        found = self.send(register("INVITE"))
        while isinstance(found, Response) and found.status == 100:
            found = self.scripted.phone.take()
        self.assertEqual((found.status, challenges(found)[0].realm), (401, "r"))
