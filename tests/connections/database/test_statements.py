"""`streamstack validate --database`: what definitions name and a database does not have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamstack.cli import main
from tests.postgres import query

DEFINITION = """
method: GET
path: /x
responseType: streaming
inputParameters: {q: {type: text}}
functionStack:
  - db.get: {table: orders, where: {pricee: {gt: 3}}, sort: -name, select: [id, nam]}
    as: a
  - db.get: {table: ordres}
    as: b
  - db.query: SELECT id FROM orders WHERE prise = << input.q >>
    as: c
  - db.execute: UPDATE nowhere SET id = 1
  - db.query: SELEC 1
    as: d
  - db.query: SELECT id FROM orders WHERE << input.q >> IS NULL OR name = << input.q >>
    as: e
  - db.insert: {table: Shop.Order, values: {Key: 1, key: 2}}
  - stream: << [a, b, c, d, e] | toJson >>
"""


def project(folder: Path, url: str, setup: str | None = None) -> Path:
    """Write a project that uses a database."""
    (folder / "x.yaml").write_text(DEFINITION.lstrip())
    also = ""
    if setup is not None:
        (folder / "setup.sql").write_text(setup)
        also = ", setup: setup.sql"
    (folder / "streamstack.yaml").write_text(f"databases: {{main: {{url: '{url}'{also}}}}}\n")
    return folder


TABLES = """CREATE TABLE orders (id integer, name text, price numeric); CREATE SCHEMA "Shop";
CREATE TABLE "Shop"."Order" ("Key" integer);"""


def validate(folder: Path) -> tuple[int, list[tuple[int, str, str, str]]]:
    """Run the command; return its exit code and what it found."""
    outcome = CliRunner().invoke(main, ["validate", str(folder), "--database", "--format", "json"])
    if outcome.exit_code == 2:
        return 2, [(0, "", outcome.stderr, "")]
    found = json.loads(outcome.stdout)["findings"]
    return outcome.exit_code, [(f["line"], f["code"], f["message"], f["hint"]) for f in found]


@pytest.mark.parametrize("by_setup", [False, True], ids=["tables", "tables of a setup file"])
def test_what_is_not_there_is_told(tmp_path: Path, postgres: str, by_setup: bool) -> None:  # noqa: FBT001
    """Tables, columns and statements, each at its place, with what was meant; a setup file is tried and undone."""
    if not by_setup:
        query(postgres, TABLES)
    code, found = validate(project(tmp_path, postgres, TABLES if by_setup else None))
    assert code == 1
    database = [each for each in found if each[1] in ("unknown-table", "unknown-column", "bad-sql")]
    told = [(line, code_) for line, code_, _, _ in database]
    assert told == [
        (6, "unknown-column"), (6, "unknown-column"), (8, "unknown-table"), (10, "unknown-column"),
        (12, "unknown-table"), (13, "bad-sql"), (17, "unknown-column"),
    ]  # fmt: skip
    hints = [hint for _, _, _, hint in database]
    assert {"did you mean `price`?", "did you mean `name`?"} == set(hints[:2])
    assert hints[2] == "did you mean `orders`?"
    assert hints[6] == "did you mean `Key`?"
    if by_setup:
        assert query(postgres, "SELECT 1 FROM pg_tables WHERE tablename = $1", "orders") == []


def test_a_setup_file_that_fails_is_told_with_its_line(tmp_path: Path, postgres: str) -> None:
    """The command can't run then; nothing of the file is kept."""
    code, found = validate(project(tmp_path, postgres, "CREATE TABLE orders (id int);\nCREATE TABEL x ();"))
    assert code == 2
    assert "setup.sql:2" in found[0][2]
    assert query(postgres, "SELECT 1 FROM pg_tables WHERE tablename = $1", "orders") == []


def test_a_setup_file_that_would_commit_by_itself_is_refused(tmp_path: Path, postgres: str) -> None:
    """It is run in a transaction; a COMMIT in it would leave what the checks are to undo."""
    text = "CREATE TABLE orders (id int);\n/* a */ COMMIT;\n"
    code, found = validate(project(tmp_path, postgres, text))
    assert code == 2
    assert "setup.sql:2" in found[0][2]
    assert "COMMIT" in found[0][2]
    assert query(postgres, "SELECT 1 FROM pg_tables WHERE tablename = $1", "orders") == []


def test_a_database_out_of_reach_is_told(tmp_path: Path) -> None:
    """Exit 2, with its name and without its password."""
    code, found = validate(project(tmp_path, "postgresql://u:geheim@127.0.0.1:1/none"))
    assert code == 2
    assert "the database is out of reach (main)" in found[0][2]
    assert "geheim" not in found[0][2]


def test_a_column_is_told_where_its_name_stands(tmp_path: Path, postgres: str) -> None:
    """In `values` and `set` it is the key, be their values constant or not."""
    query(postgres, TABLES)
    folder = project(tmp_path, postgres)
    (folder / "x.yaml").write_text(
        """method: POST
path: /x
responseType: json
functionStack:
  - db.insert: {table: orders, values: {id: 1, nam: pen}}
  - db.update:
      table: orders
      set:
        id: 2
        prize: << 1 + 1 >>
      where: {id: 1}
response: done
"""
    )
    outcome = CliRunner().invoke(main, ["validate", str(folder), "--database", "--format", "json"])
    found = json.loads(outcome.stdout)["findings"]
    assert [(f["line"], f["column"], f["code"]) for f in found] == [
        (5, 48, "unknown-column"),
        (10, 9, "unknown-column"),
    ]
