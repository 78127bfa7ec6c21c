"""Tokens, whatever they are: only what was signed is believed, and nothing else happens."""

from __future__ import annotations

import asyncio
import json
import string
import threading
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as some

from streamstack.connections.authentication import own_secret
from streamstack.connections.tokens import (
    Passwords,
    Rules,
    find_keys,
    parse_token,
    read_keys,
    scopes_of,
    secret_key,
    sign,
    verify,
)
from streamstack.errors import RunError
from streamstack.language.authentication import PUBLIC_ALGORITHMS
from tests.server.authenticating import SECRET, claims, part, signed

KEY = secret_key(SECRET, ("HS256",))
JSON = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
REGISTERED = ("exp", "nbf", "iat", "iss", "aud", "sub", "scope", "scopes", "scp", "jti")
HEADERS = ("alg", "kid", "typ", "cty", "crit", "jwk", "jku", "x5c", "b64", "zip", "enc")


def believed(text: str, rules: Rules = Rules()) -> dict[str, Any] | None:  # noqa: B008  (frozen)
    """Return the claims of a token, None where it is refused; anything else is raised."""
    try:
        token = parse_token(text)
        return verify(token, find_keys(token, [KEY]), rules)
    except RunError as error:
        if error.code != "unauthorized":
            raise
        return None


@given(some.text(max_size=200) | some.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}"))
def test_any_text_is_refused_and_breaks_nothing(text: str) -> None:
    """No text without a signature is a token."""
    assert believed(text) is None


@given(
    some.dictionaries(some.sampled_from(HEADERS) | some.text(max_size=4), JSON, max_size=5), some.binary(max_size=40)
)
def test_any_header_is_refused_without_a_signature(header: dict[str, Any], signature: bytes) -> None:
    """Whatever a header says, and whatever stands where the signature should be."""
    text = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims()).encode())}.{part(signature)}"
    assert believed(text) is None


@given(some.dictionaries(some.sampled_from(REGISTERED), JSON, max_size=6))
def test_any_claims_are_understood_or_refused(payload: dict[str, Any]) -> None:
    """Claims of any type, rightly signed, give claims or `unauthorized`: no other error, only texts as scopes."""
    for rules in (Rules(lasting=True), Rules(("a",), ("b",))):
        found = believed(signed(json.dumps(payload).encode()), rules)
        if found is not None:
            assert all(isinstance(scope, str) for scope in found["scopes"])
            assert isinstance(found.get("sub", ""), str)


@given(some.data())
def test_one_changed_letter_is_enough(data: some.DataObject) -> None:
    """A token with one letter exchanged is not believed, unless it still means the same bytes."""
    token = signed()
    at = data.draw(some.integers(0, len(token) - 1))
    letter = data.draw(some.sampled_from(string.ascii_letters + string.digits + "-_."))
    changed = token[:at] + letter + token[at + 1 :]
    # The last letter of a signature holds four bits, and two that mean nothing.
    if changed != token and at < len(token) - 1:
        assert believed(changed) is None


@given(some.binary(max_size=300) | JSON.map(lambda value: json.dumps({"keys": [value]}).encode()))
def test_any_key_set_is_read_or_refused(data: bytes) -> None:
    """What is published elsewhere never breaks us."""
    try:
        keys = read_keys(data, PUBLIC_ALGORITHMS)
    except ValueError:
        return
    assert keys == ()


@pytest.mark.parametrize("kind", ["RSA", "EC", "OKP", "oct"])
@given(
    some.dictionaries(
        some.sampled_from(("n", "e", "crv", "x", "y", "k", "alg", "use", "kid", "key_ops")),
        JSON | some.sampled_from(("P-256", "Ed25519", "AQAB", "AAAA", "verify")),
    )
)
def test_any_key_is_read_or_passed_over(kind: str, parts: dict[str, Any]) -> None:
    """Each key of a set, whatever its parts hold."""
    assert read_keys(json.dumps({"keys": [{"kty": kind} | parts]}).encode(), PUBLIC_ALGORITHMS) == ()


@given(some.dictionaries(some.text(max_size=8), JSON, max_size=4))
def test_what_is_signed_is_believed(extra: dict[str, Any]) -> None:
    """Claims come back as they were signed."""
    payload = {name: value for name, value in extra.items() if name not in REGISTERED} | claims()
    found = believed(sign(payload, KEY, "HS256"))
    assert found is not None
    assert found["sub"] == "ada"
    assert found.keys() == payload.keys() | {"scopes"}


def test_scopes_are_put_together() -> None:
    """Each once, in the order of `scope`, `scopes`, `scp`; what is not a text is none."""
    assert scopes_of({"scope": "a  b", "scopes": ["b", "c", 1, None], "scp": "d"}) == ["a", "b", "c", "d"]
    assert scopes_of({"scope": 7, "scp": {"a": 1}}) == []


def test_a_secret_of_its_own_is_made_once(tmp_path: Path) -> None:
    """However many ask at once, all have the same; what is not a secret is refused."""
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(own_secret(tmp_path, "jwt"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [each.name for each in (tmp_path / "secrets").iterdir()] == ["jwt"]
    # Else it would be published with the project.
    assert (tmp_path / ".gitignore").read_text() == "*\n"
    (tmp_path / "secrets" / "jwt").write_text("short\n")
    with pytest.raises(RunError, match="delete it"):
        own_secret(tmp_path, "jwt")
    (tmp_path / "secrets" / "folder").mkdir()
    with pytest.raises(RunError, match="can't be stored"):
        own_secret(tmp_path, "folder")


async def test_passwords() -> None:
    """Salted, checked against their own hash only, and the loop goes on meanwhile."""
    passwords = Passwords()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    first, second = await asyncio.gather(passwords.hash("pa\u00dfwort"), passwords.hash("pa\u00dfwort"))
    assert first != second
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify("pa\u00dfwort", first)
    assert not await passwords.verify("passwort", first)
    assert not await passwords.verify("", second)
    assert not await passwords.verify("anything", None)
    for wrong in ("", "plain", "$2b$12$abc", first.replace("m=19456", "m=9999999"), first + "="):
        with pytest.raises(RunError) as refused:
            await passwords.verify("x", wrong)
        assert refused.value.code == "template"
    with pytest.raises(RunError) as long:
        await passwords.hash("x" * 5000)
    assert long.value.code == "invalid-input"
    turning.cancel()
    await passwords.aclose()
    assert turns > 20


async def test_hashes_from_elsewhere() -> None:
    """Hashes of other costs and other libraries are verified; dear ones and other kinds are refused."""
    passwords = Passwords()
    made_by_cryptography = (
        "$argon2id$v=19$m=19456,t=2,p=1$EA1tSS74wNUfZhRdI093pw$ov+yQqS5rCFXlk7lLvBsfbVsHa49Pa64F09SAiqomik"
    )
    assert await passwords.verify("ada", made_by_cryptography)
    assert not await passwords.verify("Ada", made_by_cryptography)
    assert await passwords.verify("ada", PasswordHasher(2, 64, 2, 16, 8).hash("ada"))
    refused_hashes = (
        "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQxMjM0NTY$",
        "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQxMjM0NTY$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$argon2id$v=19$m=19456,t=99,p=1$c29tZXNhbHQxMjM0NTY$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    )
    for hashed in refused_hashes:
        with pytest.raises(RunError) as refused:
            await passwords.verify("ada", hashed)
        assert refused.value.code == "template"
    await passwords.aclose()
