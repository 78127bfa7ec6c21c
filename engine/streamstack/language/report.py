"""Findings as people, scripts, GitHub and code scanners read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import quote

from streamstack import __version__
from streamstack.errors import Diagnostic
from streamstack.language.findings import FINDINGS

_SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
#: How much of a long line is shown around the place.
_WIDEST: Final = 110

#: Findings that are shown without their line, which holds a secret, or may.
_HIDDEN: Final = frozenset({"secret-in-definition", "bad-url"})

Sources = Mapping[str, str]


def write_text(findings: Sequence[Diagnostic], sources: Sources) -> str:
    """Return `file:line:column: severity: code: message`, the line with a caret, and the hint."""
    lines: dict[str, list[str]] = {}
    parts = []
    for finding in findings:
        if finding.file not in lines:
            lines[finding.file] = _split(sources.get(finding.file, ""))
        parts.append(f"{finding.mark}: {finding.severity}: {finding.code}: {_one_line(finding.message)}\n")
        # A line that holds a secret is not for logs.
        shown = finding.code not in _HIDDEN
        if shown and 0 < finding.line <= len(lines[finding.file]):
            parts.append(_show(lines[finding.file][finding.line - 1], finding))
        if finding.hint:
            parts.append(f"  hint: {_one_line(finding.hint)}\n")
        parts.append("\n")
    return "".join(parts)


def write_json(findings: Sequence[Diagnostic], _: Sources) -> str:
    """Return `{"findings": [{file, line, column, severity, code, message, hint}]}`."""
    return json.dumps({"findings": [asdict(each) for each in findings]}, indent=2) + "\n"


def write_github(findings: Sequence[Diagnostic], _: Sources) -> str:
    """Return GitHub's workflow commands, which it shows beside the changed lines.

    Source: docs.github.com, workflow commands; escapes as in actions/toolkit.
    """
    lines = []
    for finding in findings:
        properties = ",".join(
            f"{name}={_escape_property(str(value))}"
            for name, value in (
                ("file", finding.file),
                ("line", finding.line),
                ("col", finding.column),
                ("title", finding.code),
            )
        )
        message = f"{finding.message}\n{finding.hint}" if finding.hint else finding.message
        lines.append(f"::{finding.severity} {properties}::{_escape(message)}\n")
    return "".join(lines)


def write_sarif(findings: Sequence[Diagnostic], _: Sources) -> str:
    """Return SARIF 2.1.0, the format of code scanners (OASIS, sarif-v2.1.0)."""
    codes = sorted({finding.code for finding in findings})
    run = {
        "tool": {"driver": {"name": "streamstack", "version": __version__, "rules": [_rule(code) for code in codes]}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, codes.index(finding.code)) for finding in findings],
    }
    document = {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2) + "\n"


#: The writers by the name of their format.
WRITERS: Final[Mapping[str, Callable[[Sequence[Diagnostic], Sources], str]]] = {
    "text": write_text,
    "json": write_json,
    "github": write_github,
    "sarif": write_sarif,
}


def summarise(findings: Sequence[Diagnostic], files: int) -> str:
    """Return what was found, in a sentence."""
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    counted_files = f"{files} file{'' if files == 1 else 's'}"
    if not findings:
        return f"{counted_files} checked, no problems"
    counted = [
        f"{count} {word}{'' if count == 1 else 's'}"
        for count, word in ((errors, "error"), (warnings, "warning"))
        if count
    ]
    return f"{' and '.join(counted)} in {counted_files}"


def _split(text: str) -> list[str]:
    """Split at the line ends that places count by: not at U+2028 and the like."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _show(line: str, finding: Diagnostic) -> str:
    """Return the line and a caret below the place."""
    column = min(finding.column - 1, len(line))
    if len(line) > _WIDEST:
        begin = max(0, min(column - _WIDEST // 2, len(line) - _WIDEST))
        shown, column = line[begin : begin + _WIDEST], column - begin
        shown = ("…" if begin else "") + shown + ("…" if begin + _WIDEST < len(line) else "")
        column += 1 if begin else 0
    else:
        shown = line
    number = str(finding.line)
    pad = "".join("\t" if char == "\t" else " " for char in shown[:column])
    return f"  {number} | {_printable(shown)}\n  {' ' * len(number)} | {pad}^\n"


def _printable(text: str) -> str:
    """Replace what would steer a terminal."""
    return "".join(char if char.isprintable() or char == "\t" else "�" for char in text)


def _one_line(text: str) -> str:
    return _printable(text.replace("\n", " "))


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")


def _rule(code: str) -> dict[str, Any]:
    finding = FINDINGS[code]
    return {
        "id": code,
        "shortDescription": {"text": finding.meaning},
        "help": {"text": f"{finding.meaning} Instead: {finding.hint}."},
        "defaultConfiguration": {"level": finding.severity},
    }


def _result(finding: Diagnostic, rule: int) -> dict[str, Any]:
    message = f"{finding.message}. {finding.hint}" if finding.hint else finding.message
    return {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": finding.severity,
        "message": {"text": message},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(finding.file.replace("\\", "/"))},
                    "region": {"startLine": finding.line, "startColumn": finding.column},
                }
            }
        ],
    }
