"""Stacks written at random, of everything that nests: each compiles, and whenever it is stopped, it stops."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.runtime.probes import Probes
from streamstack.runtime.run import Context, Run
from tests.collector import Collector
from tests.stacks import plan_of

NAMES = ("a", "b", "item", "x_1")
VALUES = (
    "<< a | default(1) >>",
    "<< [b | default(2)] >>",
    "<< loop.index | default(0) >>",
    5,
    "t<< b | default('q') >>",
)
CONDITIONS = (True, False, "<< (a | default(1)) == 1 >>", "<< loop is defined >>", "<< b is defined >>")
SAY = """
kind: function
name: say
inputParameters: {v: json}
functionStack:
  - stream: << input.v >>
  - return: << input.v >>
"""
DEEPEST = 5


class Writer:
    """Writes one stack."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  (no secret)

    def stack(self, depth: int = 0, *, loop: bool = False, silent: bool = False) -> list[Any]:
        """Write steps; break and continue only in a ``loop``, nothing that emits where it is to be ``silent``."""
        count = self.chance.randint(0 if depth < DEEPEST else 1, 3)
        return [self.step(depth + 1, loop=loop, silent=silent) for _ in range(count)]

    def step(self, depth: int, *, loop: bool, silent: bool) -> dict[str, Any]:
        pick = self.chance.choice
        leaf: list[dict[str, Any]] = [
            {"set": {name: pick(VALUES) for name in self.chance.sample(NAMES, pick((0, 1, 2)))}},
            {"append": {"to": "held", "value": pick(VALUES)}},
            {"wait": "1ms"},
            {"throw": pick(("x", "timeout")), "when": pick(CONDITIONS)},
            {"collect": [1, 2], "as": pick(NAMES)},
        ]
        leaving: list[dict[str, Any]] = [
            {name: None, "when": pick(CONDITIONS)} for name in ("break", "continue") if loop
        ]
        leaving.append({"return": pick(VALUES), "when": pick(CONDITIONS)})
        emitting: list[dict[str, Any]] = [
            {"stream": pick(VALUES)},
            {"call": {"function": "say", "with": {"v": pick(VALUES)}}, "as": pick(NAMES)},
        ]
        if depth > DEEPEST or self.chance.random() < 0.3:
            return pick(leaf + leaving + ([] if silent else emitting))
        step: dict[str, Any] = pick([self.loop, self.choice, self.attempt, self.branches])(depth, loop, silent)
        if self.chance.random() < 0.2:
            step["retry"] = {"times": 1, "delay": 0}
        if self.chance.random() < 0.2:
            step["timeout"] = pick(("1s", "2ms"))
        return step

    def loop(self, depth: int, loop: bool, silent: bool) -> dict[str, Any]:  # noqa: FBT001
        body = self.stack(depth, loop=True, silent=silent)
        each = {"in": [1, 2, 3], "as": self.chance.choice(NAMES), "do": body}
        if self.chance.random() < 0.3:
            each["onError"] = "skip"
        return self.chance.choice(
            [
                {"forEach": each | self.chance.choice([{}, {"limit": 2, "onLimit": "stop"}])},
                {"forEach": each | {"concurrency": 2, "ordered": self.chance.random() < 0.5}},
                {"while": {"condition": self.chance.choice(CONDITIONS), "limit": 2, "onLimit": "stop", "do": body}},
                {"repeat": {"times": 2, "do": body}},
            ]
        )

    def choice(self, depth: int, loop: bool, silent: bool) -> dict[str, Any]:  # noqa: FBT001
        one, two, three = (self.stack(depth, loop=loop, silent=silent) for _ in range(3))
        asked = self.chance.choice(CONDITIONS)
        return self.chance.choice(
            [
                {"if": {"condition": asked, "then": one, "elseIf": [{"condition": asked, "then": two}], "else": three}},
                {"switch": {"value": self.chance.choice(VALUES), "cases": {"1": one, "'\\": two}, "default": three}},
            ]
        )

    def attempt(self, depth: int, loop: bool, silent: bool) -> dict[str, Any]:  # noqa: FBT001
        one, two, three = (self.stack(depth, loop=loop, silent=silent) for _ in range(3))
        given: dict[str, Any] = {"do": one}
        if self.chance.random() < 0.8:
            given["catch"] = {"do": two} | self.chance.choice([{}, {"on": ["x"]}, {"as": "fault"}])
        if self.chance.random() < 0.6:
            given["finally"] = three
        return {"try": given}

    def branches(self, depth: int, loop: bool, silent: bool) -> dict[str, Any]:  # noqa: FBT001
        if self.chance.random() < 0.2:
            return {"after": {"do": self.stack(depth, silent=True)}}
        if self.chance.random() < 0.5:
            names = self.chance.sample(NAMES, 2)
            return {"parallel": {"branches": {name: self.stack(depth, silent=silent) for name in names}}}
        made: dict[str, Any] = {"in": [1, 2], "as": self.chance.choice(NAMES), "do": self.stack(depth, silent=silent)}
        reading = {"in": "<< made >>", "do": self.stack(depth, loop=True, silent=silent)}
        made |= self.chance.choice([{}, {"concurrency": 2}])
        return {"if": {"condition": True, "then": [{"streams.map": made, "as": "made"}, {"forEach": reading}]}}


@pytest.mark.parametrize("first", range(0, 100, 10))
async def test_whatever_is_nested_runs_and_stops(first: int) -> None:
    """No stack is bad Python, fails inside the engine, outlives its stop, or leaves a task behind."""
    for seed in range(first, first + 10):
        writer = Writer(seed)
        steps = [{"set": {"held": []}}, *writer.stack(), *writer.stack()]
        plan = plan_of(
            "\n".join(f"- {json.dumps(step)}" for step in steps), also=SAY, probes=Probes() if seed % 3 else None
        )
        run = Run(Collector(), Context())
        task = asyncio.create_task(plan.start(run, {}))
        stopped = False
        if seed % 2:
            await asyncio.sleep(writer.chance.random() * 0.004)
            stopped = task.cancel()
        await asyncio.wait((task,), timeout=20)
        assert task.done(), seed
        assert task.cancelled() is stopped, seed
        error = None if stopped else task.exception()
        if error is not None:
            assert isinstance(error, RunError), seed
            assert error.code in ("x", "timeout", "template"), (seed, error.message)
            assert error.place is not None, (seed, error.message)
        await run.finish("completed")
        assert asyncio.all_tasks() == {asyncio.current_task()}, seed
