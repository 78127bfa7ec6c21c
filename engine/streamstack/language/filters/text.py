"""Filters of texts, and filters that match regular expressions."""

from __future__ import annotations

import json
import re
import textwrap
import unicodedata
from collections.abc import Sequence
from html import escape as escape_html
from typing import Any, Final

from streamstack.language.filters.operations import (
    MAX_ADDED,
    ROWS,
    TEXT,
    WRITABLE,
    ArgumentFault,
    at_path,
    declare,
    failed,
    integer_argument,
    items_of,
    limit_added,
    text_argument,
    text_of,
    whole,
    wrong,
)
from streamstack.language.operators import MAX_TEXT
from streamstack.language.patterns import Pattern, compile_pattern
from streamstack.language.values import to_text

# An author passes an argument by position or by name, whatever it is.
# ruff: noqa: FBT002


_WORD: Final = re.compile(r"\w+(?:['’-]\w+)*")  # noqa: RUF001
_BEYOND_ASCII: Final = re.compile("[^\x00-\x7f]")
_TAG: Final = re.compile(r"<[^<>]*>")
_TAG_OR_COMMENT: Final = re.compile(r"<!--.*?-->|<[^<>]*>", re.DOTALL)


@declare("filter", "upper", '"Zoë" | upper', "ZOË", shape=f"{WRITABLE} -> text")
def upper(value: Any) -> str:
    """Convert a text to upper case."""
    return text_of(value, "upper").upper()


@declare("filter", "lower", '"Zoë" | lower', "zoë", shape=f"{WRITABLE} -> text")
def lower(value: Any) -> str:
    """Convert a text to lower case."""
    return text_of(value, "lower").lower()


@declare(
    "filter", "capitalize", '"ada LOVELACE" | capitalize',
    "Ada lovelace", shape=f"{WRITABLE} -> text",
)  # fmt: skip
def capitalize(value: Any) -> str:
    """Convert the first character to upper case and the others to lower case."""
    return text_of(value, "capitalize").capitalize()


@declare("filter", "title", '"it\'s a day" | title', "It's A Day", shape=f"{WRITABLE} -> text")
def title(value: Any) -> str:
    """Capitalize each word."""
    return re.sub(
        r"[^\W_]+(?:['’]\w+)*",  # noqa: RUF001
        lambda word: word.group()[0].upper() + word.group()[1:].lower(),
        text_of(value, "title"),
    )


@declare(
    "filter",
    "trim",
    '["  a ", "--b-"] | map("trim", "- ")',
    ["a", "b"],
    aliases=("strip",),
    takes={"characters": TEXT},
    shape=f"{WRITABLE} -> text",
)
def trim(value: Any, characters: str | None = None) -> str:
    """Remove white space, or the given characters, from both ends."""
    text = text_of(value, "trim")
    if characters is None:
        return text.strip()
    return text.strip(characters)


@declare(
    "filter",
    "replace",
    '"a-b-c" | replace("-", "+", 1)',
    "a+b-c",
    takes={"old": TEXT, "count": whole(-1)},
    shape=f"{WRITABLE} -> text",
    arguments=("", WRITABLE),
)
def replace(value: Any, old: Any, new: Any, count: Any = -1) -> str:
    """Replace each occurrence of a text, or only the first `count`."""
    text = text_of(value, "replace")
    new = text_of(new, "replace")
    occurrences = text.count(old) if old else len(text) + 1
    limit_added(len(new) * (occurrences if count < 0 else min(count, occurrences)), "replace")
    return text.replace(old, new, count)


@declare(
    "filter",
    "split",
    '"a,b,,c" | split(",")',
    ["a", "b", "", "c"],
    takes={"separator": TEXT, "limit": whole(-1)},
    shape=f"{WRITABLE} -> [text]",
)
def split(value: Any, separator: Any = None, limit: Any = -1) -> list[str]:
    """Split a text by a separator, at most `limit` times; without a separator, into words."""
    text = text_of(value, "split")
    if separator is None:
        return text.split(None, limit)
    return text.split(separator, limit) if separator else list(text)


