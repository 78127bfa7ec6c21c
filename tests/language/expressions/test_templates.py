"""Texts with statements: Jinja2's rules of scope, the language's own expressions."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from streamstack.errors import Mark, RunError
from streamstack.language.expressions import Bound, Template, evaluate, parse_value, templates
from streamstack.language.expressions.evaluate import Direct
from streamstack.language.nodes import Scalar
from streamstack.language.values import Opaque

MARK = Mark("file.yaml", 1, 1)


def template(text: str) -> Template:
    """Return a template without findings."""
    value, found = parse_value(Scalar(text, MARK, text))
    assert not found, found
    assert isinstance(value, Template)
    return value


def render(text: str, **variables: Any) -> Any:
    """Return the text of a template."""
    return evaluate(template(text), variables)


def message(text: str, **variables: Any) -> str:
    """Return the message of the error that a template ends in."""
    with pytest.raises(RunError) as caught:
        render(text, **variables)
    assert caught.value.code == "template"
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("<% if a %>yes<% else %>no<% endif %>", "yes"),
        ("<% if b.c is defined %>x<% elif a > 1 %>y<% endif %>", "y"),
        ("<% for x in l %><<x>>,<% endfor %>", "1,2,3,"),
        ("<% for x in l if x != 2 %><<loop.index>>:<<x>>/<<loop.length>> <% endfor %>", "1:1/2 2:3/2 "),
        ("<% for x in [] %>x<% else %>none<% endfor %>", "none"),
        ("<% for k, v in o | items %><<k>>=<<v>><% endfor %>", "k=1.10"),
        ("<% for k in o %><<k>><% endfor %>", "k"),
        ("<% for x in l %><<x>><% if not loop.last %>, <% endif %><% endfor %>", "1, 2, 3"),
        ("<% for x in l %><% for y in l %><<loop.index0>><% endfor %>;<% endfor %>", "012;012;012;"),
        ("<% set t = a + 1 %><<t>>", "4"),
        ("<% set t %>[<<a>>]<% endset %><<t>><<t>>", "[3][3]"),
        ("<% set t | upper %>abc<% endset %><<t>>", "ABC"),
        ("<% set n = namespace(s=0) %><% for x in l %><% set n.s = n.s + x %><% endfor %><<n.s>>", "6"),
        ("<% with z = a %><<z>><% endwith %>", "3"),
        ("<% filter upper | replace('A', a | toText) %>abc<% endfilter %>", "3BC"),
        ("<% macro m(p, q='d') %><<p>>-<<q>><% endmacro %><<m(1)>> <<m(2, q=3)>>", "1-d 2-3"),
        ("<% macro m() %>[<<caller()>>]<% endmacro %><% call m() %>in<% endcall %>", "[in]"),
        ("<% raw %><<a>> <% x %><% endraw %>", "<<a>> <% x %>"),
        ("a<# <<nope( #>b", "ab"),
        (r"\<% if %> \<<a>> \<# <# x #>", "<% if %> <<a>> <# "),
        ("<% if a %>\n  <%- if a -%>\n x\n<%- endif %>\n<% endif %>", "x\n"),
        ("<% if true %><<-a>><% endif %>\n", "-3\n"),
        ("<% if true %><<n>>|<<true>>|<<o>>|<<d>><% endif %>", '|true|{"k":1.10}|1.10'),
        ("<% if true %><<m.x | default('soft')>><% endif %>", "soft"),
        ("<% if true %><<'<<a>>'>><% endif %>", "<<a>>"),
        ("<% if true %><<'<b>'>> <<'<b>' | escape>><% endif %>", "<b> &lt;b&gt;"),
        ("<% if unbound is defined %><<unbound>><% endif %>ok", "ok"),
        ("<% for range in l %><<range>><% endfor %><<range(2) | join>>", "12301"),
    ],
)
def test_templates(text: str, result: str) -> None:
    """Statements are Jinja2's; what stands between << >> is the language's."""
    variables = {"a": 3, "l": [1, 2, 3], "o": {"k": Decimal("1.10")}, "n": None, "d": Decimal("1.10")}
    assert render(text, **variables) == result


def test_errors_are_told_in_the_authors_words() -> None:
    """A template fails as an expression does, with the same message."""
    assert message("<% if a.b %><% endif %>", a={}) == "`a` has no item `b`; it is empty"
    assert message("<% if true %><<a.b.c>><% endif %>", a={"b": None}).startswith("`a.b` is null")
    assert message("<% if true %><<x>><% endif %>") == "the name `x` is not bound here"
    assert message("<% for x in n %><% endfor %>", n=None) == (
        "`for` needs a list, got null; write `| default([])` where it may be null"
    )
    assert "use `collect`" in message("<% for x in s %><% endfor %>", s=_Stream())
    assert "use `collect`" in message("<% if true %><<s>><% endif %>", s=_Stream())
    assert message("<% for x in [1] %><<loop.nope>><% endfor %>").startswith("a loop has no property")
    assert message("<% for x in [1] %><<x + 'a'>><% endfor %>").startswith("can't add an integer")
    assert "can't be unpacked" in message("<% for a, b in [1] %><% endfor %>")


@pytest.mark.parametrize(
    "text",
    [
        "<% if true %><<''.__class__.__mro__>><% endif %>",
        "<% for x in [1] %><<loop.__init__>><% endfor %>",
        "<% for x in [1] %><<loop['__class__']>><% endfor %>",
        "<% macro m() %><% endmacro %><<m.__globals__>>",
        "<% macro m() %><% endmacro %><<m['name']>>",
        "<% set n = namespace(a=1) %><<n.__class__>>",
        "<% set n = namespace(a=1) %><<n.__init__>>",
        "<% if true %><<self>><% endif %>",
        "<% if true %><<context>><% endif %>",
        "<% if true %><<environment>><% endif %>",
        "<% if true %><<cycler>><% endif %>",
        "<% if true %><<missing>><% endif %>",
        "<% if true %><<a0>><<c0>><<bound>><% endif %>",
        "<% set x.y = 1 %>",
    ],
)
def test_nothing_of_python_can_be_reached(text: str) -> None:
    """The names and objects of Jinja2 and of the generated source are out of reach."""
    message(text, x={})


def test_names_are_passed_only_if_bound() -> None:
    """The generated call asks for each name lazily, so an unbound one fails only where it is read."""

    class Names(Direct):
        """Spelling whose names raise as an unbound local does."""

    value = template("<% if a %><<b>><% endif %>")
    spelling = Names({"a": False})
    assert eval(value.source(spelling), spelling.space) == ""  # noqa: S307
    assert value.reads[1].expression == "b"


def test_pieces_keep_values_apart_from_the_authors_text() -> None:
    """What << >> writes stays a value for SQL; the author's own text is text."""
    value = template("SELECT <% if a %>x = <<a>><% else %>y = <<b.c>><% endif %> LIMIT <<5>>")
    spelling = Direct({"a": "'; DROP TABLE x"})
    pieces = eval(value.source_of_pieces(spelling), spelling.space)  # noqa: S307
    assert pieces == ["SELECT ", "x = ", Bound("'; DROP TABLE x"), " LIMIT ", Bound(5)]
    captured = template("<% set x %><<a>><% endset %><<x>>")
    with pytest.raises(RunError, match="can't be kept apart"):
        eval(captured.source_of_pieces(spelling), spelling.space)  # noqa: S307


