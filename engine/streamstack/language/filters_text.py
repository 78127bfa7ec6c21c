"""Filters of texts."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Sequence
from html import escape as escape_html
from typing import Any, Final

from streamstack.language.expectations import (
    failed,
    integer_argument,
    items_of,
    at_path,
    text_argument,
    text_of,
    wrong,
)
from streamstack.language.operations import declare
from streamstack.language.patterns import checked, compile_pattern
from streamstack.language.values import to_text

_WORD: Final = re.compile(r"\w+(?:['’-]\w+)*")
_TAG: Final = re.compile(r"<!--.*?-->|<[^<>]*>", re.DOTALL)


@declare("filter", "upper", "The text in upper case.", '"Zoë" | upper', "ZOË")
def upper(value: Any) -> str:
    return text_of(value, "upper").upper()


@declare("filter", "lower", "The text in lower case.", '"Zoë" | lower', "zoë")
def lower(value: Any) -> str:
    return text_of(value, "lower").lower()


@declare(
    "filter", "capitalize", "The text with one capital, the first.", '"ada LOVELACE" | capitalize',
    "Ada lovelace",
)  # fmt: skip
def capitalize(value: Any) -> str:
    return text_of(value, "capitalize").capitalize()


@declare(
    "filter", "title", "The text with a capital at each word.", '"it\'s a day" | title', "It's A Day"
)
def title(value: Any) -> str:
    return re.sub(
        r"[^\W_]+(?:['’]\w+)*",
        lambda word: word.group()[0].upper() + word.group()[1:].lower(),
        text_of(value, "title"),
    )


@declare(
    "filter",
    "trim",
    "The text without white space, or the characters given, at both ends.",
    '["  a ", "--b-"] | map("trim", "- ")',
    ["a", "b"],
    aliases=("strip",),
)
def trim(value: Any, characters: Any = None) -> str:
    text = text_of(value, "trim")
    if characters is None:
        return text.strip()
    return text.strip(text_argument(characters, "trim", "characters"))


@declare(
    "filter",
    "replace",
    "The text with each occurrence of a text replaced, or only the first `count`.",
    '"a-b-c" | replace("-", "+", 1)',
    "a+b-c",
)
def replace(value: Any, old: Any, new: Any, count: Any = -1) -> str:
    text = text_of(value, "replace")
    count = integer_argument(count, "replace", "count", -1)
    old, new = text_argument(old, "replace", "old"), text_of(new, "replace")
    if len(new) * (text.count(old) if old else len(text)) > 10_000_000:
        raise failed("replace", "the result would be too long")
    return text.replace(old, new, count)


@declare(
    "filter",
    "split",
    "The parts of a text between a separator, at most `limit` times; without one, its words.",
    '"a,b,,c" | split(",")',
    ["a", "b", "", "c"],
)
def split(value: Any, separator: Any = None, limit: Any = -1) -> list[str]:
    text = text_of(value, "split")
    limit = integer_argument(limit, "split", "limit", -1)
    if separator is None:
        return text.split(None, limit)
    separator = text_argument(separator, "split", "separator")
    return text.split(separator, limit) if separator else list(text)


@declare(
    "filter", "lines", "The lines of a text, without their ends.", '"a\\nb\\r\\nc" | lines',
    ["a", "b", "c"],
)  # fmt: skip
def lines(value: Any) -> list[str]:
    return re.split(r"\r\n|\r|\n", text_of(value, "lines"))


@declare(
    "filter",
    "join",
    "The texts of a list's items, with a separator between; of an attribute of them, if given.",
    '[1, true, "c"] | join(", ")',
    "1, true, c",
)
def join(value: Any, separator: Any = "", attribute: Any = None) -> str:
    items: Sequence[Any] = value if isinstance(value, str) else items_of(value, "join")
    if attribute is not None:
        items = [at_path(item, attribute) for item in items]
    return text_argument(separator, "join", "separator").join(map(to_text, items))


def _check_pattern(arguments: Sequence[object]) -> tuple[str, str, str] | None:
    """Find a constant pattern that is none."""
    if arguments and isinstance(arguments[0], str):
        try:
            compile_pattern(arguments[0])
        except ValueError as error:
            return "bad-pattern", str(error), ""
    return None


@declare(
    "filter",
    "regexMatch",
    "Whether a regular expression is found in the text. Flags: i (any case), m (^ and $ at each "
    "line), s (a dot is any character).",
    '"Order 66" | regexMatch("^order \\\\d+$", "i")',
    True,
    check=_check_pattern,
)
def regex_match(value: Any, pattern: Any, flags: Any = "") -> bool:
    return _search("regexMatch", value, pattern, flags) is not None


@declare(
    "filter",
    "regexFind",
    "The first match of a regular expression, or of its group (a number or name); null where there "
    "is none.",
    '"Order 66" | regexFind("(\\\\d)(\\\\d)", 2)',
    "6",
    check=_check_pattern,
)
def regex_find(value: Any, pattern: Any, group: Any = 0, flags: Any = "") -> str | None:
    found = _search("regexFind", value, pattern, flags)
    if found is None:
        return None
    try:
        return found[group]
    except (IndexError, TypeError):
        raise failed("regexFind", f"the pattern has no group {to_text(group)}") from None


@declare(
    "filter",
    "regexReplace",
    "The text with each match of a regular expression replaced; \\1 or \\g<name> is a group of it.",
    '"2026-01-31" | regexReplace("(\\\\d+)-(\\\\d+)-(\\\\d+)", "\\\\3.\\\\2.\\\\1")',
    "31.01.2026",
    check=_check_pattern,
)
def regex_replace(value: Any, pattern: Any, replacement: Any, flags: Any = "", count: Any = 0) -> str:
    text = text_of(value, "regexReplace")
    compiled = checked(
        text_argument(pattern, "regexReplace", "pattern"),
        text_argument(flags, "regexReplace", "flags"),
        text,
        "regexReplace",
    )
    count = integer_argument(count, "regexReplace", "count", 0)
    try:
        return compiled.sub(text_argument(replacement, "regexReplace", "replacement"), text, count)
    except (re.error, IndexError) as error:
        raise failed("regexReplace", f"the replacement is not valid: {error}") from None


def _search(name: str, value: Any, pattern: Any, flags: Any) -> re.Match[str] | None:
    text = text_of(value, name)
    pattern, flags = text_argument(pattern, name, "pattern"), text_argument(flags, name, "flags")
    return checked(pattern, flags, text, name).search(text)


@declare(
    "filter",
    "escape",
    "The text with & < > and quotes written as HTML's entities.",
    '"<b> & \'c\'" | escape',
    "&lt;b&gt; &amp; &#x27;c&#x27;",
    aliases=("e",),
)
def escape(value: Any) -> str:
    return escape_html(to_text(value))


@declare(
    "filter",
    "striptags",
    "The text without HTML tags and comments, its white space made single spaces.",
    '"<p>Hello\\n <b>you</b></p>" | striptags',
    "Hello you",
)
def strip_tags(value: Any) -> str:
    return " ".join(_TAG.sub("", text_of(value, "striptags")).split())


@declare(
    "filter",
    "truncate",
    "The text cut to a number of characters, `end` included; at the end of a word unless "
    "`killwords`. A text no more than `leeway` longer stays whole.",
    '"Hello wide world" | truncate(12)',
    "Hello...",
)
def truncate(
    value: Any, length: Any = 255, killwords: Any = False, end: Any = "...", leeway: Any = 0
) -> str:
    text = text_of(value, "truncate")
    end = text_argument(end, "truncate", "end")
    length = integer_argument(length, "truncate", "length", len(end))
    if len(text) <= length + integer_argument(leeway, "truncate", "leeway", 0):
        return text
    cut = text[: length - len(end)]
    return (cut if killwords else cut.rsplit(" ", 1)[0]) + end


@declare(
    "filter",
    "truncateWords",
    "The first words of a text, followed by `end` if some were cut.",
    '"one two three" | truncateWords(2)',
    "one two...",
)
def truncate_words(value: Any, count: Any, end: Any = "...") -> str:
    text = text_of(value, "truncateWords")
    count = integer_argument(count, "truncateWords", "count", 0)
    found = list(re.finditer(r"\S+", text))
    if len(found) <= count:
        return text
    stop = found[count - 1].end() if count else 0
    return text[:stop] + text_argument(end, "truncateWords", "end")


@declare(
    "filter",
    "wordCount",
    "How many words a text has.",
    '"It\'s a well-known fact." | wordCount',
    4,
    aliases=("wordcount",),
)
def word_count(value: Any) -> int:
    return len(_WORD.findall(text_of(value, "wordCount")))


@declare(
    "filter", "chars", "The characters of a text, as a list.", '"Zoë" | chars', ["Z", "o", "ë"]
)
def chars(value: Any) -> list[str]:
    return list(text_of(value, "chars"))


@declare(
    "filter",
    "slug",
    "The text as a part of an address: lower case letters, digits and single hyphens.",
    '"Crème Brûlée, für 2!" | slug',
    "creme-brulee-fur-2",
)
def slug(value: Any, separator: Any = "-") -> str:
    folded = unicodedata.normalize("NFKD", text_of(value, "slug").replace("ß", "ss"))
    bare = "".join(sign for sign in folded if not unicodedata.combining(sign)).lower()
    words = re.findall(r"[^\W_]+", bare)
    return text_argument(separator, "slug", "separator").join(words)


@declare(
    "filter",
    "indent",
    "The text with each line but the first (unless `first`) moved in; empty ones only if `blank`.",
    '"a\\nb" | indent(2)',
    "a\n  b",
)
def indent(value: Any, width: Any = 4, first: Any = False, blank: Any = False) -> str:
    text = text_of(value, "indent")
    space = width if isinstance(width, str) else " " * integer_argument(width, "indent", "width", 0, 100)
    head, *rest = text.split("\n")
    moved = [space + line if line or blank else line for line in rest]
    return "\n".join([space + head if first else head, *moved])


@declare(
    "filter",
    "wordwrap",
    "The text broken into lines of at most a number of characters.",
    '"Hello wide world" | wordwrap(10)',
    "Hello wide\nworld",
)
def wordwrap(value: Any, width: Any = 79, break_long_words: Any = True, wrapstring: Any = "\n") -> str:
    text = text_of(value, "wordwrap")
    width = integer_argument(width, "wordwrap", "width", 1)
    between = text_argument(wrapstring, "wordwrap", "wrapstring")
    return between.join(
        between.join(
            textwrap.wrap(
                line,
                width,
                expand_tabs=False,
                replace_whitespace=False,
                break_long_words=bool(break_long_words),
                break_on_hyphens=False,
            )
        )
        for line in text.splitlines()
    )


@declare("filter", "center", "The text in the middle of a width.", '"a" | center(3)', " a ")
def center(value: Any, width: Any = 80) -> str:
    return text_of(value, "center").center(integer_argument(width, "center", "width", 0))


@declare(
    "filter",
    "padStart",
    "The text made a number of characters long by a character before it.",
    '7 | padStart(3, "0")',
    "007",
)
def pad_start(value: Any, width: Any, character: Any = " ") -> str:
    return _padded("padStart", width, character, text_of(value, "padStart"), before=True)


@declare(
    "filter",
    "padEnd",
    "The text made a number of characters long by a character behind it.",
    '"a" | padEnd(3, ".")',
    "a..",
)
def pad_end(value: Any, width: Any, character: Any = " ") -> str:
    return _padded("padEnd", width, character, text_of(value, "padEnd"), before=False)


def _padded(name: str, width: Any, character: Any, text: str, *, before: bool) -> str:
    width = integer_argument(width, name, "width", 0)
    if not isinstance(character, str) or len(character) != 1:
        raise wrong(name, "one character to pad with", character)
    return text.rjust(width, character) if before else text.ljust(width, character)
