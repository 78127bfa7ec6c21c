"""Findings and reads of expressions stand at their column; no input makes parsing raise."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstack.errors import Mark, RunError
from streamstack.language.expressions import Value, evaluate, parse_condition, parse_expression, parse_value
from streamstack.language.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.source import read

MARK = Mark("file.yaml", 1, 1)


def scalar(text: str) -> Scalar:
    """Return a text's node in a file that holds nothing else."""
    return Scalar(text, MARK, text)


@pytest.mark.parametrize(
    ("text", "column", "code", "words"),
    [
        ("a << b", 3, "bad-template", "`<<` is never closed with `>>`"),
        ("<<>>", 1, "bad-template", "the expression between"),
        ("<< a b >>", 6, "bad-template", "unexpected `b`"),
        ("<< a, b >>", 5, "bad-template", "unexpected `,`"),
        ("<< a = b >>", 6, "bad-template", "unexpected `=`"),
        # Constant arguments are checked as the filter declares them.
        ("<< a | first('b') >>", 8, "bad-template", "`count` of `first` must be an integer, got a text"),
        ("<< a | round(400) >>", 8, "bad-template", "must be from -300 to 300, got 400"),
        ("<< a | split(limit='b') >>", 8, "bad-template", "`limit` of `split` must be an integer"),
        ("<< a is divisibleby('b') >>", 6, "bad-template", "`number` of `divisibleby` must be an integer"),
        ("<< (a >>", 4, "bad-template", "`(` is never closed"),
        ("<< a] >>", 5, "bad-template", "`]` closes nothing"),
        ("<< (a] >>", 6, "bad-template", "`]` where `)` should close the `(`"),
        ("<< 'a >>", 4, "bad-template", "the text that begins with ' has no end"),
        ("<< a && b >>", 6, "bad-template", "unexpected `&&`"),
        ("<< a ? b : c >>", 6, "bad-template", "unexpected `?`"),
        ("<< !a >>", 4, "bad-template", "unexpected `!`"),
        ("<< a + >>", 6, "bad-template", "the expression ends too early"),
        ("<< a.+ >>", 6, "bad-template", "expected name or number"),
        ("<< a | >>", 6, "bad-template", "the expression ends too early"),
        ("<< {a: 1 >>", 4, "bad-template", "`{` is never closed"),
        ("<< a $ b >>", 6, "bad-template", "unexpected `$`"),
        ("<< 1e999 >>", 4, "bad-template", "the number is too large"),
        ("x <<a>> y << a | uper >>", 18, "unknown-filter", "did you mean `upper`?"),
        ("<< a is nul >>", 6, "unknown-test", "did you mean `null`?"),
        ("<< nwo() >>", 4, "unknown-function", "did you mean `now`?"),
        ("<< upper(a) >>", 4, "unknown-function", "unknown function `upper`"),
        ("<< a.lower() >>", 5, "unknown-function", "a value has no methods"),
        ("<< a[0]() >>", 8, "bad-template", "only the functions of the language"),
        ("<< a[1, 2] >>", 5, "bad-template", "a look-up takes one item"),
        ("<< a | map('round', class=1) >>", 27, "bad-template", "can't be named `class`"),
        ("<< a | map('round', __debug__=1) >>", 31, "bad-template", "can't be named"),
        ("<< a | map('round', ﬁ=1, fi=2) >>", 23, "bad-template", "can't be named `ﬁ`"),
        ("<% macro m() %><% endmacro %><< m(if=1) >>", 38, "bad-template", "can't be named"),
        ("<< a | regexMatch('(') >>", 8, "bad-pattern", "the pattern is not valid"),
        ("<< a | join(b | uper) >>", 17, "unknown-filter", "did you mean `upper`?"),
        ("<% if a %>x", 1, "bad-template", ""),
        ("x <% for a %>b<% endfor %>", 12, "bad-template", "expected `in`"),
        ("x <% endif %>", 6, "bad-template", "unknown tag"),
        ("x <% include 'a' %>", 6, "bad-template", "`<% include %>` is not supported in templates"),
        ("x <% if a", 3, "bad-template", "`<%` is never closed with `%>`"),
        ("x <# a", 3, "bad-template", "`<#` is never closed with `#>`"),
        ("<% raw %> a", 1, "bad-template", "`<% raw %>` has no `<% endraw %>`"),
        ("<% if a %><<b | uper>><% endif %>", 17, "unknown-filter", "did you mean `upper`?"),
        ("<% %>", 1, "bad-template", "the statement between"),
    ],
)
def test_finding_stands_at_its_column(text: str, column: int, code: str, words: str) -> None:
    """Each finding has its code, its exact column and words that tell what to write."""
    value, found = parse_value(scalar(text))
    assert [one.code for one in found] == [code]
    assert found[0].column == column or not words
    assert words in found[0].message
    for name in ("Jinja", "jinja", "token '"):
        assert name not in found[0].message
    assert isinstance(value, Value)
    value.source(_Names())


