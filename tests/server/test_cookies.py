"""Set-Cookie headers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.server.headers import cookie_headers


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ("v", "c=v; Path=/"),
        (None, 'c=""; Path=/; Max-Age=0'),
        (5, "c=5; Path=/"),
        ("a;b, c\r\n", "c=a%3Bb%2C%20c%0D%0A; Path=/"),
        ("ü", "c=%C3%BC; Path=/"),
        (
            {
                "value": "v",
                "path": "/api",
                "domain": "example.org",
                "maxAge": 60,
                "sameSite": "lax",
                "secure": True,
                "httpOnly": True,
                "partitioned": False,
            },
            "c=v; Path=/api; Domain=example.org; Max-Age=60; SameSite=Lax; Secure; HttpOnly",
        ),
        (
            {"value": "v", "expires": datetime(2030, 1, 2, 5, tzinfo=timezone(timedelta(hours=2)))},
            "c=v; Path=/; Expires=Wed, 02 Jan 2030 03:00:00 GMT",
        ),
        (
            {"value": "v", "expires": datetime(2030, 1, 2, tzinfo=UTC)},
            "c=v; Path=/; Expires=Wed, 02 Jan 2030 00:00:00 GMT",
        ),
    ],
)
def test_cookie(given: Any, header: str) -> None:
    """A cookie is a value or an object; what its value can't hold is percent-encoded."""
    assert cookie_headers({"c": given}) == [("Set-Cookie", header)]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("a b", "v"),
        ("a=b", "v"),
        ("", "v"),
        ("c", {"value": "v", "path": "/; Secure"}),
        ("c", {"value": "v", "domain": "a\r\nX: y"}),
        ("c", {"value": "v", "maxAge": "soon"}),
        ("c", {"value": "v", "age": 1}),
    ],
)
def test_cookie_can_not_break_out(name: str, given: Any) -> None:
    """Names and attributes that would change the header are refused."""
    with pytest.raises(RunError):
        cookie_headers({name: given})
