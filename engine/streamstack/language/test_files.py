"""Read `*.test.yaml`: tests of definitions.

The keys are declared here as those of the settings are (`streamstack.spec`): the reader, the findings, the JSON Schema
and the reference page come from these declarations. `language.cases` has what they become.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from streamstack.errors import Diagnostic, Mark
from streamstack.language import bodies, nodes
from streamstack.language.cases import (
    FAULTS,
    Case,
    CaseClient,
    CaseFile,
    CaseRequest,
    CaseTurn,
    Exchange,
    Expect,
    Expected,
    ExpectedCall,
    ExpectedMail,
    ExpectedMessage,
    ExpectedRows,
    Match,
    ModelAnswer,
    Piece,
    Place,
    Publication,
    Respond,
    Upstream,
)
from streamstack.language.findings import make_diagnostic
from streamstack.language.keys import METHODS
from streamstack.language.kinds import Kind
from streamstack.language.names import listed
from streamstack.language.nodes import Node, Scalar, Sequence
from streamstack.language.source import read
from streamstack.language.test_values import ValueReader
from streamstack.language.values import MISSING, TIMESTAMP_EXAMPLE, parse_timestamp, to_json, to_text
from streamstack.spec import (
    Bound,
    Constant,
    Custom,
    Field,
    Group,
    ListOf,
    Named,
    OneOf,
    RefusedError,
    SettingsReader,
    Type,
    is_null,
)

#: Where `streamstack test --update` is to write a list.
UPDATE: Final = "update"


class TestFileReader(ValueReader):
    """Read a test file."""

    __test__ = False  # for pytest

    def read(self, wanted: Type, node: Node, name: str) -> Any:
        """Return the value of a node; MISSING where it is wrong, which is reported."""
        if wanted is _PIECES:
            return self.pieces(node, name)
        return self._test(node) if wanted is _TEST else super().read(wanted, node, name)

    def _test(self, node: Node) -> Any:
        if not isinstance(node, nodes.Mapping):
            self.refuse(node.mark, "a test must be a mapping", f"write `{_TEST.example}`", "not-a-mapping")
            return MISSING
        self.environment, self.title = {}, "a test"
        found = super().read(_TEST, node, "")
        self.title = "a test file"
        return MISSING if found is MISSING else found | {"environment": self.environment}

    def pieces(self, node: Node, name: str) -> Any:
        """Return pieces that are written as a list, or in a file that holds nothing but such a list."""
        if isinstance(node, Sequence):
            return super().read(_PIECE_LIST, node, name)
        found = self.bytes_of(node, name) if isinstance(node, Scalar) and isinstance(node.value, str) else None
        if found is None:
            return self.read(_PIECE_LIST, node, name)
        if found is MISSING:
            return MISSING
        path, content = found
        documents, findings = read(content.decode(errors="replace"), path.name)
        if len(documents) == 1 and isinstance(documents[0].root, Sequence) and not findings:
            pieces = TestFileReader(findings, path.parent, self.project).read(_PIECE_LIST, documents[0].root, name)
            if not findings:
                return pieces
        why = f"{path.name}: must hold one list of pieces"
        if findings:
            why = f"{findings[0].mark}: {findings[0].message}"
        self.refuse(node.mark, f"`{name}`: {why}", "write the pieces as in `chunks: [{data: Hi}]`")
        return MISSING


def _maker(made: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `make` of a group that takes its mark, and not its name."""
    return lambda name, **values: made(**values)  # noqa: ARG005


# ------------------------------------------------------------------------------------------- types

_VALUE: Final = Bound()
_DATA: Final = Constant(Kind.ANY)
_WORD: Final = Constant()
_FLAG: Final = Constant(Kind.BOOLEAN)
_COUNT: Final = Constant(Kind.INTEGER, minimum=0)
_STATUS: Final = Constant(Kind.INTEGER, 100, 599)
_DURATION: Final = Constant(Kind.DURATION)
_SCALAR: Final = {"type": ["string", "number", "boolean", "null"]}
_FILE: Final = Custom({"type": "string"}, "file", TestFileReader.bytes_of)  # type: ignore[arg-type]
_TEXT: Final = Custom(_SCALAR, "text", TestFileReader.text)  # type: ignore[arg-type]
_TEXTS: Final = Named(_TEXT)
_PATH: Final = Custom({"type": "string"}, "text", TestFileReader.path)  # type: ignore[arg-type]
_METHOD: Final = Constant(choices=METHODS)
_ANY: Final[Mapping[str, Any]] = {"allOf": [{"$ref": "#/definitions/value"}]}


def _time(text: Any) -> datetime:
    found = parse_timestamp(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"must be a timestamp like {TIMESTAMP_EXAMPLE}")
    return found.astimezone(UTC)


_ABSOLUTE: Final = re.compile(r"(https?|wss?)://|\*")


def _url(text: Any) -> str:
    if not isinstance(text, str) or not text:
        raise ValueError("it must be a URL like https://api.example.com/v1/*")
    if _ABSOLUTE.match(text) is None:
        raise RefusedError("the URL must begin with its scheme, or with `*`", f"write https://{text.lstrip('/')}")
    return text


