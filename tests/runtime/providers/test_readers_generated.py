"""Whatever JSON a provider sends, its reader gives items of the known shapes or a RunError, nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstack.errors import RunError
from streamstack.formats.items import Item, refuse
from streamstack.language.values import to_json
from streamstack.runtime.providers import PROVIDERS
from streamstack.runtime.providers.conversation import Turn, read_messages
from streamstack.runtime.providers.provider import AnswerDecoder, Chat
from tests.runtime.providers.asking import wire
from tests.runtime.providers.test_messages import FORMS, REASONED
from tests.runtime.providers.test_wires import SAID

EVENTS = [
    (name.partition("-")[0], json.loads(line[5:]))
    for name in SAID
    for line in wire(name).decode().split("\n")
    if line.startswith("data: {")
]
KEYS = sorted({key for _, event in EVENTS for key in event} | {"error", "index", "text", "id"})


def _keys(value: Any) -> set[str]:
    """Return the names and the short texts in a value."""
    if isinstance(value, dict):
        return set(value).union(*map(_keys, value.values()))
    if isinstance(value, list):
        return set[str]().union(*map(_keys, value))
    return {value} if isinstance(value, str) and len(value) < 20 else set()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the ways to everything inside of a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, each in inner for place in places(each, (*way, key)))]


def changed(value: Any, way: tuple[Any, ...], to: Any) -> Any:
    """Return a value with what is at a place replaced."""
    if not way:
        return to
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = changed(value[way[0]], way[1:], to)
    return copy


@st.composite
def conversations(draw: st.DrawFn) -> tuple[str, list[Any]]:
    """Draw a provider and some of its events, in each of which something is something else."""
    provider = draw(st.sampled_from(sorted(PROVIDERS)))
    own = [event for name, event in EVENTS if name == provider]
    events = draw(st.lists(st.sampled_from(own), min_size=1, max_size=6))
    twisted = []
    for event in events:
        twist = changed(event, draw(st.sampled_from(places(event))), draw(JSON))
        twisted.append(draw(st.sampled_from([event, twist, twist])))
    return provider, [event for event in twisted if isinstance(event, dict)]


@settings(max_examples=1000, deadline=None)
@given(conversations())
def test_reader_of_nonsense_stays_calm(conversation: tuple[str, list[Any]]) -> None:
    """Items can be sent on in every dialect, and the message can be shown."""
    provider, events = conversation
    reader = PROVIDERS[provider].reader("x.example", 1 << 20)
    items: list[Item] = []
    with suppress(RunError):
        for event in events:
            if reader.is_heartbeat(event):
                continue
            reader.take(event, items)
            if reader.ended:
                break
        else:
            reader.close(items, marked=True)
    assert [refuse(item) for item in items] == [None] * len(items)
    view = reader.reply.view
    to_json(view)
    assert "".join(item["text"] for item in items if item["type"] == "text") == view["content"]
    assert sum(item["type"] == "finish" for item in items) == (view["finishReason"] is not None)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_reader_of_nothing_stays_calm(provider: str) -> None:
    """An empty object is not an event."""
    items: list[Item] = []
    PROVIDERS[provider].reader("x.example", 9).take({}, items)
    assert items == []


#: Conversations of each form, and with reasoning.
TALKS = [*FORMS.values(), *(messages for _, messages, _ in REASONED)]
WORDS = st.sampled_from(sorted(_keys(TALKS)))
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def talks(draw: st.DrawFn) -> list[Any]:
    """Draw a conversation in which up to two things are something else."""
    talk: Any = draw(st.sampled_from(TALKS))
    for _ in range(draw(st.integers(0, 2))):
        talk = changed(talk, draw(st.sampled_from(places(talk)[1:] or [()])), draw(ANY))
    return talk if isinstance(talk, list) else [talk]


@settings(max_examples=1500, deadline=None)
@given(talks())
def test_any_messages_are_sent_or_refused(messages: list[Any]) -> None:
    """What clients send is a conversation for every provider, or their error; never ours."""
    turns: tuple[Turn, ...] = ()
    refused = None
    try:
        turns = read_messages(messages)
    except RunError as error:
        refused = error
    assert refused is None or (refused.code, refused.parameter) == ("template", "messages")
    for provider in PROVIDERS.values():
        for own in (True, False):
            to_json(provider.body(Chat("m", turns, own=own)))


#: Texts that look like what stands around them, or break JSON where they are cut out wrongly.
PIECES = st.text(max_size=6) | st.sampled_from(
    ["id", '"', '":"', "\\", '\\"', "another text", "", "content", '"}}]}', "é", "\u2028", "🌍"]
)


@st.composite
def answers(draw: st.DrawFn) -> list[bytes]:
    """Draw the events of an answer as servers write them, with some that differ a little."""
    ascii_only = draw(st.booleans())
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    padded = draw(st.booleans())
    written = []
    for text in draw(st.lists(PIECES, max_size=12)):
        event: dict[str, Any] = {
            "id": draw(st.sampled_from(["x", "x", text])),
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
        }
        if padded:
            event["obfuscation"] = text[::-1]
        odd = draw(st.integers(0, 9))
        if odd == 0:
            event["choices"][0]["finish_reason"] = "stop"
        elif odd == 1:
            event["choices"][0]["delta"]["refusal"] = text
        elif odd == 2:
            event["usage"] = {"prompt_tokens": 3, "completion_tokens": len(text)}
        elif odd == 3:
            event["error"] = {"message": text}
        data = json.dumps(event, ensure_ascii=ascii_only, separators=separators)
        written.append(data.encode("utf-8", "replace")[odd == 4 :])
    return written


@settings(max_examples=600, deadline=None)
@given(answers())
def test_learnt_form_of_the_events_changes_nothing(events: list[bytes]) -> None:
    """An answer whose form is learnt gives the items, the error and the message that each event read wholly gives."""
    told = []
    for learners in (4, 0):
        reader = PROVIDERS["openai"].reader("x.example", 40)
        decoder = AnswerDecoder(reader, "skip", 1 << 20)
        decoder.learners = learners
        items = decoder.feed(b"".join(b"data: %b\n\n" % each for each in events))
        told.append((items, repr(decoder.failure), decoder.skipped, reader.reply.view))
    assert told[0] == told[1]


#: What stands where the text should: texts, other values, and parts that make texts only if read across events.
PLACED = [
    *['"a"', '""', '"\u00e9"', '"a\\""', "1", "", " ", '"\\ud83d"', '"\\ude00"'],
    *['"a\\"', '","b"', '"a","b"', '["a"', '"b"]', '"a', 'b"'],
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PLACED), min_size=1, max_size=9))
def test_events_that_are_read_together_are_read_apart(placed: list[str]) -> None:
    """Several events whose texts are parsed at once give what each gives alone, whatever stands in place of a text."""
    event = 'data: {"choices": [{"delta": {"content": %s}}]}\n\n'
    told = []
    for learners in (4, 0):
        decoder = AnswerDecoder(PROVIDERS["openai"].reader("x.example", 12), "skip", 1 << 20)
        decoder.learners = learners
        items = decoder.feed((event % '"x"').encode())
        items += decoder.feed("".join(event % each for each in placed).encode()) + decoder.finish()
        told.append((items, repr(decoder.failure), decoder.skipped))
    assert told[0] == told[1]


def test_form_of_the_events_is_learnt() -> None:
    """Once a piece of the text was read, others that are written alike are not read as a whole."""
    reader = PROVIDERS["openai"].reader("x.example", 1 << 20)
    decoder = AnswerDecoder(reader, "fail", 1 << 20)
    event = b'data: {"id": "x", "choices": [{"delta": {"content": "%b"}}]}\n\n'
    decoder.feed(event % b"Hel")
    reader.take = None  # type: ignore[method-assign,assignment]  # it is not asked again
    assert decoder.feed(event % b"lo" + event % b" \\u263a") == [
        {"type": "text", "text": "lo"},
        {"type": "text", "text": " ☺"},
    ]
    assert reader.reply.view["content"] == "Hello ☺"
