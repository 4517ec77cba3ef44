"""Tests of sipgw.modules.uac and uac_auth: other names for the whole of a dialog, and answers to challenges."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.uac import Uac
from sipgw.modules.uac_auth import UacAuth
from sipgw.proxy.credentials import Credential, parse_credential
from sipgw.proxy.disguise import Disguise, Uris, displayed
from sipgw.sip.auth import Challenge, Credentials, hash_a1, is_response
from sipgw.sip.message import Request, Response
from tests.modules.calls import ALICE, BOB, Calls

SCRIPT = """
loadmodule "rr.so"
loadmodule "uac_auth.so"
loadmodule "uac.so"
modparam("uac_auth", "credential", "alice:trunk:secret")
modparam("uac_auth", "credential", "alice:both:wrong")
modparam("uac_auth", "credential", "hashed:ha1:0x{ha1}")
modparam("uac_auth", "auth_username_avp", "$avp(user)")
modparam("uac_auth", "auth_realm_avp", "$avp(realm)")
modparam("uac_auth", "auth_password_avp", "$avp(password)")
{rest}
route {{
    if (has_totag()) {{
        loose_route();
        {within}
        t_relay();
        exit;
    }}
    record_route();
    $avp(user) = "alice";
    $avp(realm) = "both";
    $avp(password) = "secret";
    {first}
    $ru = "sip:changed@127.0.0.1:7002";
    t_on_failure("failed");
    t_relay();
}}
failure_route[failed] {{
    if (uac_auth({algorithms})) {{
        xlog("L_ALERT", "$ru $cs");
        t_on_failure("failed");
        t_relay();
        exit;
    }}
    xlog("L_ALERT", "no answer");
}}
"""
DIGEST = 'Digest realm="{}", nonce="n1", qop="auth", opaque="op"'


def challenge(realm: str, *, proxy: bool = False, more: str = "") -> str:
    """A challenge as a header line."""
    return f"{'Proxy' if proxy else 'WWW'}-Authenticate: {DIGEST.format(realm)}{more}\r\n"


class Disguises(Calls):
    """A call from alice, at 7001, to bob, at 7002."""

    def begin(self, first: str = "", *, within: str = "", rest: str = "", algorithms: str = "") -> None:
        """Start the server."""
        ha1 = hash_a1("hashed", "ha1", "secret")
        self.start(SCRIPT.format(first=first, within=within, rest=rest, ha1=ha1, algorithms=algorithms))

    def call(self, **options: Any) -> tuple[Request, Response]:
        """Alice calls and bob answers: the INVITE as bob sees it, and the 200 as alice does."""
        (invite,) = self.invite(BOB, **options)
        self.sent(ALICE)
        self.answer(invite, 200, extra="Contact: <sip:bob@127.0.0.1:7002>\r\n")
        (answer,) = self.sent(ALICE)
        return invite, answer

    def within(self, invite: Request, method: str, *, upstream: bool = False, cseq: int = 2) -> tuple[Request, Any]:
        """A request within the dialog as the other one sees it, and the answer as its sender does."""
        caller, callee = "<sip:alice@example.org>;tag=a1", "<sip:bob@example.org>;tag=b1"
        sender, to = (ALICE, BOB)
        if upstream:
            caller, callee = f"{invite.header('To')};tag=b1", str(invite.header("From"))
            sender, to = BOB, ALICE
        routes = "".join(f"Route: {route}\r\n" for route in invite.headers("Record-Route"))
        text = (
            f"{method} sip:x@127.0.0.1:{to} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{sender};branch=z9hG4bK{method}{cseq}{sender}\r\n"
            f"Max-Forwards: 70\r\nFrom: {caller}\r\nTo: {callee}\r\nCall-ID: call@test\r\nCSeq: {cseq} {method}\r\n{routes}"
            "Content-Length: 0\r\n\r\n"
        )
        self.sent(to)
        self.sent(sender)
        self.arrive(text.encode(), sender)
        (found,) = self.sent(to)
        if method == "ACK":
            return found, None
        copied = [line for line in found.lines if line.startswith(("Via:", "From:", "To:", "Call-ID:", "CSeq:"))]
        self.arrive("\r\n".join(["SIP/2.0 200 OK", *copied, "Content-Length: 0\r\n\r\n"]).encode(), to)
        (answer,) = self.sent(sender)
        return found, answer


class ReplaceTests(Disguises):
    """uac_replace_from and uac_replace_to."""

    def headers(self, first: str) -> tuple[str | None, str | None]:
        """From and To as bob sees them."""
        self.begin(first)
        invite, answer = self.call()
        self.assertEqual(answer.header("From"), "<sip:alice@example.org>;tag=a1")
        self.assertEqual(answer.header("To"), "<sip:bob@example.org>;tag=b1")
        return invite.header("From"), invite.header("To")

    def test_written(self) -> None:
        """Display name and URI are changed, or one of them, or none; the responses have what alice wrote."""
        old = "<sip:alice@example.org>"
        for arguments, expected in (
            ('"Bat man", "sip:new@from.net"', '"Bat man" <sip:new@from.net>'), ('"\\"Q\\"", ""', f'"Q" {old}'),
            ('"", "sip:new@from.net"', "<sip:new@from.net>"), ('"", ""', old), (', "tel:+123"', "<tel:+123>"),
            ('"a \\"b\\" c", "sip:x@y;a=b"', '"a \\"b\\" c" <sip:x@y;a=b>'),
        ):  # fmt: skip
            found = self.headers(f"uac_replace_from({arguments});")
            self.assertEqual(found, (f"{expected};tag=a1", "<sip:bob@example.org>"), arguments)
        found = self.headers('uac_replace_to("To", "sip:to@to.net"); uac_replace_from( , "sip:from@from.net");')
        self.assertEqual(found, ("<sip:from@from.net>;tag=a1", '"To" <sip:to@to.net>'))

    def test_refused(self) -> None:
        """What is no URI, or would end the brackets or begin a line, changes nothing."""
        for uri in ("no uri", "sip:a@b>;tag=x,<sip:c@d", "sip:"):
            self.begin(f'if (!uac_replace_from( , "{uri}")) xlog("L_ALERT", "refused");')
            self.assertEqual(self.call()[0].header("From"), "<sip:alice@example.org>;tag=a1")
            self.assertIn("refused", self.logged())

    def test_display(self) -> None:
        """A display name is quoted, unless it is a whole quoted string."""
        for text, expected in (
            ("", ""), ("a", '"a"'), ('"a"', '"a"'), ('"', '"\\""'), ('"a" b"', '"\\"a\\" b\\""'), ('"\\"', '"\\"\\\\\\""'),
        ):  # fmt: skip
            self.assertEqual(displayed(text), expected)

    def test_branch(self) -> None:
        """Changed in a branch route it is changed in that branch, and restored all the same."""
        self.begin('t_on_branch("b");', rest='branch_route[b] { uac_replace_from("X", "sip:x@y"); }')
        invite, answer = self.call()
        self.assertEqual(invite.header("From"), '"X" <sip:x@y>;tag=a1')
        self.assertEqual(answer.header("From"), "<sip:alice@example.org>;tag=a1")
        self.assertIn(";vsf=", str(invite.header("Record-Route")))


class DialogTests(Disguises):
    """Later requests of a dialog."""

    def test_auto(self) -> None:
        """In both directions, requests and responses, each sees the names that it knows; display names are left alone."""
        self.begin('uac_replace_from("Bat man", "sip:new@from.net"); uac_replace_to("", "sip:newto@to.net");')
        invite, _ = self.call()
        for method in ("ACK", "INFO", "BYE"):
            found, answer = self.within(invite, method)
            self.assertEqual(found.header("From"), "<sip:new@from.net>;tag=a1", method)
            self.assertEqual(found.header("To"), "<sip:newto@to.net>;tag=b1", method)
            if answer is not None:
                self.assertEqual(answer.header("From"), "<sip:alice@example.org>;tag=a1")
                self.assertEqual(answer.header("To"), "<sip:bob@example.org>;tag=b1")
        found, answer = self.within(invite, "INFO", upstream=True)
        self.assertEqual(found.header("From"), "<sip:bob@example.org>;tag=b1")
        self.assertEqual(found.header("To"), '"Bat man" <sip:alice@example.org>;tag=a1')
        self.assertEqual(answer.header("From"), "<sip:newto@to.net>;tag=b1")
        self.assertEqual(answer.header("To"), '"Bat man" <sip:new@from.net>;tag=a1')

    def test_restart(self) -> None:
        """A server that has been restarted knows them too; one with another password does not, and goes on without."""
        password = 'modparam("uac", "restore_passwd", "sesame")'
        for now, expected in ((password, "<sip:new@from.net>"), (password.replace("sesame", "x"), "<sip:alice@example.org>")):
            self.begin('uac_replace_from( , "sip:new@from.net");', rest=password)
            invite, _ = self.call()
            self.begin(rest=now)
            self.assertEqual(self.within(invite, "BYE")[0].header("From"), f"{expected};tag=a1")

    def test_manual(self) -> None:
        """By hand the script says which are restored."""
        rest = 'modparam("uac", "restore_mode", "manual")'
        replaced = 'uac_replace_from( , "sip:new@from.net"); uac_replace_to( , "sip:newto@to.net");'
        self.begin(replaced, within='if (is_method("BYE")) uac_restore_from();', rest=rest)
        invite, _ = self.call()
        self.assertEqual(self.within(invite, "INFO")[0].header("From"), "<sip:alice@example.org>;tag=a1")
        found, answer = self.within(invite, "BYE")
        self.assertEqual(found.header("From"), "<sip:new@from.net>;tag=a1")
        self.assertEqual(found.header("To"), "<sip:bob@example.org>;tag=b1")
        self.assertEqual(answer.header("From"), "<sip:alice@example.org>;tag=a1")
        self.begin(replaced, within='uac_restore_to();', rest=rest)
        self.assertEqual(self.within(invite, "BYE")[0].header("To"), "<sip:newto@to.net>;tag=b1")

    def test_none(self) -> None:
        """With "none" nothing is kept and nothing restored, and rr need not be there."""
        self.begin('uac_replace_from( , "sip:new@from.net");', rest='modparam("uac", "restore_mode", "none")')
        (invite,) = self.invite(BOB)
        self.assertNotIn("vsf", str(invite.header("Record-Route")))
        self.sent(ALICE)
        self.answer(invite, 200)
        self.assertEqual(self.sent(ALICE)[0].header("From"), "<sip:new@from.net>;tag=a1")

    def test_sealed(self) -> None:
        """What was not made here, or is no URI, is not put into a message."""
        seal = Disguise("x")
        uris = Uris("sip:a@b", "sip:c@d")
        self.assertEqual(seal.open(seal.close(uris)), uris)
        self.assertIsNone(seal.open("TxoZSlsCDBQlJh0dBElACgZZ"))
        self.assertIsNone(Disguise("y").open(seal.close(uris)))
        for bad in (Uris("sip:a@b", "x\r\nEvil: 1"), Uris("sip:a@b>", "sip:c@d"), Uris("", "")):
            self.assertIsNone(seal.open(seal.close(bad)), bad)

    def test_cseq(self) -> None:
        """uac_inc_cseq() moves the CSeq on for the caller's requests of the whole dialog, not for the callee's."""
        self.begin("uac_inc_cseq(3); uac_inc_cseq(2);")
        invite, answer = self.call()
        self.assertEqual((invite.header("CSeq"), answer.header("CSeq")), ("6 INVITE", "1 INVITE"))
        for method, cseq in (("ACK", 1), ("BYE", 2)):
            found, answered = self.within(invite, method, cseq=cseq)
            self.assertEqual(found.header("CSeq"), f"{cseq + 5} {method}")
            if answered is not None:
                self.assertEqual(answered.header("CSeq"), "2 BYE")
        self.assertEqual(self.within(invite, "INFO", upstream=True)[0].header("CSeq"), "2 INFO")
        self.begin('if (!uac_inc_cseq(0)) xlog("L_ALERT", "refused");')
        self.assertEqual(self.call()[0].header("CSeq"), "1 INVITE")


class WithDialogTests(DialogTests):
    """The same where the module dialog follows each call, too."""

    def begin(self, first: str = "", *, within: str = "", rest: str = "", algorithms: str = "") -> None:
        """Start the server; the dialog is made by hand."""
        super().begin(f"create_dialog(); {first}", within=within, rest=f'loadmodule "dialog.so"\n{rest}', algorithms=algorithms)

    def test_force_dialog(self) -> None:
        """force_dialog makes a dialog of a call whose names are changed, and of no other."""
        for name, dialogs in (("", 0), ('uac_replace_from( , "sip:x@y");', 1)):
            rest = 'loadmodule "dialog.so"\nmodparam("uac", "force_dialog", 1)'
            Disguises.begin(self, name, rest=rest)
            self.call()
            active = self.wired.user.statistics.find("dialog:active_dialogs")
            self.assertEqual(active and active.read(), dialogs)
        self.assertRaises(ValueError, Uac(restore_mode="none", force_dialog=1).start().send, None)


class Challenges(Disguises):
    """A callee that asks for a password."""

    def again(self, *lines: str, status: int = 401, **options: Any) -> Request | None:
        """Bob challenges alice's call: the next INVITE that he sees."""
        (invite,) = self.invite(BOB, **options)
        self.challenge(invite, status, *lines)
        return self.next()

    def challenge(self, invite: Request, status: int, *lines: str) -> None:
        """Bob challenges."""
        self.answer(invite, status, extra="".join(lines))

    def next(self) -> Request | None:
        """The next INVITE of bob."""
        found = [message for message in self.sent(BOB) if message.method == "INVITE"]
        return found[0] if found else None

    def check(self, request: Request | None, realm: str, user: str = "alice", name: str = "Authorization") -> Credentials:
        """The credentials in a request, which must be right."""
        assert request is not None
        (text,) = request.headers(name)
        found = Credentials.parse(text)
        self.assertEqual((found.realm, found.username, found.uri), (realm, user, request.uri))
        self.assertTrue(is_response(found, hash_a1(user, realm, "secret", found.algorithm), "INVITE", request.body))
        return found


