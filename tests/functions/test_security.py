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
            "template",
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
