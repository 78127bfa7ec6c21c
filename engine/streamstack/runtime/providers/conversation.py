"""What authors and clients write as `messages`, read once for all providers.

A message may have the form of OpenAI (`tool_calls`, `tool_call_id`), of Anthropic (`tool_use` and `tool_result`),
of the AI SDK (`parts` of its UI messages, `tool-call` and `tool-result` of its model messages), or that of `llm.chat`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from streamstack.errors import RunError
from streamstack.language.names import did_you_mean
from streamstack.language.operators import a_kind
from streamstack.language.values import to_json, to_text
from streamstack.runtime.values import File

#: Who speaks. `developer` is OpenAI's newer word for `system`.
ROLES: Final = ("system", "developer", "user", "assistant", "tool")
_DATA: Final = "data:"
#: How pictures begin that every provider takes, and their media types.
_PICTURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)
PDF: Final = "application/pdf"
#: Media types of documents that are sent as text.
_TEXTS: Final = ("text/", "application/json", "application/xml", "application/yaml")
_THINKING: Final = ("thinking", "redacted_thinking")
#: Where OpenAI-compatible servers put what they need back beside a message.
_OPENAI_STATE: Final = ("reasoning_details", "thinking_blocks", "extra_content")
#: Parts that are for the reader of a page, not for a model (AI SDK).
_FOR_READERS: Final = frozenset({"step-start", "source-url", "source-document"})


@dataclass(frozen=True, slots=True)
class Attachment:
    """A picture or a PDF: where it is, or its bytes in base64 with their media type, or the file that holds them."""

    url: str | None = None
    data: str = ""
    media: str = ""
    file: File | None = None
    name: str = ""

    @property
    def is_document(self) -> bool:
        """Whether it is a PDF."""
        return self.media == PDF

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
    """One message.

    ``answers`` is the id of the call that a `tool` message answers, ``name`` that tool's, ``failed`` whether it failed.
    ``thoughts`` is reasoning that no provider signed. ``provider`` and ``blocks`` are what a provider needs back.
    """

    role: str
    parts: tuple[str | Attachment, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    answers: str = ""
    name: str = ""
    failed: bool = False
    thoughts: str = ""
    provider: str = ""
    blocks: tuple[Any, ...] = ()

    @property
    def text(self) -> str:
        """The text of it, without attachments."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        return tuple(part for part in self.parts if isinstance(part, Attachment))

    def state(self, provider: str) -> tuple[Any, ...]:
        """Return what the provider sent with this message and needs back; empty where another one did."""
        return self.blocks if self.provider == provider else ()


def read_messages(messages: Any) -> tuple[Turn, ...]:
    """Return the turns that `messages` holds: a list of messages, or a text, which is the user's.

    Raises RunError ``template`` for an invalid message.
    """
    if isinstance(messages, str):
        return (Turn("user", (messages,)),)
    if not isinstance(messages, (list, tuple)):
        raise _refuse(f"`messages` must be a list, not {a_kind(messages)}")
    if not messages:
        raise _refuse("`messages` is empty: there is nothing to answer")
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for number, message in enumerate(messages):
        for turn in _read_message(message, f"messages[{number}]"):
            names |= {call.id: call.name for call in turn.calls}
            turns.append(replace(turn, name=names.get(turn.answers, "")) if turn.answers else turn)
    return tuple(turns)


def read_system(system: Any) -> str | None:
    """Return the system prompt that a text or a list of text blocks is.

    Raises RunError ``template`` for anything else.
    """
    if system is None or isinstance(system, str):
        return system
    if not isinstance(system, (list, tuple)):
        raise _refuse(f"`system` must be a text or a list of text blocks, not {a_kind(system)}", "system")
    draft = _Draft("system")
    try:
        for number, part in enumerate(system):
            _read_part(draft, part, f"system[{number}]")
    except RunError as error:
        error.parameter = "system"
        raise
    return "\n\n".join(part for part in draft.parts if isinstance(part, str)) or None


