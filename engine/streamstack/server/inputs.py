"""What a request holds: its declared inputs, and `request` as definitions see it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import uuid4

from streamstack.language.definition import Input
from streamstack.language.masking import hide
from streamstack.runtime.coercion import invalid
from streamstack.runtime.decoders.decoder import LARGEST
from streamstack.runtime.files import File
from streamstack.runtime.inputs import Checker, Inputs, JsonText, Layout, Lookup
from streamstack.server.bodies import (
    MOST_FIELDS,
    Arriving,
    close_files,
    json_at_hand,
    most_bytes,
    nothing,
    read_body,
    read_form,
)
from streamstack.server.request import Addresses, Request

_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class Reader:
    """Reads requests to one endpoint: their inputs, and `request` as its definition sees it.

    Args:
        checker: The declared inputs.
        max_body: Bytes that a body may have.
        keeps_body: Whether the definition reads `request.body`.
        largest: Bytes of a record, in a body that is read as it arrives.
        addresses: What finds the addresses of clients.
    """

    __slots__ = ("_addresses", "_checker", "_keeps_body", "_largest", "_max_body", "_sensitive", "takes")

    def __init__(
        self,
        checker: Checker,
        *,
        max_body: int,
        keeps_body: bool = False,
        largest: int = LARGEST,
        addresses: Addresses | None = None,
    ) -> None:
        self._checker = checker
        self._max_body = max_body
        self._keeps_body = keeps_body
        self._largest = largest
        self._addresses = addresses or Addresses()
        self._sensitive = [each for each in checker.inputs if _holds_secrets(each)]
        streams = any(each.type == "stream" for each in checker.inputs)
        self.takes = not (keeps_body or streams or self._sensitive)  # whether `take` ever reads anything

    def take(self, request: Request, parameters: Mapping[str, str]) -> Inputs | None:
        """Read the inputs of a request that is wholly here; None where that takes `read`. Raises as it does."""
        if not self.takes:
            return None
        layout = self._checker.layout(request.method, parameters)
        body = None
        if request.body_exists:
            data = json_at_hand(request, self._max_body)
            if data is None:
                return None
            body = JsonText(data) if layout.takes_body else None
        return layout.check(partial(_lookup, request, parameters), body)

    async def read(self, request: Request, parameters: Mapping[str, str]) -> Inputs:
        """Read, convert and check the inputs of a request. The caller closes the files with `close_inputs`.

        Raises RunError ``invalid-input``: 400 naming every fault, 413 for what is too long, 415 for a type not taken.
        """
        layout = self._checker.layout(request.method, parameters)
        if layout.stream is not None:
            inputs = self._read_around(layout, layout.stream, request, parameters)
        else:
            inputs = await self._read_whole(layout, request, parameters)
        if self._sensitive:
            hide(value for each in self._sensitive for value in _secrets(each, inputs[each.name]))
        return inputs

    async def _read_whole(self, layout: Layout, request: Request, parameters: Mapping[str, str]) -> Inputs:
        """Read all inputs. Where the bytes of the body are kept and no input is in it, it is not looked at."""
        body = None
        if request.body_exists and (layout.takes_body or self._keeps_body):
            body = await read_body(request, layout, self._max_body, keep=self._keeps_body)
        try:
            return layout.check(partial(_lookup, request, parameters), body)
        except BaseException:
            if isinstance(body, dict):
                close_files(body)
            elif isinstance(body, File):
                body.close()
            raise

    def _read_around(self, layout: Layout, declared: Input, request: Request, parameters: Mapping[str, str]) -> Inputs:
        """Read all inputs but the body, which becomes a stream of what arrives."""
        arriving = None
        if request.body_exists:
            most = declared.max_size or self._max_body
            arriving = Arriving(request, declared, most=most, largest=self._largest)
        inputs = layout.check(partial(_lookup, request, parameters), None)
        if arriving is not None:
            request.arriving = arriving
            inputs[declared.name] = arriving.stream
            return inputs
        if declared.required:
            raise invalid([{"in": "body", "name": declared.name, "message": "is required"}])
        inputs[declared.name] = nothing()
        inputs.absent = inputs.absent | {declared.name}
        return inputs

    def most(self, method: str, names: Sequence[str]) -> int:
        """Return how many bytes a body may have at most; ``names`` are those of the path's parameters."""
        return most_bytes(self._checker.layout(method, names), self._max_body)

    def show(self, request: Request, parameters: Mapping[str, str]) -> Mapping[str, Any]:
        """Return `request` as definitions see it.

        In `query` a name that is repeated holds a list. `headers` are found by any spelling; a repeated one is joined
        by commas (RFC 9110, section 5.3). `id` is the client's X-Request-Id, else a new one.
        """
        query: dict[str, Any] = {}
        if raw := _raw_query(request):
            # Malformed bytes were refused before if an input is in the query; otherwise the endpoint does not read it.
            text = raw.decode("utf-8", "replace")
            for name, value in parse_qsl(text, keep_blank_values=True)[:MOST_FIELDS]:
                held = query.get(name)
                if held is None:
                    query[name] = value
                elif isinstance(held, list):
                    held.append(value)
                else:
                    query[name] = [held, value]
        headers = Headers()
        for name, value in request.headers.items():
            lower = name.lower()
            text = value if value.isascii() else _header_text(value)
            joint = "; " if lower == "cookie" else ", "
            headers[lower] = f"{headers[lower]}{joint}{text}" if lower in headers else text
        sent = headers.get("x-request-id", "")
        return {
            "method": request.method,
            "path": _readable(request.path),
            "parameters": dict(parameters),
            "query": query,
            "headers": headers,
            "cookies": {name: _header_text(value) for name, value in request.cookies.items()},
            "body": request.kept_body,
            "text": request.kept_body.decode("utf-8", "replace"),
            "ip": self._addresses.of(request),
            "id": sent if _ID.fullmatch(sent) else uuid4().hex,
        }


