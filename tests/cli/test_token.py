"""`streamstack token`: what it makes, and that endpoints take it."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from joserfc.jwk import ECKey, RSAKey

from streamstack.cli import main
from tests.server.authenticating import SECRET, WHO, bearer, project, told

SETTINGS = """
authentication:
  jwt: {type: jwt, secret: << env.JWT_SECRET >>, issuer: [me, you], audience: api}
  keys: {type: apiKey, keys: [<< env.API_KEY | default("") >>]}
  theirs: {type: jwt, publicKey: theirs.pem}
"""
KEY = ECKey.generate_key("P-256")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with three authentications, and the secret in the environment."""
    monkeypatch.setenv("JWT_SECRET", SECRET)
    (tmp_path / "streamstack.yaml").write_text(SETTINGS)
    (tmp_path / "theirs.pem").write_text(KEY.as_pem(private=False).decode())
    (tmp_path / "private.pem").write_text(KEY.as_pem(private=True).decode())
    return tmp_path


def token(folder: Path, *arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["token", "--dir", str(folder), *arguments])


def payload(result: Result) -> dict[str, Any]:
    """Return the claims of what was printed."""
    assert result.exit_code == 0, result.output
    part = result.stdout.strip().split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=="))
    return claims


def test_claims_are_json_where_they_are_json(folder: Path) -> None:
    """And text where they are not; the subject always is."""
    result = token(
        folder, "--auth", "jwt", "--claim", "sub=7", "--claim", "plan=pro", "--claim", "n=3",
        "--claim", 'roles=["a"]', "--scope", "chat", "--scope", "read", "--expires", "10m",
    )  # fmt: skip
    claims = payload(result)
    assert claims["exp"] - claims["iat"] == 600
    del claims["exp"], claims["iat"]
    assert claims == {
        "sub": "7", "plan": "pro", "n": 3, "roles": ["a"], "scope": "chat read", "iss": "me", "aud": "api",
    }  # fmt: skip


async def test_an_endpoint_takes_it(folder: Path) -> None:
    """What is printed, and nothing beside it, is the token."""
    made = token(folder, "--auth", "jwt", "--claim", "sub=u1").stdout.strip()
    forged = token(folder, "--auth", "jwt", "--claim", "sub=u1", "--claim", "exp=1").stdout.strip()
    settings = SETTINGS.replace("theirs.pem", str(folder / "theirs.pem"))
    async with project(folder, settings) as server:
        reply = await server.get("/who", **bearer(made))
        expired = await server.get("/who", **bearer(forged))
    assert (reply.status, told(reply.body)["sub"]) == (200, "u1")
    assert expired.status == 401


async def test_a_private_key_signs_where_the_settings_have_the_public_one(folder: Path) -> None:
    """Without it the command says what is missing; with another kind of key it says that too."""
    lacking = token(folder, "--auth", "theirs")
    made = token(folder, "--auth", "theirs", "--key", str(folder / "private.pem")).stdout.strip()
    (folder / "rsa.pem").write_text(RSAKey.generate_key(2048).as_pem(private=True).decode())
    other = token(folder, "--auth", "theirs", "--key", str(folder / "rsa.pem"))
    public = token(folder, "--auth", "theirs", "--key", str(folder / "theirs.pem"))
    definition = WHO.replace("authentication: jwt", "authentication: theirs")
    async with project(folder, SETTINGS, definition) as server:
        reply = await server.get("/who", **bearer(made))
    assert reply.status == 200
    assert (lacking.exit_code, other.exit_code, public.exit_code) == (2, 2, 2)
    assert "--key FILE" in lacking.stderr
    assert "takes ES256" in other.stderr
    assert "private key" in public.stderr


async def test_an_api_key_is_made_with_its_hash(folder: Path) -> None:
    """The key alone on the standard output; what the file holds of it beside."""
    result = token(folder, "--auth", "keys")
    key, hashed = result.stdout.strip(), result.stderr.strip().split()[-1]
    settings = f"authentication:\n  jwt: {{type: apiKey, keys: ['{hashed}']}}\n"
    async with project(folder, settings) as server:
        reply = await server.get("/who", X_API_Key=key)
    assert hashed.startswith("sha256:")
    assert reply.status == 200


async def test_the_first_api_key_comes_with_its_settings(tmp_path: Path) -> None:
    """The lines that are printed are all that a project without keys needs; nothing must be there before."""
    result = token(tmp_path, "--new", "partners")
    lines = result.stderr.partition("streamstack.yaml:")[2].partition("and to each endpoint")[0]
    definition = WHO.replace("authentication: jwt", result.stderr.strip().splitlines()[-1])
    async with project(tmp_path, lines, definition) as server:
        reply = await server.get("/who", X_API_Key=result.stdout.strip())
        refused = await server.get("/who", X_API_Key="another")
    assert (reply.status, refused.status) == (200, 401)
    assert token(tmp_path, "--new", "none").exit_code == 2
    for settings in ("server: {port: 1}\n", "authentication: {partners: {type: apiKey, keys: []}}\n"):
        (tmp_path / "streamstack.yaml").write_text(settings)
        assert "`streamstack token --new " in token(tmp_path).stderr


def test_what_can_not_be_made_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to write instead, and never with the secret."""
    for arguments, words in (
        ((), "say which with --auth: jwt, keys, theirs"),
        (("--auth", "jtw"), "did you mean `jwt`"),
        (("--auth", "jwt", "--claim", "sub"), "name=value"),
        (("--auth", "jwt", "--expires", "soon"), "write a duration like"),
    ):
        result = token(folder, *arguments)
        assert result.exit_code == 2
        assert words in result.stderr
        assert SECRET not in result.output
    monkeypatch.delenv("JWT_SECRET")
    result = token(folder, "--auth", "jwt")
    assert result.exit_code == 2
    assert "JWT_SECRET is not set" in result.stderr
    (folder / "streamstack.yaml").write_text("server: {port: 1}\n")
    assert "no `authentication`" in token(folder).stderr


def test_the_only_one_needs_no_name(tmp_path: Path) -> None:
    """And one without a secret is given one, which stays."""
    (tmp_path / "streamstack.yaml").write_text('authentication: {jwt: {type: jwt, secret: ""}}\n')
    first = payload(token(tmp_path, "--claim", "sub=u1"))
    kept = (tmp_path / ".streamstack" / "secrets" / "jwt").read_text()
    second = payload(token(tmp_path, "--claim", "sub=u1"))
    assert first["sub"] == second["sub"] == "u1"
    assert (tmp_path / ".streamstack" / "secrets" / "jwt").read_text() == kept
