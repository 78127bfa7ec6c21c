"""Filters of numbers and of lists of numbers.

For an empty list, `sum` is 0 and the others are null. A null among the items is an error: write `|
reject("none")` before.
"""

# An author passes an argument by position or by name, whatever it is.
# ruff: noqa: FBT002

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any

from streamstack.language import operators
from streamstack.language.filters.operations import ROWS, declare, failed, items_of, number_of, values_at, whole

_KINDS = {int, float, Decimal}


@declare("filter", "abs", "-3 | abs", 3, shape="number -> it")
def absolute(value: Any) -> Any:
    """Return the absolute value."""
    number = number_of(value, "abs")
    return number.copy_abs() if isinstance(number, Decimal) else abs(number)


@declare(
    "filter",
    "round",
    '[2.5 | round, 2.345 | round(2), 2.01 | round(1, "ceil")]',
    [3, 2.35, 2.1],
    takes={"precision": whole(-300, 300)},
    shape="number -> number",
)
def round_number(value: Any, precision: Any = 0, method: Any = "common") -> Any:
    """Round a number to the given number of decimal places.

    The method is common (half away from zero), even (half to even), ceil or floor. Without places, the result
    is an integer. A decimal keeps exactly that many digits.
    """
    number = number_of(value, "round")
    modes = {"common": ROUND_HALF_UP, "even": ROUND_HALF_EVEN, "ceil": ROUND_CEILING, "floor": ROUND_FLOOR}
    mode = modes.get(method) if isinstance(method, str) else None
    if mode is None:
        raise failed("round", "the method is common, even, ceil or floor")
    if not operators.is_finite(number):
        raise failed("round", "the number is not finite")
    # Rounding what was written, not its binary neighbour: 2.345 to two places is 2.35.
    exact = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
    if exact.adjusted() + precision > 4000 or exact.adjusted() > 4000:
        raise failed("round", "the number has too many digits")
    rounded = exact.quantize(Decimal(1).scaleb(-precision), mode, _WIDE)
    if precision <= 0:
        return int(rounded)
    return rounded if isinstance(number, Decimal) else float(rounded) if type(number) is float else number


_WIDE = operators.exact_context(4200)


@declare("filter", "floor", "-2.5 | floor", -3, shape="number -> integer")
def floor(value: Any) -> Any:
    """Round down to an integer."""
    return round_number(value, 0, "floor")


@declare("filter", "ceil", "2.1 | ceil", 3, shape="number -> integer")
def ceil(value: Any) -> Any:
    """Round up to an integer."""
    return round_number(value, 0, "ceil")


@declare("filter", "sum", '[{"price": 2}, {"price": 3}] | sum("price")', 5, shape=f"{ROWS} -> number")
def total(value: Any, attribute: Any = None, start: Any = 0) -> Any:
    """Return the sum of a list of numbers, or of an attribute of its items, plus `start`; 0 for an empty list."""
    return operators.add_all(_numbers(value, attribute, "sum"), number_of(start, "sum"))


@declare("filter", "mean", "[1, 2, 6] | mean", 3.0, shape=f"{ROWS} -> number?")
def mean(value: Any, attribute: Any = None) -> Any:
    """Return the mean of a list of numbers, or of an attribute of its items; null for an empty list."""
    numbers = _numbers(value, attribute, "mean")
    return operators.divide(total(numbers), len(numbers)) if numbers else None


@declare(
    "filter", "percentile", "[1, 2, 3, 10] | percentile(50)", 2.5, shape=f"{ROWS} -> number?", arguments=("number",)
)
def percentile(value: Any, p: Any, attribute: Any = None) -> Any:
    """Return the p-th percentile of a list of numbers; null for an empty list.

    Between two items it is interpolated linearly. `percentile(50)` is the median.
    """
    unsorted = _numbers(value, attribute, "percentile")
    numbers = sorted(unsorted, key=operators.order_key(unsorted))
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


@declare("filter", "min", "[3, 1, 2] | min", 1, shape=f"{ROWS} -> items of it?")
def least(value: Any, attribute: Any = None) -> Any:
    """Return the minimum of a list of numbers, texts or timestamps; null for an empty list.

    With an attribute, return the item with the smallest attribute.
    """
    return _extreme(value, attribute, "min", operators.less)


@declare("filter", "max", '[{"n": 1}, {"n": 5}] | max(attribute="n")', {"n": 5}, shape=f"{ROWS} -> items of it?")
def greatest(value: Any, attribute: Any = None) -> Any:
    """Return the maximum of a list of numbers, texts or timestamps; null for an empty list.

    With an attribute, return the item with the largest attribute.
    """
    return _extreme(value, attribute, "max", operators.greater)


def _extreme(value: Any, attribute: Any, name: str, better: Callable[[Any, Any], bool]) -> Any:
    items = items_of(value, name)
    keys = items if attribute is None else values_at(items, attribute)
    if not items:
        return None
    if operators.order_key(keys) is None:
        native = min if better is operators.less else max
        return items[native(range(len(keys)), key=keys.__getitem__)]
    found = 0
    for index in range(1, len(keys)):
        if better(keys[index], keys[found]):
            found = index
    return items[found]


def _numbers(value: Any, attribute: Any, name: str) -> Sequence[Any]:
    items = items_of(value, name)
    if attribute is not None:
        items = values_at(items, attribute)
    for kind in set(map(type, items)) - _KINDS:
        number_of(next(item for item in items if type(item) is kind), name)  # tells what it is
    return items


@declare("filter", "filesizeformat", "13000 | filesizeformat", "13.0 kB", shape="number -> text")
def file_size(value: Any, binary: Any = False) -> str:
    """Format a number of bytes for people, in units of 1000, or of 1024 with `binary`."""
    size = float(number_of(value, "filesizeformat"))
    base, units = (1024, "KiB MiB GiB TiB PiB") if binary else (1000, "kB MB GB TB PB")
    if abs(size) < base:
        return "1 Byte" if size == 1 else f"{int(size)} Bytes"
    names = iter(units.split())
    unit = next(names)
    size /= base
    while abs(size) >= base and (larger := next(names, None)) is not None:
        unit = larger
        size /= base
    return f"{size:.1f} {unit}"