@declare(
    "filter", "lines", '"a\\nb\\r\\nc" | lines',
    ["a", "b", "c"], shape=f"{WRITABLE} -> [text]",
)  # fmt: skip
def lines(value: Any) -> list[str]:
    """Split a text into lines, without line breaks."""
    return re.split(r"\r\n|\r|\n", text_of(value, "lines"))


@declare(
    "filter",
    "join",
    '[1, true, "c"] | join(", ")',
    "1, true, c",
    takes={"separator": TEXT},
    shape=f"{ROWS} | text -> text",
)
def join(value: Any, separator: str = "", attribute: Any = None) -> str:
    """Join the items of a list, or an attribute of them, into a text with a separator."""
    items: Sequence[Any] = value if isinstance(value, str) else items_of(value, "join")
    if attribute is not None:
        items = [at_path(item, attribute) for item in items]
    limit_added(len(separator) * len(items), "join")
    texts = list(map(to_text, items))
    if sum(map(len, texts)) > MAX_TEXT:
        raise failed("join", f"the text would have more than {MAX_TEXT:,} characters")
    return separator.join(texts)


@declare(
    "filter", "escape", "\"<b> & 'c'\" | escape", "&lt;b&gt; &amp; &#x27;c&#x27;", aliases=("e",), shape="any? -> text"
)
def escape(value: Any) -> str:
    """Escape &, <, > and quotes for HTML."""
    return escape_html(to_text(value))


@declare("filter", "striptags", '"<p>Hello\\n <b>you</b></p>" | striptags', "Hello you", shape=f"{WRITABLE} -> text")
def strip_tags(value: Any) -> str:
    """Remove HTML tags and comments, and collapse white space."""
    text = text_of(value, "striptags")
    # Behind the last `-->` no comment can end: looking for it from each `<!--` there would take for ever.
    _, arrow, behind = text.rpartition("-->")
    before = text[: len(text) - len(behind)] if arrow else ""
    return " ".join((_TAG_OR_COMMENT.sub("", before) + _TAG.sub("", behind)).split())


@declare(
    "filter",
    "truncate",
    '"Hello wide world" | truncate(12)',
    "Hello...",
    takes={"length": whole(), "end": TEXT, "leeway": whole()},
    shape=f"{WRITABLE} -> text",
)
def truncate(value: Any, length: Any = 255, killwords: Any = False, end: Any = "...", leeway: Any = 0) -> str:
    """Truncate a text to a number of characters, including `end`; at a word boundary unless `killwords`.

    A text that is at most `leeway` characters longer is not truncated.
    """
    text = text_of(value, "truncate")
    if length < len(end):
        raise failed("truncate", "the length must have room for `end`")
    if len(text) <= length + leeway:
        return text
    cut: str = text[: length - len(end)]
    return f"{cut if killwords else cut.rsplit(' ', 1)[0]}{end}"


@declare(
    "filter",
    "truncateWords",
    '"one two three" | truncateWords(2)',
    "one two...",
    takes={"count": whole(), "end": TEXT},
    shape=f"{WRITABLE} -> text",
)
def truncate_words(value: Any, count: int, end: str = "...") -> str:
    """Truncate a text to a number of words, followed by `end` if any were cut."""
    text = text_of(value, "truncateWords")
    found = list(re.finditer(r"\S+", text))
    if len(found) <= count:
        return text
    stop = found[count - 1].end() if count else 0
    return text[:stop] + end


@declare(
    "filter",
    "wordCount",
    '"It\'s a well-known fact." | wordCount',
    4,
    aliases=("wordcount",),
    shape=f"{WRITABLE} -> integer",
)
def word_count(value: Any) -> int:
    """Return the number of words."""
    return len(_WORD.findall(text_of(value, "wordCount")))


@declare("filter", "chars", '"Zoë" | chars', ["Z", "o", "ë"], shape=f"{WRITABLE} -> [text]")
def chars(value: Any) -> list[str]:
    """Return the characters of a text as a list."""
    return list(text_of(value, "chars"))


