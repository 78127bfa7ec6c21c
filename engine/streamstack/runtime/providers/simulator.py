"""The built-in provider: answers without a key and without a network, as a model's answer arrives.

The answer is a function of the messages: it repeats the user's last one, or says what a tool returned. If the last
message names a tool of the request, that tool is called: with the JSON object that the message holds, else with
arguments made of the tool's schema. Tokens are counted as words.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import orjson

from streamstack.errors import Diagnostic, Mark, RunError
from streamstack.formats.items import LENGTH, STOP, Item
from streamstack.language import nodes
from streamstack.language.nodes import build
from streamstack.language.settings import SIMULATOR, Simulation
from streamstack.runtime.providers.conversation import Turn
from streamstack.runtime.providers.provider import Chat, Reply, Tool, lost
from streamstack.runtime.splitters import split_content
from streamstack.spec import SettingsReader, fields_of

#: Words of the user's message that the answer repeats.
_REPEATED: Final = 40
_WORD: Final = re.compile(r"\s*\S+")
#: What a property without a default and without choices gets, by its type in JSON Schema.
_SAMPLES: Final[Mapping[str, Any]] = {"string": "text", "boolean": True, "array": [], "object": {}}


def read_options(options: Mapping[str, Any]) -> Simulation:
    """Return how the simulator answers.

    Raises RunError ``template`` for options that it does not have.
    """
    findings: list[Diagnostic] = []
    node = build(dict(options), Mark("", 0, 0))
    assert isinstance(node, nodes.Mapping)
    values = SettingsReader(findings).values(fields_of(Simulation), node, "options")
    for wrong in findings:
        raise RunError("template", wrong.message, final=True, parameter="options")
    return Simulation(**values)


async def answer(chat: Chat, options: Simulation, reply: Reply) -> AsyncGenerator[list[Item], None]:
    """Yield the items of an answer, each batch after its delay, and add them to the reply.

    Raises RunError ``stream-lost`` where the answer is to break off.
    """
    calls = _calls(chat, options)
    text = options.text if options.text is not None else "" if calls else _text(chat)
    text, reason = _limited(text, chat.max_tokens)
    thoughts = [(reply.add_reasoning, piece) for piece in _split(options.reasoning, options)]
    texts = [(reply.add_text, piece) for piece in _split(text, options)]
    await asyncio.sleep(options.first_after)
    for number, (add, piece) in enumerate([*thoughts, *texts]):
        if number == options.fail_after:
            raise lost(SIMULATOR)
        if number:
            await asyncio.sleep(options.every)
        items: list[Item] = []
        add(piece, items)
        yield items
    if options.fail_after is not None:
        raise lost(SIMULATOR)
    items = []
    for number, (name, arguments) in enumerate(calls):
        reply.add_call(f"call_{len(chat.turns)}_{number}", name, arguments, items)
    prompt = " ".join([chat.system or "", *(turn.text for turn in chat.turns)])
    written = len(_WORD.findall(text)) + len(_WORD.findall(options.reasoning))
    reply.note_usage(inputTokens=len(_WORD.findall(prompt)), outputTokens=written + len(calls))
    reply.finish(options.finish_reason or reason, None, items)
    yield items


def _split(text: str, options: Simulation) -> list[str]:
    return split_content(text, options.by, options.size) if text else []


def _limited(text: str, limit: int | None) -> tuple[str, str]:
    """Return a text of at most so many words, and the reason of its end."""
    words = list(_WORD.finditer(text))
    if limit is None or len(words) <= limit:
        return text, STOP
    return text[: words[limit - 1].end()], LENGTH


def _text(chat: Chat) -> str:
    """Return the answer to the last message."""
    turn = _last(chat)
    if turn.role == "tool":
        return f"The tool {turn.name or turn.answers} returned {turn.text}."
    words = turn.text.split()
    said = " ".join(words[:_REPEATED]) + ("…" if len(words) > _REPEATED else "")
    beside = f" (and sent {len(turn.attachments)} file{'s' * (len(turn.attachments) > 1)})" if turn.attachments else ""
    return (
        f"You said{beside}: “{said}” This is a simulated answer in place of {chat.model}. It needs no key and no "
        "network, it depends on your messages alone, and it arrives word by word, as the answer of a model does. Name "
        "a provider in streamstack.yaml and set its key, and a model answers instead."
    )


def _last(chat: Chat) -> Turn:
    """Return what is to be answered: the last message of a user or a tool."""
    return next((turn for turn in reversed(chat.turns) if turn.role in ("user", "tool")), chat.turns[-1])


def _calls(chat: Chat, options: Simulation) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the tool calls of an answer, as names and arguments."""
    turn = _last(chat)
    if options.tool_calls is not None:
        # A tool's result is answered with a text: otherwise a loop of calls would have no end.
        return [] if turn.role == "tool" else [(each.name, each.arguments) for each in options.tool_calls]
    if options.text is not None or turn.role != "user":
        return []
    text = turn.text
    return [
        (tool.name, _arguments(tool, turn))
        for tool in chat.tools
        if re.search(rf"(?<!\w){re.escape(tool.name)}(?!\w)", text, re.IGNORECASE)
    ]


def _arguments(tool: Tool, turn: Turn) -> Mapping[str, Any]:
    """Return the JSON object that a message holds, else values for the required properties of a tool."""
    begin, end = turn.text.find("{"), turn.text.rfind("}")
    if 0 <= begin < end:
        try:
            found = orjson.loads(turn.text[begin : end + 1])
        except orjson.JSONDecodeError:
            found = None
        if isinstance(found, dict):
            return found
    properties = tool.schema.get("properties")
    required = tool.schema.get("required")
    declared = properties if isinstance(properties, Mapping) else {}
    names = required if isinstance(required, (list, tuple)) else ()
    return {name: _sample(declared.get(name)) for name in names if isinstance(name, str)}


def _sample(schema: Any) -> Any:
    """Return a value that fits a JSON Schema, as far as its `default`, `enum`, `minimum` and `type` say."""
    if not isinstance(schema, Mapping):
        return "text"
    if "default" in schema:
        return schema["default"]
    choices = schema.get("enum")
    if isinstance(choices, (list, tuple)) and choices:
        return choices[0]
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return _SAMPLES.get(kind if isinstance(kind, str) else "string")
