"""Rates as authors write them: how many in which time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from streamstack.language.units import DURATIONS, show_duration

#: The ways to count: in windows that follow one another, or in the time that has just passed.
ALGORITHMS: Final = ("fixed", "sliding")

_WORDS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_RATE: Final = re.compile(
    r"([0-9]{1,12}) ?(?:/|per) ?(?:([0-9]{1,6}(?:\.[0-9]{1,3})?) ?)?([A-Za-z]+)"
)
_MOST: Final = 1_000_000_000
_LONGEST: Final = 366 * 86400.0
_SHORTEST: Final = 0.01
_HINT: Final = "a rate is written like 60/minute, 10/second, 1000/hour, 5000/day or 20/10s"


@dataclass(frozen=True, slots=True)
class Rate:
    """How many in how many seconds."""

    limit: int
    seconds: float

    def __str__(self) -> str:
        word = next((word for word, seconds in _WORDS.items() if seconds == self.seconds), None)
        return f"{self.limit}/{word or show_duration(self.seconds)}"


def parse_rate(value: object) -> Rate:
    """Return the rate that `60/minute`, `20/10s` and the like say.

    Raises ValueError with what to write.
    """
    if isinstance(value, Rate):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"{value} in which time? Write it like {max(1, value)}/minute")  # noqa: TRY004 - as for every value
    found = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(_HINT)
    limit, count, unit = int(found[1]), float(found[2] or 1), found[3]
    each = _WORDS.get(unit.lower().removesuffix("s")) or DURATIONS.get(unit)
    if each is None:
        raise ValueError(f"the time `{unit}` is not known: {_HINT}")
    if not 1 <= limit <= _MOST:
        raise ValueError(f"the number of a rate is from 1 to {_MOST}")
    seconds = count * each
    if not _SHORTEST <= seconds <= _LONGEST:
        raise ValueError("the time of a rate is from 10ms to 366d")
    return Rate(limit, seconds)
