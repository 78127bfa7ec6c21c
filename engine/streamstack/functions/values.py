"""The Values family: set variables, collect a stream, write to the log."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

import structlog

from streamstack.errors import RunError
from streamstack.language.definition import ConstantArgument, Effects, Entries, Example, Parameter, function
from streamstack.language.expressions import Value
from streamstack.language.graph import Node
from streamstack.language.kinds import Kind
from streamstack.language.masking import masked, masked_value
from streamstack.language.operators import a_kind, bounded, check_size
from streamstack.language.values import kind, show_size, to_json, to_text
from streamstack.runtime.compiler import Code
from streamstack.runtime.operators import CLIENTS_FAULT
from streamstack.runtime.run import Run
from streamstack.runtime.values import File, iterate
from streamstack.spec import Bound, Constant, Named, Variable

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

    Values don't change in place; but a list with a single reference may grow where it is, which keeps a loop of
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


#: Bytes of a text, or bytes, that `collect` makes, unless the author says otherwise.
_MOST_BYTES: Final = 64 * 1024 * 1024


@function(
    "collect",
    Parameter("in", Bound(Kind.ITEMS), "Stream to read. A list or a file is accepted too.", required=True, main=True),
    Parameter("limit", Bound(Kind.INTEGER, minimum=0), "Maximum number of items.", default=10_000),
    Parameter(
        "into",
        Constant(choices=("list", "text", "bytes")),
        "`list`: a list of the items. `text`: the concatenated text of items that are texts or have a `text` field. "
        "`bytes`: the concatenated bytes of items that are bytes or texts.",
        default="list",
    ),
    Parameter("maxSize", Bound(Kind.SIZE, minimum=0), "With `text` and `bytes`: maximum size. Default: 64MB."),
    effects=Effects(
        gives="value",
        result="text if into = text else (bytes if into = bytes else [items of in])",
        waits_for_stream=True,
    ),
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
        Example(
            "collect into bytes",
            "- collect: {in: [Grüße], into: bytes}\n  as: data\n- return: << data | length >>",
            result=7,
        ),
        Example("exceed the limit", "- collect: {in: [1, 2, 3], limit: 2}\n  as: all", fails="limit-reached"),
    ],
)
async def collect(run: Run, in_: Any, limit: int = 10_000, into: str = "list", max_size: int = _MOST_BYTES) -> Any:
    """Read a stream, or a file, to its end and store it in memory.

    Other functions process items as they arrive. A stream of more than `limit` items, or of a text or bytes of
    more than `maxSize`, fails with `limit-reached`. A file becomes `bytes` or, if it is UTF-8, `text`; its size
    is limited by `maxSize` only.
    """
    if isinstance(in_, File):
        return await _contents_of(in_, into, max_size)
    convert = {"list": None, "text": _text_of, "bytes": _bytes_of}[into]
    source = iterate(in_)
    items: list[Any] = []
    size = 0
    try:
        while batch := await source.batch():
            if len(items) + len(batch) > limit:
                raise RunError(
                    "limit-reached", f"the stream has more than {limit} items: raise `limit`, or don't collect"
                )
            if convert is None:
                items += batch
                continue
            parts = list(map(convert, batch))
            size += sum(map(len, parts))
            _check_size(size, max_size)
            items += parts
    finally:
        await source.close()
    return items if into == "list" else ("" if into == "text" else b"").join(items)


async def _contents_of(file: File, into: str, max_size: int) -> str | bytes:
    if into == "list":
        raise RunError("template", f"a file is not a list: {file.remedy}", final=True)
    _check_size(file.size, max_size)
    data = await file.read()
    if into == "bytes":
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        message = "the file is not UTF-8: read it with `file.read`, `decode: text` and a `charset`"
        raise RunError("invalid-chunk", message, status=CLIENTS_FAULT) from None


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise RunError("limit-reached", f"there are more than {show_size(most)}: raise `maxSize`, or don't collect")


def _text_of(item: Any) -> str:
    if isinstance(item, Mapping):
        text = item.get("text")
        return text if isinstance(text, str) and item.get("type", "text") == "text" else ""
    if isinstance(item, bytes):
        message = "an item is bytes, which are not text: write `into: bytes`, or read the stream with `decode: text`"
        raise RunError("template", message)
    return to_text(item)


def _bytes_of(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode("utf-8", "replace")
    raise RunError("template", f"`into: bytes` needs items that are bytes or texts, not {a_kind(item)}")


@function(
    "log",
    Parameter("message", Bound(), "Message: a text or any value.", required=True, main=True),
    Parameter("level", Constant(choices=("debug", "info", "warning", "error")), "Log level.", default="info"),
    Parameter("fields", Bound(Kind.OBJECT), "Additional fields of the log line, by name."),
    examples=[Example("a log line", '- log: {message: "done", fields: {items: 3}}\n- return: 1', result=1)],
)
def log_(run: Run, message: Any, level: str = "info", fields: Mapping[str, Any] | None = None) -> None:
    """Write a line to the server log. The line includes the run's id."""
    to_json(fields)  # a stream or a file, which a log can't hold, is an error
    own = {f"field_{key}" if key in _TAKEN else key: value for key, value in (fields or {}).items()}
    # Masked here, where the values of the author are: other lines of the log hold words of the server.
    getattr(log, level)(masked(to_text(message)), run=run.id, **masked_value(own))


FUNCTIONS = (set_, append, collect, log_)
