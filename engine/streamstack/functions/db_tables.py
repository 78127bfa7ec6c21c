"""Rows of one table, without SQL: read, insert, update, delete. Names are quoted, values are parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from math import isfinite
from secrets import token_hex
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.functions.db import DATABASE, LIMIT, MOST_ROWS, Query, database_of, gives_value, held_rows
from streamstack.language.definition import Choice, Example, Parameter, function
from streamstack.language.kinds import Kind
from streamstack.language.names import did_you_mean
from streamstack.language.operators import a_kind
from streamstack.language.sql import statement_of
from streamstack.language.values import to_text
from streamstack.runtime.run import Run
from streamstack.spec import Bound, Group, Named, OneOf


class Comparison(dict[str, Any]):
    """How a column is compared, as the author wrote it: {gt: 3}. An object that a caller sends is never one."""


#: What stands between a column and a parameter.
_SIGNS: Final = {
    "eq": " = ",
    "gt": " > ",
    "gte": " >= ",
    "lt": " < ",
    "lte": " <= ",
    "ne": " IS DISTINCT FROM ",
    "like": " LIKE ",
    "ilike": " ILIKE ",
}
#: Each way to compare, with what the reference says of it.
COMPARISONS: Final = {
    "eq": "Equal to the value. Null matches rows without a value.",
    "ne": "Not equal to the value. Also matches rows without a value.",
    "gt": "Greater than the value.",
    "gte": "Greater than or equal to the value.",
    "lt": "Less than the value.",
    "lte": "Less than or equal to the value.",
    "in": "Equal to one of a list of values.",
    "not_in": "Equal to none of a list of values.",
    "like": "Matches a pattern: % stands for any text, _ for any character.",
    "ilike": "Matches a pattern, ignoring case.",
}


#: A name for the table of a statement that no client can guess. PostgreSQL reads the name of a
#: table, where no column has it, as the whole row: a client that may choose among columns would see them all.
_ALIAS: Final = f"t{token_hex(8)}"


class Writer:
    """A statement that is being written. ``add`` takes our own words only; what others give is quoted or bound."""

    __slots__ = ("_pieces", "_values")

    def __init__(self, text: str = "") -> None:
        self._pieces = [text]
        self._values: list[Any] = []

    def add(self, text: str) -> Writer:
        """Add words of SQL."""
        self._pieces[-1] += text
        return self

    def bind(self, value: Any) -> Writer:
        """Add a parameter."""
        self._pieces.append("")
        self._values.append(value)
        return self

    def columns(self, names: Iterable[str]) -> Writer:
        """Add names of columns, with commas between."""
        return self.add(", ".join(map(quoted, names)))

    def where(self, conditions: Mapping[str, Any] | None) -> Writer:
        """Add a WHERE clause; none without a condition."""
        joint = " WHERE "
        for column, wanted in (conditions or {}).items():
            compared = wanted if isinstance(wanted, Comparison) else {"eq": wanted}
            for operator, value in compared.items():
                self.add(joint)
                self._compare(quoted(column), operator, value)
                joint = " AND "
        return self

    def _compare(self, column: str, operator: str, value: Any) -> None:
        if value is None and operator in ("eq", "ne"):
            self.add(f"{column} IS {'NOT ' if operator == 'ne' else ''}NULL")
        elif operator in ("in", "in_", "not_in"):
            if not isinstance(value, (list, tuple)):
                message = f"a list is needed to compare with, not {a_kind(value)}"
                raise RunError("template", message, final=True, parameter="*")
            negated = operator == "not_in"
            self.add(f"{column} {'<> ALL' if negated else '= ANY'}(").bind(list(value)).add(")")
        else:
            self.add(column + _SIGNS[operator]).bind(value)

    def returning(self, names: Any) -> Writer:
        """Add a RETURNING clause; none for null."""
        if names is not None:
            self.add(" RETURNING ").add(chosen(names))
        return self

    @property
    def query(self) -> Query:
        """The statement, with the values of its parameters."""
        return statement_of(tuple(self._pieces)), self._values


def quoted(name: Any) -> str:
    """Return a name as SQL writes it, whatever it holds (PostgreSQL 18, section 4.1.1).

    Raises RunError ``template`` for what is not a name.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        what = "one with U+0000" if name and isinstance(name, str) else a_kind(name)
        message = f"the name must be text, not {'an empty text' if name == '' else what}"
        raise RunError("template", message, final=True, parameter="*")
    return '"' + name.replace('"', '""') + '"'


