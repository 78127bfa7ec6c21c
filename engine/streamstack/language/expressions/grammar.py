"""The grammar of expressions: tokens, syntax, and what an expression reads and calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from keyword import iskeyword
from typing import Final

from jinja2 import Environment, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.lexer import Token, TokenStream, operators
from jinja2.parser import Parser

from streamstack.errors import Replacement, fast_dataclass
from streamstack.language import foreign
from streamstack.language.filters import DROPPED, FILTERS, FUNCTIONS_OF_EXPRESSIONS, NAMING, TESTS, Operation
from streamstack.language.findings import FINDINGS
from streamstack.language.names import certain, did_you_mean, misspelt, nearest
from streamstack.language.nodes import Scalar

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
    | (?P<wrong>\|\||&&?|[!=]==|<>|\?[?.:]?|!(?!=)|=>|->|[-+]=|(?:\+\+|--)(?=\s*(?:>>|%>|[,)]|$))
        | [`$@\u201c\u201d\u201e\u2018\u2019\u2013\u2212\u00d7\u2260\u2264\u2265])
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
#: Signs of other languages, with the token that they are here.
_SAME_SIGNS: Final = {
    "===": ("eq", "=="),
    "!==": ("ne", "!="),
    "<>": ("ne", "!="),
    "&&": ("name", "and"),
    "||": ("name", "or"),
    "!": ("name", "not"),
    "\u2260": ("ne", "!="),
    "\u2264": ("lteq", "<="),
    "\u2265": ("gteq", ">="),
    "\u00d7": ("mul", "*"),
    "\u2212": ("sub", "-"),
    "\u2013": ("sub", "-"),
}
_DOLLAR: Final = re.compile(r"\$([A-Za-z_]\w*)")
_NO_ARGUMENTS: Final = re.compile(r"\s*\(\s*\)")


class Problem(Exception):  # noqa: N818  (one of many findings, not what stops a program)
    """What is wrong with an expression, at an offset of its text.

    ``edit`` is what corrects it, where that is certain: from which offset, what stands there ("" for the token
    there), and what to write in its place.
    """

    def __init__(
        self, code: str, message: str, offset: int, hint: str = "", edit: tuple[int, str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.offset = offset
        self.hint = hint
        self.edit = edit

    @property
    def fatal(self) -> bool:
        """Whether the expression can't be evaluated: it is an error, and no warning."""
        return FINDINGS[self.code].severity == "error"

    def replacement(self, scalar: Scalar) -> Replacement | None:
        """Return the edit as the replacement of a part of the value that the expression stands in."""
        if self.edit is None:
            return None
        start, old, new = self.edit
        if not old and (token := _WORD.match(scalar.text, start)):
            old = token.group()
        if not old or not scalar.text.startswith(old, start):
            return None
        end = start + len(old)
        if new.endswith(")") and (empty := _NO_ARGUMENTS.match(scalar.text, end)):
            end = empty.end()
        return scalar.replacement(start, end, new)


def next_opening(text: str, start: int) -> tuple[int, str] | None:
    r"""Return where the next `<<`, `<%` or `<#` stands, escaped (`\<<`) or not, or None."""
    found = _OPENING.search(text, start)
    return (found.start(), found.group()) if found else None