async def load_attachments(turns: tuple[Turn, ...], largest: int) -> tuple[Turn, ...]:
    """Return the turns with the bytes of files in them, of which there may be ``largest`` in all.

    Raises RunError ``invalid-input`` for a file that is not a picture, or not a document, or too large.
    """
    loaded = []
    for turn in turns:
        parts: list[str | Attachment] = []
        for part in turn.parts:
            if isinstance(part, Attachment) and part.file is not None:
                largest -= part.file.size
                if largest < 0:
                    message = f"the file `{part.file.name}` is too large for a request to a model"
                    raise RunError("invalid-input", message, final=True)
                try:
                    read = _document_of if part.is_document else _image_of
                    part = read(  # noqa: PLW2901
                        await part.file.read(), part.file.content_type, f"the file `{part.file.name}`", part.file.name
                    )
                except RunError as error:  # whatever a definition does with a file, a client chose it
                    raise RunError("invalid-input", error.message, final=True) from error
            parts.append(part)
        loaded.append(replace(turn, parts=tuple(parts)))
    return tuple(loaded)


def attachments_apart(turns: tuple[Turn, ...]) -> Iterable[Turn]:
    """Yield the turns, with attachments that tools returned in a user's message: most APIs take a text from a tool."""
    waiting: list[Attachment] = []
    for turn in turns:
        if turn.role == "tool":
            waiting += turn.attachments
        elif waiting:
            yield Turn("user", tuple(waiting))
            waiting = []
        yield turn
    if waiting:
        yield Turn("user", tuple(waiting))


def read_arguments(text: str) -> Mapping[str, Any] | str:
    """Return the object that a tool call's JSON is; the text itself where it is none."""
    if not text.strip():
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, dict) else text


def _refuse(message: str, parameter: str = "messages") -> RunError:
    return RunError("template", message, final=True, parameter=parameter)


@dataclass(slots=True)
class _Draft:
    """The turns of a message while its parts are read.

    The parts of one message can be several turns: of the AI SDK, what an assistant said, the results of its calls, and
    what it said then; of Anthropic, results, and what the user says to them.
    """

    role: str
    turns: list[Turn] = field(default_factory=list)
    parts: list[str | Attachment] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Turn] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    blocks: list[Mapping[str, Any]] = field(default_factory=list)  # the same, as Anthropic wants it back

    def say(self, part: str | Attachment) -> None:
        if self.role == "assistant" and self.results:
            self.flush()
        self.parts.append(part)
        if isinstance(part, str):
            self.blocks.append({"type": "text", "text": part})

    def think(self, text: str, block: Mapping[str, Any] | None) -> None:
        """Add reasoning: as the block that Anthropic signed, or as its text."""
        if self.results:
            self.flush()
        if block is None:
            self.thoughts.append(text)
        else:
            self.blocks.append(block)

    def call(self, call: ToolCall) -> None:
        self.calls.append(call)
        self.blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": call.object})

    def answer(self, answers: str, parts: tuple[str | Attachment, ...], *, failed: bool = False) -> None:
        self.results.append(Turn("tool", parts, answers=answers, failed=failed))

    def flush(self, **more: Any) -> None:
        """End a turn."""
        if self.role != "assistant":
            self.turns += self.results
        if self.parts or self.calls or self.thoughts or more or not (self.results or self.turns):
            signed = any(block["type"] not in ("text", "tool_use") for block in self.blocks)
            state = {"provider": "anthropic", "blocks": tuple(self.blocks)} if signed else {}
            turn = Turn(self.role, tuple(self.parts), tuple(self.calls), thoughts="".join(self.thoughts))
            self.turns.append(replace(turn, **(state | more)))
        if self.role == "assistant":
            self.turns += self.results
        self.parts, self.calls, self.results, self.thoughts, self.blocks = [], [], [], [], []


