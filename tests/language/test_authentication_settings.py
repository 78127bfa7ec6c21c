"""The section `authentication`: what each key means; what is wrong with one is in cases/invalid."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from streamstack.functions import REGISTRY
from streamstack.language.authentication import ApiKey, CredentialPlace, Jwt, Key
from streamstack.language.definition import Authentication, Endpoint
from streamstack.language.loading.documents import load
from streamstack.language.settings import Settings, Streaming, load_settings
from streamstack.language.source import read

LONG = "a-secret-of-the-tests-with-32-bytes-or-more"


def settings_of(
    text: str, environment: dict[str, str] | None = None, folder: Path = Path()
) -> tuple[Settings, list[tuple[str, str]]]:
    """Return the settings of a section, and the codes and messages of what was found."""
    body = "authentication:\n" + "".join(f"  {line}\n" for line in text.splitlines())
    file = str(folder / "streamstack.yaml")
    settings, found = load_settings(body, file, environment or {})
    return settings, [(each.code, each.message) for each in found]


def test_everything_of_tokens() -> None:
    """Each key has its place; what is one may be a list."""
    settings, found = settings_of(
        "a:\n  type: jwt\n  secret: << env.S >>\n  algorithms: [HS512, HS256]\n  issuer: me\n"
        "  audience: [x, << env.X >>]\n  from: [header, {header: X-Token}, {cookie: c}, {query: q}]\n"
        "  clockSkew: 1m\n  expiry: optional\n"
        "b: {type: jwt, jwksUrl: https://login.example.org/keys, audience: x, from: {cookie: c}}\n",
        {"S": LONG * 2, "X": "y"},
    )
    assert found == []
    first, second = settings.authentication["a"], settings.authentication["b"]
    assert isinstance(first, Jwt)
    assert isinstance(second, Jwt)
    assert first == Jwt(
        "a",
        ("HS512", "HS256"),
        secret=LONG * 2,
        issuers=("me",),
        audiences=("x", "y"),
        places=(
            CredentialPlace("header", "Authorization"),
            CredentialPlace("header", "X-Token"),
            CredentialPlace("cookie", "c"),
            CredentialPlace("query", "q"),
        ),
        clock_skew=60,
        expiry="optional",
        mark=first.mark,
    )
    assert second.places == (CredentialPlace("cookie", "c"),)
    assert "HS256" not in second.algorithms
    assert {"RS256", "ES256", "EdDSA"} <= set(second.algorithms)
    assert (second.clock_skew, second.lasting) == (30, False)


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (RSAKey.generate_key(2048), ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        (ECKey.generate_key("P-256"), ("ES256",)),
        (ECKey.generate_key("P-384"), ("ES384",)),
        (ECKey.generate_key("P-521"), ("ES512",)),
        (OKPKey.generate_key("Ed25519"), ("EdDSA", "Ed25519")),
    ],
)
def test_a_public_key_says_which_algorithms(key: Any, algorithms: tuple[str, ...], tmp_path: Path) -> None:
    """In a file beside the settings, or as text; another kind of signature is refused."""
    (tmp_path / "k.pem").write_bytes(key.as_pem(private=False))
    settings, found = settings_of("a: {type: jwt, publicKey: k.pem}", folder=tmp_path)
    assert found == []
    method = settings.authentication["a"]
    assert isinstance(method, Jwt)
    assert method.algorithms == algorithms
    for name in ("HS256", "none", "ES256" if algorithms[0] != "ES256" else "RS256"):
        text = f"a: {{type: jwt, publicKey: k.pem, algorithms: [{name}]}}"
        settings, found = settings_of(text, folder=tmp_path)
        assert [code for code, _ in found] == ["bad-setting"], name
        assert settings.authentication == {}


def test_keys_that_are_no_good(tmp_path: Path) -> None:
    """Of too few bits, of a curve that tokens don't have, private ones, none at all."""
    with pytest.warns(Warning, match="2048"):
        small = RSAKey.generate_key(1024)
    (tmp_path / "small.pem").write_bytes(small.as_pem(private=False))
    (tmp_path / "curve.pem").write_bytes(ECKey.generate_key("secp256k1").as_pem(private=False))
    (tmp_path / "private.pem").write_bytes(ECKey.generate_key("P-256").as_pem(private=True))
    (tmp_path / "text.pem").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    for name, words in (
        ("small", "too weak"),
        ("curve", "no algorithm for such a key"),
        ("private", "private key"),
        ("text", "not a public key in PEM"),
    ):
        _, found = settings_of(f"a: {{type: jwt, publicKey: {name}.pem}}", folder=tmp_path)
        assert [code for code, _ in found] == ["bad-setting"], name
        assert words in found[0][1]


@pytest.mark.parametrize("name", ["nowhere.pem", "~no-such-user/k.pem", r"a\0b", ".", "a" * 5000])
def test_a_file_that_holds_no_key(name: str, tmp_path: Path) -> None:
    """Whatever its name: a finding."""
    _, found = settings_of(f'a: {{type: jwt, publicKey: "{name}"}}', folder=tmp_path)
    assert [code for code, _ in found] == ["bad-setting"]
    assert "no PEM key in the file" in found[0][1]


