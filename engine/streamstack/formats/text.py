"""Plain text, in chunks: the contents, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamstack.formats.spec import Encoder, EncoderOptions, Format, ResponseContext, to_utf8
from streamstack.language.values import to_text


class TextEncoder(Encoder):
    """Encodes contents one after the other, with `separator` between them and `end` after them.

    Metadata, event and id have no place in it. A failed response has no `end`: it is cut short.
    """

    __slots__ = ("_separator",)

    def __init__(self, options: EncoderOptions, response: ResponseContext) -> None:
        super().__init__(options, response)
        self._separator = options.separator

    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        text: str = content if type(content) is str else to_text(content)
        if number and self._separator:
            text = self._separator + text
        try:
            return text.encode()
        except UnicodeEncodeError:
            return to_utf8(text)

    def end(self, summary: Mapping[str, Any], number: int, *, marked: bool) -> bytes:
        return to_utf8(self.options.end)


TEXT: Final = Format(
    name="text",
    content_type="text/plain; charset=utf-8",
    encoder=TextEncoder,
    media_types=("text/plain",),
    raw_json=True,
    separated=True,
)
