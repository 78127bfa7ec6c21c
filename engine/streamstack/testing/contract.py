"""Whether answers are as the OpenAPI document of their project says: every chunk, end marker, response and error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from streamstack.language.definition import Endpoint
from streamstack.language.openapi.document import make_document
from streamstack.language.openapi.requests import template_of
from streamstack.language.project import Checked
from streamstack.runtime.decoders.sse import SseDecoder
from streamstack.testing.client import LARGEST, ReceivedAnswer
from streamstack.testing.responses import NOTHING, parsed

#: Items of one answer that are checked: those of longer ones are alike, and each takes up to a millisecond.
_CHECKED: Final = 1000
#: Violations in one answer that are named.
_NAMED: Final = 3

_Violations = Callable[[Any], list[tuple[str, str]]]


class ApiContract:
    """The document of a project, and what it says of answers. It is made for the first of them."""

    def __init__(self, checked: Checked) -> None:
        self._checked = checked
        self._document: dict[str, Any] | None = None
        self._known: dict[tuple[str, str, str, str], _Violations | None] = {}

    def violations(self, endpoint: Endpoint, answer: ReceivedAnswer) -> list[str]:
        """Return what of an answer the document does not allow; of one that was cut short, of what has come."""
        media = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if undocumented := self._undocumented(endpoint, str(answer.status), media if answer.body else ""):
            return [undocumented]
        check = self._check(endpoint, str(answer.status), media)
        if check is None:
            return []
        found: list[str] = []
        for what, item in islice(_items(media, bytes(answer.body), whole=answer.whole), _CHECKED):
            if item is NOTHING:
                found.append(f"{what} is not JSON")
                continue
            found += [f"{what}: {f'`{path}` ' if path else ''}{message}" for path, message in check(item)]
            if len(found) >= _NAMED:
                break
        return found[:_NAMED]

    def _undocumented(self, endpoint: Endpoint, status: str, media: str) -> str:
        """Return what the document lacks: the status of an answer or, of one with a body, its media type."""
        responses = self._responses(endpoint.method, endpoint.path)
        response = self._response(responses, status, media)
        if not responses:
            return ""
        if response is None:
            return f"the status {status} is not documented: {', '.join(responses)} are"
        if media and not {media, "*/*"} & response.get("content", {}).keys():
            return f"the media type {media} is not documented for the status {status}"
        return ""

    def _responses(self, method: str, path: str) -> dict[str, Any]:
        """Return the documented responses of an operation, by status; none of an operation that is not documented."""
        if self._document is None:
            self._document = make_document(self._checked.project, self._checked.settings).document
        operation = self._document["paths"].get(template_of(path), {}).get(method.lower(), {})
        responses: dict[str, Any] = operation.get("responses", {})
        return responses

    def _response(self, responses: dict[str, Any], status: str, media: str) -> dict[str, Any] | None:
        """Return the response of a status, of its class, or of any: the first that has the media type, if one has."""
        assert self._document is not None
        found = [responses[each] for each in (status, f"{status[0]}XX", "default") if each in responses]
        shared = self._document["components"].get("responses", {})
        found = [shared[each["$ref"].rpartition("/")[2]] if "$ref" in each else each for each in found]
        fitting = (each for each in found if {media, "*/*"} & each.get("content", {}).keys())
        return next(fitting, found[0] if found else None)

    def _check(self, endpoint: Endpoint, status: str, media: str) -> _Violations | None:
        """Return what checks the items of an answer; None where the document says nothing of them."""
        key = (endpoint.method, endpoint.path, status, media)
        if key not in self._known:
            self._known[key] = self._compile(*key)
        return self._known[key]

    def _compile(self, method: str, path: str, status: str, media: str) -> _Violations | None:
        from streamstack.language.json_schema import compile_schema  # noqa: PLC0415  (it takes a while)

        response = self._response(self._responses(method, path), status, media) or {}
        assert self._document is not None
        document = self._document
        content = response.get("content", {})
        content = content.get(media, content.get("*/*", {}))
        schema = content.get("itemSchema", content.get("schema"))
        if schema is None:
            return None
        return compile_schema({"components": document["components"], "allOf": [schema]})


def _items(media: str, body: bytes, *, whole: bool) -> Iterator[tuple[str, Any]]:
    """Yield the items of a body that a schema describes, each with its name; NOTHING for one that is not JSON."""
    if media == "text/event-stream":
        decoder = SseDecoder(largest=LARGEST, data="text")
        for number, item in enumerate(decoder.feed(body)):
            event = {key: each for key, each in item.items() if each}
            yield f"event {number}", {"data": "", **event}
    elif media.endswith(("ndjson", "jsonl")):
        lines = body.split(b"\n")
        for number, line in enumerate(lines[:-1]):
            yield f"line {number}", parsed(line.decode("utf-8", "replace"))
    elif media.endswith("json") and whole and body:
        yield "the body", parsed(body.decode("utf-8", "replace"))
