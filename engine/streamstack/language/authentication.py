"""The section `authentication` of streamstack.yaml: named methods that authenticate clients.

cryptography is imported only when a key is read: most projects have none, and `validate` should start fast.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from collections.abc import Mapping as Entries
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from streamstack.errors import Mark
from streamstack.language.kinds import Kind
from streamstack.language.names import DEFINITION, did_you_mean
from streamstack.language.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.values import MISSING
from streamstack.spec import (
    Constant,
    Custom,
    Field,
    Group,
    ListOf,
    Named,
    SettingsReader,
    Tagged,
    fields_of,
    is_null,
    is_written,
    setting,
)

#: How a key stands in the file: not itself, but its hash.
HASH: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")
#: One scope (RFC 6749, section 3.3).
SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
#: Seconds that clocks may be apart by rule, and at most.
CLOCK_SKEW: Final = 30.0
_MOST_SKEW: Final = 600.0
_API_KEY_HEADER: Final = "X-API-Key"
#: Characters of an API key, at least.
_LEAST_KEY: Final = 20
#: Bits of an RSA key, at least (NIST SP 800-131A; RFC 7518, section 3.3).
LEAST_RSA: Final = 2048

#: Algorithms by what they need (RFC 7518, RFC 8037, RFC 9864). `none` is not among them, and never will be.
SECRET_ALGORITHMS: Final = ("HS256", "HS384", "HS512")
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_EDWARDS: Final = ("EdDSA", "Ed25519")
PUBLIC_ALGORITHMS: Final = (*_RSA, "ES256", "ES384", "ES512", *_EDWARDS)

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DEFAULT: Final = re.compile(r"default\(\s*(?:\"[^\"]|'[^'])")
_LOCAL: Final = re.compile(r"localhost|127(?:\.[0-9]+){3}|::1")


@dataclass(frozen=True, slots=True)
class CredentialPlace:
    """Where a client sends its credentials: `where` is header, cookie, query or subprotocol.

    A page of a browser can't set headers of a WebSocket, but offer subprotocols: this name, and the token behind it.
    """

    where: str
    name: str

    @property
    def can_be(self) -> bool:
        """Whether a request can have such a name there."""
        if self.where == "query":
            return self.name.isprintable()
        return _TOKEN.fullmatch(self.name) is not None


#: Where tokens are sent by rule (RFC 6750, section 2.1).
BEARER: Final = CredentialPlace("header", "Authorization")


# ------------------------------------------------------------------------------------------ tokens


def algorithms_of(pem: str) -> tuple[str, ...]:
    """Return the algorithms that a public key in PEM fits, the usual one first.

    Raises ValueError with what to write instead. The message holds nothing of the key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  (see above)
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    if "PRIVATE KEY-----" in pem:
        raise ValueError("this is a private key: write the public key")
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("this is not a public key in PEM format: PEM begins with -----BEGIN PUBLIC KEY-----") from None
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < LEAST_RSA:
            raise ValueError(f"an RSA key of {key.key_size} bits is too weak: it has at least {LEAST_RSA}")
        return _RSA
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PublicKey):
        return _EDWARDS
    raise ValueError(
        "tokens have no algorithm for such a key: it is one of RSA, of P-256, P-384 or P-521, or of Ed25519"
    )


