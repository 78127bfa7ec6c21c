"""`streamstack tasks`: the list, and one run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streamstack.cli import main

TASKS = """
kind: task
name: nightly
schedule: {cron: 0 2 * * *, timezone: Asia/Tokyo}
functionStack:
  - log: << run.tick >>
---
kind: task
name: fails
schedule: {on: start}
functionStack: [{throw: {code: sold-out}}]
"""


def tasks(folder: Path, *arguments: str) -> Result:
    """Run the command in this process: it must not come to a run, which configures the log."""
    (folder / "tasks.yaml").write_text(TASKS, "utf-8")
    return CliRunner().invoke(main, ["tasks", *arguments, str(folder)])


def test_the_list(tmp_path: Path) -> None:
    """Each task has its schedule and its next run, in columns."""
    result = tasks(tmp_path)
    head, fails, nightly = result.output.splitlines()
    assert (head.split(), result.exit_code) == (["task", "schedule", "next", "last"], 0)
    assert fails.split() == ["fails", "on", "start", "-", "-"]
    assert nightly.startswith("nightly  0 2 * * * Asia/Tokyo  ")
    assert "T17:00:00Z" in nightly


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nightli"], "did you mean `nightly`?"),
        (["run", "nightly", "--at", "noon"], "--at noon is not a timestamp"),
        (["--url", "localhost:8080"], "write it like http://127.0.0.1:8080"),
        (["--url", "http://127.0.0.1:1"], "can't be reached"),
    ],
)
def test_what_is_wrong(tmp_path: Path, arguments: list[str], says: str) -> None:
    """The command says what to write instead."""
    result = tasks(tmp_path, *arguments)
    assert (result.exit_code, says in result.output) == (2, True), result.output


@pytest.mark.parametrize(
    ("name", "code", "says"), [("nightly", 0, '"event":"2026-01-31T08:00:00Z"'), ("fails", 1, '"code":"sold-out"')]
)
def test_a_run(tmp_path: Path, name: str, code: int, says: str) -> None:
    """A run prints its log, and its outcome is the exit code."""
    (tmp_path / "tasks.yaml").write_text(TASKS, "utf-8")
    command = ["tasks", "run", name, str(tmp_path), "--at", "2026-01-31T08:00:00Z"]
    start = "from streamstack.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", start, *command], check=False, capture_output=True, text=True)
    assert (ended.returncode, says in ended.stderr) == (code, True), ended.stderr
