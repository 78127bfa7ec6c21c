"""Guesses at syntax errors: values whose quotes are missing, or are not what YAML needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from streamstack.language.reading.positions import SourceText
from streamstack.language.reading.traps import (
    Repair,
    Trap,
    closing,
    code,
    extend,
    in_quotes,
    quote,
)

_BEGINNING: Final = re.compile(r"(?<=[\[{,])[ \t]*|(?::|(?<![^ \t])-)[ \t]+|^[ \t]*")
_QUOTED: Final = re.compile(
    r"(?:(?<=[\[{,])[ \t]*|(?<=[:-])[ \t]+|^[ \t]*)('(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\")"
)
_AFTER_QUOTE: Final = re.compile(r"[ \t]*(?:$|[\r\n,}\]]|[ \t]#)")
_VALUE: Final = re.compile(
    r"[ \t]*(?:- +)*[^\s:#'\"\[\]{},&*!|>%@`-][^:#'\"\[\]{},]*:[ \t]+(?=[^\s|>&])"
)
_DOUBLE: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"")
_STRINGS: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\"")
#: A backslash with what it escapes; the group is there where YAML knows the sequence.
_ESCAPES: Final = re.compile(
    r"\\([0abtnvfre \"/\\N_LP\t]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})?"
)

#: Levels of brackets in one value: more are none, and would be read once for each.
_MOST_LEVELS: Final = 50


def syntax_traps(source: SourceText, at: int) -> Iterator[Trap]:
    """Give the values whose missing quotes may be the cause of a syntax error at an index."""
    text = source.text
    first, last = source.line(at)
    if not text[first:at].strip() and first:
        before = len(text[:first].rstrip())
        yield from _line_traps(text, *source.line(before), at)
    yield from _line_traps(text, first, last, at)


def _line_traps(text: str, first: int, last: int, at: int) -> Iterator[Trap]:
    line = text[first:last]
    starts = [first + found.end() for found in _BEGINNING.finditer(line)]
    yield from _escape_traps(text, starts, at, last)
    yield from _requote_traps(text, [start for start in starts if start < at], last)
    yield from _ended_traps(text, starts, at, last)
    quoted = [(first + found.start(), first + found.end()) for found in _QUOTED.finditer(line)]
    openings = [first + found.start() for found in re.finditer(r"(?<!\\)<<", line)]
    openings = [n for n in openings if not any(start < n < end for start, end in quoted)][:4]
    value = _VALUE.match(text[:last], first)
    for opening in openings:
        close = closing(text, opening + 2, lines=True)
        if close < 0:
            continue
        # Quotes around a key and its value would make a text of both.
        least = value.end() if value and value.end() <= opening else first
        before = [n for n in starts if least <= n <= opening and text[n] not in "{["][-3:]
        ends = dict.fromkeys(extend(text, close, flow=flow) for flow in (True, False))
        pairs = [(start, end) for start in reversed(before) for end in ends if start < end <= last]
        repairs = tuple(quote(text, start, end) for start, end in pairs)
        yield Trap(
            "yaml-quotes",
            opening,
            "YAML can't read this binding without quotes",
            repairs,
            guess=True,
        )
    if not openings and value:
        start, end = value.end(), extend(text, value.end(), flow=False)
        if start < end and text[start] not in "[{":
            message = "YAML can't read this text without quotes around the whole of it"
            yield Trap("yaml-syntax", at, message, (quote(text, start, end),), guess=True)


def _escape_traps(text: str, starts: list[int], at: int, last: int) -> Iterator[Trap]:
    """Give the trap of a text in double quotes with a backslash that escapes nothing."""
    for start in starts:
        found = _DOUBLE.match(text, start, last)
        if found is None or not start < at < found.end():
            continue
        wrong = next((n for n in _ESCAPES.finditer(found.group()) if n[1] is None), None)
        if wrong is None:
            continue
        shown = _ESCAPES.sub(lambda n: n[0] if n[1] else "\\" + n[0], found.group())
        message = "In double quotes a backslash that stands for itself is written twice"
        repair = Repair(start, found.end(), shown, shed=1)
        yield Trap("yaml-syntax", start + wrong.start(), message, (repair,), guess=True)


def _ended_traps(text: str, starts: list[int], at: int, last: int) -> Iterator[Trap]:
    """Give the traps of texts whose beginning is a whole value to YAML: [done] <<x>>."""
    ended = [(start, _end_of_value(text, start, last)) for start in starts]
    for start, end in reversed(ended):
        rest = text[end:last].lstrip(" \t")
        if end < 0 or text.startswith("{{", start) or not rest or rest[0] in ",:]}":
            continue
        if not end <= at <= last or (rest[0] == "#" and text[end] in " \t"):
            continue
        flow = any(n < start and text[n] in "[{" and (to < 0 or to > end) for n, to in ended)
        first = text.find("<<", start, last)
        close = closing(text, first + 2, lines=False) if first >= end else end
        stop = extend(text, max(close, end), flow=flow)
        first = first if first < stop else -1
        name = "yaml-quotes" if first >= 0 else "yaml-syntax"
        message = f"To YAML the value ends after {code(text[start:end])}"
        place = first if first >= 0 else at
        yield Trap(name, place, message, (quote(text, start, stop),), guess=True)


def _end_of_value(text: str, start: int, last: int) -> int:
    """Return the index after the bracket or quote that closes a value's first, -1 without one."""
    if text[start : start + 1] in ("'", '"'):
        found = _STRINGS.match(text, start, last)
        return found.end() if found else -1
    if text[start : start + 1] not in ("[", "{"):
        return -1
    opened: list[str] = []
    at = start
    while at < last:
        char = text[at]
        if char in "[{":
            if len(opened) == _MOST_LEVELS:
                return -1
            opened.append("]" if char == "[" else "}")
        elif char in "]}":
            if char != opened.pop():
                return -1
            if not opened:
                return at + 1
        elif char in "'\"" and text[at - 1] in " [{,:\t":
            found = _STRINGS.match(text, at, last)
            if found is None:
                return -1
            at = found.end() - 1
        at += 1
    return -1


def _requote_traps(text: str, starts: list[int], last: int) -> Iterator[Trap]:
    """Give the traps of values whose quotes stand inside them too: "<<x | default("a")>>"."""
    for start in starts:
        sign = text[start : start + 1]
        if sign not in ("'", '"'):
            continue
        ends = [
            n + 1
            for n in range(start + 1, last)
            if text[n] == sign and _AFTER_QUOTE.match(text, n + 1)
        ]
        inners = [
            text[start + 1 : end - 1] for end in ends[-3:] if sign in text[start + 1 : end - 1]
        ]
        repairs = [Repair(start, start + len(n) + 2, in_quotes(n), shed=1) for n in inners]
        name = "double" if sign == '"' else "single"
        message = f"A {name} quote inside {name} quotes ends the value"
        code = "yaml-quotes" if "<<" in text[start:last] else "yaml-syntax"
        yield Trap(code, start, message, tuple(repairs), guess=True)
