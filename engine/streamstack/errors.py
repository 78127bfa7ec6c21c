"""What can go wrong: findings in a definition, errors of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file. Line and column count characters from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, order=True)
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


@dataclass(frozen=True, slots=True)
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


#: Status codes of errors that nobody caught before the commit point (reference: errors).
STATUS = {
    "invalid-input": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not-found": 404,
    "rate-limited": 429,
    "timeout": 504,
    "http-status": 502,
    "http-connection": 502,
    "stream-lost": 502,
    "invalid-chunk": 502,
    "database": 500,
    "template": 500,
    "limit-reached": 500,
    "producer-lost": 500,
    "internal": 500,
}

#: Codes whose message describes the inside of the project; the client gets a general one.
INTERNAL = frozenset({"template", "internal", "database", "limit-reached"})


class RunError(Exception):
    """An error of a run, with the code its author can catch.

    ``status`` is the HTTP status it answers when nobody catches it before the commit point.
    ``place`` is filled in by the first frame of the definition that it passes through.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        details: Any = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status if status is not None else STATUS.get(code, 500)
        self.details = details
        self.place: Place | None = None

    @property
    def public(self) -> str:
        """The message a client may see."""
        if self.code in INTERNAL:
            return "The server could not complete this request."
        return self.message
