"""The section `ratings` of streamstack.yaml: whether clients rate runs, and what a rating is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streamstack.errors import Mark
from streamstack.language.kinds import Kind
from streamstack.spec import Constant, Group, fields_of, setting

#: Where runs are rated.
RATING_PATH: Final = "/_runs/{run}/rating"
#: How the input `rating` is declared, by the scale.
SCALES: Final[Mapping[str, Mapping[str, Any]]] = {
    "stars": {"type": "integer", "minimum": 1, "maximum": 5, "description": "From 1 (bad) to 5 (good)"},
    "thumbs": {"type": "enum", "values": ["up", "down"], "description": "`up` or `down`"},
}


@dataclass(frozen=True, slots=True)
class Ratings:
    """How clients rate runs. ``keep`` is in seconds."""

    scale: str = setting(
        Constant(choices=tuple(SCALES)), "What a rating is: `stars` from 1 to 5, or `thumbs`: `up` or `down`.", "stars"
    )
    keep: float = setting(
        Constant(Kind.DURATION, positive=True, maximum=30 * 86_400.0),
        "Time from its start within which a run can be rated.",
        3600.0,
    )
    function: str | None = setting(
        Constant(),
        "Function that is called with those of the inputs `run`, `endpoint`, `rating`, `comment` and `experiment` that "
        "it declares, for example to store them.",
        None,
    )
    mark: Mark | None = field(default=None, compare=False)


def _make(name: str, **values: Any) -> Ratings:
    return Ratings(**values)


#: The section.
RATINGS: Final = Group(
    fields_of(Ratings), make=_make, switch="both", named=True, example="{scale: stars, function: save-rating}"
)
