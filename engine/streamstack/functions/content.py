"""Functions that read CSV, NDJSON, JSON and files, and the decoding parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.definition import Effects, Example, Parameter, Property, function
from streamstack.runtime.decoders.decoder import LARGEST, OnInvalid
from streamstack.runtime.decoders.formats import FORMATS, Options, decoded, decoder_for
from streamstack.runtime.operators import ByteSource
from streamstack.runtime.run import Run
from streamstack.runtime.values import Stream
from streamstack.spec import Bound, Constant, Kind

DECODES: Final = ("auto", *FORMATS)


def _no_delimiter(text: str) -> tuple[str, str] | None:
    """Say what is wrong with a delimiter, where something is."""
    if len(text) == 1 and text not in '"\r\n':
        return None
    return "one character other than a quote", 'write `,`, `;`, `|` or, for a tab, "\\t"'


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


_FROM: Final = Parameter(
    "from",
    Bound(Kind.ANY_OR_STREAM),
    "A file, bytes, a text, or a stream or list of bytes or texts, which are joined as they are.",
    required=True,
    main=True,
)
_CHARSET: Final = Parameter(
    "charset",
    Bound(Kind.TEXT),
    "How bytes are written as text, such as `windows-1252`; `auto` is UTF-8, or windows-1252 where that does not fit. "
    "Else what the Content-Type says, else UTF-8. A byte order mark of UTF-8 or UTF-16 counts for more.",
)
_EFFECTS: Final = Effects(
    gives="stream",
    properties=(
        *COUNTS,
        Property("bytes", "How many bytes have been read."),
        Property("size", "How many bytes there are in all; null where nobody knows."),
    ),
)


@function(
    "csv.read",
    _FROM,
    *CSV,
    _CHARSET,
    ON_INVALID,
    MAX_EVENT_SIZE,
    effects=_EFFECTS,
    examples=[
        Example(
            "records by the names in the header",
            "- csv.read: << input.file >>\n  as: rows\n"
            "- forEach: {in: << rows >>, as: row, do: [{stream: << row.name >>}]}",
            inputs={"file": "id,name\n1,Ada\n2,Grace\n"},
            chunks=("Ada", "Grace"),
        ),
        Example(
            "a bad record is told with its line, and passed over",
            "- csv.read: {from: << input.file >>, onInvalid: give}\n  as: rows\n- forEach:\n    in: << rows >>\n"
            "    as: row\n    do:\n      - if:\n          condition: << row.invalid is defined >>\n"
            "          then: [{stream: << row.invalid.line ~ ' ' ~ row.invalid.message >>}]\n"
            "          else: [{stream: << row.name >>}]",
            inputs={"file": "id,name\n1,Ada\n2\n3,Alan\n"},
            chunks=("Ada", "3 has 1 field, and there are 2 columns", "Alan"),
        ),
        Example(
            "without a header, and with semicolons",
            "- csv.read: {from: 'a;1', header: false, delimiter: ';', columns: [key, value]}\n  as: rows\n"
            "- collect: << rows >>\n  as: all\n- return: << all >>",
            result=[{"key": "a", "value": "1"}],
        ),
    ],
)
def csv_read(
    run: Run,
    from_: Any,
    *,
    header: bool = True,
    delimiter: str = ",",
    columns: list[Any] | None = None,
    charset: str | None = None,
    on_invalid: OnInvalid = "fail",
    max_event_size: int | None = None,
) -> Stream:
    """Give the records of CSV, each an object by the header's names, or a list where there are none.

    Every value is a text: `toInteger`, `toDecimal` convert. Quoted fields may hold delimiters and line breaks; empty
    lines are passed over; a record with more or fewer fields than there are columns is invalid. A file is read from
    its beginning each time, and as it is needed: it may be far larger than the memory.
    """
    options = options_of(
        on_invalid,
        _largest(run, max_event_size),
        header=header,
        delimiter=delimiter,
        columns=columns,
    )
    return _read(run, from_, "csv", options, charset)


@function(
    "ndjson.read",
    _FROM,
    ON_INVALID,
    MAX_EVENT_SIZE,
    effects=_EFFECTS,
    examples=[
        Example(
            "a value a line",
            "- ndjson.read: << input.log >>\n  as: entries\n"
            "- forEach: {in: << entries >>, as: entry, do: [{stream: << entry.level >>}]}",
            inputs={"log": '{"level": "info"}\n{"level": "error"}\n'},
            chunks=("info", "error"),
        ),
    ],
)
def ndjson_read(
    run: Run, from_: Any, *, on_invalid: OnInvalid = "fail", max_event_size: int | None = None
) -> Stream:
    """Give the JSON value of each line; empty lines are passed over."""
    return _read(run, from_, "ndjson", options_of(on_invalid, _largest(run, max_event_size)))


@function(
    "json.read",
    _FROM,
    PATH,
    ON_INVALID,
    MAX_EVENT_SIZE,
    effects=_EFFECTS,
    examples=[
        Example(
            "the items of an array within a document",
            "- json.read: {from: << input.export >>, path: data.items}\n  as: items\n"
            "- forEach: {in: << items >>, do: [{stream: << item.id >>}]}",
            inputs={"export": '{"data": {"items": [{"id": 1}, {"id": 2}]}}'},
            chunks=(1, 2),
        ),
    ],
)
def json_read(
    run: Run,
    from_: Any,
    *,
    path: Any = None,
    on_invalid: OnInvalid = "fail",
    max_event_size: int | None = None,
) -> Stream:
    """Give the items of an array in a JSON document, each as soon as it is read.

    `path` leads to the array, such as `data.items`; without it the document is the array. A value there that is no
    array is the one item. A document that breaks off between items is the error `invalid-chunk`, whatever `onInvalid`.
    """
    options = options_of(on_invalid, _largest(run, max_event_size), path=path)
    return _read(run, from_, "json", options)


@function(
    "file.read",
    _FROM,
    replace(
        DECODE,
        description="What the items are: `lines`; `text`, `bytes` in pieces as they are read; `csv`, `ndjson`, `json` "
        "as the functions of those names; `sse` events. `auto` follows a file's type and name; a text is `text`, "
        "anything else `bytes`.",
    ),
    PATH,
    *CSV,
    _CHARSET,
    ON_INVALID,
    MAX_EVENT_SIZE,
    effects=_EFFECTS,
    examples=[
        Example(
            "line by line",
            "- file.read: {from: << input.log >>, decode: lines}\n  as: lines\n"
            "- forEach: {in: << lines >>, as: line, do: [{stream: << line >>}]}",
            inputs={"log": "one\r\ntwo\n"},
            chunks=("one", "two"),
        ),
    ],
)
def file_read(  # noqa: PLR0913  (what may be said about all the formats)
    run: Run,
    from_: Any,
    *,
    decode: str = "auto",
    path: Any = None,
    header: bool = True,
    delimiter: str = ",",
    columns: list[Any] | None = None,
    charset: str | None = None,
    on_invalid: OnInvalid = "fail",
    max_event_size: int | None = None,
) -> Stream:
    """Give what a file holds, in the format of your choice or of the file itself.

    A file is read as it is needed, so it may be far larger than the memory.
    """
    options = options_of(
        on_invalid,
        _largest(run, max_event_size),
        path=path,
        header=header,
        delimiter=delimiter,
        columns=columns,
    )
    return _read(run, from_, decode, options, charset)


def _largest(run: Run, given: int | None) -> int:
    return given or run.context.http.max_event_size


def _read(
    run: Run, value: Any, decode: str, options: Options, charset: str | None = None
) -> Stream:
    """Return the items of something that holds bytes.

    Raises RunError ``template`` for what holds none, ``invalid-chunk`` for an unknown charset.
    """
    source = ByteSource(value)
    options = replace(options, charset=charset or source.charset, status=source.status)
    decoder = decoder_for(source.format if decode == "auto" else decode, options)
    return Stream(
        lambda: decoded(source.pieces(run), decoder),
        {
            "skipped": lambda: decoder.skipped,
            "bytes": lambda: source.read,
            "size": lambda: source.size,
        },
    )


FUNCTIONS = (csv_read, ndjson_read, json_read, file_read)
