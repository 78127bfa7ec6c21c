"""What a request says of a stream that began before: the last chunk it has, and the key of its run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from streamstack.errors import RunError
from streamstack.language.values import Opaque, to_json
from streamstack.runtime.files import File
from streamstack.runtime.input_faults import invalid
from streamstack.server.request import Request
from streamstack.server.resuming.ids import Position, bad_position, read_position, unknown_stream

#: The parameter of the query that stands for the header Last-Event-ID, which an EventSource can't set.
LAST_EVENT_ID: Final = "lastEventId"

_KEY: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")
#: Methods that a key has no meaning for: to ask again is harmless.
_WITHOUT_KEY: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def last_seen(request: Request) -> Position | None:
    """Return the last chunk that a request to an endpoint names; None where it begins anew.

    Raises RunError ``unknown-stream`` for what is the id of no chunk: to begin anew would give its reader everything
    twice.
    """
    text = request.headers.get("Last-Event-ID", "").strip()
    if not text and LAST_EVENT_ID in request.rel_url.raw_query_string:
        text = _queried(request, LAST_EVENT_ID).strip()
    if not text:
        return None
    position = read_position(text)
    if position is None or not position.stream:
        raise unknown_stream()
    return position


def resumed_at(request: Request, stream: str) -> int:
    """Return the number of the chunk that a reader of a stream needs first.

    The header counts before the query: an EventSource keeps the query it began with. Raises RunError
    ``invalid-input`` for what names no chunk, ``unknown-stream`` for another stream's.
    """
    for name, place, text in (
        ("Last-Event-ID", "header", request.headers.get("Last-Event-ID", "")),
        ("after", "query", _queried(request, "after")),
        (LAST_EVENT_ID, "query", _queried(request, LAST_EVENT_ID)),
    ):
        if not text.strip():
            continue
        position = read_position(text)
        if position is None:
            raise bad_position(name, place)
        if position.stream and position.stream != stream:
            raise unknown_stream()
        return position.number + 1
    return 0


def _queried(request: Request, name: str) -> str:
    query = request.rel_url.raw_query_string
    if name not in query:
        return ""
    found = [value for key, value in parse_qsl(query, keep_blank_values=True) if key == name]
    return found[-1] if found else ""


def owner_of(claims: Mapping[str, Any] | None) -> str:
    """Tell callers apart: the authentication they came in by, and who they are there; "" is nobody in particular.

    Of a token without `sub`, all that it says but its times.
    """
    if claims is None:
        return ""
    subject = claims.get("sub")
    if subject is None:
        told = {key: claims[key] for key in sorted(claims) if key not in _PASSING}
        subject = hashlib.sha256(to_json(told)).hexdigest()
    return f"{claims.get('method', '')}:{subject}"


#: Claims that differ between two tokens of one caller.
_PASSING: Final = frozenset({"exp", "iat", "nbf", "jti", "auth_time"})


def key_of(request: Request) -> str | None:
    """Return the Idempotency-Key of a request, with or without its quotes.

    (https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/) Raises RunError ``invalid-input``.
    """
    if request.method in _WITHOUT_KEY:
        return None
    given = request.headers.getall("Idempotency-Key", [])
    if not given:
        return None
    key = given[0].strip()
    if len(key) > 1 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]
    if len(given) > 1 or not _KEY.fullmatch(key):
        raise bad_key("must be one text of 1 to 255 visible characters")
    return key


def bad_key(message: str) -> RunError:
    """Return the error of a key that can't be taken."""
    return invalid([{"in": "header", "name": "Idempotency-Key", "message": message}])


def name_of(owner: str, endpoint: str, key: str) -> bytes:
    """Return what a key is known by: it is its owner's, at one endpoint."""
    return hashlib.sha256(to_json([owner, endpoint, key])).digest()


async def fingerprint_of(request: Request, inputs: Mapping[str, Any]) -> str:
    """Return what two requests with one key have to have in common: their path, query and inputs.

    Of a file its content counts, not how its form was cut; of a body that is read as it arrives, nothing.
    """
    digest = hashlib.sha256()
    query = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True)
    rest = urlencode([pair for pair in query if pair[0] != LAST_EVENT_ID])
    digest.update(to_json([request.method, request.rel_url.raw_path, rest]))
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/"):
        digest.update(request.kept_body)
    for name in sorted(inputs):
        digest.update(b"\0%b\0" % name.encode())
        await _add(digest, inputs[name])
    return digest.hexdigest()


async def _add(digest: hashlib._Hash, value: Any) -> None:
    if isinstance(value, File):
        digest.update(to_json([value.name, value.content_type, value.size]))
        async for piece in value.pieces():
            digest.update(piece)
    elif isinstance(value, list):
        digest.update(b"[%d" % len(value))
        for item in value:
            await _add(digest, item)
    elif isinstance(value, dict):
        digest.update(b"{%d" % len(value))
        for key in sorted(value):
            digest.update(to_json(key))
            await _add(digest, value[key])
    elif not isinstance(value, Opaque):
        digest.update(to_json(value))