def _read_faults(reader: SettingsReader, node: Node, name: str) -> Any:
    if isinstance(node, Scalar) and node.value in ("all", "off", True, False):
        return frozenset(FAULTS if node.value in ("all", True) else ())
    found = reader.read(ListOf(Constant(choices=FAULTS), alone=True), node, name)
    return frozenset(found)


def _read_header_values(reader: SettingsReader, node: Node, name: str) -> Any:
    """Return the values of a header that is sent; a list repeats it."""
    items = node.items if isinstance(node, Sequence) else (node,)
    found = [reader.read(_TEXT, item, name) for item in items]
    return MISSING if MISSING in found else tuple(found)


def _read_header(reader: SettingsReader, node: Node, _: str) -> Any:
    """Return the expected text of a header; null: it is absent."""
    assert isinstance(reader, TestFileReader)
    number = isinstance(node, Scalar) and node.value is not None and not isinstance(node.value, str)
    return node.text.strip() if number and isinstance(node, Scalar) else reader.expected(node)


_HEADERS: Final = Named(
    Custom({"type": ["string", "number", "boolean", "array"], "items": _SCALAR}, "text or list", _read_header_values)
)
_EXPECTED_HEADERS: Final = Named(Custom(_SCALAR, "text, binding or null", _read_header))

_URL: Final = Constant(parse=_url)


def _lines_of(headers: Mapping[str, tuple[str, ...]], media: str) -> tuple[tuple[str, str], ...]:
    """Return header fields one by one, with the Content-Type of the body unless they have one."""
    lines = [(name, value) for name, values in headers.items() for value in values]
    if media and not any(name.lower() == "content-type" for name, _ in lines):
        lines.append(("Content-Type", media))
    return tuple(lines)


# ------------------------------------------------------------------------------------------ bodies


def _make_piece(
    mark: Mark, name: str, data: str = "", json: Any = MISSING, base64: bytes | None = None, after: float = 0.0
) -> tuple[Piece, bool]:
    del mark, name
    if base64 is not None:
        return Piece(base64, after, binary=True), False
    sent = data.encode(errors="surrogatepass") if json is MISSING else to_json(json) + b"\n"
    return Piece(sent, after), json is not MISSING


def _base64(value: Any) -> bytes:
    try:
        return b64decode(value, validate=True)
    except (TypeError, ValueError):
        raise ValueError("must be bytes in Base64") from None


def _make_event(mark: Mark, name: str, data: Any = "", after: float = 0.0, **others: str) -> Piece:
    del mark, name
    return Piece(bodies.encode_event(data, others.get("event", ""), others.get("id", "")), after)


def _make_part(mark: Mark, name: str, value: Any = "", **others: Any) -> bodies.Part:
    del mark, name
    path, content = others.get("file", (None, None))
    filename = others.get("filename") or (path.name if path else "")
    media = others.get("type") or (bodies.media_of(Path(filename)) if filename else "")
    return bodies.Part(to_text(value).encode() if content is None else content, filename, media)


_AFTER: Final = Field("after", _DURATION, "Time since the previous one.", default=0.0)
_PIECE: Final = Group(
    (
        Field("data", _TEXT, "Text, sent as it is."),
        Field("json", _DATA, "Value, sent as a line of JSON."),
        Field("base64", Constant(parse=_base64), "Bytes, in Base64."),
        _AFTER,
    ),
    make=_make_piece,
    short="data",
    named=True,
    check=lambda reader, node, _, name: reader.choose(  # type: ignore[attr-defined]
        node, ("data", "json", "base64"), name
    ),
)
_PIECE_LIST: Final = ListOf(_PIECE)
_PIECES: Final = OneOf((_PIECE_LIST, _FILE))
_EVENT: Final = Group(
    (
        Field("data", _DATA, "Data: a text, or a value that becomes JSON."),
        Field("event", _TEXT, "Name of the event."),
        Field("id", _TEXT, "Id of the event."),
        _AFTER,
    ),
    make=_make_event,
    short="data",
    named=True,
)
_PART: Final = Group(
    (
        Field("value", _DATA, "Value of the field."),
        Field("file", _FILE, "File to upload, relative to the test file."),
        Field("filename", _TEXT, "Name of the file. Default: that of `file`."),
        Field("type", _TEXT, "Content type of the part."),
    ),
    make=_make_part,
    short="value",
    named=True,
    check=lambda reader, node, _, name: reader.choose(node, ("value", "file"), name),  # type: ignore[attr-defined]
)
_BODIES: Final = ("body", "form", "multipart", "text", "file", "chunks", "send")


def _encode_request(values: dict[str, Any]) -> str:
    """Replace what was written by ``body`` or ``pieces``; return the Content-Type."""
    pieces = values.pop("chunks", None)
    if pieces is not None:
        values["pieces"] = tuple(piece for piece, _ in pieces)
        return bodies.media_of_pieces(values["pieces"], json=all(json for _, json in pieces))
    if "form" in values:
        values["body"] = bodies.encode_form(values.pop("form"))
        return bodies.FORM
    if "multipart" in values:
        parts = [(name, part) for name, parts in values.pop("multipart").items() for part in parts]
        values["body"], media = bodies.encode_multipart(parts)
        return media
    if "text" in values:
        values["body"] = values.pop("text").encode()
        return bodies.TEXT
    if "file" in values:
        path, values["body"] = values.pop("file")
        return bodies.media_of(path)
    if "body" in values:
        values["body"] = to_json(values["body"])
        return bodies.JSON
    return ""


