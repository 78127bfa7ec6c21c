"""Ratings of runs: which runs there were lately and whose, and the stack of the endpoint that takes ratings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from streamstack.connections.state import MemoryStore, Store
from streamstack.errors import RunError
from streamstack.functions.state import open_redis, open_slots
from streamstack.language.settings import StateSettings
from streamstack.language.values import MISSING
from streamstack.runtime.run import Context, Run
from streamstack.server.access import Guard, owner_of
from streamstack.server.headers import CorsHeaders
from streamstack.server.metrics import open_metrics
from streamstack.server.replies import log
from streamstack.server.response import ResponseSink

Stack = Callable[[Run, dict[str, Any]], Coroutine[Any, Any, Any]]

#: Runs that a process without Redis remembers, and the bytes that they may take: the oldest are forgotten.
_MOST_RUNS: Final = 100_000
_MAX_SIZE: Final = 64 * 1024 * 1024
#: Before the ids of runs in the store: no key of an author begins so.
_PREFIX: Final = b"\0run:"


class RecentRuns:
    """The runs that can be rated, over all processes that share a state."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writing: set[asyncio.Task[None]] = set()

    def remember(self, run: Run, endpoint: str, row: str, keep: float) -> None:
        """Remember a run for some seconds, beside what it does."""
        variants = {name: bound["variant"] for name, bound in run.experiment.items()}
        record = {"endpoint": endpoint, "row": row, "experiment": variants, "owner": owner_of(run.auth)}
        task = asyncio.get_running_loop().create_task(self._write(run.id, record, keep))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, run: str, record: Mapping[str, Any], keep: float) -> None:
        try:
            await self._store.set(_PREFIX + run.encode(), record, keep)
        except RunError as error:
            log.warning("run-not-remembered", run=run, code=error.code, reason=error.message)

    async def find(self, run: str) -> dict[str, Any] | None:
        """Return what is remembered of a run. Raises RunError ``state-unreachable``."""
        found = await self._store.get(_PREFIX + run.encode())
        return None if found is MISSING else found

    async def rate(self, run: str, record: dict[str, Any], rating: str, keep: float) -> tuple[bool, str | None]:
        """Record a rating; return whether it is the run's first one, else the one that it replaces, if it is known."""
        key = _PREFIX + run.encode()
        first = await self._store.add(key, 1, keep) == 1
        previous = None if first else (await self.find(run) or record).get("rating")
        await self._store.set(key, {**record, "rating": rating}, keep)
        return first, previous

    async def aclose(self) -> None:
        """Wait for what is being written."""
        if self._writing:
            await asyncio.wait(self._writing)


def open_recent_runs(context: Context) -> RecentRuns:
    """Make the recent runs of a process; `context.resource(open_recent_runs)` returns them."""
    if not context.state.shared:
        return RecentRuns(MemoryStore(StateSettings(max_entries=_MOST_RUNS, max_size=_MAX_SIZE)))
    from streamstack.connections.redis_state import RedisStore  # noqa: PLC0415  (see open_redis)

    return RecentRuns(RedisStore(context.resource(open_redis), context.resource(open_slots), context.state.max_size))


def rating_stack(stack: Stack, guards: Mapping[str, Guard | None], cors: CorsHeaders, keep: float) -> Stack:
    """Return the stack of the endpoint that takes ratings.

    Args:
        stack: What its definition does once the run is found.
        guards: What stands before each endpoint, by its title.
        cors: The rules for other origins.
        keep: Seconds that a rating is remembered.
    """

    async def rate(run: Run, inputs: dict[str, Any]) -> Any:
        runs = run.context.resource(open_recent_runs)
        rated = inputs["run"]
        record = await runs.find(rated)
        if record is None or record["endpoint"] not in guards:
            raise _unknown_run()
        await _authorize(run, record, guards[record["endpoint"]], cors)
        rating, comment = inputs["rating"], inputs["comment"]
        first, previous = await runs.rate(rated, record, str(rating), keep)
        if first or previous is not None:
            run.context.resource(open_metrics).rate(record["row"], str(rating), previous)
        about = {"experiment": record["experiment"]} if record["experiment"] else {}
        log.info("run-rated", rated=rated, endpoint=record["endpoint"], rating=rating, comment=comment, **about)
        inputs["endpoint"], inputs["experiment"] = record["endpoint"], record["experiment"]
        return await stack(run, inputs)

    return rate


async def _authorize(run: Run, record: Mapping[str, Any], guard: Guard | None, cors: CorsHeaders) -> None:
    """Admit only the caller whose run it was. Raises RunError ``not-found`` for all others."""
    claims = None
    if guard is not None:
        assert isinstance(run.sink, ResponseSink)
        try:
            claims = await guard.admit(run.sink.request, run.context, cors)
        except RunError as error:
            if error.code in ("unauthorized", "forbidden"):
                raise _unknown_run() from error
            raise
    if record["owner"] and record["owner"] != owner_of(claims):
        raise _unknown_run()


def _unknown_run() -> RunError:
    return RunError("not-found", "no run of yours has this id, or it is too long ago to be rated")
