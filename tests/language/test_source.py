"""YAML text to documents: places, types, bounds, and the traps that are reported as findings."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamstack.errors import Diagnostic
from streamstack.language import source
from streamstack.language.nodes import Document
from streamstack.language.rewriting import apply
from streamstack.language.source import Mapping, Node, Scalar, Sequence, plain, read

ENDPOINT = """\
# an endpoint
method: POST
path: /api/chat/{id}
summary: It's "all" of it
inputParameters:
  message: {type: text, required: true, description: What the user asks}
  options:
    type: object
    properties:
      delay: {type: integer, default: 0, maximum: 5000}
functionStack:
  - name: Ask
    http.stream:
      url: 'https://example.org/<<input.message>>?it''s'
      headers: {"X-A": "b\\n\\u00e9<<input.message>>"}
    as: reply
    when: <<input.message>>
  - set:
      text: |
        First <<input.message>>
          second
      folded: >-
        one
        two

        three
  - forEach:
      in: <<reply>>
      do:
        - stream: {content: <<item>>, metadata: {n: <<loop.index>>}}
  - done: {metadata: {completed: true}}
"""


def texts_of(node: Node) -> Iterator[Scalar]:
    """Give every key and value."""
    if isinstance(node, Scalar):
        yield node
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from texts_of(item)
    else:
        for key, value in node.items:
            yield key
            yield from texts_of(value)


def only(text: str) -> Node:
    """Return the root of a file of one document, without findings."""
    documents, findings = read(text, "a.yaml")
    assert findings == []
    assert len(documents) == 1
    return documents[0].root


def told(text: str) -> list[tuple[int, int, str]]:
    """Return line, column and code of each finding."""
    return [(d.line, d.column, d.code) for d in read(text, "a.yaml")[1]]


def finding(text: str) -> Diagnostic:
    """Return the one finding there is."""
    findings = read(text, "a.yaml")[1]
    assert len(findings) == 1, findings
    return findings[0]


def data(text: str) -> list[object]:
    """Return the documents as bare data."""
    return [plain(document.root) for document in read(text, "a.yaml")[0]]


# ------------------------------------------------------------------------------ values and places


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("TRUE", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-12", -12),
        ("+3", 3),
        ("007", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
        ("on", "on"),
        ("Yes", "Yes"),
        ("no", "no"),
        ("off", "off"),
        ("y", "y"),
        ("tRUE", "tRUE"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("1.2.3", "1.2.3"),
        ("2024-01-31", "2024-01-31"),
        ("=", "="),
        ("-", [None]),
        ("'12'", "12"),
        ('"true"', "true"),
        ("'~'", "~"),
    ],
)
def test_types_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """Plain scalars follow the core schema of YAML 1.2; `on` and `12:30` are text."""
    assert plain(only(f"- {text}\n")) == [value]


def test_not_a_number_is_a_number() -> None:
    """`.nan` is the float."""
    value = plain(only("a: .nan"))["a"]
    assert value != value  # noqa: PLR0124 - only NaN differs from itself


def test_keys_are_text_as_written() -> None:
    """Keys are never converted."""
    root = only("200: a\non: b\ntrue: c\n~: d\n0x10: e\n'q': f\n1.0: g\n")
    assert list(plain(root)) == ["200", "on", "true", "~", "0x10", "q", "1.0"]


def test_every_key_and_value_has_its_place() -> None:
    """Lines and columns count characters from 1."""
    root = only("é😀: ö # c\r\nlist:\r\n- 1\r\n- {a: [x, 'y']}\r\n")
    assert isinstance(root, Mapping)
    places = [(n.text, n.mark.line, n.mark.column) for n in texts_of(root)]
    assert places == [("é😀", 1, 1), ("ö", 1, 5), ("list", 2, 1), ("1", 3, 3), ("a", 4, 4), ("x", 4, 8), ("y", 4, 11)]
    inner = root.get("list")
    assert isinstance(inner, Sequence)
    assert (inner.mark.line, inner.mark.column) == (3, 1)
    assert (inner.items[1].mark.line, inner.items[1].mark.column) == (4, 3)


def test_a_mapping_gives_values_and_keys_by_name() -> None:
    """`get` and `key` find an entry, or None."""
    root = only("a: 1\nb: 2")
    assert isinstance(root, Mapping)
    value, key = root.get("b"), root.key("b")
    assert isinstance(value, Scalar)
    assert key is not None
    assert (value.value, value.text, value.mark.column) == (2, "2", 4)
    assert (key.mark.line, key.mark.column) == (2, 1)
    assert root.get("c") is None
    assert root.key("c") is None


def test_the_file_is_named_in_every_place() -> None:
    """A place names the file that was given."""
    documents, _ = read("a: 1", "x/y.yaml")
    assert str(documents[0].root.mark) == "x/y.yaml:1:1"
    assert documents[0].file == "x/y.yaml"


def test_a_byte_order_mark_is_passed_over() -> None:
    """A BOM moves no column."""
    root = only("\ufeffa: 1")
    assert isinstance(root, Mapping)
    assert root.mark.column == 1


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "---\n---\n...\n", "\ufeff"])
def test_an_empty_file_has_no_documents(text: str) -> None:
    """Comments and empty documents give nothing, and no finding."""
    assert read(text, "a.yaml") == ([], [])


def test_documents_are_counted() -> None:
    """Each document knows its index; an empty one counts."""
    documents, findings = read("a: 1\n---\n---\nb: 2\n---\n- 3\n", "a.yaml")
    assert findings == []
    assert [(d.index, plain(d.root)) for d in documents] == [(0, {"a": 1}), (2, {"b": 2}), (3, [3])]


@pytest.mark.parametrize(
    ("text", "word", "place"),
    [
        ("a: one two", "two", (1, 8)),
        ("a: one\n  two\n  three", "three", (3, 3)),
        ("a: 'it''s two'", "two", (1, 11)),
        ("a: 'it''s\n\n  two'", "two", (3, 3)),
        ('a: "\\t\\u00e9\\\\ two"', "two", (1, 16)),
        ('a: "one \\\n   two"', "two", (2, 4)),
        ('a: "\\x41\\U0001F600\\"two"', "two", (1, 21)),
        ("a: |\n  one\n   two", "two", (3, 4)),
        ("a: |2-\n   one\n  two", "two", (3, 3)),
        ("a: | # note\n\n  one\n\n\n  two", "two", (6, 3)),
        ("a: >\n  one\n\n  two", "two", (4, 3)),
        ("a: >-\n  one\n    more\n  two", "two", (4, 3)),
        ("a: &x two", "two", (1, 7)),
        ("a: &x # note\n  'two'", "two", (2, 4)),
        ("\r\na: |\r\n  é😀 two\r\n", "two", (3, 6)),
        ("[one,\n two]", "two", (2, 2)),
    ],
)
def test_a_place_inside_a_text_is_found_in_every_style(text: str, word: str, place: tuple[int, int]) -> None:
    """`mark_at` follows quotes, escapes, folded lines and indentation."""
    scalar = next(n for n in texts_of(only(text)) if word in n.text)
    mark = scalar.mark_at(scalar.text.index(word))
    assert (mark.line, mark.column) == place


def test_white_space_and_ends_have_places_too() -> None:
    """An offset on white space, at the end or past it stays beside the text."""
    scalar = next(n for n in texts_of(only("a: 'x  y'")) if n.text != "a")
    columns = [scalar.mark_at(n).column for n in range(6)]
    assert columns == [5, 6, 7, 8, 9, 9]
    blank = next(n for n in texts_of(only("a: '  '")) if n.text != "a")
    assert [blank.mark_at(n).line for n in range(3)] == [1, 1, 1]


def test_a_scalar_made_by_hand_counts_columns() -> None:
    """Without a source, the offset is added to the column."""
    mark = only("a: 1").mark
    assert Scalar("text", mark, "text").mark_at(2).column == mark.column + 2


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "place", "code"),
    [
        ("a: 1\nb: 2\na: 3\n", (3, 1), "duplicate-key"),
        ("{a: 1, 'a': 2}", (1, 8), "duplicate-key"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", (3, 3), "merge-key"),
        ("a: !!python/object:os.system x", (1, 4), "yaml-tag"),
        ("- !foo {a: 1}", (1, 3), "yaml-tag"),
        ("- !!str 5", (1, 3), "yaml-tag"),
        ("a: &x [1, *x]", (1, 11), "recursive-alias"),
        ("a: *nothing", (1, 4), "unknown-alias"),
        ("? [a]\n: b", (1, 3), "bad-key"),
        ("{a: 1}: b", (1, 1), "bad-key"),
        ("?\n: b", (1, 2), "bad-key"),
        ("a: &x b\n*x : c", (2, 1), "bad-key"),
        ("a: 1\n\tb: 2", (2, 1), "yaml-syntax"),
        ("a:\n  b: 1\n c: 2", (3, 2), "yaml-syntax"),
        ("a: [1,\n  2\nb: 3", (3, 2), "yaml-syntax"),
        ('b: 1\na: "never\n  closed', (2, 4), "yaml-syntax"),
        ("a: b\x00c", (1, 5), "yaml-syntax"),
        ("a: b\n  \x07", (2, 3), "yaml-syntax"),
        ("a: \ud800", (1, 4), "yaml-syntax"),
        ("a: x\u2028y", (1, 5), "yaml-syntax"),
        ("a: " + "9" * 500, (1, 4), "yaml-syntax"),
        ("- a\nb: 1", (2, 1), "yaml-syntax"),
    ],
)
def test_what_is_refused_is_told_at_its_place(text: str, place: tuple[int, int], code: str) -> None:
    """One finding, with its code, at the line and column of the cause."""
    found = finding(text)
    assert ((found.line, found.column), found.code, found.severity) == (place, code, "error")
    assert found.hint


def test_a_duplicate_names_the_first() -> None:
    """The finding stands at the second key and names the line of the first, which is kept."""
    text = "a: 1\n\nb: 2\na: 3\n"
    assert finding(text).message == "Duplicate key `a`; the first is in line 1."
    assert data(text) == [{"a": 1, "b": 2}]


def test_a_tab_is_called_a_tab() -> None:
    """A tab that indents is reported as such, with what to write."""
    found = finding("a:\n\tb: 1")
    assert (found.message, found.hint) == ("A tab can't indent a line.", "indent with spaces")


def test_an_open_bracket_names_its_line() -> None:
    """A bracket that is not closed is reported where YAML noticed, with the line that opened it."""
    assert "opened in line 1" in finding("a: [1,\n  2\nb: 3").message


def test_aliases_are_values() -> None:
    """An alias stands for the value its anchor names."""
    root = only("a: &x {b: [1]}\nc: *x\nd: [*x, *x]")
    assert plain(root)["d"] == [{"b": [1]}, {"b": [1]}]


def test_aliases_are_bounded() -> None:
    """A billion laughs end at the first thousand."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    assert [code for *_, code in told(bomb)] == ["too-many-aliases"]
    assert data(bomb) == []


