"""Servers under faults for as long as one likes: `make soak` (ARGS="--seconds 600 --readers 200").

Two servers of two workers each share one Redis and one PostgreSQL. Readers begin streams (that count, that relay an
upstream which may be reset, of rows, of a key), break off at any byte, dawdle and come back to any server, while
workers are killed, a server is stopped and started, and Redis is killed and started, now and then without its data.
Each third round has 500 streams, in the middle of which one server gets SIGTERM. Each reader checks that it gets every
chunk once, in order, to the end, or learns why not, and that this reason can be: a stream is unknown only where
the reader was away for longer than it is kept, where Redis has lost it, or where its server was lost before Redis had
it.

In the end the server that was never touched must have what it had before: what differs must be connections to Redis and
to PostgreSQL that are kept for the next time, and the others must confirm them. Then thousands of short streams are
read while nothing breaks, and must leave nothing behind. What counts is the memory in use, not what is resident: malloc
keeps what it had for the largest round (all but a few MB of it is free, and malloc_trim would give it back).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from streamstack.connections.redis import MOST
from tests import postgres
from tests.redis import RedisServer
from tests.server.random_streams import MORE, Upstream
from tests.server.readers_at_random import Seen, read_at_random
from tests.soak_machines import Machine, Told, held, resident

KEEP = 10
#: Seconds until everything that is kept for a while is gone: streams, leases, connections to upstreams.
QUIET = KEEP + 10
#: Readers of the rounds in which a server is stopped.
MANY = 500
#: Streams that are read to find what each leaves behind, and the most chunks that one has.
SHORT, LONGEST = 3000, 12
#: Blocks of Python (up to 512 bytes), and bytes of malloc (for all that is larger), that a stream may leave behind:
#: less than any object has. What is left for it is noise: buffers of connections, how full the tables are.
LEFT = (0.5, 400.0)
#: What caches and pools may have more after all faults, in one worker.
POOLED = (1500, 1 << 20)


#: What may be in Redis when all is quiet, and for how many seconds: who lives, what was told to who lived, and the
#: streams of killed workers that no reader asks for, none of which has an end.
KEPT = {"stream-worker": 8, "stream-inbox": 60} | dict.fromkeys(
    ("stream", "stream-chunks", "stream-key"), 60 + 300 + 2 * KEEP + 900
)
#: What a reader may be told in the place of the rest.
TOLD = {
    *("done", "read", "stream-lost", "http-connection", "producer-lost", "unknown-stream"),
    *("status 502", "database", "kept no more"),
}


def tell(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@dataclass
class Holding:
    """What is held when nothing is asked for. ``open`` and ``told``: by each worker that was never touched."""

    open: list[Counter[str]]
    told: list[Told]
    #: Over all workers: Unix sockets, connections to Redis; and what PostgreSQL and Redis say.
    unix: int
    redis: int
    backends: int
    busy: int
    clients: int


@dataclass
class Field:
    """All that takes part."""

    redis: RedisServer
    database: postgres.Server
    upstream: Upstream
    steady: Machine
    other: Machine
    chance: random.Random
    seen: Seen
    up: list[int]

    async def read(self, readers: int, seen: Seen) -> None:
        """Let readers read."""
        await read_at_random(lambda: self.up, readers, self.chance, seen, self.upstream.port, more=True)

    async def read_short(self, seen: Seen) -> None:
        """Let many short streams be read while nothing breaks, more of them at the server that is never touched."""
        ports, upstream = [*self.up, self.steady.port], self.upstream.port
        for _ in range(SHORT // 250):
            await read_at_random(lambda: ports, 250, self.chance, seen, upstream, more=True, longest=LONGEST)

    async def leaves(self) -> list[str]:
        """Return what each of many streams leaves behind, where it does."""
        before, begun = await self.steady.told(), self.seen.begun[self.steady.port]
        await self.read_short(self.seen)
        await asyncio.sleep(QUIET)
        after, streams = await self.steady.told(), self.seen.begun[self.steady.port] - begun
        blocks = sum(new.blocks - old.blocks for old, new in zip(before, after, strict=True))
        size = sum(new.bytes - old.bytes for old, new in zip(before, after, strict=True))
        told = f"{streams} streams leave {blocks} blocks and {size} bytes behind"
        tell(told)
        return [told] if blocks > LEFT[0] * streams or size > LEFT[1] * streams else []

    async def round(self, readers: int) -> None:
        """Let readers read while things break."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._break(over))
            await self.read(readers, self.seen)
            over.set()
        await self._mend()

    async def round_with_stop(self) -> None:
        """Stop a server in the midst of many streams: their readers go on at the other."""
        reading = asyncio.create_task(self.read(MANY, self.seen))
        await asyncio.sleep(1 + self.chance.random())
        self.up.remove(self.other.port)
        self.seen.lose(self.other.port, "a server was stopped")
        code = await self.other.end(signal.SIGTERM)
        if code != 0:
            self.seen.faults.append(f"a server that was stopped ended with {code}")
        await self._mend()
        await reading

    async def _mend(self) -> None:
        """Start what is down."""
        if self.redis.process is None:
            await asyncio.to_thread(self.redis.start)
        process = self.other.process
        if process is None or process.returncode is not None:
            await self.other.start()
        await self.other.whole()
        if self.other.port not in self.up:
            self.up.append(self.other.port)

    async def _break(self, over: asyncio.Event) -> None:
        """Kill workers, a server, Redis, which now and then is empty when it comes back."""
        while not over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.5 + 2 * self.chance.random())
            which = self.chance.random()
            if which < 0.45:
                self.seen.away = True
                self.seen.note("Redis was killed")
                await asyncio.to_thread(self.redis.kill)
                await asyncio.sleep(self.chance.random())
                empty = self.chance.random() < 0.3
                self.seen.emptied += empty
                await asyncio.to_thread(self.redis.start, empty=empty)
                self.seen.note("Redis came back, empty" if empty else "Redis came back")
                await asyncio.sleep(1)  # until what began meanwhile is written
                self.seen.away = False
            elif which < 0.85:
                if workers := self.other.workers():
                    self.seen.lose(self.other.port, "a worker was killed")
                    os.kill(self.chance.choice(workers), signal.SIGKILL)
            else:
                self.up.remove(self.other.port)
                self.seen.lose(self.other.port, "a server was killed")
                await self.other.end(signal.SIGKILL)
                await self.other.start()
                self.up.append(self.other.port)

    # ------------------------------------------------------------- what is left

    async def holding(self) -> Holding:
        """Look at what is held."""
        names = {self.redis.port: "redis", self.upstream.port: "upstream"}
        steady = [held(pid, self.steady.port, names) for pid in self.steady.workers()]
        other = [held(pid, self.other.port, names) for pid in self.other.workers()]
        states = postgres.query(
            self.database.url,
            "SELECT state FROM pg_stat_activity WHERE backend_type = $1 AND pid <> pg_backend_pid()",
            "client backend",
        )
        clients = self.redis.query("INFO", "clients")["connected_clients"]
        everyone = sum(steady + other, Counter[str]())
        return Holding(
            steady,
            await self.steady.told(),
            everyone["unix"],
            everyone["redis"],
            len(states),
            sum(each["state"] != "idle" for each in states),
            clients - 1,  # but the one who asks
        )

    def keys(self) -> Counter[str]:
        """Count what is in Redis by its kind, and apart from that what stays too long."""
        found: Counter[str] = Counter()
        for key in self.redis.query("KEYS", "streamstack:*"):
            kind = key.decode("utf-8", "replace").split(":")[1]
            left = self.redis.query("PTTL", key) / 1000
            ended = kind == "stream" and self.redis.query("HEXISTS", key, "end")
            if ended or not -0.002 < left <= KEPT.get(kind, 0):
                kind = f"{kind} for {left:.0f} s"
            found[kind] += 1
        return found


