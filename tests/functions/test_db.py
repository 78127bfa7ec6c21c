"""Statements and transactions, from YAML to what PostgreSQL holds afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamstack.language.settings import Database
from tests.postgres import query
from tests.stacks import Outcome, run_stack


async def run(url: str, stack: str, also: str = "", **inputs: Any) -> Outcome:
    """Run a stack on the database."""
    return await run_stack(stack, inputs, also=also, databases={"main": Database(url=url)})


def rows(url: str) -> list[int]:
    """Return the keys that the table holds."""
    return [row[0] for row in query(url, "SELECT id FROM t WHERE $1 ORDER BY id", True)]


@pytest.fixture
def table(postgres: str) -> str:
    """A database with an empty table `t`."""
    query(postgres, "CREATE TABLE t (id integer PRIMARY KEY, name text)")
    return postgres


def add(number: int) -> str:
    """Return the step that adds a row."""
    return f"db.insert: {{table: t, values: {{id: {number}}}}}"


@pytest.mark.parametrize(
    ("leave", "kept"),
    [
        ("- return: 1", [1, 3]),
        ("- break", [1, 3]),
        ("- continue", [1, 3]),
        ("- throw: {code: no, message: no}", [3]),
        ("- db.execute: SELECT 1/0", [3]),
        ("- set: {x: '<< nothing.at.all >>'}", [3]),
    ],
)
async def test_only_an_error_rolls_back(table: str, leave: str, kept: list[int]) -> None:
    """Leaving by `return`, `break` or `continue` commits."""
    if "nothing" in leave:
        leave = "- set: {x: '<< {\"a\": 1}.b >>'}"
    stack = f"""
    - after: {{do: [{{{add(3)}}}]}}
    - forEach:
        in: [1]
        do:
          - db.transaction:
              do:
                - {add(1)}
                {leave}
    """
    outcome = await run(table, stack)
    assert (outcome.error is None) is (1 in kept)
    assert rows(table) == kept


async def test_a_caught_error_ends_the_transaction_and_is_told(table: str) -> None:
    """PostgreSQL says nothing at the COMMIT of a transaction that failed: we do, instead of losing its rows."""
    stack = f"""
    - db.transaction:
        do:
          - {add(1)}
          - try: {{do: [{{{add(1)}}}], catch: {{do: [{{set: {{x: 1}}}}]}}}}
    """
    outcome = await run(table, stack)
    assert outcome.error is not None
    assert outcome.error.details["code"] == "25P02"
    assert "`db.transaction` of its own" in outcome.error.details["message"]
    assert rows(table) == []


@pytest.mark.parametrize("inner", ["SELECT 1/0", "SELECT pg_sleep(9)"])
async def test_a_savepoint_undoes_its_own_part(table: str, inner: str) -> None:
    """By an error, and by a time-out; what was before and after it is kept."""
    stack = f"""
    - db.transaction:
        do:
          - {add(1)}
          - try:
              do:
                - db.transaction:
                    do:
                      - {add(2)}
                      - db.execute: {inner}
                        timeout: 300ms
              catch: {{do: [{{set: {{x: 1}}}}]}}
          - {add(3)}
    """
    outcome = await run(table, stack)
    assert outcome.error is None, outcome.error.message
    assert rows(table) == [1, 3]


async def test_savepoints_of_branches_do_not_meet(table: str) -> None:
    """Branches take turns: the rollback of one undoes nothing of another."""
    stack = """
    - db.transaction:
        do:
          - parallel:
              branches:
                good: [{db.transaction: {do: [{db.execute: INSERT INTO t VALUES (1)}, {wait: 30ms}, {db.execute: INSERT INTO t VALUES (2)}]}}]
                bad:
                  - try:
                      do: [{db.transaction: {do: [{db.execute: INSERT INTO t VALUES (3)}, {wait: 10ms}, {throw: {code: no, message: no}}]}}]
                      catch: {do: [{set: {x: 1}}]}
                plain: [{wait: 5ms}, {db.execute: INSERT INTO t VALUES (4)}]
    """  # noqa: E501  (a stack, or a table, reads better so)
    outcome = await run(table, stack)
    assert outcome.error is None, outcome.error.message
    assert rows(table) == [1, 2, 4]


async def test_a_function_that_is_called_is_within(table: str) -> None:
    """What it wrote is rolled back with the caller's."""
    also = "kind: function\nname: add\nfunctionStack:\n  - db.execute: INSERT INTO t VALUES (1)\n"
    stack = "- db.transaction: {do: [{call: add}, {throw: {code: no, message: no}}]}"
    outcome = await run(table, stack, also)
    assert outcome.error is not None
    assert outcome.error.code == "no"
    assert rows(table) == []


