"""What editors report about a file, and what `validate` reports, agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from streamstack.functions import REGISTRY
from streamstack.language.keys import CONSTRAINTS, INPUT_KEYS, MODIFIERS
from streamstack.language.keys import DOCUMENTS as DOCUMENT_KEYS
from streamstack.language.nodes import plain
from streamstack.language.schema import make_schemas
from streamstack.language.settings import Streaming, load_settings, parse_streaming
from streamstack.language.source import read
from streamstack.spec import fields_of

ROOT = Path(__file__).parent.parent.parent
CASES = ROOT / "tests" / "cases"
VALID = sorted((CASES / "valid").glob("*.yaml")) + sorted((ROOT / "definitions").rglob("*.yaml"))
SCHEMAS = make_schemas(REGISTRY)

#: The cases in which every document has a fault of shape that an editor can show.
SHAPES = (
    "bad-kind",
    "bad-method",
    "constant-required",
    "not-a-mapping",
    "not-an-expression",
    "unknown-key",
    "unknown-modifier",
    "unknown-type",
)


def documents(path: Path) -> list[Any]:
    """Return the documents of a file as an editor's YAML reader has them."""
    return [plain(document.root) for document in read(path.read_text("utf-8"), path.name)[0]]


def faults(schema: str, data: Any) -> list[str]:
    """Return what a schema finds wrong, with the place."""
    validator = Draft7Validator(SCHEMAS[schema])
    return [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(data)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_draft_7(name: str) -> None:
    """Each schema is one of draft-07, says so, and needs nothing from the network."""
    Draft7Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$schema"] == "http://json-schema.org/draft-07/schema#"
    references = [each for each in strings(SCHEMAS[name], "$ref") if not each.startswith("#/definitions/")]
    assert references == []


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid_case_fits_its_schema(path: Path) -> None:
    """What `validate` lets alone, the editor lets alone: by the schema of its kind and of all."""
    if path.stem == "streamstack" or path.stem.startswith("settings"):
        assert faults("settings.schema.json", documents(path)[0]) == []
        return
    if path.name.endswith(".test.yaml"):
        assert faults("test.schema.json", documents(path)[0]) == []
        return
    for document in documents(path):
        assert faults("streamstack.schema.json", document) == []
        assert faults(f"{document.get('kind') or 'endpoint'}.schema.json", document) == []


@pytest.mark.parametrize(
    "text",
    [
        "main: {url: '<< env.DATABASE_URL | default(\"\") >>', setup: schema.sql}",
        "main: {url: '', setup: [a.sql, b.sql], poolSize: 20, hold: 2s, spool: 10MB}",
        "{main: , old: {url: postgres://user@host/name, hold: 500}}",
        "main: {poolSize: << env.POOL >>, hold: << env.HOLD >>, spool: << env.SPOOL >>, bin: /opt/pg}",
    ],
)
def test_databases_as_they_may_be_written(text: str) -> None:
    """An editor lets alone every database that the settings take, bindings to the environment included."""
    assert database_faults(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "main: postgresql://host/name",
        "main: {urls: postgresql://host/name}",
        "main: {url: mysql://host/name}",
        "main: {poolSize: 0}",
        "main: {poolSize: many}",
        "main: {poolSize: 1001}",
        "main: {setup: {file: schema.sql}}",
        "main: {hold: soon}",
        "main: {spool: 3 apples}",
    ],
)
def test_databases_as_they_may_not_be_written(text: str) -> None:
    """What the settings refuse is underlined; and they do refuse it."""
    assert database_faults(text) != []
    assert load_settings(f"databases: {{{text}}}", "streamstack.yaml", {})[1] != []


def database_faults(text: str) -> list[str]:
    """Return what the schema of the settings finds wrong with databases."""
    found = read(f"databases: {text if text[0] == '{' else f'{{{text}}}'}", "streamstack.yaml")[0]
    return faults("settings.schema.json", plain(found[0].root))


@pytest.mark.parametrize("name", SHAPES)
def test_fault_of_shape_is_shown(name: str) -> None:
    """An editor underlines faults of shape as they are typed."""
    for document in documents(CASES / "invalid" / f"{name}.yaml"):
        assert faults("streamstack.schema.json", document), document


