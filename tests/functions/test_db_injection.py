"""Nothing that a caller sends becomes SQL: hostile texts, objects and lists in every place that takes a binding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamstack.errors import RunError
from streamstack.functions.db_tables import Comparison, Writer, order_by, quoted, table_name
from streamstack.language.settings import Database
from tests.postgres import query
from tests.stacks import Outcome, run_stack

TEXTS = [
    "' OR '1'='1", "'; DROP TABLE canary; --", '"; DROP TABLE canary; --', "\\'; DROP TABLE canary; --",
    "$$; DROP TABLE canary; $$", "*/ DROP TABLE canary /*", "1; DELETE FROM canary", "<< 1 + 1 >>", "<% if 1 %>",
    "$1", "%", "NULL", 'id" = 1 OR "id', "id, (SELECT secret FROM canary)", "canary.secret", "pg_sleep(9)",
    "\u02bc OR 1=1", "id) UNION SELECT secret FROM canary --", "t", "t_", "canary", "ctid\n--", "*", "old", "new", "excluded",  # noqa: E501  (a stack, or a table, reads better so)
]  # fmt: skip
HOSTILE: list[Any] = [
    *TEXTS, {"gt": ""}, {"in": ["a"]}, {"like": "%"}, {"ne": None}, {"notIn": []}, ["a' OR 1=1"], [], {}, True, [{"eq": 1}],  # noqa: E501  (a stack, or a table, reads better so)
]  # fmt: skip


@pytest.fixture
def canary(postgres: str) -> str:
    """A table with a secret, which must not show and must not change."""
    query(
        postgres,
        "CREATE TABLE canary (id integer PRIMARY KEY, name text, secret text); INSERT INTO canary VALUES (1, 'bird', 'hidden')",  # noqa: E501  (a stack, or a table, reads better so)
    )
    return postgres


async def run(url: str, stack: str, **inputs: Any) -> Outcome:
    """Run a stack on the database."""
    return await run_stack(stack, inputs, databases={"main": Database(url=url)})


def held(url: str) -> list[tuple[Any, ...]]:
    """Return all rows of the table."""
    return [tuple(row) for row in query(url, "SELECT * FROM canary WHERE $1", True)]


PLACES = {
    "sql": "- db.query: SELECT id FROM canary WHERE name = << x >>\n  as: got",
    "sql in a template": "- db.query: SELECT id FROM canary WHERE <% if x %>name = << x >> AND <% endif %>false\n  as: got",  # noqa: E501  (a stack, or a table, reads better so)
    "where": "- db.get: {table: canary, where: {name: << x >>}, select: id}\n  as: got",
    "whole where": "- db.get: {table: canary, where: << x >>, select: id}\n  as: got",
    "compared": "- db.get: {table: canary, where: {name: {eq: << x >>}}, select: id}\n  as: got",
    "in": "- db.get: {table: canary, where: {name: {in: << x >>}}, select: id}\n  as: got",
    "select": "- db.get: {table: canary, select: << x >>, where: {id: 2}}\n  as: got",
    "sort": "- db.get: {table: canary, sort: << x >>, select: id, where: {id: 2}}\n  as: got",
    "table": "- db.get: {table: << x >>, where: {id: 2}}\n  as: got",
    "keys": "- db.insert: {table: canary, values: '<< {x | toText: 1} >>'}\n  as: got",
    "rows": "- db.insert: {table: canary, rows: '<< [{x | toText: 1}] >>'}\n  as: got",
    "set": "- db.update: {table: canary, set: '<< {x | toText: 1} >>', where: {id: 2}}\n  as: got",
    "update where": "- db.update: {table: canary, set: {name: gone}, where: {name: << x >>}}\n  as: got",
    "delete where": "- db.delete: {table: canary, where: {name: << x >>}}\n  as: got",
    "upsert key": "- db.upsert: {table: canary, values: {id: 9}, key: << x >>}\n  as: got",
    "channel": "- db.value: SELECT pg_notify('a', << x >>::text)\n  as: got",
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
async def test_a_hostile_value_is_a_value_or_refused(canary: str, place: str) -> None:
    """Neither does it show the secret, nor change a row, nor select one that it is not equal to."""
    step = "\n".join("          " + line for line in PLACES[place].splitlines())
    stack = f"""
    - set: {{all: []}}
    - forEach:
        in: << input.values >>
        as: x
        do:
          - try:
              do:
{step.replace("          ", "                ")}
                - append: {{to: all, value: << got | toJson >>}}
              catch: {{do: [{{append: {{to: all, value: << error.code >>}}}}]}}
    - return: << all >>
    """
    outcome = await run(canary, stack, values=HOSTILE)
    assert outcome.error is None, outcome.error.message
    assert len(outcome.result) == len(HOSTILE)
    assert held(canary) == [(1, "bird", "hidden")]
    for value, got in zip(HOSTILE, outcome.result, strict=True):
        assert "hidden" not in got, value
        if place in ("sql", "sql in a template", "where", "compared", "in"):
            assert got in ("[]", "database", "template"), value


async def test_an_operator_is_the_authors_only(canary: str) -> None:
    """An object that a caller sends is compared as one: it can't be a comparison."""
    stack = "- db.get: {table: canary, where: << input.w >>, select: id}\n  as: r\n- return: << r >>"
    for where in ({"name": {"ne": "x"}}, {"name": {"like": "%"}}, {"id": {"gt": 0}}):
        outcome = await run(canary, stack, w=where)
        assert outcome.result in (None, [])
    outcome = await run(canary, stack, w={"name": "bird"})
    assert outcome.result == [{"id": 1}]


