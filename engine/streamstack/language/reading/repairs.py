"""Repairs of YAML traps: the quotes that a line needs are put in, and the file is read again."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from streamstack.errors import Diagnostic
from streamstack.language.findings import find
from streamstack.language.reading.guesses import syntax_traps
from streamstack.language.reading.nodes import Document
from streamstack.language.reading.positions import SourceText
from streamstack.language.reading.traps import Repair, Trap, show
from streamstack.records import record

#: Readings, and characters in all of them, that the repairs of one file may cost.
_MOST_READINGS: Final = 60
_MOST_CHARACTERS: Final = 2_000_000
#: Traps and syntax errors of one file that are told.
_MOST_CAUSES: Final = 100


@record()
class Reading:
    """What one pass over a source gave. ``faults`` are the indexes of its syntax errors."""

    source: SourceText
    documents: list[Document]
    findings: list[Diagnostic]
    traps: list[Trap]
    faults: list[int]

    @property
    def first_fault(self) -> float:
        """The place of the first syntax error in what the author wrote; infinite without one."""
        return self.source.origin(self.faults[0]) if self.faults else inf


def repair(
    reading: Reading, read: Callable[[SourceText], Reading]
) -> tuple[Reading, list[Diagnostic]]:
    """Put in the quotes that traps need; return the last reading, and a finding for each trap."""
    findings: list[Diagnostic] = []
    seen: list[tuple[int, int]] = []
    left = [_MOST_READINGS, _MOST_CHARACTERS]
    while len(seen) < _MOST_CAUSES and (cause := _next_cause(reading, seen)):
        first, last, suspects = cause
        seen.append((first, last))
        for trap in suspects:
            better = _try(reading, trap, read, left)
            if better is None and trap.guess:
                continue
            message = f"{trap.message}."
            if better is not None:
                message = f"{trap.message}; write: {show(reading.source, better[1])}"
            hint = "write the line as the message shows it" if trap.guess else None
            findings.append(find(trap.code, reading.source.mark(trap.at), message, hint))
            if better is not None:
                reading = better[0]
            break
    reading.findings[:] = [
        d for d in reading.findings if not _repeats(reading.source, d, findings, seen)
    ]
    return reading, findings


def _next_cause(
    reading: Reading, seen: list[tuple[int, int]]
) -> tuple[int, int, list[Trap]] | None:
    """Return the range of the first trap or syntax error not seen before, and the suspects."""
    origin = reading.source.origin

    def is_new(at: int) -> bool:
        return not any(first <= origin(at) < last for first, last in seen)

    trap = next(
        (trap for trap in sorted(reading.traps, key=lambda t: t.at) if is_new(trap.at)), None
    )
    fault = next((fault for fault in reading.faults if is_new(fault)), None)
    if trap is not None and (fault is None or trap.at <= fault):
        last = max((repair.end for repair in trap.repairs), default=trap.at)
        return origin(trap.at), max(origin(last), origin(trap.at) + 1), [trap]
    if fault is not None:
        return origin(fault), origin(fault) + 1, list(syntax_traps(reading.source, fault))
    return None


def _repeats(
    source: SourceText, finding: Diagnostic, told: list[Diagnostic], seen: list[tuple[int, int]]
) -> bool:
    """Tell whether a finding only repeats what was told about a value that stays unrepaired."""
    if finding.code not in ("yaml-quotes", "yaml-syntax"):
        return False
    ranges = ((source.mark_written(first), source.mark_written(last)) for first, last in seen)
    return any(
        first <= finding.mark <= last and any(first == d.mark for d in told)
        for first, last in ranges
    )


def _try(
    reading: Reading, trap: Trap, read: Callable[[SourceText], Reading], left: list[int]
) -> tuple[Reading, Repair] | None:
    """Return the reading with the first repair that helps.

    A guess helps only if the first syntax error goes away, or comes well after it.
    """
    size = len(reading.source.text)
    before = reading.first_fault
    for attempt in trap.repairs:
        if left[0] <= 0 or left[1] < size:
            return None
        left[0] -= 1
        left[1] -= size
        after = read(reading.source.quote(attempt.start, attempt.end, attempt.quoted, attempt.shed))
        needed = max(before, reading.source.origin(attempt.end) + 1) if trap.guess else before
        if after.first_fault > needed or (after.first_fault == before and not trap.guess):
            return after, attempt
    return None