def scan(text: str, start: int, end: str, tokens: list[Token], problems: list[Problem]) -> int:
    """Append the tokens from an offset up to `end` (`>>`, `%>`, or "" for the text's end).

    A sign of another language that can only mean one of ours is read as that, and added to the problems.

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
            tokens.append(_foreign_sign(text, start, position, end, problems))
        position += len(word)
    if open_brackets:
        opened, bracket = open_brackets[-1]
        raise Problem("bad-template", f"`{bracket}` is never closed", opened)
    if end:
        raise unclosed(end, start - 2)
    return size


def _foreign_sign(text: str, start: int, position: int, end: str, problems: list[Problem]) -> Token:
    """Add the problem of a sign of another language; return the token that it is here, or raise the problem."""
    found = _WORD.match(text, position)
    word = found.group() if found else ""
    hint, instead = foreign.SIGNS[word]
    if instead.isalpha():  # a word needs blanks around it
        before, after = text[position - 1 : position], text[position + len(word) : position + len(word) + 1]
        instead = f"{' ' * before.isalnum()}{instead}{' ' * (not after.isspace())}"
    edit = (position, word, instead) if instead else None
    if word == "?" and (written := _ternary(text, start, position, end)):
        hint, edit = f"write `{written[1].strip()}`", (start, *written)
    elif word == "$" and (name := _DOLLAR.match(text, position)):
        hint, edit = _without_dollar(name, position)
    problem = Problem("bad-template", f"unexpected `{word}`", position, hint, edit)
    if word not in _SAME_SIGNS:
        raise problem
    problems.append(problem)
    return Token(position, *_SAME_SIGNS[word])


def _without_dollar(name: re.Match[str], position: int) -> tuple[str, tuple[int, str, str] | None]:
    """Return hint and edit for a name of PHP, n8n or Xano: `$input.q`, `$item`."""
    if name[1] == "var" and name.string.startswith(".", name.end()):  # Xano's
        return "write the variable's name alone", (position, "$var.", "")
    if (advice := foreign.look_up(name[1], foreign.NAMES)) is not None:
        return advice.hint, (position, name[0], advice.name) if advice.exact else None
    return f"write `{name[1]}`: names have no `$`", (position, "$", "")


def _ternary(text: str, start: int, position: int, end: str) -> tuple[str, str] | None:
    """Return `a ? b : c` as it is written in a text, and as it is written here; None where it is not that simple."""
    stop, colon, depth, at = -1, -1, 0, start
    while at < len(text) and (found := _WORD.match(text, at)) is not None:
        sign = found.group()
        if found.lastgroup == "end" and sign == end and not depth:
            stop = at
            break
        if found.lastgroup == "wrong" and at != position and sign not in _SAME_SIGNS:
            return None
        depth += (sign in ("(", "[", "{")) - (sign in (")", "]", "}"))
        if sign == ":" and not depth and at > position:
            if colon >= 0:
                return None
            colon = at
        at = found.end()
    if not end and at >= len(text):
        stop = len(text)
    if stop < 0 or colon < 0:
        return None
    whole = text[start:stop].strip()
    condition, yes, no = (
        text[start:position].strip(),
        text[position + 1 : colon].strip(),
        text[colon + 1 : stop].strip(),
    )
    return (text[start:stop], f" {yes} if {condition} else {no} ") if whole and condition and yes and no else None


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
    words = [token for token in tokens if token.type == "name" and token.value in foreign.SYNTAX]
    try:
        parser = TokenParser(tokens)
        node = parser.parse_expression()
        current = parser.stream.current
        if current.type != "eof":
            raise _unexpected(words[0] if words else current)
        return node
    except TemplateSyntaxError as error:
        raise _unexpected(words[0]) if words else reword(error, tokens) from None
    except RecursionError:
        raise too_deep(start) from None


def _unexpected(token: Token) -> Problem:
    if token.value in foreign.SYNTAX:
        hint = foreign.SYNTAX[token.value]
    elif token.type == "comma":
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


# ---------------------------------------------------------------------------------------- analysis


#: Operators inside operators: each is at most two brackets of Python, which allows 200.
MAX_DEPTH: Final = 50
SOFT_FILTERS: Final = frozenset({"default", "d"})
SOFT_TESTS: Final = frozenset({"defined", "undefined"})
_CHAINS: Final = (nodes.And, nodes.Or)


@fast_dataclass()
class Reading:
    """A root name read, at an offset of the text."""

    name: str
    path: tuple[str | int, ...]
    soft: bool
    offset: int


@fast_dataclass()
class Scope:
    """Names a template binds itself: surely, perhaps, and as macros that can be called.

    ``lost`` are those that were set in a loop which has ended: Jinja2 gives each iteration variables of its own.
    """

    bound: frozenset[str] = frozenset()
    perhaps: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()


NO_SCOPE: Final = Scope()


def is_path(node: nodes.Node) -> bool:
    """Tell whether a node is a name or look-ups in something, down to a name."""
    return isinstance(path_base(node), nodes.Name)


def path_base(node: nodes.Node) -> nodes.Node:
    """Return what a path's look-ups begin with."""
    while isinstance(node, (nodes.Getattr, nodes.Getitem)) and not isinstance(getattr(node, "arg", None), nodes.Slice):
        node = node.node
    return node


def becomes_text(node: nodes.Expr, wanted: Callable[[str, tuple[str | int, ...]], bool], *, whole: bool) -> bool:
    """Tell whether an expression makes text of a path that is wanted: joined by `~`, or in a text as a ``whole``."""
    joins = [node, *node.find_all(nodes.Concat)]
    joined = [operand for each in joins if isinstance(each, nodes.Concat) for operand in each.nodes]
    return any(_is_path_of(each, wanted) for each in ([*joined, node] if whole else joined))


