"""A server whose process has no file descriptors left; run as a program, on the loop that is named."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from typing import Any

import structlog
import uvloop

from streamstack.runtime.run import Run
from streamstack.server.deadlines import LoopFaults
from tests.server.serving import Emitting, endpoint, serving


async def hello(run: Run, inputs: dict[str, Any]) -> None:
    """Send one chunk."""
    await Emitting(run)("x")


async def main() -> None:
    """Serve with ten descriptors to spare, tell the port, and at the end what it cost."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.get_running_loop().set_exception_handler(LoopFaults())
    async with serving(endpoint(hello)) as server:
        held = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        resource.setrlimit(resource.RLIMIT_NOFILE, (held + 10, held + 10))
        tell(server.port)
        begun = time.process_time()
        await asyncio.to_thread(sys.stdin.readline)
        tell(round(time.process_time() - begun, 2))
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.sleep(1.5)  # asyncio begins to accept again after a second; then it may end


def tell(value: float) -> None:
    """Write a line that the test reads."""
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run = uvloop.run if sys.argv[1] == "uvloop" else asyncio.run
    run(main())
