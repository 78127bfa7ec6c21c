"""Rows that the database itself writes as JSON, as we would have written them.

Only where a row goes to the reader unchanged, and only for columns whose JSON PostgreSQL can write as we do. A float
without a fraction is `25` then and not `25.0`, which is the same number of JSON.
"""

from __future__ import annotations

from typing import Any, Final

#: As datetime.isoformat has it: microseconds where there are any, Z for UTC. {0} is the column, {1} the time in UTC.
_TIME: Final = (
    "CASE WHEN isfinite({0}) THEN replace(to_char({1}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '.000000', '') || 'Z'"
    " || CASE WHEN {0} < '0001-01-01T00:00:00Z' THEN ' BC' ELSE '' END ELSE {0}::text END"
)
#: How a column is written, by its type: {0} is the column. What JSON has no number for is null (RFC 8259, section 6).
_COLUMNS: Final = {
    **dict.fromkeys(
        ("int2", "int4", "int8", "text", "varchar", "bpchar", "bool", "uuid", "date", "jsonb"),
        "{0}",
    ),
    **dict.fromkeys(
        ("float4", "float8"), "nullif(nullif(nullif({0}, 'NaN'), 'Infinity'), '-Infinity')"
    ),
    "numeric": "nullif(nullif(nullif({0}, 'NaN'), 'Infinity'), '-Infinity')",
    "timestamptz": _TIME.replace("{1}", "{0} AT TIME ZONE 'UTC'"),
    "timestamp": _TIME.replace("{1}", "{0}"),
}


def as_json(text: str, columns: tuple[Any, ...]) -> str | None:
    """Return the statement that gives each row of another as JSON; None where we would write it otherwise."""
    names = [each.name for each in columns]
    if not names or len({*names}) != len(names):
        return None
    if any(each.type.kind != "scalar" or each.type.name not in _COLUMNS for each in columns):
        return None
    listed = ", ".join(
        f"{_COLUMNS[each.type.name].format(_column(each.name))} AS {_quoted(each.name)}"
        for each in columns
    )
    # The line break ends a comment that may stand at the end.
    inner = text.rstrip().rstrip(";")
    # Names are quoted, and the statement is the author's, with its parameters still in it.
    return f"SELECT row_to_json(r)::text FROM (SELECT {listed} FROM ({inner}\n) AS s) AS r"  # noqa: S608


def _column(name: str) -> str:
    return f"s.{_quoted(name)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
