"""The page that shows the metrics: who gets it, and the figures that it computes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.resources import files

import pytest

from streamstack.language.settings import Metrics
from streamstack.server.alerts import percentile
from streamstack.server.metrics import FIRST_CHUNK_BUCKETS, MetricsAccess, SharedCounters, WorkerMetrics, exposition
from tests.server.serving import serving
from tests.server.test_alerts import Figures

PAGE = files("streamstack").joinpath("browser/console.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("access", "extra", "statuses"),
    [
        (MetricsAccess(None, dev=False), {}, (404, 404)),
        (MetricsAccess(Metrics(token="a-token"), dev=False), {}, (200, 401)),
        (MetricsAccess(Metrics(open=True), dev=False), {}, (200, 200)),
        (MetricsAccess(None, dev=True), {}, (200, 200)),
        (MetricsAccess(None, dev=True), {"X_Forwarded_For": "192.0.2.1"}, (404, 404)),
    ],
)
async def test_the_page_is_for_those_who_may_read_the_metrics(
    access: MetricsAccess, extra: dict[str, str], statuses: tuple[int, int]
) -> None:
    """It is served where the metrics are, asks for their token itself, and may load nothing from elsewhere."""
    async with serving() as server:
        server.service.access = access
        server.service.count(WorkerMetrics(SharedCounters(())))
        page, read = await server.get("/_console", **extra), await server.get("/_metrics", **extra)
        assert (page.status, read.status) == statuses
        if page.status == 200:
            assert page.body.decode() == PAGE
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert "access-control-allow-origin" not in page.headers


def test_the_page_computes_what_alerts_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates, parts and percentiles of the time between two samples are those of the counters."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    counted = Figures(monkeypatch, "{metric: memory, above: 1GB}")
    counted.end("failed", 5)
    counted.count("first", 9, place=0)
    before = exposition(counted.counters).decode()
    counted.end("failed", 1)
    counted.end("timeout", 1)
    counted.end("cancelled", 2)
    counted.end("completed", 4, slot=1)
    counted.count("first", 3, place=4)
    counted.count("first", 1, place=7)
    counted.count("chunks", 120)
    counted.count("rating", 2, place=4)
    counted.count("open", 3)
    now = exposition(counted.counters).decode()
    script = re.search(r"<script>(.*)</script>", PAGE, re.DOTALL)
    assert script is not None
    shown = "console.log(JSON.stringify(figures(parse(samples[0]), parse(samples[1]), 60)))"
    code = f"{script[1]}\nconst samples = {json.dumps([before, now])};\n{shown}"
    done = subprocess.run([node, "-"], input=code, capture_output=True, text=True, check=True, timeout=30)
    (figures,) = json.loads(done.stdout)
    first = [0] * (len(FIRST_CHUNK_BUCKETS) + 1)
    first[4], first[7] = 3, 1
    assert figures["first"] == pytest.approx([percentile(first, FIRST_CHUNK_BUCKETS, part) for part in (0.5, 0.95)])
    del figures["first"]
    assert figures == {
        "title": "POST /chat",
        "requests": 8,
        "open": 3,
        "completed": 0.5,
        "failed": 0.25,
        "left": 0.25,
        "interval": [None, None],
        "time": [None, None],
        "chunks": 2,
        "bytes": 0,
        "resumed": 0,
        "ratings": "5: 2",
    }