@pytest.mark.parametrize("name", ["canary", "t", "t_", "T", "old", "new", "tableoid_", "record"])
async def test_a_name_that_is_no_column_is_refused(canary: str, name: str) -> None:
    """Also the table's own, which PostgreSQL would take for the whole row."""
    for step in (
        "db.get: {table: canary, select: << [input.n, 'id'] >>}",
        "db.get: {table: canary, where: '<< {input.n: 1} >>'}",
        "db.get: {table: canary, sort: << input.n >>}",
        "db.update: {table: canary, set: {name: bird}, where: {id: 1}, returning: << input.n >>}",
        "db.insert: {table: canary, values: {id: 5}, returning: << input.n >>}",
        "db.delete: {table: canary, where: {id: 7}, returning: << input.n >>}",
    ):
        step_ = step.replace("<< [input.n, 'id'] >>", "\"<< [input.n, 'id'] >>\"")
        outcome = await run(canary, f"- {step_}\n  as: r\n- return: << r >>", n=name)
        assert outcome.error is not None, step
        error = outcome.error if outcome.error.code == "database" else outcome.error.__cause__
        assert isinstance(error, RunError)  # a name that a client chose is its own fault: `invalid-input`
        assert error.details["code"] in ("42703", "42P01"), (step, error.message)
    assert held(canary) == [(1, "bird", "hidden")]


@given(value=st.one_of(st.text(), st.integers(), st.lists(st.text()), st.dictionaries(st.text(), st.text())))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_the_statement_never_depends_on_a_value(value: Any) -> None:
    """Whatever is bound, the pieces are the same."""

    def pieces(given_: Any) -> tuple[str, ...]:
        writer = Writer("DELETE FROM x").where({"a": given_, "b": Comparison({"gt": given_, "like": given_})})
        return writer.query[0].pieces

    assert pieces(value) == pieces(1)


@given(st.text(min_size=1).filter(lambda name: "\0" not in name))
@settings(max_examples=300)
def test_a_name_stays_within_its_quotes(name: str) -> None:
    """Quotes in it are doubled: it begins with the first and ends with the last, whatever it holds."""
    for text, count in ((quoted(name), 1), (order_by([name]), 1)):
        inside = text[text.index('"') + 1 : text.rindex('"')]
        assert '"' not in inside.replace('""', "")
        assert count == 1
    assert all(part[0] == part[-1] == '"' for part in [table_name("a"), quoted(name)])
