"""Operators and look-ups of the expression language."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Context, Decimal, DecimalException
from functools import cmp_to_key
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.values import Opaque, kind, to_text

#: No text or list made by `*`, and no range, holds more than this.
MAX_ITEMS: Final = 1_000_000
#: Characters that one text of an expression may have.
MAX_TEXT: Final = 64_000_000
#: Items of a list that `+` makes.
MAX_LIST: Final = 10_000_000
#: Characters that a list or object may have, about, when it is written as JSON.
MAX_SIZE: Final = 256_000_000
#: About 4,200 digits: beyond it an integer has no text in Python.
MAX_BITS: Final = 14_000

_EXACT: Final = Context(prec=200)
_DIVIDING: Final = Context(prec=28)
_ADDABLE: Final = frozenset({int, str, list})
_FAST: Final = frozenset({int, float})
_ORDERED: Final = frozenset({int, float, str, bool})
#: Kinds that sorting may compare as Python does.
_NATIVE: Final = _ORDERED | {bytes, date, Decimal}
#: Same type on both sides, and Python's own == is the language's.
_SIMPLE: Final = frozenset({int, float, str, bool, type(None), bytes})


def exact_context(digits: int) -> Context:
    """Return a decimal context of some digits, with the language's traps."""
    return Context(prec=digits)


def a_kind(value: Any) -> str:
    """Return a value's kind with its article: "a text", "an integer", "null"."""
    name = kind(value)
    if name in ("null", "bytes"):
        return name
    return f"an {name}" if name[0] in "aeio" else f"a {name}"


def refuse_stream(*values: Any) -> None:
    """Raise RunError ``template`` if a value is a stream or a file."""
    for value in values:
        if isinstance(value, Opaque):
            raise RunError("template", f"a {value.kind} can't be part of an expression: {value.remedy}")


def numbers(left: Any, right: Any) -> tuple[Any, Any] | None:
    """Return two numbers that Python can calculate with, or None if one is not a number."""
    one, two = type(left), type(right)
    if one in _FAST and two in _FAST:
        return left, right
    if one is Decimal and two is float:
        return left, Decimal(repr(right))
    if one is float and two is Decimal:
        return Decimal(repr(left)), right
    if one in (int, Decimal) and two in (int, Decimal):
        return Decimal(left), Decimal(right)
    return None


def _calculate(work: Callable[[Any, Any], Any], one: Any, two: Any) -> Any:
    try:
        result = work(one, two)
    except (ZeroDivisionError, DecimalException) as error:
        if isinstance(error, ZeroDivisionError):
            raise RunError("template", "division by zero") from None
        raise RunError("template", "the result is not a number") from None
    except OverflowError:
        raise RunError("template", "the result is too large a number") from None
    if type(result) is float and not math.isfinite(result):
        # It would be written as null, like a missing number.
        raise RunError("template", "the result is too large a number")
    return result


def add(left: Any, right: Any) -> Any:
    """Return `left + right`: two numbers, two texts or two lists."""
    if type(left) is type(right) and type(left) in _ADDABLE:
        if type(left) is list and len(left) + len(right) > MAX_LIST:
            raise RunError("template", f"the list would have more than {MAX_LIST:,} items")
        return bounded_text(left + right) if type(left) is str else left + right
    pair = numbers(left, right)
    if pair is not None:
        one, two = pair
        exact = type(one) is Decimal
        return _calculate(_EXACT.add if exact else operator.add, one, two)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return [*left, *right]
    raise _cannot("add", left, "and", right)


def bounded_text(text: str) -> str:
    """Return a text that is not too long. Raises RunError ``template``: a loop has doubled it for too long."""
    if len(text) > MAX_TEXT:
        raise RunError("template", f"the text would have more than {MAX_TEXT:,} characters")
    return text


def bounded(value: Any) -> Any:
    """Return a new list or object that is not too large, written out.

    A value can be in it many times: each turn of a loop that writes `[x, x]` doubles what it is as JSON, and takes next
    to no memory before. Only where it holds two lists or objects is more looked at than their kinds.
    """
    inner = 0
    for each in value.values() if type(value) is dict else value:
        if type(each) is list or type(each) is dict:
            inner += 1
    if inner > 1:
        check_size(value)
    return value


