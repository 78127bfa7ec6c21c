"""Findings: their codes, and how they are written for people, scripts, GitHub and code scanners."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from streamstack import __version__
from streamstack.errors import Diagnostic, Mark, Replacement, Severity


@dataclass(frozen=True, slots=True)
class Finding:
    """What a code means. The hint says what to write where the place itself has no better one."""

    code: str
    severity: Severity
    meaning: str
    hint: str


def make_diagnostic(
    code: str,
    mark: Mark,
    message: str,
    hint: str | None = None,
    replacement: Replacement | None = None,
    severity: Severity | None = None,
) -> Diagnostic:
    """Return a finding at a place, with the severity and the hint of its code unless others are given.

    Raises KeyError for a code that FINDINGS does not hold.
    """
    finding = FINDINGS[code]
    hint = finding.hint if hint is None else hint
    return Diagnostic(mark.file, mark.line, mark.column, severity or finding.severity, code, message, hint, replacement)


_ERRORS: Final = {
    # The YAML itself
    "yaml-syntax": (
        "The file is not valid YAML at this place.",
        "check the indentation, the quotes and the brackets up to this place",
    ),
    "yaml-quotes": (
        "Without quotes, YAML reads this value differently from how it looks.",
        "put single quotes around the whole value: '<< ... >>'",
    ),
    "cut-by-comment": (
        "YAML reads everything after ` #` as a comment, including a binding.",
        "put single quotes around the whole value: '<< ... >>'",
    ),
    "duplicate-key": ("A mapping has the same key twice.", "remove or rename one of the two"),
    "merge-key": (
        "YAML's merge key `<<:` is not part of the language.",
        "write the keys out, or share steps in a `kind: function` document",
    ),
    "bad-key": ("A key is not text.", "write `key: value`"),
    "yaml-tag": (
        "YAML tags such as `!!str` or `!name` are not part of the language.",
        "remove the tag; to get text, put the value in quotes",
    ),
    "too-many-aliases": (
        "The aliases of a document expand to too many values.",
        "share steps in a `kind: function` document and `call` it",
    ),
    "recursive-alias": (
        "An alias is inside the value that it refers to.",
        "write the value in full; to repeat steps, use `while` or `forEach`",
    ),
    "unknown-alias": (
        "An alias refers to an anchor that is not defined before it.",
        "put quotes around text that begins with `*`",
    ),
    "too-deep": ("Values are nested too deeply.", "move the inner steps to a `kind: function` document and `call` it"),
    "file-too-large": ("The file exceeds the size limit of a definition.", "split it into several files"),
    # Bindings
    "not-an-expression": (
        "A condition is plain text, which is always true; or an expression per item is a constant.",
        "write the whole value as one binding: `<< ... >>`",
    ),
    "bad-template": (
        "An expression or a template has a syntax error.",
        "write a Jinja2 expression between `<<` and `>>`; write `\\<<` for a literal `<<`",
    ),
    "unbound-name": (
        "A name is not bound on any path to this step.",
        "bind it before this step, with `as` or `set`, or read an input as `input.<name>`",
    ),
    "unknown-filter": ("The filter does not exist.", "`streamstack functions` lists the filters"),
    "unknown-test": (
        "The test after `is` does not exist.",
        "use a Jinja2 test, such as `is defined`, `is none` or `is number`",
    ),
    "unknown-function": ("The function does not exist.", "`streamstack functions` lists the functions"),
    "unknown-model": (
        "A step refers to a model that is not in the settings.",
        "declare it under `models` in streamstack.yaml, or give `provider`",
    ),
    "unknown-database": (
        "A step refers to a database that is not in the settings, or does not choose one of several.",
        "declare it under `databases` in streamstack.yaml",
    ),
    "unknown-authentication": (
        "An endpoint or a step refers to an authentication that is not in the settings.",
        "declare it under `authentication` in streamstack.yaml",
    ),
    "bad-experiment": (
        "An endpoint can't take part in an experiment that it reads.",
        "change `by` of the experiment, or remove the binding",
    ),
    "unknown-variant": (
        "A test names an experiment or a variant that is not in the settings.",
        "declare it under `experiments` in streamstack.yaml",
    ),
    "bad-sql": ("The database can't prepare this SQL statement.", "try the statement in `psql`"),
    "quoted-binding": (
        "A binding is inside an SQL string literal, where it would be part of the text.",
        "concatenate the parts: '%' || <<q>> || '%'",
    ),
    "sql-position": (
        "A binding is used in SQL where parameters are not allowed, such as a table or column name.",
        "write the name itself; `<% if %>` can choose between names",
    ),
    "several-statements": (
        "A step has several SQL statements; the database executes one at a time.",
        "write one step for each statement, inside a `db.transaction` to make them atomic",
    ),
    "unknown-property": (
        "The property is not declared on this input or value.",
        "declare it under `properties`, or read a declared property",
    ),
    # The shape of definitions
    "not-a-definition": (
        "The YAML file belongs to another program.",
        "add it to `ignore` in streamstack.yaml, or move it out of the folder of definitions",
    ),
    "not-a-mapping": ("The value must be a mapping.", "write `key: value` lines"),
    "unknown-key": ("The key is not allowed here.", "remove it, or correct its spelling"),
    "unknown-parameter": (
        "The function does not have this parameter.",
        "`streamstack functions NAME` shows the parameters of a function",
    ),
    "unknown-modifier": (
        "A key next to a function is neither a function nor a step modifier.",
        "the step modifiers are name, description, as, when, timeout, retry, disabled, allow",
    ),
    "missing-parameter": ("A required key or parameter is missing.", "add it"),
    "conflicting-parameters": ("Two mutually exclusive parameters are set.", "remove one of them"),
    "wrong-type": ("A value has the wrong type.", "write a value of the type that the message names"),
    "constant-required": (
        "A binding is used where a constant is required.",
        "write the value itself; it is read when the file is loaded",
    ),
    "bad-name": (
        "A name contains invalid characters, or is reserved.",
        "start with a letter or `_`, followed by letters, digits or `_`; reserved names are not allowed",
    ),
    "duplicate-name": ("A name is used twice.", "rename one of the two"),
    "one-function": (
        "A step must have exactly one function.",
        "write each function as a separate step, starting with `- `",
    ),
    "no-result": ("`as` is set on a function that has no result.", "remove `as`"),
    "unknown-type": (
        "The type does not exist.",
        (
            "write one of text, integer, decimal, boolean, timestamp, date, uuid, email, url, "
            "object, list, enum, json, file, stream"
        ),
    ),
    "bad-constraint": (
        "A constraint does not fit the type, or contradicts another.",
        "`streamstack schema` shows the constraints of each type",
    ),
    "bad-default": ("A default value does not match its declaration.", "write a default that a client could send"),
    "bad-pattern": (
        "A regular expression is not valid, or uses a feature that RE2 does not support.",
        "use RE2 syntax, without look-around and back-references, in single quotes",
    ),
    "bad-schema": (
        "A JSON Schema is not valid, or refers to something outside itself.",
        "write a schema of JSON Schema 2020-12, with its definitions under `$defs`",
    ),
    "bad-duration": ("A duration is not valid.", "write it like 200ms, 5s, 10m, 1h, 2d or as a number of milliseconds"),
    "bad-size": ("A size is not valid.", "write it like 64KB, 10MB or as a number of bytes"),
    "bad-rate": ("A rate is not valid.", "write it like 60/minute, 10/second, 1000/hour or 20/10s"),
    "bad-url": (
        "The URL of a store is not valid. The line is not shown because it may contain a password.",
        "write it like redis://localhost:6379 or rediss://user:password@host:6380/0",
    ),
    "bad-path": ("The path of an endpoint is not valid.", "write it like /api/orders/{id}"),
    "bad-method": ("The HTTP method is not supported.", "write GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS"),
    "bad-kind": ("The kind of a document is unknown.", "write `kind: endpoint`, `kind: function` or `kind: task`"),
    "not-cacheable": ("An answer can't be cached.", "remove `cache`, or cache a part of the work with `cache.use`"),
    "cache-leak": (
        "An answer depends on who asks, and the key of the cache does not: one client would get the answer of another.",
        "add it to `by`, or remove `by`",
    ),
    "bad-plugin": (
        "A plug-in can't be loaded, or declares a function or filter that can't be used.",
        "correct the file; `docs/how-to/plug-ins.md` shows how functions and filters are declared",
    ),
    "not-yet": ("This feature is not supported yet.", "remove it"),
    # Endpoints and names of a project
    "route-collision": ("Two endpoints have the same method and path.", "change the method or the path of one of them"),
    "undeclared-path-parameter": (
        "A path parameter is not declared, or a declared path parameter is not in the path.",
        "declare it under `inputParameters`",
    ),
    "content-type-mismatch": (
        "The Content-Type header contradicts the response format.",
        "remove the header, or set a matching `format` under `streaming`",
    ),
    # Flow and streams
    "outside-loop": (
        "`break` or `continue` is outside a loop, or in a branch or function inside the loop.",
        "use `return`, or move the step into the loop",
    ),
    "shared-write": (
        "A branch or a concurrent iteration sets an outer variable, which changes only its own copy.",
        "write `streams.map` with `concurrency`, or give the value out of a branch with `return`",
    ),
    "consumed-twice": (
        "A stream is read twice.",
        "read it once with `collect` and use the list, or create the stream inside the loop",
    ),
    "stream-in-expression": (
        "A stream is used in an expression, which takes only data.",
        "read it with `forEach` or `collect`, or pass it to a parameter that takes a stream",
    ),
    "length-of-stream": (
        "The length or the last item of a stream is read before the stream has ended.",
        "`collect` it first, or count items with `loop.index`",
    ),
    "no-chunks": ("A streaming endpoint never emits a chunk.", "add a `stream` step, or write `responseType: json`"),
    "after-chunk": (
        "The status, headers or cookies are set after a chunk has been sent.",
        "move `respond` before the first chunk",
    ),
    "after-done": ("A chunk is sent after `done`, which ends the stream.", "move the `stream` step before `done`"),
    "emits-in-after": (
        "A step in `after` emits a chunk, but the response has already ended.",
        "emit chunks before `after`, which runs when the client has its response",
    ),
    "emits-in-json": (
        "An endpoint with a JSON response emits chunks.",
        "write `responseType: streaming`, or `return` the value",
    ),
    "not-in-dialect": (
        "An endpoint in a model provider's format sends content that the format can't represent.",
        "send text, or the items of an `llm.chat` stream",
    ),
    "not-resumable": (
        "A resumable endpoint uses a format that can't carry chunk ids.",
        "write `format: auto`, `sse` or `ndjson`, or `resume: false`",
    ),
    "response-in-stream": (
        "A streaming endpoint has a `response`, which is never sent.",
        "emit it with `stream`, or write `responseType: json`",
    ),
    # Tests
    "unmet-expectation": ("A test expects what the endpoint can't do.", "change the expectation, or the definition"),
    # Settings
    "unknown-setting": ("The setting does not exist.", "remove it, or correct its spelling"),
    "bad-setting": ("A setting has an invalid value.", "write a value that the message allows"),
    "missing-environment": (
        "A setting reads an environment variable that is not set.",
        'set the variable, or give a default: <<env.NAME | default("...")>>',
    ),
    "wrong-chunk": (
        "A chunk or a response does not have the type that the endpoint declares.",
        "change the value, or the type under `chunks` or `responseSchema`",
    ),
    "job-input": (
        "A function with an input that can't be stored is started as a job.",
        "store the data (in a table, in a file), and pass its key or name",
    ),
}

_WARNINGS: Final = {
    "maybe-unbound": (
        "A name is bound on some paths to this step, but not on all.",
        "`set` it before the paths branch, or read it with `| default(...)`",
    ),
    "foreign-binding": (
        "Text contains a binding in another tool's syntax, which is not evaluated.",
        "write it between << and >>",
    ),
    "unread-stream": (
        "A step returns a stream that is not bound to a name, so it is never read.",
        "bind it with `as` and read it with `forEach`",
    ),
    "unknown-table": (
        "The table does not exist in the database.",
        "create it in the file under `setup`, or correct its name",
    ),
    "unknown-column": (
        "The column does not exist in the table.",
        "add it in the file under `setup`, or correct its name",
    ),
    "cors-header": (
        "A header belongs to CORS, which is configured for the whole server.",
        "write `server: {cors: https://app.example.com}` in streamstack.yaml, which answers preflight requests too",
    ),
    "bytes-in-text": ("Text contains bytes, which become base64.", "write `request.text`, the body as text"),
    "unused-variable": ("A variable is never read.", "remove it, or use it"),
    "unreachable": (
        "A step never runs, because the step before it always returns, breaks or fails.",
        "remove it, or add a condition to the step before it",
    ),
    "emits-in-transaction": (
        "A step emits chunks inside a transaction, which stays open while a slow client reads them.",
        "read inside the transaction, and emit after it",
    ),
    "job-in-transaction": (
        "A job starts inside a transaction: it may run before the transaction is committed.",
        "start it after the transaction",
    ),
    "request-in-job": (
        "A function that runs as a job uses the request or the response, which a job does not have.",
        "pass what it needs under `with`",
    ),
    "secret-in-definition": (
        "The file contains a secret in plain text.",
        "put it in the environment and write <<env.NAME>>",
    ),
    "auth-without-authentication": (
        "An endpoint without `authentication` reads `auth`, which is always null.",
        "add an authentication from the settings, such as `authentication: jwt`",
    ),
    "unknown-path": (
        "A URL is a path of this server that no endpoint of the project answers.",
        "declare the endpoint, or write the whole URL of another server",
    ),
    "may-be-null": (
        "A value that may be null is used where null fails, such as in arithmetic or as a required parameter.",
        "write `| default(...)`, declare a default, or test it with `is not none`",
    ),
    "auth-may-be-null": (
        "An endpoint with optional authentication reads a property of `auth`, which is null for anonymous clients.",
        "add a default for anonymous clients with `| default(...)`, or skip the step with `when`",
    ),
    "weak-authentication": ("An authentication setting is insecure.", "follow the advice in the message"),
    "buffers-stream": (
        "A step before the first chunk waits for a whole stream, so nothing streams.",
        "use `forEach` over the stream and emit inside it",
    ),
    "caches-null": (
        "The steps of a `cache.use` never `return`, so null is cached.",
        "end its `do` with `- return: << ... >>`",
    ),
    "cache-key": (
        "An answer depends on a value that the key of the cache does not contain.",
        "declare it as an input, add it to `by`, or, for a header, to `headers` of `cache`",
    ),
    "cache-writes": (
        "A step of a cached endpoint has an effect beyond the answer. Replayed answers don't run it.",
        "do this in an endpoint without `cache`",
    ),
    "unused-chunk": ("A type under `chunks` belongs to no chunk.", "correct the event name, or remove it"),
    "no-effect": ("A key has no effect in combination with other keys.", "remove it, or change the other keys"),
    "error-escapes-try": (
        "A stream created in a `try` is read outside it, where its errors are not caught.",
        "read the stream inside the `try`",
    ),
}

#: Every code, with what it means.
FINDINGS: Final[Mapping[str, Finding]] = MappingProxyType(
    {code: Finding(code, "error", *texts) for code, texts in _ERRORS.items()}
    | {code: Finding(code, "warning", *texts) for code, texts in _WARNINGS.items()}
)


# ------------------------------------------------------------------------------------------ output


_SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
#: How much of a long line is shown around the place.
_WIDEST: Final = 110

#: Findings that are shown without their line, which holds a secret, or may.
_HIDDEN: Final = frozenset({"secret-in-definition", "bad-url"})

Sources = Mapping[str, str]


def write_text(findings: Sequence[Diagnostic], sources: Sources) -> str:
    """Return `file:line:column: severity: code: message`, the line with a caret, and the hint."""
    lines: dict[str, list[str]] = {}
    parts = []
    for finding in findings:
        if finding.file not in lines:
            lines[finding.file] = _split(sources.get(finding.file, ""))
        place = _one_line(str(finding.mark))
        parts.append(f"{place}: {finding.severity}: {finding.code}: {_one_line(finding.message)}\n")
        # A line that holds a secret is not for logs.
        shown = finding.code not in _HIDDEN
        if shown and 0 < finding.line <= len(lines[finding.file]):
            parts.append(_show(lines[finding.file][finding.line - 1], finding))
        if finding.hint:
            parts.append(f"  hint: {_one_line(finding.hint)}\n")
        parts.append("\n")
    return "".join(parts)


def write_json(findings: Sequence[Diagnostic], _: Sources) -> str:
    """Return `{"findings": [{file, line, column, severity, code, message, hint, replacement}]}`.

    The replacement, where the correction is certain, is {line, column, endLine, endColumn, text}.
    """
    # A file name may hold bytes that are not UTF-8, which JSON can't express.
    listed = [
        asdict(found) | {"file": _printable(found.file), "replacement": _replacement(found.replacement)}
        for found in findings
    ]
    return json.dumps({"findings": listed}, indent=2) + "\n"


def _replacement(made: Replacement | None) -> dict[str, Any] | None:
    if made is None:
        return None
    place = {"line": made.line, "column": made.column, "endLine": made.end_line, "endColumn": made.end_column}
    return {**place, "text": made.text}


def write_github(findings: Sequence[Diagnostic], _: Sources) -> str:
    """Return GitHub's workflow commands, which it shows beside the changed lines.

    Source: docs.github.com, workflow commands; escapes as in actions/toolkit.
    """
    lines = []
    for finding in findings:
        properties = ",".join(
            f"{name}={_escape_property(str(value))}"
            for name, value in (
                ("file", finding.file.encode(errors="surrogateescape").decode(errors="replace")),
                ("line", finding.line),
                ("col", finding.column),
                ("title", finding.code),
            )
        )
        message = f"{finding.message}\n{finding.hint}" if finding.hint else finding.message
        lines.append(f"::{finding.severity} {properties}::{_escape(message)}\n")
    return "".join(lines)


def write_sarif(findings: Sequence[Diagnostic], _: Sources) -> str:
    """Return SARIF 2.1.0, the format of code scanners (OASIS, sarif-v2.1.0)."""
    codes = sorted({finding.code for finding in findings})
    run = {
        "tool": {"driver": {"name": "streamstack", "version": __version__, "rules": [_rule(code) for code in codes]}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, codes.index(finding.code)) for finding in findings],
    }
    document = {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2) + "\n"


#: The writers by the name of their format.
WRITERS: Final[Mapping[str, Callable[[Sequence[Diagnostic], Sources], str]]] = {
    "text": write_text,
    "json": write_json,
    "github": write_github,
    "sarif": write_sarif,
}


def summarise(findings: Sequence[Diagnostic], files: int) -> str:
    """Return what was found, in a sentence."""
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    counted_files = f"{files} file{'' if files == 1 else 's'}"
    if not findings:
        return f"{counted_files} checked, no problems"
    counted = [
        f"{count} {word}{'' if count == 1 else 's'}"
        for count, word in ((errors, "error"), (warnings, "warning"))
        if count
    ]
    return f"{' and '.join(counted)} in {counted_files}"


def _split(text: str) -> list[str]:
    """Split at the line ends that places count by: not at U+2028 and the like."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _show(line: str, finding: Diagnostic) -> str:
    """Return the line and a caret below the place."""
    column = min(finding.column - 1, len(line))
    if len(line) > _WIDEST:
        begin = max(0, min(column - _WIDEST // 2, len(line) - _WIDEST))
        shown, column = line[begin : begin + _WIDEST], column - begin
        shown = ("…" if begin else "") + shown + ("…" if begin + _WIDEST < len(line) else "")
        column += 1 if begin else 0
    else:
        shown = line
    number = str(finding.line)
    pad = "".join("\t" if char == "\t" else " " for char in shown[:column])
    return f"  {number} | {_printable(shown)}\n  {' ' * len(number)} | {pad}^\n"


def _printable(text: str) -> str:
    """Replace what would steer a terminal."""
    return "".join(char if char.isprintable() or char == "\t" else "�" for char in text)


def _one_line(text: str) -> str:
    return _printable(text.replace("\n", " "))


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")


def _rule(code: str) -> dict[str, Any]:
    finding = FINDINGS[code]
    return {
        "id": code,
        "shortDescription": {"text": finding.meaning},
        "help": {"text": f"{finding.meaning} Instead: {finding.hint}."},
        "defaultConfiguration": {"level": finding.severity},
    }


def _result(finding: Diagnostic, rule: int) -> dict[str, Any]:
    message = f"{finding.message}. {finding.hint}" if finding.hint else finding.message
    file = {"uri": quote(finding.file.replace("\\", "/"), errors="surrogateescape")}
    region = {"startLine": finding.line, "startColumn": finding.column}
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": finding.severity,
        "message": {"text": message},
        "locations": [{"physicalLocation": {"artifactLocation": file, "region": region}}],
    }
    if (made := finding.replacement) is not None:
        deleted = {
            "startLine": made.line,
            "startColumn": made.column,
            "endLine": made.end_line,
            "endColumn": made.end_column,
        }
        changed = {"deletedRegion": deleted, "insertedContent": {"text": made.text}}
        result["fixes"] = [{"artifactChanges": [{"artifactLocation": file, "replacements": [changed]}]}]
    return result