class OddTests(Challenges):
    """Challenges that nobody would send."""

    @settings(max_examples=12, derandomize=True, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(["nonce", "opaque", "qop", "algorithm", "stale"]), st.text('auth,-int"\\;= \té', max_size=9)
        )
    )
    def test_odd_challenges(self, params: dict[str, str]) -> None:
        """Whatever a callee asks, the answer is one readable header, or the call fails; nothing is a bug of ours."""
        self.begin()
        text = str(Challenge("Digest", {"realm": "trunk", **params}))
        again = self.again(f"WWW-Authenticate: {text}\r\n")
        if again is not None:
            (answer,) = again.headers("Authorization")
            found = Credentials.parse(answer)
            self.assertEqual((found.nonce, found.opaque), (params.get("nonce", ""), params.get("opaque")))
        self.assertEqual([entry for entry in self.logged() if "bug" in entry or ".cfg:" in entry], [])


class AnswerTests(Challenges):
    """uac_auth."""

    def test_answered(self) -> None:
        """The challenge is answered for the URI that was challenged, with the CSeq after; the whole dialog keeps step."""
        self.begin()
        again = self.again(challenge("trunk"))
        found = self.check(again, "trunk")
        assert again is not None
        self.assertEqual((found.qop, found.nonce_count, found.opaque, found.params.get("algorithm")), ("auth", 1, "op", None))
        self.assertEqual((again.uri, again.header("CSeq")), ("sip:changed@127.0.0.1:7002", "2 INVITE"))
        self.assertIn(";aci=1", str(again.header("Record-Route")))
        self.assertEqual(self.logged(), ["sip:changed@127.0.0.1:7002 1"])
        self.sent(ALICE)
        self.answer(again, 200)
        self.assertEqual(self.sent(ALICE)[0].header("CSeq"), "1 INVITE")
        self.assertEqual(self.within(again, "ACK", cseq=1)[0].header("CSeq"), "2 ACK")
        bye, answer = self.within(again, "BYE")
        self.assertEqual((bye.header("CSeq"), answer.header("CSeq")), ("3 BYE", "2 BYE"))

    def test_proxy(self) -> None:
        """A proxy's challenge and a server's behind it: both answers are sent, and the CSeq goes on each time."""
        self.begin()
        again = self.again(challenge("trunk", proxy=True), status=407)
        self.check(again, "trunk", name="Proxy-Authorization")
        assert again is not None
        self.challenge(again, 401, challenge("both"))
        third = self.next()
        self.check(third, "trunk", name="Proxy-Authorization")
        self.check(third, "both")
        assert third is not None
        self.assertEqual(third.header("CSeq"), "3 INVITE")

    def test_stale(self) -> None:
        """A nonce that was too old gives one new answer in place of the first; after three there are no more."""
        self.begin()
        again = self.again(challenge("trunk"))
        for _ in (2, 3):
            assert again is not None
            self.challenge(again, 401, challenge("trunk", more=", stale=true"))
            again = self.next()
            self.check(again, "trunk")
        assert again is not None
        self.assertEqual(again.header("CSeq"), "4 INVITE")
        self.sent(ALICE)
        self.challenge(again, 401, challenge("trunk"))
        self.assertIsNone(self.next())
        (final,) = self.sent(ALICE)
        self.assertEqual((final.status, final.header("CSeq")), (401, "1 INVITE"))

    def test_unknown_realm(self) -> None:
        """Who asks in another realm's name learns nothing: the challenge goes to the caller."""
        self.begin()
        self.sent(ALICE)
        others = 'WWW-Authenticate: Basic realm="trunk"\r\nWWW-Authenticate: x=\r\n'
        self.assertIsNone(self.again(challenge("elsewhere"), others))
        self.assertEqual(self.logged(), ["no answer"])
        self.assertEqual(self.sent(ALICE)[-1].status, 401)
        self.begin()
        self.assertIsNone(self.again(status=403))

    def test_credentials(self) -> None:
        """AVPs come before the script's credentials; a hash does for its algorithm."""
        self.begin()
        self.check(self.again(challenge("both")), "both")
        self.begin()
        self.check(self.again(challenge("ha1", more=", algorithm=SHA-256"), challenge("ha1")), "ha1", "hashed")

    def test_algorithms(self) -> None:
        """The first challenge that can be answered is, unless the script wants others."""
        offered = [challenge("trunk", more=f", algorithm={name}") for name in ("MD9", "SHA-512-256", "MD5-sess", "MD5")]
        for algorithms, expected in (("", "SHA-512-256"), ('"MD5,SHA-256"', "MD5"), ('"md5-sess"', "MD5-sess")):
            self.begin(algorithms=algorithms)
            self.assertEqual(self.check(self.again(*offered), "trunk").algorithm, expected)

    def test_body(self) -> None:
        """auth-int takes the body in as it is sent."""
        self.begin()
        found = self.check(self.again('WWW-Authenticate: Digest realm="trunk", nonce="n", qop="auth-int"\r\n'), "trunk")
        self.assertEqual(found.qop, "auth-int")

    def test_elsewhere(self) -> None:
        """Outside of a failure route there is nothing to answer."""
        self.begin('if (!uac_auth()) xlog("L_ALERT", "nothing");')
        self.call()
        self.assertIn("nothing", self.logged())


