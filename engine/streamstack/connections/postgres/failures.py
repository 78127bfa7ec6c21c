"""From what asyncpg raises to the errors of the language."""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg

from streamstack.errors import RunError

#: Errors of PostgreSQL that may pass by themselves (Appendix A of its manual): a conflict with another transaction, a
#: lock, resources, a server that stops or starts. Of all others the statement is the cause.
PASSING: Final = ("40", "55P03", "53", "57", "58", "08")
#: The server ended the connection, and with it whatever was not committed.
_ENDED: Final = frozenset({"57P01", "57P05"})
#: The server can't be reached, or takes nobody now.
_AWAY: Final = frozenset({"57P03", "53300"})

#: A text, or a text in JSON, has the character that PostgreSQL can't hold.
_NO_NUL: Final = frozenset({"22021", "22P05"})

#: What the server says.
_SAID: Final[type[BaseException]] = asyncpg.PostgresError
#: What asyncpg raises.
RAISED: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
#: What a lost connection shows itself by.
LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    OSError,
)


def is_lost(error: BaseException) -> bool:
    """Whether an error means that the connection is gone, or could not be made."""
    if isinstance(error, asyncpg.InterfaceError):
        # Of asyncpg's own complaints only this one is about the connection.
        return "connection is closed" in str(error) or "connection was closed" in str(error)
    if isinstance(error, asyncpg.InternalClientError):
        return _was_refused(error)
    return isinstance(error, LOST)


def _was_refused(error: asyncpg.InternalClientError) -> bool:
    """Whether asyncpg sent nothing, as the server had said its last words on that connection.

    Between these (FATAL) and the end of the connection asyncpg takes it for busy (coreproto.pyx, `_set_state`).
    """
    return "cannot switch to state" in str(error) or "not connected" in str(error)


def ran_surely_not(error: BaseException) -> bool:
    """Whether a statement that met this error has surely left no trace.

    It has not where the server says that it ended the connection: what it had not committed is undone; nor where
    asyncpg sent nothing. Where the connection just broke, or the server ends for a crash (57P02), nobody knows.
    """
    error = _last_words(error)
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate in _ENDED | _AWAY
    if isinstance(error, asyncpg.InternalClientError):
        return _was_refused(error)
    return isinstance(error, (ConnectionRefusedError, FileNotFoundError)) or (
        isinstance(error, asyncpg.InterfaceError) and "connection is closed" in str(error)
    )


def _last_words(error: BaseException) -> BaseException:
    """Return what the server said before it closed the connection, which asyncpg gives as the cause of the loss."""
    cause: BaseException | None = error.__cause__
    lost = isinstance(error, asyncpg.PostgresConnectionError)
    return cause if lost and cause is not None and isinstance(cause, _SAID) else error


def is_ours(error: BaseException) -> bool:
    """Whether asyncpg itself refused a value, before anything was sent."""
    return type(error) is asyncpg.DataError and getattr(error, "severity", None) is None


def failure_of(error: BaseException, database: str) -> RunError:
    """Return the error ``database`` for what asyncpg raised.

    Its details hold `code` (SQLSTATE), `message`, and what the server tells: `detail`, `hint`, `table`, `column`,
    `constraint`. A database out of reach has the status 503.
    """
    if isinstance(error, RunError):
        return error
    error = _last_words(error)
    if is_ours(error):
        return RunError(
            "database",
            f"a value does not fit the statement: {error}",
            details={"code": "22000", "message": str(error)},
            final=True,
        )
    if isinstance(error, asyncpg.PostgresError):
        return _told(error, database)
    if is_lost(error) or isinstance(error, (asyncio.TimeoutError, OSError)):
        reason = str(error) or type(error).__name__
        return RunError(
            "database",
            f"the database `{database}` is out of reach: {reason}",
            status=503,
            details={"code": "08006", "message": reason},
        )
    if isinstance(error, asyncpg.InterfaceError):
        return RunError(
            "database",
            f"the database `{database}` can't do this: {error}",
            details={"code": "22000", "message": str(error)},
            final=True,
        )
    raise error


def _told(error: asyncpg.PostgresError, database: str) -> RunError:
    code = error.sqlstate or "XX000"
    told = {
        "detail": error.detail,
        "hint": error.hint,
        "table": getattr(error, "table_name", None),
        "column": getattr(error, "column_name", None),
        "constraint": getattr(error, "constraint_name", None),
    }
    details = {"code": code, "message": error.message or str(error)}
    details |= {name: text for name, text in told.items() if text}
    away = code in _AWAY | _ENDED | {"57P02"} or code.startswith("08")
    message = f"the database `{database}` says: {details['message']} ({code})"
    if code in _NO_NUL:
        message += (
            "; PostgreSQL's texts hold every character but U+0000: take it out with `replace`"
        )
    # The whole row, with whatever it holds, is for `error.details` and not for the log.
    if error.detail and not error.detail.startswith("Failing row"):
        message += f"; {error.detail}"
    if error.hint:
        message += f"; {error.hint}"
    if code == "25P02":
        message += ": a step before failed in this transaction; give one that may fail a `db.transaction` of its own"
    return RunError(
        "database",
        message,
        status=503 if away else None,
        details=details,
        final=not code.startswith(PASSING),
    )
