"""The Security family where its examples do not reach: keys of every kind, webhooks, and what is refused."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from tests.server.authenticating import SECRET, AnyKey, claims, project, signed, told
from tests.stacks import run_stack

KEYS: dict[str, AnyKey] = {
    "RS256": RSAKey.generate_key(2048),
    "ES256": ECKey.generate_key("P-256"),
    "EdDSA": OKPKey.generate_key("Ed25519"),
}


@pytest.mark.parametrize("algorithm", KEYS)
async def test_keys_of_every_kind(algorithm: str) -> None:
    """A private key signs, its public one verifies; neither is a secret."""
    key = KEYS[algorithm]
    inputs = {
        "private": key.as_pem(private=True).decode(),
        "public": key.as_pem(private=False).decode(),
        "other": KEYS["RS256" if algorithm != "RS256" else "ES256"].as_pem(private=False).decode(),
    }
    outcome = await run_stack(
        """
        - jwt.sign: {claims: {sub: ada, at: << now() >>}, privateKey: << input.private >>, expiresIn: 5m}
          as: token
        - jwt.verify: {token: << token >>, publicKey: << input.public >>}
          as: claims
        - try:
            do:
              - jwt.verify: {token: << token >>, publicKey: << input.other >>}
                as: wrong
            catch: {as: error, do: [{set: {code: << error.code >>}}]}
        - return: << [claims.sub, claims.exp - claims.iat, code] >>
        """,
        inputs,
    )
    assert outcome.error is None, outcome.error
    assert outcome.result == ["ada", 300, "unauthorized"]


@pytest.mark.parametrize(
    ("step", "code", "words"),
    [
        ("jwt.verify: {token: << input.token >>, secret: << input.nothing >>}", "template", "`secret`"),
        ("jwt.verify: {token: << input.token >>, secret: << input.pem >>}", "template", "publicKey"),
        ("jwt.verify: {token: << input.token >>, publicKey: << input.secret >>}", "template", "PEM"),
        ("jwt.verify: {token: << input.token >>, publicKey: << input.private >>}", "template", "private"),
        ("jwt.verify: {token: << input.confused >>, publicKey: << input.pem >>}", "unauthorized", "signed in a way"),
        (
            "jwt.verify: {token: << input.token >>, secret: << input.secret >>, audience: me}",
            "unauthorized",
            "audience",
        ),
        ("jwt.verify: {token: << input.token >>, secret: << input.secret >>, issuer: me}", "unauthorized", "issuer"),
        (
            "jwt.verify: {token: << input.token >>, secret: << input.secret >>, issuer: << input.list >>}",
            "invalid-input",
            "issuer",
        ),
        (
            "jwt.verify: {token: << input.token >>, secret: << input.secret >>, algorithms: [HS512]}",
            "unauthorized",
            "signed",
        ),
        (
            "jwt.verify: {token: << input.token >>, secret: << input.secret >>, algorithms: [RS256]}",
            "template",
            "algorithms",
        ),
        ("jwt.sign: {claims: {}, secret: << input.nothing >>}", "template", "`secret`"),
        ("jwt.sign: {claims: {}, privateKey: << input.pem >>}", "template", "private key"),
        ("jwt.sign: {claims: {}, privateKey: << input.private >>, algorithm: HS256}", "template", "HS256"),
        ("hmac.verify: {content: a, signature: b, secret: << input.nothing >>}", "template", "secret"),
        ("hmac.verify: {content: << input.list >>, signature: b, secret: << input.secret >>}", "template", "content"),
    ],
)
async def test_what_would_be_unsafe_is_refused(step: str, code: str, words: str) -> None:
    """Nothing is signed or checked with nothing, or with a key of another kind."""
    pem = KEYS["ES256"].as_pem(private=False).decode()
    inputs = {
        "token": signed(),
        "secret": SECRET,
        "nothing": "",
        "list": [],
        "pem": pem,
        "private": KEYS["ES256"].as_pem(private=True).decode(),
        "confused": signed(key=pem),
    }
    outcome = await run_stack(f"- {step}\n  as: x\n- return: << x >>", inputs)
    assert outcome.error is not None
    assert (outcome.error.code, words in outcome.error.message) == (code, True), outcome.error
    assert SECRET not in outcome.error.message


STRIPE = """{
  "id": "evt_123",
  "object": "event",
  "account": "acct_123",
  "api_version": "2017-05-25",
  "created": 1533204620,
  "data": {
    "object": {
      "id": "cus_123",
      "object": "customer",
      "created": 123456789,
      "email": "test@stripe.com",
      "livemode": false,
      "metadata": {}
    }
  },
  "livemode": false,
  "pending_webhooks": 1,
  "request": {
    "id": "req_123",
    "idempotency_key": "idempotency-key-123"
  },
  "type": "customer.created"
}
"""
SLACK = (
    "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    "&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    "%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    "&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
#: Published vectors: of stripe-dotnet's tests, of the documentation of Slack and GitHub, and, as Shopify's has none, of
#: SQLPage's tests. Scheme, secret, body, headers, seconds since 1970.
VECTORS: dict[str, tuple[str, str, dict[str, str], int]] = {
    "stripe": (
        "webhook_secret",
        STRIPE,
        {
            "Stripe-Signature": "t=1533204620,"
            "v1=2220f87ef101a04665f11cdf770523143f875572008577fa0f20882ddb9cc3c7,"
            "v0=63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef"
        },
        1533204620,
    ),
    "slack": (
        "8f742231b10e8888abcd99yyyzzz85a5",
        SLACK,
        {
            "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            "X-Slack-Request-Timestamp": "1531420618",
        },
        1531420618,
    ),
    "github": (
        "It's a Secret to Everybody",
        "Hello, World!",
        {"X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
        0,
    ),
    "shopify": (
        "test-webhook-secret",
        '{"id":1234567890,"email":"customer@example.com","total_price":"123.45"}',
        {"X-Shopify-Hmac-Sha256": "QNyObTlKbMx2qDlPF/ZOZcBqg5OgPg+2oky3zldc0Gw="},
        0,
    ),
}


@pytest.mark.parametrize("scheme", VECTORS)
async def test_webhooks_of_services(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published vectors are genuine; another body, secret, time or header is not, nor is one that is missing."""
    secret, body, headers, signed_at = VECTORS[scheme]
    definition = f"""
method: POST
path: /hook
responseType: json
functionStack:
  - hmac.verify:
      content: << request.body >>
      scheme: {scheme}
      secret: << request.headers["x-secret"] >>
    as: genuine
response: << genuine >>
"""
    clock = {"now": signed_at}
    monkeypatch.setattr("streamstack.clock.time", lambda: clock["now"])
    async with project(tmp_path, "{}", definition, {}) as server:

        async def genuine(body: str = body, secret: str = secret, **changed: str) -> Any:
            sent = {name.replace("-", "_"): value for name, value in {**headers, **changed}.items()}
            return json.loads((await server.ask("POST", "/hook", body.encode(), x_secret=secret, **sent)).body)

        name, value = next(iter(headers.items()))
        for late in (0, 299, -299):
            clock["now"] = signed_at + late
            assert await genuine() is True
        assert await genuine(body=body + " ") is False
        assert await genuine(secret=secret + "x") is False
        for wrong in (
            "",
            "x",
            value[: len(value) // 2],
            value.replace("v1=", "v0="),
            value.replace("1", "2"),
            "t=,v1=",
            "t,v1",
            ",,",
        ):
            if wrong != value:
                assert await genuine(**{name: wrong}) is False, wrong
        if signed_at:
            for late in (301, -301, 0):
                clock["now"] = signed_at + late
                assert await genuine() is (late == 0)
        if scheme == "stripe":  # while a secret is replaced, there are two signatures
            assert await genuine(**{name: value.replace("v1=", "v1=00,v1=")}) is True
        if scheme == "slack":
            for stamp in ("", "1531420619", "-1531420618", "x"):
                assert await genuine(**{"X-Slack-Request-Timestamp": stamp}) is False


async def test_signed_text(tmp_path: Path) -> None:
    """`request.text` is the body as text: what is signed together with it can be written as a text."""
    definition = """
method: POST
path: /hook
responseType: json
functionStack:
  - hmac.verify:
      content: << request.headers["x-time"] >>.<< request.text >>
      signature: << request.headers["x-signature"] >>
      secret: << env.HOOK_SECRET >>
    as: genuine
response: << genuine >>
"""
    body = '{"text": "\u00e4  "}'
    made = hmac.new(b"hook", f"7.{body}".encode(), hashlib.sha256).hexdigest()
    async with project(tmp_path, "{}", definition, {"HOOK_SECRET": "hook"}) as server:
        for time, genuine in (("7", b"true"), ("8", b"false")):
            reply = await server.ask("POST", "/hook", body.encode(), X_Time=time, X_Signature=made)
            assert reply.body == genuine


async def test_webhooks(tmp_path: Path) -> None:
    """`request.body` is what was signed, byte by byte; hexadecimal and base64 are taken, with or without the name."""
    definition = """
method: POST
path: /hook
responseType: json
inputParameters: {event: {type: json, in: wholeBody}}
functionStack:
  - hmac.verify:
      content: << request.body >>
      signature: << request.headers["x-signature"] | default(null) >>
      secret: << env.HOOK_SECRET >>
    as: genuine
  - precondition: {that: << genuine >>, code: unauthorized, message: The signature is wrong., status: 401}
  - return: << input.event.n >>
"""
    body = json.dumps({"n": 3, "text": "\u00e4  "}).encode()
    made = hmac.new(b"hook", body, hashlib.sha256)
    good = (
        made.hexdigest(),
        f"sha256={made.hexdigest()}",
        made.hexdigest().upper(),
        b64encode(made.digest()).decode(),
        urlsafe_b64encode(made.digest()).decode().rstrip("="),
    )
    bad = ("", "sha256=", "sha1=" + made.hexdigest(), made.hexdigest()[:-1], "\u00e4", "0" * 64)
    async with project(tmp_path, "{}", definition, {"HOOK_SECRET": "hook"}) as server:
        for signature in good:
            reply = await server.ask("POST", "/hook", body, Content_Type="application/json", X_Signature=signature)
            assert (reply.status, reply.body) == (200, b"3"), signature
        for signature in bad:
            reply = await server.ask("POST", "/hook", body, Content_Type="application/json", X_Signature=signature)
            assert reply.status == 401, signature
        none = await server.ask("POST", "/hook", body, Content_Type="application/json")
        changed = await server.ask("POST", "/hook", body + b" ", Content_Type="application/json", X_Signature=good[0])
    assert (none.status, changed.status) == (401, 401)


async def test_a_configured_authentication_verifies(tmp_path: Path) -> None:
    """`jwt.verify` by name holds a token against the settings, as an endpoint would."""
    definition = """
method: GET
path: /check
responseType: json
inputParameters: {token: {type: text, required: true}}
functionStack:
  - jwt.verify: {token: << input.token >>, authentication: jwt}
    as: claims
  - return: << claims >>
"""
    settings = "authentication:\n  jwt: {type: jwt, secret: << env.JWT_SECRET >>, issuer: me}\n"
    good: Any = signed(claims(iss="me"))
    async with project(tmp_path, settings, definition) as server:
        reply = await server.get(f"/check?token={good}")
        other = await server.get(f"/check?token={signed(claims(iss='you'))}")
    assert told(reply.body)["method"] == "jwt"
    assert (other.status, told(other.body)["code"]) == (401, "unauthorized")
