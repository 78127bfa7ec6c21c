"""Metrics: counters in memory that all processes share, and how Prometheus reads them.

Kept by hand, and not by prometheus-client in multiprocess mode: there an increment costs 0.9 µs, an observation 1.8 µs
and a look-up of labels 0.8 µs (here 0.1 µs each), and a scrape reads the files of all processes, those that died among
them (100 ms for 200 endpoints of one process), during which the process answers no request.
"""

from __future__ import annotations

import hmac
import ipaddress
import mmap
import os
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from streamstack import __version__, clock
from streamstack.language.settings import Metrics
from streamstack.runtime.run import Context, Run
from streamstack.server.deadlines import RunTimer
from streamstack.server.request import Request
from streamstack.server.request_log import OUTCOMES
from streamstack.server.response import ResponseSink

if TYPE_CHECKING:
    from streamstack.server.endpoints import EndpointHandler

if sys.platform != "win32":
    import resource

#: Seconds until the first chunk: the upper ends of the buckets.
FIRST_CHUNK_BUCKETS: Final = (*(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5), *(1.0, 2.5, 10.0, 60.0))
#: Seconds between two chunks: those of a stream that were sent since the last sample count as equally far apart.
INTERVAL_BUCKETS: Final = (*(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5), *(1.0, 2.5, 5.0, 10.0, 30.0))
#: Seconds that a run took.
RUN_BUCKETS: Final = (*(0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0), *(60.0, 300.0, 1800.0, 7200.0))
#: Classes of status. `none`: the client left before there was one.
STATUSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
#: Ratings of runs.
RATINGS: Final = (*map(str, range(1, 6)), "up", "down")
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

#: Rows for endpoints that come while it is served.
_SPARE: Final = 64
MICRO: Final = 1_000_000
_WORD: Final = 2**64 - 1
_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
OUTCOME_PLACES: Final = {name: place * len(STATUSES) for place, name in enumerate(OUTCOMES)}
#: Headers that mark a request as forwarded by a proxy.
_FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")


#: What becomes of a request to a cached endpoint.
CACHE_RESULTS: Final = ("hit", "stale", "follow", "miss", "bypass")
#: What the parts of a row's title are.
_LABELS: Final = ("endpoint", "experiment", "variant")


def _layout(**widths: int) -> tuple[dict[str, int], int]:
    """Return where each field begins, in words of 8 bytes, and how many words all of them take."""
    ends = list(accumulate(widths.values()))
    return dict(zip(widths, (0, *ends), strict=False)), ends[-1]


#: What is counted of jobs.
JOB_EVENTS: Final = ("started", "completed", "failed", "cancelled", "retried", "taken_over")
#: What one process counts of one endpoint. Times are in microseconds.
ROW, ROW_WIDTH = _layout(
    ended=len(OUTCOMES) * len(STATUSES),
    open=1,
    chunks=1,
    bytes=1,
    reconnections=1,
    cached=len(CACHE_RESULTS),
    interval_time=1,
    interval=len(INTERVAL_BUCKETS) + 1,
    first_time=1,
    first=len(FIRST_CHUNK_BUCKETS) + 1,
    run_time=1,
    run=len(RUN_BUCKETS) + 1,
    rating=len(RATINGS),
)
#: What one process reports: memory in bytes, CPU time of all processes that had the slot, beats of its heart.
SLOT, SLOT_WIDTH = _layout(pid=1, memory=1, cpu=1, heartbeats=1, running=1, waiting=1, **dict.fromkeys(JOB_EVENTS, 1))
#: What the supervisor counts.
_SERVER, _SERVER_WIDTH = _layout(restarts=1, hangs=1)
# Those that each request needs.
_ENDED, _CHUNKS, _BYTES = ROW["ended"], ROW["chunks"], ROW["bytes"]
_FIRST, _FIRST_TIME, _RUN, _RUN_TIME = (ROW[name] for name in ("first", "first_time", "run", "run_time"))


