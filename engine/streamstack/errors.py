"""What can go wrong: findings in a definition, errors of a run."""

from __future__ import annotations

from typing import Any, Literal

from streamstack.records import fast_dataclass

Severity = Literal["error", "warning"]


@fast_dataclass(order=True)
class Mark:
    """A place in a file. Line and column count characters from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@fast_dataclass(order=True)
class Diagnostic:
    """One finding about a definition, at one place, with what to write instead."""

    file: str
    line: int
    column: int
    severity: Severity
    code: str
    message: str
    hint: str = ""

    @property
    def mark(self) -> Mark:
        return Mark(self.file, self.line, self.column)


class ProjectError(Exception):
    """A project that can't be served. ``findings`` are its errors and warnings, the text is the report of them."""

    def __init__(self, message: str, findings: list[Diagnostic]) -> None:
        super().__init__(message)
        self.findings = findings


@fast_dataclass()
class Place:
    """Where in a definition a run was: told to the author, never to the client."""

    mark: Mark
    step: str
    path: str
    expression: str = ""
    types: str = ""

    def __str__(self) -> str:
        text = f"{self.mark}: step {self.step} ({self.path})"
        if self.expression:
            text += f", in << {self.expression} >>"
        if self.types:
            text += f", where {self.types}"
        return text


@fast_dataclass()
class ErrorCode:
    """An error of the language: the status it answers when nobody catches it, and what it means.

    ``internal``: its message describes the inside of the project, and the client gets a general one.
    """

    status: int
    meaning: str
    internal: bool = False


#: Every error that is not an author's own, by its code (reference: errors).
ERRORS = {
    "invalid-input": ErrorCode(
        400, "What was sent does not fit the declared inputs; `errors` names every fault."
    ),
    "unauthorized": ErrorCode(401, "The caller did not prove who it is."),
    "forbidden": ErrorCode(403, "The caller may not do this."),
    "not-found": ErrorCode(404, "Nothing has this path."),
    "unknown-stream": ErrorCode(
        404, "The stream does not exist: it has expired, or it belongs to another client."
    ),
    "method-not-allowed": ErrorCode(405, "The path has endpoints, none for this method."),
    "not-acceptable": ErrorCode(406, "`Accept` names no format that the endpoint has."),
    "stopped": ErrorCode(
        409, "The run was stopped before its end: by its reader, or since no reader came back."
    ),
    "idempotency-key-reused": ErrorCode(
        422, "The `Idempotency-Key` began a run with another request."
    ),
    "rate-limited": ErrorCode(429, "The caller called too often."),
    "timeout": ErrorCode(
        504,
        "A step took longer than its `timeout`, or the stream was silent or lasted longer than "
        "its limits allow.",
    ),
    "http-status": ErrorCode(502, "Another server answered with a status that is not allowed."),
    "http-connection": ErrorCode(502, "Another server could not be reached."),
    "stream-lost": ErrorCode(502, "A stream of another server ended before its end."),
    "invalid-chunk": ErrorCode(502, "A stream brought something that can't be read."),
    "database": ErrorCode(500, "The database refused a statement.", internal=True),
    "state-unreachable": ErrorCode(
        503,
        "The Redis of `state.url` is out of reach, or refuses what it is asked.",
        internal=True,
    ),
    "template": ErrorCode(
        500,
        "An expression failed, or a step received an invalid value. The log contains the file, "
        "the line, the expression and the types.",
        internal=True,
    ),
    "not-in-dialect": ErrorCode(
        500,
        "An endpoint that speaks as a model provider's API was given content that such an API has no "
        "words for.",
        internal=True,
    ),
    "limit-reached": ErrorCode(
        500, "Something grew past its limit: a loop, a collected stream, calls.", internal=True
    ),
    "producer-lost": ErrorCode(500, "The server stopped before the run had ended."),
    "unavailable": ErrorCode(
        503, "The server can't take this request now: it is shutting down, or can't tell who calls."
    ),
    "internal": ErrorCode(500, "A fault of streamstack itself; the log has it.", internal=True),
}

#: Status codes of errors that nobody caught before the commit point.
STATUS = {code: error.status for code, error in ERRORS.items()}

#: Codes whose message describes the inside of the project; the client gets a general one.
INTERNAL = frozenset(code for code, error in ERRORS.items() if error.internal)


class RunError(Exception):
    """An error of a run, with the code its author can catch.

    ``status`` is the HTTP status it answers when nobody catches it before the commit point.
    ``place`` is filled in by the first frame of the definition that it passes through.
    ``final``: trying again can't mend it. ``retry_after``: the seconds that an upstream asks to be left alone.
    ``about`` holds more for the log, such as the URL that was called.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        details: Any = None,
        final: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status if status is not None else STATUS.get(code, 500)
        self.details = details
        self.final = final
        self.retry_after = retry_after
        self.place: Place | None = None
        self.about: dict[str, Any] = {}

    @property
    def full(self) -> str:
        """The message for the author: with what the database said in its own words."""
        details = self.details
        if self.code != "database" or not isinstance(details, dict):
            return self.message
        named = f" ({details['database']})" if details.get("database") else ""
        words = [details.get("message"), details.get("detail"), details.get("hint")]
        # A row that failed, with whatever it holds, is for `error.details` and not for the log.
        told = [str(each) for each in words if each and not str(each).startswith("Failing row")]
        return ": ".join([self.message + named, "; ".join(told)]) if told else self.message

    @property
    def public(self) -> str:
        """The message a client may see."""
        if self.code in INTERNAL and self.status >= 500:
            return "The server could not complete this request."
        return self.message
