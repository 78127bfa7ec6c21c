"""Raw bytes: sound, images, archives."""

from __future__ import annotations

from typing import Any, Final

from streamstack.errors import RunError
from streamstack.formats.spec import Encoder, Format, to_utf8
from streamstack.language.values import kind


class BytesEncoder(Encoder):
    """Encodes bytes as they are, and text as UTF-8; anything else has no bytes."""

    __slots__ = ()

    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        if isinstance(content, str):
            return to_utf8(content)
        if isinstance(content, (bytes, bytearray, memoryview)):
            return bytes(content)
        raise RunError(
            "template",
            f"`format: bytes` sends bytes or text, and the content is a {kind(content)}: "
            "write `| toJson`, or choose another format",
        )


BYTES: Final = Format(name="bytes", content_type="application/octet-stream", encoder=BytesEncoder)
