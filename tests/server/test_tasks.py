"""Tasks: when they start, how often, and what becomes of them when servers stop, die, or share no state."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from streamstack.functions import REGISTRY
from streamstack.language.project import validate
from streamstack.language.schedules import Schedule
from streamstack.language.settings import Streaming
from streamstack.runtime.plan import compile_definitions
from streamstack.server.metrics import SharedCounters, WorkerMetrics, exposition
from streamstack.server.service import Service
from streamstack.server.tasks import Scheduler, TaskHandler
from streamstack.testing.virtual_time import virtual_time
from tests.postgres import create_database
from tests.redis import RedisServer
from tests.server.processes import serving
from tests.soak_tasks import soak

BERLIN = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
HOURLY = Schedule(cron="30 * * * *", timezone="Europe/Berlin")
BEGIN = datetime(2026, 2, 28, 8, tzinfo=UTC)


def handlers(text: str) -> list[TaskHandler]:
    """Compile tasks."""
    project, found = validate({"t.yaml": text}, REGISTRY, Streaming())
    assert not [each for each in found if each.severity == "error"], found
    return [TaskHandler(plan) for plan in compile_definitions(project).tasks]


def task(schedule: str, steps: str, more: str = "") -> str:
    """Write a task that logs its tick when it starts, in seconds since `BEGIN`."""
    tick = '<< run.tick | date("%M:%S") >>'
    return f"kind: task\nname: t\nschedule: {schedule}\n{more}\nfunctionStack:\n  - log: 'start {tick}'\n{steps}"


def lines_of(
    made: list[TaskHandler],
    seconds: float,
    *,
    counters: SharedCounters | None = None,
    meanwhile: Callable[[Service], None] | None = None,
    patience: float = 0.0,
) -> list[str]:
    """Return what was logged, each with the seconds after which it was, while tasks run for some seconds."""
    lines: list[str] = []

    async def work() -> None:
        scheduler = partial(Scheduler, handlers=made, counters=counters)
        metrics = None if counters is None else WorkerMetrics(counters)
        async with Service(scheduler=scheduler, metrics=metrics) as service:
            service.scheduler.begin()
            await asyncio.sleep(seconds)
            if meanwhile is not None:
                meanwhile(service)
                await asyncio.sleep(seconds)
            await service.drain(patience)
            await service.settle()
            assert not service.background.active

    with capture_logs() as captured, virtual_time(BEGIN) as runner:
        runner.run(work())
    lines += [str(each["event"]) for each in captured]
    return lines


SLOW = "  - wait: 2500ms\n  - log: end\n"


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("skip", ["start 00:01", "task-skipped", "task-skipped", "end", "start 00:04"]),
        ("queue", ["start 00:01", "end", "start 00:02"]),
        ("cancel", ["start 00:01", "start 00:02", "start 00:03", "start 00:04"]),
    ],
)
def test_overlap(overlap: str, expected: list[str]) -> None:
    """A tick during a run is skipped, waits for its end, or cancels it."""
    assert lines_of(handlers(task(f"{{every: 1s, overlap: {overlap}}}", SLOW)), 4.2) == expected


def test_retries_and_timeouts() -> None:
    """A run that fails or takes too long is repeated as `retry` says; its error is logged once a minute."""
    again = "retry: {times: 2, delay: 1s, backoff: fixed}"
    failing = lines_of(handlers(task("{every: 1m}", "  - throw: {code: no}\n", again)), 70)
    assert failing == ["start 01:00", "run-failed", "start 01:00", "start 01:00"]
    slow = lines_of(handlers(task("{every: 1m}", SLOW, "timeout: 1s")), 70)
    assert slow == ["start 01:00", "run-failed"]
    noisy = lines_of(handlers(task("{every: 100ms}", "  - throw: {code: no}\n")), 90)
    assert (noisy.count("run-failed"), len([each for each in noisy if "start" in each])) == (2, 899)


def test_a_run_that_hangs_at_shutdown() -> None:
    """It has the time of running streams; then it is ended, and nothing is left."""
    assert lines_of(handlers(task("{on: start}", "  - wait: 1h\n  - log: end\n")), 1, patience=5) == ["start 00:00"]
    waiting = task("{every: 1s, overlap: queue}", "  - wait: 4s\n  - log: end\n")
    assert lines_of(handlers(waiting), 3.5, patience=30) == ["start 00:01", "end"]


def test_events() -> None:
    """A task runs for each message of a channel, in their order, and once at the start."""
    text = """