def _read_message(message: Any, place: str) -> list[Turn]:
    if not isinstance(message, Mapping):
        raise _refuse(f"`{place}` must be an object with `role` and `content`, and is {a_kind(message)}")
    role = message.get("role")
    if role not in ROLES:
        said = f"is {role!r}{did_you_mean(role, ROLES)}" if isinstance(role, str) else "is missing"
        raise _refuse(f"`{place}.role` {said}: it is one of {', '.join(ROLES)}")
    key = "parts" if isinstance(message.get("parts"), (list, tuple)) else "content"
    content = message.get(key)
    answers = message.get("toolCallId", message.get("tool_call_id"))
    if role == "tool" and isinstance(answers, str) and answers:
        return [Turn(role, _result(content, f"{place}.content"), answers=answers)]
    draft = _Draft(role)
    if isinstance(content, Mapping):
        raise _refuse(f"`{place}.content` is an object: write `| toJson`, or a list of parts")
    if isinstance(content, (list, tuple)):
        for number, part in enumerate(content):
            _read_part(draft, part, f"{place}.{key}[{number}]")
    elif content not in (None, ""):
        draft.say(to_text(content))
    if role == "tool":
        if not draft.results or draft.parts:
            raise _refuse(f"`{place}` requires `toolCallId`: the `id` of the call that it answers")
        return draft.results
    calls = message.get("toolCalls", message.get("tool_calls"))
    for number, call in enumerate(calls if role == "assistant" and isinstance(calls, (list, tuple)) else ()):
        draft.call(_read_call(call, f"{place}.toolCalls[{number}]"))
    draft.flush(**_read_state(message))
    return draft.turns


