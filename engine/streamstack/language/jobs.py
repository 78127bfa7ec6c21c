"""The section `jobs` of streamstack.yaml: how many jobs run and wait, and how long they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streamstack.language.kinds import Kind
from streamstack.spec import Constant, setting

_LIMIT: Final = Constant(Kind.DURATION, off=True)


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Limits of jobs. Times are in seconds, sizes in bytes."""

    concurrency: int = setting(Constant(Kind.INTEGER, 1, 10_000), "Jobs that run at the same time in one process.", 4)
    max_queued: int = setting(
        Constant(Kind.INTEGER, 0, 1_000_000),
        "Jobs that may wait for a free place; `job.start` then fails with `unavailable`.",
        1000,
    )
    keep: float = setting(
        Constant(Kind.DURATION, positive=True, maximum=30 * 86_400.0),
        "Time for which the progress, the result and the key of a job that has ended are stored.",
        3600.0,
    )
    max_duration: float = setting(
        _LIMIT, "Maximum duration of a job, its retries included. 0 or `false` disables it.", 6 * 3600.0
    )
    max_size: int = setting(
        Constant(Kind.SIZE, positive=True), "Maximum size of the inputs of a job, and of its result.", 1024 * 1024
    )
    max_progress: int = setting(
        Constant(Kind.SIZE, positive=True),
        "Maximum size of the stored progress of a job; the oldest chunks are dropped.",
        4 * 1024 * 1024,
    )
