"""Tests of digest authentication, by the examples of RFC 2617 and RFC 7616."""

from __future__ import annotations

from hashlib import md5

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.auth import Challenge, Credentials, answer, choose, digest_response, hash_a1, is_response
from sipgw.sip.errors import MalformedMessage, SipError

# RFC 7616 3.9.1
CHALLENGE = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
RESPONSES = {
    "MD5": "8ca523f5e9506fed4657c9700eebdbec",
    "SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
}


class ParseTests(SynchronousTestCase):
    """Tests of challenges and credentials as text."""

    def test_challenge(self) -> None:
        """A challenge is cut into its parameters, commas in quotes and odd blanks included."""
        challenge = Challenge.parse(
            'digest  REALM = "a, \\"b\\"" ,nonce="x=,y",, stale=TRUE, qop="auth,auth-int", algorithm=MD5-sess'
        )
        self.assertTrue(challenge.is_digest)
        self.assertEqual((challenge.realm, challenge.nonce, challenge.opaque), ('a, "b"', "x=,y", None))
        self.assertEqual((challenge.qop, challenge.stale, challenge.algorithm), (["auth", "auth-int"], True, "MD5-sess"))
        challenge = Challenge.parse("Digest")
        self.assertEqual((challenge.realm, challenge.qop, challenge.stale, challenge.algorithm), ("", [], False, "MD5"))

    def test_credentials(self) -> None:
        """Credentials are cut into their parameters."""
        credentials = Credentials.parse(
            'Digest username="bob@b", realm="r", nonce="n", uri="sip:b;x=,y", response="AF", cnonce="c", qop=Auth, nc=0000001f'
        )
        self.assertEqual((credentials.username, credentials.uri, credentials.response), ("bob@b", "sip:b;x=,y", "AF"))
        self.assertEqual((credentials.cnonce, credentials.qop, credentials.nonce_count), ("c", "auth", 31))
        for nc in ("1", "0000000g", "+0000001", "000000001", ""):
            self.assertEqual(Credentials.parse(f'Digest nc="{nc}"').nonce_count, 0, nc)

    def test_unknown_scheme(self) -> None:
        """Another scheme's data is no fault, whatever it looks like (RFC 4475 3.3.7)."""
        for text in ("NoOneKnowsThisScheme opaque-data=here", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Bearer"):
            self.assertFalse(Credentials.parse(text).is_digest)
            self.assertFalse(Challenge.parse(text).is_supported)

    def test_malformed(self) -> None:
        """What is no list of parameters is refused, and so is one that comes twice."""
        for text in ("", " ", ",", "Digest realm", 'Digest realm="a', "Digest realm=a b", "Digest =a", "Digest x=1, X=2"):
            self.assertRaises(MalformedMessage, Challenge.parse, text)

    def test_written(self) -> None:
        """Quotes stand where the RFCs want them."""
        challenge = Challenge("Digest", {"realm": 'a"b', "nonce": "n", "qop": "auth", "algorithm": "MD5", "stale": "true"})
        self.assertEqual(str(challenge), 'Digest realm="a\\"b", nonce="n", qop="auth", algorithm=MD5, stale=true')
        credentials = Credentials("Digest", {"username": "u", "qop": "auth", "nc": "00000001", "response": "x"})
        self.assertEqual(str(credentials), 'Digest username="u", qop=auth, nc=00000001, response="x"')

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(st.text('Digest realm="=,\\a1 \t\r\n\x00é', max_size=40))
    def test_anything(self, text: str) -> None:
        """Any text is parameters or malformed, and what is written is read as the same."""
        for candidate in (text, f"Digest {text}", f'Digest a="{text}"', f"X {text}"):
            try:
                challenge = Challenge.parse(candidate)
            except MalformedMessage:
                continue
            if not any(char in value for value in challenge.params.values() for char in "\r\n"):
                self.assertEqual(Challenge.parse(str(challenge)).params, challenge.params)


    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["realm", "nc", "a", "Qop", "x-y"]), st.sampled_from(['"', ""]),
                st.text("ab=\\;/é.", max_size=4), st.sampled_from([", ", ",", " , ", ",, "]),
            ),
            max_size=5,
        )
    )  # fmt: skip
    def test_quick(self, pairs: list[tuple[str, str, str, str]]) -> None:
        """What is read by the short way is what the long one gives, which a blank in front makes it take."""
        text = "Digest " + "".join(f"{name}={mark}{value}{mark}{comma}" for name, mark, value, comma in pairs).rstrip(", ")
        found: list[dict[str, str] | None] = []
        for each in (text, f" {text}"):
            try:
                found.append(Credentials.parse(each).params)
            except MalformedMessage:
                found.append(None)
        self.assertEqual(*found)


