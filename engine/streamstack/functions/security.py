"""Functions for tokens, passwords and signatures."""

from __future__ import annotations

import hmac as signing
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from streamstack import clock
from streamstack.errors import RunError
from streamstack.functions.http_upstream import open_http
from streamstack.functions.webhooks import standard_key, standard_signature
from streamstack.language.authentication import CLOCK_SKEW, PUBLIC_ALGORITHMS, SECRET_ALGORITHMS
from streamstack.language.definition import Choice, Configured, Effects, Example, Parameter, function
from streamstack.language.kinds import Kind
from streamstack.language.values import kind
from streamstack.runtime.run import Context, Run
from streamstack.spec import Bound, Constant, ListOf, OneOf

if TYPE_CHECKING:
    from streamstack.connections.authentication import Authenticators
    from streamstack.connections.tokens import Key, Passwords


def open_callers(context: Context) -> Authenticators:
    """Make the authentications of the settings; `run.context.resource(open_callers)` returns it."""
    # Its libraries are loaded where a project has authentications, which most have not.
    from streamstack.connections.authentication import Authenticators  # noqa: PLC0415

    return Authenticators(context.authentication, lambda: context.resource(open_http), context.folder)


def open_passwords(context: Context) -> Passwords:
    """Make what hashes passwords."""
    from streamstack.connections.tokens import Passwords  # noqa: PLC0415

    return Passwords()


_ALGORITHMS: Final = (*SECRET_ALGORITHMS, *PUBLIC_ALGORITHMS)
_CONFIGURED: Final = (Configured("authentication", "authentication"),)
_AUTHENTICATION: Final = Parameter(
    "authentication", Constant(), "Name of a `jwt` authentication in the settings, for its key, issuer and audience."
)
_SECRET: Final = Parameter("secret", Bound(Kind.TEXT), "Shared secret, instead of `authentication`.")
_NAMES: Final = OneOf((Bound(Kind.TEXT), ListOf(Bound(Kind.TEXT)), Bound(Kind.LIST)))
#: Signatures of webhooks: SHA-1 is what some of them still have, and is sound in an HMAC.
_HASHES: Final = ("sha256", "sha512", "sha384", "sha1")