_ACCEPT: Final = {
    "sse": bodies.EVENTS,
    "ndjson": bodies.NDJSON,
    "json": bodies.JSON,
    "text": "text/plain",
    "csv": "text/csv",
}


def _check_request(reader: SettingsReader, node: nodes.Mapping, values: dict[str, Any], name: str) -> bool:
    assert isinstance(reader, TestFileReader)
    path, values["bind"] = values.get("path", ("/", None))
    values["path"] = path
    if not path.startswith("/"):
        where = node.get("path") or node
        reader.refuse(where.mark, f"the path `{path}` does not begin with `/`", "write the path alone: /api/orders")
        return False
    if not reader.choose(node, _BODIES, name):
        return False
    try:
        media = _encode_request(values)
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        reader.refuse(node.mark, f"`{name}`: the body can't be sent: {error}")
        return False
    opens, sent = values.pop("websocket", False), values.pop("send", None)
    if opens or sent is not None:
        values["messages"] = _make_messages(sent or ())
        if values.get("method", "GET") != "GET":
            where = node.get("method") or node
            reader.refuse(where.mark, f"`{name}`: a WebSocket is opened with GET", "remove `method`")
            return False
    has_body = values.get("body") is not None or values.get("pieces") is not None
    values.setdefault("method", "POST" if has_body else "GET")
    headers = dict(values.get("headers", {}))
    if accept := values.pop("accept", ""):
        headers["Accept"] = (_ACCEPT.get(accept, accept),)
    values["headers"] = _lines_of(headers, media)
    return True


_REQUEST: Final = Group(
    (
        Field("method", _METHOD, "HTTP method. Default: `POST` if there is a body, else `GET`."),
        Field(
            "path",
            _PATH,
            "Path of the request. It may hold a query string, and bindings that read `answers`: the answers of the "
            "requests before, each with `status`, `headers`, `body`, `chunks` and `done`.",
            required=True,
            example="/api/orders",
        ),
        Field("query", Named(_DATA), "Query parameters by name. A list repeats its name."),
        Field("headers", _HEADERS, "Headers by name. A list repeats its name."),
        Field("body", _DATA, "Body: a value that is sent as JSON."),
        Field("form", Named(_DATA), "Body: the fields of a form, URL-encoded."),
        Field("multipart", Named(ListOf(_PART, alone=True)), "Body: the fields and files of a multipart form."),
        Field("text", _TEXT, "Body: a text, sent as it is."),
        Field("file", _FILE, "Body: a file, relative to the test file."),
        Field("chunks", _PIECES, "Body: pieces that are sent one after the other, or a file with a list of them."),
        Field("websocket", _FLAG, "Open a WebSocket.", default=False),
        Field("send", _PIECES, "Messages to send over a WebSocket, which is opened, or a file with a list of them."),
        Field("auth", Named(_DATA), "Claims of a token that is minted for the endpoint's authentication."),
        Field("accept", _TEXT, "Header `Accept`: `sse`, `ndjson`, `json`, `text`, `csv`, or a media type."),
    ),
    make=_maker(CaseRequest),
    check=_check_request,
    named=True,
    example="{path: /api/orders}",
)

# --------------------------------------------------------------------------------------- upstreams

_UNITS: Final = ("events", "chunks", "bytes", "characters")


def _check_place(reader: SettingsReader, node: nodes.Mapping, values: dict[str, Any], name: str) -> bool:
    assert isinstance(reader, TestFileReader)
    if not reader.choose(node, _UNITS, name, required=True):
        return False
    unit = next((each for each in _UNITS if each in values), "")
    if not unit:  # its number was reported
        return False
    values["unit"], values["count"] = unit, values.pop(unit)
    return True


_PLACE: Final = Group(
    (
        *(Field(unit, _COUNT, f"Number of {unit}.") for unit in _UNITS),
        Field("inside", Constant(choices=("event", "character")), "Stop inside the next event, or inside a character."),
    ),
    make=Place,
    check=_check_place,
    example="{events: 2}",
)
_USAGE: Final = (
    Field("inputTokens", _COUNT, "Tokens of the prompt."),
    Field("outputTokens", _COUNT, "Tokens of the answer."),
)
_TOOL_CALL: Final = (
    Field("name", _WORD, "Name of the tool.", required=True, example="search"),
    Field("arguments", Named(_DATA), "Arguments of the call."),
    Field("id", _TEXT, "Id of the call."),
)
_MODEL: Final = Group(
    (
        Field("text", _TEXT, "Text of the answer."),
        Field("by", Constant(choices=("words", "characters")), "Unit that the text is sent in.", default="words"),
        Field("size", Constant(Kind.INTEGER, minimum=1), "Number of units in a piece.", default=1),
        Field("reasoning", _TEXT, "Reasoning before the answer."),
        Field("toolCalls", ListOf(Group(_TOOL_CALL)), "Tools that the model calls."),
        Field("usage", Group(_USAGE, make=lambda **used: _camel(used)), "Tokens that are reported."),
        Field("finishReason", _TEXT, "Why the answer ends. Default: the provider's word for its end, or for a call."),
        Field("firstAfter", _DURATION, "Time to the first piece.", default=0.0),
        Field("every", _DURATION, "Time between pieces.", default=0.0),
    ),
    make=ModelAnswer,
    short="text",
    example="{text: Hello world}",
)
_ANSWERS: Final = ("body", "json", "file", "chunks", "events", "model", "messages")


