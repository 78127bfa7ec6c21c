"""Channels under faults: `make soak` runs it after the soak of streams (ARGS="--seconds 600").

Three servers of two workers each share one Redis. One publisher publishes numbers; subscribers on all servers receive
them, break off, and come back to any server with the id of their last message. Meanwhile workers are killed or stopped
for some seconds (SIGSTOP), and Redis is killed and started, now and then without its data.

Each subscriber must receive every number that a server has confirmed, once and in order, unless it receives a gap. What
failed, or was not answered, may be published or not, also later. After each round, the members on all servers must be
those who are connected, within two leases.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from streamstack.connections.redis_channels import LEASE
from tests.redis import RedisServer
from tests.soak_machines import Machine
from tests.waiting import eventually

DEFINITIONS = """
method: POST
path: /publish
responseType: json
inputParameters: {n: integer}
functionStack:
  - channel.publish: {channel: numbers, content: << input.n >>}
    as: id
  - return: << id >>
---
method: GET
path: /numbers
responseType: streaming
streaming: {keepAlive: 1s}
inputParameters: {name: text}
functionStack:
  - channel.subscribe:
      channel: numbers
      since: << request.headers["last-event-id"] | default("last") >>
      presence: << input.name >>
    as: messages
  - forEach:
      in: << messages >>
      as: message
      do:
        - stream: {content: << message.content >>, event: << message.event | default("n") >>, id: << message.id >>}
---
method: GET
path: /members
responseType: json
functionStack:
  - channel.presence: numbers
    as: present
  - return: << present.members | sort >>
"""
#: Seconds for an answer; a stopped worker has none.
ANSWER = 3.0
#: Seconds of one round of faults.
ROUND = 15.0


def tell(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def ask(port: int, method: str, path: str, body: bytes = b"") -> bytes:
    """Send a request; return the body of a 200. Raises OSError for anything else."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head_bytes, _, rest = (await asyncio.wait_for(reader.read(), ANSWER)).partition(b"\r\n\r\n")
        if not head_bytes.startswith(b"HTTP/1.1 200"):
            raise OSError(head_bytes[:40])
        return rest
    finally:
        writer.transport.abort()


