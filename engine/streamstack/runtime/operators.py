"""Operators on streams: map, filter, batch, merge, take."""

from __future__ import annotations

import asyncio
from asyncio import sleep
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from operator import length_hint
from typing import Any, Final, TypeAlias

import structlog

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language.operators import a_kind
from streamstack.language.values import Opaque
from streamstack.runtime.concurrency import Channel, settle
from streamstack.runtime.decoders import format_of, format_of_file, read_content_type
from streamstack.runtime.faults import located
from streamstack.runtime.run import Run
from streamstack.runtime.splitters import Splitter
from streamstack.runtime.values import PIECE, About, Batches, File, Items, Stream

log = structlog.get_logger("streamstack.run")

Source: TypeAlias = Stream | Items
#: Items worked on at once: a long list must not block other runs, nor compute what no step
#: will ask for.
SLICE: Final = 1000


def slices(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Give a batch in parts of at most SLICE items."""
    if len(items) <= SLICE:
        yield items
    else:
        for at in range(0, len(items), SLICE):
            yield items[at : at + SLICE]


class Skipped:
    """Counts the items skipped for their errors, and logs the first of them."""

    __slots__ = ("_run", "count")
    #: Errors written to the log; a stream of nothing but errors must not fill a disk.
    LOGGED = 20

    def __init__(self, run: Run) -> None:
        self._run = run
        self.count = 0

    def note(self, index: int, error: Exception) -> None:
        """Take the error of the item with this index (from 0)."""
        self.count += 1
        if self.count > self.LOGGED:
            return
        fault = located(error)
        log.warning(
            "item-skipped",
            run=self._run.id,
            index=index,
            code=fault.code,
            message=fault.message,
            place=str(fault.place),
            **({"more": "counted, not logged"} if self.count == self.LOGGED else {}),
        )


async def passed(
    run: Run, source: Source, through: Callable[[Iterator[Any]], Iterator[Any]], skipped: Skipped | None = None
) -> Batches:
    """Give what an iterator like `map` or `filter` makes of the items.

    An item's error ends the stream, or is noted in ``skipped``.
    """
    before = 0
    try:
        while batch := await source.batch():
            for items in slices(batch):
                rest = iter(items)
                results: list[Any] = []
                while length_hint(rest):
                    try:
                        # `extend` keeps what it had when the next item fails.
                        results.extend(through(rest))
                    except Exception as error:
                        if skipped is None:
                            if results:
                                yield results
                            raise
                        skipped.note(before + len(items) - length_hint(rest) - 1, error)
                before += len(items)
                if results:
                    yield results
                if clock.perf_counter() > run.slice_ends:
                    await run.yield_to_loop()
    finally:
        await source.close()


async def worked(
    run: Run, source: Source, work: Callable[[Any, int], Awaitable[Any]], skipped: Skipped | None = None
) -> Batches:
    """Give what the body makes of each item, one after the other."""
    index = -1
    try:
        while batch := await source.batch():
            for item in batch:
                index += 1
                if clock.perf_counter() > run.slice_ends:
                    await run.yield_to_loop()
                try:
                    made = await work(item, index)
                except Exception as error:
                    if skipped is None:
                        raise
                    skipped.note(index, error)
                else:
                    yield [made]
    finally:
        await source.close()


async def taken(source: Source, count: int) -> Batches:
    """Give the first items. The source is closed before the last of them is passed on."""
    try:
        while count > 0 and (batch := await source.batch()):
            results = list(batch[:count])
            count -= len(results)
            if count == 0:
                await source.close()
            yield results
    finally:
        await source.close()


async def transformed(
    run: Run, source: Source, feed: Callable[[Sequence[Any]], list[Any]], rest: Callable[[], list[Any]]
) -> Batches:
    """Give what ``feed`` makes of the items; at the end, and before an error, what is left."""
    try:
        try:
            while batch := await source.batch():
                for items in slices(batch):
                    if made := feed(items):
                        yield made
                    if clock.perf_counter() > run.slice_ends:
                        await run.yield_to_loop()
        except Exception:
            if made := rest():
                yield made
            raise
        if made := rest():
            yield made
    finally:
        await source.close()


def gathered(run: Run, source: Source, size: int) -> Batches:
    """Give lists of ``size`` items; the last may be shorter."""
    pending: list[Any] = []

    def feed(items: Sequence[Any]) -> list[Any]:
        nonlocal pending
        pending += items
        if len(pending) < size:
            return []
        full, pending = full_lists(pending, size)
        return full

    return transformed(run, source, feed, lambda: [pending] if pending else [])


def full_lists(items: list[Any], size: int) -> tuple[list[list[Any]], list[Any]]:
    """Return the full lists of ``size`` items, and what is left."""
    end = len(items) // size * size
    return [items[at : at + size] for at in range(0, end, size)], items[end:]


def split(run: Run, source: Source, splitter: Splitter) -> Batches:
    """Give the text of the items in pieces, whatever items it came in."""
    return transformed(run, source, lambda items: splitter.feed(_text(items)), splitter.end)


def _text(items: Sequence[Any]) -> str:
    """Return the text of items that are texts, or objects that hold one; other data has none.

    Raises RunError ``template`` for bytes, files and streams.
    """
    try:
        return "".join(items)
    except TypeError:
        return "".join([item if type(item) is str else _text_of(item) for item in items])


def _text_of(item: Any) -> str:
    if isinstance(item, Mapping) and item.get("type", "text") == "text":
        text = item.get("text")
        if isinstance(text, str):
            return text
    if isinstance(item, (bytes, Opaque)):
        raise RunError("template", f"texts are needed here, and an item is {a_kind(item)}: `decode: text` gives texts")
    return ""


async def ticks(every: float, limit: int | None) -> Batches:
    """Give 1, 2, 3, one each ``every`` seconds, the first at once.

    The times do not drift. A reader who is late gets one tick for all that passed meanwhile.
    """
    due = clock.monotonic()
    number = 0
    while limit is None or number < limit:
        while (remaining := due - clock.monotonic()) > 0:  # noqa: ASYNC110  (a timer may be early)
            await sleep(remaining)
        number += 1
        yield [number]
        due += every
        late = clock.monotonic() - due
        if late > 0:
            due += late // every * every


async def merged(sources: Sequence[tuple[str | None, Source]]) -> Batches:
    """Give the items of all sources as they come, under their names as {from, item}.

    Each source is read one batch ahead at most. The error of one closes the others.
    """

    async def pump(feed: Channel, name: str | None, source: Source) -> None:
        try:
            while batch := await source.batch():
                for items in slices(batch):
                    await feed.put(list(items) if name is None else [{"from": name, "item": item} for item in items])
        finally:
            await source.close()

    async def pump_all(feed: Channel) -> None:
        async with asyncio.TaskGroup() as group:
            for name, source in sources:
                group.create_task(pump(feed, name, source))

    async with AsyncExitStack() as stack:
        for _, source in sources:  # a pump that never began has not closed its source
            stack.push_async_callback(source.close)
        feed = await stack.enter_async_context(Channel(pump_all))
        while items := await feed.take():
            yield items


async def gathered_within(source: Source, size: int, within: float) -> Batches:
    """Give lists of ``size`` items, or of what came in ``within`` seconds from the first.

    The time being over does not disturb what the source is just reading.
    """
    time = asyncio.get_running_loop().time
    pending: list[Any] = []
    due: float | None = None
    async with AsyncExitStack() as stack:
        stack.push_async_callback(source.close)
        feed = await stack.enter_async_context(Channel(_pumping(source)))
        while True:
            try:
                items = await feed.take(due)
            except Exception:
                if pending:
                    yield [pending]
                raise
            if items:
                if not pending:
                    due = time() + within
                pending += items
                if len(pending) >= size:
                    full, pending = full_lists(pending, size)
                    due = time() + within if pending else None
                    yield full
                continue
            if pending:
                yield [pending]
            if items is not None:
                return
            pending, due = [], None


def _pumping(source: Source) -> Callable[[Channel], Awaitable[None]]:
    async def pump(feed: Channel) -> None:
        try:
            while batch := await source.batch():
                for items in slices(batch):
                    await feed.put(list(items))
        finally:
            await source.close()

    return pump


async def worked_at_once(
    source: Source, work: Callable[[Any, int], Awaitable[Any]], concurrency: int, skipped: Skipped | None = None
) -> Batches:
    """Give what the body makes of each item, in the items' order, from several bodies at once.

    At most ``concurrency`` items are under way: read, and not yet taken by the reader.
    """

    async def one(
        feed: Channel, item: Any, index: int, before: asyncio.Future[None] | None, mine: asyncio.Future[None]
    ) -> None:
        made: list[Any] = []
        failure: Exception | None = None
        try:
            try:
                made.append(await work(item, index))
            except Exception as error:  # noqa: BLE001  (raised in the order of the items)
                failure = located(error)
            if before is not None:
                await before
            if failure is None:
                taken = feed.put(made)
                settle(mine)
                await taken
            elif skipped is not None:
                skipped.note(index, failure)
                settle(mine)
            else:
                # Those after it wait for ever, until the group cancels them.
                raise failure
        except asyncio.CancelledError:
            settle(mine)
            raise
        finally:
            gate.release()

    async def all_of_them(feed: Channel) -> None:
        loop = asyncio.get_running_loop()
        last: asyncio.Future[None] | None = None
        failure: Exception | None = None
        index = 0
        async with asyncio.TaskGroup() as group:
            try:
                await gate.acquire()
                while batch := await source.batch():
                    for item in batch:
                        mine = loop.create_future()
                        group.create_task(one(feed, item, index, last, mine))
                        last = mine
                        index += 1
                        await gate.acquire()
            except Exception as error:  # noqa: BLE001  (raised after the bodies that are running)
                failure = error
        if failure is not None:
            raise failure

    gate = asyncio.Semaphore(concurrency)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(source.close)
        feed = await stack.enter_async_context(Channel(all_of_them))
        while items := await feed.take():
            yield items


#: What a client sent and can't be decoded is the client's fault; so is a text, which mostly is one of its inputs.
CLIENTS_FAULT: Final = 400


class ByteSource:
    """Something that holds bytes, to be read once, in pieces.

    ``size`` is how many bytes there are, None if unknown; ``read`` how many were decoded. ``charset`` and
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
                "template", f"`from` is a file, bytes, a text, or a stream or list of those, not {a_kind(value)}"
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
                    yield piece
        elif isinstance(value, Stream):
            value.consume()
            try:
                while batch := await value.batch():
                    for piece in self._cut(batch):
                        yield piece
                    if clock.perf_counter() > run.slice_ends:
                        await run.yield_to_loop()
            finally:
                await value.close()
        else:
            for piece in self._cut(value if isinstance(value, list) else [value]):
                yield piece
                if clock.perf_counter() > run.slice_ends:
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
                yield data[at : at + PIECE]
