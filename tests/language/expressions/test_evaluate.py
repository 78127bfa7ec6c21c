"""What a binding means: its value, its source, its reads, its findings."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from streamstack.errors import Mark, RunError
from streamstack.language.expressions import (
    Constant,
    Expression,
    ListValue,
    ObjectValue,
    Template,
    Text,
    Value,
    evaluate,
    explain,
    failing_expression,
    parse_condition,
    parse_expression,
    parse_value,
)
from streamstack.language.source import Document, Node, read
from streamstack.language.values import MISSING, Opaque


class Stream(Opaque):
    """A stream with a property."""

    def __getitem__(self, name: str) -> Any:
        return {"count": 3, "message": None}[name]


class Names:
    """Spelling as the stack's compiler has it."""

    def __init__(self) -> None:
        self.objects: dict[str, object] = {}

    def name(self, root: str) -> str:
        return f"v_{root}"

    def path(self, root: str, item: str) -> str | None:
        return f"{root}_{item}" if root in ("loop", "stream") else None

    def constant(self, value: object) -> str:
        name = getattr(value, "__name__", type(value).__name__)
        self.objects[name] = value
        return name


def node(yaml: str) -> Node:
    """Return the node of a YAML value."""
    documents, found = read(f"value: {yaml}\n", "file.yaml")
    assert not found, found
    assert isinstance(documents[0], Document)
    inner = documents[0].root.get("value")  # type: ignore[union-attr]
    assert inner is not None
    return inner


def parsed(yaml: str) -> Value:
    """Return a value without findings."""
    value, found = parse_value(node(yaml))
    assert not found, found
    return value


def source(expression: str) -> str:
    """Return the source of an expression."""
    value, found = parse_expression(expression, Mark("file.yaml", 1, 1))
    assert not found, found
    return value.source(Names())


def compute(expression: str, **variables: Any) -> Any:
    """Evaluate an expression that has no findings."""
    value, found = parse_expression(expression, Mark("file.yaml", 1, 1))
    assert not found, found
    return evaluate(value, variables)


def message(expression: str, **variables: Any) -> str:
    """Return the message of the error that an expression ends in."""
    with pytest.raises(RunError) as caught:
        compute(expression, **variables)
    assert caught.value.code == "template"
    return caught.value.message


@pytest.mark.parametrize(
    ("yaml", "kind"),
    [
        ("plain", Constant),
        ("3", Constant),
        ("{a: [1, null]}", Constant),
        (r"'\<<x>> and \<%'", Constant),
        ("<<x>>", Expression),
        ("'  << x >>  '", Expression),
        ("a <<x>>", Text),
        ("<<x>><<y>>", Text),
        ("'<% if x %>a<% endif %>'", Template),
        ("'a<# note #>'", Template),
        ("[1, <<x>>]", ListValue),
        ("{a: {b: <<x>>}}", ObjectValue),
    ],
)
def test_kind_of_a_value_is_decided_at_load(yaml: str, kind: type[Value]) -> None:
    """Parsing tells a constant, a whole binding, a text with bindings and a template apart."""
    value = parsed(yaml)
    assert type(value) is kind
    assert (value.constant is MISSING) == (kind is not Constant)
    assert value.whole == (kind is Expression)


@pytest.mark.parametrize(
    ("expression", "python"),
    [
        ("input.message", "v_input['message']"),
        ('input["message"]', "v_input['message']"),
        ("a + 1", "add(v_a, 1)"),
        ("-x", "negate(v_x)"),
        ("-1", "(-1)"),
        ("loop.index", "loop_index"),
        ("stream.count + 1", "add(stream_count, 1)"),
        ("a[0].b", "item(v_a, 0)['b']"),
        ("a[b]", "item(v_a, v_b)"),
        ("a[1:]", "part(v_a, 1, None, None)"),
        ('a == "x"', "(v_a == 'x')"),
        ("a == null", "(v_a == None)"),
        ("a is none", "(v_a is None)"),
        ("a and b and not c", "(v_a and v_b and (not v_c))"),
        ("a if b else c", "(v_a if v_b else v_c)"),
        ("a if b", "(v_a if v_b else None)"),
        ('{"a": x, "b": [1, null, true]}', "{'a': v_x, 'b': [1, None, True]}"),
        ("(1, 2)", "[1, 2]"),
        ("a.b | default(1)", "default_value(lambda: v_a['b'], 1)"),
        ("a.b | d(c)", "default(lambda: v_a['b'], lambda: v_c)"),
        ("a.b is defined", "defined(lambda: v_a['b'])"),
        ("a < b < 3", "chain(v_a, less, lambda: v_b, less, lambda: 3)"),
        ("now()", "now()"),
        ("a | upper", "upper(v_a)"),
    ],
)
def test_source_is_plain_python(expression: str, python: str) -> None:
    """An expression becomes the shortest Python that says the same."""
    assert source(expression) == python


