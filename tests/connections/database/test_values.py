"""Values of the language as PostgreSQL's types and back, on every server there is."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from streamstack.language.settings import Database
from streamstack.language.values import to_json
from tests.postgres import query
from tests.stacks import Outcome, run_stack

U = "6f1c2a70-0000-4000-8000-00000000abcd"
T = datetime(2026, 5, 4, 3, 2, 1, 500, UTC)

#: A type, what is handed over, what comes back (the same where it is not said).
TABLE: list[tuple[Any, ...]] = [
    ("boolean", True),
    ("boolean", "yes", True),
    ("boolean", 1, True),
    ("smallint", -32768),
    ("integer", "7", 7),
    ("integer", 7.0, 7),
    ("bigint", 2**63 - 1),
    ("numeric", Decimal("1.10")),
    ("numeric", 2**80, Decimal(2**80)),
    ("numeric", 0.1, Decimal("0.1")),
    ("numeric", "2.50", Decimal("2.50")),
    ("real", 0.1),
    ("real", Decimal("2.5"), 2.5),
    ("double precision", 0.1),
    ("double precision", 3, 3.0),
    ("text", "O'Neil; --"),
    ("text", 5, "5"),
    ("text", True, "true"),
    ("text", {"a": [1]}, '{"a":[1]}'),
    ("text", T, "2026-05-04T03:02:01.000500Z"),
    ("varchar(3)", "abc"),
    ("char(3)", "a", "a  "),
    ("name", "n"),
    ('"char"', "x"),
    ("bytea", b"\x00\xff"),
    ("timestamptz", T),
    ("timestamptz", "2026-05-04T05:02:01+02:00", datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)),
    ("timestamptz", date(2026, 5, 4), datetime(2026, 5, 4, tzinfo=UTC)),
    ("timestamptz", "infinity"),
    ("timestamptz", "0044-03-15T12:00:00Z BC"),
    ("timestamptz", "12026-01-02T00:00:00Z"),
    ("timestamptz", datetime.max.replace(tzinfo=UTC)),
    ("timestamp", T, T.replace(tzinfo=None)),
    ("timestamp", T.replace(tzinfo=None)),
    ("timestamp", "2026-05-04T03:02:01", datetime(2026, 5, 4, 3, 2, 1)),  # noqa: DTZ001  (it has no zone)
    ("timestamp", "0044-03-15T12:00:00 BC"),
    ("timestamp", "-infinity"),
    ("date", date(2026, 5, 4)),
    ("date", T, date(2026, 5, 4)),
    ("date", "2026-05-04", date(2026, 5, 4)),
    ("date", "0044-03-15 BC"),
    ("date", "12026-01-02"),
    ("date", "infinity"),
    ("time", "24:00:00"),
    ("time", "01:02:03.000400"),
    ("timetz", "12:00:00+02:30"),
    ("timetz", "12:00:00-05:00"),
    ("interval", "P1Y2M3DT4H5M6.5S"),
    ("interval", "1 month -1 day 25 hours", "P1M-1DT25H"),
    ("interval", "-00:00:00.5", "PT-0.5S"),
    ("interval", "0", "PT0S"),
    ("uuid", U),
    ("uuid", U.replace("-", ""), U),
    ("jsonb", {"b": [1, None, "x"], "a": {"c": True}}, {"a": {"c": True}, "b": [1, None, "x"]}),
    ("jsonb", [1, 2]),
    ("jsonb", "text"),
    ("jsonb", 5),
    ("jsonb", [Decimal("9007199254740993.5"), 12345678901234567890123, 1.5]),
    ("json", {"z": 1}),
    ("inet", "10.0.0.1"),
    ("cidr", "10.0.0.0/8"),
    ("macaddr", "08:00:2b:01:02:03"),
    ("money", "$12.30"),
    ("bit(3)", "101"),
    ("varbit", "10"),
    ("point", "(1,2)", [1.0, 2.0]),
    ("path", "((0,0),(1,1))", [[0.0, 0.0], [1.0, 1.0]]),
    ("int4range", "[1,3]", "[1,4)"),
    ("tstzrange", '["2026-01-01 00:00:00+00",)', "[2026-01-01T00:00:00Z,)"),
    ("int4multirange", "{[1,3)}", ["[1,3)"]),
    ("tsvector", "'a' 'b'"),
    ("oid", 42),
    ("integer[]", [1, None, 3]),
    ("integer[]", ["1", "2"], [1, 2]),
    ("integer[]", []),
    ("integer[]", [[1, 2], [3, 4]]),
    ("integer[]", "{1,2}", [1, 2]),
    ("text[]", ["a", None, 'q"\\,']),
    ("text[]", ["a", 1, True], ["a", "1", "true"]),
    ("uuid[]", [U]),
    ("timestamptz[]", [T, "2026-05-04T03:02:01.0005Z"], [T, T]),
    ("numeric[]", [1, "2.50"], [Decimal(1), Decimal("2.50")]),
    ("jsonb[]", [{"a": 1}, 2]),
    ("interval[]", ["P1M"]),
    ("date[]", ["2026-05-04"], [date(2026, 5, 4)]),
    ("mood", "ok"),
    ("mood[]", ["ok", "sad", None]),
    ("positive", 5),
    ("positive", "5", 5),
    ("numbers", [1, 2]),
    ("doc", {"a": 1}),
    ("pair", "(1,z)", {"x": 1, "y": "z"}),
    ('"odd ""type"', "a.b"),
]  # fmt: skip

TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE "odd ""type" AS ENUM ('a.b');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN numbers AS integer[];
CREATE DOMAIN doc AS jsonb;
CREATE TYPE pair AS (x integer, y text);
"""


