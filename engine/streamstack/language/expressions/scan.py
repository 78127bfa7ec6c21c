"""The grammar of expressions: tokens, limits, problems."""

from __future__ import annotations

import re
from typing import Final

from jinja2 import Environment, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.lexer import Token, TokenStream, operators
from jinja2.parser import Parser

#: Brackets inside brackets; Jinja2's parser takes about 14 Python frames for each.
MAX_BRACKETS: Final = 30

_OPENING: Final = re.compile(r"\\?(?:<<|<%|<#)")
_WORD: Final = re.compile(
    r"""
    (?P<space>\s+)
    | (?P<name>[^\W\d]\w*)
    | (?P<string>'[^'\\]*(?:\\.[^'\\]*)*' | "[^"\\]*(?:\\.[^"\\]*)*")
    | (?P<float>(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?[eE][+\-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+))
    | (?P<integer>0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0[xX](?:_?[\da-fA-F])+|[1-9](?:_?\d)*|0(?:_?0)*)
    | (?P<end>>>|%>)
    | (?P<wrong>\|\||&&?|===|\?|!(?!=))
    | (?P<operator>\*\*|//|==|!=|>=|<=|[-+/*%~\[\](){}><=.:|,;])
    """,
    re.VERBOSE | re.DOTALL,
)
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}
_ESCAPE: Final = re.compile(r"\\(?:(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPES: Final = {
    **{sign: sign for sign in "\\'\""},
    **dict(zip("abfnrtv0", "\a\b\f\n\r\t\v\0", strict=True)),
    "\n": "",
}
_INSTEAD: Final = {
    "||": "write `or`",
    "&&": "write `and`",
    "&": "write `and`, or `~` to join texts",
    "===": "write `==`",
    "?": "write `a if condition else b`, or `x | default(...)`",
    "!": "write `not x`",
}


