"""What the dialects of model providers have in common: an answer in blocks of text, reasoning and tool calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import orjson

from streamstack.errors import RunError
from streamstack.formats.items import STOP, TOOL_CALLS, Item, add_usage, refuse
from streamstack.formats.spec import Encoder, EncoderOptions, ResponseContext
from streamstack.language.values import to_json


@dataclass(frozen=True, slots=True)
class DialectRequest:
    """What the body of a request asks for, beside the inputs that an endpoint declares.

    ``continued`` is the id of the assistant's message that the answer goes on with (aiSdk).
    """

    stream: bool = False
    model: str = ""
    usage: bool = False  # OpenAI's `stream_options.include_usage`
    continued: str = ""


def read_dialect_request(body: bytes) -> DialectRequest:
    """Read it from a body; a body that is not a JSON object tells nothing."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return DialectRequest()
    if not isinstance(document, dict):
        return DialectRequest()
    model, options = document.get("model"), document.get("stream_options")
    return DialectRequest(
        stream=document.get("stream") is True,
        model=model if isinstance(model, str) else "",
        usage=isinstance(options, dict) and options.get("include_usage") is True,
        continued=_continued(document.get("messages")),
    )


#: The types of what a dialect reads of a request, and what each is called.
_KINDS: Final = {"boolean": (bool, "true or false"), "string": (str, "a text"), "object": (dict, "an object")}


