"""Alerts: the figures of a window, when an alert is raised and recovers, and what its destinations are sent."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from streamstack import clock
from streamstack.language.alerts import METRICS, Alert
from streamstack.language.settings import load_settings
from streamstack.server.alerts import AlertMonitor, percentile
from streamstack.server.metrics import (
    FIRST_CHUNK_BUCKETS,
    INTERVAL_BUCKETS,
    MICRO,
    OUTCOME_PLACES,
    ROW,
    ROW_WIDTH,
    SLOT,
    SharedCounters,
)
from tests.functions.test_email import Post
from tests.functions.test_email import server as mail_server
from tests.server.processes import serving, until


class Figures:
    """Counters of two processes with two endpoints, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *alerts: str) -> None:
        endpoints: list[Any] = [
            SimpleNamespace(title=title, row_titles=[title], take_rows=lambda _: None)
            for title in ("POST /chat", "GET /items")
        ]
        self.counters = SharedCounters(endpoints, 2)
        self.now = 1000.0
        monkeypatch.setattr(clock, "monotonic", lambda: self.now)
        text = "alerts:\n" + "".join(f"  - {each}\n" for each in alerts)
        settings, found = load_settings(text, "streamstack.yaml", {})
        assert found == []
        self.monitor = AlertMonitor(self.counters, settings.alerts)
        self.monitor.look()

    def count(self, field: str, number: int = 1, *, place: int = 0, title: str = "POST /chat", slot: int = 0) -> None:
        """Count something of an endpoint."""
        row = self.counters.rows(slot) + self.counters.row_of(title) * ROW_WIDTH
        self.counters.words[row + ROW[field] + place] += number

    def end(self, outcome: str, number: int = 1, **more: Any) -> None:
        """Count requests that ended."""
        self.count("ended", number, place=OUTCOME_PLACES[outcome] + 3, **more)

    def after(self, seconds: float) -> list[str]:
        """Let time pass, a look a second; return what came about."""
        found = []
        for _ in range(round(seconds)):
            self.now += 1
            found += [f"{each.message['state']} {each.message['shown']}" for each in self.monitor.look()]
        return found


def test_an_alert_is_raised_once_and_recovers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised as soon as enough requests say so, and recovers when the figure has been good for the window."""
    tried = Figures(monkeypatch, "{metric: errorRate, above: 10%, over: 1m, atLeast: 20}")
    tried.end("failed", 9)
    tried.end("completed", 10, slot=1)
    assert tried.after(3) == [], "too few requests"
    tried.end("completed", 1)
    assert tried.after(3) == ["raised 45%"]
    assert tried.after(50) == []
    tried.end("timeout", 30)  # before the first ones leave the window
    assert tried.after(55) == []
    assert tried.after(60) == [], "for a whole window it must be good"
    assert tried.after(10) == ["recovered too few requests"]
    assert tried.after(100) == []


def test_an_alert_does_not_flap(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the figure crosses the threshold, there are two notices a window at most."""
    tried = Figures(monkeypatch, "{metric: errorRate, above: 50%, over: 10s, atLeast: 1}")
    found = []
    for _ in range(10):
        tried.end("failed", 3)
        found += tried.after(6)
        tried.end("completed", 9)
        found += tried.after(6)
    assert found == ["raised 100%"]


