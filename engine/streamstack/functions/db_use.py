"""What the functions of the Databases family share: which database is meant, and how much is held whole."""

from __future__ import annotations

from typing import Any, Final

from streamstack.connections.postgres.database import Database, Databases
from streamstack.errors import RunError
from streamstack.language.declare import Configured, Parameter
from streamstack.language.settings import default_database
from streamstack.language.sql import Statement
from streamstack.language.suggest import did_you_mean
from streamstack.runtime.run import Context, Run
from streamstack.spec import Bound, Constant, Kind

#: Rows that are held whole, unless the author says otherwise.
MOST_ROWS: Final = 10_000

#: A statement, and the values of its parameters.
Query = tuple[Statement, list[Any]]

DATABASE: Final = Parameter(
    "database",
    Constant(),
    "The database, by its name under `databases` in streamstack.yaml; else the only one, or the one called `main`.",
)
SQL: Final = Parameter(
    "sql",
    Bound(Kind.SQL),
    "The statement. Each << binding >> in it is a bound parameter, never a part of the text.",
    required=True,
    main=True,
)
LIMIT: Final = Parameter(
    "limit",
    Bound(Kind.INTEGER, minimum=1),
    "The most rows that are held; one more is the error `limit-reached`.",
    default=MOST_ROWS,
)
CONFIGURED: Final = (Configured("database", "databases"),)


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


async def held_rows(
    run: Run, database: str | None, query: Query, limit: int
) -> list[dict[str, Any]]:
    """Run a statement and return all its rows.

    Raises RunError ``limit-reached`` for more than ``limit``, ``database``.
    """
    statement, values = query
    rows = await database_of(run, database).run(
        lambda session: session.rows(statement, values, limit + 1), repeatable=statement.reads_only
    )
    if len(rows) > limit:
        raise RunError(
            "limit-reached",
            f"the statement gives more than {limit} rows: raise `limit`, or read them with `db.stream`",
        )
    return rows
