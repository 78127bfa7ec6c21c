"""Convert and check input values by their declared types."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import reduce
from typing import Any, Final

import orjson

from streamstack.errors import RunError, fast_dataclass
from streamstack.language.definition import Input, InputRules, JsonSchema
from streamstack.language.names import did_you_mean
from streamstack.language.patterns import LONGEST, compile_pattern
from streamstack.language.values import (
    MISSING,
    TIMESTAMP_EXAMPLE,
    is_one_of,
    kind,
    load_json,
    parse_date,
    parse_email,
    parse_timestamp,
    parse_url,
    parse_uuid,
    shorten,
    show_size,
    to_text,
)
from streamstack.runtime.decoders.decoder import DEEPEST, is_deep
from streamstack.runtime.values import File, Stream

#: Converts and checks one value. What is wrong with it goes to the faults, which know its name.
Check = Callable[[Any, "InputFaults"], Any]

#: How many faults one error names; a client mends these before it sees the rest.
MOST: Final = 50
#: How much of a name that a client made up is repeated to it.
LONGEST_NAME: Final = 80


class InexactError(Exception):
    """A number lost digits when the document was parsed as floats: it must be parsed again."""


class InputFaults:
    """What is wrong with a value, found from the inside out.

    Each fault is the name of the part it is about, seen from where the check stands, and a message. ``exact`` says
    that numbers with a fraction are decimals here, as they were written. ``filled`` are the objects that hold a default
    for a property that was not sent, with its name.
    """

    __slots__ = ("exact", "filled", "found")

    def __init__(self, *, exact: bool = False) -> None:
        self.found: list[tuple[str, str]] = []
        self.filled: list[tuple[dict[str, Any], str]] = []
        self.exact = exact

    def add(self, message: str) -> None:
        """Add a fault of the value itself."""
        if len(self.found) < MOST:
            self.found.append(("", message))

    def add_at(self, name: str, message: str) -> None:
        """Add a fault of a part of the value."""
        if len(self.found) < MOST:
            if len(name) > LONGEST_NAME:
                name = name[:LONGEST_NAME] + "..."
            self.found.append((name.encode("utf-8", "replace").decode(), message))

    def under(self, before: int, key: str) -> None:
        """Name the faults found since there were ``before`` as those of the part ``key``."""
        found = self.found
        for index in range(before, len(found)):
            name, message = found[index]
            found[index] = (join(key, name), message)

    @property
    def full(self) -> bool:
        return len(self.found) >= MOST


def join(key: str, name: str) -> str:
    """Return the name of a part of a part: `items[3].price`."""
    return key + name if not name or name[0] == "[" else f"{key}.{name}"


def an(noun: str) -> str:
    """Return a noun with its article; null has none."""
    if noun == "null":
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def unlike(wanted: str, *, nullable: bool = False) -> Check:
    """Return what to do with a value of the wrong type: pass a null that is allowed, else say what to send."""

    def refuse(value: Any, faults: InputFaults) -> None:
        if value is None and nullable:
            return
        faults.add(f"must be {wanted}, not {an(kind(value))}")

    return refuse


def details_of(place: str, faults: InputFaults) -> list[dict[str, str]]:
    """Return the faults as the details of an error; ``place`` is where the values came from."""
    return [{"in": place, "name": name, "message": message} for name, message in faults.found]


def invalid(details: list[dict[str, str]], *, status: int = 400) -> RunError:
    """Return the one error that names all faults."""
    details = details[:MOST]
    message = "; ".join(f"{each['name'] or 'the ' + each['in']} {each['message']}" for each in details[:3])
    if len(details) > 3:
        message += f"; and {len(details) - 3} more"
    return RunError("invalid-input", message, status=status, details=details)


def invalid_input(place: str, name: str, message: str, *, status: int = 400) -> RunError:
    """Return the error of one fault; ``place`` is where the value came from."""
    return invalid([{"in": place, "name": name, "message": message}], status=status)


#: The integers that databases and clients hold without loss, where the declaration sets no bounds.
SMALLEST: Final = -(2**63)
LARGEST: Final = 2**63 - 1
#: The powers of ten a decimal may span: what a float of JSON can have too, and no more.
_EXPONENT: Final = 400
#: The digits it may have in all: each operation on a number goes through all of them.
_DIGITS: Final = 10_000
#: From here on a float doesn't hold every integer.
_EXACT_FLOAT: Final = 2.0**53

_FILTERS: Final[dict[str, Callable[[str], str]]] = {"trim": str.strip, "lower": str.lower, "upper": str.upper}


def _filter_of(declared: Input) -> Callable[[str], str] | None:
    """Return what applies the `filters` of an input, None where it has none."""
    filters = tuple(_FILTERS[name] for name in declared.filters)
    return (lambda value: reduce(lambda text, change: change(text), filters, value)) if filters else None


def text(declared: Input, *, call: bool) -> Check:
    """Take a text; its filters are applied before its length is looked at."""
    low = declared.min_length or 0
    high = sys.maxsize if declared.max_length is None else declared.max_length
    change = _filter_of(declared)
    matches = None if declared.pattern is None else compile_pattern(declared.pattern).matches
    if matches is not None:
        high = min(high, LONGEST if declared.max_length is None else high)
    refuse = unlike("a text", nullable=declared.nullable)

    def explain(value: str) -> str:
        if len(value) < low:
            return "must not be empty" if low == 1 else f"must have at least {low} characters"
        if len(value) > high:
            return f"must have at most {high} character{'' if high == 1 else 's'}"
        return f"must match the pattern {declared.pattern}"

    def check_any(value: Any, faults: InputFaults) -> Any:
        if type(value) is str:
            return value
        return str(value) if call and isinstance(value, str) else refuse(value, faults)

    def check(value: Any, faults: InputFaults) -> Any:
        if type(value) is not str:
            if not (call and isinstance(value, str)):
                return refuse(value, faults)
            value = str(value)
        if change is not None:
            value = change(value)
        if low <= len(value) <= high and (matches is None or matches(value)):
            return value
        return faults.add(explain(value))

    return check if change or matches or low or high != sys.maxsize else check_any


def _bounds(low: Any, high: Any) -> str:
    if low is not None and high is not None:
        return f"must be between {low} and {high}"
    return f"must be at least {low}" if low is not None else f"must be at most {high}"


def integer(declared: Input, *, call: bool) -> Check:
    """Take an integer. As in JSON Schema, 5.0 is one."""
    low = SMALLEST if declared.minimum is None else declared.minimum
    high = LARGEST if declared.maximum is None else declared.maximum
    refuse = unlike("an integer", nullable=declared.nullable)

    def check(value: Any, faults: InputFaults) -> Any:
        if type(value) is int:
            if low <= value <= high:
                return value
        elif type(value) is float or type(value) is Decimal:
            # Bounds before int(): they keep out infinities, and numbers of a million digits.
            if value != value or (low <= value <= high and value != int(value)):  # noqa: PLR0124
                return faults.add("must be an integer, without a fraction")
            if low <= value <= high:
                if type(value) is float and not -_EXACT_FLOAT < value < _EXACT_FLOAT and not faults.exact:
                    raise InexactError
                return int(value)
        else:
            return refuse(value, faults)
        if value < SMALLEST or value > LARGEST:
            return faults.add(_bounds(low, high))
        return faults.add(_bounds(declared.minimum, declared.maximum))

    return check


def decimal(declared: Input, *, call: bool) -> Check:
    """Take a number and keep its digits."""
    low = None if declared.minimum is None else Decimal(repr(declared.minimum))
    high = None if declared.maximum is None else Decimal(repr(declared.maximum))
    refuse = unlike("a decimal", nullable=declared.nullable)

    def check(value: Any, faults: InputFaults) -> Any:
        if type(value) is int:
            number = Decimal(value)
        elif type(value) is Decimal:
            number = value
        elif type(value) is float:
            if not faults.exact:
                raise InexactError
            number = Decimal(repr(value))
        else:
            return refuse(value, faults)
        if not number.is_finite() or not -_EXPONENT <= number.adjusted() <= _EXPONENT:
            return faults.add(f"must be a decimal with an exponent of at most {_EXPONENT}")
        if len(str(number)) > _DIGITS and len(number.as_tuple().digits) > _DIGITS:
            return faults.add(f"must be a decimal with at most {_DIGITS} digits")
        if (low is not None and number < low) or (high is not None and number > high):
            return faults.add(_bounds(declared.minimum, declared.maximum))
        return number

    return check


def boolean(declared: Input, *, call: bool) -> Check:
    """Take true or false."""
    refuse = unlike("true or false", nullable=declared.nullable)

    def check(value: Any, faults: InputFaults) -> Any:
        return value if value is True or value is False else refuse(value, faults)

    return check


def _timestamp_value(value: Any) -> datetime | None:
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _date_value(value: Any) -> date | None:
    return value if isinstance(value, date) and not isinstance(value, datetime) else None


@dataclass(frozen=True, slots=True)
class _Format:
    """A type that JSON writes as text.

    Args:
        parse: Returns the value of a text, None where it isn't one.
        wanted: What is to be sent.
        precisely: The same, for a text that isn't one.
        take: Returns a value of the language that is one already.
    """

    parse: Callable[[str], Any]
    wanted: str
    precisely: str = ""
    take: Callable[[Any], Any] = lambda _: None


_FORMATS: Final = {
    "timestamp": _Format(
        parse_timestamp,
        f"a timestamp such as {TIMESTAMP_EXAMPLE}",
        f"a timestamp with its offset from UTC, such as {TIMESTAMP_EXAMPLE}",
        _timestamp_value,
    ),
    "date": _Format(parse_date, "a date such as 2026-01-31", take=_date_value),
    "uuid": _Format(parse_uuid, "a UUID such as 0b8e5d1c-3f6a-4c57-9d0e-2f4b8a6c1e90"),
    "email": _Format(parse_email, "an e-mail address such as ada@example.com"),
    "url": _Format(parse_url, "an absolute URL such as https://example.com/page"),
}


def formatted(declared: Input, *, call: bool) -> Check:
    """Take a text in a format, as the value it stands for."""
    format_ = _FORMATS[declared.type]
    parse, change = format_.parse, _filter_of(declared)
    refuse = unlike(format_.wanted, nullable=declared.nullable)
    fault = f"must be {format_.precisely or format_.wanted}"

    def check(value: Any, faults: InputFaults) -> Any:
        if type(value) is not str:
            taken = format_.take(value) if call else None
            return refuse(value, faults) if taken is None else taken
        found = parse(value if change is None else change(value))
        return found if found is not None else faults.add(fault)

    return check


def enum(declared: Input, *, call: bool) -> Check:
    """Take one of the declared values; a text is never a number."""
    change = _filter_of(declared)
    texts = frozenset(value for value in declared.values if type(value) is str)
    booleans = frozenset(value for value in declared.values if type(value) is bool)
    numbers = {Decimal(repr(value)): value for value in declared.values if type(value) in (int, float)}
    if declared.sensitive:
        wanted = "one of its values"
    else:
        shown = [orjson.dumps(value).decode() for value in declared.values]
        wanted = f"one of {', '.join(shown[:20])}{', ...' if len(shown) > 20 else ''}"
    refuse = unlike(wanted, nullable=declared.nullable)

    def check(value: Any, faults: InputFaults) -> Any:
        if type(value) is str:
            if change is not None:
                value = change(value)
            if value in texts:
                return value
        elif type(value) is bool:
            if value in booleans:
                return value
        elif type(value) in (int, float, Decimal):
            found = numbers.get(value if type(value) is Decimal else Decimal(repr(value)))
            if found is not None:
                return found
        else:
            return refuse(value, faults)
        return faults.add(f"must be {wanted}")

    return check


def file(declared: Input, *, call: bool) -> Check:
    """Take an uploaded file."""
    most = declared.max_size
    refuse = unlike("a file: send the body as multipart/form-data", nullable=declared.nullable)

    def check(value: Any, faults: InputFaults) -> Any:
        if not isinstance(value, File):
            return refuse(value, faults)
        if most is not None and value.size > most:
            return faults.add(f"must have at most {show_size(most)}")
        if declared.content_types and not is_one_of(value.content_type, declared.content_types):
            return faults.add(f"must be of type {' or '.join(declared.content_types)}")
        return value

    return check


def stream(declared: Input, *, call: bool) -> Check:
    """Take a stream or a list, where one stack calls another."""
    if not call:
        raise ValueError("a stream is the whole request body, and no part of another input")
    refuse = unlike("a stream or a list", nullable=declared.nullable)

    def check(value: Any, faults: InputFaults) -> Any:
        return value if isinstance(value, (Stream, list)) else refuse(value, faults)

    return check


#: The check of each type that holds nothing declared inside.
SIMPLE: Final[dict[str, Callable[..., Check]]] = {
    "text": text,
    "integer": integer,
    "decimal": decimal,
    "boolean": boolean,
    "enum": enum,
    "file": file,
    "stream": stream,
    **dict.fromkeys(_FORMATS, formatted),
}


@fast_dataclass()
class JsonText:
    """Bytes that are said to be JSON."""

    data: bytes


def check_json(data: bytes, check: Check, faults: InputFaults) -> Any:
    """Parse a document and check it.

    Numbers are parsed as floats first; where one meets a declared decimal, all are parsed again with their digits.
    """
    before = len(faults.found)
    value = parse_json(data, faults)
    if len(faults.found) != before:
        return None
    if faults.exact:
        return check(value, faults)
    try:
        return check(value, faults)
    except InexactError:
        pass
    del faults.found[before:]
    faults.exact = True
    try:
        return check(_parse_exactly(data), faults)
    finally:
        faults.exact = False


def parse_json(data: bytes, faults: InputFaults) -> Any:
    """Return the value of a document; what is wrong with it goes to the faults."""
    try:
        value = load_json(data)
    except orjson.JSONDecodeError as error:
        if data.startswith(b"\xef\xbb\xbf"):
            return parse_json(data[3:], faults)
        if "depth" in error.msg or "recursion" in error.msg.lower():
            return faults.add(f"must not be nested more than {DEEPEST} deep")
        return faults.add(f"must be JSON: {_reason(error, data)}")
    if is_deep(data, value):
        return faults.add(f"must not be nested more than {DEEPEST} deep")
    return value


def _reason(error: orjson.JSONDecodeError, data: bytes) -> str:
    if not data.strip():
        return "it is empty"
    if "UTF-8" in error.msg:
        return "it is not UTF-8"
    return f"{error.msg}, at line {error.lineno}, column {error.colno}"


def _parse_exactly(data: bytes) -> Any:
    """Parse again what was parsed before, numbers with a fraction or an exponent as decimals."""
    return _EXACT.decode(data.decode("utf-8-sig"))


def _parse_integer(text: str) -> int | Decimal:
    # Python refuses to make an integer of more than 4300 digits; a decimal of them is cheap, and out of all bounds.
    return int(text) if len(text) < 400 else Decimal(text)


def parse_decimal(text: str) -> Decimal:
    """Return a number with its digits; one whose exponent no decimal can have is out of all bounds, too."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return _ENDLESS