def compare(before: Holding, after: Holding, streams: int) -> list[str]:
    """Return what is left over, after so many streams, that nothing explains."""
    faults = []
    for each, (old, new) in enumerate(zip(before.open, after.open, strict=True)):
        for kind in sorted(old.keys() | new.keys()):
            if kind.startswith("redis") or kind == "socket":  # one that was reset, until it is needed
                if new["redis"] + new["redis, closed"] + new["socket"] > MOST + 1:  # and the one that listens
                    faults.append(f"worker {each}: connections to Redis: {new}")
            elif kind != "unix" and new[kind] != old[kind]:
                faults.append(f"worker {each}: {kind}: {old[kind]} before, {new[kind]} after")
    for each, (had, has) in enumerate(zip(before.told, after.told, strict=True)):
        if extra := has.tasks - had.tasks:
            faults.append(f"worker {each}: tasks are left: {dict(extra)}")
        blocks, size = has.blocks - had.blocks, has.bytes - had.bytes
        if blocks > POOLED[0] + streams or size > POOLED[1] + LEFT[1] * streams:
            faults.append(f"worker {each}: {blocks} blocks and {size} bytes more are in use")
    if after.unix - after.backends != before.unix - before.backends:
        faults.append(
            f"Unix sockets: {before.unix} of {before.backends} backends before, {after.unix} of {after.backends} after"
        )
    if after.redis != after.clients:
        faults.append(f"{after.redis} connections to Redis, which has {after.clients}")
    if after.busy:
        faults.append(f"{after.busy} backends are still at work, or in a transaction")
    return faults


