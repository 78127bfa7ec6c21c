"""Findings are written so that people, scripts, GitHub and code scanners understand them."""

from __future__ import annotations

import json

from streamstack.errors import Diagnostic
from streamstack.language.findings import FINDINGS, WRITERS, summarise

STEAM = Diagnostic(
    "d/a b.yaml", 2, 5, "error", "unknown-function", "unknown function `steam`", "did you mean `stream`?"
)
UNREAD = Diagnostic("d/a b.yaml", 1, 1, "warning", "unused-variable", "100%, `a`\nis never read")
SOURCES = {"d/a b.yaml": "x:\n  - steam: 1\n"}


def written(format_: str, *findings: Diagnostic, sources: dict[str, str] | None = None) -> str:
    """Return findings in a format."""
    return WRITERS[format_](findings, SOURCES if sources is None else sources)


def test_text_shows_the_line() -> None:
    """In text a finding is one line a compiler would write, its source with a caret, and a hint."""
    assert written("text", STEAM) == (
        "d/a b.yaml:2:5: error: unknown-function: unknown function `steam`\n"
        "  2 |   - steam: 1\n"
        "    |     ^\n"
        "  hint: did you mean `stream`?\n"
        "\n"
    )


def test_caret_stands_below_its_character() -> None:
    """Tabs before the place are kept, and a long line is cut on both sides of it."""
    finding = Diagnostic("f", 1, 3, "error", "bad-name", "m")
    assert written("text", finding, sources={"f": "\té\tx"}).splitlines()[1:3] == ["  1 | \té\tx", "    | \t ^"]
    finding = Diagnostic("f", 1, 500, "error", "bad-name", "m")
    line, caret = written("text", finding, sources={"f": "a" * 499 + "X" + "b" * 499}).splitlines()[1:3]
    assert len(line) < 130
    assert line[len(caret) - 1] == "X"


def test_place_outside_of_the_text_shows_no_line() -> None:
    """A finding of a file that can't be shown is reported all the same."""
    for sources in ({}, {"f": "one line"}):
        finding = Diagnostic("f", 9, 1, "error", "bad-name", "m")
        assert written("text", finding, sources=sources) == "f:9:1: error: bad-name: m\n\n"


def test_text_steers_no_terminal() -> None:
    """Control characters of a file are never sent to the terminal."""
    finding = Diagnostic("f", 1, 1, "error", "bad-name", "a \x1b[31m name", "b\x07")
    assert "\x1b" not in written("text", finding, sources={"f": "\x1b[2J"})
    assert "\x07" not in written("text", finding)


def test_json_holds_all() -> None:
    """JSON holds every part of every finding."""
    assert json.loads(written("json", STEAM, UNREAD)) == {
        "findings": [
            {
                "file": "d/a b.yaml",
                "line": 2,
                "column": 5,
                "severity": "error",
                "code": "unknown-function",
                "message": "unknown function `steam`",
                "hint": "did you mean `stream`?",
                "replacement": None,
            },
            {
                "file": "d/a b.yaml",
                "line": 1,
                "column": 1,
                "severity": "warning",
                "code": "unused-variable",
                "message": "100%, `a`\nis never read",
                "hint": "",
                "replacement": None,
            },
        ]
    }
    assert json.loads(written("json")) == {"findings": []}


def test_github_commands_are_escaped() -> None:
    """A workflow command is one line, whatever its message holds."""
    assert written("github", STEAM, UNREAD) == (
        "::error file=d/a b.yaml,line=2,col=5,title=unknown-function::"
        "unknown function `steam`%0Adid you mean `stream`?\n"
        "::warning file=d/a b.yaml,line=1,col=1,title=unused-variable::100%25, `a`%0Ais never read\n"
    )
    odd = Diagnostic("C:\\a,b.yaml", 1, 1, "error", "bad-name", "m")
    assert written("github", odd).startswith("::error file=C%3A\\a%2Cb.yaml,")


def test_sarif_has_what_its_schema_requires() -> None:
    """SARIF 2.1.0: each result points to a rule with help, and to a place by a relative address."""
    document = json.loads(written("sarif", UNREAD, STEAM, STEAM))
    assert document["version"] == "2.1.0"
    assert document["$schema"].endswith("sarif-2.1.0.json")
    [run] = document["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "streamstack"
    assert [rule["id"] for rule in driver["rules"]] == ["unknown-function", "unused-variable"]
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"] == FINDINGS[rule["id"]].meaning
        assert FINDINGS[rule["id"]].hint in rule["help"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning")
    assert [result["ruleId"] for result in run["results"]] == [
        "unused-variable",
        "unknown-function",
        "unknown-function",
    ]
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
        [place] = result["locations"]
        assert place["physicalLocation"]["artifactLocation"]["uri"] == "d/a%20b.yaml"
    assert run["results"][1]["locations"][0]["physicalLocation"]["region"] == {"startLine": 2, "startColumn": 5}


def test_summary_counts() -> None:
    """The last line tells how much was found, and in how many files."""
    assert summarise([], 1) == "1 file checked, no problems"
    assert summarise([STEAM], 2) == "1 error in 2 files"
    assert summarise([STEAM, STEAM, UNREAD], 2) == "2 errors and 1 warning in 2 files"
