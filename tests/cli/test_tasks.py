"""`streamstack tasks`: the list, and one run."""

from __future__ import annotations

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
    ("arguments", "code", "says"),
    [
        (["run", "nightly", "--at", "2026-01-31T08:00:00Z"], 0, "2026-01-31T08:00:00Z"),
        (["run", "fails"], 1, "sold-out"),
        (["run", "nightli"], 2, "did you mean `nightly`?"),
        (["run", "nightly", "--at", "noon"], 2, "--at noon is not a timestamp"),
        (["--url", "localhost:8080"], 2, "write it like http://127.0.0.1:8080"),
        (["--url", "http://127.0.0.1:1"], 2, "can't be reached"),
    ],
)
def test_a_run(tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str) -> None:
    """A run prints its log and ends with an exit code; what is wrong says what to write instead."""
    result = tasks(tmp_path, *arguments)
    assert result.exit_code == code, result.output
    assert says in result.output + "".join(capfd.readouterr())
