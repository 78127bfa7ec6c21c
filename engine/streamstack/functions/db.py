"""The Databases family: choosing the database, SQL statements, and transactions."""

from __future__ import annotations

from typing import Any, Final

from streamstack.connections.database.interface import ISOLATION, Database, Databases
from streamstack.errors import RunError
from streamstack.language.definition import Configured, Effects, Example, Parameter, function
from streamstack.language.graph import Node, constant
from streamstack.language.settings import default_database
from streamstack.language.sql import Statement
from streamstack.language.suggest import did_you_mean
from streamstack.runtime.compiler import Code
from streamstack.runtime.run import Context, Run
from streamstack.spec import Bound, Constant, Kind, Nesting, StackOf

#: Rows that are held whole, unless the author says otherwise.
MOST_ROWS: Final = 10_000

#: A statement, and the values of its parameters.
Query = tuple[Statement, list[Any]]

DATABASE: Final = Parameter(
    "database",
    Constant(),
    "Name of the database under `databases` in streamstack.yaml. Default: the only one, or `main`.",
)
SQL: Final = Parameter(
    "sql",
    Bound(Kind.SQL),
    "SQL statement. Each << binding >> becomes a bound parameter, never part of the SQL text.",
    required=True,
    main=True,
)
LIMIT: Final = Parameter(
    "limit",
    Bound(Kind.INTEGER, minimum=1),
    "Maximum number of rows. A larger result fails with `limit-reached`.",
    default=MOST_ROWS,
)
CONFIGURED: Final = (Configured("database", "databases"),)


def gives_value(result: str) -> Effects:
    """Return the effects of a statement that gives a value of a shape."""
    return Effects(gives="value", result=result, configured=CONFIGURED)


def open_databases(context: Context) -> Databases:
    """Make the databases of a project; each connects when it is first used."""
    return Databases(context.databases, context.folder, joins=context.joins, starts=context.starts)


def database_of(run: Run, name: str | None) -> Database:
    """Return the database that a step means.

    Raises RunError ``template`` where there is none of that name, or more than one to choose from.
    """
    databases = run.context.resource(open_databases)
    known = run.context.databases
    chosen = name if name is not None else default_database(known)
    if chosen is None:
        raise RunError("template", f"say which `database` is meant: {', '.join(known)}", final=True)
    if chosen not in databases:
        message = f"the settings have no database `{chosen}`{did_you_mean(chosen, known)}"
        raise RunError("template", message, final=True)
    return databases[chosen]


async def held_rows(run: Run, database: str | None, query: Query, limit: int) -> list[dict[str, Any]]:
    """Run a statement and return all its rows.

    Raises RunError ``limit-reached`` for more than ``limit``, ``database``.
    """
    statement, values = query
    rows = await database_of(run, database).rows(statement, values, limit + 1)
    if len(rows) > limit:
        raise RunError(
            "limit-reached", f"the statement gives more than {limit} rows: raise `limit`, or read them with `db.stream`"
        )
    return rows


@function(
    "db.query",
    SQL,
    DATABASE,
    LIMIT,
    effects=gives_value("[{...}]"),
    examples=[
        Example(
            "rows as a list of objects",
            "- db.query: SELECT n, n * n AS square FROM generate_series(1, << input.upTo >>) n\n"
            "  as: rows\n- return: << rows >>",
            inputs={"upTo": 2},
            result=[{"n": 1, "square": 1}, {"n": 2, "square": 4}],
        ),
        Example(
            "match any value of a list",
            "- db.query: SELECT n FROM generate_series(1, 9) n WHERE n = ANY(<< input.wanted >>)\n"
            "  as: rows\n- return: << rows | map(attribute='n') >>",
            inputs={"wanted": [2, 3, 12]},
            result=[2, 3],
        ),
        Example(
            "a value never changes the statement",
            "- db.query: SELECT count(*) AS found FROM pg_class WHERE relname = << input.name >>\n"
            "  as: rows\n- return: << rows[0].found >>",
            inputs={"name": "x' OR '1'='1"},
            result=0,
        ),
    ],
)
async def db_query(
    run: Run, sql: Query, database: str | None = None, limit: int = LIMIT.default
) -> list[dict[str, Any]]:
    """Run a statement and return its rows as a list of objects, with the column names as keys.

    The result must fit in memory; use `db.stream` for large results. A binding is a bound parameter, converted
    to the type that the statement expects: a text to a timestamp, a uuid or a number, a list to an array, an
    object to jsonb. For a list write `= ANY(<< ids >>)`. `<% if %>` can select parts of the statement.

    Errors have the code `database`, with PostgreSQL's code in `error.details.code`. Outside a transaction, a
    statement that only reads is retried if its connection was lost.
    """
    return await held_rows(run, database, sql, limit)


