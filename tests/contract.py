"""Check what a server answers against its OpenAPI document."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from tests.server.serving import Reply


def _check_content(validator: Any, inner: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Validate what a text holds, which JSON Schema leaves to the application."""
    if not isinstance(instance, str):
        return
    try:
        value = json.loads(instance)
    except ValueError:
        yield ValidationError(f"{instance[:80]!r} is not JSON")
        return
    yield from validator.descend(value, inner, schema_path="contentSchema")


_Validator = extend(Draft202012Validator, {"contentSchema": _check_content})  # type: ignore[no-untyped-call]


def read_events(body: bytes) -> list[dict[str, Any]]:
    """Return the events of an SSE body, with the fields that a client sees."""
    found = []
    for block in body.decode().split("\n\n"):
        event: dict[str, Any] = {}
        for line in block.split("\n"):
            name, colon, value = line.partition(":")
            if name and colon:
                value = value.removeprefix(" ")
                event[name] = f"{event[name]}\n{value}" if name in event else int(value) if name == "retry" else value
        if "data" in event:
            found.append(event)
    return found


class Contract:
    """An OpenAPI document, and what it says of replies."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._validators: dict[int, Any] = {}

    def resolve(self, value: Any) -> Any:
        """Follow a reference within the document."""
        while isinstance(value, dict) and "$ref" in value:
            found: Any = self.document
            for part in value["$ref"][2:].split("/"):
                found = found[part]
            value = found
        return value

    def fits(self, schema: Any, value: Any) -> list[str]:
        """Return what of a value a schema does not allow."""
        validator = self._validators.get(id(schema))
        if validator is None:
            root = {"components": self.document["components"], "allOf": [schema]}
            validator = self._validators[id(schema)] = _Validator(root, format_checker=FormatChecker())
        return [f"{each.json_path}: {each.message}"[:500] for each in validator.iter_errors(value)]

    def check(self, method: str, path: str, reply: Reply) -> int:
        """Check a reply of an operation, named by its path as the document has it; return the number of its items."""
        responses = self.document["paths"][path][method.lower()]["responses"]
        assert str(reply.status) in responses, (reply.status, reply.body[:500])
        response = self.resolve(responses[str(reply.status)])
        assert "x-run-id" not in reply.headers or "X-Run-Id" in response["headers"]
        missing = [name for name, each in response.get("headers", {}).items() if each.get("required")]
        assert not [name for name in missing if name.lower() not in reply.headers]
        if not reply.body:
            return 0
        media = reply.headers["content-type"].partition(";")[0]
        assert media in response["content"], (media, reply.body[:300])
        content = response["content"][media]
        items = list(self._items(media, content, reply.body))
        for schema, item in items:
            assert self.fits(schema, item) == [], item
        return len(items)

    def _items(self, media: str, content: dict[str, Any], body: bytes) -> Iterator[tuple[Any, Any]]:
        if media == "text/event-stream":
            yield from ((content["itemSchema"], each) for each in read_events(body))
        elif "itemSchema" in content:
            yield from ((content["itemSchema"], json.loads(line)) for line in body.splitlines())
        elif media.endswith("json"):
            yield content["schema"], json.loads(body)
        elif media == "text/csv":
            yield content["schema"], body.decode()
            assert len({len(row) for row in csv.reader(io.StringIO(body.decode()))}) == 1
        elif "schema" in content:
            yield content["schema"], body.decode()
