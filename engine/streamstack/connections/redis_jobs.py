"""Jobs in Redis: one queue for all processes, and the jobs of processes that died.

Of a job there is a hash; `jobs-waiting` is the list of those that wait, `jobs-running` a hash with the process of each
that runs. A process lives as long as the lease that it renews for its streams (`stream_store`), by the clock of Redis
alone. Each claim has a number, and the highest counts: a process that was only paused finds out that it has lost a job.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf
from typing import Any, Final

from streamstack import clock
from streamstack.connections.jobs import STRIDE, Job, queue_full, read_job, write_job
from streamstack.connections.redis import Redis, Script, execute_command
from streamstack.connections.stream_store import StreamStore

#: Seconds without a lease before a job is taken over: after an outage of Redis all leases are renewed first.
GRACE: Final = 3.0

# The keys of all scripts: the job's hash, the waiting, the running, the stream's hash.

#: Keys: the four, and the key's own. Values: the id, how many may wait, the seconds of the stream, what names of jobs
#: begin with, the channel, the job, fields of the stream. Returns the id, or 0 where too many wait.
_ADD: Final = Script("""
if KEYS[5] then
  local found = redis.call('GET', KEYS[5])
  if found and redis.call('EXISTS', ARGV[4] .. found) == 1 then return found end
end
if redis.call('EXISTS', KEYS[1]) == 1 then return ARGV[1] end
if redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'job', ARGV[6], 'worker', '', 'state', 'waiting', 'claims', 0)
if KEYS[5] then redis.call('SET', KEYS[5], ARGV[1]) end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[4], unpack(ARGV, 7))
redis.call('EXPIRE', KEYS[4], ARGV[3])
redis.call('PUBLISH', ARGV[5], ARGV[1])
return ARGV[1]
""")

#: Keys: the waiting, the running. Values: this process, what names of jobs begin with, of streams, of leases; an id, or
#: "" for the next job; the process that had it, "" of one that waits; what each claim adds to the numbers of chunks.
#: Returns the id and all fields.
_CLAIM: Final = Script("""
local id, worker = ARGV[5], ARGV[6]
while true do
  if ARGV[5] == '' then
    id = redis.call('LPOP', KEYS[1])
    if not id then return false end
  elseif worker == '' then
    if redis.call('LREM', KEYS[1], 1, id) == 0 then return false end
  else
    if redis.call('HGET', KEYS[2], id) ~= worker then return false end
    if worker ~= ARGV[1] and redis.call('EXISTS', ARGV[4] .. worker) == 1 then return false end
  end
  local job = ARGV[2] .. id
  if redis.call('EXISTS', job) == 1 then
    local claims = redis.call('HINCRBY', job, 'claims', 1)
    redis.call('HSET', job, 'worker', ARGV[1])
    if redis.call('HGET', job, 'state') == 'waiting' then redis.call('HSET', job, 'state', 'running') end
    if worker ~= '' then redis.call('HINCRBY', job, 'losses', 1) end
    redis.call('HSET', KEYS[2], id, ARGV[1])
    local stream = ARGV[3] .. id
    if redis.call('EXISTS', stream) == 1 and redis.call('HEXISTS', stream, 'end') == 0 then
      local next = string.format('%.0f', (claims - 1) * tonumber(ARGV[7]))
      redis.call('HSET', stream, 'worker', ARGV[1], 'next', next)
    end
    return {id, redis.call('HGETALL', job)}
  end
  redis.call('HDEL', KEYS[2], id)
  if ARGV[5] ~= '' then return false end
