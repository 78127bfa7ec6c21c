"""Texts with `<% %>` and `<# #>`: Jinja2 text templates whose expressions are our own.

Jinja2 parses the text and compiles its statements, with its rules of scope. Every expression in
it is taken out first and compiled like any other (statements.py), so that names, look-ups,
operators and filters are the same, and nothing in a template can reach a Python attribute.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, Final

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.lexer import Token

from streamstack.errors import RunError
from streamstack.language.expressions.analyse import Reading
from streamstack.language.expressions.compile import Spelling
from streamstack.language.expressions.grammar import TokenParser, reword
from streamstack.language.expressions.scan import Problem, next_opening, scan, too_deep, unclosed
from streamstack.language.expressions.statements import (
    Bound,
    Found,
    Render,
    compile_statements,
    render_nothing,
)
from streamstack.language.expressions.value import Read, Value
from streamstack.records import record

_RAW: Final = re.compile(r"[-+]?\s*raw\s*([-+]?)%>")
_END_RAW: Final = re.compile(r"<%([-+]?)\s*endraw\s*([-+]?)%>")


@record()
class Program:
    """A compiled template. It knows no file, so equal texts share it."""

    names: tuple[str, ...]
    readings: tuple[tuple[Reading, str], ...]
    render: Render
    captures: str = ""
    written: tuple[str, ...] = ("",)  # the author's own text, cut where the << >> stand

    def text(self, *variables: Callable[[], Any]) -> str:
        """Return the text; there is a function for each of ``names``, in that order."""
        return "".join(self.render(self._bound(variables), "text"))

    def pieces(self, *variables: Callable[[], Any]) -> list[str | Bound]:
        """Return the author's own text, and what stands for each << >> as Bound."""
        if self.captures:
            message = (
                f"`<% {self.captures} %>` makes text of values, which can't be kept apart then"
            )
            raise RunError("template", message)
        return list(self.render(self._bound(variables), "bound"))

    def _bound(self, variables: tuple[Callable[[], Any], ...]) -> Mapping[str, Any]:
        bound = {}
        for name, read in zip(self.names, variables, strict=True):
            try:
                bound[name] = read()
            except NameError:
                # Not bound (yet). It is an error where the template reads it, if it does.
                continue
        return bound


@record()
class Template(Value):
    """A text with `<% %>` or `<# #>` in it; always a text."""

    program: Program
    found: tuple[Read, ...]

    @property
    def reads(self) -> tuple[Read, ...]:
        return self.found

    @property
    def text(self) -> str:
        return self.found[0].expression if self.found else ""

    def source(self, names: Spelling) -> str:
        return self._source(names, self.program.text)

    @property
    def captures(self) -> str:
        """The tag that keeps `source_of_pieces` from working, such as "filter", or ""."""
        return self.program.captures

    def source_of_pieces(self, names: Spelling) -> str:
        """Return the source of a list of texts and Bounds, as a SQL statement needs it."""
        return self._source(names, self.program.pieces)

    def _source(self, names: Spelling, code: Callable[..., Any]) -> str:
        reads = ", ".join(f"lambda: {names.name(name)}" for name in self.program.names)
        return f"{names.constant(code)}({reads})"


def compile_template(text: str) -> tuple[Program, list[Problem]]:
    """Compile a text template. With problems, its program reads its names and gives no text."""
    tokens: list[Token] = []
    spans: list[tuple[int, str]] = []
    found = Found()
    try:
        _scan_template(text, tokens, spans)
        render = compile_statements(_parse(tokens), found)
    except Problem as problem:
        render = render_nothing
        found.problems.append(problem)
    except RecursionError:
        render = render_nothing
        found.problems.append(too_deep(0))
    shown = tuple((reading, _written(reading, spans)) for reading in found.readings)
    names = tuple(dict.fromkeys(reading.name for reading in found.readings))
    return Program(names, shown, render, found.captures, _own_text(tokens)), found.problems


def _own_text(tokens: list[Token]) -> tuple[str, ...]:
    """Return the text that is the author's own, whatever the statements choose of it, cut at each << >>."""
    pieces = [""]
    for token in tokens:
        if token.type == "data":
            pieces[-1] += token.value
        elif token.type == "variable_begin":
            pieces.append("")
    return tuple(pieces)


def _written(reading: Reading, spans: list[tuple[int, str]]) -> str:
    at = bisect_right(spans, (reading.offset, "\U0010ffff")) - 1
    return spans[at][1] if at >= 0 else ""


def _parse(tokens: list[Token]) -> nodes.Template:
    try:
        parser = TokenParser(tokens)
        return parser.parse()
    except TemplateSyntaxError as error:
        raise reword(error, tokens) from None


def _scan_template(text: str, tokens: list[Token], spans: list[tuple[int, str]]) -> None:
    """Append the tokens of a whole template, and where each binding or statement begins."""
    position = 0
    #: White space is cut from the front of the next text, after `-%>`.
    cut = False

    def data(start: int, words: str, *, cut_end: bool = False) -> None:
        if cut:
            words = words.lstrip()
        if cut_end:
            words = words.rstrip()
        if words:
            tokens.append(Token(start, "data", words))

    while (opening := next_opening(text, position)) is not None:
        at, sign = opening
        before = text[position:at]
        if sign[0] == "\\":
            data(position, before + sign[1:])
            cut = False
            position = at + 3
            continue
        minus = sign != "<<" and text[at + 2 : at + 3] == "-"
        data(position, before, cut_end=minus)
        if sign == "<#":
            end = text.find("#>", at + 2)
            if end < 0:
                raise unclosed("#>", at)
            cut = text[end - 1] == "-" and end - 1 > at + 1
            position = end + 2
        elif sign == "<<":
            tokens.append(Token(at, "variable_begin", "<<"))
            position = scan(text, at + 2, ">>", tokens)
            tokens.append(Token(position - 2, "variable_end", ">>"))
            spans.append((at, text[at + 2 : position - 2].strip()))
            cut = False
        elif (raw := _RAW.match(text, at + 2)) is not None:
            end_raw = _END_RAW.search(text, raw.end())
            if end_raw is None:
                raise Problem("bad-template", "`<% raw %>` has no `<% endraw %>`", at)
            cut = raw.group(1) == "-"
            data(raw.end(), text[raw.end() : end_raw.start()], cut_end=end_raw.group(1) == "-")
            cut = end_raw.group(2) == "-"
            position = end_raw.end()
        else:
            tokens.append(Token(at, "block_begin", "<%"))
            start = at + 3 if text[at + 2 : at + 3] in ("-", "+") else at + 2
            first = len(tokens)
            position = _scan_block(text, start, at, tokens)
            if len(tokens) == first:
                raise Problem("bad-template", "there is no statement between `<%` and `%>`", at)
            cut = tokens[-1].type == "sub"
            if tokens[-1].type in ("sub", "add"):
                tokens.pop()
            tokens.append(Token(position - 2, "block_end", "%>"))
            spans.append((at, text[start : position - 2].strip(" \t\n-+")))
    data(position, text[position:])


def _scan_block(text: str, start: int, at: int, tokens: list[Token]) -> int:
    try:
        return scan(text, start, "%>", tokens)
    except Problem as problem:
        if "is never closed with" in problem.message:
            raise unclosed("%>", at) from None
        raise