def check_size(value: list[Any] | dict[str, Any], times: int = 1) -> None:
    """Refuse a list or object that would be too large, written out so many times. Takes time by what is in memory."""
    try:
        size = _size(value, {}) * times
    except RecursionError:
        raise RunError("template", "the value is nested too deeply") from None
    if size > MAX_SIZE:
        raise RunError("template", f"{a_kind(value)} would have more than {MAX_SIZE:,} characters, written out")


def _size(value: Any, sizes: dict[int, int]) -> int:
    known = sizes.get(id(value))
    if known is not None:
        return known
    size = 2
    if type(value) is dict:
        size += 8 * len(value)
        value_items: Iterable[Any] = value.values()
    else:
        value_items = value
    for each in value_items:
        kind_of_each = type(each)
        if kind_of_each is str:
            size += len(each)
        elif kind_of_each is list or kind_of_each is dict:
            size += _size(each, sizes)
        else:
            size += 4
    sizes[id(value)] = size
    return size


def subtract(left: Any, right: Any) -> Any:
    """Return `left - right`, of two numbers."""
    pair = numbers(left, right)
    if pair is None:
        raise _cannot("subtract", right, "from", left)
    one, two = pair
    exact = type(one) is Decimal
    return _calculate(_EXACT.subtract if exact else operator.sub, one, two)


def multiply(left: Any, right: Any) -> Any:
    """Return `left * right`: two numbers, or a text or list and how often to repeat it."""
    pair = numbers(left, right)
    if pair is not None:
        one, two = pair
        if type(one) is Decimal:
            return _calculate(_EXACT.multiply, one, two)
        whole = type(one) is int and type(two) is int
        if whole and one.bit_length() + two.bit_length() > MAX_BITS:
            raise RunError("template", "the result of `*` is too large a number")
        return _calculate(operator.mul, one, two)
    thing, times = (right, left) if type(left) is int else (left, right)
    if type(times) is int and isinstance(thing, (str, list)):
        if times > 0 and len(thing) * times > MAX_ITEMS:
            raise RunError("template", f"`*` would make {a_kind(thing)} of more than {MAX_ITEMS:,} items")
        if times > 1 and type(thing) is list:
            check_size(thing, times)
        return thing * times
    raise _cannot("multiply", left, "and", right)


def divide(left: Any, right: Any) -> Any:
    """Return `left / right`, of two numbers."""
    pair = numbers(left, right)
    if pair is None:
        raise _cannot("divide", left, "by", right)
    one, two = pair
    if type(one) is Decimal:
        return _calculate(_DIVIDING.divide, one, two)
    return _calculate(operator.truediv, one, two)


def divide_whole(left: Any, right: Any) -> Any:
    """Return `left // right`, rounded down for every kind of number."""
    pair = numbers(left, right)
    if pair is None:
        raise _cannot("divide", left, "by", right)
    one, two = pair
    if type(one) is Decimal:
        return _calculate(_divide_exactly, one, two)
    return _calculate(operator.floordiv, one, two)


def _divide_exactly(one: Decimal, two: Decimal) -> Decimal:
    return _EXACT.divide(one, two).to_integral_value("ROUND_FLOOR")


def remain(left: Any, right: Any) -> Any:
    """Return `left % right`, of two numbers; the sign is the divisor's. A text is refused."""
    pair = numbers(left, right)
    if pair is None:
        if isinstance(left, str):
            raise RunError("template", "`%` takes numbers; write `~` to put a value into a text")
        raise _cannot("divide", left, "by", right)
    one, two = pair
    if type(one) is Decimal:
        rest = _calculate(_EXACT.remainder, one, two)
        return _EXACT.add(rest, two) if rest and (rest < 0) != (two < 0) else rest
    return _calculate(operator.mod, one, two)


def power(left: Any, right: Any) -> Any:
    """Return `left ** right`, of two numbers, within MAX_BITS."""
    pair = numbers(left, right)
    if pair is None:
        raise _cannot("raise", left, "to", right)
    one, two = pair
    whole = type(one) is int and type(two) is int
    if whole and two > 0 and one.bit_length() * two > MAX_BITS:
        raise RunError("template", "the result of `**` is too large a number")
    result = _calculate(_DIVIDING.power if type(one) is Decimal else operator.pow, one, two)
    if isinstance(result, complex):
        raise RunError("template", "a root of a negative number is not a number")
    return result


def negate(value: Any) -> Any:
    """Return `-value`, of a number."""
    if type(value) is Decimal:
        return value.copy_negate() if value else value
    if type(value) in _FAST:
        return -value
    raise _cannot("negate", value)


