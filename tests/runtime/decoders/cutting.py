"""Feed decoders in every way their input can be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from streamstack.runtime.decoders.decoder import Decoder

Make = Callable[[], Decoder]


def outcome(make: Make, parts: Iterable[bytes]) -> tuple[Any, ...]:
    """Return all that a decoder gives and becomes over some parts of its input."""
    decoder = make()
    items: list[Any] = []
    for part in parts:
        items += decoder.feed(part)
    items += decoder.finish()
    failure = decoder.failure
    told = None if failure is None else (failure.code, failure.message, failure.details)
    return items, decoder.skipped, decoder.ended, told


def joined(items: list[Any]) -> list[Any]:
    """Join neighbouring texts, or bytes: where they are cut says nothing."""
    if items and all(isinstance(item, str) for item in items):
        return ["".join(items)]
    if items and all(isinstance(item, bytes) for item in items):
        return [b"".join(items)]
    return items


def decode(make: Make, data: bytes, *, pieces: bool = False) -> tuple[Any, ...]:
    """Decode some bytes at once, byte by byte, and cut in two at every byte; all must come out the same.

    With ``pieces`` items are parts of one text, and only what they are together counts.
    """
    whole = outcome(make, [data])
    ways = [[data[at : at + 1] for at in range(len(data))]]
    ways += [[data[:at], data[at:]] for at in range(len(data) + 1)]
    ways += [[data[at : at + 3] for at in range(0, len(data), 3)]]
    for parts in ways:
        found = outcome(make, parts)
        if pieces:
            assert joined(found[0]) == joined(whole[0])
            assert found[1:] == whole[1:]
        else:
            assert found == whole, parts
    return whole


def items_of(make: Make, data: bytes) -> list[Any]:
    """Return the items of an input that decodes without a fault, however it is cut."""
    items, skipped, _, failure = decode(make, data)
    assert failure is None, failure
    assert skipped == 0
    return list(items)
