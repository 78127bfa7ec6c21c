"""Windows over a stream with rolling aggregates, by groups of items; changes between items."""

from __future__ import annotations

from asyncio import get_running_loop
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.names import listed
from streamstack.language.values import MISSING, show_duration
from streamstack.runtime.aggregates import NUMBERS, Series, identity
from streamstack.runtime.concurrency import Channel
from streamstack.runtime.faults import place_of
from streamstack.runtime.operators import Source, slices, transformed
from streamstack.runtime.run import Run
from streamstack.runtime.values import Batches

#: Gives what a figure is of: an expression of the item.
Of = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure by the author's name: an operation, and what it is of; None is the item itself."""

    name: str
    operation: str
    of: Of | None


@dataclass(frozen=True, slots=True)
class Shape:
    """What a window holds, and when it gives its figures. Times are seconds.

    ``size``: the last items of a group. ``within``: the items of the last while. ``every``: an integer is a number of
    items of a group, a float a time. ``groups`` and ``limit``: the most groups, and items held in all of them.
    """

    size: int | None
    within: float | None
    every: int | float
    groups: int
    limit: int

    @property
    def tumbling(self) -> bool:
        """Whether each item is in one window only, so that none has to be held."""
        wide = self.size if self.size is not None else self.within
        return wide is not None and type(wide) is type(self.every) and wide == self.every

    @property
    def timed(self) -> bool:
        """Whether figures are given at even times."""
        return type(self.every) is float

    @property
    def sliding(self) -> bool:
        """Whether items leave the window one by one."""
        return (self.size is not None or self.within is not None) and not self.tumbling


class WindowGroup:
    """The window of one group: its items as far as they have to be held, and what its figures need."""

    __slots__ = ("_parts", "_readers", "_window", "fresh", "items", "key", "now", "reported_empty", "since")

    def __init__(self, window: Window, key: Any, since: float) -> None:
        self._window = window
        self.key = key
        self.items: deque[tuple[float, list[Any]]] = deque()
        self.begin(since)
        self.reported_empty = False

    def begin(self, since: float) -> None:
        """Begin a window with nothing in it."""
        self.since = self.now = since
        self.fresh = 0  # items since the figures were given last
        figures, sliding = self._window.figures, self._window.shape.sliding
        operations: dict[Of | None, tuple[str, ...]] = {}
        for figure in figures:
            operations[figure.of] = (*operations.get(figure.of, ()), figure.operation)
        series = {of: Series(each, sliding=sliding) for of, each in operations.items()}
        self._parts = list(series.items())
        self._readers = [
            (
                each.name,
                self._rate(series[each.of]) if each.operation == "rate" else series[each.of].reader(each.operation),
            )
            for each in figures
        ]

    def _rate(self, series: Series) -> Callable[[], Any]:
        within = self._window.shape.within

        def rate() -> float | None:
            seconds = self.now - self.since
            if within is not None and seconds > within:
                seconds = within
            return series.count / seconds if seconds > 0 else None

        return rate

    def add(self, item: Any) -> list[Any]:
        """Count an item in; return the value of each expression. Null counts as no value."""
        values = []
        for of, series in self._parts:
            value = item if of is None else of(item)
            values.append(value)
            if value is not None:
                series.count += 1
                try:
                    for add in series.adds:
                        add(value)
                except RunError as error:
                    raise self._refused(error, of) from error
        self.fresh += 1
        return values

    def _refused(self, error: RunError, of: Of | None) -> RunError:
        """Return an error with the figures that did not take a value, at the place of their expression."""
        names = listed([f"`{each.name}`" for each in self._window.figures if each.of is of], "and")
        failure = RunError(error.code, f"{names} of the window: {error.message}", final=error.final)
        failure.place = place_of(of) if of is not None else None
        return failure

    def drop(self) -> None:
        """Let the oldest item go."""
        at, values = self.items.popleft()
        self.since = at
        for (_, series), value in zip(self._parts, values, strict=True):
            if value is not None:
                series.count -= 1
                for remove in series.removes:
                    remove(value)

    def take_figures(self) -> dict[str, Any]:
        """Return the figures, by their names, and the group's key."""
        self.fresh = 0
        figures: dict[str, Any] = {"key": self.key} if self._window.by is not None else {}
        for name, read in self._readers:
            figures[name] = read()
        return figures


