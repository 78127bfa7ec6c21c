"""Rows of one table, without SQL: read, added, changed, taken out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from math import isfinite
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.functions.db_sql import (
    COMPARISONS,
    Alias,
    Comparison,
    Writer,
    chosen,
    names_of,
    no_names,
    no_order,
    order_by,
    quoted,
    table_name,
)
from streamstack.functions.db_use import (
    CONFIGURED,
    DATABASE,
    LIMIT,
    MOST_ROWS,
    Query,
    database_of,
    held_rows,
)
from streamstack.language.declare import Choice, Effects, Example, Parameter, function
from streamstack.language.operators import a_kind
from streamstack.runtime.run import Run
from streamstack.spec import Bound, Group, Kind, Named, OneOf

#: Rows that one statement adds.
_AT_ONCE: Final = 5000

_GIVES_VALUE = Effects(gives="value", configured=CONFIGURED)

_TABLE = Parameter(
    "table",
    Bound(Kind.TEXT, names="table"),
    "The table, with its schema where that is not `public`: sales.orders.",
    required=True,
    main=True,
)
_COMPARED = Group(
    tuple(
        Parameter("notIn" if name == "not_in" else name, Bound(), about)
        for name, about in COMPARISONS.items()
    ),
    make=Comparison,
)


def _where(description: str, *, required: bool = False) -> Parameter:
    # Where one must be, an empty one would mean every row.
    named = Named(OneOf((_COMPARED, Bound())), names="columns", least=int(required))
    return Parameter("where", OneOf((named, Bound(Kind.OBJECT))), description, required=required)


def _values(
    name: str,
    description: str,
    *,
    required: bool = True,
    refuses: Callable[[Any], tuple[str, str] | None] | None = None,
) -> Parameter:
    bound = Bound(Kind.OBJECT, names="columns", refuses=refuses)
    return Parameter(name, bound, description, required=required)


def _no_change(columns: Mapping[str, Any]) -> tuple[str, str] | None:
    """Say of the new values of rows that there are none."""
    return None if columns else ("at least one column", "write {column: value}")


_RETURNING = Parameter(
    "returning",
    Bound(names="columns", refuses=no_names),
    'The columns to give back: a name, a list, or "*" for all.',
)
_CREATE = "- db.execute: CREATE TABLE IF NOT EXISTS {0} (id integer PRIMARY KEY, name text, price numeric)\n"


@function(
    "db.get",
    _TABLE,
    _where("The conditions, all of which hold: {column: value} or {column: {gt: 3}}."),
    Parameter("select", Bound(names="columns", refuses=no_names), "The columns; without it all."),
    Parameter(
        "sort",
        Bound(names="columns", refuses=no_order),
        "What to sort by: a column, `-column` for downwards, or a list of them.",
    ),
    LIMIT,
    Parameter("offset", Bound(Kind.INTEGER, minimum=0), "How many rows to pass over.", default=0),
    DATABASE,
    effects=_GIVES_VALUE,
    examples=[
        Example(
            "the cheap ones, dearest first",
            _CREATE.format("shelf_a")
            + "- db.insert: {table: shelf_a, rows: [{id: 1, name: pen, price: 2}, {id: 2, name: ink, price: 5}, "
            "{id: 3, name: desk, price: 90}]}\n"
            "- db.get: {table: shelf_a, where: {price: {lt: << input.most >>}}, select: [name], sort: -price}\n"
            "  as: rows\n- return: << rows >>",
            inputs={"most": 10},
            result=[{"name": "ink"}, {"name": "pen"}],
        ),
    ],
)
async def db_get(
    run: Run,
    table: str,
    where: Mapping[str, Any] | None = None,
    select: Any = None,
    sort: Any = None,
    limit: int = MOST_ROWS,
    offset: int = 0,
    database: str | None = None,
) -> list[dict[str, Any]]:
    """Read rows of a table, as a list of objects. At most `limit` rows are read.

    Names of tables and columns are quoted, wherever they come from: no value can become SQL. A value of `where` that a
    caller sends is only ever compared; the comparisons themselves (`gt`, `in`, `like` ...) stand in the definition.
    """
    alias = Alias(select, where, sort)
    writer = Writer("SELECT ").add(chosen(select, alias)).add(" FROM ").add(table_name(table))
    writer.add(alias.words).where(where).add(order_by(sort)).add(" LIMIT ").bind(limit)
    if offset:
        writer.add(" OFFSET ").bind(offset)
    return await held_rows(run, database, writer.query, limit)


@function(
    "db.insert",
    _TABLE,
    _values("values", "The row: {column: value}.", required=False),
    Parameter("rows", Bound(Kind.LIST), "Rows, as a list of objects."),
    _RETURNING,
    DATABASE,
    choices=(Choice(("values", "rows")),),
    effects=_GIVES_VALUE,
    examples=[
        Example(
            "one row, which is given back as the table holds it",
            _CREATE.format("shelf_b")
            + "- db.insert: {table: shelf_b, values: {id: 1, name: << input.name >>}}\n  as: row\n"
            "- return: << row >>",
            inputs={"name": "pen"},
            result={"id": 1, "name": "pen", "price": None},
        ),
        Example(
            "many rows, of which the number is given",
            _CREATE.format("shelf_c")
            + "- db.insert: {table: shelf_c, rows: << input.rows >>}\n  as: count\n- return: << count >>",
            inputs={"rows": [{"id": 1, "name": "pen"}, {"id": 2, "price": "2.50"}]},
            result=2,
        ),
    ],
)
async def db_insert(
    run: Run,
    table: str,
    values: Mapping[str, Any] | None = None,
    rows: list[Any] | None = None,
    returning: Any = None,
    database: str | None = None,
) -> Any:
    """Add a row, or many at once.

    With `values` the row is given back as the table now holds it, or the columns that `returning` names. With `rows` it
    is their number, or with `returning` a list of rows; either all are added or none. Columns that are not named get
    their defaults.
    """
    if rows is not None:
        return await _insert_rows(run, table, rows, returning, database)
    if values is None:
        message = "`values` and `rows` are both null: write `values: {}` for a row of defaults"
        raise RunError("template", message, final=True)
    alias = Alias(returning)
    writer = _insert_into(table, values, alias)
    writer.returning("*" if returning is None else returning, alias)
    return await _changed_row(run, database, writer.query)


def _insert_into(table: str, values: Mapping[str, Any], alias: Alias) -> Writer:
    writer = Writer(f"INSERT INTO {table_name(table)}{alias.words}")
    if not values:
        return writer.add(" DEFAULT VALUES")
    writer.add(" (").columns(values).add(") VALUES (")
    for number, value in enumerate(values.values()):
        writer.add(", " if number else "").bind(value)
    return writer.add(")")


async def _changed_rows(run: Run, database: str | None, query: Query) -> list[dict[str, Any]]:
    statement, values = query
    return await database_of(run, database).run(
        lambda session: session.rows(statement, values), repeatable=False
    )


async def _changed_row(run: Run, database: str | None, query: Query) -> dict[str, Any] | None:
    """Run a statement that changes one row; return it. A trigger may have kept it out."""
    rows = await _changed_rows(run, database, query)
    return rows[0] if rows else None


async def _changed(
    run: Run, database: str | None, writer: Writer, returning: Any, alias: Alias
) -> int | list[dict[str, Any]]:
    """Run a statement that changes rows; return them where that is asked for, else their number."""
    statement, values = writer.returning(returning, alias).query
    if returning is not None:
        return await _changed_rows(run, database, (statement, values))
    return await database_of(run, database).run(
        lambda session: session.count(statement, values), repeatable=False
    )


async def _insert_rows(
    run: Run, table: str, rows: list[Any], returning: Any, database: str | None
) -> Any:
    parts = list(_alike(rows))
    count, given = 0, []
    alias = Alias(returning)
    if len(parts) == 1:
        writer = _insert_alike(table, parts[0], alias)
        return await _changed(run, database, writer, returning, alias)
    async with database_of(run, database).transaction():
        for part in parts:
            writer = _insert_alike(table, part, alias)
            found = await _changed(run, database, writer, returning, alias)
            if isinstance(found, list):
                given += found
            else:
                count += found
    return count if returning is None else given


def _alike(rows: list[Any]) -> list[list[Mapping[str, Any]]]:
    """Cut rows into parts that name the same columns, and that one statement can hold."""
    parts: list[list[Mapping[str, Any]]] = []
    names: Sequence[str] | None = None
    for row in rows:
        if not isinstance(row, Mapping):
            raise RunError("template", f"`rows` holds objects, and here is {a_kind(row)}")
        if names is None or row.keys() != set(names) or len(parts[-1]) >= _AT_ONCE:
            names = tuple(row)
            parts.append([])
        parts[-1].append(row)
    return parts


def _insert_alike(table: str, rows: list[Mapping[str, Any]], alias: Alias) -> Writer:
    """Write the statement for rows that name the same columns: one parameter of JSON, whatever their number."""
    name = table_name(table)
    columns = list(rows[0])
    if not columns:
        raise RunError("template", "a row of `rows` names no column", final=True)
    writer = (
        Writer(f"INSERT INTO {name}{alias.words} (")
        .columns(columns)
        .add(") SELECT ")
        .columns(columns)
    )
    writer.add(f" FROM jsonb_populate_recordset(NULL::{name}, ")
    return writer.bind([{key: _in_json(value) for key, value in row.items()} for row in rows]).add(
        "::jsonb)"
    )


def _in_json(value: Any) -> Any:
    """Return a value as PostgreSQL reads it out of JSON: bytes and numbers without end in its own form of text."""
    if isinstance(value, (bytes, bytearray)):
        return "\\x" + value.hex()
    if isinstance(value, (float, Decimal)) and not isfinite(value):
        return str(value)
    return [_in_json(item) for item in value] if isinstance(value, (list, tuple)) else value


@function(
    "db.update",
    _TABLE,
    _values("set", "The new values: {column: value}.", refuses=_no_change),
    _where("Which rows: {column: value} or {column: {gt: 3}}.", required=True),
    _RETURNING,
    DATABASE,
    effects=_GIVES_VALUE,
    examples=[
        Example(
            "how many rows it was",
            _CREATE.format("shelf_d")
            + "- db.insert: {table: shelf_d, rows: [{id: 1, price: 1}, {id: 2, price: 2}]}\n"
            "- db.update: {table: shelf_d, set: {price: 9}, where: {id: {in: [1, 2, 3]}}}\n  as: count\n"
            "- return: << count >>",
            result=2,
        ),
    ],
)
async def db_update(
    run: Run,
    table: str,
    set: Mapping[str, Any],  # noqa: A002  (the parameter's name in the language)
    where: Mapping[str, Any],
    returning: Any = None,
    database: str | None = None,
) -> Any:
    """Change rows; give their number, or with `returning` a list of them. An empty `where` is refused."""
    if not set:
        raise RunError("template", "`set` names no column", final=True)
    alias = Alias(set, where, returning)
    writer = Writer("UPDATE ").add(table_name(table)).add(f"{alias.words} SET ")
    for number, (column, value) in enumerate(set.items()):
        writer.add(f"{', ' if number else ''}{quoted(column)} = ").bind(value)
    return await _changed(run, database, writer.where(_some(where)), returning, alias)


@function(
    "db.upsert",
    _TABLE,
    _values("values", "The row: {column: value}."),
    Parameter(
        "key",
        Bound(names="columns", refuses=no_names),
        "The column, or the list of columns, that tells whether the row is there; it needs a unique index.",
        required=True,
    ),
    _RETURNING,
    DATABASE,
    effects=_GIVES_VALUE,
    examples=[
        Example(
            "added, then changed",
            _CREATE.format("shelf_e")
            + "- db.upsert: {table: shelf_e, values: {id: 1, name: pen}, key: id}\n"
            "- db.upsert: {table: shelf_e, values: {id: 1, name: ink}, key: id}\n  as: row\n- return: << row.name >>",
            result="ink",
        ),
    ],
)
async def db_upsert(
    run: Run,
    table: str,
    values: Mapping[str, Any],
    key: Any,
    returning: Any = None,
    database: str | None = None,
) -> dict[str, Any] | None:
    """Add a row, or change the one that has the same key; give it back as the table now holds it."""
    keys = names_of(key, "key")
    changed = [name for name in values if name not in keys] or keys
    alias = Alias(returning)
    writer = (
        _insert_into(table, values, alias)
        .add(" ON CONFLICT (")
        .columns(keys)
        .add(") DO UPDATE SET ")
    )
    writer.add(", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in changed))
    writer.returning("*" if returning is None else returning, alias)
    return await _changed_row(run, database, writer.query)


@function(
    "db.delete",
    _TABLE,
    _where("Which rows: {column: value} or {column: {gt: 3}}.", required=True),
    _RETURNING,
    DATABASE,
    effects=_GIVES_VALUE,
    examples=[
        Example(
            "how many rows it was",
            _CREATE.format("shelf_f")
            + "- db.insert: {table: shelf_f, rows: [{id: 1}, {id: 2}, {id: 3}]}\n"
            "- db.delete: {table: shelf_f, where: {id: {gt: 1}}}\n  as: count\n- return: << count >>",
            result=2,
        ),
    ],
)
async def db_delete(
    run: Run,
    table: str,
    where: Mapping[str, Any],
    returning: Any = None,
    database: str | None = None,
) -> Any:
    """Take rows out; give their number, or with `returning` a list of them. An empty `where` is refused."""
    alias = Alias(where, returning)
    writer = Writer("DELETE FROM ").add(table_name(table)).add(alias.words).where(_some(where))
    return await _changed(run, database, writer, returning, alias)


def _some(where: Mapping[str, Any]) -> Mapping[str, Any]:
    if not where:
        message = "`where` is empty, which would mean every row: write that with `db.execute`"
        raise RunError("template", message, final=True)
    return where
