"""Filters that convert values, and that encode, decode and sign texts and bytes."""

# An author passes an argument by position or by name, whatever it is.
# ruff: noqa: FBT001, FBT002
# An author passes an argument by position or by name, whatever it is.
# ruff: noqa: FBT002
from __future__ import annotations

import base64 as codec
import binascii
import hashlib
import hmac as signing
import json
import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import quote, unquote

from streamstack.errors import RunError
from streamstack.language.filters.operations import (
    ROWS,
    WRITABLE,
    ArgumentFault,
    declare,
    failed,
    items_of,
    text_argument,
    text_of,
    wrong,
)
from streamstack.language.operators import MAX_BITS, aware, is_finite, refuse_stream
from streamstack.language.values import Opaque, to_json, to_text

_INTEGER: Final = re.compile(r"\s*[+-]?\d(?:_?\d)*\s*", re.ASCII)
_DECIMAL: Final = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?\s*", re.ASCII)


@declare("filter", "default", '{"a": null}.a.b | default("none")', "none", aliases=("d",))
def default(value: Any, other: Any = "", boolean: bool = False) -> Any:
    """Return the value, or a default if it is null or missing.

    An unbound name, a missing item and a look-up in null all count as missing: the filter covers the whole path
    to its left. The argument is evaluated only if it is needed. With `true` as second argument, false, 0 and
    empty values are replaced too.
    """
    return other if value is None or (boolean and not value) else value


@declare(
    "filter",
    "toJson",
    '{"name": "Zoë", "tags": [1, null]} | toJson',
    '{"name":"Zoë","tags":[1,null]}',
    aliases=("tojson",),
    shape="any? -> text",
)
def to_json_text(value: Any, indent: int | None = None) -> str:
    """Serialize the value as compact JSON, or with the given indentation.

    Decimals keep all digits.
    """
    text = to_json(value).decode()
    if not indent or type(indent) is not int:
        return text
    # Numbers stay the text they are: 1.10 must not become 1.1.
    plain = json.loads(text, parse_float=_Digits, parse_int=_Digits)
    return _indented(plain, " " * min(indent, 16), "\n")


class _Digits(str):
    """The source text of a JSON number."""

    __slots__ = ()


def _indented(value: Any, step: str, line: str) -> str:
    if isinstance(value, _Digits):
        return str(value)
    inner = line + step
    if isinstance(value, dict) and value:
        entries = (f"{to_json(key).decode()}: {_indented(one, step, inner)}" for key, one in value.items())
        return "{" + inner + ("," + inner).join(entries) + line + "}"
    if isinstance(value, list) and value:
        return "[" + inner + ("," + inner).join(_indented(v, step, inner) for v in value) + line + "]"
    return to_json(value).decode()


