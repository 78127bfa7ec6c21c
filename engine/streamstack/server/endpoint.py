"""An endpoint as the server holds it: its formats, limits and response options."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from streamstack.errors import RunError
from streamstack.formats import BY_MEDIA_TYPE, BY_NAME
from streamstack.language.streaming_settings import Resume
from streamstack.runtime.run import Run
from streamstack.server.authentication import Guard
from streamstack.server.rate_limits import Limiter
from streamstack.server.request import Request
from streamstack.server.response import LiveSink, ResponseSink, ValueSink
from streamstack.server.response_options import VALUE, Limits, ResponseOptions
from streamstack.server.resume.log import ResumableSink, StreamPolicy

#: What a wildcard stands for, in this order; the first that was not refused (`q=0`) is taken.
_WILDCARDS = {
    "*/*": tuple(BY_MEDIA_TYPE),
    **{
        f"{kind}/*": tuple(name for name in BY_MEDIA_TYPE if name.startswith(f"{kind}/"))
        for kind in ("text", "application")
    },
}

#: A longer header is no list of preferences; it is read up to here.
_LONGEST = 2000


def choose(accept: str | None) -> str:
    """Return the format for an Accept header, `sse` where there is none.

    The highest q wins, ties go by the header's order. A list in which `*/*` weighs as much as the best named type
    states no preference, as those of axios and of many SDKs do: that is `sse`, too.
    Raises RunError ``not-acceptable`` (406) where nothing fits.
    """
    if not accept:
        return "sse"
    found = _choose(accept[:_LONGEST])
    if found is None:
        raise RunError(
            "not-acceptable",
            f"Accept names none of the types this endpoint has: {', '.join(BY_MEDIA_TYPE)}",
            status=406,
        )
    return found


def takes(accept: str | None, name: str) -> bool:
    """Tell whether an Accept header takes a format; NDJSON by either of its names."""
    if not accept or not accept.strip():
        return True
    format_ = BY_NAME[name]
    base = format_.alias_of or name
    types = [key for key, each in BY_MEDIA_TYPE.items() if base in (each.name, each.alias_of)]
    offers = dict(_read(part) for part in accept[:_LONGEST].split(",") if part.strip())
    named = [offers[media] for media in types if media in offers]
    if named:
        return max(named) > 0
    wild = {"*/*", *(f"{media.partition('/')[0]}/*" for media in types)}
    return any(q > 0 for media, q in offers.items() if media in wild)


@lru_cache(maxsize=512)
def _choose(accept: str) -> str | None:
    offers = [_read(part) for part in accept.split(",") if part.strip()]
    if not offers:
        return "sse"
    named = [(q, name) for name, q in offers if name in BY_MEDIA_TYPE and q > 0]
    if named:
        # `max` gives the first of equals: the header's order.
        best, name = max(named, key=lambda offer: offer[0])
        weights = dict(offers)
        if weights.get("*/*", 0) >= best and weights.get("text/event-stream", 1) > 0:
            return "sse"
        return BY_MEDIA_TYPE[name].name
    refused = {name for name, q in offers if q == 0}
    wild = sorted(((q, name) for name, q in offers if name in _WILDCARDS and q > 0), key=lambda offer: -offer[0])
    for _, wildcard in wild:
        for name in _WILDCARDS[wildcard]:
            if name not in refused:
                return BY_MEDIA_TYPE[name].name
    return None


def _read(part: str) -> tuple[str, float]:
    """Read one media range and its q; a q that is no number counts as 1."""
    name, *parameters = part.split(";")
    q = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            try:
                q = min(max(float(value.strip()), 0.0), 1.0)
            except ValueError:
                q = 1.0
            if q != q:  # noqa: PLR0124  (NaN)
                q = 1.0
    name = name.strip().lower()
    return "*/*" if name == "*" else name, q  # `*` is what some old clients send (java.net)


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
class EndpointHandler:
    """An endpoint, ready for requests.

    ``wire`` is the pattern for the wires of all its formats; with ``negotiated`` in it the format is the request's
    choice. ``at_once`` runs a stack in which nothing waits. ``read`` reads and checks the inputs, ``take`` does where
    they are all here; ``close`` deletes the files among them. ``show`` gives `request` as bindings see it. ``headers``
    gives the endpoint's own headers, where they hold bindings.
    """

    method: str
    path: str
    start: Start
    wire: ResponseOptions
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
    wires: Mapping[str, ResponseOptions] = field(init=False)
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

    def open(self, request: Request, cors: bytes) -> ResponseSink:
        """Open the writer for a request.

        Raises RunError ``not-acceptable`` where its Accept header fits no format.
        """
        wire = self.wire_for(request)
        if wire.spec is VALUE:
            return ValueSink(wire, request, cors)
        if self.resume is not None and wire.spec.resumable and request.method != "HEAD":
            return ResumableSink(wire, request, cors)
        return LiveSink(wire, request, cors)

    def wire_for(self, request: Request) -> ResponseOptions:
        """Return the wire that a request asks for. Raises as `open` does."""
        if self.wire.negotiated:
            return self.wires[choose(request.headers.get("Accept"))]
        return self.wire
