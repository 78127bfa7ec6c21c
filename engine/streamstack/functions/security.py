"""Functions of tokens, passwords and signatures."""

from __future__ import annotations

import hmac as signing
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from time import time
from typing import TYPE_CHECKING, Any, Final

from streamstack.errors import RunError
from streamstack.functions.http_upstream import open_http
from streamstack.language.authentication import CLOCK_SKEW, PUBLIC_ALGORITHMS, SECRET_ALGORITHMS
from streamstack.language.definition import (
    Choice,
    Configured,
    Effects,
    Example,
    Parameter,
    function,
)
from streamstack.language.values import kind
from streamstack.runtime.run import Context, Run
from streamstack.spec import Bound, Constant, Kind, ListOf, OneOf

if TYPE_CHECKING:
    from streamstack.connections.authentication import Authenticators
    from streamstack.connections.tokens import Key, Passwords


def open_callers(context: Context) -> Authenticators:
    """Make the authentications of the settings; `run.context.resource(open_callers)` returns it."""
    # Its libraries are loaded where a project has authentications, which most have not.
    from streamstack.connections.authentication import Authenticators  # noqa: PLC0415

    return Authenticators(
        context.authentication, lambda: context.resource(open_http), context.folder
    )


def open_passwords(context: Context) -> Passwords:
    """Make what hashes passwords."""
    from streamstack.connections.tokens import Passwords  # noqa: PLC0415  (likewise)

    return Passwords()


_ALGORITHMS: Final = (*SECRET_ALGORITHMS, *PUBLIC_ALGORITHMS)
_CONFIGURED: Final = (Configured("authentication", "authentication"),)
_AUTHENTICATION: Final = Parameter(
    "authentication",
    Constant(),
    "One of type jwt under `authentication` of the settings, by its name: its key, its issuer, its audience.",
)
_SECRET: Final = Parameter("secret", Bound(Kind.TEXT), "A secret, instead of a name.")
_NAMES: Final = OneOf((Bound(Kind.TEXT), ListOf(Bound(Kind.TEXT)), Bound(Kind.LIST)))
#: Signatures of webhooks: SHA-1 is what some of them still have, and is sound in an HMAC.
_HASHES: Final = ("sha256", "sha512", "sha384", "sha1")


@function(
    "jwt.verify",
    Parameter("token", Bound(Kind.TEXT), "The token.", required=True, main=True),
    _AUTHENTICATION,
    _SECRET,
    Parameter("publicKey", Bound(Kind.TEXT), "A public key in PEM, instead of a name."),
    Parameter(
        "algorithms",
        ListOf(Constant(choices=_ALGORITHMS)),
        "Which signatures are taken. With a secret HS256, with a public key what fits it.",
    ),
    Parameter(
        "issuer", _NAMES, "Who must have issued it (`iss`): one, or a list of which any will do."
    ),
    Parameter("audience", _NAMES, "Whom it must be meant for (`aud`): likewise."),
    Parameter(
        "clockSkew", Bound(Kind.DURATION), "How far clocks may be apart.", default=CLOCK_SKEW
    ),
    choices=[Choice(("authentication", "secret", "publicKey"))],
    effects=Effects(gives="value", configured=_CONFIGURED),
    examples=[
        Example(
            "sign and verify",
            '- set: {key: << env.JWT_SECRET | default("an-example-of-32-bytes-and-no-secret") >>}\n'
            "- jwt.sign: {claims: {sub: ada, scope: chat read}, secret: << key >>}\n  as: token\n"
            "- jwt.verify: {token: << token >>, secret: << key >>}\n  as: claims\n"
            "- return: << [claims.sub, claims.scopes] >>",
            result=["ada", ["chat", "read"]],
        ),
        Example(
            "a value that is not a token",
            '- jwt.verify: {token: abc, secret: << env.SECRET | default("an-example-of-32-bytes-and-no-secret") >>}',
            fails="unauthorized",
        ),
    ],
)
async def jwt_verify(  # noqa: PLR0913  (a token is checked in that many ways)
    run: Run,
    *,
    token: str,
    authentication: str | None = None,
    secret: str | None = None,
    public_key: str | None = None,
    algorithms: list[str] | None = None,
    issuer: Any = None,
    audience: Any = None,
    clock_skew: float = CLOCK_SKEW,
) -> dict[str, Any]:
    """Give the claims of a signed token (JWT), with its scopes as a list under `scopes`.

    A token that is not valid (another's signature, expired, without `exp`, for another audience) is the error
    `unauthorized`. Endpoints need no such step: they have `authentication`. Keys that a token itself holds or points
    to are never used, and a token without a signature is never valid.
    """
    if authentication is not None:
        return dict(await run.context.resource(open_callers).tokens(authentication).verify(token))
    from streamstack.connections.tokens import Rules, find_keys, parse_token, verify  # noqa: PLC0415

    rules = Rules(_names(issuer), _names(audience), clock_skew)
    key = _checking_key(secret, public_key, tuple(algorithms or ()))
    parsed = parse_token(token)
    if parsed.algorithm not in key.algorithms:
        raise RunError("unauthorized", "the token is signed in a way that is not taken here")
    return verify(parsed, find_keys(parsed, [key]), rules)