def test_what_a_variable_holds_instead_of_a_key_is_not_shown() -> None:
    """It may be a secret that stands in the wrong variable."""
    text = "a: {type: jwt, publicKey: << env.PUBLIC_KEY >>}"
    _, found = settings_of(text, {"PUBLIC_KEY": "geheim"})
    assert [code for code, _ in found] == ["bad-setting"]
    assert "geheim" not in found[0][1]


def test_keys_that_are_handed_out() -> None:
    """By name, with scopes or without; in a list; several in one variable; hashed or plain, kept as hashes."""
    one, two = "1" * 40, "2" * 40
    hashed = [hashlib.sha256(key.encode()).digest() for key in (one, two)]
    settings, found = settings_of(
        "named: {type: apiKey, keys: {a: {key: << env.ONE >>, scopes: [x, y]}, b: sha256:"
        + hashed[1].hex()
        + "}}\nlisted: {type: apiKey, query: key, keys: [<< env.ONE >>, << env.TWO >>]}\n"
        "several: {type: apiKey, header: Authorization, keys: << env.BOTH >>}\n"
        "missing: {type: apiKey, keys: [<< env.NOBODY >>]}\n",
        {"ONE": one, "TWO": two, "BOTH": f"{one}, {two},"},
    )
    assert found == []
    named, listed, several, missing = settings.authentication.values()
    assert isinstance(named, ApiKey)
    assert named.keys == (Key("a", hashed[0], ("x", "y")), Key("b", hashed[1]))
    assert named.place == CredentialPlace("header", "X-API-Key")
    assert isinstance(listed, ApiKey)
    assert [key.digest for key in listed.keys] == hashed
    assert [key.name for key in listed.keys] == [f"key-{each.hex()[:8]}" for each in hashed]
    assert listed.place == CredentialPlace("query", "key")
    assert isinstance(several, ApiKey)
    assert [key.digest for key in several.keys] == hashed
    assert several.place == CredentialPlace("header", "Authorization")
    assert isinstance(missing, ApiKey)
    assert missing.keys == ()


def test_a_secret_that_is_missing_lets_nobody_in() -> None:
    """A variable that is not set is not a secret; an empty one is replaced, by one of the project's own."""
    settings, found = settings_of('a: {type: jwt, secret: << env.S >>}\nb: {type: jwt, secret: ""}')
    assert found == []
    missing, empty = settings.authentication["a"], settings.authentication["b"]
    assert isinstance(missing, Jwt)
    assert isinstance(empty, Jwt)
    assert (missing.secret, missing.own) == (None, False)
    assert (empty.secret, empty.own) == (None, True)


@pytest.mark.parametrize(
    ("secret", "algorithms", "weak"),
    [("x" * 32, "HS256", False), ("x" * 31, "HS256", True), ("x" * 32, "HS512", True), ("x" * 64, "HS512", False)],
)
def test_a_secret_is_as_long_as_its_hash(secret: str, algorithms: str, *, weak: bool) -> None:
    """RFC 7518, section 3.2; a shorter one is a warning, which holds nothing of it."""
    text = f"a: {{type: jwt, secret: << env.S >>, algorithms: {algorithms}}}"
    settings, found = settings_of(text, {"S": secret})
    assert [code for code, _ in found] == (["weak-authentication"] if weak else [])
    assert secret not in str(found)
    assert "a" in settings.authentication


def authentication_of(text: str) -> tuple[Authentication | None, list[str]]:
    """Return the authentication of an endpoint, and the codes of what was found."""
    document = f"method: GET\npath: /x\n{text}\nfunctionStack: [{{stream: 1}}]\n"
    definition, found = load(read(document, "x.yaml")[0][0], REGISTRY, Streaming())
    assert definition is None or isinstance(definition, Endpoint)
    return definition.authentication if definition else None, [each.code for each in found]


@pytest.mark.parametrize(
    ("text", "ways", "optional"),
    [
        ("authentication: jwt", [("jwt", ())], False),
        ("authentication: [jwt, keys]", [("jwt", ()), ("keys", ())], False),
        ("authentication: {jwt: {scopes: [a, b]}}", [("jwt", ("a", "b"))], False),
        ("authentication: {jwt: {scopes: a}, keys: }", [("jwt", ("a",)), ("keys", ())], False),
        ("authentication: [keys, jwt: {scopes: [a]}]", [("keys", ()), ("jwt", ("a",))], False),
        ("authentication: {jwt: {optional: true}}", [("jwt", ())], True),
    ],
)
def test_the_forms_of_an_endpoint(text: str, ways: list[tuple[str, tuple[str, ...]]], *, optional: bool) -> None:
    """A name, a list, a mapping."""
    found, codes = authentication_of(text)
    assert codes == []
    assert found is not None
    assert [(way.name, way.scopes) for way in found.ways] == ways
    assert found.optional is optional


@pytest.mark.parametrize("text", ["", "authentication:", "authentication: none"])
def test_endpoints_for_everybody(text: str) -> None:
    """Left out, null, or said outright."""
    assert authentication_of(text) == (None, [])


@pytest.mark.parametrize(
    "text", ["{}", "[]", "''", "5", "true", "{jwt: true}", "[[jwt]]", "<< env.A >>", "{<< env.A >>: {}}"]
)
def test_what_is_no_authentication_opens_nothing(text: str) -> None:
    """A definition whose authentication is wrong is not served at all."""
    found, codes = authentication_of(f"authentication: {text}")
    assert found is None
    assert codes
