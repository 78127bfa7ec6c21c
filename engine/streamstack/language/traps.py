"""Find values that YAML reads in another way than their author means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import inf
from typing import Final

from streamstack.errors import Diagnostic, Replacement, Severity, fast_dataclass
from streamstack.language.findings import make_diagnostic
from streamstack.language.nodes import Document, Scalar, SourceText

_LONGEST: Final = 4000
_SHOWN: Final = 300
_COMMENT: Final = re.compile(r"[ \t]+#")
_GOES_ON: Final = re.compile(r"[A-Za-z0-9]")
_NO_BLANK: Final = re.compile(r"[ \t]#[A-Za-z0-9]")
_TO_END: Final = re.compile(r"#[^\r\n]*")
_COLON: Final = re.compile(r"[ \t]*:(?=[ \t\r\n]|$)")
_KEY_END: Final = re.compile(r"\s*:")
_BLANK: Final = re.compile(r"(?:\r\n|\r|\n)(?:[ \t]*(?:\r|\n)|---|\.\.\.)")
_STRING: Final = re.compile(r"\"(?:[^\"\\]|\\[\s\S])*\"|'(?:[^'\\]|\\[\s\S])*'")
_MUSTACHE: Final = re.compile(r"\{\{[ \t]*([^{}\r\n]+?)[ \t]*\}\}")
_NAMES: Final = {",": "comma", "{": "brace", "}": "brace", "[": "bracket", "]": "bracket", ":": "colon"}


@fast_dataclass()
class Repair:
    """Quotes around text[start:end], from which ``shed`` characters at both ends are left out."""

    start: int
    end: int
    quoted: str
    shed: int = 0


@fast_dataclass()
class Trap:
    """A place where YAML reads otherwise than the author meant, and the likeliest repairs.

    ``at`` is the index to point at. A ``guess`` is a trap only if a repair removes a syntax error. One that is
    ``clear`` can mean nothing else, so that its value is read as repaired and the finding is a warning; a guess is
    clear where a single repair helps.
    """

    code: str
    at: int
    message: str
    repairs: tuple[Repair, ...]
    guess: bool = False
    clear: bool = False


def unclosed(value: str) -> int:
    r"""Return the offset of a `<<` without its `>>`, -1 if there is none; `\<<` is not a binding."""
    at = value.find("<<")
    while at >= 0:
        if at and value[at - 1] == "\\":
            at = value.find("<<", at + 2)
            continue
        end = closing(value, at + 2, lines=True)
        if end < 0:
            end = value.find(">>", at + 2) + 2
            if end < 2:
                return at
        at = value.find("<<", end)
    return -1


def cut_value(source: SourceText, scalar: Scalar, *, flow: bool, key: bool = False) -> Trap | None:
    """Return the trap of a plain value or key whose `<<` YAML cut off from its `>>`."""
    offset = unclosed(scalar.text)
    if offset < 0:
        return None
    text, start, end = source.text, scalar.start, scalar.end
    comment = _COMMENT.match(text, end) is not None
    if not (flow or comment or _COLON.match(text, end)):
        return None
    opening = scalar.index_at(offset)
    close = closing(text, opening + 2, lines=not comment)
    if close < 0:
        return None
    repair = quote(text, start, extend(text, close, flow=flow))
    if comment:
        message = f"YAML takes ` #` for a comment, which cuts the value off after {code(scalar.text)}"
        return Trap("cut-by-comment", opening, message, (repair,))
    sign = text[end:].lstrip()[:1]
    name = _NAMES.get(sign, "punctuation")
    message = f"YAML's own {name} ends the value after {code(scalar.text)}, so its `<<` is never closed"
    return Trap("yaml-quotes", opening, message, (repair,), clear=not key)


def holds_commented(text: str) -> bool:
    """Tell whether any comment of a text, or what looks like one, holds a `<<` or begins without a blank."""
    return _NO_BLANK.search(text) is not None or (
        "<<" in text and any("<<" in found.group() for found in _TO_END.finditer(text))
    )


def commented_value(source: SourceText, scalar: Scalar, *, flow: bool) -> Trap | None:
    """Return the trap of a plain value beside which a comment with a `<<` stands."""
    text = source.text
    found = _COMMENT.match(text, scalar.end)
    if found is None:
        return None
    sign = found.end() - 1
    _, last = source.line(sign)
    opening = text.find("<<", sign, last)
    if opening < 0:
        return _cut_text(source, scalar, sign, last)
    close = closing(text, opening + 2, lines=False)
    end = extend(text, close, flow=flow) if close > 0 else last
    start = scalar.start if scalar.text else sign
    after = f"cuts the value off after {code(scalar.text)}" if scalar.text else "leaves no value"
    message = f"YAML takes ` #` for a comment, which {after}"
    repair = quote(text, start, start + len(text[start:end].rstrip()))
    return Trap("cut-by-comment", sign, message, (repair,))


def _cut_text(source: SourceText, scalar: Scalar, sign: int, last: int) -> Trap | None:
    """Return the trap of a text that goes on behind a `#`: `Room #5 is free`; a comment has a blank behind the `#`."""
    if not isinstance(scalar.value, str) or not scalar.text or not _GOES_ON.match(source.text, sign + 1):
        return None
    message = (
        f"YAML takes ` #` for a comment, which cuts the value off after {code(scalar.text)}; "
        "put quotes around the text, or a space behind the # of a comment"
    )
    return Trap("cut-by-comment", sign, message, ())


def anchored_value(source: SourceText, scalar: Scalar, at: int, name: str) -> Trap:
    """Return the trap of a value whose `&name` at an index no alias uses."""
    message = f"YAML takes `&{name}` for an anchor, which no `*{name}` uses, and not for text"
    return Trap("yaml-quotes", at, message, (quote(source.text, at, scalar.end),))


def binding_key(source: SourceText, key: Scalar, *, flow: bool) -> Trap:
    """Return the trap of a key that holds a binding or a piece of one."""
    repairs: tuple[Repair, ...] = ()
    if key.style == "plain" and not flow and _COLON.match(source.text, key.end):
        repairs = (quote(source.text, key.start, extend(source.text, key.end, flow=False)),)
    message = (
        f"The key {code(key.text)} holds a binding, but a key is text as written. A text needs "
        "quotes; a key is computed in an expression: '<< {name: value} >>'"
    )
    return Trap("yaml-quotes", key.start, message, repairs)


def has_colon(source: SourceText, key: Scalar) -> bool:
    """Tell whether a key in braces is followed by its colon."""
    return _KEY_END.match(source.text, key.end) is not None


def describe_valueless(
    source: SourceText, previous: Scalar | None, keys: list[Scalar]
) -> tuple[str, Replacement | None]:
    """Say what keys without a value in braces need; ``previous`` is the plain text before them."""
    names = [" ".join(key.text.split()) for key in keys[:3]]
    needed = ", ".join(f"{name}: ..." for name in names)
    message = f"{code(names[0])} has no value; in braces each key needs one: {{{needed}}}"
    if previous is None:
        return f"{message}. A list is written [{', '.join(names)}]", None
    repair = quote(source.text, previous.start, keys[-1].end)
    message = f"{message}. A text with a comma needs quotes; write: {show(source, repair)}"
    return message, written_repair(source, repair)


def describe_mustache(source: SourceText, start: int) -> tuple[str, Replacement | None] | None:
    """Say how `{{name}}`, two mappings to YAML, is written as a binding; None if it is not that."""
    found = _MUSTACHE.match(source.text, start)
    if found is None:
        return None
    repair = Repair(start, found.end(), f"<<{found[1]}>>")
    message = f"YAML reads {code(found[0])} as a mapping in a mapping, not as a binding; write: {show(source, repair)}"
    return message, written_repair(source, repair)


def show(source: SourceText, repair: Repair) -> str:
    """Return the author's line as it must be written; a value of several lines becomes one."""
    text = source.text
    first, _ = source.line(repair.start)
    _, last = source.line(repair.end)
    first, last = max(first, repair.start - _SHOWN), min(last, repair.end + _SHOWN)
    line = text[first : repair.start] + repair.quoted + text[repair.end : last]
    line = re.sub(r"[ \t]*[\r\n]+[ \t]*", " ", line.strip())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."


