"""Stopping a stream's run, wherever it is."""

from __future__ import annotations

import asyncio
from typing import Final

from streamstack.errors import RunError
from streamstack.language.values import to_json
from streamstack.server.resuming.absence import Absence
from streamstack.server.resuming.elsewhere import Elsewhere
from streamstack.server.resuming.ids import LAST
from streamstack.server.resuming.shared import Shared
from streamstack.server.resuming.streams import Stream, Streams, stopped

#: Seconds that a run which is stopped has to end.
STOPPING: Final = 5.0
#: Seconds between two looks at the store.
_LOOK: Final = 0.05


async def stop(streams: Streams, stream: Stream | Elsewhere) -> bool:
    """End a run, and wait for some seconds until it has told so; return whether it has.

    A run whose server is gone has ended. Raises RunError ``state-unreachable`` where its server can't be told.
    """
    if isinstance(stream, Stream):
        return await stream.stop_and_wait(stopped("the stream was stopped by its reader"), STOPPING)
    if streams.shared is None or stream.end is not None:
        return True
    await streams.shared.store.tell(stream.worker, to_json({"stop": stream.origin.id}))
    try:
        async with asyncio.timeout(STOPPING):
            await _wait(streams.shared, stream)
    except TimeoutError:
        return False
    return True


async def _wait(shared: Shared, stream: Elsewhere) -> None:
    absence = Absence(shared, stream)
    while True:
        try:
            seen = await shared.store.look(stream.origin.id, LAST)  # no chunks
        except RunError:
            absence.forget()  # it was told: what becomes of that can't be seen now
        else:
            # A store that has lost the stream does not tell that its run has ended.
            if seen is not None and (seen.end is not None or await absence.lost(seen)):
                return
        await asyncio.sleep(_LOOK)
