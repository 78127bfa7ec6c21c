"""A server, as far as its database goes: starts the embedded PostgreSQL, says so, and waits for its end.

Its argument is JSON: `folder`; and `uid`, a user to become first (root only); `python`, which that user can run;
`limit`, the largest file in bytes that it may write; `worker`, whether a process is forked off it that does nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from streamstack.connections.database.embedded import Embedded, EmbeddedError


def say(what: dict[str, Any]) -> None:
    """Print a line for the test to read."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main(task: dict[str, Any]) -> None:
    """Start, say how to connect, wait for the end of standard input, stop."""
    programs = Path(task["bin"]) if "bin" in task else None
    embedded = Embedded(Path(task["folder"]), bin_folder=programs)
    try:
        connection = await embedded.start()
    except EmbeddedError as error:
        say({"error": str(error)})
        return
    worker = os.fork() if task.get("worker") else None
    if worker == 0:
        signal.pause()
    say({"connection": dict(connection), "postmaster": embedded.pid, "worker": worker})
    await asyncio.to_thread(sys.stdin.read)
    await embedded.stop()
    say({"stopped": True})


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if "limit" in given:
        resource.setrlimit(resource.RLIMIT_FSIZE, (given["limit"], given["limit"]))
    if "uid" in given:
        # What asyncio imports late may be out of this user's reach.
        asyncio.run(asyncio.to_thread(len, ""))
        os.setgroups([])
        os.setresgid(given["uid"], given["uid"], given["uid"])
        os.setresuid(given["uid"], given["uid"], given["uid"])
    sys.executable = given.get("python", sys.executable)
    asyncio.run(main(given))