@pytest.mark.parametrize(
    ("alert", "state"),
    [
        ("{metric: errorRate, above: 1%, endpoint: /items}", ""),
        ("{metric: errorRate, above: 1%, endpoint: POST /*}", "raised 20%"),
        ("{metric: errorRate, above: 1%, endpoint: '*'}", "raised 10%"),
        ("{metric: completionRate, below: 90%}", "raised 70%"),
        ("{metric: cancelRate, above: 1%}", "raised 20%"),
        ("{metric: requestRate, above: 19/minute}", "raised 20/minute"),
        ("{metric: requestRate, below: 20/minute}", ""),
        ("{metric: reconnections, above: 1/minute}", "raised 3/minute"),
        ("{metric: openStreams, above: 6}", "raised 6.67"),
        ("{metric: firstChunk.p50, above: 60ms}", "raised 75ms"),
        ("{metric: firstChunk.p95, below: 60ms}", ""),
        ("{metric: chunkInterval.p95, above: 1s}", "raised 2.42s"),
        ("{metric: streamTime.p99, above: 0s, atLeast: 1}", ""),
        ("{metric: memory, above: 200MB}", "raised 286MB"),
        ("{metric: cpu, above: 49%}", "raised 50.8%"),
    ],
)
def test_each_metric(monkeypatch: pytest.MonkeyPatch, alert: str, state: str) -> None:
    """Each figure is that of the window, over all processes."""
    tried = Figures(monkeypatch, alert[:-1] + ", over: 1m}")
    for slot in (0, 1):
        at = tried.counters.slot(slot)
        tried.counters.words[at + SLOT["pid"]] = 1
        tried.counters.words[at + SLOT["memory"]] = 150 * 1024 * 1024
    tried.count("open", 7)
    assert tried.after(1) == []
    tried.end("failed", 2)
    tried.end("cancelled", 2)
    tried.end("cancelled", 2, title="GET /items")
    tried.end("completed", 6)
    tried.end("completed", 8, title="GET /items", slot=1)
    tried.count("reconnections", 3)
    tried.count("first", 20, place=FIRST_CHUNK_BUCKETS.index(0.1))
    tried.count("interval", 40, place=INTERVAL_BUCKETS.index(2.5), slot=1)
    tried.counters.words[tried.counters.slot(1) + SLOT["cpu"]] = 61 * MICRO
    found = tried.after(60)
    assert [each for each in found if each.startswith("raised")][-1:] == ([state] if state else [])


def test_percentiles() -> None:
    """A percentile is interpolated within its bucket; beyond the last one it is that one's bound."""
    assert percentile([0, 10, 0], (1.0, 2.0), 0.5) == 1.5
    assert percentile([5, 5, 0], (1.0, 2.0), 0.5) == 1.0
    assert percentile([0, 0, 9], (1.0, 2.0), 0.99) == 2.0


def test_alerts_survive_a_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stays as it is goes on; one that has changed starts over."""
    tried = Figures(monkeypatch, "{metric: errorRate, above: 10%, over: 1m, atLeast: 1}")
    tried.end("failed")
    assert tried.after(3) == ["raised 100%"]
    alert = Alert("errorRate", "errorRate above 10% over 1m", above=0.1, over=60.0, at_least=1)
    tried.monitor.replace([alert])
    assert tried.after(3) == []
    tried.monitor.replace([Alert("errorRate", "other", above=0.2, over=60.0, at_least=1)])
    assert tried.after(3) == [], "what was counted before is not of its window"
    tried.monitor.replace([])
    assert tried.monitor.pause() == float("inf")
    assert tried.monitor.look() == []


def test_every_metric_is_tried() -> None:
    """What the settings offer is what can be computed."""
    assert {name.partition(".")[0] for name in METRICS} == {
        *("errorRate", "completionRate", "cancelRate", "firstChunk", "chunkInterval", "streamTime"),
        *("requestRate", "reconnections", "openStreams", "memory", "cpu"),
    }


API = """
method: GET
path: /works
responseType: json
inputParameters: {works: {type: boolean, default: true}}
functionStack:
  - precondition: {that: << input.works >>, code: broken, status: 500}
