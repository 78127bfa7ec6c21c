"""What is declared once holds everywhere: readers, schemas, reference and defaults agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from jsonschema import Draft7Validator

from streamstack.errors import Diagnostic
from streamstack.functions import REGISTRY
from streamstack.language.keys import DOCUMENTS
from streamstack.language.kinds import FACTS, Kind
from streamstack.language.nodes import Mapping, plain
from streamstack.language.reference import definitions_reference, settings_reference
from streamstack.language.schema import make_schemas
from streamstack.language.settings import SETTINGS, Settings, load_settings
from streamstack.language.source import read
from streamstack.spec import (
    Constant,
    Field,
    Group,
    ListOf,
    Named,
    Section,
    SettingsReader,
    Tagged,
    Type,
    fields_of,
    group_of,
    setting,
    shown_default,
)

_PART = Section("both", "Two in one.", short="first")


@dataclass(frozen=True, slots=True)
class Inner:
    """A mapping that `true` stands for, too."""

    size: int = setting(Constant(Kind.SIZE, positive=True), "How much.", 1024)


@dataclass(frozen=True, slots=True)
class Sample:
    """One of each."""

    long_name: str = setting(Constant(), "A text.", "x")
    count: int = setting(Constant(Kind.INTEGER, 1, 9), "A number.", 3)
    first: float = setting(Constant(Kind.DURATION, off=True), "A time.", 1.0, within=_PART)
    second: bool = setting(Constant(Kind.BOOLEAN), "A flag.", False, within=_PART)
    words: tuple[str, ...] = setting(ListOf(Constant(choices=("a", "b"))), "Words.", ())
    raw: str = setting(Constant(verbatim=True), "As it is.", "", key="asIs")
    inner: Inner | None = setting(group_of(Inner, switch="both"), "More.", None)


def sample(text: str) -> tuple[object, list[Diagnostic]]:
    """Read a sample."""
    found: list[Diagnostic] = []
    reader = SettingsReader(found)
    root = read(text, "f")[0][0].root
    return reader.read(group_of(Sample), root, "sample"), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", Sample()),
        ("{longName: y, count: '4'}", Sample("y", 4)),
        ("{both: 5s}", Sample(first=5.0)),
        ("{both: false}", Sample(first=0.0)),
        ("{both: {second: 'true'}}", Sample(second=True)),
        ("{words: a}", Sample(words=("a",))),
        ("{words: [a, b]}", Sample(words=("a", "b"))),
        ('{asIs: " \\n"}', Sample(raw=" \n")),
        ("{inner: true}", Sample(inner=Inner())),
        ("{inner: false}", Sample()),
        ("{inner: {size: 2KB}}", Sample(inner=Inner(2048))),
        ("{longName: , inner: }", Sample()),
    ],
)
def test_what_is_given_is_read(text: str, expected: Sample) -> None:
    """Keys are the attributes' names in camelCase; what is left out keeps its default."""
    assert sample(text) == (expected, [])


@pytest.mark.parametrize(
    ("text", "column", "code", "words"),
    [
        ("{longNam: y}", 2, "unknown-setting", "`sample` has no `longNam`, did you mean `longName`?"),
        ("{longName: 5}", 12, "bad-setting", "`sample.longName`: must be a text"),
        ("{longName: '  '}", 12, "bad-setting", "`sample.longName`: must be a text"),
        ("{count: 10}", 9, "bad-setting", "`sample.count`: must be an integer from 1 to 9"),
        ("{both: [5s]}", 8, "bad-setting", "`sample.both`: must be a duration like"),
        ("{both: {frist: 5s}}", 9, "unknown-setting", "`sample.both` has no `frist`, did you mean"),
        ("{both: {second: maybe}}", 17, "bad-setting", "`sample.both.second`: must be true or false"),
        ("{words: [a, c]}", 13, "bad-setting", "`sample.words`: must be one of a, b"),
        ("{inner: 0}", 9, "bad-setting", "`sample.inner`: must be true or false"),
        ("{inner: [1]}", 9, "not-a-mapping", "`sample.inner` is a mapping."),
        ("{inner: {size: 0}}", 16, "bad-size", "`sample.inner.size`: it must be more than 0"),
        ("[a]", 1, "not-a-mapping", "`sample` is a mapping."),
    ],
)
def test_what_is_wrong_is_told_at_its_place(text: str, column: int, code: str, words: str) -> None:
    """With the whole path of the setting, and what to write."""
    _, (found,) = sample(text)
    assert (found.column, found.code) == (column, code)
    assert found.message.startswith(words)
    assert found.hint


