"""The keys of documents, of declared inputs, of rate limits and of steps: each declared once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streamstack.language.definition import InputRules
from streamstack.language.findings import FINDINGS
from streamstack.language.kinds import Kind
from streamstack.language.names import DEFINITION
from streamstack.language.settings import Streaming
from streamstack.language.values import (
    ALGORITHMS,
    TIMESTAMP_EXAMPLE,
    parse_date,
    parse_email,
    parse_timestamp,
    parse_url,
    parse_uuid,
)
from streamstack.spec import (
    Bound,
    Condition,
    Constant,
    Custom,
    Field,
    Group,
    ListOf,
    Named,
    Nesting,
    SchemaOf,
    StackOf,
    Type,
    Variable,
    group_of,
)

_PROSE: Final = Constant(Kind.PROSE)
_FLAG: Final = Constant(Kind.BOOLEAN)
_WORDS: Final = ListOf(_PROSE)
_COUNT: Final = Constant(Kind.INTEGER, minimum=0)
_INPUTS: Final = Custom(
    {
        "type": ["object", "null"],
        "propertyNames": {"not": {"pattern": "<<|>>"}},
        "additionalProperties": {"$ref": "#/definitions/input"},
    },
    "mapping from names to declarations",
)
_ALLOW: Final = ListOf(Constant(choices=tuple(FINDINGS)))

# ------------------------------------------------------------------------------------------- steps

RETRY: Final = (
    Field("times", Constant(Kind.INTEGER, minimum=1, maximum=1000), "Number of retries.", required=True),
    Field("delay", Constant(Kind.DURATION), "Delay before the first retry.", default=1.0),
    Field(
        "backoff",
        Constant(choices=("fixed", "exponential")),
        "Whether the delay stays the same or doubles with each retry.",
        default="exponential",
    ),
    Field("maxDelay", Constant(Kind.DURATION), "Maximum delay.", default=30.0),
    Field("jitter", _FLAG, "Randomize each delay between 0 and its full length.", default=True),
    Field(
        "on", ListOf(Constant()), "Error codes that are retried. Default: all but `invalid-input` and your own codes."
    ),
)
#: What may stand beside a step's function.
MODIFIERS: Final = (
    Field("name", Constant(), "Name of the step in traces, errors and the graph."),
    Field("description", Constant(), "Description of the step."),
    Field("as", Variable(), "Variable that receives the result.", attribute="result"),
    Field("when", Condition(), "Run the step only if this is true. A skipped step sets its `as` to null."),
    Field("timeout", Bound(Kind.DURATION), "Time-out of the step, which then fails with the error `timeout`."),
    Field("retry", Group(RETRY), "Retry the step when it fails. A step that has emitted chunks is not retried."),
    Field("disabled", _FLAG, "Skip the step. It is still validated.", default=False),
    Field("allow", _ALLOW, "Codes of findings to silence at this step."),
)
#: Their names.
MODIFIER_NAMES: Final = frozenset(modifier.name for modifier in MODIFIERS)

# ------------------------------------------------------------------------------------------ inputs


@dataclass(frozen=True, slots=True)
class InputType:
    """A type of inputs.

    Args:
        description: Description in the reference and in editors.
        schema: JSON Schema, which is sent to models for functions that they may call.
        phrase: Description of a value in messages, for types that are written as text.
        parse: Parses such a text; returns None if it is invalid.
        raw: Whether it is not JSON: a file, a stream.
    """

    description: str
    schema: Mapping[str, Any] = field(default_factory=dict)
    phrase: str = ""
    parse: Callable[[str], Any] | None = None
    raw: bool = False


#: The types of inputs.
TYPES: Final[Mapping[str, InputType]] = {
    "text": InputType("Text.", {"type": "string"}),
    "integer": InputType("An integer.", {"type": "integer"}),
    "decimal": InputType("A decimal number, without rounding.", {"type": "number"}),
    "boolean": InputType("true or false.", {"type": "boolean"}),
    "timestamp": InputType(
        "A timestamp in RFC 3339: 2026-01-31T12:00:00Z.",
        {"type": "string", "format": "date-time"},
        f"a timestamp like {TIMESTAMP_EXAMPLE}",
        parse_timestamp,
    ),
    "date": InputType(
        "A date: 2026-01-31.", {"type": "string", "format": "date"}, "a date like 2026-01-31", parse_date
    ),
    "uuid": InputType("A UUID.", {"type": "string", "format": "uuid"}, "a UUID", parse_uuid),
    "email": InputType("An e-mail address.", {"type": "string", "format": "email"}, "an e-mail address", parse_email),
    "url": InputType(
        "An absolute URL.", {"type": "string", "format": "uri"}, "a URL like https://example.com/", parse_url
    ),
    "object": InputType("An object; `properties` declares its properties.", {"type": "object"}),
    "list": InputType("A list; `items` declares its items.", {"type": "array"}),
    "enum": InputType("One of `values`."),
    "json": InputType("Any JSON value."),
    "file": InputType("An uploaded file.", raw=True),
    "stream": InputType("The request body, read as it arrives.", raw=True),
}
FILTERS: Final = ("trim", "lower", "upper")
#: The types that are written as text, to which filters can be applied.
TEXT_LIKE: Final = ("text", "email", "url", "uuid", "enum", "timestamp", "date")
_LOCATIONS: Final = ("path", "query", "body", "header", "cookie", "wholeBody")
#: What the items of a stream may be, and what becomes of one that can't be decoded.
_STREAM_FORMATS: Final = ("ndjson", "sse", "csv", "json", "lines", "text", "bytes")
_ON_INVALID: Final = ("fail", "skip", "give")
_NUMBER: Final = Custom({"type": ["number", "null"]}, "number")

#: The keys that every declaration may have.
INPUT_KEYS: Final = (
    Field("type", Constant(choices=tuple(TYPES)), "Type of the input."),
    Field("required", _FLAG, "Whether the input is required.", default=False),
    Field("default", Custom({}), "Value to use if the client does not send the input."),
    Field("nullable", _FLAG, "Whether null is allowed.", default=False),
    Field("description", _PROSE, "Description.", default=""),
    Field(
        "in",
        Constant(choices=_LOCATIONS),
        "Where the client sends the input. Default: the path if it contains the name, otherwise the query string "
        "(GET, HEAD, DELETE) or the body.",
        attribute="location",
    ),
    Field("aliases", _WORDS, "Other accepted names."),
    Field("sensitive", _FLAG, "Exclude the value from logs.", default=False),
)


def _constraint(name: str, type_: Type, description: str, *types: str, default: Any = None) -> Field:
    CONSTRAINTS[name] = types
    return Field(name, type_, f"{description} For {' and '.join(types)}.", default=default)


#: The types each constraint belongs to.
CONSTRAINTS: Final[dict[str, tuple[str, ...]]] = {}
#: The keys that belong to some types.
INPUT_CONSTRAINTS: Final = (
    _constraint("minLength", _COUNT, "Minimum number of characters.", "text"),
    _constraint("maxLength", _COUNT, "Maximum number of characters.", "text"),
    _constraint("pattern", _PROSE, "Regular expression that must match somewhere in the text.", "text"),
    _constraint("filters", ListOf(Constant(choices=FILTERS)), "Transformations applied before validation.", *TEXT_LIKE),
    _constraint("minimum", _NUMBER, "Minimum value.", "integer", "decimal"),
    _constraint("maximum", _NUMBER, "Maximum value.", "integer", "decimal"),
    _constraint(
        "values",
        Custom({"type": ["array", "null"], "minItems": 1, "uniqueItems": True}, "list"),
        "Allowed values.",
        "enum",
    ),
    _constraint("properties", _INPUTS, "Declarations of the object's properties, by name.", "object"),
    _constraint(
        "items",
        Custom({"allOf": [{"$ref": "#/definitions/input"}]}, "declaration"),
        "Declaration of the items.",
        "list",
    ),
    _constraint("minItems", _COUNT, "Minimum number of items.", "list"),
    _constraint("maxItems", _COUNT, "Maximum number of items.", "list"),
    _constraint("maxSize", Constant(Kind.SIZE), "Maximum size.", "file", "stream"),
    _constraint("contentTypes", _WORDS, "Allowed content types.", "file"),
    _constraint(
        "decode",
        Constant(choices=_STREAM_FORMATS),
        "Format of the stream's items. Default: chosen by the Content-Type.",
        "stream",
    ),
    _constraint(
        "onInvalid",
        Constant(choices=_ON_INVALID),
        "What to do with an item that can't be decoded: `fail` the run, `skip` it, or `give` it as an error item.",
        "stream",
    ),
    _constraint("schema", SchemaOf(), "JSON Schema (2020-12) that the value must match.", "json"),
)
#: What other languages call our types.
COMMON_TYPES: Final = {
    "string": "text",
    "str": "text",
    "int": "integer",
    "float": "decimal",
    "double": "decimal",
    "number": "decimal",
    "bool": "boolean",
    "datetime": "timestamp",
    "array": "list",
    "dict": "object",
    "map": "object",
    "any": "json",
}
#: What other languages call our keys: the one that belongs to the type is meant.
COMMON_KEYS: Final = {
    "min": ("minimum", "minLength", "minItems"),
    "max": ("maximum", "maxLength", "maxItems"),
    "optional": ("required",),
    "regex": ("pattern",),
    "regexp": ("pattern",),
    "enum": ("values",),
    "options": ("values",),
    "choices": ("values",),
}


def constraints_of(type_: str) -> tuple[str, ...]:
    """Return the constraints that belong to a type."""
    return tuple(name for name, types in CONSTRAINTS.items() if type_ in types)


# --------------------------------------------------------------------------- rate limits, authentication

#: A rate limit.
LIMIT: Final = (
    Field("limit", Bound(Kind.RATE), "Maximum number of requests in a time: 60/minute, 20/10s."),
    Field(
        "by",
        Bound(Kind.TEXT, choices=("caller", "ip", "all")),
        "Key that requests are counted against: `caller` (the authenticated subject, or the client address), "
        "`ip`, `all` (one counter for all clients), or a binding.",
        default="caller",
    ),
    Field(
        "algorithm",
        Constant(choices=ALGORITHMS),
        "`fixed`: consecutive windows. `sliding`: never more than the limit in any period of that length.",
        default=ALGORITHMS[0],
    ),
    Field("concurrent", Bound(Kind.INTEGER, minimum=1, maximum=1_000_000), "Maximum number of concurrent runs."),
)
#: How answers are stored and replayed.
CACHE: Final = (
    Field("ttl", Constant(Kind.DURATION, minimum=0.001), "How long an answer is replayed.", required=True),
    Field(
        "by",
        Bound(),
        "Key of the answer: requests with an equal one share it. null neither reads nor stores an answer. Default: all "
        "inputs, and the claims of the client (but not its times) if the endpoint has authentication.",
    ),
    Field("headers", ListOf(Constant(), alone=True), "Request headers whose values are part of the key (`Vary`)."),
    Field(
        "staleWhile",
        Constant(Kind.DURATION),
        "How long after `ttl` the old answer is still replayed, while one run makes a new one in the background.",
        default=0.0,
    ),
    Field(
        "statuses",
        ListOf(Constant(Kind.INTEGER, minimum=200, maximum=599), alone=True),
        "Statuses set by `respond` whose answers are stored. Default: 200. Errors are never stored.",
    ),
    Field("maxSize", Constant(Kind.SIZE, minimum=1), "Largest answer that is stored.", default=8 * 1024 * 1024),
)
#: What an endpoint may say of an authentication that it names.
WAY: Final = (
    Field("scopes", ListOf(Constant(), alone=True), "Scopes that the client needs. All are required."),
    Field("optional", _FLAG, "Also accept requests without credentials; `auth` is then null.", default=False),
)

# --------------------------------------------------------------------------------------- documents

#: The methods an endpoint can answer.
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_NAME: Final = Constant(pattern=f"^{DEFINITION.pattern}$")
_STACK: Final = StackOf(Nesting.ONCE)
_SUMMARY: Final = Field("summary", _PROSE, "One-line summary.", default="")
_DESCRIPTION: Final = Field("description", _PROSE, "Description.", default="")
_ALLOWED: Final = Field("allow", _ALLOW, "Codes of findings to silence in this document.")


def _disabled(meaning: str) -> Field:
    return Field("disabled", _FLAG, meaning, default=False)


#: A call of a function around the steps of an endpoint.
_CALL: Final = (
    Field("function", Constant(Kind.TEXT), "Name of the function.", required=True),
    Field("with", Named(Bound(Kind.ANY_OR_STREAM)), "Inputs by name."),
)
#: Keys of endpoints that a group can set for all endpoints of its folder.
_SHARED: Final = (
    Field("tags", _WORDS, "Tags."),
    Field("streaming", group_of(Streaming), "Format, heartbeats, time-outs and limits of the stream."),
    Field(
        "authentication",
        ListOf(Named(Group(WAY), bare=True), alone=True),
        "Authentication methods of the settings. A request needs one of them. Default: that of the nearest group, else "
        "`none`: the endpoint is public.",
    ),
    Field(
        "rateLimit",
        ListOf(Group(LIMIT, short="limit"), alone=True, least=1, most=10),
        "Rate limit (60/minute), concurrency limit, or a list of up to 10 limits. `none` rejects that of a group.",
    ),
    Field(
        "headers",
        Custom(
            {
                "type": ["object", "null"],
                "propertyNames": {"pattern": r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"},
                "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
            },
            "mapping from names to: text",
        ),
        "Response headers.",
    ),
    Field(
        "before",
        ListOf(
            Group((*_CALL, Field("as", Variable(), "Variable that receives the result.")), short="function"), alone=True
        ),
        "Functions (`kind: function`) that are called before the steps, in this order: names, or `{function, with, "
        "as}`. An error in one ends the run. `none` rejects those of a group.",
    ),
    Field(
        "after",
        ListOf(Group(_CALL, short="function"), alone=True),
        "Functions that are called when the run has ended, in whatever way, as the step `after` does. `none` rejects "
        "those of a group.",
    ),
)
_TAGS, _STREAMING, *_RULES = _SHARED


#: The keys of each kind of document.
DOCUMENTS: Final[Mapping[str, tuple[Field, ...]]] = {
    "endpoint": (
        Field("kind", Constant(choices=("endpoint",)), "Kind of the document. Default: `endpoint`."),
        Field("method", Constant(choices=METHODS), "HTTP method.", required=True),
        Field(
            "path",
            Constant(pattern=r"^/([^/?#<>]+(/[^/?#<>]+)*)?$"),
            "Path, with parameters as {name}: /api/orders/{id}.",
            required=True,
        ),
        _SUMMARY,
        _DESCRIPTION,
        _TAGS,
        Field(
            "responseType",
            Constant(choices=("streaming", "json")),
            "`streaming` sends chunks as they are emitted; `json` responds with one value.",
            default="streaming",
        ),
        _STREAMING,
        *_RULES,
        Field(
            "cache",
            Group(CACHE, short="ttl"),
            "Store answers, JSON or finished streams, and replay them (5m, or a mapping). Requests for the same key "
            "share one run.",
        ),
        Field("inputParameters", _INPUTS, "Inputs by name."),
        Field("inputs", group_of(InputRules), "How strictly inputs are checked."),
        Field(
            "chunks",
            _INPUTS,
            "Types of the chunks' content by event name, declared as inputs are; `message` is for chunks without one, "
            "`*` for names that are made at run time. `validate` checks each chunk, and the OpenAPI document has them.",
        ),
        Field(
            "responseSchema",
            Custom({"allOf": [{"$ref": "#/definitions/input"}]}, "declaration"),
            "Type of the response of a json endpoint, declared as inputs are.",
        ),
        Field("unknownInputs", Constant(choices=("refuse", "ignore")), "Short for `inputs: {unknown: ...}`."),
        Field("functionStack", _STACK, "Steps that run for each request.", required=True),
        Field("response", Bound(), "Response of a json endpoint. Default: the value of `return`."),
        _disabled("Do not serve the endpoint. It is still validated."),
        _ALLOWED,
    ),
    "function": (
        Field("kind", Constant(choices=("function",)), "Kind of the document.", required=True),
        Field("name", _NAME, "Name that `call` uses.", required=True),
        _SUMMARY,
        _DESCRIPTION,
        Field("inputParameters", _INPUTS, "Inputs by name, which `call` passes under `with`."),
        Field("functionStack", _STACK, "Steps that run for each call.", required=True),
        _disabled("Reject calls of the function. It is still validated."),
        _ALLOWED,
    ),
    "group": (
        Field("kind", Constant(choices=("group",)), "Kind of the document.", required=True),
        Field(
            "path",
            Constant(pattern=r"^/([^/?#<>]+(/[^/?#<>]+)*)?$"),
            "Prefix of the paths of the folder's endpoints. The prefixes of nested folders are joined.",
        ),
        _SUMMARY,
        _DESCRIPTION,
        *_SHARED,
        _ALLOWED,
    ),
    "task": (
        Field("kind", Constant(choices=("task",)), "Kind of the document.", required=True),
        Field("name", _NAME, "Name in logs and metrics.", required=True),
        _SUMMARY,
        _DESCRIPTION,
        Field(
            "schedule",
            Group(
                (
                    Field("every", Constant(Kind.DURATION), "Interval between two runs."),
                    Field("cron", Constant(), "Schedule as a cron expression."),
                    Field("timezone", Constant(), "Time zone of `cron`."),
                )
            ),
            'Schedule: `every: 5s`, or `cron: "0 * * * *"` with `timezone`.',
            required=True,
        ),
        Field("functionStack", _STACK, "Steps of each run.", required=True),
        _disabled("Do not run the task. It is still validated."),
        _ALLOWED,
    ),
}
#: The keys that endpoints inherit from the group of their folder, beside `path` and `streaming`.
INHERITED: Final = tuple(each.name for each in _SHARED if each is not _STREAMING)
#: Those of them that `none` takes back; that of an authentication is read where the authentication is.
REJECTABLE: Final = ("rateLimit", "before", "after")
