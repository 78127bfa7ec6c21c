"""The SQL that the functions on tables write: names quoted, values as parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.functions.db_use import Query
from streamstack.language.operators import a_kind
from streamstack.language.sql import statement_of
from streamstack.language.suggest import did_you_mean
from streamstack.language.values import to_text


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
    "eq": "Equal; null is no value.",
    "ne": "Not equal, also where the column has no value.",
    "gt": "Greater.",
    "gte": "Greater or equal.",
    "lt": "Less.",
    "lte": "Less or equal.",
    "in": "One of a list.",
    "not_in": "None of a list.",
    "like": "A pattern: % stands for any text, _ for any character.",
    "ilike": "A pattern, whatever the case of letters.",
}


class Alias:
    """A name for the table of a statement that no column asked for has.

    PostgreSQL takes a name that is no column for the whole row where the table is called so. Then who may choose among
    columns would see them all.
    """

    def __init__(self, *given: Any) -> None:
        taken = {name for each in given for name in _names_in(each)}
        self.name = "t"
        while self.name in taken:
            self.name += "_"

    @property
    def words(self) -> str:
        """What stands behind the table's name."""
        return f" AS {self.name}"


def _names_in(given: Any) -> list[Any]:
    if isinstance(given, (Mapping, list, tuple)):
        return [str(name).removeprefix("-") for name in given]
    return [str(given).removeprefix("-")]


class Writer:
    """A statement that is being written. ``add`` takes our own words only; what others give is quoted or bound."""

    __slots__ = ("_pieces", "_values")

    def __init__(self, words: str = "") -> None:
        self._pieces = [words]
        self._values: list[Any] = []

    def add(self, words: str) -> Writer:
        """Add words of SQL."""
        self._pieces[-1] += words
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
        """Add a WHERE clause; none where there is no condition."""
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
                message = f"a list is needed to compare with, and this is {a_kind(value)}"
                raise RunError("template", message, final=True)
            negated = operator == "not_in"
            self.add(f"{column} {'<> ALL' if negated else '= ANY'}(").bind(list(value)).add(")")
        else:
            self.add(column + _SIGNS[operator]).bind(value)

    def returning(self, names: Any, alias: Alias) -> Writer:
        """Add a RETURNING clause; none for null."""
        if names is not None:
            self.add(" RETURNING ").add(chosen(names, alias))
        return self

    @property
    def query(self) -> Query:
        """The statement, with the values of its parameters."""
        return statement_of(tuple(self._pieces)), self._values


def quoted(name: Any) -> str:
    """Return a name as SQL writes it, whatever it holds (PostgreSQL 18, section 4.1.1).

    Raises RunError ``template`` for what is no name.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        what = "one with U+0000" if name and isinstance(name, str) else a_kind(name)
        message = f"a name is needed, and this is {'an empty text' if name == '' else what}"
        raise RunError("template", message, final=True)
    return '"' + name.replace('"', '""') + '"'


def table_name(name: Any) -> str:
    """Return the name of a table, with its schema where it has one: sales.orders."""
    if not isinstance(name, str):
        return quoted(name)
    return ".".join(map(quoted, name.split(".")))


def names_of(given: Any, what: str) -> list[str]:
    """Return the names that a text or a list gives.

    Raises RunError ``template`` for anything else.
    """
    if isinstance(given, str):
        return [given]
    if isinstance(given, (list, tuple)) and given:
        return [to_text(each) for each in given]
    raise RunError(
        "template", f"`{what}` takes a name or a list of names, and this is {a_kind(given)}"
    )


def chosen(names: Any, alias: Alias) -> str:
    """Return the columns that are asked for; `*` are all."""
    if names is None or names == "*":
        return "*"
    return ", ".join(
        # PostgreSQL 18 has two more names for whole rows.
        f"{alias.name}.{quoted(name)}" if name in ("old", "new") else quoted(name)
        for name in names_of(names, "returning")
    )


def no_names(given: Any) -> tuple[str, str] | None:
    """Say of what stands for names of columns that it names none."""
    names = [given] if isinstance(given, str) else given
    if isinstance(names, list) and names and all(map(to_text, names)):
        return None
    return "a name or a list of names", "write the name of a column, or a list such as [id, name]"


def no_order(given: Any) -> tuple[str, str] | None:
    """Say of what stands for an order that no rows can be sorted by it."""
    if given in ([], {}):
        return None
    if not isinstance(given, dict):
        return no_names(given)
    wrong = [each for each in given.values() if not isinstance(each, str) or each not in _ORDERS]
    if not wrong:
        return no_names(list(given))
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
                raise RunError("template", message, final=True)
            parts.append(quoted(name) + _ORDERS[order])
    else:
        parts = [
            quoted(name.removeprefix("-")) + _ORDERS["desc" if name.startswith("-") else "asc"]
            for name in names_of(sort, "sort")
        ]
    return " ORDER BY " + ", ".join(parts)
