"""Which format an Accept header gets."""

from __future__ import annotations

import pytest

from streamstack.errors import RunError
from streamstack.server.response_options import choose


@pytest.mark.parametrize(
    ("accept", "format_"),
    [
        (None, "sse"),
        ("", "sse"),
        (" , ,", "sse"),
        ("*/*", "sse"),
        ("text/event-stream", "sse"),
        ("Text/Event-Stream; charset=utf-8", "sse"),
        ("application/x-ndjson", "ndjson"),
        ("application/jsonl", "jsonl"),
        ("text/plain", "text"),
        ("text/csv", "csv"),
        ("application/json", "json"),
        # Highest q wins, ties by the header's order.
        ("text/csv;q=0.5, text/plain;q=0.9", "text"),
        ("text/csv, text/plain", "csv"),
        ("text/plain, text/csv", "text"),
        ("text/csv;q=0.1, application/json;q=0.1", "csv"),
        # A wildcard that weighs as much as what is named states no preference.
        ("*/*, text/csv;q=0.1", "sse"),
        ("application/json, text/plain, */*", "sse"),
        ("application/json;q=0.9, text/plain;q=0.9, */*;q=0.9", "sse"),
        ("application/x-ndjson, *", "sse"),
        ("application/json, text/plain, */*;q=0.9", "json"),
        ("application/json, */*;q=0", "json"),
        ("application/json, */*, text/event-stream;q=0", "json"),
        # Else it counts only if nothing named fits.
        ("*", "sse"),
        ("image/png, *;q=0.1", "sse"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "sse"),
        ("image/png, text/*", "sse"),
        ("application/*", "ndjson"),
        ("text/event-stream;q=0, */*", "ndjson"),
        ("text/event-stream;q=0, application/x-ndjson;q=0, */*;q=0.1", "jsonl"),
        ("application/*;q=0.2, text/*;q=0.4", "sse"),
        # An invalid q counts as 1.
        ("text/csv;q=x, text/plain;q=0.9", "csv"),
        ("text/csv;q=nan", "csv"),
        ("text/csv;q=7, text/plain", "csv"),
    ],
)
def test_format(accept: str | None, format_: str) -> None:
    """Each header has its one format."""
    assert choose(accept) == format_


@pytest.mark.parametrize("accept", ["image/png", "text/html", "*/*;q=0", "text/csv;q=0", ";;;", "x" * 5000])
def test_nothing_fits(accept: str) -> None:
    """A list without any of the types gets 406."""
    with pytest.raises(RunError) as caught:
        choose(accept)
    assert (caught.value.status, caught.value.code) == (406, "not-acceptable")
