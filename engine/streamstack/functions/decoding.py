"""What everything that decodes has in common: `http.stream`, and the functions that read files."""

from __future__ import annotations

from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.declare import Parameter, Property
from streamstack.runtime.decoders.decoder import LARGEST, OnInvalid
from streamstack.runtime.decoders.formats import FORMATS, Options
from streamstack.spec import Bound, Constant, Kind

DECODES: Final = ("auto", *FORMATS)


def _no_delimiter(text: str) -> tuple[str, str] | None:
    """Say what is wrong with a delimiter, where something is."""
    if len(text) == 1 and text not in '"\r\n':
        return None
    return "one character that is no quote", 'write `,`, `;`, `|` or, for a tab, "\\t"'


DECODE: Final = Parameter(
    "decode",
    Constant(choices=DECODES),
    "What the items are. `auto` follows the Content-Type; `sse` events, whose data is a value where it is a JSON "
    "object or array, else text; `sseJson` events whose data is JSON, up to "
    "`[DONE]`; `ndjson` a value a line; `json` the items of an array; `csv` records; `lines`, `text`, `bytes`.",
    default="auto",
)
PATH: Final = Parameter(
    "path", Bound(), "For json: where in the document the array is, such as `data.items`."
)
CSV: Final = (
    Parameter(
        "header",
        Bound(Kind.BOOLEAN),
        "For csv: whether the first record names the columns.",
        default=True,
    ),
    Parameter(
        "delimiter",
        Bound(Kind.TEXT, refuses=_no_delimiter),
        "For csv: what stands between fields.",
        default=",",
    ),
    Parameter(
        "columns",
        Bound(Kind.LIST),
        "For csv: the columns that are given, or their names where there is no header.",
    ),
)
ON_INVALID: Final = Parameter(
    "onInvalid",
    Constant(choices=("skip", "fail", "give")),
    "What becomes of a chunk that can't be decoded: `skip` counts it in `skipped`; `fail` is the error "
    "`invalid-chunk`; `give` is an item {invalid: {number, text, message}}, for csv with its `line`.",
    default="fail",
)
MAX_EVENT_SIZE: Final = Parameter(
    "maxEventSize",
    Bound(Kind.SIZE, minimum=1),
    "The largest event, line, record or message; a larger one is an invalid chunk. "
    "Else `http.maxEventSize` of the settings, 10MB.",
)
COUNTS: Final = (
    Property("count", "How many items have been given."),
    Property("skipped", "How many invalid chunks were skipped; null before the stream opens."),
    Property("finished", "Whether the stream has come to its end."),
)


def options_of(
    on_invalid: OnInvalid = "fail",
    largest: int = LARGEST,
    *,
    path: Any = None,
    header: bool = True,
    delimiter: str = ",",
    columns: list[Any] | None = None,
) -> Options:
    """Return what a step's parameters say about the format.

    Raises RunError ``template`` for a delimiter that can be none.
    """
    if _no_delimiter(delimiter):
        raise RunError("template", "`delimiter` is one character, and no quote", final=True)
    return Options(
        on_invalid=on_invalid,
        largest=largest,
        path=_path(path),
        header=header,
        delimiter=delimiter,
        columns=tuple(map(str, columns or ())),
    )


def _path(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, list):
        return tuple(map(str, value))
    return tuple(str(value).split("."))
