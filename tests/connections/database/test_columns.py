"""The types of rows in OpenAPI documents, as a database describes its statements and tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from streamstack.cli import main
from tests.postgres import query

TABLE = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE words (
  id bigint PRIMARY KEY, word text NOT NULL, price numeric(9, 2), tags text[], seen timestamptz NOT NULL, day date,
  fine boolean, mood mood, about jsonb, key uuid NOT NULL
);
"""
TEXT_OR_NULL = {"type": ["string", "null"]}


def data_schema(folder: Path, *arguments: str) -> Any:
    """Return the schema of the chunks of the only endpoint, as NDJSON has them."""
    result = CliRunner().invoke(main, ["openapi", str(folder), "--format", "json", *arguments])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    (item,) = document["paths"].values()
    schema = item["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    chunk = schema["properties"]["chunks"]["items"]
    return document["components"]["schemas"][chunk["$ref"].rpartition("/")[2]] if "$ref" in chunk else chunk


@pytest.mark.parametrize(
    ("step", "schema"),
    [
        (
            "db.query: SELECT id, word, price, count(*) AS n FROM words WHERE word = << request.path >> GROUP BY id",
            {
                "id": {"type": ["integer", "null"]},
                "word": TEXT_OR_NULL,
                "price": {"type": ["number", "null"]},
                "n": {"type": ["integer", "null"]},
            },
        ),
        (
            "db.stream: SELECT seen, day, fine, tags, mood, about FROM words",
            {
                "seen": {"type": ["string", "null"], "format": "date-time"},
                "day": {"type": ["string", "null"], "format": "date"},
                "fine": {"type": ["boolean", "null"]},
                "tags": {"type": ["array", "null"], "items": TEXT_OR_NULL},
                "mood": TEXT_OR_NULL,
                "about": {},
            },
        ),
        (
            "db.get: {table: words, select: [id, key, mood]}",
            {"id": {"type": "integer"}, "key": {"type": "string", "format": "uuid"}, "mood": TEXT_OR_NULL},
        ),
    ],
)
def test_columns_are_in_the_document(tmp_path: Path, postgres: str, step: str, schema: dict[str, Any]) -> None:
    """With --database rows have the types of their columns; without it they are objects."""
    query(postgres, TABLE)
    (tmp_path / "streamstack.yaml").write_text(f"databases: {{main: {{url: '{postgres}'}}}}\n")
    (tmp_path / "a.yaml").write_text(
        f"method: GET\npath: /a\nfunctionStack:\n  - {step}\n    as: rows\n"
        "  - forEach: {in: << rows >>, as: row, do: [{stream: << row >>}]}\n"
    )
    assert "properties" not in data_schema(tmp_path)
    found = data_schema(tmp_path, "--database")
    assert found["properties"] == schema
    assert (found["required"], found["additionalProperties"]) == (list(schema), False)


def test_statements_that_a_run_decides_are_not_described(tmp_path: Path, postgres: str) -> None:
    """A template, a table that is chosen, and a statement that the database refuses have no types."""
    query(postgres, TABLE)
    (tmp_path / "streamstack.yaml").write_text(f"databases: {{main: {{url: '{postgres}'}}}}\n")
    for step in (
        'db.query: SELECT id FROM words <% if request.path == "/b" %> WHERE id = 1 <% endif %>',
        "db.get: {table: words, select: << request.path >>}",
        "db.query: SELECT id FROM nowhere",
    ):
        (tmp_path / "a.yaml").write_text(
            f"method: GET\npath: /a\nfunctionStack:\n  - {step}\n    as: rows\n"
            "  - forEach: {in: << rows >>, as: row, do: [{stream: << row >>}]}\n"
        )
        assert "properties" not in data_schema(tmp_path, "--database")