def _text(value: Any) -> str:
    """Return a text that may be empty. Raises ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError("must be a text")  # noqa: TRY004 - one error for every value
    return value


def _public_key(reader: SettingsReader, node: Node, name: str) -> Any:
    text = reader.constant(Constant(), node, name)
    if text is MISSING:
        return MISSING
    if text.startswith("-----BEGIN"):
        return text.replace("\\n", "\n")  # as environment variables hold lines
    try:
        file = reader.folder / Path(text).expanduser()
        if not file.is_file():  # a pipe or a device would be read for ever
            raise ValueError
        return file.read_bytes().decode("ascii")
    except (OSError, RuntimeError, ValueError):  # no file, no such home, no name of a file
        # What a variable holds is not shown: it may be something else, and secret.
        bound = isinstance(node, Scalar) and "<<" in node.text
        shown = "that the variable names" if bound else f"`{text}`, looked for from {reader.folder}"
        reader.refuse(
            node.mark, f"`{name}`: no PEM key in the file {shown}; PEM begins with -----BEGIN PUBLIC KEY-----"
        )
        return MISSING


def _jwks_url(reader: SettingsReader, node: Node, name: str) -> Any:
    text = reader.constant(Constant(), node, name)
    if text is MISSING:
        return MISSING
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        known = False
    if not known:
        reader.refuse(node.mark, f"`{name}`: write it like https://login.example.org/jwks.json")
        return MISSING
    if parts.scheme == "http" and not _LOCAL.fullmatch(parts.hostname or ""):
        message = (
            f"`{name}`: keys that are fetched without TLS can be replaced in transit, and then anyone can sign tokens"
        )
        reader.refuse(node.mark, message, "write https://", "weak-authentication")
    return text


def _places(reader: SettingsReader, node: Node, name: str) -> tuple[CredentialPlace, ...]:
    places = []
    for item in node.items if isinstance(node, Sequence) else (node,):
        place = CredentialPlace("", "")
        if isinstance(item, Scalar) and item.value == "header":
            place = BEARER
        elif isinstance(item, Mapping) and len(item.items) == 1:
            key, value = item.items[0]
            named = value.value if isinstance(value, Scalar) else None
            place = CredentialPlace(key.text, "" if named is None else str(named))
        if place.where in ("header", "cookie", "query", "subprotocol") and place.name and place.can_be:
            places.append(place)
            continue
        message = f"`{name}`: tokens can't be read from here"
        hint = "write header, {header: X-Token}, {cookie: token}, {query: token} or {subprotocol: bearer}"
        reader.refuse(item.mark, message, hint)
    return tuple(places)


_PLACE: Final = {"type": ["string", "object"], "additionalProperties": {"type": "string"}}


@dataclass(frozen=True, slots=True)
class Jwt:
    """Signed tokens. ``clock_skew`` is in seconds.

    One of ``secret``, ``public_key`` (PEM) and ``jwks_url`` says what signatures are checked with; none of them, where
    the environment lacks it: then no token is valid. ``own``: the secret is one that the project makes and keeps.
    """

    name: str
    algorithms: tuple[str, ...] = setting(
        ListOf(Constant(choices=(*SECRET_ALGORITHMS, *PUBLIC_ALGORITHMS), parse=_text), alone=True),
        "Accepted signature algorithms. Default: those that fit the key.",
        (),
    )
    secret: str | None = setting(
        Constant(parse=_text),
        "Shared secret of HMAC signatures. If it is empty, one is generated and stored in .streamstack/.",
        None,
        secret=True,
    )
    own: bool = False
    public_key: str | None = setting(
        Custom({"type": ["string", "null"]}, "text", _public_key),
        "Public key that verifies signatures: PEM, or the name of a PEM file.",
        None,
    )
    jwks_url: str | None = setting(
        Custom({"type": ["string", "null"]}, "text", _jwks_url),
        "URL of the JWK Set with the keys that verify signatures.",
        None,
    )
    issuers: tuple[str, ...] = setting(
        ListOf(Constant(), alone=True), "Accepted issuers (`iss`): one, or a list.", (), key="issuer"
    )
    audiences: tuple[str, ...] = setting(
        ListOf(Constant(), alone=True), "Accepted audiences (`aud`): one, or a list.", (), key="audience"
    )
    places: tuple[CredentialPlace, ...] = setting(
        Custom({**_PLACE, "type": ["array", "string", "object", "null"], "items": _PLACE}, "places", _places),
        "Where tokens are read from: header, {header: name}, {cookie: name}, {query: name}, or {subprotocol: name} "
        "of a WebSocket, whose next subprotocol is the token. The first match is used.",
        (BEARER,),
        key="from",
        shown="header",
    )
    clock_skew: float = setting(
        Constant(Kind.DURATION, maximum=_MOST_SKEW), "Allowed clock difference between issuer and server.", CLOCK_SKEW
    )
    expiry: str = setting(
        Constant(choices=("required", "optional")),
        "`required` rejects tokens without `exp`; `optional` accepts them without expiry.",
        "required",
    )
    mark: Mark | None = None

    type = "jwt"

    @property
    def lasting(self) -> bool:
        """Whether tokens without `exp` are taken."""
        return self.expiry == "optional"

    @property
    def own_claims(self) -> dict[str, str]:
        """The claims that a token of ours has for that alone."""
        named = (("iss", self.issuers), ("aud", self.audiences))
        return {claim: names[0] for claim, names in named if names}


def _check_jwt(reader: SettingsReader, node: Mapping, values: dict[str, Any], name: str) -> bool:
    """Check what of a JWT authentication goes together; put in the algorithms that fit."""
    sources = [key for key in ("secret", "publicKey", "jwksUrl") if is_written(node.get(key))]
    if len(sources) != 1:
        reader.refuse(
            node.mark,
            f"`{name}` takes one of `secret`, `publicKey` and `jwksUrl`",
            "write `secret: << env.JWT_SECRET >>`",
            "conflicting-parameters" if sources else "missing-parameter",
        )
    values["algorithms"] = _algorithms(reader, node, values, name, sources[:1] == ["secret"])
    written, secret = node.get("secret"), values.get("secret")
    if written is not None and secret:
        _weigh_secret(reader, written.mark, secret, values["algorithms"], f"{name}.secret")
    _report_plain(reader, written, f"{name}.secret")
    for key in ("issuer", "audience"):
        listed = node.get(key)
        if isinstance(listed, Sequence) and not all(is_written(item) for item in listed.items or (None,)):
            message = f"`{name}.{key}`: an empty list would accept every token: write the names, or remove it"
            reader.refuse(listed.mark, message)
    if "jwks_url" in values and not is_written(node.get("audience")):
        message = (
            f"`{name}` accepts tokens that were issued for other applications: "
            "an issuer signs for all its customers with the same keys"
        )
        reader.refuse(node.mark, message, "add `audience: ...`", "weak-authentication")
    return True


def _algorithms(
    reader: SettingsReader,
    node: Mapping,
    values: dict[str, Any],
    name: str,
    secret: bool,  # noqa: FBT001
) -> tuple[str, ...]:
    fitting: tuple[str, ...] = SECRET_ALGORITHMS if secret else PUBLIC_ALGORITHMS
    if "public_key" in values:
        try:
            fitting = algorithms_of(values["public_key"])
        except ValueError as error:
            reader.refuse((node.get("publicKey") or node).mark, f"`{name}.publicKey`: {error}")
    listed = node.get("algorithms")
    if listed is None or not is_written(listed):
        return ("HS256",) if secret else fitting
    chosen: tuple[str, ...] = values.get("algorithms", ())
    if isinstance(listed, Sequence) and not listed.items:
        message = f"`{name}.algorithms`: without any, no token could be valid"
        reader.refuse(listed.mark, message)
    for each in chosen:
        if each in fitting:
            continue
        if each.lower() == "none":
            fault = "`none` is not a signature algorithm: anyone could forge such a token"
        elif each in (*SECRET_ALGORITHMS, *PUBLIC_ALGORITHMS):
            of = "a secret" if secret else "a public key"
            fault = f"`{each}` does not go with {of} of this kind, which takes {', '.join(fitting)}"
        else:
            fault = f"unknown algorithm `{each}`{did_you_mean(each, fitting)}"
        reader.refuse(listed.mark, f"`{name}.algorithms`: {fault}")
    return chosen


def _weigh_secret(reader: SettingsReader, mark: Mark, secret: str, algorithms: tuple[str, ...], name: str) -> None:
    if secret.startswith("-----BEGIN"):
        message = f"`{name}`: a PEM key is not a secret: a public key goes under `publicKey`"
        reader.refuse(mark, message)
        return
    needed = max((int(each[2:]) // 8 for each in algorithms if each[:2] == "HS"), default=0)
    if len(secret.encode()) < needed:
        message = f"`{name}` is shorter than {needed} bytes: anyone who has a token can find it by brute force"
        hint = "make one with `openssl rand -base64 48`"
        reader.refuse(mark, message, hint, "weak-authentication")


def _report_plain(reader: SettingsReader, node: Node | None, name: str) -> None:
    """Report a secret that stands in the file, be it as the default of a variable."""
    if not isinstance(node, Scalar) or (node.source is not None and not isinstance(node.value, str)):
        return
    text = node.text.strip()  # as it is written, with its bindings
    if not text or HASH.fullmatch(text) or ("<<" in text and not _DEFAULT.search(text)):
        return
    message = f"the value of `{name}` is in the file in plain text"
    reader.refuse(node.mark, message, code="secret-in-definition")


def _make_jwt(secret: str | None = None, **values: Any) -> Jwt:
    return Jwt(secret=secret or None, own=secret == "", **values)


# ---------------------------------------------------------------------------------------- API keys


@dataclass(frozen=True, slots=True)
class Key:
    """One API key: who has it, its SHA-256 (the key itself is kept nowhere), and what it may."""

    name: str
    digest: bytes = field(repr=False)
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Keys that were handed out."""

    name: str
    keys: tuple[Key, ...]
    place: CredentialPlace = CredentialPlace("header", _API_KEY_HEADER)
    mark: Mark | None = None

    type = "apiKey"