async def run(url: str, stack: str, **inputs: Any) -> Outcome:
    """Run a stack on the database."""
    return await run_stack(stack, inputs, databases={"main": Database(url=url)})


async def result(url: str, stack: str, **inputs: Any) -> Any:
    """Return the result of a stack that must not fail."""
    outcome = await run(url, stack, **inputs)
    assert outcome.error is None, outcome.error.details
    return outcome.result


async def test_every_type_there_and_back(database_url: str) -> None:
    """A value is converted to its column's type, and comes back as a value of the language; as one row and as many."""
    columns = ", ".join(f"c{number} {each[0]}" for number, each in enumerate(TABLE))
    query(database_url, f"{TYPES} CREATE TABLE t ({columns})")
    values = {f"c{number}": each[1] for number, each in enumerate(TABLE)}
    expected = {f"c{number}": each[-1] for number, each in enumerate(TABLE)}
    stack = "- db.insert: {table: t, values: << input.v >>}\n  as: row\n- return: << row >>"
    got = await result(database_url, stack, v=values)
    wrong = {f"{TABLE[int(name[1:])][:2]}": got[name] for name in expected if got[name] != expected[name]}
    assert wrong == {}
    kinds = {name: type(each) for name, each in got.items()}
    assert kinds == {name: type(each) for name, each in expected.items()}
    # what came back goes in again, and as rows; but for composites, which are written as texts only
    back = {name: each for name, each in got.items() if not isinstance(each, dict)}
    back |= {name: each for name, each in got.items() if TABLE[int(name[1:])][0] in ("jsonb", "json", "doc")}
    geometric = ("point", "path", "int4multirange")
    back = {name: each for name, each in back.items() if TABLE[int(name[1:])][0] not in geometric}
    again = await result(database_url, stack, v=back)
    assert {name: again[name] for name in back} == back
    rows = "- db.insert: {table: t, rows: '<< [input.v] >>', returning: '*'}\n  as: rows\n- return: << rows[0] >>"
    again = await result(database_url, rows, v=back)
    assert {name: again[name] for name in back} == back


