"""What authors write as `messages`, read once for all providers."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from streamstack.errors import RunError
from streamstack.language.suggest import did_you_mean
from streamstack.language.values import kind, to_json, to_text

#: Who speaks. `developer` is OpenAI's newer word for `system`.
ROLES: Final = ("system", "developer", "user", "assistant", "tool")
_DATA: Final = "data:"


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: where it is, or its bytes in base64 with their media type."""

    url: str | None = None
    data: str = ""
    media: str = ""

    @property
    def address(self) -> str:
        """Where it is, as a `data:` URL where its bytes are at hand."""
        return self.url or f"{_DATA}{self.media};base64,{self.data}"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model called. Its arguments are a text where the model wrote no JSON object."""

    id: str
    name: str
    arguments: Mapping[str, Any] | str
    signature: str | None = None

    @property
    def json(self) -> str:
        """The arguments as a text."""
        return self.arguments if isinstance(self.arguments, str) else to_json(dict(self.arguments)).decode()

    @property
    def object(self) -> Mapping[str, Any]:
        """The arguments as an object; what is none is put into one."""
        if isinstance(self.arguments, str):
            return {"invalid": self.arguments} if self.arguments.strip() else {}
        return self.arguments


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. ``answers`` is the id of the call that a `tool` message answers, ``name`` that tool's.

    ``reasoning`` is what a provider wants back as it gave it, with that provider's name.
    """

    role: str
    parts: tuple[str | Image, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    answers: str = ""
    name: str = ""
    reasoning: tuple[str, tuple[Any, ...]] = ("", ())

    @property
    def text(self) -> str:
        """The text of it, without pictures."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def has_images(self) -> bool:
        return any(isinstance(part, Image) for part in self.parts)


def read_messages(messages: Any) -> tuple[Turn, ...]:
    """Return the turns that `messages` holds: a list of messages, or a text, which is the user's.

    Raises RunError ``template`` for what is no message.
    """
    if isinstance(messages, str):
        return (Turn("user", (messages,)),)
    if not isinstance(messages, (list, tuple)):
        raise _refuse(f"`messages` must be a list, not {_a(messages)}")
    if not messages:
        raise _refuse("`messages` is empty: there is nothing to answer")
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for number, message in enumerate(messages):
        turn = _read_message(message, f"messages[{number}]", names)
        names |= {call.id: call.name for call in turn.calls}
        turns.append(turn)
    return tuple(turns)


def _refuse(message: str) -> RunError:
    return RunError("template", message, final=True, parameter="messages")


def _a(value: Any) -> str:
    name = kind(value)
    return name if name == "null" else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _read_message(message: Any, place: str, names: Mapping[str, str]) -> Turn:
    if not isinstance(message, Mapping):
        raise _refuse(f"`{place}` must be an object with `role` and `content`, and is {_a(message)}")
    role = message.get("role")
    if role not in ROLES:
        said = f"is {role!r}{did_you_mean(role, ROLES)}" if isinstance(role, str) else "is missing"
        raise _refuse(f"`{place}.role` {said}: it is one of {', '.join(ROLES)}")
    content = message.get("content")
    if role == "tool":
        answers = message.get("toolCallId", message.get("tool_call_id"))
        if not isinstance(answers, str) or not answers:
            raise _refuse(f"`{place}` requires `toolCallId`: the `id` of the call that it answers")
        text = content if isinstance(content, str) else _result(content)
        return Turn(role, (text,), answers=answers, name=names.get(answers, ""))
    calls = message.get("toolCalls", message.get("tool_calls")) if role == "assistant" else None
    return Turn(
        role,
        _read_parts(content, f"{place}.content"),
        tuple(
            _read_call(call, f"{place}.toolCalls[{number}]")
            for number, call in enumerate(calls if isinstance(calls, (list, tuple)) else ())
        ),
        reasoning=_read_reasoning(message.get("reasoning")),
    )


def _result(content: Any) -> str:
    """Return what a tool gave as a text: JSON, but for a list of text parts."""
    if isinstance(content, (list, tuple)) and content:
        texts = [each.get("text") for each in content if isinstance(each, Mapping)]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
    return to_json(content).decode()


def _read_parts(content: Any, place: str) -> tuple[str | Image, ...]:
    if content is None or content == "":
        return ()
    if not isinstance(content, (list, tuple)):
        if isinstance(content, Mapping):
            raise _refuse(f"`{place}` is an object: write `| toJson`, or a list of parts")
        return (to_text(content),)
    return tuple(_read_part(part, f"{place}[{number}]") for number, part in enumerate(content))


def _read_part(part: Any, place: str) -> str | Image:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        what = part.get("type", "text")
        if what in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
            return str(part["text"])
        if what == "image_url":  # as the OpenAI clients write it
            address = part.get("image_url")
            address = address.get("url") if isinstance(address, Mapping) else address
            if isinstance(address, str):
                return _image_at(address)
        if what == "image":
            return _read_image(part, place)
    raise _refuse(
        f"`{place}` is not a message part: write {{type: text, text: ...}}, {{type: image, url: ...}} or "
        "{type: image, data: ..., contentType: image/png}"
    )


def _read_image(part: Mapping[str, Any], place: str) -> Image:
    address, data, media = part.get("url"), part.get("data"), part.get("contentType")
    if isinstance(address, str):
        return _image_at(address)
    if isinstance(data, bytes):
        data = base64.b64encode(data).decode()
    if isinstance(data, str) and isinstance(media, str):
        return Image(data=data, media=media)
    raise _refuse(f"`{place}` needs `url`, or `data` and `contentType`")


def _image_at(address: str) -> Image:
    head, comma, data = address.partition(",")
    if head.startswith(_DATA) and comma and head.endswith(";base64"):
        return Image(data=data, media=head[len(_DATA) : -len(";base64")])
    return Image(url=address)


def _read_call(call: Any, place: str) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    named = function if isinstance(function, Mapping) else call
    if not isinstance(named, Mapping) or not isinstance(named.get("name"), str):
        raise _refuse(f"`{place}` is not a tool call: it has `id`, `name` and `arguments`")
    arguments = named.get("arguments")
    signature = call.get("signature")
    return ToolCall(
        to_text(call.get("id")),
        str(named["name"]),
        read_arguments(arguments) if isinstance(arguments, str) else dict(arguments or {}),
        signature if isinstance(signature, str) else None,
    )


def read_arguments(text: str) -> Mapping[str, Any] | str:
    """Return the object that a tool call's JSON is; the text itself where it is none."""
    if not text.strip():
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, dict) else text


def _read_reasoning(value: Any) -> tuple[str, tuple[Any, ...]]:
    if isinstance(value, Mapping) and isinstance(value.get("blocks"), Sequence):
        return str(value.get("provider")), tuple(value["blocks"])
    return "", ()
