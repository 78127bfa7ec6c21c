"""Alerts: figures over a window of time, thresholds, and where it is sent that one was passed."""

from __future__ import annotations

import asyncio
import socket
from array import array
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from streamstack import clock
from streamstack.functions.email import email_send
from streamstack.functions.webhooks import webhook_send
from streamstack.language.alerts import METRICS, Alert
from streamstack.language.values import show_duration
from streamstack.runtime.faults import located
from streamstack.runtime.run import Context, Run
from streamstack.server.background import SilentSink
from streamstack.server.metrics import (
    FIRST_CHUNK_BUCKETS,
    INTERVAL_BUCKETS,
    MICRO,
    OUTCOME_PLACES,
    ROW,
    ROW_WIDTH,
    RUN_BUCKETS,
    SLOT,
    STATUSES,
    SharedCounters,
)
from streamstack.server.replies import log

if TYPE_CHECKING:
    from streamstack.server.service import Service

#: Windows are looked at this often, within these bounds in seconds; and so many of their beginnings are remembered.
_LOOKS: Final = 20
_SOONEST: Final = 0.25
_LATEST: Final = 15.0
_REMEMBERED: Final = 60
#: The histogram of a metric whose name begins so.
_HISTOGRAMS: Final = {
    "firstChunk": ("first", FIRST_CHUNK_BUCKETS),
    "chunkInterval": ("interval", INTERVAL_BUCKETS),
    "streamTime": ("run", RUN_BUCKETS),
}
#: The outcomes that a metric counts, as a part of all.
_PARTS: Final = {"errorRate": ("failed", "timeout"), "completionRate": ("completed",), "cancelRate": ("cancelled",)}
#: What is counted of the server: bytes, microseconds, processes.
_MEMORY, _CPU, _PROCESSES = range(3)

Vector = Sequence[int]


def percentile(counts: Sequence[int], buckets: Sequence[float], part: float) -> float:
    """Return a percentile of a histogram, as Prometheus' `histogram_quantile` does: linear within a bucket."""
    wanted, below, low = part * sum(counts), 0, 0.0
    for count, high in zip(counts, buckets, strict=False):
        if below + count >= wanted:
            return low + (high - low) * (wanted - below) / count if count else high
        below, low = below + count, high
    return low  # beyond the last bucket


def figure_of(alert: Alert, window: Sequence[tuple[float, Vector]]) -> float | None:
    """Return the figure of a window of samples, the oldest first; None where there is too little in it."""
    (began, first), (ended, last) = window[0], window[-1]
    metric, seconds = alert.metric, ended - began
    if metric == "openStreams":
        return sum(vector[ROW["open"]] for _, vector in window) / len(window)
    if metric == "memory":
        return sum(vector[_MEMORY] for _, vector in window) / len(window)
    if seconds <= 0:
        return None
    gone = [max(now - before, 0) for now, before in zip(last, first, strict=True)]
    if metric == "cpu":
        return gone[_CPU] / MICRO / seconds / max(last[_PROCESSES], 1)
    if metric == "reconnections":
        return gone[ROW["reconnections"]] / seconds
    name, _, part = metric.partition(".p")
    if part:
        start, buckets = ROW[_HISTOGRAMS[name][0]], _HISTOGRAMS[name][1]
        counts = gone[start : start + len(buckets) + 1]
        return percentile(counts, buckets, int(part) / 100) if sum(counts) >= alert.at_least else None
    ended_by = {
        outcome: sum(gone[ROW["ended"] + place :][: len(STATUSES)]) for outcome, place in OUTCOME_PLACES.items()
    }
    total = sum(ended_by.values())
    if metric == "requestRate":
        return total / seconds
    return sum(ended_by[each] for each in _PARTS[metric]) / total if total >= alert.at_least else None


@dataclass(frozen=True, slots=True)
class Notice:
    """That an alert was raised, or that its figure has recovered: ``message`` is what destinations are sent."""

    id: str
    name: str
    level: str
    message: Mapping[str, Any]
    webhook: Mapping[str, Any] | None = None
    email: Sequence[str] = ()


@dataclass(slots=True)
class _Watch:
    """An alert, and the samples of its window. Times are those of `clock.monotonic`."""

    alert: Alert
    began: float
    samples: deque[tuple[float, Vector]] = field(default_factory=deque)
    raised_at: datetime | None = None
    figure: float | None = None
    within_since: float | None = None  # since when a raised alert's figure is within its threshold

    def look(self, now: float, vector: Vector) -> str:
        """Take a sample; return `raised` or `recovered` where that has just come about, else an empty text."""
        alert, samples = self.alert, self.samples
        while len(samples) > 1 and samples[1][0] <= now - alert.over:
            samples.popleft()
        figure = figure_of(alert, [*samples, (now, vector)]) if samples else None
        if not samples or now >= samples[-1][0] + alert.over / _REMEMBERED:
            samples.append((now, vector))
        # Enough requests say something before the window is full; that there are few, or none, says nothing until then.
        if not METRICS[alert.metric].counts and now < self.began + alert.over:
            figure = None
        self.figure = figure
        if figure is not None and (figure > alert.threshold if alert.below is None else figure < alert.threshold):
            self.within_since = None
            if self.raised_at is None:
                self.raised_at = clock.now()
                return "raised"
        elif self.raised_at is not None:
            if self.within_since is None:
                self.within_since = now
            if now >= self.within_since + alert.over:
                return "recovered"
        return ""