#: What is refused wherever a decimal is declared.
_ENDLESS: Final = Decimal("1e-999999")
_EXACT: Final = json.JSONDecoder(parse_float=parse_decimal, parse_int=_parse_integer)


#: How values are taken that one stack passes to another: a null counts as not given, unless null is a value there.
CALL_RULES: Final = InputRules(null_means_absent=True)
_NONE: Final[set[str]] = set()  # nothing is ever added to it
_NOWHERE: Final[Mapping[str, str]] = {}

#: Deals with a property that was not sent: (object sent, result, faults) -> how many of its names were.
Absent = Callable[[Mapping[str, Any], dict[str, Any], InputFaults], int]


class Inputs(dict[str, Any]):
    """Checked inputs by name, with the defaults of absent ones; `"x" in input` tells whether x was sent.

    Only `input` itself is one: the objects in it are plain. ``filled`` are those of them that hold a default for a
    property that was not sent; ``path`` the names that are in the path of the request.
    """

    absent: set[str] = _NONE
    filled: Sequence[tuple[dict[str, Any], str]] = ()
    path: frozenset[str] = frozenset()

    def __contains__(self, name: object) -> bool:
        return name not in self.absent and dict.__contains__(self, name)

    def sent(self) -> Sent:
        """Return what the client sent, converted, without parameters of the path and streams."""
        filled = {(id(held), name) for held, name in self.filled}
        outside = self.absent | self.path
        sent = Sent(
            (name, _sent(value, filled))
            for name, value in self.items()
            if name not in outside and not isinstance(value, Stream)
        )
        sent.declared = self.keys()
        return sent


