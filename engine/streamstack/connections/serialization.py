"""How values are serialized: as JSON in which types that JSON lacks are tagged, `{"$": ["decimal", "1.10"]}`."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson

from streamstack.errors import RunError
from streamstack.language.values import Opaque, kind

#: The key of an object that stands for another value: `{"$": [what it is, its text]}`.
_MARK: Final = "$"
#: The first byte: JSON as it is, or JSON in which such objects mean something.
_PLAIN, _MARKED = b"j", b"m"
_LARGEST: Final = 2**63

_NEVER: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_NON_STR_KEYS


def dumps(value: Any) -> bytes:
    """Return a value as bytes.

    Raises RunError ``template`` for a stream, a file, or what is nested too deeply.
    """
    try:
        marked = _mark(value)
    except RecursionError:
        raise _too_deep() from None
    start = _PLAIN if marked is value else _MARKED
    try:
        return start + orjson.dumps(marked, _refuse, _NEVER)
    except orjson.JSONEncodeError:
        pass
    # What orjson refuses: nesting beyond 254, halves of surrogate pairs.
    try:
        return start + json.dumps(marked, separators=(",", ":"), default=_refuse).encode()
    except (RecursionError, ValueError):
        raise _too_deep() from None


def loads(data: bytes) -> Any:
    """Return the value that `dumps` encoded.

    Raises RunError ``template`` for bytes that are not of that kind.
    """
    start, rest = data[:1], data[1:]
    try:
        try:
            value = orjson.loads(rest)
        except orjson.JSONDecodeError:
            value = json.loads(rest)
        if start == _PLAIN:
            return value
        if start == _MARKED:
            return _unmark(value)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        pass
    raise RunError("template", "the value under this key was not stored by streamstack")


def _refuse(value: Any) -> Any:
    if isinstance(value, orjson.Fragment):
        return value
    raise _unkept(value)


def _unkept(value: Any) -> RunError:
    if isinstance(value, Opaque):
        return RunError("template", f"a {value.kind} can't be stored: {value.remedy}")
    return RunError("template", f"a {kind(value)} can't be stored")


def _too_deep() -> RunError:
    return RunError("template", "the value is nested too deeply to be stored")


def _mark(value: Any) -> Any:
    """Return a value that JSON has words for; the very same one where nothing has to be marked."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if -_LARGEST <= value < _LARGEST else {_MARK: ["integer", str(value)]}
        case float():
            return value if math.isfinite(value) else {_MARK: ["float", repr(value)]}
        case list() | tuple():
            items = [_mark(item) for item in value]
            same = all(new is old for new, old in zip(items, value, strict=True))
            return value if same else items
        case dict():
            return _mark_object(value)
        case Decimal():
            return {_MARK: ["decimal", str(value)]}
        case datetime():
            return {_MARK: ["timestamp", value.isoformat()]}
        case date():
            return {_MARK: ["date", value.isoformat()]}
        case bytes() | bytearray() | memoryview():
            return {_MARK: ["bytes", base64.b64encode(value).decode()]}
        case UUID():
            return {_MARK: ["uuid", str(value)]}
        case orjson.Fragment():
            return value
    raise _unkept(value)


def _mark_object(value: dict[Any, Any]) -> dict[str, Any]:
    items = {key: _mark(item) for key, item in value.items()}
    if _MARK in value or any(type(key) is not str for key in value):
        pairs = [[_mark(key), item] for key, item in items.items()]
        return {_MARK: ["object", pairs]}
    same = all(items[key] is item for key, item in value.items())
    return value if same else items


def _unmark(value: Any) -> Any:
    if isinstance(value, list):
        return [_unmark(item) for item in value]
    if not isinstance(value, dict):
        return value
    marked = value.get(_MARK)
    if marked is None:
        return {key: _unmark(item) for key, item in value.items()}
    name, text = marked
    return _READERS[name](text)


def _object(pairs: list[list[Any]]) -> dict[Any, Any]:
    return {_unmark(key): _unmark(item) for key, item in pairs}


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "integer": int,
    "float": float,
    "decimal": Decimal,
    "timestamp": datetime.fromisoformat,
    "date": date.fromisoformat,
    "bytes": lambda text: base64.b64decode(text, validate=True),
    "uuid": UUID,
    "object": _object,
}
