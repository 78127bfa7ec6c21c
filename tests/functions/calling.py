"""Run stacks that call upstreams, and take the items of a stream one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.functions.http import FUNCTIONS
from streamstack.language.settings import HttpSettings
from streamstack.runtime.run import Context, Run
from streamstack.runtime.values import Stream
from tests.collector import Collector
from tests.stacks import plan_of

BY_NAME = {each.name: each for each in FUNCTIONS}
#: What the tests add to the registry as long as a family is not in it.
MORE = [each for each in FUNCTIONS if each.name not in REGISTRY]


@asynccontextmanager
async def context_of(settings: HttpSettings | None = None, *, dev: bool = False) -> AsyncIterator[Context]:
    """Give a context, and close what was opened in it."""
    context = Context(http=settings or HttpSettings(), dev=dev)
    try:
        yield context
    finally:
        await context.aclose()


async def call(name: str, settings: HttpSettings | None = None, **arguments: Any) -> Any:
    """Call a function that gives a value."""
    code = BY_NAME[name].run
    assert code is not None
    async with context_of(settings) as context:
        return await code(Run(Collector(), context), **arguments)


@dataclass
class Taken:
    """What came of a stream: its items, its error, and the stream itself."""

    items: list[Any]
    error: RunError | None
    stream: Stream

    @property
    def code(self) -> str | None:
        return self.error.code if self.error is not None else None


async def take(name: str, settings: HttpSettings | None = None, upto: int | None = None, **arguments: Any) -> Taken:
    """Read a stream to its end or its error, or up to some items."""
    code = BY_NAME[name].run
    assert code is not None
    async with context_of(settings) as context:
        stream: Stream = code(Run(Collector(), context), **arguments)
        items: list[Any] = []
        error = None
        stream.consume()
        try:
            while batch := await stream.batch():
                items += batch
                if upto is not None and len(items) >= upto:
                    break
        except RunError as raised:
            error = raised
        finally:
            await stream.close()
        return Taken(items, error, stream)


@dataclass
class Ran:
    """What a run of a stack came to."""

    result: Any
    error: RunError | None
    contents: list[Any]


async def run_calling(stack: str, inputs: Mapping[str, Any] | None = None, settings: HttpSettings | None = None) -> Ran:
    """Run a stack that calls upstreams to its end."""
    plan = plan_of(stack, functions=MORE)
    sink = Collector()
    result, error = None, None
    async with context_of(settings) as context:
        run = Run(sink, context)
        try:
            result = await plan.start(run, dict(inputs or {}))
        except RunError as raised:
            error = raised
        await run.finish("failed" if error else "completed")
    return Ran(result, error, [chunk.content for chunk in sink.chunks])
