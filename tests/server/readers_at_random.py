"""Readers at random: they break off, dawdle, come back to any server, and check that they get each chunk once."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import SupportsIndex

#: What a stream may end with, other than well, and still be told so.
EXPLICIT = {"stream-lost", "http-connection"}
#: Seconds by which a busy reader may record too late that something came.
LAG = 1.0


@dataclass
class Seen:
    """What all readers have met.

    ``emptied``: how often the store has lost all it had. ``lost``: how often processes of the server at a port were
    killed or stopped. ``away``: the store knows nothing of what begins now. ``keep``: the seconds of the definitions.
    ``runs``: how many runs each key has begun. ``begun``: how many streams the server at each port has.
    """

    endings: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    chunks: int = 0
    breaks: int = 0
    refused: int = 0
    gaps: int = 0
    emptied: int = 0
    lost: Counter[int] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    begun: Counter[int] = field(default_factory=Counter)
    away: bool = False
    keep: float = float("inf")
    happened: list[tuple[float, str]] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Record what happens, for those who look for the cause of a fault."""
        self.happened.append((monotonic(), what))

    def lose(self, port: int, what: str) -> None:
        """Record that a process of a server is about to be lost."""
        self.lost[port] += 1
        self.note(what)

    def latest(self) -> str:
        """Return what happened last, and how many seconds ago."""
        now = monotonic()
        return ", ".join(f"{what} {now - at:.1f} s ago" for at, what in self.happened[-4:])


class Hearing(asyncio.StreamReader):
    """Notes when something came last, which may be long before it is read."""

    heard = 0.0

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Take what came."""
        self.heard = monotonic()
        super().feed_data(data)


async def connect(port: int) -> tuple[Hearing, asyncio.StreamWriter]:
    """Open a connection."""
    loop = asyncio.get_running_loop()
    reader = Hearing(limit=1 << 20, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, "127.0.0.1", port)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


@dataclass
class Reader:
    """One stream, read to its end, over as many connections as it takes.

    ``homes`` are the ports one of which has its run. ``unkept``: it began while the store was away. ``heard``: when
    something of it came last.
    """

    ports: Callable[[], list[int]]
    path: str
    times: int
    chance: random.Random
    seen: Seen
    form: str = "text/event-stream"
    name: str = ""
    last: str = ""
    next: int = 0
    ending: str = ""
    key: str = ""
    body: bytes = b""
    homes: set[int] = field(default_factory=set)
    emptied: int = 0
    lost: Counter[int] = field(default_factory=Counter)
    unkept: bool = False
    heard: float = 0.0

    async def run(self) -> None:
        """Read, break off, come back, until the end."""
        self._begin()
        while not self.ending:
            try:
                await self._once()
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                self.seen.refused += 1
                await asyncio.sleep(0.05 + self.chance.random() * 0.2)
        if self.seen.runs[self.key] > 1 and not self._is_forgotten:
            self.fault(f"{self.seen.runs[self.key]} runs of one key")
        self.seen.endings[self.ending] += 1

    def _begin(self) -> None:
        """Record how things are when its stream may begin."""
        seen = self.seen
        self.homes, self.unkept = set(), seen.away
        self.emptied, self.lost = seen.emptied, seen.lost.copy()

    @property
    def _is_orphaned(self) -> bool:
        """Whether the process that has its run may be gone."""
        return any(self.seen.lost[port] != self.lost[port] for port in self.homes)

    @property
    def _is_forgotten(self) -> bool:
        """Whether others may not know of it: the store has lost it, or never had it, and its server is gone."""
        return self.seen.emptied != self.emptied or (self._is_orphaned and self.unkept)

    def fault(self, text: str) -> None:
        """Note what must not be."""
        told = f"begun at {sorted(self.homes)}, unkept {self.unkept}, forgotten {self._is_forgotten}; "
        told += self.seen.latest()
        self.seen.faults.append(f"{self.path} {self.name} {self.next}: {text} ({told})")
        self.ending = "fault"

    async def _once(self) -> None:
        port = self.chance.choice(self.ports())
        if not self.last and not self.key:
            self._begin()
        if not self.name or not self.last:
            self.homes.add(port)
        reader, writer = await connect(port)
        try:
            path, body = self.path, self.body
            if self.last and self.chance.random() < 0.7:
                path, body = f"/_streams/{self.name}", b""
            method = "POST" if body else "GET"
            lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Accept: {self.form}"]
            if body:
                lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
                lines.append(f"Idempotency-Key: {self.key}")
            if self.last:
                lines.append(f"Last-Event-ID: {self.last}")
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            status = int(head.split(b" ")[1])
            if status == 204:
                self.ending = "read"
                return
            if status == 503:
                await self._look_at_refusal(head, reader)
                return
            if status == 404 and self.last:
                self._look_at_loss(port, path)
                return
            if status != 200:
                if self.last:
                    self.fault(f"status {status}")
                else:
                    self.ending = f"status {status}"
                return
            found = re.search(rb"X-Stream-Id: (\S+)", head)
            name = found[1].decode() if found else ""
            if self.name and name != self.name and (self.last or self.key):
                if self._is_forgotten and not self.last:
                    self.name = name
                    return
                self.fault(f"another stream: {name}")
                return
            if name != self.name:
                self.unkept = self.unkept or self.seen.away
                self.seen.begun[port] += 1
            self.name = name
            try:
                await self._read(reader)
            finally:
                self.heard = reader.heard
        finally:
            writer.transport.abort()

    def _look_at_loss(self, port: int, path: str) -> None:
        """Tell whether there may be no such stream any more."""
        away = monotonic() - self.heard
        if away > self.seen.keep - LAG:
            self.ending = "kept no more"
        elif self._is_forgotten:
            self.ending = "unknown-stream"
        else:
            self.fault(f"unknown at {port} ({path.split('/')[1]}), {away:.1f} s after something came")

    async def _look_at_refusal(self, head: bytes, reader: asyncio.StreamReader) -> None:
        """Take a stream whose server was lost as ended; whatever else is out of reach is asked for again."""
        found = re.search(rb"Content-Length: (\d+)", head)
        told = json.loads(await reader.readexactly(int(found[1]))) if found is not None else {}
        if told.get("code") != "producer-lost":
            raise ConnectionError
        self._be_orphaned()

    def _be_orphaned(self) -> None:
        """Take the word that who wrote it is gone, where that may be."""
        if self._is_orphaned:
            self.ending = "producer-lost"
        else:
            self.fault("producer-lost, though no process was")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Read until the end, or until it is enough for this connection."""
        enough = self.chance.choice((1 << 30, self.chance.randrange(1, 20_000)))
        slow = self.chance.random() < 0.2
        had, size = b"", 0
        end = b"\n\n" if self.form == "text/event-stream" else b"\n"
        while not self.ending:
            line = await asyncio.wait_for(reader.readuntil(b"\r\n"), 20)
            length = int(line, 16)
            data = (await reader.readexactly(length + 2))[:-2]
            if size + length > enough:
                data = data[: enough - size]
            size += length
            had += data
            *whole, had = had.split(end)
            for each in whole:
                self._take(each)
            if not length:
                if not self.ending:
                    # Nothing says that this is the end but the end itself: asking again must give 204.
                    return
                return
            if size >= enough:
                self.seen.breaks += 1
                return
            if slow:
                await asyncio.sleep(self.chance.random() * 0.05)

    def _take(self, data: bytes) -> None:
        """Take one event or line, and check that it is the one that comes next."""
        if self.ending:
            self.fault("something after the end")
            return
        event, name, content = told(self.form, data)
        if name is None:
            return
        if event == "gap":
            told_ = json.loads(content)
            if not self._is_forgotten or told_["from"] != self.next or told_["to"] < self.next:
                self.fault(f"a gap: {content}")
                return
            self.next, self.last = told_["to"] + 1, name
            self.seen.gaps += 1
            return
        self.last = name
        number = int(name.rpartition("/")[2])
        if event == "error":
            code = json.loads(content)["code"]
            if code == "producer-lost":
                self._be_orphaned()
                return
            # Many rows at once may find no connection of the pool in time.
            if code not in EXPLICIT and not (code == "database" and self.path.startswith("/rows")):
                self.fault(f"error {code}")
            self.ending = code
            return
        if number != self.next:
            self.fault(f"number {number}")
            return
        self.next += 1
        self.seen.chunks += 1
        if event == "done":
            if number != self.times:
                self.fault("ended too early")
            self.ending = "done"
        elif content.partition(" ")[0] != str(number):
            self.fault(f"content {content[:40]}")


