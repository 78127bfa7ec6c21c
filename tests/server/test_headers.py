"""Header lines, and what must not stand in them."""

from __future__ import annotations

import re

import pytest

from streamstack.errors import RunError
from streamstack.server.headers import check_status, date_line, header_lines, merge, own_headers


def test_lines() -> None:
    """Headers are lines; what is not ASCII is UTF-8."""
    assert header_lines([("A", "1"), ("B-c", "ü\t2")]) == "A: 1\r\nB-c: ü\t2\r\n".encode()


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a\nb", "a\rb", "\0", "\x7f", "\x1b[0m"])
def test_value_can_not_break_out(value: str) -> None:
    """A value that would begin another header is refused."""
    with pytest.raises(RunError, match="control character"):
        header_lines([("X-A", value)])


@pytest.mark.parametrize("name", ["", "A B", "A:", "A\r\nB", "Ä", "A\0"])
def test_name_is_a_token(name: str) -> None:
    """So is a name."""
    with pytest.raises(RunError, match="not a valid header name"):
        header_lines([(name, "x")])


def test_later_headers_win_whatever_their_spelling() -> None:
    """The endpoint's own header replaces ours; Vary is added to."""
    merged = merge([("Content-Type", "a"), ("Vary", "Accept")], [("content-type", "b"), ("vary", "Origin")])
    assert merged == [("content-type", "b"), ("vary", "Accept, Origin")]


def test_own_headers_keep_off_the_framing() -> None:
    """Hop-by-hop headers and the length are the server's; null leaves a header out."""
    given = {"Connection": "close", "transfer-encoding": "x", "Content-Length": 1, "A": 5, "B": None}
    assert own_headers(given) == [("A", "5")]


@pytest.mark.parametrize("status", [199, 600, "200", True, None, 200.0, 101])
def test_status_is_final(status: object) -> None:
    """A status is a whole number from 200 to 599."""
    with pytest.raises(RunError, match="is not an HTTP status"):
        check_status(status)


def test_date_is_what_http_wants() -> None:
    """The Date header has the one format that may be sent."""
    assert re.fullmatch(rb"Date: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r\n", date_line())
