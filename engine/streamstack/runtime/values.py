"""Streams and uploaded files as values."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Any, Final, Literal, TypeAlias

import structlog

from streamstack.errors import RunError
from streamstack.language.operators import a_kind
from streamstack.language.values import Opaque

#: Gives the items of a stream in lists of at least one. Closing it must close what feeds it.
Batches = AsyncGenerator[list[Any], None]
#: What a consumer only hands on to the sink: nothing, the items, or their `content`.
Unchanged: TypeAlias = Literal[False, True, "content"]


@dataclass(frozen=True, slots=True)
class RelayedFields:
    """The fields of items that are sent as a chunk's content, event and id; "" for none."""

    content: str
    event: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """What is known of the bytes that a stream gives, beside the bytes.

    ``size`` is how many there are in all, None if unknown. ``content_type`` is the header, "" where there is
    none. ``status`` is what is answered where they can't be decoded, None for that of the error's code.
    """

    size: int | None = None
    content_type: str = ""
    status: int | None = None


class Stream(Opaque):
    """Items over time. Nothing is fetched before the first `batch`, nothing is kept after.

    ``open`` returns the asynchronous generator of batches. ``properties`` are callables read by
    `stream.name` in expressions; each gives null before the stream opens. ``about`` is for who decodes its items.
    ``encoded`` opens it for one who hands each item on unchanged, ``contents`` for one who does so with each item's
    `content`: these may then be JSON that is written already (orjson.Fragment).
    """

    __slots__ = ("_batches", "_contents", "_encoded", "_open", "_properties", "about", "count", "finished")
    kind = "stream"
    #: Whether `relay` may do something.
    relays = False

    def __init__(
        self,
        open: Callable[[], Batches],  # noqa: A002  (what it does)
        properties: Mapping[str, Callable[[], Any]] | None = None,
        about: About | None = None,
        *,
        encoded: Callable[[], Batches] | None = None,
        contents: Callable[[], Batches] | None = None,
    ) -> None:
        self._open: Callable[[], Batches] | None = open
        self._encoded = encoded
        self._contents = contents
        self._batches: Batches | None = None
        self._properties = properties or {}
        self.about = about
        self.count = 0
        self.finished = False

    def __getitem__(self, name: str) -> Any:
        if name == "count":
            return self.count
        if name == "finished":
            return self.finished
        return self._properties[name]()

    @property
    def property_names(self) -> Iterator[str]:
        """The names of the properties that are the stream's own."""
        return iter(self._properties)

    @property
    def length(self) -> int:
        """Refuse: the length of a stream is unknown before its end."""
        raise RunError(
            "template", "a stream has no length before its end: `loop.length` and `loop.last` are for lists only"
        )

    def consume(self, *, unchanged: Unchanged = False) -> Stream:
        """Claim the stream for one consumer; ``unchanged`` is what it only hands on to the sink.

        Raises RunError ``template`` when another consumer has had it.
        """
        if self._open is None:
            raise RunError(
                "template", "this stream was consumed before; a stream can be read once: `collect` it to read it again"
            )
        opened = {False: None, True: self._encoded, "content": self._contents}[unchanged] or self._open
        self._batches = opened()
        self._open = None
        return self

    async def batch(self) -> list[Any]:
        """Wait for the next items; an empty list is the end."""
        batches = self._batches
        if batches is None:
            return []
        async for items in batches:
            if items:
                self.count += len(items)
                return items
        self.finished = True
        self._batches = None
        return []

    async def relay(self, fields: RelayedFields) -> None:
        """Send items to the run's client as they come, without the loop, as long as that is all there is to do."""

    async def close(self) -> None:
        """Close the stream and what feeds it. Does nothing at its end or when closed before."""
        batches, self._batches = self._batches, None
        if batches is not None:
            await batches.aclose()


class Items:
    """A list where a stream may stand: one batch, then the end."""

    __slots__ = ("_items", "length")

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items
        self.length = len(items)

    async def batch(self) -> Sequence[Any]:
        """Return the items, then an empty list."""
        items, self._items = self._items, ()
        return items

    async def close(self) -> None:
        """Do nothing: a list holds nothing open."""


def iterate(value: Any, *, unchanged: Unchanged = False) -> Stream | Items:
    """Begin to consume what a loop was given: a stream or a list. ``unchanged`` as in Stream.consume.

    Raises RunError ``template`` for anything else, saying what to write.
    """
    if type(value) is list or isinstance(value, (list, tuple, range)):
        return Items(value)
    if isinstance(value, Stream):
        return value.consume(unchanged=unchanged)
    if isinstance(value, Mapping):
        raise RunError("template", "an object can't be iterated: write `x | entries` for {key, value} items")
    if value is None:
        raise RunError("template", "null can't be iterated: write `x | default([])`")
    advice = value.remedy if isinstance(value, Opaque) else "a list or a stream is needed"
    raise RunError("template", f"{a_kind(value)} can't be iterated: {advice}")


