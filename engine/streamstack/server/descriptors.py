"""How many files, and so connections, the system lets this process have."""

from __future__ import annotations

from typing import Final

#: As many as are asked for where the system would allow any number: some programs walk through all of them.
_MOST: Final = 65_536
#: What the process itself needs: log, database, pipes, definitions that are read.
_OWN: Final = 64


def allow_connections(wanted: int) -> tuple[int, str]:
    """Open the way to many files, and return how many connections there may be: ``wanted``, or as many as fit.

    A third of the files is left to what the runs open: upstreams, databases, uploads. With it comes what to tell
    whoever starts the server, "" where all is well.
    """
    try:
        import resource  # noqa: PLC0415  (not on every system)
    except ImportError:
        return wanted, ""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _MOST:
        best = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
            soft = best
        except (ValueError, OSError):
            pass  # as many as there are
    if soft == resource.RLIM_INFINITY:
        return wanted, ""
    fit = max(1, (soft - _OWN) * 2 // 3)
    if fit >= wanted:
        return wanted, ""
    return fit, (
        f"{fit} connections are taken at once, not the {wanted} of server.maxConnections: the system lets this process "
        f"open {soft} files; raise that with `ulimit -n` (systemd: LimitNOFILE)"
    )
