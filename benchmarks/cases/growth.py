"""B8: what grows with chunks, steps, endpoints and streams, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from figures import growth
from held import hold
from machine import cpu_seconds, peak
from projects import write_small_endpoints, write_steps
from results import Finding, Options
from servers import HERE, Server, ourselves
from wire import AnswerError, connect, fetch, get

#: The exponent up to which cost counts as linear: measurements are never quite even.
LINEAR = 1.1
#: The part of a fixed cost that growth must exceed to be seen.
HIDDEN = 0.25
#: Bytes by which the peak may differ between the smallest stream and the largest.
FLAT = 8 << 20
#: The most that a stream among many may take of what one among few takes.
ALIKE = 1.5
Rows = list[dict[str, Any]]


class Growth:
    """Ourselves at work that grows tenfold step by step."""

    key = "B8"
    title = "Growth"
    method = (
        "The exponent of cost over size: 1 is linear. Where a fixed cost is known (an endpoint without "
        "steps, a server with one endpoint) it is taken off before."
    )

    def run(self, options: Options) -> tuple[Rows, list[Finding]]:
        rows: Rows = []
        findings: list[Finding] = []
        for part in (_chunks, _steps, _endpoints, _streams):
            more, found = part(options)
            rows += more
            findings += found
        return rows, findings


def _sizes(options: Options, *sizes: int) -> Sequence[int]:
    """Return the sizes, without the largest when it has to be quick."""
    return sizes[:-1] if options.quick else sizes


def _linear(name: str, sizes: Sequence[int], costs: Sequence[float], fixed: float = 0.0) -> Finding:
    """Tell how cost grows beyond what is fixed. What the fixed cost hides says nothing, and is left out."""
    must = f"at most size^{LINEAR:g}"
    told = [
        (size, cost - fixed)
        for size, cost in zip(sizes, costs, strict=True)
        if cost - fixed > max(fixed * HIDDEN, 1e-9)
    ]
    if len(told) < 2:
        return Finding(name, f"within {HIDDEN:.0%} of what is fixed", must, kept=True)
    exponent = growth([size for size, _ in told], [cost for _, cost in told])
    return Finding(name, f"size^{exponent:.2f}", must, exponent <= LINEAR)


def _chunks(options: Options) -> tuple[Rows, list[Finding]]:
    sizes = _sizes(options, 1_000, 10_000, 100_000, 1_000_000)
    rows: Rows = []
    costs: list[float] = []
    peaks: list[int] = []
    with Server(ourselves(HERE / "definitions")) as server:
        _swallow(server, sizes[0])
        for size in sizes:
            times = max(1, 200_000 // size)
            before, used = perf_counter(), cpu_seconds(server.process)
            for _ in range(times):
                _swallow(server, size)
            seconds = (perf_counter() - before) / times
            costs.append((cpu_seconds(server.process) - used) / times)
            peaks.append(peak(server.process))
            rows.append(
                {
                    "chunks": size,
                    "seconds": seconds,
                    "µs CPU/chunk": costs[-1] / size * 1e6,
                    "peak memory, MB": peaks[-1] / (1 << 20),
                }
            )
    grown = peaks[-1] - peaks[0]
    return rows, [
        _linear("CPU over chunks", sizes, costs),
        Finding(
            f"peak memory, {sizes[-1]:,} chunks against {sizes[0]:,}",
            f"{grown / (1 << 20):+.1f} MB",
            f"at most +{FLAT >> 20} MB",
            grown <= FLAT,
        ),
    ]


def _swallow(server: Server, chunks: int) -> None:
    """Read one burst and count its chunks, keeping none of it."""
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    found = 0
    with connect(server.port) as connection:
        request = get(f"/burst?count={chunks}")
        connection.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        while count := connection.recv_into(view):
            found += buffer.count(b"{", 0, count)  # one byte can't be cut in two
    if found != 2 * chunks:
        raise AnswerError(f"{found / 2:g} chunks of {chunks}")


def _steps(options: Options) -> tuple[Rows, list[Finding]]:
    sizes = _sizes(options, 10, 100, 1_000)
    measured = [_of_project(write_steps, size, "/steps") for size in (0, *sizes)]
    fixed, *rest = measured
    rows: Rows = [
        {"steps": size, "ms CPU/request": request * 1000, "start, s": start}
        for size, (start, request) in zip(sizes, rest, strict=True)
    ]
    return rows, [
        _linear("CPU of a request over steps", sizes, [each[1] for each in rest], fixed[1]),
        _linear("start over steps", sizes, [each[0] for each in rest], fixed[0]),
    ]


def _endpoints(options: Options) -> tuple[Rows, list[Finding]]:
    sizes = _sizes(options, 10, 100, 1_000, 10_000)
    fixed = _of_project(write_small_endpoints, 1, "/small-0")
    measured = [_of_project(write_small_endpoints, size, f"/small-{size - 1}") for size in sizes]
    rows: Rows = [
        {"endpoints": size, "ms CPU/request": request * 1000, "start, s": start}
        for size, (start, request) in zip(sizes, measured, strict=True)
    ]
    return rows, [
        _linear("CPU of a request over endpoints", sizes, [each[1] for each in measured], fixed[1]),
        _linear("start over endpoints", sizes, [each[0] for each in measured], fixed[0]),
    ]


def _of_project(write: Callable[[Path, int], None], size: int, path: str) -> tuple[float, float]:
    """Return the seconds to start and the CPU seconds of a request, of a project of this size."""
    with TemporaryDirectory() as name:
        write(Path(name), size)
        with Server(ourselves(Path(name))) as server:
            fetch(server.port, get(path).replace(b"text/event-stream", b"application/json"))
            costs = [_request_cost(server, path) for _ in range(3)]
            return server.seconds, median(costs)


def _request_cost(server: Server, path: str, times: int = 500) -> float:
    request = get(path).replace(b"text/event-stream", b"application/json")
    with connect(server.port) as connection:
        used = cpu_seconds(server.process)
        for _ in range(times):
            connection.sendall(request)
            if b" 200 " not in connection.recv(1 << 16):
                raise AnswerError(f"{path} was not answered")
        return (cpu_seconds(server.process) - used) / times


def _streams(options: Options) -> tuple[Rows, list[Finding]]:
    sizes = _sizes(options, 10, 100, 1_000, 5_000)
    rows: Rows = []
    costs: list[float] = []
    for size in sizes:
        with Server(ourselves(HERE / "definitions")) as server:
            held = hold(server, size, interval=1.0, window=3.0 if options.quick else 8.0)
        costs.append(held.server_cpu / held.seconds)
        rows.append(
            {
                "streams": size,
                "CPU, % of a core": costs[-1] * 100,
                "KB/stream": held.memory / size / 1024,
                "p99 lateness, ms": held.late_by(0.99) * 1000,
            }
        )
    # The smallest count says nothing: what the process takes for itself is more than its streams.
    first, last = rows[1]["KB/stream"], rows[-1]["KB/stream"]
    return rows, [
        _linear("CPU over streams", sizes, costs),
        Finding(
            f"memory of a stream, {sizes[-1]:,} against {sizes[1]:,}",
            f"{last / first:.2f} x",
            f"at most {ALIKE:g} x",
            last <= first * ALIKE,
        ),
    ]