def told(form: str, data: bytes) -> tuple[str, str | None, str]:
    """Return the event's name, its id and its content."""
    if form != "text/event-stream":
        if not data.strip():
            return "", None, ""
        line = json.loads(data)
        for event in ("gap", "error", "done"):
            if event in line:
                return event, line["id"], json.dumps(line[event])
        return "", line["id"], line["content"]
    event, name, content = "", None, ""
    for field_ in data.decode().split("\n"):
        key, _, value = field_.partition(": ")
        if key == "event":
            event = value
        elif key == "id":
            name = value
        elif key == "data":
            content = value
    return event, name, content


async def read_at_random(
    ports: Callable[[], list[int]],
    streams: int,
    chance: random.Random,
    seen: Seen,
    upstream: int,
    *,
    more: bool = False,
    longest: int = 300,
) -> None:
    """Read streams of up to ``longest`` chunks at once, each by a reader of its own; ``more``: also those of `MORE`."""
    readers = []
    for number in range(streams):
        times = chance.randrange(1, longest)
        size = chance.choice((3, 30, 3000))
        path = f"/count?times={times}&delay={chance.choice((0, 1, 5, 10))}&size={size}"
        key, body = "", b""
        if number % 4 == 0:
            path = f"/relay?times={times}&upstream={upstream}"
        elif more and number % 4 == 1:
            path = f"/rows?times={times}&size={size}"
        elif more and number % 4 == 2:
            path, key = "/once", f"k{chance.getrandbits(64)}"
            body = json.dumps({"times": times, "upstream": upstream, "key": key}).encode()
        form = chance.choice(("text/event-stream", "application/x-ndjson"))
        own = random.Random(chance.random())  # noqa: S311 (a test's)
        readers.append(Reader(ports, path, times, own, seen, form, key=key, body=body))
    await asyncio.gather(*(reader.run() for reader in readers))