def affirm(value: Any) -> Any:
    """Return `+value`, the number itself."""
    if type(value) is Decimal or type(value) in _FAST:
        return value
    raise _cannot("negate", value)


def join_texts(*values: Any) -> str:
    """Return `a ~ b`: the values' texts, one after the other."""
    return bounded_text("".join(map(to_text, values)))


def _cannot(verb: str, left: Any, word: str = "", right: Any = None) -> RunError:
    refuse_stream(left, right)
    message = f"can't {verb} {a_kind(left)}"
    if word:
        message += f" {word} {a_kind(right)}"
    kinds = {kind(left), kind(right) if word else kind(left)}
    if "null" in kinds:
        message += "; write `| default(...)` where it may be null"
    elif "text" in kinds and kinds & {"integer", "decimal"}:
        message += "; write `x | toInteger`, or `~` to join texts"
    elif "text" in kinds and verb == "add":
        message += "; write `~` to join texts"
    elif "timestamp" in kinds or "date" in kinds:
        message += '; write `x | addTime("7 days")`, or `x | toDecimal` for seconds since 1970'
    elif kinds == {"object"} and verb == "add":
        message += "; write `[a, b] | merge`"
    return RunError("template", message)


def equal(left: Any, right: Any) -> bool:
    """Tell whether two values are equal. A decimal equals the float written the same way."""
    if type(left) is type(right) and type(left) in _SIMPLE:
        return bool(left == right)
    refuse_stream(left, right)
    if isinstance(left, datetime) and isinstance(right, datetime):
        return aware(left) == aware(right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left == right or (left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left))
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(equal, left, right))
    if Decimal in (type(left), type(right)):
        pair = numbers(left, right)
        return pair is not None and bool(pair[0] == pair[1])
    return bool(left == right)


def unequal(left: Any, right: Any) -> bool:
    """Tell whether two values differ."""
    return not equal(left, right)


def aware(value: datetime) -> datetime:
    """Return a timestamp with its zone; one without is in UTC."""
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def order(left: Any, right: Any) -> int:
    """Return -1, 0 or 1 as left comes before, with or after right.

    Raises RunError ``template`` for kinds that have no order between them.
    """
    pair: tuple[Any, Any] | None = numbers(left, right)
    if pair is None:
        if isinstance(left, (datetime, date)) and isinstance(right, (datetime, date)):
            pair = (_moment(left), _moment(right))
        elif type(left) is type(right) and type(left) in (str, bool, bytes):
            pair = left, right
        elif isinstance(left, list) and isinstance(right, list):
            for mine, other in zip(left, right, strict=False):
                if (step := order(mine, other)) != 0:
                    return step
            pair = len(left), len(right)
    if pair is None:
        raise _cannot("compare", left, "with", right)
    one: Any = pair[0]
    two: Any = pair[1]
    return 0 if one == two else -1 if one < two else 1


def order_key(values: Iterable[Any]) -> Callable[[Any], Any] | None:
    """Return the key that puts values in the order of `order`, None for their own; most lists are of one kind.

    The key raises RunError ``template`` where two of them have no order between them.
    """
    values = list(values)
    kinds = set(map(type, values))
    if (len(kinds) == 1 and kinds <= _NATIVE) or kinds <= {int, float} or kinds <= {int, Decimal}:
        return None
    if kinds <= {int, float, Decimal}:
        return _exact_number
    if kinds <= {datetime, date}:
        return _moment
    if kinds == {list} and _comparable(values):
        return None
    return cmp_to_key(order)


def _exact_number(value: Any) -> Any:
    return Decimal(repr(value)) if type(value) is float else value


def _comparable(lists: list[list[Any]]) -> bool:
    """Tell whether Python compares lists as `order` does: of numbers and texts, each kind in its place."""
    rows = {tuple(map(type, each)) for each in lists}
    columns = {tuple("number" if kind in _FAST else kind for kind in row) for row in rows}
    longest = max(columns, key=len)
    fits = all(kind == "number" or kind is str for kind in longest)
    return fits and all(row == longest[: len(row)] for row in columns)


def _moment(value: date) -> datetime:
    if isinstance(value, datetime):
        return aware(value)
    return datetime(value.year, value.month, value.day, tzinfo=UTC)


def less(left: Any, right: Any) -> bool:
    """Tell whether `left < right`."""
    if type(left) is type(right) and type(left) in _ORDERED:
        return bool(left < right)
    return order(left, right) < 0


