"""Streams as values: items over time, in batches, consumed once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamstack.errors import RunError
from streamstack.language.operators import a_kind
from streamstack.language.values import Opaque

#: Gives the items of a stream in lists of at least one. Closing it must close what feeds it.
Batches = AsyncGenerator[list[Any], None]


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
    ``encoded`` opens it for one who hands each item on unchanged: items may then be JSON that is written already
    (orjson.Fragment).
    """

    __slots__ = ("_batches", "_encoded", "_open", "_properties", "about", "count", "finished")
    kind = "stream"

    def __init__(
        self,
        open: Callable[[], Batches],  # noqa: A002  (what it does)
        properties: Mapping[str, Callable[[], Any]] | None = None,
        about: About | None = None,
        *,
        encoded: Callable[[], Batches] | None = None,
    ) -> None:
        self._open: Callable[[], Batches] | None = open
        self._encoded = encoded
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

    def consume(self, *, unchanged: bool = False) -> Stream:
        """Claim the stream for one consumer; ``unchanged`` is one who only hands the items on to the sink.

        Raises RunError ``template`` when another consumer has had it.
        """
        if self._open is None:
            raise RunError(
                "template", "this stream was consumed before; a stream can be read once: `collect` it to read it again"
            )
        opened = self._encoded if unchanged and self._encoded is not None else self._open
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


def iterate(value: Any, *, unchanged: bool = False) -> Stream | Items:
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


class Turns:
    """What `loop` counts in `repeat`: a number of turns known beforehand."""

    __slots__ = ("length",)

    def __init__(self, turns: Sequence[int]) -> None:
        self.length = len(turns)


class Endless:
    """What `loop` counts in `while` and `streams.map`, whose number of turns is unknown."""

    @property
    def length(self) -> int:
        """Refuse: the number of turns is unknown."""
        raise RunError(
            "template", "`loop.length` and `loop.last` are not available here: the number of turns is unknown"
        )


ENDLESS = Endless()