class DigestTests(SynchronousTestCase):
    """Tests of the sums."""

    def test_rfc_2617(self) -> None:
        """The example of RFC 2617 3.5 comes out."""
        ha1 = hash_a1("Mufasa", "testrealm@host.com", "Circle Of Life")
        self.assertEqual(ha1, "939e7578ed9e3c518a452acee763bce9")
        response = digest_response(
            ha1, "GET", "/dir/index.html", "dcd98b7102dd2f0e8b11d0f600bfb0c093", qop="auth", nc="00000001", cnonce="0a4f113b",
        )
        self.assertEqual(response, "6629fae49393a05397450978507c4ef1")

    def test_rfc_7616(self) -> None:
        """The examples of RFC 7616 3.9.1 come out, and are accepted as they were sent."""
        for algorithm, expected in RESPONSES.items():
            challenge = Challenge.parse(CHALLENGE.format(algorithm))
            ha1 = hash_a1("Mufasa", challenge.realm, "Circle of Life", algorithm)
            credentials = answer(challenge, "Mufasa", ha1, "GET", "/dir/index.html", cnonce=CNONCE)
            self.assertEqual(credentials.response, expected)
            self.assertEqual((credentials.opaque, credentials.qop), (challenge.opaque, "auth"))
            sent = Credentials.parse(str(credentials))
            self.assertTrue(is_response(sent, ha1, "GET"))
            self.assertFalse(is_response(sent, ha1, "PUT"))
            self.assertFalse(is_response(sent, ha1[:-1] + "x", "GET"))

    def test_formulas(self) -> None:
        """Without qop, with auth-int, and with a session, the sums are those of RFC 7616 3.4 spelled out."""
        def h(text: str) -> str:
            return md5(text.encode()).hexdigest()

        ha1 = h("u:r:p")
        self.assertEqual(hash_a1("u", "r", "p"), ha1)
        self.assertEqual(digest_response(ha1, "INVITE", "sip:b", "n"), h(f"{ha1}:n:{h('INVITE:sip:b')}"))
        integrity = h(f"INVITE:sip:b:{h('body')}")
        self.assertEqual(
            digest_response(ha1, "INVITE", "sip:b", "n", qop="auth-int", nc="00000002", cnonce="c", body=b"body"),
            h(f"{ha1}:n:00000002:c:auth-int:{integrity}"),
        )
        session = h(f"{ha1}:n:c")
        self.assertEqual(
            digest_response(ha1, "INVITE", "sip:b", "n", algorithm="md5-SESS", qop="auth", nc="00000001", cnonce="c"),
            h(f"{session}:n:00000001:c:auth:{h('INVITE:sip:b')}"),
        )

    def test_answers(self) -> None:
        """Each kind of challenge is answered so that it is accepted; the body counts for auth-int only."""
        for algorithm in ("MD5", "MD5-sess", "SHA-256", "SHA-256-sess", "SHA-512-256"):
            for qop in ("", "auth", "auth-int", "auth-int,auth"):
                offered = {"realm": "r", "nonce": "n", "algorithm": algorithm}
                challenge = Challenge("Digest", {**offered, "qop": qop} if qop else offered)
                ha1 = hash_a1("ü", "r", "p", algorithm)
                credentials = answer(challenge, "ü", ha1, "INVITE", "sip:b", cnonce="c", nonce_count=255, body=b"\xff")
                sent = Credentials.parse(str(credentials))
                self.assertTrue(is_response(sent, ha1, "INVITE", b"\xff"), (algorithm, qop))
                self.assertEqual(is_response(sent, ha1, "INVITE", b"x"), qop != "auth-int", (algorithm, qop))
                self.assertEqual(sent.nonce_count, 255 if qop else 0)

    def test_refused(self) -> None:
        """What cannot be computed is refused, and never accepted."""
        challenge = Challenge("Digest", {"realm": "r", "nonce": "n", "qop": "other"})
        self.assertRaises(SipError, answer, challenge, "u", "h", "INVITE", "sip:b")
        self.assertRaises(SipError, hash_a1, "u", "r", "p", "MD6")
        self.assertRaises(SipError, is_response, Credentials("Digest", {"algorithm": "x"}), "h", "INVITE")
        self.assertFalse(is_response(Credentials("Digest", {"response": "\udcff"}), "h", "INVITE"))

    def test_choose(self) -> None:
        """The first challenge that can be answered is taken (RFC 8760 2.4)."""
        md6 = Challenge.parse('Digest realm="r", algorithm=MD6')
        sha = Challenge.parse('Digest realm="r", algorithm=SHA-256')
        plain = Challenge.parse('Digest realm="r"')
        self.assertIs(choose([Challenge.parse("Basic x"), md6, sha, plain]), sha)
        self.assertIs(choose([plain, sha]), plain)
        self.assertIsNone(choose([md6]))
