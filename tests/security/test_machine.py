"""The machine and those who share it: files that are secret, addresses that are not for everybody."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from streamstack.connections.authentication import own_secret
from streamstack.connections.database.embedded import make_folder
from streamstack.server.sockets import is_loopback
from tests.server.authenticating import project
from tests.server.processes import start

HELLO = "{method: GET, path: /hello, functionStack: [{stream: Hello}]}"
OPEN = 0o700


def mode(path: Path) -> int:
    """Return who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_secret_that_others_can_read_is_closed(tmp_path: Path) -> None:
    """It is logged once; the secret stays what it was."""
    folder = tmp_path / "a" / ".streamstack"
    secret = own_secret(folder, "jwt")
    file = folder / "secrets" / "jwt"
    assert (mode(file), mode(file.parent), mode(folder)) == (0o600, 0o700, OPEN)
    file.chmod(0o644)
    with capture_logs() as logged:
        assert own_secret(folder, "jwt") == secret
        assert own_secret(folder, "jwt") == secret
    assert mode(file) == 0o600
    assert [(each["event"], each["mode"]) for each in logged] == [("secret-was-open", "644")]
    assert secret not in str(logged)


def test_folder_of_the_project_is_closed(tmp_path: Path) -> None:
    """Others may not look into it, whichever part makes it first."""
    make_folder(tmp_path / "b" / ".streamstack")
    assert mode(tmp_path / "b" / ".streamstack") == OPEN


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.0.0.53", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.0.2.1", False),
    ],
)
def test_loopback(host: str, alone: bool) -> None:  # noqa: FBT001 (a column of the table)
    """Whether only this machine reaches an address."""
    assert is_loopback(host) is alone


@pytest.mark.parametrize(("host", "warned"), [("0.0.0.0", True), ("127.0.0.1", False)])
async def test_dev_for_everybody_is_warned_of(tmp_path: Path, host: str, warned: bool) -> None:  # noqa: FBT001 (a column)
    """`--dev` on an address that others reach tells so before it serves."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    process = await start(str(tmp_path), "--port", "0", "--dev", "--host", host)
    assert process.stderr is not None
    said = ""
    try:
        while "serving 1 endpoint" not in said:
            line = await asyncio.wait_for(process.stderr.readline(), 60)
            assert line, said
            said += line.decode()
    finally:
        process.terminate()
        await process.communicate()
    assert ("the internals of the project" in said) is warned


async def test_no_sniffing(tmp_path: Path) -> None:
    """Every answer says that its type is what it says; an endpoint may say otherwise."""
    own = "\n---\n{method: GET, path: /own, headers: {X-Content-Type-Options: x}, functionStack: [{stream: Hello}]}"
    async with project(tmp_path, "", HELLO + own) as server:
        for path in ("/hello", "/nowhere", "/hello?x=%ff"):
            reply = await server.get(path, Accept="text/plain")
            assert reply.headers["x-content-type-options"] == "nosniff", path
        assert (await server.get("/own")).headers["x-content-type-options"] == "x"


@pytest.mark.parametrize("path", ["/_metrics", "/_console", "/_", "/_streams", "/_streams/x", "/_settings"])
async def test_inside_is_not_for_everybody(tmp_path: Path, path: str) -> None:
    """Without `--dev` and without settings that say so, nothing below `/_` reveals internals."""
    async with project(tmp_path, "", HELLO) as server:
        reply = await server.get(path)
    assert reply.status in (403, 404)
    assert b"hello" not in reply.body