def batches_of(source: Stream | Items, fields: RelayedFields) -> Callable[[], Awaitable[Sequence[Any]]]:
    """Return what waits for items that the loop has to look at; what a stream can relay without it, it does."""
    if not isinstance(source, Stream) or not source.relays:
        return source.batch

    async def relayed_batch() -> Sequence[Any]:
        await source.relay(fields)
        return await source.batch()

    return relayed_batch


class Iterations:
    """What `loop` counts in `repeat`: a number of turns known beforehand."""

    __slots__ = ("length",)

    def __init__(self, iterations: Sequence[int]) -> None:
        self.length = len(iterations)


class Endless:
    """What `loop` counts in `while` and `streams.map`, whose number of turns is unknown."""

    @property
    def length(self) -> int:
        """Refuse: the number of turns is unknown."""
        raise RunError(
            "template", "`loop.length` and `loop.last` are not available here: the number of turns is unknown"
        )


ENDLESS = Endless()


log = structlog.get_logger("streamstack.run")

#: Bytes that are kept in memory; a larger file goes to disk.
IN_MEMORY: Final = 1024 * 1024
#: Bytes read from disk at once.
PIECE: Final = 256 * 1024


class File(Opaque):
    """A file as a client sent it. ``name`` is its last part only, and no place to store it under.

    In expressions it has `name`, `contentType` and `size` (bytes). It is written once, then read as often as needed.
    """

    kind = "file"
    remedy = "read it with `collect` and `into: bytes`, or its lines or records with `file.read`"
    __slots__ = ("_closed", "_disk", "_lock", "_memory", "_stored", "content_type", "name", "size")

    def __init__(self, name: str, content_type: str) -> None:
        self.name = _last_part(name)
        self.content_type = content_type
        self.size = 0
        self._memory = bytearray()  # the end, as far as it is not on disk
        self._stored = 0  # bytes on disk
        self._closed = False
        self._disk: FileIO | None = None
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Any:
        if name == "name":
            return self.name
        if name == "contentType":
            return self.content_type
        if name == "size":
            return self.size
        raise KeyError(name)

    @property
    def in_memory(self) -> int:
        """The bytes that are not on disk."""
        return len(self._memory)

    async def write(self, data: bytes | bytearray) -> None:
        """Add bytes at the end.

        Raises RunError ``unavailable`` (503) where the disk is full, or there are too many files.
        """
        self.size += len(data)
        self._memory += data
        if len(self._memory) <= IN_MEMORY:
            return
        # One thread's turn for many pieces: it costs as much as the writing of one.
        held, self._memory = self._memory, bytearray()
        try:
            await asyncio.to_thread(self._write_to_disk, held)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            log.error("upload-not-kept", reason=reason)  # noqa: TRY400  (a full disk has no traceback)
            raise RunError("unavailable", "the file can't be stored at the moment") from error

    def _write_to_disk(self, data: bytes | bytearray) -> None:
        with self._lock:
            if self._closed:
                return  # the upload was given up meanwhile
            if self._disk is None:
                # Without a name in the file system it is gone with the process, whatever happens.
                self._disk = tempfile.TemporaryFile(prefix="streamstack-", buffering=0)  # noqa: SIM115
            self._disk.seek(0, 2)
            rest = memoryview(data)
            while rest:
                rest = rest[self._disk.write(rest) :]
            self._stored += len(data)

    async def pieces(self, size: int = PIECE) -> AsyncGenerator[bytes, None]:
        """Give the bytes from the beginning, at most ``size`` at once. Several readers may do so at the same time."""
        at = 0
        while at < self.size:
            piece = await self._read(at, size)
            if not piece:
                return
            at += len(piece)
            yield piece

    async def read(self) -> bytes:
        """Return all the bytes."""
        return await self._read(0, self.size)

    async def _read(self, at: int, size: int) -> bytes:
        if at >= self._stored:
            begin = at - self._stored
            return bytes(self._memory[begin : begin + size])
        data = await asyncio.to_thread(self._read_from_disk, at, min(size, self._stored - at))
        if at + len(data) == self._stored:
            data += bytes(self._memory[: size - len(data)])
        return data

    def _read_from_disk(self, at: int, size: int) -> bytes:
        with self._lock:
            if self._closed or self._disk is None:
                return b""
            self._disk.seek(at)
            return self._disk.read(size)

    def close(self) -> None:
        """Delete the file. Does nothing the second time."""
        with self._lock:
            self._closed = True
            if self._disk is not None:
                self._disk.close()
            self._memory = bytearray()

    def __del__(self) -> None:
        # A run that forgets its file deletes it.
        if self._disk is not None:
            self._disk.close()


def _last_part(name: str) -> str:
    """Return a file's name without folders and control characters, at most 255 characters of it."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(each for each in last if each.isprintable())[:255]
