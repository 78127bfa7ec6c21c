"""The Redis of a process: its connections, reconnecting, batched commands and scripts."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from hashlib import sha1
from math import inf
from typing import Any, Final, TypeAlias, TypeVar, cast

import structlog
from redis import asyncio as redis
from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import TimeoutError as LateError

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language.environment import RedisUrl

log = structlog.get_logger("streamstack.state")

T = TypeVar("T")
Client = redis.Redis

#: Seconds for a connection to be made, and for an answer to come.
CONNECT: Final = 1.0
ANSWER: Final = 3.0
#: Seconds to wait for a Redis that was there a moment ago: one that is started again is back in less.
PATIENCE: Final = 1.0
#: Seconds to wait while another asks whether one that is known to be away is back.
_PROBE_WAIT: Final = 0.3
#: Seconds for which one that did not answer is left alone.
_QUIET: Final = 0.5
#: Connections of one process. Redis does one thing at a time: more would only wait there.
MOST: Final = 32


Command: TypeAlias = tuple[bytes | str | int | float, ...]
_Queued: TypeAlias = tuple[Command, "asyncio.Future[Any]"]

#: Commands that are sent in one batch.
_MOST_BATCHED: Final = 500


class Script:
    """A script that Redis runs as one step (https://redis.io/docs/latest/develop/programmability/eval-intro/)."""

    __slots__ = ("digest", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = sha1(source.encode(), usedforsecurity=False).hexdigest()


async def execute_command(client: Client, *command: bytes | str | float) -> Any:
    """Send one command and return its answer, as it comes."""
    return await client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's has no types


def cancellations() -> int:
    """Return how often the present task was cancelled; who asks redis-py compares, and stops where there were more.

    It writes under asyncio.wait_for, which before Python 3.12 forgets a cancellation that comes as the write ends
    (https://github.com/python/cpython/issues/86296).
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def _ping(client: Client) -> None:
    await execute_command(client, "PING")


class _WithCause(AbstractConnection):
    """Reports a connection that is closed already like one that is lost: uvloop raises RuntimeError there."""

    async def connect(self) -> None:
        with clock.outside():
            await super().connect()  # type: ignore[no-untyped-call]  # it has no types

    async def send_packed_command(self, *args: Any, **named: Any) -> None:
        try:
            with clock.outside():
                await super().send_packed_command(*args, **named)
        except RuntimeError as error:
            await self.disconnect(nowait=True)
            raise LostError("the connection was closed") from error

    async def read_response(self, *args: Any, **named: Any) -> Any:
        # Who sets a time waits for messages, and has sent nothing that is to be answered.
        with clock.outside() if named.get("timeout") is None else nullcontext():
            return await super().read_response(*args, **named)


class _Tcp(_WithCause, Connection):
    pass


class _Tls(_WithCause, SSLConnection):
    pass


class _Local(_WithCause, UnixDomainSocketConnection):
    pass


class _Pool(BlockingConnectionPool):
    """Connections that are made when they are needed, and made again when Redis was away.

    Nothing has been sent yet when a connection is asked for: so a Redis that has just gone is waited for, for
    PATIENCE. Once it was away for longer, commands fail at once, and one of them at a time looks for it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(max_connections=MOST, timeout=ANSWER, **options)
        self.patience = 0.0  # seconds; nothing until it was reached once, and while it is away
        self._silent = 0.0  # when it last did not answer
        self._reported_at = -inf  # when the log was last told
        self._away = False  # what it was told
        self._probing = asyncio.Lock()

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connect, where it is not. Raises what redis-py raises where that fails."""
        if connection.is_connected:
            # Redis may have closed it: the loop reads that in its next turn, after what is due already.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if not self.patience and await self._probe(connection):
            return
        until = clock.monotonic() + self.patience
        pause = 0.01
        while True:
            try:
                await super().ensure_connection(connection)
                return
            except AuthenticationError:
                raise
            except (LostError, LateError, OSError):
                if clock.monotonic() + pause > until:
                    self.patience = 0.0
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)

    async def _probe(self, connection: AbstractConnection) -> bool:
        """Connect, the first to do so; False where another one has, so that all may."""
        if clock.monotonic() < self._silent + _QUIET:
            raise LostError("it was silent a moment ago")
        try:
            async with asyncio.timeout(_PROBE_WAIT if self._away else CONNECT):
                await self._probing.acquire()
        except TimeoutError:
            raise LostError("it was so a moment ago") from None
        try:
            if self.patience > 0:
                return False
            await super().ensure_connection(connection)
            if self._silent:
                await _hear(connection)
            self.patience, self._silent = PATIENCE, 0.0
            if self._away:
                self._away, self._reported_at = False, -inf
                log.info("state-reached")
            return True
        except LateError:
            self.fall_silent()
            raise
        finally:
            self._probing.release()

    def fall_silent(self) -> None:
        """Record that it did not answer: who comes next is not to wait as long for nothing."""
        self.patience, self._silent = 0.0, clock.monotonic()

    def report(self, reason: str) -> None:
        """Put into the log that it is away, once; what it refuses while it is there, once a minute."""
        away = not self.patience
        if away != self._away or (not away and clock.monotonic() > self._reported_at + 60):
            self._away, self._reported_at = away, clock.monotonic()
            log.warning("state-unreachable", reason=reason)


async def _hear(connection: AbstractConnection) -> None:
    """Make sure that it answers, not only that it takes connections. Raises what redis-py raises."""
    try:
        async with asyncio.timeout(CONNECT):
            await connection.send_command("PING")
            await connection.read_response()
    except TimeoutError:
        await connection.disconnect(nowait=True)
        raise LateError("it does not answer") from None


class CommandBatcher:
    """One connection of a pool at a time, for short commands: while some are answered, the next ones gather."""

    __slots__ = ("_pool", "_queue", "_sending")

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._queue: list[_Queued] = []
        self._sending: asyncio.Task[None] | None = None

    async def execute(self, *command: bytes | str | float) -> Any:
        """Send a command and return its answer. Raises what redis-py raises.

        Who is cancelled takes no notice of the answer; the command may have been done.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.append((command, future))
        if self._sending is None:
            self._sending = loop.create_task(self._send())
        return await future

    async def _send(self) -> None:
        """Send what was queued, as long as there is something."""
        try:
            while self._queue:
                queued, self._queue = self._queue[:_MOST_BATCHED], self._queue[_MOST_BATCHED:]
                queued = [each for each in queued if not each[1].done()]
                if queued:
                    await self._exchange(queued)
        finally:
            self._sending = None
            _fail(self._queue, LostError("the connection was closed"))
            self._queue = []

    async def _exchange(self, queued: list[_Queued]) -> None:
        try:
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # it has no types
            try:
                await _exchange_on(connection, queued)
            finally:
                await self._pool.release(connection)
        except (RedisError, OSError) as error:
            # Those who came meanwhile have waited as long: they are not to wait once more.
            _fail(queued + self._queue, error)
            self._queue = []
        finally:
            _fail(queued, LostError("the connection was closed"))

    async def aclose(self) -> None:
        """Send nothing more."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])


async def _exchange_on(connection: AbstractConnection, queued: list[_Queued]) -> None:
    """Send commands, and hand out their answers in the same order."""
    packed = connection.pack_commands(command for command, _ in queued)
    await connection.send_packed_command(packed)
    for _, future in queued:
        try:
            answer = await connection.read_response()
        except ResponseError as refusal:
            if not future.done():
                future.set_exception(refusal)
        else:
            if not future.done():
                future.set_result(answer)


def _fail(queued: list[_Queued], error: Exception) -> None:
    """Tell those who have no answer yet."""
    for _, future in queued:
        if not future.done():
            future.set_exception(error)


class Redis:
    """A Redis, shared by all runs of a process; it connects when it is first asked.

    ``client`` is redis-py's, for what is asked inside of `run`. Its answers are bytes.
    """

    __slots__ = ("_batcher", "_prefix", "client", "url")

    def __init__(self, url: RedisUrl, prefix: str = "") -> None:
        self.url = url
        self._prefix = f"streamstack:{prefix}:" if prefix else "streamstack:"
        pool = _Pool(**_options(url))
        self.client: Client = redis.Redis(connection_pool=pool)
        self._batcher = CommandBatcher(pool)

    def key(self, kind: str, name: bytes | str = b"") -> bytes:
        """Return the key of a thing: the project's prefix, what kind of thing it is, its name."""
        start = f"{self._prefix}{kind}:".encode()
        return start + (name.encode("utf-8", "replace") if isinstance(name, str) else name)

    async def run(self, work: Callable[[Client], Awaitable[T]], *, again: bool = False) -> T:
        """Ask Redis for something.

        ``again``: the work may be done twice, so it is where the connection was lost before the answer came.
        Raises RunError ``state-unreachable``.
        """

        async def run_on_client() -> T:
            before = cancellations()
            found = await work(self.client)
            if cancellations() > before:
                raise asyncio.CancelledError
            return found

        return await self._try(run_on_client, again=again)

    async def call(self, script: Script, keys: Sequence[bytes], values: Sequence[Any], *, again: bool = False) -> Any:
        """Run a script, and return what it returns. ``again`` and what it raises are as those of `run`."""

        async def work() -> Any:
            arguments = (len(keys), *keys, *values)
            try:
                return await self._batcher.execute("EVALSHA", script.digest, *arguments)
            except NoScriptError:  # a Redis that was started since
                return await self._batcher.execute("EVAL", script.source, *arguments)

        return await self._try(work, again=again)

    async def _try(self, work: Callable[[], Awaitable[T]], *, again: bool) -> T:
        until = clock.monotonic() + PATIENCE
        while True:
            try:
                return await work()
            except (RedisError, OSError) as error:
                if isinstance(error, BusyLoadingError):  # it has done nothing
                    pause = 0.02
                elif again and _is_lost(error):
                    again, pause = False, 0.0
                else:
                    await self._learn(error)
                    raise self._fault(error) from error
                if clock.monotonic() > until:
                    await self._learn(error)
                    raise self._fault(error) from error
            await asyncio.sleep(pause)

    async def _learn(self, error: Exception) -> None:
        """Draw the conclusions from an error."""
        if isinstance(error, LateError):
            self._pool.fall_silent()
        elif isinstance(error, ReadOnlyError):
            # It was the first of several, and another one is now: its name leads there.
            await self._pool.disconnect(inuse_connections=False)

    async def reach(self) -> None:
        """Ask whether it is there. Raises RunError ``state-unreachable``."""
        await self.run(_ping)

    def listener(self) -> Client:
        """Return a client for commands that wait for what comes (BLOCK), on connections of its own; it is to be closed.

        What it raises is made a RunError by `fault`.
        """
        options = _options(self.url) | {"socket_timeout": None}
        return redis.Redis.from_pool(BlockingConnectionPool(max_connections=MOST, **options))

    def fault(self, error: Exception) -> RunError:
        """Return the error of a run for an error of redis-py."""
        return RunError("state-unreachable", f"the state at {self.url} {_reason(error)}")

    def _fault(self, error: Exception) -> RunError:
        fault = self.fault(error)
        self._pool.report(fault.message)
        return fault

    @property
    def _pool(self) -> _Pool:
        return cast("_Pool", self.client.connection_pool)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._batcher.aclose()
        await self.client.aclose()
        await self._pool.aclose()


def _options(url: RedisUrl) -> dict[str, Any]:
    """Return how to make a connection."""
    options: dict[str, Any] = {
        "db": url.database,
        "username": url.user,
        "password": url.password,
        "socket_connect_timeout": CONNECT,
        "socket_timeout": ANSWER,
        # Nothing is sent twice by itself: what was counted before its answer was lost would count twice.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,
        "connection_class": _Tls if url.tls else _Tcp,
    }
    if url.path is not None:
        return options | {"path": url.path, "connection_class": _Local}
    return options | {"host": url.host, "port": url.port, "socket_keepalive": True, **url.options}


def _is_lost(error: Exception) -> bool:
    """Return whether it is unknown what became of a command."""
    return isinstance(error, (LostError, LateError, OSError)) and not isinstance(error, AuthenticationError)


def _reason(error: Exception) -> str:
    """Say what is wrong, in words that hold no secret."""
    if isinstance(error, AuthenticationError):
        return "refuses the user or the password of `state.url`"
    if isinstance(error, LateError):
        return "is out of reach: it does not answer in time"
    if isinstance(error, (LostError, OSError)):
        return f"is out of reach: {_cause(error)}"
    if isinstance(error, InvalidResponse):
        return "does not answer as a Redis does: is another server there, or is TLS (rediss://) needed?"
    return f"refuses: {error}" if isinstance(error, ResponseError) else f"fails: {type(error).__name__}"


def _cause(error: BaseException) -> str:
    """Say why a connection failed, in the system's words where it has some."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"TLS fails ({cause.reason or type(cause).__name__})"
        if isinstance(cause, socket.gaierror):
            return str(cause.strerror)
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return str(error).rstrip(".") or type(error).__name__