def test_every_expression_of_a_text_is_checked() -> None:
    """One wrong expression does not hide the next; its names are still read."""
    value, found = parse_value(scalar("<<a | uper>> <<b | lowr>> << ( >> <<c>>"))
    assert [(one.code, one.column) for one in found] == [
        ("unknown-filter", 7),
        ("unknown-filter", 20),
        ("bad-template", 30),
    ]
    assert [read.name for read in value.reads] == ["a", "b", "c"]


def test_column_in_a_file_with_quotes_and_blocks() -> None:
    """The column is the file's, through quotes, escapes and block scalars."""
    text = 'a: "x \\u0041 << b | uper >>"\nb: |\n  one\n  two <<c | lowr>>\n'
    documents, _ = read(text, "file.yaml")
    root = documents[0].root
    assert isinstance(root, Mapping)
    found = [one for _, node in root.items for one in parse_value(node)[1]]
    assert [(one.line, one.column) for one in found] == [(1, 21), (4, 13)]
    lines = text.splitlines()
    assert [lines[one.line - 1][one.column - 1 :][:4] for one in found] == ["uper", "lowr"]


def reads(text: str) -> list[tuple[Any, ...]]:
    """Return what a text reads: name, path, soft, whole, column."""
    value, found = parse_value(scalar(text))
    assert not found, found
    return [(r.name, r.path, r.soft, r.whole, r.mark.column) for r in value.reads]


def test_reads_are_exact() -> None:
    """Each name read has its path of constant items, and whether it may be missing."""
    assert reads("<< reply >>") == [("reply", (), False, True, 4)]
    assert reads("<< (reply) >>") == [("reply", (), False, True, 5)]
    assert reads("a <<reply>>") == [("reply", (), False, False, 5)]
    assert reads("<<input.a['b'][0].c>>") == [("input", ("a", "b", 0, "c"), False, False, 3)]
    assert reads("<<a.b[c.d].e>>") == [("c", ("d",), False, False, 7), ("a", ("b",), False, False, 3)]
    assert reads("<<a.b | default(c)>>") == [("a", ("b",), True, False, 3), ("c", (), False, False, 17)]
    assert reads("<<a | first | default(1)>>") == [("a", (), False, False, 3)]
    assert reads("<<a.b is defined and a.b>>") == [("a", ("b",), True, False, 3), ("a", ("b",), False, False, 22)]
    assert reads("<<null or none or true or now()>>") == []
    assert reads("<<a.null>>") == [("a", ("null",), False, False, 3)]


def test_reads_of_templates_leave_out_what_they_bind() -> None:
    """Names bound by for, set, with and macro are not reads inside their scope only."""
    assert [r[0] for r in reads("<% for x in xs %><<x.a>><<y>><<loop.index>><% endfor %><<x>>")] == ["xs", "y", "x"]
    assert [r[0] for r in reads("<% set a = b %><<a>>")] == ["b"]
    assert [r[0] for r in reads("<% with a = a %><<a>><% endwith %>")] == ["a"]
    assert reads("<% if c %><% set a = 1 %><% endif %><<a>>") == [
        ("c", (), False, False, 7),
        ("a", (), True, False, 39),
    ]
    assert [r[0] for r in reads("<% macro m(p) %><<p>><<q>><% endmacro %><<m(1)>>")] == ["q"]
    assert [r[0] for r in reads("<% for k, v in o | items %><<k>><<v>><% else %><<k>><% endfor %>")] == ["o", "k"]
    assert [r[0] for r in reads("<% raw %><<a>><% endraw %><# <<b>> #>")] == []


DEEP = [
    "<<" + "(" * 5000 + ">>",
    "<<" + "(" * 5000 + "1" + ")" * 5000 + ">>",
    "<<" + "not " * 5000 + "a>>",
    "<<" + "-" * 5000 + "a>>",
    "<<" + "a + " * 5000 + "a>>",
    "<<" + "a if b else " * 5000 + "a>>",
    "<<a" + " | upper" * 5000 + ">>",
    "<<a" + "[0]" * 5000 + ">>",
    "<<(a | first)" + ".b" * 5000 + " | default(1)>>",
    "<<" + "[" * 5000 + ">>",
    "<<" + "a ~ " * 200 + "a>>",
    "<%if a%>" * 3000,
    "<%if a%>" * 500 + "<%endif%>" * 500,
    "<%for a in a%>" * 30 + "<%endfor%>" * 30,
]


