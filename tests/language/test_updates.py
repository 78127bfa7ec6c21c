"""What was observed is written into test files: layout, comments and what holds stay."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from streamstack.language.cases import Expected
from streamstack.language.nodes import plain
from streamstack.language.rewriting import to_yaml
from streamstack.language.source import read
from streamstack.language.test_files import read_test_file
from streamstack.language.updates import updated


def holds(expected: Any, actual: Any) -> bool:
    """Tell whether an actual value meets an expected one: objects may have more keys."""
    if isinstance(expected, Expected):
        return expected.matches(actual)
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        return all(holds(value, actual.get(key)) for key, value in expected.items())
    if isinstance(expected, (list, tuple)) and isinstance(actual, (list, tuple)):
        return len(expected) == len(actual) and all(map(holds, expected, actual))
    return bool(expected == actual) and isinstance(expected, bool) == isinstance(actual, bool)


def update(text: str, *observed: Mapping[str, Any]) -> str:
    """Return a file of one test with what was observed in its exchanges; a second time changes nothing."""
    for _ in range(2):
        file, findings = read_test_file(Path("a.test.yaml"), "a.test.yaml", text)
        assert [each for each in findings if each.code != "yaml-quotes"] == []
        before, text = text, updated(text, [(file.tests[0], observed)], holds)
    assert text == before
    return text


def chunks(*contents: Any) -> list[dict[str, Any]]:
    """Return chunks as they are observed."""
    return [each if isinstance(each, dict) else {"content": each} for each in contents]


HEAD = "tests:\n- name: a   # first\n  request: {path: /}\n"


@pytest.mark.parametrize(
    ("before", "observed", "after"),
    [
        # Lists that are asked for.
        ("chunks:   # all\n    status: 200\n", {"chunks": chunks("a", "b c")},
         "chunks:   # all\n      - a\n      - b c\n    status: 200\n"),
        ("chunks: update  # all\n", {"chunks": chunks({"content": "a", "event": "e", "id": "x/1", "at": 0.02})},
         "chunks:  # all\n      - {content: a, event: e}\n"),
        ("chunks: []", {"chunks": chunks("a")}, "chunks:\n      - a"),
        ("events: update", {"events": ["a", "update"]}, 'events:\n      - a\n      - "update"'),
        ("text:\n    chunks: []\n", {"text": "a: b"}, 'text: "a: b"\n    chunks: []\n'),
        ("text: 5 # n", {"text": "6"}, 'text: "6" # n'),
        # What holds stays, in its words.
        ("chunks: [a, << value == 'b' >>, c]  # x\n", {"chunks": chunks("a", "b", "d")},
         "chunks: [a, << value == 'b' >>, d]  # x\n"),
        ("chunks:\n      - a   # one\n      # between\n      - 'b'   # two\n      - c # three\n",
         {"chunks": chunks("a", "x", "c")},
         "chunks:\n      - a   # one\n      # between\n      - x   # two\n      - c # three\n"),
        # Items are removed and put in where they differ.
        ("chunks:\n      - a   # one\n      # between\n      - b   # two\n      - c # three\n",
         {"chunks": chunks("a", "c")},
         "chunks:\n      - a   # one\n      # between\n      - c # three\n"),
        ("chunks:\n      - a   # one\n      - c # three", {"chunks": chunks("0", "a", "b", "c", "d")},
         'chunks:\n      - "0"\n      - a   # one\n      - b\n      - c # three\n      - d'),
        ("chunks:\n      - a # one\n      - c # three", {"chunks": chunks("a", "b", "c")},
         "chunks:\n      - a # one\n      - b\n      - c # three"),
        ("chunks:\n    - a # one\n    status: 200\n", {"chunks": chunks("b", "a")},
         "chunks:\n    - b\n    - a # one\n    status: 200\n"),
        ("chunks:\n      - a # one\n", {"chunks": []}, "chunks: [] # one\n"),
        ("chunks: [a, b, c, d] # x", {"chunks": chunks("a", "d")}, "chunks: [a, d] # x"),
        ("chunks: [a, b, c]", {"chunks": chunks("a")}, "chunks: [a]"),
        ("chunks: [a, b, c]", {"chunks": chunks("c")}, "chunks: [c]"),
        ("chunks: [a, c]", {"chunks": chunks("a", "b", "c")}, "chunks: [a, b, c]"),
        ("chunks: [c]", {"chunks": chunks("a", "b", "c")}, "chunks: [a, b, c]"),
        ("chunks: [\n      a,  # one\n      b,  # two\n      c  # three\n      ]\n", {"chunks": chunks("a", "b")},
         "chunks: [\n      a,  # one\n      b  # two\n        # three\n      ]\n"),
        ("chunks: [\n      a,  # one\n      b,\n      c,\n    ]\n", {"chunks": chunks("a", "c")},
         "chunks: [\n      a,  # one\n      c,\n    ]\n"),
        # Chunks keep the keys that they are written with; new ones have those of the others.
        ("chunks: [{content: a, at: 5ms}, {at: 1s, content: {b: 1}}]",
         {"chunks": [{"content": "a", "at": 0.02, "id": "1"}, {"content": {"b": 2}, "at": 1.0},
                     {"content": "c", "at": 60}]},
         "chunks: [{content: a, at: 20ms}, {at: 1s, content: {b: 2}}, {content: c, at: 1m}]"),
        ("chunks:\n      - content: a # c\n        at: 5ms   # t\n      - b\n",
         {"chunks": [{"content": "x", "at": 0.006}, {"content": "y", "at": 1.0, "event": "e"}]},
         "chunks:\n      - content: x # c\n        at: 6ms   # t\n      - y\n"),
        ("chunks: [{event: a}]", {"chunks": [{"content": "x"}]}, "chunks: [{content: x}]"),
        ("chunks: [x]", {"chunks": chunks({"content": {"event": 1}}, {"content": {"event": 1}})},
         "chunks: [{content: {event: 1}}, {content: {event: 1}}]"),
        ("chunks: << value | length == 2 >>", {"chunks": chunks("a")},
         "chunks:\n      - a"),
        # Other values.
        ("status: 200   # ok\n    body: {a: 1, b: [1, 2], c: x}\n",
         {"status": 404, "body": {"a": 1, "b": [2], "c": 5, "d": 6}},
         "status: 404   # ok\n    body: {a: 1, b: [2], c: 5}\n"),
        ("error: lost", {"error": {"code": "timeout", "message": "m"}}, "error: timeout"),
        ("error: lost", {"error": None}, "error: false"),
        ("error: {code: lost, status: 502}", {"error": {"code": "timeout", "status": 504}},
         "error: {code: timeout, status: 504}"),
        ("elapsed: 1s", {"elapsed": 0.25}, "elapsed: 250ms"),
        ("done: {a: 1}", {"done": True}, "done: true"),
        ("done:\n      a: 1 # x\n      b: 2\n", {"done": {"a": 3, "b": 2}}, "done:\n      a: 3 # x\n      b: 2\n"),
        ("text: |\n      a\n      b\n    status: 200\n", {"text": "a\n\nc\n"},
         "text: |\n      a\n\n      c\n    status: 200\n"),
        ("text: |  # t\n      a\n    status: 200\n", {"text": " a"}, 'text: " a"\n    status: 200\n'),
        ("text: >-\n      a\n      b\n", {"text": "c"}, "text: c\n"),
        ("text: 'it''s' # t", {"text": 'say "it"'}, "text: 'say \"it\"' # t"),
        ("text: a << value >>, b", {"text": "x<<y"}, r"text: 'x\<<y'"),
        ("headers: {A: 1}", {"headers": {"A": "2"}}, 'headers: {A: "2"}'),
        # Keys that are missing.
        ("status: 200 # ok\n", {"text": "a", "chunks": chunks("a", "b")},
         "status: 200 # ok\n    text: a\n    chunks:\n      - a\n      - b\n"),
        # An alias is written elsewhere.
        ("body: &x [a, b]\n    events: *x\n", {"body": ["c"], "events": ["c"]}, "body: &x [a, b]\n    events: *x\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_block_of_expectations(before: str, observed: Mapping[str, Any], after: str, line_end: str) -> None:
    """Each value is written as the author writes it; comments and line ends stay."""
    head = f"\ufeff{HEAD}  expect:\n    ".replace("\n", line_end)
    assert update(head + before.replace("\n", line_end), observed) == head + after.replace("\n", line_end)


@pytest.mark.parametrize(
    ("before", "observed", "after"),
    [
        (" {chunks: , status: 200}   # c", {"chunks": chunks("a", {"content": "b", "metadata": {"n": 1}})},
         " {chunks: [a, {content: b, metadata: {n: 1}}], status: 200}   # c"),
        (" {chunks: update}", {"chunks": chunks("a")}, " {chunks: [a]}"),
        (" {chunks: []}", {"chunks": chunks("a")}, " {chunks: [a]}"),
        (" {status: 200}  # c", {"text": "x", "events": ["a"]}, " {status: 200, text: x, events: [a]}  # c"),
        (" {}  # c", {"status": 200, "chunks": chunks("a")}, "  # c\n    status: 200\n    chunks:\n      - a"),
        ("", {"status": 200, "text": "b"}, "\n    status: 200\n    text: b"),
    ],
)  # fmt: skip
def test_expectations_between_braces(before: str, observed: Mapping[str, Any], after: str) -> None:
    """Between braces all is written between brackets; an empty `expect` has lines of its own."""
    assert update(f"{HEAD}  expect:{before}\n", observed) == f"{HEAD}  expect:{after}\n"


def test_missing_expect_and_several_requests() -> None:
    """Each exchange has its own; one without `expect` gets it."""
    text = (
        "tests:\n- name: a\n  requests:\n  - request: {path: /}\n    expect: {status: 200}\n"
        "  - request: {path: /}  # two\n  - {request: {path: /}}\n"
    )
    after = update(text, {"status": 404}, {"status": 200, "chunks": chunks("a")}, {"status": 500})
    assert after == (
        "tests:\n- name: a\n  requests:\n  - request: {path: /}\n    expect: {status: 404}\n"
        "  - request: {path: /}  # two\n    expect:\n      status: 200\n      chunks:\n        - a\n"
        "  - {request: {path: /}, expect: {status: 500}}\n"
    )


def test_long_lists_between_brackets_are_wrapped() -> None:
    """Lines stay within 120 columns, as far as one item does."""
    text = f"{HEAD}  expect:\n    chunks: [a]\n"
    after = update(text, {"chunks": chunks("a", *(f"word {number}" for number in range(60)))})
    assert max(map(len, after.splitlines())) <= 120
    assert len(after.splitlines()) > 8


VALUES: tuple[Any, ...] = (
    "", " ", "a", "a b", "it's", '"q"', "a: b", "a #b", "- a", "null", "true", "5", "1.5e3", "0x1f", "~", "=", "<<",
    "<<x>>", "\\<<", "<% if %>", "a\nb", "\t", "é", "\ud7ff", "😀", "\u2028\x85\x7f\ufeff",
    "{a}", "[b", "@a", "`", "%", "&a", "*a", "!a",
    "yes", "update", ".5", "2026-01-31", "a,b", "x\\y", "?", "'", "\\", "a" * 200,
    None, True, False, 0, -5, 1.5, 1e300, 10**20, [], {}, ["a", None], {"a": {"b": []}}, {"a: b": 1, "": 2},
    {"null": "~"},
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_are_read_as_they_were_written(value: Any) -> None:
    """A value on one line is the same value, in a list and between braces, whatever follows."""
    text = f"{HEAD}  expect:\n    body: {{a: {to_yaml(value)}, b: [{to_yaml(value)}, x]}}  # c\n"
    file, findings = read_test_file(Path("a.test.yaml"), "f", text)
    assert findings == []
    assert file.tests[0].exchanges[0].expect.body == {"a": value, "b": [value, "x"]}


def test_random_lists_are_updated() -> None:
    """Of 300 random lists, in each layout, the file expects afterwards what was observed, and keeps its comments."""
    pick = random.Random(20261130)  # noqa: S311  (no secret)
    for number in range(300):
        old, new = ([pick.choice(VALUES) for _ in range(pick.randint(0, 5))] for _ in range(2))
        if pick.random() < 0.7:
            new = [*old[: pick.randint(0, 5)], *new[:2], *old[pick.randint(0, 5) :]]
        layout = number % 3
        if layout == 0 or not old:
            written = f" [{', '.join(map(to_yaml, old))}]\n"
        elif layout == 1:
            written = "\n" + "".join(f"      - {to_yaml(each)}  # c{at}\n" for at, each in enumerate(old))
        else:
            written = " [\n" + "".join(f"      {to_yaml(each)},  # c{at}\n" for at, each in enumerate(old)) + "    ]\n"
        text = f"{HEAD}  expect:\n    chunks:{written}    status: 200  # end\n- name: b\n  request: {{path: /}}\n"
        observed = {"chunks": [{"content": each} for each in new]}
        try:
            after = update(text, observed)
        except BaseException as error:
            error.add_note(f"{text}\n{new}")
            raise
        root = plain(read(after, "f")[0][0].root)
        assert (root["tests"][0]["expect"]["status"], root["tests"][1]["name"]) == (200, "b"), text
        file, _ = read_test_file(Path("a.test.yaml"), "f", after)
        assert holds(file.tests[0].exchanges[0].expect.chunks, observed["chunks"]), (text, new, after)
        assert len(file.tests[0].exchanges[0].expect.chunks) == len(new)
        kept = min(len(old), len(new)) if new else 0
        assert len(re.findall(r"# c\d", after)) >= (kept if layout else 0), (text, new, after)
        assert "# first" in after
        assert "# end" in after
