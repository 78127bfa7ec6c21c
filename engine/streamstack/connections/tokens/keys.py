"""Keys that tokens are checked and signed with. A key knows its algorithms, so that none can be used for another's."""

from __future__ import annotations

import warnings
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry
from joserfc.jws import JWSRegistry

from streamstack.errors import RunError
from streamstack.language.authentication import LEAST_RSA, SECRET_ALGORITHMS, algorithms_of

#: Keys that one set may hold, and characters that the name of one may have.
_MOST_KEYS: Final = 200
_LONGEST_NAME: Final = 512
#: The parts of public keys (RFC 7518, section 6; RFC 8037, section 2): nothing else of a JWK is taken.
_PARTS: Final = {
    "RSA": ("kty", "n", "e"),
    "EC": ("kty", "crv", "x", "y"),
    "OKP": ("kty", "crv", "x"),
}
_OF_CURVES: Final = {
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA", "Ed25519"),
}
_OF_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


@dataclass(frozen=True, slots=True)
class Key:
    """A key, its name (`kid`), and the only algorithms it is used with."""

    algorithms: frozenset[str]
    material: Any = field(repr=False)
    name: str | None = None

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Tell whether a signature is that of this key; ``algorithm`` is one of its own."""
        try:
            good: bool = model_of(algorithm).verify(signed, signature, self.material)
        except (JoseError, ValueError):
            return False
        return good

    def sign(self, algorithm: str, content: bytes) -> bytes:
        """Return the signature of some content."""
        signature: bytes = model_of(algorithm).sign(content, self.material)
        return signature


def model_of(algorithm: str) -> Any:
    """Return what signs and checks. The registry's own look-up warns of EdDSA's name, which all servers use."""
    return JWSRegistry.algorithms[algorithm]


def secret_key(secret: str, algorithms: Iterable[str]) -> Key:
    """Return the key that a secret is: for HMAC alone, whatever is asked for.

    Raises RunError ``template`` for a public key, which anybody may have.
    """
    data = urlsafe_b64encode(secret.encode("utf-8", "surrogatepass")).rstrip(b"=").decode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is short was a finding
            material = JWKRegistry.import_key({"kty": "oct", "k": data})
    except (JoseError, ValueError):
        raise RunError(
            "template", "`secret` is no secret: a public key goes under `publicKey`", final=True
        ) from None
    return Key(frozenset(algorithms) & frozenset(SECRET_ALGORITHMS), material)


def public_key(pem: str, algorithms: Iterable[str] = ()) -> Key:
    """Return a public key in PEM, for those of the algorithms that fit it; all that do, where none is named.

    Raises RunError ``template`` for what is no such key.
    """
    try:
        fitting = algorithms_of(pem)
    except ValueError as error:
        raise RunError("template", f"`publicKey`: {error}", final=True) from None
    chosen = frozenset(algorithms)
    return Key(
        frozenset(fitting) & chosen if chosen else frozenset(fitting), _import_pem(pem, fitting)
    )


def private_key(pem: str) -> tuple[Key, str]:
    """Return a private key in PEM without a passphrase, and the algorithm it usually signs with.

    Raises RunError ``template`` for what is no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  (seldom needed)
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

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
    """Return the keys of a JWK Set (RFC 7517) that signatures may be checked with.

    What is no such key is passed over: secrets, keys for encryption, weak ones. Raises ValueError for what is no set.
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
    parts = _PARTS.get(kind) if isinstance(kind, str) else None
    if (
        parts is None
        or use != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
    ):
        return None
    curve = jwk.get("crv")
    if kind == "RSA":
        fitting: Iterable[str] = _OF_RSA
    else:
        fitting = _OF_CURVES.get(curve, ()) if isinstance(curve, str) else ()
    chosen = allowed.intersection(fitting)
    if "alg" in jwk:
        chosen &= _same(jwk["alg"])
    name = jwk.get("kid")
    if not chosen or not (name is None or (isinstance(name, str) and len(name) <= _LONGEST_NAME)):
        return None
    try:
        if kind == "RSA" and _bits(jwk["n"]) < LEAST_RSA:
            return None
        material = JWKRegistry.import_key({part: jwk[part] for part in parts})
    except (JoseError, KeyError, TypeError, ValueError):
        return None
    return Key(chosen, material, name)


def _bits(modulus: str) -> int:
    data = urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4))
    return int.from_bytes(data).bit_length()


def _same(algorithm: Any) -> frozenset[str]:
    """Return the names of an algorithm: EdDSA with Ed25519 has two (RFC 9864)."""
    edwards = frozenset({"EdDSA", "Ed25519"})
    if not isinstance(algorithm, str):
        return frozenset()
    return edwards if algorithm in edwards else frozenset({algorithm})
