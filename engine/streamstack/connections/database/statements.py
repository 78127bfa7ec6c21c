"""Statements as the database understands them: which type each parameter has, and how a row is read.

A value that is not of the type the statement expects is handed over as a text, or with the type of its own, and
PostgreSQL converts it: `$1` becomes `$1::text::uuid`. Which form is needed is found once for each combination of
kinds, and kept. ``check_steps`` compares the statements of definitions with the tables before anything runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import asyncpg

from streamstack.connections.database.pool import Connection
from streamstack.connections.database.values import TEXTUAL, Convert, Recast, cast_for, encoder_for, row_maker
from streamstack.errors import Diagnostic, Mark, RunError
from streamstack.language.definition import Argument, ConstantArgument, Definition, Entries, Step
from streamstack.language.expressions import Constant, ObjectValue, Value
from streamstack.language.findings import make_diagnostic
from streamstack.language.kinds import Kind
from streamstack.language.names import nearest
from streamstack.language.sql import Statement, statement_in
from streamstack.language.values import to_text
from streamstack.spec import Bound, Named, OneOf, Type

T = TypeVar("T")

#: Statements that leave the session as it was, unless one of these words is in them.
_CLEAN: Final = frozenset(
    "select insert update delete merge values with table explain notify".split()  # noqa: SIM905
)
_CHANGING_SETTINGS: Final = frozenset(
    "set_config temp temporary pg_advisory_lock pg_advisory_lock_shared pg_try_advisory_lock"  # noqa: SIM905
    " pg_try_advisory_lock_shared".split()
)

#: PostgreSQL can't tell the type of a parameter, or which operator or function is meant.
_UNDETERMINED: Final = (
    asyncpg.IndeterminateDatatypeError,
    asyncpg.AmbiguousFunctionError,
    asyncpg.UndefinedFunctionError,
    asyncpg.DatatypeMismatchError,
)
#: How PostgreSQL names a parameter in a message, in any language.
_PARAMETER: Final = re.compile(r"\$(\d+)")
#: What stands where PostgreSQL has no such operator; else it is a function.
_OPERATOR: Final = re.compile(r"[-+*/<>=~!@#%^&|`?]|(?:NOT\s+)?(?:I?LIKE|IN|BETWEEN|SIMILAR)\b|IS\b", re.IGNORECASE)
#: Forms of one statement that are kept.
_FORMS: Final = 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """One form of a statement: its text, what makes its arguments, what makes an object of a row.

    ``limited`` gives as many rows as its last parameter says.
    """

    text: str
    limited: str
    encoders: tuple[Convert, ...]
    make: Callable[[Any], dict[str, Any]]
    columns: tuple[asyncpg.Attribute, ...]
    types: tuple[asyncpg.Type, ...]

    def encode(self, values: Sequence[Any]) -> list[Any]:
        """Return the arguments. Raises Recast where another form is needed."""
        return [None if value is None else encode(value) for encode, value in zip(self.encoders, values, strict=True)]


class Forms:
    """The forms of one statement, for the values it is given: which casts they need is what tells them apart."""

    __slots__ = ("_forms", "_typed", "changes_settings", "statement")

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        self.changes_settings = statement.first not in _CLEAN or bool(statement.words & _CHANGING_SETTINGS)
        # By the parameters' own casts; () where the database can tell every type by itself.
        self._typed: dict[tuple[str, ...], _Typed] = {}
        self._forms: dict[tuple[str, ...], Prepared] = {}

    async def fitting(self, connection: Connection, values: Sequence[Any]) -> tuple[Prepared, list[Any]]:
        """Return the form for some values, and the arguments.

        Raises what asyncpg raises where the database refuses the statement.
        """
        typed = self._typed.get(())
        if typed is None:
            own = tuple(map(cast_for, values))
            typed = self._typed.get(own)
            if typed is None:
                typed = await self._prepare_typed(connection, own)
                _keep(self._typed, own if any(typed.casts) else (), typed)
        try:
            return typed.form, typed.form.encode(values)
        except Recast:
            pass
        casts = self._casts(typed, values)
        key = (*typed.casts, *casts, *map(cast_for, values))
        form = self._forms.get(key)
        if form is None:
            await self._refuse_lists(connection, typed, values)
            form = await self._recast(connection, typed, casts, values)
            _keep(self._forms, key, form)
        return form, form.encode(values)

    async def _prepare_typed(self, connection: Connection, own: Sequence[str]) -> _Typed:
        """Ask the database for the parameters' types; those that it can't tell get the type of their value.

        A null is a text then (`<< input.name >> IS NULL`).
        """
        casts = [""] * len(own)
        first: Exception | None = None
        while True:
            text = self.statement.text(casts)
            try:
                found = await _prepare(connection, text)
            except asyncpg.IndeterminateDatatypeError as error:
                first = first or error
                named = _PARAMETER.search(error.message or "")
                index = int(named[1]) - 1 if named is not None else -1
                if not 0 <= index < len(own) or casts[index]:
                    raise first from None
                casts[index] = own[index] or "::text"
            except _UNDETERMINED as error:
                first = first or error
                if casts == list(own):
                    raise first from None
                casts = list(own)
            except asyncpg.PostgresError as error:
                raise (first or error) from None
            else:
                return _Typed(tuple(casts), found.get_parameters(), _prepared(text, found))

    def _casts(self, typed: _Typed, values: Sequence[Any]) -> tuple[str, ...]:
        """Return the casts by which the database converts the values that are not of the types it expects."""
        casts = [
            typed.casts[index] or _recast_of(type_, encode, value)
            for index, (type_, encode, value) in enumerate(zip(typed.types, typed.form.encoders, values, strict=True))
        ]
        for index, (type_, value) in enumerate(zip(typed.types, values, strict=True)):
            if casts[index] and isinstance(value, (list, tuple)) and type_.kind == "scalar":
                raise self._list_for_one(index, type_)
        return tuple(casts)

    async def _refuse_lists(self, connection: Connection, typed: _Typed, values: Sequence[Any]) -> None:
        """Refuse a list that is compared with a text: as its JSON it would never be equal, and nothing be found.

        A text that is written, or given to a function, may well be the JSON of a list. Raises RunError ``template``.
        """
        for index, (type_, value) in enumerate(zip(typed.types, values, strict=True)):
            if type_.name not in TEXTUAL or not isinstance(value, (list, tuple)):
                continue
            casts = list(typed.casts) if typed.casts else [""] * len(values)
            casts[index] = cast_for(value)
            text = self.statement.text(casts)
            try:
                await _prepare(connection, text)
            except asyncpg.UndefinedFunctionError as error:
                at = int(getattr(error, "position", None) or 0)
                if at and _OPERATOR.match(text, at - 1):
                    raise self._list_for_one(index, type_) from error
            except asyncpg.PostgresError:
                pass

    def _list_for_one(self, index: int, type_: asyncpg.Type) -> RunError:
        return RunError(
            "template",
            f"{self.statement.shown_at(index)} is a list, and the statement expects one {type_.name}: write "
            "= ANY(<<...>>), or in a `where` {column: {in: <<...>>}}",
            final=True,
            parameter="*",
        )

    async def _recast(
        self, connection: Connection, typed: _Typed, casts: tuple[str, ...], values: Sequence[Any]
    ) -> Prepared:
        """Let the database convert the values that are not of the types it expects."""
        # A text is what the database expects also where it can't tell (`SELECT $1`). Then a value's own type shows in
        # the columns; where it does not, the parameter is a text indeed.
        own = tuple(
            cast_for(value) if type_.name in TEXTUAL and type(value) is not str else cast
            for type_, value, cast in zip(typed.types, values, casts, strict=True)
        )
        if own != casts:
            text = self.statement.text(own)
            try:
                found = await _prepare(connection, text)
            except asyncpg.PostgresError:
                pass
            else:
                if _types(found.get_attributes()) != _types(typed.form.columns):
                    return _prepared(text, found, values)
        text = self.statement.text(casts)
        return _prepared(text, await _prepare(connection, text), values)


@dataclass(frozen=True, slots=True)
class _Typed:
    """The types that the parameters of a statement have, given some casts, and its form for values of those types."""

    casts: tuple[str, ...]
    types: tuple[asyncpg.Type, ...]
    form: Prepared


async def _prepare(connection: Connection, text: str) -> Any:
    """Prepare a statement. One that is refused does not end the transaction around it."""
    if not connection.is_in_transaction():
        return await connection.parse(text)
    async with connection.transaction():
        return await connection.parse(text)


def _keep(forms: dict[tuple[str, ...], T], key: tuple[str, ...], form: T) -> None:
    if len(forms) >= _FORMS:
        del forms[next(iter(forms))]  # the oldest
    forms[key] = form


def _prepared(text: str, found: Any, values: Sequence[Any] | None = None) -> Prepared:
    columns: tuple[asyncpg.Attribute, ...] = found.get_attributes()
    encoders = [encoder_for(type_) for type_ in found.get_parameters()]
    if values is not None:
        # Whatever is handed over as a text now, is written as one.
        for index, (type_, value) in enumerate(zip(found.get_parameters(), values, strict=True)):
            if type_.name in TEXTUAL:
                encoders[index] = to_text
            elif type_.name == "text[]" and isinstance(value, (list, tuple)):
                encoders[index] = _texts
    limited = _limited(text, len(encoders))
    return Prepared(text, limited, tuple(encoders), row_maker(columns), columns, found.get_parameters())


def _texts(value: Any) -> list[Any]:
    return [
        None if item is None else _texts(item) if isinstance(item, (list, tuple)) else to_text(item) for item in value
    ]


def _recast_of(type_: asyncpg.Type, encode: Convert, value: Any) -> str:
    """Return the cast by which the database makes its own type of a value; "" where none is needed."""
    if value is None or type_.name in TEXTUAL:
        return ""
    try:
        encode(value)
    except Recast:
        name = ".".join('"' + part.replace('"', '""') + '"' for part in (type_.schema, type_.name.removesuffix("[]")))
        if type_.kind == "array":
            if isinstance(value, (list, tuple)):
                return f"::text[]::{name}[]"
            return f"::text::{name}[]"
        return f"::text::{name}"
    return ""


def same_columns(one: tuple[asyncpg.Attribute, ...], other: tuple[asyncpg.Attribute, ...]) -> bool:
    """Whether two rows have the same columns: their names and their types."""
    return _types(one) == _types(other) and [c.name for c in one] == [c.name for c in other]


def _types(attributes: tuple[asyncpg.Attribute, ...]) -> list[int]:
    return [each.type.oid for each in attributes]


# ------------------------------------------------------------------------- rows as JSON

#: As datetime.isoformat has it: microseconds where there are any. {0} is the column, {1} the time, {2} its zone.
_TIME: Final = (
    "CASE WHEN isfinite({0}) THEN replace(to_char({1}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '.000000', '') || '{2}'"
    " || CASE WHEN {0} < '0001-01-01T00:00:00Z' THEN ' BC' ELSE '' END ELSE {0}::text END"
)
#: How a column is written, by its type: {0} is the column. What JSON has no number for is null (RFC 8259, section 6).
_COLUMNS: Final = {
    **dict.fromkeys(("int2", "int4", "int8", "text", "varchar", "bpchar", "bool", "uuid", "date", "jsonb"), "{0}"),
    **dict.fromkeys(("float4", "float8"), "nullif(nullif(nullif({0}, 'NaN'), 'Infinity'), '-Infinity')"),
    "numeric": "nullif(nullif(nullif({0}, 'NaN'), 'Infinity'), '-Infinity')",
    "timestamptz": _TIME.replace("{1}", "{0} AT TIME ZONE 'UTC'").replace("{2}", "Z"),
    "timestamp": _TIME.replace("{1}", "{0}").replace("{2}", ""),
}


def as_json(text: str, columns: tuple[Any, ...]) -> str | None:
    """Return the statement that gives each row of another as JSON; None where we would write it otherwise."""
    names = [each.name for each in columns]
    if not names or len({*names}) != len(names):
        return None
    if any(each.type.kind != "scalar" or each.type.name not in _COLUMNS for each in columns):
        return None
    listed = ", ".join(
        f"{_COLUMNS[each.type.name].format(_column(each.name))} AS {_quoted(each.name)}" for each in columns
    )
    # The line break ends a comment that may stand at the end.
    inner = text.rstrip().rstrip(";")
    # Names are quoted, and the statement is the author's, with its parameters still in it.
    return f"SELECT row_to_json(r)::text FROM (SELECT {listed} FROM ({inner}\n) AS s) AS r"  # noqa: S608


def _column(name: str) -> str:
    return f"s.{_quoted(name)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _limited(text: str, parameters: int) -> str:
    """Return a statement of as many rows of another as its last parameter says."""
    inner = text.rstrip().rstrip(";")
    return f"SELECT * FROM ({inner}\n) AS rows LIMIT ${parameters + 1}::int8"  # noqa: S608


# ------------------------------------------------------------------------ checks of definitions

_COLUMNS_OF: Final = """
SELECT attname FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_ALL_TABLES: Final = """
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
            rows = await connection.fetch(_COLUMNS_OF, quoted)
            self.columns[table] = [row[0] for row in rows]
        return self.columns[table] or None

    async def _tables(self, connection: Connection) -> list[str]:
        if self.tables is None:
            self.tables = [row[0] for row in await connection.fetch(_ALL_TABLES)]
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