def closing(text: str, at: int, *, lines: bool) -> int:
    """Return the index after the `>>` that closes an expression, -1 where none does.

    Strings of the expression are skipped. Another `<<`, an empty line and, unless ``lines``,
    any line break show that the author closed none.
    """
    end = min(len(text), at + _LONGEST)
    while at < end:
        char = text[at]
        if char == ">" and text.startswith(">>", at):
            return at + 2
        if char == "<" and text.startswith("<<", at):
            return -1
        if char in "\r\n" and (not lines or _BLANK.match(text, at)):
            return -1
        found = _STRING.match(text, at, end) if char in "\"'" else None
        if found and (lines or "\n" not in found.group()):
            at = found.end()
        else:
            at += 1
    return -1


def extend(text: str, at: int, *, flow: bool) -> int:
    """Return the end of the value that goes on after a binding's end."""
    start = at
    while at < len(text):
        char = text[at]
        if char in "\r\n" or (flow and char in ",]}") or (char == "#" and text[at - 1] in " \t"):
            break
        close = closing(text, at + 2, lines=False) if char == "<" and text.startswith("<<", at) else -1
        at = close if close > 0 else at + 1
    return start + len(text[start:at].rstrip())


def quote(text: str, start: int, end: int) -> Repair:
    """Return the repair that puts text[start:end] in quotes."""
    return Repair(start, end, in_quotes(text[start:end]))