def _camel(used: dict[str, int]) -> dict[str, int]:
    names = {"input_tokens": "inputTokens", "output_tokens": "outputTokens"}
    return {names[name]: count for name, count in used.items()}


def _make_messages(pieces: Iterable[tuple[Piece, bool]]) -> tuple[Piece, ...]:
    """Return pieces as messages: the line break of a line of JSON has no meaning there."""
    return tuple(replace(piece, data=piece.data[:-1]) if json else piece for piece, json in pieces)


def _encode_answer(values: dict[str, Any]) -> str:
    """Replace what was written by ``body``, ``pieces`` or ``messages``; return the Content-Type."""
    if "chunks" in values:
        chunks = values.pop("chunks")
        values["pieces"] = tuple(piece for piece, _ in chunks)
        return bodies.media_of_pieces(values["pieces"], json=all(json for _, json in chunks))
    if "events" in values:
        pause = values.pop("delay", 0.0)
        events = values.pop("events")
        values["pieces"] = tuple(replace(each, after=each.after or pause) for each in events)
        return bodies.EVENTS
    if "messages" in values:
        values["messages"] = _make_messages(values["messages"])
        return ""
    if "file" in values:
        path, values["body"] = values.pop("file")
        return bodies.media_of(path)
    body = values.pop("json", MISSING)
    if body is MISSING and isinstance(values.get("body"), str):
        values["body"] = values["body"].encode()
        return bodies.TEXT
    if body is not MISSING or "body" in values:
        values["body"] = to_json(values["body"] if body is MISSING else body)
        return bodies.JSON
    return ""


def _check_respond(reader: SettingsReader, node: nodes.Mapping, values: dict[str, Any], name: str) -> bool:
    assert isinstance(reader, TestFileReader)
    if not reader.choose(node, _ANSWERS, name) or not reader.choose(node, ("cutAfter", "stallAfter"), name):
        return False
    try:
        media = _encode_answer(values)
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        reader.refuse(node.mark, f"`{name}`: the body can't be sent: {error}")
        return False
    values["headers"] = _lines_of(values.get("headers", {}), media)
    return True


_RESPOND: Final = Group(
    (
        Field("status", _STATUS, "HTTP status.", default=200),
        Field("headers", _HEADERS, "Response headers by name. A list repeats its name."),
        Field("body", _DATA, "Body: a text, sent as it is, or a value that is sent as JSON."),
        Field("json", _DATA, "Body: a value that is sent as JSON, a text too."),
        Field("file", _FILE, "Body: a file, relative to the test file."),
        Field("chunks", _PIECES, "Body: pieces that are sent one after the other, or a file with a list of them."),
        Field("events", ListOf(_EVENT), "Body: Server-Sent Events."),
        Field("model", _MODEL, "A model's answer, in the protocol of the provider that is asked."),
        Field("messages", _PIECES, "What a WebSocket sends, or a file with a list of it."),
        Field("delay", _DURATION, "Time between the events or lines of the body.", default=0.0),
        Field("firstAfter", _DURATION, "Time before the response begins.", default=0.0),
        Field("cutAfter", _PLACE, "Where the connection ends, without the end of the body."),
        Field("stallAfter", _PLACE, "Where nothing more is sent, though the connection stays open."),
        Field("reset", _FLAG, "Cut by a reset of the connection.", default=False),
        Field("refuse", _FLAG, "Refuse the connection.", default=False),
    ),
    make=_maker(Respond),
    check=_check_respond,
    named=True,
    example="{status: 200}",
)
_MATCH: Final = Group(
    (
        Field("method", _METHOD, "HTTP method."),
        Field("url", _URL, "URL. `*` stands for any text."),
        Field("headers", _EXPECTED_HEADERS, "Headers that the request has, by name."),
        Field("body", _VALUE, "Keys and values that the JSON body has, or the text of the body."),
    ),
    make=Match,
    short="url",
)


def _check_upstream(reader: SettingsReader, node: nodes.Mapping, values: dict[str, Any], name: str) -> bool:
    assert isinstance(reader, TestFileReader)
    if not reader.choose(node, ("match", "url"), name, required=True):
        return False
    url, method = values.pop("url", None), values.pop("method", None)
    if "match" in values and method is not None:
        where = node.key("method") or node
        reader.refuse(where.mark, f"`{name}`: `method` belongs below `match`", code="conflicting-parameters")
        return False
    if "match" not in values:
        if url is None:  # was reported
            return False
        values["match"] = Match(method, url)
    return True


