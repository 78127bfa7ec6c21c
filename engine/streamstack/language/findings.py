"""Every code a finding can have: its severity, its meaning, what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from streamstack.errors import Diagnostic, Mark, Severity


@dataclass(frozen=True, slots=True)
class Finding:
    """What a code means. The hint says what to write where the place itself has no better one."""

    code: str
    severity: Severity
    meaning: str
    hint: str


def make_diagnostic(code: str, mark: Mark, message: str, hint: str | None = None) -> Diagnostic:
    """Return a finding at a place, with the severity and, unless given, the hint of its code.

    Raises KeyError for a code that FINDINGS does not hold.
    """
    finding = FINDINGS[code]
    return Diagnostic(
        mark.file,
        mark.line,
        mark.column,
        finding.severity,
        code,
        message,
        finding.hint if hint is None else hint,
    )


_ERRORS: Final = {
    # The YAML itself
    "yaml-syntax": (
        "The file is not valid YAML at this place.",
        "check the indentation, the quotes and the brackets up to this place",
    ),
    "yaml-quotes": (
        "YAML reads this value otherwise than it looks, because it has no quotes.",
        "put single quotes around the whole value: '<< ... >>'",
    ),
    "cut-by-comment": (
        "YAML takes the line from ` #` on as a comment, also a binding in it.",
        "put single quotes around the whole value: '<< ... >>'",
    ),
    "duplicate-key": (
        "A key stands twice in one mapping.",
        "keep one of the two, or give one another name",
    ),
    "merge-key": (
        "YAML's merge key `<<:` is not part of the language.",
        "write the keys out, or share steps in a `kind: function` document",
    ),
    "bad-key": (
        "A key is not a text.",
        "write `key: value`",
    ),
    "yaml-tag": (
        "YAML tags such as `!!str` or `!name` are not part of the language.",
        "leave the tag out; quotes make a text of any value",
    ),
    "too-many-aliases": (
        "The aliases of a document stand for more values than the language allows.",
        "share steps in a `kind: function` document and `call` it",
    ),
    "recursive-alias": (
        "An alias stands inside the very value it names.",
        "write the value out; to repeat steps, use `while` or `forEach`",
    ),
    "unknown-alias": (
        "An alias names an anchor that the document does not have before it.",
        "put quotes around a text that begins with `*`",
    ),
    "too-deep": (
        "Values are nested too deeply.",
        "move the inner steps to a `kind: function` document and `call` it",
    ),
    "file-too-large": (
        "The file is larger than a definition may be.",
        "split it into several files",
    ),
    # Bindings
    "not-an-expression": (
        "A condition is a text, which would always be true; or what is computed of each item is the same for all.",
        "write it as one whole binding: `<< ... >>`",
    ),
    "bad-template": (
        "An expression or a template does not parse.",
        "write Jinja2's expressions between `<<` and `>>`; `\\<<` stands for the characters",
    ),
    "unbound-name": (
        "A name is not bound on any path that leads here.",
        "bind it before this step, with `as` or `set`, or read an input as `input.<name>`",
    ),
    "unknown-filter": (
        "A filter does not exist.",
        "`streamstack functions` lists the filters",
    ),
    "unknown-test": (
        "A test after `is` does not exist.",
        "write one of Jinja2's tests, such as `is defined`, `is none`, `is number`",
    ),
    "unknown-function": (
        "A function does not exist.",
        "`streamstack functions` lists the functions",
    ),
    "unknown-model": (
        "A step names a model that the settings don't have.",
        "declare it under `models` in streamstack.yaml, or give `provider`",
    ),
    "unknown-database": (
        "A step names a database that the settings don't have, or names none where there are several.",
        "declare it under `databases` in streamstack.yaml",
    ),
    "unknown-authentication": (
        "An endpoint or a step names an authentication that the settings don't have.",
        "declare it under `authentication` in streamstack.yaml",
    ),
    "bad-sql": (
        "The database can't prepare this statement.",
        "try the statement in `psql`",
    ),
    "quoted-binding": (
        "A binding stands between quotes of SQL, where it would be a part of the text.",
        "join the parts: '%' || <<q>> || '%'",
    ),
    "sql-position": (
        "A binding stands in SQL where no parameter can: for the name of a table or a column.",
        "write the name itself; `<% if %>` may choose among names",
    ),
    "several-statements": (
        "A step holds several statements of SQL, and the database takes one at a time.",
        "write each as a step of its own, in a `db.transaction` where they belong together",
    ),
    "unknown-property": (
        "A declared input or value has no such property.",
        "declare it in `properties`, or read one that is declared",
    ),
    # The shape of definitions
    "not-a-mapping": (
        "A mapping of `key: value` is needed here.",
        "write `key: value` lines",
    ),
    "unknown-key": (
        "A key is not part of the language at this place.",
        "take it out, or write the key that was meant",
    ),
    "unknown-parameter": (
        "A function has no such parameter.",
        "`streamstack functions NAME` shows the parameters of a function",
    ),
    "unknown-modifier": (
        "A key beside a function is neither a function nor a modifier of steps.",
        "the modifiers are name, description, as, when, timeout, retry, disabled, allow",
    ),
    "missing-parameter": (
        "A required key or parameter is missing.",
        "add it",
    ),
    "conflicting-parameters": (
        "Parameters that exclude one another are both given.",
        "keep one of them",
    ),
    "wrong-type": (
        "A value has another type than its place needs.",
        "write a value of the named type",
    ),
    "constant-required": (
        "A binding stands where a constant is needed.",
        "write the value itself; it is decided when the file is loaded",
    ),
    "bad-name": (
        "A name has characters it can't have, or is reserved.",
        "begin with a letter or `_`, then letters, digits or `_`, and avoid the reserved names",
    ),
    "duplicate-name": (
        "A name is given twice.",
        "give one of the two another name",
    ),
    "one-function": (
        "A step does not have exactly one function.",
        "write each function as a step of its own, beginning with `- `",
    ),
    "no-result": (
        "A function without a result has an `as`.",
        "take the `as` out",
    ),
    "unknown-type": (
        "A type does not exist.",
        (
            "write one of text, integer, decimal, boolean, timestamp, date, uuid, email, url, "
            "object, list, enum, json, file, stream"
        ),
    ),
    "bad-constraint": (
        "A constraint does not fit the type, or contradicts another.",
        "`streamstack schema` shows the constraints of each type",
    ),
    "bad-default": (
        "A default does not fulfil the declaration it belongs to.",
        "write a default that a caller could send",
    ),
    "bad-pattern": (
        "A regular expression is not valid, or uses what can't be matched in linear time.",
        "write it in RE2's syntax, without look-around and back-references, in single quotes",
    ),
    "bad-duration": (
        "A duration can't be read.",
        "write it like 200ms, 5s, 10m, 1h, 2d or as a number of milliseconds",
    ),
    "bad-size": (
        "A size can't be read.",
        "write it like 64KB, 10MB or as a number of bytes",
    ),
    "bad-rate": (
        "A rate can't be read.",
        "write it like 60/minute, 10/second, 1000/hour or 20/10s",
    ),
    "bad-url": (
        "The URL of a store can't be read; its line is not shown, since it may hold a password.",
        "write it like redis://localhost:6379 or rediss://user:password@host:6380/0",
    ),
    "bad-path": (
        "A path of an endpoint can't be read.",
        "write it like /api/orders/{id}",
    ),
    "bad-method": (
        "An HTTP method is not served.",
        "write GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS",
    ),
    "bad-kind": (
        "A document's kind does not exist.",
        "write `kind: endpoint`, `kind: function` or `kind: task`",
    ),
    "not-yet": (
        "A part of the language that this version does not serve yet.",
        "leave it out for now",
    ),
    # Endpoints and names of a project
    "route-collision": (
        "Two endpoints answer the same method and path.",
        "change the method or the path of one of them",
    ),
    "undeclared-path-parameter": (
        "A parameter in the path is not declared, or a declared one is not in the path.",
        "declare it under `inputParameters`",
    ),
    "content-type-mismatch": (
        "The Content-Type header contradicts what the writer sends.",
        "take the header out, or choose the format that fits it under `streaming`",
    ),
    # Flow and streams
    "outside-loop": (
        "`break` or `continue` stands outside a loop of its own frame.",
        "use `return` to end the frame, or move the step into the loop",
    ),
    "shared-write": (
        "A branch or a concurrent iteration writes its own copy of a variable from outside.",
        "give the value out with `return`, or write it after the branches have ended",
    ),
    "consumed-twice": (
        "A stream is read where it has been read before.",
        "read it once with `collect`, and use that list, or make the stream inside the loop",
    ),
    "stream-in-expression": (
        "A stream stands in an expression, where only data can.",
        "read it with `forEach` or `collect`, or pass it whole to a parameter that takes a stream",
    ),
    "length-of-stream": (
        "The length or the last item of a stream is asked for before it has ended.",
        "`collect` it first, or count while it passes with `loop.index`",
    ),
    "no-chunks": (
        "No path through a streaming endpoint emits anything.",
        "add a `stream` step, or write `responseType: json`",
    ),
    "after-done": (
        "A chunk is sent after `done`, which is the end.",
        "move the `stream` step before `done`",
    ),
    "emits-in-after": (
        "A step in `after` emits, when the response is over.",
        "emit before the end; `after` is for what the reader does not see",
    ),
    "emits-in-json": (
        "An endpoint that answers with JSON emits chunks.",
        "write `responseType: streaming`, or `return` the value",
    ),
    "not-in-dialect": (
        "An endpoint that speaks as a model provider's API sends what such an API has no words for.",
        "send text, or the items that `llm.chat` gives",
    ),
    "not-resumable": (
        "An endpoint whose readers shall come back sends what has no place for the ids they come back with.",
        "write `format: auto`, `sse` or `ndjson`, or `resume: false`",
    ),
    "response-in-stream": (
        "A streaming endpoint has a `response`, which nothing sends.",
        "emit it with `stream`, or write `responseType: json`",
    ),
    # Settings
    "unknown-setting": (
        "A setting does not exist.",
        "take it out, or write the one that was meant",
    ),
    "bad-setting": (
        "A setting has a value it can't have.",
        "write one of the values the message names",
    ),
    "missing-environment": (
        "A setting reads an environment variable that is not set.",
        'set the variable, or give a default: <<env.NAME | default("...")>>',
    ),
}

_WARNINGS: Final = {
    "maybe-unbound": (
        "A name is bound on some of the paths that lead here, and not on others.",
        "`set` it before the paths part, or read it with `| default(...)`",
    ),
    "foreign-binding": (
        "A text holds a binding in the brackets of another tool, which is sent as it stands.",
        "write it between << and >>",
    ),
    "unread-stream": (
        "A step gives a stream that has no name, so that nothing can read it.",
        "bind it with `as` and read it with `forEach`",
    ),
    "unknown-table": (
        "The database has no such table.",
        "create it in the file under `setup`, or write the one that was meant",
    ),
    "unknown-column": (
        "The table has no such column.",
        "add it in the file under `setup`, or write the one that was meant",
    ),
    "unused-variable": (
        "A variable is never read.",
        "take it out, or read it",
    ),
    "unreachable": (
        "A step can never run, because the one before it always leaves.",
        "take it out, or put a condition on the step that leaves",
    ),
    "emits-in-transaction": (
        "A transaction stays open while a slow reader takes the chunks.",
        "read inside the transaction, and emit after it",
    ),
    "secret-in-definition": (
        "A secret stands in the file in plain text.",
        "put it in the environment and write <<env.NAME>>",
    ),
    "auth-without-authentication": (
        "An endpoint without `authentication` reads `auth`, which is always null there.",
        "name an authentication of the settings: `authentication: jwt`",
    ),
    "auth-may-be-null": (
        "An endpoint that takes guests, too, looks something up in `auth`, which is null for them.",
        "give a value for guests with `| default(...)`, or pass the step over with `when`",
    ),
    "weak-authentication": (
        "An authentication can be got around more easily than its author may think.",
        "do as the message says",
    ),
    "buffers-stream": (
        "A step before the first chunk waits for a whole stream, so nothing streams.",
        "use `forEach` over the stream and emit inside it",
    ),
    "caches-null": (
        "The steps of a `cache.use` never `return`, so that null is kept and given.",
        "end its `do` with `- return: << ... >>`",
    ),
    "no-effect": (
        "A key changes nothing, because of what stands beside it.",
        "take it out, or change what stands beside it",
    ),
    "error-escapes-try": (
        "A stream made in a `try` is read outside it, and fails where it is read.",
        "read the stream inside the `try`",
    ),
}

#: Every code, with what it means.
FINDINGS: Final[Mapping[str, Finding]] = MappingProxyType(
    {code: Finding(code, "error", *texts) for code, texts in _ERRORS.items()}
    | {code: Finding(code, "warning", *texts) for code, texts in _WARNINGS.items()}
)
