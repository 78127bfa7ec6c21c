from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstack.connections.state import MemoryStore, Store
from streamstack.errors import RunError
from streamstack.language.settings import StateSettings
from streamstack.language.values import MISSING
from streamstack.runtime.values import Stream
from tests.waiting import StoppedClock


@pytest.fixture(autouse=True, scope="module")
def clock() -> Iterator[StoppedClock]:
    """The clock that all stores go by."""
    with StoppedClock() as clock:
        yield clock


def store(max_entries: int = 1000, max_size: int = 1 << 20) -> MemoryStore:
    """Make a store."""
    return MemoryStore(StateSettings(max_entries=max_entries, max_size=max_size))


async def test_a_value_is_kept_for_its_time(clock: StoppedClock) -> None:
    """Then it is missing, as one that never was; null is a value."""
    made = store()
    kept: Store = made
    await kept.set(b"a", None, 5)
    await kept.set(b"b", 1, None)
    assert await kept.get(b"a") is None
    assert await kept.get(b"c") is MISSING
    clock.now += 5
    assert await kept.get(b"a") is MISSING
    assert await kept.get(b"b") == 1
    assert await kept.delete(b"a") is False
    assert await kept.delete(b"b") is True
    assert await kept.get(b"b") is MISSING
    await kept.aclose()


async def test_what_was_not_used_for_longest_goes(clock: StoppedClock) -> None:
    """Reading is using; entries that are over go before any other."""
    made = store(max_entries=3)
    for key in (b"a", b"b", b"c"):
        await made.set(key, 1, None)
    await made.get(b"a")
    await made.set(b"d", 1, None)
    assert [await made.get(key) is MISSING for key in (b"a", b"b", b"c", b"d")] == [False, True, False, False]
    await made.set(b"a", 1, 1)
    await made.get(b"c")
    clock.now += 2
    await made.set(b"e", 1, None)
    assert [await made.get(key) is MISSING for key in (b"a", b"c", b"d", b"e")] == [True, False, False, False]


async def test_bytes_are_bounded() -> None:
    """Large values drive others out; one larger than all of the room is an error."""
    made = store(max_size=10_000)
    for number in range(100):
        await made.set(b"%d" % number, "x" * 1000, None)
        assert made.values.size <= 10_000
    assert 5 <= len(made.values) <= 10
    with pytest.raises(RunError, match=r"`state.maxSize` is 10,000") as raised:
        await made.set(b"large", "x" * 10_000, None)
    assert raised.value.code == "limit-reached"


SHAPES: dict[str, Callable[[int], Any]] = {
    "floats": lambda n: [n + i * 0.5 for i in range(500)],
    "integers": lambda n: [n * 1000 + i + 1000 for i in range(500)],
    "small integers": lambda n: [(n + i) % 200 for i in range(500)],
    "rows": lambda n: json.loads(json.dumps([{"id": i, "name": f"row {n} {i}", "price": i * 1.5} for i in range(100)])),
    "lists": lambda n: [[n + i + 1000] for i in range(300)],
    "decimals": lambda n: [Decimal(f"{n}.{i}") for i in range(100)],
    "texts": lambda n: "é€" * 2000 + str(n),
    "bytes": lambda n: b"x" * 5000 + b"%d" % n,
    "tiny": lambda n: n + 1000,
}


@pytest.mark.parametrize("shape", [*SHAPES, "counters", "large counters"])
async def test_what_is_held_is_counted(shape: str) -> None:
    """The size that is bounded is the memory that values and counters take, whatever they are made of."""
    made = store(10**6, 400_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3000):
            key = b"key %d" % number
            if "counters" in shape:
                await made.add(key, 1, None)
                await made.add(key, 10**3000 if shape == "large counters" else 1, None)
            else:
                await made.set(key, SHAPES[shape](number), None)
            size = made.values.size + made.counters.size
            assert size <= 400_000
            if size > 350_000:
                break
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert size > 350_000
    assert 0.6 < held / size < 1.4


async def test_counters_take_room_of_values() -> None:
    """Counters and values together have `state.maxSize`; values go first."""
    made = store(10**6, 100_000)
    for number in range(50):
        await made.set(b"value %d" % number, "x" * 1000, None)
    for number in range(1000):
        await made.add(b"counter %d" % number, 1, None)
        assert made.values.size + made.counters.size <= 100_000
    assert len(made.values) == 0
    assert 200 < len(made.counters) < 400
    assert await made.add(b"counter 999", 0, None) == 1


async def test_what_has_no_json_is_not_kept() -> None:
    """A stream within a value is refused, and what was there stays."""
    made = store()
    await made.set(b"a", 1, None)
    with pytest.raises(RunError, match="stream can't"):
        await made.set(b"a", {"in": [Stream(lambda: None)]}, None)  # type: ignore[arg-type, return-value]
    assert await made.get(b"a") == 1


async def test_replaced_times_take_no_room(clock: StoppedClock) -> None:
    """A value that is set again and again leaves nothing of the times it had; the last one counts."""
    made = store()
    for _ in range(10_000):
        await made.set(b"a", 1, 1000)
    assert len(made.values._due) < 200  # noqa: SLF001  (what must not grow)
    await made.set(b"a", 1, 5)
    clock.now += 5
    await made.set(b"b", 1, None)
    assert len(made.values) == 1


async def test_counters(clock: StoppedClock) -> None:
    """They count integers, decimals and floats, begin again after their time, and no cached value drives them out."""
    made = store(max_entries=2)
    assert await made.add(b"a", 2, 10) == 2
    clock.now += 9
    assert await made.add(b"a", Decimal("0.5"), 10) == Decimal("2.5")  # the time is that of the beginning
    clock.now += 1
    assert await made.add(b"a", 1, 10) == 1
    for number in range(10):
        await made.set(b"%d" % number, 1, None)
    assert await made.add(b"a", 0, None) == 1
    assert await made.get(b"a") is MISSING
    await made.add(b"b", 1, None)
    await made.add(b"c", 1, None)
    assert await made.add(b"a", 0, None) == 0


KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
ACTS = st.one_of(
    st.tuples(st.just("set"), KEYS, st.one_of(st.none(), st.integers(1, 5))),
    st.tuples(st.just("get"), KEYS, st.none()),
    st.tuples(st.just("delete"), KEYS, st.none()),
    st.tuples(st.just("wait"), KEYS, st.integers(1, 4)),
)


@given(st.lists(ACTS, max_size=60))
async def test_it_is_a_dictionary_with_times(clock: StoppedClock, acts: list[tuple[str, bytes, Any]]) -> None:
    """Without bounds in the way, a store does what the simplest one would."""
    made = store()
    plain: dict[bytes, tuple[int, float]] = {}
    for number, (act, key, more) in enumerate(acts):
        if act == "wait":
            clock.now += more
        plain = {k: v for k, v in plain.items() if v[1] > clock.now}
        if act == "set":
            await made.set(key, number, more)
            plain[key] = (number, float("inf") if more is None else clock.now + more)
        elif act == "delete":
            assert await made.delete(key) == (plain.pop(key, None) is not None)
        elif act == "get":
            assert await made.get(key) == plain.get(key, (MISSING, 0))[0]
    assert made.values.size >= 300 * len(plain)
