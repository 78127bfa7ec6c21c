"""Redocly's linter accepts the OpenAPI documents of this repository's definitions."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamstack.cli import main
from streamstack.language.openapi.document import VERSIONS
from tests.clients.speaking import CLIENTS
from tests.clients.test_npm import missing


@pytest.mark.parametrize("version", VERSIONS)
def test_redocly_finds_no_error(version: str, tmp_path: Path) -> None:
    """With its recommended rules; what it warns of is how the definitions are written."""
    if missing():
        pytest.skip(missing())
    document = tmp_path / "openapi.json"
    made = CliRunner().invoke(
        main, ["openapi", str(CLIENTS.parent.parent / "definitions"), "--version", version, "--out", str(document)]
    )
    # Channels give messages of any form, and these two endpoints send on the names of their events.
    untyped = [line.strip().partition(":")[0] for line in made.stderr.splitlines() if line.startswith("  ")]
    assert (made.exit_code, untyped) == (0, ["definitions/chat-room.yaml", "definitions/price-board.yaml"])
    command = ["npx", "--no-install", "redocly", "lint", str(document)]
    found = subprocess.run(command, cwd=CLIENTS, capture_output=True, text=True, check=False, timeout=100)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "Your API description is valid" in found.stderr
