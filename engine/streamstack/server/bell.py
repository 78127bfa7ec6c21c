"""The bell that signals ring: what a process without a loop can wait for beside other things."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any

from streamstack.server.signals import stops


class Bell:
    """Takes signals down until somebody asks for them. ``fileno`` can be read when there is one."""

    def __init__(self) -> None:
        self._ear, self._rope = socket.socketpair()
        self._ear.setblocking(False)
        self._rope.setblocking(False)
        self._rung: list[int] = []

    def fileno(self) -> int:
        return self._ear.fileno()

    def hang(self, signals: Iterable[int]) -> None:
        """Take these signals down from now on (signal.set_wakeup_fd), instead of what they did before."""
        signal.set_wakeup_fd(self._rope.fileno(), warn_on_full_buffer=False)
        for each in signals:
            signal.signal(each, lambda *_: None)

    def ring(self, number: int) -> None:
        """Take a signal down that came before."""
        self._rung.append(number)

    def hear(self) -> None:
        """Take down what has come."""
        with suppress(BlockingIOError):
            self._rung += self._ear.recv(4096)

    def taken(self) -> list[int]:
        """Return the signals that were taken down since the last time."""
        rung, self._rung = self._rung, []
        return rung

    @property
    def rung(self) -> bool:
        """Whether there are any."""
        return bool(self._rung)

    @property
    def stops(self) -> bool:
        """Whether one of them asks for the end."""
        return any(map(stops, self._rung))

    def do(self, work: Coroutine[Any, Any, object]) -> None:
        """Do some work in a loop that ends again; a signal that asks for the end gives it up.

        Raises what the work raises.
        """
        asyncio.run(self._heed(work))

    async def _heed(self, work: Coroutine[Any, Any, object]) -> None:
        working = asyncio.ensure_future(work)

        def hear() -> None:
            self.hear()
            if self.stops:
                working.cancel()

        hear()
        asyncio.get_running_loop().add_reader(self, hear)
        await asyncio.wait({working})
        with suppress(asyncio.CancelledError):
            await working

    def close(self) -> None:
        """Take no more signals down."""
        signal.set_wakeup_fd(-1)
        self._ear.close()
        self._rope.close()
