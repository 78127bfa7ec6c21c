"""Raw bytes: sound, images, archives."""

from __future__ import annotations

from typing import Any

from streamstack.errors import RunError
from streamstack.language.values import kind
from streamstack.runtime.chunk import check_content
from streamstack.server.writers.answer import PLAIN
from streamstack.server.writers.stream import StreamSink
from streamstack.server.writers.text import encode


class BytesSink(StreamSink):
    """Writes bytes as they are, and text as UTF-8; anything else has no bytes."""

    __slots__ = ()

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        if self.ended or type(content) not in PLAIN:
            check_content(self, content)
        if isinstance(content, str):
            data = encode(content)
        elif isinstance(content, (bytes, bytearray, memoryview)):
            data = bytes(content)
        else:
            raise RunError(
                "template",
                f"`format: bytes` sends bytes or text, and the content is a {kind(content)}: "
                "write `| toJson`, or choose another format",
            )
        self._parts.append(data)
        self.count += 1
        self.bytes = total = self.bytes + len(data)
        if total >= self._limit:
            return self._settle()
        return False

    def error_end(self, error: RunError) -> None:
        return None
