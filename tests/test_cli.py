"""The command as it is typed."""

from __future__ import annotations

from click.testing import CliRunner

from streamstack import __version__
from streamstack.cli import main


def test_version_is_told() -> None:
    """`streamstack --version` tells the version of the package."""
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"streamstack, version {__version__}\n"
