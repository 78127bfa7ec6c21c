"""`streamstack tasks`: list the tasks of a project with their runs, and run one."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import click

from streamstack import clock
from streamstack.cli import FOUND, give_up
from streamstack.cli.serve import configure_log
from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.language.definition import Task
from streamstack.language.findings import write_text
from streamstack.language.names import did_you_mean
from streamstack.language.project import Checked, read_project
from streamstack.language.schedules import Schedule
from streamstack.language.values import parse_timestamp
from streamstack.runtime.plan import compile_definitions
from streamstack.server.app import listening
from streamstack.server.background import BackgroundRun
from streamstack.server.context import AuthenticationError, DatabaseError, make_context
from streamstack.server.endpoints import UnservableError, make_endpoints
from streamstack.server.reloading import Edition
from streamstack.server.request_log import RequestLog
from streamstack.server.serve import prepare
from streamstack.server.service import Service
from streamstack.server.tasks import Scheduler, TaskHandler

#: Lines of `/_metrics` with the last runs of tasks.
_LAST: Final = re.compile(r'^streamstack_task_last_tick_seconds\{task="([^"]+)"\} (\S+)$', re.MULTILINE)
_RUNS: Final = re.compile(r'^streamstack_task_runs_total\{task="([^"]+)",outcome="(\w+)"\} (\d+)$', re.MULTILINE)


@click.command(short_help="List tasks with their next and last runs, or run one.")
@click.argument("arguments", metavar="[run NAME] [DIR]", nargs=-1)
@click.option("--url", help="Address of a running server, whose /_metrics has the last runs.")
@click.option("--token", help="Token of `server.metrics`, for --url.")
@click.option("--at", help="With `run`: the time of the tick, `run.tick`.  [default: now]")
@click.pass_context
def tasks(
    context: click.Context, arguments: tuple[str, ...], url: str | None, token: str | None, at: str | None
) -> None:
    """List the tasks of a project with their schedules, next and last runs.

    Last runs are read from the Redis of `state.url`, or from a running server with --url. `streamstack tasks run
    NAME` runs a task now in this process, whatever its schedule says, and prints its log.

    Exit codes: 0 if all is well, 1 if the project has errors or the run failed, 2 if the command could not run.
    """
    name, rest = "", arguments
    if arguments[:1] == ("run",):
        if len(arguments) < 2:
            give_up(context, "say which task: streamstack tasks run NAME")
        name, rest = arguments[1], arguments[2:]
    if len(rest) > 1:
        give_up(context, f"one folder is enough: {' '.join(rest)}")
    folder = Path(rest[0]) if rest else (Path("definitions") if Path("definitions").is_dir() else Path())
    if not folder.is_dir():
        give_up(context, f"no such folder: {folder}")
    checked = _read(context, folder)
    found = {each.name: each for each in checked.project.tasks}
    if not found:
        give_up(context, f"no tasks found in {folder}: write a document with `kind: task`")
    if not name:
        last = _last_of_server(context, url, token) if url else asyncio.run(_last_of_state(checked, found))
        for line in _table(found, last):
            click.echo(line)
        return
    if name not in found:
        give_up(context, f"the project has no task `{name}`{did_you_mean(name, found)}; it has {', '.join(found)}")
    tick = clock.now() if at is None else parse_timestamp(at)
    if tick is None:
        give_up(context, f"--at {at} is not a timestamp: write it like 2026-01-31T08:00:00Z")
    configure_log(checked.settings.log)
    try:
        ended = asyncio.run(_run(checked, found[name], tick))
    except (AuthenticationError, DatabaseError, UnservableError) as error:
        give_up(context, str(error))
    except RunError as error:
        give_up(context, error.full)
    if ended.outcome != "completed":
        context.exit(FOUND)


def _read(context: click.Context, folder: Path) -> Checked:
    try:
        checked = read_project(folder, REGISTRY, os.environ, check_environment=True)
    except OSError as error:
        give_up(context, f"{error.filename}: {error.strerror}")
    if checked.failed:
        errors = [each for each in checked.findings if each.severity == "error"]
        click.echo(write_text(errors, checked.sources), err=True, nl=False)
        context.exit(FOUND)
    return checked


# ------------------------------------------------------------------------------------ the list


def _table(found: Mapping[str, Task], last: Mapping[str, str]) -> list[str]:
    """Return the lines of the list, in columns."""
    now = clock.now()
    rows = [("task", "schedule", "next", "last")]
    for name, task in sorted(found.items()):
        rows.append((name, _schedule(task), _next(task.schedule, now), last.get(name, "-")))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join(f"{text:<{width}}" for text, width in zip(row, (*widths, 0), strict=True)).rstrip() for row in rows
    ]


def _schedule(task: Task) -> str:
    return f"{task.schedule}{' (disabled)' if task.disabled else ''}"


def _next(schedule: Schedule, now: datetime) -> str:
    tick = next(schedule.after(now), None) if schedule.timed else None
    return "-" if tick is None else _shown(tick)


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


async def _last_of_state(checked: Checked, found: Mapping[str, Task]) -> dict[str, str]:
    """Return what the shared state has of the last runs; nothing where it is in memory, or out of reach."""
    shown: dict[str, str] = {}
    if not checked.settings.state.shared:
        return shown
    async with Service(context=make_context(checked, checked.environment, dev=False)) as service:
        for name in found:
            with suppress(RunError):
                record = await service.scheduler.record(name)
                if record is not None:
                    ms = f", {record['ms']} ms" if "ms" in record else ""
                    shown[name] = f"{_shown(record['tick'])} {record.get('outcome') or 'running'}{ms}"
    return shown


def _last_of_server(context: click.Context, url: str, token: str | None) -> dict[str, str]:
    """Return what the metrics of a running server have of the last runs."""
    if not url.startswith(("http://", "https://")):
        give_up(context, f"--url {url}: write it like http://127.0.0.1:8080")
    request = urllib.request.Request(f"{url.rstrip('/')}/_metrics")  # noqa: S310  (http or https, as checked above)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            text = response.read().decode()
    except urllib.error.HTTPError as error:
        give_up(
            context, f"{url}/_metrics answers {error.code}: serve with --dev, or set `server.metrics` and give --token"
        )
    except (OSError, ValueError) as error:
        give_up(context, f"{url} can't be reached: {getattr(error, 'reason', error)}")
    runs: dict[str, list[str]] = {}
    for name, outcome, count in _RUNS.findall(text):
        runs.setdefault(name, []).append(f"{count} {outcome}")
    shown = {name: ", ".join(counts) for name, counts in runs.items()}
    for name, seconds in _LAST.findall(text):
        shown[name] = f"{_shown(datetime.fromtimestamp(float(seconds), UTC))} ({shown.get(name, 'running')})"
    return shown


# ------------------------------------------------------------------------------------ one run


async def _run(checked: Checked, task: Task, tick: datetime) -> BackgroundRun:
    """Run a task in this process, which listens for what the task calls of its own server."""
    plans = compile_definitions(checked.project)
    endpoints = make_endpoints(plans.endpoints, checked.settings, dev=True)
    handlers = [TaskHandler(plan) for plan in plans.tasks if plan.task.name == task.name]
    if not handlers:
        raise RunError("template", f"the task `{task.name}` is disabled", final=True)
    context = make_context(checked, checked.environment, dev=True, joins=True)
    service = Service(
        endpoints,
        context=context,
        request_log=RequestLog(text=checked.settings.log.is_text(sys.stderr)),
        scheduler=partial(Scheduler, handlers=handlers),
    )
    async with service:
        await prepare(Edition(checked, endpoints), service.context, lambda line: click.echo(line, err=True))
        async with listening(service):
            return await service.scheduler.run(task.name, tick)