def test_source_of_whole_values() -> None:
    """Texts are joined, objects and lists are literals, shared constants have a name."""
    assert parsed("Hi <<name>>!").source(Names()) == "('Hi ' + to_text(v_name) + '!')"
    assert parsed("{a: <<x>>, b: [1, <<y>>], c: 2}").source(Names()) == "bounded({'a': v_x, 'b': [1, v_y], 'c': 2})"
    assert parsed("{a: {x: 1}, b: <<y>>}").source(Names()) == "{'a': dict, 'b': v_y}"
    text = parsed('"line\\n<<x>>\\u2028\\\\"').source(Names())
    assert "\n" not in text
    assert "\u2028" not in text


def test_values_keep_their_type() -> None:
    """A whole binding keeps the type; text around it makes a text, never guessed back."""
    assert evaluate(parsed("<<x>>"), {"x": 5}) == 5
    assert evaluate(parsed("'<<x>> '"), {"x": 5}) == 5
    assert evaluate(parsed("<<x>><<x>>"), {"x": 5}) == "55"
    # A line break that was written in quotes is meant; that at the end of a block is YAML's.
    assert evaluate(parsed('"<<x>>\\n"'), {"x": 5}) == "5\n"
    assert evaluate(parsed("|\n  <<x>>\n"), {"x": 5}) == 5
    assert evaluate(parsed("'<<x>>.0'"), {"x": 5}) == "5.0"
    values = {"x": [None, True, {"a": 1}], "n": None, "d": Decimal("1.10")}
    assert evaluate(parsed("'<<x>>|<<n>>|<<d>>|<<true>>'"), values) == ('[null,true,{"a":1}]||1.10|true')


def test_escapes_write_the_characters() -> None:
    r"""`\<<`, `\<%` and `\<#` are the characters; nothing rendered is rendered again."""
    assert parsed(r"'a \<<x>> \<% \<#'").constant == "a <<x>> <% <#"
    assert evaluate(parsed(r"'\<<x>> <<x>>'"), {"x": "<<y>> <% z %>"}) == "<<x>> <<y>> <% z %>"
    assert evaluate(parsed("<<x>>"), {"x": "<<y>>"}) == "<<y>>"
    assert parsed("'5 > 3 >> 2 %>'").constant == "5 > 3 >> 2 %>"


def test_brackets_and_quotes_hide_the_end() -> None:
    """`>>` inside quotes is text; `}}` and `>` need no space before the end."""
    assert compute('"a >> b"') == "a >> b"
    assert evaluate(parsed('\'<<{"a": {"b": 1}}>>\''), {}) == {"a": {"b": 1}}
    assert evaluate(parsed("'<<a>b>>'"), {"a": 2, "b": 1}) is True


def test_look_ups_reach_items_only() -> None:
    """No attribute or method of Python can be reached by any spelling."""
    for name in ("__class__", "keys", "format", "real", "isoformat"):
        for value in ("text", 5, [1], {"a": 1}, None, Stream(), Decimal(1)):
            message(f"x.{name}", x=value)
            message(f'x["{name}"]', x=value)
            message("x[k]", x=value, k=name)
            assert compute(f"x.{name} | default(7)", x=value) == 7
    assert compute("s.count", s=Stream()) == 3
    assert compute("x[200]", x={"200": "ok"}) == "ok"
    assert compute('[x[0], x[-1], x[1:], "abc"[1]]', x=[1, 2, 3]) == [1, 3, [2, 3], "b"]
    for wrong in ("x[true]", "x[1.0]", "x['0']", "x[9]"):
        message(wrong, x=[1, 2])


def test_default_covers_the_whole_path() -> None:
    """Unbound names, missing items and null are replaced; the argument is evaluated if needed."""
    for expression in ("x", "x.a", "x.a.b", 'x["a"][0].b', "x[y]", "y.b", "n", "n.a", "l[5].a"):
        assert compute(f"{expression} | default('d')", n=None, y={}, l=[1]) == "d"
    assert compute("y.b | default(z)", y={"b": 1}) == 1
    assert compute("y.b | default(y.c | default(3))", y={}) == 3
    assert compute("0 | default(3)") == 0
    assert compute('"" | default("x", true)') == "x"
    assert compute('(x | first).name | default("-")', x=[]) == "-"
    assert message('(x | first).name | default("-")', x=5).startswith("`first` needs a list")
    assert "`z` is not bound" in message("y.b | default(z)", y={})
    assert [compute(f"x{path} is defined", x={"n": None}) for path in ("", ".n", ".m", ".n.m")] == [
        True,
        True,
        False,
        False,
    ]
    assert compute("q is undefined") is True


