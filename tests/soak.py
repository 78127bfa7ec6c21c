"""Servers under faults for as long as one likes: `make soak` (ARGS="--seconds 600 --readers 200").

Several servers share one Redis. Readers begin streams, break off, dawdle and come back to any of the servers, while
servers are killed, stopped and started, and Redis is killed and started, now and then without its data. Each reader
checks that it gets every chunk once, in order, to the end, or an error that says why not. In the end the server that
was never touched must hold no more sockets, files and memory than before.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.redis import RedisServer, free_port
from tests.server.processes import start
from tests.server.readers_at_random import DEFINITIONS, Seen, Upstream, read_at_random

KEEP = 20
#: Connections to Redis that a server keeps for the next time.
POOL = 32


def tell(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@dataclass
class Machine:
    """A server that is started again after it was killed, at the same port."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self.process = await start(str(self.folder), "--port", str(self.port))
        assert self.process.stderr is not None
        while b"serving" not in (line := await self.process.stderr.readline()):
            assert line, "the server did not start"
        # What it logs is of no interest here, but it must not block.
        self.drain = asyncio.create_task(self.process.stderr.read())

    async def end(self, how: signal.Signals) -> int:
        """Kill or stop it."""
        assert self.process is not None
        self.process.send_signal(how)
        await self.drain
        return await self.process.wait()

    def descriptors(self) -> int:
        """Count its open files and sockets."""
        assert self.process is not None
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def connections(self) -> int:
        """Count the connections of its clients that it holds, whatever their state."""
        lines = Path("/proc/net/tcp").read_text("utf-8").splitlines()[1:]
        held = [line.split() for line in lines]
        listening = "0A"
        return sum(
            each[1].endswith(f":{self.port:04X}") and each[3] != listening and each[9] != "0"
            for each in held
        )

    def resident(self) -> float:
        """Return its resident memory in MB."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        (line,) = (each for each in status.splitlines() if each.startswith("VmRSS"))
        return int(line.split()[1]) / 1024


async def soak(seconds: float, readers: int, seed: int) -> int:
    """Run it; return the exit code."""
    chance = random.Random(seed)  # noqa: S311 (a test's)
    seen, upstream = Seen(), Upstream(chance)
    await upstream.start()
    with tempfile.TemporaryDirectory() as folder:
        redis = RedisServer(Path(folder) / "redis").start()
        machines = [Machine(Path(folder) / name) for name in ("steady", "b", "c")]
        for machine in machines:
            machine.folder.mkdir()
            settings = f"state: {{url: '{redis.url}'}}\nserver: {{shutdownTimeout: 2s}}\n"
            (machine.folder / "streamstack.yaml").write_text(settings, "utf-8")
            text = DEFINITIONS.replace("KEEP", f"{KEEP}s")
            (machine.folder / "endpoints.yaml").write_text(text, "utf-8")
            await machine.start()
        steady = machines[0]
        up = {machine.port: machine for machine in machines}
        async with AsyncExitStack() as stack:
            stack.callback(redis.stop)
            await read_at_random(lambda: list(up), readers, chance, Seen(), upstream.port)
            await asyncio.sleep(KEEP + 2)
            before = steady.descriptors(), steady.resident()
            ends = time.monotonic() + seconds
            breaking = asyncio.create_task(break_things(machines[1:], up, redis, chance))
            while time.monotonic() < ends and not breaking.done():
                await read_at_random(lambda: list(up), readers, chance, seen, upstream.port)
                tell(
                    f"{seen.chunks} chunks, {seen.breaks} breaks, {seen.refused} refused, "
                    f"{dict(seen.endings)}, {len(seen.faults)} faults, {steady.resident():.0f} MB"
                )
            breaking.cancel()
            await asyncio.wait({breaking})
            if not breaking.cancelled() and (error := breaking.exception()) is not None:
                seen.faults.append(f"breaking things: {error!r}")
            await asyncio.sleep(KEEP + 2)
            after = steady.descriptors(), steady.resident()
            left = steady.connections()
        for machine in machines:
            if machine.process is not None and machine.process.returncode is None:
                await machine.end(signal.SIGTERM)
    await upstream.stop()
    tell(
        f"before: {before[0]} descriptors, {before[1]:.0f} MB; after: {after[0]}, {after[1]:.0f} MB"
    )
    if left:
        seen.faults.append(f"{left} connections are left open")
    if after[0] > before[0] + POOL:
        seen.faults.append("descriptors are left open")
    if after[1] > before[1] * 1.5 + 20:
        seen.faults.append("memory was not given back")
    for fault in seen.faults[:50]:
        tell(f"FAULT {fault}")
    return 1 if seen.faults else 0


async def break_things(
    machines: list[Machine], up: dict[int, Machine], redis: RedisServer, chance: random.Random
) -> None:
    """Kill, stop and start servers and Redis, again and again."""
    while True:
        await asyncio.sleep(1 + 4 * chance.random())
        which = chance.random()
        if which < 0.4:
            await asyncio.to_thread(redis.kill)
            await asyncio.sleep(chance.random())
            await asyncio.to_thread(redis.start)
            continue
        machine = chance.choice(machines)
        del up[machine.port]
        code = await machine.end(signal.SIGKILL if which < 0.7 else signal.SIGTERM)
        assert code in {0, -9}, code
        await machine.start()
        up[machine.port] = machine


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