@pytest.mark.parametrize("text", DEEP, ids=lambda text: text[:12])
def test_deep_nesting_is_a_finding(text: str) -> None:
    """However deep, it is a finding or a value whose source Python can compile; at once."""
    started = time.perf_counter()
    value, found = parse_value(scalar(text))
    if not found:
        compile(_nested(value.source(_Names())), "source", "eval")
    assert time.perf_counter() - started < 2


def test_what_is_accepted_can_be_compiled() -> None:
    """At the limits of nesting, Python's own limit of brackets is still far away."""
    for prefix, suffix in (
        ("(", ")"),
        ("[", "]"),
        ("[1, {'a': ", "}]"),
        ("not ", ""),
        ("1 + ", ""),
        ("x | default(", ")"),
        ("(x | first).a | default(", ")"),
        ("a[b | default(", ")]"),
        ("a.b if (c is defined) else ", ""),
    ):
        accepted = 0
        for depth in range(1, 60):
            value, found = parse_value(scalar("<<" + prefix * depth + "x" + suffix * depth + ">>"))
            if found:
                break
            accepted = depth
            node: Node = scalar("<<" + prefix * depth + "x" + suffix * depth + ">>")
            for _ in range(39):
                node = Sequence((node,), MARK)
            value, found = parse_value(node)
            assert not found
            compile(_nested(value.source(_Names())), "source", "eval")
        assert accepted >= 10, prefix


def test_deep_data_is_a_finding() -> None:
    """Lists and objects nested too deeply are one finding, not a RecursionError."""
    node: Node = scalar("<<a>>")
    for index in range(5000):
        node = Sequence((node,), MARK) if index % 2 else Mapping(((scalar("a"), node),), MARK)
    assert [one.code for one in parse_value(node)[1]] == ["bad-template"]


VOCABULARY = r"""
<< >> <% %> <# #> \<< a b input null if else endif for in endfor set is not defined
and or default upper map ( ) [ ] { } , : . | ~ + - * / // ** % == != < > <= >= = 'x' "
' 1 2.5 0x1f raw endraw macro endmacro filter call é \
"""
WORDS = st.sampled_from([*VOCABULARY.split(), "\n", "\u2028", "\0"])
PHRASES = st.lists(WORDS, max_size=25)


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.text(max_size=60), PHRASES.map(" ".join), PHRASES.map("".join)))
def test_parsing_never_raises(text: str) -> None:
    """Any text is a value or findings; any value has source that compiles, and fails cleanly."""
    for parse in (parse_value, parse_condition):
        value, found = parse(scalar(text))
        source = value.source(_Names())
        assert "\n" not in source
        compile(source, "source", "eval")
        assert all(one.column >= 1 for one in found)
    wrapped, _ = parse_value(scalar(f"<<{text}>>"))
    inner, _ = parse_expression(text, MARK)
    for one in (value, wrapped, inner):
        refused = _refusal(one)
        for word in ("Traceback", "NoneType", "object is not", "'str'"):
            assert word not in refused


def _refusal(value: Value) -> str:
    try:
        evaluate(value, {"a": {"b": [1, "x", None]}, "input": "text"})
    except RunError as error:
        return f"{error.code}: {error.message}"
    return ""


class _Names:
    """Spelling that names every object alike."""

    def name(self, root: str) -> str:
        return "v_name"

    def path(self, root: str, item: str) -> str | None:
        return None

    def constant(self, value: object) -> str:
        return "constant"


def _nested(source: str) -> str:
    """Return source where a stack's compiler would put it."""
    return f"c(c(c(c(c(c(c(c({source}))))))))"


def test_a_hint_writes_the_backslash_as_the_quotes_need_it() -> None:
    r"""In double quotes, where YAML knows no `\<`, the backslash is written twice."""
    plain = parse_value(Scalar("a << b", MARK, "a << b"))[1][0].hint or ""
    double = parse_value(Scalar("a << b", MARK, "a << b", "double"))[1][0].hint or ""
    assert r"\<<" in plain
    assert r"\\<<" not in plain
    assert r"\\<<" in double