class _Stream(Opaque):
    """A stream without properties."""

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("<% set n = 0 %><% for x in l %><% set n = n + 1 %><% endfor %><< n >>", 2),
        ("<% set s = '' %><% for x in l %><% if x %><% set s = x %><% endif %><% endfor %><< s >>", 1),
        ("<% set s %>a<% endset %><% for x in l %><% set s %>b<% endset %><% endfor %><< s >>", 1),
        ("<% for x in l %><% set n = 1 %><< n >><% endfor %>", 0),
        ("<% set s = '' %><% for x in l %><% set s = x %><< s >><% endfor %><% set s = 'b' %><< s >>", 0),
        ("<% set n = namespace(v=0) %><% for x in l %><% set n.v = n.v + 1 %><% endfor %><< n.v >>", 0),
    ],
)
def test_what_a_loop_sets_is_lost_behind_it(text: str, count: int) -> None:
    """Each iteration has variables of its own: reading one behind it, or to carry it on, is a warning."""
    node = Scalar(text, Mark("a.yaml", 1, 1), text)
    value, found = parse_value(node)
    assert [each.code for each in found] == ["no-effect"] * count
    assert evaluate(value, {"l": [1, 2], "n": 0}) is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<% for x in range(1000000) %><% for y in range(1000000) %><% endfor %><% endfor %>", "seconds"),
        ("<% for x in range(1000000) %><% for y in range(1000000) %>a<% endfor %><% endfor %>", "seconds|characters"),
        ("<% for x in range(1000000) %>" + "abc" * 1000 + "<% endfor %>", "characters"),
        ("<% for x in range(1000000) %><< t >><% endfor %>", "characters"),
        ("<% set s %><% for x in range(1000000) %><< t >><% endfor %><% endset %>", "characters"),
        ("<% macro f(n) %><% if n %><< f(n - 1) >><< f(n - 1) >><% endif %><% endmacro %><< f(60) >>", "seconds"),
        ("<% for x in l if x < 0 %><% endfor %><% for x in range(1000000) if x is odd %>a<% endfor %>", ""),
    ],
)
def test_a_template_is_bounded_in_time_and_size(text: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process serves nothing else meanwhile: what takes too long, or becomes too long, ends as an error."""
    monkeypatch.setattr(templates, "_MAX_SECONDS", 0.3)
    text = f"{text}<% if true %><% endif %>"
    if why:
        assert re.search(why, message(text, t="x" * 10_000, l=[1]))
    else:
        monkeypatch.setattr(templates, "_MAX_SECONDS", 30.0)
        assert len(render(text, l=[1])) == 500_000


def test_elifs_are_bounded() -> None:
    """Each is a level for Python's compiler, which fell over 6,000 of them."""
    for count, codes in ((500, []), (6_000, ["bad-template"])):
        text = "<% if a == 0 %>" + "".join(f"<% elif a == {n} %>{n}" for n in range(1, count + 1)) + "<% endif %>"
        value, found = parse_value(Scalar(text, MARK, text))
        assert [each.code for each in found] == codes
        assert codes or evaluate(value, {"a": 500}) == "500"
