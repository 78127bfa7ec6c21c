"""The server of the soak: `streamstack`, which tells when it is signalled what can't be seen from outside."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import json
import os
import re
import signal
import struct
import sys
from pathlib import Path
from typing import Any

from streamstack.cli import main

_Cache = type(functools.lru_cache(bool))


class Allocated(ctypes.Structure):
    """What malloc has, in bytes: https://man7.org/linux/man-pages/man3/mallinfo.3.html."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def report() -> dict[str, Any]:
    """Return the names of all tasks, and the memory in use: blocks of Python's own allocator, and malloc's bytes.

    What is free counts in neither, though the process keeps most of it: its resident memory follows the most that it
    ever needed at once, and the holes in it.
    """
    _empty_caches()
    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Allocated
    malloc = mallinfo2()
    found = [each for each in gc.get_objects() if isinstance(each, asyncio.Task)]
    tasks = [each.get_coro() for each in found if not each.done()]
    return {
        "tasks": [getattr(each, "__qualname__", str(each)) for each in tasks],
        "blocks": sys.getallocatedblocks(),
        "bytes": malloc.uordblks + malloc.hblkhd,
    }


def _empty_caches() -> None:
    """Empty caches that have bounds: how full they are is chance. One without bounds counts as what it is."""
    re.purge()
    getattr(struct, "_clearcache", bool)()
    # What was made before a worker was forked is frozen: the garbage collector does not list it, its modules do.
    for module in list(sys.modules.values()):
        for each in list(vars(module).values()):
            if type(each) is _Cache and each.cache_parameters()["maxsize"] is not None:
                each.cache_clear()


def _tell(*_: object) -> None:
    path = Path(os.environ["STREAMSTACK_SOAK"]) / str(os.getpid())
    path.with_suffix(".part").write_text(json.dumps(report()))
    path.with_suffix(".part").rename(path.with_suffix(".told"))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _tell)
    main()
