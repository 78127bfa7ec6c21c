"""`streamstack test`: what it prints, how it ends, and the files that it writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from streamstack.cli import main
from tests.cli.calling import ENGINE
from tests.testing.running import HELLO, write

PASSES = "  - name: greets\n    request: {path: /hello}\n    expect: {text: HelloWorld}\n"
FAILS = """\
  - name: greets someone else
    request: {path: /hello}
    expect:
      status: 200
      chunks: [Hello, {content: Moon, at: 50ms}]
"""
BREAKS = "  - name: breaks\n    request: {path: /breaks}\n"
API = (
    HELLO
    + """\
---
method: GET
path: /breaks
responseType: streaming
inputParameters: {n: {type: integer, default: 0}}
functionStack:
  - stream: << 1 / input.n >>
"""
)


def invoke(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["test", *map(str, arguments)])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a project with a test that passes and two that fail."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, API, f"tests:\n{PASSES}{FAILS}{BREAKS}")
    return tmp_path


def test_failures_are_shown_as_a_difference(here: Path) -> None:
    """Failures have the line of the expectation, the chunks that differ, and the definition's line."""
    result = invoke()
    assert result.exit_code == 1
    shown, _, summary = result.stdout.rpartition("\n\n")
    assert shown == (
        "api.test.yaml:5:5: FAILED greets someone else\n"
        '  api.test.yaml:9:24: `chunks`: chunk 1 differs: expected "Moon", received "World"\n'
        '      "Hello"\n'
        '    - {"content":"Moon","at":0.05}\n'
        '    + {"content":"World","at":0.05}\n'
        "\n"
        "api.test.yaml:10:5: FAILED breaks\n"
        "  api.test.yaml:10:5: status 500 was answered: template: The server could not complete this request.\n"
        "    at api.yaml:14:13: step `stream`: template: division by zero"
    )
    assert summary.startswith("1 test passed, 2 failed in ")


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        (["-k", "GREETS", "-k", "greets someone"], 1, "0 tests passed, 1 failed"),
        (["api.yaml", "-k", "/breaks"], 1, "0 tests passed, 1 failed"),
        (["api.test.yaml", "--jobs", "3"], 1, "1 test passed, 2 failed"),
        (["-k", "nothing"], 0, "0 tests passed in"),
        (["none"], 2, "none: no such file or folder"),
        (["--database", "postgresql://app@127.0.0.1:1/x", "-k", "greets"], 1, "1 test passed, 1 failed"),
    ],
)
def test_tests_are_chosen(here: Path, arguments: list[str], code: int, output: str) -> None:
    """Files, a text in names and paths, and the number of processes choose what is run, and how."""
    result = invoke(*arguments)
    assert result.exit_code == code
    assert output in result.output


def test_errors_are_shown_as_validate_does(here: Path) -> None:
    """Nothing is run where a definition or a test has an error; a folder without tests says how to write one."""
    (here / "api.test.yaml").write_text("tests:\n  - name: x\n    reqest: {path: /hello}\n", "utf-8")
    result = invoke()
    assert result.exit_code == 1
    assert "api.test.yaml:3:5: error: unknown-key: " in result.stdout
    (here / "api.test.yaml").unlink()
    result = invoke()
    assert (result.exit_code, "no tests found in ." in result.stderr) == (2, True)


def test_junit(here: Path) -> None:
    """--junit writes one test case for each test, with the failure's text; control characters are replaced."""
    test = '  - name: rings\n    request: {path: /hello}\n    expect: {text: "\\a"}\n'
    (here / "api.test.yaml").write_text(f"tests:\n{PASSES}{test}", "utf-8")
    assert invoke("--junit", "results.xml").exit_code == 1
    root = ET.parse(here / "results.xml").getroot()  # noqa: S314  (our own)
    (suite,) = root
    assert suite.attrib.items() >= {"name": "api.test.yaml", "tests": "2", "failures": "1"}.items()
    passed, failed = suite
    assert (passed.get("name"), len(passed), failed.get("line")) == ("greets", 0, "5")
    assert failed[0].get("message") == "`text` differs"
    assert invoke("--junit", "no/such/results.xml").exit_code == 2


def test_fifty_repeats_without_a_flake(here: Path) -> None:
    """Tests that stream, wait, leave and call give the same result each time."""
    definitions = """\
method: POST
path: /all
responseType: streaming
functionStack:
  - after: {do: [{log: << run.outcome >>}]}
  - http.stream: https://words.example.org/
    as: words
  - forEach: {in: << words >>, as: word, do: [{stream: {content: << word.data >>, delay: 10ms}}]}
"""
    tests = """\
upstreams: [{url: 'https://words.example.org/', respond: {events: [a, b, c], delay: 25ms}}]
tests:
"""
    for number in range(50):
        leave = "    client: {leaveAfter: 2}\n" if number % 2 else ""
        outcome = "cancelled" if number % 2 else "completed"
        chunks = "[{content: a, at: 25ms}, {content: b, at: 50ms}" + (
            "]" if number % 2 else ", {content: c, at: 75ms}]"
        )
        tests += (
            f"  - name: number {number}\n    request: {{method: POST, path: /all}}\n{leave}"
            f"    expect: {{chunks: {chunks}, outcome: {outcome}, streamed: true, log: [{outcome}]}}\n"
        )
    write(here, definitions, tests)
    result = invoke("--jobs", "2")
    assert result.stdout.startswith("50 tests passed in "), result.stdout


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Run the command in a process and a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from streamstack.cli import main; main()", "test", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ENGINE)},
        text=True,
        start_new_session=True,
    )


def test_interrupt_ends_cleanly(here: Path) -> None:
    """Ctrl-C ends all processes at once, without a traceback; the database server and its folder are gone."""
    slow = (
        "  - name: slow {}\n    request: {{path: '/slow'}}\n    time: real\n"
        "    expect: {{database: {{sql: SELECT 1 AS n, rows: [{{n: 1}}]}}}}\n"
    )
    definitions = (
        "method: GET\npath: /slow\nresponseType: streaming\n"
        "functionStack: [{db.query: SELECT 1, as: rows}, {stream: x}, {stream: {content: y, delay: 5s}}]\n"
    )
    write(here, definitions, "tests:\n" + "".join(slow.format(number) for number in range(20)))
    process = start(here, "--jobs", "2")
    deadline = time.monotonic() + 30
    while len(children := _children(process.pid)) < 3:  # PostgreSQL and two workers
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert [each for each in children if Path(f"/proc/{each}").exists()] == []


def _children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def test_watch_runs_again(here: Path) -> None:
    """--watch runs the tests again when a file changes, until it is interrupted."""
    (here / "api.test.yaml").write_text(f"tests:\n{FAILS}", "utf-8")
    process = start(here, "--watch")
    assert process.stderr is not None
    assert process.stderr.readline() == "waiting for changes; Ctrl-C ends\n"
    (here / "api.test.yaml").write_text(f"tests:\n{PASSES}", "utf-8")
    assert process.stderr.readline() == "waiting for changes; Ctrl-C ends\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "0 tests passed, 1 failed" in output
    assert "1 test passed in" in output