def _fold(letter: re.Match[str]) -> str:
    return unicodedata.normalize("NFKD", letter[0])


@declare(
    "filter",
    "slug",
    '"Crème Brûlée, für 2!" | slug',
    "creme-brulee-fur-2",
    takes={"separator": TEXT},
    shape=f"{WRITABLE} -> text",
)
def slug(value: Any, separator: str = "-") -> str:
    """Convert a text to a URL slug: lower-case letters, digits and single hyphens."""
    # Letter by letter: in a whole text the marks behind a letter are sorted, in quadratic time.
    folded = _BEYOND_ASCII.sub(_fold, text_of(value, "slug").replace("ß", "ss"))
    bare = "".join(sign for sign in folded if not unicodedata.combining(sign)).lower()
    words = re.findall(r"[^\W_]+", bare)
    return separator.join(words)


@declare("filter", "indent", '"a\\nb" | indent(2)', "a\n  b", shape=f"{WRITABLE} -> text")
def indent(value: Any, width: Any = 4, first: Any = False, blank: Any = False) -> str:
    """Indent lines, except the first and empty lines. `first` and `blank` include those."""
    text = text_of(value, "indent")
    space = width if isinstance(width, str) else " " * integer_argument(width, "indent", "width", 0, 100)
    head, *rest = text.split("\n")
    moved = [space + line if line or blank else line for line in rest]
    return "\n".join([space + head if first else head, *moved])


