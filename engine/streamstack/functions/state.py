"""Functions of caches, counters and rate limits."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import lru_cache, partial
from math import ceil
from typing import TYPE_CHECKING, Any, Final

import structlog

from streamstack.connections.state import (
    MemoryRates,
    MemorySlots,
    MemoryStore,
    Number,
    Quota,
    Rates,
    Slots,
    Store,
    Verdict,
)
from streamstack.errors import RunError
from streamstack.language.definition import Effects, Example, Parameter, function
from streamstack.language.kinds import Kind
from streamstack.language.values import ALGORITHMS, MISSING, Opaque, Rate, canonical_json, show_duration
from streamstack.runtime.faults import located
from streamstack.runtime.run import Context, Run
from streamstack.spec import Bound, Nesting, StackOf

if TYPE_CHECKING:
    from streamstack.connections.redis import Redis


Work = Callable[[], Awaitable[Any]]


class _Flight:
    """Work under way: its end, and what came of it. A leader who was stopped leaves neither value nor error."""

    __slots__ = ("awaits", "ended", "error", "value")

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.value: Any = MISSING
        self.error: RunError | None = None
        self.awaits: list[_Flight] = []  # what its leader waits for

    def depends_on(self, others: tuple[_Flight, ...]) -> bool:
        """Whether this can't end before one of some others does."""
        return self in others or any(each.depends_on(others) for each in self.awaits)


#: The flights that the present task is at work for, the outermost first.
_leading: ContextVar[tuple[_Flight, ...]] = ContextVar("leading", default=())


class SingleFlight:
    """Lets one do the work for a key, while the others who ask for it wait."""

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight] = {}

    @property
    def nested(self) -> bool:
        """Whether the present task is at work for more keys than one, the one within the other."""
        return len(_leading.get()) > 1

    async def do(self, key: bytes, work: Work) -> Any:
        """Return what the work gives, done here or by the one who asked first.

        An error goes to all who wait. One who is stopped hands over to another. Work that would have to wait for itself
        is done on the spot instead.
        """
        mine = _leading.get()
        while (flight := self._flights.get(key)) is not None:
            if mine and flight.depends_on(mine):
                return await work()
            for each in mine:
                each.awaits.append(flight)
            try:
                await flight.ended.wait()
            finally:
                for each in mine:
                    each.awaits.remove(flight)
            if flight.error is not None:
                raise flight.error.copy()
            if flight.value is not MISSING:
                return flight.value
        return await self._lead(key, work, mine)

    async def _lead(self, key: bytes, work: Work, mine: tuple[_Flight, ...]) -> Any:
        flight = self._flights[key] = _Flight()
        token = _leading.set((*mine, flight))
        try:
            flight.value = await work()
        except Exception as error:
            flight.error = located(error)
            raise
        finally:
            _leading.reset(token)
            del self._flights[key]
            flight.ended.set()
        return flight.value


