"""Whether the bindings of a SQL statement stand where parameters can."""

from __future__ import annotations

from streamstack.errors import Diagnostic
from streamstack.language.expressions import Expression, Template, Value
from streamstack.language.findings import find
from streamstack.language.reading.nodes import Node
from streamstack.language.sql import statement_in


def check_sql(value: Value, node: Node) -> list[Diagnostic]:
    """Report the bindings that would be text of the statement, or stand for a name in it."""
    if isinstance(value, Expression):
        message = (
            "the statement itself can't come from a binding: whoever gives it could do anything"
        )
        hint = (
            "write the SQL out, with bindings for its values; `<% if %>` may choose among its parts"
        )
        return [find("sql-position", value.mark, message, hint)]
    if isinstance(value, Template) and value.captures:
        message = f"`<% {value.captures} %>` makes text of values, and in SQL each is a parameter"
        return [find("sql-position", node.mark, message, "write the statement without it")]
    statement = statement_in(value)
    if statement is None:
        return []
    marks = [each.mark for each in value.bindings()]
    found = []
    # The parts of a template may exclude one another.
    if statement.second and not isinstance(value, Template):
        begins = " ".join(statement.second.split())
        shown = begins if len(begins) <= 40 else begins[:37] + "..."
        message = f"a step runs one statement, and here a second one begins: {shown}"
        found.append(find("several-statements", node.mark, message))
    return found + [
        find(
            fault.code,
            marks[fault.index] if fault.index < len(marks) else node.mark,
            fault.message,
            fault.hint,
        )
        for fault in statement.misplaced
    ]
