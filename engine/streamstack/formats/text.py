"""Plain text, in chunks: the contents, and nothing else."""

from __future__ import annotations

from typing import Any, Final

from streamstack.formats.spec import Encoder, Format, to_utf8
from streamstack.language.values import to_text


class TextEncoder(Encoder):
    """Encodes contents one after the other. Metadata, event and id have no place in it."""

    __slots__ = ()

    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        text: str = content if type(content) is str else to_text(content)
        try:
            return text.encode()
        except UnicodeEncodeError:
            return to_utf8(text)


TEXT: Final = Format(
    name="text",
    content_type="text/plain; charset=utf-8",
    encoder=TextEncoder,
    media_types=("text/plain",),
    raw_json=True,
)
