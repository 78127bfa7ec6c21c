"""Requests at random over a real socket: an answer to each, and never one of the five hundreds."""

from __future__ import annotations

import json
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from streamstack.language.definition import InputRules
from streamstack.runtime.inputs import compile_inputs
from streamstack.runtime.run import Run
from streamstack.server.endpoints import Reader
from streamstack.server.response_options import ResponseOptions
from tests.requests_at_random import ODD, anything, declaration, fitting_object, spoilt
from tests.server.serving import endpoint, serving

TYPES = (
    "application/json",
    "application/json; charset=nonsense",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=B",
    "multipart/form-data",
    "text/plain",
    "",
    ";;;=",
)


async def echo(run: Run, inputs: dict[str, Any]) -> Any:
    """Answer with the inputs, having read the request."""
    run.request()
    return inputs


def body_of(pick: Random, content_type: str, document: Any) -> bytes:
    """Write a document the way its type has it, now and then another way."""
    fields = document if isinstance(document, dict) and pick.random() < 0.8 else {"a": document}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    if content_type.startswith("multipart") and pick.random() < 0.9:
        parts = [
            f'--B\r\nContent-Disposition: form-data; name="{quote(name)}"'
            f"{pick.choice(['', '; filename=x'])}\r\n\r\n{text}\r\n"
            for name, text in texts.items()
        ]
        return "".join([*parts, "--B--\r\n"]).encode()
    if "form" in content_type and pick.random() < 0.9:
        return urlencode(texts).encode()
    return spoilt(pick, document)


@pytest.mark.parametrize("seed", range(8))
async def test_no_request_is_an_error_of_ours(seed: int) -> None:
    """Fifty requests to an endpoint at random are answered 200, or 400 with faults, 413 or 415."""
    pick = Random(seed)  # noqa: S311
    inputs = tuple(declaration(pick, name) for name in "abcd")
    checker = compile_inputs(inputs, InputRules(unknown=pick.choice(["refuse", "ignore"])))
    reader = Reader(checker, max_body=2000, reads_body=seed % 2 == 0)
    made = [
        endpoint(echo, "/s/{a}", method, wire=ResponseOptions("value"), read=reader.read, show=reader.show)
        for method in ("GET", "POST", "PUT", "DELETE")
    ]
    statuses = set()
    async with serving(*made) as server:
        for _ in range(50):
            fitted = fitting_object(pick, inputs) if pick.random() < 0.8 else anything(pick)
            query = "&".join(f"{pick.choice('abcd')}={quote(pick.choice(ODD))}" for _ in range(3))
            content_type = pick.choice(TYPES)
            body = body_of(pick, content_type, fitted)
            reply = await server.ask(
                pick.choice(["GET", "POST", "POST", "PUT", "DELETE"]),
                f"/s/{quote(pick.choice(ODD) or '1', safe='')}?{query}",
                body,
                **({"Content_Type": content_type} if content_type else {}),
            )
            statuses.add(reply.status)
            assert reply.status in {200, 400, 413, 415}, reply
            if reply.status != 200:
                assert json.loads(reply.body)["errors"]
    assert 400 in statuses