async def test_a_conflict_can_be_tried_again(table: str) -> None:
    """Of two transactions that change what the other read, `retry` lets both come to their end."""
    query(table, "INSERT INTO t VALUES (0, '0')")
    stack = """
    - db.transaction:
        isolation: serializable
        do:
          - db.value: SELECT name::int FROM t WHERE id = 0
            as: n
          - wait: 30ms
          - db.update: {table: t, set: {name: << n + 1 >>}, where: {id: 0}}
      retry: {times: 20, delay: 5ms, jitter: true, on: [database]}
    """
    outcomes = await asyncio.gather(*(run(table, stack) for _ in range(3)))
    assert [each.error for each in outcomes] == [None] * 3
    assert query(table, "SELECT name FROM t WHERE id = $1", 0)[0][0] == "3"


async def test_an_isolation_within_another_is_refused(table: str) -> None:
    """It belongs to the outermost; the message says so."""
    stack = "- db.transaction: {do: [{db.transaction: {isolation: serializable, do: [{db.execute: SELECT 1}]}}]}"
    outcome = await run(table, stack)
    assert outcome.error is not None
    assert "outermost" in outcome.error.message


async def test_errors_are_those_of_their_step(table: str) -> None:
    """File, line, column, step; the database's code, constraint and detail; a bad statement is not tried again."""
    outcome = await run(table, f"- {add(1)}\n- name: Twice\n  {add(1)}")
    assert outcome.error is not None
    assert outcome.error.details["code"] == "23505"
    assert outcome.error.details["constraint"] == "t_pkey"
    assert outcome.error.final
    assert str(outcome.error.place).startswith("test.yaml:7:5: step Twice (functionStack[1]")
    assert outcome.error.status == 409
    assert outcome.error.public == "a row with the same key exists already"


@pytest.mark.parametrize(
    ("sql", "status", "code", "says"),
    [
        ("INSERT INTO c VALUES (1, 1, 1)", 409, "23505", "same key"),
        ("INSERT INTO c VALUES (2, 9, 1)", 400, "23503", "refers to"),
        ("DELETE FROM p WHERE id = 1", 400, "23503", "still refer"),
        ("INSERT INTO c VALUES (2, 1, NULL)", 400, "23502", "required value"),
        ("INSERT INTO c VALUES (2, 1, -1)", 400, "23514", "not allowed"),
        ("SELECT 'x'::text::integer", 400, "22P02", "malformed"),
        ("SELECT 300000::integer::smallint", 400, "22003", "out of range"),
        ("SELECT 1 / 0", 400, "22012", "out of range"),
        ("SELECT nothing FROM nowhere", 500, "42P01", "refused"),
    ],
)
async def test_errors_are_fit_for_clients(postgres: str, sql: str, status: int, code: str, says: str) -> None:
    """What the data is at fault for is a 4xx; no message names tables, keys or values, which `details` hold."""
    query(
        postgres,
        "CREATE TABLE p (id integer PRIMARY KEY); INSERT INTO p VALUES (1);"
        "CREATE TABLE c (id integer PRIMARY KEY, p integer REFERENCES p, n integer NOT NULL CHECK (n > 0));"
        "INSERT INTO c VALUES (1, 1, 1)",
    )
    outcome = await run(postgres, f'- db.execute: "{sql}"')
    error = outcome.error
    assert error is not None
    assert (error.code, error.status, error.details["code"]) == ("database", status, code)
    assert says in error.message
    assert not {"nowhere", "c_pkey", "(1)", "main"} & set(error.message.split())
    assert error.details["message"]
    assert (error.public == error.message) is (status < 500)


async def test_patch_changes_one_row_or_tells(table: str) -> None:
    """Only the values that are given; no row is a 404, several are refused and stay as they were."""
    patch = "- db.patch: {{table: t, key: {}, values: {}}}\n  as: row\n- return: << row >>"
    await run(table, f"- {add(1)}\n- {add(2)}")
    assert (await run(table, patch.format("{id: 1}", "{id: 3}"))).result["id"] == 3
    assert (await run(table, patch.format("{id: 3}", "'<< {} >>'"))).result["id"] == 3
    missing = await run(table, patch.format("{id: 9}", "{id: 4}"))
    assert missing.error is not None
    assert (missing.error.code, missing.error.status) == ("not-found", 404)
    query(table, "CREATE TABLE twice (a integer, b integer); INSERT INTO twice VALUES (1, 1), (1, 2)")
    both = await run(table, patch.format("{a: 1}", "{b: 3}").replace("table: t", "table: twice"))
    assert both.error is not None
    assert both.error.code == "limit-reached"
    assert query(table, "SELECT b FROM twice WHERE $1 ORDER BY b", True) == [(1,), (2,)]


async def test_limits(table: str) -> None:
    """`db.query` refuses one row more than its limit; `db.get` reads that many."""
    stack = "- db.query: {sql: 'SELECT generate_series(1, << input.n >>) AS n', limit: 2}\n  as: r\n- return: << r | length >>"  # noqa: E501  (a stack, or a table, reads better so)
    assert (await run(table, stack, n=2)).result == 2
    outcome = await run(table, stack, n=3)
    assert outcome.error is not None
    assert outcome.error.code == "limit-reached"
    query(table, "INSERT INTO t SELECT generate_series(1, 5)")
    stack = "- db.get: {table: t, sort: -id, limit: 2, offset: 1}\n  as: r\n- return: << r | map(attribute='id') >>"
    assert (await run(table, stack)).result == [4, 3]


