"""Write the replacements of findings into the files that they are about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from streamstack.errors import Diagnostic, Replacement

_BREAK: Final = re.compile(r"\r\n|\r|\n")
#: Rounds, since a value can be read only once its quotes are there; checks of a round whose corrections don't all hold.
_ROUNDS: Final = 10
_CHECKS: Final = 200

#: Returns the findings of a project, given its texts by file.
Check = Callable[[Mapping[str, str]], list[Diagnostic]]


def correct(texts: Mapping[str, str], check: Check, chosen: Iterable[str]) -> tuple[dict[str, str], list[Diagnostic]]:
    """Correct what is certain, and return the texts of the chosen files that have changed, with the findings left.

    Each correction is checked: a text is changed only where it has fewer findings then, and no other text has more.
    """
    chosen = set(chosen)
    now, found = dict(texts), check(texts)
    for _ in range(_ROUNDS):
        edits = [(each.file, each.replacement) for each in found if each.replacement and each.file in chosen]
        tried, after = _try(now, edits, found, check)
        if tried is None:
            # One of them does not hold: each by itself, the last first, so that the places of the others stay.
            tried, after = now, found
            for edit in sorted(edits, key=lambda one: (one[1].line, one[1].column), reverse=True)[:_CHECKS]:
                better, less = _try(tried, [edit], after, check)
                if better is not None:
                    tried, after = better, less
        if tried == now:
            break
        now, found = tried, after
    return {file: text for file, text in now.items() if text != texts[file]}, found


def _try(
    texts: dict[str, str], edits: list[tuple[str, Replacement]], found: list[Diagnostic], check: Check
) -> tuple[dict[str, str] | None, list[Diagnostic]]:
    """Return the texts with some edits and their findings; None for the texts if that does not improve them."""
    by_file: dict[str, list[Replacement]] = {}
    for file, edit in edits:
        by_file.setdefault(file, []).append(edit)
    trial = texts | {file: apply(texts[file], each) for file, each in by_file.items()}
    changed = {file for file in by_file if trial[file] != texts[file]}
    if not changed:
        return None, found
    after = check(trial)
    before, now = _weigh(found), _weigh(after)
    fewer = all(now[file] < before[file] for file in changed)
    return (trial, after) if fewer and all(now[file] <= before[file] for file in now) else (None, found)


def _weigh(found: list[Diagnostic]) -> Counter[str]:
    """Return how bad the findings of each file are: an error outweighs all warnings that it may have hidden."""
    weights: Counter[str] = Counter()
    for each in found:
        weights[each.file] += 10_000 if each.severity == "error" else 1
    return weights


def apply(text: str, replacements: Iterable[Replacement]) -> str:
    """Return a text with its replacements written; of two that overlap, the first."""
    offset = len(text) - len(text.removeprefix("\ufeff"))  # columns do not count it
    starts = [offset, *(found.end() for found in _BREAK.finditer(text))]
    pieces: list[str] = []
    end = 0
    for each in sorted(replacements, key=lambda one: (one.line, one.column, -one.end_line, -one.end_column)):
        first, last = starts[each.line - 1] + each.column - 1, starts[each.end_line - 1] + each.end_column - 1
        if first >= end:
            pieces += (text[end:first], each.text)
            end = last
    return "".join([*pieces, text[end:]])
