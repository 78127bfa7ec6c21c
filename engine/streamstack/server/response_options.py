"""Options of the responses of an endpoint, in one format."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from streamstack.formats import BY_NAME
from streamstack.formats.json import JSON
from streamstack.formats.spec import EncoderOptions, Format
from streamstack.server.headers import Headers, header_lines, merge, status_line

#: An endpoint's one value, of `responseType: json`: no format of a stream.
VALUE = replace(JSON, name="value")

#: Seconds a reader may be silent, where `idleTimeout` is off.
PATIENCE = 300.0
#: Bytes of chunks that are put together into one write.
GATHERED = 64 * 1024
#: Bytes a document that is kept whole may have, unless `maxBytes` says otherwise.
LARGEST_DOCUMENT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a stream's silences and the stream itself may be: seconds; 0 means no limit.

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


@dataclass(frozen=True)
class ResponseOptions(EncoderOptions):
    """One endpoint in one format. Sizes are bytes, 0 means no limit.

    ``slow`` is what becomes of a slow reader, ``grace`` the seconds that it may be slow, ``patience`` those that
    nothing may be heard of it at all.
    """

    format: str
    headers: tuple[tuple[str, str], ...] = ()  # the endpoint's own, as far as they are constant
    negotiated: bool = False
    buffer: int = 256 * 1024
    max_bytes: int = 0
    slow: str = "block"
    grace: float = 5.0
    patience: float = PATIENCE
    compress: bool = False
    dev: bool = False
    spec: Format = field(init=False)
    defaults: tuple[tuple[str, str], ...] = field(init=False)
    plain: bytes = field(init=False)  # the header lines of an ordinary answer
    head: bytes = field(init=False)  # the same, after the status line 200

    def __post_init__(self) -> None:
        spec = VALUE if self.format == "value" else BY_NAME[self.format]
        object.__setattr__(self, "spec", spec)
        # Browsers must not run text as a page or a script, whatever it looks like.
        defaults = [("Content-Type", spec.content_type), ("X-Content-Type-Options", "nosniff")]
        if spec.whole:
            defaults += [("Cache-Control", "no-cache")]
        else:
            defaults += [("Cache-Control", "no-cache, no-transform"), ("X-Accel-Buffering", "no")]
        defaults += spec.headers
        vary = ["Accept"] * self.negotiated + ["Accept-Encoding"] * self.compress
        if vary:
            defaults += [("Vary", ", ".join(vary))]
        object.__setattr__(self, "defaults", tuple(defaults))
        object.__setattr__(self, "plain", self.lines())
        object.__setattr__(self, "head", status_line(200) + self.plain)

    def of(self, name: str) -> ResponseOptions:
        """Return the same endpoint's wire in another format."""
        return self if name == self.format else replace(self, format=name, cache={})

    @cached_property
    def whole(self) -> ResponseOptions:
        """The same endpoint's wire for an answer that a request in a dialect asked for as one object."""
        own = tuple(each for each in self.headers if each[0].lower() != "content-type")
        return replace(self, format="json", headers=own, cache={})

    def lines(self, *given: Headers) -> bytes:
        """Return the header lines, those given winning over the endpoint's and the format's own."""
        return header_lines(merge(self.defaults, self.headers, *given))