@function(
    "jwt.verify",
    Parameter("token", Bound(Kind.TEXT), "Token to verify.", required=True, main=True),
    _AUTHENTICATION,
    _SECRET,
    Parameter("publicKey", Bound(Kind.TEXT), "Public key in PEM, instead of `authentication`."),
    Parameter(
        "algorithms",
        ListOf(Constant(choices=_ALGORITHMS)),
        "Accepted signature algorithms. Default: HS256 with a secret, those that fit the key with a public key.",
    ),
    Parameter("issuer", _NAMES, "Accepted issuers (`iss`): one, or a list."),
    Parameter("audience", _NAMES, "Accepted audiences (`aud`): one, or a list."),
    Parameter("clockSkew", Bound(Kind.DURATION), "Allowed clock difference.", default=CLOCK_SKEW),
    choices=[Choice(("authentication", "secret", "publicKey"))],
    effects=Effects(gives="value", result="{scopes: [text], ...}", configured=_CONFIGURED),
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
            "an invalid token",
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
    """Verify a JWT and return its claims. `scopes` lists its scopes.

    An invalid token (wrong signature, expired, without `exp`, wrong audience) fails with `unauthorized`.
    Endpoints don't need this step: they have `authentication`. Keys that a token contains or links to are
    ignored, and unsigned tokens are invalid.
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


def _names(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(each, str) for each in listed) or (value is not None and not listed):
        raise RunError("template", "`issuer` and `audience` are texts, or lists of texts")
    return tuple(listed)


@lru_cache(maxsize=64)
def _checking_key(secret: str | None, pem: str | None, algorithms: tuple[str, ...]) -> Key:
    from streamstack.connections.tokens import public_key, secret_key  # noqa: PLC0415

    if pem is not None:
        key = public_key(pem, algorithms)
    elif not secret:
        raise RunError("template", "`secret` is empty: a forged token could not be detected")
    else:
        key = secret_key(secret, algorithms or ("HS256",))
    if not key.algorithms:
        raise RunError("template", "none of the `algorithms` goes with the key", final=True)
    return key


@function(
    "jwt.sign",
    Parameter("claims", Bound(Kind.OBJECT), "Claims of the token: {sub: ...}.", required=True, main=True),
    _AUTHENTICATION,
    _SECRET,
    Parameter("privateKey", Bound(Kind.TEXT), "Private key in PEM, instead of `authentication`."),
    Parameter(
        "algorithm",
        Constant(choices=_ALGORITHMS),
        "Signature algorithm. Default: the first of the authentication, HS256 with a secret, or the one that "
        "fits the private key.",
    ),
    Parameter("expiresIn", Bound(Kind.DURATION), "Time until the token expires (`exp`).", default=3600.0),
    choices=[Choice(("authentication", "secret", "privateKey"))],
    effects=Effects(gives="value", result="text", configured=_CONFIGURED),
    examples=[
        Example(
            "a token valid for an hour",
            "- jwt.sign:\n    claims: {sub: ada}\n"
            '    secret: << env.JWT_SECRET | default("an-example-of-32-bytes-and-no-secret") >>\n'
            "  as: token\n"
            '- return: << (token | split(".")) | length >>',
            result=3,
        )
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
    """Create a signed JWT with the given claims.

    `iat` and `exp` are added unless the claims contain them. With `authentication`, its first `issuer` and
    `audience` are added too, so endpoints with that authentication accept the token. Timestamps are written in
    seconds, as JWTs require.
    """
    from streamstack.connections.tokens import private_key as read_private  # noqa: PLC0415
    from streamstack.connections.tokens import secret_key, sign  # noqa: PLC0415

    now = int(clock.time())
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
    Parameter("password", Bound(Kind.TEXT), "Password to hash.", required=True, main=True),
    effects=Effects(gives="value", result="text"),
    examples=[
        Example(
            "store the hash, never the password",
            "- password.hash: correct horse\n  as: hash\n"
            "- password.verify: {password: correct horse, hash: << hash >>}\n  as: right\n"
            "- return: << right >>",
            result=True,
        )
    ],
)
async def password_hash(run: Run, password: str) -> str:
    """Hash a password for storage (Argon2id, with a random salt).

    Hashing intentionally takes 20 to 40 ms and 19 MB. It runs in a separate thread, at most two at a time.
    """
    return await run.context.resource(open_passwords).hash(password)


@function(
    "password.verify",
    Parameter("password", Bound(Kind.TEXT), "Password to check.", required=True, main=True),
    Parameter(
        "hash",
        Bound(Kind.TEXT),
        "Hash from `password.hash`. Null, for an account that does not exist, returns false after the same time.",
    ),
    effects=Effects(gives="value", result="boolean", proves=("hash",)),
    examples=[
        Example(
            "an account that does not exist",
            "- password.verify: {password: correct horse, hash: << null >>}\n  as: right\n- return: << right >>",
            result=False,
        )
    ],
)
async def password_verify(run: Run, password: str, hash: str | None = None) -> bool:  # noqa: A002
    """Check whether a password matches a hash."""
    return await run.context.resource(open_passwords).verify(password, hash)


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How a service signs its webhooks: the headers that it sends, and what stands before the signature.

    ``signed`` writes what is signed from the time and the content, where the time is signed, too.
    """

    header: str
    prefix: str = ""
    signed: Callable[[bytes, bytes], bytes] | None = None
    timestamp: str = ""
    base64: bool = False


_SCHEMES: Final = {
    # https://docs.stripe.com/webhooks/signature: the header is a list of pairs, of which `t` is the time
    "stripe": _Scheme("stripe-signature", signed=lambda time, content: b"%b.%b" % (time, content)),
    # https://api.slack.com/authentication/verifying-requests-from-slack
    "slack": _Scheme(
        "x-slack-signature", "v0=", lambda time, content: b"v0:%b:%b" % (time, content), "x-slack-request-timestamp"
    ),
    # https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
    "github": _Scheme("x-hub-signature-256", "sha256="),
    # https://shopify.dev/docs/apps/build/webhooks/subscribe/https
    "shopify": _Scheme("x-shopify-hmac-sha256", base64=True),
    # https://www.standardwebhooks.com, which `webhook.send` follows
    "standardWebhooks": _Scheme("webhook-signature", timestamp="webhook-timestamp", base64=True),
}
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


@function(
    "hmac.verify",
    Parameter(
        "content", Bound(), "Signed content, as exact bytes: `request.body` for a webhook.", required=True, main=True
    ),
    Parameter(
        "signature",
        Bound(Kind.TEXT),
        "Received signature, in hexadecimal or base64, with or without the prefix `sha256=`. Null is an invalid "
        "signature. With a `scheme`, the whole header of the service. Default: that header of the request.",
    ),
    Parameter("secret", Bound(Kind.TEXT), "Shared secret.", required=True),
    Parameter(
        "scheme",
        Constant(choices=tuple(_SCHEMES)),
        "Service that signs. `stripe`, `slack` and `standardWebhooks` (such as `webhook.send` of streamstack) sign the "
        "time, too, which must be recent. The latter's `secret` is Base64, as in whsec_...",
    ),
    Parameter(
        "timestamp",
        Bound(Kind.TEXT),
        "Time that `slack` or `standardWebhooks` has signed. Default: the header `X-Slack-Request-Timestamp` or "
        "`webhook-timestamp` of the request.",
    ),
    Parameter("tolerance", Bound(Kind.DURATION), "Maximum age of a signed time.", default=300.0),
    Parameter("algorithm", Constant(choices=_HASHES), "Hash algorithm. Default: sha256."),
    choices=[Choice(("scheme", "algorithm"), required=False)],
    effects=Effects(gives="value", result="boolean"),
    examples=[
        Example(
            "verify a webhook",
            "- hmac.verify:\n    content: abc\n"
            "    signature: sha256=9c196e32dc0175f86f4b1cb89289d6619de6bee699e4c378e68309ed97a1a6ab\n"
            '    secret: << env.WEBHOOK_SECRET | default("key") >>\n  as: genuine\n- return: << genuine >>',
            result=True,
        ),
        Example(
            "a webhook of GitHub",
            "- hmac.verify:\n    content: Hello, World!\n    scheme: github\n"
            "    signature: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17\n"
            '    secret: << env.WEBHOOK_SECRET | default("It\'s a Secret to Everybody") >>\n'
            "  as: genuine\n- return: << genuine >>",
            result=True,
        ),
        Example(
            "a missing signature",
            '- hmac.verify: {content: abc, signature: << null >>, secret: << env.WEBHOOK_SECRET | default("key") >>}\n'
            "  as: genuine\n- return: << genuine >>",
            result=False,
        ),
    ],
)
def hmac_verify(
    run: Run,
    *,
    content: Any,
    secret: str,
    signature: str | None = None,
    scheme: str | None = None,
    timestamp: str | None = None,
    tolerance: float = 300.0,
    algorithm: str | None = None,
) -> bool:
    """Check whether an HMAC signature matches the content, for example of a webhook.

    The comparison takes constant time. With a `scheme`, the signature is read as that service writes it, and a time
    that is signed, but older than `tolerance`, does not match: a recorded request can't be sent again.
    """
    if not isinstance(content, (str, bytes)):
        message = f"`content` must be a text or bytes, such as `request.body`, not a {kind(content)}"
        raise RunError("template", message)
    if not secret:
        raise RunError("template", "`secret` is empty: anybody could sign")
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    key = secret.encode("utf-8", "surrogatepass")
    if scheme is None:
        return signature is not None and _matches_any(key, data, signature, algorithm or "sha256")
    wanted = _SCHEMES[scheme]
    headers = run.request().get("headers", {})
    signature = headers.get(wanted.header) if signature is None else signature
    signatures = [(signature or "").strip().removeprefix(wanted.prefix)]
    if scheme == "stripe":
        pairs = [part.strip().partition("=") for part in signatures[0].split(",")]
        signatures = [value for name, _, value in pairs if name == "v1"]
        timestamp = next((value for name, _, value in pairs if name == "t"), None)
    if wanted.signed is not None or wanted.timestamp:
        timestamp = headers.get(wanted.timestamp) if timestamp is None else timestamp
        if timestamp is None or not _TIMESTAMP.fullmatch(timestamp) or abs(clock.time() - int(timestamp)) > tolerance:
            return False
        if wanted.signed is not None:
            data = wanted.signed(timestamp.encode(), data)
    if scheme == "standardWebhooks":
        ours = standard_signature(standard_key(secret), headers.get("webhook-id", ""), timestamp or "", data).encode()
        signatures = signatures[0].split(" ")
        return any(signing.compare_digest(ours, theirs.encode("utf-8", "surrogatepass")) for theirs in signatures)
    made = signing.new(key, data, "sha256")
    ours = b64encode(made.digest()) if wanted.base64 else made.hexdigest().encode()
    return any(signing.compare_digest(ours, theirs.encode("utf-8", "surrogatepass")) for theirs in signatures)


def _matches_any(key: bytes, data: bytes, signature: str, algorithm: str) -> bool:
    """Return whether a signature matches in one of the forms in which signatures are written."""
    made = signing.new(key, data, algorithm)
    received = signature.strip().removeprefix(f"{algorithm}=").encode("utf-8", "surrogatepass")
    plain = received.rstrip(b"=")
    known = (
        (made.hexdigest().encode(), received.lower()),
        (b64encode(made.digest()).rstrip(b"="), plain),
        (urlsafe_b64encode(made.digest()).rstrip(b"="), plain),
    )
    return any(signing.compare_digest(ours, theirs) for ours, theirs in known)


FUNCTIONS = (jwt_verify, jwt_sign, password_hash, password_verify, hmac_verify)