class AlertMonitor:
    """Watches the counters that all processes of a server share, and says when alerts are raised and recover.

    An alert is raised once, and its recovery reported once, when the figure has been within the threshold for as long
    as the window: so there are no two alerts of one kind within a window.
    """

    def __init__(self, counters: SharedCounters, alerts: Iterable[Alert] = ()) -> None:
        self._counters = counters
        self._watches: list[_Watch] = []
        self._next = 0.0
        self.replaced = asyncio.Event()  # there are other alerts to watch
        self._host = socket.gethostname()
        self.replace(alerts)

    def replace(self, alerts: Iterable[Alert]) -> None:
        """Watch these alerts from now on; those that were watched before go on as they are."""
        before = {each.alert: each for each in self._watches}
        now = clock.monotonic()
        self._watches = [before.get(each) or _Watch(each, now) for each in alerts]
        self._next = 0.0
        self.replaced.set()

    def pause(self) -> float:
        """Return the seconds until the next look; infinity without alerts."""
        return max(self._next - clock.monotonic(), 0.0) if self._watches else inf

    def look(self) -> list[Notice]:
        """Take a sample of all windows where that is due, and return what has just come about."""
        if self.pause():
            return []
        now = clock.monotonic()
        shortest = min(each.alert.over for each in self._watches)
        self._next = now + min(max(shortest / _LOOKS, _SOONEST), _LATEST)
        totals = [(title.partition("\t")[0], row) for title, row in self._counters.totals() if title]
        server = self._sum_processes()
        notices = []
        for watch in self._watches:
            alert = watch.alert
            if METRICS[alert.metric].of_server:
                vector: Vector = server
            else:
                rows = [row for title, row in totals if alert.watches(title)]
                vector = array("Q", map(sum, zip(*rows, strict=True))) if rows else array("Q", bytes(8 * ROW_WIDTH))
            if state := watch.look(now, vector):
                notices.append(self._notice(watch, state))
        return notices

    def _sum_processes(self) -> Vector:
        words, places = self._counters.words, [self._counters.slot(each) for each in range(self._counters.slots)]
        running = [at for at in places if words[at + SLOT["pid"]]]
        memory = sum(words[at + SLOT["memory"]] for at in running)
        return array("Q", (memory, sum(words[at + SLOT["cpu"]] for at in places), len(running)))

    def _notice(self, watch: _Watch, state: str) -> Notice:
        alert, figure, since = watch.alert, watch.figure, watch.raised_at
        assert since is not None
        shown = "too few requests" if figure is None else alert.shown(figure)
        text = f"{alert.name}: {alert.metric} is {shown} on {self._host}"
        if state == "recovered":
            watch.raised_at = watch.within_since = None
            text = f"Recovered: {text}"
        message = {
            "text": text,
            "alert": alert.name,
            "state": state,
            "metric": alert.metric,
            "figure": figure,
            "shown": shown,
            "condition": alert.condition,
            "endpoint": alert.endpoint,
            "over": show_duration(alert.over),
            "host": self._host,
            "since": since.isoformat(),
            "at": clock.now().isoformat(),
        }
        send = alert.send
        webhook = None if send.webhook is None else {"url": send.webhook.url, "secret": send.webhook.secret}
        return Notice(uuid4().hex, alert.name, send.log if state == "raised" else "info", message, webhook, send.email)


#: How a webhook is sent again that was not taken.
_RETRY: Final = {"times": 5, "delay": 1.0, "max_delay": 60.0}


async def deliver(context: Context, notice: Notice) -> None:
    """Log a notice, and send it to its destinations. What can't be sent is logged; nothing is raised."""
    message, webhook = notice.message, notice.webhook
    line = {name: value for name, value in message.items() if name != "text" and value is not None}
    getattr(log, notice.level)(message["text"], **line)
    run = Run(SilentSink(), context)
    assert webhook_send.run is not None
    assert email_send.run is not None
    sends: list[Coroutine[Any, Any, Any]] = []
    if webhook is not None:
        sends.append(webhook_send.run(run, id=notice.id, content=dict(message), retry=_RETRY, **webhook))
    if notice.email:
        text = "\n".join(f"{name}: {value}" for name, value in line.items())
        sends.append(email_send.run(run, to=list(notice.email), subject=message["text"], text=text))
    for result in await asyncio.gather(*sends, return_exceptions=True):
        if isinstance(result, Exception):
            fault = located(result)
            log.error("alert-not-sent", alert=notice.name, code=fault.code, reason=fault.message)


@asynccontextmanager
async def watching(monitor: AlertMonitor, service: Service) -> AsyncIterator[None]:
    """Look at the figures of this process while what is inside runs, and send what comes about."""

    async def watch() -> None:
        while True:
            pause = monitor.pause()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if pause == inf else pause):
                    await monitor.replaced.wait()
            monitor.replaced.clear()
            for notice in monitor.look():
                service.spawn(deliver(service.context, notice))

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