class Sent(dict[str, Any]):
    """The inputs that a client sent; one that it did not send is null where it is read."""

    declared: Collection[str] = ()

    def __missing__(self, name: str) -> None:
        if name not in self.declared:
            raise KeyError(name)


def _sent(value: Any, filled: set[tuple[int, str]]) -> Any:
    if not filled:
        return value
    if type(value) is dict:
        return {name: _sent(one, filled) for name, one in value.items() if (id(value), name) not in filled}
    return [_sent(one, filled) for one in value] if type(value) is list else value


def build(declared: Input, rules: InputRules, *, call: bool) -> Check:
    """Compile the check of a declared value.

    ``call`` takes values of the language besides those of JSON. Raises ValueError for a declaration that can't be
    served, with its place.
    """
    check = build_strict(declared, rules, call=call)
    return _converting(declared, check) if rules.convert else check


def build_strict(declared: Input, rules: InputRules, *, call: bool) -> Check:
    """Compile the check of a value that must have the declared type itself; values inside may be converted."""
    if declared.type == "object" and declared.properties is not None:
        return build_object(declared.properties, rules, call=call, nullable=declared.nullable)
    if declared.type == "object":
        return _free(dict, unlike("an object", nullable=declared.nullable), call=call)
    if declared.type == "list":
        return _list(declared, rules, call=call)
    if declared.type == "json":
        check = _free(object, unlike("a value", nullable=True), call=call)
        return check if declared.schema is None else _fitting(declared.schema, check)
    try:
        return SIMPLE[declared.type](declared, call=call)
    except ValueError as error:
        raise ValueError(f"{declared.mark}: the input {declared.name}: {error}") from None


