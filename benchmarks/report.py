"""The results as a page of Markdown: medians, spreads, ratios, targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from figures import short, spread
from servers import OURS

_HEAD = """# Benchmarks

Medians over the rounds, the range of the middle half in brackets, and what ours is of theirs. Servers run
on one core, the load on another; the rounds of all are interleaved; all answer the same content.
`make bench` measures again ([how](../README.md)).
"""


def write_report(results: Mapping[str, Any]) -> str:
    """Return the page."""
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items() if value)
    parts = [_HEAD, f"Machine: {machine}.\n"]
    for key, case in results["cases"].items():
        parts += [f"## {key}: {case['title']}\n", f"{case['method']}\n"]
        parts.append(_rows(case["rows"]) if "rows" in case else _samples(case))
        if case["verdicts"]:
            parts.append(_verdicts(case["verdicts"]))
        parts.append(_stamp(case))
    return "\n".join(parts)


def _stamp(case: Mapping[str, Any]) -> str:
    rounds = f"{case['rounds']} round{'s' if case['rounds'] != 1 else ''}"
    quick = ", quick: to be trusted within 20 % at best" if case["quick"] else ""
    left_out = f"; left out: {', '.join(case['missing'])}" if case.get("missing") else ""
    crowd = ""
    ours = case.get("samples", {}).get(OURS, {})
    if others := ours.get("others on both cores"):
        crowd = f"; others took {short(median(others))} % of a core"
    return f"<sub>{case['measured']}, commit {case['commit']}, {rounds}{quick}{left_out}{crowd}</sub>\n"


def _samples(case: Mapping[str, Any]) -> str:
    metrics, samples = case["metrics"], case["samples"]
    heads = ["", *(f"{metric['name']}, {metric['unit']}" for metric in metrics), "ours : theirs"]
    main = metrics[0]["name"]
    by_cpu = any(metric["name"] == "server CPU" for metric in metrics)
    if by_cpu:
        heads.append("by CPU time")
    rows = []
    for peer, measured in samples.items():
        cells = [f"**{peer}**" if peer == OURS else peer]
        cells += [_cell(measured[metric["name"]]) for metric in metrics]
        own = samples.get(OURS)
        if own is None or peer == OURS or not median(measured[main]):
            cells += [""] * (1 + by_cpu)
        else:
            cells.append(f"{short(median(own[main]) / median(measured[main]))} x")
            if by_cpu:
                cells.append(f"{short(median(measured['server CPU']) / median(own['server CPU']))} x")
        rows.append(cells)
    return _table(heads, rows)


def _cell(values: Sequence[float]) -> str:
    middle = short(median(values))
    return f"{middle} ({short(spread(values))})" if len(values) > 1 else middle


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return tables of rows, one for each run of rows with the same columns."""
    tables: list[str] = []
    start = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or rows[at].keys() != rows[start].keys():
            cells = [[_plain(value) for value in row.values()] for row in rows[start:at]]
            tables.append(_table(list(rows[start]), cells))
            start = at
    return "\n".join(tables)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return short(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _verdicts(verdicts: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [each["name"], each["figure"], each["must"], "reached" if each["kept"] else "**missed**"] for each in verdicts
    ]
    return _table(["target", "is", "must be", ""], rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"