def table_name(name: Any) -> str:
    """Return the name of a table, with its schema where it has one: sales.orders."""
    if not isinstance(name, str):
        return quoted(name)
    return ".".join(map(quoted, name.split(".")))


def aliased(table: Any) -> str:
    """Return the table of a statement, with our name for it."""
    return f"{table_name(table)} AS {_ALIAS}"


def names_of(value: Any, what: str) -> list[str]:
    """Return the names that a text or a list gives.

    Raises RunError ``template`` for anything else.
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, (list, tuple)) and value:
        return [to_text(each) for each in value]
    raise RunError("template", f"`{what}` must be a name or a list of names, not {a_kind(value)}", parameter=what)


def chosen(names: Any) -> str:
    """Return the columns that are asked for; `*` are all."""
    if names is None or names == "*":
        return "*"
    return ", ".join(
        # PostgreSQL 18 has two more names for whole rows.
        f"{_ALIAS}.{quoted(name)}" if name in ("old", "new") else quoted(name)
        for name in names_of(names, "returning")
    )


def no_names(value: Any) -> tuple[str, str] | None:
    """Return the problem with a constant for column names of the wrong type."""
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list) and names and all(map(to_text, names)):
        return None
    return ("a name or a list of names", "write the name of a column, or a list such as [id, name]")


def no_order(value: Any) -> tuple[str, str] | None:
    """Return the problem with a constant for the sort order of the wrong type."""
    if value in ([], {}):
        return None
    if not isinstance(value, dict):
        return no_names(value)
    wrong = [each for each in value.values() if not isinstance(each, str) or each not in _ORDERS]
    if not wrong:
        return no_names(list(value))
    return "asc or desc for each column", f"write asc or desc, not `{to_text(wrong[0])}`"


_ORDERS: Final = {"asc": " ASC", "desc": " DESC"}


def order_by(sort: Any) -> str:
    """Return an ORDER BY clause: of names, `-name` being downwards, or {name: asc | desc}."""
    if sort is None or sort in ([], {}):
        return ""
    if isinstance(sort, Mapping):
        parts = []
        for name, order in sort.items():
            if order not in _ORDERS:
                message = f"`sort` takes asc or desc{did_you_mean(to_text(order), _ORDERS)}"
                raise RunError("template", message, final=True, parameter="sort")
            parts.append(quoted(name) + _ORDERS[order])
    else:
        parts = [
            quoted(name.removeprefix("-")) + _ORDERS["desc" if name.startswith("-") else "asc"]
            for name in names_of(sort, "sort")
        ]
    return " ORDER BY " + ", ".join(parts)


#: Rows that one statement adds.
_AT_ONCE: Final = 5000

_TABLE = Parameter(
    "table",
    Bound(Kind.TEXT, names="table"),
    "Table name, with its schema if that is not `public`: sales.orders.",
    required=True,
    main=True,
)
_COMPARED = Group(
    tuple(Parameter("notIn" if name == "not_in" else name, Bound(), about) for name, about in COMPARISONS.items()),
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
    """Return the problem with a constant for new values of the wrong type."""
    return None if columns else ("at least one column", "write {column: value}")


_RETURNING = Parameter(
    "returning", Bound(names="columns", refuses=no_names), 'Columns to return: a name, a list, or "*" for all.'
)
_CREATE = "- db.execute: CREATE TABLE IF NOT EXISTS {0} (id integer PRIMARY KEY, name text, price numeric)\n"


@function(
    "db.get",
    _TABLE,
    _where("Conditions, all of which must hold: {column: value} or {column: {gt: 3}}."),
    Parameter("select", Bound(names="columns", refuses=no_names), "Columns to return. Default: all."),
    Parameter(
        "sort",
        Bound(names="columns", refuses=no_order),
        "Sort order: a column, `-column` for descending order, or a list of columns.",
    ),
    replace(LIMIT, description="Maximum number of rows."),
    Parameter("offset", Bound(Kind.INTEGER, minimum=0), "Number of rows to skip.", default=0),
    DATABASE,
    effects=gives_value("[{...}]"),
    examples=[
        Example(
            "filter and sort",
            _CREATE.format("shelf_a")
            + "- db.insert: {table: shelf_a, rows: [{id: 1, name: pen, price: 2}, {id: 2, name: ink, price: 5}, "
            "{id: 3, name: desk, price: 90}]}\n"
            "- db.get: {table: shelf_a, where: {price: {lt: << input.most >>}}, select: [name], sort: -price}\n"
            "  as: rows\n- return: << rows >>",
            inputs={"most": 10},
            result=[{"name": "ink"}, {"name": "pen"}],
        )
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
    """Read rows of a table as a list of objects. At most `limit` rows are returned.

    Table and column names are always quoted, so no value can inject SQL. A value that a client sends is only
    compared with the column; the comparison operators (`gt`, `in`, `like` ...) must be written in the definition.
    """
    writer = Writer("SELECT ").add(chosen(select)).add(" FROM ").add(aliased(table))
    writer.where(where).add(order_by(sort)).add(" LIMIT ").bind(limit)
    if offset:
        writer.add(" OFFSET ").bind(offset)
    return await held_rows(run, database, writer.query, limit)


@function(
    "db.insert",
    _TABLE,
    _values("values", "Row to insert: {column: value}.", required=False),
    Parameter("rows", Bound(Kind.LIST), "Rows to insert, as a list of objects."),
    _RETURNING,
    DATABASE,
    choices=(Choice(("values", "rows")),),
    effects=gives_value("any"),
    examples=[
        Example(
            "insert a row and return it",
            _CREATE.format("shelf_b")
            + "- db.insert: {table: shelf_b, values: {id: 1, name: << input.name >>}}\n  as: row\n"
            "- return: << row >>",
            inputs={"name": "pen"},
            result={"id": 1, "name": "pen", "price": None},
        ),
        Example(
            "insert many rows and return their number",
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
    """Insert a row, or many rows at once.

    With `values`, the step returns the inserted row as stored, or its `returning` columns. With `rows`, it
    returns the number of rows, or a list of rows with `returning`; if one row fails, none is inserted. Columns
    without a value get their defaults.
    """
    if rows is not None:
        return await _insert_rows(run, table, rows, returning, database)
    if values is None:
        message = "`values` and `rows` are both null: write `values: {}` for a row of defaults"
        raise RunError("template", message, final=True)
    writer = _insert_into(table, values)
    writer.returning("*" if returning is None else returning)
    return await _changed_row(run, database, writer.query)


def _insert_into(table: str, values: Mapping[str, Any]) -> Writer:
    writer = Writer(f"INSERT INTO {aliased(table)}")
    if not values:
        return writer.add(" DEFAULT VALUES")
    writer.add(" (").columns(values).add(") VALUES (")
    for number, value in enumerate(values.values()):
        writer.add(", " if number else "").bind(value)
    return writer.add(")")


async def _changed_rows(run: Run, database: str | None, query: Query) -> list[dict[str, Any]]:
    statement, values = query
    return await database_of(run, database).rows(statement, values)


async def _changed_row(run: Run, database: str | None, query: Query) -> dict[str, Any] | None:
    """Run a statement that changes one row; return it. A trigger may have kept it out."""
    rows = await _changed_rows(run, database, query)
    return rows[0] if rows else None


async def _changed(run: Run, database: str | None, writer: Writer, returning: Any) -> int | list[dict[str, Any]]:
    """Run a statement that changes rows; return them where that is asked for, else their number."""
    statement, values = writer.returning(returning).query
    if returning is not None:
        return await _changed_rows(run, database, (statement, values))
    return await database_of(run, database).count(statement, values)


async def _insert_rows(run: Run, table: str, rows: list[Any], returning: Any, database: str | None) -> Any:
    parts = list(_alike(rows))
    count, returned = 0, []
    if len(parts) == 1:
        writer = _insert_alike(table, parts[0])
        return await _changed(run, database, writer, returning)
    async with database_of(run, database).transaction():
        for part in parts:
            writer = _insert_alike(table, part)
            found = await _changed(run, database, writer, returning)
            if isinstance(found, list):
                returned += found
            else:
                count += found
    return count if returning is None else returned


def _alike(rows: list[Any]) -> list[list[Mapping[str, Any]]]:
    """Cut rows into parts that name the same columns, and that one statement can hold."""
    parts: list[list[Mapping[str, Any]]] = []
    names: Sequence[str] | None = None
    for row in rows:
        if not isinstance(row, Mapping):
            raise RunError("template", f"`rows` must hold objects, not {a_kind(row)}", parameter="rows")
        if names is None or row.keys() != set(names) or len(parts[-1]) >= _AT_ONCE:
            names = tuple(row)
            parts.append([])
        parts[-1].append(row)
    return parts


def _insert_alike(table: str, rows: list[Mapping[str, Any]]) -> Writer:
    """Write the statement for rows that name the same columns: one parameter of JSON, whatever their number."""
    name = table_name(table)
    columns = list(rows[0])
    if not columns:
        raise RunError("template", "a row of `rows` names no column", final=True, parameter="rows")
    writer = Writer(f"INSERT INTO {aliased(table)} (").columns(columns).add(") SELECT ").columns(columns)
    writer.add(f" FROM jsonb_populate_recordset(NULL::{name}, ")
    return writer.bind([{key: _in_json(value) for key, value in row.items()} for row in rows]).add("::jsonb)")


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
    _values("set", "New values: {column: value}.", refuses=_no_change),
    _where("Rows to change: {column: value} or {column: {gt: 3}}.", required=True),
    _RETURNING,
    DATABASE,
    effects=gives_value("any"),
    examples=[
        Example(
            "number of changed rows",
            _CREATE.format("shelf_d") + "- db.insert: {table: shelf_d, rows: [{id: 1, price: 1}, {id: 2, price: 2}]}\n"
            "- db.update: {table: shelf_d, set: {price: 9}, where: {id: {in: [1, 2, 3]}}}\n  as: count\n"
            "- return: << count >>",
            result=2,
        )
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
    """Update rows and return their number, or a list of them with `returning`. An empty `where` is an error."""
    if not set:
        raise RunError("template", "`set` names no column", final=True, parameter="set")
    return await _changed(run, database, _update(table, set).where(_some(where)), returning)


def _update(table: str, columns: Mapping[str, Any]) -> Writer:
    writer = Writer("UPDATE ").add(f"{aliased(table)} SET ")
    for number, (column, value) in enumerate(columns.items()):
        writer.add(f"{', ' if number else ''}{quoted(column)} = ").bind(value)
    return writer


@function(
    "db.patch",
    _TABLE,
    Parameter(
        "key",
        Bound(Kind.OBJECT, names="columns", refuses=_no_change),
        "Key of the row: {column: value}. All columns must match.",
        required=True,
    ),
    _values("values", "New values: {column: value}. Other columns are not changed."),
    _RETURNING,
    DATABASE,
    effects=gives_value("{...}"),
    examples=[
        Example(
            "change only the given columns",
            _CREATE.format("shelf_g") + "- db.insert: {table: shelf_g, values: {id: 1, name: pen, price: 2}}\n"
            "- db.patch: {table: shelf_g, key: {id: 1}, values: {price: 3}}\n  as: row\n- return: << row >>",
            result={"id": 1, "name": "pen", "price": 3},
        ),
        Example(
            "a row that does not exist",
            _CREATE.format("shelf_h") + "- db.patch: {table: shelf_h, key: {id: 9}, values: {price: 3}}",
            fails="not-found",
        ),
    ],
)
async def db_patch(
    run: Run,
    table: str,
    key: Mapping[str, Any],
    values: Mapping[str, Any],
    returning: Any = None,
    database: str | None = None,
) -> dict[str, Any]:
    """Update the row with a given key and return it as stored, or its `returning` columns.

    If there is no such row, the step fails with `not-found` (status 404). If several rows have the key, it
    fails with `limit-reached` and changes none of them. Without any values, the row is returned unchanged.
    """
    wanted = "*" if returning is None else returning
    exact = {column: Comparison(eq=value) for column, value in _some(key, "key").items()}
    if values:
        writer = _update(table, values).where(exact).returning(wanted)
    else:
        writer = Writer("SELECT ").add(chosen(wanted)).add(f" FROM {aliased(table)}").where(exact).add(" LIMIT 2")
    async with database_of(run, database).transaction():
        rows = await _changed_rows(run, database, writer.query)
        if len(rows) > 1:
            raise RunError("limit-reached", f"{len(rows)} rows of `{table}` have this key", final=True)
    if not rows:
        raise RunError("not-found", "no such row")
    return rows[0]


@function(
    "db.upsert",
    _TABLE,
    _values("values", "Row to insert or update: {column: value}."),
    Parameter(
        "key",
        Bound(names="columns", refuses=no_names),
        "Column, or list of columns, that identifies the row. It needs a unique index.",
        required=True,
    ),
    _RETURNING,
    DATABASE,
    effects=gives_value("{...}"),
    examples=[
        Example(
            "insert, then update",
            _CREATE.format("shelf_e") + "- db.upsert: {table: shelf_e, values: {id: 1, name: pen}, key: id}\n"
            "- db.upsert: {table: shelf_e, values: {id: 1, name: ink}, key: id}\n  as: row\n- return: << row.name >>",
            result="ink",
        )
    ],
)
async def db_upsert(
    run: Run, table: str, values: Mapping[str, Any], key: Any, returning: Any = None, database: str | None = None
) -> dict[str, Any] | None:
    """Insert a row, or update the one with the same key, and return it as stored, or its `returning` columns."""
    keys = names_of(key, "key")
    changed = [name for name in values if name not in keys] or keys
    writer = _insert_into(table, values).add(" ON CONFLICT (").columns(keys).add(") DO UPDATE SET ")
    writer.add(", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in changed))
    writer.returning("*" if returning is None else returning)
    return await _changed_row(run, database, writer.query)


@function(
    "db.delete",
    _TABLE,
    _where("Rows to delete: {column: value} or {column: {gt: 3}}.", required=True),
    _RETURNING,
    DATABASE,
    effects=gives_value("any"),
    examples=[
        Example(
            "number of deleted rows",
            _CREATE.format("shelf_f") + "- db.insert: {table: shelf_f, rows: [{id: 1}, {id: 2}, {id: 3}]}\n"
            "- db.delete: {table: shelf_f, where: {id: {gt: 1}}}\n  as: count\n- return: << count >>",
            result=2,
        )
    ],
)
async def db_delete(
    run: Run, table: str, where: Mapping[str, Any], returning: Any = None, database: str | None = None
) -> Any:
    """Delete rows and return their number, or a list of them with `returning`. An empty `where` is an error."""
    writer = Writer("DELETE FROM ").add(aliased(table)).where(_some(where))
    return await _changed(run, database, writer, returning)


def _some(where: Mapping[str, Any], parameter: str = "where") -> Mapping[str, Any]:
    if not where:
        message = f"`{parameter}` is empty, which would mean every row: write that with `db.execute`"
        raise RunError("template", message, final=True, parameter=parameter)
    return where


FUNCTIONS = (db_get, db_insert, db_update, db_patch, db_upsert, db_delete)
