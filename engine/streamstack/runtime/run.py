"""A run and the sink that its chunks go to."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, cast

import structlog

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language.authentication import Methods
from streamstack.language.channels import Channels
from streamstack.language.jobs import JobSettings
from streamstack.language.mail import EmailSettings
from streamstack.language.settings import EMBEDDED, Database, HttpSettings, Model, StateSettings
from streamstack.language.values import MISSING, Opaque
from streamstack.runtime.faults import located


class Sink(ABC):
    """Takes the chunks of one run, encodes them and sends them.

    `emit` is synchronous: it encodes into a buffer that is flushed when the event loop next turns. It answers
    True when the caller must `await drain()` before it emits again (the first chunk, a full buffer).
    """

    __slots__ = ("bytes", "count", "ended", "subscriptions")

    #: Whether content may be JSON that is written already (orjson.Fragment).
    takes_json = False

    def __init__(self) -> None:
        self.count = 0  # chunks taken, `stream.count`
        self.bytes = 0  # bytes of their encoding, `stream.bytes`
        self.ended = False  # after `done`: nothing may follow
        self.subscriptions = 0  # to channels: while there are some, the run may have nothing to send for any time

    def heartbeat(self) -> None:  # noqa: B027  (most sinks have no client that waits)
        """Show the client that the run goes on, where the format has a way to."""

    @abstractmethod
    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        """Take a chunk; True asks the caller to `await drain()`.

        Raises RunError ``template`` for content that the format can't carry, or after `done`.
        """

    def emit_shared(self, chunk: SharedChunk) -> bool:
        """Take a chunk that other sinks take, too, and send it at once; False where it must go through `emit`."""
        return False

    @abstractmethod
    async def drain(self) -> None:
        """Send what is buffered and wait until the reader has room for more."""

    @abstractmethod
    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        """Take the author's end marker."""

    @abstractmethod
    def respond(self, status: int | None, headers: Mapping[str, str], cookies: Mapping[str, Any]) -> None:
        """Set status, headers and cookies.

        Raises RunError ``template`` once the status line has been sent.
        """


class SharedChunk:
    """A chunk for many sinks. ``encoded``: what it became, by what the encoding depends on."""

    __slots__ = ("content", "encoded", "event", "id")

    def __init__(self, content: Any, event: Any, id: Any) -> None:  # noqa: A002
        self.content = content
        self.event = event
        self.id = id
        self.encoded: dict[Any, Any] = {}


def check_open(sink: Sink) -> None:
    """Raise RunError ``template`` after the author's end marker."""
    if sink.ended:
        raise RunError("template", "`done` was called before: nothing may follow the end marker")


def check_content(sink: Sink, content: Any) -> None:
    """Raise RunError ``template`` for what no format can carry: null, a stream, or anything after `done`."""
    if sink.ended:
        check_open(sink)
    if content is None:
        raise RunError(
            "template",
            'the content is null: write `| default("")`, or pass the step over with `when: << x is not none >>`',
        )
    if isinstance(content, Opaque):
        advice = "write `forEach` to send its items one by one" if content.kind == "stream" else content.remedy
        raise RunError("template", f"the content is a {content.kind}: {advice}")


log = structlog.get_logger("streamstack.run")

#: Seconds a run may compute before it lets others have the event loop.
SLICE = 0.002
#: Milliseconds that are added before they are cut to whole ones: what sums of times may be off by.
_ROUNDING = 1e-3
#: How deep functions may call one another.
MAX_DEPTH = 60


T = TypeVar("T", bound="Resource")


class Resource(Protocol):
    """Something opened once a process and shared by all runs: a connection pool, a store."""

    async def aclose(self) -> None:
        """Close it; called once, when the server stops."""


@dataclass(slots=True)
class Address:
    """Where this server itself can be reached; ``url`` is known once it listens."""

    url: str | None = None

    def of(self, text: str) -> str:
        """Return an address as it is, and a path alone as one of this server.

        Raises RunError ``template`` for a path where nothing listens.
        """
        if not text.startswith("/") or text.startswith("//"):
            return text
        if self.url is None:
            raise RunError("template", "a path alone is an address of this server, and it does not listen")
        return self.url + text


