"""Every shape that answers were seen in, sent by a real upstream, read by an endpoint, and asked to go on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.server.declared import declared
from tests.upstreams import Upstream, answer

SHAPES = [
    pytest.param(path.stem, shape, id=f"{path.stem}: {shape['name']}")
    for path in sorted((Path(__file__).parent / "shapes").glob("*.yaml"))
    for shape in yaml.safe_load(path.read_text(encoding="utf-8"))
]
ENDPOINT = """
method: POST
path: /ask
inputParameters:
  provider: {type: text, required: true}
  url: {type: url, required: true}
  messages: {type: json, required: true}
  options: {type: json, required: true}
functionStack:
  - llm.chat:
      provider: << input.provider >>
      model: m
      apiKey: k
      baseUrl: << input.url >>
      messages: << input.messages >>
      options: << input.options >>
    as: reply
  - after: {do: [{test.note: << reply.message >>}]}
  - forEach: {in: << reply >>, do: [{stream: << item >>}]}
  - done: {content: << reply.message >>}
"""
USER = {"role": "user", "content": "Weather?"}


def wire_of(shape: dict[str, Any]) -> str:
    """Return the events of a shape."""
    as_it_is = re.compile("event:|data:|:|$")
    lines = (line if as_it_is.match(line) else f"data: {line}\n" for line in shape["wire"].splitlines())
    return "\n".join(lines) + "\n"


def holds(value: Any, wanted: Any) -> bool:
    """Whether a value has what is wanted: of objects these keys, null for one that is missing; the rest is equal."""
    if isinstance(wanted, dict) and isinstance(value, dict):
        return all(holds(value.get(name), each) for name, each in wanted.items())
    if isinstance(wanted, list) and isinstance(value, list):
        return len(value) == len(wanted) and all(map(holds, value, wanted))
    return bool(value == wanted)


def said_by_model(provider: str, body: dict[str, Any]) -> Any:
    """Return what a request holds of the model's answer."""
    if provider == "openaiResponses":
        return [item for item in body["input"] if item.get("type") != "function_call_output"][1:]
    return body["contents" if provider == "gemini" else "messages"][1]


@pytest.mark.parametrize(("provider", "shape"), SHAPES)
async def test_shape(provider: str, shape: dict[str, Any]) -> None:
    """Nothing is lost and nothing invented, and what the provider needs back goes back."""
    async with (
        Upstream(answer(wire_of(shape), "Content-Type: text/event-stream")) as upstream,
        declared(ENDPOINT) as (server, noted),
    ):

        async def ask(*messages: Any) -> tuple[list[dict[str, Any]], Any]:
            inputs = {
                "provider": provider,
                "url": upstream.url,
                "messages": messages,
                "options": shape.get("options", {}),
            }
            body = json.dumps(inputs).encode()
            head = {"Content_Type": "application/json", "Accept": "application/x-ndjson"}
            reply = await server.ask("POST", "/ask", body, **head)
            lines = [json.loads(line) for line in reply.body.splitlines()]
            return [line for line in lines if "type" in line], lines[-1]

        items, last = await ask(USER)
        for kind in ("text", "reasoning"):
            assert "".join(item["text"] for item in items if item["type"] == kind) == shape.get(kind, "")
        assert all("text" in item for item in items)
        if "error" in shape:
            assert last["error"]["code"] == shape["error"]
            assert noted[0]["finishReason"] is None
            return
        message = noted[0]
        assert last == {"done": message}
        calls = [item for item in items if item["type"] == "toolCall"]
        assert holds(calls, shape.get("calls", [])), calls
        assert holds(message["toolCalls"], shape.get("calls", []))
        assert len({call["id"] for call in calls} - {""}) == len(calls)
        assert message["usage"] == shape.get("usage")
        assert message["finishReason"] == items[-1]["reason"] == shape.get("reason", "stop")
        assert (message["content"], message["reasoning"]) == (shape.get("text", ""), shape.get("reasoning", ""))
        await ask(USER, message, *({"role": "tool", "toolCallId": call["id"], "content": "ok"} for call in calls))
        sent = json.loads(upstream.asked[1].body)
        if "back" in shape:
            assert holds(said_by_model(provider, sent), shape["back"]), sent