def _make_upstream(mark: Mark, name: str, match: Match, respond: tuple[Respond, ...] = ()) -> Upstream:
    del name
    return Upstream(mark, match, respond or (Respond(mark),))


_UPSTREAM: Final = Group(
    (
        Field("match", _MATCH, "Requests that the upstream answers."),
        Field("url", _URL, "Short for `match: {url: ...}`."),
        Field("method", _METHOD, "Short for `match: {method: ...}`, beside `url`."),
        Field("respond", ListOf(_RESPOND, alone=True), "Response, or a list of one for each call."),
    ),
    make=_make_upstream,
    check=_check_upstream,
    named=True,
    example="{url: https://api.example.com/v1/items, respond: {status: 200}}",
)

# ------------------------------------------------------------------------------------ expectations


def _read_chunks(reader: SettingsReader, node: Node, name: str) -> Any:
    """Return what each chunk is expected to be, as {content, event, id, metadata, at}; a binding for all of them."""
    assert isinstance(reader, TestFileReader)
    if isinstance(node, Sequence):
        return [_read_chunk(reader, item, name) for item in node.items]
    return _whole(reader, node, name)


def _read_list(reader: SettingsReader, node: Node, name: str) -> Any:
    assert isinstance(reader, TestFileReader)
    return reader.expected(node) if isinstance(node, Sequence) else _whole(reader, node, name)


def _whole(reader: TestFileReader, node: Node, name: str) -> Any:
    """Return a binding in the place of a list; None where the list is to be written by `--update`."""
    if isinstance(node, Scalar) and node.value == UPDATE:
        return None
    found = reader.expected(node)
    if isinstance(found, Expected):
        return found
    reader.refuse(node.mark, f"`{name}` must be a list", f"write a list, or `{UPDATE}` for `streamstack test --update`")
    return MISSING


def _read_chunk(reader: TestFileReader, node: Node, name: str) -> Any:
    keys = {key.text for key, _ in node.items} if isinstance(node, nodes.Mapping) else set()
    found = reader.expected(node)
    if not keys or not keys <= CHUNK_KEYS:
        return {"content": found}
    at = found.get("at")
    if at is not None and not isinstance(at, Expected):
        place = node.get("at") if isinstance(node, nodes.Mapping) else None
        found["at"] = reader.read(_DURATION, place or node, f"{name}.at")
    return found


#: What a chunk is expected with; a mapping with other keys is its content.
CHUNK_KEYS: Final = frozenset({"content", "event", "id", "metadata", "at"})
_ERROR: Final = (
    Field("code", _VALUE, "Code of the error."),
    Field("message", _VALUE, "Message of the error."),
    Field("status", _VALUE, "HTTP status of the error."),
    Field("details", _VALUE, "Further members of the error response."),
)


def _read_error(reader: SettingsReader, node: Node, name: str) -> Any:
    """Return the expected members of an error; false: none is expected."""
    assert isinstance(reader, TestFileReader)
    if isinstance(node, nodes.Mapping):
        return reader.values(_ERROR, node, name)
    if isinstance(node, Scalar):
        if type(node.value) is bool:
            return {} if node.value else False
        return {"code": reader.expected(node)}
    reader.refuse(node.mark, f"`{name}` must be a code or a mapping", "write `error: stream-lost`")
    return MISSING


def _read_log(reader: SettingsReader, node: Node, _: str) -> Any:
    assert isinstance(reader, TestFileReader)
    found = reader.expected(node)
    return found if isinstance(found, dict) else {"message": found}


_TASKS: Final = "true, a name or a list of names"


def _read_tasks(reader: SettingsReader, node: Node, name: str) -> Any:
    if is_null(node):
        return False
    value = reader.read(_FLAG, node, name) if isinstance(node, Scalar) and isinstance(node.value, bool) else None
    return reader.read(ListOf(_WORD, alone=True), node, name) if value is None else value


_LIST_OR_BINDING: Final = {"type": ["array", "string", "null"], "items": {"$ref": "#/definitions/value"}}
_CALL: Final = Group(
    (
        Field("url", _URL, "URL that was called. `*` stands for any text.", required=True, example="https://..."),
        Field("method", _METHOD, "HTTP method."),
        Field("count", _COUNT, "Number of calls. Default: at least one."),
        Field("headers", _EXPECTED_HEADERS, "Headers of the request. null: the header is absent."),
        Field("body", _VALUE, "Keys and values that the JSON body has, or the text of the body."),
        Field("closedEarly", _FLAG, "Whether the server closed the connection before the response had ended."),
    ),
    make=_maker(ExpectedCall),
    short="url",
    named=True,
)
_ROWS: Final = Group(
    (
        Field("sql", _WORD, "Query, which is sent when the test is over.", required=True, example="SELECT ..."),
        Field("rows", Custom(_LIST_OR_BINDING, "list or binding", _read_list), "Rows it returns.", required=True),
        Field("database", _WORD, "Name of the database. Default: the only one."),
    ),
    make=_maker(ExpectedRows),
    named=True,
    example="{sql: SELECT count(*) AS n FROM messages, rows: [{n: 1}]}",
)