class Window:
    """Takes items with the time they came, and gives figures: one window for each group."""

    __slots__ = ("_began", "_groups", "_held", "_only", "by", "figures", "shape")

    def __init__(self, figures: Sequence[Figure], by: Of | None, shape: Shape, opened: float) -> None:
        self.figures = figures
        self.by = by
        self.shape = shape
        self._began = opened  # when the present window of a new group did
        self._held = 0
        #: By what tells the key from others; the group whose item came last is the last.
        self._groups: OrderedDict[Hashable, WindowGroup] = OrderedDict()
        self._only = None if by is not None else WindowGroup(self, None, opened)
        if self._only is not None:
            self._groups[None] = self._only

    def feed(self, items: Iterable[Any], at: float, figures: list[Any]) -> None:
        """Take items that came at a time; figures that are due go to ``figures``, also where an error follows.

        Raises RunError ``limit-reached`` for too many groups or items held.
        """
        shape, by, only = self.shape, self.by, self._only
        size, within = shape.size, shape.within
        sliding, tumbling = shape.sliding, shape.tumbling
        every = shape.every if type(shape.every) is int else None
        self._forget(at)
        for item in items:
            group = only if only is not None else self._group(by(item) if by else None)
            values = group.add(item)
            group.now = at
            if sliding:
                held = group.items
                held.append((at, values))
                self._held += 1
                if size is not None:
                    if len(held) > size:
                        group.drop()
                        self._held -= 1
                elif within is not None and held[0][0] <= at - within:
                    self._expire(group, at)
            if every is not None and group.fresh >= every:
                figures.append(group.take_figures())
                if tumbling:
                    group.begin(at)
        if self._held > shape.limit:
            self._make_room(at)

    def _group(self, key: Any) -> WindowGroup:
        known = identity(key)
        group = self._groups.get(known)
        if group is None:
            if len(self._groups) >= self.shape.groups:
                raise RunError(
                    "limit-reached",
                    f"the window has more than {self.shape.groups} groups: raise `groups`, or group by less",
                )
            # The time before the first item of a group belongs to its window too.
            group = self._groups[known] = WindowGroup(self, key, self._began)
        else:
            self._groups.move_to_end(known)
        return group

    def _expire(self, group: WindowGroup, at: float) -> None:
        """Let go what has left a window by time."""
        within = self.shape.within
        if within is None or not self.shape.sliding:
            return
        before = at - within
        held = group.items
        while held and held[0][0] <= before:
            group.drop()
            self._held -= 1

    def _forget(self, at: float) -> None:
        """Forget the groups of a window by time that have nothing left in it; a timer does so by itself."""
        within = self.shape.within
        if self.by is None or within is None or self.shape.timed or not self.shape.sliding:
            return
        groups = self._groups
        while groups:
            oldest = next(iter(groups.values()))
            if oldest.now > at - within:
                return
            groups.popitem(last=False)
            self._held -= len(oldest.items)

    def _make_room(self, at: float) -> None:
        for group in self._groups.values():
            self._expire(group, at)
        if self._held > self.shape.limit:
            shape = self.shape
            advice = (
                f"write `every: {show_duration(shape.within)}`, which holds none"
                if shape.within is not None
                else "a smaller `size`"
            )
            raise RunError(
                "limit-reached", f"the window holds more than {shape.limit} items: raise `limit`, or {advice}"
            )

    def tick(self, at: float) -> list[dict[str, Any]]:
        """Give the figures of every group at a time; one with nothing in it gives them once, and is forgotten."""
        figures = []
        timed = self.shape.within is not None
        for known, group in list(self._groups.items()):
            self._expire(group, at)
            group.now = at
            empty = timed and (not group.items if self.shape.sliding else not group.fresh)
            if empty and self.by is not None and group.reported_empty:
                del self._groups[known]
                continue
            group.reported_empty = empty
            figures.append(group.take_figures())
            if self.shape.tumbling:
                group.begin(at)
        if self.shape.tumbling:
            self._began = at
        return figures

    def rest(self, at: float) -> list[dict[str, Any]]:
        """Give the figures of the groups that had items since theirs were given last: the stream has ended."""
        figures = []
        for group in self._groups.values():
            if group.fresh:
                self._expire(group, at)
                group.now = at
                figures.append(group.take_figures())
        return figures


def windowed(run: Run, source: Source, make: Callable[[float], Window]) -> Batches:
    """Give figures after each number of items, those of the last partial one at the end."""
    time = get_running_loop().time
    window = make(time())
    figures: list[Any] = []  # also those that came before the item that failed

    def feed(items: Sequence[Any]) -> list[Any]:
        window.feed(items, time(), figures)
        due = figures.copy()
        figures.clear()
        return due

    return transformed(run, source, feed, lambda: figures + window.rest(time()))


