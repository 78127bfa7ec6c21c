"""What the dialects of model providers have in common: an answer in blocks, of text and of calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from streamstack.errors import RunError
from streamstack.language.dialects import refuse
from streamstack.language.values import MISSING, to_json
from streamstack.runtime.chunk import check_content, check_open
from streamstack.runtime.messages import STOP, TOOL_CALLS, Item, add_usage
from streamstack.server.bodies import BODY
from streamstack.server.heads import BODILESS
from streamstack.server.replies import Sent, send
from streamstack.server.request import Request
from streamstack.server.wire import LARGEST_DOCUMENT, Wire
from streamstack.server.writers.asked import Asked, read_asked
from streamstack.server.writers.stream import StreamSink


class Block(NamedTuple):
    """A run of text, or a tool call, which alone has a name. ``number`` counts both, from 0."""

    number: int
    call: int = 0  # which of the calls, from 0
    index: Any = None  # what its items are told by
    id: str = ""
    name: str = ""
    spoken: bool = False  # it has arguments
    whole: bool = False  # they came as an object: nothing can follow


class State(NamedTuple):
    """How far an answer is. It is replaced, not changed: a chunk that can't be sent gives it back."""

    started: bool = False
    block: Block | None = None
    blocks: int = 0
    ids: tuple[str, ...] = ()  # of the calls


