"""The store of a project, made ready before anyone asks."""

from __future__ import annotations

from collections.abc import Callable

from streamstack.errors import RunError
from streamstack.functions.state_use import open_redis
from streamstack.runtime.run import Context


async def prepare_state(context: Context, tell: Callable[[str], None]) -> None:
    """Connect to the Redis of the settings, where there is one.

    ``tell`` is told of one that is out of reach: it may be there when it is needed.
    """
    if not context.state.shared:
        return
    try:
        await context.resource(open_redis).reach()
    except RunError as error:
        tell(f"{error.message}; it is tried again when it is needed")