Method = Jwt | ApiKey
Methods = Entries[str, Method]


def digest_of(key: str) -> bytes:
    """Return the hash that stands for an API key.

    A plain hash is enough: keys are random and long, unlike passwords, so that none can be found by trying.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _keys(reader: SettingsReader, node: Node, name: str) -> tuple[Key, ...]:
    found: list[Key] = []
    if isinstance(node, Scalar):
        # One variable can hold several, with commas between: keys never have one inside.
        _report_plain(reader, node, name)
        for text in str(node.value).split(","):
            if text.strip():
                found += _read_key(reader, node, name, text.strip())
        return tuple(found)
    if not node.items:
        hint = "`streamstack token --new NAME` creates a key and prints its hash"
        reader.refuse(node.mark, f"`{name}`: without keys, no client could authenticate", hint)
    for item in node.items:
        if isinstance(item, tuple):
            found += _named_key(reader, item[0].text, item[1], name, node.mark)
        else:
            _report_plain(reader, item, name)
            found += _read_key(reader, item, name)
    return tuple(found)


def _named_key(reader: SettingsReader, called: str, item: Node, name: str, mark: Mark) -> Iterator[Key]:
    """Read a key that has a name: it alone, or with its scopes."""
    scopes: tuple[str, ...] = ()
    if isinstance(item, Mapping):
        for key, _ in item.items:
            if key.text not in ("key", "scopes"):
                message = f"an API key has no `{key.text}`: it has `key` and `scopes`"
                reader.refuse(key.mark, message, code="unknown-setting")
        listed = item.get("scopes")
        if listed is not None and not is_null(listed):
            scopes = reader.read(ListOf(Constant(), alone=True), listed, f"{name}.{called}.scopes")
        for scope in scopes:
            if SCOPE.fullmatch(scope) is None:
                message = f"`{name}`: the scope `{scope}` holds a space, a quote or a backslash"
                reader.refuse(mark, message)
        inner = item.get("key")
        if inner is None:
            message = f"the API key `{called}` requires `key`"
            reader.refuse(item.mark, message, code="missing-parameter")
            return
        item = inner
    _report_plain(reader, item, name)
    yield from _read_key(reader, item, name, called=called, scopes=scopes)


def _read_key(
    reader: SettingsReader,
    node: Node,
    name: str,
    text: str | None = None,
    called: str = "",
    scopes: tuple[str, ...] = (),
) -> Iterator[Key]:
    owner = name.rpartition(".")[0]
    if text is None:
        if isinstance(node, Scalar) and node.value in (None, ""):
            return  # its variable is missing: no request passes
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            message = f"`{name}`: a key is a text: << env.API_KEY >>, or sha256:... of the key"
            reader.refuse(node.mark, message)
            return
        text = node.value.strip()
    hashed = HASH.fullmatch(text)
    if hashed is None and text.lower().startswith("sha256:"):
        message = f"`{name}`: after sha256: come the 64 hexadecimal digits of the hash"
        reader.refuse(node.mark, message)
        return
    if hashed is None and len(text) < _LEAST_KEY:
        message = f"a key of `{owner}` is shorter than {_LEAST_KEY} characters: it can be found by brute force"
        hint = f"make one with `streamstack token --auth {owner.rpartition('.')[2]}`"
        reader.refuse(node.mark, message, hint, "weak-authentication")
    digest = digest_of(text) if hashed is None else bytes.fromhex(hashed[1])
    yield Key(called or f"key-{digest.hex()[:8]}", digest, scopes)


def _check_api_key(reader: SettingsReader, node: Mapping, values: dict[str, Any], name: str) -> bool:
    if "header" in values and "query" in values:
        message = f"`{name}` has `header` and `query`: keys are sent in one of them"
        mark = (node.get("query") or node).mark
        reader.refuse(mark, message, code="conflicting-parameters")
    place = (
        CredentialPlace("query", values["query"])
        if "query" in values
        else CredentialPlace("header", values.get("header", _API_KEY_HEADER))
    )
    if not place.can_be:
        mark = (node.get(place.where) or node).mark
        reader.refuse(mark, f"`{name}.{place.where}`: this is not a valid name of a header, cookie or query parameter")
    values["place"] = place
    return True


def _make_api_key(name: str, place: CredentialPlace, mark: Mark, keys: tuple[Key, ...] = (), **_: str) -> ApiKey:
    return ApiKey(name, keys, place, mark)


_KEYS_SCHEMA: Final = {
    "type": ["array", "object", "string", "null"],
    "items": {"type": ["string", "null"]},
    "additionalProperties": {
        "type": ["string", "object", "null"],
        "properties": {
            "key": {"description": "API key: << env.NAME >>, or `sha256:` and its hash.", "type": ["string", "null"]},
            "scopes": {
                "description": "Scopes of the key.",
                "type": ["array", "string", "null"],
                "items": {"type": "string"},
            },
        },
        "additionalProperties": False,
    },
}
_API_KEY: Final = (
    Field("header", Constant(), "Request header that contains the key. Default: `X-API-Key`."),
    Field("query", Constant(), "Query parameter that contains the key, instead of a header."),
    Field(
        "keys",
        Custom(_KEYS_SCHEMA, "keys", _keys),
        "Keys by name, or a list: << env.NAME >>, or `sha256:` and the hash of a key.",
        required=True,
        example="[<< env.API_KEY >>]",
    ),
)


# --------------------------------------------------------------------------------------- the section


def refuse_name(name: str) -> tuple[str, str] | None:
    """Return what is wrong with the name of an authentication, and what to write; None where it is valid."""
    if DEFINITION.fullmatch(name) is not None and name != "none":
        return None
    return (
        f"`{name}` is not a valid name for an authentication",
        "begin with a letter, then letters, digits, `_` or `-`; `none` means no authentication",
    )


#: The section; one that is wrong is left out: its finding keeps the project from being served.
AUTHENTICATION: Final = Named(
    Tagged(
        "type",
        {
            "jwt": Group(fields_of(Jwt), make=_make_jwt, check=_check_jwt, named=True, whole=True),
            "apiKey": Group(_API_KEY, make=_make_api_key, check=_check_api_key, named=True, whole=True),
        },
        "`jwt`: JSON Web Tokens. `apiKey`: API keys.",
        "{type: jwt, secret: << env.JWT_SECRET >>}",
    ),
    refuses=refuse_name,
)
