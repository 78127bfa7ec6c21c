"""How long whoever writes a stream has been away, and what becomes of the stream then."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import Final

from streamstack.connections.stream_store import Seen
from streamstack.errors import RunError
from streamstack.server.problems import log
from streamstack.server.resuming.elsewhere import Elsewhere, write_end
from streamstack.server.resuming.journal import End
from streamstack.server.resuming.shared import Shared

#: Seconds without a lease before who writes is taken for lost: a store that was away has none of those that live.
GRACE: Final = 3.0


class Absence:
    """Watches whether the process that writes a stream is there."""

    __slots__ = ("_shared", "_since", "_stream")

    def __init__(self, shared: Shared, stream: Elsewhere) -> None:
        self._shared = shared
        self._stream = stream
        self._since = 0.0

    def forget(self) -> None:
        """Count anew: there was a sign of life, or nobody could see one."""
        self._since = 0.0

    async def lost(self, seen: Seen) -> bool:
        """Tell whether who writes it is gone. The first who finds out ends it for all."""
        if seen.alive:
            self._since = 0.0
            return False
        self._since = self._since or monotonic()
        if monotonic() - self._since < GRACE:
            return False
        origin = self._stream.origin
        with suppress(RunError):
            # Those who come later find it with this end; where it has got another meanwhile, that counts.
            end = write_end(End(lost=True))
            if not await self._shared.store.lose(origin.id, end, origin.resume.keep):
                self._since = 0.0
                return False
        log.warning("stream-lost", stream=origin.id, run=origin.run, worker=self._stream.worker)
        return True
