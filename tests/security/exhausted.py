"""A server whose process has no file descriptors left; run as a program, on the loop that is named."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from typing import Any

import uvloop

from streamstack.runtime.run import Run
from streamstack.server.faults import LoopFaults
from tests.server.serving import Emitting, endpoint, serving


async def hello(run: Run, inputs: dict[str, Any]) -> None:
    """Send one chunk."""
    await Emitting(run)("x")


async def main() -> None:
    """Serve with ten descriptors to spare, tell the port, and at the end what it cost."""
    asyncio.get_running_loop().set_exception_handler(LoopFaults())
    async with serving(endpoint(hello)):
        held = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        resource.setrlimit(resource.RLIMIT_NOFILE, (held + 10, held + 10))
        time.process_time()
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    run = uvloop.run if sys.argv[1] == "uvloop" else asyncio.run
    run(main())