@pytest.mark.parametrize(
    ("sql", "value", "expected"),
    [
        ("SELECT << input.v >> AS v", 5, 5),
        ("SELECT << input.v >> AS v", "5", "5"),
        ("SELECT << input.v >> AS v", True, True),
        ("SELECT << input.v >> AS v", Decimal("1.50"), Decimal("1.50")),
        ("SELECT << input.v >> AS v", 1.5, 1.5),
        ("SELECT << input.v >> AS v", {"a": 1}, {"a": 1}),
        ("SELECT << input.v >> AS v", [1, 2], [1, 2]),
        ("SELECT << input.v >> AS v", [1, "a"], [1, "a"]),
        ("SELECT << input.v >> AS v", T, T),
        ("SELECT << input.v >> AS v", None, None),
        ("SELECT << input.v >> + << input.v >>", 2**62, None),
        ("SELECT << input.v >> + << input.v >>", 2**70, Decimal(2**71)),
        ("SELECT << input.v >> IS NULL", None, True),
        ("SELECT << input.v >> IS NULL", "x", False),
        ("SELECT 1 WHERE << input.v >> IS NULL OR 1 = << input.v >>", None, 1),
        ("SELECT 1 WHERE << input.v >> IS NULL OR 1 = << input.v >>", "1", 1),
        ("SELECT coalesce(<< input.v >>, 'none')", None, "none"),
        ("SELECT length(<< input.v >>)", 123, 3),
        ("SELECT 'a' || << input.v >>", 5, "a5"),
        ("SELECT jsonb_build_object('v', << input.v >>)", 5, {"v": 5}),
        ("SELECT jsonb_build_object('v', << input.v >>)", None, {"v": None}),
        ("SELECT (<< input.v >>::int[])[2]", [4, 5], 5),
        ("SELECT now() - << input.v >>::interval < now()", "1 day", True),
        ("SELECT extract(year FROM << input.v >>::timestamptz)", "2026-01-01", Decimal(2026)),
    ],
)
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a transaction"])
async def test_a_type_that_the_database_cant_tell_is_the_values_own(
    postgres: str,
    sql: str,
    value: Any,
    expected: Any,
    within: bool,  # noqa: FBT001
) -> None:
    """Also for null, which is a text then, and also in a transaction, which the refused form does not end."""
    step = f'- db.value: {{sql: "{sql}"}}\n  as: v\n- db.value: SELECT 1\n'
    stack = step + "- return: << v >>"
    if within:
        stack = "- db.transaction:\n    do:\n" + "".join(f"      {line}\n" for line in step.splitlines())
        stack += "- return: << v >>"
    outcome = await run(postgres, stack, v=value)
    if expected is None and value is not None:
        assert outcome.error is not None
        assert outcome.error.details["code"] == "22003"
        return
    assert outcome.error is None, outcome.error.details
    assert (outcome.result, type(outcome.result)) == (expected, type(expected))


