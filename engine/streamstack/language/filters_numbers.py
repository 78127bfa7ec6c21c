"""Filters of numbers, one or a list of them.

Of an empty list, `sum` is 0 and the others are null. A null among the items is an error: write
`| reject("none")` before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import cmp_to_key
from typing import Any

from streamstack.language import operators
from streamstack.language.expectations import (
    at_path,
    failed,
    integer_argument,
    items_of,
    number_of,
)
from streamstack.language.operations import declare


@declare("filter", "abs", "The number without its sign.", "-3 | abs", 3)
def absolute(value: Any) -> Any:
    number = number_of(value, "abs")
    return number.copy_abs() if isinstance(number, Decimal) else abs(number)


@declare(
    "filter",
    "round",
    "The number rounded to some places, by `method`: common (halves away from zero), even (halves "
    "to the even neighbour), ceil or floor. Without places, an integer; a decimal keeps exactly "
    "that many digits.",
    "[2.5 | round, 2.345 | round(2), 2.01 | round(1, \"ceil\")]",
    [3, 2.35, 2.1],
)
def round_number(value: Any, precision: Any = 0, method: Any = "common") -> Any:
    number = number_of(value, "round")
    places = integer_argument(precision, "round", "precision", -300, 300)
    modes = {
        "common": ROUND_HALF_UP,
        "even": ROUND_HALF_EVEN,
        "ceil": ROUND_CEILING,
        "floor": ROUND_FLOOR,
    }
    mode = modes.get(method) if isinstance(method, str) else None
    if mode is None:
        raise failed("round", "the method is common, even, ceil or floor")
    if not operators.is_finite(number):
        raise failed("round", "the number is not finite")
    # Rounding what was written, not its binary neighbour: 2.345 to two places is 2.35.
    exact = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
    if exact.adjusted() + places > 4000 or exact.adjusted() > 4000:
        raise failed("round", "the number has too many digits")
    rounded = exact.quantize(Decimal(1).scaleb(-places), mode, _WIDE)
    if places <= 0:
        return int(rounded)
    return rounded if isinstance(number, Decimal) else float(rounded) if type(number) is float else number


_WIDE = operators.exact_context(4200)


@declare("filter", "floor", "The largest integer not above the number.", "-2.5 | floor", -3)
def floor(value: Any) -> Any:
    return round_number(value, 0, "floor")


@declare("filter", "ceil", "The smallest integer not below the number.", "2.1 | ceil", 3)
def ceil(value: Any) -> Any:
    return round_number(value, 0, "ceil")


@declare(
    "filter",
    "sum",
    "The sum of a list of numbers, or of an attribute of its items, added to `start`; 0 for an "
    "empty list.",
    '[{"price": 2}, {"price": 3}] | sum("price")',
    5,
)
def total(value: Any, attribute: Any = None, start: Any = 0) -> Any:
    result = number_of(start, "sum")
    for number in _numbers(value, attribute, "sum"):
        result = operators.add(result, number)
    return result


@declare(
    "filter",
    "mean",
    "The average of a list of numbers, or of an attribute of its items; null for an empty list.",
    "[1, 2, 6] | mean",
    3.0,
)
def mean(value: Any, attribute: Any = None) -> Any:
    numbers = _numbers(value, attribute, "mean")
    return operators.divide(total(numbers), len(numbers)) if numbers else None


@declare(
    "filter",
    "percentile",
    "The number below which p percent of a list lie, between two items in proportion; null for an "
    "empty list. `percentile(50)` is the median.",
    "[1, 2, 3, 10] | percentile(50)",
    2.5,
)
def percentile(value: Any, p: Any, attribute: Any = None) -> Any:
    numbers = sorted(_numbers(value, attribute, "percentile"), key=cmp_to_key(operators.order))
    share = number_of(p, "percentile")
    if not 0 <= share <= 100:
        raise failed("percentile", "p must be from 0 to 100")
    if not numbers:
        return None
    place = (len(numbers) - 1) * (Decimal(repr(share)) if type(share) is float else Decimal(share)) / 100
    below = int(place)
    rest = place - below
    if not rest:
        return numbers[below]
    step = operators.subtract(numbers[below + 1], numbers[below])
    part = rest if isinstance(step, Decimal) else float(rest)
    return operators.add(numbers[below], operators.multiply(step, part))


@declare(
    "filter",
    "min",
    "The least of a list's numbers, texts or timestamps, or the item whose attribute is least; null "
    "for an empty list.",
    "[3, 1, 2] | min",
    1,
)
def least(value: Any, attribute: Any = None) -> Any:
    return _extreme(value, attribute, "min", operators.less)


@declare(
    "filter",
    "max",
    "The greatest of a list's numbers, texts or timestamps, or the item whose attribute is "
    "greatest; null for an empty list.",
    '[{"n": 1}, {"n": 5}] | max(attribute="n")',
    {"n": 5},
)
def greatest(value: Any, attribute: Any = None) -> Any:
    return _extreme(value, attribute, "max", operators.greater)


def _extreme(value: Any, attribute: Any, name: str, better: Callable[[Any, Any], bool]) -> Any:
    found, best = None, None
    for index, item in enumerate(items_of(value, name)):
        key = item if attribute is None else at_path(item, attribute)
        if index == 0 or better(key, best):
            found, best = item, key
    return found


def _numbers(value: Any, attribute: Any, name: str) -> Sequence[Any]:
    items = items_of(value, name)
    if attribute is not None:
        items = [at_path(item, attribute) for item in items]
    return [number_of(item, name) for item in items]


@declare(
    "filter",
    "filesizeformat",
    "A number of bytes as people read it, in steps of 1000, or of 1024 if `binary`.",
    "13000 | filesizeformat",
    "13.0 kB",
)
def file_size(value: Any, binary: Any = False) -> str:
    size = float(number_of(value, "filesizeformat"))
    base, units = (1024, "KiB MiB GiB TiB PiB") if binary else (1000, "kB MB GB TB PB")
    if abs(size) < base:
        return "1 Byte" if size == 1 else f"{int(size)} Bytes"
    for unit in units.split():
        size /= base
        if abs(size) < base:
            break
    return f"{size:.1f} {unit}"
