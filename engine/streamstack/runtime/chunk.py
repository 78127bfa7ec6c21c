"""Where a run's chunks go: the sink, which a writer of the wire implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from streamstack.errors import RunError
from streamstack.language.values import MISSING, Opaque


class Sink(ABC):
    """Takes the chunks of one run, encodes them and sends them.

    `emit` is synchronous: it encodes into a buffer that is flushed when the event loop next turns. It answers
    True when the caller must `await drain()` before it emits again (the first chunk, a full buffer).
    """

    __slots__ = ("bytes", "count", "ended")

    #: Whether content may be JSON that is written already (orjson.Fragment).
    takes_json = False

    def __init__(self) -> None:
        self.count = 0  # chunks taken, `stream.count`
        self.bytes = 0  # bytes of their encoding, `stream.bytes`
        self.ended = False  # after `done`: nothing may follow

    @abstractmethod
    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        """Take a chunk; True asks the caller to `await drain()`.

        Raises RunError ``template`` for content that the format can't carry, or after `done`.
        """

    @abstractmethod
    async def drain(self) -> None:
        """Send what is buffered and wait until the reader has room for more."""

    @abstractmethod
    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        """Take the author's end marker."""

    @abstractmethod
    def respond(
        self, status: int | None, headers: Mapping[str, str], cookies: Mapping[str, Any]
    ) -> None:
        """Set status, headers and cookies.

        Raises RunError ``template`` once the status line has been sent.
        """


def check_open(sink: Sink) -> None:
    """Raise RunError ``template`` after the author's end marker."""
    if sink.ended:
        raise RunError("template", "`done` was called before: nothing may follow the end marker")


def check_content(sink: Sink, content: Any) -> None:
    """Raise RunError ``template`` for what no format can carry: null, a stream, or anything after `done`."""
    if sink.ended:
        check_open(sink)
    if content is None:
        raise RunError(
            "template",
            'the content is null: write `| default("")`, or pass the step over with `when: << x is not none >>`',
        )
    if isinstance(content, Opaque):
        raise RunError(
            "template",
            f"the content is a {content.kind}: write `forEach` to send its items one by one",
        )


class Chunk:
    """A chunk as it was emitted; what the Collector keeps."""

    __slots__ = ("content", "event", "id", "metadata")

    def __init__(self, content: Any, event: str | None, id: Any, metadata: Any) -> None:  # noqa: A002
        self.content = content
        self.event = event
        self.id = id
        self.metadata = metadata


class Collector(Sink):
    """Keeps the chunks of a run: for examples, tests and the one-document answer.

    ``limit`` bounds how many; RunError ``limit-reached`` past it.
    """

    __slots__ = ("chunks", "cookies", "done_content", "done_metadata", "headers", "limit", "status")

    def __init__(self, limit: int = 1_000_000) -> None:
        super().__init__()
        self.chunks: list[Chunk] = []
        self.limit = limit
        self.done_content: Any = MISSING
        self.done_metadata: Any = None
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.cookies: dict[str, Any] = {}

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        check_content(self, content)
        if self.count >= self.limit:
            raise RunError(
                "limit-reached", f"more than {self.limit} chunks in one answer that is kept whole"
            )
        self.count += 1
        self.chunks.append(Chunk(content, event, id, metadata))
        return False

    async def drain(self) -> None:
        return None

    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        check_open(self)
        self.ended = True
        self.done_content = content
        self.done_metadata = metadata

    def respond(
        self, status: int | None, headers: Mapping[str, str], cookies: Mapping[str, Any]
    ) -> None:
        if status is not None:
            self.status = status
        self.headers.update(headers)
        self.cookies.update(cookies)