async def windowed_on_time(source: Source, make: Callable[[float], Window], every: float) -> Batches:
    """Give figures at even times, whether items came or not, those of the last partial while at the end.

    The times don't drift. A reader who is late gets one for all that passed meanwhile.
    """
    time = get_running_loop().time

    async def pump(feed: Channel) -> None:
        try:
            while batch := await source.batch():
                at = time()
                for items in slices(batch):
                    await feed.put([(at, items)])
        finally:
            await source.close()

    async with AsyncExitStack() as stack:
        stack.push_async_callback(source.close)
        began = time()
        window, due = make(began), began + every
        feed = await stack.enter_async_context(Channel(pump))
        while True:
            try:
                came = await feed.take(due)
                for at, items in came or ():
                    if at >= due:
                        yield window.tick(due)
                        due = _next(due, every, at)
                    window.feed(items, at, [])
            except Exception:
                if rest := window.rest(time()):
                    yield rest
                raise
            if came is None:
                yield window.tick(due)
                due = _next(due, every, time())
            elif not came:
                break
        if rest := window.rest(time()):
            yield rest


def _next(due: float, every: float, now: float) -> float:
    """Return the next time after now at which figures are due."""
    due += every
    late = now - due
    return due + (late // every + 1) * every if late >= 0 else due


# ------------------------------------------------------------------------------------- changes

#: The one field of an item that is not an object.
VALUE: Final = "value"


class Changes:
    """Compares each item with the last one of its key. Past ``limit`` keys it fails, or ``forgets`` the oldest."""

    __slots__ = ("_fields", "_forgets", "_key", "_last", "_limit")

    def __init__(
        self, key: Callable[[Any], Any] | None, fields: Sequence[str] | None, limit: int, *, forgets: bool
    ) -> None:
        self._key = key
        self._fields = fields
        self._limit = limit
        self._forgets = forgets
        self._last: OrderedDict[Hashable, dict[str, Any]] = OrderedDict()

    def of(self, item: Any) -> dict[str, Any] | None:
        """Return what changed, None where nothing did.

        Raises RunError ``limit-reached`` for too many keys.
        """
        key = self._key(item) if self._key is not None else None
        now = self._fields_of(item)
        known = identity(key)
        before = self._last.get(known)
        if before is None:
            self._make_room()
            changed = {name: _first(value) for name, value in now.items()}
            removed: list[str] = []
        else:
            changed = {
                name: _change(value, before.get(name, MISSING))
                for name, value in now.items()
                if not _same(value, before.get(name, MISSING))
            }
            removed = [name for name in before if name not in now]
        self._last[known] = now
        if self._forgets:
            self._last.move_to_end(known)
        if before is not None and not changed and not removed:
            return None
        change: dict[str, Any] = {"key": key} if self._key is not None else {}
        change["first"] = before is None
        change["changed"] = changed
        change["removed"] = removed
        return change

    def _fields_of(self, item: Any) -> dict[str, Any]:
        if not isinstance(item, Mapping):
            operators.refuse_stream(item)
            if self._fields is not None:
                raise RunError("template", f"`fields` needs items that are objects, not {operators.a_kind(item)}")
            return {VALUE: item}
        if self._fields is None:
            return dict(item)
        return {name: item[name] for name in self._fields if name in item}

    def _make_room(self) -> None:
        if len(self._last) < self._limit:
            return
        if not self._forgets:
            raise RunError(
                "limit-reached", f"there are more than {self._limit} keys: raise `limit`, or write `onLimit: forget`"
            )
        self._last.popitem(last=False)


def _same(value: Any, before: Any) -> bool:
    if before is MISSING:
        return False
    return value is before or operators.equal(value, before)


def _is_number(value: Any) -> bool:
    kind = type(value)
    return kind is int or (kind in NUMBERS and operators.is_finite(value))


def _first(value: Any) -> dict[str, Any]:
    return {"value": value, "previous": None, "delta": None, "trend": "flat" if _is_number(value) else None}


def _change(value: Any, before: Any) -> dict[str, Any]:
    if before is MISSING or not _is_number(value) or not _is_number(before):
        return _first(value) | {"previous": None if before is MISSING else before}
    return {
        "value": value,
        "previous": before,
        "delta": operators.subtract(value, before),
        "trend": "up" if operators.less(before, value) else "down",
    }
