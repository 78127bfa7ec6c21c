"""Errors of asyncpg and PostgreSQL as errors of the language."""

from __future__ import annotations

from typing import Any, Final

import asyncpg

from streamstack.errors import RunError

#: Classes of SQLSTATE that may pass by themselves (PostgreSQL, Appendix A): a conflict with another transaction, a
#: lock, resources, a server that stops or starts. All others are caused by the statement.
PASSING: Final = ("40", "55P03", "53", "57", "58", "08")
#: The server closed the connection, and rolled back what was not committed.
_ENDED: Final = frozenset({"57P01", "57P05"})
#: The server can't be reached, or accepts no connection now.
_AWAY: Final = frozenset({"57P03", "53300"})
#: What asyncpg raises.
RAISED: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
#: Errors of a connection that is gone, or could not be made.
_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,  # the server has closed it, and asyncpg has not noticed yet
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    OSError,
)
#: Statuses and messages that clients see, by SQLSTATE or its class. They name nothing of the database.
_PUBLIC: Final = {
    "23505": (409, "a row with the same key exists already"),
    "23P01": (409, "the row conflicts with another one"),
    "23503": (400, "a row that this one refers to does not exist, or others still refer to it"),
    "23502": (400, "a required value is missing"),
    "23514": (400, "a value is not allowed"),
    "22021": (400, "a text holds the character U+0000, which can't be stored"),
    "22P05": (400, "a text holds the character U+0000, which can't be stored"),
    "22": (400, "a value is malformed or out of range"),
    "54023": (400, "the statement has too many values"),
    "25P02": (None, "an error before this ended the transaction"),
    "40": (None, "the statement conflicted with another one: it may work when tried again"),
    "55P03": (None, "another transaction holds a lock on the rows"),
    "57014": (None, "the statement was cancelled"),
    "08": (503, "the database is out of reach"),
    "57P": (503, "the database is out of reach"),
    "53300": (503, "the database is out of reach"),
}
#: What the author should know, beyond the database's own words.
_HINTS: Final = {
    "22021": "take U+0000 out with `replace`",
    "22P05": "take U+0000 out with `replace`",
    "25P02": "a step before failed in this transaction: give one that may fail a `db.transaction` of its own",
    **dict.fromkeys(
        ("26000", "42P05"),
        "behind a pooler that shares connections between transactions (PgBouncer, Supabase, Neon), set `poolMode:"
        " transaction` for the database",
    ),
}
#: Parameters that one statement may have (the protocol counts them in 16 bits).
MOST_PARAMETERS: Final = 32_767


class NotSentError(ConnectionError):
    """The connection was closed before the statement was sent."""


def is_lost(error: BaseException) -> bool:
    """Return whether an error means that the connection is gone, or could not be made."""
    return isinstance(error, _LOST)


def ran_surely_not(error: BaseException) -> bool:
    """Return whether a statement that met this error has surely left no trace.

    It has not where the server says that it closed the connection (what was not committed is rolled back), nor where
    nothing was sent. Where the connection broke, or the server crashed (57P02), it is unknown.
    """
    error = _last_words(error)
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate in _ENDED | _AWAY
    return isinstance(error, (ConnectionRefusedError, FileNotFoundError, NotSentError))


def _last_words(error: BaseException) -> BaseException:
    """Return what the server said before it closed the connection, which asyncpg gives as the cause of the loss."""
    cause: BaseException | None = error.__cause__
    lost = isinstance(error, asyncpg.PostgresConnectionError)
    return cause if lost and isinstance(cause, asyncpg.PostgresError) else error


def is_ours(error: BaseException) -> bool:
    """Return whether asyncpg itself refused a value, before anything was sent."""
    return type(error) is asyncpg.DataError and getattr(error, "severity", None) is None


def database_error(
    code: str, reason: str, *, final: bool | None = None, details: dict[str, Any] | None = None
) -> RunError:
    """Return the error ``database`` for a SQLSTATE; its message is fit for clients.

    Args:
        code: The SQLSTATE.
        reason: What the database, or the driver, says.
        final: Trying again can't help; None decides by the code.
        details: More for `error.details`.
    """
    status, message = next(
        (_PUBLIC[key] for key in (code, code[:3], code[:2]) if key in _PUBLIC),
        (None, "the database refused the statement"),
    )
    told: dict[str, Any] = {"code": code, "message": reason, **(details or {})}
    if code in _HINTS:
        told["hint"] = "; ".join(filter(None, (told.get("hint"), _HINTS[code])))
    if final is None:
        final = not code.startswith(PASSING)
    return RunError("database", message, status=status, details=told, final=final)


def failure_of(error: BaseException, database: str) -> RunError:
    """Return the error ``database`` for what asyncpg raised; raise again what is none of its errors.

    Its details hold `code` (SQLSTATE), `message`, `database`, and what the server tells: `detail`, `hint`, `table`,
    `column`, `constraint`. A database out of reach has the status 503.
    """
    if isinstance(error, RunError):
        return error
    error = _last_words(error)
    details: dict[str, Any] = {"database": database}
    if is_ours(error):
        return database_error("22000", str(error), details=details)
    if isinstance(error, asyncpg.PostgresError):
        told = {
            "detail": error.detail,
            "hint": error.hint,
            "table": getattr(error, "table_name", None),
            "column": getattr(error, "column_name", None),
            "constraint": getattr(error, "constraint_name", None),
        }
        details |= {name: value for name, value in told.items() if value}
        return database_error(error.sqlstate or "XX000", error.message or str(error), details=details)
    if is_lost(error) or isinstance(error, TimeoutError):
        return database_error("08006", str(error) or type(error).__name__, details=details)
    if isinstance(error, asyncpg.InterfaceError):
        return database_error("0A000", str(error), details=details)
    raise error