"""


@asynccontextmanager
async def receiver(posted: list[tuple[dict[str, str], bytes]], statuses: list[int]) -> AsyncIterator[str]:
    """Serve a webhook that answers with some statuses (0: not at all), then with 200; give its URL."""
    over = asyncio.Event()

    async def take(request: web.BaseRequest) -> web.Response:
        posted.append((dict(request.headers), await request.read()))
        status = statuses.pop(0) if statuses else 200
        if not status:
            await over.wait()
        return web.Response(status=status)

    runner = web.ServerRunner(web.Server(take))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}/alerts"
    finally:
        over.set()
        await runner.cleanup()


async def test_destinations_are_told_once(tmp_path: Path) -> None:
    """Requests to any worker raise one alert, which is signed, sent again if it was refused, and told to recover."""
    posted: list[tuple[dict[str, str], bytes]] = []
    async with receiver(posted, [503]) as url, mail_server(Post()) as post:
        settings = f"""
email: {{url: "smtp://127.0.0.1:{post.port}", from: alerts@example.org}}
alerts:
  - name: Errors
    metric: errorRate
    above: 20%
    over: 1s
    atLeast: 4
    endpoint: GET /wor*
    send:
      webhook: {{url: {url}, secret: << env.ALERT_SECRET | default("whsec_c2VjcmV0") >>}}
      email: ops@example.org
      log: warning
"""
        async with serving(tmp_path, "--workers", "2", api=API, streamstack=settings) as server:
            for _ in range(4):
                assert (await server.ask("GET", "/works?works=false")).status == 500
            await until(lambda: len(posted) == 3 and len(post.messages) == 2)
            assert await server.stop() == 0
    bodies = [json.loads(body) for _, body in posted]
    assert [each["state"] for each in bodies] == ["raised", "raised", "recovered"]
    first = bodies[0]
    assert first == bodies[1]
    assert (first["alert"], first["figure"], first["endpoint"]) == ("Errors", 1.0, "GET /wor*")
    assert first["text"].startswith("Errors: errorRate is 100% on ")
    ids = [headers["webhook-id"] for headers, _ in posted]
    assert ids[0] == ids[1] != ids[2]
    for headers, body in posted:
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        signature = base64.b64encode(hmac.digest(b"secret", content, "sha256")).decode()
        assert headers["webhook-signature"] == f"v1,{signature}"
    assert [each["Subject"].partition(" on ")[0] for each in post.messages] == [
        "Errors: errorRate is 100%",
        "Recovered: Errors: errorRate is too few requests",
    ]
    raised = [line for line in server.lines if '"state": "raised"' in line or '"state":"raised"' in line]
    assert len(raised) == 1
    assert json.loads(raised[0])["level"] == "warning"


async def test_another_worker_sends_what_a_dead_one_could_not(tmp_path: Path) -> None:
    """An alert whose worker dies before the destination has answered is sent again, as the same message."""
    posted: list[tuple[dict[str, str], bytes]] = []
    async with receiver(posted, [0]) as url:
        alert = f"{{metric: errorRate, above: 20%, over: 5s, atLeast: 1, send: {{webhook: {url}}}}}"
        async with serving(tmp_path, "--workers", "2", api=API, streamstack=f"alerts: [{alert}]\n") as server:
            await server.ask("GET", "/works?works=false")
            await until(lambda: len(posted) == 1)
            for pid in server.workers():
                os.kill(pid, signal.SIGKILL)
            await until(lambda: len(posted) == 2)
    first, second = posted
    assert first[0]["webhook-id"] == second[0]["webhook-id"]
    assert first[1] == second[1]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_reload_brings_alerts(tmp_path: Path, workers: str) -> None:
    """A server that counted nothing counts from the reload on, and raises the alerts that it brings."""
    async with serving(tmp_path, "--workers", workers, api=API) as server:
        await server.ask("GET", "/works?works=false")
        alert = "{name: Broken, metric: errorRate, above: 20%, over: 5s, atLeast: 3}"
        (tmp_path / "streamstack.yaml").write_text(f"alerts: [{alert}]\n", "utf-8")
        server.process.send_signal(signal.SIGHUP)
        await server.said("reloaded")
        for _ in range(6):
            await server.ask("GET", "/works?works=false")
            await asyncio.sleep(0.1)
        raised = await server.said('.*"alert": ?"Broken".*')
    assert json.loads(raised[0])["figure"] == 1
