"""The machine: cores to pin to, and what /proc says about time and memory spent."""

from __future__ import annotations

import os
import platform
import resource
from functools import cache
from pathlib import Path
from time import clock_gettime

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


@cache  # what this process was given, before it pinned itself
def cores() -> tuple[int, int]:
    """Return the core of the servers and the core of the load. On one core they are the same."""
    free = sorted(os.sched_getaffinity(0))
    return free[0], free[1 % len(free)]


def pin(core: int) -> None:
    """Bind this process to a core."""
    os.sched_setaffinity(0, {core})


def allow_files() -> None:
    """Let this process, and those it starts, hold as many connections as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def cpu_seconds(process: int) -> float:
    """Return the CPU time a process has used, in seconds, all its threads.

    Its clock by the number that clock_getcpuclockid(3) gives: exact to the nanosecond, where
    /proc/PID/stat counts in hundredths of a second.
    """
    return clock_gettime((~process << 3) | 2)


def resident(process: int) -> int:
    """Return the bytes of memory a process holds."""
    return int((_PROC / str(process) / "statm").read_text().split()[1]) * _PAGE


def peak(process: int) -> int:
    """Return the most bytes of memory a process ever held."""
    for line in (_PROC / str(process) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"no VmHWM of process {process}")


def busy_seconds(core: int) -> float:
    """Return the time a core has worked since the machine started, in seconds, for any process."""
    for line in (_PROC / "stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _, _, irq, softirq, steal, *_ = map(int, line.split()[1:])
            return (user + nice + system + irq + softirq + steal) / _TICKS
    raise LookupError(f"no core {core}")


def describe() -> dict[str, str]:
    """Return what a reader of the figures must know of the machine."""
    model = "unknown"
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
