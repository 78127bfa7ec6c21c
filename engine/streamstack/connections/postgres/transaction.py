"""Transactions around steps: committed when they are left well, rolled back by an error."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from streamstack.connections.postgres.failures import failure_of
from streamstack.connections.postgres.session import Session
from streamstack.errors import RunError

if TYPE_CHECKING:
    from streamstack.connections.postgres.database import Database

ISOLATION: Final[Mapping[str, Any]] = {
    "readCommitted": "read_committed",
    "repeatableRead": "repeatable_read",
    "serializable": "serializable",
}

_Sessions = Mapping["Database", Session]

#: The sessions of the transactions that are open around the present task, by database.
_open: ContextVar[_Sessions | None] = ContextVar("transactions", default=None)


def session_around(database: Database) -> Session | None:
    """Return the session of the transaction that is open around the present task, if any."""
    around = _open.get()
    return None if around is None else around.get(database)


class Transaction:
    """An asynchronous context: all that runs inside and uses the database is one transaction.

    Within another it is a savepoint. Entering and leaving raise RunError ``database``; errors of what runs inside pass
    as they are.
    """

    __slots__ = ("_database", "_isolation", "_opened", "_owned", "_session", "_token")

    def __init__(self, database: Database, isolation: str | None = None) -> None:
        self._database = database
        self._isolation = None if isolation is None else ISOLATION[isolation]
        self._owned: Any = None  # the use of a connection of the pool, where this is the outermost
        self._token: Token[_Sessions | None] | None = None

    async def __aenter__(self) -> None:
        try:
            session = session_around(self._database)
            if session is None:
                self._owned = self._database.session()
                session = await self._owned.__aenter__()
            self._session = session
            try:
                await self._start(session)
            except BaseException as error:
                await self._release(error)
                raise
        except Exception as error:
            raise failure_of(error, self._database.name) from error
        if self._owned is not None:
            self._token = _open.set({**(_open.get() or {}), self._database: session})

    async def _start(self, session: Session) -> None:
        self._opened = session.connection.transaction(isolation=self._isolation)
        async with session.lock:
            await self._opened.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None:
            _open.reset(self._token)
        try:
            if error is not None:
                await self._roll_back()
            else:
                await self._commit()
        except Exception as failure:
            await self._release(failure)
            raise failure_of(failure, self._database.name) from failure
        except BaseException as stop:
            await self._release(stop)
            raise
        await self._release(error)

    async def _roll_back(self) -> None:
        # What ended it is told already, and a connection that is lost is rolled back by the server.
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            async with self._session.lock:
                if not self._session.connection.is_closed():
                    await self._opened.rollback()

    async def _commit(self) -> None:
        async with self._session.lock:
            if self._session.connection.is_closed():
                raise RunError(
                    "database",
                    "the connection was lost in the transaction, and with it all that it wrote",
                    status=503,
                    details={"code": "08006", "message": "connection lost"},
                )
            await self._opened.commit()

    async def _release(self, error: BaseException | None) -> None:
        """Give the connection back; one in disorder is brought into order by the pool."""
        owned, self._owned = self._owned, None
        if owned is None:
            return
        if error is None:
            await owned.__aexit__(None, None, None)
        else:
            with suppress(type(error)):
                await owned.__aexit__(type(error), error, error.__traceback__)