def fields_in(fields: tuple[Field, ...]) -> Iterator[Field]:
    """Give all fields of settings, at any depth."""
    for field in fields:
        yield field
        yield from below(field.type)


def below(wanted: Type) -> Iterator[Field]:
    """Give the fields inside a type."""
    match wanted:
        case Group():
            yield from fields_in(wanted.parameters)
        case Tagged():
            for group in wanted.groups.values():
                yield from fields_in(group.parameters)
        case ListOf() | Named():
            yield from below(wanted.item)


ALL = [*fields_in(SETTINGS), *(each for fields in DOCUMENTS.values() for each in fields_in(fields))]


def test_every_field_is_described() -> None:
    """In a sentence; each kind of value has its words."""
    assert [each.name for each in ALL if not each.description.endswith(".")] == []
    assert set(FACTS) == set(Kind)


def test_defaults_are_what_an_author_would_write() -> None:
    """A default that is shown is read as the value that holds without it."""
    for field in fields_in(SETTINGS):
        default = shown_default(field)
        if isinstance(field.type, Constant) and field.type.parse is None and default is not None:
            found: list[Diagnostic] = []
            node = read(json.dumps(default), "f")[0][0].root
            value = SettingsReader(found).constant(field.type, node, field.name)
            assert (value, found) == (field.default, []), field.name


def test_reference_has_every_key() -> None:
    """Each setting and each key of a document has its row."""
    settings, definitions = settings_reference(), definitions_reference()
    for text, fields in ((settings, fields_of(Settings)), *((definitions, f) for f in DOCUMENTS.values())):
        for field in fields:
            assert f"`{field.name}`" in text or f"## {field.name}" in text, field.name
    for field in fields_in(fields_of(Settings)):
        assert f"{field.name}`" in settings or f"## {field.name}" in settings, field.name


@pytest.mark.parametrize(
    "text",
    [
        "server: {port: << env.A >>, cors: {origins: a://b, credentials: << env.A >>, maxAge: << env.A >>}}",
        "streaming: {format: << env.A >>, done: << env.A >>, slowClient: << env.A >>}",
        "streaming: {maxDuration: {jitter: 5%}, resume: {maxChunks: << env.A >>}}",
        "http: {denyPrivateNetworks: << env.A >>, timeouts: {idle: << env.A >>}}",
        "authentication: {a: {type: jwt, secret: << env.A >>, clockSkew: << env.A >>, expiry: << env.A >>}}",
    ],
)
def test_editors_take_variables_where_settings_do(text: str) -> None:
    """Whatever the type of the setting: the variable is text, and read as what is wanted."""
    assert load_settings(text, "streamstack.yaml", {})[1] == []
    schema = Draft7Validator(make_schemas(REGISTRY)["settings.schema.json"])
    root = read(text, "f")[0][0].root
    assert isinstance(root, Mapping)
    assert [error.message for error in schema.iter_errors(plain(root))] == []


def test_an_authentication_that_is_no_mapping_is_none() -> None:
    """Be it a variable that is not set: no client is admitted by it."""
    settings, found = load_settings("authentication: {a: << env.NOT >>}", "f", {})
    assert [each.code for each in found] == ["not-a-mapping"]
    assert settings.authentication == {}
