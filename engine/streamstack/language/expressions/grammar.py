"""Jinja2's own parser, reading our tokens."""

from __future__ import annotations

import re
from typing import Final

from jinja2 import Environment, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser

from streamstack.language.expressions.scan import Problem, too_deep

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
        # Parser.__init__ would have the environment's lexer read a text; all it sets is set here.
        self.environment = ENVIRONMENT
        self.stream = TokenStream(iter(tokens), None, None)
        self.name = None
        self.filename = None
        self.closed = False
        self.extensions = {}
        self._last_identifier = 0
        self._tag_stack = []
        self._end_token_stack = []


def parse_tokens(tokens: list[Token], start: int) -> nodes.Expr:
    """Parse the tokens of one expression; `start` is where an empty one stands.

    Raises Problem ``bad-template``.
    """
    if not tokens:
        raise Problem("bad-template", "there is no expression between `<<` and `>>`", start)
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