def test_arithmetic() -> None:
    """Like kinds go together; decimals keep their digits; nothing grows without bound."""
    assert compute("[1 + 2, 1.5 + 1, 'a' + 'b', [1] + [2]]") == [3, 2.5, "ab", [1, 2]]
    assert compute("[7 // 2, 7 % 3, -7 % 3, 2 ** 10, 7 / 2, 'ab' * 2]") == [3, 1, 2, 1024, 3.5, "abab"]
    price = Decimal("1.10")
    assert str(compute("p * 3 + 0.2", p=price)) == "3.50"
    assert compute("[p == 1.1, p < 1.2, p in [1.1], {'a': p} == {'a': 1.1}]", p=price) == [True] * 4
    assert str(compute("-p % 1", p=price)) == "0.90"
    assert compute("1 ~ '-' ~ null ~ true ~ p", p=price) == "1-true1.10"
    assert compute("-(2) ** 2 | abs") == 4
    assert compute("1 < 2 <= 2 != 3") is True
    for expression, words in {
        "'a' + 1": "can't add a text and an integer; write `x | toInteger`, or `~` to join texts",
        "null + 1": "can't add null and an integer; write `| default(...)` where it may be null",
        "1 / 0": "division by zero",
        "1 % 0": "division by zero",
        "p / 0": "division by zero",
        "2 ** 7000 + 0.5": "the result is too large a number",
        "2 ** 7000 * 0.5": "the result is too large a number",
        "2 ** 7000 / 3": "the result is too large a number",
        "1e308 + 1e308": "the result is too large a number",
        "-1e308 - 1e308": "the result is too large a number",
        "1e308 * 10": "the result is too large a number",
        "[1e308, 1e308] | sum": "the result is too large a number",
        "9 ** 99999": "the result of `**` is too large a number",
        "'a' * 9999999": "`*` would make a text of more than 1,000,000 items",
        "'%s' % 1": "`%` takes numbers; write `~` to put a value into a text",
        "1 < 'a'": "can't compare an integer with a text; write `x | toInteger`, or `~` to join texts",
        "s + 1": "a stream can't be part of an expression: use `collect` to read it into a variable first",
        "s in [1]": "a stream can't be part of an expression",
        "true + 1": "can't add a boolean and an integer",
        "{} + {}": "can't add an object and an object; write `[a, b] | merge`",
        "1 in 5": "can't look for an item in an integer",
        "(-8) ** 0.5": "a root of a negative number is not a number",
    }.items():
        assert message(expression, p=price, s=Stream()).startswith(words), expression


def test_messages_are_the_authors() -> None:
    """What fails is named as the author wrote it, with what to write instead."""
    values = {"input": {"name": "x"}, "reply": {"usage": None}, "list": [1], "n": 5}
    for expression, words in {
        "reply.usage.total": "`reply.usage` is null, so it has no item `total`; write `| default(...)`",
        "input.nmae": "`input` has no item `nmae`, did you mean `name`?",
        "nothing + 1": "the name `nothing` is not bound here",
        "inptu.name": "the name `inptu` is not bound here, did you mean `input`?",
        "list[3]": "`list` has no item `3`: a list of 1",
        "list.length": "`list` is a list, so it has no item `length`; write `list | length`",
        "n.a": "`n` is an integer, so it has no item `a`",
        "1 if input.nmae else 2": "`input` has no item `nmae`, did you mean `name`?",
        "[1, {'a': input.x['y']}]": "`input` has no item `x`",
        "(list | first).a": "the value before it is an integer, so it has no item `a`",
        "list | map('upper') | first + 1": "can't add a text and an integer",
        "input.name if n > 3 else input.nmae.x + 1": "",
    }.items():
        if words:
            assert message(expression, **values).startswith(words), expression
        else:
            compute(expression, **values)


def test_explain_finds_the_part_of_a_larger_value() -> None:
    """From the exception and the values it read, an object's failing binding is found."""
    value = parsed("{a: <<x.y>>, b: 'c <<x.z>>'}")
    assert explain(KeyError("z"), value, {"x": {"y": 1}}) == "`x` has no item `z`"
    failing = failing_expression(value, {"x": {"y": 1}})
    assert failing is not None
    assert (failing.text, failing.mark.column) == ("x.z", 27)
    assert explain(RunError("template", "own words"), value, {}) == "own words"
    assert failing_expression(value, {"x": {"y": 1, "z": 1}}) is None


def test_conditions_are_whole_bindings() -> None:
    """A condition is a whole binding or a boolean; a text is refused with what to write."""
    for yaml in ("<<x > 1>>", "true", "'<< a and b >>'"):
        assert not parse_condition(node(yaml))[1]
    for yaml, hint in {
        "input.x == 1": "write `<<input.x == 1>>`",
        "<<x>> and <<y>>": "write all of it between one `<<` and `>>`",
        "5": "write `<<...>>`, `true` or `false`",
        "[1]": "write `<<...>>`, `true` or `false`",
        "yes": "write `<<yes>>`",
    }.items():
        found = parse_condition(node(yaml))[1]
        assert [one.code for one in found] == ["not-an-expression"], yaml
        assert found[0].hint == hint


def test_escapes_inside_quotes() -> None:
    """Escapes are those of JSON and Python; an unknown one is left as it is, for patterns."""
    assert compute(r'"\n\t\\\"\x41\u00e9\ud83d\ude00\d+"') == '\n\t\\"Aé😀\\d+'
    assert compute("'a\\'b' 'c'") == "a'bc"
    for wrong in (r'"\ud800"', r'"\U00110000"'):
        _, found = parse_expression(wrong, Mark("file.yaml", 1, 1))
        assert [one.code for one in found] == ["bad-template"], wrong
