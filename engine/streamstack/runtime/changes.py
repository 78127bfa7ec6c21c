"""What changed from one item of a stream to the next of the same key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.values import MISSING
from streamstack.runtime.sketches import identity

_NUMBERS: Final = frozenset({int, float, Decimal})
#: The one field of an item that is no object.
VALUE: Final = "value"


class Changes:
    """Compares each item with the last one of its key. Past ``limit`` keys it fails, or ``forgets`` the oldest."""

    __slots__ = ("_fields", "_forgets", "_key", "_last", "_limit")

    def __init__(
        self,
        key: Callable[[Any], Any] | None,
        fields: Sequence[str] | None,
        limit: int,
        *,
        forgets: bool,
    ) -> None:
        self._key = key
        self._fields = fields
        self._limit = limit
        self._forgets = forgets
        self._last: OrderedDict[Hashable, dict[str, Any]] = OrderedDict()

    def of(self, item: Any) -> dict[str, Any] | None:
        """Return what changed, None where nothing did.

        Raises RunError ``limit-reached`` for too many keys.
        """
        key = self._key(item) if self._key is not None else None
        now = self._fields_of(item)
        known = identity(key)
        before = self._last.get(known)
        if before is None:
            self._make_room()
            changed = {name: _first(value) for name, value in now.items()}
            removed: list[str] = []
        else:
            changed = {
                name: _change(value, before.get(name, MISSING))
                for name, value in now.items()
                if not _same(value, before.get(name, MISSING))
            }
            removed = [name for name in before if name not in now]
        self._last[known] = now
        if self._forgets:
            self._last.move_to_end(known)
        if before is not None and not changed and not removed:
            return None
        told: dict[str, Any] = {"key": key} if self._key is not None else {}
        told["first"] = before is None
        told["changed"] = changed
        told["removed"] = removed
        return told

    def _fields_of(self, item: Any) -> dict[str, Any]:
        if not isinstance(item, Mapping):
            operators.refuse_stream(item)
            if self._fields is not None:
                raise RunError(
                    "template",
                    f"`fields` needs items that are objects, and this is {operators.a_kind(item)}",
                )
            return {VALUE: item}
        if self._fields is None:
            return dict(item)
        return {name: item[name] for name in self._fields if name in item}

    def _make_room(self) -> None:
        if len(self._last) < self._limit:
            return
        if not self._forgets:
            raise RunError(
                "limit-reached",
                f"there are more than {self._limit} keys: raise `limit`, or write `onLimit: forget`",
            )
        self._last.popitem(last=False)


def _same(value: Any, before: Any) -> bool:
    if before is MISSING:
        return False
    return value is before or operators.equal(value, before)


def _is_number(value: Any) -> bool:
    kind = type(value)
    return kind is int or (kind in _NUMBERS and operators.is_finite(value))


def _first(value: Any) -> dict[str, Any]:
    return {
        "value": value,
        "previous": None,
        "delta": None,
        "trend": "flat" if _is_number(value) else None,
    }


def _change(value: Any, before: Any) -> dict[str, Any]:
    if before is MISSING or not _is_number(value) or not _is_number(before):
        return _first(value) | {"previous": None if before is MISSING else before}
    return {
        "value": value,
        "previous": before,
        "delta": operators.subtract(value, before),
        "trend": "up" if operators.less(before, value) else "down",
    }