#: The names of parts that Python writes otherwise.
_MAIL_NAMES: Final = {"from_": "from", "reply_to": "replyTo"}


def _make_mail(mark: Mark, name: str, **parts: Any) -> ExpectedMail:
    del name
    return ExpectedMail(mark, {_MAIL_NAMES.get(key, key): each for key, each in parts.items()})


_MAIL: Final = Group(
    (
        Field("to", _VALUE, "Recipients: `ada@example.org`, `Ada <ada@example.org>`, or a list of several."),
        Field("cc", _VALUE, "Further recipients, written in the same way."),
        Field("bcc", _VALUE, "Addresses of further recipients that the others do not see."),
        Field("replyTo", _VALUE, "Where replies go."),
        Field("from", _VALUE, "Sender."),
        Field("subject", _VALUE, "Subject."),
        Field("text", _VALUE, "Body as plain text."),
        Field("html", _VALUE, "Body as HTML."),
        Field("attachments", _VALUE, "Attachments, each with some of `filename`, `contentType` and `content`."),
        Field("headers", _VALUE, "Header fields by name."),
    ),
    make=_make_mail,
    named=True,
    example="{to: ada@example.org, subject: Welcome}",
)


def _make_message(mark: Mark, name: str, **parts: Any) -> ExpectedMessage:
    del name
    return ExpectedMessage(mark, parts)


_MESSAGE: Final = Group(
    (
        Field("channel", _VALUE, "Name of the channel."),
        Field("content", _VALUE, "Content."),
        Field("event", _VALUE, "Event name. null: it has none."),
        Field("key", _VALUE, "Key."),
    ),
    make=_make_message,
    named=True,
    example="{channel: room-1, content: hello}",
)
_PUBLICATION: Final = Group(
    (
        Field("channel", _WORD, "Name of the channel.", required=True, example="room-1"),
        Field("content", _DATA, "Content."),
        Field("event", _WORD, "Event name."),
        Field("key", _DATA, "Key."),
        Field("after", _DURATION, "Time after the previous message; of the first one, after the request.", default=0.0),
    ),
    make=_maker(Publication),
    named=True,
    example="{channel: room-1, content: hello}",
)


def _check_expect(reader: SettingsReader, node: nodes.Mapping, values: dict[str, Any], name: str) -> bool:
    del reader, name
    values["marks"] = marks = {key.text: key.mark for key, _ in node.items}
    for key, value in node.items:
        if key.text == "chunks" and isinstance(value, nodes.Sequence):
            for index, chunk in enumerate(value.items):
                marks[f"chunks.{index}"] = chunk.mark
                if isinstance(chunk, nodes.Mapping):
                    marks |= {f"chunks.{index}.{inner.text}": inner.mark for inner, _ in chunk.items}
    return True


_EXPECT: Final = Group(
    (
        Field("status", _STATUS, "HTTP status."),
        Field("headers", _EXPECTED_HEADERS, "Response headers by name. null: the header must be absent."),
        Field("text", _VALUE, "Contents of all chunks, joined."),
        Field("body", _VALUE, "Body of the response: its text, or the value of a JSON one."),
        Field(
            "chunks",
            Custom(_LIST_OR_BINDING, "list or binding", _read_chunks),
            "Chunks in order: contents, or mappings with some of `content`, `event`, `id`, `metadata` and `at`, the "
            "time since the request was sent. A binding for all of them reads the list of contents. "
            "`update` is replaced by `streamstack test --update`.",
        ),
        Field("events", Custom(_LIST_OR_BINDING, "list or binding", _read_list), "Names of the events, in order."),
        Field(
            "error",
            Custom({"type": ["object", "string", "boolean", "null"]}, "code, mapping or false", _read_error),
            "Error that ends the run: its code, or a mapping with some of `code`, `message`, `status`, `details`.",
        ),
        Field("done", _VALUE, "End marker: its metadata, or whether there is one."),
        Field("close", _VALUE, "Close code of a WebSocket, such as 1000."),
        Field("streamed", _FLAG, "Whether the first chunk left before the last upstream's response had ended."),
        Field("elapsed", _DURATION, "Time from the request to the end of the response."),
        Field("outcome", Constant(choices=("completed", "failed", "cancelled")), "Outcome of the run."),
        Field("calls", ListOf(_CALL, alone=True), "Calls of upstreams, in order."),
        Field("database", ListOf(_ROWS, alone=True), "Rows in the databases when the test is over."),
        Field("mails", ListOf(_MAIL, alone=True), "All mails that were sent, in order. None is delivered."),
        Field("published", ListOf(_MESSAGE, alone=True), "Messages that definitions published to channels, in order."),
        Field(
            "log",
            ListOf(Custom({"type": ["string", "object"]}, "text or mapping", _read_log), alone=True),
            "Lines that are logged: messages, or mappings with some of their fields.",
        ),
    ),
    make=_maker(Expect),
    check=_check_expect,
    named=True,
    example="{status: 200}",
)

# ------------------------------------------------------------------------------------------- tests