def test_nesting_is_bounded_also_through_aliases() -> None:
    """Fifty levels are read, fifty-one are refused; an alias counts with its levels."""
    assert told("[" * 50 + "]" * 50) == []
    assert told("[" * 51 + "]" * 51) == [(1, 51, "too-deep")]
    assert told("a: &x " + "[" * 30 + "]" * 30 + "\nb: " + "[" * 19 + "*x" + "]" * 19) == []
    deep = "a: &x " + "[" * 30 + "]" * 30 + "\nb: " + "[" * 20 + "*x" + "]" * 20
    assert [code for *_, code in told(deep)] == ["too-deep"]


@pytest.mark.parametrize("piece", ["[", "{", "- ", "? ", "a: ", "&a ", '"', "'", "!", "---\n@\n"])
def test_repeated_signs_end_soon(piece: str) -> None:
    """A file of one sign repeated is refused within a second or two."""
    began = time.monotonic()
    read(piece * (200_000 // len(piece)), "a.yaml")
    assert time.monotonic() - began < 5


def test_a_file_has_a_greatest_size() -> None:
    """More than a million characters are refused unread."""
    assert told("a" * 1_000_001) == [(1, 1, "file-too-large")]


def test_a_broken_document_hides_no_other() -> None:
    """Findings and documents before and after a broken one are kept."""
    text = "a: 1\na: 2\n---\nb: [\n---\nc: 3\nc: 4\n"
    documents, findings = read(text, "a.yaml")
    assert [(d.index, plain(d.root)) for d in documents] == [(0, {"a": 1}), (2, {"c": 3})]
    assert [(d.line, d.code) for d in findings] == [(2, "duplicate-key"), (5, "yaml-syntax"), (7, "duplicate-key")]
    root = documents[1].root
    assert (root.mark.line, root.mark.column) == (6, 1)


# ------------------------------------------------------------------------------------------ traps


@pytest.mark.parametrize(
    ("text", "place", "shown"),
    [
        # A comma, a brace, a bracket of YAML's own
        ("{content: << f(a, b) >>}", (1, 11), "{content: '<< f(a, b) >>'}"),
        ('[<< {"a": 1} >>]', (1, 2), "['<< {\"a\": 1} >>']"),
        ("- stream: {content: Hi << a[0] >>!, id: 1}", (1, 24), "- stream: {content: 'Hi << a[0] >>!', id: 1}"),
        ('{a: << x["k"] >>, b: 1}', (1, 5), "{a: '<< x[\"k\"] >>', b: 1}"),
        ("a: {b: << f(x,\n    y) >>, c: 1}", (1, 8), "a: {b: '<< f(x, y) >>', c: 1}"),
        ("a: {b: << f(x, 'y') >>}", (1, 8), "a: {b: \"<< f(x, 'y') >>\"}"),
        ("a: {b: << f('x', \"y\") >>}", (1, 8), "a: {b: '<< f(''x'', \"y\") >>'}"),
        ("a: {b: << f(x, y) >> and << g(x, y) >>}", (1, 8), "a: {b: '<< f(x, y) >> and << g(x, y) >>'}"),
        # A colon
        ('x: << {"a": 1} >>', (1, 4), "x: '<< {\"a\": 1} >>'"),
        ('- << {"a": 1} >>', (1, 3), "- '<< {\"a\": 1} >>'"),
        ('x: << a | default("b: c") >> # note', (1, 4), "x: '<< a | default(\"b: c\") >>' # note"),
        ("content: <<a>>: b", (1, 10), "content: '<<a>>: b'"),
        ('m: << {\n  "a": 1,\n  "b": 2} >>', (1, 4), 'm: \'<< { "a": 1, "b": 2} >>\''),
        ("- <<a>>: <<b>>", (1, 3), "- '<<a>>: <<b>>'"),
        # Quotes
        ('x: "a" + <<b>>', (1, 10), "x: '\"a\" + <<b>>'"),
        ('x: "<<a | default("b")>>"', (1, 4), "x: '<<a | default(\"b\")>>'"),
        ("- {x: '<<f('b')>>', y: 1}", (1, 7), "- {x: \"<<f('b')>>\", y: 1}"),
        # A value that YAML ends before its end
        ("- stream: [done] << s.n >>", (1, 18), "- stream: '[done] << s.n >>'"),
        ("- stream: {a} << x >> # b", (1, 15), "- stream: '{a} << x >>' # b"),
        ("- stream: [<< x >>] done", (1, 12), "- stream: '[<< x >>] done'"),
        ('- stream: "Hi" << x >>', (1, 16), "- stream: '\"Hi\" << x >>'"),
        ("- stream: [it's] << x >>", (1, 18), '- stream: "[it\'s] << x >>"'),
        ("- {a: [b] << x >>, c: d}", (1, 11), "- {a: '[b] << x >>', c: d}"),
        # An anchor that is none
        ("a: &b << x >>", (1, 4), "a: '&b << x >>'"),
        ("- {a: &b it's << x >>, c: d}", (1, 7), '- {a: "&b it\'s << x >>", c: d}'),
        # Another language's signs
        ("content: {{ name }}", (1, 10), "content: <<name>>"),
    ],
)
def test_a_value_that_needs_quotes_is_shown_with_them(text: str, place: tuple[int, int], shown: str) -> None:
    """`yaml-quotes` gives the author's line as it must be written; that line is free of findings."""
    found = finding(text)
    assert (found.code, (found.line, found.column)) == ("yaml-quotes", place)
    assert found.message.partition("; write: ")[2] == shown
    assert told(shown) == []
    if text.startswith("- "):  # also among others
        places = told(f"- one\n{text}\n- two\n- {{a: b}}\n")
        assert places == [(2, place[1], "yaml-quotes")]


@pytest.mark.parametrize(
    ("text", "place", "shown"),
    [
        ('x: << "a #b" >>\ny: 1', (1, 4), "x: '<< \"a #b\" >>'"),
        ('x: << a + " #" >>', (1, 4), "x: '<< a + \" #\" >>'"),
        ('- {x: << "a #b" >>, y: 1}\n', (1, 7), "- {x: '<< \"a #b\" >>', y: 1}"),
        ('- Hi << "a #b" >>!', (1, 6), "- 'Hi << \"a #b\" >>!'"),
        ("- stream: Order #<< x.y >>\n", (1, 17), "- stream: 'Order #<< x.y >>'"),
        ("a: <<x>> # and <<y>>", (1, 10), "a: '<<x>> # and <<y>>'"),
        ("a: it's #<< f('#') >> # note\nb: 1", (1, 9), "a: \"it's #<< f('#') >>\" # note"),
        ("a:  #<<x>>", (1, 5), "a:  '#<<x>>'"),
        ("a: one\n  two #<<x>>", (2, 7), "a: 'one two #<<x>>'"),
        ("{a: b #<<x>>, c: d}", (1, 7), "{a: 'b #<<x>>', c: d}"),
        ("a: 5 # \\<< 3", (1, 6), "a: '5 # \\<< 3'"),
    ],
)
def test_a_value_cut_by_a_comment_is_shown_with_quotes(text: str, place: tuple[int, int], shown: str) -> None:
    """`cut-by-comment` is reported where ` #` leaves a `<<` unclosed, or takes one away."""
    found = finding(text)
    assert (found.code, (found.line, found.column)) == ("cut-by-comment", place)
    assert found.message.partition("; write: ")[2] == shown
    assert told(shown) == []


@pytest.mark.parametrize(
    "text",
    [
        "a: b # c >>",
        "a: <<x>> # and more",
        "a: x # 1 >> 2",
        "# <<x>>\na: # of <<x>>\n  # <<x>>\n  b: c\n  # <<x>>",
        "a: 'b' # <<x>>",
        "a: &b <<x>>\nc: *b",
        "a: &b x",
        "a: &b '<<x>>'",
        "a: <<x>># no comment",
        "a: '<< \"a #b\" >>'",
        "a: << x | default('a, b') >>",
        "a: << [x, y] >>",
        "a: {b: <<c>>, d: [<<e>>, <<f>>]}",
        "a: {b: << x + 1 >>/y, c: <<d>>?e=<<f>>}",
        r"a: {b: \<<, c: d}",
        "a: {b: , c: ~, d: null, e: }",
        'a: {"b":1,"c":"<<d>>"}',
        "a: x << 3",
        "a: |\n  << f(a,\n  b) # >>",
        'a: "<< {\\"x\\": 1} >>"',
    ],
)
def test_ordinary_lines_are_no_traps(text: str) -> None:
    """Comments, whole bindings and quoted ones give no finding."""
    assert told(text) == []


def test_an_unclosed_binding_of_the_author_is_left_to_the_expressions() -> None:
    """No `>>` of its own: it was not YAML that cut it."""
    assert told("{a: << b, c: << d >>}") == []


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (
            "a: {b, c}",
            (1, 5),
            "`b` has no value; in braces each key needs one: {b: ..., c: ...}. A list is written [b, c]",
        ),
        (
            "a: {m: Hello, world, n: 1}",
            (1, 15),
            (
                "`world` has no value; in braces each key needs one: {world: ...}. "
                "A text with a comma needs quotes; write: a: {m: 'Hello, world', n: 1}"
            ),
        ),
    ],
)
def test_a_key_without_value_in_braces_is_told(text: str, place: tuple[int, int], message: str) -> None:
    """One finding for the first of them, with what may have been meant."""
    found = finding(text)
    assert (found.code, (found.line, found.column)) == ("yaml-quotes", place)
    assert found.message == message


