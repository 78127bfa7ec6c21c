"""Tests of definitions, as tests run them: from YAML to results, in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from streamstack.testing.report import failure_lines
from streamstack.testing.suite import Result, open_session, read_suite, run_suite

#: A small project: what most tests of the runner call.
HELLO = """\
method: GET
path: /hello
responseType: streaming
functionStack:
  - stream: Hello
  - stream: {content: World, event: word, metadata: {n: 2}, delay: 50ms}
  - done: {metadata: {words: 2}}
"""


def write(folder: Path, definitions: str, tests: str, files: Mapping[str, str] = {}) -> Path:
    """Write a project; return its file of tests."""
    (folder / "api.yaml").write_text(definitions, "utf-8")
    (folder / "api.test.yaml").write_text(tests, "utf-8")
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    return folder / "api.test.yaml"


def run(folder: Path, definitions: str, tests: str, files: Mapping[str, str] = {}) -> list[Result]:
    """Run the tests of a project that is written into a folder. It has no findings that are errors."""
    suite = read_suite([write(folder, definitions, tests, files)])
    assert not suite.failed, suite.findings
    with open_session(suite, None) as session:
        return list(run_suite(suite, session, 1))


def run_one(folder: Path, definitions: str, test: str, files: Mapping[str, str] = {}) -> str:
    """Run one test, written without its name; return its failures without their places, "" where it passes."""
    body = "\n".join(f"    {line}" for line in test.strip().split("\n"))
    (result,) = run(folder, definitions, f"tests:\n  - name: it\n{body}\n", files)
    return failures(result)


def failures(result: Result) -> str:
    """Return the failures of a result, without the places of its test file."""
    lines: Sequence[str] = [line for each in result.failures for line in failure_lines(each)]
    return "\n".join(line.partition(": ")[2] if "api.test.yaml:" in line else line for line in lines)


def flow(value: object) -> str:
    """Return a value as YAML on one line."""
    return str(yaml.safe_dump(value, default_flow_style=True, width=10_000)).removesuffix("...\n").strip()
