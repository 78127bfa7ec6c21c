"""What signals ask for, and what becomes of those that come before there is a server to heed them.

It imports next to nothing: between the first line of the program and the server lies a second of imports.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, Self

#: Asks for the files to be read again. Not where there is none, nor under nohup.
HANGUP = getattr(signal, "SIGHUP", None)
if HANGUP is not None and signal.getsignal(HANGUP) is signal.SIG_IGN:
    HANGUP = None

#: What is told where the start was given up.
GIVEN_UP: Final = "stopped before anything was served"


def on_terminal() -> bool:
    """Tell whether a person has started this: when the terminal goes, so does the server."""
    return sys.stdin is not None and sys.stdin.isatty()


def stops(number: int) -> bool:
    """Tell whether a signal asks for the end."""
    if number in (signal.SIGTERM, signal.SIGINT):
        return True
    return number == HANGUP and on_terminal()


class Early:
    """Heeds signals while it is entered, until the server takes them over: what asks for the end ends the process.

    ``anew``: the files were asked to be read again. Whoever has read them already does so once it serves.
    """

    def __init__(self) -> None:
        self.anew = False
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may ask for signals
            for each in (signal.SIGTERM, signal.SIGINT, HANGUP):
                if each is not None and signal.getsignal(each) is not signal.SIG_IGN:
                    self._before[each] = signal.signal(each, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _take(self, number: int, _: FrameType | None) -> None:
        if not stops(number):
            self.anew = True
            return
        # Nothing is open yet that would have to be closed; and an exception might come in the middle of anything, and
        # be swallowed there.
        with suppress(OSError):
            os.write(2, f"{GIVEN_UP}\n".encode())
        os._exit(0)