@pytest.mark.parametrize(
    ("text", "place"), [("v:\n  <<c>>: 1\n  d: 2", (2, 3)), ('v: {"<<c>>": 1}', (1, 5)), ("v: {c>>: 1}", (1, 5))]
)
def test_a_key_holds_no_binding(text: str, place: tuple[int, int]) -> None:
    """Keys are text: a binding in one is refused, and no quotes are promised to help."""
    found = finding(text)
    assert (found.code, (found.line, found.column)) == ("yaml-quotes", place)
    assert "; write: " not in found.message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("text: Note: this", "text: 'Note: this'"),
        ("- text: @name", "- text: '@name'"),
        ("text: *bold* words", "text: '*bold* words'"),
        ("text: 'it's'", 'text: "it\'s"'),
        ("text: [a] b", "text: '[a] b'"),
        (r'text: "cat \<<EOF"', r'text: "cat \\<<EOF"'),
        (r'text: "\\ \d \<<EOF \n \"\<<"', r'text: "\\ \\d \\<<EOF \n \"\\<<"'),
    ],
)
def test_other_text_that_needs_quotes_is_shown_with_them(text: str, shown: str) -> None:
    """A syntax error that quotes repair says so, under `yaml-syntax`."""
    found = finding(text)
    assert found.code == "yaml-syntax"
    assert found.message.partition("; write: ")[2] == shown


