"""The shapes of the rows that steps read, as the database describes their statements and tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, Final

import asyncpg

from streamstack.connections.database.pool import Connection
from streamstack.errors import Mark
from streamstack.language.definition import Step
from streamstack.language.expressions import Value
from streamstack.language.graph import constant
from streamstack.language.kinds import Kind
from streamstack.language.shapes import ANY, Shape, listing, parse, record
from streamstack.language.sql import statement_in
from streamstack.spec import Bound

#: The kinds of values that types of PostgreSQL have in rows; others are not known.
_KINDS: Final = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), "integer"),
    **dict.fromkeys(("numeric", "float4", "float8"), "decimal"),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "uuid"), "text"),
    "bool": "boolean",
    "bytea": "bytes",
    "date": "date",
    **dict.fromkeys(("timestamptz", "timestamp"), "timestamp"),
}
_NULL: Final = "a column may be null"
_OF_TABLE: Final = """
SELECT attname, atttypid, attnotnull FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
#: The name of a type, with `_` before that of an array's items; enumerations are texts.
_TYPES: Final = """
SELECT t.oid, CASE WHEN t.typelem <> 0 AND t.typcategory = 'A' THEN '_' ELSE '' END
  || CASE coalesce(e.typtype, t.typtype) WHEN 'e' THEN 'text' ELSE coalesce(e.typname, t.typname) END
FROM pg_type t LEFT JOIN pg_type e ON t.typcategory = 'A' AND e.oid = t.typelem
WHERE t.oid = ANY($1)
"""


async def describe_rows(connection: Connection, steps: Iterable[Step]) -> dict[Mark, Shape]:
    """Return the shape of a row of each step that has a statement or a table, by the place of its function.

    A statement that differs from run to run is not described, nor is one that the database does not take as it stands.
    Raises what asyncpg raises.
    """
    found = {}
    for step in steps:
        for parameter in step.function.parameters:
            argument = step.arguments.get(parameter.name)
            if argument is None or not isinstance(parameter.type, Bound):
                continue
            if parameter.type.kind is Kind.SQL:
                row = await _of_statement(connection, argument)
            elif parameter.type.names == "table":
                row = await _of_table(connection, step)
            else:
                continue
            if row is not None:
                found[step.key_mark] = row
    return found


async def _of_statement(connection: Connection, argument: Any) -> Shape | None:
    statement = statement_in(argument) if isinstance(argument, Value) else None
    # A template is many statements; which one, only a run tells.
    if statement is None or statement.misplaced or type(argument).__name__ == "Template":
        return None
    try:
        async with connection.transaction():  # an error must not end the transaction around
            prepared = await connection.parse(statement.text())
    except asyncpg.PostgresError:
        return None
    attributes = prepared.get_attributes()
    types = await _shapes(connection, [each.type.oid for each in attributes])
    return record({each.name: types[each.type.oid].or_null(_NULL) for each in attributes})


async def _of_table(connection: Connection, step: Step) -> Shape | None:
    by_name = step.arguments.by_name
    table = constant(by_name["table"])
    chosen = [constant(by_name[name]) for name in ("select", "returning") if name in by_name]
    if not isinstance(table, str):
        return None
    quoted = ".".join(f'"{part}"' for part in table.replace('"', '""').split("."))
    rows = await connection.fetch(_OF_TABLE, quoted)
    types = await _shapes(connection, [type_ for _, type_, _ in rows])
    shapes = {name: types[type_] if sure else types[type_].or_null(_NULL) for name, type_, sure in rows}
    names = shapes if not chosen or chosen == ["*"] else [chosen[0]] if isinstance(chosen[0], str) else chosen[0]
    if not shapes or not isinstance(names, Collection) or not shapes.keys() >= set(names):
        return None
    return record({name: shapes[name] for name in names})


async def _shapes(connection: Connection, types: Iterable[int]) -> dict[int, Shape]:
    return {oid: _shape_of(name) for oid, name in await connection.fetch(_TYPES, list(types))}


def _shape_of(name: str) -> Shape:
    if name.startswith("_"):
        return listing(_shape_of(name[1:]).or_null(_NULL))
    shape = parse(_KINDS[name]) if name in _KINDS else ANY
    return replace(shape, title="uuid") if name == "uuid" else shape
