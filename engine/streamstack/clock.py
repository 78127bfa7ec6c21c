"""The clock that runs, limits, caches and tokens go by: the machine's, or the virtual one of a test.

Modules write `from streamstack import clock` and call `clock.monotonic()`, so that a test can replace the functions of
this module. Timers of the event loop follow the loop's own `time`, which agrees with `monotonic`. What concerns the
machine itself (processes, files, CPU limits) uses the module `time`.
"""

from __future__ import annotations

import time as machine
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

#: Seconds that only grow, as in `time.monotonic`.
monotonic: Callable[[], float] = machine.monotonic
#: Seconds that time slices of the CPU are measured in, as in `time.perf_counter`.
perf_counter: Callable[[], float] = machine.perf_counter
#: Seconds since 1970, as in `time.time`.
time: Callable[[], float] = machine.time
#: The present moment in UTC.
now: Callable[[], datetime] = partial(datetime.now, UTC)
#: Whether waits end exactly when they are due: they share no timers, and neither limits nor retries have jitter.
exact = False

_NOTHING: Final = nullcontext()


def _ignore() -> AbstractContextManager[None]:
    return _NOTHING


#: Enter the returned context while another process or a thread is at work for this one: virtual time stands still.
outside: Callable[[], AbstractContextManager[None]] = _ignore
#: Round trips of connections on which messages arrive by themselves: they bring what other work has sent. Virtual time
#: makes them after work `outside`, before it goes on.
round_trips: Final[set[Callable[[], Coroutine[Any, Any, None]]]] = set()
