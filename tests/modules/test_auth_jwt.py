"""Tests of sipgw.modules.auth_jwt: tokens that are taken, and all those that must not be."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.auth_jwt import AuthJwt, algorithms_of, is_signed, read
from sipgw.script.run import Run
from sipgw.testing import EPOCH, finished
from tests.db.cases import PAYLOADS
from tests.db.memory import MemoryDatabases
from tests.doubles import FakeUser, FakeVariable, fake_server, request, run_of

SECRET = "a secret that is long enough for each of HS256, HS384 and HS512, as RFC 7518 wants it"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> str:
    """The public half of ``key``."""
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def part(value: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(value).decode().rstrip("=")


def token(claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256") -> str:
    """A token."""
    return jwt.encode(claims, key, algorithm=algorithm)


def by_hand(header: dict[str, Any], claims: Any, key: bytes = b"", digest: str = "sha256") -> str:
    """A token that no library would make."""
    text = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    return f"{text}.{part(hmac.digest(key, text.encode(), digest)) if key else ''}"


class JwtTestCase(SynchronousTestCase):
    """A module whose database has the profile "desk" of alice."""

    def setUp(self) -> None:
        """Start it."""
        self.user = FakeUser()
        self.user.seconds = EPOCH
        self.databases = MemoryDatabases()
        tables = self.databases.database.tables
        tables["jwt_profiles"] = [{"tag": "desk", "sip_username": "alice", "extra": "x1"}, {"tag": "none", "sip_username": "bob"}]
        tables["jwt_secrets"] = [
            {"corresponding_tag": "desk", "secret": secret, "start_ts": int(EPOCH) + start, "end_ts": int(EPOCH) + end}
            for secret, start, end in ((SECRET, -9, 9), (pem(RSA), -9, 9), ("o" * 40, -9, -1), ("n" * 40, 1, 9), ("", -9, 9))
        ]
        self.module = AuthJwt(fake_server(self.user), db_mode=1, load_credentials="$avp(e)=extra")
        self.module.server.databases = self.databases
        finished(self.module.start())
        self.run = run_of(request(), self.user)  # type: ignore[assignment,method-assign]
        self.decoded, self.name = FakeVariable(), FakeVariable()

    def by_db(self, text: str) -> int:
        """What jwt_db_authorize() says."""
        run: Run = self.run  # type: ignore[assignment]
        return finished(self.module.jwt_db_authorize(run, text, self.decoded, self.name))

    def by_key(self, text: str, key: str = SECRET) -> int:
        """What jwt_script_authorize() says."""
        run: Run = self.run  # type: ignore[assignment]
        return self.module.jwt_script_authorize(run, text, key, self.decoded)


class KeyTests(JwtTestCase):
    """jwt_script_authorize."""

    def test_taken(self) -> None:
        """Each algorithm with a key of its kind; the variable receives header and claims."""
        for key, given, algorithms in (
            (SECRET, SECRET, ("HS256", "HS384", "HS512")), (RSA, pem(RSA), ("RS256", "RS384", "RS512", "PS256")),
            (EC, pem(EC), ("ES256",)), (ED, pem(ED), ("EdDSA",)),
        ):  # fmt: skip
            for algorithm in algorithms:
                self.assertEqual(self.by_key(token({"z": 1, "a": "ü"}, key, algorithm), given), 1, algorithm)
                self.assertEqual(self.decoded.get(None), f'{{"alg":"{algorithm}","typ":"JWT"}}.{{"a":"ü","z":1}}')

    def test_refused(self) -> None:
        """Another key, no signature, an unknown algorithm, a header that cannot be understood."""
        good = token({"a": 1})
        for text, key in (
            (good, "another"), (good, ""), (good[:-2] + ("AA" if good[-2:] != "AA" else "BB"), SECRET), (good, pem(RSA)),
            (by_hand({"alg": "none"}, {}), SECRET), (by_hand({"alg": "none"}, {}), ""), (by_hand({"alg": "none"}, {}), pem(RSA)),
            (by_hand({"alg": "nOnE"}, {}), SECRET), (by_hand({}, {}, SECRET.encode()), SECRET),
            (by_hand({"alg": ["HS256"]}, {}, SECRET.encode()), SECRET),
            (by_hand({"alg": "HS256", "crit": ["x"], "x": 1}, {}, SECRET.encode()), SECRET),
            (token({}, RSA, "RS256"), pem(EC)), (token({}, EC, "ES256"), pem(RSA)), (good, "-----BEGIN PUBLIC KEY-----\nx"),
        ):  # fmt: skip
            self.assertEqual(self.by_key(text, key), -1, (text, key))

    def test_confusion(self) -> None:
        """A public key is no secret: a token that was made with it by HMAC is refused, however the key is written."""
        for key in (RSA, EC, ED):
            for text in (pem(key), pem(key).strip(), f"\n{pem(key)}"):
                for digest, name in (("sha256", "HS256"), ("sha384", "HS384"), ("sha512", "HS512")):
                    forged = by_hand({"alg": name, "typ": "JWT"}, {"tag": "desk"}, text.encode(), digest)
                    self.assertEqual(self.by_key(forged, text), -1)
                    self.assertEqual(self.by_db(forged), -1)

    def test_times(self) -> None:
        """What has expired, or is not valid yet, is refused; so is a time that is none."""
        now = int(EPOCH)
        for claims, expected in (
            ({"exp": now + 1}, 1), ({"exp": now}, -1), ({"nbf": now}, 1), ({"nbf": now + 1}, -1), ({"exp": "9" * 20}, -1),
            ({"exp": None}, -1), ({"exp": now + 0.5, "nbf": now - 0.5}, 1), ({"iat": now + 99}, 1),
        ):  # fmt: skip
            self.assertEqual(self.by_key(by_hand({"alg": "HS256"}, claims, SECRET.encode())), expected, claims)

    def test_unreadable(self) -> None:
        """What is no token leaves the variable alone."""
        good = token({})
        empty, deep, long = part(b"{}"), part(b"[" * 5000), part(b'{"a":' + b"9" * 5000 + b"}")
        for text in (
            "", ".", "..", "a.b.c", good + ".x", good.rpartition(".")[0], f"{part(b'[]')}.{empty}.", f"{part(b'x')}.{empty}.",
            f"{empty}.{deep}.", f"{empty}.{long}.", "A" * 20000, "\udcff.a.b", good.replace(".", "=.", 1),
        ):  # fmt: skip
            self.assertEqual(self.by_key(text), -2, text[:50])
        self.assertEqual(self.decoded.values, [])
        self.assertEqual(read(by_hand({"alg": "x"}, {"a": "\ud800"})).shown(), '{"alg":"x"}.{"a":"\\ud800"}')


class DatabaseTests(JwtTestCase):
    """jwt_db_authorize."""

    def test_taken(self) -> None:
        """Any secret of the profile will do, while it counts; user and columns are given out."""
        for text in (token({"tag": "desk"}), token({"tag": "desk"}, RSA, "RS256")):
            self.assertEqual(self.by_db(text), 1)
            self.assertEqual(self.name.get(None), "alice")
        run: Run = self.run  # type: ignore[assignment]
        self.assertEqual(run.avps, {"e": ["x1", "x1"]})
        self.assertIn('.{"tag":"desk"}', str(self.decoded.get(None)))
        self.assertEqual(sorted(set(self.databases.checked)), [("jwt_profiles", 1), ("jwt_secrets", 1)])

    def test_refused(self) -> None:
        """Old and future secrets, other profiles, no profile, none that is a text: nothing is given out."""
        for text in (
            token({"tag": "desk"}, "o" * 40), token({"tag": "desk"}, "n" * 40), token({"tag": "desk"}, "x" * 40), token({}),
            token({"tag": "none"}), token({"tag": "nobody"}), token({"tag": 5}), token({"tag": ""}), token({"tag": ["desk"]}),
            token({"tag": "desk", "exp": int(EPOCH)}), by_hand({"alg": "none"}, {"tag": "desk"}), "nonsense",
        ):  # fmt: skip
            self.assertEqual(self.by_db(text), -1, text)
        self.assertEqual((self.decoded.values, self.name.values), ([], []))

    def test_payloads(self) -> None:
        """A claim is a value, whatever stands in it."""
        tables = {name: [dict(row) for row in rows] for name, rows in self.databases.database.tables.items()}
        for payload in PAYLOADS:
            self.assertEqual(self.by_db(token({"tag": payload})), -1, payload)
            self.assertEqual(self.by_db(token({"tag": f"desk{payload}"})), -1, payload)
        self.assertEqual(self.databases.database.tables, tables)

    def test_down(self) -> None:
        """While the database cannot be asked nobody gets in; nor without one."""
        self.databases.database.down = True
        self.assertEqual(self.by_db(token({"tag": "desk"})), -1)
        self.module.db_mode = 0
        finished(self.module.start())
        self.assertEqual(self.by_db(token({"tag": "desk"})), -1)


class ExtractTests(JwtTestCase):
    """Keys out of certificates, and out of numbers."""

    def test_certificate(self) -> None:
        """The key of a certificate verifies what was signed with its other half, and so does the certificate itself."""
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
        now = datetime(2026, 1, 1, tzinfo=UTC)
        builder = x509.CertificateBuilder(name, name, RSA.public_key(), 1, now, now + timedelta(days=1))
        certificate = builder.sign(RSA, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        run: Run = self.run  # type: ignore[assignment]
        self.assertTrue(self.module.extract_pub_key_from_cert(run, certificate, self.decoded))
        self.assertEqual(self.decoded.get(None), pem(RSA))
        self.assertTrue(is_signed(read(token({}, RSA, "RS256")), certificate))
        for bad in ("", "abc", certificate[:200], pem(RSA)):
            self.assertFalse(self.module.extract_pub_key_from_cert(run, bad, self.decoded), bad)

    def test_numbers(self) -> None:
        """An exponent and a modulus make a key; what cannot be one is refused."""
        numbers = RSA.public_key().public_numbers()
        e, n = (part(number.to_bytes((number.bit_length() + 7) // 8, "big")) for number in (numbers.e, numbers.n))
        run: Run = self.run  # type: ignore[assignment]
        self.assertTrue(self.module.extract_pub_key_from_exp_mod(run, e, n, self.decoded))
        self.assertEqual(self.decoded.get(None), pem(RSA))
        for bad in (("", n), (e, ""), ("!!", n), (e, "a"), (n, e), (e, "A" * 4000), (e, n + "=")):
            self.assertFalse(self.module.extract_pub_key_from_exp_mod(run, *bad, self.decoded), bad[0])

    def test_algorithms(self) -> None:
        """A key says what it may be used for."""
        self.assertEqual(algorithms_of("secret")[1], ("HS256", "HS384", "HS512"))
        self.assertEqual(algorithms_of(pem(EC))[1], ("ES256",))
        self.assertRaises(ValueError, algorithms_of, pem(ec.generate_private_key(ec.BrainpoolP256R1())))