def find_request_faults(body: bytes, reads: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is of another type than a dialect reads, by name; null is as if it was not sent.

    Args:
        body: The body of the request. A body that is not a JSON object has no faults.
        reads: The schemas of the properties that the dialect reads.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    return list(_find_faults(document, reads, "")) if isinstance(document, dict) else []


def _find_faults(document: Mapping[str, Any], reads: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, schema in reads.items():
        value = document.get(name)
        type_, described = _KINDS[schema["type"][0]]
        if value is not None and not isinstance(value, type_):
            yield f"{prefix}{name}", f"must be {described}"
        elif isinstance(value, dict):
            yield from _find_faults(value, schema["properties"], f"{prefix}{name}.")


def _continued(messages: Any) -> str:
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return ""
    name = last.get("id")
    return name if isinstance(name, str) else ""


class DialectBlock(NamedTuple):
    """A run of text or of reasoning, or a tool call, which alone has a name. ``number`` counts them all, from 0.

    ``signature`` is what the provider signed reasoning or a call with; ``redacted`` reasoning that it encrypted.
    """

    number: int
    reasoning: bool = False
    call: int = 0  # which of the calls, from 0
    index: Any = None  # what identifies its items
    id: str = ""
    name: str = ""
    spoken: bool = False  # it has arguments
    complete: bool = False  # nothing can follow: the arguments came as an object, or the reasoning is signed
    signature: str = ""
    redacted: str = ""


class DialectState(NamedTuple):
    """How far an answer is. It is replaced, not changed: a chunk that can't be sent gives it back."""

    started: bool = False
    block: DialectBlock | None = None
    blocks: int = 0
    ids: tuple[str, ...] = ()  # of the calls


@dataclass(frozen=True, slots=True)
class BlockText:
    """A block and the pieces of its text or arguments."""

    block: DialectBlock
    pieces: list[str]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class DialectEncoder(Encoder):
    """Encodes an answer as a provider's own API does: as a stream of events, or as one object.

    Content is text, or an item of a model's answer (`formats.items`); RunError ``not-in-dialect`` for anything else. A
    chunk's event, id and metadata have no place in it. Usage and the reason are sent at the end, whenever they come.
    The end itself is encoded when the run has ended, even after `done`: what fails before that must not look like a
    success.
    """

    #: The name of the format.
    dialect: ClassVar[str]
    #: Whether one object answers unless the request's body says `stream: true`.
    whole_by_default: ClassVar[bool] = False
    #: Whether the end of a call needs its arguments.
    buffers_arguments: ClassVar[bool] = False
    #: A heartbeat.
    pulse: ClassVar[bytes] = b":\n"

    __slots__ = (
        "_after",
        "_before",
        "_blocks",
        "_metadata",
        "_noted",
        "_reason",
        "_signatures",
        "_state",
        "_undo",
        "_usage",
        "requested",
        "whole",
    )

    def __init__(self, options: EncoderOptions, response: ResponseContext) -> None:
        super().__init__(options, response)
        self.requested = read_dialect_request(response.body)
        self.whole = self.whole_by_default and not self.requested.stream
        self._before = b""  # what stands around the JSON of a piece of text
        self._after = b""
        self._state = DialectState()
        self._blocks: list[BlockText] = []  # all blocks of a whole answer, else the call that is open
        self._undo = self._now()
        self._noted = False  # the last chunk was kept
        self._reason: str | None = None
        self._usage: Item | None = None
        self._metadata: Any = None
        self._signatures: dict[int, str] = {}  # of reasoning, by the block's number

    # ------------------------------------------------------------- what a dialect fills in

    @abstractmethod
    def start(self) -> bytes:
        """Return what stands before the first block."""

    @abstractmethod
    def open_block(self, block: DialectBlock) -> bytes:
        """Return the beginning of a block. Sets what stands around pieces of its text or reasoning."""

    @abstractmethod
    def arguments(self, block: DialectBlock, text: str) -> bytes:
        """Return a piece of a call's arguments."""

    @abstractmethod
    def close_block(self, block: DialectBlock) -> bytes:
        """Return the end of a block."""

    @abstractmethod
    def finish(self) -> bytes:
        """Return what stands after the last block."""

    def document(self) -> dict[str, Any]:
        """Return the whole answer as one object; only of dialects that are whole by default."""
        raise AssertionError(f"{type(self).__name__} answers as a stream only")

    # ------------------------------------------------------------- what it is made of

    @property
    def model(self) -> str:
        """The model that was asked for: the endpoint speaks for it."""
        return self.requested.model or "streamstack"

    @property
    def reason(self) -> str:
        """Why the answer ended; where no item tells, what the last block was."""
        if self._reason is not None:
            return self._reason
        block = self._state.block
        return TOOL_CALLS if block is not None and block.name else STOP

    def signature_of(self, block: DialectBlock) -> str:
        """Return what reasoning that was kept is signed with."""
        return self._signatures.get(block.number, "")

    def text_of_block(self, block: DialectBlock) -> str:
        """Return the text or the arguments of a block that was kept."""
        return next((each.text for each in self._blocks if each.block.number == block.number), "")

    # ------------------------------------------------------------- the way of a chunk

    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        self._noted = False
        text = content
        if type(content) is dict and content.get("type") == "text":
            text = content.get("text")
        if type(text) is not str:
            return self._item(content)
        data = to_json(text)
        before = self._state
        self._undo = self._now()
        block = before.block
        opening = b""
        if block is None or block.name or block.reasoning:
            opening = self._begin(DialectBlock(before.blocks))
        if self.whole:
            self._note(text)
            return b""
        return b"%b%b%b%b" % (opening, self._before, data, self._after)

    def _now(self) -> tuple[DialectState, list[BlockText], bytes, bytes]:
        """Return what a chunk changes, to restore it if the chunk is not sent."""
        return self._state, self._blocks, self._before, self._after

    def undo(self) -> None:
        if self._noted:
            self._noted = False
            last = self._blocks[-1]
            self.held -= len(to_json(last.pieces.pop())) - 2
            if not last.pieces:
                self._blocks.pop()
        self._state, self._blocks, self._before, self._after = self._undo

    def _begin(self, block: DialectBlock) -> bytes:
        """Go on with another block; return the events that announce it."""
        state = self._state
        ids = (*state.ids, block.id) if block.name else state.ids
        self._state = DialectState(started=True, block=block, blocks=state.blocks + 1, ids=ids)
        if self.whole:
            return b""
        opening = b"" if state.started else self.start()
        if state.block is not None:
            opening += self.close_block(state.block)
        return opening + self.open_block(block)

    def _note(self, text: str) -> None:
        block = self._state.block
        assert block is not None
        if not self._blocks or self._blocks[-1].block.number != block.number:
            if not self.whole:
                self._blocks = []  # another list: the last chunk may be taken back
            self._blocks.append(BlockText(block, []))
        self._blocks[-1].pieces.append(text)
        self._noted = True
        self.held += len(to_json(text)) - 2

    def _item(self, content: Any) -> bytes:
        """Take what is not a plain text."""
        fault = refuse(content)
        if fault is not None:
            raise RunError(
                "not-in-dialect",
                f"the content {fault} (`format: {self.dialect}` carries text and the items of `llm.chat`)",
            )
        if isinstance(content, str):
            return self.chunk(str(content), None, None, None, 0)
        item = content["type"]
        if item == "text":
            return self.chunk(str(content["text"]), None, None, None, 0)
        self._undo = self._now()
        if item == "toolCall":
            return self._call(content)
        if item == "reasoning":
            return self._think(content)
        if item == "usage":
            self._usage = add_usage(self._usage, content)
        else:
            self._reason = content["reason"]
        return b""

    def _think(self, item: Mapping[str, Any]) -> bytes:
        """Take a piece of the reasoning, the signature that ends it, or reasoning that is encrypted."""
        text, signature, redacted = (item.get(name) or "" for name in ("text", "signature", "redacted"))
        block = self._state.block
        data = b""
        if block is None or not block.reasoning or block.complete or redacted:
            block = DialectBlock(self._state.blocks, reasoning=True, redacted=redacted, complete=bool(redacted))
            data = self._begin(block)
        if signature:
            self._signatures[block.number] = signature
            self._state = self._state._replace(block=block._replace(signature=signature, complete=True))
        if self.whole:
            self._note(text)
            return b""
        return b"%b%b%b%b" % (data, self._before, to_json(text), self._after) if text else data

    def _call(self, item: Mapping[str, Any]) -> bytes:
        value = item.get("arguments")
        complete = isinstance(value, Mapping)
        text = to_json(value).decode() if complete else value or ""
        block = self._state.block
        data = b""
        if block is None or not _goes_on(block, item):
            block = self._new_call(item)
            data = self._begin(block)
        if text:
            self._state = self._state._replace(block=block._replace(spoken=True, complete=complete))
        if text and not self.whole:
            data += self.arguments(block, text)
        if self.whole or (data and self.buffers_arguments):
            self._note(text)
        return data

    def _new_call(self, item: Mapping[str, Any]) -> DialectBlock:
        state = self._state
        name, value = item.get("name"), item.get("id")
        if not name:
            raise RunError("not-in-dialect", "the first item of a tool call lacks the call's `name`")
        if value in state.ids:
            raise RunError(
                "not-in-dialect",
                f"the tool call {value} goes on after something else began: the items of one call follow one another",
            )
        number = len(state.ids)
        call_id = value or f"call_{self.response.run[:16]}_{number}"
        return DialectBlock(
            state.blocks,
            call=number,
            index=item.get("index"),
            id=call_id,
            name=name,
            signature=item.get("signature") or "",
        )

    # ------------------------------------------------------------- silences and ends

    def heartbeat(self) -> bytes:
        return b"" if self.whole else self.pulse

    def done(self, content: Any, metadata: Any, summary: Mapping[str, Any], number: int) -> bytes:
        self._metadata = metadata
        return b""

    def end(self, summary: Mapping[str, Any], number: int, *, marked: bool) -> bytes:
        if self.whole:
            return to_json(self.document())
        # `streaming.done: false` does not leave it out: without it SDKs take the answer for lost.
        state = self._state
        ending = b"" if state.started else self.start()
        if state.block is not None:
            ending += self.close_block(state.block)
        return ending + self.finish()


def _goes_on(block: DialectBlock, item: Mapping[str, Any]) -> bool:
    """Tell whether an item belongs to the tool call that is open."""
    return (
        bool(block.name)
        and not block.complete
        and item.get("id") in (None, "", block.id)
        and item.get("index") in (None, block.index)
        and item.get("name") in (None, "", block.name)
    )


def fault_of(error: RunError, fields: Mapping[str, Any]) -> str:
    """Return an error in one text: of invalid inputs, every fault."""
    if error.code == "invalid-input" and isinstance(error.details, list):
        return "; ".join(f"{each['name'] or 'the ' + each['in']} {each['message']}" for each in error.details)
    return str(fields["message"])
