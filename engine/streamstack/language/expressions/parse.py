"""Parse expressions with Jinja2's parser, in our delimiters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from jinja2 import nodes
from jinja2.lexer import Token

from streamstack.errors import Diagnostic, Mark, fast_dataclass
from streamstack.language.expressions.compile import Constant, Expression, ListValue, ObjectValue, Read, Text, Value
from streamstack.language.expressions.grammar import (
    Analysis,
    Problem,
    Reading,
    next_opening,
    parse_tokens,
    scan,
    too_deep,
)
from streamstack.language.expressions.templates import Program, Template, compile_template
from streamstack.language.filters import FILTERS, Operation
from streamstack.language.findings import make_diagnostic
from streamstack.language.source import Node, Scalar, Sequence

#: Lists and objects with bindings inside one another; each is a bracket of Python.
MAX_NESTING: Final = 40
#: A condition in the brackets of other tools.
_FOREIGN: Final = re.compile(r"\s*=?[{$]\{-?\s*([^{}]*?)\s*-?\}\}?\s*")
#: Stands for an expression that has a finding.
_NOTHING: Final = nodes.Const(None)


@fast_dataclass()
class _Binding:
    """A parsed << expression >>; offsets count from the text's begin."""

    start: int
    written: str
    node: nodes.Expr
    readings: tuple[Reading, ...]


@fast_dataclass()
class _Parsed:
    """What one text holds. It knows no file, so equal texts share it."""

    parts: tuple[str | _Binding, ...]
    problems: tuple[Problem, ...]
    program: Program | None = None

    @property
    def whole(self) -> _Binding | None:
        """The one binding with nothing but white space around it."""
        bindings = [part for part in self.parts if not isinstance(part, str)]
        if len(bindings) == 1 and not "".join(p for p in self.parts if isinstance(p, str)).strip():
            return bindings[0]
        return None


def parse_value(node: Node) -> tuple[Value, list[Diagnostic]]:
    """Parse any YAML value, with or without bindings. It never raises."""
    found: list[Diagnostic] = []
    return _parse(node, found, 0), found


def parse_condition(node: Node) -> tuple[Value, list[Diagnostic]]:
    """Parse a condition: a whole binding or a boolean, else finding ``not-an-expression``."""
    value, found = parse_value(node)
    if found or isinstance(value, Expression) or type(value.constant) is bool:
        return value, found
    if isinstance(node, Scalar) and isinstance(node.value, str) and isinstance(value, Constant):
        message, hint = "a condition must be an expression, not text", "write `<<...>>` around it"
        foreign = _FOREIGN.fullmatch(node.value)
        written = (foreign[1] if foreign else node.value).strip()
        parsed = _parse_text(f"<<{written}>>")
        if parsed.whole and not parsed.problems:
            hint = f"write `<<{written}>>`"
    elif isinstance(value, (Text, Template)):
        message = "a condition must be one whole expression, without text around it"
        hint = "write all of it between one `<<` and `>>`"
    else:
        message = "a condition is an expression or a boolean"
        hint = "write `<<...>>`, `true` or `false`"
    found.append(make_diagnostic("not-an-expression", node.mark, message, hint))
    return Constant(node.mark, True), found


def parse_expression(text: str, mark: Mark) -> tuple[Value, list[Diagnostic]]:
    """Parse what stands between << and >>; ``mark`` is where the text begins, on one line."""
    problems: list[Problem] = []
    try:
        tokens: list[Token] = []
        scan(text, 0, "", tokens, problems)
        binding = _bind(text, 0, tokens, 0, problems)
    except Problem as problem:
        binding = _Binding(0, text.strip(), _NOTHING, ())
        problems.append(problem)
    scalar = Scalar(text, mark, text)
    return _expression(binding, scalar, whole=True), [_finding(p, scalar) for p in problems]


def _parse(node: Node, found: list[Diagnostic], depth: int) -> Value:
    if isinstance(node, Scalar):
        if type(node.value) is not str or "<" not in node.value:
            return Constant(node.mark, node.value)
        return _scalar(node, node.value, found)
    if depth >= MAX_NESTING:
        message = f"lists and objects are nested over {MAX_NESTING} levels deep"
        found.append(make_diagnostic("bad-template", node.mark, message, "give the inner part a name by `set`"))
        return Constant(node.mark, None)
    if isinstance(node, Sequence):
        items = tuple(_parse(item, found, depth + 1) for item in node.items)
        if all(isinstance(item, Constant) for item in items):
            return Constant(node.mark, [item.constant for item in items])
        return ListValue(node.mark, items)
    entries = []
    for key, inner in node.items:
        if "<<" in key.text and ">>" in key.text:
            message = "the key of an object can't hold a binding"
            hint = 'write the whole object as an expression: `<< {name: "value"} >>`'
            found.append(make_diagnostic("bad-template", key.mark, message, hint))
        entries.append((key.text, _parse(inner, found, depth + 1)))
    keys = tuple(key.mark for key, _ in node.items)
    if all(isinstance(entry, Constant) for _, entry in entries):
        return Constant(node.mark, {name: entry.constant for name, entry in entries}, keys)
    return ObjectValue(node.mark, tuple(entries), keys)


