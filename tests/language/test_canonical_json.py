from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstack.errors import RunError
from streamstack.language.values import canonical_json

DIGITS = "1234567890123456789012345678901234567890"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, Decimal("1.00")),
        (100, Decimal("1E+2")),
        (0.5, Decimal("0.50")),
        (0, -0.0),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}),
        (datetime(2026, 1, 1), datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))),  # noqa: DTZ001  (UTC)
    ],
)
def test_equal_values_are_written_alike(one: Any, other: Any) -> None:
    """Whatever type a number has, and in whatever order keys stand."""
    assert canonical_json(one) == canonical_json(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (None, "null"),
        ([1, 2], [2, 1]),
        ([[1], 2], [1, [2]]),
        (True, 1),
        (Decimal(f"0.{DIGITS}"), Decimal(f"0.{DIGITS}1")),
        (Decimal("1E+1000"), Decimal("1E+1001")),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
    ],
)
def test_other_values_are_written_otherwise(one: Any, other: Any) -> None:
    """A text is not a number, and no digit is lost."""
    assert canonical_json(one) != canonical_json(other)


@given(st.integers(-(10**40), 10**40), st.integers(-20, 20))
def test_no_decimal_is_rounded(number: int, places: int) -> None:
    """Two decimals are written alike only if they are equal."""
    value = Decimal(number).scaleb(places)
    assert Decimal(canonical_json(value).decode()) == value


def test_what_is_too_deep_is_told() -> None:
    """It is an error of the definition."""
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RunError, match="nested too deeply"):
        canonical_json(deep)
