"""Definitions that are right, and definitions in which every finding is the one expected.

`STREAMSTACK_WRITE_EXPECTED=1 pytest tests/language/test_cases.py` writes the `.expected` files again:
read what changed before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamstack.errors import Diagnostic
from streamstack.functions import REGISTRY
from streamstack.language.analysis.cases import check_cases
from streamstack.language.findings import FINDINGS
from streamstack.language.project import validate
from streamstack.language.settings import Streaming, load_settings
from streamstack.language.test_files import read_test_file

CASES = Path(__file__).parent.parent / "cases"
VALID = sorted((CASES / "valid").glob("*.yaml"))
INVALID = sorted((CASES / "invalid").glob("*.yaml"))

#: Codes whose cases are not files of YAML, and where they are shown.
ELSEWHERE = {
    "file-too-large": "test_source.py: it takes a large file",
    "unknown-table": "connections/database/test_statements.py: a database has to say so",
    "unknown-column": "connections/database/test_statements.py: a database has to say so",
    "bad-url": "test_state_settings.py: it is of the settings",
    "bad-plugin": "functions/test_plugins.py: it is of a file of Python",
    "bad-sql": "connections/database/test_statements.py: a database has to say so",
}
#: What the tests of `*.test.yaml` ask for.
TESTED = """
method: POST
path: /api/orders/{id}
authentication: jwt
streaming: {resume: true}
inputParameters: {id: integer}
functionStack:
  - precondition: {that: << input.id > 3 >>, code: too-few}
  - stream: << env.OPENAI_API_KEY >>
---
method: GET
path: /api/items
responseType: json
functionStack: [{return: 1}]
---
method: GET
path: /api/ticks
functionStack: [{stream: 1}]
"""
#: What the settings of every case hold.
CONFIGURED = {
    "models": ("chat", "small"),
    "databases": ("main", "archive"),
    "authentication": ("jwt", "keys"),
    "experiments": ("chunkSize", "byUser", "bySubject"),
}
EXPERIMENTS = load_settings(
    """
experiments:
  chunkSize: {variants: {small: {size: 5}, large: {size: 20}}}
  byUser: {by: << input.userId >>, variants: {a: {}, b: {}}}
  bySubject: {by: << auth.sub >>, variants: {a: {}, b: {}}}
""",
    "streamstack.yaml",
    {},
)[0].experiments
WRITE = "STREAMSTACK_WRITE_EXPECTED" in os.environ


def findings_of(path: Path) -> list[Diagnostic]:
    """Validate one file as a project of its own, or the tests of `TESTED`, in an environment without variables."""
    text = path.read_text("utf-8")
    if path.stem.startswith("settings"):
        return load_settings(text, path.name, {}, check_environment=True)[1]
    if path.name.endswith(".test.yaml"):
        project, wrong = validate({"tested.yaml": TESTED}, REGISTRY, Streaming(), None, CONFIGURED)
        file, found = read_test_file(path, path.name, text)
        return sorted({*wrong, *found, *check_cases(file, project, CONFIGURED, EXPERIMENTS)})
    return validate({path.name: text}, REGISTRY, Streaming(), {}, CONFIGURED, experiments=EXPERIMENTS)[1]


def write(findings: list[Diagnostic]) -> str:
    """Return findings as the `.expected` files hold them."""
    return "".join(f"{each.line}:{each.column} {each.severity} {each.code} {each.message}\n" for each in findings)


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid_case_has_no_findings(path: Path) -> None:
    """A definition that is right is let alone."""
    assert write(findings_of(path)) == ""


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_invalid_case_has_the_findings_expected(path: Path) -> None:
    """Every fault of a definition is found in one go, at its place, with its words."""
    expected = path.with_suffix(".expected")
    found = write(findings_of(path))
    if WRITE:
        expected.write_text(found, "utf-8")
    assert found == expected.read_text("utf-8")


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_case_of_a_code_has_it(path: Path) -> None:
    """A case that is called after a code shows that code."""
    if path.stem in FINDINGS:
        assert path.stem in {finding.code for finding in findings_of(path)}


def test_every_finding_has_a_case() -> None:
    """Each code that exists is shown by a case, but for those that other tests have to show."""
    shown = {finding.code for path in INVALID for finding in findings_of(path)}
    assert sorted(set(FINDINGS) - shown) == sorted(ELSEWHERE)


def test_every_finding_says_what_to_write() -> None:
    """No finding leaves its author without a hint; what does not parse says it in its message."""
    for path in INVALID:
        for finding in findings_of(path):
            assert finding.hint or finding.code == "bad-template", f"{finding.mark}: {finding.code}: {finding.message}"
