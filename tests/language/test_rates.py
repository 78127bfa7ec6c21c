from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstack.language.values import Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "rate", "shown"),
    [
        ("60/minute", Rate(60, 60), "60/minute"),
        ("1/second", Rate(1, 1), "1/second"),
        ("1000 / hour", Rate(1000, 3600), "1000/hour"),
        ("5000 per Day", Rate(5000, 86400), "5000/day"),
        ("20/10s", Rate(20, 10), "20/10s"),
        ("20/10 seconds", Rate(20, 10), "20/10s"),
        ("100/15m", Rate(100, 900), "100/15m"),
        ("100/60s", Rate(100, 60), "100/minute"),
        ("5/0.5s", Rate(5, 0.5), "5/500ms"),
        ("5/250ms", Rate(5, 0.25), "5/250ms"),
        (" 5/d ", Rate(5, 86400), "5/day"),
    ],
)
def test_rates_are_read(text: str, rate: Rate, shown: str) -> None:
    """A number, and a time: a word, or a duration. Shown, it can be read again."""
    assert parse_rate(text) == rate
    assert str(rate) == shown
    assert parse_rate(shown) == rate


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (60, "Write it like 60/minute"),
        (True, "write a rate like"),
        (None, "write a rate like"),
        ("60", "write a rate like"),
        ("60/", "write a rate like"),
        ("-1/minute", "write a rate like"),
        ("1.5/minute", "write a rate like"),
        ("60/month", "the time `month` is not known"),
        ("60/M", "the time `M` is not known"),
        ("0/minute", "from 1 to"),
        ("9999999999/minute", "from 1 to"),
        ("1/1ms", "from 10ms to 366d"),
        ("1/400d", "from 10ms to 366d"),
        ("1/0s", "from 10ms to 366d"),
        ("\u0661/minute", "write a rate like"),
    ],
)
def test_what_is_no_rate_is_told(value: object, told: str) -> None:
    """With what to write."""
    with pytest.raises(ValueError, match=re.escape(told)):
        parse_rate(value)


@given(st.text(max_size=30) | st.integers() | st.floats() | st.none())
def test_nothing_but_value_errors(value: object) -> None:
    """Whatever is given."""
    with suppress(ValueError):
        assert isinstance(parse_rate(value), Rate)
