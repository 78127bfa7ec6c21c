from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstack.errors import RunError
from streamstack.runtime.windows import Changes


def changes(key: Any = None, fields: list[str] | None = None, limit: int = 100, *, forgets: bool = False) -> Changes:
    """What compares items."""
    return Changes(key, fields, limit, forgets=forgets)


def by_id(item: dict[str, Any]) -> Any:
    """Return the key of an item."""
    return item["id"]


VALUES = st.one_of(st.integers(0, 3), st.sampled_from(["a", "b", None, [1], 1.0]))
ITEMS = st.dictionaries(st.sampled_from("abc"), VALUES)


@given(st.lists(st.tuples(st.sampled_from("xy"), ITEMS), max_size=30))
def test_what_changed_makes_the_item_anew(items: list[tuple[str, dict[str, Any]]]) -> None:
    """A reader that applies every change has the last item of each key; what is equal is not given."""
    compare = changes(key=lambda pair: pair["id"])
    copy: dict[str, dict[str, Any]] = {}
    for key, fields in items:
        item = {"id": key, **fields}
        told = compare.of(item)
        if told is None:
            assert copy[key] == item
            continue
        assert told["key"] == key
        assert told["first"] is (key not in copy)
        mine = copy.setdefault(key, {})
        for name, change in told["changed"].items():
            assert told["first"] or name not in mine or mine[name] != change["value"]
            assert change["previous"] == mine.get(name)
            mine[name] = change["value"]
        for name in told["removed"]:
            del mine[name]
        assert mine == item


def test_the_shape() -> None:
    """Numbers have a difference and a trend; other values, and what is new, have none."""
    compare = changes(key=by_id)
    assert compare.of({"id": 1, "price": Decimal("1.10"), "name": "a"}) == {
        "key": 1,
        "first": True,
        "changed": {
            "id": {"value": 1, "previous": None, "delta": None, "trend": "flat"},
            "price": {"value": Decimal("1.10"), "previous": None, "delta": None, "trend": "flat"},
            "name": {"value": "a", "previous": None, "delta": None, "trend": None},
        },
        "removed": [],
    }
    told = compare.of({"id": 1, "price": Decimal("1.05"), "volume": 7})
    assert told == {
        "key": 1,
        "first": False,
        "changed": {
            "price": {
                "value": Decimal("1.05"),
                "previous": Decimal("1.10"),
                "delta": Decimal("-0.05"),
                "trend": "down",
            },
            "volume": {"value": 7, "previous": None, "delta": None, "trend": "flat"},
        },
        "removed": ["name"],
    }
    assert compare.of({"id": 1.0, "price": Decimal("1.050"), "volume": 7.0}) is None
    told = compare.of({"id": 1, "price": None, "volume": 8})
    assert told is not None
    assert told["changed"]["price"] == {"value": None, "previous": Decimal("1.05"), "delta": None, "trend": None}
    assert told["changed"]["volume"]["trend"] == "up"


def test_only_the_fields_that_are_named() -> None:
    """Others may change as they like; the key need not be one of them."""
    compare = changes(key=by_id, fields=["price"])
    first = compare.of({"id": "a", "price": 1, "at": 1})
    assert first is not None
    assert list(first["changed"]) == ["price"]
    assert compare.of({"id": "a", "price": 1, "at": 2}) is None
    gone = compare.of({"id": "a", "at": 3})
    assert gone is not None
    assert (gone["changed"], gone["removed"]) == ({}, ["price"])
    with pytest.raises(RunError, match="items that are objects, not a text"):
        changes(fields=["price"]).of("a")


def test_items_that_are_no_objects() -> None:
    """They are one field, `value`."""
    compare = changes()
    told = [compare.of(item) for item in (5, 5, 7, "x", "x", [1], [1])]
    assert [each and each["changed"]["value"]["value"] for each in told] == [5, None, 7, "x", None, [1], None]
    assert told[0] is not None
    assert "key" not in told[0]


def test_keys_are_bounded() -> None:
    """One too many is an error, or the one that had no item for longest is forgotten."""
    compare = changes(key=by_id, limit=2)
    for key in "aba":
        compare.of({"id": key})
    with pytest.raises(RunError, match="more than 2 keys: raise `limit`") as raised:
        compare.of({"id": "c"})
    assert raised.value.code == "limit-reached"
    compare = changes(key=by_id, limit=2, forgets=True)
    told = [compare.of({"id": key, "n": n}) for n, key in enumerate("abacab")]
    assert [each and each["first"] for each in told] == [True, True, False, True, False, True]
