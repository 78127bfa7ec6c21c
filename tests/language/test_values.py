"""Durations and sizes as authors write them."""

from __future__ import annotations

import pytest

from streamstack.language.values import parse_duration, parse_size, show_duration, show_size


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("200ms", 0.2),
        ("5s", 5.0),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("2d", 172800.0),
        ("1.5s", 1.5),
        (" 5 s ", 5.0),
        (250, 0.25),
        (0.5, 0.0005),
        ("250", 0.25),
        (0, 0.0),
        ("0s", 0.0),
    ],
)
def test_durations_are_seconds(value: object, seconds: float) -> None:
    """A unit is taken as written; a bare number is milliseconds."""
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("64KB", 65536),
        ("10MB", 10485760),
        ("1.5kb", 1536),
        ("2 GB", 2147483648),
        ("1TB", 1099511627776),
        ("12B", 12),
        (4096, 4096),
        ("4096", 4096),
        (0, 0),
    ],
)
def test_sizes_are_bytes(value: object, size: int) -> None:
    """1 KB is 1024 bytes; a bare number is bytes."""
    assert parse_size(value) == size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("soon", "write a duration like 200ms, 5s, 10m, 1h, 2d"),
        ("", "write a duration like"),
        ("5 minutes", "the unit `minutes` is not known: write ms, s, m (minutes), h or d"),
        ("5S", "the unit `S` is not known"),
        ("-5s", "it can't be negative"),
        (-1, "it can't be negative"),
        (True, "write a duration like"),
        (None, "write a duration like"),
        ([], "write a duration like"),
        (float("nan"), "write a duration like"),
        (float("inf"), "longer than 100 years"),
        (10**400, "longer than 100 years"),
        ("99999999d", "longer than 100 years"),
        ("5s" * 100, "write a duration like"),
    ],
)
def test_a_bad_duration_says_what_to_write(value: object, message: str) -> None:
    """Anything else is a ValueError that names the right form."""
    with pytest.raises(ValueError, match=r"duration|negative|unit") as caught:
        parse_duration(value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("big", "write a size like 64KB, 10MB"),
        ("5 apples", "the unit `APPLES` is not known: write B, KB, MB, GB or TB"),
        ("5MiB", "the unit `MIB` is not known"),
        ("-5MB", "it can't be negative"),
        (1.5, "a whole number of bytes"),
        ("99999999TB", "too large"),
        (float("inf"), "too large"),
        (False, "write a size like"),
        (None, "write a size like"),
    ],
)
def test_a_bad_size_says_what_to_write(value: object, message: str) -> None:
    """Anything else is a ValueError that names the right form."""
    with pytest.raises(ValueError, match=r"size|negative|unit") as caught:
        parse_size(value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.05, "50ms"),
        (1.0, "1s"),
        (30.0, "30s"),
        (60.0, "1m"),
        (90.0, "90s"),
        (0.001, "1ms"),
        (1.5, "1500ms"),
        (0.0005, "0.5ms"),
        (3600, "1h"),
        (172800, "2d"),
        (0, "0s"),
    ],
)
def test_durations_are_shown_as_they_are_written(seconds: float, shown: str) -> None:
    """The largest unit that makes a whole number is taken, and it is read as it was."""
    assert show_duration(seconds) == shown
    assert parse_duration(shown) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("size", "shown"), [(262144, "256KB"), (10 * 1024**2, "10MB"), (1, "1B"), (1500, "1500B"), (0, "0B")]
)
def test_sizes_are_shown_as_they_are_written(size: int, shown: str) -> None:
    """The largest unit that makes a whole number is taken, and it is read as it was."""
    assert show_size(size) == shown
    assert parse_size(shown) == size
