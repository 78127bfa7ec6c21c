"""What a window costs an item: `python benchmarks/windows.py` prints nanoseconds of CPU time, median and spread."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median
from time import process_time_ns
from typing import Any

from streamstack.runtime.aggregates import OPERATIONS
from streamstack.runtime.windows import Figure, Shape, Window

ITEMS = 100_000
ROUNDS = 7
FIGURES = {1: ("mean",), 5: ("count", "sum", "mean", "min", "max"), 14: OPERATIONS}
WINDOWS = {
    "since the beginning": (None, 1),
    "the last 100": (100, 1),
    "the last 10,000": (10_000, 1),
    "the last 10,000, figures every 100": (10_000, 100),
    "each 10,000 by themselves": (10_000, 10_000),
}


def cost(operations: tuple[str, ...], size: int | None, every: int, by: Callable[[Any], Any] | None) -> float:
    """Return the nanoseconds an item takes, figures included."""
    rng = random.Random(1)  # noqa: S311  (no secret)
    numbers = [rng.gauss(100, 15) for _ in range(ITEMS)]
    figures = [Figure(each, each, None) for each in operations]
    window = Window(figures, by, Shape(size, None, every, 10_000, 10_000_000), 0.0)
    began = process_time_ns()
    for at in range(0, ITEMS, 1000):
        window.feed(numbers[at : at + 1000], at / 1000, [])
    return (process_time_ns() - began) / ITEMS


def main() -> None:
    """Print a table."""
    print("| window | figures | ns an item, median | least to most |\n|---|---|---|---|")
    for title, (size, every) in WINDOWS.items():
        for number, operations in FIGURES.items():
            times = [cost(operations, size, every, None) for _ in range(ROUNDS)]
            spread = f"{min(times):,.0f} to {max(times):,.0f}"
            print(f"| {title} | {number} | {median(times):,.0f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