def test_a_file_is_read_on_as_if_the_quotes_were_there() -> None:
    """Traps hide nothing behind them, and move no place."""
    text = """\
a: {b: << f(x, 'y') >>, c: [<< z[0] >>, <<w>>]}
d: "<<a | default("b")>>"
e: Note: this
f: {g: << h["'"] >>, i: 1}
f: 2
g: '' << 'h' >> \\ "
h: "i \\<<"
i: &j << k >>
"""
    documents, findings = read(text, "a.yaml")
    assert [(d.line, d.column, d.code) for d in findings] == [
        (1, 8, "yaml-quotes"),
        (1, 29, "yaml-quotes"),
        (2, 4, "yaml-quotes"),
        (3, 8, "yaml-syntax"),
        (4, 8, "yaml-quotes"),
        (5, 1, "duplicate-key"),
        (6, 7, "yaml-quotes"),
        (7, 7, "yaml-syntax"),
        (8, 4, "yaml-quotes"),
    ]
    assert plain(documents[0].root) == {
        "a": {"b": "<< f(x, 'y') >>", "c": ["<< z[0] >>", "<<w>>"]},
        "d": '<<a | default("b")>>',
        "e": "Note: this",
        "f": {"g": '<< h["\'"] >>', "i": 1},
        "g": "'' << 'h' >> \\ \"",
        "h": "i \\<<",
        "i": "&j << k >>",
    }
    lines = text.splitlines()
    for scalar in texts_of(documents[0].root):
        assert lines[scalar.mark.line - 1][scalar.mark.column - 1] in f"{scalar.text[:1]}\"'"
        for offset, char in enumerate(scalar.text):
            mark = scalar.mark_at(offset)
            assert lines[mark.line - 1][mark.column - 1] == char


