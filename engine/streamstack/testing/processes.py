"""Work that is done on several processes, which share what was read and compiled before."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Final, TypeVar

#: Items that are worth a process of their own: it takes as long to start as some tests.
_PER_PROCESS: Final = 8
#: Seconds for a process to end that was asked to.
_END_WITHIN: Final = 5.0

T = TypeVar("T")
R = TypeVar("R")


def processes_for(count: int, jobs: int | None) -> int:
    """Return on how many processes so many items are worked at: at most ``jobs``, None for as many as are worth it."""
    if not hasattr(os, "fork"):
        return 1
    most = max(1, count // _PER_PROCESS) if jobs is None else count
    return max(1, min(jobs or os.cpu_count() or 1, most))


def run_on_processes(
    items: Sequence[T], run: Callable[[T], R], close: Callable[[], None], jobs: int | None
) -> Iterator[tuple[int, R | None]]:
    """Yield the index and the result of each item as they come; None where its process died.

    ``close`` is called at the end of each process that is started. See `processes_for` for ``jobs``.
    """
    processes = processes_for(len(items), jobs)
    if processes == 1:
        yield from ((index, run(item)) for index, item in enumerate(items))
        return
    context = get_context("fork")
    workers: dict[Connection, Any] = {}
    assigned: dict[Connection, int] = {}
    waiting = iter(range(len(items)))
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, [*workers, ours], items, run, close), daemon=True)
            with _uninterrupted():
                process.start()
                workers[ours] = process
            theirs.close()
            _assign(ours, waiting, assigned)
        while assigned:
            for ready in wait(list(assigned)):
                assert isinstance(ready, Connection)
                index = assigned.pop(ready)
                try:
                    yield index, ready.recv()
                except EOFError:
                    yield index, None
                    continue
                _assign(ready, waiting, assigned)
        for connection in workers:
            connection.close()
        for process in workers.values():
            process.join(_END_WITHIN)
    finally:
        for process in workers.values():
            if process.is_alive():
                process.kill()
                process.join()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back, also from processes that are started meanwhile."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _assign(connection: Connection, waiting: Iterator[int], assigned: dict[Connection, int]) -> None:
    index = next(waiting, None)
    if index is not None:
        connection.send(index)
        assigned[connection] = index


def _work(
    connection: Connection,
    others: Sequence[Connection],
    items: Sequence[T],
    run: Callable[[T], R],
    close: Callable[[], None],
) -> None:
    """Work at the items that are asked for, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for each in others:
        each.close()
    try:
        while True:
            connection.send(run(items[connection.recv()]))
    except (EOFError, BrokenPipeError):
        pass
    finally:
        close()