class Problem(Exception):  # noqa: N818  (one of many findings, not what stops a program)
    """What is wrong with an expression, at an offset of its text."""

    def __init__(self, code: str, message: str, offset: int, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.offset = offset
        self.hint = hint


def next_opening(text: str, start: int) -> tuple[int, str] | None:
    r"""Return where the next `<<`, `<%` or `<#` stands, escaped (`\<<`) or not, or None."""
    found = _OPENING.search(text, start)
    return (found.start(), found.group()) if found else None


def scan(text: str, start: int, end: str, tokens: list[Token]) -> int:
    """Append the tokens from an offset up to `end` (`>>`, `%>`, or "" for the text's end).

    Returns the offset behind `end`. Raises Problem ``bad-template``.
    """
    position, size = start, len(text)
    open_brackets: list[tuple[int, str]] = []
    match = _WORD.match
    while position < size:
        found = match(text, position)
        if found is None:
            raise _unknown(text, position)
        group, word = found.lastgroup, found.group()
        if group == "name":
            if not word.isidentifier():
                raise Problem("bad-template", f"`{word}` is not a name", position)
            tokens.append(Token(position, "name", word))
        elif group == "operator":
            if word in "()[]{}":
                _balance(open_brackets, word, position)
            tokens.append(Token(position, operators[word], word))
        elif group == "string":
            tokens.append(Token(position, "string", _unescape(word, position)))
        elif group in ("integer", "float"):
            tokens.append(_number(group, word, position))
        elif group == "end":
            if word == end and not open_brackets:
                return position + 2
            for offset, sign in enumerate(word):
                tokens.append(Token(position + offset, operators[sign], sign))
        elif group == "wrong":
            raise Problem("bad-template", f"unexpected `{word}`", position, _INSTEAD[word])
        position += len(word)
    if open_brackets:
        opened, bracket = open_brackets[-1]
        raise Problem("bad-template", f"`{bracket}` is never closed", opened)
    if end:
        raise unclosed(end, start - 2)
    return size


def _balance(open_brackets: list[tuple[int, str]], word: str, position: int) -> None:
    if word in _CLOSING:
        open_brackets.append((position, word))
        if len(open_brackets) > MAX_BRACKETS:
            raise too_deep(position)
        return
    if not open_brackets:
        raise Problem("bad-template", f"`{word}` closes nothing", position)
    _, bracket = open_brackets.pop()
    if _CLOSING[bracket] != word:
        message = f"`{word}` where `{_CLOSING[bracket]}` should close the `{bracket}`"
        raise Problem("bad-template", message, position)


def unclosed(end: str, offset: int) -> Problem:
    """Return the problem of a `<<`, `<%` or `<#` without its end."""
    begin = {">>": "<<", "%>": "<%", "#>": "<#"}[end]
    return Problem(
        "bad-template",
        f"`{begin}` is never closed with `{end}`",
        offset,
        f"write `\\{begin}` for the characters themselves",
    )


def too_deep(offset: int) -> Problem:
    """Return the problem of an expression nested too deeply."""
    return Problem(
        "bad-template", "the expression is nested too deeply", offset, "give a part of it a name of its own with `set`"
    )


def _unknown(text: str, position: int) -> Problem:
    sign = text[position]
    if sign in "\"'":
        return Problem("bad-template", f"the text that begins with {sign} has no end", position)
    return Problem("bad-template", f"unexpected `{sign}`", position)


def _unescape(word: str, position: int) -> str:
    r"""Return the text between quotes. As in Jinja2, an unknown escape (`\d`) is left as it is."""
    if "\\" not in word:
        return word[1:-1]
    try:
        text = _ESCAPE.sub(_escaped, word[1:-1])
        # JSON writes characters above U+FFFF as two escapes.
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except (ValueError, OverflowError):
        message = "a `\\` escape of this text is not a character"
        raise Problem("bad-template", message, position) from None


def _escaped(found: re.Match[str]) -> str:
    digits, sign = found.groups()
    return chr(int(digits[1:], 16)) if digits else _ESCAPES.get(sign, "\\" + sign)


def _number(group: str, word: str, position: int) -> Token:
    try:
        number = float(word.replace("_", "")) if group == "float" else int(word.replace("_", ""), 0)
        if group == "float" and number in (float("inf"), float("-inf")):
            raise ValueError
    except ValueError:
        raise Problem("bad-template", "the number is too large", position) from None
    # Token's value is declared as text; Jinja2's own lexer puts numbers there too.
    return Token(position, group, number)  # type: ignore[arg-type]


#: Asked by the parser for nothing that we use: delimiters are the scanner's.
ENVIRONMENT: Final = Environment(autoescape=False)  # noqa: S701  (text is not HTML by itself)

_EXPECTED: Final = re.compile(r"expected token '(.*?)', got '(.*)'$", re.DOTALL)
_WORDS: Final = {
    "end of print statement": ">>",
    "end of statement block": "%>",
    "begin of print statement": "<<",
    "begin of statement block": "<%",
    "integer": "a number",
    "float": "a number",
    "string": "a text",
    "name": "a name",
}


class TokenParser(Parser):
    """Jinja2's parser over a list of tokens whose line numbers are offsets."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(ENVIRONMENT, "")
        self.stream = TokenStream(iter(tokens), None, None)


def parse_tokens(tokens: list[Token], start: int) -> nodes.Expr:
    """Parse the tokens of one expression; `start` is where an empty one stands.

    Raises Problem ``bad-template``.
    """
    if not tokens:
        raise Problem("bad-template", "the expression between `<<` and `>>` is missing", start)
    try:
        parser = TokenParser(tokens)
        node = parser.parse_expression()
        current = parser.stream.current
        if current.type != "eof":
            raise _unexpected(current)
        return node
    except TemplateSyntaxError as error:
        raise reword(error, tokens) from None
    except RecursionError:
        raise too_deep(start) from None


def _unexpected(token: Token) -> Problem:
    if token.type == "comma":
        hint = "write `[a, b]` for a list"
    elif token.type == "assign":
        hint = "write `==` to compare"
    elif token.type in ("name", "string", "integer", "float"):
        hint = "an operator, a `|` or a quote may be missing before it"
    else:
        hint = ""
    return Problem("bad-template", f"unexpected `{token.value}`", token.lineno, hint)


def reword(error: TemplateSyntaxError, tokens: list[Token]) -> Problem:
    """Return Jinja2's syntax error as a problem in the author's words."""
    message = error.message or "this is not an expression"
    offset = error.lineno
    found = _EXPECTED.search(message)
    if "end of template" in message:
        return Problem("bad-template", "the expression ends too early", offset)
    if found:
        expected, got = found.group(1), found.group(2)
        at = next((token for token in tokens if token.lineno == offset), None)
        got = str(at.value) if at is not None else _WORDS.get(got, got)
        expected = _WORDS.get(expected, expected)
        expected = expected if expected.startswith("a ") else f"`{expected}`"
        return Problem("bad-template", f"expected {expected}, got `{got}`", offset)
    message = message[0].lower() + message[1:].rstrip(".")
    return Problem("bad-template", re.sub(r"'(.*?)'", r"`\1`", message), offset)