def test_an_anchor_is_looked_for_in_its_own_document() -> None:
    """An alias behind it is enough; another document's, or a second anchor's, is not."""
    assert told("- &a <<x>>\n- *a\n---\n- &a <<x>>") == [(4, 3, "yaml-quotes")]
    assert told("- &a <<x>>\n- &a <<y>>\n- *a") == [(1, 3, "yaml-quotes")]


def test_many_traps_cost_little() -> None:
    """A file full of traps is read in bounded time; the first hundred are reported."""
    began = time.monotonic()
    findings = read("- {a: << f(x, y) >>}\n" * 1000, "a.yaml")[1]
    assert time.monotonic() - began < 20
    assert len(findings) == 100


def test_the_pure_parser_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where libyaml is missing, PyYAML's own parser gives the same documents and places."""
    expected = read(ENDPOINT, "a.yaml")
    monkeypatch.setattr(source, "_LOADER", yaml.SafeLoader)
    assert read(ENDPOINT, "a.yaml") == expected
    assert expected[1] == []
    assert told("{content: << f(a, b) >>}") == [(1, 11, "yaml-quotes")]
    assert told("a: [1,\n  2\nb: 3")[0][2] == "yaml-syntax"


# ------------------------------------------------------------------------------------------- fuzz

PIECES = (
    *"{}[]:,#&*!|>'\"%@`-?\n\t\r \\<~é😀\0\ufeff\u2028\ud800",
    *("<<", ">>", "<< ", " >>", ": ", " #", "\n---\n", "- ", "&a ", "*a", "!!str ", "<<: ", "| "),
)


