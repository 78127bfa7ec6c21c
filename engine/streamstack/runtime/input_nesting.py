"""Objects, lists and free JSON: the types that hold other values, and what stands in for an absent one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from streamstack.language.definition import Input
from streamstack.language.suggest import did_you_mean
from streamstack.language.values import MISSING
from streamstack.runtime.input_faults import Check, Faults, unlike
from streamstack.runtime.input_types import SIMPLE
from streamstack.runtime.values import Stream

_SAFE_INTEGERS: Final = range(-(2**63), 2**64)  # those that the fast parser gives as integers
_NONE: Final[set[str]] = set()  # nothing is ever added to it
_NOWHERE: Final[Mapping[str, str]] = {}

#: Deals with a property that was not sent: (object sent, result, faults) -> how many of its names were.
Absent = Callable[[Mapping[str, Any], dict[str, Any], Faults], int]


class Inputs(dict[str, Any]):
    """Checked inputs by name, with the defaults of absent ones; `"x" in input` tells whether x was sent.

    Only `input` itself is one: the objects in it are plain.
    """

    absent: set[str] = _NONE

    def __contains__(self, name: object) -> bool:
        return name not in self.absent and dict.__contains__(self, name)


def build(declared: Input, unknown: str, *, call: bool) -> Check:
    """Compile the check of a declared value.

    ``unknown`` is `refuse` or `ignore`, for properties that are not declared; ``call`` takes values of the language
    besides those of JSON. Raises ValueError for a declaration that can't be served, with its place.
    """
    if declared.type == "object" and declared.properties is not None:
        return build_object(declared.properties, unknown, call=call, nullable=declared.nullable)
    if declared.type == "object":
        return _free(dict, unlike("an object", nullable=declared.nullable), call=call)
    if declared.type == "list":
        return _list(declared, unknown, call=call)
    if declared.type == "json":
        return _free(object, unlike("a value", nullable=True), call=call)
    try:
        return SIMPLE[declared.type](declared, call=call)
    except ValueError as error:
        raise ValueError(f"{declared.mark}: the input {declared.name}: {error}") from None


def build_object(
    properties: tuple[Input, ...],
    unknown: str,
    *,
    call: bool,
    nullable: bool = False,
    result_type: type[dict[str, Any]] = dict,
    elsewhere: Mapping[str, str] = _NOWHERE,
) -> Check:
    """Compile the check of an object with declared properties.

    ``elsewhere`` tells where properties belong that are declared, but not for this object.
    """
    # A null passed from one stack to another counts as not given, unless null is a value there.
    fields = [
        (
            each.name,
            build(each, unknown, call=call),
            None if call and not each.nullable and each.type != "json" else MISSING,
            build_absent(each, unknown, call=call),
        )
        for each in properties
    ]
    refuse = unlike("an object", nullable=nullable)
    refuse_unknown = build_unknown(properties, elsewhere) if unknown == "refuse" else None

    def check(value: Any, faults: Faults) -> Any:
        if type(value) is not dict and not (call and isinstance(value, Mapping)):
            return refuse(value, faults)
        result = result_type()
        used = 0
        get = value.get
        found = faults.found
        for name, check_one, hole, absent in fields:
            one = get(name, hole)
            if one is hole:
                used += absent(value, result, faults)
                continue
            used += 1
            before = len(found)
            result[name] = check_one(one, faults)
            if len(found) != before:
                faults.under(before, name)
        if used != len(value) and refuse_unknown is not None:
            refuse_unknown(value, faults)
        return result

    return check


def build_absent(declared: Input, unknown: str, *, call: bool) -> Absent:
    """Compile what is done where a declared value was not sent under its name."""
    name, required = declared.name, declared.required
    hole = None if call and not declared.nullable and declared.type != "json" else MISSING
    check = build(declared, unknown, call=call) if declared.aliases else None
    make = default_of(declared)

    def absent(value: Mapping[str, Any], result: dict[str, Any], faults: Faults) -> int:
        for alias in declared.aliases:
            one = value.get(alias, hole)
            if one is not hole and check is not None:
                before = len(faults.found)
                result[name] = check(one, faults)
                faults.under(before, alias)
                return 1
        fill(result, name, make)
        if required:
            faults.add_at(name, "is required")
        # Nulls that count as not given are names that were sent all the same.
        return sum(each in value for each in (name, *declared.aliases)) if hole is None else 0

    return absent


def fill(result: dict[str, Any], name: str, make: Callable[[], Any]) -> None:
    """Put what stands in for an absent value in its place."""
    result[name] = make()
    if isinstance(result, Inputs):
        if result.absent is _NONE:
            result.absent = {name}
        else:
            result.absent.add(name)


def build_unknown(
    properties: Iterable[Input], elsewhere: Mapping[str, str] = _NOWHERE
) -> Callable[[Mapping[str, Any], Faults], None]:
    """Compile the refusal of properties that are not declared, with what may have been meant."""
    names = {each.name for each in properties}
    aliases = {alias: each.name for each in properties for alias in each.aliases}

    def refuse(value: Mapping[str, Any], faults: Faults) -> None:
        for name in value:
            if name in names:
                continue
            if name in elsewhere:
                faults.add_at(name, f"belongs in the {elsewhere[name]}, not here")
            elif name not in aliases:
                faults.add_at(name, f"is not known here{did_you_mean(name, names)}")
            elif aliases[name] in value or next(each for each in aliases if each in value) != name:
                faults.add_at(name, f"is another name of {aliases[name]}: send one of them")
            if faults.full:
                return

    return refuse


def default_of(declared: Input) -> Callable[[], Any]:
    """Return what makes the value of an absent input; each call gives one of its own.

    Raises ValueError for a default that its own declaration refuses.
    """
    if declared.default is not MISSING and declared.default is not None:
        faults = Faults(exact=True)
        value = build(declared, "refuse", call=True)(declared.default, faults)
        if faults.found:
            part, message = faults.found[0]
            raise ValueError(
                f"{declared.mark}: the default of {declared.name}: {part} {message}".replace(
                    ":  ", ": "
                )
            )
    elif (
        declared.default is MISSING
        and declared.type == "object"
        and declared.properties is not None
    ):
        value = {each.name: default_of(each)() for each in declared.properties}
    else:
        return _nothing
    if not isinstance(value, (dict, list)):
        return lambda: value
    return lambda: _copy(value)


def _nothing() -> None:
    return None


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _copy(one) if isinstance(one, (dict, list)) else one
            for name, one in value.items()
        }
    return [_copy(one) if isinstance(one, (dict, list)) else one for one in value]


def _list(declared: Input, unknown: str, *, call: bool) -> Check:
    low = declared.min_items or 0
    high = sys.maxsize if declared.max_items is None else declared.max_items
    refuse = unlike("a list", nullable=declared.nullable)
    check_item = None if declared.items is None else build(declared.items, unknown, call=call)
    free = _free(list, refuse, call=call)

    def check(value: Any, faults: Faults) -> Any:
        if type(value) is not list and not (call and isinstance(value, (list, tuple))):
            return refuse(value, faults)
        if not low <= len(value) <= high:
            return faults.add(count_fault(low, high, len(value)))
        if check_item is None:
            return free(value, faults)
        return check_items(check_item, value, faults)

    return check


def count_fault(low: int, high: int, count: int) -> str:
    """Say how many items a list must have."""
    number, bound = (low, "at least") if count < low else (high, "at most")
    return f"must have {bound} {number} item{'' if number == 1 else 's'}"


def check_items(check: Check, values: Iterable[Any], faults: Faults) -> list[Any]:
    """Check each item of a list; faults are named by its index from 0."""
    found = faults.found
    result = []
    for one in values:
        before = len(found)
        result.append(check(one, faults))
        if len(found) != before:
            faults.under(before, f"[{len(result) - 1}]")
            if faults.full:
                break
    return result


def _free(wanted: type, refuse: Check, *, call: bool) -> Check:
    """Compile the check of JSON of which nothing is declared but the outermost type."""

    def check(value: Any, faults: Faults) -> Any:
        if not isinstance(value, wanted):
            return refuse(value, faults)
        if call:
            if isinstance(value, Stream):
                faults.add(
                    "must be a value, not a stream: declare the input as `type: stream`, or `collect` it first"
                )
            return value
        return _inexact(value) if faults.exact else value

    return check


def _inexact(value: Any) -> Any:
    """Return what the fast parser would have given: floats for decimals, also for integers past 64 bits."""
    if type(value) is Decimal or (type(value) is int and value not in _SAFE_INTEGERS):
        return float(value)
    if type(value) is dict:
        return {name: _inexact(one) for name, one in value.items()}
    if type(value) is list:
        return [_inexact(one) for one in value]
    return value
