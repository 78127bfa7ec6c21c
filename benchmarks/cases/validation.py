"""B7: how long `streamstack validate` takes for a large project."""

from __future__ import annotations

import resource
import subprocess
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from figures import short, spread
from machine import cores, pin
from projects import write_endpoints
from results import Finding, Options
from servers import streamstack

ENDPOINTS = 1000
MOST = 3.0


class Validation:
    """Endpoints as authors write them, validated from the command line."""

    key = "B7"
    title = f"`streamstack validate` on {ENDPOINTS:,} endpoint files"
    method = "The whole command on one core, from its start to its end."

    def run(self, options: Options) -> tuple[list[dict[str, Any]], list[Finding]]:
        with TemporaryDirectory() as name:
            folder = Path(name)
            write_endpoints(folder, ENDPOINTS)
            before = _cpu_of_children()
            times = [_validate(folder) for _ in range(options.rounds)]
            used = (_cpu_of_children() - before) / options.rounds
        middle = median(times)
        row = {
            "endpoints": ENDPOINTS,
            "seconds": middle,
            "middle half, s": spread(times),
            "CPU, s": used,
            "ms/endpoint": middle / ENDPOINTS * 1000,
        }
        return [row], [Finding("time", f"{short(middle)} s", f"under {MOST:g} s", kept=middle < MOST)]


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _validate(folder: Path) -> float:
    of_servers, _ = cores()
    before = time.perf_counter()
    done = subprocess.run(
        [streamstack(), "validate", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        preexec_fn=lambda: pin(of_servers),
    )
    if done.returncode:
        raise RuntimeError(f"validate found: {(done.stdout + done.stderr)[:2000]}")
    return time.perf_counter() - before