def check_places(text: str, documents: list[Document], findings: list[Diagnostic]) -> None:
    """Assert that every place is one of the text, and that of the character it names."""
    lines = re.split("\r\n|\r|\n", text.removeprefix("\ufeff"))
    for each in findings:
        assert 1 <= each.line <= len(lines)
        assert 1 <= each.column <= len(lines[each.line - 1]) + 1
        assert "\n" not in each.message
    for document in documents:
        for scalar in texts_of(document.root):
            for offset in range(0, len(scalar.text) + 1, 5):
                mark = scalar.mark_at(offset)
                assert mark.column <= len(lines[mark.line - 1]) + 1
                char = scalar.text[offset : offset + 1]
                if char.strip(" \t\r\n") and scalar.style != "double":
                    assert scalar.source is None or lines[mark.line - 1][mark.column - 1] == char


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(alphabet=st.characters(codec=None), max_size=60) | st.lists(st.sampled_from(PIECES)).map("".join))
def test_no_text_raises(text: str) -> None:
    """Any text gives documents and findings, and places inside it."""
    check_places(text, *read(text, "a.yaml"))


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(0, len(ENDPOINT)), st.sampled_from([0, 0, 1, 2, 10]), st.sampled_from(PIECES)),
        min_size=1,
        max_size=6,
    )
)
def test_no_change_to_a_valid_file_raises(changes: list[tuple[int, int, str]]) -> None:
    """Neither does a valid file with anything put in, left out or replaced."""
    text = ENDPOINT
    for at, length, piece in changes:
        text = text[:at] + piece + text[at + length :]
    check_places(text, *read(text, "a.yaml"))