class SharedCounters:
    """Counters that all processes of a server share. Made before processes are forked.

    Each process has a slot, in which only it writes: nothing is locked, and what a process that died had counted stays.
    A slot has a row for each endpoint; row 0 is for requests without one.

    Args:
        endpoints: The endpoints to count.
        slots: How many processes there may be at once.
    """

    def __init__(self, endpoints: Iterable[EndpointHandler], slots: int = 1) -> None:
        self.titles: list[str] = [""]
        self._by_title: dict[str, int] = {}
        wanted = list(endpoints)
        self._most = len({title for each in wanted for title in each.row_titles}) + 1 + _SPARE
        self.slots = slots
        self._slot_size = SLOT_WIDTH + self._most * ROW_WIDTH
        # Anonymous and shared; an unwritten page takes no memory.
        self.words = memoryview(mmap.mmap(-1, (_SERVER_WIDTH + slots * self._slot_size) * 8)).cast("Q")
        self.register(wanted)

    def slot(self, number: int) -> int:
        """Return where a slot begins."""
        return _SERVER_WIDTH + number * self._slot_size

    def rows(self, number: int) -> int:
        """Return where the rows of a slot begin."""
        return self.slot(number) + SLOT_WIDTH

    def heartbeats(self, number: int) -> int:
        """Return how often the heart of a slot's process has beaten."""
        return self.words[self.slot(number) + SLOT["heartbeats"]]

    def heartbeat(self, number: int) -> None:
        """Let the heart of a slot's process beat."""
        self.words[self.slot(number) + SLOT["heartbeats"]] += 1

    def count(self, name: str) -> None:
        """Count what the supervisor counts: `restarts`, `hangs`."""
        self.words[_SERVER[name]] += 1

    def register(self, endpoints: Iterable[EndpointHandler]) -> None:
        """Give endpoints their rows; one that is known by its title keeps its row.

        All processes register the same endpoints in the same order, so they agree. When no row is left, what is new is
        counted in row 0.
        """
        for each in endpoints:
            self.register_titles(each.row_titles)
            # Of variants that find no row left, it is that of their endpoint.
            each.take_rows(lambda title: self._by_title.get(title, self.row_of(title.partition("\t")[0])))

    def register_titles(self, titles: Iterable[str]) -> None:
        """Give rows to titles in this order, as another process has given them."""
        for title in titles:
            if title and title not in self._by_title and len(self.titles) < self._most:
                self._by_title[title] = len(self.titles)
                self.titles.append(title)

    def row_of(self, title: str) -> int:
        """Return the row of an endpoint."""
        return self._by_title.get(title, 0)

    def totals(self) -> Iterator[tuple[str, list[int]]]:
        """Yield the sums over all slots of the rows in which something was counted, by their titles."""
        starts = [self.rows(number) for number in range(self.slots)]
        for row, title in enumerate(self.titles):
            places = (start + row * ROW_WIDTH for start in starts)
            rows = [self.words[at : at + ROW_WIDTH].tolist() for at in places]
            counted = [each for each in rows if any(each)]
            if counted:
                yield title, list(map(sum, zip(*counted, strict=True)))

    def release(self, number: int) -> None:
        """Record that the process of a slot is gone: what it counted stays, what it had open does not."""
        slot, rows = self.slot(number), self.rows(number)
        for name in ("pid", "memory", "heartbeats", "running", "waiting"):
            self.words[slot + SLOT[name]] = 0
        for row in range(len(self.titles)):
            self.words[rows + row * ROW_WIDTH + ROW["open"]] = 0


