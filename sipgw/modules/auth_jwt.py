"""auth_jwt: JSON Web Tokens (RFC 7519) as proof of who sends a request; needs ``pip install sipgw[jwt]``.

What algorithms a key may be used with is decided by the key, never by the token: a public key in PEM verifies signatures only,
and is no secret of an HMAC ("algorithm confusion"; OpenSIPS 4.1 takes such tokens); ``none`` is never taken. A token that has
expired, or is not valid yet, is refused (RFC 7519 4.1.4, 4.1.5). A claim goes to the database as a bound value."""

from __future__ import annotations

import json
import warnings
from base64 import urlsafe_b64decode
from typing import Any, NamedTuple

from sipgw.db.errors import DatabaseError
from sipgw.exports import REQUEST, Module, Writable, function, param
from sipgw.modules.auth_db import Tables, check_column, parse_load, store
from sipgw.script.run import Run

VERSION = 1
MAX_TOKEN = 16384
"""Characters of a token."""
MAX_MODULUS = 2048
"""Octets of an RSA modulus: 16384 bits."""

FAILED, UNREADABLE = -1, -2
HMAC = ("HS256", "HS384", "HS512")
RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512", "secp256k1": "ES256K"}


class Token(NamedTuple):
    """What a token says, whoever signed it."""

    text: str
    header: dict[str, Any]
    claims: dict[str, Any]

    def shown(self) -> str:
        """Its header and its claims as JSON, with a dot between."""
        return f"{_json(self.header)}.{_json(self.claims)}"