@declare("filter", "fromJson", "'{\"a\": [1, true]}' | fromJson", {"a": [1, True]}, shape="text | bytes -> any")
def from_json(value: Any) -> Any:
    """Parse a JSON text.

    A number with a decimal point becomes a decimal, with all digits, if a float would lose precision.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise failed("fromJson", "the bytes are not UTF-8") from None
    if not isinstance(value, str):
        raise wrong("fromJson", "a text", value)
    try:
        return json.loads(value, parse_float=_fraction, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}: {error.msg.lower()}"
    except _ConstantError as error:
        where = f"{error} is not allowed"
    except RecursionError:
        where = "it is nested too deeply"
    except (ValueError, InvalidOperation):
        where = "a number in it has too many digits"
    raise failed("fromJson", f"the text is not JSON ({where})")


def _fraction(digits: str) -> float | Decimal:
    number = float(digits)
    return number if repr(number) == digits else Decimal(digits)


class _ConstantError(ValueError):
    """A word that Python reads as a number, and JSON does not have: NaN, Infinity."""


def _refuse_constant(word: str) -> None:
    raise _ConstantError(word)


@declare(
    "filter",
    "toInteger",
    '["42", 2.9, true, "x"] | map("toInteger", 0)',
    [42, 2, 1, 0],
    aliases=("int",),
    shape="text | number | boolean | timestamp -> integer",
)
def to_integer(value: Any, default: Any = None) -> Any:
    """Convert a text, number or boolean to an integer.

    The fraction is truncated (2.9 becomes 2). A timestamp becomes whole seconds since 1970. With a default, a
    value that is not a number becomes the default.
    """
    try:
        return _integer(value)
    except RunError:
        if default is not None and not isinstance(value, Opaque):
            return default
        raise


def _integer(value: Any) -> int:
    if isinstance(value, str):
        if len(value) <= 4000 and _INTEGER.fullmatch(value):
            return int(value)
        value = _decimal_of_text(value, "toInteger")
    if type(value) in (int, bool):
        return int(value)
    if type(value) in (float, Decimal):
        if not is_finite(value):
            raise failed("toInteger", "the number is not finite")
        if type(value) is Decimal and value and value.adjusted() > MAX_BITS // 4:
            raise failed("toInteger", "the number is too large")
        return int(value)
    if isinstance(value, datetime):
        return int(aware(value).timestamp() // 1)
    raise wrong("toInteger", "a text or number", value)


def _decimal_of_text(value: str, name: str) -> Decimal:
    if len(value) <= 4000 and _DECIMAL.fullmatch(value):
        try:
            return Decimal(value.strip())
        except InvalidOperation:
            pass
    short = value if len(value) <= 40 else value[:37] + "..."
    raise failed(name, f'"{short}" is not a number')


@declare(
    "filter", "toDecimal", '"1.10" | toDecimal | toText', "1.10", shape="text | number | boolean | timestamp -> decimal"
)
def to_decimal(value: Any, default: Any = None) -> Any:
    """Convert a text, number or boolean to a decimal, without loss of digits.

    A timestamp becomes seconds since 1970. With a default, a value that is not a number becomes the default.
    """
    try:
        return _decimal(value)
    except RunError:
        if default is not None and not isinstance(value, Opaque):
            return default
        raise


def _decimal(value: Any) -> Decimal:
    if isinstance(value, str):
        return _decimal_of_text(value, "toDecimal")
    if isinstance(value, Decimal):
        return value
    if type(value) in (int, bool):
        return Decimal(int(value))
    if type(value) is float:
        if not is_finite(value):
            raise failed("toDecimal", "the number is not finite")
        return Decimal(repr(value))
    if isinstance(value, datetime):
        return Decimal(repr(aware(value).timestamp()))
    raise wrong("toDecimal", "a text or number", value)


@declare("filter", "float", '"2.5" | float', 2.5, shape="text | number | boolean | timestamp -> decimal")
def to_float(value: Any, default: Any = None) -> Any:
    """Convert a text or number to a float.

    With a default, a value that is not a number becomes the default.
    """
    number = to_decimal(value, default)
    if not isinstance(number, Decimal):
        return number
    fraction = float(number)
    if not is_finite(fraction):
        raise failed("float", "the number is too large")
    return fraction


@declare("filter", "toText", "[1, true, null] | toText", "[1,true,null]", aliases=("string",), shape="any? -> text")
def to_text_filter(value: Any) -> str:
    """Convert the value to text, as in interpolation.

    Booleans become true and false, null becomes an empty text, lists and objects compact JSON, timestamps RFC
    3339.
    """
    return to_text(value)


@declare("filter", "list", '"abc" | list', ["a", "b", "c"], shape=f"text | {ROWS} -> list")
def to_list(value: Any) -> list[Any]:
    """Return the items of a list, the characters of a text, or the keys of an object."""
    if isinstance(value, (list, tuple, str, dict)):
        return list(value)
    raise wrong("list", "a list, a text or an object", value)


# ------------------------------------------------------------------------------------------- codes


ALGORITHMS: Final = ("sha256", "sha512", "sha384", "sha1", "md5", "sha3_256", "blake2b")


def _bytes(value: Any, name: str) -> bytes:
    """Return bytes as they are, and anything else as its text in UTF-8."""
    if isinstance(value, bytes):
        return value
    refuse_stream(value)
    if value is None:
        raise wrong(name, "a text or bytes", value)
    return to_text(value).encode("utf-8", "surrogatepass")


@declare("filter", "base64", '"Zoë" | base64', "Wm/Dqw==", shape=f"{WRITABLE} | bytes | {ROWS} -> text")
def base64(value: Any) -> str:
    """Encode a text (as UTF-8) or bytes in base64."""
    return codec.b64encode(_bytes(value, "base64")).decode()


@declare("filter", "unbase64", '"Wm_Dqw" | unbase64', "Zoë", shape=f"{WRITABLE} -> text | bytes")
def unbase64(value: Any, bytes: Any = False) -> Any:  # noqa: A002
    """Decode base64 or base64url to a text. With `bytes=true`, return bytes, which need not be text."""
    text = text_of(value, "unbase64").translate({0x2D: "+", 0x5F: "/"})
    compact = "".join(text.split()).rstrip("=")
    try:
        data = codec.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise failed("unbase64", "the text is not base64") from None
    if bytes:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise failed("unbase64", "it holds no text; write `unbase64(bytes=true)`") from None


@declare(
    "filter",
    "urlEncode",
    '["a b/ü", {"q": "a&b", "n": 1}] | map("urlEncode")',
    ["a%20b%2F%C3%BC", "q=a%26b&n=1"],
    aliases=("urlencode",),
    shape=f"{WRITABLE} | object | list -> text",
)
def url_encode(value: Any) -> str:
    """Percent-encode a text for use in a URL. An object becomes a query string."""
    if isinstance(value, dict):
        return "&".join(f"{_quoted(key)}={_quoted(one)}" for key, one in value.items())
    if isinstance(value, list):
        pairs = [items_of(pair, "urlEncode") for pair in value]
        if any(len(pair) != 2 for pair in pairs):
            raise failed("urlEncode", "a list must hold pairs of a name and a value")
        return "&".join(f"{_quoted(key)}={_quoted(one)}" for key, one in pairs)
    return _quoted(text_of(value, "urlEncode"))


@declare("filter", "safe", '"a/b" | safe', "a/b", shape=f"{WRITABLE} -> text")
def safe(value: Any) -> str:
    """Return the text unchanged. As the last filter of a binding in `url`, it prevents percent-encoding."""
    return text_of(value, "safe")


def _quoted(value: Any) -> str:
    return quote(to_text(value).encode("utf-8", "replace"), safe="")


@declare("filter", "urlDecode", '"a%20b+c" | urlDecode', "a b c", shape=f"{WRITABLE} -> text")
def url_decode(value: Any) -> str:
    """Decode a percent-encoded text."""
    return unquote(text_of(value, "urlDecode").replace("+", " "))


def _check_algorithm(arguments: Sequence[object]) -> ArgumentFault | None:
    """Return the problem with a constant algorithm that does not exist."""
    if arguments and isinstance(arguments[0], str) and arguments[0] not in ALGORITHMS:
        return ArgumentFault("bad-template", f"unknown hash `{arguments[0]}`", f"write {_KNOWN}")
    return None


_KNOWN: Final = f"one of {', '.join(ALGORITHMS)}"


@declare(
    "filter",
    "hash",
    '"abc" | hash("sha1")',
    "a9993e364706816aba3e25717850c26c9cd0d89d",
    check=_check_algorithm,
    shape=f"{WRITABLE} | bytes | {ROWS} -> text",
    arguments=("text",),
)
def hash_text(value: Any, algorithm: Any = "sha256") -> str:
    """Return the hash of a text (as UTF-8) or of bytes, in hexadecimal.

    Algorithms: sha256, sha512, sha384, sha1, md5, sha3_256, blake2b. Not for passwords: use `password.hash`.
    """
    made = hashlib.new(_algorithm(algorithm, "hash"), usedforsecurity=False)
    made.update(_bytes(value, "hash"))
    return made.hexdigest()


@declare(
    "filter",
    "hmac",
    '"abc" | hmac("sha256", "key")',
    "9c196e32dc0175f86f4b1cb89289d6619de6bee699e4c378e68309ed97a1a6ab",
    check=_check_algorithm,
    shape=f"{WRITABLE} | bytes | {ROWS} -> text",
    arguments=("text", f"{WRITABLE} | bytes | list | object"),
)
def hmac(value: Any, algorithm: Any, key: Any, encoding: Any = "hex") -> str:
    """Return the HMAC of a text (as UTF-8) or of bytes with a key, in hexadecimal or base64."""
    name = _algorithm(algorithm, "hmac")
    made = signing.new(_bytes(key, "hmac"), _bytes(value, "hmac"), name)
    if encoding == "base64":
        return codec.b64encode(made.digest()).decode()
    if encoding != "hex":
        raise failed("hmac", "the encoding is hex or base64")
    return made.hexdigest()


def _algorithm(algorithm: Any, name: str) -> str:
    word = text_argument(algorithm, name, "algorithm").lower().replace("sha-", "sha")
    if word not in ALGORITHMS:
        raise failed(name, f"unknown hash `{algorithm}`; write {_KNOWN}")
    return word
