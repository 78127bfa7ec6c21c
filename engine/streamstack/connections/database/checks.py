"""Whether the tables, the columns and the statements of definitions are those of the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from streamstack.connections.database.pool import Connection
from streamstack.errors import Diagnostic, Mark
from streamstack.language.definition import Argument, ConstantArgument, Definition, Entries, Step
from streamstack.language.expressions import Constant, ObjectValue, Value
from streamstack.language.findings import make_diagnostic
from streamstack.language.names import nearest
from streamstack.language.sql import statement_in
from streamstack.spec import Bound, Kind, Named, OneOf, Type

_COLUMNS: Final = """
SELECT attname FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_TABLES: Final = """
SELECT CASE WHEN n.nspname = ANY(current_schemas(false)) THEN c.relname ELSE n.nspname || '.' || c.relname END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""
#: What PostgreSQL says of a statement that names what is not there.
_UNKNOWN: Final = {"42P01": "unknown-table", "42703": "unknown-column"}
#: It can't tell the type of a parameter: a run tells it.
_LATER: Final = frozenset({"42P18", "42725", "42883", "42804"})


async def check_steps(
    connection: Connection, database: str, uses: Iterable[tuple[Definition, Step]]
) -> list[Diagnostic]:
    """Return what the steps that use a database name and it does not have. Raises what asyncpg raises."""
    found: list[Diagnostic] = []
    check = _Check(database)
    for definition, step in uses:
        fresh = await check.step(connection, step)
        allowed = definition.allow | step.allow
        found += [each for each in fresh if each.code not in allowed]
    return sorted(set(found))


@dataclass(slots=True)
class _Named:
    """A name in a definition."""

    name: str
    mark: Mark


@dataclass(slots=True)
class _Check:
    """The checks against one database; what it says of its tables is asked once."""

    database: str
    tables: list[str] | None = None
    columns: dict[str, list[str]] = field(default_factory=dict)

    async def step(self, connection: Connection, step: Step) -> list[Diagnostic]:
        """Report what one step names wrongly."""
        found = []
        table: _Named | None = None
        columns: list[_Named] = []
        for parameter in step.function.parameters:
            argument = step.arguments.get(parameter.name)
            if argument is None:
                continue
            if isinstance(parameter.type, Bound) and parameter.type.kind is Kind.SQL:
                found += await self._statement(connection, argument)
            elif isinstance(parameter.type, Bound) and parameter.type.names == "table":
                table = next(_names(argument), None)
            elif _holds_columns(parameter.type):
                columns += _names(argument)
        if table is not None:
            found += await self._table(connection, table, columns)
        return found

    async def _statement(self, connection: Connection, argument: Argument) -> list[Diagnostic]:
        if not isinstance(argument, Value):
            return []
        statement = statement_in(argument)
        # A template is many statements; which one, only a run tells.
        if statement is None or statement.misplaced or type(argument).__name__ == "Template":
            return []
        try:
            async with connection.transaction():  # an error must not end the transaction around
                await connection.parse(statement.text())
        except asyncpg.PostgresError as error:
            if error.sqlstate in _LATER:
                return []
            code = _UNKNOWN.get(error.sqlstate or "", "bad-sql")
            where = _line_of(statement.text(), getattr(error, "position", None))
            message = f"the database `{self.database}` says: {error.message}{where}"
            return [make_diagnostic(code, argument.mark, message, error.hint or None)]
        return []

    async def _table(self, connection: Connection, table: _Named, columns: list[_Named]) -> list[Diagnostic]:
        known = await self._columns(connection, table.name)
        if known is None:
            tables = await self._tables(connection)
            near = nearest(table.name, tables)
            message = f"the database `{self.database}` has no table `{table.name}`"
            return [make_diagnostic("unknown-table", table.mark, message, _meant(near, tables))]
        found = []
        for column in columns:
            if column.name not in known:
                near = nearest(column.name, known)
                message = f"the table `{table.name}` has no column `{column.name}`"
                found.append(make_diagnostic("unknown-column", column.mark, message, _meant(near, known)))
        return found

    async def _columns(self, connection: Connection, table: str) -> list[str] | None:
        if table not in self.columns:
            quoted = ".".join(f'"{part}"' for part in table.replace('"', '""').split("."))
            rows = await connection.fetch(_COLUMNS, quoted)
            self.columns[table] = [row[0] for row in rows]
        return self.columns[table] or None

    async def _tables(self, connection: Connection) -> list[str]:
        if self.tables is None:
            self.tables = [row[0] for row in await connection.fetch(_TABLES)]
        return self.tables


def _meant(near: str | None, known: list[str]) -> str | None:
    if near:
        return f"did you mean `{near}`?"
    return f"there are {', '.join(sorted(known)[:20])}" if known else None


def _line_of(text: str, position: Any) -> str:
    if position is None or "\n" not in text.strip():
        return ""
    return f" (line {text.count(chr(10), 0, int(position) - 1) + 1} of the statement)"


def _holds_columns(wanted: Type) -> bool:
    if isinstance(wanted, OneOf):
        return any(_holds_columns(form) for form in wanted.forms)
    return isinstance(wanted, (Bound, Named)) and wanted.names == "columns"


def _names(argument: Argument) -> Iterator[_Named]:
    """Give the names in an argument that are known before a run: keys, or texts alone or in a list."""
    if isinstance(argument, Entries):
        for entry in argument.entries:
            yield _Named(entry.key, entry.mark)
    elif isinstance(argument, (ConstantArgument, Value)):
        held = argument.value if isinstance(argument, ConstantArgument) else argument.constant
        if isinstance(argument, ObjectValue):
            held = [name for name, _ in argument.entries]
        names = list(held) if isinstance(held, (list, dict)) else [held]
        marks = argument.keys if isinstance(argument, (Constant, ObjectValue)) else ()
        for name, mark in zip(names, marks or [argument.mark] * len(names), strict=True):
            if isinstance(name, str) and name != "*":
                yield _Named(name.removeprefix("-"), mark)
