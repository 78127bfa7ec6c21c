"""What a client sends can only be a 4xx: values that do not fit where a definition passes them on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.authenticating import project

SETTINGS = """
models:
  m: {provider: openai, model: x, baseUrl: "http://127.0.0.1:9", apiKey: k}
"""
ENDPOINT = """
method: POST
path: /s
responseType: {type}
inputParameters: {{v: json, n: {{type: json, default: 1}}, list: {{type: list, default: []}}}}
functionStack:
{stack}
---
kind: function
name: f
inputParameters: {{v: json}}
functionStack: [wait: << input.v >>]
"""


async def status_of(folder: Path, stack: str, body: Any, type_: str = "json") -> tuple[int, str, str]:
    """Return the status, the code and the detail of the response."""
    lines = "\n".join(f"  {line}" for line in stack.strip().split("\n"))
    async with project(folder, SETTINGS, ENDPOINT.format(stack=lines, type=type_), {}) as server:
        reply = await server.ask("POST", "/s", json.dumps(body).encode(), Content_Type="application/json")
    problem = json.loads(reply.body)
    return reply.status, problem["code"], problem["detail"]


MESSAGES = (
    "- llm.chat: {model: m, messages: << input.v >>}\n  as: r\n- collect: << r >>\n  as: all\n- return: << all >>"
)
NESTED = MESSAGES.replace("<< input.v >>", "[{role: user, content: << input.v >>}]")
TOOLS = MESSAGES.replace("<< input.v >>", "Hi, tools: << input.v >>")
HEADERS = '- http.request: {url: "http://127.0.0.1:9", headers: << input.v >>}'
HEADER = '- http.request: {url: "http://127.0.0.1:9", headers: {A: << input.v >>}}'
SPLIT = "- stream: {content: a b c, split: {by: words, size: << input.v >>}}"


@pytest.mark.parametrize(
    ("stack", "body", "detail"),
    [
        ("- wait: << input.v >>", {"v": "soon"}, "`duration` must be a duration such as 200ms or 5s, not a text"),
        ("- wait: << input.v | default(5) >>", {"v": -1}, "`duration` must be a duration"),
        ("- wait: << sent.v >>", {"v": [1]}, "`duration` must be a duration"),
        ("- wait: << request.headers.connection >>", {}, "`duration` must be a duration"),
        ("- respond: {status: << input.v >>}", {"v": 99}, "`status` must be at least 200, not 99"),
        ("- respond: {headers: << input.v >>}", {"v": 5}, "`headers` must be an object, not an integer"),
        (SPLIT, {"v": 0}, "`size` must be at least 1, not 0"),
        (SPLIT, {"v": "many"}, "`size` must be an integer, not a text"),
        ("- counter.add: {key: k, by: << input.v >>}", {"v": "x"}, "`by` must be a number, not a text"),
        (HEADERS, {"v": {"A B": 1}}, "`A B` is not a valid header"),
        (HEADERS, {"v": {"A": "b\r\nc"}}, "the header `A` contains a line break"),
        (HEADER, {"v": "b\r\nc"}, "the header `A` contains a line break"),
        (HEADER.replace("<<", "Bearer <<"), {"v": "b\nc"}, "the header `A` contains a line break"),
        ("- http.request: << input.v >>", {"v": "ftp://a"}, "`url` must be a URL"),
        ("- http.request: << input.v >>", {"v": "http://a/\nb"}, "`url` contains a line break"),
        ("- http.request: {url: 'http://127.0.0.1:9', method: << input.v >>}", {"v": "G T"}, "`method` must be"),
        ("- http.request: {url: 'http://127.0.0.1:9', body: << input.v >>}", {"v": [1]}, "`body` must be a text"),
        (MESSAGES, {"v": 5}, "`messages` must be a list, not an integer"),
        (MESSAGES, {"v": []}, "`messages` is empty"),
        (MESSAGES, {"v": [{"role": "stranger", "content": "a"}]}, "`messages[0].role` is 'stranger'"),
        (MESSAGES, {"v": [{"role": "tool", "content": "a"}]}, "`messages[0]` requires `toolCallId`"),
        (MESSAGES, {"v": [{"role": "user", "content": [5]}]}, "`messages[0].content[0]` is not a message part"),
        (NESTED, {"v": [{"type": "video"}]}, "`messages[0].content[0]` is not a message part"),
        (MESSAGES, {"v": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "`messages[0].content[0]` req"),
        (TOOLS, {"v": [{"type": "web_search"}]}, "`tools[0]` is not a tool"),
        (TOOLS.replace("tools", "system"), {"v": [{"type": "document"}]}, "`system[0]` needs `url`"),
        (TOOLS.replace("tools", "system"), {"v": [{"type": "video"}]}, "`system[0]` is not a message part"),
        (TOOLS.replace("tools", "options"), {"v": {"n": 2}}, "`options` must be options for one response"),
        (
            MESSAGES.replace("<< input.v >>", "'<< input.list + [{\"role\": \"user\", \"content\": input.v}] >>'"),
            {"v": "a", "list": [5]},
            "`messages[0]` must be an object",
        ),
    ],
)  # fmt: skip
async def test_values_of_clients(stack: str, body: Any, detail: str, tmp_path: Path) -> None:
    """A value that is passed on as it was sent is the client's fault, with words that say what is wrong."""
    type_ = "streaming" if stack is SPLIT else "json"
    status, code, told = await status_of(tmp_path, stack, body, type_)
    assert (status, code) == (400, "invalid-input")
    assert told.startswith(detail)


@pytest.mark.parametrize(
    "stack",
    [
        "- wait: << settings.pause >>",
        "- set: {a: soon}\n- wait: << a >>",
        '- wait: << "soon" if input.v else input.v >>',
        "- wait: << input.v ~ settings.unit >>",
        '- set: {broken: "a\\nb"}\n' + HEADER.replace("input.v", "broken"),
        '- set: {broken: "a\\nb"}\n' + HEADER.replace("<< input.v >>", "a << broken >> << input.v >>"),
        "- call: {function: f, with: {v: soon}}",
        "- wait: << input.v + 1 >>",
    ],
)
async def test_values_of_authors(stack: str, tmp_path: Path) -> None:
    """What an author's own value or expression causes stays an error of the server."""
    assert (await status_of(tmp_path, stack, {"v": "x"}))[0] == 500


async def test_caught_as_what_it_is(tmp_path: Path) -> None:
    """`catch` sees the code and the status."""
    stack = """
- try:
    do: [wait: << input.v >>]
    catch: {do: [throw: {code: seen, message: << error.code >>, status: << error.status + 10 >>}]}
"""
    assert await status_of(tmp_path, stack, {"v": "x"}) == (410, "seen", "invalid-input")