def skipped_values(declared: Input, rules: InputRules) -> tuple[Any, bool]:
    """Return what stands for a value that was not sent, beside its absence: null or MISSING; and whether "" does."""
    null = rules.null_means_absent and not declared.nullable and declared.type != "json"
    empty = rules.empty_means_absent or (rules.convert and declared.type not in _KEEP_EMPTY)
    return None if null else MISSING, empty and "" not in declared.values


#: Types of which "" is a value, or is refused as one, also where texts are converted.
_KEEP_EMPTY: Final = frozenset({"text", "json", "file"})


def build_object(
    properties: tuple[Input, ...],
    rules: InputRules,
    *,
    call: bool,
    nullable: bool = False,
    result_type: type[dict[str, Any]] = dict,
    elsewhere: Mapping[str, str] = _NOWHERE,
) -> Check:
    """Compile the check of an object with declared properties.

    ``elsewhere`` tells where properties belong that are declared, but not for this object.
    """
    fields = [
        (each.name, build(each, rules, call=call), *skipped_values(each, rules), build_absent(each, rules, call=call))
        for each in properties
    ]
    refuse = unlike("an object", nullable=nullable)
    refuse_unknown = build_unknown(properties, elsewhere) if rules.unknown == "refuse" else None

    def check(value: Any, faults: InputFaults) -> Any:
        if type(value) is not dict and not (call and isinstance(value, Mapping)):
            return refuse(value, faults)
        result = result_type()
        used = 0
        get = value.get
        found = faults.found
        for name, check_one, hole, skips_empty, absent in fields:
            one = get(name, hole)
            if one is hole or (skips_empty and one == ""):
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