def _check_client(reader: SettingsReader, node: nodes.Mapping, _: dict[str, Any], name: str) -> bool:
    assert isinstance(reader, TestFileReader)
    return reader.choose(node, ("leaveAfter", "stopAfter", "resumeAfter"), name)


_CLIENT: Final = Group(
    (
        Field("leaveAfter", _COUNT, "Close the connection after this number of chunks. 0: once the request is sent."),
        Field("stopAfter", _COUNT, "Cancel the stream after this number of chunks, and read on."),
        Field("resumeAfter", _COUNT, "Close the connection after this number of chunks, and resume the stream."),
        Field(
            "rating",
            Group(
                (
                    Field("rating", _DATA, "Rating: 1 to 5, or `up` or `down`.", required=True, example="5"),
                    Field("comment", Constant(Kind.PROSE), "Comment."),
                ),
                short="rating",
            ),
            "Rate the run once the response has come. The settings need `ratings`.",
        ),
        Field("readDelay", _DURATION, "Time between two reads.", default=0.0),
        Field("closeAfter", _DURATION, "Close the WebSocket this long after the last message was sent."),
        Field("background", _FLAG, "Send the next of the `requests` while this response is still read.", default=False),
    ),
    make=CaseClient,
    check=_check_client,
    example="{leaveAfter: 1}",
)
_SQL: Final = Field("sql", _WORD, "SQL that is run before the request.")
#: What an exchange does: exactly one of these.
_TURNS: Final = ("request", "task", "wait")
#: What is expected of a task, which has no response.
_OF_TASKS: Final = frozenset({"error", "outcome", "elapsed", "calls", "database", "mails", "log"})


def _make_turn(mark: Mark, name: str, **values: Any) -> CaseRequest:
    task = values.pop("name_of_task", "")
    return CaseRequest(mark, name.upper(), task, turn=CaseTurn(task, **values))


_EXCHANGE: Final = (
    Field("request", _REQUEST, "Request to send."),
    Field(
        "task",
        Group(
            (
                Field("name", _WORD, "Name of the task.", required=True, attribute="name_of_task", example="cleanup"),
                Field("at", Constant(parse=_time), "Time of the tick, `run.tick`. Default: the present time."),
                Field("event", _DATA, "Message that starts the task, `run.event`."),
            ),
            make=_make_turn,
            short="name",
            named=True,
        ),
        "Task to run, in place of a request.",
    ),
    Field(
        "wait",
        Group(
            (Field("for", _DURATION, "Time.", required=True, attribute="wait"),),
            make=_make_turn,
            short="for",
            named=True,
        ),
        "Time to wait, in place of a request: tasks run meanwhile, with `tasks`.",
    ),
    Field("client", _CLIENT, "How the client behaves. Default: it reads the whole response at once."),
    Field(
        "publish",
        ListOf(_PUBLICATION, alone=True),
        "Messages that the test publishes to channels once the request has been sent.",
    ),
    Field("expect", _EXPECT, "What the response and its effects are expected to be."),
)
_DEFAULTS: Final = (
    Field("env", _TEXTS, "Environment variables."),
    Field("upstreams", ListOf(_UPSTREAM), "Upstreams, which take the place of the hosts that definitions call."),
    Field("rows", Named(ListOf(Named(_DATA), alone=True)), "Rows in the database before the test, by table."),
    Field("sql", _WORD, "SQL that is run before the test."),
    Field("now", Constant(parse=_time), f"Time at which the test begins: {TIMESTAMP_EXAMPLE}."),
    Field("seed", Constant(Kind.INTEGER), "Seed of random values."),
    Field(
        "tasks",
        Custom({"type": ["boolean", "string", "array", "null"], "items": {"type": "string"}}, _TASKS, _read_tasks),
        "Tasks that run on their schedules during the test: `true` for all of the project, or their names.",
    ),
    Field("experiments", Named(_WORD), "The variant that every caller gets, by the name of the experiment."),
    Field(
        "time",
        Constant(choices=("virtual", "real")),
        "Clock: a virtual one passes waits at once, at exact times. Default: `virtual`.",
    ),
    Field(
        "faults",
        Custom(
            {"type": ["string", "boolean", "array", "null"], "items": {"enum": list(FAULTS)}},
            f"`all`, `off`, or list of: {listed(f'`{each}`' for each in FAULTS)}",
            _read_faults,
        ),
        "Faults to inject once the test has passed.",
    ),
)


def _check_turn(reader: SettingsReader, node: nodes.Mapping, values: dict[str, Any], name: str) -> bool:
    """Check that there is one thing to do, and that what is expected belongs to it."""
    assert isinstance(reader, TestFileReader)
    if not reader.choose(node, _TURNS, name, required=True):
        return False
    expect = values.get("expect")
    if isinstance(expect, Expect) and is_null(node.get("request")):
        for key, mark in expect.marks.items():
            if key not in _OF_TASKS:
                hint = f"expect {listed(f'`{each}`' for each in sorted(_OF_TASKS))}"
                reader.refuse(
                    mark, f"`{key}` belongs to a response, which tasks and waits do not have", hint, "no-effect"
                )
    return True