def _json(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a character
        return json.dumps(value, separators=(",", ":"), sort_keys=True)
    return text


def read(text: str) -> Token:
    """Take a token apart; ``ValueError`` if it is none."""
    if len(text) > MAX_TOKEN:
        raise ValueError("too long")
    parts = text.split(".")
    if len(parts) != 3:
        raise ValueError("a token has three parts")
    try:
        header, claims = (json.loads(_octets(part)) for part in parts[:2])
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise ValueError("no objects")
    return Token(text, header, claims)


def _octets(text: str) -> bytes:
    """What base64url without padding stands for; ``ValueError``."""
    if not text.isascii() or any(char in text for char in "+/=\r\n"):
        raise ValueError("no base64url")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def is_current(token: Token, now: float) -> bool:
    """Whether ``now`` is between ``nbf`` and ``exp``, as far as the token has them."""
    begins, ends = token.claims.get("nbf", now), token.claims.get("exp", now + 1)
    return all(isinstance(each, int | float) for each in (begins, ends)) and begins <= now < ends


def algorithms_of(key: str) -> tuple[Any, tuple[str, ...]]:
    """A key, and the algorithms that it may verify; ``ValueError`` if it looks like PEM and is none."""
    if "-----BEGIN " not in key:
        return key.encode("utf-8", "surrogateescape"), HMAC
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    public = public_key_of(key)
    if isinstance(public, rsa.RSAPublicKey):
        return public, RSA
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in CURVES:
        return public, (CURVES[public.curve.name],)
    if isinstance(public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return public, ("EdDSA",)
    raise ValueError("a key of a kind that no token is signed with")


def public_key_of(pem: str) -> Any:
    """The public key in PEM text: of a key, or of a certificate; ``ValueError``."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    octets = pem.strip().encode("utf-8", "surrogateescape")
    try:
        if b"-----BEGIN CERTIFICATE-----" in octets:
            return load_pem_x509_certificate(octets).public_key()
        return load_pem_public_key(octets)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None


def written(public: Any) -> str:
    """A public key in PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    octets: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return octets.decode("ascii")


def is_signed(token: Token, key: str) -> bool:
    """Whether ``token`` was signed with the secret ``key``, or with the other half of a public one."""
    import jwt

    try:
        found, algorithms = algorithms_of(key)
        if not found:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a short secret is the script's matter
            jwt.PyJWS().decode(token.text, found, algorithms=list(algorithms))
    except (jwt.PyJWTError, ValueError, TypeError):
        return False
    return True


class AuthJwt(Module):
    """Takes JSON Web Tokens as proof of who sends a request."""

    name = "auth_jwt"

    db_mode: int = param(0, "1: secrets come from a database; 0: from the script only")
    db_url: str = param("", "The database; db_default_url if empty")
    profiles_table: str = param("jwt_profiles", "The table of profiles", check=check_column)
    secrets_table: str = param("jwt_secrets", "The table of their secrets", check=check_column)
    tag_column: str = param("tag", "The name of a profile", check=check_column)
    username_column: str = param("sip_username", "Its user", check=check_column)
    secret_tag_column: str = param("corresponding_tag", "The profile that a secret belongs to", check=check_column)
    secret_column: str = param("secret", "The secret, or a public key in PEM", check=check_column)
    start_ts_column: str = param("start_ts", "Since when it counts, in seconds since 1970", check=check_column)
    end_ts_column: str = param("end_ts", "Until when it counts, in seconds since 1970", check=check_column)
    tag_claim: str = param("tag", "The claim that names the profile")
    load_credentials: str = param("", "Columns of the profile that go into AVPs: $avp(name)=column;column", check=parse_load)

    async def start(self) -> None:
        """See that the libraries are there, and open the database."""
        try:
            import cryptography  # noqa: F401
            import jwt  # noqa: F401
        except ImportError:
            raise ValueError("auth_jwt needs PyJWT and cryptography: pip install sipgw[jwt]") from None
        self._loaded = parse_load(self.load_credentials)
        self._tables: Tables | None = None
        if self.db_mode:
            self._tables = Tables(self, await self.server.databases.open(self.db_url), False)

    @function(REQUEST)
    async def jwt_db_authorize(self, run: Run, jwt_token: str, out_decoded_token: Writable, out_sip_username: Writable) -> int:
        """1 if a secret of the profile that the token names has signed it; -1 if none has, or the database cannot be asked.

        The variables receive what the token says and the user of the profile."""
        if self._tables is None:
            run.user.log_rarely("jwt", -1, "jwt_db_authorize: there is no database: set db_mode to 1")
            return FAILED
        try:
            token = read(jwt_token)
        except ValueError:
            return FAILED
        tag = token.claims.get(self.tag_claim)
        if not isinstance(tag, str) or not tag:
            return FAILED
        now = run.user.wall_clock()
        columns = [self.username_column, *(column for _, column in self._loaded)]
        secrets = [self.secret_column, self.start_ts_column, self.end_ts_column]
        try:
            profiles = await self._tables.select(self.profiles_table, VERSION, columns, {self.tag_column: tag}, 1)
            if not len(profiles):
                return FAILED
            keys = await self._tables.select(self.secrets_table, VERSION, secrets, {self.secret_tag_column: tag})
        except DatabaseError:
            return FAILED
        current = [str(secret) for secret, start, end in keys if secret and (start or 0) <= now < (end or 0)]
        if not is_current(token, now) or not any(is_signed(token, secret) for secret in current):
            return FAILED
        store(run, self._loaded, profiles[0][1:])
        out_decoded_token.set(run, token.shown())
        out_sip_username.set(run, profiles[0][0])
        return 1

    @function(REQUEST)
    def jwt_script_authorize(self, run: Run, jwt_token: str, key: str, out_decoded_token: Writable) -> int:
        """1 if the token was signed with ``key``, a secret or a public key in PEM; -1 if not; -2 if it is no token.

        The variable receives what it says, whoever has signed it, unless it is none."""
        try:
            token = read(jwt_token)
        except ValueError:
            return UNREADABLE
        out_decoded_token.set(run, token.shown())
        return 1 if is_current(token, run.user.wall_clock()) and is_signed(token, key) else FAILED

    @function(REQUEST)
    def extract_pub_key_from_cert(self, run: Run, certificate: str, out_public_key: Writable) -> bool:
        """Put the public key of a certificate in PEM into a variable, as PEM too."""
        try:
            if "-----BEGIN CERTIFICATE-----" not in certificate:
                raise ValueError("no certificate in PEM")
            out_public_key.set(run, written(public_key_of(certificate)))
        except ValueError as error:
            run.user.log_rarely("extract_pub_key", -1, f"extract_pub_key_from_cert: {error}")
            return False
        return True

    @function(REQUEST)
    def extract_pub_key_from_exp_mod(self, run: Run, e: str, n: str, out_public_key: Writable) -> bool:
        """Put the RSA key of an exponent and a modulus in base64url (RFC 7518 6.3.1) into a variable, as PEM."""
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

        try:
            exponent, modulus = _octets(e), _octets(n)
            if len(modulus) > MAX_MODULUS or len(exponent) > len(modulus):
                raise ValueError("no RSA key")
            numbers = RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big"))
            out_public_key.set(run, written(numbers.public_key()))
        except ValueError as error:
            run.user.log_rarely("extract_pub_key", -1, f"extract_pub_key_from_exp_mod: {error}")
            return False
        return True