def less_equal(left: Any, right: Any) -> bool:
    """Tell whether `left <= right`."""
    if type(left) is type(right) and type(left) in _ORDERED:
        return bool(left <= right)
    return order(left, right) <= 0


def greater(left: Any, right: Any) -> bool:
    """Tell whether `left > right`."""
    if type(left) is type(right) and type(left) in _ORDERED:
        return bool(left > right)
    return order(left, right) > 0


def greater_equal(left: Any, right: Any) -> bool:
    """Tell whether `left >= right`."""
    if type(left) is type(right) and type(left) in _ORDERED:
        return bool(left >= right)
    return order(left, right) >= 0


def contains(item: Any, container: Any) -> bool:
    """Tell whether `item in container`: a part of a text, a key of an object, an item of a list."""
    if isinstance(container, dict):
        return item in container if type(item) is str else key_text(item) in container
    if isinstance(container, str):
        if isinstance(item, str):
            return item in container
        raise RunError("template", f"can't look for {a_kind(item)} in a text; write `x | toText in ...`")
    if isinstance(container, (list, tuple)):
        refuse_stream(item)
        return any(equal(item, one) for one in container)
    refuse_stream(container)
    hint = "; write `| default([])` where it may be null" if container is None else ""
    raise RunError("template", f"can't look for an item in {a_kind(container)}{hint}")


def lacks(item: Any, container: Any) -> bool:
    """Tell whether `item not in container`."""
    return not contains(item, container)


def chain(first: Any, *rest: Any) -> bool:
    """Tell whether `a < b <= c` holds: rest is operator, lambda, operator, lambda, ..."""
    for index in range(0, len(rest), 2):
        second = rest[index + 1]()
        if not rest[index](first, second):
            return False
        first = second
    return True


def key_text(key: Any) -> str:
    """Return the key of an object for a value: keys are text."""
    if type(key) is str:
        return key
    if isinstance(key, (list, dict)) or key is None:
        raise RunError("template", f"{a_kind(key)} can't be the key of an object; keys are text")
    return to_text(key)


def is_finite(value: Any) -> bool:
    """Tell whether a number is neither infinite nor NaN."""
    return value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)


#: What a path that leads nowhere raises; softened under `default` and `is defined`.
NOWHERE: Final = (NameError, KeyError, IndexError, TypeError)


def item(container: Any, key: Any) -> Any:
    """Return `container[key]` for a key known only at run time, or an integer.

    Raises KeyError, IndexError or TypeError where there is none, as Python does.
    """
    kind_of_key = type(key)
    if kind_of_key is str:
        return container[key]
    if kind_of_key is int:
        if type(container) is dict:
            return container[key] if key in container else container[str(key)]
        if isinstance(container, (list, str, tuple, bytes)):
            return container[key]
    raise TypeError("no such look-up")


def part(value: Any, start: Any, stop: Any, step: Any) -> Any:
    """Return `value[start:stop:step]` of a text, a list or bytes."""
    if not isinstance(value, (str, list, tuple, bytes)):
        refuse_stream(value)
        raise RunError("template", f"can't take a slice of {a_kind(value)}")
    for bound in (start, stop, step):
        if bound is not None and type(bound) is not int:
            raise RunError("template", f"a slice needs integers, got {a_kind(bound)}")
    if step == 0:
        raise RunError("template", "the step of a slice can't be 0")
    return value[start:stop:step]


def default(path: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """Return what the path leads to, or other() if it leads nowhere or to null."""
    try:
        value = path()
    except NOWHERE:
        return other()
    return other() if value is None else value


def default_value(path: Callable[[], Any], other: Any) -> Any:
    """Return what the path leads to, or a constant if it leads nowhere or to null."""
    try:
        value = path()
    except NOWHERE:
        return other
    return other if value is None else value


def default_empty(path: Callable[[], Any], other: Callable[[], Any], empty: Any) -> Any:
    """Return what the path leads to, or other() for null and, if asked, for any empty value."""
    value = default_value(path, None)
    return other() if value is None or (empty and not value) else value


def defined(path: Callable[[], Any]) -> bool:
    """Tell whether a path leads somewhere. Null is somewhere."""
    try:
        path()
    except NOWHERE:
        return False
    return True


def undefined(path: Callable[[], Any]) -> bool:
    """Tell whether a path leads nowhere."""
    return not defined(path)
