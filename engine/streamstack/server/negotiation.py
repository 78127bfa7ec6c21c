"""Which writer answers a request: the Accept header's choice (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from functools import lru_cache

from streamstack.errors import RunError
from streamstack.formats import BY_MEDIA_TYPE, BY_NAME

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
    wild = sorted(
        ((q, name) for name, q in offers if name in _WILDCARDS and q > 0),
        key=lambda offer: -offer[0],
    )
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
