"""Options of the responses of an endpoint, in one format."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from streamstack.errors import RunError
from streamstack.formats import BY_MEDIA_TYPE, BY_NAME
from streamstack.formats.plain import JSON
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
    cors: bool = False  # `server.cors` sets the headers of CORS, and no definition does
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
        if spec.upgrade:
            defaults = []
        elif spec.whole:
            defaults += [("Cache-Control", "no-cache")]
        else:
            defaults += [("Cache-Control", "no-cache, no-transform"), ("X-Accel-Buffering", "no")]
        defaults += spec.headers
        vary = ["Accept"] * self.negotiated + ["Accept-Encoding"] * self.compress
        if vary and not spec.upgrade:
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

    def lines(self, *more: Headers) -> bytes:
        """Return the header lines, with ``more`` winning over the endpoint's and the format's own."""
        merged = merge(self.defaults, self.headers, *more)
        if self.cors:
            merged = [each for each in merged if not each[0].lower().startswith("access-control-")]
        return header_lines(merged)


#: What a wildcard stands for, in this order; the first that was not refused (`q=0`) is taken.
_WILDCARDS = {
    "*/*": tuple(BY_MEDIA_TYPE),
    **{
        f"{kind}/*": tuple(name for name in BY_MEDIA_TYPE if name.startswith(f"{kind}/"))
        for kind in ("text", "application")
    },
}

#: A longer header is not a list of preferences; it is read up to here.
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
    offers = dict(_ranges(accept[:_LONGEST]))
    named = [offers[media] for media in types if media in offers]
    if named:
        return max(named) > 0
    wild = {"*/*", *(f"{media.partition('/')[0]}/*" for media in types)}
    return any(q > 0 for media, q in offers.items() if media in wild)


@lru_cache(maxsize=512)
def _choose(accept: str) -> str | None:
    offers = _ranges(accept)
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


def _ranges(accept: str) -> list[tuple[str, float]]:
    """Read an Accept header; a lone `*`, which some old clients send (java.net), stands for `*/*`."""
    read = (_read(part) for part in accept.split(",") if part.strip())
    return [("*/*" if name == "*" else name, q) for name, q in read]


def _read(part: str) -> tuple[str, float]:
    """Read a name of a list and its q; a q that is not a number counts as 1."""
    name, *parameters = part.split(";")
    q = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            with suppress(ValueError):
                q = min(1.0, max(float(value), 0.0))  # in this order, NaN counts as 1, too
    return name.strip().lower(), q


def accepts_gzip(accepted: str | None) -> bool:
    """Tell whether a client with this Accept-Encoding header takes gzip (RFC 9110, section 12.5.3)."""
    return accepted is not None and _takes_gzip(accepted[:_LONGEST])


@lru_cache(maxsize=256)
def _takes_gzip(accepted: str) -> bool:
    weights = dict(map(_read, accepted.split(",")))
    return next((weights[name] > 0 for name in ("gzip", "x-gzip", "*") if name in weights), False)
