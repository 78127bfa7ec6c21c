"""An endpoint as the server holds it: everything decided that can be decided without a request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamstack.formats import BY_MEDIA_TYPE
from streamstack.language.streaming_settings import Resume
from streamstack.runtime.run import Run
from streamstack.server.authentication import Guard
from streamstack.server.limits import Limiter
from streamstack.server.negotiation import choose
from streamstack.server.request import Request
from streamstack.server.resume.log import StreamPolicy
from streamstack.server.resume.sink import ResumableSink
from streamstack.server.wire import VALUE, Limits, Wire
from streamstack.server.writers.answer import Answer, ValueSink
from streamstack.server.writers.stream import LiveSink

#: Bytes a request's body may have, where the settings say nothing.
MAX_BODY = 10 * 1024 * 1024

Start = Callable[[Run, dict[str, Any]], Coroutine[Any, Any, Any]]
AtOnce = Callable[[Run, dict[str, Any]], Any]
#: Reads what is here already; None where something has to be waited for, or looked at more closely.
Take = Callable[[Request, Mapping[str, str]], dict[str, Any] | None]
Read = Callable[[Request, Mapping[str, str]], Coroutine[Any, Any, dict[str, Any]]]
Show = Callable[[Request, Mapping[str, str]], Mapping[str, Any]]
Own = Callable[[Run, dict[str, Any]], list[tuple[str, str]]]


def _take_nothing(request: Request, parameters: Mapping[str, str]) -> dict[str, Any] | None:
    return None


async def _no_inputs(request: Request, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Read nothing: the inputs of an endpoint that has none."""
    return {}


def _show_little(request: Request, parameters: Mapping[str, str]) -> Mapping[str, Any]:
    return {"method": request.method, "path": request.path}


@dataclass(frozen=True, slots=True)
class Served:
    """An endpoint, ready for requests.

    ``wire`` is the pattern for the wires of all its formats; with ``negotiated`` in it the format is the request's
    choice. ``at_once`` runs a stack in which nothing waits. ``read`` reads and checks the inputs, ``take`` does where
    they are all here; ``close`` deletes the files among them. ``show`` gives `request` as bindings see it. ``headers``
    gives the endpoint's own headers, where they hold bindings.
    """

    method: str
    path: str
    start: Start
    wire: Wire
    file: str = ""
    limits: Limits = field(default_factory=Limits)
    at_once: AtOnce | None = None
    take: Take = _take_nothing
    read: Read = _no_inputs
    show: Show = _show_little
    close: Callable[[Mapping[str, Any]], None] | None = None
    headers: Own | None = None
    max_body: int = MAX_BODY
    guard: Guard | None = None  # who may call; None is everybody
    limiter: Limiter | None = None  # how often; None is as often as one likes
    outlives: bool = False  # `onDisconnect: finish`
    receives: bool = False  # the body is read as it arrives
    resume: Resume | None = None  # readers may come back
    row: int = field(default=0, init=False)  # where its figures are kept
    wires: Mapping[str, Wire] = field(init=False)
    policy: StreamPolicy = field(init=False)  # of its streams, for readers who come back

    def __post_init__(self) -> None:
        wire = self.wire
        names = [each.name for each in BY_MEDIA_TYPE.values()] if wire.negotiated else [wire.format]
        object.__setattr__(self, "wires", {name: self.wire.of(name) for name in names})
        policy = StreamPolicy.of(self.wire, self.limits.keep_alive, self.guard)
        object.__setattr__(self, "policy", policy)

    def take_row(self, row: int) -> None:
        """Keep figures in this row from now on; said once, before there are requests."""
        object.__setattr__(self, "row", row)

    @property
    def title(self) -> str:
        return f"{self.method} {self.path}"

    def open(self, request: Request, cors: bytes) -> Answer:
        """Open the writer for a request.

        Raises RunError ``not-acceptable`` where its Accept header fits no format.
        """
        wire = self.wire_for(request)
        if wire.spec is VALUE:
            return ValueSink(wire, request, cors)
        if self.resume is not None and wire.spec.resumable and request.method != "HEAD":
            return ResumableSink(wire, request, cors)
        return LiveSink(wire, request, cors)

    def wire_for(self, request: Request) -> Wire:
        """Return the wire that a request asks for. Raises as `open` does."""
        if self.wire.negotiated:
            return self.wires[choose(request.headers.get("Accept"))]
        return self.wire
