"""What is wrong with a text that is not YAML, in plain English."""

from __future__ import annotations

import re
from typing import Final

from streamstack.errors import Diagnostic, Mark
from streamstack.language.findings import find
from streamstack.language.reading.positions import SourceText

_INVALID: Final = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_QUOTES: Final = "put quotes around the whole value"
_INDENT: Final = (
    "The line does not fit the lines above it.",
    "indent the keys of one mapping, and the `-` of one list, alike",
)
_FLOW: Final = (
    "close every `{` and `[`, separate with commas, and quote values that hold `, : { } [ ]`"
)

#: The parser's words, a piece of each, with what they mean to an author and what to write.
_MEANINGS: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "mapping values are not allowed",
        "A `: ` stands where no key can be.",
        f"a text that holds `: ` needs quotes: {_QUOTES}, or check the indentation",
    ),
    (
        "could not find expected ':'",
        "A line has no `key:`.",
        "write `key: value`, or indent the line deeper than the text it belongs to",
    ),
    ("did not find expected ',' or '}'", "A `{` is not closed, or a comma is missing.", _FLOW),
    ("did not find expected ',' or ']'", "A `[` is not closed, or a comma is missing.", _FLOW),
    ("expected ',' or", "A bracket is not closed, or a comma is missing.", _FLOW),
    ("did not find expected key", *_INDENT),
    ("did not find expected '-' indicator", *_INDENT),
    ("expected <block end>", *_INDENT),
    (
        "block sequence entries are not allowed",
        "A list can't begin here.",
        "begin the list on a line of its own: `- item`",
    ),
    ("block collections", "A list or a mapping can't begin here.", "begin it on a line of its own"),
    ("unexpected end of stream", "A quote is not closed.", "close the quote"),
    (
        "unexpected document",
        "A quote is still open where the next document begins.",
        "close the quote",
    ),
    (
        "unknown escape character",
        "The backslash begins no escape sequence that YAML knows.",
        "use single quotes, in which a backslash is a backslash",
    ),
    (
        "hexadecimal",
        "The escape sequence is not complete.",
        "use single quotes, in which a backslash is a backslash",
    ),
    (
        "invalid Unicode character escape",
        "The escape sequence names no character.",
        "write the character itself",
    ),
    (
        "document start",
        "A second value stands where the document has ended.",
        "begin another document with `---`, or indent the line",
    ),
    (
        "indentation",
        "The indentation of the block of text is wrong.",
        "indent each of its lines by the same number of spaces",
    ),
    ("a tab character", "A tab stands where only spaces can.", "indent with spaces"),
    ("expected node content", "A value is missing here.", "write a value, or null"),
    ("found duplicate anchor", "The name of the anchor stands twice.", "give it another name"),
)


def refuse_characters(source: SourceText) -> Diagnostic | None:
    """Return the finding of the first character that no YAML text can hold."""
    found = _INVALID.search(source.text)
    if found is None:
        return None
    char = ord(found.group())
    name = f"U+{char:04X}"
    where = source.mark(found.start())
    if char == 0:
        return find(
            "yaml-syntax",
            where,
            "The file holds a NUL character: it may not be text in UTF-8.",
            "save it as UTF-8",
        )
    if char in (0x85, 0x2028, 0x2029):
        hint = f'write it in double quotes as "\\u{char:04X}"'
        return find(
            "yaml-syntax",
            where,
            f"The invisible line break {name} would end the line for some readers.",
            hint,
        )
    if 0xD800 <= char <= 0xDFFF:
        return find(
            "yaml-syntax",
            where,
            f"{name} is half a character: the file is not valid UTF-8.",
            "save it as UTF-8",
        )
    hint = f'take it out, or write it in double quotes as "\\u{char:04X}"'
    return find("yaml-syntax", where, f"The character {name} can't stand in YAML.", hint)


def describe(source: SourceText, at: int, problem: str, context: str) -> tuple[str, str]:
    """Return message and hint for the parser's own words about a problem at an index."""
    char = source.text[at : at + 1]
    if "cannot start any token" in problem or "alphabetic or numeric" in problem:
        start, _ = source.line(at)
        if char == "\t" or (
            not source.text[start:at].strip(" \t") and "\t" in source.text[start:at]
        ):
            return "A tab can't indent a line.", "indent with spaces"
        if "alias" in context or "anchor" in context:
            return "A value that begins with `*` or `&` is an alias or an anchor in YAML.", _QUOTES
        return f"A value can't begin with `{char}`.", _QUOTES
    for piece, message, hint in _MEANINGS:
        if piece in problem:
            return message, hint
    return (
        f"YAML can't read this: {problem or context or 'unknown problem'}.",
        "check the lines up to this place",
    )


def syntax_fault(
    source: SourceText, at: int, problem: str, context: str, opened: Mark | None
) -> Diagnostic:
    """Return the finding of a syntax error; ``opened`` is where the quote or bracket began."""
    message, hint = describe(source, at, problem, context)
    where = source.mark(at)
    if opened is not None and opened.line != where.line and message.startswith("A quote"):
        return find("yaml-syntax", opened, message, hint)
    if opened is not None and opened.line != where.line and "is not closed" in message:
        message = f"{message[:-1]}; it was opened in line {opened.line}."
    return find("yaml-syntax", where, message, hint)
