"""Runs that no client waits for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamstack import clock
from streamstack.errors import RunError
from streamstack.runtime.run import Run
from streamstack.server.background import SHUTDOWN, BackgroundRun
from streamstack.server.service import Service
from streamstack.testing.virtual_time import virtual_time


async def _value(run: Run, inputs: dict[str, Any]) -> Any:
    await asyncio.sleep(1)
    return inputs["n"]


async def _fails(run: Run, inputs: dict[str, Any]) -> Any:
    raise RunError("http-status", "the upstream said no")


async def _bug(run: Run, inputs: dict[str, Any]) -> Any:
    raise ZeroDivisionError


async def _hangs(run: Run, inputs: dict[str, Any]) -> Any:
    await asyncio.sleep(3600)


async def _emits(run: Run, inputs: dict[str, Any]) -> Any:
    run.sink.emit("x", None, None, None)


async def _own_timeout(run: Run, inputs: dict[str, Any]) -> Any:
    raise RunError("timeout", "a step took too long")


@pytest.mark.parametrize(
    ("stack", "timeout", "outcome", "code"),
    [
        (_value, None, "completed", None),
        (_fails, None, "failed", "http-status"),
        (_bug, None, "failed", "internal"),
        (_emits, None, "failed", "template"),
        (_hangs, 2.0, "timeout", "timeout"),
        (_own_timeout, 2.0, "failed", "timeout"),
    ],
)
def test_outcomes(stack: Any, timeout: float | None, outcome: str, code: str | None) -> None:
    """A run ends with its outcome, and runs its `after` with it, whatever happens in the stack."""

    async def work() -> tuple[BackgroundRun, list[str | None], float]:
        after: list[str | None] = []
        async with Service() as service:

            def prepare(run: Run) -> None:
                async def note() -> None:
                    after.append(run.outcome)

                run.after(note, 1.0)

            started = service.background.start(
                "task x", stack, inputs={"n": 5}, timeout=timeout, prepare=prepare, quiet=True
            )
            began = clock.monotonic()
            await started.wait()
            took = clock.monotonic() - began
            await service.settle()
            assert not service.background.active
        return started, after, took

    with virtual_time() as runner:
        started, after, took = runner.run(work())
    assert (started.outcome, started.error.code if started.error else None) == (outcome, code)
    assert after == [outcome]
    assert started.value == (5 if outcome == "completed" else None)
    assert took == {_value: 1.0, _hangs: 2.0}.get(stack, 0.0)


@pytest.mark.parametrize("how", ["drain", "patience", "stop", "stop_now"])
def test_the_end(how: str) -> None:
    """At shutdown a run has the time of running streams, then ends with `shutdown`; a stopped one is cancelled."""

    async def work() -> tuple[BackgroundRun, float]:
        async with Service() as service:
            started = service.background.start("job x", _hangs)
            await asyncio.sleep(1)
            began = clock.monotonic()
            if how == "stop":
                started.stop(RunError("stopped", "enough"))
                await started.wait()
            elif how == "stop_now":
                service.stop_now()
            await service.drain(30 if how != "patience" else 7200)
            took = clock.monotonic() - began
            await service.settle()
        return started, took

    with virtual_time() as runner:
        started, took = runner.run(work())
    outcome, seconds = {
        "drain": ("shutdown", 30.0),
        "patience": ("completed", 3599.0),
        "stop": ("cancelled", 0.0),
        "stop_now": ("shutdown", 0.0),
    }[how]
    assert (started.outcome, took) == (outcome, seconds)
    assert (started.reason is SHUTDOWN) == (how in ("drain", "stop_now"))