async def soak(seconds: float, readers: int, seed: int) -> int:
    """Run it; return the exit code."""
    chance = random.Random(seed)  # noqa: S311 (a test's)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        await asyncio.to_thread(folder.chmod, 0o755)  # PostgreSQL may have to run as another user
        redis = RedisServer(folder / "redis").start()
        stack.callback(redis.stop)
        database = postgres.Server(folder / "postgres", next(iter(postgres.programs().values())))
        await asyncio.to_thread(database.start)
        stack.callback(database.stop)
        upstream = Upstream(chance)
        await upstream.start()
        stack.push_async_callback(upstream.stop)
        machines = [Machine(folder / name) for name in ("steady", "other")]
        for machine in machines:
            machine.folder.mkdir()
            settings = f"state: {{url: '{redis.url}'}}\nserver: {{shutdownTimeout: 2s}}\n"
            settings += f"databases: {{main: {{url: '{database.url}'}}}}\n"
            (machine.folder / "streamstack.yaml").write_text(settings, "utf-8")
            (machine.folder / "endpoints.yaml").write_text(MORE.replace("KEEP", f"{KEEP}s"))
            await machine.start()
            stack.push_async_callback(machine.end, signal.SIGTERM)
        up = [machine.port for machine in machines]
        seen = Seen(runs=upstream.runs, keep=KEEP)
        steady, other = machines
        field = Field(redis, database, upstream, steady, other, chance, seen, up)
        return await judge(field, seconds, readers)


async def judge(field: Field, seconds: float, readers: int) -> int:
    """Let it run, compare what is held before and after, and tell."""
    seen, steady = field.seen, field.steady
    warm = Seen(runs=seen.runs, keep=KEEP)
    for count in (readers, MANY):
        await field.read(count, warm)
    await field.read_short(warm)
    tell(f"warm: {dict(warm.endings)}, {len(warm.faults)} faults")
    await asyncio.sleep(QUIET)
    before = await field.holding()
    pids = steady.workers()
    ends = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < ends:
        rounds += 1
        await (field.round_with_stop() if rounds % 3 == 0 else field.round(readers))
        tell(
            f"round {rounds}: {seen.chunks} chunks, {seen.breaks} breaks, {seen.refused} refused, {seen.gaps} gaps, "
            f"{dict(seen.endings)}, {len(seen.faults)} faults, {sum(map(resident, pids)):.0f} MB resident"
        )
    await asyncio.sleep(QUIET)
    after = await field.holding()
    keys = field.keys()
    tell(f"before: {before}\nafter:  {after}\nin Redis: {dict(keys)}, emptied {seen.emptied} times")
    seen.faults += warm.faults + compare(before, after, seen.begun[steady.port])
    seen.faults += await field.leaves()
    seen.faults += [f"in Redis: {keys[kind]} {kind}" for kind in keys if kind not in KEPT]
    seen.faults += [f"ended by {each}" for each in (seen.endings | warm.endings).keys() - TOLD - {"fault"}]
    if steady.workers() != pids:
        seen.faults.append("an untouched worker was lost")
    for machine in (steady, field.other):
        seen.faults += [f"said: {line}" for line in machine.said[:5]]
    for fault in seen.faults[:50]:
        tell(f"FAULT {fault}")
    return 1 if seen.faults else 0


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    return asyncio.run(soak(given.seconds, given.readers, given.seed))


if __name__ == "__main__":
    sys.exit(main())
