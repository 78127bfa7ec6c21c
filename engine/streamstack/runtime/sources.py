"""Bytes from whatever holds them: a file, bytes, a text, or a stream or list of those."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from time import perf_counter
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.operators import a_kind
from streamstack.runtime.decoders.formats import format_of, format_of_file, read_content_type
from streamstack.runtime.files import PIECE, File
from streamstack.runtime.run import Run
from streamstack.runtime.values import About, Stream

#: What a client sent and can't be decoded is the client's fault; so is a text, which mostly is one of its inputs.
CLIENTS_FAULT: Final = 400


class Source:
    """Something that holds bytes, to be read once, in pieces.

    ``size`` is how many bytes there are, None where nobody knows; ``read`` how many were read. ``charset`` and
    ``status`` (of an answer where they can't be decoded) are None where nothing is known of them.
    """

    def __init__(self, value: Any) -> None:
        self._value = value
        self.read = 0
        self.size: int | None = None
        self.charset: str | None = None
        self.status: int | None = None
        self._format = "bytes"
        if isinstance(value, File):
            self.size = value.size
            self.status = CLIENTS_FAULT
            media, self.charset = read_content_type(value.content_type)
            self._format = format_of_file(media, value.name)
        elif isinstance(value, Stream):
            about = value.about or About()
            self.size, self.status = about.size, about.status
            media, self.charset = read_content_type(about.content_type)
            self._format = format_of(media)
        elif isinstance(value, str):
            self.status = CLIENTS_FAULT
            self.size = len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
            self._format = "text"
        elif isinstance(value, bytes):
            self.status = CLIENTS_FAULT
            self.size = len(value)
        elif not isinstance(value, list):
            raise RunError(
                "template",
                f"`from` is a file, bytes, a text, or a stream or list of those, not {a_kind(value)}",
            )

    @property
    def format(self) -> str:
        """The format that `auto` stands for."""
        return self._format

    async def pieces(self, run: Run) -> AsyncGenerator[bytes, None]:
        """Give the bytes from the beginning, in pieces of bounded size where they are held here.

        Raises RunError ``template`` for items that are neither bytes nor texts.
        """
        value = self._value
        if isinstance(value, File):
            async with aclosing(value.pieces()) as pieces:
                async for piece in pieces:
                    self.read += len(piece)
                    yield piece
        elif isinstance(value, Stream):
            value.consume()
            try:
                while batch := await value.batch():
                    for piece in self._cut(batch):
                        yield piece
                    if perf_counter() > run.slice_ends:
                        await run.yield_to_loop()
            finally:
                await value.close()
        else:
            for piece in self._cut(value if isinstance(value, list) else [value]):
                yield piece
                if perf_counter() > run.slice_ends:
                    await run.yield_to_loop()

    def _cut(self, items: Iterable[Any]) -> Iterable[bytes]:
        for item in items:
            if isinstance(item, str):
                data = item.encode("utf-8", "replace")
            elif isinstance(item, bytes):
                data = item
            else:
                raise RunError(
                    "template",
                    f"bytes or texts are read here, and an item is {a_kind(item)}: "
                    "`decode: bytes` gives what came as it is",
                )
            for at in range(0, len(data), PIECE):
                piece = data[at : at + PIECE]
                self.read += len(piece)
                yield piece
