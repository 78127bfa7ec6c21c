"""Schedules of tasks: when they run, read from `schedule`, and the times that follow from it.

The name of a tick is its time, so all servers must agree on the times without talking to each other: those of `every`
are multiples of the interval since 1970, and those of `cron` follow from the expression and the time zone alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from streamstack import clock
from streamstack.errors import Diagnostic
from streamstack.language import nodes
from streamstack.language.kinds import Kind
from streamstack.language.names import did_you_mean
from streamstack.language.nodes import Node, Scalar
from streamstack.language.settings import default_database
from streamstack.language.values import MISSING, show_duration
from streamstack.spec import Constant, Custom, Field, Group, RefusedError, SettingsReader, fields_of, is_null, setting

#: The shortest interval: a claim takes about a millisecond, and a tick must not be late because of the one before.
LEAST: Final = 0.1
_MOST: Final = 366 * 86400.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
#: Ticks that are looked at to learn how close they may follow each other.
_SAMPLE: Final = 50
#: Days in which a time zone is searched for changes of its clocks.
_DAYS: Final = 400
#: What crontabs have besides five fields.
_SHORT: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True)
class Trigger:
    """What starts a task instead of a time: ``kind`` is `start`, `channel` or `database`.

    ``channel`` is the name of a channel of the project, or of one of PostgreSQL, then of ``database``.
    """

    kind: str
    channel: str = ""
    database: str | None = None


def _cron(text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise RefusedError("must be a cron expression", 'write five fields: "0 8 * * MON-FRI"')
    text = " ".join(str(text).split())
    if (meant := _SHORT.get(text.lower())) is not None:
        raise RefusedError(f"`{text}` is not supported", f'write `cron: "{meant}"`')
    if len(text.split()) != 5:
        raise RefusedError(
            f"a cron expression has five fields, and `{text}` has {len(text.split())}",
            'write minute, hour, day of month, month and day of week: "0 8 * * MON-FRI"; for seconds write `every`',
        )
    try:
        found = next(CronSim(text, clock.now()), None)
    except CronSimError as error:
        hint = "https://crontab.guru explains cron expressions"
        raise RefusedError(f"`{text}` is not a cron expression: {error}", hint) from None
    if found is None:
        raise RefusedError(f"`{text}` matches no time in the next 50 years", "change its day, month or day of week")
    return str(text)


def _timezone(text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise RefusedError("must be the name of a time zone", "write a name like Europe/Berlin")
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = available_timezones()
        if not known:
            raise RefusedError("this system has no time-zone data", "install tzdata: `pip install tzdata`") from None
        meant = did_you_mean(text, known)
        raise RefusedError(f"unknown time zone `{text}`{meant}", "write a name like Europe/Berlin") from None
    return str(text)


_DATABASE: Final = Group(
    (
        Field("channel", Constant(), "Channel, as in `NOTIFY channel`.", required=True, example="orders"),
        Field("name", Constant(), "Database under `databases`. Default: the only one, or `main`."),
    ),
    short="channel",
)
_TRIGGERS: Final = (
    Field("channel", Constant(), "Channel of the project: the task runs for each message."),
    Field("database", _DATABASE, "Channel of PostgreSQL: the task runs for each notification."),
)
_WAYS: Final = "start, {channel: name} or {database: channel}"


def _read_trigger(reader: SettingsReader, node: Node, name: str) -> Any:
    """Read `on`: `start`, or a channel."""
    if isinstance(node, Scalar) and node.value == "start":
        return Trigger("start")
    if not isinstance(node, nodes.Mapping):
        meant = did_you_mean(node.text, ("start",)) if isinstance(node, Scalar) else ""
        reader.refuse(node.mark, f"`{name}` must be {_WAYS}{meant}", f"write {_WAYS}", "bad-schedule")
        return MISSING
    values = reader.values(_TRIGGERS, node, name)
    if len(values) != 1:
        if len(node.items) != 1 or not reader.findings:
            reader.refuse(node.mark, f"`{name}` needs either `channel` or `database`", f"write {_WAYS}", "bad-schedule")
        return MISSING
    if "channel" in values:
        return Trigger("channel", values["channel"])
    return Trigger("database", values["database"]["channel"], values["database"].get("name"))


_TRIGGER: Final = Custom(
    {
        "type": ["string", "object"],
        "properties": {
            "channel": {"description": "Channel of the project.", "type": "string"},
            "database": {
                "description": "Channel of PostgreSQL, or {channel, name} with the name of the database.",
                "type": ["string", "object"],
            },
        },
        "additionalProperties": False,
    },
    "`start`, `{channel: name}` or `{database: channel}`",
    _read_trigger,
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a task runs. Durations are seconds; exactly one of ``every``, ``cron`` and ``on`` is given."""

    every: float | None = setting(
        Constant(Kind.DURATION, minimum=LEAST, maximum=_MOST),
        "Interval. Ticks are at multiples of it since 1970-01-01 UTC: `15m` is every quarter of an hour.",
        None,
    )
    cron: str | None = setting(
        Constant(parse=_cron, code="bad-schedule"),
        'Cron expression with five fields: minute, hour, day of month, month, day of week: `"0 8 * * MON-FRI"`.',
        None,
    )
    timezone: str = setting(
        Constant(parse=_timezone, code="bad-schedule"), "Time zone of `cron`, such as Europe/Berlin.", "UTC"
    )
    on: Trigger | None = setting(
        _TRIGGER,
        "Event that starts the task instead of a time: `start` of the server, a message of a channel "
        "(`{channel: name}`), or a notification of PostgreSQL (`{database: channel}`).",
        None,
    )
    jitter: float = setting(
        Constant(Kind.DURATION),
        "Start up to this much later than the tick, by a random delay that all servers agree on.",
        0.0,
        shown="0s",
    )
    overlap: str | None = setting(
        Constant(choices=("skip", "queue", "cancel")),
        "What to do with a tick while the previous run goes on: `skip` it, `queue` it until the run ends, or `cancel` "
        "the run. Default: `skip`, and `queue` for messages and notifications.",
        None,
    )
    missed: str = setting(
        Constant(choices=("skip", "once")),
        "What to do with ticks at which no server was running: `skip` them, or run the latest of them `once`.",
        "skip",
    )
    once: str = setting(
        Constant(choices=("start", "effect")),
        "`start`: each tick starts at most once. `effect`: the steps run in a database transaction that also holds "
        "the claim of the tick, so that their changes are made exactly once.",
        "start",
    )
    database: str | None = setting(
        Constant(), "Database of `once: effect`. Default: the only one under `databases`, or `main`.", None
    )

    @property
    def timed(self) -> bool:
        """Whether ticks follow from the time alone."""
        return self.on is None

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the ticks later than a moment, in UTC; none of a trigger, or where a cron has no further time."""
        if self.every is not None:
            step = timedelta(seconds=self.every)
            tick = _EPOCH + ((moment - _EPOCH) // step + 1) * step
            while True:
                yield tick
                tick += step
        if self.cron is not None:
            last = moment
            for found in CronSim(self.cron, moment.astimezone(_zone(self.timezone))):
                tick = found.astimezone(UTC)
                if tick > last:  # where clocks change, two wall times may be one moment
                    yield tick
                    last = tick

    def latest(self, moment: datetime) -> datetime | None:
        """Return the last tick up to a moment, that moment included; None of a trigger."""
        if self.every is not None:
            step = timedelta(seconds=self.every)
            return _EPOCH + (moment - _EPOCH) // step * step
        if self.cron is not None:
            # One tick back, and forward again: only that way around the library knows how clocks change.
            start = (moment + timedelta(minutes=1)).astimezone(_zone(self.timezone))
            for found in islice(CronSim(self.cron, start, reverse=True), 5):
                if (tick := found.astimezone(UTC)) <= moment:
                    return tick
        return None

    def interval(self, moment: datetime) -> float:
        """Return the shortest time between ticks that follow a moment, in seconds; 0 where there are not two."""
        if self.every is not None:
            return self.every
        ticks = islice(self.after(moment), _SAMPLE)
        return min(((later - earlier).total_seconds() for earlier, later in pairwise(ticks)), default=0.0)

    def __str__(self) -> str:
        """Return it as `streamstack tasks` shows it."""
        if self.every is not None:
            return f"every {show_duration(self.every)}"
        if self.cron is not None:
            return f"{self.cron} {self.timezone}"
        if self.on is None or self.on.kind == "start":
            return "on start"
        return f"on {self.on.kind} {self.on.channel}"


@lru_cache(64)
def _zone(name: str) -> ZoneInfo | Any:
    return UTC if name == "UTC" else ZoneInfo(name)


def parse_schedule(node: Node | None, name: str = "schedule") -> tuple[Schedule | None, list[Diagnostic]]:
    """Return the schedule that a task declares, and what is wrong with it; None where it can't be used."""
    findings: list[Diagnostic] = []
    reader = SettingsReader(findings, of_definition=True)
    if node is None or is_null(node):
        return None, findings  # reported as a missing key
    if not isinstance(node, nodes.Mapping):
        reader.refuse(node.mark, f"`{name}` is a mapping.", "write `schedule: {every: 5m}`", "not-a-mapping")
        return None, findings
    values = reader.values(fields_of(Schedule), node, name)
    if any(each.severity == "error" for each in findings):
        return None, findings
    schedule = Schedule(**values)
    _check(reader, node, schedule)
    return (None if any(each.severity == "error" for each in findings) else schedule), findings


