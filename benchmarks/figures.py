"""Figures of many measurements: medians, spreads, growth."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log
from statistics import fmean, median


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which a part (0 to 1) of the values lies, between neighbours evenly."""
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    below = floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def spread(values: Sequence[float]) -> float:
    """Return the range of the middle half of the values."""
    return percentile(values, 0.75) - percentile(values, 0.25)


def growth(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the exponent of cost over size: 1 is linear, 2 is quadratic (least squares of logs)."""
    x = [log(size) for size in sizes]
    y = [log(max(cost, 1e-12)) for cost in costs]
    middle_x, middle_y = fmean(x), fmean(y)
    above = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - middle_x) ** 2 for a in x)


def short(value: float) -> str:
    """Return a figure with three or four digits that matter."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3f}"


__all__ = ["growth", "median", "percentile", "short", "spread"]