def _is_path_of(node: nodes.Node, wanted: Callable[[str, tuple[str | int, ...]], bool]) -> bool:
    path: list[str | int] = []
    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        key = node.attr if isinstance(node, nodes.Getattr) else constant_of(node.arg)
        if not isinstance(key, (str, int)):
            return False
        path.insert(0, key)
        node = node.node
    return isinstance(node, nodes.Name) and wanted(node.name, tuple(path))


def passes_on(node: nodes.Node) -> bool:
    """Tell whether an expression gives what it reads as it is: a path, a list that has it, another one behind it."""
    if isinstance(node, (nodes.Const, nodes.Name)) or is_path(node):
        return True
    if isinstance(node, nodes.Filter):
        return node.name in SOFT_FILTERS and node.node is not None and passes_on(node.node)
    if isinstance(node, nodes.Dict):
        return all(passes_on(pair.value) for pair in node.items)
    if isinstance(node, (nodes.Add, nodes.List)):
        return all(map(passes_on, node.iter_child_nodes()))
    return False


def constant_of(node: nodes.Node | None) -> object:
    """Return the constant a node is, or the node itself."""
    if isinstance(node, nodes.Const):
        return node.value
    if isinstance(node, nodes.Neg) and isinstance(node.node, nodes.Const):
        value = node.node.value
        return -value if type(value) in (int, float) else node
    return node


def unfit_name(node: nodes.Name | nodes.Macro) -> Problem:
    """Return the problem of a name that is not a variable's: Python takes several spellings of a letter for one."""
    return Problem(
        "bad-template",
        f"`{node.name}` can't be a variable's name",
        node.lineno,
        "a name has letters (a to z), digits and _; what is looked up in it may have any: a.größe",
    )


