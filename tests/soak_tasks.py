"""Tasks under faults: three servers whose clocks differ by 2 seconds, killed at random (`make soak`).

Ten tasks with a tick each second are claimed in Redis (`once: start`), and one with ten ticks a second in PostgreSQL
(`once: effect`). Each run leaves a mark: a counter of its tick, or a row. Each tick is claimed, and none has two marks.
With `once: effect` each tick has one; with `once: start` a tick has none where its server was killed between the claim
and the mark.
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
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis

from tests import postgres
from tests.redis import RedisServer

#: What the clock of each server is off by, in seconds.
SKEW = (-1.0, 0.0, 1.0)
TASKS = 10
PROJECT = """
state: {{url: "{redis}"}}
databases: {{main: {{url: "{database}"}}}}
"""
DEFINITIONS = "".join(
    f"""
kind: task
name: start-{number}
schedule: {{every: 1s, jitter: 900ms, overlap: queue}}
functionStack:
  - counter.add: << "start-{number} " ~ (run.tick | date("%Y-%m-%dT%H:%M:%SZ")) >>
    as: count
    allow: [unused-variable]
---"""
    for number in range(TASKS)
)
DEFINITIONS += """
kind: task
name: effect
schedule: {every: 100ms, once: effect, overlap: queue}
functionStack:
  - db.execute: INSERT INTO ticks (tick) VALUES (<< run.tick >>)
"""
#: Starts a server whose clock is off: the arguments are the seconds, and those of `streamstack`.
SKEWED = """
import sys, time
from datetime import UTC, datetime, timedelta
from streamstack import clock
skew = float(sys.argv.pop(1))
clock.time = lambda: time.time() + skew
clock.now = lambda: datetime.now(UTC) + timedelta(seconds=skew)
from streamstack.cli import main
main()
"""


@dataclass
class Report:
    """What became of the ticks."""

    kills: int
    claimed: int
    started: int
    lost: list[str]
    doubled: list[str]
    effects: int
    missing: list[str]

    def __str__(self) -> str:
        starts = f"{self.claimed} ticks claimed, {self.started} started once, {len(self.doubled)} twice"
        effects = f"{self.effects} ticks have one row, {len(self.missing)} none"
        return f"{self.kills} kills; once: start: {starts}, {len(self.lost)} never; once: effect: {effects}"


class Servers:
    """The servers: each is killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._logged: dict[int, int] = {}  # bytes of the log when it was started

    def _log(self, number: int) -> Path:
        return self._folder / f"server-{number}.log"

    async def start(self, number: int) -> None:
        with self._log(number).open("ab") as log:
            self._logged[number] = log.tell()
            self._running[number] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", SKEWED, str(SKEW[number]), "serve", str(self._folder), "--port", "0"),
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": "engine"},
            )

    async def kill(self, number: int, how: int = signal.SIGKILL) -> None:
        process = self._running.pop(number)
        with suppress(ProcessLookupError):
            process.send_signal(how)
        await process.wait()

    async def stop(self) -> None:
        for number in list(self._running):
            await self.kill(number, signal.SIGTERM)

    def serving(self) -> list[int]:
        """Return the servers that serve."""
        return [each for each in self._running if b"serving" in self._log(each).read_bytes()[self._logged[each] :]]

    async def ready(self, count: int) -> None:
        """Wait until so many servers serve."""
        async with asyncio.timeout(60):
            while len(self.serving()) < count:  # noqa: ASYNC110  (other processes have to)
                await asyncio.sleep(0.1)


async def soak(folder: Path, store: RedisServer, database: str, seconds: int, pause: float, seed: int) -> Report:
    """Kill a server every ``pause`` seconds or so, and return what became of the ticks of some seconds."""
    chance, kills = random.Random(seed), 0  # noqa: S311  (no secret)
    (folder / "streamstack.yaml").write_text(PROJECT.format(redis=store.url, database=database))
    (folder / "tasks.yaml").write_text(DEFINITIONS)
    await asyncio.to_thread(postgres.query, database, "CREATE TABLE ticks (tick timestamptz NOT NULL)")
    async with AsyncExitStack() as stack:
        servers = Servers(folder)
        stack.push_async_callback(servers.stop)
        for number in range(len(SKEW)):
            await servers.start(number)
        await servers.ready(len(SKEW))
        # All clocks agree on the seconds between these, and each server has been up for a while.
        await asyncio.sleep(3)
        begin = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        ends = time.monotonic() + seconds + 3
        while time.monotonic() < ends - pause:
            await asyncio.sleep(chance.uniform(0.5, 1.5) * pause)
            await servers.ready(2)  # while no server runs, no tick starts
            number = chance.choice(servers.serving())
            await servers.kill(number)
            kills += 1
            await servers.start(number)
        # Whatever was claimed has its time, and what was left is taken over.
        await asyncio.sleep(max(ends - time.monotonic(), 0) + 6)
    texts = [f"{begin + timedelta(seconds=each):%Y-%m-%dT%H:%M:%SZ}" for each in range(seconds)]
    with redis.Redis.from_url(store.url) as client:
        claims = sum(
            client.exists(f"streamstack:claim:task:start-{number}:{text.replace('Z', '+00:00')}")
            for number in range(TASKS)
            for text in texts
        )
        counts = {
            f"{number} {text}": int(client.get(f'streamstack:counter:"start-{number} {text}"') or 0)
            for number in range(TASKS)
            for text in texts
        }
    rows = await asyncio.to_thread(
        postgres.query,
        database,
        "SELECT t, (SELECT count(*) FROM ticks WHERE tick = t) FROM generate_series($1::timestamptz, $2::timestamptz, "
        "interval '100 milliseconds') t",
        begin,
        begin + timedelta(seconds=seconds - 0.1),
    )
    return Report(
        kills,
        int(claims),
        sum(count == 1 for count in counts.values()),
        [name for name, count in counts.items() if not count],
        [name for name, count in counts.items() if count > 1] + [str(row[0]) for row in rows if row[1] > 1],
        sum(row[1] == 1 for row in rows),
        [str(row[0]) for row in rows if not row[1]],
    )


async def main() -> int:
    """Run the soak with the arguments of the command line; return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=100, help="ten ticks a second of each kind")
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between two kills, about")
    parser.add_argument("--seed", type=int, default=0)
    arguments, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "project").mkdir()
        store = RedisServer(folder / "redis").start()
        server = postgres.Server(folder / "postgres", next(iter(postgres.programs().values()))).start()
        try:
            report = await soak(
                folder / "project", store, server.url, arguments.seconds, arguments.pause, arguments.seed
            )
        finally:
            server.stop()
            store.stop()
    sys.stdout.write(f"{report}\n")
    sys.stdout.writelines(f"  {each}\n" for each in (*report.lost, *report.doubled, *report.missing))
    unclaimed = arguments.seconds * TASKS - report.claimed
    return 1 if unclaimed or report.doubled or report.missing or len(report.lost) > report.kills else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