def _scalar(scalar: Scalar, text: str, found: list[Diagnostic]) -> Value:
    parsed = _parse_text(text)
    if parsed.problems:
        found.extend(_finding(problem, scalar) for problem in parsed.problems)
    if parsed.program is not None:
        return Template(scalar.mark, parsed.program, _reads(parsed.program.readings, scalar))
    whole = parsed.whole
    if whole is not None and not _breaks_in_quotes(scalar, parsed):
        return _expression(whole, scalar, whole=True)
    if all(isinstance(part, str) for part in parsed.parts):
        return Constant(scalar.mark, "".join(map(str, parsed.parts)))
    return Text(
        scalar.mark,
        tuple(part if isinstance(part, str) else _expression(part, scalar, whole=False) for part in parsed.parts),
    )


def _breaks_in_quotes(scalar: Scalar, parsed: _Parsed) -> bool:
    r"""Whether a line break was written in quotes beside the binding: `"<< line >>\n"` means it."""
    quoted = scalar.style in ("single", "double")
    return quoted and any(isinstance(part, str) and "\n" in part for part in parsed.parts)


def _expression(binding: _Binding, scalar: Scalar, *, whole: bool) -> Expression:
    whole = whole and isinstance(binding.node, nodes.Name)
    reads = tuple(
        Read(r.name, r.path, r.soft, whole, scalar.mark_at(r.offset), binding.written) for r in binding.readings
    )
    return Expression(scalar.mark_at(binding.start), binding.written, binding.node, reads)


def _reads(readings: tuple[tuple[Reading, str], ...], scalar: Scalar) -> tuple[Read, ...]:
    return tuple(Read(r.name, r.path, r.soft, False, scalar.mark_at(r.offset), written) for r, written in readings)


def _finding(problem: Problem, scalar: Scalar) -> Diagnostic:
    mark = scalar.mark_at(max(0, min(problem.offset, len(scalar.text))))
    # The general hint of a syntax error says less than its message.
    general = "" if problem.code == "bad-template" else None
    hint = problem.hint or general
    if hint and scalar.style == "double":  # in which YAML takes a backslash for itself
        hint = hint.replace("\\<", "\\\\<")
    return make_diagnostic(problem.code, mark, problem.message, hint, problem.replacement(scalar))


def use_filters(own: Mapping[str, Operation]) -> None:
    """Let expressions use the filters of a project's plug-ins, and none of another project's."""
    before = {name: each for name, each in FILTERS.items() if each.plugin}
    if before == own:
        return
    for name in before:
        del FILTERS[name]
    FILTERS.update(own)
    _parse_text.cache_clear()  # which filters there are decides what is wrong with a text


@lru_cache(maxsize=8192)
def _parse_text(text: str) -> _Parsed:
    r"""Parse a text with bindings, in which every `<<` begins one unless a `\` stands before it."""
    parts: list[str | _Binding] = []
    problems: list[Problem] = []
    plain_text = ""
    position = 0
    while (opening := next_opening(text, position)) is not None:
        at, sign = opening
        plain_text += text[position:at]
        if sign[0] == "\\":
            plain_text += sign[1:]
            position = at + 3
            continue
        if sign != "<<":
            return _parse_template(text)
        if plain_text:
            parts.append(plain_text)
            plain_text = ""
        tokens: list[Token] = []
        try:
            position = scan(text, at + 2, ">>", tokens, problems)
            parts.append(_bind(text[at + 2 : position - 2], at, tokens, at, problems))
        except Problem as problem:
            problems.append(problem)
            end = text.find(">>", max(at + 2, problem.offset))
            position = end + 2 if end >= 0 else len(text)
            parts.append(_Binding(at, text[at + 2 : end if end >= 0 else None], _NOTHING, ()))
    plain_text += text[position:]
    if plain_text:
        parts.append(plain_text)
    return _Parsed(tuple(parts), tuple(problems))


def _bind(written: str, start: int, tokens: list[Token], offset: int, problems: list[Problem]) -> _Binding:
    node = parse_tokens(tokens, offset)
    analysis = Analysis()
    try:
        analysis.visit(node)
    except RecursionError:
        raise too_deep(offset) from None
    # What has a finding is not compiled, but its names are still read.
    parsed = _NOTHING if any(problem.fatal for problem in analysis.problems) else node
    problems += analysis.problems
    return _Binding(start, written.strip(), parsed, tuple(analysis.readings))


def _parse_template(text: str) -> _Parsed:
    program, problems = compile_template(text)
    return _Parsed((), tuple(problems), program)
