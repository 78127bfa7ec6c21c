"""What happens to the items of a stream on their way: asynchronous generators over batches.

Each takes whole batches, gives what it has as soon as it has it, lets the event loop turn where a
source never waits, and closes its source on every way out. What came before an error is given
before the error.
"""

from __future__ import annotations

from asyncio import sleep
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from operator import length_hint
from time import perf_counter
from typing import Any, Final, TypeAlias

import structlog

from streamstack.runtime.faults import located
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
                if perf_counter() > run.yield_at:
                    await run.breathe()
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
                if perf_counter() > run.yield_at:
                    await run.breathe()
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
    """Give the first items. The source is closed before the last of them is handed on."""
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
                    if perf_counter() > run.yield_at:
                        await run.breathe()
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
                    if perf_counter() > run.yield_at:
                        await run.breathe()
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
