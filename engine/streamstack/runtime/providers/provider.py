"""The interface of model providers, the events they send, and the reply they add up to."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from os import urandom
from typing import Any, ClassVar, Final

import orjson

from streamstack.errors import RunError
from streamstack.formats.items import FIGURES, STOP, TOOL_CALLS, Item, finish_item, reasoning_item, usage_item
from streamstack.runtime.decoders.decoder import Halted, NotJsonError, OnInvalid, SurrogateJoiner
from streamstack.runtime.decoders.sse import DONE, SseDecoder
from streamstack.runtime.providers.conversation import Turn, read_arguments


class Reply:
    """The answer as it grows; its `view` is what `message` shows.

    ``largest`` is how many characters an answer may have. ``blocks`` are what the provider needs back to continue this
    answer: they go into the message and back to the same provider as they are.
    """

    def __init__(self, provider: str, largest: int) -> None:
        self.provider = provider
        self.reason: str | None = None
        self.calls: list[dict[str, Any]] = []
        self.blocks: list[Any] = []
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._usage: Item | None = None
        self._figures: dict[str, int] = {}
        self._remaining = largest
        self._largest = largest

    @property
    def text(self) -> str:
        """The text so far."""
        return _joined(self._pieces)

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return _joined(self._thoughts)

    def add_text(self, text: str, items: list[Item]) -> None:
        """Add the next piece of the text, and its item. Raises as `count` does."""
        if text:
            self._remaining -= len(text)
            if self._remaining < 0:
                raise self._over()
            self._pieces.append(text)
            items.append({"type": "text", "text": text})

    def add_texts(self, texts: list[str], items: list[Item]) -> None:
        """Add several pieces of the text; those before the one that is too much are added."""
        size = sum(map(len, texts))
        if size > self._remaining or "" in texts:
            for text in texts:
                self.add_text(text, items)
            return
        self._remaining -= size
        self._pieces += texts
        items += [{"type": "text", "text": text} for text in texts]

    def add_reasoning(self, text: str, items: list[Item]) -> None:
        """Add the next piece of the reasoning, and its item. Raises as `count` does."""
        if text:
            self.count(text)
            self._thoughts.append(text)
            items.append(reasoning_item(text))

    def sign_reasoning(self, items: list[Item], **signed: str) -> None:
        """Add the item that ends reasoning: its `signature`, or the `redacted` data in place of it."""
        if all(signed.values()):
            items.append(reasoning_item("", **signed))

    def count(self, text: str) -> None:
        """Count characters that are held in memory.

        Raises RunError ``limit-reached``.
        """
        self._remaining -= len(text)
        if self._remaining < 0:
            raise self._over()

    def _over(self) -> RunError:
        return RunError(
            "limit-reached", f"the model's answer has more than {self._largest} characters: raise `http.maxBodySize`"
        )

    def add_call(
        self,
        id: str,  # noqa: A002  (as providers call it)
        name: str,
        arguments: str | Mapping[str, Any],
        items: list[Item],
        signature: str | None = None,
    ) -> None:
        """Add a complete tool call, and its item."""
        read = read_arguments(arguments) if isinstance(arguments, str) else dict(arguments)
        call: dict[str, Any] = {"id": id, "name": name, "arguments": read}
        if signature is not None:
            call["signature"] = signature
        items.append({"type": "toolCall", "text": "", "index": len(self.calls), **call})
        self.calls.append(call)

    def note_usage(self, **figures: Any) -> None:
        """Note token counts. Later counts replace earlier ones; 0 replaces none, and anything else is ignored."""
        for name, value in figures.items():
            if type(value) is int and (value > 0 or (value == 0 and name not in self._figures)):
                self._figures[name] = value

    def finish(self, reason: str, said: str | None, items: list[Item]) -> None:
        """End the answer: add the usage, then the reason; ``said`` is the provider's own word for it."""
        # Several providers say "stop" where they mean that tools are to be called.
        self.reason = TOOL_CALLS if reason == STOP and self.calls else reason
        if self._figures:
            self._usage = usage_item(**self._figures)
            items.append(self._usage)
        item = finish_item(self.reason)
        self.reason = item["reason"]
        items.append(item if said is None else {**item, "providerReason": said})

    @property
    def view(self) -> dict[str, Any]:
        """What has come so far: {role, content, reasoning, toolCalls, finishReason, usage}."""
        usage = self._usage
        seen: dict[str, Any] = {
            "role": "assistant",
            "content": self.text,
            "reasoning": self.reasoning,
            "toolCalls": [dict(call) for call in self.calls],
            "finishReason": self.reason,
            "usage": None if usage is None else {name: usage[name] for name in FIGURES if name in usage},
        }
        if self.blocks:
            seen["providerState"] = {"provider": self.provider, "blocks": list(self.blocks)}
        return seen


