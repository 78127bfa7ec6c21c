"""Jobs: their records, the interface of their queue, and the queue in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Protocol

from streamstack.connections.serialization import dumps, loads
from streamstack.connections.state import MemoryStore
from streamstack.errors import RunError
from streamstack.language.definition import Retry
from streamstack.language.settings import StateSettings
from streamstack.language.values import MISSING

#: The numbers of the chunks of two attempts are at least so far apart: a reader of the one can't mistake them.
STRIDE: Final = 10_000_000_000
#: How often a job is taken over from a process that died. One that kills its process must not go on killing.
MOST_LOSSES: Final = 5

#: What a job may be. Those of `ENDED` change no more.
WAITING: Final = "waiting"
RUNNING: Final = "running"
ENDED: Final = frozenset({"completed", "failed", "cancelled"})


@dataclass(slots=True)
class Job:
    """One job.

    Args:
        id: Its id, which is that of its stream.
        run: The id of its runs.
        function: The `kind: function` that it runs.
        arguments: The inputs, serialized.
        owner: Identifies the caller that started it, "" without authentication.
        auth: The claims of that caller.
        key: What its idempotency key is known by, b"" without one.
        retry: How it is tried again after an error.
        restarts: Whether it runs again when its process was lost.
        depth: How many jobs started one another before it.
        claims: How often a process has claimed it: who has the highest number runs it.
        losses: How often its process died.
        failures: How many errors were followed by another attempt.
        cancelled: Whether it is to be stopped.
        state: `waiting`, `running`, or one of `ENDED`.
        result: What it returned, or the error that it ended by, serialized.
    """

    id: str
    run: str
    function: str
    arguments: bytes
    owner: str = ""
    auth: Mapping[str, Any] | None = None
    key: bytes = b""
    retry: Retry | None = None
    restarts: bool = True
    depth: int = 0
    claims: int = 0
    losses: int = 0
    failures: int = 0
    cancelled: bool = False
    state: str = WAITING
    result: bytes = b""

    @property
    def attempt(self) -> int:
        """The number of the present attempt, counted from 1."""
        return self.claims + self.failures

    @property
    def first(self) -> int:
        """The number of the first chunk of those that the present process sends."""
        return (self.claims - 1) * STRIDE


#: What never changes of a job.
_CONSTANT: Final = ("id", "run", "function", "arguments", "owner", "auth", "key", "restarts", "depth")


def write_job(job: Job) -> bytes:
    """Return what never changes of a job, serialized."""
    values = {name: getattr(job, name) for name in _CONSTANT}
    if job.auth is not None:
        values["auth"] = dict(job.auth)
    if job.retry is not None:
        retry = {each.name: getattr(job.retry, each.name) for each in fields(Retry)}
        values["retry"] = retry | {"on": sorted(job.retry.on)}
    return dumps(values)


def read_job(data: bytes) -> Job:
    """Return the job that `write_job` serialized, as it was when it was new."""
    values = loads(data)
    if (retry := values.pop("retry", None)) is not None:
        values["retry"] = Retry(**{**retry, "on": frozenset(retry["on"])})
    return Job(**values)


def queue_full(most: int) -> RunError:
    """Return the error of a job that finds no place in the queue."""
    return RunError("unavailable", f"{most} jobs are waiting already (jobs.maxQueued): try again later", status=503)


class JobQueue(Protocol):
    """The jobs that wait, run, and have ended. All may raise RunError ``state-unreachable``."""

    async def add(self, job: Job, stream: Mapping[str, bytes | str | int]) -> str:
        """Add a job and its stream; return its id, or the id of the job that its key has started already.

        Raises RunError ``unavailable`` where too many wait.
        """

    async def claim(self, name: str = "") -> Job | None:
        """Claim a job for this process: the next one, or the one of an id if it waits. None where there is none."""

    async def check(self, running: Collection[Job]) -> list[str]:
        """Look after the jobs that run here, and find lost ones; return the ids of those that others have claimed."""

    async def note_failure(self, job: Job) -> None:
        """Store that another attempt follows."""

    async def settle(self, job: Job) -> bool:
        """Store the end of a job; False where another process has claimed it: its end is that one's."""

    async def forget(self, job: Job) -> None:
        """Keep an ended job for a while, now that its stream has ended too."""

    async def release(self, job: Job) -> bool:
        """Hand a running job back, for another process to claim. False where that is in vain."""

    async def cancel(self, name: str) -> str | None:
        """Note that a job is to be stopped; return the process that runs it, "" if it waits; None for no such job."""

    async def find(self, name: str) -> Job | None:
        """Return a job by its id."""

    async def count(self) -> int:
        """Return how many jobs wait."""


class MemoryJobs:
    """The jobs of this process alone. What has ended is kept as cached values are: for a time, within bounds."""

    def __init__(self, most: int, keep: float, state: StateSettings) -> None:
        self._most = most
        self._keep = keep
        self._live: dict[str, Job] = {}
        self._keys: dict[bytes, str] = {}
        self._waiting: deque[str] = deque()
        self._ended = MemoryStore(replace(state, redis=None))

    async def add(self, job: Job, stream: Mapping[str, bytes | str | int]) -> str:
        """Add a job, unless its key has started one."""
        if job.key:
            known = self._keys.get(job.key) or await self._ended.get(b"key " + job.key)
            if known and known is not MISSING and await self.find(known) is not None:
                return str(known)
        if len(self._waiting) >= self._most:
            raise queue_full(self._most)
        self._live[job.id] = job
        self._waiting.append(job.id)
        if job.key:
            self._keys[job.key] = job.id
        return job.id

    async def claim(self, name: str = "") -> Job | None:
        """Claim the next job, or one that waits."""
        if not self._waiting or (name and name not in self._waiting):
            return None
        if name:
            self._waiting.remove(name)
        job = self._live[name or self._waiting.popleft()]
        job.state = RUNNING
        job.claims += 1
        return job

    async def check(self, running: Collection[Job]) -> list[str]:
        """Return nothing: no other process has these jobs."""
        return []

    async def note_failure(self, job: Job) -> None:
        """Do nothing: the record is the job."""

    async def settle(self, job: Job) -> bool:
        """Do nothing: the record is the job."""
        return True

    async def forget(self, job: Job) -> None:
        """Keep an ended job for a while."""
        del self._live[job.id]
        await self._ended.set(job.id.encode(), [job, job.result], self._keep)
        if job.key:
            del self._keys[job.key]
            await self._ended.set(b"key " + job.key, job.id, self._keep)

    async def release(self, job: Job) -> bool:
        """Refuse: the job ends with its process."""
        return False

    async def cancel(self, name: str) -> str | None:
        """Note that a job is to be stopped."""
        job = self._live.get(name)
        if job is None:
            return None
        job.cancelled = True
        return "" if job.state == WAITING else "here"

    async def find(self, name: str) -> Job | None:
        """Return a job by its id."""
        if (job := self._live.get(name)) is not None:
            return job
        ended = await self._ended.get(name.encode())
        return None if ended is MISSING else ended[0]

    async def count(self) -> int:
        """Return how many jobs wait."""
        return len(self._waiting)