def build_absent(declared: Input, rules: InputRules, *, call: bool) -> Absent:
    """Compile what is done where a declared value was not sent under its name."""
    name, required = declared.name, declared.required
    hole, skips_empty = skipped_values(declared, rules)
    check = build(declared, rules, call=call) if declared.aliases else None
    make = default_of(declared)

    def absent(value: Mapping[str, Any], result: dict[str, Any], faults: InputFaults) -> int:
        for alias in declared.aliases:
            one = value.get(alias, hole)
            if one is not hole and not (skips_empty and one == "") and check is not None:
                before = len(faults.found)
                result[name] = check(one, faults)
                faults.under(before, alias)
                return 1
        fill(result, name, make, faults)
        if required:
            faults.add_at(name, "is required")
        # Nulls and empty texts that count as not sent are names that were sent all the same.
        return sum(each in value for each in (name, *declared.aliases)) if hole is None or skips_empty else 0

    return absent


def fill(result: dict[str, Any], name: str, make: Callable[[], Any], faults: InputFaults) -> None:
    """Put what stands in for an absent value in its place."""
    result[name] = make()
    if not isinstance(result, Inputs):
        faults.filled.append((result, name))
    elif result.absent is _NONE:
        result.absent = {name}
    else:
        result.absent.add(name)


