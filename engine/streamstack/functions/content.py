"""Functions that read CSV, NDJSON, JSON and files, and the decoding parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.definition import Effects, Example, Parameter, Property, function
from streamstack.language.kinds import Kind
from streamstack.runtime.decoders import FORMATS, Options, decoded, decoder_for
from streamstack.runtime.decoders.decoder import LARGEST, OnInvalid
from streamstack.runtime.operators import ByteSource
from streamstack.runtime.run import Run
from streamstack.runtime.values import Stream
from streamstack.spec import Bound, Constant

DECODES: Final = ("auto", *FORMATS)


def _no_delimiter(text: str) -> tuple[str, str] | None:
    """Return the problem with a constant delimiter, if there is one."""
    if len(text) == 1 and text not in '"\r\n':
        return None
    return "one character other than a quote", 'write `,`, `;`, `|` or, for a tab, "\\t"'


DECODE: Final = Parameter(
    "decode",
    Constant(choices=DECODES),
    "Format of the items. `auto`: chosen by the Content-Type. `sse`: events, whose data is a value if it is a "
    "JSON object or array, otherwise text. `sseJson`: events whose data is JSON, up to `[DONE]`. `ndjson`: one "
    "value per line. `json`: the items of an array. `csv`: records. `lines`, `text`, `bytes`.",
    default="auto",
)
PATH: Final = Parameter("path", Bound(), "For `json`: path of the array in the document, such as `data.items`.")
CSV: Final = (
    Parameter("header", Bound(Kind.BOOLEAN), "For `csv`: the first record contains the column names.", default=True),
    Parameter(
        "delimiter", Bound(Kind.TEXT, refuses=_no_delimiter), "For `csv`: character that separates fields.", default=","
    ),
    Parameter(
        "columns", Bound(Kind.LIST), "For `csv`: the columns to return, or the column names if there is no header."
    ),
)
ON_INVALID: Final = Parameter(
    "onInvalid",
    Constant(choices=("skip", "fail", "give")),
    "What to do with a chunk that can't be decoded. `skip`: skip it and count it in `skipped`. `fail`: fail with "
    "the error `invalid-chunk`. `give`: return an item {invalid: {number, text, message}}, for `csv` also with "
    "its `line`.",
    default="fail",
)
MAX_EVENT_SIZE: Final = Parameter(
    "maxEventSize",
    Bound(Kind.SIZE, minimum=1),
    "Maximum size of an event, line, record or message. A larger one is an invalid chunk. Default: "
    "`http.maxEventSize` of the settings, 10MB.",
)
COUNTS: Final = (
    Property("count", "Number of items read so far.", "integer"),
    Property("skipped", "Number of invalid chunks skipped; null before the stream opens.", "integer~"),
    Property("finished", "Whether the stream has ended.", "boolean"),
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
    """Return the decoding options that a step's parameters describe.

    Raises RunError ``template`` for an invalid delimiter.
    """
    if _no_delimiter(delimiter):
        raise RunError("template", "`delimiter` must be one character other than a quote", final=True)
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
    "A file, bytes, a text, or a stream or list of bytes or texts, which are concatenated.",
    required=True,
    main=True,
)
_CHARSET: Final = Parameter(
    "charset",
    Bound(Kind.TEXT),
    "Character encoding, such as `windows-1252`. `auto` is UTF-8, or windows-1252 if the bytes are not valid "
    "UTF-8. Default: the charset of the Content-Type, or UTF-8. A UTF-8 or UTF-16 byte order mark takes "
    "precedence.",
)
_EFFECTS: Final = Effects(
    gives="stream",
    properties=(
        *COUNTS,
        Property("bytes", "Number of bytes decoded so far, not counting those read ahead.", "integer~"),
        Property("size", "Total number of bytes; null if unknown.", "integer~"),
    ),
)


@function(
    "csv.read",
    _FROM,
    *CSV,
    _CHARSET,
    ON_INVALID,
    MAX_EVENT_SIZE,
    effects=replace(
        _EFFECTS,
        result="stream of "
        "({invalid: {number: integer, line: integer, text: text, message: text}~, ...} if onInvalid = give "
        "else ({...} | list))",
    ),
    examples=[
        Example(
            "records as objects, by the header",
            "- csv.read: << input.file >>\n  as: rows\n"
            "- forEach: {in: << rows >>, as: row, do: [{stream: << row.name >>}]}",
            inputs={"file": "id,name\n1,Ada\n2,Grace\n"},
            chunks=("Ada", "Grace"),
        ),
        Example(
            "handle an invalid record",
            "- csv.read: {from: << input.file >>, onInvalid: give}\n  as: rows\n- forEach:\n    in: << rows >>\n"
            "    as: row\n    do:\n      - if:\n          condition: << row.invalid is defined >>\n"
            "          then: [{stream: << row.invalid.line ~ ' ' ~ row.invalid.message >>}]\n"
            "          else: [{stream: << row.name >>}]",
            inputs={"file": "id,name\n1,Ada\n2\n3,Alan\n"},
            chunks=("Ada", "3 has 1 field, and there are 2 columns", "Alan"),
        ),
        Example(
            "semicolons, no header",
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
    """Read CSV records as a stream.

    A record is an object by the header's names, or a list if there are no column names. Every value is a text:
    convert with `toInteger` or `toDecimal`. Quoted fields may contain delimiters and line breaks. Empty lines
    are skipped. A record with more or fewer fields than there are columns is invalid. A file is read from the
    beginning each time, in chunks as they are needed: it may be larger than the memory.
    """
    options = options_of(on_invalid, _largest(run, max_event_size), header=header, delimiter=delimiter, columns=columns)
    return _read(run, from_, "csv", options, charset)


@function(
    "ndjson.read",
    _FROM,
    ON_INVALID,
    MAX_EVENT_SIZE,
    effects=_EFFECTS,
    examples=[
        Example(
            "one value per line",
            "- ndjson.read: << input.log >>\n  as: entries\n"
            "- forEach: {in: << entries >>, as: entry, do: [{stream: << entry.level >>}]}",
            inputs={"log": '{"level": "info"}\n{"level": "error"}\n'},
            chunks=("info", "error"),
        )
    ],
)
def ndjson_read(run: Run, from_: Any, *, on_invalid: OnInvalid = "fail", max_event_size: int | None = None) -> Stream:
    """Read the JSON value of each line as a stream. Empty lines are skipped."""
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
            "the items of a nested array",
            "- json.read: {from: << input.export >>, path: data.items}\n  as: items\n"
            "- forEach: {in: << items >>, do: [{stream: << item.id >>}]}",
            inputs={"export": '{"data": {"items": [{"id": 1}, {"id": 2}]}}'},
            chunks=(1, 2),
        )
    ],
)
def json_read(
    run: Run, from_: Any, *, path: Any = None, on_invalid: OnInvalid = "fail", max_event_size: int | None = None
) -> Stream:
    """Read the items of an array in a JSON document as a stream, each as soon as it is complete.

    `path` is the location of the array, such as `data.items`; without it, the document itself is the array. A
    value at that location that is not an array is returned as the only item. A document that is truncated
    between two items fails with `invalid-chunk`, regardless of `onInvalid`.
    """
    options = options_of(on_invalid, _largest(run, max_event_size), path=path)
    return _read(run, from_, "json", options)


@function(
    "file.read",
    _FROM,
    replace(
        DECODE,
        description="Format of the items. `lines`: one text per line. `text`, `bytes`: chunks as they are read. `csv`, "
        "`ndjson`, `json`: as the functions of those names. `sse`: events. `auto`: chosen by the file's type "
        "and name; a text is read as `text`, anything else as `bytes`.",
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
        )
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
    """Read the content of a file as a stream, in a given format or in the file's own.

    The file is read in chunks as they are needed: it may be larger than the memory.
    """
    options = options_of(
        on_invalid, _largest(run, max_event_size), path=path, header=header, delimiter=delimiter, columns=columns
    )
    return _read(run, from_, decode, options, charset)


def _largest(run: Run, size: int | None) -> int:
    return size or run.context.http.max_event_size


def _read(run: Run, value: Any, decode: str, options: Options, charset: str | None = None) -> Stream:
    """Return the items of a value that holds bytes.

    Raises RunError ``template`` for a value that holds none, ``invalid-chunk`` for an unknown charset.
    """
    source = ByteSource(value)
    options = replace(options, charset=charset or source.charset, status=source.status)
    decoder = decoder_for(source.format if decode == "auto" else decode, options)
    return Stream(
        lambda: decoded(source.pieces(run), decoder, source),
        {"skipped": lambda: decoder.skipped, "bytes": lambda: source.read, "size": lambda: source.size},
    )


FUNCTIONS = (csv_read, ndjson_read, json_read, file_read)