end
""")

#: Keys: the four. Values: the id, this process, the number of its claim, the job, its state. Returns 1 where
#: it has the job, also in a store that had lost it or came back with an older state; 0 where another has it.
_HOLD: Final = Script("""
local claims = tonumber(redis.call('HGET', KEYS[1], 'claims') or -1)
if redis.call('HGET', KEYS[1], 'worker') == ARGV[2] and claims == tonumber(ARGV[3]) then return 1 end
if claims >= tonumber(ARGV[3]) then return 0 end
redis.call('LREM', KEYS[2], 0, ARGV[1])
redis.call('HSET', KEYS[1], 'job', ARGV[4], 'worker', ARGV[2], 'claims', ARGV[3], 'state', ARGV[5])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
if redis.call('EXISTS', KEYS[4]) == 1 then redis.call('HSET', KEYS[4], 'worker', ARGV[2]) end
return 1
""")

#: Keys: the four. Values: the id, this process, the number of its claim, fields to set. Returns whether it has the job.
_SET: Final = Script("""
if redis.call('HGET', KEYS[1], 'worker') ~= ARGV[2] then return 0 end
if redis.call('HGET', KEYS[1], 'claims') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
return 1
""")

#: Keys: the four, and the key's own. Values: the id, this process, the seconds that it is kept.
_FORGET: Final = Script("""
if redis.call('HGET', KEYS[1], 'worker') ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
if KEYS[5] then redis.call('SET', KEYS[5], ARGV[1], 'EX', ARGV[3]) end
return 1
""")

#: Keys: the four. Values: the id, this process, the channel.
_RELEASE: Final = Script("""
if redis.call('HGET', KEYS[1], 'worker') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'worker', '', 'state', 'waiting')
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('LPUSH', KEYS[2], ARGV[1])
if redis.call('EXISTS', KEYS[4]) == 1 then redis.call('HSET', KEYS[4], 'worker', '') end
redis.call('PUBLISH', ARGV[3], ARGV[1])
return 1
""")

#: Keys: the four. Returns the process of a job that has not ended, and notes that it is to be stopped.
_CANCEL: Final = Script("""
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'waiting' and state ~= 'running' then return false end
redis.call('HSET', KEYS[1], 'cancelled', 1)
return redis.call('HGET', KEYS[1], 'worker')
""")

#: Keys: the waiting, the running. Value: what leases begin with. Returns how many wait, and what runs without a lease.
_LOOK: Final = Script("""
local lost, leases = {}, {}
local running = redis.call('HGETALL', KEYS[2])
for at = 1, #running, 2 do
  local worker = running[at + 1]
  if leases[worker] == nil then leases[worker] = redis.call('EXISTS', ARGV[1] .. worker) end
  if leases[worker] == 0 or worker == ARGV[2] then
    lost[#lost + 1] = running[at]
    lost[#lost + 1] = worker
  end
end
return {redis.call('LLEN', KEYS[1]), lost}
""")


class RedisJobs:
    """The jobs of all processes that share a Redis, as one of them sees them."""

    def __init__(self, redis: Redis, streams: StreamStore, most: int, keep: float, silence: float) -> None:
        """Use the queue of a Redis.

        Args:
            redis: Its connections.
            streams: The streams there, and the name of this process.
            most: How many jobs may wait.
            keep: Seconds that an ended job is kept.
            silence: Seconds that a stream is kept without a word of it.
        """
        self._redis = redis
        self._streams = streams
        self._most = most
        self._keep = max(round(keep), 1)
        self._silence = round(silence)
        self._jobs = redis.key("job")
        self._shared = (redis.key("jobs-waiting"), redis.key("jobs-running"))
        self._lost: dict[str, tuple[str, float]] = {}  # the process of each, and since when it is known to be lost
        self._claiming = 0
        self.channel = redis.key("jobs-news")

    def _keys(self, name: str, key: bytes = b"") -> list[bytes]:
        stream = self._redis.key("stream", name)
        own = [self._redis.key("job-key", key.hex())] if key else []
        return [self._jobs + name.encode(), *self._shared, stream, *own]

    async def add(self, job: Job, stream: Mapping[str, bytes | str | int]) -> str:
        """Add a job and its stream, unless its key has started one."""
        fields = [part for pair in stream.items() for part in pair]
        values = [job.id, self._most, self._silence, self._jobs, self.channel, write_job(job), *fields]
        found = await self._redis.call(_ADD, self._keys(job.id, job.key), values, again=True)
        if not found:
            raise queue_full(self._most)
        return str(found.decode())

    async def claim(self, name: str = "") -> Job | None:
        """Claim a job whose process died, or the next one that waits, or the one of an id."""
        self._claiming += 1
        try:
            now = clock.monotonic()
            for lost, (worker, since) in list(self._lost.items()) if not name else ():
                if now - since < GRACE or self._lost.pop(lost, None) is None:
                    continue
                if (job := await self._claim(lost, worker)) is not None:
                    return job
            return await self._claim(name, "")
        finally:
            self._claiming -= 1

    async def _claim(self, name: str, worker: str) -> Job | None:
        streams, leases = self._redis.key("stream"), self._redis.key("stream-worker")
        values = [self._streams.worker, self._jobs, streams, leases, name, worker, STRIDE]
        found = await self._redis.call(_CLAIM, self._shared, values)
        return None if not found else _job_of(found[1])

    async def check(self, running: Collection[Job]) -> list[str]:
        """Hold the jobs that run here, and look for those whose process has no lease."""
        gone = []
        for job in running:
            values = [job.id, self._streams.worker, job.claims, write_job(job), job.state]
            if not await self._redis.call(_HOLD, self._keys(job.id), values, again=True):
                gone.append(job.id)
        claiming = self._claiming
        values = [self._redis.key("stream-worker"), self._streams.worker]
        _, found = await self._redis.call(_LOOK, self._shared, values, again=True)
        pairs = zip(found[::2], found[1::2], strict=True)
        here = {job.id for job in running}
        lost = {name.decode(): worker.decode() for name, worker in pairs}
        now = clock.monotonic()
        before, self._lost = self._lost, {}
        for name, worker in lost.items():
            # Claimed by this process, which was not told so: the connection was lost before the answer came.
            if worker == self._streams.worker and (name in here or claiming or self._claiming):
                continue
            known, since = before.get(name, ("", now))
            self._lost[name] = (worker, since if known == worker else now)
        return gone

    async def note_failure(self, job: Job) -> None:
        """Store that another attempt follows."""
        await self._set(job, "failures", job.failures)

    async def settle(self, job: Job) -> bool:
        """Store the end of a job."""
        if await self._set(job, "state", job.state, "result", job.result):
            return True
        # A store that has lost the job gets it again; one in which another has it does not.
        if await self.check([job]):
            return False
        return await self._set(job, "state", job.state, "result", job.result)

    async def _set(self, job: Job, *values: bytes | str | int) -> bool:
        arguments = [job.id, self._streams.worker, job.claims, *values]
        return bool(await self._redis.call(_SET, self._keys(job.id), arguments, again=True))

    async def forget(self, job: Job) -> None:
        """Keep an ended job for a while."""
        values = [job.id, self._streams.worker, self._keep]
        await self._redis.call(_FORGET, self._keys(job.id, job.key), values, again=True)

    async def release(self, job: Job) -> bool:
        """Hand a running job back."""
        values = [job.id, self._streams.worker, self.channel]
        return bool(await self._redis.call(_RELEASE, self._keys(job.id), values, again=True))

    async def cancel(self, name: str) -> str | None:
        """Note that a job is to be stopped."""
        found = await self._redis.call(_CANCEL, self._keys(name), [], again=True)
        return None if found is None else str(found.decode())

    async def find(self, name: str) -> Job | None:
        """Return a job by its id."""
        key = self._keys(name)[0]
        found = await self._redis.run(lambda client: execute_command(client, "HGETALL", key), again=True)
        flat = [part for pair in found.items() for part in pair] if isinstance(found, dict) else found
        return _job_of(flat) if flat else None

    async def count(self) -> int:
        """Return how many jobs wait."""
        return int(await self._redis.run(lambda client: execute_command(client, "LLEN", self._shared[0]), again=True))

    @property
    def next_loss(self) -> float:
        """When the next lost job may be taken over (`clock.monotonic`)."""
        return min((since + GRACE for _, since in self._lost.values()), default=inf)


def _job_of(flat: list[Any]) -> Job | None:
    """Return the job that a hash holds; None where a version wrote it that this one does not understand."""
    fields = {key.decode(): value for key, value in zip(flat[::2], flat[1::2], strict=True)}
    if "job" not in fields:
        return None
    job = read_job(fields["job"])
    for name in ("claims", "losses", "failures"):
        setattr(job, name, int(fields.get(name, 0)))
    job.cancelled = "cancelled" in fields
    job.state = fields["state"].decode()
    job.result = fields.get("result", b"")

    return job