def _joined(pieces: list[str]) -> str:
    if len(pieces) > 1:
        pieces[:] = ["".join(pieces)]
    return pieces[0] if pieces else ""


#: What providers call errors that may pass.
_PASSING: Final = re.compile(
    r"overloaded|rate_?limit|server_error|api_error|timeout|unavailable|internal|resource_exhausted|"
    r"deadline|aborted|^(?:408|409|425|429|5\d\d)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. ``schema`` is the JSON Schema of its inputs."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Chat:
    """What is asked of a model. ``own`` tells that the provider itself is asked, not one that speaks like it."""

    model: str
    turns: tuple[Turn, ...]
    system: str | None = None
    tools: tuple[Tool, ...] = ()
    max_tokens: int | None = None
    temperature: Any = None
    own: bool = True

    def system_text(self) -> str | None:
        """Return all that is said to the model beforehand, for providers that take one text."""
        texts = [self.system] if self.system else []
        texts += [turn.text for turn in self.turns if turn.role in ("system", "developer")]
        return "\n\n".join(text for text in texts if text) or None


class AnswerReader(ABC):
    """Makes items of the events of one answer.

    ``ended`` tells that its end marker was read. ``said`` is why the answer ended, in the provider's own word; after it
    only details can follow, so the end of the body is then the end of the answer.
    """

    #: The name of the provider.
    provider: ClassVar[str]
    #: Whether `is_heartbeat` has to be asked.
    has_heartbeats: ClassVar[bool] = False

    def __init__(self, host: str, largest: int) -> None:
        self.host = host
        self.reply = Reply(self.provider, largest)
        self.ended = False
        self.said: str | None = None

    def begin(self, body: Mapping[str, Any]) -> None:  # noqa: B027  (most have nothing to learn)
        """Learn from the request how its answer comes. ``body`` holds the author's `options`."""

    @abstractmethod
    def take(self, data: Mapping[str, Any], items: list[Item]) -> None:
        """Add the items that an event's data gives.

        Raises RunError ``http-status`` for an error that the provider tells.
        """

    def is_heartbeat(self, data: Mapping[str, Any]) -> bool:
        """Whether an event says nothing but that the connection lives."""
        return False

    def piece(self, data: Mapping[str, Any]) -> str | None:
        """Return the piece of the text that an event holds, where `take` would do nothing but add it; else None."""
        return None

    def close(self, items: list[Item], *, marked: bool) -> None:
        """Record that nothing more comes; ``marked`` where `[DONE]` said so.

        Raises RunError ``stream-lost`` where the answer is not at its end.
        """
        if self.said is None:
            raise lost(self.host)
        self.finish(items)

    @abstractmethod
    def finish(self, items: list[Item]) -> None:
        """Add the items of the end."""

    def fail(self, data: Mapping[str, Any], error: Any) -> RunError:
        """Return the RunError for an error that the provider tells inside of an answer."""
        return reported_error(self.host, data, error)


def lost(host: str) -> RunError:
    """Return the error of an answer that ended before its end marker."""
    return RunError("stream-lost", f"the answer of {host} ended before its end")


def reported_error(host: str, data: Any, error: Any) -> RunError:
    """Return the error for one that a provider told in an answer that began well.

    Its own text is in the details alone: it may hold what no client should read.
    """
    about = error if isinstance(error, Mapping) else {"message": error}
    words = [about.get(name) for name in ("type", "status", "code")]
    named = [str(string) for string in words if isinstance(string, (str, int)) and string not in ("", True)]
    string = next((each for each in named if each != "error"), "")
    shown = f": {string}" if re.fullmatch(r"[\w.-]{1,60}", string) else ""
    return RunError(
        "http-status",
        f"{host} reported an error in its response{shown}",
        details={"body": data},
        final=not any(_PASSING.search(each) for each in named),
    )


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider: its address and its protocol.

    ``keys`` and ``addresses`` are environment variables, of which the first that is set counts. ``path`` returns what
    follows the address, ``headers`` takes the key.
    """

    name: str
    url: str
    keys: tuple[str, ...]
    addresses: tuple[str, ...]
    path: Callable[[str, str], str]
    headers: Callable[[str | None], dict[str, str]]
    body: Callable[[Chat], dict[str, Any]]
    reader: type[AnswerReader]


def made_id() -> str:
    """Return an id for a tool call that came without one."""
    return MADE + urandom(12).hex()


def usage_of(used: Mapping[str, Any]) -> dict[str, Any]:
    """Return token counts by our names. Servers that are compatible with an API name them as other APIs do."""
    counts = {
        name: next((used[key] for key in keys if isinstance(used.get(key), int)), None)
        for name, keys in _COUNTS.items()
    }
    for name, details, key in _DETAILS:
        count = part(used, details).get(key)
        counts[name] = count if isinstance(count, int) else counts.get(name)
    return counts


#: What ids begin with that we made, since the provider sent none.
MADE: Final = "call_made_"
#: What token counts are called: by OpenAI, by Anthropic and OpenAI's Responses, by Bedrock, by Ollama.
_COUNTS: Final = {
    "inputTokens": ("prompt_tokens", "input_tokens", "inputTokenCount", "prompt_eval_count"),
    "outputTokens": ("completion_tokens", "output_tokens", "outputTokenCount", "eval_count"),
    "totalTokens": ("total_tokens",),
    # DeepSeek's, Moonshot's and Bedrock's.
    "cachedTokens": ("prompt_cache_hit_tokens", "cached_tokens", "cacheReadInputTokenCount"),
    "reasoningTokens": ("reasoning_tokens",),
}
_DETAILS: Final = (
    ("cachedTokens", "prompt_tokens_details", "cached_tokens"),
    ("cachedTokens", "input_tokens_details", "cached_tokens"),
    ("reasoningTokens", "completion_tokens_details", "reasoning_tokens"),
    ("reasoningTokens", "output_tokens_details", "reasoning_tokens"),
)


# What comes from outside has any shape: these give what is expected, or nothing. It was JSON, so its objects are dicts.


def part(data: Any, name: str) -> Mapping[str, Any]:
    """Return an object within an object; an empty one where there is none."""
    found = data.get(name) if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def parts(data: Any, name: str) -> list[Mapping[str, Any]]:
    """Return the objects in a list within an object."""
    found = data.get(name) if isinstance(data, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def string(data: Any, name: str) -> str:
    """Return a text within an object; empty where there is none."""
    found = data.get(name) if isinstance(data, dict) else None
    return found if isinstance(found, str) else ""


def merge(body: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body with the author's own options laid over it; null takes a key out."""
    merged = dict(body)
    for name, value in options.items():
        present = merged.get(name)
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(present, Mapping):
            merged[name] = merge(dict(present), value)
        else:
            merged[name] = value
    return merged


#: How many events are looked at, before an answer is taken for one whose events are never alike.
_LEARNERS: Final = 4
#: Stands for another text.
_OTHER: Final = b'"another text"'
#: What no event begins with.
_NEVER: Final = b"\0"


class AnswerDecoder(SseDecoder):
    """Gives the items that a reader makes of the events of an answer.

    Most servers write all pieces of the text in one form: identifiers, model and time are always the same. So what
    stands before and after the text is learnt, and of an event that begins and ends like this only the text is read.

    ``alive`` tells that an event has come that is more than a heartbeat. What a reader raises is the ``failure``, so
    that the items before it are not lost. Once the reader has ended, nothing that follows is read.
    """

    def __init__(self, reader: AnswerReader, on_invalid: OnInvalid, largest: int) -> None:
        super().__init__(on_invalid, largest, data="json")
        self._reader = reader
        self._events = 0
        self.learners = _LEARNERS
        self._before, self._after = _NEVER, b""
        self.alive = False

    def _give(self, data: bytes, items: list[Any]) -> None:
        reader = self._reader
        if self.ended or reader.ended or not data:  # gateways keep connections alive with empty data
            return
        before, after = self._before, self._after
        if self._joiner is None and data.startswith(before) and data.endswith(after):
            try:
                text = orjson.loads(data[len(before) : len(data) - len(after)])
            except orjson.JSONDecodeError:
                text = None  # there is more in it
            if type(text) is str:
                self._events += 1
                self.alive = True
                try:
                    reader.reply.add_text(text, items)
                except RunError as error:
                    self.failure = error
                    raise Halted from None
                return
        if not data.strip():
            return
        if data == DONE:
            self.ended = True
            return
        try:
            value = self._parse(data)
        except NotJsonError as error:
            self._refuse(items, data, str(error))
            return
        self._events += 1
        if self._joiner is not None:
            for ready in self._joiner.add(value):
                self._take_event(ready, items)
            return
        self._take_event(value, items)
        if self.learners:
            self._learn(data, value)

    def _give_all(self, datas: list[bytes], items: list[Any]) -> None:
        if len(datas) == 1:  # as they come while a model writes
            self._give(datas[0], items)
            return
        at = 0
        while at < len(datas):
            texts = self._texts_alike(datas, at)
            count = len(texts) or 1
            if not self._give_texts(texts, items):
                for data in datas[at : at + count]:
                    self._give(data, items)
            at += count

    def _texts_alike(self, datas: list[bytes], at: int) -> list[bytes]:
        """Return the texts, as JSON, of the events from ``at`` on that have the form that was learnt."""
        before, after = self._before, self._after
        begin, end = len(before), -len(after)
        texts: list[bytes] = []
        for index in range(at, len(datas)):
            data = datas[index]
            if not (data.startswith(before) and data.endswith(after)):
                break
            texts.append(data[begin:end])
        return texts

    def _give_texts(self, texts: list[bytes], items: list[Any]) -> bool:
        """Give the texts of several events; False where there are none, or more than texts in them.

        Raises Halted where the answer is too long.
        """
        if not texts or self._joiner is not None or self.ended or self._reader.ended:
            return False
        try:
            # No text of JSON holds a line feed, so none reaches over from one event into the next.
            found = orjson.loads(b"[%b]" % b",\n".join(texts))
        except orjson.JSONDecodeError:
            return False
        if len(found) != len(texts) or any(type(text) is not str for text in found):
            return False
        self._add_texts(found, items)
        return True

    def _add_texts(self, texts: list[str], items: list[Any]) -> None:
        self._events += len(texts)
        self.alive = True
        try:
            self._reader.reply.add_texts(texts, items)
        except RunError as error:
            self.failure = error
            raise Halted from None

    def _take_event(self, value: Any, items: list[Any]) -> None:
        """Give an event to the reader. Raises Halted where that ends the answer."""
        reader = self._reader
        if type(value) is not dict:
            message = f"an event of {reader.host} is not an object, as all of its are"
            self.failure = RunError("invalid-chunk", message)
            raise Halted
        if reader.has_heartbeats and reader.is_heartbeat(value):
            return
        self.alive = True
        try:
            reader.take(value, items)
        except RunError as error:
            self.failure = error
            raise Halted from None
        if reader.ended:
            raise Halted

    def _join(self, items: list[Any], joiner: SurrogateJoiner, *, final: bool) -> list[Any]:
        # What waits are events, before the reader takes them.
        if final or self.failure is not None or self.ended:
            with suppress(Halted):
                for value in joiner.end():
                    self._take_event(value, items)
        if joiner.is_empty:
            self._joiner = None
        return items

    def _learn(self, data: bytes, value: Mapping[str, Any]) -> None:
        """Learn how the pieces of the text are written, of an event that holds one."""
        said = self._reader.piece(value)
        if not said:
            return
        self.learners -= 1
        before, found, after = data.rpartition(orjson.dumps(said))
        try:
            other = orjson.loads(before + _OTHER + after)
        except orjson.JSONDecodeError:
            return
        # Another text in this place must be the piece of the text; all else is as it was.
        if found and self._reader.piece(other) == "another text":
            self._before, self._after = before, after

    def _count_with(self, items: list[Any]) -> int:
        return self._events
