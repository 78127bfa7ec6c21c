"""Whether the targets are reached."""

from __future__ import annotations

from statistics import median
from typing import Any

from figures import short
from results import Compared, Samples, Target
from servers import OURS


def judge(case: Compared, samples: Samples) -> list[dict[str, Any]]:
    """Compare our medians with the peers'; targets against what was not measured are left out."""
    return [
        _judge(case, samples, target)
        for target in case.targets
        if (target.peer or OURS) in samples.by_peer and OURS in samples.by_peer
    ]


def _judge(case: Compared, samples: Samples, target: Target) -> dict[str, Any]:
    metric = next(each for each in case.metrics if each.name == target.metric)
    ours = median(samples.by_peer[OURS][target.metric])
    if target.peer is None:
        return {
            "name": metric.name,
            "figure": f"{short(ours)} {metric.unit}",
            "must": f"at {'least' if metric.more else 'most'} {target.limit:g} {metric.unit}",
            "kept": ours >= target.limit if metric.more else ours <= target.limit,
        }
    theirs = median(samples.by_peer[target.peer][target.metric])
    name = f"{target.metric}, against {target.peer}"
    if target.difference:
        excess = ours - theirs
        return {
            "name": name,
            "figure": f"{excess:+.3f} {metric.unit}",
            "must": f"at most +{target.limit:g} {metric.unit}",
            "kept": excess <= target.limit,
        }
    ratio = ours / theirs if theirs else float("inf")
    kept = ratio >= target.limit if metric.more else ratio <= target.limit
    return {
        "name": name,
        "figure": f"{short(ratio)} x",
        "must": f"at {'least' if metric.more else 'most'} {target.limit:g} x",
        "kept": kept,
    }