@dataclass(frozen=True, slots=True)
class Context:
    """What all runs of a project share.

    ``settings`` are the author's free values, bound as `settings`; ``http`` says how others are called, ``models``
    which models have names, ``databases`` which databases, ``authentication`` how clients are identified, ``state``
    where state is stored, ``jobs`` the limits of jobs, ``email`` how mail is sent, ``channels`` how much of each
    channel is stored. ``folder`` is where the project keeps what it makes itself (`.streamstack`); with ``joins`` an
    embedded database there may be one that another process runs, and without ``starts`` it is never one that this
    process starts. ``address`` is the server's own.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    dev: bool = False
    http: HttpSettings = field(default_factory=HttpSettings)
    models: Mapping[str, Model] = field(default_factory=dict)
    databases: Mapping[str, Database] = field(default_factory=lambda: EMBEDDED)
    authentication: Methods = field(default_factory=dict)
    folder: Path = field(default_factory=Path)
    joins: bool = False
    starts: bool = True
    state: StateSettings = field(default_factory=StateSettings)
    jobs: JobSettings = field(default_factory=JobSettings)
    email: EmailSettings = field(default_factory=EmailSettings)
    channels: Channels = field(default_factory=dict)
    address: Address = field(default_factory=Address)
    _resources: dict[Any, Resource] = field(default_factory=dict)

    def resource(self, create: Callable[[Context], T]) -> T:
        """Return the one that ``create`` makes; it is made when first asked for."""
        found = self._resources.get(create)
        if found is None:
            found = self._resources[create] = create(self)
        return cast("T", found)

    def provide(self, create: Callable[[Context], Resource], resource: Resource) -> None:
        """Use a resource in place of the one that ``create`` would make."""
        self._resources[create] = resource

    async def aclose(self) -> None:
        """Close what was opened, the newest first."""
        while self._resources:
            _, resource = self._resources.popitem()
            await resource.aclose()


class _Entropy:
    """Random bytes of the system, fetched for many runs at once: asking costs more than the bytes."""

    __slots__ = ("_at", "_bytes")
    SIZE = 4096

    def __init__(self) -> None:
        self.forget()
        # A child must not draw what its parent draws.
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Drop what is left."""
        self._bytes, self._at = b"", 0

    def new_id(self) -> str:
        """Return 128 random bits, as hard to guess as a UUID."""
        at = self._at
        if at >= len(self._bytes):
            self._bytes, at = os.urandom(self.SIZE), 0
        self._at = at + 16
        return self._bytes[at : at + 16].hex()


_new_id = _Entropy().new_id


@dataclass(slots=True)
class DeferredWork:
    """What an `after` registered: its ``timeout`` in seconds, and the outcomes of the run that it was begun with."""

    work: Callable[[], Awaitable[Any]]
    timeout: float
    outcomes: list[str] = field(default_factory=list)


_NO_EXPERIMENTS: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


class Run:
    """The state of one run. Times are seconds of `clock.monotonic`."""

    __slots__ = (
        "_request",
        "_shown",
        "afters",
        "auth",
        "clock",
        "context",
        "experiment",
        "id",
        "outcome",
        "sent_at",
        "sink",
        "slice_ends",
        "started",
        "state",
    )

    def __init__(
        self,
        sink: Sink,
        context: Context,
        *,
        request: Callable[[], Mapping[str, Any]] | None = None,
        auth: Mapping[str, Any] | None = None,
    ) -> None:
        self.id = _new_id()
        self.sink = sink
        self.context = context
        self.auth = auth
        self.started = clock.now()
        self.clock = clock.monotonic()  # when it began
        self.slice_ends = clock.perf_counter() + SLICE
        self.outcome: str | None = None
        self.sent_at: float | None = None  # when the last paced chunk left
        self.experiment: Mapping[str, Mapping[str, Any]] = _NO_EXPERIMENTS  # the variants that it was assigned
        self.state: dict[str, Any] = {}  # what a step keeps between its turns (pace)
        self._request = request
        self._shown: Mapping[str, Any] | None = None
        self.afters: list[DeferredWork] = []

    @property
    def elapsed_ms(self) -> int:
        """Milliseconds since the run began."""
        return int((clock.monotonic() - self.clock) * 1000 + _ROUNDING)

    def request(self) -> Mapping[str, Any]:
        """Return the request as the language shows it; an empty object outside of one."""
        if self._shown is None:
            self._shown = self._request() if self._request is not None else {}
        return self._shown

    async def yield_to_loop(self) -> None:
        """Yield to the event loop: buffered chunks are written, other runs go on."""
        await asyncio.sleep(0)
        self.begin_slice()

    def begin_slice(self) -> None:
        """Start a new time slice, because others have just run."""
        self.slice_ends = clock.perf_counter() + SLICE

    def after(self, work: Callable[[], Awaitable[Any]], timeout: float) -> None:
        """Register work for the end of the run, with its time-out in seconds."""
        self.afters.append(DeferredWork(work, timeout))

    @property
    def has_after(self) -> bool:
        return any(not each.outcomes for each in self.afters)

    async def finish(self, outcome: str) -> None:
        """Run what `after` registered, in that order. A failure is logged and hinders none of the others."""
        self.outcome = outcome
        for _ in range(MAX_DEPTH):  # such work may register more of it, but not for ever
            for each in [each for each in self.afters if not each.outcomes]:
                each.outcomes.append(outcome)
                await self._finish(each)

    async def _finish(self, deferred: DeferredWork) -> None:
        try:
            async with asyncio.timeout(deferred.timeout):
                await deferred.work()
        except TimeoutError:
            self._report(RunError("timeout", f"`after` took longer than {deferred.timeout:g} s"))
        except Exception as error:  # noqa: BLE001  (the other works must run)
            self._report(located(error))

    def _report(self, fault: RunError) -> None:
        log.error("after-failed", run=self.id, code=fault.code, message=fault.message, place=str(fault.place))


#: How deep the present task is in calls of functions. Tasks begin at the depth of who made them.
_depth: ContextVar[int] = ContextVar("depth", default=0)


def begin_call() -> None:
    """Enter a call of a function.

    Raises RunError ``limit-reached`` where functions call one another too deeply.
    """
    depth = _depth.get()
    if depth >= MAX_DEPTH:
        raise RunError("limit-reached", f"functions call one another more than {MAX_DEPTH} deep")
    _depth.set(depth + 1)


def end_call() -> None:
    """Leave a call of a function, in the task that entered it."""
    _depth.set(_depth.get() - 1)