def build_unknown(
    properties: Iterable[Input], elsewhere: Mapping[str, str] = _NOWHERE
) -> Callable[[Mapping[str, Any], InputFaults], None]:
    """Compile the refusal of properties that are not declared, with what may have been meant."""
    names = {each.name for each in properties}
    aliases = {alias: each.name for each in properties for alias in each.aliases}

    def refuse(value: Mapping[str, Any], faults: InputFaults) -> None:
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
        faults = InputFaults(exact=True)
        value = build(declared, CALL_RULES, call=True)(declared.default, faults)
        if faults.found:
            part, message = faults.found[0]
            raise ValueError(f"{declared.mark}: the default of {declared.name}: {part} {message}".replace(":  ", ": "))
    elif declared.default is MISSING and declared.type == "object" and declared.properties is not None:
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
        return {name: _copy(one) if isinstance(one, (dict, list)) else one for name, one in value.items()}
    return [_copy(one) if isinstance(one, (dict, list)) else one for one in value]


def _list(declared: Input, rules: InputRules, *, call: bool) -> Check:
    low = declared.min_items or 0
    high = sys.maxsize if declared.max_items is None else declared.max_items
    refuse = unlike("a list", nullable=declared.nullable)
    check_item = None if declared.items is None else build(declared.items, rules, call=call)
    free = _free(list, refuse, call=call)

    def check(value: Any, faults: InputFaults) -> Any:
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


def check_items(check: Check, values: Iterable[Any], faults: InputFaults) -> list[Any]:
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

    def check(value: Any, faults: InputFaults) -> Any:
        if not isinstance(value, wanted):
            return refuse(value, faults)
        if call:
            if isinstance(value, Stream):
                faults.add("must be a value, not a stream: declare the input as `type: stream`, or `collect` it first")
            return value
        return _inexact(value) if faults.exact else value

    return check


def _fitting(schema: JsonSchema, check: Check) -> Check:
    """Compile the check of a value by a JSON Schema, after another check."""

    def check_schema(value: Any, faults: InputFaults) -> Any:
        before = len(faults.found)
        value = check(value, faults)
        if len(faults.found) == before:
            for name, message in schema.find_faults(value):
                faults.add_at(name, message)
        return value

    return check_schema


