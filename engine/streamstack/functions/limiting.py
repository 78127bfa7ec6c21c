"""What the function `rateLimit` and the server share: what is counted, and what a refused caller is told."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Any, Final

from streamstack.connections.state import Quota, Verdict
from streamstack.errors import RunError
from streamstack.language.units import Rate, show_duration
from streamstack.language.values import canonical_json

#: Bytes of a key that is kept as it is.
_SHORT: Final = 200


def key_of(value: Any) -> bytes:
    """Return the key of a count: equal values have one, and no other has.

    Raises RunError ``template`` for a stream or a file.
    """
    key = canonical_json(value)
    return key if len(key) <= _SHORT else hashlib.sha256(key).hexdigest().encode()


def quota_of(rate: Rate, algorithm: str, key: bytes) -> Quota:
    """Return what is counted for a rate. Counts of another time, or of the other algorithm, are others."""
    start, period, sliding = _shape(rate.seconds, algorithm)
    return Quota(start + key, rate.limit, period, sliding)


@lru_cache(256)
def _shape(seconds: float, algorithm: str) -> tuple[bytes, int, bool]:
    """Return how keys of a time and an algorithm begin, the milliseconds, and whether it is the sliding one."""
    period = max(1, round(seconds * 1000))
    sliding = algorithm == "sliding"
    return b"%b%d:" % (b"s" if sliding else b"f", period), period, sliding


def tightest(quotas: Sequence[Quota], verdicts: Sequence[Verdict]) -> tuple[Quota, Verdict]:
    """Return the quota to tell of: that which refuses for longest, else that with the least left."""
    pairs = zip(quotas, verdicts, strict=True)
    return min(pairs, key=lambda pair: (pair[1].admitted, pair[1].remaining, -pair[1].reset))


def seconds_of(verdict: Verdict) -> int:
    """Return the whole seconds until there is more, rounded up."""
    return ceil(verdict.reset / 1000)


def refusal(quota: Quota, verdict: Verdict) -> RunError:
    """Return the error of a call for which there is no room."""
    rate = Rate(quota.limit, quota.period / 1000)
    return RunError(
        "rate-limited",
        f"the limit of {rate} is used up: try again in {show_duration(seconds_of(verdict))}",
        retry_after=verdict.reset / 1000,
    )
