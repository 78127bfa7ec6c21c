"""Errors: findings in a definition, and errors of a run; and `fast_dataclass`, of which syntax trees are made too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def fast_dataclass(*, order: bool = False) -> Callable[[type[T]], type[T]]:
    """Make a dataclass with slots that mypy holds to be frozen; at run time nothing stands guard.

    A frozen dataclass sets each field through `object.__setattr__`, which makes it four times as slow to create.
    Reading a large project creates a million of them.
    """
    return dataclass(slots=True, unsafe_hash=True, order=order)


Severity = Literal["error", "warning"]


@fast_dataclass(order=True)
class Mark:
    """A place in a file. Line and column count characters from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@fast_dataclass()
class Replacement:
    """What can be written in the place of the text from one place up to another, to correct a finding."""

    line: int
    column: int
    end_line: int
    end_column: int
    text: str


def replace_word(mark: Mark, word: str, text: str) -> Replacement:
    """Return what puts a text in the place of a word on one line."""
    return Replacement(mark.line, mark.column, mark.line, mark.column + len(word), text)


@fast_dataclass(order=True)
class Diagnostic:
    """One finding about a definition, at one place, with what to write instead.

    ``replacement`` is set where the correction is certain: `streamstack fix` writes it.
    """

    file: str
    line: int
    column: int
    severity: Severity
    code: str
    message: str
    hint: str = ""
    replacement: Replacement | None = field(default=None, compare=False)

    @property
    def mark(self) -> Mark:
        return Mark(self.file, self.line, self.column)


class ProjectError(Exception):
    """A project that can't be served. ``findings`` are its errors and warnings, the text is their report."""

    def __init__(self, message: str, findings: list[Diagnostic]) -> None:
        super().__init__(message)
        self.findings = findings


@fast_dataclass()
class Place:
    """A location in a definition, for the author. It is never sent to the client."""

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
    """A predefined error: the status of the response if the error is not caught, and its meaning.

    ``internal``: the message describes internals of the project, and the client gets a general message.
    """

    status: int
    meaning: str
    internal: bool = False


#: Every error that is not an author's own, by its code (reference: errors).
ERRORS = {
    "invalid-input": ErrorCode(400, "The request does not match the declared inputs. `errors` lists every problem."),
    "unauthorized": ErrorCode(401, "Authentication is missing or invalid."),
    "forbidden": ErrorCode(403, "The client is not allowed to do this."),
    "not-found": ErrorCode(404, "No endpoint has this path, `db.patch` found no row, or no run has this id."),
    "unknown-stream": ErrorCode(404, "The stream does not exist: it has expired, or it belongs to another client."),
    "method-not-allowed": ErrorCode(405, "The path exists, but not for this method."),
    "not-acceptable": ErrorCode(406, "The endpoint supports none of the formats in `Accept`."),
    "stopped": ErrorCode(
        409, "The run was cancelled: the client disconnected or cancelled it, or no client reconnected in time."
    ),
    "idempotency-key-reused": ErrorCode(422, "The `Idempotency-Key` was used with a different request."),
    "rate-limited": ErrorCode(429, "The client exceeded a rate limit."),
    "timeout": ErrorCode(504, "A step exceeded its `timeout`, or a stream exceeded its idle or total time-out."),
    "http-status": ErrorCode(502, "An upstream responded with a status that is not allowed."),
    "http-connection": ErrorCode(502, "The connection to an upstream failed."),
    "stream-lost": ErrorCode(502, "An upstream stream ended unexpectedly."),
    "invalid-chunk": ErrorCode(502, "A chunk of a stream could not be decoded."),
    "email-refused": ErrorCode(502, "The mail server rejected the message or all of its recipients."),
    "email-connection": ErrorCode(502, "The connection to the mail server failed; the message was not sent."),
    "email-unconfirmed": ErrorCode(
        502,
        "The connection to the mail server was lost while it took the message, which may have been sent. `retry` "
        "does not send it again.",
    ),
    "database": ErrorCode(500, "The database rejected a statement.", internal=True),
    "state-unreachable": ErrorCode(
        503, "The Redis of `state.url` is unreachable or rejected a command.", internal=True
    ),
    "template": ErrorCode(
        500,
        "An expression failed, or a step received a value of the wrong type. The log contains the file, the "
        "line, the expression and the types.",
        internal=True,
    ),
    "not-in-dialect": ErrorCode(
        500,
        "An endpoint with a provider's API protocol received content that the protocol can't represent.",
        internal=True,
    ),
    "limit-reached": ErrorCode(
        500, "A limit was exceeded, such as loop iterations, collected items or nested calls.", internal=True
    ),
    "producer-lost": ErrorCode(500, "The server stopped before the run ended."),
    "unavailable": ErrorCode(
        503, "The server can't handle the request now: it is shutting down, or can't verify the client's credentials."
    ),
    "internal": ErrorCode(500, "An internal error of streamstack. The log contains the details.", internal=True),
}

#: Status codes of errors that were not caught before the commit point.
STATUS = {code: error.status for code, error in ERRORS.items()}

#: Codes whose message describes the inside of the project; the client gets a general one.
INTERNAL = frozenset(code for code, error in ERRORS.items() if error.internal)


def forget_frames(error: BaseException | None) -> None:
    """Let go of the frames that an error has passed, and of what they hold, once it has been reported.

    A frame that keeps an error is kept by it, too: only the garbage collector would find the two.
    """
    met: set[int] = set()  # an error that was raised again while its own consequence was handled leads back to itself
    while error is not None and id(error) not in met:
        met.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


class RunError(Exception):
    """An error of a run, with a code that definitions can catch.

    ``status`` is the HTTP status of the response if the error is not caught before the first chunk. ``place``
    is set by the first frame of the definition that the error passes through. ``final``: retrying can't help.
    ``retry_after``: the seconds that an upstream asks to wait. ``parameter``: the argument whose value does not fit,
    `*` for any of them: where a client chose that value, the error is the client's. ``about`` holds more for the log,
    such as the URL that was called.
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
        parameter: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status if status is not None else STATUS.get(code, 500)
        self.details = details
        self.final = final
        self.retry_after = retry_after
        self.parameter = parameter
        self.place: Place | None = None
        self.about: dict[str, Any] = {}

    def copy(self) -> RunError:
        """Return the error for one more run: each adds to its own as it passes through."""
        copy = RunError(
            self.code,
            self.message,
            status=self.status,
            details=self.details,
            final=self.final,
            retry_after=self.retry_after,
        )
        copy.place = self.place
        return copy

    @property
    def full(self) -> str:
        """The message for the author, including the database's own message."""
        details = self.details
        if self.code != "database" or not isinstance(details, dict):
            return self.message
        named = f" ({details['database']})" if details.get("database") else ""
        words = [details.get("message"), details.get("detail"), details.get("hint")]
        # A row that failed, with whatever it holds, is for `error.details` and not for the log.
        shown = [str(each) for each in words if each and not str(each).startswith("Failing row")]
        return ": ".join([self.message + named, "; ".join(shown)]) if shown else self.message

    @property
    def public(self) -> str:
        """The message for the client."""
        if self.code in INTERNAL and self.status >= 500:
            return "The server could not complete this request."
        return self.message