def _holds_secrets(declared: Input) -> bool:
    inner = (*(declared.properties or ()), *((declared.items,) if declared.items else ()))
    return declared.sensitive or any(map(_holds_secrets, inner))


def _secrets(declared: Input, value: Any) -> Iterator[Any]:
    """Yield what is sensitive of a value."""
    if declared.sensitive:
        yield value
    elif isinstance(value, Mapping):
        for each in declared.properties or ():
            yield from _secrets(each, value.get(each.name))
    elif isinstance(value, list) and declared.items is not None:
        for item in value:
            yield from _secrets(declared.items, item)


def close_inputs(inputs: Mapping[str, Any]) -> None:
    """Delete the files among the inputs. To be called when the run is over, what comes `after` it included."""
    for value in inputs.values():
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, File):
                one.close()


def _lookup(request: Request, route_parameters: Mapping[str, str], place: str) -> Lookup:
    """Return what finds the texts of a name in a place of the request."""
    if place == "path":
        return lambda name: (route_parameters[name],) if name in route_parameters else ()
    if place == "header":
        headers = request.headers
        return lambda name: headers.getall(name, ())
    if place == "cookie":
        cookies = request.cookies
        return lambda name: (cookies[name],) if name in cookies else ()
    form = read_form(_raw_query(request), "query")
    return lambda name: form.get(name, ())


def _raw_query(request: Request) -> bytes:
    """Return the query as it was sent; what was no ASCII is in it as its bytes."""
    query = request.rel_url.raw_query_string
    return query.encode("utf-8", "surrogatepass") if query else b""


class Headers(dict[str, str]):
    """Headers by their names in small letters, found by any spelling."""

    def __missing__(self, name: str) -> str:
        lower = name.lower()
        if lower == name:
            raise KeyError(name)
        return self[lower]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and dict.__contains__(self, name.lower())


def _readable(text: str) -> str:
    """Return a text with U+FFFD in place of the lone surrogates that stand for bytes which were no UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _header_text(text: str) -> str:
    """Return the value of a header; one that is not UTF-8 is read as ISO-8859-1 (RFC 9110, section 5.5)."""
    data = text.encode("utf-8", "surrogateescape")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