async def test_names_of_every_kind(postgres: str) -> None:
    """Upper case, quotes, dots, other schemas, views, generated columns, key words."""
    query(
        postgres,
        """CREATE SCHEMA "My Shop"; CREATE TABLE "My Shop"."Order" ("select" int PRIMARY KEY, "a""b" text, "c.d" text,
        n int GENERATED ALWAYS AS ("select" * 2) STORED); CREATE VIEW v AS SELECT * FROM "My Shop"."Order";""",
    )
    stack = """
    - db.upsert: {table: My Shop.Order, values: {select: 1, 'a"b': x, c.d: y}, key: select}
    - db.upsert: {table: My Shop.Order, values: {select: 1, 'a"b': z}, key: select, returning: [n, 'a"b', c.d]}
      as: row
    - db.insert: {table: v, values: {select: 2}, returning: n}
      as: other
    - db.update: {table: v, set: {c.d: w}, where: {select: {in: [2]}, 'a"b': null}, returning: c.d}
      as: changed
    - db.delete: {table: v, where: {select: {notIn: [1]}, c.d: {ilike: W}}}
      as: gone
    - return: << [row, other, changed, gone] >>
    """
    outcome = await run(postgres, stack)
    assert outcome.error is None, outcome.error.message
    assert outcome.result == [{"n": 2, 'a"b': "z", "c.d": "y"}, {"n": 4}, [{"c.d": "w"}], 1]


async def test_rows_of_several_kinds_are_all_added_or_none(table: str) -> None:
    """Rows that name other columns make several statements, in one transaction."""
    stack = "- db.insert: {table: t, rows: << input.rows >>}\n  as: n\n- return: << n >>"
    assert (await run(table, stack, rows=[])).result == 0
    assert (await run(table, stack, rows=[{"id": 1}, {"id": 2, "name": "b"}, {"id": 3}])).result == 3
    outcome = await run(table, stack, rows=[{"id": 4}, {"id": 5, "name": "b"}, {"id": 1}])
    assert outcome.error is not None
    assert rows(table) == [1, 2, 3]


async def test_a_row_that_a_trigger_keeps_out_is_null(table: str) -> None:
    """There is nothing to give back then."""
    query(
        table,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no()",
    )
    outcome = await run(table, f"- {add(1)}\n  as: row\n- return: << row >>")
    assert (outcome.error, outcome.result) == (None, None)


async def test_several_databases(database_url: str) -> None:
    """A step names its database; an unknown one is reported with what was meant."""
    databases = {"one": Database("one", url=database_url), "two": Database("two", url=database_url)}
    stack = "- db.value: {sql: SELECT 2, database: two}\n  as: v\n- return: << v >>"
    assert (await run_stack(stack, databases=databases)).result == 2
    outcome = await run_stack("- db.execute: SELECT 1", databases=databases)
    assert outcome.error is not None
    assert "say which `database`" in outcome.error.message


async def test_an_error_of_a_step_is_not_the_databases(table: str) -> None:
    """Whatever a step within a transaction raises stays what it is."""
    stack = "- db.transaction: {do: [{wait: 5s}]}\n  timeout: 50ms"
    outcome = await run(table, stack)
    assert outcome.error is not None
    assert outcome.error.code == "timeout"


async def test_a_row_that_is_null_is_no_row_of_defaults(table: str) -> None:
    """What a caller left out does not become an empty row; an empty object is one on purpose."""
    query(table, "CREATE TABLE defaults (id serial, name text)")
    outcome = await run(table, "- db.insert: {table: defaults, values: << input.v >>}", v=None)
    assert outcome.error is not None
    assert "write `values: {}` for a row of defaults" in outcome.error.message
    stack = "- db.insert: {table: defaults, values: << input.v >>}\n  as: r\n- return: << r.id >>"
    assert (await run(table, stack, v={})).result == 1


@pytest.mark.parametrize(("name", "told"), [("", "an empty text"), ("a\0b", "one with U+0000")])
async def test_what_is_no_name_is_told(table: str, name: str, told: str) -> None:
    """A column without a name, or with the one character that PostgreSQL does not take, is refused in our words."""
    outcome = await run(table, "- db.insert: {table: t, values: << input.v >>}", v={name: 1})
    assert outcome.error is not None
    assert f"the name must be text, not {told}" in outcome.error.message


@pytest.mark.parametrize("step", ["db.query", "db.first", "db.stream"])
async def test_two_columns_of_one_name(table: str, step: str) -> None:
    """None of them is silently lost: the error says what to write. What gives no rows is none the wiser."""
    read = "- collect: << found >>" if step == "db.stream" else "- return: << found >>"
    outcome = await run(table, f"- {step}: SELECT 1 AS id, 2 AS id\n  as: found\n{read}")
    assert outcome.error is not None
    assert 'two columns of the statement are called "id"' in outcome.error.details["message"]
    outcome = await run(table, "- db.execute: SELECT abs(1), abs(2)")
    assert outcome.error is None