def in_quotes(text: str) -> str:
    """Return a text in the quotes that need the least escaping."""
    if text.count("'") > text.count('"') + text.count("\\"):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "'" + text.replace("'", "''") + "'"


def code(text: str) -> str:
    """Return a text as a message shows it: in one line, and short."""
    text = " ".join(text.split())
    return f"`{text}`" if len(text) <= 60 else f"`{text[:57]}...`"


# ----------------------------------------------------------------------------------------- guesses


_BEGINNING: Final = re.compile(r"(?<=[\[{,])[ \t]*|(?::|(?<![^ \t])-)[ \t]+|^[ \t]*")
_QUOTED: Final = re.compile(r"(?:(?<=[\[{,])[ \t]*|(?<=[:-])[ \t]+|^[ \t]*)('(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\")")
_AFTER_QUOTE: Final = re.compile(r"[ \t]*(?:$|[\r\n,}\]]|[ \t]#)")
_VALUE: Final = re.compile(r"[ \t]*(?:- +)*[^\s:#'\"\[\]{},&*!|>%@`-][^:#'\"\[\]{},]*:[ \t]+(?=[^\s|>&])")
_DOUBLE: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"")
_STRINGS: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\"")
#: A backslash with what it escapes; the group is there where YAML knows the sequence.
#: Levels of brackets in one value: more are none, and would be read once for each.
_MOST_LEVELS: Final = 50
_ESCAPES: Final = re.compile(r"\\([0abtnvfre \"/\\N_LP\t]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})?")


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
        message = "YAML can't read this binding without quotes"
        yield Trap("yaml-quotes", opening, message, repairs, guess=True, clear=True)
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
        yield Trap(name, place, message, (quote(text, start, stop),), guess=True, clear=True)


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
        ends = [n + 1 for n in range(start + 1, last) if text[n] == sign and _AFTER_QUOTE.match(text, n + 1)]
        inners = [text[start + 1 : end - 1] for end in ends[-3:] if sign in text[start + 1 : end - 1]]
        repairs = [Repair(start, start + len(n) + 2, in_quotes(n), shed=1) for n in inners]
        name = "double" if sign == '"' else "single"
        message = f"A {name} quote inside {name} quotes ends the value"
        code = "yaml-quotes" if "<<" in text[start:last] else "yaml-syntax"
        yield Trap(code, start, message, tuple(repairs), guess=True, clear=True)


# ----------------------------------------------------------------------------------------- repairs


#: Readings, and characters in all of them, that the repairs of one file may cost.
_MOST_READINGS: Final = 60
_MOST_CHARACTERS: Final = 2_000_000
#: Traps and syntax errors of one file that are reported, at most.
_MOST_CAUSES: Final = 100


@fast_dataclass()
class TrapReading:
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