def _check(reader: SettingsReader, node: nodes.Mapping, schedule: Schedule) -> None:
    """Report what does not go together."""

    def mark_of(key: str) -> Any:
        return (node.get(key) or node).mark

    written = {key.text for key, value in node.items if not is_null(value)}
    if len(written & {"every", "cron", "on"}) != 1:
        ways = '`every: 5m`, `cron: "0 8 * * *"` or `on: start`'
        reader.refuse(
            node.mark, "a schedule needs exactly one of `every`, `cron` and `on`", f"write {ways}", "bad-schedule"
        )
        return
    if "timezone" in written and schedule.cron is None:
        reader.refuse(mark_of("timezone"), "`timezone` is only used with `cron`", "remove it", "no-effect")
    if not schedule.timed:
        for key in sorted(written & {"jitter", "missed"}):
            reader.refuse(mark_of(key), f"`{key}` is only used with `every` and `cron`", "remove it", "no-effect")
        if schedule.once == "effect":
            message = "`once: effect` needs ticks that all servers know, and an event has none"
            hint = "remove it, and write a `db.transaction` step"
            reader.refuse(mark_of("once"), message, hint, "conflicting-parameters")
    if schedule.once == "effect" and schedule.overlap == "cancel":
        message = "`overlap: cancel` excludes `once: effect`: a cancelled run is rolled back, and its claim with it"
        hint = "write `overlap: skip` or `overlap: queue`"
        reader.refuse(mark_of("overlap"), message, hint, "conflicting-parameters")
    if schedule.once != "effect" and "database" in written:
        reader.refuse(mark_of("database"), "`database` is only used with `once: effect`", "remove it", "no-effect")
    if schedule.jitter and schedule.timed:
        interval = schedule.interval(clock.now())
        if interval and schedule.jitter >= interval:
            message = f"`jitter` must be shorter than the time between two ticks, {show_duration(interval)}"
            reader.refuse(mark_of("jitter"), message, "write a shorter one", "bad-schedule")
    for message in _changes(schedule):
        reader.refuse(mark_of("cron"), message, code="daylight-saving")


