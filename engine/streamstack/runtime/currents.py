"""What several tasks do to the items of a stream: merging, working ahead, gathering by time.

As flows, each closes its sources on every way out, and gives what came before an error first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from streamstack.runtime.faults import located
from streamstack.runtime.feed import Feed, settle
from streamstack.runtime.flows import Skipped, Source, full_lists, slices
from streamstack.runtime.values import Batches


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
            except Exception as error:  # noqa: BLE001  (told when its turn has come)
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
            except Exception as error:  # noqa: BLE001  (told after the bodies under way)
                failure = error
        if failure is not None:
            raise failure

    gate = asyncio.Semaphore(concurrency)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(source.close)
        feed = await stack.enter_async_context(Feed(all_of_them))
        while items := await feed.take():
            yield items
