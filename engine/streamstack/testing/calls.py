"""The calls that a project made in a test, and whether they are those that an upstream answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson
from multidict import CIMultiDict
from yarl import URL

from streamstack.language.cases import Expected, Match, Respond, Upstream
from streamstack.testing.comparison import differs


@dataclass(slots=True, eq=False)
class Call:
    """A call that the project made. Times are the event loop's.

    Args:
        number: Counts all calls of a test, from 1, in the order in which they left.
        url: As the definition names it.
        headers: As they arrived; those of a refused call as they left.
        body: As it arrived.
        received: Messages that a WebSocket received.
        upstream: What answers; None for a call that the test did not expect.
        respond: The answer, with a sweep's fault.
        arrived: When the request had arrived.
        ended: When the end of the answer was sent.
        closed: When the project closed the connection before that.
        sent: How many pieces were sent.
        events: How many events the whole answer has, messages of a WebSocket; ``chunks`` how many pieces.
        problem: Why the call was not answered as the author wrote it.
    """

    number: int
    method: str
    url: URL
    headers: CIMultiDict[str]
    body: bytes = b""
    received: list[str | bytes] = field(default_factory=list)
    upstream: Upstream | None = None
    respond: Respond | None = None
    arrived: float | None = None
    ended: float | None = None
    closed: float | None = None
    sent: int = 0
    events: int = 0
    chunks: int = 0
    problem: str = ""

    @property
    def document(self) -> Any:
        """The body as a JSON value, as text where it is none, None where it is empty; of a WebSocket its messages."""
        if self.url.scheme in ("ws", "wss"):
            return [_parsed(each) for each in self.received]
        return _parsed(self.body) if self.body else None

    @property
    def closed_early(self) -> bool:
        """Whether the project closed the connection before the answer's end."""
        return self.closed is not None


def _parsed(data: str | bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data if isinstance(data, str) else data.decode(errors="replace")


def fits(match: Match, call: Call, *, with_body: bool = True) -> bool:
    """Tell whether a call is one that an upstream answers: not if a binding fails with its values."""
    if match.method is not None and match.method.upper() != call.method:
        return False
    if match.url is not None and not fits_url(match.url, call.url):
        return False
    if not fits_headers(match.headers, call.headers):
        return False
    return not with_body or match.body is None or not body_differs(match.body, call)


def fits_url(pattern: str, url: URL) -> bool:
    """Tell whether a URL is one that a pattern means; `*` is any text. Without a query, any query will do."""
    address, has_query, query = pattern.partition("?")
    if "/" not in address.partition("://")[2] and not address.endswith("*"):
        address += "/"
    plain = url.with_query(None).with_fragment(None).with_user(None)
    if plain.explicit_port == URL.build(scheme=plain.scheme, host="h").port:
        plain = plain.with_port(None)
    if not any(_like(address, text) for text in (str(plain), plain.human_repr())):
        return False
    if not has_query:
        return True
    wanted, present = (sorted(parse_qsl(text, keep_blank_values=True)) for text in (query, url.raw_query_string))
    return len(wanted) == len(present) and all(
        name == other and _like(value, found) for (name, value), (other, found) in zip(wanted, present, strict=True)
    )


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def fits_headers(expected: Mapping[str, Any], headers: CIMultiDict[str]) -> bool:
    """Tell whether headers are as expected by those that are named; null is a header that is absent."""
    for name, value in expected.items():
        found = headers.getall(name, [])
        if value is None:
            if found:
                return False
        elif isinstance(value, list):
            if differs(value, found):
                return False
        elif not found or differs(value if isinstance(value, Expected) else _text(value), ", ".join(found)):
            return False
    return True


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def body_differs(expected: Any, call: Call) -> str:
    """Return how the body of a call differs from the expected one, "" where its text or its JSON value does not."""
    if isinstance(expected, str) and expected == call.body.decode("utf-8", "replace"):
        return ""
    return differs(expected, call.document, "body")
