"""`streamstack openapi`: the document, what is not known, and the comparison with an earlier one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streamstack.cli import main
from streamstack.language.nodes import plain
from streamstack.language.source import read

ENDPOINT = """
method: GET
path: /a
inputParameters: {n: {type: integer, required: true}}
functionStack:
  - stream: << input.n >>
  - stream: {content: << request.text | fromJson >>, event: body}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return what runs the command in a project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "definitions").mkdir()
    (tmp_path / "definitions" / "a.yaml").write_text(ENDPOINT)
    return lambda *arguments: CliRunner().invoke(main, ["openapi", *arguments])


def test_the_document_is_yaml_or_json(run: Callable[..., Result], tmp_path: Path) -> None:
    """On standard output, or in a file whose suffix names the format; of either version."""
    printed = plain(read(run().stdout, "a.yaml")[0][0].root)
    assert printed == json.loads(run("--format", "json").stdout)
    assert printed["openapi"].startswith("3.2.")
    assert run("--out", "api.json", "definitions", "--version", "3.1").exit_code == 0
    assert json.loads((tmp_path / "api.json").read_text())["openapi"].startswith("3.1.")
    assert run("--out", "api.yaml").stdout == ""
    assert plain(read((tmp_path / "api.yaml").read_text(), "api.yaml")[0][0].root) == printed


def test_what_is_not_known_is_listed(run: Callable[..., Result], tmp_path: Path) -> None:
    """By its place; nothing where all is known."""
    assert run().stderr.splitlines() == [
        "1 of 2 emissions has no known type, or none of some parts:",
        "  definitions/a.yaml:7",
        "Declare them under `chunks` or `responseSchema` of the endpoint.",
    ]
    (tmp_path / "definitions" / "a.yaml").write_text(ENDPOINT + "chunks: {body: object}\n")
    assert run().stderr == ""


@pytest.mark.parametrize(
    ("before", "after", "code", "line"),
    [
        ("path: /a", "path: /a\nsummary: A", 0, ""),
        ("}}\n", "}, m: integer}\n", 0, "fine: GET /a: new query parameter `m`"),
        ("}}\n", "}, m: {type: text, required: true}}\n", 1, "breaking: GET /a: new required query parameter `m`"),
    ],
)
def test_breaking_changes_fail(
    run: Callable[..., Result], tmp_path: Path, before: str, after: str, code: int, line: str
) -> None:
    """The exit code is 1; what only adds is listed, too."""
    assert run("--out", "old.yaml").exit_code == 0
    (tmp_path / "definitions" / "a.yaml").write_text(ENDPOINT.replace(before, after))
    found = run("--diff", "old.yaml", "--out", "new.yaml")
    assert (found.exit_code, found.stdout.rstrip()) == (code, line)
    assert (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "text", "code", "message"),
    [
        (["nothing"], ENDPOINT, 2, "nothing: no such file or folder"),
        (["--diff", "nothing.yaml"], ENDPOINT, 2, "nothing.yaml: No such file or directory"),
        (["--diff", "definitions/a.yaml"], ENDPOINT, 2, "definitions/a.yaml is not an OpenAPI document"),
        ([], "kind: function\nname: f\nfunctionStack: [{log: a}]", 2, "no endpoints found in definitions"),
        ([], ENDPOINT.replace("stream:", "straem:"), 1, "unknown-function"),
    ],
)
def test_what_can_not_be_done_is_said(
    run: Callable[..., Result], tmp_path: Path, arguments: list[str], text: str, code: int, message: str
) -> None:
    """Missing files, files other than OpenAPI documents, and errors of the project."""
    (tmp_path / "definitions" / "a.yaml").write_text(text)
    found = run(*arguments)
    assert found.exit_code == code
    assert message in found.stderr


def test_schemas_that_are_left_out_are_listed(run: Callable[..., Result], tmp_path: Path) -> None:
    """By their place, with what is possible; the comparison counts in words."""
    schema = "{$ref: '#x', $defs: {a: {$anchor: x}}}"
    text = ENDPOINT.replace("}}\n", f"}}, v: {{type: json, schema: {schema}}}}}\n")
    assert run("--out", "old.yaml").exit_code == 0
    (tmp_path / "definitions" / "a.yaml").write_text(text)
    found = run("--diff", "old.yaml").stderr.splitlines()
    assert found[0] == (
        "the `schema` is left out: definitions/a.yaml:4 (v); `$ref` must be `#` or `#/...`, without `$anchor`"
    )
    assert found[-1] == "0 breaking changes, 1 other"