def database_of(schedule: Schedule, databases: Any) -> str | None:
    """Return the database of `once: effect`; None where it is not clear which one is meant."""
    return schedule.database or default_database(dict.fromkeys(databases))


def _changes(schedule: Schedule) -> Iterator[str]:
    """Yield what happens to the times of a cron when the clocks of its zone change, where they meet the change."""
    if schedule.cron is None or schedule.timezone == "UTC":
        return
    minutes, hours = schedule.cron.split()[:2]
    fixed = not minutes.startswith("*") and not hours.startswith("*")
    if len(set(CronSim(f"0 {hours} * * *", _EPOCH).hours)) == 24:
        return  # each hour that passes has its ticks
    zone, found = _zone(schedule.timezone), set[bool]()
    for day in _change_days(zone):
        for moment in islice(CronSim(schedule.cron, day - timedelta(seconds=1)), 1500):
            if moment.date() != day.date():
                break
            local = moment.replace(tzinfo=zone)
            if local.utcoffset() == local.replace(fold=1).utcoffset():
                continue
            missing = local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != moment
            if missing in found:
                continue
            found.add(missing)
            name = f"{moment:%H:%M} in {schedule.timezone}"
            if missing:
                then = "runs when the clocks have changed" if fixed else "does not run"
                yield f"{name} does not exist on the day when clocks go forward: the task {then}"
            else:
                then = "runs at the first of the two" if fixed else "runs twice"
                yield f"{name} comes twice on the day when clocks go back: the task {then}"


def _change_days(zone: ZoneInfo) -> Iterator[datetime]:
    """Yield the days of the next year on which the clocks of a zone change, without the zone."""
    day = clock.now().replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    for _ in range(_DAYS):
        following = day + timedelta(days=1)
        if day.replace(tzinfo=zone).utcoffset() != following.replace(tzinfo=zone).utcoffset():
            yield day
        day = following
