"""`streamstack test --update` and `--coverage`: from YAML to what the files and the terminal hold afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streamstack.cli import main
from tests.testing.running import HELLO, write

JSON = """\
---
method: GET
path: /json
responseType: json
inputParameters: {n: {type: integer, minimum: 1}}
functionStack:
  - if: {condition: << input.n == 1 >>, then: [{return: {n: 1}}]}
  - throw: {code: lost, status: 502}
"""
BEFORE = """\
tests:
  - name: says hello   # the greeting
    request: {path: /hello}
    expect:
      status: 201   # not yet
      text: update
      chunks:
        - Hello      # first
        - {content: World, at: 20ms}   # second
        - more
      events: update
      done: {words: 3}
  - name: nothing expected
    request: {path: "/json?n=1"}
  - name: fails
    request: {path: "/json?n=2"}
    expect: {body: {n: 1}}   # c
  - name: refused
    request: {path: "/json?n=0"}
    expect:
  - name: right
    request: {path: /hello, headers: {Accept: text/plain}}
    expect: {text: << value | length == 10 >>, chunks: ['Hello', "World"]}
"""
AFTER = """\
tests:
  - name: says hello   # the greeting
    request: {path: /hello}
    expect:
      status: 200   # not yet
      text: HelloWorld
      chunks:
        - Hello      # first
        - {content: World, at: 50ms}   # second
      events:
        - message
        - word
        - done
      done: {words: 2}
  - name: nothing expected
    request: {path: "/json?n=1"}
    expect:
      status: 200
      body: {n: 1}
  - name: fails
    request: {path: "/json?n=2"}
    expect: {body: {title: Bad Gateway, status: 502, detail: lost, code: lost}, status: 502, ERROR}   # c
  - name: refused
    request: {path: "/json?n=0"}
    expect:
      status: 400
      error: {code: invalid-input, message: n must be at least 1, status: 400}
  - name: right
    request: {path: /hello, headers: {Accept: text/plain}}
    expect: {text: << value | length == 10 >>, chunks: ['Hello', "World"]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with a project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["test", *arguments], catch_exceptions=False)


def test_what_was_observed_is_written(folder: Path) -> None:
    """Expectations that failed or were empty are those that hold now; a second time, nothing changes."""
    file = write(folder, HELLO + JSON, BEFORE)
    result = run("--update")
    after = AFTER.replace("ERROR", "error: {code: lost, message: lost, status: 502}")
    assert file.read_text("utf-8") == after
    assert "api.test.yaml: updated" in result.stdout
    assert "5 tests passed" in result.stdout
    again = run("--update")
    assert "updated" not in again.stdout
    assert (again.exit_code, file.read_text("utf-8")) == (0, after)


def test_only_the_chosen_tests_are_updated(folder: Path) -> None:
    """With a pattern, the others stay as they are."""
    file = write(folder, HELLO + JSON, BEFORE)
    run("--update", "-k", "refused")
    text = file.read_text("utf-8")
    head, mark, tail = BEFORE.partition("  - name: refused\n")
    assert text.startswith(head + mark)
    assert text.endswith(tail.partition("expect:\n")[2])
    assert "status: 400" in text


def test_coverage_of_a_project(folder: Path) -> None:
    """What no test ran is listed, on one process and on several."""
    tests = "tests:\n- {name: a, request: {path: '/json?n=1'}}\n- {name: b, request: {path: /hello}}\n"
    write(folder, HELLO + JSON, tests)
    shown = [run("--coverage", "--coverage-xml", "c.xml", "--jobs", jobs).stdout for jobs in ("1", "2")]
    for each in shown:
        assert "  api.yaml:15:5: throw" in each.splitlines()
        assert "  api.yaml:14:5: if: no branch" in each.splitlines()
        assert "api.yaml                                               5/6       1/2     75 %" in each
    assert 'line number="15" hits="0"' in (folder / "c.xml").read_text("utf-8")
    (folder / "other.yaml").write_text(HELLO.replace("/hello", "/other"), "utf-8")
    assert "other.yaml" in run("--coverage").stdout
    assert "other.yaml" not in run("api.test.yaml", "--coverage").stdout
    assert "other.yaml" in run("--mutate").stdout
    assert "other.yaml" not in run("api.test.yaml", "--mutate").stdout