def _names(given: Any) -> tuple[str, ...]:
    listed = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(each, str) for each in listed) or (given is not None and not listed):
        raise RunError("template", "`issuer` and `audience` are texts, or lists of texts")
    return tuple(listed)


@lru_cache(maxsize=64)
def _checking_key(secret: str | None, pem: str | None, algorithms: tuple[str, ...]) -> Key:
    from streamstack.connections.tokens import (  # noqa: PLC0415
        public_key,
        secret_key,
    )

    if pem is not None:
        key = public_key(pem, algorithms)
    elif not secret:
        raise RunError("template", "`secret` is empty: nobody could tell a token from a forged one")
    else:
        key = secret_key(secret, algorithms or ("HS256",))
    if not key.algorithms:
        raise RunError("template", "none of the `algorithms` goes with the key", final=True)
    return key


@function(
    "jwt.sign",
    Parameter(
        "claims", Bound(Kind.OBJECT), "What the token says: {sub: ...}.", required=True, main=True
    ),
    _AUTHENTICATION,
    _SECRET,
    Parameter("privateKey", Bound(Kind.TEXT), "A private key in PEM, instead of a name."),
    Parameter(
        "algorithm",
        Constant(choices=_ALGORITHMS),
        "How it is signed. Else the first of the authentication; HS256 with a secret; what fits a private key.",
    ),
    Parameter(
        "expiresIn", Bound(Kind.DURATION), "How long it is valid: its `exp`.", default=3600.0
    ),
    choices=[Choice(("authentication", "secret", "privateKey"))],
    effects=Effects(gives="value", configured=_CONFIGURED),
    examples=[
        Example(
            "a token for an hour",
            "- jwt.sign:\n    claims: {sub: ada}\n"
            '    secret: << env.JWT_SECRET | default("an-example-of-32-bytes-and-no-secret") >>\n'
            "  as: token\n"
            '- return: << (token | split(".")) | length >>',
            result=3,
        ),
    ],
)
def jwt_sign(
    run: Run,
    *,
    claims: Mapping[str, Any],
    authentication: str | None = None,
    secret: str | None = None,
    private_key: str | None = None,
    algorithm: str | None = None,
    expires_in: float = 3600.0,
) -> str:
    """Give a signed token (JWT) with these claims.

    `iat` and `exp` are added unless the claims have them; with `authentication` also its first `issuer` and `audience`,
    so that endpoints with that authentication take the token. Timestamps are written as tokens have them, in seconds.
    """
    from streamstack.connections.tokens import private_key as read_private  # noqa: PLC0415
    from streamstack.connections.tokens import (  # noqa: PLC0415
        secret_key,
        sign,
    )

    now = int(time())
    made: dict[str, Any] = {"iat": now, "exp": now + max(int(expires_in), 1)}
    if authentication is not None:
        tokens = run.context.resource(open_callers).tokens(authentication)
        key = tokens.signing_key()
        made |= tokens.method.own_claims
        chosen = algorithm or tokens.method.algorithms[0]
    elif private_key is not None:
        key, usual = read_private(private_key)
        chosen = algorithm or usual
    elif not secret:
        raise RunError("template", "`secret` is empty: anybody could sign such a token")
    else:
        chosen = algorithm or "HS256"
        key = secret_key(secret, (chosen,))
    if chosen not in key.algorithms:
        raise RunError("template", f"`{chosen}` does not go with the key", final=True)
    made |= {name: _moment(value) for name, value in claims.items() if value is not None}
    return sign(made, key, chosen)


