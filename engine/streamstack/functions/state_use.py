"""What the State family and the server share: the store of a process, and its Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamstack.errors import RunError
from streamstack.runtime.run import Context

if TYPE_CHECKING:
    from streamstack.connections.redis import Redis


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
