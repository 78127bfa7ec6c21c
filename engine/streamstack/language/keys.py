"""The keys of documents, of declared inputs, of rate limits and of steps: each declared once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamstack.language.findings import FINDINGS
from streamstack.language.names import DEFINITION
from streamstack.language.streaming_settings import Streaming
from streamstack.language.units import ALGORITHMS
from streamstack.spec import (
    Bound,
    Condition,
    Constant,
    Custom,
    Field,
    Group,
    Kind,
    ListOf,
    Named,
    Nesting,
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
    Field(
        "times",
        Constant(Kind.INTEGER, minimum=1, maximum=1000),
        "How often the step is tried again.",
        required=True,
    ),
    Field("delay", Constant(Kind.DURATION), "The wait before the first new try.", default=1.0),
    Field(
        "backoff",
        Constant(choices=("fixed", "exponential")),
        "Whether the delay stays as it is or doubles each time.",
        default="exponential",
    ),
    Field("maxDelay", Constant(Kind.DURATION), "The longest delay.", default=30.0),
    Field("jitter", _FLAG, "Whether each delay is a random part of the full one.", default=True),
    Field(
        "on",
        ListOf(Constant()),
        "The codes it is tried again for; else every error but `invalid-input` and your own.",
    ),
)
#: What may stand beside a step's function.
MODIFIERS: Final = (
    Field("name", Constant(), "What traces, errors and the graph call the step."),
    Field("description", Constant(), "What the step is for."),
    Field("as", Variable(), "The variable the result is bound to.", attribute="result"),
    Field("when", Condition(), "Run the step only if this is true; passed over, its `as` is null."),
    Field(
        "timeout",
        Bound(Kind.DURATION),
        "How long the step may take; then it fails with the error `timeout`.",
    ),
    Field("retry", Group(RETRY), "Try the step again when it fails; never after it has emitted."),
    Field("disabled", _FLAG, "true: the step is passed over, and still validated.", default=False),
    Field("allow", _ALLOW, "Codes of findings that are silenced at this step."),
)
#: Their names.
MODIFIER_NAMES: Final = frozenset(modifier.name for modifier in MODIFIERS)

# ------------------------------------------------------------------------------------------ inputs

#: The types of inputs, with what the reference and the editor say of them.
TYPES: Final = {
    "text": "Text.",
    "integer": "A whole number.",
    "decimal": "A number that keeps its digits.",
    "boolean": "true or false.",
    "timestamp": "A moment, as RFC 3339 writes it: 2026-01-31T12:00:00Z.",
    "date": "A day: 2026-01-31.",
    "uuid": "A UUID.",
    "email": "An e-mail address.",
    "url": "An absolute URL.",
    "object": "A mapping; `properties` declares what it holds.",
    "list": "A list; `items` declares what it holds.",
    "enum": "One of `values`.",
    "json": "Any JSON value.",
    "file": "An uploaded file.",
    "stream": "The request body, read as it arrives.",
}
FILTERS: Final = ("trim", "lower", "upper")
_LOCATIONS: Final = ("path", "query", "body", "header", "cookie", "wholeBody")
#: What the items of a stream may be, and what becomes of one that can't be decoded.
_STREAM_FORMATS: Final = ("ndjson", "sse", "csv", "json", "lines", "text", "bytes")
_ON_INVALID: Final = ("fail", "skip", "give")
_NUMBER: Final = Custom({"type": ["number", "null"]}, "number")

#: The keys that every declaration may have.
INPUT_KEYS: Final = (
    Field("type", Constant(choices=tuple(TYPES)), "What it must be."),
    Field("required", _FLAG, "Whether a caller must send it.", default=False),
    Field("default", Custom({}), "What it is when nobody sends it."),
    Field("nullable", _FLAG, "Whether null may be sent.", default=False),
    Field("description", _PROSE, "What it is for.", default=""),
    Field(
        "in",
        Constant(choices=_LOCATIONS),
        "Where it is sent: by rule in the path, the query or the body.",
        attribute="location",
    ),
    Field("aliases", _WORDS, "Other names it may be sent under."),
    Field("sensitive", _FLAG, "true: never written to a log.", default=False),
)


def _constraint(
    name: str, type_: Type, description: str, *types: str, default: Any = None
) -> Field:
    CONSTRAINTS[name] = types
    return Field(name, type_, f"{description} For {' and '.join(types)}.", default=default)


#: The types each constraint belongs to.
CONSTRAINTS: Final[dict[str, tuple[str, ...]]] = {}
#: The keys that belong to some types.
INPUT_CONSTRAINTS: Final = (
    _constraint("minLength", _COUNT, "The fewest characters.", "text"),
    _constraint("maxLength", _COUNT, "The most characters.", "text"),
    _constraint(
        "pattern",
        _PROSE,
        "A regular expression, in Python's syntax, that is found in it.",
        "text",
    ),
    _constraint(
        "filters", ListOf(Constant(choices=FILTERS)), "What is done with the text first.", "text"
    ),
    _constraint("minimum", _NUMBER, "The least number.", "integer", "decimal"),
    _constraint("maximum", _NUMBER, "The greatest number.", "integer", "decimal"),
    _constraint(
        "values",
        Custom({"type": ["array", "null"], "minItems": 1, "uniqueItems": True}, "list"),
        "The values allowed.",
        "enum",
    ),
    _constraint("properties", _INPUTS, "What the object holds, by name.", "object"),
    _constraint(
        "items",
        Custom({"allOf": [{"$ref": "#/definitions/input"}]}, "declaration"),
        "What each item is.",
        "list",
    ),
    _constraint("minItems", _COUNT, "The fewest items.", "list"),
    _constraint("maxItems", _COUNT, "The most items.", "list"),
    _constraint("maxSize", Constant(Kind.SIZE), "The largest size.", "file", "stream"),
    _constraint("contentTypes", _WORDS, "The content types allowed.", "file"),
    _constraint(
        "decode",
        Constant(choices=_STREAM_FORMATS),
        "What the items of the stream are; without it, what the Content-Type says.",
        "stream",
    ),
    _constraint(
        "onInvalid",
        Constant(choices=_ON_INVALID),
        "What becomes of an item that can't be decoded: fail (the default), skip or give.",
        "stream",
    ),
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
    Field("limit", Bound(Kind.RATE), "How many calls in which time: 60/minute, 20/10s.", main=True),
    Field(
        "by",
        Bound(Kind.TEXT, choices=("caller", "ip", "all")),
        "Who has a count of his own: `caller` (the subject of the authentication, else the address), `ip`, "
        "`all` (one count for all), or a binding.",
        default="caller",
    ),
    Field(
        "algorithm",
        Constant(choices=ALGORITHMS),
        "`fixed`: windows that follow one another. `sliding`: never more than that in any such time.",
        default=ALGORITHMS[0],
    ),
    Field(
        "concurrent",
        Bound(Kind.INTEGER, minimum=1, maximum=1_000_000),
        "How many runs may be under way at once.",
    ),
)
#: What an endpoint may say of an authentication that it names.
WAY: Final = (
    Field(
        "scopes",
        ListOf(Constant(), alone=True),
        "What the caller must have been given: all of them.",
    ),
    Field(
        "optional",
        _FLAG,
        "Whether who sends nothing may call too; `auth` is then null.",
        default=False,
    ),
)

# --------------------------------------------------------------------------------------- documents

#: The methods an endpoint can answer.
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_NAME: Final = Constant(pattern=f"^{DEFINITION.pattern}$")
_STACK: Final = StackOf(Nesting.ONCE)
_SUMMARY: Final = Field("summary", _PROSE, "What it does, in a line.", default="")
_DESCRIPTION: Final = Field("description", _PROSE, "What it does, at length.", default="")
_ALLOWED: Final = Field("allow", _ALLOW, "Codes of findings that are silenced in this document.")


def _disabled(meaning: str) -> Field:
    return Field("disabled", _FLAG, meaning, default=False)


#: The keys of each kind of document.
DOCUMENTS: Final[Mapping[str, tuple[Field, ...]]] = {
    "endpoint": (
        Field(
            "kind",
            Constant(choices=("endpoint",)),
            "What the document declares; `endpoint` where it is left out.",
        ),
        Field("method", Constant(choices=METHODS), "The HTTP method it answers.", required=True),
        Field(
            "path",
            Constant(pattern=r"^/([^/?#<>]+(/[^/?#<>]+)*)?$"),
            "The path it answers, with parameters as {name}: /api/orders/{id}.",
            required=True,
        ),
        _SUMMARY,
        _DESCRIPTION,
        Field("tags", _WORDS, "Words it is found by."),
        Field(
            "responseType",
            Constant(choices=("streaming", "json")),
            "`streaming` sends chunks as they are made; `json` answers with one value.",
            default="streaming",
        ),
        Field(
            "streaming",
            group_of(Streaming),
            "How the stream lives: format, heartbeat, limits; see the settings.",
        ),
        Field(
            "authentication",
            ListOf(Named(Group(WAY), bare=True), alone=True),
            "Who may call it: names under `authentication` in the settings, any of them; else everybody.",
        ),
        Field(
            "rateLimit",
            ListOf(Group(LIMIT, short="limit"), alone=True, least=1, most=10),
            "How often a caller may call it (60/minute), how many runs may be under way; or a list of such.",
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
            "Headers of the response, beside the writer's own.",
        ),
        Field("cache", Custom({}), "How long an answer is kept."),
        Field("inputParameters", _INPUTS, "What a caller sends, by name."),
        Field(
            "unknownInputs",
            Constant(choices=("refuse", "ignore")),
            "Whether undeclared body properties are refused or ignored.",
            default="refuse",
        ),
        Field("functionStack", _STACK, "The steps that run for each request.", required=True),
        Field(
            "response",
            Bound(),
            "What a json endpoint answers; without it, the value of `return`.",
        ),
        _disabled("true: it is not served, and still validated."),
        _ALLOWED,
    ),
    "function": (
        Field(
            "kind", Constant(choices=("function",)), "What the document declares.", required=True
        ),
        Field("name", _NAME, "What `call` calls it.", required=True),
        _SUMMARY,
        _DESCRIPTION,
        Field("inputParameters", _INPUTS, "What `with` hands over, by name."),
        Field("functionStack", _STACK, "The steps that run for each call.", required=True),
        _disabled("true: it can't be called, and is still validated."),
        _ALLOWED,
    ),
    "task": (
        Field("kind", Constant(choices=("task",)), "What the document declares.", required=True),
        Field("name", _NAME, "What the log and the metrics call it.", required=True),
        _SUMMARY,
        _DESCRIPTION,
        Field(
            "schedule",
            Group(
                (
                    Field("every", Constant(Kind.DURATION), "The time between two runs."),
                    Field("cron", Constant(), "When it runs, as cron writes it."),
                    Field("timezone", Constant(), "Where `cron` reads the clock."),
                )
            ),
            'When it runs: `every: 5s`, or `cron: "0 * * * *"` with `timezone`.',
            required=True,
        ),
        Field("functionStack", _STACK, "The steps of each run.", required=True),
        _disabled("true: it does not run, and is still validated."),
        _ALLOWED,
    ),
}
#: Keys that this version reads and refuses, and what it would mean to ignore them.
NOT_YET: Final = {"cache": "would keep nothing"}

# -------------------------------------------------------------------------------------------- tests

_TEXT: Final = Constant()
_VALUES: Final = Named(Bound())


def _one(*fields: Field) -> Group:
    return Group(fields)


#: The keys of a file of tests.
TESTS: Final = (
    Field(
        "tests",
        ListOf(
            _one(
                Field("name", _TEXT, "What the test shows.", required=True),
                Field(
                    "request",
                    _one(
                        Field(
                            "method",
                            Constant(choices=METHODS),
                            "The method; GET where it is left out.",
                        ),
                        Field("path", Constant(pattern="^/"), "The path.", required=True),
                        Field("query", _VALUES, "Query parameters, by name."),
                        Field("headers", _VALUES, "Headers, by name."),
                        Field("body", Bound(), "The body: JSON, or a text as it is."),
                        Field("auth", _VALUES, "The claims of the caller."),
                    ),
                    "What is sent.",
                    required=True,
                ),
                Field("env", _VALUES, "Environment variables."),
                Field(
                    "upstreams",
                    ListOf(
                        _one(
                            Field(
                                "match",
                                _one(
                                    Field("method", Constant(choices=METHODS), "The method."),
                                    Field("url", _TEXT, "The address it stands for."),
                                    Field("body", Bound(), "What the body must hold."),
                                ),
                                "Which calls it answers.",
                                required=True,
                            ),
                            Field(
                                "respond",
                                _one(
                                    Field(
                                        "status",
                                        Constant(Kind.INTEGER, 100, 599),
                                        "The status.",
                                    ),
                                    Field("headers", _VALUES, "Headers, by name."),
                                    Field("body", Bound(), "The body."),
                                    Field(
                                        "file",
                                        _TEXT,
                                        "A file with the body, from the folder of the test.",
                                    ),
                                    Field(
                                        "delay",
                                        Constant(Kind.DURATION),
                                        "The wait before each chunk.",
                                    ),
                                    Field(
                                        "cutAfter",
                                        _one(
                                            Field("events", _COUNT, "After so many events."),
                                            Field("bytes", _COUNT, "After so many bytes."),
                                        ),
                                        "Where the connection is lost.",
                                    ),
                                ),
                                "What it answers.",
                            ),
                        )
                    ),
                    "Servers that stand for others.",
                ),
                Field(
                    "client",
                    _one(
                        Field("leaveAfter", _COUNT, "How many chunks it reads before it leaves."),
                        Field("readDelay", Constant(Kind.DURATION), "The wait before each read."),
                    ),
                    "A reader who leaves, or is slow.",
                ),
                Field(
                    "expect",
                    _one(
                        Field("status", Constant(Kind.INTEGER, 100, 599), "The status."),
                        Field("headers", _VALUES, "Headers, by name."),
                        Field("text", _TEXT, "The content of all chunks, joined."),
                        Field("body", Bound(), "The answer of a json endpoint."),
                        Field("chunks", ListOf(Bound()), "What the chunks hold, in turn."),
                        Field(
                            "streamed",
                            _FLAG,
                            "The first chunk left before the upstream had ended.",
                        ),
                        Field("error", Bound(), "The error that ended it."),
                        Field(
                            "calls",
                            ListOf(
                                _one(
                                    Field("method", _TEXT, "The method."),
                                    Field("url", _TEXT, "The address."),
                                    Field("count", _COUNT, "How often."),
                                    Field("body", Bound(), "What the body must hold."),
                                )
                            ),
                            "The calls that were made.",
                        ),
                    ),
                    "What must come back.",
                    required=True,
                ),
            )
        ),
        "The tests, run one after the other.",
        required=True,
    ),
)
