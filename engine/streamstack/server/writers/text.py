"""Plain text, in chunks: the contents, and nothing else."""

from __future__ import annotations

from typing import Any

from streamstack.errors import RunError
from streamstack.language.values import to_text
from streamstack.runtime.chunk import check_content
from streamstack.server.writers.stream import StreamSink


def encode(text: str) -> bytes:
    """Return text as UTF-8.

    Halves of a surrogate pair that belong together are joined; a lone one becomes U+FFFD.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


class TextSink(StreamSink):
    """Writes contents one after the other. Metadata, event and id have no place in it."""

    takes_json = True
    __slots__ = ()

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        if type(content) is not str or self.ended:
            check_content(self, content)
            content = to_text(content)
        try:
            data = content.encode()
        except UnicodeEncodeError:
            data = encode(content)
        self._parts.append(data)
        self.count += 1
        self.bytes = total = self.bytes + len(data)
        if total >= self._limit:
            return self._settle()
        return False

    def error_end(self, error: RunError) -> None:
        return None