def _check_listed(reader: SettingsReader, node: nodes.Mapping, values: dict[str, Any], name: str) -> bool:
    return _check_expect(reader, node, values, name) and _check_turn(reader, node, values, name)


def _check_test(reader: SettingsReader, node: nodes.Mapping, values: dict[str, Any], name: str) -> bool:
    assert isinstance(reader, TestFileReader)
    values["node"] = node
    if not reader.choose(node, ("request", "requests", "task", "wait"), name, required=True):
        return False
    if is_null(node.get("requests")):
        return _check_turn(reader, node, values, name)
    for key, value in node.items:
        if key.text in ("client", "publish", "expect") and not is_null(value):
            message = f"`{key.text}` belongs to each of the `requests`"
            reader.refuse(key.mark, message, "move it below its request", "conflicting-parameters")
    return True


_TEST: Final = Group(
    (
        Field("name", Constant(Kind.PROSE), "Name of the test.", required=True, example="streams the answer"),
        *_EXCHANGE,
        Field(
            "requests",
            ListOf(Group((*_EXCHANGE, _SQL), check=_check_listed)),
            "Several requests, tasks and waits, one after the other, in the place of `request`.",
        ),
        *_DEFAULTS,
    ),
    check=_check_test,
    example="{name: ..., request: {path: /api/orders}, expect: {status: 200}}",
)
#: The keys of a test file.
TESTS: Final = (
    Field("tests", ListOf(_TEST), "Tests.", required=True, example="[{name: ..., request: ..., expect: ...}]"),
    *(replace(each, description=f"Default of the tests: {each.description}") for each in _DEFAULTS),
)
_TEST_FILE: Final = Group(TESTS)


def read_test_file(path: Path, name: str, text: str, project: Path | None = None) -> tuple[CaseFile, list[Diagnostic]]:
    """Read the tests of a file. Where findings are errors, the tests are incomplete: they can't be run.

    Nothing is raised, whatever the text.

    Args:
        path: The file, whose folder the names of other files are relative to.
        name: Its name in findings.
        text: Its content.
        project: The folder that other files have to be in. Default: that of the test file.
    """
    documents, findings = read(text, name)
    if not documents and not findings:
        message = "a test file requires `tests`, and this one is empty"
        findings.append(make_diagnostic("missing-parameter", Mark(name, 1, 1), message, "write `tests: [...]`"))
    tests: list[Case] = []
    for document in documents:
        if not isinstance(document.root, nodes.Mapping):
            message = "a test file must be a mapping"
            findings.append(make_diagnostic("not-a-mapping", document.root.mark, message, "write `tests: [...]`"))
            continue
        values = TestFileReader(findings, path.parent, project or path.parent).read(_TEST_FILE, document.root, "")
        if values is not MISSING:
            tests += [_case(values, each) for each in values["tests"] if _is_whole(each)]
    findings += _repeated_names(tests)
    return CaseFile(path, text, tuple(tests)), sorted(set(findings))


def _is_whole(test: dict[str, Any]) -> bool:
    """Return whether a test, which may have findings, can be made a `Case`."""
    exchanges = test.get("requests", (test,))
    return "name" in test and all(_request_of(each) is not None for each in exchanges)


def _request_of(values: Mapping[str, Any]) -> CaseRequest | None:
    found = (values.get(each) for each in _TURNS)
    return next((each for each in found if isinstance(each, CaseRequest)), None)


def _case(defaults: Mapping[str, Any], test: dict[str, Any]) -> Case:
    node: nodes.Mapping = test["node"]
    environment = test["environment"]
    environment.update({**defaults.get("env", {}), **test.get("env", {})})
    tables = [each.get("rows", {}) for each in (defaults, test)]
    rows = {table: sum((each.get(table, ()) for each in tables), ()) for each in tables for table in each}
    merged = {**defaults, **test}
    return Case(
        name=test["name"],
        mark=node.mark,
        node=node,
        exchanges=tuple(_exchange(each, node) for each in test.get("requests", (test,))),
        upstreams=(*test.get("upstreams", ()), *defaults.get("upstreams", ())),
        env=environment,
        rows=rows,
        sql="\n".join(each["sql"] for each in (defaults, test) if "sql" in each),
        now=merged.get("now"),
        seed=merged.get("seed", 0),
        real_time=merged.get("time") == "real",
        tasks=merged.get("tasks", False),
        experiments={**defaults.get("experiments", {}), **test.get("experiments", {})},
        faults=merged.get("faults"),
    )


def _exchange(values: Mapping[str, Any], node: nodes.Mapping) -> Exchange:
    expect = values.get("expect")
    # The SQL of a test that is its only request is the test's.
    sql = "" if "name" in values else values.get("sql", "")
    request = _request_of(values)
    assert request is not None
    client, publish = values.get("client", CaseClient()), values.get("publish", ())
    return Exchange(request, client, expect or Expect(node.mark), sql, publish)


def _repeated_names(tests: list[Case]) -> list[Diagnostic]:
    first: dict[str, Case] = {}
    return [
        make_diagnostic("duplicate-name", each.mark, f"the test `{each.name}` is at line {other.mark.line} too")
        for each in tests
        if (other := first.setdefault(each.name, each)) is not each
    ]