def _inexact(value: Any) -> Any:
    """Return what `load_json` would have given: floats for decimals that have the same digits."""
    if type(value) is Decimal:
        return shorten(value)
    if type(value) is dict:
        return {name: _inexact(one) for name, one in value.items()}
    if type(value) is list:
        return [_inexact(one) for one in value]
    return value


_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,400}")
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_SPACED_OFFSET: Final = re.compile(r" (?=[0-9]{2}:[0-9]{2}$)")
#: `on` is what a form sends for a checkbox that has no value of its own.
_BOOLEANS: Final = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}


def _converting(declared: Input, check: Check) -> Check:
    """Compile a check that takes texts as those of a form are taken, and numbers and booleans for texts."""
    if declared.type in ("json", "file"):
        return check
    read = text_reader(declared, check)
    wants_text, wants_boolean = declared.type == "text", declared.type == "boolean"

    def check_converted(value: Any, faults: InputFaults) -> Any:
        if type(value) is str:
            return read(value, faults)
        if wants_text and type(value) in (int, float, bool, Decimal):
            if type(value) is float and not faults.exact:
                raise InexactError
            return check(to_text(value), faults)
        if wants_boolean and type(value) is int:
            return check(_BOOLEANS.get(str(value), value), faults)
        return check(value, faults)

    return check_converted


def text_reader(declared: Input, check_typed: Check) -> Check:
    """Compile the check of one text, which is converted to the declared type."""
    values = {to_text(value): value for value in declared.values}
    convert = _CONVERSIONS.get(declared.type)
    change = _filter_of(declared)
    whole = declared.type in ("object", "list", "json")

    def check(text: Any, faults: InputFaults) -> Any:
        if type(text) is not str:
            if isinstance(text, JsonText):
                return check_json(text.data, check_typed, faults)
            if isinstance(text, File) and declared.type != "file":
                return faults.add(f"must be {_WANTED.get(declared.type, 'a text')}, not a file")
            return check_typed(text, faults)
        if not text.isascii() and not _is_unicode(text):
            return faults.add("must be UTF-8")
        if whole:
            return _json(text, declared, check_typed, faults)
        if values:
            return check_typed(values.get(text if change is None else change(text), text), faults)
        return check_typed(text if convert is None else convert(text), faults)

    return check


def _is_unicode(text: str) -> bool:
    """Tell whether a text is free of the lone surrogates that stand for bytes that weren't UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(text: str, declared: Input, check: Check, faults: InputFaults) -> Any:
    if declared.type == "json":
        # As with the data of server-sent events: JSON where it is JSON, else a text.
        inner = InputFaults()
        value = parse_json(text.encode(), inner)
        return check(text if inner.found else value, faults)
    return check_json(text.encode(), check, faults)


def _integer(text: str) -> Any:
    stripped = text.strip(" ")
    return int(stripped) if _INTEGER.fullmatch(stripped) is not None else _Unreadable(text)


def _decimal(text: str) -> Any:
    stripped = text.strip(" ")
    return Decimal(stripped) if _DECIMAL.fullmatch(stripped) is not None else _Unreadable(text)


def _boolean(text: str) -> Any:
    return _BOOLEANS.get(text.strip(" ").lower(), _Unreadable(text))


def _timestamp(text: str) -> str:
    # The + of an offset, not escaped in a query, arrives as a space.
    return _SPACED_OFFSET.sub("+", text.strip(" "), count=1) if " " in text else text


def _stripped(text: str) -> str:
    return text.strip(" ")


class _Unreadable(str):
    """A text that is not what it should be: the typed check refuses it as the text it is."""

    __slots__ = ()


_CONVERSIONS: Final[dict[str, Callable[[str], Any]]] = {
    "integer": _integer,
    "decimal": _decimal,
    "boolean": _boolean,
    **dict.fromkeys(_FORMATS, _stripped),
    "timestamp": _timestamp,
}

_WANTED: Final = {"object": "an object", "list": "a list", "json": "a value"}
