"""The Values family: set variables, collect a stream, write to the log."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import structlog

from streamstack.errors import RunError
from streamstack.language.definition import ConstantArgument, Effects, Entries, Example, Parameter, function
from streamstack.language.expressions import Value
from streamstack.language.graph import Node
from streamstack.language.operators import bounded, check_size
from streamstack.language.values import kind, to_text
from streamstack.runtime.compiler import Code
from streamstack.runtime.run import Run
from streamstack.runtime.values import iterate
from streamstack.spec import Bound, Constant, Kind, Named, Variable

log = structlog.get_logger("streamstack.log")

#: Names that the log itself gives a meaning.
_TAKEN = frozenset({"event", "exc_info", "exception", "level", "run", "self", "stack", "stack_info", "timestamp"})


@function(
    "set",
    Parameter(
        "variables",
        Named(Bound(Kind.ANY_OR_STREAM), keys_are_variables=True),
        "Variables and their values, set in order: a value can use the variables set before it.",
        required=True,
        main=True,
    ),
    effects=Effects(sets=True),
    examples=[
        Example(
            "create and update", "- set: {a: 1}\n- set: {b: << a + 1 >>, a: 5}\n- return: << [a, b] >>", result=[5, 2]
        )
    ],
    compiled=True,
)
def set_(node: Node, code: Code) -> None:
    """Set variables.

    A variable is visible in the whole run (or in the called function), wherever it is set. Assigning a stream
    to another variable moves it: the old variable can no longer be read.
    """
    variables = node.arguments.get("variables")
    assert isinstance(variables, Entries)
    for entry in variables.entries:
        value = entry.argument
        assert isinstance(value, Value)
        code.line(f"{code.target(entry.key)} = {code.source(value)}", value)


def _references_of(value: object) -> int:
    return sys.getrefcount(value)


def _alone() -> int:
    """Return the count that a function sees for a list which one variable of its caller holds, and nothing else."""
    held: list[object] = []
    return _references_of(held)


_ALONE = _alone()


def appended(value: Any, item: Any) -> list[Any]:
    """Return the list with the item at its end.

    Values don't change in place; but a list that nobody else holds may grow where it is, which keeps a loop of
    appends linear. (CPython grows text in `+=` by the same rule.)
    """
    if type(value) is not list:
        raise RunError("template", f"`append` needs a list, not {kind(value)}: write `- set: {{name: []}}` first")
    if sys.getrefcount(value) <= _ALONE:
        value.append(item)
        # Looked at when it has doubled, so that a loop of appends stays linear.
        if (type(item) is list or type(item) is dict) and not len(value) & (len(value) - 1):
            check_size(value)
        return value
    longer = [*value, item]
    bounded(longer)
    return longer


@function(
    "append",
    Parameter("to", Variable(), "Name of the variable that holds the list.", required=True, main=True),
    Parameter("value", Bound(), "Value to append.", required=True),
    effects=Effects(rebinds="to"),
    examples=[
        Example(
            "append to a list", "- set: {all: [1]}\n- append: {to: all, value: 2}\n- return: << all >>", result=[1, 2]
        ),
        Example(
            "other variables don't change",
            "- set: {a: [1]}\n- set: {b: << a >>}\n- append: {to: a, value: 2}\n- return: << [a, b] >>",
            result=[[1, 2], [1]],
        ),
    ],
    compiled=True,
)
def append(node: Node, code: Code) -> None:
    """Append a value to the list in a variable.

    The variable gets a new list. Other variables that hold the old list are not changed.
    """
    to, value = node.arguments.get("to"), node.arguments.get("value")
    assert isinstance(to, ConstantArgument)
    assert isinstance(value, Value)
    name = code.target(to.value)
    code.line(f"{name} = {code.constant(appended)}({name}, {code.source(value)})", value)


@function(
    "collect",
    Parameter("in", Bound(Kind.ITEMS), "Stream to read. A list is accepted too.", required=True, main=True),
    Parameter("limit", Bound(Kind.INTEGER, minimum=0), "Maximum number of items.", default=10_000),
    Parameter(
        "into",
        Constant(choices=("list", "text")),
        "`list`: a list of the items. `text`: the concatenated text of items that are texts or have a `text` field.",
        default="list",
    ),
    effects=Effects(gives="value", waits_for_stream=True),
    examples=[
        Example(
            "collect a stream",
            "- streams.take: {in: [1, 2, 3], count: 2}\n  as: few\n- collect: << few >>\n  as: all\n"
            "- return: << all >>",
            result=[1, 2],
        ),
        Example(
            "collect into a text",
            '- collect: {in: ["a", "b"], into: text}\n  as: all\n- return: << all >>',
            result="ab",
        ),
        Example("exceed the limit", "- collect: {in: [1, 2, 3], limit: 2}\n  as: all", fails="limit-reached"),
    ],
)
async def collect(run: Run, in_: Any, limit: int = 10_000, into: str = "list") -> Any:
    """Read a stream to its end and store all items in memory.

    Other functions process items as they arrive. A stream of more than `limit` items fails with
    `limit-reached`.
    """
    source = iterate(in_)
    items: list[Any] = []
    try:
        while batch := await source.batch():
            items.extend(batch)
            if len(items) > limit:
                raise RunError(
                    "limit-reached", f"the stream has more than {limit} items: raise `limit`, or don't collect"
                )
    finally:
        await source.close()
    return items if into == "list" else "".join(map(_text_of, items))


def _text_of(item: Any) -> str:
    if isinstance(item, Mapping):
        text = item.get("text")
        return text if isinstance(text, str) and item.get("type", "text") == "text" else ""
    return to_text(item)


@function(
    "log",
    Parameter("message", Bound(), "Message: a text or any value.", required=True, main=True),
    Parameter("level", Constant(choices=("debug", "info", "warning", "error")), "Log level.", default="info"),
    Parameter("fields", Bound(Kind.OBJECT), "Additional fields of the log line, by name."),
    examples=[Example("a log line", '- log: {message: "done", fields: {items: 3}}\n- return: 1', result=1)],
)
def log_(run: Run, message: Any, level: str = "info", fields: Mapping[str, Any] | None = None) -> None:
    """Write a line to the server log. The line includes the run's id."""
    own = {f"field_{key}" if key in _TAKEN else key: value for key, value in (fields or {}).items()}
    getattr(log, level)(to_text(message), run=run.id, **own)


FUNCTIONS = (set_, append, collect, log_)