kind: task
name: reader
schedule: {on: {channel: news}}
functionStack:
  - log: "read << run.event.content >>"
  - wait: 100ms
---
kind: task
name: writer
schedule: {on: start}
functionStack:
  - wait: 1s
  - repeat: {times: 3, do: [{channel.publish: {channel: news, content: << loop.index >>}}]}
"""
    assert lines_of(handlers(text), 5) == ["read 1", "read 2", "read 3"]


def test_a_reload_replaces_and_removes() -> None:
    """A changed schedule starts over, a removed task runs no more, and `on: start` runs once."""
    before = task("{every: 2s}", "") + "\n---\n" + task("{on: start}", "").replace("name: t", "name: s")
    after = task("{every: 3s}", "") + "\n---\n" + task("{on: start}", "").replace("name: t", "name: s")
    lines = lines_of(handlers(before), 5, meanwhile=lambda service: service.scheduler.replace(handlers(after)))
    assert lines == ["start 00:00", "start 00:02", "start 00:04", "start 00:06", "start 00:09"]
    lines = lines_of(handlers(before), 5, meanwhile=lambda service: service.scheduler.replace([]))
    assert lines == ["start 00:00", "start 00:02", "start 00:04"]


@pytest.mark.parametrize(("missed", "expected"), [("once", ["task-caught-up", "start 00:00"]), ("skip", [])])
def test_missed_ticks(missed: str, expected: list[str]) -> None:
    """A server that starts later runs the latest of the ticks that were missed, if it is to."""
    made = handlers(task(f"{{every: 1h, missed: {missed}}}", ""))
    counters = SharedCounters(made)
    counters.claim_tick(0, made[0].row, int((BEGIN - timedelta(hours=3)).timestamp() * 1000))
    begun = 1800.0

    async def later() -> None:
        await asyncio.sleep(begun)

    # An hour's tick at BEGIN was missed; the server starts half an hour later.
    lines: list[str] = []

    async def work() -> None:
        await later()
        async with Service(scheduler=partial(Scheduler, handlers=made, counters=counters)) as service:
            service.scheduler.begin()
            await asyncio.sleep(60)
            await service.drain(0)
            await service.settle()

    with capture_logs() as captured, virtual_time(BEGIN) as runner:
        runner.run(work())
    lines += [str(each["event"]) for each in captured]
    assert lines == expected


def test_workers_claim_in_shared_memory() -> None:
    """Of several processes with the same counters each tick starts once; the metrics show runs, and what was late."""
    made = handlers(task("{every: 1s}", ""))
    counters = SharedCounters(made, 2)

    async def work() -> None:
        async with (
            Service(
                scheduler=partial(Scheduler, handlers=made, counters=counters), metrics=WorkerMetrics(counters)
            ) as one,
            Service(scheduler=partial(Scheduler, handlers=made, counters=counters, slot=1)) as two,
        ):
            for each in (one, two):
                each.scheduler.begin()
            await asyncio.sleep(5.5)
            for each in (one, two):
                await each.drain(0)
                await each.settle()

    with capture_logs() as captured, virtual_time(BEGIN) as runner:
        runner.run(work())
    starts = [each["event"] for each in captured if "start" in each["event"]]
    assert sorted(starts) == [f"start 00:0{number}" for number in range(1, 6)]
    text = exposition(counters).decode()
    assert f'streamstack_task_last_tick_seconds{{task="t"}} {(BEGIN + timedelta(seconds=5)).timestamp():.3f}' in text
    assert 'streamstack_task_late_total{task="t"} 0' in text
    assert 'endpoint="task' not in text


def test_thousands_of_tasks() -> None:
    """Two thousand tasks with the same tick all start, and once."""
    (made,) = handlers("kind: task\nname: t\nschedule: {every: 1m}\nfunctionStack: [{log: hi}]\n")

    class Named(TaskHandler):
        """A task with another name."""

        def __init__(self, number: int) -> None:
            super().__init__(made.plan)
            self.number = number

        @property
        def name(self) -> str:
            return f"t{self.number}"

    assert lines_of([Named(number) for number in range(2000)], 90).count("hi") == 2000


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        (Schedule(every=7.0), "2026-02-28T08:00:00Z", ["02-28 08:00:07", "02-28 08:00:14"]),
        (Schedule(every=0.1), "2026-02-28T08:00:00.05Z", ["02-28 08:00:00", "02-28 08:00:00"]),
        (Schedule(cron="0 0 29 2 *"), "2026-02-28T08:00:00Z", ["02-29 00:00:00", "02-29 00:00:00"]),
        # Clocks go forward: 02:30 does not exist, and back: it comes twice.
        (
            Schedule(cron="30 2 * * *", timezone="Europe/Berlin"),
            "2027-03-27T12:00:00Z",
            ["03-28 01:00:00", "03-29 00:30:00"],
        ),
        (
            Schedule(cron="30 2 * * *", timezone="Europe/Berlin"),
            "2026-10-24T12:00:00Z",
            ["10-25 00:30:00", "10-26 01:30:00"],
        ),
        (
            Schedule(cron="30 * * * *", timezone="Europe/Berlin"),
            "2026-10-25T00:00:00Z",
            ["10-25 00:30:00", "10-25 01:30:00"],
        ),
    ],
    ids=str,
)
def test_ticks(schedule: Schedule, after: str, expected: list[str]) -> None:
    """Ticks follow from the schedule alone, and `latest` agrees with them."""
    ticks = schedule.after(datetime.fromisoformat(after))
    found = [next(ticks), next(ticks)]
    assert [f"{each:%m-%d %H:%M:%S}" for each in found] == expected
    assert schedule.latest(found[1]) == found[1]
    assert schedule.latest(found[1] - timedelta(microseconds=1)) == found[0]


async def test_workers_without_redis(tmp_path: Path) -> None:
    """Of two workers one runs tasks; when it is killed, its successor does, and `on: start` is not repeated."""
    text = task("{every: 500ms}", "") + "\n---\n" + task("{on: start}", "").replace("name: t", "name: s")
    async with serving(tmp_path, "--workers", "2", t=text.replace("%M:%S", "%H:%M:%S.%f")) as server:
        await asyncio.sleep(1.5)
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(3)
        runs = [line for line in server.lines if '"event":"run"' in line]
        ticks = [line.partition('"tick":"')[2].partition('"')[0] for line in runs if '"task":"t"' in line]
        assert len(ticks) == len(set(ticks)) > 4
        assert sum('"task":"s"' in line for line in runs) == 1
        assert await server.stop() == 0


async def test_each_tick_once_while_servers_are_killed(
    tmp_path: Path, own_redis: RedisServer, shared_postgres: str
) -> None:
    """Three servers, killed at random, with clocks that differ by 2 seconds: a short form of `make soak`."""
    report = await soak(tmp_path, own_redis, create_database(shared_postgres), 3, 0.7, 7)
    assert (report.doubled, report.missing, report.effects) == ([], [], 30)
    assert report.kills > 1
    # A server may be killed between the claim of a tick and its first step.
    assert (report.claimed, report.started + len(report.lost)) == (30, 30)
    assert len(report.lost) <= report.kills