@function(
    "db.first",
    SQL,
    DATABASE,
    effects=gives_value("{...}?"),
    examples=[
        Example(
            "a row, or null",
            "- db.first: SELECT 1 AS one\n  as: row\n- db.first: SELECT 1 WHERE false\n  as: nothing\n"
            "- return: << [row.one, nothing] >>",
            result=[1, None],
        )
    ],
)
async def db_first(run: Run, sql: Query, database: str | None = None) -> dict[str, Any] | None:
    """Run a statement and return its first row as an object; null if there is none. Other rows are not fetched."""
    return await _first_row(run, sql, database)


async def _first_row(run: Run, query: Query, database: str | None) -> dict[str, Any] | None:
    statement, values = query
    rows = await database_of(run, database).rows(statement, values, 1)
    return rows[0] if rows else None


@function(
    "db.value",
    SQL,
    DATABASE,
    effects=gives_value("any?"),
    examples=[
        Example(
            "a single value",
            "- db.value: SELECT count(*) FROM generate_series(1, 5)\n  as: count\n- return: << count >>",
            result=5,
        )
    ],
)
async def db_value(run: Run, sql: Query, database: str | None = None) -> Any:
    """Run a statement and return the first column of its first row; null if there is no row."""
    row = await _first_row(run, sql, database)
    return next(iter(row.values()), None) if row is not None else None


@function(
    "db.execute",
    SQL,
    DATABASE,
    effects=gives_value("integer"),
    examples=[
        Example(
            "number of rows",
            "- db.transaction:\n    do:\n      - db.execute: CREATE TEMPORARY TABLE box (id integer) ON COMMIT DROP\n"
            "      - db.execute: INSERT INTO box VALUES (1), (2)\n        as: count\n- return: << count >>",
            result=2,
        )
    ],
)
async def db_execute(run: Run, sql: Query, database: str | None = None) -> int:
    """Run a statement and return the number of affected rows.

    Session settings (`SET`) do not outlive the step, or the transaction around it.
    """
    statement, values = sql
    return await database_of(run, database).count(statement, values)


@function(
    "db.transaction",
    Parameter("do", StackOf(Nesting.ONCE, transaction=True), "Steps to run in the transaction.", required=True),
    DATABASE,
    Parameter(
        "isolation", Constant(choices=tuple(ISOLATION)), "Isolation level. PostgreSQL's default is readCommitted."
    ),
    effects=Effects(configured=CONFIGURED),
    examples=[
        Example(
            "roll back on an error",
            "- try:\n    do:\n      - db.transaction:\n          do:\n"
            "            - db.execute: CREATE TABLE moved (id integer)\n"
            "            - throw: {code: changed-my-mind, message: no}\n"
            "    catch: {do: [{log: undone}]}\n"
            "- db.value: SELECT to_regclass('moved') IS NULL\n  as: undone\n- return: << undone >>",
            result=True,
        )
    ],
    compiled=True,
)
def db_transaction(node: Node, code: Code) -> None:
    """Run steps in a database transaction.

    The transaction includes the functions that the steps call. It is committed if the steps end, or leave with
    `return`, `break` or `continue`, and rolled back on an error. A nested transaction is a savepoint: an error
    rolls back only its own changes. Branches of `parallel` in it run their statements one at a time. The
    transaction holds a connection until it ends, so send chunks after it, not in it. Use `retry` for conflicts
    with other transactions (the codes 40001 and 40P01).
    """
    database = constant(node.arguments.get("database"), None)
    isolation = constant(node.arguments.get("isolation"), None)
    opened = code.constant(transaction)
    with code.indented(f"async with {opened}(run, {code.literal(database)}, {code.literal(isolation)}):", blocks=1):
        code.block(node.inner())


def transaction(run: Run, database: str | None, isolation: str | None) -> Any:
    """Return the transaction as an asynchronous context. Raises RunError ``database``."""
    if isolation is not None and isolation not in ISOLATION:
        raise RunError("template", f"unknown isolation `{isolation}`")
    return database_of(run, database).transaction(isolation)


FUNCTIONS = (db_query, db_first, db_value, db_execute, db_transaction)
