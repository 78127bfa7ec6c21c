"""What Schemathesis lacks to call every endpoint of definitions/; its own process loads this file."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def write_ndjson(_context: Any, value: Any) -> bytes:
    """Write a request stream, whose body is described by the schema of one line."""
    lines = value if isinstance(value, list) and value else [value]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """Leave out forms with empty fields, which stand for inputs that were not sent: OpenAPI has no word for them."""
    is_form = case.media_type in ("multipart/form-data", "application/x-www-form-urlencoded")
    return not (is_form and isinstance(case.body, dict) and any(each in ("", []) for each in case.body.values()))