class StateFunctions:
    """The one store of a process, and who is at work for which key of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.flights = SingleFlight()

    async def aclose(self) -> None:
        """Close the store."""
        await self.store.aclose()


def open_state(context: Context) -> StateFunctions:
    """Make the one state of a process; `context.resource(open_state)` returns it."""
    settings = context.state
    if not settings.shared:
        return StateFunctions(MemoryStore(settings))
    from streamstack.connections.redis_state import RedisStore  # noqa: PLC0415  (see open_redis)

    redis, slots = context.resource(open_redis), context.resource(open_slots)
    return StateFunctions(RedisStore(redis, slots, settings.max_size))


def open_slots(context: Context) -> Slots:
    """Make what counts places: of this process, or over all that share its Redis."""
    if not context.state.shared:
        return MemorySlots()
    from streamstack.connections.redis_state import RedisSlots  # noqa: PLC0415  (see open_redis)

    return RedisSlots(context.resource(open_redis))


def open_rates(context: Context) -> Rates:
    """Make what counts calls: of this process, or over all that share its Redis."""
    most, max_size = context.state.max_entries, context.state.max_size
    if not context.state.shared:
        return MemoryRates(most, max_size)
    from streamstack.connections.redis_state import RedisRates  # noqa: PLC0415  (see open_redis)

    return RedisRates(context.resource(open_redis), most, max_size)


def open_redis(context: Context) -> Redis:
    """Make the connections to the Redis of the settings; `context.resource(open_redis)` returns them.

    Raises RunError ``template`` where state is in memory: who asks looks at ``context.state.shared`` first.
    """
    # Its library is loaded where a project has a Redis, which most have not.
    from streamstack.connections.redis import Redis  # noqa: PLC0415

    settings = context.state
    if settings.redis is None:
        raise RunError("template", "state is in memory: set `state.url` to redis://...", final=True)
    return Redis(settings.redis, settings.prefix)


#: Bytes of a key that is kept as it is.
_SHORT: Final = 200


def key_of(value: Any) -> bytes:
    """Return the key of a count: equal values have one, and no other has.

    Raises RunError ``template`` for a stream or a file.
    """
    key = canonical_json(value)
    return key if len(key) <= _SHORT else hashlib.sha256(key).hexdigest().encode()


def quota_of(rate: Rate, algorithm: str, key: bytes) -> Quota:
    """Return what is counted for a rate. Counts of another time, or of the other algorithm, are others."""
    start, period, sliding = _shape(rate.seconds, algorithm)
    return Quota(start + key, rate.limit, period, sliding)


@lru_cache(256)
def _shape(seconds: float, algorithm: str) -> tuple[bytes, int, bool]:
    """Return how keys of a time and an algorithm begin, the milliseconds, and whether it is the sliding one."""
    period = max(1, round(seconds * 1000))
    sliding = algorithm == "sliding"
    return b"%b%d:" % (b"s" if sliding else b"f", period), period, sliding


def tightest(quotas: Sequence[Quota], verdicts: Sequence[Verdict]) -> tuple[Quota, Verdict]:
    """Return the quota to report: that which refuses for longest, else that with the least left."""
    pairs = zip(quotas, verdicts, strict=True)
    return min(pairs, key=lambda pair: (pair[1].admitted, pair[1].remaining, -pair[1].reset))


def seconds_of(verdict: Verdict) -> int:
    """Return the whole seconds until there is more, rounded up."""
    return ceil(verdict.reset / 1000)


def refusal(quota: Quota, verdict: Verdict) -> RunError:
    """Return the error of a call beyond the limit."""
    rate = Rate(quota.limit, quota.period / 1000)
    return RunError(
        "rate-limited",
        f"the limit of {rate} is used up: try again in {show_duration(seconds_of(verdict))}",
        retry_after=verdict.reset / 1000,
    )


log = structlog.get_logger("streamstack.run")

_KEY = Parameter("key", Bound(Kind.KEY), "Key: a text, a number, or a list of them.", required=True, main=True)
_TTL = Parameter("ttl", Bound(Kind.DURATION, minimum=0.001), "Time to live. Default: until the entry is evicted.")


def _check_storable(value: Any) -> None:
    if isinstance(value, Opaque):
        raise RunError("template", f"a {value.kind} can't be cached: {value.remedy}")


@function(
    "cache.get",
    _KEY,
    effects=Effects(gives="value", result="any?"),
    examples=[
        Example(
            "an existing and a missing key",
            "- cache.set: {key: [rate, EUR], value: 1.08}\n- cache.get: [rate, EUR]\n  as: rate\n"
            "- cache.get: [rate, CHF]\n  as: missing\n- return: << [rate, missing] >>",
            result=[1.08, None],
        )
    ],
)
async def get(run: Run, key: Any) -> Any:
    """Return a cached value; null if there is none, or it has expired."""
    value = await run.context.resource(open_state).store.get(canonical_json(key))
    return None if value is MISSING else value


@function(
    "cache.set",
    _KEY,
    Parameter("value", Bound(), "Value to store.", required=True),
    _TTL,
    examples=[
        Example(
            "expire after a time",
            "- cache.set: {key: a, value: 1, ttl: 20ms}\n- cache.get: a\n  as: before\n- wait: 40ms\n"
            "- cache.get: a\n  as: after\n- return: << [before, after] >>",
            result=[1, None],
        )
    ],
)
async def set_(run: Run, key: Any, value: Any, ttl: float | None = None) -> None:
    """Store a value in the cache, replacing any previous value of the key.

    The cache is bounded. In memory, the least recently used entries are evicted above `state.maxEntries` or
    `state.maxSize`; in Redis, the configuration of Redis decides. A single value larger than `maxSize` fails
    with `limit-reached`. Streams and files can't be cached.
    """
    _check_storable(value)
    await run.context.resource(open_state).store.set(canonical_json(key), value, ttl)


@function(
    "cache.delete",
    _KEY,
    effects=Effects(gives="value", result="boolean"),
    examples=[
        Example(
            "delete twice",
            "- cache.set: {key: a, value: 1}\n- cache.delete: a\n  as: first\n- cache.delete: a\n  as: second\n"
            "- return: << [first, second] >>",
            result=[True, False],
        )
    ],
)
async def delete(run: Run, key: Any) -> bool:
    """Delete a cached value. Return whether it existed."""
    return await run.context.resource(open_state).store.delete(canonical_json(key))


@function(
    "cache.use",
    Parameter("key", Bound(Kind.KEY), "Key: a text, a number, or a list of them.", required=True),
    _TTL,
    Parameter(
        "do", StackOf(Nesting.FRAME), "Steps that compute a missing value. Their `return` is the value.", required=True
    ),
    effects=Effects(gives="value", result="do"),
    examples=[
        Example(
            "compute a value once",
            "- set: {all: []}\n- repeat:\n    times: 3\n    do:\n      - cache.use:\n"
            "          key: answer\n          ttl: 1m\n          do:\n            - counter.add: made\n"
            "              as: times\n"
            "            - return: << times >>\n        as: value\n"
            "      - append: {to: all, value: << value >>}\n- return: << all >>",
            result=[1, 1, 1],
        ),
        Example(
            "errors are not cached", "- cache.use: {key: a, do: [{throw: sold-out}]}\n  as: value", fails="sold-out"
        ),
    ],
)
async def use(run: Run, key: Any, do: Callable[[], Awaitable[Any]], ttl: float | None = None) -> Any:
    """Return the cached value, or run the steps and cache the value they return.

    Concurrent runs that need the same key run the steps once: the others wait for the result. An error is
    returned to all of them and is not cached: the next run tries again. If the run that computes the value is
    cancelled, a waiting run takes over. Steps without `return` yield null, which is cached like any value.
    Chunks that the steps emit are sent to the client of the run that executes them. A value too large for the
    cache is returned but not cached.

    With Redis as the state store, the steps run once across all servers that share it. If the server that runs
    them is killed, another takes over. An error is returned only to the runs on the server where it happened.
    While Redis is unreachable, the steps run and their result is not cached.
    """
    state = run.context.resource(open_state)
    name = canonical_json(key)
    value = await read_cached(state.store, name)
    if value is not MISSING:
        return value

    async def make() -> Any:
        made = await do()
        _check_storable(made)
        try:
            await state.store.set(name, made, ttl)
        except RunError as error:
            if error.code == "limit-reached":
                log.warning("not-cached", run=run.id, key=name.decode(), message=error.message)
            elif error.code != "state-unreachable":  # which the log has already
                raise
        return made

    return await state.flights.do(name, partial(make_alone, state, name, make))


async def read_cached(store: Store, name: bytes) -> Any:
    """Return what is cached; MISSING also where the store is out of reach."""
    try:
        return await store.get(name)
    except RunError as error:
        if error.code != "state-unreachable":
            raise
        return MISSING


async def make_alone(state: StateFunctions, name: bytes, make: Callable[[], Awaitable[Any]]) -> Any:
    """Make a value; where others share the store, of all processes in one."""
    begun = False

    async def work() -> Any:
        nonlocal begun
        begun = True
        return await make()

    if state.flights.nested:
        # Who waited for another process, and is waited for by it, would wait for ever.
        return await make()
    try:
        return await state.store.alone(name, work)
    except RunError as error:
        if error.code != "state-unreachable" or begun:
            raise
        return await make()


@function(
    "counter.add",
    _KEY,
    Parameter("by", Bound(Kind.NUMBER), "Amount to add. A negative amount counts down.", default=1),
    Parameter(
        "ttl",
        Bound(Kind.DURATION, minimum=0.001),
        "Time to live of the counter, from its first use. Then it restarts at 0.",
    ),
    effects=Effects(gives="value", result="number"),
    examples=[
        Example(
            "up and down",
            "- counter.add: visits\n  as: one\n- counter.add: {key: visits, by: 5}\n  as: six\n"
            "- counter.add: {key: visits, by: -2}\n  as: four\n- return: << [one, six, four] >>",
            result=[1, 6, 4],
        )
    ],
)
async def add(run: Run, key: Any, by: Number = 1, ttl: float | None = None) -> Number:
    """Add to a counter shared by all runs, and return its new value. A new counter starts at 0.

    The operation is atomic. With `by: 0`, the value is only read. In memory, the least recently used counter is
    evicted above `state.maxEntries` counters.
    """
    return await run.context.resource(open_state).store.add(canonical_json(key), by, ttl)


@function(
    "rateLimit",
    Parameter("key", Bound(Kind.KEY), "Key to count: a text, a number, or a list of them.", required=True, main=True),
    Parameter("limit", Bound(Kind.RATE), "Maximum number of calls in a time: 60/minute, 20/10s.", required=True),
    Parameter(
        "algorithm",
        Bound(Kind.TEXT, choices=ALGORITHMS),
        "`fixed`: consecutive windows, the first of which starts with the first call. `sliding`: never more than "
        "the limit in any period of that length.",
        default=ALGORITHMS[0],
    ),
    effects=Effects(gives="value", result="{limit: integer, remaining: integer, reset: integer}"),
    examples=[
        Example(
            "remaining calls",
            "- rateLimit: {key: [mail, ada], limit: 3/hour}\n  as: left\n"
            "- return: << [left.limit, left.remaining, left.reset] >>",
            result=[3, 2, 3600],
        ),
        Example(
            "exceed the limit",
            "- repeat:\n    times: 3\n    do:\n      - rateLimit: {key: mails, limit: 2/minute}",
            fails="rate-limited",
        ),
    ],
)
async def rate_limit(run: Run, key: Any, limit: Rate, algorithm: str = "fixed") -> dict[str, int]:
    """Count a call, and fail if the rate limit is exceeded.

    Above the limit, the step fails with `rate-limited`: if it is not caught, the response is 429 with
    `Retry-After`. Rejected calls are not counted. Otherwise the step returns `limit`, `remaining` (calls left)
    and `reset` (seconds until more calls are available). A key has one counter in the whole project for each
    period. To limit the requests to an endpoint, use the endpoint's `rateLimit`.
    """
    quota = quota_of(limit, algorithm, key_of(["key", key]))
    (verdict,) = await run.context.resource(open_rates).hit([quota])
    if not verdict.admitted:
        raise refusal(quota, verdict)
    return {"limit": quota.limit, "remaining": verdict.remaining, "reset": seconds_of(verdict)}


FUNCTIONS = (get, set_, delete, use, add, rate_limit)
