"""What a step makes of the items of a stream: lazily, batch by batch, or in tasks beside the reader.

Each operator closes its sources on every way out, and gives what came before an error first.
"""

from __future__ import annotations

import asyncio
from asyncio import sleep
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from operator import length_hint
from time import perf_counter
from typing import Any, Final, TypeAlias

import structlog

from streamstack.runtime.faults import located
from streamstack.runtime.feed import Feed, settle
from streamstack.runtime.run import Run
from streamstack.runtime.splitters import Splitter
from streamstack.runtime.values import Batches, Items, Stream

log = structlog.get_logger("streamstack.run")

Source: TypeAlias = Stream | Items
#: Items worked on at once: a long list is no reason to hold others up, nor to compute what nobody
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
    """Counts the items passed over for their errors, and logs the first of them."""

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
    run: Run,
    source: Source,
    through: Callable[[Iterator[Any]], Iterator[Any]],
    skipped: Skipped | None = None,
) -> Batches:
    """Give what an iterator like `map` or `filter` makes of the items.

    An item's error ends the stream, or is noted in ``skipped``.
    """
    before = 0
    try:
        while batch := await source.batch():
            for items in slices(batch):
                rest = iter(items)
                given: list[Any] = []
                while length_hint(rest):
                    try:
                        # `extend` keeps what it had when the next item fails.
                        given.extend(through(rest))
                    except Exception as error:
                        if skipped is None:
                            if given:
                                yield given
                            raise
                        skipped.note(before + len(items) - length_hint(rest) - 1, error)
                before += len(items)
                if given:
                    yield given
                if perf_counter() > run.slice_ends:
                    await run.yield_to_loop()
    finally:
        await source.close()


async def worked(
    run: Run,
    source: Source,
    work: Callable[[Any, int], Awaitable[Any]],
    skipped: Skipped | None = None,
) -> Batches:
    """Give what the body makes of each item, one after the other."""
    index = -1
    try:
        while batch := await source.batch():
            for item in batch:
                index += 1
                if perf_counter() > run.slice_ends:
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
            given = list(batch[:count])
            count -= len(given)
            if count == 0:
                await source.close()
            yield given
    finally:
        await source.close()


async def gathered(run: Run, source: Source, size: int) -> Batches:
    """Give lists of ``size`` items; the last may be shorter."""
    pending: list[Any] = []
    try:
        try:
            while batch := await source.batch():
                for items in slices(batch):
                    pending += items
                    if len(pending) >= size:
                        full, pending = full_lists(pending, size)
                        yield full
                    if perf_counter() > run.slice_ends:
                        await run.yield_to_loop()
        except Exception:
            if pending:
                yield [pending]
            raise
        if pending:
            yield [pending]
    finally:
        await source.close()


def full_lists(items: list[Any], size: int) -> tuple[list[list[Any]], list[Any]]:
    """Return the full lists of ``size`` items, and what is left."""
    end = len(items) // size * size
    return [items[at : at + size] for at in range(0, end, size)], items[end:]


async def split(run: Run, source: Source, splitter: Splitter) -> Batches:
    """Give the text of the items in pieces, whatever items it came in."""
    try:
        try:
            while batch := await source.batch():
                for items in slices(batch):
                    if pieces := splitter.feed(_text(items)):
                        yield pieces
                    if perf_counter() > run.slice_ends:
                        await run.yield_to_loop()
        except Exception:
            if pieces := splitter.end():
                yield pieces
            raise
        if pieces := splitter.end():
            yield pieces
    finally:
        await source.close()


def _text(items: Sequence[Any]) -> str:
    """Return the text of items that are texts, or objects that hold one; others have none."""
    try:
        return "".join(items)
    except TypeError:
        return "".join([item if type(item) is str else _text_of(item) for item in items])


def _text_of(item: Any) -> str:
    if isinstance(item, Mapping) and item.get("type", "text") == "text":
        text = item.get("text")
        if isinstance(text, str):
            return text
    return ""


async def ticks(every: float, limit: int | None) -> Batches:
    """Give 1, 2, 3, one each ``every`` seconds, the first at once.

    The times do not drift. A reader who is late gets one tick for all that passed meanwhile.
    """
    due = perf_counter()
    number = 0
    while limit is None or number < limit:
        while (left := due - perf_counter()) > 0:  # noqa: ASYNC110  (a timer may be early)
            await sleep(left)
        number += 1
        yield [number]
        due += every
        late = perf_counter() - due
        if late > 0:
            due += late // every * every


async def merged(sources: Sequence[tuple[str | None, Source]]) -> Batches:
    """Give the items of all sources as they come, under their names as {from, item}.

    Each source is read one batch ahead at most. The error of one closes the others.
    """

    async def pump(feed: Feed, name: str | None, source: Source) -> None:
        try:
            while batch := await source.batch():
                for items in slices(batch):
                    await feed.put(
                        list(items)
                        if name is None
                        else [{"from": name, "item": item} for item in items]
                    )
        finally:
            await source.close()

    async def pump_all(feed: Feed) -> None:
        async with asyncio.TaskGroup() as group:
            for name, source in sources:
                group.create_task(pump(feed, name, source))

    async with AsyncExitStack() as stack:
        for _, source in sources:  # a pump that never began has not closed its source
            stack.push_async_callback(source.close)
        feed = await stack.enter_async_context(Feed(pump_all))
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
        feed = await stack.enter_async_context(Feed(_pumping(source)))
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


def _pumping(source: Source) -> Callable[[Feed], Awaitable[None]]:
    async def pump(feed: Feed) -> None:
        try:
            while batch := await source.batch():
                for items in slices(batch):
                    await feed.put(list(items))
        finally:
            await source.close()

    return pump


async def worked_at_once(
    source: Source,
    work: Callable[[Any, int], Awaitable[Any]],
    concurrency: int,
    skipped: Skipped | None = None,
) -> Batches:
    """Give what the body makes of each item, in the items' order, from several bodies at once.

    At most ``concurrency`` items are under way: read, and not yet taken by the reader.
    """

    async def one(
        feed: Feed,
        item: Any,
        index: int,
        before: asyncio.Future[None] | None,
        mine: asyncio.Future[None],
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

    async def all_of_them(feed: Feed) -> None:
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
        feed = await stack.enter_async_context(Feed(all_of_them))
        while items := await feed.take():
            yield items