def _read_state(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a provider needs back, of a message of `llm.chat` or of an OpenAI-compatible server."""
    state = message.get("providerState")
    if isinstance(state, Mapping) and isinstance(state.get("blocks"), Sequence):
        return {"provider": str(state.get("provider")), "blocks": tuple(state["blocks"])}
    more: dict[str, Any] = {}
    if thoughts := message.get("reasoning_content") or message.get("reasoning"):
        more["thoughts"] = thoughts if isinstance(thoughts, str) else ""
    beside = {name: message[name] for name in _OPENAI_STATE if message.get(name)}
    calls = message.get("tool_calls")
    extras = {
        call.get("id"): call["extra_content"]
        for call in (calls if isinstance(calls, (list, tuple)) else ())
        if isinstance(call, Mapping) and call.get("extra_content")
    }
    if extras:
        beside["calls"] = extras
    return {**more, "provider": "openai", "blocks": (beside,)} if beside else more


def _read_part(draft: _Draft, part: Any, place: str) -> None:
    if isinstance(part, str):
        draft.say(part)
        return
    what = part.get("type", "text") if isinstance(part, Mapping) else None
    if not isinstance(what, str):
        raise _no_part(place)
    if what in ("text", "input_text", "output_text", "refusal"):
        text = part.get("text", part.get("refusal"))
        if not isinstance(text, str):
            raise _no_part(place)
        if text:
            draft.say(text)
    elif what in ("image", "image_url", "input_image") or (what == "file" and _media(part).startswith("image/")):
        draft.say(_read_image(part, place))
    elif what in ("document", "file", "input_file"):
        draft.say(_read_document(part, place))
    elif what in _THINKING or what == "reasoning":
        _read_thinking(draft, part)
    elif "tool" in what and _read_tool(draft, part, what, place):
        return
    elif what == "step-start" and draft.results:
        draft.flush()
    elif what not in _FOR_READERS and not what.startswith("data-"):
        raise _no_part(place)


def _read_tool(draft: _Draft, part: Mapping[str, Any], what: str, place: str) -> bool:
    """Read a part about a tool call; tell whether it is one."""
    if what == "tool_use":
        draft.call(_make_call(part.get("id"), part.get("name"), part.get("input"), part, place))
    elif what in ("tool_result", "tool-result"):
        answers = part.get("tool_use_id", part.get("toolCallId"))
        if not isinstance(answers, str) or not answers:
            raise _refuse(f"`{place}` requires `tool_use_id`: the `id` of the call that it answers")
        raw = part.get("content", part.get("output", part.get("result")))
        failed = part.get("is_error") is True or part.get("isError") is True
        draft.answer(answers, _result(raw, f"{place}.content"), failed=failed)
    elif what == "tool-invocation" and isinstance(part.get("toolInvocation"), Mapping):
        _read_tool_part(draft, part["toolInvocation"], place)
    elif what.startswith(("tool-", "dynamic-tool")):
        _read_tool_part(draft, part, place)
    elif draft.role == "assistant":
        draft.blocks.append(part)  # of a tool that Anthropic runs itself
    else:
        return False
    return True


def _no_part(place: str) -> RunError:
    return _refuse(
        f"`{place}` is not a message part: write {{type: text, text: ...}}, {{type: image, url: ...}}, "
        "{type: image, from: ...} or {type: document, from: ...}"
    )


def _read_thinking(draft: _Draft, part: Mapping[str, Any]) -> None:
    """Read reasoning: a block of Anthropic's, or a part of the AI SDK with what Anthropic signed beside it."""
    text = part.get("thinking", part.get("text"))
    text = text if isinstance(text, str) else ""
    if part["type"] == "redacted_thinking" or part.get("signature"):
        draft.think(text, part)
        return
    signed = _beside(part, "anthropic")
    if signed.get("redactedData"):
        draft.think("", {"type": "redacted_thinking", "data": signed["redactedData"]})
    elif signed.get("signature"):
        draft.think(text, {"type": "thinking", "thinking": text, "signature": signed["signature"]})
    else:
        draft.think(text, None)


def _beside(part: Mapping[str, Any], provider: str) -> Mapping[str, Any]:
    """Return what a provider put beside a part of the AI SDK."""
    for name in ("providerMetadata", "callProviderMetadata", "providerOptions"):
        about = part.get(name)
        if isinstance(about, Mapping) and isinstance(about.get(provider), Mapping):
            found: Mapping[str, Any] = about[provider]
            return found
    return {}


def _read_tool_part(draft: _Draft, part: Mapping[str, Any], place: str) -> None:
    """Read a call of the AI SDK, which has its result beside it in UI messages."""
    what = str(part.get("type", ""))
    name = part.get("toolName") or what.removeprefix("tool-")
    state = part.get("state")
    if state in ("input-streaming", "partial-call"):
        return  # the page was left while the model wrote it
    raw = part.get("input", part.get("args"))
    call = _make_call(part.get("toolCallId"), name, raw, part, place)
    draft.call(call)
    if state == "output-error":
        draft.answer(call.id, (to_text(part.get("errorText")),), failed=True)
    elif "output" in part or "result" in part:
        draft.answer(call.id, _result(part.get("output", part.get("result")), place))


def _result(content: Any, place: str) -> tuple[str | Attachment, ...]:
    """Return what a tool gave: a text, or the parts of a list; JSON for anything else."""
    if isinstance(content, Mapping) and content.get("type") in ("text", "json", "error-text", "error-json", "content"):
        content = content.get("value")  # as the AI SDK wraps it
    if isinstance(content, str):
        return (content,)
    if isinstance(content, (list, tuple)) and content:
        kinds = [each.get("type", "text") if isinstance(each, Mapping) else "" for each in content]
        if all(
            what in ("image", "image_url", "document") or (what == "text" and isinstance(each.get("text"), str))
            for what, each in zip(kinds, content, strict=True)
        ):
            read: Mapping[str, Callable[[Mapping[str, Any], str], str | Attachment]] = {
                "text": lambda each, _: str(each["text"]),
                "document": _read_document,
            }
            return tuple(read.get(what, _read_image)(each, place) for what, each in zip(kinds, content, strict=True))
    return (to_json(content).decode(),)


def _media(part: Mapping[str, Any]) -> str:
    media = part.get("contentType", part.get("mediaType", part.get("mimeType")))
    return media if isinstance(media, str) else ""


def _read_image(part: Mapping[str, Any], place: str) -> Attachment:
    if "from" in part:
        return _image_from(part["from"], _media(part), place)
    source = part.get("source")
    if isinstance(source, Mapping):  # as Anthropic writes it
        part = {"url": source.get("url"), "data": source.get("data"), "contentType": source.get("media_type")}
    address = part.get("url", part.get("image_url"))
    if isinstance(address, Mapping):  # as OpenAI writes it
        address = address.get("url")
    if isinstance(address, str):
        return _image_at(address)
    data = part.get("data", part.get("image"))
    if isinstance(data, str) and data.startswith(("http://", "https://", _DATA)):
        return _image_at(data)
    if isinstance(data, str) and _media(part):
        return Attachment(data=data, media=_media(part))
    if isinstance(data, bytes):
        return _image_of(data, _media(part), f"`{place}`")
    raise _refuse(f"`{place}` needs `url`, `from` with a file, or `data` and `contentType`")


def _image_from(source: Any, media: str, place: str) -> Attachment:
    if isinstance(source, File):
        return Attachment(file=source)
    if isinstance(source, bytes):
        return _image_of(source, media, f"`{place}.from`")
    if isinstance(source, str):
        return _image_at(source)
    raise _refuse(f"`{place}.from` is {a_kind(source)}: it is a file, bytes or a URL")


def _image_of(data: bytes, media: str, name: str, file_name: str = "") -> Attachment:
    """Return the picture that bytes are: of the type that they begin like, else of the one that is declared."""
    known = next((known for begin, known in _PICTURES if data.startswith(begin)), "")
    if known == "image/webp" and data[8:12] != b"WEBP":
        known = ""
    media = known or media
    if not media.startswith("image/"):
        raise _refuse(f"{name} is not a picture: PNG, JPEG, GIF and WebP are understood")
    return Attachment(data=base64.b64encode(data).decode(), media=media, name=file_name)


def _image_at(address: str) -> Attachment:
    head, comma, data = address.partition(",")
    if head.startswith(_DATA) and comma and head.endswith(";base64"):
        return Attachment(data=data, media=head[len(_DATA) : -len(";base64")])
    return Attachment(url=address)


def _read_document(part: Mapping[str, Any], place: str) -> str | Attachment:
    """Return a PDF, or the text that another document is."""
    source, file = part.get("source"), part.get("file")
    if isinstance(source, Mapping):  # as Anthropic writes it
        if source.get("type") == "text" and isinstance(source.get("data"), str):
            return str(source["data"])
        part = {"filename": part.get("title"), "mediaType": source.get("media_type"), **source}
    elif isinstance(file, Mapping):  # as OpenAI's Chat Completions write it
        part = file
    named = part.get("filename", part.get("name"))
    name = named if isinstance(named, str) else ""
    found = (part[key] for key in ("from", "url", "file_url", "file_data", "data") if part.get(key) is not None)
    data = next(found, None)
    if isinstance(data, File):
        return Attachment(file=data, media=PDF)
    if isinstance(data, str) and data.startswith(("http://", "https://")):
        return Attachment(url=data, media=PDF, name=name)
    media = _media(part)
    if isinstance(data, str) and data.startswith(_DATA):
        head, _, data = data.partition(",")
        media = head[len(_DATA) :].partition(";")[0]
    if isinstance(data, str):
        try:
            data = base64.b64decode(data, validate=True)
        except ValueError:
            raise _refuse(f"`{place}` holds data that is not base64") from None
    if isinstance(data, bytes):
        return _document_of(data, media, f"`{place}`", name)
    raise _refuse(f"`{place}` needs `url`, `from` with a file, or `data` and `contentType`")


def _document_of(data: bytes, media: str, name: str, file_name: str = "") -> str | Attachment:
    """Return the PDF that bytes are, or their text where it is declared."""
    if data.startswith(b"%PDF-"):
        return Attachment(data=base64.b64encode(data).decode(), media=PDF, name=file_name)
    if media.startswith(_TEXTS):
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise _refuse(f"{name} is not UTF-8") from None
    raise _refuse(f"{name} is not a document that models read: PDF and text are understood")


def _read_call(call: Any, place: str) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    named = function if isinstance(function, Mapping) else call
    if not isinstance(named, Mapping):
        raise _no_call(place)
    return _make_call(call.get("id"), named.get("name"), named.get("arguments"), call, place)


def _make_call(id_: Any, name: Any, arguments: Any, about: Mapping[str, Any], place: str) -> ToolCall:
    """Return a call; ``about`` is where a signature of Gemini's may stand."""
    if not isinstance(name, str) or not name or not isinstance(arguments, (str, Mapping, type(None))):
        raise _no_call(place)
    extra = about.get("extra_content")
    google = extra.get("google") if isinstance(extra, Mapping) else None
    found = google.get("thought_signature") if isinstance(google, Mapping) else None
    signature = about.get("signature") or found or _beside(about, "google").get("thoughtSignature")
    return ToolCall(
        to_text(id_),
        name,
        read_arguments(arguments) if isinstance(arguments, str) else dict(arguments or {}),
        signature if isinstance(signature, str) else None,
    )


def _no_call(place: str) -> RunError:
    return _refuse(f"`{place}` is not a tool call: it has `id`, `name` and `arguments`")
