"""The section `alerts` of streamstack.yaml: thresholds on the figures of endpoints, and where a crossing is sent."""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any, Final

from streamstack.errors import Mark
from streamstack.language.kinds import Kind, shown
from streamstack.language.mail import parse_address
from streamstack.language.nodes import Mapping, Node, Sequence
from streamstack.language.values import MISSING, Rate, show_duration
from streamstack.spec import (
    Constant,
    Custom,
    Field,
    Group,
    ListOf,
    RefusedError,
    SettingsReader,
    fields_of,
    group_of,
    is_null,
    is_written,
    setting,
)


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that alerts watch: the kind of its threshold, and a description.

    ``counts``: it is computed from finished requests or chunks, of which there have to be enough (`atLeast`).
    ``of_server``: it is of all processes, not of endpoints.
    """

    kind: Kind
    about: str
    counts: bool = True
    of_server: bool = False


def _percentiles(name: str, about: str) -> dict[str, Metric]:
    return {f"{name}.p{each}": Metric(Kind.DURATION, f"{each}th percentile of {about}") for each in (50, 95, 99)}


METRICS: Final = {
    "errorRate": Metric(Kind.PART, "part of the requests that failed or timed out"),
    "completionRate": Metric(Kind.PART, "part of the requests that completed"),
    "cancelRate": Metric(Kind.PART, "part of the requests whose client left or stopped the stream"),
    **_percentiles("firstChunk", "the time to the first chunk"),
    **_percentiles("chunkInterval", "the time between two chunks"),
    **_percentiles("streamTime", "the time from request to end"),
    "requestRate": Metric(Kind.RATE, "requests that ended", counts=False),
    "reconnections": Metric(Kind.RATE, "clients that came back to a stream", counts=False),
    "openStreams": Metric(Kind.NUMBER, "requests that are being answered, on average", counts=False),
    "memory": Metric(Kind.SIZE, "memory of all processes, on average", counts=False, of_server=True),
    "cpu": Metric(
        Kind.PART, "CPU time that was used, as a part of one CPU for each process", counts=False, of_server=True
    ),
}
_THRESHOLD: Final = Custom(
    {"type": ["string", "number", "null"]},
    "5%, 2s, 100, 60/minute or 512MB, as the metric is",
    lambda _, node, __: node,
)
#: Levels of the log.
LEVELS: Final = ("info", "warning", "error")


def _webhook_url(value: Any) -> str:
    if not isinstance(value, str) or not re.match(r"https?://[^/\s]", value):
        raise ValueError("write it like https://example.org/alerts")
    return value


def _secret(value: Any) -> str:
    """Return a secret. The error does not hold it."""
    text = value.removeprefix("whsec_") if isinstance(value, str) else ""
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise RefusedError("must be Base64, as in whsec_...", "make one with `openssl rand -base64 32`")
    return str(value)


def _address(value: Any) -> str:
    return str(parse_address(value if isinstance(value, str) else ""))


@dataclass(frozen=True, slots=True)
class AlertWebhook:
    """A URL that alerts are posted to, signed with the ``secret`` if there is one."""

    url: str = setting(
        Constant(parse=_webhook_url, empty=True),
        "URL that alerts are posted to as JSON.",
        example="<< env.ALERT_URL >>",
    )
    secret: str | None = setting(
        Constant(parse=_secret, empty=True),
        "Secret that signs the requests, as of `webhook.send`: Base64, which may begin with `whsec_`.",
        None,
        secret=True,
    )


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where an alert is sent. ``log`` is a level: it is always logged."""

    webhook: AlertWebhook | None = setting(
        group_of(AlertWebhook, short="url"), "Webhook: its URL, or a mapping with `url` and `secret`.", None
    )
    email: tuple[str, ...] = setting(
        ListOf(Constant(parse=_address), alone=True), "Addresses that get an e-mail, through `email`.", ()
    )
    log: str = setting(
        Constant(choices=LEVELS), "Level at which it is logged; a recovery is logged as `info`.", "error"
    )


@dataclass(frozen=True, slots=True)
class Alert:
    """A threshold on a metric over a window. One of ``above`` and ``below`` is set, as the metric's kind has it.

    ``over`` is in seconds. ``endpoint`` is a path, a method and a path, or a pattern of them with `*`; None is all.
    """

    metric: str
    name: str
    above: float | Rate | None = None
    below: float | Rate | None = None
    over: float = 300.0
    endpoint: str | None = None
    at_least: int = 10
    send: Destinations = field(default_factory=Destinations)
    mark: Mark | None = field(default=None, compare=False)

    @property
    def threshold(self) -> float:
        """The threshold as a number; of a rate, per second."""
        limit = self.below if self.above is None else self.above
        assert limit is not None
        return limit.limit / limit.seconds if isinstance(limit, Rate) else float(limit)

    @property
    def condition(self) -> str:
        """What raises it, as text."""
        limit = self.below if self.above is None else self.above
        assert limit is not None
        written = str(limit) if isinstance(limit, Rate) else shown(METRICS[self.metric].kind, limit)
        where = f" ({self.endpoint})" if self.endpoint else ""
        side = "above" if self.below is None else "below"
        return f"{self.metric} {side} {written} over {show_duration(self.over)}{where}"

    def shown(self, figure: float) -> str:
        """Return a figure of its metric as text."""
        kind = METRICS[self.metric].kind
        if kind is Kind.RATE:
            return f"{figure * 60:.3g}/minute"
        if kind is Kind.DURATION:
            return f"{figure:.3g}s" if figure >= 1 else f"{figure * 1000:.3g}ms"
        if kind is Kind.PART:
            return f"{figure * 100:.3g}%"
        return f"{figure / 2**20:.3g}MB" if kind is Kind.SIZE else f"{figure:.3g}"

    def watches(self, title: str) -> bool:
        """Return whether it watches an endpoint, given as its method and path."""
        if self.endpoint is None:
            return True
        return _matches(self.endpoint, title if " " in self.endpoint else title.partition(" ")[2])


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None


