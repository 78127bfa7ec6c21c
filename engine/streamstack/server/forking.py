"""Forking: a process that does one piece of work, and never goes on as its parent does."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Final

#: What wakes a supervisor; held back from a child until it knows what to do with it.
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def fork(work: Callable[[], None]) -> int:
    """Have a child do ``work``, which begins with signals held back; return its process id.

    Raises OSError where the system has no room for another process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _do(work)
    finally:
        unblock()
    return pid


def unblock() -> None:
    """Let signals through again."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _do(work: Callable[[], None]) -> None:
    """Work, and end this process."""
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001  (whatever it is, this process must not go on as a supervisor)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
