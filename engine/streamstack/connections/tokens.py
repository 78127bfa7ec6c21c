"""JSON Web Tokens, and password hashes."""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import orjson
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import Type
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import JWKRegistry, OctKey

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language.authentication import SECRET_ALGORITHMS, algorithms_of
from streamstack.language.values import to_json

#: Maximum length of a token in characters.
LONGEST: Final = 16 * 1024
#: Keys that are tried for a token without a key ID.
_MOST_TRIES: Final = 10
#: Maximum number of keys in a JWK Set, and length of a key ID.
_MOST_KEYS: Final = 200
_LONGEST_KID: Final = 512
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
#: Accepted values of `typ`: a token of another type serves another purpose (RFC 8725, section 3.11).
_TYPES: Final = frozenset({"jwt", "at+jwt"})
#: Public parameters of a JWK (RFC 7518, section 6; RFC 8037, section 2). All others are dropped.
_PARAMETERS: Final = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x")}
#: Two names of one algorithm (RFC 9864).
_EDWARDS: Final = frozenset({"EdDSA", "Ed25519"})
#: What joserfc and cryptography raise for malformed keys and headers.
_MALFORMED: Final = (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm)


class _Registry(jws.JWSRegistry):
    """Algorithms of one key, and the size limits of tokens."""

    max_header_length = LONGEST
    max_payload_length = LONGEST
    max_signature_length = LONGEST

    def __init__(self, algorithms: frozenset[str]) -> None:
        super().__init__(algorithms=algorithms, strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        # The inherited method warns about the name EdDSA, which identity providers still use.
        if self.allowed is None or name not in self.allowed:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


_registry_of: Final = lru_cache(maxsize=64)(_Registry)


@dataclass(frozen=True, slots=True)
class Key:
    """A key with its ID (`kid`) and the only algorithms it is used with."""

    algorithms: frozenset[str]
    material: Any = field(repr=False)
    kid: str | None = None

    def verify(self, signature: jws.CompactSignature) -> bool:
        """Return whether this key made a signature."""
        try:
            return jws.validate_compact(signature, self.material, registry=_registry_of(self.algorithms))
        except _MALFORMED:
            return False


def secret_key(secret: str, algorithms: Iterable[str]) -> Key:
    """Return a shared secret as a key, for HMAC only.

    Raises:
        RunError: ``template`` for a public key, which can't be a secret.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `validate` reports short secrets
            material = OctKey.import_key(secret.encode("utf-8", "surrogatepass"))
    except (JoseError, ValueError):
        raise RunError(
            "template", "`secret` is not a secret: a public key goes under `publicKey`", final=True
        ) from None
    return Key(frozenset(algorithms) & frozenset(SECRET_ALGORITHMS), material)


def public_key(pem: str, algorithms: Iterable[str] = ()) -> Key:
    """Return a public key in PEM, for those of the algorithms that fit it; without any, for all that fit.

    Raises:
        RunError: ``template`` for anything else.
    """
    try:
        fitting = algorithms_of(pem)
    except ValueError as error:
        raise RunError("template", f"`publicKey`: {error}", final=True) from None
    chosen = frozenset(algorithms) or frozenset(fitting)
    return Key(chosen & frozenset(fitting), _import_pem(pem, fitting))


def private_key(pem: str) -> tuple[Key, str]:
    """Return a private key in PEM without a passphrase, and the algorithm it usually signs with.

    Raises:
        RunError: ``template`` for anything else.
    """
    try:
        private = serialization.load_pem_private_key(pem.encode(), None)
        public = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        fitting = algorithms_of(public.decode())
    except (ValueError, TypeError, UnsupportedAlgorithm, AttributeError):
        raise RunError(
            "template",
            "a private key in PEM without a passphrase is needed: "
            "RSA of 2048 bits or more, P-256, P-384, P-521, Ed25519",
            final=True,
        ) from None
    return Key(frozenset(fitting), _import_pem(pem, fitting)), fitting[0]


def _import_pem(pem: str, fitting: tuple[str, ...]) -> Any:
    kind = {"RS": "RSA", "ES": "EC"}.get(fitting[0][:2], "OKP")
    return JWKRegistry.import_key(pem, kind)


def read_keys(data: bytes, algorithms: Iterable[str]) -> tuple[Key, ...]:
    """Return the keys of a JWK Set (RFC 7517) that can verify signatures with some algorithms.

    Other keys are skipped: secrets, encryption keys, weak ones.

    Raises:
        ValueError: for data that is not a JWK Set.
    """
    document = orjson.loads(data)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it has no list of `keys`")  # noqa: TRY004 - one error for every fault
    allowed = frozenset(algorithms)
    keys = (_read_key(each, allowed) for each in listed[:_MOST_KEYS])
    return tuple(key for key in keys if key is not None)


def _read_key(jwk: Any, allowed: frozenset[str]) -> Key | None:
    if not isinstance(jwk, Mapping):
        return None
    kind, use, operations = jwk.get("kty"), jwk.get("use", "sig"), jwk.get("key_ops", ["verify"])
    parameters = _PARAMETERS.get(kind) if isinstance(kind, str) else None
    kid = jwk.get("kid")
    if (
        parameters is None
        or use != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
        or not (kid is None or (isinstance(kid, str) and len(kid) <= _LONGEST_KID))
    ):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # weak keys are refused below
            material = JWKRegistry.import_key({name: jwk[name] for name in parameters})
        fitting = algorithms_of(material.as_pem().decode())  # type: ignore[union-attr]  # no secret
    except _MALFORMED:
        return None
    chosen = allowed.intersection(fitting)
    if "alg" in jwk:
        algorithm = jwk["alg"]
        named = {algorithm} if isinstance(algorithm, str) else set()
        chosen &= _EDWARDS if named & _EDWARDS else named
    return Key(chosen, material, kid) if chosen else None


# ------------------------------------------------------------------------------ verifying


@dataclass(frozen=True, slots=True)
class Rules:
    """What the claims of a token must fulfil; ``clock_skew`` is in seconds."""

    issuers: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    clock_skew: float = 30.0
    lasting: bool = False  # a token without `exp` is accepted


@dataclass(frozen=True, slots=True)
class Token:
    """A parsed token that has not been verified yet."""

    algorithm: str
    kid: str | None
    signature: jws.CompactSignature


_PARSING: Final = _Registry(frozenset())


def unauthorized(reason: str) -> RunError:
    """Return the error of an invalid token. The reason repeats nothing of the token."""
    return RunError("unauthorized", reason)


def parse_token(text: str) -> Token:
    """Parse a token without verifying it.

    Raises:
        RunError: ``unauthorized`` for a malformed token, or one of another type.
    """
    if len(text) > LONGEST:
        raise unauthorized(f"the token has more than {LONGEST} characters")
    if _COMPACT.fullmatch(text) is None:
        raise unauthorized("this is not a signed token: it has three parts, in base64url, with dots between")
    try:
        signature = jws.extract_compact(text.encode(), registry=_PARSING)
    except (*_MALFORMED, RecursionError):
        raise unauthorized("the token can't be read") from None
    header: Any = signature.protected
    if not isinstance(header, dict):
        raise unauthorized("the token can't be read")
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
        raise unauthorized("the token can't be read")
    if "crit" in header:
        raise unauthorized("the token asks for an extension that is not known here (`crit`)")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise unauthorized("the token is made for another purpose (`typ`)")
    if str(header.get("cty", "")).lower().endswith("jwt"):
        raise unauthorized("the token holds another token")
    return Token(algorithm, kid, signature)


def find_keys(token: Token, keys: Iterable[Key]) -> list[Key]:
    """Return the keys that may have signed a token: those with its key ID, else those without any."""
    fitting = [key for key in keys if token.algorithm in key.algorithms]
    if token.kid is None:
        return fitting[:_MOST_TRIES]
    named = [key for key in fitting if key.kid == token.kid]
    return (named or [key for key in fitting if key.kid is None])[:_MOST_TRIES]


def verify(token: Token, keys: Iterable[Key], rules: Rules, now: float | None = None) -> dict[str, Any]:
    """Return the claims of a token that one of the keys has signed and that is valid now.

    Args:
        now: Seconds since 1970; None is the present.

    Raises:
        RunError: ``unauthorized``.
    """
    if not any(key.verify(token.signature) for key in keys):
        raise unauthorized("the token's signature is not valid")
    try:
        claims = orjson.loads(token.signature.payload)
    except ValueError:
        claims = None
    if not isinstance(claims, dict):
        raise unauthorized("the token holds no claims")
    _check_times(claims, rules, clock.time() if now is None else now)
    _check_names(claims, rules)
    claims["scopes"] = scopes_of(claims)
    return claims


def _check_times(claims: Mapping[str, Any], rules: Rules, now: float) -> None:
    expires, begins, issued = (_time_of(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None and not rules.lasting:
        raise unauthorized("the token does not say when it expires (`exp`)")
    if expires is not None and now >= expires + rules.clock_skew:
        raise unauthorized("the token has expired")
    if any(time is not None and time - rules.clock_skew > now for time in (begins, issued)):
        raise unauthorized("the token is not valid yet")


def _time_of(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise unauthorized(f"the token's `{name}` is not a number of seconds")
    return float(value)


def _check_names(claims: Mapping[str, Any], rules: Rules) -> None:
    if "sub" in claims and not isinstance(claims["sub"], str):
        raise unauthorized("the token's `sub` is not a text")
    issuer = claims.get("iss")
    if rules.issuers and not (isinstance(issuer, str) and issuer in rules.issuers):
        raise unauthorized("the token comes from another issuer")
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(each, str) for each in named) and "aud" in claims:
        raise unauthorized("the token's `aud` is not a text, nor a list of texts")
    if rules.audiences and not any(each in rules.audiences for each in named):
        raise unauthorized("the token is meant for another audience")
    if not rules.audiences and "aud" in claims:
        # RFC 7519, section 4.1.3: a recipient that is not in the audience must reject the token.
        raise unauthorized("the token is meant for an audience, and the settings name none (`audience`)")


def scopes_of(claims: Mapping[str, Any]) -> list[str]:
    """Return the scopes in claims: `scope` (RFC 8693), `scopes` or `scp`, a text with spaces or a list."""
    scopes: dict[str, None] = {}
    for name in ("scope", "scopes", "scp"):
        value = claims.get(name)
        listed = value.split(" ") if isinstance(value, str) else value
        for scope in listed if isinstance(listed, list) else ():
            if isinstance(scope, str) and scope:
                scopes[scope] = None
    return list(scopes)


def sign(claims: Mapping[str, Any], key: Key, algorithm: str) -> str:
    """Return a token with these claims. Registered times among them are seconds since 1970."""
    header = {"alg": algorithm, "typ": "JWT"}
    return jws.serialize_compact(header, to_json(claims), key.material, registry=_registry_of(frozenset({algorithm})))


#: Cost of a hash (OWASP's Password Storage Cheat Sheet): 19 MB and two passes, 20 to 40 ms.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
#: Maximum cost of a hash from elsewhere: KiB, passes and lanes.
_MOST_MEMORY: Final = 262_144
_MOST_PASSES: Final = 16
_MOST_LANES: Final = 99
#: Hashes that are computed at once: each takes a core and its memory.
_AT_ONCE: Final = 2
#: Maximum length of a password in bytes.
_LONGEST: Final = 4096
#: A hash that no password has: verified for unknown accounts, so that it takes the same time.
_DUMMY_HASH: Final = "$argon2id$v=19$m=19456,t=2,p=1$c3RyZWFtc3RhY2stbm9uZQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


class Passwords:
    """Hashes and verifies passwords, a few at a time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="passwords")

    async def aclose(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Return the hash of a password in the PHC string format, with its salt and cost.

        Raises:
            RunError: ``invalid-input`` for a password that is too long.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, _HASHER.hash, _encode(password))

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Return whether a password has a hash; None is the hash of no password.

        Raises:
            RunError: ``invalid-input`` for a password that is too long, ``template`` for any other text.
        """
        if hashed is not None:
            _check_cost(hashed)
        return await asyncio.get_running_loop().run_in_executor(self._threads, _verify, _encode(password), hashed)


def _encode(password: str) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    if len(data) > _LONGEST:
        raise RunError("invalid-input", f"the password has more than {_LONGEST} bytes")
    return data


def _no_hash() -> RunError:
    return RunError("template", "`hash` is not what `password.hash` gives: $argon2id$...", final=True)


def _check_cost(hashed: str) -> None:
    try:
        cost = extract_parameters(hashed)
    except (InvalidHashError, ValueError):
        raise _no_hash() from None
    if (
        cost.type is not Type.ID
        or cost.memory_cost > _MOST_MEMORY
        or cost.time_cost > _MOST_PASSES
        or cost.parallelism > _MOST_LANES
    ):
        raise _no_hash()


def _verify(password: bytes, hashed: str | None) -> bool:
    try:
        _HASHER.verify(hashed or _DUMMY_HASH, password)
    except VerifyMismatchError:
        return False
    except (VerificationError, InvalidHashError):
        raise _no_hash() from None
    return hashed is not None
