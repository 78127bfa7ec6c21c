"""The figures as text, in Prometheus' format, and who may have them.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterator
from typing import Final

from streamstack import __version__
from streamstack.language.settings import Metrics
from streamstack.server.metrics.board import (
    BUCKETS,
    BYTES,
    CHUNKS,
    CPU,
    ENDED,
    FIRST,
    FIRST_SUM,
    MEMORY,
    OPEN,
    OUTCOMES,
    PID,
    RESTARTS,
    STATUSES,
    Board,
)
from streamstack.server.request import Request

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

#: What proxies add, one this and one that.
_HANDED_ON: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")


class Access:
    """Who may see the figures."""

    def __init__(self, settings: Metrics | None, *, dev: bool) -> None:
        self._open = settings is not None and settings.open
        self._token = (
            None if settings is None or settings.token is None else settings.token.encode()
        )
        self._dev = dev

    @property
    def possible(self) -> bool:
        """Whether anybody may: else nothing need be counted."""
        return self._open or self._token is not None or self._dev

    @property
    def asks(self) -> bool:
        """Whether who brings the token may."""
        return self._token is not None

    def admits(self, request: Request) -> bool:
        """Tell whether this request may see them."""
        if self._open or (self._dev and _is_near(request)):
            return True
        if self._token is None:
            return False
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        told = given.strip().encode("utf-8", "surrogateescape")
        return hmac.compare_digest(told, self._token) and scheme.lower() == "bearer"


def _is_near(request: Request) -> bool:
    """Tell whether a request comes from this machine, and is nobody else's that was handed on."""
    if any(name in request.headers for name in _HANDED_ON):
        return False
    try:
        peer = ipaddress.ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    return bool((mapped or peer).is_loopback)


def exposition(board: Board) -> bytes:
    """Return what all processes have counted."""
    return ("\n".join(_lines(board)) + "\n").encode()


def _lines(board: Board) -> Iterator[str]:
    sums = [(_quoted(title), found) for title, found in board.sums()]
    yield from _head(
        "requests_total", "counter", "Requests that were answered, by class of status."
    )
    for title, found in sums:
        for place, status in enumerate(STATUSES):
            if count := sum(found[ENDED + place : OPEN : len(STATUSES)]):
                yield f'streamstack_requests_total{{endpoint={title},status="{status}"}} {count}'
    ended = [(title, found) for title, found in sums if title != '""']
    yield from _head("runs_total", "counter", "Runs that are over, by their outcome.")
    for title, found in ended:
        for place, outcome in enumerate(OUTCOMES):
            at = ENDED + place * len(STATUSES)
            if count := sum(found[at : at + len(STATUSES)]):
                yield f'streamstack_runs_total{{endpoint={title},outcome="{outcome}"}} {count}'
    yield from _head("open_streams", "gauge", "Requests that are being answered.")
    yield from (
        f"streamstack_open_streams{{endpoint={title}}} {found[OPEN]}" for title, found in ended
    )
    yield from _head("chunks_total", "counter", "Chunks that were sent.")
    yield from (
        f"streamstack_chunks_total{{endpoint={title}}} {found[CHUNKS]}" for title, found in ended
    )
    yield from _head("sent_bytes_total", "counter", "Bytes of content that were sent.")
    yield from (
        f"streamstack_sent_bytes_total{{endpoint={title}}} {found[BYTES]}" for title, found in ended
    )
    yield from _head(
        "first_chunk_seconds", "histogram", "Time from the request to its first chunk."
    )
    for title, found in ended:
        yield from _histogram(title, found)
    yield from _processes(board)


def _histogram(title: str, found: list[int]) -> Iterator[str]:
    total = 0
    for place, end in enumerate((*map(str, BUCKETS), "+Inf")):
        total += found[FIRST + place]
        yield f'streamstack_first_chunk_seconds_bucket{{endpoint={title},le="{end}"}} {total}'
    seconds = found[FIRST_SUM] / 1_000_000
    yield f"streamstack_first_chunk_seconds_sum{{endpoint={title}}} {seconds:.6f}"
    yield f"streamstack_first_chunk_seconds_count{{endpoint={title}}} {total}"


def _processes(board: Board) -> Iterator[str]:
    heads = {chair: board.chair(chair) for chair in range(board.chairs)}
    words = board.words
    there = {chair: head for chair, head in heads.items() if words[head + PID]}
    yield from _head("workers", "gauge", "Processes that answer requests.")
    yield f"streamstack_workers {len(there)}"
    yield from _head("worker_restarts_total", "counter", "Processes that died and were replaced.")
    yield f"streamstack_worker_restarts_total {words[RESTARTS]}"
    yield from _head("worker_memory_bytes", "gauge", "Memory of a process that is in use.")
    for chair, head in there.items():
        yield f'streamstack_worker_memory_bytes{{worker="{chair}"}} {words[head + MEMORY]}'
    yield from _head("worker_cpu_seconds_total", "counter", "CPU time that was used.")
    for chair, head in heads.items():
        if words[head + PID] or words[head + CPU]:
            seconds = words[head + CPU] / 1_000_000
            yield f'streamstack_worker_cpu_seconds_total{{worker="{chair}"}} {seconds:.2f}'
    yield from _head("info", "gauge", "The version of streamstack.")
    yield f'streamstack_info{{version="{__version__}"}} 1'


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP streamstack_{name} {about}"
    yield f"# TYPE streamstack_{name} {kind}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
