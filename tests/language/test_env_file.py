"""The `.env` file beside streamstack.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamstack.functions import REGISTRY
from streamstack.language.environment import read_env_file
from streamstack.language.findings import write_text
from streamstack.language.project import Checked, read_project


def read(text: str, folder: Path) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """Return the variables of a text, and line and code of what is wrong with it."""
    file = folder / ".env"
    file.write_text(text, "utf-8")
    variables, findings = read_env_file(file, ".env")
    return variables, [(each.line, each.code) for each in findings]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB = two words \n", {"A": "1", "B": "two words"}),
        ("# a comment\n\nexport A=1 # another\n", {"A": "1"}),
        ("A='x # y'\nB=\"two\\nlines\"\nC='no\\nescape'", {"A": "x # y", "B": "two\nlines", "C": "no\\nescape"}),
        ('KEY="-----BEGIN\nabc\n-----END"\nA=1', {"KEY": "-----BEGIN\nabc\n-----END", "A": "1"}),
        ("A=\nB=''", {"A": "", "B": ""}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1", {"A": "1"}),
        ("A=1\nA=2", {"A": "2"}),
        ("A=$HOME ${B}", {"A": "$HOME ${B}"}),
        ("", {}),
    ],
)
def test_what_a_file_may_hold(text: str, expected: dict[str, str], tmp_path: Path) -> None:
    """Names and values, with and without quotes, over several lines, and comments; nothing is put into them."""
    assert read(text, tmp_path) == (expected, [])


@pytest.mark.parametrize("text", ["A=1\nwhat is this\nB=2", "A=1\nNAME\nB=2", "A=1\n'open\nB=2"])
def test_a_line_that_is_no_variable_is_found(text: str, tmp_path: Path) -> None:
    """It is reported with its line; the others count."""
    variables, findings = read(text, tmp_path)
    assert findings[0] == (2, "bad-setting")
    assert variables["A"] == "1"


def test_what_is_not_text_is_found(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are reported, without their content."""
    (tmp_path / ".env").write_bytes(b"A=\xff")
    variables, findings = read_env_file(tmp_path / ".env", ".env")
    assert variables == {}
    assert [each.message for each in findings] == ["This file is not UTF-8 text."]
    assert read_env_file(tmp_path / "nowhere", ".env") == ({}, [])


SETTINGS = "settings: {word: << env.WORD >>, other: << env.OTHER >>}"


def project(folder: Path, environment: dict[str, str]) -> Checked:
    """Read a project whose definitions lie below its settings."""
    (folder / "definitions").mkdir(exist_ok=True)
    return read_project(folder / "definitions", REGISTRY, environment, check_environment=True)


def test_the_environment_wins(tmp_path: Path) -> None:
    """The file beside the settings is read, wherever the definitions lie; what the process has counts before it."""
    (tmp_path / "streamstack.yaml").write_text(SETTINGS)
    (tmp_path / ".env").write_text("WORD=file\nOTHER=file\n")
    checked = project(tmp_path, {"OTHER": "process"})
    assert checked.findings == []
    assert checked.settings.settings == {"word": "file", "other": "process"}
    assert checked.environment == {"WORD": "file", "OTHER": "process"}
    assert "file" not in repr(checked.environment.keys())


def test_a_secret_of_the_file_is_not_shown(tmp_path: Path) -> None:
    """A finding names the line, but not what stands in it."""
    (tmp_path / "streamstack.yaml").write_text(SETTINGS)
    (tmp_path / ".env").write_text("WORD=1\nOTHER=1\npassword: hunter-two\n")
    checked = project(tmp_path, {})
    text = write_text(checked.findings, checked.sources)
    assert ".env:3:1" in text
    assert "NAME=value" in text
    assert "hunter" not in text
