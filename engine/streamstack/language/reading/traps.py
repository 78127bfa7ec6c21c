"""The traps of YAML: values that need quotes, and the author's line with the quotes in it.

Bindings hold characters that mean something to YAML: commas, braces, `: ` and ` #`. Where one of
them cuts a value that has no quotes, the finding shows the line as it must be written, and the
reader goes on as if it were.
"""

from __future__ import annotations

import re
from typing import Final

from streamstack.language.reading.nodes import Scalar
from streamstack.language.reading.positions import SourceText
from streamstack.records import record

_LONGEST: Final = 4000
_SHOWN: Final = 300
_COMMENT: Final = re.compile(r"[ \t]+#")
_TO_END: Final = re.compile(r"#[^\r\n]*")
_COLON: Final = re.compile(r"[ \t]*:(?=[ \t\r\n]|$)")
_KEY_END: Final = re.compile(r"\s*:")
_BLANK: Final = re.compile(r"(?:\r\n|\r|\n)(?:[ \t]*(?:\r|\n)|---|\.\.\.)")
_STRING: Final = re.compile(r"\"(?:[^\"\\]|\\[\s\S])*\"|'(?:[^'\\]|\\[\s\S])*'")
_MUSTACHE: Final = re.compile(r"\{\{[ \t]*([^{}\r\n]+?)[ \t]*\}\}")
_NAMES: Final = {
    ",": "comma",
    "{": "brace",
    "}": "brace",
    "[": "bracket",
    "]": "bracket",
    ":": "colon",
}


@record()
class Repair:
    """Quotes around text[start:end], from which ``shed`` characters at both ends are left out."""

    start: int
    end: int
    quoted: str
    shed: int = 0


@record()
class Trap:
    """A place where YAML reads otherwise than the author meant, and the likeliest repairs.

    ``at`` is the index to point at. A ``guess`` is a trap only if a repair removes a syntax error.
    """

    code: str
    at: int
    message: str
    repairs: tuple[Repair, ...]
    guess: bool = False


def unclosed(value: str) -> int:
    r"""Return the offset of a `<<` without its `>>`, -1 if there is none; `\<<` is no binding."""
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


def cut_value(source: SourceText, scalar: Scalar, *, flow: bool) -> Trap | None:
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
        message = (
            f"YAML takes ` #` for a comment, which cuts the value off after {code(scalar.text)}"
        )
        return Trap("cut-by-comment", opening, message, (repair,))
    sign = text[end:].lstrip()[:1]
    name = _NAMES.get(sign, "punctuation")
    message = (
        f"YAML's own {name} ends the value after {code(scalar.text)}, so its `<<` is never closed"
    )
    return Trap("yaml-quotes", opening, message, (repair,))


def holds_commented(text: str) -> bool:
    """Tell whether any comment of a text, or what looks like one, holds a `<<`."""
    return "<<" in text and any("<<" in found.group() for found in _TO_END.finditer(text))


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
        return None
    close = closing(text, opening + 2, lines=False)
    end = extend(text, close, flow=flow) if close > 0 else last
    start = scalar.start if scalar.text else sign
    after = f"cuts the value off after {code(scalar.text)}" if scalar.text else "leaves no value"
    message = f"YAML takes ` #` for a comment, which {after}"
    repair = quote(text, start, start + len(text[start:end].rstrip()))
    return Trap("cut-by-comment", sign, message, (repair,))


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


def describe_valueless(source: SourceText, previous: Scalar | None, keys: list[Scalar]) -> str:
    """Say what keys without a value in braces need; ``previous`` is the plain text before them."""
    names = [" ".join(key.text.split()) for key in keys[:3]]
    needed = ", ".join(f"{name}: ..." for name in names)
    message = f"{code(names[0])} has no value; in braces each key needs one: {{{needed}}}"
    if previous is None:
        return f"{message}. A list is written [{', '.join(names)}]"
    repair = quote(source.text, previous.start, keys[-1].end)
    return f"{message}. A text with a comma needs quotes; write: {show(source, repair)}"


def describe_mustache(source: SourceText, start: int) -> str | None:
    """Say how `{{name}}`, two mappings to YAML, is written as a binding; None if it is not that."""
    found = _MUSTACHE.match(source.text, start)
    if found is None:
        return None
    shown = show(source, Repair(start, found.end(), f"<<{found[1]}>>"))
    return (
        f"YAML reads {code(found[0])} as a mapping in a mapping, not as a binding; write: {shown}"
    )


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

    Strings of the expression are passed over. Another `<<`, an empty line and, unless ``lines``,
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
        close = (
            closing(text, at + 2, lines=False) if char == "<" and text.startswith("<<", at) else -1
        )
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
