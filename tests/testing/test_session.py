"""What the tests of one project share."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamstack.testing.suite import read_suite
from tests.testing.running import write

API = """\
method: POST
path: /items
responseType: json
inputParameters: {name: {type: text}}
functionStack:
  - %s
response: {}
---
kind: function
name: outer
functionStack:
  - call: save
---
kind: function
name: save
functionStack:
  - db.query: SELECT 1
---
kind: function
name: harmless
functionStack:
  - set: {n: 1}
"""
TESTS = "tests: [{name: it, request: {method: POST, path: /items, body: {name: save}}}]\n"
SETTINGS = {"streamstack.yaml": "databases: {main: {url: 'postgresql://app@db.invalid/production'}}\n"}


@pytest.mark.parametrize(
    ("step", "uses"),
    [
        ("db.query: SELECT 1", True),
        ("call: save", True),
        ("call: {function: save}", True),
        ("call: {function: << input.name >>, oneOf: [harmless, save]}", True),
        ("call: outer", True),
        ("http.request: {url: 'https://api.example.org'}", True),
        ("call: harmless", False),
        ("call: {function: << input.name >>, oneOf: [harmless]}", False),
    ],
)
def test_database_of_called_functions_is_used(tmp_path: Path, step: str, *, uses: bool) -> None:
    """A test uses a database if a step of its endpoint, or of a function that it calls, does or may do so."""
    suite = read_suite([write(tmp_path, API % step, TESTS, SETTINGS)])
    assert not suite.failed, suite.findings
    (test,) = suite.tests
    assert test.project.may_use_database(test.case) is uses
