"""What signals ask for, and what becomes of those that come before a server can handle them.

It imports next to nothing: between the first line of the program and the server lies a second of imports.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Final, Self

#: Asks for the files to be read again. Not where there is none, nor under nohup.
HANGUP = getattr(signal, "SIGHUP", None)
if HANGUP is not None and signal.getsignal(HANGUP) is signal.SIG_IGN:
    HANGUP = None

#: The message of a start that was given up.
START_ABORTED: Final = "stopped before anything was served"


def on_terminal() -> bool:
    """Tell whether a person has started this: when the terminal goes, so does the server."""
    return sys.stdin is not None and sys.stdin.isatty()


def stops(number: int) -> bool:
    """Tell whether a signal asks for the end."""
    if number in (signal.SIGTERM, signal.SIGINT):
        return True
    return number == HANGUP and on_terminal()


def exit_on_signal() -> None:
    """End the process, with 0, when a signal asks for the end from now on: it has come, and all is closed.

    What is left takes its time all the same: threads, then the interpreter, which gives signals back their defaults.
    These would make a failure of it.
    """
    for each in (signal.SIGTERM, signal.SIGINT, HANGUP):
        if each is not None and signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _exit)
            atexit.register(signal.signal, each, signal.SIG_IGN)  # the threads are gone by then


def _exit(number: int, _: FrameType | None) -> None:
    if stops(number):
        os._exit(0)


class Early:
    """Heeds signals while it is entered, until the server takes them over: what asks for the end ends the process.

    It is entered for as long as the program runs: what comes after the server, see `leave_at_once`.

    ``reload``: a reload was requested. A server that has read the files already reloads them once it serves.
    """

    def __init__(self) -> None:
        self.reload = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may ask for signals
            for each in (signal.SIGTERM, signal.SIGINT, HANGUP):
                if each is not None and signal.getsignal(each) is not signal.SIG_IGN:
                    signal.signal(each, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            exit_on_signal()

    def _take(self, number: int, _: FrameType | None) -> None:
        if not stops(number):
            self.reload = True
            return
        # Nothing is open yet that would have to be closed; and an exception might come in the middle of anything, and
        # be swallowed there.
        with suppress(OSError):
            os.write(2, f"{START_ABORTED}\n".encode())
        os._exit(0)
