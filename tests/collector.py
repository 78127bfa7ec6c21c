"""A sink that keeps the chunks of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamstack.errors import RunError
from streamstack.language.values import MISSING
from streamstack.runtime.run import Sink, check_content, check_open


class Chunk:
    """A chunk as it was emitted; what the Collector keeps."""

    __slots__ = ("content", "event", "id", "metadata")

    def __init__(self, content: Any, event: str | None, id: Any, metadata: Any) -> None:  # noqa: A002
        self.content = content
        self.event = event
        self.id = id
        self.metadata = metadata


class Collector(Sink):
    """Keeps the chunks of a run: and what is set beside them.

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
            raise RunError("limit-reached", f"more than {self.limit} chunks in one buffered response")
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

    def respond(self, status: int | None, headers: Mapping[str, str], cookies: Mapping[str, Any]) -> None:
        if status is not None:
            self.status = status
        self.headers.update(headers)
        self.cookies.update(cookies)