@dataclass
class Subscriber:
    """A subscriber, and all that it has received: numbers, and -1 for a gap."""

    name: str
    ports: list[int]
    chance: random.Random
    received: list[int] = field(default_factory=list)
    last: str = ""
    patient: bool = False  # whether it breaks off by itself no more
    connected: bool = False

    async def follow(self) -> None:
        """Subscribe again and again, until cancelled."""
        while True:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await self._subscribe(self.chance.choice(self.ports))
            self.connected = False
            await asyncio.sleep(0.3 * self.chance.random())

    async def _subscribe(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            extra = f"Last-Event-ID: {self.last}\r\n" if self.last else ""
            writer.write(f"GET /numbers?name={self.name} HTTP/1.1\r\nHost: test\r\n{extra}\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER)
            if b" 200 " not in head.partition(b"\r\n")[0]:
                return
            self.connected = True
            ends = time.monotonic() + (3600 if self.patient else 1 + 10 * self.chance.random())
            while time.monotonic() < ends or self.patient:
                event: dict[str, str] = {}
                while line := (await asyncio.wait_for(reader.readline(), 2 * ANSWER)).strip().decode():
                    name, _, value = line.partition(": ")
                    event[name] = value
                if "data" not in event:
                    if reader.at_eof():
                        return
                    continue
                if event.get("event") == "gap":
                    self.received.append(-1)
                elif event.get("event") == "n":
                    self.received.append(int(event["data"]))
                    self.last = event["id"]
                elif event.get("event") not in ("join", "leave"):
                    return  # an error, or the end
        finally:
            writer.transport.abort()


@dataclass
class Field:
    """All that takes part. ``sure`` are the numbers that a server has confirmed."""

    redis: RedisServer
    machines: list[Machine]
    chance: random.Random
    subscribers: list[Subscriber]
    sure: list[int] = field(default_factory=list)
    number: int = 0
    emptied: int = 0

    async def publish(self) -> None:
        """Publish numbers, until cancelled."""
        while True:
            await self.publish_one()
            await asyncio.sleep(0.02 * self.chance.random())

    async def publish_one(self) -> bool:
        """Publish a number; return whether a server has confirmed it."""
        self.number += 1
        number = self.number
        with suppress(OSError, TimeoutError):
            await ask(self.chance.choice(self.machines).port, "POST", "/publish", json.dumps({"n": number}).encode())
            self.sure.append(number)
            return True
        return False

    async def is_received(self) -> bool:
        """Return whether all subscribers have the last number."""
        return all(each.received[-1:] == self.sure[-1:] for each in self.subscribers)

    async def break_(self) -> None:
        """Break something every now and then, for a round."""
        ends = time.monotonic() + ROUND
        while time.monotonic() < ends:
            await asyncio.sleep(0.5 + 2 * self.chance.random())
            which, machine = self.chance.random(), self.chance.choice(self.machines)
            workers = machine.workers()
            if which < 0.35:
                await asyncio.to_thread(self.redis.kill)
                await asyncio.sleep(self.chance.random())
                empty = self.chance.random() < 0.3
                self.emptied += empty
                await asyncio.to_thread(self.redis.start, empty=empty)
            elif workers and which < 0.7:
                os.kill(self.chance.choice(workers), signal.SIGKILL)
            elif workers:
                pid = self.chance.choice(workers)
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(8 * self.chance.random())
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    async def settle(self) -> list[str]:
        """Wait until all servers list the members who are connected; return what is wrong after two leases."""
        for machine in self.machines:
            await machine.whole()
        ends = time.monotonic() + 2 * LEASE + 8  # workers are started, and clients come back, first
        wanted = sorted(each.name for each in self.subscribers)
        problem = ""
        while time.monotonic() < ends:
            try:
                found = [json.loads(await ask(machine.port, "GET", "/members")) for machine in self.machines]
            except (OSError, TimeoutError) as error:
                problem = repr(error)
            else:
                if all(each == wanted for each in found):
                    return []
                absent = sorted({name for name in wanted for each in found if name not in each})
                problem = f"{absent} are missing from {[len(each) for each in found]} of {len(wanted)}"
            await asyncio.sleep(0.2)
        away = [each.name for each in self.subscribers if not each.connected]
        return [f"members: {problem}, not connected: {away}"]

    def faults(self) -> list[str]:
        """Return what subscribers have missed without a gap, or received out of order."""
        found = []
        sure = set(self.sure)
        for each in self.subscribers:
            before = 0
            for number in each.received:
                if number == -1:
                    before = 0
                elif number in sure:
                    if number <= before:
                        found.append(f"{each.name}: {number} after {before}")
                    elif before and (missed := sure.intersection(range(before + 1, number))):
                        found.append(f"{each.name}: {sorted(missed)[:5]} are missing between {before} and {number}")
                    before = number
            if before != self.sure[-1]:
                found.append(f"{each.name}: ended with {before} instead of {self.sure[-1]}")
        return found


async def soak(seconds: float, subscribers: int, seed: int) -> int:
    """Run it; return the exit code."""
    chance = random.Random(seed)  # noqa: S311 (a test's)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = RedisServer(folder / "redis").start()
        stack.callback(redis.stop)
        machines = [Machine(folder / f"server-{number}") for number in range(3)]
        for machine in machines:
            machine.folder.mkdir()
            settings = f"state: {{url: '{redis.url}'}}\nchannels: {{numbers: {{history: {{size: 5000, for: 1h}}}}}}\n"
            (machine.folder / "streamstack.yaml").write_text(settings, "utf-8")
            (machine.folder / "endpoints.yaml").write_text(DEFINITIONS, "utf-8")
            await machine.start()
            stack.push_async_callback(machine.end, signal.SIGTERM)
        ports = [machine.port for machine in machines]
        readers = [Subscriber(f"s{number:03}", ports, chance) for number in range(subscribers)]
        field_ = Field(redis, machines, chance, readers)
        return await judge(field_, seconds)


async def judge(field_: Field, seconds: float) -> int:
    """Let it run, round by round, and report what is wrong."""
    faults: list[str] = []
    following = [asyncio.create_task(each.follow()) for each in field_.subscribers]
    ends = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < ends:
        rounds += 1
        publishing = asyncio.create_task(field_.publish())
        await field_.break_()
        for each in field_.subscribers:
            each.patient = True
        faults += await field_.settle()
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        with suppress(TimeoutError):
            await eventually(field_.publish_one, 15)
            await eventually(field_.is_received, 15)
        faults += field_.faults()
        gaps = sum(each.received.count(-1) for each in field_.subscribers)
        tell(
            f"round {rounds}: {len(field_.sure)} of {field_.number} numbers confirmed, "
            f"{sum(len(each.received) for each in field_.subscribers)} received, {gaps} gaps, "
            f"Redis emptied {field_.emptied} times, {len(faults)} faults"
        )
        for each in field_.subscribers:
            each.patient = False
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    for machine in field_.machines:
        faults += [f"said: {line}" for line in machine.said[:5]]
    for fault in faults[:50]:
        tell(f"FAULT {fault}")
    return 1 if faults else 0


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--readers", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    return asyncio.run(soak(given.seconds, given.readers, given.seed))


if __name__ == "__main__":
    sys.exit(main())