class Analysis:
    """Collects the readings and the problems of one expression."""

    def __init__(self, scope: Scope = NO_SCOPE) -> None:
        self.scope = scope
        self.readings: list[Reading] = []
        self.problems: list[Problem] = []

    def visit(self, node: nodes.Node, depth: int = 0, *, soft: bool = False) -> None:
        """Collect what a node and all below it read; raise Problem when it is too deep."""
        if depth > MAX_DEPTH:
            raise too_deep(node.lineno)
        if isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem)):
            self._path(node, depth, soft=soft)
        elif isinstance(node, nodes.Filter):
            self._filter(node, depth)
        elif isinstance(node, nodes.Test):
            self._test(node, depth)
        elif isinstance(node, nodes.Call):
            self._call(node, depth)
        elif isinstance(node, _CHAINS) and isinstance(node.left, type(node)):
            # `a and b and c` becomes one Python expression of one level.
            self.visit(node.left, depth, soft=soft)
            self.visit(node.right, depth + 1, soft=soft)
        else:
            for child in node.iter_child_nodes():
                self.visit(child, depth + 1, soft=soft)

    def _path(self, node: nodes.Node, depth: int, *, soft: bool) -> None:
        base = path_base(node)
        named = isinstance(base, nodes.Name)
        items: list[str | int] = []
        while node is not base:
            # A look-up by a constant text in a name is Python's own; every other one is a call.
            if isinstance(node, nodes.Getattr):
                items.append(node.attr)
                depth += not named
            else:
                assert isinstance(node, nodes.Getitem)
                depth += 1
                key = constant_of(node.arg)
                if type(key) is str or type(key) is int:
                    items.append(key)
                else:
                    items.clear()
                    if isinstance(key, nodes.Tuple):
                        self._wrong("a look-up takes one item", node.lineno, "write `a[0][1]`")
                    self.visit(node.arg, depth, soft=soft)
            node = node.node
            if depth > MAX_DEPTH:
                raise too_deep(node.lineno)
        if not isinstance(node, nodes.Name):
            if isinstance(node, nodes.Getitem):
                self.visit(node.node, depth + 1)
                self.visit(node.arg, depth + 1)
            else:
                self.visit(node, depth + 1)
        else:
            self._read(node, tuple(reversed(items)), soft=soft)

    def _read(self, node: nodes.Name, path: tuple[str | int, ...], *, soft: bool) -> None:
        name = node.name
        if not name.isascii():
            self.problems.append(unfit_name(node))
            return
        if name in self.scope.lost:
            hint = f"write `<% set all = namespace({name}=...) %>` before the loop, and `all.{name}` in it and here"
            message = f"`<% set {name} %>` in the loop is lost when an iteration ends: this is the value from before"
            self._add("no-effect", message, node.lineno, hint)
        if name != "null" and name not in self.scope.bound:
            self.readings.append(Reading(name, path, soft or name in self.scope.perhaps, node.lineno))

    def _filter(self, node: nodes.Filter, depth: int) -> None:
        soft = node.name in SOFT_FILTERS and node.node is not None and is_path(node.node)
        if node.node is not None:
            self.visit(node.node, depth + 1, soft=soft)
        operation = FILTERS.get(node.name)
        if operation is None:
            self._unknown("filter", node.name, node.lineno, FILTERS, DROPPED.get(node.name, ""))
        else:
            self._count(operation, node, "filter", node.lineno)
        self._arguments(node, depth)
        if node.name in NAMING:
            self._named(node)

    def _test(self, node: nodes.Test, depth: int) -> None:
        soft = node.name in SOFT_TESTS and is_path(node.node)
        self.visit(node.node, depth + 1, soft=soft)
        operation = TESTS.get(node.name)
        if operation is None:
            self._unknown("test", node.name, node.lineno, TESTS)
        else:
            self._count(operation, node, "test", node.lineno)
        self._arguments(node, depth)

    def _call(self, node: nodes.Call, depth: int) -> None:
        called = node.node
        self._arguments(node, depth)
        if isinstance(called, nodes.Name):
            if called.name in self.scope.called:
                self._refuse_names(node)
                return
            operation = FUNCTIONS_OF_EXPRESSIONS.get(called.name)
            if operation is not None:
                self._count(operation, node, "function", called.lineno)
                return
            self._unknown("function", called.name, called.lineno, FUNCTIONS_OF_EXPRESSIONS)
        elif isinstance(called, nodes.Getattr):
            self._method(called, depth)
        else:
            self.visit(called, depth + 1)
            self._wrong("only the functions of the language can be called", node.lineno)

    def _unknown(self, what: str, name: str, offset: int, known: Mapping[str, Operation], hint: str = "") -> None:
        """Report a filter, test or function that does not exist, with what is written instead."""
        shown = f"is {name}" if what == "test" else name
        message, edit = f"unknown {what} `{shown}`", None
        words = foreign.FILTERS if what == "filter" else foreign.CALLS if what == "function" else {}
        advice = foreign.look_up(name, words)
        called = _filter_of(name) if what == "function" else ""
        if not hint and advice is not None:
            shown = f"{advice.name}()" if what == "function" else advice.name
            hint = f"write `{shown}`" if advice.name else advice.hint
            message += f", did you mean `{advice.name}`?" if advice.name else ""
            edit = (offset, name, advice.name) if advice.exact else None
        elif not hint and called:
            hint = f"write `value | {called}`: it is a filter"
        elif not hint and (near := nearest(name, known)):
            message += f", did you mean `{near}`?"
            edit = (offset, name, near) if certain(name, known) else None
        elif not hint and (near := misspelt(name, words)):
            hint = words[near].hint
        elif not hint and what == "function" and (near := misspelt(name, FILTERS)):
            hint = f"write `value | {near}`: it is a filter"
        self.problems.append(Problem(f"unknown-{what}", message, offset, hint, edit))

    def _method(self, called: nodes.Getattr, depth: int) -> None:
        """Report the call of a method: of a value, or of an object that other languages have (`Math.max`)."""
        base = path_base(called)
        if isinstance(base, nodes.Name):
            dotted = f"{_dotted(called.node)}.{called.attr}"
            advice = foreign.look_up(dotted, foreign.CALLS) or foreign.look_up(dotted, foreign.FILTERS)
            if advice is not None:
                here = advice.name in FUNCTIONS_OF_EXPRESSIONS
                name = f"{advice.name}()" if here else f"value | {advice.name}"
                hint = f"write `{name}`" if advice.name else advice.hint
                edit = (base.lineno, dotted, advice.name) if here else None
                message = f"`{dotted}(...)`: values have no methods; use a filter"
                self.problems.append(Problem("unknown-function", message, called.lineno, hint, edit))
                return
        self.visit(called.node, depth + 1)
        name = _filter_of(called.attr)
        message, edit, hint = f"`.{called.attr}(...)`: a value has no methods, only items; use a filter", None, ""
        if name:
            hint = f"write `value | {name}`"
            edit = (called.lineno, f".{called.attr}", f" | {name}")
        elif (advice := foreign.look_up(called.attr, foreign.FILTERS)) is not None:
            hint = advice.hint
        else:
            message += did_you_mean(called.attr, FILTERS)
        self.problems.append(Problem("unknown-function", message, called.lineno, hint, edit))

    def _arguments(self, node: nodes.Filter | nodes.Test | nodes.Call, depth: int) -> None:
        for argument in node.args:
            self.visit(argument, depth + 1)
        for keyword in node.kwargs:
            self.visit(keyword.value, depth + 1)
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            self._wrong("`*` and `**` can't spread arguments here", node.lineno)

    def _refuse_names(self, node: nodes.Filter | nodes.Test | nodes.Call) -> None:
        """Report names of arguments that Python has no argument of."""
        for keyword in node.kwargs:
            key = str(keyword.key)
            if iskeyword(key) or key == "__debug__" or not key.isascii():
                self._wrong(f"an argument can't be named `{key}`", keyword.lineno)

    def _count(
        self, operation: Operation, node: nodes.Filter | nodes.Test | nodes.Call, what: str, offset: int
    ) -> None:
        count = len(node.args)
        named = [str(keyword.key) for keyword in node.kwargs]
        name = operation.name
        if operation.any_keyword:
            self._refuse_names(node)
        if operation.maximum is not None and count > operation.maximum:
            most = operation.maximum
            words = "no argument" if most == 0 else f"at most {most}"
            self._wrong(f"the {what} `{name}` takes {words}, got {count}", offset)
            return
        for key in named:
            if key not in operation.keywords and not operation.any_keyword:
                close, near = did_you_mean(key, operation.keywords), certain(key, operation.keywords)
                at = next(keyword.lineno for keyword in node.kwargs if keyword.key == key)
                message = f"the {what} `{name}` has no argument `{key}`{close}"
                edit = (at, key, near) if near else None
                self.problems.append(Problem("bad-template", message, offset, "", edit))
            elif key in operation.keywords and operation.keywords.index(key) < count:
                self._wrong(f"the {what} `{name}` got `{key}` twice", offset)
        if len(set(named)) < len(named):
            self._wrong(f"the {what} `{name}` got an argument twice", offset)
        missing = [key for key in operation.keywords[count : operation.minimum] if key not in named]
        if missing:
            words = ", ".join(f"`{key}`" for key in missing)
            hint = f"write {operation.usage}"
            self._wrong(f"the {what} `{name}` needs {words}", offset, hint)
        elif operation.check is not None:
            constants = [constant_of(argument) for argument in node.args]
            for keyword in node.kwargs:
                if keyword.key in operation.keywords:
                    index = operation.keywords.index(keyword.key)
                    constants += [node] * (index + 1 - len(constants))
                    constants[index] = constant_of(keyword.value)
            fault = operation.check(constants)
            if fault is not None:
                at = node.args[fault.argument].lineno if len(node.args) > fault.argument else -1
                edit = (at, "", fault.instead) if at >= 0 and fault.instead else None
                self.problems.append(Problem(fault.code, fault.message, offset, fault.hint, edit))

    def _named(self, node: nodes.Filter) -> None:
        """Check the filter that `map` names and the test that `select` names."""
        index, what = NAMING[node.name]
        name = constant_of(node.args[index]) if len(node.args) > index else None
        if not isinstance(name, str):
            return
        known = FILTERS if what == "filter" else TESTS
        if name not in known or name in SOFT_FILTERS:
            message = f"unknown {what} `{name}` for `{node.name}`{did_you_mean(str(name), known)}"
            self._add(f"unknown-{what}", message, node.args[index].lineno)

    def _wrong(self, message: str, offset: int, hint: str = "") -> None:
        self._add("bad-template", message, offset, hint)

    def _add(self, code: str, message: str, offset: int, hint: str = "") -> None:
        self.problems.append(Problem(code, message, offset, hint))


def _filter_of(name: str) -> str:
    """Return the filter that a function or method of another language is, "" where it is none."""
    if name in FILTERS:
        return name
    advice = foreign.look_up(name, foreign.FILTERS)
    return advice.name if advice is not None else ""


def _dotted(node: nodes.Node) -> str:
    """Return a path of names as it is written: `os.environ`."""
    if isinstance(node, nodes.Getattr):
        return f"{_dotted(node.node)}.{node.attr}"
    return node.name if isinstance(node, nodes.Name) else ""


def bind(scope: Scope, names: Iterable[str], called: Collection[str] = ()) -> Scope:
    """Return a scope in which names are bound."""
    names = frozenset(names)
    bound = scope.bound | names
    return Scope(bound, scope.perhaps - bound, scope.called | frozenset(called), scope.lost - names)
