"""Cached answers of endpoints: one run for all who ask, recorded as chunks, and replayed in any format."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from math import floor
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
import structlog

from streamstack import clock
from streamstack.connections.state import size_in_memory
from streamstack.errors import RunError
from streamstack.functions.state import make_alone, open_slots, open_state, read_cached
from streamstack.language.definition import Cache
from streamstack.language.names import ForwardedHeaders, without_body
from streamstack.language.values import MISSING, to_json
from streamstack.runtime.faults import located
from streamstack.runtime.plan import Plan
from streamstack.runtime.run import Context, Run, Sink, check_content, check_open
from streamstack.server.access import claims_of
from streamstack.server.headers import check_status, cookie_headers, own_headers

if TYPE_CHECKING:
    from streamstack.server.endpoints import EndpointHandler
    from streamstack.server.response import ResponseSink
    from streamstack.server.service import Service

log = structlog.get_logger("streamstack.cache")

_OK: Final = HTTPStatus.OK.value
#: The form of stored answers: those of another one are not read.
_VERSION: Final = 1
#: Bytes that a recorded chunk takes beside its content.
_OVERHEAD: Final = 200
#: Chunks that are replayed before others have the event loop.
_BATCH: Final = 256


class PrivateAnswerError(Exception):
    """An answer with cookies, which is for the client alone that its run was begun for."""


class _Follower:
    """A request that a recording is replayed to, and how far it is."""

    __slots__ = ("position",)

    def __init__(self) -> None:
        self.position = 0


class Recording(Sink):
    """What a run sends: each call of its sink, for followers to repeat on theirs, from the first one on.

    One with more than ``max_size`` bytes is not stored, takes no further followers, and holds only what those that it
    has still need; the run then waits for the slowest of them.
    """

    __slots__ = (
        "_base",
        "_changes",
        "_max_size",
        "_size",
        "calls",
        "cancels",
        "error",
        "followers",
        "full",
        "over",
        "private",
        "status",
        "task",
        "token",
        "value",
    )

    def __init__(self, max_size: int = 0, *, cancels: bool = False) -> None:
        super().__init__()
        self.calls: list[tuple[int, str, tuple[Any, ...]]] = []  # with their sizes
        self._base = 0  # the position of the first of them
        self._size = 0
        self._max_size = max_size
        self._changes: list[asyncio.Future[None]] = []
        self.status: int = _OK
        self.token = token_urlsafe(12)
        self.value = ""  # of a json endpoint, as JSON
        self.private = False
        self.full = False
        self.over = False
        self.error: RunError | None = None
        self.followers: set[_Follower] = set()
        self.cancels = cancels  # the run ends when its last follower has left
        self.task: asyncio.Task[None] | None = None

    # ------------------------------------------------------------- what the run calls

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        check_content(self, content)
        size = size_in_memory((content, metadata)) + _OVERHEAD
        self._record(size, "emit", content, event, id, metadata)
        self.count += 1
        self.bytes += size
        return self.count == 1 or self._lags

    async def drain(self) -> None:
        await asyncio.sleep(0)
        while self._lags:
            await self._change()

    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        check_open(self)
        parts = () if content is MISSING else (content,)
        self._record(size_in_memory((*parts, metadata)), "done", metadata, *parts)
        self.ended = True

    def respond(self, status: int | None, headers: Mapping[str, str], cookies: Mapping[str, Any]) -> None:
        if self.count:
            raise RunError("template", "the status line has been sent: `respond` must come before the first chunk")
        if status is not None:
            self.status = check_status(status)
        if isinstance(headers, ForwardedHeaders):
            headers = without_body(headers)
        own = own_headers(headers, bound=True)
        cookie_headers(cookies)
        self.private = self.private or bool(cookies) or any(name.lower() == "set-cookie" for name, _ in own)
        self._record(_OVERHEAD, "respond", status, dict(headers), dict(cookies))

    def _record(self, size: int, name: str, *arguments: Any) -> None:
        self.calls.append((size, name, arguments))
        self._size += size
        self.full = self.full or self._size > self._max_size
        self._notify()

    @property
    def _lags(self) -> bool:
        return self.full and bool(self.followers) and self._size > self._max_size

    # ------------------------------------------------------------- its end

    def finish(self, value: str) -> None:
        """End it well, with the value of a json endpoint."""
        self.value, self.over = value, True
        self._notify()

    def fail(self, error: RunError) -> None:
        """End it with an error, for all of its followers, unless it has ended well."""
        if self.over:
            return
        self.error, self.over = error, True
        self._notify()

    @property
    def etag(self) -> str:
        """What identifies the value (RFC 9110, section 8.8.3)."""
        return f'"{hashlib.sha256(self.value.encode()).hexdigest()[:32]}"'

    # ------------------------------------------------------------- what is stored

    def entry(self) -> dict[str, Any]:
        """Return it as a value of the store."""
        calls = [[name, *arguments] for _, name, arguments in self.calls]
        return {"at": clock.time(), "status": self.status, "token": self.token, "value": self.value, "calls": calls}

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Recording:
        """Return the recording of an entry."""
        recording = cls()
        recording.adopt(entry)
        return recording

    def adopt(self, entry: Mapping[str, Any]) -> None:
        """Become what another process has stored."""
        self.calls = [(0, name, tuple(arguments)) for name, *arguments in entry["calls"]]
        self.status, self.token = entry["status"], entry["token"]
        self.finish(entry["value"])

    # ------------------------------------------------------------- followers

    async def replay(self, sink: ResponseSink, *, leads: bool) -> None:
        """Repeat all calls on a sink, those to come when they come. Cancelled when its client leaves.

        Raises PrivateAnswerError for what is for another client, before anything is sent, and RunError as the run did.
        """
        mine = _Follower()
        self.followers.add(mine)
        try:
            while True:
                if self.private and not leads:
                    raise PrivateAnswerError
                await self._catch_up(sink, mine)
                if mine.position - self._base < len(self.calls):
                    continue
                if self.over:
                    break
                await self._change()
            if self.error is not None:
                raise self.error.copy()
        finally:
            self.followers.discard(mine)
            self._trim()
            if self.cancels and not self.followers and not self.over and self.task is not None:
                self.task.cancel()

    async def _catch_up(self, sink: ResponseSink, mine: _Follower) -> None:
        for _ in range(_BATCH):
            at = mine.position - self._base
            if at >= len(self.calls):
                break
            _, name, arguments = self.calls[at]
            mine.position += 1
            if name == "emit":
                if sink.emit(*arguments):
                    await sink.drain()
            elif name == "respond":
                sink.respond(*arguments)
            else:
                metadata, *content = arguments
                sink.done(content[0] if content else MISSING, metadata)
        else:
            await asyncio.sleep(0)
        self._trim()

    def _trim(self) -> None:
        """Drop what all followers have had, where it is not stored."""
        if not self.full:
            return
        least = min((each.position for each in self.followers), default=self._base + len(self.calls))
        gone = least - self._base
        self._size -= sum(size for size, _, _ in self.calls[:gone])
        del self.calls[:gone]
        self._base = least
        self._notify()

    def _notify(self) -> None:
        changes, self._changes = self._changes, []
        for each in changes:
            if not each.done():
                each.set_result(None)

    async def _change(self) -> None:
        change = asyncio.get_running_loop().create_future()
        self._changes.append(change)
        await change


class ResponseCache:
    """The answers of one endpoint: those in the store, and those that runs are recording.

    Args:
        plan: The endpoint.
        cache: Its `cache`.
        whole: Whether it answers one JSON value.
    """

    def __init__(self, plan: Plan, cache: Cache, *, whole: bool) -> None:
        self._plan = plan
        self._cache = cache
        self._whole = whole
        self._recordings: dict[bytes, Recording] = {}

    async def answer(self, service: Service, served: EndpointHandler, run: Run, inputs: dict[str, Any]) -> Any:
        """Answer a request from the store, or with what a run sends; return what the endpoint answers.

        Raises RunError as the stack does.
        """
        sink = cast("ResponseSink", run.sink)
        key = self._key(run, sink, inputs)
        if key is None:
            self._note(sink, "bypass", "fwd=bypass")
            return await served.start(run, inputs)
        recording = self._recordings.get(key)  # it may end while the store is read
        entry = await read_cached(run.context.resource(open_state).store, key)
        if entry is not MISSING:
            return await self._answer_stored(service, served, run, inputs, key, entry)
        recording = recording or self._recordings.get(key)
        leads = recording is None or recording.full or recording.private
        if sink.request.method == "HEAD" and not (self._whole or sink.wire.spec.whole) and leads:
            return None  # nothing of a stream is needed but its head
        if not leads and recording is not None:
            self._note(sink, "follow", "fwd=uri-miss; collapsed")
            try:
                return await self._follow(recording, sink, leads=False)
            except PrivateAnswerError:
                sink.headers.pop()
        self._note(sink, "miss", "fwd=uri-miss")
        return await self._follow(self._begin(service, served, run, inputs, key), sink, leads=True)

    def _key(self, run: Run, sink: ResponseSink, inputs: dict[str, Any]) -> bytes | None:
        """Return the key of a request in the store; None where `by` is null.

        Raises RunError for what can't be a key.
        """
        by: Any = self._plan.cache_key(run, inputs)
        if by is None:
            return None
        if by is MISSING:
            absent = sorted(getattr(inputs, "absent", ()))
            by = [dict(inputs), absent, claims_of(run.auth)]
        headers = sink.request.headers
        varied = [",".join(headers.getall(name, ())) if name in headers else None for name in self._cache.headers]
        variants = sorted((name, bound["variant"]) for name, bound in run.experiment.items())
        data = to_json([_VERSION, self._plan.endpoint.title, self._plan.version, by, varied, variants])
        return b"endpoint:" + hashlib.sha256(data).hexdigest().encode()

    @staticmethod
    def _note(sink: ResponseSink, result: str, status: str) -> None:
        """Note what became of a request, for its client (RFC 9211), the log and the metrics."""
        sink.cached = result
        sink.headers.append(("Cache-Status", f"streamstack; {status}"))

    async def _answer_stored(
        self,
        service: Service,
        served: EndpointHandler,
        run: Run,
        inputs: dict[str, Any],
        key: bytes,
        entry: Mapping[str, Any],
    ) -> Any:
        sink = cast("ResponseSink", run.sink)
        age = max(clock.time() - entry["at"], 0.0)
        stale = age >= self._cache.ttl
        self._note(sink, "stale" if stale else "hit", f"hit; ttl={floor(self._cache.ttl - age)}")
        sink.headers.append(("Age", str(int(age))))
        if stale and key not in self._recordings:
            self._begin(service, served, run, inputs, key, refreshes=True)
        return await self._follow(Recording.of(entry), sink, leads=False)

    async def _follow(self, recording: Recording, sink: ResponseSink, *, leads: bool) -> Any:
        """Send what a recording has; return the value of a json endpoint."""
        request, whole = sink.request, self._whole
        validates = request.method in ("GET", "HEAD") and sink.wire.spec.whole
        if validates and not whole and recording.over and recording.status == _OK:
            # The figures at the end of such a document are those of each request: it is equivalent, not equal.
            validated = _validate(sink, f'W/"{recording.token}"')
            if validated:
                return None
        await recording.replay(sink, leads=leads)
        if not whole:
            return None
        if validates and sink.status == _OK:
            _validate(sink, recording.etag)
        return orjson.Fragment(recording.value)

    # ------------------------------------------------------------- runs

    def _begin(
        self,
        service: Service,
        served: EndpointHandler,
        run: Run,
        inputs: dict[str, Any],
        key: bytes,
        *,
        refreshes: bool = False,
    ) -> Recording:
        """Begin a run of the stack, which others may follow."""
        recording = Recording(self._cache.max_size, cancels=not served.outlives and not refreshes)
        self._recordings[key] = recording
        own = Run(recording, run.context, request=run.request, auth=run.auth)
        own.experiment = run.experiment
        if not refreshes:
            own.id = run.id  # the log has one name for the request and for what it began
        recording.task = service.spawn(self._fill(service, served, own, recording, inputs, key, refreshes=refreshes))
        return recording

    async def _fill(
        self,
        service: Service,
        served: EndpointHandler,
        run: Run,
        recording: Recording,
        inputs: dict[str, Any],
        key: bytes,
        *,
        refreshes: bool,
    ) -> None:
        """Run the stack into a recording, end that whatever happens, and store it."""
        make = partial(self._make, service, served, run, recording, inputs, key)
        context = run.context
        try:
            if not context.state.shared:
                await make()
            elif refreshes:
                await self._refresh_alone(context, recording, key, make)
            elif self._whole:
                found = await make_alone(context.resource(open_state), key, make)
                if found is not None:
                    recording.adopt(found)
            else:
                await make()
        except asyncio.CancelledError:
            recording.fail(RunError("producer-lost", "the server is shutting down", status=503))
            raise
        except Exception as error:  # noqa: BLE001  (one run must not end the service's group)
            fault = located(error)
            recording.fail(fault)
            if refreshes:
                log.warning("refresh-failed", endpoint=served.title, code=fault.code, message=fault.message)
        finally:
            recording.fail(RunError("unavailable", "another server makes the answer: try again"))
            if self._recordings.get(key) is recording:
                del self._recordings[key]

    async def _refresh_alone(
        self, context: Context, recording: Recording, key: bytes, make: Callable[[], Awaitable[None]]
    ) -> None:
        """Make an answer, unless another server is at it: the old one is still replayed."""
        slots, name = context.resource(open_slots), b"refresh:" + key
        if not await slots.acquire(name, 1):
            recording.private = True  # who follows it already begins a run
            return
        try:
            await make()
        finally:
            await slots.release(name)

    async def _make(
        self,
        service: Service,
        served: EndpointHandler,
        run: Run,
        recording: Recording,
        inputs: dict[str, Any],
        key: bytes,
    ) -> None:
        """Run the stack once, with what it does after it, and store what it sent."""
        outcome = "failed"
        try:
            try:
                async with asyncio.timeout(served.limits.longest or None):
                    value = await served.start(run, inputs)
            except TimeoutError:
                raise RunError("timeout", "the run took longer than its `maxDuration`") from None
            recording.finish(to_json(value).decode() if self._whole else "")
            outcome = "completed"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            service.after(run, outcome, None)
        if not recording.private and recording.status in self._cache.statuses:
            await self._store(run.context, recording, served.title, key)

    async def _store(self, context: Context, recording: Recording, endpoint: str, key: bytes) -> None:
        try:
            if recording.full or len(recording.value) > self._cache.max_size:
                raise RunError("limit-reached", f"it takes more than `maxSize` of `cache` ({self._cache.max_size})")
            ttl = self._cache.ttl + self._cache.stale_while
            await context.resource(open_state).store.set(key, recording.entry(), ttl)
        except RunError as error:
            if error.code != "state-unreachable":  # which the log has already
                log.warning("not-cached", endpoint=endpoint, code=error.code, message=error.message)


def _validate(sink: ResponseSink, etag: str) -> bool:
    """Send an entity tag; answer 304 where the client has what it stands for (RFC 9110, section 13.1.2)."""
    sink.headers.append(("ETag", etag))
    sent = ",".join(sink.request.headers.getall("If-None-Match", ()))
    tags = {each.strip().removeprefix("W/") for each in sent.split(",")}
    if etag.removeprefix("W/") not in tags and "*" not in tags:
        return False
    sink.status = 304
    return True