def _endpoint(value: Any) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not re.match(r"([A-Z*]+ )?[/*]", text):
        raise ValueError("write a path such as /api/chat, GET /api/chat or /api/*")
    return text


def _check(reader: SettingsReader, node: Mapping, values: dict[str, Any], name: str) -> bool:
    """Read the threshold as the metric has it; check what goes together."""
    metric = METRICS.get(values.get("metric", ""))
    limits = [key for key in ("above", "below") if is_written(node.get(key))]
    if len(limits) != 1:
        code = "conflicting-parameters" if limits else "missing-parameter"
        reader.refuse(node.mark, f"`{name}` takes one of `above` and `below`", "write `above: 5%`", code)
    if metric is None or len(limits) != 1:
        return False
    key, written = limits[0], node.get(limits[0])
    assert written is not None
    values.pop("above", None)
    values.pop("below", None)
    limit = MISSING if is_null(written) else reader.constant(Constant(metric.kind, 0), written, f"{name}.{key}")
    if limit is MISSING:
        return False
    values[key] = limit
    for other, useless in (("endpoint", metric.of_server), ("atLeast", not metric.counts)):
        if useless and (place := node.get(other)) is not None and not is_null(place):
            why = "a figure of the whole server" if useless is metric.of_server else "not a part or a percentile"
            message = f"`{other}` has no effect: `{values['metric']}` is {why}"
            reader.refuse(place.mark, message, "remove it", "no-effect")
    return True


def _make(metric: str, name: str, title: str = "", **values: Any) -> Alert:
    del name  # of the setting
    alert = Alert(metric, title, **values)
    if title:
        return alert
    return Alert(metric, alert.condition, **values)


_ALERT: Final = Group(
    (
        Field("name", Constant(Kind.PROSE), "Name in messages. Default: the condition.", attribute="title"),
        Field(
            "metric",
            Constant(choices=tuple(METRICS)),
            "Figure to watch: " + "; ".join(f"`{name}`: {each.about}" for name, each in METRICS.items()) + ".",
            required=True,
            example="errorRate",
        ),
        Field("above", _THRESHOLD, "Raise the alert above this threshold."),
        Field("below", _THRESHOLD, "Raise the alert below this threshold."),
        Field(
            "over",
            Constant(Kind.DURATION, minimum=1.0, maximum=86_400.0),
            "Window that the figure is computed over.",
            default=300.0,
        ),
        Field(
            "endpoint",
            Constant(parse=_endpoint),
            "Endpoints to watch together: /api/chat, POST /api/chat, or /api/* . Default: all endpoints.",
        ),
        Field(
            "atLeast",
            Constant(Kind.INTEGER, minimum=1),
            "Number of requests (of chunk intervals) in the window below which a part or a percentile says nothing.",
            default=10,
        ),
        Field(
            "send",
            Group(fields_of(Destinations), make=Destinations, example="{webhook: << env.ALERT_URL >>}"),
            "Where it is sent when it is raised, and when the figure has recovered. Default: to the log, as an error.",
        ),
    ),
    make=_make,
    check=_check,
    named=True,
    whole=True,
    example="{metric: errorRate, above: 5%}",
)
#: The section.
ALERTS: Final = ListOf(_ALERT, alone=True)


def check_sends(reader: SettingsReader, node: Node | None, alerts: tuple[Alert, ...], *, email: bool) -> None:
    """Report two alerts with one name, and e-mails that nothing could send. ``node`` is the section."""
    places = [each for each in (node.items if isinstance(node, Sequence) else (node,)) if isinstance(each, Mapping)]
    names: dict[str, Mark] = {}
    for alert in alerts:
        assert alert.mark is not None
        first = names.setdefault(alert.name, alert.mark)
        if first is not alert.mark:
            message = f"the alert `{alert.name}` is declared in {first} too"
            reader.refuse(alert.mark, message, "give each alert its own `name`", "duplicate-name")
        if alert.send.email and not email:
            written = next((each.get("send") for each in places if each.mark == alert.mark), None)
            place = written.get("email") if isinstance(written, Mapping) else None
            message = f"the alert `{alert.name}` sends e-mails, and `email` of the settings lacks `url` or `from`"
            hint = "add `email: {url: << env.SMTP_URL >>, from: ops@example.org}`"
            reader.refuse((place or written or node).mark if node else alert.mark, message, hint)