async def test_the_form_of_a_statement_fits_each_of_its_values(postgres: str) -> None:
    """What one value needed is not what the next one needs, however they follow one another."""
    stack = """
    - set: {sums: []}
    - forEach:
        in: << input.pairs >>
        as: pair
        do:
          - try:
              do:
                - db.value: SELECT << pair[0] >>::int4 + << pair[1] >>::int4
                  as: sum
                - append: {to: sums, value: << sum >>}
              catch: {do: [{append: {to: sums, value: << error.details.code >>}}]}
    - return: << sums >>
    """
    pairs = [[1, "2"], [2**40, "3"], ["1", 2], [2**70, "1"], [1.0, 2], [None, 1], [1, "2"]]
    assert await result(postgres, stack, pairs=pairs) == [3, "22003", 3, "22003", 3, None, 3]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER TABLE t ADD u uuid", {"id": 1, "v": "a", "u": None}),
        ("ALTER TABLE t ADD i interval DEFAULT '1 month'", {"id": 1, "v": "a", "i": "P1M"}),
        ("ALTER TABLE t ADD u uuid DEFAULT '" + U + "'", {"id": 1, "v": "a", "u": U}),
        ("ALTER TABLE t ALTER id TYPE text", {"id": "1", "v": "a"}),
        ("ALTER TABLE t DROP v; ALTER TABLE t ADD v integer[] DEFAULT '{1}'", {"id": 1, "v": [1]}),
        ("DROP TABLE t; CREATE TYPE m AS ENUM ('1'); CREATE TABLE t (id m); INSERT INTO t VALUES ('1')", {"id": "1"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", ["query", "stream"])
async def test_a_statement_outlives_the_change_of_its_tables(
    postgres: str, change: str, expected: Any, function: str
) -> None:
    """Columns and parameters that change their type are met with a new form, on the connections that knew the old."""
    query(postgres, "CREATE TABLE t (id integer, v text); INSERT INTO t VALUES (1, 'a')")
    read = "db.query: SELECT * FROM t WHERE id = << input.id >>"
    if function == "stream":
        read = "db.stream: SELECT * FROM t WHERE id = << input.id >>"
    collected = "- collect: {in: << rows >>}\n      as: rows" if function == "stream" else ""
    stack = f"""
    - {read}
      as: rows
    {collected}
    - db.execute: "DO $$ BEGIN {change}; END $$"
    - {read}
      as: rows
    {collected}
    - return: << rows >>
    """
    assert await result(postgres, stack, id=1) == [expected]


@pytest.mark.parametrize(
    ("value", "code", "says"),
    [("a\0b", "22021", "U+0000"), ("\ud800", "22000", "surrogates"), ({"k": "a\0b"}, "22P05", "U+0000")],
)
async def test_a_text_that_postgres_cant_hold_is_told(postgres: str, value: Any, code: str, says: str) -> None:
    """NUL and halves of characters are refused with a message that says so; the statement's place is reported."""
    cast = "jsonb" if isinstance(value, dict) else "text"
    outcome = await run(postgres, f"- db.value: SELECT << input.v >>::{cast}\n  as: v\n- return: << v >>", v=value)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.details["code"]) == ("database", code)
    assert outcome.error.status == 400
    assert says in outcome.error.message + outcome.error.details["message"]
    assert str(outcome.error.place).startswith("test.yaml:6:5")


async def test_numbers_without_end_are_null_in_json(postgres: str) -> None:
    """NaN and infinities of every type, as for all of the language; in rows they stay what they are."""
    query(postgres, "CREATE TABLE n (a numeric, b double precision, c real)")
    rows = [{"a": Decimal("NaN"), "b": float("inf"), "c": float("-inf")}]
    stack = "- db.insert: {table: n, rows: << input.rows >>, returning: '*'}\n  as: back\n- return: << back >>"
    back = await result(postgres, stack, rows=rows)
    assert back[0]["a"].is_nan()
    assert (back[0]["b"], back[0]["c"]) == (float("inf"), float("-inf"))
    assert to_json(back) == b'[{"a":null,"b":null,"c":null}]'


async def test_a_list_where_one_value_belongs_is_told(postgres: str) -> None:
    """The message names the binding, and what to write."""
    outcome = await run(postgres, "- db.query: SELECT 1 WHERE 1 = << input.ids >>\n  as: r\n- return: << r >>", ids=[1])
    assert outcome.error is not None
    assert "<< input.ids >> is a list" in outcome.error.message
    assert "= ANY(<<...>>)" in outcome.error.message


@pytest.mark.parametrize(
    "step",
    [
        "db.query: SELECT 1 FROM shelf WHERE name = << input.names >>",
        "db.query: SELECT 1 FROM shelf WHERE name LIKE << input.names >>",
        "db.query: SELECT 1 FROM shelf WHERE name NOT ILIKE << input.names >>",
        "db.query: SELECT 1 FROM shelf WHERE name IN (<< input.names >>)",
        "db.query: SELECT 1 FROM shelf WHERE name IS DISTINCT FROM << input.names >>",
        "db.get: {table: shelf, where: {name: << input.names >>}}",
        "db.get: {table: shelf, where: {name: {ne: << input.names >>}}}",
        "db.transaction: {do: [{db.get: {table: shelf, where: {name: [pen, ink]}}}]}",
    ],
)
async def test_a_list_that_is_compared_with_a_text_is_told(postgres: str, step: str) -> None:
    """As its JSON it would find nothing, for no visible reason."""
    query(postgres, "CREATE TABLE shelf (name text)")
    outcome = await run(postgres, f"- {step}", names=["pen", "ink"])
    assert outcome.error is not None, step
    assert outcome.error.code in ("template", "invalid-input")
    assert "{in: <<...>>}" in outcome.error.message


async def test_a_list_where_its_json_is_meant_is_a_text(postgres: str) -> None:
    """A column of text holds the JSON of a list, a function takes it, and a list is joined to a text."""
    query(postgres, "CREATE TABLE shelf (name text)")
    stack = (
        "- db.insert: {table: shelf, values: {name: << input.names >>}}\n"
        "- db.value: SELECT upper(<< input.names >>) || name FROM shelf\n  as: r\n- return: << r >>"
    )
    assert await result(postgres, stack, names=["a"]) == '["A"]["a"]'


async def test_large_values_and_many_columns(postgres: str) -> None:
    """A text of 20 MB goes through, and more parameters than the protocol has are refused clearly."""
    large = "x" * 20_000_000
    assert await result(
        postgres, "- db.value: SELECT length(<< input.v >>)\n  as: n\n- return: << n >>", v=large
    ) == len(large)
    many = {f"c{number}": number for number in range(40_000)}
    query(postgres, "CREATE TABLE few (a integer)")
    outcome = await run(postgres, "- db.insert: {table: few, values: << input.v >>}", v=many)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.status) == ("database", 400)
    assert "40000 parameters" in outcome.error.details["message"]
    rows = [{"a": number} for number in range(40_000)]
    stack = "- db.insert: {table: few, rows: << input.rows >>}\n  as: n\n- return: << n >>"
    assert await result(postgres, stack, rows=rows) == 40_000