class AnswerWithDialogTests(AnswerTests):
    """The same where the module dialog follows each call, too."""

    def begin(self, first: str = "", *, within: str = "", rest: str = "", algorithms: str = "") -> None:
        """Start the server; the dialog is made by hand."""
        super().begin(f"create_dialog(); {first}", within=within, rest=f'loadmodule "dialog.so"\n{rest}', algorithms=algorithms)


class ParameterTests(SynchronousTestCase):
    """What modparams may say."""

    def test_refused(self) -> None:
        """Credentials without a realm, unknown modes and names are refused; no message tells a password."""
        self.assertEqual(parse_credential("a:b:c:d"), Credential("a", "b", "c:d"))
        for text in ("a:b", "secret", ":b:secret", "a::secret"):
            with self.assertRaises(ValueError) as caught:
                UacAuth().set_parameter("credential", text)
            self.assertNotIn("secret", str(caught.exception))
        self.assertNotIn("secret", repr(parse_credential("a:b:secret")))
        self.assertRaises(ValueError, UacAuth().set_parameter, "auth_realm_avp", "$var(x)")
        self.assertRaises(ValueError, Uac().set_parameter, "restore_mode", "other")
        self.assertRaises(ValueError, Uac().set_parameter, "rr_to_store_param", "a;b")

    def test_needs(self) -> None:
        """Restoring needs rr, three AVPs go together."""
        self.assertRaises(ValueError, Uac(restore_mode="auto").start().send, None)
        self.assertRaises(ValueError, UacAuth(auth_realm_avp="$avp(x)").start().send, None)
