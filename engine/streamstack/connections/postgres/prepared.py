"""Statements as the database understands them: which type each parameter has, and how a row is read.

A value that is not of the type the statement expects is handed over as a text, or with the type of its own, and
PostgreSQL converts it: `$1` becomes `$1::text::uuid`. Which form is needed is found once for each combination of
kinds, and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from streamstack.connections.postgres.pool import Connection
from streamstack.connections.postgres.values import (
    TEXTUAL,
    Convert,
    Recast,
    cast_for,
    encoder_for,
    row_maker,
)
from streamstack.errors import RunError
from streamstack.language.sql import Statement
from streamstack.language.values import kind, to_text

#: PostgreSQL can't tell the type of a parameter, or which operator or function is meant.
_UNDETERMINED: Final = (
    asyncpg.IndeterminateDatatypeError,
    asyncpg.AmbiguousFunctionError,
    asyncpg.UndefinedFunctionError,
    asyncpg.DatatypeMismatchError,
)
#: Forms of one statement that are kept.
_FORMS: Final = 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """One form of a statement: its text, what makes its arguments, what makes an object of a row."""

    text: str
    encoders: tuple[Convert, ...]
    make: Callable[[Any], dict[str, Any]]
    columns: tuple[asyncpg.Attribute, ...]

    def encode(self, values: Sequence[Any]) -> list[Any]:
        """Return the arguments. Raises Recast where another form is needed."""
        return [
            None if value is None else encode(value)
            for encode, value in zip(self.encoders, values, strict=True)
        ]


class Forms:
    """The forms of one statement, for the kinds of values it is given."""

    __slots__ = ("_forms", "plain", "statement", "types")

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        self.plain: Prepared | None = None
        self.types: tuple[asyncpg.Type, ...] = ()
        self._forms: dict[tuple[str, ...], Prepared] = {}

    async def fitting(
        self, connection: Connection, values: Sequence[Any]
    ) -> tuple[Prepared, list[Any]]:
        """Return the form for some values, and the arguments.

        Raises what asyncpg raises where the database refuses the statement.
        """
        if self.plain is not None:
            try:
                return self.plain, self.plain.encode(values)
            except Recast:
                pass
        signature = tuple(map(_kind_of, values))
        form = self._forms.get(signature)
        if form is None:
            form = await self._prepare(connection, values)
            if len(self._forms) < _FORMS:
                self._forms[signature] = form
        return form, form.encode(values)

    async def _prepare(self, connection: Connection, values: Sequence[Any]) -> Prepared:
        statement = self.statement
        if self.plain is None:
            try:
                found = await _try(connection, statement.text())
            except _UNDETERMINED as error:
                return await self._prepare_typed(connection, values, error)
            self.types = found.get_parameters()
            self.plain = _prepared(statement.text(), found)
        try:
            self.plain.encode(values)
        except Recast:
            return await self._recast(connection, values)
        return self.plain

    async def _prepare_typed(
        self, connection: Connection, values: Sequence[Any], error: Exception
    ) -> Prepared:
        """Give each parameter the type of its value, since the database can't tell."""
        text = self.statement.text([cast_for(value) for value in values])
        try:
            found = await _try(connection, text)
        except asyncpg.PostgresError:
            raise error from None
        return _prepared(text, found, values)

    async def _recast(self, connection: Connection, values: Sequence[Any]) -> Prepared:
        """Let the database convert the values that are not of the types it expects."""
        assert self.plain is not None
        casts = [
            _recast_of(type_, encode, value)
            for type_, encode, value in zip(self.types, self.plain.encoders, values, strict=True)
        ]
        for index, (type_, value) in enumerate(zip(self.types, values, strict=True)):
            if casts[index] and isinstance(value, (list, tuple)) and type_.kind == "scalar":
                shown = self.statement.shown_at(index)
                raise RunError(
                    "template",
                    f"{shown} is a list, and the statement expects one {type_.name}: write = ANY(<<...>>)",
                    final=True,
                )
        # A text is what the database expects also where it can't tell (`SELECT $1`). Then a value's own type shows in
        # the columns; where it does not, the parameter is a text indeed.
        own = [
            cast_for(value) if type_.name in TEXTUAL and type(value) is not str else cast
            for type_, value, cast in zip(self.types, values, casts, strict=True)
        ]
        if own != casts:
            text = self.statement.text(own)
            try:
                found = await _try(connection, text)
            except asyncpg.PostgresError:
                pass
            else:
                if _types(found.get_attributes()) != _types(self.plain.columns):
                    return _prepared(text, found, values)
        text = self.statement.text(casts)
        found = await connection.prepare(text) if any(casts) else None
        if found is None:
            encoders = [
                to_text if type_.name in TEXTUAL else encode
                for type_, encode in zip(self.types, self.plain.encoders, strict=True)
            ]
            return Prepared(text, tuple(encoders), self.plain.make, self.plain.columns)
        return _prepared(text, found, values)


async def _try(connection: Connection, text: str) -> Any:
    """Prepare a statement so that, where the database refuses it, a transaction around goes on."""
    if not connection.is_in_transaction():
        return await connection.prepare(text)
    async with connection.transaction():
        return await connection.prepare(text)


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
    return Prepared(text, tuple(encoders), row_maker(columns), columns)


def _texts(value: Any) -> list[Any]:
    return [
        None if item is None else _texts(item) if isinstance(item, (list, tuple)) else to_text(item)
        for item in value
    ]


def _recast_of(type_: asyncpg.Type, encode: Convert, value: Any) -> str:
    """Return the cast by which the database makes its own type of a value; "" where none is needed."""
    if value is None or type_.name in TEXTUAL:
        return ""
    try:
        encode(value)
    except Recast:
        name = f'"{type_.schema}"."{type_.name.removesuffix("[]")}"'
        if type_.kind == "array":
            if isinstance(value, (list, tuple)):
                return f"::text[]::{name}[]"
            return f"::text::{name}[]"
        return f"::text::{name}"
    return ""


def _kind_of(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{','.join(sorted({_kind_of(item) for item in value}))}]"
    if type(value) is float:
        return "float"
    return kind(value)


def _types(attributes: tuple[asyncpg.Attribute, ...]) -> list[int]:
    return [each.type.oid for each in attributes]