@pytest.mark.parametrize(
    "piece", ["[", "{", "- ", "[{", "? ", "a: ", "{a: ", "[a, ", '["', "&a [", "[]]", "\t[", "\n- ", "- [", "a: [\n"]
)
def test_depth_costs_no_more_than_length(piece: str) -> None:
    """A text of brackets is read in a time that grows with its length, whatever the parser bounds itself."""

    def seconds(count: int) -> float:
        text, took = piece * count, []
        for _ in range(3):
            began = time.process_time()
            _, findings = read(text, "deep.yaml")
            took.append(time.process_time() - began)
            assert findings or piece in ("a: [\n", "\n- ", "- ")
        return min(took)

    # Four times the length: 16 times the time where it grows with the square.
    assert seconds(8000) < 8 * max(seconds(2000), 0.002)


@pytest.mark.parametrize("piece", ["[", "{a: ", "&a [", "[["])
@pytest.mark.parametrize("count", [60, 999, 1001, 8000])
def test_what_is_too_deep_is_said_so(piece: str, count: int) -> None:
    """The reported limit is ours, not that of a version of the parser."""
    _, findings = read(piece * count, "deep.yaml")
    assert [each.code for each in findings][:1] == ["too-deep"]


@pytest.mark.parametrize(
    ("value", "severity", "meant"),
    [
        ("<< {a: 1} >>", "warning", "<< {a: 1} >>"),
        ("<< a ~ ': ' >>", "warning", "<< a ~ ': ' >>"),
        ("Total: << a >>", "warning", "Total: << a >>"),
        ("[done] << a >>", "warning", "[done] << a >>"),
        ('"<< a | default("b") >>"', "warning", '<< a | default("b") >>'),
        ("<< a ~ ' #1' >>", "error", "<< a ~ ' #1' >>"),
        ("<< a: 1", "error", None),
        ("Room #5 is free", "warning", "Room"),
        ("Room # is free", None, "Room"),
        ("5 #is a number", None, 5),
    ],
)
def test_a_value_whose_end_is_clear_is_read_as_meant(value: str, severity: str | None, meant: object) -> None:
    """`yaml-quotes` is a warning then, with the quotes as its replacement; a text cut by `#` is one without."""
    documents, found = read(f"x: {value}\n", "a.yaml")
    assert [each.severity for each in found] == ([severity] if severity else [])
    if meant is not None:
        assert plain(documents[0].root) == {"x": meant}
    if found and found[0].code == "yaml-quotes" and severity == "warning":
        assert found[0].replacement is not None
        corrected = apply(f"x: {value}\n", [found[0].replacement])
        assert read(corrected, "a.yaml")[1] == []
        assert plain(read(corrected, "a.yaml")[0][0].root) == {"x": meant}


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("- stream:\u00a0Hello", [(1, 10)]),
        ("-\u00a0stream: Hello", [(1, 2)]),
        ("-\u00a0stream:\u00a0<< a >>", [(1, 2), (1, 10)]),
        ("- stream: Hello\n\u00a0 when: true", [(2, 1)]),
        ("- {stream:\u3000Hello, when: true}", [(1, 11)]),
        ("- stream: a\u00a0b :\u00a0c", []),
        ("- stream: '\u00a0a:\u00a0b'", []),
        ("- stream: |\n    a:\u00a0b\n    \u00a0c", []),
    ],
)
def test_blanks_that_only_look_like_spaces(text: str, places: list[tuple[int, int]]) -> None:
    """Those that stand where YAML needs a space are reported and read as one; in a text they stay."""
    documents, found = read(text, "a.yaml")
    assert [(each.line, each.column) for each in found] == places
    corrected = apply(text, [each.replacement for each in found if each.replacement])
    assert plain(read(corrected, "a.yaml")[0][0].root) == plain(documents[0].root)


@pytest.mark.parametrize(
    ("value", "count"), [("\u201cHello\u201d", 1), ("\u201eHallo\u201c", 1), ("He said \u201chi\u201d", 0)]
)
def test_typographic_quotes_are_no_quotes(value: str, count: int) -> None:
    """A text that is wholly in them is sent with them: a warning."""
    assert [each.code for each in read(f"a: {value}", "a.yaml")[1]] == ["yaml-quotes"] * count