class WorkerMetrics:
    """Counts the requests of this process in its slot. Only whole answers cost something, chunks do not."""

    def __init__(self, counters: SharedCounters, slot: int = 0) -> None:
        self.counters = counters
        self._words = counters.words
        self._slot = counters.slot(slot)
        self._rows = counters.rows(slot)
        self._earlier = self._words[self._slot + SLOT["cpu"]]  # of processes that had the slot before
        self._used = _cpu_time()
        # Of runs that were sampled: how many chunks, bytes, and microseconds between chunks are counted.
        self._counted: dict[RunTimer, tuple[int, int, int]] = {}
        self._open: Counter[int] = Counter()
        self._words[self._slot + SLOT["pid"]] = os.getpid()

    def refuse(self, status: int) -> None:
        """Count a request without an endpoint."""
        self._words[self._rows + _ENDED + OUTCOME_PLACES["rejected"] + status // 100] += 1

    def reconnect(self, endpoint: str) -> None:
        """Count a client that came back to a stream."""
        at = self._rows + self.counters.row_of(endpoint) * ROW_WIDTH
        self._words[at + ROW["reconnections"]] += 1

    def finish(self, answer: ResponseSink, outcome: str, timer: RunTimer | None = None) -> None:
        """Count a request that is over. ``timer`` is what `sample` may have met."""
        words, at = self._words, self._rows + answer.row * ROW_WIDTH
        place = at + _ENDED + OUTCOME_PLACES[outcome]
        if answer.committed or answer.refused:
            place += answer.status // 100
        words[place] += 1
        if answer.cached:
            words[at + ROW["cached"] + CACHE_RESULTS.index(answer.cached)] += 1
        self._count(at, answer, _NOTHING if timer is None else self._counted.pop(timer, _NOTHING))
        now, began = clock.monotonic(), answer.run.clock
        if outcome != "rejected":
            took = now - began
            words[at + _RUN + bisect_left(RUN_BUCKETS, took)] += 1
            words[at + _RUN_TIME] += int(took * MICRO)
        # A whole answer, or one without chunks, comes at its end.
        first = answer.first_at or (now if outcome == "completed" else 0.0)
        if first:
            waited = first - began
            words[at + _FIRST + bisect_left(FIRST_CHUNK_BUCKETS, waited)] += 1
            words[at + _FIRST_TIME] += int(waited * MICRO)

    async def aclose(self) -> None:
        """Do nothing: what was counted stays."""

    def rate(self, title: str, rating: str, replaced: str | None) -> None:
        """Count the rating of a run, in place of the one that it had. ``title`` is that of its row."""
        at = self._rows + self.counters.row_of(title) * ROW_WIDTH + ROW["rating"]
        self._words[at + RATINGS.index(rating)] += 1
        if replaced is not None:
            # Another process may have counted it: only the sum over all of them is never below 0.
            place = at + RATINGS.index(replaced)
            self._words[place] = (self._words[place] - 1) & _WORD

    def finish_background(self, row: int, run: Run, outcome: str) -> None:
        """Count a run without a client."""
        words, at = self._words, self._rows + row * ROW_WIDTH
        took = clock.monotonic() - run.clock
        words[at + _ENDED + OUTCOME_PLACES[outcome]] += 1
        words[at + _RUN + bisect_left(RUN_BUCKETS, took)] += 1
        words[at + _RUN_TIME] += int(took * MICRO)

    def count_job(self, name: str) -> None:
        """Count one of `JOB_EVENTS`."""
        self._words[self._slot + SLOT[name]] += 1

    def show_jobs(self, running: int, waiting: int) -> None:
        """Record how many jobs run here, and how many wait: of one queue for all processes, the same number."""
        self._words[self._slot + SLOT["running"]] = running
        self._words[self._slot + SLOT["waiting"]] = waiting

    def sample(self, timers: Iterable[RunTimer]) -> None:
        """Count what running answers have sent since the last sample, and what this process uses."""
        words, now = self._words, Counter[int]()
        for timer in timers:
            row = timer.answer.row
            now[row] += 1
            at = self._rows + row * ROW_WIDTH
            counted = self._counted.get(timer, _NOTHING)
            self._counted[timer] = self._count(at, timer.answer, counted)
        for row in self._open.keys() | now.keys():
            words[self._rows + row * ROW_WIDTH + ROW["open"]] = now[row]
        self._open = now
        words[self._slot + SLOT["memory"]] = _memory()
        words[self._slot + SLOT["cpu"]] = self._earlier + _cpu_time() - self._used

    def _count(self, at: int, answer: ResponseSink, counted: tuple[int, int, int]) -> tuple[int, int, int]:
        """Count what an answer has sent since it was last counted; return what is counted now."""
        words = self._words
        chunks, size, between = counted
        # Chunks that were taken back do not lower the count.
        if answer.count > chunks:
            intervals = answer.count - max(chunks, 1)
            words[at + _CHUNKS] += answer.count - chunks
            chunks = answer.count
            if intervals and answer.first_at:
                time = max(int((answer.emitted_at - answer.first_at) * MICRO), between)
                each = (time - between) / MICRO / intervals
                words[at + ROW["interval"] + bisect_left(INTERVAL_BUCKETS, each)] += intervals
                words[at + ROW["interval_time"]] += time - between
                between = time
        if answer.bytes > size:
            words[at + _BYTES] += answer.bytes - size
            size = answer.bytes
        return chunks, size, between


def open_metrics(_: Context) -> WorkerMetrics:
    """Return what counts in a process; where no figures are needed, one whose counts are not read.

    The service provides its own: `context.resource(open_metrics)` returns it.
    """
    return WorkerMetrics(SharedCounters(()))


_NOTHING: Final = (0, 0, 0)


def _cpu_time() -> int:
    """Return the microseconds of CPU that this process has used."""
    times = os.times()
    return int((times.user + times.system) * MICRO)


def _memory() -> int:
    """Return the bytes that this process has in memory; where that can't be told, the most that it ever had."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 (read each second: a Path costs more than the read)
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        if sys.platform == "win32":
            return 0
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


# ------------------------------------------------------------------------------------ /_metrics


class MetricsAccess:
    """Who may read the metrics."""

    def __init__(self, settings: Metrics | None, *, dev: bool) -> None:
        self._open = settings is not None and settings.open
        token = None if settings is None else settings.token
        self._token = None if token is None else token.encode()
        self._dev = dev

    @property
    def possible(self) -> bool:
        """Whether anybody may: else nothing need be counted."""
        return self._open or self._token is not None or self._dev

    @property
    def needs_token(self) -> bool:
        """Whether a token opens them."""
        return self._token is not None

    def admits(self, request: Request) -> bool:
        """Tell whether this request may read them."""
        if self._open or (self._dev and is_local(request)):
            return True
        if self._token is None:
            return False
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        received = token.strip().encode("utf-8", "surrogateescape")
        return hmac.compare_digest(received, self._token) and scheme.lower() == "bearer"


def is_local(request: Request) -> bool:
    """Tell whether a request comes from this machine, and was not forwarded by a proxy."""
    if any(name in request.headers for name in _FORWARDED):
        return False
    try:
        peer = ipaddress.ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    return bool((mapped or peer).is_loopback)


def exposition(counters: SharedCounters) -> bytes:
    """Return what all processes have counted, in Prometheus' text format.

    https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
    """
    return ("\n".join(_lines(counters)) + "\n").encode()


def _lines(counters: SharedCounters) -> Iterator[str]:
    totals = [(_labels(title), row) for title, row in counters.totals()]
    yield from _head("requests_total", "counter", "Requests that were answered, by status class.")
    for title, row in totals:
        for place, status in enumerate(STATUSES):
            if count := sum(row[_ENDED + place : ROW["open"] : len(STATUSES)]):
                yield f'streamstack_requests_total{{{title},status="{status}"}} {count}'
    runs = [(title, row) for title, row in totals if title != _labels("")]
    yield from _head("runs_total", "counter", "Runs that are over, by outcome.")
    for title, row in runs:
        for outcome, place in OUTCOME_PLACES.items():
            if count := sum(row[_ENDED + place :][: len(STATUSES)]):
                yield f'streamstack_runs_total{{{title},outcome="{outcome}"}} {count}'
    for name, kind, field, about in (
        ("open_streams", "gauge", "open", "Requests that are being answered."),
        ("chunks_total", "counter", "chunks", "Chunks that were sent."),
        ("sent_bytes_total", "counter", "bytes", "Bytes of content that were sent."),
        ("reconnections_total", "counter", "reconnections", "Clients that came back to a stream."),
    ):
        yield from _head(name, kind, about)
        for title, row in runs:
            yield f"streamstack_{name}{{{title}}} {row[ROW[field]]}"
    yield from _head("cache_requests_total", "counter", "Requests to cached endpoints, by what became of them.")
    for title, row in runs:
        for place, result in enumerate(CACHE_RESULTS, ROW["cached"]):
            if row[place]:
                yield f'streamstack_cache_requests_total{{{title},result="{result}"}} {row[place]}'
    yield from _histogram(runs, "first_chunk_seconds", "first", FIRST_CHUNK_BUCKETS, "Time to the first chunk.")
    yield from _histogram(runs, "run_seconds", "run", RUN_BUCKETS, "Time from request to end.")
    yield from _histogram(
        runs, "chunk_interval_seconds", "interval", INTERVAL_BUCKETS, "Time between two chunks of a stream."
    )
    yield from _head("ratings", "gauge", "Runs that have this rating.")
    for title, row in runs:
        for place, rating in enumerate(RATINGS):
            if (count := row[ROW["rating"] + place] & _WORD) and count <= _WORD // 2:
                yield f'streamstack_ratings{{{title},rating="{rating}"}} {count}'
    yield from _processes(counters)


def _histogram(
    runs: list[tuple[str, list[int]]], name: str, field: str, buckets: Sequence[float], about: str
) -> Iterator[str]:
    yield from _head(name, "histogram", about)
    for title, row in runs:
        total = 0
        for place, end in enumerate((*map(str, buckets), "+Inf"), ROW[field]):
            total += row[place]
            yield f'streamstack_{name}_bucket{{{title},le="{end}"}} {total}'
        seconds = row[ROW[f"{field}_time"]] / MICRO
        yield f"streamstack_{name}_sum{{{title}}} {seconds:.6f}"
        yield f"streamstack_{name}_count{{{title}}} {total}"


def _processes(counters: SharedCounters) -> Iterator[str]:
    words = counters.words
    slots = [
        (number, {name: words[counters.slot(number) + at] for name, at in SLOT.items()})
        for number in range(counters.slots)
    ]
    running = [(number, slot) for number, slot in slots if slot["pid"]]
    yield from _head("jobs_total", "counter", "Background jobs: started, by how they ended, retried, taken over.")
    for name in JOB_EVENTS:
        if count := sum(slot[name] for _, slot in slots):
            yield f'streamstack_jobs_total{{event="{name}"}} {count}'
    for name, about in (("running", "Jobs that a process runs."), ("waiting", "Jobs that wait, as a process sees it.")):
        yield from _head(f"jobs_{name}", "gauge", about)
        for number, slot in running:
            yield f'streamstack_jobs_{name}{{worker="{number}"}} {slot[name]}'
    yield from _head("workers", "gauge", "Processes that answer requests.")
    yield f"streamstack_workers {len(running)}"
    for name, about in (("restarts", "died and were replaced"), ("hangs", "hung and were killed")):
        yield from _head(f"worker_{name}_total", "counter", f"Processes that {about}.")
        yield f"streamstack_worker_{name}_total {words[_SERVER[name]]}"
    yield from _head("worker_memory_bytes", "gauge", "Memory that a process uses.")
    for number, slot in running:
        yield f'streamstack_worker_memory_bytes{{worker="{number}"}} {slot["memory"]}'
    yield from _head("worker_cpu_seconds_total", "counter", "CPU time that was used.")
    for number, slot in slots:
        if slot["pid"] or slot["cpu"]:
            seconds = slot["cpu"] / MICRO
            yield f'streamstack_worker_cpu_seconds_total{{worker="{number}"}} {seconds:.2f}'
    yield from _head("info", "gauge", "The version of streamstack.")
    yield f'streamstack_info{{version="{__version__}"}} 1'


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP streamstack_{name} {about}"
    yield f"# TYPE streamstack_{name} {kind}"


def _labels(title: str) -> str:
    """Return the labels of a row: its endpoint, and the variant of an experiment."""
    return ",".join(f"{name}={_quoted(text)}" for name, text in zip(_LABELS, title.split("\t"), strict=False))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