def test_typed_values_may_be_bound() -> None:
    """Wherever a value has a type, a binding may stand for it; any other text may not."""
    document = {
        "method": "GET",
        "path": "/x",
        "functionStack": [
            {"forEach": {"in": "<<a>>", "concurrency": "<<b>>", "do": [{"wait": "<<c>>"}]}},
            {"repeat": {"times": "<<d>>", "do": ["break"]}, "when": "<<e>>", "timeout": "<<f>>"},
            {"stream": {"content": {"a": ["<<g>>"]}, "pace": {"mode": "<<h>>"}}},
        ],
    }
    assert faults("endpoint.schema.json", document) == []
    text = json.dumps(document)
    for letter in "abcdef":
        wrong = json.loads(text.replace(f"<<{letter}>>", "words"))
        assert faults("endpoint.schema.json", wrong), letter


def test_unquoted_bindings_are_refused() -> None:
    """A key that YAML made of an unquoted binding is underlined, however deep it stands."""
    step = {"stream": {"content": {"a": [{"<<b": ">>"}]}}}
    document = {"method": "GET", "path": "/x", "functionStack": [step]}
    assert faults("endpoint.schema.json", document)


def test_no_choice_among_functions() -> None:
    """All functions are keys of one object, and the one choice says only which of them is there."""
    step = SCHEMAS["streamstack.schema.json"]["definitions"]["step"]
    assert set(step["properties"]) == set(REGISTRY) | {each.name for each in MODIFIERS}
    assert not {"anyOf", "allOf"} & set(step)
    *choices, none = step["oneOf"]
    assert choices == [{"type": "object", "required": [name]} for name in REGISTRY]
    assert none == {"not": {"anyOf": choices}}
    assert '"oneOf": [' not in json.dumps(SCHEMAS).replace(json.dumps(step["oneOf"]), "")


def test_every_key_is_described() -> None:
    """Each function, parameter and key of the language says what it is for."""
    for name, schema in SCHEMAS.items():
        for path, rules in properties(schema, name):
            assert rules.get("description"), path


def test_keys_are_those_the_loader_reads() -> None:
    """No key is known to one side alone."""
    schema = SCHEMAS["endpoint.schema.json"]
    assert list(schema["properties"]["streaming"]["properties"]) == [each.name for each in fields_of(Streaming)]
    assert set(schema["definitions"]["input"]["properties"]) == {*[each.name for each in INPUT_KEYS], *CONSTRAINTS}
    for kind, fields in DOCUMENT_KEYS.items():
        assert set(SCHEMAS[f"{kind}.schema.json"]["properties"]) == {each.name for each in fields}


def test_defaults_of_streaming_are_read_as_they_are() -> None:
    """The defaults that the editor shows are those that hold."""
    shown = SCHEMAS["endpoint.schema.json"]["properties"]["streaming"]["properties"]
    defaults = {key: rules["default"] for key, rules in shown.items() if "default" in rules}
    node = read(json.dumps(defaults), "f")[0][0].root
    assert parse_streaming(node, Streaming()) == (Streaming(), [])  # type: ignore[arg-type]


def test_written_schemas_are_fresh() -> None:
    """The files in `schemas/` are those that the declarations make: `make schemas` writes them."""
    for name, schema in SCHEMAS.items():
        written = (ROOT / "schemas" / name).read_text("utf-8")
        assert written == json.dumps(schema, indent=2, ensure_ascii=False) + "\n", name
    assert {path.name for path in (ROOT / "schemas").iterdir()} == set(SCHEMAS)


def strings(schema: Any, key: str) -> list[str]:
    """Return the texts under a keyword, wherever it stands."""
    if isinstance(schema, dict):
        own = [schema[key]] if isinstance(schema.get(key), str) else []
        return own + [each for value in schema.values() for each in strings(value, key)]
    return [each for item in schema for each in strings(item, key)] if isinstance(schema, list) else []


def properties(schema: Any, path: str) -> list[tuple[str, Any]]:
    """Return the rules of each documented key of a schema of documents, with its place."""
    found: list[tuple[str, Any]] = []
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "properties" and path.rpartition("/")[2] not in ("if", "properties"):
                found += [(f"{path}/{name}", rules) for name, rules in value.items()]
            found += properties(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for item in schema:
            found += properties(item, path)
    return found
