"""Public keys as text: whether they are such keys, and which algorithms of tokens they fit.

cryptography is imported where a key is read: most projects have none, and `validate` is to be quick.
"""

from __future__ import annotations

from typing import Final

#: Bits of an RSA key, at least (NIST SP 800-131A; RFC 7518, section 3.3).
LEAST_RSA: Final = 2048

#: Algorithms by what they need (RFC 7518, RFC 8037, RFC 9864). `none` is not among them, and never will be.
SECRET_ALGORITHMS: Final = ("HS256", "HS384", "HS512")
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_EDWARDS: Final = ("EdDSA", "Ed25519")
PUBLIC_ALGORITHMS: Final = (*_RSA, "ES256", "ES384", "ES512", *_EDWARDS)


def algorithms_of(pem: str) -> tuple[str, ...]:
    """Return the algorithms that a public key in PEM fits, the usual one first.

    Raises ValueError with what to write instead. The message holds nothing of the key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  (see above)
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    if "PRIVATE KEY-----" in pem:
        raise ValueError("this is a private key, and only the public one is needed here")
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "this is no public key in PEM: it begins with -----BEGIN PUBLIC KEY-----"
        ) from None
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < LEAST_RSA:
            raise ValueError(
                f"an RSA key of {key.key_size} bits is too weak: it has at least {LEAST_RSA}"
            )
        return _RSA
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PublicKey):
        return _EDWARDS
    raise ValueError(
        "tokens have no algorithm for such a key: it is one of RSA, of P-256, P-384 or P-521, or of Ed25519"
    )
