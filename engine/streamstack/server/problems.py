"""Errors as clients see them (RFC 9457) and as the log tells them."""

from __future__ import annotations

from typing import Any

import structlog

from streamstack.errors import ERRORS, INTERNAL, Place, RunError
from streamstack.language.masking import masked
from streamstack.language.values import to_json
from streamstack.server.heads import phrase

log = structlog.get_logger("streamstack.server")

CONTENT_TYPE = "application/problem+json"


class RefusalError(RunError):
    """An error whose answer has header lines of its own: `WWW-Authenticate`, `Retry-After`."""

    def __init__(
        self, code: str, message: str, *, status: int | None = None, lines: bytes = b""
    ) -> None:
        super().__init__(code, message, status=status)
        self.lines = lines


def problem(error: RunError, run: str | None, status: int, *, dev: bool = False) -> bytes:
    """Return the problem document of an error: inside knowledge only with ``dev``."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": phrase(status) or "Error",
        "status": status,
        "detail": _told(error, dev=dev),
        "code": error.code,
    }
    if run is not None:
        document["run"] = run
    if error.code == "invalid-input" and isinstance(error.details, list):
        document["errors"] = error.details
    if dev and error.place is not None:
        document["place"] = place_of(error.place)
    return _safe(document)


def in_band(error: RunError, run: str, *, dev: bool = False) -> dict[str, Any]:
    """Return what a client is told of an error after the commit point."""
    told: dict[str, Any] = {
        "code": error.code,
        "message": _told(error, dev=dev),
        "run": run,
    }
    if dev and error.place is not None:
        told["place"] = place_of(error.place)
    return told


def _told(error: RunError, *, dev: bool) -> str:
    """Return what a client reads of an error, without secrets; an author's own words may look like some."""
    return masked(error.full if dev else error.public, forms=error.code in ERRORS)


def place_of(place: Place) -> dict[str, Any]:
    """Return a place of a definition as an object, for its author."""
    return {
        "file": place.mark.file,
        "line": place.mark.line,
        "column": place.mark.column,
        "step": place.step,
        "path": place.path,
        "expression": place.expression,
        "types": place.types,
    }


def report(error: RunError, *, run: str, endpoint: str, sent: int) -> None:
    """Log an error of a run with its place. ``sent`` is the chunks that went before."""
    if isinstance(error, RefusalError) and error.code == "unavailable":
        return  # what is out of reach has told so itself, once for all whom it keeps out
    place = error.place
    told: dict[str, Any] = {
        "run": run,
        "endpoint": endpoint,
        "code": error.code,
        "message": error.full,
        "chunks": sent,
    }
    told |= error.about
    if place is not None:
        told |= {"place": str(place.mark), "step": place.step, "path": place.path}
        if place.expression:
            told["expression"] = place.expression
        if place.types:
            told["types"] = place.types
    if error.code == "internal":
        log.error("run-failed", exc_info=error.__cause__, **told)
    elif is_fault(error):
        log.error("run-failed", **told)
    else:
        log.debug("run-refused", **told)


def is_fault(error: RunError) -> bool:
    """Tell whether an error is the server's or its author's fault, not that of who asked, nor the author's `throw`."""
    return error.status >= 500 or error.code in INTERNAL


def internal(cause: BaseException) -> RunError:
    """Wrap an exception that no part of the engine should have let out."""
    error = RunError("internal", f"{type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error


def _safe(document: dict[str, Any]) -> bytes:
    try:
        return to_json(document)
    except RunError:
        # Details that have no JSON must not hide the error itself.
        document.pop("errors", None)
        return to_json(document)
