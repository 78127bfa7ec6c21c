"""What is known of an endpoint's answers before there is a request."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from streamstack.server.heads import Headers, header_lines, merge, status_line

#: Content-Type of each format, as it is sent.
CONTENT_TYPES = {
    "sse": "text/event-stream; charset=utf-8",
    "ndjson": "application/x-ndjson; charset=utf-8",
    "jsonl": "application/jsonl; charset=utf-8",
    "text": "text/plain; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json; charset=utf-8",
    "bytes": "application/octet-stream",
    "openai": "text/event-stream; charset=utf-8",
    "anthropic": "text/event-stream; charset=utf-8",
    "aiSdk": "text/event-stream; charset=utf-8",
    "value": "application/json; charset=utf-8",
}

#: Formats that are sent in one piece.
WHOLE = frozenset({"json", "value"})

#: Seconds a reader may be silent, where `idleTimeout` is off.
PATIENCE = 300.0
#: Bytes of chunks that are put together into one write.
GATHERED = 64 * 1024
#: Bytes a document that is kept whole may have, unless `maxBytes` says otherwise.
LARGEST_DOCUMENT = 16 * 1024 * 1024


class Shapes(Protocol):
    """Which events carry `{"content", "metadata"}`: decided when the definition is loaded."""

    def has_metadata(self, event: str | None) -> bool:
        """Whether chunks of this event name are objects with metadata."""


class NoShapes:
    """The shapes of a stack that gives no metadata."""

    def has_metadata(self, event: str | None) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a stream's silences and the stream itself may be: seconds; 0 is no limit.

    ``body``: how long the request's body may take; None is as long as the first chunk. ``arrival``: how long a body
    that is read as it arrives may be silent while it is waited for, where nothing else limits the silence. ``jitter``:
    the part by which ``longest`` may be shorter. ``closing``: how long the reader has for the rest, once the run is
    over; 0 is as long as ``idle``.
    """

    keep_alive: float = 15.0
    first_chunk: float = 60.0
    idle: float = 300.0
    longest: float = 3600.0
    body: float | None = None
    arrival: float = 0
    jitter: float = 0
    closing: float = 0
    soonest: float = field(init=False)  # when the first of them can be over

    def __post_init__(self) -> None:
        longest = self.longest * (1 - self.jitter)
        every = (self.keep_alive, self.first_chunk, self.idle, longest, self.arrival)
        object.__setattr__(self, "soonest", min(filter(None, every), default=0.0))


@dataclass(frozen=True, slots=True)
class Wire:
    """One endpoint in one format. ``retry`` is milliseconds, sizes are bytes, 0 is no limit.

    ``slow`` is what becomes of a slow reader, ``grace`` the seconds that it may be slow, ``patience`` those that
    nothing may be heard of it at all.
    """

    format: str
    shapes: Shapes = field(default_factory=NoShapes)
    headers: tuple[tuple[str, str], ...] = ()  # the endpoint's own, as far as they are constant
    negotiated: bool = False
    ids: bool = True
    retry: int | None = None
    done: bool = True
    buffer: int = 256 * 1024
    max_bytes: int = 0
    slow: str = "block"
    grace: float = 5.0
    patience: float = PATIENCE
    compress: bool = False
    dev: bool = False
    #: What a writer has learnt of event names, for the runs to come.
    learnt: dict[Any, Any] = field(default_factory=dict)
    defaults: tuple[tuple[str, str], ...] = field(init=False)
    plain: bytes = field(init=False)  # the header lines of an ordinary answer
    head: bytes = field(init=False)  # the same, after the status line 200

    def __post_init__(self) -> None:
        # What is told to be text is not to be run as a page or a script, whatever it looks like.
        defaults = [
            ("Content-Type", CONTENT_TYPES[self.format]),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if self.format in WHOLE:
            defaults += [("Cache-Control", "no-cache")]
        else:
            defaults += [("Cache-Control", "no-cache, no-transform"), ("X-Accel-Buffering", "no")]
        if self.format == "aiSdk":
            defaults += [("X-Vercel-AI-UI-Message-Stream", "v1")]
        vary = ["Accept"] * self.negotiated + ["Accept-Encoding"] * self.compress
        if vary:
            defaults += [("Vary", ", ".join(vary))]
        object.__setattr__(self, "defaults", tuple(defaults))
        object.__setattr__(self, "plain", self.lines())
        object.__setattr__(self, "head", status_line(200) + self.plain)

    def of(self, name: str) -> Wire:
        """Return the same endpoint's wire in another format."""
        return self if name == self.format else replace(self, format=name, learnt={})

    def lines(self, *given: Headers) -> bytes:
        """Return the header lines, those given winning over the endpoint's and the format's own."""
        return header_lines(merge(self.defaults, self.headers, *given))
