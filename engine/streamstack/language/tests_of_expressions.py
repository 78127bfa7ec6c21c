"""The tests of expressions: what may follow `is`."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from streamstack.language import operators
from streamstack.language.expectations import failed, integer_argument, wrong
from streamstack.language.operations import declare
from streamstack.language.values import Opaque


@declare("test", "defined", "Its name is bound and its path leads somewhere.", "{}.a is defined", False)
def is_defined(value: Any) -> bool:
    return True


@declare(
    "test", "undefined", "Its name is not bound or its path leads nowhere.", "{}.a is undefined", True
)
def is_undefined(value: Any) -> bool:
    return False


@declare("test", "none", "It is null.", "null is none", True, aliases=("null",))
def is_none(value: Any) -> bool:
    return value is None


@declare("test", "true", "It is true.", "1 is true", False)
def is_true(value: Any) -> bool:
    return value is True


@declare("test", "false", "It is false.", "0 is false", False)
def is_false(value: Any) -> bool:
    return value is False


@declare("test", "boolean", "It is true or false.", "false is boolean", True)
def is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


@declare("test", "integer", "It is an integer; a boolean is none.", "true is integer", False)
def is_integer(value: Any) -> bool:
    return type(value) is int


@declare("test", "float", "It is a number with a fraction.", "1.5 is float", True, aliases=("decimal",))
def is_float(value: Any) -> bool:
    return isinstance(value, (float, Decimal))


@declare("test", "number", "It is a number of any kind.", '"1" is number', False)
def is_number(value: Any) -> bool:
    return type(value) in (int, float, Decimal)


@declare("test", "string", "It is a text.", '"a" is string', True, aliases=("text",))
def is_string(value: Any) -> bool:
    return isinstance(value, str)


@declare("test", "mapping", "It is an object.", '{"a": 1} is mapping', True, aliases=("object",))
def is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


@declare("test", "list", "It is a list.", "[1] is list", True)
def is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


@declare("test", "iterable", "`for` can go through it: a list, an object or a text.", "1 is iterable", False)
def is_iterable(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict, str))


@declare("test", "sequence", "It is a list or a text.", '"abc" is sequence', True)
def is_sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple, str))


@declare("test", "timestamp", "It is a timestamp.", "now() is timestamp", True)
def is_timestamp(value: Any) -> bool:
    return isinstance(value, datetime)


@declare("test", "date", "It is a date without a time.", "today() is date", True)
def is_date(value: Any) -> bool:
    return isinstance(value, date) and not isinstance(value, datetime)


@declare("test", "stream", "It is a stream.", "[1] is stream", False)
def is_stream(value: Any) -> bool:
    return isinstance(value, Opaque) and value.kind == "stream"


@declare("test", "empty", "It is null, or a text, list or object of nothing.", "[] is empty", True)
def is_empty(value: Any) -> bool:
    operators.refuse_stream(value)
    return value is None or (isinstance(value, (str, list, tuple, dict, bytes)) and not value)


@declare("test", "even", "The integer is even.", "4 is even", True)
def is_even(value: Any) -> bool:
    return _integer(value, "even") % 2 == 0


@declare("test", "odd", "The integer is odd.", "4 is odd", False)
def is_odd(value: Any) -> bool:
    return _integer(value, "odd") % 2 == 1


@declare("test", "divisibleby", "The integer is a multiple of another.", "9 is divisibleby 3", True)
def is_divisible(value: Any, number: Any) -> bool:
    number = integer_argument(number, "divisibleby", "number", -(2**63), 2**63)
    if number == 0:
        raise failed("divisibleby", "division by zero")
    return _integer(value, "divisibleby") % number == 0


@declare("test", "lower", "The text is all lower case.", '"abc" is lower', True)
def is_lower(value: Any) -> bool:
    return isinstance(value, str) and value.islower()


@declare("test", "upper", "The text is all upper case.", '"aBC" is upper', False)
def is_upper(value: Any) -> bool:
    return isinstance(value, str) and value.isupper()


@declare("test", "in", "It is an item of a list, a key of an object, a part of a text.", "2 is in [1, 2]", True)
def is_in(value: Any, container: Any) -> bool:
    return operators.contains(value, container)


@declare("test", "eq", "It equals another value.", "1 is eq 1.0", True, aliases=("equalto", "sameas", "=="))
def is_equal(value: Any, other: Any) -> bool:
    return operators.equal(value, other)


@declare("test", "ne", "It differs from another value.", "1 is ne 2", True, aliases=("!=",))
def is_unequal(value: Any, other: Any) -> bool:
    return operators.unequal(value, other)


@declare("test", "lt", "It is less than another value.", "1 is lt 2", True, aliases=("lessthan", "<"))
def is_less(value: Any, other: Any) -> bool:
    return operators.less(value, other)


@declare("test", "le", "It is less than or equal to another value.", "2 is le 2", True, aliases=("<=",))
def is_less_or_equal(value: Any, other: Any) -> bool:
    return operators.less_equal(value, other)


@declare(
    "test", "gt", "It is greater than another value.", "1 is gt 2", False, aliases=("greaterthan", ">")
)
def is_greater(value: Any, other: Any) -> bool:
    return operators.greater(value, other)


@declare(
    "test", "ge", "It is greater than or equal to another value.", "2 is ge 3", False, aliases=(">=",)
)
def is_greater_or_equal(value: Any, other: Any) -> bool:
    return operators.greater_equal(value, other)


def _integer(value: Any, name: str) -> int:
    if type(value) is int:
        return value
    raise wrong(f"is {name}", "an integer", value)