def _moment(value: Any) -> Any:
    return int(value.timestamp()) if isinstance(value, datetime) else value


@function(
    "password.hash",
    Parameter("password", Bound(Kind.TEXT), "The password.", required=True, main=True),
    effects=Effects(gives="value"),
    examples=[
        Example(
            "keep the hash, never the password",
            "- password.hash: correct horse\n  as: hash\n"
            "- password.verify: {password: correct horse, hash: << hash >>}\n  as: right\n"
            "- return: << right >>",
            result=True,
        ),
    ],
)
async def password_hash(run: Run, password: str) -> str:
    """Give the hash of a password, to be kept in its place (Argon2id, with its salt in it).

    It takes 20 to 40 ms and 19 MB on purpose, in a thread of its own, two at once.
    """
    return await run.context.resource(open_passwords).hash(password)


@function(
    "password.verify",
    Parameter("password", Bound(Kind.TEXT), "What was sent.", required=True, main=True),
    Parameter(
        "hash",
        Bound(Kind.TEXT),
        "What `password.hash` gave. Null, where there is no such account, is nobody's: false, after the same time.",
    ),
    effects=Effects(gives="value"),
    examples=[
        Example(
            "no such account",
            "- password.verify: {password: correct horse, hash: << null >>}\n  as: right\n- return: << right >>",
            result=False,
        ),
    ],
)
async def password_verify(run: Run, password: str, hash: str | None = None) -> bool:  # noqa: A002
    """Tell whether a password is the one of a hash."""
    return await run.context.resource(open_passwords).verify(password, hash)


@function(
    "hmac.verify",
    Parameter(
        "content",
        Bound(),
        "What was signed, byte by byte: `request.body` for a webhook.",
        required=True,
        main=True,
    ),
    Parameter(
        "signature",
        Bound(Kind.TEXT),
        "What was sent with it, in hexadecimal or base64, with or without `sha256=` before it. Null is no signature.",
    ),
    Parameter("secret", Bound(Kind.TEXT), "What it is signed with.", required=True),
    Parameter("algorithm", Constant(choices=_HASHES), "The hash.", default="sha256"),
    effects=Effects(gives="value"),
    examples=[
        Example(
            "a webhook",
            "- hmac.verify:\n    content: abc\n"
            "    signature: sha256=9c196e32dc0175f86f4b1cb89289d6619de6bee699e4c378e68309ed97a1a6ab\n"
            '    secret: << env.WEBHOOK_SECRET | default("key") >>\n  as: genuine\n- return: << genuine >>',
            result=True,
        ),
        Example(
            "not signed",
            '- hmac.verify: {content: abc, signature: << null >>, secret: << env.WEBHOOK_SECRET | default("key") >>}\n'
            "  as: genuine\n- return: << genuine >>",
            result=False,
        ),
    ],
)
def hmac_verify(
    run: Run, *, content: Any, secret: str, signature: str | None = None, algorithm: str = "sha256"
) -> bool:
    """Tell whether a signature (HMAC) is that of some content: whether a webhook comes from who has the secret.

    It is compared in constant time.
    """
    if not isinstance(content, (str, bytes)):
        told = f"`content` must be a text or bytes, such as `request.body`, not a {kind(content)}"
        raise RunError("template", told)
    if not secret:
        raise RunError("template", "`secret` is empty: anybody could sign")
    if signature is None:
        return False
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    made = signing.new(secret.encode("utf-8", "surrogatepass"), data, algorithm)
    given = signature.strip().removeprefix(f"{algorithm}=").encode("utf-8", "surrogatepass")
    plain = given.rstrip(b"=")
    known = (
        (made.hexdigest().encode(), given.lower()),
        (b64encode(made.digest()).rstrip(b"="), plain),
        (urlsafe_b64encode(made.digest()).rstrip(b"="), plain),
    )
    return any(signing.compare_digest(ours, theirs) for ours, theirs in known)


FUNCTIONS = (jwt_verify, jwt_sign, password_hash, password_verify, hmac_verify)
