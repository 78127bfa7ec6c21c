"""What the State family and the server share: the store of a process, and its Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamstack.connections.state import MemoryRates, MemorySlots, MemoryStore, Rates, Slots, Store
from streamstack.errors import RunError
from streamstack.functions.single_flight import SingleFlight
from streamstack.runtime.run import Context

if TYPE_CHECKING:
    from streamstack.connections.redis import Redis


class State:
    """The one store of a process, and who is at work for which key of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.flights = SingleFlight()

    async def aclose(self) -> None:
        """Close the store."""
        await self.store.aclose()


def open_state(context: Context) -> State:
    """Make the one state of a process; `context.resource(open_state)` returns it."""
    settings = context.state
    if not settings.shared:
        return State(MemoryStore(settings))
    from streamstack.connections.redis_state import RedisStore  # noqa: PLC0415  (see open_redis)

    redis, slots = context.resource(open_redis), context.resource(open_slots)
    return State(RedisStore(redis, slots, settings.max_size))


def open_slots(context: Context) -> Slots:
    """Make what counts places: of this process, or over all that share its Redis."""
    if not context.state.shared:
        return MemorySlots()
    from streamstack.connections.redis_state import RedisSlots  # noqa: PLC0415  (see open_redis)

    return RedisSlots(context.resource(open_redis))


def open_rates(context: Context) -> Rates:
    """Make what counts calls: of this process, or over all that share its Redis."""
    most = context.state.max_entries
    if not context.state.shared:
        return MemoryRates(most)
    from streamstack.connections.redis_state import RedisRates  # noqa: PLC0415  (see open_redis)

    return RedisRates(context.resource(open_redis), most)


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