@dataclass(frozen=True, slots=True)
class Kept:
    """A block and the pieces of its text or arguments."""

    block: Block
    pieces: list[str]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class DialectSink(StreamSink):
    """Writes an answer as a provider's own API does: as a stream of events, or as one object.

    Content is text, or an item of a model's answer (`runtime.messages`); RunError
    ``not-in-dialect`` for anything else. A chunk's event, id and metadata have no place in it.
    Usage and the reason are told at the end, whenever they come. The end itself is written when the
    run has ended, even after `done`: what fails before that must not look like a success.
    """

    #: The name of the format.
    dialect: ClassVar[str]
    #: Whether one object answers unless the request's body says `stream: true`.
    gives_whole: ClassVar[bool] = False
    #: Whether the end of a call needs its arguments.
    keeps_arguments: ClassVar[bool] = False
    #: A heartbeat.
    pulse: ClassVar[bytes] = b":\n"
    #: The header that the SDK takes the id of the request from; none if empty.
    id_header: ClassVar[bytes] = b""

    __slots__ = (
        "_after",
        "_asked",
        "_before",
        "_kept",
        "_metadata",
        "_reason",
        "_state",
        "_usage",
        "_whole",
    )

    def __init__(self, wire: Wire, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self._asked: Asked | None = None
        self._whole = False
        self._state = State()
        self._before = b""  # what stands around the JSON of a piece of text
        self._after = b""
        self._kept: list[Kept] = []  # all blocks of a whole answer, else the call that is open
        self._reason: str | None = None
        self._usage: Item | None = None
        self._metadata: Any = None

    # ------------------------------------------------------------- what a dialect fills in

    @abstractmethod
    def start(self) -> bytes:
        """Return what stands before the first block."""

    @abstractmethod
    def open_block(self, block: Block) -> bytes:
        """Return the beginning of a block. Sets what stands around pieces of its text."""

    @abstractmethod
    def arguments(self, block: Block, text: str) -> bytes:
        """Return a piece of a call's arguments."""

    @abstractmethod
    def close_block(self, block: Block) -> bytes:
        """Return the end of a block."""

    @abstractmethod
    def end(self) -> bytes:
        """Return what stands after the last block."""

    def document(self) -> dict[str, Any]:
        """Return the whole answer as one object; only of dialects that `asked` lets answer whole."""
        raise AssertionError(f"{type(self).__name__} answers as a stream only")

    def refusal(self, error: RunError) -> dict[str, Any] | None:
        """Return an error before the commit point; None where it is a problem document."""
        return None

    # ------------------------------------------------------------- what it is made of

    def ask(self) -> Asked:
        """Return what the request asks for; known once its inputs have been read."""
        asked = self._asked
        if asked is None:
            asked = self._asked = read_asked(self.request.get(BODY, b""))
            if self.id_header:
                self.cors += b"%b: %b\r\n" % (self.id_header, self.run.id.encode())
            self._whole = self.gives_whole and not asked.stream
            if self._whole:
                wire = self.wire
                own = tuple(each for each in wire.headers if each[0].lower() != "content-type")
                self.wire = replace(wire, format="json", headers=own, learnt={})
        return asked

    @property
    def model(self) -> str:
        """The model that was asked for: the endpoint speaks for it."""
        return self.ask().model or "streamstack"

    @property
    def reason(self) -> str:
        """Why the answer ended; where no item tells, what the last block was."""
        if self._reason is not None:
            return self._reason
        block = self._state.block
        return TOOL_CALLS if block is not None and block.name else STOP

    def kept_text(self, block: Block) -> str:
        """Return the text or the arguments of a block that was kept."""
        return next((each.text for each in self._kept if each.block.number == block.number), "")

    # ------------------------------------------------------------- the way of a chunk

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        if self.ended:
            check_open(self)
        text = content
        if type(content) is dict and content.get("type") == "text":
            text = content.get("text")
        if type(text) is not str:
            return self._emit_item(content)
        before = self._state
        block = before.block
        opening = b""
        if block is None or block.name:
            opening = self._begin(Block(before.blocks))
        if self._whole:
            return self._keep(text, before)
        return self._push(b"%b%b%b%b" % (opening, self._before, to_json(text), self._after), before)

    def _begin(self, block: Block) -> bytes:
        """Go on with another block; return what tells of it."""
        self.ask()
        state = self._state
        ids = (*state.ids, block.id) if block.name else state.ids
        self._state = State(started=True, block=block, blocks=state.blocks + 1, ids=ids)
        if self._whole:
            return b""
        opening = b"" if state.started else self.start()
        if state.block is not None:
            opening += self.close_block(state.block)
        return opening + self.open_block(block)

    def _push(self, data: bytes, before: State) -> bool:
        """Take a chunk as it is sent; ``before`` is how far the answer was without it."""
        self._parts.append(data)
        self.count += 1
        self.bytes = total = self.bytes + len(data)
        if total >= self._limit:
            try:
                return self._settle()
            except RunError:
                self._state = before
                raise
        return False

    def _keep(self, text: str, before: State) -> bool:
        """Take a chunk of an answer that is given whole."""
        total = self.bytes + len(to_json(text)) - 2
        largest = self.wire.max_bytes or LARGEST_DOCUMENT
        if total > largest:
            self._state = before
            raise RunError(
                "limit-reached",
                f"an answer kept whole may have {largest} bytes (maxBytes): ask with `stream: true`",
            )
        self._note(text)
        self.count += 1
        self.bytes = total
        self.emitted_at = self._loop.time()
        return False

    def _note(self, text: str) -> None:
        block = self._state.block
        assert block is not None
        if not self._kept or self._kept[-1].block.number != block.number:
            if not self._whole:
                self._kept.clear()
            self._kept.append(Kept(block, []))
        self._kept[-1].pieces.append(text)

    def _emit_item(self, content: Any) -> bool:
        """Take what is no plain text."""
        check_content(self, content)
        fault = refuse(content)
        if fault is not None:
            raise RunError(
                "not-in-dialect",
                f"the content {fault} (`format: {self.dialect}` carries text and the items of `llm.chat`)",
            )
        if isinstance(content, str):
            return self.emit(str(content), None, None, None)
        item = content["type"]
        if item == "text":
            return self.emit(str(content["text"]), None, None, None)
        if item == "toolCall":
            return self._emit_call(content)
        if item == "usage":
            self._usage = add_usage(self._usage, content)
        else:
            self._reason = content["reason"]
        self.count += 1
        return False

    def _emit_call(self, item: Mapping[str, Any]) -> bool:
        before = self._state
        block = before.block
        data = b""
        if block is None or not _goes_on(block, item):
            block = self._new_call(item)
            data = self._begin(block)
        given = item.get("arguments")
        whole = isinstance(given, Mapping)
        text = to_json(given).decode() if whole else given or ""
        if text:
            self._state = self._state._replace(block=block._replace(spoken=True, whole=whole))
        if self._whole:
            return self._keep(text, before)
        if text:
            data += self.arguments(block, text)
        if not data:
            self.count += 1
            return False
        full = self._push(data, before)
        if self.keeps_arguments:
            self._note(text)
        return full

    def _new_call(self, item: Mapping[str, Any]) -> Block:
        state = self._state
        name, given = item.get("name"), item.get("id")
        if not name:
            raise RunError(
                "not-in-dialect", "the first item of a tool call lacks the call's `name`"
            )
        if given in state.ids:
            raise RunError(
                "not-in-dialect",
                f"the tool call {given} goes on after something else began: "
                "the items of one call follow one another",
            )
        number = len(state.ids)
        name_of_call = given or f"call_{self.run.id[:16]}_{number}"
        return Block(state.blocks, number, item.get("index"), name_of_call, name)

    # ------------------------------------------------------------- silences and ends

    def beat(self) -> bytes:
        self.ask()
        return b"" if self._whole else self.pulse

    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        check_open(self)
        self.ended = True
        self._metadata = metadata

    def closing(self) -> bytes:
        # `streaming.done: false` does not leave it out: without it SDKs take the answer for lost.
        self.ask()
        state = self._state
        ending = b"" if state.started else self.start()
        if state.block is not None:
            ending += self.close_block(state.block)
        return ending + self.end()

    def finish(self, value: Any) -> Sent:
        self.ask()
        if not self._whole or self.status in BODILESS:
            return super().finish(value)
        self.headers = [each for each in self.headers if each[0].lower() != "content-type"]
        lines, body = self.lines(), to_json(self.document())
        self.committed = True
        self._connection.listener = None
        return send(self.request, self.status, lines, body)

    def fail(self, error: RunError) -> Sent:
        self.ask()
        body = None if self.committed else self.refusal(error)
        if body is None:
            return super().fail(error)
        self._connection.listener = None
        head = b"Content-Type: application/json; charset=utf-8\r\nCache-Control: no-store\r\n"
        lines = b"%bX-Run-Id: %b\r\n%b" % (head, self.run.id.encode(), self.cors)
        return send(self.request, error.status, lines, to_json(body))


def _goes_on(block: Block, item: Mapping[str, Any]) -> bool:
    """Tell whether an item belongs to the tool call that is open."""
    return (
        bool(block.name)
        and not block.whole
        and item.get("id") in (None, "", block.id)
        and item.get("index") in (None, block.index)
        and item.get("name") in (None, "", block.name)
    )


def told(error: RunError, *, dev: bool) -> str:
    """Return an error in one text: of invalid inputs, every fault."""
    if error.code == "invalid-input" and isinstance(error.details, list):
        return "; ".join(
            f"{each['name'] or 'the ' + each['in']} {each['message']}" for each in error.details
        )
    return error.full if dev else error.public
