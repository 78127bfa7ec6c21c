"""The command as it is typed."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest
from click.testing import CliRunner, Result

from streamstack import __version__
from streamstack.cli import COMMANDS, FIRST_FILE, main


def run(*arguments: str) -> Result:
    """Run the command line."""
    return CliRunner().invoke(main, arguments)


def test_version_is_told() -> None:
    """`streamstack --version` tells the version of the package."""
    result = run("--version")
    assert result.exit_code == 0
    assert result.output == f"streamstack, version {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("run", "serve"),
        ("start", "serve"),
        ("dev", "serve --dev --reload"),
        ("check", "validate"),
        ("lint", "validate"),
        ("serv", "serve"),
        ("valdiate", "validate"),
        ("vaildate", "validate"),
        ("Call", "call"),
        ("tokens", "token"),
        ("schemas", "schema"),
        ("strat", "serve"),
        ("new", "init"),
        ("create", "init"),
        ("scaffold", "init"),
    ],
)
def test_unknown_command_leads_to_the_right_one(typed: str, meant: str) -> None:
    """Names that other tools use, and typos."""
    result = run(typed)
    assert result.exit_code == 2
    assert f"no such command `{typed}`: did you mean `streamstack {meant}`?" in result.stderr


def test_unknown_command_without_a_likeness_lists_all() -> None:
    """Nothing is guessed where nothing is near; a path is recognised."""
    assert f"there are {', '.join(COMMANDS)}" in run("zzz").stderr
    assert "write `streamstack serve a.yaml` or `streamstack validate a.yaml`" in run("a.yaml").stderr


def test_help_is_a_command() -> None:
    """`help` shows the help, `help call` that of a command."""
    assert run("help").stdout == run("--help").stdout
    assert run("help", "call").stdout == run("call", "--help").stdout
    assert run("help").exit_code == 0
    listed = run("--help").stdout
    assert all(re.search(rf"^  {each} ", listed, re.MULTILINE) for each in COMMANDS)


@pytest.mark.parametrize("command", ["serve", "validate"])
def test_empty_folder_says_what_to_write(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says to write is a project without findings."""
    monkeypatch.chdir(tmp_path)
    result = run(command)
    assert result.exit_code == 2
    assert FIRST_FILE in result.stderr
    text = dedent(FIRST_FILE.partition(":\n\n")[2].partition("\n\nThen")[0])
    (tmp_path / "definitions").mkdir()
    (tmp_path / "definitions" / "hello.yaml").write_text(text)
    assert run("validate", "--strict").exit_code == 0
    called = run("call", "GET", "/hello")
    assert called.exit_code == 0
    assert '"World"' in called.stdout


def test_full_url_that_can_not_be_called() -> None:
    """`call` takes a full URL in place of a path, not beside --url."""
    result = run("call", "GET", "http://localhost:1/a", "--url", "http://localhost:2")
    assert "give a full URL, or a path and --url" in result.stderr
    result = run("call", "GET", "http://127.0.0.1:1/a")
    assert "http://127.0.0.1:1 does not answer: " in result.stderr


@pytest.mark.parametrize("port", ["abc", "80.5", "99999", "-1", ""])
def test_variable_that_is_no_port_is_explained(port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable, and what it should hold; its value may be a secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", port)
    (tmp_path / "streamstack.yaml").write_text("server:\n  port: << env.PORT | default(8080) >>\n")
    (tmp_path / "a.yaml").write_text("method: GET\npath: /a\nfunctionStack: [{stream: a}]\n")
    result = run("serve")
    assert result.exit_code == 1
    assert "`server.port`: must be an integer from 0 to 65535" in result.stderr
    assert "the value is that of the environment variable PORT: change it, or unset it" in result.stderr