def repair(reading: TrapReading, read: Callable[[SourceText], TrapReading]) -> tuple[TrapReading, list[Diagnostic]]:
    """Put in the quotes that traps need; return the last reading, and a finding for each trap."""
    findings: list[Diagnostic] = []
    seen: list[tuple[int, int]] = []
    left = [_MOST_READINGS, _MOST_CHARACTERS]
    while len(seen) < _MOST_CAUSES and (cause := _next_cause(reading, seen)):
        first, last, suspects = cause
        seen.append((first, last))
        for trap in suspects:
            helping = _try(reading, trap, read, left)
            if not helping and trap.guess:
                continue
            findings.append(_report(reading.source, trap, [attempt for _, attempt in helping]))
            if helping:
                reading = helping[0][0]
            break
    reading.findings[:] = [d for d in reading.findings if not _repeats(reading.source, d, findings, seen)]
    return reading, findings


def written_repair(source: SourceText, repair: Repair) -> Replacement | None:
    """Return a repair as a replacement in the file; None where it holds an earlier repair."""
    if not source.is_written(repair.start, repair.end):
        return None
    return source.replacement(repair.start, repair.end, repair.quoted)


def _report(source: SourceText, trap: Trap, helping: list[Repair]) -> Diagnostic:
    """Return the finding of a trap, with the repairs that help."""
    mark, hint = source.mark(trap.at), "write the line as the message shows it" if trap.guess else None
    if not helping:
        commented: Severity | None = "warning" if trap.code == "cut-by-comment" and not trap.repairs else None
        return make_diagnostic(trap.code, mark, f"{trap.message}.", hint, None, commented)
    best = helping[0]
    message = f"{trap.message}; write: {show(source, best)}"
    whole = best.quoted[1:3] == "<<" and best.quoted[-3:-1] == ">>" and best.quoted.count("<<") == 1
    clear = trap.clear and (whole or len(helping) == 1)
    replacement = written_repair(source, best) if clear or not trap.guess else None
    severity: Severity | None = "warning" if clear and trap.code == "yaml-quotes" else None
    return make_diagnostic(trap.code, mark, message, hint, replacement, severity)


def _next_cause(reading: TrapReading, seen: list[tuple[int, int]]) -> tuple[int, int, list[Trap]] | None:
    """Return the range of the first trap or syntax error not seen before, and the suspects."""
    origin = reading.source.origin

    def is_new(at: int) -> bool:
        return not any(first <= origin(at) < last for first, last in seen)

    trap = next((trap for trap in sorted(reading.traps, key=lambda t: t.at) if is_new(trap.at)), None)
    fault = next((fault for fault in reading.faults if is_new(fault)), None)
    if trap is not None and (fault is None or trap.at <= fault):
        last = max((repair.end for repair in trap.repairs), default=trap.at)
        return origin(trap.at), max(origin(last), origin(trap.at) + 1), [trap]
    if fault is not None:
        return origin(fault), origin(fault) + 1, list(syntax_traps(reading.source, fault))
    return None


def _repeats(source: SourceText, finding: Diagnostic, reported: list[Diagnostic], seen: list[tuple[int, int]]) -> bool:
    """Tell whether a finding only repeats what was told about a value that stays unrepaired."""
    if finding.code not in ("yaml-quotes", "yaml-syntax"):
        return False
    ranges = ((source.mark_written(first), source.mark_written(last)) for first, last in seen)
    return any(first <= finding.mark <= last and any(first == d.mark for d in reported) for first, last in ranges)


def _try(
    reading: TrapReading, trap: Trap, read: Callable[[SourceText], TrapReading], left: list[int]
) -> list[tuple[TrapReading, Repair]]:
    """Return the readings with the repairs that help, of those that are clear two at most; of others the first.

    A guess helps only if the first syntax error goes away, or comes well after it.
    """
    size = len(reading.source.text)
    before = reading.first_fault
    helping: list[tuple[TrapReading, Repair]] = []
    for attempt in trap.repairs:
        if left[0] <= 0 or left[1] < size or len(helping) > trap.clear:
            break
        left[0] -= 1
        left[1] -= size
        after = read(reading.source.quote(attempt.start, attempt.end, attempt.quoted, attempt.shed))
        needed = max(before, reading.source.origin(attempt.end) + 1) if trap.guess else before
        if after.first_fault > needed or (after.first_fault == before and not trap.guess):
            helping.append((after, attempt))
            if not trap.clear:
                break
    return helping