@declare(
    "filter",
    "wordwrap",
    '"Hello wide world" | wordwrap(10)',
    "Hello wide\nworld",
    takes={"width": whole(1), "wrapstring": TEXT},
    shape=f"{WRITABLE} -> text",
)
def wordwrap(value: Any, width: Any = 79, break_long_words: Any = True, wrapstring: str = "\n") -> str:
    """Wrap a text into lines of at most the given number of characters."""
    text = text_of(value, "wordwrap")
    return wrapstring.join(
        wrapstring.join(
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


@declare("filter", "center", '"a" | center(3)', " a ", takes={"width": whole()}, shape=f"{WRITABLE} -> text")
def center(value: Any, width: Any = 80) -> str:
    """Center a text in the given width."""
    return text_of(value, "center").center(width)


@declare("filter", "padStart", '7 | padStart(3, "0")', "007", takes={"width": whole()}, shape=f"{WRITABLE} -> text")
def pad_start(value: Any, width: Any, character: Any = " ") -> str:
    """Pad a text at the start to the given length."""
    return _padded("padStart", width, character, text_of(value, "padStart"), before=True)


@declare("filter", "padEnd", '"a" | padEnd(3, ".")', "a..", takes={"width": whole()}, shape=f"{WRITABLE} -> text")
def pad_end(value: Any, width: Any, character: Any = " ") -> str:
    """Pad a text at the end to the given length."""
    return _padded("padEnd", width, character, text_of(value, "padEnd"), before=False)


def _padded(name: str, width: Any, character: Any, text: str, *, before: bool) -> str:
    if not isinstance(character, str) or len(character) != 1:
        raise wrong(name, "one character to pad with", character)
    return text.rjust(width, character) if before else text.ljust(width, character)


#: A pattern between the slashes of JavaScript and PHP, with anchors or flags that show it.
_SLASHES: Final = re.compile(r"/(\^.*|.*\$|.*(?=/[a-z]))/([a-z]{0,4})", re.DOTALL)
#: The reference to a group of JavaScript and PHP.
_DOLLAR_GROUP: Final = re.compile(r"\$(?:([0-9])|\{([A-Za-z0-9_]+)\})")


def _check_pattern(arguments: Sequence[object]) -> ArgumentFault | None:
    """Return the problem with a constant pattern that is invalid."""
    if not arguments or not isinstance(arguments[0], str):
        return None
    if (found := _SLASHES.fullmatch(arguments[0])) is not None and set(found[2]) <= set("gimsu"):
        flags = "".join(flag for flag in found[2] if flag in "ims")
        written = json.dumps(found[1], ensure_ascii=False) + (f', "{flags}"' if flags else "")
        message = "the slashes are part of the pattern: it is a text, and flags are an argument of their own"
        last = len(arguments) == 1
        return ArgumentFault("bad-pattern", message, f"write `({written})`", 0, written if last else "")
    try:
        compile_pattern(arguments[0])
    except ValueError as error:
        return ArgumentFault("bad-pattern", str(error))
    return None


def _check_replacement(arguments: Sequence[object]) -> ArgumentFault | None:
    """Return the problem with a constant pattern or replacement of `regexReplace`."""
    fault = _check_pattern(arguments)
    if fault is None and len(arguments) > 1 and isinstance(arguments[1], str):
        written = _DOLLAR_GROUP.sub(lambda found: f"\\g<{found[2]}>" if found[2] else f"\\{found[1]}", arguments[1])
        if written != arguments[1]:
            shown = json.dumps(written, ensure_ascii=False)
            message = "`$` is a sign like others in a replacement: groups are `\\1` and `\\g<name>`"
            return ArgumentFault("foreign-binding", message, f"write `{shown}`", 1, shown)
    return fault


@declare(
    "filter",
    "regexMatch",
    '"Order 66" | regexMatch("^order \\\\d+$", "i")',
    True,
    check=_check_pattern,
    shape=f"{WRITABLE} -> boolean",
    arguments=("text", "text"),
)
def regex_match(value: Any, pattern: Any, flags: Any = "") -> bool:
    """Check that a regular expression (RE2 syntax) matches anywhere in the text.

    Flags: i (ignore case), m (^ and $ match at each line), s (a dot matches any character).
    """
    try:
        return _compile("regexMatch", pattern, flags).matches(text_of(value, "regexMatch"))
    except ValueError as error:
        raise failed("regexMatch", str(error)) from None


@declare(
    "filter",
    "regexFind",
    '"Order 66" | regexFind("(\\\\d)(\\\\d)", 2)',
    "6",
    check=_check_pattern,
    shape=f"{WRITABLE} -> text?",
    arguments=("text", "text | integer", "text"),
)
def regex_find(value: Any, pattern: Any, group: Any = 0, flags: Any = "") -> str | None:
    """Return the first match of a regular expression, or a group of it (by number or name); null if there is none."""
    text = text_of(value, "regexFind")
    compiled = _compile("regexFind", pattern, flags)
    if not isinstance(group, (int, str)):
        raise failed("regexFind", f"the pattern has no group {to_text(group)}")
    try:
        return compiled.find(text, group)
    except (ValueError, IndexError) as error:
        raise failed("regexFind", str(error)) from None


@declare(
    "filter",
    "regexReplace",
    '"2026-01-31" | regexReplace("(\\\\d+)-(\\\\d+)-(\\\\d+)", "\\\\3.\\\\2.\\\\1")',
    "31.01.2026",
    check=_check_replacement,
    shape=f"{WRITABLE} -> text",
    arguments=("text", "text", "text", "integer"),
)
def regex_replace(value: Any, pattern: Any, replacement: Any, flags: Any = "", count: Any = 0) -> str:
    r"""Replace each match of a regular expression; \1 or \g<name> inserts a group."""
    text = text_of(value, "regexReplace")
    compiled = _compile("regexReplace", pattern, flags)
    count = integer_argument(count, "regexReplace", "count", 0)
    replacement = text_argument(replacement, "regexReplace", "replacement")
    try:
        return compiled.replace(text, replacement, count, MAX_ADDED)
    except ValueError as error:
        raise failed("regexReplace", str(error)) from None


def _compile(name: str, pattern: Any, flags: Any) -> Pattern:
    pattern, flags = text_argument(pattern, name, "pattern"), text_argument(flags, name, "flags")
    try:
        return compile_pattern(pattern, flags)
    except ValueError as error:
        raise failed(name, str(error)) from None
